//! A tester on the bus: first it listens, then it asks. What lives here: the search for
//! the bus's bit rate and ID length, a request and the answers of every unit that has
//! one, and what the bus suffered meanwhile. What does not: frames of messages
//! ([`super::isotp`]), and which questions are asked (above).
//!
//! The only bytes sent are those of a gated [`Request`] in one frame, of a confirmed
//! clearing ([`clearing`]), of a J1939 group that may be asked for ([`groups`]), and flow
//! control.

mod asking;
mod clearing;
mod groups;

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::address::{self, Width};
use super::bus::{Bus, Join, Slcan};
use super::isotp::{Conversations, Next, Output, Sender};
use super::tally::Tally;
use crate::config::values::{Transport, VehicleLink};
use crate::link::can::{BusTrouble, CanSocket, Frame, Heard, Id, InterfaceError, interface};
use crate::vehicle::adapter::Identity;
use crate::vehicle::answer::{Answer, Complaint};
use crate::vehicle::batch::MOST_PIDS;
use crate::vehicle::error::AdapterError;
use crate::vehicle::gate::{Request, Target, UnitAddress};
use crate::vehicle::polling::Traffic;
use crate::vehicle::protocol::Protocol;
use asking::Asking;

/// Before the first byte to an unknown bus.
const LISTEN: Duration = Duration::from_millis(500);
/// An adapter's answer to `F`.
const FLAGS_WITHIN: Duration = Duration::from_millis(100);
/// P2 on CAN is 50 ms (ISO 15765-4); gateways, slow adapters and a busy box take their share.
const ANSWER_WITHIN: Duration = Duration::from_millis(250);
/// The same while nobody has answered yet: units may have to wake.
const FIRST_ANSWER_WITHIN: Duration = Duration::from_millis(300);
/// P2*: after "wait" (ISO 14229-2).
const PENDING_WITHIN: Duration = Duration::from_secs(5);
/// The same for all of it.
const LONGEST_ANSWER: Duration = Duration::from_secs(30);
/// How often one unit may say "wait".
const PENDING_ROUNDS: u8 = 5;
/// All messages now coming, together: eight units with 4095 bytes each.
const MOST_BYTES: usize = 32 * 1024;
/// Messages of one answer.
const MOST_MESSAGES: usize = 256;
/// The bit rates of ISO 15765-4, the more frequent first.
const RATES: [u32; 2] = [500_000, 250_000];
/// Frames that were there before the question are dropped, at most so many: a full bus never ends.
const MOST_STALE: usize = 20_000;

/// Sees every frame of a link as it passes.
pub type Witness = std::sync::Arc<dyn Fn(&Frame) + Send + Sync>;

/// What listening showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FirstSound {
    /// Nothing: a sleeping car, or a gateway that only answers.
    Silence,
    Traffic,
    /// Only errors.
    Nonsense,
}

/// An open way onto a bus.
pub struct Node {
    bus: Bus,
    name: String,
    identity: Identity,
    bitrate: Option<u32>,
    /// slcan without `bitrate=`.
    may_try_rates: bool,
    /// Rates that were not tried since the last answer.
    other_rates: Vec<u32>,
    width: Option<Width>,
    /// Who answered so far.
    known: BTreeSet<Id>,
    conversations: Conversations,
    /// Whether this is a truck's bus.
    signs: groups::Signs,
    /// PIDs the car takes in one request.
    car_takes: usize,
    tally: Tally,
    /// Frames the interface had received when it was last looked at.
    received: Option<u64>,
    /// Frames that came while nothing was asked, since the last look (slcan).
    idle_frames: u64,
    /// Whoever else wants to see every frame, ours too.
    witness: Option<Witness>,
    /// A clearing that nobody acknowledged may still be sent by the controller.
    pending_clear: bool,
    begun: Instant,
}

