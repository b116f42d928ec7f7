//! Taking the addresses: the TCP listener and the control socket. Nothing is
//! served here; a failure says what to do and leaves nothing behind.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::unistd::{Group, chown};
use tokio::net::{TcpListener, UnixListener, UnixStream};

use super::error::ApiError;
use super::hosts::Visitors;
use super::principal::ADMIN_GROUP;
use super::tls::{self, Encryption};
use crate::config::credentials::Credentials;
use crate::config::tables::{ApiTable, Tls};

/// The longest path a Unix socket can be reached by, in bytes (`sun_path`, unix(7)).
const LONGEST_PATH: usize = 107;
/// Mode of the control socket: the daemon's user and its group.
const SOCKET_MODE: u32 = 0o660;

/// Both listeners, taken and not yet served.
pub struct BoundApi {
    pub(super) tcp: TcpListener,
    pub(super) local: SocketAddr,
    pub(super) control: ControlSocket,
    pub(super) encryption: Option<Encryption>,
    pub(super) visitors: Visitors,
}

impl BoundApi {
    /// Where the local HTTP listens; the port is known even when 0 was asked for.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// SHA-256 of the own authority's certificate, with `tls = "auto"`.
    #[must_use]
    pub fn fingerprint(&self) -> Option<&str> {
        let encryption = self.encryption.as_ref()?;
        encryption.authority.as_ref().map(|authority| authority.fingerprint.as_str())
    }
}

/// Takes the addresses of `[api]`. `data_dir` keeps the own authority (`tls =
/// "auto"`), `credentials` the key (`tls = "files"`).
///
/// # Errors
/// [`ApiError`] saying what to do.
pub async fn bind(
    table: &ApiTable,
    data_dir: &Path,
    credentials: &Credentials,
) -> Result<BoundApi, ApiError> {
    if table.tls == Tls::Off && !table.listen.ip().is_loopback() {
        return Err(ApiError::PlainText { listen: table.listen });
    }
    let encryption = tls::prepare(table, data_dir, credentials)?;
    let listen = table.listen;
    let refused = |source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => ApiError::AddressInUse { listen },
        _ => ApiError::Listen { listen, source },
    };
    let tcp = TcpListener::bind(listen).await.map_err(refused)?;
    let local = tcp.local_addr().map_err(|source| ApiError::Listen { listen, source })?;
    let control = ControlSocket::bind(&table.control_socket).await?;
    Ok(BoundApi { tcp, local, control, encryption, visitors: Visitors::of(table) })
}

/// The control socket; removed from the file system when dropped.
pub(super) struct ControlSocket {
    pub(super) listener: UnixListener,
    path: PathBuf,
    inode: u64,
}

impl ControlSocket {
    async fn bind(path: &Path) -> Result<Self, ApiError> {
        let failed = |source: io::Error| ApiError::Socket { socket: path.to_owned(), source };
        // Bound under a short name, a long one would work until somebody connects.
        if path.as_os_str().len() > LONGEST_PATH {
            let text = format!("its path is longer than {LONGEST_PATH} bytes");
            return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, text)));
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if !folder.is_dir() {
            return Err(ApiError::SocketFolder { folder: folder.to_owned() });
        }
        refuse_if_answered(path).await?;
        // Made under another name and renamed: nobody can connect before owner and
        // mode are right, and a stale file is replaced in one step.
        let made = folder.join(format!(".baygate-control-{}", std::process::id()));
        match fs::remove_file(&made) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let listener = UnixListener::bind(&made).map_err(failed)?;
        let finished =
            restrict(&made).and_then(|()| fs::rename(&made, path)).and_then(|()| fs::metadata(path));
        match finished {
            Ok(meta) => Ok(Self { listener, path: path.to_owned(), inode: meta.ino() }),
            Err(error) => {
                let _ = fs::remove_file(&made); // the first error is the one to tell
                Err(failed(error))
            }
        }
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // Another daemon may have put its own there meanwhile.
        if fs::metadata(&self.path).is_ok_and(|meta| meta.ino() == self.inode) {
            let _ = fs::remove_file(&self.path); // a stale file is replaced at the next start
        }
    }
}

async fn refuse_if_answered(path: &Path) -> Result<(), ApiError> {
    let Ok(meta) = fs::symlink_metadata(path) else { return Ok(()) };
    if !meta.file_type().is_socket() {
        return Err(ApiError::NotASocket { socket: path.to_owned() });
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(ApiError::Socket { socket: path.to_owned(), source }),
        Ok(_) => Err(ApiError::SocketInUse { socket: path.to_owned() }),
    }
}

fn restrict(path: &Path) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE))?;
    match Group::from_name(ADMIN_GROUP) {
        // Under the unit the process runs in the group and may not call chown at all.
        Ok(Some(group)) if fs::metadata(path)?.gid() == group.gid.as_raw() => {}
        Ok(Some(group)) => {
            if let Err(error) = chown(path, None, Some(group.gid)) {
                // Without it only root and the own user reach the socket: safe, so no reason to stop.
                tracing::warn!(group = ADMIN_GROUP, %error, "control socket not given to the group; add the daemon's user to it");
            }
        }
        _ => tracing::debug!(
            group = ADMIN_GROUP,
            "no such group: control socket for root and the own user only"
        ),
    }
    Ok(())
}
