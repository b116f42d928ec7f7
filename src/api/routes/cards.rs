//! `/v1/readers`: the readers and the card now in the field.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use utoipa::{IntoParams, ToSchema};

use super::super::extract::{Params, Segment, missing};
use super::super::principal::Principal;
use super::super::problem::Problem;
use super::super::state::Shared;
use super::leases::{self, LeaseView};
use crate::clock::UtcMillis;
use crate::config::tables::{ReaderKind, ReaderRole};
use crate::event::card::{CardRefused, CardTapped, Member, MemberCoupon};
use crate::event::device::{DeviceKind, DeviceStatus};
use crate::event::{Class, EventData, Text};
use crate::ident::{CardUid, DeviceId};
use crate::store::devices::CardInField;
use crate::store::{Reader, StoreError};

/// The longest a caller may wait for a card, in seconds.
const LONGEST_WAIT_S: u64 = 60;
/// How far back a tap is looked for: each reader of a store has a few between two looks.
const LATEST_CARD_EVENTS: usize = 64;

/// The card now in a field.
#[derive(Serialize, ToSchema)]
pub(super) struct CardView {
    /// UID, upper-case hex.
    #[schema(value_type = String)]
    uid: CardUid,
    /// Technology as probed, e.g. `mifare-classic-1k`.
    #[schema(value_type = String)]
    technology: crate::event::card::Technology,
    /// Answer to reset, upper-case hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    atr: Option<String>,
    /// What a code or stripe says; none of a chip.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    /// Since when.
    #[schema(value_type = String, format = "date-time")]
    since: UtcMillis,
    /// The member on it, as `card.tapped` told; absent on a card that only identifies.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    member: Option<Member>,
    /// Why it is not served, as `card.refused` told.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    refused: Option<RefusalView>,
}

/// Why a card is not served.
#[derive(Serialize)]
struct RefusalView {
    reason: String,
    text: Text,
}

impl From<CardInField> for CardView {
    fn from(card: CardInField) -> Self {
        let CardInField { uid, technology, atr, since, .. } = card;
        Self { uid, technology, atr, code: None, since, member: None, refused: None }
    }
}

/// A card with what was last told of it. Looked for among the latest card events only:
/// it is told in the same transaction that puts the card into the field.
fn told(r: &Reader<'_>, card: CardInField) -> Result<CardView, StoreError> {
    let reader = card.reader.clone();
    let mut view = CardView::from(card);
    for logged in r.latest_of(Class::Card, LATEST_CARD_EVENTS)? {
        if let Ok(tapped) = logged.event.data_as::<CardTapped>()
            && logged.event.kind == CardTapped::TYPE
            && (&tapped.reader, &tapped.uid) == (&reader, &view.uid)
        {
            view.code = tapped.code;
            view.member = tapped.member.map(|member| as_it_stands(r, &view.uid, member)).transpose()?;
            break;
        }
        if let Ok(refused) = logged.event.data_as::<CardRefused>()
            && logged.event.kind == CardRefused::TYPE
            && !refused.is_of_a_pin()
            && (&refused.reader, refused.uid.as_ref()) == (&reader, Some(&view.uid))
        {
            view.refused = Some(RefusalView { reason: refused.reason, text: refused.text });
            break;
        }
    }
    Ok(view)
}

/// The member as told, with what was done on the card since.
fn as_it_stands(r: &Reader<'_>, uid: &CardUid, mut member: Member) -> Result<Member, StoreError> {
    let row = r.member_card(&member.card_no)?.filter(|row| row.seen.uid == *uid);
    if let Some(holding) = row.map(|row| row.seen.holding)
        && holding.counter > member.counter
    {
        let mut coupons: Vec<MemberCoupon> = Vec::new();
        for same in holding.coupons.chunk_by(|a, b| a == b) {
            let kind = same.first().and_then(|coupon| u8::try_from(coupon.0).ok());
            let left = u8::try_from(same.len()).unwrap_or(u8::MAX);
            coupons.extend(kind.map(|kind| MemberCoupon { kind, left }));
        }
        member.balance_fen = holding.balance().unwrap_or(member.balance_fen);
        member.principal_fen = holding.principal_fen;
        member.bonus_fen = holding.bonus_fen;
        member.points = u32::try_from(holding.points).unwrap_or(member.points);
        member.coupons = coupons;
        member.counter = holding.counter;
    }
    Ok(member)
}

