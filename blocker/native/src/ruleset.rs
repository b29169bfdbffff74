//! A list's rules in clear text, for those who hold the seal key: building, comparing, patching.
//!
//! Text form, one rule a line, sorted by bytes, six fields ended by TAB (the last by LF):
//!
//! 1. host
//! 2. code: `d` domain, `h` host, `p` prefix, `e` exact; `P` and `E` hold on every subdomain as well
//! 3. path, empty for `d` and `h`
//! 4. `?` and the query, or empty for any query
//! 5. the authority's reference, or empty
//! 6. further metadata, JSON, or empty
//!
//! Canonical hosts, paths and queries hold no TAB or LF. The first four fields are the rule's identity: of two lines
//! that agree in them the smaller one stays. Equal sets have equal texts, so the text's SHA-256 names the set.

use sha2::{Digest as _, Sha256};

use crate::canonical::Canonical;
use crate::hashed;
use crate::rule::{Kind, Rule};

/// The codes of [`Kind`], and of its path kinds with subdomains.
const CODES: [(u8, Kind, bool); 6] = [
    (b'd', Kind::Domain, false),
    (b'h', Kind::Host, false),
    (b'p', Kind::Prefix, false),
    (b'e', Kind::Exact, false),
    (b'P', Kind::Prefix, true),
    (b'E', Kind::Exact, true),
];

/// Rules collected in any order.
#[derive(Default)]
pub struct Builder {
    text: Vec<u8>,
    starts: Vec<usize>,
}

impl Builder {
    /// Adds a rule; `reference` and `metadata` hold no TAB and no LF.
    pub fn push(&mut self, rule: &Rule<'_>, reference: &str, metadata: &str) {
        self.starts.push(self.text.len());
        let code =
            CODES.iter().find(|code| (code.1, code.2) == (rule.kind, rule.subdomains)).map_or(b'd', |code| code.0);
        let text = &mut self.text;
        text.extend_from_slice(rule.host);
        text.extend_from_slice(&[b'\t', code, b'\t']);
        text.extend_from_slice(rule.path);
        text.push(b'\t');
        if let Some(query) = rule.query {
            text.push(b'?');
            text.extend_from_slice(query);
        }
        for field in [reference, metadata] {
            text.push(b'\t');
            text.extend_from_slice(field.as_bytes());
        }
        text.push(b'\n');
    }

    /// How many rules were added, repeated ones counted.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether none was added.
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// Sorts and removes repeats. Cost: one sort of the lines.
    pub fn finish(self) -> RuleSet {
        let Self { text, starts } = self;
        let line = |start: usize| &text[start..line_end(&text, start)];
        // Most comparisons end in the first eight bytes, which are compared without touching the text.
        let mut order: Vec<(u64, usize)> = starts
            .iter()
            .map(|&start| {
                let mut head = [0; 8];
                let line = line(start);
                let length = line.len().min(8);
                head[..length].copy_from_slice(&line[..length]);
                (u64::from_be_bytes(head), start)
            })
            .collect();
        drop(starts);
        order.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| line(a.1).cmp(line(b.1))));
        let mut set = RuleSet { text: Vec::with_capacity(text.len()), starts: Vec::with_capacity(order.len()) };
        for (_, start) in order {
            set.push_line(line(start));
        }
        set
    }
}

/// Rules in canonical order.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RuleSet {
    text: Vec<u8>,
    starts: Vec<usize>,
}

/// One line of a [`RuleSet`].
pub struct Entry<'a> {
    /// The rule.
    pub rule: Rule<'a>,
    /// The authority's reference, or empty.
    pub reference: &'a str,
    /// Further metadata, or empty.
    pub metadata: &'a str,
}

