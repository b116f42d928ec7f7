//! Plays back what was recorded with `baygate scan --trace`: every command gets the
//! answer it got then, in the pieces and with the pauses of then.
//!
//! A trace is one JSON object a line: a header with `baygate_trace`, then
//! `{"t_ms":12.4,"dir":"tx","hex":"41545A0D"}` for bytes from the host and `"dir":"rx"`
//! for bytes from the adapter.
//!
//! The host need not ask in the same order: a command is looked up from where the
//! last one was found onwards, then from the beginning, then with or without the digit
//! that ends the wait. A request that was never recorded gets `NO DATA` and is counted,
//! an adapter's command gets `?`. Characters are echoed as they come, once `ATE1` asks for it,
//! also where the recording never had it.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;

use super::spec::SpecError;
use crate::sim::presence::{Device, Presence};
use crate::sim::transport::{Address, Endpoint, Input};

/// Records of a trace at most.
const LONGEST: usize = 1_000_000;
/// Characters of a command at most.
const COMMAND: usize = 256;
/// Different requests counted that the recording does not have.
const MOST_MISSED: usize = 256;

#[derive(Deserialize)]
struct Record {
    #[serde(default)]
    baygate_trace: Option<u32>,
    #[serde(default)]
    t_ms: f64,
    #[serde(default)]
    dir: Option<Direction>,
    #[serde(default)]
    hex: String,
}

#[derive(Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Direction {
    Tx,
    Rx,
}

/// A command and what came back: pause since the piece before, and the piece.
#[derive(Debug, Clone, PartialEq)]
struct Exchange {
    command: Vec<u8>,
    answer: Vec<(Duration, Vec<u8>)>,
}

/// A recorded session.
#[derive(Debug, Clone, PartialEq)]
pub struct Recording {
    exchanges: Vec<Exchange>,
    /// Where the last command was found.
    position: usize,
}

impl Recording {
    /// Reads a trace.
    ///
    /// # Errors
    /// [`SpecError::File`] naming the line.
    pub fn read(text: &str) -> Result<Self, SpecError> {
        let mut exchanges: Vec<Exchange> = Vec::new();
        let (mut last, mut ended) = (0.0, true);
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let wrong = |what: String| SpecError::File(format!("line {}: {what}", number + 1));
            if number >= LONGEST {
                return Err(wrong(format!("more than {LONGEST} lines")));
            }
            let record: Record = serde_json::from_str(line).map_err(|error| wrong(error.to_string()))?;
            match record.baygate_trace {
                Some(1) => continue,
                Some(other) => {
                    return Err(wrong(format!("trace version {other}; this program plays version 1")));
                }
                None => {}
            }
            let bytes = hex::decode(&record.hex).map_err(|error| wrong(format!("hex: {error}")))?;
            let pause = Duration::try_from_secs_f64((record.t_ms - last).max(0.0) / 1000.0);
            let pause = pause.map_err(|error| wrong(format!("t_ms: {error}")))?;
            last = record.t_ms;
            match (record.dir, exchanges.last_mut()) {
                // A line that was typed and looked at before it was ended: what came so far was its echo.
                (Some(Direction::Tx), Some(exchange)) if !ended => {
                    exchange.command.extend(plain(&bytes));
                    exchange.answer.clear();
                    ended = bytes.ends_with(b"\r");
                }
                (Some(Direction::Tx), _) => {
                    ended = bytes.ends_with(b"\r");
                    exchanges.push(Exchange { command: plain(&bytes), answer: Vec::new() });
                }
                (Some(Direction::Rx), Some(exchange)) => exchange.answer.push((pause, bytes)),
                // Said before anything was asked: noise of an earlier session.
                (Some(Direction::Rx), None) => {}
                (None, _) => return Err(wrong("neither a header nor a \"dir\"".into())),
            }
        }
        if exchanges.is_empty() {
            return Err(SpecError::File(
                "no command in it; record one with `baygate scan LINK --trace FILE`".into(),
            ));
        }
        Ok(Self { exchanges, position: 0 })
    }

    /// The answer of then to this command; `None`: it was never asked.
    fn answer(&mut self, command: &[u8]) -> Option<Vec<(Duration, Vec<u8>)>> {
        let wanted = plain(command);
        let index = self.find(|known| known == wanted).or_else(|| {
            let request = without_count(&wanted)?;
            self.find(|known| without_count(known) == Some(request))
        })?;
        self.position = index + 1;
        self.exchanges.get(index).map(|exchange| exchange.answer.clone())
    }

    fn find(&self, is_wanted: impl Fn(&[u8]) -> bool) -> Option<usize> {
        let mut order = (self.position..self.exchanges.len()).chain(0..self.position);
        order.find(|index| self.exchanges.get(*index).is_some_and(|exchange| is_wanted(&exchange.command)))
    }
}

