//! The thread that speaks with the cards of one reader, through a context of its
//! own: a reader that is slow, or hangs, holds up nobody else. What does not live
//! here: what to ask a card (`tap`) and when (`field`).

use std::ffi::CString;
use std::sync::{Arc, mpsc as blocking};
use std::time::Duration;

use pcsc::{Card, Context, Disposition, Error, Protocols, Scope, ShareMode, Transaction};
use tokio::sync::mpsc;

use super::threads::{self, Lease};
use crate::card::apdu::{Command, MAX_RESPONSE_BYTES, Response};
use crate::card::backoff::Backoff;
use crate::card::field::Stay;
use crate::card::member::Members;
use crate::card::probe::Answer;
use crate::card::tap::{Tap, TapStep};
use crate::card::verdict::{CardIdentity, Refusal, Standing, Verdict};
use crate::card::work::{Errand, WorkStep};

/// Other programs may hold the card for a moment, or reset it: so many tries.
const TRIES: u32 = 8;

/// What the thread does.
#[derive(Debug)]
enum Job {
    /// Who is this card?
    Identify { stay: Stay, atr: Vec<u8> },
    /// What somebody asked for.
    Work(Errand),
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Outcome {
    /// Which worker speaks.
    pub(super) worker: u64,
    pub(super) reader: String,
    pub(super) stay: Stay,
    pub(super) verdict: Verdict,
}

/// Handle to a reader's thread. Dropping it ends the thread after its job.
pub(super) struct Worker {
    pub(super) id: u64,
    jobs: blocking::SyncSender<Job>,
    lease: Lease,
}

impl Worker {
    pub(super) fn start(
        id: u64,
        reader: &str,
        members: Option<Arc<Members>>,
        outcomes: mpsc::Sender<Outcome>,
    ) -> std::io::Result<Self> {
        let (jobs, queue) = blocking::sync_channel(1);
        let reader = reader.to_owned();
        let lease =
            threads::start(&format!("pcsc-card-{id}"), move || run(id, &reader, members, &queue, &outcomes))?;
        Ok(Self { id, jobs, lease })
    }

    /// Hands over a card; false when the thread is gone or still busy.
    pub(super) fn identify(&self, stay: Stay, atr: Vec<u8>) -> bool {
        self.jobs.try_send(Job::Identify { stay, atr }).is_ok()
    }

    /// Hands over an errand; ends it when the thread is gone or still busy.
    pub(super) fn work(&self, errand: Errand) {
        if let Err(
            blocking::TrySendError::Full(Job::Work(errand))
            | blocking::TrySendError::Disconnected(Job::Work(errand)),
        ) = self.jobs.try_send(Job::Work(errand))
        {
            errand.cut();
        }
    }

    /// Gives the thread up; it is counted until it returns.
    pub(super) fn abandon(self) -> Lease {
        self.lease.abandon();
        self.lease
    }

    pub(super) fn lease(&self) -> &Lease {
        &self.lease
    }
}

fn run(
    id: u64,
    reader: &str,
    members: Option<Arc<Members>>,
    jobs: &blocking::Receiver<Job>,
    outcomes: &mpsc::Sender<Outcome>,
) {
    let Ok(name) = CString::new(reader) else { return };
    let mut desk = Desk { name, context: None, members, try_spent: false };
    while let Ok(job) = jobs.recv() {
        let (stay, atr) = match job {
            Job::Identify { stay, atr } => (stay, atr),
            Job::Work(errand) => {
                desk.work(errand);
                continue;
            }
        };
        let verdict = desk.identify(&atr);
        let outcome = Outcome { worker: id, reader: reader.to_owned(), stay, verdict };
        if outcomes.blocking_send(outcome).is_err() {
            return;
        }
    }
}

/// Why an identification has to begin again, or ends without the card's word.
enum Trouble {
    Again(Error),
    End(Verdict),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        match error {
            Error::NoSmartcard
            | Error::RemovedCard
            | Error::UnknownReader
            | Error::ReaderUnavailable
            | Error::NoReadersAvailable => Self::End(Verdict::Left),
            // Mute: pressed against the metal of the desk, or upside down in a contact slot.
            Error::UnresponsiveCard
            | Error::UnsupportedCard
            | Error::UnpoweredCard
            | Error::InvalidAtr
            | Error::ProtoMismatch => Self::End(Verdict::Refused(Refusal::Unreadable)),
            other => Self::Again(other),
        }
    }
}

