//! What was promised, by whom it was heard, and whether a log that was found
//! after a cut keeps it. Pure, so that it is tested without a machine.

use std::collections::{BTreeMap, BTreeSet};

use super::words::{Fact, Job};

/// Everything that was ever acknowledged to somebody.
#[derive(Debug, Default)]
pub struct Ledger {
    facts: BTreeMap<(String, u64), Fact>,
    jobs: BTreeMap<String, String>,
    /// In the order they were told.
    sales: Vec<Job>,
    tokens: BTreeSet<String>,
    revoked: BTreeSet<String>,
}

/// What a look after a cut came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub kept: usize,
    pub lost: Vec<String>,
    /// Not lost, yet not right.
    pub wrong: Vec<String>,
}

impl Ledger {
    /// How much was promised.
    pub fn len(&self) -> usize {
        self.facts.len() + self.jobs.len() + self.sales.len() + self.tokens.len() + self.revoked.len()
    }

    /// An event was told, or read from the log after a cut. An error when its sequence had another fact before.
    pub fn fact(&mut self, fact: &Fact) -> Result<(), String> {
        let place = (fact.epoch.clone(), fact.sequence);
        match self.facts.get(&place) {
            Some(known) if !known.is(fact) => {
                Err(format!("sequence {} was {} and is now {}", fact.sequence, known.id, fact.id))
            }
            Some(known) if known.sha256.is_some() => Ok(()),
            _ => {
                self.facts.insert(place, fact.clone());
                Ok(())
            }
        }
    }

    pub fn job(&mut self, job: &Job) {
        self.jobs.insert(job.key.clone(), job.job.clone());
    }

    /// The jobs, youngest first.
    pub fn jobs(&self) -> Vec<Job> {
        let mut jobs: Vec<Job> =
            self.jobs.iter().map(|(key, job)| Job { key: key.clone(), job: job.clone() }).collect();
        // Ids of jobs are of the time-ordered kind.
        jobs.sort_by(|a, b| b.job.cmp(&a.job));
        jobs
    }

    pub fn sale(&mut self, sale: &Job) {
        self.sales.push(sale.clone());
    }

    /// The sales, youngest first.
    pub fn sales(&self) -> Vec<Job> {
        self.sales.iter().rev().cloned().collect()
    }

    /// Classes of which something was promised.
    pub fn classes(&self) -> BTreeSet<&str> {
        self.facts.values().map(|fact| fact.class.as_str()).collect()
    }

    pub fn token(&mut self, id: &str) {
        self.tokens.insert(id.to_owned());
    }

    /// It may be good or not.
    pub fn revoking(&mut self, id: &str) {
        self.tokens.remove(id);
    }

    /// From now on it must not come back.
    pub fn revoked(&mut self, id: &str) {
        self.tokens.remove(id);
        self.revoked.insert(id.to_owned());
    }

    /// Whether a whole log keeps every event that was promised.
    pub fn check_log(&self, log: &[Fact]) -> Found {
        let mut found = Found::default();
        let by_place: BTreeMap<(&str, u64), &Fact> =
            log.iter().map(|fact| ((fact.epoch.as_str(), fact.sequence), fact)).collect();
        for ((epoch, sequence), promised) in &self.facts {
            match by_place.get(&(epoch.as_str(), *sequence)) {
                Some(fact) if fact.is(promised) => found.kept += 1,
                Some(fact) => {
                    found
                        .lost
                        .push(format!("{} #{sequence} {}: now {}", promised.class, promised.id, fact.id));
                }
                None => found.lost.push(format!("{} #{sequence} {}", promised.class, promised.id)),
            }
        }
        let mut last_of_class: BTreeMap<&str, u64> = BTreeMap::new();
        for (number, fact) in (1..).zip(log) {
            if fact.sequence != number {
                found.wrong.push(format!("sequence {} where {number} belongs", fact.sequence));
                break;
            }
            let last = last_of_class.entry(&fact.class).or_default();
            if fact.class_sequence != *last + 1 {
                found.wrong.push(format!("{} {} follows {last}", fact.class, fact.class_sequence));
                break;
            }
            *last = fact.class_sequence;
        }
        let epochs: BTreeSet<&str> =
            log.iter().map(|f| f.epoch.as_str()).chain(self.facts.keys().map(|(e, _)| e.as_str())).collect();
        if epochs.len() > 1 {
            found.wrong.push(format!("epochs {epochs:?}"));
        }
        found
    }

