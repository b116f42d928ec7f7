//! No key in sight: everything a key store can be asked is asked, with every log
//! level on, and no log line and no `Debug` holds a byte of a key.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/log.rs"]
mod log;
#[path = "support/secrets.rs"]
mod secrets;

use baygate::card::crypto::aes128::AesKey;
use baygate::card::crypto::pboc::Moment;
use baygate::card::crypto::{ev1, ev2};
use baygate::card::keys::purse::{Opening, Purchase, SealedTerminal};
use baygate::card::keys::{CardRef, Earlier, KeyRole, KeyStore, KeyVersion, PurseKeys, credential};
use baygate::config::credentials::Credentials;
use baygate::ident::{CardUid, StoreId};
use log::Log;
use secrets::Secrets;

const MASTERS: [(&str, &str); 7] = [
    ("record", "2B7E151628AED2A6ABF7158809CF4F3C"),
    ("debit", "603DEB1015CA71BE2B73AEF0857D7781"),
    ("credit", "8E73B0F7DA0E6452C810F32B809079E5"),
    ("manage", "9A2B4C6D8E0F1325476988ABCDEF0142"),
    ("sun", "1F352C073B6108D72D9810A30914DFF4"),
    ("cpu-purchase", "4FC120937A5ED806B23C9164EF1875AD"),
    ("cpu-maintain", "B7C9D1E3F5071929AB4D6F8192A3B4C5"),
];

/// Keys of the card that is asked for, as the sealed store's own tests have them
/// (docs/card-keys.md): what is derived is secret, too.
const DERIVED: [(KeyRole, u8, &str); 3] = [
    (KeyRole::Debit, 3, "0FD7D3C0F8C7633F76C661FCAFCEF91B"),
    (KeyRole::SunMeta, 1, "A6187734AEEC5CA40F813514F26035A6"),
    (KeyRole::SunFile, 2, "CF49F7FD050A3839017D1CD6B0BCBAA0"),
];

#[test]
fn a_leak_would_be_found_in_every_form() {
    let key = hex::decode("2B7E151628AED2A6ABF7158809CF4F3C").unwrap();
    let mut secrets = Secrets::default();
    secrets.add("key", &key);
    let base64 = |before: &str| {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode([before.as_bytes(), &key].concat())
    };
    let leaks: Vec<Vec<u8>> = vec![
        [b"raw ".as_slice(), &key].concat(),
        hex::encode(&key).into_bytes(),
        hex::encode_upper(&key[..8]).into_bytes(),
        format!("{key:?}").into_bytes(),
        format!("{key:02x?}").into_bytes(),
        format!("{key:02X?}").into_bytes(),
        format!("{key:#04x?}").into_bytes(),
        format!("{key:#?}").into_bytes(),
        serde_json::to_string_pretty(&key).unwrap().into_bytes(),
        serde_json::to_vec(&key).unwrap(),
        base64("").into_bytes(),
        base64("a").into_bytes(),
        base64("ab").into_bytes(),
    ];
    for leak in leaks {
        assert!(!secrets.found_in(&leak).is_empty(), "{}", String::from_utf8_lossy(&leak));
    }
    assert_eq!(secrets.found_in(b"Command(FF820000 6 secret bytes)"), Vec::<String>::new());
}

#[test]
fn no_log_and_no_debug_shows_a_key() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let mut secrets = Secrets::default();
    tracing::subscriber::with_default(subscriber, || everything_asked(&mut secrets));

    let bytes = log.take();
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.contains("card keys loaded"), "the log is not listened to:\n{text}");
    assert!(text.contains("secret bytes"), "no command was shown:\n{text}");
    assert_eq!(secrets.found_in(&bytes), Vec::<String>::new(), "in this log:\n{text}");
}

