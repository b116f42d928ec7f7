//! Which of the makers' own commands a car is asked, and which is due. Pure: the
//! service asks. A command that gets no answer a few times is left out for the visit; one that
//! can never be asked is kept with the reason.

use std::sync::Arc;
use std::time::Duration;

use super::gate::Request;
use super::signal_set::{Command, NotAsked, SignalSet, model_year};
use crate::ident::Vin;

/// Commands of all sets for one car, at most.
const MOST_COMMANDS: usize = 256;
/// Questions without an answer until a command is left out.
const MISSES: u8 = 3;

/// What one car is asked.
#[derive(Debug, Clone, Default)]
pub struct Agenda {
    items: Vec<Item>,
    never_asked: Vec<NeverAsked>,
}

/// A command that fits the car and is never asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NeverAsked {
    /// The set's file.
    pub file: String,
    /// Its name in the set.
    pub command: String,
    /// Why.
    pub why: NotAsked,
}

#[derive(Debug, Clone)]
struct Item {
    set: Arc<SignalSet>,
    command: usize,
    request: Request,
    due: Duration,
    misses: u8,
    lines: Option<u8>,
    /// Counted it failed once: it is waited for from then on.
    uncounted: bool,
}

/// A command that is due.
#[derive(Debug, Clone)]
pub struct Due {
    place: usize,
    /// What to ask.
    pub request: Request,
    /// How many lines its answer had when it was asked last, where that is sure to stay so.
    pub lines: Option<u8>,
    set: Arc<SignalSet>,
    command: usize,
}

impl Due {
    /// Its command.
    #[must_use]
    pub fn command(&self) -> Option<&Command> {
        self.set.commands().get(self.command)
    }
}

impl Agenda {
    /// The commands that fit a car, all due. `latest`: the latest model year there can be.
    #[must_use]
    pub fn for_car(sets: &[Arc<SignalSet>], vin: Option<&Vin>, latest: u16) -> Self {
        let year = vin.and_then(|vin| model_year(vin, latest));
        let mut agenda = Self::default();
        for set in sets.iter().filter(|set| set.is_for(vin)) {
            let commands = set.commands().iter().enumerate();
            for (place, command) in commands.filter(|(_, command)| command.years().fit(year)) {
                let room = agenda.items.len() < MOST_COMMANDS;
                match command
                    .question()
                    .and_then(|q| room.then_some(q).ok_or(NotAsked::TooMany(MOST_COMMANDS)))
                {
                    Ok(request) => agenda.items.push(Item {
                        set: Arc::clone(set),
                        command: place,
                        request,
                        due: Duration::ZERO,
                        misses: 0,
                        lines: None,
                        uncounted: false,
                    }),
                    Err(why) => agenda.never_asked.push(NeverAsked {
                        file: set.file().to_owned(),
                        command: command.to_string(),
                        why,
                    }),
                }
            }
        }
        agenda
    }

    /// The commands that fit the car and are never asked, in the order of the files.
    #[must_use]
    pub fn never_asked(&self) -> &[NeverAsked] {
        &self.never_asked
    }

