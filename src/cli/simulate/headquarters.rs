//! `baygate simulate headquarters`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::super::{Exit, Global};
use super::{say, until_told};
use crate::sim::headquarters::{Options, Received, Verdict, serve_journaled};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The MQTT broker / MQTT 服务器
    #[arg(long, value_name = "HOST:PORT")]
    broker: String,
    /// First part of every topic / 主题前缀
    #[arg(long, value_name = "TOPIC", default_value = "baygate/v1")]
    root: String,
    /// What came in, one line an event; read again at the next start / 记录文件，重启后继续
    #[arg(long, value_name = "FILE")]
    journal: PathBuf,
    /// Never sends `ack`, as a headquarters behind `confirm = "broker"` / 不发送 ack
    #[arg(long)]
    no_ack: bool,
    /// Ends by itself / 运行时长
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
}

pub(super) async fn run(args: Args, global: &Global) -> anyhow::Result<Exit> {
    let found = tokio::net::lookup_host(&args.broker).await.map(|mut found| found.next());
    let broker = match found {
        Ok(Some(broker)) => broker,
        Ok(None) | Err(_) => {
            let text =
                global.language().pick("找不到该地址，请写成 主机:端口", "no such address; write HOST:PORT");
            eprintln!("{}: {text}", args.broker);
            return Ok(Exit::Device);
        }
    };
    let options = Options { broker, root: args.root, acknowledge: !args.no_ack };
    let (out, mut received) = mpsc::channel(1024);
    let stop = CancellationToken::new();
    let (journal, stopped) = (args.journal.clone(), stop.clone());
    let serving = tokio::spawn(async move { serve_journaled(options, &journal, out, stopped).await });
    let line = json!({ "device": "headquarters", "broker": broker, "journal": args.journal });
    say(global, &line, |locale| {
        let words = locale.pick("总部连接到", "headquarters is at");
        format!("{words} {broker}, {}", args.journal.display())
    });
    let mut told = std::pin::pin!(until_told(args.duration));
    loop {
        tokio::select! {
            () = &mut told => break,
            received = received.recv() => match received {
                Some(received) => tell(global, &received),
                // It ended by itself, with the reason.
                None => break,
            },
        }
    }
    stop.cancel();
    // It must not wait for somebody to take what came last.
    drop(received);
    serving.await?.with_context(|| args.journal.display().to_string())?;
    Ok(Exit::Done)
}

fn tell(global: &Global, Received { event, verdict, .. }: &Received) {
    let verdict = match verdict {
        Verdict::Fresh => "fresh",
        Verdict::AheadOfOrder => "ahead",
        Verdict::Duplicate => "duplicate",
        Verdict::Fork => "fork",
    };
    let member = |name: &str| event.get(name).cloned().unwrap_or(Value::Null);
    let mut line = json!({ "device": "headquarters", "verdict": verdict });
    if let Some(line) = line.as_object_mut() {
        for name in ["type", "id", "source", "epoch", "sequence", "class", "classsequence"] {
            line.insert(name.into(), member(name));
        }
    }
    say(global, &line, |_| {
        let text = |name: &str| member(name).as_str().unwrap_or("-").to_owned();
        format!("{verdict:<9} {} {} {}", text("class"), text("classsequence"), text("type"))
    });
}
