//! Figures of the day: what the ledger's committed transactions of one business day add up
//! to, by operator, till, tender and kind (contract §7, `/v1/stats`). A transaction counts on
//! the day of its intent, also when it is settled later: that is when the till took the money.

use std::collections::BTreeMap;

use serde::Serialize;

use super::ledger::State;
use super::{Reader, StoreError};
use crate::event::ledger::{CardTransaction, Category, TenderKind, TransactionKind};
use crate::ident::DeviceId;
use crate::money::Fen;

/// Of one operator at one till.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Counter {
    /// Who.
    pub operator: String,
    /// Where.
    pub till: DeviceId,
}

/// What transactions of one kind add up to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Sum {
    /// Transactions.
    pub count: u64,
    /// Effect on balances, signed.
    pub amount_fen: Fen,
    /// Of it, principal.
    pub principal_fen: Fen,
    /// Of it, bonus.
    pub bonus_fen: Fen,
    /// Effect on points, signed.
    pub points: i64,
    /// Points that sales earned; what refunds took back has a minus.
    pub points_earned: i64,
    /// Points that were paid with; what refunds gave back has a minus.
    pub points_used: i64,
    /// Discounts given by card class; of refunds and voids with a minus.
    pub discount_fen: Fen,
    /// Coupons that were used or given; what refunds and voids undo has a minus.
    pub coupons: i64,
    /// Gifts, pieces; what came back has a minus.
    pub gifts: i64,
    /// What was taken, or with a minus given back, by tender.
    pub tenders: BTreeMap<TenderKind, Fen>,
}

/// What one tender adds up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct TenderSum {
    /// Transactions in which it was used.
    pub count: u64,
    /// What was taken; what refunds and voids gave back is taken off.
    pub amount_fen: Fen,
}

/// By kind of transaction.
pub type Kinds = BTreeMap<TransactionKind, Sum>;

/// Figures of a business day.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Figures {
    /// The day, `YYYY-MM-DD`.
    pub day: String,
    /// Cards given out, by operator and till.
    pub issued: Vec<(String, String, u64)>,
    /// By operator and till, then by kind.
    pub by_counter: BTreeMap<Counter, Kinds>,
    /// By tender.
    pub by_tender: BTreeMap<TenderKind, TenderSum>,
    /// Of the whole day, by kind.
    pub total: Kinds,
    /// Transactions of the day that are not settled and may still come to it.
    pub unsettled: u64,
}

/// What one operator, or one till, comes to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Share {
    /// Cards given out.
    pub issued: u64,
    /// By kind.
    pub kinds: Kinds,
}

/// Whether its tenders went back to the customer: the purse's also by the receiving half of a
/// transfer, or principal that only moved would stand there as paid.
fn gives_back(fact: &CardTransaction) -> bool {
    match fact.kind {
        TransactionKind::Refund | TransactionKind::Void => true,
        TransactionKind::Transfer => fact.original_transaction_id.is_some(),
        _ => false,
    }
}

fn signed(sum: Fen, amount: Fen, back: bool) -> Option<Fen> {
    if back { sum.checked_sub(amount) } else { sum.checked_add(amount) }
}

impl TenderSum {
    /// Adds the tenders of a committed transaction; `None` on overflow. A tender that stands
    /// twice in a transaction was used in one.
    #[must_use]
    pub fn add_all(sums: &mut BTreeMap<TenderKind, Self>, fact: &CardTransaction) -> Option<()> {
        for (n, tender) in fact.tenders.iter().enumerate() {
            let sum = sums.entry(tender.kind).or_default();
            sum.amount_fen = signed(sum.amount_fen, tender.amount_fen, gives_back(fact))?;
            let again = fact.tenders.iter().take(n).any(|earlier| earlier.kind == tender.kind);
            sum.count += u64::from(!again);
        }
        Some(())
    }
}

