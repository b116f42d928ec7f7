//! `baygate simulate vehicle`.

mod replay;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use serde_json::json;

use super::super::{Exit, Global};
use super::{say, unplugged, until_told};
use crate::config::values::Locale;
use crate::ident::Vin;
use crate::sim::vehicle::{
    Adapter, BusSim, Car, CarSpec, Dtc, Engine, Fault, Place, Profile, Script, SlcanFault, SlcanProfile,
    SlcanSim, SpecError, Stage, Truck, VehicleSim,
};

/// Beyond what a driver waits for an echo it is no line any more.
const MOST_LINE_MS: u64 = 5_000;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// On a pseudo-terminal / 使用伪终端
    #[arg(long, conflicts_with = "listen", required_unless_present_any = ["listen", "adapter", "can"])]
    pty: bool,
    /// On a TCP address, e.g. 127.0.0.1:35000 / 监听 TCP 地址
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// Stable path that points at the pseudo-terminal / 伪终端的固定路径
    #[arg(long, value_name = "PATH", conflicts_with = "listen")]
    link_to: Option<PathBuf>,
    /// On a CAN interface of the kernel, without a dongle / 直接接在 CAN 接口上
    #[arg(long, value_name = "INTERFACE", conflicts_with_all = ["pty", "listen", "link_to", "adapter", "no_car", "slcan"])]
    can: Option<String>,
    /// An slcan adapter instead of an ELM327 / slcan 适配器
    #[arg(long, conflicts_with_all = ["adapter", "no_car"])]
    slcan: bool,
    /// Plays a trace of `baygate scan --trace` or a recording of the daemon (.zst) back instead; a bus's with --slcan or --can / 回放记录，总线记录需加 --slcan 或 --can
    #[arg(long, value_name = "FILE", conflicts_with_all = [
        "adapter", "no_car", "car", "truck", "vin", "dtc", "pending", "permanent", "voltage", "engine",
        "protocol", "signals", "latency_ms", "garble_every", "script",
    ])]
    replay: Option<PathBuf>,
    /// Behaviour of the adapter, e.g. clone-v2-1; "list" prints all / 适配器类型，list 列出全部
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,
    /// The adapter lies on the desk / 未插在车上
    #[arg(long, conflicts_with_all = ["car", "truck", "vin", "dtc"])]
    no_car: bool,
    /// The car as TOML; the options below change it / 车辆文件 (TOML)
    #[arg(long, value_name = "FILE")]
    car: Option<PathBuf>,
    /// A truck (SAE J1939) with the usual codes, on slcan or CAN / 卡车 (J1939)，用于 slcan 或 CAN
    #[arg(long)]
    truck: bool,
    /// Vehicle identification number / 车架号
    #[arg(long)]
    vin: Option<Vin>,
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
    /// Between host and adapter, both ways together, beside --latency-ms / 主机与适配器之间往返的延迟（毫秒）
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(..=MOST_LINE_MS),
          conflicts_with_all = ["slcan", "can", "replay"])]
    line_ms: Option<u64>,
    /// Every n-th answer has a wrong character / 每 n 个应答出错一次
    #[arg(long, value_name = "N", conflicts_with = "can")]
    garble_every: Option<u32>,
    /// What happens when: faults, key, other cars, ageing sensors / 脚本：故障、点火、换车、传感器漂移
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,
    /// Ends by itself / 运行时长
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
}

fn signal(text: &str) -> Result<(String, f64), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE, e.g. rpm=3000")?;
    let value = value.parse().map_err(|_| format!("{value:?} is not a number"))?;
    Ok((name.to_owned(), value))
}

pub(super) async fn run(args: Args, global: &Global) -> anyhow::Result<Exit> {
    if args.adapter.as_deref() == Some("list") {
        return list(global);
    }
    // With --adapter the parser does not ask for it, so that the list can be had without.
    if !args.pty && args.listen.is_none() && args.can.is_none() {
        let zh = "请用 --pty、--listen ADDR 或 --can INTERFACE 指定模拟器的位置";
        eprintln!(
            "{}",
            global.language().pick(zh, "say where it shall be: --pty, --listen ADDR or --can INTERFACE")
        );
        return Ok(Exit::Usage);
    }
    if let Some(path) = &args.replay {
        return replay::run(path, &args, global).await;
    }
    let (profile, script) = match profile(&args).and_then(|profile| Ok((profile, script(&args)?))) {
        Ok(both) => both,
        Err(error) => {
            let told = error.downcast_ref().and_then(|error| refusal(error, global.language()));
            eprintln!("{}", told.unwrap_or_else(|| format!("{error:#}")));
            return Ok(Exit::Usage);
        }
    };
    if let Some(interface) = &args.can {
        return on_interface(interface, profile, script, &args, global).await;
    }
    if args.slcan {
        return on_slcan(profile, script, &args, global).await;
    }
    let place = args.listen;
    let sim = match place {
        Some(address) => VehicleSim::spawn_tcp(address, profile).await,
        None => VehicleSim::spawn_pty(profile, args.link_to).await,
    };
    let mut sim = match sim {
        Ok(sim) => sim,
        Err(error) => return Ok(unplugged(&error)),
    };
    if let Some(every) = args.garble_every {
        sim.fault(Fault::GarbleEvery(every));
    }
    announce(global, &sim.name(), place.is_some());
    play(script, &mut sim, args.duration).await?;
    sim.stop().await;
    Ok(Exit::Done)
}

