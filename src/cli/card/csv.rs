//! A CSV file as a person saved it, as text. What lives here: that it can be read, is not too long,
//! and is UTF-8. What does not: what its lines say (`card::counter`).

use std::path::Path;

use crate::api::client::ClientError;
use crate::config::values::Locale;

/// Reads it. Another encoding (GB18030, as a spreadsheet in Chinese saves plain "CSV", or UTF-16) is
/// refused with the line and what to do.
///
/// # Errors
/// [`ClientError::Refused`] with the file's name.
pub(super) fn read(path: &Path, most_bytes: u64, locale: Locale) -> anyhow::Result<String> {
    let refused = |code: &str, zh: String, en: String| {
        let detail = format!("{}: {}", path.display(), if locale == Locale::ZhCn { zh } else { en });
        ClientError::Refused { status: 422, code: code.into(), detail }
    };
    let bytes = std::fs::metadata(path)
        .and_then(|about| if about.len() > most_bytes { Ok(None) } else { std::fs::read(path).map(Some) });
    let bytes = bytes.map_err(|error| {
        refused("file-unreadable", format!("无法读取：{error}"), format!("cannot be read: {error}"))
    })?;
    let Some(bytes) = bytes else {
        let kib = most_bytes / 1024;
        let (zh, en) = (
            format!("超过 {kib} KiB，请拆成几个文件"),
            format!("is over {kib} KiB; make several files of it"),
        );
        return Err(refused("list-invalid", zh, en).into());
    };
    String::from_utf8(bytes).map_err(|error| {
        let good = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let line = good.iter().filter(|byte| **byte == b'\n').count() + 1;
        refused(
            "list-invalid",
            format!("第 {line} 行不是 UTF-8（多半是 GBK）；请在 Excel 或 WPS 中“另存为”→“CSV UTF-8（逗号分隔）”"),
            format!("line {line} is not UTF-8 (GBK, most likely); in Excel or WPS use Save As → CSV UTF-8 (Comma delimited)"),
        )
        .into()
    })
}
