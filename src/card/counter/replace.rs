//! Another card takes the place of one that is lost or does not work any more: what the journal
//! says the old one held moves to a fresh card, once. What lives here: the giving half, made
//! without its card. What does not: the receiving half, which is a transaction like any other.
//!
//! ```text
//!  fresh card lies there ─► giving half committed (old card dead) + intent of the receiving half:
//!    one commit ─► fresh card written ─► receiving half committed
//!                    └ cut: the next tap tells; aborted: asked anew, the giving half waits
//!                      it broke in that: replaced itself, it is dead, and the next one receives
//! ```

use uuid::Uuid;

use super::asked::{Deal, Life, Why};
use super::desk::Desk;
use super::holder;
use super::refused::Refused;
use super::reissue::is_by_headquarters;
use crate::card::purse::day::business_day;
use crate::card::purse::life::{is_replacement, replace_out};
use crate::card::purse::policy::may_report_lost;
use crate::card::purse::{Caps, Context, Refusal, apply};
use crate::card::record::{COUPON_SLOTS, MemberRecord};
use crate::clock::UtcMillis;
use crate::config::purse::PurseTable;
use crate::event::ledger::{CardStanding, CardTransaction, TransactionKind};
use crate::ident::CardNo;
use crate::money::{Fen, Holding};
use crate::store::ledger::{End, Evidence, NewTransaction, State, TransactionRow};
use crate::store::ledger_cards::{By, CardRow};
use crate::store::ledger_replaced::move_out;
use crate::store::{Batch, StoreError};

/// What moves to the card in the field.
pub(super) struct Moving {
    /// Committed before, or to be committed with the receiving half's intent.
    giving: CardTransaction,
    to_come: Option<Batch>,
}

impl Moving {
    /// The giving half.
    pub(super) fn giving_id(&self) -> Uuid {
        self.giving.transaction_id
    }

    /// The giving half, where it is not committed yet.
    pub(super) fn to_come(&self) -> Option<&CardTransaction> {
        self.to_come.is_some().then_some(&self.giving)
    }

    /// What has to be durable with the intent.
    pub(super) fn batch(self) -> Batch {
        self.to_come.unwrap_or_default()
    }
}

/// What the ledger knows of the card that goes.
struct Old {
    row: Option<CardRow>,
    open: Option<TransactionRow>,
    /// What it was to receive last, and has not.
    receives: Option<TransactionRow>,
    /// Nobody else has received that.
    waits: bool,
    giving: Option<TransactionRow>,
    received: bool,
    hotlisted: bool,
}

/// What moves, where the deal is a replacement. Nothing is committed.
pub(super) async fn look(
    desk: &Desk,
    asked: &Deal,
    fresh: &MemberRecord,
) -> Result<Result<Option<Moving>, Refused>, StoreError> {
    let Some(Life::Replace { old_card_no, why }) = &asked.life else { return Ok(Ok(None)) };
    let shop = desk.shop();
    let old = known(desk, old_card_no).await?;
    let Some(row) = &old.row else { return Ok(Err(Refused::card_not_known())) };
    let by_hq = old.by_headquarters();
    let fits = may(&old, row, fresh, *why, &shop.rules).and_then(|()| {
        let old_too = by_hq || row.seen.issuing_store == shop.store;
        let ours = old_too && fresh.issuing_store == shop.store;
        if ours { Ok(()) } else { Err(Refused::issued_elsewhere()) }
    });
    if let Err(refused) = fits {
        return Ok(Err(refused));
    }
    if let Some(giving) = old.giving {
        return Ok(Ok(Some(Moving { giving: giving.fact, to_come: None })));
    }
    if old.open.as_ref().is_some_and(|open| desk.store.hands().have(open.fact.transaction_id)) {
        return Ok(Err(Refusal::TapAgain.into()));
    }
    let mut batch = match &old.open {
        // The card is dead from now on, and shows the money as `used-after-its-end`, if it was written
        // after all. Parked, nothing would settle it: what was given waits again instead.
        Some(open) if old.receives.is_some() => desk.journal.ending(open, End::Aborted).await?,
        // Only headquarters can tell now what became of it: the card will not come back to say.
        Some(open) => desk.journal.ending(open, End::Parked(Evidence::default())).await?,
        None => Batch::new(),
    };
    let reason = why.as_str().to_owned();
    let fresh_itself = old.waits && row.seen.holding == Holding::default();
    let given = old.receives.filter(|row| fresh_itself && is_replacement(&row.fact));
    if let Some(giving) = given.map(|row| row.fact) {
        // It never held anything but what the fresh one receives now in its stead.
        let by = By { operator: asked.by.operator.clone(), till: asked.by.till.clone() };
        let dead = row.stands(CardStanding::Replaced, Some(reason), by)?;
        batch.ops.extend(dead.ops);
        batch.events.extend(dead.events);
        return Ok(Ok(Some(Moving { giving, to_come: Some(batch) })));
    }
    let day = business_day(UtcMillis::now(), &shop.timezone, shop.business_day_start).to_string();
    let new = match giving_half(asked, row, fresh, desk.is_offline(), day) {
        Ok(new) => new,
        Err(refusal) => return Ok(Err(refusal.into())),
    };
    let giving = new.fact.clone();
    let out = move_out(new, reason)?;
    batch.ops.extend(out.ops);
    batch.events.extend(out.events);
    Ok(Ok(Some(Moving { giving, to_come: Some(batch) })))
}

