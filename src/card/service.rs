//! A reader as a service: what its driver reports becomes committed facts. What
//! lives here: the events and the state beside them. What does not: readers.
//!
//! Several PC/SC readers may match one table: every one serves, all speak as the
//! table's id, and the row of the card in the field shows the card that came last
//! among those still there.
//!
//! After a restart the row tells which card was last said to be in the field. The
//! first card identified settles it: the same UID is not told again; another one
//! is told after the `card.removed` of the first. An empty field, or a reader
//! that is gone, ends it with `card.removed`.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant as Moment, sleep_until};
use tokio_util::sync::CancellationToken;

use super::counter::{Desk, InField, Looked, Shop, Shows, Signs};
use super::feedback::Sign;
use super::member::{Members, told};
use super::record::{Current, MemberRecord, Which};
use super::report::{Condition, Report, Reports};
use super::verdict::{CardIdentity, Refusal, Standing};
use super::work::Errand;
use super::{CardError, em4100, pcsc, pn532, stops, tap, vpcd, wedge};
use crate::clock::UtcMillis;
use crate::config::tables::{ReaderKind, ReaderRole, ReaderTable};
use crate::event::card::{CardRefused, CardRemoved, CardTapped, Technology};
use crate::event::device::{DeviceKind, DeviceStatus};
use crate::event::{NewEvent, Text};
use crate::health::{Health, Trouble};
use crate::ident::{CardUid, DeviceId};
use crate::store::devices::{CardInField, DeviceLog, DeviceOp};
use crate::store::{Batch, Op, Store, StoreError};

/// The health part under which hung PC/SC threads of the whole process are reported.
const THREADS_PART: &str = "pcsc-threads";

/// Serves one `[[reader]]` table until `stop`. Readers that are missing, return,
/// hang or err are its own affair; it ends early only when the log fails. Without
/// `members` its cards are identified and no more; with them, what is asked of the card in the
/// field is done by the rules of `shop`.
///
/// # Errors
/// [`CardError`]; starting it again is safe at any time.
pub async fn serve_reader(
    table: ReaderTable,
    till: Option<DeviceId>,
    members: Option<Arc<Members>>,
    shop: watch::Receiver<Arc<Shop>>,
    store: Store,
    health: Health,
    stop: CancellationToken,
) -> Result<(), CardError> {
    let (sender, reports) = mpsc::channel(64);
    let (errands, taken) = mpsc::channel(1);
    let signs = Signs::new(table.feedback, errands);
    let desk = Desk::new(table.id.clone(), store.clone(), members.clone(), shop, health.clone(), signs);
    let counter = Counter::open(&table, till, store, health, desk).await?;
    let driver = drive(table, members, Reports(sender), taken, stop);
    tokio::try_join!(driver, counter.tell_all(reports))?;
    Ok(())
}

/// The driver of a table's kind, until `stop`.
pub(super) async fn drive(
    table: ReaderTable,
    members: Option<Arc<Members>>,
    reports: Reports,
    errands: mpsc::Receiver<Errand>,
    stop: CancellationToken,
) -> Result<(), CardError> {
    let lacking = |key| CardError::Table { id: table.id.to_string(), key };
    match table.kind {
        ReaderKind::Pcsc => {
            let glob = table.name.clone().ok_or_else(|| lacking("name"))?;
            pcsc::drive(glob, (table.role, &table.globs), members, reports, errands, stop).await
        }
        ReaderKind::Vpcd => {
            let listen = table.listen.ok_or_else(|| lacking("listen"))?;
            if table.role == ReaderRole::Sam {
                return Err(lacking("role = \"card\""));
            }
            vpcd::drive(table.id.clone(), listen, members, reports, errands, stop).await
        }
        ReaderKind::Pn532 => {
            let link = table.link.clone().ok_or_else(|| lacking("link"))?;
            pn532::drive(link.0, members, reports, errands, stop).await
        }
        ReaderKind::Em4100 => {
            let link = table.link.clone().ok_or_else(|| lacking("link"))?;
            em4100::drive(link.0, reports, stop).await
        }
        ReaderKind::Wedge => {
            let device = table.device.clone().ok_or_else(|| lacking("device"))?;
            let technology = table.technology.unwrap_or_default();
            wedge::drive(table.id.clone(), device, technology, reports, stop).await
        }
    }
}

