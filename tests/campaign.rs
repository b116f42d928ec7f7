//! The campaigns: daemon, broker and headquarters are killed at random moments
//! while cars, cards, printers, tills and headquarters go on. At the end the
//! callers' memory, the log and headquarters' journal are compared.
//!
//! The seed is printed. `BAYGATE_SEED` repeats a run's plan, `BAYGATE_ROUNDS` makes it longer.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/daemon.rs"]
mod daemon;
mod showroom;
#[path = "support/until.rs"]
mod until;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use baygate::api::client::Method;
use daemon::LONG;
use serde_json::Value;
use showroom::broker::Broker;
use showroom::devices::BUS;
use showroom::dice::{Dice, rounds};
use showroom::faults::{self, Moment, Round, Victim, kill_one, strike, wait_for};
use showroom::snapshot::count;
use showroom::tap::Tap;
use showroom::till::Deed;
use showroom::{Showroom, callers, judge, money};
use until::until_ok;

/// The log forgets a token that was taken back behind the newest 1,000, and a quick machine makes
/// more of them. Of some of those the caller never knew: the daemon died before it could answer.
const KEPT_TOKENS: usize = 1_000 - 100;

/// The slowest sources have told something as well, however often the daemon died under them.
async fn every_source_has_spoken(room: &Showroom) {
    for kind in ["card.removed", "vehicle.departed", "vehicle.signals", "maintenance.warning"] {
        let spoken = room.shop.stream.hears(LONG * 2, |heard| !heard.of(kind).is_empty()).await;
        assert!(spoken, "no {kind} ever came\n{}", room.last_log());
    }
    let on_the_bus = |data: &Value| data["link"] == BUS;
    let spoken = room.shop.stream.hears(LONG * 2, |h| h.of("vehicle.report").iter().any(on_the_bus)).await;
    assert!(spoken, "no truck was ever reported\n{}", room.last_log());
}

/// Until nothing of what is in the log now waits for its delivery, or the minutes are over.
async fn drained(room: &mut Showroom) -> (Vec<judge::Logged>, Value) {
    // Each look is a process.
    let often = Duration::from_millis(100);
    let (status, log) = until_ok(LONG * 2, often, async || {
        let status = judge::status(&room.desk).await;
        let classes = status["classes"].as_array().unwrap();
        let sum = |of: &str| classes.iter().map(|class| class[of].as_u64().unwrap()).sum::<u64>();
        let (unsent, last) = (sum("unsent_rows"), sum("last"));
        if unsent > 0 {
            return Err(format!("{unsent} events are not delivered: {status}\n{}", room.last_log()));
        }
        let log = judge::log(&room.desk).await;
        // Nothing came in between the two looks.
        if last != log.len() as u64 {
            return Err(format!("{last} events, and then {}", log.len()));
        }
        Ok((status, log))
    })
    .await;
    assert_eq!(status["quarantined"], 0, "{status}");
    assert_eq!(status["epochs"], 1, "{status}");
    (log, status)
}

struct End<T> {
    /// Told to callers before the log was read.
    furthest_told: u64,
    log: Vec<judge::Logged>,
    /// What counts as delivered.
    status: Value,
    /// What others saw.
    seen: T,
}

/// At a moment when nothing was added: a device whose other end has gone still says so when the
/// load has ended.
async fn at_the_end<T>(room: &mut Showroom, seen: impl Fn(&Showroom) -> T) -> End<T> {
    let deadline = Instant::now() + LONG;
    loop {
        let furthest_told = judge::furthest_told(room);
        let (log, status) = drained(room).await;
        let seen = seen(room);
        if judge::log(&room.desk).await.len() == log.len() {
            return End { furthest_told, log, status, seen };
        }
        assert!(Instant::now() < deadline, "something is added all the time");
    }
}

fn journal(room: &Showroom) -> Vec<showroom::headquarters::Entry> {
    showroom::headquarters::read_journal(&room.headquarters.journal)
}

