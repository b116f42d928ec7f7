//! `desired/hotlist` (contract §4): what a message means, and what of its file is taken. Pure.
//!
//! The message is `{version, base, url, sha256, size, signature}` with `as_of` beside it. The file
//! at `url` is what `hotlist.put` has as its arguments: `{"cards": […]}`, or with a `base`
//! `{"add": […], "remove": […]}`.

use std::collections::HashSet;

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::clock::UtcMillis;
use crate::ident::CardNo;
use crate::store::hotlist::{HotlistOp, HotlistState};

/// The largest file: [`MOST_CARDS`](crate::store::hotlist::MOST_CARDS) numbers of 24 digits with
/// quotation marks and comma, and room to spare.
pub(super) const MOST_BYTES: u64 = 4 << 20;
/// Two clocks that are both set differ by less, in milliseconds.
const CLOCKS_DIFFER_MS: i64 = 300_000;

/// Headquarters has to publish another message.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("the message is not {{version, base, url, sha256, size, signature}}: {0}")]
    Message(String),
    #[error("version {wanted} is older than {here}, which is here; publish a newer one")]
    Older { wanted: u64, here: u64 },
    #[error("it changes version {base}, here is {here}; publish the whole list, without `base`")]
    Base { base: u64, here: String },
    #[error("version {wanted} is not above its base {base}")]
    NotAbove { wanted: u64, base: u64 },
    #[error("as_of {0} has not come yet; look at headquarters' clock")]
    NotYet(UtcMillis),
    #[error("a file of {0} bytes is more than the {MOST_BYTES} a gateway takes")]
    TooLarge(u64),
    #[error("the file has {found} bytes, not {wanted}: it is damaged or another one; publish it again")]
    Size { wanted: u64, found: u64 },
    #[error("the file's SHA-256 is not `sha256`: it is damaged or another one; publish it again")]
    Digest,
    #[error("the file is not a list of cards: {0}")]
    File(String),
    #[error("the address {0:?} is none of data:application/json;base64,… https:// http://")]
    Address(String),
    #[error("{0}")]
    Store(String),
}

/// A message. Unknown members are taken; `signature` is not looked at: whoever may publish under
/// this gateway's topic may stop its cards, as with commands.
#[derive(Debug, Deserialize)]
pub(super) struct Wanted {
    pub(super) version: u64,
    #[serde(default)]
    base: Option<u64>,
    /// A retained message comes again for months. Without this its list is as old as the moment
    /// in which its version came first.
    #[serde(default)]
    as_of: Option<UtcMillis>,
    pub(super) url: String,
    sha256: String,
    pub(super) size: u64,
}

/// What is to be done for a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The list is the one that is here, and still the newest.
    Renew(HotlistOp),
    /// Its file is needed.
    Fetch,
}

/// A file. Unknown members are taken.
#[derive(Deserialize)]
struct File {
    #[serde(default)]
    version: Option<u64>,
    #[serde(default)]
    cards: Option<Vec<CardNo>>,
    #[serde(default)]
    add: Vec<CardNo>,
    #[serde(default)]
    remove: Vec<CardNo>,
}

impl Wanted {
    pub(super) fn parse(payload: &[u8]) -> Result<Self, Refused> {
        serde_json::from_slice(payload).map_err(|error| Refused::Message(error.to_string()))
    }

    /// Whether it says nothing new.
    pub(super) fn is_here(&self, here: Option<HotlistState>) -> bool {
        here.is_some_and(|here| {
            here.version == self.version && self.as_of.is_none_or(|as_of| here.as_of >= as_of)
        })
    }

    /// What is to be done where `here` is the list.
    pub(super) fn step(&self, here: Option<HotlistState>, now: UtcMillis) -> Result<Step, Refused> {
        let as_of = self.as_of(now)?;
        if let Some(here) = here {
            if here.version > self.version {
                return Err(Refused::Older { wanted: self.version, here: here.version });
            }
            if here.version == self.version {
                let (base, version) = (here.version, here.version);
                let (add, remove) = (Vec::new(), Vec::new());
                return Ok(Step::Renew(HotlistOp::Change { base, version, as_of, add, remove }));
            }
        }
        if let Some(base) = self.base {
            if self.version <= base {
                return Err(Refused::NotAbove { wanted: self.version, base });
            }
            if here.map(|here| here.version) != Some(base) {
                let here = here.map_or_else(|| "none".to_owned(), |here| here.version.to_string());
                return Err(Refused::Base { base, here });
            }
        }
        if self.size > MOST_BYTES {
            return Err(Refused::TooLarge(self.size));
        }
        Ok(Step::Fetch)
    }

