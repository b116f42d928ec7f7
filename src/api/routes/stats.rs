//! `GET /v1/stats`: the figures of a business day by operator, till, tender and kind, added up
//! from the ledger at each request.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::super::extract::Params;
use super::super::problem::Problem;
use super::super::state::Shared;
use crate::clock::UtcMillis;
use crate::event::ledger::{TenderKind, TransactionKind};
use crate::money::Fen;
use crate::store::StoreError;
use crate::store::ledger_figures::{Figures, Share, Sum, TenderSum};

/// What transactions of one kind add up to. Amounts are the effect on cards, signed.
#[derive(Serialize, ToSchema)]
pub(super) struct SumView {
    /// Committed transactions.
    count: u64,
    /// Effect on balances, in fen.
    #[schema(value_type = i64)]
    amount_fen: Fen,
    /// Of it, principal.
    #[schema(value_type = i64)]
    principal_fen: Fen,
    /// Of it, bonus.
    #[schema(value_type = i64)]
    bonus_fen: Fen,
    /// Effect on points.
    points: i64,
    /// Points that sales earned; below zero what refunds took back.
    points_earned: i64,
    /// Points that were paid with; below zero what refunds gave back.
    points_used: i64,
    /// What card classes took off, in fen; of refunds and voids with a minus.
    #[schema(value_type = i64)]
    discount_fen: Fen,
    /// Coupons that were used or given; what refunds and voids undo has a minus.
    coupons: i64,
    /// Gifts, pieces; what came back has a minus.
    gifts: i64,
    /// What was taken by tender, in fen; below zero what went back.
    #[schema(value_type = Object)]
    tenders: BTreeMap<TenderKind, Fen>,
}

/// By kind of transaction: `topup`, `spend`, `earn`, `redeem`, `coupon`, `adjust`, `transfer`,
/// `refund`, `void`; a kind that did not happen is absent.
type Kinds = BTreeMap<TransactionKind, SumView>;

/// Of one operator.
#[derive(Serialize, ToSchema)]
pub(super) struct OperatorFigures {
    /// Who.
    operator: String,
    /// Cards given out.
    issued: u64,
    /// By kind.
    #[schema(value_type = Object)]
    kinds: Kinds,
}

/// Of one till.
#[derive(Serialize, ToSchema)]
pub(super) struct TillFigures {
    /// Where.
    till: String,
    /// Cards given out.
    issued: u64,
    /// By kind.
    #[schema(value_type = Object)]
    kinds: Kinds,
}

/// Of one tender.
#[derive(Serialize, ToSchema)]
pub(super) struct TenderFigures {
    /// `purse`, `points`, `coupon`, `cash`, `wechat`, `alipay` or `bank`.
    #[schema(value_type = String)]
    tender: TenderKind,
    /// Transactions in which it was used.
    count: u64,
    /// What was taken, in fen, refunds and voids taken off.
    #[schema(value_type = i64)]
    amount_fen: Fen,
}

/// The figures of a business day. Each list adds up to `total`.
#[derive(Serialize, ToSchema)]
pub(super) struct Stats {
    /// The day, `YYYY-MM-DD`.
    day: String,
    /// When a business day begins, `HH:MM` in `timezone`.
    business_day_start: String,
    /// Name of the time zone.
    timezone: String,
    /// Cards given out.
    issued: u64,
    /// Transactions of the day that are not settled and may still come to it.
    unsettled: u64,
    /// Of the whole day, by kind.
    #[schema(value_type = Object)]
    total: Kinds,
    /// By operator.
    by_operator: Vec<OperatorFigures>,
    /// By till.
    by_till: Vec<TillFigures>,
    /// By tender.
    by_tender: Vec<TenderFigures>,
}

/// Which day.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Day {
    /// Business day, `YYYY-MM-DD`; today's when left out.
    day: Option<String>,
}

impl From<Sum> for SumView {
    fn from(sum: Sum) -> Self {
        let Sum { count, amount_fen, principal_fen, bonus_fen, points, points_earned, points_used, .. } = sum;
        let Sum { discount_fen, coupons, gifts, tenders, .. } = sum;
        Self {
            count,
            amount_fen,
            principal_fen,
            bonus_fen,
            points,
            points_earned,
            points_used,
            discount_fen,
            coupons,
            gifts,
            tenders,
        }
    }
}

fn kinds(sums: BTreeMap<TransactionKind, Sum>) -> Kinds {
    sums.into_iter().map(|(kind, sum)| (kind, sum.into())).collect()
}

/// The figures of a business day: what committed transactions add up to. One counts on the day on
/// which the till began it; until it is settled it is in `unsettled`.
#[utoipa::path(get, operation_id = "stats", path = "/v1/stats", tag = "cards", params(Day),
    responses((status = 200, description = "The figures", body = Stats)))]
pub(super) async fn stats(
    State(shared): State<Arc<Shared>>,
    Params(day): Params<Day>,
) -> Result<Answer<Stats>, Problem> {
    let shop = shared.shop();
    let day = match day.day {
        // Ten characters: a moment would be read as its day, in whatever zone.
        Some(typed) => {
            typed.parse::<Date>().ok().filter(|_| typed.len() == 10).ok_or_else(|| no_day(&typed))?
        }
        None => shop.day_of(UtcMillis::now()),
    };
    let wanted = day.to_string();
    let figures = shared.context.store.read(move |r| r.figures(&wanted)).await?;
    let timezone = shop.timezone.iana_name().unwrap_or("UTC").to_owned();
    Ok(Answer(view(figures, timezone, shop.business_day_start.to_string())?))
}

fn view(figures: Figures, timezone: String, business_day_start: String) -> Result<Stats, StoreError> {
    let by_operator = figures.by_operator()?.into_iter();
    let by_till = figures.by_till()?.into_iter();
    let issued = figures.cards_issued();
    let Figures { day, by_tender, total, unsettled, .. } = figures;
    let tender = |(tender, sum): (TenderKind, TenderSum)| {
        let TenderSum { count, amount_fen } = sum;
        TenderFigures { tender, count, amount_fen }
    };
    Ok(Stats {
        day,
        business_day_start,
        timezone,
        issued,
        unsettled,
        total: kinds(total),
        by_operator: by_operator
            .map(|(operator, Share { issued, kinds: sums })| OperatorFigures {
                operator,
                issued,
                kinds: kinds(sums),
            })
            .collect(),
        by_till: by_till
            .map(|(till, Share { issued, kinds: sums })| TillFigures { till, issued, kinds: kinds(sums) })
            .collect(),
        by_tender: by_tender.into_iter().map(tender).collect(),
    })
}

fn no_day(typed: &str) -> Problem {
    let shown: String = typed.chars().take(32).collect();
    Problem::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "day-invalid",
        format!("{shown:?} 不是日期；请写成 2026-11-22"),
        format!("{shown:?} is no day; write it like 2026-11-22"),
    )
}