impl Old {
    /// Headquarters has said what it held and that it is dead: lists and rules of this store do not
    /// speak against that.
    fn by_headquarters(&self) -> bool {
        self.giving.as_ref().is_some_and(|giving| is_by_headquarters(&giving.fact))
    }
}

async fn known(desk: &Desk, old: &CardNo) -> Result<Old, StoreError> {
    let old = old.clone();
    desk.store
        .read(move |r| {
            let row = r.member_card(&old)?;
            let last = r.transactions_of(&old, None, 1)?.pop().filter(|last| {
                let undone = matches!(last.state, State::Intent | State::Unknown | State::Aborted);
                undone && last.fact.kind == TransactionKind::Transfer
            });
            let receives = last.as_ref().and_then(|last| last.fact.original_transaction_id);
            let receives = receives.map(|id| r.transaction(id)).transpose()?.flatten();
            let after = receives.as_ref().map(|row| r.following(row.fact.transaction_id)).transpose()?;
            let waits = after.is_some_and(|rows| rows.iter().all(|row| row.fact.card_no == old));
            // One that died while it took another one's place has nothing of its own to give.
            let died = row.as_ref().is_some_and(|row| row.status == CardStanding::Replaced);
            let meant = receives.clone().filter(|row| died && is_replacement(&row.fact));
            let giving = r.replacement_of(&old)?.or(meant);
            let following = giving.as_ref().map(|row| r.following(row.fact.transaction_id)).transpose()?;
            Ok(Old {
                row,
                open: r.open_transaction(&old)?,
                receives,
                waits,
                received: following.is_some_and(|rows| !rows.is_empty()),
                giving,
                hotlisted: r.is_hotlisted(&old)?,
            })
        })
        .await
}

fn may(old: &Old, row: &CardRow, fresh: &MemberRecord, why: Why, rules: &PurseTable) -> Result<(), Refused> {
    if fresh.card_no == row.seen.card_no || fresh.counter > 0 || holder::holding(fresh) != Holding::default()
    {
        return Err(Refused::not_fresh());
    }
    if fresh.member_type != row.seen.card_type {
        return Err(Refused::other_type());
    }
    match row.status {
        CardStanding::Returned => return Err(Refusal::CardReturned.into()),
        // Stopped by the house: whoever may unblocks it first.
        CardStanding::Blocked => return Err(Refusal::CardBlocked.into()),
        CardStanding::Replaced if old.giving.is_none() || old.received => {
            return Err(Refusal::CardReplaced.into());
        }
        _ => {}
    }
    if row.held.is_some() {
        return Err(Refusal::CardHeld.into());
    }
    if old.by_headquarters() {
        return Ok(());
    }
    // What has left it already arrives: headquarters may have listed it because it was replaced.
    if old.hotlisted && old.giving.is_none() {
        return Err(Refusal::CardHotlisted.into());
    }
    if why == Why::Lost {
        may_report_lost(row.seen.card_type, rules)?;
    }
    Ok(())
}

fn giving_half(
    asked: &Deal,
    row: &CardRow,
    fresh: &MemberRecord,
    offline: bool,
    business_day: String,
) -> Result<NewTransaction, Refusal> {
    let seen = &row.seen;
    let plan = replace_out(&seen.holding, &seen.card_no, &fresh.card_no)?;
    let caps =
        Caps { max_balance_fen: Fen(0), bonus_counts: true, max_points: 0, coupon_slots: COUPON_SLOTS };
    let after = apply(&seen.holding, &plan.effect, &caps)?;
    let context = Context {
        transaction_id: Uuid::now_v7(),
        card_no: seen.card_no.clone(),
        uid: seen.uid.clone(),
        issuing_store: seen.issuing_store.clone(),
        operator: asked.by.operator.clone(),
        till: asked.by.till.clone(),
        order: None,
        offline,
        idempotency_key: asked.idempotency_key.clone(),
    };
    let fact = plan.fact(&context)?;
    let takes_fen = Fen(fact.amount_fen.0.saturating_neg());
    Ok(NewTransaction {
        fact,
        technology: seen.technology,
        business_day,
        before: seen.holding.clone(),
        after,
        earlier: Vec::new(),
        takes_fen,
        day_cap: None,
    })
}
