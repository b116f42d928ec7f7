//! Tests of the module beside it: the terminal here is a dozen lines, and takes the session
//! keys from the card.

use super::super::ev2::{decrypt, encrypt};
use super::*;

/// An application "BG" with three keys, a standard, a backup and a value file.
const AID: &str = "014742";

fn send(card: &mut Desfire, ins: u8, body: &str) -> String {
    let body = hex::decode(body.replace(' ', "")).unwrap();
    let length = u8::try_from(body.len()).unwrap();
    let rest = if body.is_empty() { vec![0] } else { [&[length], body.as_slice(), &[0]].concat() };
    hex::encode_upper(card.wrapped(ins, &rest))
}

/// With the MAC that the session asks for.
fn mac(card: &mut Desfire, ins: u8, body: &str) -> String {
    let bytes = hex::decode(body.replace(' ', "")).unwrap();
    let mac = card.channel.as_ref().unwrap().mac_of(ins, &bytes);
    let answer = send(card, ins, &hex::encode([bytes, mac].concat()));
    // Without the answer's MAC: the drivers' tests look at that.
    match answer.strip_suffix("9100") {
        Some(data) => format!("{}9100", &data[..data.len() - 16]),
        None => answer,
    }
}

fn log_in(card: &mut Desfire, ins: u8, number: u8, key: Block) -> String {
    let begin = if ins == 0x71 { format!("{number:02X}00") } else { format!("{number:02X}") };
    let challenge = hex::decode(send(card, ins, &begin)).unwrap();
    let Some(challenge) = challenge.strip_suffix(&[0x91, 0xAF]) else { return hex::encode_upper(challenge) };
    let theirs = decrypt(&key, [0; 16], challenge);
    let ours = [0x33; 16];
    let proof = encrypt(&key, [0; 16], &[ours.as_slice(), &theirs[1..], &theirs[..1]].concat());
    let answer = send(card, MORE, &hex::encode(proof));
    answer[answer.len() - 4..].to_owned()
}

fn empty() -> Desfire {
    Desfire::as_delivered(&[0x04, 0xA1, 0xB2, 0xC3, 0xD4, 0x5E, 0x80])
}

/// Read with key 1, both with key 2, change with key 0; all with a MAC.
fn prepared() -> Desfire {
    let mut card = empty();
    assert_eq!(send(&mut card, 0xCA, &format!("{AID} 0B 83")), "9100");
    assert_eq!(send(&mut card, 0x5A, AID), "9100");
    assert_eq!(send(&mut card, 0xCD, "01 01 F0E2 100000"), "91AE", "creating needs the master key");
    send(&mut card, 0x5A, AID);
    assert_eq!(log_in(&mut card, 0x71, 0, [0; 16]), "9100");
    assert_eq!(mac(&mut card, 0xCD, "01 01 F0E2 100000"), "9100");
    assert_eq!(mac(&mut card, 0xCB, "02 01 201F 400000"), "9100");
    assert_eq!(mac(&mut card, 0xCC, "03 01 201F 00000000 E8030000 64000000 00"), "9100");
    assert_eq!(mac(&mut card, 0x6F, ""), "0102039100");
    assert_eq!(mac(&mut card, 0x6F, "00"), "917E");
    assert_eq!(send(&mut card, 0x5A, AID), "9100");
    card
}

fn with_key(number: u8) -> Desfire {
    let mut card = prepared();
    assert_eq!(log_in(&mut card, 0x71, number, [0; 16]), "9100");
    card
}

#[test]
fn what_a_stranger_may() {
    for (ins, body, answer) in [
        (0x6F, "", "0102039100"),
        (0x64, "02", "009100"),
        (0x64, "07", "9140"),
        (0xF5, "02", "01012" /* and so on */),
        (0xF5, "09", "91F0"),
        (0xBD, "01 000000 000000", "000000000000000000000000000000009100"),
        (0xBD, "01 000000 110000", "91BE"),
        (0xBD, "02 000000 000000", "91AE"),
        (0x6C, "03", "91AE"),
        (0x3D, "01 000000 010000 55", "91AE"),
        (0x3D, "02 000000 010000 55", "91AE"),
        (0xDC, "03 01000000", "91AE"),
        (0xC4, "00", "91AE"),
        (0x51, "", "91AE"),
        (0x77, "00", "91AE"),
        (0x71, "05 00", "9140"),
        (0xC7, "", "910C"),
        (0xFC, "", "911C"),
        (0xAF, "", "91CA"),
        (0x6A, "", "911C"),
    ] {
        let got = send(&mut prepared(), ins, body);
        assert!(got.starts_with(answer), "{ins:02X} {body}: {got}");
    }
    assert_eq!(send(&mut empty(), 0x6A, ""), "9100");
    assert_eq!(send(&mut empty(), 0xCA, "000000 0B 83"), "919E");
    assert_eq!(send(&mut empty(), 0x5A, AID), "91A0");
}

