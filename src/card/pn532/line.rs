//! A conversation with the chip: a command, its acknowledgement, its answer. What lives here:
//! what is done when one of them is lost or damaged. What does not: what is said.
//!
//! ```text
//!  us ─ command ─►            ◄─ ACK ─ (the card) ─ answer ─►   all well
//!       no ACK, but the answer: taken, it names its command
//!       neither:  ACK (stop), wait for quiet, again: where saying it twice does no harm
//!                 else it is not known, and said to be so
//!       damaged, or begun and broken off, behind its ACK: NACK, the chip says it once more
//!                 without an ACK it may never have heard us: its last answer is another's
//!  whatever was said twice, or not answered: its answer may still come, perhaps with the code
//!       of the next one's; before the next command the chip is given a word that it gives back
//!       (Diagnose), and what comes before that is thrown away
//! ```

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};
use zeroize::Zeroizing;

use super::command::Request;
use super::frame::{ACK, Damaged, Decoder, Frame, NACK, encode};
use crate::link::ByteStream;

/// The chip takes 15 ms at most (user manual §6.2.1.3); USB converters and networks add theirs.
const ACK_LIMIT: Duration = Duration::from_millis(150);
/// A line on which nothing came for so long is quiet.
const QUIET: Duration = Duration::from_millis(20);
/// After so much of what is no answer the line is given up: the rate is wrong, or another device
/// is there.
const MOST_NOISE: usize = 4096;
/// How often a command is said.
const TRIES: usize = 3;
/// How often an answer is asked for once more.
const NACKS: usize = 2;
/// Two bytes wake the serial interface, the rest gives the chip its time (user manual §7.2.11).
const WAKE: [u8; 16] = [0x55, 0x55, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// A frame that was begun and goes on no more: at 9600 baud a byte takes 1 ms, what is between us
/// and the chip may hold it for longer.
const BROKEN_OFF: Duration = Duration::from_millis(50);
/// The words given to chips, each once.
static WORD: AtomicU32 = AtomicU32::new(0);
/// What the chip may say while it wakes.
const WAKE_QUIET: Duration = Duration::from_millis(50);

/// Why a conversation ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Cut {
    #[error("the line broke off: {0}")]
    Gone(std::io::Error),
    #[error("the chip did not answer in time")]
    Silent,
    #[error("what comes over the line is no answer of such a chip")]
    Garbage,
}

impl From<std::io::Error> for Cut {
    fn from(error: std::io::Error) -> Self {
        Self::Gone(error)
    }
}

/// An open line to a chip.
pub(super) struct Line {
    stream: Box<dyn ByteStream>,
    decoder: Decoder,
    /// Answers to what was said before may still come.
    is_behind: bool,
}

impl Line {
    pub(super) fn new(stream: Box<dyn ByteStream>) -> Self {
        Self { stream, decoder: Decoder::default(), is_behind: false }
    }

    /// Wakes the chip, which sleeps after it was given power.
    pub(super) async fn wake(&mut self) -> Result<(), Cut> {
        self.write(&WAKE).await?;
        self.drain(WAKE_QUIET).await
    }

    /// Says a command; what the chip answers behind the answer's code.
    pub(super) async fn ask(&mut self, request: &Request) -> Result<Zeroizing<Vec<u8>>, Cut> {
        if self.is_behind {
            self.catch_up().await?;
        }
        let tries = if request.is_repeatable() { TRIES } else { 1 };
        let mut last = Cut::Silent;
        for again in 0..tries {
            if again > 0 {
                // Two answers must never be on their way at once.
                self.write(&ACK).await?;
            }
            self.drain(if again > 0 { QUIET } else { Duration::ZERO }).await?;
            self.write(&encode(request.bytes())).await?;
            match self.answer(request).await {
                Ok(answer) => return Ok(answer),
                Err(gone @ Cut::Gone(_)) => return Err(gone),
                Err(cut) => last = cut,
            }
            // On a network it may have been heard, and its answer be on its way.
            self.is_behind = true;
        }
        self.write(&ACK).await?;
        self.drain(QUIET).await?;
        Err(last)
    }

    /// Throws away all that the chip says before it gives a new word back. It answers in the order
    /// in which it was asked: what comes afterwards answers what is asked afterwards.
    async fn catch_up(&mut self) -> Result<(), Cut> {
        for _ in 0..TRIES {
            let word = WORD.fetch_add(1, Ordering::Relaxed).to_be_bytes();
            let echo = Request::echo(word);
            self.drain(QUIET).await?;
            self.write(&encode(echo.bytes())).await?;
            match timeout(echo.limit(), self.hear_back(&echo.echoed())).await {
                Ok(heard) => {
                    heard?;
                    self.is_behind = false;
                    return Ok(());
                }
                Err(_) => tracing::debug!("the PN532 gave no word back"),
            }
        }
        Err(Cut::Silent)
    }

