//! DNS (RFC 1034, 1035, 2181, 6891): a zone that says what the lists say, and a resolver that filters.
//!
//! A query is decided by its name alone ([`Decide::host`]), at the moment it comes, also where an answer is kept already.
//! What is not answered from here is to be **forwarded** ([`Step::Forward`]): the codec writes the query that goes to another
//! resolver, with a new id, letters in random case and nothing of the client but its question and its DNSSEC bits, checks
//! what comes back, keeps it for its time, and writes the client's answer from it. Names that the answer leads over
//! (CNAME) are decided as well, as resolvers do with a response policy zone, each time that it is given.
//!
//! | query | answer |
//! |---|---|
//! | a response, less than a header | none |
//! | an opcode that is not QUERY; a type that no record has | NOTIMP |
//! | what cannot be read; not one question; two OPT records | FORMERR |
//! | EDNS of a later version | BADVERS |
//! | names that nobody else is to be asked about | see `special.rs` |
//! | a transfer; a class that is not IN; no recursion desired | REFUSED |
//! | ANY | a short HINFO (RFC 8482) |
//! | before there is a matcher | SERVFAIL, Not Ready |
//!
//! A query without recursion desired is never answered from what is kept: nobody can find out what others asked for.

use std::time::Duration;

use super::Decide;
use crate::decide::Verdict;

pub mod cache;
pub mod clients;
pub mod filter;
pub mod message;
pub mod name;
pub mod reply;
pub mod special;
pub mod stream;
pub mod upstream;
pub mod zone;

use cache::{Aged, Cache, write};
use filter::Filter;
use message::{CLASS_IN, Query, Rcode, flag, kind};
use reply::{Records, Reply, Transport};
use special::Designated;
use upstream::{Found, Question};
use zone::{NOT_READY, Zone};

/// What ANY gets: a host of a type that says why, and no operating system (RFC 8482, section 4.2).
pub const ANY_DATA: &[u8] = b"\x07RFC8482\x00";
/// How long that may be kept, in seconds: it never changes.
const ANY_SECONDS: u32 = 3600;
/// Prohibited (RFC 8914, section 4.19).
const PROHIBITED: u16 = 18;
/// Not Authoritative (section 4.21).
const NOT_AUTHORITATIVE: u16 = 20;

/// What becomes of a query.
pub enum Step {
    /// Its answer is written.
    Answered,
    /// It gets none.
    Dropped,
    /// Somebody else is to be asked.
    Forward(Question),
}

/// What a client got that had to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Later {
    /// What somebody else said of the name.
    Answer,
    /// The same of earlier, whose time is over.
    Stale,
    /// That nobody says anything.
    Failure,
}

/// All that decides an answer; for one gateway.
pub struct Service {
    /// The zone that says what the lists say.
    pub zone: Option<Zone>,
    /// What is answered about names in lists, outside that zone; None: nothing is.
    pub filter: Option<Filter>,
    /// Names on the wire that do not exist here, nor what is below them.
    pub withheld: Vec<Vec<u8>>,
    /// What clients are told that look for this resolver's encrypted service.
    pub designated: Option<Designated>,
    /// What others answered.
    pub cache: Cache,
    /// Code of the option that asks for structured errors; 0 if there is none.
    pub structured_option: u16,
    /// The name that is decided; kept for its memory only.
    host: Vec<u8>,
}

impl Service {
    /// Answers nothing yet. `cache`: keeps what others answer.
    pub fn new(cache: Cache) -> Self {
        Self {
            zone: None,
            filter: None,
            withheld: Vec::new(),
            designated: None,
            cache,
            structured_option: 0,
            host: Vec::new(),
        }
    }

    /// Answers one message, by appending to the output.
    ///
    /// `now`: time since any fixed moment.
    pub fn answer<D: Decide>(
        &mut self,
        message: &[u8],
        transport: Transport,
        gate: &mut D,
        now: Duration,
        out: &mut Vec<u8>,
    ) -> Step {
        let Some(query) = Query::parse(message, self.structured_option) else { return Step::Dropped };
        if let Some(refusal) = refusal(&query) {
            refusal.write(&query, transport, out);
            return Step::Answered;
        }
        if let Some(zone) = &self.zone
            && let Some(before) = zone.holds(query.name())
        {
            zone.answer(&query, before, transport, gate, &mut self.host, out);
            return Step::Answered;
        }
        let Some(filter) = &self.filter else {
            Reply::because(Rcode::Refused, NOT_AUTHORITATIVE).write(&query, transport, out);
            return Step::Answered;
        };
        // The root is nobody's host.
        let mut excepted = false;
        if query.name().len() > 1 {
            let name = match query.kind {
                // `_8443._https.` and the like (RFC 9460, section 9.1) are about the host behind them.
                kind::SVCB | kind::HTTPS => name::without_service(query.name()),
                _ => query.name(),
            };
            name::to_host(name, &mut self.host);
            let Some(answer) = gate.host(&self.host) else {
                Reply::because(Rcode::ServFail, NOT_READY).write(&query, transport, out);
                return Step::Answered;
            };
            let answered = match answer.verdict {
                Verdict::Allow => {
                    excepted = !answer.list.is_empty();
                    false
                }
                Verdict::Inspect => filter.inspect(&query, transport, out),
                Verdict::Block => {
                    filter.block(&query, answer.list, transport, out);
                    true
                }
            };
            if answered {
                return Step::Answered;
            }
            let designated = self.designated.as_ref();
            if let Some(reply) = special::special(query.name(), query.kind, &self.withheld, designated) {
                filter.finish(&reply, &query, transport, out);
                return Step::Answered;
            }
        }
        self.others(&Asked { query: &query, transport, excepted }, gate, now, out)
    }

