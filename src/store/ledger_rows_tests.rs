use rusqlite::Connection;

use super::*;
use crate::store::connection;

const CLASSIC: Technology = Technology::MifareClassic1k;

fn empty() -> Connection {
    let mut conn = Connection::open_in_memory().unwrap();
    connection::migrate(&mut conn).unwrap();
    conn
}

/// A row that only the limits and the transfers look at.
fn row(
    conn: &Connection,
    id: u8,
    day: &str,
    state: &str,
    offline_fen: i64,
    original: Option<u8>,
    fact: &str,
) {
    let bytes = |id: u8| vec![id; 16];
    conn.execute(
        "INSERT INTO card_transaction (id, card_no, state, business_day, original, technology, offline_fen,
                                       before, after, fact, begun_at)
         VALUES (?1, ?2, ?3, ?4, ?5, 'mifare-classic-1k', ?6, '{}', '{}', ?7, 0)",
        params![bytes(id), format!("880000{}", id % 2), state, day, original.map(bytes), offline_fen, fact],
    )
    .unwrap();
}

#[test]
fn a_clock_that_went_back_gives_no_new_limits() {
    let conn = empty();
    for (id, day, state, fen) in [
        (1, "2026-11-20", "committed", 7),
        (2, "2026-11-21", "committed", 10),
        (3, "2026-11-22", "committed", 100),
        (4, "2026-11-22", "intent", 1_000),
        (5, "2026-11-22", "aborted", 10_000),
        (6, "2026-11-23", "committed", 0),
    ] {
        row(&conn, id, day, state, fen, None, "{}");
    }
    let reader = Reader { conn: &conn };
    let cards: [CardNo; 2] = ["8800001".parse().unwrap(), "880000".parse().unwrap()];
    let spent = |day, quality| reader.spent_by_clock(day, CLASSIC, &cards, quality).unwrap();
    use TimeQuality::{Synced, Unsynced};
    for (day, quality, expected) in [
        ("2026-11-22", Synced, (100, 1_100)),
        ("2026-11-22", Unsynced, (100, 1_100)),
        ("2026-11-21", Synced, (0, 10)),
        ("2026-11-21", Unsynced, (100, 1_110)),
        ("1970-01-01", Synced, (0, 0)),
        ("1970-01-01", Unsynced, (100, 1_100)),
        // A day that is new begins anew only when the clock is believed.
        ("2026-11-24", Synced, (0, 0)),
        ("2026-11-24", Unsynced, (100, 1_100)),
    ] {
        assert_eq!(spent(day, quality), expected, "{day} {quality:?}");
    }
    // What its predecessor of another technology spent is this card's as well.
    let desfire = reader.spent_by_clock("2026-11-22", Technology::Desfire, &cards, Synced);
    assert_eq!(desfire.unwrap(), (100, 0));
    let both = [cards[0].clone(), "8800000".parse().unwrap()];
    assert_eq!(reader.spent_by_clock("2026-11-22", CLASSIC, &both, Synced).unwrap(), (1_100, 1_100));
}

/// What is asked at each transaction takes no longer in the tenth year.
#[test]
fn nothing_that_is_asked_often_walks_through_the_ledger() {
    let conn = empty();
    let plan = |sql: &str| {
        let mut query = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let lines = query.query_map([], |row| row.get::<_, String>(3)).unwrap();
        lines.collect::<Result<Vec<_>, _>>().unwrap()
    };
    for (sql, index) in [(SPENT, "card_transaction_offline"), (TRANSFERS_DUE, "card_transaction_giving")] {
        let sql = sql.replace("?1", "'2026-11-21'").replace("?2", "'desfire'").replace("?3", "'1'");
        let lines = plan(&sql.replace("?4", "1"));
        assert!(lines.iter().any(|line| line.contains(index)), "{lines:#?}");
        assert!(
            lines.iter().all(|line| !line.starts_with("SCAN card_") && !line.starts_with("SCAN g")),
            "{lines:#?}"
        );
    }
}

#[test]
fn transfers_wait_until_they_are_received_or_undone() {
    let conn = empty();
    let giving = r#"{"kind":"transfer","sku":"x"}"#;
    for (id, state, original, fact) in [
        (1, "committed", None, giving),
        (2, "committed", None, giving),
        (3, "aborted", Some(2), giving),
        (4, "committed", None, giving),
        (5, "intent", Some(4), giving),
        (6, "committed", None, giving),
        (7, "committed", Some(6), r#"{"kind":"void"}"#),
        (8, "intent", None, giving),
        (9, "committed", None, r#"{"kind":"spend","sku":"\"kind\":\"transfer\""}"#),
    ] {
        row(&conn, id, "2026-11-21", state, 0, original, fact);
    }
    let due = Reader { conn: &conn }.transfers_due().unwrap();
    assert_eq!(due.iter().map(|id| id.as_bytes()[0]).collect::<Vec<_>>(), [1, 2]);
    let to = r#"{"kind":"transfer","counterparty_card_no":"4711"}"#;
    row(&conn, 11, "2026-11-21", "committed", 0, None, to);
    let of = |card_no: &str| {
        let due = Reader { conn: &conn }.transfers_due_of(&card_no.parse().unwrap()).unwrap();
        due.iter().map(|id| id.as_bytes()[0]).collect::<Vec<_>>()
    };
    assert_eq!(
        (of("8800000"), of("8800001"), of("4711"), of("47")),
        (vec![2], vec![1, 11], vec![11], vec![])
    );
}
