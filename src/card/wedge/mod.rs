//! Reader kind `wedge`: a scanner or stripe reader that types what it reads as a keyboard would.
//! The keyboard is taken for us alone (EVIOCGRAB), so that no scan is typed into a till's window
//! or a console. What lives here: the device opened and taken, how long a scan counts as being
//! there. What does not: keys (`keys`) and what a text is (`scan`), both pure.
//!
//! ```text
//!  the kernel's ring of 64 events ─► read, never waiting ─► a few scans ─► told, one by one
//! ```

mod keys;
mod scan;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use input_linux::EvdevHandle;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio::time;
use tokio_util::sync::CancellationToken;

use self::keys::{EVENT_BYTES, NoScan, Typing, event};
use super::backoff::Backoff;
use super::report::{Condition, Report, Reports, Unheard};
use super::verdict::{Refusal, Verdict};
use super::{CardError, cable};
use crate::config::tables::ScanTechnology;
use crate::config::values::Transport;
use crate::event::device::DeviceStatus;
use crate::ident::DeviceId;
use crate::link::{self, LinkError, holder_of};

/// A code has no field to lie in: it counts as there for so long, or until the next.
const THERE: Duration = Duration::from_secs(3);
/// Keys that no Enter ended are forgotten after so long: somebody leaned on the scanner.
const UNFINISHED: Duration = Duration::from_secs(1);
/// Scans are told so far apart: a keyboard that runs wild must not fill the log.
const PACE: Duration = Duration::from_millis(200);
/// Scans that were read and not told: the lines of one code.
const MOST_WAITING: usize = 32;
/// The one field of this reader.
const SLOT: &str = "wedge";

/// Listens to the keyboard at `device` until `stop`.
pub(super) async fn drive(
    id: DeviceId,
    device: PathBuf,
    technology: ScanTechnology,
    reports: Reports,
    stop: CancellationToken,
) -> Result<(), CardError> {
    // Only its path is waited for.
    let place = Transport::Serial { path: device.clone(), baud: None };
    let serve = async {
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(15));
        loop {
            let condition = match open(&device) {
                Ok(keyboard) => {
                    backoff.reset();
                    reports.tell(Report::State(Condition::plain(DeviceStatus::Ready))).await?;
                    reports.tell(Report::AllEmpty).await?;
                    listen(&id, keyboard, technology, &reports).await?;
                    cable::gone()
                }
                Err(error) => cable::unreachable(&error),
            };
            reports.tell(Report::AllEmpty).await?;
            reports.tell(Report::State(condition)).await?;
            link::wait_for_return(&place, backoff.wait()).await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        ended = serve => { let (Ok::<(), Unheard>(()) | Err(Unheard)) = ended; }
    }
    Ok(())
}

/// Opens the keyboard and takes it for us alone.
fn open(device: &Path) -> Result<pipe::Receiver, LinkError> {
    let explain = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => LinkError::Missing { path: device.to_owned() },
        io::ErrorKind::PermissionDenied => LinkError::Denied { path: device.to_owned() },
        io::ErrorKind::ResourceBusy => LinkError::Busy {
            path: device.to_owned(),
            holder: holder_of(device).unwrap_or_else(|| "it could not be found out which".into()),
        },
        _ => LinkError::Other { what: device.display().to_string(), source: error },
    };
    let keyboard = OpenOptions::new()
        .read(true)
        .custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits())
        .open(device)
        .map_err(explain)?;
    grab(&keyboard).map_err(explain)?;
    // Any file that can be waited for: the kernel's input devices can.
    pipe::Receiver::from_file_unchecked(keyboard).map_err(explain)
}

fn grab(keyboard: &File) -> io::Result<()> {
    EvdevHandle::new(keyboard.as_raw_fd()).grab(true)
}

/// The scan that was told, and until when it counts as there.
type There = Option<time::Instant>;

/// What was read, and when.
type Scan = (Verdict, Instant);

