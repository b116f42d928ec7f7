//! Cards send principal to each other.

use baygate::card::counter::Deal;
use baygate::event::ledger::{CardType, TransactionKind};
use baygate::ident::CardNo;
use baygate::money::{Fen, Holding};

use crate::counter::Running;
use crate::cut_shop::{Shop, deal, number};
use crate::cuts::{Cuts, cut, every, issued, refused, whole};

/// Two cards send principal to each other; what is neither here nor there is listed.
pub(crate) async fn transfers_are_cut((shop, service): (Shop, Running), cuts: Cuts) {
    let (a, b) = (number(1), number(2));
    let give = || Deal {
        amount_fen: Some(Fen(7)),
        to_card_no: Some(b.clone()),
        ..deal(&a, TransactionKind::Transfer)
    };
    let with = |card_no: &CardNo, kind, giving| Deal {
        original_transaction_id: Some(giving),
        ..deal(card_no, kind)
    };
    let take = |giving| with(&b, TransactionKind::Transfer, giving);
    let undo = |giving| with(&a, TransactionKind::Void, giving);
    let first = issued(&shop, cuts.sim, 1, CardType::Named, 9_000).await;
    let second = issued(&shop, cuts.sim, 2, CardType::Named, 500).await;
    let (mut first, given, id) = whole(&shop, &first, give()).await;
    let (mut second, taken, _) = whole(&shop, &second, take(id)).await;
    let due = async || shop.gateway.store.read(|r| r.transfers_due()).await.unwrap();
    let sum = async || {
        let waits = 7 * i64::try_from(due().await.len()).unwrap();
        let fen = |holding: Option<Holding>| holding.unwrap().balance().unwrap().0;
        fen(shop.known(&a).await) + fen(shop.known(&b).await) + waits
    };
    let mut halves = [0; 4];
    for (n, (at, fault)) in every(given, cuts).enumerate() {
        let (after, committed, id) = cut(&shop, &first, at, fault, give()).await;
        first = after;
        halves[usize::from(committed)] += 1;
        assert_eq!((due().await.len(), sum().await), (usize::from(committed), 9_500), "{fault:?} at {at}");
        if committed && n % 2 == 0 {
            second = whole(&shop, &second, take(id)).await.0;
        } else if committed {
            first = whole(&shop, &first, undo(id)).await.0;
        }
        assert_eq!((due().await.len(), sum().await), (0, 9_500), "{fault:?} at {at}");
    }
    for (n, (at, fault)) in every(taken, cuts).enumerate() {
        let (after, _, id) = whole(&shop, &first, give()).await;
        first = after;
        let (after, committed, _) = cut(&shop, &second, at, fault, take(id)).await;
        second = after;
        halves[2 + usize::from(committed)] += 1;
        assert_eq!((due().await.len(), sum().await), (usize::from(!committed), 9_500), "{fault:?} at {at}");
        // The resume rule: the other card again, or back.
        if !committed && n % 2 == 0 {
            second = whole(&shop, &second, take(id)).await.0;
        } else if !committed {
            first = whole(&shop, &first, undo(id)).await.0;
        }
        assert_eq!((due().await.len(), sum().await), (0, 9_500), "{fault:?} at {at}");
        let card = shop.lay(&second).await;
        refused(&shop, &card, take(id), "transfer-not-allowed").await;
        second = shop.take_away(card).await;
    }
    assert!(halves.iter().all(|count| *count > 0), "{halves:?}");
    service.stop().await;
}
