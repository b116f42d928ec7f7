//! A question on the bus and what comes back. What lives here: at which rate and with which
//! length of identifiers it is asked, sending it in one frame, hearing every unit until the last
//! has spoken or the time is over. What does not: which units may answer, and when all have
//! ([`Asking`]).

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::asking::Asking;
use super::{ANSWER_WITHIN, Node};
use crate::link::can::{Frame, Heard, Id};
use crate::vehicle::answer::{Answer, BUSY_PAUSE, BUSY_REPEATS, Complaint};
use crate::vehicle::can::address::{self, Width};
use crate::vehicle::can::isotp::{Next, Output, Sender};
use crate::vehicle::error::AdapterError;
use crate::vehicle::gate::{Request, Target, UnitAddress};
use crate::vehicle::protocol::EcuAddress;

/// For an answer while nobody has answered yet: units may have to wake.
const FIRST_ANSWER_WITHIN: Duration = Duration::from_millis(300);
/// For one question in all, however often units say "wait".
const LONGEST_ANSWER: Duration = Duration::from_secs(30);

impl Node {
    /// Asks. Silence and refusals are answers. `lines`: how many units answer, when that is certain.
    ///
    /// # Errors
    /// [`AdapterError`] when the bus is no longer usable.
    pub async fn ask(&mut self, request: Request, lines: Option<u8>) -> Result<Answer, AdapterError> {
        if self.signs.settled {
            return Ok(Answer { complaints: vec![Complaint::NoAddress], ..Answer::default() });
        }
        self.rise().await?;
        loop {
            let answer = self.ask_at_this_rate(request, lines).await?;
            if self.width.is_some() || !self.tally.is_nonsense() && !unheard(&answer) {
                return Ok(answer);
            }
            // Nobody acknowledges, or only nonsense: perhaps the other rate. At once, for at a
            // wrong one every frame of ours disturbs the car.
            if self.other_rates.is_empty() {
                return match self.tally.is_nonsense() {
                    true => Err(self.leave_wrong_rate().await),
                    false => Ok(answer),
                };
            }
            self.leave().await;
            self.other_rate()?;
            self.settle_rate().await?;
            self.rise().await?;
        }
    }

    async fn ask_at_this_rate(
        &mut self,
        request: Request,
        lines: Option<u8>,
    ) -> Result<Answer, AdapterError> {
        let both = [Width::Eleven, Width::TwentyNine];
        let widths = match (request.target(), self.width) {
            (target @ (Target::Unit(_) | Target::Paired(_)), known) => {
                // Data (signal sets) may name units; which addresses there are is the gate's.
                let width = Width::of(target.request_id().unwrap_or_default());
                let here = known.is_none_or(|known| known == width);
                if !here || UnitAddress::of(width.protocol(), target).is_none() {
                    return Ok(Answer { complaints: vec![Complaint::NoAddress], ..Answer::default() });
                }
                vec![width]
            }
            (Target::Extended(_), known) => {
                // Of the address byte, the length and the request.
                let fits = request.payload().len() <= 6;
                if !fits || known == Some(Width::TwentyNine) {
                    return Ok(Answer { complaints: vec![Complaint::NoAddress], ..Answer::default() });
                }
                vec![Width::Eleven]
            }
            (Target::Functional, Some(width)) => vec![width],
            (Target::Functional, None) => both.to_vec(),
        };
        let mut answer = Answer::default();
        let nobody_known = self.known.is_empty();
        for width in widths {
            answer = self.ask_on(width, request, lines).await?;
            for _ in 0..BUSY_REPEATS {
                if !answer.is_busy() {
                    break;
                }
                tokio::time::sleep(BUSY_PAUSE).await;
                answer = self.ask_on(width, request, lines).await?;
            }
            if answer.is_spoilt()
                || answer.garbage > 0 && (nobody_known || self.somebody_missed(&answer, request))
            {
                // A frame was lost: once more, as a dongle's driver does.
                let again = self.ask_on(width, request, None).await?;
                answer = again.completed_by(answer);
            }
            if !answer.is_silence() {
                if self.width.is_none() {
                    self.width = Some(width);
                }
                break;
            }
            // No second frame at a rate that may be wrong.
            if self.tally.is_nonsense() || unheard(&answer) && !self.other_rates.is_empty() {
                break;
            }
        }
        Ok(answer)
    }

