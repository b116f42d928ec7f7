//! The plain model: what cards hold, what each gateway last saw of them, what is on its way between
//! two cards. No store, no driver, no purse.

use std::collections::BTreeMap;

use baygate::event::ledger::{CardStanding, TenderKind, TransactionKind};
use jiff::civil::Date;
use uuid::Uuid;

/// Gateways: two of each store.
pub const GATEWAYS: usize = 4;

/// The stores whose cards a gateway has the keys of: not the second one of the other's.
const OPENS: [[bool; 2]; GATEWAYS] = [[true, true], [true, false], [true, true], [true, true]];
/// The stores whose cards it takes: nobody told the fourth one to take the other's.
const TAKES: [[bool; 2]; GATEWAYS] = [[true, true], [true, false], [true, true], [false, true]];

/// The store of a gateway.
pub fn store_of(at: usize) -> usize {
    at / 2
}

/// A card, as its chip is.
#[derive(Debug, Clone, Default)]
pub struct Card {
    pub owner: usize,
    /// Which store issued it.
    pub store: usize,
    pub named: bool,
    pub money: i64,
    pub points: i64,
    pub counter: u32,
    pub until: Option<Date>,
    /// Its record says that it was given back.
    pub given_back: bool,
    /// It broke in a sale: nobody knows what is on it.
    pub broken: bool,
    /// Another one took its place: with so much money.
    pub moved: Option<i64>,
}

/// What a gateway last saw of a card, and what was said of it there.
#[derive(Debug, Clone)]
pub struct Known {
    pub standing: CardStanding,
    pub money: i64,
    pub points: i64,
    pub counter: u32,
    /// With so many wrong ones.
    pub pin: Option<u32>,
    /// Whose place it took here.
    pub after: Option<usize>,
}

/// Sent to another card, and not received.
#[derive(Debug, Clone)]
pub struct Due {
    pub at: usize,
    pub id: Uuid,
    pub from: usize,
    pub to: usize,
    pub money: i64,
}

/// What a replaced card held, while the new one has not got it.
#[derive(Debug, Clone)]
pub struct Waits {
    pub at: usize,
    pub old: usize,
    pub money: i64,
    pub points: i64,
}

/// What the figures of the day have to say of an operator at a till, of one kind.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Sum {
    pub count: u64,
    pub money: i64,
    pub points: i64,
    pub tenders: BTreeMap<TenderKind, i64>,
}

/// Operator, till and kind.
pub type Booking = (&'static str, &'static str, TransactionKind);

#[derive(Debug, Default)]
pub struct Plain {
    pub cards: Vec<Card>,
    pub known: [BTreeMap<usize, Known>; GATEWAYS],
    /// The card that each customer uses.
    pub people: [usize; 3],
    pub due: Vec<Due>,
    /// Received, or undone.
    pub gone: Vec<Due>,
    pub waits: [Option<Waits>; 3],
    /// Cards that are dead at a gateway.
    pub drawer: Vec<(usize, usize)>,
    pub figures: [BTreeMap<Booking, Sum>; GATEWAYS],
    /// Cards given out, and sales that only headquarters can settle, at each gateway.
    pub issued: [u64; GATEWAYS],
    pub parked: [u64; GATEWAYS],
    pub paid_in: i64,
    pub paid_out: i64,
}

impl Plain {
    /// A card that was just given out.
    pub fn issued(&mut self, at: usize, owner: usize, named: bool, until: Option<Date>) -> usize {
        self.cards.push(Card { owner, store: store_of(at), named, until, ..Card::default() });
        let card = self.cards.len() - 1;
        self.issued[at] += 1;
        self.shown(at, card);
        card
    }

    /// A gateway sees a card, whether it takes it or not.
    pub fn shown(&mut self, at: usize, card: usize) {
        if !self.opens(at, card) {
            return;
        }
        let Card { money, points, counter, given_back, .. } = self.cards[card];
        let known = self.known[at].entry(card).or_insert(Known {
            standing: CardStanding::Active,
            money,
            points,
            counter,
            pin: None,
            after: None,
        });
        let dead = matches!(known.standing, CardStanding::Replaced | CardStanding::Returned);
        if !dead && !given_back {
            (known.money, known.points, known.counter) = (money, points, counter);
        }
    }

