//! Moving a card of files to newer keys. Nothing is guessed: a card says of each key which
//! version it has, and with it what a cut left to do. So its keys are one place of the journal,
//! which the card keeps better. What does not live here: when, and the journal
//! (`counter::rekey`), and the record under its new seal (`write`).
//!
//! ```text
//!  key versions ─ log in (credit) ─ header cleared ─ log in (manage) ─ keys, the session's own last
//!       └── all new ──────────────────────────► log in (credit, new) ─ which files? ─ header
//!  NTAG 424: the address gets its settings before the keys, and is written before the header
//! ```
//! ChangeKey sets a key and its version in one. While the header is empty the card says
//! `unformatted`, so that no gateway logs in to it with keys that it may not have any more. Which
//! layout it names again its files tell, under the session's MAC.

use std::collections::VecDeque;
use std::sync::Arc;

use super::address::{self, Address};
use super::channel::{Chip, GET_VERSION, Messaging, chip};
use super::format::{CHANGE_SETTINGS, KEY_VERSION, LIST_FILES, roles};
use super::read::FileStep;
use super::talk::{Fault, Heard, Talk};
use super::{number, read_and_write, span};
use crate::card::apdu::Command;
use crate::card::crypto::ev2::Protection;
use crate::card::keys::rekey::Move;
use crate::card::keys::{CardRef, Earlier, KeyError, KeyRole, KeyStore, KeyVersion};
use crate::card::medium::format::FormatError;
use crate::card::medium::moving::MoveOutcome;
use crate::card::probe::Answer;
use crate::card::record::{HEADER_BYTES, Header};
use crate::ident::{CardUid, StoreId};
use crate::protocols::cards::{CardLayout, FilePlace, FilePlaces, Places};

/// A card being moved, once the UID was seen.
#[derive(Debug)]
pub(in crate::card::medium) struct FileMoving {
    uid: CardUid,
    files: FilePlaces,
    /// Those that the card can have, the newest first: their numbers and files.
    layouts: Vec<(u8, Vec<u8>)>,
    keys: Arc<dyn KeyStore>,
    from: KeyVersion,
    /// As it will be.
    header: Header,
    header_bytes: [u8; HEADER_BYTES],
    /// Of an NTAG 424, as it will be.
    address: Option<Address>,
    talk: Talk,
    messaging: Messaging,
    at: At,
    /// Of the keys, once asked, in the order of `roles`.
    versions: Vec<KeyVersion>,
    todo: VecDeque<Deed>,
}

#[derive(Debug, Clone, Copy)]
enum At {
    Application,
    Chip,
    Version,
    Files,
    Deed,
}

/// What is done once it is known what is missing.
#[derive(Debug, Clone, Copy)]
enum Deed {
    LogIn(KeyRole, KeyVersion),
    ClearHeader,
    /// The address of the new version may be longer: its changing places move.
    Settings,
    /// From this version.
    ChangeKey(KeyRole, KeyVersion),
    WriteAddress,
    /// DESFire: which files are there?
    ListFiles,
    WriteHeader,
}

impl FileMoving {
    /// Begins, or goes on where the card was left. Whatever key is missing is told before the
    /// card is touched.
    pub(in crate::card::medium) fn start(
        uid: &CardUid,
        store: &StoreId,
        layout: &CardLayout,
        files: &FilePlaces,
        keys: &Arc<dyn KeyStore>,
        torn: Move,
    ) -> Result<(Self, Command), FormatError> {
        let header = Header { layout: layout.layout, key_version: torn.to, store: store.clone() };
        let header_bytes = header.encode(uid, &**keys)?;
        for version in [torn.from, torn.to] {
            for role in roles(files) {
                keys.ev2_login(CardRef { uid, store, version }, *role, number(files, *role))?;
            }
        }
        let address = match &files.sun {
            Some(sun) => {
                Some(address::of(sun, &header).ok_or_else(|| FormatError::Layout(layout.id.clone()))?)
            }
            None => None,
        };
        let mut talk = Talk::new();
        let select = talk.select(&files.application);
        let moving = Self {
            uid: uid.clone(),
            files: files.clone(),
            layouts: layout.versions().filter_map(files_of).collect(),
            keys: Arc::clone(keys),
            from: torn.from,
            header,
            header_bytes,
            address,
            talk,
            messaging: Messaging::Ev2,
            at: At::Application,
            versions: Vec::new(),
            todo: VecDeque::new(),
        };
        Ok((moving, select))
    }

