//! Writing a record into files: the card is read with the key that may write, must show the
//! record expected, takes money and record together and, where it keeps transactions, commits
//! both in one. What the card says of it carries its MAC, so that nothing needs to be read back.
//!
//! ```text
//!  UID ─ read (debit, or credit) ─ same record? ─ Debit or Credit ─ WriteData ─ CommitTransaction ─► written
//!                       up to here nothing was written ──┘              └── lost: unknown, the next tap settles it
//! ```
//! The debit key does where a value file holds the money and none is put on.

use std::sync::Arc;

use super::read::{FileReading, FileStep, Wish};
use super::talk::Heard;
use super::{commits, read_and_write, span, value};
use crate::card::apdu::Command;
use crate::card::crypto::ev2::Protection;
use crate::card::keys::KeyStore;
use crate::card::medium::read::Finding;
use crate::card::medium::write::{WriteOutcome, follows};
use crate::card::probe::Answer;
use crate::card::record::{MemberRecord, SLOT_BYTES, Which, encode};
use crate::card::verdict::Refusal;
use crate::ident::CardUid;
use crate::protocols::cards::{CardLayout, FilePlaces};

/// CommitTransaction.
pub(super) const COMMIT: u8 = 0xC7;

/// A write under way, once the UID was seen.
#[derive(Debug)]
pub(in crate::card::medium) struct FileWriting {
    uid: CardUid,
    keys: Arc<dyn KeyStore>,
    expected: MemberRecord,
    new: MemberRecord,
    reading: FileReading,
    at: At,
}

#[derive(Debug, Clone, Copy)]
enum At {
    Reading,
    /// Of a card with one of these files.
    Value(Which),
    Write,
    Commit,
}

impl FileWriting {
    /// Begins to put `new` in place of `expected`.
    pub(in crate::card::medium) fn start(
        uid: CardUid,
        layout: Arc<CardLayout>,
        files: FilePlaces,
        keys: Arc<dyn KeyStore>,
        expected: MemberRecord,
        new: MemberRecord,
    ) -> (Self, Command) {
        let wish = if new.balance_fen() > expected.balance_fen() { Wish::Give } else { Wish::Take };
        let (reading, select) = FileReading::start(uid.clone(), layout, files, Arc::clone(&keys), wish);
        (Self { uid, keys, expected, new, reading, at: At::Reading }, select)
    }

    /// Goes on with what came of the last step.
    pub(in crate::card::medium) fn answer(&mut self, answer: &Answer) -> FileStep<WriteOutcome> {
        if let At::Reading = self.at {
            return match self.reading.answer(answer) {
                FileStep::Transmit(command) => FileStep::Transmit(command),
                FileStep::Done(Finding::ReaderError) => FileStep::Done(WriteOutcome::NotWritten),
                FileStep::Done(Finding::Refused(refusal)) => FileStep::Done(WriteOutcome::Refused(refusal)),
                FileStep::Done(Finding::Opened(opened)) => {
                    if opened.current.record == self.expected && follows(&self.expected, &self.new) {
                        self.value(opened.current.slot)
                    } else {
                        FileStep::Done(WriteOutcome::Changed)
                    }
                }
            };
        }
        match (self.reading.talk.answer(answer), self.at) {
            (Heard::More(command), _) => FileStep::Transmit(command),
            (Heard::Done(_), At::Value(current)) => self.write(current),
            (Heard::Done(_), At::Write) if commits(&self.reading.files) => {
                self.at = At::Commit;
                FileStep::Transmit(self.reading.talk.command(Protection::Mac, COMMIT, &[], &[]))
            }
            (Heard::Done(_), _) => FileStep::Done(WriteOutcome::Written),
            // Not committed, and never will be: the session is over.
            (Heard::Failed(_), At::Value(_)) => FileStep::Done(WriteOutcome::NotWritten),
            (Heard::Failed(_), At::Write) if commits(&self.reading.files) => {
                FileStep::Done(WriteOutcome::NotWritten)
            }
            (Heard::Failed(_), _) => FileStep::Done(WriteOutcome::Unknown),
        }
    }

    /// First the money, then the record that says it: neither is there before both are.
    fn value(&mut self, current: Which) -> FileStep<WriteOutcome> {
        let Some(place) = self.reading.files.value else { return self.write(current) };
        let (Some(from), Some(to)) = (value::of(&self.expected), value::of(&self.new)) else {
            tracing::error!("a record with more money than a card can hold was not written");
            return FileStep::Done(WriteOutcome::NotWritten);
        };
        let Some((ins, amount)) = value::change(from, to) else { return self.write(current) };
        self.at = At::Value(current);
        FileStep::Transmit(self.reading.talk.command(Protection::Full, ins, &[place.file], &amount))
    }

    fn write(&mut self, current: Which) -> FileStep<WriteOutcome> {
        let bytes = match encode(&self.new, &self.uid, &*self.keys) {
            Ok(bytes) => bytes,
            Err(_) => return FileStep::Done(WriteOutcome::Refused(Refusal::KeyMissing)),
        };
        // A backup file keeps the old record by itself; else the other slot is written.
        let place = match (self.reading.files.slots.as_slice(), current) {
            ([only], _) | ([_, only], Which::A) | ([only, _], Which::B) => only,
            _ => return FileStep::Done(WriteOutcome::NotWritten),
        };
        let (_, write) = read_and_write(&self.reading.files);
        self.at = At::Write;
        let span = span(place, SLOT_BYTES);
        FileStep::Transmit(self.reading.talk.command(Protection::Full, write, &span, &bytes))
    }
}