    async fn hear_back(&mut self, expected: &[u8]) -> Result<(), Cut> {
        let mut noise = 0;
        loop {
            match self.decoder.next() {
                Some(Ok(Frame::Answer(answer))) if *answer == expected => return Ok(()),
                Some(_) => {}
                None if noise > MOST_NOISE => return Err(Cut::Garbage),
                None => noise += self.hear().await?,
            }
        }
    }

    async fn answer(&mut self, request: &Request) -> Result<Zeroizing<Vec<u8>>, Cut> {
        let said = Instant::now();
        let end = said + request.limit();
        // What can be said again is not waited for once it is clear that it was not heard.
        let mut until = if request.is_repeatable() { said + ACK_LIMIT } else { end };
        let (mut heard, mut nacks, mut noise) = (false, 0, 0);
        loop {
            match self.decoder.next() {
                Some(Ok(Frame::Ack)) => (heard, until) = (true, end),
                Some(Ok(Frame::Answer(answer))) => match answer.split_first() {
                    Some((code, rest)) if *code == request.code().wrapping_add(1) => {
                        return Ok(Zeroizing::new(rest.to_vec()));
                    }
                    // Of a command long ago.
                    _ => {}
                },
                Some(Ok(Frame::Nack | Frame::NotUnderstood)) => return Err(Cut::Garbage),
                // Whether it heard us is not known: waited for, then said again or given up.
                Some(Err(Damaged)) if !heard => {}
                Some(Err(Damaged)) if nacks < NACKS => {
                    nacks += 1;
                    noise = 0;
                    self.say_that_again().await?;
                }
                Some(Err(Damaged)) => return Err(Cut::Garbage),
                None if noise > MOST_NOISE => return Err(Cut::Garbage),
                None => {
                    let can_ask_again = heard && nacks < NACKS && self.decoder.is_begun();
                    let patience = Instant::now() + BROKEN_OFF;
                    let wait = if can_ask_again { until.min(patience) } else { until };
                    match timeout_at(wait, self.hear()).await {
                        Ok(count) => noise += count?,
                        Err(_) if wait < until => {
                            nacks += 1;
                            self.say_that_again().await?;
                        }
                        Err(_) => return Err(Cut::Silent),
                    }
                }
            }
        }
    }

    /// The answer came damaged or in part: it is asked for once more.
    async fn say_that_again(&mut self) -> Result<(), Cut> {
        // What is left of the damaged frame must not be read with the good one; on a network it
        // may still come, whole.
        self.is_behind = true;
        self.drain(QUIET).await?;
        self.write(&NACK).await
    }

    async fn hear(&mut self) -> Result<usize, Cut> {
        let mut bytes = Zeroizing::new([0_u8; 300]);
        let count = self.stream.read(&mut bytes[..]).await?;
        if count == 0 {
            return Err(Cut::Gone(std::io::ErrorKind::UnexpectedEof.into()));
        }
        self.decoder.push(bytes.get(..count).unwrap_or_default());
        Ok(count)
    }

