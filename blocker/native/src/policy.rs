//! A policy: which lists of a table hold for whom.

/// Which lists of a table hold for a customer, as masks, and in which order they are named.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Its name.
    pub name: String,
    /// Enforced lists that block.
    pub block: u64,
    /// Enforced lists of exceptions.
    pub allow: u64,
    /// Lists that block, decided and counted only.
    pub shadow: u64,
    /// Mask bits, first named first.
    pub order: Vec<u8>,
    /// Whether what is no URL is blocked.
    pub block_invalid: bool,
}

impl Policy {
    /// The list of a mask that is named.
    pub fn first(&self, mask: u64) -> Option<usize> {
        self.order.iter().map(|&bit| usize::from(bit)).find(|bit| mask >> bit & 1 == 1)
    }

    /// All its lists.
    pub fn all(&self) -> u64 {
        self.block | self.allow | self.shadow
    }
}
