//! The unit stays locked down: `systemd-analyze security` judges it offline.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::process::Command;

/// Exposure above this fails (issue: "fails above 2.0").
const LIMIT: f64 = 2.0;

#[test]
fn exposure_level_is_low() {
    let unit = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/baygate.service");
    let output = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--no-pager", unit])
        .output()
        .expect("systemd-analyze is part of package systemd; `make test` installs it");
    let text = String::from_utf8_lossy(&output.stdout);
    let level: f64 = text
        .lines()
        .find_map(|line| line.split("baygate.service: ").nth(1))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| {
            panic!("no exposure level in: {text}\n{}", String::from_utf8_lossy(&output.stderr))
        });
    println!("exposure level {level}");
    assert!(level <= LIMIT, "exposure level {level} is above {LIMIT}:\n{text}");
}

#[test]
fn unit_verifies() {
    let unit =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/baygate.service")).unwrap();
    // Group=: members of baygate-admin reach the control socket (contract §1) although chown is refused.
    for line in ["Type=notify", "WatchdogSec=", "LoadCredential=mqtt-password:", "Group=baygate-admin"] {
        assert!(unit.lines().any(|l| l.starts_with(line)), "{line} is missing");
    }
}
