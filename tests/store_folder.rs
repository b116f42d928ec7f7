//! The data folder: whose it is, whether it can be used, where its file came from.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod store_setup;

use std::io::BufRead;
use std::path::Path;

use baygate::event::Class;
use baygate::event::gateway::EpochReason;
use baygate::health::Health;
use baygate::store::{Store, StoreError, backup, inspect};
use store_setup::{child, fact, options, positions, until};
use tokio_util::sync::CancellationToken;

#[test]
#[ignore = "plays the other process"]
fn plays_the_holder() {
    let dir = std::env::var("STORE_DIR").unwrap();
    let _store = Store::open(&options(Path::new(&dir))).unwrap();
    println!("\nholding");
    // Until the parent closes the pipe.
    let _ = std::io::stdin().lock().lines().next();
}

#[tokio::test]
async fn a_second_daemon_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let mut holder = child("plays_the_holder", dir.path());
    let mut lines = std::io::BufReader::new(holder.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "holding"));
    match Store::open(&options(dir.path())) {
        Err(StoreError::Locked { path, pid }) => {
            assert_eq!((path.as_path(), pid), (dir.path(), holder.id().to_string()));
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("two daemons on one folder"),
    }
    // The lock ends with its holder, however that ends.
    holder.kill().unwrap();
    holder.wait().unwrap();
    Store::open(&options(dir.path())).unwrap();
}

/// Power cut in the very first write, found by `make power-cut`: one page, and a journal that takes it
/// back (SQLite "Database File Format" §3: magic, no pages, sector 512, page 4096).
#[tokio::test]
async fn a_file_cut_while_it_was_made_is_blank_and_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("baygate.db");
    drop(rusqlite::Connection::open(&file).unwrap().pragma_update(None, "journal_mode", "wal"));
    assert_eq!(std::fs::metadata(&file).unwrap().len(), 4096);
    let mut journal = [0; 512];
    journal[..8].copy_from_slice(&[0xD9, 0xD5, 0x05, 0xF9, 0x20, 0xA1, 0x63, 0xD7]);
    journal[22] = 2;
    journal[26] = 0x10;
    std::fs::write(dir.path().join("baygate.db-journal"), journal).unwrap();
    let verdict = inspect::verify(dir.path(), &mut |_| {}).unwrap();
    assert!(verdict.sound && verdict.empty && verdict.rows == 0, "{verdict:?}");
    assert_eq!(std::fs::metadata(&file).unwrap().len(), 0, "taken back");
    let (store, opened) = Store::open(&options(dir.path())).unwrap();
    assert_eq!(opened.new_epoch, Some(EpochReason::Created));
    store.close().await;
    // What is empty but has a WAL had been more.
    std::fs::write(dir.path().join("baygate.db-wal"), [1; 64]).unwrap();
    std::fs::write(&file, "").unwrap();
    assert!(!inspect::verify(dir.path(), &mut |_| {}).unwrap().sound);
    assert_eq!(std::fs::metadata(dir.path().join("baygate.db-wal")).unwrap().len(), 64, "not thrown away");
}

#[tokio::test]
async fn an_unusable_folder_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "x").unwrap();
    for place in [dir.path().join("file/below"), "/proc/baygate".into(), dir.path().join("file")] {
        match Store::open(&options(&place)).map(|_| ()) {
            Err(error @ StoreError::Folder { .. }) => {
                let text = error.to_string();
                assert!(text.contains(place.to_str().unwrap()) && text.contains("create it"), "{text}");
            }
            other => panic!("{}: {other:?}", place.display()),
        }
    }
}

#[tokio::test]
async fn a_later_schema_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(&options(dir.path())).unwrap();
    store.close().await;
    drop(store);
    let raw = rusqlite::Connection::open(dir.path().join("baygate.db")).unwrap();
    raw.pragma_update(None, "user_version", 99).unwrap();
    raw.execute("UPDATE meta SET value = '99' WHERE key = 'schema'", []).unwrap();
    drop(raw);
    assert!(matches!(Store::open(&options(dir.path())), Err(StoreError::TooNew { found: 99, .. })));
}

#[tokio::test]
async fn a_moved_or_cloned_file_begins_a_new_epoch() {
    let dir = tempfile::tempdir().unwrap();
    let mut mine = options(dir.path());
    mine.machine_id = Some("machine-a".into());
    let (store, first) = Store::open(&mine).unwrap();
    assert_eq!(first.new_epoch, Some(EpochReason::Created));
    store.commit(fact(Class::Card)).await.unwrap();
    drop(store);
    let mut unknown = mine.clone();
    unknown.machine_id = None;
    let mut cloned = mine.clone();
    cloned.machine_id = Some("machine-b".into());
    let mut renamed = cloned.clone();
    renamed.source.gateway = "gw-2".parse().unwrap();
    let mut before = first.epoch;
    for (name, options, reason) in [
        ("same", &mine, None),
        ("no machine id", &unknown, None),
        ("another machine", &cloned, Some(EpochReason::Cloned)),
        ("the same again", &cloned, None),
        ("another name", &renamed, Some(EpochReason::Cloned)),
    ] {
        let (store, opened) = Store::open(options).unwrap();
        assert_eq!(opened.new_epoch, reason, "{name}");
        assert_eq!(opened.previous_epoch, reason.map(|_| before), "{name}");
        assert_eq!(opened.epoch == before, reason.is_none(), "{name}");
        before = opened.epoch;
        let sequence = store.commit(fact(Class::Card)).await.unwrap()[0].class_sequence.0;
        assert_eq!(sequence == 1, reason.is_some(), "{name}: {sequence}");
        store.close().await;
    }
}

