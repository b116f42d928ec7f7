//! A card that is lost or destroyed, issued anew from what headquarters says it held: this store may
//! never have seen it, or knows less. What lives here: the giving half, made on headquarters' word,
//! without the card and without a till. What does not: the receiving half, which is that of any
//! replacement (`replace`), and how the word comes (`uplink::command`).
//!
//! ```text
//!  record ─► the card as headquarters knows it + giving half committed (the old card dead) +
//!    the new card's data listed: one commit, once (the giving half's id is the record's)
//!    ─► a fresh card issued ─► `/replace` ─► receiving half, cut or not, as of every replacement
//! ```

use serde::Deserialize;
use uuid::Uuid;

use super::shop::Shop;
use crate::card::purse::life::{is_replacement, reissue_out};
use crate::card::purse::{Caps, Context, apply};
use crate::card::record::COUPON_SLOTS;
use crate::clock::UtcMillis;
use crate::config::purse::MAX_FEN;
use crate::event::card::Technology;
use crate::event::ledger::{CardStanding, CardTransaction, CardType, ListedMember, TransactionKind};
use crate::ident::{CardNo, CardUid, DeviceId, StoreId};
use crate::money::{CouponId, Fen, Holding};
use crate::store::ledger::{End, Evidence, NewTransaction, TransactionRow};
use crate::store::ledger_cards::{By, CardRow, SeenCard, seen};
use crate::store::ledger_replaced::move_out;
use crate::store::members::listed;
use crate::store::{Batch, Store, StoreError};

/// Who does it, and where: both, and only together, say that headquarters did.
const HEADQUARTERS: &str = "headquarters";

/// What headquarters knows of a card. Unknown members are taken.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct HqRecord {
    /// Headquarters' id of it: acts once, and is the giving half's transaction id.
    pub record_id: Uuid,
    /// The card that is gone.
    pub card_no: CardNo,
    /// Its chip.
    pub uid: CardUid,
    /// Its technology.
    pub technology: Technology,
    /// Named or anonymous.
    #[serde(rename = "type")]
    pub card_type: CardType,
    /// Who gave it out; absent: this store.
    #[serde(default)]
    pub issuing_store: Option<StoreId>,
    /// What the customer paid in.
    pub principal_fen: Fen,
    /// What the house gave on top.
    #[serde(default)]
    pub bonus_fen: Fen,
    /// Points.
    #[serde(default)]
    pub points: i64,
    /// Coupons, by kind; of a kind that is there twice, two.
    #[serde(default)]
    pub coupons: Vec<CouponId>,
    /// Transactions committed on it, all settled.
    pub counter: u32,
    /// `lost` (default), `defect`, or what else the ledger is to say.
    #[serde(default)]
    pub reason: Option<String>,
    /// The number that the new card is to have; absent: whoever issues it chooses.
    #[serde(default)]
    pub new_card_no: Option<CardNo>,
    /// What it is to carry, with `new_card_no`: tier, 0 none.
    #[serde(default)]
    pub tier: u8,
    /// Discount class, 0 none.
    #[serde(default)]
    pub discount_class: u8,
    /// The last day it is good; absent: no end.
    #[serde(default)]
    pub valid_until: Option<jiff::civil::Date>,
}

/// What is to be done for a record.
#[derive(Debug)]
pub enum Reissue {
    /// To be committed with the answer: the old card is dead from then on.
    Made(Batch),
    /// It was made before, by this record.
    MadeBefore,
}

/// What the ledger knows of the card.
struct Known {
    before: Option<TransactionRow>,
    row: Option<CardRow>,
    open: Option<TransactionRow>,
    new_taken: bool,
    new_listed: Option<ListedMember>,
}

