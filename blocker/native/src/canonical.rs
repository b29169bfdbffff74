//! Canonical URLs: two spellings that a browser or server takes for one page have one form, two pages have two.
//!
//! The form is that of Google Safe Browsing and Web Risk ("URLs and hashing"), with WHATWG host parsing in front.
//! Total and linear: any bytes up to 64 KiB give a canonical URL or a [`UrlError`], in time linear in their length.
//! Nothing here allocates once a [`Canonical`] has grown to the longest URL it has seen.

use std::fmt;

use crate::{escape, host};

/// The longest accepted input, in bytes. Browsers and proxies stop well below; it bounds the work of one request.
pub const MAX_URL_BYTES: usize = 65_536;

/// Why a text is no URL. Never holds the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UrlError {
    /// Nothing is left after trimming.
    Empty,
    /// More than [`MAX_URL_BYTES`], as it came or in canonical form.
    TooLong,
    /// A scheme other than http, https, ws, wss and ftp.
    Scheme,
    /// A path without a host.
    NoHost,
    /// The host is empty, or was nothing but dots.
    EmptyHost,
    /// The port is no number from 0 to 65535.
    Port,
    /// A bracketed host is no IPv6 address.
    BadIpv6,
}

impl UrlError {
    /// The message for people.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Empty => "URL is empty",
            Self::TooLong => "URL is longer than 65536 bytes",
            Self::Scheme => "URL scheme is not one of http, https, ws, wss, ftp",
            Self::NoHost => "URL has a path but no host",
            Self::EmptyHost => "URL host is empty",
            Self::Port => "URL port is not a number from 0 to 65535",
            Self::BadIpv6 => "URL host is a malformed IPv6 address",
        }
    }
}

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl std::error::Error for UrlError {}

/// One canonical URL and where its parts are; reusable, so that a hot caller allocates once.
#[derive(Default, Debug)]
pub struct Canonical {
    text: Vec<u8>,
    host: usize,
    path: usize,
    query: usize, // where the `?` is; the text's length if there is none
    address: bool,
    cleaned: Vec<u8>,
    scratch: Vec<u8>,
}

impl Canonical {
    /// Replaces the contents by the canonical form of `input`.
    pub fn set(&mut self, input: &[u8]) -> Result<(), UrlError> {
        if input.len() > MAX_URL_BYTES {
            return Err(UrlError::TooLong);
        }
        let mut cleaned = std::mem::take(&mut self.cleaned);
        let done = self.parse(clean(input, &mut cleaned));
        self.cleaned = cleaned;
        done
    }

    /// The whole URL: printable ASCII.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.text).expect("everything outside ASCII was escaped")
    }

    /// The host: a name of A-labels, a dotted quad or a bracketed IPv6 address.
    pub fn host(&self) -> &[u8] {
        &self.text[self.host..self.path]
    }

    /// Whether the host is an IP address.
    pub fn is_address(&self) -> bool {
        self.address
    }

    /// The path, up to the first `?`; starts with `/`.
    pub fn path(&self) -> &[u8] {
        &self.text[self.path..self.query]
    }

    /// The query without its `?`; None if there is no `?`.
    pub fn query(&self) -> Option<&[u8]> {
        self.text.get(self.query + 1..)
    }

    /// Path and query as one text.
    pub fn path_and_query(&self) -> &[u8] {
        &self.text[self.path..]
    }

    fn parse(&mut self, input: &[u8]) -> Result<(), UrlError> {
        if input.is_empty() {
            return Err(UrlError::Empty);
        }
        let (scheme, rest) = split_scheme(input)?;
        let end = memchr::memchr3(b'/', b'\\', b'?', rest).unwrap_or(rest.len());
        let raw_host = strip_port(strip_user_info(&rest[..end]))?;
        let (raw_path, raw_query) = match memchr::memchr(b'?', &rest[end..]) {
            Some(at) => (&rest[end..end + at], Some(&rest[end + at + 1..])),
            None => (&rest[end..], None),
        };
        self.text.clear();
        self.text.extend_from_slice(scheme.as_bytes());
        self.text.extend_from_slice(b"://");
        self.host = self.text.len();
        self.address = host::parse(raw_host, &mut self.scratch, &mut self.text)?;
        self.path = self.text.len();
        self.push_path(raw_path);
        self.query = self.text.len();
        if let Some(query) = raw_query {
            self.text.push(b'?');
            self.push_query(query);
        }
        // Escaping may triple a text: one that could not be read again is refused now.
        if self.text.len() > MAX_URL_BYTES {
            return Err(UrlError::TooLong);
        }
        Ok(())
    }

    fn push_path(&mut self, raw: &[u8]) {
        if is_clean_path(raw) {
            self.text.extend_from_slice(if raw.is_empty() { b"/" } else { raw });
            return;
        }
        self.scratch.clear();
        escape::decode(raw, &mut self.scratch);
        for byte in &mut self.scratch {
            if *byte == b'\\' {
                *byte = b'/';
            }
        }
        resolve_dots(&mut self.scratch);
        self.scratch.dedup_by(|next, byte| *next == b'/' && *byte == b'/');
        escape::escape_path(&self.scratch, &mut self.text);
    }

    fn push_query(&mut self, raw: &[u8]) {
        if raw.iter().all(|&byte| CLEAN[usize::from(byte)] || byte == b'\\') {
            self.text.extend_from_slice(raw);
            return;
        }
        self.scratch.clear();
        escape::decode(raw, &mut self.scratch);
        escape::escape_query(&self.scratch, &mut self.text);
    }
}

