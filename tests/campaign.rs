//! The campaigns: daemon, broker and headquarters are killed at random moments
//! while cars, cards, printers, tills and headquarters go on. At the end the
//! callers' memory, the log and headquarters' journal are compared.
//!
//! The seed is printed. `BAYGATE_SEED` repeats a run's plan, `BAYGATE_ROUNDS` makes it longer.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/daemon.rs"]
mod daemon;
mod showroom;

use std::time::{Duration, Instant};

use baygate::api::client::Method;
use daemon::{Daemon, LONG};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use showroom::broker::Broker;
use showroom::dice::{Dice, rounds};
use showroom::snapshot::{Snapshot, count};
use showroom::tap::Tap;
use showroom::{Showroom, callers, judge};

/// Who is struck in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Daemon,
    Broker,
    Headquarters,
}
use Victim::{Broker as TheBroker, Daemon as TheDaemon, Headquarters as TheHeadquarters};

/// What a round waits for before it strikes.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// So many more events told to the till.
    Told(u64),
    /// So many more events new to headquarters.
    Kept(u64),
    /// Another event of this type.
    Kind(&'static str),
}

/// What happens to the victims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blow {
    Kill,
    /// SIGSTOP for a moment.
    Freeze,
    FreezeThenKill,
    /// Killed, and killed again while it starts.
    KillTwice,
    /// SIGTERM: an orderly stop in the middle of everything.
    Stop,
}

#[derive(Debug)]
struct Round {
    moment: Moment,
    /// After the moment.
    late: Duration,
    victims: Vec<Victim>,
    blow: Blow,
    away: Duration,
}

impl Round {
    fn draw(dice: &mut Dice) -> Self {
        let moment = match dice.below(10) {
            0..=4 => Moment::Told(1 + dice.below(90)),
            5..=7 => Moment::Kept(1 + dice.below(90)),
            8 => Moment::Kind(dice.pick(&["card.tapped", "command.result", "vehicle.report"])),
            _ => Moment::Kind("vehicle.signals"),
        };
        let mut victims = Vec::new();
        while victims.is_empty() {
            victims = [(TheDaemon, 60), (TheBroker, 35), (TheHeadquarters, 35)]
                .into_iter()
                .filter(|(_, chance)| dice.percent(*chance))
                .map(|(victim, _)| victim)
                .collect();
        }
        // Struck, and brought back, in any order.
        if dice.percent(50) {
            victims.reverse();
        }
        let blow = match dice.below(10) {
            0..=4 => Blow::Kill,
            5 | 6 => Blow::Freeze,
            7 => Blow::FreezeThenKill,
            8 => Blow::KillTwice,
            _ => Blow::Stop,
        };
        Self { moment, late: dice.pause(60), victims, blow, away: dice.pause(400) }
    }

    /// All die at once, while there is work.
    fn last() -> Self {
        let victims = vec![TheBroker, TheDaemon, TheHeadquarters];
        Self {
            moment: Moment::Told(10),
            late: Duration::ZERO,
            victims,
            blow: Blow::Kill,
            away: Duration::ZERO,
        }
    }
}

/// Waits for the moment, but not for ever: what is dead or held back makes no events.
async fn wait_for(room: &Showroom, moment: Moment) {
    let most = Duration::from_secs(if matches!(moment, Moment::Kind(_)) { 8 } else { 4 });
    let stream = &room.shop.stream;
    match moment {
        Moment::Told(more) => {
            let goal = stream.with(|heard| heard.events.len() as u64) + more;
            stream.hears(most, |heard| heard.events.len() as u64 >= goal).await;
        }
        Moment::Kept(more) => {
            let mut kept = room.headquarters.kept.clone();
            let goal = *kept.borrow() + more;
            let _ = tokio::time::timeout(most, kept.wait_for(|kept| *kept >= goal)).await;
        }
        Moment::Kind(kind) => {
            let goal = stream.with(|heard| heard.of(kind).len()) + 1;
            stream.hears(most, |heard| heard.of(kind).len() >= goal).await;
        }
    }
}

fn signal(room: &Showroom, victim: Victim, signal: Signal) {
    let pid = match victim {
        TheDaemon => room.daemon.as_ref().map(Daemon::pid),
        TheBroker => room.broker.pid(),
        TheHeadquarters => room.headquarters.pid(),
    };
    if let Some(pid) = pid {
        kill(Pid::from_raw(pid), signal).unwrap();
    }
}

