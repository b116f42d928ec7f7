//! What the printer does with commands: buffers that survive a print, a card that
//! must be put in, erasing, printing, and a card that must be pulled out. Pure: bytes
//! and time in, bytes and printed cards out.
//!
//! Sources: Star *TCP300 Series Programmer's Manual*, third edition (2003), and *TCP300II
//! Series Product Specifications Manual, Commands* (2005). What they do not say and is
//! assumed here: 59 is answered while a command waits for a card; 48 discharges as 46 does;
//! a set bit is a printed dot and X runs from left to right.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::canvas::Canvas;
use super::image;
use super::line::{ACK, DLE, Heard, Line, NAK};

const NORMAL: u8 = 0x20;
const NO_CARD: u8 = 0x22;
const JAM: u8 = 0x38;
const COVER_OPEN: u8 = 0x40;
const INVALID: u8 = 0x41;

/// How long things take.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// From ACK to the response of a command that moves nothing.
    pub answer: Duration,
    /// Erasing and printing.
    pub print: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { answer: Duration::ZERO, print: Duration::from_millis(50) }
    }
}

/// Something that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// NAK to so many blocks, although they are right.
    Nak(u32),
    /// DLE to every command for so long.
    Busy(Duration),
    /// The next card jams.
    Jam,
    /// The next command that moves a card ends with this status.
    Status(u8),
    /// The next response has a wrong check.
    Garble,
    /// Says nothing for so long.
    Silence(Duration),
}

/// A card's way through the printer.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Nowhere,
    /// In the inlet or inside, to be processed.
    Inside(Canvas),
    /// Waits to be pulled out.
    Exit(Canvas),
}

/// A command that moves a card.
#[derive(Debug, Clone, Copy)]
struct Job {
    command: u8,
    erase: bool,
    print: bool,
    discharge: bool,
    /// Set when the card is in and moves.
    until: Option<Instant>,
}

/// A card that came out of a print.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Printed {
    /// Its face now.
    pub face: Canvas,
    /// Text in the print expansion buffer, which this simulator does not draw.
    pub text: Vec<u8>,
}

/// The printer.
#[derive(Debug)]
pub struct Machine {
    line: Line,
    pace: Pace,
    /// Text of 41, cleared by 40.
    text: Vec<u8>,
    /// Dots of 43 and 4D, cleared by 49.
    image: Canvas,
    card: Place,
    cover_open: bool,
    job: Option<Job>,
    /// Responses to come: when, command, status, data.
    due: VecDeque<(Instant, u8, u8, Vec<u8>)>,
    faults: VecDeque<Fault>,
    busy_until: Option<Instant>,
    silent_until: Option<Instant>,
    naks: u32,
    /// Cards that came out since they were last taken.
    printed: Vec<Printed>,
    prints: u64,
}

impl Machine {
    /// A printer just switched on, without a card.
    #[must_use]
    pub fn new(pace: Pace) -> Self {
        Self {
            line: Line::Idle,
            pace,
            text: Vec::new(),
            image: Canvas::default(),
            card: Place::Nowhere,
            cover_open: false,
            job: None,
            due: VecDeque::new(),
            faults: VecDeque::new(),
            busy_until: None,
            silent_until: None,
            naks: 0,
            printed: Vec::new(),
            prints: 0,
        }
    }

    /// Power was cut, or the transport path was opened and closed: buffers and running
    /// commands are gone, a card inside is discharged (TCP300II page 1).
    pub fn reset(&mut self) {
        self.line = Line::Idle;
        self.text.clear();
        self.image = Canvas::default();
        self.job = None;
        self.due.clear();
        self.discharge();
    }

    /// Puts a card into the inlet. False: one is in already, or the exit is blocked.
    pub fn insert(&mut self, face: Canvas) -> bool {
        let free = self.card == Place::Nowhere;
        if free {
            self.card = Place::Inside(face);
        }
        free
    }

    /// Pulls the card out of the exit.
    pub fn take(&mut self) -> Option<Canvas> {
        match std::mem::replace(&mut self.card, Place::Nowhere) {
            Place::Exit(face) => Some(face),
            other => {
                self.card = other;
                None
            }
        }
    }

