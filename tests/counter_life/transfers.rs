//! Principal sent to another card: in two taps, back where it came from when the other card breaks,
//! and what becomes of a receiving half, of a transfer or a replacement, that nobody can tell.

use baygate::api::client::Answer;
use baygate::sim::card::{CardFault, CardSim, Chip, Technology as Sim};
use serde_json::{Value, json};

use super::{NEW, OLD, RULES, away, old_card, path, replace, topup};
use crate::counter_shop::{Shop, blank_with_uid};

#[tokio::test(flavor = "multi_thread")]
async fn principal_goes_to_another_card() {
    let shop = Shop::open(RULES).await;
    let (old, _) = old_card(&shop).await;
    let card = shop.lay(blank_with_uid(Sim::Ntag215, 9)).await;
    shop.issue("8800000043", "i-2").await;
    let new = away(card).await;
    let card = lay(&shop, old).await;
    let deals = path(OLD, "transactions");
    let give = |to: &str, fen: i64| json!({ "kind": "transfer", "amount_fen": fen, "to_card_no": to });
    let writes = card.writes();
    for (n, (to, fen, code)) in [
        ("8800000042", 100, "transfer-not-allowed"),
        ("4711", 100, "transfer-not-allowed"),
        ("8800000043", 15_001, "not-enough-balance"),
        ("8800000043", 0, "amount-not-allowed"),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(shop.refused(&deals, give(to, fen), &format!("x-{n}")).await.1, code);
    }
    assert_eq!(card.writes(), writes);
    let given = shop.done(&deals, give("8800000043", 4_000), "g-1").await;
    assert_eq!(
        (&given["amount_fen"], &given["counterparty_card_no"]),
        (&json!(-4_200), &json!("8800000043"))
    );
    assert_eq!((&given["principal_fen"], &given["bonus_fen"]), (&json!(-4_000), &json!(-200)));
    let settled = shop.refused(&path(OLD, "return"), json!({ "tender": "cash" }), "x-9").await;
    assert_eq!(settled, (409, "not-settled".into()), "what it gave can come back to it alone");
    assert_eq!(
        shop.refused(&deals, receive(&given["transaction_id"]), "y-1").await.1,
        "transfer-not-allowed",
        "the same card"
    );
    let due = shop.get(NEW).await.body["transfers_due"].clone();
    assert_eq!((&due[0]["transaction_id"], &due[0]["amount_fen"]), (&given["transaction_id"], &json!(4_200)));
    assert_eq!(due[0]["sort"], "transfer");
    let old = away(card).await;
    let card = shop.lay(new).await;
    shop.member().await;
    let received = shop.done(&path(NEW, "transactions"), receive(&given["transaction_id"]), "h-1").await;
    assert_eq!((&received["amount_fen"], &received["balance_after_fen"]), (&json!(4_200), &json!(4_200)));
    assert_eq!(shop.get(NEW).await.body.get("transfers_due"), None);
    let twice = shop.refused(&path(NEW, "transactions"), receive(&given["transaction_id"]), "h-2").await;
    assert_eq!(twice.1, "transfer-not-allowed");
    away(card).await;
    let card = lay(&shop, old).await;
    assert_eq!(
        shop.refused(&deals, undo(&given["transaction_id"]), "v-1").await.1,
        "not-refundable",
        "it was received"
    );
    let given = shop.done(&deals, give("8800000043", 1_000), "g-2").await;
    shop.done(&deals, undo(&given["transaction_id"]), "v-2").await;
    assert_eq!(shop.get(OLD).await.body["principal_fen"], 11_000);
    away(card).await;
    shop.close().await;
}

/// 4,000 fen have left the old card for [`NEW`], which is given out and waits. Both cards, and the
/// giving half's number.
async fn given(shop: &Shop) -> (Chip, Chip, Value) {
    let (old, _) = old_card(shop).await;
    let card = shop.lay(blank_with_uid(Sim::Ntag215, 9)).await;
    shop.issue("8800000043", "i-2").await;
    let new = away(card).await;
    let card = lay(shop, old).await;
    let give = json!({ "kind": "transfer", "amount_fen": 4_000, "to_card_no": "8800000043" });
    let given = shop.done(&path(OLD, "transactions"), give, "g-1").await["transaction_id"].clone();
    (away(card).await, new, given)
}

