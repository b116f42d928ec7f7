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
    /// Discounts given by card class; of refunds and voids with a minus.
    pub discount_fen: Fen,
    /// Coupons that were used or given; what refunds and voids undo has a minus.
    pub coupons: i64,
    /// Gifts, pieces; what came back has a minus.
    pub gifts: i64,
    /// What was taken, or with a minus given back, by tender.
    pub tenders: BTreeMap<TenderKind, Fen>,
}

/// Figures of a business day.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Figures {
    /// The day, `YYYY-MM-DD`.
    pub day: String,
    /// Cards given out, by operator and till.
    pub issued: Vec<(String, String, u64)>,
    /// By operator and till, then by kind.
    #[serde(serialize_with = "as_list")]
    pub by_counter: BTreeMap<Counter, BTreeMap<TransactionKind, Sum>>,
    /// Of the whole day, by kind.
    pub total: BTreeMap<TransactionKind, Sum>,
    /// Transactions of the day that are not settled and may still come to it.
    pub unsettled: u64,
}

/// JSON has no keys of two parts.
fn as_list<S: serde::Serializer>(
    map: &BTreeMap<Counter, BTreeMap<TransactionKind, Sum>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Entry<'a> {
        #[serde(flatten)]
        counter: &'a Counter,
        kinds: &'a BTreeMap<TransactionKind, Sum>,
    }
    serializer.collect_seq(map.iter().map(|(counter, kinds)| Entry { counter, kinds }))
}

impl Sum {
    fn add(&mut self, fact: &CardTransaction) -> Option<()> {
        let discount = fact.discount_fen.unwrap_or_default();
        let gifts = fact.items.iter().filter(|item| item.category == Category::Gift);
        let back = matches!(fact.kind, TransactionKind::Refund | TransactionKind::Void);
        self.count += 1;
        self.amount_fen = self.amount_fen.checked_add(fact.amount_fen)?;
        self.principal_fen = self.principal_fen.checked_add(fact.principal_fen)?;
        self.bonus_fen = self.bonus_fen.checked_add(fact.bonus_fen)?;
        self.points = self.points.checked_add(fact.points)?;
        self.discount_fen = self.discount_fen.checked_add(discount)?;
        let sign = if back { -1 } else { 1 };
        self.coupons += sign * i64::from(fact.coupon.is_some());
        self.gifts += sign * gifts.map(|item| i64::from(item.quantity)).sum::<i64>();
        for tender in &fact.tenders {
            let sum = self.tenders.entry(tender.kind).or_default();
            let next =
                if back { sum.checked_sub(tender.amount_fen) } else { sum.checked_add(tender.amount_fen) };
            *sum = next?;
        }
        Some(())
    }
}

impl Figures {
    fn add(&mut self, fact: &CardTransaction) -> Result<(), StoreError> {
        let counter = Counter { operator: fact.operator.clone(), till: fact.till.clone() };
        let mine = self.by_counter.entry(counter).or_default().entry(fact.kind).or_default();
        let all = self.total.entry(fact.kind).or_default();
        mine.add(fact).and_then(|()| all.add(fact)).ok_or_else(|| {
            StoreError::Corrupt(format!("the figures of {} are larger than any money is", self.day))
        })
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
