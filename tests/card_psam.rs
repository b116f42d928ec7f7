//! A purchase approved by a simulated PSAM and by a sealed credential with the same
//! key: both say the same to the card, and both recognise its answer. The simulator
//! does its sums by itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/pcscd.rs"]
mod pcscd;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use baygate::card::apdu::{Command, Response};
use baygate::card::crypto::pboc::{self, Moment};
use baygate::card::crypto::tdes::TripleDesKey;
use baygate::card::keys::psam::{Channel, ChannelError, Psam};
use baygate::card::keys::purse::{Opening, Purchase, SealedTerminal};
use baygate::card::keys::{KeyError, PurseKeys, credential};
use baygate::card::pcsc::open_sam;
use baygate::config::tables::ReaderGlobs;
use baygate::ident::StoreId;
use baygate::sim::card::psam::Psam as SimulatedPsam;
use baygate::sim::card::{CardSim, Chip};
use pcscd::Pcscd;

const KEY: &str = "4FC120937A5ED806B23C9164EF1875AD";
const TERMINAL: [u8; 6] = [0x00, 0x11, 0x22, 0x33, 0x44, 0x55];

/// A slot with the simulated SAM in it; it can be pulled.
#[derive(Debug, Clone)]
struct Slot(Arc<Mutex<Option<SimulatedPsam>>>);

impl Slot {
    fn new() -> Self {
        let key = hex::decode(KEY).unwrap().try_into().unwrap();
        Self(Arc::new(Mutex::new(Some(SimulatedPsam::new(key, 1, TERMINAL)))))
    }
}

impl Channel for Slot {
    fn transmit(&mut self, command: &Command) -> Result<Response, ChannelError> {
        let mut slot = self.0.lock().unwrap();
        let psam = slot.as_mut().ok_or(ChannelError)?;
        Response::parse(&psam.apdu(&command.to_bytes())).map_err(|_| ChannelError)
    }
}

fn purchase(store: &StoreId) -> Purchase<'_> {
    Purchase {
        store,
        serial: [0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88],
        opening: Opening::parse(&[0, 0, 0x27, 0x10, 0, 7, 0, 0, 0, 1, 0, 0x11, 0x22, 0x33, 0x44]),
        amount: 1234,
        moment: Moment { date: [0x20, 0x26, 0x11, 0x22], time: [0x10, 0x15, 0x30] },
    }
}

/// What the card answers, from its own key.
fn mac2(purchase: &Purchase<'_>, terminal_sequence: u32) -> [u8; 4] {
    let master = TripleDesKey::new(zeroize::Zeroizing::new(hex::decode(KEY).unwrap().try_into().unwrap()));
    let opening = purchase.opening;
    let key = master.disperse(&purchase.serial);
    let session = pboc::purchase_session(&key, opening.random, opening.offline_sequence, terminal_sequence);
    pboc::purchase_mac2(&session, purchase.amount)
}

#[test]
fn sam_and_credential_say_the_same_to_the_card() {
    let store = StoreId::new("SH-0042").unwrap();
    let file = format!("store SH-0042\ncurrent 1\n1 cpu-purchase {KEY}\n");
    let sealed = credential::parse(file.as_bytes(), &store).unwrap();
    let purchase = purchase(&store);
    let mut psam = Psam::open(Slot::new(), [0x10, 0x01]).unwrap();
    assert_eq!(psam.terminal(), TERMINAL);
    for sequence in 1..=3 {
        let mut terminal = SealedTerminal::new(&sealed, TERMINAL, sequence);
        let (of_sam, of_file) = (psam.approve(&purchase).unwrap(), terminal.approve(&purchase).unwrap());
        assert_eq!((of_sam.terminal_sequence, of_sam.mac1), (sequence, of_file.mac1));
        let mut answer = mac2(&purchase, sequence);
        assert!(terminal.confirm(&of_file, &answer).unwrap());
        if sequence == 2 {
            answer[0] ^= 0x80;
            assert!(!terminal.confirm(&of_file, &answer).unwrap());
        }
        assert_eq!(psam.confirm(&of_sam, &answer).unwrap(), sequence != 2);
    }
    assert_eq!(psam.load_mac2(), Err(KeyError::NeedsHeadquarters));
}