/// Asks and shows everything; notes what must not be seen.
fn everything_asked(secrets: &mut Secrets) {
    let folder = tempfile::tempdir().unwrap();
    let mut file = "store SH-0042\ncurrent 1\n".to_owned();
    for (purpose, key) in MASTERS {
        file.push_str(&format!("1 {purpose} {key}\n"));
        secrets.add(format!("master key {purpose}"), &hex::decode(key).unwrap());
    }
    std::fs::write(folder.path().join("card-keys"), file).unwrap();
    let credentials = Credentials::new(Some(folder.path().to_owned()));
    let store = StoreId::new("SH-0042").unwrap();
    let secret = credentials.require("card-keys").unwrap();
    tracing::trace!(?credentials, ?secret, "credential");
    let keys = credential::load(&credentials, &store).unwrap().unwrap();
    tracing::trace!(?keys, "keys");

    let uid = CardUid::new("04DE5F1EACC040").unwrap();
    let card = CardRef { uid: &uid, store: &store, version: KeyVersion(1) };
    let older = CardRef { version: KeyVersion(9), ..card };
    let mac = keys.record_mac(card, b"record").unwrap();
    assert!(keys.record_is_genuine(card, b"record", &mac).unwrap());

    for (name, role) in [("classic key A", KeyRole::Debit), ("classic key B", KeyRole::Credit)] {
        let login = keys.classic_login(card, role, 4).unwrap();
        secrets.add(name, &login.load.to_bytes()[5..11]);
        tracing::trace!(?login, "login");
    }
    let trailer = keys.classic_trailer(card, 1, [0x78, 0x77, 0x88, 0x00]).unwrap();
    tracing::trace!(?trailer, "trailer");
    let tag = keys.tag_login(card).unwrap();
    let through = tag.through_pn53x();
    secrets.add("tag password", &through.to_bytes()[8..12]);
    tracing::trace!(?tag, ?through, pages = ?keys.tag_password(card, 0x2B).unwrap(), "tag");
    let pages = keys.ultralight_c_key(card).unwrap();
    for page in &pages {
        secrets.add("Ultralight C key", &page.to_bytes()[5..9]);
    }
    let login = keys.ultralight_c_login(card).unwrap();
    tracing::trace!(?pages, ?login, "Ultralight C");
    let (challenged, _) = login.challenged(&[7; 8]);
    tracing::trace!(?challenged, refused = ?keys.ultralight_c_login(older).unwrap_err(), "Ultralight C");

    for role in [KeyRole::Debit, KeyRole::Credit, KeyRole::Manage, KeyRole::SunMeta, KeyRole::SunFile] {
        let login = keys.ev2_login(card, role, 1).unwrap();
        tracing::trace!(?login, frame = ?login.frame(), "EV2");
        let (challenged, _) = login.challenged(&[7; 16]);
        tracing::trace!(?challenged, "EV2");
        tracing::trace!(refused = ?challenged.proven(&[9; 32]).unwrap_err(), "EV2");
    }
    for (role, number, key) in DERIVED {
        let key: [u8; 16] = hex::decode(key).unwrap().try_into().unwrap();
        secrets.add(format!("derived key {role:?}"), &key);
        let session = session(keys.ev2_login(card, role, number).unwrap(), &key);
        tracing::trace!(?session, "EV2");
        for (earlier, own) in [(Earlier::Factory, false), (Earlier::Ours(KeyVersion(1)), true)] {
            let frame = keys.ev2_key(&session, card, role, number, earlier, own).unwrap();
            tracing::trace!(frame = hex::encode(frame), "EV2 key");
        }
        let refused = keys.ev2_key(&session, older, role, number, Earlier::Factory, true).unwrap_err();
        tracing::trace!(?refused, login = ?keys.ev2_login_within(session, card, role, number).unwrap(), "EV2");
        let login = keys.ev1_login(card, role, number).unwrap();
        tracing::trace!(?login, frame = ?login.frame(), "EV1");
        let mut session = ev1_session(login, &key, secrets);
        tracing::trace!(?session, "EV1");
        for (earlier, own) in [(Earlier::Factory, false), (Earlier::Ours(KeyVersion(1)), true)] {
            let frame = keys.ev1_key(&mut session, card, role, number, earlier, own).unwrap();
            tracing::trace!(?session, frame = hex::encode(frame), "EV1 key");
        }
        let refused = keys.ev1_key(&mut session, older, role, number, Earlier::Factory, true).unwrap_err();
        tracing::trace!(?refused, "EV1");
    }
    let psc = keys.psc(card, 3).unwrap();
    secrets.add("PSC", &psc.to_bytes()[5..8]);
    tracing::trace!(?psc, change = ?keys.psc_change(card).unwrap(), "SLE4442");
    let address = keys.sun_reading(&store, KeyVersion(1), &[1; 16], b"", &[2; 8]).unwrap();
    tracing::trace!(?address, "SUN");
    let answer = keys.external_authentication(&store, &[3; 8], KeyVersion(1), 1, &[4; 8]).unwrap();
    tracing::trace!(?answer, "CPU card");

    let purchase = Purchase {
        store: &store,
        serial: [3; 8],
        opening: Opening::parse(&[0, 0, 0x27, 0x10, 0, 7, 0, 0, 0, 1, 0, 1, 2, 3, 4]),
        amount: 1234,
        moment: Moment { date: [0x20, 0x26, 0x11, 0x22], time: [0x10, 0x15, 0x30] },
    };
    let mut terminal = SealedTerminal::new(&keys, [0, 1, 2, 3, 4, 5], 1);
    let approval = terminal.approve(&purchase).unwrap();
    let confirmed = terminal.confirm(&approval, &[0; 4]).unwrap();
    tracing::trace!(?terminal, ?approval, confirmed, refused = ?terminal.load_mac2().unwrap_err(), "purse");

    // What went wrong is told, too, without a key.
    for (purpose, key) in MASTERS {
        let broken = format!("store SH-0042\ncurrent 1\n1 {purpose} {key}Z\n1 {key} {purpose}\n");
        let error = credential::parse(broken.as_bytes(), &store).unwrap_err();
        tracing::error!(%error, ?error, "credential");
    }
}

