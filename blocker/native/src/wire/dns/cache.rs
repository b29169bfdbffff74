//! What other resolvers answered, for as long as they said (RFC 1035, section 7.4; RFC 2308; RFC 8767).
//!
//! It lives in memory alone and knows names, never who asked for them. Its size in bytes is bounded: what nobody asked for
//! since the hand last passed leaves first (CLOCK).

use std::collections::HashMap;
use std::time::Duration;

use super::message::{HEADER_BYTES, Query, Rcode, flag};
use super::reply::{Reply, Transport, begin, padding, put_opt};
use super::upstream::{Found, NXDOMAIN, write_key};

/// What an entry takes beside its bytes: two keys' and the answer's allocations, its fields, its place in the index.
const ENTRY_BYTES: usize = 300;
/// TTL of an answer whose time is over (RFC 8767, section 4), in seconds; and for how long it is then given before anybody
/// is asked again (section 5).
const STALE_TTL: u32 = 30;
/// Stale Answer, and the same where there is no such name (RFC 8914, sections 4.4 and 4.20).
const STALE: u8 = 3;
const STALE_NXDOMAIN: u8 = 19;

struct Entry {
    key: Box<[u8]>,
    found: Box<Found>,
    since: Duration,
    used: bool,
    /// When nobody had anything to say in its place.
    failed: Option<Duration>,
}

impl Entry {
    fn bytes(&self) -> usize {
        ENTRY_BYTES + 2 * self.key.len() + self.found.bytes()
    }

    fn age(&self, now: Duration) -> u32 {
        u32::try_from(now.saturating_sub(self.since).as_secs()).unwrap_or(u32::MAX)
    }
}

/// Answers by question.
pub struct Cache {
    index: HashMap<Box<[u8]>, usize>,
    entries: Vec<Entry>,
    hand: usize,
    bytes: usize,
    max_bytes: usize,
    max_ttl: u32,
    /// How long after its time an answer may be used if nobody else answers.
    stale_seconds: u32,
    /// The present key; kept for its memory only.
    key: Vec<u8>,
}

impl Cache {
    /// `max_bytes`: 0 keeps nothing; `max_ttl`: seconds that nothing outlasts; `stale_seconds`: see the type.
    pub fn new(max_bytes: usize, max_ttl: u32, stale_seconds: u32) -> Self {
        Self {
            index: HashMap::new(),
            entries: Vec::new(),
            hand: 0,
            bytes: 0,
            max_bytes,
            max_ttl,
            stale_seconds,
            key: Vec::new(),
        }
    }

    /// Sets other bounds; what exceeds them leaves.
    pub fn configure(&mut self, max_bytes: usize, max_ttl: u32, stale_seconds: u32) {
        (self.max_bytes, self.max_ttl, self.stale_seconds) = (max_bytes, max_ttl, stale_seconds);
        self.shrink(0);
    }

    /// How many answers there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// What they take, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How an answer is given that has just come.
    pub fn fresh(&self) -> Aged {
        Aged::By(0, self.max_ttl)
    }

    /// The answer to a query, if there is one whose time is not over, or in whose place nobody had one just now.
    pub fn find(&mut self, query: &Query<'_>, now: Duration) -> Option<(&Found, Aged)> {
        if self.entries.is_empty() {
            return None;
        }
        write_key(query, &mut self.key);
        let at = *self.index.get(self.key.as_slice())?;
        let age = self.entries[at].age(now);
        let over = age >= self.entries[at].found.lifetime.min(self.max_ttl);
        if over && !self.stands_in(&self.entries[at], now) {
            return None;
        }
        let entry = &mut self.entries[at];
        entry.used = true;
        Some((&entry.found, if over { Aged::Over } else { Aged::By(age, self.max_ttl) }))
    }

    /// Keeps an answer to the questions of a key.
    pub fn keep(&mut self, key: &[u8], found: &Found, now: Duration) {
        if found.lifetime == 0 {
            return;
        }
        if let Some(&at) = self.index.get(key) {
            // A failure does not take the place of what may still be of use.
            if !found.says() && self.stale_seconds > 0 && self.useful(&self.entries[at], now) {
                self.entries[at].failed = Some(now);
                return;
            }
            self.remove(at);
        }
        let entry = Entry { key: key.into(), found: Box::new(found.clone()), since: now, used: false, failed: None };
        let bytes = entry.bytes();
        if bytes > self.max_bytes {
            return;
        }
        self.shrink(bytes);
        self.bytes += bytes;
        self.index.insert(entry.key.clone(), self.entries.len());
        self.entries.push(entry);
    }

