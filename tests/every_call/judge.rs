//! What must hold of the folder a player left behind, whatever happened to it:
//! it opens without repair; what was acknowledged is there, once, with the
//! position it was given; each batch is there whole or not at all, and so is
//! each transaction; every sequence is there or accounted for, and the next one
//! continues; settled keys still answer.

use std::collections::BTreeSet;
use std::path::Path;

use baygate::event::Class;
use baygate::store::inspect::Inspection;
use baygate::store::{Batch, Opened, Store, StoreError};
use rusqlite::Connection;

use super::player::number;
use super::story::{self, Expect, Part, Step};
use super::trace::Fault;

/// What a player said, and whether it was killed.
#[derive(Debug, Default, Clone)]
pub struct Told {
    pub said: Vec<String>,
    pub killed: bool,
}

/// The folder, opened after the player has gone.
pub struct Opening<'a> {
    pub opened: &'a Opened,
    pub conn: &'a Connection,
    pub told: &'a Told,
}

impl Told {
    fn first_of<'s>(&'s self, word: &'s str, name: &str) -> Option<&'s str> {
        let begin = format!("{word} {name}");
        self.said.iter().find_map(|line| {
            let rest = line.strip_prefix(begin.as_str())?;
            (rest.is_empty() || rest.starts_with(' ')).then_some(rest)
        })
    }

    /// `/readyz` says that card writes are held.
    pub fn is_held(&self) -> bool {
        self.said.iter().any(|line| line == "held")
    }

    /// A caller knows that this is there.
    pub fn is_told(&self, name: &str) -> bool {
        self.first_of("ack", name).or(self.first_of("found", name)).is_some()
    }
}

