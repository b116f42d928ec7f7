//! Reading a CPU card: application, serial number, header, external authentication, slots and
//! balance, and the proof of a transaction whose answer was lost. It writes nothing, and it
//! authenticates only where the header proves that the card takes our key.

use std::sync::Arc;

use super::{Heard, heard, read};
use crate::card::apdu::Command;
use crate::card::keys::purse::Serial;
use crate::card::keys::till_purse::{Leaves, OpenPurse};
use crate::card::keys::{KeyStore, KeyVersion};
use crate::card::medium::desfire::FileStep;
use crate::card::medium::read::{Finding, Opened, header_of, no_key};
use crate::card::probe::Answer;
use crate::card::record::{Current, HEADER_BYTES, Header, Pair, SLOT_BYTES, Slot, SlotFault, choose, decode};
use crate::card::verdict::Refusal;
use crate::ident::{CardUid, StoreId};
use crate::protocols::cards::{CardLayout, PursePlaces};

/// Bytes of the public file, and where the right half of the serial number stands in it
/// (JR/T 0025, file 0015).
const PUBLIC_BYTES: u8 = 30;
const SERIAL_AT: usize = 12;
/// The authentication key is locked.
const KEY_LOCKED: u16 = 0x6983;

/// Whose card it is to become; `again`: what is on it is ours to overwrite.
#[derive(Debug)]
pub(super) struct Preparing {
    pub(super) store: StoreId,
    pub(super) version: KeyVersion,
    pub(super) again: bool,
}

/// A card being read.
#[derive(Debug)]
pub(in crate::card::medium) struct PurseReading {
    uid: CardUid,
    layout: Arc<CardLayout>,
    purse: PursePlaces,
    keys: Arc<dyn KeyStore>,
    at: At,
    /// Prepared, not read: an empty header is as it should be.
    pub(super) preparing: Option<Preparing>,
    pub(super) serial: Serial,
    header: Option<Header>,
    pub(super) slots: Vec<u8>,
    pub(super) balance: u32,
    found: Option<Finding>,
}

#[derive(Debug, Clone, Copy)]
enum At {
    Select,
    Public,
    Header,
    Challenge,
    LogIn,
    Slots,
    Balance,
    /// The proof, by the card's counter after the transaction; else by the one before it.
    Prove(OpenPurse, Leaves, bool),
}

impl PurseReading {
    /// Begins.
    pub(in crate::card::medium) fn start(
        uid: CardUid,
        layout: Arc<CardLayout>,
        purse: PursePlaces,
        keys: Arc<dyn KeyStore>,
    ) -> (Self, Command) {
        let select = Command::new([0x00, 0xA4, 0x04, 0x00]).with_data(&purse.application).expecting(0);
        let reading = Self {
            uid,
            layout,
            purse,
            keys,
            at: At::Select,
            preparing: None,
            serial: Serial::default(),
            header: None,
            slots: Vec::new(),
            balance: 0,
            found: None,
        };
        (reading, select)
    }

