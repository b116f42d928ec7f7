//! What `baygate buffer status` says of the files and their disk.

use serde_json::{Map, Value, json};

use crate::config::values::Locale;
use crate::store::inspect::Inspection;

/// For `--json`.
pub(super) fn figures(inspection: &Inspection) -> Map<String, Value> {
    let (free, full) = inspection.disk();
    let figures = [
        ("path", json!(inspection.path())),
        ("wal_bytes", json!(inspection.wal_bytes())),
        ("disk_free_bytes", json!(free)),
        ("disk_full", json!(full)),
    ];
    figures.map(|(name, figure)| (name.to_owned(), figure)).into_iter().collect()
}

/// For people.
pub(super) fn line(locale: Locale, inspection: &Inspection) -> String {
    let (free, full) = inspection.disk();
    let advice = if full {
        locale.pick(
            " ── 磁盘已满:预留空间已动用,新数据被拒绝;请清理此磁盘",
            " -- the disk is full: the reserve is in use, new facts are refused; free space on this disk",
        )
    } else {
        ""
    };
    format!(
        "{}  {} {}{advice}",
        locale.pick("磁盘", "disk "),
        locale.pick("剩余", "free"),
        bytesize::ByteSize(free)
    )
}
