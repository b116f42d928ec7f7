//! Chance that can be repeated: numbers drawn from the run's one seed.
#![allow(dead_code, unused_imports, clippy::unwrap_used, clippy::expect_used)] // each test file uses its part

#[path = "seed.rs"]
mod seed;

use std::time::Duration;

pub use seed::{rounds, seed};

/// `SplitMix64` (Steele, Lea, Flood 2014).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// From the run's seed. `story` tells apart those that throw side by side.
    pub fn throw(story: &str) -> Self {
        Self(seed()).for_case(story)
    }

    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// From `low` to `high`, both possible.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.number() % (high - low + 1)
    }

    /// From 0 to below `limit`, of whatever type it is.
    pub fn below<N>(&mut self, limit: N) -> N
    where
        N: TryFrom<u64>,
        u64: TryFrom<N>,
    {
        let limit = u64::try_from(limit).ok().expect("a limit is not negative");
        N::try_from(self.number() % limit.max(1)).ok().expect("below the limit")
    }

    /// In so many of a thousand cases.
    pub fn chance(&mut self, of_a_thousand: u64) -> bool {
        self.number() % 1000 < of_a_thousand
    }

    /// In so many of a hundred cases.
    pub fn percent(&mut self, of_a_hundred: u64) -> bool {
        self.chance(10 * of_a_hundred)
    }

    pub fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from.get(self.below(from.len())).expect("something to choose from").clone()
    }

    pub fn byte(&mut self) -> u8 {
        self.number().to_le_bytes()[3]
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.byte()).collect()
    }

    /// As ids of chance are made (version 4), of these numbers.
    pub fn uuid(&mut self) -> uuid::Uuid {
        let bytes = u128::from(self.number()) << 64 | u128::from(self.number());
        uuid::Builder::from_random_bytes(bytes.to_be_bytes()).into_uuid()
    }

    /// Up to `most_ms`.
    pub fn pause(&mut self, most_ms: u64) -> Duration {
        Duration::from_millis(self.between(0, most_ms))
    }

    /// A generator of its own, so that one part's use of chance does not move another's.
    pub fn fork(&mut self) -> Self {
        Self(self.number())
    }

    /// One for each case, so that a case does not depend on the number of throws before it.
    pub fn for_case(&self, case: &str) -> Self {
        Self(case.bytes().fold(self.0, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)))
    }
}
