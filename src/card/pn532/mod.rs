//! Reader kind `pn532`: the NFC chip on a serial line (HSU) or TCP. It shows itself to the card
//! drivers as a PC/SC reader would, so that they know no difference. What lives here: the line
//! kept open, cards coming and going. Below it, each without the other's knowledge: APDUs as
//! commands of the chip (`apdu`, `command`), frames (`frame`), what is done when one is lost
//! (`line`). What does not: what to ask a card (`tap`, `medium`).
//!
//! ```text
//!  wake ─ SAMConfiguration ─ GetFirmwareVersion ─ RFConfiguration ─► InListPassiveTarget …
//!     ▲                                                 a card │  ▲ every 100 ms
//!     └─ the chip is silent, the line broke ──◄── tap, watch ◄─┘  └─ none
//! ```

mod apdu;
mod command;
mod frame;
mod line;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, mpsc};
use tokio::time;
use tokio_util::sync::CancellationToken;

use self::apdu::{Asked, Reader, answer};
use self::command::{Malformed, Request, Target};
use self::line::{Cut, Line};
use super::apdu::Command;
use super::backoff::Backoff;
use super::member::Members;
use super::probe::Answer;
use super::report::{Condition, Report, Reports, Unheard};
use super::tap::{Tap, TapStep};
use super::verdict::{CardIdentity, Refusal, Standing, Verdict};
use super::work::{Errand, WorkStep};
use super::{CardError, cable};
use crate::config::values::Transport;
use crate::event::device::DeviceStatus;
use crate::link;

/// Rate of the chip where the link names none (user manual §6.1.3.4).
const BAUD: u32 = 115_200;
/// Between two looks into an empty field.
const LOOK: Duration = Duration::from_millis(100);
/// Between two looks whether the card still lies there.
const WATCH: Duration = Duration::from_millis(200);
/// The field is off for so long that every card forgets (ISO/IEC 14443-3:2018 §5: 5.1 ms), and on
/// for as long before it is spoken to.
const FIELD_PAUSE: Duration = Duration::from_millis(6);
/// How often one tap begins anew.
const TRIES: usize = 4;
/// The one field of this reader.
const SLOT: &str = "pn532";

/// Why a session with the chip ended.
enum End {
    Cut(Cut),
    /// Another chip is there.
    OtherChip,
    Unheard,
}

impl From<Cut> for End {
    fn from(cut: Cut) -> Self {
        Self::Cut(cut)
    }
}

impl From<Unheard> for End {
    fn from(_: Unheard) -> Self {
        Self::Unheard
    }
}

/// Serves the cards of one chip until `stop`.
pub(super) async fn drive(
    transport: Transport,
    members: Option<Arc<Members>>,
    reports: Reports,
    mut errands: mpsc::Receiver<Errand>,
    stop: CancellationToken,
) -> Result<(), CardError> {
    let rate = match transport {
        Transport::Serial { baud: None, .. } => Some(BAUD),
        _ => None,
    };
    let busy = Mutex::new(());
    let serve = async {
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(15));
        loop {
            let condition = match link::open(&transport, rate).await {
                Ok(stream) => {
                    let mut session =
                        Session { line: Line::new(stream), members: members.clone(), told: false };
                    let ended = session.serve(&reports, &mut errands, &busy, &mut backoff).await;
                    if session.told {
                        reports.tell(Report::Removed { slot: SLOT.into() }).await?;
                    }
                    let Err(end) = ended;
                    match end {
                        End::Unheard => return Err(Unheard),
                        End::Cut(Cut::Gone(_)) => cable::gone(),
                        End::Cut(cut) => no_answer(&cut),
                        End::OtherChip => no_answer(&Cut::Garbage),
                    }
                }
                Err(error) => cable::unreachable(&error),
            };
            reports.tell(Report::AllEmpty).await?;
            reports.tell(Report::State(condition)).await?;
            let wait = link::wait_for_return(&transport, backoff.wait());
            no_card_for(&mut errands, wait).await;
        }
    };
    // A write that runs is ended first.
    let stopped = async {
        stop.cancelled().await;
        drop(busy.lock().await);
    };
    tokio::select! {
        () = stopped => {}
        ended = serve => { let (Ok::<(), Unheard>(()) | Err(Unheard)) = ended; }
    }
    Ok(())
}

/// While nothing can be done, what is asked is told so at once.
async fn no_card_for(errands: &mut mpsc::Receiver<Errand>, wait: impl Future<Output = ()>) {
    tokio::pin!(wait);
    loop {
        tokio::select! {
            () = &mut wait => return,
            Some(errand) = errands.recv() => errand.cut(),
        }
    }
}

fn no_answer(cut: &Cut) -> Condition {
    Condition::because(
        DeviceStatus::Failed,
        "no-answer",
        "读卡模块 PN532 没有应答。请检查供电、TX/RX 是否交叉接线，以及模块拨码是否设为 HSU（串口）。".into(),
        format!(
            "the PN532 gives no answer ({cut}); check its power, that TX and RX are crossed, and that its switches say HSU"
        ),
    )
}