    /// Goes on with what came of the last step.
    pub(in crate::card::medium) fn answer(&mut self, answer: &Answer) -> FileStep<MoveOutcome> {
        let heard = match self.talk.answer(answer) {
            Heard::More(command) => return FileStep::Transmit(command),
            Heard::Done(bytes) => bytes,
            Heard::Failed(Fault::Line | Fault::Forged) => return FileStep::Done(MoveOutcome::Cut),
            Heard::Failed(fault) => {
                tracing::debug!(at = ?self.at, ?fault, "the card refused its new keys");
                return FileStep::Done(MoveOutcome::Refused);
            }
        };
        match (self.at, heard.as_slice()) {
            (At::Application, _) if self.files.is_desfire() => {
                self.at = At::Chip;
                FileStep::Transmit(self.talk.command(Protection::Plain, GET_VERSION, &[], &[]))
            }
            (At::Application, _) => self.next_version(),
            (At::Chip, version) => match chip(version) {
                Some(Chip::Speaks(messaging)) => {
                    self.messaging = messaging;
                    self.next_version()
                }
                Some(Chip::TooOld) => FileStep::Done(MoveOutcome::Refused),
                None => FileStep::Done(MoveOutcome::Cut),
            },
            (At::Version, [version]) => {
                let version = KeyVersion(*version);
                if ![self.from, self.header.key_version].contains(&version) {
                    tracing::debug!(%version, "a key of the card is neither the old nor the new one");
                    return FileStep::Done(MoveOutcome::Refused);
                }
                self.versions.push(version);
                self.next_version()
            }
            (At::Version, _) => FileStep::Done(MoveOutcome::Cut),
            (At::Files, names) => match self.layout_with(names) {
                Some(layout) => self.named(layout),
                // Nothing that was ever given out.
                None => FileStep::Done(MoveOutcome::Refused),
            },
            (At::Deed, _) => self.next_deed(),
        }
    }

    fn next_version(&mut self) -> FileStep<MoveOutcome> {
        if let Some(role) = roles(&self.files).get(self.versions.len()) {
            self.at = At::Version;
            let number = number(&self.files, *role);
            return FileStep::Transmit(self.talk.command(Protection::Plain, KEY_VERSION, &[number], &[]));
        }
        self.todo = self.missing();
        self.next_deed()
    }

    /// The newest layout of which all files are there.
    fn layout_with(&self, names: &[u8]) -> Option<u8> {
        let all = |files: &[u8]| files.iter().all(|file| names.contains(file));
        self.layouts.iter().find(|(_, files)| all(files)).map(|(layout, _)| *layout)
    }

    /// The header names this layout.
    fn named(&mut self, layout: u8) -> FileStep<MoveOutcome> {
        self.header.layout = layout;
        match self.header.encode(&self.uid, &*self.keys) {
            Ok(bytes) => {
                self.header_bytes = bytes;
                self.next_deed()
            }
            Err(error) => {
                tracing::warn!(%error, "a move to newer keys stops");
                FileStep::Done(MoveOutcome::Cut)
            }
        }
    }

