//! Member cards as this store knows them: who they are, how they stand, what they held when
//! they were last seen, and whether writes to one are held. The card itself is the truth
//! about what it holds; the row is what its counter is compared with.

use rusqlite::{Connection, Row, params};
use serde::Serialize;

use super::devices::{enum_text, ident, text_enum};
use super::ledger::{from_json, json};
use super::seal::{self, LedgerTable};
use super::{Batch, Op, Reader, StoreError, card_reports, members};
use crate::clock::UtcMillis;
use crate::event::card::Technology;
use crate::event::ledger::{CardIssued, CardStanding, CardStatus, CardTransaction, CardType, PinChange};
use crate::event::{EventData, NewEvent};
use crate::ident::{CardNo, CardUid, DeviceId, StoreId};
use crate::money::Holding;

/// What a card shows at a tap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SeenCard {
    /// Its number.
    pub card_no: CardNo,
    /// Its chip.
    pub uid: CardUid,
    /// Technology as probed.
    pub technology: Technology,
    /// Named or anonymous.
    pub card_type: CardType,
    /// Who gave it out.
    pub issuing_store: StoreId,
    /// Good until.
    pub valid_until: Option<UtcMillis>,
    /// What it holds.
    pub holding: Holding,
}

/// A card as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CardRow {
    /// As last seen or written here.
    pub seen: SeenCard,
    /// How it stands.
    pub status: CardStanding,
    /// Why nothing may be written to it.
    pub held: Option<String>,
    /// When it was last seen.
    pub seen_at: UtcMillis,
}

/// Where and by whom something was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct By {
    /// Who.
    pub operator: String,
    /// Where.
    pub till: DeviceId,
}

/// Why a card is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alarm {
    /// Stable code: `counter-behind`, `counter-forked`, `uid-differs`, `torn-record`,
    /// `used-after-its-end`, `imitation`.
    pub code: &'static str,
    /// The counter that the card showed.
    pub counter_seen: u32,
    /// The chip that showed the number.
    pub uid_seen: CardUid,
}

/// Changes cards. Made by the functions of this file only.
#[derive(Debug, Clone)]
pub struct CardOp(Change);

#[derive(Debug, Clone)]
enum Change {
    Seen(Box<SeenCard>),
    Issued { card: Box<SeenCard>, day: String, by: By },
    Stands { card_no: CardNo, was: CardStanding, status: CardStanding },
    Hold { card_no: CardNo, held: &'static str },
    Release(Box<SeenCard>),
    LetGo { card_no: CardNo, was: CardStanding },
}

/// A card was tapped and its counter is not behind. Goes into the batch of `card.tapped`.
#[must_use]
pub fn seen(card: SeenCard) -> Op {
    Op::Card(CardOp(Change::Seen(Box::new(card))))
}

/// A card was given out here.
///
/// # Errors
/// [`StoreError::Corrupt`] when the event cannot be written. Committing fails with
/// [`StoreError::LedgerRefused`] when the number is in use.
pub fn issued(card: SeenCard, tier: Option<String>, day: String, by: By) -> Result<Batch, StoreError> {
    let event = CardIssued {
        card_no: card.card_no.clone(),
        uid: card.uid.clone(),
        technology: card.technology,
        card_type: card.card_type,
        issuing_store: card.issuing_store.clone(),
        tier,
        valid_until: card.valid_until,
        operator: by.operator.clone(),
        till: by.till.clone(),
    };
    let event = about(&card.card_no, &event)?;
    Ok(Batch::new().op(Op::Card(CardOp(Change::Issued { card: Box::new(card), day, by }))).event(event))
}

pub(super) fn about<D: EventData>(card_no: &CardNo, data: &D) -> Result<NewEvent, StoreError> {
    NewEvent::now(format!("card/{card_no}"), data).map_err(|error| StoreError::Corrupt(error.to_string()))
}

impl CardRow {
    /// Another standing, with its event. Committing fails with [`StoreError::NotFound`] when
    /// the card's standing has changed since the row was read.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when the event cannot be written.
    pub fn stands(&self, status: CardStanding, reason: Option<String>, by: By) -> Result<Batch, StoreError> {
        let card_no = self.seen.card_no.clone();
        let event = CardStatus { status, held: self.held.clone(), reason, ..self.event(Some(by)) };
        let event = about(&card_no, &event)?;
        Ok(Batch::new()
            .op(Op::Card(CardOp(Change::Stands { card_no, was: self.status, status })))
            .event(event))
    }

