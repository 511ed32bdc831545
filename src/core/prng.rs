//! The core's only source of chance: SplitMix64, seeded by the shell.
//! (Steele, Lea, Flood: "Fast splittable pseudorandom number generators",
//! OOPSLA 2014.) Fit for jitter and tie-breaks, never for secrets.

/// A deterministic stream of numbers.
#[derive(Clone, Debug)]
pub struct Prng(u64);

impl Prng {
    /// A stream that is the same for the same `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Prng {
        Prng(seed)
    }

    /// The next 64 bits.
    #[expect(clippy::should_implement_trait, reason = "it never ends, so it is no iterator worth having")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number in `0..n`; 0 where `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    /// True in `per_mille` of 1,000 calls.
    pub fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }
}

/// SplitMix64's finaliser: a bijection that spreads every input bit.
#[must_use]
pub fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
