//! What is done to a card once it is known what is missing. What does not live here: the look
//! before it (`format`).

use std::collections::VecDeque;

use super::{At, FULL, FileFormatting, MAC, refused};
use crate::card::apdu::Command;
use crate::card::crypto::ev2::Protection;
use crate::card::keys::{CardRef, Earlier, KeyError, KeyRole};
use crate::card::medium::desfire::read::FileStep;
use crate::card::medium::desfire::write::COMMIT;
use crate::card::medium::desfire::{commits, number, read_and_write, span, value};
use crate::card::medium::preparing::PrepareOutcome;
use crate::card::record::{HEADER_BYTES, SLOT_BYTES};
use crate::protocols::cards::FilePlace;

/// CreateStdDataFile.
const CREATE_STANDARD: u8 = 0xCD;
/// CreateBackupDataFile.
const CREATE_BACKUP: u8 = 0xCB;
/// ChangeFileSettings.
pub(in crate::card::medium::desfire) const CHANGE_SETTINGS: u8 = 0x5F;

/// One thing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deed {
    /// Who may do what: on an NTAG 424, whose files are there, and on a DESFire that was begun with
    /// a layout before value files.
    SettingsOfRecord,
    SettingsOfHeader,
    WriteAddress,
    CreateHeader,
    CreateValue,
    CreateRecord,
    ChangeKey(KeyRole),
    LogIn,
    /// What does the value file hold?
    GetValue,
    /// From this to the record's.
    ChangeValue(i32),
    WriteRecord,
    Commit,
    WriteHeader,
}

impl FileFormatting {
    /// The session's own key is the last thing it changes.
    pub(super) fn missing(&self, files: &[u8]) -> VecDeque<Deed> {
        let missing = |file: u8| !files.contains(&file);
        let slot = self.files.slots.first().map(|place| place.file);
        let is_desfire = self.files.is_desfire();
        let mut todo = VecDeque::new();
        if is_desfire && missing(self.files.header.file) {
            todo.push_back(Deed::CreateHeader);
        }
        if self.files.value.is_some_and(|place| missing(place.file)) {
            // Before the record: where that is there and this is not, an earlier program began it.
            if !slot.is_none_or(missing) {
                todo.push_back(Deed::SettingsOfRecord);
            }
            todo.push_back(Deed::CreateValue);
        }
        if is_desfire && slot.is_none_or(missing) {
            todo.push_back(Deed::CreateRecord);
        }
        if !is_desfire {
            todo.extend([Deed::SettingsOfRecord, Deed::SettingsOfHeader]);
        }
        let change = self.roles.iter().filter(|role| self.version(**role) == 0);
        todo.extend(change.map(|role| Deed::ChangeKey(*role)));
        todo.push_back(Deed::LogIn);
        if self.address.is_some() {
            todo.push_back(Deed::WriteAddress);
        }
        if self.files.value.is_some() {
            todo.push_back(Deed::GetValue);
        }
        todo.push_back(Deed::WriteRecord);
        if commits(&self.files) {
            todo.push_back(Deed::Commit);
        }
        todo.push_back(Deed::WriteHeader);
        todo
    }

    /// The value file's number came: what is missing to the record's comes next.
    pub(super) fn value_read(&mut self, fen: &[u8]) -> FileStep<PrepareOutcome> {
        let Some(fen) = value::read(fen) else { return FileStep::Done(PrepareOutcome::Unfinished) };
        self.todo.push_front(Deed::ChangeValue(fen));
        self.next_deed()
    }