#[test]
fn a_wrong_key_opens_nothing() {
    let mut card = prepared();
    assert_eq!(log_in(&mut card, 0x71, 1, [7; 16]), "91AE");
    assert!(!card.has_session());
    assert_eq!(card.failed_logins(), 1);
}

#[test]
fn a_command_counts_once_and_must_have_its_mac() {
    let body = "02 000000 040000";
    let bytes = hex::decode(body.replace(' ', "")).unwrap();
    let mut card = with_key(1);
    let seal = card.channel.as_ref().unwrap().mac_of(0xBD, &bytes);
    let sealed = hex::encode([bytes, seal].concat());
    assert!(send(&mut card, 0xBD, &sealed).ends_with("9100"));
    assert_eq!(send(&mut card, 0xBD, &sealed), "911E", "said again");
    assert!(!card.has_session(), "an error ends the session");
    assert_eq!(send(&mut with_key(1), 0xBD, body), "911E", "without a MAC");
    assert_eq!(mac(&mut with_key(1), 0x3D, "02 000000 010000 55"), "91AE", "key 1 reads only");
    assert_eq!(send(&mut with_key(1), 0xC4, &"00".repeat(41)), "911E");
}

#[test]
fn nothing_is_written_before_the_commit() {
    let write = "02 000000 020000 BEEF";
    let read = |card: &mut Desfire| mac(card, 0xBD, "02 000000 020000");
    let mut card = with_key(2);
    assert_eq!(mac(&mut card, 0x3D, write), "9100");
    assert_eq!(read(&mut card), "00009100", "as committed");
    assert_eq!(mac(&mut card, 0xC7, ""), "9100");
    assert_eq!(read(&mut card), "BEEF9100");
    assert_eq!(mac(&mut card, 0xC7, ""), "910C", "nothing waits");
    type Deed = fn(&mut Desfire);
    let endings: [(&str, Deed); 4] = [
        ("no power", Desfire::reset),
        ("abort", |card| assert_eq!(mac(card, 0xA7, ""), "9100")),
        ("selected anew", |card| assert_eq!(send(card, 0x5A, AID), "9100")),
        ("an error", |card| assert_eq!(send(card, 0xBD, "02"), "911E")),
    ];
    for (name, ending) in endings {
        let mut card = with_key(2);
        mac(&mut card, 0x3D, write);
        ending(&mut card);
        send(&mut card, 0x5A, AID);
        log_in(&mut card, 0x71, 2, [0; 16]);
        assert_eq!(read(&mut card), "00009100", "{name}");
    }
    // A standard file is written at once.
    let mut card = with_key(2);
    assert_eq!(mac(&mut card, 0x3D, "01 000000 020000 BEEF"), "9100");
    card.reset();
    send(&mut card, 0x5A, AID);
    assert_eq!(send(&mut card, 0xBD, "01 000000 020000"), "BEEF9100");
}

#[test]
fn values_keep_their_bounds() {
    let mut card = with_key(2);
    assert_eq!(mac(&mut card, 0x6C, "03"), "640000009100");
    assert_eq!(mac(&mut card, 0xDC, "03 1E000000"), "9100");
    assert_eq!(mac(&mut card, 0x0C, "03 05000000"), "9100");
    assert_eq!(mac(&mut card, 0x6C, "03"), "640000009100");
    assert_eq!(mac(&mut card, 0xC7, ""), "9100");
    assert_eq!(mac(&mut card, 0x6C, "03"), "4B0000009100");
    assert_eq!(mac(&mut card, 0xDC, "03 4C000000"), "91BE", "below the lower limit");
    for (ins, body, answer) in
        [(0x0C, "03 E8030000", "91BE"), (0x0C, "03 FFFFFFFF", "919E"), (0x6C, "02", "919E")]
    {
        assert_eq!(mac(&mut with_key(2), ins, body), answer, "{body}");
    }
    // Whoever may only read may take off, and not put on.
    assert_eq!(mac(&mut with_key(1), 0xDC, "03 01000000"), "9100");
    assert_eq!(mac(&mut with_key(1), 0x0C, "03 01000000"), "91AE");
}

