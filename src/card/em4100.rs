//! Reader kind `em4100`: 125 kHz readers that say what lies on them over a serial line or TCP,
//! again and again while it lies there, and never hear a word. What lives here: the frame as a
//! pure decoder, presence made of repetition, the line. The number proves nothing: such a card
//! names a member whose account is at headquarters.
//!
//! ```text
//!  02  1 0 0 0 8 6 F 4 4 4  2 6  03      5 bytes in hex, XOR of them in hex; every 50 ms or so
//! ```
//! Readers of the ID-12 family put CR LF before the 03 (ID Innovations, ID-12LA datasheet, "Output
//! Data Structure, ASCII"); the others (RDM6300 and its kin) do not. Both are taken.

use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;
use tokio::time;
use tokio_util::sync::CancellationToken;

use super::CardError;
use super::backoff::Backoff;
use super::cable;
use super::report::{Condition, Report, Reports, Unheard};
use super::verdict::{CardIdentity, Refusal, Standing};
use crate::config::values::Transport;
use crate::event::card::Technology;
use crate::event::device::DeviceStatus;
use crate::ident::CardUid;
use crate::link::{self, ByteStream};

/// Rate of such readers where the link names none.
const BAUD: u32 = 9_600;
/// A card that was not said for so long is gone: six repetitions.
const SILENCE: Duration = Duration::from_millis(300);
/// Damaged frames in a row before the cashier is told: one or two come with every card that
/// enters the field's edge.
const DAMAGED_FRAMES: u32 = 3;
/// After one card took another's place the line is left alone so long: a line that babbles must
/// not fill the log.
const CHANGE_PACE: Duration = Duration::from_millis(100);
/// The one field of this reader.
const SLOT: &str = "em4100";

const STX: u8 = 0x02;
const ETX: u8 = 0x03;
/// Ten digits of the number, two of its XOR.
const DIGITS: usize = 12;

/// A frame that is none: digits, length or XOR are wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Damaged;

/// Finds frames in a stream of bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Decoder {
    /// Since the last STX; none outside a frame.
    frame: Option<Vec<u8>>,
}

impl Decoder {
    /// Takes a byte; says what it ended, if it ended a frame.
    pub fn push(&mut self, byte: u8) -> Option<Result<CardUid, Damaged>> {
        match (byte, self.frame.as_mut()) {
            (STX, _) => {
                let broken = self.frame.replace(Vec::with_capacity(DIGITS));
                broken.map(|_| Err(Damaged))
            }
            (_, None) => None,
            (ETX, Some(frame)) => {
                let number = number(frame);
                self.frame = None;
                Some(number)
            }
            // Before the end only, and they say nothing.
            (b'\r' | b'\n', Some(frame)) if frame.len() == DIGITS => None,
            (_, Some(frame)) if frame.len() < DIGITS && byte.is_ascii_hexdigit() => {
                frame.push(byte.to_ascii_uppercase());
                None
            }
            _ => {
                self.frame = None;
                Some(Err(Damaged))
            }
        }
    }
}

/// The number of a frame's digits, upper case.
fn number(digits: &[u8]) -> Result<CardUid, Damaged> {
    let bytes = hex::decode(digits).map_err(|_| Damaged)?;
    let [number @ .., check] = bytes.as_slice() else { return Err(Damaged) };
    if bytes.len() != DIGITS / 2 || number.iter().fold(0, |sum, byte| sum ^ byte) != *check {
        return Err(Damaged);
    }
    CardUid::from_bytes(number).map_err(|_| Damaged)
}

/// What to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// A card came.
    Tapped(CardUid),
    /// The card that was told is gone.
    Removed,
    /// Something is there that cannot be read.
    Unreadable,
    /// Since the line is open no card was there.
    Empty,
}

/// Who is there, by what was said and when it was said last. Without I/O: the caller brings the time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presence {
    present: Option<CardUid>,
    /// The last frame that named a card: noise keeps no card in the field.
    named: Instant,
    /// The last frame, damaged ones too.
    framed: Instant,
    damaged: u32,
    refused: bool,
    /// Whether the log knows what is in the field since the line is open.
    settled: bool,
}

impl Presence {
    /// A line was opened.
    #[must_use]
    pub fn begin(now: Instant) -> Self {
        Self { present: None, named: now, framed: now, damaged: 0, refused: false, settled: false }
    }