impl Sum {
    /// Adds a committed transaction; `None` on overflow.
    fn add(&mut self, fact: &CardTransaction) -> Option<()> {
        let gifts = fact.items.iter().filter(|item| item.category == Category::Gift);
        let back = gives_back(fact);
        let sign = if back { -1 } else { 1 };
        let mut one = Self {
            count: 1,
            amount_fen: fact.amount_fen,
            principal_fen: fact.principal_fen,
            bonus_fen: fact.bonus_fen,
            points: fact.points,
            points_earned: fact.points_earned,
            points_used: fact.points_used,
            discount_fen: fact.discount_fen.unwrap_or_default(),
            coupons: sign * i64::from(fact.coupon.is_some()),
            gifts: sign * gifts.map(|item| i64::from(item.quantity)).sum::<i64>(),
            tenders: BTreeMap::new(),
        };
        for tender in &fact.tenders {
            let sum = one.tenders.entry(tender.kind).or_default();
            *sum = signed(*sum, tender.amount_fen, back)?;
        }
        self.plus(&one)
    }

    /// Adds another sum; `None` on overflow.
    #[must_use]
    pub fn plus(&mut self, other: &Self) -> Option<()> {
        self.count += other.count;
        self.amount_fen = self.amount_fen.checked_add(other.amount_fen)?;
        self.principal_fen = self.principal_fen.checked_add(other.principal_fen)?;
        self.bonus_fen = self.bonus_fen.checked_add(other.bonus_fen)?;
        self.points = self.points.checked_add(other.points)?;
        self.points_earned = self.points_earned.checked_add(other.points_earned)?;
        self.points_used = self.points_used.checked_add(other.points_used)?;
        self.discount_fen = self.discount_fen.checked_add(other.discount_fen)?;
        self.coupons += other.coupons;
        self.gifts += other.gifts;
        for (tender, amount) in &other.tenders {
            let sum = self.tenders.entry(*tender).or_default();
            *sum = sum.checked_add(*amount)?;
        }
        Some(())
    }
}

impl Figures {
    fn add(&mut self, fact: &CardTransaction) -> Result<(), StoreError> {
        let counter = Counter { operator: fact.operator.clone(), till: fact.till.clone() };
        let mine = self.by_counter.entry(counter).or_default().entry(fact.kind).or_default();
        let all = self.total.entry(fact.kind).or_default();
        mine.add(fact)
            .and_then(|()| all.add(fact))
            .and_then(|()| TenderSum::add_all(&mut self.by_tender, fact))
            .ok_or_else(|| self.too_large())
    }

    fn too_large(&self) -> StoreError {
        StoreError::Corrupt(format!("the figures of {} are larger than any money is", self.day))
    }

    /// Cards given out.
    #[must_use]
    pub fn cards_issued(&self) -> u64 {
        self.issued.iter().map(|(_, _, cards)| cards).sum()
    }

    /// By operator.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when a sum is larger than any money is.
    pub fn by_operator(&self) -> Result<BTreeMap<String, Share>, StoreError> {
        self.shares(|operator, _| operator.to_owned())
    }

    /// By till.
    ///
    /// # Errors
    /// As [`Figures::by_operator`].
    pub fn by_till(&self) -> Result<BTreeMap<String, Share>, StoreError> {
        self.shares(|_, till| till.to_owned())
    }

    fn shares(&self, whose: impl Fn(&str, &str) -> String) -> Result<BTreeMap<String, Share>, StoreError> {
        let mut shares: BTreeMap<String, Share> = BTreeMap::new();
        for (operator, till, cards) in &self.issued {
            shares.entry(whose(operator, till)).or_default().issued += cards;
        }
        for (counter, kinds) in &self.by_counter {
            let share = shares.entry(whose(&counter.operator, counter.till.as_str())).or_default();
            for (kind, sum) in kinds {
                share.kinds.entry(*kind).or_default().plus(sum).ok_or_else(|| self.too_large())?;
            }
        }
        Ok(shares)
    }
}

impl Reader<'_> {
    /// The figures of a business day.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn figures(&self, day: &str) -> Result<Figures, StoreError> {
        let mut figures = Figures { day: day.to_owned(), issued: self.issued_on(day)?, ..Figures::default() };
        let mut after = 0;
        loop {
            let page = self.transactions_on(day, after)?;
            let Some(last) = page.last() else { return Ok(figures) };
            after = last.no;
            for row in &page {
                match row.state {
                    State::Committed => figures.add(&row.fact)?,
                    State::Aborted => {}
                    State::Intent | State::Unknown | State::Parked => figures.unsettled += 1,
                }
            }
        }
    }
}
