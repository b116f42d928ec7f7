//! Vectors of AN12196 rev. 2.0, and what a wrong bit does.

use super::super::unhex;
use super::*;

fn bytes(text: &str) -> Vec<u8> {
    hex::decode(text).unwrap()
}

fn session(enc: &str, mac: &str, name: &str, counter: u16) -> Session {
    let key = |text: &str| AesKey::new(Zeroizing::new(unhex(text)));
    Session { enc: key(enc), mac: key(mac), name: unhex(name), counter }
}

fn of_key_0(counter: u16) -> Session {
    session("1309C877509E5A215007FF0ED19CA564", "4C6626F5E72EA694202139295C7A7FC7", "9D00C4DF", counter)
}

#[test]
fn first_logins_as_published() {
    // (table, key number, RndA, E(RndB), sent, answered, TI, encryption key, MAC key), card keys 0.
    let cases = [
        (
            "table 14, key 0",
            0,
            "13C5DB8A5930439FC3DEF9A4C675360F",
            "A04C124213C186F22399D33AC2A30215",
            "35C3E05A752E0144BAC0DE51C1F22C56B34408A23D8AEA266CAB947EA8E0118D",
            "3FA64DB5446D1F34CD6EA311167F5E4985B89690C04A05F17FA7AB2F08120663",
            ("9D00C4DF", "1309C877509E5A215007FF0ED19CA564", "4C6626F5E72EA694202139295C7A7FC7"),
        ),
    ];
    for (name, number, nonce, challenge, sent, answered, (ti, enc, mac)) in cases {
        let login = Login { key: AesKey::factory(), number, nonce: unhex(nonce), kept: None };
        assert_eq!(login.frame(), [0x71, number, 0x00], "{name}");
        let (challenged, frame) = login.challenged(&unhex(challenge));
        assert_eq!(hex::encode_upper(&frame), format!("AF{sent}"), "{name}");
        assert_eq!(*challenged.theirs, unhex("B9E2FC789B64BF237CCCAA20EC7E6E48"), "{name}");
        let session = challenged.proven(&bytes(answered)).unwrap();
        assert_eq!(hex::encode_upper(session.name), ti, "{name}");
        assert_eq!(hex::encode_upper(session.enc.expose()), enc, "{name}");
        assert_eq!(hex::encode_upper(session.mac.expose()), mac, "{name}");
    }
}
