//! What Squid asks its helpers on their standard input, a line each: `external_acl_type` and `url_rewrite_program`.
//!
//! `[channel] address …`: the channel's number is there if Squid was configured with `concurrency`. Fields after the address
//! are whatever the administrator lets Squid send, `%SRC` and `%LOGIN` perhaps, and are skipped unread. An address with
//! `://` is an URL; anything else is what is known of a host before its URLs are seen (`CONNECT`, `%ssl::>sni`), with a port
//! or without; `-` is Squid's word for nothing, and matches nothing.
//!
//! | style | the ACL matches, or the address is replaced | else | undecided: no lists yet |
//! |---|---|---|---|
//! | ACL of what is blocked | `OK blocker_verdict_=block blocker_list_=…` | `ERR blocker_verdict_=…` | `BH` |
//! | ACL of hosts to look into | `OK blocker_verdict_=inspect` | `ERR blocker_verdict_=…` | `BH` |
//! | rewriter that redirects | `OK status=302 url="…"` | `ERR`: unchanged | as if listed |
//! | rewriter that replaces | `OK rewrite-url="…?list=…"` | `ERR`: unchanged | as if listed |
//!
//! What has no answer yet is `ERR` instead, so that it passes, for who wants it so. `BH` would not keep it from passing through
//! a rewriter: Squid goes on with the address as it was.
//!
//! The keys end with `_`, which Squid leaves to helpers; of others that it does not know it complains in its log.
//! In an ACL's line fields are URL-escaped by Squid, a rewriter's address is as it was asked for.
//!
//! Bounds: a line of 256 KiB; of a longer one the rest is skipped, and the answer is `BH`.

use memchr::{memchr, memchr_iter};

use super::held::Held;
use super::http::{unescape, without_port};
use super::{Answer, Codec, Decide, Flow};
use crate::decide::Verdict;

/// Longest line: an URL of 64 KiB with each byte escaped, and room for what is beside it.
pub const MAX_LINE_BYTES: usize = 256 * 1024;

/// What the helper is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Style {
    /// An ACL that matches what has this verdict.
    Matches(Verdict),
    /// A rewriter that sends clients to this address instead of a listed page.
    Redirects(String),
    /// A rewriter that has Squid fetch this address, with the list's name, instead of a listed page.
    Replaces(String),
}

/// One Squid.
pub struct Squid {
    style: Style,
    /// Whether what cannot be decided passes.
    open: bool,
    /// The beginning of a line that is not whole.
    held: Held,
    /// How much of it was searched for its end.
    searched: usize,
    /// Whether the rest of a line is to be skipped, and its channel.
    skipping: Option<Vec<u8>>,
    /// The address, unescaped; kept for its memory only.
    address: Vec<u8>,
}

impl Squid {
    /// A helper of this style; `open`: what cannot be decided passes.
    pub fn new(style: Style, open: bool) -> Self {
        Self { style, open, held: Held::default(), searched: 0, skipping: None, address: Vec::new() }
    }

