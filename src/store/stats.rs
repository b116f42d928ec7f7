//! Figures of the store, for `/metrics` and `baygate buffer status`.

use rusqlite::{OptionalExtension, params};
use serde::Serialize;

use super::epoch::meta;
use super::outbox::{class_index, seq_sql};
use super::{Reader, StoreError, trim};
use crate::event::Class;
use crate::ident::{Epoch, Seq};

/// What the database holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Size of the file, in bytes, free pages included.
    pub bytes: u64,
    /// Of these, free for use, in bytes.
    pub free_bytes: u64,
    /// Schema version.
    pub schema: i64,
    /// The running epoch; `None` in a file that was never opened by the daemon.
    pub epoch: Option<Epoch>,
    /// Epochs this file has seen.
    pub epochs: u64,
    /// Whether the last run ended orderly; false while a daemon runs.
    pub clean_shutdown: bool,
    /// By class, highest priority first.
    pub classes: Vec<ClassStats>,
    /// Events set aside because the broker will never take them.
    pub quarantined: u64,
    /// Requests that are not settled.
    pub open_requests: u64,
    /// Local readers of the log and the offset each has passed.
    pub cursors: Vec<(String, i64)>,
}

/// What one class holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClassStats {
    /// The class.
    pub class: Class,
    /// Events in the file.
    pub rows: u64,
    /// What they weigh, in bytes: data, subject and 160 a row.
    pub bytes: u64,
    /// Events not yet delivered.
    pub unsent_rows: u64,
    /// What they weigh, in bytes.
    pub unsent_bytes: u64,
    /// The last class sequence of the running epoch.
    pub last: Seq,
    /// Delivered up to and including this class sequence, in the epoch it belongs to.
    pub delivered: Seq,
    /// Stretches of unsent events that are gone and not yet behind the delivered position.
    pub gaps: u64,
}

/// SQLite's integers are signed; counts are not.
fn count(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

impl Reader<'_> {
    /// Figures of the store. Counts unsent events along their index: some tens
    /// of milliseconds for a million.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn stats(&self) -> Result<Stats, StoreError> {
        let number = |sql: &str| -> Result<u64, StoreError> {
            Ok(self.conn.query_row(sql, [], |row| row.get(0).map(count))?)
        };
        let page_bytes = number("PRAGMA page_size")?;
        let epoch: Option<Vec<u8>> = self
            .conn
            .query_row("SELECT id FROM epoch ORDER BY no DESC LIMIT 1", [], |row| row.get(0))
            .optional()?;
        Ok(Stats {
            bytes: number("PRAGMA page_count")? * page_bytes,
            free_bytes: number("PRAGMA freelist_count")? * page_bytes,
            schema: super::connection::found_version(self.conn)?,
            epoch: epoch.map(|id| super::requests::uuid_from(&id).map(Epoch)).transpose()?,
            epochs: number("SELECT count(*) FROM epoch")?,
            clean_shutdown: meta(self.conn, "clean_shutdown")?.as_deref() == Some("yes"),
            classes: Class::ALL.into_iter().map(|class| self.class_stats(class)).collect::<Result<_, _>>()?,
            quarantined: number("SELECT count(*) FROM quarantine")?,
            open_requests: number("SELECT count(*) FROM request WHERE state IN ('pending','running')")?,
            cursors: self.cursors()?.into_iter().map(|(name, at)| (name, at.0)).collect(),
        })
    }

    fn class_stats(&self, class: Class) -> Result<ClassStats, StoreError> {
        let at = self.delivered(class)?;
        let index = class_index(class);
        let (last, total, rows, bytes): (i64, i64, i64, i64) = self
            .conn
            .prepare_cached(
                "SELECT last_sequence, total_bytes, rows, bytes FROM class_counter WHERE class = ?1",
            )?
            .query_row([index], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
            .optional()?
            .unwrap_or_default();
        let beyond = params![index, at.epoch_no, seq_sql(at.class_sequence)];
        let unsent_rows = self
            .conn
            .prepare_cached(
                "SELECT count(*) FROM event WHERE class = ?1 AND (epoch_no, class_sequence) > (?2, ?3)",
            )?
            .query_row(beyond, |row| row.get(0).map(count))?;
        let gaps = self
            .conn
            .prepare_cached(
                "SELECT count(*) FROM gap WHERE class = ?1 AND (epoch_no, to_sequence) > (?2, ?3)",
            )?
            .query_row(beyond, |row| row.get(0).map(count))?;
        let from = trim::unsent_from(self.conn, class)?;
        Ok(ClassStats {
            class,
            rows: count(rows),
            bytes: count(bytes),
            unsent_rows,
            unsent_bytes: from.map_or(0, |from| u64::try_from(total - from).unwrap_or(0)),
            last: super::outbox::sql_seq(last),
            delivered: at.class_sequence,
            gaps,
        })
    }
}

impl Stats {
    /// Sets the gauges of `/metrics`.
    #[allow(clippy::cast_precision_loss)]
    pub(super) fn publish(&self) {
        metrics::gauge!("baygate_store_bytes").set(self.bytes as f64);
        metrics::gauge!("baygate_store_free_bytes").set(self.free_bytes as f64);
        metrics::gauge!("baygate_store_quarantined").set(self.quarantined as f64);
        metrics::gauge!("baygate_store_open_requests").set(self.open_requests as f64);
        for class in &self.classes {
            let name = class.class.as_str();
            metrics::gauge!("baygate_store_rows", "class" => name).set(class.rows as f64);
            metrics::gauge!("baygate_store_unsent_rows", "class" => name).set(class.unsent_rows as f64);
            metrics::gauge!("baygate_store_unsent_bytes", "class" => name).set(class.unsent_bytes as f64);
        }
    }
}
