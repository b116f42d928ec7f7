//! Tests of the record: its bytes, its seal, and which slot counts.

use proptest::prelude::*;
use zeroize::Zeroizing;

use super::*;
use crate::card::keys::sealed::SealedKeys;
use crate::card::keys::{CardRef, KeyStore, KeyVersion, Purpose};
use crate::ident::CardUid;

/// Master keys for tests, in versions 1 and 2.
pub(crate) fn keys() -> SealedKeys {
    masters(store(), 0)
}

/// Somebody else's.
pub(crate) fn other_keys(store: &str) -> SealedKeys {
    masters(store.parse().unwrap(), 0x80)
}

/// Those of a store that was not given one of them.
pub(crate) fn keys_without(missing: Purpose) -> SealedKeys {
    held(store(), 0, |purpose| purpose != missing)
}

fn masters(store: StoreId, from: u8) -> SealedKeys {
    held(store, from, |_| true)
}

fn held(store: StoreId, from: u8, is_held: impl Fn(Purpose) -> bool) -> SealedKeys {
    let masters = [1, 2].into_iter().flat_map(|version| {
        Purpose::ALL.into_iter().enumerate().map(move |(place, purpose)| {
            let byte = from + version * 16 + u8::try_from(place).unwrap();
            ((KeyVersion(version), purpose), Zeroizing::new([byte; 16]))
        })
    });
    SealedKeys::new(store, KeyVersion(1), masters.filter(|((_, purpose), _)| is_held(*purpose)).collect())
}

pub(crate) fn store() -> StoreId {
    "SH-0042".parse().unwrap()
}

fn read(bytes: &[u8; SLOT_BYTES]) -> Slot {
    decode(bytes, &uid(), &store(), &keys())
}

pub(crate) fn uid() -> CardUid {
    "04A1B2C3D45E80".parse().unwrap()
}

pub(crate) fn record(counter: u32) -> MemberRecord {
    MemberRecord {
        card_no: "8800123456".parse().unwrap(),
        member_type: CardType::Named,
        status: MemberStatus::Active,
        issuing_store: store(),
        tier: 2,
        discount_class: 1,
        valid_until: Some(jiff::civil::date(2029, 11, 21)),
        principal_fen: 50_000,
        bonus_fen: 2_500,
        points: 300,
        coupons: [
            Coupon { kind: 7, left: 5 },
            Coupon::default(),
            Coupon::default(),
            Coupon { kind: 9, left: 1 },
        ],
        counter,
        last: Some(LastTransaction {
            at_s: 1_795_334_400,
            kind: TransactionKind::Spend,
            tag: [0xDE, 0xAD, 0xBE, 0xEF],
        }),
        key_version: 1,
    }
}

fn sealed(record: &MemberRecord) -> [u8; SLOT_BYTES] {
    encode(record, &uid(), &keys()).unwrap()
}

/// By the table in docs/cards.md, worked out by hand.
#[test]
fn every_byte_is_in_its_place() {
    let bytes = sealed(&record(9));
    assert_eq!(
        hex::encode_upper(&bytes[..48]),
        [
            "01",
            "00",
            "01",
            "02",
            "01",
            "02",   // format, named and active, keys 1, tier 2, class 1, spend
            "2AA6", // 2029-11-21 is 10918 days after 1999-12-31
            "8800123456FFFFFF",
            "00000009",
            "0000C350",
            "000009C4",
            "0000012C",
            "0705000000000901",
            "6B02A100", // 1795334400
            "DEADBEEF",
        ]
        .concat()
    );
}

type Change<'a> = &'a dyn Fn(&mut MemberRecord);

