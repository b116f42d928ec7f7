//! What can go wrong in the store, each with what to do about it.

use std::path::PathBuf;

use rusqlite::ErrorCode;
use uuid::Uuid;

/// A store operation failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another daemon holds the data folder.
    #[error(
        "data folder {path} is in use by another baygate (process {pid}); stop it, or give this one its own `gateway.data_dir`"
    )]
    Locked {
        /// The folder.
        path: PathBuf,
        /// The holder as it wrote itself into the lock file, or `unknown`.
        pid: String,
    },
    /// The data folder cannot be used.
    #[error(
        "data folder {path} cannot be used: {source}; create it and give it to the user the daemon runs as"
    )]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// SQLite said no.
    #[error("database: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// The disk or the database's limit is full.
    #[error(
        "the disk or the buffer limit is full; free space in `gateway.data_dir` or raise `buffer.max_bytes`"
    )]
    Full,
    /// No file can be made in the data folder.
    #[error(
        "no file can be made in {folder}: {source}; free space on its disk, or inodes by deleting small files (`df -i` shows them)"
    )]
    NoNewFiles {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// SQLite did not take a setting that durability rests on.
    #[error(
        "database setting {setting} is {actual:?} and must be {expected:?}; the file system of `gateway.data_dir` may not support it: use a local disk"
    )]
    Setting {
        /// The pragma.
        setting: &'static str,
        /// What it reads back as.
        actual: String,
        /// What durability needs.
        expected: &'static str,
    },
    /// The database comes from a later version of the program.
    #[error(
        "the database has schema version {found}, this program knows {known}; install the newer program again or restore a backup"
    )]
    TooNew {
        /// Version found in the file.
        found: i64,
        /// The latest this program knows.
        known: i64,
    },
    /// The linked SQLite may lose commits.
    #[error("SQLite {found} is too old: 3.51.3 or later is needed; use the build with the bundled SQLite")]
    OldSqlite {
        /// Its version.
        found: &'static str,
    },
    /// The file is damaged.
    #[error("the database is damaged: {what}; restart the daemon, it salvages what can be read")]
    Damaged {
        /// What was found.
        what: String,
    },
    /// The disk failed while committing.
    #[error(
        "the disk failed while committing ({what}); whether it was kept is not known: look before doing it again, and check the disk"
    )]
    Uncertain {
        /// What the system said.
        what: String,
    },
    /// An event is not what the contract allows.
    #[error("event {kind} was refused: {what}; this is a defect of the program, please report it")]
    InvalidEvent {
        /// Its type.
        kind: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A thread could not be started.
    #[error("thread {name} could not be started: {source}; raise the limit on tasks or free memory")]
    Thread {
        /// Its name.
        name: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// A backup cannot be used.
    #[error("{path} cannot be brought back: {what}")]
    NotABackup {
        /// The file.
        path: PathBuf,
        /// Why.
        what: String,
    },
    /// A file beside the database cannot be read or written.
    #[error("{path}: {source}; check the path, its rights and the space on its disk")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The same idempotency key was used before, with the same body: here is that request.
    #[error("idempotency key already used by request {request}")]
    Replayed {
        /// The earlier request.
        request: Uuid,
    },
    /// The same idempotency key was used before, with another body.
    #[error("idempotency key already used with another body; use a new key for a new request")]
    KeyConflict,
    /// An operation named something that is not there, or in the wrong state.
    #[error("{what} does not exist or has already moved on")]
    NotFound {
        /// What was named.
        what: String,
    },
    /// The ledger does not take a change of a card.
    #[error("the ledger refuses: {what}")]
    LedgerRefused {
        /// Why, and what to do.
        what: String,
    },
    /// A list of stopped cards does not follow the one that is here.
    #[error("the hotlist is refused: {what}")]
    HotlistRefused {
        /// Why, and what to send.
        what: String,
    },
    /// An operation would make a second one of what there may be once.
    #[error("{what} exists already")]
    Exists {
        /// What there is.
        what: String,
    },
    /// An event is over the contract's limit.
    #[error("event {kind} would have {bytes} bytes, the limit of its class is {limit}; send it in parts")]
    EventTooLarge {
        /// Its type.
        kind: String,
        /// Its envelope's size.
        bytes: usize,
        /// The largest of its class.
        limit: usize,
    },
    /// Stored data does not read back.
    #[error("stored data is not readable: {0}")]
    Corrupt(String),
    /// The writer thread has ended.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    /// Whether SQLite reports damage of the file itself.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. })
            || matches!(self.code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
            || self.is_rotten_value()
    }

    /// Text that is no text, or a value of another type than its STRICT column has.
    fn is_rotten_value(&self) -> bool {
        use rusqlite::Error::{FromSqlConversionFailure, InvalidColumnType, Utf8Error};
        matches!(self, Self::Sqlite(FromSqlConversionFailure(..) | InvalidColumnType(..) | Utf8Error(..)))
    }

    /// Whether the disk itself failed, as opposed to being full or damaged.
    pub(super) fn is_disk_failure(&self) -> bool {
        matches!(self.code(), Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen | ErrorCode::ReadOnly))
    }

    /// SQLite's word for a full disk, and the limit's, are the same error.
    #[must_use]
    pub fn is_full(&self) -> bool {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self, Self::Full)
            || self.code() == Some(ErrorCode::DiskFull)
            || matches!(self, Self::File { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded))
    }

    /// Whether the next try may find it gone: a full disk, or one that failed at making or writing
    /// a file. What it fails to read, as a lost sector, stays so.
    pub(super) fn may_pass(&self) -> bool {
        let failed = matches!(self.code(), Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen));
        self.is_full() || failed && !self.is_unread()
    }

    /// Whether the disk does not give back what is in the file. SQLite has a word of its own for EIO.
    pub(super) fn is_unread(&self) -> bool {
        use rusqlite::ffi::{SQLITE_IOERR_CORRUPTFS, SQLITE_IOERR_READ, SQLITE_IOERR_SHORT_READ};
        matches!(self, Self::Sqlite(rusqlite::Error::SqliteFailure(error, _))
            if [SQLITE_IOERR_READ, SQLITE_IOERR_SHORT_READ, SQLITE_IOERR_CORRUPTFS].contains(&error.extended_code))
    }

    fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Sqlite(error) => error.sqlite_error_code(),
            _ => None,
        }
    }

    /// The same again, for another caller of the same transaction.
    pub(super) fn for_another(&self) -> Self {
        match self {
            Self::Sqlite(rusqlite::Error::SqliteFailure(code, text)) => {
                Self::Sqlite(rusqlite::Error::SqliteFailure(*code, text.clone()))
            }
            Self::Full => Self::Full,
            Self::Damaged { what } => Self::Damaged { what: what.clone() },
            Self::Uncertain { what } => Self::Uncertain { what: what.clone() },
            other => Self::Uncertain { what: other.to_string() },
        }
    }
}
