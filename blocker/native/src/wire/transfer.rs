//! Zone transfers as DNS messages: AXFR (RFC 5936), IXFR (RFC 1995), names compressed (RFC 1035 section 4.1.4).
//!
//! A transfer is a sequence of records of the zone's top (SOA, NS) and of names of a [`Zone`]. It is written message by
//! message, each only when asked for, so a transfer holds one message and not the zone. Signatures are the caller's:
//! it leaves room for them and appends them.

use std::sync::Arc;

use crate::zone::{EFFECTS, Effect, Zone};

/// Bytes of a message's head.
pub const HEAD: usize = 12;
/// Offsets from here on cannot be pointed to.
const POINTABLE: usize = 0x4000;
/// Bytes of type, class, TTL and length of a record.
const FIXED: usize = 10;

/// What is said of a name, as the records that say it: each from its type to the end of its data, data uncompressed.
pub type Records = [Vec<Vec<u8>>; EFFECTS];

/// A part of a transfer.
pub enum Part {
    /// A record of the zone's top, from its type to the end of its data.
    Top(Vec<u8>),
    /// The records of names.
    Names(Arc<Zone>),
}

/// Builds the part of a record after its name.
pub fn record(kind: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(FIXED + data.len());
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&1u16.to_be_bytes());
    out.extend_from_slice(&ttl.to_be_bytes());
    out.extend_from_slice(&(data.len() as u16).to_be_bytes());
    out.extend_from_slice(data);
    out
}

/// Where a transfer is: a part, a name in it, which of the name's two owners, and which of its records.
#[derive(Clone, Copy, Default)]
struct Place {
    part: usize,
    name: usize,
    star: bool,
    record: usize,
}

/// A transfer under way.
pub struct Messages {
    origin: Vec<u8>,
    records: Arc<Records>,
    parts: Vec<Part>,
    /// Written into the first message only (RFC 5936 section 2.2).
    question: Vec<u8>,
    flags: u16,
    id: u16,
    place: Place,
    names: Names,
}

impl Messages {
    /// A transfer of a zone whose name on the wire is `origin`; `question` is the question without its name.
    pub fn new(
        id: u16,
        flags: u16,
        origin: Vec<u8>,
        question: Vec<u8>,
        records: Arc<Records>,
        parts: Vec<Part>,
    ) -> Self {
        Self { origin, records, parts, question, flags, id, place: Place::default(), names: Names::default() }
    }

    /// The next message of at most `limit` bytes, at least one record; `None` when all is written.
    pub fn next(&mut self, limit: usize, out: &mut Vec<u8>) -> bool {
        if self.place.part >= self.parts.len() {
            return false;
        }
        out.clear();
        let questions = u16::from(!self.question.is_empty());
        for field in [self.id, self.flags, questions, 0, 0, 0] {
            out.extend_from_slice(&field.to_be_bytes());
        }
        self.names.begin();
        if questions == 1 {
            out.extend_from_slice(&self.origin);
            self.names.origin = HEAD;
            out.append(&mut self.question);
        }
        let mut answers: u16 = 0;
        while answers < u16::MAX && self.place.part < self.parts.len() {
            let before = out.len();
            let kept = self.names.mark();
            if !self.write(out) {
                continue;
            }
            if out.len() > limit && answers > 0 {
                out.truncate(before);
                self.names.reset(kept);
                break;
            }
            answers += 1;
            self.advance();
        }
        out[6..8].copy_from_slice(&answers.to_be_bytes());
        true
    }

    /// Writes the record at the present place; without one it goes on to the next place and tells so.
    fn write(&mut self, out: &mut Vec<u8>) -> bool {
        let place = self.place;
        match &self.parts[place.part] {
            Part::Top(record) => {
                self.names.top(&self.origin, out);
                out.extend_from_slice(record);
                return true;
            }
            Part::Names(zone) => {
                if let Some(named) = zone.get(place.name) {
                    let effect = if place.star { named.below } else { named.own };
                    if let Some(record) =
                        self.records[effect as usize].get(place.record).filter(|_| effect != Effect::None)
                    {
                        self.names.write(named.key, place.star, &self.origin, out);
                        out.extend_from_slice(record);
                        return true;
                    }
                }
            }
        }
        self.skip();
        false
    }

    fn advance(&mut self) {
        match self.parts[self.place.part] {
            Part::Top(_) => self.place = Place { part: self.place.part + 1, ..Place::default() },
            Part::Names(_) => self.place.record += 1,
        }
    }

    /// To the next owner name.
    fn skip(&mut self) {
        let Place { part, name, star, .. } = self.place;
        let length = if let Part::Names(zone) = &self.parts[part] { zone.len() } else { 0 };
        self.place = if name >= length {
            Place { part: part + 1, ..Place::default() }
        } else if star {
            Place { part, name: name + 1, star: false, record: 0 }
        } else {
            Place { part, name, star: true, record: 0 }
        };
    }
}

/// The names of one message that can be pointed to: the zone's, and those of the last name's labels.
#[derive(Default)]
struct Names {
    /// Offset of the zone's own name; 0: not written yet.
    origin: usize,
    last: Vec<u8>,
    /// How much of `last` ends at a label, and where it was written; only what can be pointed to.
    labels: Vec<(usize, usize)>,
    starts: Vec<(usize, usize)>,
}

impl Names {
    fn begin(&mut self) {
        self.origin = 0;
        self.last.clear();
        self.labels.clear();
    }

    /// What `reset` needs: after it nothing may point to what was taken back. A message is full then.
    fn mark(&self) -> usize {
        self.origin
    }

    fn reset(&mut self, origin: usize) {
        self.begin();
        self.origin = origin;
    }

    fn top(&mut self, origin: &[u8], out: &mut Vec<u8>) {
        if self.origin != 0 {
            point(self.origin, out);
            return;
        }
        self.origin = out.len();
        out.extend_from_slice(origin);
    }

    fn write(&mut self, key: &[u8], star: bool, origin: &[u8], out: &mut Vec<u8>) {
        if star {
            out.extend_from_slice(b"\x01*");
        }
        while self.labels.last().is_some_and(|&(end, _)| !shares(key, &self.last, end)) {
            self.labels.pop();
        }
        let known = self.labels.last().copied();
        let written = known.map_or(0, |(end, _)| end);
        // Deepest label first, so from the end of the key to what is written already.
        self.starts.clear();
        let mut end = key.len();
        while end > written {
            let start = memchr::memrchr(0, &key[..end]).map_or(0, |border| border + 1);
            self.starts.push((end, out.len()));
            out.push((end - start) as u8);
            out.extend_from_slice(&key[start..end]);
            end = start.saturating_sub(1);
        }
        match known {
            Some((_, offset)) => point(offset, out),
            None => self.top(origin, out),
        }
        self.labels.extend(self.starts.drain(..).rev().filter(|&(_, offset)| offset < POINTABLE));
        self.last.clear();
        self.last.extend_from_slice(key);
    }
}

/// Whether both names have the same labels up to `end`.
fn shares(key: &[u8], last: &[u8], end: usize) -> bool {
    key.len() >= end && key[..end] == last[..end] && key.get(end).is_none_or(|&byte| byte == 0)
}

fn point(offset: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&(0xC000 | offset as u16).to_be_bytes());
}