struct Desk {
    name: CString,
    context: Option<Context>,
    members: Option<Arc<Members>>,
    /// The card of this job was sent a password, and how it took it is not known.
    try_spent: bool,
}

impl Desk {
    fn identify(&mut self, atr: &[u8]) -> Verdict {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_millis(400));
        let mut last = Error::UnknownError;
        self.try_spent = false;
        for _ in 0..TRIES {
            let spent = self.try_spent;
            match self.attempt(atr) {
                // Its number was all that was asked for.
                Ok(Verdict::Card(card)) if spent => {
                    let standing = Standing::Refused(Refusal::ReaderError);
                    return Verdict::Card(CardIdentity { standing, ..card });
                }
                Ok(verdict) | Err(Trouble::End(verdict)) => return verdict,
                Err(Trouble::Again(error)) => last = error,
            }
            tracing::debug!(reader = ?self.name, error = %last, "card operation repeated");
            match last {
                // Another program reset the card: begin again at once, with the UID.
                Error::ResetCard => {}
                Error::SharingViolation => std::thread::sleep(backoff.wait()),
                _ => {
                    // pcscd may be a new one: so must the context be.
                    self.context = None;
                    std::thread::sleep(backoff.wait());
                }
            }
        }
        Verdict::Refused(match last {
            Error::SharingViolation => Refusal::ReaderBusy,
            _ => Refusal::ReaderError,
        })
    }

    fn connect(&mut self) -> Result<Card, Error> {
        let context = match &self.context {
            Some(context) => context.clone(),
            None => self.context.insert(Context::establish(Scope::System)?).clone(),
        };
        context.connect(&self.name, ShareMode::Shared, Protocols::ANY)
    }

    /// Does an errand, once: who repeats a write that was cut off writes twice.
    fn work(&mut self, mut errand: Errand) {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_millis(200));
        for _ in 0..TRIES {
            if errand.done.is_closed() {
                return;
            }
            match self.connect() {
                Ok(mut card) => {
                    let left = match card.transaction() {
                        Ok(transaction) if errand.is_sign() => Ok(show(&transaction, errand)),
                        Ok(transaction) => {
                            converse(transaction, errand);
                            Ok(None)
                        }
                        // Another program reset it before a word was said: begin again at once.
                        Err(Error::ResetCard) => Err(errand),
                        Err(_) => {
                            errand.cut();
                            Ok(None)
                        }
                    };
                    drop(card.disconnect(Disposition::LeaveCard));
                    match left {
                        Ok(None) => return,
                        Ok(Some(unseen)) => return self.escape(unseen),
                        Err(again) => errand = again,
                    }
                    continue;
                }
                Err(Error::SharingViolation) => {}
                Err(Error::NoSmartcard | Error::RemovedCard) if errand.is_sign() => {
                    return self.escape(errand);
                }
                Err(Error::NoSmartcard | Error::RemovedCard | Error::UnknownReader) => break,
                Err(_) => self.context = None,
            }
            std::thread::sleep(backoff.wait());
        }
        errand.cut();
    }

    /// Lights without a card: past the card, where the driver allows it (pcsc-lite's ccid driver
    /// wants its `ifdDriverOptions` 0001); else the reader shows nothing.
    fn escape(&mut self, errand: Errand) {
        /// IOCTL_SMARTCARD_VENDOR_IFD_EXCHANGE of the ccid driver.
        const TO_READER: u32 = 1;
        let Some(context) = self.context.clone() else { return errand.cut() };
        let Ok(reader) = context.connect(&self.name, ShareMode::Direct, Protocols::UNDEFINED) else {
            return errand.cut();
        };
        let Errand { mut step, done, .. } = errand;
        while let WorkStep::Transmit(command, work) = step {
            let mut buffer = [0; MAX_RESPONSE_BYTES];
            let told = reader.control(pcsc::ctl_code(TO_READER.into()), &command.to_bytes(), &mut buffer);
            let answer = told.ok().and_then(|bytes| Response::parse(bytes).ok());
            step = work.answer(&answer.map_or(Answer::NotTransmitted, Answer::Response));
        }
        let _ = done.send(step.cut());
        drop(reader.disconnect(Disposition::LeaveCard));
    }

    fn attempt(&mut self, atr: &[u8]) -> Result<Verdict, Trouble> {
        let mut card = self.connect()?;
        // A wrong password too many locks a card for ever: it is not sent twice for one tap.
        let members = self.members.clone().filter(|_| !self.try_spent);
        let verdict = in_transaction(&mut card, atr, members, &mut self.try_spent);
        // Resetting would make the card a new one for everybody else.
        drop(card.disconnect(Disposition::LeaveCard));
        verdict
    }
}

