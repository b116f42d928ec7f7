//! What is done to the store, step by step. Every id is fixed, so that the player
//! that does it and the judge who looks at what is left speak of the same things.

use std::path::Path;

use baygate::clock::{TimeQuality, UtcMillis};
use baygate::event::card::Technology;
use baygate::event::device::{DeviceKind, DeviceState, DeviceStatus, PrintState};
use baygate::event::gateway::EpochReason;
use baygate::event::maintenance::{Confidence, MaintenanceWarning, Severity};
use baygate::event::vehicle::DepartureReason;
use baygate::event::{Class, NewEvent, Source, Text};
use baygate::ident::Seq;
use baygate::store::commands::CommandOp;
use baygate::store::cursors::CursorOp;
use baygate::store::devices::{CardInField, DeviceOp};
use baygate::store::jobs::JobOp;
use baygate::store::outbox::{ClassCursor, OutboxOp};
use baygate::store::requests::{NewRequest, RequestOp, RequestState};
use baygate::store::tokens::TokenOp;
use baygate::store::visits::VisitOp;
use baygate::store::warnings::WarningOp;
use baygate::store::{Batch, ClassLimit, Offset, Op, StoreOptions};
use serde_json::json;
use serde_json::value::RawValue;
use uuid::Uuid;

/// Telemetry of the stories may weigh this much.
const TELEMETRY_KEPT: u64 = 20_000;
/// 2026-09-21: before any run.
pub const THEN: UtcMillis = UtcMillis(1_790_000_000_000);
/// Ids of the prepared folder begin here, those of the steps below.
pub const PREPARED: u128 = 10_000;

pub fn options(dir: &Path) -> StoreOptions {
    let kept = ClassLimit { keep_bytes: None, keep_delivered_ms: i64::MAX };
    let mut limits: Vec<(Class, ClassLimit)> = Class::ALL.map(|class| (class, kept)).to_vec();
    limits[6].1.keep_bytes = Some(TELEMETRY_KEPT);
    StoreOptions {
        data_dir: dir.to_owned(),
        source: Source { store: "SH-0042".parse().unwrap(), gateway: "gw-1".parse().unwrap() },
        machine_id: None,
        max_bytes: 16 << 20,
        limits,
    }
}

/// The limits of the sweep: what is delivered goes at once.
pub fn sweeping(dir: &Path) -> Vec<(Class, ClassLimit)> {
    let mut limits = options(dir).limits;
    limits.iter_mut().for_each(|(_, limit)| limit.keep_delivered_ms = 0);
    limits
}

pub fn id(number: u128) -> Uuid {
    Uuid::from_u128((0x0192_0000_0000_7000_8000_u128 << 48) | number)
}

