//! Questions that another resolver is asked, and what it answers.
//!
//! Nobody else can guess what an answer must have to be taken: the id, the case of each letter of the name, and the port
//! that the caller asked from.

use super::message::{CLASS_IN, Edns, HEADER_BYTES, OPTION_ERROR, Options, Query, Reader, Record, counts, flag, kind};
use super::name::to_host;
use super::reply::{DATAGRAM_BYTES, Transport, put_u16};

/// Random bytes that a query to another resolver takes: its id, and a bit for each byte of the longest name.
pub const RANDOM_BYTES: usize = 2 + 32;

/// A client's query that waits for somebody else's answer; of all that it may have come with, what its answer depends on.
#[derive(Clone, Debug)]
pub struct Question {
    id: u16,
    flags: u16,
    asked: Box<[u8]>,
    kind: u16,
    edns: Option<Edns>,
    bytes: usize,
    transport: Transport,
    key: Box<[u8]>,
    excepted: bool,
}

impl Question {
    /// `excepted`: whether a list lets the name through, wherever it leads.
    pub fn new(query: &Query<'_>, transport: Transport, excepted: bool) -> Self {
        let mut key = Vec::with_capacity(query.question.len() + 1);
        write_key(query, &mut key);
        let Query { id, flags, kind, edns, bytes, .. } = *query;
        Self { id, flags, asked: query.question.into(), kind, edns, bytes, transport, key: key.into(), excepted }
    }

    /// How it came.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// Whether a list lets the name through, wherever it leads.
    pub fn excepted(&self) -> bool {
        self.excepted
    }

    /// Questions with one key have one answer: name, type, class, and whether DNSSEC's records and checks are wanted.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// The client's query.
    pub fn query(&self) -> Query<'_> {
        let Self { id, flags, kind, edns, bytes, .. } = *self;
        Query { id, flags, question: &self.asked, kind, class: CLASS_IN, edns, bytes, fault: None }
    }

    /// The query to another resolver. Of what the client sent it has the question and the bits of its key.
    pub fn forwarded(&self, random: &[u8; RANDOM_BYTES]) -> Vec<u8> {
        let (&bits, question) = self.key.split_last().expect("a key has its bits");
        let mut out = Vec::with_capacity(HEADER_BYTES + question.len() + 11);
        out.extend_from_slice(&random[..2]);
        // AD asks whether it is authenticated (RFC 6840, section 5.7).
        let checking = if bits & CHECKING_DISABLED != 0 { flag::CD } else { 0 };
        put_u16(flag::RD | flag::AD | checking, &mut out);
        for count in [1, 0, 0, 1] {
            put_u16(count, &mut out);
        }
        let (name, rest) = question.split_at(question.len() - 4);
        for (at, &byte) in name.iter().enumerate() {
            let upper = random[2 + at / 8] >> (at % 8) & 1 == 1 && byte.is_ascii_lowercase();
            // A length is below every letter.
            out.push(if upper { byte.to_ascii_uppercase() } else { byte });
        }
        out.extend_from_slice(rest);
        out.push(0);
        put_u16(kind::OPT, &mut out);
        put_u16(DATAGRAM_BYTES, &mut out);
        out.extend_from_slice(&[0, 0, if bits & DNSSEC_OK != 0 { 0x80 } else { 0 }, 0, 0, 0]);
        out
    }
}

const DNSSEC_OK: u8 = 1;
const CHECKING_DISABLED: u8 = 2;

/// Writes the key of a query.
pub fn write_key(query: &Query<'_>, key: &mut Vec<u8>) {
    key.clear();
    // Lengths of labels are below every letter, and so is what a question ends in, unless it is a type of 65 to 90.
    let name = query.name().len();
    key.extend(query.question[..name].iter().map(u8::to_ascii_lowercase));
    key.extend_from_slice(&query.question[name..]);
    let wanted = if query.edns.is_some_and(|edns| edns.dnssec_ok) { DNSSEC_OK } else { 0 };
    let checking = if query.flags & flag::CD != 0 { CHECKING_DISABLED } else { 0 };
    key.push(wanted | checking);
}

