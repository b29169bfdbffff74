//! A zone that says what the lists say (RFC 5782): `<name>.<zone>`.
//!
//! | asked | answered |
//! |---|---|
//! | A of a name that is blocked; whose pages are looked at | 127.0.0.2; 127.0.0.3 |
//! | TXT of such a name | the list, and where to read more |
//! | a name that is in no list | NXDOMAIN |
//! | four decimal labels, 32 hexadecimal digits | the address that stands there in reverse |
//! | `test`, `2.0.0.127`, the same as an IPv6 address | 127.0.0.2, for testing |
//! | `invalid`, `1.0.0.127`, the same as an IPv6 address | NXDOMAIN, for testing |
//! | SOA, NS of the zone itself | these |
//!
//! The SOA's serial changes whenever an answer may have changed; it does not count upwards. By datagram a negative answer
//! to the shortest names has none, so that it stays under twice its query: from a name of 20 bytes on there is room.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::message::{HEADER_BYTES, Query, Rcode, flag, kind};
use super::name::{Labels, address_to_host, reversed_address, to_host};
use super::reply::{Records, Reply, Transport};
use crate::decide::Verdict;
use crate::wire::Decide;

/// Blocked, and what is listed for testing.
const LISTED: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// Pages of it are listed.
const INSPECTED: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
/// Never listed, for testing.
const UNLISTED: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// Longest string of a TXT record.
const MAX_TEXT_BYTES: usize = 255;
/// Not Ready (RFC 8914, section 4.15).
pub const NOT_READY: u16 = 14;

/// One zone.
pub struct Zone {
    /// Its name, as it goes over the wire, in lower case.
    origin: Vec<u8>,
    /// Its name servers; the first is that of the SOA.
    servers: Vec<Vec<u8>>,
    link: String,
    ttl: u32,
}

impl Zone {
    /// `origin`, `servers`: names on the wire; without servers, the zone itself. `link`: where to read more. `ttl`: seconds.
    pub fn new(origin: Vec<u8>, servers: Vec<Vec<u8>>, link: String, ttl: u32) -> Self {
        let servers = if servers.is_empty() { vec![origin.clone()] } else { servers };
        Self { origin, servers, link, ttl }
    }

    /// The SOA's data, where the zone's own name stands at `at`. Nobody's mailbox; the serial; refresh, retry, expire for
    /// secondaries, which there are none of; the negative TTL.
    fn soa(&self, serial: u32, at: usize) -> Vec<u8> {
        let mut soa = self.written(&self.servers[0], at);
        soa.push(0);
        for number in [serial, 3600, 600, 86_400, self.ttl] {
            soa.extend_from_slice(&number.to_be_bytes());
        }
        soa
    }

    /// The name of a server; one in the zone ends in a pointer to the zone's own name (RFC 1035, section 4.1.4).
    fn written(&self, server: &[u8], at: usize) -> Vec<u8> {
        self.holds(server)
            .map_or_else(|| server.to_vec(), |own| [&server[..own], &(0xc000 | at as u16).to_be_bytes()].concat())
    }

    /// How many bytes of a name are before the zone's; None: it is not in the zone.
    pub fn holds(&self, name: &[u8]) -> Option<usize> {
        let before = name.len().checked_sub(self.origin.len())?;
        let suffix = name[before..].eq_ignore_ascii_case(&self.origin);
        // The zone must begin where a label does.
        let mut labels = Labels(name);
        while labels.0.len() > self.origin.len() && labels.next().is_some() {}
        (suffix && labels.0.len() == self.origin.len()).then_some(before)
    }

    /// Answers a question about a name in the zone, of which `before` bytes are before the zone's own name.
    pub fn answer<D: Decide>(
        &self,
        query: &Query<'_>,
        before: usize,
        transport: Transport,
        gate: &mut D,
        host: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) {
        let at = HEADER_BYTES + before;
        let soa = self.soa(serial_of(gate.tag()), at);
        let reply = Reply { flags: flag::AA, ttl: self.ttl, soa: Some((at, &soa)), ..Reply::default() };
        let name = &query.name()[..before];
        if name.is_empty() {
            self.apex(query, &Reply { soa: None, ..reply }, &soa, transport, out);
            return;
        }
        let (found, text) = match self.look_up(name, gate, host) {
            Ok(Some(found)) => found,
            Ok(None) => {
                Reply { rcode: Rcode::NxDomain, ..reply }.write(query, transport, out);
                return;
            }
            Err(error) => {
                Reply::because(Rcode::ServFail, error).write(query, transport, out);
                return;
            }
        };
        let address = [found];
        let records = match query.kind {
            kind::A | kind::ANY => Records::V4(&address),
            kind::TXT => Records::One(kind::TXT, &text),
            _ => Records::None,
        };
        let soa = reply.soa.filter(|_| matches!(records, Records::None));
        Reply { records, soa, ..reply }.write(query, transport, out);
    }

    fn apex(&self, query: &Query<'_>, reply: &Reply<'_>, soa: &[u8], transport: Transport, out: &mut Vec<u8>) {
        let servers: Vec<_> = self.servers.iter().map(|server| self.written(server, HEADER_BYTES)).collect();
        let records = match query.kind {
            kind::SOA => Records::One(kind::SOA, soa),
            kind::NS => Records::Data(kind::NS, &servers),
            kind::ANY => Records::One(kind::HINFO, super::ANY_DATA),
            _ => Records::None,
        };
        let negative = matches!(records, Records::None).then_some((HEADER_BYTES, soa));
        Reply { records, soa: negative, ..*reply }.write(query, transport, out);
    }

    /// The address that stands for the answer, and the data of a TXT record; None: not listed.
    fn look_up<D: Decide>(
        &self,
        name: &[u8],
        gate: &mut D,
        host: &mut Vec<u8>,
    ) -> Result<Option<(Ipv4Addr, Vec<u8>)>, u16> {
        let address = reversed_address(name);
        let testing = match address {
            Some(IpAddr::V4(address)) => Some(address),
            Some(IpAddr::V6(address)) => Ipv6Addr::to_ipv4_mapped(&address),
            None if name.eq_ignore_ascii_case(b"\x04test") => Some(LISTED),
            None if name.eq_ignore_ascii_case(b"\x07invalid") => Some(UNLISTED),
            None => None,
        };
        match testing {
            Some(LISTED) => return Ok(Some((LISTED, self.text("An entry for testing")))),
            Some(UNLISTED) => return Ok(None),
            _ => {}
        }
        match address {
            Some(address) => address_to_host(address, host),
            None => to_host(name, host),
        }
        let answer = gate.host(host).ok_or(NOT_READY)?;
        Ok(match answer.verdict {
            Verdict::Allow => None,
            Verdict::Inspect => Some((INSPECTED, self.text("Some pages are listed"))),
            Verdict::Block if answer.list.is_empty() => Some((LISTED, self.text("Blocked"))),
            Verdict::Block => Some((LISTED, self.text(&format!("Blocked by list {}", answer.list)))),
        })
    }

    /// The data of a TXT record of one string.
    fn text(&self, said: &str) -> Vec<u8> {
        let link = if self.link.is_empty() { "" } else { "; see " };
        let text = [said, link, &self.link].concat();
        let text = &text.as_bytes()[..text.len().min(MAX_TEXT_BYTES)];
        [&[text.len() as u8], text].concat()
    }
}

/// A number that changes with the gate's tag.
fn serial_of(tag: &str) -> u32 {
    tag.get(..8).and_then(|digits| u32::from_str_radix(digits, 16).ok()).unwrap_or(0)
}
