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
        // Its maker's bytes are the same on many: without keys it says nothing at all.
        Step::Done(Verdict::Card(card))
            if members.is_none()
                && card.technology == Technology::Sle4442
                && sle4442::is_nameless(&card.uid) =>
        {
            stands(card, Standing::Refused(Refusal::Unformatted))
        }
        Step::Done(Verdict::Card(card)) => identified(card, members),
        Step::Done(verdict) => TapStep::Done(verdict),
    }
}

fn identified(card: CardIdentity, members: Option<Arc<Members>>) -> TapStep {
    let Some(known) = &members else { return stands(card, Standing::Identified) };
    if let Some(layout) = known.layout(card.technology) {
        let disturbed = probing_disturbs(&card);
        let step = Reading::start(card.uid.clone(), layout, Arc::clone(&known.keys), disturbed);
        return reading_on(step, card, members);
    }
    match card.technology {
        Technology::Cpu if is_random(&card) => stands(card, Standing::Refused(Refusal::Phone)),
        Technology::Cpu => {
            let select = Command::new([0x00, 0xA4, 0x04, 0x00]).with_data(PAYMENT_DIRECTORY).expecting(0);
            TapStep::Transmit(select, Tap { members, stage: Stage::Payment(card) })
        }
        Technology::Desfire | Technology::Ntag424 => stands(card, Standing::Refused(Refusal::NotAMemberCard)),
        _ => stands(card, Standing::Identified),
    }
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
        ReadStep::Done(Finding::Refused(refusal)) => stands(card, Standing::Refused(refusal)),
        ReadStep::Done(Finding::Opened(opened)) => {
            let policy = members.as_deref().map(|members| &members.policy);
            let judged = policy.map_or(Ok(()), |policy| policy.judge(&opened.current.record, policy.today()));
            let standing = match judged {
                Ok(()) => Standing::Member(Box::new(told(&opened.current))),
                Err(refusal) => Standing::Refused(refusal),
            };
            let opened = Some(Box::new(opened.current.record));
            stands(CardIdentity { opened, ..card }, standing)
        }
    }
}

fn stands(card: CardIdentity, standing: Standing) -> TapStep {
    TapStep::Done(Verdict::Card(CardIdentity { standing, ..card }))
}
