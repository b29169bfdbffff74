//! What a filtering resolver answers about names in lists, as if it were so; everything else is forwarded.
//!
//! | name | answered |
//! |---|---|
//! | blocked | NXDOMAIN, no data, or addresses of the stop page, with the Extended DNS Error of the list (RFC 8914) |
//! | its answer leads over a blocked one (CNAME) | the same, if it is to be so |
//! | pages of it are listed | addresses of the URL filter, if there are any: A and AAAA only, and no data for SVCB and HTTPS, whose hints would lead past it |
//!
//! A client that understands structured errors gets who blocks, and why, as JSON in the error's text
//! (draft-ietf-dnsop-structured-dns-error), and then no Forged Answer beside it, as that document wants.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::message::{HEADER_BYTES, Query, Rcode, flag, kind};
use super::reply::{Records, Reply, Transport};

/// Forged Answer (RFC 8914, section 4.5).
const FORGED: u16 = 4;
/// The name server and the mailbox of a SOA that no zone has, both the root; serial, refresh, retry, expire and minimum.
const NO_ZONE_BYTES: usize = 22;

/// Addresses of a server of the provider.
#[derive(Clone, Debug, Default)]
pub struct Addresses {
    /// For A.
    pub v4: Vec<Ipv4Addr>,
    /// For AAAA.
    pub v6: Vec<Ipv6Addr>,
}

impl Addresses {
    fn of(&self, kind: u16) -> Records<'_> {
        match kind {
            kind::A if !self.v4.is_empty() => Records::V4(&self.v4),
            kind::AAAA if !self.v6.is_empty() => Records::V6(&self.v6),
            _ => Records::None,
        }
    }
}

/// What is answered about a blocked name.
#[derive(Clone, Debug)]
pub enum Blocked {
    /// There is no such name.
    NxDomain,
    /// There is such a name, and nothing of what was asked for.
    NoData,
    /// The stop page.
    Addresses(Addresses),
}

/// Why a list blocks, for those who ask.
#[derive(Clone, Debug, Default)]
pub struct Reason {
    /// The Extended DNS Error: 15 Blocked, 16 Censored or 17 Filtered.
    pub error: u16,
    /// The structured text, and a shorter one.
    pub texts: [String; 2],
}

/// All that is set.
#[derive(Clone, Debug)]
pub struct Filter {
    /// For blocked names.
    pub blocked: Blocked,
    /// For names whose pages are listed; None: these are forwarded.
    pub inspect: Option<Addresses>,
    /// Whether names are blocked whose answers lead over a blocked one, as by response policy zones.
    pub aliases: bool,
    /// How long such answers may be kept, in seconds.
    pub ttl: u32,
    /// By list.
    pub reasons: HashMap<String, Reason>,
    /// Of all other lists.
    pub reason: Reason,
}

impl Filter {
    /// Answers about a name that `list` blocks.
    pub fn block(&self, query: &Query<'_>, list: &str, transport: Transport, out: &mut Vec<u8>) {
        let reason = self.reasons.get(list).unwrap_or(&self.reason);
        let (rcode, records) = match &self.blocked {
            Blocked::NxDomain => (Rcode::NxDomain, Records::None),
            Blocked::NoData => (Rcode::NoError, Records::None),
            Blocked::Addresses(addresses) => (Rcode::NoError, addresses.of(query.kind)),
        };
        let structured = query.edns.is_some_and(|edns| edns.structured);
        let forged = !structured && !matches!(records, Records::None);
        let [full, short] = &reason.texts;
        let reply = Reply {
            rcode,
            records,
            errors: [reason.error, if forged { FORGED } else { 0 }],
            texts: if structured { [full, short] } else { ["", ""] },
            ..Reply::default()
        };
        self.finish(&reply, query, transport, out);
    }

    /// Answers about a name whose pages are listed. False: it is to be forwarded.
    pub fn inspect(&self, query: &Query<'_>, transport: Transport, out: &mut Vec<u8>) -> bool {
        let Some(addresses) = &self.inspect else { return false };
        if !matches!(query.kind, kind::A | kind::AAAA | kind::SVCB | kind::HTTPS) {
            return false;
        }
        let records = addresses.of(query.kind);
        let forged = if matches!(records, Records::None) { 0 } else { FORGED };
        self.finish(&Reply { records, errors: [forged, 0], ..Reply::default() }, query, transport, out);
        true
    }

    /// Writes an answer of this server's own, with the time that such may be kept.
    pub fn finish(&self, reply: &Reply<'_>, query: &Query<'_>, transport: Transport, out: &mut Vec<u8>) {
        let mut soa = [0; NO_ZONE_BYTES];
        for (at, number) in [1, 3600, 600, 86_400, self.ttl].into_iter().enumerate() {
            soa[2 + 4 * at..6 + 4 * at].copy_from_slice(&u32::to_be_bytes(number));
        }
        // Its owner is the name above, so that the answer stands for this name alone.
        let first = usize::from(query.name().first().copied().unwrap_or(0));
        let negative = matches!(reply.records, Records::None) && first > 0;
        let soa = negative.then_some((HEADER_BYTES + 1 + first, &soa[..]));
        let reply = Reply { flags: flag::RA, ttl: self.ttl, soa, ..*reply };
        reply.write(query, transport, out);
    }
}