/// One chip on one open line.
struct Session {
    line: Line,
    members: Option<Arc<Members>>,
    /// Whether a card was told and not yet taken back.
    told: bool,
}

/// What became of the card that was watched.
enum Watched {
    Left,
    Other(Target),
    /// The reader stood in the way: it is asked once more.
    Again,
}

impl Session {
    async fn serve(
        &mut self,
        reports: &Reports,
        errands: &mut mpsc::Receiver<Errand>,
        busy: &Mutex<()>,
        backoff: &mut Backoff,
    ) -> Result<std::convert::Infallible, End> {
        self.line.wake().await?;
        for request in [Request::sam_configuration(), Request::firmware(), Request::look_briefly()] {
            let answer = self.line.ask(&request).await?;
            // IC, version, revision, what it supports (§7.2.2).
            if request == Request::firmware() && answer.first() != Some(&0x32) {
                return Err(End::OtherChip);
            }
        }
        backoff.reset();
        reports.tell(Report::State(Condition::plain(DeviceStatus::Ready))).await?;
        let (mut looked, mut told_unreadable) = (false, false);
        loop {
            match self.look().await? {
                Ok(Some(target)) => {
                    self.card(target, reports, errands, busy).await?;
                    (looked, told_unreadable) = (false, false);
                    continue;
                }
                Ok(None) => {
                    told_unreadable = false;
                    if !std::mem::replace(&mut looked, true) {
                        reports.tell(Report::AllEmpty).await?;
                    }
                }
                Err(Malformed) => {
                    if !std::mem::replace(&mut told_unreadable, true) {
                        reports.tell(Report::Refused(Refusal::Unreadable)).await?;
                    }
                    // A card that was opened would not be found again: it is told once while it lies there.
                    self.renew_field().await?;
                }
            }
            no_card_for(errands, time::sleep(LOOK)).await;
        }
    }

    /// Looks for a card; it is selected, as after power on or as it was. The inner error is one
    /// that is none of ISO/IEC 14443-3.
    async fn look(&mut self) -> Result<Result<Option<Target>, Malformed>, Cut> {
        let answer = self.line.ask(&Request::list_target()).await?;
        Ok(Target::parse(&answer))
    }

    /// The same where a card is awaited: one that cannot be read is not it.
    async fn select(&mut self) -> Result<Option<Target>, Cut> {
        Ok(self.look().await?.unwrap_or_default())
    }

    /// Takes the power from the card and gives it back, then looks for it.
    async fn power_anew(&mut self) -> Result<Option<Target>, Cut> {
        self.renew_field().await?;
        self.select().await
    }

    async fn renew_field(&mut self) -> Result<(), Cut> {
        self.line.ask(&Request::release()).await?;
        self.line.ask(&Request::field(false)).await?;
        time::sleep(FIELD_PAUSE).await;
        self.line.ask(&Request::field(true)).await?;
        time::sleep(FIELD_PAUSE).await;
        Ok(())
    }

    /// A card from its coming until the field is empty; others may take its place.
    async fn card(
        &mut self,
        mut target: Target,
        reports: &Reports,
        errands: &mut mpsc::Receiver<Errand>,
        busy: &Mutex<()>,
    ) -> Result<(), End> {
        let mut told_of_refusal = None;
        let mut patience = Backoff::new(Duration::from_secs(2), Duration::from_secs(30));
        loop {
            let seen = Instant::now();
            let mut reader = Reader::new(target);
            let mut again = None;
            match self.identify(&mut reader).await? {
                Verdict::Card(card) => {
                    self.told = true;
                    reports.tell(Report::State(Condition::plain(DeviceStatus::Ready))).await?;
                    reports.tell(Report::Tapped { slot: SLOT.into(), card, seen }).await?;
                }
                Verdict::Refused(refusal) => {
                    if told_of_refusal.replace(refusal) != Some(refusal) {
                        reports.tell(Report::Refused(refusal)).await?;
                    }
                    if let Some(reason) = refusal.reader_code() {
                        let text = refusal.text();
                        let state = Condition::because(DeviceStatus::Degraded, reason, text.zh, text.en);
                        reports.tell(Report::State(state)).await?;
                        again = Some(time::Instant::now() + patience.wait());
                    }
                }
                Verdict::Left => {}
            }
            let watched = self.watch(&mut reader, again, errands, busy).await?;
            if std::mem::take(&mut self.told) {
                reports.tell(Report::Removed { slot: SLOT.into() }).await?;
            }
            target = match watched {
                Watched::Left => return Ok(()),
                Watched::Other(other) => {
                    told_of_refusal = None;
                    other
                }
                Watched::Again => match self.power_anew().await? {
                    Some(target) => {
                        let same = target.uid == reader.target().uid;
                        told_of_refusal = told_of_refusal.filter(|_| same);
                        target
                    }
                    None => return Ok(()),
                },
            };
        }
    }

