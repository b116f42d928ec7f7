//! A simulated contactless card in a virtual reader's field. It connects by TCP to
//! whoever listens as the reader driver of vsmartcard does (`vpcd`): pcscd with that
//! driver, or our own reader kind.
//!
//! ```text
//! reader → card   00 01 00            power off        (no answer)
//!                 00 01 01            power on         (no answer)
//!                 00 01 02            reset            (no answer)
//!                 00 01 04            tell your ATR →  LEN LEN ATR
//!                 LEN LEN APDU        →                LEN LEN answer
//! ```
//! Source: vsmartcard, "Creating a Virtual Smart Card".

mod chip;
mod classic;
mod desfire;
mod em4100;
mod ev1;
mod ev2;
mod files;
pub mod fmcos;
mod lifted;
mod ntag424;
mod pn532;
mod profile;
pub mod psam;
mod session;
mod sle4442;
mod tag;
mod ultralight_c;

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, ToSocketAddrs};
use tokio_util::sync::CancellationToken;

pub use chip::Chip;
pub use em4100::Em4100Sim;
pub use lifted::without_card;
pub use pn532::{Pn532Fault, Pn532Sim};
pub use profile::{CardProfile, Technology};

/// APDUs kept for a test to look at.
const SEEN: usize = 10_000;

/// Something wrong with the next answer to an APDU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CardFault {
    /// This status instead of an answer.
    Status(u16),
    /// Bytes that mean nothing.
    Garbage,
    /// An answer of no bytes.
    Empty,
    /// The card did what was asked; of its answer comes half a status word.
    Half,
    /// The card is pulled before it answers, though it may have done what was asked.
    Pull,
    /// The card is pulled before the command reached it.
    PullUnheard,
    /// The card is pulled in the middle of a write: the second half of the data is ones.
    PullTorn,
    /// The card lies there and answers no more, though it did what was asked.
    Mute,
    /// The card lies there and answers no more; the command did not reach it.
    MuteUnheard,
}

/// Another card lay down in the place of the first, and the reader did not notice.
#[derive(Debug, Clone)]
pub struct Swapped {
    /// The first, as it left.
    pub first: Chip,
    /// How many commands that change a card the other one has taken.
    pub taken: usize,
}

#[derive(Debug)]
struct State {
    chip: Chip,
    /// After so many commands this one takes its place.
    newcomer: Option<(usize, Box<Chip>)>,
    swapped: Option<Swapped>,
    /// Says nothing any more.
    mute: bool,
    /// Before every answer.
    delay: Duration,
    faults: VecDeque<Option<CardFault>>,
    seen: Vec<Vec<u8>>,
}

/// A card in the field. Dropping it takes the card away.
#[derive(Debug)]
pub struct CardSim {
    state: Arc<Mutex<State>>,
    stop: CancellationToken,
    task: Option<tokio::task::JoinHandle<io::Result<()>>>,
}

impl CardSim {
    /// Puts the card on the reader that listens at `reader`.
    ///
    /// # Errors
    /// Nobody listens there.
    pub async fn tap(reader: impl ToSocketAddrs, profile: CardProfile) -> io::Result<Self> {
        Self::present(reader, Chip::new(profile)).await
    }

    /// Puts a card that has a past on the reader that listens at `reader`.
    ///
    /// # Errors
    /// Nobody listens there.
    pub async fn present(reader: impl ToSocketAddrs, chip: Chip) -> io::Result<Self> {
        let stream = TcpStream::connect(reader).await?;
        stream.set_nodelay(true)?;
        let atr = chip.profile().answer_to_reset();
        let state = State {
            chip,
            newcomer: None,
            swapped: None,
            mute: false,
            delay: Duration::ZERO,
            faults: VecDeque::new(),
            seen: Vec::new(),
        };
        let state = Arc::new(Mutex::new(state));
        let stop = CancellationToken::new();
        let serve = serve(stream, atr, Arc::clone(&state), stop.clone());
        Ok(Self { state, stop, task: Some(tokio::spawn(serve)) })
    }

    /// Takes the card away. Returns when the connection is closed.
    pub async fn remove(mut self) {
        self.stop.cancel();
        if let Some(task) = self.task.take() {
            let _ = task.await;
        }
    }

    /// Waits until the reader hung up or the card was pulled.
    pub async fn gone(&mut self) {
        if let Some(task) = &mut self.task {
            let _ = task.await;
            self.task = None;
        }
    }

    /// The card or its reader stops answering, but the connection stays.
    pub fn mute(&self) {
        lock(&self.state).mute = true;
    }

    /// Every answer takes so long.
    pub fn slow(&self, delay: Duration) {
        lock(&self.state).delay = delay;
    }

    /// Lets the next answer go wrong; several queue up.
    pub fn fault(&self, fault: CardFault) {
        self.fault_after(0, fault);
    }

    /// Lets an answer go wrong after `good` right ones.
    pub fn fault_after(&self, good: usize, fault: CardFault) {
        let mut state = lock(&self.state);
        state.faults.extend(std::iter::repeat_n(None, good));
        state.faults.push_back(Some(fault));
    }

    /// Lets another card take this one's place after `good` more commands. The line stays: a reader
    /// that watches nothing else does not notice.
    pub fn swap_after(&self, good: usize, other: Chip) {
        lock(&self.state).newcomer = Some((good, Box::new(other)));
    }

    /// What became of [`swap_after`](Self::swap_after), once it happened; [`chip`](Self::chip) is the
    /// other card then.
    #[must_use]
    pub fn swapped(&self) -> Option<Swapped> {
        lock(&self.state).swapped.clone()
    }

