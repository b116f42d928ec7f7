//! At the end: cards, journals, figures and what headquarters was told are the plain model's.

use std::collections::{BTreeMap, BTreeSet};

use baygate::event::Class;
use baygate::event::ledger::{CardTransaction, Outcome, TenderKind, TransactionKind};
use baygate::ident::CardNo;
use baygate::money::Holding;
use jiff::ToSpan;
use jiff::civil::Date;
use uuid::Uuid;

use super::World;
use super::plain::{Booking, GATEWAYS, Sum};
use crate::cut_shop::{Shop, number};

/// The last that headquarters was told of each transaction.
async fn told(shop: &Shop) -> BTreeMap<Uuid, CardTransaction> {
    let all = shop.told().await;
    let facts = all.into_iter().filter(|(kind, _)| kind == "card.transaction");
    let facts = facts.map(|(_, data)| serde_json::from_value::<CardTransaction>(data).unwrap());
    facts.map(|fact| (fact.transaction_id, fact)).collect()
}

/// Told tenders in, less those out, and what was paid from cards.
fn in_less_out(fact: &CardTransaction) -> i64 {
    let by = |fits: fn(TenderKind) -> bool| -> i64 {
        fact.tenders.iter().filter(|tender| fits(tender.kind)).map(|tender| tender.amount_fen.0).sum()
    };
    match fact.kind {
        TransactionKind::Topup => by(TenderKind::is_told),
        TransactionKind::Spend => -by(|kind| kind == TenderKind::Purse),
        TransactionKind::Refund => -by(TenderKind::is_told),
        _ => 0,
    }
}

impl World {
    /// Every card that is in use comes to every gateway once more; dead ones to where they are dead.
    pub async fn judge(mut self) {
        for n in 0..self.plain.drawer.len() {
            self.turns_up(n).await;
        }
        let living: Vec<usize> = self.plain.people.to_vec();
        for at in 0..GATEWAYS {
            for card in &living {
                let shop = &self.shops[at].0;
                let lost = self.chips[*card].tries_lost();
                let lies = shop.lay(&self.chips[*card]).await;
                self.chips[*card] = shop.take_away(lies).await;
                self.plain.shown(at, *card);
                match self.plain.opens(at, *card) {
                    true => self.is_as_in_the_model(at, *card).await,
                    false => assert!(self.row(at, *card).await.is_none(), "card {card} at {at}"),
                }
                // Those of earlier cuts.
                assert_eq!(self.chips[*card].tries_lost(), lost, "card {card} at {at}");
                if !self.plain.takes(at, *card) {
                    self.is_refused(at, *card).await;
                }
            }
            self.is_listed(at).await;
        }
        let money = self.plain.money();
        assert_eq!(money, self.plain.paid_in - self.plain.paid_out, "in the model itself");
        let mut counters: BTreeMap<CardNo, Vec<u32>> = BTreeMap::new();
        let mut sum = 0;
        for (at, (shop, _)) in self.shops.iter().enumerate() {
            let plain = &self.plain;
            figures(shop, self.begun, &plain.figures[at], (plain.issued[at], plain.parked[at])).await;
            let told = told(shop).await;
            let committed: Vec<_> = told.values().filter(|fact| fact.outcome == Outcome::Committed).collect();
            sum += committed.iter().map(|fact| in_less_out(fact)).sum::<i64>();
            for fact in &committed {
                counters.entry(fact.card_no.clone()).or_default().push(fact.counter.unwrap());
            }
        }
        assert_eq!(sum, money, "told, and on the cards");
        for card in living {
            let mut found = counters.remove(&number(card + 1)).unwrap_or_default();
            found.sort_unstable();
            assert_eq!(found, (1..=self.plain.cards[card].counter).collect::<Vec<_>>(), "each counter once");
        }
        for (_, running) in self.shops {
            running.stop().await;
        }
    }

    /// A card that is not taken: the till is told why.
    async fn is_refused(&self, at: usize, card: usize) {
        let store = &self.shops[at].0.gateway.store;
        let told = store.read(|r| r.latest_of(Class::Card, 4)).await.unwrap();
        let refused = told.iter().find(|logged| logged.event.kind == "card.refused").unwrap();
        assert!(refused.event.data.get().contains("store-not-accepted"), "card {card} at {at}");
    }

