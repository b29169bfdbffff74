//! Rules as text: what one line of a list means, in canonical fields.

use std::fmt;

use crate::canonical::{Canonical, UrlError};
use crate::host;

/// How much a rule covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The host and every subdomain, any path.
    Domain,
    /// That host only, any path.
    Host,
    /// The path at or under it, on segment borders.
    Prefix,
    /// That path; with a query, exactly that query.
    Exact,
}

impl Kind {
    /// All kinds, in the order of their codes.
    pub const ALL: [Self; 4] = [Self::Domain, Self::Host, Self::Prefix, Self::Exact];

    /// The kind's public name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Domain => "domain",
            Self::Host => "host",
            Self::Prefix => "prefix",
            Self::Exact => "exact",
        }
    }

    /// The kind of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// Why a text is no rule. Never holds the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleError(pub &'static str);

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl From<UrlError> for RuleError {
    fn from(error: UrlError) -> Self {
        Self(error.reason())
    }
}

/// A rule in canonical fields, borrowed from wherever it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule<'a> {
    /// How much it covers.
    pub kind: Kind,
    /// Canonical host.
    pub host: &'a [u8],
    /// Canonical path of `Prefix` (with its trailing slash) and `Exact`; empty for the others.
    pub path: &'a [u8],
    /// For `Exact`: the query that must be there.
    pub query: Option<&'a [u8]>,
    /// For path rules: holds on every subdomain as well.
    pub subdomains: bool,
}

/// How the lines of a list are to be read.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The line's form.
    pub format: Format,
    /// Kind of an URL without a path: `Host` or `Domain`.
    pub bare: Kind,
    /// Kind of an URL whose path ends in a slash: `Prefix` or `Exact`.
    pub trailing_slash: Kind,
    /// Kind of a bare name in domain lists and hosts files: `Domain` or `Host`.
    pub name: Kind,
}

/// The forms a line can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// An URL, with or without scheme.
    Url,
    /// A domain name.
    Domain,
    /// An address and the names it stands for.
    Hosts,
}

/// Names that every hosts file carries for the machine itself (Debian's, macOS's and the usual blocklists' headers).
const LOCAL_NAMES: [&[u8]; 10] = [
    b"localhost",
    b"localhost.localdomain",
    b"local",
    b"broadcasthost",
    b"ip6-localhost",
    b"ip6-loopback",
    b"ip6-localnet",
    b"ip6-mcastprefix",
    b"ip6-allnodes",
    b"ip6-allrouters",
];

/// Reads one line; calls `found` for each rule in it (a hosts line may name several, a comment none).
pub fn parse_line(
    line: &[u8],
    options: Options,
    url: &mut Canonical,
    found: &mut dyn FnMut(Rule<'_>),
) -> Result<(), RuleError> {
    let line = line.trim_ascii();
    if line.is_empty() || line[0] == b'#' {
        return Ok(());
    }
    match options.format {
        Format::Url => found(parse_url(line, options, url)?),
        Format::Domain => {
            let name = strip_comment(line);
            let name = name.strip_prefix(b"*.").or_else(|| name.strip_prefix(b".")).unwrap_or(name);
            found(parse_name(name, options.name, url)?);
        }
        Format::Hosts => {
            let line = strip_comment(line);
            let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
            if !words.next().is_some_and(is_sink) {
                return Err(RuleError("first field is not 0.0.0.0, 127.0.0.0/8, :: or ::1"));
            }
            let mut names = words.peekable();
            names.peek().ok_or(RuleError("no name follows the address"))?;
            for name in names {
                let local = name == b"0.0.0.0" || LOCAL_NAMES.iter().any(|own| name.eq_ignore_ascii_case(own));
                if !local {
                    found(parse_name(name, options.name, url)?);
                }
            }
        }
    }
    Ok(())
}

/// The URL form. A raw trailing `/*` makes a prefix; `*.` before the host adds its subdomains.
fn parse_url<'a>(line: &[u8], options: Options, url: &'a mut Canonical) -> Result<Rule<'a>, RuleError> {
    // Canonicalisation removes TABs, as browsers do; in a list they stand between columns.
    if line.contains(&b'\t') {
        return Err(RuleError("line holds a TAB: a table is no list of URLs"));
    }
    let authority = before_host(line);
    let has_scheme = line[..authority].contains(&b':');
    let subdomains = line[authority..].starts_with(b"*.");
    let starred = line.ends_with(b"/*") && memchr::memchr2(b'?', b'#', line).is_none();
    let rest = &line[authority + if subdomains { 2 } else { 0 }..line.len() - usize::from(starred)];
    if subdomains {
        url.set(&[&line[..authority], rest].concat())?;
    } else {
        url.set(&line[..line.len() - usize::from(starred)])?;
    }
    let url = &*url;
    check_host(url)?;
    let (host, path, query) = (url.host(), url.path(), url.query());
    let single_label = !url.is_address() && !host.contains(&b'.');
    if path == b"/" && query.is_none() {
        let kind = if subdomains {
            Kind::Domain
        } else if starred {
            Kind::Host
        } else {
            options.bare
        };
        if single_label && (kind == Kind::Domain || !has_scheme) {
            return Err(RuleError("a single label is no domain; write a host of one label with its scheme"));
        }
        return Ok(Rule { kind, host, path: b"", query: None, subdomains: false });
    }
    if subdomains && url.is_address() {
        return Err(RuleError("an IP address has no subdomains"));
    }
    let slash = query.is_none() && path.ends_with(b"/");
    let kind = if starred {
        Kind::Prefix
    } else if slash {
        options.trailing_slash
    } else {
        Kind::Exact
    };
    Ok(Rule { kind, host, path, query, subdomains })
}

