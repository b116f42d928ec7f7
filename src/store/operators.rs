//! Operators: who may stand at a till, how often their PIN was typed wrong, and the
//! record of it all. What does not live here: what a role may do, how a PIN is hashed
//! and how long a wrong one costs (`api`).

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;

use super::{Reader, StoreError};
use crate::clock::UtcMillis;
use crate::ident::{CardUid, OperatorId};

/// Ids that nobody has, whose wrong PINs are counted all the same: the latest so many.
const MOST_STRANGERS: i64 = 500;

/// What stands in the record for whatever was typed and is no id. It is nobody's and everybody's:
/// wrong PINs are not counted against it.
pub const NO_ID: &str = "?";

/// An operator, without the PIN's hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OperatorRow {
    /// What is typed to log in; what the ledger names.
    pub id: OperatorId,
    /// For people.
    pub name: String,
    /// `cashier`, `manager`, `technician` or `admin`.
    pub role: String,
    /// The card that names this operator.
    pub card: Option<CardUid>,
    /// May not log in.
    pub locked: bool,
    /// Wrong PINs since the last right one.
    pub wrong_pins: u32,
    /// When the account was made.
    pub created_at: UtcMillis,
}

/// The hash of a PIN as stored. `Debug` prints nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct PinHash(pub String);

impl std::fmt::Debug for PinHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PinHash(…)")
    }
}

/// One line of the record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OperatorLogRow {
    /// When.
    pub at: UtcMillis,
    /// `login`, `logout`, `wrong-pin`, `refused`, `added`, `changed`, `pin`, `locked`, `unlocked`.
    pub what: String,
    /// The id as typed.
    pub operator: String,
    /// A till, `control`, or the id of a script's token.
    pub place: String,
}

/// Changes operators; each leaves a line in the record.
#[derive(Debug, Clone)]
pub struct OperatorOp {
    /// The id as typed.
    pub operator: String,
    /// A till, `control`, or the id of a script's token.
    pub place: String,
    /// What happened.
    pub deed: Deed,
}

/// What happened to, or was done by, an operator.
#[derive(Debug, Clone)]
pub enum Deed {
    /// A new account. Fails with [`StoreError::Exists`] when the id or the card is taken.
    Add {
        /// For people.
        name: String,
        /// The role's name.
        role: &'static str,
        /// Of the first PIN.
        pin: PinHash,
        /// The card that names it.
        card: Option<CardUid>,
    },
    /// Another name, role or card; `None` leaves as it is, `Some(None)` takes the card away.
    Change {
        /// For people.
        name: Option<String>,
        /// The role's name.
        role: Option<&'static str>,
        /// The card that names it.
        card: Option<Option<CardUid>>,
    },
    /// Another PIN; the wrong ones are forgotten.
    Pin(PinHash),
    /// May not log in any more.
    Lock,
    /// May log in again; the wrong PINs are forgotten.
    Unlock,
    /// Logged in; the wrong PINs are forgotten.
    Login,
    /// Logged out.
    Logout,
    /// The PIN was wrong, or nobody has that id.
    WrongPin,
    /// The PIN was right; the account is locked, or its role may do nothing at this till.
    Refused,
}

impl Deed {
    fn word(&self) -> &'static str {
        match self {
            Self::Add { .. } => "added",
            Self::Change { .. } => "changed",
            Self::Pin(_) => "pin",
            Self::Lock => "locked",
            Self::Unlock => "unlocked",
            Self::Login => "login",
            Self::Logout => "logout",
            Self::WrongPin => "wrong-pin",
            Self::Refused => "refused",
        }
    }
}