/// Writes what happens at one reader into the log.
struct Counter {
    reader: DeviceId,
    till: Option<DeviceId>,
    store: Store,
    health: Health,
    device: DeviceLog,
    /// Cards told and not yet removed, by slot, the latest last.
    cards: Vec<(String, CardInField)>,
    /// The same cards, as the desk works with them.
    field: Vec<InField>,
    desk: Desk,
    /// The row an earlier run left behind.
    left_over: Option<CardInField>,
}

impl Counter {
    async fn open(
        table: &ReaderTable,
        till: Option<DeviceId>,
        store: Store,
        health: Health,
        desk: Desk,
    ) -> Result<Self, CardError> {
        let reader = table.id.clone();
        let rows = store.read(|log| log.cards_in_field()).await?;
        let left_over = rows.into_iter().find(|row| row.reader == reader);
        let mut device = DeviceLog::new(store.clone(), DeviceKind::Reader, reader.clone());
        device.set(DeviceStatus::Starting, None, None).await?;
        let (cards, field) = (Vec::new(), Vec::new());
        Ok(Self { reader, till, store, health, device, cards, field, desk, left_over })
    }

    /// Ends when the driver does, or the store.
    async fn tell_all(mut self, mut reports: mpsc::Receiver<Report>) -> Result<(), CardError> {
        /// When nobody waits for a card.
        const LONG: std::time::Duration = std::time::Duration::from_secs(3600);
        let mut head = self.store.head();
        loop {
            head.borrow_and_update();
            // What the reader saw comes first: a request is done with the card that is there.
            if let Ok(report) = reports.try_recv() {
                self.tell(report).await?;
                continue;
            }
            self.serve().await?;
            let end = self.desk.next_end().unwrap_or_else(|| Moment::now() + LONG);
            tokio::select! {
                report = reports.recv() => match report {
                    Some(report) => self.tell(report).await?,
                    None => break,
                },
                changed = head.changed() => if changed.is_err() { break },
                () = sleep_until(end) => {}
            }
        }
        self.health.well(&self.part());
        Ok(())
    }

    async fn tell(&mut self, report: Report) -> Result<(), CardError> {
        match report {
            Report::Tapped { slot, card, seen } => self.tapped(slot, card, seen).await,
            Report::Removed { slot } => self.removed(&slot).await,
            Report::Refused(refusal) => self.refused(refusal).await,
            Report::AllEmpty => self.settle(Batch::new()).await,
            Report::State(condition) => self.state(condition).await,
        }
    }

    async fn tapped(&mut self, slot: String, card: CardIdentity, seen: Instant) -> Result<(), CardError> {
        let CardIdentity { uid, technology, atr, code, standing, opened } = self.sure(&slot, card).await?;
        let standing = stops::judged(&self.store, self.desk.shop().timezone.clone(), standing).await?;
        // A card that cannot be read now, or not here, tells nothing of what was open on it.
        let tells =
            opened.is_some() || matches!(&standing, Standing::Refused(why) if why.proves_unfinished());
        let looked =
            if tells { self.look(&uid, technology, opened.as_deref()).await? } else { Looked::default() };
        let Looked { batch: ledger, held } = looked;
        // Also at the tap that raises the alarm.
        let standing = stops::or_held(standing, held);
        let shows = Shows::of(&standing, opened.as_deref());
        let in_field = InField { slot: slot.clone(), uid: uid.clone(), technology, shows, seen };
        let row = CardInField {
            reader: self.reader.clone(),
            uid: uid.clone(),
            technology,
            atr: atr.clone(),
            since: UtcMillis::now(),
        };
        if let Some(same) = self.left_over.take_if(|left| left.uid == uid) {
            tracing::info!(reader = %self.reader, "card still in the field since before the restart");
            self.commit_tap(ledger, Batch::new()).await?;
            self.cards.push((slot, same));
            self.field.push(in_field);
            return Ok(());
        }
        let latency = seen.elapsed();
        let subject = subject(&uid);
        let (event, refused) = match standing {
            Standing::Refused(refusal) => {
                (NewEvent::now(subject, &self.refusal(refusal, Some(uid)))?, Some(refusal.code()))
            }
            standing => {
                let data = CardTapped {
                    reader: self.reader.clone(),
                    till: self.till.clone(),
                    uid,
                    technology,
                    atr,
                    code,
                    member: match standing {
                        Standing::Member(member) => Some(*member),
                        Standing::Identified | Standing::Refused(_) => None,
                    },
                    latency_ms: u64::try_from(latency.as_millis()).unwrap_or(u64::MAX),
                };
                (NewEvent::now(subject, &data)?, None)
            }
        };
        let mut batch = Batch::new();
        if let Some(other) = self.left_over.take() {
            batch = batch.event(self.removal(other.uid)?);
        }
        let batch = batch.op(Op::Device(DeviceOp::CardPresent(row.clone()))).event(event);
        self.commit_tap(ledger, batch).await?;
        tracing::debug!(reader = %self.reader, uid = %row.uid, "card in the field");
        self.desk.show(&slot, if refused.is_some() { Sign::Refused } else { Sign::Accepted });
        self.cards.push((slot, row));
        self.field.push(in_field);
        metrics::histogram!("baygate_card_tap_seconds").record(latency);
        match refused {
            Some(reason) => {
                self.count("baygate_card_refusals_total");
                tracing::info!(reader = %self.reader, ?technology, reason, "card refused");
            }
            None => {
                self.count("baygate_card_taps_total");
                tracing::info!(reader = %self.reader, ?technology, latency_ms = latency.as_millis(), "card tapped");
            }
        }
        Ok(())
    }

