//! A card of another store, at one that takes it.

use std::sync::Arc;

use baygate::card::counter::Life;
use baygate::card::keys::sealed::SealedKeys;
use baygate::card::keys::{KeyVersion, Purpose};
use baygate::card::member::{MemberPolicy, Members};
use baygate::card::record::MemberRecord;
use baygate::event::ledger::{CardStanding, CardType, TransactionKind};
use baygate::sim::card::Technology as Sim;
use jiff::civil::date;
use zeroize::Zeroizing;

use crate::counter::vpcd_table;
use crate::cut_shop::{STORE, members, number, shop};
use crate::cuts::{give_back, issued, life, refused, replace, stands};
use crate::extended::{expired_record, prepared};

/// At a store that opens another one's cards: such a card takes no card's place, and is neither
/// extended nor given back, nor is its own place taken by one of this store.
#[tokio::test(flavor = "multi_thread")]
async fn a_card_of_another_store_lives_there() {
    const ELSEWHERE: &str = "BJ-0001";
    let (shop, service) = shop();
    issued(&shop, Sim::Ntag215, 1, CardType::Named, 500).await;
    let ours = issued(&shop, Sim::Ntag215, 2, CardType::Named, 0).await;
    service.stop().await;
    let masters = (90_u8..).zip(Purpose::ALL);
    let masters = masters.map(|(byte, purpose)| ((KeyVersion(1), purpose), Zeroizing::new([byte; 16])));
    let keys = SealedKeys::new(ELSEWHERE.parse().unwrap(), KeyVersion(1), masters.collect());
    let policy = MemberPolicy::of(STORE.parse().unwrap(), &["all"], jiff::tz::TimeZone::UTC);
    let elsewhere = Arc::new(Members { keys: Arc::new(keys), layouts: members().layouts.clone(), policy });
    let table = vpcd_table("counter-1", shop.port);
    let service = shop.gateway.serve_members(table, Some(Arc::clone(&elsewhere)));
    let fresh = MemberRecord {
        issuing_store: ELSEWHERE.parse().unwrap(),
        member_type: CardType::Named,
        valid_until: None,
        principal_fen: 0,
        counter: 0,
        ..expired_record(3)
    };
    let card = shop.lay(&prepared(fresh, &elsewhere)).await;
    refused(&shop, &card, replace(&number(1), &number(3)), "issued-elsewhere").await;
    let longer = Life::Extend { valid_until: Some(date(2041, 12, 31)) };
    refused(&shop, &card, life(&number(3), TransactionKind::Adjust, longer), "issued-elsewhere").await;
    refused(&shop, &card, give_back(&number(3)), "issued-elsewhere").await;
    assert_eq!(stands(&shop, &number(1)).await, CardStanding::Active);
    shop.take_away(card).await;
    service.stop().await;
    let service = shop.gateway.serve_members(vpcd_table("counter-1", shop.port), Some(members()));
    let card = shop.lay(&ours).await;
    refused(&shop, &card, replace(&number(3), &number(2)), "issued-elsewhere").await;
    shop.take_away(card).await;
    service.stop().await;
}