/// The answers that were given once are given again.
async fn assert_answers_stand(room: &Showroom) {
    // A long campaign has thousands: some from all its times.
    let some = |all: usize| (all / 40).max(1);
    let prints = room.shop.answers.prints.lock().unwrap().clone();
    for print in prints.iter().step_by(some(prints.len())) {
        callers::assert_same_job(&room.shop, print).await;
    }
    let scans = room.shop.answers.scans.lock().unwrap().clone();
    for scan in scans.iter().step_by(some(scans.len())) {
        callers::assert_same_scan(&room.shop, scan).await;
    }
    let deeds = room.shop.answers.till.done();
    for deed in deeds.iter().step_by(some(deeds.len())) {
        money::assert_same_deed(&room.shop, deed).await;
    }
    let keys = "SELECT count(*) FROM request WHERE idempotency_key IS NOT NULL AND kind";
    assert_eq!(
        count(&room.desk, &format!("{keys} IN ('card.issue', 'card.transaction')")),
        deeds.len() as u64
    );
    assert_eq!(count(&room.desk, &format!("{keys} = 'print.job'")), prints.len() as u64);
    assert_eq!(count(&room.desk, "SELECT count(*) FROM print_job"), prints.len() as u64);
    assert_eq!(count(&room.desk, &format!("{keys} = 'vehicle.scan'")), scans.len() as u64);
    let orders = room.orders.given.lock().unwrap().clone();
    let asked = orders.iter().filter(|order| order.name == "vehicle.scan").count() as u64;
    assert_eq!(count(&room.desk, "SELECT count(*) FROM command"), orders.len() as u64);
    let acted = "SELECT count(*) FROM request WHERE scope = 'hq' AND kind = 'vehicle.scan'";
    assert_eq!(count(&room.desk, acted), asked, "commands acted more or less than once");
    let list = callers::ask(&room.shop.socket, Method::GET, "/v1/tokens", None, None).await;
    let tokens = room.shop.answers.tokens.lock().unwrap();
    for ((id, revoked), newer) in tokens.iter().zip((0..tokens.len()).rev()) {
        let found =
            list.body["tokens"].as_array().unwrap().iter().find(|token| token["id"] == id.to_string());
        match found {
            // Taken back, and behind the newest that are kept (docs/architecture.md).
            None => assert!(
                *revoked && newer >= KEPT_TOKENS,
                "token {id} was given out, {newer} after it, and is not known\n{}",
                room.last_log()
            ),
            Some(found) => {
                assert!(!*revoked || found["revoked_at"].is_string(), "token {id} was taken back and lives");
            }
        }
    }
}

