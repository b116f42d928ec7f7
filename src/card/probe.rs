//! Which card is this? A state machine without I/O: it names the next command,
//! is fed the answer, and ends in a verdict. What lives here: the order of the
//! questions and what the answers mean. What does not: how commands reach a card
//! (`pcsc`, `vpcd`), and anything that needs a secret or writes.
//!
//! ```text
//!  ATR ── UID ──┬─ storage card, named ───────────────► technology
//!               ├─ storage card 0003: GET_VERSION ──► Ultralight C's login ──► capability container
//!               │                                                           ──► SAK ──► transport key
//!               │        (a reader that cannot relay a question skips it; a card that was
//!               │         disturbed by one is powered anew and must show the same UID)
//!               └─ processor card: GetVersion where it may be DESFire or NTAG 424, else `cpu`
//! ```

use super::apdu::{Command, Response, StatusWord};
use super::atr::{AnswerToReset, StorageName};
use super::verdict::{CardIdentity, Refusal, Standing, Verdict};
use crate::event::card::Technology;
use crate::ident::CardUid;

/// NTAG and Ultralight EV1 GET_VERSION (NTAG213/215/216 data sheet rev. 3.2 §10.1),
/// relayed unframed by the PN53x (InCommunicateThru, PN532 user manual §7.3.9).
pub(super) const RELAY_GET_VERSION: &[u8] = &[0xD4, 0x42, 0x60];
/// First frame of an Ultralight C's login (MF0ICU2 data sheet rev. 3.5 §7.5.5), relayed likewise:
/// it gives nothing away and counts nothing.
const RELAY_CHALLENGE: &[u8] = &[0xD4, 0x42, 0x1A, 0x00];
/// InListPassiveTarget, one card, 106 kbit/s type A (PN532 user manual §7.3.5): answers the SAK.
const RELAY_LIST_TARGET: &[u8] = &[0xD4, 0x4A, 0x01, 0x00];
/// The key every empty Classic card is delivered with; public, protects nothing.
const TRANSPORT_KEY: [u8; 6] = [0xFF; 6];
/// DESFire and NTAG 424 GetVersion (DESFire EV1 data sheet §9.3.8 instruction 60).
const DESFIRE_GET_VERSION: u8 = 0x60;
/// DESFire: next frame, please.
const DESFIRE_MORE_FRAMES: u8 = 0xAF;
/// Block 128 is the first that only a 4K card has (sector 32).
const BLOCK_ONLY_IN_4K: u8 = 128;

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Send this and feed the answer to the probe.
    Transmit(Command, Probe),
    /// Power the card anew, then feed [`Answer::Reset`] to the probe.
    Reset(Probe),
    /// The end.
    Done(Verdict),
}

/// What came of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The card or reader answered.
    Response(Response),
    /// The reader would not transmit this command; the card is still there.
    NotTransmitted,
    /// The card was powered anew.
    Reset,
}

/// Where the identification stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    atr: Vec<u8>,
    question: Question,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Question {
    Uid {
        retried: bool,
    },
    Native {
        uid: CardUid,
        frames: u8,
        technology: Technology,
    },
    Version {
        uid: CardUid,
    },
    Challenge {
        uid: CardUid,
    },
    Container {
        uid: CardUid,
    },
    Sak {
        uid: CardUid,
    },
    Key {
        uid: CardUid,
    },
    Authenticate {
        uid: CardUid,
        block: u8,
    },
    /// The card was or will be reset before `then`; it must still be the same.
    Again {
        uid: CardUid,
        then: Box<Question>,
    },
}

impl Probe {
    /// Begins with the ATR as the reader told it (empty where it told none).
    #[must_use]
    pub fn start(atr: &[u8]) -> Step {
        let probe = Self { atr: atr.to_vec(), question: Question::Uid { retried: false } };
        Step::Transmit(Command::get_uid(), probe)
    }

