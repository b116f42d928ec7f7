//! Writing a record: the card is read first and must show the record the caller
//! last saw; then the *other* slot is written, page by page, and read back. A cut at
//! any command leaves the old record or the new one. What does not live here: the
//! intent before it and the ledger after it.
//!
//! ```text
//!  UID ─ read all ─ same record? ─ log in (credit) ─ write other slot ─ read it back ─► written
//!                     └ no: changed                        └ from here: unknown, the next tap settles it
//! ```
//! Pages are read back from a card that still shows its UID: a reader may not notice a swap.

use std::collections::VecDeque;
use std::sync::Arc;

use super::contact::ContactWriting;
use super::desfire::{FileStep, FileWriting};
use super::page_login::{LoggedIn, PageLogin};
use super::place::{self, Piece};
use super::purse_card::PurseWriting;
use super::read::{Finding, Opened, ReadStep, Reading, no_key};
use crate::card::apdu::Command;
use crate::card::keys::{CardRef, KeyError, KeyRole, KeyStore};
use crate::card::probe::Answer;
use crate::card::record::{EncodeError, MemberRecord, SLOT_BYTES, Which, encode};
use crate::card::verdict::Refusal;
use crate::ident::CardUid;
use crate::protocols::cards::{CardLayout, FilePlaces, PagePlaces, Places, PursePlaces};

/// What to do next.
#[derive(Debug)]
pub enum WriteStep {
    /// Send this and feed the answer.
    Transmit(Command, Box<Writing>),
    /// Power the card anew, then feed [`Answer::Reset`].
    Reset(Box<Writing>),
    /// The end.
    Done(WriteOutcome),
}

/// What came of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteOutcome {
    /// The card has the new record: read back, byte by byte; where money moved in a purse, proven.
    Written,
    /// It says that it gave up the money, and its proof is wrong: it is an imitation.
    Forged,
    /// Nothing was written: the card is not the one, or does not show the record expected.
    Changed,
    /// Nothing was written: the card will not do.
    Refused(Refusal),
    /// Nothing was written: the reader failed, the card left, or the record does not fit a chip.
    NotWritten,
    /// The card may have the old record or the new one; the next tap tells.
    Unknown,
}

/// A write under way.
#[derive(Debug)]
pub struct Writing {
    uid: CardUid,
    layout: Arc<CardLayout>,
    keys: Arc<dyn KeyStore>,
    expected: MemberRecord,
    new: MemberRecord,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// The same card?
    Uid,
    /// The same record?
    Reading(Box<Reading>),
    /// A card with files, from its reading to the commit.
    Files(Box<FileWriting>),
    /// A contact memory card, from its reading to what was read back.
    Contact(Box<ContactWriting>),
    /// A card with a purse, likewise.
    Purse(Box<PurseWriting>),
    Deeds {
        doing: Deed,
        todo: VecDeque<Deed>,
        begun: bool,
    },
    /// Between two of the above.
    Moving,
}

#[derive(Debug, Clone)]
enum Deed {
    Load(Command),
    LogIn(Command),
    Open(PageLogin),
    Write(Piece, Vec<u8>),
    /// Pages were written without a session: one that is empty takes them as well.
    SameUid,
    /// Reads back; so many of the bytes count.
    Verify(Piece, Vec<u8>),
    /// A login failed before anything was written: is the card still there?
    StillThere,
}

impl Writing {
    /// Whether its next step may ask a SAM, and wait for it.
    pub(in crate::card) fn may_wait(&self) -> bool {
        matches!(self.stage, Stage::Purse(_))
    }

    /// Begins to put `new` in place of `expected` on the card `uid`.
    #[must_use]
    pub fn start(
        uid: CardUid,
        layout: Arc<CardLayout>,
        keys: Arc<dyn KeyStore>,
        expected: MemberRecord,
        new: MemberRecord,
    ) -> WriteStep {
        let writing = Self { uid, layout, keys, expected, new, stage: Stage::Uid };
        if let Places::Contact(_) = writing.layout.places {
            return writing.contact();
        }
        WriteStep::Transmit(Command::get_uid(), Box::new(writing))
    }

