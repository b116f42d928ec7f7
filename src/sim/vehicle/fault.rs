//! What can go wrong on the way, by script.

use std::time::Duration;

/// A fault. Unless it says otherwise it strikes the next request to the car, once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The car's answer is lost: `NO DATA`.
    DropReply,
    /// One character of the answer is wrong.
    Garble,
    /// From now on every n-th answer has a wrong character; 0 ends it.
    GarbleEvery(u32),
    /// The answer comes so much later.
    Delay(Duration),
    /// Half of the answer, then silence until the next byte from the host.
    HalfThenSilence,
    /// At once, unasked: the banner, and all settings are lost.
    BrownOut,
    /// The adapter says this instead: `BUFFER FULL`, `CAN ERROR`, `STOPPED`, …
    /// `LV RESET` and `ERR94` also lose the settings.
    Say(String),
    /// Never answers again, until it vanishes and returns.
    Freeze,
    /// The answer has 00 bytes in it.
    Nulls,
    /// From now on the line swallows characters on their way to the adapter: the n-th line from now
    /// its n-th character, counted round from `from` up to `span`, where it has so many; 0 ends it.
    LoseInTurn {
        /// Longest place and one more.
        span: usize,
        /// Place in the first line.
        from: usize,
    },
    /// The same, and with each character the one so many places behind it.
    LoseTwoInTurn {
        /// Longest place and one more.
        span: usize,
        /// Place in the first line.
        from: usize,
        /// From the first to the second.
        apart: usize,
    },
    /// From now on every n-th end of a line is swallowed; 0 ends it.
    LoseEnds(usize),
    /// The engine's unit sends `7F xx 78` so many times before it answers.
    Pending(u8),
}
