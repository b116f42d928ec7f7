//! Members that the shop had before this gateway came: what their card is to carry once it is given
//! out here. What lives here: keeping them until then. What does not: their cards (`ledger_cards`),
//! which hold all that is known of a member from then on, and how a list is read (`card::counter`).

use jiff::civil::Date;
use rusqlite::{Connection, params};

use super::devices::{enum_text, text_enum};
use super::ledger_cards::{self, By};
use super::{Batch, Op, Reader, StoreError};
use crate::clock::UtcMillis;
use crate::event::ledger::{CardStanding, CardStatus, ListedMember};
use crate::ident::CardNo;

/// Members that are kept, at most.
pub const MOST_MEMBERS: u64 = 200_000;

/// Changes members. Made by [`listed`] only.
#[derive(Debug, Clone)]
pub struct MemberOp {
    card_no: CardNo,
    was: Option<ListedMember>,
    member: ListedMember,
}

/// A member is listed, or listed otherwise, with its event. Committing fails with
/// [`StoreError::NotFound`] when that has changed, or a card was given out, since it was read, and
/// with [`StoreError::LedgerRefused`] when there are too many.
///
/// # Errors
/// [`StoreError::Corrupt`] when the event cannot be written.
pub fn listed(
    card_no: &CardNo,
    was: Option<ListedMember>,
    member: ListedMember,
    reason: &str,
    by: By,
) -> Result<Batch, StoreError> {
    let event = CardStatus {
        card_no: card_no.clone(),
        uid: None,
        issuing_store: None,
        status: CardStanding::Active,
        held: None,
        counter_expected: None,
        counter_seen: None,
        balance_seen_fen: None,
        uid_seen: None,
        pin: None,
        listed: Some(member),
        reason: Some(reason.to_owned()),
        operator: Some(by.operator),
        till: Some(by.till),
    };
    let op = MemberOp { card_no: card_no.clone(), was, member };
    Ok(Batch::new().op(Op::Member(op)).event(ledger_cards::about(card_no, &event)?))
}

impl MemberOp {
    pub(super) fn apply(&self, tx: &Connection) -> Result<(), StoreError> {
        let (reader, card_no) = (Reader { conn: tx }, &self.card_no);
        if reader.member_card(card_no)?.is_some() || reader.listed_member(card_no)? != self.was {
            return Err(StoreError::NotFound { what: format!("member {card_no} as read") });
        }
        if self.was.is_none() && may_be_full(tx)? && reader.listed_members()? >= MOST_MEMBERS {
            return Err(StoreError::LedgerRefused {
                what: "too many members are listed without a card; give cards out first".into(),
            });
        }
        let ListedMember { card_type, tier, discount_class, valid_until } = &self.member;
        tx.prepare_cached(
            "REPLACE INTO listed_member (card_no, type, tier, discount_class, valid_until, at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            card_no.as_str(),
            enum_text(card_type)?,
            tier,
            discount_class,
            valid_until.map(|day| day.to_string()),
            UtcMillis::now().0,
        ])?;
        Ok(())
    }
}

/// Rows are numbered upwards, so that a small last number is a small table; counting its rows one
/// by one would hold the writer up at each of many thousand members.
fn may_be_full(tx: &Connection) -> Result<bool, StoreError> {
    let last: Option<i64> =
        tx.prepare_cached("SELECT max(rowid) FROM listed_member")?.query_row([], |row| row.get(0))?;
    Ok(last.is_some_and(|last| last.unsigned_abs() >= MOST_MEMBERS))
}

/// The member's card says it all from now on.
pub(super) fn forget(tx: &Connection, card_no: &CardNo) -> Result<(), StoreError> {
    tx.prepare_cached("DELETE FROM listed_member WHERE card_no = ?1")?.execute([card_no.as_str()])?;
    Ok(())
}

impl Reader<'_> {
    /// What a member's card is to carry, where none was given out yet.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn listed_member(&self, card_no: &CardNo) -> Result<Option<ListedMember>, StoreError> {
        let mut query = self.conn.prepare_cached(
            "SELECT type, tier, discount_class, valid_until FROM listed_member WHERE card_no = ?1",
        )?;
        let mut rows = query.query([card_no.as_str()])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let day = |text: String| text.parse::<Date>().map_err(|error| StoreError::Corrupt(error.to_string()));
        Ok(Some(ListedMember {
            card_type: text_enum(row.get(0)?)?,
            tier: row.get(1)?,
            discount_class: row.get(2)?,
            valid_until: row.get::<_, Option<String>>(3)?.map(day).transpose()?,
        }))
    }

    /// How many members are listed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn listed_members(&self) -> Result<u64, StoreError> {
        let count: i64 = self
            .conn
            .prepare_cached("SELECT count(*) FROM listed_member")?
            .query_row([], |row| row.get(0))?;
        Ok(count.unsigned_abs())
    }
}