    /// Goes on with what came of the last step.
    pub(in crate::card::medium) fn answer(&mut self, answer: &Answer) -> FileStep<Finding> {
        let heard = heard(answer);
        if let Heard::More(command) = heard {
            return FileStep::Transmit(command);
        }
        match (self.at, heard) {
            (At::Prove(open, leaves, is_first), heard) => self.proof(open, leaves, is_first, heard),
            (_, Heard::Lost | Heard::More(_)) => FileStep::Done(Finding::ReaderError),
            (At::Select, Heard::Ok(_)) => self.ask(At::Public, read(self.purse.public, 0, PUBLIC_BYTES)),
            (At::Public, Heard::Ok(bytes)) => {
                let serial = bytes.get(SERIAL_AT..).and_then(|bytes| bytes.first_chunk::<8>());
                let Some(serial) = serial else { return refused(Refusal::NotAMemberCard) };
                self.serial = *serial;
                self.ask(At::Header, read(self.purse.header, 0, bytes_of(HEADER_BYTES)))
            }
            (At::Header, Heard::Ok(bytes)) => match bytes.as_slice().try_into() {
                Ok(bytes) => self.header_read(bytes),
                Err(_) => refused(Refusal::NotAMemberCard),
            },
            (At::Challenge, Heard::Ok(bytes)) => match bytes.as_slice().try_into() {
                Ok(challenge) => self.log_in(&challenge),
                Err(_) => FileStep::Done(Finding::ReaderError),
            },
            (At::LogIn, Heard::Ok(_)) => {
                let [a, b] = self.purse.slots;
                self.ask(At::Slots, read(self.purse.record, 0, a.max(b).saturating_add(bytes_of(SLOT_BYTES))))
            }
            // 63Cx: so many tries left. Its header said that it would take our key.
            (At::LogIn, Heard::Status(0x63C0..=0x63CF | KEY_LOCKED)) => refused(Refusal::WrongKey),
            (At::Slots, Heard::Ok(bytes)) => {
                self.slots = bytes;
                self.ask(At::Balance, Command::new([0x80, 0x5C, 0x00, 0x02]).expecting(4))
            }
            (At::Balance, Heard::Ok(bytes)) => match bytes.as_slice().try_into() {
                Ok(balance) => {
                    self.balance = u32::from_be_bytes(balance);
                    self.found()
                }
                Err(_) => FileStep::Done(Finding::ReaderError),
            },
            (At::Select | At::Public | At::Header, Heard::Status(_)) => refused(Refusal::NotAMemberCard),
            // The header is ours, and its files are not as we make them.
            (At::Slots | At::Balance, Heard::Status(_)) => refused(Refusal::DamagedRecord),
            (At::Challenge | At::LogIn, Heard::Status(_)) => FileStep::Done(Finding::ReaderError),
        }
    }

    fn ask(&mut self, at: At, command: Command) -> FileStep<Finding> {
        self.at = at;
        FileStep::Transmit(command)
    }

    fn header_read(&mut self, bytes: [u8; HEADER_BYTES]) -> FileStep<Finding> {
        let header = match header_of(&bytes, &self.layout, &self.uid, &*self.keys) {
            // Half of a header of ours, or a whole one.
            _ if self.preparing.as_ref().is_some_and(|preparing| preparing.again) => None,
            Ok(header) => Some(header),
            Err(Refusal::Unformatted) if self.preparing.is_some() => None,
            Err(refusal) => return refused(refusal),
        };
        self.header = header;
        self.ask(At::Challenge, Command::new([0x00, 0x84, 0x00, 0x00]).expecting(8))
    }

    fn log_in(&mut self, challenge: &[u8; 8]) -> FileStep<Finding> {
        let of_header = self.header.as_ref().map(|header| (header.store.clone(), header.key_version));
        let prepared = self.preparing.as_ref().map(|with| (with.store.clone(), with.version));
        let Some((store, version)) = prepared.or(of_header) else {
            return FileStep::Done(Finding::ReaderError);
        };
        let number = self.purse.keys.maintain;
        match self.keys.external_authentication(&store, &self.serial, version, number, challenge) {
            Ok(command) => self.ask(At::LogIn, command.counted_by_the_card()),
            Err(error) => refused(no_key(&error)),
        }
    }

