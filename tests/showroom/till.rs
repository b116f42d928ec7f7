//! A till with members' cards: gives them out, tops them up and takes money off them. It repeats
//! each key until it is answered, whoever dies and whoever pulls the card, and keeps every answer.

use std::sync::{Arc, Mutex};

use baygate::sim::card::{CardFault, Chip};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Shop;
use super::dice::Dice;
use super::till_reader::{Laid, Place, READER, blank};

/// Cards in one campaign: few, so that each sees many a deed.
const CARDS: u8 = 4;
/// Above this a card is only spent, below the lower it is only topped up.
const RICH_FEN: i64 = 20_000;
const POOR_FEN: i64 = 500;
/// A deed came to nothing and is asked anew under another key: docs/pos.md.
const NOTHING_HAPPENED: [&str; 3] = ["not-written", "issue-interrupted", "no-card"];

/// A deed that was settled.
#[derive(Debug, Clone)]
pub struct Deed {
    pub key: String,
    pub path: String,
    pub body: Value,
    pub status: u16,
    pub answer: Value,
}

/// A member's card when the day was over.
#[derive(Debug, Clone)]
pub struct Member {
    pub card_no: String,
    /// As the reader read it.
    pub shows: Value,
}

/// What the till did.
#[derive(Debug, Default)]
pub struct Takings {
    /// Counts deeds as they are begun.
    pub begun: watch::Sender<u64>,
    pub deeds: Mutex<Vec<Deed>>,
    pub members: Mutex<Vec<Member>>,
}

impl Takings {
    pub fn done(&self) -> Vec<Deed> {
        self.deeds.lock().unwrap().clone()
    }
}

/// A card in the till's drawer, and what ought to be on it.
struct Card {
    chip: Chip,
    card_no: String,
    given_out: bool,
    balance_fen: i64,
}

struct Till {
    shop: Arc<Shop>,
    place: Arc<Place>,
    dice: Dice,
    keys: u64,
}

/// Sells until `stop`; then every card is read once more.
pub async fn work(shop: Arc<Shop>, mut dice: Dice, stop: CancellationToken) {
    let mut drawer: Vec<Card> = (1..=CARDS).map(card).collect();
    let place = Arc::clone(&shop.till_place);
    let mut till = Till { shop, place, dice: dice.fork(), keys: 0 };
    while !stop.is_cancelled() {
        let card = dice.below(drawer.len());
        till.serve(&mut drawer[card]).await;
        tokio::time::sleep(dice.pause(80)).await;
    }
    for Card { chip, card_no, .. } in drawer.into_iter().filter(|card| card.given_out) {
        let mut laid = Laid::lay(&till.place, chip).await;
        let shows = laid.shown().await["member"].clone();
        laid.take().await;
        till.shop.answers.till.members.lock().unwrap().push(Member { card_no, shows });
    }
}

fn card(number: u8) -> Card {
    let card_no = format!("8800000{number:03}");
    Card { chip: blank(number), card_no, given_out: false, balance_fen: 0 }
}

impl Till {
    /// A customer with this card: one to three deeds. An empty card is given out first.
    async fn serve(&mut self, card: &mut Card) {
        let mut laid = Laid::lay(&self.place, card.chip.clone()).await;
        for _ in 0..self.dice.between(1, 3) {
            if self.dice.percent(12) {
                let how = self.dice.pick(&[CardFault::Pull, CardFault::PullUnheard, CardFault::PullTorn]);
                laid.pull_after(self.dice.below(40), how);
            }
            if card.given_out {
                laid = self.deal(laid, card).await;
            } else {
                let body = json!({ "reader": READER, "card_no": card.card_no, "type": "named" });
                let (next, deed) = self.settle(laid, "/v1/cards", body).await;
                (laid, card.given_out) = (next, deed.status == 201);
            }
        }
        card.chip = laid.take().await;
    }

    /// A top-up, a sale, or points.
    async fn deal(&mut self, laid: Laid, card: &mut Card) -> Laid {
        let path = format!("/v1/cards/{}/transactions", card.card_no);
        let kind = match self.dice.below(10) {
            0 => "earn",
            _ if card.balance_fen < POOR_FEN => "topup",
            1..=3 if card.balance_fen < RICH_FEN => "topup",
            _ => "spend",
        };
        let fen = self.dice.between(1, if kind == "topup" { 5_000 } else { 200 });
        let body = match kind {
            "earn" => json!({ "reader": READER, "kind": kind, "points": self.dice.between(1, 50) }),
            "topup" => json!({ "reader": READER, "kind": kind, "amount_fen": fen,
                "tenders": [{ "kind": "wechat", "amount_fen": fen }] }),
            _ => json!({ "reader": READER, "kind": kind, "amount_fen": fen }),
        };
        let (laid, deed) = self.settle(laid, &path, body).await;
        if deed.status == 200 {
            card.balance_fen += deed.answer["amount_fen"].as_i64().unwrap();
            if deed.answer["balance_after_fen"] != card.balance_fen {
                self.shop.answers.odd(format!("{} fen were expected: {deed:?}", card.balance_fen));
            }
        }
        laid
    }

    /// Asks with a new key until it is settled.
    async fn settle(&mut self, laid: Laid, path: &str, body: Value) -> (Laid, Deed) {
        self.keys += 1;
        let key = format!("deed-{}", self.keys);
        let takings = &self.shop.answers.till;
        takings.begun.send_modify(|begun| *begun += 1);
        let (laid, answer) = laid.settle(path, &body, &key).await;
        let deed = Deed { key, path: path.to_owned(), body, status: answer.status, answer: answer.body };
        let code = deed.answer["code"].as_str().unwrap_or("none");
        if !matches!(deed.status, 200 | 201) && !NOTHING_HAPPENED.contains(&code) {
            self.shop.answers.odd(format!("till: {deed:?}"));
        }
        takings.deeds.lock().unwrap().push(deed.clone());
        (laid, deed)
    }
}
