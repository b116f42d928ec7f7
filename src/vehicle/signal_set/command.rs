//! One command of a set: what is asked, who answers, under which name it goes, and
//! whether it can be asked of a car through the read-only gate.

use std::time::Duration;

use serde::Deserialize;

use super::format::Format;
use super::years::Years;
use crate::vehicle::gate::{ExtendedAddress, Refused, Request, Target, UnitAddress};
use crate::vehicle::protocol::{EcuAddress, Protocol};

/// A command is asked at most so often, whatever `freq` says, …
const MOST_OFTEN: Duration = Duration::from_secs(1);
/// … and at least so often.
const MOST_RARELY: Duration = Duration::from_secs(3600);
/// The tester on CAN and KWP (ISO 15765-4, ISO 14230-4).
const TESTER: u8 = 0xF1;

/// Why a command is never asked; its answers can be decoded nevertheless.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAsked {
    /// The gate.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// `eax` on another bus than 11-bit CAN or at no address of diagnosis, or `tst` other than
    /// F1 without it.
    #[error("it needs extended addresses (`eax`, `tst`) that are none of diagnosis")]
    Addresses,
    /// A service below 10 on a maker's own identifier without `eax`: a unit that has an address
    /// byte would read another request.
    #[error("a unit with an extended address could read another request; give `eax`, or ask 7E0 to 7E7")]
    Doubtful,
    /// `din` or `dout`: something else is to be sent before or after it.
    #[error("it needs other requests around it (`din`, `dout`)")]
    Around,
    /// `hdr` is none of an 11-bit or 29-bit CAN bus.
    #[error("its header {0} is none of a CAN bus")]
    Header(String),
    /// `hdr`, with `pri`, is an address that the gate does not have.
    #[error("{0} is no address of diagnosis (700 to 7DE, 7E0 to 7E7, 7F0 to 7F7, DAxx with `pri` 18 or 14)")]
    Unit(String),
    /// `rax` is an identifier of another width, or the request's own.
    #[error("no unit that is asked on `hdr` {header} can answer on `rax` {rax}")]
    AnswersOn {
        /// `hdr`.
        header: String,
        /// `rax`.
        rax: String,
    },
    /// `proto` is another bus than that of `hdr`.
    #[error("`hdr` {header} is no header on {bus} (`proto`)")]
    Bus {
        /// `hdr`.
        header: String,
        /// `proto`.
        bus: &'static str,
    },
    /// Before it in the files are as many as a car is asked.
    #[error("a car is asked {0} commands at most; leave out files or commands that this car does not need")]
    TooMany(usize),
}

/// `proto`: the only kind of bus on which a command is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bus {
    Iso9141,
    Can11,
    Can29,
}

impl Bus {
    const ALL: [Self; 3] = [Self::Iso9141, Self::Can11, Self::Can29];

    /// As OBDb's schema writes it.
    fn name(self) -> &'static str {
        match self {
            Self::Iso9141 => "9141-2",
            Self::Can11 => "15765-4-11bit",
            Self::Can29 => "15765-4-29bit",
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|bus| bus.name() == text);
        known.ok_or_else(|| {
            format!("`proto` is {text:?}: 9141-2, 15765-4-11bit or 15765-4-29bit belongs there")
        })
    }

    fn is(self, protocol: Protocol) -> bool {
        match self {
            Self::Iso9141 => protocol == Protocol::Iso9141,
            Self::Can11 => matches!(protocol, Protocol::Can11At500 | Protocol::Can11At250),
            Self::Can29 => matches!(protocol, Protocol::Can29At500 | Protocol::Can29At250),
        }
    }
}

/// A request and the signals in its answer.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "Written")]
pub struct Command {
    /// Request header: 3 digits on 11-bit CAN, 4 digits elsewhere.
    pub(super) header: String,
    /// `rax` as written.
    pub(super) answers_on: Option<String>,
    /// Service and identifier.
    pub(super) request: Vec<u8>,
    extended_address: Option<u8>,
    priority: u32,
    tester: u8,
    needs_others: bool,
    /// `tmo`, in 4 ms; 0: as usual.
    wait_steps: u8,
    bus: Option<Bus>,
    every: Duration,
    years: Years,
    /// What stands behind its name.
    pub(super) options: Vec<(String, String)>,
    signals: Vec<Signal>,
}

/// A named value.
#[derive(Debug, Clone, Deserialize)]
pub struct Signal {
    /// Its name in the set.
    pub id: String,
    /// What people call it.
    #[serde(default)]
    pub name: String,
    /// Where a display shows it, e.g. `Engine`.
    #[serde(default)]
    pub path: String,
    /// The set's own word for what it measures, e.g. `fuelTankLevel`.
    #[serde(rename = "suggestedMetric")]
    pub metric: Option<String>,
    /// How it is decoded.
    pub fmt: Format,
}

