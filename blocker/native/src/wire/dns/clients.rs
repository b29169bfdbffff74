//! Who is answered, and how much of it.
//!
//! A resolver that answers everybody is used to flood others, whose addresses are forged. So only the configured networks are
//! answered, and to each of their parts (an IPv4 /24, an IPv6 /56) only so many datagrams a second; over that every second
//! one is answered as truncated, so that whoever really is there can come again over a connection, which cannot be
//! forged. The buckets are a fixed number, found by a digest under a key that is drawn at the start: they say of nobody
//! that he asked, and parts that share one share its rate.

use std::hash::Hasher as _;
use std::net::IpAddr;
use std::time::Duration;

use siphasher::sip::SipHasher13;

/// How many buckets there are; 12 bytes each.
const BUCKETS: usize = 1 << 16;
/// Milliseconds at the full rate that a part may have saved up.
const BURST_MILLISECONDS: u32 = 2000;
/// What an answer takes out of a bucket: a rate a second is as many of these a millisecond.
const ANSWER: u32 = 1000;
/// The highest rate: what a bucket holds must be a number of 32 bits.
pub const MAX_RATE: u32 = 1_000_000;

/// A network.
#[derive(Clone, Copy, Debug)]
pub struct Network {
    address: u128,
    length: u8,
}

impl Network {
    /// `length`: leading bits that count, of 32 or 128. None: more than there are.
    pub fn new(address: IpAddr, length: u8) -> Option<Self> {
        let (address, length) = match address {
            IpAddr::V4(address) if length <= 32 => (u128::from(address.to_ipv6_mapped()), length + 96),
            IpAddr::V6(address) if length <= 128 => (u128::from(address), length),
            _ => return None,
        };
        Some(Self { address, length })
    }

    fn holds(&self, address: u128) -> bool {
        (self.address ^ address).checked_shr(128 - u32::from(self.length)).unwrap_or(0) == 0
    }
}

/// What a datagram of a client gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// An answer.
    Answer,
    /// That it is truncated, and nothing else.
    Slip,
    /// Nothing: too many.
    Drop,
    /// The client is none of ours.
    Stranger,
}

#[derive(Clone, Copy)]
struct Bucket {
    left: u32,
    /// Milliseconds when it was last looked at.
    at: u32,
    slipped: bool,
}

/// Networks and buckets.
pub struct Clients {
    networks: Vec<Network>,
    /// Answers a second; 0: as many as there are questions.
    rate: u32,
    key: [u8; 16],
    buckets: Vec<Bucket>,
    refused: Refused,
}

/// How many datagrams got no answer, since the start. Whose they were is known nowhere, and what they asked was not read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// Of clients that are none of ours.
    pub strangers: u64,
    /// Over the rate, and told to come over a connection.
    pub slipped: u64,
    /// Over the rate.
    pub dropped: u64,
}

impl Clients {
    /// `key`: random.
    pub fn new(key: [u8; 16]) -> Self {
        Self { networks: Vec::new(), rate: 0, key, buckets: Vec::new(), refused: Refused::default() }
    }

    /// Answers these networks, each of their parts at this rate; 0: at any.
    pub fn configure(&mut self, networks: Vec<Network>, rate: u32) {
        self.networks = networks;
        self.rate = rate.min(MAX_RATE);
        let full = Bucket { left: self.rate * BURST_MILLISECONDS, at: 0, slipped: false };
        self.buckets = vec![full; if rate == 0 { 0 } else { BUCKETS }];
    }

    /// Whether an address is in one of the networks.
    pub fn known(&self, address: IpAddr) -> bool {
        let address = bits(address);
        self.networks.iter().any(|network| network.holds(address))
    }

    /// The part that an address is in, as a number that says nothing of it.
    pub fn part(&self, address: IpAddr) -> u64 {
        let full = bits(address);
        let mut hasher = SipHasher13::new_with_key(&self.key);
        hasher.write_u128(if full >> 32 == 0xffff { full >> 8 } else { full >> 72 });
        hasher.finish()
    }

    /// What a datagram of an address gets, now.
    pub fn admit(&mut self, address: IpAddr, now: Duration) -> Admission {
        if !self.known(address) {
            self.refused.strangers += 1;
            return Admission::Stranger;
        }
        if self.buckets.is_empty() {
            return Admission::Answer;
        }
        let part = self.part(address);
        let bucket = &mut self.buckets[part as usize % BUCKETS];
        let now = now.as_millis() as u32;
        let passed = now.wrapping_sub(bucket.at).min(BURST_MILLISECONDS);
        bucket.left = (bucket.left + passed * self.rate).min(self.rate * BURST_MILLISECONDS);
        bucket.at = now;
        if bucket.left >= ANSWER {
            bucket.left -= ANSWER;
            return Admission::Answer;
        }
        bucket.slipped = !bucket.slipped;
        if bucket.slipped {
            self.refused.slipped += 1;
            Admission::Slip
        } else {
            self.refused.dropped += 1;
            Admission::Drop
        }
    }

    /// How many were not answered.
    pub fn refused(&self) -> Refused {
        self.refused
    }
}

/// An address as 128 bits; one of IPv4 as it is written in IPv6, however it came.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().into(),
        IpAddr::V6(address) => address.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clients(rate: u32) -> Clients {
        let network = |text: &str, length| Network::new(text.parse().unwrap(), length).unwrap();
        let mut clients = Clients::new([1; 16]);
        clients.configure(vec![network("192.0.2.0", 25), network("2001:db8::", 32)], rate);
        clients
    }

    #[test]
    fn networks_end_where_they_end() {
        let clients = clients(0);
        for (address, known) in [
            ("192.0.2.127", true),
            ("192.0.2.128", false),
            ("::ffff:192.0.2.1", true),
            ("2001:db8:ffff::1", true),
            ("2001:db9::1", false),
            ("127.0.0.1", false),
        ] {
            assert_eq!(clients.known(address.parse().unwrap()), known, "{address}");
        }
        assert!(Network::new("192.0.2.0".parse().unwrap(), 33).is_none());
        let all = Network::new("::".parse().unwrap(), 0).unwrap();
        assert!(all.holds(0) && all.holds(u128::MAX));
    }

    #[test]
    fn a_part_gets_its_rate_and_others_notice_nothing() {
        let mut clients = clients(10);
        let (one, beside, other) = ("192.0.2.1", "192.0.2.9", "2001:db8::1");
        let mut ask = |address: &str, seconds| clients.admit(address.parse().unwrap(), Duration::from_secs(seconds));
        for _ in 0..20 {
            assert_eq!(ask(one, 100), Admission::Answer);
        }
        assert_eq!(
            [ask(beside, 100), ask(one, 100), ask(one, 100)],
            [Admission::Slip, Admission::Drop, Admission::Slip]
        );
        assert_eq!(ask(other, 100), Admission::Answer);
        let answered = (0..30).filter(|_| ask(one, 101) == Admission::Answer).count();
        assert_eq!(answered, 10);
        assert_eq!(ask("198.51.100.1", 101), Admission::Stranger);
        let over = 30 - 10 + 3;
        let Refused { strangers, slipped, dropped } = clients.refused();
        assert_eq!((strangers, slipped + dropped), (1, over));
        assert!(slipped.abs_diff(dropped) <= 1);
    }
}
