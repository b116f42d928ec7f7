//! The thin task: waits for the connection, the log, the clock and the stop
//! signal, and feeds the session. Reconnects for ever. What the session says is
//! done in `carry`; what comes in from headquarters: `incoming`; the retained
//! `state`: `presence`; whether the line does its work: `watch`.

mod carry;
mod incoming;
mod presence;
mod tally;
mod watch;

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::tally::Tally;
use super::backoff::Backoff;
use super::desired::Desired;
use super::desk::Desk;
use super::drain::{Drain, Page, Reading};
use super::fault::Fault;
use super::greeting::{Connections, Phase};
use super::pipe::{Packet, Pipe, PipeEvent};
use super::session::{Input, Outcome, Policy, Session, Token};
use super::topics::Topics;
use super::voice::Voice;
use super::{Setup, UplinkError};
use crate::clock::UtcMillis;
use crate::config::tables::{Confirm, MqttVersion};
use crate::health::Health;
use crate::store::{Head, Store, StoreError};

/// The publish of the retained `state`; events count from one.
const STATE: Token = 0;
/// The publish of "offline" in an orderly stop: a late PUBACK of `STATE` must not pass for it.
const OFFLINE: Token = Token::MAX;
/// The loop turns at least this often: heartbeats, dead lines, results of commands.
const TURN: Duration = Duration::from_secs(1);
/// What an orderly stop may take to settle what is in flight.
const LAST_SETTLE: Duration = Duration::from_millis(1500);
/// Events of the connection that are taken at once when they are there: arming all the
/// timers again for each would cost more than the event.
const BURST: usize = 64;
/// Backlog figures are read this often.
const FIGURES: Duration = Duration::from_secs(5);

/// How a connection ended.
enum Ended {
    Stopped,
    Lost(Fault),
    Closed(StoreError),
}

/// Why a turn did not go well.
enum Failed {
    Fault(Fault),
    Store(StoreError),
}

impl From<Fault> for Failed {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

fn ended(failed: Failed) -> Ended {
    match failed {
        Failed::Fault(fault) => Ended::Lost(fault),
        Failed::Store(StoreError::Closed) => Ended::Closed(StoreError::Closed),
        Failed::Store(error) => Ended::Lost(Fault::Store(error.to_string())),
    }
}

/// What woke the loop.
enum Turn {
    Event(PipeEvent),
    Read(Vec<Page>),
    Noted,
    Grown,
    Stop,
    Tick,
}

/// One connection's own.
struct Line {
    pipe: Pipe,
    /// Pages on their way to the session.
    reading: FuturesUnordered<Reading>,
    connection: Uuid,
    since: UtcMillis,
    phase: Phase,
    state_due: Option<Instant>,
    stopping: Option<Instant>,
    /// The broker answered a `state`.
    answered: bool,
    /// Nobody pings: `state` does it.
    pingless: bool,
}

/// The task.
pub(super) struct Driver {
    setup: Setup,
    store: Store,
    stop: CancellationToken,
    topics: Topics,
    session: Session<Packet>,
    drain: Drain,
    desk: Desk,
    desired: Desired,
    voice: Voice,
    tally: Tally,
    connections: Connections,
    backoff: Backoff,
    seen: Head,
    figures_due: Instant,
}

impl Driver {
    pub(super) fn new(setup: Setup, store: Store, health: Health, stop: CancellationToken) -> Self {
        let topics = Topics::new(&setup.table.root, &setup.source);
        let drain = Drain::new(store.clone(), setup.source.clone(), topics.clone());
        let policy = Policy {
            confirm: setup.table.confirm,
            confirm_timeout: setup.table.confirm_timeout,
            max_in_flight: setup.table.max_in_flight.max(1),
            max_in_flight_bytes: setup.table.max_in_flight_bytes,
            max_packet_bytes: u64::from(setup.table.max_packet_bytes),
            replay_per_s: setup.table.replay_per_s,
        };
        if setup.table.version == MqttVersion::V311 && setup.table.confirm == Confirm::Broker {
            tracing::warn!(
                "mqtt.version 3.1.1 cannot show refused events; set mqtt.confirm = \"headquarters\" or use version \"5\""
            );
        }
        let seed = Uuid::new_v4().as_u64_pair().0;
        let seen = *store.head().borrow();
        Self {
            session: Session::new(policy, &[], seed)
                .comparing(|one, other: &Packet| one.topic == other.topic),
            drain,
            desired: Desired::start(setup.clone(), store.clone()),
            desk: Desk::new(store.clone(), &setup),
            voice: Voice::new(health),
            tally: Tally::new(),
            connections: Connections::default(),
            backoff: Backoff::new(setup.pace.backoff_first, setup.pace.backoff_most, seed),
            topics,
            setup,
            store,
            stop,
            seen,
            figures_due: Instant::now(),
        }
    }

