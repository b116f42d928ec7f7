//! `POST /v1/cards/import`: the members that a shop had before, line by line. Each good line that
//! says something new is one `card.status` of class `ledger`; what is known already changes
//! nothing, so that a list may be sent again whole after anything that cut it off.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::super::extract::Json;
use super::super::principal::Principal;
use super::super::problem::Problem;
use super::super::state::Shared;
use super::card_standing::who;
use super::counter;
use crate::card::counter::import::{Members, NewMember, members};
use crate::card::counter::new_cards::{CardDefaults, ListFault};
use crate::card::counter::{Shop, end_of};
use crate::card::purse::policy::may_be_valid_until;
use crate::clock::UtcMillis;
use crate::event::ledger::{CardType, ListedMember};
use crate::ident::OperatorId;
use crate::store::ledger_cards::By;
use crate::store::members::{MOST_MEMBERS, listed};
use crate::store::{Batch, StoreError};

/// Lines of one request.
pub(super) const MOST_LINES: usize = 1000;
/// Members of one commit: taps wait no longer for it than for any other.
const AT_ONCE: usize = 50;
/// So often may somebody else come between reading and commit.
const ATTEMPTS: u32 = 8;
/// What the ledger says of them.
const NEW: &str = "imported";
const CHANGED: &str = "import-changed";

/// A list of members.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct MemberList {
    /// CSV: a line of column names (`card_no`, and if wanted `type`, `tier`, `discount_class`,
    /// `valid_until`), then at most 1000 lines.
    csv: String,
    /// As which line of your file the first one behind the column names counts; default 2.
    #[serde(default = "second")]
    first_line: u32,
    /// Only looks: nothing is taken.
    #[serde(default)]
    check: bool,
    /// Where a line says nothing: `named` or `anonymous`; default `named`.
    #[serde(rename = "type", default = "named")]
    #[schema(value_type = String)]
    card_type: CardType,
    /// Where a line says nothing: tier, 0 to 255; default 0, none.
    #[serde(default)]
    tier: u8,
    /// Where a line says nothing: discount class, 0 to 255; default 0, none.
    #[serde(default)]
    discount_class: u8,
    /// Where a line says nothing: the last day the card is good; default: no end.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = "date")]
    valid_until: Option<Date>,
    /// Who does it, at the control socket; elsewhere it is who is logged in, whatever stands here.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    operator: Option<OperatorId>,
}

fn second() -> u32 {
    2
}

fn named() -> CardType {
    CardType::Named
}

/// What came of a list, or with `check` would.
#[derive(Serialize, ToSchema, Default)]
pub(super) struct ImportView {
    /// Whether nothing was taken.
    check: bool,
    /// Members that are listed now.
    imported: u32,
    /// Members that were listed, and are listed otherwise now.
    changed: u32,
    /// Members that were listed so already.
    unchanged: u32,
    /// Members who have their card already: nothing is changed of it.
    given_out: u32,
    /// Lines that are wrong and were left out, in order.
    faults: Vec<FaultView>,
}

/// What is wrong with a line.
#[derive(Serialize, ToSchema)]
struct FaultView {
    /// Which.
    line: Option<u32>,
    /// What, and what to do: `zh`, `en`.
    #[schema(value_type = Object)]
    text: crate::event::Text,
}

/// Lists members that the shop had before; a card for each is given out as usual, and takes over
/// what stands here. Lines that are wrong are told and left out, the others are taken.
#[utoipa::path(post, operation_id = "import_members", path = "/v1/cards/import", tag = "cards", request_body = MemberList,
    responses((status = 200, description = "What came of each line", body = ImportView),
        (status = 409, description = "`too-many-members`", body = Object),
        (status = 422, description = "`list-invalid`: the line of column names, or too many lines", body = Object)))]
