//! Giving out a CPU card: its maker has made application, files, keys and an empty purse; the
//! store writes the first record, and the header last. A card that was cut off counts as empty.

use std::sync::Arc;

use super::read::Preparing;
use super::{Heard, PurseReading, heard, update};
use crate::card::apdu::Command;
use crate::card::keys::{KeyError, KeyStore, KeyVersion};
use crate::card::medium::desfire::FileStep;
use crate::card::medium::format::FormatError;
use crate::card::medium::preparing::PrepareOutcome;
use crate::card::medium::read::Finding;
use crate::card::probe::Answer;
use crate::card::record::{Header, MemberRecord, SLOT_BYTES, encode};
use crate::card::verdict::Refusal;
use crate::ident::CardUid;
use crate::protocols::cards::{CardLayout, PursePlaces};

/// A card being given out.
#[derive(Debug)]
pub(in crate::card::medium) struct PurseFormatting {
    reading: PurseReading,
    /// Slot B, slot A, header.
    writes: Vec<Command>,
    again: bool,
    begun: bool,
}

impl PurseFormatting {
    /// Begins. `again`: what is on the card is ours to overwrite.
    pub(in crate::card::medium) fn start(
        uid: CardUid,
        layout: &CardLayout,
        purse: PursePlaces,
        record: &MemberRecord,
        keys: Arc<dyn KeyStore>,
        again: bool,
    ) -> Result<(Self, Command), FormatError> {
        if record.balance_fen() > 0 {
            return Err(KeyError::NeedsHeadquarters.into());
        }
        let version = KeyVersion(record.key_version);
        let store = record.issuing_store.clone();
        let header = Header { layout: layout.layout, key_version: version, store: store.clone() };
        let header = header.encode(&uid, &*keys)?;
        let slot = encode(record, &uid, &*keys)?;
        let [a, b] = purse.slots;
        let writes = vec![
            update(purse.header, 0, &header),
            update(purse.record, a, &slot),
            update(purse.record, b, &[0; SLOT_BYTES]),
        ];
        let (mut reading, select) = PurseReading::start(uid, Arc::new(layout.clone()), purse, keys);
        reading.preparing = Some(Preparing { store, version, again });
        Ok((Self { reading, writes, again, begun: false }, select))
    }

    /// Goes on with what came of the last step.
    pub(in crate::card::medium) fn answer(&mut self, answer: &Answer) -> FileStep<PrepareOutcome> {
        if self.begun {
            return match heard(answer) {
                Heard::Ok(_) => self.write(),
                Heard::More(command) => FileStep::Transmit(command),
                Heard::Status(_) | Heard::Lost => FileStep::Done(PrepareOutcome::Unfinished),
            };
        }
        match self.reading.answer(answer) {
            FileStep::Transmit(command) => FileStep::Transmit(command),
            FileStep::Done(Finding::ReaderError) => FileStep::Done(PrepareOutcome::NotWritten),
            // An empty header, and every key as it should be.
            FileStep::Done(Finding::Refused(Refusal::Unformatted)) => {
                let is_empty = self.reading.slots.iter().all(|byte| *byte == 0);
                if self.reading.balance == 0 && (self.again || is_empty) {
                    self.write()
                } else {
                    FileStep::Done(PrepareOutcome::NotBlank)
                }
            }
            FileStep::Done(_) => FileStep::Done(PrepareOutcome::NotBlank),
        }
    }

    fn write(&mut self) -> FileStep<PrepareOutcome> {
        self.begun = true;
        match self.writes.pop() {
            Some(command) => FileStep::Transmit(command),
            None => FileStep::Done(PrepareOutcome::Prepared),
        }
    }
}