/// One identification while no other program can speak with the card.
fn in_transaction(
    card: &mut Card,
    atr: &[u8],
    members: Option<Arc<Members>>,
    try_spent: &mut bool,
) -> Result<Verdict, Trouble> {
    let own = if atr.is_empty() { card.status2_owned()?.atr().to_vec() } else { atr.to_vec() };
    let mut transaction = card.transaction()?;
    let mut step = Tap::start(&own, members);
    loop {
        step = match step {
            // pcscd notices a card that left only at its next look, until then
            // commands just fail: begin again, by then it knows.
            TapStep::Done(Verdict::Refused(Refusal::ReaderError)) => {
                return Err(Trouble::Again(Error::NotTransacted));
            }
            TapStep::Done(verdict) => return Ok(verdict),
            TapStep::Reset(tap) => {
                transaction.reconnect(ShareMode::Shared, Protocols::ANY, Disposition::ResetCard)?;
                tap.answer(Answer::Reset)
            }
            TapStep::Transmit(command, tap) => {
                *try_spent |= command.costs_a_try();
                let next = tap.answer(transmit(&transaction, &command)?);
                // It goes on: the password was right, which sets the card's count back.
                *try_spent &= !(command.costs_a_try() && matches!(next, TapStep::Transmit(..)));
                next
            }
        };
    }
}

/// An errand while no other program can speak with the card.
fn converse(mut transaction: Transaction<'_>, errand: Errand) {
    let Errand { mut step, done, .. } = errand;
    while !done.is_closed() {
        let (answer, work) = match step {
            WorkStep::Done(worked) => {
                let _ = done.send(worked);
                return;
            }
            WorkStep::Reset(work) => {
                let reset =
                    transaction.reconnect(ShareMode::Shared, Protocols::ANY, Disposition::ResetCard).is_ok();
                (if reset { Answer::Reset } else { Answer::NotTransmitted }, work)
            }
            WorkStep::Transmit(command, work) => {
                (transmit(&transaction, &command).unwrap_or(Answer::NotTransmitted), work)
            }
        };
        step = work.answer(&answer);
    }
}

/// A sign, as commands while a card lies there. What could not be sent is left over: a card that
/// was pulled lies there for pcscd until its next look.
fn show(transaction: &Transaction<'_>, errand: Errand) -> Option<Errand> {
    let Errand { slot, mut step, done } = errand;
    while let WorkStep::Transmit(command, work) = step {
        match transmit(transaction, &command) {
            Ok(Answer::Response(response)) => step = work.answer(&Answer::Response(response)),
            _ => return Some(Errand { slot, step: WorkStep::Transmit(command, work), done }),
        }
    }
    let _ = done.send(step.cut());
    None
}

fn transmit(transaction: &Transaction<'_>, command: &Command) -> Result<Answer, Trouble> {
    let mut buffer = [0; MAX_RESPONSE_BYTES];
    match transaction.transmit(&command.to_bytes(), &mut buffer) {
        Ok(bytes) => Ok(Response::parse(bytes).map_or(Answer::NotTransmitted, Answer::Response)),
        // The reader's word on this one command, not on the card.
        Err(
            Error::NotTransacted
            | Error::InvalidParameter
            | Error::InvalidValue
            | Error::UnsupportedFeature
            | Error::InsufficientBuffer,
        ) => Ok(Answer::NotTransmitted),
        Err(error) => Err(error.into()),
    }
}
