//! The maintenance service over a real log on disk: warnings are raised and
//! cleared across visits, once each, whatever is killed in between.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod reports;
mod rules_at_work;
#[path = "support/store.rs"]
mod store;

use std::io::{BufRead, Write};
use std::path::Path;
use std::sync::Arc;

use baygate::event::NewEvent;
use baygate::event::device::{DeviceState, DeviceStatus};
use baygate::event::vehicle::{DepartureReason, DtcState, VehicleReport};
use baygate::maintenance::{CURSOR, Rules};
use baygate::store::visits::VisitOp;
use baygate::store::{Batch, Offset, Op, Store};
use reports::{VIN, dtc, report, value};
use rules_at_work::{
    Service, cleared, dealt_with, log, shipped, standing, tell, tell_event, warnings, with_code,
};
use store::open_store as open;

#[tokio::test(flavor = "multi_thread")]
async fn a_warning_is_raised_once_and_cleared_at_a_later_visit() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let service = Service::start(&store, shipped());
    let first = with_code("P0420");
    dealt_with(&store, tell(&store, &first).await).await;

    let raised = warnings(&store, "dtc-confirmed").await;
    assert_eq!(raised.len(), 1);
    let warning = &raised[0];
    assert_eq!((warning.visit, warning.vin.as_ref().unwrap().as_str()), (first.visit, VIN));
    assert_eq!(warning.title.en, "Confirmed trouble codes: P0420");
    assert_eq!(warning.title.zh, "存在已确认故障码：P0420");
    assert_eq!(warning.evidence[0].value, "P0420");
    let event = &log(&store, "maintenance.warning").await[0].event;
    assert_eq!(event.subject, format!("vehicle/{VIN}"));
    assert_eq!(standing(&store, VIN).await, ["dtc-confirmed", "catalyst"], "as they were raised");

    // The same again at the next visit: nothing new to tell. Another code: the same warning, told again.
    dealt_with(&store, tell(&store, &with_code("P0420")).await).await;
    assert_eq!(warnings(&store, "dtc-confirmed").await.len(), 1);
    let mut worse = with_code("P0420");
    worse.ecus[0].dtcs.push(dtc("P0302", &[DtcState::Confirmed]));
    dealt_with(&store, tell(&store, &worse).await).await;
    let raised = warnings(&store, "dtc-confirmed").await;
    assert_eq!(raised.len(), 2);
    assert_eq!((raised[1].warning_id, raised[1].first_seen), (raised[0].warning_id, raised[0].first_seen));
    assert_eq!(raised[1].evidence[0].value, "P0302 P0420");

    // Repaired and driven: over, by name, once.
    let healthy = report();
    dealt_with(&store, tell(&store, &healthy).await).await;
    dealt_with(&store, tell(&store, &report()).await).await;
    let over = cleared(&store, "dtc-confirmed").await;
    assert_eq!(over.len(), 1);
    assert_eq!(
        (over[0].warning_id, over[0].visit, over[0].why.as_str()),
        (raised[0].warning_id, healthy.visit, "condition-gone")
    );
    assert!(standing(&store, VIN).await.is_empty());

    // It comes back: another warning.
    dealt_with(&store, tell(&store, &with_code("P0420")).await).await;
    assert_ne!(warnings(&store, "dtc-confirmed").await[2].warning_id, raised[0].warning_id);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_is_not_given_neither_raises_nor_clears() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let service = Service::start(&store, shipped());
    let mut hot = with_code("P0420");
    hot.ecus[0].values.push(value("coolant_temperature", 121));
    dealt_with(&store, tell(&store, &hot).await).await;
    let before = standing(&store, VIN).await;
    assert!(before.contains(&"coolant-overheat".to_owned()) && before.contains(&"dtc-confirmed".to_owned()));

    // Nothing answered, then: codes erased with a tool a moment ago.
    let mut silent = report();
    silent.ecus.clear();
    dealt_with(&store, tell(&store, &silent).await).await;
    let mut erased = report();
    erased.warmups_since_clear = Some(0);
    erased.distance_since_clear_km = Some(1);
    dealt_with(&store, tell(&store, &erased).await).await;
    let mut after = standing(&store, VIN).await;
    after.retain(|rule| rule != "codes-cleared-recently");
    assert_eq!(after, before);
    assert!(log(&store, "maintenance.cleared").await.is_empty());
    service.stop().await;
}

