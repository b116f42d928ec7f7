//! `hotlist.put`: headquarters' list of stopped cards, whole or as what changed since the version
//! that is here. The list as a file by its address (`desired/hotlist`): `uplink::desired`.

use serde::Deserialize;
use serde_json::json;

use super::{Begin, Order};
use crate::clock::UtcMillis;
use crate::ident::CardNo;
use crate::store::hotlist::HotlistOp;

/// Two clocks that are both set differ by less, in milliseconds.
const CLOCKS_DIFFER_MS: i64 = 300_000;

/// Unknown members are taken.
#[derive(Deserialize)]
struct Wire {
    version: u64,
    #[serde(default)]
    as_of: Option<UtcMillis>,
    #[serde(default)]
    cards: Option<Vec<CardNo>>,
    #[serde(default)]
    base: Option<u64>,
    #[serde(default)]
    add: Vec<CardNo>,
    #[serde(default)]
    remove: Vec<CardNo>,
}

/// Reads the arguments. It runs on a clock that is set only, so that now is now.
pub(super) fn hotlist_put(order: &Order) -> Result<Begin, String> {
    let wire: Wire = serde_json::from_value(order.args.clone())
        .map_err(|error| format!("args are not what they must be: {error}"))?;
    let now = UtcMillis::now();
    let as_of = wire.as_of.unwrap_or(now);
    if as_of.0 > now.0.saturating_add(CLOCKS_DIFFER_MS) {
        return Err(format!("args.as_of {as_of} has not come yet"));
    }
    let (version, as_of) = (wire.version, as_of.min(now));
    let changes_nothing = wire.add.is_empty() && wire.remove.is_empty();
    let op = match (wire.cards, wire.base) {
        (Some(cards), None) if changes_nothing => HotlistOp::Put { version, as_of, cards },
        (None, Some(base)) => HotlistOp::Change { base, version, as_of, add: wire.add, remove: wire.remove },
        _ => return Err("args must have either `cards`, or `base` with `add` and `remove`".into()),
    };
    Ok(Begin::Hotlist(op, json!({ "version": version })))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(args: serde_json::Value) -> Result<HotlistOp, String> {
        let order = Order { id: uuid::Uuid::now_v7(), name: "hotlist.put".into(), expires_at: None, args };
        match hotlist_put(&order)? {
            Begin::Hotlist(op, _) => Ok(op),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn whole_or_changed_and_nothing_else() {
        let past = "2026-11-21T08:00:00.000Z";
        let as_of = UtcMillis::parse(past).unwrap();
        let whole = read(json!({ "version": 7, "as_of": past, "cards": ["1"], "new": 1 })).unwrap();
        assert_eq!(whole, HotlistOp::Put { version: 7, as_of, cards: vec!["1".parse().unwrap()] });
        let changed = read(json!({ "version": 8, "as_of": past, "base": 7, "add": ["2"] })).unwrap();
        let add = vec!["2".parse().unwrap()];
        assert_eq!(changed, HotlistOp::Change { base: 7, version: 8, as_of, add, remove: vec![] });
        let ahead = UtcMillis(UtcMillis::now().0 + 60_000);
        match read(json!({ "version": 9, "as_of": ahead, "cards": [] })).unwrap() {
            HotlistOp::Put { as_of, .. } => assert!(as_of < ahead, "a clock a minute ahead"),
            other => panic!("{other:?}"),
        }
        for args in [
            json!({}),
            json!(null),
            json!({ "version": 1 }),
            json!({ "version": -1, "cards": [] }),
            json!({ "version": 1, "cards": [], "base": 1 }),
            json!({ "version": 1, "cards": [], "add": ["1"] }),
            json!({ "version": 1, "cards": ["a card"] }),
            json!({ "version": 1, "cards": [], "as_of": "2999-01-01T00:00:00.000Z" }),
        ] {
            assert!(read(args.clone()).is_err(), "{args}");
        }
    }
}