    /// Does what is asked of the card until it leaves.
    async fn watch(
        &mut self,
        reader: &mut Reader,
        again: Option<time::Instant>,
        errands: &mut mpsc::Receiver<Errand>,
        busy: &Mutex<()>,
    ) -> Result<Watched, Cut> {
        loop {
            tokio::select! {
                () = time::sleep(WATCH) => {}
                Some(errand) = errands.recv() => {
                    let _busy = busy.lock().await;
                    self.work(reader, errand).await?;
                    continue;
                }
            }
            if again.is_some_and(|again| again <= time::Instant::now()) {
                return Ok(Watched::Again);
            }
            let uid = reader.target().uid.clone();
            match self.look_again(reader.target()).await? {
                Some(target) if target.uid == uid => reader.selected(target),
                Some(other) => return Ok(Watched::Other(other)),
                None => return Ok(Watched::Left),
            }
        }
    }

    /// A processor card is asked without disturbing it; every other is selected again, at last
    /// with new power: a card that halted itself answers only then.
    async fn look_again(&mut self, target: &Target) -> Result<Option<Target>, Cut> {
        if target.is_processor() {
            let answer = self.line.ask(&Request::presence()).await?;
            if answer.first() == Some(&0x00) {
                return Ok(Some(target.clone()));
            }
        } else if let Some(found) = self.select().await? {
            return Ok(Some(found));
        }
        self.power_anew().await
    }

    async fn identify(&mut self, reader: &mut Reader) -> Result<Verdict, Cut> {
        // A wrong password too many locks a card for ever: it is not sent twice for one tap.
        let mut try_spent = false;
        for tried in 0..TRIES {
            if tried > 0 {
                let uid = reader.target().uid.clone();
                match self.power_anew().await? {
                    Some(target) if target.uid == uid => reader.selected(target),
                    _ => return Ok(Verdict::Left),
                }
            }
            let spent = try_spent;
            let members = self.members.clone().filter(|_| !spent);
            match self.attempt(reader, members, &mut try_spent).await? {
                // It may have left: nothing else is known yet.
                Verdict::Refused(Refusal::ReaderError) => {}
                // Its number was all that was asked for.
                Verdict::Card(card) if spent => {
                    let standing = Standing::Refused(Refusal::ReaderError);
                    return Ok(Verdict::Card(CardIdentity { standing, ..card }));
                }
                verdict => return Ok(verdict),
            }
        }
        Ok(Verdict::Refused(Refusal::ReaderError))
    }

    async fn attempt(
        &mut self,
        reader: &mut Reader,
        members: Option<Arc<Members>>,
        try_spent: &mut bool,
    ) -> Result<Verdict, Cut> {
        let mut step = Tap::start(&reader.target().answer_to_reset(), members);
        loop {
            step = match step {
                TapStep::Done(verdict) => return Ok(verdict),
                TapStep::Reset(tap) => tap.answer(self.reset(reader).await?),
                TapStep::Transmit(command, tap) => {
                    *try_spent |= command.costs_a_try();
                    let next = tap.answer_aside(self.transmit(reader, &command).await?).await;
                    // It goes on: the password was right, which sets the card's count back.
                    *try_spent &= !(command.costs_a_try() && matches!(next, TapStep::Transmit(..)));
                    next
                }
            };
        }
    }

    /// One errand to its end; when the chip falls silent, the errand ends before it.
    async fn work(&mut self, reader: &mut Reader, errand: Errand) -> Result<(), Cut> {
        let Errand { mut step, done, .. } = errand;
        while !done.is_closed() {
            let (answer, work) = match step {
                WorkStep::Done(worked) => {
                    let _ = done.send(worked);
                    return Ok(());
                }
                WorkStep::Reset(work) => (self.reset(reader).await, work),
                WorkStep::Transmit(command, work) => (self.transmit(reader, &command).await, work),
            };
            step = match answer {
                Ok(answer) => work.answer_aside(answer).await,
                Err(cut) => {
                    let _ = done.send(work.answer(&Answer::NotTransmitted).cut());
                    return Err(cut);
                }
            };
        }
        Ok(())
    }

    async fn reset(&mut self, reader: &mut Reader) -> Result<Answer, Cut> {
        match self.power_anew().await? {
            Some(target) => {
                reader.selected(target);
                Ok(Answer::Reset)
            }
            None => Ok(Answer::NotTransmitted),
        }
    }

    /// One APDU. Where its answer is lost but the chip lives, nobody knows whether the card heard.
    async fn transmit(&mut self, reader: &mut Reader, command: &Command) -> Result<Answer, Cut> {
        match reader.ask(command) {
            Asked::Known(answer) => Ok(answer),
            Asked::Chip(request, shape) => match self.line.ask(&request).await {
                Ok(said) => Ok(answer(shape, &said)),
                Err(Cut::Silent | Cut::Garbage) => {
                    self.line.ask(&Request::firmware()).await?;
                    Ok(Answer::NotTransmitted)
                }
                Err(gone) => Err(gone),
            },
        }
    }
}