    /// The card as it is now: to be tapped again.
    #[must_use]
    pub fn chip(&self) -> Chip {
        lock(&self.state).chip.clone()
    }

    /// How many commands of those in [`apdus`](Self::apdus) would change a card.
    #[must_use]
    pub fn writes(&self) -> usize {
        lock(&self.state).seen.iter().filter(|apdu| changes(apdu)).count()
    }

    /// Which of those in [`apdus`](Self::apdus) would change a card.
    #[must_use]
    pub fn writes_at(&self) -> Vec<usize> {
        let state = lock(&self.state);
        state.seen.iter().enumerate().filter(|(_, apdu)| changes(apdu)).map(|(at, _)| at).collect()
    }

    /// APDUs the card was sent, oldest first: for tests of what must not be written.
    #[must_use]
    pub fn apdus(&self) -> Vec<Vec<u8>> {
        lock(&self.state).seen.clone()
    }
}

impl Drop for CardSim {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl State {
    fn next_card(&mut self) {
        match self.newcomer.take() {
            Some((0, mut other)) => {
                other.reset();
                let first = std::mem::replace(&mut self.chip, *other);
                self.swapped = Some(Swapped { first, taken: 0 });
            }
            waits => self.newcomer = waits.map(|(good, other)| (good - 1, other)),
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a command would change a card.
fn changes(apdu: &[u8]) -> bool {
    matches!(
        apdu,
        [0xFF, 0xD0..=0xD7, ..] | [0xFF, 0, 0, 0, _, 0xD4, 0x42, 0xA2 | 0xA5, ..]
            // CPU card: files, load, purchase.
            | [0x00, 0xD6, ..] | [0x80, 0x52 | 0x54, ..]
            // DESFire: write, credit, debit, commit, and all that creates, deletes or changes.
            | [0x90, 0x3D | 0x8D | 0x0C | 0x1C | 0xDC | 0xC4 | 0xC7 | 0xCA..=0xCD | 0xDA | 0xDF | 0x5F, ..]
    )
}

async fn serve(
    mut stream: TcpStream,
    atr: Vec<u8>,
    state: Arc<Mutex<State>>,
    stop: CancellationToken,
) -> io::Result<()> {
    loop {
        let Some(message) = stop.run_until_cancelled(receive(&mut stream)).await else { return Ok(()) };
        let message = message?;
        let (mute, delay) = {
            let state = lock(&state);
            (state.mute, state.delay)
        };
        if mute {
            // Still reading, so that the reader sees a silent card and not a full pipe.
            continue;
        }
        let answer = match message.as_slice() {
            [] => continue,
            [0x00..=0x02] => {
                lock(&state).chip.reset();
                continue;
            }
            [0x04] => atr.clone(),
            apdu => match respond(&state, apdu) {
                Some(answer) => answer,
                None => return Ok(()),
            },
        };
        if stop.run_until_cancelled(tokio::time::sleep(delay)).await.is_none() {
            return Ok(());
        }
        if lock(&state).mute {
            continue;
        }
        let length = u16::try_from(answer.len()).unwrap_or(u16::MAX);
        stream.write_all(&[&length.to_be_bytes(), answer.as_slice()].concat()).await?;
    }
}

/// The answer to an APDU; nothing when the card is pulled.
fn respond(state: &Mutex<State>, apdu: &[u8]) -> Option<Vec<u8>> {
    let mut state = lock(state);
    if state.seen.len() < SEEN {
        state.seen.push(apdu.to_vec());
    }
    state.next_card();
    let answer = match state.faults.pop_front().flatten() {
        Some(CardFault::Status(status)) => status.to_be_bytes().to_vec(),
        Some(CardFault::Garbage) => vec![0xA5; 3],
        Some(CardFault::Empty) => Vec::new(),
        Some(CardFault::Half) => {
            state.chip.apdu(apdu);
            vec![0x90]
        }
        Some(CardFault::PullUnheard) => return None,
        Some(CardFault::PullTorn) => {
            state.chip.apdu(&torn(apdu));
            return None;
        }
        Some(CardFault::Pull) => {
            state.chip.apdu(apdu);
            return None;
        }
        Some(CardFault::Mute) => {
            state.mute = true;
            state.chip.apdu(apdu)
        }
        Some(CardFault::MuteUnheard) => {
            state.mute = true;
            Vec::new()
        }
        None => state.chip.apdu(apdu),
    };
    let was_done = matches!(answer.as_slice(), [.., 0x90 | 0x91, 0x00] | [.., 0x61, _]);
    if let Some(swapped) = state.swapped.as_mut().filter(|_| was_done && changes(apdu)) {
        swapped.taken += 1;
    }
    Some(answer)
}

/// The same command, the second half of its data ones.
fn torn(apdu: &[u8]) -> Vec<u8> {
    let data = apdu.len().saturating_sub(5);
    apdu.iter().enumerate().map(|(at, byte)| if at >= 5 + data / 2 { 0xFF } else { *byte }).collect()
}

/// One message: length in two bytes, high first, then so many bytes.
async fn receive(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    // Not lasting: the kernel falls back to delayed acknowledgements, and with the
    // driver's two small writes a message each of these costs 40 ms.
    let _ = stream.set_quickack(true);
    let length = stream.read_u16().await?;
    let _ = stream.set_quickack(true);
    let mut message = vec![0; length.into()];
    stream.read_exact(&mut message).await?;
    Ok(message)
}
