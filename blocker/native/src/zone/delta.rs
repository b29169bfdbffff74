//! What changed between versions of a zone.

use super::{Effect, Named, Zone};

/// What changed between two versions of a zone: the names it says something else of.
#[derive(Clone, Debug, Default)]
pub struct Delta {
    /// What is no longer said.
    pub removed: Zone,
    /// What is said now.
    pub added: Zone,
}

/// What is said of a name, and of all below it.
type Said = [Effect; 2];
/// A name, what was said and what is said of it; both nothing where it did not change.
type Change<'a> = (&'a [u8], Said, Said);

impl Delta {
    /// From one version to another. Cost: one pass over both.
    pub fn between(old: &Zone, new: &Zone) -> Self {
        let mut delta = Self::default();
        for (key, before, after) in side_by_side(old, new) {
            delta.push(key, before, after);
        }
        delta
    }

    /// Number of owner names that change; one that is said something else of counts twice.
    pub fn len(&self) -> usize {
        let said = |zone: &Zone| zone.counts()[1..].iter().sum::<usize>();
        said(&self.removed) + said(&self.added)
    }

    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.added.is_empty()
    }

    /// This change and the next one as one; what came and went is in it no more.
    pub fn then(&self, next: &Self) -> Self {
        let mut delta = Self::default();
        let mut first = side_by_side(&self.removed, &self.added).peekable();
        let mut second = side_by_side(&next.removed, &next.added).peekable();
        loop {
            let order = match (first.peek(), second.peek()) {
                (Some(a), Some(b)) => a.0.cmp(b.0),
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (None, None) => return delta,
            };
            let a = if order.is_le() { first.next() } else { None };
            let b = if order.is_ge() { second.next() } else { None };
            let Some(key) = a.or(b).map(|change| change.0) else { return delta };
            let unchanged = [Effect::None; 2];
            let (_, mut before, mut after) = a.unwrap_or((key, unchanged, unchanged));
            let (_, removed, added) = b.unwrap_or((key, unchanged, unchanged));
            for slot in 0..2 {
                if before[slot] == after[slot] {
                    before[slot] = removed[slot];
                }
                if removed[slot] != added[slot] {
                    after[slot] = added[slot];
                }
            }
            delta.push(key, before, after);
        }
    }

    fn push(&mut self, key: &[u8], mut before: Said, mut after: Said) {
        for slot in 0..2 {
            if before[slot] == after[slot] {
                (before[slot], after[slot]) = (Effect::None, Effect::None);
            }
        }
        self.removed.push(key, before[0], before[1]);
        self.added.push(key, after[0], after[1]);
    }
}

/// The names of two zones in order, with what each says; what says nothing is there with nothing.
fn side_by_side<'a>(old: &'a Zone, new: &'a Zone) -> impl Iterator<Item = Change<'a>> {
    let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
    std::iter::from_fn(move || {
        let order = match (old.peek(), new.peek()) {
            (Some(a), Some(b)) => a.key.cmp(b.key),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (None, None) => return None,
        };
        let a = if order.is_le() { old.next() } else { None };
        let b = if order.is_ge() { new.next() } else { None };
        let said = |named: Option<Named<'a>>| named.map_or([Effect::None; 2], |named| [named.own, named.below]);
        a.or(b).map(|named| (named.key, said(a), said(b)))
    })
}
