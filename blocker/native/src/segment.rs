//! Segments: immutable sorted runs of one list's nodes, as they lie in the store and on a node's disk.
//!
//! All integers are little-endian except ids, which are big-endian so that byte order is id order.
//!
//! 1. bytes 0–7: magic `BLKSEGMT`
//! 2. bytes 8–11: version, now 1
//! 3. bytes 12–15: number of references, `r`
//! 4. bytes 16–23: number of nodes, `n`
//! 5. bytes 24–31: XXH3-64 of everything else
//! 6. bytes 32–47: fingerprint of the lookup key
//! 7. bytes 48–51: most path segments in any prefix rule of the run; bytes 52–55: zero
//! 8. `16·n` bytes: node ids, strictly ascending
//! 9. `2·n` bytes: flags of each node; 0 is a tombstone
//! 10. `r` references, ascending by node and bit: node (4 bytes), bit (1), length (1), text
//!
//! The checksum finds decay; a segment's name, its SHA-256, finds everything.

use std::fmt;
use std::ops::Range;

use memmap2::{Mmap, UncheckedAdvice};
use xxhash_rust::xxh3::Xxh3Default;

use crate::courtesy;
use crate::node::{LookupKey, NodeId};
use crate::run::NodeRun;

/// Version written and read.
pub const VERSION: u32 = 1;
/// Bytes a node takes.
pub const NODE_BYTES: usize = 18;
/// Bytes a reference takes beside its text.
pub const REFERENCE_BYTES: usize = 6;

const MAGIC: &[u8; 8] = b"BLKSEGMT";
const HEADER: usize = 56;

/// XXH3-64 of a segment or table file without the eight bytes from 24 on that hold it.
pub fn checksum(bytes: &[u8]) -> u64 {
    let mut hash = Xxh3Default::new();
    hash.update(&bytes[..24]);
    for part in bytes[32..].chunks(courtesy::BYTES) {
        hash.update(part);
        courtesy::offer();
    }
    hash.digest()
}

/// Why bytes are no segment.
#[derive(Debug, PartialEq, Eq)]
pub enum SegmentError {
    /// They start otherwise.
    Magic,
    /// Another version, given here.
    Version(u32),
    /// Length found and length that the header announces.
    Length(usize, usize),
    /// Contents changed since they were written.
    Checksum,
    /// Made under another lookup key.
    Key,
    /// References do not parse.
    References,
}

impl fmt::Display for SegmentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic => f.write_str("segment: wrong magic, expected BLKSEGMT; this is no segment"),
            Self::Version(found) => {
                write!(f, "segment: version {found}, expected {VERSION}; publish the list again with this release")
            }
            Self::Length(found, expected) => {
                write!(f, "segment: {found} bytes, expected {expected}; fetch it again from the store")
            }
            Self::Checksum => f.write_str("segment: checksum does not match; fetch it again from the store"),
            Self::Key => f.write_str("segment: made under another lookup key; use this deployment's lookup.key"),
            Self::References => f.write_str("segment: references are damaged; publish the list again"),
        }
    }
}

/// One node of one list.
#[derive(Debug, PartialEq, Eq)]
pub struct Node<'a> {
    /// Its id.
    pub id: NodeId,
    /// Bits of [`crate::flags`].
    pub flags: u16,
    /// References of the rules that end here: (bit, text).
    pub references: Vec<(u8, &'a str)>,
}

/// Writes a part of a run.
pub fn encode(run: &NodeRun, part: Range<usize>, key: &LookupKey) -> Vec<u8> {
    let references = || {
        let from = run.references.partition_point(|reference| (reference.0 as usize) < part.start);
        run.references[from..].iter().take_while(|reference| (reference.0 as usize) < part.end)
    };
    let mut out = Vec::with_capacity(HEADER + part.len() * NODE_BYTES);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&(references().count() as u32).to_le_bytes());
    out.extend_from_slice(&(part.len() as u64).to_le_bytes());
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&key.fingerprint().to_be_bytes());
    out.extend_from_slice(&run.depth.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    for id in &run.ids[part.clone()] {
        out.extend_from_slice(&id.to_be_bytes());
    }
    for flags in &run.flags[part.clone()] {
        out.extend_from_slice(&flags.to_le_bytes());
    }
    for (at, bit, text) in references() {
        out.extend_from_slice(&(at - part.start as u32).to_le_bytes());
        out.extend_from_slice(&[*bit, text.len() as u8]);
        out.extend_from_slice(text.as_bytes());
    }
    let sum = checksum(&out);
    out[24..32].copy_from_slice(&sum.to_le_bytes());
    out
}

/// A segment over borrowed bytes: its header is checked when it is opened, its checksum when it is first read.
///
/// A long list has many segments; reading each when its turn comes, and letting go of a mapped one afterwards, keeps
/// one of them in memory and not all.
pub struct Segment<'a> {
    bytes: &'a [u8],
    map: Option<&'a Mmap>,
    ids: &'a [u8],
    flags: &'a [u8],
    references: &'a [u8],
    depth: u32,
}