impl OperatorOp {
    pub(super) fn apply(&self, tx: &Connection) -> Result<(), StoreError> {
        let now = UtcMillis::now().0;
        let id = self.operator.as_str();
        let set = |sql: &str, values: &[&dyn rusqlite::ToSql]| match tx.prepare_cached(sql)?.execute(values) {
            Ok(0) => Err(StoreError::NotFound { what: format!("operator {id}") }),
            Ok(_) => Ok(()),
            Err(error) => Err(taken(error, id)),
        };
        match &self.deed {
            Deed::Add { name, role, pin, card } => set(
                "INSERT INTO operator (id, name, role, pin_hash, card_uid, created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                &[&id, name, role, &pin.0, &card.as_ref().map(CardUid::as_str), &now],
            )
            // Whoever guessed at the id before it was given does not lock its owner out.
            .and_then(|()| forget_wrong(tx, id))?,
            Deed::Change { name, role, card } => set(
                "UPDATE operator SET name = coalesce(?2, name), role = coalesce(?3, role),
                                     card_uid = CASE WHEN ?4 THEN ?5 ELSE card_uid END WHERE id = ?1",
                &[&id, name, role, &card.is_some(), &card.as_ref().and_then(Option::as_ref).map(CardUid::as_str)],
            )?,
            Deed::Pin(pin) => {
                set("UPDATE operator SET pin_hash = ?2 WHERE id = ?1", &[&id, &pin.0])?;
                forget_wrong(tx, id)?;
            }
            Deed::Lock => set("UPDATE operator SET locked = 1 WHERE id = ?1", &[&id])?,
            Deed::Unlock => {
                set("UPDATE operator SET locked = 0 WHERE id = ?1", &[&id])?;
                forget_wrong(tx, id)?;
            }
            Deed::Login => forget_wrong(tx, id)?,
            Deed::WrongPin if id != NO_ID => count_wrong(tx, id)?,
            Deed::WrongPin | Deed::Logout | Deed::Refused => {}
        }
        tx.prepare_cached("INSERT INTO operator_log (at, what, operator, place) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![now, self.deed.word(), id, self.place])?;
        Ok(())
    }
}

fn taken(error: rusqlite::Error, id: &str) -> StoreError {
    if error.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation) {
        return StoreError::Exists { what: format!("an operator with the id {id}, or with this card,") };
    }
    error.into()
}

fn forget_wrong(tx: &Connection, id: &str) -> Result<(), StoreError> {
    tx.prepare_cached("DELETE FROM wrong_pin WHERE operator = ?1")?.execute([id])?;
    Ok(())
}

/// Counts one more. The row becomes the newest, so that of ids that nobody has the oldest go.
fn count_wrong(tx: &Connection, id: &str) -> Result<(), StoreError> {
    tx.prepare_cached(
        "REPLACE INTO wrong_pin (operator, count)
         VALUES (?1, 1 + coalesce((SELECT count FROM wrong_pin WHERE operator = ?1), 0))",
    )?
    .execute([id])?;
    tx.prepare_cached(
        "DELETE FROM wrong_pin WHERE rowid IN
         (SELECT rowid FROM wrong_pin WHERE operator NOT IN (SELECT id FROM operator)
          ORDER BY rowid DESC LIMIT -1 OFFSET ?1)",
    )?
    .execute([MOST_STRANGERS])?;
    Ok(())
}

const COLUMNS: &str =
    "o.id, o.name, o.role, o.card_uid, o.locked, coalesce(w.count, 0), o.created_at, o.pin_hash
     FROM operator o LEFT JOIN wrong_pin w ON w.operator = o.id";

fn operator_of(row: &Row<'_>) -> Result<OperatorRow, StoreError> {
    let corrupt = |error: crate::ident::IdentError| StoreError::Corrupt(error.to_string());
    Ok(OperatorRow {
        id: OperatorId::new(row.get::<_, String>(0)?).map_err(corrupt)?,
        name: row.get(1)?,
        role: row.get(2)?,
        card: row.get::<_, Option<String>>(3)?.map(CardUid::new).transpose().map_err(corrupt)?,
        locked: row.get(4)?,
        wrong_pins: row.get(5)?,
        created_at: UtcMillis(row.get(6)?),
    })
}

