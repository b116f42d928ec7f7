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
        T::Desfire | T::Cpu | T::Ntag424 => Strength::Proves,
        T::MifareClassic1k
        | T::MifareClassic4k
        | T::Ntag213
        | T::Ntag215
        | T::Ntag216
        | T::Ultralight
        | T::UltralightC
        | T::Sle4442 => Strength::Holds,
        T::Iso15693 | T::Em4100 | T::Magstripe | T::Barcode | T::Qr | T::Unknown => Strength::Identifies,
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
    const PROVES: Self =
        Self { per_transaction: Fen(200_000), per_card: Fen(500_000), per_day: Fen(10_000_000) };
    const HOLDS: Self =
        Self { per_transaction: Fen(50_000), per_card: Fen(100_000), per_day: Fen(1_000_000) };

    /// As configured, else the built-in ones; `None` where the card holds no money. A card
    /// proves itself only as far as its keys are safe: from a credential on this gateway's
    /// disk (`keys_in_hardware` false) they can be copied, and cards made with them.
    #[must_use]
    pub fn of(technology: Technology, rules: &PurseTable, keys_in_hardware: bool) -> Option<Self> {
        let built_in = match strength(technology) {
            Strength::Proves if keys_in_hardware => Self::PROVES,
            Strength::Proves | Strength::Holds => Self::HOLDS,
            Strength::Identifies => return None,
        };
        let rule = rules.limit.iter().find(|rule| rule.technologies.contains(&technology));
        Some(rule.map_or(built_in, |rule: &LimitRule| Self {
            per_transaction: rule.per_transaction_fen,
            per_card: rule.per_card_fen,
            per_day: rule.per_day_fen,
        }))
    }
}
