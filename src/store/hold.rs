//! Card writes wait for a person's word where the log may have forgotten some:
//! after a backup came back, after a salvage that lost ledger events, requests or
//! their keys, and where headquarters knows more than we do. A card written in
//! that state could be debited twice for one purchase. The word is durable: it
//! stands until [`release`].

use std::path::Path;

use rusqlite::Connection;

use super::alarm::Alarm;
use super::epoch::{meta, reason_of, reason_text, set_meta};
use super::lock::FolderLock;
use super::open::FILE;
use super::{Reader, StoreError, connection};
use crate::clock::UtcMillis;
use crate::event::Text;
use crate::event::gateway::EpochReason;

const KEY: &str = "card_writes_held";

/// Card writes are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Held {
    /// Since when.
    pub since: UtcMillis,
    /// What came before.
    pub why: EpochReason,
}

/// Holds card writes from this transaction on. What holds them already stays the reason.
pub(super) fn hold(tx: &Connection, why: EpochReason) -> Result<(), StoreError> {
    if meta(tx, KEY)?.is_none() {
        set_meta(tx, KEY, &format!("{} {}", UtcMillis::now().0, reason_text(why)))?;
    }
    Ok(())
}

impl Reader<'_> {
    /// Whether card writes have to wait, and since when.
    ///
    /// # Errors
    /// [`StoreError::Sqlite`].
    pub fn card_writes_held(&self) -> Result<Option<Held>, StoreError> {
        Ok(meta(self.conn, KEY)?.map(|text| {
            let (since, why) = text.split_once(' ').unwrap_or((&text, ""));
            // A word that cannot be read holds all the same.
            Held {
                since: UtcMillis(since.parse().unwrap_or(0)),
                why: reason_of(why).unwrap_or(EpochReason::Salvaged),
            }
        }))
    }
}

/// Says so in `/readyz`, for as long as it stands.
pub(super) fn tell(conn: &Connection, alarm: &Alarm) -> Result<(), StoreError> {
    if let Some(held) = (Reader { conn }).card_writes_held()? {
        let (zh, en) = match held.why {
            EpochReason::Restored => ("数据库由备份恢复", "the database came back from a backup"),
            EpochReason::Ahead => {
                ("总部已有的事件多于本机日志", "headquarters knows more events than this log")
            }
            _ => (
                "数据库曾损坏,部分账务或请求可能丢失",
                "the database was damaged and may have lost ledger events or requests",
            ),
        };
        alarm.raise(
            "store/ledger",
            "card-writes-held",
            Text::new(
                format!("{zh}:暂停写卡;请与总部核对账务,然后停止服务并执行 baygate buffer release"),
                format!(
                    "{en}: card writes wait; compare the ledger with headquarters, then stop the daemon and run `baygate buffer release`"
                ),
            ),
            false,
        );
    }
    Ok(())
}

/// The operator's word: card writes may go on. The daemon must not run. Gives what held them.
///
/// # Errors
/// [`StoreError::Locked`] while a daemon runs, [`StoreError::File`] where there is no database.
pub fn release(data_dir: &Path) -> Result<Option<Held>, StoreError> {
    let path = data_dir.join(FILE);
    std::fs::metadata(&path).map_err(|source| StoreError::File { path: path.clone(), source })?;
    let _lock = FolderLock::take(data_dir)?;
    let conn = connection::writer(&path)?;
    let held = Reader { conn: &conn }.card_writes_held()?;
    conn.execute("DELETE FROM meta WHERE key = ?1", [KEY])?;
    connection::checkpoint(&conn, "TRUNCATE")?;
    Ok(held)
}
