//! `baygate simulate`: the simulated vehicle, card and printer, alone, until Ctrl-C.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};

use super::{Exit, Global};
use crate::config::values::Locale;
use crate::sim::card::{CardProfile, CardSim, Technology};
use crate::sim::printer::{Pace, PrinterProfile, PrinterSim};
use crate::sim::vehicle::{Adapter, CarSpec, Dtc, Engine, Fault, Profile, VehicleSim};

/// Arguments of `baygate simulate`.
#[derive(Debug, clap::Args)]
#[command(
    about = "Simulated devices / 模拟设备",
    after_help = "Example:\n  baygate simulate vehicle --pty --link-to /tmp/obd --dtc P0420\n  baygate simulate card --technology ntag215\n  baygate simulate printer --listen 127.0.0.1:9100 --faces /tmp/faces"
)]
pub struct Args {
    #[command(subcommand)]
    device: Device,
}

#[derive(Debug, clap::Subcommand)]
enum Device {
    /// An ELM327 adapter with a car behind it / ELM327 适配器和车辆
    #[command(
        after_help = "Example:\n  baygate simulate vehicle --pty --link-to /tmp/obd --dtc P0420 --pending P0171\n  baygate simulate vehicle --listen 127.0.0.1:35000 --adapter clone-v2-1 --engine on --json\n  baygate simulate vehicle --pty --car car.toml --set coolant=74 --latency-ms 60"
    )]
    Vehicle(Box<VehicleArgs>),
    /// A card in a virtual reader's field / 虚拟读卡器上的会员卡
    #[command(
        after_help = "Example:\n  baygate simulate card --technology ntag215 --uid 04A1B2C3D45E80\n  baygate simulate card --connect 127.0.0.1:35963 --for 3s --json"
    )]
    Card(CardArgs),
    /// A Star TCP300 card-face printer / Star TCP300 卡面打印机
    #[command(
        after_help = "Example:\n  baygate simulate printer --pty --link-to /tmp/printer --faces /tmp/faces\n  baygate simulate printer --listen 127.0.0.1:9100 --faces /tmp/faces --print-ms 8000 --json"
    )]
    Printer(PrinterArgs),
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

#[derive(Debug, clap::Args)]
struct VehicleArgs {
    #[command(flatten)]
    place: Place,
    /// Stable path that points at the pseudo-terminal / 伪终端的固定路径
    #[arg(long, value_name = "PATH", requires = "pty")]
    link_to: Option<PathBuf>,
    /// Behaviour of the adapter, e.g. clone-v2-1; a wrong name lists all / 适配器类型
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,
    /// The adapter lies on the desk / 未插在车上
    #[arg(long, conflicts_with_all = ["car", "vin", "dtc"])]
    no_car: bool,
    /// The car as TOML; the options below change it / 车辆文件 (TOML)
    #[arg(long, value_name = "FILE")]
    car: Option<PathBuf>,
    /// Vehicle identification number / 车架号
    #[arg(long)]
    vin: Option<crate::ident::Vin>,
    /// Confirmed trouble code, repeatable / 已确认故障码
    #[arg(long, value_name = "CODE")]
    dtc: Vec<Dtc>,
    /// Pending trouble code, repeatable / 未决故障码
    #[arg(long, value_name = "CODE")]
    pending: Vec<Dtc>,
    /// Permanent trouble code, repeatable / 永久故障码
    #[arg(long, value_name = "CODE")]
    permanent: Vec<Dtc>,
    /// Battery in volts / 电瓶电压
    #[arg(long, value_name = "VOLTS")]
    voltage: Option<f64>,
    /// What the engine does / 发动机状态
    #[arg(long)]
    engine: Option<Engine>,
    /// As AT SP: 3 ISO 9141-2, 4 5 KWP, 6 8 CAN 11 bit, 7 9 CAN 29 bit / 协议
    #[arg(long, value_name = "1-9")]
    protocol: Option<u8>,
    /// Holds a live signal, e.g. rpm=3000; a wrong name lists all / 固定实时值
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = signal)]
    signals: Vec<(String, f64)>,
    /// From request to answer / 应答延迟（毫秒）
    #[arg(long, value_name = "MS")]
    latency_ms: Option<u64>,
    /// Every n-th answer has a wrong character / 每 n 个应答出错一次
    #[arg(long, value_name = "N")]
    garble_every: Option<u32>,
    /// Ends by itself / 运行时长
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
}

