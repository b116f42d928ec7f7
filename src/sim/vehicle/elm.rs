//! The adapter as a pure machine: a byte in, what it prints and when out
//! (ELM327 datasheet, ELM327DSL). A thin task ([`super::task`]) plays the steps.
//! What does not live here: requests to the car ([`super::request`]).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::adapter::Adapter;
use super::car::{Car, Frame};
use super::fault::Fault;
use super::settings::{Settings, protocol_name};

/// Characters the chip's buffer holds.
const LINE: usize = 254;
/// As good as never.
const NEVER: Duration = Duration::from_secs(3600);

/// Something to print.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// So long after the step before.
    pub after: Duration,
    /// These bytes.
    pub bytes: Vec<u8>,
}

/// What a byte set off.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reaction {
    /// What to print.
    pub steps: VecDeque<Step>,
    /// A byte meanwhile stops it (`STOPPED`); else a byte meanwhile is lost.
    pub stoppable: bool,
}

/// An ELM327 or what calls itself so.
#[derive(Debug, Clone)]
pub struct Elm {
    pub(super) adapter: Adapter,
    pub(super) settings: Settings,
    line: Vec<u8>,
    /// What a lone CR repeats.
    last: Vec<u8>,
    /// Protocol in use since the last request that was answered.
    pub(super) connected: Option<u8>,
    pub(super) faults: VecDeque<Fault>,
    pub(super) garble_every: u32,
    /// Requests answered, for `garble_every`.
    pub(super) answered: u32,
    /// Hangs until power is cut.
    pub(super) dead: bool,
    /// Requests to the car since the settings are as they are.
    pub(super) requests: usize,
    /// Where the next 00 byte falls.
    dice: u32,
    /// What the line to the adapter swallows.
    losses: Losses,
    /// Frames that come on the bus when the chip has given up on them, unless it is asked on.
    pub(super) late: Vec<(Instant, Frame)>,
}

/// A line that swallows characters, and where in the conversation it is.
#[derive(Debug, Clone, Default)]
struct Losses {
    span: usize,
    from: usize,
    /// Behind the first one; 0: no second one.
    apart: usize,
    ends: usize,
    /// Lines since then, as the host ended them.
    lines: usize,
    /// Characters of the line at hand.
    place: usize,
}

impl Losses {
    fn takes(&mut self, byte: u8) -> bool {
        if byte == b'\r' {
            self.lines += 1;
            self.place = 0;
            return self.ends > 0 && self.lines.is_multiple_of(self.ends);
        }
        let place = self.place;
        self.place += 1;
        if self.span == 0 {
            return false;
        }
        let first = (self.lines + self.from) % self.span;
        place == first || self.apart > 0 && place == first + self.apart
    }
}

impl Elm {
    /// An adapter just powered.
    #[must_use]
    pub fn new(adapter: Adapter) -> Self {
        Self {
            settings: Settings::fresh(&adapter),
            adapter,
            line: Vec::new(),
            last: Vec::new(),
            connected: None,
            faults: VecDeque::new(),
            garble_every: 0,
            answered: 0,
            dead: false,
            requests: 0,
            dice: 1,
            losses: Losses::default(),
            late: Vec::new(),
        }
    }

    /// Power was cut: settings, memory and a hang are gone.
    pub fn power_cycle(&mut self) {
        self.reset();
        self.dead = false;
    }

    /// Adds a fault for a request to come.
    pub fn add(&mut self, fault: Fault) {
        match fault {
            Fault::GarbleEvery(every) => self.garble_every = every,
            Fault::Freeze => self.dead = true,
            Fault::LoseInTurn { span, from } => {
                self.losses = Losses { span, from, ends: self.losses.ends, ..Losses::default() };
            }
            Fault::LoseTwoInTurn { span, from, apart } => {
                self.losses = Losses { span, from, apart, ..Losses::default() };
            }
            Fault::LoseEnds(every) => {
                self.losses = Losses { ends: every, span: self.losses.span, ..Losses::default() };
            }
            other => self.faults.push_back(other),
        }
    }

    /// Resets and prints the banner unasked, as after a dip of the supply.
    pub fn brown_out(&mut self) -> Vec<u8> {
        self.reset();
        self.banner()
    }

    /// A byte came at the wrong rate: the chip saw another one.
    pub fn noise(&mut self) {
        if self.line.is_empty() {
            self.line.push(0xFE);
        }
    }

    /// Whether a byte from the host is lost on its way.
    pub fn is_lost(&mut self, byte: u8) -> bool {
        self.losses.takes(byte)
    }

