//! `[purse]`: what the house gives and allows. The rules themselves are in `card::purse`;
//! here stand their numbers, their defaults, and what contradicts itself. The whole table is
//! one version of the rules: a later file's replaces an earlier one's, it is not merged.

use std::collections::BTreeSet;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::Period;
use crate::event::Text;
use crate::event::card::Technology;
use crate::event::ledger::Category;
use crate::ident::StoreId;
use crate::money::{CouponId, Fen};

/// The largest amount anybody may write down, in fen: ten million yuan. It keeps every
/// intermediate result of the purse within 64 bits.
pub const MAX_FEN: i64 = 1_000_000_000;

/// `[purse]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PurseTable {
    /// Whose cards are taken: `own`, `all`, or store numbers.
    pub accept_stores: Vec<String>,
    /// Nothing is taken off a card while the hotlist is older; absent: no hotlist is needed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_hotlist_age: Option<Period>,
    /// What of the balance is spent first.
    pub spend_order: SpendOrder,
    /// Cards whose holder is known.
    pub named: TypeRule,
    /// Cards whose holder is not known.
    pub anonymous: TypeRule,
    /// `[[purse.class]]`: discounts by the card's class.
    pub class: Vec<ClassRule>,
    /// `[[purse.reward]]`: what a top-up earns.
    pub reward: Vec<RewardRule>,
    /// `[purse.points]`.
    pub points: PointsRule,
    /// `[[purse.coupon]]`.
    pub coupon: Vec<CouponRule>,
    /// `[[purse.limit]]`: offline limits by technology, before the built-in ones.
    pub limit: Vec<LimitRule>,
}

impl Default for PurseTable {
    fn default() -> Self {
        Self {
            accept_stores: vec!["own".into()],
            max_hotlist_age: None,
            spend_order: SpendOrder::default(),
            named: TypeRule::NAMED,
            anonymous: TypeRule::ANONYMOUS,
            class: Vec::new(),
            reward: Vec::new(),
            points: PointsRule::default(),
            coupon: Vec::new(),
            limit: Vec::new(),
        }
    }
}

/// What of the balance is spent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SpendOrder {
    /// What was paid in, then what was given.
    #[default]
    PrincipalFirst,
    /// What was given, then what was paid in.
    BonusFirst,
    /// Both in the proportion they have on the card.
    Proportional,
}

/// `[purse.named]`, `[purse.anonymous]`. The defaults are those of the rules on prepaid cards
/// (MOFCOM order 2012 No. 9): named at most ¥5000, no expiry, can be reported lost; anonymous
/// at most ¥1000, good for three years at least, no loss report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TypeRule {
    /// The largest balance, in fen.
    pub max_balance_fen: Fen,
    /// Whether what the house gave counts towards it.
    #[serde(default = "yes")]
    pub bonus_counts: bool,
    /// Years a card of this type must be good for, at least; absent: it may not expire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_validity_years: Option<u8>,
    /// Whether it can be reported lost.
    pub loss_report: bool,
    /// Whether what takes value off it needs its PIN. Without, only cards that have one are asked.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pin_required: bool,
}

fn yes() -> bool {
    true
}

impl TypeRule {
    /// Order 2012 No. 9, named cards.
    pub const NAMED: Self = Self {
        max_balance_fen: Fen(500_000),
        bonus_counts: true,
        min_validity_years: None,
        loss_report: true,
        pin_required: false,
    };
    /// Order 2012 No. 9, anonymous cards.
    pub const ANONYMOUS: Self = Self {
        max_balance_fen: Fen(100_000),
        bonus_counts: true,
        min_validity_years: Some(3),
        loss_report: false,
        pin_required: false,
    };
}

/// `[[purse.class]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClassRule {
    /// The number on the card.
    pub class: u8,
    /// For the receipt.
    pub name: Text,
    /// Off labour, in per mille.
    #[serde(default)]
    pub labour_off_per_mille: u16,
    /// Off parts, in per mille.
    #[serde(default)]
    pub parts_off_per_mille: u16,
}

/// `[[purse.reward]]`: the highest one that a top-up reaches counts, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RewardRule {
    /// From this top-up on, in fen.
    pub from_fen: Fen,
    /// So much bonus, in fen.
    pub bonus_fen: Fen,
}

/// `[purse.points]`. Zero anywhere switches that part off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PointsRule {
    /// Each time this much was paid with principal or at the till, in fen …
    pub earn_per_fen: Fen,
    /// … so many points are earned.
    pub earn_points: u32,
    /// What one point pays, in fen.
    pub worth_fen: Fen,
    /// The share of what is to be paid that points may pay, in per mille.
    pub max_share_per_mille: u16,
    /// The most points a card takes.
    pub max_on_card: u32,
}