    /// Answers all whole lines; hands back what is left.
    fn consume<'a, D: Decide>(&mut self, mut input: &'a [u8], gate: &mut D, output: &mut Vec<u8>) -> (Flow, &'a [u8]) {
        let first = memchr(b'\n', &input[self.searched..]).map_or(input.len(), |end| self.searched + end + 1);
        let mut coming = &input[first..];
        coming = look_ahead(coming, gate);
        loop {
            coming = look_ahead(coming, gate);
            let Some(end) = memchr(b'\n', &input[self.searched..]).map(|found| self.searched + found) else {
                if self.skipping.is_some() {
                    return (Flow::Open, &[]);
                }
                if input.len() > MAX_LINE_BYTES {
                    self.skipping = Some(channel(input).0.to_vec());
                    self.searched = 0;
                    return (Flow::Open, &[]);
                }
                self.searched = input.len();
                return (Flow::Open, input);
            };
            let line = &input[..end];
            self.searched = 0;
            if let Some(channel) = self.skipping.take() {
                output.extend_from_slice(&channel);
                self.undecided("line-too-long", output);
            } else if line.len() > MAX_LINE_BYTES {
                output.extend_from_slice(channel(line).0);
                self.undecided("line-too-long", output);
            } else {
                self.answer(line.strip_suffix(b"\r").unwrap_or(line), gate, output);
            }
            input = &input[end + 1..];
        }
    }

    fn answer<D: Decide>(&mut self, line: &[u8], gate: &mut D, output: &mut Vec<u8>) {
        let (channel, rest) = channel(line);
        output.extend_from_slice(channel);
        let field = &rest[..memchr(b' ', rest).unwrap_or(rest.len())];
        let address = if matches!(self.style, Style::Matches(_)) {
            self.address.clear();
            unescape(field, &mut self.address);
            &self.address
        } else {
            field
        };
        let answer = match address {
            b"" => return self.undecided("no-address", output),
            b"-" => Some(Answer { verdict: Verdict::Allow, list: "" }),
            _ if has_scheme(address) => gate.url(address),
            _ => gate.host(without_port(address)),
        };
        let Some(answer) = answer else { return self.undecided("no-lists-yet", output) };
        self.put(answer, output);
    }

    /// What cannot be decided, for a reason.
    fn undecided(&self, reason: &str, output: &mut Vec<u8>) {
        match self.style {
            _ if self.open => output.extend_from_slice(b"ERR\n"),
            Style::Matches(_) => output.extend_from_slice(format!("BH message={reason}\n").as_bytes()),
            Style::Redirects(_) | Style::Replaces(_) => self.put(Answer { verdict: Verdict::Block, list: "" }, output),
        }
    }

    fn put(&self, Answer { verdict, list }: Answer<'_>, output: &mut Vec<u8>) {
        let mut put = |parts: &[&str]| parts.iter().for_each(|part| output.extend_from_slice(part.as_bytes()));
        match &self.style {
            Style::Matches(wanted) => {
                put(&[if verdict == *wanted { "OK" } else { "ERR" }, " blocker_verdict_=", verdict.name()]);
                if !list.is_empty() {
                    put(&[" blocker_list_=", list]);
                }
            }
            Style::Redirects(page) if verdict == Verdict::Block => put(&["OK status=302 url=\"", page, "\""]),
            Style::Replaces(page) if verdict == Verdict::Block => {
                put(&["OK rewrite-url=\"", page]);
                if !list.is_empty() {
                    put(&[if page.contains('?') { "&list=" } else { "?list=" }, list]);
                }
                put(&["\""]);
            }
            Style::Redirects(_) | Style::Replaces(_) => put(&["ERR"]),
        }
        output.push(b'\n');
    }
}

impl Codec for Squid {
    fn feed<D: Decide>(&mut self, input: &[u8], gate: &mut D, output: &mut Vec<u8>) -> Flow {
        let mut held = std::mem::take(&mut self.held);
        let flow = held.feed(input, |data| self.consume(data, gate, output));
        self.held = held;
        flow
    }

    fn unfinished(&self) -> bool {
        !self.held.is_empty() || self.skipping.is_some()
    }

    fn memory(&self) -> usize {
        self.held.memory() + self.address.capacity() + self.skipping.as_ref().map_or(0, Vec::capacity)
    }

    fn drain(&mut self) {
        // Squid ends its helpers by closing their input.
    }
}

/// Tells of the first of the lines that come; hands back those after it.
fn look_ahead<'a>(coming: &'a [u8], gate: &mut impl Decide) -> &'a [u8] {
    let Some(end) = memchr(b'\n', coming) else { return &[] };
    gate.ahead(&coming[..end]);
    &coming[end + 1..]
}

/// Whether `://` is somewhere in it. Most often it is at the first colon, for which no searcher need be built.
fn has_scheme(address: &[u8]) -> bool {
    memchr_iter(b':', address).any(|at| address[at..].starts_with(b"://"))
}

/// The channel's number with its space, or nothing; and the rest of the line.
fn channel(line: &[u8]) -> (&[u8], &[u8]) {
    let digits = line.iter().take(20).take_while(|byte| byte.is_ascii_digit()).count();
    if digits > 0 && line.get(digits) == Some(&b' ') { line.split_at(digits + 1) } else { (&[], line) }
}
