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

/// Of table 14.
fn of_key_0(counter: u16) -> Session {
    session("1309C877509E5A215007FF0ED19CA564", "4C6626F5E72EA694202139295C7A7FC7", "9D00C4DF", counter)
}

/// Of table 23.
fn within(counter: u16) -> Session {
    session("4CF3CB41A22583A61E89B158D252FC53", "5529860B2FC5FB6154B7F28361D30BF9", "7614281A", counter)
}

/// A published login with a card key of zeros.
struct Exchange {
    name: &'static str,
    number: u8,
    kept: Option<u16>,
    nonce: &'static str,
    challenge: &'static str,
    sent: &'static str,
    answered: &'static str,
    session: Session,
}

fn exchanges() -> [Exchange; 3] {
    [
        Exchange {
            name: "table 14: first, key 0",
            number: 0,
            kept: None,
            nonce: "13C5DB8A5930439FC3DEF9A4C675360F",
            challenge: "A04C124213C186F22399D33AC2A30215",
            sent: "35C3E05A752E0144BAC0DE51C1F22C56B34408A23D8AEA266CAB947EA8E0118D",
            answered: "3FA64DB5446D1F34CD6EA311167F5E4985B89690C04A05F17FA7AB2F08120663",
            session: of_key_0(0),
        },
        Exchange {
            name: "table 20: first, key 3",
            number: 3,
            kept: None,
            nonce: "B98F4C50CF1C2E084FD150E33992B048",
            challenge: "B875CEB0E66A6C5CD00898DC371F92D1",
            sent: "FF0306E47DFBC50087C4D8A78E88E62DE1E8BE457AA477C707E2F0874916A8B1",
            answered: "0CC9A8094A8EEA683ECAAC5C7BF20584206D0608D477110FC6B3D5D3F65C3A6A",
            session: session(
                "7A93D6571E4B180FCA6AC90C9A7488D4",
                "FC4AF159B62E549B5812394CAB1918CC",
                "7614281A",
                0,
            ),
        },
        Exchange {
            name: "table 23: later, key 0",
            number: 0,
            kept: Some(2),
            nonce: "60BE759EDA560250AC57CDDC11743CF6",
            challenge: "A6A2B3C572D06C097BB8DB70463E22DC",
            sent: "BE7D45753F2CAB85F34BC60CE58B940763FE969658A532DF6D95EA2773F6E991",
            answered: "B888349C24B315EAB5B589E279C8263E",
            session: within(2),
        },
    ]
}

fn begun(exchange: &Exchange) -> Login {
    Login {
        key: AesKey::factory(),
        number: exchange.number,
        nonce: Zeroizing::new(unhex(exchange.nonce)),
        kept: exchange.kept.map(|counter| (exchange.session.name, counter)),
    }
}

fn same(one: &Session, other: &Session) {
    assert_eq!(one.enc.expose(), other.enc.expose());
    assert_eq!(one.mac.expose(), other.mac.expose());
    assert_eq!((one.name, one.counter), (other.name, other.counter));
}

#[test]
fn logins_as_published() {
    for exchange in exchanges() {
        let login = begun(&exchange);
        let begin = if exchange.kept.is_some() {
            vec![0x77, exchange.number]
        } else {
            vec![0x71, exchange.number, 0]
        };
        assert_eq!(login.frame(), begin, "{}", exchange.name);
        let (challenged, frame) = login.challenged(&unhex(exchange.challenge));
        assert_eq!(hex::encode_upper(&frame), format!("AF{}", exchange.sent), "{}", exchange.name);
        same(&challenged.proven(&bytes(exchange.answered)).unwrap(), &exchange.session);
    }
}

#[test]
fn the_card_must_answer_our_challenge() {
    for exchange in exchanges() {
        // TI and capabilities stand in the first and the last block; RndA' reaches from byte 4 to 20.
        let answer = bytes(exchange.answered);
        for len in [0, 1, 15, answer.len() - 1] {
            let (challenged, _) = begun(&exchange).challenged(&unhex(exchange.challenge));
            assert_eq!(challenged.proven(&answer[..len]).err(), Some(NotProven), "{} {len}", exchange.name);
        }
        for bit in 0..128 {
            let mut wrong = answer.clone();
            wrong[bit / 8] ^= 1 << (bit % 8);
            let (challenged, _) = begun(&exchange).challenged(&unhex(exchange.challenge));
            assert_eq!(challenged.proven(&wrong).err(), Some(NotProven), "{} bit {bit}", exchange.name);
        }
    }
}

