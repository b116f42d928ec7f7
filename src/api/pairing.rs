//! Pairing of tills: one open pairing at a time, a six-digit code, five
//! attempts, 120 s (contract §7). A state machine without I/O: the caller
//! brings the time and draws the code.
//!
//! ```text
//!  baygate pair ──POST /v1/pairings──► open ──redeem(code)──► taken ──token committed──► redeemed
//!                                       │  └─ five wrong codes ─► exhausted    └─ commit failed ─► open
//!                                       └─ 120 s ─► expired
//! ```

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use serde::Serialize;
use subtle::ConstantTimeEq;
use tokio::time::Instant;
use utoipa::ToSchema;
use uuid::Uuid;

use super::access::Scope;

/// How long a code is good.
pub const LIFE: Duration = Duration::from_secs(120);
/// Wrong codes a pairing bears.
pub const ATTEMPTS: u32 = 5;
/// Wrong codes one address may send, over all pairings …
pub const SOURCE_ATTEMPTS: u32 = 10;
/// … within this time.
pub const SOURCE_WINDOW: Duration = Duration::from_secs(600);
/// Addresses remembered; when more than that guess, all of them wait.
const SOURCES: usize = 1024;

/// Six digits. `Debug` prints none of them.
#[derive(Clone)]
pub struct Code([u8; 6]);

impl Code {
    /// From any number; the caller draws it evenly from 0 to 999 999.
    #[must_use]
    pub fn from_number(number: u32) -> Self {
        let mut digits = [b'0'; 6];
        let mut rest = number;
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
            rest /= 10;
        }
        Self(digits)
    }

    /// As shown to the person. The one place where it leaves.
    #[must_use]
    pub fn reveal(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }

    fn matches(&self, typed: &str) -> bool {
        // A wrong length tells nothing about the code.
        self.0.as_slice().ct_eq(typed.as_bytes()).into()
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Code(…)")
    }
}

/// What a pairing grants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The pairing.
    pub id: Uuid,
    /// The till.
    pub till: String,
    /// What its token may do.
    pub scopes: Vec<Scope>,
}

/// Where a pairing stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum PairingState {
    /// Waits for its code.
    Open,
    /// The till has its token.
    Redeemed,
    /// Nobody came in time.
    Expired,
    /// Too many wrong codes.
    Exhausted,
    /// Taken back.
    Cancelled,
}

#[derive(Debug)]
struct Pairing {
    grant: Grant,
    code: Code,
    until: Instant,
    wrong: u32,
    state: PairingState,
}

/// Why a pairing cannot begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Occupied {
    /// The open one.
    pub id: Uuid,
    /// How long it may still take.
    pub left: Duration,
}

/// Why a code is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// No pairing is open.
    NoneOpen,
    /// Wrong; so many attempts are left.
    Wrong {
        /// Attempts left.
        left: u32,
    },
    /// Too many wrong codes from this address.
    TooMany {
        /// When it may try again.
        wait: Duration,
    },
}

/// All that is known of pairings.
#[derive(Debug, Default)]
pub struct Pairings {
    latest: Option<Pairing>,
    guesses: HashMap<IpAddr, (u32, Instant)>,
}

impl Pairings {
    /// Begins one.
    ///
    /// # Errors
    /// [`Occupied`] while another is open.
    pub fn open(&mut self, grant: Grant, code: Code, now: Instant) -> Result<(), Occupied> {
        self.settle(now);
        if let Some(open) = self.latest.as_ref().filter(|pairing| pairing.state == PairingState::Open) {
            return Err(Occupied { id: open.grant.id, left: open.until.duration_since(now) });
        }
        self.latest = Some(Pairing { grant, code, until: now + LIFE, wrong: 0, state: PairingState::Open });
        Ok(())
    }

    /// Takes a code. On success the pairing is used up; [`Pairings::reopen`]
    /// gives it back when the token could not be committed.
    ///
    /// # Errors
    /// [`Refusal`]; wrong codes are counted.
    pub fn redeem(&mut self, typed: &str, source: Option<IpAddr>, now: Instant) -> Result<Grant, Refusal> {
        self.settle(now);
        self.check_source(source, now)?;
        let open = self.latest.as_mut().filter(|pairing| pairing.state == PairingState::Open);
        let Some(pairing) = open else { return Err(Refusal::NoneOpen) };
        if pairing.code.matches(typed) {
            pairing.state = PairingState::Redeemed;
            return Ok(pairing.grant.clone());
        }
        pairing.wrong += 1;
        let left = ATTEMPTS.saturating_sub(pairing.wrong);
        if left == 0 {
            pairing.state = PairingState::Exhausted;
        }
        self.count_guess(source, now);
        Err(Refusal::Wrong { left })
    }

    /// The token of a redeemed pairing was not committed: the code is good again.
    pub fn reopen(&mut self, id: Uuid) {
        if let Some(pairing) = self.latest.as_mut().filter(|pairing| pairing.grant.id == id) {
            pairing.state = PairingState::Open;
        }
    }

    /// Takes an open pairing back; whether there was one.
    pub fn cancel(&mut self, id: Uuid, now: Instant) -> bool {
        self.settle(now);
        let open = self
            .latest
            .as_mut()
            .filter(|pairing| pairing.grant.id == id && pairing.state == PairingState::Open);
        open.map(|pairing| pairing.state = PairingState::Cancelled).is_some()
    }