impl RuleSet {
    /// Number of rules.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether it holds no rule.
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// The text form.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// SHA-256 of the text form.
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(&self.text).into()
    }

    /// Reads a text form; the error names the line and what is wrong with it.
    pub fn load(text: Vec<u8>) -> Result<Self, String> {
        let mut starts: Vec<usize> = Vec::new();
        let mut start = 0;
        while start < text.len() {
            let number = starts.len() + 1;
            let end = line_end(&text, start);
            let line = &text[start..end];
            if !line.ends_with(b"\n") || std::str::from_utf8(line).is_err() || parse(line).is_none() {
                return Err(format!("rule text is damaged at line {number}: expected six fields"));
            }
            if starts.last().is_some_and(|&last| identity(&text[last..start]) >= identity(line)) {
                return Err(format!("rule text is damaged at line {number}: out of order"));
            }
            starts.push(start);
            start = end;
        }
        Ok(Self { text, starts })
    }

    /// The rule at a position in canonical order.
    pub fn get(&self, at: usize) -> Option<Entry<'_>> {
        parse(self.line(at)?)
    }

    /// All rules in canonical order.
    pub fn iter(&self) -> impl Iterator<Item = Entry<'_>> {
        (0..self.len()).filter_map(|at| self.get(at))
    }

    /// What `newer` has and lacks, compared to this: (added, removed). A rule whose metadata changed is in both.
    pub fn diff(&self, newer: &Self) -> (Self, Self) {
        let (mut added, mut removed) = (Self::default(), Self::default());
        let (mut old, mut new) = (0, 0);
        loop {
            match (self.line(old), newer.line(new)) {
                (Some(a), Some(b)) if a == b => (old, new) = (old + 1, new + 1),
                (Some(a), b) if b.is_none_or(|b| a < b) => {
                    removed.push_line(a);
                    old += 1;
                }
                (_, Some(b)) => {
                    added.push_line(b);
                    new += 1;
                }
                (_, None) => return (added, removed),
            }
        }
    }

    /// This set without `removed`, with `added`. Lines of `removed` that are not here are ignored.
    pub fn patched(&self, added: &Self, removed: &Self) -> Self {
        let mut set = Self { text: Vec::with_capacity(self.text.len() + added.text.len()), starts: Vec::new() };
        let (mut old, mut new, mut gone) = (0, 0, 0);
        loop {
            let (kept, fresh) = (self.line(old), added.line(new));
            if let Some(line) = kept {
                while removed.line(gone).is_some_and(|removed| removed < line) {
                    gone += 1;
                }
                if removed.line(gone) == Some(line) {
                    old += 1;
                    continue;
                }
            }
            match (kept, fresh) {
                (Some(line), fresh) if fresh.is_none_or(|fresh| line <= fresh) => {
                    set.push_line(line);
                    old += 1;
                }
                (_, Some(line)) => {
                    set.push_line(line);
                    new += 1;
                }
                (_, None) => return set,
            }
        }
    }

    /// The rules of this set that `other` has too, whatever their reference and metadata. Cost: a search for each of
    /// `other`'s rules.
    pub fn common(&self, other: &Self) -> Self {
        let mut set = Self::default();
        for at in 0..other.len() {
            let Some(wanted) = other.line(at).map(identity) else { break };
            let found = self.starts.partition_point(|&start| identity(&self.text[start..]) < wanted);
            if let Some(line) = self.line(found).filter(|line| identity(line) == wanted) {
                set.push_line(line);
            }
        }
        set
    }

    /// Every rule that may match a URL, whatever the list's options, and few others: all but `www.` and the case of
    /// letters is right. Cost: a search for each label of the host, and its rules.
    pub fn near(&self, url: &Canonical) -> Self {
        let (host, pseudonym) = (url.host(), hashed::pseudonym(url));
        let mut hosts = vec![host.to_vec(), [b"www.", host].concat()];
        if !url.is_address() {
            hosts.extend(memchr::memchr_iter(b'.', host).map(|dot| host[dot + 1..].to_vec()));
        }
        hosts.push(pseudonym.clone());
        hosts.sort_unstable();
        hosts.dedup();
        let mut set = Self::default();
        for host in hosts {
            let start = [&host[..], b"\t"].concat();
            let first = self.starts.partition_point(|&at| self.text[at..] < start[..]);
            for line in (first..).map_while(|at| self.line(at)).take_while(|line| line.starts_with(&start)) {
                if host == pseudonym || parse(line).is_some_and(|entry| may_cover(&entry.rule, url)) {
                    set.push_line(line);
                }
            }
        }
        set
    }

    /// Hosts with at least `least` path rules, and how many each has.
    pub fn path_hosts(&self, least: usize) -> Vec<(&[u8], usize)> {
        let mut found: Vec<(&[u8], usize)> = Vec::new();
        let mut current: (&[u8], usize) = (b"", 0);
        for entry in self.iter().filter(|entry| matches!(entry.rule.kind, Kind::Prefix | Kind::Exact)) {
            if entry.rule.host != current.0 {
                found.extend((current.1 >= least && current.1 > 0).then_some(current));
                current = (entry.rule.host, 0);
            }
            current.1 += 1;
        }
        found.extend((current.1 >= least && current.1 > 0).then_some(current));
        found
    }

    fn line(&self, at: usize) -> Option<&[u8]> {
        let start = *self.starts.get(at)?;
        let end = self.starts.get(at + 1).copied().unwrap_or(self.text.len());
        Some(&self.text[start..end])
    }

    /// Appends a line that sorts after all others, unless it repeats the last rule.
    fn push_line(&mut self, line: &[u8]) {
        if self.starts.last().is_some_and(|&last| identity(&self.text[last..]) == identity(line)) {
            return;
        }
        self.starts.push(self.text.len());
        self.text.extend_from_slice(line);
    }
}

/// Whether a rule's path and query are those of a request, or above it, the case of letters aside.
fn may_cover(rule: &Rule<'_>, url: &Canonical) -> bool {
    match rule.kind {
        Kind::Domain | Kind::Host => true,
        Kind::Exact => {
            let asked = |query| url.query().is_some_and(|found| found.eq_ignore_ascii_case(query));
            url.path().eq_ignore_ascii_case(rule.path) && rule.query.is_none_or(asked)
        }
        Kind::Prefix => {
            let border = rule.path.strip_suffix(b"/").unwrap_or(rule.path);
            url.path().get(..border.len()).is_some_and(|start| start.eq_ignore_ascii_case(border))
        }
    }
}

