//! The accept loops and the life of one connection. Each connection has its
//! own task: one that hangs, floods or panics disturbs no other, and the number
//! of them is bounded on each listener apart, so that a flood on TCP does not
//! lock the CLI out.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::bind::BoundApi;
use super::error::ApiError;
use super::principal::{self, Peer};
use super::routes;
use super::stall::StallGuard;
use super::state::{Context, Limits, Shared};
use super::tls::Encryption;
use crate::event::Text;
use crate::health::{Health, Trouble};

/// The largest head of a request, and what is buffered of an answer, in bytes.
const BUFFER_BYTES: usize = 64 * 1024;
/// How often certificates are looked at.
const RENEWAL: Duration = Duration::from_secs(600);
/// How often the watchdog hears of this loop.
const BEAT: Duration = Duration::from_secs(5);
/// The loop's name on the health board.
const LOOP: &str = "api";

/// Serves until `stop`; then open answers get a few seconds and event streams end.
///
/// # Errors
/// None today; a listener that fails once is tried again.
pub async fn serve(bound: BoundApi, context: Context, stop: CancellationToken) -> Result<(), ApiError> {
    let BoundApi { tcp, local, control, encryption, visitors } = bound;
    let (health, limits) = (context.health.clone(), context.limits);
    let authority = encryption.as_ref().and_then(|encryption| encryption.authority.clone());
    let shared = Arc::new(Shared::new(context, visitors, authority, stop.clone()));
    let encryption = encryption.map(Arc::new);
    let door = Door {
        router: routes::router(&shared),
        limits,
        stop: stop.clone(),
        tls: encryption.as_ref().map(|encryption| TlsAcceptor::from(Arc::clone(&encryption.config))),
        handshakes: Arc::new(Semaphore::new(limits.handshakes)),
    };
    let (tcp_slots, control_slots) =
        (Arc::new(Semaphore::new(limits.connections)), Arc::new(Semaphore::new(limits.control_connections)));
    tracing::info!(listen = %local, tls = encryption.is_some(), "local HTTP ready");
    let (mut beat, mut renewal) = (interval(BEAT), interval(RENEWAL));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = beat.tick() => health.beat(LOOP),
            _ = renewal.tick() => renew(encryption.clone(), &health),
            Some(ended) = connections.join_next() => note_panic(ended),
            accepted = tcp.accept() => match accepted {
                Ok((stream, remote)) => match slot(&tcp_slots, "tcp") {
                    Some(slot) => { connections.spawn(door.clone().tcp(stream, remote, slot)); }
                    None => drop(stream),
                },
                Err(error) => rest_after(&error).await,
            },
            accepted = control.listener.accept() => match accepted {
                Ok((stream, _)) => match slot(&control_slots, "control") {
                    Some(slot) => { connections.spawn(door.clone().control(stream, slot)); }
                    None => drop(stream),
                },
                Err(error) => rest_after(&error).await,
            },
        }
    }
    drop((tcp, control)); // nobody new; the socket file goes
    let drained = async { while connections.join_next().await.is_some() {} };
    if timeout(limits.drain, drained).await.is_err() {
        tracing::warn!(open = connections.len(), "connections cut at the stop");
        connections.shutdown().await;
    }
    health.rest(LOOP);
    Ok(())
}

fn slot(slots: &Arc<Semaphore>, listener: &'static str) -> Option<OwnedSemaphorePermit> {
    let slot = Arc::clone(slots).try_acquire_owned().ok();
    if slot.is_none() {
        metrics::counter!("baygate_api_connections_refused_total", "listener" => listener).increment(1);
    }
    slot
}

/// Out of file descriptors and the like: wait a moment instead of spinning.
async fn rest_after(error: &io::Error) {
    metrics::counter!("baygate_api_accept_errors_total").increment(1);
    tracing::warn!(%error, "accept failed");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

fn note_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        metrics::counter!("baygate_api_panics_total").increment(1);
        tracing::error!(%error, "a connection's task panicked; only that connection is lost");
    }
}

fn renew(encryption: Option<Arc<Encryption>>, health: &Health) {
    let (Some(encryption), health) = (encryption, health.clone()) else { return };
    tokio::task::spawn_blocking(move || match encryption.renew() {
        Ok(renewed) => {
            health.well("api/tls");
            if renewed {
                tracing::info!("server certificate exchanged");
            }
        }
        Err(error) => health.trouble(Trouble {
            part: "api/tls".into(),
            code: "certificate-not-renewed".into(),
            text: Text::new(
                format!("新证书无法使用，继续使用旧证书：{error}"),
                format!("the new certificate cannot be used, the old one stays: {error}"),
            ),
            blocks_ready: false,
        }),
    });
}

/// Everything a new connection needs.
#[derive(Clone)]
struct Door {
    router: Router,
    limits: Limits,
    stop: CancellationToken,
    tls: Option<TlsAcceptor>,
    handshakes: Arc<Semaphore>,
}

impl Door {
    async fn tcp(self, stream: TcpStream, remote: SocketAddr, slot: OwnedSemaphorePermit) {
        let Ok(local) = stream.local_addr() else { return };
        // Events are small and wanted at once.
        let _ = stream.set_nodelay(true);
        let peer = Peer::Tcp { remote, local };
        match self.tls.clone() {
            None => self.converse(stream, peer).await,
            Some(acceptor) => {
                if let Some(stream) = self.shake_hands(acceptor, stream).await {
                    self.converse(stream, peer).await;
                }
            }
        }
        drop(slot);
    }

    async fn control(self, stream: UnixStream, slot: OwnedSemaphorePermit) {
        let Ok(credentials) = stream.peer_cred() else { return };
        let (uid, gid) = (credentials.uid(), credentials.gid());
        let admin = tokio::task::spawn_blocking(move || principal::administers(uid, gid)).await;
        let peer = Peer::Control { uid, admin: admin.unwrap_or(false) };
        self.converse(stream, peer).await;
        drop(slot);
    }

    async fn shake_hands(
        &self,
        acceptor: TlsAcceptor,
        stream: TcpStream,
    ) -> Option<tokio_rustls::server::TlsStream<TcpStream>> {
        let Ok(_slot) = self.handshakes.try_acquire() else {
            metrics::counter!("baygate_api_connections_refused_total", "listener" => "handshake")
                .increment(1);
            return None;
        };
        let failed = match timeout(self.limits.head_timeout, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => return Some(stream),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "too slow".to_owned(),
        };
        metrics::counter!("baygate_api_handshake_errors_total").increment(1);
        tracing::debug!(error = failed, "TLS handshake failed");
        None
    }

    async fn converse<S>(&self, stream: S, peer: Peer)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let router = TowerToHyperService::new(self.router.clone());
        let service = service_fn(move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(peer);
            router.call(request)
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.head_timeout)
            .max_buf_size(BUFFER_BYTES)
            .serve_connection(TokioIo::new(StallGuard::new(stream, self.limits.write_stall)), service);
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            metrics::counter!("baygate_api_connection_errors_total").increment(1);
            tracing::debug!(%error, "connection ended badly");
        }
    }
}
