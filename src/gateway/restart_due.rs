//! When the daemon replaces itself because too many reader threads hang: behind the card that is
//! being written, and without it when it takes too long. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// A conversation with a card takes 8 s at most (`card::counter`), and several counters take turns:
/// what is in hand longer than this hangs as well, and a restart is what it needs.
const WITH_A_CARD_IN_HAND: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
pub(super) struct RestartDue {
    wanted_since: Option<Instant>,
}

impl RestartDue {
    /// Whether to restart now. `in_hand`: cards are being written.
    pub fn now(&mut self, wanted: bool, in_hand: bool, now: Instant) -> bool {
        if !wanted {
            self.wanted_since = None;
            return false;
        }
        let since = *self.wanted_since.get_or_insert(now);
        !in_hand || now.saturating_duration_since(since) >= WITH_A_CARD_IN_HAND
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_waits_for_a_card_and_not_for_ever() {
        let (begun, mut due) = (Instant::now(), RestartDue::default());
        let mut at =
            |seconds, wanted, in_hand| due.now(wanted, in_hand, begun + Duration::from_secs(seconds));
        assert!(!at(0, false, false));
        assert!(at(1, true, false));
        assert!(!at(2, true, true) && !at(30, true, true));
        assert!(at(31, true, true));
        // A thread came back: the patience begins anew.
        assert!(!at(32, false, true) && !at(33, true, true) && !at(62, true, true) && at(63, true, true));
    }
}
