//! Node ids: SipHash-2-4-128 of a SURT prefix under the deployment's lookup key.
//!
//! An id says nothing about its prefix to whoever lacks the key; the digests of guessable URLs without a key were once
//! reversed at over 99 %. The state is kept along a walk, so all prefixes of one URL cost one pass over it.

use std::hash::Hasher as _;

use siphasher::sip128::{Hasher128 as _, SipHasher24};

/// Length of a lookup key, in bytes.
pub const KEY_BYTES: usize = 16;

/// Digest of one SURT prefix: the first output word of `SipHash` in the high half, the second in the low half.
pub type NodeId = u128;

/// A deployment's lookup key, ready to hash with.
#[derive(Clone)]
pub struct LookupKey(SipHasher24);

impl LookupKey {
    /// Takes the key itself.
    pub fn new(key: &[u8; KEY_BYTES]) -> Self {
        Self(SipHasher24::new_with_key(key))
    }

    /// A walk that starts at the root.
    pub fn walk(&self) -> Walk {
        Walk(self.0)
    }

    /// Sixteen bytes that tell two keys apart without telling anything else about them.
    pub fn fingerprint(&self) -> NodeId {
        // No SURT prefix starts with a NUL byte, so this is no node's id.
        self.walk().step(b"\0blocker lookup key").id()
    }
}

/// The hash state after some prefix.
#[derive(Clone)]
pub struct Walk(SipHasher24);

impl Walk {
    /// Goes on by `bytes`.
    #[must_use]
    pub fn step(mut self, bytes: &[u8]) -> Self {
        self.0.write(bytes);
        self
    }

    /// Goes on by `bytes`, in place.
    pub fn advance(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }

    /// The id of the prefix so far.
    pub fn id(&self) -> NodeId {
        let hash = self.0.finish128();
        u128::from(hash.h1) << 64 | u128::from(hash.h2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_reference_vectors() {
        // Aumasson and Bernstein, vectors.h (vectors_sip128): key 00..0f, messages of 0 and 15 bytes 00, 01, …
        let key = LookupKey::new(&std::array::from_fn(|at| at as u8));
        let words = |bytes: [u8; 16]| {
            let (low, high) = bytes.split_at(8);
            let word = |half: &[u8]| u128::from(u64::from_le_bytes(half.try_into().unwrap()));
            word(low) << 64 | word(high)
        };
        let empty = [0xa3, 0x81, 0x7f, 0x04, 0xba, 0x25, 0xa8, 0xe6, 0x6d, 0xf6, 0x72, 0x14, 0xc7, 0x55, 0x02, 0x93];
        let fifteen = [0x54, 0x93, 0xe9, 0x99, 0x33, 0xb0, 0xa8, 0x11, 0x7e, 0x08, 0xec, 0x0f, 0x97, 0xcf, 0xc3, 0xd9];
        assert_eq!(key.walk().id(), words(empty));
        let message: Vec<u8> = (0..15).collect();
        assert_eq!(key.walk().step(&message).id(), words(fifteen));
        assert_eq!(key.walk().step(&message[..4]).step(&message[4..]).id(), words(fifteen));
    }
}
