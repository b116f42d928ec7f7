//! Two gateways of each of two stores, real cards and the plain model beside them: what is asked is done on both, and the
//! model says beforehand whether it may be.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

pub mod judge;
pub mod plain;
pub mod step;

use std::collections::BTreeMap;
use std::sync::Arc;

use baygate::card::counter::{By as Asker, Deal, ISSUE, IssueAsked, Life, TRANSACTION, Why};
use baygate::card::keys::sealed::SealedKeys;
use baygate::card::keys::{KeyVersion, Purpose};
use baygate::card::member::{MemberPolicy, Members};
use baygate::event::ledger::{CardStanding, CardType, TenderKind, TransactionKind};
use baygate::money::Fen;
use baygate::sim::card::{CardFault, Chip, Technology as Sim};
use baygate::store::card_pins::{CardPinOp, PinDeed};
use baygate::store::ledger::State;
use baygate::store::ledger_cards::{By, CardRow};
use baygate::store::operators::PinHash;
use baygate::store::requests::RequestState;
use baygate::store::{Batch, Op};
use jiff::ToSpan;
use jiff::civil::{Date, date};
use serde_json::json;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::counter::{Gateway, Running, shop, vpcd_table};
use crate::cut_shop::{FAULTS, STORE, Shop, blank, by, deal, members, number};
use crate::port::free_port;
use plain::{GATEWAYS, Plain, Waits, store_of};
use step::{Deed, Step, WHO};

/// So long is an anonymous card good at first.
const FIRST_DAY: Date = date(2040, 12, 31);

pub struct World {
    begun: Date,
    shops: [(Shop, Running); GATEWAYS],
    chips: Vec<Chip>,
    plain: Plain,
}

const STORES: [&str; 2] = [STORE, "BJ-0001"];

/// Whose cards each gateway is to take.
const ACCEPTS: [&[&str]; GATEWAYS] = [&["own", STORES[1]], &["all"], &["own", STORES[0]], &["own"]];

/// Keys of a store; no two stores have one in common.
fn masters(store: usize, of_its_own: bool) -> BTreeMap<(KeyVersion, Purpose), Zeroizing<[u8; 16]>> {
    let seed = 1 + 0x40 * u8::try_from(store).unwrap();
    let all = (seed..).zip(Purpose::ALL);
    let given = all.filter(|(_, purpose)| of_its_own || *purpose != Purpose::Manage);
    given.map(|(byte, purpose)| ((KeyVersion(1), purpose), Zeroizing::new([byte; 16]))).collect()
}

/// With the other store's keys, but on the second gateway.
fn members_at(at: usize) -> Members {
    let (ours, other) = (store_of(at), 1 - store_of(at));
    let id = |store: usize| STORES[store].parse().unwrap();
    let keys = SealedKeys::new(id(ours), KeyVersion(1), masters(ours, true));
    let keys = if at == 1 { keys } else { keys.with_store(id(other), masters(other, false)) };
    let policy = MemberPolicy::of(id(ours), ACCEPTS[at], jiff::tz::TimeZone::UTC);
    Members { keys: Arc::new(keys), layouts: members().layouts.clone(), policy }
}

fn open(at: usize) -> (Shop, Running) {
    let gateway = Shop { gateway: Gateway::new(), port: free_port() };
    let mut rules = shop();
    rules.store = STORES[store_of(at)].parse().unwrap();
    rules.rules.accept_stores = ACCEPTS[at].iter().map(|store| (*store).to_owned()).collect();
    rules.rules.named.max_balance_fen = Fen(1_000_000_000);
    rules.rules.anonymous.max_balance_fen = Fen(1_000_000_000);
    rules.rules.limit = vec![
        serde_json::from_value(json!({
            "technologies": ["ntag215"], "per_transaction_fen": 1_000_000_000,
            "per_card_fen": 1_000_000_000, "per_day_fen": 1_000_000_000,
        }))
        .unwrap(),
    ];
    let running = gateway.gateway.serve_shop(
        vpcd_table("counter-1", gateway.port),
        Some(Arc::new(members_at(at))),
        rules,
    );
    (gateway, running)
}