    /// A card on which an issue was begun is not taken for an unfinished one because of one
    /// reading that failed.
    async fn sure(&self, slot: &str, card: CardIdentity) -> Result<CardIdentity, CardError> {
        if !matches!(card.standing, Standing::Refused(refusal) if refusal.proves_unfinished()) {
            return Ok(card);
        }
        Ok(match self.desk.doubted(slot, &card.uid, card.technology).await? {
            Some(found) => tap::judged(card, found, self.desk.members.as_deref()),
            None => card,
        })
    }

    /// Does what is asked. A card that was issued meanwhile is told as the member's that it is now.
    async fn serve(&mut self) -> Result<(), CardError> {
        let before: Vec<Shows> = self.field.iter().map(|card| card.shows.clone()).collect();
        self.desk.serve(&mut self.field).await?;
        for (card, before) in self.field.iter().zip(before) {
            let (Shows::Refused(_) | Shows::Expired(_) | Shows::Doubt, Shows::Record(record)) =
                (before, &card.shows)
            else {
                continue;
            };
            let record = (**record).clone();
            let member = told(&Current { record, slot: Which::A, before: None, torn: false });
            let member = stops::greeted(&self.store, self.desk.shop().timezone.clone(), member).await?;
            let data = CardTapped {
                reader: self.reader.clone(),
                till: self.till.clone(),
                uid: card.uid.clone(),
                technology: card.technology,
                atr: None,
                code: None,
                member: Some(member),
                latency_ms: 0,
            };
            self.store.commit(Batch::new().event(NewEvent::now(subject(&card.uid), &data)?)).await?;
        }
        Ok(())
    }

