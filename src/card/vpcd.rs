//! Reader kind `vpcd`: we are the virtual reader driver, a card connects by TCP.
//! One card at a time; the connection is the card's presence, and it is asked for
//! its ATR several times a second to know whether it is still there. A card that
//! sends what is no answer is thrown out, counted, and the next may come.
//!
//! ```text
//!  us ──► card   u16 length, big-endian, and payload; one byte of payload is control:
//!                00 power off, 01 power on, 02 reset (no answer), 04 answer to reset (answered)
//!  card ─► us    u16 length and payload, only ever as an answer
//! ```
//! The protocol is that of vsmartcard's `vpcd` (its documentation, "Creating a virtual smart card").

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, mpsc};
use tokio::time;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::CardError;
use super::apdu::{MAX_RESPONSE_BYTES, Response};
use super::atr::MAX_ATR_BYTES;
use super::backoff::Backoff;
use super::member::Members;
use super::probe::Answer;
use super::report::{Condition, Report, Reports, Unheard};
use super::tap::{Tap, TapStep};
use super::verdict::{Refusal, Verdict};
use super::work::{Errand, WorkStep};
use crate::event::device::DeviceStatus;
use crate::ident::DeviceId;

/// How often a card in the field is asked whether it is still there.
const POLL: Duration = Duration::from_millis(200);
/// How long a card may take for one answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);
/// The one field of this reader.
const SLOT: &str = "vpcd";

const POWER_ON: &[u8] = &[0x01];
const RESET: &[u8] = &[0x02];
const GET_ATR: &[u8] = &[0x04];

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Cut {
    /// The card left, orderly or not.
    #[error("the card left: {0}")]
    Left(io::Error),
    #[error("the card did not answer in time")]
    Silent,
    #[error("the card sent {len} bytes where at most {limit} can come")]
    Oversize { len: usize, limit: usize },
    #[error("the card's answer was no response")]
    Garbage,
    #[error("nobody listens")]
    Unheard,
}

impl From<io::Error> for Cut {
    fn from(error: io::Error) -> Self {
        Self::Left(error)
    }
}

impl From<Unheard> for Cut {
    fn from(_: Unheard) -> Self {
        Self::Unheard
    }
}

impl Cut {
    /// The word in metrics, for what is a fault.
    fn fault(&self) -> Option<&'static str> {
        match self {
            Self::Left(_) | Self::Unheard => None,
            Self::Silent => Some("silent"),
            Self::Oversize { .. } => Some("oversize"),
            Self::Garbage => Some("garbage"),
        }
    }
}

/// Serves cards that connect to `listen` until `stop`.
pub(super) async fn drive(
    id: DeviceId,
    listen: SocketAddr,
    members: Option<Arc<Members>>,
    reports: Reports,
    mut errands: mpsc::Receiver<Errand>,
    stop: CancellationToken,
) -> Result<(), CardError> {
    let busy = Mutex::new(());
    let serve = async {
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(15));
        loop {
            match TcpListener::bind(listen).await {
                Ok(listener) => {
                    backoff.reset();
                    reports.tell(Report::State(Condition::plain(DeviceStatus::Ready))).await?;
                    reports.tell(Report::AllEmpty).await?;
                    accept(&id, &listener, members.as_ref(), &reports, &mut errands, &busy).await?;
                }
                Err(error) => {
                    reports.tell(Report::AllEmpty).await?;
                    reports.tell(Report::State(not_listening(listen, &error))).await?;
                }
            }
            time::sleep(backoff.wait()).await;
        }
    };
    // A write that runs is ended first.
    let stopped = async {
        stop.cancelled().await;
        drop(busy.lock().await);
    };
    tokio::select! {
        () = stopped => {}
        ended = serve => { let (Ok::<(), Unheard>(()) | Err(Unheard)) = ended; }
    }
    Ok(())
}

