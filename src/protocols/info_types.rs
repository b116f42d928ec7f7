//! `obd/info-types.toml`: what the info types of service 09 are, and their form.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use super::files::Files;
use super::numbers::byte_id;
use crate::event::Text;

/// Info types by number.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct InfoTable {
    rows: BTreeMap<u8, InfoRow>,
    /// Items of an answer and their texts.
    pub vectors: Vec<InfoVector>,
}

/// One info type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InfoRow {
    /// For people.
    pub name: Text,
    /// What its items are.
    pub form: InfoForm,
}

/// How the items of an info type read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InfoForm {
    /// How many messages the next type has (older buses): one byte.
    Count,
    /// Characters, this many bytes an item.
    Text(usize),
    /// Numbers shown in hex, this many bytes an item.
    Hex(usize),
    /// Counters of two bytes ([`super::RatioTable`]).
    Counters,
}

/// The items of an answer and their texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InfoVector {
    /// The info type.
    pub info: u8,
    /// The bytes.
    pub data: Vec<u8>,
    /// What they read.
    pub items: Vec<String>,
}

impl InfoTable {
    /// The row of an info type.
    #[must_use]
    pub fn get(&self, info: u8) -> Option<&InfoRow> {
        self.rows.get(&info)
    }

    /// All rows by number.
    pub fn iter(&self) -> impl Iterator<Item = (u8, &InfoRow)> {
        self.rows.iter().map(|(info, row)| (*info, row))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    source: String,
    info: Vec<Spanned<RowFile>>,
    vector: Vec<Spanned<VectorFile>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RowFile {
    info: String,
    name: Text,
    form: FormFile,
    bytes: Option<usize>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum FormFile {
    Count,
    Text,
    Hex,
    Counters,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VectorFile {
    info: String,
    data: String,
    items: Vec<String>,
}

pub(super) fn load(files: &mut Files, name: &str) -> InfoTable {
    let mut table = InfoTable::default();
    let Some((File { source, info, vector }, place)) = files.read::<File>(name) else { return table };
    if source.trim().is_empty() || vector.is_empty() {
        let hint = "name the standard and the public works, and add at least one `[[vector]]`";
        files.error(&place, 0..0, "there is no source or no vector", hint);
    }
    for row in info {
        let span = row.span();
        let row = row.into_inner();
        let form = match (row.form, row.bytes.filter(|bytes| (1..=64).contains(bytes))) {
            (FormFile::Count, None) => Some(InfoForm::Count),
            (FormFile::Counters, None) => Some(InfoForm::Counters),
            (FormFile::Text, Some(bytes)) => Some(InfoForm::Text(bytes)),
            (FormFile::Hex, Some(bytes)) => Some(InfoForm::Hex(bytes)),
            _ => None,
        };
        match (byte_id(&row.info).filter(|info| !info.is_multiple_of(0x20)), form) {
            (Some(id), Some(form)) if !table.rows.contains_key(&id) => {
                table.rows.insert(id, InfoRow { name: row.name, form });
            }
            _ => files.error(
                &place,
                span,
                format!(
                    "info type {:?} has no id of its own, or its form and bytes do not go together",
                    row.info
                ),
                "two hex digits once each; `bytes` (1 to 64) with text and hex, none with count and counters",
            ),
        }
    }
    for row in vector {
        let span = row.span();
        let VectorFile { info, data, items } = row.into_inner();
        let info = byte_id(&info).filter(|info| table.rows.contains_key(info));
        match (info, hex::decode(data.replace(' ', ""))) {
            (Some(info), Ok(data)) => table.vectors.push(InfoVector { info, data, items }),
            _ => files.error(
                &place,
                span,
                "info or data of the vector cannot be read",
                "info is one of the rows, data the items in hex",
            ),
        }
    }
    table
}