    /// Where the latest pairing stands, how long it may still take and how many attempts are left.
    pub fn look(&mut self, id: Uuid, now: Instant) -> Option<(PairingState, Duration, u32)> {
        self.settle(now);
        let pairing = self.latest.as_ref().filter(|pairing| pairing.grant.id == id)?;
        let left = match pairing.state {
            PairingState::Open => pairing.until.duration_since(now),
            _ => Duration::ZERO,
        };
        Some((pairing.state, left, ATTEMPTS.saturating_sub(pairing.wrong)))
    }

    fn settle(&mut self, now: Instant) {
        if let Some(pairing) = &mut self.latest
            && pairing.state == PairingState::Open
            && now >= pairing.until
        {
            pairing.state = PairingState::Expired;
        }
    }

    fn check_source(&mut self, source: Option<IpAddr>, now: Instant) -> Result<(), Refusal> {
        let Some(source) = source else { return Ok(()) };
        self.guesses.retain(|_, (_, since)| now < *since + SOURCE_WINDOW);
        let guessed = self.guesses.get(&source).copied();
        match guessed {
            Some((count, since)) if count >= SOURCE_ATTEMPTS => {
                Err(Refusal::TooMany { wait: (since + SOURCE_WINDOW).duration_since(now) })
            }
            None if self.guesses.len() >= SOURCES => Err(Refusal::TooMany { wait: SOURCE_WINDOW }),
            _ => Ok(()),
        }
    }

    fn count_guess(&mut self, source: Option<IpAddr>, now: Instant) {
        if let Some(source) = source {
            self.guesses.entry(source).or_insert((0, now)).0 += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant() -> Grant {
        Grant { id: Uuid::now_v7(), till: "till-1".into(), scopes: vec![Scope::Read] }
    }

    const WRONG: &str = "000000";
    const RIGHT: &str = "004217";

    fn opened(now: Instant) -> (Pairings, Grant) {
        let (mut pairings, grant) = (Pairings::default(), grant());
        pairings.open(grant.clone(), Code::from_number(4217), now).unwrap();
        (pairings, grant)
    }

    #[test]
    fn the_right_code_is_good_once() {
        let now = Instant::now();
        let (mut pairings, grant) = opened(now);
        assert_eq!(pairings.redeem(RIGHT, None, now), Ok(grant.clone()));
        assert_eq!(pairings.redeem(RIGHT, None, now), Err(Refusal::NoneOpen));
        pairings.reopen(grant.id);
        assert_eq!(pairings.redeem(RIGHT, None, now), Ok(grant));
    }

    #[test]
    fn five_wrong_codes_end_it() {
        let now = Instant::now();
        let (mut pairings, grant) = opened(now);
        for left in (0..5).rev() {
            assert_eq!(pairings.redeem(WRONG, None, now), Err(Refusal::Wrong { left }));
        }
        assert_eq!(pairings.redeem(RIGHT, None, now), Err(Refusal::NoneOpen));
        assert_eq!(pairings.look(grant.id, now).unwrap().0, PairingState::Exhausted);
    }

    #[test]
    fn two_minutes_end_it() {
        let now = Instant::now();
        let (mut pairings, grant) = opened(now);
        let almost = now + LIFE - Duration::from_millis(1);
        assert_eq!(pairings.look(grant.id, almost).unwrap().0, PairingState::Open);
        assert_eq!(pairings.redeem(RIGHT, None, now + LIFE), Err(Refusal::NoneOpen));
        assert_eq!(pairings.look(grant.id, now + LIFE).unwrap().0, PairingState::Expired);
    }

    #[test]
    fn one_at_a_time() {
        let now = Instant::now();
        let (mut pairings, first) = opened(now);
        let refused = pairings.open(grant(), Code::from_number(1), now).unwrap_err();
        assert_eq!(refused, Occupied { id: first.id, left: LIFE });
        assert!(pairings.cancel(first.id, now));
        assert!(!pairings.cancel(first.id, now));
        assert!(pairings.open(grant(), Code::from_number(1), now).is_ok());
    }

    #[test]
    fn an_address_that_guesses_waits_and_others_do_not() {
        let now = Instant::now();
        let (bad, good) = ("10.0.0.66".parse().ok(), "10.0.0.7".parse().ok());
        let mut pairings = Pairings::default();
        for _ in 0..2 {
            pairings.open(grant(), Code::from_number(4217), now).unwrap();
            for _ in 0..5 {
                assert!(matches!(pairings.redeem(WRONG, bad, now), Err(Refusal::Wrong { .. })));
            }
        }
        pairings.open(grant(), Code::from_number(4217), now).unwrap();
        assert_eq!(pairings.redeem(RIGHT, bad, now), Err(Refusal::TooMany { wait: SOURCE_WINDOW }));
        assert!(pairings.redeem(RIGHT, good, now).is_ok());
        let later = now + SOURCE_WINDOW;
        pairings.open(grant(), Code::from_number(4217), later).unwrap();
        assert!(pairings.redeem(RIGHT, bad, later).is_ok());
    }

    #[test]
    fn a_code_is_six_digits_and_not_for_logs() {
        assert_eq!(Code::from_number(4217).reveal(), RIGHT);
        assert_eq!(Code::from_number(999_999).reveal(), "999999");
        assert_eq!(format!("{:?}", Code::from_number(4217)), "Code(…)");
        for typed in ["", "4217", "0042170", "００４２１７"] {
            assert!(!Code::from_number(4217).matches(typed), "{typed}");
        }
    }
}