    /// A frame ended.
    pub fn heard(&mut self, frame: Result<CardUid, Damaged>, now: Instant) -> Vec<Fact> {
        self.framed = now;
        match frame {
            Ok(uid) => {
                (self.named, self.damaged, self.refused, self.settled) = (now, 0, false, true);
                if self.present.as_ref() == Some(&uid) {
                    return Vec::new();
                }
                let before = self.present.replace(uid.clone());
                before.map(|_| Fact::Removed).into_iter().chain([Fact::Tapped(uid)]).collect()
            }
            Err(Damaged) => {
                self.damaged = self.damaged.saturating_add(1);
                // Of a card that is known one frame more or less is no news.
                if self.damaged < DAMAGED_FRAMES || self.present.is_some() || self.refused {
                    return Vec::new();
                }
                (self.refused, self.settled) = (true, true);
                vec![Fact::Unreadable]
            }
        }
    }

    /// What the silence says, if it lasted.
    pub fn look(&mut self, now: Instant) -> Option<Fact> {
        if now.duration_since(self.framed) >= SILENCE {
            (self.damaged, self.refused) = (0, false);
        }
        if now.duration_since(self.named) < SILENCE {
            return None;
        }
        if self.present.take().is_some() {
            return Some(Fact::Removed);
        }
        (!std::mem::replace(&mut self.settled, true)).then_some(Fact::Empty)
    }

    /// When to look again though nothing is said; never while all is told.
    #[must_use]
    pub fn next_look(&self) -> Option<Instant> {
        if self.present.is_some() || !self.settled {
            Some(self.named + SILENCE)
        } else {
            (self.damaged > 0).then(|| self.framed + SILENCE)
        }
    }

    /// The line is gone, and with it the card.
    pub fn cut(&mut self) -> Option<Fact> {
        self.present.take().map(|_| Fact::Removed)
    }
}

/// Listens to the reader until `stop`.
pub(super) async fn drive(
    transport: Transport,
    reports: Reports,
    stop: CancellationToken,
) -> Result<(), CardError> {
    let rate = match transport {
        Transport::Serial { baud: None, .. } => Some(BAUD),
        _ => None,
    };
    let serve = async {
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(15));
        loop {
            let condition = match link::open(&transport, rate).await {
                Ok(line) => {
                    backoff.reset();
                    reports.tell(Report::State(Condition::plain(DeviceStatus::Ready))).await?;
                    listen(line, &reports).await?;
                    cable::gone()
                }
                Err(error) => cable::unreachable(&error),
            };
            reports.tell(Report::AllEmpty).await?;
            reports.tell(Report::State(condition)).await?;
            link::wait_for_return(&transport, backoff.wait()).await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        ended = serve => { let (Ok::<(), Unheard>(()) | Err(Unheard)) = ended; }
    }
    Ok(())
}

/// Tells what the line says until it breaks.
async fn listen(mut line: Box<dyn ByteStream>, reports: &Reports) -> Result<(), Unheard> {
    let (mut decoder, mut presence) = (Decoder::default(), Presence::begin(Instant::now()));
    let mut bytes = [0_u8; 64];
    loop {
        if let Some(fact) = presence.look(Instant::now()) {
            tell(fact, Instant::now(), reports).await?;
        }
        let read = line.read(&mut bytes);
        let read = match presence.next_look() {
            Some(at) => match time::timeout_at(at.into(), read).await {
                Ok(read) => read,
                Err(_) => continue,
            },
            None => read.await,
        };
        let Ok(count @ 1..) = read else { break };
        let seen = Instant::now();
        for frame in bytes.iter().take(count).filter_map(|byte| decoder.push(*byte)) {
            let facts = presence.heard(frame, seen);
            let changed = facts.len() > 1;
            for fact in facts {
                tell(fact, seen, reports).await?;
            }
            if changed {
                time::sleep(CHANGE_PACE).await;
            }
        }
    }
    match presence.cut() {
        Some(fact) => tell(fact, Instant::now(), reports).await,
        None => Ok(()),
    }
}