/// Tells what is scanned until the device breaks off.
async fn listen(
    id: &DeviceId,
    keyboard: impl AsyncRead + Unpin,
    technology: ScanTechnology,
    reports: &Reports,
) -> Result<(), Unheard> {
    let (read, scans) = mpsc::channel(MOST_WAITING);
    let reading = async {
        read_scans(id, keyboard, technology, read).await;
        Ok(())
    };
    tokio::try_join!(reading, tell_scans(scans, reports)).map(|_| ())
}

/// Reads until the device breaks off. Waits for nothing but keys: what the kernel's ring does not
/// hold is lost.
async fn read_scans(
    id: &DeviceId,
    mut keyboard: impl AsyncRead + Unpin,
    technology: ScanTechnology,
    scans: mpsc::Sender<Scan>,
) {
    let fault = |fault: &'static str| {
        metrics::counter!("baygate_reader_faults_total", "reader" => id.to_string(), "fault" => fault)
            .increment(1);
    };
    let mut typing = Typing::default();
    let mut typed = time::Instant::now();
    let (mut bytes, mut filled) = ([0_u8; 64 * EVENT_BYTES], 0);
    loop {
        let read = keyboard.read(bytes.get_mut(filled..).unwrap_or_default());
        let read = if typing.is_open() {
            let Ok(read) = time::timeout_at(typed + UNFINISHED, read).await else {
                tracing::debug!("keys without Enter forgotten");
                typing.forget();
                continue;
            };
            read
        } else {
            read.await
        };
        let Ok(count @ 1..) = read else { return };
        filled += count;
        typed = time::Instant::now();
        let (events, rest) = bytes.get(..filled).unwrap_or_default().as_chunks::<EVENT_BYTES>();
        let rest = rest.len();
        for (key, at) in events.iter().filter_map(event) {
            let verdict = match typing.key(key, at) {
                None => continue,
                Some(Ok(text)) => scan::verdict(&text, technology),
                Some(Err(NoScan::Damaged)) => Verdict::Refused(Refusal::Unreadable),
                Some(Err(NoScan::ByHand)) => {
                    fault("by-hand");
                    continue;
                }
            };
            if scans.try_send((verdict, Instant::now())).is_err() {
                fault("too-many");
            }
        }
        // Half an event waits for its other half.
        bytes.copy_within(filled - rest..filled, 0);
        filled = rest;
    }
}

/// Tells scans, one at a time, and takes each back when its time is over.
async fn tell_scans(mut scans: mpsc::Receiver<Scan>, reports: &Reports) -> Result<(), Unheard> {
    let mut there: There = None;
    loop {
        let scan = match there {
            Some(until) => match time::timeout_at(until, scans.recv()).await {
                Ok(scan) => scan,
                Err(_) => {
                    take_away(&mut there, reports).await?;
                    continue;
                }
            },
            None => scans.recv().await,
        };
        take_away(&mut there, reports).await?;
        let Some((verdict, seen)) = scan else { return Ok(()) };
        match verdict {
            Verdict::Card(card) => {
                there = Some(time::Instant::now() + THERE);
                reports.tell(Report::Tapped { slot: SLOT.into(), card, seen }).await?;
            }
            Verdict::Refused(refusal) => reports.tell(Report::Refused(refusal)).await?,
            Verdict::Left => {}
        }
        time::sleep(PACE).await;
    }
}

