//! Cards are given back.

use baygate::event::ledger::{CardStanding, CardType, TransactionKind};
use baygate::money::{Fen, Holding};

use crate::counter::Running;
use crate::cut_shop::{Shop, deal, number};
use crate::cuts::{Cuts, cut, every, give_back, issued, refused, stands, whole};

pub(crate) async fn returns_are_cut((shop, service): (Shop, Running), cuts: Cuts) {
    let mut n = 1;
    let chip = issued(&shop, cuts.sim, n, CardType::Named, 5_000).await;
    let (chip, commands, _) = whole(&shop, &chip, give_back(&number(n))).await;
    // It is dead: refused at its tap, and for everything.
    let card = shop.lay(&chip).await;
    refused(&shop, &card, give_back(&number(n)), "returned").await;
    refused(&shop, &card, deal(&number(n), TransactionKind::Earn), "returned").await;
    shop.take_away(card).await;
    let (mut paid, mut aborted) = (5_000, 0);
    let mut chip = None;
    for (at, fault) in every(commands, cuts) {
        let living = match chip.take() {
            Some(chip) => chip,
            None => {
                n += 1;
                issued(&shop, cuts.sim, n, CardType::Named, 100).await
            }
        };
        let (after, committed, _) = cut(&shop, &living, at, fault, give_back(&number(n))).await;
        let (what, card_no) = (format!("{fault:?} at {at}"), number(n));
        let holds = shop.known(&card_no).await.unwrap();
        if committed {
            paid += 100;
            assert_eq!(stands(&shop, &card_no).await, CardStanding::Returned, "{what}");
            assert_eq!(holds, Holding { counter: holds.counter, ..Holding::default() }, "{what}");
        } else {
            aborted += 1;
            assert_eq!(stands(&shop, &card_no).await, CardStanding::Active, "{what}");
            assert_eq!(holds.principal_fen, Fen(100), "{what}");
            chip = Some(after);
        }
    }
    assert!(aborted > 0 && n > 2, "{aborted} aborted, {n} cards");
    let told = shop.told().await;
    let committed = told.iter().filter(|(kind, fact)| {
        kind == "card.transaction" && fact["kind"] == "refund" && fact["outcome"] == "committed"
    });
    let sum: i64 = committed.map(|(_, fact)| fact["tenders"][0]["amount_fen"].as_i64().unwrap()).sum();
    assert_eq!(sum, paid, "out of the drawer");
    let dead =
        told.iter().filter(|(kind, data)| kind == "card.status" && data["status"] == "returned").count();
    assert_eq!(i64::try_from(dead).unwrap(), 1 + (paid - 5_000) / 100, "each is told once");
    service.stop().await;
}
