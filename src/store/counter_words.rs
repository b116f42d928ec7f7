//! What headquarters sent for the counter about members, as this store has it. What lives here:
//! keeping it with the moment it was true. What does not: how it is read and told
//! (`card::counter_word`). A row that has rotted costs a greeting, no money: it is not sealed.

use rusqlite::{Connection, OptionalExtension};

use super::{Reader, StoreError};
use crate::clock::UtcMillis;
use crate::event::card::CounterWord;
use crate::ident::CardNo;

/// These members' words are as headquarters knew them at `as_of`. One that is here and newer stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CounterWordsOp {
    /// When they were true.
    pub as_of: UtcMillis,
    /// Whole, one a member; what stood there before is gone.
    pub words: Vec<(CardNo, CounterWord)>,
}

/// A member's word as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredWord {
    /// When it was true.
    pub as_of: UtcMillis,
    /// As headquarters sent it.
    pub word: CounterWord,
}

impl CounterWordsOp {
    pub(super) fn apply(&self, tx: &Connection) -> Result<(), StoreError> {
        let mut gone = tx.prepare_cached("DELETE FROM counter_word WHERE card_no = ?1 AND as_of <= ?2")?;
        // What was sent last has the highest rowid, and is swept last (`history`).
        let mut here = tx.prepare_cached(
            "INSERT OR IGNORE INTO counter_word (card_no, as_of, word) VALUES (?1, ?2, ?3)",
        )?;
        for (card_no, word) in &self.words {
            let text = serde_json::to_string(word).map_err(|error| StoreError::Corrupt(error.to_string()))?;
            gone.execute((card_no.as_str(), self.as_of.0))?;
            here.execute((card_no.as_str(), self.as_of.0, text))?;
        }
        Ok(())
    }
}

impl Reader<'_> {
    /// What headquarters sent for the counter about a member. A row that has rotted tells nothing
    /// until headquarters sends it again.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn counter_word(&self, card_no: &CardNo) -> Result<Option<StoredWord>, StoreError> {
        let mut query =
            self.conn.prepare_cached("SELECT as_of, word FROM counter_word WHERE card_no = ?1")?;
        let found = query.query_row([card_no.as_str()], |row| Ok((row.get(0)?, row.get::<_, String>(1)?)));
        let Some((as_of, text)) = found.optional()? else { return Ok(None) };
        match serde_json::from_str(&text) {
            Ok(word) => Ok(Some(StoredWord { as_of: UtcMillis(as_of), word })),
            Err(error) => {
                tracing::warn!(%error, "what headquarters sent for the counter cannot be read");
                Ok(None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{connection, history};

    #[test]
    fn the_newest_word_of_each_member_stays() {
        let mut conn = Connection::open_in_memory().unwrap();
        connection::migrate(&mut conn).unwrap();
        let level = |text: &str| CounterWord { level: Some(text.into()), ..CounterWord::default() };
        let of = |number: &str, text: &str| (number.parse::<CardNo>().unwrap(), level(text));
        let put = |as_of, words: Vec<_>| {
            CounterWordsOp { as_of: UtcMillis(as_of), words }.apply(&conn).unwrap();
        };
        put(10, vec![of("1", "silver"), of("2", "silver")]);
        put(20, vec![of("1", "gold")]);
        // Told late; and the same moment told again, otherwise.
        put(15, vec![of("1", "late"), of("2", "gold")]);
        let level_of = |number: &str| {
            Reader { conn: &conn }.counter_word(&number.parse().unwrap()).unwrap().unwrap().word.level
        };
        assert_eq!(level_of("1").as_deref(), Some("gold"), "an older word");
        put(20, vec![of("1", "gold again"), of("1", "twice in one")]);
        let reader = Reader { conn: &conn };
        for (number, expected) in [("1", Some((20, "twice in one"))), ("2", Some((15, "gold"))), ("3", None)]
        {
            let found = reader.counter_word(&number.parse().unwrap()).unwrap();
            let expected =
                expected.map(|(as_of, text)| StoredWord { as_of: UtcMillis(as_of), word: level(text) });
            assert_eq!(found, expected, "{number}");
        }
        conn.execute("UPDATE counter_word SET word = '{' WHERE card_no = '1'", []).unwrap();
        assert_eq!(
            reader.counter_word(&"1".parse().unwrap()).unwrap(),
            None,
            "rotten: no greeting, no alarm"
        );
    }

    #[test]
    fn what_was_sent_last_is_kept() {
        let mut conn = Connection::open_in_memory().unwrap();
        connection::migrate(&mut conn).unwrap();
        let put = |rowid: i64, card_no: i64| {
            let sql = "INSERT INTO counter_word (rowid, card_no, as_of, word) VALUES (?1, ?2, 0, '{}')";
            conn.execute(sql, (rowid, card_no.to_string())).unwrap();
        };
        let sweep = || {
            let (limits, now) = (history::HistoryLimits::default(), crate::clock::read());
            (0..)
                .take_while(|part| history::sweep_step(&conn, *part, &limits, now).unwrap().is_some())
                .count()
        };
        let kept = |number: i64| {
            let found = Reader { conn: &conn }.counter_word(&number.to_string().parse().unwrap());
            found.unwrap().is_some()
        };
        // One member of four is sent again every day for years: the others stay.
        for (rowid, card_no) in [(1, 1), (2, 2), (3, 3), (200_000, 4)] {
            put(rowid, card_no);
        }
        sweep();
        assert_eq!([1, 2, 3, 4].map(kept), [true; 4]);
        conn.execute_batch("BEGIN").unwrap();
        for n in 5..=50_002 {
            put(200_000 + n, n);
        }
        conn.execute_batch("COMMIT").unwrap();
        sweep();
        assert_eq!([1, 2, 3, 4, 50_002].map(kept), [false, false, true, true, true]);
    }
}
