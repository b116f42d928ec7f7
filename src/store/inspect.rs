//! Looking into a database from beside the daemon: read-only, running or not.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use serde::Serialize;

use super::check::{FullCheck, first_line};
use super::epoch::{self, meta};
use super::open::FILE;
use super::wal::Wal;
use super::{Missing, Reader, StoreError, check, connection, gaps, mark, salvage, space};
use crate::event::{Class, Source};

/// Findings of SQLite's own check that are listed, at most.
const FINDINGS: u32 = 20;

/// A database opened to be looked at.
pub struct Inspection {
    path: PathBuf,
    conn: Connection,
}

/// Verifies a database wherever it is, also one that does not open. A data folder in which
/// nothing was made yet is well; a file that was named and holds nothing had been more, as a
/// copy that a full disk cut.
///
/// # Errors
/// What keeps the file from being looked at: none there, of a later version, not readable for this user.
pub fn verify(place: &Path, progress: &mut dyn FnMut(u64)) -> Result<Verdict, StoreError> {
    let verified = Inspection::open(place).and_then(|inspection| {
        if inspection.is_blank()? { Ok(Verdict::blank(place)) } else { inspection.verify(progress) }
    });
    match verified {
        Err(error) if error.is_damage() => Ok(Inspection::unreadable(&error)),
        other => other,
    }
}

/// What an export reads: the database as it is, or a copy of what can still be read of it.
pub struct Readable {
    inspection: Inspection,
    /// What is wrong with the database, when this is a copy.
    pub damage: Option<String>,
    /// Events that are not in the copy, as far as the counters tell.
    pub unreadable: u64,
    /// Kept as long as the copy is read.
    _scratch: Option<Scratch>,
}

impl Readable {
    /// Opens a database to read what can be read. A damaged one is copied row by row
    /// first, into a folder of its own within `scratch`.
    ///
    /// # Errors
    /// [`StoreError::File`] when there is none, or no room for the copy.
    pub fn open(place: &Path, scratch: &Path) -> Result<Self, StoreError> {
        let path = if place.is_dir() { place.join(FILE) } else { place.to_owned() };
        std::fs::metadata(&path).map_err(|source| StoreError::File { path: path.clone(), source })?;
        let opened = Inspection::open(&path).and_then(|inspection| Ok((inspection.obstacle()?, inspection)));
        let what = match opened {
            Ok((None, inspection)) => {
                return Ok(Self { inspection, damage: None, unreadable: 0, _scratch: None });
            }
            Ok((Some(what), _)) => what,
            Err(error) if error.is_damage() => error.to_string(),
            Err(error) => return Err(error),
        };
        let scratch = Scratch::make(scratch)?;
        let copy = scratch.0.join(FILE);
        let report = salvage::readable_copy(&path, &what, &copy)?;
        let inspection = Inspection::open(&copy)?;
        Ok(Self { inspection, damage: Some(what), unreadable: report.unreadable, _scratch: Some(scratch) })
    }

    /// What can be read.
    #[must_use]
    pub fn inspection(&self) -> &Inspection {
        &self.inspection
    }
}

/// A folder for a while.
struct Scratch(PathBuf);

impl Scratch {
    fn make(within: &Path) -> Result<Self, StoreError> {
        let folder = within.join(format!(".baygate-export-{}", std::process::id()));
        DirBuilder::new()
            .mode(0o700)
            .create(&folder)
            .map_err(|source| StoreError::File { path: folder.clone(), source })?;
        Ok(Self(folder))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A copy of what is still where it was.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Whether nothing is wrong.
    pub sound: bool,
    /// Whether nothing was ever made in it.
    pub empty: bool,
    /// Rows read.
    pub rows: u64,
    /// What is wrong with the file.
    pub problems: Vec<String>,
    /// Class sequences that are neither delivered, nor there, nor told as a gap.
    pub missing: Vec<Missing>,
}

impl Verdict {
    fn blank(place: &Path) -> Self {
        let sound = place.is_dir();
        let problem = "the file holds no database: a copy that was cut short? make another".to_owned();
        let problems = if sound { Vec::new() } else { vec![problem] };
        Self { sound, empty: true, rows: 0, problems, missing: Vec::new() }
    }
}

impl Inspection {
    /// Opens the database of a data folder, or a backup file.
    ///
    /// # Errors
    /// [`StoreError::File`] when there is none, [`StoreError::TooNew`] when it is of a later version.
    pub fn open(place: &Path) -> Result<Self, StoreError> {
        let path = if place.is_dir() { place.join(FILE) } else { place.to_owned() };
        std::fs::metadata(&path).map_err(|source| StoreError::File { path: path.clone(), source })?;
        connection::check_header(&path)?;
        if mark::beside(&path, "-journal").exists() {
            connection::take_back(&path)?;
        }
        let conn = connection::reader(&path)?;
        connection::check_schema_version(&conn)?;
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

    /// What keeps the log from being read through as it is: pages out of their tree, commits
    /// that SQLite would leave in the WAL. Rotten rows are no such thing.
    fn obstacle(&self) -> Result<Option<String>, StoreError> {
        if let Some(what) = self.wal_damage()? {
            return Ok(Some(what));
        }
        match check::whole_schema(&self.conn).and_then(|()| epoch::agree(&self.conn)) {
            Err(StoreError::Damaged { what }) => return Ok(Some(what)),
            other => other?,
        }
        for table in ["event", "epoch", "meta", "delivered"] {
            let verdict = self
                .conn
                .query_row(&format!("PRAGMA quick_check('{table}')"), [], |row| row.get::<_, String>(0));
            match verdict.map_err(StoreError::from) {
                Ok(verdict) if verdict == "ok" => {}
                Ok(verdict) => return Ok(Some(format!("table {table}: {}", first_line(&verdict)))),
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Whether the first start was cut before it had made anything: the next one begins anew.
    fn is_blank(&self) -> Result<bool, StoreError> {
        let number = |sql: &str| self.conn.query_row(sql, [], |row| row.get::<_, i64>(0));
        let tables = number("SELECT count(*) FROM sqlite_schema")?;
        Ok(tables == 0 && number("PRAGMA page_count")? <= 1)
    }

    fn wal_damage(&self) -> Result<Option<String>, StoreError> {
        let read = Wal::read(&self.path);
        Ok(read.map_err(|source| StoreError::File { path: self.path.clone(), source })?.damaged)
    }

    /// Everything: each event and its index entry, seals, class sequences, the
    /// other tables, and SQLite's own check of every page. `progress` gets the
    /// rows read so far.
    ///
    /// # Errors
    /// What keeps the file from being read at all; damage is a finding, not an error.
    pub fn verify(&self, progress: &mut dyn FnMut(u64)) -> Result<Verdict, StoreError> {
        let mut problems: Vec<String> = self.wal_damage()?.into_iter().collect();
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
        Ok(Verdict { sound, empty: false, rows: check.rows(), problems, missing })
    }

    /// The verdict on a file that SQLite does not even open.
    fn unreadable(error: &StoreError) -> Verdict {
        let problems = vec![error.to_string()];
        Verdict { sound: false, empty: false, rows: 0, problems, missing: Vec::new() }
    }

    fn integrity(&self) -> Result<Vec<String>, StoreError> {
        let mut query = self.conn.prepare(&format!("PRAGMA integrity_check({FINDINGS})"))?;
        let lines = query.query_map([], |row| row.get::<_, String>(0))?;
        let lines: Vec<String> = lines.collect::<Result<_, _>>()?;
        Ok(lines.into_iter().filter(|line| line != "ok").collect())
    }
}
