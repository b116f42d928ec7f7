//! Encryption of the local HTTP. `auto`: certificates of the gateway's own
//! authority, a fresh one at every start and before it runs out. `files`: the
//! operator's certificate, read again when the file changes. What does not
//! live here: making the authority (`authority`) and the handshake (`serve`).

use std::fmt;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};

use super::authority::{Issued, Issuing};
use super::error::ApiError;
use crate::config::credentials::{Credentials, Secret};
use crate::config::tables::{ApiTable, Tls};

pub use super::authority::Authority;

/// The credential with the private key of `tls_cert_file`.
const KEY_CREDENTIAL: &str = "api-tls-key";

/// A ready server configuration whose certificate can be exchanged while it serves.
pub struct Encryption {
    pub(super) config: Arc<ServerConfig>,
    pub(super) authority: Option<Authority>,
    resolver: Arc<Resolver>,
    origin: Origin,
}

/// Where the certificate comes from.
enum Origin {
    Own { issuing: Box<Issuing>, names: Names, issued: Mutex<Issued> },
    Files { cert_file: PathBuf, credentials: Credentials, read: Mutex<[u8; 32]> },
}

/// Prepares the encryption that `[api]` asks for; `None`: plain text.
///
/// # Errors
/// [`ApiError`] naming the file and what to do.
pub(super) fn prepare(
    table: &ApiTable,
    data_dir: &Path,
    credentials: &Credentials,
) -> Result<Option<Encryption>, ApiError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let (origin, first, authority) = match table.tls {
        Tls::Off => return Ok(None),
        Tls::Auto => {
            let issuing = Box::new(Issuing::open(&data_dir.join("tls"), &provider)?);
            let names = Names { listen: table.listen, hosts: table.allowed_hosts.clone() };
            let issued = issuing.issue(names.now(), &provider)?;
            let (key, authority) = (Arc::clone(&issued.key), issuing.authority.clone());
            (Origin::Own { issuing, names, issued: Mutex::new(issued) }, key, Some(authority))
        }
        Tls::Files => {
            let cert_file = table.tls_cert_file.clone().ok_or(ApiError::NoCertFile)?;
            let (key, read) = read_files(&cert_file, credentials, &provider)?;
            (Origin::Files { cert_file, credentials: credentials.clone(), read: Mutex::new(read) }, key, None)
        }
    };
    let resolver = Arc::new(Resolver { current: RwLock::new(first) });
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| ApiError::Authority { folder: data_dir.to_owned(), why: error.to_string() })?
        .with_no_client_auth()
        .with_cert_resolver(Arc::clone(&resolver) as Arc<dyn ResolvesServerCert>);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Some(Encryption { config: Arc::new(config), authority, resolver, origin }))
}

impl Encryption {
    /// Exchanges the certificate when it is about to run out, when its names no
    /// longer fit, or when the files changed. Reads files: blocking.
    ///
    /// # Errors
    /// [`ApiError`]; the certificate in use stays.
    pub(super) fn renew(&self) -> Result<bool, ApiError> {
        let provider = self.config.crypto_provider();
        let fresh = match &self.origin {
            Origin::Own { issuing, names, issued } => {
                let mut issued = issued.lock().unwrap_or_else(PoisonError::into_inner);
                let wanted = names.now();
                if issued.is_good_for(&wanted) {
                    return Ok(false);
                }
                *issued = issuing.issue(wanted, provider)?;
                Arc::clone(&issued.key)
            }
            Origin::Files { cert_file, credentials, read } => {
                let (key, now) = read_files(cert_file, credentials, provider)?;
                let mut read = read.lock().unwrap_or_else(PoisonError::into_inner);
                if *read == now {
                    return Ok(false);
                }
                *read = now;
                key
            }
        };
        *self.resolver.current.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(true)
    }
}

/// Gives every handshake the certificate in use.
struct Resolver {
    current: RwLock<Arc<CertifiedKey>>,
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// What clients call this gateway: the names the `Host` check lets in.
struct Names {
    listen: SocketAddr,
    hosts: Vec<String>,
}

impl Names {
    fn now(&self) -> Vec<String> {
        let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
        let own = if self.listen.ip().is_unspecified() {
            primary_address(self.listen.ip())
        } else {
            Some(self.listen.ip())
        };
        names.extend(own.map(|ip| ip.to_string()));
        names.extend(self.hosts.iter().map(|host| without_port(host).to_owned()));
        names.sort();
        names.dedup();
        names
    }
}

/// `host`, `host:port`, `[v6]`, `[v6]:port` or a bare v6 address.
fn without_port(host: &str) -> &str {
    let host = host.trim();
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    match host.split_once(':') {
        Some((name, port)) if !port.contains(':') => name,
        _ => host,
    }
}

/// The address this machine would speak from. Nothing is sent: connecting a
/// UDP socket only asks the routing table (192.0.2.1 and 2001:db8::1 are for
/// documentation, RFC 5737 and RFC 3849).
fn primary_address(any: IpAddr) -> Option<IpAddr> {
    let towards = if any.is_ipv6() { "[2001:db8::1]:9" } else { "192.0.2.1:9" };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).ok()?;
    socket.connect(towards).ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

fn read_files(
    cert_file: &Path,
    credentials: &Credentials,
    provider: &CryptoProvider,
) -> Result<(Arc<CertifiedKey>, [u8; 32]), ApiError> {
    let pem = std::fs::read(cert_file)
        .map_err(|source| ApiError::Unreadable { path: cert_file.to_owned(), source })?;
    let not_pem = |what, why: String| ApiError::NotPem { path: cert_file.to_owned(), what, why };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| not_pem("certificate", error.to_string()))?;
    if chain.is_empty() {
        return Err(not_pem("certificate", "no CERTIFICATE block".into()));
    }
    let secret = credentials.require(KEY_CREDENTIAL)?;
    let read = Sha256::new().chain_update(&pem).chain_update([0]).chain_update(secret.expose()).finalize();
    let key =
        CertifiedKey::from_der(chain, private_key(&secret)?, provider).map_err(|error| match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                ApiError::KeyMismatch { cert: cert_file.to_owned() }
            }
            other => not_pem("certificate and key", other.to_string()),
        })?;
    Ok((Arc::new(key), read.into()))
}

fn private_key(secret: &Secret) -> Result<PrivateKeyDer<'static>, ApiError> {
    PrivateKeyDer::from_pem_slice(secret.expose()).map_err(|error| ApiError::NotPem {
        path: KEY_CREDENTIAL.into(),
        what: "private key",
        why: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_lose_their_port() {
        // (configured, name)
        let cases = [
            ("till.example", "till.example"),
            ("till.example:8480", "till.example"),
            ("192.168.0.2:8480", "192.168.0.2"),
            ("[fe80::1]:8480", "fe80::1"),
            ("fe80::1", "fe80::1"),
        ];
        for (configured, name) in cases {
            assert_eq!(without_port(configured), name, "{configured}");
        }
    }
}
