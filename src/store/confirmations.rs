//! Confirmations: somebody asks for what may not simply be done, a person in the store
//! says yes, the service uses the yes once. A confirmation is a row of `request` (kind
//! [`KIND`]), so that it is as durable as one and is followed and forgotten like one:
//!
//! ```text
//!   ask ──► pending ──grant──► running ──redeem──► done        (used: never again)
//!              └───────────────────┴──refuse, 120 s──► failed
//! ```
//! What does not live here: who counts as a person (`api`), what it is about (the domains).

use rusqlite::{Connection, params};
use serde_json::{Value, json};
use uuid::Uuid;

use super::requests::{NewRequest, RequestOp, RequestRow, by_key, insert};
use super::{Batch, Op, Reader, Store, StoreError};
use crate::clock::{self, UtcMillis};

/// Kind of the rows.
pub const KIND: &str = "confirmation";
/// From the question to the deed, in milliseconds. A clock that is set back or forward
/// meanwhile ends the confirmation: it must be asked for again.
pub const LIFE_MS: i64 = 120_000;

/// Changes confirmations.
#[derive(Debug, Clone)]
pub enum ConfirmationOp {
    /// A new question. At most one is open for a device: fails the batch with
    /// [`StoreError::NotFound`] when there is one, with [`StoreError::Replayed`] or
    /// [`StoreError::KeyConflict`] when its key was used before. `kind` of the request is [`KIND`].
    Ask(NewRequest),
    /// A person says yes.
    Grant {
        /// Which.
        id: Uuid,
        /// Who: becomes the outcome.
        by: Value,
    },
    /// A person says no. Fails when it is over already.
    Decline {
        /// Which.
        id: Uuid,
        /// Who.
        outcome: Value,
    },
    /// It comes to nothing. What is over already stays as it is.
    Refuse {
        /// Which.
        id: Uuid,
        /// Why.
        outcome: Value,
    },
    /// Settles what was not used in time.
    Sweep,
    /// The service that owns `target` uses it. Fails unless it was granted and is in time.
    Redeem {
        /// Which.
        id: Uuid,
        /// The device it is for.
        target: String,
    },
}

impl ConfirmationOp {
    pub(super) fn apply(&self, tx: &Connection) -> Result<(), StoreError> {
        let now = UtcMillis::now().0;
        let settled = super::history::settled_at(clock::read());
        let changed = match self {
            Self::Ask(new) => {
                let what = new.body.get("what").unwrap_or(&Value::Null);
                let key = new.idempotency_key.as_deref();
                if let Some(row) = asked_before(tx, &new.scope, key, &new.target, what)? {
                    return Err(StoreError::Replayed { request: row.id });
                }
                sweep(tx, now, settled)?;
                let open = tx
                    .prepare_cached(
                        "SELECT 1 FROM request WHERE kind = ?1 AND target = ?2 AND state IN ('pending','running')",
                    )?
                    .exists(params![KIND, new.target])?;
                if !open {
                    insert(tx, new)?;
                }
                usize::from(!open)
            }
            Self::Grant { id, by } => tx
                .prepare_cached(
                    "UPDATE request SET state = 'running', outcome = ?2
                     WHERE id = ?1 AND kind = ?3 AND state = 'pending' AND ?4 - created_at BETWEEN 0 AND ?5",
                )?
                .execute(params![id.as_bytes().as_slice(), by.to_string(), KIND, now, LIFE_MS])?,
            Self::Decline { id, outcome } => end(tx, *id, outcome, settled)?,
            Self::Refuse { id, outcome } => {
                end(tx, *id, outcome, settled)?;
                1
            }
            Self::Sweep => {
                sweep(tx, now, settled)?;
                1
            }
            Self::Redeem { id, target } => tx
                .prepare_cached(
                    "UPDATE request SET state = 'done', settled_at = ?6
                     WHERE id = ?1 AND kind = ?3 AND target = ?2 AND state = 'running'
                       AND ?4 - created_at BETWEEN 0 AND ?5",
                )?
                .execute(params![id.as_bytes().as_slice(), target, KIND, now, LIFE_MS, settled])?,
        };
        match changed {
            0 => Err(StoreError::NotFound { what: "open confirmation".into() }),
            _ => Ok(()),
        }
    }
}