async fn kill_one(room: &mut Showroom, victim: Victim) {
    match victim {
        TheDaemon => room.kill_daemon().await,
        TheBroker => room.broker.kill(),
        TheHeadquarters => room.headquarters.kill().await,
    }
}

async fn bring_back(room: &mut Showroom, victim: Victim) {
    match victim {
        TheDaemon => room.daemon = Some(Daemon::spawn(&room.desk.config())),
        TheBroker => room.broker.up().await,
        TheHeadquarters => room.headquarters.up(),
    }
}

async fn strike(room: &mut Showroom, dice: &mut Dice, round: &Round) {
    if matches!(round.blow, Blow::Freeze | Blow::FreezeThenKill) {
        for victim in &round.victims {
            signal(room, *victim, Signal::SIGSTOP);
        }
        tokio::time::sleep(round.away).await;
    }
    if round.blow == Blow::Freeze {
        for victim in &round.victims {
            signal(room, *victim, Signal::SIGCONT);
        }
        return;
    }
    if round.blow == Blow::Stop {
        for victim in &round.victims {
            signal(room, *victim, Signal::SIGTERM);
        }
        if round.victims.contains(&TheDaemon) {
            room.daemon_ended().await;
        }
    }
    for victim in &round.victims {
        kill_one(room, *victim).await;
    }
    if round.blow == Blow::KillTwice {
        for victim in &round.victims {
            bring_back(room, *victim).await;
        }
        // Anywhere between the first instruction and the work.
        tokio::time::sleep(dice.pause(600)).await;
        for victim in &round.victims {
            kill_one(room, *victim).await;
        }
    }
    tokio::time::sleep(round.away).await;
    for victim in &round.victims {
        bring_back(room, *victim).await;
    }
}