#[test]
fn commands_as_published() {
    let mac_only =
        session("00000000000000000000000000000000", "8248134A386E86EB7FAF54A52E536CB6", "7A21085E", 0);
    let read_uid =
        session("2B4D963C014DC36F24F69A50A394F875", "379D32130CE61705DD5FD8C36B95D764", "DF055522", 0);
    let configure =
        session("7951A705F47F3C29B596454DC1490383", "FE4EDBF46536557E304682F33E63A84F", "D779B1D0", 0);
    let of_key_3 =
        session("7A93D6571E4B180FCA6AC90C9A7488D4", "FC4AF159B62E549B5812394CAB1918CC", "7614281A", 0);
    // (table, session, protection, instruction, header, data, what is sent behind the instruction)
    let cases = [
        ("§5.3, GetFileSettings", mac_only, Protection::Mac, 0xF5, "02", "", "026597A457C8CD442C"),
        ("table 28, GetCardUID", read_uid, Protection::Full, 0x51, "", "", "8E2C155ADDA99BE3"),
        (
            "§6.2, SetConfiguration",
            configure,
            Protection::Full,
            0x5C,
            "00",
            "02",
            "008EA0138A7AF6FC8E99DF2A3A305602C43A7A3C9228C3134A",
        ),
        (
            "table 19, ChangeFileSettings",
            of_key_0(1),
            Protection::Full,
            0x5F,
            "02",
            "4000E0C1F121200000430000430000",
            "0261B6D97903566E84C3AE5274467E89EAD799B7C1A0EF7A04",
        ),
        (
            "table 22, WriteData",
            of_key_3,
            Protection::Full,
            0x8D,
            "030000000A0000",
            "0102030405060708090A",
            "030000000A00006B5E6804909962FC4E3FF5522CF0F8436C0C53315B9C73AA",
        ),
    ];
    for (name, session, protection, instruction, header, data, sent) in cases {
        let frame = session.command(protection, instruction, &bytes(header), &bytes(data));
        assert_eq!(hex::encode_upper(frame), format!("{instruction:02X}{sent}"), "{name}");
    }
}

#[test]
fn key_changes_as_published() {
    let key = |text: &str| AesKey::new(Zeroizing::new(unhex(text)));
    let other =
        within(2).change_key(2, &key("F3847D627727ED3BC9C4CC050489B966"), 1, Some(&AesKey::factory()));
    assert_eq!(
        hex::encode_upper(other),
        "C4022CF362B7BF4311FF3BE1DAA295E8C68DE09050560D19B9E16C2393AE9CD1FAC75D0CE20BCD1D06E6",
        "table 26: another key than the session's",
    );
    let own = within(3).change_key(0, &key("5004BF991F408672B1EF00F08F9E8647"), 1, None);
    assert_eq!(
        hex::encode_upper(own),
        "C400C0EB4DEEFEDDF0B513A03A95A75491818580503190D4D05053FF75668A01D6FDA6610234BDED6432",
        "table 27: the session's own key",
    );
}

/// Published answers: (table, session, protection, answer with MAC, what it says).
fn answers() -> [(&'static str, Session, Protection, &'static str, &'static str); 4] {
    let read_uid =
        session("2B4D963C014DC36F24F69A50A394F875", "379D32130CE61705DD5FD8C36B95D764", "DF055522", 0);
    let mac_only =
        session("00000000000000000000000000000000", "8248134A386E86EB7FAF54A52E536CB6", "7A21085E", 0);
    [
        (
            "table 28, GetCardUID",
            read_uid,
            Protection::Full,
            "70756055688505B52A5E26E59E329CD6595F672298EA41B7",
            "04958CAA5C5E80",
        ),
        (
            "§5.3, GetFileSettings",
            mac_only,
            Protection::Mac,
            "0040EEEE000100D1FE001F00004400004400002000006A00002A474282E7A47986",
            "0040EEEE000100D1FE001F00004400004400002000006A0000",
        ),
        ("table 19, ChangeFileSettings", of_key_0(1), Protection::Full, "57BFF87B1241E93D", ""),
        ("table 26, ChangeKey", within(2), Protection::Full, "203BB55D1089D587", ""),
    ]
}

#[test]
fn answers_as_published() {
    for (name, mut session, protection, answer, says) in answers() {
        let before = session.counter();
        let data = session.answer(protection, 0x00, &bytes(answer)).unwrap();
        assert_eq!(hex::encode_upper(&data[..]), says, "{name}");
        assert_eq!(session.counter(), before + 1, "{name}");
    }
}

#[test]
fn a_changed_answer_is_refused() {
    for (case, (name, _, protection, answer, _)) in answers().into_iter().enumerate() {
        let answer = bytes(answer);
        for bit in 0..8 * answer.len() {
            let mut wrong = answer.clone();
            wrong[bit / 8] ^= 1 << (bit % 8);
            let mut session = answers().into_iter().nth(case).unwrap().1;
            assert_eq!(session.answer(protection, 0x00, &wrong), Err(Forged), "{name} bit {bit}");
        }
        let mut session = answers().into_iter().nth(case).unwrap().1;
        assert_eq!(session.answer(protection, 0xAE, &answer), Err(Forged), "{name}: another status");
        let mut session = answers().into_iter().nth(case).unwrap().1;
        assert_eq!(session.answer(protection, 0x00, &answer[..7]), Err(Forged), "{name}: cut off");
    }
}

#[test]
fn sessions_show_nothing_of_themselves() {
    let [exchange, ..] = exchanges();
    let login = begun(&exchange);
    let shown = format!("{login:?}");
    assert_eq!(shown, "Login { key_number: 0, .. }");
    let (challenged, _) = login.challenged(&unhex(exchange.challenge));
    assert_eq!(format!("{challenged:?}"), "Challenged { key_number: 0, .. }");
    assert_eq!(format!("{:?}", within(7)), "Session { counter: 7, .. }");
}

proptest::proptest! {
    #![proptest_config(crate::seed::cases(256))]

    #[test]
    fn no_answer_makes_a_session_panic(body: Vec<u8>, status: u8, counter: u16, full: bool) {
        let protection = if full { Protection::Full } else { Protection::Mac };
        assert!(of_key_0(counter).answer(protection, status, &body).is_err());
    }

    #[test]
    fn no_answer_makes_a_login_panic(body: Vec<u8>, challenge: [u8; 16]) {
        for exchange in exchanges() {
            let (challenged, _) = begun(&exchange).challenged(&challenge);
            assert!(challenged.proven(&body).is_err());
        }
    }
}
