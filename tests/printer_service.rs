//! A print job is brought to its end by the real service over a real TCP
//! connection and a real pty, whatever the printer does in between.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/port.rs"]
mod port;
#[path = "support/store.rs"]
mod store;
mod tcp300_double;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use baygate::config::tables::{PrinterKind, PrinterTable};
use baygate::event::device::{DeviceKind, DeviceState, DeviceStatus, PrintState, PrinterJob};
use baygate::health::Health;
use baygate::printer::bitmap::{Bitmap, Canvas};
use baygate::printer::{Faces, serve_printer};
use baygate::store::jobs::{JobOp, PrintJob};
use baygate::store::{Batch, Offset, Op, Store};
use port::free_port;
use serde_json::{Value, json};
use store::open_store;
use tcp300_double::{Double, Image};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(40);

struct Shop {
    store: Store,
    health: Health,
    stop: CancellationToken,
    service: tokio::task::JoinHandle<()>,
}

fn faces() -> Faces {
    Faces::new(&Path::new(env!("CARGO_MANIFEST_DIR")).join("config"))
}

fn table(kind: PrinterKind, link: &str) -> PrinterTable {
    PrinterTable {
        id: "face-1".parse().unwrap(),
        kind,
        link: link.parse().unwrap(),
        reader: None,
        template: "member-face.svg".into(),
    }
}

fn fields(points: u32) -> Value {
    json!({"card_no": "8800004200001234", "points": points, "offer": "免费洗车一次", "qr": "8800004200001234"})
}

fn spawn(
    table: &PrinterTable,
    store: &Store,
    health: &Health,
    stop: &CancellationToken,
) -> tokio::task::JoinHandle<()> {
    let served = serve_printer(table.clone(), Arc::new(faces()), store.clone(), health.clone(), stop.clone());
    tokio::spawn(async move { served.await.unwrap() })
}

impl Shop {
    fn begin(store: Store, table: PrinterTable) -> Self {
        let (health, stop) = (Health::default(), CancellationToken::new());
        let service = spawn(&table, &store, &health, &stop);
        Self { store, health, stop, service }
    }

    fn open(dir: &Path, link: &str) -> Self {
        Self::begin(open_store(dir), table(PrinterKind::StarTcp300, link))
    }

    async fn queue(&self, fields: Value) -> Uuid {
        queue(&self.store, fields).await
    }

    async fn until(&self, what: &str, job: Uuid, is: impl Fn(&PrintJob) -> bool) -> PrintJob {
        let mut head = self.store.head();
        let found = tokio::time::timeout(PATIENCE, async {
            loop {
                head.mark_unchanged();
                let now = self.store.read(move |r| r.print_job(job)).await.unwrap().unwrap();
                if is(&now) {
                    return now;
                }
                head.changed().await.unwrap();
            }
        });
        match found.await {
            Ok(job) => job,
            Err(_) => panic!("never: {what}: {:?}", self.store.read(move |r| r.print_job(job)).await),
        }
    }

    async fn until_state(&self, job: Uuid, state: PrintState) -> PrintJob {
        self.until(state.as_str(), job, |job| job.state == state).await
    }

    async fn until_device(&self, state: DeviceStatus, reason: Option<&str>) {
        let mut head = self.store.head();
        let found = tokio::time::timeout(PATIENCE, async {
            loop {
                head.mark_unchanged();
                let devices = self.store.read(|r| r.devices(DeviceKind::Printer)).await.unwrap();
                if devices.iter().any(|d| d.state.state == state && d.state.reason.as_deref() == reason) {
                    return;
                }
                head.changed().await.unwrap();
            }
        });
        assert!(found.await.is_ok(), "never: {state:?} {reason:?}");
    }

    async fn told(&self, job: Uuid) -> Vec<PrintState> {
        let events = self.store.read(|r| r.events_after(Offset(0), 1000)).await.unwrap();
        let told = events.iter().filter_map(|logged| logged.event.data_as::<PrinterJob>().ok());
        told.filter(|told| told.job == job).map(|told| told.state).collect()
    }

    async fn end(self) -> Store {
        self.stop.cancel();
        tokio::time::timeout(Duration::from_secs(5), self.service).await.expect("stops within 5 s").unwrap();
        self.store
    }
}

async fn queue(store: &Store, fields: Value) -> Uuid {
    let job = Uuid::now_v7();
    let op = JobOp::Queue {
        job,
        printer: "face-1".parse().unwrap(),
        card_no: None,
        template: "member-face.svg".into(),
        fields,
    };
    store.commit(Batch::new().op(Op::Job(op))).await.unwrap();
    job
}