fn line_end(text: &[u8], start: usize) -> usize {
    memchr::memchr(b'\n', &text[start..]).map_or(text.len(), |at| start + at + 1)
}

/// The first four fields, with their TABs: order by them is order by line, since a TAB sorts before all else in a line.
fn identity(line: &[u8]) -> &[u8] {
    memchr::memchr_iter(b'\t', line).nth(3).map_or(line, |tab| &line[..=tab])
}

fn parse(line: &[u8]) -> Option<Entry<'_>> {
    let mut fields = line.strip_suffix(b"\n").unwrap_or(line).split(|&byte| byte == b'\t');
    let host = fields.next()?;
    let code = fields.next()?;
    let &(_, kind, subdomains) = CODES.iter().find(|(byte, ..)| [*byte] == *code)?;
    let path = fields.next()?;
    let query = fields.next()?;
    let reference = std::str::from_utf8(fields.next()?).ok()?;
    let metadata = std::str::from_utf8(fields.next()?).ok()?;
    if fields.next().is_some() || host.is_empty() {
        return None;
    }
    Some(Entry { rule: Rule { kind, host, path, query: query.strip_prefix(b"?"), subdomains }, reference, metadata })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(hosts: &[&str]) -> RuleSet {
        let mut builder = Builder::default();
        for host in hosts {
            let rule = Rule { kind: Kind::Host, host: host.as_bytes(), path: b"", query: None, subdomains: false };
            builder.push(&rule, "", "");
        }
        builder.finish()
    }

    #[test]
    fn patching_with_a_diff_gives_the_newer_set() {
        let (old, new) = (set(&["c", "a", "b", "a"]), set(&["b", "d", "bb", "a.b"]));
        assert_eq!(old.len(), 3);
        let (added, removed) = old.diff(&new);
        assert_eq!((added.len(), removed.len()), (3, 2));
        assert!(old.patched(&added, &removed) == new);
        assert!(new.patched(&removed, &added) == old);
    }

    #[test]
    fn common_rules_are_those_of_the_first() {
        let mut noted = Builder::default();
        let rule = Rule { kind: Kind::Host, host: b"b", path: b"", query: None, subdomains: false };
        noted.push(&rule, "reference", "");
        let (plain, noted) = (set(&["a", "b", "c"]), noted.finish());
        assert!(plain.common(&noted) == set(&["b"]));
        assert!(noted.common(&plain) == noted);
        assert!(plain.common(&set(&["d", "aa"])).is_empty());
    }

    #[test]
    fn hosts_of_paths_are_counted() {
        let mut builder = Builder::default();
        for (host, path) in [("a", "/1"), ("a", "/2"), ("b", "/1"), ("c", "/1"), ("c", "/2"), ("c", "/3")] {
            let (host, path) = (host.as_bytes(), path.as_bytes());
            builder.push(&Rule { kind: Kind::Exact, host, path, query: None, subdomains: false }, "", "");
        }
        let found = builder.finish();
        assert_eq!(found.path_hosts(2), [(b"a".as_slice(), 2), (b"c".as_slice(), 3)]);
        assert_eq!(set(&["a", "b"]).path_hosts(0), []);
    }

    #[test]
    fn rules_near_a_url_are_those_of_its_hosts_and_path() {
        let mut builder = Builder::default();
        let mut push = |kind, host: &'static [u8], path: &'static [u8]| {
            builder.push(&Rule { kind, host, path, query: None, subdomains: false }, "", "");
        };
        push(Kind::Domain, b"example", b"");
        push(Kind::Domain, b"b.example", b"");
        push(Kind::Host, b"b.example.org", b"");
        push(Kind::Host, b"www.a.b.example", b"");
        push(Kind::Exact, b"a.b.example", b"/X/y");
        push(Kind::Exact, b"a.b.example", b"/x/yz");
        push(Kind::Prefix, b"b.example", b"/x/");
        push(Kind::Prefix, b"b.example", b"/x/y/z/");
        push(Kind::Host, b"xb.example", b"");
        let mut url = Canonical::default();
        url.set(b"http://a.b.example/x/Y?q").unwrap();
        let found = builder.finish().near(&url);
        let hosts: Vec<&[u8]> = found.iter().map(|entry| entry.rule.host).collect();
        assert_eq!(hosts, [&b"a.b.example"[..], b"b.example", b"b.example", b"example", b"www.a.b.example"]);
    }

    #[test]
    fn damaged_text_is_named() {
        let text = set(&["a", "b"]).text().to_vec();
        assert!(RuleSet::load(text.clone()).is_ok_and(|set| set.len() == 2));
        assert!(RuleSet::load(text[..text.len() - 1].to_vec()).is_err_and(|error| error.contains("line 2")));
        let swapped = [&text[text.len() / 2..], &text[..text.len() / 2]].concat();
        assert!(RuleSet::load(swapped).is_err_and(|error| error.contains("out of order")));
    }
}
