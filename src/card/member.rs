//! Whether a member is served here, and what a till is told of one. Pure. What lives
//! here: what a store knows to judge by ([`Members`]) and the order of the judgement.
//! What does not: reading a card (`medium`) and the purse.

use std::sync::Arc;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use tokio::sync::watch;

use super::keys::KeyStore;
use super::record::{Current, MemberRecord};
use super::verdict::Refusal;
use crate::clock::{self, TimeQuality};
use crate::event::card::{CounterWord, Member, MemberCoupon, MemberStatus, Technology};
use crate::ident::StoreId;
use crate::money::Fen;
use crate::protocols::cards::CardLayout;

/// What a gateway needs to read member cards.
#[derive(Debug, Clone)]
pub struct Members {
    /// Acts with keys.
    pub keys: Arc<dyn KeyStore>,
    /// Where records lie.
    pub layouts: Vec<Arc<CardLayout>>,
    /// Whose cards are served.
    pub policy: MemberPolicy,
}

/// Whose cards are served, as far as the card itself tells. What the store knows beside it is
/// asked afterwards (`stops`).
#[derive(Debug, Clone)]
pub struct MemberPolicy {
    /// This store.
    pub store: StoreId,
    /// `[purse] accept_stores`, also as a reload changes it.
    pub accepted_stores: watch::Receiver<Vec<String>>,
    /// Where the store's day begins and ends, also as a reload changes it.
    pub timezone: watch::Receiver<TimeZone>,
}

impl MemberPolicy {
    /// The cards of these stores: `own`, `all`, or store numbers.
    #[must_use]
    pub fn of(store: StoreId, accepted: &[&str], timezone: TimeZone) -> Self {
        let accepted = accepted.iter().map(|store| (*store).to_owned()).collect();
        Self { store, accepted_stores: watch::channel(accepted).1, timezone: watch::channel(timezone).1 }
    }

    /// The day at the store; `None` while the clock is in doubt: then no card has expired.
    #[must_use]
    pub fn today(&self) -> Option<Date> {
        let now = clock::read();
        let time = jiff::Timestamp::from_millisecond(now.wall.0).ok()?;
        (now.quality == TimeQuality::Synced).then(|| time.to_zoned(self.timezone.borrow().clone()).date())
    }

    /// Whether a record that is rightly ours is served on that day.
    ///
    /// # Errors
    /// The first reason against it.
    pub fn judge(&self, record: &MemberRecord, today: Option<Date>) -> Result<(), Refusal> {
        if !self.accepts(&record.issuing_store) {
            return Err(Refusal::StoreNotAccepted);
        }
        match record.status {
            MemberStatus::Active => {}
            MemberStatus::Blocked => return Err(Refusal::Blocked),
            MemberStatus::Returned => return Err(Refusal::Returned),
            MemberStatus::Replaced => return Err(Refusal::Replaced),
        }
        if let (Some(last), Some(today)) = (record.valid_until, today)
            && last < today
        {
            return Err(Refusal::Expired);
        }
        Ok(())
    }

    fn accepts(&self, store: &StoreId) -> bool {
        self.accepted_stores.borrow().iter().any(|accepted| match accepted.as_str() {
            "all" => true,
            "own" => *store == self.store,
            number => store.as_str() == number,
        })
    }
}

impl Members {
    /// The layout for a technology; `None`: it keeps no record here.
    #[must_use]
    pub fn layout(&self, technology: Technology) -> Option<Arc<CardLayout>> {
        self.layouts.iter().find(|layout| layout.technologies.contains(&technology)).cloned()
    }
}

/// What a till is told of a card whose record was read and found genuine, as far as the card tells.
#[must_use]
pub fn told(current: &Current) -> Member {
    let record = &current.record;
    let coupons = record.coupons.iter().filter(|coupon| coupon.left > 0);
    let (principal, bonus) = (i64::from(record.principal_fen), i64::from(record.bonus_fen));
    Member {
        card_no: record.card_no.clone(),
        member_type: record.member_type,
        status: record.status,
        tier: (record.tier > 0).then_some(record.tier),
        discount_class: (record.discount_class > 0).then_some(record.discount_class),
        issuing_store: record.issuing_store.clone(),
        principal_fen: Fen(principal),
        bonus_fen: Fen(bonus),
        // Two 32-bit numbers.
        balance_fen: Fen(principal + bonus),
        points: record.points,
        coupons: coupons.map(|coupon| MemberCoupon { kind: coupon.kind, left: coupon.left }).collect(),
        counter: record.counter,
        key_version: record.key_version,
        valid_until: record.valid_until,
        authentic: true,
        torn: current.torn,
        word: CounterWord::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::card::record::tests::record;

    #[test]
    fn reasons_in_their_order() {
        let today = jiff::civil::date(2026, 11, 22);
        let own = record(1).issuing_store;
        let policy = MemberPolicy::of(own.clone(), &["own", "BJ-0001"], TimeZone::UTC);
        type Change = fn(&mut MemberRecord);
        let cases: [(&str, Change, Result<(), Refusal>); 10] = [
            ("as it is", |_| {}, Ok(())),
            ("its last day", |r| r.valid_until = Some(jiff::civil::date(2026, 11, 22)), Ok(())),
            ("a day late", |r| r.valid_until = Some(jiff::civil::date(2026, 11, 21)), Err(Refusal::Expired)),
            ("without end", |r| r.valid_until = None, Ok(())),
            ("blocked", |r| r.status = MemberStatus::Blocked, Err(Refusal::Blocked)),
            ("returned", |r| r.status = MemberStatus::Returned, Err(Refusal::Returned)),
            ("replaced", |r| r.status = MemberStatus::Replaced, Err(Refusal::Replaced)),
            ("accepted", |r| r.issuing_store = "BJ-0001".parse().unwrap(), Ok(())),
            (
                "blocked and late",
                |r| {
                    r.status = MemberStatus::Blocked;
                    r.valid_until = Some(jiff::civil::date(2026, 11, 21));
                },
                Err(Refusal::Blocked),
            ),
            ("elsewhere", |r| r.issuing_store = "BJ-0002".parse().unwrap(), Err(Refusal::StoreNotAccepted)),
        ];
        for (name, change, expected) in cases {
            let mut record = record(1);
            change(&mut record);
            assert_eq!(policy.judge(&record, Some(today)), expected, "{name}");
            let doubted = expected.or_else(|why| if why == Refusal::Expired { Ok(()) } else { Err(why) });
            assert_eq!(policy.judge(&record, None), doubted, "{name}, by a clock that nobody set");
        }
        let everybody = MemberPolicy::of(own, &["all"], TimeZone::UTC);
        let mut foreign = record(1);
        foreign.issuing_store = "BJ-0002".parse().unwrap();
        assert_eq!(everybody.judge(&foreign, Some(today)), Ok(()));
    }
}