impl World {
    /// Three customers with a card each, shown at every gateway: one named, two anonymous; the last one's
    /// is the other store's.
    pub async fn open() -> Self {
        let mut world = Self {
            begun: judge::today(),
            shops: std::array::from_fn(open),
            chips: Vec::new(),
            plain: Plain::default(),
        };
        for person in 0..3 {
            world.plain.people[person] = world.issue(person, person, person == 0).await;
            for gateway in 0..GATEWAYS {
                let deed = Deed::TopUp(1_000);
                Box::pin(world.step(&Step { gateway, person, deed, who: 0, typed: true, cut: None })).await;
            }
        }
        world
    }

    fn shop(&self, at: usize) -> &Shop {
        &self.shops[at].0
    }

    async fn issue(&mut self, at: usize, owner: usize, named: bool) -> usize {
        let n = self.chips.len() + 1;
        let until = (!named).then_some(FIRST_DAY);
        let asked = IssueAsked {
            card_no: number(n),
            card_type: if named { CardType::Named } else { CardType::Anonymous },
            tier: 0,
            discount_class: 0,
            valid_until: until,
            wait_s: Some(30),
            by: by(),
        };
        let shop = self.shop(at);
        let card = shop.lay(&blank(Sim::Ntag215, n)).await;
        let id = shop.ask(ISSUE, json!(asked)).await;
        let row = shop.answered(id).await;
        assert_eq!(row.state, RequestState::Done, "{:?}", row.outcome);
        let chip = shop.take_away(card).await;
        self.chips.push(chip);
        self.plain.issued(at, owner, named, until)
    }

    async fn row(&self, at: usize, card: usize) -> Option<CardRow> {
        let card_no = number(card + 1);
        self.shop(at).gateway.store.read(move |r| r.member_card(&card_no)).await.unwrap()
    }

    /// Lays a card down, asks, takes it away. Where the transaction stands then.
    async fn ask(
        &mut self,
        at: usize,
        card: usize,
        deal: Deal,
        cut: Option<(usize, CardFault)>,
    ) -> (Uuid, Option<State>) {
        let shop = &self.shops[at].0;
        let lies = shop.lay(&self.chips[card]).await;
        if let Some((after, fault)) = cut {
            lies.fault_after(after, fault);
        }
        let id = shop.ask(TRANSACTION, json!(deal)).await;
        let row = shop.answered(id).await;
        let state = shop.gateway.store.read(move |r| r.transaction_state(id)).await.unwrap();
        if state.is_none() {
            assert_eq!((row.state, lies.writes()), (RequestState::Failed, 0), "{:?}", row.outcome);
            let code = &row.outcome.as_ref().unwrap()["code"];
            let is_taken = self.plain.takes(at, card);
            assert!(is_taken || cut.is_some() || *code == "store-not-accepted", "{at}: {:?}", row.outcome);
        }
        self.chips[card] = shop.take_away(lies).await;
        self.plain.shown(at, card);
        (id, state)
    }

    /// One deal, which is done if it may be and was not cut: after the next tap nobody is in doubt.
    /// Its id, when it is on the card.
    async fn deal(&mut self, step: &Step, card: usize, deal: Deal, may: bool) -> Option<Uuid> {
        let at = step.gateway;
        let (operator, till) = WHO[step.who];
        let deal = Deal { by: Asker { operator: operator.into(), till: till.parse().unwrap() }, ..deal };
        let cut = step.cut.map(|(at, fault)| (at, FAULTS[fault]));
        let (id, state) = self.ask(at, card, deal, cut).await;
        assert_eq!(state.is_some(), may, "{step:?} with card {card}: {:?}", self.shop(at).request(id).await);
        state?;
        let shop = &self.shops[at].0;
        let lies = shop.lay(&self.chips[card]).await;
        self.chips[card] = shop.take_away(lies).await;
        let state = shop.gateway.store.read(move |r| r.transaction_state(id)).await.unwrap();
        match (state, shop.request(id).await.state) {
            (Some(State::Committed), RequestState::Done) => Some(id),
            (Some(State::Aborted), RequestState::Failed) if cut.is_some() => None,
            other => panic!("{step:?}: {other:?}"),
        }
    }

