//! `baygate simulate printer`.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use super::super::{Exit, Global};
use super::{Place, say, unplugged, until_told};
use crate::sim::printer::{Pace, PrinterProfile, PrinterSim};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    place: Place,
    /// Stable path that points at the pseudo-terminal / 伪终端的固定路径
    #[arg(long, value_name = "PATH", conflicts_with = "listen")]
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

pub(super) async fn run(args: Args, global: &Global) -> anyhow::Result<Exit> {
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
