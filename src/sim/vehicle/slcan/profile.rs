//! How a simulated slcan adapter behaves.

/// Its habits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlcanProfile {
    /// Sends `z`, `Z` for frames it took.
    pub acknowledges: bool,
    /// Answers `O`, `L`, `S`, `C` at all.
    pub confirms: bool,
    /// Knows `L`.
    pub listens: bool,
    /// Frames carry four digits of time.
    pub stamps: bool,
    /// Writes so many bytes at once; 0: all.
    pub split_bytes: usize,
    /// A frame between each two lines that is none.
    pub garbage: bool,
    /// Other units talk on the bus all the time.
    pub chatter: bool,
    /// Tells each error by itself, as the kernel's driver reads it (`e1s`: bit stuffing).
    pub tells_errors: bool,
}

impl Default for SlcanProfile {
    fn default() -> Self {
        Self {
            acknowledges: true,
            confirms: true,
            listens: true,
            stamps: false,
            split_bytes: 0,
            garbage: false,
            chatter: false,
            tells_errors: false,
        }
    }
}