    /// Goes on with what came of the last step.
    #[must_use]
    pub fn answer(self, answer: Answer) -> Step {
        let Self { atr, question } = self;
        let asker = Asker { atr };
        match question {
            Question::Uid { retried } => asker.uid(&answer, retried),
            Question::Native { uid, frames, technology } => asker.native(uid, &answer, frames, technology),
            Question::Version { uid } => asker.version(uid, &answer),
            Question::Challenge { uid } => asker.challenge(uid, &answer),
            Question::Container { uid } => asker.container(uid, &answer),
            Question::Sak { uid } => asker.sak(uid, &answer),
            Question::Key { uid } => match ok(&answer) {
                Some(_) => asker.ask(Question::Authenticate { uid, block: BLOCK_ONLY_IN_4K }),
                None => asker.by_uid_length(uid),
            },
            Question::Authenticate { uid, block } => asker.authenticated(uid, block, &answer),
            Question::Again { uid, then } => asker.again(uid, then, &answer),
        }
    }
}

/// The reader did not do what every reader does: nothing is known of the card. It
/// may have left; a driver that can tell asks again from the beginning.
const READER_ERROR: Step = Step::Done(Verdict::Refused(Refusal::ReaderError));

/// The data of a good answer.
fn ok(answer: &Answer) -> Option<&[u8]> {
    match answer {
        Answer::Response(response) => response.ok(),
        Answer::NotTransmitted | Answer::Reset => None,
    }
}

struct Asker {
    atr: Vec<u8>,
}

impl Asker {
    fn ask(self, question: Question) -> Step {
        let command = match &question {
            Question::Uid { .. } | Question::Again { .. } => Command::get_uid(),
            Question::Native { frames: 0, .. } => Command::desfire(DESFIRE_GET_VERSION),
            Question::Native { .. } => Command::desfire(DESFIRE_MORE_FRAMES),
            Question::Version { .. } => Command::direct_transmit(RELAY_GET_VERSION),
            Question::Challenge { .. } => Command::direct_transmit(RELAY_CHALLENGE),
            Question::Container { .. } => Command::read_block(3, 4),
            Question::Sak { .. } => Command::direct_transmit(RELAY_LIST_TARGET),
            Question::Key { .. } => Command::load_key(&TRANSPORT_KEY),
            Question::Authenticate { block, .. } => Command::authenticate(*block),
        };
        Step::Transmit(command, Probe { atr: self.atr, question })
    }

    /// Powers the card anew before `then`, because the last question may have halted it.
    fn reset_before(self, uid: CardUid, then: Question) -> Step {
        Step::Reset(Probe { atr: self.atr, question: Question::Again { uid, then: Box::new(then) } })
    }

    fn done(self, uid: CardUid, technology: Technology) -> Step {
        let atr = (!self.atr.is_empty()).then(|| hex::encode_upper(&self.atr));
        Step::Done(Verdict::Card(CardIdentity {
            uid,
            technology,
            atr,
            code: None,
            standing: Standing::Identified,
            opened: None,
        }))
    }

    fn uid(self, answer: &Answer, retried: bool) -> Step {
        if let (Answer::Response(response), false) = (answer, retried)
            && let Some(le) = response.status.right_le()
        {
            let question = Question::Uid { retried: true };
            return Step::Transmit(Command::get_uid().expecting(le), Probe { atr: self.atr, question });
        }
        match ok(answer).and_then(|bytes| CardUid::from_bytes(bytes).ok()) {
            Some(uid) => self.by_atr(uid),
            None if *answer == Answer::NotTransmitted => READER_ERROR,
            None => Step::Done(Verdict::Refused(Refusal::Unreadable)),
        }
    }

