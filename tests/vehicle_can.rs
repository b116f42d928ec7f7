//! CAN on the kernel's own sockets: against its ISO-TP (`CAN_ISOTP`), a simulated car
//! on `vcan`, interfaces that go down, frames that are lost. Most build machines have
//! no CAN in their kernel: `make can` runs this file in a virtual machine of the lab.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "vehicle_can/clearing.rs"]
mod clearing;
#[path = "vehicle_can/filters.rs"]
mod filters;
#[path = "vehicle_can/helper.rs"]
mod helper;
#[path = "vehicle_can/iso_tp.rs"]
mod iso_tp;
#[path = "vehicle_can/kernel.rs"]
mod kernel;
mod lab;
mod vehicle_bay;

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use baygate::config::tables::{Poll, VehicleTable};
use baygate::config::values::{Locale, VehicleLink};
use baygate::link::can::{CanSocket, Frame, Heard, Id};
use baygate::sim::vehicle::{BusSim, CarSpec, Engine};
use baygate::vehicle::adapter::Adapter as Link;
use baygate::vehicle::gate::{ExtendedAddress, Request, Target};
use kernel::{KernelIsoTp, Options, error_frame, raw_write};
use vehicle_bay::{Bay, bundle, open_store, quick, table};

/// A whole run of the machine with every length, on a loaded host without hardware virtualisation.
const LONG: Duration = Duration::from_secs(2 * 60 * 60);
/// It tells how far it is; when it says nothing for so long, it hangs.
const SILENT: Duration = Duration::from_secs(15 * 60);
/// They have a processor of the machine for themselves. No test may move from one to the
/// other: a vcan delivers on the processor that sent, and frames would overtake each other.
const LONG_ONES: [&str; 2] = ["every_length_to_the_kernel", "every_longer_length_from_the_kernel"];

/// The host's side: boots, and runs every other test of this file inside.
#[test]
#[ignore = "make can"]
fn in_the_machine() {
    let folder = lab::target("can-lab");
    std::fs::create_dir_all(&folder).unwrap();
    let script = format!(
        "export PATH=/usr/sbin:/usr/bin:/sbin:/bin RUST_BACKTRACE=1 BAYGATE_STRIDE={stride}\n\
         echo 8388608 > /proc/sys/net/core/rmem_max\n\
         for name in 0 1 2 3 4 5 6 7 8 9; do\n\
         ip link add vcan$name type vcan && ip link set vcan$name mtu 72 up || exit 99\n\
         done\n\
         cd {root}\n\
         part() {{\n\
         name=$1; shift\n\
         {{ taskset -c $name {program} --ignored --test-threads=1 --nocapture \"$@\" 2>&1; echo $? > /run/$name; }} |\n\
         while read -r line; do echo \"$name $line\" >&3; done\n\
         }}\n\
         part 0 {long} &\n\
         part 1 --skip {skip_long} --skip in_the_machine\n\
         wait\n\
         [ \"$(cat /run/0 /run/1)\" = \"$(printf '0\\n0')\" ]\n",
        stride = iso_tp::stride(),
        long = LONG_ONES.join(" "),
        skip_long = LONG_ONES.join(" --skip "),
        root = env!("CARGO_MANIFEST_DIR"),
        program = std::env::current_exe().unwrap().display(),
    );
    let begun = Instant::now();
    let setup = lab::Setup { folder: &folder, script: &script, disk: None, network: false, memory_mib: 1024 };
    let machine = lab::Machine::boot(&setup);
    println!("up after {:.1} s", begun.elapsed().as_secs_f64());
    loop {
        let left = LONG.checked_sub(begun.elapsed()).expect("the machine takes too long");
        match machine.hear(left.min(SILENT)) {
            lab::Heard::Line(line) if line.starts_with("exit ") => {
                assert_eq!(line, "exit 0", "{}", machine.console());
                break;
            }
            lab::Heard::Line(line) => println!("  {line}"),
            lab::Heard::Nothing | lab::Heard::End => panic!("the machine went silent: {}", machine.console()),
        }
    }
    println!("all of it took {:.1} s", begun.elapsed().as_secs_f64());
}