/// Clause 1: trims, removes TAB, CR and LF, drops the fragment. Copies into `buffer` only where something is removed.
fn clean<'a>(input: &'a [u8], buffer: &'a mut Vec<u8>) -> &'a [u8] {
    let start = input.iter().position(|&byte| byte > b' ').unwrap_or(input.len());
    let end = input.iter().rposition(|&byte| byte > b' ').map_or(start, |last| last + 1);
    let mut input = &input[start..end];
    if memchr::memchr3(b'\t', b'\r', b'\n', input).is_some() {
        buffer.clear();
        buffer.extend(input.iter().filter(|byte| !matches!(byte, b'\t' | b'\r' | b'\n')));
        input = buffer;
    }
    &input[..memchr::memchr(b'#', input).unwrap_or(input.len())]
}

/// Clause 2: the scheme, and what follows it and its slashes.
fn split_scheme(input: &[u8]) -> Result<(&'static str, &[u8]), UrlError> {
    let is_slash = |byte: &u8| matches!(byte, b'/' | b'\\');
    let skip_slashes = |rest: &'_ [u8]| rest.iter().position(|byte| !is_slash(byte)).unwrap_or(rest.len());
    let length = input
        .iter()
        .position(|byte| !byte.is_ascii_alphanumeric() && !matches!(byte, b'+' | b'-' | b'.'))
        .unwrap_or(input.len());
    if input.get(length) == Some(&b':') && input[0].is_ascii_alphabetic() {
        let rest = &input[length + 1..];
        for scheme in ["https", "http", "ws", "wss", "ftp"] {
            if input[..length].eq_ignore_ascii_case(scheme.as_bytes()) {
                return Ok((scheme, &rest[skip_slashes(rest)..]));
            }
        }
        // `host:port`, as in CONNECT and SNI, has no scheme; anything else in front of a colon is one we do not serve.
        let port = &rest[..memchr::memchr3(b'/', b'\\', b'?', rest).unwrap_or(rest.len())];
        if port.is_empty() || !port.iter().all(u8::is_ascii_digit) {
            return Err(UrlError::Scheme);
        }
        return Ok(("http", input));
    }
    match skip_slashes(input) {
        0 => Ok(("http", input)),
        1 => Err(UrlError::NoHost),
        slashes => Ok(("http", &input[slashes..])),
    }
}

fn strip_user_info(authority: &[u8]) -> &[u8] {
    memchr::memrchr(b'@', authority).map_or(authority, |at| &authority[at + 1..])
}

