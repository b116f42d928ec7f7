//! Chance with a seed that is printed and can be given again.

use std::io::Write as _;
use std::time::Duration;

/// `SplitMix64` (Steele, Lea, Flood 2014).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// From `BAYGATE_SEED`, else a new seed. Printed past the test harness's capture, so that
    /// it is there also when the run passes or is cut off.
    pub fn throw(test: &str) -> Self {
        let seed = match std::env::var("BAYGATE_SEED") {
            Ok(seed) => seed.parse().expect("BAYGATE_SEED is a number"),
            Err(_) => uuid::Uuid::new_v4().as_u64_pair().0 % 1_000_000_000,
        };
        let _ = writeln!(std::io::stderr(), "{test}: repeat this run with BAYGATE_SEED={seed}");
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// 0 to `n` - 1.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    pub fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.below(from.len() as u64)).unwrap()]
    }

    /// Up to `most` milliseconds.
    pub fn pause(&mut self, most: u64) -> Duration {
        Duration::from_millis(self.below(most + 1))
    }

    /// Dice of their own for somebody who throws at his own pace.
    pub fn fork(&mut self) -> Self {
        Self(self.next())
    }
}

/// How many rounds: `BAYGATE_ROUNDS`, else `usual`.
pub fn rounds(usual: u64) -> u64 {
    std::env::var("BAYGATE_ROUNDS")
        .map_or(usual, |rounds| rounds.parse().expect("BAYGATE_ROUNDS is a number"))
}
