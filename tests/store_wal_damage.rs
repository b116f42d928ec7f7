//! Commits that lie in the write-ahead log alone, and what rots there: no commit that
//! was told is given up beyond what the harmed frame held, and a torn end is none.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/buffer_command.rs"]
mod buffer_command;
mod page_damage;
mod sqlite_pages;
mod store_setup;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use baygate::event::Class;
use baygate::event::gateway::EpochReason;
use baygate::store::{Batch, Store, StoreError, inspect};
use page_damage::truth::{REQUESTS, Truth, all, assert_kept, grown, request};
use sqlite_pages::{Dice, PAGE};
use store_setup::{event, options, token};

/// Commits that are only in the WAL, as a killed process leaves them.
async fn in_the_wal(dir: &Path) -> (Truth, Vec<u8>, Vec<u8>) {
    let truth = grown(&dir.join("base")).await;
    let (store, _) = Store::open(&options(&dir.join("base"))).unwrap();
    for n in 0..40 {
        store.commit(fact(n)).await.unwrap();
        store.commit(request(1000 + n)).await.unwrap();
    }
    store.commit(token([7; 32])).await.unwrap();
    for n in 40..44 {
        store.commit(fact(n)).await.unwrap();
    }
    let events = all(&store).await;
    let read = |suffix: &str| std::fs::read(dir.join(format!("base/baygate.db{suffix}"))).unwrap();
    let (file, wal) = (read(""), read("-wal"));
    store.close().await;
    (Truth { events, ..truth }, file, wal)
}

fn fact(n: u64) -> Batch {
    Batch::new().event(event(if n.is_multiple_of(2) { Class::Card } else { Class::Ledger }, 300))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_wal_that_rotted_gives_up_no_commit() {
    const FRAME: usize = 24 + PAGE;
    let dice = Dice::throw("a_wal_that_rotted_gives_up_no_commit");
    let base = tempfile::tempdir().unwrap();
    let (truth, file, wal) = in_the_wal(base.path()).await;
    let frames = (wal.len() - 32) / FRAME;
    assert!(frames > 80, "{frames}");
    // (what, where, how many bytes may be hit, what the frame alone held may be lost)
    let middle = dice.for_case("frame").below(frames / 2) + 2;
    let of = |frame: usize| 32 + frame * FRAME;
    for (what, at, length, may_lose) in [
        ("the WAL's magic", 0, 3, false),
        ("the WAL's page size", 8, 4, false),
        ("the WAL's salts", 16, 8, false),
        ("the WAL's checksum", 24, 8, false),
        ("a frame's page number", of(middle), 4, true),
        ("a frame's salts", of(middle) + 8, 8, true),
        ("a frame's checksum", of(middle) + 16, 8, true),
        ("a frame's page", of(middle) + 24, PAGE, true),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (mut dice, mut wal) = (dice.for_case(what), wal.clone());
        let at = at + dice.below(length);
        wal[at] ^= 1 + dice.below(255) as u8;
        let case = format!("{what}: byte {at}");
        std::fs::write(dir.path().join("baygate.db"), &file).unwrap();
        std::fs::write(dir.path().join("baygate.db-wal"), &wal).unwrap();
        std::fs::write(dir.path().join("baygate.db-shm"), [0x5A; 32768]).unwrap();
        let verdict = inspect::verify(dir.path(), &mut |_| {}).unwrap();
        assert!(!verdict.sound, "{case}");
        let (store, opened) = Store::open(&options(dir.path())).unwrap();
        assert_eq!(opened.new_epoch, Some(EpochReason::Salvaged), "{case}");
        let report = opened.salvaged.unwrap();
        let found = all(&store).await;
        let missing = truth.events.keys().filter(|at| !found.contains_key(at)).count() as u64;
        assert_kept(&case, &truth, &found, &truth.events.keys().copied().collect());
        assert_eq!(missing, report.lost, "{case}");
        assert!(missing == 0 || may_lose && missing <= 20, "{case}: {missing} lost");
        // A page's latest state may have been in that frame: nobody can say, and card writes wait.
        let complete = report.ledger_complete && report.requests_complete;
        assert_eq!(complete, !may_lose, "{case}: {report:?}");
        for suffix in ["", "-wal"] {
            let aside = format!("{}{suffix}", report.aside.display());
            let was = if suffix.is_empty() { &file } else { &wal };
            assert!(&std::fs::read(aside).unwrap() == was, "{case}: the original is not what it was");
        }
        let keys: i64 = {
            let conn = rusqlite::Connection::open(dir.path().join("baygate.db")).unwrap();
            conn.query_row("SELECT count(*) FROM request", [], |row| row.get(0)).unwrap()
        };
        assert!(keys == REQUESTS as i64 + 40 || !report.requests_complete, "{case}: {keys}");
        let token = store.read(|r| r.token_by_hash(&[7; 32])).await.unwrap();
        assert!(may_lose || token.is_some(), "{case}: a table beside the log is back at yesterday");
        store.close().await;
    }
    // A torn end is what a power cut leaves: no damage, nothing before it lost.
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("baygate.db"), &file).unwrap();
    std::fs::write(dir.path().join("baygate.db-wal"), &wal[..wal.len() - FRAME - 1000]).unwrap();
    std::fs::write(dir.path().join("baygate.db-shm"), [0x5A; 32768]).unwrap();
    let (store, opened) = Store::open(&options(dir.path())).unwrap();
    assert_eq!(opened.new_epoch, None);
    assert!(all(&store).await.len() + 2 >= truth.events.len());
    store.close().await;
}

