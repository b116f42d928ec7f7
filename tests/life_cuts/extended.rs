//! A card gets another last day.

use baygate::card::apdu::Response;
use baygate::card::counter::{Deal, Life};
use baygate::card::medium::{PrepareOutcome, PrepareStep, Preparing};
use baygate::card::member::Members;
use baygate::card::probe::Answer;
use baygate::card::record::{Coupon, MemberRecord};
use baygate::event::card::{MemberStatus, Technology};
use baygate::event::ledger::{CardStanding, CardType, TransactionKind};
use baygate::money::Fen;
use baygate::sim::card::{Chip, Technology as Sim};
use baygate::store::ledger::State;
use baygate::store::requests::RequestState;
use jiff::civil::{Date, date};

use crate::counter::Running;
use crate::cut_shop::{self, Shop, blank, deal, members, number, shop};
use crate::cuts::{Cuts, ask, cut, every, give_back, issued, life, refused, stands, state, whole};

/// One card that goes on living, with another last day each time.
pub(crate) async fn extensions_are_cut((shop, service): (Shop, Running), cuts: Cuts) {
    let card_no = number(1);
    let until = |day: Date| life(&card_no, TransactionKind::Adjust, Life::Extend { valid_until: Some(day) });
    let end = |day: Date| Some(format!("{day}T23:59:59.999Z"));
    let chip = issued(&shop, cuts.sim, 1, CardType::Anonymous, 300).await;
    let mut was = date(2041, 12, 31);
    let (mut chip, commands, _) = whole(&shop, &chip, until(was)).await;
    let card = shop.lay(&chip).await;
    refused(&shop, &card, until(date(2041, 12, 30)), "validity-not-allowed").await;
    chip = shop.take_away(card).await;
    let mut became = [0; 2];
    for (at, fault) in every(commands, cuts) {
        let next = was.tomorrow().unwrap();
        let (after, committed, _) = cut(&shop, &chip, at, fault, until(next)).await;
        chip = after;
        became[usize::from(committed)] += 1;
        was = if committed { next } else { was };
        let wanted = card_no.clone();
        let row = shop.gateway.store.read(move |r| r.member_card(&wanted)).await.unwrap().unwrap();
        assert_eq!(row.seen.valid_until.map(|until| until.to_string()), end(was), "{fault:?} at {at}");
        assert_eq!(row.seen.holding.balance(), Some(Fen(300)));
    }
    assert!(became.iter().all(|count| *count > 0), "{became:?}");
    service.stop().await;
}

/// A card whose last day was in 2020, with ¥3 on it.
fn expired(n: usize) -> Chip {
    prepared(expired_record(n), &members())
}

pub(crate) fn expired_record(n: usize) -> MemberRecord {
    MemberRecord {
        card_no: number(n),
        member_type: CardType::Anonymous,
        status: MemberStatus::Active,
        issuing_store: cut_shop::STORE.parse().unwrap(),
        tier: 0,
        discount_class: 0,
        valid_until: Some(date(2020, 1, 1)),
        principal_fen: 300,
        bonus_fen: 0,
        points: 0,
        coupons: [Coupon::default(); 4],
        counter: 5,
        last: None,
        key_version: 1,
    }
}

/// A card with this record, as somebody with these keys made it.
pub(crate) fn prepared(record: MemberRecord, members: &Members) -> Chip {
    let mut chip = blank(Sim::Ntag215, record.card_no.as_str()[2..].parse().unwrap());
    let uid = hex::encode_upper(&chip.profile().uid).parse().unwrap();
    let layout = members.layout(Technology::Ntag215).unwrap();
    let mut step =
        Preparing::start(uid, Technology::Ntag215, &layout, &record, &members.keys, false).unwrap();
    loop {
        step = match step {
            PrepareStep::Done(outcome) => {
                assert_eq!(outcome, PrepareOutcome::Prepared);
                return chip;
            }
            PrepareStep::Reset(preparing) => {
                chip.reset();
                preparing.answer(&Answer::Reset)
            }
            PrepareStep::Transmit(command, preparing) => {
                let answer = Response::parse(&chip.apdu(&command.to_bytes())).unwrap();
                preparing.answer(&Answer::Response(answer))
            }
        };
    }
}

/// What a card holds does not end with its validity: it is extended, or paid out.
#[tokio::test(flavor = "multi_thread")]
async fn an_expired_card_is_extended_or_given_back() {
    let clock = tempfile::tempdir().unwrap();
    let synced = clock.path().join("synchronized");
    std::fs::write(&synced, "").unwrap();
    baygate::clock::trust(&synced);
    let (shop, service) = shop();
    let spend = |n: usize| Deal { amount_fen: Some(Fen(100)), ..deal(&number(n), TransactionKind::Spend) };
    let longer = Life::Extend { valid_until: Some(date(2041, 12, 31)) };
    let card = shop.lay(&expired(1)).await;
    refused(&shop, &card, spend(1), "card-expired").await;
    let soon = Life::Extend { valid_until: Some(date(2027, 12, 31)) };
    refused(&shop, &card, life(&number(1), TransactionKind::Adjust, soon), "validity-not-allowed").await;
    for deal in [life(&number(1), TransactionKind::Adjust, longer), spend(1)] {
        let id = ask(&shop, deal).await;
        let row = shop.answered(id).await;
        assert_eq!(row.state, RequestState::Done, "{:?}", row.outcome);
    }
    let chip = shop.take_away(card).await;
    let (_, _, id) = whole(&shop, &chip, spend(1)).await;
    assert_eq!(state(&shop, id).await, Some(State::Committed));
    assert_eq!(shop.known(&number(1)).await.unwrap().balance(), Some(Fen(100)));
    let (_, _, id) = whole(&shop, &expired(2), give_back(&number(2))).await;
    assert_eq!(state(&shop, id).await, Some(State::Committed));
    assert_eq!(stands(&shop, &number(2)).await, CardStanding::Returned);
    service.stop().await;
}
