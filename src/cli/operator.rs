//! `baygate operator`: the people at the tills, through the running daemon. A PIN is typed at
//! the terminal without echo or comes from standard input; it is never an argument, where
//! everybody on the machine could read it.

use serde_json::{Map, Value, json};

use super::terminal_secret::{self, Secret};
use super::{Exit, Global, daemon};
use crate::api::Role;
use crate::api::client::{Client, Method};
use crate::config::values::Locale;
use crate::ident::{CardUid, OperatorId};

/// Arguments of `baygate operator`.
#[derive(Debug, clap::Args)]
#[command(
    about = "People at the tills / 收银台操作员",
    after_help = "Example:\n  baygate operator add li.wei --name 李伟 --role cashier\n  baygate operator list\n  baygate operator lock li.wei"
)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Makes an account; the PIN is asked for, or read from standard input / 新增操作员
    #[command(
        after_help = "Example:\n  baygate operator add li.wei --name 李伟 --role cashier\n  printf '%s\\n' \"$PIN\" | baygate operator add li.wei --name 李伟 --role cashier --card 04A1B2C3D4E5F6"
    )]
    Add {
        /// What is typed to log in: 1 to 32 of a-z 0-9 . _ - / 登录编号
        id: OperatorId,
        /// For people / 姓名
        #[arg(long)]
        name: String,
        /// cashier, manager, technician or admin / 角色
        #[arg(long)]
        role: Role,
        /// UID of a card that names the operator instead of typing the id / 操作员卡 UID
        #[arg(long, value_name = "UID")]
        card: Option<CardUid>,
    },
    /// Lists all operators, locked ones included / 列出操作员
    #[command(after_help = "Example:\n  baygate operator list --json")]
    List,
    /// Changes name, role or card / 修改姓名、角色或卡
    #[command(after_help = "Example:\n  baygate operator set li.wei --role manager --no-card")]
    Set {
        /// The operator / 编号
        id: OperatorId,
        /// For people / 姓名
        #[arg(long)]
        name: Option<String>,
        /// cashier, manager, technician or admin / 角色
        #[arg(long)]
        role: Option<Role>,
        /// UID of the operator's card / 操作员卡 UID
        #[arg(long, value_name = "UID", conflicts_with = "no_card")]
        card: Option<CardUid>,
        /// Takes the card away / 取消操作员卡
        #[arg(long)]
        no_card: bool,
    },
    /// Sets a new PIN, which is asked for, or read from standard input / 重设密码
    #[command(after_help = "Example:\n  baygate operator pin li.wei")]
    Pin {
        /// The operator / 编号
        id: OperatorId,
    },
    /// Keeps somebody from logging in; ends open sessions / 锁定操作员
    #[command(after_help = "Example:\n  baygate operator lock li.wei")]
    Lock {
        /// The operator / 编号
        id: OperatorId,
    },
    /// Lets somebody log in again, also after too many wrong PINs / 解锁操作员
    #[command(after_help = "Example:\n  baygate operator unlock li.wei")]
    Unlock {
        /// The operator / 编号
        id: OperatorId,
    },
    /// Who logged in, was refused, was changed; latest first / 操作员记录
    #[command(after_help = "Example:\n  baygate operator log --limit 20")]
    Log {
        /// Lines, 1 to 1000 / 行数
        #[arg(long, default_value_t = 50)]
        limit: u32,
    },
}

/// Runs `baygate operator`.
///
/// # Errors
/// The daemon cannot be asked, or refuses.
pub async fn run(args: Args, global: &Global) -> anyhow::Result<Exit> {
    let client = daemon::connect(global).await?;
    let answer = match args.command {
        Command::List => {
            let listed = client.request(Method::GET, "/v1/operators", None).await?.accepted()?;
            show(&listed, "operators", OPERATOR_COLUMNS, global);
            return Ok(Exit::Done);
        }
        Command::Log { limit } => {
            let path = format!("/v1/operator-log?limit={limit}");
            let lines = client.request(Method::GET, &path, None).await?.accepted()?;
            show(&lines, "lines", LOG_COLUMNS, global);
            return Ok(Exit::Done);
        }
        Command::Add { id, name, role, card } => {
            let Some(pin) = pin(global).await? else { return Ok(differ(global)) };
            let wanted = json!({ "id": id, "name": name, "role": role, "card": card, "pin": pin.reveal() });
            client.request(Method::POST, "/v1/operators", Some(&wanted)).await?.accepted()?
        }
        Command::Set { id, name, role, card, no_card } => {
            let mut wanted = Map::new();
            wanted.extend(name.map(|name| ("name".to_owned(), json!(name))));
            wanted.extend(role.map(|role| ("role".to_owned(), json!(role))));
            wanted.extend(card.map(|card| ("card".to_owned(), json!(card))));
            wanted.extend(no_card.then(|| ("card".to_owned(), Value::Null)));
            change(&client, &id, &Value::Object(wanted)).await?
        }
        Command::Pin { id } => {
            let Some(pin) = pin(global).await? else { return Ok(differ(global)) };
            change(&client, &id, &json!({ "pin": pin.reveal() })).await?
        }
        Command::Lock { id } => change(&client, &id, &json!({ "locked": true })).await?,
        Command::Unlock { id } => change(&client, &id, &json!({ "locked": false })).await?,
    };
    show(&json!({ "operators": [answer] }), "operators", OPERATOR_COLUMNS, global);
    Ok(Exit::Done)
}

