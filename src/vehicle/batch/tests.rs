use proptest::prelude::*;

use super::*;
use crate::protocols::Bundle;

fn table() -> PidTable {
    Bundle::load(std::path::Path::new("firmware-protocols")).unwrap().pids
}

fn promises(of: &[(&str, &[u8])]) -> Promises {
    of.iter().map(|(ecu, pids)| (EcuAddress((*ecu).into()), pids.iter().copied().collect())).collect()
}

#[test]
fn answers_are_taken_apart_by_length() {
    let table = table();
    let payload = |hex: &str| hex::decode(hex.replace(' ', "")).unwrap();
    for (name, answer, asked, expected) in [
        // Source: facts, the answer to 0101030406070C3.
        (
            "in order",
            "41 01 0007E500 03 0100 04 00 06 80 07 7D 0C 0000",
            &[0x01, 0x03, 0x04, 0x06, 0x07, 0x0C][..],
            vec![(1, "0007E500"), (3, "0100"), (4, "00"), (6, "80"), (7, "7D"), (0x0C, "0000")],
        ),
        ("another order, fewer", "41 0D 21 0C 0CB2", &[0x0C, 0x0D, 0x05], vec![(0x0D, "21"), (0x0C, "0CB2")]),
        ("data that looks like a PID", "41 0C 0D0D 0D 0C", &[0x0C, 0x0D], vec![(0x0C, "0D0D"), (0x0D, "0C")]),
        ("cut off", "41 0D 21 0C 0C", &[0x0C, 0x0D], vec![(0x0D, "21")]),
        ("not asked for", "41 0D 21 99 0C 0CB2", &[0x0C, 0x0D], vec![(0x0D, "21")]),
        ("the same twice", "41 0D 21 0D 22", &[0x0C, 0x0D], vec![(0x0D, "21")]),
        ("a mask", "41 00 BE1FA813 20 80000001", &[0x00, 0x20], vec![(0, "BE1FA813"), (0x20, "80000001")]),
        ("padding", "41 0D 21 00 00 00", &[0x0C, 0x0D], vec![(0x0D, "21")]),
        ("nothing", "41", &[0x0C], vec![]),
    ] {
        let answer = payload(answer);
        let found: Vec<(u8, String)> = parts::split(Of::Current, &answer, asked, &table)
            .into_iter()
            .map(|(pid, data)| (pid, hex::encode_upper(data)))
            .collect();
        let expected: Vec<(u8, String)> =
            expected.into_iter().map(|(pid, data)| (pid, data.into())).collect();
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn requests_are_full_and_never_near_a_clearing() {
    let table = table();
    let none = Promises::new();
    let wanted = [0x03, 0x04, 0x05, 0x06, 0x07, 0x0B, 0x0C, 0x0D];
    assert_eq!(plan(&wanted, 1, 3, &table, &none).len(), wanted.len());
    let chunks = plan(&wanted, 6, 3, &table, &none);
    assert_eq!(chunks.iter().map(Vec::len).collect::<Vec<_>>(), [6, 2]);
    for chunk in &chunks {
        assert!(chunk.first() != Some(&0x04) && chunk.last() != Some(&0x04), "{chunk:02X?}");
    }
    // Two units that answer make more lines: fewer PIDs until long answers are proven.
    let both = promises(&[("7E8", &wanted), ("7E9", &wanted)]);
    assert!(plan(&wanted, 6, 3, &table, &both).iter().all(|c| all_lines(c, &table, &both) <= 3));
    // Unknown lengths go alone, and last.
    assert_eq!(plan(&[0x0C, 0xC3, 0x0D], 6, 3, &table, &none), [vec![0x0C, 0x0D], vec![0xC3]]);
}

#[test]
fn lines_are_counted_only_when_certain() {
    let table = table();
    let engine = promises(&[("7E8", &[0x01, 0x03, 0x04, 0x06, 0x07, 0x0C, 0x0D])]);
    assert_eq!(lines(&[0x01, 0x03, 0x04, 0x06, 0x07, 0x0C], &table, &engine), Some(3));
    let both = promises(&[("7E8", &[0x0C, 0x0D]), ("7E9", &[0x0D])]);
    assert_eq!(lines(&[0x0D], &table, &both), Some(2));
    assert_eq!(lines(&[0x0C, 0x0D], &table, &both), Some(2));
    assert_eq!(lines(&[0x0D], &table, &Promises::new()), None);
    assert_eq!(lines(&[0x11], &table, &both), None);
}

proptest! {
    #![proptest_config(crate::seed::cases(256))]

    /// Whatever PIDs, in whatever order: putting together and taking apart are inverse.
    #[test]
    fn any_order_is_taken_apart(order in proptest::sample::subsequence(vec![0x00_u8, 0x01, 0x03, 0x05, 0x0C, 0x0D, 0x11, 0x42], 1..6).prop_shuffle(), fill in any::<u8>()) {
        let table = table();
        let mut payload = vec![0x41];
        for pid in &order {
            payload.push(*pid);
            payload.extend(vec![fill; length(*pid, &table).unwrap()]);
        }
        let found: Vec<u8> = parts::split(Of::Current, &payload, &order, &table).iter().map(|(pid, _)| *pid).collect();
        prop_assert_eq!(found, order);
    }

    #[test]
    fn never_panics(payload in proptest::collection::vec(any::<u8>(), 0..64), asked in proptest::collection::vec(any::<u8>(), 0..8), most in 0_usize..9) {
        let table = table();
        let _ = parts::split(Of::Current, &payload, &asked, &table);
        let chunks = plan(&asked, most, 3, &table, &Promises::new());
        prop_assert_eq!(chunks.concat().len(), asked.len());
        let _ = lines(&asked, &table, &Promises::new());
    }
}