pub(super) async fn import(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Principal>,
    Json(wanted): Json<MemberList>,
) -> Result<Answer<ImportView>, Problem> {
    let by = who(&caller, wanted.operator.as_ref())?;
    let MemberList { csv, first_line, check, card_type, tier, discount_class, valid_until, .. } = wanted;
    if csv.lines().count() > MOST_LINES + 1 {
        return Err(counter::invalid(
            "csv",
            "一次最多 1000 行，请分次发送（first_line 指明行号）",
            "at most 1000 lines at a time; send several parts, with `first_line`",
        ));
    }
    let defaults = CardDefaults { card_type, tier, discount_class, valid_until, face: Map::new() };
    let Members { members, mut faults } =
        members(&csv, first_line, &defaults).map_err(|fault| unreadable(&fault))?;
    let shop = shared.shop();
    let mut good = Vec::new();
    for new in members {
        match refused(&new, &shop) {
            Some(fault) => faults.push(fault),
            None => good.push(new),
        }
    }
    faults.sort_by_key(|fault| fault.line);
    let faults = faults.into_iter().map(|ListFault { line, text }| FaultView { line, text }).collect();
    let mut view = ImportView { check, faults, ..ImportView::default() };
    for some in good.chunks(AT_ONCE) {
        take(&shared, some, &by, &mut view).await?;
    }
    if !check && view.imported + view.changed > 0 {
        tracing::info!(operator = by.operator, till = %by.till, imported = view.imported, changed = view.changed, "members imported");
    }
    Ok(Answer(view))
}

/// What no card could be given out with.
fn refused(new: &NewMember, shop: &Shop) -> Option<ListFault> {
    let until = new.member.valid_until.and_then(|day| end_of(day, &shop.timezone));
    let refusal = may_be_valid_until(new.member.card_type, until, UtcMillis::now(), &shop.rules).err()?;
    Some(ListFault { line: Some(new.line), text: refusal.text() })
}

async fn take(shared: &Shared, some: &[NewMember], by: &By, view: &mut ImportView) -> Result<(), Problem> {
    let store = &shared.context.store;
    for _ in 0..ATTEMPTS {
        let numbers: Vec<_> = some.iter().map(|new| new.card_no.clone()).collect();
        let known: Vec<(bool, Option<ListedMember>)> = store
            .read(move |r| {
                let look = |no| Ok((r.member_card(no)?.is_some(), r.listed_member(no)?));
                numbers.iter().map(look).collect()
            })
            .await?;
        let mut told = ImportView::default();
        let mut batch = Batch::new();
        for (new, (has_card, was)) in some.iter().zip(known) {
            let reason = match was {
                _ if has_card => {
                    told.given_out += 1;
                    continue;
                }
                Some(was) if was == new.member => {
                    told.unchanged += 1;
                    continue;
                }
                Some(_) => {
                    told.changed += 1;
                    CHANGED
                }
                None => {
                    told.imported += 1;
                    NEW
                }
            };
            let one = listed(&new.card_no, was, new.member, reason, by.clone())?;
            batch.ops.extend(one.ops);
            batch.events.extend(one.events);
        }
        let committed = match view.check || batch.ops.is_empty() {
            true => Ok(()),
            false => store.commit(batch).await.map(drop),
        };
        match committed {
            Ok(()) => {
                view.imported += told.imported;
                view.changed += told.changed;
                view.unchanged += told.unchanged;
                view.given_out += told.given_out;
                return Ok(());
            }
            // Somebody else listed one, or gave a card out, in between.
            Err(StoreError::NotFound { .. }) => {}
            Err(StoreError::LedgerRefused { .. }) => return Err(too_many()),
            Err(error) => return Err(error.into()),
        }
    }
    Err(StoreError::NotFound { what: "members as read".into() }.into())
}

fn unreadable(fault: &ListFault) -> Problem {
    let told = fault.told();
    let line: Value = serde_json::json!([{ "line": fault.line, "text": fault.text }]);
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "list-invalid", told.zh, told.en).with("faults", line)
}

fn too_many() -> Problem {
    Problem::new(
        StatusCode::CONFLICT,
        "too-many-members",
        format!("未发卡的会员最多 {MOST_MEMBERS} 名；请先发卡"),
        format!("at most {MOST_MEMBERS} members are kept without a card; give cards out first"),
    )
}
