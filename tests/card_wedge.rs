//! A scanner that types, as the kernel shows one: a keyboard made by uinput, taken by a reader of
//! kind `wedge`. Build machines have no uinput: `make wedge` runs this file in a virtual machine
//! of the lab.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/counter.rs"]
mod counter;
mod lab;

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::Duration;

use baygate::config::tables::{ReaderKind, ReaderTable, ScanTechnology};
use baygate::event::device::DeviceStatus::{Absent, Ready};
use counter::{Gateway, vpcd_table};
use input_linux::{EvdevHandle, EventKind, InputId, Key, UInputHandle};
use serde_json::json;
use sha2::{Digest, Sha256};

/// The host's side: boots, and runs every other test of this file inside.
#[test]
#[ignore = "make wedge"]
fn in_the_machine() {
    let folder = lab::target("wedge-lab");
    std::fs::create_dir_all(&folder).unwrap();
    let script = format!(
        "export PATH=/usr/sbin:/usr/bin:/sbin:/bin RUST_BACKTRACE=1\n\
         cd {root}\n\
         {program} --ignored --test-threads=1 --nocapture --skip in_the_machine >&3 2>&1\n",
        root = env!("CARGO_MANIFEST_DIR"),
        program = std::env::current_exe().unwrap().display(),
    );
    let setup = lab::Setup { folder: &folder, script: &script, disk: None, network: false, memory_mib: 1024 };
    let machine = lab::Machine::boot(&setup);
    loop {
        match machine.hear(Duration::from_secs(300)) {
            lab::Heard::Line(line) if line.starts_with("exit ") => {
                assert_eq!(line, "exit 0", "{}", machine.console());
                return;
            }
            lab::Heard::Line(line) => println!("{line}"),
            lab::Heard::Nothing | lab::Heard::End => panic!("it hangs: {}", machine.console()),
        }
    }
}

/// A keyboard of the kernel's making. Dropped, it is pulled.
struct Keyboard {
    handle: UInputHandle<File>,
    node: PathBuf,
}

impl Keyboard {
    fn plug_in() -> Self {
        let file = OpenOptions::new().write(true).open("/dev/uinput").unwrap();
        let handle = UInputHandle::new(file);
        handle.set_evbit(EventKind::Key).unwrap();
        for key in [Key::Num8, Key::Num4, Key::Num2, Key::Num0, Key::A, Key::LeftShift, Key::Enter] {
            handle.set_keybit(key).unwrap();
        }
        let id = InputId { bustype: 3, vendor: 0x1234, product: 0x5678, version: 1 };
        handle.create(&id, b"scanner", 0, &[]).unwrap();
        let node = handle.evdev_path().unwrap();
        let begun = std::time::Instant::now();
        while !node.exists() {
            assert!(begun.elapsed() < counter::PATIENCE);
        }
        Self { handle, node }
    }

    fn press(&mut self, codes: &[u16]) {
        let event = |kind: u16, code: u16, value: i32| {
            let tail = [&kind.to_ne_bytes()[..], &code.to_ne_bytes(), &value.to_ne_bytes()].concat();
            [&[0; 2 * size_of::<usize>()][..], &tail].concat()
        };
        for code in codes {
            let keys = [event(1, *code, 1), event(0, 0, 0), event(1, *code, 0), event(0, 0, 0)].concat();
            self.handle.as_inner_mut().write_all(&keys).unwrap();
        }
    }
}

/// The codes of 8800000042 and Enter.
const SCAN: [u16; 11] = [9, 9, 11, 11, 11, 11, 11, 11, 5, 3, 28];

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make wedge"]
async fn a_scan_is_told_and_typed_nowhere_else() {
    let mut keyboard = Keyboard::plug_in();
    let link = std::env::temp_dir().join("scanner");
    let _ = std::fs::remove_file(&link);
    std::os::unix::fs::symlink(&keyboard.node, &link).unwrap();
    let table = ReaderTable {
        kind: ReaderKind::Wedge,
        listen: None,
        device: Some(link.clone()),
        technology: Some(ScanTechnology::Qr),
        ..vpcd_table("scanner-1", 1)
    };
    let gateway = Gateway::new();
    let service = gateway.serve(table);
    gateway.expect_state("scanner-1", Ready, None).await;
    // Another program listens, too.
    let mut spy =
        OpenOptions::new().read(true).custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits()).open(&link).unwrap();
    assert!(EvdevHandle::new(spy.as_raw_fd()).grab(true).is_err(), "it is ours alone");
    keyboard.press(&SCAN);
    let uid = hex::encode_upper(&Sha256::digest("qr\x008800000042")[..16]);
    let (tapped, removed) = (format!("tapped {uid}"), format!("removed {uid}"));
    let all = [&*tapped, &*removed, &*tapped, &*removed];
    gateway.expect_cards("scanner-1", &all[..2]).await;
    assert!(spy.read(&mut [0; 64]).is_err(), "nobody else is typed to");
    let told = gateway.told().await;
    let (_, scan) = told.iter().find(|(kind, _)| kind == "card.tapped").unwrap();
    assert_eq!((&scan["technology"], &scan["code"]), (&json!("qr"), &json!("8800000042")), "{scan}");
    // Pulled, and put back under the same name.
    drop((keyboard, spy));
    std::fs::remove_file(&link).unwrap();
    gateway.expect_state("scanner-1", Absent, Some("port-missing")).await;
    let mut keyboard = Keyboard::plug_in();
    std::os::unix::fs::symlink(&keyboard.node, &link).unwrap();
    gateway.expect_state("scanner-1", Ready, None).await;
    keyboard.press(&SCAN);
    gateway.expect_cards("scanner-1", &all).await;
    service.stop().await;
    // Given back when the service ends.
    let free = File::open(&link).unwrap();
    EvdevHandle::new(free.as_raw_fd()).grab(true).unwrap();
}
