//! Encryption: the own authority and its fingerprint, the operator's files, and
//! what is said when they do not fit.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod served;

use std::time::Duration;

use baygate::api::client::Method;
use baygate::config::credentials::Credentials;
use baygate::config::tables::Tls;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use served::{PATIENCE, Served, Setup, until};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// `GET` by an ordinary client that trusts only this authority.
async fn get(ca_pem: &str, url: String) -> Result<(u16, String), ureq::Error> {
    let root = ureq::tls::Certificate::from_pem(ca_pem.as_bytes()).unwrap().to_owned();
    let get = move || {
        let tls = ureq::tls::TlsConfig::builder()
            .root_certs(ureq::tls::RootCerts::Specific(std::sync::Arc::new(vec![root])))
            .build();
        let config = ureq::Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE))
            .build();
        let mut response = ureq::Agent::new_with_config(config).get(&url).call()?;
        Ok((response.status().as_u16(), response.body_mut().read_to_string()?))
    };
    tokio::task::spawn_blocking(get).await.unwrap()
}

async fn pair(served: &Served) -> Value {
    let client = served.client().await;
    let wanted = json!({ "till": "till-1", "scopes": ["read"] });
    let opened =
        client.request(Method::POST, "/v1/pairings", Some(&wanted)).await.unwrap().accepted().unwrap();
    assert_eq!(opened["ca_sha256"].as_str(), served.fingerprint.as_deref());
    let typed = json!({ "code": opened["code"] });
    client.request(Method::POST, "/v1/pairings/redeem", Some(&typed)).await.unwrap().accepted().unwrap()
}

fn fingerprint(pem: &str) -> String {
    let der = rustls_pki_types::CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    hex::encode_upper(Sha256::digest(der))
}

#[tokio::test]
async fn a_paired_till_trusts_the_own_authority_and_keeps_trusting_it() {
    let mut setup = Setup::new();
    setup.table.tls = Tls::Auto;
    setup.table.allowed_hosts = vec!["localhost.store.example".into()];
    let served = setup.serve().await;
    let till = pair(&served).await;
    let ca = till["ca_pem"].as_str().unwrap().to_owned();
    assert_eq!(fingerprint(&ca), till["ca_sha256"].as_str().unwrap());
    assert!(!ca.contains("PRIVATE"));
    for host in ["localhost", "127.0.0.1"] {
        let url = format!("https://{host}:{}/healthz", served.addr.port());
        assert_eq!(get(&ca, url).await.unwrap(), (200, "ok\n".into()), "{host}");
    }
    let plain = served.send("GET", "/healthz", &[], "").await;
    assert_ne!(plain.status, 200, "plain text on a TLS port");
    let dir = served.stop().await;

    let mut setup = Setup::in_dir(dir);
    setup.table.tls = Tls::Auto;
    let served = setup.serve().await;
    assert_eq!(served.fingerprint.as_deref(), till["ca_sha256"].as_str());
    let url = format!("https://127.0.0.1:{}/healthz", served.addr.port());
    assert_eq!(get(&ca, url).await.unwrap().0, 200);
    served.stop().await;

    let mut stranger = Setup::new();
    stranger.table.tls = Tls::Auto;
    let stranger = stranger.serve().await;
    let url = format!("https://127.0.0.1:{}/healthz", stranger.addr.port());
    assert!(get(&ca, url).await.is_err(), "another gateway's certificate was trusted");
    stranger.stop().await;
}

#[tokio::test]
async fn handshakes_are_bounded_and_end_in_time() {
    let mut setup = Setup::new();
    setup.table.tls = Tls::Auto;
    setup.limits.head_timeout = Duration::from_millis(200);
    setup.limits.handshakes = 2;
    let served = setup.serve().await;
    let ca = std::fs::read_to_string(served.dir.path().join("tls/ca.pem")).unwrap();
    let mut silent = Vec::new();
    for _ in 0..8 {
        silent.push(TcpStream::connect(served.addr).await.unwrap());
    }
    let mut garbage = TcpStream::connect(served.addr).await.unwrap();
    let _ = garbage.write_all(b"GET / HTTP/1.1\r\n\r\n").await;
    for stream in &mut silent {
        let mut rest = Vec::new();
        // Reset or closed: both are the end of it.
        let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("cut off");
    }
    let url = format!("https://127.0.0.1:{}/healthz", served.addr.port());
    until("TLS serves again", || async { get(&ca, url.clone()).await.is_ok() }).await;
    served.stop().await;
}

/// A certificate for `localhost` and its key, self-signed.
fn pair_of_files() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

fn with_files(cert: &str, key: Option<&str>) -> Setup {
    let mut setup = Setup::new();
    let folder = setup.dir.path().join("credentials");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(setup.dir.path().join("cert.pem"), cert).unwrap();
    if let Some(key) = key {
        std::fs::write(folder.join("api-tls-key"), key).unwrap();
    }
    setup.credentials = Credentials::new(Some(folder));
    setup.table.tls = Tls::Files;
    setup.table.tls_cert_file = Some(setup.dir.path().join("cert.pem"));
    setup
}

#[tokio::test]
async fn the_operators_files_serve() {
    let (cert, key) = pair_of_files();
    let served = with_files(&cert, Some(&key)).serve().await;
    assert_eq!(served.fingerprint, None);
    let url = format!("https://localhost:{}/healthz", served.addr.port());
    assert_eq!(get(&cert, url).await.unwrap(), (200, "ok\n".into()));
    let till = pair_without_authority(&served).await;
    assert!(till.get("ca_pem").is_none(), "{till}");
    served.stop().await;
}

async fn pair_without_authority(served: &Served) -> Value {
    let client = served.client().await;
    let wanted = json!({ "till": "till-1", "scopes": ["read"] });
    let opened =
        client.request(Method::POST, "/v1/pairings", Some(&wanted)).await.unwrap().accepted().unwrap();
    let typed = json!({ "code": opened["code"] });
    client.request(Method::POST, "/v1/pairings/redeem", Some(&typed)).await.unwrap().accepted().unwrap()
}

#[tokio::test]
async fn files_that_do_not_fit_are_said() {
    let (cert, key) = pair_of_files();
    let (_, other_key) = pair_of_files();
    // (name, certificate, key, what the message holds)
    let cases: [(&str, &str, Option<&str>, &str); 6] = [
        ("another key", &cert, Some(&other_key), "is not the key of"),
        ("no key", &cert, None, "api-tls-key"),
        ("garbage for a key", &cert, Some("hunter2"), "no usable private key"),
        ("garbage for a certificate", "hello", Some(&key), "no usable certificate"),
        ("a key for a certificate", &key, Some(&key), "no usable certificate"),
        ("half a certificate", &cert[..cert.len() / 2], Some(&key), "no usable certificate"),
    ];
    for (name, cert, key, expected) in cases {
        let error = with_files(cert, key).try_serve().await.err().expect(name).to_string();
        assert!(error.contains(expected), "{name}: {error}");
        assert!(!error.contains("hunter2"), "{name}: {error}");
    }
    let mut missing = with_files(&cert, Some(&key));
    missing.table.tls_cert_file = Some("/nowhere/cert.pem".into());
    let error = missing.try_serve().await.err().unwrap().to_string();
    assert!(error.contains("/nowhere/cert.pem cannot be read"), "{error}");
}
