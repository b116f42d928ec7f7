//! One exchange at a time over a byte stream. What lives here: writing a gated
//! command, waiting for the prompt before anything else is written, limits on
//! time and size, and finding back into step. What the lines mean is not here,
//! nor how a line is typed that must not lose a character (`typing`).
//!
//! ```text
//!  gateway                         adapter
//!     │ 0100 CR ───────────────────► │
//!     │ ◄────────── SEARCHING... CR  │   may be cut anywhere
//!     │ ◄──────── 7E8064100… CR CR   │
//!     │ ◄───────────────────────── > │   only now may the next command go
//! ```

mod pace;
mod typing;

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};

use super::lines::{LineReader, Piece};
use super::reply::{Line, classify};
use super::trace::Trace;
use crate::link::ByteStream;
use crate::vehicle::gate::Outgoing;
use pace::Pace;

pub use typing::Echo;

/// Lines of one reply: eight ECUs with messages of 2 KiB stay below.
const MAX_LINES: usize = 2_400;
/// Bytes of one reply without a prompt; beyond it the peer is no adapter.
const MAX_REPLY_BYTES: usize = 256 * 1024;
/// How long nothing must come before the adapter counts as idle again.
const QUIET: Duration = Duration::from_millis(120);
/// How long a probe is waited for.
const PROBE_LIMIT: Duration = Duration::from_millis(1_200);

/// An exchange failed.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// The stream ended or failed: the adapter went away.
    #[error("the adapter went away: {0}")]
    Gone(#[from] io::Error),
    /// No prompt in time.
    #[error("no prompt within {limit:?} ({bytes} byte(s) came)")]
    NoPrompt {
        /// How long it was waited for.
        limit: Duration,
        /// What came nevertheless.
        bytes: usize,
    },
    /// More than any reply can hold.
    #[error("more than {MAX_REPLY_BYTES} bytes or {MAX_LINES} lines without a prompt")]
    Flood,
    /// The adapter restarted by itself: its settings are lost.
    #[error("the adapter restarted")]
    Restarted,
    /// What it echoed is not what was typed, again and again: the line was never ended.
    #[error("the adapter does not read what is typed")]
    Misheard,
}

/// What came between a command and the prompt. Echo and empty lines are gone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reply {
    /// Lines as they came.
    pub lines: Vec<String>,
    /// Bytes that made no sense: over-long lines count as one.
    pub garbage: usize,
}

/// The one who writes to an adapter.
pub struct Port {
    stream: Box<dyn ByteStream>,
    reader: LineReader,
    waiting: VecDeque<Piece>,
    /// All bytes since the stream was opened.
    received: usize,
    /// A banner came while nobody looked at the lines.
    restarted: bool,
    /// The last reply began with the echo of its command.
    echoed: bool,
    pace: Pace,
    /// Typed texts in a row of which no character came back.
    unechoed: u32,
    /// No prompt came since the last command.
    busy: bool,
    /// The last line may have cleared codes, or may yet: a lone CR would do it again. So at first:
    /// whoever was connected before may have gone in the middle of one.
    holds_clearing: bool,
    trace: Option<Trace>,
}

impl Port {
    /// Over an open stream; `trace` records every byte.
    #[must_use]
    pub fn new(stream: Box<dyn ByteStream>, trace: Option<Trace>) -> Self {
        Self {
            stream,
            reader: LineReader::default(),
            waiting: VecDeque::new(),
            received: 0,
            restarted: false,
            echoed: false,
            pace: Pace::default(),
            unechoed: 0,
            busy: true,
            holds_clearing: true,
            trace,
        }
    }

    /// Gives the trace back, to go on with it on another stream.
    pub fn take_trace(&mut self) -> Option<Trace> {
        self.trace.take()
    }

    /// Sends one command and collects its reply up to the prompt.
    ///
    /// # Errors
    /// [`PortError`]. After anything but `Restarted`, [`Port::resync`] before the next exchange.
    pub async fn exchange(&mut self, command: Outgoing, limit: Duration) -> Result<Reply, PortError> {
        self.drop_stale()?;
        if std::mem::take(&mut self.restarted) {
            return Err(PortError::Restarted);
        }
        self.send(command, limit).await?;
        let reply = self.collect(command, Instant::now() + limit, limit).await;
        if let Some(trace) = &mut self.trace {
            trace.end_exchange();
        }
        reply
    }