/// The keys as they stand in the file.
#[derive(Debug, Deserialize)]
struct Written {
    hdr: String,
    rax: Option<String>,
    eax: Option<String>,
    pri: Option<String>,
    tst: Option<String>,
    tmo: Option<String>,
    #[serde(default)]
    fcm1: bool,
    proto: Option<String>,
    cmd: std::collections::BTreeMap<String, String>,
    /// Seconds between two questions.
    freq: Option<f64>,
    din: Option<serde::de::IgnoredAny>,
    dout: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    filter: Years,
    signals: Vec<Signal>,
}

impl TryFrom<Written> for Command {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        if !matches!(written.hdr.len(), 3 | 4) || !is_hex(&written.hdr) {
            return Err(format!("`hdr` is {:?}: 3 or 4 hex digits belong there", written.hdr));
        }
        if let Some(rax) =
            written.rax.as_ref().filter(|rax| !matches!(rax.len(), 2 | 3 | 6 | 8) || !is_hex(rax))
        {
            return Err(format!("`rax` is {rax:?}: 2, 3, 6 or 8 hex digits belong there"));
        }
        let mut asked = written.cmd.iter();
        let (Some((service, identifier)), None) = (asked.next(), asked.next()) else {
            return Err("`cmd` has one service (01, 21 or 22) with its identifier".to_owned());
        };
        let request = hex::decode(format!("{service}{identifier}"))
            .map_err(|_| format!("`cmd` is {service}{identifier}: whole hex bytes belong there"))?;
        let extended_address = written.eax.as_deref().map(|eax| byte("eax", eax)).transpose()?;
        // 18: the priority of diagnostics on 29-bit CAN (ISO 15765-4).
        let priority = written.pri.as_deref().map_or(Ok(0x18), |pri| byte("pri", pri))?;
        let tester = written.tst.as_deref().map_or(Ok(TESTER), |tst| byte("tst", tst))?;
        // As `AT ST` takes it, 00 for the usual wait.
        let wait_steps = written.tmo.as_deref().map_or(Ok(0), |tmo| byte("tmo", tmo))?;
        let bus = written.proto.as_deref().map(Bus::parse).transpose()?;
        Ok(Self {
            options: options(&written),
            header: written.hdr.to_ascii_uppercase(),
            answers_on: written.rax.map(|rax| rax.to_ascii_uppercase()),
            request,
            extended_address,
            priority: priority.into(),
            tester,
            needs_others: written.din.is_some() || written.dout.is_some(),
            wait_steps,
            bus,
            every: every(written.freq),
            years: written.filter,
            signals: written.signals,
        })
    }
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn byte(key: &str, text: &str) -> Result<u8, String> {
    u8::from_str_radix(text, 16).map_err(|_| format!("`{key}` is {text:?}: 2 hex digits belong there"))
}

/// What the set's tools write behind a command's name, each `key=value`.
fn options(written: &Written) -> Vec<(String, String)> {
    let mut options = Vec::new();
    let mut add = |key: &str, value: Option<&str>| {
        options.extend(value.map(|value| (key.to_owned(), value.to_ascii_uppercase())));
    };
    add("t", written.tmo.as_deref());
    add("e", written.eax.as_deref());
    add("ta", written.tst.as_deref());
    add("fc", written.fcm1.then_some("1"));
    add("p", written.proto.as_deref());
    add("c", written.pri.as_deref());
    add("f", written.filter.text().as_deref());
    options
}

/// A minute where the set does not say.
fn every(seconds: Option<f64>) -> Duration {
    let wanted = Duration::try_from_secs_f64(seconds.unwrap_or(60.0)).unwrap_or(MOST_RARELY);
    wanted.clamp(MOST_OFTEN, MOST_RARELY)
}

impl Command {
    /// Its signals.
    #[must_use]
    pub fn signals(&self) -> &[Signal] {
        &self.signals
    }

    /// The model years it is for.
    #[must_use]
    pub fn years(&self) -> &Years {
        &self.years
    }

    /// How long to wait between two questions: the set's `freq`, within reason.
    #[must_use]
    pub fn every(&self) -> Duration {
        self.every
    }

    /// The question, if it may and can be asked.
    ///
    /// # Errors
    /// [`NotAsked`] says why not.
    pub fn question(&self) -> Result<Request, NotAsked> {
        Ok(self.addressed()?.waiting(self.wait_steps))
    }