    /// What a clerk does: pulls a finished card out, puts a blank one in when one is waited
    /// for or a face is loaded (the host may look at the inlet before it prints).
    pub fn attend(&mut self) {
        if matches!(self.card, Place::Exit(_)) {
            self.card = Place::Nowhere;
        }
        let loaded = self.image != Canvas::default();
        if self.card == Place::Nowhere && (self.job.is_some() || loaded) {
            self.card = Place::Inside(Canvas::default());
        }
    }

    /// Opens the cover: everything in memory is lost, a running command ends with status 40.
    pub fn open_cover(&mut self, now: Instant) {
        self.cover_open = true;
        if let Some(job) = self.job.take() {
            self.due.push_back((now, job.command, COVER_OPEN, Vec::new()));
        }
        self.text.clear();
        self.image = Canvas::default();
    }

    /// Closes the cover, which resets the printer.
    pub fn close_cover(&mut self) {
        self.cover_open = false;
        self.reset();
    }

    /// Lets something go wrong.
    pub fn fault(&mut self, fault: Fault, now: Instant) {
        match fault {
            Fault::Nak(times) => self.naks = times,
            Fault::Busy(time) => self.busy_until = Some(now + time),
            Fault::Silence(time) => self.silent_until = Some(now + time),
            other => self.faults.push_back(other),
        }
    }

    /// Cards that came out of a print since the last call.
    pub fn printed(&mut self) -> Vec<Printed> {
        std::mem::take(&mut self.printed)
    }

    /// Takes a byte from the host; what is to be said at once.
    pub fn hear(&mut self, byte: u8, now: Instant) -> Vec<u8> {
        if self.silent_until.is_some_and(|until| now < until) {
            return Vec::new();
        }
        match self.line.hear(byte) {
            Heard::Nothing | Heard::Acknowledged => Vec::new(),
            Heard::Say(bytes) => bytes,
            Heard::Command(..) if self.naks > 0 => {
                self.naks -= 1;
                vec![NAK]
            }
            Heard::Command(..) if self.busy_until.is_some_and(|until| now < until) => vec![DLE],
            Heard::Command(command, data) => vec![if self.begin(command, &data, now) { ACK } else { DLE }],
        }
    }

