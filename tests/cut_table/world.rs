//! A shop whose cards are cut: one card lies on its reader at a time, and the program may be killed.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use baygate::card::counter::{Deal, ISSUE, IssueAsked, TRANSACTION};
use baygate::card::member::Members;
use baygate::clock::UtcMillis;
use baygate::event::ledger::{CardTransaction, CardType, Outcome, TransactionKind as Kind};
use baygate::money::{CouponId, Fen, Holding};
use baygate::sim::card::{CardSim, Chip, Technology as Sim};
use baygate::store::ledger::State;
use baygate::store::requests::RequestState;
use jiff::civil::{Date, date};
use serde_json::json;
use uuid::Uuid;

use super::table::Way;
use crate::counter::{self, Gateway, PATIENCE, Running, vpcd_table};
use crate::cpu_shop::{Hq, Slot, till, with_purse};
use crate::cut_shop::{Shop, blank, by, deal, members, number};
use crate::port::free_port;

pub const COUPON: CouponId = CouponId(7);
/// The last day of an anonymous card that was not extended yet.
pub const ISSUED_UNTIL: Date = date(2040, 12, 31);

pub struct World {
    pub shop: Shop,
    pub sim: Sim,
    service: Option<Running>,
    slot: Slot,
    chips: BTreeMap<usize, Chip>,
    there: Option<(usize, CardSim)>,
}

impl World {
    /// With coupons, and headquarters behind it; a CPU card's with a purchase SAM.
    pub fn open(sim: Sim) -> Self {
        let shop = Shop { gateway: Gateway::new(), port: free_port() };
        let (chips, slot) = (BTreeMap::new(), Slot::new());
        let mut world = Self { shop, sim, service: None, slot, chips, there: None };
        world.serve();
        world
    }

    fn serve(&mut self) {
        let mut house = counter::shop();
        house.has_uplink = true;
        let name = json!({ "zh": "保养券", "en": "Service" });
        let rule = serde_json::from_value(json!({ "id": COUPON, "name": name, "off_fen": 50 }));
        house.rules.coupon = vec![rule.unwrap()];
        let table = vpcd_table("counter-1", self.shop.port);
        self.service = Some(self.shop.gateway.serve_shop(table, self.members(), house));
    }

    fn members(&self) -> Option<Arc<Members>> {
        if self.sim != Sim::Cpu {
            return Some(members());
        }
        with_purse(Some(till(self.slot.opener()).with_headquarters(Arc::new(Hq))))
    }

    pub async fn close(mut self) {
        self.lift().await;
        self.service.take().unwrap().stop().await;
    }

    /// Lays the n-th card on the reader, unless it lies there.
    pub async fn put(&mut self, n: usize) -> &CardSim {
        if self.there.as_ref().is_none_or(|(lies, _)| *lies != n) {
            self.lift().await;
            let chip = self.chips.remove(&n).unwrap_or_else(|| blank(self.sim, n));
            self.there = Some((n, self.shop.lay(&chip).await));
        }
        &self.there.as_ref().unwrap().1
    }

    pub async fn lift(&mut self) {
        if let Some((n, card)) = self.there.take() {
            let chip = self.shop.take_away(card).await;
            self.chips.insert(n, chip);
        }
    }

    /// What the n-th card holds, as it was told.
    pub async fn holds(&self, n: usize) -> Holding {
        self.shop.known(&number(n)).await.unwrap()
    }

    /// Its last millisecond, as it was told.
    pub async fn valid_until(&self, n: usize) -> Option<UtcMillis> {
        let store = &self.shop.gateway.store;
        store.read(move |r| r.member_card(&number(n))).await.unwrap().unwrap().seen.valid_until
    }