    /// Throws away what came unasked, until nothing came for `quiet`.
    async fn drain(&mut self, quiet: Duration) -> Result<(), Cut> {
        let mut heard = 0;
        while let Ok(count) = timeout(quiet, self.hear()).await {
            heard += count?;
            self.decoder.clear();
            if heard > MOST_NOISE {
                return Err(Cut::Garbage);
            }
        }
        self.decoder.clear();
        Ok(())
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), Cut> {
        let write = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        Ok(timeout(Duration::from_secs(1), write).await.map_err(|_| Cut::Silent)??)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::DuplexStream;

    use super::*;

    const ANSWER: &str = "0000FF04FCD541007A7000";

    /// What the chip says to each frame it hears; empty: nothing.
    async fn talk(request: Request, says: &[&str]) -> (Result<String, Cut>, Vec<String>) {
        let (mut told, heard) = talk_of(&[request], says).await;
        (told.remove(0), heard)
    }

    /// The same with several questions. A word is given back behind what it says to it.
    async fn talk_of(requests: &[Request], says: &[&str]) -> (Vec<Result<String, Cut>>, Vec<String>) {
        let (ours, mut chip) = tokio::io::duplex(10_000);
        let mut line = Line::new(Box::new(ours));
        let says: Vec<Vec<u8>> = says.iter().map(|frame| hex::decode(frame).unwrap()).collect();
        let chip = tokio::spawn(async move {
            let mut heard = Vec::new();
            let mut says = says.into_iter();
            while let Some(frame) = hear(&mut chip).await {
                let mut answer = if frame == ACK { Vec::new() } else { says.next().unwrap_or_default() };
                if let [0, 0, 0xFF, 0x07, 0xF9, 0xD4, 0x00, 0x00, word @ .., _, _] = frame.as_slice() {
                    let mut echo = encode(&[&[0x01, 0x00], word].concat()).to_vec();
                    let checksum = echo.len() - 2;
                    echo[5] = 0xD5;
                    echo[checksum] = echo[checksum].wrapping_sub(1);
                    answer.extend(echo);
                    heard.push("word".into());
                } else {
                    heard.push(hex::encode_upper(&frame));
                }
                let _ = chip.write_all(&answer).await;
            }
            heard
        });
        let mut told = Vec::new();
        for request in requests {
            told.push(line.ask(request).await.map(|answer| hex::encode_upper(&answer[..])));
        }
        drop(line);
        (told, chip.await.unwrap())
    }

    async fn hear(chip: &mut DuplexStream) -> Option<Vec<u8>> {
        let mut bytes = [0; 100];
        let count = chip.read(&mut bytes).await.unwrap();
        (count > 0).then(|| bytes[..count].to_vec())
    }

    fn read() -> Request {
        Request::exchange(&[0x30, 4]).repeatable()
    }

    #[tokio::test]
    async fn what_is_done_when_something_is_lost() {
        let ask = hex::encode_upper(&encode(&[0x40, 0x01, 0x30, 0x04])[..]);
        let (ack, nack) = (hex::encode_upper(ACK), hex::encode_upper(NACK));
        let good = format!("{ack}{ANSWER}");
        let garbled = format!("{ack}0000FF04FCD541017A7000");
        let stale = format!("{ack}0000FF02FED50D1E00{ANSWER}");
        let all = |told: &str| Ok(told.to_owned());
        let broken_off = format!("{ack}0000FF04FCD541");
        type Case<'a> = (&'a str, Vec<&'a str>, Result<String, ()>, Vec<&'a str>);
        let cases: [Case<'_>; 9] = [
            ("all well", vec![&good], all("007A"), vec![&ask]),
            ("no acknowledgement", vec![ANSWER], all("007A"), vec![&ask]),
            ("not heard", vec!["", &good], all("007A"), vec![&ask, &ack, &ask]),
            ("garbled", vec![&garbled, ANSWER], all("007A"), vec![&ask, &nack]),
            ("a byte lost", vec![&broken_off, ANSWER], all("007A"), vec![&ask, &nack]),
            ("garbled, unheard", vec![&garbled[12..], &good], all("007A"), vec![&ask, &ack, &ask]),
            ("another's answer", vec![&stale], all("007A"), vec![&ask]),
            ("not understood", vec!["0000FF01FF7F8100", &good], all("007A"), vec![&ask, &ack, &ask]),
            ("never", vec![], Err(()), vec![&ask, &ack, &ask, &ack, &ask, &ack]),
        ];
        for (name, says, expected, heard) in cases {
            let (told, asked) = talk(read(), &says).await;
            assert_eq!(told.map_err(|_| ()), expected, "{name}");
            assert_eq!(asked, heard, "{name}");
        }
    }

    /// A password, or a debit: said once, whatever was lost.
    #[tokio::test]
    async fn what_may_not_be_said_twice_is_said_once() {
        let ask = hex::encode_upper(&encode(&[0x42, 0x1B, 1, 2, 3, 4])[..]);
        let ack = hex::encode_upper(ACK);
        for says in [vec![], vec![&*ack], vec!["0000FF01FF7F8100"]] {
            let (told, heard) = talk(Request::through(&[0x1B, 1, 2, 3, 4]), &says).await;
            assert!(told.is_err());
            assert_eq!(heard, [ask.clone(), ack.clone()], "{says:?}");
        }
    }

    /// The second answer of what was said twice comes when the next is asked, with its code.
    #[tokio::test]
    async fn a_late_answer_is_not_the_next_commands() {
        let ack = hex::encode_upper(ACK);
        let late = format!("{ack}{ANSWER}");
        let fresh = format!("{ack}0000FF04FCD541007B6F00");
        let garbled = format!("{ack}0000FF04FCD541017A7000");
        for (name, says) in [
            ("said twice", vec!["", &late, &late, &fresh]),
            ("its answer asked for twice", vec![&garbled, &late, &late, &fresh]),
        ] {
            let (told, heard) = talk_of(&[read(), read()], &says).await;
            let told: Vec<String> = told.into_iter().map(Result::unwrap).collect();
            assert_eq!(told, ["007A", "007B"], "{name}");
            assert_eq!(heard.iter().filter(|frame| *frame == "word").count(), 1, "{name}: {heard:?}");
        }
    }
}