/// A request to the car without the digit for the number of answers: whole bytes of hex.
fn without_count(command: &[u8]) -> Option<&[u8]> {
    let is_request = command.len() >= 2 && command.iter().all(u8::is_ascii_hexdigit);
    is_request.then(|| command.get(..command.len() / 2 * 2)).flatten()
}

/// Without what the chip does not look at.
fn plain(command: &[u8]) -> Vec<u8> {
    command.iter().filter(|byte| !byte.is_ascii_whitespace()).map(u8::to_ascii_uppercase).collect()
}

/// Requests that the recording does not have, and how often each was asked.
type Missed = Arc<Mutex<BTreeMap<String, u64>>>;

/// Control of a playback. Dropping it stops it.
#[derive(Debug)]
pub struct ReplaySim {
    presence: Presence,
    missed: Missed,
}

impl ReplaySim {
    /// Starts on a pseudo-terminal; `link` points at it while it is there.
    ///
    /// # Errors
    /// No terminal to be had, or the link's place is taken.
    pub async fn spawn_pty(recording: Recording, link: Option<PathBuf>) -> io::Result<Self> {
        Self::begin(recording, Address::Pty { link }).await
    }

    /// Starts on a TCP listener; port 0 lets the system choose.
    ///
    /// # Errors
    /// The address is taken.
    pub async fn spawn_tcp(address: std::net::SocketAddr, recording: Recording) -> io::Result<Self> {
        Self::begin(recording, Address::Tcp(address)).await
    }

    async fn begin(recording: Recording, address: Address) -> io::Result<Self> {
        let missed = Missed::default();
        let playback = Playback { recording, missed: Arc::clone(&missed), echo: false };
        Ok(Self { presence: Presence::begin(playback, address).await?, missed })
    }

    /// What was asked that the recording does not have, and how often.
    #[must_use]
    pub fn missed(&self) -> BTreeMap<String, u64> {
        self.missed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Path or `host:port`.
    #[must_use]
    pub fn name(&self) -> String {
        self.presence.name()
    }

    /// Stops and takes the transport away.
    pub async fn stop(self) {
        self.presence.end().await;
    }
}

struct Playback {
    recording: Recording,
    missed: Missed,
    /// `ATE1` was the last word on it.
    echo: bool,
}

impl Playback {
    fn answer(&mut self, command: &[u8]) -> Vec<(Duration, Vec<u8>)> {
        let plain = plain(command);
        self.echo = match plain.as_slice() {
            b"ATE1" => true,
            b"ATE0" | b"ATZ" => false,
            _ => self.echo,
        };
        if let Some(answer) = self.recording.answer(command) {
            return answer;
        }
        let reply: &[u8] = match without_count(&plain) {
            Some(request) => {
                self.count(String::from_utf8_lossy(request).into_owned());
                b"NO DATA\r\r>"
            }
            None if plain == b"ATE1" => b"OK\r\r>",
            None => b"?\r\r>",
        };
        vec![(Duration::ZERO, reply.to_vec())]
    }