/// Plays the script, if any, until the time is over or somebody says stop.
async fn play(
    script: Option<Script>,
    stage: impl Into<Stage<'_>>,
    duration: Option<Duration>,
) -> Result<(), SpecError> {
    let played = async {
        if let Some(script) = script {
            script.play(stage).await?;
        }
        std::future::pending::<Result<(), SpecError>>().await
    };
    tokio::select! {
        () = until_told(duration) => Ok(()),
        ended = played => ended,
    }
}

/// What was asked for and cannot be had there.
fn refusal(error: &SpecError, locale: Locale) -> Option<String> {
    let zh = match error {
        SpecError::Truck => "卡车使用 J1939 (SAE)，需要总线：请加 --slcan 或 --can".to_owned(),
        SpecError::Step(at) => {
            format!("脚本在 {at} 的步骤在此处无法执行：哪些步骤需要 ELM327，见 docs/simulators.md")
        }
        _ => return None,
    };
    Some(locale.pick(&zh, &error.to_string()).to_owned())
}

fn script(args: &Args) -> anyhow::Result<Option<Script>> {
    let Some(path) = &args.script else { return Ok(None) };
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let script = Script::from_toml(&text).with_context(|| path.display().to_string())?;
    script.suits(match (&args.can, args.slcan) {
        (Some(_), _) => Place::Interface,
        (None, true) => Place::Slcan,
        (None, false) => Place::Elm327,
    })?;
    Ok(Some(script))
}

/// Prints the adapters that can be simulated.
fn list(global: &Global) -> anyhow::Result<Exit> {
    for (name, adapter) in Adapter::all()? {
        let says = adapter.stn.as_deref().unwrap_or(&adapter.banner);
        say(global, &json!({ "adapter": name, "says": says }), |_| format!("{name:32}{says}"));
    }
    Ok(Exit::Done)
}

async fn on_interface(
    interface: &str,
    profile: Profile,
    script: Option<Script>,
    args: &Args,
    global: &Global,
) -> anyhow::Result<Exit> {
    let mut car = match BusSim::spawn(interface, &profile.car.unwrap_or_default()) {
        Ok(car) => car,
        Err(error) => return Ok(unplugged(&error)),
    };
    announce_link(global, interface, &format!("can://{interface}"));
    play(script, &mut car, args.duration).await?;
    drop(car);
    Ok(Exit::Done)
}

async fn on_slcan(
    profile: Profile,
    script: Option<Script>,
    args: &Args,
    global: &Global,
) -> anyhow::Result<Exit> {
    let (behaviour, car) = (SlcanProfile::default(), profile.car.unwrap_or_default());
    let sim = match args.listen {
        Some(address) => SlcanSim::spawn_tcp(address, behaviour, &car).await,
        None => SlcanSim::spawn_pty(behaviour, &car, args.link_to.clone()).await,
    };
    let mut sim = match sim {
        Ok(sim) => sim,
        Err(error) => return Ok(unplugged(&error)),
    };
    if let Some(every) = args.garble_every {
        sim.fault(SlcanFault::GarbleEvery(every));
    }
    let name = sim.name();
    let scheme = if args.listen.is_some() { "tcp" } else { "serial" };
    announce_link(global, &name, &format!("slcan+{scheme}://{name}?bitrate={}", car.bitrate()));
    play(script, &mut sim, args.duration).await?;
    sim.stop().await;
    Ok(Exit::Done)
}

fn announce(global: &Global, name: &str, tcp: bool) {
    announce_link(global, name, &format!("elm327+{}://{name}", if tcp { "tcp" } else { "serial" }));
}

fn announce_link(global: &Global, name: &str, link: &str) {
    say(global, &json!({ "device": "vehicle", "listening": name, "link": link }), |locale| {
        format!("{} {link}", locale.pick("模拟车辆位于", "simulated vehicle at"))
    });
}

/// The car file, changed by the options.
pub(super) fn profile(args: &Args) -> anyhow::Result<Profile> {
    let mut adapter = args.adapter.as_deref().map_or_else(|| Ok(Adapter::default()), Adapter::named)?;
    adapter.line_ms = args.line_ms.unwrap_or(adapter.line_ms);
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
    if args.truck {
        // J1939-11: 250 kbit/s, 29 bit.
        car.protocol = 9;
        car.truck = Some(Truck::usual(car.vin.as_deref()));
    }
    car.protocol = args.protocol.unwrap_or(car.protocol);
    car.latency_ms = args.latency_ms.unwrap_or(car.latency_ms);
    car.signals.extend(args.signals.iter().cloned());
    // Says what is wrong with the car before anything is plugged in.
    Car::new(&car)?;
    if car.truck.is_some() && !args.slcan && args.can.is_none() {
        return Err(SpecError::Truck.into());
    }
    Ok(Profile { adapter, car: Some(car) })
}
