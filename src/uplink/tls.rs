//! The TLS side of the connection: whom we trust and who we are. The server's
//! name is always checked.

use std::path::Path;
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::fault::Fault;
use crate::config::credentials::Credentials;
use crate::config::tables::MqttTable;

/// Builds the client side from `ca_file` (or the system's roots) and, with
/// `client_cert_file`, our certificate and the credential `mqtt-client-key`.
///
/// # Errors
/// [`Fault::Setup`] naming the file and what to do.
pub fn client(table: &MqttTable, credentials: &Credentials) -> Result<Arc<ClientConfig>, Fault> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Fault::Tls(error.to_string()))?
        .with_root_certificates(roots(table.ca_file.as_deref())?);
    let config = match &table.client_cert_file {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let chain = certificates(path)?;
            let secret = credentials.require("mqtt-client-key")?;
            let key = PrivateKeyDer::from_pem_slice(secret.expose()).map_err(|error| {
                Fault::Setup(format!("the credential mqtt-client-key is not a PEM private key ({error})"))
            })?;
            builder.with_client_auth_cert(chain, key).map_err(|error| {
                Fault::Setup(format!(
                    "mqtt.client_cert_file and mqtt-client-key do not belong together ({error})"
                ))
            })?
        }
    };
    Ok(Arc::new(config))
}

fn roots(ca_file: Option<&Path>) -> Result<RootCertStore, Fault> {
    let mut roots = RootCertStore::empty();
    match ca_file {
        Some(path) => {
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|error| {
                    Fault::Setup(format!("mqtt.ca_file {}: not a CA certificate ({error})", path.display()))
                })?;
            }
        }
        // A single unreadable system certificate is no reason to trust none.
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(Fault::Setup(
                    "this box has no system certificates; install ca-certificates or set mqtt.ca_file".into(),
                ));
            }
        }
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let unreadable = |error: &dyn std::fmt::Display| {
        Fault::Setup(format!(
            "{}: {error}; put PEM certificates there, readable by the daemon",
            path.display()
        ))
    };
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(|certificates| certificates.collect())
        .map_err(|error| unreadable(&error))?;
    if found.is_empty() { Err(unreadable(&"no certificate in it")) } else { Ok(found) }
}
