//! `POST /v1/cards/{card_no}/return`, `/replace` and `/extend`: what changes with a card's life and
//! is written on the card that lies on the reader. Each is a transaction with its intent and its
//! outcome (`card::counter`); what needs no card is in `card_standing`.

use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::super::access::Scope;
use super::super::extract::{IdempotencyKey, Json, Segment};
use super::super::pins::{Pin, never_kept};
use super::super::principal::Principal;
use super::super::problem::Problem;
use super::super::state::Shared;
use super::purse::{answer, card_of};
use super::{card_pin, counter};
use crate::card::counter::{Deal, Life, TRANSACTION, Why};
use crate::event::ledger::{TenderKind, TransactionKind};
use crate::ident::CardNo;

/// A card is given back.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReturnWish {
    /// How the principal is paid out: `cash`, `wechat`, `alipay` or `bank`.
    #[schema(value_type = String)]
    tender: TenderKind,
    /// The card's PIN, where it has one. Never kept.
    #[serde(default, skip_serializing_if = "never_kept")]
    #[schema(value_type = Option<String>)]
    pin: Option<Pin>,
    /// The reader with the card; default: the till's own, or the only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reader: Option<String>,
    /// Seconds to wait for the card, 1 to 60; default 8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    wait_s: Option<u64>,
}

/// Another card takes a card's place.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReplaceWish {
    /// The card that takes its place: just issued, of the same type, on the reader.
    #[schema(value_type = String)]
    new_card_no: CardNo,
    /// `lost` (default; only types with a loss report) or `defect`.
    #[serde(default)]
    #[schema(value_type = String)]
    why: Why,
    /// The reader with the new card; default: the till's own, or the only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reader: Option<String>,
    /// Seconds to wait for the card, 1 to 60; default 8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    wait_s: Option<u64>,
}

/// Another validity.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ExtendWish {
    /// The last day it is good; absent: without end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = "date")]
    valid_until: Option<jiff::civil::Date>,
    /// The reader with the card; default: the till's own, or the only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reader: Option<String>,
    /// Seconds to wait for the card, 1 to 60; default 8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    wait_s: Option<u64>,
}

/// Takes a card back: the principal is paid out, bonus, points and coupons are forfeited, and the
/// card is dead.
#[utoipa::path(post, operation_id = "return_card", path = "/v1/cards/{card_no}/return", tag = "cards", request_body = ReturnWish,
    params(("card_no" = String, Path, description = "Card"),
        ("Idempotency-Key" = String, Header, description = "A new one for every deed; the same one when asked again")),
    responses((status = 200, description = "Paid out and dead (`card.transaction` data)", body = Object),
        (status = 202, description = "Not settled: `code` is `tap-again` when the card left; the same key follows it")))]
pub(super) async fn give_back(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Principal>,
    card: Segment,
    IdempotencyKey(key): IdempotencyKey,
    Json(wish): Json<ReturnWish>,
) -> Result<Response, Problem> {
    let asked = json!({ "card_no": card.0, "what": "return", "body": wish });
    let ReturnWish { tender, pin, reader, wait_s } = wish;
    if !tender.is_told() {
        return Err(counter::invalid(
            "tender",
            "退款方式须为 cash、wechat、alipay 或 bank",
            "paid out is cash, wechat, alipay or bank",
        ));
    }
    // It pays out of the drawer.
    counter::needs(&caller, &[Scope::Issue, Scope::Spend])?;
    let life = Life::Return { tender };
    let deed = Deed { card_no: card_of(&card)?, kind: TransactionKind::Refund, life, pin, reader, wait_s };
    deed.make(&shared, &caller, key, asked).await
}

