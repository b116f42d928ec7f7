//! The gateway's own certificate authority: made once, kept in `data_dir/tls`,
//! pinned by tills at pairing. Only it is kept: server certificates are made
//! anew in memory. A box whose clock starts in 1970 must not make certificates
//! that nobody accepts later, so the authority has no end (RFC 5280 §4.1.2.5)
//! and "now" is never before this program existed.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};

use super::error::ApiError;
use crate::clock::UtcMillis;

/// Key and certificate in one file, so that one rename makes or leaves both.
const SECRET_FILE: &str = "authority.pem";
/// The certificate alone, for people and scripts.
const PUBLIC_FILE: &str = "ca.pem";
/// Life of a server certificate. Clients refuse more than 825 days.
const LIFE: Duration = Duration::from_secs(397 * 86_400);
/// A new one is made when less than this is left.
const RENEW_BEFORE: Duration = Duration::from_secs(100 * 86_400);
/// Clocks of tills may be this far behind.
const SLACK: Duration = Duration::from_secs(2 * 86_400);
/// 2026-01-01T00:00:00Z in seconds: no certificate is older than this program.
const EARLIEST_S: u64 = 1_767_225_600;

/// What others may know of the authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// The certificate, PEM.
    pub pem: String,
    /// SHA-256 of its DER, upper-case hex.
    pub fingerprint: String,
}

/// The authority at work.
pub(super) struct Issuing {
    pub(super) authority: Authority,
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
}

/// A server certificate and what it is good for.
pub(super) struct Issued {
    pub(super) key: Arc<CertifiedKey>,
    names: Vec<String>,
    from_s: u64,
}

impl Issued {
    /// Whether it may stay: right names, and the clock well inside its life.
    pub(super) fn is_good_for(&self, names: &[String]) -> bool {
        let now = now_s();
        let fresh = self.from_s + LIFE.as_secs() - RENEW_BEFORE.as_secs();
        self.names == names && (self.from_s.saturating_sub(SLACK.as_secs())..fresh).contains(&now)
    }
}

/// Seconds since 1970, never before the program existed.
fn now_s() -> u64 {
    u64::try_from(UtcMillis::now().0 / 1000).unwrap_or(0).max(EARLIEST_S)
}

impl Issuing {
    /// Reads the authority of `folder`, or makes it.
    ///
    /// # Errors
    /// [`ApiError::Authority`].
    pub(super) fn open(folder: &Path, provider: &CryptoProvider) -> Result<Self, ApiError> {
        let failed = |why: String| ApiError::Authority { folder: folder.to_owned(), why };
        let path = folder.join(SECRET_FILE);
        let pem = match fs::read(&path) {
            Ok(pem) => pem,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let pem = make().map_err(|error| failed(error.to_string()))?;
                keep(folder, SECRET_FILE, 0o600, &pem).map_err(|error| failed(error.to_string()))?;
                tracing::info!(folder = %folder.display(), "own certificate authority made");
                pem
            }
            Err(error) => return Err(failed(error.to_string())),
        };
        let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| failed(error.to_string()))?;
        let der = CertificateDer::from_pem_slice(&pem).map_err(|error| failed(error.to_string()))?;
        CertifiedKey::from_der(vec![der.clone()], key.clone_key(), provider)
            .map_err(|error| failed(format!("{SECRET_FILE}: {error}")))?;
        let key = KeyPair::try_from(&key).map_err(|error| failed(error.to_string()))?;
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(|error| failed(error.to_string()))?;
        let public = public_part(&pem);
        if fs::read(folder.join(PUBLIC_FILE)).ok().as_deref() != Some(public.as_bytes()) {
            keep(folder, PUBLIC_FILE, 0o644, public.as_bytes()).map_err(|error| failed(error.to_string()))?;
        }
        let authority = Authority { pem: public, fingerprint: hex::encode_upper(Sha256::digest(&der)) };
        Ok(Self { authority, issuer, der })
    }

    /// A fresh key with a certificate for these names.
    ///
    /// # Errors
    /// [`ApiError::Names`].
    pub(super) fn issue(&self, names: Vec<String>, provider: &CryptoProvider) -> Result<Issued, ApiError> {
        let failed = |why: String| ApiError::Names { why };
        let from_s = now_s();
        let mut params = CertificateParams::new(names.clone()).map_err(|error| failed(error.to_string()))?;
        let from = date_time_ymd(1970, 1, 1) + Duration::from_secs(from_s);
        params.not_before = from - SLACK;
        params.not_after = from + LIFE;
        params.distinguished_name.push(DnType::CommonName, "baygate");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().map_err(|error| failed(error.to_string()))?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(|error| failed(error.to_string()))?;
        let chain = vec![certificate.der().clone(), self.der.clone()];
        let secret = PrivateKeyDer::try_from(key.serialize_der()).map_err(|error| failed(error.into()))?;
        let key =
            CertifiedKey::from_der(chain, secret, provider).map_err(|error| failed(error.to_string()))?;
        Ok(Issued { key: Arc::new(key), names, from_s })
    }
}

