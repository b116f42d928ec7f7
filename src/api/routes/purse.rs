//! Quotes and transactions on a member's card, and looking them up.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::{Extension, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::super::access::Scope;
use super::super::extract::{IdempotencyKey, Json, Params, Segment, missing};
use super::super::pins::{Pin, never_kept};
use super::super::principal::Principal;
use super::super::problem::Problem;
use super::super::state::Shared;
use super::card_pin;
use super::card_records::TransferDue;
use super::counter::{self, Stand};
use super::transaction_body::TransactionBody;
use crate::card::counter::{Adjustment, Deal, QUOTE, Quoted, TRANSACTION};
use crate::card::purse::Refusal;
use crate::card::purse::life::is_replacement;
use crate::clock::UtcMillis;
use crate::event::ledger::{CardTransaction, Item, Tender, TransactionKind};
use crate::ident::CardNo;
use crate::money::{CouponId, Fen};
use crate::store::ledger::State as Stage;
use crate::store::requests::{RequestRow, RequestState};

/// How long a quote is good for, in milliseconds: a customer reads and nods.
const QUOTE_LIFE_MS: i64 = 5 * 60 * 1000;
/// The longest order number, in bytes.
const MAX_ORDER_BYTES: usize = 64;

/// What is to be done with a card.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WantedDeal {
    /// The reader with the card; default: the till's own, or the only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reader: Option<String>,
    /// Do what this quote says; then nothing else is given but `reader`, `wait_s`, `pin`, and the
    /// quote's own `tenders`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = "uuid")]
    quote_id: Option<Uuid>,
    /// `topup`, `spend`, `earn`, `redeem`, `coupon`, `adjust`, `transfer`, `refund` or `void`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kind: Option<TransactionKind>,
    /// Of a top-up, a refund, and a sale without `items`. Never below zero.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>, minimum = 0)]
    amount_fen: Option<Fen>,
    /// To pay with (`spend`), to give (`earn`), to take (`redeem`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0)]
    points: Option<i64>,
    /// To use (`spend`), to give (`coupon`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>)]
    coupon: Option<CouponId>,
    /// What is sold: `sku`, `category` (`labour|parts|goods|gift`), `quantity`, `price_fen`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    items: Vec<Item>,
    /// What it is paid with: `kind` (`purse|cash|wechat|alipay|bank`), `amount_fen`. The `tenders` of a
    /// quote, `points` and `coupon` among them, are taken as they are, also beside its `quote_id`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tenders: Vec<Tender>,
    /// The till's order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    order: Option<String>,
    /// Of `refund`, `void`, and the receiving half of `transfer`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = "uuid")]
    original_transaction_id: Option<Uuid>,
    /// Of the giving half of `transfer`: the card that receives `amount_fen` of the principal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    to_card_no: Option<CardNo>,
    /// Of `adjust`: `principal_fen`, `bonus_fen`, `points`, signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    adjustment: Option<Adjustment>,
    /// Seconds to wait for the card, 1 to 60; default 8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    wait_s: Option<u64>,
    /// The card's PIN, for what takes value off a card that has one. Never kept.
    #[serde(default, skip_serializing_if = "never_kept")]
    #[schema(value_type = Option<String>)]
    pin: Option<Pin>,
}

/// A calculation.
#[derive(Serialize, ToSchema)]
pub(super) struct QuoteView {
    /// For the transaction.
    #[schema(value_type = String, format = "uuid")]
    quote_id: Uuid,
    /// The card.
    #[schema(value_type = String)]
    card_no: CardNo,
    /// The quote is good until then, as long as card and rules do not change.
    #[schema(value_type = String, format = "date-time")]
    expires_at: UtcMillis,
    /// `lines` (`code`, `text`, `amount_fen`; those of the payment, `pay-…`, with a minus), `due_fen`, `tenders`, `discount_fen`, the effect on
    /// the card (`principal_fen`, `bonus_fen`, `points`), and what it holds afterwards.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    said: Value,
}

