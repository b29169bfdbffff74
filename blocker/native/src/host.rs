//! Hosts: names to lower-case A-labels, IPv4 in any form to dotted quad, IPv6 to RFC 5952.
//!
//! WHATWG host parsing, made total: what a browser would refuse as a *name* is percent-escaped instead, so that a
//! filter and its lists agree on it; only a malformed IPv6 literal and an empty host are errors.

use std::io::Write as _;
use std::net::Ipv6Addr;

use crate::canonical::UrlError;
use crate::escape;

/// Appends the canonical form of `raw` (user info and port removed) to `out`; tells whether it is an IP address.
pub fn parse(raw: &[u8], scratch: &mut Vec<u8>, out: &mut Vec<u8>) -> Result<bool, UrlError> {
    let start = out.len();
    if raw.iter().all(|&byte| CLASS[usize::from(byte)] == PLAIN) {
        push_name(raw, out);
    } else {
        scratch.clear();
        escape::decode(raw, scratch);
        // Dots at both ends mean nothing in front of an address either.
        let bracketed = trim(scratch, b'.');
        if bracketed.first() == Some(&b'[') {
            return ipv6(bracketed, out).map(|()| true);
        }
        match to_ascii(scratch) {
            Some(ascii) => push_name(ascii.as_bytes(), out),
            None => push_name(scratch, out),
        }
    }
    trim_dots(out, start);
    if out.len() == start {
        return Err(UrlError::EmptyHost);
    }
    if let Some(address) = ipv4(&out[start..]) {
        out.truncate(start);
        let [a, b, c, d] = address.to_be_bytes();
        write!(out, "{a}.{b}.{c}.{d}").expect("writing to memory does not fail");
        return Ok(true);
    }
    Ok(false)
}

/// Whether a canonical host is an IP address.
pub fn is_address(host: &[u8]) -> bool {
    host.first() == Some(&b'[') || ipv4(host).is_some()
}

const PLAIN: u8 = 0;
const ESCAPED: u8 = 1;
const HIGH: u8 = 2;
/// PLAIN: may stand in a canonical host. ESCAPED: WHATWG's forbidden domain code points, and the comma, which separates
/// SURT labels. HIGH: not ASCII.
const CLASS: [u8; 256] = {
    let mut class = [PLAIN; 256];
    let mut byte = 0;
    while byte < 256 {
        class[byte] = match byte as u8 {
            0..=b' '
            | b'#'
            | b'%'
            | b','
            | b'/'
            | b':'
            | b'<'
            | b'>'
            | b'?'
            | b'@'
            | b'['
            | b'\\'
            | b']'
            | b'^'
            | b'|'
            | 0x7f => ESCAPED,
            0x80.. => HIGH,
            _ => PLAIN,
        };
        byte += 1;
    }
    class
};

fn trim(mut text: &[u8], byte: u8) -> &[u8] {
    while let Some(rest) = text.strip_prefix(&[byte]) {
        text = rest;
    }
    while let Some(rest) = text.strip_suffix(&[byte]) {
        text = rest;
    }
    text
}

/// UTS #46 non-transitional, as WHATWG's domain-to-ASCII with `beStrict` false; None where that fails or nothing is to do.
fn to_ascii(decoded: &[u8]) -> Option<std::borrow::Cow<'_, str>> {
    if decoded.is_ascii() {
        return None;
    }
    idna::domain_to_ascii_cow(decoded, idna::AsciiDenyList::URL).ok()
}

fn push_name(name: &[u8], out: &mut Vec<u8>) {
    for &byte in name {
        if CLASS[usize::from(byte)] == PLAIN {
            out.push(byte.to_ascii_lowercase());
        } else {
            escape::escape(byte, out);
        }
    }
}

/// Removes dots at both ends of `out[start..]` and collapses runs of them.
fn trim_dots(out: &mut Vec<u8>, start: usize) {
    let name = &out[start..];
    let untouched =
        name.first() != Some(&b'.') && name.last() != Some(&b'.') && memchr::memmem::find(name, b"..").is_none();
    if untouched {
        return;
    }
    let mut write = start;
    for read in start..out.len() {
        let byte = out[read];
        if byte != b'.' || (write > start && out[write - 1] != b'.') {
            out[write] = byte;
            write += 1;
        }
    }
    if write > start && out[write - 1] == b'.' {
        write -= 1;
    }
    out.truncate(write);
}