#[derive(Debug, clap::Args)]
struct CardArgs {
    /// Where the reader listens: vsmartcard's driver or a reader of kind vpcd / 读卡器地址
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:35963")]
    connect: String,
    /// What the card is / 卡类型
    #[arg(long, default_value = "classic-1k")]
    technology: Technology,
    /// UID in hex, 4 to 10 bytes / 卡号 (UID)
    #[arg(long, value_name = "HEX", value_parser = uid)]
    uid: Option<Uid>,
    /// The reader passes ACR122U direct transmits to the card / 支持直通命令
    #[arg(long)]
    direct_transmit: bool,
    /// How long the card stays / 停留时长
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
}

#[derive(Debug, clap::Args)]
struct PrinterArgs {
    #[command(flatten)]
    place: Place,
    /// Stable path that points at the pseudo-terminal / 伪终端的固定路径
    #[arg(long, value_name = "PATH", requires = "pty")]
    link_to: Option<PathBuf>,
    /// Folder for the printed faces / 卡面图片目录
    #[arg(long, value_name = "FOLDER", default_value = "faces")]
    faces: PathBuf,
    /// Time to erase and print / 打印时间（毫秒）
    #[arg(long, value_name = "MS", default_value_t = 3000)]
    print_ms: u64,
    /// Nobody puts cards in: every print waits for one / 无人放卡
    #[arg(long)]
    unattended: bool,
    /// Ends by itself / 运行时长
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
}

/// A UID as bytes.
#[derive(Debug, Clone)]
struct Uid(Vec<u8>);

fn uid(text: &str) -> Result<Uid, String> {
    let bytes = hex::decode(text).map_err(|error| error.to_string())?;
    if (4..=10).contains(&bytes.len()) { Ok(Uid(bytes)) } else { Err("4 to 10 bytes, e.g. 04A1B2C3".into()) }
}

fn signal(text: &str) -> Result<(String, f64), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE, e.g. rpm=3000")?;
    let value = value.parse().map_err(|_| format!("{value:?} is not a number"))?;
    Ok((name.to_owned(), value))
}

/// Runs `baygate simulate`.
///
/// # Errors
/// The device cannot be plugged in where it was asked to be, or is described wrongly.
pub async fn run(args: Args, global: &Global) -> anyhow::Result<Exit> {
    match args.device {
        Device::Vehicle(args) => vehicle(*args, global).await,
        Device::Card(args) => card(args, global).await,
        Device::Printer(args) => printer(args, global).await,
    }
}

async fn vehicle(args: VehicleArgs, global: &Global) -> anyhow::Result<Exit> {
    let profile = match profile(&args) {
        Ok(profile) => profile,
        Err(error) => {
            eprintln!("{error:#}");
            return Ok(Exit::Usage);
        }
    };
    let place = args.place.listen;
    let sim = match place {
        Some(address) => VehicleSim::spawn_tcp(address, profile).await,
        None => VehicleSim::spawn_pty(profile, args.link_to).await,
    };
    let sim = match sim {
        Ok(sim) => sim,
        Err(error) => return Ok(unplugged(&error)),
    };
    if let Some(every) = args.garble_every {
        sim.fault(Fault::GarbleEvery(every));
    }
    let scheme = if place.is_some() { "tcp" } else { "serial" };
    let link = format!("elm327+{scheme}://{}", sim.name());
    say(global, &json!({ "device": "vehicle", "listening": sim.name(), "link": link }), |locale| {
        format!("{} {link}", locale.pick("模拟车辆位于", "simulated vehicle at"))
    });
    until_told(args.duration).await;
    sim.stop().await;
    Ok(Exit::Done)
}

/// The car file, changed by the options.
fn profile(args: &VehicleArgs) -> anyhow::Result<Profile> {
    let adapter = args.adapter.as_deref().map_or_else(|| Ok(Adapter::default()), Adapter::named)?;
    if args.no_car {
        return Ok(Profile { adapter, car: None });
    }
    let mut car = match &args.car {
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
            CarSpec::from_toml(&text).with_context(|| path.display().to_string())?
        }
        None => CarSpec::default(),
    };
    if let Some(vin) = &args.vin {
        car.vin = Some(vin.to_string());
    }
    car.confirmed.extend(&args.dtc);
    car.pending.extend(&args.pending);
    car.permanent.extend(&args.permanent);
    car.voltage = args.voltage.or(car.voltage);
    car.engine = args.engine.unwrap_or(car.engine);
    car.protocol = args.protocol.unwrap_or(car.protocol);
    car.latency_ms = args.latency_ms.unwrap_or(car.latency_ms);
    car.signals.extend(args.signals.iter().cloned());
    // Says what is wrong with the car before anything is plugged in.
    crate::sim::vehicle::Car::new(&car)?;
    Ok(Profile { adapter, car: Some(car) })
}

