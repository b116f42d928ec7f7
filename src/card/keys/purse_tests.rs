//! A purchase with keys of a credential, and what a store does not do.

use std::collections::BTreeMap;

use zeroize::Zeroizing;

use super::super::Purpose;
use super::*;
use crate::card::crypto::tdes::TripleDesKey;
use crate::card::crypto::unhex;

const MASTER: [u8; 16] =
    [0x4F, 0xC1, 0x20, 0x93, 0x7A, 0x5E, 0xD8, 0x06, 0xB2, 0x3C, 0x91, 0x64, 0xEF, 0x18, 0x75, 0xAD];

fn store() -> StoreId {
    StoreId::new("SH-0042").unwrap()
}

fn keys() -> SealedKeys {
    let masters = BTreeMap::from([((KeyVersion(1), Purpose::CpuPurchase), Zeroizing::new(MASTER))]);
    SealedKeys::new(store(), KeyVersion(1), masters)
}

pub(in crate::card::keys) fn purchase(store: &StoreId) -> Purchase<'_> {
    Purchase {
        store,
        serial: unhex("1122334455667788"),
        opening: Opening::parse(&unhex("000027100007000000010011223344")),
        amount: 1234,
        moment: Moment { date: unhex("20261122"), time: unhex("101530") },
    }
}

#[test]
fn an_opening_is_read() {
    let opening = purchase(&store()).opening;
    assert_eq!(
        opening,
        Opening {
            balance: 10_000,
            offline_sequence: 7,
            overdraft: 0,
            key_version: KeyVersion(1),
            algorithm: 0,
            random: unhex("11223344"),
        }
    );
}

#[test]
fn a_purchase_is_approved_and_confirmed_once_the_card_says_so() {
    let (keys, store) = (keys(), store());
    let mut terminal = SealedTerminal::new(&keys, unhex("001122334455"), 0x0102);
    let purchase = purchase(&store);
    let approval = terminal.approve(&purchase).unwrap();
    // What a card with the dispersed key computes.
    let of_card = TripleDesKey::new(Zeroizing::new(MASTER)).disperse(&purchase.serial);
    let session = pboc::purchase_session(&of_card, unhex("11223344"), 7, 0x0102);
    let terms = Terms {
        amount: 1234,
        kind: PURCHASE_PURSE,
        terminal: unhex("001122334455"),
        moment: purchase.moment,
    };
    assert_eq!(approval.mac1, pboc::purchase_mac1(&session, &terms));
    assert_eq!(approval.terminal_sequence, 0x0102);
    let mut mac2 = pboc::purchase_mac2(&session, 1234);
    assert!(terminal.confirm(&approval, &mac2).unwrap());
    mac2[3] ^= 1;
    assert!(!terminal.confirm(&approval, &mac2).unwrap());
    assert_eq!(format!("{approval:?}"), "Approval { terminal_sequence: 258, .. }");
}

#[test]
fn what_a_store_does_not_do() {
    let (keys, store) = (keys(), store());
    let other = StoreId::new("SH-0043").unwrap();
    let mut terminal = SealedTerminal::new(&keys, [0; 6], 1);
    assert_eq!(terminal.load_mac2(), Err(KeyError::NeedsHeadquarters));
    assert!(matches!(terminal.approve(&purchase(&other)), Err(KeyError::OtherStore { .. })));
    let mut unknown = purchase(&store);
    unknown.opening.key_version = KeyVersion(2);
    assert!(matches!(
        terminal.approve(&unknown),
        Err(KeyError::Missing { version: KeyVersion(2), purpose: Purpose::CpuPurchase })
    ));
    let mut national = purchase(&store);
    national.opening.algorithm = 4;
    assert!(matches!(terminal.approve(&national), Err(KeyError::Algorithm { algorithm: 4 })));
}