    /// Interrupts whatever the adapter does and waits until it is idle.
    ///
    /// The first byte interrupts, and what comes while the adapter says so may be lost, up to a
    /// lone CR, which repeats the last command (data sheet). After a clearing, and where nobody
    /// knows what was before, the CR therefore waits for the prompt, behind more characters than
    /// a probe has.
    ///
    /// # Errors
    /// [`PortError`] when it does not come to itself.
    pub async fn resync(&mut self) -> Result<(), PortError> {
        let mut bytes = 0;
        let probe = if self.holds_clearing { Outgoing::Nonsense } else { Outgoing::Probe };
        for _ in 0..2 {
            if self.holds_clearing && self.busy {
                bytes += self.interrupt().await?;
            }
            self.send(probe, PROBE_LIMIT).await?;
            let deadline = Instant::now() + PROBE_LIMIT;
            let mut prompted = false;
            loop {
                let until = if prompted { Instant::now() + QUIET } else { deadline };
                match timeout_at(until, self.receive()).await {
                    Ok(received) => bytes += received?,
                    Err(_) => break,
                }
                prompted |= self.forget_waiting();
                if Instant::now() >= deadline + PROBE_LIMIT {
                    return Err(PortError::Flood);
                }
            }
            self.reader.clear();
            if let Some(trace) = &mut self.trace {
                trace.end_exchange();
            }
            if prompted {
                (self.holds_clearing, self.busy) = (false, false);
                return Ok(());
            }
        }
        Err(PortError::NoPrompt { limit: PROBE_LIMIT * 2, bytes })
    }

    /// Stops what the adapter does, and waits for its prompt. How many bytes came.
    async fn interrupt(&mut self) -> Result<usize, PortError> {
        self.send(Outgoing::Interrupt, PROBE_LIMIT).await?;
        // Who was never heard is idle, most likely, and then says nothing to it.
        let deadline = Instant::now() + if self.received == 0 { QUIET } else { PROBE_LIMIT };
        let mut bytes = 0;
        while let Ok(received) = timeout_at(deadline, self.receive()).await {
            bytes += received?;
            if self.forget_waiting() || bytes > MAX_REPLY_BYTES {
                break;
            }
        }
        Ok(bytes)
    }

    /// Whether the last line may have cleared codes, or may yet.
    #[must_use]
    pub fn holds_clearing(&self) -> bool {
        self.holds_clearing
    }

    /// Forgets that a banner came while nobody looked.
    pub fn forget_restart(&mut self) {
        self.restarted = false;
    }

    /// Whether the adapter ends lines with linefeeds, as far as it was heard.
    #[must_use]
    pub fn linefeeds(&self) -> bool {
        self.reader.linefeeds()
    }

    /// Whether typing a line with care costs less than what its digit saves: `told`, where the adapter was
    /// told how long to wait.
    #[must_use]
    pub fn typing_pays(&self, told: Option<Duration>) -> bool {
        self.pace.typing_pays(told)
    }

    /// How many bytes came since the stream was opened.
    #[must_use]
    pub fn bytes_received(&self) -> usize {
        self.received
    }

    /// Reads without ever writing (poll = "listen-only"). Returns the number of bytes, which nobody keeps.
    ///
    /// # Errors
    /// [`PortError::Gone`], [`PortError::Restarted`].
    pub async fn listen(&mut self) -> Result<usize, PortError> {
        let bytes = self.receive().await?;
        self.forget_waiting();
        if std::mem::take(&mut self.restarted) { Err(PortError::Restarted) } else { Ok(bytes) }
    }

    async fn send(&mut self, command: Outgoing, limit: Duration) -> Result<(), PortError> {
        self.write(command, &command.wire(), limit).await
    }

    /// Writes `wire`, all of a command or a part of it.
    async fn write(&mut self, command: Outgoing, wire: &[u8], limit: Duration) -> Result<(), PortError> {
        if let Some(trace) = &mut self.trace {
            trace.sent(command, wire);
        }
        self.busy = true;
        self.holds_clearing |= matches!(command, Outgoing::Clear(_));
        let write = async {
            self.stream.write_all(wire).await?;
            self.stream.flush().await
        };
        timeout(limit, write).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        Ok(())
    }