pub fn judge(
    dir: &Path,
    story: &[Step],
    told: &Told,
    fault: Option<Fault>,
    holds: bool,
    also: &(dyn Fn(&Path, &Opening<'_>) + Sync),
) {
    assert_eq!(told.killed, fault == Some(Fault::Kill), "how the player ended: {:#?}", told.said);
    for line in &told.said {
        assert!(!line.starts_with("WRONG") && !line.contains("panicked"), "{line}");
        assert!(!line.starts_with("trouble"), "it says it is not well: {line}");
    }
    if told.said.iter().any(|line| line == "closed") {
        // Headquarters was ahead, or a salvage may have lost something: from then on card writes are held, and not before.
        assert_eq!(told.is_held(), told.is_told("ahead") || holds, "{:#?}", told.said);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let (store, opened) = Store::open(&story::options(dir)).unwrap_or_else(|e| panic!("opening: {e}"));
        let conn = Connection::open(dir.join("baygate.db")).unwrap();
        batches(&conn, story, told, fault);
        positions(&conn, told);
        also(dir, &Opening { opened: &opened, conn: &conn, told });
        super::player::until("every gap is told", || {
            number(&conn, "SELECT count(*) FROM gap WHERE told = 0") == 0
        });
        accounted(&conn);
        goes_on(&store, &conn).await;
        keys_answer(&store, &conn).await;
        drop(conn);
        store.close().await;
    });
    let verdict = Inspection::open(dir).unwrap().verify(&mut |_| {}).unwrap();
    assert!(verdict.sound, "{verdict:?}");
}

/// There, in whole; or not there, in whole; or not once.
fn seen(conn: &Connection, part: &Part) -> bool {
    let counts: Vec<i64> = part.probes.iter().map(|probe| number(conn, probe)).collect();
    let wanted = i64::from(part.expect == Expect::Kept);
    assert!(
        counts.iter().all(|count| *count == 0) || (wanted == 1 && counts.iter().all(|count| *count == 1)),
        "{} is there by halves, or twice, or was refused: {counts:?}",
        part.name
    );
    counts.first() == Some(&1)
}

fn batches(conn: &Connection, story: &[Step], told: &Told, fault: Option<Fault>) {
    let mut in_flight = true;
    for step in story {
        let Step::Commit(parts) = step else { continue };
        let kept: Vec<&Part> = parts.iter().filter(|part| part.expect == Expect::Kept).collect();
        for part in parts {
            seen(conn, part);
        }
        for part in parts {
            // A full disk may cost telemetry: `positions` and `accounted` look where it went.
            let may_go = part.name.starts_with("signals") && fault.is_some_and(Fault::is_full);
            if told.is_told(&part.name) && part.expect == Expect::Kept && !may_go {
                assert!(seen(conn, part), "{} was acknowledged and is gone", part.name);
            }
        }
        if fault != Some(Fault::Kill) {
            assert!(kept.iter().all(|part| told.is_told(&part.name)), "{:?} never ended well", parts[0].name);
            continue;
        }
        // A group is one transaction, or several where the machine is slow: never a later batch alone.
        let whole: Vec<bool> = kept.iter().map(|part| seen(conn, part)).collect();
        assert!(whole.is_sorted_by(|before, after| before >= after), "a group out of order: {whole:?}");
        let some = whole.iter().filter(|there| **there).count();
        let answered = parts.iter().all(|part| told.is_told(&part.name));
        assert!(in_flight || some == 0, "{} is there and was never asked for", parts[0].name);
        in_flight &= answered;
    }
}

/// What callers were told of positions: none twice, and each where it was said to be.
fn positions(conn: &Connection, told: &Told) {
    let mut given = BTreeSet::new();
    for line in told.said.iter().filter(|line| line.starts_with("ack ")) {
        for position in line.split(' ').skip(2) {
            let [class, epoch, sequence, id] = position.split('/').collect::<Vec<_>>()[..] else {
                panic!("{line}");
            };
            assert!(given.insert((class, epoch, sequence)), "{position} was given twice");
            let place = Class::ALL.iter().position(|known| known.as_str() == class).unwrap();
            let at = format!(
                "SELECT count(*) FROM event e JOIN epoch p ON p.no = e.epoch_no
                 WHERE p.id = x'{}' AND e.class = {place} AND e.class_sequence = {sequence}",
                epoch.replace('-', "")
            );
            let itself = number(conn, &format!("{at} AND e.id = x'{}'", id.replace('-', "")));
            // Trimmed telemetry leaves its place empty; `accounted` looks for the gap.
            let empty = class == "telemetry" && number(conn, &at) == 0;
            assert!(itself == 1 || empty, "{position} is not where it was said to be");
        }
    }
}

/// Every sequence given out is in the log, or delivered, or in exactly one `gateway.gap`.
fn accounted(conn: &Connection) {
    // The writer may be trimming: all of one moment.
    let conn = &*conn.unchecked_transaction().unwrap();
    let mut gone: Vec<(String, i64, i64)> = Vec::new();
    let mut query = conn
        .prepare(
            "SELECT data FROM event WHERE kind = 'gateway.gap' AND json_extract(data, '$.reason') = 'full'",
        )
        .unwrap();
    for data in query.query_map([], |row| row.get::<_, String>(0)).unwrap() {
        let gap: serde_json::Value = serde_json::from_str(&data.unwrap()).unwrap();
        let (from, to) = (gap["from"].as_i64().unwrap(), gap["to"].as_i64().unwrap());
        assert_eq!(gap["count"], to - from + 1, "{gap}");
        gone.push((gap["class"].as_str().unwrap().to_owned(), from, to));
    }
    drop(query);
    let mut open = conn.prepare("SELECT class, from_sequence, to_sequence FROM gap WHERE told = 0").unwrap();
    for row in open.query_map([], |row| Ok((row.get::<_, u8>(0)?, row.get(1)?, row.get(2)?))).unwrap() {
        let (class, from, to) = row.unwrap();
        gone.push((Class::ALL[usize::from(class)].as_str().to_owned(), from, to));
    }
    for (place, class) in Class::ALL.into_iter().enumerate() {
        let epochs = number(conn, "SELECT max(no) FROM epoch");
        for epoch in 1..=epochs {
            let last = if epoch == epochs {
                format!("SELECT last_sequence FROM class_counter WHERE class = {place}")
            } else {
                format!("SELECT last_sequence FROM epoch_end WHERE class = {place} AND epoch_no = {epoch}")
            };
            let delivered = if epoch == 1 {
                number(conn, &format!("SELECT class_sequence FROM delivered WHERE class = {place}"))
            } else {
                0
            };
            for sequence in 1..=number(conn, &last) {
                let rows = number(
                    conn,
                    &format!(
                        "SELECT count(*) FROM event WHERE class = {place} AND epoch_no = {epoch} AND class_sequence = {sequence}"
                    ),
                );
                let gaps = gone
                    .iter()
                    .filter(|(of, from, to)| of == class.as_str() && (*from..=*to).contains(&sequence))
                    .count();
                match (rows, gaps) {
                    (1, 0) | (0, 1) => {}
                    (0, 0) if sequence <= delivered => {}
                    _ => panic!("{class} {epoch}/{sequence}: {rows} rows, told as gone {gaps} times"),
                }
            }
        }
    }
}

/// The next fact of each class takes the next sequence.
async fn goes_on(store: &Store, conn: &Connection) {
    for (place, class) in Class::ALL.into_iter().enumerate() {
        let last = number(conn, &format!("SELECT last_sequence FROM class_counter WHERE class = {place}"));
        let new = story::event(90_000 + place as u128, class, 10);
        let kept = store.commit(Batch::new().event(new)).await.unwrap();
        let given = i64::try_from(kept[0].class_sequence.0).unwrap();
        // The store itself may have told a gap in between.
        assert!(
            given == last + 1 || (class == Class::Gateway && given > last),
            "{class}: {given} after {last}"
        );
    }
}

/// A key that was used is answered by its request; one that was not is free.
async fn keys_answer(store: &Store, conn: &Connection) {
    let asked = number(conn, "SELECT count(*) FROM request WHERE idempotency_key = 'key-1'");
    match store.commit(story::asked_again()).await {
        Err(StoreError::Replayed { request }) => assert!(asked == 1 && request == story::id(1)),
        Ok(_) => assert_eq!(asked, 0),
        Err(other) => panic!("{other:?}"),
    }
}