    /// Takes a byte from the host.
    pub fn feed(&mut self, byte: u8, car: Option<&mut Car>) -> Reaction {
        let mut echo = Vec::new();
        if self.dead || byte == 0 {
            return Reaction::default();
        }
        if self.settings.echo {
            echo.push(byte);
            if byte == b'\r' && self.settings.linefeeds {
                echo.push(b'\n');
            }
        }
        let mut reaction = Reaction::default();
        match byte {
            b'\r' => reaction = self.execute(car),
            // Spaces and control characters are ignored (datasheet, "Communicating with the ELM327").
            b'\t' | b'\n' | b' ' => {}
            _ if self.line.len() < LINE => self.line.push(byte.to_ascii_uppercase()),
            _ => {}
        }
        if !echo.is_empty() {
            reaction.steps.push_front(Step { after: Duration::ZERO, bytes: echo });
        }
        reaction
    }

    /// A byte came while a request was under way.
    pub fn stop(&mut self) -> Vec<u8> {
        self.closing("STOPPED")
    }

    /// What the host reads of `bytes`.
    pub fn as_written(&mut self, bytes: &[u8]) -> Vec<u8> {
        if !self.adapter.nulls_at_random {
            return bytes.to_vec();
        }
        let mut written = Vec::with_capacity(bytes.len() * 2);
        for &byte in bytes {
            // Numerical Recipes' generator: any will do.
            self.dice = self.dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if self.dice >> 29 == 0 {
                written.push(0);
            }
            written.push(byte);
        }
        written
    }

    fn reset(&mut self) {
        self.requests = 0;
        self.settings = Settings::fresh(&self.adapter);
        self.connected = None;
        self.line.clear();
        self.last.clear();
    }

    fn execute(&mut self, car: Option<&mut Car>) -> Reaction {
        let mut line = std::mem::take(&mut self.line);
        if line.is_empty() {
            line = self.last.clone();
        } else {
            self.last.clone_from(&line);
        }
        let Ok(text) = std::str::from_utf8(&line) else { return self.say("?") };
        if let Some(command) = text.strip_prefix("AT") {
            return self.at(command, car.as_deref());
        }
        if let Some(command) = text.strip_prefix("ST") {
            return self.st(command);
        }
        if text.is_empty() {
            return self.now(format!("{}>", self.end()).into_bytes());
        }
        self.request(text, car)
    }

    fn at(&mut self, command: &str, car: Option<&Car>) -> Reaction {
        let begins = |list: &[String]| list.iter().any(|known| command.starts_with(known.as_str()));
        if begins(&self.adapter.hangs) {
            self.dead = true;
            return Reaction::default();
        }
        if begins(&self.adapter.unknown) {
            return self.say("?");
        }
        if begins(&self.adapter.ignores) {
            return self.say("OK");
        }
        match command {
            "Z" | "WS" => {
                let after = Duration::from_millis(if command == "Z" { self.adapter.reset_ms } else { 2 });
                self.reset();
                self.last = format!("AT{command}").into_bytes();
                Reaction { steps: VecDeque::from([Step { after, bytes: self.banner() }]), stoppable: false }
            }
            "D" => {
                self.settings =
                    Settings { protocol: self.settings.protocol, ..Settings::fresh(&self.adapter) };
                self.say("OK")
            }
            "I" => self.say(&self.adapter.banner),
            "@1" => self.say("OBDII to RS232 Interpreter"),
            "RV" => self.say(&self.voltage(car)),
            "IGN" => self.say(if car.is_some_and(Car::awake) { "ON" } else { "OFF" }),
            "DP" => self.say(&self.protocol_in_words()),
            "DPN" if self.adapter.protocol_number.is_some() => {
                self.say(self.adapter.protocol_number.as_deref().unwrap_or("A0"))
            }
            "DPN" => {
                let letter = if self.settings.automatic { "A" } else { "" };
                self.say(&format!("{letter}{:X}", self.protocol()))
            }
            "PC" => {
                self.connected = None;
                self.say("OK")
            }
            "LP" => self.say("OK"),
            "CS" => self.say("T:00 R:00 "),
            "KW" => self.say("1:E9 2:8F"),
            "MA" | "MR" | "MT" => {
                let wait = Step { after: NEVER, bytes: Vec::new() };
                Reaction { steps: VecDeque::from([wait]), stoppable: true }
            }
            _ => {
                let known = self.settings.apply(command);
                if known && (command.starts_with("SP") || command.starts_with("TP")) {
                    self.connected = None;
                }
                self.say(if known { "OK" } else { "?" })
            }
        }
    }