    async fn collect(
        &mut self,
        command: Outgoing,
        deadline: Instant,
        limit: Duration,
    ) -> Result<Reply, PortError> {
        let mut reply = Reply::default();
        let (mut bytes, mut last_data, mut read_at) = (0, None, Instant::now());
        self.echoed = false;
        loop {
            while let Some(piece) = self.waiting.pop_front() {
                match piece {
                    Piece::Prompt => {
                        self.busy = false;
                        // In one piece with its data it tells nothing: a module may have kept both back.
                        if let (Outgoing::Obd(_), Some(since)) =
                            (command, last_data.filter(|at| *at < read_at))
                        {
                            self.pace.waited_out(read_at - since);
                        }
                        return Ok(reply);
                    }
                    Piece::Overlong => reply.garbage += 1,
                    Piece::Line(line) if is_echo(&line, command) => self.echoed = true,
                    Piece::Line(line) => {
                        last_data = matches!(classify(&line), Line::Data(_)).then_some(read_at);
                        reply.lines.push(line);
                    }
                }
            }
            if reply.lines.len() > MAX_LINES || bytes > MAX_REPLY_BYTES {
                return Err(PortError::Flood);
            }
            match timeout_at(deadline, self.receive()).await {
                Ok(received) => bytes += received?,
                Err(_) => return Err(PortError::NoPrompt { limit, bytes }),
            }
            read_at = Instant::now();
        }
    }

    /// Waits for bytes and cuts them.
    async fn receive(&mut self) -> Result<usize, PortError> {
        let mut buffer = [0; 1024];
        let count = self.stream.read(&mut buffer).await?;
        if count == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        self.received = self.received.saturating_add(count);
        self.take_in(buffer.get(..count).unwrap_or_default());
        Ok(count)
    }

    fn take_in(&mut self, bytes: &[u8]) {
        if let Some(trace) = &mut self.trace {
            trace.received(bytes);
        }
        let mut pieces = Vec::new();
        self.reader.push(bytes, &mut pieces);
        self.waiting.extend(pieces);
    }

    /// Throws away what came without being asked for.
    fn drop_stale(&mut self) -> Result<(), PortError> {
        // Bounded: a peer that never stops talking must not hold us here.
        for _ in 0..64 {
            match self.receive().now_or_never() {
                Some(received) => {
                    received?;
                }
                None => break,
            }
        }
        self.reader.clear();
        self.forget_waiting();
        Ok(())
    }

    /// Forgets what waits, but not that the adapter restarted. True when a prompt was among it.
    fn forget_waiting(&mut self) -> bool {
        let mut prompted = false;
        for piece in self.waiting.drain(..) {
            match piece {
                Piece::Prompt => prompted = true,
                Piece::Line(line) => self.restarted |= matches!(classify(&line), Line::Banner(_)),
                Piece::Overlong => {}
            }
        }
        prompted
    }
}