/// Length of the scheme and slashes in front of a host; 0 if neither is there.
fn before_host(line: &[u8]) -> usize {
    let slashes = |from: usize| line[from..].iter().take_while(|byte| matches!(byte, b'/' | b'\\')).count();
    for scheme in ["https:", "http:", "wss:", "ws:", "ftp:"] {
        if line.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme.as_bytes())) {
            return scheme.len() + slashes(scheme.len());
        }
    }
    if slashes(0) >= 2 { slashes(0) } else { 0 }
}

/// A bare name.
fn parse_name<'a>(name: &[u8], kind: Kind, url: &'a mut Canonical) -> Result<Rule<'a>, RuleError> {
    set_host(name, url)?;
    if !url.is_address() && !url.host().contains(&b'.') {
        return Err(RuleError("a single label is no domain"));
    }
    Ok(Rule { kind, host: url.host(), path: b"", query: None, subdomains: false })
}

/// Canonicalises fields given one by one.
pub fn from_fields<'a>(
    kind: Kind,
    host: &[u8],
    path: Option<&[u8]>,
    query: Option<&[u8]>,
    subdomains: bool,
    url: &'a mut Canonical,
) -> Result<Rule<'a>, RuleError> {
    set_host(host, url)?;
    let whole = matches!(kind, Kind::Domain | Kind::Host);
    if whole {
        if path.is_some() || query.is_some() || subdomains {
            return Err(RuleError("path, query and subdomains go with prefix and exact only"));
        }
        return Ok(Rule { kind, host: url.host(), path: b"", query: None, subdomains: false });
    }
    if subdomains && url.is_address() {
        return Err(RuleError("an IP address has no subdomains"));
    }
    let path = path.ok_or(RuleError("a prefix or exact rule needs a path"))?;
    if !path.starts_with(b"/") {
        return Err(RuleError("a path starts with a slash"));
    }
    if query.is_some() && kind == Kind::Prefix {
        return Err(RuleError("a prefix cannot hold a query"));
    }
    let mut text = [b"http://", url.host(), path].concat();
    if kind == Kind::Prefix && !path.ends_with(b"/") {
        text.push(b'/');
    }
    if let Some(query) = query {
        text.push(b'?');
        text.extend_from_slice(query);
    }
    if text.contains(&b'#') || path.contains(&b'?') {
        return Err(RuleError("a path holds no raw question mark, and neither path nor query a number sign"));
    }
    url.set(&text)?;
    let url = &*url;
    if kind == Kind::Prefix && url.path() == b"/" {
        let kind = if subdomains { Kind::Domain } else { Kind::Host };
        return Ok(Rule { kind, host: url.host(), path: b"", query: None, subdomains: false });
    }
    Ok(Rule { kind, host: url.host(), path: url.path(), query: url.query(), subdomains })
}

