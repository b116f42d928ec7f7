//! The stream under MQTT 5, TLS included, with one question to the first bytes:
//! a broker that knows only 3.1.1 answers with a CONNACK of its own version,
//! too short for MQTT 5, and the client library would wait for the rest for ever.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rumqttc::{NetworkOptions, default_socket_connect};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The broker answered in MQTT 3.1.1.
#[derive(Debug, thiserror::Error)]
#[error("the broker answered in MQTT 3.1.1")]
pub(in crate::uplink) struct OldBroker;

/// What a connection runs over.
pub(super) trait Line: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Line for T {}

/// Dials `host:port`, with TLS where `tls` is given; the name in the certificate must be `host`.
pub(super) async fn dial(
    address: String,
    network: NetworkOptions,
    host: String,
    tls: Option<Arc<rustls::ClientConfig>>,
) -> io::Result<Sniffed> {
    let tcp = default_socket_connect(address, network).await?;
    let line: Box<dyn Line> = match tls {
        None => Box::new(tcp),
        Some(config) => {
            let name = ServerName::try_from(host).map_err(io::Error::other)?;
            Box::new(tokio_rustls::TlsConnector::from(config).connect(name, tcp).await?)
        }
    };
    Ok(Sniffed { line, asked: false })
}

/// The stream.
pub(super) struct Sniffed {
    line: Box<dyn Line>,
    asked: bool,
}

impl AsyncRead for Sniffed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.line).poll_read(cx, buffer);
        let got = buffer.filled().get(before..).unwrap_or_default();
        if !self.asked && got.len() >= 2 {
            self.asked = true;
            // CONNACK with remaining length 2: MQTT 3.1.1 §3.2.1; MQTT 5 has at least 3.
            if got.starts_with(&[0x20, 0x02]) {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, OldBroker)));
            }
        }
        polled
    }
}

impl AsyncWrite for Sniffed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.line).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.line).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.line).poll_shutdown(cx)
    }
}