    fn addressed(&self) -> Result<Request, NotAsked> {
        let request = Request::parse(&hex::encode(&self.request))?;
        if self.needs_others {
            return Err(NotAsked::Around);
        }
        let unknown = || NotAsked::Header(self.header.clone());
        let header = u32::from_str_radix(&self.header, 16).map_err(|_| unknown())?;
        match (self.bus, self.header.len(), header) {
            // SAE J1979 §5: what all units on ISO 9141-2 hear.
            (Some(Bus::Iso9141), 4, 0x686A) => return Ok(request),
            (None, ..) | (Some(Bus::Can11), 3, _) | (Some(Bus::Can29), 4, _) => {}
            (Some(bus), ..) => {
                return Err(NotAsked::Bus { header: self.header.clone(), bus: bus.name() });
            }
        }
        let answer = self.answer_number()?;
        if let Some(unit) = self.extended_address {
            let address = ExtendedAddress::new(header, unit, self.tester).filter(|_| self.is_11_bit());
            let address = match (address, answer) {
                (Some(address), Some(answer)) => {
                    Some(address.answering_on(answer).ok_or_else(|| self.cannot_answer())?)
                }
                (address, _) => address,
            };
            let target = address.map(Target::Extended).ok_or(NotAsked::Addresses)?;
            return request.to(target).ok_or(NotAsked::Addresses);
        }
        if self.tester != TESTER {
            return Err(NotAsked::Addresses);
        }
        let address = match (self.header.len(), header) {
            // ISO 15765-4: everybody, on 11 bits and on 29.
            (3, 0x7DF) | (4, 0xDB33) => return Ok(request),
            (3, 0..=0x7FF) => header,
            (4, 0xDA00..=0xDAFF) => self.priority << 24 | header << 8 | u32::from(TESTER),
            _ => return Err(unknown()),
        };
        if UnitAddress::on_can(address).is_none() {
            let digits = if self.is_11_bit() { 3 } else { 8 };
            return Err(NotAsked::Unit(format!("{address:0digits$X}")));
        }
        let target = match answer {
            Some(answer) => Target::answering_on(address, answer).ok_or_else(|| self.cannot_answer())?,
            None => Target::Unit(address),
        };
        request.to(target).ok_or(NotAsked::Doubtful)
    }

    fn cannot_answer(&self) -> NotAsked {
        let rax = self.answers_on.clone().unwrap_or_default();
        NotAsked::AnswersOn { header: self.header.clone(), rax }
    }

    /// `rax` as a number; an 11-bit identifier has three digits, a 29-bit one has not.
    fn answer_number(&self) -> Result<Option<u32>, NotAsked> {
        let Some(rax) = &self.answers_on else { return Ok(None) };
        let fits = (rax.len() == 3) == self.is_11_bit();
        let id = self.answer_id().filter(|_| fits).and_then(|id| u32::from_str_radix(&id, 16).ok());
        id.map(Some).ok_or_else(|| self.cannot_answer())
    }

    /// Whether its frames carry an address byte before ISO-TP's own.
    #[must_use]
    pub fn has_extended_address(&self) -> bool {
        self.extended_address.is_some()
    }

    /// Whether it is asked on an 11-bit CAN bus.
    #[must_use]
    pub fn is_11_bit(&self) -> bool {
        self.header.len() == 3
    }

    /// Whether it is asked on a bus older than CAN.
    #[must_use]
    pub fn is_iso_9141(&self) -> bool {
        self.bus == Some(Bus::Iso9141)
    }

    /// Whether its `proto`, if it has one, is the car's bus; else the name of its own.
    ///
    /// # Errors
    /// The name of the bus it is for.
    pub fn is_for_bus(&self, protocol: Protocol) -> Result<(), &'static str> {
        self.bus.map_or(Ok(()), |bus| if bus.is(protocol) { Ok(()) } else { Err(bus.name()) })
    }

    /// The arbitration ID of the answer, as an adapter prints it, where the set says it.
    #[must_use]
    pub fn answer_id(&self) -> Option<String> {
        let rax = self.answers_on.as_deref()?;
        let low = u32::from_str_radix(rax, 16).ok()?;
        Some(match rax.len() {
            // pp DA F1 xx: from unit xx to the tester (ISO 15765-4).
            2 => format!("{:08X}", self.priority << 24 | 0x00DA_F100 | low),
            6 => format!("{:08X}", self.priority << 24 | low),
            _ => rax.to_owned(),
        })
    }

    /// The ID on which the unit that was asked answers, where the set does not say:
    /// 8 above on 11-bit CAN, the addresses exchanged on 29-bit CAN.
    #[must_use]
    pub fn usual_answer_id(&self) -> Option<String> {
        let header = u32::from_str_radix(&self.header, 16).ok()?;
        match (self.header.len(), header) {
            (3, 0x7E0..=0x7E7) => Some(format!("{:03X}", header + 8)),
            (4, 0xDA00..=0xDAFF) => {
                Some(format!("{:08X}", self.priority << 24 | 0x00DA_F100 | header & 0xFF))
            }
            _ => None,
        }
    }

    /// Where a maker's own unit is listened to though nothing says that it answers there: OBDb's
    /// form has `rax` for it, and no rule for sets without. As many makers have it: 8 above.
    #[must_use]
    pub fn presumed_answer_id(&self) -> Option<EcuAddress> {
        let told = self.answers_on.is_some() || self.usual_answer_id().is_some();
        let header = u32::from_str_radix(&self.header, 16).ok().filter(|_| !told && self.is_11_bit())?;
        UnitAddress::on_can(header).map(UnitAddress::answers_as)
    }

    /// The data of an answer behind service and identifier; `None` when it answers something else.
    #[must_use]
    pub fn data<'m>(&self, message: &'m [u8]) -> Option<&'m [u8]> {
        let (service, identifier) = self.request.split_first()?;
        message.strip_prefix(&[service | 0x40])?.strip_prefix(identifier)
    }
}
