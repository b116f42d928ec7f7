//! A disk that others fill while members pay with their cards: sales go on from the reserve and
//! reach headquarters; when that is used up too, the till is told so and the card is left alone;
//! with room again all goes on by itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod counter_shop;
#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/headquarters.rs"]
mod headquarters;
#[path = "support/mount.rs"]
mod mount;
mod mqtt;
mod port {
    pub use crate::mqtt::free_port;
}

use std::collections::BTreeMap;
use std::io::Write as _;

use baygate::api::client::{Answer, Client, Method};
use baygate::sim::card::{CardSim, Chip, Technology};
use baygate::sim::headquarters::Verdict;
use counter_shop::{Shop, blank, credential};
use daemon::{Daemon, Desk};
use headquarters::Headquarters;
use mqtt::{Mosquitto, free_port, until};
use serde_json::json;

const CARD: &str = "/v1/cards/8800000042/transactions";
const PAID_IN_FEN: i64 = 20_000;
/// More sales than the reserve of this disk has room for.
const MOST_SALES: usize = 2_000;

/// A shop whose data lie on a disk of 24 MiB.
struct FullShop(Shop);

impl FullShop {
    async fn open(broker: u16) -> Self {
        let (desk, port) = (Desk::new(), free_port());
        for folder in ["credentials", "disk"] {
            std::fs::create_dir(desk.path(folder)).unwrap();
        }
        mount::small(24 * 1024, &desk.path("disk"));
        std::fs::write(desk.path("credentials").join("card-keys"), credential()).unwrap();
        desk.write(&format!(
            "[buffer]\nmax_bytes = \"64MiB\"\n\n\
             [mqtt]\nurl = \"mqtt://127.0.0.1:{broker}\"\nconfirm = \"headquarters\"\n\n\
             [[printer]]\nid = \"face-1\"\nkind = \"png\"\nlink = \"file://{}\"\n\n\
             [[reader]]\nid = \"counter-1\"\nkind = \"vpcd\"\nlisten = \"127.0.0.1:{port}\"\n",
            desk.path("faces").display()
        ));
        let text = std::fs::read_to_string(desk.config()).unwrap();
        std::fs::write(desk.config(), text.replacen("/data\"", "/disk/data\"", 1)).unwrap();
        let credentials = desk.path("credentials");
        let mut daemon = Daemon::spawn_with(&desk.config(), |command| {
            command.env("CREDENTIALS_DIRECTORY", credentials);
        });
        daemon.says("baygate is running").await;
        let client = Client::connect(desk.path("control.sock")).await.unwrap();
        Self(Shop { desk, daemon: Some(daemon), client, port })
    }

    /// Somebody else writes until nothing more fits.
    fn fill(&self) {
        let filler = self.0.desk.path("disk").join("filler");
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(filler).unwrap();
        for piece in [65536, 4096] {
            while file.write_all(&vec![0; piece]).is_ok() {}
        }
    }

    fn empty(&self) {
        std::fs::remove_file(self.0.desk.path("disk").join("filler")).unwrap();
    }

    /// Prints until that is refused: the disk has no room for new work.
    async fn await_refusal(&self) {
        for n in 0.. {
            assert!(n < 5_000, "new work is never refused");
            let card_no = format!("{n:08}");
            let fields =
                json!({ "card_no": card_no, "points": n, "offer": "保养", "qr": "https://example.com" });
            let body = json!({ "printer": "face-1", "card_no": card_no, "fields": fields });
            let answer = self.0.client.request(Method::POST, "/v1/print-jobs", Some(&body)).await.unwrap();
            if answer.status >= 300 {
                assert_eq!(
                    (answer.status, &answer.body["code"]),
                    (507, &json!("storage-full")),
                    "{answer:?}"
                );
                return;
            }
        }
    }

    async fn is_full(&self) -> bool {
        let ready = self.0.get("/readyz").await;
        let troubles = ready.body["troubles"].as_array().cloned().unwrap_or_default();
        troubles.iter().any(|t| t["part"] == "store/space" && t["code"] == "disk-full")
    }

    fn log(&self) -> String {
        self.0.daemon.as_ref().unwrap().log()
    }

    async fn sell(&self, fen: i64, key: &str) -> Answer {
        self.0.post(CARD, json!({ "kind": "spend", "amount_fen": fen }), key).await
    }
}

impl Drop for FullShop {
    fn drop(&mut self) {
        mount::unmount(&self.0.desk.path("disk"));
    }
}

/// What headquarters was told of the card's transactions, each by its last word: amount and outcome.
fn ledger_of(hq: &Headquarters) -> BTreeMap<String, (i64, String)> {
    let mut told = BTreeMap::new();
    for received in hq.seen.iter().filter(|received| received.verdict == Verdict::Fresh) {
        let data = &received.event["data"];
        if received.event["type"] == "baygate.card.transaction" {
            let outcome = data["outcome"].as_str().unwrap().to_owned();
            let id = data["transaction_id"].as_str().unwrap().to_owned();
            told.insert(id, (data["amount_fen"].as_i64().unwrap(), outcome));
        }
    }
    told
}

