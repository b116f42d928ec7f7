//! Opening the file: lock, what was left half done, settings, migrations,
//! the quick look, salvage if need be, epoch, threads.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rusqlite::Connection;

use super::alarm::Alarm;
use super::epoch::{self, Position, meta, set_meta};
use super::keeper::Keeper;
use super::lock::FolderLock;
use super::mark::{self, Mark};
use super::pool::ReaderPool;
use super::salvage::{self, Salvaged};
use super::space::Space;
use super::upkeep::Upkeep;
use super::wal::Wal;
use super::{Store, StoreError, backup, check, connection, hold, trim, writer};
use crate::clock;
use crate::event::gateway::EpochReason;
use crate::event::{Class, Source};
use crate::ident::Epoch;

/// The file's name in the data folder.
pub(super) const FILE: &str = "baygate.db";
/// Of which file this is the content (`meta`).
const BIRTH: &str = "file_birth";
/// An epoch that `gateway.started` has yet to tell (`meta`).
const UNTOLD: &str = "epoch_untold";

/// A class's limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClassLimit {
    /// Unsent rows beyond this many bytes are trimmed, oldest first; a row counts
    /// its data, its subject and 160. `None`: never.
    pub keep_bytes: Option<u64>,
    /// Delivered rows older than this many milliseconds are deleted, once every local cursor has passed them.
    pub keep_delivered_ms: i64,
}

/// What the store needs to know.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// `gateway.data_dir`.
    pub data_dir: PathBuf,
    /// Who speaks; written at creation, compared at every start.
    pub source: Source,
    /// `/etc/machine-id`, compared at every start; `None` skips the comparison.
    pub machine_id: Option<String>,
    /// `buffer.max_bytes`.
    pub max_bytes: u64,
    /// Limits by class.
    pub limits: Vec<(Class, ClassLimit)>,
}

/// What was found while opening.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// The running epoch.
    pub epoch: Epoch,
    /// Present when this start began a new epoch.
    pub new_epoch: Option<EpochReason>,
    /// The epoch before, when there was one.
    pub previous_epoch: Option<Epoch>,
    /// Whether the last run ended orderly (true for a new file).
    pub clean_shutdown: bool,
    /// Present when this start salvaged a damaged file.
    pub salvaged: Option<Salvaged>,
    /// An epoch begun at a start that no `gateway.started` has told yet: this start's, or an
    /// earlier one's that was killed before it could. Why, and the epoch before.
    pub untold: Option<(EpochReason, Option<Epoch>)>,
}

impl Store {
    /// Opens or creates the database of a data folder and starts the writer.
    /// A damaged file is moved aside and salvaged first (that may take minutes).
    ///
    /// # Errors
    /// [`StoreError`] saying what to do.
    pub fn open(options: &StoreOptions) -> Result<(Self, Opened), StoreError> {
        Self::open_telling(options, &mut |_| {})
    }

    /// Likewise; a salvage tells `salvaging` the rows it has read, at each step and each second.
    ///
    /// # Errors
    /// [`StoreError`] saying what to do.
    pub fn open_telling(
        options: &StoreOptions,
        salvaging: &mut dyn FnMut(u64),
    ) -> Result<(Self, Opened), StoreError> {
        connection::check_version()?;
        let folder = &options.data_dir;
        let lock = FolderLock::take(folder)?;
        let path = folder.join(FILE);
        backup::finish_restore(folder)?;
        let mut space = Space::new(folder, options.max_bytes);
        let mut salvaged = None;
        let mut started = start(&path, options, &mut salvaged, salvaging);
        if matches!(&started, Err(error) if error.is_full() || error.is_disk_failure())
            && space.is_out_of_room()
        {
            // What is there wants to be delivered: that needs a WAL and its index.
            space.give_up_ballast();
            started = start(&path, options, &mut salvaged, salvaging);
        }
        let (conn, position, mut opened) = started.map_err(|error| plainly(folder, error))?;
        opened.salvaged = salvaged;
        let alarm = Arc::new(Alarm::new(folder.clone()));
        hold::tell(&conn, &alarm)?;
        let keeper = Keeper::start(path.clone(), Arc::clone(&alarm))?;
        let background = keeper.calls();
        space.lay_ballast();
        let (writer, head) = writer::start(writer::Parts {
            path: path.clone(),
            conn,
            position,
            space,
            upkeep: Upkeep::new(&options.limits),
            alarm: Arc::clone(&alarm),
            keeper,
            lock,
        })?;
        let readers = Arc::new(ReaderPool::new(path, Arc::clone(&alarm)));
        let shown = Arc::new(AtomicBool::new(false));
        let folder = Arc::from(folder.as_path());
        let hands = super::hands::Hands::default();
        Ok((Self { writer, head, readers, alarm, background, shown, folder, hands }, opened))
    }
}