    /// Goes on with what came of the last step.
    #[must_use]
    pub fn answer(mut self, answer: &Answer) -> WriteStep {
        match std::mem::replace(&mut self.stage, Stage::Moving) {
            Stage::Uid => {
                let shown = match answer {
                    Answer::Response(response) => response.ok().and_then(|b| CardUid::from_bytes(b).ok()),
                    Answer::NotTransmitted | Answer::Reset => None,
                };
                match shown {
                    Some(uid) if uid == self.uid => {
                        if let Places::Files(files) = &self.layout.places {
                            let files = files.clone();
                            return self.files(files);
                        }
                        if let Places::Purse(purse) = &self.layout.places {
                            let purse = purse.clone();
                            return self.purse(purse);
                        }
                        let (layout, keys) = (Arc::clone(&self.layout), Arc::clone(&self.keys));
                        let step = Reading::start(uid, layout, keys, false);
                        self.reading(step)
                    }
                    Some(_) => WriteStep::Done(WriteOutcome::Changed),
                    None => WriteStep::Done(WriteOutcome::NotWritten),
                }
            }
            Stage::Reading(reading) => {
                let step = reading.answer(answer);
                self.reading(step)
            }
            Stage::Files(mut writing) => match writing.answer(answer) {
                FileStep::Transmit(command) => {
                    self.stage = Stage::Files(writing);
                    WriteStep::Transmit(command, Box::new(self))
                }
                FileStep::Done(outcome) => WriteStep::Done(outcome),
            },
            Stage::Contact(mut writing) => match writing.answer(answer) {
                FileStep::Transmit(command) => {
                    self.stage = Stage::Contact(writing);
                    WriteStep::Transmit(command, Box::new(self))
                }
                FileStep::Done(outcome) => WriteStep::Done(outcome),
            },
            Stage::Purse(mut writing) => match writing.answer(answer) {
                FileStep::Transmit(command) => {
                    self.stage = Stage::Purse(writing);
                    WriteStep::Transmit(command, Box::new(self))
                }
                FileStep::Done(outcome) => WriteStep::Done(outcome),
            },
            Stage::Deeds { doing, todo, begun } => self.done(&doing, todo, begun, answer),
            Stage::Moving => WriteStep::Done(WriteOutcome::Unknown),
        }
    }

    fn files(mut self, files: FilePlaces) -> WriteStep {
        let (uid, layout, keys) = (self.uid.clone(), Arc::clone(&self.layout), Arc::clone(&self.keys));
        let (expected, new) = (self.expected.clone(), self.new.clone());
        let (writing, select) = FileWriting::start(uid, layout, files, keys, expected, new);
        self.stage = Stage::Files(Box::new(writing));
        WriteStep::Transmit(select, Box::new(self))
    }

    /// Such a card has no UID that the reader knows of: its conversation begins with its serial.
    fn contact(mut self) -> WriteStep {
        let (uid, layout, keys) = (self.uid.clone(), Arc::clone(&self.layout), Arc::clone(&self.keys));
        let (expected, new) = (self.expected.clone(), self.new.clone());
        let (writing, select) = ContactWriting::start(uid, layout, keys, expected, new);
        self.stage = Stage::Contact(Box::new(writing));
        WriteStep::Transmit(select, Box::new(self))
    }

    fn purse(mut self, purse: PursePlaces) -> WriteStep {
        let (uid, layout, keys) = (self.uid.clone(), Arc::clone(&self.layout), Arc::clone(&self.keys));
        let (expected, new) = (self.expected.clone(), self.new.clone());
        let (writing, select) = PurseWriting::start(uid, layout, purse, keys, expected, new);
        self.stage = Stage::Purse(Box::new(writing));
        WriteStep::Transmit(select, Box::new(self))
    }

