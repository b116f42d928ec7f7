//! What came of looking at a card, and what the cashier is told when it will
//! not do. What does not live here: how it was found out (`probe`).

use super::record::MemberRecord;
use crate::event::Text;
use crate::event::card::{Member, Technology};
use crate::ident::CardUid;

/// A card that showed who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CardIdentity {
    /// UID. It identifies, it proves nothing.
    pub uid: CardUid,
    /// As probed.
    pub technology: Technology,
    /// Answer to reset, upper-case hex, where the reader gave one.
    pub atr: Option<String>,
    /// What a code or stripe says; none of a chip.
    pub code: Option<String>,
    /// What it is to this store.
    pub standing: Standing,
    /// Its record, where it has one of ours, served or not.
    pub opened: Option<Box<MemberRecord>>,
}

/// What an identified card is to this store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// A number, no more: there are no card keys here, or its technology keeps no record.
    Identified,
    /// A member, proven by the card's keys.
    Member(Box<Member>),
    /// Not served, and why.
    Refused(Refusal),
}

/// The end of an identification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Known.
    Card(CardIdentity),
    /// Something is there that cannot be served.
    Refused(Refusal),
    /// The card left before it was known; nothing is told.
    Left,
}

/// One row of the table: variant, code, what it is, and the words for the cashier.
macro_rules! refusals {
    ($($name:ident, $code:literal, $doc:literal, $zh:literal, $en:literal;)*) => {
        /// Why a card is refused.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Refusal {
            $(#[doc = $doc] $name,)*
        }

        impl Refusal {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The stable code in `card.refused`.
            #[must_use]
            pub fn code(self) -> &'static str {
                match self {
                    $(Self::$name => $code,)*
                }
            }

            /// For the cashier: what happened and what to do.
            #[must_use]
            pub fn text(self) -> Text {
                match self {
                    $(Self::$name => Text::new($zh, $en),)*
                }
            }
        }
    };
}

refusals! {
    Unreadable, "unreadable", "It has no UID that this reader can read, or it is mute.",
        "读不出此卡的卡号。请把卡拿开，一次只放一张，再放一次；仍不行请换一张卡。",
        "The number of this card cannot be read. Take it away and present one card alone again; if that fails, use another card.";
    NoAnswer, "no-answer", "It, or the reader, did not answer in time.",
        "卡或读卡器没有应答。请拿开卡再放一次；仍不行请拔下读卡器的 USB 线再插上。",
        "The card or the reader did not answer. Present the card again; if that fails, unplug the reader's USB cable and plug it in again.";
    ReaderBusy, "reader-busy", "Another program has the reader for itself.",
        "读卡器被另一个程序占用。请关闭其他读卡软件，再刷一次卡。",
        "Another program is using the reader. Close other card software and present the card again.";
    ReaderError, "reader-error", "The reader reported an error.",
        "读卡器出错。请再刷一次卡；仍不行请拔下读卡器的 USB 线再插上。",
        "The reader reported an error. Present the card again; if that fails, unplug the reader's USB cable and plug it in again.";
    ReaderCannotLogIn, "reader-cannot-log-in", "The reader cannot pass on what this technology's login needs.",
        "此读卡器不能打开这种会员卡。请换用支持的读卡器（例如 ACR122U），或换发 MIFARE Classic 卡。",
        "This reader cannot open this kind of member card. Use a reader that relays commands (an ACR122U, for example), or issue a MIFARE Classic card.";
    Phone, "phone", "A telephone: its UID is another one each time.",
        "这是手机，不是会员卡。请刷实体会员卡，或请顾客报会员号。",
        "This is a telephone, not a member card. Present the member card itself, or ask for the member number.";
    BankCard, "bank-card", "A payment card.",
        "这是银行卡，不是会员卡。请刷会员卡。",
        "This is a bank card, not a member card. Present the member card.";
    PaymentCode, "payment-code", "A code that pays, on a telephone.",
        "这是付款码（微信、支付宝或云闪付），不是会员码。请顾客打开会员码，或请顾客报会员号。",
        "This is a payment code, not a member code. Ask the customer to open the member code, or ask for the member number.";
    NotAMemberCard, "not-a-member-card", "Somebody else's card.",
        "这不是本系统的会员卡。请刷会员卡。",
        "This is not a member card. Present the member card.";
    Unformatted, "unformatted", "An empty card, or one whose issue was not finished.",
        "这是空白卡，尚未发卡。请先发卡，或换一张会员卡。",
        "This is an empty card that was not issued yet. Issue it first, or present a member card.";
    WrongKey, "wrong-key", "It says it is ours, and our keys do not open it.",
        "此卡的密钥不符，可能属于其他商家或系复制卡。请勿使用，并联系总部。",
        "The keys of this card are not right: it may be another company's or a copy. Do not use it, and tell headquarters.";
    KeyMissing, "key-missing", "The key store lacks the version it needs.",
        "本店没有此卡所用版本的密钥。请联系总部下发新密钥。",
        "This store does not have the keys of this card's version. Ask headquarters for the new keys.";
    TooFewTries, "too-few-tries", "Its code has one try left, or an empty card's has lost one.",
        "此卡的密码只剩最后一次尝试（空白卡则已被试错过），再错即永久锁死，本机不再尝试。请为顾客补卡，空白卡请换一张。",
        "One more wrong code would lock this card for ever, or somebody tried codes on an empty one: none is tried here. Replace the card, or take another empty one.";
    NeedsHeadquarters, "needs-headquarters", "Money can be put on it only while headquarters answers.",
        "此卡充值须由总部授权。请在联网后重试。",
        "Money is put on this card by headquarters alone. Try again when the line is up.";
    UnknownFormat, "unknown-format", "Written by a later program.",
        "此卡由更新版本的程序写入。请先升级本机程序。",
        "This card was written by a newer version. Update this gateway first.";
    DamagedRecord, "damaged-record", "Neither slot holds a record that can be read.",
        "卡内数据已损坏。请为顾客补卡，余额以总部记录为准。",
        "The data on this card is damaged. Replace the card; headquarters has the balance.";
    RecordConflict, "record-conflict", "Two records with one counter, or counters more than one apart.",
        "卡内两份数据互相矛盾，可能是复制卡。请扣留此卡并联系总部。",
        "The two records on this card contradict each other: it may be a copy. Keep the card and tell headquarters.";
    Blocked, "blocked", "Reported lost, or stopped.",
        "此卡已挂失或停用。请核实顾客身份后解挂或补卡。",
        "This card is blocked or reported lost. Check who the customer is, then unblock or replace it.";
    Returned, "returned", "Given back and paid out.",
        "此卡已退卡，不能再用。",
        "This card was returned and paid out; it can no longer be used.";
    Replaced, "replaced", "Another card took its place.",
        "此卡已补办新卡，旧卡作废。请顾客使用新卡。",
        "This card was replaced by a new one. Ask the customer for the new card.";
    Expired, "expired", "Its last day is over.",
        "此卡已过有效期。请为顾客办理延期。",
        "This card has expired. Extend its validity first.";
    StoreNotAccepted, "store-not-accepted", "Another store issued it, and this one does not take its cards.",
        "此卡由其他门店发行，本店不受理。请顾客到发卡门店使用，或联系总部。",
        "This card was issued by a store whose cards are not accepted here. Use it there, or ask headquarters.";
    Hotlisted, "hotlisted", "Headquarters' list says so.",
        "此卡在总部黑名单上。请扣留此卡并联系总部。",
        "This card is on headquarters' list of stopped cards. Keep the card and tell headquarters.";
    Held, "held", "It does not agree with what was seen of it here: an old image, a copy or an imitation.",
        "此卡的计数或内容与本店记录不符，可能是复制卡，已暂停使用。请勿收款，留下此卡并请主管核对。",
        "This card does not agree with what was seen of it here: it may be a copy, and is held. Take nothing from it, keep it and have a supervisor compare it.";
}

