//! What the log on the disk says while its daemon is dead. A copy is opened, so
//! that the recovery is left to the daemon.

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::daemon::Desk;

#[derive(Debug, Default)]
pub struct Snapshot {
    /// By class index: delivered up to here.
    pub delivered: BTreeMap<i64, u64>,
    /// By class index and class sequence.
    pub events: BTreeMap<(i64, u64), Uuid>,
}

impl Snapshot {
    pub fn take(desk: &Desk) -> Self {
        let copy = tempfile::tempdir().unwrap();
        for file in ["baygate.db", "baygate.db-wal"] {
            let from = desk.path("data").join(file);
            if from.exists() {
                std::fs::copy(from, copy.path().join(file)).unwrap();
            }
        }
        let conn = rusqlite::Connection::open(copy.path().join("baygate.db")).unwrap();
        let mut snapshot = Self::default();
        let mut query = conn.prepare("SELECT class, class_sequence FROM delivered").unwrap();
        let mut rows = query.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            snapshot.delivered.insert(row.get(0).unwrap(), row.get::<_, i64>(1).unwrap().unsigned_abs());
        }
        let mut query = conn.prepare("SELECT class, class_sequence, id FROM event").unwrap();
        let mut rows = query.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let at = (row.get(0).unwrap(), row.get::<_, i64>(1).unwrap().unsigned_abs());
            snapshot.events.insert(at, Uuid::from_slice(&row.get::<_, Vec<u8>>(2).unwrap()).unwrap());
        }
        snapshot
    }

    /// The events that count as delivered.
    pub fn delivered_ids(&self) -> impl Iterator<Item = ((i64, u64), Uuid)> {
        self.events
            .iter()
            .filter(|((class, at), _)| self.delivered.get(class).is_some_and(|to| at <= to))
            .map(|(at, id)| (*at, *id))
    }

    pub fn delivered_count(&self) -> u64 {
        self.delivered.values().sum()
    }
}

/// How many rows a question finds in the database of a daemon that may run.
pub fn count(desk: &Desk, sql: &str) -> u64 {
    let conn = rusqlite::Connection::open(desk.path("data").join("baygate.db")).unwrap();
    conn.busy_timeout(crate::daemon::LONG).unwrap();
    conn.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap().unsigned_abs()
}