    fn by_atr(self, uid: CardUid) -> Step {
        let Ok(atr) = AnswerToReset::parse(&self.atr) else {
            return self.done(uid, Technology::Unknown);
        };
        let technology = match atr.storage_card().map(super::atr::StorageCard::kind) {
            Some(StorageName::Classic1k) => Technology::MifareClassic1k,
            Some(StorageName::Classic4k) => Technology::MifareClassic4k,
            Some(StorageName::UltralightC) => Technology::UltralightC,
            Some(StorageName::Ultralight) => Technology::Ultralight,
            Some(StorageName::Vicinity) => Technology::Iso15693,
            Some(StorageName::Other) => Technology::Unknown,
            Some(StorageName::Doubtful) => return self.ask(Question::Version { uid }),
            None if may_be_native(&atr) => {
                return self.ask(Question::Native { uid, frames: 0, technology: Technology::Cpu });
            }
            None if atr.historical == [0xA2, 0x13, 0x10, 0x91] => Technology::Sle4442,
            None => Technology::Cpu,
        };
        self.done(uid, technology)
    }

    /// The frames of a DESFire-style GetVersion are read to their end, so that the
    /// card does not meet the next command in the middle of an answer.
    fn native(self, uid: CardUid, answer: &Answer, frames: u8, so_far: Technology) -> Step {
        let Answer::Response(response) = answer else {
            return READER_ERROR;
        };
        let technology = if frames == 0 { native_type(response) } else { so_far };
        if response.status == StatusWord::DESFIRE_MORE && frames < 2 {
            self.ask(Question::Native { uid, frames: frames + 1, technology })
        } else {
            self.done(uid, technology)
        }
    }

    fn version(self, uid: CardUid, answer: &Answer) -> Step {
        match relayed(answer, 0x43) {
            // Status 00 and the eight bytes of GET_VERSION.
            Some([0x00, version @ ..]) => match version_type(version) {
                Some(technology) => self.done(uid, technology),
                None => self.reset_before(uid.clone(), Question::Container { uid }),
            },
            // The question went over the air and the card did not know it: it is halted now.
            Some(_) => self.reset_before(uid.clone(), Question::Challenge { uid }),
            // The reader does not relay; the card was not asked.
            None => self.ask(Question::Container { uid }),
        }
    }

    /// An Ultralight C knows no GET_VERSION, and its container may be that of an NTAG213.
    fn challenge(self, uid: CardUid, answer: &Answer) -> Step {
        match relayed(answer, 0x43) {
            Some([0x00, 0xAF, challenge @ ..]) if challenge.len() == 8 => {
                self.done(uid, Technology::UltralightC)
            }
            _ => self.reset_before(uid.clone(), Question::Container { uid }),
        }
    }

    fn container(self, uid: CardUid, answer: &Answer) -> Step {
        match ok(answer) {
            Some(page) => {
                let technology = container_type(page);
                self.done(uid, technology)
            }
            // Only a Classic refuses a page without authentication (or a tag locked for reading).
            None => self.reset_before(uid.clone(), Question::Sak { uid }),
        }
    }

    fn sak(self, uid: CardUid, answer: &Answer) -> Step {
        // D5 4B, number of targets, target, ATQA (2), SAK, … (PN532 user manual §7.3.5).
        match relayed(answer, 0x4B) {
            Some([1, _, _, _, sak, ..]) => {
                let technology = sak_type(*sak);
                self.done(uid, technology)
            }
            _ => self.ask(Question::Key { uid }),
        }
    }

    fn authenticated(self, uid: CardUid, block: u8, answer: &Answer) -> Step {
        match (ok(answer), block) {
            (Some(_), BLOCK_ONLY_IN_4K) => self.done(uid, Technology::MifareClassic4k),
            (Some(_), _) => self.done(uid, Technology::MifareClassic1k),
            (None, BLOCK_ONLY_IN_4K) => {
                // A failed authentication halts the card.
                self.reset_before(uid.clone(), Question::Authenticate { uid, block: 0 })
            }
            (None, _) => self.by_uid_length(uid),
        }
    }

