//! The two ways onto a bus as one: frames out, frames and trouble in. What lives
//! here: opening, the order of an slcan adapter's commands, and what cannot be
//! sent. What does not: requests and answers ([`super::node`]).

use std::collections::VecDeque;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};

use super::slcan::{Command, Lines, Rate, Said};
use crate::config::values::Transport;
use crate::link::can::{BusTrouble, CanSocket, Frame, Heard, Pass};
use crate::link::{self, ByteStream};
use crate::vehicle::error::AdapterError;

/// A frame that does not leave in this time is acknowledged by nobody.
const SEND_LIMIT: Duration = Duration::from_millis(100);
/// An slcan command is answered within some milliseconds, over Wi-Fi some hundred.
const COMMAND_LIMIT: Duration = Duration::from_millis(500);
/// Rate of a serial port where nothing says otherwise; over USB it means nothing.
const SERIAL_BAUD: u32 = 115_200;
/// An adapter that told its flags before and owes them for so long has left the bus: the answer
/// may be delayed, by Wi-Fi some hundred milliseconds.
const FLAGS_OWED: Duration = Duration::from_secs(2);
/// Frames kept while a command's answer is waited for.
const MOST_WAITING: usize = 4096;

/// A way onto a bus.
pub(super) enum Bus {
    Kernel(CanSocket),
    Slcan(Box<Slcan>),
}

impl Bus {
    /// False: the frame did not leave.
    pub(super) async fn send(&mut self, frame: &Frame) -> Result<bool, AdapterError> {
        let sent = match self {
            Self::Kernel(socket) => {
                timeout(SEND_LIMIT, socket.send(frame)).await.map(|sent| sent.map_err(Into::into))
            }
            Self::Slcan(slcan) => timeout(SEND_LIMIT, slcan.write(Command::Send(*frame))).await,
        };
        sent.map_or(Ok(false), |sent| sent.map(|()| true))
    }

    /// Waits for what the bus brings. Safe to cancel.
    pub(super) async fn hear(&mut self) -> Result<Heard, AdapterError> {
        match self {
            Self::Kernel(socket) => Ok(socket.hear().await?),
            Self::Slcan(slcan) => slcan.hear().await,
        }
    }

    /// What is there already.
    pub(super) async fn heard(&mut self) -> Result<Option<Heard>, AdapterError> {
        match self {
            Self::Kernel(socket) => Ok(socket.heard()?),
            Self::Slcan(slcan) => match timeout(Duration::ZERO, slcan.hear()).await {
                Ok(heard) => heard.map(Some),
                Err(_) => Ok(None),
            },
        }
    }

    /// Only these frames are wanted from now on; none at all: everything. slcan has no such filter.
    pub(super) fn pass(&self, passes: &[Pass]) {
        if let Self::Kernel(socket) = self
            && let Err(error) = socket.pass(passes)
        {
            tracing::debug!(%error, "filters not set; everything is heard");
        }
    }

    /// Whether a frame of ours is heard when it has left. An slcan adapter tells nothing of it.
    pub(super) fn hear_own(&self, own: bool) {
        if let Self::Kernel(socket) = self
            && let Err(error) = socket.hear_own(own)
        {
            tracing::debug!(%error, "own frames not heard");
        }
    }

    /// Asks the adapter for its error flags; the kernel tells without being asked.
    pub(super) async fn check(&mut self) -> Result<(), AdapterError> {
        match self {
            Self::Kernel(_) => Ok(()),
            Self::Slcan(slcan) => slcan.ask_flags().await,
        }
    }

    /// Whether the adapter still owes its flags, which it told before. Off the bus it has none
    /// (CAN232 manual: `F` is answered while the channel is open).
    pub(super) fn owes_flags(&self) -> bool {
        matches!(self, Self::Slcan(slcan) if slcan.tells_flags && slcan.flags_asked.is_some())
    }

    /// Whether it has told its flags since it was last asked for them.
    pub(super) fn told_flags(&self) -> bool {
        matches!(self, Self::Slcan(slcan) if slcan.tells_flags && slcan.flags_asked.is_none())
    }

    /// # Errors
    /// [`AdapterError::Unjoined`] when it has owed them for too long.
    pub(super) fn still_joined(&self) -> Result<(), AdapterError> {
        match self {
            Self::Slcan(slcan)
                if self.owes_flags()
                    && slcan.flags_asked.is_some_and(|asked| asked.elapsed() >= FLAGS_OWED) =>
            {
                Err(slcan.unjoined())
            }
            Self::Kernel(_) | Self::Slcan(_) => Ok(()),
        }
    }