/// Makes `url` the root page of a host given alone.
fn set_host(host: &[u8], url: &mut Canonical) -> Result<(), RuleError> {
    let host = host.trim_ascii();
    if host.is_empty() {
        return Err(RuleError("host is empty"));
    }
    let is_ipv6 = memchr::memchr_iter(b':', host).nth(1).is_some();
    let foreign = |byte: &u8| matches!(byte, b'/' | b'\\' | b'?' | b'#' | b'@') || *byte <= b' ';
    let port = if is_ipv6 { host[0] == b'[' && !host.ends_with(b"]") } else { host.contains(&b':') };
    if host.iter().any(foreign) || port {
        return Err(RuleError("a host has no scheme, port, user, path or blank"));
    }
    if is_ipv6 && host[0] != b'[' {
        url.set(&[b"http://[", host, b"]"].concat())?;
    } else {
        url.set(&[b"http://", host].concat())?;
    }
    check_host(url)
}

/// A rule's host must be one that requests can really carry: an address, or labels of letters, digits, `-` and `_`
/// within DNS's lengths (RFC 1035 section 2.3.4). A page of HTML taken for a list fails here, line by line.
fn check_host(url: &Canonical) -> Result<(), RuleError> {
    let host = url.host();
    if url.is_address() {
        return Ok(());
    }
    if host.len() > 253 || host.split(|&byte| byte == b'.').any(|label| label.len() > 63) {
        return Err(RuleError("host is longer than DNS allows"));
    }
    let legal = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.');
    if !host.iter().all(legal) {
        return Err(RuleError("host holds characters that no host name has"));
    }
    Ok(())
}

/// Addresses that hosts files use for names that shall lead nowhere.
fn is_sink(word: &[u8]) -> bool {
    word == b"::" || word == b"::1" || {
        let mut url = Canonical::default();
        url.set(word).is_ok() && host::is_address(url.host()) && (word == b"0.0.0.0" || url.host().starts_with(b"127."))
    }
}

fn strip_comment(line: &[u8]) -> &[u8] {
    let comment = (1..line.len()).find(|&at| line[at] == b'#' && line[at - 1].is_ascii_whitespace());
    comment.map_or(line, |at| line[..at].trim_ascii_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str, format: Format) -> Result<Vec<String>, RuleError> {
        let name = if format == Format::Hosts { Kind::Host } else { Kind::Domain };
        let options = Options { format, bare: Kind::Host, trailing_slash: Kind::Prefix, name };
        let mut rules = Vec::new();
        parse_line(line.as_bytes(), options, &mut Canonical::default(), &mut |rule| {
            let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
            let query = rule.query.map_or(String::new(), |query| format!("?{}", text(query)));
            let star = if rule.subdomains { "*." } else { "" };
            rules.push(format!("{} {star}{}{}{query}", rule.kind.name(), text(rule.host), text(rule.path)));
        })?;
        Ok(rules)
    }

    #[test]
    fn kinds_of_urls() {
        for (line, expected) in [
            ("http://www.example.com/", "host www.example.com"),
            ("http://www.example.com", "host www.example.com"),
            ("*.example.com", "domain example.com"),
            ("http://example.com/gallery/", "prefix example.com/gallery/"),
            ("example.com/gallery/*", "prefix example.com/gallery/"),
            ("example.com/*", "host example.com"),
            ("http://*.example.com/a", "exact *.example.com/a"),
            ("http://example.com/view?id=7", "exact example.com/view?id=7"),
            ("http://example.com/?", "exact example.com/?"),
            ("http://intranet/", "host intranet"),
            ("198.51.100.7:8080/x#y", "exact 198.51.100.7/x"),
        ] {
            assert_eq!(read(line, Format::Url), Ok(vec![expected.to_owned()]), "{line}");
        }
        for line in ["com", "*.com", "<html>", "*.192.0.2.1/x", "hhttps://example.com/"] {
            assert!(read(line, Format::Url).is_err(), "{line}");
        }
        assert_eq!(read("# comment", Format::Url), Ok(vec![]));
    }

    #[test]
    fn names() {
        assert_eq!(read(".Example.COM. # why", Format::Domain), Ok(vec!["domain example.com".to_owned()]));
        assert_eq!(read("2001:db8::1", Format::Domain), Ok(vec!["domain [2001:db8::1]".to_owned()]));
        assert!(read("example.com/x", Format::Domain).is_err());
        assert!(read("com", Format::Domain).is_err());
        let two = vec!["host a.example".to_owned(), "host b.example".to_owned()];
        assert_eq!(read("0.0.0.0 a.example localhost b.example # c", Format::Hosts), Ok(two));
        assert!(read("192.0.2.1 a.example", Format::Hosts).is_err());
        assert!(read("0.0.0.0", Format::Hosts).is_err());
    }
}