    /// Nothing else is left to ask: Type 2 tags always have seven bytes (ISO/IEC
    /// 14443-3 cascade level 2), so four bytes that refuse a page are a Classic.
    fn by_uid_length(self, uid: CardUid) -> Step {
        let technology =
            if uid.as_str().len() == 8 { Technology::MifareClassic1k } else { Technology::Unknown };
        self.done(uid, technology)
    }

    fn again(self, uid: CardUid, then: Box<Question>, answer: &Answer) -> Step {
        if *answer == Answer::Reset {
            return self.ask(Question::Again { uid, then });
        }
        match ok(answer).and_then(|bytes| CardUid::from_bytes(bytes).ok()) {
            Some(same) if same == uid => self.ask(*then),
            // Another card, or none, may have slipped in.
            _ => READER_ERROR,
        }
    }
}

/// The payload behind `D5 code` of a relayed PN53x answer.
fn relayed(answer: &Answer, code: u8) -> Option<&[u8]> {
    ok(answer)?.strip_prefix(&[0xD5, code])
}

/// DESFire, NTAG 424 and phones share the bare ATS `80`; older reader firmware
/// gives the whole ATS instead (`06 xx xx xx 02 80`).
fn may_be_native(atr: &AnswerToReset) -> bool {
    atr.is_contactless_cpu()
        && matches!(atr.historical.as_slice(), [0x80] | [0x06, 0x75 | 0x77, 0x77 | 0x81, _, 0x02, 0x80])
}

/// Hardware type of a DESFire-style GetVersion: 04 is NTAG (NTAG 424 DNA data sheet
/// §11.5.2), 01 DESFire (DESFire EV1 data sheet), 08 DESFire Light, 81 DESFire in a phone.
fn native_type(response: &Response) -> Technology {
    let answered = matches!(response.status, StatusWord::DESFIRE_MORE | StatusWord::DESFIRE_OK);
    match response.data.as_slice() {
        [_, 0x04, ..] if answered => Technology::Ntag424,
        [_, 0x01 | 0x08 | 0x81, ..] if answered => Technology::Desfire,
        _ => Technology::Cpu,
    }
}

/// Product type and storage size (NTAG213/215/216 data sheet rev. 3.2 table 28;
/// Ultralight EV1 data sheet table 15). Makers of compatible chips keep both bytes.
fn version_type(version: &[u8]) -> Option<Technology> {
    match version {
        [_, _, 0x04, _, _, _, 0x0F, _] => Some(Technology::Ntag213),
        [_, _, 0x04, _, _, _, 0x11, _] => Some(Technology::Ntag215),
        [_, _, 0x04, _, _, _, 0x13, _] => Some(Technology::Ntag216),
        [_, _, 0x03, _, _, _, _, _] => Some(Technology::Ultralight),
        [_, _, _, _, _, _, _, _] => Some(Technology::Unknown),
        _ => None,
    }
}

/// Capability container in page 3: `E1 10 size 0x`, size in units of 8 bytes
/// (NTAG213/215/216 data sheet rev. 3.2 table 4). Page 3 of others is one-time programmable.
fn container_type(page: &[u8]) -> Technology {
    match page {
        [0xE1, _, 0x12, _, ..] => Technology::Ntag213,
        [0xE1, _, 0x3E, _, ..] => Technology::Ntag215,
        [0xE1, _, 0x6D, _, ..] => Technology::Ntag216,
        _ => Technology::Ultralight,
    }
}

/// SAK (NXP AN10833 rev. 3.9 table 6).
fn sak_type(sak: u8) -> Technology {
    match sak {
        0x00 => Technology::Ultralight,
        0x08 | 0x28 | 0x88 => Technology::MifareClassic1k,
        0x18 | 0x38 => Technology::MifareClassic4k,
        _ => Technology::Unknown,
    }
}

#[cfg(test)]
#[path = "probe_tests.rs"]
mod tests;