    pub async fn step(&mut self, step: &Step) {
        let Step { person, typed, .. } = *step;
        if let Some(waits) = self.plain.waits[person].clone() {
            return self.receive(step, waits).await;
        }
        let card = self.plain.people[person];
        let plain = &self.plain;
        // Only its own store gives another card for one that breaks.
        let elsewhere = matches!(step.deed, Deed::Break { .. }) && !plain.at_home(step.gateway, card);
        let step = &Step { gateway: step.gateway ^ if elsewhere { 2 } else { 0 }, ..*step };
        let at = step.gateway;
        let active = plain.active(at, card);
        let pin_fits = plain.pin_fits(at, card, typed);
        let of = |kind| Deal { pin_checked: typed, ..deal(&number(card + 1), kind) };
        match step.deed {
            Deed::TopUp(amount) => {
                let tenders =
                    serde_json::from_value(json!([{ "kind": "cash", "amount_fen": amount }])).unwrap();
                let wish = Deal { amount_fen: Some(Fen(amount)), tenders, ..of(TransactionKind::Topup) };
                if self.deal(step, card, wish, active).await.is_some() {
                    self.plain.paid_in += amount;
                    let cash = Some((TenderKind::Cash, amount));
                    self.plain.book(at, step.books(TransactionKind::Topup), (amount, 0), cash);
                    self.plain.written(at, card, amount, 0);
                }
            }
            Deed::Spend(amount) => {
                let may = active && pin_fits && amount <= plain.cards[card].money;
                let wish = Deal { amount_fen: Some(Fen(amount)), ..of(TransactionKind::Spend) };
                if self.deal(step, card, wish, may).await.is_some() {
                    self.spent(step, card, amount);
                }
            }
            Deed::Extend { days } => {
                let until = FIRST_DAY + days.days();
                let may = active && plain.at_home(at, card);
                let may = may && plain.cards[card].until.is_some_and(|was| was <= until);
                let life = Life::Extend { valid_until: Some(until) };
                let wish = Deal { life: Some(life), ..of(TransactionKind::Adjust) };
                if self.deal(step, card, wish, may).await.is_some() {
                    self.plain.cards[card].until = Some(until);
                    self.plain.book(at, step.books(TransactionKind::Adjust), (0, 0), None);
                    self.plain.written(at, card, 0, 0);
                }
            }
            Deed::GiveBack => self.give_back(step, card, of(TransactionKind::Refund)).await,
            Deed::Replace => self.replace(step, card).await,
            Deed::Break { amount, at: after } => {
                let wish = Deal { amount_fen: Some(Fen(amount)), ..of(TransactionKind::Spend) };
                match self.ask(at, card, wish, Some((after, CardFault::Pull))).await.1 {
                    Some(State::Committed) => self.spent(&Step { who: 0, ..*step }, card, amount),
                    Some(State::Unknown) => {
                        self.plain.parked[at] += 1;
                        self.plain.cards[card].broken = true;
                        self.replace(step, card).await;
                    }
                    _ => {}
                }
            }
            Deed::Give { to, amount } => {
                let to = plain.people[(person + to) % 3];
                let takes = plain.known[at].contains_key(&to) && plain.active(at, to) && to != card;
                let takes = takes && plain.cards[to].store == plain.cards[card].store;
                let may = active && pin_fits && takes && amount <= plain.cards[card].money;
                let wish = Deal {
                    amount_fen: Some(Fen(amount)),
                    to_card_no: Some(number(to + 1)),
                    ..of(TransactionKind::Transfer)
                };
                if let Some(id) = self.deal(step, card, wish, may).await {
                    let sent = Some((TenderKind::Purse, amount));
                    self.plain.book(at, step.books(TransactionKind::Transfer), (-amount, 0), sent);
                    self.plain.written(at, card, -amount, 0);
                    self.plain.due.push(plain::Due { at, id, from: card, to, money: amount });
                }
            }
            Deed::Take(n) => self.take(step, n).await,
            Deed::Undo(n) => self.undo(step, n).await,
            Deed::Lose => self.stands(at, card, CardStanding::Active, CardStanding::Lost).await,
            Deed::Find => self.stands(at, card, CardStanding::Lost, CardStanding::Active).await,
            Deed::SetPin => self.pin(at, card, PinDeed::Set(PinHash("h".into()))).await,
            Deed::RemovePin => self.pin(at, card, PinDeed::Remove).await,
            Deed::WrongPin => self.pin(at, card, PinDeed::Try).await,
            Deed::Old(n) => self.turns_up(n).await,
        }
    }

