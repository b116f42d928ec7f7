//! The unit stays locked down: `systemd-analyze security` judges it offline.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::process::Command;

/// Exposure above this fails (issue: "fails above 2.0").
const LIMIT: f64 = 2.0;

#[test]
fn exposure_level_is_low() {
    exposure_is_low("baygate.service", LIMIT);
}

/// It has one capability and needs few calls: judged by the same measure.
#[test]
fn the_can_helper_has_one_right_and_no_more() {
    exposure_is_low("baygate-can@.service", LIMIT);
    let unit = shipped("baygate-can@.service");
    let lines = |key: &str| -> Vec<&str> { unit.lines().filter(|line| line.starts_with(key)).collect() };
    assert_eq!(lines("CapabilityBoundingSet="), ["CapabilityBoundingSet=CAP_NET_ADMIN"]);
    assert_eq!(lines("AmbientCapabilities="), ["AmbientCapabilities=CAP_NET_ADMIN"]);
    let socket = shipped("baygate-can.socket");
    for line in ["SocketMode=0600", "SocketUser=baygate", "Accept=yes"] {
        assert!(socket.lines().any(|found| found == line), "{line} is missing");
    }
    let path = baygate::link::can::interface::HELPER;
    assert!(socket.contains(&format!("ListenStream={path}\n")), "the daemon asks at {path}");
    // The daemon itself keeps none.
    assert_eq!(words("CapabilityBoundingSet"), Vec::<String>::new());
}

#[test]
fn the_can_helper_verifies() {
    let dir = tempfile::tempdir().unwrap();
    let service = shipped("baygate-can@.service").replace("/usr/bin/baygate", env!("CARGO_BIN_EXE_baygate"));
    std::fs::write(dir.path().join("baygate-can@.service"), service).unwrap();
    std::fs::write(dir.path().join("baygate-can.socket"), shipped("baygate-can.socket")).unwrap();
    let output = Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .arg(dir.path().join("baygate-can.socket"))
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !told.contains("baygate-can"), "{told}");
}

fn exposure_is_low(name: &str, limit: f64) {
    let unit = format!("{}/systemd/{name}", env!("CARGO_MANIFEST_DIR"));
    let output = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--no-pager", &unit])
        .output()
        .expect("systemd-analyze is part of package systemd; `make test` installs it");
    let text = String::from_utf8_lossy(&output.stdout);
    let level: f64 = text
        .lines()
        .find_map(|line| line.split_once("Overall exposure level for ")?.1.split_once(": "))
        .map(|(_, rest)| rest)
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| {
            panic!("no exposure level in: {text}\n{}", String::from_utf8_lossy(&output.stderr))
        });
    println!("exposure level {level}");
    assert!(level <= limit, "exposure level {level} is above {limit}:\n{text}");
}

fn shipped(name: &str) -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd");
    std::fs::read_to_string(format!("{folder}/{name}")).unwrap()
}

/// The words behind every line `key` of the unit.
fn words(key: &str) -> Vec<String> {
    let unit = shipped("baygate.service");
    let values = unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    values.flat_map(str::split_whitespace).map(str::to_owned).collect()
}

#[test]
fn unit_verifies() {
    let unit = shipped("baygate.service");
    for line in ["Type=notify", "WatchdogSec=", "LoadCredential=mqtt-password:"] {
        assert!(unit.lines().any(|l| l.starts_with(line)), "{line} is missing");
    }
    // systemd wants the program to exist; this box need not have it installed.
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("baygate.service");
    std::fs::write(&copy, unit.replace("/usr/bin/baygate", env!("CARGO_BIN_EXE_baygate"))).unwrap();
    let output = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&copy).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !told.contains("baygate.service:"), "{told}");
}

/// `DeviceAllow=char-NAME` is resolved when the service starts and ignored while no
/// driver of that name is loaded: a dongle plugged in later would stay forbidden.
#[test]
fn drivers_are_there_before_the_device_rules() {
    let (wants, after) = (words("Wants"), words("After"));
    for (driver, device) in [
        ("usbserial", "char-ttyUSB"),
        ("cdc_acm", "char-ttyACM"),
        ("rfcomm", "char-rfcomm"),
        ("usblp", "char-usb"),
    ] {
        let helper = format!("modprobe@{driver}.service");
        assert!(words("DeviceAllow").contains(&device.to_owned()), "{device} is not allowed");
        assert!(wants.contains(&helper) && after.contains(&helper), "{helper} does not come first");
    }
}

/// Users, folders and credentials of the unit are made by what is shipped beside it.
#[test]
fn users_and_folders_are_made() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("etc")).unwrap();
    for (program, option, file) in [
        ("systemd-sysusers", None, "baygate.sysusers"),
        ("systemd-tmpfiles", Some("--create"), "baygate.tmpfiles"),
    ] {
        let mut command = Command::new(program);
        command.arg(format!("--root={}", root.path().display())).args(option);
        // sysusers may only pretend where the test is not root; tmpfiles cannot.
        if !nix::unistd::geteuid().is_root() {
            if option.is_some() {
                continue;
            }
            command.arg("--dry-run");
        }
        let output =
            command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/").to_owned() + file).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program}: {told}");
    }
    let users = shipped("baygate.sysusers");
    for (key, kind) in [("User", "u"), ("Group", "g")] {
        let name = words(key).remove(0);
        assert!(users.lines().any(|line| line.starts_with(&format!("{kind} {name} "))), "{key}={name}");
    }
    // systemd refuses to start a service whose credential's file is missing.
    let made = shipped("baygate.tmpfiles");
    for credential in words("LoadCredential") {
        let (_, path) = credential.split_once(':').unwrap();
        assert!(made.contains(&format!("f {path} 0600 root root")), "{path} is not made");
        if nix::unistd::geteuid().is_root() {
            assert!(root.path().join(path.trim_start_matches('/')).is_file(), "{path}");
        }
    }
}

/// Members of the admin group reach the control socket although the unit may not chown.
#[test]
fn the_control_socket_belongs_to_the_admin_group() {
    assert_eq!(words("Group"), ["baygate-admin"]);
    assert_eq!(words("UMask"), ["0077"]);
    assert_eq!(words("StateDirectoryMode"), ["0700"]);
}
