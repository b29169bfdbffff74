//! Answers that are made here, written straight into the output.
//!
//! An answer is never longer than its asker takes, and all that is said here of itself is kept under twice the length of a
//! query that came as a datagram, so that nobody is worth using as an amplifier. What can be done without
//! leaves first: free text, then what lets a resolver keep the answer, then the reason, then all addresses but one. Where
//! even that is too long the answer is empty and says that it is truncated.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::message::{CLASS_IN, HEADER_BYTES, OPTION_ERROR, OPTION_PADDING, Query, Rcode, flag, kind};

/// What every asker takes in a datagram (RFC 1035, section 4.2.1).
const PLAIN_BYTES: usize = 512;
/// What is said to be taken here, and never exceeded in a datagram: no path cuts it into pieces (RFC 9715, section 3.2).
pub const DATAGRAM_BYTES: u16 = 1232;
/// Encrypted answers are as long as a multiple of this, if the client asks for it (RFC 8467, section 4.1).
const PADDED_BYTES: usize = 468;
/// An option's code and length.
const OPTION_HEAD_BYTES: usize = 4;
/// An OPT record without options.
const OPT_BYTES: usize = 11;
/// What a record has before its data, its owner being a pointer.
const RECORD_BYTES: usize = 12;

/// How a query came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// As a datagram, from somebody who may be somebody else.
    Datagram,
    /// Over a connection.
    Stream,
    /// Over a connection that nobody else can read.
    Encrypted,
}

impl Transport {
    /// The longest answer to a query.
    pub fn limit(self, query: &Query<'_>) -> usize {
        match (self, query.edns) {
            (Self::Stream | Self::Encrypted, _) => usize::from(u16::MAX),
            (Self::Datagram, None) => PLAIN_BYTES,
            (Self::Datagram, Some(edns)) => usize::from(edns.size.min(DATAGRAM_BYTES)).max(PLAIN_BYTES),
        }
    }
}

/// The records of an answer; their owner is the name of the question.
#[derive(Clone, Copy, Debug, Default)]
pub enum Records<'a> {
    /// None.
    #[default]
    None,
    /// IPv4 addresses.
    V4(&'a [Ipv4Addr]),
    /// IPv6 addresses.
    V6(&'a [Ipv6Addr]),
    /// Data of one type.
    Data(u16, &'a [Vec<u8>]),
    /// One record of one type.
    One(u16, &'a [u8]),
}

impl Records<'_> {
    fn len(self) -> usize {
        match self {
            Self::None => 0,
            Self::V4(all) => all.len(),
            Self::V6(all) => all.len(),
            Self::Data(_, all) => all.len(),
            Self::One(..) => 1,
        }
    }

    /// Their length with heads.
    fn bytes(self, count: usize) -> usize {
        let data = match self {
            Self::None => 0,
            Self::V4(_) => 4 * count,
            Self::V6(_) => 16 * count,
            Self::Data(_, all) => all[..count].iter().map(Vec::len).sum(),
            Self::One(_, data) => data.len() * count,
        };
        count * RECORD_BYTES + data
    }

    fn write(self, count: usize, ttl: u32, out: &mut Vec<u8>) {
        let owner = HEADER_BYTES;
        match self {
            Self::One(kind, data) if count > 0 => put_record(owner, kind, ttl, data, out),
            Self::None | Self::One(..) => {}
            Self::V4(all) => all[..count].iter().for_each(|one| put_record(owner, kind::A, ttl, &one.octets(), out)),
            Self::V6(all) => all[..count].iter().for_each(|one| put_record(owner, kind::AAAA, ttl, &one.octets(), out)),
            Self::Data(kind, all) => all[..count].iter().for_each(|one| put_record(owner, kind, ttl, one, out)),
        }
    }
}

/// An answer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reply<'a> {
    /// How the query went.
    pub rcode: Rcode,
    /// Flags beside those that repeat the query's.
    pub flags: u16,
    /// Seconds for which records, and that there are none, may be kept.
    pub ttl: u32,
    /// The answer's records.
    pub records: Records<'a>,
    /// Where in the message the name of its owner stands, and its data: what a negative answer needs to be kept (RFC 2308).
    pub soa: Option<(usize, &'a [u8])>,
    /// Extended DNS Errors, the first with a text; 0 is none.
    pub errors: [u16; 2],
    /// A text for the first error, and a shorter one.
    pub texts: [&'a str; 2],
}

/// What of an answer is written.
#[derive(Clone, Copy)]
struct Parts<'a> {
    text: &'a str,
    soa: bool,
    errors: usize,
    records: usize,
}

impl Parts<'_> {
    /// Length of the options.
    fn options(&self) -> usize {
        self.errors * 6 + if self.errors > 0 { self.text.len() } else { 0 }
    }
}

impl Reply<'_> {
    /// An answer that says how the query went and nothing else.
    pub fn of(rcode: Rcode) -> Self {
        Self { rcode, ..Self::default() }
    }

    /// The same with an Extended DNS Error.
    pub fn because(rcode: Rcode, error: u16) -> Self {
        Self { errors: [error, 0], ..Self::of(rcode) }
    }

    /// Writes it.
    pub fn write(&self, query: &Query<'_>, transport: Transport, out: &mut Vec<u8>) {
        let lean = if transport == Transport::Datagram { 2 * query.bytes - 1 } else { usize::MAX };
        let limit = transport.limit(query).min(lean);
        let all = self.records.len();
        let errors = if query.edns.is_some() { self.errors.iter().filter(|&&error| error != 0).count() } else { 0 };
        let bare = Parts { text: "", soa: false, errors: 0, records: all };
        let plans = [
            Parts { text: self.texts[0], soa: true, errors, records: all },
            Parts { text: self.texts[1], soa: true, errors, records: all },
            Parts { text: "", soa: true, errors, records: all },
            Parts { text: "", soa: false, errors, records: all },
            Parts { errors: errors.min(1), ..bare },
            bare,
            Parts { records: all.min(1), ..bare },
        ];
        let fitting = plans.into_iter().find(|parts| self.bytes(query, *parts) <= limit);
        let parts = fitting.unwrap_or(Parts { records: 0, ..bare });
        let truncated = if fitting.is_some() { 0 } else { flag::TC };
        let soa = self.soa.filter(|_| parts.soa);
        let counts = [parts.records as u16, u16::from(soa.is_some())];
        begin(query, self.rcode, self.flags | truncated, counts, out);
        self.records.write(parts.records, self.ttl, out);
        if let Some((owner, data)) = soa {
            put_record(owner, kind::SOA, self.ttl, data, out);
        }
        let padding = padding(query, transport, self.bytes(query, parts));
        put_opt(query, self.rcode as u16, parts.options(), padding, out, |out| {
            for (error, text) in self.errors.iter().take(parts.errors).zip([parts.text, ""]) {
                put_u16(OPTION_ERROR, out);
                put_u16(2 + text.len() as u16, out);
                put_u16(*error, out);
                out.extend_from_slice(text.as_bytes());
            }
        });
    }

    fn bytes(&self, query: &Query<'_>, parts: Parts<'_>) -> usize {
        let soa = self.soa.filter(|_| parts.soa).map_or(0, |(_, data)| RECORD_BYTES + data.len());
        let opt = if query.edns.is_some() { OPT_BYTES + parts.options() } else { 0 };
        HEADER_BYTES + query.question.len() + self.records.bytes(parts.records) + soa + opt
    }
}

