//! Writing a CPU card's record: the other slot first, which has no effect while the purse's
//! balance is not its own; then, where money moves, the purse. A load needs headquarters and is
//! refused before anything is written where there is no way to it.

use std::sync::Arc;

use super::{Heard, PurseReading, heard, read, update};
use crate::card::apdu::Command;
use crate::card::crypto::pboc::{LOAD_PURSE, Moment, Terms};
use crate::card::keys::purse::{Opening, Purchase};
use crate::card::keys::till_purse::{Leaves, Load, TillPurse, Word};
use crate::card::keys::{KeyError, KeyStore, KeyVersion};
use crate::card::medium::desfire::FileStep;
use crate::card::medium::read::{Finding, Opened, no_key};
use crate::card::medium::write::{WriteOutcome, follows};
use crate::card::probe::Answer;
use crate::card::record::{MemberRecord, SLOT_BYTES, Which, encode};
use crate::ident::CardUid;
use crate::protocols::cards::{CardLayout, PursePlaces};

/// A write under way, once the UID was seen.
#[derive(Debug)]
pub(in crate::card::medium) struct PurseWriting {
    uid: CardUid,
    purse: PursePlaces,
    keys: Arc<dyn KeyStore>,
    expected: MemberRecord,
    new: MemberRecord,
    reading: PurseReading,
    bytes: Vec<u8>,
    offset: u8,
    money: Money,
    terminal: [u8; 6],
    at: At,
}

/// What the purse does, in fen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Money {
    Stays,
    Out(u32),
    In(u32),
}

#[derive(Debug, Clone, Copy)]
enum At {
    Reading,
    Slot,
    Verify,
    Opening,
    /// DEBIT or CREDIT was sent.
    Moving,
}

impl PurseWriting {
    /// Begins to put `new` in place of `expected`.
    pub(in crate::card::medium) fn start(
        uid: CardUid,
        layout: Arc<CardLayout>,
        purse: PursePlaces,
        keys: Arc<dyn KeyStore>,
        expected: MemberRecord,
        new: MemberRecord,
    ) -> (Self, Command) {
        let (reading, select) = PurseReading::start(uid.clone(), layout, purse.clone(), Arc::clone(&keys));
        let (money, terminal) = (Money::Stays, [0; 6]);
        let writing = Self {
            uid,
            purse,
            keys,
            expected,
            new,
            reading,
            bytes: Vec::new(),
            offset: 0,
            money,
            terminal,
            at: At::Reading,
        };
        (writing, select)
    }

    /// Goes on with what came of the last step.
    pub(in crate::card::medium) fn answer(&mut self, answer: &Answer) -> FileStep<WriteOutcome> {
        if let At::Reading = self.at {
            return match self.reading.answer(answer) {
                FileStep::Transmit(command) => FileStep::Transmit(command),
                FileStep::Done(Finding::ReaderError) => FileStep::Done(WriteOutcome::NotWritten),
                FileStep::Done(Finding::Refused(refusal)) => FileStep::Done(WriteOutcome::Refused(refusal)),
                FileStep::Done(Finding::Opened(opened)) => self.begin(&opened),
            };
        }
        match (self.at, heard(answer)) {
            (_, Heard::More(command)) => FileStep::Transmit(command),
            (At::Slot, Heard::Ok(_)) => {
                self.at = At::Verify;
                let length = u8::try_from(SLOT_BYTES).unwrap_or(u8::MAX);
                FileStep::Transmit(read(self.purse.record, self.offset, length))
            }
            (At::Verify, Heard::Ok(bytes)) if bytes == self.bytes => self.move_money(),
            (At::Opening, Heard::Ok(bytes)) => self.opened(&bytes),
            (At::Moving, Heard::Ok(bytes)) => FileStep::Done(self.moved(&bytes)),
            // Without the purse's own transaction a record with other money is none.
            (At::Slot | At::Verify | At::Opening, _) if self.money != Money::Stays => {
                FileStep::Done(WriteOutcome::NotWritten)
            }
            _ => FileStep::Done(WriteOutcome::Unknown),
        }
    }

    fn begin(&mut self, opened: &Opened) -> FileStep<WriteOutcome> {
        if opened.current.record != self.expected || !follows(&self.expected, &self.new) {
            return FileStep::Done(WriteOutcome::Changed);
        }
        match self.prepare(opened) {
            Ok(command) => {
                self.at = At::Slot;
                FileStep::Transmit(command)
            }
            Err(error) => FileStep::Done(WriteOutcome::Refused(no_key(&error))),
        }
    }

    /// Everything that may be refused, before anything is written.
    fn prepare(&mut self, opened: &Opened) -> Result<Command, KeyError> {
        let (before, after) = (self.expected.balance_fen(), self.new.balance_fen());
        // A purse of JR/T 0025 counts in 32 bits.
        let amount = u32::try_from(before.abs_diff(after)).map_err(|_| KeyError::NoSuchKey)?;
        self.money = match before.cmp(&after) {
            std::cmp::Ordering::Equal => Money::Stays,
            std::cmp::Ordering::Greater => Money::Out(amount),
            std::cmp::Ordering::Less => Money::In(amount),
        };
        if self.money != Money::Stays {
            let purse = self.till()?;
            match self.money {
                Money::In(_) if !purse.can_load() => return Err(KeyError::NeedsHeadquarters),
                Money::Out(_) if purse.is_spared() => return Err(KeyError::SamSpared),
                _ => {}
            }
            self.terminal = purse.terminal()?;
        }
        let bytes = encode(&self.new, &self.uid, &*self.keys).map_err(|_| KeyError::NoSuchKey)?;
        let [a, b] = self.purse.slots;
        self.offset = if opened.current.slot == Which::A { b } else { a };
        self.bytes = bytes.to_vec();
        Ok(update(self.purse.record, self.offset, &self.bytes))
    }

