//! Lists as a response policy zone (RPZ): what DNS can say of their rules, name by name.
//!
//! A zone says of a name what [`crate::decide::Walker::decide_host`] says of it as a host: a *block zone* names the
//! hosts that are blocked whole, an *inspect zone* those of which only the full URL can tell. It is the smallest zone
//! that does so under both readings of wildcards that resolvers have:
//!
//! - as in DNS (RFC 4592; BIND, Unbound), where a name that exists hides the wildcards above it for all below it. So
//!   each name between a wildcard and an entry below it carries the wildcard's effect itself;
//! - as the longest one that fits (`PowerDNS`, Knot). So what is under a wildcard and not meant is said: it passes.
//!
//! A rule is left out, and counted, if DNS cannot say it: an address (its requests ask no resolver, and a trigger on
//! addresses would block every name there), a digest, a name that is too long together with the zone's, or one that
//! a resolver would take for something else.

mod delta;
mod names;
mod stored;

use sha2::{Digest as _, Sha256};

pub use delta::Delta;

use crate::ruleset::RuleSet;
use names::Facts;

/// Bytes of a domain name on the wire, at most (RFC 1035 section 2.3.4).
pub const MAX_NAME: usize = 255;
/// What a zone says of a name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Effect {
    /// Nothing.
    #[default]
    None,
    /// It is blocked whole.
    Block,
    /// It is to be inspected.
    Inspect,
    /// It is not touched, though a wildcard above it is.
    Pass,
}

/// Number of effects.
pub const EFFECTS: usize = 4;

/// One list of a zone.
pub struct Source<'a> {
    /// Its rules.
    pub rules: &'a RuleSet,
    /// Whether they are exceptions.
    pub allow: bool,
    /// Whether `www.h` and `h` are one host.
    pub www_alias: bool,
}

/// Rules that are not in the zone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Rules on IP addresses.
    pub addresses: u64,
    /// Rules known as digests only.
    pub digests: u64,
    /// Names that are too long, or would be taken for something else.
    pub names: u64,
}

/// A name and what is said of it and of all below it. Which bytes of the arena are its key: labels from the top one
/// down, with a NUL between them, so that order by bytes is that of DNS (RFC 4034 section 6.1) and parents come first.
#[derive(Clone, Copy, Debug)]
struct Entry {
    start: u32,
    length: u8,
    own: Effect,
    below: Effect,
}

/// The names of a zone in order.
#[derive(Clone, Debug, Default)]
pub struct Zone {
    keys: Vec<u8>,
    entries: Vec<Entry>,
    /// What the rules could not say.
    pub left_out: LeftOut,
}

/// A name of a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named<'a> {
    /// Its labels from the top one down, with a NUL between them.
    pub key: &'a [u8],
    /// What is said of it.
    pub own: Effect,
    /// What is said of every name below it.
    pub below: Effect,
}

impl Zone {
    /// The zone of some lists.
    ///
    /// `origin` is the length of the zone's own name on the wire; `inspect` makes an inspect zone, otherwise a block
    /// zone. Cost: about 1 µs a rule, nearly all of it one sort.
    pub fn build(sources: &[Source<'_>], origin: usize, inspect: bool) -> Self {
        let mut facts = Facts::new(MAX_NAME.saturating_sub(origin));
        for source in sources {
            facts.read(source);
        }
        facts.sort();
        facts.decide(if inspect { Effect::Inspect } else { Effect::Block })
    }

    /// Number of names, those of wildcards not counted for themselves.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The name at a position.
    pub fn get(&self, at: usize) -> Option<Named<'_>> {
        self.entries.get(at).map(|&entry| self.named(entry))
    }

    /// All names in order.
    pub fn iter(&self) -> impl Iterator<Item = Named<'_>> {
        self.entries.iter().map(|&entry| self.named(entry))
    }

    /// How many owner names have each effect.
    pub fn counts(&self) -> [usize; EFFECTS] {
        let mut counts = [0; EFFECTS];
        for entry in &self.entries {
            counts[entry.own as usize] += 1;
            counts[entry.below as usize] += 1;
        }
        counts
    }

    /// SHA-256 of what it says.
    pub fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for named in self.iter() {
            hash.update([named.key.len() as u8]);
            hash.update(named.key);
            hash.update([named.own as u8, named.below as u8]);
        }
        hash.finalize().into()
    }

    fn named(&self, entry: Entry) -> Named<'_> {
        let start = entry.start as usize;
        Named { key: &self.keys[start..start + usize::from(entry.length)], own: entry.own, below: entry.below }
    }

    /// Appends a name that sorts after all others, unless nothing is said of it.
    pub fn push(&mut self, key: &[u8], own: Effect, below: Effect) {
        if own != Effect::None || below != Effect::None {
            let start = u32::try_from(self.keys.len()).expect("a zone has less than 4 GiB of names");
            self.keys.extend_from_slice(key);
            self.entries.push(Entry { start, length: key.len() as u8, own, below });
        }
    }
}

#[cfg(test)]
mod tests;
