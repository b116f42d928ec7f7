//! Tests of the module beside it.

use super::*;
use crate::card::crypto::aes128::AesKey;
use crate::card::crypto::sun;
use crate::card::keys::KeyVersion;

fn place() -> SunPlace {
    SunPlace {
        meta: 3,
        file: 4,
        url: "https://cards.example/c?s={store}&v={version}&p={picc}&m={mac}".into(),
    }
}

fn header() -> Header {
    Header { layout: 1, key_version: KeyVersion(1), store: "SH-0042".parse().unwrap() }
}

#[test]
fn what_is_written() {
    let address = of(&place(), &header()).unwrap();
    let text = String::from_utf8(address.bytes[BEFORE..].to_vec()).unwrap();
    let zeros = |count| "0".repeat(count);
    assert_eq!(text, format!("cards.example/c?s=SH-0042&v=1&p={}&m={}", zeros(32), zeros(16)));
    let length = u8::try_from(text.len()).unwrap();
    assert_eq!(address.bytes[..BEFORE], [0, length + 5, 0xD1, 0x01, length + 1, 0x55, 0x04]);
    assert_eq!(&address.bytes[address.picc_at - 3..address.picc_at], b"&p=");
    assert_eq!(&address.bytes[address.mac_at - 3..address.mac_at], b"&m=");
    assert_eq!(parse(&address.bytes), Some(([0; 16], [0; 8])));
    let long = SunPlace { url: format!("https://{}/?p={{picc}}&m={{mac}}", "a".repeat(220)), ..place() };
    assert_eq!(of(&long, &header()), None);
}

/// The example of AN12196 rev. 2.0 §3.4.4, with this house's names of the fields.
#[test]
fn the_published_address_is_genuine() {
    let text = "choose.url.com/ntag424?p=EF963FF7828658A599F3041510671E88&m=94EED9EE65337086";
    let length = u8::try_from(text.len()).unwrap();
    let file = [&[0, length + 5, 0xD1, 0x01, length + 1, 0x55, 0x04][..], text.as_bytes(), &[0; 40]].concat();
    let (picc, mac) = parse(&file).unwrap();
    let key = AesKey::factory();
    let reading = sun::decipher(&key, &picc).unwrap();
    assert_eq!(hex::encode_upper(reading.uid), "04DE5F1EACC040");
    assert_eq!(reading.counter, 61);
    assert!(sun::is_genuine(&key, &reading, &[], &mac));
}

#[test]
fn what_is_no_address_of_ours() {
    for (name, file) in [
        ("nothing", vec![]),
        ("empty", vec![0, 0]),
        ("longer than the file", vec![1, 0, 0xD1]),
        ("another's", [&[0, 20][..], b"example.com/?id=1234"].concat()),
        ("no digits", [&[0, 37][..], b"?p=XY963FF7828658A599F3041510671E88&m"].concat()),
        ("cut", [&[0, 10][..], b"?p=EF963FF7&m=94"].concat()),
    ] {
        assert_eq!(parse(&file), None, "{name}");
    }
}

proptest::proptest! {
    #![proptest_config(crate::seed::cases(256))]

    #[test]
    fn any_bytes_are_looked_at(file: Vec<u8>, text in "[?&pm=0-9A-F]{0,80}") {
        let _ = parse(&file);
        let file = [&[0, u8::try_from(text.len()).unwrap()][..], text.as_bytes()].concat();
        let _ = parse(&file);
    }
}
