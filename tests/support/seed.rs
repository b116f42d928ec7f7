//! One seed for everything random in a test run: printed, and given again by `BAYGATE_SEED=… cargo test …`. `docs/testing.md`.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::Write;
use std::sync::OnceLock;

use proptest::test_runner::{Config, RngSeed};

/// The seed of this run, printed once.
pub fn seed() -> u64 {
    static SEED: OnceLock<u64> = OnceLock::new();
    *SEED.get_or_init(|| {
        let seed = number("BAYGATE_SEED").unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().1);
        // Not by `eprintln!`: the harness would keep it to itself where all goes well.
        let _ = writeln!(std::io::stderr(), "BAYGATE_SEED={seed} repeats this run");
        seed
    })
}

/// How often to roll: `BAYGATE_ROUNDS`, or `usual`.
pub fn rounds(usual: u32) -> u32 {
    number("BAYGATE_ROUNDS").map_or(usual, |rounds| u32::try_from(rounds).expect("BAYGATE_ROUNDS fits"))
}

/// A decimal number from the environment; empty is as good as absent.
fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.trim().is_empty())?;
    Some(text.trim().parse().unwrap_or_else(|_| panic!("{name}={text} is not a decimal number")))
}

/// For `#![proptest_config(…)]`: the seed above. Proptest shrinks and prints what
/// failed; it leaves no files.
pub fn cases(usual: u32) -> Config {
    Config {
        cases: rounds(usual).max(usual),
        rng_seed: RngSeed::Fixed(seed()),
        failure_persistence: None,
        ..Config::default()
    }
}

/// Numbers from a seed (`SplitMix64`, Steele, Lea, Flood 2014).
#[derive(Debug, Clone)]
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// From 0 to below `sides`.
    pub fn below(&mut self, sides: u64) -> u64 {
        self.roll() % sides.max(1)
    }

    pub fn one_of<T: Clone>(&mut self, from: &[T]) -> T {
        let place = self.below(from.len() as u64) as usize;
        from.get(place).expect("something to choose from").clone()
    }
}
