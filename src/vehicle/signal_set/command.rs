//! One command of a set: what is asked, who answers, under which name it goes, and
//! whether it can be asked of a car through the read-only gate.

use std::time::Duration;

use serde::Deserialize;

use super::format::Format;
use super::years::Years;
use crate::vehicle::gate::{ExtendedAddress, Refused, Request, Target};

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
}

/// A request and the signals in its answer.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "Written")]
pub struct Command {
    /// Request header: 3 digits on 11-bit CAN, 4 digits elsewhere.
    header: String,
    /// `rax` as written.
    answers_on: Option<String>,
    /// Service and identifier, hex.
    request: Vec<u8>,
    extended_address: Option<u8>,
    priority: u32,
    tester: u8,
    needs_others: bool,
    every: Duration,
    years: Years,
    options: Vec<(String, String)>,
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
        Ok(Self {
            options: options(&written),
            header: written.hdr.to_ascii_uppercase(),
            answers_on: written.rax.map(|rax| rax.to_ascii_uppercase()),
            request,
            extended_address,
            priority: priority.into(),
            tester,
            needs_others: written.din.is_some() || written.dout.is_some(),
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

/// A command's name, taken apart: `HDR[.RAX].CMD[|options]`.
#[derive(Debug)]
pub struct Name<'a> {
    header: &'a str,
    answers_on: Option<&'a str>,
    request: Vec<u8>,
    options: Vec<(&'a str, &'a str)>,
}

impl<'a> Name<'a> {
    /// `None` when the text is no name.
    pub fn parse(text: &'a str) -> Option<Self> {
        let (path, options) = text.split_once('|').unwrap_or((text, ""));
        let parts: Vec<&str> = path.split('.').collect();
        let (header, answers_on, request) = match parts.as_slice() {
            [header, request] => (*header, None, *request),
            [header, answers_on, request] => (*header, Some(*answers_on), *request),
            _ => return None,
        };
        let options = options.split(',').filter_map(|option| option.split_once('=')).collect();
        Some(Self { header, answers_on, request: hex::decode(request).ok()?, options })
    }
}

impl Command {
    /// Its signals.
    #[must_use]
    pub fn signals(&self) -> &[Signal] {
        &self.signals
    }

    /// Whether the name without its options is this command's.
    pub fn is_named(&self, name: &Name<'_>) -> bool {
        let same = |ours: Option<&str>, theirs: Option<&str>| match (ours, theirs) {
            (Some(ours), Some(theirs)) => ours.eq_ignore_ascii_case(theirs),
            (None, None) => true,
            _ => false,
        };
        self.header.eq_ignore_ascii_case(name.header)
            && same(self.answers_on.as_deref(), name.answers_on)
            && self.request == name.request
    }

    /// Options that both have, less those that only one has: the higher, the better.
    pub fn likeness(&self, name: &Name<'_>) -> i32 {
        let both = |key: &str, value: &str| {
            name.options.iter().any(|(k, v)| *k == key && v.eq_ignore_ascii_case(value))
        };
        let shared = self.options.iter().filter(|(key, value)| both(key, value)).count();
        let all = self.options.len() + name.options.len();
        i32::try_from(3 * shared).unwrap_or(i32::MAX) - i32::try_from(all).unwrap_or(i32::MAX)
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
        let request = Request::parse(&hex::encode(&self.request))?;
        if self.needs_others {
            return Err(NotAsked::Around);
        }
        let unknown = || NotAsked::Header(self.header.clone());
        let header = u32::from_str_radix(&self.header, 16).map_err(|_| unknown())?;
        if let Some(unit) = self.extended_address {
            let address = ExtendedAddress::new(header, unit, self.tester).filter(|_| self.is_11_bit());
            let target = address.map(Target::Extended).ok_or(NotAsked::Addresses)?;
            return request.to(target).ok_or(NotAsked::Addresses);
        }
        if self.tester != TESTER {
            return Err(NotAsked::Addresses);
        }
        Ok(match (self.header.len(), header) {
            // ISO 15765-4: everybody, on 11 bits and on 29.
            (3, 0x7DF) | (4, 0xDB33) => request,
            (3, 0..=0x7FF) => request.to(Target::Unit(header)).ok_or(NotAsked::Doubtful)?,
            (4, 0xDA00..=0xDAFF) => {
                let address = self.priority << 24 | header << 8 | u32::from(TESTER);
                request.to(Target::Unit(address)).ok_or(NotAsked::Doubtful)?
            }
            _ => return Err(unknown()),
        })
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
        self.options.iter().any(|(key, value)| key == "p" && value.contains("9141"))
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

    /// The data of an answer behind service and identifier; `None` when it answers something else.
    #[must_use]
    pub fn data<'m>(&self, message: &'m [u8]) -> Option<&'m [u8]> {
        let (service, identifier) = self.request.split_first()?;
        message.strip_prefix(&[service | 0x40])?.strip_prefix(identifier)
    }
}
