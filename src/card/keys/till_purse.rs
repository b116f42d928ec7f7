//! The till's side of CPU cards' purses: a purchase terminal that is opened when it is first
//! needed, headquarters' word for loads, and the counterfoil of every approval until the ledger
//! has committed what the card signed. What does not live here: the commands to the card
//! (`medium::purse_card`), and the SAM's own (`psam`).
//!
//! ```text
//!  approve ─► counterfoil, open ── the card answers ── the SAM: right ──► believed: it is paid
//!                  │                                ├─ the SAM: wrong ──► refuted: an imitation
//!                  │                                └─ no SAM ──────────► unproven
//!                  └─ the answer is lost: the next reading asks the card for its proof
//! ```
//! Only a purchase that is believed is paid ([`Word`]).

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;

pub use super::foil::{Leaves, OpenPurse, Word};

use super::foil::Foil;
use super::purse::{Purchase, Serial};
use super::{KeyError, KeyVersion, PurseKeys};
use crate::card::crypto::pboc::{LOAD_PURSE, Moment, PURCHASE_PURSE, Terms};
use crate::clock::UtcMillis;
use crate::event::ledger::Proof;
use crate::ident::{CardUid, StoreId};

/// Counterfoils kept at once; beyond it a new card's takes the place of one that was answered.
const MAX_FOILS: usize = 256;

/// A SAM knows only its last purchase: so long another card waits for the answer of the one before
/// it. A card answers DEBIT within half a second; one that was lifted never does.
const TURN: Duration = Duration::from_millis(1500);

/// Cards' wrong answers in a row that the SAM is shown: a PSAM commonly locks itself at the third
/// (status 9303, JR/T 0025), and says of none how many are left.
const MAX_WRONG: u8 = 2;

/// What was before the program was started is not known: one wrong answer is taken for granted, so
/// that being started again does not cost the last try.
const AT_START: u8 = 1;

/// Opens the terminal: a purchase SAM in its slot.
pub type Opener = dyn Fn() -> Result<Box<dyn PurseKeys>, KeyError> + Send + Sync;

/// A load that headquarters is asked for (JR/T 0025, INITIALIZE FOR LOAD).
#[derive(Debug, Clone)]
pub struct Load {
    /// The store whose keys the card has.
    pub store: StoreId,
    /// The card.
    pub serial: Serial,
    /// Fen on it.
    pub balance: u32,
    /// Its counter of loads, before this one.
    pub online_sequence: u16,
    /// Version of its load key.
    pub key_version: KeyVersion,
    /// Its challenge.
    pub random: [u8; 4],
    /// The card's word for balance, amount and terminal.
    pub mac1: [u8; 4],
    /// What is to be loaded, and when.
    pub terms: Terms,
}

/// Headquarters, which alone has the load keys.
pub trait Headquarters: fmt::Debug + Send + Sync {
    /// MAC2 of a load whose MAC1 is right.
    ///
    /// # Errors
    /// [`KeyError::NeedsHeadquarters`] while it is not reached, or does not agree.
    fn load_mac2(&self, load: &Load) -> Result<[u8; 4], KeyError>;
}

/// Purchases and loads at one gateway. There is one of it whatever the configuration becomes: two
/// would each know half of what one SAM was shown.
pub struct TillPurse {
    opener: Mutex<Arc<Opener>>,
    /// Another opener came: the terminal that is open is not the one meant.
    opens_anew: AtomicBool,
    terminal: Mutex<Option<Box<dyn PurseKeys>>>,
    headquarters: Option<Arc<dyn Headquarters>>,
    timezone: Mutex<TimeZone>,
    foils: Mutex<HashMap<CardUid, Foil>>,
    /// Whose purchase is open on the terminal, and since when.
    turn: Mutex<Option<(CardUid, Instant)>>,
    turned: Condvar,
    /// Wrong answers that the SAM was shown since the last right one. Changed behind the terminal's
    /// lock, so that no purchase begins between an answer and its count.
    wrong: AtomicU8,
}