    fn found(&mut self) -> FileStep<Finding> {
        let Some(header) = self.header.take() else {
            return refused(Refusal::Unformatted);
        };
        let slot = |at: u8| {
            let bytes = self.slots.get(usize::from(at)..).and_then(|bytes| bytes.first_chunk::<SLOT_BYTES>());
            bytes.map_or(Slot::Invalid(SlotFault::Unreadable), |bytes| {
                decode(bytes, &self.uid, &header.store, &*self.keys).under(header.key_version)
            })
        };
        let [a, b] = self.purse.slots;
        let finding = match settled(choose(slot(a), slot(b)), self.balance) {
            Pair::Current(current) => Finding::Opened(Box::new(Opened { header, current: *current })),
            Pair::Empty => Finding::Refused(Refusal::Unformatted),
            Pair::Damaged => Finding::Refused(Refusal::DamagedRecord),
            Pair::Forked { .. } => Finding::Refused(Refusal::RecordConflict),
            Pair::Unknown(SlotFault::Format(_)) => Finding::Refused(Refusal::UnknownFormat),
            Pair::Unknown(_) => Finding::Refused(Refusal::KeyMissing),
        };
        let Some((open, leaves)) = self.keys.purse().and_then(|purse| purse.open(&self.uid)) else {
            return FileStep::Done(finding);
        };
        let is_ours =
            matches!(&finding, Finding::Opened(opened) if Leaves::from(&opened.current.record) == leaves);
        if is_ours && open.balance_after == self.balance {
            self.found = Some(finding);
            return self.prove(open, leaves, true);
        }
        // The purse did not move, or has gone on elsewhere since.
        self.keys.purse().inspect(|purse| purse.forget(&self.uid, leaves));
        FileStep::Done(finding)
    }

    /// GET TRANSACTION PROVE. Cards differ in which counter names a transaction: the one after
    /// it is asked first, which none has given to an earlier one.
    fn prove(&mut self, open: OpenPurse, leaves: Leaves, is_first: bool) -> FileStep<Finding> {
        let sequence = if is_first { open.sequence.wrapping_add(1) } else { open.sequence };
        let prove =
            Command::new([0x80, 0x5A, 0x00, open.kind]).with_data(&sequence.to_be_bytes()).expecting(8);
        self.ask(At::Prove(open, leaves, is_first), prove)
    }

    /// The balance says that the money moved; the proof says whether that is true.
    fn proof(&mut self, open: OpenPurse, leaves: Leaves, is_first: bool, heard: Heard) -> FileStep<Finding> {
        let purse = self.keys.purse();
        match heard {
            Heard::Lost | Heard::More(_) => return FileStep::Done(Finding::ReaderError),
            Heard::Status(_) if is_first => return self.prove(open, leaves, false),
            Heard::Status(status) => {
                tracing::warn!(status, "the card keeps no proof of its last transaction");
                purse.inspect(|purse| purse.unproven(&self.uid, leaves));
            }
            Heard::Ok(bytes) => match <[u8; 8]>::try_from(bytes.as_slice()) {
                Ok([m0, m1, m2, m3, t0, t1, t2, t3]) => {
                    purse.inspect(|purse| {
                        purse.signed(&self.uid, [t0, t1, t2, t3], Some([m0, m1, m2, m3]));
                    });
                }
                Err(_) => {
                    purse.inspect(|purse| purse.unproven(&self.uid, leaves));
                }
            },
        }
        FileStep::Done(self.found.take().unwrap_or(Finding::ReaderError))
    }
}

/// The record is the one that has the purse's money: a later one was written, and the purse did
/// not follow. Money that neither knows moved past this program.
fn settled(pair: Pair, balance: u32) -> Pair {
    let Pair::Current(current) = pair else { return pair };
    let Current { record, slot, before, torn } = *current;
    if record.balance_fen() == u64::from(balance) {
        return Pair::Current(Box::new(Current { record, slot, before, torn }));
    }
    match before {
        Some(before) if before.balance_fen() == u64::from(balance) => {
            let (record, slot) = (before, slot.other());
            Pair::Current(Box::new(Current { record, slot, before: None, torn: true }))
        }
        _ => Pair::Forked { counter: record.counter },
    }
}

fn bytes_of(length: usize) -> u8 {
    u8::try_from(length).unwrap_or(u8::MAX)
}

fn refused(refusal: Refusal) -> FileStep<Finding> {
    FileStep::Done(Finding::Refused(refusal))
}