    /// A key asked again.
    pub fn check_job(&self, again: &Job) -> Option<String> {
        let first = self.jobs.get(&again.key)?;
        (*first != again.job).then(|| format!("job {first} of key {}: now {}", again.key, again.job))
    }

    /// A sale asked for again by its key.
    pub fn check_sale(&self, again: &Job) -> Option<String> {
        (!self.sales.contains(again)).then(|| format!("the answer to {}: now another", again.key))
    }

    /// The tokens that are good.
    pub fn check_tokens(&self, live: &[String]) -> Found {
        let mut found = Found::default();
        for id in &self.tokens {
            if live.contains(id) {
                found.kept += 1;
            } else {
                found.lost.push(format!("token {id}"));
            }
        }
        for id in &self.revoked {
            if live.contains(id) {
                found.lost.push(format!("the revocation of token {id}"));
            } else {
                found.kept += 1;
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fact(sequence: u64, class: &str, class_sequence: u64) -> Fact {
        Fact {
            epoch: "e".into(),
            sequence,
            class: class.into(),
            class_sequence,
            id: format!("id-{sequence}"),
            sha256: Some(format!("sum-{sequence}")),
        }
    }

    fn log() -> Vec<Fact> {
        vec![fact(1, "gateway", 1), fact(2, "card", 1), fact(3, "device", 1), fact(4, "card", 2)]
    }

    fn promised() -> Ledger {
        let mut ledger = Ledger::default();
        for fact in &log()[..3] {
            ledger.fact(fact).unwrap();
        }
        ledger
    }

    #[test]
    fn more_than_was_promised_is_well() {
        let found = promised().check_log(&log());
        assert_eq!(found, Found { kept: 3, ..Found::default() });
    }

    #[test]
    fn every_kind_of_loss_is_seen() {
        type Damage = fn(&mut Vec<Fact>);
        // (what was done to the log, facts lost, faults besides)
        let damages: [(&str, Damage, usize, usize); 7] = [
            ("cut back", |log| log.truncate(2), 1, 0),
            ("emptied", Vec::clear, 3, 0),
            ("a hole", |log| drop(log.remove(1)), 1, 1),
            ("a sequence used again", |log| log[2].id = "other".into(), 1, 0),
            ("another text", |log| log[2].sha256 = Some("other".into()), 1, 0),
            ("a class sequence used again", |log| log[3].class_sequence = 1, 0, 1),
            ("a new epoch", |log| log.iter_mut().for_each(|f| f.epoch = "f".into()), 3, 1),
        ];
        for (name, damage, lost, wrong) in damages {
            let mut log = log();
            damage(&mut log);
            let found = promised().check_log(&log);
            assert_eq!((found.lost.len(), found.wrong.len()), (lost, wrong), "{name}: {found:?}");
        }
    }

    #[test]
    fn a_sequence_told_twice_must_be_the_same_fact() {
        let mut ledger = promised();
        // Headquarters knows less of it, then the log shows it in full.
        ledger.fact(&Fact { sha256: None, ..fact(4, "card", 2) }).unwrap();
        ledger.fact(&fact(4, "card", 2)).unwrap();
        ledger.fact(&Fact { id: "other".into(), ..fact(4, "card", 2) }).unwrap_err();
        ledger.fact(&Fact { sha256: Some("other".into()), ..fact(4, "card", 2) }).unwrap_err();
        assert_eq!(ledger.len(), 4);
    }

    #[test]
    fn keys_and_tokens_are_promises() {
        let mut ledger = Ledger::default();
        let job = |job: &str| Job { key: "k".into(), job: job.into() };
        ledger.job(&job("1"));
        assert_eq!(ledger.check_job(&job("1")), None);
        assert!(ledger.check_job(&job("2")).is_some());
        assert_eq!(ledger.jobs(), [job("1")]);
        let sale = |answer: &str| Job { key: "s".into(), job: answer.into() };
        ledger.sale(&sale("paid"));
        assert_eq!(ledger.check_sale(&sale("paid")), None);
        assert!(ledger.check_sale(&sale("other")).is_some());
        ledger.token("good");
        ledger.token("open");
        ledger.revoking("open");
        ledger.token("bad");
        ledger.revoked("bad");
        let live = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
        assert_eq!(ledger.check_tokens(&live(&["good"])).kept, 2);
        assert_eq!(ledger.check_tokens(&live(&["bad"])).lost.len(), 2);
    }
}