impl HqRecord {
    /// Whether it can be: what is wrong with it, for headquarters.
    ///
    /// # Errors
    /// What has to be another.
    pub fn check(&self) -> Result<(), String> {
        let money = |fen: Fen| (0..=MAX_FEN).contains(&fen.0);
        let sum = self.principal_fen.checked_add(self.bonus_fen);
        if !money(self.principal_fen) || !money(self.bonus_fen) || !sum.is_some_and(money) {
            return Err(format!("principal_fen and bonus_fen must be 0 to {MAX_FEN}, together too"));
        }
        if !(0..=i64::from(u32::MAX)).contains(&self.points) {
            return Err("points must be 0 to 4294967295".into());
        }
        if self.counter >= u32::MAX - 1 {
            return Err("counter has no room for another transaction".into());
        }
        let mut kinds = self.coupons.clone();
        kinds.sort_unstable();
        let each = kinds.chunk_by(|one, other| one == other).all(|same| same.len() <= usize::from(u8::MAX));
        kinds.dedup();
        if kinds.len() > COUPON_SLOTS || !each {
            return Err(format!("coupons may be of {COUPON_SLOTS} kinds, of each at most 255"));
        }
        if self.new_card_no.as_ref() == Some(&self.card_no) {
            return Err("new_card_no must be another number than card_no".into());
        }
        if self.reason.as_ref().is_some_and(|reason| reason.chars().count() > 200) {
            return Err("reason has at most 200 characters".into());
        }
        Ok(())
    }

    fn holding(&self) -> Holding {
        Holding {
            principal_fen: self.principal_fen,
            bonus_fen: self.bonus_fen,
            points: self.points,
            coupons: self.coupons.clone(),
            counter: self.counter,
        }
    }

    /// Whether what this store saw of the card does not speak against it.
    fn fits(&self, row: &CardRow) -> Result<(), String> {
        let seen = &row.seen;
        if matches!(row.status, CardStanding::Replaced | CardStanding::Returned) {
            return Err("the card was replaced or given back at this store already".into());
        }
        if seen.uid != self.uid || seen.card_type != self.card_type {
            return Err("this store knows the card with another chip or type".into());
        }
        if seen.holding.counter > self.counter {
            let (here, theirs) = (seen.holding.counter, self.counter);
            return Err(format!(
                "this store saw the card at counter {here}, the record is of {theirs}; wait for this store's events and send a new record"
            ));
        }
        if seen.holding.counter == self.counter && seen.holding != self.holding() {
            return Err("at the same counter this store saw another content of the card".into());
        }
        Ok(())
    }
}

/// What is to be committed for headquarters' record; or why not, for headquarters.
///
/// # Errors
/// [`StoreError`].
pub async fn reissue(
    store: &Store,
    shop: &Shop,
    record: &HqRecord,
) -> Result<Result<Reissue, String>, StoreError> {
    if let Err(wrong) = record.check() {
        return Ok(Err(wrong));
    }
    let Known { before, row, open, new_taken, new_listed } = known(store, record).await?;
    if let Some(before) = before {
        let same = before.fact.card_no == record.card_no && is_by_headquarters(&before.fact);
        return Ok(match same && before.before == record.holding() {
            true => Ok(Reissue::MadeBefore),
            false => Err("record_id was used before, for another card or with another content".into()),
        });
    }
    if let Some(Err(wrong)) = row.as_ref().map(|row| record.fits(row)) {
        return Ok(Err(wrong));
    }
    let mut batch = Batch::new();
    if let Some(open) = open {
        if store.hands().have(open.fact.transaction_id) {
            return Ok(Err("the card is being written this moment; send it again".into()));
        }
        // Parked, what was given to it would wait for nobody.
        if open.fact.kind == TransactionKind::Transfer {
            return Ok(Err("a transfer of the card is not settled at this store".into()));
        }
        batch = open.end(End::Parked(Evidence::default()))?;
    }
    let by = match DeviceId::new(HEADQUARTERS.to_owned()) {
        Ok(till) => By { operator: HEADQUARTERS.into(), till },
        Err(error) => return Ok(Err(error.to_string())),
    };
    let reason = record.reason.clone().unwrap_or_else(|| "lost".into());
    let new = match giving_half(shop, record, &by) {
        Ok(new) => new,
        Err(wrong) => return Ok(Err(wrong)),
    };
    // Headquarters has both stores' word on what it held; dead, the card is no alarm any more.
    if let Some(held) = row.as_ref().filter(|row| row.held.is_some()) {
        batch = batch.op(held.let_go());
    }
    let known_until = row.and_then(|row| row.seen.valid_until);
    batch = batch.op(seen(as_seen(shop, record, known_until)));
    let out = move_out(new, reason)?;
    batch.ops.extend(out.ops);
    batch.events.extend(out.events);
    if let Some(new_card_no) = record.new_card_no.as_ref().filter(|_| !new_taken)
        && new_listed != Some(member(record))
    {
        let one = listed(new_card_no, new_listed, member(record), "reissue", by)?;
        batch.ops.extend(one.ops);
        batch.events.extend(one.events);
    }
    Ok(Ok(Reissue::Made(batch)))
}

