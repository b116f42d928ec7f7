//! `obd/monitor-tests.toml` and `obd/units-and-scaling.toml`: what service 06
//! (and 05 on older buses) tests, in which units, with the test vectors of both.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use super::files::{Files, Place};
use super::numbers::{Factor, byte_id};
use crate::event::Text;

/// Monitors, their tests and the scalings of results.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct MonitorTestTable {
    monitors: BTreeMap<u8, Text>,
    tests: BTreeMap<u8, TestRow>,
    scalings: BTreeMap<u8, ScalingRow>,
    /// Whole answers and the results in them.
    pub vectors: Vec<MonitorVector>,
}

/// A standard test (SAE J1979 appendix C).
#[derive(Debug, Clone, PartialEq)]
pub struct TestRow {
    /// For people.
    pub name: Text,
    /// How service 05 of older buses scales it.
    pub oxygen: Option<OxygenScaling>,
}

/// One byte a value, as service 05 gives it.
#[derive(Debug, Clone, PartialEq)]
pub struct OxygenScaling {
    /// Per bit.
    pub factor: f64,
    /// `V` or `s`.
    pub unit: String,
}

/// A unit and scaling (SAE J1979 appendix E): `raw * factor + offset`, 16 bits,
/// two's complement for ids from 80 on.
#[derive(Debug, Clone, PartialEq)]
pub struct ScalingRow {
    /// Its id.
    pub id: u8,
    /// Per bit.
    pub factor: f64,
    /// Added last.
    pub offset: f64,
    /// Empty for pure numbers.
    pub unit: String,
    /// Standard and works it was checked against.
    pub source: String,
    /// Raw values and what they mean.
    pub vectors: Vec<(u16, f64)>,
}

/// A whole answer of service 06 on CAN, or of service 05, and its results.
#[derive(Debug, Clone, PartialEq)]
pub struct MonitorVector {
    /// 05 or 06.
    pub service: u8,
    /// The bytes behind the 45 or 46.
    pub data: Vec<u8>,
    /// In order.
    pub tests: Vec<MonitorExpectation>,
}

/// One result a vector expects.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // as in `event::vehicle::MonitorTest`
pub struct MonitorExpectation {
    pub mid: String,
    pub tid: String,
    pub name: String,
    pub value: f64,
    pub min: f64,
    pub max: f64,
    pub unit: String,
    pub passed: bool,
}

impl MonitorTestTable {
    pub(super) fn forget_vectors(&mut self) {
        self.vectors = Vec::new();
        for row in self.scalings.values_mut() {
            (row.vectors, row.source) = (Vec::new(), String::new());
        }
    }

    /// What a monitor id watches; `None`: not a standard one.
    #[must_use]
    pub fn monitor(&self, mid: u8) -> Option<&Text> {
        self.monitors.get(&mid)
    }

    /// A standard test; `None`: the maker's own.
    #[must_use]
    pub fn test(&self, tid: u8) -> Option<&TestRow> {
        self.tests.get(&tid)
    }

    /// A unit and scaling; `None`: show the raw value.
    #[must_use]
    pub fn scaling(&self, id: u8) -> Option<&ScalingRow> {
        self.scalings.get(&id)
    }

    /// All scalings by id.
    pub fn scalings(&self) -> impl Iterator<Item = &ScalingRow> {
        self.scalings.values()
    }

    /// All monitors by id.
    pub fn monitors(&self) -> impl Iterator<Item = (u8, &Text)> {
        self.monitors.iter().map(|(mid, name)| (*mid, name))
    }

    /// All standard tests by id.
    pub fn tests(&self) -> impl Iterator<Item = (u8, &TestRow)> {
        self.tests.iter().map(|(tid, row)| (*tid, row))
    }

