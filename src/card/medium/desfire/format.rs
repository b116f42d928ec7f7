//! Preparing a card of files as delivered: look what is there, then do what is missing.
//! Nothing is guessed: a card says which version each of its keys has, and 0 is the
//! delivered one. So a card that left at any command is simply prepared again. The header
//! comes last: until then the card counts as empty. So does a member's card that was cut while
//! it was moved to newer keys: one with all our keys is asked first whether it was ever used.
//!
//! ```text
//!  application? ─ create ─ header? ─ key versions ─ EV1? ─ record? ─ log in (manage) ─ files? ─ create
//!     ─ change keys, the session's own last ─ log in (credit) ─ value ─ record ─ commit ─ header
//!  NTAG 424: the files are there and get their rights; the address comes before the record
//! ```

mod deeds;

use std::collections::VecDeque;
use std::sync::Arc;

pub(super) use deeds::CHANGE_SETTINGS;
use deeds::Deed;

use super::address::{self, Address};
use super::channel::{Chip, GET_VERSION, Login, Messaging, chip};
use super::read::{FileStep, NO_APPLICATION, NO_FILE};
use super::talk::{Fault, Heard, Talk};
use super::{number, read_and_write, span, value};
use crate::card::apdu::Command;
use crate::card::crypto::ev2::Protection;
use crate::card::keys::{CardRef, KeyError, KeyRole, KeyStore, KeyVersion};
use crate::card::medium::format::FormatError;
use crate::card::medium::preparing::PrepareOutcome;
use crate::card::medium::read::{Finding, finding};
use crate::card::probe::Answer;
use crate::card::record::{
    HEADER_BYTES, Header, HeaderReading, MemberRecord, SLOT_BYTES, encode, read_header,
};
use crate::card::verdict::Refusal;
use crate::ident::CardUid;
use crate::protocols::cards::{CardLayout, FilePlaces};

/// CreateApplication.
const CREATE_APPLICATION: u8 = 0xCA;
/// GetFileIDs.
pub(super) const LIST_FILES: u8 = 0x6F;
/// GetKeyVersion.
pub(super) const KEY_VERSION: u8 = 0x64;
/// The card itself, above its applications.
const CARD: [u8; 3] = [0; 3];
/// Everybody may list the files; creating and deleting them, keys and settings need the
/// master key (MF3ICDx1 data sheet, application key settings).
const APPLICATION_SETTINGS: u8 = 0x0B;
/// In CreateApplication's number of keys: they are AES keys.
const AES_KEYS: u8 = 0x80;
/// Communication settings of a file.
const MAC: u8 = 0x01;
const FULL: u8 = 0x03;

/// A card being prepared.
#[derive(Debug)]
pub(in crate::card::medium) struct FileFormatting {
    uid: CardUid,
    files: FilePlaces,
    keys: Arc<dyn KeyStore>,
    header: Header,
    header_bytes: [u8; HEADER_BYTES],
    slot_bytes: [u8; SLOT_BYTES],
    /// For the value file, where there is one.
    fen: i32,
    talk: Talk,
    at: At,
    /// Of an NTAG 424.
    address: Option<Address>,
    /// Keys of the application and, once asked, their versions.
    roles: &'static [KeyRole],
    versions: Vec<u8>,
    messaging: Messaging,
    /// What lies there is ours to overwrite.
    again: bool,
    /// What its slots hold.
    slots: Vec<Vec<u8>>,
    todo: VecDeque<Deed>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Application,
    /// Ours is not there yet.
    Card,
    Created,
    Header,
    Version(KeyRole),
    Chip,
    LogInToLook,
    Slot,
    LogIn,
    List,
    Value,
    Deed,
}

