//! `baygate token`: makes, lists and takes back bearer tokens through the
//! running daemon.

use serde_json::{Value, json};

use super::{Exit, Global, daemon};
use crate::api::Scope;
use crate::api::client::{Client, Method};
use crate::config::values::Locale;

/// Arguments of `baygate token`.
#[derive(Debug, clap::Args)]
#[command(
    about = "Bearer tokens for scripts / 脚本用令牌",
    after_help = "Example:\n  baygate token create --name reports --scopes read --json\n  baygate token list\n  baygate token revoke 0199e0c6-7d2c-7cc2-a5a4-2f1d7a8f3a11"
)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Makes a token and prints it once / 建立令牌（只显示一次）
    #[command(
        after_help = "Example:\n  baygate token create --name label-printer --scopes read,print --json"
    )]
    Create {
        /// For people, e.g. the script's name / 名称
        #[arg(long)]
        name: String,
        /// read, spend, topup, issue, print, vehicle, admin / 权限
        #[arg(long, required = true, value_delimiter = ',', value_name = "SCOPE,…")]
        scopes: Vec<Scope>,
    },
    /// Lists all tokens, revoked ones included / 列出令牌
    #[command(after_help = "Example:\n  baygate token list --json")]
    List,
    /// Takes a token back / 收回令牌
    #[command(after_help = "Example:\n  baygate token revoke 0199e0c6-7d2c-7cc2-a5a4-2f1d7a8f3a11")]
    Revoke {
        /// The id from `baygate token list` / 令牌编号
        id: uuid::Uuid,
    },
}

/// Runs `baygate token`.
///
/// # Errors
/// The daemon cannot be asked, or refuses.
pub async fn run(args: Args, global: &Global) -> anyhow::Result<Exit> {
    let client = daemon::connect(global).await?;
    let locale = global.language();
    match args.command {
        Command::Create { name, scopes } => create(&client, global, &name, &scopes).await?,
        Command::List => list(&client, global).await?,
        Command::Revoke { id } => {
            client.request(Method::DELETE, &format!("/v1/tokens/{id}"), None).await?.accepted()?;
            if global.json {
                println!("{}", json!({ "id": id, "revoked": true }));
            } else {
                println!("{} {id}", locale.pick("已收回令牌", "token revoked:"));
            }
        }
    }
    Ok(Exit::Done)
}

async fn create(client: &Client, global: &Global, name: &str, scopes: &[Scope]) -> anyhow::Result<()> {
    let wanted = json!({ "name": name, "scopes": scopes });
    let made = client.request(Method::POST, "/v1/tokens", Some(&wanted)).await?.accepted()?;
    if global.json {
        println!("{made}");
        return Ok(());
    }
    let text = |member: &str| made.get(member).and_then(Value::as_str).unwrap_or("").to_owned();
    println!("{}", text("token"));
    eprintln!(
        "{} {}",
        global.language().pick(
            "令牌只显示这一次，请妥善保存。编号：",
            "The token is shown only this once; keep it safe. Its id:"
        ),
        text("id")
    );
    Ok(())
}

async fn list(client: &Client, global: &Global) -> anyhow::Result<()> {
    let listed = client.request(Method::GET, "/v1/tokens", None).await?.accepted()?;
    if global.json {
        println!("{listed}");
        return Ok(());
    }
    let tokens = listed.get("tokens").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    println!("{}", table(tokens, global.language()));
    Ok(())
}

fn table(tokens: &[Value], locale: Locale) -> String {
    let text =
        |token: &Value, member: &str| token.get(member).and_then(Value::as_str).unwrap_or("-").to_owned();
    let scopes = |token: &Value| {
        let names = token.get("scopes").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        names.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(",")
    };
    let mut lines = vec![format!(
        "{:36}  {:20}  {:10}  {:24}  {:24}  {}",
        "ID",
        locale.pick("NAME/名称", "NAME"),
        locale.pick("TILL/收银台", "TILL"),
        locale.pick("CREATED/建立", "CREATED"),
        locale.pick("REVOKED/收回", "REVOKED"),
        locale.pick("SCOPES/权限", "SCOPES"),
    )];
    lines.extend(tokens.iter().map(|token| {
        format!(
            "{:36}  {:20}  {:10}  {:24}  {:24}  {}",
            text(token, "id"),
            text(token, "name"),
            text(token, "till"),
            text(token, "created_at"),
            text(token, "revoked_at"),
            scopes(token)
        )
    }));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_names_every_token() {
        let tokens =
            [json!({ "id": "x", "name": "reports", "scopes": ["read", "print"], "created_at": "t" })];
        let text = table(&tokens, Locale::En);
        assert_eq!(text.lines().count(), 2);
        assert!(text.lines().nth(1).unwrap().ends_with("read,print"), "{text}");
    }
}