    fn count(&self, request: String) {
        let mut missed = self.missed.lock().unwrap_or_else(PoisonError::into_inner);
        if missed.len() < MOST_MISSED || missed.contains_key(&request) {
            *missed.entry(request).or_default() += 1;
        }
    }
}

impl Device for Playback {
    fn power_cycle(&mut self) {
        self.recording.position = 0;
        self.echo = false;
    }

    async fn serve(&mut self, mut endpoint: Endpoint) {
        let mut command = Vec::new();
        loop {
            let bytes = match endpoint.read().await {
                Ok(Input::Bytes(bytes)) => bytes,
                Ok(Input::Left) => {
                    self.recording.position = 0;
                    command.clear();
                    continue;
                }
                Err(_) => return,
            };
            for byte in bytes {
                if self.echo {
                    endpoint.write(&[byte]).await;
                }
                if byte != b'\r' {
                    if command.len() < COMMAND {
                        command.push(byte);
                    }
                    continue;
                }
                for (pause, piece) in self.answer(&std::mem::take(&mut command)) {
                    tokio::time::sleep(pause).await;
                    endpoint.write(&piece).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = r#"{"baygate_trace":1,"link":"elm327+tcp://x:1","started_at":"2026-11-21T08:15:30.000Z","vin_masked":true}
{"t_ms":12.4,"dir":"tx","hex":"41545A0D","ascii":"ATZ\\r"}
{"t_ms":40.0,"dir":"rx","hex":"0D0D454C","ascii":"\\r\\rEL"}
{"t_ms":41.5,"dir":"rx","hex":"4D0D0D3E","ascii":"M\\r\\r>"}
{"t_ms":50.0,"dir":"tx","hex":"303130430D","ascii":"010C\\r"}
{"t_ms":55.0,"dir":"rx","hex":"410D0D3E","ascii":"A\\r\\r>"}
{"t_ms":60.0,"dir":"tx","hex":"303130430D","ascii":"010C\\r"}
{"t_ms":65.0,"dir":"rx","hex":"420D0D3E","ascii":"B\\r\\r>"}
"#;

    #[test]
    fn a_command_gets_its_next_answer_then_the_first_again() {
        let mut recording = Recording::read(TRACE).unwrap();
        let mut ask = |command: &[u8]| {
            let pieces = recording.answer(command).unwrap_or_default().into_iter().map(|(_, piece)| piece);
            String::from_utf8(pieces.collect::<Vec<_>>().concat()).unwrap()
        };
        for (command, answer) in [
            (&b"atz"[..], "\r\rELM\r\r>"),
            (b"01 0C", "A\r\r>"),
            (b"010C", "B\r\r>"),
            (b"010C", "A\r\r>"),
            (b"010C1", "B\r\r>"),
            (b"010D", ""),
            (b"ATRV", ""),
        ] {
            assert_eq!(ask(command), answer);
        }
        let pauses: Vec<_> =
            Recording::read(TRACE).unwrap().answer(b"ATZ").unwrap().into_iter().map(|(p, _)| p).collect();
        assert_eq!(pauses, [Duration::from_micros(27_600), Duration::from_micros(1_500)]);
    }

    #[test]
    fn a_bad_trace_is_refused_with_its_line() {
        for (text, word) in [
            ("", "no command"),
            ("{\"baygate_trace\":2}", "version 2"),
            ("{\"baygate_trace\":1}\nhello", "line 2"),
            ("{\"t_ms\":1,\"dir\":\"tx\",\"hex\":\"4\"}", "line 1: hex"),
            ("{\"t_ms\":1,\"dir\":\"up\",\"hex\":\"41\"}", "line 1"),
            ("{\"t_ms\":1,\"hex\":\"41\"}", "\"dir\""),
            ("{\"t_ms\":1e300,\"dir\":\"tx\",\"hex\":\"41\"}", "t_ms"),
        ] {
            let error = Recording::read(text).unwrap_err().to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