fn receive(given: &Value) -> Value {
    json!({ "kind": "transfer", "original_transaction_id": given })
}

fn undo(given: &Value) -> Value {
    json!({ "kind": "void", "original_transaction_id": given })
}

/// Laid down, and told.
async fn lay(shop: &Shop, chip: Chip) -> CardSim {
    let card = shop.lay(chip).await;
    shop.member().await;
    card
}

/// Asked with the card on the reader, which leaves in the middle of its writes.
async fn is_torn(shop: &Shop, card: &CardSim, to: &str, wish: Value, key: &str) {
    card.fault_after(12, CardFault::Pull);
    let cut = shop.post(to, wish, key).await;
    assert_eq!((cut.status, &cut.body["code"]), (202, &json!("tap-again")), "{cut:?}");
}

/// What an answer tells people.
fn told(answer: &Answer, language: &str, words: &str) {
    let text = answer.body["text"][language].as_str().unwrap();
    assert!(text.contains(words), "{answer:?}");
}

/// The receiving card breaks while it is written: every answer says what to do next, and in the end
/// the money is back where it came from.
#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_to_a_card_that_broke_comes_back() {
    let shop = Shop::open(RULES).await;
    let (old, new, given) = given(&shop).await;
    let (receive, undo, deals) = (receive(&given), undo(&given), path(OLD, "transactions"));

    // Refused by the card, it says what is left to do; torn, it has to be tapped again.
    let card = lay(&shop, new).await;
    card.fault(CardFault::Status(0x6300));
    let not = shop.post(&path(NEW, "transactions"), receive.clone(), "h-1").await;
    assert_eq!((not.status, &not.body["code"]), (409, &json!("not-written")), "{not:?}");
    assert_eq!(not.body["transfer_due"]["sort"], "transfer");
    told(&not, "en", "void the giving half on the card that gave");
    told(&not, "zh", "在转出卡上撤销");
    is_torn(&shop, &card, &path(NEW, "transactions"), receive.clone(), "h-2").await;
    drop(card);

    // It does not come back. Voided now, the money could be on both.
    let card = lay(&shop, old).await;
    let writes = card.writes();
    let early = shop.post(&deals, undo.clone(), "v-1").await;
    assert_eq!((early.status, &early.body["code"]), (409, &json!("transfer-unsettled")), "{early:?}");
    told(&early, "en", "replace it first, then void");
    told(&early, "zh", "先给它补换卡，再撤销");
    assert_eq!(card.writes(), writes);
    let old = away(card).await;
    let card = shop.lay(blank_with_uid(Sim::Ntag215, 10)).await;
    shop.issue("8800000044", "i-3").await;
    let wish = json!({ "new_card_no": "8800000044", "why": "defect" });
    shop.done(&path(NEW, "replace"), wish, "r-1").await;
    // What waits was meant for the broken one.
    let other = shop.post("/v1/cards/8800000044/transactions", receive.clone(), "h-3").await;
    assert_eq!((other.status, &other.body["code"]), (422, &json!("transfer-not-allowed")), "{other:?}");
    told(&other, "en", "void the transfer on the card that gave");
    told(&other, "zh", "在转出卡上撤销");
    let over = shop.post(&path(NEW, "transactions"), receive, "h-2").await;
    assert_eq!((over.status, &over.body["code"]), (409, &json!("not-written")), "{over:?}");
    away(card).await;
    let card = lay(&shop, old).await;
    let back = shop.done(&deals, undo, "v-2").await;
    assert_eq!((&back["principal_fen"], &back["balance_after_fen"]), (&json!(4_000), &json!(16_000)));
    for card in [OLD, NEW, "/v1/cards/8800000044"] {
        assert_eq!(shop.get(card).await.body.get("transfers_due"), None, "{card}");
    }
    away(card).await;
    shop.close().await;
}

