//! DBC databases (Vector's format for CAN messages and signals): read once,
//! compiled to byte windows, shifts and masks, looked up by arbitration ID and
//! decoded without allocation. Here is no I/O and no bus: frames come from
//! whoever listens, or from a candump log.

mod compile;
mod parse;
mod reader;
mod signal;
mod words;

pub use compile::{Database, Message, Selectors};
pub use signal::{Decimal, Signal, Value};

/// A DBC file that cannot be used, and where it is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {reason}")]
pub struct DbcError {
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
    /// What is wrong and what to do.
    pub reason: String,
}

impl DbcError {
    fn at(line: usize, column: usize, reason: impl Into<String>) -> Self {
        Self { line, column, reason: reason.into() }
    }
}

/// Something in a DBC file that is odd and was passed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Oddity {
    /// Line, from 1.
    pub line: usize,
    /// What was found and what was made of it.
    pub what: String,
}