    fn spent(&mut self, step: &Step, card: usize, amount: i64) {
        let (at, points) = (step.gateway, amount / 100);
        self.plain.paid_out += amount;
        let purse = Some((TenderKind::Purse, amount));
        self.plain.book(at, step.books(TransactionKind::Spend), (-amount, points), purse);
        self.plain.written(at, card, -amount, points);
    }

    /// The principal is paid out; the customer buys another card.
    async fn give_back(&mut self, step: &Step, card: usize, wish: Deal) {
        let (at, plain) = (step.gateway, &self.plain);
        let line = plain.line(at, card);
        let owes = plain.due.iter().any(|due| due.at == at && line.contains(&due.from));
        let stays = plain.active(at, card) && plain.at_home(at, card);
        let may = stays && plain.pin_fits(at, card, step.typed) && !owes;
        let wish = Deal { life: Some(Life::Return { tender: TenderKind::Bank }), ..wish };
        if self.deal(step, card, wish, may).await.is_none() {
            return;
        }
        let plain::Card { money, points, owner, named, .. } = self.plain.cards[card];
        self.plain.paid_out += money;
        let out = Some((TenderKind::Bank, -money));
        self.plain.book(at, step.books(TransactionKind::Refund), (-money, -points), out);
        self.plain.written(at, card, -money, -points);
        self.plain.cards[card].given_back = true;
        self.plain.known[at].get_mut(&card).unwrap().standing = CardStanding::Returned;
        self.plain.drawer.push((at, card));
        self.plain.people[owner] = self.issue(at, owner, named).await;
    }

    fn replacing(old: usize, new: usize) -> Deal {
        let life = Life::Replace { old_card_no: number(old + 1), why: Why::Defect };
        Deal { life: Some(life), ..deal(&number(new + 1), TransactionKind::Transfer) }
    }

    /// The old card is not there.
    async fn replace(&mut self, step: &Step, old: usize) {
        let (at, person) = (step.gateway, step.person);
        let new = self.issue(at, person, self.plain.cards[old].named).await;
        let standing = self.plain.known[at].get(&old).map(|known| known.standing);
        let stands = matches!(standing, Some(CardStanding::Active | CardStanding::Lost));
        let may = stands && self.plain.at_home(at, old);
        let done = self.deal(step, new, Self::replacing(old, new), may).await;
        if !may {
            return;
        }
        // Dead from the intent on.
        let waits = self.plain.leaves(at, old);
        self.plain.people[person] = new;
        let moves = step.books(TransactionKind::Transfer);
        self.plain.book(at, moves, (-waits.money, -waits.points), None);
        self.arrives(step, new, waits, done);
    }

    fn arrives(&mut self, step: &Step, new: usize, waits: Waits, done: Option<Uuid>) {
        if done.is_some() {
            let moves = step.books(TransactionKind::Transfer);
            self.plain.book(step.gateway, moves, (waits.money, waits.points), None);
            self.plain.arrives(new, &waits);
        }
        self.plain.waits[step.person] = done.is_none().then_some(waits);
    }

    /// The new card has not got it: it is asked again, or breaks too and another one gets it.
    async fn receive(&mut self, step: &Step, waits: Waits) {
        let (person, at) = (step.person, waits.at);
        let step = Step { gateway: at, ..*step };
        let mut new = self.plain.people[person];
        let mut old = waits.old;
        if matches!(step.deed, Deed::Replace) {
            old = new;
            new = self.issue(at, person, self.plain.cards[old].named).await;
            self.plain.people[person] = new;
            self.plain.breaks(at, old);
        }
        let done = self.deal(&step, new, Self::replacing(old, new), true).await;
        self.arrives(&step, new, waits, done);
    }

