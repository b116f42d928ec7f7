//! Giving back: refunds, in part and several times, and voids.
//!
//! What a sale was paid with goes back in one order: principal, bonus, what the till took (in
//! the order it was told), points; the coupon comes back when all of that did. Each refund
//! takes up where the one before ended, so that all of them together are the original, to the
//! fen and to the point, and never more.

use super::changes::committed;
use super::life::is_replacement;
use super::plan::{Plan, add, share_down, subtract, written};
use super::{Effect, Refusal};
use crate::event::ledger::{CardTransaction, Outcome, Tender, TenderKind, TransactionKind};
use crate::ident::CardNo;
use crate::money::{Fen, Holding};

/// What a refund or void is of.
#[derive(Debug, Clone, Copy)]
pub struct Original<'a> {
    /// The transaction.
    pub fact: &'a CardTransaction,
    /// What followed it and was not aborted ([`crate::store::Reader::following`]).
    pub earlier: &'a [CardTransaction],
    /// What of that is not settled no tap will settle: only headquarters can tell.
    pub parked: bool,
    /// The card in hand.
    pub card_no: &'a CardNo,
    /// Cards whose place it took: what they paid comes back to it.
    pub predecessors: &'a [CardNo],
}

impl Original<'_> {
    fn plan(&self, kind: TransactionKind) -> Result<Plan, Refusal> {
        let mut plan = Plan::new(kind);
        plan.original = Some(committed(self.fact)?);
        if self.fact.card_no != *self.card_no && !self.predecessors.contains(&self.fact.card_no) {
            return Err(Refusal::OtherCard);
        }
        if self.earlier.iter().any(|earlier| earlier.kind == TransactionKind::Void) {
            return Err(Refusal::NotRefundable);
        }
        Ok(plan)
    }

    /// What the original was paid with, in the order in which it goes back.
    fn parts(&self) -> Result<Vec<Part>, Refusal> {
        let mut parts = Vec::new();
        if self.fact.kind == TransactionKind::Spend {
            parts.push(Part { what: What::Principal, length: subtract(Fen(0), self.fact.principal_fen)? });
            parts.push(Part { what: What::Bonus, length: subtract(Fen(0), self.fact.bonus_fen)? });
        }
        let tenders = &self.fact.tenders;
        parts.extend(
            tenders
                .iter()
                .filter(|tender| tender.kind.is_told())
                .map(|tender| Part { what: What::Told(tender.kind), length: tender.amount_fen }),
        );
        parts.extend(
            tenders
                .iter()
                .filter(|tender| tender.kind == TenderKind::Points)
                .map(|tender| Part { what: What::Points, length: tender.amount_fen }),
        );
        Ok(parts)
    }

    /// What went back already, coupons apart.
    fn given_back(&self) -> Result<Fen, Refusal> {
        self.earlier
            .iter()
            .flat_map(|earlier| &earlier.tenders)
            .filter(|tender| tender.kind != TenderKind::Coupon)
            .try_fold(Fen(0), |sum, tender| add(sum, tender.amount_fen))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Principal,
    Bonus,
    Told(TenderKind),
    Points,
}

#[derive(Clone, Copy)]
struct Part {
    what: What,
    length: Fen,
}