async fn card(args: CardArgs, global: &Global) -> anyhow::Result<Exit> {
    let mut profile = CardProfile::new(args.technology);
    if let Some(Uid(uid)) = args.uid {
        profile.uid = uid;
    }
    profile.direct_transmit = args.direct_transmit;
    let uid = hex::encode_upper(&profile.uid);
    let atr = hex::encode_upper(profile.answer_to_reset());
    let mut sim = match CardSim::tap(&args.connect, profile).await {
        Ok(sim) => sim,
        Err(error) => {
            eprintln!(
                "{}: {error}; {}",
                args.connect,
                global.language().pick(
                    "请先启动读卡器（pcscd 加 vsmartcard-vpcd，或 kind=\"vpcd\" 的读卡器）",
                    "start a reader first (pcscd with vsmartcard-vpcd, or a reader of kind \"vpcd\")"
                )
            );
            return Ok(Exit::Device);
        }
    };
    let line = json!({ "device": "card", "connected": args.connect, "uid": uid, "atr": atr });
    say(global, &line, |locale| {
        format!(
            "{} {} (UID {uid})",
            locale.pick("卡片已放到读卡器", "card lies on the reader at"),
            args.connect
        )
    });
    tokio::select! {
        () = until_told(args.duration) => {
            sim.remove().await;
            Ok(Exit::Done)
        }
        () = sim.gone() => {
            eprintln!("{}", global.language().pick("读卡器断开了连接", "the reader hung up"));
            Ok(Exit::Device)
        }
    }
}

async fn printer(args: PrinterArgs, global: &Global) -> anyhow::Result<Exit> {
    let pace = Pace { print: Duration::from_millis(args.print_ms), ..Pace::default() };
    let profile = PrinterProfile { folder: Some(args.faces.clone()), pace, attended: !args.unattended };
    let place = args.place.listen;
    let sim = match place {
        Some(address) => PrinterSim::spawn_tcp(address, profile).await,
        None => PrinterSim::spawn_pty(profile, args.link_to).await,
    };
    let mut sim = match sim {
        Ok(sim) => sim,
        Err(error) => return Ok(unplugged(&error)),
    };
    let link = format!("{}://{}", if place.is_some() { "tcp" } else { "serial" }, sim.name());
    say(global, &json!({ "device": "printer", "listening": sim.name(), "link": link }), |locale| {
        format!("{} {link}", locale.pick("模拟打印机位于", "simulated printer at"))
    });
    let report = async {
        loop {
            let Some(face) = sim.next_face().await else { std::future::pending().await };
            let path = face.path.map(|path| path.display().to_string()).unwrap_or_default();
            say(global, &json!({ "device": "printer", "printed": path }), |locale| {
                format!("{} {path}", locale.pick("卡面已打印", "face printed:"))
            });
        }
    };
    tokio::select! {
        () = report => {}
        () = until_told(args.duration) => {}
    }
    sim.stop().await;
    Ok(Exit::Done)
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
        assert!(examples.len() >= 10);
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
        let car = profile(&args).unwrap().car.unwrap();
        assert_eq!(car.vin.as_deref(), Some("LSVAA49J132047371"));
        assert_eq!(car.confirmed.iter().map(ToString::to_string).collect::<Vec<_>>(), ["P0133", "P0420"]);
        assert_eq!((car.engine, car.signals.len()), (Engine::On, 2));
    }

    #[test]
    fn what_is_wrong_is_said_before_anything_is_plugged_in() {
        for (line, word) in [
            ("simulate vehicle", "--pty"),
            ("simulate vehicle --pty --listen 127.0.0.1:1", "--listen"),
            ("simulate vehicle --listen 127.0.0.1:1 --link-to /x", "--pty"),
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
            assert!(format!("{:#}", profile(&args).unwrap_err()).contains(word), "{line}");
        }
    }
}
