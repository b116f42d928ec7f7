//! What can be wrong with a configuration, and where.

use std::fmt;
use std::path::PathBuf;

/// One thing wrong, at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The file.
    pub file: PathBuf,
    /// Line and column, from 1; `None` where the error is about the file as a whole.
    pub at: Option<(usize, usize)>,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub hint: Option<String>,
}

impl ConfigError {
    /// An error about a file as a whole.
    #[must_use]
    pub fn whole(file: impl Into<PathBuf>, what: impl Into<String>, hint: Option<String>) -> Self {
        Self { file: file.into(), at: None, what: what.into(), hint }
    }

    /// An error at a byte offset of `text`.
    #[must_use]
    pub fn at(
        file: impl Into<PathBuf>,
        text: &str,
        offset: usize,
        what: impl Into<String>,
        hint: Option<String>,
    ) -> Self {
        Self { file: file.into(), at: Some(line_column(text, offset)), what: what.into(), hint }
    }
}

impl std::error::Error for ConfigError {}

/// `file:line:column: what (hint: …)`, the form that editors and CI jump to.
impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some((line, column)) = self.at {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", self.what)?;
        match &self.hint {
            Some(hint) => write!(f, " (hint: {hint})"),
            None => Ok(()),
        }
    }
}

/// Line and column of a byte offset, both from 1, columns in characters.
fn line_column(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset.min(text.len())).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (line, before.get(start..).unwrap_or("").chars().count() + 1)
}