/// What a start that failed should say. SQLite tells only that it could not open a file, also where
/// the disk has space left and no inodes: asked of the system with as many files as SQLite makes
/// (the WAL and its index).
fn plainly(folder: &Path, error: StoreError) -> StoreError {
    if error.is_full() {
        return StoreError::Full;
    }
    if !error.is_disk_failure() {
        return error;
    }
    let probes = ["baygate.probe-1", "baygate.probe-2"].map(|name| folder.join(name));
    let refused = probes.iter().find_map(|probe| std::fs::File::create(probe).err());
    probes.iter().for_each(|probe| drop(std::fs::remove_file(probe)));
    match refused {
        Some(source) => StoreError::NoNewFiles { folder: folder.to_owned(), source },
        None => error,
    }
}

/// Opens the file, salvaged if need be, and goes on with its epoch or begins one.
fn start(
    path: &Path,
    options: &StoreOptions,
    salvaged: &mut Option<Salvaged>,
    salvaging: &mut dyn FnMut(u64),
) -> Result<(Connection, Position, Opened), StoreError> {
    let folder = &options.data_dir;
    if salvaged.is_none() {
        *salvaged = salvage_if_marked(folder, salvaging)?;
    }
    let mut conn = match open_sound(path) {
        Err(error) if (error.is_damage() || error.is_unread()) && salvaged.is_none() => {
            Mark::set(folder, &error.to_string())?;
            *salvaged = salvage_if_marked(folder, salvaging)?;
            open_sound(path)?
        }
        other => other?,
    };
    let (position, opened) = begin(&mut conn, options)?;
    Ok((conn, position, opened))
}

fn salvage_if_marked(folder: &Path, salvaging: &mut dyn FnMut(u64)) -> Result<Option<Salvaged>, StoreError> {
    match Mark::read(folder)? {
        Some(mark) => salvage::run(folder, &mark, salvaging),
        None => salvage::remove_copies(folder).map(|()| None),
    }
}

/// Opens the file for writing, up to date and looked at.
fn open_sound(path: &Path) -> Result<Connection, StoreError> {
    let wal =
        Wal::read(path).map_err(|source| StoreError::File { path: mark::beside(path, "-wal"), source })?;
    if let Some(what) = wal.damaged {
        return Err(StoreError::Damaged { what });
    }
    connection::check_header(path)?;
    let mut conn = connection::writer(path)?;
    if wal.rest {
        connection::begin_wal_anew(&conn);
    }
    connection::migrate(&mut conn)?;
    check::quick(&conn)?;
    Ok(conn)
}

/// Why a new epoch begins at this start, if one does.
fn reason(
    conn: &Connection,
    before: Option<&Position>,
    options: &StoreOptions,
) -> Result<Option<EpochReason>, StoreError> {
    let says = |key: &str| meta(conn, key);
    let moved = |was: Option<String>, is: Option<&str>| match (was, is) {
        (Some(was), Some(is)) => was != is,
        _ => false,
    };
    Ok(if says("salvaged")?.is_some() {
        Some(EpochReason::Salvaged)
    } else if before.is_none() {
        Some(EpochReason::Created)
    } else if says("restored")?.is_some() {
        Some(EpochReason::Restored)
    } else if moved(says("source")?, Some(&options.source.to_string()))
        || moved(says("machine_id")?, options.machine_id.as_deref())
    {
        Some(EpochReason::Cloned)
    } else if moved(says(BIRTH)?, birth(&options.data_dir.join(FILE)).as_deref()) {
        Some(EpochReason::Restored)
    } else {
        None
    })
}