/// Gives `amount` of what was paid back, at most what is left.
///
/// # Errors
/// [`Refusal`].
pub fn refund(original: &Original<'_>, amount: Fen, holding: &Holding) -> Result<Plan, Refusal> {
    let mut plan = original.plan(TransactionKind::Refund)?;
    let amount = written(amount)?;
    let parts = original.parts()?;
    let whole = parts.iter().try_fold(Fen(0), |sum, part| add(sum, part.length))?;
    let before = original.given_back()?;
    let now = add(before, amount)?;
    if now > whole {
        return Err(Refusal::RefundOverOriginal);
    }
    plan.line("refund", "退款", "Refund", amount)?;
    match original.fact.kind {
        TransactionKind::Spend => sale_back(&mut plan, original, &parts, [before, now, whole], holding)?,
        TransactionKind::Topup => {
            plan.effect.principal_fen = subtract(Fen(0), amount)?;
            let due =
                share_down(original.fact.bonus_fen.0, now.0, whole.0).ok_or(Refusal::AmountNotAllowed)?;
            let taken = original.earlier.iter().try_fold(Fen(0), |sum, r| subtract(sum, r.bonus_fen))?;
            let bonus = subtract(Fen(due), taken)?.max(Fen(0));
            // Forgiven it could be earned again and again: topped up, spent, given back.
            if bonus > holding.bonus_fen {
                return Err(Refusal::NotEnoughBalance);
            }
            plan.effect.bonus_fen = subtract(Fen(0), bonus)?;
            pay_back(&mut plan, &parts, before, now)?;
        }
        _ => return Err(Refusal::NotRefundable),
    }
    Ok(plan)
}

/// The stretch of a part that lies between two marks on the way through all parts.
fn within(start: Fen, length: Fen, from: Fen, to: Fen) -> Result<Fen, Refusal> {
    let end = add(start, length)?.min(to);
    Ok(subtract(end, start.max(from))?.max(Fen(0)))
}

/// What of the way up to a mark is principal, or was told by the till.
fn real_money(parts: &[Part], to: Fen) -> Result<Fen, Refusal> {
    let (mut start, mut sum) = (Fen(0), Fen(0));
    for part in parts {
        if matches!(part.what, What::Principal | What::Told(_)) {
            sum = add(sum, within(start, part.length, Fen(0), to)?)?;
        }
        start = add(start, part.length)?;
    }
    Ok(sum)
}

/// Tenders of the stretch; gives what of it is principal, bonus, points (in fen, before and now).
fn pay_back(plan: &mut Plan, parts: &[Part], before: Fen, now: Fen) -> Result<Back, Refusal> {
    let mut back = Back::default();
    let mut start = Fen(0);
    for part in parts {
        let amount_fen = within(start, part.length, before, now)?;
        match part.what {
            What::Principal => back.principal = amount_fen,
            What::Bonus => back.bonus = amount_fen,
            What::Told(kind) => plan.tender(Tender { kind, amount_fen }),
            What::Points => {
                back.points_worth = part.length;
                back.points_before = within(start, part.length, Fen(0), before)?;
                back.points_now = within(start, part.length, Fen(0), now)?;
                plan.tender(Tender { kind: TenderKind::Points, amount_fen });
            }
        }
        start = add(start, part.length)?;
    }
    let by_purse = add(back.principal, back.bonus)?;
    plan.tender(Tender { kind: TenderKind::Purse, amount_fen: by_purse });
    Ok(back)
}

#[derive(Default)]
struct Back {
    principal: Fen,
    bonus: Fen,
    points_worth: Fen,
    points_before: Fen,
    points_now: Fen,
}

