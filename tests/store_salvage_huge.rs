//! A huge damaged database, harmed in many places and ways: what reads it row by row, an export
//! and the start, ends in time and in flat memory, tells how far it is, and loses nothing that
//! could be read.
//!
//! A hundred thousand events; `BAYGATE_EVENTS` asks for more or fewer. The harm is drawn
//! from the seed (`BAYGATE_SEED`).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/buffer_command.rs"]
mod buffer_command;
#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/huge_log.rs"]
mod huge_log;
mod sqlite_pages;
mod store_setup;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use buffer_command::{measured, most_kb};
use daemon::{Desk, LONG, program};
use huge_log::grown;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rusqlite::{Connection, OpenFlags};
use sqlite_pages::{Dice, Format, HARMS, Harm, Kind, PAGE, Page};
use tokio::net::UnixDatagram;

/// Resident memory of an export at most, in kB, as of one of a sound file.
const MOST_KB: u64 = 48 * 1024;
/// Of a start: the daemon has its services besides.
const MOST_STARTING_KB: u64 = 72 * 1024;
/// Far more than any of it takes: what is longer hangs.
const DEADLINE: Duration = Duration::from_secs(300);

fn events() -> i64 {
    std::env::var("BAYGATE_EVENTS").ok().map_or(100_000, |events| events.parse().unwrap())
}

/// A harmed file, and how many of its events need a harmed page, at most.
struct Case {
    name: &'static str,
    bytes: Vec<u8>,
    harmed: u64,
}

fn rows(pages: &[Page]) -> u64 {
    pages.iter().map(|page| page.rows.len() as u64).sum()
}

fn swap_in(format: &mut Format, page: &Page, harm: Harm, dice: &mut Dice) -> Vec<usize> {
    let Some((bytes, pages)) = format.harm(page, harm, dice) else { return Vec::new() };
    format.bytes = bytes;
    pages
}

/// A page of each kind, each in its own way.
fn one_of_each(sound: &Path, dice: &mut Dice) -> Case {
    let mut format = Format::read(sound);
    let mut harmed = 0;
    for (kind, owner) in [
        (Kind::TableLeaf, "event"),
        (Kind::TableInterior, "event"),
        (Kind::IndexLeaf, "event_by_class"),
        (Kind::IndexInterior, "event_by_class"),
        (Kind::TableLeaf, "quarantine"),
    ] {
        let (page, harm) = (dice.pick(&format.of(kind, owner)), dice.pick(&HARMS));
        println!("  {harm:?} at page {} of {owner}", page.no);
        let pages = swap_in(&mut format, &page, harm, dice);
        let of_events = |no: &&usize| format.pages[no].owner == "event" && harm != Harm::Swapped;
        harmed += pages.iter().filter(of_events).map(|no| format.pages[no].rows.len() as u64).sum::<u64>();
    }
    Case { name: "one of each", bytes: format.bytes, harmed }
}

/// Every tenth leaf of the log harmed, each in its own way.
fn a_tenth(sound: &Path, dice: &mut Dice) -> Case {
    let mut format = Format::read(sound);
    let leaves: Vec<Page> = format.of(Kind::TableLeaf, "event").into_iter().step_by(10).collect();
    let bytes = std::mem::take(&mut format.bytes);
    let mut harmed = bytes;
    for page in &leaves {
        let base = (page.no - 1) * PAGE;
        let leaf = &mut harmed[base..base + PAGE];
        match dice.below(4) {
            0 => leaf.fill(0),
            1 => leaf.fill_with(|| dice.byte()),
            // A length of garbage: as if the row went on over overflow pages of any number.
            2 => page.cells.iter().for_each(|(at, _)| leaf[*at] = 0x80 | dice.byte()),
            _ => page.cells.iter().for_each(|(at, length)| leaf[at + length - 1] ^= 1),
        }
    }
    Case { name: "a tenth", bytes: harmed, harmed: rows(&leaves) }
}

