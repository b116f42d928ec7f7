//! The uplink's dealings with the log: pages of rows ready to send, delivered
//! positions (committed in groups, because each commit is a sync of the disk),
//! and rows set aside.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::watch;

use super::pipe::Packet;
use super::session::{PAGE, Row};
use super::topics::Topics;
use super::word::Ours;
use crate::event::gateway::{EpochReason, GapReason, GatewayGap};
use crate::event::{Class, EventData, NewEvent, Source};
use crate::ident::{Epoch, Seq};
use crate::store::outbox::{ClassCursor, LoggedEvent, OutboxOp};
use crate::store::{Batch, Head, Offset, Op, Store, StoreError};

/// A page that was asked for.
pub(super) struct Page {
    pub class: Class,
    pub after: ClassCursor,
    pub rows: Vec<Row<Packet>>,
}

/// The log, as the uplink uses it.
pub(super) struct Drain {
    store: Store,
    source: Source,
    topics: Topics,
    head: watch::Receiver<Head>,
    noted: BTreeMap<Class, ClassCursor>,
    noted_since: Option<Instant>,
    /// The last position noted of each class, to count events.
    counted: BTreeMap<Class, ClassCursor>,
}

impl Drain {
    pub(super) fn new(store: Store, source: Source, topics: Topics) -> Self {
        let head = store.head();
        Self {
            store,
            source,
            topics,
            head,
            noted: BTreeMap::new(),
            noted_since: None,
            counted: BTreeMap::new(),
        }
    }

    /// The last row now.
    pub(super) fn last(&self) -> Offset {
        self.head.borrow().last
    }

    /// How far each class is delivered, as committed.
    pub(super) async fn delivered(&mut self) -> Result<Vec<(Class, ClassCursor)>, StoreError> {
        let delivered: Vec<(Class, ClassCursor)> = self
            .store
            .read(|reader| {
                Class::ALL.into_iter().map(|class| Ok((class, reader.delivered(class)?))).collect()
            })
            .await?;
        for (class, at) in &delivered {
            self.counted.entry(*class).or_insert(*at);
        }
        Ok(delivered)
    }

    /// Reads pages, encoded and ready to send.
    pub(super) async fn read(&self, wanted: Vec<(Class, ClassCursor)>) -> Result<Vec<Page>, StoreError> {
        let (topics, source) = (self.topics.clone(), self.source.clone());
        self.store
            .read(move |reader| {
                let mut pages = Vec::with_capacity(wanted.len());
                for (class, after) in wanted {
                    let events = reader.class_events_after(class, after, PAGE)?;
                    let rows = events
                        .iter()
                        .map(|logged| row(logged, &topics, &source))
                        .collect::<Result<_, _>>()?;
                    pages.push(Page { class, after, rows });
                }
                Ok(pages)
            })
            .await
    }

    /// Notes a delivered position; it is committed by [`Drain::commit`]. Returns how many events that are.
    pub(super) fn note(&mut self, class: Class, to: ClassCursor) -> u64 {
        let noted = self.noted.entry(class).or_insert(to);
        *noted = (*noted).max(to);
        self.noted_since.get_or_insert_with(Instant::now);
        match self.counted.insert(class, to) {
            Some(before) if before.epoch_no == to.epoch_no => {
                to.class_sequence.0.saturating_sub(before.class_sequence.0)
            }
            // A new epoch counts from one.
            _ => to.class_sequence.0,
        }
    }

    /// When noted positions are due.
    pub(super) fn due(&self, every: Duration) -> Option<Instant> {
        self.noted_since.map(|since| since + every)
    }

    /// Commits the noted positions. They stay noted when the commit fails.
    pub(super) async fn commit(&mut self) -> Result<(), StoreError> {
        if self.noted.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::new();
        for (class, to) in &self.noted {
            batch = batch.op(Op::Outbox(OutboxOp::Delivered { class: *class, to: *to }));
        }
        self.store.commit(batch).await?;
        self.noted.clear();
        self.noted_since = None;
        Ok(())
    }

