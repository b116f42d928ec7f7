//! Page by page, without SQLite: finds rows in leaves that no tree leads to any more.
//! Format: SQLite "Database File Format", sections 1.3, 1.5, 1.6, 2.1 and 4.1.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use super::copy::{self, is_sealed};
use super::told::Told;
use crate::store::StoreError;
use crate::store::mark::{beside, is_there};
use crate::store::seal::LedgerTable;
use crate::store::wal::Wal;

/// The page size of every file of ours.
pub(super) const PAGE: usize = 4096;
pub(super) const PAGE_U64: u64 = 4096;
/// Requests whose outcome stands on a card (`card::purse::journal`).
const SETTLED_BY_A_TAP: &str = "card.transaction";
/// Columns of the log's table.
const EVENT_COLUMNS: usize = 13;
const REQUEST: &str = "INSERT OR IGNORE INTO request VALUES (?,?,?,?,?,?,?,?,?,?,?)";
/// Table leaf (§1.6).
const TABLE_LEAF: u8 = 0x0D;

/// A file with its WAL.
struct Pages {
    file: File,
    count: u64,
    wal: Option<File>,
    /// Frames of the WAL's commits: where they are in the WAL.
    frames: Vec<u64>,
    /// The latest of them, by page.
    latest: HashMap<u64, u64>,
}

fn be32(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 4).map_or(0, |b| b.iter().fold(0, |n, byte| (n << 8) | u64::from(*byte)))
}

/// What may be missing, unlike what cannot be opened just now.
pub(super) fn present(opened: std::io::Result<File>) -> std::io::Result<Option<File>> {
    match opened {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        opened => opened.map(Some),
    }
}

impl Pages {
    fn open(path: &Path) -> std::io::Result<Self> {
        let file = File::open(path)?;
        let count = file.metadata()?.len() / PAGE_U64;
        let mut pages = Self { file, count, wal: None, frames: Vec::new(), latest: HashMap::new() };
        if let Some(wal) = present(File::open(beside(path, "-wal")))? {
            // Also frames that are not as they were written: events have their own seal.
            for frame in Wal::read(path)?.frames {
                pages.frames.push(frame.at);
                pages.latest.insert(frame.page, frame.at);
            }
            pages.wal = Some(wal);
        }
        Ok(pages)
    }

    fn read(&self, no: u64) -> Option<[u8; PAGE]> {
        let mut page = [0; PAGE];
        match (self.latest.get(&no), &self.wal) {
            (Some(at), Some(wal)) => wal.read_exact_at(&mut page, *at).ok()?,
            _ => self.file.read_exact_at(&mut page, no.checked_sub(1)?.checked_mul(PAGE_U64)?).ok()?,
        }
        Some(page)
    }

    /// Every frame of the WAL, the latest first, then every page of the file: of a row
    /// that is there in several states the first one counts. True with the file's first, which
    /// begins with the file's header.
    fn all(&self) -> impl Iterator<Item = (bool, [u8; PAGE])> + '_ {
        let of_file = (0..self.count).filter_map(|no| {
            let mut page = [0; PAGE];
            self.file.read_exact_at(&mut page, no * PAGE_U64).ok()?;
            Some((no == 0, page))
        });
        let of_wal = self.frames.iter().rev().filter_map(|at| {
            let mut page = [0; PAGE];
            self.wal.as_ref()?.read_exact_at(&mut page, *at).ok()?;
            Some((false, page))
        });
        of_wal.chain(of_file)
    }

    /// A cell's payload, put together from its overflow pages (§1.6).
    fn payload(&self, local: &[u8], length: usize) -> Option<Vec<u8>> {
        const USABLE: usize = PAGE;
        if length > 2 * crate::event::MAX_EVENT_BYTES {
            return None;
        }
        if length <= USABLE - 35 {
            return local.get(..length).map(<[u8]>::to_vec);
        }
        let least = (USABLE - 12) * 32 / 255 - 23;
        let spill = least + (length - least) % (USABLE - 4);
        let here = if spill <= USABLE - 35 { spill } else { least };
        let mut payload = local.get(..here)?.to_vec();
        let mut next = be32(local.get(here..here + 4)?, 0);
        while payload.len() < length && next != 0 {
            let page = self.read(next)?;
            let wanted = (length - payload.len()).min(USABLE - 4);
            payload.extend_from_slice(page.get(4..4 + wanted)?);
            next = be32(&page, 0);
        }
        (payload.len() == length).then_some(payload)
    }
}