#[test]
fn what_does_not_fit_is_named() {
    let with = |change: Change<'_>| {
        let mut record = record(1);
        change(&mut record);
        encode(&record, &uid(), &keys()).unwrap_err().to_string()
    };
    let cases: [(Change<'_>, &str); 5] = [
        (&|r| r.card_no = "VIP-7".parse().unwrap(), "VIP-7"),
        (&|r| r.card_no = "12345678901234567".parse().unwrap(), "16 digits"),
        (&|r| r.valid_until = Some(jiff::civil::date(1999, 12, 31)), "1999-12-31"),
        (&|r| r.key_version = 9, "version 9"),
        (&|r| r.key_version = 0, "version 0"),
    ];
    for (change, words) in cases {
        let error = with(change);
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn a_slot_is_for_one_card() {
    let bytes = sealed(&record(1));
    assert_eq!(read(&bytes), Slot::Valid(record(1)));
    let clone = "04A1B2C3D45E81".parse().unwrap();
    assert_eq!(decode(&bytes, &clone, &store(), &keys()), Slot::Invalid(SlotFault::Seal));
    assert_eq!(read(&[0; SLOT_BYTES]), Slot::Empty);
    let mut other_keys = bytes;
    other_keys[2] = 9;
    assert_eq!(read(&other_keys), Slot::Invalid(SlotFault::KeyVersion(9)));
    // A header of version 8: keys that are to come. Of 9 or 10: none of a record newer than its neighbour.
    for (header, fault) in [(8, SlotFault::KeyVersion(9)), (9, SlotFault::Seal), (10, SlotFault::Seal)] {
        assert_eq!(read(&other_keys).under(KeyVersion(header)), Slot::Invalid(fault));
    }
    assert_eq!(read(&bytes).under(KeyVersion(10)), Slot::Valid(record(1)));
}

#[test]
fn rightly_sealed_nonsense_is_named() {
    for (offset, byte, expected) in [
        (0, 2, Slot::Invalid(SlotFault::Format(2))),
        (1, 0x02, Slot::Invalid(SlotFault::Content { offset: 1, expected: "type 0 or 1" })),
        (1, 0x40, Slot::Invalid(SlotFault::Content { offset: 1, expected: "status 0 to 3" })),
        (5, 10, Slot::Invalid(SlotFault::Content { offset: 5, expected: "a transaction kind 0 to 9" })),
        (8, 0xFF, Slot::Invalid(SlotFault::Content { offset: 8, expected: "1 to 16 digits, then F" })),
    ] {
        let mut bytes = sealed(&record(1));
        bytes[offset] = byte;
        let card = CardRef { uid: &uid(), store: &store(), version: KeyVersion(1) };
        let seal = keys().record_mac(card, &bytes[..48]).unwrap();
        bytes[48..].copy_from_slice(&seal);
        assert_eq!(read(&bytes), expected, "byte {offset}");
    }
}

#[test]
fn which_slot_counts() {
    let valid = |counter| Slot::Valid(record(counter));
    let (torn, none) = (Slot::Invalid(SlotFault::Seal), Slot::Empty);
    let mut other = record(5);
    other.principal_fen += 1;
    let now = |counter, slot, before: Option<u32>, torn| {
        let before = before.map(record);
        Pair::Current(Box::new(Current { record: record(counter), slot, before, torn }))
    };
    let unknown = SlotFault::KeyVersion(3);
    let cases = [
        ("the higher counter", valid(7), valid(8), now(8, Which::B, Some(7), false)),
        ("the higher counter, the other way", valid(9), valid(8), now(9, Which::A, Some(8), false)),
        ("issued once", valid(1), none.clone(), now(1, Which::A, None, false)),
        ("torn beside valid", valid(7), torn.clone(), now(7, Which::A, None, true)),
        ("valid beside torn", torn.clone(), valid(7), now(7, Which::B, None, true)),
        ("the same twice: a repeated write", valid(7), valid(7), now(7, Which::A, Some(7), false)),
        ("one counter, two contents", valid(5), Slot::Valid(other), Pair::Forked { counter: 5 }),
        ("an old image written back", valid(7), valid(5), Pair::Forked { counter: 7 }),
        ("an old image written back, the other way", valid(1), valid(7), Pair::Forked { counter: 7 }),
        (
            "unreadable beside valid",
            Slot::Invalid(SlotFault::Unreadable),
            valid(7),
            now(7, Which::B, None, true),
        ),
        ("never written", none.clone(), none.clone(), Pair::Empty),
        ("torn while being issued", torn.clone(), none, Pair::Damaged),
        ("both torn", torn.clone(), torn.clone(), Pair::Damaged),
        ("later keys beside ours", Slot::Invalid(unknown), valid(7), Pair::Unknown(unknown)),
        ("later keys beside torn", torn, Slot::Invalid(unknown), Pair::Unknown(unknown)),
    ];
    for (name, a, b, expected) in cases {
        assert_eq!(choose(a, b), expected, "{name}");
    }
}

fn records() -> impl Strategy<Value = MemberRecord> {
    let last = proptest::option::of((any::<u32>(), 0_usize..9, any::<[u8; 4]>()));
    let flags = (any::<bool>(), 0_usize..4, proptest::option::of(1_i64..=65_535));
    let money = (any::<u32>(), any::<u32>(), any::<u32>(), any::<u32>());
    let small = (any::<u8>(), any::<u8>(), 1_u8..=2, any::<[[u8; 2]; COUPON_SLOTS]>());
    ("[0-9]{1,16}", flags, money, small, last).prop_map(
        |(card_no, (named, status, days), (principal_fen, bonus_fen, points, counter), small, last)| {
            let (tier, discount_class, key_version, coupons) = small;
            MemberRecord {
                card_no: card_no.parse().unwrap(),
                member_type: if named { CardType::Named } else { CardType::Anonymous },
                status: [
                    MemberStatus::Active,
                    MemberStatus::Blocked,
                    MemberStatus::Returned,
                    MemberStatus::Replaced,
                ][status],
                issuing_store: store(),
                tier,
                discount_class,
                valid_until: days.map(|days| {
                    use jiff::ToSpan;
                    jiff::civil::date(1999, 12, 31).checked_add(days.days()).unwrap()
                }),
                principal_fen,
                bonus_fen,
                points,
                coupons: coupons.map(|[kind, left]| Coupon { kind, left }),
                counter,
                last: last.map(|(at_s, kind, tag)| LastTransaction {
                    at_s,
                    kind: TransactionKind::ALL[kind],
                    tag,
                }),
                key_version,
            }
        },
    )
}

#[test]
fn a_header_says_whose_card_it_is() {
    let header = Header { layout: 1, key_version: KeyVersion(1), store: store() };
    let bytes = header.encode(&uid(), &keys()).unwrap();
    assert_eq!(hex::encode_upper(&bytes[..12]), "4247010153482D3030343200");
    assert_eq!(read_header(&bytes), HeaderReading::Ours(header.clone()));
    assert_eq!(header.is_ours(&bytes, &uid(), &keys()), Ok(true));
    let other = "04A1B2C3D45E81".parse().unwrap();
    assert_eq!(header.is_ours(&bytes, &other, &keys()), Ok(false), "a copied header");
    for at in 0..HEADER_BYTES {
        for flip in [0x01, 0x02, 0x80] {
            let mut changed = bytes;
            changed[at] ^= flip;
            if let HeaderReading::Ours(said) = read_header(&changed) {
                assert_ne!(said.is_ours(&changed, &uid(), &keys()), Ok(true), "byte {at} ^ {flip:02X}");
            }
        }
    }
    let long = Header { store: "Shanghai-1".parse().unwrap(), ..header.clone() };
    assert!(long.encode(&uid(), &keys()).unwrap_err().to_string().contains("8 characters"));
    let later = Header { key_version: KeyVersion(9), ..header };
    assert!(later.is_ours(&bytes, &uid(), &keys()).is_err());
    // As delivered: NTAG213 data sheet rev. 3.2 table 5; Classic and Ultralight all zero.
    for (name, bytes, expected) in [
        ("NTAG213 as delivered", "0103A00C340300FE0000000000000000", HeaderReading::Blank),
        ("empty", "00000000000000000000000000000000", HeaderReading::Blank),
        ("being prepared", "0000000053482D303034320012345678", HeaderReading::Blank),
        ("an address on a tag", "0312D1010E5504676F6F676C652E636F", HeaderReading::Foreign),
        ("no store", "42470101000000000000000000000000", HeaderReading::Foreign),
        ("no key version", "4247010053482D303034320000000000", HeaderReading::Foreign),
    ] {
        let bytes = hex::decode(bytes).unwrap().try_into().unwrap();
        assert_eq!(read_header(&bytes), expected, "{name}");
    }
}

proptest! {
    #![proptest_config(crate::seed::cases(256))]

    #[test]
    fn a_record_comes_back_as_it_went(record in records()) {
        prop_assert_eq!(read(&sealed(&record)), Slot::Valid(record));
    }

    #[test]
    fn any_changed_byte_breaks_the_seal(record in records(), at in 0_usize..SLOT_BYTES, flip in 1_u8..) {
        let mut bytes = sealed(&record);
        bytes[at] ^= flip;
        prop_assert!(matches!(
            read(&bytes),
            Slot::Invalid(SlotFault::Seal | SlotFault::KeyVersion(_))
        ));
    }

    #[test]
    fn any_bytes_are_a_slot_of_some_kind(bytes in any::<[u8; SLOT_BYTES]>()) {
        read(&bytes);
    }

    /// A write over the older slot, cut after any byte: the old record or the new one.
    #[test]
    fn a_torn_write_leaves_old_or_new(old in records(), older in records(), cut in 0_usize..=SLOT_BYTES) {
        let mut old = old;
        old.counter = old.counter.clamp(1, u32::MAX - 1);
        let older = MemberRecord { counter: old.counter - 1, ..older };
        let new = MemberRecord { counter: old.counter + 1, points: old.points ^ 1, ..old.clone() };
        let mut bytes = sealed(&older);
        bytes[..cut].copy_from_slice(&sealed(&new)[..cut]);
        let pair = choose(read(&sealed(&old)), read(&bytes));
        let Pair::Current(current) = pair else { panic!("{pair:?}") };
        // The last bytes of two seals may be the same: then the write was whole before its end.
        prop_assert!(current.record == new || (current.record == old && cut < SLOT_BYTES));
    }
}
