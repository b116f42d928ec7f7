//! What goes wrong: every command of a write and of an issue cut or falsified, wrong answers
//! while reading, the wrong card, and a chip that is too old.

use super::*;

/// Each command of a write goes wrong once, in each way: the old record or the new one,
/// what the driver says of it is true, and the card goes on.
#[test]
fn a_write_cut_anywhere_leaves_the_old_record_or_the_new() {
    for (sim, technology) in ALL {
        let issued = issue(sim, technology);
        let (uid, old, new) = (uid(&issued), record(7), spent(&record(7)));
        let mut whole = issued.clone();
        let mut all = line(&mut whole, None);
        assert_eq!(write(&mut all, technology, &uid, &old, &new), Some(WriteOutcome::Written));
        let commands = all.sent.len();
        let (mut olds, mut news, mut unknowns) = (0, 0, 0);
        for cut in 0..commands {
            for wrong in WRONGS {
                let name = format!("{sim:?}, {wrong:?} at {cut} of {commands}");
                let mut chip = issued.clone();
                let outcome = write(&mut line(&mut chip, Some((cut, wrong))), technology, &uid, &old, &new);
                let found = current(&mut chip, technology);
                assert!(found == old || found == new, "{name}: {found:?}");
                if found == old {
                    olds += 1
                } else {
                    news += 1
                }
                match outcome {
                    Some(WriteOutcome::Written) => assert_eq!(found, new, "{name}"),
                    // Only the answer to the last command may leave anybody in doubt.
                    Some(WriteOutcome::Unknown) => {
                        unknowns += 1;
                        assert_eq!(cut, commands - 1, "{name}");
                    }
                    Some(_) => assert_eq!(found, old, "{name}"),
                    None => assert!(found == old || cut == commands - 1, "{name}"),
                }
                let again = write(&mut line(&mut chip, None), technology, &uid, &found, &spent(&found));
                assert_eq!(again, Some(WriteOutcome::Written), "{name}");
            }
        }
        assert!(olds > 0 && news > 0 && unknowns > 0, "{sim:?}");
        println!("{sim:?}: {commands} commands, old {olds}, new {news}, unknown {unknowns}");
    }
}

/// Each command of an issue goes wrong once, in each way: the card counts as empty or is
/// the member card, and is prepared to the end at the next try, also by a gateway that knows
/// nothing of the first: its record was never used.
#[test]
fn an_issue_cut_anywhere_is_finished_later() {
    for ((sim, technology), again) in ALL.into_iter().flat_map(|one| [(one, true), (one, false)]) {
        let given = if again { record(7) } else { record(0) };
        let mut whole = empty(sim);
        let mut all = line(&mut whole, None);
        format(&mut all, technology, &given, Arc::new(keys())).unwrap();
        let commands = all.sent.len();
        for cut in 0..commands {
            for wrong in WRONGS {
                let name = format!("{sim:?}, {wrong:?} at {cut} of {commands}");
                let mut chip = empty(sim);
                let first =
                    format(&mut line(&mut chip, Some((cut, wrong))), technology, &given, Arc::new(keys()));
                let found = read(&mut chip, technology);
                let is_member = matches!(&found, Finding::Opened(opened) if opened.current.record == given);
                assert!(is_member || found == Finding::Refused(Refusal::Unformatted), "{name}: {found:?}");
                assert!(is_member || first != Some(PrepareOutcome::Prepared), "{name}");
                let next = prepare(&mut line(&mut chip, None), technology, &given, Arc::new(keys()), again);
                let right = if is_member { PrepareOutcome::NotBlank } else { PrepareOutcome::Prepared };
                assert_eq!(next, Some(right), "{name}");
                assert_eq!(current(&mut chip, technology), given, "{name}");
            }
        }
        println!("{sim:?}: {commands} commands");
    }
}

/// Whatever arrives while a card is read, it ends, and never with a record that the card
/// does not have.
#[test]
fn wrong_answers_while_reading() {
    for (sim, technology) in ALL {
        let issued = issue(sim, technology);
        let mut all = issued.clone();
        let mut all = line(&mut all, None);
        read_on(&mut all, technology).unwrap();
        for cut in 0..all.sent.len() {
            for wrong in WRONGS {
                let mut chip = issued.clone();
                let finding = read_on(&mut line(&mut chip, Some((cut, wrong))), technology);
                // `9100` is what a selection is answered with anyway.
                if let Some(Finding::Opened(opened)) = finding {
                    let is_good = matches!(wrong, Wrong::Instead(answer) if answer.ends_with("9100"));
                    assert!(is_good && cut == 0, "{wrong:?} at {cut}");
                    assert_eq!(opened.current.record, record(7));
                }
            }
        }
    }
}

/// Every bit of every answer under the session: a changed one is never believed.
#[test]
fn changed_answers_are_not_believed() {
    for (sim, technology) in [EV2, EV1] {
        changed_are_not_believed(sim, technology);
    }
}

fn changed_are_not_believed(sim: Sim, technology: Technology) {
    let issued = issue(sim, technology);
    let mut all = issued.clone();
    let mut all = line(&mut all, None);
    read_on(&mut all, technology).unwrap();
    let log_in = all.sent.iter().position(|apdu| [0x71, 0xAA].contains(&apdu[1])).unwrap();
    for at in log_in..all.sent.len() {
        for bit in (0..).step_by(7) {
            let mut chip = issued.clone();
            let mut line = line(&mut chip, None);
            let mut inside = true;
            let finding = read_through(&mut line, technology, |which, response| {
                if which == at {
                    match response.data.get_mut(bit / 8) {
                        Some(byte) => *byte ^= 1 << (bit % 8),
                        None => inside = false,
                    }
                }
            });
            if !inside {
                break;
            }
            assert!(!matches!(finding, Some(Finding::Opened(_))), "{sim:?}, command {at}, bit {bit}");
        }
    }
}

