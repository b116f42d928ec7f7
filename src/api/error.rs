//! What keeps the local HTTP from serving, each with what to do about it.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::config::credentials::CredentialError;

/// The local HTTP cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Somebody else listens there.
    #[error(
        "{listen} is already in use by another program; stop it, or choose another address in [api] listen"
    )]
    AddressInUse {
        /// The address.
        listen: SocketAddr,
    },
    /// The system does not give the address.
    #[error(
        "cannot listen on {listen}: {source}; use an address of this machine and a port above 1023 in [api] listen"
    )]
    Listen {
        /// The address.
        listen: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Plain text would leave the machine.
    #[error(
        "listening on {listen} without encryption is refused; set [api] tls = \"auto\", or listen on 127.0.0.1"
    )]
    PlainText {
        /// The address.
        listen: SocketAddr,
    },
    /// The control socket's folder is not there.
    #[error(
        "folder {folder} of the control socket does not exist; create it (systemd: RuntimeDirectory=baygate), or set [api] control_socket"
    )]
    SocketFolder {
        /// The folder.
        folder: PathBuf,
    },
    /// The control socket cannot be made.
    #[error(
        "control socket {socket} cannot be made: {source}; give the folder to the user the daemon runs as, or set [api] control_socket"
    )]
    Socket {
        /// The socket.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A daemon answers at the control socket.
    #[error("another baygate answers at {socket}; stop it, or give this one its own [api] control_socket")]
    SocketInUse {
        /// The socket.
        socket: PathBuf,
    },
    /// Something that is not a socket stands in its place.
    #[error("{socket} exists and is not a socket; move it away, or set [api] control_socket")]
    NotASocket {
        /// The path.
        socket: PathBuf,
    },
    /// A certificate file cannot be read.
    #[error("{path} cannot be read: {source}; it must be readable by the user the daemon runs as")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A certificate or key file does not hold what it should.
    #[error("{path} holds no usable {what}: {why}; it must be PEM")]
    NotPem {
        /// The file or credential.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// Key and certificate are not a pair.
    #[error(
        "the credential `api-tls-key` is not the key of {cert}; put the key that belongs to this certificate"
    )]
    KeyMismatch {
        /// The certificate file.
        cert: PathBuf,
    },
    /// The key is not there.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// `tls = "files"` without a file.
    #[error("[api] tls = \"files\" needs tls_cert_file; its key is the credential `api-tls-key`")]
    NoCertFile,
    /// The own authority cannot be kept.
    #[error(
        "the gateway's own certificate authority in {folder} cannot be made: {why}; give the folder to the user the daemon runs as"
    )]
    Authority {
        /// The folder.
        folder: PathBuf,
        /// What went wrong.
        why: String,
    },
    /// A host name cannot stand in a certificate.
    #[error(
        "[api] allowed_hosts: no certificate can be made for these names: {why}; use plain DNS names and addresses"
    )]
    Names {
        /// What went wrong.
        why: String,
    },
}