/// What tells a file from its copy: inode and time of creation, where the file system keeps
/// that. A folder copied back by hand is a restored one, though its content does not say so.
fn birth(path: &Path) -> Option<String> {
    let file = std::fs::metadata(path).ok()?;
    let created = file.created().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(format!("{} {}", file.ino(), created.as_nanos()))
}

/// The running epoch was told: `gateway.started` stands in the same transaction.
pub(super) fn told(tx: &Connection) -> Result<(), StoreError> {
    tx.prepare_cached("DELETE FROM meta WHERE key = ?1")?.execute([UNTOLD])?;
    Ok(())
}

/// Notes an epoch that begins at this start, as `REASON PREVIOUS`.
fn note_untold(tx: &Connection, reason: EpochReason, previous: Option<Epoch>) -> Result<(), StoreError> {
    let previous = previous.map(|epoch| epoch.to_string()).unwrap_or_default();
    set_meta(tx, UNTOLD, &format!("{} {previous}", epoch::reason_text(reason)))
}

fn untold(tx: &Connection) -> Result<Option<(EpochReason, Option<Epoch>)>, StoreError> {
    Ok(meta(tx, UNTOLD)?.and_then(|text| {
        let (reason, previous) = text.split_once(' ')?;
        Some((epoch::reason_of(reason)?, previous.parse().ok().map(Epoch)))
    }))
}

/// Whether a salvage may have lost what card writes rest on. A report that cannot be read says yes.
fn salvage_lost_vitals(tx: &Connection) -> Result<bool, StoreError> {
    let report = meta(tx, "salvaged")?.and_then(|text| serde_json::from_str::<Salvaged>(&text).ok());
    Ok(report.is_none_or(|report| !report.ledger_complete || !report.requests_complete))
}

/// Goes on with the epoch, or begins a new one and tells what a salvage lost.
fn begin(conn: &mut Connection, options: &StoreOptions) -> Result<(Position, Opened), StoreError> {
    let tx = conn.transaction()?;
    let before = Position::load(&tx)?;
    let reason = reason(&tx, before.as_ref(), options)?;
    let clean_shutdown = before.is_none() || meta(&tx, "clean_shutdown")?.as_deref() == Some("yes");
    let mut position = match (reason, before) {
        (None, Some(position)) => position,
        (reason, before) => epoch::begin(&tx, before.as_ref(), reason.unwrap_or(EpochReason::Created))?,
    };
    set_meta(&tx, "source", &options.source.to_string())?;
    if let Some(machine_id) = &options.machine_id {
        set_meta(&tx, "machine_id", machine_id)?;
    }
    set_meta(&tx, "clean_shutdown", "no")?;
    set_meta(&tx, connection::SCHEMA, &connection::known_version().to_string())?;
    let begun_before = before.map(|position| position.epoch);
    if let Some(reason) = reason {
        note_untold(&tx, reason, begun_before)?;
        match birth(&options.data_dir.join(FILE)) {
            Some(birth) => set_meta(&tx, BIRTH, &birth)?,
            None => drop(tx.execute("DELETE FROM meta WHERE key = ?1", [BIRTH])?),
        }
    }
    match reason {
        Some(EpochReason::Restored) => hold::hold(&tx, EpochReason::Restored)?,
        Some(EpochReason::Salvaged) if salvage_lost_vitals(&tx)? => hold::hold(&tx, EpochReason::Salvaged)?,
        _ => {}
    }
    let untold = untold(&tx)?;
    tx.execute("DELETE FROM meta WHERE key IN ('restored', 'salvaged')", [])?;
    if reason == Some(EpochReason::Salvaged) {
        for class in Class::ALL {
            trim::tell_open_gaps(&tx, &mut position, clock::boot_id(), class)?;
        }
    }
    tx.commit()?;
    let opened = Opened {
        epoch: position.epoch,
        new_epoch: reason,
        previous_epoch: before.filter(|_| reason.is_some()).map(|position| position.epoch),
        clean_shutdown,
        salvaged: None,
        untold,
    };
    Ok((position, opened))
}
