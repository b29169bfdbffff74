//! The node table: all lists of a node merged, immutable, in one block of memory that can be mapped from a file.
//!
//! Layout, all integers little-endian, each part starting on a multiple of eight bytes:
//!
//! 1. bytes 0–7: magic `BLKTABLE`
//! 2. bytes 8–11: version, now 1
//! 3. bytes 12–15: `b`, the number of id bits that the index covers
//! 4. bytes 16–23: total length
//! 5. bytes 24–31: XXH3-64 of everything else
//! 6. bytes 32–47: fingerprint of the lookup key
//! 7. bytes 48–55: number of nodes, `n`
//! 8. bytes 56–59: number of effects, `e`; bytes 60–63: bytes per effect number, `w` (2 or 4)
//! 9. bytes 64–67: most segments in any prefix rule; bytes 68–71: number of references, `r`
//! 10. bytes 72–79: length of the list part, `l`; bytes 80–87: length of the reference text, `t`; bytes 88–95: zero
//! 11. index: `2^b + 1` × 4 bytes: where the nodes whose id starts with these `b` bits begin
//! 12. keys: `n` × 8 bytes: the low half of each node's id, in order of the whole id
//! 13. effect numbers: `n` × `w` bytes
//! 14. effects: `e` × 112 bytes: for each bit of [`crate::flags`] the mask of lists that have it
//! 15. references: `r` × 16 bytes: node (4), offset (4), length (2), list (1), bit (1), zero (4)
//! 16. reference text: `t` bytes
//! 17. lists: `l` bytes; each: serial (8), action (1: 0 block, 1 allow), name length (1), metadata length (4), name,
//!     metadata
//!
//! A probe reads one index entry and then one run of about eight keys, so one or two cache lines. Of the 128 bits of an
//! id, `b` + 64 are compared: over a million nodes, two different prefixes meet with a chance of 2⁻⁸¹.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::{fmt, io, slice};

use memmap2::{Mmap, MmapMut};

use crate::courtesy;
use crate::flags;
use crate::hashed;
use crate::node::LookupKey;
use crate::segment::{SegmentError, checksum};

#[cfg(target_endian = "big")]
compile_error!("the table is read in place and is little-endian");

/// Version written and read.
pub const VERSION: u32 = 1;
/// Most lists in a table: one bit each of a 64-bit mask.
pub const MAX_LISTS: usize = 64;

pub(crate) const MAGIC: &[u8; 8] = b"BLKTABLE";
pub(crate) const HEADER: usize = 96;
const EFFECT_BYTES: usize = flags::COUNT * 8;
const REFERENCE_BYTES: usize = 16;

/// What ends or continues at a node, for all lists at once.
pub type Effect = [u64; flags::COUNT];

/// Why a file is no table, or none can be made.
#[derive(Debug)]
pub enum TableError {
    /// The file starts otherwise.
    Magic,
    /// Another version, given here.
    Version(u32),
    /// Length found and length announced.
    Length(u64, u64),
    /// Contents changed since they were written.
    Checksum,
    /// Made under another lookup key.
    Key,
    /// The list part does not parse.
    Lists,
    /// More lists than a mask has bits; the number found.
    TooManyLists(usize),
    /// A list's name is empty or longer than its length field can say.
    ListName,
    /// More nodes than fit.
    TooLarge,
    /// A segment that goes into it is damaged.
    Segment(SegmentError),
    /// The file cannot be read or written.
    Io(io::Error),
}

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const REMEDY: &str = "delete the snapshot and let the node fetch it again from the store";
        match self {
            Self::Magic => write!(f, "snapshot: wrong magic, expected BLKTABLE; {REMEDY}"),
            Self::Version(found) => {
                write!(f, "snapshot: version {found}, expected {VERSION}; {REMEDY}")
            }
            Self::Length(found, expected) => {
                write!(f, "snapshot: {found} bytes, expected {expected}; {REMEDY}")
            }
            Self::Checksum => write!(f, "snapshot: checksum does not match its contents; {REMEDY}"),
            Self::Key => f.write_str("snapshot: made under another lookup key; use the deployment's lookup.key"),
            Self::Lists => write!(f, "snapshot: the list part is damaged; {REMEDY}"),
            Self::TooManyLists(found) => {
                write!(f, "{found} lists, at most {MAX_LISTS}; retire some")
            }
            Self::ListName => f.write_str("a list's name has 1 to 255 bytes"),
            Self::TooLarge => f.write_str("more than four thousand million nodes"),
            Self::Segment(error) => error.fmt(f),
            Self::Io(error) => write!(f, "snapshot: {}", error.kind()),
        }
    }
}

