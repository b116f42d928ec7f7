//! Asking the daemon for work on a card, and following what takes longer.

use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::At;
use crate::api::client::{Answer, Client, ClientError, Method};
use crate::card::purse::Refusal;
use crate::cli::{Exit, Global, daemon};
use crate::config::values::Locale;

/// A request that was taken is followed so long: the longest wait for a card, and the write.
const FOLLOW: Duration = Duration::from_secs(75);
/// How long a quote waits for its card, at most.
const QUOTE_WAIT_S: u64 = 9;
const FOLLOW_EVERY: Duration = Duration::from_millis(300);

/// A reader and the daemon behind it.
pub(super) struct Desk {
    client: Client,
    locale: Locale,
    at: At,
}

impl Desk {
    pub(super) async fn open(at: At, global: &Global) -> anyhow::Result<Self> {
        Ok(Self { client: daemon::connect(global).await?, locale: global.language(), at })
    }

    /// The card that lies on the reader.
    pub(super) async fn card(&self) -> anyhow::Result<Value> {
        let reader = match &self.at.reader {
            Some(reader) => reader.to_string(),
            None => self.only_reader().await?,
        };
        let path = format!("/v1/readers/{reader}/card?wait={}", self.at.wait);
        let answer = self.client.request(Method::GET, &path, None).await?;
        if answer.status == 204 {
            return Err(self.no_card().into());
        }
        Ok(answer.accepted()?)
    }

    async fn only_reader(&self) -> anyhow::Result<String> {
        let listed = self.client.request(Method::GET, "/v1/readers", None).await?.accepted()?;
        let readers = listed.get("readers").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        // A SAM's slot has a role of its own, and no customer's card.
        let readers: Vec<&Value> = readers.iter().filter(|reader| reader.get("role").is_none()).collect();
        match readers.as_slice() {
            [only] => Ok(only.get("id").and_then(Value::as_str).unwrap_or_default().to_owned()),
            _ => {
                let names: Vec<&str> =
                    readers.iter().filter_map(|reader| reader.get("id").and_then(Value::as_str)).collect();
                let (zh, en) = ("请用 --reader 指明读卡器", "name one with --reader");
                Err(self.refused(
                    422,
                    "reader-needed",
                    format!("{}: {}", self.locale.pick(zh, en), names.join(", ")),
                ))
            }
        }
    }

    /// The card that is meant.
    pub(super) async fn card_no(&self) -> anyhow::Result<String> {
        if let Some(card_no) = &self.at.card {
            return Ok(card_no.to_string());
        }
        let card = self.card().await?;
        if let Some(card_no) = card.pointer("/member/card_no").and_then(Value::as_str) {
            return Ok(card_no.to_owned());
        }
        let reason = card.pointer("/refused/reason").and_then(Value::as_str).unwrap_or("not-a-member-card");
        let text =
            card.pointer(self.locale.pick("/refused/text/zh", "/refused/text/en")).and_then(Value::as_str);
        let plain = self.locale.pick("读卡器上的卡不是会员卡", "the card on the reader is not a member's");
        Err(self.refused(409, reason, text.unwrap_or(plain).to_owned()))
    }

    /// A transaction on the card that is meant, or that of an earlier transaction.
    pub(super) async fn transact(
        &self,
        original: Option<Uuid>,
        body: Value,
        key: &str,
    ) -> anyhow::Result<Value> {
        let card_no = match (&self.at.card, original) {
            (None, Some(original)) => {
                let path = format!("/v1/transactions/{original}");
                let fact = self.client.request(Method::GET, &path, None).await?.accepted()?;
                fact.get("card_no")
                    .and_then(Value::as_str)
                    .context("that transaction is not settled")?
                    .to_owned()
            }
            _ => self.card_no().await?,
        };
        self.post(&format!("/v1/cards/{card_no}/transactions"), body, Some(key)).await
    }

    /// Asks, and follows until it is settled.
    pub(super) async fn post(&self, path: &str, body: Value, key: Option<&str>) -> anyhow::Result<Value> {
        Ok(self.answer(path, body, key).await?.accepted()?)
    }

    /// As [`Self::post`], with the whole answer, also of a refusal.
    pub(super) async fn answer(
        &self,
        path: &str,
        mut body: Value,
        key: Option<&str>,
    ) -> anyhow::Result<Answer> {
        if let Some(members) = body.as_object_mut() {
            members.retain(|_, value| !value.is_null());
            members.extend(self.at.reader.as_ref().map(|reader| ("reader".into(), json!(reader))));
            // A quote is answered within the daemon's 10 s or not at all.
            let wait = if key.is_some() { self.at.wait } else { self.at.wait.min(QUOTE_WAIT_S) };
            members.insert("wait_s".into(), json!(wait));
        }
        let mut answer = self.client.request_with_key(Method::POST, path, Some(&body), key).await?;
        let until = Instant::now() + FOLLOW;
        while let Some(location) = answer.location.clone().filter(|_| answer.status == 202) {
            if let Some(unsettled) = self.unsettled(&answer) {
                return Err(unsettled);
            }
            if Instant::now() >= until {
                let en = format!("it takes longer than {} s; look at {location}", FOLLOW.as_secs());
                return Err(self.refused(504, "slow", en));
            }
            sleep(FOLLOW_EVERY).await;
            // The same key follows it to its end.
            answer = match key {
                Some(_) => self.client.request_with_key(Method::POST, path, Some(&body), key).await?,
                None => self.client.request(Method::GET, &location, None).await?,
            };
        }
        Ok(answer)
    }

    /// Ends an issue whose card does not come back.
    pub(super) async fn give_up(&self, issue: Uuid) -> anyhow::Result<Value> {
        let path = format!("/v1/requests/{issue}");
        Ok(self.client.request(Method::DELETE, &path, None).await?.accepted()?)
    }

    /// The card left in the middle: nobody knows yet.
    fn unsettled(&self, answer: &Answer) -> Option<anyhow::Error> {
        let code = answer.body.get("code").and_then(Value::as_str)?;
        let id = answer.body.get("id").and_then(Value::as_str)?;
        let text = answer.body.pointer(self.locale.pick("/text/zh", "/text/en")).and_then(Value::as_str)?;
        Some(self.refused(202, code, format!("{text} ({id})")))
    }

    fn no_card(&self) -> ClientError {
        let (zh, en) = ("读卡器上没有卡", "no card lies on the reader");
        ClientError::Refused { status: 409, code: "no-card".into(), detail: self.locale.pick(zh, en).into() }
    }

    #[expect(clippy::unused_self, reason = "reads as what the desk says")]
    fn refused(&self, status: u16, code: &str, detail: String) -> anyhow::Error {
        ClientError::Refused { status, code: code.to_owned(), detail }.into()
    }
}

/// Prints an error and gives its exit status: no card is a device that is not there, and what the
/// purse refuses is refused by policy, whatever its HTTP status says of the request.
pub(super) fn report(error: &anyhow::Error) -> Exit {
    let usual = daemon::report(error);
    match error.downcast_ref::<ClientError>() {
        Some(ClientError::Refused { code, .. }) if code == "no-card" => Exit::Device,
        Some(ClientError::Refused { code, .. }) if Refusal::ALL.iter().any(|it| it.code() == code) => {
            Exit::Refused
        }
        _ => usual,
    }
}