fn car(protocol: u8) -> CarSpec {
    let confirmed = vec!["P0420".parse().unwrap()];
    CarSpec { protocol, units: 3, latency_ms: 5, drift: false, confirmed, ..CarSpec::default() }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make can"]
async fn a_full_scan_over_the_bus() {
    for (protocol, name) in [(6, "iso15765-4-11bit-500k"), (7, "iso15765-4-29bit-500k")] {
        let sim = BusSim::spawn("vcan6", &car(protocol)).unwrap();
        let begun = Instant::now();
        let link = "can://vcan6?bitrate=500000".parse().unwrap();
        let report = baygate::cli::scan::scan_link(&link, &bundle(), None, Locale::En).await.unwrap();
        println!("a full scan took {:.2} s", begun.elapsed().as_secs_f64());
        assert_eq!((report.protocol.as_str(), report.ecus.len()), (name, 3));
        assert_eq!(report.adapter.identity, "SocketCAN vcan6");
        assert_eq!(report.errors, []);
        assert_eq!(report.vin.unwrap().as_str(), "1M8GDM9AXKP042788");
        assert!(report.ecus.iter().any(|ecu| ecu.dtcs.iter().any(|dtc| dtc.code == "P0420")));
        drop(sim);
    }
}

fn run(program: &str, words: &str) {
    assert!(Command::new(program).args(words.split(' ')).status().unwrap().success(), "{program} {words}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make can"]
async fn the_daemon_survives_what_happens_to_a_bus() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let sim = BusSim::spawn("vcan0", &car(6)).unwrap();
    let bay = Bay::start(&store, "bay-1", "can://vcan0", Poll::Auto);
    bay.nth("vehicle.report", 1).await;
    // Down and up again within the patience.
    run("ip", "link set vcan0 down");
    bay.until_reason(Some("interface-down")).await;
    run("ip", "link set vcan0 up");
    bay.until_reason(None).await;
    // The controller left the bus, and came back.
    let raw = kernel::raw("vcan0");
    raw_write(&raw, &error_frame(0x40, [0; 8]));
    bay.until_reason(Some("bus-off")).await;
    bay.until_reason(None).await;
    // "Wait", three times.
    sim.postpone(3);
    bay.scan().await;
    assert_eq!(bay.count("vehicle.arrived").await, 1);
    sim.engine(Engine::Off);
    bay.nth("vehicle.departed", 1).await;
    sim.engine(Engine::Running);
    bay.nth("vehicle.arrived", 2).await;
    for request in sim.requests() {
        let listed = match request.as_slice() {
            // Of 08 the masks alone; of 19 codes by status, one code's records, and all it could store.
            [8, base] => base.is_multiple_of(0x20),
            [0x19, 0x02, _] | [0x19, 0x04 | 0x06, _, _, _, _] | [0x19, 0x0A] => true,
            [service, ..] => [1, 2, 3, 6, 7, 9, 0x0A, 0x22].contains(service),
            [] => false,
        };
        assert!(listed, "{request:02X?}");
    }
    bay.stop().await;
}

/// Beside the answers of the car, its bus talks.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "make can"]
async fn what_a_bus_says_unasked_joins_the_visits_telemetry() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let file = dir.path().join("car.dbc");
    let database = "VERSION \"\"\nBO_ 68 Engine: 8 ECM\n SG_ Speed : 0|16@1+ (0.25,0) [0|0] \"rpm\" X\n";
    std::fs::write(&file, database).unwrap();
    let _sim = BusSim::spawn("vcan5", &car(6)).unwrap();
    let with_file = VehicleTable { dbc: vec![file], ..table("bay-1", "can://vcan5", Poll::Auto) };
    let bay = Bay::start_table(&store, with_file, quick());
    let talks = Arc::new(AtomicBool::new(true));
    let going = Arc::clone(&talks);
    let thread = std::thread::spawn(move || {
        let raw = kernel::raw("vcan5");
        while going.load(Ordering::Relaxed) {
            raw_write(&raw, &[0x44, 0, 0, 0, 2, 0, 0, 0, 0xA0, 0x0F, 0, 0, 0, 0, 0, 0]);
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    let heard = |facts: &[(String, serde_json::Value)]| {
        facts.iter().filter(|(kind, _)| kind == "vehicle.signals").any(|(_, data)| {
            let signals = data["signals"].as_array().unwrap();
            signals.iter().any(|signal| signal["name"] == "Engine.Speed" && signal["last"] == 1000.0)
        })
    };
    bay.until("a signal of the database", heard).await;
    talks.store(false, Ordering::Relaxed);
    thread.join().unwrap();
    bay.stop().await;
}

/// The kernel's filters let a truck's broadcasts through; what asks for more is heard by nobody.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "make can"]
async fn a_truck_is_heard() {
    let talks = Arc::new(AtomicBool::new(true));
    let going = Arc::clone(&talks);
    let thread = std::thread::spawn(move || {
        let raw = kernel::raw("vcan8");
        let frame = |id: u32, data: [u8; 8]| {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&(id | 0x8000_0000).to_ne_bytes());
            bytes[4] = 8;
            bytes[8..].copy_from_slice(&data);
            bytes
        };
        while going.load(Ordering::Relaxed) {
            // EEC1; DM1 of SPN 100 FMI 1 with the malfunction lamp.
            raw_write(&raw, &frame(0x0CF0_0400, [0xF0, 0xFF, 0x7D, 0x80, 0x25, 0xFF, 0xFF, 0xFF]));
            raw_write(&raw, &frame(0x18FE_CA00, [0x40, 0xFF, 100, 0, 1, 5, 0xFF, 0xFF]));
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    let link = "can://vcan8".parse().unwrap();
    let report = baygate::cli::scan::scan_link(&link, &bundle(), None, Locale::En).await.unwrap();
    talks.store(false, Ordering::Relaxed);
    thread.join().unwrap();
    assert_eq!((report.protocol.as_str(), report.ecus.len(), report.vin), ("j1939", 1, None));
    assert_eq!(report.ecus[0].dtcs[0].code, "SPN100-1");
}

/// A unit of a maker, played by the kernel's ISO-TP: asked with an address byte in front or
/// answering on an ID of its own, in many frames.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "make can"]
async fn a_unit_with_an_extended_address_and_one_of_fd_alone() {
    let long: Vec<u8> = (0..90).collect();
    let identifier = Request::data_by_identifier(0xF187);
    for (target, listens, says, options) in [
        (
            Target::Extended(ExtendedAddress::new(0x6F1, 0x12, 0xF1).unwrap()),
            0x6F1,
            0x612,
            Options { addresses: Some((0xF1, 0x12)), ..Options::default() },
        ),
        (Target::answering_on(0x710, 0x77A).unwrap(), 0x710, 0x77A, Options::default()),
        (Target::Unit(0x7E0), 0x7E0, 0x7E8, Options { frame_bytes: 64, ..Options::default() }),
    ] {
        let is_fd = options.frame_bytes > 8;
        let answer = [&[0x62, 0xF1, 0x87], &long[..]].concat();
        let unit = std::thread::spawn(move || {
            let unit = KernelIsoTp::open("vcan6", Id::standard(listens), Id::standard(says), options);
            let asked = unit.read();
            unit.write(&answer);
            asked
        });
        let talk = tokio::spawn(async move {
            if !is_fd {
                return;
            }
            let bus = CanSocket::open("vcan6").unwrap();
            let frame = Frame::new(Id::standard(0x123), &[0; 12], true).unwrap();
            loop {
                bus.send(&frame).await.unwrap();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let mut witness = CanSocket::open("vcan6").unwrap();
        let link: VehicleLink = "can://vcan6".parse().unwrap();
        let mut link = Link::open(&link, &bundle(), None, None).await.unwrap();
        let told = link.ask(identifier.to(target).unwrap(), None).await.unwrap();
        talk.abort();
        assert_eq!(unit.join().unwrap(), [0x22, 0xF1, 0x87]);
        assert_eq!(told.messages.len(), 1, "{told:?}");
        assert_eq!(told.messages[0].payload[3..], long[..]);
        let sent = std::iter::from_fn(|| witness.heard().unwrap()).find_map(|heard| match heard {
            Heard::Frame(frame) if frame.id() == Id::standard(listens) => Some(frame.is_fd()),
            _ => None,
        });
        assert_eq!(sent, Some(is_fd), "{target:?}");
    }
}

/// One thread runs all: while it writes, nothing of ours reads.
#[tokio::test(flavor = "current_thread")]
#[ignore = "make can"]
async fn lost_frames_are_counted_and_told() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let link: VehicleLink = "can://vcan1".parse().unwrap();
    let mut link = Link::open(&link, &bundle(), None, None).await.unwrap();
    assert_eq!(link.limitation(), None);
    // Nobody reads meanwhile.
    let raw = kernel::raw("vcan1");
    let frame = [0xE8, 7, 0, 0, 8, 0, 0, 0, 3, 0x7F, 1, 0x12, 5, 6, 7, 8];
    (0..60_000).for_each(|_| raw_write(&raw, &frame));
    link.voltage().await.unwrap();
    // The count comes with the first frame after the gap.
    raw_write(&raw, &frame);
    link.voltage().await.unwrap();
    let (code, words) = link.limitation().expect("frames were lost");
    println!("{words}");
    assert_eq!(code, "frames-lost");
    drop(link);

    // The same through the daemon, held up by more than its socket holds.
    let bay = Bay::start(&store, "bay-1", "can://vcan1", Poll::Auto);
    bay.until_reason(Some("no-obd-answer")).await;
    (0..60_000).for_each(|_| raw_write(&raw, &frame));
    let more = async {
        loop {
            tokio::time::sleep(Duration::from_millis(50)).await;
            raw_write(&raw, &frame);
        }
    };
    tokio::select! {
        _ = bay.until_reason(Some("frames-lost")) => {}
        () = more => {}
    }
    bay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make can"]
async fn first_contact_listens_and_a_wrong_rate_is_left_at_once() {
    let raw = kernel::raw("vcan7");
    let wrong = Arc::new(AtomicBool::new(true));
    let going = Arc::clone(&wrong);
    let thread = std::thread::spawn(move || {
        // A stuff error, as a controller at the wrong rate reports it.
        while going.load(Ordering::Relaxed) {
            raw_write(&raw, &error_frame(0x88, [0, 0, 0x04, 0, 0, 0, 0, 0]));
            std::thread::sleep(Duration::from_millis(10));
        }
    });
    let mut witness = CanSocket::open("vcan7").unwrap();
    let link: VehicleLink = "can://vcan7".parse().unwrap();
    let error = Link::open(&link, &bundle(), None, None).await.err().expect("only errors");
    assert_eq!(error.code(), "wrong-bitrate");
    wrong.store(false, Ordering::Relaxed);
    thread.join().unwrap();
    while let Some(heard) = witness.heard().unwrap() {
        assert!(!matches!(heard, Heard::Frame(_)), "something was sent: {heard:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make can"]
async fn listen_only_is_refused_where_it_cannot_be_proven() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    for (id, link) in [("bay-1", "can://vcan8"), ("bay-2", "can://vcan8?bitrate=500000")] {
        let bay = Bay::start(&store, id, link, Poll::ListenOnly);
        bay.until_reason(Some("not-listen-only")).await;
        bay.stop().await;
    }
    let bay = Bay::start(&store, "bay-3", "can://can7", Poll::Auto);
    bay.until_reason(Some("interface-missing")).await;
    bay.stop().await;
}

#[test]
#[ignore = "make can"]
fn commands_as_a_user_types_them() {
    let program = env!("CARGO_BIN_EXE_baygate");
    let mut sim = Command::new(program)
        .args(["simulate", "vehicle", "--can", "vcan9", "--dtc", "P0171", "--latency-ms", "5"])
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    let report = loop {
        let scan = Command::new(program).args(["scan", "can://vcan9", "--json"]).output().unwrap();
        if scan.status.success() {
            break String::from_utf8(scan.stdout).unwrap();
        }
        assert!(Instant::now() < deadline, "{}", String::from_utf8_lossy(&scan.stderr));
    };
    sim.kill().unwrap();
    sim.wait().unwrap();
    assert!(report.contains("P0171"), "{report}");
    let devices = Command::new(program).args(["devices", "--json"]).output().unwrap();
    let devices = String::from_utf8(devices.stdout).unwrap();
    assert!(devices.contains("can://vcan9"), "{devices}");
}
