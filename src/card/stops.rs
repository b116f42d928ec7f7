//! What the store itself has against a card that is genuine: headquarters' list, how the card
//! stands here, also when it was reported before it was ever seen, and that it is held. Asked at
//! every tap, after the card was read and before anybody is told, so that what was committed before
//! the tap counts at the tap. Beside it, what headquarters wants said. Nothing is written to the card.

use jiff::tz::TimeZone;

use super::counter_word::word_for;
use super::purse::policy::Hotlist;
use super::verdict::{Refusal, Standing};
use crate::event::card::Member;
use crate::event::ledger::CardStanding;
use crate::ident::CardNo;
use crate::store::{Reader, Store, StoreError};

/// The verdict of the tap, with what the store knows.
pub(super) async fn judged(
    store: &Store,
    timezone: TimeZone,
    standing: Standing,
) -> Result<Standing, StoreError> {
    let Standing::Member(mut member) = standing else { return Ok(standing) };
    let card_no = member.card_no.clone();
    // One look for both: a tap is not to wait twice.
    let look = move |r: &Reader<'_>| Ok((against(r, &card_no), word_for(r, &card_no, &timezone)));
    let (against, word) = store.read(look).await?;
    // Who it is may be told; a write asks the row again and fails.
    match noted(store, against)? {
        Some(refusal) => Ok(Standing::Refused(refusal)),
        None => {
            member.word = noted(store, word)?;
            Ok(Standing::Member(member))
        }
    }
}

/// A member who is told without a look at what is against the card: it was just given out.
pub(super) async fn greeted(
    store: &Store,
    timezone: TimeZone,
    mut member: Member,
) -> Result<Member, StoreError> {
    let card_no = member.card_no.clone();
    member.word = noted(store, store.read(move |r| word_for(r, &card_no, &timezone)).await)?;
    Ok(member)
}

/// What a row that has rotted does not tell is nothing.
pub(crate) fn noted<T: Default>(store: &Store, looked: Result<T, StoreError>) -> Result<T, StoreError> {
    match looked {
        Err(error) if error.is_damage() => {
            store.note_damage(&error);
            Ok(T::default())
        }
        looked => looked,
    }
}

/// Why a card is not served, as far as the store knows.
fn against(r: &Reader<'_>, card_no: &CardNo) -> Result<Option<Refusal>, StoreError> {
    if r.is_hotlisted(card_no)? {
        return Ok(Some(Refusal::Hotlisted));
    }
    let status = match r.member_card(card_no)? {
        Some(card) => Some(card.status),
        None => r.card_report(card_no)?,
    };
    Ok(status.and_then(|status| match status {
        CardStanding::Active => None,
        CardStanding::Blocked | CardStanding::Lost => Some(Refusal::Blocked),
        CardStanding::Replaced => Some(Refusal::Replaced),
        CardStanding::Returned => Some(Refusal::Returned),
    }))
}

/// The verdict of the tap on a card that the ledger holds, since this tap or an earlier one: it is
/// greeted as nobody's member. Whatever else ends it is told instead, but for its last day, behind
/// which it could still be extended.
pub(super) fn or_held(standing: Standing, held: bool) -> Standing {
    match standing {
        Standing::Member(_) | Standing::Refused(Refusal::Expired) if held => Standing::Refused(Refusal::Held),
        standing => standing,
    }
}

/// The hotlist as the purse needs it for one card: its version and age, and of its cards at
/// most this one.
///
/// # Errors
/// [`StoreError`].
pub fn hotlist_for(r: &Reader<'_>, card_no: &CardNo) -> Result<Hotlist, StoreError> {
    let here = r.hotlist()?;
    Ok(Hotlist {
        version: here.map_or(0, |here| here.version),
        as_of: here.map(|here| here.as_of),
        cards: r.is_hotlisted(card_no)?.then(|| card_no.clone()).into_iter().collect(),
    })
}