    /// What the file says, once it is the one that is meant.
    pub(super) fn read(&self, file: &[u8], now: UtcMillis) -> Result<HotlistOp, Refused> {
        let found = u64::try_from(file.len()).unwrap_or(u64::MAX);
        if found != self.size {
            return Err(Refused::Size { wanted: self.size, found });
        }
        if !hex::encode(Sha256::digest(file)).eq_ignore_ascii_case(&self.sha256) {
            return Err(Refused::Digest);
        }
        let bad = |what: String| Refused::File(what);
        let file: File = serde_json::from_slice(file).map_err(|error| bad(error.to_string()))?;
        if let Some(other) = file.version.filter(|version| *version != self.version) {
            return Err(bad(format!("it says version {other}, the message {}", self.version)));
        }
        let (version, as_of) = (self.version, self.as_of(now)?);
        let changes_nothing = file.add.is_empty() && file.remove.is_empty();
        match (file.cards, self.base) {
            (Some(cards), None) if changes_nothing => Ok(HotlistOp::Put { version, as_of, cards }),
            (None, Some(base)) => {
                Ok(HotlistOp::Change { base, version, as_of, add: file.add, remove: file.remove })
            }
            _ => Err(bad("it must have `cards`, or with a `base` `add` and `remove`".into())),
        }
    }

    fn as_of(&self, now: UtcMillis) -> Result<UtcMillis, Refused> {
        match self.as_of {
            Some(as_of) if as_of.0 > now.0.saturating_add(CLOCKS_DIFFER_MS) => Err(Refused::NotYet(as_of)),
            as_of => Ok(as_of.unwrap_or(now).min(now)),
        }
    }
}