    /// A card given out, with money on it.
    pub async fn issued(&mut self, n: usize, card_type: CardType, fen: i64) {
        self.put(n).await;
        let issue = self.ask_issue(n, card_type).await;
        let row = self.shop.answered(issue).await;
        assert_eq!(row.state, RequestState::Done, "{:?} {:?}", self.sim, row.outcome);
        if fen > 0 {
            let topup = self.shop.deal(&number(n), Kind::Topup, fen).await;
            let row = self.shop.answered(topup).await;
            assert_eq!(row.state, RequestState::Done, "{:?} {:?}", self.sim, row.outcome);
        }
    }

    pub async fn ask_issue(&self, n: usize, card_type: CardType) -> Uuid {
        let asked = IssueAsked {
            card_no: number(n),
            card_type,
            tier: 0,
            discount_class: 0,
            valid_until: (card_type == CardType::Anonymous).then_some(ISSUED_UNTIL),
            wait_s: Some(30),
            by: by(),
        };
        self.shop.ask(ISSUE, json!(asked)).await
    }

    /// Done without a cut: the deal, its commands, and which of them change the card.
    pub async fn whole(&mut self, n: usize, deal: Deal) -> (Uuid, usize, Vec<usize>) {
        let what = format!("{:?} {:?} {:?}", self.sim, deal.kind, deal.life);
        let begun = self.put(n).await.apdus().len();
        let id = self.shop.ask(TRANSACTION, json!(deal)).await;
        let row = self.shop.answered(id).await;
        assert_eq!(row.state, RequestState::Done, "{what} {:?}", row.outcome);
        let (commands, writes) = self.talk(begun);
        (id, commands, writes)
    }

    /// How many commands the card that lies there was sent.
    pub fn said(&self) -> usize {
        self.there.as_ref().unwrap().1.apdus().len()
    }

    /// The commands to the card that lies there since `begun`.
    pub fn talk(&self, begun: usize) -> (usize, Vec<usize>) {
        let card = &self.there.as_ref().unwrap().1;
        let writes = card.writes_at().into_iter().filter_map(|at| at.checked_sub(begun)).collect();
        (card.apdus().len() - begun, writes)
    }

