//! `baygate simulate card`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use super::super::{Exit, Global};
use super::{say, unplugged, until_told};
use crate::sim::card::{CardProfile, CardSim, Chip, Em4100Sim, Pn532Sim, Technology};
use crate::sim::transport::Address;

/// What is simulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// A card in a virtual reader's field.
    Vpcd,
    /// A 125 kHz reader with a card on it.
    Em4100,
    /// A PN532 with a card in its field.
    Pn532,
}

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// vpcd: a card for a virtual reader; em4100, pn532: a reader with a card / 种类
    #[arg(long, value_enum, default_value = "vpcd")]
    kind: Kind,
    /// em4100, pn532: on a pseudo-terminal / 使用伪终端
    #[arg(long, conflicts_with = "listen")]
    pty: bool,
    /// em4100, pn532: on a TCP address / 监听 TCP 地址
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// em4100, pn532: stable path that points at the pseudo-terminal / 伪终端的固定路径
    #[arg(long, value_name = "PATH", requires = "pty")]
    link_to: Option<PathBuf>,
    /// Where the reader listens: vsmartcard's driver or a reader of kind vpcd / 读卡器地址
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:35963")]
    connect: String,
    /// What the card is / 卡类型
    #[arg(long, default_value = "classic-1k")]
    technology: Technology,
    /// UID in hex, 4 to 10 bytes; em4100: 5 bytes / 卡片 UID（十六进制）
    #[arg(long, value_name = "HEX", value_parser = uid)]
    uid: Option<Uid>,
    /// The reader passes ACR122U direct transmits to the card / 支持直通命令
    #[arg(long)]
    direct_transmit: bool,
    /// How long the card stays / 停留时长
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

pub(super) async fn run(args: Args, global: &Global) -> anyhow::Result<Exit> {
    match args.kind {
        Kind::Vpcd => vpcd(args, global).await,
        Kind::Em4100 => em4100(args, global).await,
        Kind::Pn532 => pn532(args, global).await,
    }
}

/// The card as it was described.
fn profile(technology: Technology, uid: Option<Uid>) -> CardProfile {
    let profile = CardProfile::new(technology);
    match uid {
        Some(Uid(uid)) => profile.with_uid(&uid),
        None => profile,
    }
}

async fn vpcd(args: Args, global: &Global) -> anyhow::Result<Exit> {
    let mut profile = profile(args.technology, args.uid);
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

/// The number in the readers' papers, 0008844356 in print.
const EM4100_CARD: [u8; 5] = [0x10, 0x00, 0x86, 0xF4, 0x44];

async fn em4100(args: Args, global: &Global) -> anyhow::Result<Exit> {
    let Ok(number) = args.uid.map_or(Ok(EM4100_CARD), |Uid(uid)| uid.try_into()) else {
        eprintln!(
            "--uid: {}",
            global.language().pick("EM4100 卡号为 5 字节", "an EM4100 number has 5 bytes")
        );
        return Ok(Exit::Usage);
    };
    let Some((address, scheme)) = place(args.pty, args.listen, args.link_to, global) else {
        return Ok(Exit::Usage);
    };
    let sim = match Em4100Sim::plug_in(address).await {
        Ok(sim) => sim,
        Err(error) => return Ok(unplugged(&error)),
    };
    sim.lay(number);
    let (link, uid) = (format!("{scheme}://{}", sim.name()), hex::encode_upper(number));
    say(
        global,
        &json!({ "device": "em4100", "listening": sim.name(), "link": link, "uid": uid }),
        |locale| {
            format!(
                "{} {link} (UID {uid})",
                locale.pick("模拟 125 kHz 读卡器位于", "simulated 125 kHz reader at")
            )
        },
    );
    until_told(args.duration).await;
    sim.stop().await;
    Ok(Exit::Done)
}

/// Where a reader is plugged in, and how its link begins; none was said.
fn place(
    pty: bool,
    listen: Option<SocketAddr>,
    link: Option<PathBuf>,
    global: &Global,
) -> Option<(Address, &'static str)> {
    match (pty, listen) {
        (_, Some(listen)) => Some((Address::Tcp(listen), "tcp")),
        (true, None) => Some((Address::Pty { link }, "serial")),
        (false, None) => {
            let what = "--kind em4100, --kind pn532";
            eprintln!(
                "{what}: {}",
                global.language().pick("请加 --pty 或 --listen", "add --pty or --listen")
            );
            None
        }
    }
}

async fn pn532(args: Args, global: &Global) -> anyhow::Result<Exit> {
    let Some((address, scheme)) = place(args.pty, args.listen, args.link_to, global) else {
        return Ok(Exit::Usage);
    };
    let sim = match Pn532Sim::plug_in(address).await {
        Ok(sim) => sim,
        Err(error) => return Ok(unplugged(&error)),
    };
    let profile = profile(args.technology, args.uid);
    let (link, uid) = (format!("{scheme}://{}", sim.name()), hex::encode_upper(&profile.uid));
    sim.lay(Chip::new(profile));
    say(global, &json!({ "device": "pn532", "listening": sim.name(), "link": link, "uid": uid }), |locale| {
        format!("{} {link} (UID {uid})", locale.pick("模拟 PN532 读卡器位于", "simulated PN532 reader at"))
    });
    until_told(args.duration).await;
    sim.stop().await;
    Ok(Exit::Done)
}