/// At another gateway of the store, twice: no tap tells any more what was written to it before.
async fn used_elsewhere(chip: Chip) -> Chip {
    let elsewhere = Shop::open(RULES).await;
    let card = lay(&elsewhere, chip).await;
    for key in ["t-1", "t-2"] {
        elsewhere.done(&path(NEW, "transactions"), topup(100), key).await;
    }
    let chip = away(card).await;
    elsewhere.close().await;
    chip
}

/// Nobody here can tell whether the receiving card has it: the answers do not send anybody to tap,
/// to replace or to void, but to headquarters.
#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_whose_receiver_went_on_elsewhere_is_for_headquarters() {
    let shop = Shop::open(RULES).await;
    let (old, new, given) = given(&shop).await;
    let (receive, undo, deals) = (receive(&given), undo(&given), path(OLD, "transactions"));
    let card = lay(&shop, new).await;
    is_torn(&shop, &card, &path(NEW, "transactions"), receive.clone(), "h-1").await;

    let card = lay(&shop, used_elsewhere(away(card).await).await).await;
    let over = shop.post(&path(NEW, "transactions"), receive.clone(), "h-1").await;
    assert_eq!((over.status, &over.body["code"]), (409, &json!("parked")), "{over:?}");
    told(&over, "en", "neither received again nor voided");
    told(&over, "zh", "把交易号告知总部");
    let again = shop.refused(&path(NEW, "transactions"), receive, "h-2").await;
    assert_eq!(again, (422, "transfer-not-allowed".into()));
    away(card).await;
    let card = lay(&shop, old).await;
    let writes = card.writes();
    let void = shop.post(&deals, undo, "v-1").await;
    assert_eq!((void.status, &void.body["code"]), (409, &json!("transfer-parked")), "{void:?}");
    told(&void, "en", "no tap and no replacement tells any more");
    told(&void, "zh", "把交易号告知总部");
    assert_eq!(card.writes(), writes);
    away(card).await;
    shop.close().await;
}

/// As before with the card that takes another one's place. What a replacement gave is not voided,
/// neither while the new card may still tell nor afterwards: nobody is told to.
#[tokio::test(flavor = "multi_thread")]
async fn a_replacement_whose_new_card_went_on_elsewhere_is_for_headquarters() {
    let shop = Shop::open(RULES).await;
    old_card(&shop).await;
    let card = shop.lay(blank_with_uid(Sim::Ntag215, 9)).await;
    shop.issue("8800000043", "i-2").await;
    is_torn(&shop, &card, &path(OLD, "replace"), replace(), "r-1").await;

    let card = lay(&shop, used_elsewhere(away(card).await).await).await;
    let over = shop.post(&path(OLD, "replace"), replace(), "r-1").await;
    assert_eq!((over.status, &over.body["code"]), (409, &json!("parked")), "{over:?}");
    told(&over, "en", "neither received again nor voided");
    let given = over.body["transaction"]["original_transaction_id"].clone();
    assert!(given.is_string(), "{over:?}");
    let void = shop.refused(&path(NEW, "transactions"), undo(&given), "v-1").await;
    assert_eq!(void, (409, "other-card".into()));
    away(card).await;
    // No other card receives it, and the new one goes on with what it shows.
    let card = shop.lay(blank_with_uid(Sim::Ntag215, 10)).await;
    shop.issue("8800000044", "i-3").await;
    let other = json!({ "new_card_no": "8800000044" });
    assert_eq!(shop.refused(&path(OLD, "replace"), other.clone(), "r-2").await.1, "card-replaced");
    let shown = shop.get(NEW).await.body["balance_fen"].clone();
    let moved = shop.done(&path(NEW, "replace"), other, "r-3").await;
    assert_eq!(moved["balance_after_fen"], shown);
    away(card).await;
    shop.close().await;
}
