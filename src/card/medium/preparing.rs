//! Preparing an empty card, step by step: a state machine without I/O. The card is looked at
//! first and must be as delivered; a card that an earlier attempt left half written is
//! prepared again from the beginning. What does not live here: the commands themselves
//! (`format`) and the journal of an issue.
//!
//! ```text
//!  reset ─ same UID? ─ empty? ─ slots ─ header ─ keys and locks ─► prepared
//!              │         └ no: not blank      └ from here: unfinished, prepare it again
//!              └ no: nothing was written
//! ```
//! A card of files tells what is missing: its conversation (`desfire`) begins behind the UID.

use std::collections::VecDeque;
use std::sync::Arc;

use super::contact::{ContactFormatting, Naming};
use super::desfire::{FileFormatting, FileStep};
use super::format::{FormatDeed, FormatError, format_steps};
use super::page_login::{LoggedIn, PageLogin};
use super::place::{self, Piece};
use super::public;
use super::purse_card::PurseFormatting;
use super::sector_login::{Opening, SectorLogin};
use crate::card::apdu::Command;
use crate::card::keys::transport::ClassicKey;
use crate::card::keys::{CardRef, KeyError, KeyRole, KeyStore, KeyVersion};
use crate::card::probe::{Answer, RELAY_GET_VERSION};
use crate::card::record::{HeaderReading, MemberRecord, Which, read_header};
use crate::card::sle4442::Serial;
use crate::card::verdict::Refusal;
use crate::event::card::Technology;
use crate::ident::CardUid;
use crate::protocols::cards::{self, CardLayout, Places};

