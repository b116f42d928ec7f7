use super::*;
use crate::clock::UtcMillis;
use crate::store::connection;
use std::time::Duration;

const DAY: i64 = 86_400_000;
const NOW: i64 = 1_795_000_000_000;

fn empty() -> Connection {
    let mut conn = Connection::open_in_memory().unwrap();
    connection::migrate(&mut conn).unwrap();
    conn
}

fn at(wall: i64, quality: TimeQuality, steady_days: u64) -> Reading {
    Reading {
        wall: UtcMillis(wall),
        quality,
        wall_at_boot: UtcMillis(0),
        steady: Duration::from_secs(steady_days * 86_400),
    }
}

fn count(conn: &Connection, what: &str) -> i64 {
    conn.query_row(&format!("SELECT count(*) FROM {what}"), [], |row| row.get(0)).unwrap()
}

/// Sweeps until nothing changes; says in how many steps, each of which must be small.
fn sweep(conn: &Connection, limits: &HistoryLimits, now: Reading) -> u32 {
    let mut steps = 0;
    for part in 0.. {
        loop {
            let before = conn.total_changes();
            let Some(step) = sweep_step(conn, part, limits, now).unwrap() else { return steps };
            assert!(conn.total_changes() - before <= 200, "a large step in part {part}");
            steps += u32::from(step.changed);
            if !step.more {
                break;
            }
        }
    }
    steps
}

fn few() -> HistoryLimits {
    HistoryLimits { visits: 10, warnings: 20, print_jobs: 10, requests: 10, commands: 10 }
}

/// A hundred rows of everything, every tenth of them open; the clock ran backwards meanwhile.
fn filled() -> Connection {
    let conn = empty();
    for n in 0..100_i64 {
        let (id, when, open) = (uuid::Uuid::from_u128(n.unsigned_abs().into()), NOW - n * DAY, n % 10 == 0);
        let id_bytes = id.as_bytes().as_slice();
        let ended = (!open).then_some(when);
        let run = |sql: &str, values: &[&dyn rusqlite::ToSql]| conn.execute(sql, values).unwrap();
        run(
            "INSERT INTO visit (id, link, vin, protocol, started_at, ended_at) VALUES (?1, ?2, ?3, 'p', ?4, ?5)",
            &[&id_bytes, &format!("bay-{n}"), &format!("VIN{n}"), &when, &ended],
        );
        // Two warnings a car: by VIN one that stands and one that is over; every tenth by its visit.
        let car = if open { format!("visit/{id}") } else { format!("VIN{n}") };
        for (rule, cleared) in [("standing", None), ("over", Some(when))] {
            run(
                "INSERT INTO warning (id, car, rule, event, first_seen, cleared_at) VALUES (randomblob(16), ?1, ?2, '{}', ?3, ?4)",
                &[&car, &rule, &when, &cleared],
            );
        }
        run(
            "INSERT INTO print_job (id, printer, template, fields, state, created_at, changed_at) VALUES (?1, 'p', 't', '{}', ?2, ?3, ?3)",
            &[&id_bytes, &if open { "queued" } else { "done" }, &when],
        );
        for (more, key) in [(0, None), (1000, Some(format!("key-{n}")))] {
            let id = uuid::Uuid::from_u128((n + more).unsigned_abs().into());
            run(
                "INSERT INTO request (id, kind, target, scope, idempotency_key, body_sha256, body, state, created_at, settled_at)
                 VALUES (?1, 'k', 't', 's', ?2, x'', '{}', ?3, ?4, ?5)",
                &[&id.as_bytes().as_slice(), &key, &if open { "pending" } else { "done" }, &when, &ended],
            );
        }
        run(
            "INSERT INTO command (id, name, body_sha256, received_at) VALUES (?1, 'ping', x'', ?2)",
            &[&id_bytes, &when],
        );
    }
    conn
}

#[test]
fn the_newest_stay_and_what_is_open() {
    let conn = filled();
    let steps = sweep(&conn, &few(), at(NOW, TimeQuality::Unsynced, 0));
    assert!(steps > 8, "in small steps, not {steps}");
    for (what, left) in [
        // 9 ended ones among the last 10, and 10 open ones.
        ("visit", 19),
        ("visit WHERE ended_at IS NULL", 10),
        ("visit WHERE rowid > 90", 10),
        ("print_job", 19),
        ("print_job WHERE state = 'queued'", 10),
        ("command", 10),
        ("command WHERE rowid > 90", 10),
        // Of 200 requests the last ten rows hold five without a key.
        ("request WHERE idempotency_key IS NULL AND settled_at IS NOT NULL", 5),
        ("request WHERE settled_at IS NULL", 20),
        ("request WHERE idempotency_key IS NOT NULL", 100),
        // Warnings of the cars of kept visits stand; cleared ones stay among the last 20 rows.
        ("warning WHERE cleared_at IS NULL", 19),
        ("warning WHERE cleared_at IS NOT NULL", 10),
    ] {
        assert_eq!(count(&conn, what), left, "{what}");
    }
    assert_eq!(sweep(&conn, &few(), at(NOW, TimeQuality::Unsynced, 0)), 0, "nothing is left to do");
}

