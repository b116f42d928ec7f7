//! Forms of the credential, each with its word.

use super::*;
use crate::card::keys::{CardRef, KeyError};

const GOOD: &str = "\
# made by hand
store SH-0042
current 2

1 debit  0F1E2D3C4B5A69788796A5B4C3D2E1F0
2 record 2B7E151628AED2A6ABF7158809CF4F3C
2 debit  603deb1015ca71be2b73aef0857d7781\r
";

fn own() -> StoreId {
    StoreId::new("SH-0042").unwrap()
}

#[test]
fn a_good_one_is_read() {
    let keys = parse(GOOD.as_bytes(), &own()).unwrap();
    assert_eq!(keys.current(), KeyVersion(2));
    assert_eq!(keys.len(), 3);
    assert_eq!(
        format!("{keys:?}"),
        "SealedKeys { store: StoreId(SH-0042), current: KeyVersion(2), \
         held: [(KeyVersion(1), Debit), (KeyVersion(2), Record), (KeyVersion(2), Debit)], others: [], .. }"
    );
}

/// Another store's keys, behind its name.
const NEIGHBOUR: &str =
    "store BJ-0001\n7 record 101112131415161718191A1B1C1D1E1F\n7 debit 202122232425262728292A2B2C2D2E2F\n";

#[test]
fn keys_of_a_second_store_are_its_own() {
    let keys = parse(format!("{GOOD}{NEIGHBOUR}").as_bytes(), &own()).unwrap();
    assert_eq!((keys.current(), keys.len()), (KeyVersion(2), 5));
    assert!(keys.opens("SH-0042") && keys.opens("BJ-0001") && !keys.opens("BJ-0002"));
    let uid = "04A1B2C3".parse().unwrap();
    let store = |name: &str| StoreId::new(name).unwrap();
    let mac = |name: &str, version| {
        let store = store(name);
        keys.record_mac(CardRef { uid: &uid, store: &store, version: KeyVersion(version) }, b"x")
    };
    assert!(mac("SH-0042", 2).is_ok() && mac("BJ-0001", 7).is_ok());
    // No store has a version because another one has it.
    for (name, version) in [("SH-0042", 7), ("BJ-0001", 2)] {
        assert!(matches!(mac(name, version), Err(KeyError::Missing { .. })), "{name} {version}");
    }
    assert!(matches!(mac("BJ-0002", 7), Err(KeyError::OtherStore { .. })));
}

#[test]
fn what_is_wrong_is_told_with_its_line_and_without_the_key() {
    let line = |extra: &str| format!("{GOOD}{extra}\n");
    let without = |word: &str| GOOD.lines().filter(|l| !l.starts_with(word)).collect::<Vec<_>>().join("\n");
    let cases = [
        (line("2 debt 000102030405060708090A0B0C0D0E0F"), "line 8: no such purpose; did you mean `debit`?"),
        (
            line("2 000102030405060708090A0B0C0D0E0F debit"),
            "line 8: no such purpose; known: record, debit, credit, manage",
        ),
        (line("0 credit 000102030405060708090A0B0C0D0E0F"), "line 8: the version must be"),
        (line("255 credit 000102030405060708090A0B0C0D0E0F"), "line 8: the version must be"),
        (line("000102030405060708090A0B0C0D0E0F credit 2"), "line 8: the version must be"),
        (line("2 credit 000102030405060708090A0B0C0D0E"), "line 8: the key must be 32 hex digits"),
        (line("2 credit 000102030405060708090A0B0C0D0E0G"), "line 8: the key must be 32 hex digits"),
        (line("2 credit 000102030405060708090A0B0C0D0E0F 00"), "line 8: expected `store NAME`"),
        (line("000102030405060708090A0B0C0D0E0F"), "line 8: expected `store NAME`"),
        (line("2 credit 00000000000000000000000000000000"), "line 8: this key is weak"),
        (line("2 credit 00010203040506070001020304050607"), "line 8: this key is weak"),
        (line("2 credit 0F1E2D3C4B5A69788796A5B4C3D2E1F0"), "line 8: the same key stands in line 5"),
        (line("2 debit 000102030405060708090A0B0C0D0E0F"), "line 8: said before in line 7"),
        (line("store SH-0042"), "line 8: said before in line 2"),
        (line("current 1"), "line 8: said before in line 3"),
        (line("store 000102030405060708090A0B0C0D0E0F"), "line 8: this is no store's name"),
        (line("store 0001020304050607"), "line 8: this is no store's name"),
        (GOOD.replace("SH-0042", "000102030405060708090A0B0C0D0E0F"), "line 2: this is no store's name"),
        (without("store"), "the line `store NAME` is missing"),
        (without("current"), "the line `current VERSION` is missing"),
        (without("2 "), "`current` is 2, and there is no key of that version"),
        (
            line("store BJ-0001\n1 debit 603DEB1015CA71BE2B73AEF0857D7781"),
            "line 9: the same key stands in line 7",
        ),
        (
            line(&format!("{NEIGHBOUR}7 debit 000102030405060708090A0B0C0D0E0F")),
            "line 11: said before in line 10",
        ),
        (line(&format!("{NEIGHBOUR}store SH-0042")), "line 11: said before in line 2"),
        (line(&format!("{NEIGHBOUR}current 7")), "line 11: only the gateway's own store"),
        (
            line(&format!("{NEIGHBOUR}7 manage 000102030405060708090A0B0C0D0E0F")),
            "line 11: purpose `manage` of another store stays there",
        ),
        (line("store BJ-0001"), "there is no key of store BJ-0001"),
        (format!("{NEIGHBOUR}current 7"), "made for store BJ-0001, and this gateway is of SH-0042"),
        (GOOD.replace("SH-0042", "SH-0043"), "made for store SH-0043, and this gateway is of SH-0042"),
    ];
    for (text, expected) in cases {
        let error = parse(text.as_bytes(), &own()).unwrap_err();
        let shown = format!("{error}\n{error:?}");
        assert!(shown.contains(expected), "{expected:?} is not in {shown}");
        for half in ["0001020304", "0F1E2D3C", "2B7E1516", "603deb10", "603DEB10", "0C0D0E"] {
            assert!(!shown.contains(half), "{shown}");
        }
    }
    let mut bytes = GOOD.as_bytes().to_vec();
    bytes.extend([0xFF, 0xFE]);
    assert!(parse(&bytes, &own()).unwrap_err().to_string().contains("line 8: not plain text"));
}

#[test]
fn read_through_the_credentials_folder() {
    let folder = tempfile::tempdir().unwrap();
    let credentials = Credentials::new(Some(folder.path().to_owned()));
    assert!(load(&credentials, &own()).unwrap().is_none(), "no credential");
    std::fs::write(folder.path().join(CARD_KEYS), "").unwrap();
    assert!(load(&credentials, &own()).unwrap().is_none(), "the empty file that systemd needs");
    std::fs::write(folder.path().join(CARD_KEYS), GOOD).unwrap();
    assert_eq!(load(&credentials, &own()).unwrap().unwrap().len(), 3);
}

proptest::proptest! {
    #![proptest_config(crate::seed::cases(256))]

    #[test]
    fn no_file_makes_it_panic(bytes: Vec<u8>) {
        drop(parse(&bytes, &own()));
    }
}