    fn reading(mut self, step: ReadStep) -> WriteStep {
        match step {
            ReadStep::Transmit(command, reading) => {
                self.stage = Stage::Reading(reading);
                WriteStep::Transmit(command, Box::new(self))
            }
            ReadStep::Reset(reading) => {
                self.stage = Stage::Reading(reading);
                WriteStep::Reset(Box::new(self))
            }
            ReadStep::Done(Finding::ReaderError) => WriteStep::Done(WriteOutcome::NotWritten),
            ReadStep::Done(Finding::Refused(refusal)) => WriteStep::Done(WriteOutcome::Refused(refusal)),
            ReadStep::Done(Finding::Opened(opened)) => self.begin(&opened),
        }
    }

    fn begin(self, opened: &Opened) -> WriteStep {
        if opened.current.record != self.expected || !follows(&self.expected, &self.new) {
            return WriteStep::Done(WriteOutcome::Changed);
        }
        match self.deeds(opened) {
            Ok(todo) => self.go_on(todo, false),
            Err(outcome) => WriteStep::Done(outcome),
        }
    }

    fn deeds(&self, opened: &Opened) -> Result<VecDeque<Deed>, WriteOutcome> {
        let bytes = encoded(&self.new, &self.uid, &*self.keys)?;
        let header = &opened.header;
        let card = CardRef { uid: &self.uid, store: &header.store, version: header.key_version };
        let target: Which = opened.current.slot.other();
        let writes = place::slot_writes(&self.layout.places, target, &bytes);
        let deeds = match self.layout.places {
            Places::Pages(ref pages) => self.page_deeds(pages, card, target, &writes, &bytes),
            Places::Blocks(_) => self.block_deeds(card, &writes),
            // Has its own way from the beginning.
            Places::Files(_) | Places::Contact(_) | Places::Purse(_) => Err(KeyError::NoSuchKey),
        };
        deeds.map_err(|error| WriteOutcome::Refused(no_key(&error)))
    }

    /// Reading has logged in already; the password is for both. Logging in once more
    /// costs nothing and holds where the caller's reading was another conversation.
    fn page_deeds(
        &self,
        pages: &PagePlaces,
        card: CardRef<'_>,
        target: Which,
        writes: &[(Piece, Vec<u8>)],
        bytes: &[u8],
    ) -> Result<VecDeque<Deed>, KeyError> {
        let mut deeds = VecDeque::from([Deed::Open(PageLogin::of(pages, card, &*self.keys)?)]);
        deeds.extend(writes.iter().map(|(piece, data)| Deed::Write(*piece, data.clone())));
        deeds.push_back(Deed::SameUid);
        let mut rest = bytes;
        for piece in place::slot(&self.layout.places, target) {
            let (now, later) = rest.split_at_checked(piece.len.into()).unwrap_or((rest, &[]));
            deeds.push_back(Deed::Verify(piece, now.to_vec()));
            rest = later;
        }
        Ok(deeds)
    }

    /// Each sector is written and read back under one login.
    fn block_deeds(
        &self,
        card: CardRef<'_>,
        writes: &[(Piece, Vec<u8>)],
    ) -> Result<VecDeque<Deed>, KeyError> {
        let mut deeds = VecDeque::new();
        for sector in writes.chunk_by(|(a, _), (b, _)| place::sector(a.at) == place::sector(b.at)) {
            let Some((first, _)) = sector.first() else { continue };
            let login = self.keys.classic_login(card, KeyRole::Credit, first.at)?;
            deeds.extend([Deed::Load(login.load), Deed::LogIn(login.authenticate)]);
            deeds.extend(sector.iter().map(|(piece, data)| Deed::Write(*piece, data.clone())));
            deeds.extend(sector.iter().map(|(piece, data)| Deed::Verify(*piece, data.clone())));
        }
        Ok(deeds)
    }