/// Ends what is open; how many rows that was.
fn end(tx: &Connection, id: Uuid, outcome: &Value, settled: i64) -> Result<usize, StoreError> {
    Ok(tx
        .prepare_cached(
            "UPDATE request SET state = 'failed', outcome = ?2, settled_at = ?4
             WHERE id = ?1 AND kind = ?3 AND state IN ('pending','running')",
        )?
        .execute(params![id.as_bytes().as_slice(), outcome.to_string(), KIND, settled])?)
}

/// The confirmation that a key asked for. What the report said then is no part of the
/// question: a retry after another scan is still a retry.
fn asked_before(
    conn: &Connection,
    scope: &str,
    key: Option<&str>,
    target: &str,
    what: &Value,
) -> Result<Option<RequestRow>, StoreError> {
    let Some(key) = key else { return Ok(None) };
    match by_key(conn, scope, key)? {
        Some(row) if row.kind != KIND || row.target != target || row.body.get("what") != Some(what) => {
            Err(StoreError::KeyConflict)
        }
        found => Ok(found),
    }
}

impl Reader<'_> {
    /// The confirmation for `what` on `target` that `scope` asked for with `key`, open or over.
    ///
    /// # Errors
    /// [`StoreError::KeyConflict`] when the key was used for something else.
    pub fn asked_before(
        &self,
        scope: &str,
        key: Option<&str>,
        target: &str,
        what: &str,
    ) -> Result<Option<RequestRow>, StoreError> {
        asked_before(self.conn, scope, key, target, &what.into())
    }
}

fn sweep(tx: &Connection, now: i64, settled: i64) -> Result<(), StoreError> {
    let outcome = json!({
        "code": "confirmation-expired",
        "text": {
            "zh": "120 秒内未确认，或系统时间被调整；请重新申请",
            "en": "not confirmed within 120 s, or the clock was set meanwhile; ask again",
        },
    });
    tx.prepare_cached(
        "UPDATE request SET state = 'failed', outcome = ?2, settled_at = ?5
         WHERE kind = ?1 AND state IN ('pending','running') AND ?3 - created_at NOT BETWEEN 0 AND ?4",
    )?
    .execute(params![KIND, outcome.to_string(), now, LIFE_MS, settled])?;
    Ok(())
}

/// Whether a row's time has not run out.
#[must_use]
pub fn in_time(row: &RequestRow) -> bool {
    (0..=LIFE_MS).contains(&(UtcMillis::now().0 - row.created_at.0))
}

/// Proof that a confirmation was given by a person and is now used up, on the disk. Made
/// only by [`Store::redeem`]; cannot be copied, so one confirmation is one deed.
#[derive(Debug)]
pub struct Redeemed {
    id: Uuid,
    target: String,
    body: Value,
    granted: Value,
}

impl Redeemed {
    /// The confirmation.
    #[must_use]
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// The device it was given for.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.target
    }

    /// What was asked and confirmed.
    #[must_use]
    pub fn body(&self) -> &Value {
        &self.body
    }

    /// Who said yes, as [`ConfirmationOp::Grant`] kept it.
    #[must_use]
    pub fn granted(&self) -> &Value {
        &self.granted
    }
}

