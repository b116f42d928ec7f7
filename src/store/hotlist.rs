//! Headquarters' list of stopped cards, as this store has it: the cards, the list's version,
//! and when it was last true. What lives here: keeping it. What does not: how it comes
//! (`uplink::command`, `uplink::desired`), and what a listed card may not do (the card room).

use rusqlite::Connection;
use serde::Serialize;

use super::devices::ident;
use super::epoch::{meta, set_meta};
use super::{Reader, StoreError};
use crate::clock::UtcMillis;
use crate::ident::CardNo;

/// The named value: version, as of (UTC milliseconds), number of cards.
const KEY: &str = "hotlist";
/// The most cards the list may have; about 4 MB.
pub const MOST_CARDS: u64 = 100_000;

/// Which list it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct HotlistState {
    /// Rises with every change.
    pub version: u64,
    /// When headquarters made it, or last said that it is still the newest.
    pub as_of: UtcMillis,
    /// How many cards are on it.
    pub cards: u64,
}

/// Changes the list, whole or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HotlistOp {
    /// This is the list.
    Put {
        /// Not below the one that is here.
        version: u64,
        /// When it was true.
        as_of: UtcMillis,
        /// All cards on it.
        cards: Vec<CardNo>,
    },
    /// What changed since the list that is here.
    Change {
        /// The version that must be here.
        base: u64,
        /// Above `base`; the same where nothing changed.
        version: u64,
        /// When it was true.
        as_of: UtcMillis,
        /// Stopped since.
        add: Vec<CardNo>,
        /// No longer stopped.
        remove: Vec<CardNo>,
    },
}

impl HotlistOp {
    pub(super) fn apply(&self, tx: &Connection) -> Result<(), StoreError> {
        let here = Reader { conn: tx }.hotlist()?;
        let (version, as_of) = match self {
            Self::Put { version, as_of, cards } => {
                if let Some(here) = here.filter(|here| here.version > *version) {
                    return refused(format!("version {} is here already, {version} is older", here.version));
                }
                tx.execute("DELETE FROM hotlist", [])?;
                each(tx, "INSERT OR IGNORE INTO hotlist (card_no) VALUES (?1)", cards)?;
                (*version, *as_of)
            }
            Self::Change { base, version, as_of, add, remove } => {
                let found = here.map(|here| here.version);
                if found != Some(*base) {
                    let found = found.map_or_else(|| "none".to_owned(), |version| version.to_string());
                    return refused(format!(
                        "it changes version {base}, here is {found}; send the whole list"
                    ));
                }
                let changes = !(add.is_empty() && remove.is_empty());
                if version < base || version == base && changes {
                    return refused(format!("version {version} is not above {base}"));
                }
                each(tx, "DELETE FROM hotlist WHERE card_no = ?1", remove)?;
                each(tx, "INSERT OR IGNORE INTO hotlist (card_no) VALUES (?1)", add)?;
                (*version, *as_of)
            }
        };
        // Told late, an older word does not make the list older.
        let as_of = here.map_or(as_of, |here| here.as_of.max(as_of));
        let cards: i64 = tx.query_row("SELECT count(*) FROM hotlist", [], |row| row.get(0))?;
        if cards.unsigned_abs() > MOST_CARDS {
            return refused(format!("{cards} cards are more than the {MOST_CARDS} a gateway keeps"));
        }
        set_meta(tx, KEY, &format!("{version} {} {cards}", as_of.0))
    }
}

fn each(tx: &Connection, sql: &str, cards: &[CardNo]) -> Result<(), StoreError> {
    let mut statement = tx.prepare_cached(sql)?;
    for card in cards {
        statement.execute([card.as_str()])?;
    }
    Ok(())
}

fn refused<T>(what: String) -> Result<T, StoreError> {
    Err(StoreError::HotlistRefused { what })
}

fn parse(text: &str) -> Option<HotlistState> {
    let mut words = text.split(' ');
    Some(HotlistState {
        version: words.next()?.parse().ok()?,
        as_of: UtcMillis(words.next()?.parse().ok()?),
        cards: words.next()?.parse().ok()?,
    })
}