#[test]
fn nothing_goes_below_the_limits() {
    let conn = filled();
    let tables = ["visit", "warning", "print_job", "request", "command"];
    let before = tables.map(|table| count(&conn, table));
    let limits = HistoryLimits::default();
    assert_eq!(sweep(&conn, &limits, at(NOW + 10 * 365 * DAY, TimeQuality::Unsynced, 29)), 0);
    assert_eq!(tables.map(|table| count(&conn, table)), before);
    // Tight space takes ended visits, jobs and keyless requests down to the spare ones, no more.
    conn.execute("UPDATE visit SET rowid = rowid + 1000 WHERE rowid > 50", []).unwrap();
    while relieve(&conn).unwrap().changed {}
    assert_eq!(count(&conn, "visit"), 50 + 5);
    assert_eq!(count(&conn, "request WHERE idempotency_key IS NOT NULL"), 100);
    assert_eq!(count(&conn, "print_job"), 100);
}

#[test]
fn keys_are_kept_thirty_days_whatever_the_clock_does() {
    use TimeQuality::{Synced, Unsynced};
    let key = |conn: &Connection, settled_at: i64| {
        conn.execute("DELETE FROM request", []).unwrap();
        conn.execute(
            "INSERT INTO request (id, kind, target, scope, idempotency_key, body_sha256, body, state, created_at, settled_at)
             VALUES (x'00', 'k', 't', 's', 'key', x'', '{}', 'done', 0, ?1)",
            [settled_at],
        )
        .unwrap();
    };
    let conn = empty();
    let decade = NOW + 3650 * DAY;
    // (settled, looked at, whether it is still there)
    for (case, settled, looked, kept) in [
        ("a month is not over", at(NOW - 29 * DAY, Synced, 0), at(NOW, Synced, 0), true),
        ("a month is over", at(NOW - 31 * DAY, Synced, 0), at(NOW, Synced, 0), false),
        ("a jump of ten years", at(NOW, Synced, 0), at(decade, Unsynced, 0), true),
        ("ten years ahead, then right", at(decade, Unsynced, 0), at(NOW, Synced, 0), true),
        ("in 1970, then right", at(5_000, Unsynced, 0), at(NOW, Synced, 0), true),
        ("at the factory's date, then right", at(NOW - 400 * DAY, Unsynced, 0), at(NOW, Synced, 0), true),
        ("never set, steady for 29 days", at(5_000, Unsynced, 0), at(31 * DAY, Unsynced, 29), true),
        ("never set, steady for 30 days", at(5_000, Unsynced, 0), at(31 * DAY, Unsynced, 30), false),
        ("never set, steady, but new", at(2 * DAY, Unsynced, 0), at(31 * DAY, Unsynced, 30), true),
    ] {
        key(&conn, settled_at(settled));
        sweep(&conn, &few(), looked);
        assert_eq!(count(&conn, "request") == 1, kept, "{case}");
    }
    // Once the clock is right its age counts from then.
    key(&conn, settled_at(at(5_000, Unsynced, 0)));
    sweep(&conn, &few(), at(NOW, Synced, 0));
    sweep(&conn, &few(), at(NOW + 29 * DAY, Synced, 0));
    assert_eq!(count(&conn, "request"), 1);
    sweep(&conn, &few(), at(NOW + 31 * DAY, Synced, 0));
    assert_eq!(count(&conn, "request"), 0);
}

#[test]
fn adapters_are_a_bounded_memory() {
    let conn = empty();
    for n in 0..1000 {
        let identity = format!("ELM {n}");
        room_for_adapter(&conn, &identity).unwrap();
        conn.execute("INSERT OR REPLACE INTO adapter VALUES (?1, '{}')", [&identity]).unwrap();
        assert!(count(&conn, "adapter") <= MOST_ADAPTERS, "after {n}");
        assert_eq!(count(&conn, &format!("adapter WHERE identity = '{identity}'")), 1);
    }
}