    /// Rows the broker will never take: aside, with the gap told and the position past them, in one
    /// batch. Gives the sequence of the first.
    pub(super) async fn set_aside(
        &mut self,
        class: Class,
        rows: &[(Offset, ClassCursor)],
        reason: &str,
    ) -> Result<Option<u64>, StoreError> {
        let offsets: Vec<Offset> = rows.iter().map(|(offset, _)| *offset).collect();
        let events = self
            .store
            .read(move |reader| {
                offsets
                    .iter()
                    .filter_map(|at| reader.event_at(*at).transpose())
                    .collect::<Result<Vec<_>, _>>()
            })
            .await?;
        let mut batch = Batch::new();
        for logged in &events {
            let envelope = envelope(logged, &self.source)?;
            batch = batch.op(Op::Outbox(OutboxOp::SetAside {
                offset: logged.offset,
                reason: reason.to_owned(),
                envelope: String::from_utf8_lossy(&envelope).into_owned(),
            }));
        }
        if let Some((_, to)) = rows.last() {
            batch = batch.op(Op::Outbox(OutboxOp::Delivered { class, to: *to }));
        }
        for event in self.gaps(class, &events)? {
            batch = batch.event(event);
        }
        self.store.commit(batch).await?;
        self.noted.remove(&class);
        if let Some((_, to)) = rows.last() {
            // Passed, but not delivered.
            self.counted.insert(class, *to);
        }
        metrics::counter!("baygate_uplink_set_aside_total", "class" => class.as_str())
            .increment(u64::try_from(events.len()).unwrap_or(0));
        Ok(events.first().map(|logged| logged.event.sequence.0))
    }

    /// One gap an epoch. A rejected gap makes no gap of its own: that would never end.
    fn gaps(&self, class: Class, events: &[LoggedEvent]) -> Result<Vec<NewEvent>, StoreError> {
        let running = self.head.borrow().epoch;
        let told = events.iter().filter(|logged| &*logged.event.kind != GatewayGap::TYPE);
        let mut stretches: Vec<(Epoch, Seq, Seq, u64)> = Vec::new();
        for logged in told {
            let (epoch, at) = (logged.event.epoch, logged.event.class_sequence);
            match stretches.last_mut().filter(|stretch| stretch.0 == epoch) {
                Some(stretch) => (stretch.2, stretch.3) = (at, stretch.3 + 1),
                None => stretches.push((epoch, at, at, 1)),
            }
        }
        stretches
            .into_iter()
            .map(|(epoch, from, to, count)| {
                let gap_epoch = (epoch != running).then_some(epoch);
                let gap = GatewayGap { class, from, to, count, reason: GapReason::Rejected, gap_epoch };
                NewEvent::now(format!("gateway/{}", self.source.gateway), &gap)
                    .map_err(|error| StoreError::Corrupt(error.to_string()))
            })
            .collect()
    }

    /// Where we stand, for judging headquarters' words.
    pub(super) async fn ours(&self) -> Result<Ours, StoreError> {
        let epoch = self.head.borrow().epoch;
        Ok(Ours { epoch, last: self.store.read(|reader| reader.last_sequences()).await? })
    }

    /// The number of an epoch in this file.
    pub(super) async fn epoch_no(&self, epoch: Epoch) -> Result<Option<i64>, StoreError> {
        self.store.read(move |reader| reader.epoch_no(epoch)).await
    }

    /// Where the classes ended in an epoch that is over.
    pub(super) async fn epoch_ends(&self, epoch_no: i64) -> Result<Vec<(Class, Seq)>, StoreError> {
        self.store.read(move |reader| reader.epoch_ends(epoch_no)).await
    }

    /// Headquarters knows positions ahead of ours: none of ours may be used twice.
    pub(super) async fn begin_epoch(&mut self) -> Result<(), StoreError> {
        self.store
            .commit(Batch::new().op(Op::Outbox(OutboxOp::BeginEpoch { reason: EpochReason::Ahead })))
            .await?;
        Ok(())
    }
}

fn envelope(logged: &LoggedEvent, source: &Source) -> Result<Vec<u8>, StoreError> {
    logged.event.to_cloudevent(source).map_err(|error| StoreError::Corrupt(error.to_string()))
}

fn row(logged: &LoggedEvent, topics: &Topics, source: &Source) -> Result<Row<Packet>, StoreError> {
    let packet = Packet {
        topic: topics.event(logged.event.class, &logged.event.kind),
        payload: Bytes::from(envelope(logged, source)?),
        retain: false,
    };
    Ok(Row {
        class: logged.event.class,
        cursor: logged.cursor,
        offset: logged.offset,
        bytes: packet.bytes(),
        load: packet,
    })
}
