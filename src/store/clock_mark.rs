//! Where this boot's wall clock stands, so that a restart within the boot can tell
//! whether the clock was set meanwhile and which events it covers; and what is put
//! right beside the log when the clock is set: since when devices, cards, cars and
//! shifts have been as they are.

use rusqlite::{Connection, params};
use uuid::Uuid;

use super::epoch::{meta, set_meta};
use super::{Reader, StoreError};
use crate::clock::UtcMillis;
use crate::ident::{Epoch, Seq};

const KEY: &str = "clock";

/// The clock as last seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockMark {
    /// The boot.
    pub boot: Uuid,
    /// What the wall clock would have said at boot.
    pub wall_at_boot: UtcMillis,
    /// The epoch of `first`.
    pub epoch: Epoch,
    /// The first event of this boot in that epoch.
    pub first: Seq,
}

/// Changes what is remembered of the clock.
#[derive(Debug, Clone)]
pub enum ClockOp {
    /// The clock stands so.
    Mark(ClockMark),
    /// The clock was set: times between `from` and `to`, read from the old one in
    /// this boot, move. The `gateway.clock` goes into the same batch.
    Move {
        /// By how much, in milliseconds.
        offset_ms: i64,
        /// The old clock's time at boot.
        from: UtcMillis,
        /// The old clock's time now.
        to: UtcMillis,
    },
}

impl ClockOp {
    pub(super) fn apply(&self, tx: &Connection) -> Result<(), StoreError> {
        match self {
            Self::Mark(mark) => {
                let ClockMark { boot, wall_at_boot, epoch, first } = mark;
                set_meta(tx, KEY, &format!("{boot} {} {} {}", wall_at_boot.0, epoch.0, first.0))
            }
            Self::Move { offset_ms, from, to } => {
                for (table, column, which) in [
                    ("device", "since", ""),
                    ("card_in_field", "since", ""),
                    ("visit", "started_at", "AND ended_at IS NULL"),
                    ("shift", "opened_at", "AND closed_at IS NULL"),
                ] {
                    tx.execute(
                        &format!(
                            "UPDATE {table} SET {column} = {column} + ?1
                             WHERE {column} BETWEEN ?2 AND ?3 {which}"
                        ),
                        params![offset_ms, from.0, to.0],
                    )?;
                }
                Ok(())
            }
        }
    }
}

fn parse(text: &str) -> Option<ClockMark> {
    let mut words = text.split(' ');
    Some(ClockMark {
        boot: words.next()?.parse().ok()?,
        wall_at_boot: UtcMillis(words.next()?.parse().ok()?),
        epoch: Epoch(words.next()?.parse().ok()?),
        first: Seq(words.next()?.parse().ok()?),
    })
}

impl Reader<'_> {
    /// The clock as last remembered, also by an earlier boot.
    ///
    /// # Errors
    /// [`StoreError::Sqlite`].
    pub fn clock_mark(&self) -> Result<Option<ClockMark>, StoreError> {
        Ok(meta(self.conn, KEY)?.as_deref().and_then(parse))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::connection;

    #[test]
    fn a_set_clock_moves_what_it_had_timed_and_nothing_else() {
        let mut conn = Connection::open_in_memory().unwrap();
        connection::migrate(&mut conn).unwrap();
        // The old clock says 1000 at boot and 5000 now.
        conn.execute_batch(
            "INSERT INTO visit (id, link, protocol, started_at, ended_at) VALUES
               (x'01', 'open', 'p', 2000, NULL), (x'02', 'ended', 'p', 2000, 3000),
               (x'03', 'an earlier boot, clock ahead', 'p', 9000, NULL),
               (x'04', 'an earlier boot, clock behind', 'p', 500, NULL);
             INSERT INTO device (kind, id, state, since) VALUES ('reader', 'a', 'ready', 1500), ('reader', 'b', 'ready', 400);",
        )
        .unwrap();
        let offset = ClockOp::Move { offset_ms: 100, from: UtcMillis(1000), to: UtcMillis(5000) };
        offset.apply(&conn).unwrap();
        let all = |sql: &str| -> Vec<i64> {
            conn.prepare(sql).unwrap().query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
        };
        assert_eq!(all("SELECT started_at FROM visit ORDER BY id"), [2100, 2000, 9000, 500]);
        assert_eq!(all("SELECT since FROM device ORDER BY id"), [1600, 400]);
    }

    #[test]
    fn the_mark_is_read_as_written() {
        let mut conn = Connection::open_in_memory().unwrap();
        connection::migrate(&mut conn).unwrap();
        assert_eq!(Reader { conn: &conn }.clock_mark().unwrap(), None);
        let mark = ClockMark {
            boot: Uuid::new_v4(),
            wall_at_boot: UtcMillis(-5),
            epoch: Epoch::begin(),
            first: Seq(7),
        };
        ClockOp::Mark(mark).apply(&conn).unwrap();
        assert_eq!(Reader { conn: &conn }.clock_mark().unwrap(), Some(mark));
    }
}