    /// Whether a gateway can read it.
    pub fn opens(&self, at: usize, card: usize) -> bool {
        OPENS[at][self.cards[card].store]
    }

    /// Whether cards of its store are taken at a gateway.
    pub fn takes(&self, at: usize, card: usize) -> bool {
        TAKES[at][self.cards[card].store]
    }

    /// Whether a gateway is of the store that issued it.
    pub fn at_home(&self, at: usize, card: usize) -> bool {
        store_of(at) == self.cards[card].store
    }

    /// Whether a card that lies there may be used at all.
    pub fn active(&self, at: usize, card: usize) -> bool {
        let known = self.known[at].get(&card);
        let stands = known.is_none_or(|known| known.standing == CardStanding::Active);
        stands && !self.cards[card].given_back && self.takes(at, card)
    }

    /// Whether what takes value off it is let through.
    pub fn pin_fits(&self, at: usize, card: usize, typed: bool) -> bool {
        typed || self.known[at].get(&card).is_none_or(|known| known.pin.is_none())
    }

    /// The card and those whose place it took at a gateway.
    pub fn line(&self, at: usize, card: usize) -> Vec<usize> {
        let mut line = vec![card];
        while let Some(before) = self.known[at].get(&line[line.len() - 1]).and_then(|known| known.after) {
            line.push(before);
        }
        line
    }

    /// A transaction counts on its day. Of a tender, what came in has a plus.
    pub fn book(&mut self, at: usize, booking: Booking, by: (i64, i64), tender: Option<(TenderKind, i64)>) {
        let sum = self.figures[at].entry(booking).or_default();
        (sum.count, sum.money, sum.points) = (sum.count + 1, sum.money + by.0, sum.points + by.1);
        if let Some((tender, money)) = tender.filter(|(_, money)| *money != 0) {
            *sum.tenders.entry(tender).or_default() += money;
        }
    }

    /// A transaction on a card is committed.
    pub fn written(&mut self, at: usize, card: usize, money: i64, points: i64) {
        let holds = &mut self.cards[card];
        holds.money += money;
        holds.points += points;
        holds.counter += 1;
        self.shown(at, card);
    }

    /// The giving half of a replacement: what was seen of the card last is what moves.
    pub fn leaves(&mut self, at: usize, old: usize) -> Waits {
        let known = self.known[at].get_mut(&old).unwrap();
        let waits = Waits { at, old, money: known.money, points: known.points };
        known.standing = CardStanding::Replaced;
        (known.money, known.points, known.counter) = (0, 0, known.counter + 1);
        self.cards[old].moved = Some(waits.money);
        self.drawer.push((at, old));
        waits
    }

    /// The receiving half, with the PIN.
    pub fn arrives(&mut self, new: usize, waits: &Waits) {
        self.written(waits.at, new, waits.money, waits.points);
        let known = &mut self.known[waits.at];
        let pin = known.get_mut(&waits.old).unwrap().pin.take();
        let new = known.get_mut(&new).unwrap();
        new.pin = new.pin.or(pin);
        new.after = Some(waits.old);
    }

    /// A new card broke before it held anything: it only goes.
    pub fn breaks(&mut self, at: usize, card: usize) {
        self.known[at].get_mut(&card).unwrap().standing = CardStanding::Replaced;
        self.cards[card].moved = Some(0);
        self.drawer.push((at, card));
    }

    /// The n-th of what is on its way, or was, or the last of them; whether it still is.
    pub fn sent(&self, n: usize) -> Option<(Due, bool)> {
        let due = self.due.iter().map(|due| (due.clone(), true));
        let gone = self.gone.iter().rev().map(|due| (due.clone(), false));
        due.chain(gone).take(n + 1).last()
    }

    /// It arrived, or came back.
    pub fn settled(&mut self, id: Uuid) {
        let place = self.due.iter().position(|due| due.id == id).unwrap();
        let due = self.due.remove(place);
        self.gone.push(due);
    }

    /// All money there is: on cards and between them, with what was done to a card that another one
    /// had replaced already, without its being known.
    pub fn money(&self) -> i64 {
        let on_cards: i64 = self.cards.iter().map(|card| card.money - card.moved.unwrap_or(0)).sum();
        let between: i64 = self.due.iter().map(|due| due.money).sum();
        on_cards + between + self.waits.iter().flatten().map(|waits| waits.money).sum::<i64>()
    }
}