    /// Waits for the answer, or kills the program when the card has done its last command; then the
    /// card is tapped again. A deed that never comes to the cut was not cut: the cell fails.
    pub async fn until_cut(&mut self, n: usize, id: Uuid, at: usize, begun: usize, way: Way) {
        let deadline = Instant::now() + PATIENCE;
        while self.said() <= begun + at {
            let row = self.shop.request(id).await;
            let (sim, said) = (self.sim, self.said() - begun);
            assert!(Instant::now() < deadline, "{sim:?} {way:?} at {at}: only {said} commands, {row:?}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        if way == Way::Killed {
            self.kill().await;
        } else {
            self.shop.answered(id).await;
        }
        self.lift().await;
        self.put(n).await;
    }

    /// As `kill -9` would: what runs is dropped in the middle of a command, and the store opened anew.
    async fn kill(&mut self) {
        self.service.take().unwrap().kill().await;
        self.shop.gateway.open_again().await;
        self.serve();
        // What the dead program left in the field.
        self.shop.until("an empty field", |r| r.cards_in_field().unwrap().is_empty().then_some(())).await;
    }

    /// The deal, cut at one of its commands; the card lies there again, and what was told of it is
    /// what the journal says.
    pub async fn cut(&mut self, n: usize, deal: Deal, at: usize, way: Way) -> (Uuid, State) {
        let what = format!("{:?} {:?} {:?} {way:?} at {at}", self.sim, deal.kind, deal.life);
        let card = self.put(n).await;
        let begun = card.apdus().len();
        card.fault_after(at, way.fault(at));
        let before = self.holds(n).await;
        let id = self.shop.ask(TRANSACTION, json!(deal)).await;
        self.until_cut(n, id, at, begun, way).await;
        let row = self.shop.gateway.store.read(move |r| r.transaction(id)).await.unwrap().expect(&what);
        let (request, after) = (self.shop.request(id).await.state, self.holds(n).await);
        match row.state {
            State::Committed => assert_eq!((request, &after), (RequestState::Done, &row.after), "{what}"),
            State::Aborted => assert_eq!((request, &after), (RequestState::Failed, &before), "{what}"),
            // Nobody is left who could check the card's word: it is for headquarters.
            State::Parked if self.sim == Sim::Cpu && way == Way::Killed => {
                assert_eq!((request, &after), (RequestState::Failed, &row.after), "{what}");
            }
            other => panic!("{what}: {other:?}"),
        }
        if self.sim == Sim::Cpu {
            let chip = self.there.as_ref().unwrap().1.chip();
            let fen = chip.purse().map(|(fen, ..)| i64::from(fen));
            assert_eq!(after.balance(), fen.map(Fen), "{what}: record and purse are one");
        }
        (id, row.state)
    }

    /// Each of these cards adds up, the last one tapped once more.
    pub async fn add_up(&mut self, cards: RangeInclusive<usize>) {
        self.lift().await;
        self.put(*cards.end()).await;
        let told = self.shop.told().await.into_iter().filter(|(kind, _)| kind == "card.transaction");
        let facts: Vec<CardTransaction> =
            told.map(|(_, data)| serde_json::from_value(data).unwrap()).collect();
        for n in cards {
            self.is_the_sum(n, &facts).await;
        }
    }

    /// The n-th card holds what the outbox tells of it, its journal says the same, and nothing is open.
    async fn is_the_sum(&self, n: usize, facts: &[CardTransaction]) {
        let what = format!("{:?} card {n}", self.sim);
        let holds = self.holds(n).await;
        let ours = facts.iter().filter(|fact| fact.card_no == number(n));
        let last: BTreeMap<Uuid, &CardTransaction> = ours.map(|fact| (fact.transaction_id, fact)).collect();
        let card_no = number(n);
        let store = &self.shop.gateway.store;
        let rows = store.read(move |r| r.transactions_of(&card_no, None, 10_000)).await.unwrap();
        let journal: BTreeMap<Uuid, Outcome> =
            rows.iter().map(|row| row.current()).map(|fact| (fact.transaction_id, fact.outcome)).collect();
        let outbox: BTreeMap<Uuid, Outcome> = last.iter().map(|(id, fact)| (*id, fact.outcome)).collect();
        assert_eq!(journal, outbox, "{what}");
        let parked: Vec<Uuid> =
            rows.iter().filter(|row| row.state == State::Parked).map(|row| row.fact.transaction_id).collect();
        assert!(parked.is_empty() || self.sim == Sim::Cpu, "{what}");
        let (mut principal, mut bonus, mut points, mut coupons, mut counter) = (0, 0, 0, 0, 0);
        let mut extended = None;
        for (id, fact) in &last {
            let is_parked = parked.contains(id);
            assert_eq!(fact.outcome == Outcome::Unknown, is_parked, "{what}: {fact:?}");
            if fact.outcome == Outcome::Committed || is_parked {
                principal += fact.principal_fen.0;
                bonus += fact.bonus_fen.0;
                points += fact.points;
                counter += 1;
                extended = fact.validity.or(extended);
                coupons += match (fact.kind, fact.coupon) {
                    (Kind::Coupon, Some(_)) => 1,
                    (Kind::Spend, Some(_)) => -1,
                    _ => 0,
                };
            }
        }
        assert_eq!((holds.principal_fen, holds.bonus_fen), (Fen(principal), Fen(bonus)), "{what}");
        assert_eq!((holds.points, holds.counter), (points, counter), "{what}");
        assert_eq!(i32::try_from(holds.coupons.len()).unwrap(), coupons, "{what}");
        if let Some(validity) = extended {
            assert_eq!(self.valid_until(n).await, validity.until, "{what}");
        }
        let open = store.read(|r| r.open_transactions()).await.unwrap();
        assert!(open.iter().all(|row| parked.contains(&row.fact.transaction_id)), "{what}: {open:?}");
    }
}

/// A deal of the n-th card.
pub fn of(n: usize, kind: Kind) -> Deal {
    deal(&number(n), kind)
}