/// A value file with LimitedCredit on (01), which key 1 may use, made under the master key.
fn with_limited_credit(number: u8) -> Desfire {
    let mut card = empty();
    send(&mut card, 0xCA, &format!("{AID} 0B 83"));
    send(&mut card, 0x5A, AID);
    log_in(&mut card, 0x71, 0, [0; 16]);
    assert_eq!(mac(&mut card, 0xCC, "04 01 2011 00000000 E8030000 64000000 01"), "9100");
    for wrong in [
        "05 01 2011 00000000 E8030000 64000000 02",
        "05 01 2011 65000000 E8030000 64000000 00",
        "05 01 2011 00000000 63000000 64000000 00",
    ] {
        assert_eq!(mac(&mut card.clone(), 0xCC, wrong), "919E", "{wrong}");
    }
    assert_eq!(mac(&mut card.clone(), 0xCC, "05 01 2011 00000000 64000000 00"), "917E");
    send(&mut card, 0x5A, AID);
    assert_eq!(log_in(&mut card, 0x71, number, [0; 16]), "9100");
    card
}

/// What the last transaction with a debit took, once, and no more (MF3ICDx1 data sheet, LimitedCredit).
#[test]
fn a_limited_credit_gives_back_the_last_debit_once() {
    let mut card = with_limited_credit(1);
    let settings = "02012011 00000000 E8030000 LIMIT000000 01 9100".replace(' ', "");
    let limit = |card: &mut Desfire, is: &str| {
        assert_eq!(mac(card, 0xF5, "04"), settings.replace("LIMIT", is));
    };
    limit(&mut card, "00");
    assert_eq!(mac(&mut card.clone(), 0x1C, "04 01000000"), "91BE", "nothing was taken");
    assert_eq!(mac(&mut card, 0xDC, "04 1E000000"), "9100");
    assert_eq!(mac(&mut card.clone(), 0x1C, "04 01000000"), "91BE", "not committed");
    assert_eq!(mac(&mut card, 0xDC, "04 02000000"), "9100");
    assert_eq!(mac(&mut card, 0xC7, ""), "9100");
    limit(&mut card, "20");
    assert_eq!(mac(&mut card.clone(), 0x0C, "04 01000000"), "91AE", "key 1 has no Credit");
    assert_eq!(mac(&mut card.clone(), 0x1C, "04 21000000"), "91BE");
    assert_eq!(mac(&mut card.clone(), 0x1C, "04 FFFFFFFF"), "919E");
    assert_eq!(mac(&mut card, 0x1C, "04 05000000"), "9100");
    assert_eq!(mac(&mut card.clone(), 0x1C, "04 01000000"), "91BE", "twice");
    let mut aborted = card.clone();
    assert_eq!(mac(&mut aborted, 0xA7, ""), "9100");
    limit(&mut aborted, "20");
    assert_eq!(mac(&mut card, 0xC7, ""), "9100");
    limit(&mut card, "00");
    assert_eq!(mac(&mut card, 0x6C, "04"), "490000009100");
    assert_eq!(mac(&mut card, 0x1C, "04 01000000"), "91BE");
    // Where it is off, not even who may everything.
    assert_eq!(mac(&mut with_key(2), 0x1C, "03 01000000"), "919D");
}

#[test]
fn long_bodies_come_in_frames() {
    let mut card = with_key(2);
    let data = "5A".repeat(64);
    let body = hex::decode(format!("02000000400000{data}")).unwrap();
    let seal = card.channel.as_ref().unwrap().mac_of(0x3D, &body);
    let sealed = [body, seal].concat();
    assert_eq!(send(&mut card.clone(), 0x3D, &hex::encode(&sealed)), "917E", "more than a frame holds");
    assert_eq!(send(&mut card, 0x3D, &hex::encode(&sealed[..50])), "91AF");
    assert_eq!(send(&mut card.clone(), 0xAF, &hex::encode([&sealed[50..], &[0]].concat())), "917E");
    assert!(send(&mut card, 0xAF, &hex::encode(&sealed[50..])).ends_with("9100"));
    assert_eq!(mac(&mut card, 0xC7, ""), "9100");
    let bytes = hex::decode("02000000400000").unwrap();
    let seal = card.channel.as_ref().unwrap().mac_of(0xBD, &bytes);
    let first = send(&mut card, 0xBD, &hex::encode([bytes, seal].concat()));
    assert_eq!(first, format!("{}91AF", "5A".repeat(59)));
    assert!(send(&mut card, 0xAF, "").starts_with("5A5A5A5A5A"));
}

