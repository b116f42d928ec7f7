//! What ends a reader service, each with what to do.

use std::io;

use crate::store::StoreError;

/// A reader service cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum CardError {
    /// pcscd could not be used.
    #[error("pcscd: {0}; check that it runs (systemctl status pcscd.socket) and that this user may use it")]
    Pcsc(#[from] ::pcsc::Error),
    /// The system gave no thread.
    #[error("no thread for a reader: {0}; raise TasksMax of the service, or restart it")]
    Thread(io::Error),
    /// The table lacks what its kind needs. The configuration refuses such tables.
    #[error("reader {id} has no `{key}`; add it to its [[reader]] table")]
    Table {
        /// The reader.
        id: String,
        /// The key.
        key: &'static str,
    },
    /// The log did not take a fact.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An event could not be written as JSON.
    #[error("an event could not be written as JSON: {0}; report this as a fault of the program")]
    Json(#[from] serde_json::Error),
}
