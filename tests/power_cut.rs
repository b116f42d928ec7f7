//! Power cuts: the real daemon on ext4 in a virtual machine, under load from all
//! sources; QEMU is killed at random moments, so that the page cache is truly
//! gone; half of the time what the disk had not flushed is lost as well. Whatever
//! was acknowledged to anybody is there after the next boot.
//!
//! `make power-cut` runs it (CUTS=, SEED=): 20 cuts on one disk, and then the same
//! with a daemon that does not sync, which must be caught.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/card_keys.rs"]
mod card_keys;
#[path = "support/dice.rs"]
mod dice;
#[path = "power_cut/faces.rs"]
mod faces;
#[path = "power_cut/host.rs"]
mod host;
mod lab;
#[path = "power_cut/ledger.rs"]
mod ledger;
#[path = "power_cut/load.rs"]
mod load;
mod mqtt;
#[path = "power_cut/sales.rs"]
mod sales;
#[path = "power_cut/shop.rs"]
mod shop;
#[path = "power_cut/table.rs"]
mod table;
#[path = "power_cut/words.rs"]
mod words;

use std::path::Path;

use dice::{Dice, rounds, seed};
use host::{Cut, Host};
use table::Table;

/// Cuts within which a daemon that does not sync must be caught.
const MUTANT_CUTS: u64 = 3;

#[test]
#[ignore = "plays the other side, inside the machine"]
fn plays_the_shop() {
    let plan = std::env::var("POWER_CUT_PLAN").expect("only within the machine");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(shop::run(Path::new(&plan)));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make power-cut"]
async fn nothing_told_is_lost_when_the_power_is_cut() {
    let cuts = rounds(20_u64);
    let mut dice = Dice::new(seed());
    let mut host = Host::open("daemon", env!("CARGO_BIN_EXE_baygate").into()).await;
    let mut table = Table::new();
    for _ in 0..cuts {
        let cut = Cut::draw(&mut dice);
        let boot = tokio::task::block_in_place(|| host.boot(cut));
        table.add(cut, &boot, host.promised());
        table.assert_well(&boot, host.folder());
    }
    let boot = tokio::task::block_in_place(|| host.boot(Cut::none()));
    table.add(Cut::none(), &boot, host.promised());
    table.assert_well(&boot, host.folder());
    let all = host.headquarters_has_all().await;
    println!("{cuts} cuts: {} promises kept; headquarters has all {all} events, each once", host.promised());
    let (sales, classes) = host.kinds();
    println!("{sales} deeds on members' cards; events of {classes:?}");
    // A few cuts may all meet the start.
    let wanted = ["card", "device", "gateway", "ledger", "vehicle"];
    assert!(cuts < 10 || sales as u64 > 5 * cuts && wanted.iter().all(|class| classes.contains(class)));
    std::fs::remove_dir_all(host.folder()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make power-cut"]
async fn without_syncs_the_same_cuts_lose_what_was_told() {
    let program = Path::new(env!("CARGO_BIN_EXE_baygate")).with_file_name("baygate-synchronous-off");
    assert!(program.exists(), "tests/power_cut/mutant.sh builds {}", program.display());
    let mut dice = Dice::new(seed());
    let mut host = Host::open("synchronous-off", program).await;
    let mut table = Table::new();
    let (mut caught, mut wrong) = (Vec::new(), Vec::new());
    for _ in 0..=MUTANT_CUTS {
        let cut = Cut::under_load(&mut dice);
        let boot = tokio::task::block_in_place(|| host.boot(cut));
        table.add(cut, &boot, host.promised());
        if !boot.is_well() {
            (caught, wrong) = (boot.taken(), boot.wrong);
            break;
        }
    }
    // Nothing else counts: a machine that hangs has lost nothing.
    assert!(
        !caught.is_empty(),
        "without syncs nothing told was missed and the database was sound in {MUTANT_CUTS} cuts; wrong: {wrong:#?}"
    );
    println!("synchronous=OFF is caught: {} are gone, the first: {}", caught.len(), caught[0]);
    std::fs::remove_dir_all(host.folder()).unwrap();
}
