//! Seals: eight bytes of SHA-256 in each row that must not be believed when it has
//! rotted on the disk. An event's seal is made in two steps, so that the one writer
//! only hashes what it adds itself: what the event says ([`Content`], on the caller's
//! thread), and where the log put it.

use rusqlite::types::{ToSql, Value, ValueRef};
use rusqlite::{Connection, Row};
use sha2::{Digest, Sha256};

use super::StoreError;

/// Digest of what an event says, before it has its place in the log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Content([u8; 32]);

impl Content {
    /// SHA-256 over the columns, each with its length.
    pub(super) fn of(id: &[u8], kind: &str, subject: &str, data: &str) -> Self {
        let mut hash = Sha256::new();
        for part in [id, kind.as_bytes(), subject.as_bytes(), data.as_bytes()] {
            add(&mut hash, part);
        }
        Self(hash.finalize().into())
    }

    /// The seal at a place: offset, epoch, class, class sequence, time and its quality; the boot.
    pub(super) fn seal(&self, numbers: [i64; 6], boot: &[u8]) -> i64 {
        let mut hash = Sha256::new();
        for number in numbers {
            hash.update(number.to_be_bytes());
        }
        add(&mut hash, boot);
        hash.update(self.0);
        first_eight(&hash.finalize())
    }
}

/// An event's columns as they stand in its row.
pub(super) struct Sealed<'a> {
    pub(super) numbers: [i64; 6],
    pub(super) id: &'a [u8],
    pub(super) kind: &'a str,
    pub(super) subject: &'a str,
    pub(super) boot: &'a [u8],
    pub(super) data: &'a str,
}

impl Sealed<'_> {
    pub(super) fn seal(&self) -> i64 {
        Content::of(self.id, self.kind, self.subject, self.data).seal(self.numbers, self.boot)
    }
}

/// The seal of bytes that are no event.
pub(super) fn seal_of(bytes: &[u8]) -> i64 {
    first_eight(&Sha256::digest(bytes))
}

/// The tables beside the log whose rows are sealed: they say what people's cards hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LedgerTable {
    Card,
    Transaction,
}

impl LedgerTable {
    pub(super) const ALL: [Self; 2] = [Self::Card, Self::Transaction];

    pub(super) fn of(table: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|sealed| sealed.name() == table)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Card => "member_card",
            Self::Transaction => "card_transaction",
        }
    }

    /// Columns before the seal. Columns of later versions come behind it.
    pub(super) fn sealed_columns(self) -> usize {
        match self {
            Self::Card => 15,
            Self::Transaction => 14,
        }
    }

    /// In SQL, whether the row `excluded` is a later state of the row that is there.
    pub(super) fn is_later(self) -> &'static str {
        match self {
            Self::Card => {
                // With one counter, the one that stops the card: the clock may have been set between them.
                "excluded.card_no = member_card.card_no AND
                 (excluded.counter, excluded.status <> 'active' OR excluded.held IS NOT NULL) >
                 (member_card.counter, member_card.status <> 'active' OR member_card.held IS NOT NULL)"
            }
            Self::Transaction => {
                "excluded.id = card_transaction.id AND
                 CASE excluded.state WHEN 'intent' THEN 0 WHEN 'unknown' THEN 1 WHEN 'parked' THEN 2 ELSE 3 END >
                 CASE card_transaction.state WHEN 'intent' THEN 0 WHEN 'unknown' THEN 1 WHEN 'parked' THEN 2
                                             ELSE 3 END"
            }
        }
    }

    /// Whether a row, its columns in the table's order, is as it was written.
    pub(super) fn holds(self, values: &[Value]) -> bool {
        let columns = self.sealed_columns();
        let Some((sealed, Some(Value::Integer(seal)))) =
            values.split_at_checked(columns).map(|(sealed, rest)| (sealed, rest.first()))
        else {
            return false;
        };
        seal_of_columns(sealed.iter().map(ValueRef::from)) == *seal
    }
}

/// Seals the row whose `key` is `value`, after a change.
pub(super) fn put(
    tx: &Connection,
    table: LedgerTable,
    key: &'static str,
    value: &dyn ToSql,
) -> Result<(), StoreError> {
    let name = table.name();
    let seal = tx
        .prepare_cached(&format!("SELECT * FROM {name} WHERE {key} = ?1"))?
        .query_row([value], |row| of_row(row, table, 0))?;
    let value_and_seal: [&dyn ToSql; 2] = [value, &seal];
    tx.prepare_cached(&format!("UPDATE {name} SET seal = ?2 WHERE {key} = ?1"))?.execute(value_and_seal)?;
    Ok(())
}

/// Whether a row of all columns, the first of them at `first`, is as it was written. Rows of
/// other tables have no seal.
///
/// # Errors
/// [`StoreError::Damaged`] where it is not.
pub(super) fn check(row: &Row<'_>, table: Option<LedgerTable>, first: usize) -> Result<(), StoreError> {
    let Some(table) = table else { return Ok(()) };
    if row.get::<_, Option<i64>>("seal")? == Some(of_row(row, table, first)?) {
        return Ok(());
    }
    let no: i64 = row.get("no")?;
    Err(StoreError::Damaged { what: format!("row {no} of {} is not as it was written", table.name()) })
}

fn of_row(row: &Row<'_>, table: LedgerTable, first: usize) -> rusqlite::Result<i64> {
    let columns: Vec<ValueRef<'_>> = (first..first + table.sealed_columns())
        .map(|column| row.get_ref(column))
        .collect::<Result<_, _>>()?;
    Ok(seal_of_columns(columns))
}

/// Over each column with its type and length.
fn seal_of_columns<'v>(columns: impl IntoIterator<Item = ValueRef<'v>>) -> i64 {
    let mut hash = Sha256::new();
    for column in columns {
        match column {
            ValueRef::Null => add(&mut hash, b"n"),
            ValueRef::Integer(number) => add(&mut hash, format!("i{number}").as_bytes()),
            ValueRef::Real(number) => add(&mut hash, format!("r{number:?}").as_bytes()),
            ValueRef::Text(text) => {
                hash.update(b"t");
                add(&mut hash, text);
            }
            ValueRef::Blob(bytes) => {
                hash.update(b"b");
                add(&mut hash, bytes);
            }
        }
    }
    first_eight(&hash.finalize())
}

fn add(hash: &mut Sha256, part: &[u8]) {
    hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
    hash.update(part);
}

fn first_eight(digest: &[u8]) -> i64 {
    digest.iter().take(8).fold(0, |seal, byte| (seal << 8) | i64::from(*byte))
}