/// A variable-length integer and its length (§1.6).
fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0_u64;
    for (place, byte) in bytes.iter().take(9).enumerate() {
        if place == 8 {
            return Some(((value << 8) | u64::from(*byte), 9));
        }
        value = (value << 7) | u64::from(byte & 0x7F);
        if byte & 0x80 == 0 {
            return Some((value, place + 1));
        }
    }
    None
}

/// The values of a record (§2.1).
fn record(payload: &[u8]) -> Option<Vec<Value>> {
    let (header_length, mut at) = varint(payload)?;
    let header = payload.get(..usize::try_from(header_length).ok()?)?;
    let mut body = payload.get(header.len()..)?;
    let mut values = Vec::new();
    while at < header.len() {
        let (kind, length) = varint(header.get(at..)?)?;
        at += length;
        let size = match kind {
            0 | 8 | 9 => 0,
            1..=4 => usize::try_from(kind).ok()?,
            5 => 6,
            6 | 7 => 8,
            10 | 11 => return None,
            _ => usize::try_from((kind - 12) / 2).ok()?,
        };
        let (bytes, rest) = body.split_at_checked(size)?;
        body = rest;
        values.push(match kind {
            0 => Value::Null,
            8 => Value::Integer(0),
            9 => Value::Integer(1),
            1..=6 => {
                let negative = bytes.first().is_some_and(|byte| byte & 0x80 != 0);
                let start = if negative { -1 } else { 0 };
                Value::Integer(bytes.iter().fold(start, |n: i64, byte| (n << 8) | i64::from(*byte)))
            }
            7 => return None,
            _ if kind % 2 == 0 => Value::Blob(bytes.to_vec()),
            _ => Value::Text(String::from_utf8(bytes.to_vec()).ok()?),
        });
    }
    Some(values)
}

/// The rows in a table leaf: rowid and values.
fn leaf(pages: &Pages, first: bool, page: &[u8; PAGE]) -> Vec<(i64, Vec<Value>)> {
    let start = if first { 100 } else { 0 };
    if page.get(start) != Some(&TABLE_LEAF) {
        return Vec::new();
    }
    let two = |at: usize| {
        page.get(at..at + 2).map(|bytes| bytes.iter().fold(0, |n, byte| (n << 8) | usize::from(*byte)))
    };
    let cells = two(start + 3).unwrap_or(0);
    let mut rows = Vec::new();
    for cell in 0..cells.min(PAGE / 4) {
        let row = || {
            let at = two(start + 8 + 2 * cell)?;
            let (length, one) = varint(page.get(at..)?)?;
            let (rowid, two) = varint(page.get(at + one..)?)?;
            let payload = pages.payload(page.get(at + one + two..)?, usize::try_from(length).ok()?)?;
            Some((rowid.cast_signed(), record(&payload)?))
        };
        rows.extend(row());
    }
    rows
}

