//! How PIDs are written in `obd/pids*.toml`, and what is wrong with a file.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;

use super::{Maximum, PID_FILES, PidRow, PidTable, SERVICE, SignalKind, SignalRow, Vector, VectorValue};
use crate::event::Text;
use crate::protocols::files::{Files, Place};
use crate::protocols::numbers::{Factor, byte_id};

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
    bytes: Option<usize>,
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
    bit_offset: Option<usize>,
    bit_length: Option<usize>,
    #[serde(default)]
    signed: bool,
    factor: Option<Factor>,
    offset: Option<f64>,
    #[serde(default)]
    unit: String,
    when_bit: Option<usize>,
    unless_bit: Option<usize>,
    no_value: Option<u64>,
    maximum: Option<Maximum>,
    map: Option<BTreeMap<String, String>>,
    bits: Option<BTreeMap<String, String>>,
    pids_from: Option<String>,
    #[serde(default)]
    code: bool,
    #[serde(default)]
    raw: bool,
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

pub(in crate::protocols) fn load(files: &mut Files) -> PidTable {
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
        let raw = matches!(row.signals.as_slice(), [only] if only.get_ref().raw);
        if row.signals.is_empty() || row.bytes == Some(0) || row.bytes.is_none() && !raw {
            self.error(
                span.clone(),
                format!("PID {text} holds nothing"),
                "give `bytes` and at least one signal; without a public layout one signal with `raw = true` and no `bytes`",
            );
        }
        let lengths = row.bytes.map(|bytes| [bytes, bytes.saturating_add(row.more_bytes)]);
        let bits = lengths.map_or(0, |[_, longest]| longest.saturating_mul(8));
        let signals: Vec<SignalRow> =
            row.signals.into_iter().filter_map(|signal| self.signal(signal, bits)).collect();
        self.names(&span, &signals);
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
        let placed = signal.bit_offset.zip(signal.bit_length);
        let (bit_offset, bit_length) = placed.unwrap_or_default();
        let within = (1..=32).contains(&bit_length)
            && bit_offset.saturating_add(bit_length) <= bits
            && [signal.when_bit, signal.unless_bit].into_iter().flatten().all(|bit| bit < bits);
        // What is not understood has no place; whatever its length, all of it is shown.
        let alone = bits == 0 && signal.bit_offset.is_none() && signal.bit_length.is_none();
        let always = signal.when_bit.is_none() && signal.unless_bit.is_none();
        let fits = if signal.raw { alone && always } else { within };
        if !fits {
            self.error(
                span.clone(),
                format!("signal {name:?} lies outside the {bits} bits of its PID"),
                "check bytes, bit_offset, bit_length (1 to 32), when_bit and unless_bit",
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
        let kind = match (signal.map, signal.bits, signal.pids_from, signal.code, signal.raw) {
            (None, None, None, false, false) => Some(SignalKind::Number {
                factor: signal.factor.map_or(1.0, |factor| factor.0),
                offset: signal.offset.unwrap_or(0.0),
            }),
            _ if numeric => None,
            (Some(map), None, None, false, false) => keyed(map).map(SignalKind::Map),
            (None, Some(names), None, false, false) => {
                keyed::<usize>(names).filter(|n| n.keys().all(|bit| *bit < bit_length)).map(SignalKind::Bits)
            }
            (None, None, Some(first), false, false) => {
                byte_id(&first).filter(|_| bit_length == 32).map(SignalKind::Pids)
            }
            (None, None, None, true, false) => Some(SignalKind::Code).filter(|_| bit_length == 16),
            (None, None, None, false, true) => Some(SignalKind::Raw),
            _ => None,
        };
        if kind.is_none() {
            self.error(span, format!("signal {name:?} does not say one thing"), "either factor/offset, or `map = { 0 = \"off\" }`, or `bits = { 0 = \"…\" }` with keys below bit_length, or `pids_from = \"01\"` of 32 bits, or `code = true` of 16, or `raw = true`");
        }
        Some(SignalRow {
            name,
            unit: signal.unit,
            bit_offset,
            bit_length,
            signed: signal.signed,
            when_bit: signal.when_bit,
            unless_bit: signal.unless_bit,
            no_value: signal.no_value,
            maximum: signal.maximum,
            kind: kind.filter(|_| fits)?,
        })
    }

    fn vector(
        &mut self,
        vector: Spanned<VectorFile>,
        lengths: Option<[usize; 2]>,
        signals: &[SignalRow],
    ) -> Option<Vector> {
        let span = vector.span();
        let VectorFile { data, maxima, values } = vector.into_inner();
        let has_length =
            |data: &Vec<u8>| lengths.map_or(!data.is_empty(), |lengths| lengths.contains(&data.len()));
        let decoded = hex::decode(data.replace(' ', "")).ok().filter(has_length);
        if decoded.is_none() {
            let length = match lengths {
                None => "1 or more".into(),
                Some([bytes, longest]) if bytes == longest => bytes.to_string(),
                Some([bytes, longest]) => format!("{bytes} or {longest}"),
            };
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
