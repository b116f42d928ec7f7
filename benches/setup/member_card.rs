//! A member card at the speed of the air: our simulated chip behind pcscd's virtual
//! reader, each answer as late as its bytes take at 106 kbit/s, and a tape of what was
//! said, to be played to the bare programs that are measured beside the daemon.

use std::collections::VecDeque;
use std::ffi::CString;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use baygate::sim::card::{CardProfile, Chip, Technology};
use pcsc::{Context, Disposition, Protocols, Scope, ShareMode};

use crate::vpcd_card::{Reply, TestCard};

/// A byte with its parity bit, at fc/128 (ISO/IEC 14443-3, 6.2.3.1 and 14443-2, 8.1.1).
const BYTE_US: f64 = 9.0 * 128.0 / 13.56;

/// What was sent and answered, in order.
pub type Tape = Vec<(Vec<u8>, Vec<u8>)>;

/// The card, and what was said to it.
#[derive(Clone)]
pub struct MemberCard {
    /// Answer to reset, in hex.
    atr: String,
    chip: Arc<Mutex<Chip>>,
    tape: Arc<Mutex<Tape>>,
}

impl MemberCard {
    /// As delivered.
    pub fn blank(technology: Technology) -> Self {
        let mut profile = CardProfile::new(technology);
        profile.direct_transmit = true;
        let atr = hex::encode_upper(profile.answer_to_reset());
        Self { atr, chip: Arc::new(Mutex::new(Chip::new(profile))), tape: Arc::default() }
    }

    /// Lays it on the reader.
    pub fn lay(&self, port: u16) -> TestCard {
        self.chip.lock().unwrap().reset();
        let (chip, tape) = (Arc::clone(&self.chip), Arc::clone(&self.tape));
        TestCard::insert(port, &self.atr, move |apdu| {
            let answer = chip.lock().unwrap().apdu(apdu);
            on_air(apdu, &answer);
            tape.lock().unwrap().push((apdu.to_vec(), answer.clone()));
            Reply::Bytes(answer)
        })
    }

    /// A card that gives the answers of the tape, as late.
    pub fn lay_tape(&self, port: u16, tape: &Tape) -> TestCard {
        let mut left: VecDeque<_> = tape.clone().into();
        TestCard::insert(port, &self.atr, move |apdu| {
            let (asked, answer) = left.pop_front().expect("no more is asked than by the daemon");
            assert_eq!(asked, apdu, "the same is asked as by the daemon");
            on_air(apdu, &answer);
            Reply::Bytes(answer)
        })
    }

    /// What was said since it was last asked.
    pub fn tape(&self) -> Tape {
        std::mem::take(&mut self.tape.lock().unwrap())
    }
}

/// The time that the bytes of both take: no less than the bytes themselves, and nothing for
/// the card's own work.
fn on_air(apdu: &[u8], answer: &[u8]) {
    let bytes = u32::try_from(apdu.len() + answer.len()).unwrap();
    let until = Instant::now() + Duration::from_nanos((f64::from(bytes) * BYTE_US * 1e3) as u64);
    if let Some(long) = until.checked_duration_since(Instant::now() + Duration::from_millis(1)) {
        std::thread::sleep(long);
    }
    // A sleep may be late by more than a byte takes.
    while Instant::now() < until {
        std::hint::spin_loop();
    }
}

/// A bare PC/SC program: connects when told to, then asks what the daemon asked.
pub fn ask(reader: &str, tape: &Tape) {
    let context = Context::establish(Scope::System).unwrap();
    let name = CString::new(reader).unwrap();
    let mut card = context.connect(&name, ShareMode::Shared, Protocols::ANY).unwrap();
    let transaction = card.transaction().unwrap();
    let mut buffer = [0; 300];
    for (apdu, _) in tape {
        transaction.transmit(apdu, &mut buffer).unwrap();
    }
    transaction.end(Disposition::LeaveCard).map_err(|(_, error)| error).unwrap();
    card.disconnect(Disposition::LeaveCard).map_err(|(_, error)| error).unwrap();
}
