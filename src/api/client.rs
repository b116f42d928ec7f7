//! How a command of the CLI reaches the running daemon: HTTP over the control
//! socket. What lives here: one request, one answer, and the event stream.
//! What does not: what the commands say and how they print it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, Stream};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{ACCEPT_LANGUAGE, CONTENT_TYPE, HOST, LOCATION};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;

pub use hyper::Method;

use super::sse::{SseEvent, SseParser};
use crate::config::values::Locale;

/// The largest answer taken, in bytes.
const MAX_ANSWER_BYTES: usize = 16 << 20;
/// How long the daemon may stay silent; its own longest wait is 60 s.
const SILENCE: Duration = Duration::from_secs(90);

/// The daemon could not be asked, or said no.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers. Exit status 3.
    #[error(
        "the daemon does not answer at {socket}: it is not running; start it with `systemctl start baygate` or `baygate run`, or name its configuration with --config"
    )]
    NotRunning {
        /// The control socket.
        socket: PathBuf,
    },
    /// The socket is there but not for this user. Exit status 4.
    #[error(
        "no right to use {socket}; run this as root, as the daemon's user, or as a member of group baygate-admin"
    )]
    Permission {
        /// The control socket.
        socket: PathBuf,
    },
    /// The daemon refused: its own words.
    #[error("{detail} ({code})")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Stable code of the problem.
        code: String,
        /// What to do, in the language asked for.
        detail: String,
    },
    /// The connection broke.
    #[error("the daemon at {socket} broke off: {source}; look at `journalctl -u baygate` and try again")]
    Broken {
        /// The control socket.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The daemon is there but says nothing.
    #[error(
        "the daemon at {socket} has not answered for 90 s; look at `journalctl -u baygate`, restart it if it hangs"
    )]
    Silent {
        /// The control socket.
        socket: PathBuf,
    },
    /// Not an answer of this program.
    #[error(
        "{socket} gave an answer that is not understood ({what}); daemon and command must be of the same version"
    )]
    NotUnderstood {
        /// The control socket.
        socket: PathBuf,
        /// What was wrong with it.
        what: String,
    },
}

/// One answer of the daemon.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Where a request that is not settled can be followed.
    pub location: Option<String>,
    /// The body; `null` when there is none.
    pub body: Value,
}

impl Answer {
    /// The body of a 2xx answer, else the refusal as an error.
    ///
    /// # Errors
    /// [`ClientError::Refused`].
    pub fn accepted(self) -> Result<Value, ClientError> {
        if (200..300).contains(&self.status) {
            return Ok(self.body);
        }
        let text = |name: &str| self.body.get(name).and_then(Value::as_str).map(str::to_owned);
        Err(ClientError::Refused {
            status: self.status,
            code: text("code").unwrap_or_else(|| format!("http-{}", self.status)),
            detail: text("detail").or_else(|| text("title")).unwrap_or_else(|| "refused".into()),
        })
    }
}

/// Speaks to the daemon over its control socket. Every request has its own connection.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
    locale: Locale,
}

impl Client {
    /// Makes sure that somebody answers at the socket.
    ///
    /// # Errors
    /// [`ClientError::NotRunning`] or [`ClientError::Permission`].
    pub async fn connect(socket: impl Into<PathBuf>) -> Result<Self, ClientError> {
        let client = Self { socket: socket.into(), locale: Locale::default() };
        client.dial().await?;
        Ok(client)
    }

    /// The language in which the daemon says what is wrong.
    #[must_use]
    pub fn with_locale(mut self, locale: Locale) -> Self {
        self.locale = locale;
        self
    }

    /// The control socket in use.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// One request with a JSON body or none.
    ///
    /// # Errors
    /// [`ClientError`]; a refusal of the daemon is an [`Answer`], see [`Answer::accepted`].
    pub async fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer, ClientError> {
        self.request_with_key(method, path, body, None).await
    }

