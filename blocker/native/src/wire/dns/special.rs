//! Names that nobody else is to be asked about.
//!
//! | name | answered |
//! |---|---|
//! | localhost and below (RFC 6761, section 6.3) | the loopback addresses |
//! | below invalid (section 6.4), onion (RFC 7686), local (RFC 6762, section 22.1) | there is none |
//! | resolver.arpa and below (RFC 9462, sections 6.1 and 6.4) | no data: what another resolver says of itself fails here |
//! | as configured, such as use-application-dns.net | there is none |

use std::net::{Ipv4Addr, Ipv6Addr};

use super::message::{Rcode, kind};
use super::name::{Labels, is_within};
use super::reply::{Records, Reply};

const LOOPBACK_V4: &[Ipv4Addr] = &[Ipv4Addr::LOCALHOST];
const LOOPBACK_V6: &[Ipv6Addr] = &[Ipv6Addr::LOCALHOST];
const RESOLVER: &[u8] = b"\x08resolver\x04arpa\0";

/// What is answered about a name, if it is such a one; `withheld`: those that are configured, on the wire.
pub fn special(name: &[u8], asked: u16, withheld: &[Vec<u8>]) -> Option<Reply<'static>> {
    let last = Labels(name).last()?;
    let is = |label: &[u8]| last.eq_ignore_ascii_case(label);
    if is(b"localhost") {
        let records = match asked {
            kind::A => Records::V4(LOOPBACK_V4),
            kind::AAAA => Records::V6(LOOPBACK_V6),
            _ => Records::None,
        };
        return Some(Reply { records, ..Reply::default() });
    }
    if is(b"arpa") && is_within(name, RESOLVER) {
        return Some(Reply::default());
    }
    let absent = is(b"invalid") || is(b"onion") || is(b"local") || withheld.iter().any(|zone| is_within(name, zone));
    absent.then(|| Reply::of(Rcode::NxDomain))
}

#[cfg(test)]
mod tests {
    use super::super::name::to_wire;
    use super::*;

    fn answered(name: &str, asked: u16) -> Option<(Rcode, bool)> {
        let withheld = [to_wire("use-application-dns.net").unwrap()];
        let reply = special(&to_wire(name).unwrap(), asked, &withheld)?;
        Some((reply.rcode, !matches!(reply.records, Records::None)))
    }

    #[test]
    fn special_names_end_where_they_end() {
        for (name, asked, expected) in [
            ("localhost", kind::A, Some((Rcode::NoError, true))),
            ("a.LocalHost", kind::AAAA, Some((Rcode::NoError, true))),
            ("localhost", kind::TXT, Some((Rcode::NoError, false))),
            ("x.invalid", kind::A, Some((Rcode::NxDomain, false))),
            ("x.onion", kind::A, Some((Rcode::NxDomain, false))),
            ("printer.local", kind::A, Some((Rcode::NxDomain, false))),
            ("_dns.resolver.arpa", kind::SVCB, Some((Rcode::NoError, false))),
            ("use-application-dns.net", kind::A, Some((Rcode::NxDomain, false))),
            ("localhost.example", kind::A, None),
            ("onion.example", kind::A, None),
            ("notlocalhost", kind::A, None),
            ("resolver.example", kind::A, None),
            ("xresolver.arpa", kind::A, None),
            ("7.2.0.192.in-addr.arpa", kind::A, None),
            ("use-application-dns.net.example", kind::A, None),
            ("", kind::NS, None),
        ] {
            assert_eq!(answered(name, asked), expected, "{name}");
        }
    }
}