/// As it is carried away.
async fn leave(card: CardSim) -> Chip {
    let chip = card.chip();
    card.remove().await;
    chip
}

/// Every page, past every guard.
fn memory(card: &CardSim) -> Vec<Vec<u8>> {
    let chip = card.chip();
    (0..).map_while(|page| chip.stored(page).map(<[u8]>::to_vec)).collect()
}

fn id_of(answer: &Answer) -> String {
    answer.body["transaction_id"].as_str().unwrap_or_else(|| panic!("{answer:?}")).to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn members_pay_from_the_reserve_and_not_beyond_it() {
    if mount::left_out() {
        return;
    }
    let mut broker = Mosquitto::start("").await;
    let mut hq = Headquarters::open(broker.port);
    let full = FullShop::open(broker.port).await;
    let shop = &full.0;
    let card = shop.lay(blank(Technology::Ntag213)).await;
    shop.issue("8800000042", "issue").await;
    let cash = json!([{ "kind": "cash", "amount_fen": PAID_IN_FEN }]);
    let topup = json!({ "kind": "topup", "amount_fen": PAID_IN_FEN, "tenders": cash });
    shop.done(CARD, topup, "topup").await;
    let chip = leave(card).await;

    // The line is away, others fill the disk, and new work is refused.
    broker.kill();
    full.fill();
    full.await_refusal().await;
    until("it says that the disk is full", async || full.is_full().await.then_some(())).await;

    // A member comes in: the card is known, and pays.
    let card = shop.lay(chip).await;
    let shown = shop.get("/v1/readers/counter-1/card?wait=20").await;
    assert_eq!(shown.body["member"]["principal_fen"], PAID_IN_FEN, "{shown:?}\n{}", full.log());
    let sold = full.sell(200, "sale-0").await;
    assert_eq!((sold.status, &sold.body["outcome"]), (200, &json!("committed")), "{sold:?}");
    assert!(full.is_full().await);
    assert_eq!(full.sell(200, "sale-0").await.body, sold.body, "a key acts once");
    let mut sales = BTreeMap::from([(id_of(&sold), -200)]);

    // What was given up for the ledger is filled as well: at last not one sale more fits.
    full.fill();
    let (mut unsettled, mut refused) = (Vec::new(), false);
    for n in 1..=MOST_SALES {
        let (key, before) = (format!("sale-{n}"), (memory(&card), card.writes()));
        let answer = full.sell(1, &key).await;
        match answer.status {
            200 => {
                assert_ne!(memory(&card), before.0, "paid, and the card holds the same");
                sales.insert(id_of(&answer), -1);
            }
            // The card paid, and its outcome found no room: the same key tells later.
            202 => unsettled.push(key),
            status => {
                assert_eq!((status, &answer.body["code"]), (507, &json!("storage-full")), "{answer:?}");
                let said = &answer.body;
                assert!(said.to_string().contains("free disk space"), "{said}");
                assert_eq!((memory(&card), card.writes()), before, "written");
                refused = true;
                break;
            }
        }
    }
    assert!(refused, "more sales than fit are refused");
    println!(
        "{} sales from the reserve, {} of them told later",
        sales.len() + unsettled.len(),
        unsettled.len()
    );

    // Room again: the next sale is made, and what was not told is.
    full.empty();
    until("it is ready but for its line", async || (!full.is_full().await).then_some(())).await;
    broker.up().await;
    let sold = full.sell(1, "with-room-again").await;
    assert_eq!((sold.status, &sold.body["outcome"]), (200, &json!("committed")), "{sold:?}");
    sales.insert(id_of(&sold), -1);
    for key in unsettled {
        let told = until("what was open is settled", async || {
            let answer = full.sell(1, &key).await;
            (answer.status != 202).then_some(answer)
        })
        .await;
        if told.status == 200 && told.body["outcome"] == "committed" {
            sales.insert(id_of(&told), -1);
        }
    }
    leave(card).await;

    // Headquarters has every one of them, each once, and they are what the card paid.
    until("all is delivered", async || {
        let ready = shop.get("/readyz").await;
        (ready.status == 200).then_some(())
    })
    .await;
    let wanted = sales.len() + 1;
    while ledger_of(&hq).values().filter(|(_, outcome)| outcome == "committed").count() < wanted {
        hq.hears(&format!("{wanted} transactions")).await;
    }
    let told = ledger_of(&hq);
    let committed = told.iter().filter(|(_, (fen, outcome))| outcome == "committed" && *fen < 0);
    let committed: BTreeMap<String, i64> = committed.map(|(id, (fen, _))| (id.clone(), *fen)).collect();
    assert_eq!(committed, sales);
}
