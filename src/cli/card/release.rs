//! `baygate card release`: a held card that lies on a reader is compared and used again.

use serde_json::{Value, json};

use super::{At, Once, ask, show};
use crate::cli::Global;
use crate::ident::OperatorId;

/// Arguments of `baygate card release`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The card that is on the reader does not agree with what is known of it and is to be taken as
    /// it shows itself, at this counter / 以卡上所示为准（其计数）
    #[arg(long, value_name = "COUNTER")]
    take: Option<u32>,
    /// It cannot be brought: lost (report it first with `card block`) or defect; then it can be
    /// replaced / 卡拿不来：lost（先挂失）或 defect（损坏），之后可补卡
    #[arg(long, value_name = "WHY", value_parser = ["lost", "defect"], requires_all = ["card", "reason"], conflicts_with = "take")]
    without_card: Option<String>,
    /// For the record, up to 200 characters / 原因
    #[arg(long)]
    reason: Option<String>,
    /// Who does it / 操作员
    #[arg(long, value_name = "ID")]
    operator: Option<OperatorId>,
    #[command(flatten)]
    at: At,
    #[command(flatten)]
    once: Once,
}

/// Runs it: where the card differs, what is known and what it shows is printed, and it is taken as it
/// is only at the counter that was named.
///
/// # Errors
/// The daemon cannot be asked, or refuses.
pub(super) async fn act(args: Args, global: &Global) -> anyhow::Result<()> {
    let Args { take, without_card, reason, operator, at, once } = args;
    let desk = ask::Desk::open(at, global).await?;
    let path = format!("/v1/cards/{}/release", desk.card_no().await?);
    let key = once.key();
    let mut body = json!({ "without_card": without_card, "reason": reason, "operator": operator });
    let mut answer = desk.answer(&path, body.clone(), Some(&key)).await?;
    if let Some(shows) = answer.body.get("shows").filter(|_| answer.status == 409).cloned() {
        show::compared(&answer.body, global);
        let counter = shows.get("counter").and_then(Value::as_u64);
        if let Some(members) =
            body.as_object_mut().filter(|_| take.is_some() && counter == take.map(u64::from))
        {
            members.insert("takes".into(), shows);
            answer = desk.answer(&path, body, Some(&format!("{key}-take"))).await?;
        }
    }
    show::released(&answer.accepted()?, global);
    Ok(())
}