impl Refusal {
    /// Whether the reader stood in the way, not the card: the card may be asked again.
    #[must_use]
    pub fn is_the_readers(self) -> bool {
        self.reader_code().is_some()
    }

    /// Whether the card itself showed that it is no member card: what was begun on it is not
    /// done. Everything else leaves that open, as a reader's fault or a key that is not here do.
    #[must_use]
    pub fn proves_unfinished(self) -> bool {
        matches!(self, Self::Unformatted | Self::NotAMemberCard)
    }

    /// The stable reason for which the reader's own state is not `ready`, where it stood in
    /// the way.
    #[must_use]
    pub fn reader_code(self) -> Option<&'static str> {
        match self {
            Self::NoAnswer => Some("reader-hung"),
            Self::ReaderBusy => Some("reader-busy"),
            Self::ReaderError => Some("reader-error"),
            // Other kinds of cards it serves well.
            Self::ReaderCannotLogIn
            | Self::Unreadable
            | Self::Phone
            | Self::BankCard
            | Self::PaymentCode
            | Self::NotAMemberCard
            | Self::Unformatted
            | Self::WrongKey
            | Self::KeyMissing
            | Self::TooFewTries
            | Self::NeedsHeadquarters
            | Self::UnknownFormat
            | Self::DamagedRecord
            | Self::RecordConflict
            | Self::Blocked
            | Self::Returned
            | Self::Replaced
            | Self::Expired
            | Self::StoreNotAccepted
            | Self::Hotlisted
            | Self::Held => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_its_own_code_and_words() {
        let mut seen = std::collections::BTreeSet::new();
        for refusal in Refusal::ALL {
            let Text { zh, en } = refusal.text();
            assert!(seen.insert(refusal.code()), "{refusal:?}");
            assert!(zh.ends_with('。') && en.ends_with('.'), "{refusal:?}");
            let documented =
                include_str!("../../docs/cards.md").contains(&format!("| `{}` |", refusal.code()));
            assert!(documented, "{} is not in docs/cards.md", refusal.code());
        }
    }
}