/// Not a test: the process that `killed_at_any_moment` starts and kills.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "started by killed_at_any_moment_nothing_is_doubled_or_lost"]
async fn a_life_to_be_killed() {
    let Ok(dir) = std::env::var("BAYGATE_TEST_DIR") else { return };
    let store = open(Path::new(&dir));
    let service = Service::start(&store, shipped());
    let mut head = store.head();
    loop {
        let cursor = store.read(|r| r.cursor(CURSOR)).await.unwrap().unwrap_or_default();
        let mut out = std::io::stdout().lock();
        writeln!(out, "cursor {}", cursor.0).unwrap();
        out.flush().unwrap();
        drop(out);
        tokio::select! { _ = head.changed() => {}, () = service.stop.cancelled() => break }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_moment_nothing_is_doubled_or_lost() {
    const CARS: usize = 60;
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut last = Offset(0);
    for n in 0..CARS {
        let mut car = with_code("P0301");
        car.vin = Some(format!("LSVAG2186E21{n:05}").parse().unwrap());
        last = tell(&store, &car).await;
    }
    store.close().await;
    drop(store);
    // Each life is killed (SIGKILL) after a few more steps of the cursor.
    let mut lives = 0;
    let mut reached = 0;
    while reached < last.0 {
        lives += 1;
        assert!(lives < 100, "no progress");
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "a_life_to_be_killed", "--nocapture"])
            .env("BAYGATE_TEST_DIR", dir.path())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
        let steps =
            lines.map_while(Result::ok).filter_map(|line| line.strip_prefix("cursor ")?.parse::<i64>().ok());
        let start = reached;
        for at in steps {
            reached = at;
            if at >= last.0 || at >= start + 9 {
                break;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(lives > 3, "{lives}");
    let store = open(dir.path());
    for rule in ["dtc-confirmed", "misfire"] {
        let raised = warnings(&store, rule).await;
        let cars: std::collections::BTreeSet<_> = raised.iter().map(|w| w.vin.clone().unwrap()).collect();
        assert_eq!((raised.len(), cars.len()), (CARS, CARS), "{rule}");
    }
}

/// Its effect and the cursor are one commit: no moment shows one without the other. A kill in
/// between would lose a warning, or tell it twice.
#[tokio::test(flavor = "multi_thread")]
async fn the_cursor_stands_behind_what_has_its_warnings_at_every_moment() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut reports = Vec::new();
    for n in 0..30 {
        let mut car = with_code("P0301");
        car.vin = Some(format!("LSVAG2186E21{n:05}").parse().unwrap());
        reports.push(tell(&store, &car).await);
    }
    let file = rusqlite::Connection::open(dir.path().join("baygate.db")).unwrap();
    // One statement, one moment.
    let mut moment = file
        .prepare(
            "SELECT (SELECT event_offset FROM cursor WHERE name = ?1),
                    (SELECT count(*) FROM event WHERE kind = 'maintenance.warning')",
        )
        .unwrap();
    let service = Service::start(&store, shipped());
    let mut looks = std::collections::BTreeSet::new();
    while !looks.contains(&reports.last().map(|last| last.0)) {
        let (cursor, told): (Option<i64>, i64) =
            moment.query_row([CURSOR], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        let read = reports.iter().map(|report| i64::from(Some(report.0) <= cursor)).sum::<i64>();
        // Two rules find something in each.
        assert_eq!(told, 2 * read, "at {cursor:?}");
        looks.insert(cursor);
    }
    assert!(looks.len() > 10, "{looks:?}");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_that_is_stopped_is_told_and_the_others_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let or = |term: &str| format!("({})", vec![term; 15].join(" || "));
    let long = or(&or(&or("car.has(\"never\")")));
    let rule = |id: &str, when: &str| {
        format!(
            r#"[[rule]]
id = "{id}"
version = 1
severity = "info"
confidence = "measured"
title = {{ zh = "测试", en = "Test" }}
advice = {{ zh = "测试", en = "Test" }}
when = '{when}'
[[rule.vector]]
expect = "raise"
car = {{ x = 2 }}
[[rule.vector]]
expect = "clear"
car = {{ x = 0 }}
[[rule.vector]]
expect = "unknown"
car = {{ y = 0 }}
"#
        )
    };
    let text =
        rule("runaway", &format!("car.x > 1 && (car.x < 3 || {long})")) + rule("calm", "car.x > 1").as_str();
    let rules = Arc::new(Rules::parse(&[("test.toml".into(), text)]).unwrap());
    let service = Service::start(&store, rules);
    let mut car = report();
    car.ecus[0].values = vec![value("x", 5)];
    dealt_with(&store, tell(&store, &car).await).await;
    assert_eq!(standing(&store, VIN).await, ["calm"]);
    let troubles = service.health.troubles();
    assert_eq!(troubles.len(), 1, "{troubles:?}");
    assert_eq!((troubles[0].part.as_str(), troubles[0].code.as_str()), ("rule/runaway", "step-limit"));
    assert!(troubles[0].text.en.contains("baygate check") && troubles[0].text.zh.contains("baygate check"));

    // The rules are replaced: the removed one's warning ends, the trouble is gone.
    let other = Rules::parse(&[("test.toml".into(), rule("other", "car.x > 1"))]).unwrap();
    service.rules.send(Arc::new(other)).unwrap();
    dealt_with(&store, tell(&store, &car).await).await;
    assert_eq!(standing(&store, VIN).await, ["other"]);
    assert_eq!(cleared(&store, "calm").await[0].why, "rule-removed");
    assert!(service.health.troubles().is_empty());
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_whose_warning_cannot_be_written_holds_up_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let often = "{note}".repeat(20);
    let rule = format!(
        r#"[[rule]]
id = "chatty"
version = 1
severity = "info"
confidence = "measured"
title = {{ zh = "{often}", en = "Test" }}
advice = {{ zh = "测试", en = "Test" }}
when = 'car.x > 1'
[[rule.evidence]]
name = "note"
value = 'car.note'
[[rule.vector]]
expect = "raise"
car = {{ x = 2, note = "short" }}
[[rule.vector]]
expect = "clear"
car = {{ x = 0, note = "short" }}
[[rule.vector]]
expect = "unknown"
car = {{ y = 0 }}
"#
    );
    let service = Service::start(&store, Arc::new(Rules::parse(&[("test.toml".into(), rule)]).unwrap()));
    let mut car = report();
    // Twenty times this is more than an event may have.
    car.ecus[0].values = vec![value("x", 5), value("note", "n".repeat(4_000))];
    dealt_with(&store, tell(&store, &car).await).await;
    car.ecus[0].values = vec![value("x", 5), value("note", "short")];
    dealt_with(&store, tell(&store, &car).await).await;
    assert_eq!(standing(&store, VIN).await, ["chatty"]);
    assert_eq!(warnings(&store, "chatty").await.len(), 1);
    service.stop().await;
}

/// Whoever waits for the warnings of a scan waits until the cursor is past the youngest report.
#[tokio::test(flavor = "multi_thread")]
async fn a_report_of_another_version_is_passed_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let service = Service::start(&store, shipped());
    let mut unreadable = NewEvent::now("visit/x", &report()).unwrap();
    unreadable.data = serde_json::value::RawValue::from_string("{}".into()).unwrap();
    dealt_with(&store, tell_event(&store, unreadable).await).await;
    dealt_with(&store, tell(&store, &with_code("P0420")).await).await;
    assert_eq!(warnings(&store, "dtc-confirmed").await.len(), 1);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn warnings_of_an_unnamed_car_move_to_its_vin() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let service = Service::start(&store, shipped());
    let mut car = with_code("P0562");
    car.vin = None;
    dealt_with(&store, tell(&store, &car).await).await;
    let key = format!("visit/{}", car.visit);
    let of_visit = |key: String, store: Store| async move {
        store.read(move |r| r.standing_warnings(&key)).await.unwrap().len()
    };
    assert_eq!(of_visit(key.clone(), store.clone()).await, 1);
    assert_eq!(log(&store, "maintenance.warning").await[0].event.subject, key);
    car.vin = Some(VIN.parse().unwrap());
    dealt_with(&store, tell(&store, &car).await).await;
    assert_eq!(of_visit(key, store.clone()).await, 0);
    assert_eq!(standing(&store, VIN).await, ["dtc-confirmed"]);
    assert_eq!(cleared(&store, "dtc-confirmed").await[0].why, "car-identified");

    // It was another's VIN: the other car has no part in it.
    car.vin = Some("1M8GDM9AXKP042788".parse().unwrap());
    dealt_with(&store, tell(&store, &car).await).await;
    assert!(standing(&store, VIN).await.is_empty());
    assert_eq!(standing(&store, "1M8GDM9AXKP042788").await, ["dtc-confirmed"]);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn typing_into_an_old_visit_is_no_news() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (monday, wednesday) = (with_code("P0562"), report());
    for report in [&monday, &wednesday] {
        let (visit, link) = (report.visit, "bay-1".parse().unwrap());
        let vin = report.vin.clone();
        let ops = [
            VisitOp::Open { visit, link, vin: vin.clone(), protocol: "iso9141-2".into() },
            VisitOp::Report { visit, vin, report: serde_json::value::to_raw_value(report).unwrap() },
            VisitOp::Close { visit, reason: DepartureReason::Unplugged },
        ];
        let batch = ops.into_iter().fold(Batch::new(), |batch, op| batch.op(Op::Visit(op)));
        let event = NewEvent::now(format!("visit/{visit}"), report).unwrap();
        store.commit(batch.event(event)).await.unwrap();
        // The next visit begins at a later millisecond.
        let now = baygate::clock::UtcMillis::now();
        while baygate::clock::UtcMillis::now() == now {}
    }
    // The service comes late: each report is judged all the same.
    let service = Service::start(&store, shipped());
    dealt_with(&store, tell(&store, &wednesday).await).await;
    assert_eq!(warnings(&store, "dtc-confirmed").await.len(), 1);
    assert_eq!(cleared(&store, "dtc-confirmed").await.len(), 1);
    let typed = VehicleReport { order: Some("R-1".into()), ..monday };
    dealt_with(&store, tell(&store, &typed).await).await;
    assert_eq!(warnings(&store, "dtc-confirmed").await.len(), 1, "not again");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_events_move_the_cursor_in_few_commits() {
    const OTHERS: usize = 2_000;
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for _ in 0..OTHERS / 100 {
        let state = DeviceState { state: DeviceStatus::Ready, reason: None, detail: None };
        let batch = (0..100).fold(Batch::new(), |b, _| b.event(NewEvent::now("reader/r", &state).unwrap()));
        store.commit(batch).await.unwrap();
    }
    let before = store.head().borrow().commits;
    let service = Service::start(&store, shipped());
    let last = tell(&store, &with_code("P0420")).await;
    dealt_with(&store, last).await;
    let commits = store.head().borrow().commits - before;
    assert!(commits <= 8, "{commits} commits for {OTHERS} events");
    service.stop().await;
    assert!(store.read(|r| r.cursor(CURSOR)).await.unwrap().unwrap() >= last);
}