    fn missing(&self) -> VecDeque<Deed> {
        let new = self.header.key_version;
        let has: Vec<(KeyRole, KeyVersion)> =
            roles(&self.files).iter().copied().zip(self.versions.iter().copied()).collect();
        let of = |role| has.iter().find(|(known, _)| *known == role).map_or(new, |(_, version)| *version);
        let mut todo = VecDeque::new();
        if has.iter().any(|(_, version)| *version != new) {
            todo.extend([Deed::LogIn(KeyRole::Credit, of(KeyRole::Credit)), Deed::ClearHeader]);
            todo.push_back(Deed::LogIn(KeyRole::Manage, of(KeyRole::Manage)));
            todo.extend(self.address.as_ref().map(|_| Deed::Settings));
            let old = has.iter().filter(|(_, version)| *version != new);
            todo.extend(old.map(|(role, version)| Deed::ChangeKey(*role, *version)));
        }
        todo.push_back(Deed::LogIn(KeyRole::Credit, new));
        todo.extend(self.address.as_ref().map(|_| Deed::WriteAddress));
        if self.files.is_desfire() {
            todo.push_back(Deed::ListFiles);
        }
        todo.push_back(Deed::WriteHeader);
        todo
    }

    fn next_deed(&mut self) -> FileStep<MoveOutcome> {
        let Some(deed) = self.todo.pop_front() else { return FileStep::Done(MoveOutcome::Moved) };
        self.at = if matches!(deed, Deed::ListFiles) { At::Files } else { At::Deed };
        match self.command(deed) {
            Ok(command) => FileStep::Transmit(command),
            Err(error) => {
                tracing::warn!(%error, "a move to newer keys stops");
                FileStep::Done(MoveOutcome::Cut)
            }
        }
    }

    fn command(&mut self, deed: Deed) -> Result<Command, KeyError> {
        let (_, write) = read_and_write(&self.files);
        let file = self.files.header.file;
        let command = match deed {
            Deed::LogIn(role, version) => {
                let card = CardRef { uid: &self.uid, store: &self.header.store, version };
                let login = self.messaging.login(&*self.keys, card, role, number(&self.files, role))?;
                self.talk.log_in(login)
            }
            Deed::ClearHeader | Deed::WriteHeader => {
                let cleared = matches!(deed, Deed::ClearHeader);
                let bytes = if cleared { [0; HEADER_BYTES] } else { self.header_bytes };
                let span = span(&self.files.header, HEADER_BYTES);
                self.talk.command(Protection::Mac, write, &span, &bytes)
            }
            Deed::ListFiles => self.talk.command(Protection::Mac, LIST_FILES, &[], &[]),
            Deed::Settings => {
                let address = self.address.as_ref().zip(self.files.sun.as_ref());
                let settings =
                    address.map(|(address, sun)| address.settings(&self.files, sun)).unwrap_or_default();
                self.talk.command(Protection::Full, CHANGE_SETTINGS, &[file], &settings)
            }
            Deed::ChangeKey(role, earlier) => {
                let own = role == KeyRole::Manage;
                let number = number(&self.files, role);
                let version = self.header.key_version;
                let card = CardRef { uid: &self.uid, store: &self.header.store, version };
                let session = self.talk.session().ok_or(KeyError::NoSuchKey)?;
                let earlier = Earlier::Ours(earlier);
                let frame = session.change_key(&*self.keys, card, role, number, earlier, own)?;
                self.talk.change_key(&frame, own)
            }
            Deed::WriteAddress => {
                let bytes = self.address.as_ref().map(|address| address.bytes.clone()).unwrap_or_default();
                let span = span(&FilePlace { offset: 0, ..self.files.header }, bytes.len());
                self.talk.command(Protection::Mac, write, &span, &bytes)
            }
        };
        Ok(command)
    }
}

/// A layout's number and its files.
fn files_of(layout: &CardLayout) -> Option<(u8, Vec<u8>)> {
    let Places::Files(files) = &layout.places else { return None };
    let places = files.slots.iter().chain([&files.header]).map(|place| place.file);
    Some((layout.layout, places.chain(files.value.map(|place| place.file)).collect()))
}