/// Who may: what takes value off a card, what puts some on, what undoes either.
fn scopes_for(kind: TransactionKind) -> &'static [Scope] {
    match kind {
        TransactionKind::Spend | TransactionKind::Redeem => &[Scope::Spend],
        TransactionKind::Topup | TransactionKind::Earn | TransactionKind::Coupon => &[Scope::Topup],
        TransactionKind::Refund | TransactionKind::Void | TransactionKind::Transfer => {
            &[Scope::Spend, Scope::Topup]
        }
        TransactionKind::Adjust => &[Scope::Topup, Scope::Issue],
    }
}

pub(super) fn card_of(segment: &Segment) -> Result<CardNo, Problem> {
    CardNo::new(segment.0.clone()).map_err(|_| missing("card", &segment.0))
}

impl WantedDeal {
    /// As the reader's service takes it.
    fn deal(self, caller: &Principal, card_no: CardNo, key: String) -> Result<Deal, Problem> {
        let kind = self.kind.ok_or_else(|| {
            counter::invalid("kind", "请给出 quote_id 或 kind", "give a `quote_id` or a `kind`")
        })?;
        counter::needs(caller, scopes_for(kind))?;
        let halves = (self.to_card_no.is_some(), self.original_transaction_id.is_some());
        let transfers = kind == TransactionKind::Transfer;
        if transfers && halves.0 == halves.1 || !transfers && halves.0 {
            return Err(counter::invalid(
                "to_card_no",
                "转账：转出卡给 to_card_no 和 amount_fen，转入卡只给 original_transaction_id（转出交易号）",
                "of a transfer, and of nothing else: the giving card gets `to_card_no` and `amount_fen`, the receiving card the giving half's `original_transaction_id` alone",
            ));
        }
        let negative = self.amount_fen.is_some_and(|fen| fen.0 < 0)
            || self.points.is_some_and(|points| points < 0)
            || self.items.iter().any(|item| item.price_fen.0 < 0)
            || self.tenders.iter().any(|tender| tender.amount_fen.0 < 0);
        if negative {
            return Err(counter::invalid(
                "amount",
                "金额和积分不能为负",
                "amounts and points are never below zero",
            ));
        }
        if self.order.as_ref().is_some_and(|order| order.len() > MAX_ORDER_BYTES) {
            return Err(counter::invalid(
                "order",
                "订单号最多 64 字节",
                "an order number has at most 64 bytes",
            ));
        }
        Ok(Deal {
            card_no,
            kind,
            amount_fen: self.amount_fen,
            points: self.points,
            coupon: self.coupon,
            items: self.items,
            tenders: self.tenders,
            order: self.order,
            original_transaction_id: self.original_transaction_id,
            to_card_no: self.to_card_no,
            adjustment: self.adjustment,
            pin_checked: false,
            life: None,
            wait_s: self.wait_s,
            quoted: None,
            by: counter::by(caller)?,
            idempotency_key: key,
        })
    }

    /// Whether it says anything beside the quote.
    fn is_only_a_quote(&self) -> bool {
        self.kind.is_none()
            && self.amount_fen.is_none()
            && self.points.is_none()
            && self.coupon.is_none()
            && self.items.is_empty()
            && self.order.is_none()
            && self.original_transaction_id.is_none()
            && self.to_card_no.is_none()
            && self.adjustment.is_none()
    }
}

/// Calculates a transaction line by line, with the card on the reader. Nothing is written.
#[utoipa::path(post, operation_id = "quote", path = "/v1/cards/{card_no}/quotes", tag = "cards", request_body = WantedDeal,
    params(("card_no" = String, Path, description = "Card")),
    responses((status = 200, description = "The calculation", body = QuoteView)))]