    /// Until `stop`.
    pub(super) async fn run(mut self) -> Result<(), UplinkError> {
        loop {
            let began = Instant::now();
            // What the session judged and nobody committed (a set-aside that the log did
            // not take) must not be passed over: the log alone says where to go on.
            let ended = match self.drain.delivered().await {
                Ok(delivered) => {
                    self.session.step(began, Input::TakeUp { delivered });
                    self.connection().await
                }
                Err(StoreError::Closed) => Ended::Closed(StoreError::Closed),
                Err(error) => Ended::Lost(Fault::Store(error.to_string())),
            };
            let hung_up = matches!(&ended, Ended::Lost(fault) if fault.is_hang_up());
            self.session.step(Instant::now(), if hung_up { Input::HungUp } else { Input::Lost });
            if let Err(error) = self.drain.commit().await {
                // Positions not noted are only sent once more.
                if let Some(left_out) = self.voice.may_say("positions") {
                    tracing::warn!(%error, left_out, "delivered positions not committed");
                }
            }
            let fault = match ended {
                Ended::Stopped => return Ok(()),
                Ended::Closed(error) => return Err(error.into()),
                Ended::Lost(fault) => fault,
            };
            // Who accepts and says nothing holds the line for long, too.
            let healthy = self.voice.has_proven() && began.elapsed() >= self.setup.pace.healthy_after;
            if healthy && fault != Fault::TakenOver {
                self.backoff.reset();
            }
            let wait = self.backoff.wait();
            self.voice.lost(fault, wait);
            self.voice.hangs_up(self.session.hangs_up_at());
            if self.pause(wait).await {
                return Ok(());
            }
        }
    }

    /// Waits before the next try. True when it is time to stop.
    async fn pause(&mut self, wait: Duration) -> bool {
        let until = Instant::now() + wait;
        loop {
            self.voice.beat();
            if let Err(error) = self.desk.settle().await
                && let Some(left_out) = self.voice.may_say("results")
            {
                tracing::warn!(%error, left_out, "results of commands not committed");
            }
            let now = Instant::now();
            if now >= until {
                return false;
            }
            tokio::select! {
                () = self.stop.cancelled() => return true,
                () = sleep_until(until.min(now + TURN).into()) => {}
            }
        }
    }

    async fn connection(&mut self) -> Ended {
        let connection = self.connections.begin();
        let dial = match self.setup.dial(&self.topics, connection) {
            Ok(dial) => dial,
            Err(fault) => return Ended::Lost(fault),
        };
        let now = Instant::now();
        let mut line = Line {
            pipe: Pipe::open(dial),
            reading: FuturesUnordered::new(),
            connection,
            since: UtcMillis::now(),
            phase: Phase::dialling(now, self.setup.pace.connect_timeout + TURN),
            state_due: None,
            stopping: None,
            answered: false,
            pingless: false,
        };
        let mut head = self.store.head();
        loop {
            self.voice.beat();
            let wake = self.wake(&line).into();
            let turn = tokio::select! {
                () = self.stop.cancelled(), if line.stopping.is_none() => Turn::Stop,
                event = line.pipe.next() => Turn::Event(event),
                Some(pages) = line.reading.next(), if !line.reading.is_empty() => match pages {
                    Ok(pages) => Turn::Read(pages),
                    Err(error) => return ended(error.into()),
                },
                committed = self.drain.committed() => match committed {
                    Ok(()) => Turn::Noted,
                    Err(error) => return ended(error.into()),
                },
                grown = head.changed() => match grown {
                    Ok(()) => Turn::Grown,
                    Err(_) => return Ended::Closed(StoreError::Closed),
                },
                () = sleep_until(wake) => Turn::Tick,
            };
            let more = matches!(turn, Turn::Event(_));
            let mut turned = self.turn(&mut line, turn).await;
            for _ in 0..BURST {
                if turned.is_err() || !more {
                    break;
                }
                let Some(event) = line.pipe.ready() else { break };
                turned = self.turn(&mut line, Turn::Event(event)).await;
            }
            if let Err(failed) = turned {
                return ended(failed);
            }
            if line.stopping.is_some_and(|_| self.may_leave(&line)) {
                self.leave(line).await;
                return Ended::Stopped;
            }
        }
    }

