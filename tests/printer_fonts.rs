//! Fonts are most of what a face takes: none is read before a face is asked for.
//! One of them is a named pipe here, so that whoever reads it can be seen.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/daemon.rs"]
mod daemon;

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use baygate::api::client::{Client, Method};
use daemon::{Daemon, Desk, LONG};
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use serde_json::json;

/// A pipe can be opened for writing without waiting when somebody holds it open for reading.
fn is_read(pipe: &Path) -> bool {
    OpenOptions::new().write(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(pipe).is_ok()
}

async fn until(what: &str, mut probe: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !probe().await {
        assert!(began.elapsed() < LONG, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_font_is_read_before_a_face_is_printed() {
    let desk = Desk::new();
    let ours = Path::new(env!("CARGO_MANIFEST_DIR"));
    let share = desk.path("share");
    std::fs::create_dir_all(share.join("fonts")).unwrap();
    for folder in ["rules", "templates"] {
        std::os::unix::fs::symlink(ours.join("config").join(folder), share.join(folder)).unwrap();
    }
    let pipe = share.join("fonts/watched.ttf");
    nix::unistd::mkfifo(&pipe, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    let dir = desk.path("");
    std::fs::write(
        desk.config(),
        format!(
            "[gateway]\nstore = \"SH-0042\"\nid = \"gw-1\"\ndata_dir = \"{0}/data\"\n\
             firmware_protocols = \"{1}/firmware-protocols\"\nshare_dir = \"{0}/share\"\n\n\
             [api]\nlisten = \"127.0.0.1:0\"\ncontrol_socket = \"{0}/control.sock\"\n\n\
             [[printer]]\nid = \"face-1\"\nkind = \"png\"\nlink = \"file://{0}/faces\"\n",
            dir.display(),
            ours.display()
        ),
    )
    .unwrap();
    let daemon = Daemon::start(&desk.config()).await;
    let client = Client::connect(desk.path("control.sock")).await.unwrap();
    let log = rusqlite::Connection::open(desk.path("data/baygate.db")).unwrap();
    until("the printer is ready", async || {
        let told = "SELECT count(*) FROM event WHERE kind = 'device.state' AND subject = 'printer/face-1'
                    AND data ->> 'state' = 'ready'";
        log.query_row(told, [], |row| row.get::<_, i64>(0)).unwrap() > 0
    })
    .await;
    assert!(!is_read(&pipe), "a font is read though no face was asked for");
    let body = json!({"printer": "face-1", "card_no": "8800001",
        "fields": {"card_no": "8800001", "points": 1, "offer": "八折", "qr": "https://example.com/m/1"}});
    // Answered when the face has been tried, which the pipe holds up.
    let asked = async { client.request(Method::POST, "/v1/print-jobs", Some(&body)).await };
    let read = until("the face reads the fonts", async || is_read(&pipe));
    tokio::select! {
        answer = asked => panic!("answered without the fonts: {answer:?}"),
        () = read => {}
    }
    drop(daemon);
}