#[test]
fn what_is_read_is_in_the_order_of_arrival_whatever_the_clock_did() {
    let conn = empty();
    for n in 0..3_u8 {
        let (id, when) = (vec![n; 16], NOW - i64::from(n) * DAY);
        conn.execute(
            "INSERT INTO visit (id, link, vin, protocol, started_at, ended_at) VALUES (?1, 'bay-1', '1M8GDM9AXKP042788', 'p', ?2, ?2)",
            params![id, when],
        )
        .unwrap();
        conn.execute(
            "INSERT INTO print_job (id, printer, template, fields, state, created_at, changed_at) VALUES (?1, 'p', 't', '{}', 'queued', ?2, ?2)",
            params![id, when],
        )
        .unwrap();
        conn.execute(
            "INSERT INTO request (id, kind, target, scope, body_sha256, body, state, created_at) VALUES (?1, 'k', 't', 's', x'', '{}', 'pending', ?2)",
            params![id, when],
        )
        .unwrap();
    }
    let reader = crate::store::Reader { conn: &conn };
    let first = |id: uuid::Uuid| id.as_bytes()[0];
    let visits = reader.visits_of(&"1M8GDM9AXKP042788".parse().unwrap(), 10).unwrap();
    assert_eq!(visits.iter().map(|row| first(row.visit)).collect::<Vec<_>>(), [2, 1, 0], "newest first");
    let jobs = reader.open_print_jobs(&"p".parse().unwrap()).unwrap();
    assert_eq!(jobs.iter().map(|row| first(row.job)).collect::<Vec<_>>(), [0, 1, 2]);
    let requests = reader.open_requests("k", None).unwrap();
    assert_eq!(requests.iter().map(|row| first(row.id)).collect::<Vec<_>>(), [0, 1, 2]);
}

#[test]
fn money_that_is_on_no_card_is_not_forgotten() {
    let conn = empty();
    let giving = r#"{"kind":"transfer","card_no":"8800001"}"#;
    // (id, state, original, fact, stays)
    let rows: [(u8, &str, Option<u8>, &str, bool); 9] = [
        (1, "committed", None, giving, false),
        (2, "committed", Some(1), giving, false),
        (3, "committed", None, giving, true),
        (4, "aborted", Some(3), giving, false),
        (5, "aborted", None, giving, false),
        (6, "committed", None, giving, false),
        (7, "committed", Some(6), r#"{"kind":"void"}"#, false),
        (8, "committed", None, r#"{"kind":"spend"}"#, false),
        (9, "unknown", None, r#"{"kind":"spend"}"#, true),
    ];
    for (id, state, original, fact, _) in rows {
        let bytes = |id: u8| vec![id; 16];
        conn.execute(
            "INSERT INTO card_transaction (id, card_no, state, business_day, original, technology, offline_fen,
                                           before, after, fact, begun_at)
             VALUES (?1, '8800001', ?2, '2026-11-21', ?3, 'desfire', 0, '{}', '{}', ?4, 0)",
            params![bytes(id), state, original.map(bytes), fact],
        )
        .unwrap();
    }
    while beyond(&conn, FORGOTTEN_TRANSACTIONS, 0).unwrap().changed {}
    for (id, _, _, _, stays) in rows {
        assert_eq!(count(&conn, &format!("card_transaction WHERE no = {id}")) == 1, stays, "{id}");
    }
}

#[test]
fn cards_go_by_when_they_were_last_seen_and_never_our_own() {
    let conn = empty();
    // (number, seen, given out here, status, held, open, stays)
    let cards = [
        (1, 900, None, "active", None, false, true),
        (2, 100, None, "active", None, false, false),
        (3, 1, Some("2026-11-21"), "active", None, false, true),
        (4, 2, None, "lost", None, false, true),
        (5, 3, None, "active", Some("counter-behind"), false, true),
        (6, 4, None, "active", None, true, true),
        (7, 200, None, "active", None, false, false),
    ];
    for (n, seen, issued, status, held, open, _) in cards {
        conn.execute(
            "INSERT INTO member_card (card_no, uid, technology, type, issuing_store, status, held, holding,
                                      counter, seen_at, issued_on)
             VALUES (?1, '04', 'desfire', 'named', 'SH-1', ?2, ?3, '{}', 0, ?4, ?5)",
            params![n.to_string(), status, held, seen, issued],
        )
        .unwrap();
        if open {
            conn.execute(
                "INSERT INTO card_transaction (id, card_no, state, business_day, technology, offline_fen,
                                               before, after, fact, begun_at)
                 VALUES (x'00', ?1, 'intent', '2026-11-21', 'desfire', 0, '{}', '{}', '{}', 0)",
                [n.to_string()],
            )
            .unwrap();
        }
    }
    // Six are foreign; two of the four that are kept would go if they could.
    while cards_step(&conn, 4).unwrap().changed {}
    for (n, .., stays) in cards {
        assert_eq!(count(&conn, &format!("member_card WHERE card_no = '{n}'")) == 1, stays, "{n}");
    }
}
