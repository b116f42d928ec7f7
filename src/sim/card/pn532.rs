//! A simulated PN532 on a serial line (HSU) or TCP, with a card in its field. It takes the
//! chip's frames, sleeps until it is woken, wants SAMConfiguration before all else, and knows
//! what a card is after a failed login: halted until its power is taken.
//!
//! ```text
//! 55 55 00 00 …                       wakes it
//! 00 00 FF LEN LCS D4 CC …  DCS 00    command → 00 00 FF 00 FF 00, then … D5 CC+1 … DCS 00
//! 00 00 FF 00 FF 00                   stops the command that runs
//! 00 00 FF FF 00 00                   the last answer once more
//! ```
//! Source: PN532 user manual UM0701-02 §6.2, §7.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::chip::Chip;
use super::profile::{CardProfile, Technology};
use crate::sim::presence::{Device, Presence};
use crate::sim::transport::{Address, Endpoint, Input};

/// Commands kept for a test to look at.
const SEEN: usize = 20_000;
/// Bytes of a command that was begun.
const LONGEST: usize = 300;

/// Something wrong with what is said about the next command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pn532Fault {
    /// The command never arrived.
    Unheard,
    /// The acknowledgement is lost, the command is done.
    NoAck,
    /// Acknowledged, done, and the answer is lost for good.
    NoAnswer,
    /// A byte of the answer is wrong; asked once more, it is right.
    Garbled,
    /// Bytes that mean nothing before acknowledgement and answer.
    Noise,
    /// The answer to another command before this one's.
    Stale,
    /// The network holds it up: said when the next command is heard, and that one's when the one
    /// behind it is. Who repeats a command in between is answered twice.
    Late,
    /// Acknowledged; the chip is at it until an acknowledgement stops it, else it answers when the
    /// next command is heard.
    Slow,
    /// The card is taken away before the command reaches it.
    Lift,
    /// The card is taken away when it has done what was asked.
    LiftAfter,
}

#[derive(Debug, Default)]
struct State {
    card: Option<Chip>,
    /// The card that a fault took away.
    taken: Option<Chip>,
    awake: bool,
    configured: bool,
    field: bool,
    /// A card was selected and has not lost its power since.
    active: bool,
    /// It refused a login or a command: it hears nothing before it loses its power.
    halted: bool,
    faults: VecDeque<Option<Pn532Fault>>,
    seen: Vec<Vec<u8>>,
    last: Vec<u8>,
    /// What the network holds, and for how many commands more.
    held: Vec<u8>,
    holds: bool,
    /// A command that the chip is at.
    running: Option<Vec<u8>>,
    /// Answers come byte by byte.
    slowly: bool,
    /// Says nothing any more.
    mute: bool,
}

/// Control over the reader and the card in its field. Dropping it takes the reader away.
#[derive(Debug)]
pub struct Pn532Sim {
    state: Arc<Mutex<State>>,
    presence: Presence,
}

#[derive(Debug)]
struct Reader {
    state: Arc<Mutex<State>>,
}

impl Pn532Sim {
    /// Plugs the reader in, its field empty.
    ///
    /// # Errors
    /// The place is taken, or no pseudo-terminal is left.
    pub async fn plug_in(address: Address) -> io::Result<Self> {
        let state = Arc::new(Mutex::new(State::default()));
        let presence = Presence::begin(Reader { state: Arc::clone(&state) }, address).await?;
        Ok(Self { state, presence })
    }

    /// What a client opens: a path or `host:port`.
    #[must_use]
    pub fn name(&self) -> String {
        self.presence.name()
    }

    /// Puts a card into the field, in place of the one that is there.
    pub fn lay(&self, chip: Chip) {
        let mut state = lock(&self.state);
        // What the chip relays, every card hears.
        let profile = CardProfile { direct_transmit: true, ..chip.profile().clone() };
        state.card = Some(chip.in_another_reader(profile));
        (state.active, state.halted) = (false, false);
    }

    /// Takes the card away, as it is now; also one that a fault took.
    pub fn lift(&self) -> Option<Chip> {
        let mut state = lock(&self.state);
        state.active = false;
        let taken = state.taken.take();
        state.card.take().or(taken).map(|mut chip| {
            chip.reset();
            chip
        })
    }

    /// Lets something go wrong with a command after `good` right ones.
    pub fn fault_after(&self, good: usize, fault: Pn532Fault) {
        let mut state = lock(&self.state);
        state.faults.extend(std::iter::repeat_n(None, good));
        state.faults.push_back(Some(fault));
    }

