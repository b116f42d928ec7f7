//! Waits between retries: doubling, with jitter, bounded.

use std::time::Duration;

/// A growing wait. Each is drawn between half and all of the current span, so
/// that readers of many stores that lost the same thing do not return in step.
#[derive(Debug, Clone)]
pub(super) struct Backoff {
    first: Duration,
    last: Duration,
    next: Duration,
}

impl Backoff {
    pub(super) fn new(first: Duration, last: Duration) -> Self {
        Self { first, last, next: first }
    }

    /// The wait before the next try.
    pub(super) fn wait(&mut self) -> Duration {
        let span = self.next;
        self.next = (span * 2).min(self.last);
        let mut byte = [0u8; 1];
        // Without randomness the wait is merely not jittered.
        let _ = getrandom::fill(&mut byte);
        span / 2 + span / 2 * u32::from(byte[0]) / 255
    }

    /// It worked: the next failure waits briefly again.
    pub(super) fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_are_bounded() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        for span_ms in [100, 200, 400, 800, 1000, 1000] {
            let wait = backoff.wait().as_millis();
            assert!((span_ms / 2..=span_ms).contains(&wait), "{wait} of {span_ms}");
        }
        backoff.reset();
        assert!(backoff.wait() <= Duration::from_millis(100));
    }
}