impl Node {
    /// Opens the link and listens before anything is sent.
    ///
    /// # Errors
    /// [`AdapterError`] saying what to do.
    pub async fn open(link: &VehicleLink) -> Result<Self, AdapterError> {
        match link {
            VehicleLink::Can { interface, bitrate } => Self::open_interface(interface, *bitrate).await,
            VehicleLink::Slcan { transport, bitrate } => Self::open_slcan(transport, *bitrate).await,
            VehicleLink::Elm327(_) => Err(AdapterError::NotSlcan("the link is an ELM327's".into())),
        }
    }

    async fn open_interface(name: &str, bitrate: Option<u32>) -> Result<Self, AdapterError> {
        let state = ready_interface(name, bitrate).await?;
        is_of_obd(name, state.bitrate)?;
        let bus = Bus::Kernel(CanSocket::open(name)?);
        let mut node = Self::new(bus, name, format!("SocketCAN {name}"), state.bitrate);
        match node.listen(LISTEN).await? {
            FirstSound::Nonsense => Err(node.wrong_rate()),
            FirstSound::Silence | FirstSound::Traffic => {
                node.bus.pass(&address::answers());
                Ok(node)
            }
        }
    }

    async fn open_slcan(transport: &Transport, bitrate: Option<u32>) -> Result<Self, AdapterError> {
        is_of_obd(&transport.to_string(), bitrate)?;
        let slcan = Slcan::open(transport).await?;
        let identity = slcan.name.clone();
        let mut rates = bitrate.map_or_else(|| RATES.to_vec(), |rate| vec![rate]);
        rates.reverse();
        let first = rates.pop();
        let mut node = Self::new(Bus::Slcan(Box::new(slcan)), &transport.to_string(), identity, first);
        node.other_rates = rates;
        node.may_try_rates = bitrate.is_none();
        loop {
            node.join(Join::Hear).await?;
            if node.listen(LISTEN).await? != FirstSound::Nonsense {
                node.join(Join::Ask).await?;
                return Ok(node);
            }
            node.leave().await;
            node.other_rate()?;
        }
    }

    fn new(bus: Bus, name: &str, identity: String, bitrate: Option<u32>) -> Self {
        Self {
            bus,
            name: name.to_owned(),
            identity: Identity { name: identity, ..Identity::default() },
            bitrate,
            may_try_rates: false,
            other_rates: Vec::new(),
            width: None,
            known: BTreeSet::new(),
            conversations: Conversations::new(MOST_BYTES),
            signs: groups::Signs::default(),
            car_takes: MOST_PIDS,
            tally: Tally::new(name),
            received: None,
            idle_frames: 0,
            witness: None,
            pending_clear: false,
            begun: Instant::now(),
        }
    }

    /// Adapter and interface.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// ID length and bit rate, once a unit answered. ISO 15765-4 knows two rates, and no other
    /// is asked at; a bus without one (vcan) counts as the faster.
    #[must_use]
    pub fn protocol(&self) -> Option<Protocol> {
        if self.signs.settled {
            return Some(Protocol::J1939);
        }
        let slow = self.bitrate == Some(250_000);
        Some(match (self.width?, slow) {
            (Width::Eleven, false) => Protocol::Can11At500,
            (Width::TwentyNine, false) => Protocol::Can29At500,
            (Width::Eleven, true) => Protocol::Can11At250,
            (Width::TwentyNine, true) => Protocol::Can29At250,
        })
    }

    /// How many PIDs one request may hold, with this car.
    #[must_use]
    pub fn most_pids(&self) -> usize {
        self.car_takes
    }

    /// The car at hand takes only so many PIDs in one request.
    pub fn limit_pids(&mut self, most: usize) {
        self.car_takes = most.clamp(1, self.car_takes);
    }

