//! What headquarters and our own retained `state` say of our positions. Pure:
//! the JSON of contract §4 in, a judgement out.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::clock::UtcMillis;
use crate::event::Class;
use crate::ident::{Epoch, Seq};

/// Class sequences by class name. Names we do not know are ignored.
type Positions = BTreeMap<String, u64>;

/// A class whose value is no sequence is passed over: the others count all the same.
fn readable<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Positions, D::Error> {
    let named = BTreeMap::<String, Value>::deserialize(deserializer)?;
    Ok(named.into_iter().filter_map(|(name, value)| Some((name, value.as_u64()?))).collect())
}

/// The `ack` topic.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Ack {
    /// The epoch it speaks of.
    pub epoch: Epoch,
    /// HQ has everything up to these.
    #[serde(deserialize_with = "readable")]
    pub classes: Positions,
}

/// How many classes of an `ack` have a value that is no sequence.
#[must_use]
pub fn unreadable_classes(payload: &[u8], ack: &Ack) -> usize {
    let whole = serde_json::from_slice::<Value>(payload).ok();
    let named = whole.as_ref().and_then(|ack| ack.get("classes")?.as_object());
    named.map_or(0, |named| named.len().saturating_sub(ack.classes.len()))
}

/// The `state` topic, as anybody may have written it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct SeenState {
    /// Whether its connection was up.
    pub online: bool,
    /// Whose it is.
    pub connection: Uuid,
    /// The epoch, when online.
    #[serde(default)]
    pub epoch: Option<Epoch>,
    /// The last class sequences, when online.
    #[serde(default, deserialize_with = "readable")]
    pub last: Positions,
}

/// The `state` topic, as we write it.
#[derive(Debug, Clone, Serialize)]
pub struct OwnState {
    /// Always true: the will says otherwise.
    pub online: bool,
    /// This connection.
    pub connection: Uuid,
    /// The running epoch.
    pub epoch: Epoch,
    /// Online since.
    pub since: UtcMillis,
    /// Program version.
    pub version: String,
    /// The last class sequences committed.
    pub last: BTreeMap<&'static str, Seq>,
    /// Of the hot list.
    pub hotlist_version: Option<String>,
    /// Why the list of `desired/hotlist` is not here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hotlist_refused: Option<String>,
    /// Of the configuration.
    pub config_version: Option<String>,
    /// Of the protocol bundle.
    pub protocols_version: Option<String>,
}

/// The will, and what an orderly stop publishes.
#[must_use]
pub fn offline(connection: Uuid) -> Vec<u8> {
    format!(r#"{{"online":false,"connection":"{connection}"}}"#).into_bytes()
}

/// Where we stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ours {
    /// The running epoch.
    pub epoch: Epoch,
    /// Its last class sequences.
    pub last: Vec<(Class, Seq)>,
}

/// What a word means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// It speaks of an epoch that is not running; where we know it, these positions are delivered.
    Known(Vec<(Class, Seq)>),
    /// It names a position ahead of ours: somebody else wrote in our name, or we
    /// lost what we had told. A new epoch is due.
    Ahead,
}

impl Ours {
    /// Judges positions in an epoch.
    #[must_use]
    pub fn judge(&self, epoch: Epoch, positions: &Positions) -> Judgement {
        let named: Vec<(Class, Seq)> = positions
            .iter()
            .filter_map(|(name, sequence)| Class::parse(name).map(|class| (class, Seq(*sequence))))
            .collect();
        let last =
            |class: Class| self.last.iter().find(|(of, _)| *of == class).map_or(Seq(0), |(_, last)| *last);
        if epoch == self.epoch && named.iter().any(|(class, sequence)| *sequence > last(*class)) {
            Judgement::Ahead
        } else {
            Judgement::Known(named)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_judged() {
        let (ours, other) = (Epoch::begin(), Epoch::begin());
        let we = Ours { epoch: ours, last: vec![(Class::Ledger, Seq(5)), (Class::Card, Seq(9))] };
        let say = |epoch, text: &str| we.judge(epoch, &serde_json::from_str(text).unwrap());
        assert_eq!(say(ours, r#"{"ledger":5}"#), Judgement::Known(vec![(Class::Ledger, Seq(5))]));
        assert_eq!(say(ours, r#"{"ledger":6}"#), Judgement::Ahead);
        assert_eq!(say(ours, r#"{"telemetry":1}"#), Judgement::Ahead);
        assert_eq!(say(ours, r#"{"future-class":7}"#), Judgement::Known(vec![]));
        assert_eq!(say(other, r#"{"ledger":99}"#), Judgement::Known(vec![(Class::Ledger, Seq(99))]));
    }

    #[test]
    fn one_unreadable_class_spoils_no_other() {
        let epoch = Epoch::begin();
        for odd in ["1.5", "-1", "\"7\"", "null", "[]", "18446744073709551616"] {
            let text = format!(r#"{{"epoch":"{epoch}","classes":{{"card":{odd},"ledger":5}}}}"#);
            let ack: Ack = serde_json::from_str(&text).unwrap();
            assert_eq!(ack.classes, Positions::from([("ledger".into(), 5)]), "{odd}");
            assert_eq!(unreadable_classes(text.as_bytes(), &ack), 1, "{odd}");
        }
    }

    #[test]
    fn the_will_is_a_state() {
        let connection = Uuid::new_v4();
        let seen: SeenState = serde_json::from_slice(&offline(connection)).unwrap();
        assert_eq!(seen, SeenState { online: false, connection, epoch: None, last: Positions::new() });
    }
}