    /// Answers a question that somebody else was asked, by what he said (None: nothing) or, if that is of no use, what he
    /// said earlier.
    pub fn answer_later<D: Decide>(
        &mut self,
        question: &Question,
        found: Option<&Found>,
        gate: &mut D,
        now: Duration,
        out: &mut Vec<u8>,
    ) -> Later {
        let (query, aged, nothing) = (question.query(), self.cache.fresh(), Found::nothing());
        let asked = Asked { query: &query, transport: question.transport(), excepted: question.excepted() };
        let (answer, later) = if let Some(found) = found.filter(|found| found.says()) {
            ((found, aged), Later::Answer)
        } else if let Some(late) = self.cache.find_late(&query, now) {
            (late, Later::Stale)
        } else {
            ((found.unwrap_or(&nothing), aged), Later::Failure)
        };
        pass_on(answer, &asked, self.filter.as_ref(), gate, out);
        later
    }

    /// Answers what no list has a word on.
    fn others<D: Decide>(&mut self, asked: &Asked<'_>, gate: &mut D, now: Duration, out: &mut Vec<u8>) -> Step {
        let Asked { query, transport, excepted } = *asked;
        if query.flags & flag::RD == 0 {
            Reply::because(Rcode::Refused, PROHIBITED).write(query, transport, out);
        } else if query.kind == kind::ANY {
            let records = Records::One(kind::HINFO, ANY_DATA);
            Reply { flags: flag::RA, ttl: ANY_SECONDS, records, ..Reply::default() }.write(query, transport, out);
        } else if let Some(answer) = self.cache.find(query, now) {
            pass_on(answer, asked, self.filter.as_ref(), gate, out);
        } else {
            return Step::Forward(Question::new(query, transport, excepted));
        }
        Step::Answered
    }
}

/// A query about a name that no list blocks.
struct Asked<'a> {
    query: &'a Query<'a>,
    transport: Transport,
    /// A list lets the name through, wherever it leads.
    excepted: bool,
}

/// Writes another resolver's answer, unless it leads over a name that a list blocks now.
fn pass_on<D: Decide>(
    (found, aged): (&Found, Aged),
    asked: &Asked<'_>,
    filter: Option<&Filter>,
    gate: &mut D,
    out: &mut Vec<u8>,
) {
    if let Some(filter) = filter.filter(|filter| filter.aliases && !asked.excepted) {
        for host in found.aliases() {
            if let Some(answer) = gate.alias(host)
                && answer.verdict == Verdict::Block
            {
                return filter.block(asked.query, answer.list, asked.transport, out);
            }
        }
    }
    write(found, asked.query, asked.transport, aged, out);
}

/// What is answered to a query that nobody here answers.
fn refusal(query: &Query<'_>) -> Option<Reply<'static>> {
    if let Some(fault) = query.fault {
        return Some(Reply::of(fault));
    }
    match (query.kind, query.class) {
        (kind::OPT, _) => Some(Reply::of(Rcode::FormErr)),
        (kind::AXFR | kind::IXFR, _) => Some(Reply::because(Rcode::Refused, PROHIBITED)),
        // RFC 6895, section 3.1: types that are for questions and for what is about a message.
        (0 | 128..=254, _) => Some(Reply::of(Rcode::NotImp)),
        (_, class) if class != CLASS_IN => Some(Reply::because(Rcode::Refused, PROHIBITED)),
        _ => None,
    }
}

/// An answer without anything, never longer than its query.
pub fn rebuff(message: &[u8], rcode: Rcode, flags: u16, out: &mut Vec<u8>) -> Step {
    let Some(mut query) = Query::parse(message, 0) else { return Step::Dropped };
    query.edns = None;
    Reply { flags, ..Reply::of(rcode) }.write(&query, Transport::Datagram, out);
    Step::Answered
}
