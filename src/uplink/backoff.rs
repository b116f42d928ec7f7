//! Waiting longer after each failure, never two gateways in step. Pure: the
//! caller brings the time and the seed.

use std::time::Duration;

/// Doubles from `first` to `most`; each wait is drawn from the upper half, so
/// that a thousand gateways do not come back in the same second.
#[derive(Debug, Clone, Hash)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    failures: u32,
    seed: u64,
}

impl Backoff {
    /// A fresh one.
    #[must_use]
    pub fn new(first: Duration, most: Duration, seed: u64) -> Self {
        Self { first, most, failures: 0, seed }
    }

    /// The wait after one more failure.
    pub fn wait(&mut self) -> Duration {
        let full = self.first.saturating_mul(1_u32 << self.failures.min(16)).min(self.most);
        self.failures = self.failures.saturating_add(1);
        let half = full / 2;
        let span = u64::try_from(half.as_micros()).unwrap_or(u64::MAX).max(1);
        half + Duration::from_micros(self.random() % span)
    }

    /// It went well again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Failures since it last went well.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// `SplitMix64` (Steele, Lea, Flood 2014): enough for jitter, not for secrets.
    fn random(&mut self) -> u64 {
        self.seed = self.seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_with_jitter_up_to_the_cap_and_resets() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60), 7);
        for failures in 0..40_u32 {
            let full = Duration::from_secs((1_u64 << failures.min(6)).min(60));
            let wait = backoff.wait();
            assert!(wait >= full / 2 && wait < full, "failure {failures}: {wait:?}");
        }
        backoff.reset();
        assert!(backoff.wait() < Duration::from_secs(1));
    }

    #[test]
    fn two_gateways_do_not_wait_alike() {
        let waits = |seed| {
            let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60), seed);
            (0..8).map(|_| backoff.wait()).collect::<Vec<_>>()
        };
        assert_ne!(waits(1), waits(2));
    }
}