    /// Every name, of monitors and of tests.
    pub fn names(&self) -> impl Iterator<Item = &Text> {
        self.monitors.values().chain(self.tests.values().map(|row| &row.name))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    source: String,
    monitor: Vec<Spanned<MonitorFile>>,
    test: Vec<Spanned<TestFile>>,
    vector: Vec<Spanned<VectorFile>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MonitorFile {
    mid: String,
    name: Text,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TestFile {
    tid: String,
    name: Text,
    oxygen: Option<OxygenFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OxygenFile {
    factor: Factor,
    unit: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VectorFile {
    /// 06, unless it says 05.
    service: Option<String>,
    data: String,
    tests: Vec<MonitorExpectation>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScalingsFile {
    scaling: Vec<Spanned<ScalingFile>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScalingFile {
    id: String,
    factor: Factor,
    #[serde(default)]
    offset: f64,
    #[serde(default)]
    unit: String,
    source: String,
    vectors: Vec<RawFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    raw: String,
    value: f64,
}

pub(super) fn load(files: &mut Files, tests: &str, scalings: &str) -> MonitorTestTable {
    let mut table = MonitorTestTable::default();
    if let Some((file, place)) = files.read::<File>(tests) {
        if file.source.trim().is_empty() {
            files.error(&place, 0..0, "source is empty", "name the standard and the public works");
        }
        for row in file.monitor {
            let span = row.span();
            let MonitorFile { mid, name } = row.into_inner();
            let id = byte_id(&mid).filter(|id| !id.is_multiple_of(0x20));
            keep(files, &place, span, &mut table.monitors, id, name, &format!("monitor id {mid:?}"));
        }
        for row in file.test {
            let span = row.span();
            let TestFile { tid, name, oxygen } = row.into_inner();
            let oxygen = oxygen.map(|row| OxygenScaling { factor: row.factor.0, unit: row.unit });
            let row = TestRow { name, oxygen };
            keep(files, &place, span, &mut table.tests, byte_id(&tid), row, &format!("test id {tid:?}"));
        }
        for row in file.vector {
            let span = row.span();
            let VectorFile { service, data, tests } = row.into_inner();
            let service = byte_id(service.as_deref().unwrap_or("06")).filter(|id| matches!(id, 5 | 6));
            match (service, hex::decode(&data)) {
                (Some(service), Ok(data)) => table.vectors.push(MonitorVector { service, data, tests }),
                _ => files.error(
                    &place,
                    span,
                    format!("data {data:?} is not hex, or the service neither 05 nor 06"),
                    "write the whole answer behind the 46, or with service = \"05\" behind the 45",
                ),
            }
        }
        if table.vectors.is_empty() {
            files.error(&place, 0..0, "there are no vectors", "add at least one `[[vector]]`");
        }
    }
    if let Some((file, place)) = files.read::<ScalingsFile>(scalings) {
        for row in file.scaling {
            scaling(files, &place, row, &mut table.scalings);
        }
    }
    table
}

fn scaling(
    files: &mut Files,
    place: &Place,
    row: Spanned<ScalingFile>,
    scalings: &mut BTreeMap<u8, ScalingRow>,
) {
    let span = row.span();
    let row = row.into_inner();
    let id = byte_id(&row.id);
    if row.source.trim().is_empty() || row.vectors.is_empty() {
        let what = format!("scaling {} has no source or no vectors", row.id);
        files.error(place, span.clone(), what, "name the works, and add `{ raw = \"…\", value = … }`");
    }
    let mut vectors = Vec::new();
    for vector in row.vectors {
        match <[u8; 2]>::try_from(hex::decode(&vector.raw).unwrap_or_default()) {
            Ok(raw) => vectors.push((u16::from_be_bytes(raw), vector.value)),
            Err(_) => files.error(
                place,
                span.clone(),
                format!("raw {:?} is not two bytes of hex", vector.raw),
                "write it like \"0BB0\"",
            ),
        }
    }
    let kept = ScalingRow {
        id: id.unwrap_or_default(),
        factor: row.factor.0,
        offset: row.offset,
        unit: row.unit,
        source: row.source,
        vectors,
    };
    keep(files, place, span, scalings, id, kept, &format!("scaling id {:?}", row.id));
}

/// Puts a row into its table, or says why not.
fn keep<T>(
    files: &mut Files,
    place: &Place,
    span: std::ops::Range<usize>,
    rows: &mut BTreeMap<u8, T>,
    id: Option<u8>,
    row: T,
    what: &str,
) {
    match id {
        None => files.error(
            place,
            span,
            format!("{what} is not an id"),
            "two hex digits, e.g. \"21\"; 00, 20, 40 … of monitors are support masks",
        ),
        Some(id) => {
            if rows.insert(id, row).is_some() {
                files.error(place, span, format!("{what} stands twice"), "keep one row an id");
            }
        }
    }
}