/// A bit of every second event's seal, and the root of the log.
fn every_second(sound: &Path) -> Case {
    let mut format = Format::read(sound);
    let root = Connection::open(sound)
        .unwrap()
        .query_row("SELECT rootpage FROM sqlite_schema WHERE name = 'event'", [], |row| row.get::<_, i64>(0))
        .unwrap();
    let mut harmed = 0;
    for page in format.of(Kind::TableLeaf, "event") {
        for (at, length) in page.cells.iter().step_by(2) {
            format.bytes[(page.no - 1) * PAGE + at + length - 1] ^= 1;
            harmed += 1;
        }
    }
    let root = (usize::try_from(root).unwrap() - 1) * PAGE;
    format.bytes[root..root + PAGE].fill(0);
    Case { name: "every second", bytes: format.bytes, harmed }
}

/// Without its first page: read with the schema of a fresh one.
fn headless(sound: &Path) -> Case {
    let mut bytes = std::fs::read(sound).unwrap();
    bytes[..PAGE].fill(0);
    Case { name: "headless", bytes, harmed: 0 }
}

fn laid_out(case: &Case, data: &Path) {
    std::fs::create_dir_all(data).unwrap();
    std::fs::write(data.join("baygate.db"), &case.bytes).unwrap();
}

#[tokio::test]
async fn an_export_of_it_takes_no_more_memory_than_of_a_sound_one() {
    let dice = Dice::throw("an_export_of_it_takes_no_more_memory_than_of_a_sound_one");
    let (dir, events) = (tempfile::tempdir().unwrap(), events().unsigned_abs());
    let sound = dir.path().join("sound");
    grown(&sound, events.cast_signed()).await;
    let sound = sound.join("baygate.db");
    let out = dir.path().join("out.jsonl");
    let mut cases = Vec::new();
    for round in 0..sqlite_pages::rounds(3) {
        cases.push(one_of_each(&sound, &mut dice.for_case(&format!("one of each {round}"))));
    }
    cases.extend([a_tenth(&sound, &mut dice.for_case("a tenth")), every_second(&sound), headless(&sound)]);
    for case in cases {
        let data = dir.path().join("data");
        laid_out(&case, &data);
        let run = measured(&data, &["export", "--output", out.to_str().unwrap()], DEADLINE);
        let errors = String::from_utf8_lossy(&run.output.stderr).into_owned();
        let exported = BufReader::new(std::fs::File::open(&out).unwrap()).split(b'\n').count() as u64;
        println!("{:<12} {:>8.1?} {:>7} kB, {exported} of {events}", case.name, run.took, run.most_kb);
        // One harm that happens to change nothing that is exported needs no word.
        let code = run.output.status.code();
        assert!(code == Some(1) || code == Some(0) && exported == events, "{}: {errors}", case.name);
        assert!(run.most_kb < MOST_KB, "{}: {} kB", case.name, run.most_kb);
        let could_be_read = events - case.harmed..=events;
        assert!(could_be_read.contains(&exported), "{}: {exported} of {could_be_read:?}", case.name);
        assert!(std::fs::read(data.join("baygate.db")).unwrap() == case.bytes, "{}: changed", case.name);
        std::fs::remove_dir_all(&data).unwrap();
        std::fs::remove_file(&out).unwrap();
    }
}

/// What systemd heard until it was ready.
struct Heard {
    /// Rows read so far, each time it was told.
    rows: Vec<u64>,
    /// The longest it heard nothing, against what it had been asked to wait.
    longest: Duration,
    extended: Duration,
}

async fn hears(socket: &UnixDatagram) -> Heard {
    let mut heard = Heard { rows: Vec::new(), longest: Duration::ZERO, extended: Duration::MAX };
    let (mut buffer, mut last) = ([0_u8; 4096], Instant::now());
    loop {
        let length = socket.recv(&mut buffer).await.unwrap();
        heard.longest = heard.longest.max(last.elapsed());
        last = Instant::now();
        let said = String::from_utf8_lossy(&buffer[..length]).into_owned();
        for line in said.lines() {
            if let Some(micros) = line.strip_prefix("EXTEND_TIMEOUT_USEC=") {
                heard.extended = heard.extended.min(Duration::from_micros(micros.parse().unwrap()));
            } else if let Some(status) = line.strip_prefix("STATUS=salvaging") {
                let rows = status.split(' ').find_map(|word| word.parse().ok());
                heard.rows.push(rows.unwrap_or_else(|| panic!("no rows in {line}")));
            } else if line == "READY=1" {
                return heard;
            }
        }
    }
}