#[test]
fn a_sam_without_the_key_or_without_contact_is_told() {
    let store = StoreId::new("SH-0042").unwrap();
    let slot = Slot::new();
    let mut psam = Psam::open(slot.clone(), [0x10, 0x01]).unwrap();
    let mut other = purchase(&store);
    other.opening.key_version = baygate::card::keys::KeyVersion(2);
    let refused = psam.approve(&other).unwrap_err();
    assert!(refused.to_string().contains("9403"), "{refused}");
    let approval = psam.approve(&purchase(&store)).unwrap();
    assert_eq!(approval.terminal_sequence, 1, "a refusal counts nothing");
    *slot.0.lock().unwrap() = None;
    let pulled = psam.confirm(&approval, &[0; 4]).unwrap_err();
    assert!(pulled.to_string().contains("no answer"), "{pulled}");
    assert!(matches!(Psam::open(Slot::new(), [0x3F, 0x01]), Err(KeyError::Sam { status: Some(0x6A82), .. })));
}

/// The SAM in a slot of the real pcscd, opened as the gateway does; a CPU card's purchase is
/// approved by it, and the card's answer believed.
#[tokio::test(flavor = "multi_thread")]
async fn a_purchase_with_a_sam_in_a_slot_of_pcscd() {
    let Some(pcscd) = Pcscd::start() else { return };
    let key = hex::decode(KEY).unwrap().try_into().unwrap();
    let sam = Chip::sam(SimulatedPsam::new(key, 1, TERMINAL));
    let sam = CardSim::present(("127.0.0.1", pcscd.port + 1), sam).await.unwrap();
    let buy = move || {
        let globs = ReaderGlobs::default();
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut psam = loop {
            match open_sam("Virtual PCD 00 01", &globs, [0x10, 0x01]) {
                Ok(psam) => break psam,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            std::thread::yield_now();
        };
        let store = StoreId::new("SH-0042").unwrap();
        let purchase = purchase(&store);
        assert_eq!(psam.terminal(), TERMINAL);
        for (sequence, is_right) in [(1, true), (2, false), (3, true)] {
            let approval = psam.approve(&purchase).unwrap();
            assert_eq!(approval.terminal_sequence, sequence);
            let mut answer = mac2(&purchase, sequence);
            answer[3] ^= u8::from(!is_right);
            assert_eq!(psam.confirm(&approval, &answer).unwrap(), is_right);
        }
        // The same slot where a table of cards names it as exactly: not even asked.
        let cards = vec!["Virtual PCD 00 0?".to_owned()];
        let customers = ReaderGlobs { sams: vec!["Virtual PCD 00 0?".to_owned()], cards };
        assert!(matches!(open_sam("Virtual PCD 00 0?", &customers, [0x10, 0x01]), Err(KeyError::Sam { .. })));
        assert!(matches!(open_sam("No such slot*", &globs, [0x10, 0x01]), Err(KeyError::Sam { .. })));
    };
    tokio::task::spawn_blocking(buy).await.unwrap();
    assert_eq!(sam.chip().sam_state(), Some((3, 3)), "a right answer sets its count back");
    drop(sam);
}

/// A SAM locks itself when cards' answers are wrong three times in a row.
#[test]
fn a_sam_locks_itself() {
    let store = StoreId::new("SH-0042").unwrap();
    let mut psam = Psam::open(Slot::new(), [0x10, 0x01]).unwrap();
    for _ in 0..3 {
        let approval = psam.approve(&purchase(&store)).unwrap();
        assert!(!psam.confirm(&approval, &[0; 4]).unwrap());
    }
    let locked = psam.approve(&purchase(&store)).unwrap_err();
    assert!(locked.to_string().contains("9303"), "{locked}");
}