    pub(super) fn next_deed(&mut self) -> FileStep<PrepareOutcome> {
        let Some(deed) = self.todo.pop_front() else { return FileStep::Done(PrepareOutcome::Prepared) };
        self.at = if deed == Deed::GetValue { At::Value } else { At::Deed };
        let (_, write) = read_and_write(&self.files);
        let command = match deed {
            Deed::SettingsOfRecord => {
                let [low, high] = self.files.access.record.to_le_bytes();
                let file = self.files.slots.first().map_or(0, |place| place.file);
                self.talk.command(Protection::Full, CHANGE_SETTINGS, &[file], &[FULL, low, high])
            }
            Deed::SettingsOfHeader => {
                let [low, high] = self.files.access.header.to_le_bytes();
                let settings = match (&self.address, &self.files.sun) {
                    (Some(address), Some(sun)) => address.settings(&self.files, sun),
                    _ => vec![MAC, low, high],
                };
                let file = self.files.header.file;
                self.talk.command(Protection::Full, CHANGE_SETTINGS, &[file], &settings)
            }
            Deed::WriteAddress => {
                let bytes = self.address.as_ref().map(|address| address.bytes.clone()).unwrap_or_default();
                let span = span(&FilePlace { offset: 0, ..self.files.header }, bytes.len());
                self.talk.command(Protection::Mac, write, &span, &bytes)
            }
            Deed::CreateHeader => {
                let settings = created(&self.files.header, MAC, self.files.access.header, HEADER_BYTES);
                self.talk.command(Protection::Mac, CREATE_STANDARD, &settings, &[])
            }
            Deed::CreateValue | Deed::GetValue | Deed::ChangeValue(_) => {
                let Some(place) = self.files.value else { return self.next_deed() };
                match deed {
                    Deed::CreateValue => {
                        let settings = value::created(&place, FULL);
                        self.talk.command(Protection::Mac, value::CREATE, &settings, &[])
                    }
                    Deed::ChangeValue(from) => {
                        let Some((ins, amount)) = value::change(from, self.fen) else {
                            return self.next_deed();
                        };
                        self.talk.command(Protection::Full, ins, &[place.file], &amount)
                    }
                    _ => self.talk.command(Protection::Full, value::GET, &[place.file], &[]),
                }
            }
            Deed::CreateRecord => {
                let Some(place) = self.files.slots.first() else {
                    return FileStep::Done(PrepareOutcome::NotBlank);
                };
                let settings = created(place, FULL, self.files.access.record, SLOT_BYTES);
                self.talk.command(Protection::Mac, CREATE_BACKUP, &settings, &[])
            }
            Deed::ChangeKey(role) => match self.change_key(role) {
                Ok(command) => command,
                Err(error) => return refused(&error),
            },
            Deed::LogIn => match self.login(KeyRole::Credit) {
                Ok(login) => self.talk.log_in(login),
                Err(error) => return refused(&error),
            },
            Deed::WriteRecord => {
                let Some(place) = self.files.slots.first() else {
                    return FileStep::Done(PrepareOutcome::NotBlank);
                };
                self.talk.command(Protection::Full, write, &span(place, SLOT_BYTES), &self.slot_bytes)
            }
            Deed::Commit => self.talk.command(Protection::Mac, COMMIT, &[], &[]),
            Deed::WriteHeader => {
                let span = span(&self.files.header, HEADER_BYTES);
                self.talk.command(Protection::Mac, write, &span, &self.header_bytes)
            }
        };
        FileStep::Transmit(command)
    }

    fn change_key(&mut self, role: KeyRole) -> Result<Command, KeyError> {
        let own = role == KeyRole::Manage;
        let number = number(&self.files, role);
        let card = CardRef { uid: &self.uid, store: &self.header.store, version: self.header.key_version };
        let Some(session) = self.talk.session() else { return Err(KeyError::NoSuchKey) };
        let frame = session.change_key(&*self.keys, card, role, number, Earlier::Factory, own)?;
        Ok(self.talk.change_key(&frame, own))
    }
}

/// File, communication settings, access rights low byte first, size.
fn created(place: &FilePlace, protection: u8, access: u16, length: usize) -> [u8; 7] {
    let [low, high] = access.to_le_bytes();
    let [l0, l1, l2, ..] = length.to_le_bytes();
    [place.file, protection, low, high, l0, l1, l2]
}
