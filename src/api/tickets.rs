//! Tickets for streams in browsers, which cannot send a bearer token with an
//! `EventSource`: one use, 30 s, only their hashes kept, in memory.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::principal::Principal;

/// How long a ticket is good.
pub const LIFE: Duration = Duration::from_secs(30);
/// Tickets not yet used, at most.
const MOST: usize = 256;

/// The tickets not yet used.
#[derive(Debug, Default)]
pub struct Tickets {
    waiting: Mutex<HashMap<[u8; 32], (Principal, Instant)>>,
}

impl Tickets {
    /// Keeps a ticket by its hash; `false` when too many wait.
    pub fn keep(&self, sha256: [u8; 32], holder: Principal, now: Instant) -> bool {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|_, (_, until)| now < *until);
        if waiting.len() >= MOST {
            return false;
        }
        waiting.insert(sha256, (holder, now + LIFE));
        true
    }

    /// Uses a ticket up: its holder, when it is still good.
    pub fn take(&self, sha256: &[u8; 32], now: Instant) -> Option<Principal> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.remove(sha256).filter(|(_, until)| now < *until).map(|(holder, _)| holder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_use_and_thirty_seconds() {
        let (tickets, now) = (Tickets::default(), Instant::now());
        assert!(tickets.keep([1; 32], Principal::Control, now));
        assert!(tickets.keep([2; 32], Principal::Control, now));
        assert!(tickets.take(&[1; 32], now).is_some());
        assert!(tickets.take(&[1; 32], now).is_none());
        assert!(tickets.take(&[2; 32], now + LIFE).is_none());
    }

    #[test]
    fn a_flood_is_bounded_and_passes() {
        let (tickets, now) = (Tickets::default(), Instant::now());
        let stamp = |n: usize| hash(n);
        for n in 0..MOST {
            assert!(tickets.keep(stamp(n), Principal::Control, now));
        }
        assert!(!tickets.keep(stamp(MOST), Principal::Control, now));
        assert!(tickets.keep(stamp(MOST), Principal::Control, now + LIFE));
    }

    fn hash(n: usize) -> [u8; 32] {
        super::super::principal::hash(&n.to_string())
    }
}
