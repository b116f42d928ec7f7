//! The till's side of CPU cards' purses: a purchase terminal that is opened when it is first
//! needed, headquarters' word for loads, and the counterfoil of every approval until the ledger
//! took the card's signature. What does not live here: the commands to the card
//! (`medium::purse_card`), and the SAM's own (`psam`).
//!
//! ```text
//!  approve ─► counterfoil ── the card answers: signed ──► taken by the ledger
//!                  └─ the answer is lost: open; the next reading asks the card for its proof
//! ```

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::tz::TimeZone;

use super::purse::{Approval, Purchase, Serial};
use super::{KeyError, KeyVersion, PurseKeys};
use crate::card::crypto::pboc::{LOAD_PURSE, Moment, PURCHASE_PURSE, Terms};
use crate::clock::UtcMillis;
use crate::event::ledger::Proof;
use crate::ident::{CardUid, StoreId};

/// Counterfoils kept at once; beyond it a new card's takes an arbitrary place.
const MAX_FOILS: usize = 256;

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

/// What is kept of an approval.
struct Foil {
    /// Of a purchase: to recognise the card's answer with.
    approval: Option<Approval>,
    open: OpenPurse,
    proof: Proof,
    signed: bool,
}

/// A purse transaction whose answer did not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenPurse {
    /// Purchase or load, as the card names it.
    pub kind: u8,
    /// The card's counter before it.
    pub sequence: u16,
    /// Fen on the card if it happened.
    pub balance_after: u32,
}

/// Purchases and loads at one gateway.
pub struct TillPurse {
    opener: Box<Opener>,
    terminal: Mutex<Option<Box<dyn PurseKeys>>>,
    headquarters: Option<Arc<dyn Headquarters>>,
    timezone: TimeZone,
    foils: Mutex<HashMap<CardUid, Foil>>,
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
        Self { opener, terminal: Mutex::default(), headquarters: None, timezone, foils: Mutex::default() }
    }

    /// With a way to headquarters; without one every load needs it in vain.
    #[must_use]
    pub fn with_headquarters(mut self, headquarters: Arc<dyn Headquarters>) -> Self {
        self.headquarters = Some(headquarters);
        self
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
        let time = time.to_zoned(self.timezone.clone());
        let bcd = |number: i16| u8::try_from(number / 10 % 10 << 4 | number % 10).unwrap_or_default();
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

    /// Approves a purchase and keeps its counterfoil.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn approve(&self, uid: &CardUid, purchase: &Purchase<'_>) -> Result<(u32, [u8; 4]), KeyError> {
        let (terminal, approval) =
            self.with_terminal(|terminal| Ok((terminal.terminal(), terminal.approve(purchase)?)))?;
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
        self.keep(uid, Foil { approval: Some(approval), open, proof, signed: false });
        Ok(said)
    }

    /// Asks headquarters for a load and keeps its counterfoil.
    ///
    /// # Errors
    /// [`KeyError::NeedsHeadquarters`].
    pub fn load(&self, uid: &CardUid, load: &Load, algorithm: u8) -> Result<[u8; 4], KeyError> {
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
        self.keep(uid, Foil { approval: None, open, proof, signed: false });
        Ok(mac2)
    }

    /// The card gave its signature, and of a purchase MAC2; whether the terminal believes it.
    ///
    /// # Errors
    /// [`KeyError`] of the terminal; the signature is kept all the same.
    pub fn signed(&self, uid: &CardUid, tac: [u8; 4], mac2: Option<[u8; 4]>) -> Result<bool, KeyError> {
        let mut foils = lock(&self.foils);
        let Some(foil) = foils.get_mut(uid) else { return Ok(false) };
        foil.proof.tac = hex::encode_upper(tac);
        foil.signed = true;
        let approval = foil.approval.take();
        // Whoever takes a proof does not wait for the SAM.
        drop(foils);
        match (approval, mac2) {
            (Some(approval), Some(mac2)) => self.with_terminal(|terminal| terminal.confirm(&approval, &mac2)),
            (approval, _) => Ok(approval.is_none()),
        }
    }

    /// The transaction of this card whose answer did not come.
    #[must_use]
    pub fn open(&self, uid: &CardUid) -> Option<OpenPurse> {
        lock(&self.foils).get(uid).filter(|foil| !foil.signed).map(|foil| foil.open)
    }

    /// It did not happen.
    pub fn forget(&self, uid: &CardUid) {
        lock(&self.foils).remove(uid);
    }

    /// What the card signed of its last transaction here; once.
    #[must_use]
    pub fn take_proof(&self, uid: &CardUid) -> Option<Proof> {
        let mut foils = lock(&self.foils);
        foils.get(uid).filter(|foil| foil.signed)?;
        foils.remove(uid).map(|foil| foil.proof)
    }

    fn keep(&self, uid: &CardUid, foil: Foil) {
        let mut foils = lock(&self.foils);
        if foils.len() >= MAX_FOILS
            && let Some(any) = foils.keys().next().cloned()
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
        let open = match &mut *terminal {
            Some(open) => open,
            none => none.insert((self.opener)()?),
        };
        let acted = act(&mut **open);
        if let Err(KeyError::Sam { .. }) = acted {
            *terminal = None;
        }
        acted
    }
}