fn not_listening(listen: SocketAddr, error: &io::Error) -> Condition {
    let (reason, zh, en) = match error.kind() {
        io::ErrorKind::AddrInUse => (
            "address-in-use",
            "已被另一个程序使用。请停止该程序（例如带 vpcd 驱动的 pcscd），或为此读卡器换一个 listen 地址",
            "is in use by another program; stop that one (pcscd with the vpcd driver, for example), or give this reader another `listen`",
        ),
        io::ErrorKind::PermissionDenied => (
            "address-denied",
            "不允许本用户监听。请使用 1024 以上的端口",
            "may not be listened on by this user; use a port above 1023",
        ),
        _ => (
            "address-error",
            "无法监听。请检查此读卡器的 listen 地址",
            "cannot be listened on; check this reader's `listen`",
        ),
    };
    Condition::because(
        DeviceStatus::Failed,
        reason,
        format!("地址 {listen} {zh}（{error}）。"),
        format!("address {listen} {en} ({error})"),
    )
}

/// Takes one card after the other, until the listener fails.
async fn accept(
    id: &DeviceId,
    listener: &TcpListener,
    members: Option<&Arc<Members>>,
    reports: &Reports,
    errands: &mut mpsc::Receiver<Errand>,
    busy: &Mutex<()>,
) -> Result<(), Unheard> {
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(errand) = errands.recv() => {
                errand.cut();
                continue;
            }
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(reader = %id, %error, "cannot accept a card");
                return Ok(());
            }
        };
        let mut card = CardLine { stream, members: members.cloned(), told: false };
        let cut = card.serve(reports, errands, busy).await;
        if card.told {
            reports.tell(Report::Removed { slot: SLOT.into() }).await?;
        }
        let Err(cut) = cut;
        if matches!(cut, Cut::Unheard) {
            return Err(Unheard);
        }
        tracing::debug!(reader = %id, reason = %cut, "card line ended");
        match cut.fault() {
            None => backoff.reset(),
            Some(fault) => {
                tracing::warn!(reader = %id, fault, "card line cut");
                metrics::counter!("baygate_reader_faults_total", "reader" => id.to_string(), "fault" => fault)
                    .increment(1);
                if !card.told {
                    let refusal = if fault == "silent" { Refusal::NoAnswer } else { Refusal::Unreadable };
                    reports.tell(Report::Refused(refusal)).await?;
                }
                // Somebody who only sends garbage does not get us to spin.
                drop(card);
                time::sleep(backoff.wait()).await;
            }
        }
    }
}

/// A connected card.
struct CardLine {
    stream: TcpStream,
    members: Option<Arc<Members>>,
    told: bool,
}

impl CardLine {
    /// Identifies the card, then watches it until it leaves.
    async fn serve(
        &mut self,
        reports: &Reports,
        errands: &mut mpsc::Receiver<Errand>,
        busy: &Mutex<()>,
    ) -> Result<std::convert::Infallible, Cut> {
        let mut seen = Instant::now();
        self.stream.set_nodelay(true)?;
        self.send(POWER_ON).await?;
        let mut atr = self.ask(GET_ATR, MAX_ATR_BYTES).await?;
        loop {
            match self.identify(&atr).await? {
                Verdict::Card(card) => {
                    self.told = true;
                    reports.tell(Report::Tapped { slot: SLOT.into(), card, seen }).await?;
                }
                Verdict::Refused(refusal) => reports.tell(Report::Refused(refusal)).await?,
                Verdict::Left => {}
            }
            let next = self.watch(&atr, errands, busy).await?;
            // Another ATR on the same line: another card.
            seen = Instant::now();
            atr = next;
            if std::mem::take(&mut self.told) {
                reports.tell(Report::Removed { slot: SLOT.into() }).await?;
            }
        }
    }

