//! What a PSAM is asked, byte for byte, and what may go wrong. That the two agree
//! with a card is `tests/card_psam.rs`.

use std::collections::VecDeque;

use super::*;
use crate::card::crypto::unhex;
use crate::card::keys::purse::tests::purchase;
use crate::ident::StoreId;

/// Answers with what was laid ready; says what it was asked.
#[derive(Debug, Default)]
struct Scripted {
    answers: VecDeque<&'static str>,
    asked: Vec<String>,
}

impl Scripted {
    fn new(answers: &[&'static str]) -> Self {
        Self { answers: answers.iter().copied().collect(), asked: Vec::new() }
    }
}

impl Channel for Scripted {
    fn transmit(&mut self, command: &Command) -> Result<Response, ChannelError> {
        self.asked.push(hex::encode_upper(command.to_bytes()));
        let answer = self.answers.pop_front().ok_or(ChannelError)?;
        Ok(Response::parse(&hex::decode(answer).unwrap()).unwrap())
    }
}

#[test]
fn what_it_is_asked_byte_for_byte() {
    let script = ["0011223344559000", "9000", "6108", "0000002AA1B2C3D49000", "9302"];
    let mut psam = Psam::open(Scripted::new(&script), [0x10, 0x01]).unwrap();
    let store = StoreId::new("SH-0042").unwrap();
    let approval = psam.approve(&purchase(&store)).unwrap();
    assert_eq!((approval.terminal_sequence, approval.mac1), (42, unhex("A1B2C3D4")));
    assert!(!psam.confirm(&approval, &unhex("01020304")).unwrap());
    assert_eq!(
        psam.channel.asked,
        [
            "00B0960006",
            "00A40000021001",
            "807000001C112233440007000004D20620261122101530010011223344556677 8808".replace(' ', "").as_str(),
            "00C0000008",
            "807200000401020304",
        ]
    );
}

#[test]
fn only_the_purchase_that_is_open_is_confirmed_and_once() {
    let script = ["0011223344559000", "9000", "0000002AA1B2C3D49000", "0000002BA1B2C3D49000", "9000"];
    let mut psam = Psam::open(Scripted::new(&script), [0x10, 0x01]).unwrap();
    let store = StoreId::new("SH-0042").unwrap();
    let stale = psam.approve(&purchase(&store)).unwrap();
    let open = psam.approve(&purchase(&store)).unwrap();
    assert_eq!((stale.terminal_sequence, open.terminal_sequence), (42, 43));
    let mac2 = unhex("01020304");
    let refused = KeyError::Superseded;
    assert_eq!(psam.confirm(&stale, &mac2), Err(refused.clone()));
    assert_eq!(psam.channel.asked.len(), 4, "the SAM was not asked");
    assert_eq!(psam.confirm(&open, &mac2), Ok(true));
    assert_eq!(psam.confirm(&open, &mac2), Err(refused));
}

/// Opened anew it may still wait for the answer to its last purchase, as long as it was asked for no
/// other.
#[test]
fn a_purchase_is_resumed_on_a_terminal_that_was_opened_anew() {
    let store = StoreId::new("SH-0042").unwrap();
    let (opened, mac2) = (["0011223344559000", "9000"], unhex("01020304"));
    let last = Approval { terminal_sequence: 41, mac1: [0; 4], session: None };
    for (answers, is_asked_before) in [(&["9000"][..], false), (&["0000002AA1B2C3D49000"], true)] {
        let mut psam = Psam::open(Scripted::new(&[&opened[..], answers].concat()), [0x10, 0x01]).unwrap();
        if is_asked_before {
            psam.approve(&purchase(&store)).unwrap();
        }
        psam.resume(&last);
        let expected = if is_asked_before { Err(KeyError::Superseded) } else { Ok(true) };
        assert_eq!(psam.confirm(&last, &mac2), expected);
        assert_eq!(psam.channel.asked.len(), 3, "{:?}", psam.channel.asked);
        psam.resume(&last);
        assert_eq!(psam.confirm(&last, &mac2), Err(KeyError::Superseded), "once");
    }
}

#[test]
fn what_goes_wrong_is_told() {
    let store = StoreId::new("SH-0042").unwrap();
    for script in [&[][..], &["6A82"], &["00119000"], &["0011223344559000", "6A82"], &["0011223344559000"]] {
        let error = Psam::open(Scripted::new(script), [0x10, 0x01]).unwrap_err();
        assert!(matches!(error, KeyError::Sam { .. }), "{script:?}: {error}");
    }
    for (answer, status) in [(&["9403"][..], Some(0x9403)), (&["0000002A9000"], Some(0x9000)), (&[], None)] {
        let script = [&["0011223344559000", "9000"], answer].concat();
        let mut psam = Psam::open(Scripted::new(&script), [0x10, 0x01]).unwrap();
        let error = psam.approve(&purchase(&store)).unwrap_err();
        assert_eq!(error, KeyError::Sam { what: "its approval", status }, "{answer:?}");
    }
}