async fn known(store: &Store, record: &HqRecord) -> Result<Known, StoreError> {
    let HqRecord { record_id, card_no, new_card_no, .. } = record.clone();
    store
        .read(move |r| {
            let new_row = new_card_no.as_ref().map(|new| r.member_card(new)).transpose()?.flatten();
            Ok(Known {
                before: r.transaction(record_id)?,
                row: r.member_card(&card_no)?,
                open: r.open_transaction(&card_no)?,
                new_taken: new_row.is_some(),
                new_listed: new_card_no.as_ref().map(|new| r.listed_member(new)).transpose()?.flatten(),
            })
        })
        .await
}

fn member(record: &HqRecord) -> ListedMember {
    let HqRecord { card_type, tier, discount_class, valid_until, .. } = *record;
    ListedMember { card_type, tier, discount_class, valid_until }
}

fn as_seen(shop: &Shop, record: &HqRecord, valid_until: Option<UtcMillis>) -> SeenCard {
    SeenCard {
        card_no: record.card_no.clone(),
        uid: record.uid.clone(),
        technology: record.technology,
        card_type: record.card_type,
        issuing_store: record.issuing_store.clone().unwrap_or_else(|| shop.store.clone()),
        valid_until,
        holding: record.holding(),
    }
}

fn giving_half(shop: &Shop, record: &HqRecord, by: &By) -> Result<NewTransaction, String> {
    let refused = |refusal: crate::card::purse::Refusal| refusal.text().en;
    let plan = reissue_out(&record.holding(), record.new_card_no.as_ref()).map_err(refused)?;
    let caps =
        Caps { max_balance_fen: Fen(0), bonus_counts: true, max_points: 0, coupon_slots: COUPON_SLOTS };
    let before = record.holding();
    let after = apply(&before, &plan.effect, &caps).map_err(refused)?;
    let context = Context {
        transaction_id: record.record_id,
        card_no: record.card_no.clone(),
        uid: record.uid.clone(),
        issuing_store: record.issuing_store.clone().unwrap_or_else(|| shop.store.clone()),
        operator: by.operator.clone(),
        till: by.till.clone(),
        order: None,
        offline: false,
        idempotency_key: record.record_id.to_string(),
    };
    let fact = plan.fact(&context).map_err(refused)?;
    let takes_fen = Fen(fact.amount_fen.0.saturating_neg());
    Ok(NewTransaction {
        fact,
        technology: record.technology,
        business_day: shop.day_of(UtcMillis::now()).to_string(),
        before,
        after,
        earlier: Vec::new(),
        takes_fen,
        day_cap: None,
    })
}

/// Whether headquarters ordered a replacement: what it knows of the old card counts, not what this
/// store would say of it.
pub(super) fn is_by_headquarters(giving: &CardTransaction) -> bool {
    is_replacement(giving) && giving.operator == HEADQUARTERS && giving.till.as_str() == HEADQUARTERS
}