/// The face as columns, as the printer has it in its memory.
fn columns(face: &Bitmap) -> Image {
    let byte = |x, y| (0..8).fold(0, |b, bit| b | u8::from(face.dot(x, y * 8 + bit)) << bit);
    (0..480).map(|x| std::array::from_fn(|y| byte(x, u32::try_from(y).unwrap()))).collect()
}

fn expected(points: u32) -> Image {
    columns(&faces().render("member-face.svg", &fields(points), Canvas::TCP300).unwrap())
}

#[tokio::test]
async fn a_face_reaches_the_card_over_tcp_and_over_a_serial_line() {
    for serial in [false, true] {
        let (dir, printer) = (tempfile::tempdir().unwrap(), Double::new());
        let link = if serial {
            format!("serial://{}", printer.pty().display())
        } else {
            format!("tcp://{}", printer.listen())
        };
        let shop = Shop::open(dir.path(), &link);
        let job = shop.queue(fields(100)).await;
        shop.until_state(job, PrintState::WaitingCard).await;
        printer.insert_card();
        let done = shop.until_state(job, PrintState::Done).await;
        assert_eq!((done.attempts, done.error), (1, None));
        let (waiting, printing) = (PrintState::WaitingCard, PrintState::Printing);
        assert_eq!(shop.told(job).await, [waiting, printing, PrintState::Done]);
        assert_eq!(printer.state().printed, [expected(100)], "serial: {serial}");
        shop.until_device(DeviceStatus::Ready, None).await;
        assert!(shop.health.troubles().is_empty());
        shop.end().await;
    }
}

#[tokio::test]
async fn firmware_without_the_block_command_gets_the_image_line_by_line() {
    let (dir, printer) = (tempfile::tempdir().unwrap(), Double::new());
    printer.insert_card();
    printer.state().old_firmware = true;
    let shop = Shop::open(dir.path(), &format!("tcp://{}", printer.listen()));
    let job = shop.queue(fields(5)).await;
    shop.until_state(job, PrintState::Done).await;
    assert_eq!(printer.state().printed, [expected(5)]);
    assert!(printer.state().taken.contains(&0x43));
    shop.end().await;
}

#[tokio::test]
async fn the_last_customers_face_never_shows_on_the_next_card() {
    let (dir, printer) = (tempfile::tempdir().unwrap(), Double::new());
    let shop = Shop::open(dir.path(), &format!("tcp://{}", printer.listen()));
    // What an earlier owner of the printer left in its memory.
    printer.state().image = vec![[0xFF; 40]; 480];
    for points in [888_888, 1] {
        let job = shop.queue(fields(points)).await;
        shop.until_state(job, PrintState::WaitingCard).await;
        printer.insert_card();
        shop.until_state(job, PrintState::Done).await;
    }
    assert_eq!(printer.state().printed, [expected(888_888), expected(1)]);
    shop.end().await;
}

#[tokio::test]
async fn the_next_card_is_awaited_until_the_last_one_is_taken_out() {
    let (dir, printer) = (tempfile::tempdir().unwrap(), Double::new());
    let shop = Shop::open(dir.path(), &format!("tcp://{}", printer.listen()));
    printer.insert_card();
    let first = shop.queue(fields(1)).await;
    shop.until_state(first, PrintState::Done).await;
    let second = shop.queue(fields(2)).await;
    let waiting = shop.until("told to take the card out", second, |job| job.error.is_some()).await;
    let error = waiting.error.unwrap();
    assert!(error.contains("取走") && error.contains("pull it out"), "{error}");
    printer.insert_card();
    assert_eq!(shop.until_state(second, PrintState::Done).await.error, None);
    shop.end().await;
}

#[tokio::test]
async fn nak_busy_and_damaged_answers_are_got_over() {
    let (dir, printer) = (tempfile::tempdir().unwrap(), Double::new());
    printer.insert_card();
    let shop = Shop::open(dir.path(), &format!("tcp://{}", printer.listen()));
    shop.until_device(DeviceStatus::Ready, None).await;
    {
        let mut state = printer.state();
        (state.naks, state.busy, state.garbled) = (2, 2, 1);
    }
    let job = shop.queue(fields(5)).await;
    assert_eq!(shop.until_state(job, PrintState::Done).await.attempts, 1);
    assert_eq!(printer.state().printed, [expected(5)]);
    shop.end().await;
}

