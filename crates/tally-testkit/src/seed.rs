//! Random numbers from a seed: the same seed, the same numbers, on every machine.

/// SplitMix64. Good enough to choose with, small enough to read.
#[derive(Clone, Debug)]
pub struct Seed(u64);

impl Seed {
    /// The numbers of `seed`.
    pub fn new(seed: u64) -> Seed {
        Seed(seed)
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`, which is not 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next_u64() % limit
    }

    /// A place in something that has `len` of them, at least one.
    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(u64::try_from(len).expect("64 bits"))).expect("64 bits")
    }

    /// True so many times in a hundred.
    pub fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    /// A generator of its own, so that what it is used for does not disturb what this one is used for.
    pub fn fork(&mut self) -> Seed {
        Seed(self.next_u64())
    }
}
