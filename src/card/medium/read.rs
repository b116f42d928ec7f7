//! Reading a member card: a state machine without I/O, as `probe` is. It names the
//! next command and is fed the answer. It writes nothing, and it logs in only where
//! the header proves that the card takes our key. A reader's word that something failed
//! is the same for a card that refuses and one that was lifted: nothing is said against
//! a card before it showed once more that it is there.

use std::sync::Arc;

use super::contact::ContactReading;
use super::desfire::{FileReading, FileStep, Wish};
use super::memory_reading::MemoryReading;
use super::purse_card::PurseReading;
use crate::card::apdu::Command;
use crate::card::keys::{KeyError, KeyStore};
use crate::card::probe::Answer;
use crate::card::record::{
    Current, HEADER_BYTES, Header, HeaderReading, Pair, SLOT_BYTES, Slot, SlotFault, choose, decode,
    read_header,
};
use crate::card::verdict::Refusal;
use crate::ident::CardUid;
use crate::protocols::cards::{CardLayout, Places};

/// What to do next.
#[derive(Debug)]
pub enum ReadStep {
    /// Send this and feed the answer.
    Transmit(Command, Box<Reading>),
    /// Power the card anew, then feed [`Answer::Reset`].
    Reset(Box<Reading>),
    /// The end.
    Done(Finding),
}

/// What came of reading a card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// A record of ours.
    Opened(Box<Opened>),
    /// It will not do, and why.
    Refused(Refusal),
    /// The reader failed, or the card left: nothing is known.
    ReaderError,
}

/// A card whose record was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// What it says openly.
    pub header: Header,
    /// Its record.
    pub current: Current,
}

/// A conversation with one card.
#[derive(Debug)]
pub struct Reading(Kind);

#[derive(Debug)]
enum Kind {
    Memory(MemoryReading),
    Files(FileReading),
    /// Powers the card anew and looks whether it is the same; then the other one, from its first step.
    Afresh {
        uid: CardUid,
        was_reset: bool,
        then: Box<ReadStep>,
    },
    Contact(Box<ContactReading>),
    Purse(Box<PurseReading>),
}

impl From<MemoryReading> for Reading {
    fn from(reading: MemoryReading) -> Self {
        Self(Kind::Memory(reading))
    }
}

impl Reading {
    /// Whether its next step may ask a SAM, and wait for it.
    pub(in crate::card) fn may_wait(&self) -> bool {
        matches!(self.0, Kind::Purse(_))
    }

    /// Begins. `disturbed`: identification may have halted the card.
    #[must_use]
    pub fn start(
        uid: CardUid,
        layout: Arc<CardLayout>,
        keys: Arc<dyn KeyStore>,
        disturbed: bool,
    ) -> ReadStep {
        match &layout.places {
            Places::Files(files) => {
                let files = files.clone();
                let (reading, select) = FileReading::start(uid, layout, files, keys, Wish::Look);
                ReadStep::Transmit(select, Box::new(Self(Kind::Files(reading))))
            }
            Places::Contact(_) => {
                let (reading, select) = ContactReading::start(uid, layout, keys);
                ReadStep::Transmit(select, Box::new(Self(Kind::Contact(Box::new(reading)))))
            }
            Places::Purse(purse) => {
                let purse = purse.clone();
                let (reading, select) = PurseReading::start(uid, layout, purse, keys);
                ReadStep::Transmit(select, Box::new(Self(Kind::Purse(Box::new(reading)))))
            }
            Places::Pages(_) | Places::Blocks(_) => MemoryReading::start(uid, layout, keys, disturbed),
        }
    }

    /// Begins with a card powered anew, of whichever kind, that has to be the same still.
    #[must_use]
    pub fn afresh(uid: CardUid, layout: Arc<CardLayout>, keys: Arc<dyn KeyStore>) -> ReadStep {
        let is_contact = matches!(layout.places, Places::Contact(_));
        let then = Self::start(uid.clone(), layout, keys, false);
        if is_contact {
            // Its first command powers it anew, and it has no UID that a reader knows.
            return then;
        }
        let then = Box::new(then);
        ReadStep::Reset(Box::new(Self(Kind::Afresh { uid, was_reset: false, then })))
    }

