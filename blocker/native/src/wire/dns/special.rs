//! Names that nobody else is to be asked about.
//!
//! | name | answered |
//! |---|---|
//! | localhost and below (RFC 6761, section 6.3) | the loopback addresses |
//! | below invalid (section 6.4), onion (RFC 7686), local (RFC 6762, section 22.1) | there is none |
//! | `_dns.resolver.arpa`, and `_dns` below this resolver's own name, SVCB (RFC 9462, sections 4 and 5) | where it is to be had over TLS, if it is |
//! | resolver.arpa and below (sections 6.1 and 6.4) | no data: what another resolver says of itself fails here |
//! | as configured, such as use-application-dns.net | there is none |

use std::net::{Ipv4Addr, Ipv6Addr};

use super::message::MAX_NAME_BYTES;
use super::message::{Rcode, kind};
use super::name::{Labels, is_within};
use super::reply::{Records, Reply, put_u16};

const LOOPBACK_V4: &[Ipv4Addr] = &[Ipv4Addr::LOCALHOST];
const LOOPBACK_V6: &[Ipv6Addr] = &[Ipv6Addr::LOCALHOST];
const RESOLVER: &[u8] = b"\x08resolver\x04arpa\0";
/// What clients ask for that know a resolver by its address alone (RFC 9462, section 4).
const DISCOVERY: &[u8] = b"\x04_dns\x08resolver\x04arpa\0";
/// The label before the name of a resolver that is known (section 5; RFC 9461, section 3).
const SERVICE: &[u8] = b"\x04_dns";
/// Keys of a service's parameters (RFC 9460, section 14.3.2).
const ALPN: u16 = 1;
const PORT: u16 = 3;
/// DNS over TLS among a service's protocols, with its length (RFC 7858).
const DOT: &[u8] = b"\x03dot";
/// The port that it has unless another one is said.
const DOT_PORT: u16 = 853;

/// Where this resolver is to be had over TLS: what clients are told that look for it (RFC 9461, 9462).
pub struct Designated {
    /// The name that those ask for who know its own.
    owner: Vec<u8>,
    /// The data of the record.
    data: Vec<u8>,
}

impl Designated {
    /// By its name on the wire, which is in its certificate. None: the name leaves no room for another label.
    pub fn new(name: &[u8], port: u16) -> Option<Self> {
        let owner = [SERVICE, name].concat();
        let mut data = Vec::with_capacity(name.len() + 16);
        put_u16(1, &mut data); // of all that there are the first
        data.extend_from_slice(name);
        put_u16(ALPN, &mut data);
        put_u16(DOT.len() as u16, &mut data);
        data.extend_from_slice(DOT);
        if port != DOT_PORT {
            put_u16(PORT, &mut data);
            put_u16(2, &mut data);
            put_u16(port, &mut data);
        }
        (owner.len() <= MAX_NAME_BYTES).then_some(Self { owner, data })
    }

    fn is_asked_for(&self, name: &[u8]) -> bool {
        name.eq_ignore_ascii_case(DISCOVERY) || name.eq_ignore_ascii_case(&self.owner)
    }
}

/// What is answered about a name, if it is such a one; `withheld`: those that are configured, on the wire.
pub fn special<'a>(
    name: &[u8],
    asked: u16,
    withheld: &[Vec<u8>],
    designated: Option<&'a Designated>,
) -> Option<Reply<'a>> {
    if asked == kind::SVCB
        && let Some(resolver) = designated
        && resolver.is_asked_for(name)
    {
        return Some(Reply { records: Records::One(kind::SVCB, &resolver.data), ..Reply::default() });
    }
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
        let reply = special(&to_wire(name).unwrap(), asked, &withheld, None)?;
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

    fn told(resolver: &Designated, name: &str, asked: u16) -> Option<Vec<u8>> {
        match special(&to_wire(name).unwrap(), asked, &[], Some(resolver))?.records {
            Records::One(kind::SVCB, data) => Some(data.to_vec()),
            _ => None,
        }
    }

    #[test]
    fn a_resolver_with_a_certificate_says_where_it_is() {
        let name = to_wire("Resolver.ISP.example").unwrap();
        let resolver = Designated::new(&name, 8853).unwrap();
        let data = b"\0\x01\x08resolver\x03isp\x07example\0\0\x01\0\x04\x03dot\0\x03\0\x02\x22\x95";
        for asked in ["_dns.resolver.arpa", "_DNS.Resolver.ARPA", "_dns.resolver.isp.example"] {
            assert_eq!(told(&resolver, asked, kind::SVCB).as_deref(), Some(&data[..]), "{asked}");
            assert_eq!(told(&resolver, asked, kind::A), None, "{asked}");
        }
        for asked in ["resolver.arpa", "x._dns.resolver.arpa", "resolver.isp.example", "_dns.isp.example"] {
            assert_eq!(told(&resolver, asked, kind::SVCB), None, "{asked}");
        }
        let usual = Designated::new(&name, 853).unwrap();
        assert_eq!(told(&usual, "_dns.resolver.arpa", kind::SVCB).as_deref(), Some(&data[..data.len() - 6]));
        let longest = to_wire(&["a"; 127].join(".")).unwrap();
        assert!(Designated::new(&longest, 853).is_none());
    }
}