fn sale_back(
    plan: &mut Plan,
    original: &Original<'_>,
    parts: &[Part],
    [before, now, whole]: [Fen; 3],
    holding: &Holding,
) -> Result<(), Refusal> {
    let fact = original.fact;
    let back = pay_back(plan, parts, before, now)?;
    let points_at = |covered: Fen| match back.points_worth.0 {
        0 => Some(0),
        worth => share_down(fact.points_used, covered.0, worth),
    };
    let returned = points_at(back.points_now)
        .zip(points_at(back.points_before))
        .map(|(now, before)| now - before)
        .ok_or(Refusal::AmountNotAllowed)?;
    // They were earned on principal and on what the till took, and go back with these.
    let due = match real_money(parts, whole)? {
        Fen(0) => 0,
        all => {
            let part = real_money(parts, now)?;
            share_down(fact.points_earned, part.0, all.0).ok_or(Refusal::AmountNotAllowed)?
        }
    };
    // Kept as negative numbers.
    let clawed: i64 = original.earlier.iter().map(|earlier| earlier.points_earned).sum();
    let claw = due.saturating_add(clawed).max(0);
    // As with a reward: who has spent the points gets back what they were not earned with.
    if claw > holding.points.saturating_add(returned) {
        return Err(Refusal::NotEnoughPoints);
    }
    plan.points_used = returned.saturating_neg();
    plan.points_earned = claw.saturating_neg();
    if claw > 0 {
        let (zh, en) = (format!("扣回积分 {claw}"), format!("Points taken back {claw}"));
        plan.line("points-clawback", zh, en, Fen(0))?;
    }
    if returned > 0 {
        let (zh, en) = (format!("退回积分 {returned}"), format!("Points given back {returned}"));
        plan.line("points-back", zh, en, Fen(0))?;
    }
    if now == whole {
        // With the last fen the sale is undone: what it sold and what it was spared as well.
        plan.items.clone_from(&fact.items);
        plan.discount_fen = subtract(Fen(0), fact.discount_fen.unwrap_or_default())?;
    }
    let coupon = fact.coupon.filter(|_| now == whole);
    if coupon.is_some() {
        for tender in fact.tenders.iter().filter(|tender| tender.kind == TenderKind::Coupon) {
            plan.line("coupon-back", "退回优惠券", "Coupon given back", tender.amount_fen)?;
            plan.tender(*tender);
        }
    }
    plan.coupon = coupon;
    plan.effect = Effect {
        principal_fen: back.principal,
        bonus_fen: back.bonus,
        points: returned.saturating_sub(claw),
        take: None,
        give: coupon,
        ..Effect::default()
    };
    Ok(())
}

/// Undoes a transaction of which nothing was refunded, or the giving half of a transfer that
/// nobody received: to the fen, or not at all.
///
/// # Errors
/// [`Refusal`].
pub fn void(original: &Original<'_>) -> Result<Plan, Refusal> {
    let mut plan = original.plan(TransactionKind::Void)?;
    let fact = original.fact;
    // A validity is not on the purse's account, and what moved to another card is not undone,
    // whatever became of its receiving half.
    if fact.validity.is_some() || is_replacement(fact) {
        return Err(Refusal::NotRefundable);
    }
    if let [first, ..] = original.earlier {
        return Err(match (fact.kind, first.outcome) {
            (TransactionKind::Transfer, Outcome::Unknown) if original.parked => Refusal::TransferParked,
            (TransactionKind::Transfer, Outcome::Unknown) => Refusal::TransferUnsettled,
            (TransactionKind::Transfer, _) => Refusal::NotRefundable,
            _ => Refusal::RefundedAlready,
        });
    }
    let (take, give) = match fact.kind {
        TransactionKind::Spend => (None, fact.coupon),
        TransactionKind::Coupon => (fact.coupon, None),
        TransactionKind::Topup
        | TransactionKind::Earn
        | TransactionKind::Redeem
        | TransactionKind::Adjust => (None, None),
        // The giving half that the other card could not take; it counts as what followed it.
        TransactionKind::Transfer if fact.original_transaction_id.is_none() => (None, None),
        TransactionKind::Transfer | TransactionKind::Refund | TransactionKind::Void => {
            return Err(Refusal::NotRefundable);
        }
    };
    let amount = fact.tenders.iter().try_fold(Fen(0), |sum, tender| add(sum, tender.amount_fen))?;
    plan.line("void", "撤销", "Void", amount)?;
    plan.tenders.clone_from(&fact.tenders);
    plan.items.clone_from(&fact.items);
    plan.coupon = fact.coupon;
    plan.discount_fen = subtract(Fen(0), fact.discount_fen.unwrap_or_default())?;
    plan.points_used = fact.points_used.saturating_neg();
    plan.points_earned = fact.points_earned.saturating_neg();
    plan.effect = Effect {
        principal_fen: subtract(Fen(0), fact.principal_fen)?,
        bonus_fen: subtract(Fen(0), fact.bonus_fen)?,
        points: fact.points.checked_neg().ok_or(Refusal::AmountNotAllowed)?,
        take,
        give,
        ..Effect::default()
    };
    Ok(plan)
}
