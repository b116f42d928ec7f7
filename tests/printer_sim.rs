//! The printer service against the simulated printer, which was written from the
//! maker's manuals without the driver: over a pty with a clerk at it, and over TCP
//! with the cable pulled.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/store.rs"]
mod store;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use baygate::config::tables::{PrinterKind, PrinterTable};
use baygate::event::device::{DeviceKind, DeviceStatus, PrintState};
use baygate::health::Health;
use baygate::printer::bitmap::{Bitmap, Canvas};
use baygate::printer::{Faces, serve_printer};
use baygate::sim::printer::{Face, Fault, PrinterProfile, PrinterSim};
use baygate::store::jobs::JobOp;
use baygate::store::{Batch, Op, Store};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(40);

fn faces() -> Faces {
    Faces::new(&Path::new(env!("CARGO_MANIFEST_DIR")).join("config"))
}

fn fields(points: u32) -> Value {
    json!({"card_no": "8800004200001234", "points": points, "offer": "免费洗车一次", "qr": "8800004200001234"})
}

fn drawn(points: u32) -> Bitmap {
    faces().render("member-face.svg", &fields(points), Canvas::TCP300).unwrap()
}

fn open(dir: &Path, link: &str, stop: &CancellationToken) -> Store {
    let store = store::open_store(dir);
    let table = PrinterTable {
        id: "face-1".parse().unwrap(),
        kind: PrinterKind::StarTcp300,
        link: link.parse().unwrap(),
        reader: None,
        template: "member-face.svg".into(),
    };
    tokio::spawn(serve_printer(table, Arc::new(faces()), store.clone(), Health::default(), stop.clone()));
    store
}

async fn queue(store: &Store, points: u32) -> Uuid {
    let job = Uuid::now_v7();
    let op = JobOp::Queue {
        job,
        printer: "face-1".parse().unwrap(),
        card_no: None,
        template: "member-face.svg".into(),
        fields: fields(points),
    };
    store.commit(Batch::new().op(Op::Job(op))).await.unwrap();
    job
}

async fn until(store: &Store, job: Uuid, state: PrintState) {
    let mut head = store.head();
    let wait = async {
        loop {
            head.mark_unchanged();
            let now = store.read(move |r| r.print_job(job)).await.unwrap().unwrap();
            if now.state == state {
                return;
            }
            assert!(!now.state.is_final(), "{now:?}");
            head.changed().await.unwrap();
        }
    };
    assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "never: {state:?}");
}

async fn until_device(store: &Store, status: DeviceStatus) {
    let mut head = store.head();
    let wait = async {
        loop {
            head.mark_unchanged();
            let devices = store.read(|r| r.devices(DeviceKind::Printer)).await.unwrap();
            if devices.iter().any(|device| device.state.state == status) {
                return;
            }
            head.changed().await.unwrap();
        }
    };
    assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "never: {status:?}");
}

fn assert_is(printed: &Face, face: &Bitmap) {
    for (x, y) in (0..480).flat_map(|x| (0..320).map(move |y| (x, y))) {
        let (dot, expected) = (printed.printed.face.dot(x, y), face.dot(x as u32, y as u32));
        assert_eq!(dot, expected, "dot {x},{y}");
    }
}

#[tokio::test]
async fn faces_come_out_one_after_the_other_with_a_clerk_at_the_printer() {
    let (dir, stop) = (tempfile::tempdir().unwrap(), CancellationToken::new());
    let profile =
        PrinterProfile { folder: Some(dir.path().join("out")), attended: true, ..PrinterProfile::default() };
    let mut sim = PrinterSim::spawn_pty(profile, None).await.unwrap();
    let store = open(&dir.path().join("data"), &format!("serial://{}", sim.path().display()), &stop);
    sim.fault(Fault::Nak(2));
    for points in [888_888, 1, 20] {
        queue(&store, points).await;
    }
    let printed = tokio::time::timeout(PATIENCE, sim.printed(3)).await.unwrap();
    for (face, points) in printed.iter().zip([888_888, 1, 20]) {
        assert_is(face, &drawn(points));
        assert!(face.path.as_ref().unwrap().exists());
    }
    stop.cancel();
}

#[tokio::test]
async fn a_pulled_cable_and_an_open_cover_cost_no_face() {
    let (dir, stop) = (tempfile::tempdir().unwrap(), CancellationToken::new());
    let mut sim =
        PrinterSim::spawn_tcp("127.0.0.1:0".parse().unwrap(), PrinterProfile::default()).await.unwrap();
    let store = open(dir.path(), &format!("tcp://{}", sim.addr().unwrap()), &stop);
    let job = queue(&store, 42).await;
    until(&store, job, PrintState::WaitingCard).await;
    sim.vanish().await;
    until_device(&store, DeviceStatus::Absent).await;
    until(&store, job, PrintState::Queued).await;
    sim.return_().await;
    until(&store, job, PrintState::WaitingCard).await;
    sim.open_cover();
    until_device(&store, DeviceStatus::Degraded).await;
    sim.close_cover();
    until(&store, job, PrintState::WaitingCard).await;
    sim.fault(Fault::Garble);
    // A card that jams comes out and goes in again.
    sim.fault(Fault::Jam);
    assert!(sim.insert_card());
    until(&store, job, PrintState::Done).await;
    let printed = tokio::time::timeout(PATIENCE, sim.printed(1)).await.unwrap();
    assert_eq!(printed.len(), 1);
    assert_is(&printed[0], &drawn(42));
    stop.cancel();
}
