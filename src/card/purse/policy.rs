//! Who may do what with which card, now. Asked before the first byte is written to it; a card
//! that may not is not written at all.

use std::collections::BTreeSet;

use super::capability::{Limits, Strength, strength};
use super::effect::type_rule;
use super::{Effect, Refusal};
use crate::clock::{TimeQuality, UtcMillis};
use crate::config::purse::PurseTable;
use crate::event::card::Technology;
use crate::event::ledger::{CardStanding, CardType, TransactionKind};
use crate::ident::{CardNo, StoreId};
use crate::money::Fen;

/// Cards that headquarters wants stopped.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hotlist {
    /// Rises.
    pub version: u64,
    /// When headquarters made it, or when it last said that it is still the newest.
    pub as_of: Option<UtcMillis>,
    /// The cards.
    pub cards: BTreeSet<CardNo>,
}

impl Hotlist {
    /// Whether it is no older than the rules want. Without a rule none is needed. While the clock
    /// is in doubt nobody knows its age, and a till whose line is down since a power cut has to go
    /// on: then any list will do, within the offline limits.
    #[must_use]
    pub fn is_fresh(&self, rules: &PurseTable, now: UtcMillis, quality: TimeQuality) -> bool {
        let Some(most) = rules.max_hotlist_age else { return true };
        if quality == TimeQuality::Unsynced {
            return self.as_of.is_some();
        }
        let most = i64::try_from(most.0.as_millis()).unwrap_or(i64::MAX);
        // One from the future is a clock in doubt, not a fresh list.
        self.as_of.is_some_and(|as_of| (0..=most).contains(&now.0.saturating_sub(as_of.0)))
    }
}

/// The card in hand.
#[derive(Debug, Clone, Copy)]
pub struct Card<'a> {
    /// Its number.
    pub card_no: &'a CardNo,
    /// As probed.
    pub technology: Technology,
    /// Named or anonymous.
    pub card_type: CardType,
    /// Who gave it out.
    pub issuing_store: &'a StoreId,
    /// How it stands.
    pub standing: CardStanding,
    /// Good until.
    pub valid_until: Option<UtcMillis>,
    /// Writes to it are held.
    pub held: bool,
    /// An earlier transaction of it is not settled.
    pub open: bool,
}

/// The house at this moment.
#[derive(Debug, Clone, Copy)]
pub struct House<'a> {
    /// Now.
    pub now: UtcMillis,
    /// How far that is to be trusted: what is in doubt expires nothing.
    pub quality: TimeQuality,
    /// This store.
    pub store: &'a StoreId,
    /// The rules.
    pub rules: &'a PurseTable,
    /// The hotlist.
    pub hotlist: &'a Hotlist,
    /// Card writes of the whole gateway are held.
    pub writes_held: bool,
    /// While headquarters is not reached: what was spent so on this business day.
    pub offline: Option<OfflineSpent>,
}

/// What was spent without headquarters on this business day ([`crate::store::Reader::offline_spent`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OfflineSpent {
    /// Off this card.
    pub by_card: Fen,
    /// Off all cards of its technology.
    pub by_all: Fen,
}

/// Whether a transaction may go on that does this to the card. Points and coupons are money's
/// worth: a card that pays with them alone is looked at as closely.
///
/// # Errors
/// The first reason why not: about the house, the card, then the amount.
pub fn permit(
    card: &Card<'_>,
    kind: TransactionKind,
    effect: &Effect,
    house: &House<'_>,
) -> Result<(), Refusal> {
    if house.writes_held {
        return Err(Refusal::WritesHeld);
    }
    stands(card, house)?;
    if strength(card.technology) == Strength::Identifies {
        return Err(Refusal::AccountAtHeadquarters);
    }
    if card.open {
        return Err(Refusal::TapAgain);
    }
    let takes = effect.takes(house.rules.points.worth_fen).ok_or(Refusal::AmountNotAllowed)?;
    let takes_off = effect.takes_off(house.rules.points.worth_fen).ok_or(Refusal::AmountNotAllowed)?;
    if takes_off && !house.hotlist.is_fresh(house.rules, house.now, house.quality) {
        return Err(Refusal::HotlistTooOld);
    }
    let Some(spent) = house.offline else { return Ok(()) };
    // Money that comes from nowhere in this store has to be seen by headquarters first.
    if kind == TransactionKind::Adjust && *effect != Effect::default() {
        return Err(Refusal::NeedsHeadquarters);
    }
    if takes.0 > 0 { within_limits(card, takes.0, spent, house) } else { Ok(()) }
}