async fn change(client: &Client, id: &OperatorId, wanted: &Value) -> anyhow::Result<Value> {
    let path = format!("/v1/operators/{id}");
    Ok(client.request(Method::POST, &path, Some(wanted)).await?.accepted()?)
}

/// The PIN as typed: twice at a terminal, else the first line. `None`: typed differently.
async fn pin(global: &Global) -> anyhow::Result<Option<Secret>> {
    let ask = |zh, en| terminal_secret::read(global.language().pick(zh, en));
    let first = ask("密码（6 至 12 位数字，不显示）：", "PIN (6 to 12 digits, not shown): ").await?;
    if !terminal_secret::is_typed() {
        return Ok(Some(first));
    }
    let second = ask("再输入一次：", "Once more: ").await?;
    Ok((first == second).then_some(first))
}

fn differ(global: &Global) -> Exit {
    let said =
        global.language().pick("两次输入不一致，未做任何更改。", "The two differ; nothing was changed.");
    eprintln!("baygate: {said}");
    Exit::Usage
}

/// Member, heading in Chinese and English, width.
type Column = (&'static str, &'static str, &'static str, usize);

const OPERATOR_COLUMNS: &[Column] = &[
    ("id", "ID/编号", "ID", 16),
    ("role", "ROLE/角色", "ROLE", 12),
    ("locked", "LOCKED/锁定", "LOCKED", 12),
    ("wrong_pins", "WRONG PINS/输错", "WRONG PINS", 16),
    ("card", "CARD/卡", "CARD", 20),
    ("created_at", "CREATED/建立", "CREATED", 24),
    ("name", "NAME/姓名", "NAME", 0),
];

const LOG_COLUMNS: &[Column] = &[
    ("at", "AT/时间", "AT", 24),
    ("what", "WHAT/事项", "WHAT", 10),
    ("operator", "OPERATOR/操作员", "OPERATOR", 16),
    ("place", "PLACE/地点", "PLACE", 0),
];

/// What was answered, as it is or as a table.
fn show(answer: &Value, member: &str, columns: &[Column], global: &Global) {
    if global.json {
        println!("{answer}");
        return;
    }
    let rows = answer.get(member).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    println!("{}", table(rows, columns, global.language()));
}

fn table(rows: &[Value], columns: &[Column], locale: Locale) -> String {
    let text = |row: &Value, member: &str| match row.get(member) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Bool(true)) => locale.pick("是", "yes").to_owned(),
        None | Some(Value::Null | Value::Bool(false)) => "-".to_owned(),
        Some(other) => other.to_string(),
    };
    let line = |cells: Vec<String>| {
        let padded = cells.iter().zip(columns).map(|(cell, column)| format!("{cell:0$}", column.3));
        padded.collect::<Vec<_>>().join("  ")
    };
    let head = line(columns.iter().map(|column| locale.pick(column.1, column.2).to_owned()).collect());
    let lines = rows.iter().map(|row| line(columns.iter().map(|column| text(row, column.0)).collect()));
    std::iter::once(head).chain(lines).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_names_every_operator() {
        let rows =
            [json!({ "id": "li.wei", "name": "李伟", "role": "cashier", "locked": true, "wrong_pins": 2 })];
        let text = table(&rows, OPERATOR_COLUMNS, Locale::En);
        assert_eq!(text.lines().count(), 2);
        let line = text.lines().nth(1).unwrap();
        assert!(line.starts_with("li.wei") && line.ends_with("李伟") && line.contains("yes"), "{text}");
    }
}
