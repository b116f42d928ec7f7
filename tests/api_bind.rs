//! Taking the addresses: every failure says what to do and leaves nothing behind.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod served;

use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};

use baygate::api::{self, ApiError};
use baygate::config::tables::Tls;
use served::Setup;

async fn error(setup: Setup) -> String {
    match api::bind(&setup.table, setup.dir.path(), &setup.credentials).await {
        Ok(_) => panic!("bound all the same"),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn addresses() {
    let served = Setup::new().serve().await;
    let mut taken = Setup::new();
    taken.table.listen = served.addr;
    let text = error(taken).await;
    assert!(text.contains("already in use") && text.contains("[api] listen"), "{text}");
    let mut foreign = Setup::new();
    foreign.table.listen = "192.0.2.1:8480".parse().unwrap();
    foreign.table.tls = Tls::Auto;
    let text = error(foreign).await;
    assert!(text.contains("192.0.2.1:8480") && text.contains("[api] listen"), "{text}");
    let mut open = Setup::new();
    open.table.listen = "0.0.0.0:0".parse().unwrap();
    let text = error(open).await;
    assert!(text.contains("tls = \"auto\""), "{text}");
    served.stop().await;
}

#[tokio::test]
async fn the_control_socket() {
    let mut nowhere = Setup::new();
    nowhere.table.control_socket = nowhere.dir.path().join("missing/control.sock");
    let text = error(nowhere).await;
    assert!(text.contains("does not exist") && text.contains("control_socket"), "{text}");

    let file = Setup::new();
    let path = file.table.control_socket.clone();
    std::fs::write(&path, "precious").unwrap();
    let refused = api::bind(&file.table, file.dir.path(), &file.credentials).await.err().unwrap();
    assert!(matches!(refused, ApiError::NotASocket { .. }));
    assert!(refused.to_string().contains("move it away"), "{refused}");
    assert_eq!(std::fs::read_to_string(path).unwrap(), "precious");

    let mut long = Setup::new();
    long.table.control_socket = long.dir.path().join("x".repeat(200));
    assert!(error(long).await.contains("longer than 107 bytes"));
}

#[tokio::test]
async fn a_second_daemon_is_told_and_a_stale_socket_is_replaced() {
    let served = Setup::new().serve().await;
    let meta = std::fs::metadata(&served.socket).unwrap();
    assert!(meta.file_type().is_socket());
    assert_eq!(meta.permissions().mode() & 0o777, 0o660);
    let mut second = Setup::new();
    second.table.control_socket = served.socket.clone();
    let text = error(second).await;
    assert!(text.contains("another baygate answers"), "{text}");
    // The refusal did not take the socket away.
    served.client().await;
    let socket = served.socket.clone();
    let dir = served.stop().await;
    assert!(!socket.exists(), "left behind");

    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap()); // as after kill -9
    assert!(socket.exists());
    let served = Setup::in_dir(dir).serve().await;
    served.client().await;
    served.stop().await;
}

#[tokio::test]
async fn the_group_reaches_the_socket_when_there_is_one() {
    let Ok(Some(group)) = nix::unistd::Group::from_name("baygate-admin") else {
        println!("skipped: there is no group baygate-admin here");
        return;
    };
    use std::os::unix::fs::MetadataExt as _;
    let served = Setup::new().serve().await;
    assert_eq!(std::fs::metadata(&served.socket).unwrap().gid(), group.gid.as_raw());
    served.stop().await;
}

/// Whoever is not running, or not for us, is named with what to do.
#[tokio::test]
async fn the_client_says_what_to_do() {
    use baygate::api::client::{Client, ClientError};
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("control.sock");
    let absent = Client::connect(&socket).await.unwrap_err();
    assert!(matches!(absent, ClientError::NotRunning { .. }));
    assert!(absent.to_string().contains("systemctl start baygate"), "{absent}");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    assert!(matches!(Client::connect(&socket).await.unwrap_err(), ClientError::NotRunning { .. }));
}