#[test]
fn a_later_login_keeps_name_and_counter() {
    let mut card = with_key(1);
    mac(&mut card, 0xBD, "02 000000 040000");
    assert_eq!(log_in(&mut card, 0x77, 2, [0; 16]), "9100");
    assert_eq!(mac(&mut card, 0x3D, "02 000000 010000 55"), "9100");
    assert_eq!(mac(&mut card, 0xC7, ""), "9100");
}

/// With the chain that an EV1 begins at its challenge.
fn log_in_to_ev1(card: &mut Desfire, number: u8, key: Block) -> String {
    let challenge = hex::decode(send(card, 0xAA, &format!("{number:02X}"))).unwrap();
    let Some(challenge) = challenge.strip_suffix(&[0x91, 0xAF]) else { return hex::encode_upper(challenge) };
    let theirs = decrypt(&key, [0; 16], challenge);
    let both = [[0x33; 16].as_slice(), &theirs[1..], &theirs[..1]].concat();
    let proof = encrypt(&key, challenge.try_into().unwrap(), &both);
    let answer = send(card, MORE, &hex::encode(proof));
    answer[answer.len() - 4..].to_owned()
}

fn ev1() -> Desfire {
    let mut card = Desfire::ev1_as_delivered(&[0x04, 0xA1, 0xB2, 0xC3, 0xD4, 0x5E, 0x80]);
    assert_eq!(send(&mut card, 0xCA, &format!("{AID} 0B 83")), "9100");
    assert_eq!(send(&mut card, 0x5A, AID), "9100");
    card
}

#[test]
fn an_ev1_knows_its_own_login_alone() {
    assert_eq!(send(&mut ev1(), 0x71, "00 00"), "911C");
    assert_eq!(send(&mut ev1(), 0x77, "00"), "911C");
    assert_eq!(send(&mut prepared(), 0xAA, "00"), "911C");
    assert_eq!(send(&mut ev1(), 0xAA, "05"), "9140");
    let mut card = ev1();
    assert_eq!(log_in_to_ev1(&mut card, 0, [7; 16]), "91AE");
    assert_eq!(card.failed_logins(), 1);
    assert!(!card.has_session());
    assert_eq!(log_in_to_ev1(&mut card, 0, [0; 16]), "9100");
}

#[test]
fn an_ev1_wants_a_mac_of_what_is_written_alone() {
    let mut card = ev1();
    log_in_to_ev1(&mut card, 0, [0; 16]);
    // A MAC behind the data of every answer.
    assert_eq!(send(&mut card, 0xCD, "01 01 F0E2 100000").len(), 16 + 4);
    assert_eq!(send(&mut card, 0xCB, "02 03 201F 400000").len(), 16 + 4);
    let files = send(&mut card, 0x6F, "");
    assert!(files.starts_with("0102") && files.len() == 4 + 16 + 4, "{files}");
    assert_eq!(log_in_to_ev1(&mut card, 2, [0; 16]), "9100");
    let write = "01 000000 020000 BEEF";
    assert_eq!(send(&mut card.clone(), 0x3D, write), "91AF", "its MAC is missing");
    assert_eq!(send(&mut card.clone(), 0x3D, &format!("{write} 0011223344556677")), "911E");
    assert_eq!(send(&mut card.clone(), 0x3D, &format!("02 000000 020000 {}", "5A".repeat(16))), "911E");
    assert_eq!(send(&mut card.clone(), 0x3D, "02 000000 020000 BEEF 00"), "91AF");
    let read = send(&mut card, 0xBD, "02 000000 0C0000");
    assert_eq!(read.len(), 32 + 4, "12 bytes and their CRC, enciphered");
    assert_ne!(send(&mut card.clone(), 0xBD, "02 000000 0C0000"), read, "one chain");
    assert_eq!(send(&mut card, 0xC4, &format!("02 {}", "00".repeat(32))), "911E", "no CRC");
}