    async fn take(&mut self, step: &Step, n: usize) {
        let Some((due, waits)) = self.plain.sent(n) else { return };
        let card = due.to;
        let receiver = &self.plain.cards[card];
        if self.plain.waits[receiver.owner].is_some() || receiver.broken {
            return;
        }
        let wish = Deal {
            original_transaction_id: Some(due.id),
            ..deal(&number(card + 1), TransactionKind::Transfer)
        };
        let step = Step { gateway: due.at, ..*step };
        let may = waits && self.plain.active(due.at, card);
        if self.deal(&step, card, wish, may).await.is_some() {
            let came = Some((TenderKind::Purse, -due.money));
            self.plain.book(due.at, step.books(TransactionKind::Transfer), (due.money, 0), came);
            self.plain.written(due.at, card, due.money, 0);
            self.plain.settled(due.id);
        }
    }

    /// Onto the card that its customer has now, if it took the other one's place there.
    async fn undo(&mut self, step: &Step, n: usize) {
        let Some((due, waits)) = self.plain.sent(n) else { return };
        let owner = self.plain.cards[due.from].owner;
        if self.plain.waits[owner].is_some() {
            return;
        }
        let (at, card) = (due.at, self.plain.people[owner]);
        let may = waits && self.plain.active(at, card) && self.plain.line(at, card).contains(&due.from);
        let wish =
            Deal { original_transaction_id: Some(due.id), ..deal(&number(card + 1), TransactionKind::Void) };
        if self.deal(&Step { gateway: at, ..*step }, card, wish, may).await.is_some() {
            let back = Some((TenderKind::Purse, -due.money));
            self.plain.book(at, step.books(TransactionKind::Void), (due.money, 0), back);
            self.plain.written(at, card, due.money, 0);
            self.plain.settled(due.id);
        }
    }

    /// Reported, or found, without the card: as `POST /v1/cards/{card_no}/block` does.
    async fn stands(&mut self, at: usize, card: usize, was: CardStanding, is: CardStanding) {
        let Some(row) = self.row(at, card).await else { return };
        let known = self.plain.known[at].get_mut(&card).unwrap();
        assert_eq!(row.status, known.standing);
        if known.standing == was {
            let who = By { operator: "li".into(), till: "till-1".parse().unwrap() };
            self.shops[at].0.gateway.store.commit(row.stands(is, None, who).unwrap()).await.unwrap();
            known.standing = is;
        }
    }

    async fn pin(&mut self, at: usize, card: usize, deed: PinDeed) {
        let Some(known) = self.plain.known[at].get_mut(&card) else { return };
        let (may, is) = match deed {
            PinDeed::Set(_) => (true, Some(0)),
            PinDeed::Remove => (known.pin.is_some(), None),
            PinDeed::Try => (known.pin.is_some(), known.pin.map(|wrong| wrong + 1)),
            PinDeed::Right => unreachable!(),
        };
        let op = Op::CardPin(CardPinOp { card_no: number(card + 1), deed });
        let done = self.shops[at].0.gateway.store.commit(Batch::new().op(op)).await;
        assert_eq!(done.is_ok(), may);
        if may {
            known.pin = is;
        }
    }

    /// Refused, nothing written; held where it shows that it was used after its end.
    async fn turns_up(&mut self, n: usize) {
        let Some((at, card)) = self.plain.drawer.get(n).copied() else { return };
        let wish = deal(&number(card + 1), TransactionKind::Earn);
        assert_eq!(self.ask(at, card, Deal { points: Some(1), ..wish }, None).await.1, None);
        let row = self.row(at, card).await.unwrap();
        let known = &self.plain.known[at][&card];
        let used = known.standing == CardStanding::Replaced
            && self.plain.cards[card].counter >= known.counter.max(1);
        let held = if self.plain.cards[card].broken { row.held.is_some() } else { used };
        assert_eq!((row.status, row.held.is_some()), (known.standing, held), "card {card}: {row:?}");
    }
}