/// Rows may be missing: what is here stays stopped, but it is no list any more until
/// headquarters sends one.
pub(super) fn doubt(tx: &Connection) -> Result<(), StoreError> {
    tx.execute("DELETE FROM meta WHERE key = ?1", [KEY])?;
    Ok(())
}

impl Reader<'_> {
    /// Which list is here; `None`: headquarters never sent one, or a damaged file lost it.
    ///
    /// # Errors
    /// [`StoreError::Sqlite`].
    pub fn hotlist(&self) -> Result<Option<HotlistState>, StoreError> {
        Ok(meta(self.conn, KEY)?.as_deref().and_then(parse))
    }

    /// All cards on the list.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn hotlist_cards(&self) -> Result<Vec<CardNo>, StoreError> {
        let mut query = self.conn.prepare_cached("SELECT card_no FROM hotlist")?;
        let mut rows = query.query([])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push(ident(&row.get::<_, String>(0)?)?);
        }
        Ok(found)
    }

    /// Whether headquarters stopped a card.
    ///
    /// # Errors
    /// [`StoreError::Sqlite`].
    pub fn is_hotlisted(&self, card_no: &CardNo) -> Result<bool, StoreError> {
        let mut query = self.conn.prepare_cached("SELECT 1 FROM hotlist WHERE card_no = ?1")?;
        Ok(query.exists([card_no.as_str()])?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::connection;

    fn cards(numbers: &[&str]) -> Vec<CardNo> {
        numbers.iter().map(|number| number.parse().unwrap()).collect()
    }

    #[test]
    fn only_what_follows_is_taken() {
        let mut conn = Connection::open_in_memory().unwrap();
        connection::migrate(&mut conn).unwrap();
        let put = |version, as_of, numbers: &[&str]| HotlistOp::Put {
            version,
            as_of: UtcMillis(as_of),
            cards: cards(numbers),
        };
        let change = |base, version, as_of, add: &[&str], remove: &[&str]| HotlistOp::Change {
            base,
            version,
            as_of: UtcMillis(as_of),
            add: cards(add),
            remove: cards(remove),
        };
        // (what, operation, taken, version, as of, on the list)
        type Told = (&'static str, HotlistOp, bool, u64, i64, &'static [&'static str]);
        let story: [Told; 9] = [
            ("a change of nothing", change(0, 1, 10, &["1"], &[]), false, 0, 0, &[]),
            ("the first", put(3, 10, &["1", "2", "2"]), true, 3, 10, &["1", "2"]),
            ("an older one", put(2, 20, &["9"]), false, 3, 10, &["1", "2"]),
            ("the next", change(3, 4, 20, &["3", "1"], &["2", "7"]), true, 4, 20, &["1", "3"]),
            ("one that skips", change(3, 6, 30, &["5"], &[]), false, 4, 20, &["1", "3"]),
            ("another with one number", change(4, 4, 30, &["5"], &[]), false, 4, 20, &["1", "3"]),
            ("still the newest", change(4, 4, 40, &[], &[]), true, 4, 40, &["1", "3"]),
            ("the same whole, told late", put(4, 30, &["1", "3"]), true, 4, 40, &["1", "3"]),
            ("empty", put(9, 50, &[]), true, 9, 50, &[]),
        ];
        for (what, op, taken, version, as_of, listed) in story {
            let tx = conn.transaction().unwrap();
            assert_eq!(op.apply(&tx).is_ok(), taken, "{what}");
            if taken {
                tx.commit().unwrap()
            } else {
                tx.rollback().unwrap()
            }
            let reader = Reader { conn: &conn };
            let state = reader.hotlist().unwrap();
            let expected =
                HotlistState { version, as_of: UtcMillis(as_of), cards: listed.len().try_into().unwrap() };
            assert_eq!(state, (version > 0).then_some(expected), "{what}");
            for number in ["1", "2", "3", "5", "7", "9"] {
                let found = reader.is_hotlisted(&number.parse().unwrap()).unwrap();
                assert_eq!(found, listed.contains(&number), "{what}: {number}");
            }
        }
        doubt(&conn).unwrap();
        assert_eq!(Reader { conn: &conn }.hotlist().unwrap(), None);
    }
}
