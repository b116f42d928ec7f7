//! Reading a member card of files. It writes nothing, and it logs in only where the header
//! proves that the card takes our key.

use std::sync::Arc;

use super::channel::{Chip, GET_VERSION, Messaging, chip};
use super::talk::{Fault, Heard, Talk};
use super::{address, number, read_and_write, span, value};
use crate::card::apdu::Command;
use crate::card::crypto::ev2::Protection;
use crate::card::keys::{CardRef, KeyError, KeyRole, KeyStore, Purpose};
use crate::card::medium::read::{Finding, finding, header_of, no_key};
use crate::card::probe::Answer;
use crate::card::record::{HEADER_BYTES, Header, SLOT_BYTES};
use crate::card::verdict::Refusal;
use crate::ident::CardUid;
use crate::protocols::cards::{CardLayout, FilePlace, FilePlaces, Places};

/// GetApplicationIDs.
const LIST: u8 = 0x6A;
/// The card itself, above its applications.
const CARD: [u8; 3] = [0; 3];
/// APPLICATION_NOT_FOUND (MF3ICDx1 data sheet, status codes).
pub(super) const NO_APPLICATION: u8 = 0xA0;
/// FILE_NOT_FOUND.
pub(super) const NO_FILE: u8 = 0xF0;
/// PERMISSION_DENIED: the file's rights let nobody.
const NOT_ALLOWED: u8 = 0x9D;
/// AUTHENTICATION_ERROR: the file's rights name another key.
const NO_RIGHT: u8 = 0xAE;
/// BOUNDARY_ERROR: the file is shorter.
const TOO_SHORT: u8 = 0xBE;

/// What to do next.
#[derive(Debug)]
pub(in crate::card::medium) enum FileStep<T> {
    /// Send this and feed the answer.
    Transmit(Command),
    /// The end.
    Done(T),
}

/// What a card is read for: it decides which key it is asked under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::card::medium) enum Wish {
    Look,
    /// To write a record with no more money than the card has.
    Take,
    /// To write one with more.
    Give,
}

/// A card being read.
#[derive(Debug)]
pub(in crate::card::medium) struct FileReading {
    uid: CardUid,
    layout: Arc<CardLayout>,
    /// Of the newest layout; once the header was read, of the card's own.
    pub(super) files: FilePlaces,
    keys: Arc<dyn KeyStore>,
    wish: Wish,
    pub(super) talk: Talk,
    at: At,
    header: Option<Header>,
    got: Vec<Vec<u8>>,
}

#[derive(Debug, Clone, Copy)]
enum At {
    Application,
    /// There is none of ours: is the card empty?
    Card,
    List,
    Header,
    Version,
    LogIn,
    Slot,
    Value,
}

impl FileReading {
    /// Begins; the session it ends with may do what is wished.
    pub(in crate::card::medium) fn start(
        uid: CardUid,
        layout: Arc<CardLayout>,
        files: FilePlaces,
        keys: Arc<dyn KeyStore>,
        wish: Wish,
    ) -> (Self, Command) {
        let mut talk = Talk::new();
        let select = talk.select(&files.application);
        let at = At::Application;
        (Self { uid, layout, files, keys, wish, talk, at, header: None, got: Vec::new() }, select)
    }

    /// Goes on with what came of the last step.
    pub(in crate::card::medium) fn answer(&mut self, answer: &Answer) -> FileStep<Finding> {
        let heard = match self.talk.answer(answer) {
            Heard::More(command) => return FileStep::Transmit(command),
            Heard::Done(bytes) => Ok(bytes),
            // Nothing is known of the card.
            Heard::Failed(Fault::Line | Fault::Forged) => return FileStep::Done(Finding::ReaderError),
            Heard::Failed(fault) => Err(fault),
        };
        match (self.at, heard) {
            (At::Application, Ok(_)) => {
                let (read, _) = read_and_write(&self.files);
                // The address stands before the header: one command brings both.
                let span = match self.files.sun {
                    Some(_) => span(&FilePlace { offset: 0, ..self.files.header }, self.header_end()),
                    None => span(&self.files.header, HEADER_BYTES),
                };
                self.ask(At::Header, Protection::Plain, read, &span)
            }
            (At::Application, Err(Fault::Status(NO_APPLICATION))) if self.files.is_desfire() => {
                self.at = At::Card;
                FileStep::Transmit(self.talk.select(&CARD))
            }
            (At::Card, Ok(_)) => self.ask(At::List, Protection::Plain, LIST, &[]),
            (At::List, Ok(names)) if names.is_empty() => refused(Refusal::Unformatted),
            // Our application, and its issue was not finished.
            (At::Header, Err(Fault::Status(NO_FILE))) => refused(Refusal::Unformatted),
            (At::Header, Ok(bytes)) => self.header_read(&bytes),
            (At::Version, Ok(version)) => match chip(&version) {
                Some(Chip::Speaks(messaging)) => self.log_in(messaging),
                Some(Chip::TooOld) => refused(Refusal::NotAMemberCard),
                None => FileStep::Done(Finding::ReaderError),
            },
            (At::Application | At::Card | At::List | At::Header, _) => refused(Refusal::NotAMemberCard),
            (At::LogIn, Ok(_)) => self.next_slot(),
            (At::LogIn, Err(_)) => refused(Refusal::WrongKey),
            (At::Slot, Ok(bytes)) => {
                self.got.push(bytes.to_vec());
                self.next_slot()
            }
            (At::Value, Ok(bytes)) => match value::read(&bytes) {
                Some(fen) => self.found(Some(fen)),
                None => FileStep::Done(Finding::ReaderError),
            },
            // The header is ours and its files are not as we make them.
            (At::Slot | At::Value, Err(Fault::Status(NO_FILE | NOT_ALLOWED | NO_RIGHT | TOO_SHORT))) => {
                refused(Refusal::DamagedRecord)
            }
            (At::Version | At::Slot | At::Value, Err(_)) => FileStep::Done(Finding::ReaderError),
        }
    }

