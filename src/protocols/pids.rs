//! `obd/pids*.toml`: service 01 PIDs, their signals and their test vectors, one
//! file a range of PIDs. What lives here: the rows. What does not: how they are written
//! and checked ([`file`]).

mod file;

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::event::Text;
pub(super) use file::load;

/// The only service the table serves; 02 (freeze frames) uses the same rows.
const SERVICE: u8 = 0x01;

/// Which file holds which PIDs.
const PID_FILES: [(&str, u8, u8); 3] =
    [("obd/pids.toml", 0x00, 0x60), ("obd/pids-61-8F.toml", 0x61, 0x8F), ("obd/pids-90-FF.toml", 0x90, 0xFF)];

/// PIDs by service and number.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PidTable {
    rows: BTreeMap<(u8, u8), PidRow>,
}

/// One PID.
#[derive(Debug, Clone, PartialEq)]
pub struct PidRow {
    /// 0x01.
    pub service: u8,
    /// Its number.
    pub pid: u8,
    /// For people.
    pub name: Text,
    /// Data bytes after the echoed service and PID. `None`: no public work says how many; the
    /// row then has one signal of [`SignalKind::Raw`].
    pub bytes: Option<usize>,
    /// Some cars send this many bytes more (other banks, later editions of the standard);
    /// 0 where the length is fixed. A car's answer has `bytes` or `bytes + more_bytes`.
    pub more_bytes: usize,
    /// Standard and works it was checked against.
    pub source: String,
    /// What the bytes hold.
    pub signals: Vec<SignalRow>,
    /// Payloads and what they decode to.
    pub vectors: Vec<Vector>,
}

/// One signal of a PID: `raw` is the big-endian bit field, then by [`SignalKind`].
#[derive(Debug, Clone, PartialEq)]
pub struct SignalRow {
    /// Its name in reports, e.g. `engine_speed`.
    pub name: String,
    /// Unit; empty for pure numbers and texts.
    pub unit: String,
    /// First bit, counted from the most significant bit of the first data byte.
    pub bit_offset: usize,
    /// Width, 1 to 32; 0 of [`SignalKind::Raw`], which has all there is.
    pub bit_length: usize,
    /// Two's complement.
    pub signed: bool,
    /// The signal is there only when this bit (counted like `bit_offset`) is 1.
    pub when_bit: Option<usize>,
    /// And only when this bit is 0: the sensor exists, and has nothing to say now.
    pub unless_bit: Option<usize>,
    /// This raw value (unsigned) means "no value".
    pub no_value: Option<u64>,
    /// The car may give another full scale (PIDs 4F and 50).
    pub maximum: Option<Maximum>,
    /// What the raw value means.
    pub kind: SignalKind,
}

/// A full scale that another signal of the car may replace: the value is then
/// `value * given / usual` (SAE J1979 PIDs 4F and 50).
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Maximum {
    /// The signal that gives it, e.g. `max_lambda`.
    pub name: String,
    /// The full scale `factor` and `offset` are made for.
    pub usual: f64,
}

/// What a raw value means.
#[derive(Debug, Clone, PartialEq)]
pub enum SignalKind {
    /// `raw * factor + offset`.
    Number {
        /// Per bit.
        factor: f64,
        /// Added last.
        offset: f64,
    },
    /// A text for each raw value; a raw value without one is no value.
    Map(BTreeMap<u64, String>),
    /// A text for each bit that is set (bit 0 is the most significant of the
    /// signal), joined by spaces, the least significant bit's first.
    Bits(BTreeMap<usize, String>),
    /// A mask of 32 PIDs from this one on: the numbers of those that are set.
    Pids(u8),
    /// A trouble code of two bytes; zero is none (SAE J2012).
    Code,
    /// The bytes as they came, in hex: no public work says what they hold.
    Raw,
}

/// A payload and all signals it decodes to; a signal not named here is absent.
#[derive(Debug, Clone, PartialEq)]
pub struct Vector {
    /// Data bytes after the echoed service and PID.
    pub data: Vec<u8>,
    /// Full scales the car gave in PIDs 4F and 50, by signal name.
    pub maxima: BTreeMap<String, f64>,
    /// Values by signal name.
    pub values: BTreeMap<String, VectorValue>,
}

/// What a vector expects.
#[derive(Debug, Clone, PartialEq)]
pub enum VectorValue {
    /// Within a millionth.
    Number(f64),
    /// Exactly.
    Text(String),
}

impl PidRow {
    /// Its data bytes where the car sends the longer form. `None`: not known.
    #[must_use]
    pub fn longest(&self) -> Option<usize> {
        self.bytes.map(|bytes| bytes.saturating_add(self.more_bytes))
    }

    /// Whether a report says elsewhere what it holds: 00, 20, 40 … (which others there are), and 02
    /// (the code of a freeze frame).
    #[must_use]
    pub fn is_told_elsewhere(&self) -> bool {
        self.pid.is_multiple_of(0x20) || self.pid == 0x02
    }

    /// The file its row stands in.
    #[must_use]
    pub fn file(&self) -> &'static str {
        PID_FILES.iter().find(|(_, _, last)| self.pid <= *last).map_or("obd", |(name, ..)| name)
    }
}

impl PidTable {
    /// The row of a PID. Service 02 finds the rows of 01.
    #[must_use]
    pub fn get(&self, service: u8, pid: u8) -> Option<&PidRow> {
        let service = if service == 0x02 { SERVICE } else { service };
        self.rows.get(&(service, pid))
    }

    /// The same, where a report shows its values under its name.
    #[must_use]
    pub fn shown(&self, service: u8, pid: u8) -> Option<&PidRow> {
        self.get(service, pid).filter(|row| !row.is_told_elsewhere())
    }

    pub(super) fn forget_vectors(&mut self) {
        for row in self.rows.values_mut() {
            (row.vectors, row.source) = (Vec::new(), String::new());
        }
    }

    /// All rows by number.
    pub fn iter(&self) -> impl Iterator<Item = &PidRow> {
        self.rows.values()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}