    /// What a tap tells the ledger. A row that cannot be read holds up no other card.
    async fn look(
        &self,
        uid: &CardUid,
        technology: Technology,
        record: Option<&MemberRecord>,
    ) -> Result<Looked, CardError> {
        match self.desk.look(uid, technology, record).await {
            Ok(looked) => Ok(looked),
            Err(error) if error.is_damage() => {
                self.store.note_damage(&error);
                tracing::error!(reader = %self.reader, %error, "a card's row cannot be read");
                Ok(Looked::default())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Ledger and tap in one commit. Where another reader moved the card on in this moment, the
    /// tap is told all the same: the ledger refuses every write until the card is tapped again.
    async fn commit_tap(&self, ledger: Batch, tap: Batch) -> Result<(), CardError> {
        if ledger.ops.is_empty() && tap.ops.is_empty() {
            return Ok(());
        }
        let both = Batch {
            ops: [ledger.ops, tap.ops.clone()].concat(),
            events: [ledger.events, tap.events.clone()].concat(),
            patient: false,
        };
        match self.store.commit(both).await {
            Err(error @ (StoreError::LedgerRefused { .. } | StoreError::NotFound { .. })) => {
                tracing::warn!(reader = %self.reader, %error, "the ledger did not take a tap");
                if !tap.ops.is_empty() {
                    self.store.commit(tap).await?;
                }
                Ok(())
            }
            committed => Ok(committed.map(drop)?),
        }
    }

    async fn removed(&mut self, slot: &str) -> Result<(), CardError> {
        self.field.retain(|card| card.slot != slot);
        let Some(index) = self.cards.iter().position(|(at, _)| at == slot) else { return Ok(()) };
        let (_, card) = self.cards.remove(index);
        let op = match self.cards.last() {
            Some((_, still_there)) => DeviceOp::CardPresent(still_there.clone()),
            None => DeviceOp::CardGone { reader: self.reader.clone() },
        };
        let batch = Batch::new().op(Op::Device(op)).event(self.removal(card.uid)?);
        self.store.commit(batch).await?;
        tracing::info!(reader = %self.reader, "card removed");
        Ok(())
    }

    async fn refused(&mut self, refusal: Refusal) -> Result<(), CardError> {
        // Without a UID the subject cannot name the card.
        let event = NewEvent::now("card/unknown", &self.refusal(refusal, None))?;
        self.count("baygate_card_refusals_total");
        tracing::info!(reader = %self.reader, reason = refusal.code(), "card refused");
        self.settle(Batch::new().event(event)).await
    }

    /// Ends what an earlier run left behind, with `batch`.
    async fn settle(&mut self, batch: Batch) -> Result<(), CardError> {
        let mut whole = Batch::new();
        if let Some(left) = self.left_over.take() {
            let gone = DeviceOp::CardGone { reader: self.reader.clone() };
            whole = whole.op(Op::Device(gone)).event(self.removal(left.uid)?);
        }
        whole.ops.extend(batch.ops);
        whole.events.extend(batch.events);
        if !whole.events.is_empty() {
            self.store.commit(whole).await?;
        }
        Ok(())
    }

    async fn state(&mut self, condition: Condition) -> Result<(), CardError> {
        let Condition { status, reason, text } = condition;
        let detail = text.as_ref().map(|text| format!("{} / {}", text.zh, text.en));
        match (reason, text) {
            (Some(code), Some(text)) => self.trouble(self.part(), code, text, false),
            _ => self.health.well(&self.part()),
        }
        self.watch_threads();
        self.device.set(status, reason, detail).await?;
        Ok(())
    }

    /// Threads that hang belong to the process, not to a reader.
    fn watch_threads(&self) {
        let hung = pcsc::abandoned_threads();
        if !pcsc::restart_wanted() {
            return self.health.well(THREADS_PART);
        }
        let text = Text::new(
            format!(
                "读卡器驱动中有 {hung} 个线程停止响应。没有写卡时程序会自行重启；请检查读卡器和 USB 线。"
            ),
            format!(
                "{hung} threads hang in reader drivers; the daemon restarts itself when no card is being written; \
                 check the readers and their USB cables"
            ),
        );
        self.trouble(THREADS_PART.into(), "restart-wanted", text, true);
    }

    fn trouble(&self, part: String, code: &str, text: Text, blocks_ready: bool) {
        self.health.trouble(Trouble { part, code: code.to_owned(), text, blocks_ready });
    }

    fn part(&self) -> String {
        DeviceKind::Reader.subject(&self.reader)
    }

    fn removal(&self, uid: CardUid) -> Result<NewEvent, serde_json::Error> {
        NewEvent::now(subject(&uid), &CardRemoved { reader: self.reader.clone(), uid })
    }

    fn refusal(&self, refusal: Refusal, uid: Option<CardUid>) -> CardRefused {
        CardRefused {
            reader: self.reader.clone(),
            uid,
            reason: refusal.code().to_owned(),
            text: refusal.text(),
        }
    }

    fn count(&self, name: &'static str) {
        metrics::counter!(name, "reader" => self.reader.to_string()).increment(1);
    }
}

fn subject(uid: &CardUid) -> String {
    format!("card/{uid}")
}
