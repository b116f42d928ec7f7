//! Whole identifications, played against scripted cards. Answers are those of the
//! data sheets named beside the constants in `probe.rs`, or of published traces.

use super::*;

const CLASSIC_1K: &str = "3B8F8001804F0CA000000306030001000000006A";
const DOUBTFUL: &str = "3B8F8001804F0CA0000003060300030000000068";
const NTAG_UID: &str = "04BD0F8ACD1190";

/// A scripted card: the first matching command prefix answers; `RESET` stands for a reset done,
/// `-` for a command the reader will not transmit, `9000` alone is a status.
struct Script {
    atr: &'static str,
    answers: &'static [(&'static str, &'static str)],
}

fn play(script: &Script) -> (Verdict, Vec<String>) {
    let mut step = Probe::start(&hex::decode(script.atr).unwrap());
    let mut sent = Vec::new();
    loop {
        assert!(sent.len() < 20, "endless: {sent:?}");
        step = match step {
            Step::Done(verdict) => return (verdict, sent),
            Step::Reset(probe) => {
                sent.push("RESET".to_owned());
                probe.answer(Answer::Reset)
            }
            Step::Transmit(command, probe) => {
                let bytes = hex::encode_upper(command.to_bytes());
                let answer = script.answers.iter().find(|(prefix, _)| bytes.starts_with(prefix));
                sent.push(bytes);
                probe.answer(match answer.map_or("6A81", |(_, answer)| *answer) {
                    "-" => Answer::NotTransmitted,
                    text => Answer::Response(Response::parse(&hex::decode(text).unwrap()).unwrap()),
                })
            }
        };
    }
}

fn technology(script: &Script) -> Option<Technology> {
    match play(script).0 {
        Verdict::Card(card) => Some(card.technology),
        _ => None,
    }
}

#[test]
fn cards_are_known() {
    let cases: &[(&str, Script, Technology)] = &[
        (
            "Classic 1K, named by the reader",
            Script { atr: CLASSIC_1K, answers: &[("FFCA", "01A2B3C49000")] },
            Technology::MifareClassic1k,
        ),
        (
            "Classic 4K, named by the reader",
            Script { atr: "3B8F8001804F0CA0000003060300020000000069", answers: &[("FFCA", "01A2B3C49000")] },
            Technology::MifareClassic4k,
        ),
        (
            "ICODE",
            Script {
                atr: "3B8F8001804F0CA0000003060B00140000000077",
                answers: &[("FFCA", "E00401501234ABCD9000")],
            },
            Technology::Iso15693,
        ),
        (
            "NTAG213 by GET_VERSION",
            Script {
                atr: DOUBTFUL,
                answers: &[
                    ("FFCA", "04BD0F8ACD11909000"),
                    ("FF00000003D44260", "D543000004040201000F039000"),
                ],
            },
            Technology::Ntag213,
        ),
        (
            "NTAG216 by GET_VERSION",
            Script {
                atr: DOUBTFUL,
                answers: &[
                    ("FFCA", "04BD0F8ACD11909000"),
                    ("FF00000003D44260", "D5430000040402010013039000"),
                ],
            },
            Technology::Ntag216,
        ),
        (
            "NTAG215 by its container, the reader does not relay",
            Script {
                atr: DOUBTFUL,
                answers: &[("FFCA", "04BD0F8ACD11909000"), ("FF00", "6E00"), ("FFB0", "E1103E009000")],
            },
            Technology::Ntag215,
        ),
        (
            "NTAG213 by its container, the reader will not transmit the escape",
            Script {
                atr: DOUBTFUL,
                answers: &[("FFCA", "04BD0F8ACD11909000"), ("FF00", "-"), ("FFB0", "E1101200000000009000")],
            },
            Technology::Ntag213,
        ),
        (
            "first Ultralight: halted by GET_VERSION, page 3 empty",
            Script {
                atr: DOUBTFUL,
                answers: &[("FFCA", "04BD0F8ACD11909000"), ("FF00", "D543019000"), ("FFB0", "000000009000")],
            },
            Technology::Ultralight,
        ),
        (
            "Ultralight C: halted by GET_VERSION, begins its login, and has the container of an NTAG213",
            Script {
                atr: DOUBTFUL,
                answers: &[
                    ("FFCA", "04BD0F8ACD11909000"),
                    ("FF00000003D44260", "D543019000"),
                    ("FF00000004D4421A00", "D54300AF577293FD2F34CA519000"),
                    ("FFB0", "E11012009000"),
                ],
            },
            Technology::UltralightC,
        ),
        (
            "Ultralight EV1 by GET_VERSION",
            Script {
                atr: DOUBTFUL,
                answers: &[("FFCA", "04BD0F8ACD11909000"), ("FF00", "D543000004030101000B039000")],
            },
            Technology::Ultralight,
        ),
        (
            "Classic 4K reported as 0003, SAK tells",
            Script {
                atr: DOUBTFUL,
                answers: &[
                    ("FFCA", "01A2B3C49000"),
                    ("FF00000003D442", "D543019000"),
                    ("FFB0", "6300"),
                    ("FF00000004D44A", "D54B01010002180401A2B3C49000"),
                ],
            },
            Technology::MifareClassic4k,
        ),
        (
            "Classic 1K reported as 0003, empty card on a reader that does not relay",
            Script {
                atr: DOUBTFUL,
                answers: &[
                    ("FFCA", "01A2B3C49000"),
                    ("FF82", "9000"),
                    ("FF860000050100806000", "6300"),
                    ("FF860000050100006000", "9000"),
                ],
            },
            Technology::MifareClassic1k,
        ),
        (
            "Classic reported as 0003 with keys of its own",
            Script {
                atr: DOUBTFUL,
                answers: &[("FFCA", "01A2B3C49000"), ("FF82", "9000"), ("FF86", "6300")],
            },
            Technology::MifareClassic1k,
        ),
        (
            "seven bytes that refuse everything",
            Script { atr: DOUBTFUL, answers: &[("FFCA", "04BD0F8ACD11909000")] },
            Technology::Unknown,
        ),
        (
            "DESFire EV1",
            Script {
                atr: "3B8180018080",
                answers: &[
                    ("FFCA", "04BD0F8ACD11909000"),
                    ("9060", "04010101001A0591AF"),
                    ("90AF", "04010101001A0591AF"),
                ],
            },
            Technology::Desfire,
        ),
        (
            "NTAG 424",
            Script {
                atr: "3B8180018080",
                answers: &[
                    ("FFCA", "04DE5F1EACC0409000"),
                    ("9060", "0404023000110591AF"),
                    ("90AF", "04DE5F1EACC0409100"),
                ],
            },
            Technology::Ntag424,
        ),
        (
            "a phone",
            Script { atr: "3B80800101", answers: &[("FFCA", "08A1B2C39000"), ("9060", "6D00")] },
            Technology::Cpu,
        ),
        (
            "a bank card",
            Script { atr: "3B8B80010031C0640844037700900037", answers: &[("FFCA", "01A2B3C49000")] },
            Technology::Cpu,
        ),
        (
            "an ATR that is none",
            Script { atr: "00", answers: &[("FFCA", "01A2B3C49000")] },
            Technology::Unknown,
        ),
        ("no ATR", Script { atr: "", answers: &[("FFCA", "01A2B3C49000")] }, Technology::Unknown),
        (
            "the reader wants the exact length",
            Script { atr: CLASSIC_1K, answers: &[("FFCA000000", "6C04"), ("FFCA000004", "01A2B3C49000")] },
            Technology::MifareClassic1k,
        ),
    ];
    for (name, script, expected) in cases {
        let script = Script { atr: script.atr, answers: script.answers };
        assert_eq!(technology(&script), Some(*expected), "{name}: {:?}", play(&script).1);
    }
}

