//! A zone as bytes, to be kept on disk.
//!
//! Each name, in order:
//!
//! 1. length of its key (1 byte, at least 1)
//! 2. its key: labels from the top one down, with a NUL between them
//! 3. what is said of it (low 4 bits) and of all below it (high 4 bits), as [`Effect`] numbers them; not both nothing

use super::{Effect, Zone};

/// The longest label (RFC 1035 section 2.3.4).
const MAX_LABEL: usize = 63;
/// The longest key: a name on the wire without its first length and its last zero.
const MAX_KEY: usize = super::MAX_NAME - 2;

impl Zone {
    /// It as bytes; what was left out is not in them.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.keys.len() + 2 * self.entries.len());
        for named in self.iter() {
            bytes.push(named.key.len() as u8);
            bytes.extend_from_slice(named.key);
            bytes.push(named.own as u8 | (named.below as u8) << 4);
        }
        bytes
    }

    /// The zone of such bytes; an error says at which byte they are none.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, usize> {
        let (mut zone, mut rest, mut last) = (Self::default(), bytes, [].as_slice());
        while let Some((&length, after)) = rest.split_first() {
            let fault = bytes.len() - rest.len();
            let (key, after) = after.split_at_checked(usize::from(length)).ok_or(fault)?;
            let (&said, after) = after.split_first().ok_or(fault)?;
            let (own, below) = (effect(said & 15).ok_or(fault)?, effect(said >> 4).ok_or(fault)?);
            let labels = key.split(|&byte| byte == 0).all(|label| (1..=MAX_LABEL).contains(&label.len()));
            if !labels || key.len() > MAX_KEY || key <= last || said == 0 {
                return Err(fault);
            }
            zone.push(key, own, below);
            (rest, last) = (after, key);
        }
        Ok(zone)
    }
}

fn effect(number: u8) -> Option<Effect> {
    [Effect::None, Effect::Block, Effect::Inspect, Effect::Pass].get(usize::from(number)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_comes_back_and_nothing_else_is_taken_for_a_zone() {
        let mut zone = Zone::default();
        zone.push(b"test\0a", Effect::Block, Effect::None);
        zone.push(b"test\0b", Effect::Pass, Effect::Inspect);
        let bytes = zone.to_bytes();
        assert_eq!(bytes, b"\x06test\0a\x01\x06test\0b\x23");
        assert_eq!(Zone::from_bytes(&bytes).map(|back| back.digest()), Ok(zone.digest()));
        assert_eq!(Zone::from_bytes(b"").map(|empty| empty.len()), Ok(0));
        for cut in [1..8, 9..16].into_iter().flatten() {
            assert!(Zone::from_bytes(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        for (odd, at) in [
            (b"\x06test\0b\x01\x06test\0a\x01".as_slice(), 8), // out of order
            (b"\x06test\0a\x01\x06test\0a\x01", 8),            // twice
            (b"\x04test\0", 0),                                // nothing is said
            (b"\x04test\x04", 0),                              // no such effect
            (b"\x00\x01", 0),                                  // the root
            (b"\x05test\0\x01", 0),                            // an empty label
        ] {
            assert_eq!(Zone::from_bytes(odd).map(|zone| zone.len()), Err(at));
        }
        let long = [&[65][..], &[b'a'; 65], &[1]].concat();
        assert!(Zone::from_bytes(&long).is_err(), "a label that is too long");
    }
}
