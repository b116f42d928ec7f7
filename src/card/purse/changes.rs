//! What changes a card without selling anything: top-up, points earned and redeemed, coupons,
//! putting right by hand, transfers.

use uuid::Uuid;

use super::life::{is_replacement, reward_due};
use super::plan::{Plan, add, subtract, written};
use super::{Effect, Refusal};
use crate::config::purse::{MAX_FEN, PurseTable};
use crate::event::ledger::{CardTransaction, Item, Outcome, Tender, TenderKind, TransactionKind};
use crate::ident::CardNo;
use crate::money::{CouponId, Fen, Holding};

/// Money onto the card: the amount as principal, the reward for it as bonus. `tenders` is what
/// the till took; all of it must add up.
///
/// # Errors
/// [`Refusal`].
pub fn top_up(amount: Fen, tenders: &[Tender], rules: &PurseTable) -> Result<Plan, Refusal> {
    let amount = written(amount)?;
    let mut plan = Plan::new(TransactionKind::Topup);
    plan.line("topup", "充值", "Top-up", amount)?;
    let mut told = Fen(0);
    for tender in tenders {
        if !tender.kind.is_told() {
            return Err(Refusal::TendersDoNotAddUp);
        }
        told = add(told, written(tender.amount_fen)?)?;
        plan.tender(*tender);
    }
    if told != amount {
        return Err(Refusal::TendersDoNotAddUp);
    }
    let reached = rules.reward.iter().filter(|reward| reward.from_fen <= amount);
    let bonus = reached.max_by_key(|reward| reward.from_fen).map_or(Fen(0), |reward| reward.bonus_fen);
    if bonus.0 > 0 {
        let (zh, en) = (format!("充值赠送 {bonus}"), format!("Bonus for the top-up {bonus}"));
        plan.line("reward", zh, en, Fen(0))?;
    }
    plan.effect = Effect { principal_fen: amount, bonus_fen: bonus, ..Effect::default() };
    Ok(plan)
}

fn whole(points: i64) -> Result<i64, Refusal> {
    if (1..=MAX_FEN).contains(&points) { Ok(points) } else { Err(Refusal::AmountNotAllowed) }
}

/// Points onto the card, for something the till knows of.
///
/// # Errors
/// [`Refusal::AmountNotAllowed`].
pub fn earn(points: i64) -> Result<Plan, Refusal> {
    let mut plan = Plan::new(TransactionKind::Earn);
    plan.effect.points = whole(points)?;
    plan.points_earned = points;
    plan.line("earn", format!("积分 +{points}"), format!("Points +{points}"), Fen(0))?;
    Ok(plan)
}

/// Points for gifts. What the gifts are worth in money is no part of it.
///
/// # Errors
/// [`Refusal`].
pub fn redeem(points: i64, gifts: Vec<Item>) -> Result<Plan, Refusal> {
    let mut plan = Plan::new(TransactionKind::Redeem);
    plan.effect.points = whole(points)?.saturating_neg();
    plan.points_used = points;
    super::quote::check_items(&gifts)?;
    plan.items = gifts;
    plan.line("redeem", format!("积分兑换 −{points}"), format!("Points redeemed −{points}"), Fen(0))?;
    Ok(plan)
}

/// A coupon onto the card.
///
/// # Errors
/// [`Refusal::CouponUnknown`].
pub fn give_coupon(id: CouponId, rules: &PurseTable) -> Result<Plan, Refusal> {
    let rule = rules.coupon.iter().find(|rule| rule.id == id).ok_or(Refusal::CouponUnknown)?;
    let mut plan = Plan::new(TransactionKind::Coupon);
    plan.effect.give = Some(id);
    plan.coupon = Some(id);
    plan.line("coupon", format!("发券：{}", rule.name.zh), format!("Coupon: {}", rule.name.en), Fen(0))?;
    Ok(plan)
}

