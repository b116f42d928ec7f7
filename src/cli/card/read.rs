//! `baygate card read`: through the daemon where one runs; else the reader is opened here, the card
//! read, and nothing written ([`crate::card::alone`]).

use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::{At, ask, show};
use crate::api::client::ClientError;
use crate::card::alone::{Found, read_one};
use crate::card::keys::credential;
use crate::card::member::{MemberPolicy, Members};
use crate::card::pcsc::is_named;
use crate::card::verdict::{CardIdentity, Standing};
use crate::cli::{Global, protocol_files};
use crate::clock;
use crate::config::Config;
use crate::config::credentials::Credentials;
use crate::config::tables::{Feedback, ReaderGlobs, ReaderKind, ReaderRole, ReaderTable};
use crate::event::Text;
use crate::ident::DeviceId;

/// The id of a reader that no configuration names.
const ALONE: &str = "alone";

/// Arguments of `baygate card read`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The reader's id, or a PC/SC reader's name as `baygate devices` has it (`*` stands for
    /// anything); not needed where there is one / 读卡器编号或 PC/SC 名称
    #[arg(long, value_name = "NAME")]
    reader: Option<String>,
    /// Seconds to wait for the card, 1 to 60 / 等待放卡的秒数
    #[arg(long, value_name = "SECONDS", default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=60))]
    wait: u64,
}

/// Which reader is meant.
struct Meant {
    /// To be opened where no daemon runs; `None`: the daemon alone could say.
    table: Option<ReaderTable>,
    /// It may be the daemon's.
    daemons: bool,
}

/// Reads and prints the card.
///
/// # Errors
/// The daemon refuses, or there is no reader or no card.
pub(super) async fn act(args: Args, global: &Global) -> anyhow::Result<()> {
    let config = protocol_files::configuration(global)?;
    let Meant { table, daemons } = meant(args.reader.as_deref(), config.as_ref())?;
    if daemons {
        let named = args.reader.as_deref().and_then(|name| DeviceId::new(name).ok());
        let reader = table.as_ref().filter(|table| table.id.as_str() != ALONE).map(|table| table.id.clone());
        let at = At { reader: reader.or(named), card: None, wait: args.wait };
        match ask::Desk::open(at, global).await {
            Ok(desk) => {
                show::card(&desk.card().await?, global);
                return Ok(());
            }
            Err(error) if table.is_none() || !is_not_running(&error) => return Err(error),
            Err(_) => {}
        }
    }
    if let Some(table) = table {
        show::card(&alone(table, config.as_ref(), Duration::from_secs(args.wait), global).await?, global);
    }
    Ok(())
}

fn is_not_running(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref::<ClientError>(), Some(ClientError::NotRunning { .. }))
}

fn meant(name: Option<&str>, config: Option<&Config>) -> anyhow::Result<Meant> {
    let readers = config.map(|config| config.readers.as_slice()).unwrap_or_default();
    let mut cards = readers.iter().filter(|table| table.role == ReaderRole::Card);
    let Some(name) = name else {
        let table = cards.next().filter(|_| cards.next().is_none()).cloned();
        return Ok(Meant { table, daemons: true });
    };
    let by_glob = |table: &&ReaderTable| table.name.as_deref().is_some_and(|glob| is_named(glob, name));
    let by_id = cards.clone().find(|table| table.id.as_str() == name);
    if let Some(table) = by_id.or_else(|| cards.find(by_glob)) {
        return Ok(Meant { table: Some(table.clone()), daemons: true });
    }
    let table = ReaderTable {
        id: DeviceId::new(ALONE)?,
        kind: ReaderKind::Pcsc,
        name: Some(name.to_owned()),
        listen: None,
        link: None,
        device: None,
        technology: None,
        role: ReaderRole::Card,
        globs: ReaderGlobs::default(),
        feedback: Feedback::Off,
    };
    // Without a configuration it may be the id of a reader of the daemon at the usual place.
    Ok(Meant { table: Some(table), daemons: config.is_none() && DeviceId::new(name).is_ok() })
}