/// A new authority: private key and certificate, PEM.
fn make() -> Result<Vec<u8>, rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.not_before = date_time_ymd(2026, 1, 1) - SLACK;
    params.not_after = date_time_ymd(9999, 12, 31);
    params.distinguished_name.push(DnType::CommonName, "Baygate gateway authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key)?;
    Ok(format!("{}{}", key.serialize_pem(), certificate.pem()).into_bytes())
}

/// From the certificate's first line on.
fn public_part(pem: &[u8]) -> String {
    let text = String::from_utf8_lossy(pem);
    text.find("-----BEGIN CERTIFICATE-----").and_then(|at| text.get(at..)).unwrap_or("").to_owned()
}

/// Writes a file so that it is whole or not there: a power cut while the
/// authority is made must not leave half a key that later pins fail against.
fn keep(folder: &Path, name: &str, mode: u32, content: &[u8]) -> io::Result<()> {
    if !folder.is_dir() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let part = folder.join(format!("{name}.part"));
    match fs::remove_file(&part) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&part)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&part, folder.join(name))?;
    fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_authority_stays_and_its_key_is_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("tls");
        let provider = rustls::crypto::ring::default_provider();
        let first = Issuing::open(&folder, &provider).unwrap().authority;
        let again = Issuing::open(&folder, &provider).unwrap().authority;
        assert_eq!(first, again);
        assert_eq!(first.fingerprint.len(), 64);
        let mode = fs::metadata(folder.join(SECRET_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!fs::read_to_string(folder.join(PUBLIC_FILE)).unwrap().contains("PRIVATE"));
    }

    #[test]
    fn a_certificate_is_made_anew_before_it_runs_out() {
        let dir = tempfile::tempdir().unwrap();
        let provider = rustls::crypto::ring::default_provider();
        let issuing = Issuing::open(&dir.path().join("tls"), &provider).unwrap();
        let names = vec!["localhost".to_owned()];
        let mut issued = issuing.issue(names.clone(), &provider).unwrap();
        assert!(issued.is_good_for(&names));
        assert!(!issued.is_good_for(&["other.example".to_owned()]));
        issued.from_s -= LIFE.as_secs() - RENEW_BEFORE.as_secs();
        assert!(!issued.is_good_for(&names));
        // The clock was ahead when it was made and has been set right since.
        issued.from_s = now_s() + 10 * SLACK.as_secs();
        assert!(!issued.is_good_for(&names));
    }

    #[test]
    fn a_damaged_authority_is_said_and_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let provider = rustls::crypto::ring::default_provider();
        fs::write(dir.path().join(SECRET_FILE), "garbage").unwrap();
        assert!(matches!(Issuing::open(dir.path(), &provider), Err(ApiError::Authority { .. })));
        assert_eq!(fs::read_to_string(dir.path().join(SECRET_FILE)).unwrap(), "garbage");
    }
}
