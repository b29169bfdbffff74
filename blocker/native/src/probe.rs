//! Where a node is in the table: the one look into memory that a decision is made of, and asking for it beforehand.

use crate::node::NodeId;
use crate::table::{HEADER, Table};

impl Table {
    /// Where a node is, if it is there. Cost: two or three cache lines.
    #[inline]
    pub fn find(&self, id: NodeId) -> Option<usize> {
        let (bucket, low) = self.place(id);
        let index = self.index();
        let (from, to) = (index[bucket] as usize, index[bucket + 1] as usize);
        let keys = self.keys().get(from..to)?;
        keys.iter().position(|&key| key == low).map(|at| from + at)
    }

    /// Has memory bring the index entry that `find` reads first.
    pub fn fetch_index(&self, id: NodeId) {
        fetch(self.index(), self.place(id).0);
    }

    /// Has memory bring the keys that `find` reads next; waits for the index entry.
    pub fn fetch_keys(&self, id: NodeId) {
        let from = self.index()[self.place(id).0] as usize;
        fetch(self.keys(), from);
        fetch(self.keys(), from + 7); // most buckets end in the next line
    }

    #[inline]
    fn place(&self, id: NodeId) -> (usize, u64) {
        let (high, low) = ((id >> 64) as u64, id as u64);
        ((high >> (64 - self.bits)) as usize, low)
    }

    #[inline]
    fn index(&self) -> &[u32] {
        self.part::<u32>(HEADER, (1 << self.bits) + 1)
    }

    #[inline]
    fn keys(&self) -> &[u64] {
        self.part::<u64>(self.parts.keys, self.nodes)
    }
}

/// Has memory bring the cache line of an item, if it is there, without waiting for it.
#[inline]
fn fetch<T>(items: &[T], at: usize) {
    #[cfg(target_arch = "x86_64")]
    if let Some(item) = items.get(at) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: the address is that of a reference, and a prefetch reads nothing that the program could see.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(item).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (items, at);
}
