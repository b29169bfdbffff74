//! SURT: host labels reversed and comma-ended, then a closing mark, then path and query.
//!
//! `http://www.example.com/a` is `com,example,www,)/a`. Only the host reversal is the Internet Archive's. An IP address
//! is one label, since it has no parent domain. Labels hold no comma and no slash (the canonical host escapes both), so
//! no two URLs share a SURT and every prefix that ends in a comma names one domain.

/// Closes a host; the path after it is compared as it stands.
pub const EXACT_HOST: u8 = b')';
/// Closes a host; the path after it has its ASCII letters folded to lower case.
pub const EXACT_HOST_FOLDED: u8 = b'|';
/// Opens the rules that hold on a host and all its subdomains; a closing mark follows.
pub const ANY_SUBDOMAIN: u8 = b'*';

/// Appends the reversed labels of a canonical host, each ended by a comma.
pub fn push_host(host: &[u8], address: bool, out: &mut Vec<u8>) {
    if address {
        out.extend_from_slice(host);
        out.push(b',');
        return;
    }
    let mut end = host.len();
    while let Some(dot) = memchr::memrchr(b'.', &host[..end]) {
        out.extend_from_slice(&host[dot + 1..end]);
        out.push(b',');
        end = dot;
    }
    out.extend_from_slice(&host[..end]);
    out.push(b',');
}

/// The lengths of the prefixes of a reversed host that end a label, shortest first.
pub fn labels(reversed: &[u8]) -> impl Iterator<Item = usize> + '_ {
    memchr::memchr_iter(b',', reversed).map(|comma| comma + 1)
}
