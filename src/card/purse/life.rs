//! What changes with a card's life: it is given back, another one takes its place, its validity
//! is another one. What does not live here: how cards come to be, and who may.

use super::plan::{Plan, add, share_down, subtract};
use super::{Effect, Refusal};
use crate::event::ledger::{
    CardStanding, CardTransaction, Outcome, Tender, TenderKind, TransactionKind, Validity,
};
use crate::ident::CardNo;
use crate::money::{Fen, Holding};

const NOTHING: Fen = Fen(0);

/// All that a card holds leaves it.
fn emptied(holding: &Holding) -> Result<Effect, Refusal> {
    Ok(Effect {
        principal_fen: subtract(NOTHING, holding.principal_fen)?,
        bonus_fen: subtract(NOTHING, holding.bonus_fen)?,
        points: holding.points.checked_neg().ok_or(Refusal::AmountNotAllowed)?,
        take_all: true,
        ..Effect::default()
    })
}

/// The reward that has to be there when so much principal is given back or sent on: of what came
/// in, principal and the bonus earned with it, newest first, as far as it makes up that principal.
/// Sales use up the oldest.
///
/// # Errors
/// [`Refusal::AmountNotAllowed`] on overflow.
pub fn reward_due(inflows: &[(Fen, Fen)], principal: Fen) -> Result<Fen, Refusal> {
    let (mut rest, mut due) = (principal, NOTHING);
    for (came, bonus) in inflows.iter().filter(|(came, bonus)| came.0 > 0 && bonus.0 >= 0) {
        if rest.0 <= 0 {
            break;
        }
        let part = rest.min(*came);
        let share = share_down(bonus.0, part.0, came.0).ok_or(Refusal::AmountNotAllowed)?;
        (rest, due) = (subtract(rest, part)?, add(due, Fen(share))?);
    }
    Ok(due)
}

/// A card is given back: the principal is paid out by `tender`, what the house gave (bonus, points,
/// coupons) is forfeited. Reward for principal that is paid out and was spent before comes off what
/// is paid (`inflows` as of [`reward_due`]). In the ledger a refund without an original: like one of
/// a top-up it takes money off the card and out of the drawer.
///
/// # Errors
/// [`Refusal::TendersDoNotAddUp`] when the tender is none that a till pays out.
pub fn give_back(holding: &Holding, tender: TenderKind, inflows: &[(Fen, Fen)]) -> Result<Plan, Refusal> {
    if !tender.is_told() {
        return Err(Refusal::TendersDoNotAddUp);
    }
    let mut plan = Plan::new(TransactionKind::Refund);
    plan.effect = emptied(holding)?;
    plan.coupons.clone_from(&holding.coupons);
    plan.status_after = Some(CardStanding::Returned);
    plan.line("return", "退卡，退还本金", "Card returned, principal paid out", holding.principal_fen)?;
    let due = reward_due(inflows, holding.principal_fen)?;
    let spent = subtract(due, holding.bonus_fen)?.max(NOTHING).min(holding.principal_fen);
    if spent.0 > 0 {
        let (zh, en) = ("扣回已使用的充值赠送", "Reward that was spent, taken off");
        plan.line("reward-taken-back", zh, en, subtract(NOTHING, spent)?)?;
    }
    plan.tender(Tender { kind: tender, amount_fen: plan.due_fen });
    let Holding { bonus_fen, points, coupons, .. } = holding;
    if bonus_fen.0 > 0 {
        let (zh, en) = (format!("赠送作废 {bonus_fen}"), format!("Bonus forfeited {bonus_fen}"));
        plan.line("bonus-forfeited", zh, en, NOTHING)?;
    }
    if *points > 0 {
        let (zh, en) = (format!("积分作废 {points}"), format!("Points forfeited {points}"));
        plan.line("points-forfeited", zh, en, NOTHING)?;
    }
    if !coupons.is_empty() {
        let count = coupons.len();
        let (zh, en) = (format!("优惠券作废 {count} 张"), format!("Coupons forfeited: {count}"));
        plan.line("coupons-forfeited", zh, en, NOTHING)?;
    }
    Ok(plan)
}

/// The giving half of a replacement: all that the journal says an absent card held. From its
/// commit on that card is dead, and what it held waits for the card that takes its place.
///
/// # Errors
/// [`Refusal::TransferNotAllowed`] for the same card.
pub fn replace_out(holding: &Holding, old: &CardNo, new: &CardNo) -> Result<Plan, Refusal> {
    if old == new {
        return Err(Refusal::TransferNotAllowed);
    }
    let mut plan = Plan::new(TransactionKind::Transfer);
    plan.effect = emptied(holding)?;
    plan.coupons.clone_from(&holding.coupons);
    plan.counterparty = Some(new.clone());
    plan.status_after = Some(CardStanding::Replaced);
    plan.line("replace-out", format!("由新卡 {new} 替换"), format!("Replaced by card {new}"), NOTHING)?;
    Ok(plan)
}

/// The receiving half: on a fresh card, once. `giving` is the old card's half, `earlier` what
/// followed it. It may be another card than the one that was meant, where that one failed.
///
/// # Errors
/// [`Refusal::TransferNotAllowed`] unless the giving half is committed and not received yet.
pub fn replace_in(giving: &CardTransaction, earlier: usize) -> Result<Plan, Refusal> {
    let fits = is_replacement(giving) && giving.outcome == Outcome::Committed && earlier == 0;
    if !fits {
        return Err(Refusal::TransferNotAllowed);
    }
    let old = &giving.card_no;
    let mut plan = Plan::new(TransactionKind::Transfer);
    plan.effect = Effect {
        principal_fen: subtract(NOTHING, giving.principal_fen)?,
        bonus_fen: subtract(NOTHING, giving.bonus_fen)?,
        points: giving.points.checked_neg().ok_or(Refusal::AmountNotAllowed)?,
        give_all: giving.coupons.clone(),
        ..Effect::default()
    };
    plan.coupons.clone_from(&giving.coupons);
    plan.counterparty = Some(old.clone());
    plan.original = Some(giving.transaction_id);
    plan.line("replace-in", format!("替换旧卡 {old}"), format!("Replaces card {old}"), NOTHING)?;
    Ok(plan)
}

/// Whether a transaction is the giving half of a replacement.
#[must_use]
pub fn is_replacement(fact: &CardTransaction) -> bool {
    fact.kind == TransactionKind::Transfer && fact.status_after == Some(CardStanding::Replaced)
}

/// Another validity: nothing of what the card holds changes but its counter.
///
/// # Errors
/// As its neighbours; none of them happens.
pub fn extend(validity: Validity) -> Result<Plan, Refusal> {
    let mut plan = Plan::new(TransactionKind::Adjust);
    plan.validity = Some(validity);
    let (zh, en) = match validity.until {
        Some(until) => (format!("有效期改至 {until}"), format!("Valid until {until}")),
        None => ("有效期改为长期".into(), "Valid without end".into()),
    };
    plan.line("validity", zh, en, NOTHING)?;
    Ok(plan)
}
