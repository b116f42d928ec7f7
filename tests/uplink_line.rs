//! A thin line: 256 kbit/s each way between the gateway and a real Mosquitto,
//! a telemetry backlog that would take minutes, and a ledger event that must not wait for it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod mqtt;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use baygate::config::tables::MqttVersion;
use baygate::event::Class;
use baygate::store::{Batch, StoreError};
use mqtt::{BASE, Listener, Money, Mosquitto, Shop, Signals, table, until};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

/// 256 kbit/s in bytes.
const RATE: usize = 32_000;
/// What the line takes at once; and what the proxy's own socket may hide (a modem's queue).
const CHUNK: usize = 1_000;

/// What went up.
#[derive(Default)]
struct Passed {
    bytes: AtomicUsize,
    /// At which of these bytes a ledger event began.
    ledger: Mutex<Vec<usize>>,
    /// A topic may lie in two chunks.
    tail: Mutex<Vec<u8>>,
}

impl Passed {
    fn note(&self, chunk: &[u8]) {
        let (topic, mut tail) = (b"/event/ledger/", self.tail.lock().unwrap());
        let before = self.bytes.fetch_add(chunk.len(), Ordering::Relaxed) - tail.len();
        tail.extend(chunk);
        let found = tail.windows(topic.len()).enumerate().filter(|(_, bytes)| bytes == topic);
        self.ledger.lock().unwrap().extend(found.map(|(place, _)| before + place));
        let rest = tail.len().saturating_sub(topic.len() - 1);
        tail.drain(..rest);
    }
}

/// Carries one direction at `RATE`: a chunk, then the time a chunk needs.
async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    passed: Option<Arc<Passed>>,
) -> std::io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    let mut free = Instant::now();
    loop {
        let got = from.read(&mut chunk).await?;
        if got == 0 {
            return to.shutdown().await;
        }
        // The line is busy until then; idle time is not saved up.
        free = free.max(Instant::now()) + Duration::from_micros((got * 1_000_000 / RATE) as u64);
        tokio::time::sleep_until(free.into()).await;
        passed.iter().for_each(|passed| passed.note(&chunk[..got]));
        to.write_all(&chunk[..got]).await?;
    }
}

/// The thin line in front of `broker`.
async fn thin_line(broker: u16) -> (u16, Arc<Passed>, AbortOnDropHandle<()>) {
    let passed = Arc::<Passed>::default();
    let up = Arc::clone(&passed);
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
    // Set before listen: accepted sockets inherit it.
    socket.set_recv_buffer_size(4096).unwrap();
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket.listen(8).unwrap();
    socket.set_nonblocking(true).unwrap();
    let listener = TcpListener::from_std(socket.into()).unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        loop {
            let (near, _) = listener.accept().await.unwrap();
            let far = TcpStream::connect(("127.0.0.1", broker)).await.unwrap();
            SockRef::from(&far).set_send_buffer_size(4096).unwrap();
            near.set_nodelay(true).unwrap();
            far.set_nodelay(true).unwrap();
            let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
            tokio::spawn(carry(near_in, far_out, Some(Arc::clone(&up))));
            tokio::spawn(carry(far_in, near_out, None));
        }
    });
    (port, passed, AbortOnDropHandle::new(task))
}

/// The demand is a time, and counted in what the line carries in it: so a machine that is busy
/// with something else does not count.
#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_event_overtakes_a_telemetry_backlog_within_a_second_on_256_kbit_s() {
    // (name, sizes of the backlog's events)
    for (name, sizes) in [
        ("2 KB", &[2_000][..]),
        // The largest that a telemetry event may be: MAX_TELEMETRY_BYTES.
        ("2 to 16 KB", &[2_000, 16_000, 5_000, 9_000]),
    ] {
        let broker = Mosquitto::start("").await;
        let (port, passed, _line) = thin_line(broker.port).await;
        let mut hq = Listener::start(broker.port, "5", &format!("{BASE}/event/ledger/#")).await;
        let _telemetry = Listener::start(broker.port, "5", &format!("{BASE}/event/telemetry/#")).await;
        let mut shop = Shop::open();
        for start in (0..600).step_by(50) {
            let mut batch = Batch::new();
            for n in start..start + 50 {
                batch = batch.event(Signals::event(n, sizes[n as usize % sizes.len()]));
            }
            shop.store.commit(batch).await.unwrap();
        }
        shop.start_with(table(port, MqttVersion::V5), |setup| {
            setup.pace.keep_alive = Duration::from_secs(20)
        });
        let (mut worst, mut slowest) = (0, Duration::ZERO);
        for n in 1..=8 {
            let before = shop.delivered(Class::Telemetry).await;
            until("the backlog moves", async || {
                (shop.delivered(Class::Telemetry).await >= before + 8).then_some(())
            })
            .await;
            let earlier = passed.ledger.lock().unwrap().len();
            let began = Instant::now();
            shop.commit(Money::event(n, 600)).await;
            let committed = passed.bytes.load(Ordering::Relaxed);
            assert_eq!(hq.on("card.transaction").await["data"]["n"], n);
            slowest = slowest.max(began.elapsed());
            let went_by = passed.ledger.lock().unwrap()[earlier];
            worst = worst.max(went_by.saturating_sub(committed));
        }
        // Larger ones, which one packet could hold the line with for longer, are not taken at all.
        let held_too_long = Batch::new().event(Signals::event(0, 17_000));
        assert!(matches!(shop.store.commit(held_too_long).await, Err(StoreError::EventTooLarge { .. })));
        let left = 600 - shop.delivered(Class::Telemetry).await;
        println!(
            "{name}: of 8 ledger events one waited for {worst} bytes, one {slowest:?}; {left} telemetry events still waiting"
        );
        assert!(left > 50, "{name}: there was still a backlog");
        assert!(worst < RATE, "{name}: {worst} bytes are more than a second");
        shop.crash().await;
    }
}
