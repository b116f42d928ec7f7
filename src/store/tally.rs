//! What a transaction adds to the counters of the classes, written once at its
//! end instead of at every event.

use rusqlite::{Connection, params};

use super::StoreError;
use super::epoch::{CLASSES, Position, slot};
use super::outbox::class_index;
use crate::event::Class;

#[derive(Debug, Default)]
pub(super) struct Tally {
    classes: [Added; CLASSES],
}

#[derive(Debug, Clone, Copy, Default)]
struct Added {
    rows: i64,
    bytes: i64,
    last_offset: i64,
}

impl Tally {
    /// One event more.
    pub(super) fn add(&mut self, class: Class, offset: i64, weight: i64) {
        if let Some(added) = self.classes.get_mut(slot(class)) {
            *added = Added { rows: added.rows + 1, bytes: added.bytes + weight, last_offset: offset };
        }
    }

    /// Writes it; from here it begins again at nothing. `position` is where the events led.
    pub(super) fn write(&mut self, tx: &Connection, position: &Position) -> Result<(), StoreError> {
        for class in Class::ALL {
            let place = slot(class);
            let added = self.classes.get_mut(place).map(std::mem::take).unwrap_or_default();
            if added.rows > 0 {
                tx.prepare_cached(
                    "UPDATE class_counter SET last_sequence = ?2, last_offset = ?3, total_bytes = ?4,
                            rows = rows + ?5, bytes = bytes + ?6 WHERE class = ?1",
                )?
                .execute(params![
                    class_index(class),
                    position.last_class.get(place),
                    added.last_offset,
                    position.total_bytes.get(place),
                    added.rows,
                    added.bytes,
                ])?;
            }
        }
        Ok(())
    }
}