    /// Its PIN is another one, or locked: the event alone, the change is
    /// [`CardPinOp`](super::card_pins::CardPinOp).
    ///
    /// # Errors
    /// As [`CardRow::stands`].
    pub fn pin_changed(
        &self,
        pin: PinChange,
        reason: Option<String>,
        by: By,
    ) -> Result<NewEvent, StoreError> {
        let event = CardStatus { pin: Some(pin), held: self.held.clone(), reason, ..self.event(Some(by)) };
        about(&self.seen.card_no, &event)
    }

    /// Nothing is written to the card from now on. What holds it already stays the reason.
    ///
    /// # Errors
    /// As [`CardRow::stands`].
    pub fn hold(&self, alarm: &Alarm) -> Result<Batch, StoreError> {
        let card_no = self.seen.card_no.clone();
        let event = CardStatus {
            held: Some(alarm.code.into()),
            counter_expected: Some(self.seen.holding.counter),
            counter_seen: Some(alarm.counter_seen),
            uid_seen: (alarm.uid_seen != self.seen.uid).then(|| alarm.uid_seen.clone()),
            ..self.event(None)
        };
        let event = about(&card_no, &event)?;
        Ok(Batch::new().op(Op::Card(CardOp(Change::Hold { card_no, held: alarm.code }))).event(event))
    }

    /// A person has looked: what the card shows is taken for true from now on, and it may be
    /// written again. One that was replaced or given back keeps what it held at its end. An open
    /// transaction of it has to be ended before, in the same batch: committing fails with
    /// [`StoreError::LedgerRefused`] otherwise. `becomes`: the standing that end gave it.
    ///
    /// # Errors
    /// [`StoreError::LedgerRefused`] when another card is shown; as [`CardRow::stands`].
    pub fn release(
        &self,
        shows: SeenCard,
        becomes: Option<CardStanding>,
        reason: Option<String>,
        by: By,
    ) -> Result<Batch, StoreError> {
        if shows.card_no != self.seen.card_no {
            return Err(StoreError::LedgerRefused {
                what: "this is another card than the one that is held".into(),
            });
        }
        let event = CardStatus {
            status: becomes.unwrap_or(self.status),
            counter_expected: Some(self.seen.holding.counter),
            counter_seen: Some(shows.holding.counter),
            balance_seen_fen: shows.holding.balance(),
            uid_seen: (shows.uid != self.seen.uid).then(|| shows.uid.clone()),
            reason,
            ..self.event(Some(by))
        };
        let event = about(&self.seen.card_no, &event)?;
        let is_over = matches!(self.status, CardStanding::Replaced | CardStanding::Returned);
        let becomes = if is_over { self.seen.clone() } else { shows };
        Ok(Batch::new().op(Op::Card(CardOp(Change::Release(Box::new(becomes))))).event(event))
    }

    /// What holds it is over without a look at the card, which is lost or broken: what is known of it
    /// stays as it is, so that every later tap is compared with that again.
    #[must_use]
    pub fn let_go(&self) -> Op {
        Op::Card(CardOp(Change::LetGo { card_no: self.seen.card_no.clone(), was: self.status }))
    }

    /// The event of [`CardRow::let_go`], where it goes with no other.
    ///
    /// # Errors
    /// As [`CardRow::stands`].
    pub fn was_let_go(&self, reason: String, by: By) -> Result<NewEvent, StoreError> {
        let counter_expected = Some(self.seen.holding.counter);
        let event = CardStatus { counter_expected, reason: Some(reason), ..self.event(Some(by)) };
        about(&self.seen.card_no, &event)
    }