/// What a DESFire EV1 with that key makes of a login.
fn ev1_session(login: ev1::Login, key: &[u8; 16], secrets: &mut Secrets) -> ev1::Session {
    let key = AesKey::new(zeroize::Zeroizing::new(*key));
    let mut challenge = [[7; 16]];
    key.encrypt_chain(&[0; 16], &mut challenge);
    let (challenged, frame) = login.challenged(&challenge[0]);
    let mut proof: Vec<[u8; 16]> = frame[1..].as_chunks::<16>().0.to_vec();
    let last = proof[1];
    key.decrypt_chain(&challenge[0], &mut proof);
    let nonce = proof[0];
    secrets.add("EV1 session key", &[&nonce[..4], &[7; 4], &nonce[12..], &[7; 4]].concat());
    let mut answer = [nonce];
    answer[0].rotate_left(1);
    key.encrypt_chain(&last, &mut answer);
    tracing::trace!(?challenged, "EV1");
    challenged.proven(&answer[0]).unwrap()
}

/// What a card with that key makes of a login (NTAG 424 DNA data sheet rev. 3.0 §9.1.5).
fn session(login: ev2::Login, key: &[u8; 16]) -> ev2::Session {
    let key = AesKey::new(zeroize::Zeroizing::new(*key));
    let mut challenge = [[7; 16]];
    key.encrypt_chain(&[0; 16], &mut challenge);
    let (challenged, frame) = login.challenged(&challenge[0]);
    let mut proof = [<[u8; 16]>::try_from(&frame[1..17]).unwrap()];
    key.decrypt_chain(&[0; 16], &mut proof);
    let mut answer = [[0; 16]; 2];
    answer[0][..4].copy_from_slice(&[1, 2, 3, 4]);
    proof[0].rotate_left(1);
    answer.as_flattened_mut()[4..20].copy_from_slice(&proof[0]);
    key.encrypt_chain(&[0; 16], &mut answer);
    challenged.proven(answer.as_flattened()).unwrap()
}
