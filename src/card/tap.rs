//! A tap from the first command to the verdict: who is it (`probe`), and then, in
//! the same conversation, which member (`medium`). A state machine without I/O; both
//! reader drivers feed it. It writes nothing to any card.

use std::sync::Arc;

use super::apdu::Command;
use super::atr::{AnswerToReset, StorageName};
use super::medium::{Finding, ReadStep, Reading};
use super::member::{Members, told};
use super::probe::{Answer, Probe, Step};
use super::sle4442;
use super::verdict::{CardIdentity, Refusal, Standing, Verdict};
use super::work::aside;
use crate::event::card::Technology;

/// Payment cards and telephones that pay answer this name (EMV contactless book B §3.3.2).
const PAYMENT_DIRECTORY: &[u8] = b"2PAY.SYS.DDF01";
/// First byte of a UID that is another one each time (ISO/IEC 14443-3:2018 §6.5.4).
const RANDOM_UID: &str = "08";

/// What to do next.
#[derive(Debug)]
pub(super) enum TapStep {
    /// Send this and feed the answer.
    Transmit(Command, Tap),
    /// Power the card anew, then feed [`Answer::Reset`].
    Reset(Tap),
    /// The end.
    Done(Verdict),
}

/// A tap under way.
#[derive(Debug)]
pub(super) struct Tap {
    members: Option<Arc<Members>>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Probing(Probe),
    Reading(Box<Reading>, CardIdentity),
    /// Asked for the payment directory.
    Payment(CardIdentity),
}

impl Tap {
    /// Begins with the ATR. Without `members` a card is identified and no more.
    pub(super) fn start(atr: &[u8], members: Option<Arc<Members>>) -> TapStep {
        probing(Probe::start(atr), members)
    }

    /// As `answer`, for drivers that are tasks: reading may ask a SAM, and wait for it.
    pub(super) async fn answer_aside(self, answer: Answer) -> TapStep {
        let may_wait = matches!(&self.stage, Stage::Reading(reading, _) if reading.may_wait());
        if may_wait { aside(move || self.answer(answer)).await } else { self.answer(answer) }
    }

    pub(super) fn answer(self, answer: Answer) -> TapStep {
        let Self { members, stage } = self;
        match stage {
            Stage::Probing(probe) => probing(probe.answer(answer), members),
            Stage::Reading(reading, card) => reading_on(reading.answer(&answer), card, members),
            Stage::Payment(card) => match answer {
                Answer::Response(response) if response.ok().is_some() => {
                    stands(card, Standing::Refused(Refusal::BankCard))
                }
                Answer::Response(_) => stands(card, Standing::Refused(Refusal::NotAMemberCard)),
                Answer::NotTransmitted | Answer::Reset => READER_ERROR,
            },
        }
    }
}

const READER_ERROR: TapStep = TapStep::Done(Verdict::Refused(Refusal::ReaderError));

fn probing(step: Step, members: Option<Arc<Members>>) -> TapStep {
    match step {
        Step::Transmit(command, probe) => {
            TapStep::Transmit(command, Tap { members, stage: Stage::Probing(probe) })
        }
        Step::Reset(probe) => TapStep::Reset(Tap { members, stage: Stage::Probing(probe) }),
        Step::Done(Verdict::Card(card)) => identified(card, members),
        Step::Done(verdict) => TapStep::Done(verdict),
    }
}

fn identified(card: CardIdentity, members: Option<Arc<Members>>) -> TapStep {
    let Some(known) = &members else {
        // Its maker's bytes are the same on many.
        let nameless = card.technology == Technology::Sle4442 && sle4442::is_nameless(&card.uid);
        let standing = if nameless { Standing::Refused(Refusal::Unformatted) } else { Standing::Identified };
        return stands(card, standing);
    };
    // A telephone may answer to our application's name; its number is none.
    if card.technology == Technology::Cpu && is_random(&card) {
        return stands(card, Standing::Refused(Refusal::Phone));
    }
    if let Some(layout) = known.layout(card.technology) {
        let disturbed = probing_disturbs(&card);
        let step = Reading::start(card.uid.clone(), layout, Arc::clone(&known.keys), disturbed);
        return reading_on(step, card, members);
    }
    match card.technology {
        Technology::Cpu => payment(card, members),
        Technology::Desfire | Technology::Ntag424 => stands(card, Standing::Refused(Refusal::NotAMemberCard)),
        _ => stands(card, Standing::Identified),
    }
}

fn payment(card: CardIdentity, members: Option<Arc<Members>>) -> TapStep {
    let select = Command::new([0x00, 0xA4, 0x04, 0x00]).with_data(PAYMENT_DIRECTORY).expecting(0);
    TapStep::Transmit(select, Tap { members, stage: Stage::Payment(card) })
}

/// Whether identification had to ask a card that its reader may have misnamed: such
/// a question can halt a Classic, and leaves an Ultralight C in the middle of a login.
fn probing_disturbs(card: &CardIdentity) -> bool {
    let atr = card.atr.as_deref().and_then(|atr| hex::decode(atr).ok()).unwrap_or_default();
    let named = AnswerToReset::parse(&atr).ok().and_then(|atr| atr.storage_card());
    named.is_some_and(|named| named.kind() == StorageName::Doubtful)
        && matches!(
            card.technology,
            Technology::MifareClassic1k | Technology::MifareClassic4k | Technology::UltralightC
        )
}

fn is_random(card: &CardIdentity) -> bool {
    card.uid.as_str().len() == 8 && card.uid.as_str().starts_with(RANDOM_UID)
}

fn reading_on(step: ReadStep, card: CardIdentity, members: Option<Arc<Members>>) -> TapStep {
    match step {
        ReadStep::Transmit(command, reading) => {
            TapStep::Transmit(command, Tap { members, stage: Stage::Reading(reading, card) })
        }
        ReadStep::Reset(reading) => TapStep::Reset(Tap { members, stage: Stage::Reading(reading, card) }),
        ReadStep::Done(Finding::ReaderError) => READER_ERROR,
        ReadStep::Done(Finding::Refused(Refusal::NotAMemberCard)) if card.technology == Technology::Cpu => {
            payment(card, members)
        }
        ReadStep::Done(finding) => TapStep::Done(Verdict::Card(judged(card, finding, members.as_deref()))),
    }
}

/// What a card is to this store by what was read of it.
pub(super) fn judged(card: CardIdentity, finding: Finding, members: Option<&Members>) -> CardIdentity {
    let (standing, opened) = match finding {
        Finding::ReaderError => (Standing::Refused(Refusal::ReaderError), None),
        Finding::Refused(refusal) => (Standing::Refused(refusal), None),
        Finding::Opened(opened) => {
            let policy = members.map(|members| &members.policy);
            let judged = policy.map_or(Ok(()), |policy| policy.judge(&opened.current.record, policy.today()));
            let standing = match judged {
                Ok(()) => Standing::Member(Box::new(told(&opened.current))),
                Err(refusal) => Standing::Refused(refusal),
            };
            (standing, Some(Box::new(opened.current.record)))
        }
    };
    CardIdentity { standing, opened, ..card }
}

fn stands(card: CardIdentity, standing: Standing) -> TapStep {
    TapStep::Done(Verdict::Card(CardIdentity { standing, ..card }))
}