/// A commit of some fifty frames.
fn large() -> Batch {
    (0..40).fold(Batch::new(), |batch, _| batch.event(event(Class::Card, 3000)))
}

/// A store whose file may be copied without being taken for a copy.
fn copyable(dir: &Path) -> Store {
    let (store, _) = Store::open(&options(dir)).unwrap();
    let raw = rusqlite::Connection::open(dir.join("baygate.db")).unwrap();
    raw.execute("DELETE FROM meta WHERE key = 'file_birth'", []).unwrap();
    store
}

/// What a power cut leaves of a store at work: of its last commit the end, or a frame so many before it, is
/// missing.
fn cut(from: &Path, to: &Path, before_its_end: usize) {
    const FRAME: usize = 24 + PAGE;
    let conn = rusqlite::Connection::open(from.join("baygate.db")).unwrap();
    let of_commits: usize =
        conn.query_row("PRAGMA wal_checkpoint(NOOP)", [], |row| row.get::<_, i64>(1)).unwrap() as usize;
    assert!(of_commits > before_its_end, "{of_commits}");
    let mut wal = std::fs::read(from.join("baygate.db-wal")).unwrap();
    let torn = 32 + (of_commits - 1 - before_its_end) * FRAME + 24;
    wal[torn..torn + PAGE].fill(0);
    std::fs::create_dir_all(to).unwrap();
    std::fs::copy(from.join("baygate.db"), to.join("baygate.db")).unwrap();
    std::fs::write(to.join("baygate.db-wal"), wal).unwrap();
}

/// Sound, and with so many events.
async fn assert_sound(dir: &Path, events: usize) -> Store {
    let verdict = inspect::verify(dir, &mut |_| {}).unwrap();
    assert!(verdict.sound, "{verdict:?}");
    let (store, opened) = Store::open(&options(dir)).unwrap();
    assert_eq!((opened.new_epoch, opened.salvaged), (None, None));
    assert_eq!(all(&store).await.len(), events);
    store
}

/// The first one leaves the end of a commit that nobody was told of. A few commits later it would stand
/// behind what the second one tears, as commits stand behind a frame that has rotted.
#[tokio::test(flavor = "multi_thread")]
async fn two_power_cuts_are_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let [first, second, third] = ["first", "second", "third"].map(|name| dir.path().join(name));
    let store = copyable(&first);
    store.commit(fact(0)).await.unwrap();
    store.commit(large()).await.unwrap();
    cut(&first, &second, 20);
    store.close().await;
    let store = assert_sound(&second, 1).await;
    store.commit(fact(1)).await.unwrap();
    store.commit(fact(2)).await.unwrap();
    cut(&second, &third, 0);
    store.close().await;
    assert_sound(&third, 2).await.close().await;
}

#[test]
#[ignore = "plays the other process"]
fn plays_a_failed_sync() {
    let dir: PathBuf = std::env::var("STORE_DIR").unwrap().into();
    let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
    runtime.block_on(async {
        let store = copyable(&dir.join("data"));
        let mut told = 0;
        loop {
            match store.commit(large()).await {
                Ok(_) => told += 40,
                Err(StoreError::Uncertain { .. }) => break,
                Err(other) => panic!("{other}"),
            }
            assert!(told < 2000, "no sync failed");
        }
        // One that is told, one that the power cut tears.
        store.commit(fact(0)).await.unwrap();
        store.commit(fact(1)).await.unwrap();
        cut(&dir.join("data"), &dir.join("cut"), 0);
        std::fs::write(dir.join("told"), (told + 1).to_string()).unwrap();
        store.close().await;
    });
}

/// Nor is a commit whose sync failed, before one that a power cut tears.
#[tokio::test(flavor = "multi_thread")]
async fn a_failed_sync_and_a_power_cut_are_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let played = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync"])
        .args(["-e", "inject=fsync,fdatasync:error=EIO:when=6", "-P"])
        .arg(dir.path().join("data/baygate.db-wal"))
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "plays_a_failed_sync", "--ignored"])
        .env("STORE_DIR", dir.path())
        .stdin(Stdio::null())
        .output()
        .expect("strace must be installed");
    assert!(played.status.success(), "{}", String::from_utf8_lossy(&played.stdout));
    let told = std::fs::read_to_string(dir.path().join("told")).unwrap().parse().unwrap();
    assert_sound(&dir.path().join("cut"), told).await.close().await;
}