    fn event(&self, by: Option<By>) -> CardStatus {
        let (operator, till) = by.map(|by| (by.operator, by.till)).unzip();
        CardStatus {
            card_no: self.seen.card_no.clone(),
            uid: Some(self.seen.uid.clone()),
            issuing_store: Some(self.seen.issuing_store.clone()),
            status: self.status,
            held: None,
            counter_expected: None,
            counter_seen: None,
            balance_seen_fen: None,
            uid_seen: None,
            pin: None,
            listed: None,
            reason: None,
            operator,
            till,
        }
    }
}

impl CardOp {
    pub(super) fn apply(&self, tx: &Connection) -> Result<(), StoreError> {
        let (card_no, changed) = match &self.0 {
            Change::Seen(card) => {
                let changed = match (Reader { conn: tx }).member_card(&card.card_no)? {
                    None => insert(tx, card, None)?,
                    Some(known) => update(tx, &known, card)?,
                };
                (&card.card_no, changed)
            }
            Change::Issued { card, day, by } => {
                if (Reader { conn: tx }).member_card(&card.card_no)?.is_some() {
                    return Err(StoreError::LedgerRefused {
                        what: "this card number has been given out before; take the next one".into(),
                    });
                }
                (&card.card_no, insert(tx, card, Some((day, by)))?)
            }
            Change::Stands { card_no, was, status } => (
                card_no,
                tx.prepare_cached("UPDATE member_card SET status = ?2 WHERE card_no = ?1 AND status = ?3")?
                    .execute(params![card_no.as_str(), enum_text(status)?, enum_text(was)?])?,
            ),
            Change::Hold { card_no, held } => (
                card_no,
                tx.prepare_cached("UPDATE member_card SET held = coalesce(held, ?2) WHERE card_no = ?1")?
                    .execute(params![card_no.as_str(), held])?,
            ),
            Change::Release(shows) => {
                if (Reader { conn: tx }).open_transaction(&shows.card_no)?.is_some() {
                    return Err(StoreError::LedgerRefused {
                        what: "a transaction of this card is not settled; park it with the release".into(),
                    });
                }
                let freed = tx
                    .prepare_cached(
                        "UPDATE member_card SET held = NULL, uid = ?2 WHERE card_no = ?1 AND held IS NOT NULL",
                    )?
                    .execute(params![shows.card_no.as_str(), shows.uid.as_str()])?;
                // Of two that lie on two readers the first is taken.
                (&shows.card_no, if freed == 0 { 0 } else { refresh(tx, shows)? })
            }
            Change::LetGo { card_no, was } => (
                card_no,
                tx.prepare_cached(
                    "UPDATE member_card SET held = NULL WHERE card_no = ?1 AND status = ?2 AND held IS NOT NULL",
                )?
                .execute(params![card_no.as_str(), enum_text(was)?])?,
            ),
        };
        if changed == 0 {
            return Err(StoreError::NotFound { what: format!("card {card_no} in that standing") });
        }
        seal::put(tx, LedgerTable::Card, "card_no", &card_no.as_str())
    }
}

/// A card's first row. What was reported of it before it was seen is true from now on.
fn insert(tx: &Connection, card: &SeenCard, issue: Option<(&String, &By)>) -> Result<usize, StoreError> {
    let reported = (Reader { conn: tx }).card_report(&card.card_no)?;
    if reported.is_some() {
        card_reports::forget(tx, &card.card_no)?;
    }
    members::forget(tx, &card.card_no)?;
    let status = enum_text(&reported.unwrap_or(CardStanding::Active))?;
    Ok(tx
        .prepare_cached(
            "INSERT INTO member_card (card_no, uid, technology, type, issuing_store, status, valid_until,
                                      holding, counter, seen_at, issued_on, issued_by, issued_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?13, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        )?
        .execute(params![
            card.card_no.as_str(),
            card.uid.as_str(),
            enum_text(&card.technology)?,
            enum_text(&card.card_type)?,
            card.issuing_store.as_str(),
            card.valid_until.map(|until| until.0),
            json(&card.holding)?,
            card.holding.counter,
            UtcMillis::now().0,
            issue.map(|(day, _)| day),
            issue.map(|(_, by)| &by.operator),
            issue.map(|(_, by)| by.till.as_str()),
            status,
        ])?)
}

fn update(tx: &Connection, known: &CardRow, card: &SeenCard) -> Result<usize, StoreError> {
    let (was, is) = (&known.seen.holding, &card.holding);
    if known.seen.uid != card.uid || is.counter < was.counter || (is.counter == was.counter && is != was) {
        return Err(StoreError::LedgerRefused {
            what: "the card is not the one, or is behind what was seen of it; it has to be held".into(),
        });
    }
    refresh(tx, card)
}

fn refresh(tx: &Connection, card: &SeenCard) -> Result<usize, StoreError> {
    Ok(tx
        .prepare_cached(
            "UPDATE member_card SET technology = ?2, type = ?3, issuing_store = ?4, valid_until = ?5,
                                    holding = ?6, counter = ?7, seen_at = ?8 WHERE card_no = ?1",
        )?
        .execute(params![
            card.card_no.as_str(),
            enum_text(&card.technology)?,
            enum_text(&card.card_type)?,
            card.issuing_store.as_str(),
            card.valid_until.map(|until| until.0),
            json(&card.holding)?,
            card.holding.counter,
            UtcMillis::now().0,
        ])?)
}

/// `card.status` of a card whose transaction changed how it stands.
pub(super) fn told(
    fact: &CardTransaction,
    status: CardStanding,
    reason: Option<String>,
) -> Result<NewEvent, StoreError> {
    let event = CardStatus {
        card_no: fact.card_no.clone(),
        uid: Some(fact.uid.clone()),
        issuing_store: Some(fact.issuing_store.clone()),
        status,
        held: None,
        counter_expected: None,
        counter_seen: None,
        balance_seen_fen: None,
        uid_seen: None,
        pin: None,
        listed: None,
        reason,
        operator: Some(fact.operator.clone()),
        till: Some(fact.till.clone()),
    };
    about(&fact.card_no, &event)
}

/// A transaction stands on the card. One that is settled late does not move it back.
pub(super) fn written(tx: &Connection, fact: &CardTransaction, after: &Holding) -> Result<(), StoreError> {
    let card_no = &fact.card_no;
    let mut changed = 0;
    if let Some(status) = fact.status_after {
        let sql = "UPDATE member_card SET status = ?2 WHERE card_no = ?1";
        changed += tx.prepare_cached(sql)?.execute(params![card_no.as_str(), enum_text(&status)?])?;
    }
    if let Some(validity) = fact.validity {
        let sql = "UPDATE member_card SET valid_until = ?2 WHERE card_no = ?1 AND counter < ?3";
        let until = validity.until.map(|until| until.0);
        changed += tx.prepare_cached(sql)?.execute(params![card_no.as_str(), until, after.counter])?;
    }
    changed += tx
        .prepare_cached(
            "UPDATE member_card SET holding = ?2, counter = ?3 WHERE card_no = ?1 AND counter < ?3",
        )?
        .execute(params![card_no.as_str(), json(after)?, after.counter])?;
    match changed {
        0 => Ok(()),
        _ => seal::put(tx, LedgerTable::Card, "card_no", &card_no.as_str()),
    }
}

fn row_of(row: &Row<'_>) -> Result<CardRow, StoreError> {
    seal::check(row, Some(LedgerTable::Card), 0)?;
    let text = |column: &str| row.get::<_, String>(column);
    Ok(CardRow {
        seen: SeenCard {
            card_no: ident(&text("card_no")?)?,
            uid: ident(&text("uid")?)?,
            technology: text_enum(text("technology")?)?,
            card_type: text_enum(text("type")?)?,
            issuing_store: ident(&text("issuing_store")?)?,
            valid_until: row.get::<_, Option<i64>>("valid_until")?.map(UtcMillis),
            holding: from_json(&text("holding")?)?,
        },
        status: text_enum(text("status")?)?,
        held: row.get("held")?,
        seen_at: UtcMillis(row.get("seen_at")?),
    })
}

impl Reader<'_> {
    /// What the store knows of a card.
    ///
    /// # Errors
    /// [`StoreError`]; [`StoreError::Damaged`] when the row has rotted.
    pub fn member_card(&self, card_no: &CardNo) -> Result<Option<CardRow>, StoreError> {
        let mut query = self.conn.prepare_cached("SELECT * FROM member_card WHERE card_no = ?1")?;
        let mut rows = query.query([card_no.as_str()])?;
        rows.next()?.map(row_of).transpose()
    }

    /// Cards given out on a business day: by whom, where, how many.
    pub(super) fn issued_on(&self, day: &str) -> Result<Vec<(String, String, u64)>, StoreError> {
        let mut query = self.conn.prepare_cached(
            "SELECT issued_by, issued_at, count(*) FROM member_card WHERE issued_on = ?1
             GROUP BY issued_by, issued_at ORDER BY issued_by, issued_at",
        )?;
        let rows = query
            .query_map([day], |row| Ok((row.get(0)?, row.get(1)?, row.get::<_, i64>(2)?.unsigned_abs())))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}