async fn tell(fact: Fact, seen: Instant, reports: &Reports) -> Result<(), Unheard> {
    let slot = SLOT.to_owned();
    let report = match fact {
        Fact::Tapped(uid) => {
            let card = CardIdentity {
                uid,
                technology: Technology::Em4100,
                atr: None,
                code: None,
                standing: Standing::Identified,
                opened: None,
            };
            Report::Tapped { slot, card, seen }
        }
        Fact::Removed => Report::Removed { slot },
        Fact::Unreadable => Report::Refused(Refusal::Unreadable),
        Fact::Empty => Report::AllEmpty,
    };
    reports.tell(report).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(bytes: &[u8]) -> Vec<Result<String, Damaged>> {
        let mut decoder = Decoder::default();
        let frames = bytes.iter().filter_map(|byte| decoder.push(*byte));
        frames.map(|frame| frame.map(|uid| uid.to_string())).collect()
    }

    fn uid(text: &str) -> CardUid {
        text.parse().unwrap()
    }

    #[test]
    fn frames_as_readers_send_them() {
        let known = |number: &str| Ok(number.to_owned());
        // First: the worked example of the readers' papers (number 0008844356 in print); second:
        // the same with the line end of the ID-12 family.
        type Case = (&'static [u8], Vec<Result<String, Damaged>>);
        let cases: [Case; 11] = [
            (b"\x02100086F44426\x03", vec![known("100086F444")]),
            (b"\x02100086F44426\r\n\x03", vec![known("100086F444")]),
            (b"\x02100086f44426\x03\x02100086F44426\x03", vec![known("100086F444"); 2]),
            (b"26\x03noise\x02100086F44426\x03", vec![known("100086F444")]),
            (b"\x02000000000000\x03", vec![known("0000000000")]),
            (b"\x02100086F44427\x03", vec![Err(Damaged)]),
            (b"\x02100086F444\x03", vec![Err(Damaged)]),
            (b"\x02100086F4442600\x03", vec![Err(Damaged)]),
            (b"\x0210008\x02100086F44426\x03", vec![Err(Damaged), known("100086F444")]),
            (b"\x0210008 6F44426\x03", vec![Err(Damaged)]),
            (b"\x03\x03\r\n", vec![]),
        ];
        for (bytes, expected) in cases {
            assert_eq!(decode(bytes), expected, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn a_card_is_told_once_and_gone_when_silent() {
        let (a, b) = (uid("100086F444"), uid("0000000001"));
        let begun = Instant::now();
        let at = |ms: u64| begun + Duration::from_millis(ms);
        let mut presence = Presence::begin(begun);
        assert_eq!((presence.look(at(299)), presence.look(at(300))), (None, Some(Fact::Empty)));
        assert_eq!((presence.look(at(900)), presence.next_look()), (None, None), "told once");
        assert_eq!(presence.heard(Ok(a.clone()), at(1000)), [Fact::Tapped(a.clone())]);
        assert_eq!(presence.heard(Ok(a.clone()), at(1200)), []);
        assert_eq!(presence.next_look(), Some(at(1500)));
        for ms in 1200..1210 {
            assert_eq!(presence.heard(Err(Damaged), at(ms)), [], "a known card is not unreadable");
        }
        assert_eq!(presence.heard(Ok(b.clone()), at(1250)), [Fact::Removed, Fact::Tapped(b.clone())]);
        // Noise keeps no card in the field; it is refused once for as long as it lasts.
        let told: Vec<Fact> = (1300..3000)
            .step_by(50)
            .flat_map(|ms| presence.heard(Err(Damaged), at(ms)).into_iter().chain(presence.look(at(ms))))
            .collect();
        assert_eq!(told, [Fact::Removed, Fact::Unreadable]);
        assert_eq!(presence.look(at(3300)), None);
        assert_eq!(presence.next_look(), None);
        assert_eq!(presence.heard(Ok(b.clone()), at(4000)), [Fact::Tapped(b)]);
        assert_eq!((presence.cut(), presence.cut()), (Some(Fact::Removed), None));
    }

    #[test]
    fn a_card_that_lies_there_already_is_heard_before_the_field_is_called_empty() {
        let (a, begun) = (uid("100086F444"), Instant::now());
        let mut presence = Presence::begin(begun);
        assert_eq!(presence.heard(Ok(a.clone()), begun + SILENCE / 2), [Fact::Tapped(a)]);
        assert_eq!(presence.look(begun + SILENCE), None);
    }

    proptest::proptest! {
        #![proptest_config(crate::seed::cases(256))]

        /// Whatever a line says, a frame is five bytes whose XOR was right, and never kept for long.
        #[test]
        fn no_bytes_make_a_card_of_noise(bytes in proptest::collection::vec(0_u8..=255, 0..400)) {
            let mut decoder = Decoder::default();
            for byte in &bytes {
                if let Some(Ok(uid)) = decoder.push(*byte) {
                    assert_eq!(uid.as_str().len(), 10);
                }
                assert!(decoder.frame.as_ref().is_none_or(|frame| frame.len() <= DIGITS));
            }
        }

        /// Every number comes through, after whatever noise that is no frame's begin.
        #[test]
        fn every_number_is_read(number: [u8; 5], noise in proptest::collection::vec(4_u8..=255, 0..40)) {
            let check = number.iter().fold(0, |sum, byte| sum ^ byte);
            let line = format!("\x02{}{check:02X}\x03", hex::encode_upper(number));
            let found = decode(&[noise.as_slice(), line.as_bytes()].concat());
            assert_eq!(found, [Ok(hex::encode_upper(number))]);
        }
    }
}