    /// Waits for the flags that are owed; what was heard meanwhile.
    ///
    /// # Errors
    /// [`AdapterError::Unjoined`] when they do not come.
    pub(super) async fn prove_joined(&mut self) -> Result<Vec<Heard>, AdapterError> {
        let mut heard = Vec::new();
        if !self.owes_flags() {
            return Ok(heard);
        }
        self.check().await?;
        let until = Instant::now() + FLAGS_OWED / 2;
        while self.owes_flags() && heard.len() < MOST_WAITING {
            match (timeout_at(until, self.hear()).await, &*self) {
                (Ok(one), _) => heard.push(one?),
                (Err(_), Self::Slcan(slcan)) => return Err(slcan.unjoined()),
                (Err(_), Self::Kernel(_)) => break,
            }
        }
        Ok(heard)
    }

    /// Lines so far that were none: characters were lost or changed on the way.
    pub(super) fn garbled(&self) -> u64 {
        match self {
            Self::Kernel(_) => 0,
            Self::Slcan(slcan) => slcan.garbled,
        }
    }

    pub(super) fn dropped(&self) -> u32 {
        match self {
            Self::Kernel(socket) => socket.dropped(),
            Self::Slcan(_) => 0,
        }
    }
}

/// What for the bus is joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Join {
    /// To send.
    Ask,
    /// To hear what is there before anything is sent, as silently as the adapter can.
    Hear,
    /// The adapter must confirm that it will send nothing.
    ProvenSilent,
}

/// Ends an answer that is nothing else.
fn is_final(said: &Said) -> bool {
    matches!(said, Said::Done | Said::Failed)
}

/// An slcan adapter on a byte stream.
pub(super) struct Slcan {
    stream: Box<dyn ByteStream>,
    lines: Lines,
    waiting: VecDeque<Said>,
    /// It told its flags since it was opened, and when it was first asked since it last did.
    tells_flags: bool,
    flags_asked: Option<Instant>,
    /// Lines that were none.
    garbled: u64,
    pub(super) name: String,
}

impl Slcan {
    /// Opens the stream and learns who is there. The adapter is off the bus.
    pub(super) async fn open(transport: &Transport) -> Result<Self, AdapterError> {
        let baud = match transport {
            Transport::Serial { baud: None, .. } => Some(SERIAL_BAUD),
            _ => None,
        };
        let stream = link::open(transport, baud).await?;
        let mut slcan = Self {
            stream,
            lines: Lines::default(),
            waiting: VecDeque::new(),
            tells_flags: false,
            flags_asked: None,
            garbled: 0,
            name: "slcan".into(),
        };
        // Ends what an earlier talk left, and leaves the bus in whatever state it is.
        for command in [Command::Nothing, Command::Nothing, Command::Close] {
            slcan.write(command).await?;
        }
        // Whatever a listening adapter still sends ends here.
        while slcan.answer(|_| false, COMMAND_LIMIT / 4).await?.is_some() {}
        slcan.waiting.clear();
        let version = slcan
            .ask(Command::Version, |said| matches!(said, Said::Version(_) | Said::Failed | Said::Done))
            .await?;
        let serial = slcan
            .ask(Command::Serial, |said| matches!(said, Said::Serial(_) | Said::Failed | Said::Done))
            .await?;
        let told = matches!(version, Some(Said::Version(_))) || matches!(serial, Some(Said::Serial(_)));
        if !told && slcan.waiting.contains(&Said::Garbage) {
            return Err(AdapterError::NotSlcan("it answers with something else".into()));
        }
        if version.is_none() && serial.is_none() {
            return Err(AdapterError::NotSlcan("it does not answer".into()));
        }
        if let Some(Said::Version(version)) = version {
            slcan.name.push_str(&format!(" V{version}"));
        }
        if let Some(Said::Serial(serial)) = serial {
            slcan.name.push_str(&format!(" N{serial}"));
        }
        slcan.waiting.clear();
        Ok(slcan)
    }

