//! Why the purse says no: a stable code for programs, and for the cashier what to do next.

use crate::event::Text;

macro_rules! refusals {
    ($($name:ident $code:literal $zh:literal $en:literal)*) => {
        /// Why nothing is done. Codes are stable; the texts may change.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[allow(missing_docs)]
        pub enum Refusal { $($name,)* }

        impl Refusal {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The stable code.
            #[must_use]
            pub fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// For the cashier: what is wrong and what to do.
            #[must_use]
            pub fn text(self) -> Text {
                match self { $(Self::$name => Text::new($zh, $en),)* }
            }
        }
    };
}

refusals! {
    CardBlocked "card-blocked"
        "此卡已被停用。请出示另一张卡，或由主管解除停用。"
        "This card is blocked. Use another card, or have a supervisor unblock it."
    CardLost "card-lost"
        "此卡已挂失。请勿收款，留下此卡并联系主管。"
        "This card was reported lost. Take no money from it, keep it and call a supervisor."
    CardReplaced "card-replaced"
        "此卡已换新卡，旧卡作废。请使用新卡。"
        "Another card took this one's place. Use the new card."
    CardReturned "card-returned"
        "此卡已退卡。请使用另一张卡。"
        "This card was given back. Use another card."
    CardExpired "card-expired"
        "此卡已过有效期。请先在柜台办理延期，余额不会丢失。"
        "This card has expired. Extend it at the counter first; the balance is not lost."
    CardHeld "card-held"
        "此卡的计数或内容与记录不符，已暂停使用。请联系主管核对。"
        "This card does not agree with what was seen of it and is held. Have a supervisor compare it."
    CardHotlisted "card-hotlisted"
        "此卡在总部黑名单上。请勿收款，联系主管。"
        "Headquarters has this card on its hotlist. Take no money from it and call a supervisor."
    HotlistTooOld "hotlist-too-old"
        "黑名单过旧，暂不能扣款。请检查与总部的网络，更新后再试，或用其他方式付款。"
        "The hotlist is too old to take money from cards. Check the line to headquarters, or pay otherwise."
    StoreNotAccepted "store-not-accepted"
        "本店不受理发卡门店的卡。请用其他方式付款。"
        "Cards of the store that gave it out are not taken here. Pay otherwise."
    AccountAtHeadquarters "account-at-headquarters"
        "此卡只能识别会员，账户在总部。请在联网时使用，或用其他方式付款。"
        "This card only tells who the member is, the account is at headquarters. Use it when the line is up, or pay otherwise."
    NeedsHeadquarters "needs-headquarters"
        "此操作需要总部授权，目前未联网。请稍后再试。"
        "Headquarters has to authorise this, and it is not reached now. Try again later."
    WritesHeld "card-writes-held"
        "本机暂停写卡（见系统状态页）。请用其他方式付款，并联系管理员。"
        "This gateway writes to no card now (see its status). Pay otherwise and call the administrator."
    TapAgain "tap-again"
        "请勿重复扣款，请重新刷卡。"
        "Do not charge again: tap the card once more."
    PinNeeded "pin-needed"
        "此卡需要密码。请顾客输入密码；尚未设置密码的，请先在柜台设置。"
        "This card needs its PIN. Have the customer type it; where none is set yet, set one at the counter first."
    OfflineTransactionLimit "offline-transaction-limit"
        "未联网，超过单笔限额。请减少卡付金额，其余用其他方式支付。"
        "Headquarters is not reached and this is above the limit of one transaction. Pay less by card and the rest otherwise."
    OfflineCardLimit "offline-card-limit"
        "未联网，此卡今日限额已用完。请用其他方式付款，或联网后再试。"
        "Headquarters is not reached and this card's limit of today is used up. Pay otherwise, or when the line is up."
    OfflineDayLimit "offline-day-limit"
        "未联网，本店此类卡今日限额已用完。请用其他方式付款，或联网后再试。"
        "Headquarters is not reached and today's limit of all such cards is used up. Pay otherwise, or when the line is up."
    BalanceOverLimit "balance-over-limit"
        "超过此类卡的余额上限（记名卡与不记名卡不同）。请减少金额。"
        "The balance would be above what this type of card may hold. Take a smaller amount."
    NotEnoughBalance "not-enough-balance"
        "余额不足。请充值，或部分用其他方式支付；退充值时赠送金额须仍在卡上，请减少退款金额。"
        "The balance is too small. Top up, or pay a part otherwise. Of a top-up give back less: its bonus has to be there."
    NotEnoughPoints "not-enough-points"
        "积分不足。请减少使用的积分；退款时原单所赚积分须仍在卡上，请减少退款金额。"
        "There are not enough points. Use fewer. Of a sale give back less: the points it earned have to be there."
    PointsOverLimit "points-over-limit"
        "超过一张卡可存的积分上限。请先使用部分积分。"
        "The card cannot hold that many points. Use some first."
    PointsOverShare "points-over-share"
        "积分抵扣超过允许的比例。请减少使用的积分。"
        "Points may not pay that much of it. Use fewer."
    CounterExhausted "counter-exhausted"
        "此卡的交易计数已满。请换新卡。"
        "The card's counter is at its end. Replace the card."
    CouponUnknown "coupon-unknown"
        "系统中没有此优惠券。请检查配置或换一张券。"
        "This coupon is not known here. Check the configuration or use another."
    CouponNotOnCard "coupon-not-on-card"
        "卡上没有此优惠券。请重新刷卡查看可用的券。"
        "This coupon is not on the card. Tap it again to see what is."
    CouponNotApplicable "coupon-not-applicable"
        "此优惠券不适用于本单（金额或品类不符）。请去掉优惠券。"
        "This coupon does not fit the sale (amount or category). Leave it out."
    CouponSlotsFull "coupon-slots-full"
        "卡上的券位已满。请先使用一张券。"
        "The card has no room for another coupon. Use one first."
    AmountNotAllowed "amount-not-allowed"
        "金额或数量不正确（必须大于零且在上限内）。请更正。"
        "An amount or quantity is not allowed (above zero, and within the limits). Correct it."
    NameNotAllowed "name-not-allowed"
        "商品编号或单号过长（最多 64 字节）或含有控制字符。请更正。"
        "An item's or order's name is too long (64 bytes) or has control characters. Correct it."
    TendersDoNotAddUp "tenders-do-not-add-up"
        "各付款方式之和与应付金额不符。请更正。"
        "The ways of paying do not add up to what is to be paid. Correct them."
    LossReportNotAllowed "loss-report-not-allowed"
        "不记名卡不能挂失。"
        "Anonymous cards cannot be reported lost."
    ValidityNotAllowed "validity-not-allowed"
        "有效期不符合规定：记名卡不设有效期，不记名卡不少于三年。"
        "That validity is against the rules: named cards do not expire, anonymous ones not within three years."
    RefundOverOriginal "refund-over-original"
        "退款合计超过原交易可退金额。请减少金额。"
        "The refunds would be above the original. Take a smaller amount."
    NotRefundable "not-refundable"
        "此交易不能退款或撤销（未完成、已撤销或种类不符）。请核对原交易。"
        "This transaction cannot be refunded or voided (not committed, undone already, or of another kind). Check it."
    RefundedAlready "refunded-already"
        "此交易已有退款，不能撤销。请对余下部分退款。"
        "A part was refunded already, so it cannot be voided. Refund the rest."
    OtherCard "other-card"
        "原交易属于另一张卡。请刷原卡，或其换出的新卡。"
        "The original belongs to another card. Tap that one, or the one that took its place."
    TransferNotAllowed "transfer-not-allowed"
        "两张卡之间不能转账（同一张卡、另一张本店不认识或不能用，或转出未完成、已转入、是给别的卡的）。请核对；收款卡坏了或已补换的，请在转出卡上撤销转账（void）。"
        "These cards cannot transfer (the same card, one that is not known or not in use here, or the giving half is not committed, was received, or is for another card). Check them; if the card that was to receive is broken or replaced, void the transfer on the card that gave."
    TransferUnsettled "transfer-unsettled"
        "这笔转账的收款卡写到一半离开了，是否已转入尚不确定，暂不能撤销。请再刷一次收款卡；收款卡坏了或丢了的，先给它补换卡，再撤销。"
        "The card that receives this transfer left while it was written: whether it has it is not known, and it cannot be voided yet. Tap that card once more; if it is broken or lost, replace it first, then void."
    TransferParked "transfer-parked"
        "这笔转账的收款卡在得知是否已转入之前，已在别处用过（或解除暂停时以卡上内容为准）；再刷卡或补换都不能得知结果，不能撤销。请勿再转一次，把交易号告知总部，按其结论办理。"
        "The card that receives this transfer was used elsewhere, or released as it showed itself, before it told whether it has it: no tap and no replacement tells any more, and it cannot be voided. Do not send it again; give headquarters the transaction's id and go by its answer."
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text().en)
    }
}

impl std::error::Error for Refusal {}