impl From<io::Error> for TableError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<SegmentError> for TableError {
    fn from(error: SegmentError) -> Self {
        Self::Segment(error)
    }
}

/// A list in a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListInfo {
    /// Its name.
    pub name: String,
    /// Its version.
    pub serial: u64,
    /// Whether its rules are exceptions.
    pub allow: bool,
    /// What the layers above want to know of it; JSON, not read here.
    pub metadata: String,
}

pub(crate) enum Backing {
    Memory(MmapMut),
    File(Mmap),
}

impl Backing {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Memory(map) => map,
            Self::File(map) => map,
        }
    }
}

/// Where the parts begin, in bytes.
#[derive(Clone, Copy)]
pub(crate) struct Parts {
    pub(crate) keys: usize,
    pub(crate) numbers: usize,
    pub(crate) effects: usize,
    pub(crate) references: usize,
    pub(crate) text: usize,
    pub(crate) lists: usize,
    pub(crate) end: usize,
}

/// The node table.
pub struct Table {
    pub(crate) backing: Backing,
    pub(crate) key: LookupKey,
    pub(crate) lists: Vec<ListInfo>,
    pub(crate) parts: Parts,
    pub(crate) bits: u32,
    pub(crate) nodes: usize,
    pub(crate) effects: usize,
    pub(crate) wide: bool,
    pub(crate) references: usize,
    pub(crate) depth: usize,
    /// The node above all rules that are digests; looked up once, so that a table without them pays nothing.
    pub(crate) hashed: Option<usize>,
}

pub(crate) struct Header {
    pub(crate) bits: u32,
    pub(crate) nodes: usize,
    pub(crate) effects: usize,
    pub(crate) width: usize,
    pub(crate) depth: usize,
    pub(crate) references: usize,
    pub(crate) lists: usize,
    pub(crate) text: usize,
}

impl Header {
    pub(crate) fn parts(&self) -> Option<Parts> {
        let up = |bytes: usize| bytes.checked_next_multiple_of(8);
        let keys = HEADER + up(((1_usize << self.bits) + 1) * 4)?;
        let numbers = keys.checked_add(self.nodes.checked_mul(8)?)?;
        let effects = up(numbers.checked_add(self.nodes.checked_mul(self.width)?)?)?;
        let references = effects.checked_add(self.effects.checked_mul(EFFECT_BYTES)?)?;
        let text = references.checked_add(self.references.checked_mul(REFERENCE_BYTES)?)?;
        let lists = up(text.checked_add(self.text)?)?;
        let end = up(lists.checked_add(self.lists)?)?;
        Some(Parts { keys, numbers, effects, references, text, lists, end })
    }
}

impl Table {
    /// Maps a table from a file. Cost: one pass of XXH3 over it.
    pub fn open(path: &Path, key: &LookupKey) -> Result<Self, TableError> {
        Self::map(&File::open(path)?, key)
    }

    /// Maps an open file; as `open`.
    pub fn map(file: &File, key: &LookupKey) -> Result<Self, TableError> {
        // SAFETY: table files are written under another name, synced and renamed, and never changed afterwards; a
        // change under our feet by somebody else could at worst make a wrong decision or end the process.
        let map = unsafe { Mmap::map(file)? };
        Self::read(Backing::File(map), key)
    }

    /// Writes the table to an open file that is empty; nothing is synced.
    pub fn write(&self, file: &mut File) -> Result<(), TableError> {
        write(file, self.backing.bytes()).map_err(TableError::Io)
    }

    /// Writes the table beside `path`, syncs it and renames it: the file is whole or is not there.
    pub fn save(&self, path: &Path) -> Result<(), TableError> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.tmp", std::process::id()));
        let beside = path.with_file_name(name);
        let write = || -> io::Result<()> {
            let mut file = File::create(&beside)?;
            self::write(&mut file, self.backing.bytes())?;
            file.sync_all()?;
            std::fs::rename(&beside, path)?;
            File::open(path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")))?
                .sync_all()
        };
        write().inspect_err(|_| _ = std::fs::remove_file(&beside)).map_err(TableError::Io)
    }