impl FileFormatting {
    /// Begins to make an empty card the member card of `record`. `again`: what lies there is
    /// ours to overwrite.
    pub(in crate::card::medium) fn start(
        uid: CardUid,
        layout: &CardLayout,
        files: FilePlaces,
        record: &MemberRecord,
        keys: Arc<dyn KeyStore>,
        again: bool,
    ) -> Result<(Self, Command), FormatError> {
        let header = Header {
            layout: layout.layout,
            key_version: KeyVersion(record.key_version),
            store: record.issuing_store.clone(),
        };
        let header_bytes = header.encode(&uid, &*keys)?;
        let slot_bytes = encode(record, &uid, &*keys)?;
        let fen = match (files.value, value::of(record)) {
            (None, _) => 0,
            (Some(_), Some(fen)) => fen,
            (Some(_), None) => return Err(FormatError::Value(record.balance_fen())),
        };
        // Whatever key is missing is told before the card is touched.
        let roles = roles(&files);
        for role in roles {
            let card = CardRef { uid: &uid, store: &header.store, version: header.key_version };
            keys.ev2_login(card, *role, number(&files, *role))?;
        }
        let address = match &files.sun {
            Some(sun) => {
                Some(address::of(sun, &header).ok_or_else(|| FormatError::Layout(layout.id.clone()))?)
            }
            None => None,
        };
        let mut talk = Talk::new();
        let select = talk.select(&files.application);
        let (versions, slots, todo) = (Vec::new(), Vec::new(), VecDeque::new());
        let (at, messaging) = (At::Application, Messaging::Ev2);
        let formatting = Self {
            uid,
            files,
            keys,
            header,
            header_bytes,
            slot_bytes,
            fen,
            talk,
            at,
            address,
            roles,
            versions,
            messaging,
            again,
            slots,
            todo,
        };
        Ok((formatting, select))
    }

    /// Goes on with what came of the last step.
    pub(in crate::card::medium) fn answer(&mut self, answer: &Answer) -> FileStep<PrepareOutcome> {
        let heard = match self.talk.answer(answer) {
            Heard::More(command) => return FileStep::Transmit(command),
            Heard::Done(bytes) => Ok(bytes),
            Heard::Failed(Fault::Line | Fault::Forged) => return FileStep::Done(PrepareOutcome::Unfinished),
            Heard::Failed(fault) => Err(fault),
        };
        match (self.at, heard) {
            (At::Application, Ok(_)) => self.read_header(),
            (At::Application, Err(Fault::Status(NO_APPLICATION))) if self.files.is_desfire() => {
                self.at = At::Card;
                FileStep::Transmit(self.talk.select(&CARD))
            }
            (At::Card, Ok(_)) => {
                let keys = u8::try_from(self.roles.len()).unwrap_or(u8::MAX) | AES_KEYS;
                let body = [self.files.application.as_slice(), &[APPLICATION_SETTINGS, keys]].concat();
                self.ask(At::Created, Protection::Plain, CREATE_APPLICATION, &body)
            }
            (At::Created, Ok(_)) => {
                self.at = At::Application;
                FileStep::Transmit(self.talk.select(&self.files.application))
            }
            (At::Header, Err(Fault::Status(NO_FILE))) => self.next_version(),
            (At::Header, Ok(bytes)) => match bytes.first_chunk().map(read_header) {
                Some(HeaderReading::Blank) => self.next_version(),
                _ => FileStep::Done(PrepareOutcome::NotBlank),
            },
            (At::Version(_), Ok(version)) => match version.as_slice() {
                [version] if [0, self.header.key_version.0].contains(version) => {
                    self.versions.push(*version);
                    self.next_version()
                }
                _ => FileStep::Done(PrepareOutcome::NotBlank),
            },
            (At::Chip, Ok(version)) => match chip(&version) {
                Some(Chip::Speaks(messaging)) => {
                    self.messaging = messaging;
                    self.look()
                }
                Some(Chip::TooOld) => FileStep::Done(PrepareOutcome::NotBlank),
                None => FileStep::Done(PrepareOutcome::Unfinished),
            },
            (At::LogInToLook, Ok(_)) => self.next_slot(),
            (At::Slot, Ok(bytes)) => {
                self.slots.push(bytes.to_vec());
                self.next_slot()
            }
            (At::LogIn, Ok(_)) if self.files.is_desfire() => {
                self.ask(At::List, Protection::Mac, LIST_FILES, &[])
            }
            (At::LogIn, Ok(_)) => {
                self.todo = self.missing(&[]);
                self.next_deed()
            }
            (At::List, Ok(names)) => {
                self.todo = self.missing(&names);
                self.next_deed()
            }
            (At::Value, Ok(fen)) => self.value_read(&fen),
            (At::Deed, Ok(_)) => self.next_deed(),
            (at, Err(fault)) => {
                tracing::debug!(?at, ?fault, "the card refused to be prepared");
                FileStep::Done(PrepareOutcome::NotBlank)
            }
        }
    }