/// Whether the card is good for anything here, reading apart.
///
/// # Errors
/// [`Refusal`].
pub fn stands(card: &Card<'_>, house: &House<'_>) -> Result<(), Refusal> {
    match card.standing {
        CardStanding::Active => {}
        CardStanding::Blocked => return Err(Refusal::CardBlocked),
        CardStanding::Lost => return Err(Refusal::CardLost),
        CardStanding::Replaced => return Err(Refusal::CardReplaced),
        CardStanding::Returned => return Err(Refusal::CardReturned),
    }
    if house.hotlist.cards.contains(card.card_no) {
        return Err(Refusal::CardHotlisted);
    }
    if card.held {
        return Err(Refusal::CardHeld);
    }
    if house.quality == TimeQuality::Synced && card.valid_until.is_some_and(|until| until < house.now) {
        return Err(Refusal::CardExpired);
    }
    let takes = |accepted: &String| match accepted.as_str() {
        "all" => true,
        "own" => card.issuing_store == house.store,
        other => card.issuing_store.as_str() == other,
    };
    if !house.rules.accept_stores.iter().any(takes) {
        return Err(Refusal::StoreNotAccepted);
    }
    Ok(())
}

fn within_limits(card: &Card<'_>, debit: i64, spent: OfflineSpent, house: &House<'_>) -> Result<(), Refusal> {
    let limits = Limits::of(card.technology, house.rules).ok_or(Refusal::AccountAtHeadquarters)?;
    if debit > limits.per_transaction.0 {
        return Err(Refusal::OfflineTransactionLimit);
    }
    if spent.by_card.0.saturating_add(debit) > limits.per_card.0 {
        return Err(Refusal::OfflineCardLimit);
    }
    if spent.by_all.0.saturating_add(debit) > limits.per_day.0 {
        return Err(Refusal::OfflineDayLimit);
    }
    Ok(())
}

/// Whether this type of card can be reported lost.
///
/// # Errors
/// [`Refusal::LossReportNotAllowed`].
pub fn may_report_lost(card_type: CardType, rules: &PurseTable) -> Result<(), Refusal> {
    if type_rule(rules, card_type).loss_report { Ok(()) } else { Err(Refusal::LossReportNotAllowed) }
}

/// Whether a card that is good until `end` may be given another end: an extension takes nothing away.
///
/// # Errors
/// [`Refusal::ValidityNotAllowed`].
pub fn may_follow(end: Option<UtcMillis>, until: Option<UtcMillis>) -> Result<(), Refusal> {
    match (end, until) {
        (_, None) => Ok(()),
        (Some(end), Some(until)) if until >= end => Ok(()),
        _ => Err(Refusal::ValidityNotAllowed),
    }
}

/// Whether a card given out or extended now may be good until then.
///
/// # Errors
/// [`Refusal::ValidityNotAllowed`].
pub fn may_be_valid_until(
    card_type: CardType,
    until: Option<UtcMillis>,
    now: UtcMillis,
    rules: &PurseTable,
) -> Result<(), Refusal> {
    /// The longest year.
    const YEAR_MS: i64 = 366 * 86_400_000;
    let Some(until) = until else { return Ok(()) };
    let years = type_rule(rules, card_type).min_validity_years.ok_or(Refusal::ValidityNotAllowed)?;
    let least = now.0.saturating_add(i64::from(years) * YEAR_MS);
    if until.0 >= least { Ok(()) } else { Err(Refusal::ValidityNotAllowed) }
}