impl Default for PointsRule {
    fn default() -> Self {
        Self {
            earn_per_fen: Fen(100),
            earn_points: 1,
            worth_fen: Fen(1),
            max_share_per_mille: 500,
            max_on_card: 9_999_999,
        }
    }
}

/// `[[purse.coupon]]`: exactly one of `off_fen` and `off_per_mille`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CouponRule {
    /// The number on the card.
    pub id: CouponId,
    /// For the receipt.
    pub name: Text,
    /// Off, in fen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub off_fen: Option<Fen>,
    /// Off, in per mille.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub off_per_mille: Option<u16>,
    /// Of what; absent: of everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<Category>,
    /// From this much to be paid on, in fen.
    #[serde(default)]
    pub from_fen: Fen,
}

/// `[[purse.limit]]`: how much may be taken off cards while headquarters is not reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LimitRule {
    /// Of which cards.
    pub technologies: Vec<Technology>,
    /// In one transaction, in fen.
    pub per_transaction_fen: Fen,
    /// Off one card on one business day, in fen.
    pub per_card_fen: Fen,
    /// Off all cards of one technology on one business day, in fen.
    pub per_day_fen: Fen,
}

fn doubled<T: Ord>(keys: impl IntoIterator<Item = T>) -> bool {
    let mut seen = BTreeSet::new();
    keys.into_iter().any(|key| !seen.insert(key))
}

impl PurseTable {
    /// What contradicts itself: what, and what to do.
    pub(super) fn faults(&self) -> Vec<(String, &'static str)> {
        let mut faults = Vec::new();
        let mut fault = |wrong: bool, what: &str, hint: &'static str| {
            if wrong {
                faults.push((what.to_owned(), hint));
            }
        };
        let stores = &self.accept_stores;
        let known = |store: &String| store == "own" || store == "all" || StoreId::new(store).is_ok();
        fault(
            !stores.iter().all(known),
            "[purse] accept_stores has a word that is no store",
            "use \"own\", \"all\" or store numbers like \"SH-0042\"",
        );
        let amounts = [self.named.max_balance_fen, self.anonymous.max_balance_fen]
            .into_iter()
            .chain(self.reward.iter().flat_map(|reward| [reward.from_fen, reward.bonus_fen]))
            .chain([self.points.earn_per_fen, self.points.worth_fen])
            .chain(
                self.coupon.iter().flat_map(|coupon| [coupon.off_fen.unwrap_or_default(), coupon.from_fen]),
            )
            .chain(
                self.limit
                    .iter()
                    .flat_map(|limit| [limit.per_transaction_fen, limit.per_card_fen, limit.per_day_fen]),
            );
        fault(
            amounts.into_iter().any(|fen| !(0..=MAX_FEN).contains(&fen.0)),
            "[purse] has an amount below zero or above 1000000000 fen",
            "amounts are whole fen: ¥50.00 is 5000",
        );
        let shares = [self.points.max_share_per_mille]
            .into_iter()
            .chain(
                self.class.iter().flat_map(|class| [class.labour_off_per_mille, class.parts_off_per_mille]),
            )
            .chain(self.coupon.iter().filter_map(|coupon| coupon.off_per_mille));
        fault(
            shares.into_iter().any(|share| share > 1000),
            "[purse] has a share above 1000 per mille",
            "a tenth is 100, everything is 1000",
        );
        fault(
            doubled(self.class.iter().map(|class| class.class)),
            "[purse] has two [[purse.class]] with one number",
            "give each class its own number",
        );
        fault(
            doubled(self.coupon.iter().map(|coupon| coupon.id)),
            "[purse] has two [[purse.coupon]] with one id",
            "give each coupon its own id",
        );
        fault(
            self.coupon.iter().any(|coupon| !(1..=255).contains(&coupon.id.0)),
            "[purse] has a [[purse.coupon]] whose id is not 1 to 255",
            "cards count the kinds of coupon in one byte",
        );
        fault(
            doubled(self.reward.iter().map(|reward| reward.from_fen)),
            "[purse] has two [[purse.reward]] from one amount on",
            "leave one of them",
        );
        fault(
            self.coupon.iter().any(|coupon| coupon.off_fen.is_some() == coupon.off_per_mille.is_some()),
            "[purse] has a coupon with both or neither of off_fen and off_per_mille",
            "give it exactly one of them",
        );
        fault(
            self.max_hotlist_age.is_some_and(|age| age.0 < Duration::from_secs(60)),
            "[purse] max_hotlist_age is under a minute",
            "a day is \"1d\"",
        );
        faults
    }
}
