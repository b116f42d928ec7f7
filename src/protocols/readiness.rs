//! `obd/readiness.toml`: which bit of PID 01 and 41 is which monitor.

use serde::Deserialize;
use toml::Spanned;

use super::files::Files;
use crate::event::Text;

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
}

pub(super) fn load(files: &mut Files, name: &str) -> ReadinessTable {
    let Some((File { source, continuous, spark, compression }, place)) = files.read::<File>(name) else {
        return ReadinessTable::default();
    };
    if source.trim().is_empty() {
        files.error(&place, 0..0, "source is empty", "name the standard and clause the bits come from");
    }
    for row in continuous.iter().chain(&spark).chain(&compression) {
        let monitor = row.get_ref();
        if monitor.supported >= BITS || monitor.incomplete >= BITS {
            let what = format!("monitor {:?} uses a bit beyond 31", monitor.name);
            files.error(&place, row.span(), what, "bits count from 0 (A7) to 31 (D0)");
        }
    }
    let plain = |rows: Vec<Spanned<MonitorRow>>| rows.into_iter().map(Spanned::into_inner).collect();
    ReadinessTable { continuous: plain(continuous), spark: plain(spark), compression: plain(compression) }
}