/// What to do next.
#[derive(Debug)]
pub enum PrepareStep {
    /// Send this and feed the answer.
    Transmit(Command, Box<Preparing>),
    /// Power the card anew, then feed [`Answer::Reset`].
    Reset(Box<Preparing>),
    /// The end.
    Done(PrepareOutcome),
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrepareOutcome {
    /// Every command succeeded; read the card to be sure.
    Prepared,
    /// Nothing was written: the card has foreign keys or data, or is another chip than it is named.
    NotBlank,
    /// Nothing was written: a wrong code now might lock it for ever.
    TooFewTries,
    /// Nothing was written: another card, the reader failed, or the card left.
    NotWritten,
    /// The card may be half written, or whole: read it; if it is not, prepare it again.
    Unfinished,
}

/// A card being prepared.
#[derive(Debug)]
pub struct Preparing {
    uid: CardUid,
    doing: Deed,
    todo: VecDeque<Deed>,
    begun: bool,
    /// The key everybody knows that opened the last sector of a Classic.
    delivered: Option<ClassicKey>,
    /// With a card that asks back.
    files: Option<Talk>,
}

/// A conversation with a card of files, of contact memory, or with a purse.
#[derive(Debug)]
enum Talk {
    Files(Box<FileFormatting>),
    Contact(Box<ContactFormatting>),
    Naming(Naming),
    Purse(Box<PurseFormatting>),
}

impl Talk {
    fn answer(&mut self, answer: &Answer) -> FileStep<PrepareOutcome> {
        match self {
            Self::Files(talk) => talk.answer(answer),
            Self::Contact(talk) => talk.answer(answer),
            Self::Naming(talk) => talk.answer(answer),
            Self::Purse(talk) => talk.answer(answer),
        }
    }
}

#[derive(Debug)]
enum Deed {
    Reset,
    SameUid,
    /// Asks the chip for its version; it must be an MF0UL21.
    Chip,
    Sector(SectorLogin),
    /// The trailer must be as delivered: under other access bits the writes would fail half way.
    EmptyTrailer(Piece),
    /// The header of this block must not show before its sector is closed: where it would, as
    /// everybody knows the key that reads headers, the sector is first given another.
    Cover(u8),
    /// The header must be as delivered.
    EmptyHeader(Piece),
    /// Must be zeros.
    Empty(Piece),
    Write(Command),
    /// Writes a part of its key.
    WriteKey(Command),
    /// Writes a page that an earlier attempt may have closed.
    WriteClosed(Command, PageLogin),
    Open(PageLogin),
    /// The key must be the delivered one.
    Delivered(PageLogin),
    /// Of the conversation with a card of files.
    Files(Command),
    /// It refused to be looked at, and it is still there.
    Foreign,
}

impl Preparing {
    /// Begins to make the card `uid` a member card with `record`. `again`: an earlier attempt
    /// of ours was cut off, what is on the card is ours to overwrite.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn start(
        uid: CardUid,
        technology: Technology,
        layout: &CardLayout,
        record: &MemberRecord,
        keys: &Arc<dyn KeyStore>,
        again: bool,
    ) -> Result<PrepareStep, FormatError> {
        let version = KeyVersion(record.key_version);
        let card = CardRef { uid: &uid, store: &record.issuing_store, version };
        let mut todo = VecDeque::from([Deed::Reset, Deed::SameUid]);
        if let Places::Files(files) = &layout.places {
            let keys = Arc::clone(keys);
            let (work, first) =
                FileFormatting::start(uid.clone(), layout, files.clone(), record, keys, again)?;
            todo.push_back(Deed::Files(first));
            let files = Some(Talk::Files(Box::new(work)));
            return Ok(Self::talking(uid, todo, files).go_on());
        }
        if let Places::Contact(contact) = &layout.places {
            let (work, first) =
                ContactFormatting::start(uid.clone(), layout, contact, record, &**keys, again)?;
            return Ok(Self::contact(uid, Talk::Contact(Box::new(work)), first));
        }
        if let Places::Purse(purse) = &layout.places {
            let (keys, purse) = (Arc::clone(keys), purse.clone());
            let (work, first) = PurseFormatting::start(uid.clone(), layout, purse, record, keys, again)?;
            todo.push_back(Deed::Files(first));
            let files = Some(Talk::Purse(Box::new(work)));
            return Ok(Self::talking(uid, todo, files).go_on());
        }
        if technology == Technology::Ultralight {
            todo.push_back(Deed::Chip);
        }
        if !again {
            todo.extend(looks_empty(layout)?);
        }
        for step in format_steps(technology, layout, &uid, record, &**keys)? {
            match step {
                FormatDeed::LogIn { block } => {
                    let own = again.then(|| keys.classic_login(card, KeyRole::Credit, block)).transpose()?;
                    todo.push_back(Deed::Sector(SectorLogin::any(block, own)));
                    if place::sector(block) == place::sector(place::header(&layout.places).at) {
                        todo.push_back(Deed::Cover(block));
                    }
                }
                FormatDeed::Write(command) => todo.push_back(Deed::Write(command)),
                FormatDeed::WriteKey(command) => todo.push_back(Deed::WriteKey(command)),
            }
        }
        if let (Places::Pages(pages), true) = (&layout.places, again) {
            // The first write is to the header, which is closed only if AUTH0 was torn; the second tells.
            let login = PageLogin::of(pages, card, &**keys)?;
            for deed in todo.iter_mut().filter(|deed| matches!(deed, Deed::Write(_))).take(2) {
                if let Deed::Write(command) = deed {
                    *deed = Deed::WriteClosed(command.clone(), login.clone());
                }
            }
        }
        Ok(Self::talking(uid, todo, None).go_on())
    }

    fn talking(uid: CardUid, todo: VecDeque<Deed>, files: Option<Talk>) -> Self {
        Self { uid, doing: Deed::Reset, todo, begun: false, delivered: None, files }
    }

    /// Begins to give the card `uid`, which shows its maker's bytes, a serial of its own.
    pub(in crate::card) fn name(uid: CardUid, serial: Serial) -> PrepareStep {
        let (work, first) = Naming::start(uid.clone(), serial);
        Self::contact(uid, Talk::Naming(work), first)
    }

    /// Such a card has no UID that the reader knows of: its conversation asks for its serial.
    fn contact(uid: CardUid, talk: Talk, first: Command) -> PrepareStep {
        Self::talking(uid, VecDeque::from([Deed::Files(first)]), Some(talk)).go_on()
    }

