//! `obd/in-use-ratios.toml`: the order of the counters of info types 08 and 0B.

use serde::Deserialize;
use toml::Spanned;

use super::files::Files;
use super::numbers::byte_id;
use crate::event::Text;

/// Monitors in the order in which service 09 counts them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RatioTable {
    /// Info type 08: spark ignition.
    pub spark: Vec<RatioRow>,
    /// Info type 0B: compression ignition.
    pub compression: Vec<RatioRow>,
    /// Counters and what they mean.
    pub vectors: Vec<RatioVector>,
}

/// One monitor with its pair of counters.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RatioRow {
    /// As in `readiness.toml`, where the monitor is the same.
    pub name: String,
    /// The bank, where each has its own counters.
    pub bank: Option<u8>,
    /// For people.
    pub text: Text,
}

/// The items of an answer and the objects they give.
#[derive(Debug, Clone, PartialEq)]
pub struct RatioVector {
    /// 08 or 0B.
    pub info: u8,
    /// Counters of two bytes each.
    pub data: Vec<u8>,
    /// As in a report's `iupr`.
    pub ratios: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    source: String,
    spark: Vec<RatioRow>,
    compression: Vec<RatioRow>,
    vector: Vec<Spanned<VectorFile>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VectorFile {
    info: String,
    data: String,
    ratios: Vec<serde_json::Value>,
}

pub(super) fn load(files: &mut Files, name: &str) -> RatioTable {
    let Some((File { source, spark, compression, vector }, place)) = files.read::<File>(name) else {
        return RatioTable::default();
    };
    if source.trim().is_empty() || vector.is_empty() {
        let hint = "name the standard and the public works, and add at least one `[[vector]]`";
        files.error(&place, 0..0, "there is no source or no vector", hint);
    }
    let mut vectors = Vec::new();
    for row in vector {
        let span = row.span();
        let VectorFile { info, data, ratios } = row.into_inner();
        let info = byte_id(&info).filter(|info| matches!(info, 0x08 | 0x0B));
        match (info, hex::decode(data.replace(' ', ""))) {
            (Some(info), Ok(data)) => vectors.push(RatioVector { info, data, ratios }),
            _ => files.error(
                &place,
                span,
                "info or data of the vector cannot be read",
                "info is \"08\" or \"0B\", data the counters in hex",
            ),
        }
    }
    RatioTable { spark, compression, vectors }
}
