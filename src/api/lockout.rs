//! How long somebody waits after wrong PINs. A state machine without I/O: how many there were
//! is kept in the database, so that a restart forgets none; when the last one was, only here,
//! by the monotonic clock, so that no wall clock that jumps shortens the wait. After a restart
//! the wait begins anew.
//!
//! An id that nobody has is treated like one that somebody has.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

/// Wrong PINs that cost nothing.
pub const FREE: u32 = 4;
/// The wait after one more; doubles with each further one …
pub const FIRST_WAIT: Duration = Duration::from_secs(60);
/// … up to this: 24 guesses a day.
pub const LONGEST_WAIT: Duration = Duration::from_secs(3600);
/// So many wrong ones in a row, and only an unlocking helps (NIST SP 800-63B §5.2.2: at most 100).
pub const MOST: u32 = 100;
/// Ids that nobody has, remembered at a time.
const STRANGERS: usize = 256;

/// Why somebody may not try now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Not before this has passed.
    For(Duration),
    /// Not before an administrator unlocks.
    Unlocking,
}

/// When ids were last typed with a wrong PIN.
#[derive(Debug)]
pub struct Lockout {
    begun: Instant,
    last: HashMap<String, Instant>,
    strangers: HashMap<String, Instant>,
}

impl Lockout {
    /// Begins with the process.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { begun: now, last: HashMap::new(), strangers: HashMap::new() }
    }

    /// Whether an id with so many wrong PINs may try.
    ///
    /// # Errors
    /// [`Wait`].
    pub fn check(&self, id: &str, wrong: u32, now: Instant) -> Result<(), Wait> {
        if wrong >= MOST {
            return Err(Wait::Unlocking);
        }
        let last = self.last.get(id).or_else(|| self.strangers.get(id)).copied().unwrap_or(self.begun);
        let left = wait_after(wrong).saturating_sub(now.duration_since(last));
        if left.is_zero() { Ok(()) } else { Err(Wait::For(left)) }
    }

    /// A wrong PIN. `known`: somebody has the id.
    pub fn note(&mut self, id: &str, known: bool, now: Instant) {
        if known {
            // As many as there are operators.
            self.last.insert(id.to_owned(), now);
            return;
        }
        if self.strangers.len() >= STRANGERS && !self.strangers.contains_key(id) {
            let oldest = self.strangers.iter().min_by_key(|(_, at)| **at).map(|(id, _)| id.clone());
            oldest.map(|oldest| self.strangers.remove(&oldest));
        }
        self.strangers.insert(id.to_owned(), now);
    }

    /// The right PIN, or an unlocking.
    pub fn forget(&mut self, id: &str) {
        self.last.remove(id);
        self.strangers.remove(id);
    }
}

/// How long after the last of so many wrong PINs.
fn wait_after(wrong: u32) -> Duration {
    match wrong.checked_sub(FREE + 1) {
        None => Duration::ZERO,
        Some(doublings) => FIRST_WAIT
            .saturating_mul(1_u32.checked_shl(doublings.min(16)).unwrap_or(u32::MAX))
            .min(LONGEST_WAIT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn waits_grow_and_end() {
        let begun = Instant::now();
        let mut lockout = Lockout::new(begun);
        // (wrong PINs, seconds to wait)
        let cases = [(0, 0), (4, 0), (5, 60), (6, 120), (7, 240), (10, 1920), (11, 3600), (60, 3600)];
        for (wrong, seconds) in cases {
            let wait = Duration::from_secs(seconds);
            let at = begun + Duration::from_secs(100_000);
            lockout.note("li", true, at);
            let early = lockout.check("li", wrong, at);
            assert_eq!(early, if seconds == 0 { Ok(()) } else { Err(Wait::For(wait)) }, "{wrong}");
            assert_eq!(lockout.check("li", wrong, at + wait), Ok(()), "{wrong}");
        }
        assert_eq!(lockout.check("li", MOST, begun + LONGEST_WAIT * 9000), Err(Wait::Unlocking));
    }

    #[test]
    fn a_restart_begins_the_wait_anew_and_the_right_pin_ends_it() {
        let begun = Instant::now();
        let mut lockout = Lockout::new(begun);
        assert_eq!(lockout.check("li", 5, begun + SECOND), Err(Wait::For(59 * SECOND)));
        assert_eq!(lockout.check("li", 5, begun + 60 * SECOND), Ok(()));
        lockout.note("li", true, begun + 60 * SECOND);
        lockout.forget("li");
        assert_eq!(lockout.check("li", 0, begun + 60 * SECOND), Ok(()));
    }

    #[test]
    fn a_flood_of_ids_that_nobody_has_frees_nobody() {
        let begun = Instant::now();
        let mut lockout = Lockout::new(begun);
        let now = begun + 2 * LONGEST_WAIT;
        lockout.note("li", true, now);
        for stranger in 0..2 * STRANGERS {
            lockout.note(&format!("nobody-{stranger}"), false, now);
        }
        assert_eq!(lockout.strangers.len(), STRANGERS);
        assert!(lockout.check("li", 5, now).is_err());
    }
}
