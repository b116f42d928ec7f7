//! `GET /v1/cards/{card_no}` and its transactions: what the store knows of a card that need not
//! be here. The card itself is the truth about what it holds; this is how it was last seen.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::super::extract::{Params, Segment};
use super::super::problem::Problem;
use super::super::state::Shared;
use crate::card::counter_word::word_for;
use crate::card::purse::life::is_replacement;
use crate::card::stops::noted;
use crate::clock::UtcMillis;
use crate::event::card::{CounterWord, Technology};
use crate::event::ledger::{CardStanding, CardTransaction, CardType, ListedMember, TransactionKind};
use crate::ident::{CardNo, CardUid, StoreId};
use crate::money::{CouponId, Fen};
use crate::store::ledger::{State as Stage, TransactionRow};
use crate::store::ledger_cards::CardRow;
use crate::store::{Reader, StoreError};

/// Transactions of one answer, at most.
const MOST: u32 = 200;

/// A card as this store last saw it.
#[derive(Serialize, ToSchema)]
pub(super) struct CardRecord {
    /// Its number.
    #[schema(value_type = String)]
    card_no: CardNo,
    /// UID of its chip, upper-case hex.
    #[schema(value_type = String)]
    uid: CardUid,
    /// Technology as probed, e.g. `mifare-classic-1k`.
    #[schema(value_type = String)]
    technology: Technology,
    /// `named` or `anonymous`.
    #[serde(rename = "type")]
    #[schema(value_type = String)]
    card_type: CardType,
    /// The store that gave it out.
    #[schema(value_type = String)]
    issuing_store: StoreId,
    /// `active`, `blocked`, `lost`, `replaced` or `returned`: as it stands at this store.
    #[schema(value_type = String)]
    status: CardStanding,
    /// Why nothing is written to it: `counter-behind`, `counter-forked`, `uid-differs`, `torn-record`,
    /// `used-after-its-end`, `imitation`.
    #[serde(skip_serializing_if = "Option::is_none")]
    held: Option<String>,
    /// Whether it is on headquarters' list of stopped cards.
    hotlisted: bool,
    /// Good until; absent: for ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = "date-time")]
    valid_until: Option<UtcMillis>,
    /// What the customer paid in, in fen.
    #[schema(value_type = i64)]
    principal_fen: Fen,
    /// What the house gave on top, in fen.
    #[schema(value_type = i64)]
    bonus_fen: Fen,
    /// Both together, in fen.
    #[schema(value_type = Option<i64>)]
    balance_fen: Option<Fen>,
    /// Points.
    points: i64,
    /// Coupons, by number; of a kind that is there twice, two.
    #[schema(value_type = Vec<u32>)]
    coupons: Vec<CouponId>,
    /// Transactions committed on it, wherever they were made.
    counter: u32,
    /// What it holds was so then; it may have been used elsewhere since.
    #[schema(value_type = String, format = "date-time")]
    known_at: UtcMillis,
    /// What headquarters sent for the counter, as in `card.tapped`: `level`, `next_contact`, `offers`,
    /// `reminders`, `data_age_s`.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    word: CounterWord,
    /// Transactions that are not settled, oldest first.
    unsettled: Vec<UnsettledView>,
    /// Giving halves of transfers and replacements, from or to this card, that nobody has received.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    transfers_due: Vec<TransferDue>,
}

/// What left one card and is not on the other one yet.
#[derive(Serialize, ToSchema)]
pub(super) struct TransferDue {
    /// The giving half: the `original_transaction_id` of the receiving one.
    #[schema(value_type = String, format = "uuid")]
    transaction_id: Uuid,
    /// `transfer`, or `replacement`: that is received by `/replace` of the card that gave, as a whole.
    #[schema(value_type = String)]
    sort: Sort,
    /// The card that gave.
    #[schema(value_type = String)]
    from_card_no: CardNo,
    /// The card that is to receive it.
    #[schema(value_type = Option<String>)]
    to_card_no: Option<CardNo>,
    /// How much, in fen.
    #[schema(value_type = i64)]
    amount_fen: Fen,
}