    fn ask(&mut self, at: At, protection: Protection, ins: u8, header: &[u8]) -> FileStep<PrepareOutcome> {
        self.at = at;
        FileStep::Transmit(self.talk.command(protection, ins, header, &[]))
    }

    fn read_header(&mut self) -> FileStep<PrepareOutcome> {
        let (read, _) = read_and_write(&self.files);
        let span = span(&self.files.header, HEADER_BYTES);
        self.ask(At::Header, Protection::Plain, read, &span)
    }

    /// Asks for the next key's version; then logs in.
    fn next_version(&mut self) -> FileStep<PrepareOutcome> {
        if let Some(role) = self.roles.get(self.versions.len()) {
            let number = number(&self.files, *role);
            return self.ask(At::Version(*role), Protection::Plain, KEY_VERSION, &[number]);
        }
        if self.files.is_desfire() {
            return self.ask(At::Chip, Protection::Plain, GET_VERSION, &[]);
        }
        self.look()
    }

    /// Where all keys are ours and nobody here began it, a record may lie behind the empty header.
    fn look(&mut self) -> FileStep<PrepareOutcome> {
        if self.again || self.versions.contains(&0) {
            return self.log_in_to_manage();
        }
        match self.login(KeyRole::Credit) {
            Ok(login) => {
                self.at = At::LogInToLook;
                FileStep::Transmit(self.talk.log_in(login))
            }
            Err(error) => refused(&error),
        }
    }

    fn next_slot(&mut self) -> FileStep<PrepareOutcome> {
        if let Some(place) = self.files.slots.get(self.slots.len()) {
            let (read, _) = read_and_write(&self.files);
            let span = span(place, SLOT_BYTES);
            return self.ask(At::Slot, Protection::Full, read, &span);
        }
        let slots: Vec<&[u8]> = self.slots.iter().map(Vec::as_slice).collect();
        match finding(self.header.clone(), &slots, &self.uid, &*self.keys) {
            // What was only given out, and never used, may be given out again.
            Finding::Opened(opened) if opened.current.record.counter == 0 => self.log_in_to_manage(),
            // Nothing, or what a cut left of a first record.
            Finding::Refused(Refusal::Unformatted | Refusal::DamagedRecord) => self.log_in_to_manage(),
            _ => FileStep::Done(PrepareOutcome::NotBlank),
        }
    }

    /// Logs in with the master key that stands there.
    fn log_in_to_manage(&mut self) -> FileStep<PrepareOutcome> {
        let login = match self.version(KeyRole::Manage) {
            0 => self.messaging.delivered_login(number(&self.files, KeyRole::Manage)),
            _ => self.login(KeyRole::Manage),
        };
        match login {
            Ok(login) => {
                self.at = At::LogIn;
                FileStep::Transmit(self.talk.log_in(login))
            }
            Err(error) => refused(&error),
        }
    }

    fn version(&self, role: KeyRole) -> u8 {
        let place = self.roles.iter().position(|known| *known == role);
        place.and_then(|place| self.versions.get(place)).copied().unwrap_or_default()
    }

    fn card(&self) -> CardRef<'_> {
        CardRef { uid: &self.uid, store: &self.header.store, version: self.header.key_version }
    }

    fn login(&self, role: KeyRole) -> Result<Login, KeyError> {
        self.messaging.login(&*self.keys, self.card(), role, number(&self.files, role))
    }
}

/// The roles that have a key in the application, the session's own last.
pub(super) fn roles(files: &FilePlaces) -> &'static [KeyRole] {
    use KeyRole::{Credit, Debit, Manage, SunFile, SunMeta};
    if files.sun.is_some() { &[Debit, Credit, SunMeta, SunFile, Manage] } else { &[Debit, Credit, Manage] }
}

fn refused(error: &KeyError) -> FileStep<PrepareOutcome> {
    tracing::debug!(%error, "the card was not prepared");
    FileStep::Done(PrepareOutcome::NotBlank)
}
