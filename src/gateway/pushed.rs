//! `config.put`: headquarters' rules, asked for by a committed request as everything is. What lives
//! here: finding such requests, and what becomes of one. What does not: reading the command
//! (`uplink::command`), keeping and merging the text (`config::pushed`), taking a configuration
//! (`reload`).
//!
//! ```text
//!  command ─► request committed ─► older? the same? ─► whole configuration with it: checked ─► kept
//!                  │                   (a file in data_dir/config.d, renamed into place) ─► in force
//!   killed anywhere └─► the request is found again; what is kept already is done ◄─ outcome committed
//! ```

use std::path::Path;

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::reload::NotTaken;
use crate::config::pushed::Pushed;
use crate::store::requests::{RequestOp, RequestRow, RequestState};
use crate::store::{Batch, Op, Store, StoreError};
use crate::uplink::command::CONFIG_PUT;

/// How a request ends.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Outcome {
    state: RequestState,
    said: Value,
}

/// What a request comes to before anything is loaded.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Judged {
    /// Over.
    Over(Outcome),
    /// To be taken.
    Take(Pushed),
}

impl Outcome {
    fn done(version: u64, before: bool) -> Self {
        Self { state: RequestState::Done, said: json!({ "version": version, "here_before": before }) }
    }

    fn refused(why: &str) -> Self {
        Self { state: RequestState::Failed, said: json!({ "refused": true, "error": why }) }
    }

    fn failed(why: &str) -> Self {
        Self { state: RequestState::Failed, said: json!({ "error": why }) }
    }

    /// Of what a reload came to.
    pub(super) fn of(pushed: &Pushed, taken: &Result<(), NotTaken>) -> Self {
        match taken {
            Ok(()) => Self::done(pushed.version, false),
            Err(why @ NotTaken::Invalid(_)) => Self::refused(&why.told()),
            Err(why @ NotTaken::NotKept(_)) => Self::failed(&why.told()),
        }
    }

    /// Commits it. A request that is settled already keeps its outcome.
    pub(super) async fn commit(self, request: &RequestRow, store: &Store) {
        let settle = RequestOp::Settle { id: request.id, state: self.state, outcome: self.said };
        match store.commit(Batch::new().op(Op::Request(settle))).await {
            Ok(_) | Err(StoreError::NotFound { .. }) => {}
            Err(error) => tracing::error!(%error, "the outcome of config.put could not be committed"),
        }
    }
}

/// What is to be done for a request, beside what is kept.
pub(super) fn judge(body: &Value, data_dir: &Path) -> Judged {
    let asked: Pushed = match serde_json::from_value(body.clone()) {
        Ok(asked) => asked,
        Err(error) => return Judged::Over(Outcome::refused(&format!("the request cannot be read: {error}"))),
    };
    let here = match Pushed::read(data_dir) {
        Ok(here) => here,
        Err(error) => return Judged::Over(Outcome::failed(&format!("what is kept cannot be read: {error}"))),
    };
    let Some(here) = here else { return Judged::Take(asked) };
    if here.version > asked.version {
        let (old, kept) = (asked.version, here.version);
        return Judged::Over(Outcome::refused(&format!("version {old} is older than {kept}, which is here")));
    }
    if here.version < asked.version {
        return Judged::Take(asked);
    }
    Judged::Over(if here.says_the_same(&asked) {
        Outcome::done(asked.version, true)
    } else {
        Outcome::refused(&format!(
            "version {} is here with another content; send a higher one",
            asked.version
        ))
    })
}

/// Hands on the requests that come in, also those of an earlier run.
pub(super) async fn listen(store: Store, asked: mpsc::Sender<RequestRow>, stop: CancellationToken) {
    let mut head = store.head();
    let mut sent = Vec::new();
    loop {
        head.borrow_and_update();
        let open = match store.read(|r| r.open_requests(CONFIG_PUT, None)).await {
            Ok(open) => open,
            Err(error) => {
                tracing::error!(%error, "requests for config.put cannot be read");
                Vec::new()
            }
        };
        sent.retain(|id| open.iter().any(|request| request.id == *id));
        for request in open {
            if !sent.contains(&request.id) {
                sent.push(request.id);
                if asked.send(request).await.is_err() {
                    return;
                }
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = head.changed() => if changed.is_err() { return },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_decides() {
        let data = tempfile::tempdir().unwrap();
        let pushed = |version, text: &str| Pushed { version, text: text.into() };
        let first = pushed(7, "[purse]\n");
        assert_eq!(judge(&json!(first), data.path()), Judged::Take(first.clone()));
        first.write(data.path()).unwrap();
        // (asked, what becomes of it)
        let refused = |asked: &Pushed| match judge(&json!(asked), data.path()) {
            Judged::Over(outcome) => outcome.said["refused"] == true,
            Judged::Take(_) => false,
        };
        assert_eq!(judge(&json!(first), data.path()), Judged::Over(Outcome::done(7, true)));
        assert!(refused(&pushed(6, "[purse]\n")) && refused(&pushed(7, "")));
        assert!(matches!(judge(&json!(pushed(8, "")), data.path()), Judged::Take(_)));
        assert!(matches!(judge(&json!({}), data.path()), Judged::Over(_)));
    }
}