    fn go_on(mut self, mut todo: VecDeque<Deed>, begun: bool) -> WriteStep {
        let Some(doing) = todo.pop_front() else { return WriteStep::Done(WriteOutcome::Written) };
        let command = match &doing {
            Deed::Load(command) | Deed::LogIn(command) => command.clone(),
            Deed::Open(login) => login.command(),
            Deed::Write(piece, data) => piece.update(data),
            Deed::Verify(piece, _) => piece.read(),
            Deed::SameUid | Deed::StillThere => Command::get_uid(),
        };
        let begun = begun || matches!(doing, Deed::Write(..));
        self.stage = Stage::Deeds { doing, todo, begun };
        WriteStep::Transmit(command, Box::new(self))
    }

    fn done(self, doing: &Deed, mut todo: VecDeque<Deed>, begun: bool, answer: &Answer) -> WriteStep {
        let cut = if begun { WriteOutcome::Unknown } else { WriteOutcome::NotWritten };
        if let (Deed::StillThere, Answer::Reset) = (doing, answer) {
            return self.go_on(VecDeque::from([Deed::StillThere]), begun);
        }
        let Answer::Response(response) = answer else { return WriteStep::Done(cut) };
        let is_same = || {
            let shown = response.ok().and_then(|bytes| CardUid::from_bytes(bytes).ok());
            shown.as_ref() == Some(&self.uid)
        };
        let end = match doing {
            Deed::Load(_) if response.ok().is_none() => {
                Some(WriteOutcome::Refused(Refusal::ReaderCannotLogIn))
            }
            Deed::LogIn(_) if response.ok().is_none() && !begun => {
                let doing = Deed::StillThere;
                let stage = Stage::Deeds { doing, todo: VecDeque::new(), begun };
                return WriteStep::Reset(Box::new(Self { stage, ..self }));
            }
            Deed::LogIn(_) if response.ok().is_none() => Some(WriteOutcome::Unknown),
            Deed::StillThere if is_same() => Some(WriteOutcome::Refused(Refusal::WrongKey)),
            Deed::StillThere => Some(WriteOutcome::NotWritten),
            Deed::SameUid if !is_same() => Some(WriteOutcome::Unknown),
            // The reading was let in with it: the card has left.
            Deed::Open(login) => match login.answer(response) {
                LoggedIn::Yes => None,
                LoggedIn::More(login) => {
                    todo.push_front(Deed::Open(login));
                    None
                }
                LoggedIn::No(_) => Some(WriteOutcome::NotWritten),
            },
            Deed::Write(..) if response.ok().is_none() => Some(WriteOutcome::Unknown),
            Deed::Verify(_, data) if response.ok() != Some(data.as_slice()) => Some(WriteOutcome::Unknown),
            _ => None,
        };
        match end {
            // Once a byte was written, no failure means that nothing was.
            Some(_) if begun => WriteStep::Done(WriteOutcome::Unknown),
            Some(outcome) => WriteStep::Done(outcome),
            None => self.go_on(todo, begun),
        }
    }
}

/// The record's bytes, or what it means that there are none.
pub(super) fn encoded(
    new: &MemberRecord,
    uid: &CardUid,
    keys: &dyn KeyStore,
) -> Result<[u8; SLOT_BYTES], WriteOutcome> {
    encode(new, uid, keys).map_err(|error| match error {
        EncodeError::Keys(error) => WriteOutcome::Refused(no_key(&error)),
        EncodeError::CardNo(_) | EncodeError::ValidUntil(_) | EncodeError::KeyVersion(_) => {
            tracing::error!(%error, "record not written");
            WriteOutcome::NotWritten
        }
    })
}

/// A counter that does not rise by one is a mistake of the caller, but for the same record
/// under the seal of newer keys.
pub(super) fn follows(expected: &MemberRecord, new: &MemberRecord) -> bool {
    let sealed_anew = || {
        let key_version = new.key_version;
        expected.key_version < key_version && *new == MemberRecord { key_version, ..expected.clone() }
    };
    expected.counter.checked_add(1) == Some(new.counter) || sealed_anew()
}
