//! Why a request was not done, as its row says it: a stable code, the words for the cashier,
//! and the status that a till over HTTP gets.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::card::purse::Refusal as PurseRefusal;
use crate::card::verdict::Refusal as CardRefusal;
use crate::event::Text;

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Stable code.
    pub code: String,
    /// For the cashier.
    pub text: Text,
    /// HTTP status.
    pub status: u16,
}

/// The card or the house is not as it must be.
const CONFLICT: u16 = 409;
/// Code of an issue that was ended while its card was away.
pub(super) const GIVEN_UP: &str = "issue-given-up";
/// There is no such card here.
const NOT_FOUND: u16 = 404;
/// What was asked cannot be.
const UNPROCESSABLE: u16 = 422;
/// There is no room for it.
const INSUFFICIENT_STORAGE: u16 = 507;

impl Refused {
    fn new(code: &str, status: u16, zh: impl Into<String>, en: impl Into<String>) -> Self {
        Self { code: code.into(), text: Text::new(zh, en), status }
    }

    /// As the outcome of a request.
    #[must_use]
    pub fn outcome(&self) -> Value {
        json!(self)
    }

    pub(super) fn no_card() -> Self {
        Self::new(
            "no-card",
            CONFLICT,
            "读卡器上没有卡，什么也没有做。请放好卡，用新的 Idempotency-Key 再试。",
            "No card lay on the reader, and nothing was done. Present the card and ask again with a new Idempotency-Key.",
        )
    }

    pub(super) fn wrong_card() -> Self {
        Self::new(
            "wrong-card",
            CONFLICT,
            "读卡器上是另一张卡，什么也没有做。请放上所选的卡再试。",
            "Another card lies on the reader, and nothing was done. Present the card that was chosen.",
        )
    }

    pub(super) fn already_issued() -> Self {
        Self::new(
            "already-issued",
            CONFLICT,
            "此卡已是会员卡，未做任何改动。请换一张空白卡。",
            "This card is a member's already and was not changed. Present an empty card.",
        )
    }

    pub(super) fn not_blank() -> Self {
        Self::new(
            "not-blank",
            CONFLICT,
            "此卡不是空白卡（有其他数据或密钥），未做任何改动。请换一张空白卡。",
            "This card is not empty: it has foreign data or keys. It was not changed; present an empty card.",
        )
    }

    pub(super) fn card_no_in_use() -> Self {
        Self::new(
            "card-no-in-use",
            CONFLICT,
            "此卡号已发出。请使用下一个卡号。",
            "This card number has been given out before; take the next one.",
        )
    }

    /// `issue`: the request that has the number.
    pub(super) fn card_no_busy(issue: Uuid) -> Self {
        Self::new(
            "card-no-busy",
            CONFLICT,
            format!(
                "此卡号正在发给另一张卡，什么也没有做。请先完成那张卡，或使用另一个卡号；那张卡已丢弃的，请放弃那次发卡（DELETE /v1/requests/{issue}）。"
            ),
            format!(
                "Another card is being issued with this number, and nothing was done. Finish that one first, or take another number; if that card was thrown away, give its issue up (DELETE /v1/requests/{issue})."
            ),
        )
    }

    pub(super) fn cannot_be_issued(why: &dyn std::error::Error) -> Self {
        Self::new("cannot-be-issued", UNPROCESSABLE, format!("无法发卡：{why}"), why.to_string())
    }

    pub(super) fn issue_not_begun() -> Self {
        Self::new(
            "not-written",
            CONFLICT,
            "卡已离开或读卡器出错，未写入任何数据。请重新放卡，用新的 Idempotency-Key 再发。",
            "The card left or the reader failed before anything was written. Present it again and issue it with a new Idempotency-Key.",
        )
    }

    pub(super) fn issue_interrupted() -> Self {
        Self::new(
            "issue-interrupted",
            CONFLICT,
            "发卡未完成。请重新放好此卡，用新的 Idempotency-Key 再发一次。",
            "The issue was cut off. Present this card again and issue it once more with a new Idempotency-Key.",
        )
    }

    /// [`Self::is_given_up`].
    pub(super) fn given_up() -> Self {
        Self::new(
            GIVEN_UP,
            CONFLICT,
            "发卡已放弃，此卡未完成。请重新放好此卡再发，或作废此卡；此卡号不能发给其他卡，请使用下一个卡号。",
            "The issue was given up before this card was finished. Present this card again and issue it once more, or throw it away; its number goes to no other card, take the next one.",
        )
    }

    /// Its card was never written.
    pub(super) fn cancelled() -> Self {
        Self::new(
            "cancelled",
            CONFLICT,
            "发卡已取消，什么也没有做。",
            "The issue was cancelled, and nothing was done.",
        )
    }

    /// Whether an issue with this outcome was ended without the card having told what became of it.
    pub(super) fn is_given_up(outcome: &Value) -> bool {
        outcome.get("code").and_then(Value::as_str) == Some(GIVEN_UP)
    }

    pub(super) fn no_keys() -> Self {
        Self::new(
            "card-keys",
            CONFLICT,
            "本机没有会员卡密钥，只能识别卡号。请配置凭据 card-keys。",
            "This gateway has no card keys and only identifies cards; give it the credential card-keys.",
        )
    }