/// What came back from another resolver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Not an answer to what was asked: somebody guesses, or it is an old one.
    Stranger,
    /// An answer but for the case of letters, as of resolvers that change it; to be asked for where nobody can guess.
    Recased,
    /// The answer is longer than a datagram may be.
    Truncated,
    /// The other resolver cannot say.
    Failed,
    /// The answer.
    Answer(Box<Found>),
}

/// An answer of another resolver, without its question, so that it suits each client's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The records.
    pub body: Box<[u8]>,
    /// Counts of answers, authorities, additional records.
    pub counts: [u16; 3],
    /// Where in the whole message TTLs stand.
    pub ttls: Box<[u16]>,
    /// All bits of it.
    pub rcode: u16,
    /// Whether it is authenticated.
    pub authenticated: bool,
    /// Extended DNS Errors, as options.
    pub errors: Box<[u8]>,
    /// For how long it may be kept, in seconds; 0: not at all.
    pub lifetime: u32,
    /// Targets of its aliases, as hosts to be decided, a space after each.
    pub aliases: Box<[u8]>,
}

impl Found {
    /// That nobody answered (RFC 9520).
    pub fn nothing() -> Self {
        let [high, low] = NETWORK_ERROR.to_be_bytes();
        Self {
            body: Box::default(),
            counts: [0; 3],
            ttls: Box::default(),
            rcode: SERVFAIL,
            authenticated: false,
            errors: [0, OPTION_ERROR as u8, 0, 2, high, low].into(),
            lifetime: FAILURE_SECONDS,
            aliases: Box::default(),
        }
    }

    /// Whether it says something of the name; every other code is about the other resolver.
    pub fn says(&self) -> bool {
        matches!(self.rcode, 0 | NXDOMAIN)
    }

    /// Its size in memory.
    pub fn bytes(&self) -> usize {
        self.body.len() + 2 * self.ttls.len() + self.errors.len() + self.aliases.len()
    }

    /// Hosts that the answer leads over.
    pub fn aliases(&self) -> impl Iterator<Item = &[u8]> {
        self.aliases.split(|&byte| byte == b' ').filter(|host| !host.is_empty())
    }
}

const SERVFAIL: u16 = 2;
/// Network Error (RFC 8914, section 4.24).
const NETWORK_ERROR: u16 = 23;
/// There is no such name.
pub const NXDOMAIN: u16 = 3;
/// Longest TTL, in seconds; more is a mistake or somebody's wish to be kept for ever (RFC 8767, section 4).
const MAX_TTL: u32 = 7 * 86_400;
/// Longest negative answer (RFC 2308, section 5).
const MAX_NEGATIVE_TTL: u32 = 3 * 3600;
/// More aliases in one answer than any resolver follows: 12 in Unbound, 16 in BIND.
const MAX_ALIASES: usize = 32;
/// How long a failure is kept, in seconds, so that it is not asked for at once again (RFC 9520).
const FAILURE_SECONDS: u32 = 5;

/// Reads what came back to `asked`. Over a connection, where nobody can guess, the case of letters does not matter: some
/// resolvers change it.
pub fn hear(message: &[u8], asked: &[u8], transport: Transport) -> Heard {
    let question_end = asked.len() - 11;
    let Some(header) = message.first_chunk::<HEADER_BYTES>() else { return Heard::Stranger };
    let flags = u16::from_be_bytes([header[2], header[3]]);
    let answers = flags & (flag::QR | flag::OPCODE) == flag::QR && header[..2] == asked[..2];
    let question = &asked[HEADER_BYTES..question_end];
    let said = message.get(HEADER_BYTES..question_end).filter(|_| answers);
    let repeats = said.is_some_and(|said| said.eq_ignore_ascii_case(question));
    if repeats && transport == Transport::Datagram && said != Some(question) {
        return Heard::Recased;
    }
    if !repeats {
        // Without a question only a resolver that cannot read it answers.
        let mute = answers && counts(message)[0] == 0 && flags & 0xf != 0;
        return if mute { Heard::Failed } else { Heard::Stranger };
    }
    if flags & flag::TC != 0 {
        return Heard::Truncated;
    }
    read(message, flags, question_end).map_or(Heard::Failed, |found| Heard::Answer(Box::new(found)))
}

