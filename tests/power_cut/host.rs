//! The host's side: boots, listens, cuts the power at a drawn moment, boots
//! again and holds what is found against what was promised. Broker and
//! headquarters live here: they have power all the time.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use baygate::sim::headquarters::{self, Received, Verdict};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::dice::Dice;
use super::lab::{self, Cached, Disk, Heard, Machine, Setup};
use super::ledger::{Found, Ledger};
use super::mqtt::{Mosquitto, until};
use super::words::{Fact, Plan, Word};

/// For one boot, on a loaded host.
const LONG: Duration = Duration::from_secs(420);
const DISK_BYTES: u64 = 512 << 20;

/// When the power goes.
#[derive(Debug, Clone, Copy)]
pub enum Moment {
    /// So long after the daemon was called.
    Start(Duration),
    /// So many acknowledgements after the load began, so many of them of deeds on cards, and so long
    /// after them.
    Load { told: usize, deeds: usize, then: Duration },
    /// Not at all: everything is delivered and the daemon stopped.
    Never,
}

/// One cut, drawn.
#[derive(Debug, Clone, Copy)]
pub struct Cut {
    pub moment: Moment,
    /// What lies in the disk's own cache is lost but so many in a hundred pieces; else it is safe.
    pub keep: Option<u64>,
    /// How the boot begins: with a look before the daemon, or beside it.
    pub look_first: bool,
    seed: u64,
}

impl Cut {
    /// One in five meets the start, one in two a disk with a cache.
    pub fn draw(dice: &mut Dice) -> Self {
        let long = Duration::from_millis(dice.between(0, 3000));
        let at_start = dice.between(1, 5) == 1;
        let keep = dice.between(0, 3) * 30;
        let keep = (dice.between(1, 2) == 1).then_some(keep);
        let cut = Self { look_first: dice.between(1, 2) == 1, keep, ..Self::under_load(dice) };
        if at_start { Self { moment: Moment::Start(long), ..cut } } else { cut }
    }

    pub fn under_load(dice: &mut Dice) -> Self {
        let told = usize::try_from(dice.between(20, 120)).unwrap();
        let then = Duration::from_millis(dice.between(0, 1500));
        let deeds = usize::try_from(dice.between(0, 40)).unwrap();
        let moment = Moment::Load { told, deeds, then };
        Self { moment, keep: None, look_first: true, seed: dice.number() }
    }

    pub fn none() -> Self {
        Self { moment: Moment::Never, keep: None, look_first: true, seed: 0 }
    }
}

/// What one boot came to.
#[derive(Debug, Default)]
pub struct Boot {
    /// Acknowledged to callers under load.
    pub told: usize,
    /// Deeds on members' cards among these.
    pub deeds: usize,
    /// From power to ready.
    pub ready: Option<Duration>,
    /// `baygate buffer verify`, and whether the daemon ran meanwhile.
    pub verified: Option<(bool, bool)>,
    /// What became of the promises of all boots before.
    pub found: Option<Found>,
    /// What `baygate buffer verify` said of a database that is not sound.
    pub unsound: Option<String>,
    /// What became of the disk's own cache.
    pub cached: Option<Cached>,
    /// Everything else that is not as it should be.
    pub wrong: Vec<String>,
}

impl Boot {
    /// What the power cut took: promises, or the soundness of the database.
    pub fn taken(&self) -> Vec<String> {
        let lost = self.found.iter().flat_map(|found| &found.lost);
        lost.chain(&self.unsound).cloned().collect()
    }

    pub fn is_well(&self) -> bool {
        self.wrong.is_empty()
            && self.unsound.is_none()
            && self.found.as_ref().is_none_or(|f| f.lost.is_empty() && f.wrong.is_empty())
    }
}

/// One shop, one disk, one headquarters, any number of cuts.
pub struct Host {
    folder: PathBuf,
    disk: Disk,
    program: PathBuf,
    ledger: Ledger,
    /// The position of the till.
    after: Option<String>,
    log: Vec<Fact>,
    heard: Arc<Mutex<Vec<Received>>>,
    /// Of those heard, how many are in the ledger.
    noted: usize,
    broker: Mosquitto,
    _headquarters: DropGuard,
}

