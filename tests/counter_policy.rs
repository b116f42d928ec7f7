//! The rules by type of card are on where nobody has said anything: a real program whose
//! configuration has no `[purse]` at all. Amounts: MOFCOM order 2012 No. 9 on
//! single-purpose prepaid cards: a named card at most ¥5000, does not expire, may be reported lost; an anonymous one
//! at most ¥1000, good for three years at least, no loss report.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod counter_shop;
#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/port.rs"]
mod port;

use baygate::sim::card::Technology as Sim;
use counter_shop::{Shop, blank_with_uid};
use jiff::{ToSpan as _, Zoned};
use serde_json::{Value, json};

fn topup(fen: i64) -> Value {
    json!({ "kind": "topup", "amount_fen": fen, "tenders": [{ "kind": "cash", "amount_fen": fen }] })
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_and_validity_hold_without_a_word_in_the_configuration() {
    let shop = Shop::open("").await;
    let text = std::fs::read_to_string(shop.desk.config()).unwrap();
    assert!(!text.contains("purse"), "nothing is said:\n{text}");
    let today = Zoned::now().date();
    let (soon, later) = (today.saturating_add(2.years()), today.saturating_add(4.years()));
    // (number, type, most in fen, the validity refused, one that is not, may be reported lost)
    let cases = [
        ("8800000042", "named", 500_000, later, None, true),
        ("8800000043", "anonymous", 100_000, soon, Some(later), false),
    ];
    for (n, (number, kind, most, refused_until, until, may_be_lost)) in (1_u8..).zip(cases) {
        let card = shop.lay(blank_with_uid(Sim::Ntag215, n)).await;
        let issue = |until| json!({ "card_no": number, "type": kind, "valid_until": until });
        let refused = shop.refused("/v1/cards", issue(Some(refused_until)), &format!("v{n}")).await;
        assert_eq!(refused, (422, "validity-not-allowed".into()), "{kind}");
        shop.done("/v1/cards", issue(until), &format!("i{n}")).await;

        let path = format!("/v1/cards/{number}/transactions");
        let writes = card.writes();
        let over = shop.refused(&path, topup(most + 1), &format!("o{n}")).await;
        assert_eq!(over, (409, "balance-over-limit".into()), "{kind}");
        assert_eq!(card.writes(), writes, "{kind}: refused before the card");
        let full = shop.done(&path, topup(most), &format!("f{n}")).await;
        assert_eq!(full["balance_after_fen"], most, "{kind}");
        let over = shop.refused(&path, topup(1), &format!("p{n}")).await;
        assert_eq!(over, (409, "balance-over-limit".into()), "{kind}: in parts");

        let lost = json!({ "operator": "li.wei" });
        let block = format!("/v1/cards/{number}/block");
        if may_be_lost {
            assert_eq!(shop.done(&block, lost, &format!("l{n}")).await["status"], "lost");
        } else {
            let refused = shop.refused(&block, lost, &format!("l{n}")).await;
            assert_eq!(refused, (409, "loss-report-not-allowed".into()));
        }
        card.remove().await;
    }
    shop.close().await;
}
