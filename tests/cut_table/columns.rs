//! A column of the table: one operation on one technology, cut at every command in every way.

use baygate::card::counter::{Adjustment, Deal, Life, Why, end_of};
use baygate::event::ledger::{CardType, TenderKind, TransactionKind as Kind};
use baygate::money::Fen;
use baygate::store::ledger::State;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use uuid::Uuid;

use super::table::{Operation, Way};
use super::world::{COUPON, ISSUED_UNTIL, World, of};
use crate::cut_shop::number;

/// What is paid, undone, or given back a fen at a time.
const SALE: Fen = Fen(100);
/// The other card of a transfer.
const OTHER: usize = 2;

/// What stands between two cuts.
pub struct Column {
    pub world: World,
    operation: Operation,
    /// The card that is cut.
    card: usize,
    /// What is undone, paid back or taken, and how often it was.
    original: Option<(Uuid, i64)>,
    /// The last day of the card, where it is extended.
    day: Date,
    /// Principal that left a card and is headquarters' to settle.
    parked_fen: i64,
}

impl Column {
    pub async fn open(mut world: World, operation: Operation) -> Self {
        let (card_type, fen) = match operation {
            Operation::Extend => (CardType::Anonymous, 300),
            Operation::Return => (CardType::Named, 100),
            _ => (CardType::Named, 200_000),
        };
        if operation == Operation::Give || operation == Operation::Take {
            world.issued(OTHER, CardType::Named, 90_000).await;
        }
        world.issued(1, card_type, fen).await;
        if matches!(operation, Operation::Redeem | Operation::Mixed | Operation::Adjust) {
            world.whole(1, Deal { points: Some(9_000), ..of(1, Kind::Earn) }).await;
        }
        Self { world, operation, card: 1, original: None, day: ISSUED_UNTIL, parked_fen: 0 }
    }

    /// The next deal of this column, with what it needs made ready.
    async fn ready(&mut self) -> Deal {
        let n = self.card;
        let plain = |kind| of(n, kind);
        let paid = |kind, fen| Deal { amount_fen: Some(Fen(fen)), ..of(n, kind) };
        let coupon = |kind| Deal { coupon: Some(COUPON), ..of(n, kind) };
        match self.operation {
            Operation::Topup => Deal { tenders: cash(7), ..paid(Kind::Topup, 7) },
            Operation::Spend => paid(Kind::Spend, 7),
            Operation::Mixed => {
                if self.world.holds(n).await.coupons.is_empty() {
                    self.world.whole(n, coupon(Kind::Coupon)).await;
                }
                Deal { points: Some(3), amount_fen: Some(SALE), ..coupon(Kind::Spend) }
            }
            Operation::Earn => Deal { points: Some(2), ..plain(Kind::Earn) },
            Operation::Redeem => Deal { points: Some(1), ..plain(Kind::Redeem) },
            Operation::Coupon => {
                while self.world.holds(n).await.coupons.len() > 2 {
                    self.world.whole(n, Deal { amount_fen: Some(SALE), ..coupon(Kind::Spend) }).await;
                }
                coupon(Kind::Coupon)
            }
            Operation::Adjust => {
                let adjustment = Adjustment { principal_fen: Fen(-3), bonus_fen: Fen(4), points: -1 };
                Deal { adjustment: Some(adjustment), ..plain(Kind::Adjust) }
            }
            Operation::Give => Deal { to_card_no: Some(number(OTHER)), ..paid(Kind::Transfer, 7) },
            Operation::Take => {
                let to = Some(number(n));
                let give = Deal { amount_fen: Some(Fen(7)), to_card_no: to, ..of(OTHER, Kind::Transfer) };
                let (id, ..) = self.world.whole(OTHER, give).await;
                self.original = Some((id, 0));
                Deal { original_transaction_id: Some(id), ..plain(Kind::Transfer) }
            }
            Operation::Refund => {
                let id = self.sale().await;
                Deal { original_transaction_id: Some(id), ..paid(Kind::Refund, 1) }
            }
            Operation::Void => {
                let id = self.sale().await;
                Deal { original_transaction_id: Some(id), ..plain(Kind::Void) }
            }
            Operation::Replace => {
                self.world.issued(n + 1, CardType::Named, 0).await;
                self.card = n + 1;
                let life = Life::Replace { old_card_no: number(n), why: Why::Lost };
                Deal { life: Some(life), ..of(n + 1, Kind::Transfer) }
            }
            Operation::Return => {
                Deal { life: Some(Life::Return { tender: TenderKind::Cash }), ..plain(Kind::Refund) }
            }
            Operation::Extend => {
                let life = Life::Extend { valid_until: Some(self.day.tomorrow().unwrap()) };
                Deal { life: Some(life), ..plain(Kind::Adjust) }
            }
            Operation::Issue | Operation::Rekey => unreachable!("no deal"),
        }
    }