    /// Joins the bus.
    pub(super) async fn join(&mut self, bitrate: u32, how: Join) -> Result<(), AdapterError> {
        let rate = Rate::of(bitrate).ok_or_else(|| {
            AdapterError::NotSlcan(format!("slcan has no bit rate of {bitrate} bit/s; use 500000 or 250000"))
        })?;
        // Some answer BEL to closing what is closed.
        self.leave().await?;
        self.waiting.clear();
        self.flags_asked = None;
        if self.ask(Command::Rate(rate), is_final).await? == Some(Said::Failed) {
            return Err(AdapterError::NotSlcan(format!("it refuses the bit rate {bitrate}")));
        }
        let command = if how == Join::Ask { Command::Open } else { Command::Listen };
        match (self.ask(command, is_final).await?, how) {
            (Some(Said::Failed), Join::Ask) => {
                Err(AdapterError::NotSlcan("it refuses to join the bus".into()))
            }
            // It does not know `L`. Most of what listening shows is heard so, too.
            (Some(Said::Failed), Join::Hear) => {
                self.ask(Command::Open, is_final).await?;
                Ok(())
            }
            (Some(Said::Failed), Join::ProvenSilent) => {
                Err(AdapterError::NotListenOnly("the adapter refuses L".into()))
            }
            (None, Join::ProvenSilent) => {
                Err(AdapterError::NotListenOnly("the adapter does not confirm L".into()))
            }
            // Some firmwares never answer; then only frames tell.
            _ => Ok(()),
        }
    }

    /// Frames that came while a command's answer was waited for; nothing is read.
    pub(super) fn take_waiting(&mut self) -> Vec<Frame> {
        let frames = self.waiting.drain(..).filter_map(|said| match said {
            Said::Frame(frame) => Some(frame),
            _ => None,
        });
        frames.collect()
    }

    /// Asks for the error flags, which come when they come.
    pub(super) async fn ask_flags(&mut self) -> Result<(), AdapterError> {
        self.flags_asked.get_or_insert_with(Instant::now);
        self.write(Command::Flags).await
    }

    fn unjoined(&self) -> AdapterError {
        AdapterError::Unjoined(self.name.clone())
    }

    /// Leaves the bus.
    pub(super) async fn leave(&mut self) -> Result<(), AdapterError> {
        self.ask(Command::Close, is_final).await.map(|_| ())
    }

    async fn write(&mut self, command: Command) -> Result<(), AdapterError> {
        let write = async {
            self.stream.write_all(&command.wire()).await?;
            self.stream.flush().await
        };
        let written =
            timeout(COMMAND_LIMIT, write).await.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
        written.map_err(|error| AdapterError::Gone(error.to_string()))
    }

    /// Says a command; the answer that `ends` it, `None` when none came in time.
    async fn ask(
        &mut self,
        command: Command,
        ends: impl Fn(&Said) -> bool,
    ) -> Result<Option<Said>, AdapterError> {
        self.write(command).await?;
        self.answer(ends, COMMAND_LIMIT).await
    }

    /// Waits for an answer; frames that come meanwhile are kept. Without one that `ends`, the last said.
    async fn answer(
        &mut self,
        ends: impl Fn(&Said) -> bool,
        limit: Duration,
    ) -> Result<Option<Said>, AdapterError> {
        let deadline = Instant::now() + limit;
        loop {
            let said = match timeout_at(deadline, self.read()).await {
                Ok(said) => said?,
                Err(_) => return Ok(None),
            };
            let mut answer = None;
            for said in said {
                if answer.is_none() && ends(&said) {
                    answer = Some(said);
                } else if self.waiting.len() < MOST_WAITING {
                    self.waiting.push_back(said);
                }
            }
            if answer.is_some() {
                return Ok(answer);
            }
        }
    }

    async fn read(&mut self) -> Result<Vec<Said>, AdapterError> {
        let mut bytes = [0; 512];
        match self.stream.read(&mut bytes).await {
            Ok(0) => Err(AdapterError::Gone("the adapter closed the connection".into())),
            Ok(count) => Ok(self.lines.feed(bytes.get(..count).unwrap_or_default())),
            Err(error) => Err(AdapterError::Gone(error.to_string())),
        }
    }

    async fn hear(&mut self) -> Result<Heard, AdapterError> {
        loop {
            while let Some(said) = self.waiting.pop_front() {
                match said {
                    Said::Flags(_) => (self.tells_flags, self.flags_asked) = (true, None),
                    Said::Garbage => self.garbled += 1,
                    _ => {}
                }
                if let Some(heard) = said.heard() {
                    return Ok(heard);
                }
                // Without a flag set: no trouble, and a sign of life.
                if matches!(said, Said::Flags(_)) {
                    return Ok(Heard::Trouble(BusTrouble::default()));
                }
                // A frame that it could not take: nobody acknowledges the ones before.
                if said == Said::Failed {
                    return Ok(Heard::Trouble(BusTrouble { unacknowledged: true, ..BusTrouble::default() }));
                }
            }
            let said = self.read().await?;
            self.waiting.extend(said);
        }
    }
}
