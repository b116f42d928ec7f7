//! `baygate run`: the daemon.

use nix::sys::stat::{Mode, umask};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Exit, Global};
use crate::config::{self, pushed::Pushed};
use crate::gateway::{Gateway, GatewayError};

/// Run the daemon / 运行守护进程
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples / 示例:\n  baygate run --config /etc/baygate/baygate.toml\n  kill -HUP $(pidof baygate)   # reload / 重新加载\n  BAYGATE_LOG=debug baygate run --config ./conf.d"
)]
pub struct Args {}

pub async fn run(_: Args, global: &Global) -> anyhow::Result<Exit> {
    let config = match config::load(&global.config) {
        Ok(config) => config,
        Err(errors) => {
            for error in errors {
                eprintln!("{error}");
            }
            return Ok(Exit::Usage);
        }
    };
    // VINs, UIDs and card numbers lie in the data folder, whoever made it and with whatever mode.
    umask(Mode::from_bits_truncate(0o077));
    let gateway = match Gateway::build(config).await {
        Ok(gateway) => gateway,
        Err(error) => {
            eprintln!("baygate: {error}");
            return Ok(match error {
                GatewayError::Assets(_) => Exit::Usage,
                _ => Exit::Failed,
            });
        }
    };
    let stop = CancellationToken::new();
    let (ask, reloads) = mpsc::channel(1);
    let mut hangup = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stopping = stop.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = hangup.recv() => {
                    // One reload waiting is as good as two.
                    let _ = ask.try_send(());
                }
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
            }
        }
        stopping.cancel();
    });
    let path = global.config.clone();
    let reload = move |pushed: Option<&Pushed>| config::load_with(&path, pushed);
    gateway.run(reload, reloads, stop).await?;
    Ok(Exit::Done)
}
