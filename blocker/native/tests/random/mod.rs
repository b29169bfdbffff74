//! What the campaigns share: numbers that come again with their seed, and the seed of a failure.

/// xorshift64*: reproducible, and no dependency for three lines.
pub struct Random(u64);

impl Random {
    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number under the limit.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 11) as usize % limit
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}

/// Runs `one` with a generator for each seed: a `divisor`-th of `CAMPAIGN_INPUTS`, from `CAMPAIGN_SEED` on.
pub fn campaign(divisor: usize, mut one: impl FnMut(&mut Random)) {
    let setting = |name, default| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (inputs, first): (usize, usize) = (setting("CAMPAIGN_INPUTS", 1_000_000), setting("CAMPAIGN_SEED", 1));
    for seed in first..first + inputs / divisor {
        let mut random = Random((seed as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| one(&mut random)));
        assert!(caught.is_ok(), "failed with CAMPAIGN_SEED={seed} CAMPAIGN_INPUTS={divisor}");
    }
}