/// Adds the events, requests, epochs, cards, transactions and operators found in any leaf,
/// unless they are there already. A request found so may be an old state of it: it counts as
/// interrupted, its key is taken, and nothing is done twice. What is asked of a card
/// goes on waiting for the tap that tells. Requests, cards and transactions come only into tables that
/// are `in_doubt`: of the others SQLite read all there is, and what pages hold besides is older, or was
/// removed. Nothing is taken from behind the WAL's last commit (`wal`), events neither: nobody was told
/// them, their requests and transactions are not there, and the next tap may end such a one again.
pub(super) fn rows(
    path: &Path,
    new: &Connection,
    in_doubt: &[&str],
    told: &mut Told<'_>,
) -> Result<u64, StoreError> {
    let file_error = |source| StoreError::File { path: path.to_owned(), source };
    if !is_there(path)? {
        return Ok(0);
    }
    let pages = Pages::open(path).map_err(file_error)?;
    let (cards, transactions) = (insert(new, LedgerTable::Card)?, insert(new, LedgerTable::Transaction)?);
    let mut kept = 0;
    for (first, page) in pages.all() {
        told.look();
        for (rowid, mut values) in leaf(&pages, first, &page) {
            told.row();
            let sql = match recognise(rowid, &mut values) {
                Some(REQUEST) if !in_doubt.contains(&"request") => continue,
                Some(sql) => sql,
                None => match sealed(rowid, &mut values) {
                    Some(table) if !in_doubt.contains(&table.name()) => continue,
                    Some(LedgerTable::Card) => cards.as_str(),
                    Some(LedgerTable::Transaction) => transactions.as_str(),
                    None => continue,
                },
            };
            match new.prepare_cached(sql)?.execute(params_from_iter(values)) {
                Ok(rows) => kept += u64::try_from(rows).unwrap_or(0),
                Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation) => {
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
    tracing::info!(kept, "rows found page by page");
    Ok(kept)
}

/// Takes a sealed row with its columns up to and with the seal.
fn insert(new: &Connection, table: LedgerTable) -> Result<String, StoreError> {
    let mut query = new.prepare("SELECT name FROM pragma_table_info(?1) ORDER BY cid")?;
    let columns: Vec<String> = query
        .query_map([table.name()], |row| row.get(0))?
        .take(table.sealed_columns() + 1)
        .collect::<Result<_, _>>()?;
    Ok(copy::insert(table.name(), &columns))
}

/// Which table a row is of, by its form; completes it. An event needs its seal.
fn recognise(rowid: i64, values: &mut [Value]) -> Option<&'static str> {
    let columns = values.len();
    match values {
        // The primary key stands in the cell, not in the record (§2.1).
        [offset @ Value::Null, ..] if columns == EVENT_COLUMNS => {
            *offset = Value::Integer(rowid);
            is_sealed(values).then_some("INSERT OR IGNORE INTO event VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)")
        }
        [no @ Value::Null, Value::Blob(id), Value::Integer(_), Value::Text(_), Value::Integer(_)]
            if id.len() == 16 =>
        {
            *no = Value::Integer(rowid);
            Some("INSERT OR IGNORE INTO epoch VALUES (?,?,?,?,?)")
        }
        [
            Value::Blob(id),
            Value::Text(kind),
            Value::Text(_),
            Value::Text(_),
            _,
            Value::Blob(sha),
            Value::Text(_),
            Value::Text(state),
            outcome,
            Value::Integer(created),
            settled,
        ] if id.len() == 16 && sha.len() == 32 => {
            let is_open = state == "pending" || state == "running";
            if is_open && kind == SETTLED_BY_A_TAP {
                // Its intent may be on a card: the tap that tells settles both. Not begun anew.
                *state = "running".into();
            } else if is_open {
                *state = "failed".into();
                *outcome = Value::Text(r#"{"error":"interrupted"}"#.into());
                *settled = Value::Integer(*created);
            }
            Some(REQUEST)
        }
        // Nothing in the row says what it is but the form of the PIN's hash.
        [
            Value::Text(_),
            Value::Text(_),
            Value::Text(_),
            Value::Text(hash),
            Value::Text(_) | Value::Null,
            Value::Integer(_),
            Value::Integer(_),
        ] if hash.starts_with("$argon2id$") => Some("INSERT OR IGNORE INTO operator VALUES (?,?,?,?,?,?,?)"),
        _ => None,
    }
}

/// Which sealed table a row is of, by its seal; leaves the columns up to and with the seal, which
/// those of later versions come behind.
fn sealed(rowid: i64, values: &mut Vec<Value>) -> Option<LedgerTable> {
    // The primary key stands in the cell, as above.
    let no = values.first_mut().filter(|no| **no == Value::Null)?;
    *no = Value::Integer(rowid);
    let table = LedgerTable::ALL.into_iter().find(|table| table.holds(values))?;
    values.truncate(table.sealed_columns() + 1);
    Some(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A request's record as it stands in a leaf.
    fn request(kind: &str, state: &str) -> Vec<Value> {
        let text = |text: &str| Value::Text(text.into());
        vec![
            Value::Blob(vec![7; 16]),
            text(kind),
            text("counter-1"),
            text("till-1"),
            text("key"),
            Value::Blob(vec![9; 32]),
            text("{}"),
            text(state),
            Value::Null,
            Value::Integer(5),
            Value::Null,
        ]
    }

    #[test]
    fn what_is_asked_of_a_card_waits_for_its_tap() {
        // (kind, state, state afterwards, whether it has an outcome)
        for (kind, state, after, settled) in [
            ("vehicle.scan", "pending", "failed", true),
            ("vehicle.scan", "running", "failed", true),
            ("vehicle.scan", "done", "done", false),
            ("card.transaction", "pending", "running", false),
            ("card.transaction", "running", "running", false),
            ("card.transaction", "done", "done", false),
        ] {
            let mut values = request(kind, state);
            assert!(recognise(1, &mut values).is_some_and(|sql| sql.contains("request")), "{kind} {state}");
            assert_eq!(values[7], Value::Text(after.into()), "{kind} {state}");
            assert_eq!(values[10] != Value::Null, settled, "{kind} {state}");
        }
    }
}