    /// An answer whose time is over, if there is one that may still be used; for when nobody else answers.
    pub fn find_late(&mut self, query: &Query<'_>, now: Duration) -> Option<(&Found, Aged)> {
        write_key(query, &mut self.key);
        let entry = &self.entries[*self.index.get(self.key.as_slice())?];
        (self.stale_seconds > 0 && self.useful(entry, now)).then_some((&*entry.found, Aged::Over))
    }

    /// Whether it is given though its time is over: nobody had anything else to say, not long ago.
    fn stands_in(&self, entry: &Entry, now: Duration) -> bool {
        let failed = entry.failed.is_some_and(|at| now.saturating_sub(at).as_secs() < u64::from(STALE_TTL));
        failed && self.stale_seconds > 0 && self.useful(entry, now)
    }

    /// Whether there is an answer whose time is over and that may still be used.
    pub fn has_late(&self, key: &[u8], now: Duration) -> bool {
        self.stale_seconds > 0 && self.index.get(key).is_some_and(|&at| self.useful(&self.entries[at], now))
    }

    fn useful(&self, entry: &Entry, now: Duration) -> bool {
        entry.found.says() && entry.age(now) < entry.found.lifetime.saturating_add(self.stale_seconds)
    }

    /// Makes room for so many bytes.
    fn shrink(&mut self, wanted: usize) {
        while self.bytes + wanted > self.max_bytes && !self.entries.is_empty() {
            self.hand %= self.entries.len();
            if std::mem::take(&mut self.entries[self.hand].used) {
                self.hand += 1;
            } else {
                self.remove(self.hand);
            }
        }
    }

    fn remove(&mut self, at: usize) {
        let gone = self.entries.swap_remove(at);
        self.bytes -= gone.bytes();
        self.index.remove(&gone.key);
        if let Some(moved) = self.entries.get(at) {
            *self.index.get_mut(&moved.key).expect("every entry is in the index") = at;
        }
    }
}

/// How old an answer is.
#[derive(Clone, Copy)]
pub enum Aged {
    /// So many seconds; and what no TTL exceeds.
    By(u32, u32),
    /// Its time is over.
    Over,
}

impl Aged {
    fn ttl(self, ttl: u32) -> u32 {
        match self {
            Self::By(age, most) => ttl.min(most).saturating_sub(age),
            Self::Over => STALE_TTL,
        }
    }
}

/// Writes a client's answer from another resolver's.
pub fn write(found: &Found, query: &Query<'_>, transport: Transport, aged: Aged, out: &mut Vec<u8>) {
    // Without EDNS there is no room for the upper bits, and so no way to say it.
    if found.rcode > 15 && query.edns.is_none() {
        Reply::of(Rcode::ServFail).write(query, transport, out);
        return;
    }
    let stale = match aged {
        Aged::By(..) => &[][..],
        Aged::Over => &[0, 15, 0, 2, 0, if found.rcode == NXDOMAIN { STALE_NXDOMAIN } else { STALE }],
    };
    let options = found.errors.len() + stale.len();
    let opt = if query.edns.is_some() { 11 + options } else { 0 };
    let length = HEADER_BYTES + query.question.len() + found.body.len() + opt;
    let wants_ad = query.flags & flag::AD != 0 || query.edns.is_some_and(|edns| edns.dnssec_ok);
    let authenticated = if found.authenticated && wants_ad { flag::AD } else { 0 };
    let start = out.len();
    let whole = length <= transport.limit(query);
    let truncated = if whole { 0 } else { flag::TC };
    begin(query, Rcode::NoError, flag::RA | authenticated | truncated, [0, 0], out);
    out[start + 3] |= (found.rcode & 0xf) as u8;
    if whole {
        let additional = found.counts[2] + u16::from(query.edns.is_some());
        for (at, count) in [found.counts[0], found.counts[1], additional].into_iter().enumerate() {
            out[start + 6 + 2 * at..start + 8 + 2 * at].copy_from_slice(&count.to_be_bytes());
        }
        out.extend_from_slice(&found.body);
        for &at in &found.ttls {
            let at = start + usize::from(at);
            let ttl = out[at..at + 4].try_into().map_or(0, u32::from_be_bytes);
            let ttl = aged.ttl(if ttl > i32::MAX as u32 { 0 } else { ttl });
            out[at..at + 4].copy_from_slice(&ttl.to_be_bytes());
        }
    }
    let (options, length) = if whole { (options, length) } else { (0, length - found.body.len() - options) };
    let padding = padding(query, transport, length);
    put_opt(query, found.rcode, options, padding, out, |out| {
        if whole {
            out.extend_from_slice(&found.errors);
            out.extend_from_slice(stale);
        }
    });
}
