//! The hidden command that `baygate-can@.service` runs: one request on standard input,
//! one answer on standard output. The only part of Baygate with a right of its own
//! (CAP_NET_ADMIN), so it does this and nothing else.

use std::io::Read;

use super::{Exit, Global};
use crate::config::values::{CAN_BITRATES, is_interface_name};
use crate::link::can::interface;

/// The longest request, with room.
const LONGEST: u64 = 64;

/// Sets a CAN interface up; run by systemd for the daemon / 设置 CAN 接口（由 systemd 调用）
#[derive(Debug, clap::Args)]
pub struct Args {}

pub(super) async fn run(_args: Args, _global: &Global) -> anyhow::Result<Exit> {
    let mut line = Vec::new();
    // One line; whoever keeps the connection open without ending it is cut off by systemd.
    for byte in std::io::stdin().lock().take(LONGEST).bytes() {
        match byte? {
            b'\n' => break,
            byte => line.push(byte),
        }
    }
    match serve(&line) {
        Ok(()) => {
            println!("ok");
            Ok(Exit::Done)
        }
        Err(why) => {
            println!("{why}");
            Ok(Exit::Refused)
        }
    }
}

fn serve(line: &[u8]) -> Result<(), String> {
    let (name, bitrate, listen_only) = parse(line)?;
    interface::apply(name, bitrate, listen_only)
}

/// `NAME BITRATE` or `NAME BITRATE listen-only`.
fn parse(line: &[u8]) -> Result<(&str, u32, bool), String> {
    let form = || "not a request; it is NAME BITRATE [listen-only]".to_owned();
    let text = std::str::from_utf8(line).map_err(|_| form())?;
    let words: Vec<&str> = text.split(' ').collect();
    let (name, bitrate, listen_only) = match words.as_slice() {
        [name, bitrate] => (name, bitrate, false),
        [name, bitrate, "listen-only"] => (name, bitrate, true),
        _ => return Err(form()),
    };
    if !is_interface_name(name) {
        return Err(format!("{name:?} is not the name of an interface"));
    }
    let bitrate = bitrate.parse().ok().filter(|rate| CAN_BITRATES.contains(rate));
    let bitrate = bitrate.ok_or_else(|| "that bit rate is not one of cars".to_owned())?;
    Ok((name, bitrate, listen_only))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_meant_is_read() {
        assert_eq!(parse(b"can0 500000"), Ok(("can0", 500_000, false)));
        assert_eq!(parse(b"can0 250000 listen-only"), Ok(("can0", 250_000, true)));
        for line in [
            &b""[..],
            b"can0",
            b"can0 500001",
            b"can0 -1",
            b"../etc 500000",
            b"can0 500000 loopback",
            b"can0 500000 listen-only x",
            b"can\xFF 500000",
            b"a-name-too-long-for-it 500000",
        ] {
            assert!(parse(line).is_err(), "{}", line.escape_ascii());
        }
    }

    #[test]
    fn other_interfaces_are_left_alone() {
        let refused = serve(b"lo 500000").unwrap_err();
        assert!(refused.contains("no CAN interface"), "{refused}");
    }
}