impl Reader<'_> {
    /// All operators by id, locked ones included.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn operators(&self) -> Result<Vec<OperatorRow>, StoreError> {
        let mut query = self.conn.prepare_cached(&format!("SELECT {COLUMNS} ORDER BY o.id"))?;
        let mut rows = query.query([])?;
        let mut operators = Vec::new();
        while let Some(row) = rows.next()? {
            operators.push(operator_of(row)?);
        }
        Ok(operators)
    }

    /// One operator and the hash of the PIN.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn operator(&self, id: &str) -> Result<Option<(OperatorRow, PinHash)>, StoreError> {
        let mut query = self.conn.prepare_cached(&format!("SELECT {COLUMNS} WHERE o.id = ?1"))?;
        let mut rows = query.query([id])?;
        rows.next()?.map(|row| Ok((operator_of(row)?, PinHash(row.get(7)?)))).transpose()
    }

    /// Whom a card names.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn operator_of_card(&self, uid: &CardUid) -> Result<Option<String>, StoreError> {
        let mut query = self.conn.prepare_cached("SELECT id FROM operator WHERE card_uid = ?1")?;
        Ok(query.query_row([uid.as_str()], |row| row.get(0)).optional()?)
    }

    /// Wrong PINs since the last right one for an id, whether anybody has it or not.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn wrong_pins(&self, id: &str) -> Result<u32, StoreError> {
        let mut query = self.conn.prepare_cached("SELECT count FROM wrong_pin WHERE operator = ?1")?;
        Ok(query.query_row([id], |row| row.get(0)).optional()?.unwrap_or(0))
    }

    /// The record, latest first, at most `limit` lines.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn operator_log(&self, limit: u32) -> Result<Vec<OperatorLogRow>, StoreError> {
        let mut query = self
            .conn
            .prepare_cached("SELECT at, what, operator, place FROM operator_log ORDER BY no DESC LIMIT ?1")?;
        let line = |row: &Row<'_>| {
            Ok(OperatorLogRow {
                at: UtcMillis(row.get(0)?),
                what: row.get(1)?,
                operator: row.get(2)?,
                place: row.get(3)?,
            })
        };
        Ok(query.query_map([limit], line)?.collect::<Result<_, _>>()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::connection;

    fn opened() -> Connection {
        let mut conn = Connection::open_in_memory().unwrap();
        connection::migrate(&mut conn).unwrap();
        conn
    }

    fn act(conn: &Connection, operator: &str, deed: Deed) -> Result<(), StoreError> {
        OperatorOp { operator: operator.into(), place: "till-1".into(), deed }.apply(conn)
    }

    fn add(conn: &Connection, id: &str, card: Option<&str>) -> Result<(), StoreError> {
        let card = card.map(|uid| uid.parse().unwrap());
        act(conn, id, Deed::Add { name: "李伟".into(), role: "cashier", pin: PinHash("h".into()), card })
    }

    #[test]
    fn ids_and_cards_belong_to_one() {
        let conn = opened();
        add(&conn, "li", Some("04AA")).unwrap();
        for (id, card) in [("li", None), ("wang", Some("04AA"))] {
            assert!(matches!(add(&conn, id, card), Err(StoreError::Exists { .. })), "{id}");
        }
        add(&conn, "wang", None).unwrap();
        let reader = Reader { conn: &conn };
        let who = |uid: &str| reader.operator_of_card(&uid.parse().unwrap()).unwrap();
        assert_eq!(who("04AA").as_deref(), Some("li"));
        act(&conn, "li", Deed::Change { name: None, role: Some("manager"), card: Some(None) }).unwrap();
        assert_eq!(who("04AA"), None);
        let (li, _) = reader.operator("li").unwrap().unwrap();
        assert_eq!((li.name.as_str(), li.role.as_str()), ("李伟", "manager"));
        assert!(matches!(act(&conn, "zhao", Deed::Lock), Err(StoreError::NotFound { .. })));
        assert_eq!(reader.operators().unwrap().len(), 2);
    }

    #[test]
    fn wrong_pins_count_until_a_right_one_and_strangers_are_bounded() {
        let conn = opened();
        let reader = Reader { conn: &conn };
        add(&conn, "li", None).unwrap();
        for deed in [Deed::Login, Deed::Unlock, Deed::Pin(PinHash("h".into()))] {
            for count in 1..=3 {
                act(&conn, "li", Deed::WrongPin).unwrap();
                assert_eq!(reader.wrong_pins("li").unwrap(), count);
            }
            act(&conn, "li", deed).unwrap();
            assert_eq!(reader.wrong_pins("li").unwrap(), 0);
        }
        act(&conn, "li", Deed::WrongPin).unwrap();
        for stranger in 0..MOST_STRANGERS + 20 {
            act(&conn, &format!("nobody-{stranger}"), Deed::WrongPin).unwrap();
        }
        let rows: i64 = conn.query_row("SELECT count(*) FROM wrong_pin", [], |row| row.get(0)).unwrap();
        assert_eq!(rows, MOST_STRANGERS + 1);
        assert_eq!(reader.wrong_pins("li").unwrap(), 1, "those who are known stay");
        assert_eq!(reader.wrong_pins("nobody-0").unwrap(), 0);
    }
}