/// What a run must have seen to prove anything.
fn assert_it_was_a_campaign(room: &Showroom, log: &[judge::Logged], rounds: u64) {
    let of = |class: &str| log.iter().filter(|event| event.class == class).count();
    for class in ["ledger", "gateway", "card", "vehicle", "maintenance", "device", "telemetry"] {
        assert!(of(class) > 0, "no event of class {class}");
    }
    // A bus that broadcasts is a source of its own: its codes come unasked.
    let on_the_bus = |kind: &str| {
        let of_it = |event: &&judge::Logged| event.kind == kind && event.data["link"] == BUS;
        log.iter().filter(of_it).collect::<Vec<_>>()
    };
    let arrived = on_the_bus("vehicle.arrived");
    assert!(
        !arrived.is_empty() && arrived.iter().all(|event| event.data["protocol"] == "j1939"),
        "{arrived:?}"
    );
    let trucks = on_the_bus("vehicle.report");
    assert!(trucks.iter().any(|report| report.data.to_string().contains("SPN100-1")), "{trucks:?}");
    let answers = &room.shop.answers;
    let reported =
        answers.scans.lock().unwrap().iter().filter(|scan| scan.settled["failed"].is_null()).count();
    let deeds = answers.till.done();
    let done = deeds.iter().filter(|deed| deed.status < 300).count() as u64;
    let torn = deeds.iter().filter(|deed| deed.answer["code"] == "not-written").count();
    let cut_off = room.shop.till_place.cut_off.load(Ordering::Relaxed);
    let told = format!(
        "{rounds} rounds: {} events, {} trucks, {} prints, {reported} scans, {} tokens, {} commands, {done} of {} deeds \
         on {} members' cards ({cut_off} times without an answer, {torn} not written); killed: {:?}; headquarters: {:?}",
        log.len(),
        trucks.len(),
        answers.prints.lock().unwrap().len(),
        answers.tokens.lock().unwrap().len(),
        room.orders.given.lock().unwrap().len(),
        deeds.len(),
        answers.till.members.lock().unwrap().len(),
        room.killed,
        room.headquarters.said.lock().unwrap().verdicts
    );
    println!("{told}");
    for kind in ["card.issue", "topup", "spend"] {
        let of = |deed: &&Deed| deed.body["kind"].as_str().unwrap_or("card.issue") == kind;
        assert!(deeds.iter().filter(of).any(|deed| deed.status < 300), "no {kind}: {told}");
    }
    assert!(done > rounds / 2 && cut_off > 0, "{told}");
    assert!(log.len() as u64 > 5 * rounds, "{told}");
    assert!(answers.prints.lock().unwrap().len() as u64 > rounds / 4 && reported > 0, "{told}");
    assert!(room.headquarters.verdicts("duplicate") > 0, "nothing was ever sent again: {told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_killed_nothing_is_lost_doubled_or_reordered() {
    let mut dice = Dice::throw("campaign with confirm = headquarters");
    let rounds = rounds(50);
    let broker = Broker::start().await;
    // Headquarters keeps nothing that comes out of order: only on the wire is the order seen.
    let tap = Tap::on(broker.port).await;
    let uplink = tap.port;
    let mqtt = "confirm = \"headquarters\"\nconfirm_timeout = \"1s\"\n";
    let mut room = Showroom::open(&mut dice, broker, uplink, mqtt, true).await;
    room.command(&mut dice, false);
    let began = Instant::now();
    let mut number = 0;
    for round in faults::plan(&mut dice, rounds) {
        number += u64::from(round.kills());
        if round.kills() && number + 1 == rounds {
            every_source_has_spoken(&room).await;
        }
        println!("{:>6.1} s, round {number}: {round:?}", began.elapsed().as_secs_f64());
        wait_for(&room, round.moment).await;
        // The drawn moment of the blow: input, nothing is waited for.
        tokio::time::sleep(round.late).await;
        strike(&mut room, &mut dice, &round).await;
    }
    assert_eq!(number, rounds);
    for (victim, least) in faults::least(rounds) {
        assert!(room.killed.get(&victim) >= Some(&least), "{victim:?}: {:?}", room.killed);
    }
    room.close().await;
    println!("{:>6.1} s, the load has ended", began.elapsed().as_secs_f64());
    assert_answers_stand(&room).await;
    println!("{:>6.1} s, asked again", began.elapsed().as_secs_f64());
    let End { furthest_told, log, seen: journal, .. } = at_the_end(&mut room, journal).await;
    println!("{:>6.1} s, drained", began.elapsed().as_secs_f64());
    judge::assert_log_is_whole(&log);
    tap.assert_in_order();
    judge::assert_journal_agrees(&log, &journal, true);
    assert_eq!(journal.len(), log.len(), "headquarters lacks what it acknowledged");
    assert_each_counted_once(&room).await;
    assert_eq!(room.headquarters.said.lock().unwrap().forks, Vec::<String>::new());
    judge::assert_told_is_kept(&room, &log, furthest_told);
    judge::assert_stories_are_whole(&room, &log);
    money::assert_the_money_adds_up(&room, &log).await;
    room.assert_no_panic();
    assert_it_was_a_campaign(&room, &log, rounds);
}

/// What counts as delivered in the log of the dead daemon had its PUBACK.
fn assert_delivered_had_its_puback(room: &Showroom, tap: &Tap) {
    let seen = tap.seen();
    for (at, id) in room.at_rest.delivered_ids() {
        let pubacks = seen.get(&id).map_or(0, |(_, pubacks)| *pubacks);
        assert!(pubacks > 0, "class and sequence {at:?} count as delivered, without PUBACK");
    }
}

/// The line, not the processes: cut, or first no word of the broker comes through.
async fn break_line(tap: &Tap, dice: &mut Dice) {
    if dice.percent(50) {
        tap.swallow();
        // How long it stays so is drawn: input, nothing is waited for.
        tokio::time::sleep(dice.pause(300)).await;
    }
    tap.cut();
}

/// What the daemon that lives now has counted as acknowledged, over all classes.
async fn counted(room: &Showroom) -> u64 {
    let answer = callers::ask(&room.shop.socket, Method::GET, "/metrics", None, None).await;
    let text = answer.body.as_str().unwrap().to_owned();
    let lines = text.lines().filter(|line| line.starts_with("baygate_uplink_acked_total{"));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

/// It is what was delivered in its life, no more and no less. Counted at once and committed
/// a moment later: the two must meet.
async fn assert_each_counted_once(room: &Showroom) {
    let before = room.at_rest.delivered_count();
    until_ok(LONG, Duration::from_millis(100), async || {
        let status = judge::status(&room.desk).await;
        let classes = status["classes"].as_array().unwrap();
        let delivered: u64 = classes.iter().map(|class| class["delivered"].as_u64().unwrap()).sum();
        let counted = counted(room).await;
        let met = before + counted == delivered;
        met.then_some(())
            .ok_or_else(|| format!("delivered: {before} before, {delivered} now; counted since: {counted}"))
    })
    .await;
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
            // In this order: what is in the journal was in the log before.
            let journal = showroom::headquarters::read_journal(&room.headquarters.journal);
            let log = judge::log(&room.desk).await;
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
        // The drawn moment of the blow: input, nothing is waited for.
        tokio::time::sleep(dice.pause(60)).await;
        if cut {
            break_line(&tap, &mut dice).await;
        }
        if broker {
            kill_one(&mut room, Victim::Broker).await;
        }
        if dies {
            kill_one(&mut room, Victim::Daemon).await;
            assert_delivered_had_its_puback(&room, &tap);
            room.start_daemon();
        }
        if broker {
            room.broker.up().await;
        }
    }
    every_source_has_spoken(&room).await;
    // The last daemon lives to the end and loses its line only: what it counts, it counts once.
    kill_one(&mut room, Victim::Daemon).await;
    assert_delivered_had_its_puback(&room, &tap);
    room.start_daemon();
    for _ in 0..3 {
        wait_for(&room, Moment::Kept(5)).await;
        break_line(&tap, &mut dice).await;
    }
    room.close().await;
    println!("{:>6.1} s, the load has ended", began.elapsed().as_secs_f64());
    assert_answers_stand(&room).await;
    println!("{:>6.1} s, asked again", began.elapsed().as_secs_f64());
    let seen = |room: &Showroom| (tap.seen(), tap.bodies(), journal(room));
    let End { furthest_told, log, status, seen: (seen, bodies, journal) } = at_the_end(&mut room, seen).await;
    println!("{:>6.1} s, drained", began.elapsed().as_secs_f64());
    judge::assert_log_is_whole(&log);
    tap.assert_in_order();
    for event in &log {
        assert!(seen.get(&event.id).is_some_and(|(_, pubacks)| *pubacks > 0), "no PUBACK: {event:?}");
        assert_eq!(
            bodies.get(&event.id),
            Some(&event.sha256),
            "published otherwise than it stands: {event:?}"
        );
    }
    assert_eq!(seen.len(), log.len(), "published, and not in the log");
    assert!(seen.values().any(|(published, _)| *published > 1), "nothing was ever sent again");
    for class in status["classes"].as_array().unwrap() {
        assert_eq!(class["delivered"], class["last"], "{class}");
        assert_eq!(class["rows"], class["last"], "{class}");
    }
    assert_each_counted_once(&room).await;
    for (victim, least) in [(Victim::Daemon, rounds / 4), (Victim::Broker, rounds / 10)] {
        assert!(room.killed.get(&victim) >= Some(&least), "{victim:?}: {:?}", room.killed);
    }
    judge::assert_journal_agrees(&log, &journal, false);
    assert_eq!(room.headquarters.said.lock().unwrap().forks, Vec::<String>::new());
    judge::assert_told_is_kept(&room, &log, furthest_told);
    judge::assert_stories_are_whole(&room, &log);
    money::assert_the_money_adds_up(&room, &log).await;
    room.assert_no_panic();
    assert_it_was_a_campaign(&room, &log, rounds);
}