impl TransferDue {
    /// Of its giving half.
    pub(super) fn of(giving: CardTransaction) -> Self {
        Self {
            transaction_id: giving.transaction_id,
            sort: if is_replacement(&giving) { Sort::Replacement } else { Sort::Transfer },
            from_card_no: giving.card_no,
            to_card_no: giving.counterparty_card_no,
            amount_fen: Fen(giving.amount_fen.0.saturating_neg()),
        }
    }
}

/// How it is received.
#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Sort {
    /// By a `transfer` with `original_transaction_id`.
    Transfer,
    /// By `POST /v1/cards/{from_card_no}/replace`, with all else that the card held.
    Replacement,
}

/// A transaction of which nobody knows yet whether it is on the card.
#[derive(Serialize, ToSchema)]
pub(super) struct UnsettledView {
    /// Its id.
    #[schema(value_type = String, format = "uuid")]
    transaction_id: Uuid,
    /// What it does.
    #[schema(value_type = String)]
    kind: TransactionKind,
    /// `intent`, `unknown`: the next tap settles it. `parked`: only headquarters can tell.
    #[schema(value_type = String)]
    state: Stage,
    /// Effect on the balance if it is there, in fen, signed.
    #[schema(value_type = i64)]
    amount_fen: Fen,
    /// When it began.
    #[schema(value_type = String, format = "date-time")]
    begun_at: UtcMillis,
}

/// A transaction as it stands now.
#[derive(Serialize, ToSchema)]
pub(super) struct TransactionView {
    /// `intent`, `unknown`, `parked`, `committed` or `aborted`.
    #[schema(value_type = String)]
    state: Stage,
    /// The business day it counts on, `YYYY-MM-DD`.
    business_day: String,
    /// When it began.
    #[schema(value_type = String, format = "date-time")]
    begun_at: UtcMillis,
    /// When it came to its state.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = "date-time")]
    ended_at: Option<UtcMillis>,
    /// The members of `card.transaction`.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    fact: CardTransaction,
}

/// A page of a card's transactions, newest first.
#[derive(Serialize, ToSchema)]
pub(super) struct TransactionPage {
    transactions: Vec<TransactionView>,
    /// Give it as `before` for the page behind this one; absent: this is the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<i64>,
}

/// Which page.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Page {
    /// Transactions, 1 to 200; 50 when left out.
    limit: Option<u32>,
    /// `next` of the page before.
    before: Option<i64>,
}

impl From<TransactionRow> for UnsettledView {
    fn from(row: TransactionRow) -> Self {
        let TransactionRow { fact, state, begun_at, .. } = row;
        let CardTransaction { transaction_id, kind, amount_fen, .. } = fact;
        Self { transaction_id, kind, state, amount_fen, begun_at }
    }
}

impl From<TransactionRow> for TransactionView {
    fn from(row: TransactionRow) -> Self {
        let fact = row.current();
        let TransactionRow { state, business_day, begun_at, ended_at, .. } = row;
        Self { state, business_day, begun_at, ended_at, fact }
    }
}

impl CardRecord {
    fn of(
        row: CardRow,
        last: Option<TransactionRow>,
        unsettled: Vec<TransactionRow>,
        hotlisted: bool,
    ) -> Self {
        let CardRow { seen, status, held, seen_at } = row;
        // What we wrote ourselves is known since then.
        let written = last.and_then(|last| last.ended_at);
        Self {
            hotlisted,
            status,
            held,
            valid_until: seen.valid_until,
            balance_fen: seen.holding.balance(),
            principal_fen: seen.holding.principal_fen,
            bonus_fen: seen.holding.bonus_fen,
            points: seen.holding.points,
            coupons: seen.holding.coupons,
            counter: seen.holding.counter,
            known_at: written.map_or(seen_at, |written| written.max(seen_at)),
            unsettled: unsettled.into_iter().map(UnsettledView::from).collect(),
            transfers_due: Vec::new(),
            word: CounterWord::default(),
            card_no: seen.card_no,
            uid: seen.uid,
            technology: seen.technology,
            card_type: seen.card_type,
            issuing_store: seen.issuing_store,
        }
    }
}

/// What the store knows of a card, whether or not it is here: how it stands, what it held when it
/// was last seen, and what of it is not settled.
#[utoipa::path(get, operation_id = "card_record", path = "/v1/cards/{card_no}", tag = "cards",
    params(("card_no" = String, Path, description = "Card number")),
    responses((status = 200, description = "The card", body = CardRecord),
        (status = 404, description = "`card-not-known`: it was never seen at this store; `card-not-given-out`: a member who was imported", body = Object)))]
