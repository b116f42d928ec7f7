//! Tests of the module beside it.

use super::*;

fn ask(chip: &mut Chip, apdu: &str) -> String {
    hex::encode_upper(chip.apdu(&hex::decode(apdu).unwrap()))
}

#[test]
fn cards_answer_as_their_datasheets_say() {
    use Technology::{Classic1k, Cpu, Desfire, DesfireEv1, Ntag215, UltralightEv1};
    for (technology, apdu, expected) in [
        (Ntag215, "FFCA000000", "04A1B2C3D45E809000"),
        (Ntag215, "FFCA000007", "04A1B2C3D45E809000"),
        (Ntag215, "FFCA000004", "6C07"),
        (Ntag215, "FFCA010000", "6A81"),
        // UID, BCC0 = 88^04^A1^B2, BCC1, lock, capability container of 504 bytes.
        (Ntag215, "FFB0000010", "04A1B29FC3D45E80C9480000E1103E009000"),
        (Ntag215, "FFB0000304", "E1103E009000"),
        (Ntag215, "FFB0008704", "6300"),
        (Ntag215, "FF00000003D44260", "6A81"),
        (UltralightEv1, "FFB0000304", "000000009000"),
        (Classic1k, "FFB0000410", "6300"),
        (Classic1k, "FF820000", "6300"),
        (Classic1k, "00A4040000", "6D00"),
        (Classic1k, "FF00480000", "6A81"),
        (Desfire, "FFCA010000", "067577810280" /* ATS of every DESFire */),
        (Desfire, "9060000000", "0401011200180591AF"),
        (DesfireEv1, "9060000000", "0401010100180591AF"),
        (Desfire, "905A00000301020300", "91A0"),
        (Cpu, "0084000003", "6700"),
        (Cpu, "00A40000023F00", "6F10840E315041592E5359532E44444630319000"),
        (Cpu, "00B2010C00", "6D00"),
        (Cpu, "0084", "6700"),
    ] {
        let got = ask(&mut Chip::new(CardProfile::new(technology)), apdu);
        let expected = if apdu == "FFCA010000" && technology == Desfire {
            format!("{expected}9000")
        } else {
            expected.to_owned()
        };
        assert_eq!(got, expected, "{technology:?} {apdu}");
    }
}

#[test]
fn a_classic_card_opens_one_sector_and_halts_on_a_wrong_key() {
    let mut chip = Chip::new(CardProfile::new(Technology::Classic1k));
    assert_eq!(ask(&mut chip, "FF82000006FFFFFFFFFFFF"), "9000");
    assert_eq!(ask(&mut chip, "FF860000050100046000"), "9000");
    assert_eq!(ask(&mut chip, "FFD6000410000102030405060708090A0B0C0D0E0F"), "9000");
    assert_eq!(ask(&mut chip, "FFB0000410"), "000102030405060708090A0B0C0D0E0F9000");
    assert_eq!(ask(&mut chip, "FFB0000710"), "000000000000FF078069FFFFFFFFFFFF9000");
    assert_eq!(ask(&mut chip, "FFB0000810"), "6300");
    assert_eq!(ask(&mut chip, "FF82000106A0A1A2A3A4A5"), "9000");
    assert_eq!(ask(&mut chip, "FF860000050100046001"), "6300");
    assert_eq!(ask(&mut chip, "FF860000050100046000"), "6300", "halted");
    chip.reset();
    assert_eq!(ask(&mut chip, "FF860000050100046000"), "9000");
    assert_eq!(ask(&mut chip, "FF8800006000"), "9000");
    assert_eq!(ask(&mut chip, "FFB0000010"), "3A91C45E3108040000000000000000009000");
    assert_eq!(ask(&mut chip, "FFD6000010000102030405060708090A0B0C0D0E0F"), "6300", "maker's block");
}

#[test]
fn lock_bits_are_only_set_and_can_be_frozen() {
    let mut chip = Chip::new(CardProfile::new(Technology::Ntag213));
    let mut script = |apdu: &str, expected: &str| {
        chip.reset();
        assert_eq!(ask(&mut chip, apdu), expected, "{apdu}");
    };
    script("FFD6000204AABB1000", "9000");
    script("FFB0000204", "C94810009000");
    script("FFD600040401020304", "6300");
    script("FFD600050401020304", "9000");
    script("FFD600020400000700", "9000");
    script("FFD60002040000FFFF", "9000");
    script("FFB0000204", "C94817009000");
    script("FFD600080401020304", "9000");
    script("FFD600030400000080", "9000");
    script("FFB0000304", "E11012809000");
    script("FFD600010401020304", "6300");
}

#[test]
fn versions_come_through_a_reader_that_passes_them() {
    let mut profile = CardProfile::new(Technology::Ntag216);
    profile.direct_transmit = true;
    assert_eq!(ask(&mut Chip::new(profile), "FF00000003D44260"), "D5430000040402010013039000");
    let mut profile = CardProfile::new(Technology::Classic1k);
    profile.direct_transmit = true;
    assert_eq!(ask(&mut Chip::new(profile), "FF00000003D44260"), "D543019000");
}

#[test]
fn a_desfire_tells_its_version_in_three_frames() {
    let mut chip = Chip::new(CardProfile::new(Technology::Desfire));
    assert!(ask(&mut chip, "9060000000").ends_with("91AF"));
    assert!(ask(&mut chip, "90AF000000").ends_with("91AF"));
    assert_eq!(ask(&mut chip, "90AF000000"), "04A1B2C3D45E80CF39D4498034209100");
    assert_eq!(ask(&mut chip, "90AF000000"), "91CA");
}

proptest::proptest! {
    #![proptest_config(crate::seed::cases(256))]

    #[test]
    fn any_apdu_gets_a_status(
        apdus in proptest::collection::vec(proptest::collection::vec(proptest::num::u8::ANY, 0..40), 1..20),
        ours in proptest::collection::vec((0xB0_u8..=0xD6, proptest::num::u8::ANY, proptest::num::u8::ANY, 0_u8..20), 1..20),
    ) {
        for technology in [
            Technology::Classic4k,
            Technology::Ntag216,
            Technology::Desfire,
            Technology::DesfireEv1,
            Technology::Ntag424,
            Technology::Bank,
        ] {
            let mut chip = Chip::new(CardProfile::new(technology));
            let plain = ours.iter().map(|(ins, p1, p2, le)| vec![0xFF, *ins, *p1, *p2, *le]);
            for apdu in apdus.iter().cloned().chain(plain) {
                let answer = chip.apdu(&apdu);
                proptest::prop_assert!((2..=258).contains(&answer.len()));
            }
        }
    }
}