#[tokio::test]
async fn a_printer_that_naks_everything_is_named_and_the_job_stays_open() {
    let (dir, printer) = (tempfile::tempdir().unwrap(), Double::new());
    printer.insert_card();
    printer.state().naks = usize::MAX;
    let shop = Shop::open(dir.path(), &format!("tcp://{}", printer.listen()));
    let job = shop.queue(fields(5)).await;
    let waiting = shop.until("an error", job, |job| job.error.is_some()).await;
    let error = waiting.error.unwrap();
    assert!(error.contains("NAK") && error.contains("拒收") && error.contains("baud"), "{error}");
    assert_eq!(waiting.state, PrintState::Queued);
    shop.until_device(DeviceStatus::Failed, Some("refused")).await;
    assert_eq!(shop.health.troubles()[0].part, "printer/face-1");
    printer.state().naks = 0;
    shop.until_state(job, PrintState::Done).await;
    shop.end().await;
}

#[tokio::test]
async fn a_cover_opened_while_the_card_is_awaited_costs_nothing_but_the_time() {
    let (dir, printer) = (tempfile::tempdir().unwrap(), Double::new());
    let shop = Shop::open(dir.path(), &format!("tcp://{}", printer.listen()));
    let job = shop.queue(fields(7)).await;
    shop.until_state(job, PrintState::WaitingCard).await;
    let face = expected(7);
    printer.until("loaded", |state| state.image == face).await;
    printer.state().cover_open = true;
    let open = shop.until("an error", job, |job| job.error.is_some()).await;
    let error = open.error.unwrap();
    assert!(error.contains("请合上") && error.contains("close it"), "{error}");
    shop.until_device(DeviceStatus::Degraded, Some("cover-open")).await;
    printer.close_cover();
    shop.until_state(job, PrintState::WaitingCard).await;
    printer.insert_card();
    assert_eq!(shop.until_state(job, PrintState::Done).await.attempts, 1);
    assert_eq!(printer.state().printed, [expected(7)]);
    shop.end().await;
}

#[tokio::test]
async fn a_jam_is_tried_again_and_given_up_after_five_times() {
    let (dir, printer) = (tempfile::tempdir().unwrap(), Double::new());
    printer.insert_card();
    printer.state().print_status = vec![0x38, 0x7E].into();
    let shop = Shop::open(dir.path(), &format!("tcp://{}", printer.listen()));
    let job = shop.queue(fields(7)).await;
    let unknown = |job: &PrintJob| job.error.as_ref().is_some_and(|error| error.contains("7E"));
    shop.until("the unknown status raw", job, unknown).await;
    assert_eq!(shop.until_state(job, PrintState::Done).await.attempts, 3);
    printer.insert_card();
    printer.state().print_status = vec![0x38; 5].into();
    let job = shop.queue(fields(8)).await;
    let failed = shop.until_state(job, PrintState::Failed).await;
    let error = failed.error.unwrap();
    assert!(error.contains("5") && error.contains("卡住") && error.contains("jammed"), "{error}");
    // The printer is not held up by it.
    let job = shop.queue(fields(9)).await;
    shop.until_state(job, PrintState::Done).await;
    shop.end().await;
}

#[tokio::test]
async fn a_silent_printer_is_absent_and_comes_back() {
    let (dir, printer) = (tempfile::tempdir().unwrap(), Double::new());
    printer.insert_card();
    printer.state().silent = true;
    let shop = Shop::open(dir.path(), &format!("tcp://{}", printer.listen()));
    let job = shop.queue(fields(5)).await;
    shop.until_device(DeviceStatus::Absent, Some("silent")).await;
    let waiting = shop.until("an error", job, |job| job.error.is_some()).await;
    assert!(waiting.error.unwrap().contains("does not answer"));
    printer.state().silent = false;
    shop.until_state(job, PrintState::Done).await;
    shop.end().await;
}

#[tokio::test]
async fn a_printer_that_is_plugged_in_later_is_found() {
    let (dir, printer) = (tempfile::tempdir().unwrap(), Double::new());
    let port = free_port();
    printer.insert_card();
    let shop = Shop::open(dir.path(), &format!("tcp://127.0.0.1:{port}"));
    let job = shop.queue(fields(5)).await;
    shop.until_device(DeviceStatus::Absent, Some("unreachable")).await;
    printer.listen_on(std::net::TcpListener::bind(("127.0.0.1", port)).unwrap());
    shop.until_state(job, PrintState::Done).await;
    shop.until_device(DeviceStatus::Ready, None).await;
    shop.end().await;
}