    async fn is_as_in_the_model(&self, at: usize, card: usize) {
        let (row, holds) = (self.row(at, card).await.unwrap(), &self.plain.cards[card]);
        let Holding { principal_fen, bonus_fen, points, counter, .. } = row.seen.holding;
        let what = format!("card {card} at {at}");
        assert_eq!((principal_fen.0, bonus_fen.0), (holds.money, 0), "{what}");
        assert_eq!((points, counter), (holds.points, holds.counter), "{what}");
        let until = holds.until.map(|day| format!("{day}T23:59:59.999Z"));
        assert_eq!(row.seen.valid_until.map(|until| until.to_string()), until, "{what}");
        assert_eq!((row.status, row.held), (self.plain.known[at][&card].standing, None), "{what}");
    }

    /// PINs, and what is on its way.
    async fn is_listed(&self, at: usize) {
        let store = &self.shops[at].0.gateway.store;
        for (card, known) in &self.plain.known[at] {
            let card_no = number(card + 1);
            let (pin, before) =
                store.read(move |r| Ok((r.card_pin(&card_no)?, r.predecessors(&card_no)?))).await.unwrap();
            assert_eq!(pin.map(|pin| pin.wrong), known.pin, "card {card} at {at}");
            let line: Vec<_> = self.plain.line(at, *card)[1..].iter().map(|old| number(old + 1)).collect();
            assert_eq!(before[..], line[..line.len().min(16)], "card {card} at {at}");
        }
        let due: BTreeSet<_> = store.read(|r| r.transfers_due()).await.unwrap().into_iter().collect();
        let ours = self.plain.due.iter().filter(|due| due.at == at).map(|due| due.id);
        let waits = self.plain.waits.iter().flatten().filter(|waits| waits.at == at).count();
        assert_eq!(due.len(), ours.clone().count() + waits);
        assert!(ours.clone().all(|id| due.contains(&id)));
        assert!(store.read(|r| r.open_transactions()).await.unwrap().is_empty());
    }
}

/// Today and, where midnight came in between, yesterday: by operator, till, kind and tender as the
/// model booked it, whatever was told.
async fn figures(shop: &Shop, begun: Date, expected: &BTreeMap<Booking, Sum>, (issued, parked): (u64, u64)) {
    let store = &shop.gateway.store;
    let mut found: BTreeMap<(String, String, TransactionKind), Sum> = BTreeMap::new();
    let (mut cards, mut unsettled) = (0, 0);
    let mut by_tender: BTreeMap<TenderKind, i64> = BTreeMap::new();
    for day in BTreeSet::from([begun, today()]) {
        let figures = store.read(move |r| r.figures(&day.to_string())).await.unwrap();
        (cards, unsettled) = (cards + figures.cards_issued(), unsettled + figures.unsettled);
        for (tender, sum) in figures.by_tender {
            *by_tender.entry(tender).or_default() += sum.amount_fen.0;
        }
        for (counter, kinds) in figures.by_counter {
            for (kind, of) in kinds {
                let till = counter.till.to_string();
                let sum = found.entry((counter.operator.clone(), till, kind)).or_default();
                sum.count += of.count;
                sum.money += of.amount_fen.0;
                sum.points += of.points;
                for (tender, amount) in of.tenders {
                    *sum.tenders.entry(tender).or_default() += amount.0;
                }
            }
        }
    }
    let named = |((operator, till, kind), sum): (&Booking, &Sum)| {
        (((*operator).to_owned(), (*till).to_owned(), *kind), sum.clone())
    };
    assert_eq!(found, expected.iter().map(named).collect::<BTreeMap<_, _>>());
    assert_eq!((cards, unsettled), (issued, parked));
    let mut tenders: BTreeMap<TenderKind, i64> = BTreeMap::new();
    for (tender, amount) in expected.values().flat_map(|sum| &sum.tenders) {
        *tenders.entry(*tender).or_default() += amount;
    }
    assert_eq!(by_tender, tenders);
}

/// The business day, which begins at four.
pub fn today() -> Date {
    (jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC) - 4.hours()).date()
}