/// The card as the daemon would tell it, as far as it can be known here; what cannot is said on
/// standard error.
async fn alone(
    table: ReaderTable,
    config: Option<&Config>,
    wait: Duration,
    global: &Global,
) -> anyhow::Result<Value> {
    let say = |text: &Text| global.language().pick(&text.zh, &text.en).to_owned();
    let refused = |code: &str, text: &Text| ClientError::Refused {
        // As the daemon's word for a device that is not there.
        status: 502,
        code: code.to_owned(),
        detail: say(text),
    };
    let (members, word) = members(config)?;
    eprintln!("{}", say(&word));
    let reader = table.id.clone();
    let mut told = match read_one(table, members, wait).await? {
        Found::Card(card) => of_card(*card),
        Found::Refused(refusal) => {
            json!({ "refused": { "reason": refusal.code(), "text": refusal.text() } })
        }
        Found::Nothing => {
            let text = Text::new("读卡器上没有卡", "no card lies on the reader");
            return Err(refused("no-card", &text).into());
        }
        Found::NoReader(text) => return Err(refused("reader-not-ready", &text).into()),
    };
    if let Some(members) = told.as_object_mut() {
        members.insert("reader".into(), json!(reader));
        members.insert("alone".into(), json!(true));
    }
    Ok(told)
}

fn of_card(card: CardIdentity) -> Value {
    let CardIdentity { uid, technology, atr, code, standing, .. } = card;
    let mut told = json!({ "uid": uid, "technology": technology, "atr": atr, "code": code });
    if let Some(members) = told.as_object_mut() {
        members.retain(|_, value| !value.is_null());
        match standing {
            Standing::Identified => {}
            Standing::Member(member) => drop(members.insert("member".into(), json!(member))),
            Standing::Refused(refusal) => {
                let refused = json!({ "reason": refusal.code(), "text": refusal.text() });
                members.insert("refused".into(), refused);
            }
        }
    }
    told
}

/// The keys of member cards, where they can be read here, and what is to be said of that.
fn members(config: Option<&Config>) -> anyhow::Result<(Option<Arc<Members>>, Text)> {
    let numbers_only = |zh: &str, en: &str| {
        Text::new(
            format!("没有守护进程，直接读卡；{zh}，只能显示卡号（UID）和种类"),
            format!("no daemon runs, the card is read here; {en}: only its UID and technology are shown"),
        )
    };
    let Some(config) = config else {
        return Ok((
            None,
            numbers_only("没有配置，因而没有会员卡密钥", "without a configuration there are no card keys"),
        ));
    };
    let gateway = &config.gateway;
    let keys =
        match credential::load(&Credentials::new(gateway.credentials_dir.clone()), &gateway.source.store) {
            Ok(Some(keys)) => keys,
            Ok(None) => {
                return Ok((
                    None,
                    numbers_only("这里没有凭据 card-keys", "the credential card-keys is not here"),
                ));
            }
            Err(error) => {
                let (zh, en) = (
                    format!("凭据 card-keys 不可用（{error}）"),
                    format!("the credential card-keys cannot be used ({error})"),
                );
                return Ok((None, numbers_only(&zh, &en)));
            }
        };
    clock::trust(&gateway.time_sync_file);
    let bundle = protocol_files::load(Some(config))?;
    let accepted: Vec<&str> = config.purse.accept_stores.iter().map(String::as_str).collect();
    // The configuration has checked the name.
    let timezone = TimeZone::get(&gateway.timezone).unwrap_or(TimeZone::UTC);
    let policy = MemberPolicy::of(gateway.source.store.clone(), &accepted, timezone);
    let layouts = bundle.cards.into_iter().map(Arc::new).collect();
    let word = Text::new(
        "没有守护进程，直接读卡；未查询本店记录（挂失、停用、黑名单、暂停）",
        "no daemon runs, the card is read here; what this store knows of it (lost, stopped, listed, held) was not asked",
    );
    Ok((Some(Arc::new(Members { keys: Arc::new(keys), layouts, policy })), word))
}