    /// A sale that something of is left.
    async fn sale(&mut self) -> Uuid {
        match self.original {
            Some((id, times)) if times < SALE.0 => id,
            _ => {
                let sale = Deal { amount_fen: Some(SALE), ..of(self.card, Kind::Spend) };
                let (id, ..) = self.world.whole(self.card, sale).await;
                self.original = Some((id, 0));
                id
            }
        }
    }

    /// What follows from the end of a deal.
    async fn after(&mut self, deal: Deal, id: Uuid, end: State) {
        let n = self.card;
        let undo = |n, id| Deal { original_transaction_id: Some(id), ..of(n, Kind::Void) };
        match (self.operation, end != State::Aborted) {
            (Operation::Give, true) if end == State::Parked => self.parked_fen += 7,
            (Operation::Give, true) => drop(self.world.whole(n, undo(n, id)).await),
            (Operation::Take, false) => {
                let (giving, _) = self.original.unwrap();
                self.world.whole(OTHER, undo(OTHER, giving)).await;
            }
            (Operation::Refund, true) => self.original = self.original.map(|(id, times)| (id, times + 1)),
            (Operation::Void, true) => self.original = None,
            // Dead since the intent; what it held is on its way.
            (Operation::Replace, false) => drop(self.world.whole(n, deal).await),
            (Operation::Return, true) => {
                self.card = n + 1;
                self.world.issued(n + 1, CardType::Named, 100).await;
            }
            (Operation::Extend, true) => self.day = self.day.tomorrow().unwrap(),
            _ => {}
        }
        if matches!(self.operation, Operation::Give | Operation::Take) {
            let due = self.world.shop.gateway.store.read(|r| r.transfers_due()).await.unwrap();
            assert!(due.is_empty(), "{due:?}");
            let sum = [n, OTHER].map(|n| self.world.holds(n));
            let [one, other] = sum;
            let sum = one.await.balance().unwrap().0 + other.await.balance().unwrap().0;
            assert_eq!(sum + self.parked_fen, 290_000, "{:?} {:?}", self.world.sim, self.operation);
        }
        if self.operation == Operation::Replace {
            let old = self.world.holds(n - 1).await;
            let new = self.world.holds(n).await;
            assert_eq!((old.balance(), new.balance()), (Some(Fen(0)), Some(Fen(200_000))));
        }
        if self.operation == Operation::Extend {
            let what = format!("{:?} {end:?}", self.world.sim);
            let until = self.world.valid_until(n).await;
            assert_eq!(until, end_of(self.day, &TimeZone::UTC), "{what}");
        }
    }

    /// How many commands it takes, and which of them change the card.
    pub async fn measured(&mut self) -> (usize, Vec<usize>) {
        let deal = self.ready().await;
        let (id, commands, writes) = self.world.whole(self.card, deal.clone()).await;
        self.after(deal, id, State::Committed).await;
        (commands, writes)
    }

    /// Cut once; whether it came to be.
    pub async fn cut(&mut self, at: usize, way: Way) -> bool {
        let deal = self.ready().await;
        let (id, end) = self.world.cut(self.card, deal.clone(), at, way).await;
        self.after(deal, id, end).await;
        end != State::Aborted
    }

    /// Every card is the sum of what was told of it; the one that lives is tapped once more.
    pub async fn close(mut self) {
        self.world.add_up(1..=self.card).await;
        if matches!(self.operation, Operation::Give | Operation::Take) {
            self.world.add_up(OTHER..=OTHER).await;
        }
        self.world.close().await;
    }
}

fn cash(fen: i64) -> Vec<baygate::event::ledger::Tender> {
    vec![baygate::event::ledger::Tender { kind: TenderKind::Cash, amount_fen: Fen(fen) }]
}