impl<'a> Segment<'a> {
    /// Reads the header; `verify` reads the rest. The order of ids is vouched for by the checksum.
    pub fn open(bytes: &'a [u8], key: &LookupKey) -> Result<Self, SegmentError> {
        let (header, body) = bytes.split_at_checked(HEADER).ok_or(SegmentError::Length(bytes.len(), HEADER))?;
        if &header[..8] != MAGIC {
            return Err(SegmentError::Magic);
        }
        let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
        let long = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("eight bytes"));
        if word(8) != VERSION {
            return Err(SegmentError::Version(word(8)));
        }
        let nodes = usize::try_from(long(16)).unwrap_or(usize::MAX);
        let (ids, flags) = (nodes.saturating_mul(16), nodes.saturating_mul(2));
        let least = ids.saturating_add(flags);
        if body.len() < least {
            return Err(SegmentError::Length(bytes.len(), least.saturating_add(HEADER)));
        }
        if header[32..48] != key.fingerprint().to_be_bytes() {
            return Err(SegmentError::Key);
        }
        let (ids, rest) = body.split_at(ids);
        let (flags, references) = rest.split_at(flags);
        Ok(Self { bytes, map: None, ids, flags, references, depth: word(48) })
    }

    /// Opens a segment whose file is mapped.
    pub fn mapped(map: &'a Mmap, key: &LookupKey) -> Result<Self, SegmentError> {
        Self::open(map, key).map(|segment| Self { map: Some(map), ..segment })
    }

    /// Compares the checksum. Cost: one pass of XXH3.
    pub fn verify(&self) -> Result<(), SegmentError> {
        let stored = u64::from_le_bytes(self.bytes[24..32].try_into().expect("eight bytes"));
        if checksum(self.bytes) == stored { Ok(()) } else { Err(SegmentError::Checksum) }
    }

    /// Gives the pages of a mapped segment back; they are read again from the file if they are touched again.
    fn let_go(&self) {
        if let Some(map) = self.map {
            // SAFETY: the mapping is of a file and read-only, so that dropping its pages loses nothing.
            _ = unsafe { map.unchecked_advise(UncheckedAdvice::DontNeed) };
        }
    }

    /// Number of nodes, tombstones included.
    pub fn len(&self) -> usize {
        self.flags.len() / 2
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.flags.is_empty()
    }

    fn id(&self, at: usize) -> NodeId {
        NodeId::from_be_bytes(self.ids[at * 16..][..16].try_into().expect("sixteen bytes"))
    }

    fn flags(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.flags[at * 2], self.flags[at * 2 + 1]])
    }

    /// Most path segments in any prefix rule of the run it is from.
    pub fn depth(&self) -> u32 {
        self.depth
    }
}

/// Reads the segments of one layer one node after the other.
pub struct Cursor<'a> {
    segments: std::slice::Iter<'a, Segment<'a>>,
    segment: Option<&'a Segment<'a>>,
    at: usize,
    references: &'a [u8],
    id: Option<NodeId>,
}

impl<'a> Cursor<'a> {
    /// Segments are in order of their ids.
    pub fn new(segments: &'a [Segment<'a>]) -> Result<Self, SegmentError> {
        let mut cursor = Self { segments: segments.iter(), segment: None, at: 0, references: &[], id: None };
        cursor.settle()?;
        Ok(cursor)
    }

    /// Id of the next node.
    pub fn id(&self) -> Option<NodeId> {
        self.id
    }

    /// The next node.
    pub fn take(&mut self) -> Result<Option<Node<'a>>, SegmentError> {
        let (Some(segment), Some(id)) = (self.segment, self.id) else {
            return Ok(None);
        };
        let flags = segment.flags(self.at);
        let references = self.take_references()?;
        self.at += 1;
        self.settle()?;
        Ok(Some(Node { id, flags, references }))
    }

    fn take_references(&mut self) -> Result<Vec<(u8, &'a str)>, SegmentError> {
        let mut own = Vec::new();
        while let Some((head, rest)) = self.references.split_first_chunk::<REFERENCE_BYTES>() {
            let [a, b, c, d, bit, length] = *head;
            if u32::from_le_bytes([a, b, c, d]) as usize != self.at {
                break;
            }
            let (text, rest) = rest.split_at_checked(usize::from(length)).ok_or(SegmentError::References)?;
            own.push((bit, std::str::from_utf8(text).map_err(|_| SegmentError::References)?));
            self.references = rest;
        }
        Ok(own)
    }

    /// Moves on to the segment that holds the next node.
    fn settle(&mut self) -> Result<(), SegmentError> {
        while self.segment.is_none_or(|segment| self.at >= segment.len()) {
            if let Some(done) = self.segment {
                done.let_go();
            }
            let Some(next) = self.segments.next() else {
                self.id = None;
                return Ok(());
            };
            next.verify()?;
            (self.segment, self.at, self.references) = (Some(next), 0, next.references);
        }
        self.id = self.segment.map(|segment| segment.id(self.at));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_damage_is_named() {
        let key = LookupKey::new(&[1; 16]);
        let mut run = NodeRun::default();
        run.push(&Node { id: 5, flags: 1, references: vec![(0, "one")] });
        run.push(&Node { id: 9, flags: 2, references: vec![] });
        let good = encode(&run, 0..2, &key);
        assert!(Segment::open(&good, &key).is_ok_and(|segment| segment.len() == 2));
        let damaged = |at: usize| {
            let mut bytes = good.clone();
            bytes[at] ^= 0x40;
            Segment::open(&bytes, &key).and_then(|segment| segment.verify()).err()
        };
        assert_eq!(damaged(0), Some(SegmentError::Magic));
        assert_eq!(damaged(8), Some(SegmentError::Version(65)));
        assert!(matches!(damaged(16), Some(SegmentError::Length(..))));
        assert_eq!(damaged(40), Some(SegmentError::Key));
        for at in (24..32).chain(48..good.len()) {
            assert_eq!(damaged(at), Some(SegmentError::Checksum), "byte {at}");
        }
        for length in 0..good.len() {
            assert!(Segment::open(&good[..length], &key).and_then(|segment| segment.verify()).is_err());
        }
        assert_eq!(Segment::open(&good, &LookupKey::new(&[2; 16])).err(), Some(SegmentError::Key));
    }
}
