//! Writing the older slot of a contact memory card: the record must be the one that the caller
//! last saw, the tries are counted before the code is presented, and what was written is read back.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{ContactReading, Part, write_of};
use crate::card::apdu::{Command, Response};
use crate::card::keys::{CardRef, KeyStore};
use crate::card::medium::desfire::FileStep;
use crate::card::medium::place;
use crate::card::medium::read::{Finding, Opened, no_key};
use crate::card::medium::write::{WriteOutcome, encoded, follows};
use crate::card::probe::Answer;
use crate::card::record::{Header, MemberRecord};
use crate::card::sle4442::{self, HEAD_BYTES, Presented};
use crate::card::verdict::Refusal;
use crate::ident::CardUid;
use crate::protocols::cards::CardLayout;

/// A card being written.
#[derive(Debug)]
pub(in crate::card::medium) struct ContactWriting {
    uid: CardUid,
    layout: Arc<CardLayout>,
    keys: Arc<dyn KeyStore>,
    expected: MemberRecord,
    new: MemberRecord,
    at: At,
    writes: VecDeque<Part>,
    /// What must stand in the slot at the end.
    whole: Part,
}

#[derive(Debug)]
enum At {
    Reading(ContactReading),
    Tries(Header),
    Code,
    /// The code was wrong. Or is the card gone?
    Selecting,
    Accused,
    Write,
    Verify,
}

impl ContactWriting {
    /// Begins; the command to send.
    pub(in crate::card::medium) fn start(
        uid: CardUid,
        layout: Arc<CardLayout>,
        keys: Arc<dyn KeyStore>,
        expected: MemberRecord,
        new: MemberRecord,
    ) -> (Self, Command) {
        let (reading, first) = ContactReading::start(uid.clone(), Arc::clone(&layout), Arc::clone(&keys));
        let whole = (place::header(&layout.places), Vec::new());
        let at = At::Reading(reading);
        (Self { uid, layout, keys, expected, new, at, writes: VecDeque::new(), whole }, first)
    }

    /// Goes on with what came of the last command.
    pub(in crate::card::medium) fn answer(&mut self, answer: &Answer) -> FileStep<WriteOutcome> {
        if let At::Reading(reading) = &mut self.at {
            return match reading.answer(answer) {
                FileStep::Transmit(command) => FileStep::Transmit(command),
                FileStep::Done(Finding::Opened(opened)) => self.begin(&opened),
                FileStep::Done(Finding::Refused(refusal)) => FileStep::Done(WriteOutcome::Refused(refusal)),
                FileStep::Done(Finding::ReaderError) => FileStep::Done(WriteOutcome::NotWritten),
            };
        }
        let Answer::Response(response) = answer else { return FileStep::Done(self.cut()) };
        match &self.at {
            At::Tries(header) => {
                let header = header.clone();
                self.present(&header, response)
            }
            At::Code => match sle4442::presented(response) {
                Presented::Right => self.go_on(),
                Presented::Wrong => self.ask(At::Selecting, sle4442::select()),
                Presented::Unheard => FileStep::Done(WriteOutcome::NotWritten),
            },
            At::Selecting => self.ask(At::Accused, sle4442::read(0, HEAD_BYTES)),
            At::Accused => {
                let head = sle4442::bytes_of(response, HEAD_BYTES).map(sle4442::uid_of);
                let there = matches!(head, Some(Ok(uid)) if uid == self.uid);
                let wrong = WriteOutcome::Refused(Refusal::WrongKey);
                FileStep::Done(if there { wrong } else { WriteOutcome::NotWritten })
            }
            At::Write if response.ok().is_some() => self.go_on(),
            At::Verify if sle4442::bytes_of(response, self.whole.0.len) == Some(&self.whole.1[..]) => {
                FileStep::Done(WriteOutcome::Written)
            }
            At::Reading(_) | At::Write | At::Verify => FileStep::Done(WriteOutcome::Unknown),
        }
    }

    fn begin(&mut self, opened: &Opened) -> FileStep<WriteOutcome> {
        if opened.current.record != self.expected || !follows(&self.expected, &self.new) {
            return FileStep::Done(WriteOutcome::Changed);
        }
        let bytes = match encoded(&self.new, &self.uid, &*self.keys) {
            Ok(bytes) => bytes,
            Err(outcome) => return FileStep::Done(outcome),
        };
        let target = opened.current.slot.other();
        self.writes = place::slot_writes(&self.layout.places, target, &bytes).into();
        self.whole = (place::contact_slot(&self.layout.places, target), bytes.to_vec());
        self.ask(At::Tries(opened.header.clone()), sle4442::error_counter())
    }

    fn present(&mut self, header: &Header, response: &Response) -> FileStep<WriteOutcome> {
        let Some(left) = sle4442::tries_left(response) else {
            return FileStep::Done(WriteOutcome::NotWritten);
        };
        let card = CardRef { uid: &self.uid, store: &header.store, version: header.key_version };
        match self.keys.psc(card, left) {
            Ok(code) => self.ask(At::Code, code),
            Err(error) => FileStep::Done(WriteOutcome::Refused(no_key(&error))),
        }
    }

    fn go_on(&mut self) -> FileStep<WriteOutcome> {
        match self.writes.pop_front() {
            Some(part) => self.ask(At::Write, write_of(&part)),
            None => self.ask(At::Verify, self.whole.0.read()),
        }
    }

    /// From the first write on nobody knows.
    fn cut(&self) -> WriteOutcome {
        match self.at {
            At::Write | At::Verify => WriteOutcome::Unknown,
            _ => WriteOutcome::NotWritten,
        }
    }

    fn ask(&mut self, at: At, command: Command) -> FileStep<WriteOutcome> {
        self.at = at;
        FileStep::Transmit(command)
    }
}