    /// Goes on with what came of the last step.
    #[must_use]
    pub fn answer(self, answer: &Answer) -> ReadStep {
        match self.0 {
            Kind::Afresh { uid, was_reset: false, then } => match answer {
                Answer::Reset => {
                    let asked = Self(Kind::Afresh { uid, was_reset: true, then });
                    ReadStep::Transmit(Command::get_uid(), Box::new(asked))
                }
                _ => DONE_READER_ERROR,
            },
            Kind::Afresh { uid, then, .. } => {
                if shows_uid(answer, &uid) {
                    *then
                } else {
                    DONE_READER_ERROR
                }
            }
            Kind::Memory(reading) => reading.answer(answer),
            Kind::Files(mut reading) => match reading.answer(answer) {
                FileStep::Transmit(command) => {
                    ReadStep::Transmit(command, Box::new(Self(Kind::Files(reading))))
                }
                FileStep::Done(finding) => ReadStep::Done(finding),
            },
            Kind::Contact(mut reading) => match reading.answer(answer) {
                FileStep::Transmit(command) => {
                    ReadStep::Transmit(command, Box::new(Self(Kind::Contact(reading))))
                }
                FileStep::Done(finding) => ReadStep::Done(finding),
            },
            Kind::Purse(mut reading) => match reading.answer(answer) {
                FileStep::Transmit(command) => {
                    ReadStep::Transmit(command, Box::new(Self(Kind::Purse(reading))))
                }
                FileStep::Done(finding) => ReadStep::Done(finding),
            },
        }
    }
}

pub(super) const DONE_READER_ERROR: ReadStep = ReadStep::Done(Finding::ReaderError);

pub(super) fn shows_uid(answer: &Answer, uid: &CardUid) -> bool {
    let Answer::Response(response) = answer else {
        return false;
    };
    response.ok().and_then(|bytes| CardUid::from_bytes(bytes).ok()).as_ref() == Some(uid)
}

pub(super) fn refused(refusal: Refusal) -> ReadStep {
    ReadStep::Done(Finding::Refused(refusal))
}

/// The header that these bytes are, its check proven; a card of another is refused.
pub(super) fn header_of(
    bytes: &[u8; HEADER_BYTES],
    layout: &CardLayout,
    uid: &CardUid,
    keys: &dyn KeyStore,
) -> Result<Header, Refusal> {
    let header = match read_header(bytes) {
        HeaderReading::Ours(header) => header,
        HeaderReading::Blank => return Err(Refusal::Unformatted),
        HeaderReading::Foreign => return Err(Refusal::NotAMemberCard),
    };
    if layout.version(header.layout).is_none() {
        return Err(Refusal::UnknownFormat);
    }
    match header.is_ours(bytes, uid, keys) {
        Ok(true) => Ok(header),
        Ok(false) => Err(Refusal::WrongKey),
        Err(error) => Err(no_key(&error)),
    }
}

/// What the bytes of a card's slots say; a card that keeps transactions has only one.
pub(super) fn finding(header: Header, slots: &[&[u8]], uid: &CardUid, keys: &dyn KeyStore) -> Finding {
    let slot = |bytes: &[u8]| match bytes.first_chunk::<SLOT_BYTES>() {
        Some(bytes) => decode(bytes, uid, &header.store, keys).under(header.key_version),
        None => Slot::Invalid(SlotFault::Unreadable),
    };
    let (a, b) = match slots {
        [only] => (slot(only), Slot::Empty),
        [a, b] => (slot(a), slot(b)),
        _ => return Finding::ReaderError,
    };
    match choose(a, b) {
        Pair::Current(current) => Finding::Opened(Box::new(Opened { header, current: *current })),
        // Prepared, and never issued.
        Pair::Empty => Finding::Refused(Refusal::Unformatted),
        Pair::Damaged => Finding::Refused(Refusal::DamagedRecord),
        Pair::Forked { .. } => Finding::Refused(Refusal::RecordConflict),
        Pair::Unknown(SlotFault::Format(_)) => Finding::Refused(Refusal::UnknownFormat),
        Pair::Unknown(_) => Finding::Refused(Refusal::KeyMissing),
    }
}

/// What a key store that does not act means for the card.
pub(super) fn no_key(error: &KeyError) -> Refusal {
    match error {
        KeyError::OtherStore { .. } => Refusal::StoreNotAccepted,
        KeyError::TooFewTries { .. } => Refusal::TooFewTries,
        KeyError::NeedsHeadquarters => Refusal::NeedsHeadquarters,
        _ => Refusal::KeyMissing,
    }
}
