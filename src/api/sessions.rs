//! Who is logged in at which till. Sessions live in memory: after a restart people log in
//! again. A session ends with the till's token, with the operator's right, when nobody used it
//! for a while, and after a long shift in any case.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::ident::OperatorId;

/// Sessions at a time; the one that was idle longest makes room.
const MOST: usize = 256;

/// How long sessions last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionLife {
    /// Without a request.
    pub idle: Duration,
    /// In any case.
    pub longest: Duration,
}

/// One person at one till.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The person.
    pub operator: OperatorId,
    /// SHA-256 of the till's token: without it the session is nothing.
    pub token: [u8; 32],
    begun: Instant,
    used: Instant,
}

impl Session {
    fn lives(&self, life: SessionLife, now: Instant) -> bool {
        now.duration_since(self.used) < life.idle && now.duration_since(self.begun) < life.longest
    }
}

/// All sessions, by the SHA-256 of their tokens.
#[derive(Debug, Default)]
pub struct Sessions(Mutex<HashMap<[u8; 32], Session>>);

impl Sessions {
    fn with<T>(&self, change: impl FnOnce(&mut HashMap<[u8; 32], Session>) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Begins one; ends what the same person had at the same till.
    pub fn begin(&self, sha256: [u8; 32], operator: OperatorId, token: [u8; 32], now: Instant) {
        self.with(|sessions| {
            sessions.retain(|_, session| session.operator != operator || session.token != token);
            if sessions.len() >= MOST {
                let idlest = sessions.iter().min_by_key(|(_, session)| session.used).map(|(hash, _)| *hash);
                idlest.map(|idlest| sessions.remove(&idlest));
            }
            sessions.insert(sha256, Session { operator, token, begun: now, used: now });
        });
    }

    /// The session, which is used now; one whose time is over is gone.
    pub fn touch(&self, sha256: &[u8; 32], life: SessionLife, now: Instant) -> Option<Session> {
        self.with(|sessions| {
            let session = sessions.get_mut(sha256)?;
            if session.lives(life, now) {
                session.used = now;
                return Some(session.clone());
            }
            sessions.remove(sha256);
            None
        })
    }

    /// Whether it still lives; asking is not using.
    pub fn lives(&self, sha256: &[u8; 32], life: SessionLife, now: Instant) -> bool {
        self.with(|sessions| sessions.get(sha256).is_some_and(|session| session.lives(life, now)))
    }

    /// Ends one.
    pub fn end(&self, sha256: &[u8; 32]) {
        self.with(|sessions| sessions.remove(sha256));
    }

    /// Ends all of a person.
    pub fn end_of(&self, operator: &str) {
        self.with(|sessions| sessions.retain(|_, session| session.operator.as_str() != operator));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: SessionLife =
        SessionLife { idle: Duration::from_secs(900), longest: Duration::from_secs(43_200) };

    fn li() -> OperatorId {
        "li".parse().unwrap()
    }

    #[test]
    fn idle_ones_and_old_ones_end() {
        let (sessions, begun) = (Sessions::default(), Instant::now());
        sessions.begin([1; 32], li(), [9; 32], begun);
        let mut now = begun;
        for _ in 0..48 {
            now += Duration::from_secs(899);
            assert!(sessions.touch(&[1; 32], LIFE, now).is_some());
        }
        assert!(sessions.lives(&[1; 32], LIFE, now + Duration::from_secs(47)));
        assert!(sessions.touch(&[1; 32], LIFE, now + Duration::from_secs(48)).is_none(), "twelve hours");
        sessions.begin([2; 32], li(), [9; 32], begun);
        assert!(sessions.touch(&[2; 32], LIFE, begun + LIFE.idle).is_none());
        assert!(!sessions.lives(&[2; 32], LIFE, begun));
    }

    #[test]
    fn one_a_person_and_till_and_all_end_together() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        sessions.begin([1; 32], li(), [8; 32], now);
        sessions.begin([2; 32], li(), [9; 32], now);
        sessions.begin([3; 32], li(), [9; 32], now);
        let live = |hash: u8| sessions.lives(&[hash; 32], LIFE, now);
        assert_eq!([live(1), live(2), live(3)], [true, false, true]);
        sessions.end_of("li");
        assert_eq!([live(1), live(2), live(3)], [false; 3]);
    }

    #[test]
    fn they_are_bounded() {
        let (sessions, begun) = (Sessions::default(), Instant::now());
        for n in 0..=MOST {
            let hash = super::super::principal::hash(&n.to_string());
            let at = begun + Duration::from_millis(n as u64);
            sessions.begin(hash, format!("op-{n}").parse().unwrap(), [9; 32], at);
        }
        assert_eq!(sessions.with(|all| all.len()), MOST);
        assert!(!sessions.lives(&super::super::principal::hash("0"), LIFE, begun), "the idlest went");
    }
}