fn strip_port(authority: &[u8]) -> Result<&[u8], UrlError> {
    let colon = if authority.first() == Some(&b'[') {
        let close = memchr::memchr(b']', authority).ok_or(UrlError::BadIpv6)?;
        match authority.get(close + 1) {
            None => None,
            Some(b':') => Some(close + 1),
            Some(_) => return Err(UrlError::BadIpv6),
        }
    } else {
        memchr::memchr(b':', authority)
    };
    let Some(colon) = colon else {
        return Ok(authority);
    };
    let digits = &authority[colon + 1..];
    let port = digits
        .iter()
        .try_fold(0_u32, |port, &byte| byte.is_ascii_digit().then(|| (port * 10 + u32::from(byte - b'0')).min(65_536)));
    if port.is_none_or(|port| port > 65_535) {
        return Err(UrlError::Port);
    }
    Ok(&authority[..colon])
}

/// Bytes that stand in a canonical path as they are.
const CLEAN: [bool; 256] = {
    let mut clean = [false; 256];
    let mut byte = 0x21;
    while byte < 0x7f {
        clean[byte] = !matches!(byte as u8, b'#' | b'%' | b'\\');
        byte += 1;
    }
    clean
};

/// Whether a path is canonical already: nothing to decode or escape, no `//`, no segment that starts with a dot.
fn is_clean_path(path: &[u8]) -> bool {
    let mut clean = true;
    let mut previous = 0;
    for &byte in path {
        clean = clean && CLEAN[usize::from(byte)] && !(previous == b'/' && (byte == b'/' || byte == b'.'));
        previous = byte;
    }
    clean
}

/// Resolves `.` and `..` in place, empty segments counted, as WHATWG's path state does; the result starts with `/`.
fn resolve_dots(path: &mut Vec<u8>) {
    if path.is_empty() {
        path.push(b'/');
        return;
    }
    // The path starts with a slash; what is kept is written over what was read, never ahead of it.
    let (mut read, mut write) = (1, 0);
    loop {
        let end = memchr::memchr(b'/', &path[read..]).map_or(path.len(), |at| read + at);
        let last = end == path.len();
        let dots = match &path[read..end] {
            b"." => 1,
            b".." => 2,
            _ => 0,
        };
        if dots == 2 {
            write = memchr::memrchr(b'/', &path[..write]).unwrap_or(0);
        }
        if dots == 0 {
            path[write] = b'/';
            path.copy_within(read..end, write + 1);
            write += 1 + end - read;
        } else if last {
            path[write] = b'/';
            write += 1;
        }
        if last {
            break;
        }
        read = end + 1;
    }
    path.truncate(write.max(1));
    path[0] = b'/';
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(input: &[u8]) -> String {
        let mut url = Canonical::default();
        url.set(input).map_or_else(|error| error.to_string(), |()| url.text().to_owned())
    }

    #[test]
    fn dots_as_browsers_resolve_them() {
        for (path, expected) in [
            ("/a/..", "/"),
            ("/a/../", "/"),
            ("/..", "/"),
            ("/../../a", "/a"),
            ("/a/./b/.", "/a/b/"),
            ("/a//../b", "/a/b"),
            ("/a//..//b", "/a/b"),
            ("/a/b/..", "/a/"),
            ("/...", "/..."),
            ("/a%2f..%2fb", "/b"),
            ("/.a", "/.a"),
        ] {
            assert_eq!(canonical(format!("http://h{path}").as_bytes()), format!("http://h{expected}"), "{path}");
        }
    }

    #[test]
    fn what_stands_before_the_host() {
        for (input, expected) in [
            ("HtTpS:\\\\user:pa@ss@h:80\\x", "https://h/x"),
            ("http:h", "http://h/"),
            ("h:443", "http://h/"),
            ("//h/x", "http://h/x"),
            ("[2001:db8::1]:8080/x", "http://[2001:db8::1]/x"),
            ("mailto:a@b.example", UrlError::Scheme.reason()),
            ("/x", UrlError::NoHost.reason()),
            ("http://", UrlError::EmptyHost.reason()),
            ("http://h:65536/", UrlError::Port.reason()),
            ("http://h:1:2/", UrlError::Port.reason()),
            (" \t ", UrlError::Empty.reason()),
        ] {
            assert_eq!(canonical(input.as_bytes()), expected, "{input}");
        }
    }

    #[test]
    fn raw_bytes_are_escaped_as_they_are() {
        assert_eq!(canonical(b"http://\x01\x80.com/"), "http://%01%80.com/");
        assert_eq!(canonical(b"h/..%3Fa?b%3F?"), "http://h/..%3Fa?b??");
    }
}