    /// Like [`Client::request`], with an idempotency key, so that asking twice acts once.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn request_with_key(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        idempotency_key: Option<&str>,
    ) -> Result<Answer, ClientError> {
        let exchange = async {
            let response = self.send(method, path, body, idempotency_key).await?;
            let status = response.status().as_u16();
            let location =
                response.headers().get(LOCATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
            let bytes = Limited::new(response.into_body(), MAX_ANSWER_BYTES)
                .collect()
                .await
                .map_err(|error| self.not_understood(error.to_string()))?
                .to_bytes();
            let body = if bytes.is_empty() { Value::Null } else { self.json_or_text(&bytes) };
            Ok(Answer { status, location, body })
        };
        tokio::time::timeout(SILENCE, exchange)
            .await
            .map_err(|_| ClientError::Silent { socket: self.socket.clone() })?
    }

    /// The event stream; `query` is what stands behind `/v1/events?`, e.g. `class=vehicle`.
    /// The stream ends when the daemon stops.
    ///
    /// # Errors
    /// [`ClientError`], also as items when the stream breaks.
    pub async fn events(
        &self,
        query: &str,
    ) -> Result<impl Stream<Item = Result<SseEvent, ClientError>> + use<>, ClientError> {
        let path = if query.is_empty() { "/v1/events".to_owned() } else { format!("/v1/events?{query}") };
        let response = tokio::time::timeout(SILENCE, self.send(Method::GET, &path, None, None))
            .await
            .map_err(|_| ClientError::Silent { socket: self.socket.clone() })??;
        if !response.status().is_success() {
            let status = response.status().as_u16();
            let bytes = Limited::new(response.into_body(), MAX_ANSWER_BYTES)
                .collect()
                .await
                .map_err(|error| self.not_understood(error.to_string()))?
                .to_bytes();
            Answer { status, location: None, body: self.json_or_text(&bytes) }.accepted()?;
            return Err(self.not_understood("neither a stream nor a problem".into()));
        }
        let reading = Reading {
            body: response.into_body(),
            parser: SseParser::default(),
            ready: Vec::new().into_iter(),
            socket: self.socket.clone(),
        };
        Ok(stream::unfold(reading, Reading::next))
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        idempotency_key: Option<&str>,
    ) -> Result<Response<Incoming>, ClientError> {
        let stream = self.dial().await?;
        let broken = |error: hyper::Error| self.broken(io::Error::other(error));
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "control connection ended");
            }
        });
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "localhost")
            .header(ACCEPT_LANGUAGE, self.locale.pick("zh-CN", "en"));
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(key) = idempotency_key {
            request = request.header("idempotency-key", key);
        }
        let bytes = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        let request =
            request.body(Full::new(bytes)).map_err(|error| self.not_understood(error.to_string()))?;
        sender.send_request(request).await.map_err(broken)
    }

    async fn dial(&self) -> Result<UnixStream, ClientError> {
        UnixStream::connect(&self.socket).await.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ClientError::NotRunning { socket: self.socket.clone() }
            }
            io::ErrorKind::PermissionDenied => ClientError::Permission { socket: self.socket.clone() },
            _ => self.broken(error),
        })
    }

    fn json_or_text(&self, bytes: &[u8]) -> Value {
        serde_json::from_slice(bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(bytes).into_owned()))
    }

    fn broken(&self, source: io::Error) -> ClientError {
        ClientError::Broken { socket: self.socket.clone(), source }
    }

    fn not_understood(&self, what: String) -> ClientError {
        ClientError::NotUnderstood { socket: self.socket.clone(), what }
    }
}

/// The event stream while it is read.
struct Reading {
    body: Incoming,
    parser: SseParser,
    ready: std::vec::IntoIter<SseEvent>,
    socket: PathBuf,
}

impl Reading {
    async fn next(mut self) -> Option<(Result<SseEvent, ClientError>, Self)> {
        loop {
            if let Some(event) = self.ready.next() {
                return Some((Ok(event), self));
            }
            let error = match self.body.frame().await? {
                Ok(frame) => match frame.into_data().map(|data| self.parser.push(&data)) {
                    Ok(Ok(events)) => {
                        self.ready = events.into_iter();
                        continue;
                    }
                    Ok(Err(what)) => {
                        ClientError::NotUnderstood { socket: self.socket.clone(), what: what.to_string() }
                    }
                    // Trailers carry nothing here.
                    Err(_) => continue,
                },
                Err(error) => {
                    ClientError::Broken { socket: self.socket.clone(), source: io::Error::other(error) }
                }
            };
            return Some((Err(error), self));
        }
    }
}
