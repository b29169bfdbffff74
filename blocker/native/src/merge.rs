//! Making a table: one pass over the folded layers of all lists, side by side.

use std::collections::HashMap;

use memmap2::{MmapMut, RemapOptions};

use crate::courtesy;
use crate::flags;
use crate::node::{LookupKey, NodeId};
use crate::run::Fold;
use crate::segment::checksum;
use crate::table::{Backing, Effect, HEADER, Header, ListInfo, MAGIC, MAX_LISTS, Table, TableError, VERSION};

/// Nodes per index entry, about: the keys of one bucket fill one cache line.
const BUCKET: usize = 8;

/// Merges lists, in the order of their mask bits, each given by its folded layers.
///
/// `most` bounds the number of nodes. Cost: one pass over all layers; memory beyond the table itself is untouched
/// pages only.
pub fn merge(
    lists: Vec<ListInfo>,
    folds: Vec<Fold<'_>>,
    most: usize,
    depth: usize,
    key: &LookupKey,
) -> Result<Table, TableError> {
    if lists.len() > MAX_LISTS {
        return Err(TableError::TooManyLists(lists.len()));
    }
    if lists.iter().any(|list| list.name.is_empty() || list.name.len() > 255) {
        return Err(TableError::ListName);
    }
    if u32::try_from(most).is_err() {
        return Err(TableError::TooLarge);
    }
    Merger::new(most)?.run(folds)?.finish(lists, depth, key)
}

/// A table being filled.
struct Merger {
    bits: u32,
    /// The table's memory: header, index and keys while nodes come, everything in the end.
    memory: MmapMut,
    keys_at: usize,
    nodes: usize,
    bucket: usize,
    numbers: Vec<u32>,
    effects: Vec<Effect>,
    known: HashMap<Effect, u32>,
    /// Effect numbers of nodes that one list alone has, by list and flags: nearly all nodes.
    single: Vec<Vec<Option<u32>>>,
    references: Vec<[u32; 4]>,
    text: Vec<u8>,
}

impl Merger {
    fn new(most: usize) -> Result<Self, TableError> {
        let bits = (most / BUCKET).max(2).next_power_of_two().ilog2();
        let keys_at = HEADER + (((1_usize << bits) + 1) * 4).next_multiple_of(8);
        let memory = MmapMut::map_anon(keys_at + most * 8)?;
        // A probe goes anywhere: with small pages most of its time is address translation. Only advice, so it may fail.
        #[cfg(target_os = "linux")]
        let _ = memory.advise(memmap2::Advice::HugePage);
        Ok(Self {
            bits,
            memory,
            keys_at,
            nodes: 0,
            bucket: 0,
            numbers: Vec::with_capacity(most),
            effects: Vec::new(),
            known: HashMap::new(),
            single: vec![Vec::new(); MAX_LISTS],
            references: Vec::new(),
            text: Vec::new(),
        })
    }

    fn run(mut self, mut folds: Vec<Fold<'_>>) -> Result<Self, TableError> {
        let mut heads = Vec::with_capacity(folds.len());
        for fold in &mut folds {
            heads.push(fold.next_node()?);
        }
        let mut owners: Vec<(usize, u16)> = Vec::with_capacity(folds.len());
        while let Some(id) = heads.iter().flatten().map(|node| node.id).min() {
            owners.clear();
            for (list, head) in heads.iter_mut().enumerate() {
                let Some(node) = head.take_if(|node| node.id == id) else {
                    continue;
                };
                owners.push((list, node.flags));
                for (bit, text) in node.references {
                    let (offset, place) = (self.text.len() as u32, (list as u32) | u32::from(bit) << 8);
                    self.references.push([self.nodes as u32, offset, text.len() as u32 | place << 16, 0]);
                    self.text.extend_from_slice(text.as_bytes());
                }
                *head = folds[list].next_node()?;
            }
            let number = if let [(list, flags)] = owners[..] {
                self.single_effect(list, flags)
            } else {
                self.intern(effect_of(&owners))
            };
            self.push(id, number);
            if self.nodes % courtesy::STEPS == 0 {
                courtesy::offer();
            }
        }
        Ok(self)
    }

    fn single_effect(&mut self, list: usize, flags: u16) -> u32 {
        if self.single[list].is_empty() {
            self.single[list] = vec![None; 1 << flags::COUNT];
        }
        let known = usize::from(flags) % (1 << flags::COUNT);
        if let Some(number) = self.single[list][known] {
            return number;
        }
        let number = self.intern(effect_of(&[(list, flags)]));
        self.single[list][known] = Some(number);
        number
    }

    fn intern(&mut self, effect: Effect) -> u32 {
        *self.known.entry(effect).or_insert_with(|| {
            self.effects.push(effect);
            self.effects.len() as u32 - 1
        })
    }