pub(super) async fn quote(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Principal>,
    card: Segment,
    Json(mut wanted): Json<WantedDeal>,
) -> Result<Response, Problem> {
    let card_no = card_of(&card)?;
    wanted.kind = wanted.kind.or(Some(TransactionKind::Spend));
    let reader = counter::reader_of(&shared, &caller, wanted.reader.as_deref())?;
    let asked = json!(wanted);
    let deal = wanted.deal(&caller, card_no.clone(), String::new())?;
    let id = counter::commit(&shared, &caller, QUOTE, &reader, None, asked, json!(deal)).await?;
    Ok(match counter::stand(&shared, id).await? {
        Stand::Settled(row) if row.state == RequestState::Failed => return Err(counter::failure(&row)),
        Stand::Settled(row) => Answer(QuoteView {
            quote_id: id,
            card_no,
            expires_at: expiry(&row),
            said: row.outcome.unwrap_or_default(),
        })
        .into_response(),
        Stand::Pending | Stand::TapAgain(_) => counter::pending(id, &format!("/v1/requests/{id}")),
    })
}

fn expiry(row: &RequestRow) -> UtcMillis {
    UtcMillis(row.created_at.0.saturating_add(QUOTE_LIFE_MS))
}

/// Changes what a card on a reader holds: once, however often the same key asks.
#[utoipa::path(post, operation_id = "transact", path = "/v1/cards/{card_no}/transactions", tag = "cards", request_body = TransactionBody,
    params(("card_no" = String, Path, description = "Card"),
        ("Idempotency-Key" = String, Header, description = "A new one for every deed; the same one when asked again")),
    responses((status = 200, description = "On the card (`card.transaction` data)", body = Object),
        (status = 202, description = "Not settled: `code` is `tap-again` when the card left; the same key follows it")))]
pub(super) async fn transact(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Principal>,
    card: Segment,
    IdempotencyKey(key): IdempotencyKey,
    Json(mut wanted): Json<WantedDeal>,
) -> Result<Response, Problem> {
    let card_no = card_of(&card)?;
    let key = counter::key_of(key)?;
    let asked = json!({ "card_no": card_no, "body": wanted });
    let id = match counter::repeated(&shared, &caller, &key, TRANSACTION, &asked).await? {
        Some(id) => id,
        None => {
            let reader = counter::reader_of(&shared, &caller, wanted.reader.as_deref())?;
            let pin = wanted.pin.take();
            let mut deal = match wanted.quote_id {
                Some(quote_id) => quoted(&shared, &caller, &card_no, wanted, quote_id, key.clone()).await?,
                None => wanted.deal(&caller, card_no, key.clone())?,
            };
            deal.pin_checked = card_pin::checked(&shared, &deal, pin, &reader).await?;
            counter::commit(&shared, &caller, TRANSACTION, &reader, Some(key), asked, json!(deal)).await?
        }
    };
    let stand = counter::stand(&shared, id).await?;
    answer(&shared, id, stand).await
}

/// The deal of a quote, and what it said.
async fn quoted(
    shared: &Shared,
    caller: &Principal,
    card_no: &CardNo,
    wanted: WantedDeal,
    quote_id: Uuid,
    key: String,
) -> Result<Deal, Problem> {
    if !wanted.is_only_a_quote() {
        return Err(counter::invalid(
            "quote_id",
            "给出 quote_id 时不要再给其他内容",
            "with a `quote_id` nothing else is given; ask for a new quote to change it",
        ));
    }
    let row = shared.context.store.read(move |r| r.request(quote_id)).await?;
    let row = row.filter(|row| row.kind == QUOTE && row.state == RequestState::Done);
    let row = row.ok_or_else(|| missing("quote", &quote_id.to_string()))?;
    let deal: Option<Deal> = serde_json::from_value(row.body.clone()).ok();
    let deal = deal.filter(|deal| deal.card_no == *card_no);
    let mut deal = deal.ok_or_else(|| missing("quote", &quote_id.to_string()))?;
    if !(row.created_at..=expiry(&row)).contains(&UtcMillis::now()) {
        return Err(Problem::new(
            StatusCode::CONFLICT,
            "quote-expired",
            "报价已过期。请重新报价，经顾客确认后再收款",
            "the quote has expired; ask for a new one and show it to the customer",
        ));
    }
    let said = row.outcome.unwrap_or_default();
    if !wanted.tenders.is_empty() && said.get("tenders") != Some(&json!(wanted.tenders)) {
        return Err(counter::invalid(
            "tenders",
            "与报价的 tenders 不同；请原样带回或省略，要改付款方式请重新报价",
            "not those of the quote: send them back as they are, or none; ask for a new quote to pay otherwise",
        ));
    }
    counter::needs(caller, scopes_for(deal.kind))?;
    deal.by = counter::by(caller)?;
    deal.idempotency_key = key;
    deal.wait_s = wanted.wait_s;
    deal.quoted = Some(Quoted { quote_id, said });
    Ok(deal)
}