#[test]
fn a_card_without_uid_is_refused() {
    for (name, answer) in [
        ("unsupported", "6A81"),
        ("failed", "6300"),
        ("good and empty", "9000"),
        ("wrong length twice", "6C04"),
        ("too long", "000102030405060708090A0B0C0D0E0F109000"),
    ] {
        let script = Script { atr: "3B04A2131091", answers: &[] };
        let step = Probe::start(&hex::decode(script.atr).unwrap());
        let answer = Response::parse(&hex::decode(answer).unwrap()).unwrap();
        let mut step = step;
        while let Step::Transmit(_, probe) = step {
            step = probe.answer(Answer::Response(answer.clone()));
        }
        assert_eq!(step, Step::Done(Verdict::Refused(Refusal::Unreadable)), "{name}");
    }
}

#[test]
fn a_disturbed_card_is_powered_anew_and_must_be_the_same() {
    let script = Script {
        atr: DOUBTFUL,
        answers: &[("FFCA", "04BD0F8ACD11909000"), ("FF00", "D543019000"), ("FFB0", "E1106D009000")],
    };
    let (verdict, sent) = play(&script);
    let Verdict::Card(card) = verdict else { panic!("{verdict:?}") };
    assert_eq!((card.uid.as_str(), card.technology), (NTAG_UID, Technology::Ntag216));
    let (uid, reset) = ("FFCA000000", "RESET");
    let (version, challenge, container) = ("FF00000003D44260", "FF00000004D4421A00", "FFB0000304");
    assert_eq!(sent, [uid, version, reset, uid, challenge, reset, uid, container]);

    let mut step = Probe::start(&hex::decode(DOUBTFUL).unwrap());
    for answer in ["04BD0F8ACD11909000", "D543019000", "RESET", "04FFFFFFFFFFFF9000"] {
        step = match (step, answer) {
            (Step::Reset(probe), "RESET") => probe.answer(Answer::Reset),
            (Step::Transmit(_, probe), bytes) => {
                probe.answer(Answer::Response(Response::parse(&hex::decode(bytes).unwrap()).unwrap()))
            }
            (step, _) => panic!("{step:?}"),
        };
    }
    assert_eq!(step, READER_ERROR);
}

proptest::proptest! {
    #![proptest_config(crate::seed::cases(256))]

    /// Whatever a card answers, identification ends within a bounded number of
    /// questions and writes nothing.
    #[test]
    fn it_always_ends(
        atr in proptest::sample::select(vec![CLASSIC_1K, DOUBTFUL, "3B8180018080", "3B80800101", ""]),
        answers in proptest::collection::vec(
            proptest::option::of(proptest::collection::vec(0u8.., 2..20)), 40..41),
        good in proptest::collection::vec(0u8..3, 40..41),
    ) {
        let mut step = Probe::start(&hex::decode(atr).unwrap());
        let mut questions = 0;
        for (answer, good) in answers.into_iter().zip(good) {
            step = match step {
                Step::Done(_) => break,
                Step::Reset(probe) => probe.answer(Answer::Reset),
                Step::Transmit(command, probe) => {
                    questions += 1;
                    let bytes = command.to_bytes();
                    assert!(!matches!(bytes.get(..2), Some([0xFF, 0xD6 | 0xD7])), "a write");
                    probe.answer(match answer {
                        None => Answer::NotTransmitted,
                        Some(mut bytes) => {
                            if good > 0 {
                                bytes.extend([0x90, 0x00]);
                            }
                            Answer::Response(Response::parse(&bytes).unwrap())
                        }
                    })
                }
            };
        }
        assert!(matches!(step, Step::Done(_)), "not over after {questions} questions");
        assert!(questions <= 12, "{questions}");
    }
}