/// The first reply after a reset still echoes; some clones never stop.
fn is_echo(line: &str, command: Outgoing) -> bool {
    let plain = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
    !matches!(command, Outgoing::Probe) && plain(line).eq_ignore_ascii_case(&plain(&command.text()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::vehicle::elm327::answer::interpret;
    use crate::vehicle::gate::{AtCommand, Request};
    use crate::vehicle::protocol::Protocol;

    /// Writes `script` as soon as a command came, in the given chunks.
    fn adapter(script: Vec<&'static [u8]>) -> Port {
        let (ours, mut theirs) = tokio::io::duplex(1 << 16);
        tokio::spawn(async move {
            let mut buffer = [0; 64];
            let _ = theirs.read(&mut buffer).await;
            for chunk in script {
                let _ = theirs.write_all(chunk).await;
                tokio::task::yield_now().await;
            }
            // Keeps the stream open: silence, not an end.
            std::future::pending::<()>().await;
        });
        Port::new(Box::new(ours), None)
    }

    #[tokio::test]
    async fn a_reply_may_be_cut_anywhere() {
        let mut port = adapter(vec![b"AT", b"E0\rO", b"K\r\r", b">"]);
        let reply = port.exchange(Outgoing::At(AtCommand::EchoOff), Duration::from_secs(1)).await.unwrap();
        assert_eq!(reply.lines, ["OK"]);
    }

    #[tokio::test]
    async fn half_a_reply_ends_by_the_limit() {
        let mut port = adapter(vec![b"7E8 10 14 49 02 01"]);
        let request = Outgoing::Obd(Request::vehicle_info(2));
        let error = port.exchange(request, Duration::from_millis(50)).await.unwrap_err();
        assert!(matches!(error, PortError::NoPrompt { bytes: 18, .. }), "{error}");
    }

    #[tokio::test]
    async fn an_endless_line_is_a_flood() {
        let mut port = adapter(vec![&[b'A'; 4096]; 80]);
        let error =
            port.exchange(Outgoing::At(AtCommand::Identity), Duration::from_secs(5)).await.unwrap_err();
        assert!(matches!(error, PortError::Flood), "{error}");
    }

    #[tokio::test]
    async fn a_banner_nobody_asked_for_is_a_restart() {
        let (ours, mut theirs) = tokio::io::duplex(1024);
        theirs.write_all(b"\r\rELM327 v1.5\r\r>").await.unwrap();
        let mut port = Port::new(Box::new(ours), None);
        let error =
            port.exchange(Outgoing::At(AtCommand::Voltage), Duration::from_secs(1)).await.unwrap_err();
        assert!(matches!(error, PortError::Restarted), "{error}");
    }

    /// What an adapter writes, in the orders and mixtures of the field; the request it answers.
    fn reply_text() -> impl Strategy<Value = String> {
        let line = prop_oneof![
            Just("7E8064100BE7FB813"),
            Just("7E8 06 41 00 BE 7F B8 13 "),
            Just("7E81014490201314434"),
            Just("7E82147503030523535"),
            Just("7E82242313233343536"),
            Just("7E906410098000001"),
            Just("7E8037F0178"),
            Just("SEARCHING..."),
            Just("SEARCHING...7E8064100BE7FB813"),
            Just("BUS INIT: OK"),
            Just("BUS INIT: ...ERROR"),
            Just("NO DATA"),
            Just("UNABLE TO CONNECT"),
            Just("7E80641 <RX ERROR"),
            Just("BUFFER FULL"),
            Just("STOPPED"),
            Just("ERR94"),
            Just("LV RESET"),
            Just("!LP ALERT"),
            Just("ELM327 v1.5"),
            Just("+CONNECTED"),
            Just("0: 49 02 01 31 44 34"),
            Just("0100"),
            Just("?"),
            Just(""),
        ];
        let end = prop_oneof![Just("\r"), Just("\r\n"), Just("\r\r"), Just("\0\r\0")];
        proptest::collection::vec((line, end), 0..12).prop_map(|lines| {
            lines.into_iter().map(|(line, end)| format!("{line}{end}")).collect::<String>() + ">"
        })
    }

    /// The reply as the port reads it when it comes in these pieces, each after the reader is idle.
    fn exchanged(text: &str, cuts: &[usize]) -> Reply {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let (ours, mut theirs) = tokio::io::duplex(1 << 12);
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (text.len() + 1)).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces: Vec<Vec<u8>> =
                cuts.windows(2).map(|pair| text.as_bytes()[pair[0]..pair[1]].to_vec()).collect();
            tokio::spawn(async move {
                let mut buffer = [0; 64];
                let _ = theirs.read(&mut buffer).await;
                for piece in pieces.into_iter().filter(|piece| !piece.is_empty()) {
                    theirs.write_all(&piece).await.unwrap();
                    // The reader takes each piece before the next one is written.
                    tokio::task::yield_now().await;
                }
                std::future::pending::<()>().await;
            });
            let mut port = Port::new(Box::new(ours), None);
            port.exchange(Outgoing::Obd(Request::current(0)), Duration::from_secs(10)).await.unwrap()
        })
    }

    proptest! {
        #![proptest_config(crate::seed::cases(256))]

        /// Every split of the byte stream gives the same reply, and the same meaning.
        #[test]
        fn every_split_means_the_same(text in reply_text(), cuts in proptest::collection::vec(any::<usize>(), 0..40)) {
            let whole = exchanged(&text, &[]);
            let cut = exchanged(&text, &cuts);
            prop_assert_eq!(&cut, &whole);
            let bytewise: Vec<usize> = (0..text.len()).collect();
            prop_assert_eq!(&exchanged(&text, &bytewise), &whole);
            for protocol in (1_u8..10).filter_map(|n| Protocol::from_number(&n.to_string())) {
                let request = Request::current(0);
                prop_assert_eq!(interpret(&cut, request, protocol), interpret(&whole, request, protocol));
            }
        }
    }
}
