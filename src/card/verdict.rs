//! What came of looking at a card, and what the cashier is told when it will
//! not do. What does not live here: how it was found out (`probe`).

use crate::event::Text;
use crate::event::card::Technology;
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

/// Why a card is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// It has no UID that this reader can read, or it is mute.
    Unreadable,
    /// It, or the reader, did not answer in time.
    NoAnswer,
    /// Another program has the reader for itself.
    ReaderBusy,
    /// The reader reported an error.
    ReaderError,
}

impl Refusal {
    /// The stable code in `card.refused`.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::NoAnswer => "no-answer",
            Self::ReaderBusy => "reader-busy",
            Self::ReaderError => "reader-error",
        }
    }

    /// For the cashier: what happened and what to do.
    #[must_use]
    pub fn text(self) -> Text {
        match self {
            Self::Unreadable => Text::new(
                "读不出此卡的卡号。请把卡拿开，一次只放一张，再放一次；仍不行请换一张卡。",
                "The number of this card cannot be read. Take it away and present one card alone again; \
                 if that fails, use another card.",
            ),
            Self::NoAnswer => Text::new(
                "卡或读卡器没有应答。请拿开卡再放一次；仍不行请拔下读卡器的 USB 线再插上。",
                "The card or the reader did not answer. Present the card again; \
                 if that fails, unplug the reader's USB cable and plug it in again.",
            ),
            Self::ReaderBusy => Text::new(
                "读卡器被另一个程序占用。请关闭其他读卡软件，再刷一次卡。",
                "Another program is using the reader. Close other card software and present the card again.",
            ),
            Self::ReaderError => Text::new(
                "读卡器出错。请再刷一次卡；仍不行请拔下读卡器的 USB 线再插上。",
                "The reader reported an error. Present the card again; \
                 if that fails, unplug the reader's USB cable and plug it in again.",
            ),
        }
    }
}