    /// What the bus or this box suffered lately, as code and words for `device.state`.
    #[must_use]
    pub fn limitation(&self) -> Option<(&'static str, String)> {
        if self.pending_clear {
            let words = format!(
                "{}: a clearing that nobody acknowledged may still be sent: connect no other car before the adapter was unplugged and plugged in again, or the interface taken down and up; baygate-can.socket does that by itself where it is enabled",
                self.name
            );
            return Some(("clear-pending", words));
        }
        self.tally.limitation(self.begun.elapsed())
    }

    /// Shows every frame from now on, ours too, to `witness`.
    pub fn set_witness(&mut self, witness: Witness) {
        self.witness = Some(witness);
    }

    /// Hears an slcan adapter while nothing is asked: its frames wait in no socket of the kernel.
    /// Never ends but by an error. Safe to cancel.
    pub async fn idle(&mut self) -> AdapterError {
        if matches!(self.bus, Bus::Kernel(_)) {
            return std::future::pending().await;
        }
        loop {
            let heard = match self.bus.hear().await {
                Ok(heard) => heard,
                Err(error) => return error,
            };
            self.idle_frames += u64::from(!matches!(heard, Heard::Trouble(_)));
            if let Err(error) = self.count(heard) {
                return error;
            }
        }
    }

    /// Sends a frame. False: it did not leave.
    async fn send(&mut self, frame: &Frame) -> Result<bool, AdapterError> {
        let sent = self.bus.send(frame).await?;
        if let Some(witness) = self.witness.as_ref().filter(|_| sent) {
            witness(frame);
        }
        Ok(sent)
    }

    /// Requests go out as CAN FD frames only where the bus has nothing else: what answers in
    /// FD is understood in any case.
    fn asks_in_fd(&self) -> bool {
        self.tally.talks_fd_only()
    }

    /// The bus began to talk since the last call, after it had been silent: a car woke or came.
    pub fn stirred(&mut self) -> bool {
        let before = self.received;
        let more = self.look_at_counter().zip(before).map_or(0, |(now, before)| now.saturating_sub(before));
        if more > 0 {
            self.tally.stir(self.begun.elapsed());
        }
        self.tally.unasked(more, self.begun.elapsed());
        self.tally.stirred()
    }