/// Writes the header, with counts of answers and authorities, and the question as it was asked.
pub fn begin(query: &Query<'_>, rcode: Rcode, flags: u16, [answers, authorities]: [u16; 2], out: &mut Vec<u8>) {
    let repeated = query.flags & (flag::OPCODE | flag::RD | flag::CD);
    let questions = u16::from(!query.question.is_empty());
    let additional = u16::from(query.edns.is_some());
    for part in
        [query.id, flag::QR | repeated | flags | rcode as u16 & 0xf, questions, answers, authorities, additional]
    {
        put_u16(part, out);
    }
    out.extend_from_slice(query.question);
}

/// Bytes of nothing that hide the length of an answer; None: it is not hidden.
pub fn padding(query: &Query<'_>, transport: Transport, bytes: usize) -> Option<usize> {
    let wanted = transport == Transport::Encrypted && query.edns.is_some_and(|edns| edns.padded);
    let bytes = bytes + OPTION_HEAD_BYTES;
    let padded = bytes.next_multiple_of(PADDED_BYTES).min(transport.limit(query));
    wanted.then(|| padded.checked_sub(bytes)).flatten()
}

/// Writes the OPT record, if the asker had one; `rcode` in full, since its upper bits stand there; `length`: of the options.
pub fn put_opt(
    query: &Query<'_>,
    rcode: u16,
    length: usize,
    padding: Option<usize>,
    out: &mut Vec<u8>,
    options: impl FnOnce(&mut Vec<u8>),
) {
    let Some(edns) = query.edns else { return };
    out.push(0);
    put_u16(kind::OPT, out);
    put_u16(DATAGRAM_BYTES, out);
    out.extend_from_slice(&[(rcode >> 4) as u8, 0, if edns.dnssec_ok { 0x80 } else { 0 }, 0]);
    put_u16((length + padding.map_or(0, |padding| OPTION_HEAD_BYTES + padding)) as u16, out);
    options(out);
    if let Some(padding) = padding {
        put_u16(OPTION_PADDING, out);
        put_u16(padding as u16, out);
        out.resize(out.len() + padding, 0);
    }
}

/// Writes a record whose owner stands earlier in the message.
fn put_record(owner: usize, kind: u16, ttl: u32, data: &[u8], out: &mut Vec<u8>) {
    put_u16(0xc000 | owner as u16, out);
    put_u16(kind, out);
    put_u16(CLASS_IN, out);
    out.extend_from_slice(&ttl.to_be_bytes());
    put_u16(data.len() as u16, out);
    out.extend_from_slice(data);
}

/// Writes an integer of two bytes.
pub fn put_u16(value: u16, out: &mut Vec<u8>) {
    out.extend_from_slice(&value.to_be_bytes());
}