#[tokio::test]
async fn a_backup_made_while_running_comes_back_in_a_new_epoch() {
    let dir = tempfile::tempdir().unwrap();
    let (data, copy) = (dir.path().join("data"), dir.path().join("copy.db"));
    let (store, opened) = Store::open(&options(&data)).unwrap();
    for _ in 0..50 {
        store.commit(fact(Class::Card)).await.unwrap();
    }
    let busy = {
        let store = store.clone();
        tokio::spawn(async move { while store.commit(fact(Class::Device)).await.is_ok() {} })
    };
    let (from, to) = (data.clone(), copy.clone());
    let stats = tokio::task::spawn_blocking(move || backup::backup(&from, &to, &mut |_, _| {}).unwrap())
        .await
        .unwrap();
    assert_eq!(stats.classes[2].rows, 50);
    let again = backup::backup(&data, &copy, &mut |_, _| {});
    assert!(matches!(again, Err(StoreError::File { .. })), "never over a file");
    store.commit(fact(Class::Card)).await.unwrap();
    store.close().await;
    busy.await.unwrap();
    drop(store);
    let restored = backup::restore(&data, &copy, &mut |_, _| {}).unwrap();
    assert!(restored.aside.unwrap().exists(), "what was there is kept");
    let (store, after) = Store::open(&options(&data)).unwrap();
    assert_eq!((after.new_epoch, after.previous_epoch), (Some(EpochReason::Restored), Some(opened.epoch)));
    assert_eq!(positions(&store, Class::Card).await.len(), 50);
    assert_eq!(store.commit(fact(Class::Card)).await.unwrap()[0].class_sequence.0, 1);
    store.close().await;
    drop(store);
    // Copied back by hand, it is a restored one too; and only once.
    std::fs::copy(&copy, data.join("baygate.db")).unwrap();
    let (store, by_hand) = Store::open(&options(&data)).unwrap();
    assert_eq!(by_hand.new_epoch, Some(EpochReason::Restored));
    store.close().await;
    drop(store);
    assert_eq!(Store::open(&options(&data)).unwrap().1.new_epoch, None);
}

#[tokio::test]
async fn a_restore_refuses_what_is_no_backup_and_a_running_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let (store, opened) = Store::open(&options(&data)).unwrap();
    store.close().await;
    drop(store);
    let other = dir.path().join("other.db");
    rusqlite::Connection::open(&other).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    let text = dir.path().join("text.db");
    std::fs::write(&text, "not a database at all, but long enough to be read as one").unwrap();
    for file in [&other, &text] {
        let refused = backup::restore(&data, file, &mut |_, _| {});
        assert!(matches!(refused, Err(StoreError::NotABackup { .. })), "{refused:?}");
    }
    let mut holder = child("plays_the_holder", &data);
    let mut lines = std::io::BufReader::new(holder.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "holding"));
    let refused = backup::restore(&data, &other, &mut |_, _| {});
    assert!(matches!(refused, Err(StoreError::Locked { .. })), "{refused:?}");
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert_eq!(Store::open(&options(&data)).unwrap().1.epoch, opened.epoch);
}

#[tokio::test]
async fn a_restore_cut_short_is_finished_by_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let (data, copy) = (dir.path().join("data"), dir.path().join("copy.db"));
    let (store, _) = Store::open(&options(&data)).unwrap();
    store.commit(fact(Class::Card)).await.unwrap();
    backup::backup(&data, &copy, &mut |_, _| {}).unwrap();
    store.commit(fact(Class::Card)).await.unwrap();
    store.close().await;
    drop(store);
    // The copy has its name, the database was moved away, its WAL was not.
    std::fs::rename(&copy, data.join("baygate.db.restore")).unwrap();
    std::fs::rename(data.join("baygate.db"), data.join("baygate.db.before-restore-1")).unwrap();
    std::fs::write(data.join("baygate.db-wal"), [7; 5000]).unwrap();
    let (store, opened) = Store::open(&options(&data)).unwrap();
    assert_eq!(opened.new_epoch, Some(EpochReason::Restored));
    assert_eq!(positions(&store, Class::Card).await.len(), 1);
}

#[tokio::test]
async fn the_background_check_finds_a_sound_file_sound() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(&options(dir.path())).unwrap();
    for _ in 0..300 {
        store.commit(fact(Class::Card)).await.unwrap();
    }
    let (health, stop) = (Health::default(), CancellationToken::new());
    store.start_background(health.clone(), stop.clone());
    for _ in 0..300 {
        store.commit(fact(Class::Device)).await.unwrap();
    }
    until("the writer beats", || async { health.stuck(std::time::Duration::ZERO) == ["store-writer"] }).await;
    assert_eq!(health.troubles(), []);
    store.close().await;
    assert!(health.stuck(std::time::Duration::ZERO).is_empty(), "the writer has ended orderly");
    assert!(!dir.path().join("baygate.damaged").exists());
}