    /// Does what is asked of the card. Returns when it has another ATR.
    async fn watch(
        &mut self,
        atr: &[u8],
        errands: &mut mpsc::Receiver<Errand>,
        busy: &Mutex<()>,
    ) -> Result<Vec<u8>, Cut> {
        let mut one = [0];
        loop {
            tokio::select! {
                () = time::sleep(POLL) => {}
                // A card says nothing unasked: it has left.
                _ = self.stream.peek(&mut one) => {}
                Some(errand) = errands.recv() => {
                    let _busy = busy.lock().await;
                    self.work(errand).await?;
                    continue;
                }
            }
            let now = self.ask(GET_ATR, MAX_ATR_BYTES).await?;
            if now != atr {
                return Ok(now);
            }
        }
    }

    /// One errand to its end; when the line breaks, the errand ends before it.
    async fn work(&mut self, errand: Errand) -> Result<(), Cut> {
        let Errand { mut step, done, .. } = errand;
        while !done.is_closed() {
            let (answer, work) = match step {
                WorkStep::Done(worked) => {
                    let _ = done.send(worked);
                    return Ok(());
                }
                WorkStep::Reset(work) => (self.send(RESET).await.map(|()| Answer::Reset), work),
                WorkStep::Transmit(command, work) => {
                    let answered = self.ask(&command.to_bytes(), MAX_RESPONSE_BYTES).await;
                    let response =
                        answered.and_then(|bytes| Response::parse(&bytes).map_err(|_| Cut::Garbage));
                    (response.map(Answer::Response), work)
                }
            };
            step = match answer {
                Ok(answer) => work.answer_aside(answer).await,
                Err(cut) => {
                    let _ = done.send(work.answer(&Answer::NotTransmitted).cut());
                    return Err(cut);
                }
            };
        }
        Ok(())
    }

    async fn identify(&mut self, atr: &[u8]) -> Result<Verdict, Cut> {
        let mut step = Tap::start(atr, self.members.clone());
        loop {
            step = match step {
                TapStep::Done(verdict) => return Ok(verdict),
                TapStep::Reset(tap) => {
                    self.send(RESET).await?;
                    tap.answer(Answer::Reset)
                }
                TapStep::Transmit(command, tap) => {
                    let bytes = self.ask(&command.to_bytes(), MAX_RESPONSE_BYTES).await?;
                    let response = Response::parse(&bytes).map_err(|_| Cut::Garbage)?;
                    tap.answer_aside(Answer::Response(response)).await
                }
            };
        }
    }

    async fn send(&mut self, payload: &[u8]) -> Result<(), Cut> {
        let frame = frame(payload);
        let sent = time::timeout(ANSWER_LIMIT, self.stream.write_all(&frame)).await;
        Ok(sent.map_err(|_| Cut::Silent)??)
    }

    /// Sends and waits for the answer, at most `limit` bytes.
    async fn ask(&mut self, payload: &[u8], limit: usize) -> Result<Vec<u8>, Cut> {
        self.send(payload).await?;
        time::timeout(ANSWER_LIMIT, self.receive(limit)).await.map_err(|_| Cut::Silent)?
    }

    async fn receive(&mut self, limit: usize) -> Result<Vec<u8>, Cut> {
        let len = usize::from(self.stream.read_u16().await?);
        if len > limit {
            return Err(Cut::Oversize { len, limit });
        }
        let mut payload = vec![0; len];
        self.stream.read_exact(&mut payload).await?;
        Ok(payload)
    }
}

/// Length and payload in one write, so that no half frame waits for an acknowledgement.
/// Wiped when dropped: a command may carry a key.
fn frame(payload: &[u8]) -> Zeroizing<Vec<u8>> {
    // Ours are commands of at most 261 bytes.
    let len = u16::try_from(payload.len()).unwrap_or(u16::MAX);
    let mut frame = Zeroizing::new(Vec::with_capacity(2 + payload.len()));
    frame.extend_from_slice(&len.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_as_documented() {
        assert_eq!(*frame(GET_ATR), [0, 1, 4]);
        assert_eq!(*frame(&[0xFF, 0xCA, 0, 0, 0]), [0, 5, 0xFF, 0xCA, 0, 0, 0]);
    }
}