async fn take_away(there: &mut There, reports: &Reports) -> Result<(), Unheard> {
    match there.take() {
        Some(_) => reports.tell(Report::Removed { slot: SLOT.into() }).await,
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::sync::mpsc;

    use super::keys::Key;
    use super::keys::tests::{bytes_at, bytes_of, keys_of};
    use super::*;

    fn word(report: &Report) -> String {
        match report {
            Report::Tapped { card, .. } => format!("tapped {}", card.code.as_deref().unwrap()),
            Report::Removed { .. } => "removed".into(),
            Report::Refused(refusal) => format!("refused {}", refusal.code()),
            Report::AllEmpty | Report::State(_) => "other".into(),
        }
    }

    fn scan(text: &str) -> Vec<u8> {
        let mut keys = keys_of(text);
        keys.push(Key::Down(28));
        keys.into_iter().flat_map(bytes_of).collect()
    }

    /// A scan is told and taken back; the bytes come cut anywhere; what no Enter ended is forgotten.
    #[tokio::test]
    async fn scans_are_told_and_taken_back() {
        let (mut scanner, keyboard) = tokio::io::duplex(100_000);
        let (sender, mut heard) = mpsc::channel(64);
        let id = "scanner-1".parse().unwrap();
        let listening =
            tokio::spawn(
                async move { listen(&id, keyboard, ScanTechnology::Barcode, &Reports(sender)).await },
            );
        let mut next = async || word(&heard.recv().await.unwrap());
        for chunk in scan("8800000042").chunks(7) {
            scanner.write_all(chunk).await.unwrap();
        }
        assert_eq!(next().await, "tapped 8800000042");
        assert_eq!(next().await, "removed", "after its time");
        let two = [scan("A-1"), scan("A-2")].concat();
        scanner.write_all(&two).await.unwrap();
        for expected in ["tapped A-1", "removed", "tapped A-2", "removed"] {
            assert_eq!(next().await, expected);
        }
        let unfinished: Vec<u8> = keys_of("999").into_iter().flat_map(bytes_of).collect();
        scanner.write_all(&unfinished).await.unwrap();
        time::sleep(UNFINISHED * 2).await;
        scanner.write_all(&scan("A-3")).await.unwrap();
        assert_eq!(next().await, "tapped A-3", "without the keys that no Enter ended");
        scanner.write_all(&bytes_of(Key::Lost)).await.unwrap();
        scanner.write_all(&scan("A-4")).await.unwrap();
        assert_eq!((next().await, next().await), ("removed".into(), "refused unreadable".into()));
        scanner.write_all(&scan(";4111111111111111=4912?")).await.unwrap();
        assert_eq!(next().await, "refused bank-card");
        let by_hand = keys_of("secret").into_iter().chain([Key::Down(28)]).enumerate();
        let by_hand =
            by_hand.flat_map(|(n, key)| bytes_at(key, Duration::from_millis(60) * u32::try_from(n).unwrap()));
        scanner.write_all(&by_hand.collect::<Vec<u8>>()).await.unwrap();
        scanner.write_all(&scan("A-5")).await.unwrap();
        assert_eq!(next().await, "tapped A-5");
        drop(scanner);
        assert_eq!(next().await, "removed", "the scanner was pulled");
        assert!(listening.await.unwrap().is_ok());
    }

    /// However slowly scans are told, no key waits in the kernel's ring: that holds 64 events.
    #[tokio::test]
    async fn keys_are_read_while_nobody_listens() {
        let (mut scanner, keyboard) = tokio::io::duplex(64 * EVENT_BYTES);
        let (sender, mut heard) = mpsc::channel(1);
        let id = "scanner-1".parse().unwrap();
        let listening =
            tokio::spawn(async move { listen(&id, keyboard, ScanTechnology::Qr, &Reports(sender)).await });
        let lines: Vec<String> = (0..8).map(|n| format!("line-{n}-of-a-code")).collect();
        let written = async {
            for line in &lines {
                scanner.write_all(&scan(line)).await.unwrap();
            }
        };
        time::timeout(Duration::from_secs(20), written).await.expect("it waits for somebody");
        for line in &lines {
            assert_eq!(word(&heard.recv().await.unwrap()), format!("tapped {line}"));
            assert_eq!(word(&heard.recv().await.unwrap()), "removed");
        }
        drop(scanner);
        assert!(listening.await.unwrap().is_ok());
    }

    #[test]
    fn what_is_no_keyboard_is_said_so() {
        let missing = open(Path::new("/nonexistent/event0")).unwrap_err();
        assert!(matches!(missing, LinkError::Missing { .. }), "{missing}");
        let file = tempfile::NamedTempFile::new().unwrap();
        let other = open(file.path()).unwrap_err();
        assert!(matches!(other, LinkError::Other { .. }), "{other}");
    }
}