    fn push(&mut self, id: NodeId, number: u32) {
        let bucket = ((id >> 64) as u64 >> (64 - self.bits)) as usize;
        self.fill_index(bucket);
        let at = self.keys_at + self.nodes * 8;
        self.memory[at..at + 8].copy_from_slice(&(id as u64).to_le_bytes());
        self.numbers.push(number);
        self.nodes += 1;
    }

    /// Writes the begin of every bucket up to and with `bucket`.
    fn fill_index(&mut self, bucket: usize) {
        while self.bucket <= bucket {
            let at = HEADER + self.bucket * 4;
            self.memory[at..at + 4].copy_from_slice(&(self.nodes as u32).to_le_bytes());
            self.bucket += 1;
        }
    }

    fn finish(mut self, lists: Vec<ListInfo>, depth: usize, key: &LookupKey) -> Result<Table, TableError> {
        self.fill_index(1 << self.bits);
        // The binary search wants (node, bit, list) ascending; nodes came in order, the rest nearly so.
        self.references.sort_unstable_by_key(|entry| (entry[0], entry[2] >> 16));
        let list_part = write_lists(&lists);
        let wide = self.effects.len() > usize::from(u16::MAX);
        let header = Header {
            bits: self.bits,
            nodes: self.nodes,
            effects: self.effects.len(),
            width: if wide { 4 } else { 2 },
            depth,
            references: self.references.len(),
            lists: list_part.len(),
            text: self.text.len(),
        };
        let parts = header.parts().ok_or(TableError::TooLarge)?;
        let mut memory = self.memory;
        // SAFETY: nothing points into the mapping yet; what is added reads as zero, as it did before.
        unsafe { memory.remap(parts.end, RemapOptions::new().may_move(true))? };
        let bytes = &mut memory[..];
        if wide {
            fill(&mut bytes[parts.numbers..], self.numbers.iter().map(|number| number.to_le_bytes()));
        } else {
            fill(&mut bytes[parts.numbers..], self.numbers.iter().map(|&number| (number as u16).to_le_bytes()));
        }
        courtesy::offer();
        fill(&mut bytes[parts.effects..], self.effects.iter().flatten().map(|mask| mask.to_le_bytes()));
        fill(&mut bytes[parts.references..], self.references.iter().flatten().map(|word| word.to_le_bytes()));
        bytes[parts.text..parts.text + self.text.len()].copy_from_slice(&self.text);
        bytes[parts.lists..parts.lists + list_part.len()].copy_from_slice(&list_part);
        bytes[..8].copy_from_slice(MAGIC);
        fill(&mut bytes[8..], [VERSION, self.bits].map(u32::to_le_bytes).into_iter());
        fill(&mut bytes[16..], [(parts.end as u64).to_le_bytes()].into_iter());
        bytes[32..48].copy_from_slice(&key.fingerprint().to_be_bytes());
        fill(&mut bytes[48..], [(header.nodes as u64).to_le_bytes()].into_iter());
        let small =
            [header.effects, header.width, header.depth, header.references].map(|number| (number as u32).to_le_bytes());
        fill(&mut bytes[56..], small.into_iter());
        fill(&mut bytes[72..], [header.lists, header.text].map(|number| (number as u64).to_le_bytes()).into_iter());
        let sum = checksum(bytes);
        bytes[24..32].copy_from_slice(&sum.to_le_bytes());
        Ok(Table {
            backing: Backing::Memory(memory),
            key: key.clone(),
            lists,
            parts,
            bits: header.bits,
            nodes: header.nodes,
            effects: header.effects,
            wide,
            references: header.references,
            depth,
            hashed: None,
        }
        .settled())
    }
}

/// The masks of lists that each have some flags.
fn effect_of(owners: &[(usize, u16)]) -> Effect {
    std::array::from_fn(|bit| owners.iter().map(|(list, flags)| u64::from(flags >> bit & 1) << list).sum())
}

fn fill<const N: usize>(out: &mut [u8], items: impl Iterator<Item = [u8; N]>) {
    for (at, (place, item)) in out.chunks_exact_mut(N).zip(items).enumerate() {
        place.copy_from_slice(&item);
        if at % courtesy::BYTES == courtesy::BYTES - 1 {
            courtesy::offer();
        }
    }
}

fn write_lists(lists: &[ListInfo]) -> Vec<u8> {
    let mut out = Vec::new();
    for list in lists {
        out.extend_from_slice(&list.serial.to_le_bytes());
        out.extend_from_slice(&[u8::from(list.allow), list.name.len() as u8]);
        out.extend_from_slice(&(list.metadata.len() as u32).to_le_bytes());
        out.extend_from_slice(list.name.as_bytes());
        out.extend_from_slice(list.metadata.as_bytes());
    }
    out
}
