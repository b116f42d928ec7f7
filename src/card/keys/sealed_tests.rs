//! The sealed store against values computed by another program (OpenSSL's AES, the
//! rest by hand), and what it refuses.

use super::*;
use crate::card::crypto::unhex;

const RECORD: &str = "2B7E151628AED2A6ABF7158809CF4F3C";
const DEBIT: &str = "603DEB1015CA71BE2B73AEF0857D7781";
const CREDIT: &str = "8E73B0F7DA0E6452C810F32B809079E5";
const MANAGE: &str = "9A2B4C6D8E0F1325476988ABCDEF0142";
const SUN: &str = "1F352C073B6108D72D9810A30914DFF4";
const MAINTAIN: &str = "11223344556677888877665544332211";

fn store() -> StoreId {
    StoreId::new("SH-0042").unwrap()
}

fn keys() -> SealedKeys {
    let masters = [
        (Purpose::Record, RECORD),
        (Purpose::Debit, DEBIT),
        (Purpose::Credit, CREDIT),
        (Purpose::Manage, MANAGE),
        (Purpose::Sun, SUN),
        (Purpose::CpuMaintain, MAINTAIN),
    ];
    let masters = masters.map(|(purpose, key)| ((KeyVersion(1), purpose), Zeroizing::new(unhex(key))));
    SealedKeys::new(store(), KeyVersion(1), masters.into())
}

fn uid(text: &str) -> CardUid {
    CardUid::new(text).unwrap()
}

fn sent(command: &Command) -> String {
    hex::encode_upper(command.to_bytes())
}

/// What a login's cipher does to zeros: equal keys, equal answers.
fn shows(login: &Result<ev2::Login, KeyError>) -> AesKey {
    login.as_ref().unwrap().key().clone()
}

#[test]
fn the_key_of_a_card_is_the_documented_one() {
    let (keys, store) = (keys(), store());
    let (short, long) = (uid("04A1B2C3"), uid("04DE5F1EACC040"));
    let short = CardRef { uid: &short, store: &store, version: KeyVersion(1) };
    let long = CardRef { uid: &long, store: &store, version: KeyVersion(1) };

    let mac = keys.record_mac(long, b"member record").unwrap();
    assert_eq!(hex::encode_upper(mac), "BF7EF0FCD7331E31");

    let a = keys.classic_login(short, KeyRole::Debit, 6).unwrap();
    assert_eq!(sent(&a.load), "FF82000006157050336167");
    assert_eq!(sent(&a.authenticate), "FF860000050100066000");
    let b = keys.classic_login(short, KeyRole::Credit, 4).unwrap();
    assert_eq!(sent(&b.load), "FF82000006ED546B47FEA0");
    assert_eq!(sent(&b.authenticate), "FF860000050100046100");
    let last = keys.classic_login(short, KeyRole::Debit, 255).unwrap();
    assert_eq!(sent(&last.load), "FF82000006C7D5846DFCD4", "sector 39");
    let trailer = keys.classic_trailer(short, 1, [0x78, 0x77, 0x88, 0x00]).unwrap();
    assert_eq!(sent(&trailer), "FFD600071015705033616778778800ED546B47FEA0");

    let tag = keys.tag_login(long).unwrap();
    assert_eq!(sent(&tag.through_pn53x()), "FF00000007D4421BB05E7D8D");
    assert!(tag.is_answered_by(&[0x9D, 0x16]));
    for wrong in [&[0x9D, 0x17][..], &[0x9D], &[], &[0x9D, 0x16, 0x00]] {
        assert!(!tag.is_answered_by(wrong), "{wrong:?}");
    }
    let [password, pack] = keys.tag_password(long, 0xE5).unwrap();
    assert_eq!((sent(&password), sent(&pack)), ("FFD600E504B05E7D8D".into(), "FFD600E6049D160000".into()));

    let pages = keys.ultralight_c_key(long).unwrap().map(|page| sent(&page));
    assert_eq!(
        pages,
        ["FFD6002C045F260DA3", "FFD6002D04CBAB66A0", "FFD6002E04232C6062", "FFD6002F04949E5F3F"],
        "each half backwards"
    );

    assert_eq!(sent(&keys.psc(short, 3).unwrap()), "FF2000000317DD11");
    assert_eq!(sent(&keys.psc_change(short).unwrap()), "FFD200010317DD11");

    assert_eq!(
        *shows(&keys.ev2_login(long, KeyRole::Debit, 3)).expose(),
        unhex("0FD7D3C0F8C7633F76C661FCAFCEF91B")
    );
    assert_eq!(
        *shows(&keys.ev2_login(long, KeyRole::SunMeta, 1)).expose(),
        unhex("A6187734AEEC5CA40F813514F26035A6")
    );
    assert_eq!(
        *shows(&keys.ev2_login(long, KeyRole::SunFile, 2)).expose(),
        unhex("CF49F7FD050A3839017D1CD6B0BCBAA0")
    );
}