/// What a till is told of a transaction.
pub(super) async fn answer(shared: &Shared, id: Uuid, stand: Stand) -> Result<Response, Problem> {
    let location = format!("/v1/transactions/{id}");
    let row = match stand {
        Stand::TapAgain(refusal) => return Ok(counter::tap_again(id, refusal, &location)),
        Stand::Pending => return Ok(counter::pending(id, &location)),
        Stand::Settled(row) => row,
    };
    let transaction = shared.context.store.read(move |r| r.transaction(id)).await?;
    let Some(transaction) = transaction else { return Err(counter::failure(&row)) };
    // The ledger's word, which headquarters may have had since.
    let fact = transaction.current();
    match transaction.state {
        Stage::Committed => Ok(([(header::LOCATION, location)], Answer(fact)).into_response()),
        Stage::Aborted => Err(not_written(shared, fact).await?),
        Stage::Parked => Err(parked(&fact)),
        Stage::Intent | Stage::Unknown => Ok(counter::tap_again(id, Refusal::TapAgain, &location)),
    }
}

/// Nobody here will ever know: the card was replaced, or has gone on, before it told or proved it.
fn parked(fact: &CardTransaction) -> Problem {
    let receives = fact.kind == TransactionKind::Transfer && fact.original_transaction_id.is_some();
    let (zh, en) = if receives {
        (
            "此卡在得知是否已收到转来的金额之前，已在别处用过（或解除暂停时以卡上内容为准），再刷卡也不能得知结果，由总部核实。不能再收一次，也不能撤销；把交易号告知总部，按其结论办理",
            "this card was used elsewhere, or released as it showed itself, before it told whether what was given came onto it; no tap tells any more, headquarters settles it. It can be neither received again nor voided: give headquarters the transaction's id and go by its answer",
        )
    } else {
        (
            "此交易未能确认（卡已补换、在别处用过、解除暂停时以卡上内容为准，或其凭证无法核验），再刷卡也不能得知结果，由总部核实。请勿重复扣款；把交易号告知总部，按其结论办理",
            "whether this came onto the card was not seen, or not proven, before the card was replaced, used on or released as it showed itself; no tap tells any more, headquarters settles it. Do not charge again: give headquarters the transaction's id and go by its answer",
        )
    };
    Problem::new(StatusCode::CONFLICT, "parked", zh, en).with("transaction", json!(fact))
}

