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
//! Only a purchase that is believed is paid ([`Word`]). The SAM's last one outlives the program (`notebook`).

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;

pub use super::foil::{Leaves, OpenPurse, Word};
pub use super::load::{Headquarters, Load};

use super::foil::Foil;
use super::notebook::{KeptFoil, Notebook};
use super::purse::{Approval, Purchase};
use super::{KeyError, PurseKeys};
use crate::card::crypto::pboc::{LOAD_PURSE, Moment, PURCHASE_PURSE};
use crate::clock::UtcMillis;
use crate::event::ledger::Proof;
use crate::ident::CardUid;

/// Counterfoils kept at once; beyond it a new card's takes the place of one that was answered.
const MAX_FOILS: usize = 256;

/// A SAM knows only its last purchase: so long another card waits for the answer of the one before
/// it. A card answers DEBIT within half a second; one that was lifted never does.
const TURN: Duration = Duration::from_millis(1500);

/// Cards' wrong answers in a row that the SAM is shown: a PSAM commonly locks itself at the third
/// (status 9303, JR/T 0025), and says of none how many are left.
const MAX_WRONG: u8 = 2;

/// Where nothing is known of what was before the program was started, one wrong answer is taken for
/// granted, so that being started again does not cost the last try; and never more than one, so that a
/// person who has looked starts it again.
const AT_START: u8 = 1;

/// Opens the terminal: a purchase SAM in its slot.
pub type Opener = dyn Fn() -> Result<Box<dyn PurseKeys>, KeyError> + Send + Sync;

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
    /// The SAM's own counter of the purchase that it knows.
    last: Mutex<Option<u32>>,
    notebook: Option<Notebook>,
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
            last: Mutex::default(),
            notebook: None,
        }
    }

    /// Goes on from what an earlier run knew of the SAM, and keeps it in this file.
    #[must_use]
    pub fn with_notebook(mut self, path: &Path) -> Self {
        let (notebook, left) = Notebook::open(path, AT_START);
        if let Some(kept) = left {
            self.wrong = AtomicU8::new(kept.may_be_wrong().min(AT_START));
            if let Some(last) = kept.last {
                let foil = last.foil();
                *lock(&self.last) = foil.approval.as_ref().map(|approval| approval.terminal_sequence);
                lock(&self.foils).insert(last.uid, foil);
            }
        }
        self.notebook = Some(notebook);
        self
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
        Moment::of(&time.to_zoned(lock(&self.timezone).clone()))
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
            // From here on it answers for no other.
            *lock(&self.last) = None;
            self.notebook.as_ref().inspect(|notebook| notebook.supersede());
            let approval = terminal.approve(purchase)?;
            *lock(&self.last) = Some(approval.terminal_sequence);
            Ok((terminal.terminal(), approval))
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
            (Some(approval), Some(mac2)) => match self.confirmed(&approval, mac2) {
                Ok(true) => Word::Believed,
                Ok(false) => Word::Refuted,
                Err(error) => {
                    tracing::warn!(%error, "a purchase could not be checked");
                    Word::Unproven
                }
            },
            _ => Word::Unproven,
        };
        self.end_turn(uid);
        if word == Word::Refuted {
            tracing::error!("a card's answer to a purchase was wrong: it is an imitation");
        }
        self.became(uid, leaves, word);
        word
    }

    /// The SAM's word on the card's answer. One that was lost is asked for again: a SAM that did not
    /// hear the question answers now; one that did has closed the purchase, refuses (6985), and loses
    /// no try by it.
    fn confirmed(&self, approval: &Approval, mac2: [u8; 4]) -> Result<bool, KeyError> {
        let ask = |terminal: &mut dyn PurseKeys| {
            if *lock(&self.last) == Some(approval.terminal_sequence) {
                terminal.resume(approval);
            }
            terminal.confirm(approval, &mac2)
        };
        let first = self.with_terminal(|terminal| self.counted(ask(terminal)));
        let Err(KeyError::Sam { status: None, .. }) = first else { return first };
        // The lost one is counted: of the two one at most was looked at.
        self.with_terminal(|terminal| match ask(terminal) {
            Ok(true) => self.counted(Ok(true)),
            again => again,
        })
    }

    /// Counts what the SAM was shown. Where its answer was lost it may have found the card's wrong.
    fn counted(&self, confirmed: Result<bool, KeyError>) -> Result<bool, KeyError> {
        match confirmed {
            Ok(true) => self.wrong.store(0, Ordering::Relaxed),
            Ok(false) | Err(KeyError::Sam { status: None, .. }) => {
                self.wrong.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => return confirmed,
        }
        self.notebook.as_ref().inspect(|notebook| notebook.count(self.wrong.load(Ordering::Relaxed)));
        confirmed
    }

    /// The card keeps no proof of the transaction whose answer did not come.
    pub fn unproven(&self, uid: &CardUid, leaves: Leaves) {
        self.became(uid, leaves, Word::Unproven);
    }

    fn became(&self, uid: &CardUid, leaves: Leaves, word: Word) {
        if let Some(foil) = lock(&self.foils).get_mut(uid).filter(|foil| foil.leaves == leaves) {
            foil.word = word;
            self.notebook.as_ref().inspect(|notebook| notebook.became(uid, leaves, &foil.proof.tac, word));
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
        self.notebook.as_ref().inspect(|notebook| notebook.strike(uid, leaves));
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
        if let (Some(notebook), Some(kept)) = (&self.notebook, KeptFoil::of(uid, &foil)) {
            notebook.note(kept);
        }
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