impl fmt::Debug for TillPurse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TillPurse").field("headquarters", &self.headquarters).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl TillPurse {
    /// Opens the terminal with `opener`; cards are told the time of `timezone`.
    #[must_use]
    pub fn new(opener: Box<Opener>, timezone: TimeZone) -> Self {
        Self {
            opener: Mutex::new(Arc::from(opener)),
            opens_anew: AtomicBool::new(false),
            terminal: Mutex::default(),
            headquarters: None,
            timezone: Mutex::new(timezone),
            foils: Mutex::default(),
            turn: Mutex::default(),
            turned: Condvar::new(),
            wrong: AtomicU8::new(AT_START),
        }
    }

    /// With a way to headquarters; without one every load needs it in vain.
    #[must_use]
    pub fn with_headquarters(mut self, headquarters: Arc<dyn Headquarters>) -> Self {
        self.headquarters = Some(headquarters);
        self
    }

    /// The terminal is opened otherwise from the next purchase on. What the SAM was shown stays
    /// counted: it may be the same one under another name.
    pub fn opens_with(&self, opener: Box<Opener>) {
        *lock(&self.opener) = Arc::from(opener);
        self.opens_anew.store(true, Ordering::Release);
    }

    /// Cards are told the time of another zone.
    pub fn set_timezone(&self, timezone: TimeZone) {
        *lock(&self.timezone) = timezone;
    }

    /// Whether one more wrong answer could lock the SAM: no purchase is begun then.
    #[must_use]
    pub fn is_spared(&self) -> bool {
        self.wrong.load(Ordering::Relaxed) >= MAX_WRONG
    }

    /// Whether loads can be asked for.
    #[must_use]
    pub fn can_load(&self) -> bool {
        self.headquarters.is_some()
    }

    /// What the card is told the time is.
    #[must_use]
    pub fn moment(&self) -> Moment {
        let time = jiff::Timestamp::from_millisecond(UtcMillis::now().0).unwrap_or_default();
        let time = time.to_zoned(lock(&self.timezone).clone());
        let bcd = |number: i16| u8::try_from(((number / 10 % 10) << 4) | (number % 10)).unwrap_or_default();
        let (year, second) = (time.year(), time.second());
        let date = [bcd(year / 100), bcd(year % 100), bcd(time.month().into()), bcd(time.day().into())];
        Moment { date, time: [bcd(time.hour().into()), bcd(time.minute().into()), bcd(second.into())] }
    }

    /// The terminal number, for the opening of a purchase or load.
    ///
    /// # Errors
    /// [`KeyError::Sam`].
    pub fn terminal(&self) -> Result<[u8; 6], KeyError> {
        self.with_terminal(|terminal| Ok(terminal.terminal()))
    }

    /// Approves the purchase that leaves this record, and keeps its counterfoil. None is begun whose
    /// answer, if it is wrong, could lock the SAM: a person has to look first.
    ///
    /// # Errors
    /// [`KeyError::SamSpared`]; [`KeyError`].
    pub fn approve(
        &self,
        uid: &CardUid,
        leaves: Leaves,
        purchase: &Purchase<'_>,
    ) -> Result<(u32, [u8; 4]), KeyError> {
        self.take_turn(uid);
        let approved = self.with_terminal(|terminal| {
            // Whoever was asked before has been counted by now.
            if self.is_spared() {
                return Err(KeyError::SamSpared);
            }
            Ok((terminal.terminal(), terminal.approve(purchase)?))
        });
        let (terminal, approval) = approved.inspect_err(|_| self.end_turn(uid))?;
        let opening = &purchase.opening;
        let said = (approval.terminal_sequence, approval.mac1);
        let proof = Proof {
            tac: String::new(),
            terminal_id: hex::encode_upper(terminal),
            terminal_sequence: approval.terminal_sequence.into(),
            key_version: opening.key_version.0,
            algorithm: opening.algorithm,
        };
        let open = OpenPurse {
            kind: PURCHASE_PURSE,
            sequence: opening.offline_sequence,
            balance_after: opening.balance.saturating_sub(purchase.amount),
        };
        self.keep(uid, Foil { approval: Some(approval), open, leaves, proof, word: Word::Open });
        Ok(said)
    }

    /// Asks headquarters for the load that leaves this record, and keeps its counterfoil.
    ///
    /// # Errors
    /// [`KeyError::NeedsHeadquarters`].
    pub fn load(
        &self,
        uid: &CardUid,
        leaves: Leaves,
        load: &Load,
        algorithm: u8,
    ) -> Result<[u8; 4], KeyError> {
        let headquarters = self.headquarters.as_ref().ok_or(KeyError::NeedsHeadquarters)?;
        let mac2 = headquarters.load_mac2(load)?;
        let proof = Proof {
            tac: String::new(),
            terminal_id: hex::encode_upper(load.terms.terminal),
            // A load is counted by the card alone.
            terminal_sequence: load.online_sequence.into(),
            key_version: load.key_version.0,
            algorithm,
        };
        let balance_after = load.balance.saturating_add(load.terms.amount);
        let open = OpenPurse { kind: LOAD_PURSE, sequence: load.online_sequence, balance_after };
        self.keep(uid, Foil { approval: None, open, leaves, proof, word: Word::Open });
        Ok(mac2)
    }

    /// The card gave its signature, and of a purchase MAC2: what is known of it now. Asks the SAM,
    /// and waits for it.
    pub fn signed(&self, uid: &CardUid, tac: [u8; 4], mac2: Option<[u8; 4]>) -> Word {
        let mut foils = lock(&self.foils);
        let Some(foil) = foils.get_mut(uid) else { return Word::Unproven };
        foil.proof.tac = hex::encode_upper(tac);
        let (approval, is_load) = (foil.approval.take(), foil.open.kind == LOAD_PURSE);
        // Nobody has vouched for it yet; and whoever asks for a word does not wait for the SAM.
        foil.word = Word::Unproven;
        let leaves = foil.leaves;
        drop(foils);
        let word = match (approval, mac2) {
            _ if is_load => Word::Believed,
            (Some(approval), Some(mac2)) => {
                match self.with_terminal(|terminal| self.counted(terminal.confirm(&approval, &mac2))) {
                    Ok(true) => Word::Believed,
                    Ok(false) => Word::Refuted,
                    Err(error) => {
                        tracing::warn!(%error, "a purchase could not be checked");
                        Word::Unproven
                    }
                }
            }
            _ => Word::Unproven,
        };
        self.end_turn(uid);
        if word == Word::Refuted {
            tracing::error!("a card's answer to a purchase was wrong: it is an imitation");
        }
        self.became(uid, leaves, word);
        word
    }

    /// Counts what the SAM was shown. Where its answer was lost it may have found the card's wrong.
    fn counted(&self, confirmed: Result<bool, KeyError>) -> Result<bool, KeyError> {
        match confirmed {
            Ok(true) => self.wrong.store(0, Ordering::Relaxed),
            Ok(false) | Err(KeyError::Sam { status: None, .. }) => {
                self.wrong.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => {}
        }
        confirmed
    }

    /// The card keeps no proof of the transaction whose answer did not come.
    pub fn unproven(&self, uid: &CardUid, leaves: Leaves) {
        self.became(uid, leaves, Word::Unproven);
    }

    fn became(&self, uid: &CardUid, leaves: Leaves, word: Word) {
        if let Some(foil) = lock(&self.foils).get_mut(uid).filter(|foil| foil.leaves == leaves) {
            foil.word = word;
        }
    }

    /// The transaction of this card whose answer did not come, and the record that it leaves.
    #[must_use]
    pub fn open(&self, uid: &CardUid) -> Option<(OpenPurse, Leaves)> {
        let foils = lock(&self.foils);
        foils.get(uid).filter(|foil| foil.word == Word::Open).map(|foil| (foil.open, foil.leaves))
    }

    /// What is known of the transaction that leaves this record, with the card's signature where
    /// it gave one. Kept until [`TillPurse::forget`].
    #[must_use]
    pub fn word(&self, uid: &CardUid, leaves: Leaves) -> Option<(Word, Option<Proof>)> {
        let foils = lock(&self.foils);
        let foil = foils.get(uid).filter(|foil| foil.leaves == leaves)?;
        Some((foil.word, Some(foil.proof.clone()).filter(|proof| !proof.tac.is_empty())))
    }

    /// It did not happen, or the ledger has it.
    pub fn forget(&self, uid: &CardUid, leaves: Leaves) {
        let mut foils = lock(&self.foils);
        if foils.get(uid).is_some_and(|foil| foil.leaves == leaves) {
            foils.remove(uid);
        }
    }

    /// Waits until the card before it has answered, or will not.
    fn take_turn(&self, uid: &CardUid) {
        let mut turn = lock(&self.turn);
        while let Some((other, since)) = &*turn {
            let left = TURN.saturating_sub(since.elapsed());
            if other == uid || left.is_zero() {
                break;
            }
            turn = self.turned.wait_timeout(turn, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        *turn = Some((uid.clone(), Instant::now()));
    }

    fn end_turn(&self, uid: &CardUid) {
        let mut turn = lock(&self.turn);
        if turn.take_if(|(own, _)| own == uid).is_some() {
            self.turned.notify_one();
        }
    }

    fn keep(&self, uid: &CardUid, foil: Foil) {
        let mut foils = lock(&self.foils);
        if foils.len() >= MAX_FOILS
            && let Some(any) =
                foils.iter().max_by_key(|(_, foil)| foil.word != Word::Open).map(|(uid, _)| uid.clone())
        {
            foils.remove(&any);
        }
        foils.insert(uid.clone(), foil);
    }

    /// Opens the terminal where it is not; one that fails is opened anew the next time.
    fn with_terminal<T>(
        &self,
        act: impl FnOnce(&mut dyn PurseKeys) -> Result<T, KeyError>,
    ) -> Result<T, KeyError> {
        let mut terminal = lock(&self.terminal);
        if self.opens_anew.swap(false, Ordering::Acquire) {
            *terminal = None;
        }
        let open = match &mut *terminal {
            Some(open) => open,
            none => {
                let opener = Arc::clone(&lock(&self.opener));
                none.insert(opener()?)
            }
        };
        let acted = act(&mut **open);
        if let Err(KeyError::Sam { .. }) = acted {
            *terminal = None;
        }
        acted
    }
}

#[cfg(test)]
#[path = "till_purse_tests.rs"]
mod tests;