    fn wake(&self, line: &Line) -> Instant {
        let due = [
            self.session.wake_at(),
            self.drain.due(self.setup.pace.commit_every),
            line.phase.deadline(),
            // Told on a live line alone: until then it wakes nobody.
            line.state_due.filter(|_| line.phase == Phase::Live),
            line.stopping,
        ];
        due.into_iter().flatten().chain([Instant::now() + TURN]).min().unwrap_or_else(Instant::now)
    }

    async fn turn(&mut self, line: &mut Line, turn: Turn) -> Result<(), Failed> {
        match turn {
            Turn::Stop => line.stopping = Some(Instant::now() + LAST_SETTLE),
            Turn::Grown => self.grown(line).await?,
            Turn::Tick => {
                self.tick(line).await?;
                self.feed(line, Input::Tick).await?;
            }
            Turn::Noted => {}
            Turn::Read(pages) => self.take_pages(line, pages).await?,
            Turn::Event(event) => self.event(line, event).await?,
        }
        if self.drain.due(self.setup.pace.commit_every).is_some_and(|due| due <= Instant::now()) {
            self.drain.begin_commit();
        }
        Ok(())
    }

    async fn grown(&mut self, line: &mut Line) -> Result<(), Failed> {
        let head = *self.store.head().borrow();
        self.desk.settle().await?;
        // Our own notes of what is delivered move `commits`, not `last`: no work, no loop.
        if std::mem::replace(&mut self.seen, head).last != head.last {
            line.state_due.get_or_insert_with(|| Instant::now() + self.setup.pace.state_every);
            // A reload is told at once: headquarters waits for it.
            if self.setup.about.changed() {
                line.state_due = Some(Instant::now());
            }
            self.feed(line, Input::Grown).await?;
        }
        Ok(())
    }

    async fn tick(&mut self, line: &mut Line) -> Result<(), Failed> {
        let now = Instant::now();
        match line.phase {
            Phase::Dialling { until } if until <= now => {
                return Err(Fault::Silent("no CONNACK in time").into());
            }
            Phase::Subscribing { until, .. } if until <= now => {
                return Err(Fault::Silent("no SUBACK in time").into());
            }
            Phase::Checking { until, .. } if until <= now => self.go_live(line).await?,
            _ => {}
        }
        self.check_line(line, now)?;
        if line.pingless && line.pipe.quiet_for() >= self.setup.pace.keep_alive {
            line.state_due = Some(now);
        }
        if self.desired.changed() {
            line.state_due = Some(now);
        }
        if line.phase == Phase::Live && line.state_due.take_if(|due| *due <= now).is_some() {
            self.tell_state(line).await?;
        }
        self.desk.settle().await?;
        self.prove(line);
        self.voice.hangs_up(self.session.hangs_up_at());
        if self.figures_due <= now {
            self.figures_due = now + FIGURES;
            self.figures().await?;
            self.voice.show();
        }
        Ok(())
    }

    async fn event(&mut self, line: &mut Line, event: PipeEvent) -> Result<(), Failed> {
        let now = Instant::now();
        match event {
            PipeEvent::Connected { limits, pingless } => {
                line.pingless = pingless;
                line.phase = Phase::subscribing(now, limits);
                line.pipe.subscribe(&self.topics.subscriptions())?;
            }
            PipeEvent::Subscribed { refused } => {
                if let Phase::Subscribing { limits, .. } = line.phase {
                    let echoed = !refused.contains(&self.topics.state());
                    if !refused.is_empty() {
                        self.voice.unsubscribed(Fault::NotSubscribed(refused.join(", ")));
                    }
                    self.tell_state(line).await?;
                    line.phase = Phase::checking(now, limits, echoed);
                }
            }
            PipeEvent::Settled { token: STATE, outcome } => {
                line.answered = true;
                self.prove(line);
                if let Outcome::Refused(code) = outcome
                    && let Some(left_out) = self.voice.may_say("state-refused")
                {
                    let code = format!("0x{code:02X}");
                    tracing::warn!(code, left_out, "retained state refused by the broker");
                }
            }
            PipeEvent::Settled { token, outcome } => {
                self.voice.proven();
                self.feed(line, Input::Settled { token, outcome }).await?;
            }
            PipeEvent::Incoming(incoming) => self.incoming(line, incoming).await?,
            PipeEvent::Lost(fault) => return Err(fault.into()),
        }
        Ok(())
    }
}
