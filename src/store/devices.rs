//! What devices last said of themselves, and the card now in each reader's field.

use rusqlite::{Connection, params};
use serde::Serialize;

use super::{Reader, StoreError};
use crate::clock::UtcMillis;
use crate::event::card::Technology;
use crate::event::device::{DeviceKind, DeviceState, DeviceStatus};
use crate::ident::{CardUid, DeviceId};

/// Changes device state.
#[derive(Debug, Clone)]
pub enum DeviceOp {
    /// A device changed its state.
    State {
        /// Kind.
        kind: DeviceKind,
        /// Configured id.
        id: DeviceId,
        /// The new state.
        state: DeviceState,
    },
    /// A device left the configuration.
    Forget {
        /// Kind.
        kind: DeviceKind,
        /// Configured id.
        id: DeviceId,
    },
    /// A card came into a reader's field.
    CardPresent(CardInField),
    /// A reader's field is empty.
    CardGone {
        /// The reader.
        reader: DeviceId,
    },
}

/// The card now in a reader's field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CardInField {
    /// The reader.
    pub reader: DeviceId,
    /// UID.
    pub uid: CardUid,
    /// Technology as probed.
    pub technology: Technology,
    /// Answer to reset, hex.
    pub atr: Option<String>,
    /// Since when.
    pub since: UtcMillis,
}

/// A device as last seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeviceRow {
    /// Configured id.
    pub id: DeviceId,
    /// State.
    #[serde(flatten)]
    pub state: DeviceState,
    /// Since when.
    pub since: UtcMillis,
}

/// An enum stored as the text serde gives it.
pub(super) fn enum_text<T: Serialize>(value: &T) -> Result<String, StoreError> {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(text)) => Ok(text),
        other => Err(StoreError::Corrupt(format!("not a plain enum: {other:?}"))),
    }
}

pub(super) fn text_enum<T: serde::de::DeserializeOwned>(text: String) -> Result<T, StoreError> {
    serde_json::from_value(serde_json::Value::String(text)).map_err(|e| StoreError::Corrupt(e.to_string()))
}

pub(super) fn ident<T: std::str::FromStr>(text: &str) -> Result<T, StoreError>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|e: T::Err| StoreError::Corrupt(e.to_string()))
}

impl DeviceOp {
    pub(super) fn apply(&self, tx: &Connection) -> Result<(), StoreError> {
        match self {
            Self::State { kind, id, state } => {
                tx.prepare_cached(
                    "INSERT INTO device (kind, id, state, reason, detail, since) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                     ON CONFLICT (kind, id) DO UPDATE SET state = ?3, reason = ?4, detail = ?5, since = ?6",
                )?
                .execute(params![
                    kind.as_str(),
                    id.as_str(),
                    enum_text(&state.state)?,
                    state.reason,
                    state.detail,
                    UtcMillis::now().0
                ])?;
            }
            Self::Forget { kind, id } => {
                tx.execute(
                    "DELETE FROM device WHERE kind = ?1 AND id = ?2",
                    params![kind.as_str(), id.as_str()],
                )?;
                if *kind == DeviceKind::Reader {
                    tx.execute("DELETE FROM card_in_field WHERE reader = ?1", [id.as_str()])?;
                }
            }
            Self::CardPresent(card) => {
                tx.prepare_cached(
                    "INSERT OR REPLACE INTO card_in_field (reader, uid, technology, atr, since) VALUES (?1, ?2, ?3, ?4, ?5)",
                )?
                .execute(params![
                    card.reader.as_str(),
                    card.uid.as_str(),
                    enum_text(&card.technology)?,
                    card.atr,
                    card.since.0
                ])?;
            }
            Self::CardGone { reader } => {
                tx.prepare_cached("DELETE FROM card_in_field WHERE reader = ?1")?
                    .execute([reader.as_str()])?;
            }
        }
        Ok(())
    }
}

impl Reader<'_> {
    /// All devices of a kind, by id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn devices(&self, kind: DeviceKind) -> Result<Vec<DeviceRow>, StoreError> {
        let mut query = self.conn.prepare_cached(
            "SELECT id, state, reason, detail, since FROM device WHERE kind = ?1 ORDER BY id",
        )?;
        let mut rows = query.query([kind.as_str()])?;
        let mut devices = Vec::new();
        while let Some(row) = rows.next()? {
            devices.push(DeviceRow {
                id: ident(&row.get::<_, String>(0)?)?,
                state: DeviceState {
                    state: text_enum::<DeviceStatus>(row.get(1)?)?,
                    reason: row.get(2)?,
                    detail: row.get(3)?,
                },
                since: UtcMillis(row.get(4)?),
            });
        }
        Ok(devices)
    }

    /// The card now in each reader's field.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn cards_in_field(&self) -> Result<Vec<CardInField>, StoreError> {
        let mut query = self.conn.prepare_cached(
            "SELECT reader, uid, technology, atr, since FROM card_in_field ORDER BY reader",
        )?;
        let mut rows = query.query([])?;
        let mut cards = Vec::new();
        while let Some(row) = rows.next()? {
            cards.push(CardInField {
                reader: ident(&row.get::<_, String>(0)?)?,
                uid: ident(&row.get::<_, String>(1)?)?,
                technology: text_enum(row.get(2)?)?,
                atr: row.get(3)?,
                since: UtcMillis(row.get(4)?),
            });
        }
        Ok(cards)
    }
}

/// One device's voice in the log: commits `device.state` when the state changes, and only then.
pub struct DeviceLog {
    store: super::Store,
    kind: DeviceKind,
    id: DeviceId,
    last: Option<DeviceState>,
}

impl DeviceLog {
    /// For one device. The first call of [`DeviceLog::set`] always commits.
    #[must_use]
    pub fn new(store: super::Store, kind: DeviceKind, id: DeviceId) -> Self {
        Self { store, kind, id, last: None }
    }

    /// The device is now in this state. `detail` is for people and does not count as a change.
    ///
    /// # Errors
    /// [`StoreError`]; the state counts as not told.
    pub async fn set(
        &mut self,
        state: DeviceStatus,
        reason: Option<&str>,
        detail: Option<String>,
    ) -> Result<(), StoreError> {
        if self.last.as_ref().is_some_and(|last| last.state == state && last.reason.as_deref() == reason) {
            return Ok(());
        }
        let state = DeviceState { state, reason: reason.map(str::to_owned), detail };
        let event = crate::event::NewEvent::now(self.kind.subject(&self.id), &state)
            .map_err(|e| StoreError::Corrupt(e.to_string()))?;
        tracing::info!(device = %self.kind.subject(&self.id), state = ?state.state, reason = state.reason.as_deref(), detail = state.detail.as_deref(), "device state");
        let op = DeviceOp::State { kind: self.kind, id: self.id.clone(), state: state.clone() };
        self.store.commit(super::Batch::new().op(super::Op::Device(op)).event(event)).await?;
        self.last = Some(state);
        Ok(())
    }
}