/// One configured reader.
#[derive(Serialize, ToSchema)]
pub(super) struct ReaderView {
    /// Its id.
    #[schema(value_type = String)]
    id: DeviceId,
    /// `pcsc`, `vpcd`, `pn532`, `em4100` or `wedge`.
    #[schema(value_type = String)]
    kind: ReaderKind,
    /// `sam` of a slot that a security module stays in; absent where members' cards are laid.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    role: Option<ReaderRole>,
    /// The till whose home reader it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    till: Option<DeviceId>,
    /// `absent`, `starting`, `ready`, `degraded` or `failed`.
    #[schema(value_type = String)]
    state: DeviceStatus,
    /// Stable code of what is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// What is wrong and what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    /// Since when; absent while it never told.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = "date-time")]
    since: Option<UtcMillis>,
    /// The card in the field.
    #[serde(skip_serializing_if = "Option::is_none")]
    card: Option<CardView>,
    /// Who works with it now.
    #[serde(skip_serializing_if = "Option::is_none")]
    lease: Option<LeaseView>,
}

/// All configured readers.
#[derive(Serialize, ToSchema)]
pub(super) struct ReaderList {
    readers: Vec<ReaderView>,
}

/// The readers with their state and the card in each field, but on a reader that another till
/// has taken.
#[utoipa::path(get, path = "/v1/readers", tag = "cards", responses((status = 200, description = "The readers", body = ReaderList)))]
pub(super) async fn readers(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Principal>,
) -> Result<Json<ReaderList>, Problem> {
    let directory = shared.directory();
    let (devices, mut cards) =
        shared.context.store.read(|r| Ok((r.devices(DeviceKind::Reader)?, r.cards_in_field()?))).await?;
    let now = Instant::now();
    let view = |entry: &super::super::state::ReaderEntry| {
        let device = devices.iter().find(|device| device.id == entry.id);
        let card = cards.iter().position(|card| card.reader == entry.id).map(|at| cards.swap_remove(at));
        ReaderView {
            id: entry.id.clone(),
            kind: entry.kind,
            role: Some(entry.role).filter(|role| *role != ReaderRole::Card),
            till: entry.till.clone(),
            state: device.map_or(DeviceStatus::Starting, |device| device.state.state),
            reason: device.and_then(|device| device.state.reason.clone()),
            detail: device.and_then(|device| device.state.detail.clone()),
            since: device.map(|device| device.since),
            card: card.filter(|_| may_see_card(&shared, &entry.id, &caller)).map(CardView::from),
            lease: shared.leases.of(&entry.id, now).map(|lease| LeaseView::of(&lease, now)),
        }
    };
    Ok(Json(ReaderList { readers: directory.readers.iter().map(view).collect() }))
}

/// How long to wait.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Wait {
    /// Seconds to wait for a card, 0 to 60.
    wait: Option<u64>,
}

/// The card now in the field; waits for one when asked to. Of a reader that another till has
/// taken, a till gets none.
#[utoipa::path(get, path = "/v1/readers/{id}/card", tag = "cards", params(("id" = String, Path, description = "Reader"), Wait),
    responses((status = 200, description = "The card", body = CardView), (status = 204, description = "No card in the field")))]
pub(super) async fn card(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Principal>,
    reader: Segment,
    Params(wait): Params<Wait>,
) -> Result<Response, Problem> {
    let directory = shared.directory();
    let Some(id) = directory.readers.iter().map(|entry| entry.id.clone()).find(|id| id.as_str() == reader.0)
    else {
        return Err(missing("reader", &reader.0));
    };
    let wait = Duration::from_secs(wait.wait.unwrap_or(0).min(LONGEST_WAIT_S));
    let until = Instant::now() + wait;
    let mut head = shared.context.store.head();
    loop {
        head.borrow_and_update();
        if !may_see_card(&shared, &id, &caller) {
            leases::check(&shared, &id, &caller)?;
        }
        if let Some(card) = card_at(&shared, id.clone()).await? {
            return Ok(Json(card).into_response());
        }
        tokio::select! {
            changed = head.changed() => if changed.is_err() { return Err(Problem::stopping()) },
            () = tokio::time::sleep_until(until) => return Ok(StatusCode::NO_CONTENT.into_response()),
            () = shared.stop.cancelled() => return Err(Problem::stopping()),
        }
    }
}

/// Another till's customer is none of this till's business; who only looks may.
fn may_see_card(shared: &Shared, reader: &DeviceId, caller: &Principal) -> bool {
    caller.till().is_none() || leases::check(shared, reader, caller).is_ok()
}

async fn card_at(shared: &Shared, reader: DeviceId) -> Result<Option<CardView>, StoreError> {
    let read = move |r: &Reader<'_>| {
        let card = r.cards_in_field()?.into_iter().find(|card| card.reader == reader);
        card.map(|card| told(r, card)).transpose()
    };
    shared.context.store.read(read).await
}