    fn till(&self) -> Result<&TillPurse, KeyError> {
        self.keys.purse().ok_or(KeyError::NoTerminal)
    }

    /// INITIALIZE FOR PURCHASE, or FOR LOAD.
    fn move_money(&mut self) -> FileStep<WriteOutcome> {
        let (p1, number, amount, length) = match self.money {
            Money::Stays => return FileStep::Done(WriteOutcome::Written),
            Money::Out(amount) => (0x01, self.purse.keys.purchase, amount, 15),
            Money::In(amount) => (0x00, self.purse.keys.load, amount, 16),
        };
        let data = [&[number], &amount.to_be_bytes()[..], &self.terminal].concat();
        self.at = At::Opening;
        FileStep::Transmit(Command::new([0x80, 0x50, p1, 0x02]).with_data(&data).expecting(length))
    }

    fn opened(&mut self, bytes: &[u8]) -> FileStep<WriteOutcome> {
        let next = match self.money {
            Money::Out(amount) => {
                bytes.try_into().ok().map(|bytes| self.debit(&Opening::parse(bytes), amount))
            }
            Money::In(amount) => bytes.try_into().ok().map(|bytes| self.credit(bytes, amount)),
            Money::Stays => None,
        };
        match next {
            Some(Ok(Some(command))) => {
                self.at = At::Moving;
                FileStep::Transmit(command)
            }
            Some(Err(error)) => {
                tracing::warn!(%error, "the purse's transaction was not approved");
                FileStep::Done(WriteOutcome::Refused(no_key(&error)))
            }
            // Not the money that the record tells, or no answer of a purse.
            Some(Ok(None)) | None => FileStep::Done(WriteOutcome::NotWritten),
        }
    }

    fn debit(&self, opening: &Opening, amount: u32) -> Result<Option<Command>, KeyError> {
        if u64::from(opening.balance) != self.expected.balance_fen() {
            return Ok(None);
        }
        let till = self.till()?;
        let moment = till.moment();
        let store = &self.expected.issuing_store;
        let purchase = Purchase { store, serial: self.reading.serial, opening: *opening, amount, moment };
        let (sequence, mac1) = till.approve(&self.uid, Leaves::from(&self.new), &purchase)?;
        let data = [&sequence.to_be_bytes()[..], &moment.date, &moment.time, &mac1].concat();
        Ok(Some(Command::new([0x80, 0x54, 0x01, 0x00]).with_data(&data).expecting(8)))
    }

    /// Balance 4, online sequence 2, key version, algorithm, random 4, MAC1 4.
    fn credit(&self, bytes: &[u8; 16], amount: u32) -> Result<Option<Command>, KeyError> {
        let [b0, b1, b2, b3, s0, s1, version, algorithm, r0, r1, r2, r3, mac1 @ ..] = *bytes;
        let balance = u32::from_be_bytes([b0, b1, b2, b3]);
        if u64::from(balance) != self.expected.balance_fen() {
            return Ok(None);
        }
        let till = self.till()?;
        let moment: Moment = till.moment();
        let load = Load {
            store: self.expected.issuing_store.clone(),
            serial: self.reading.serial,
            balance,
            online_sequence: u16::from_be_bytes([s0, s1]),
            key_version: KeyVersion(version),
            random: [r0, r1, r2, r3],
            mac1,
            terms: Terms { amount, kind: LOAD_PURSE, terminal: self.terminal, moment },
        };
        let mac2 = till.load(&self.uid, Leaves::from(&self.new), &load, algorithm)?;
        let data = [&moment.date[..], &moment.time, &mac2].concat();
        Ok(Some(Command::new([0x80, 0x52, 0x00, 0x00]).with_data(&data).expecting(4)))
    }

    fn moved(&self, bytes: &[u8]) -> WriteOutcome {
        let (tac, mac2) = match *bytes {
            [a, b, c, d] if matches!(self.money, Money::In(_)) => ([a, b, c, d], None),
            [a, b, c, d, e, f, g, h] if matches!(self.money, Money::Out(_)) => {
                ([a, b, c, d], Some([e, f, g, h]))
            }
            _ => return WriteOutcome::Unknown,
        };
        match self.till().map(|till| till.signed(&self.uid, tac, mac2)) {
            Ok(Word::Believed) => WriteOutcome::Written,
            Ok(Word::Refuted) => WriteOutcome::Forged,
            // The SAM left in that moment: what is known is kept with the counterfoil.
            Ok(Word::Unproven | Word::Open) | Err(_) => WriteOutcome::Unknown,
        }
    }
}