    /// How many commands are not left out.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.iter().filter(|item| item.misses < MISSES).count()
    }

    /// Whether there is nothing to ask.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The command that is due the longest.
    #[must_use]
    pub fn next(&self, now: Duration) -> Option<Due> {
        let waiting = self.items.iter().enumerate();
        let due = waiting.filter(|(_, item)| item.misses < MISSES && item.due <= now);
        let (place, item) = due.min_by_key(|(_, item)| item.due)?;
        let Item { request, lines, command, .. } = *item;
        Some(Due { place, request, lines, set: Arc::clone(&item.set), command })
    }

    /// What is due, in the order of the files.
    pub fn due(&self, now: Duration) -> impl Iterator<Item = Request> + '_ {
        let due = self.items.iter().filter(move |item| item.misses < MISSES && item.due <= now);
        due.map(|item| item.request)
    }

    /// A command was asked; it is due again after its time.
    pub fn asked(&mut self, due: &Due, now: Duration, answered: bool) {
        let every = due.command().map_or(Duration::MAX, Command::every);
        if let Some(item) = self.items.get_mut(due.place) {
            item.due = now.saturating_add(every);
            item.misses = if answered { 0 } else { item.misses.saturating_add(1) };
        }
    }

    /// How many lines the answer had, where that is sure. Where it is not any more, the number was wrong
    /// and is not tried again.
    pub fn learned(&mut self, due: &Due, lines: Option<u8>) {
        if let Some(item) = self.items.get_mut(due.place) {
            item.uncounted |= due.lines.is_some() && lines.is_none();
            item.lines = lines.filter(|_| !item.uncounted);
        }
    }

    /// Everything that is not left out is due now: for a report. What gave nothing last comes last: it
    /// may take all the time there is.
    pub fn all_due(&mut self) {
        self.items.iter_mut().for_each(|item| item.due = Duration::from_nanos(item.misses.into()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> Arc<SignalSet> {
        Arc::new(SignalSet::from_json(text.as_bytes()).unwrap())
    }

    fn command(header: &str, did: &str, freq: u32, filter: &str) -> String {
        format!(r#"{{"hdr":"{header}","cmd":{{"22":"{did}"}},"freq":{freq}{filter},"signals":[]}}"#)
    }

    fn texts(agenda: &Agenda, now: u64) -> Vec<String> {
        let mut agenda = agenda.clone();
        let now = Duration::from_secs(now);
        std::iter::from_fn(|| {
            let due = agenda.next(now)?;
            agenda.asked(&due, now, true);
            Some(due.request.to_string())
        })
        .collect()
    }

    #[test]
    fn a_car_is_asked_what_fits_it() {
        let commands = [
            command("7E0", "0001", 1, ""),
            command("7E0", "0002", 1, r#","filter":{"to":2017}"#),
            command("7E0", "0003", 1, r#","filter":{"from":2018}"#),
            r#"{"hdr":"7E0","cmd":{"2E":"000101"},"freq":1,"signals":[]}"#.to_owned(),
        ]
        .join(",");
        let everybodys = set(&format!(r#"{{"commands":[{commands}]}}"#));
        let theirs = set(&format!(r#"{{"vin":["KMH*"],"commands":[{}]}}"#, command("7E4", "0101", 1, "")));
        let sets = [everybodys, theirs];
        let never = Agenda::for_car(&sets, None, 2027).never_asked;
        let never: Vec<_> = never.iter().map(|one| (one.command.as_str(), one.why.to_string())).collect();
        assert!(
            matches!(never.as_slice(), [("7E0.2E000101", why)] if why.contains("never sent")),
            "{never:?}"
        );
        for (vin, expected) in [
            (None, vec!["220001"]),
            (Some("LSVAG2186E2100001"), vec!["220001", "220002"]), // E: 2014
            (Some("LSVAG2186K2100001"), vec!["220001", "220003"]), // K: 2019
            (Some("KMHAG2186K2100001"), vec!["220001", "220003", "220101"]),
        ] {
            let vin: Option<Vin> = vin.map(|vin| vin.parse().unwrap());
            assert_eq!(texts(&Agenda::for_car(&sets, vin.as_ref(), 2027), 0), expected, "{vin:?}");
        }
    }

    #[test]
    fn what_is_more_than_a_car_is_asked_is_said() {
        let commands: Vec<_> = (0..300).map(|did| command("7E0", &format!("{did:04X}"), 1, "")).collect();
        let sets = [set(&format!(r#"{{"commands":[{}]}}"#, commands.join(",")))];
        let agenda = Agenda::for_car(&sets, None, 2027);
        assert_eq!((agenda.len(), agenda.never_asked().len()), (MOST_COMMANDS, 300 - MOST_COMMANDS));
        assert_eq!(agenda.never_asked()[0].command, "7E0.220100");
        assert_eq!(agenda.never_asked()[0].why, NotAsked::TooMany(MOST_COMMANDS));
    }

    #[test]
    fn in_a_report_what_gave_nothing_comes_last() {
        let commands = ["0001", "0002", "0003"].map(|did| command("7E0", did, 5, "")).join(",");
        let mut agenda = Agenda::for_car(&[set(&format!(r#"{{"commands":[{commands}]}}"#))], None, 2027);
        for (second, answers) in [(0, &[false, false, true][..]), (5, &[false])] {
            for answered in answers {
                let now = Duration::from_secs(second);
                let due = agenda.next(now).unwrap();
                agenda.asked(&due, now, *answered);
            }
        }
        agenda.all_due();
        assert_eq!(texts(&agenda, 6), ["220003", "220002", "220001"]);
    }

    #[test]
    fn a_number_of_lines_that_was_wrong_is_not_tried_again() {
        let mut agenda = Agenda::for_car(
            &[set(&format!(r#"{{"commands":[{}]}}"#, command("7E0", "0001", 5, "")))],
            None,
            2027,
        );
        let mut told = Vec::new();
        for lines in [Some(1), Some(1), None, Some(1), Some(1)] {
            let due = agenda.next(Duration::ZERO).unwrap();
            told.push(due.lines);
            agenda.learned(&due, lines);
        }
        assert_eq!(told, [None, Some(1), Some(1), None, None]);
    }

    #[test]
    fn each_has_its_own_time_and_the_silent_are_left_out() {
        let commands = [command("7E0", "0001", 5, ""), command("7E0", "0002", 20, "")].join(",");
        let mut agenda = Agenda::for_car(&[set(&format!(r#"{{"commands":[{commands}]}}"#))], None, 2027);
        let mut asked = Vec::new();
        for second in 0..60 {
            let now = Duration::from_secs(second);
            while let Some(due) = agenda.next(now) {
                let answered = due.request.to_string() == "220001";
                agenda.asked(&due, now, answered);
                asked.push((second, due.request.parameters()[1]));
            }
        }
        let second: Vec<u64> = asked.iter().filter(|(_, did)| *did == 2).map(|(second, _)| *second).collect();
        assert_eq!(second, [0, 20, 40], "then left out");
        assert_eq!(asked.iter().filter(|(_, did)| *did == 1).count(), 12);
        assert_eq!(agenda.len(), 1);
    }
}
