//! Delivered positions between two commits: each commit is a sync of the disk, so
//! they are committed in groups. Pure: the caller brings the time and commits
//! (`drain`). What is noted and not committed is lost by a crash and sent again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::event::Class;
use crate::store::outbox::ClassCursor;

/// What is delivered and not yet committed.
#[derive(Debug, Clone, Default, Hash)]
pub struct Notes {
    noted: BTreeMap<Class, ClassCursor>,
    since: Option<Instant>,
}

impl Notes {
    /// Everything of `class` up to `to` is delivered. Never moves back.
    pub fn note(&mut self, class: Class, to: ClassCursor, now: Instant) {
        let noted = self.noted.entry(class).or_insert(to);
        *noted = (*noted).max(to);
        self.since.get_or_insert(now);
    }

    /// When they are to be committed, if there are any.
    #[must_use]
    pub fn due(&self, every: Duration) -> Option<Instant> {
        self.since.map(|since| since + every)
    }

    /// What is to be committed.
    pub fn positions(&self) -> impl Iterator<Item = (Class, ClassCursor)> + '_ {
        self.noted.iter().map(|(class, to)| (*class, *to))
    }

    /// Puts them over what the log says: a commit that failed made them no less true.
    pub fn overlay(&self, delivered: &mut [(Class, ClassCursor)]) {
        for (class, at) in delivered {
            *at = self.noted.get(class).map_or(*at, |noted| *noted.max(at));
        }
    }

    /// They are on their way to the disk; they stay noted until they are there.
    pub fn sent(&mut self) {
        self.since = None;
    }

    /// They did not get there: due once more.
    pub fn again(&mut self, now: Instant) {
        if !self.noted.is_empty() {
            self.since.get_or_insert(now);
        }
    }

    /// All of them are in the log.
    pub fn committed(&mut self) {
        *self = Self::default();
    }

    /// Another commit has moved the position of `class` to `to`.
    pub fn passed(&mut self, class: Class, to: ClassCursor) {
        self.noted.retain(|of, noted| *of != class || *noted > to);
        if self.noted.is_empty() {
            self.since = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ident::Seq;

    #[test]
    fn nothing_noted_is_never_due() {
        let (now, every) = (Instant::now(), Duration::from_millis(50));
        let at = |n| ClassCursor { epoch_no: 1, class_sequence: Seq(n) };
        let mut notes = Notes::default();
        notes.note(Class::Card, at(2), now);
        notes.note(Class::Card, at(1), now + every);
        assert_eq!(notes.positions().collect::<Vec<_>>(), [(Class::Card, at(2))]);
        assert_eq!(notes.due(every), Some(now + every));
        notes.passed(Class::Card, at(1));
        assert_eq!(notes.positions().count(), 1, "2 is not in the log");
        notes.passed(Class::Card, at(3));
        assert_eq!(notes.due(every), None, "a deadline without work would spin the loop");
    }
}
