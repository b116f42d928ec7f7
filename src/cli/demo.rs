//! `baygate demo`: the whole product on simulated devices.

use std::net::SocketAddr;
use std::path::PathBuf;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{Exit, Global};
use crate::config::values::Period;
use crate::demo;

/// The whole product on simulated devices and an embedded broker / 在模拟设备上演示整套产品
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples / 示例:\n  baygate demo\n  baygate demo --for 20s --locale en\n  baygate demo --listen 127.0.0.1:9000\nWhile it runs, type broker, dongle, reader or printer and Enter to pull it out or plug it in\n/ 运行时输入 broker、dongle、reader 或 printer 并回车，可拔掉或插回相应部件"
)]
pub struct Args {
    /// End by itself after this time / 运行时长
    #[arg(long = "for", value_name = "DURATION")]
    lasting: Option<Period>,
    /// Where the local HTTP listens / 本地 HTTP 地址 [default: 127.0.0.1:8480, or any free port]
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// Where the demo keeps its files / 演示文件夹
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub async fn run(args: Args, global: &Global) -> anyhow::Result<Exit> {
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        stopping.cancel();
    });
    let options = demo::Options {
        lasting: args.lasting.map(|period| period.0),
        listen: args.listen,
        dir: args.dir,
        locale: global.language(),
        json: global.json,
    };
    demo::run(options, stop).await?;
    Ok(Exit::Done)
}
