//! `obd/pids.toml`: service 01 PIDs, their signals and their test vectors.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};
use toml::Spanned;

use super::files::{Files, Place};
use crate::event::Text;

/// The only service the table serves; 02 (freeze frames) uses the same rows.
const SERVICE: u8 = 0x01;

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
    /// What the raw value means.
    pub kind: SignalKind,
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
    map: Option<BTreeMap<String, String>>,
    bits: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VectorFile {
    data: String,
    values: BTreeMap<String, toml::Value>,
}

/// A number, or a fraction like `"100/255"` that no decimal writes exactly.
struct Factor(f64);

impl<'de> Deserialize<'de> for Factor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FactorVisitor;
        impl Visitor<'_> for FactorVisitor {
            type Value = Factor;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number or a fraction like \"100/255\"")
            }
            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Factor, E> {
                Ok(Factor(value))
            }
            #[allow(clippy::cast_precision_loss)] // factors are small integers
            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Factor, E> {
                Ok(Factor(value as f64))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Factor, E> {
                let parsed = text.split_once('/').and_then(|(above, below)| {
                    Some(above.trim().parse::<f64>().ok()? / below.trim().parse::<f64>().ok()?)
                });
                parsed
                    .filter(|value| value.is_finite())
                    .map(Factor)
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(FactorVisitor)
    }
}

/// The file while it is checked: where it is, and where errors go.
struct Check<'f> {
    files: &'f mut Files,
    place: Place,
}

pub(super) fn load(files: &mut Files, name: &str) -> PidTable {
    let Some((file, place)) = files.read::<File>(name) else {
        return PidTable::default();
    };
    let mut check = Check { files, place };
    let mut rows = BTreeMap::new();
    for row in file.pid {
        let span = row.span();
        let Some(row) = check.row(row.into_inner()) else { continue };
        let pid = row.pid;
        if rows.insert((SERVICE, pid), row).is_some() {
            check.error(span, format!("PID {pid:02X} stands twice"), "keep one row a PID");
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
        let pid = (text.len() == 2).then(|| u8::from_str_radix(&text, 16).ok()).flatten();
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
            self.error(span, format!("PID {text} holds nothing"), "give `bytes` and at least one signal");
        }
        let bits = row.bytes.saturating_mul(8);
        let signals: Vec<SignalRow> =
            row.signals.into_iter().filter_map(|signal| self.signal(signal, bits)).collect();
        let vectors =
            row.vectors.into_iter().filter_map(|vector| self.vector(vector, row.bytes, &signals)).collect();
        Some(PidRow {
            service: SERVICE,
            pid: pid?,
            name: row.name,
            bytes: row.bytes,
            source: row.source,
            signals,
            vectors,
        })
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
        let numeric = signal.factor.is_some() || signal.offset.is_some() || signal.signed;
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
            kind: kind.filter(|_| fits)?,
        })
    }

    fn vector(&mut self, vector: Spanned<VectorFile>, bytes: usize, signals: &[SignalRow]) -> Option<Vector> {
        let span = vector.span();
        let VectorFile { data, values } = vector.into_inner();
        let decoded = hex::decode(&data).ok().filter(|data| data.len() == bytes);
        if decoded.is_none() {
            self.error(
                span.clone(),
                format!("data {data:?} is not {bytes} bytes of hex"),
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
        Some(Vector { data: decoded?, values: expected })
    }
}

/// TOML keys are texts: reads them as numbers.
fn keyed<K: Ord + std::str::FromStr>(names: BTreeMap<String, String>) -> Option<BTreeMap<K, String>> {
    names.into_iter().map(|(key, name)| Some((key.parse().ok()?, name))).collect()
}
