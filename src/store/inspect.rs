//! Looking into a database from beside the daemon: read-only, running or not.

use std::path::{Path, PathBuf};

use rusqlite::Connection;
use serde::Serialize;

use super::check::FullCheck;
use super::epoch::meta;
use super::open::FILE;
use super::{Missing, Reader, StoreError, connection, gaps, mark, space};
use crate::event::{Class, Source};

/// Findings of SQLite's own check that are listed, at most.
const FINDINGS: u32 = 20;

/// A database opened to be looked at.
pub struct Inspection {
    path: PathBuf,
    conn: Connection,
}

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Whether nothing is wrong.
    pub sound: bool,
    /// Rows read.
    pub rows: u64,
    /// What is wrong with the file.
    pub problems: Vec<String>,
    /// Class sequences that are neither delivered, nor there, nor told as a gap.
    pub missing: Vec<Missing>,
}

impl Inspection {
    /// Opens the database of a data folder, or a backup file.
    ///
    /// # Errors
    /// [`StoreError::File`] when there is none, [`StoreError::TooNew`] when it is of a later version.
    pub fn open(place: &Path) -> Result<Self, StoreError> {
        let path = if place.is_dir() { place.join(FILE) } else { place.to_owned() };
        std::fs::metadata(&path).map_err(|source| StoreError::File { path: path.clone(), source })?;
        let conn = connection::reader(&path)?;
        let (found, known) = (connection::found_version(&conn)?, connection::known_version());
        if found > known {
            return Err(StoreError::TooNew { found, known });
        }
        Ok(Self { path, conn })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Size of the WAL, in bytes.
    #[must_use]
    pub fn wal_bytes(&self) -> u64 {
        std::fs::metadata(mark::beside(&self.path, "-wal")).map_or(0, |file| file.len())
    }

    /// What the disk has left, in bytes, and whether the daemon met its end and lives on the reserve.
    #[must_use]
    pub fn disk(&self) -> (u64, bool) {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        (space::free_bytes(folder), space::is_given_up(folder))
    }

    /// For the read functions of the topics. Each call reads a moment of its own.
    #[must_use]
    pub fn reader(&self) -> Reader<'_> {
        Reader { conn: &self.conn }
    }

    /// Who speaks in the events of this file.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when the file does not say.
    pub fn source(&self) -> Result<Source, StoreError> {
        let text = meta(&self.conn, "source")?.unwrap_or_default();
        let parse = || {
            let (store, gateway) = text.strip_prefix("/stores/")?.split_once("/gateways/")?;
            Some(Source { store: store.parse().ok()?, gateway: gateway.parse().ok()? })
        };
        parse().ok_or_else(|| StoreError::Corrupt(format!("source {text:?}")))
    }

    /// Everything: each event and its index entry, seals, class sequences, the
    /// other tables, and SQLite's own check of every page. `progress` gets the
    /// rows read so far.
    ///
    /// # Errors
    /// What keeps the file from being read at all; damage is a finding, not an error.
    pub fn verify(&self, progress: &mut dyn FnMut(u64)) -> Result<Verdict, StoreError> {
        let mut problems = Vec::new();
        let mut check = FullCheck::default();
        loop {
            match check.slice(&self.conn) {
                Ok(true) => break,
                Ok(false) => progress(check.rows()),
                Err(error) if error.is_damage() => {
                    problems.push(error.to_string());
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        let mut missing = Vec::new();
        for class in Class::ALL {
            match gaps::missing(&self.conn, class) {
                Ok(found) => missing.extend(found),
                Err(error) => problems.push(error.to_string()),
            }
        }
        match self.integrity() {
            Ok(findings) => problems.extend(findings),
            Err(error) => problems.push(error.to_string()),
        }
        let sound = problems.is_empty() && missing.is_empty();
        Ok(Verdict { sound, rows: check.rows(), problems, missing })
    }

    fn integrity(&self) -> Result<Vec<String>, StoreError> {
        let mut query = self.conn.prepare(&format!("PRAGMA integrity_check({FINDINGS})"))?;
        let lines = query.query_map([], |row| row.get::<_, String>(0))?;
        let lines: Vec<String> = lines.collect::<Result<_, _>>()?;
        Ok(lines.into_iter().filter(|line| line != "ok").collect())
    }
}
