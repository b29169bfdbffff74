//! Reading a list line by line from chunks split anywhere, in bounded memory.

use std::fmt;

use crate::canonical::Canonical;
use crate::rule::{self, Options};
use crate::ruleset::Builder;

/// A NUL byte was found: the input is no text. Holds the line it was on.
#[derive(Debug, PartialEq, Eq)]
pub struct Binary(pub u64);

impl fmt::Display for Binary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "input is binary, not text: NUL byte in line {}; unpack it or check where it comes from", self.0)
    }
}

/// A sans-IO reader: [`feed`](Self::feed) it chunks, then [`finish`](Self::finish).
///
/// Whole input, byte-by-byte input and any split give the same rules and errors. A line longer than the limit is bad and
/// is skipped without being kept.
pub struct LineParser {
    options: Options,
    max_line: usize,
    max_errors: usize,
    url: Canonical,
    partial: Vec<u8>,
    skipping: bool,
    lines: u64,
    bad: u64,
    errors: Vec<(u64, &'static str)>,
    rules: Builder,
    found: usize,
}

impl LineParser {
    /// A reader that keeps lines up to `max_line` bytes and at most `max_errors` errors (all are counted).
    pub fn new(options: Options, max_line: usize, max_errors: usize) -> Self {
        Self {
            options,
            max_line,
            max_errors,
            url: Canonical::default(),
            partial: Vec::new(),
            skipping: false,
            lines: 0,
            bad: 0,
            errors: Vec::new(),
            rules: Builder::default(),
            found: 0,
        }
    }

    /// Lines seen so far.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// Rules found so far, repeated ones counted.
    pub fn rules(&self) -> usize {
        self.found + self.rules.len()
    }

    /// Lines that are no rules.
    pub fn bad(&self) -> u64 {
        self.bad
    }

    /// The first bad lines: number, from 1, and reason.
    pub fn errors(&self) -> &[(u64, &'static str)] {
        &self.errors
    }

    /// Reads a chunk.
    pub fn feed(&mut self, mut data: &[u8]) -> Result<(), Binary> {
        if let Some(nul) = memchr::memchr(0, data) {
            return Err(Binary(self.lines + 1 + memchr::memchr_iter(b'\n', &data[..nul]).count() as u64));
        }
        while let Some(end) = memchr::memchr(b'\n', data) {
            let (line, rest) = (&data[..end], &data[end + 1..]);
            data = rest;
            if self.skipping || self.partial.len() + line.len() > self.max_line {
                self.skipping = false;
                self.partial.clear();
                self.lines += 1;
                self.report("line is too long");
            } else if self.partial.is_empty() {
                self.line(line);
            } else {
                let mut whole = std::mem::take(&mut self.partial);
                whole.extend_from_slice(line);
                self.line(&whole);
                whole.clear();
                self.partial = whole;
            }
        }
        if self.skipping || self.partial.len() + data.len() > self.max_line {
            self.skipping = true;
            self.partial.clear();
        } else {
            self.partial.extend_from_slice(data);
        }
        Ok(())
    }

    /// Reads what stands after the last line end, and hands out the rules.
    pub fn finish(&mut self) -> Builder {
        if std::mem::take(&mut self.skipping) {
            self.lines += 1;
            self.report("line is too long");
        } else if !self.partial.is_empty() {
            let last = std::mem::take(&mut self.partial);
            self.line(&last);
        }
        self.found += self.rules.len();
        std::mem::take(&mut self.rules)
    }

    fn line(&mut self, line: &[u8]) {
        self.lines += 1;
        // A byte order mark is no part of the first line.
        let line = if self.lines == 1 { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line) } else { line };
        if std::str::from_utf8(line).is_err() {
            return self.report("line is not UTF-8");
        }
        let rules = &mut self.rules;
        if let Err(error) = rule::parse_line(line, self.options, &mut self.url, &mut |rule| rules.push(&rule, "", "")) {
            self.report(error.0);
        }
    }

    fn report(&mut self, reason: &'static str) {
        self.bad += 1;
        if self.errors.len() < self.max_errors {
            self.errors.push((self.lines, reason));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::{Format, Kind};

    fn parser() -> LineParser {
        let options =
            Options { format: Format::Url, bare: Kind::Host, trailing_slash: Kind::Prefix, name: Kind::Domain };
        LineParser::new(options, 40, 2)
    }

    #[test]
    fn every_split_reads_the_same() {
        let long = "x".repeat(50);
        let text =
            format!("\u{feff}http://a.example/x\r\n# c\n\nhhttp://b/\n{long}\nb.example\nhttp://c.example/{long}");
        let read = |size: usize| {
            let mut parser = parser();
            for chunk in text.as_bytes().chunks(size) {
                parser.feed(chunk).unwrap();
            }
            let rules = parser.finish().finish();
            (rules.text().to_vec(), parser.lines(), parser.bad(), parser.errors().to_vec())
        };
        let whole = read(text.len());
        assert_eq!((whole.1, whole.2, whole.3.len()), (7, 3, 2));
        assert_eq!(whole.3[0].0, 4);
        for size in 1..text.len() {
            assert_eq!(read(size), whole);
        }
    }

    #[test]
    fn binary_input_is_refused() {
        assert_eq!(parser().feed(b"a.example\nb\0"), Err(Binary(2)));
    }
}