/// Moves what a lost or defect card held, as the store knows it, to the fresh card on the reader,
/// once. The old card need not be there, and is dead from then on.
#[utoipa::path(post, operation_id = "replace_card", path = "/v1/cards/{card_no}/replace", tag = "cards", request_body = ReplaceWish,
    params(("card_no" = String, Path, description = "The card that goes"),
        ("Idempotency-Key" = String, Header, description = "A new one for every deed; the same one when asked again")),
    responses((status = 200, description = "On the new card (`card.transaction` data)", body = Object),
        (status = 202, description = "Not settled: `code` is `tap-again` when the new card left; the same key follows it"),
        (status = 404, description = "`card-not-known`: the old card was never seen at this store", body = Object)))]
pub(super) async fn replace(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Principal>,
    card: Segment,
    IdempotencyKey(key): IdempotencyKey,
    Json(wish): Json<ReplaceWish>,
) -> Result<Response, Problem> {
    let asked = json!({ "card_no": card.0, "what": "replace", "body": wish });
    let ReplaceWish { new_card_no, why, reader, wait_s } = wish;
    let life = Life::Replace { old_card_no: card_of(&card)?, why };
    let deed =
        Deed { card_no: new_card_no, kind: TransactionKind::Transfer, life, pin: None, reader, wait_s };
    deed.make(&shared, &caller, key, asked).await
}

/// Changes how long a card is good, also of one that has expired, by the rules of its type.
#[utoipa::path(post, operation_id = "extend_card", path = "/v1/cards/{card_no}/extend", tag = "cards", request_body = ExtendWish,
    params(("card_no" = String, Path, description = "Card"),
        ("Idempotency-Key" = String, Header, description = "A new one for every deed; the same one when asked again")),
    responses((status = 200, description = "On the card (`card.transaction` data)", body = Object),
        (status = 202, description = "Not settled: `code` is `tap-again` when the card left; the same key follows it")))]
pub(super) async fn extend(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Principal>,
    card: Segment,
    IdempotencyKey(key): IdempotencyKey,
    Json(wish): Json<ExtendWish>,
) -> Result<Response, Problem> {
    let asked = json!({ "card_no": card.0, "what": "extend", "body": wish });
    let ExtendWish { valid_until, reader, wait_s } = wish;
    let life = Life::Extend { valid_until };
    let deed =
        Deed { card_no: card_of(&card)?, kind: TransactionKind::Adjust, life, pin: None, reader, wait_s };
    deed.make(&shared, &caller, key, asked).await
}

/// What is to be done with the card on the reader.
struct Deed {
    card_no: CardNo,
    kind: TransactionKind,
    life: Life,
    pin: Option<Pin>,
    reader: Option<String>,
    wait_s: Option<u64>,
}

impl Deed {
    async fn make(
        mut self,
        shared: &Arc<Shared>,
        caller: &Principal,
        key: Option<String>,
        asked: Value,
    ) -> Result<Response, Problem> {
        let key = counter::key_of(key)?;
        let id = match counter::repeated(shared, caller, &key, TRANSACTION, &asked).await? {
            Some(id) => id,
            None => {
                let reader = counter::reader_of(shared, caller, self.reader.as_deref())?;
                let pin = self.pin.take();
                let mut deal = self.deal(counter::by(caller)?, key.clone());
                deal.pin_checked = card_pin::checked(shared, &deal, pin, &reader).await?;
                counter::commit(shared, caller, TRANSACTION, &reader, Some(key), asked, json!(deal)).await?
            }
        };
        let stand = counter::stand(shared, id).await?;
        answer(shared, id, stand).await
    }

    fn deal(self, by: crate::card::counter::By, idempotency_key: String) -> Deal {
        Deal {
            card_no: self.card_no,
            kind: self.kind,
            amount_fen: None,
            points: None,
            coupon: None,
            items: Vec::new(),
            tenders: Vec::new(),
            order: None,
            original_transaction_id: None,
            to_card_no: None,
            adjustment: None,
            pin_checked: false,
            life: Some(self.life),
            wait_s: self.wait_s,
            quoted: None,
            by,
            idempotency_key,
        }
    }
}