#[test]
fn an_address_of_ours_is_read_and_no_other() {
    let (keys, store) = (keys(), store());
    let picc = unhex("B43C4018DE7428BC60F20F63FCE78314");
    let mac = unhex("35EC7CA836859AC6");
    let version = KeyVersion(1);
    let reading = keys.sun_reading(&store, version, &picc, b"", &mac).unwrap().unwrap();
    assert_eq!(reading, sun::Reading { uid: unhex("04DE5F1EACC040"), counter: 61 });
    for bit in 0..64 {
        let mut wrong: [u8; 8] = mac;
        wrong[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(keys.sun_reading(&store, version, &picc, b"", &wrong), Ok(None));
    }
    // An address of AN12196, made with keys of zeros.
    let foreign = unhex("EF963FF7828658A599F3041510671E88");
    assert_eq!(keys.sun_reading(&store, version, &foreign, b"", &unhex("94EED9EE65337086")), Ok(None));
}

#[test]
fn no_two_uses_share_a_key() {
    let (keys, store) = (keys(), store());
    let uids = [uid("04A1B2C3"), uid("04A1B2C300"), uid("04A1B2C4")];
    let mut seen = std::collections::BTreeSet::new();
    let mut count = 0;
    for uid in &uids {
        let card = CardRef { uid, store: &store, version: KeyVersion(1) };
        for used in
            [Use::Record, Use::Classic, Use::Password, Use::UltralightC, Use::Ev2, Use::SunFile, Use::Psc]
        {
            for place in [0, 1, 39] {
                for purpose in
                    [Purpose::Record, Purpose::Debit, Purpose::Credit, Purpose::Manage, Purpose::Sun]
                {
                    seen.insert(*keys.key(card, purpose, used, place).unwrap().expose());
                    count += 1;
                }
            }
        }
    }
    assert_eq!(seen.len(), count);
}

#[test]
fn another_stores_keys_are_others_even_from_the_same_master() {
    let elsewhere = StoreId::new("SH-0043").unwrap();
    let masters = [((KeyVersion(1), Purpose::Record), Zeroizing::new(unhex(RECORD)))].into();
    let other = SealedKeys::new(elsewhere.clone(), KeyVersion(1), masters);
    let (own, uid) = (store(), uid("04A1B2C3"));
    let card = |store| CardRef { uid: &uid, store, version: KeyVersion(1) };
    assert_ne!(
        other.record_mac(card(&elsewhere), b"x").unwrap(),
        keys().record_mac(card(&own), b"x").unwrap()
    );
    assert_eq!(
        keys().record_mac(card(&elsewhere), b"x"),
        Err(KeyError::OtherStore { issuer: elsewhere.clone(), own: own.clone() })
    );
    // Where the credential names it, its cards are opened with its keys, and ours stay ours.
    let both = keys().with_store(
        elsewhere.clone(),
        [((KeyVersion(1), Purpose::Record), Zeroizing::new(unhex(DEBIT)))].into(),
    );
    let theirs = SealedKeys::new(
        elsewhere.clone(),
        KeyVersion(1),
        [((KeyVersion(1), Purpose::Record), Zeroizing::new(unhex(DEBIT)))].into(),
    );
    assert_eq!(both.record_mac(card(&elsewhere), b"x"), theirs.record_mac(card(&elsewhere), b"x"));
    assert_eq!(both.record_mac(card(&own), b"x"), keys().record_mac(card(&own), b"x"));
    let own_again = keys().with_store(own.clone(), BTreeMap::new());
    assert_eq!(own_again.record_mac(card(&own), b"x"), keys().record_mac(card(&own), b"x"), "never replaced");
}

#[test]
fn a_version_that_is_not_held_is_told_and_none_is_tried() {
    let (keys, store, uid) = (keys(), store(), uid("04A1B2C3"));
    let card = CardRef { uid: &uid, store: &store, version: KeyVersion(2) };
    let missing = |purpose| KeyError::Missing { version: KeyVersion(2), purpose };
    assert_eq!(keys.record_mac(card, b"x"), Err(missing(Purpose::Record)));
    assert_eq!(keys.record_is_genuine(card, b"x", &[0; 8]), Err(missing(Purpose::Record)));
    assert_eq!(keys.classic_login(card, KeyRole::Credit, 4), Err(missing(Purpose::Credit)));
    assert_eq!(keys.classic_trailer(card, 1, [0x78, 0x77, 0x88, 0x00]), Err(missing(Purpose::Debit)));
    assert_eq!(keys.tag_login(card).err(), Some(missing(Purpose::Debit)));
    assert_eq!(keys.ultralight_c_login(card).err(), Some(missing(Purpose::Debit)));
    assert_eq!(keys.ev2_login(card, KeyRole::Manage, 0).err(), Some(missing(Purpose::Manage)));
    assert_eq!(keys.psc(card, 3), Err(missing(Purpose::Debit)));
    assert_eq!(keys.sun_reading(&store, KeyVersion(2), &[0; 16], b"", &[0; 8]), Err(missing(Purpose::Sun)));
    assert_eq!(
        keys.external_authentication(&store, &[0; 8], KeyVersion(2), 0, &[0; 8]),
        Err(missing(Purpose::CpuMaintain))
    );
    let told = missing(Purpose::Record).to_string();
    assert!(told.contains("credential `card-keys`") && told.contains("version 2"), "{told}");
}

#[test]
fn what_would_lock_a_card_is_refused() {
    let (keys, store, uid) = (keys(), store(), uid("04A1B2C3"));
    let card = CardRef { uid: &uid, store: &store, version: KeyVersion(1) };
    for left in [0, 1] {
        assert_eq!(keys.psc(card, left), Err(KeyError::TooFewTries { left }));
    }
    assert!(keys.psc(card, 2).is_ok());
    let good = [0x78, 0x77, 0x88, 0x00];
    assert!(keys.classic_trailer(card, 39, good).is_ok());
    assert_eq!(keys.classic_trailer(card, 40, good), Err(KeyError::NoSuchKey));
    assert_eq!(keys.classic_login(card, KeyRole::Manage, 0), Err(KeyError::NoSuchKey));
    for bit in 0..24 {
        let mut access = good;
        access[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(keys.classic_trailer(card, 1, access), Err(KeyError::AccessBits), "bit {bit}");
    }
    for whole in [[0x00, 0xF0, 0xFF, 0x00], [0xFF, 0x07, 0x80, 0x69], [0x7F, 0x07, 0x88, 0x00]] {
        assert_eq!(keys.classic_trailer(card, 1, whole), Err(KeyError::AccessBits), "{whole:02X?}");
    }
}

#[test]
fn a_challenge_is_answered_with_the_dispersed_key() {
    let (keys, store) = (keys(), store());
    let (serial, challenge) = (unhex("1122334455667788"), unhex("A1B2C3D400000000"));
    let command = keys.external_authentication(&store, &serial, KeyVersion(1), 0x01, &challenge).unwrap();
    // By OpenSSL: des-ede of the challenge under the dispersed key.
    assert_eq!(sent(&command), "00820001085758D7EC13E80A91");
}

#[test]
fn trailers_are_where_sectors_end() {
    for block in 0..=u8::MAX {
        let trailer = trailer_of(sector_of(block)).unwrap();
        assert!(trailer >= block && sector_of(trailer) == sector_of(block), "{block}");
        assert!(trailer.checked_add(1).is_none_or(|next| sector_of(next) > sector_of(block)), "{block}");
    }
}

proptest::proptest! {
    #![proptest_config(crate::seed::cases(128))]

    #[test]
    fn a_record_changed_by_one_bit_is_refused(mut record in proptest::collection::vec(0u8.., 1..200), at: usize) {
        let (keys, store, uid) = (keys(), store(), uid("04DE5F1EACC040"));
        let card = CardRef { uid: &uid, store: &store, version: KeyVersion(1) };
        let mac = keys.record_mac(card, &record).unwrap();
        assert!(keys.record_is_genuine(card, &record, &mac).unwrap());
        let mut wrong = mac;
        wrong[at % 64 / 8] ^= 1 << (at % 8);
        assert!(!keys.record_is_genuine(card, &record, &wrong).unwrap());
        let bit = at % (8 * record.len());
        record[bit / 8] ^= 1 << (bit % 8);
        assert!(!keys.record_is_genuine(card, &record, &mac).unwrap());
        let other = CardUid::new("04DE5F1EACC041").unwrap();
        record[bit / 8] ^= 1 << (bit % 8);
        assert!(!keys.record_is_genuine(CardRef { uid: &other, ..card }, &record, &mac).unwrap(), "on another card");
    }
}
