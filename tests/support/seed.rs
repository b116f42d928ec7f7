//! One seed for everything random in a test run: printed, and given again by `BAYGATE_SEED=… cargo test …`. `docs/testing.md`.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::Write;
use std::str::FromStr;
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
pub fn rounds<N: FromStr>(usual: N) -> N {
    number("BAYGATE_ROUNDS").unwrap_or(usual)
}

/// A decimal number from the environment; empty is as good as absent.
fn number<N: FromStr>(name: &str) -> Option<N> {
    let text = std::env::var(name).ok().filter(|text| !text.trim().is_empty())?;
    Some(text.trim().parse().unwrap_or_else(|_| panic!("{name}={text} is not a decimal number that fits")))
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
