//! The uplink's dealings with the log: pages of rows ready to send, delivered
//! positions (committed in groups, because each commit is a sync of the disk),
//! and rows set aside. Pages are read and positions committed beside the loop:
//! publishes go out meanwhile.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::notes::Notes;
use super::pipe::Packet;
use super::session::{PAGE, Row};
use super::topics::Topics;
use super::word::Ours;
use crate::event::gateway::{EpochReason, GapReason, GatewayGap};
use crate::event::{Class, EventData, NewEvent, Source};
use crate::ident::{Epoch, Seq};
use crate::store::outbox::{ClassCursor, LoggedEvent, OutboxOp};
use crate::store::{Batch, Head, Offset, Op, Reader, Store, StoreError};

/// A page that was asked for.
pub(super) struct Page {
    pub class: Class,
    pub after: ClassCursor,
    pub rows: Vec<Row<Packet>>,
}

/// Pages on their way.
pub(super) type Reading = Pin<Box<dyn Future<Output = Result<Vec<Page>, StoreError>> + Send>>;

/// Positions on their way to the disk.
struct Committing {
    positions: Vec<(Class, ClassCursor)>,
    end: JoinHandle<Result<(), StoreError>>,
}

fn delivered(positions: &[(Class, ClassCursor)]) -> Batch {
    let ops = positions.iter().map(|&(class, to)| Op::Outbox(OutboxOp::Delivered { class, to }));
    Batch { ops: ops.collect(), ..Batch::default() }
}

/// The log, as the uplink uses it.
pub(super) struct Drain {
    store: Store,
    source: Source,
    topics: Topics,
    head: watch::Receiver<Head>,
    notes: Notes,
    committing: Option<Committing>,
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
            notes: Notes::default(),
            committing: None,
            counted: BTreeMap::new(),
        }
    }

    /// The last row now.
    pub(super) fn last(&self) -> Offset {
        self.head.borrow().last
    }

    /// How far each class is delivered, as committed or noted.
    pub(super) async fn delivered(&mut self) -> Result<Vec<(Class, ClassCursor)>, StoreError> {
        let mut delivered: Vec<(Class, ClassCursor)> = self
            .store
            .read(|reader| {
                Class::ALL.into_iter().map(|class| Ok((class, reader.delivered(class)?))).collect()
            })
            .await?;
        self.notes.overlay(&mut delivered);
        for (class, at) in &delivered {
            self.counted.entry(*class).or_insert(*at);
        }
        Ok(delivered)
    }

    /// Reads pages, encoded and ready to send.
    ///
    /// A class with damage in the way stands still until the next start has salvaged the
    /// file; the others go on.
    pub(super) fn read(&self, wanted: Vec<(Class, ClassCursor)>) -> Reading {
        let (store, topics, source) = (self.store.clone(), self.topics.clone(), self.source.clone());
        store.note_shown();
        Box::pin(async move {
            let read = move |reader: &Reader<'_>| {
                let (mut pages, mut damage) = (Vec::with_capacity(wanted.len()), None);
                for (class, after) in wanted {
                    let events = match reader.class_events_after(class, after, PAGE) {
                        Err(error) if error.is_damage() => {
                            damage = Some(error);
                            Vec::new()
                        }
                        read => read?,
                    };
                    pages.push(Page { class, after, rows: rows(&events, &topics, &source)? });
                }
                Ok((pages, damage))
            };
            let (pages, damage) = store.read(read).await?;
            if let Some(error) = damage {
                store.note_damage(&error);
            }
            Ok(pages)
        })
    }

    /// Notes a delivered position; it is committed by [`Drain::commit`]. Returns how many events that are.
    pub(super) fn note(&mut self, class: Class, to: ClassCursor) -> u64 {
        self.notes.note(class, to, Instant::now());
        match self.counted.insert(class, to) {
            Some(before) if before.epoch_no == to.epoch_no => {
                to.class_sequence.0.saturating_sub(before.class_sequence.0)
            }
            // The first of an epoch.
            _ => to.class_sequence.0,
        }
    }

    /// When noted positions are due; not while others are on their way.
    pub(super) fn due(&self, every: Duration) -> Option<Instant> {
        if self.committing.is_some() { None } else { self.notes.due(every) }
    }

    /// Sets about committing the noted positions, unless that is under way;
    /// [`Drain::committed`] tells the end.
    pub(super) fn begin_commit(&mut self) {
        let positions: Vec<_> = self.notes.positions().collect();
        if positions.is_empty() || self.committing.is_some() {
            return;
        }
        let (store, batch) = (self.store.clone(), delivered(&positions));
        let end = tokio::spawn(async move { store.commit(batch).await.map(|_| ()) });
        self.committing = Some(Committing { positions, end });
        self.notes.sent();
    }

    /// The end of a commit that was begun; never when there is none. Safe to cancel.
    pub(super) async fn committed(&mut self) -> Result<(), StoreError> {
        let result = match &mut self.committing {
            Some(committing) => (&mut committing.end).await.unwrap_or(Err(StoreError::Closed)),
            None => std::future::pending().await,
        };
        for (class, to) in self.committing.take().map(|committing| committing.positions).unwrap_or_default() {
            if result.is_ok() {
                self.notes.passed(class, to);
            }
        }
        if result.is_err() {
            self.notes.again(Instant::now());
        }
        result
    }

    /// Commits the noted positions. They stay noted when the commit fails.
    pub(super) async fn commit(&mut self) -> Result<(), StoreError> {
        // One that is under way may not tell any more: the same positions once more do no harm.
        self.committing = None;
        let positions: Vec<_> = self.notes.positions().collect();
        if positions.is_empty() {
            return Ok(());
        }
        self.store.commit(delivered(&positions)).await?;
        self.notes.committed();
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
        if let Some((_, to)) = rows.last() {
            self.notes.passed(class, *to);
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

    /// Which list of stopped cards is here.
    pub(super) async fn hotlist_version(&self) -> Result<Option<String>, StoreError> {
        let here = self.store.read(|reader| reader.hotlist()).await?;
        Ok(here.map(|here| here.version.to_string()))
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
        let reason = EpochReason::Ahead;
        let begin = if self.store.has_shown() {
            OutboxOp::BeginEpoch { reason }
        } else {
            OutboxOp::BeginEpochWithRun { reason }
        };
        self.store.commit(Batch::new().op(Op::Outbox(begin))).await?;
        Ok(())
    }
}

fn envelope(logged: &LoggedEvent, source: &Source) -> Result<Vec<u8>, StoreError> {
    logged.event.to_cloudevent(source).map_err(|error| StoreError::Corrupt(error.to_string()))
}

/// Ready to send. Neighbours are often of one type, and then share the text of their topic.
fn rows(events: &[LoggedEvent], topics: &Topics, source: &Source) -> Result<Vec<Row<Packet>>, StoreError> {
    let mut before: Option<(&LoggedEvent, Arc<str>)> = None;
    let mut rows = Vec::with_capacity(events.len());
    for logged in events {
        let event = &logged.event;
        let topic = match &before {
            Some((same, topic)) if same.event.class == event.class && same.event.kind == event.kind => {
                Arc::clone(topic)
            }
            _ => topics.event(event.class, &event.kind),
        };
        before = Some((logged, Arc::clone(&topic)));
        let load = Packet { topic, payload: Bytes::from(envelope(logged, source)?), retain: false };
        rows.push(Row {
            class: event.class,
            cursor: logged.cursor,
            offset: logged.offset,
            bytes: load.bytes(),
            load,
        });
    }
    Ok(rows)
}