#[test]
fn a_write_is_for_one_card_and_one_record() {
    for (sim, technology) in ALL {
        let mut chip = issue(sim, technology);
        let own = uid(&chip);
        let old = current(&mut chip, technology);
        let other: CardUid = "0411223344".parse().unwrap();
        let stale = MemberRecord { points: 1, ..old.clone() };
        let jump = MemberRecord { counter: old.counter + 2, ..old.clone() };
        for (name, uid, expected, new) in [
            ("another card", &other, &old, spent(&old)),
            ("a record seen before another wrote", &own, &stale, spent(&stale)),
            ("a counter that jumps", &own, &old, jump),
            ("a counter that stays", &own, &old, old.clone()),
        ] {
            let mut line = line(&mut chip, None);
            let outcome = write(&mut line, technology, uid, expected, &new);
            assert_eq!(outcome, Some(WriteOutcome::Changed), "{sim:?} {name}");
            assert_eq!(writes(&line.sent), 0, "{sim:?} {name}");
        }
        assert_eq!(current(&mut chip, technology), old);
    }
}

/// The first DESFire, which has no AES, is refused, and nothing is left on it that counts. Nor
/// does a chip get anything that says it is another one.
#[test]
fn a_chip_that_cannot_is_not_prepared() {
    for (name, (sim, technology), version) in [
        ("the first DESFire", EV2, "0401010002180591AF"),
        ("an EV1 that says it is an EV2", EV1, "0401011200180591AF"),
        ("an EV2 that says it is an EV1", EV2, "0401010100180591AF"),
    ] {
        let mut chip = empty(sim);
        let mut all = line(&mut chip, None);
        format(&mut all, technology, &record(7), Arc::new(keys())).unwrap();
        let asked = all.sent.iter().position(|apdu| apdu[1] == 0x60).unwrap();
        let mut chip = empty(sim);
        let mut line = line(&mut chip, Some((asked, Wrong::Instead(version))));
        let outcome = format(&mut line, technology, &record(7), Arc::new(keys()));
        assert_eq!(outcome, Some(PrepareOutcome::NotBlank), "{name}");
        assert_eq!(read(&mut chip, technology), Finding::Refused(Refusal::Unformatted), "{name}");
        assert_eq!(chip.failed_logins(), 0, "{name}");
    }
}

proptest::proptest! {
    #![proptest_config(crate::seed::cases(256))]

    /// Whatever answers, at every place: it ends within a bounded number of commands, with
    /// no record and no word of success.
    #[test]
    fn any_answers_come_to_an_end(
        answers in proptest::collection::vec((proptest::collection::vec(0u8.., 0..60), 0u8..6), 60..61),
        good in 0usize..17,
        which in 0usize..3,
    ) {
        let (sim, technology) = ALL[which];
        let issued = issue(sim, technology);
        let (old, new) = (record(7), spent(&record(7)));
        let answer = |at: usize, chip: &mut Chip, command: &Command| {
            let (data, kind) = answers[at % answers.len()].clone();
            let noise = match kind {
                0 => data,
                1 => [data, vec![0x91, 0xAF]].concat(),
                2 => [data, vec![0x91, 0xAE]].concat(),
                3 => [data, vec![0x90, 0x00]].concat(),
                _ => [data, vec![0x91, 0x00]].concat(),
            };
            let bytes = if at < good { chip.apdu(&command.to_bytes()) } else { noise };
            Response::parse(&bytes).map_or(Answer::NotTransmitted, Answer::Response)
        };
        let mut chip = issued.clone();
        let mut at = 0;
        let mut step = Writing::start(uid(&chip), layout(technology), Arc::new(keys()), old.clone(), new.clone());
        let outcome = loop {
            proptest::prop_assert!(at < 60, "endless");
            step = match step {
                WriteStep::Done(outcome) => break outcome,
                WriteStep::Reset(_) => panic!("such a card needs no reset"),
                WriteStep::Transmit(command, writing) => writing.answer(&answer(at, &mut chip, &command)),
            };
            at += 1;
        };
        let found = current(&mut chip, technology);
        proptest::prop_assert!(found == old || found == new);
        if outcome == WriteOutcome::Written {
            proptest::prop_assert_eq!(&found, &new);
        }
        let mut chip = empty(sim);
        let mut at = 0;
        let keys: Arc<dyn KeyStore> = Arc::new(keys());
        let mut step = Preparing::start(uid(&chip), technology, &layout(technology), &old, &keys, false).unwrap();
        loop {
            proptest::prop_assert!(at < 80, "endless");
            step = match step {
                PrepareStep::Done(outcome) => {
                    proptest::prop_assert_ne!(outcome, PrepareOutcome::Prepared);
                    break;
                }
                PrepareStep::Reset(preparing) => preparing.answer(&Answer::Reset),
                PrepareStep::Transmit(command, preparing) => preparing.answer(&answer(at, &mut chip, &command)),
            };
            at += 1;
        }
    }
}