async fn starts(case: &Case, events: u64) {
    let desk = Desk::new();
    desk.write("");
    let data = desk.path("data");
    laid_out(case, &data);
    let socket = UnixDatagram::bind(desk.path("notify")).unwrap();
    let since = Instant::now();
    let mut child = program()
        .args(["run", "--config"])
        .arg(desk.config())
        .env("NOTIFY_SOCKET", desk.path("notify"))
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let pid = child.id().unwrap();
    let heard = tokio::time::timeout(DEADLINE, hears(&socket)).await.expect("it starts in time");
    let (took, held) = (since.elapsed(), most_kb(pid).unwrap());
    println!(
        "{:<12} {took:>8.1?} {held:>7} kB, told {} times: {:?}",
        case.name,
        heard.rows.len(),
        heard.longest
    );
    assert!(held < MOST_STARTING_KB, "{}: {held} kB", case.name);
    // Told while it went on: from none to all, and never silent for a tenth of what systemd was asked to wait.
    assert!(heard.rows.is_sorted() && heard.rows.len() > 2, "{}: {:?}", case.name, heard.rows);
    assert!(heard.rows.last().unwrap() >= &(events - case.harmed), "{}: {:?}", case.name, heard.rows);
    assert!(
        heard.extended < Duration::MAX && heard.longest < heard.extended / 10,
        "{}: silent for {:?}",
        case.name,
        heard.longest
    );
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGTERM).unwrap();
    assert!(tokio::time::timeout(LONG, child.wait()).await.unwrap().unwrap().success());
    judged(case, &data, events);
}

/// Nothing is lost that could be read, and what is lost is told.
fn judged(case: &Case, data: &Path, events: u64) {
    let conn =
        Connection::open_with_flags(data.join("baygate.db"), OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let number = |sql: &str| conn.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap().unsigned_abs();
    let kept = number("SELECT count(*) FROM event WHERE class = 2 AND epoch_no = 1");
    assert!(kept >= events - case.harmed, "{}: {kept} of {events}, {} harmed", case.name, case.harmed);
    let told = number(
        "SELECT coalesce(sum(json_extract(data, '$.count')), 0) FROM event
         WHERE kind = 'gateway.gap' AND json_extract(data, '$.reason') = 'damaged' AND json_extract(data, '$.class') = 'card'",
    );
    assert_eq!(kept + told, events, "{}: kept and told as lost", case.name);
    let names = std::fs::read_dir(data).unwrap().map(|entry| entry.unwrap().path());
    let aside: Vec<PathBuf> = names
        .filter(|path| {
            let name = path.to_str().unwrap();
            name.rsplit_once(".damaged-").is_some_and(|(_, at)| at.parse::<i64>().is_ok())
        })
        .collect();
    assert!(aside.len() == 1 && std::fs::read(&aside[0]).unwrap() == case.bytes, "{}: {aside:?}", case.name);
}

#[tokio::test]
async fn a_start_salvages_it_in_flat_memory_and_tells_systemd_how_far_it_is() {
    let dice = Dice::throw("a_start_salvages_it_in_flat_memory_and_tells_systemd_how_far_it_is");
    let (dir, events) = (tempfile::tempdir().unwrap(), events().unsigned_abs());
    grown(dir.path(), events.cast_signed()).await;
    let sound = dir.path().join("baygate.db");
    for case in [a_tenth(&sound, &mut dice.for_case("a tenth")), every_second(&sound), headless(&sound)] {
        starts(&case, events).await;
    }
}