    async fn ask_on(
        &mut self,
        width: Width,
        request: Request,
        lines: Option<u8>,
    ) -> Result<Answer, AdapterError> {
        let asked_at = Instant::now();
        self.drain().await?;
        self.tally.garbled(self.bus.garbled());
        self.tally.begin_question();
        self.conversations.clear();
        let to = address::request_id(width, request.target());
        self.bus.pass(&address::passes(width, request.target()));
        let mut asking = Asking::new(to, request, lines, &self.known);
        let mut sender = Sender::new(address::form(request.target()), request.payload()).ok();
        let mut sent = false;
        // A request of the gate fits one frame: nothing is left to be sent on flow control.
        if let Some(Next::Send(data)) = sender.as_mut().map(|sender| sender.next(self.begun.elapsed()))
            && let Some(frame) = Frame::new(to, &data, self.asks_in_fd())
        {
            sent = self.send(&frame).await?;
        }
        let first = if self.known.is_empty() { FIRST_ANSWER_WITHIN } else { ANSWER_WITHIN };
        // A file (`tmo`) may ask for more patience; less would only spoil what a busy box hears late.
        let first = request.wait().map_or(first, |told| told.max(first));
        let mut deadline = Instant::now() + first;
        // A unit that says "wait", or begins anew, without end is not listened to without end.
        let end = Instant::now() + LONGEST_ANSWER;
        while sent && !asking.is_over() && Instant::now() < end {
            let until = self.conversations.deadline().map_or(deadline, |due| deadline.max(self.begun + due));
            match timeout_at(until.max(asking.patience).min(end), self.bus.hear()).await {
                Ok(heard) => {
                    if self.hear(heard?, &mut asking).await? {
                        // Whoever answers shows that the others are awake, too.
                        deadline = deadline.max(Instant::now() + ANSWER_WITHIN / 3);
                    }
                }
                Err(_) => {
                    let overdue = self.conversations.on_time(self.begun.elapsed());
                    self.take(overdue, &mut asking).await?;
                    if asking.patience <= Instant::now() && self.conversations.deadline().is_none() {
                        break;
                    }
                }
            }
            if self.tally.is_nonsense() || self.tally.unacknowledged() && asking.is_empty() {
                break;
            }
        }
        // What came meanwhile was not looked at: it says nothing of the bus's quiet.
        self.tally.busy_for(asked_at.elapsed());
        // Some interfaces count what we send, too.
        self.look_at_counter();
        // Whoever answered physically need not answer everybody's questions.
        if request.target() == Target::Functional {
            self.known.extend(asking.answered.iter().copied());
        }
        let mut answer = Answer::default();
        self.tally.garbled(self.bus.garbled());
        answer.garbage = usize::try_from(self.tally.garbled_in_question()).unwrap_or(usize::MAX);
        if asking.is_empty() {
            let flagged = self.flagged().await?;
            let unheard = !sent || flagged || self.tally.unacknowledged() || self.tally.is_nonsense();
            answer.complaints.push(if unheard { Complaint::CanError } else { Complaint::NoData });
        } else {
            self.tally.answered(self.begun.elapsed());
        }
        Ok(answer.sort(asking.assembled, request))
    }

    /// A unit that answers everybody's questions did not answer this one; perhaps it did, in a line
    /// that came garbled.
    fn somebody_missed(&self, answer: &Answer, request: Request) -> bool {
        let told = |unit: &Id| {
            let unit = EcuAddress(unit.to_string());
            answer.is_final_of(&unit) || answer.pending.contains(&unit)
        };
        request.target() == Target::Functional && !self.known.iter().all(told)
    }

    /// True: a unit said something.
    async fn hear(&mut self, heard: Heard, asking: &mut Asking) -> Result<bool, AdapterError> {
        self.count(heard)?;
        let Heard::Frame(frame) = heard else { return Ok(false) };
        let Some(reply_to) = asking.reply_to(frame.id()) else { return Ok(false) };
        let form = address::form(asking.request.target());
        if !self.conversations.listen(frame.id(), reply_to, form, 0, 0) {
            return Ok(false);
        }
        asking.frames += 1;
        let outputs = self.conversations.on_frame(&frame, self.begun.elapsed());
        self.take(outputs, asking).await?;
        Ok(true)
    }

    async fn take(&mut self, outputs: Vec<Output>, asking: &mut Asking) -> Result<(), AdapterError> {
        for output in outputs {
            match output {
                Output::Send(flow) => {
                    if !self.send(&flow).await? {
                        tracing::debug!(bus = self.name, "flow control not sent");
                    }
                }
                Output::Event(from, event) => asking.take(from, event),
            }
        }
        asking.busy = self.conversations.deadline().is_some();
        Ok(())
    }
}

/// Whether nobody acknowledged the question.
fn unheard(answer: &Answer) -> bool {
    answer.complaints.contains(&Complaint::CanError)
}
