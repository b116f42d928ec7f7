//! `obd/readiness.toml`: which bit of PID 01 and 41 is which monitor.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use super::files::Files;
use crate::event::Text;
use crate::event::vehicle::Readiness;

/// Bits of the four data bytes.
const BITS: usize = 32;

/// Monitors of service 01 PID 01 and 41.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReadinessTable {
    /// Present on every car: byte B.
    pub continuous: Vec<MonitorRow>,
    /// Spark ignition (B3 = 0): bytes C and D.
    pub spark: Vec<MonitorRow>,
    /// Compression ignition (B3 = 1): bytes C and D.
    pub compression: Vec<MonitorRow>,
    /// Answers to PID 01 and what they say.
    pub vectors: Vec<ReadinessVector>,
}

/// The four data bytes of PID 01 and what they say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadinessVector {
    /// A to D.
    pub data: [u8; 4],
    /// The lamp is on.
    pub mil: bool,
    /// Confirmed codes.
    pub dtc_count: u8,
    /// Every monitor of the car's ignition, by name.
    pub readiness: BTreeMap<String, Readiness>,
}

/// One monitor. Bits count from the most significant bit of the four data bytes A B C D.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MonitorRow {
    /// Key in a report's `readiness`, e.g. `catalyst`.
    pub name: String,
    /// For people.
    pub text: Text,
    /// 1: the car has this monitor.
    pub supported: usize,
    /// 1: not complete.
    pub incomplete: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    source: String,
    #[serde(default)]
    continuous: Vec<Spanned<MonitorRow>>,
    #[serde(default)]
    spark: Vec<Spanned<MonitorRow>>,
    #[serde(default)]
    compression: Vec<Spanned<MonitorRow>>,
    vector: Vec<Spanned<VectorFile>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VectorFile {
    data: String,
    mil: bool,
    dtc_count: u8,
    readiness: BTreeMap<String, Readiness>,
}

pub(super) fn load(files: &mut Files, name: &str) -> ReadinessTable {
    let Some((File { source, continuous, spark, compression, vector }, place)) = files.read::<File>(name)
    else {
        return ReadinessTable::default();
    };
    if source.trim().is_empty() || vector.is_empty() {
        let hint = "name the standard and clause the bits come from, and add at least one `[[vector]]`";
        files.error(&place, 0..0, "there is no source or no vector", hint);
    }
    for row in continuous.iter().chain(&spark).chain(&compression) {
        let monitor = row.get_ref();
        if monitor.supported >= BITS || monitor.incomplete >= BITS {
            let what = format!("monitor {:?} uses a bit beyond 31", monitor.name);
            files.error(&place, row.span(), what, "bits count from 0 (A7) to 31 (D0)");
        }
    }
    let mut vectors = Vec::new();
    for row in vector {
        let span = row.span();
        let VectorFile { data, mil, dtc_count, readiness } = row.into_inner();
        match <[u8; 4]>::try_from(hex::decode(&data).unwrap_or_default()) {
            Ok(data) => vectors.push(ReadinessVector { data, mil, dtc_count, readiness }),
            Err(_) => {
                let what = format!("data {data:?} is not four bytes of hex");
                files.error(&place, span, what, "write bytes A to D like \"81076504\"");
            }
        }
    }
    let plain = |rows: Vec<Spanned<MonitorRow>>| rows.into_iter().map(Spanned::into_inner).collect();
    ReadinessTable {
        continuous: plain(continuous),
        spark: plain(spark),
        compression: plain(compression),
        vectors,
    }
}
