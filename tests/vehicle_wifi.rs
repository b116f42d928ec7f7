//! Two Wi-Fi dongles at the same address at the same time, each its own access point: only
//! the interface tells them apart. Namespaces stand for the air: one for each dongle, one for
//! the gateway with two interfaces of one address.
//!
//! ```text
//!  dongle A  192.168.0.10 ─── veth ─── w1 192.168.0.100 ┐
//!                                                       ├ gateway
//!  dongle B  192.168.0.10 ─── veth ─── w2 192.168.0.100 ┘
//! ```
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod vehicle_bay;

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use baygate::config::tables::Poll;
use vehicle_bay::{Bay, open_store};

const DONGLE: &str = "192.168.0.10";
const A: &str = "1M8GDM9AXKP042788";
const B: &str = "1D4GP00R55B123456";

fn ip(arguments: &str) -> Result<(), String> {
    let output = Command::new("ip").args(arguments.split(' ')).output().map_err(|e| format!("ip: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("ip {arguments}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// The namespaces and the dongles in them; gone when dropped.
struct Air {
    gateway: String,
    spaces: Vec<String>,
    dongles: Vec<Child>,
}

impl Drop for Air {
    fn drop(&mut self) {
        for dongle in &mut self.dongles {
            let _ = dongle.kill();
            let _ = dongle.wait();
        }
        for space in &self.spaces {
            let _ = ip(&format!("netns del {space}"));
        }
    }
}

impl Air {
    fn new() -> Result<Self, String> {
        let id = std::process::id();
        let gateway = format!("bg-{id}-gateway");
        let mut air = Self { gateway: gateway.clone(), spaces: Vec::new(), dongles: Vec::new() };
        air.space(&gateway)?;
        for (interface, vin) in [("w1", A), ("w2", B)] {
            let dongle = format!("bg-{id}-{interface}");
            air.space(&dongle)?;
            ip(&format!("-n {gateway} link add {interface} type veth peer name eth0 netns {dongle}"))?;
            ip(&format!("-n {dongle} addr add {DONGLE}/24 dev eth0"))?;
            ip(&format!("-n {dongle} link set eth0 up"))?;
            // As two access points do that know nothing of each other: the same address to both.
            ip(&format!("-n {gateway} addr add 192.168.0.100/24 dev {interface}"))?;
            ip(&format!("-n {gateway} link set {interface} up"))?;
            let listen = format!("{DONGLE}:35000");
            let mut child = Command::new("ip")
                .args(["netns", "exec", &dongle, env!("CARGO_BIN_EXE_baygate"), "simulate", "vehicle"])
                .args(["--adapter", "wifi-v1-5", "--vin", vin, "--listen", &listen])
                .stdout(Stdio::piped())
                .spawn()
                .map_err(|error| format!("simulator: {error}"))?;
            // Its first line says that it listens.
            let mut line = String::new();
            std::io::BufRead::read_line(
                &mut std::io::BufReader::new(child.stdout.take().unwrap()),
                &mut line,
            )
            .unwrap();
            air.dongles.push(child);
            assert!(line.contains(DONGLE), "{line:?}");
        }
        Ok(air)
    }

    fn space(&mut self, name: &str) -> Result<(), String> {
        ip(&format!("netns add {name}"))?;
        self.spaces.push(name.to_owned());
        ip(&format!("-n {name} link set lo up"))
    }
}

#[test]
fn two_dongles_at_one_address() {
    if std::env::var_os("BAYGATE_WITHOUT_NETNS").is_some() {
        // Past the harness, which keeps what passing tests print.
        let said = b"two_dongles_at_one_address LEFT OUT: BAYGATE_WITHOUT_NETNS is set\n";
        let _ = std::io::Write::write_all(&mut std::io::stderr(), said);
        return;
    }
    let air = Air::new().unwrap_or_else(|error| {
        panic!(
            "no network namespaces here ({error}): run as root with iproute2, or set \
             BAYGATE_WITHOUT_NETNS=1 to leave this test out"
        )
    });
    // This very program once more, where the two interfaces are.
    let inside = Command::new("ip")
        .args(["netns", "exec", &air.gateway])
        .arg(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "the_gateway_between_two_dongles", "--nocapture"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&inside.stdout);
    assert!(inside.status.success(), "{said}\n{}", String::from_utf8_lossy(&inside.stderr));
    assert!(said.contains("1 passed"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by two_dongles_at_one_address, in a network namespace of its own"]
async fn the_gateway_between_two_dongles() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let link = |interface: &str| format!("elm327+tcp://{DONGLE}:35000?interface={interface}");
    let first = Bay::start(&store, "bay-1", &link("w1"), Poll::Auto);
    let second = Bay::start(&store, "bay-2", &link("w2"), Poll::Auto);
    for (bay, vin) in [(&first, A), (&second, B)] {
        assert_eq!(bay.nth("vehicle.arrived", 1).await["vin"], vin);
        let report = bay.nth("vehicle.report", 1).await;
        assert_eq!((&report["vin"], &report["errors"]), (&vin.into(), &serde_json::json!([])));
    }
    // Asked at the same moment, each answers for its own car.
    let (one, two) = tokio::join!(first.scan(), second.scan());
    let answered = |row: &baygate::store::requests::RequestRow| format!("{row:?}");
    assert!(answered(&one).contains(A) && !answered(&one).contains(B));
    assert!(answered(&two).contains(B) && !answered(&two).contains(A));

    // One goes out of range: no packet comes, no connection is closed. The other works on.
    ip("link set w1 down").unwrap();
    first.nth("vehicle.departed", 1).await;
    let windows = second.count("vehicle.signals").await;
    second.nth("vehicle.signals", windows + 3).await;
    assert_eq!(second.count("vehicle.departed").await, 0);
    second.until_reason(None).await;
    let begun = Instant::now();
    ip("link set w1 up").unwrap();
    assert_eq!(first.nth("vehicle.arrived", 2).await["vin"], A);
    assert_eq!(first.nth("vehicle.report", 2).await["vin"], A);
    println!("back after {:.1?}", begun.elapsed());

    // Its interface is pulled out: said, and the other works on.
    ip("link del w1").unwrap();
    first.until_reason(Some("unreachable")).await;
    second.until_reason(None).await;
    assert!(first.stop().await < Duration::from_secs(5));
    assert!(second.stop().await < Duration::from_secs(5));
    assert_eq!(second_visit_count(&store).await, 1, "nothing of the first ever touched the second");
}

async fn second_visit_count(store: &baygate::store::Store) -> usize {
    vehicle_bay::facts(store, "bay-2").await.iter().filter(|(kind, _)| kind == "vehicle.arrived").count()
}