    /// When [`Machine::tick`] has something to do next.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let response = self.due.front().map(|(at, ..)| *at).filter(|_| self.line == Line::Idle);
        let job = self.job.and_then(|job| job.until);
        let start = self.job.filter(|job| job.until.is_none() && matches!(self.card, Place::Inside(_)));
        [response, job, start.map(|_| Instant::now())].into_iter().flatten().min()
    }

    /// Does what is due; what is to be said.
    pub fn tick(&mut self, now: Instant) -> Vec<u8> {
        self.work(now);
        if self.line != Line::Idle || self.due.front().is_none_or(|(at, ..)| *at > now) {
            return Vec::new();
        }
        let Some((_, command, status, data)) = self.due.pop_front() else { return Vec::new() };
        let mut response = self.line.respond(command, status, &data);
        if self.faults.front() == Some(&Fault::Garble) {
            self.faults.pop_front();
            // The host's NAK then brings the response whole.
            if let Some(check) = response.last_mut() {
                *check ^= 0x5A;
            }
        }
        response
    }

    /// Starts a command. False: refused with DLE.
    fn begin(&mut self, command: u8, data: &[u8], now: Instant) -> bool {
        // Priority commands break off what runs, and only theirs is answered (page 4).
        if matches!(command, 0x54 | 0x5F) {
            self.job = None;
            self.due.clear();
            if command == 0x5F {
                self.reset();
            }
            self.due.push_back((now + self.pace.answer, command, NORMAL, Vec::new()));
            return true;
        }
        if (self.job.is_some() || !self.due.is_empty()) && command != 0x59 {
            return false;
        }
        let done = match command {
            0x40 => {
                self.text.clear();
                Some((NORMAL, Vec::new()))
            }
            0x49 => {
                self.image = Canvas::default();
                Some((NORMAL, Vec::new()))
            }
            0x41 => {
                self.text.extend_from_slice(data);
                Some((NORMAL, Vec::new()))
            }
            0x43 => image::column(&mut self.image, data).then(|| (NORMAL, Vec::new())),
            0x4D => image::block(&mut self.image, data).then(|| (NORMAL, Vec::new())),
            0x46 | 0x48 => return self.start(command, data),
            0x50 => {
                let status = if matches!(self.card, Place::Inside(_)) { NORMAL } else { NO_CARD };
                self.discharge();
                Some((status, Vec::new()))
            }
            0x58 => Some((NORMAL, b"TCP300 10 V 1.00 A".to_vec())),
            0x59 => Some((NORMAL, self.sensors())),
            0x5A => Some((NORMAL, Vec::new())),
            0x95 | 0x96 => Some((NORMAL, format!("{:010}", self.prints * 2).into_bytes())),
            _ => Some((INVALID, Vec::new())),
        };
        let Some((status, answer)) = done else { return false };
        self.due.push_back((now + self.pace.answer, command, status, answer));
        true
    }

    /// 46 `[DISCHARGE[,ERASE,PRINT]]` (page 37); 48 erases only.
    fn start(&mut self, command: u8, data: &[u8]) -> bool {
        let flags: Option<Vec<bool>> = match data {
            [] => Some(Vec::new()),
            _ => data.split(|byte| *byte == b',').map(flag).collect(),
        };
        let (discharge, erase, print) = match (command, flags.as_deref()) {
            (0x46, Some([])) => (true, true, true),
            (0x46, Some([discharge])) => (*discharge, true, true),
            (0x46, Some([discharge, erase, print])) => (*discharge, *erase, *print),
            (0x48, Some([])) => (true, true, false),
            _ => return false,
        };
        self.job = Some(Job { command, erase, print, discharge, until: None });
        true
    }

    /// Moves the card of the running command on.
    fn work(&mut self, now: Instant) {
        let Some(job) = &mut self.job else { return };
        let command = job.command;
        let failed = match self.faults.front() {
            _ if self.cover_open => Some(COVER_OPEN),
            Some(Fault::Jam) if matches!(self.card, Place::Inside(_)) => Some(JAM),
            Some(Fault::Status(status)) => Some(*status),
            _ => None,
        };
        if let Some(status) = failed {
            if !self.cover_open {
                self.faults.pop_front();
            }
            self.job = None;
            self.due.push_back((now, command, status, Vec::new()));
            return;
        }
        match job.until {
            None if matches!(self.card, Place::Inside(_)) => job.until = Some(now + self.pace.print),
            Some(until) if until <= now => {
                let job = *job;
                self.finish(job, now);
            }
            _ => {}
        }
    }

    fn finish(&mut self, job: Job, now: Instant) {
        self.job = None;
        let Place::Inside(face) = &mut self.card else {
            self.due.push_back((now, job.command, NO_CARD, Vec::new()));
            return;
        };
        if job.erase {
            *face = Canvas::default();
        }
        if job.print {
            face.add(&self.image);
            self.prints += 1;
            // Both buffers stay as they are: printing again prints the same (page 37).
            self.printed.push(Printed { face: face.clone(), text: self.text.clone() });
        }
        if job.discharge {
            self.discharge();
        }
        self.due.push_back((now, job.command, NORMAL, Vec::new()));
    }

    fn discharge(&mut self) {
        self.card = match std::mem::replace(&mut self.card, Place::Nowhere) {
            Place::Inside(face) | Place::Exit(face) => Place::Exit(face),
            Place::Nowhere => Place::Nowhere,
        };
    }

    /// `S1 S2 S3 S4 COVER 0` (TCP300 page 52).
    fn sensors(&self) -> Vec<u8> {
        let inlet = match self.card {
            Place::Nowhere => b'0',
            Place::Inside(_) => b'1',
            Place::Exit(_) => b'2',
        };
        let moving = if self.job.is_some_and(|job| job.until.is_some()) { b'1' } else { b'0' };
        vec![inlet, b'0', moving, b'0', if self.cover_open { b'1' } else { b'0' }, b'0']
    }
}

fn flag(text: &[u8]) -> Option<bool> {
    match text {
        b"0" => Some(false),
        b"1" => Some(true),
        _ => None,
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