#[tokio::test]
async fn jobs_survive_a_restart_also_one_that_was_printing() {
    let (dir, printer) = (tempfile::tempdir().unwrap(), Double::new());
    let link = format!("tcp://{}", printer.listen());
    let shop = Shop::open(dir.path(), &link);
    let first = shop.queue(fields(1)).await;
    let second = shop.queue(fields(2)).await;
    shop.until_state(first, PrintState::WaitingCard).await;
    let store = shop.end().await;
    // As a power cut between the commit and the print leaves it.
    let cut =
        JobOp::State { job: first, state: PrintState::Printing, error: None, output: None, attempt: true };
    store.commit(Batch::new().op(Op::Job(cut))).await.unwrap();
    store.close().await;
    drop(store);
    let shop = Shop::open(dir.path(), &link);
    shop.until_state(first, PrintState::WaitingCard).await;
    printer.insert_card();
    assert_eq!(shop.until_state(first, PrintState::Done).await.attempts, 2);
    printer.insert_card();
    shop.until_state(second, PrintState::Done).await;
    assert_eq!(printer.state().printed, [expected(1), expected(2)]);
    shop.end().await;
}

#[tokio::test]
async fn a_job_cancelled_before_the_card_came_is_never_printed() {
    let (dir, printer) = (tempfile::tempdir().unwrap(), Double::new());
    let shop = Shop::open(dir.path(), &format!("tcp://{}", printer.listen()));
    let job = shop.queue(fields(3)).await;
    shop.until_state(job, PrintState::WaitingCard).await;
    let face = expected(3);
    printer.until("loaded", |state| state.image == face).await;
    let cancel =
        JobOp::State { job, state: PrintState::Cancelled, error: None, output: None, attempt: false };
    shop.store.commit(Batch::new().op(Op::Job(cancel))).await.unwrap();
    printer.until("cleared", |state| state.image == vec![[0; 40]; 480]).await;
    printer.insert_card();
    let next = shop.queue(fields(4)).await;
    shop.until_state(next, PrintState::Done).await;
    assert_eq!(printer.state().printed, [expected(4)]);
    shop.end().await;
}

#[tokio::test]
async fn bad_data_fails_its_own_job_only() {
    let (dir, printer) = (tempfile::tempdir().unwrap(), Double::new());
    printer.insert_card();
    let shop = Shop::open(dir.path(), &format!("tcp://{}", printer.listen()));
    let bad = shop.queue(json!({"card_no": "1", "points": 1, "offer": "😀", "qr": "x"})).await;
    let good = shop.queue(fields(4)).await;
    let error = shop.until_state(bad, PrintState::Failed).await.error.unwrap();
    assert!(error.contains("1F600") && error.contains("offer") && error.contains("请改用"), "{error}");
    shop.until_state(good, PrintState::Done).await;
    shop.end().await;
}

#[tokio::test]
async fn the_picture_printer_writes_complete_files() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("faces");
    // A file where the folder should be: told, retried, and put right.
    std::fs::write(&folder, "in the way").unwrap();
    let store = open_store(&dir.path().join("data"));
    let shop = Shop::begin(store, table(PrinterKind::Png, &format!("file://{}", folder.display())));
    let job = shop.queue(fields(6)).await;
    shop.until_device(DeviceStatus::Failed, Some("folder-unwritable")).await;
    let error = shop.until("an error", job, |job| job.error.is_some()).await.error.unwrap();
    assert!(error.contains("权限") && error.contains("permissions"), "{error}");
    std::fs::remove_file(&folder).unwrap();
    let done = shop.until_state(job, PrintState::Done).await;
    let path = folder.join(format!("{job}.png"));
    assert_eq!(done.output.as_deref(), path.to_str());
    let face = faces().render("member-face.svg", &fields(6), Canvas::TCP300).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), face.to_png().unwrap());
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1, "nothing half written is left");
    shop.end().await;
}

#[tokio::test]
async fn the_state_of_the_device_is_an_event_once_per_change() {
    let (dir, printer) = (tempfile::tempdir().unwrap(), Double::new());
    let shop = Shop::open(dir.path(), &format!("tcp://{}", printer.listen()));
    shop.until_device(DeviceStatus::Ready, None).await;
    printer.state().cover_open = true;
    shop.until_device(DeviceStatus::Degraded, Some("cover-open")).await;
    printer.close_cover();
    shop.until_device(DeviceStatus::Ready, None).await;
    let events = shop.store.read(|r| r.events_after(Offset(0), 100)).await.unwrap();
    let states: Vec<DeviceStatus> = events
        .iter()
        .filter(|logged| logged.event.subject == "printer/face-1")
        .filter_map(|logged| logged.event.data_as::<DeviceState>().ok().map(|state| state.state))
        .collect();
    assert_eq!(states, [DeviceStatus::Ready, DeviceStatus::Degraded, DeviceStatus::Ready]);
    shop.end().await;
}