/// It did not come onto the card. Of a receiving half what was given goes on waiting.
async fn not_written(shared: &Shared, fact: CardTransaction) -> Result<Problem, Problem> {
    let giving = fact.original_transaction_id.filter(|_| fact.kind == TransactionKind::Transfer);
    let giving = match giving {
        Some(id) => shared.context.store.read(move |r| r.transaction(id)).await?,
        None => None,
    };
    let giving = giving.map(|row| row.fact);
    let (zh, en) = if giving.as_ref().is_some_and(is_replacement) {
        (
            "新卡未写入。旧卡已作废，其余额在等待，没有丢失：请重新放新卡，用新的 Idempotency-Key 再办一次换卡；新卡坏了，就给这张新卡换卡",
            "the new card was not written. The old one is dead and its balance waits, nothing is lost: present the new card and ask again with a new Idempotency-Key; if it is broken, replace it in turn",
        )
    } else if giving.is_some() {
        (
            "收款卡未写入。转出的金额在等待，没有丢失：请重新放收款卡，用新的 Idempotency-Key 再收一次；收款卡坏了，就在转出卡上撤销（void，original_transaction_id 即 transfer_due 中的 transaction_id）",
            "the receiving card was not written. What was given waits, nothing is lost: present that card and receive it again with a new Idempotency-Key; if it is broken, void the giving half on the card that gave (original_transaction_id: the transaction_id of transfer_due)",
        )
    } else {
        (
            "卡未写入，金额没有变化。请重新放卡，用新的 Idempotency-Key 再试",
            "the card was not written and nothing has changed; present it again and use a new Idempotency-Key",
        )
    };
    let problem = Problem::new(StatusCode::CONFLICT, "not-written", zh, en).with("transaction", json!(fact));
    Ok(match giving {
        Some(giving) => problem.with("transfer_due", json!(TransferDue::of(giving))),
        None => problem,
    })
}

/// One transaction, as it stands now.
#[utoipa::path(get, operation_id = "get_transaction", path = "/v1/transactions/{id}", tag = "cards",
    params(("id" = String, Path, description = "Transaction")),
    responses((status = 200, description = "`card.transaction` data; `outcome` says what came of it", body = Object),
        (status = 202, description = "Not settled: `code` is `tap-again` when the card left")))]
pub(super) async fn transaction(State(shared): State<Arc<Shared>>, id: Segment) -> Result<Response, Problem> {
    let unknown = || missing("transaction", &id.0);
    show(&shared, id.uuid("transaction")?).await?.ok_or_else(unknown)
}

/// Which one.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ByKey {
    /// The key that it was asked with, by this till or token.
    idempotency_key: String,
}

/// The transaction that a key was used for: for a till that lost the answer.
#[utoipa::path(get, operation_id = "find_transaction", path = "/v1/transactions", tag = "cards", params(ByKey),
    responses((status = 200, description = "`card.transaction` data; `outcome` says what came of it", body = Object),
        (status = 202, description = "Not settled: `code` is `tap-again` when the card left")))]
pub(super) async fn by_key(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Principal>,
    Params(wanted): Params<ByKey>,
) -> Result<Response, Problem> {
    let (scope, key) = (caller.key_scope(), wanted.idempotency_key.clone());
    let row = shared.context.store.read(move |r| r.request_by_key(&scope, &key)).await?;
    let unknown = || missing("transaction", &wanted.idempotency_key);
    show(&shared, row.ok_or_else(unknown)?.id).await?.ok_or_else(unknown)
}

/// `None`: no such transaction.
async fn show(shared: &Shared, id: Uuid) -> Result<Option<Response>, Problem> {
    let (row, request) = shared.context.store.read(move |r| Ok((r.transaction(id)?, r.request(id)?))).await?;
    let request = request.filter(|request| request.kind == TRANSACTION);
    let location = format!("/v1/transactions/{id}");
    Ok(match (row, request) {
        // Its request may be forgotten by now, the ledger is not.
        (Some(row), None) => Some(Answer(row.current()).into_response()),
        (Some(row), Some(request)) if request.state.is_settled() => {
            Some(Answer(row.current()).into_response())
        }
        (None, Some(request)) if request.state == RequestState::Failed => {
            return Err(counter::failure(&request));
        }
        (Some(row), Some(_)) if row.state == Stage::Parked => Some(Answer(row.current()).into_response()),
        (_, Some(_)) => Some(match shared.context.store.read(move |r| counter::look(r, id)).await? {
            Stand::TapAgain(refusal) => counter::tap_again(id, refusal, &location),
            _ => counter::pending(id, &location),
        }),
        (None, None) => None,
    })
}