/// Until nothing of what is in the log now waits for its delivery, or the minutes are over.
async fn drained(room: &mut Showroom) -> Vec<judge::Logged> {
    let began = Instant::now();
    loop {
        let status = judge::status(&room.desk).await;
        let unsent: u64 = status["classes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|class| class["unsent_rows"].as_u64().unwrap())
            .sum();
        if unsent == 0 {
            assert_eq!(status["quarantined"], 0, "{status}");
            assert_eq!(status["epochs"], 1, "{status}");
            let log = judge::log(&room.desk).await;
            // Nothing came in between the two looks.
            if status["classes"]
                .as_array()
                .unwrap()
                .iter()
                .map(|class| class["last"].as_u64().unwrap())
                .sum::<u64>()
                == log.len() as u64
            {
                return log;
            }
        }
        assert!(
            began.elapsed() < LONG * 2,
            "{unsent} events are not delivered: {status}\n{}",
            room.last_log()
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// The answers that were given once are given again.
async fn assert_answers_stand(room: &Showroom) {
    let prints = room.shop.answers.prints.lock().unwrap().clone();
    for print in &prints {
        callers::assert_same_job(&room.shop, print).await;
    }
    let scans = room.shop.answers.scans.lock().unwrap().clone();
    for scan in &scans {
        callers::assert_same_scan(&room.shop, scan).await;
    }
    let keys = "SELECT count(*) FROM request WHERE idempotency_key IS NOT NULL AND kind";
    assert_eq!(count(&room.desk, &format!("{keys} = 'print.job'")), prints.len() as u64);
    assert_eq!(count(&room.desk, "SELECT count(*) FROM print_job"), prints.len() as u64);
    assert_eq!(count(&room.desk, &format!("{keys} = 'vehicle.scan'")), scans.len() as u64);
    let orders = room.orders.given.lock().unwrap().clone();
    let asked = orders.iter().filter(|order| order.name == "vehicle.scan").count() as u64;
    assert_eq!(count(&room.desk, "SELECT count(*) FROM command"), orders.len() as u64);
    let acted = "SELECT count(*) FROM request WHERE scope = 'hq' AND kind = 'vehicle.scan'";
    assert_eq!(count(&room.desk, acted), asked, "commands acted more or less than once");
    let list = callers::ask(&room.shop.socket, Method::GET, "/v1/tokens", None, None).await;
    for (id, revoked) in room.shop.answers.tokens.lock().unwrap().iter() {
        let found =
            list.body["tokens"].as_array().unwrap().iter().find(|token| token["id"] == id.to_string());
        let found = found.unwrap_or_else(|| panic!("token {id} was given out and is not known"));
        assert!(!*revoked || found["revoked_at"].is_string(), "token {id} was taken back and lives");
    }
}

/// What a run must have seen to prove anything.
fn assert_it_was_a_campaign(room: &Showroom, log: &[judge::Logged], rounds: u64) {
    let of = |class: &str| log.iter().filter(|event| event.class == class).count();
    for class in ["gateway", "card", "vehicle", "maintenance", "device", "telemetry"] {
        assert!(of(class) > 0, "no event of class {class}");
    }
    let answers = &room.shop.answers;
    let reported =
        answers.scans.lock().unwrap().iter().filter(|scan| scan.settled["failed"].is_null()).count();
    let told = format!(
        "{rounds} rounds: {} events, {} prints, {reported} scans, {} tokens, {} commands; headquarters: {:?}",
        log.len(),
        answers.prints.lock().unwrap().len(),
        answers.tokens.lock().unwrap().len(),
        room.orders.given.lock().unwrap().len(),
        room.headquarters.said.lock().unwrap().verdicts
    );
    println!("{told}");
    assert!(log.len() as u64 > 5 * rounds, "{told}");
    assert!(answers.prints.lock().unwrap().len() as u64 > rounds / 4 && reported > 0, "{told}");
    assert!(room.headquarters.verdicts("duplicate") > 0, "nothing was ever sent again: {told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_killed_nothing_is_lost_doubled_or_reordered() {
    let mut dice = Dice::throw("campaign with confirm = headquarters");
    let rounds = rounds(50);
    let broker = Broker::start().await;
    let uplink = broker.port;
    let mqtt = "confirm = \"headquarters\"\nconfirm_timeout = \"1s\"\n";
    let mut room = Showroom::open(&mut dice, broker, uplink, mqtt, true).await;
    room.command(&mut dice, false);
    let began = Instant::now();
    for number in 1..=rounds {
        let round = if number == rounds { Round::last() } else { Round::draw(&mut dice) };
        println!("{:>6.1} s, round {number}: {round:?}", began.elapsed().as_secs_f64());
        wait_for(&room, round.moment).await;
        tokio::time::sleep(round.late).await;
        strike(&mut room, &mut dice, &round).await;
    }
    room.close().await;
    println!("{:>6.1} s, the load has ended", began.elapsed().as_secs_f64());
    assert_answers_stand(&room).await;
    let log = drained(&mut room).await;
    println!("{:>6.1} s, drained", began.elapsed().as_secs_f64());
    judge::assert_log_is_whole(&log);
    let journal = showroom::headquarters::read_journal(&room.headquarters.journal);
    judge::assert_journal_agrees(&log, &journal, true);
    assert_eq!(journal.len(), log.len(), "headquarters lacks what it acknowledged");
    assert_eq!(room.headquarters.said.lock().unwrap().forks, Vec::<String>::new());
    judge::assert_told_is_kept(&room, &log);
    judge::assert_stories_are_whole(&room, &log);
    room.assert_no_panic();
    assert_it_was_a_campaign(&room, &log, rounds);
}

/// What counts as delivered in the log of a dead daemon had its PUBACK.
fn assert_delivered_had_its_puback(room: &Showroom, tap: &Tap) -> Snapshot {
    let (snapshot, seen) = (Snapshot::take(&room.desk), tap.seen());
    for (at, id) in snapshot.delivered_ids() {
        let pubacks = seen.get(&id).map_or(0, |(_, pubacks)| *pubacks);
        assert!(pubacks > 0, "class and sequence {at:?} count as delivered, without PUBACK");
    }
    snapshot
}

/// The line, not the processes: cut, or first no word of the broker comes through.
async fn break_line(tap: &Tap, dice: &mut Dice) {
    if dice.percent(50) {
        tap.swallow();
        tokio::time::sleep(dice.pause(300)).await;
    }
    tap.cut();
}

/// What this daemon has counted as acknowledged, over all classes.
async fn counted(room: &Showroom) -> u64 {
    let answer = callers::ask(&room.shop.socket, Method::GET, "/metrics", None, None).await;
    let text = answer.body.as_str().unwrap().to_owned();
    let lines = text.lines().filter(|line| line.starts_with("baygate_uplink_acked_total{"));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_brokers_word_each_event_has_its_puback_and_counts_once() {
    let mut dice = Dice::throw("campaign with confirm = broker");
    let rounds = rounds(20);
    let broker = Broker::start().await;
    let tap = Tap::on(broker.port).await;
    let mut room = Showroom::open(&mut dice, broker, tap.port, "confirm = \"broker\"\n", false).await;
    // From here on the broker keeps our session: a command that went out once must arrive.
    room.headquarters.kept.wait_for(|kept| *kept > 0).await.unwrap();
    room.command(&mut dice, true);
    let broker_dies_from = rounds * 6 / 10;
    let began = Instant::now();
    for number in 1..=rounds {
        if number == broker_dies_from {
            // Until now the broker lived: what it has, headquarters has.
            room.stop_orders.cancel();
            let goal = judge::log(&room.desk).await.len();
            let mut kept = room.headquarters.kept.clone();
            // Not a guard kept: it would hold up whoever counts.
            let arrival = async { kept.wait_for(|kept| *kept >= goal as u64).await.map(|_| ()) };
            let arrived = tokio::time::timeout(LONG, arrival).await.is_ok();
            assert!(arrived, "{} of {goal} arrived\n{}", *room.headquarters.kept.borrow(), room.last_log());
            let log = judge::log(&room.desk).await;
            let journal = showroom::headquarters::read_journal(&room.headquarters.journal);
            judge::assert_journal_agrees(&log, &journal, true);
            println!("{:>6.1} s, {} events at headquarters", began.elapsed().as_secs_f64(), journal.len());
        }
        let moment = Round::draw(&mut dice).moment;
        let (cut, dies) = (dice.percent(50), dice.percent(60));
        let broker = number >= broker_dies_from && dice.percent(70);
        println!(
            "{:>6.1} s, round {number}: {moment:?} {cut} {dies} {broker}",
            began.elapsed().as_secs_f64()
        );
        wait_for(&room, moment).await;
        tokio::time::sleep(dice.pause(60)).await;
        if cut {
            break_line(&tap, &mut dice).await;
        }
        if broker {
            room.broker.kill();
        }
        if dies {
            room.kill_daemon().await;
            assert_delivered_had_its_puback(&room, &tap);
            room.daemon = Some(Daemon::spawn(&room.desk.config()));
        }
        if broker {
            room.broker.up().await;
        }
    }
    // The last daemon lives to the end and loses its line only: what it counts, it counts once.
    room.kill_daemon().await;
    let before = assert_delivered_had_its_puback(&room, &tap).delivered_count();
    room.daemon = Some(Daemon::spawn(&room.desk.config()));
    for _ in 0..3 {
        wait_for(&room, Moment::Kept(5)).await;
        break_line(&tap, &mut dice).await;
    }
    room.close().await;
    println!("{:>6.1} s, the load has ended", began.elapsed().as_secs_f64());
    assert_answers_stand(&room).await;
    let log = drained(&mut room).await;
    println!("{:>6.1} s, drained", began.elapsed().as_secs_f64());
    judge::assert_log_is_whole(&log);
    let seen = tap.seen();
    for event in &log {
        assert!(seen.get(&event.id).is_some_and(|(_, pubacks)| *pubacks > 0), "no PUBACK: {event:?}");
    }
    assert_eq!(seen.len(), log.len(), "published, and not in the log");
    assert!(seen.values().any(|(published, _)| *published > 1), "nothing was ever sent again");
    for class in judge::status(&room.desk).await["classes"].as_array().unwrap() {
        assert_eq!(class["delivered"], class["last"], "{class}");
        assert_eq!(class["rows"], class["last"], "{class}");
    }
    assert_eq!(before + counted(&room).await, log.len() as u64, "an event was counted twice, or not");
    let journal = showroom::headquarters::read_journal(&room.headquarters.journal);
    judge::assert_journal_agrees(&log, &journal, false);
    assert_eq!(room.headquarters.said.lock().unwrap().forks, Vec::<String>::new());
    judge::assert_told_is_kept(&room, &log);
    judge::assert_stories_are_whole(&room, &log);
    room.assert_no_panic();
    assert_it_was_a_campaign(&room, &log, rounds);
}