/// Puts a card right by hand: signed, by somebody who may.
///
/// # Errors
/// [`Refusal::AmountNotAllowed`].
pub fn adjust(principal: Fen, bonus: Fen, points: i64) -> Result<Plan, Refusal> {
    let within = |number: i64| (-MAX_FEN..=MAX_FEN).contains(&number);
    if !(within(principal.0) && within(bonus.0) && within(points))
        || (principal.0, bonus.0, points) == (0, 0, 0)
    {
        return Err(Refusal::AmountNotAllowed);
    }
    let mut plan = Plan::new(TransactionKind::Adjust);
    plan.effect = Effect { principal_fen: principal, bonus_fen: bonus, points, ..Effect::default() };
    plan.line("adjust", "人工调整", "Put right by hand", add(principal, bonus)?)?;
    Ok(plan)
}

/// The giving half of a transfer: principal, and the reward that its top-ups had earned with it
/// (`inflows` as of [`reward_due`]). Left behind, the principal could be paid out at the other card
/// and its reward spent here. What the house gave beyond that stays. It is committed first; the
/// receiving half names it.
///
/// # Errors
/// [`Refusal`]; [`Refusal::NotEnoughBalance`] where the reward was spent before its principal.
pub fn transfer_out(
    amount: Fen,
    holding: &Holding,
    inflows: &[(Fen, Fen)],
    from: &CardNo,
    to: &CardNo,
) -> Result<Plan, Refusal> {
    if from == to {
        return Err(Refusal::TransferNotAllowed);
    }
    let stays = subtract(holding.principal_fen, written(amount)?)?;
    // The oldest goes first, as in a sale.
    let along = subtract(reward_due(inflows, holding.principal_fen)?, reward_due(inflows, stays)?)?;
    let mut plan = Plan::new(TransactionKind::Transfer);
    plan.effect.principal_fen = subtract(Fen(0), amount)?;
    plan.effect.bonus_fen = subtract(Fen(0), along)?;
    plan.counterparty = Some(to.clone());
    plan.line("transfer-out", format!("转出至 {to}"), format!("Transfer to {to}"), amount)?;
    if along.0 > 0 {
        let (zh, en) = (format!("随转赠送 {along}"), format!("Its bonus goes along {along}"));
        plan.line("transfer-bonus", zh, en, along)?;
    }
    plan.tender(Tender { kind: TenderKind::Purse, amount_fen: add(amount, along)? });
    Ok(plan)
}

/// The receiving half. `giving` is the other card's transaction, `earlier` what followed it.
///
/// # Errors
/// [`Refusal::TransferNotAllowed`] unless the giving half is committed, for this card, and not
/// received yet; and for that of a replacement, which is received as a whole
/// ([`replace_in`](super::life::replace_in)).
pub fn transfer_in(giving: &CardTransaction, earlier: usize, to: &CardNo) -> Result<Plan, Refusal> {
    let fits = giving.kind == TransactionKind::Transfer
        && giving.outcome == Outcome::Committed
        && giving.original_transaction_id.is_none()
        && giving.counterparty_card_no.as_ref() == Some(to)
        && !is_replacement(giving)
        && earlier == 0;
    if !fits {
        return Err(Refusal::TransferNotAllowed);
    }
    let from = &giving.card_no;
    let mut plan = Plan::new(TransactionKind::Transfer);
    plan.effect.principal_fen = subtract(Fen(0), giving.principal_fen)?;
    plan.effect.bonus_fen = subtract(Fen(0), giving.bonus_fen)?;
    plan.counterparty = Some(from.clone());
    plan.original = Some(giving.transaction_id);
    plan.line("transfer-in", format!("由 {from} 转入"), format!("Transfer from {from}"), Fen(0))?;
    Ok(plan)
}

/// Whether a transaction is one that another one can follow.
pub(super) fn committed(original: &CardTransaction) -> Result<Uuid, Refusal> {
    match original.outcome {
        Outcome::Committed => Ok(original.transaction_id),
        Outcome::Aborted | Outcome::Unknown => Err(Refusal::NotRefundable),
    }
}
