//! The bytes at an address that headquarters names: in the message itself (`data:`), or at its file
//! server, over TLS with the roots and the certificate of `[mqtt]`. What they are worth is not
//! judged here: size and digest are (`list`).

use std::error::Error;
use std::io;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::Request;
use hyper::header::{CONNECTION, HOST};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::Url;

use super::Trouble;
use super::list::{MOST_BYTES, Refused};
use crate::uplink::fault::Fault;
use crate::uplink::{Setup, tls};

/// How a message carries its own file.
const INLINE: &str = "data:application/json;base64,";
/// A file server that takes longer is asked again later.
const PATIENCE: Duration = Duration::from_secs(60);

/// The file at `url`, of which `size` bytes are expected: more are not read.
pub(super) async fn get(url: &str, size: u64, setup: &Setup) -> Result<Bytes, Trouble> {
    if let Some(text) = url.strip_prefix(INLINE) {
        let bytes = STANDARD.decode(text).map_err(|error| Refused::File(format!("no base64: {error}")))?;
        return Ok(bytes.into());
    }
    let url = &Url::parse(url).map_err(|_| nowhere(url))?;
    let default_port = match url.scheme() {
        "https" => 443,
        "http" => 80,
        _ => return Err(nowhere(url.as_str()).into()),
    };
    let host = url.host_str().ok_or_else(|| nowhere(url.as_str()))?.to_owned();
    let port = url.port().unwrap_or(default_port);
    let exchange = async {
        // An IPv6 address stands in brackets in an address, and without where it is dialled.
        let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let stream =
            TcpStream::connect((bare.as_str(), port)).await.map_err(|error| failed(&host, &error))?;
        if default_port == 80 {
            return read(stream, url, &host, size).await;
        }
        let config = tls::client(&setup.table, &setup.credentials).map_err(|fault| failed(&host, &fault))?;
        let name = ServerName::try_from(bare).map_err(|error| failed(&host, &error))?;
        let stream = TlsConnector::from(config).connect(name, stream).await;
        read(stream.map_err(|error| failed(&host, &tls_fault(&error)))?, url, &host, size).await
    };
    tokio::time::timeout(PATIENCE, exchange)
        .await
        .unwrap_or_else(|_| Err(failed(&host, &format!("no answer in {} s", PATIENCE.as_secs()))))
}

async fn read<S>(stream: S, url: &Url, host: &str, size: u64) -> Result<Bytes, Trouble>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| failed(host, &error))?;
    let line = tokio::spawn(connection);
    let path = url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()));
    let named = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    let request =
        Request::get(path).header(HOST, named).header(CONNECTION, "close").body(Empty::<Bytes>::new());
    let answer = sender.send_request(request.map_err(|error| failed(host, &error))?).await;
    let answer = answer.map_err(|error| failed(host, &answer_fault(&error)))?;
    if !answer.status().is_success() {
        line.abort();
        return Err(failed(host, &format!("it answers {}", answer.status())));
    }
    let most = usize::try_from(size.min(MOST_BYTES)).unwrap_or_default();
    let body = Limited::new(answer.into_body(), most).collect().await;
    line.abort();
    body.map(|body| body.to_bytes()).map_err(|error| failed(host, &error))
}

/// Under TLS 1.3 a server refuses our certificate only when it is asked for something.
fn answer_fault(error: &hyper::Error) -> String {
    match error.source().and_then(|cause| cause.downcast_ref()) {
        Some(cause) => tls_fault(cause),
        None => error.to_string(),
    }
}

/// What is wrong under TLS, and who puts it right. The texts of [`Fault`] speak of the broker.
fn tls_fault(error: &io::Error) -> String {
    match Fault::from_io(error) {
        Fault::UnknownIssuer => {
            "its certificate is signed by nobody we trust; add its CA to mqtt.ca_file".to_owned()
        }
        Fault::WrongName(detail) => {
            format!("its certificate is for another name; `url` must use the one in it: {detail}")
        }
        Fault::CertificateTime => {
            "its certificate is not valid now; renew it, or correct this box's clock".to_owned()
        }
        Fault::OurCertificate(detail) => format!(
            "it does not let us in: {detail}; check mqtt.client_cert_file and the credential mqtt-client-key"
        ),
        _ => error.to_string(),
    }
}

/// Which host, and no more of the address: it may carry a ticket.
fn failed(host: &str, why: &dyn std::fmt::Display) -> Trouble {
    Trouble::Fetch(format!("the list's file cannot be fetched from {host} ({why}); it is tried again"))
}

fn nowhere(url: &str) -> Refused {
    Refused::Address(url.chars().take(40).collect())
}
