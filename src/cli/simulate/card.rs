//! `baygate simulate card`.

use std::time::Duration;

use serde_json::json;

use super::super::{Exit, Global};
use super::{say, until_told};
use crate::sim::card::{CardProfile, CardSim, Technology};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where the reader listens: vsmartcard's driver or a reader of kind vpcd / 读卡器地址
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:35963")]
    connect: String,
    /// What the card is / 卡类型
    #[arg(long, default_value = "classic-1k")]
    technology: Technology,
    /// UID in hex, 4 to 10 bytes / 卡片 UID（十六进制）
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