/// WHATWG's IPv4 parser: one to four parts, decimal, octal (`0…`) or hexadecimal (`0x…`), the last filling the rest.
fn ipv4(host: &[u8]) -> Option<u32> {
    // The last label must start with a digit; nearly every name leaves here.
    let last = host.len() - memchr::memrchr(b'.', host).map_or(host.len(), |dot| host.len() - dot - 1);
    let last = if memchr::memchr(b'.', host).is_none() { 0 } else { last };
    if !host.get(last)?.is_ascii_digit() {
        return None;
    }
    let mut parts = [0_u64; 4];
    let mut count = 0;
    for part in host.split(|&byte| byte == b'.') {
        *parts.get_mut(count)? = ipv4_part(part)?;
        count += 1;
    }
    let (tail, heads) = parts[..count].split_last()?;
    if heads.iter().any(|&part| part > 255) || *tail >= 1 << (8 * (5 - count)) {
        return None;
    }
    let high = heads.iter().enumerate().map(|(at, part)| part << (24 - 8 * at)).sum::<u64>();
    Some((high + tail) as u32)
}

fn ipv4_part(part: &[u8]) -> Option<u64> {
    let (digits, radix) = match part {
        [b'0', b'x' | b'X', rest @ ..] => (rest, 16),
        [b'0', rest @ ..] if !rest.is_empty() => (rest, 8),
        [] => return None,
        _ => (part, 10),
    };
    digits.iter().try_fold(0_u64, |value, &byte| {
        let digit = char::from(byte).to_digit(radix)?;
        // Past 2^32 the part is out of range whatever follows; saturating keeps long digit strings harmless.
        Some((value * u64::from(radix) + u64::from(digit)).min(1 << 33))
    })
}

fn ipv6(host: &[u8], out: &mut Vec<u8>) -> Result<(), UrlError> {
    let inner = host.strip_prefix(b"[").and_then(|rest| rest.strip_suffix(b"]")).ok_or(UrlError::BadIpv6)?;
    let text = std::str::from_utf8(inner).map_err(|_| UrlError::BadIpv6)?;
    let address: Ipv6Addr = text.parse().map_err(|_| UrlError::BadIpv6)?;
    let groups = address.segments();
    let (zeros, length) = longest_zero_run(&groups);
    let write = |out: &mut Vec<u8>, groups: &[u16]| {
        for (at, group) in groups.iter().enumerate() {
            let colon = if at == 0 { "" } else { ":" };
            write!(out, "{colon}{group:x}").expect("writing to memory does not fail");
        }
    };
    out.push(b'[');
    if length < 2 {
        write(out, &groups);
    } else {
        write(out, &groups[..zeros]);
        out.extend_from_slice(b"::");
        write(out, &groups[zeros + length..]);
    }
    out.push(b']');
    Ok(())
}

/// The first longest run of zero groups (RFC 5952 section 4.2): where, how long.
fn longest_zero_run(groups: &[u16; 8]) -> (usize, usize) {
    let (mut best, mut best_length, mut length) = (0, 0, 0);
    for (at, &group) in groups.iter().enumerate() {
        length = if group == 0 { length + 1 } else { 0 };
        if length > best_length {
            (best, best_length) = (at + 1 - length, length);
        }
    }
    (best, best_length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(raw: &str) -> Result<(String, bool), UrlError> {
        let mut out = b"kept.".to_vec();
        let address = parse(raw.as_bytes(), &mut Vec::new(), &mut out)?;
        Ok((String::from_utf8(out[5..].to_vec()).unwrap(), address))
    }

    #[test]
    fn addresses() {
        for (raw, expected) in [
            ("3279880203", "195.127.0.11"),
            ("0x7f.1", "127.0.0.1"),
            ("0300.0250.0.01", "192.168.0.1"),
            ("192.0.2.7.", "192.0.2.7"),
            ("0x", "0.0.0.0"),
            ("[2001:DB8:0:0:1:0:0:1]", "[2001:db8::1:0:0:1]"),
            ("[::]", "[::]"),
            ("[1:2:3:4:5:6:7::]", "[1:2:3:4:5:6:7:0]"),
            ("[::ffff:192.0.2.1]", "[::ffff:c000:201]"),
        ] {
            assert_eq!(canonical(raw), Ok((expected.to_owned(), true)), "{raw}");
        }
        for raw in ["[::1", "[::g]", "[fe80::1%25eth0]"] {
            assert_eq!(canonical(raw), Err(UrlError::BadIpv6), "{raw}");
        }
    }

    #[test]
    fn names() {
        for (raw, expected) in [
            ("WWW..Example.COM.", "www.example.com"),
            ("b\u{fc}cher.example", "xn--bcher-kva.example"),
            ("1.2.3.256", "1.2.3.256"),
            ("1.2.3.4.5", "1.2.3.4.5"),
            ("a,b.example", "a%2Cb.example"),
            ("\u{ff05}41.example", "%EF%BC%8541.example"),
        ] {
            assert_eq!(canonical(raw), Ok((expected.to_owned(), false)), "{raw}");
        }
        assert_eq!(canonical("..."), Err(UrlError::EmptyHost));
    }
}