    /// What the bus says without being asked, as of the last [`Self::stirred`] or [`Self::check`].
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        self.tally.traffic(self.begun.elapsed())
    }

    fn look_at_counter(&mut self) -> Option<u64> {
        if let Bus::Kernel(socket) = &self.bus {
            self.received = interface::received(socket.interface());
        }
        self.received
    }

    /// Hears what the bus had to say since the last question.
    ///
    /// # Errors
    /// [`AdapterError`] when the bus is no longer usable.
    pub async fn check(&mut self) -> Result<(), AdapterError> {
        self.bus.check().await?;
        let drained = self.drain().await? + std::mem::take(&mut self.idle_frames);
        match &self.bus {
            // Over the kernel the filters let only answers come so far; its counter tells.
            Bus::Kernel(_) if self.tally.is_nonsense() => Err(self.wrong_rate()),
            Bus::Kernel(_) => Ok(()),
            // It keeps its error flag from the last question that nobody acknowledged: no sign of a wrong rate.
            Bus::Slcan(_) => {
                self.tally.unasked(drained, self.begun.elapsed());
                Ok(())
            }
        }
    }

    /// After the bus fell silent: the next question searches anew.
    pub fn forget(&mut self) {
        self.width = None;
        self.signs = groups::Signs::default();
        self.car_takes = MOST_PIDS;
        self.tally.forget_form();
        self.known.clear();
        self.conversations.clear();
        self.bus.pass(&address::answers());
        if self.may_try_rates {
            self.other_rates = RATES.into_iter().filter(|rate| Some(*rate) != self.bitrate).collect();
        }
    }

    /// Asks. Silence and refusals are answers. `lines`: how many units answer, when that is certain.
    ///
    /// # Errors
    /// [`AdapterError`] when the bus is no longer usable.
    pub async fn ask(&mut self, request: Request, lines: Option<u8>) -> Result<Answer, AdapterError> {
        if self.signs.settled {
            return Ok(Answer { complaints: vec![Complaint::NoAddress], ..Answer::default() });
        }
        loop {
            let answer = self.ask_at_this_rate(request, lines).await?;
            if self.width.is_some() || !self.tally.is_nonsense() && !unheard(&answer) {
                return Ok(answer);
            }
            // Nobody acknowledges, or only nonsense: perhaps the other rate. At once, for at a
            // wrong one every frame of ours disturbs the car.
            if self.other_rates.is_empty() {
                return if self.tally.is_nonsense() { Err(self.wrong_rate()) } else { Ok(answer) };
            }
            self.leave().await;
            self.other_rate()?;
            self.join(Join::Hear).await?;
            if self.listen(LISTEN).await? == FirstSound::Nonsense {
                self.leave().await;
                return Err(self.wrong_rate());
            }
            self.join(Join::Ask).await?;
        }
    }

    async fn ask_at_this_rate(
        &mut self,
        request: Request,
        lines: Option<u8>,
    ) -> Result<Answer, AdapterError> {
        let both = [Width::Eleven, Width::TwentyNine];
        let widths = match (request.target(), self.width) {
            (Target::Unit(id), known) => {
                // Data (signal sets) may name units; which addresses there are is the gate's.
                let width = Width::of(id);
                let here = known.is_none_or(|known| known == width);
                if !here || UnitAddress::on(width.protocol(), id).is_none() {
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
        for width in widths {
            answer = self.ask_on(width, request, lines).await?;
            if answer.is_spoilt() {
                // A frame was lost: once more, as a dongle's driver does.
                answer = self.ask_on(width, request, None).await?;
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
        self.drain().await?;
        self.tally.begin_question();
        self.conversations.clear();
        let to = address::request_id(width, request.target());
        self.bus.pass(&address::passes(to, request.target()));
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
        // Some interfaces count what we send, too.
        self.look_at_counter();
        // Whoever answered physically need not answer everybody's questions.
        if request.target() == Target::Functional {
            self.known.extend(asking.answered.iter().copied());
        }
        let mut answer = Answer::default();
        if asking.is_empty() {
            let flagged = self.flagged().await?;
            let unheard = !sent || flagged || self.tally.unacknowledged() || self.tally.is_nonsense();
            answer.complaints.push(if unheard { Complaint::CanError } else { Complaint::NoData });
        } else {
            self.tally.answered(self.begun.elapsed());
        }
        Ok(answer.sort(asking.assembled, request))
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

    /// Counts what was heard; some things end the link.
    fn count(&mut self, heard: Heard) -> Result<(), AdapterError> {
        let now = self.begun.elapsed();
        match heard {
            Heard::Frame(frame) => {
                self.signs.frame(&frame);
                self.tally.frame(now);
                self.tally.form(frame.is_fd());
                if let Some(witness) = &self.witness {
                    witness(&frame);
                }
            }
            Heard::Other => self.tally.frame(now),
            Heard::Trouble(trouble) => {
                self.tally.trouble(trouble, now);
                if let BusTrouble { bus_off: true, restarted: false, .. } = trouble {
                    return Err(AdapterError::BusOff(self.name.clone()));
                }
            }
        }
        self.tally.dropped(self.bus.dropped(), now);
        Ok(())
    }

    async fn listen(&mut self, time: Duration) -> Result<FirstSound, AdapterError> {
        let until = Instant::now() + time;
        self.tally.begin_question();
        self.bus.check().await?;
        while let Ok(heard) = timeout_at(until, self.bus.hear()).await {
            self.count(heard?)?;
            if self.tally.is_nonsense() {
                return Ok(FirstSound::Nonsense);
            }
        }
        let flagged = self.flagged().await?;
        Ok(match (self.tally.frames_in_question(), flagged || self.tally.is_nonsense()) {
            (0, true) => FirstSound::Nonsense,
            (0, false) => FirstSound::Silence,
            _ => FirstSound::Traffic,
        })
    }

    /// An slcan adapter's error flags, which it tells only when asked. False over the kernel,
    /// which tells by itself.
    async fn flagged(&mut self) -> Result<bool, AdapterError> {
        if matches!(self.bus, Bus::Kernel(_)) {
            return Ok(false);
        }
        self.bus.check().await?;
        let until = Instant::now() + FLAGS_WITHIN;
        while !self.tally.is_flagged()
            && let Ok(heard) = timeout_at(until, self.bus.hear()).await
        {
            self.count(heard?)?;
        }
        Ok(self.tally.is_flagged())
    }

    /// What lies there belongs to no question; how many frames it were.
    async fn drain(&mut self) -> Result<u64, AdapterError> {
        let mut frames = 0;
        for _ in 0..MOST_STALE {
            let Some(heard) = self.bus.heard().await? else { break };
            frames += u64::from(!matches!(heard, Heard::Trouble(_)));
            self.count(heard)?;
        }
        Ok(frames)
    }

    async fn join(&mut self, how: Join) -> Result<(), AdapterError> {
        match &mut self.bus {
            Bus::Slcan(slcan) => slcan.join(self.bitrate.unwrap_or(RATES[0]), how).await,
            Bus::Kernel(_) => Ok(()),
        }
    }

    async fn leave(&mut self) {
        if let Bus::Slcan(slcan) = &mut self.bus
            && let Err(error) = slcan.leave().await
        {
            tracing::debug!(%error, "slcan adapter not told to leave the bus");
        }
    }

    fn other_rate(&mut self) -> Result<(), AdapterError> {
        let wrong = self.wrong_rate();
        self.bitrate = Some(self.other_rates.pop().ok_or(wrong)?);
        self.tally.begin_question();
        Ok(())
    }

    fn wrong_rate(&self) -> AdapterError {
        let tried = self.bitrate.map_or_else(|| "?".to_owned(), |rate| rate.to_string());
        AdapterError::WrongBitRate { bus: self.name.clone(), tried }
    }
}

/// Whether nobody acknowledged the question.
fn unheard(answer: &Answer) -> bool {
    answer.complaints.contains(&Complaint::CanError)
}

/// Only at the two rates of ISO 15765-4 is anything sent; a bus without a rate is virtual.
fn is_of_obd(bus: &str, bitrate: Option<u32>) -> Result<(), AdapterError> {
    match bitrate {
        Some(bitrate) if !RATES.contains(&bitrate) => {
            Err(AdapterError::NotObdRate { bus: bus.to_owned(), bitrate })
        }
        _ => Ok(()),
    }
}

/// An interface that is up at the rate that was asked for, by the helper's hand if need be.
async fn ready_interface(name: &str, bitrate: Option<u32>) -> Result<interface::State, AdapterError> {
    let state = interface::state(name)?;
    let stuck = state.bus_off && !state.restarts;
    let Some(wanted) = bitrate else {
        let what = "it is in listen-only mode and cannot ask; write bitrate= into the link";
        return match state {
            interface::State { up: false, .. } => Err(InterfaceError::Down { name: name.to_owned() }.into()),
            interface::State { listen_only: true, .. } => {
                Err(InterfaceError::Other { name: name.to_owned(), what: what.into() }.into())
            }
            _ if stuck => Err(AdapterError::BusOff(name.to_owned())),
            state => Ok(state),
        };
    };
    // What is up without a rate is virtual, and has none.
    let right = state.up && state.bitrate.is_none_or(|rate| rate == wanted) && !state.listen_only;
    if right && !stuck {
        return Ok(state);
    }
    interface::set_up(name, wanted, false).await?;
    Ok(interface::state(name)?)
}
