//! `baygate simulate`: the simulated vehicle, card, printer and headquarters, alone, until Ctrl-C.

mod card;
mod headquarters;
mod printer;
mod vehicle;

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;

use super::{Exit, Global};
use crate::config::values::Locale;

/// Arguments of `baygate simulate`.
#[derive(Debug, clap::Args)]
#[command(
    about = "Simulated devices / 模拟设备",
    after_help = "Example:\n  baygate simulate vehicle --pty --link-to /tmp/obd --dtc P0420\n  baygate simulate card --technology ntag215\n  baygate simulate printer --listen 127.0.0.1:9100 --faces /tmp/faces\n  baygate simulate headquarters --broker 127.0.0.1:1883 --journal hq.journal"
)]
pub struct Args {
    #[command(subcommand)]
    device: Device,
}

#[derive(Debug, clap::Subcommand)]
enum Device {
    /// An ELM327 adapter with a car behind it / ELM327 适配器和车辆
    #[command(
        after_help = "Example:\n  baygate simulate vehicle --pty --link-to /tmp/obd --dtc P0420 --pending P0171\n  baygate simulate vehicle --listen 127.0.0.1:35000 --adapter clone-v2-1 --engine on --json\n  baygate simulate vehicle --pty --car car.toml --set coolant=74 --latency-ms 60\n  baygate simulate vehicle --pty --replay trace.jsonl\n  baygate simulate vehicle --pty --slcan --replay trace.log\n  baygate simulate vehicle --pty --script bad-day.toml"
    )]
    Vehicle(Box<vehicle::Args>),
    /// A card in a virtual reader's field / 虚拟读卡器上的会员卡
    #[command(
        after_help = "Example:\n  baygate simulate card --technology ntag215 --uid 04A1B2C3D45E80\n  baygate simulate card --connect 127.0.0.1:35963 --for 3s --json\n  baygate simulate card --kind em4100 --pty --link-to /tmp/reader --uid 100086F444\n  baygate simulate card --kind pn532 --pty --link-to /tmp/reader --technology ntag215"
    )]
    Card(card::Args),
    /// A Star TCP300 card-face printer / Star TCP300 卡面打印机
    #[command(
        after_help = "Example:\n  baygate simulate printer --pty --link-to /tmp/printer --faces /tmp/faces\n  baygate simulate printer --listen 127.0.0.1:9100 --faces /tmp/faces --print-ms 8000 --json"
    )]
    Printer(printer::Args),
    /// A headquarters that keeps every event on its disk, then acknowledges it / 总部：先落盘，再确认
    #[command(
        after_help = "Example:\n  baygate simulate headquarters --broker 127.0.0.1:1883 --journal hq.journal\n  baygate simulate headquarters --broker 127.0.0.1:1883 --journal hq.journal --no-ack --json"
    )]
    Headquarters(headquarters::Args),
}

/// Where a simulated device is plugged in.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false, id = "place")]
struct Place {
    /// On a pseudo-terminal / 使用伪终端
    #[arg(long)]
    pty: bool,
    /// On a TCP address, e.g. 127.0.0.1:35000 / 监听 TCP 地址
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
}

/// Runs `baygate simulate`.
///
/// # Errors
/// The device cannot be plugged in where it was asked to be, or is described wrongly.
pub async fn run(args: Args, global: &Global) -> anyhow::Result<Exit> {
    match args.device {
        Device::Vehicle(args) => vehicle::run(*args, global).await,
        Device::Card(args) => card::run(args, global).await,
        Device::Printer(args) => printer::run(args, global).await,
        Device::Headquarters(args) => headquarters::run(args, global).await,
    }
}

fn unplugged(error: &std::io::Error) -> Exit {
    eprintln!("{error}");
    Exit::Device
}

/// One line: JSON or for people.
fn say(global: &Global, line: &Value, text: impl FnOnce(Locale) -> String) {
    if global.json { println!("{line}") } else { println!("{}", text(global.language())) }
}

/// Ctrl-C, SIGTERM, or the time is over.
async fn until_told(duration: Option<Duration>) {
    let over = async {
        match duration {
            Some(duration) => tokio::time::sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    let terminated = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => signal.recv().await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = over => {}
        _ = terminated => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::vehicle::Engine;
    use clap::{CommandFactory, FromArgMatches, Parser};

    #[derive(Debug, Parser)]
    struct Simulate {
        #[command(flatten)]
        args: Args,
    }

    fn parse(line: &str) -> Result<Device, clap::Error> {
        let matches = Simulate::command().try_get_matches_from(line.split(' '))?;
        Simulate::from_arg_matches(&matches).map(|simulate| simulate.args.device)
    }

    #[test]
    fn every_example_of_the_help_parses() {
        let mut command = Simulate::command();
        command.clone().debug_assert();
        let mut helps = vec![command.render_long_help().to_string()];
        helps.extend(command.get_subcommands_mut().map(|sub| sub.render_long_help().to_string()));
        let examples: Vec<_> = helps
            .iter()
            .flat_map(|help| help.lines())
            .filter_map(|l| l.trim().strip_prefix("baygate "))
            .collect();
        assert!(examples.len() >= 13);
        for example in examples {
            let line = example.replace(" --json", "");
            parse(&line).unwrap_or_else(|error| panic!("{example}: {error}"));
        }
    }

    #[test]
    fn options_change_the_car_of_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("car.toml");
        std::fs::write(
            &file,
            "vin = \"LSVAA49J132047371\"\nconfirmed = [\"P0133\"]\n[signals]\ncoolant = 74\n",
        )
        .unwrap();
        let line =
            format!("simulate vehicle --pty --car {} --dtc P0420 --set rpm=900 --engine on", file.display());
        let Device::Vehicle(args) = parse(&line).unwrap() else { panic!() };
        let car = vehicle::profile(&args).unwrap().car.unwrap();
        assert_eq!(car.vin.as_deref(), Some("LSVAA49J132047371"));
        assert_eq!(car.confirmed.iter().map(ToString::to_string).collect::<Vec<_>>(), ["P0133", "P0420"]);
        assert_eq!((car.engine, car.signals.len()), (Engine::On, 2));
    }

    #[test]
    fn what_is_wrong_is_said_before_anything_is_plugged_in() {
        for (line, word) in [
            ("simulate vehicle", "--pty"),
            ("simulate vehicle --pty --listen 127.0.0.1:1", "--listen"),
            ("simulate vehicle --listen 127.0.0.1:1 --link-to /x", "--link-to"),
            ("simulate vehicle --pty --dtc X0420", "P0420"),
            ("simulate vehicle --pty --vin SHORT", "17"),
            ("simulate vehicle --pty --set rpm", "NAME=VALUE"),
            ("simulate card --uid 04A1", "4 to 10 bytes"),
            ("simulate card --technology gold", "ntag215"),
        ] {
            let error = parse(line).unwrap_err().to_string();
            assert!(error.contains(word), "{line}: {error}");
        }
        for (line, word) in [
            ("simulate vehicle --pty --set warp=9", "coolant"),
            ("simulate vehicle --pty --protocol 12", "12"),
            ("simulate vehicle --pty --adapter gold", "stn1110"),
            ("simulate vehicle --pty --car /nonexistent.toml", "nonexistent"),
        ] {
            let Device::Vehicle(args) = parse(line).unwrap() else { panic!() };
            assert!(format!("{:#}", vehicle::profile(&args).unwrap_err()).contains(word), "{line}");
        }
    }
}