    /// STN chips only (STN1100 family reference manual).
    fn st(&self, command: &str) -> Reaction {
        let Some(identity) = &self.adapter.stn else { return self.say("?") };
        match command {
            "I" | "DI" => self.say(identity),
            "MFR" => self.say("OBD Solutions LLC"),
            "VR" => self.say("12.60"),
            _ if [
                "FAP", "FAB", "FAFC", "FCP", "FCB", "FCFC", "FAC", "PTO", "PTOT", "P", "CSEGR", "CSEGT",
            ]
            .iter()
            .any(|known| command.starts_with(known)) =>
            {
                self.say("OK")
            }
            _ => self.say("?"),
        }
    }

    fn voltage(&self, car: Option<&Car>) -> String {
        let volts = car.map_or(0.1, |car| car.voltage() + self.adapter.voltage_offset);
        format!("{:.1}V", if self.adapter.no_voltage { 0.0 } else { volts })
    }

    fn protocol(&self) -> u8 {
        self.connected.unwrap_or(self.settings.protocol)
    }

    fn protocol_in_words(&self) -> String {
        let name = protocol_name(self.protocol());
        if self.settings.automatic && name != "AUTO" { format!("AUTO, {name}") } else { name.to_owned() }
    }

    /// End of a line.
    pub(super) fn end(&self) -> &'static str {
        if self.settings.linefeeds { "\r\n" } else { "\r" }
    }

    fn banner(&self) -> Vec<u8> {
        let end = self.end();
        let banner = format!("{end}{end}{}{end}{end}>", self.adapter.banner);
        banner.repeat(if self.adapter.banner_twice { 2 } else { 1 }).into_bytes()
    }

    /// A last line and the prompt.
    pub(super) fn closing(&self, text: &str) -> Vec<u8> {
        let end = self.end();
        format!("{text}{end}{end}>").into_bytes()
    }

    fn say(&self, text: &str) -> Reaction {
        self.now(self.closing(text))
    }

    fn now(&self, bytes: Vec<u8>) -> Reaction {
        let steps = self.prompted(Step { after: Duration::ZERO, bytes });
        Reaction { steps: steps.into(), stoppable: false }
    }

    /// A last step, whose prompt may come late.
    pub(super) fn prompted(&self, mut step: Step) -> Vec<Step> {
        let late = Duration::from_millis(self.adapter.prompt_late_ms);
        if late.is_zero() || step.bytes.pop_if(|byte| *byte == b'>').is_none() {
            return vec![step];
        }
        vec![step, Step { after: late, bytes: b">".to_vec() }]
    }

    /// Loses the settings, as `LV RESET` says.
    pub(super) fn forget(&mut self) {
        self.requests = 0;
        self.settings = Settings::fresh(&self.adapter);
        self.connected = None;
    }

    /// `?`
    pub(super) fn refuse(&self) -> Reaction {
        self.say("?")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::vehicle::CarSpec;
    use proptest::prelude::*;

    fn printed(reaction: Reaction) -> String {
        let bytes = reaction.steps.into_iter().flat_map(|step| step.bytes);
        String::from_utf8_lossy(&bytes.collect::<Vec<_>>()).into_owned()
    }

    proptest! {
        #![proptest_config(crate::seed::cases(256))]

        /// Whatever was sent before, `ATZ` brings the chip back.
        #[test]
        fn noise_is_survived(
            noise in prop::collection::vec(any::<u8>(), 0..600),
            lines in prop::collection::vec("(AT ?)?[A-Z0-9@]{0,10}\r", 0..30),
            protocol in 1_u8..=9,
        ) {
            let mut elm = Elm::new(Adapter::default());
            let mut car = Car::new(&CarSpec { protocol, ..CarSpec::default() }).unwrap();
            for byte in noise.into_iter().chain(lines.concat().into_bytes()).chain(*b"\r") {
                elm.feed(byte, Some(&mut car));
            }
            let last = b"ATZ\r".map(|byte| printed(elm.feed(byte, Some(&mut car))));
            prop_assert!(last[3].ends_with("\r\rELM327 v1.5\r\r>"), "{last:?}");
        }

        /// Every request to a car that is there ends with one prompt.
        #[test]
        fn every_request_ends_with_the_prompt(request in prop::collection::vec(any::<u8>(), 1..7), protocol in 1_u8..=9) {
            let mut elm = Elm::new(Adapter::default());
            let mut car = Car::new(&CarSpec { protocol, ..CarSpec::default() }).unwrap();
            let text = hex::encode(request) + "\r";
            let all: String = text.bytes().map(|byte| printed(elm.feed(byte, Some(&mut car)))).collect();
            prop_assert!(all.ends_with("\r\r>") && all.matches('>').count() == 1, "{all:?}");
        }
    }
}
