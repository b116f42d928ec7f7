//! The helper that sets interfaces up, as the daemon asks for it.

use std::process::Command;
use std::time::{Duration, Instant};

use baygate::config::tables::Poll;
use baygate::config::values::Locale;
use baygate::link::can::interface;
use baygate::sim::vehicle::{Engine, SlcanProfile, SlcanSim};
use baygate::vehicle::adapter::Adapter as Link;
use baygate::vehicle::gate::Request;

use crate::car;
use crate::vehicle_bay::{Bay, bundle, open_store};

/// As systemd does for `baygate-can.socket`: each connection gets a helper of its own.
fn helper_socket() {
    let place = std::path::Path::new(interface::HELPER);
    std::fs::create_dir_all(place.parent().unwrap()).unwrap();
    let listener = std::os::unix::net::UnixListener::bind(place).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = std::os::fd::OwnedFd::from(stream.unwrap());
            let mut helper = Command::new(env!("CARGO_BIN_EXE_baygate"));
            helper.arg("can-helper").stdin(stream.try_clone().unwrap()).stdout(stream);
            helper.spawn().unwrap().wait().unwrap();
        }
    });
}

/// The kernel's own slcan driver has bit rates as hardware has: it stands for a real
/// controller, with the simulated adapter behind it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "make can"]
async fn the_helper_sets_an_interface_up_and_the_daemon_asks_for_it() {
    const N_SLCAN: &str = "17";
    helper_socket();
    let profile = SlcanProfile { tells_errors: true, ..SlcanProfile::default() };
    let sim = SlcanSim::spawn_pty(profile, &car(8), None).await.unwrap();
    let mut ldattach = Command::new("ldattach").args(["--debug", N_SLCAN, &sim.name()]).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    // Kernels name it slcan0 or can0.
    let name = loop {
        let there = ["slcan0", "can0"].into_iter().find(|name| interface::state(name).is_ok());
        if let Some(name) = there {
            break name;
        }
        let all: Vec<_> =
            std::fs::read_dir("/sys/class/net").unwrap().map(|net| net.unwrap().file_name()).collect();
        assert!(Instant::now() < deadline, "the kernel made no interface: {all:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(!interface::state(name).unwrap().up);
    let link = format!("can://{name}?bitrate=250000").parse().unwrap();
    let report = baygate::cli::scan::scan_link(&link, &bundle(), None, Locale::En).await.unwrap();
    assert_eq!((report.protocol.as_str(), report.ecus.len()), ("iso15765-4-11bit-250k", 3));
    let state = interface::state(name).unwrap();
    assert_eq!((state.up, state.bitrate, state.listen_only), (true, Some(250_000), false));
    // First contact listens: the adapter was told `L` before it was told `O`.
    let heard = sim.heard();
    let joins: Vec<_> = heard.iter().filter(|line| ["S5", "L", "O"].contains(&line.as_str())).collect();
    assert_eq!(joins, ["S5", "L", "S5", "O"], "{heard:?}");
    // Up already, at another rate: the helper changes it, and listening shows that it is wrong.
    // What an operator set up by hand at the wrong rate is left as soon as that shows.
    sim.talk();
    let link = format!("can://{name}?bitrate=500000").parse().unwrap();
    for by_hand in [false, true] {
        if by_hand {
            interface::set_up(name, 500_000, false).await.unwrap();
        }
        let before = sim.heard().len();
        let error = Link::open(&link, &bundle(), None, None).await.err().expect("the rate is wrong");
        assert_eq!(error.code(), "wrong-bitrate", "{error}");
        let state = interface::state(name).unwrap();
        assert_eq!((state.up, state.bitrate, state.listen_only), (true, Some(500_000), true));
        if !by_hand {
            let heard = sim.heard().split_off(before);
            let joins: Vec<_> = heard.iter().filter(|line| ["L", "O"].contains(&line.as_str())).collect();
            assert_eq!(joins, ["L"], "{heard:?}");
        }
    }
    assert_eq!(sim.sent_at_wrong_rate(), 0);
    sim.hush();
    // Listening: the helper sets the mode, the driver reports it, the adapter is told `L`.
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let bay = Bay::start(&store, "bay-1", &format!("can://{name}?bitrate=250000"), Poll::ListenOnly);
    bay.until_reason(Some("listen-only")).await;
    let requests = sim.requests().len();
    bay.scan().await;
    bay.stop().await;
    let state = interface::state(name).unwrap();
    assert_eq!((state.listen_only, state.bitrate), (true, Some(250_000)));
    assert!(sim.heard().contains(&"L".to_owned()), "{:?}", sim.heard());
    assert_eq!(sim.requests().len(), requests, "nothing was asked");
    let as_it_is = format!("can://{name}").parse().unwrap();
    let error = Link::open(&as_it_is, &bundle(), None, None).await.err().expect("it cannot ask so");
    assert!(error.to_string().contains("listen-only"), "{error}");
    // And back.
    let link = format!("can://{name}?bitrate=250000").parse().unwrap();
    Link::open(&link, &bundle(), None, None).await.unwrap();
    assert!(!interface::state(name).unwrap().listen_only);
    // Nobody acknowledges: the question is taken back with the interface, which only listens until the
    // next one.
    let mut link = Link::open(&link, &bundle(), None, None).await.unwrap();
    sim.engine(Engine::Off);
    assert!(link.ask(Request::current(0), None).await.unwrap().is_silence());
    link.close_protocol().await.unwrap();
    let state = interface::state(name).unwrap();
    assert_eq!((state.up, state.bitrate, state.listen_only), (true, Some(250_000), true));
    sim.engine(Engine::Running);
    assert!(!link.ask(Request::current(0), None).await.unwrap().is_silence());
    assert!(!interface::state(name).unwrap().listen_only);
    drop(link);
    let refused = interface::set_up("lo", 500_000, false).await.unwrap_err();
    assert!(refused.to_string().contains("no CAN interface"), "{refused}");
    ldattach.kill().unwrap();
    ldattach.wait().unwrap();
}