pub(super) async fn card(
    State(shared): State<Arc<Shared>>,
    card_no: Segment,
) -> Result<Answer<CardRecord>, Problem> {
    let wanted = number(&card_no)?;
    let timezone = shared.context.shop.borrow().timezone.clone();
    let read = move |r: &Reader<'_>| -> Result<_, StoreError> {
        let Some(row) = r.member_card(&wanted)? else { return Ok(None) };
        let newest = r.transactions_of(&wanted, None, 1)?.pop();
        let last = newest.filter(|newest| newest.state == Stage::Committed);
        let mut card = CardRecord::of(row, last, r.unsettled_of(&wanted)?, r.is_hotlisted(&wanted)?);
        card.transfers_due = transfers_due(r, &wanted)?;
        Ok(Some((card, word_for(r, &wanted, &timezone))))
    };
    if let Some((mut card, word)) = shared.context.store.read(read).await? {
        card.word = noted(&shared.context.store, word)?;
        return Ok(Answer(card));
    }
    let wanted = number(&card_no)?;
    Err(match shared.context.store.read(move |r| r.listed_member(&wanted)).await? {
        Some(member) => no_card_yet(&card_no.0, member),
        None => not_known(&card_no.0),
    })
}

/// A member who was imported.
fn no_card_yet(card_no: &str, member: ListedMember) -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "card-not-given-out",
        format!("会员 {card_no} 已导入，尚未发卡；请用 card issue 或 card batch 发卡"),
        format!(
            "member {card_no} was imported and has no card yet; give one out with card issue or card batch"
        ),
    )
    .with("listed", serde_json::json!(member))
}

/// Giving halves that wait, of which the card is one side.
fn transfers_due(r: &Reader<'_>, card_no: &CardNo) -> Result<Vec<TransferDue>, StoreError> {
    let mut due = Vec::new();
    for id in r.transfers_due_of(card_no)? {
        due.extend(r.transaction(id)?.map(|row| TransferDue::of(row.fact)));
    }
    Ok(due)
}

/// The transactions of a card at this store, newest first, also those that came to nothing.
#[utoipa::path(get, operation_id = "card_transactions", path = "/v1/cards/{card_no}/transactions", tag = "cards",
    params(("card_no" = String, Path, description = "Card number"), Page),
    responses((status = 200, description = "A page", body = TransactionPage),
        (status = 404, description = "`card-not-known`: it was never seen at this store", body = Object)))]
pub(super) async fn transactions(
    State(shared): State<Arc<Shared>>,
    card_no: Segment,
    Params(page): Params<Page>,
) -> Result<Answer<TransactionPage>, Problem> {
    let wanted = number(&card_no)?;
    let limit = page.limit.unwrap_or(50).clamp(1, MOST);
    let read = move |r: &Reader<'_>| -> Result<Option<Vec<TransactionRow>>, StoreError> {
        // One more tells whether there is another page.
        let rows = r.transactions_of(&wanted, page.before, limit + 1)?;
        Ok((!rows.is_empty() || r.member_card(&wanted)?.is_some()).then_some(rows))
    };
    let rows = shared.context.store.read(read).await?.ok_or_else(|| not_known(&card_no.0))?;
    let fits = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = rows.len() > fits;
    let rows: Vec<_> = rows.into_iter().take(fits).collect();
    let next = rows.last().map(|row| row.no).filter(|_| more);
    let transactions = rows.into_iter().map(TransactionView::from).collect();
    Ok(Answer(TransactionPage { transactions, next }))
}

/// A path's card number; what cannot be one is not known.
pub(super) fn number(card_no: &Segment) -> Result<CardNo, Problem> {
    card_no.0.parse().map_err(|_| not_known(&card_no.0))
}

/// Never seen here.
pub(super) fn not_known(card_no: &str) -> Problem {
    let shown: String = card_no.chars().take(64).collect();
    Problem::new(
        StatusCode::NOT_FOUND,
        "card-not-known",
        format!("本店没有卡号 {shown:?} 的记录；请核对卡号，或在发卡门店、总部办理"),
        format!(
            "card {shown:?} was never seen at this store; check the number, or ask the store that issued it or headquarters"
        ),
    )
}
