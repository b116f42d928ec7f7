//! A thin line: 256 kbit/s each way between the gateway and a real Mosquitto,
//! a telemetry backlog that would take minutes, and a ledger event that must not wait for it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod mqtt;

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

/// Carries one direction at `RATE`: a chunk, then the time a chunk needs.
async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> std::io::Result<()> {
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
        to.write_all(&chunk[..got]).await?;
    }
}

/// The thin line in front of `broker`.
async fn thin_line(broker: u16) -> (u16, AbortOnDropHandle<()>) {
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
            tokio::spawn(carry(near_in, far_out));
            tokio::spawn(carry(far_in, near_out));
        }
    });
    (port, AbortOnDropHandle::new(task))
}

/// The one test with a time limit: the demand itself is a time.
#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_event_overtakes_a_telemetry_backlog_within_a_second_on_256_kbit_s() {
    // (name, sizes of the backlog's events, limit)
    for (name, sizes, limit) in [
        ("2 KB", &[2_000][..], Duration::from_secs(1)),
        // The largest that a telemetry event may be: MAX_TELEMETRY_BYTES.
        ("2 to 16 KB", &[2_000, 16_000, 5_000, 9_000], Duration::from_secs(1)),
    ] {
        let broker = Mosquitto::start("").await;
        let (port, _line) = thin_line(broker.port).await;
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
        let mut worst = Duration::ZERO;
        for n in 1..=8 {
            let before = shop.delivered(Class::Telemetry).await;
            until("the backlog moves", async || {
                (shop.delivered(Class::Telemetry).await >= before + 8).then_some(())
            })
            .await;
            let began = Instant::now();
            shop.commit(Money::event(n, 600)).await;
            assert_eq!(hq.on("card.transaction").await["data"]["n"], n);
            worst = worst.max(began.elapsed());
        }
        // Larger ones, which one packet could hold the line with for longer, are not taken at all.
        let held_too_long = Batch::new().event(Signals::event(0, 17_000));
        assert!(matches!(shop.store.commit(held_too_long).await, Err(StoreError::EventTooLarge { .. })));
        let left = 600 - shop.delivered(Class::Telemetry).await;
        println!("{name}: slowest of 8 ledger events {worst:?}, {left} telemetry events still waiting");
        assert!(left > 50, "{name}: there was still a backlog");
        assert!(worst < limit, "{name}: {worst:?}");
        shop.crash().await;
    }
}
