//! The commands this version knows. A new one is a new line in [`HANDLERS`].

use serde_json::{Value, json};

use super::Order;
use super::hotlist::hotlist_put;
use crate::card::counter::reissue::HqRecord;
use crate::card::counter_word::{self, Words};
use crate::clock::UtcMillis;
use crate::config::pushed::Pushed;
use crate::ident::DeviceId;
use crate::store::counter_words::CounterWordsOp;
use crate::store::hotlist::HotlistOp;

/// Kind of the request that gives the gateway rules of headquarters ([`Pushed`]).
pub const CONFIG_PUT: &str = "config.put";

/// One command.
#[derive(Debug)]
pub struct Handler {
    /// The last part of its topic.
    pub name: &'static str,
    /// Runs also while the clock is not synchronised.
    pub read_only: bool,
    /// What it begins with.
    pub begin: fn(&Order) -> Result<Begin, String>,
}

/// How a command begins.
#[derive(Debug, Clone, PartialEq)]
pub enum Begin {
    /// It is done already, with this result.
    Done(Value),
    /// The list of stopped cards changes, in the same commit as the result.
    Hotlist(HotlistOp, Value),
    /// What the counter is told of members changes, in the same commit as the result.
    Words(CounterWordsOp, Value),
    /// A card is issued anew from headquarters' record; the giving half and the result are one commit.
    Reissue(Box<HqRecord>),
    /// A service is asked: a request row. Its outcome becomes the command's.
    Ask {
        /// Kind of the row that remembers the command, `command.NAME`.
        row: &'static str,
        /// What is asked.
        kind: &'static str,
        /// The device asked.
        target: String,
        /// The arguments.
        body: Value,
    },
}

/// All commands.
pub const HANDLERS: &[Handler] = &[
    Handler { name: "ping", read_only: true, begin: |_| Ok(Begin::Done(json!({}))) },
    Handler { name: "vehicle.scan", read_only: true, begin: vehicle_scan },
    Handler { name: "hotlist.put", read_only: false, begin: hotlist_put },
    Handler { name: "config.put", read_only: false, begin: config_put },
    Handler { name: "card.reissue", read_only: false, begin: card_reissue },
    Handler { name: "member.put", read_only: false, begin: member_put },
];

/// The command of that name.
#[must_use]
pub fn handler(name: &str) -> Option<&'static Handler> {
    HANDLERS.iter().find(|handler| handler.name == name)
}

/// What can be seen without the gateway's own files; the rest is the gateway's, which has them.
fn config_put(order: &Order) -> Result<Begin, String> {
    let pushed: Pushed = serde_json::from_value(order.args.clone())
        .map_err(|error| format!("args are not what they must be: {error}"))?;
    pushed.check()?;
    Ok(Begin::Ask {
        row: "command.config.put",
        kind: CONFIG_PUT,
        target: "gateway".into(),
        body: json!(pushed),
    })
}

fn card_reissue(order: &Order) -> Result<Begin, String> {
    let record: HqRecord = serde_json::from_value(order.args.clone())
        .map_err(|error| format!("args are not what they must be: {error}"))?;
    record.check()?;
    Ok(Begin::Reissue(Box::new(record)))
}

/// It runs on a clock that is set only, so that now is now.
fn member_put(order: &Order) -> Result<Begin, String> {
    let Words { op, left_out } = counter_word::read(&order.args, UtcMillis::now())?;
    let result = json!({ "members": op.words.len(), "reminders_left_out": left_out });
    Ok(Begin::Words(op, result))
}

fn vehicle_scan(order: &Order) -> Result<Begin, String> {
    let link = order
        .args
        .get("link")
        .and_then(Value::as_str)
        .and_then(|link| link.parse::<DeviceId>().ok())
        .ok_or("args.link must be the id of a vehicle link")?;
    Ok(Begin::Ask {
        row: "command.vehicle.scan",
        kind: "vehicle.scan",
        target: link.to_string(),
        body: order.args.clone(),
    })
}