fn read(message: &[u8], flags: u16, question_end: usize) -> Option<Found> {
    let [questions, answers, authorities, additional] = counts(message);
    let mut reader = Reader { message, at: question_end };
    let mut ttls = Vec::new();
    let (mut rcode, mut errors, mut end) = (flags & 0xf, Vec::new(), message.len());
    let (mut least, mut negative) = (MAX_TTL, None);
    let mut aliases = Aliases::default();
    for _ in 0..answers {
        let record = reader.record().ok().filter(|record| record.class == CLASS_IN)?;
        ttls.push(record.ttl_at() as u16);
        least = least.min(seconds(record.ttl));
        if record.kind == kind::CNAME {
            aliases.add(message, &record)?;
        }
    }
    for _ in 0..authorities {
        let record = reader.record().ok()?;
        ttls.push(record.ttl_at() as u16);
        if record.kind == kind::SOA {
            let minimum = message[record.data..record.end].last_chunk()?;
            negative = Some(seconds(record.ttl).min(u32::from_be_bytes(*minimum)).min(MAX_NEGATIVE_TTL));
        }
    }
    let mut kept = 0;
    for _ in 0..additional {
        let record = reader.record().ok()?;
        if record.kind == kind::OPT {
            // What is after it, such as a signature of the message, is between us and the other resolver.
            end = record.owner;
            rcode |= (record.ttl >> 24 << 4) as u16;
            for option in Options(&message[record.data..record.end]) {
                let (code, value) = option.ok()?;
                if code == OPTION_ERROR {
                    put_u16(code, &mut errors);
                    put_u16(value.len() as u16, &mut errors);
                    errors.extend_from_slice(value);
                }
            }
            break;
        }
        ttls.push(record.ttl_at() as u16);
        kept += 1;
    }
    let lifetime = match (rcode, answers, negative) {
        (0, 1.., None) => least,
        (0 | NXDOMAIN, _, Some(negative)) => least.min(negative),
        (0 | NXDOMAIN, ..) => 0,
        _ => FAILURE_SECONDS,
    };
    (questions == 1).then(|| Found {
        body: message[question_end..end.min(reader.at)].into(),
        counts: [answers, authorities, kept],
        ttls: ttls.into(),
        rcode,
        authenticated: flags & flag::AD != 0,
        errors: errors.into(),
        lifetime,
        aliases: aliases.hosts.into(),
    })
}

/// Where aliases lead, read from the answers in any order: of others than the asked name a resolver tells nothing there.
#[derive(Default)]
struct Aliases {
    hosts: Vec<u8>,
    count: usize,
    name: Vec<u8>,
    host: Vec<u8>,
}

impl Aliases {
    /// None: the record's data are not a name, or there are too many.
    fn add(&mut self, message: &[u8], record: &Record) -> Option<()> {
        let mut data = Reader { message, at: record.data };
        data.name(&mut self.name).ok()?;
        self.count += 1;
        if data.at != record.end || self.count > MAX_ALIASES {
            return None;
        }
        to_host(&self.name, &mut self.host);
        if !self.host.is_empty() {
            self.hosts.extend_from_slice(&self.host);
            self.hosts.push(b' ');
        }
        Some(())
    }
}

/// A TTL; with its highest bit it is none (RFC 2181, section 8).
fn seconds(ttl: u32) -> u32 {
    if ttl > i32::MAX as u32 { 0 } else { ttl.min(MAX_TTL) }
}
