//! `baygate pair`: shows a six-digit code and waits until the till has typed it.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::{Exit, Global, daemon};
use crate::api::Scope;
use crate::api::client::{Client, Method};

/// How often the daemon is asked, and the countdown moves.
const TICK: Duration = Duration::from_secs(1);

/// Arguments of `baygate pair`.
#[derive(Debug, clap::Args)]
#[command(
    about = "Pair a till by a six-digit code / 用六位配对码接入收银台",
    after_help = "Example:\n  baygate pair --till till-1 --scopes read,print"
)]
pub struct Args {
    /// A till of the configuration / 配置中的收银台
    #[arg(long)]
    till: String,
    /// What the till may do: read, spend, topup, issue, print, vehicle / 权限
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "SCOPE,…",
        default_value = "read,spend,topup,print,vehicle"
    )]
    scopes: Vec<Scope>,
}

/// Runs `baygate pair`.
///
/// # Errors
/// The daemon cannot be asked, or refuses.
pub async fn run(args: Args, global: &Global) -> anyhow::Result<Exit> {
    let client = daemon::connect(global).await?;
    let wanted = json!({ "till": args.till, "scopes": args.scopes });
    let opened = client.request(Method::POST, "/v1/pairings", Some(&wanted)).await?.accepted()?;
    let id = opened.get("id").and_then(Value::as_str).context("the daemon opened a pairing without an id")?;
    show(&opened, global);
    let path = format!("/v1/pairings/{id}");
    let ended = tokio::select! {
        ended = follow(&client, &path, global) => ended?,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            // Gone already is as good: the code is worth nothing either way.
            client.request(Method::DELETE, &path, None).await?;
            "cancelled".to_owned()
        }
    };
    Ok(conclude(&ended, global))
}

fn show(opened: &Value, global: &Global) {
    if global.json {
        println!("{opened}");
        return;
    }
    let text = |member: &str| opened.get(member).and_then(Value::as_str).unwrap_or("").to_owned();
    println!("{} {}", global.language().pick("配对码：", "Code:"), text("code"));
    let ca = text("ca_sha256");
    if !ca.is_empty() {
        let what = global.language().pick(
            "网关证书指纹（SHA-256），须与收银台显示的一致：",
            "Gateway CA (SHA-256); the till must show the same:",
        );
        println!("{what} {ca}");
    }
    let seconds = opened.get("expires_in_s").and_then(Value::as_u64).unwrap_or(0);
    let zh = format!("请在 {seconds} 秒内在收银台输入；本命令等待输入完成，按 Ctrl-C 取消。");
    let en = format!("Type it at the till within {seconds} s; this waits until it is done, Ctrl-C cancels.");
    println!("{}", global.language().pick(&zh, &en));
}

/// Asks until the pairing is over; its last state.
async fn follow(client: &Client, path: &str, global: &Global) -> anyhow::Result<String> {
    let countdown = !global.json && std::io::stderr().is_terminal();
    let mut tick = tokio::time::interval(TICK);
    loop {
        tick.tick().await;
        let view = client.request(Method::GET, path, None).await?.accepted()?;
        let state = view.get("state").and_then(Value::as_str).unwrap_or("expired");
        if state != "open" {
            if countdown {
                eprintln!();
            }
            return Ok(state.to_owned());
        }
        if countdown {
            let left = view.get("expires_in_s").and_then(Value::as_u64).unwrap_or(0);
            let attempts = view.get("attempts_left").and_then(Value::as_u64).unwrap_or(0);
            eprint!(
                "\r{} {left:3} s · {} {attempts} ",
                global.language().pick("剩余", "left"),
                global.language().pick("尝试次数", "attempts")
            );
            std::io::stderr().flush()?;
        }
    }
}

fn conclude(state: &str, global: &Global) -> Exit {
    let (exit, zh, en) = match state {
        "redeemed" => (Exit::Done, "配对完成。", "Paired."),
        "exhausted" => (
            Exit::Failed,
            "错误次数过多，配对已关闭；请重新运行。",
            "Too many wrong codes; the pairing is closed. Run this again.",
        ),
        "cancelled" => (Exit::Failed, "已取消。", "Cancelled."),
        _ => (Exit::Failed, "配对码已过期；请重新运行。", "The code has expired. Run this again."),
    };
    if global.json {
        println!("{}", json!({ "state": state }));
    } else {
        println!("{}", global.language().pick(zh, en));
    }
    exit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_redeemed_code_is_a_success() {
        let global = Global { config: "x".into(), json: true, locale: None };
        for (state, exit) in [
            ("redeemed", Exit::Done),
            ("expired", Exit::Failed),
            ("exhausted", Exit::Failed),
            ("cancelled", Exit::Failed),
        ] {
            assert_eq!(conclude(state, &global), exit, "{state}");
        }
    }
}