impl Store {
    /// Uses up confirmation `id` for `target` and begins `request`, in one transaction.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when it was not granted, was used before, is out of time or
    /// is for another device; nothing was changed then.
    pub async fn redeem(&self, id: Uuid, target: &str, request: Uuid) -> Result<Redeemed, StoreError> {
        let target = target.to_owned();
        let row = self.read(move |r| r.request(id)).await?;
        let row = row.ok_or_else(|| StoreError::NotFound { what: "open confirmation".into() })?;
        let redeem = ConfirmationOp::Redeem { id, target: target.clone() };
        let batch =
            Batch::new().op(Op::Confirmation(redeem)).op(Op::Request(RequestOp::Start { id: request }));
        self.commit(batch).await?;
        Ok(Redeemed { id, target, body: row.body, granted: row.outcome.unwrap_or_default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::requests::RequestState;

    fn opened(target: &str) -> (Connection, Uuid) {
        let tx = Connection::open_in_memory().unwrap();
        tx.execute_batch(include_str!("schema/001.sql")).unwrap();
        let id = ask(&tx, target).unwrap();
        (tx, id)
    }

    fn ask(tx: &Connection, target: &str) -> Result<Uuid, StoreError> {
        let id = Uuid::now_v7();
        let new = NewRequest {
            id,
            kind: KIND,
            target: target.into(),
            scope: "control".into(),
            idempotency_key: None,
            body: json!({"what": "test"}),
        };
        ConfirmationOp::Ask(new).apply(tx).map(|()| id)
    }

    fn state(tx: &Connection, id: Uuid) -> RequestState {
        let found: String = tx
            .query_row("SELECT state FROM request WHERE id = ?1", [id.as_bytes().as_slice()], |row| {
                row.get(0)
            })
            .unwrap();
        serde_json::from_value(json!(found)).unwrap()
    }

    fn age(tx: &Connection, id: Uuid, by_ms: i64) {
        tx.execute(
            "UPDATE request SET created_at = created_at - ?2 WHERE id = ?1",
            params![id.as_bytes().as_slice(), by_ms],
        )
        .unwrap();
    }

    #[test]
    fn a_yes_is_good_once_and_for_one_device() {
        let (tx, id) = opened("bay-1");
        let redeem = |target: &str| ConfirmationOp::Redeem { id, target: target.into() }.apply(&tx);
        let grant = || ConfirmationOp::Grant { id, by: json!({"operator": "Li"}) }.apply(&tx);
        assert!(redeem("bay-1").is_err(), "nobody has said yes");
        grant().unwrap();
        assert!(grant().is_err(), "one yes is enough");
        assert!(redeem("bay-2").is_err(), "another device");
        redeem("bay-1").unwrap();
        assert!(redeem("bay-1").is_err(), "used");
        assert_eq!(state(&tx, id), RequestState::Done);
    }

    #[test]
    fn it_expires_and_a_clock_set_back_ends_it_too() {
        for by_ms in [LIFE_MS + 1, -60_000] {
            let (tx, id) = opened("bay-1");
            age(&tx, id, by_ms);
            assert!(ConfirmationOp::Grant { id, by: json!({}) }.apply(&tx).is_err(), "{by_ms}");

            let (tx, id) = opened("bay-1");
            ConfirmationOp::Grant { id, by: json!({}) }.apply(&tx).unwrap();
            age(&tx, id, by_ms);
            assert!(ConfirmationOp::Redeem { id, target: "bay-1".into() }.apply(&tx).is_err(), "{by_ms}");
            ask(&tx, "bay-1").unwrap();
            assert_eq!(state(&tx, id), RequestState::Failed, "swept by the next question");
        }
    }

    #[test]
    fn one_is_open_for_a_device_at_a_time() {
        let (tx, id) = opened("bay-1");
        assert!(ask(&tx, "bay-1").is_err());
        ask(&tx, "bay-2").unwrap();
        ConfirmationOp::Refuse { id, outcome: json!({"code": "confirmation-refused"}) }.apply(&tx).unwrap();
        assert!(ConfirmationOp::Grant { id, by: json!({}) }.apply(&tx).is_err());
        assert!(ConfirmationOp::Decline { id, outcome: json!({}) }.apply(&tx).is_err(), "over already");
        let id = ask(&tx, "bay-1").unwrap();
        ConfirmationOp::Decline { id, outcome: json!({}) }.apply(&tx).unwrap();
        assert_eq!(state(&tx, id), RequestState::Failed);
    }
}
