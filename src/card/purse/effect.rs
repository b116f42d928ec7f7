//! What one transaction does to what a card holds. Refused before any card is touched:
//! overflow, anything below zero, more than the card or the law takes.

use super::Refusal;
use crate::config::purse::{MAX_FEN, PurseTable, TypeRule};
use crate::event::ledger::CardType;
use crate::money::{CouponId, Fen, Holding};

/// Coupons of one kind on a card, at most: a layout counts them in a byte.
const MOST_OF_A_KIND: usize = 255;

/// What changes; the counter rises by one besides.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Effect {
    /// On the principal, signed.
    pub principal_fen: Fen,
    /// On the bonus, signed.
    pub bonus_fen: Fen,
    /// On the points, signed.
    pub points: i64,
    /// A coupon that leaves the card.
    pub take: Option<CouponId>,
    /// A coupon that comes onto the card.
    pub give: Option<CouponId>,
    /// All coupons leave: the card is given back, or another one takes its place.
    pub take_all: bool,
    /// Coupons of the card whose place it takes, in order.
    pub give_all: Vec<CouponId>,
}

/// What a card takes at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caps {
    /// Balance.
    pub max_balance_fen: Fen,
    /// Whether bonus counts towards it.
    pub bonus_counts: bool,
    /// Points.
    pub max_points: i64,
    /// Kinds of coupon: the slots of its layout.
    pub coupon_slots: usize,
}

impl Caps {
    /// Of a type of card, on a layout with so many coupon slots.
    #[must_use]
    pub fn of(rules: &PurseTable, card_type: CardType, coupon_slots: usize) -> Self {
        let TypeRule { max_balance_fen, bonus_counts, .. } = *type_rule(rules, card_type);
        Self { max_balance_fen, bonus_counts, max_points: rules.points.max_on_card.into(), coupon_slots }
    }
}

/// The rules of a type of card.
#[must_use]
pub fn type_rule(rules: &PurseTable, card_type: CardType) -> &TypeRule {
    match card_type {
        CardType::Named => &rules.named,
        CardType::Anonymous => &rules.anonymous,
    }
}

impl Effect {
    /// On the balance, signed; `None` on overflow.
    #[must_use]
    pub fn amount(&self) -> Option<Fen> {
        self.principal_fen.checked_add(self.bonus_fen)
    }

    /// What it takes off the card, points at their worth: what the limits without headquarters
    /// count. Points that a refund takes back are set off against the money it gives. `None` on
    /// overflow.
    #[must_use]
    pub fn takes(&self, point_worth: Fen) -> Option<Fen> {
        let points = self.points.min(0).checked_neg()?.checked_mul(point_worth.0)?;
        points.checked_sub(self.amount()?.0).map(|fen| Fen(fen.max(0)))
    }

    /// Whether anything of worth leaves the card, also points that a refund takes back and coupons.
    /// `None` on overflow.
    #[must_use]
    pub fn takes_off(&self, point_worth: Fen) -> Option<bool> {
        let gives = self.amount()?.0 > 0;
        let takes = self.takes(point_worth)?.0 > 0;
        Some(takes || self.points < 0 && !gives || self.take.is_some() || self.take_all)
    }
}

/// What the card holds afterwards. A cap refuses only what adds: a card that is above a cap
/// that was lowered can still be spent.
///
/// # Errors
/// [`Refusal`]: the card must not be touched.
pub fn apply(holding: &Holding, effect: &Effect, caps: &Caps) -> Result<Holding, Refusal> {
    let mut after = holding.clone();
    let sum = |fen: Fen, by: Fen| fen.checked_add(by).ok_or(Refusal::AmountNotAllowed);
    after.principal_fen = sum(holding.principal_fen, effect.principal_fen)?;
    after.bonus_fen = sum(holding.bonus_fen, effect.bonus_fen)?;
    if after.principal_fen.0 < 0 || after.bonus_fen.0 < 0 {
        return Err(Refusal::NotEnoughBalance);
    }
    let counted = |holding: &Holding| {
        let bonus = if caps.bonus_counts { holding.bonus_fen } else { Fen(0) };
        sum(holding.principal_fen, bonus)
    };
    let balance = sum(after.principal_fen, after.bonus_fen)?;
    let limit = caps.max_balance_fen.min(Fen(MAX_FEN));
    if balance.0 > MAX_FEN || counted(&after)? > limit && counted(&after)? > counted(holding)? {
        return Err(Refusal::BalanceOverLimit);
    }
    after.points = holding.points.checked_add(effect.points).ok_or(Refusal::PointsOverLimit)?;
    if after.points < 0 {
        return Err(Refusal::NotEnoughPoints);
    }
    if effect.points > 0 && after.points > caps.max_points {
        return Err(Refusal::PointsOverLimit);
    }
    if effect.take_all {
        after.coupons.clear();
    }
    if let Some(coupon) = effect.take {
        let slot = after.coupons.iter().position(|held| *held == coupon);
        after.coupons.remove(slot.ok_or(Refusal::CouponNotOnCard)?);
    }
    for coupon in effect.give.iter().chain(&effect.give_all).copied() {
        let place = after.coupons.partition_point(|held| *held <= coupon);
        after.coupons.insert(place, coupon);
        let same = after.coupons.iter().filter(|held| **held == coupon).count();
        if same > MOST_OF_A_KIND || after.coupons.chunk_by(|a, b| a == b).count() > caps.coupon_slots {
            return Err(Refusal::CouponSlotsFull);
        }
    }
    after.counter = holding.counter.checked_add(1).ok_or(Refusal::CounterExhausted)?;
    Ok(after)
}