/// An event with about `bytes` bytes of data.
pub fn event(number: u128, class: Class, bytes: usize) -> NewEvent {
    NewEvent {
        id: id(number),
        kind: "device.state",
        class,
        subject: "reader/r".into(),
        time: THEN,
        time_quality: TimeQuality::Synced,
        data: RawValue::from_string(format!(r#"{{"note":"{}"}}"#, "x".repeat(bytes))).unwrap(),
    }
}

/// What a batch must be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    Kept,
    Replayed(Uuid),
    KeyConflict,
    NotFound,
}

/// One batch, and how it is seen in the file: each probe counts 0 before it and 1 after it.
#[derive(Debug, Clone)]
pub struct Part {
    pub name: String,
    pub batch: Batch,
    pub probes: Vec<String>,
    pub expect: Expect,
}

impl Part {
    pub fn new(name: &str) -> Self {
        Self { name: name.into(), batch: Batch::new(), probes: Vec::new(), expect: Expect::Kept }
    }

    pub fn event(mut self, event: NewEvent) -> Self {
        self.probes.push(format!("SELECT count(*) FROM event WHERE id = {}", blob(event.id)));
        self.batch = self.batch.event(event);
        self
    }

    pub fn op(mut self, op: Op, probe: impl Into<String>) -> Self {
        self.probes.push(probe.into());
        self.batch = self.batch.op(op);
        self
    }

    fn patient(mut self) -> Self {
        self.batch.patient = true;
        self
    }

    fn expect(mut self, expect: Expect) -> Self {
        self.expect = expect;
        self
    }
}

/// What happens, one after the other.
#[derive(Debug, Clone)]
pub enum Step {
    /// Committed together, answered together: all but the last are patient.
    Commit(Vec<Part>),
    /// Waits until this probe counts this much, or a fault was met.
    Await(&'static str, i64),
    /// Lets a settled request grow old, then sweeps.
    Sweep,
    /// Waits until the WAL was cut back, or a fault was met.
    AwaitCutBack,
}

pub fn blob(id: Uuid) -> String {
    format!("x'{}'", hex::encode(id.as_bytes()))
}

pub fn one(part: Part) -> Step {
    Step::Commit(vec![part])
}

fn request(number: u128, body: &str) -> Op {
    Op::Request(RequestOp::Insert(NewRequest {
        id: id(number),
        kind: "vehicle.scan",
        target: "bay-1".into(),
        scope: "till-1".into(),
        idempotency_key: Some("key-1".into()),
        body: json!({ "why": body }),
    }))
}

/// The asking of a request once more, as a till that heard nothing does.
pub fn asked_again() -> Batch {
    Batch::new().op(request(5_000, "intake"))
}

pub fn delivered(class: Class, to: u64) -> (Op, String) {
    let place = Class::ALL.iter().position(|other| *other == class).unwrap();
    let to_cursor = ClassCursor { epoch_no: 1, class_sequence: Seq(to) };
    (
        Op::Outbox(OutboxOp::Delivered { class, to: to_cursor }),
        format!("SELECT count(*) FROM delivered WHERE class = {place} AND class_sequence = {to}"),
    )
}

/// A day at the counter: every kind of write the store has. Begins in [`prepared`].
pub fn day() -> Vec<Step> {
    let visit = id(100);
    let (link, reader, printer) = ("bay-1", "counter-1", "face-1");
    let row = |table: &str, id: Uuid, more: &str| {
        format!("SELECT count(*) FROM {table} WHERE id = {} {more}", blob(id))
    };
    let card = CardInField {
        reader: reader.parse().unwrap(),
        uid: "04A1B2C3".parse().unwrap(),
        technology: Technology::Ntag213,
        atr: None,
        since: THEN,
    };
    let warning = MaintenanceWarning {
        visit,
        vin: None,
        order: None,
        link: link.parse().unwrap(),
        warning_id: id(101),
        rule: "battery".into(),
        rule_version: 1,
        severity: Severity::Soon,
        title: Text::new("电瓶", "battery"),
        advice: Text::new("检查", "check"),
        evidence: Vec::new(),
        confidence: Confidence::Measured,
        parts: None,
        first_seen: THEN,
    };
    let degraded = DeviceState { state: DeviceStatus::Degraded, reason: Some("slow".into()), detail: None };
    let printed =
        |state| Op::Job(JobOp::State { job: id(102), state, error: None, output: None, attempt: true });
    let queued = JobOp::Queue {
        job: id(102),
        printer: printer.parse().unwrap(),
        card_no: None,
        template: "member-face.svg".into(),
        fields: json!({}),
    };
    let settle = RequestOp::Settle { id: id(1), state: RequestState::Done, outcome: json!({"ok": true}) };
    let token = TokenOp::Create {
        id: id(104),
        name: "till".into(),
        sha256: [7; 32],
        scopes: vec!["read".into()],
        till: None,
    };
    let (card_to, card_seen) = delivered(Class::Card, 4);
    let (signals_to, signals_seen) = delivered(Class::Telemetry, 5);
    let aside = OutboxOp::SetAside { offset: Offset(3), reason: "0x99".into(), envelope: "{}".into() };
    let report = VisitOp::Report { visit, vin: None, report: RawValue::from_string("{}".into()).unwrap() };
    let seen = CursorOp::Advance { name: "maintenance", to: Offset(20) };
    let vehicle = |number, bytes| event(number, Class::Vehicle, bytes);
    let signals = |number, bytes| {
        one(Part::new(&format!("signals-{number}")).event(event(number, Class::Telemetry, bytes)))
    };
    const GAPS: &str = "SELECT count(*) FROM event WHERE kind = 'gateway.gap'";
    let mut steps = vec![
        one(Part::new("tap")
            .op(Op::Device(DeviceOp::CardPresent(card)), "SELECT count(*) FROM card_in_field")
            .event(event(10, Class::Card, 100))),
        one(Part::new("arrive")
            .op(
                Op::Visit(VisitOp::Open {
                    visit,
                    link: link.parse().unwrap(),
                    vin: None,
                    protocol: "j1939".into(),
                }),
                row("visit", visit, ""),
            )
            .event(vehicle(11, 100))),
        // An event over several pages.
        one(Part::new("report")
            .op(Op::Visit(report), row("visit", visit, "AND report IS NOT NULL"))
            .event(vehicle(12, 9000))),
        Step::Commit(vec![
            Part::new("group-card")
                .op(
                    Op::Cursor(CursorOp::Advance { name: "till", to: Offset(20) }),
                    "SELECT count(*) FROM cursor WHERE name = 'till'",
                )
                .event(event(13, Class::Card, 50))
                .event(event(14, Class::Gateway, 50))
                .patient(),
            Part::new("group-refused")
                .event(event(15, Class::Card, 50))
                .op(Op::Job(JobOp::Cancel { job: id(999) }), "SELECT 0")
                .expect(Expect::NotFound)
                .patient(),
            Part::new("group-ledger").event(event(16, Class::Ledger, 200)),
        ]),
        one(Part::new("ask").op(request(1, "intake"), row("request", id(1), "")).op(
            Op::Command(CommandOp::Receive { id: id(103), name: "scan".into(), body_sha256: [1; 32] }),
            row("command", id(103), ""),
        )),
        one(Part::new("ask-again").op(request(2, "intake"), "SELECT 0").expect(Expect::Replayed(id(1)))),
        one(Part::new("ask-other").op(request(3, "delivery"), "SELECT 0").expect(Expect::KeyConflict)),
        one(Part::new("take").op(
            Op::Request(RequestOp::Start { id: id(1) }),
            row("request", id(1), "AND state IN ('running', 'done')"),
        )),
        one(Part::new("settle")
            .op(Op::Request(settle), row("request", id(1), "AND state = 'done'"))
            .event(vehicle(17, 100))),
        one(Part::new("warn")
            .op(
                Op::Warning(WarningOp::Raise { car: format!("visit/{visit}"), warning: Box::new(warning) }),
                row("warning", id(101), ""),
            )
            .op(Op::Cursor(seen), "SELECT count(*) FROM cursor WHERE name = 'maintenance'")
            .event(event(18, Class::Maintenance, 100))),
        one(Part::new("queue").op(Op::Job(queued), row("print_job", id(102), "")).event(event(
            19,
            Class::Device,
            100,
        ))),
        one(Part::new("print")
            .op(printed(PrintState::Done), row("print_job", id(102), "AND state = 'done'"))
            .event(event(20, Class::Device, 100))),
        one(Part::new("depart")
            .op(
                Op::Visit(VisitOp::Close { visit, reason: DepartureReason::Unplugged }),
                row("visit", visit, "AND ended_at IS NOT NULL"),
            )
            .op(
                Op::Device(DeviceOp::State {
                    kind: DeviceKind::Link,
                    id: link.parse().unwrap(),
                    state: degraded,
                }),
                "SELECT count(*) FROM device",
            )
            .event(vehicle(21, 100))),
    ];
    steps.extend(super::counter::counter());
    steps.extend([
        // Over the limit: the oldest go, and a gap is told.
        signals(22, 1500),
        Step::Await(GAPS, 1),
        signals(23, 3000),
        Step::Await(GAPS, 2),
        one(Part::new("aside").op(Op::Outbox(aside), "SELECT count(*) FROM quarantine").event(event(
            24,
            Class::Gateway,
            100,
        ))),
        one(Part::new("delivered").op(card_to, card_seen).op(signals_to, signals_seen)),
        Step::Sweep,
        one(Part::new("ahead")
            .op(
                Op::Outbox(OutboxOp::BeginEpoch { reason: EpochReason::Ahead }),
                "SELECT count(*) FROM epoch WHERE reason = 'ahead'",
            )
            .event(event(25, Class::Gateway, 50))),
        one(Part::new("token").op(Op::Token(token), row("token", id(104), "")).event(event(
            26,
            Class::Ledger,
            50,
        ))),
    ]);
    steps
}

/// Of a day what a salvage has to bring back: page by page, or by SQL alone.
pub fn salvageable() -> Vec<Part> {
    const PARTS: [&str; 9] = [
        "give-out",
        "intent",
        "outcome",
        "open-till",
        "card-lost",
        "list-member",
        "aside",
        "delivered",
        "token",
    ];
    let parts: Vec<Part> =
        parts(&day()).filter(|part| PARTS.contains(&part.name.as_str())).cloned().collect();
    assert_eq!(parts.len(), PARTS.len());
    parts
}

/// What surrounds a checkpoint: facts before and after.
pub fn checkpoints() -> Vec<Step> {
    let fact = |number| one(Part::new(&format!("fact-{number}")).event(event(number, Class::Card, 3000)));
    vec![fact(10), Step::AwaitCutBack, fact(11), fact(12)]
}

/// The first fact of a store that was just opened.
pub fn first() -> Vec<Step> {
    vec![one(Part::new("first").event(event(10, Class::Card, 100)))]
}

/// All batches of a story.
pub fn parts(story: &[Step]) -> impl Iterator<Item = &Part> {
    story.iter().flat_map(|step| match step {
        Step::Commit(parts) => parts.as_slice(),
        _ => &[],
    })
}

/// Fills a folder: seven cards, telemetry just below its limit, a request that was settled.
/// What tells the file from its copies is taken out: the runs begin with copies.
pub async fn prepared(dir: &Path) {
    let (store, _) = baygate::store::Store::open(&options(dir)).unwrap();
    for number in 0..7 {
        store.commit(Batch::new().event(event(PREPARED + number, Class::Card, 300))).await.unwrap();
    }
    for number in 7..18 {
        store.commit(Batch::new().event(event(PREPARED + number, Class::Telemetry, 1600))).await.unwrap();
    }
    let mut asked = request(PREPARED, "before");
    if let Op::Request(RequestOp::Insert(new)) = &mut asked {
        new.idempotency_key = None;
    }
    store.commit(Batch::new().op(asked)).await.unwrap();
    let settled = RequestOp::Settle { id: id(PREPARED), state: RequestState::Done, outcome: json!({}) };
    store.commit(Batch::new().op(Op::Request(settled))).await.unwrap();
    store.close().await;
    let conn = rusqlite::Connection::open(dir.join("baygate.db")).unwrap();
    conn.execute("DELETE FROM meta WHERE key = 'file_birth'", []).unwrap();
}