/// A whole list as what it changes of the cards that are here.
pub(super) fn difference(
    base: u64,
    version: u64,
    as_of: UtcMillis,
    had: &[CardNo],
    cards: Vec<CardNo>,
) -> HotlistOp {
    let wanted: HashSet<&CardNo> = cards.iter().collect();
    let remove = had.iter().filter(|card| !wanted.contains(card)).cloned().collect();
    let had: HashSet<&CardNo> = had.iter().collect();
    let add = cards.iter().filter(|card| !had.contains(card)).cloned().collect();
    HotlistOp::Change { base, version, as_of, add, remove }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const NOW: UtcMillis = UtcMillis(1_800_000_000_000);

    fn cards(numbers: &[&str]) -> Vec<CardNo> {
        numbers.iter().map(|number| number.parse().unwrap()).collect()
    }

    fn message(version: u64, base: Option<u64>, as_of: i64, file: &str) -> Value {
        json!({
            "version": version, "base": base, "as_of": UtcMillis(NOW.0 + as_of), "url": "data:,x",
            "sha256": hex::encode_upper(Sha256::digest(file)), "size": file.len(), "signature": "later",
        })
    }

    fn wanted(message: &Value) -> Wanted {
        Wanted::parse(message.to_string().as_bytes()).unwrap()
    }

    fn here(version: u64, as_of: i64) -> Option<HotlistState> {
        Some(HotlistState { version, as_of: UtcMillis(NOW.0 + as_of), cards: 1 })
    }

    #[test]
    fn only_what_follows_is_fetched() {
        let step = |message: &Value, here| wanted(message).step(here, NOW);
        assert_eq!(step(&message(1, None, 0, ""), None), Ok(Step::Fetch));
        assert_eq!(step(&message(9, None, 0, ""), here(7, 0)), Ok(Step::Fetch), "versions may skip");
        assert_eq!(step(&message(8, Some(7), 0, ""), here(7, 0)), Ok(Step::Fetch));
        let older = Err(Refused::Older { wanted: 6, here: 7 });
        assert_eq!(step(&message(6, None, 0, ""), here(7, 0)), older);
        let base = |here: &str| Err(Refused::Base { base: 7, here: here.into() });
        assert_eq!(step(&message(9, Some(7), 0, ""), here(8, 0)), base("8"));
        assert_eq!(step(&message(9, Some(7), 0, ""), None), base("none"));
        assert_eq!(step(&message(7, Some(7), 0, ""), None), Err(Refused::NotAbove { wanted: 7, base: 7 }));
        assert!(matches!(step(&message(9, None, 300_001, ""), None), Err(Refused::NotYet(_))));
        let mut large = message(9, None, 0, "");
        large["size"] = json!(MOST_BYTES + 1);
        assert_eq!(step(&large, None), Err(Refused::TooLarge(MOST_BYTES + 1)));
        // The same again: nothing to do; told later: its age is another one.
        assert!(wanted(&message(7, None, -5, "")).is_here(here(7, -5)));
        assert!(!wanted(&message(7, None, -4, "")).is_here(here(7, -5)));
        assert!(!wanted(&message(7, None, -5, "")).is_here(None));
        // As the contract has it: its age counts from when the version came first.
        let mut bare = message(7, None, 0, "");
        bare.as_object_mut().unwrap().remove("as_of");
        assert!(wanted(&bare).is_here(here(7, -5)) && !wanted(&bare).is_here(here(6, -5)));
        assert_eq!(wanted(&bare).as_of(NOW), Ok(NOW));
        match step(&message(7, None, -4, ""), here(7, -5)).unwrap() {
            Step::Renew(HotlistOp::Change { base: 7, version: 7, as_of, add, remove }) => {
                assert_eq!((as_of.0, add.len() + remove.len()), (NOW.0 - 4, 0));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_file_is_taken_as_it_was_meant_or_not_at_all() {
        let (whole, change) =
            (r#"{"cards":["1","2"],"new":1}"#, r#"{"version":8,"add":["3"],"remove":["1"]}"#);
        let read = |message: &Value, file: &str| wanted(message).read(file.as_bytes(), NOW);
        let put = HotlistOp::Put { version: 8, as_of: NOW, cards: cards(&["1", "2"]) };
        assert_eq!(read(&message(8, None, 1, whole), whole), Ok(put), "a clock a moment ahead");
        let (add, remove) = (cards(&["3"]), cards(&["1"]));
        let changed = HotlistOp::Change { base: 7, version: 8, as_of: NOW, add, remove };
        assert_eq!(read(&message(8, Some(7), 0, change), change), Ok(changed));
        let cut = &whole[..whole.len() - 1];
        let (size, found) = (whole.len() as u64, cut.len() as u64);
        assert_eq!(read(&message(8, None, 0, whole), cut), Err(Refused::Size { wanted: size, found }));
        let rotten = whole.replace('2', "3");
        assert_eq!(read(&message(8, None, 0, whole), &rotten), Err(Refused::Digest));
        for (base, file) in [
            (Some(7), whole),
            (None, change),
            (None, "{}"),
            (None, "["),
            (None, r#"{"version":9,"cards":[]}"#),
            (None, r#"{"cards":["a card"]}"#),
            (None, r#"{"cards":[],"add":["1"]}"#),
        ] {
            assert!(matches!(read(&message(8, base, 0, file), file), Err(Refused::File(_))), "{file}");
        }
        for payload in ["", "{", "[]", "null", r#"{"version":1}"#] {
            assert!(matches!(Wanted::parse(payload.as_bytes()), Err(Refused::Message(_))), "{payload}");
        }
        let mut undated = message(8, None, 0, whole);
        undated.as_object_mut().unwrap().remove("as_of");
        let put = HotlistOp::Put { version: 8, as_of: NOW, cards: cards(&["1", "2"]) };
        assert_eq!(read(&undated, whole), Ok(put));
    }

    proptest! {
        #![proptest_config(crate::seed::cases(256))]

        /// What is here and the difference make the list.
        #[test]
        fn the_difference_leads_to_the_list(had in prop::collection::btree_set(0_u8..30, 0..20),
                                            wants in prop::collection::vec(0_u8..30, 0..20)) {
            let numbers = |set: &mut dyn Iterator<Item = &u8>| -> Vec<CardNo> {
                set.map(|n| n.to_string().parse().unwrap()).collect()
            };
            let (had, wants) = (numbers(&mut had.iter()), numbers(&mut wants.iter()));
            let HotlistOp::Change { add, remove, .. } = difference(1, 2, NOW, &had, wants.clone()) else {
                panic!("a change")
            };
            let after: HashSet<_> =
                had.iter().filter(|card| !remove.contains(card)).chain(&add).cloned().collect();
            prop_assert_eq!(after, wants.into_iter().collect());
            prop_assert!(add.iter().all(|card| !had.contains(card)) && remove.iter().all(|card| had.contains(card)));
        }
    }
}
