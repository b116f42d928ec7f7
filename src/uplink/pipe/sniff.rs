//! The stream under MQTT, TLS included, with one question to the first bytes:
//! are they a CONNACK of our version? A web server's answer, or the CONNACK of
//! a broker that knows only 3.1.1, would leave the client library waiting for the
//! rest of a packet that never comes.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rumqttc::{NetworkOptions, default_socket_connect};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::config::tables::MqttVersion;

/// The first bytes are not a CONNACK of our version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::uplink) enum Stranger {
    /// The broker answered in MQTT 3.1.1.
    #[error("the broker answered in MQTT 3.1.1")]
    OldBroker,
    /// Something else answered.
    #[error("the answer begins with byte 0x{0:02X}, which is no CONNACK")]
    NotMqtt(u8),
}

/// What a connection runs over.
pub(super) trait Line: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Line for T {}

/// Dials `host:port`, with TLS where `tls` is given; the name in the certificate must be `host`.
pub(super) async fn dial(
    address: String,
    network: NetworkOptions,
    host: String,
    tls: Option<Arc<rustls::ClientConfig>>,
    version: MqttVersion,
) -> io::Result<Sniffed> {
    let tcp = default_socket_connect(address, network).await?;
    let line: Box<dyn Line> = match tls {
        None => Box::new(tcp),
        Some(config) => {
            let name = ServerName::try_from(host).map_err(io::Error::other)?;
            Box::new(tokio_rustls::TlsConnector::from(config).connect(name, tcp).await?)
        }
    };
    Ok(Sniffed { line, version, asked: false })
}

/// The stream.
pub(super) struct Sniffed {
    line: Box<dyn Line>,
    version: MqttVersion,
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
            if let Some(stranger) = stranger(got, self.version) {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, stranger)));
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

/// CONNACK is 0x20; its remaining length is 2 in MQTT 3.1.1 (§3.2.1), at least 3 in MQTT 5 (§3.2.2).
fn stranger(first: &[u8], version: MqttVersion) -> Option<Stranger> {
    match first {
        [0x20, 0x02, ..] if version == MqttVersion::V5 => Some(Stranger::OldBroker),
        [0x20, ..] | [] => None,
        [other, ..] => Some(Stranger::NotMqtt(*other)),
    }
}