    /// Lets something go wrong with the next command; several queue up.
    pub fn fault(&self, fault: Pn532Fault) {
        self.fault_after(0, fault);
    }

    /// What was to go wrong does not.
    pub fn forget_faults(&self) {
        lock(&self.state).faults.clear();
    }

    /// How many faults have not come yet.
    #[must_use]
    pub fn faults_left(&self) -> usize {
        lock(&self.state).faults.iter().flatten().count()
    }

    /// Answers byte by byte from now on.
    pub fn slowly(&self) {
        lock(&self.state).slowly = true;
    }

    /// Says nothing any more, or speaks again.
    pub fn mute(&self, mute: bool) {
        lock(&self.state).mute = mute;
    }

    /// Commands it was given, oldest first: code and parameters.
    #[must_use]
    pub fn commands(&self) -> Vec<Vec<u8>> {
        lock(&self.state).seen.clone()
    }

    /// Pulls the reader's cable.
    pub async fn vanish(&mut self) {
        self.presence.vanish().await;
    }

    /// Plugs it in again.
    pub async fn come_back(&mut self) {
        self.presence.come_back().await;
    }

    /// Takes it away for good.
    pub async fn stop(self) {
        self.presence.end().await;
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Device for Reader {
    async fn serve(&mut self, mut endpoint: Endpoint) {
        let mut bytes: Vec<u8> = Vec::new();
        loop {
            match endpoint.read().await {
                Ok(Input::Bytes(more)) => bytes.extend(more),
                Ok(Input::Left) => {
                    bytes.clear();
                    continue;
                }
                Err(_) => return,
            }
            let (says, slowly) = {
                let mut state = lock(&self.state);
                let says = state.hear(&mut bytes);
                (says, state.slowly)
            };
            for part in says.chunks(if slowly { 1 } else { usize::MAX }) {
                endpoint.write(part).await;
            }
        }
    }

    fn power_cycle(&mut self) {
        let mut state = lock(&self.state);
        (state.awake, state.configured, state.field, state.active) = (false, false, false, false);
        state.halted = false;
        state.last.clear();
        state.held.clear();
        (state.holds, state.running) = (false, None);
    }
}

impl State {
    /// Takes whole frames off the front; what is said to them.
    fn hear(&mut self, bytes: &mut Vec<u8>) -> Vec<u8> {
        let mut says = Vec::new();
        loop {
            if bytes.windows(2).any(|pair| pair == [0x55, 0x55]) {
                self.awake = true;
            }
            let Some(at) = bytes.windows(3).position(|start| start == [0x00, 0x00, 0xFF]) else {
                let keep = bytes.len().min(2);
                bytes.drain(..bytes.len() - keep);
                return says;
            };
            bytes.drain(..at);
            let (used, command) = match bytes.as_slice() {
                [_, _, _, 0x00, 0xFF, _, ..] => {
                    self.running = None;
                    (6, None)
                }
                [_, _, _, 0xFF, 0x00, _, ..] => {
                    if !self.mute {
                        says.extend(&self.last);
                    }
                    (6, None)
                }
                [_, _, _, 0xFF, 0xFF, high, low, _, body @ ..] => {
                    let length = usize::from(u16::from_be_bytes([*high, *low]));
                    match body.get(..length) {
                        Some(said) if body.len() > length => {
                            (9 + length, Some(said.to_vec()).filter(|_| is_sound(body, length)))
                        }
                        _ if length > LONGEST => (3, None),
                        _ => return says,
                    }
                }
                [_, _, _, length, check, body @ ..] if length.wrapping_add(*check) == 0 => {
                    match body.get(..usize::from(*length)) {
                        Some(said) if body.len() > said.len() => {
                            (6 + said.len(), Some(said.to_vec()).filter(|_| is_sound(body, said.len())))
                        }
                        _ => return says,
                    }
                }
                [_, _, _, _, _, ..] => (3, None),
                _ => return says,
            };
            bytes.drain(..used.min(bytes.len()));
            if let Some(said) = command
                && let [0xD4, command @ ..] = said.as_slice()
                && self.awake
                && !self.mute
            {
                says.extend(self.come_through(command));
            }
        }
    }

    /// What comes over the line now: the network may hold it up, or bring what it held.
    fn come_through(&mut self, command: &[u8]) -> Vec<u8> {
        let begins = self.faults.front() == Some(&Some(Pn532Fault::Late));
        let finished = self.running.take().map(|running| self.obey(&running, None));
        let fault = self.faults.pop_front().flatten();
        let says = [finished.unwrap_or_default(), self.obey(command, fault)].concat();
        if begins {
            self.holds = true;
            self.held.extend(says);
            return Vec::new();
        }
        if std::mem::take(&mut self.holds) {
            return std::mem::replace(&mut self.held, says);
        }
        [std::mem::take(&mut self.held), says].concat()
    }

    /// What comes over the line for a command.
    fn obey(&mut self, command: &[u8], fault: Option<Pn532Fault>) -> Vec<u8> {
        const HEARD: [u8; 6] = [0x00, 0x00, 0xFF, 0x00, 0xFF, 0x00];
        if fault == Some(Pn532Fault::Unheard) {
            return Vec::new();
        }
        if self.seen.len() < SEEN {
            self.seen.push(command.to_vec());
        }
        if fault == Some(Pn532Fault::Slow) {
            self.running = Some(command.to_vec());
            return HEARD.to_vec();
        }
        let gone = |state: &mut Self| {
            state.taken = state.card.take();
            state.active = false;
        };
        if fault == Some(Pn532Fault::Lift) {
            gone(self);
        }
        let answer = self.answer(command);
        if fault == Some(Pn532Fault::LiftAfter) {
            gone(self);
            return HEARD.to_vec();
        }
        let answer = match answer {
            Some(answer) => framed(&answer),
            // Application error frame (§6.2.1.5).
            None => vec![0x00, 0x00, 0xFF, 0x01, 0xFF, 0x7F, 0x81, 0x00],
        };
        self.last.clone_from(&answer);
        match fault {
            Some(Pn532Fault::NoAck) => answer,
            Some(Pn532Fault::NoAnswer) => HEARD.to_vec(),
            Some(Pn532Fault::Garbled) => {
                let mut wrong = answer;
                let middle = wrong.len() / 2;
                if let Some(byte) = wrong.get_mut(middle) {
                    *byte ^= 0x10;
                }
                [HEARD.as_slice(), &wrong].concat()
            }
            Some(Pn532Fault::Noise) => {
                [&[0xA5, 0x00, 0xFF, 0x13, 0x07], HEARD.as_slice(), &[0x00, 0x00, 0x77, 0xD5], &answer]
                    .concat()
            }
            Some(Pn532Fault::Stale) => {
                [HEARD.as_slice(), &framed(&[0xD5, 0x0D, 0x01, 0x02]), &answer].concat()
            }
            _ => [HEARD.as_slice(), &answer].concat(),
        }
    }

    /// The answer with its direction and code.
    fn answer(&mut self, command: &[u8]) -> Option<Vec<u8>> {
        let (code, parameters) = command.split_first()?;
        let with = |data: &[u8]| Some([&[0xD5, code + 1], data].concat());
        match (code, parameters) {
            (0x02, []) => with(&[0x32, 0x01, 0x06, 0x07]),
            (0x14, [0x01, ..]) => {
                self.configured = true;
                with(&[])
            }
            // In its low-power mode after a reset it does nothing else.
            _ if !self.configured => None,
            (0x32, [0x01, on]) => {
                self.field(on & 1 == 1);
                with(&[])
            }
            (0x32, [_, ..]) | (0x52, [_]) => with(if *code == 0x52 { &[0x00] } else { &[] }),
            // Gives back what it was given (§7.2.1, test 00).
            (0x00, [0x00, ..]) => with(parameters),
            (0x00, [0x06]) => {
                let there = self.active && self.selected().is_some_and(|chip| is_processor(chip.profile()));
                with(&[if there { 0x00 } else { 0x01 }])
            }
            (0x4A, [_, 0x00]) => with(&self.list()),
            (0x40, [0x01, data @ ..]) => with(&self.exchange(data)),
            (0x42, data) => with(&self.through(data)),
            _ => None,
        }
    }

    fn field(&mut self, on: bool) {
        if !on {
            (self.active, self.halted) = (false, false);
            if let Some(chip) = &mut self.card {
                chip.reset();
            }
        }
        self.field = on;
    }

    fn selected(&mut self) -> Option<&mut Chip> {
        self.card.as_mut().filter(|_| self.active && !self.halted)
    }

    /// Number of cards; number, ATQA, SAK, UID and answer to select of the one there is.
    fn list(&mut self) -> Vec<u8> {
        self.field = true;
        let Some(chip) = self.card.as_mut().filter(|_| !self.halted) else { return vec![0] };
        let profile = chip.profile().clone();
        let Some((atqa, sak)) = activation(profile.technology) else { return vec![0] };
        // A processor card that is open hears no request; it needs its power taken.
        if self.active && is_processor(&profile) {
            return vec![0];
        }
        chip.reset();
        self.active = true;
        let length = u8::try_from(profile.uid.len()).unwrap_or(0);
        let select = profile.answer_to_select().unwrap_or_default();
        [&[1, 1], &atqa[..], &[sak, length], &profile.uid, &select].concat()
    }

    /// A command of a MIFARE chip or an APDU: status, then data.
    fn exchange(&mut self, data: &[u8]) -> Vec<u8> {
        const NO_ANSWER: u8 = 0x01;
        const REFUSED: u8 = 0x14;
        let Some(chip) = self.selected() else { return vec![NO_ANSWER] };
        let profile = chip.profile().clone();
        if is_processor(&profile) {
            return [&[0x00], chip.apdu(data).as_slice()].concat();
        }
        let (mut asked, status) = match data {
            [kind @ (0x60 | 0x61), block, rest @ ..] => {
                let right = rest.len() == 10 && profile.uid.ends_with(rest.get(6..).unwrap_or_default());
                let key = rest.get(..6).filter(|_| right).unwrap_or(&[0; 6]);
                chip.apdu(&[&[0xFF, 0x82, 0x00, 0x01, 6], key].concat());
                (chip.apdu(&[0xFF, 0x86, 0, 0, 5, 1, 0, *block, *kind, 1]), REFUSED)
            }
            [0x30, at] => (chip.apdu(&[0xFF, 0xB0, 0, *at, 16]), NO_ANSWER),
            [0xA0, at, block @ ..] if block.len() == 16 => {
                (chip.apdu(&[&[0xFF, 0xD6, 0, *at, 16], block].concat()), NO_ANSWER)
            }
            [0xA2, at, page @ ..] if page.len() == 4 => {
                (chip.apdu(&[&[0xFF, 0xD6, 0, *at, 4], page].concat()), NO_ANSWER)
            }
            _ => return vec![0x27],
        };
        if asked.split_off(asked.len().saturating_sub(2)) == [0x90, 0x00] {
            return [&[0x00], asked.as_slice()].concat();
        }
        self.halted = true;
        vec![status]
    }

    /// A command as it stands: status, then the card's bytes.
    fn through(&mut self, data: &[u8]) -> Vec<u8> {
        let Some(chip) = self.selected() else { return vec![0x01] };
        let length = u8::try_from(data.len() + 2).unwrap_or(u8::MAX);
        let relayed = chip.apdu(&[&[0xFF, 0, 0, 0, length, 0xD4, 0x42], data].concat());
        let answer =
            relayed.strip_prefix(&[0xD5, 0x43]).and_then(|answer| answer.strip_suffix(&[0x90, 0x00]));
        match answer {
            Some([0x00, bytes @ ..]) => [&[0x00], bytes].concat(),
            _ => {
                self.halted = true;
                vec![0x01]
            }
        }
    }
}

/// ATQA as it stands in the chip's answer, and SAK (NXP AN10833 rev. 3.9 tables 5 and 6); none:
/// this chip does not see such a card.
fn activation(technology: Technology) -> Option<([u8; 2], u8)> {
    Some(match technology {
        Technology::Classic1k => ([0x00, 0x04], 0x08),
        Technology::Classic4k => ([0x00, 0x02], 0x18),
        Technology::Desfire | Technology::DesfireEv1 | Technology::Ntag424 => ([0x03, 0x44], 0x20),
        Technology::Cpu => ([0x00, 0x08], 0x28),
        Technology::Bank => ([0x00, 0x04], 0x20),
        Technology::Icode | Technology::Sle4442 => return None,
        _ => ([0x00, 0x44], 0x00),
    })
}

fn is_processor(profile: &CardProfile) -> bool {
    activation(profile.technology).is_some_and(|(_, sak)| sak & 0x20 != 0)
}

/// Whether the checksum behind `length` bytes is theirs (§6.2.1.1); else the chip takes no notice.
fn is_sound(body: &[u8], length: usize) -> bool {
    body.iter().take(length + 1).fold(0, |sum: u8, byte| sum.wrapping_add(*byte)) == 0
}

/// Length and checksum around an answer.
fn framed(answer: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x00, 0x00, 0xFF];
    match u8::try_from(answer.len()) {
        Ok(length) => frame.extend([length, 0u8.wrapping_sub(length)]),
        Err(_) => {
            let [high, low] = u16::try_from(answer.len()).unwrap_or(u16::MAX).to_be_bytes();
            frame.extend([0xFF, 0xFF, high, low, 0u8.wrapping_sub(high).wrapping_sub(low)]);
        }
    }
    frame.extend(answer);
    frame.push(answer.iter().fold(0, |sum: u8, byte| sum.wrapping_sub(*byte)));
    frame.push(0x00);
    frame
}
