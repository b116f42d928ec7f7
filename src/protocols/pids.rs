//! `obd/pids*.toml`: service 01 PIDs, their signals and their test vectors, one
//! file a range of PIDs.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;

use super::files::{Files, Place};
use super::numbers::{Factor, byte_id};
use crate::event::Text;

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
    /// Data bytes after the echoed service and PID.
    pub bytes: usize,
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
    /// Width, 1 to 32.
    pub bit_length: usize,
    /// Two's complement.
    pub signed: bool,
    /// The signal is there only when this bit (counted like `bit_offset`) is 1.
    pub when_bit: Option<usize>,
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    pid: Vec<Spanned<RowFile>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RowFile {
    pid: Spanned<String>,
    name: Text,
    bytes: usize,
    #[serde(default)]
    more_bytes: usize,
    source: String,
    signals: Vec<Spanned<SignalFile>>,
    vectors: Vec<Spanned<VectorFile>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SignalFile {
    name: String,
    bit_offset: usize,
    bit_length: usize,
    #[serde(default)]
    signed: bool,
    factor: Option<Factor>,
    offset: Option<f64>,
    #[serde(default)]
    unit: String,
    when_bit: Option<usize>,
    no_value: Option<u64>,
    maximum: Option<Maximum>,
    map: Option<BTreeMap<String, String>>,
    bits: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VectorFile {
    data: String,
    #[serde(default)]
    maxima: BTreeMap<String, f64>,
    values: BTreeMap<String, toml::Value>,
}

/// The file while it is checked: where it is, and where errors go.
struct Check<'f> {
    files: &'f mut Files,
    place: Place,
}

pub(super) fn load(files: &mut Files) -> PidTable {
    let mut rows = BTreeMap::new();
    for (name, first, last) in PID_FILES {
        let Some((file, place)) = files.read::<File>(name) else { continue };
        let mut check = Check { files, place };
        for row in file.pid {
            let span = row.span();
            let Some(row) = check.row(row.into_inner()) else { continue };
            let pid = row.pid;
            if !(first..=last).contains(&pid) {
                let what = format!("PID {pid:02X} does not belong into {name}");
                check.error(span.clone(), what, "pids.toml ends at 60, pids-61-8F.toml at 8F");
            }
            if rows.insert((SERVICE, pid), row).is_some() {
                check.error(span, format!("PID {pid:02X} stands twice"), "keep one row a PID");
            }
        }
    }
    PidTable { rows }
}

impl Check<'_> {
    fn error(&mut self, span: Range<usize>, what: impl Into<String>, hint: &str) {
        self.files.error(&self.place, span, what, hint);
    }

    fn row(&mut self, row: RowFile) -> Option<PidRow> {
        let span = row.pid.span();
        let text = row.pid.into_inner();
        let pid = byte_id(&text);
        if pid.is_none() {
            self.error(span.clone(), format!("pid {text:?} is not a PID"), "two hex digits, e.g. \"0C\"");
        }
        if row.source.trim().is_empty() {
            self.error(
                span.clone(),
                format!("PID {text} has no source"),
                "name the standard and the public works it was checked against",
            );
        }
        if row.vectors.is_empty() {
            self.error(
                span.clone(),
                format!("PID {text} has no vectors"),
                "add at least one `{ data = \"…\", values = { … } }`",
            );
        }
        if row.signals.is_empty() || row.bytes == 0 {
            self.error(
                span.clone(),
                format!("PID {text} holds nothing"),
                "give `bytes` and at least one signal",
            );
        }
        let longest = row.bytes.saturating_add(row.more_bytes);
        let bits = longest.saturating_mul(8);
        let signals: Vec<SignalRow> =
            row.signals.into_iter().filter_map(|signal| self.signal(signal, bits)).collect();
        self.names(&span, &signals);
        let lengths = [row.bytes, longest];
        let vectors =
            row.vectors.into_iter().filter_map(|vector| self.vector(vector, lengths, &signals)).collect();
        Some(PidRow {
            service: SERVICE,
            pid: pid?,
            name: row.name,
            bytes: row.bytes,
            more_bytes: row.more_bytes,
            source: row.source,
            signals,
            vectors,
        })
    }

    /// One name may stand for several scalings, each with its own bit: the first that is there counts.
    fn names(&mut self, span: &Range<usize>, signals: &[SignalRow]) {
        for (place, signal) in signals.iter().enumerate() {
            let earlier = signals.get(..place).unwrap_or_default();
            let again = earlier.iter().any(|other| {
                other.name == signal.name && (other.when_bit.is_none() || other.when_bit == signal.when_bit)
            });
            if again {
                self.error(
                    span.clone(),
                    format!("signal {:?} stands twice", signal.name),
                    "give each scaling of one name its own `when_bit`",
                );
            }
        }
    }

    fn signal(&mut self, signal: Spanned<SignalFile>, bits: usize) -> Option<SignalRow> {
        let span = signal.span();
        let signal = signal.into_inner();
        let name = signal.name;
        let fits = (1..=32).contains(&signal.bit_length)
            && signal.bit_offset.saturating_add(signal.bit_length) <= bits
            && signal.when_bit.is_none_or(|bit| bit < bits);
        if !fits {
            self.error(
                span.clone(),
                format!("signal {name:?} lies outside the {bits} bits of its PID"),
                "check bytes, bit_offset, bit_length (1 to 32) and when_bit",
            );
        }
        if signal.maximum.as_ref().is_some_and(|maximum| maximum.usual <= 0.0) {
            self.error(
                span.clone(),
                format!("the usual maximum of {name:?} is not above zero"),
                "give the full scale that factor and offset are made for",
            );
        }
        let numeric =
            signal.factor.is_some() || signal.offset.is_some() || signal.signed || signal.maximum.is_some();
        let kind = match (signal.map, signal.bits) {
            (None, None) => Some(SignalKind::Number {
                factor: signal.factor.map_or(1.0, |factor| factor.0),
                offset: signal.offset.unwrap_or(0.0),
            }),
            (Some(map), None) if !numeric => keyed(map).map(SignalKind::Map),
            (None, Some(names)) if !numeric => keyed::<usize>(names)
                .filter(|n| n.keys().all(|bit| *bit < signal.bit_length))
                .map(SignalKind::Bits),
            _ => None,
        };
        if kind.is_none() {
            self.error(span, format!("signal {name:?} does not say one thing"), "either factor/offset, or `map = { 0 = \"off\" }`, or `bits = { 0 = \"…\" }` with keys below bit_length");
        }
        Some(SignalRow {
            name,
            unit: signal.unit,
            bit_offset: signal.bit_offset,
            bit_length: signal.bit_length,
            signed: signal.signed,
            when_bit: signal.when_bit,
            no_value: signal.no_value,
            maximum: signal.maximum,
            kind: kind.filter(|_| fits)?,
        })
    }

    fn vector(
        &mut self,
        vector: Spanned<VectorFile>,
        lengths: [usize; 2],
        signals: &[SignalRow],
    ) -> Option<Vector> {
        let span = vector.span();
        let VectorFile { data, maxima, values } = vector.into_inner();
        let decoded = hex::decode(data.replace(' ', "")).ok().filter(|data| lengths.contains(&data.len()));
        if decoded.is_none() {
            let [bytes, longest] = lengths;
            let length = if bytes == longest { bytes.to_string() } else { format!("{bytes} or {longest}") };
            self.error(
                span.clone(),
                format!("data {data:?} is not {length} bytes of hex"),
                "write the data bytes after the echoed service and PID",
            );
        }
        let mut expected = BTreeMap::new();
        for (name, value) in values {
            #[allow(clippy::cast_precision_loss)] // vectors stay far below 2^53
            let value = match value {
                toml::Value::Integer(value) => VectorValue::Number(value as f64),
                toml::Value::Float(value) => VectorValue::Number(value),
                toml::Value::String(value) => VectorValue::Text(value),
                _ => {
                    self.error(
                        span.clone(),
                        format!("value of {name:?} is neither number nor text"),
                        "write what the payload decodes to",
                    );
                    continue;
                }
            };
            if !signals.iter().any(|signal| signal.name == name) {
                self.error(
                    span.clone(),
                    format!("{name:?} is not a signal of this PID"),
                    "use the names of `signals`",
                );
            }
            expected.insert(name, value);
        }
        Some(Vector { data: decoded?, maxima, values: expected })
    }
}

/// TOML keys are texts: reads them as numbers.
fn keyed<K: Ord + std::str::FromStr>(names: BTreeMap<String, String>) -> Option<BTreeMap<K, String>> {
    names.into_iter().map(|(key, name)| Some((key.parse().ok()?, name))).collect()
}
