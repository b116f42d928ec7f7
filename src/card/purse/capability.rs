//! What a technology can do for the purse, so that the purse is written once. What a driver
//! does to get there is not here.

use crate::config::purse::{LimitRule, PurseTable};
use crate::event::card::Technology;
use crate::money::Fen;

/// How far a card can be trusted with money while headquarters is not reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Strength {
    /// It proves itself with a key that cannot be read out.
    Proves,
    /// It holds a record, which can be copied with its UID: only the counter tells afterwards.
    Holds,
    /// It only says who it is; the account is at headquarters.
    Identifies,
}

/// Of a technology.
#[must_use]
pub fn strength(technology: Technology) -> Strength {
    use Technology as T;
    match technology {
        T::Desfire | T::Ntag424 => Strength::Proves,
        T::MifareClassic1k
        | T::MifareClassic4k
        | T::Ntag213
        | T::Ntag215
        | T::Ntag216
        | T::Ultralight
        | T::UltralightC
        // It proves itself only by the answer to a purchase, when the limits have been looked at;
        // and it proves nothing where points alone are paid with.
        | T::Cpu
        | T::Sle4442 => Strength::Holds,
        T::Iso15693 | T::Em4100 | T::Magstripe | T::Barcode | T::Qr | T::Unknown => Strength::Identifies,
    }
}

/// How a technology keeps a debit whole when the card leaves in the middle of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wholeness {
    /// The chip's own transaction.
    Commit,
    /// Two records in turn, the higher counter wins.
    TwoSlots,
    /// No record of this program's lies on it: the account is at headquarters.
    Account,
}

/// Of a technology: what drivers there are. The table is in docs/cards.md.
#[must_use]
pub fn wholeness(technology: Technology) -> Wholeness {
    use Technology as T;
    match technology {
        T::Desfire => Wholeness::Commit,
        T::MifareClassic1k
        | T::MifareClassic4k
        | T::Ntag213
        | T::Ntag215
        | T::Ntag216
        | T::Ntag424
        | T::Ultralight
        | T::UltralightC
        | T::Sle4442
        | T::Cpu => Wholeness::TwoSlots,
        T::Iso15693 | T::Em4100 | T::Magstripe | T::Barcode | T::Qr | T::Unknown => Wholeness::Account,
    }
}

/// Offline limits, in fen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// In one transaction.
    pub per_transaction: Fen,
    /// Off one card on one business day.
    pub per_card: Fen,
    /// Off all cards of the technology on one business day.
    pub per_day: Fen,
}

impl Limits {
    /// Low for all: a card proves itself only as far as its keys are safe, and from a credential on
    /// this gateway's disk, where they are, they can be copied and cards made with them.
    const BUILT_IN: Self =
        Self { per_transaction: Fen(50_000), per_card: Fen(100_000), per_day: Fen(1_000_000) };

    /// As configured, else the built-in ones; `None` where the card holds no money.
    #[must_use]
    pub fn of(technology: Technology, rules: &PurseTable) -> Option<Self> {
        if strength(technology) == Strength::Identifies {
            return None;
        }
        let rule = rules.limit.iter().find(|rule| rule.technologies.contains(&technology));
        Some(rule.map_or(Self::BUILT_IN, |rule: &LimitRule| Self {
            per_transaction: rule.per_transaction_fen,
            per_card: rule.per_card_fen,
            per_day: rule.per_day_fen,
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::protocols::Bundle;
    use crate::protocols::cards::Places;

    /// What is said of a technology here, in the documentation and by the shipped layouts is the same.
    #[test]
    fn capabilities_are_those_of_the_layouts() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("firmware-protocols");
        let layouts = Bundle::load(&folder).unwrap().cards;
        let documented = include_str!("../../../docs/cards.md");
        let (_, table) = documented.split_once("## What a technology can do").unwrap();
        let rows = table.lines().filter(|line| line.starts_with("| `"));
        let named = rows.flat_map(|row| {
            let (names, _) = row[2..].split_once('|').unwrap();
            names.split(',').map(move |name| (name.trim().trim_matches('`').to_owned(), row))
        });
        let mut seen = 0;
        for (name, row) in named.take_while(|(name, _)| name != "unreadable") {
            let technology: Technology = serde_json::from_value(name.into()).unwrap();
            seen += 1;
            let layout = layouts.iter().find(|layout| layout.technologies.contains(&technology));
            let (is, says) = match layout.map(|layout| &layout.places) {
                None => (Wholeness::Account, ""),
                Some(Places::Files(files)) if files.slots.len() == 1 => {
                    (Wholeness::Commit, "| yes | CommitTransaction |")
                }
                Some(_) => (Wholeness::TwoSlots, "| yes | two slots |"),
            };
            assert_eq!(wholeness(technology), is, "{technology:?}");
            assert!(row.contains(says), "{row}");
            let keys = match layout.map(|layout| &layout.places) {
                None => "| none |",
                Some(Places::Purse(_)) => "| apart, credit at headquarters",
                Some(Places::Files(files)) if files.value.is_some() => "| apart, by the chip's value file",
                Some(_) => "| one writes both |",
            };
            assert!(row.contains(keys), "{row}");
            let offline = match strength(technology) {
                Strength::Proves => "proves itself",
                Strength::Holds => "holds a record",
                Strength::Identifies => "identifies",
            };
            assert!(row.contains(offline) || row.contains("not yet"), "{row}");
        }
        assert_eq!(seen, 17, "every technology has its row");
    }
}