    fn ask(&mut self, at: At, protection: Protection, ins: u8, header: &[u8]) -> FileStep<Finding> {
        self.at = at;
        FileStep::Transmit(self.talk.command(protection, ins, header, &[]))
    }

    fn header_end(&self) -> usize {
        usize::from(self.files.header.offset) + HEADER_BYTES
    }

    fn header_read(&mut self, bytes: &[u8]) -> FileStep<Finding> {
        let length = if self.files.sun.is_some() { self.header_end() } else { HEADER_BYTES };
        let (address, header) = match bytes.split_last_chunk::<HEADER_BYTES>() {
            Some(parts) if bytes.len() == length => parts,
            _ => return FileStep::Done(Finding::ReaderError),
        };
        let header = match header_of(header, &self.layout, &self.uid, &*self.keys) {
            Ok(header) => header,
            Err(refusal) => return refused(refusal),
        };
        if let Err(refusal) = self.address_proves(address, &header) {
            return refused(refusal);
        }
        if let Some(Places::Files(files)) = self.layout.version(header.layout).map(|known| &known.places) {
            self.files = files.clone();
        }
        self.header = Some(header);
        if self.files.is_desfire() {
            return self.ask(At::Version, Protection::Plain, GET_VERSION, &[]);
        }
        self.log_in(Messaging::Ev2)
    }

    fn log_in(&mut self, messaging: Messaging) -> FileStep<Finding> {
        let Some(header) = &self.header else { return FileStep::Done(Finding::ReaderError) };
        let card = CardRef { uid: &self.uid, store: &header.store, version: header.key_version };
        let role = match self.wish {
            Wish::Look => KeyRole::Debit,
            // The value file keeps the debit key from putting money on.
            Wish::Take if self.files.value.is_some() => KeyRole::Debit,
            Wish::Take | Wish::Give => KeyRole::Credit,
        };
        let login = match messaging.login(&*self.keys, card, role, number(&self.files, role)) {
            Ok(login) => login,
            Err(error) => return refused(no_key(&error)),
        };
        self.at = At::LogIn;
        FileStep::Transmit(self.talk.log_in(login))
    }

    /// A tag's own address must be its own. Without one, or without the key that checks it,
    /// the login that follows has to do, which proves more.
    fn address_proves(&self, file: &[u8], header: &Header) -> Result<(), Refusal> {
        let Some((picc, mac)) = address::parse(file) else { return Ok(()) };
        match self.keys.sun_reading(&header.store, header.key_version, &picc, &[], &mac) {
            Ok(Some(reading)) if CardUid::from_bytes(&reading.uid).ok().as_ref() == Some(&self.uid) => Ok(()),
            Ok(_) => Err(Refusal::WrongKey),
            Err(KeyError::Missing { purpose: Purpose::Sun, .. }) => Ok(()),
            Err(error) => Err(no_key(&error)),
        }
    }

    fn next_slot(&mut self) -> FileStep<Finding> {
        if let Some(place) = self.files.slots.get(self.got.len()) {
            let (read, _) = read_and_write(&self.files);
            let span = span(place, SLOT_BYTES);
            return self.ask(At::Slot, Protection::Full, read, &span);
        }
        match self.files.value {
            Some(place) => self.ask(At::Value, Protection::Full, value::GET, &[place.file]),
            None => self.found(None),
        }
    }

    /// `fen`: what the value file holds, of a card that has one. Both are written in one
    /// transaction; where they differ somebody wrote one past this program.
    fn found(&mut self, fen: Option<i32>) -> FileStep<Finding> {
        let Some(header) = self.header.take() else { return FileStep::Done(Finding::ReaderError) };
        let slots: Vec<&[u8]> = self.got.iter().map(Vec::as_slice).collect();
        match finding(header, &slots, &self.uid, &*self.keys) {
            Finding::Opened(opened)
                if fen.is_some_and(|fen| value::of(&opened.current.record) != Some(fen)) =>
            {
                refused(Refusal::RecordConflict)
            }
            finding => FileStep::Done(finding),
        }
    }
}

fn refused(refusal: Refusal) -> FileStep<Finding> {
    FileStep::Done(Finding::Refused(refusal))
}
