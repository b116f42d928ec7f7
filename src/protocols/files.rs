//! Reading of the folder: one file after the other, errors gathered, contents hashed.

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::ProtocolError;
use crate::config::read_toml;

/// Protocol files are small; one far beyond that is a mistake, not data.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// The folder while it is read.
pub(super) struct Files {
    dir: PathBuf,
    digest: Sha256,
    errors: Vec<ProtocolError>,
}

/// One file's text, for errors that point into it.
pub(super) struct Place {
    path: PathBuf,
    text: String,
}

impl Files {
    pub(super) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), digest: Sha256::new(), errors: Vec::new() }
    }

    /// Reads `name` as TOML. `None`: the error is noted.
    pub(super) fn read<T: DeserializeOwned>(&mut self, name: &str) -> Option<(T, Place)> {
        let path = self.dir.join(name);
        let text = match std::fs::metadata(&path) {
            Ok(meta) if meta.len() > MAX_FILE_BYTES => Err(format!(
                "has {} bytes, more than the {MAX_FILE_BYTES} a protocol file may have",
                meta.len()
            )),
            _ => std::fs::read_to_string(&path).map_err(|error| format!("cannot be read: {error}")),
        };
        let text = match text {
            Ok(text) => text,
            Err(what) => {
                let hint = "install firmware-protocols/ again, or set `gateway.firmware_protocols` to it";
                self.errors.push(ProtocolError::whole(path, what, Some(hint.into())));
                return None;
            }
        };
        self.digest.update(name);
        self.digest.update([0]);
        self.digest.update(&text);
        self.digest.update([0]);
        match read_toml(&path, &text) {
            Ok(value) => Some((value, Place { path, text })),
            Err(error) => {
                self.errors.push(error);
                None
            }
        }
    }

    /// Names (relative to the bundle) of the `*.toml` in a subfolder, sorted.
    pub(super) fn list(&mut self, folder: &str) -> Vec<String> {
        let path = self.dir.join(folder);
        match std::fs::read_dir(&path) {
            Ok(entries) => {
                let mut names: Vec<String> = entries
                    .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
                    .filter(|name| name.ends_with(".toml"))
                    .map(|name| format!("{folder}/{name}"))
                    .collect();
                names.sort();
                names
            }
            Err(error) => {
                let hint = "install firmware-protocols/ again, or set `gateway.firmware_protocols` to it";
                let what = format!("cannot be read: {error}");
                self.errors.push(ProtocolError::whole(path, what, Some(hint.into())));
                Vec::new()
            }
        }
    }

    /// Notes an error at a place of a file.
    pub(super) fn error(&mut self, place: &Place, span: Range<usize>, what: impl Into<String>, hint: &str) {
        self.errors.push(ProtocolError::at(
            &place.path,
            &place.text,
            span.start,
            what,
            Some(hint.to_owned()),
        ));
    }

    /// The version, or all errors.
    pub(super) fn finish(self) -> Result<String, Vec<ProtocolError>> {
        if self.errors.is_empty() { Ok(hex::encode(self.digest.finalize())) } else { Err(self.errors) }
    }
}