    fn read(backing: Backing, key: &LookupKey) -> Result<Self, TableError> {
        let bytes = backing.bytes();
        let length = |expected: usize| TableError::Length(bytes.len() as u64, expected as u64);
        let header = bytes.get(..HEADER).ok_or_else(|| length(HEADER))?;
        if &header[..8] != MAGIC {
            return Err(TableError::Magic);
        }
        let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
        let long = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("eight bytes"));
        if word(8) != VERSION {
            return Err(TableError::Version(word(8)));
        }
        if long(16) != bytes.len() as u64 {
            return Err(TableError::Length(bytes.len() as u64, long(16)));
        }
        if checksum(bytes) != long(24) {
            return Err(TableError::Checksum);
        }
        if header[32..48] != key.fingerprint().to_be_bytes() {
            return Err(TableError::Key);
        }
        let parsed = Header {
            bits: word(12).clamp(1, 32),
            nodes: long(48) as usize,
            effects: word(56) as usize,
            width: word(60) as usize,
            depth: word(64) as usize,
            references: word(68) as usize,
            lists: long(72) as usize,
            text: long(80) as usize,
        };
        let parts = parsed.parts().filter(|parts| parts.end == bytes.len()).ok_or(TableError::Lists)?;
        let lists = read_lists(&bytes[parts.lists..parts.lists + parsed.lists]).ok_or(TableError::Lists)?;
        Ok(Self {
            key: key.clone(),
            lists,
            parts,
            bits: parsed.bits,
            nodes: parsed.nodes,
            effects: parsed.effects,
            wide: parsed.width == 4,
            references: parsed.references,
            depth: parsed.depth,
            backing,
            hashed: None,
        }
        .settled())
    }

    /// With what is looked up once for all.
    pub(crate) fn settled(mut self) -> Self {
        self.hashed = self.find(hashed::branch(&self.key));
        self
    }

    /// The key its ids are made with.
    pub fn key(&self) -> &LookupKey {
        &self.key
    }

    /// The lists, in the order of their mask bits.
    pub fn lists(&self) -> &[ListInfo] {
        &self.lists
    }

    /// Number of nodes.
    pub fn len(&self) -> usize {
        self.nodes
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.nodes == 0
    }

    /// Size in bytes, in memory as on disk.
    pub fn bytes(&self) -> usize {
        self.parts.end
    }

    /// Most path segments in any prefix rule: deeper borders need no probe.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// The node above all rules that are digests, if there are any.
    #[inline]
    pub fn hashed(&self) -> Option<usize> {
        self.hashed
    }

    /// What ends or continues at a node.
    #[inline]
    pub fn effect(&self, node: usize) -> &Effect {
        let number = if self.wide {
            self.part::<u32>(self.parts.numbers, self.nodes)[node] as usize
        } else {
            usize::from(self.part::<u16>(self.parts.numbers, self.nodes)[node])
        };
        &self.part::<Effect>(self.parts.effects, self.effects)[number]
    }

    /// The reference of the rule of a list that ends at a node in that way. Cost: one binary search.
    pub fn reference(&self, node: usize, list: usize, bit: usize) -> Option<&str> {
        let entries = self.part::<[u32; 4]>(self.parts.references, self.references);
        let wanted = (node as u32, (list | bit << 8) as u32);
        let [_, offset, length, _] =
            entries[entries.binary_search_by_key(&wanted, |entry| (entry[0], entry[2] >> 16)).ok()?];
        let (offset, length) = (self.parts.text + offset as usize, usize::from(length as u16));
        std::str::from_utf8(self.backing.bytes().get(offset..offset + length)?).ok()
    }

    #[inline]
    pub(crate) fn part<T: Plain>(&self, offset: usize, count: usize) -> &[T] {
        let bytes = self.backing.bytes();
        assert!(offset % align_of::<T>() == 0 && offset + count * size_of::<T>() <= bytes.len());
        // SAFETY: in bounds and aligned (checked above; the block itself is aligned to at least eight bytes), and every
        // bit pattern is a `Plain` value.
        unsafe { slice::from_raw_parts(bytes.as_ptr().add(offset).cast(), count) }
    }
}

/// Types that any aligned bytes are valid values of.
pub(crate) trait Plain {}
impl Plain for u16 {}
impl Plain for u32 {}
impl Plain for u64 {}
impl Plain for Effect {}
impl Plain for [u32; 4] {}

fn write(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    for part in bytes.chunks(courtesy::BYTES) {
        file.write_all(part)?;
        courtesy::offer();
    }
    Ok(())
}

fn read_lists(mut bytes: &[u8]) -> Option<Vec<ListInfo>> {
    let mut lists = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<14>() {
        let (name, rest) = rest.split_at_checked(usize::from(head[9]))?;
        let length = u32::from_le_bytes(head[10..14].try_into().ok()?) as usize;
        let (metadata, rest) = rest.split_at_checked(length)?;
        lists.push(ListInfo {
            name: String::from_utf8(name.to_vec()).ok()?,
            serial: u64::from_le_bytes(head[..8].try_into().ok()?),
            allow: head[8] == 1,
            metadata: String::from_utf8(metadata.to_vec()).ok()?,
        });
        bytes = rest;
    }
    (bytes.is_empty() && lists.len() <= MAX_LISTS).then_some(lists)
}