    pub(super) fn moved_on(what: &str) -> Self {
        Self::new(
            "tap-again",
            CONFLICT,
            "卡的状态已改变，什么也没有做。请重新刷卡后再试。",
            format!("Nothing was done: {what}"),
        )
    }

    pub(super) fn storage_full() -> Self {
        Self::new(
            "storage-full",
            INSUFFICIENT_STORAGE,
            "本地存储已满，卡未做任何改动。请清理磁盘或调大 buffer.max_bytes，再用新的 Idempotency-Key 重试。",
            "The local storage is full and the card was not changed; free disk space or raise buffer.max_bytes, then ask with a new Idempotency-Key.",
        )
    }

    pub(super) fn quote_changed() -> Self {
        Self::new(
            "quote-changed",
            CONFLICT,
            "报价后卡或规则已改变，什么也没有做。请重新报价，经顾客确认后再收款。",
            "Card or rules have changed since the quote, and nothing was done. Ask for a new quote and show it to the customer.",
        )
    }

    pub(super) fn original_unknown() -> Self {
        Self::new(
            "original-unknown",
            UNPROCESSABLE,
            "没有找到原交易。请核对交易号；其他门店的交易请到原门店办理。",
            "The original transaction is not known here. Check its id; one of another store is refunded there.",
        )
    }

    pub(super) fn card_not_known() -> Self {
        Self::new(
            "card-not-known",
            NOT_FOUND,
            "本店没有旧卡的记录，无法补卡。请核对卡号，或到发卡门店、总部办理。",
            "The old card was never seen at this store. Check its number, or have the store that issued it or headquarters replace it.",
        )
    }

    pub(super) fn issued_elsewhere() -> Self {
        Self::new(
            "issued-elsewhere",
            CONFLICT,
            "此卡由其他门店发行，请到发卡门店或总部办理。",
            "Another store gave this card out: have it done there, or by headquarters.",
        )
    }

    pub(super) fn not_fresh() -> Self {
        Self::new(
            "not-fresh",
            CONFLICT,
            "新卡必须是刚发的卡，从未有过交易。请先发一张新卡。",
            "The new card must be one just issued, without any transaction. Issue one first.",
        )
    }

    pub(super) fn other_type() -> Self {
        Self::new(
            "other-type",
            CONFLICT,
            "新旧卡类型不同（记名、不记名）。请发一张与旧卡同类型的新卡。",
            "The two cards are of different types (named, anonymous). Issue one of the old card's type.",
        )
    }

    pub(super) fn not_settled() -> Self {
        Self::new(
            "not-settled",
            CONFLICT,
            "此卡有交易尚待总部核实，或有转出未被收取，暂不能退卡。请先收取或撤销转账；待核实的请联系总部。",
            "A transaction of this card waits for headquarters, or a transfer from it for its receiver; until then it cannot be given back. Receive or void the transfer, or ask headquarters.",
        )
    }

    pub(super) fn not_held() -> Self {
        Self::new(
            "card-not-held",
            CONFLICT,
            "此卡没有被暂停使用，无需解除。",
            "This card is not held: there is nothing to release.",
        )
    }

    /// Beside it stands what is known and what the card shows.
    pub(super) fn card_differs() -> Self {
        Self::new(
            "card-differs",
            CONFLICT,
            "此卡所示与本店记录不符，未解除。请逐项核对（known 为本店所知，shows 为卡上所示）；确认以此卡为准的，用新的 Idempotency-Key 再次提交，并把 shows 原样放入 takes。",
            "This card does not agree with what is known of it and stays held. Compare the two (known, shows); if this card is to be taken as it is, ask again with a new Idempotency-Key and with shows, as it stands, in takes.",
        )
    }

    pub(super) fn too_long() -> Self {
        Self::new(
            "request-invalid",
            UNPROCESSABLE,
            "明细过长（超过 60 KiB），什么也没有做。请减少或缩短商品名称。",
            "The items are too long (over 60 KiB) and nothing was done. Send fewer of them, or shorter names.",
        )
    }

    pub(super) fn body(error: &serde_json::Error) -> Self {
        Self::new(
            "request-invalid",
            UNPROCESSABLE,
            "请求内容无法识别，可能由其他版本写入。请重新提交。",
            format!("The request cannot be read, perhaps another version wrote it ({error}). Ask again."),
        )
    }
}

impl From<PurseRefusal> for Refused {
    fn from(refusal: PurseRefusal) -> Self {
        use PurseRefusal as R;
        let status = match refusal {
            R::AmountNotAllowed
            | R::TendersDoNotAddUp
            | R::CouponUnknown
            | R::CouponNotApplicable
            | R::PointsOverShare
            | R::RefundOverOriginal
            | R::ValidityNotAllowed
            | R::LossReportNotAllowed
            | R::TransferNotAllowed => UNPROCESSABLE,
            _ => CONFLICT,
        };
        Self { code: refusal.code().into(), text: refusal.text(), status }
    }
}

impl From<CardRefusal> for Refused {
    fn from(refusal: CardRefusal) -> Self {
        // What the purse says of it, and said before taps did.
        if refusal == CardRefusal::Held {
            return PurseRefusal::CardHeld.into();
        }
        Self { code: refusal.code().into(), text: refusal.text(), status: CONFLICT }
    }
}