    /// Goes on with what came of the last step.
    #[must_use]
    pub fn answer(mut self, answer: &Answer) -> PrepareStep {
        let response = match (&self.doing, answer) {
            (Deed::Reset, Answer::Reset) => return self.go_on(),
            (Deed::Reset, _) | (_, Answer::Reset | Answer::NotTransmitted) => return self.cut(),
            (Deed::Open(login), Answer::Response(response)) => {
                return match login.answer(response) {
                    LoggedIn::Yes => {
                        // It was closed with the key, which stands: torn now it would be lost.
                        self.todo.retain(|deed| !matches!(deed, Deed::WriteKey(_)));
                        self.go_on()
                    }
                    LoggedIn::More(login) => self.go_on_with(Deed::Open(login)),
                    LoggedIn::No(_) => self.cut(),
                };
            }
            (Deed::Delivered(login), Answer::Response(response)) => {
                return match login.answer(response) {
                    LoggedIn::Yes => self.go_on(),
                    LoggedIn::More(login) => self.go_on_with(Deed::Delivered(login)),
                    LoggedIn::No(Refusal::WrongKey) => self.not_blank_if_there(),
                    // A reader that relays nothing cannot open such a card later either.
                    LoggedIn::No(_) => self.cut(),
                };
            }
            (Deed::Sector(login), Answer::Response(response)) => {
                let opening = login.answer(response);
                return self.sector_answer(opening);
            }
            (Deed::Files(_), Answer::Response(_)) => return self.files_answer(answer),
            (_, Answer::Response(response)) => response.ok(),
        };
        match (std::mem::replace(&mut self.doing, Deed::Reset), response) {
            (Deed::SameUid, Some(bytes)) if CardUid::from_bytes(bytes).as_ref() == Ok(&self.uid) => {
                self.go_on()
            }
            (Deed::SameUid | Deed::Reset, _) | (Deed::Write(_) | Deed::WriteKey(_), None) => self.cut(),
            (Deed::Write(_) | Deed::WriteKey(_) | Deed::WriteClosed(..), Some(_)) => self.go_on(),
            (Deed::WriteClosed(write, login), None) => {
                // A refused command puts the chip to sleep.
                let anew = [Deed::Reset, Deed::SameUid, Deed::Open(login), Deed::Write(write)];
                anew.into_iter().rev().for_each(|deed| self.todo.push_front(deed));
                self.go_on()
            }
            (Deed::Chip, Some(bytes)) if is_large_ultralight(bytes) => self.go_on(),
            (Deed::EmptyHeader(_), Some(bytes)) if is_empty_header(bytes) => self.go_on(),
            (Deed::Empty(_), Some(bytes)) if bytes.iter().all(|byte| *byte == 0) => self.go_on(),
            (Deed::EmptyTrailer(_), Some(bytes)) if public::is_delivered_trailer(bytes) => self.go_on(),
            // A reader that relays nothing cannot open such a card later either.
            (Deed::Chip, None) => self.cut(),
            (Deed::EmptyHeader(_) | Deed::Empty(_) | Deed::EmptyTrailer(_), None) | (Deed::Chip, Some(_))
                if !self.begun =>
            {
                self.not_blank_if_there()
            }
            (Deed::EmptyHeader(_) | Deed::Empty(_) | Deed::EmptyTrailer(_), Some(_)) if !self.begun => {
                PrepareStep::Done(PrepareOutcome::NotBlank)
            }
            _ => self.cut(),
        }
    }

    fn sector_answer(mut self, opening: Opening) -> PrepareStep {
        match opening {
            Opening::Open(key) => {
                self.delivered = key;
                self.go_on()
            }
            Opening::More(login) => self.go_on_with(Deed::Sector(login)),
            Opening::Halted(login) => {
                let anew = [Deed::Reset, Deed::SameUid, Deed::Sector(login)];
                anew.into_iter().rev().for_each(|deed| self.todo.push_front(deed));
                self.go_on()
            }
            Opening::Closed if !self.begun => self.not_blank_if_there(),
            Opening::Closed | Opening::ReaderFailed => self.cut(),
        }
    }

    fn files_answer(mut self, answer: &Answer) -> PrepareStep {
        match self.files.as_mut().map(|files| files.answer(answer)) {
            Some(FileStep::Transmit(command)) => {
                self.todo.push_back(Deed::Files(command));
                self.go_on()
            }
            Some(FileStep::Done(outcome)) => PrepareStep::Done(outcome),
            None => self.cut(),
        }
    }