impl Host {
    pub async fn open(name: &str, program: PathBuf) -> Self {
        let folder = lab::target("power-cut").join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let disk = Disk::make(&folder, DISK_BYTES);
        let broker = Mosquitto::start("").await;
        let (out, mut received) = tokio::sync::mpsc::channel(1000);
        let stop = CancellationToken::new();
        let options = headquarters::Options {
            broker: ([127, 0, 0, 1], broker.port).into(),
            root: "baygate/v1".into(),
            acknowledge: true,
        };
        tokio::spawn(headquarters::serve(options, out, stop.clone()));
        let heard = Arc::new(Mutex::new(Vec::new()));
        let hear = Arc::clone(&heard);
        tokio::spawn(async move {
            while let Some(event) = received.recv().await {
                hear.lock().unwrap().push(event);
            }
        });
        Self {
            folder,
            disk,
            program,
            ledger: Ledger::default(),
            after: None,
            log: Vec::new(),
            heard,
            noted: 0,
            broker,
            _headquarters: stop.drop_guard(),
        }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn promised(&self) -> usize {
        self.ledger.len()
    }

    /// Sales that were told, and the classes of which an event was.
    pub fn kinds(&self) -> (usize, Vec<&str>) {
        (self.ledger.sales().len(), self.ledger.classes().into_iter().collect())
    }

    /// One boot, with its end. Blocks.
    pub fn boot(&mut self, cut: Cut) -> Boot {
        let moment = cut.moment;
        let plan = Plan {
            program: self.program.clone(),
            broker_port: self.broker.port,
            seed: cut.seed,
            look_first: cut.look_first,
            after: self.after.clone(),
            jobs: self.ledger.jobs(),
            sales: self.ledger.sales(),
            load: !matches!(moment, Moment::Never),
        };
        let plan_file = self.folder.join("plan.json");
        std::fs::write(&plan_file, serde_json::to_string(&plan).unwrap()).unwrap();
        let script = format!(
            "mkdir -p /data && mount -t ext4 /dev/vda /data || exit 120\n\
             POWER_CUT_PLAN={} exec {} --exact plays_the_shop --ignored --nocapture >&3\n",
            plan_file.display(),
            std::env::current_exe().unwrap().display()
        );
        let setup = Setup {
            folder: &self.folder,
            script: &script,
            disk: Some(&self.disk),
            network: true,
            memory_mib: 1024,
        };
        let begun = Instant::now();
        let machine = Machine::boot(&setup);
        let mut boot = Boot::default();
        let mut cut_at = None;
        self.log.clear();
        loop {
            let end = cut_at.unwrap_or(begun + LONG);
            match machine.hear(end.saturating_duration_since(Instant::now())) {
                Heard::Line(line) => {
                    let Some(word) = self.take(&line, &mut boot) else { continue };
                    match (&word, moment) {
                        (Word::Ready, _) => boot.ready = Some(begun.elapsed()),
                        // Card writes may be held after a loss, and no load comes to its end.
                        (Word::Checked, Moment::Load { .. }) if !boot.is_well() => break,
                        (Word::Starting, Moment::Start(then)) => cut_at = Some(Instant::now() + then),
                        _ => {}
                    }
                    match moment {
                        Moment::Load { told, deeds, then }
                            if boot.told >= told && boot.deeds >= deeds && cut_at.is_none() =>
                        {
                            cut_at = Some(Instant::now() + then);
                        }
                        _ => {}
                    }
                }
                Heard::Nothing if cut_at.is_some() => break,
                Heard::Nothing => {
                    boot.wrong.push(format!("it hangs:\n{}", machine.console()));
                    break;
                }
                Heard::End if matches!(moment, Moment::Never) && boot.wrong.is_empty() => break,
                Heard::End => {
                    boot.wrong.push(format!("it ended by itself:\n{}", machine.console()));
                    break;
                }
            }
        }
        for line in machine.cut() {
            self.take(&line, &mut boot);
        }
        if let Some(percent) = cut.keep {
            let mut dice = Dice::new(cut.seed);
            boot.cached = Some(self.disk.lose_cache(|| dice.between(0, 99) < percent));
        }
        self.note_headquarters(&mut boot);
        boot
    }

    /// One line of the machine.
    fn take(&mut self, line: &str, boot: &mut Boot) -> Option<Word> {
        if !line.starts_with(['{', '"']) {
            // The test harness' own words, and the exit status.
            if line.strip_prefix("exit ").is_some_and(|status| status != "0") {
                boot.wrong.push(line.to_owned());
            }
            return None;
        }
        let word: Word = serde_json::from_str(line).unwrap();
        match &word {
            Word::Event(fact) => {
                boot.told += 1;
                self.after = Some(format!("{}/{}", fact.epoch, fact.sequence));
                boot.wrong.extend(self.ledger.fact(fact).err());
            }
            Word::Job(job) => {
                boot.told += 1;
                self.ledger.job(job);
            }
            Word::Sale(sale) => {
                boot.told += 1;
                boot.deeds += 1;
                self.ledger.sale(sale);
            }
            Word::Token(id) => {
                boot.told += 1;
                self.ledger.token(id);
            }
            Word::Revoking(id) => self.ledger.revoking(id),
            Word::Revoked(id) => {
                boot.told += 1;
                self.ledger.revoked(id);
            }
            Word::Logged(fact) => self.log.push(fact.clone()),
            Word::LogEnds => {
                let found = self.ledger.check_log(&self.log);
                merge(boot, found);
                for fact in &self.log {
                    // What the log shows was committed.
                    boot.wrong.extend(self.ledger.fact(fact).err());
                }
            }
            Word::Verified(sound, said) => {
                boot.verified = Some((*sound, boot.ready.is_some()));
                if !sound {
                    boot.unsound = Some(format!("verify: {said}"));
                }
            }
            Word::Again(job) => match self.ledger.check_job(job) {
                Some(lost) => boot.found.get_or_insert_default().lost.push(lost),
                None => boot.found.get_or_insert_default().kept += 1,
            },
            Word::SaleAgain(sale) => match self.ledger.check_sale(sale) {
                Some(lost) => boot.found.get_or_insert_default().lost.push(lost),
                None => boot.found.get_or_insert_default().kept += 1,
            },
            Word::LiveTokens(live) => {
                let found = self.ledger.check_tokens(live);
                merge(boot, found);
            }
            Word::Wrong(what) => boot.wrong.push(what.clone()),
            Word::Stopped(Some(0), _) | Word::Starting | Word::Ready | Word::Checked | Word::Delivered => {}
            Word::Stopped(status, _) => boot.wrong.push(format!("the daemon ended with {status:?}")),
        }
        Some(word)
    }

    /// What headquarters got was told as well.
    fn note_headquarters(&mut self, boot: &mut Boot) {
        let heard = self.heard.lock().unwrap();
        for received in heard.iter().skip(self.noted) {
            if received.verdict == Verdict::Fork {
                boot.wrong.push(format!("headquarters heard a fork: {}", received.event));
            }
            boot.wrong.extend(self.ledger.fact(&Fact::of_json(&received.event)).err());
        }
        self.noted = heard.len();
    }

    /// Everything of the last log, each once and in the order of its class; how much that is.
    pub async fn headquarters_has_all(&self) -> usize {
        let all = self.log.len();
        until("headquarters has everything", async || {
            let heard = self.heard.lock().unwrap();
            let ahead = heard.iter().find(|received| received.verdict == Verdict::AheadOfOrder);
            assert!(ahead.is_none(), "before the one in front of it: {}", ahead.unwrap().event);
            let fresh = heard.iter().filter(|received| received.verdict == Verdict::Fresh);
            let mut fresh: Vec<Fact> = fresh.map(|received| Fact::of_json(&received.event)).collect();
            fresh.sort_by_key(|fact| fact.sequence);
            let whole = fresh.len() >= all && fresh.iter().zip(&self.log).all(|(got, kept)| got.is(kept));
            whole.then_some(())
        })
        .await;
        all
    }
}

fn merge(boot: &mut Boot, more: Found) {
    let found = boot.found.get_or_insert_default();
    found.kept += more.kept;
    found.lost.extend(more.lost);
    found.wrong.extend(more.wrong);
}
