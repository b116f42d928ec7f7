//! A held card, compared and released: it lies on the reader and is read anew, nothing is written
//! to it. What was open on it ends, the ledger's event, the store's row and the request are one
//! commit. What does not live here: what agrees with what (`purse::release`).

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::asked::By;
use super::desk::{Desk, InField, Shows, Went};
use super::holder;
use super::refused::Refused;
use crate::card::feedback::Sign;
use crate::card::medium::{Finding, Opened, Reading};
use crate::card::member::told;
use crate::card::purse::Refusal;
use crate::card::purse::release::{Compared, Content, Word};
use crate::card::purse::settle::Became;
use crate::card::stops;
use crate::card::verdict::{Refusal as CardRefusal, Standing};
use crate::card::work::Worked;
use crate::ident::CardNo;
use crate::store::ledger_cards;
use crate::store::requests::{RequestOp, RequestRow, RequestState};
use crate::store::{Batch, Op, StoreError};

/// Kind of the request that lets a held card be used again.
pub const RELEASE: &str = "card.release";

/// A held card that is to be used again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseAsked {
    /// The card.
    pub card_no: CardNo,
    /// What it is to be taken for where it does not agree with what is known of it: as the refusal
    /// said that it shows itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub takes: Option<Content>,
    /// For the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How long the card is waited for, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_s: Option<u64>,
    /// Who asks.
    pub by: By,
}

/// Does one request for the release of the card in the field.
pub(super) async fn release(
    desk: &Desk,
    request: &RequestRow,
    card: &mut InField,
) -> Result<Went, StoreError> {
    let asked: ReleaseAsked = match serde_json::from_value(request.body.clone()) {
        Ok(asked) => asked,
        Err(error) => return Ok(Refused::body(&error).into()),
    };
    let Some((layout, keys)) = desk.medium(card.technology) else {
        return Ok(Refusal::AccountAtHeadquarters.into());
    };
    // What lies there now is compared, not what was read when it came.
    let step = Reading::start(card.uid.clone(), layout, keys, true);
    let opened = match desk.errand(card, step.into()).await {
        Some(Worked::Read(Finding::Opened(opened))) => opened,
        Some(Worked::Read(Finding::Refused(refusal))) => return Ok(refusal.into()),
        _ => return Ok(CardRefusal::ReaderError.into()),
    };
    let record = &opened.current.record;
    if record.card_no != asked.card_no {
        return Ok(Refused::wrong_card().into());
    }
    let ReleaseAsked { card_no, takes, reason, by: By { operator, till }, .. } = asked;
    let shows = holder::seen(&card.uid, card.technology, record, &desk.shop().timezone);
    let by = ledger_cards::By { operator: operator.clone(), till: till.clone() };
    let word = Word { takes, reason: reason.clone(), by };
    let signed = desk.signed(&card.uid, record);
    match desk.journal.release(shows, holder::mark(record), signed, word).await? {
        Compared::NotHeld => Ok(Refused::not_held().into()),
        Compared::Differs(comparison) => {
            let mut outcome = Refused::card_differs().outcome();
            if let (Value::Object(members), Value::Object(more)) = (&mut outcome, json!(comparison)) {
                members.extend(more);
            }
            desk.show(&card.slot, Sign::Refused);
            desk.store.commit(Batch::new().op(settled(request, RequestState::Failed, outcome))).await?;
            Ok(Went::Told)
        }
        Compared::Released { comparison, batch, ended } => {
            let ended = ended.map(|(id, became)| {
                let became = match became {
                    Became::Committed => "committed",
                    Became::Aborted => "aborted",
                    Became::Parked => "parked",
                };
                json!({ "transaction_id": id, "state": became })
            });
            let outcome = json!({
                "card_no": card_no, "released": comparison.held, "known": comparison.known,
                "shows": comparison.shows, "ended": ended, "reason": reason, "operator": operator, "till": till,
            });
            desk.store.commit(batch.op(settled(request, RequestState::Done, outcome))).await?;
            tracing::info!(why = comparison.held, operator, %till, "held card released");
            let standing = standing(desk, &opened).await?;
            let sign = if matches!(standing, Standing::Refused(_)) { Sign::Refused } else { Sign::Accepted };
            desk.show(&card.slot, sign);
            card.shows = Shows::of(&standing, Some(record));
            Ok(Went::Told)
        }
    }
}

fn settled(request: &RequestRow, state: RequestState, outcome: Value) -> Op {
    Op::Request(RequestOp::Settle { id: request.id, state, outcome })
}

/// What a card that was read again is to this store, as at a tap.
pub(super) async fn standing(desk: &Desk, opened: &Opened) -> Result<Standing, StoreError> {
    let policy = desk.members.as_ref().map(|members| &members.policy);
    let judged = policy.map_or(Ok(()), |policy| policy.judge(&opened.current.record, policy.today()));
    let standing = match judged {
        Ok(()) => Standing::Member(Box::new(told(&opened.current))),
        Err(refusal) => Standing::Refused(refusal),
    };
    stops::judged(&desk.store, desk.shop().timezone.clone(), standing).await
}