    /// It gave no right answer, which a reader that has not noticed says of a card that left, too.
    fn not_blank_if_there(mut self) -> PrepareStep {
        self.todo = VecDeque::from([Deed::Reset, Deed::SameUid, Deed::Foreign]);
        self.go_on()
    }

    fn go_on_with(mut self, deed: Deed) -> PrepareStep {
        self.todo.push_front(deed);
        self.go_on()
    }

    fn cut(self) -> PrepareStep {
        PrepareStep::Done(if self.begun { PrepareOutcome::Unfinished } else { PrepareOutcome::NotWritten })
    }

    fn go_on(mut self) -> PrepareStep {
        let Some(mut deed) = self.todo.pop_front() else {
            return PrepareStep::Done(PrepareOutcome::Prepared);
        };
        if let (Deed::Sector(login), Some(known)) = (&mut deed, self.delivered) {
            login.prefer(known);
        }
        let command = match &deed {
            Deed::Reset => {
                self.doing = deed;
                return PrepareStep::Reset(Box::new(self));
            }
            Deed::Foreign => return PrepareStep::Done(PrepareOutcome::NotBlank),
            Deed::SameUid => Command::get_uid(),
            Deed::Chip => Command::direct_transmit(RELAY_GET_VERSION),
            Deed::Cover(block) => {
                if self.delivered.is_some_and(|key| public::reads_headers(&key)) {
                    self.todo.push_front(Deed::Sector(SectorLogin::delivered(*block)));
                    self.todo.push_front(Deed::Write(public::delivered_trailer(place::trailer(*block).at)));
                }
                return self.go_on();
            }
            Deed::Write(command)
            | Deed::WriteKey(command)
            | Deed::WriteClosed(command, _)
            | Deed::Files(command) => command.clone(),
            Deed::Sector(login) => login.command(),
            Deed::Open(login) | Deed::Delivered(login) => login.command(),
            Deed::EmptyHeader(piece) | Deed::Empty(piece) | Deed::EmptyTrailer(piece) => piece.read(),
        };
        let begins =
            matches!(deed, Deed::Write(_) | Deed::WriteKey(_) | Deed::WriteClosed(..) | Deed::Files(_));
        self.begun |= begins;
        self.doing = deed;
        PrepareStep::Transmit(command, Box::new(self))
    }
}

/// Product type 03, storage size 0E (MF0ULx1 data sheet rev. 3.3 table 15), behind `D5 43 00`.
/// Three more chips go by the name of Ultralight and have other things where this one has its
/// configuration: on an Ultralight C its password would become lock bits.
fn is_large_ultralight(relayed: &[u8]) -> bool {
    matches!(relayed, [0xD5, 0x43, 0x00, _, _, 0x03, _, _, _, 0x0E, _])
}

fn is_empty_header(bytes: &[u8]) -> bool {
    bytes.first_chunk().is_some_and(|bytes| read_header(bytes) == HeaderReading::Blank)
}

/// Reads every place of the layout; on a Classic with whichever key it was delivered with.
fn looks_empty(layout: &CardLayout) -> Result<Vec<Deed>, KeyError> {
    let header = place::header(&layout.places);
    let slots = [Which::A, Which::B].into_iter().flat_map(|which| place::slot(&layout.places, which));
    let mut deeds = Vec::new();
    if let Places::Pages(pages) = &layout.places
        && pages.login == cards::PageLogin::TripleDes
    {
        deeds.push(Deed::Delivered(PageLogin::delivered()?));
    }
    let mut open = None;
    for (piece, is_header) in std::iter::once((header, true)).chain(slots.map(|piece| (piece, false))) {
        if let Places::Blocks(_) = layout.places
            && open.replace(place::sector(piece.at)) != Some(place::sector(piece.at))
        {
            deeds.push(Deed::Sector(SectorLogin::any(piece.at, None)));
            deeds.push(Deed::EmptyTrailer(place::trailer(piece.at)));
        }
        deeds.push(if is_header { Deed::EmptyHeader(piece) } else { Deed::Empty(piece) });
    }
    Ok(deeds)
}
