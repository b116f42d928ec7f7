//! What must outlive the program of the SAM in its slot: its last purchase, which it alone still
//! answers for, and the wrong answers it was shown. One small file, written in place. What does not
//! live here: what follows from it (`till_purse`).
//!
//! Whoever kills the program does not take the SAM's power: what was written is then there, synced or
//! not. A power cut takes both; synced is what headquarters needs of the purchase afterwards.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::foil::{Foil, Leaves, OpenPurse, Word};
use super::purse::Approval;
use crate::event::ledger::Proof;
use crate::ident::CardUid;

/// Always this long: a full disk has room for what lies there already.
const FILE_BYTES: usize = 1024;

/// What stands in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    /// Wrong answers that the SAM was shown since the last right one.
    pub(super) wrong: u8,
    /// Its last purchase.
    pub(super) last: Option<KeptFoil>,
}

impl Kept {
    /// An answer that was waited for may have been put to the SAM and not been counted.
    pub(super) fn may_be_wrong(&self) -> u8 {
        let waited = self.last.as_ref().is_some_and(|last| last.word == Word::Open);
        self.wrong.saturating_add(waited.into())
    }
}

/// The counterfoil of the SAM's last purchase.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeptFoil {
    pub(super) uid: CardUid,
    pub(super) leaves: Leaves,
    open: OpenPurse,
    proof: Proof,
    word: Word,
    /// The SAM's own counter of it, until it is asked for another one.
    approved: Option<u32>,
}

impl KeptFoil {
    /// Of a purchase; a load is not the SAM's.
    pub(super) fn of(uid: &CardUid, foil: &Foil) -> Option<Self> {
        let approved = Some(foil.approval.as_ref()?.terminal_sequence);
        let (uid, proof) = (uid.clone(), foil.proof.clone());
        Some(Self { uid, leaves: foil.leaves, open: foil.open, proof, word: foil.word, approved })
    }

    /// As it was: to recognise the answer the SAM needs its own word no more.
    pub(super) fn foil(&self) -> Foil {
        let approval = |terminal_sequence| Approval { terminal_sequence, mac1: [0; 4], session: None };
        Foil {
            approval: self.approved.map(approval),
            open: self.open,
            leaves: self.leaves,
            proof: self.proof.clone(),
            word: self.word,
        }
    }
}

/// The file, and what stands in it.
#[derive(Debug)]
pub(super) struct Notebook {
    path: PathBuf,
    kept: Mutex<Kept>,
}

impl Notebook {
    /// The file, and what an earlier run left in it. Where none can be read `wrong` stands for what
    /// nobody knows.
    pub(super) fn open(path: &Path, wrong: u8) -> (Self, Option<Kept>) {
        let left = match std::fs::read(path) {
            Ok(bytes) => serde_json::from_slice::<Kept>(&bytes)
                .inspect_err(|error| tracing::warn!(path = %path.display(), %error, "what was known of the SAM is lost"))
                .ok(),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(path = %path.display(), %error, "what was known of the SAM cannot be read");
                }
                None
            }
        };
        let kept = Mutex::new(left.clone().unwrap_or(Kept { wrong, last: None }));
        (Self { path: path.to_owned(), kept }, left)
    }

    /// Another purchase is about to be put to the SAM: it answers for the last one no more.
    pub(super) fn supersede(&self) {
        self.change(false, |kept| kept.last.as_mut().and_then(|last| last.approved.take()).is_some());
    }

    /// The SAM's last purchase; on the disk when this returns.
    pub(super) fn note(&self, foil: KeptFoil) {
        self.change(true, |kept| {
            kept.last = Some(foil);
            true
        });
    }

    /// What is known of it now.
    pub(super) fn became(&self, uid: &CardUid, leaves: Leaves, tac: &str, word: Word) {
        self.change(false, |kept| {
            let last = kept.last.as_mut().filter(|last| last.uid == *uid && last.leaves == leaves);
            last.is_some_and(|last| {
                last.word = word;
                tac.clone_into(&mut last.proof.tac);
                true
            })
        });
    }

    /// It did not happen, or the ledger has it.
    pub(super) fn strike(&self, uid: &CardUid, leaves: Leaves) {
        self.change(false, |kept| {
            kept.last.take_if(|last| last.uid == *uid && last.leaves == leaves).is_some()
        });
    }

    /// Wrong answers that the SAM was shown.
    pub(super) fn count(&self, wrong: u8) {
        self.change(wrong > 0, |kept| std::mem::replace(&mut kept.wrong, wrong) != wrong);
    }

    /// A disk that does not take it stops no sale: what was not kept, headquarters settles.
    fn change(&self, is_synced: bool, change: impl FnOnce(&mut Kept) -> bool) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if !change(&mut kept) {
            return;
        }
        if let Err(error) = self.write(&kept, is_synced) {
            tracing::warn!(path = %self.path.display(), %error, "what the SAM did last is not kept");
        }
    }

    fn write(&self, kept: &Kept, is_synced: bool) -> io::Result<()> {
        let mut text = serde_json::to_vec(kept)?;
        text.resize(text.len().max(FILE_BYTES), b' ');
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&self.path)?;
        file.write_all(&text)?;
        if is_synced { file.sync_data() } else { Ok(()) }
    }
}

#[cfg(test)]
#[path = "notebook_tests.rs"]
mod tests;
