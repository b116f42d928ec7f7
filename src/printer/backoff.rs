//! Pauses between attempts: doubling, with jitter so that two printers on one
//! power strip do not come back in step.

use std::time::Duration;

/// How long to pause before the next attempt.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// From `first`, doubling up to `longest`.
    #[must_use]
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, next: first }
    }

    /// The next pause: between three quarters and all of the step.
    pub fn pause(&mut self) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(self.longest);
        // Without randomness the jitter is away, not the pause.
        let part = getrandom::u32().unwrap_or(0) % 256;
        step - step * part / 1024
    }

    /// It went well: begin again.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_again() {
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(3));
        for expected in [500, 1000, 2000, 3000, 3000] {
            let pause = backoff.pause().as_millis();
            assert!((expected * 3 / 4..=expected).contains(&pause), "{pause} of {expected}");
        }
        backoff.reset();
        assert!(backoff.pause() <= Duration::from_millis(500));
    }
}
