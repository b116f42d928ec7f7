//! What is going to be done: the one form that every calculation of the purse gives, and
//! what it becomes in the ledger.

use uuid::Uuid;

use super::quote::check_name;
use super::{Caps, Effect, Refusal, apply};
use crate::config::purse::MAX_FEN;
use crate::event::Text;
use crate::event::ledger::{
    CardStanding, CardTransaction, Item, Line, Outcome, Tender, TransactionKind, Validity,
};
use crate::ident::{CardNo, CardUid, DeviceId, StoreId};
use crate::money::{CouponId, Fen, Holding};

/// What a transaction will do, line by line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What it is.
    pub kind: TransactionKind,
    /// What it does to the card.
    pub effect: Effect,
    /// What is sold.
    pub items: Vec<Item>,
    /// The calculation: adds up to `due_fen`, but for the lines of a sale's payment (`pay-…`), which
    /// take off what it comes to.
    pub lines: Vec<Line>,
    /// What is to be paid, or of a refund and a void: what goes back.
    pub due_fen: Fen,
    /// How: adds up to `due_fen`.
    pub tenders: Vec<Tender>,
    /// Discounts by class.
    pub discount_fen: Fen,
    /// Points paid with; negative: given back.
    pub points_used: i64,
    /// Points earned; negative: taken back.
    pub points_earned: i64,
    /// The coupon that was used, given, or given back.
    pub coupon: Option<CouponId>,
    /// Of what it is a refund, a void, or the receiving half.
    pub original: Option<Uuid>,
    /// Of a transfer: the other card.
    pub counterparty: Option<CardNo>,
    /// All coupons that leave or come together.
    pub coupons: Vec<CouponId>,
    /// How the card stands afterwards, where that changes.
    pub status_after: Option<CardStanding>,
    /// Another validity.
    pub validity: Option<Validity>,
}

/// Who, where, on which card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    /// Also the request's id.
    pub transaction_id: Uuid,
    /// The card.
    pub card_no: CardNo,
    /// Its chip.
    pub uid: CardUid,
    /// Who gave it out.
    pub issuing_store: StoreId,
    /// Who does it.
    pub operator: String,
    /// Where.
    pub till: DeviceId,
    /// The till's order.
    pub order: Option<String>,
    /// Without headquarters.
    pub offline: bool,
    /// The asker's key.
    pub idempotency_key: String,
}

impl Plan {
    /// A plan that does nothing yet.
    pub(super) fn new(kind: TransactionKind) -> Self {
        Self {
            kind,
            effect: Effect::default(),
            items: Vec::new(),
            lines: Vec::new(),
            due_fen: Fen(0),
            tenders: Vec::new(),
            discount_fen: Fen(0),
            points_used: 0,
            points_earned: 0,
            coupon: None,
            original: None,
            counterparty: None,
            coupons: Vec::new(),
            status_after: None,
            validity: None,
        }
    }

    /// One more line.
    pub(super) fn line(
        &mut self,
        code: &str,
        zh: impl Into<String>,
        en: impl Into<String>,
        amount_fen: Fen,
    ) -> Result<(), Refusal> {
        self.due_fen = add(self.due_fen, amount_fen)?;
        self.lines.push(Line { code: code.to_owned(), text: Text::new(zh, en), amount_fen });
        Ok(())
    }

    /// One more line behind what is due: how it is paid, unless that is nothing.
    pub(super) fn paid(&mut self, code: &str, zh: impl Into<String>, en: impl Into<String>, amount_fen: Fen) {
        if amount_fen.0 != 0 {
            self.lines.push(Line { code: code.to_owned(), text: Text::new(zh, en), amount_fen });
        }
    }

    /// One more way of paying, unless it is nothing.
    pub(super) fn tender(&mut self, tender: Tender) {
        if tender.amount_fen.0 > 0 {
            self.tenders.push(tender);
        }
    }

    /// What the card holds afterwards.
    ///
    /// # Errors
    /// [`Refusal`]: the card must not be touched.
    pub fn after(&self, holding: &Holding, caps: &Caps) -> Result<Holding, Refusal> {
        apply(holding, &self.effect, caps)
    }

    /// What the ledger will say of it when it is committed.
    ///
    /// # Errors
    /// [`Refusal::AmountNotAllowed`] on overflow, [`Refusal::NameNotAllowed`] for the order.
    pub fn fact(&self, context: &Context) -> Result<CardTransaction, Refusal> {
        context.order.as_deref().map_or(Ok(()), check_name)?;
        Ok(CardTransaction {
            transaction_id: context.transaction_id,
            card_no: context.card_no.clone(),
            uid: context.uid.clone(),
            issuing_store: context.issuing_store.clone(),
            kind: self.kind,
            amount_fen: self.effect.amount().ok_or(Refusal::AmountNotAllowed)?,
            principal_fen: self.effect.principal_fen,
            bonus_fen: self.effect.bonus_fen,
            points: self.effect.points,
            points_earned: self.points_earned,
            points_used: self.points_used,
            coupon: self.coupon,
            coupons: self.coupons.clone(),
            status_after: self.status_after,
            validity: self.validity,
            order: context.order.clone(),
            items: self.items.clone(),
            tenders: self.tenders.clone(),
            discount_fen: (self.discount_fen.0 != 0).then_some(self.discount_fen),
            calculation: self.lines.clone(),
            original_transaction_id: self.original,
            counterparty_card_no: self.counterparty.clone(),
            balance_after_fen: None,
            points_after: None,
            counter: None,
            counters: None,
            proof: None,
            operator: context.operator.clone(),
            till: context.till.clone(),
            offline: context.offline,
            outcome: Outcome::Committed,
            settles: None,
            idempotency_key: context.idempotency_key.clone(),
        })
    }
}

/// The sum, or a refusal.
pub(super) fn add(a: Fen, b: Fen) -> Result<Fen, Refusal> {
    a.checked_add(b).ok_or(Refusal::AmountNotAllowed)
}

/// The difference, or a refusal.
pub(super) fn subtract(a: Fen, b: Fen) -> Result<Fen, Refusal> {
    a.checked_sub(b).ok_or(Refusal::AmountNotAllowed)
}

/// An amount that a person wrote down: above zero, and no larger than anybody has.
pub(super) fn written(amount: Fen) -> Result<Fen, Refusal> {
    if (1..=MAX_FEN).contains(&amount.0) { Ok(amount) } else { Err(Refusal::AmountNotAllowed) }
}

/// `part` of `whole` parts of an amount, half up to the fen: the one way in which the purse
/// rounds money that a customer pays or is spared. `None` on overflow or of nothing.
pub(super) fn share_half_up(amount: i64, part: i64, whole: i64) -> Option<i64> {
    if amount < 0 || part < 0 || whole <= 0 {
        return None;
    }
    let exact = i128::from(amount) * i128::from(part);
    i64::try_from((2 * exact + i128::from(whole)) / (2 * i128::from(whole))).ok()
}

/// As [`share_half_up`], cut to whole units: points, and whatever is taken back.
pub(super) fn share_down(amount: i64, part: i64, whole: i64) -> Option<i64> {
    if amount < 0 || part < 0 || whole <= 0 {
        return None;
    }
    i64::try_from(i128::from(amount) * i128::from(part) / i128::from(whole)).ok()
}
