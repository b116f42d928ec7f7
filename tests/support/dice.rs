//! Chance that can be repeated: every random run prints its seed, and takes it
//! again from `BAYGATE_SEED`.
#![allow(dead_code)] // each test file uses its part

use std::io::Write as _;

/// The seed of this run, printed so that the run can be repeated. `run` names the run.
pub fn seed(run: &str) -> u64 {
    let given = std::env::var("BAYGATE_SEED").ok().and_then(|text| text.trim().parse().ok());
    let seed = given.unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0 >> 16);
    // Past the test harness, which keeps what passing tests print to itself.
    let _ = writeln!(std::io::stderr(), "{run}: BAYGATE_SEED={seed}");
    seed
}

/// How many rounds a run takes: `BAYGATE_ROUNDS`, or the usual number.
pub fn rounds(usual: usize) -> usize {
    std::env::var("BAYGATE_ROUNDS").ok().and_then(|text| text.trim().parse().ok()).unwrap_or(usual)
}

/// `SplitMix64` (Steele, Lea, Flood 2014).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
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

    pub fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.number() % u64::try_from(limit.max(1)).unwrap_or(1)).unwrap_or(0)
    }

    /// In so many of a thousand cases.
    pub fn chance(&mut self, of_a_thousand: u64) -> bool {
        self.number() % 1000 < of_a_thousand
    }

    pub fn byte(&mut self) -> u8 {
        self.number().to_le_bytes()[3]
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.byte()).collect()
    }

    /// A generator of its own, so that one part's use of chance does not move another's.
    pub fn fork(&mut self) -> Self {
        Self(self.number())
    }
}
