//! What a CAN interface is and does, read over netlink; and the asking of the helper
//! that sets one up, for which the daemon has no right itself.

use std::io;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use socketcan::CanInterface;
use socketcan::nl::{CanCtrlMode, CanState, Mtu};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// Where the helper listens (`systemd/baygate-can.socket`).
pub const HELPER: &str = "/run/baygate-can/socket";
/// The helper takes the interface down and up again; drivers need some hundred milliseconds.
const HELPER_LIMIT: Duration = Duration::from_secs(5);
/// Pause before a controller that left the bus comes back.
const RESTART_MS: u32 = 200;
/// Type of a CAN interface in `/sys/class/net/*/type` (linux/if_arp.h).
const ARPHRD_CAN: &str = "280";
/// How the helper begins when the driver refuses to listen only.
const NO_LISTENING: &str = "listen-only";
/// How often an interface that is away is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// An interface cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InterfaceError {
    /// There is none of this name.
    #[error(
        "there is no CAN interface {name}; plug the adapter in, or run `baygate devices` to see what is there"
    )]
    Missing {
        /// As configured.
        name: String,
    },
    /// It is there and down.
    #[error(
        "{name} is down; write bitrate= into the link and enable baygate-can.socket, or set it up by hand: ip link set {name} up type can bitrate 500000"
    )]
    Down {
        /// As configured.
        name: String,
    },
    /// This kernel has no CAN.
    #[error("this system's kernel has no CAN sockets; install a kernel with CAN, or load the module can_raw")]
    NoCan,
    /// The helper is not there, or refused.
    #[error("{name} cannot be set to {bitrate} bit/s: {why}")]
    NotSetUp {
        /// As configured.
        name: String,
        /// As configured.
        bitrate: u32,
        /// What to do.
        why: String,
    },
    /// Anything else.
    #[error("{name}: {what}")]
    Other {
        /// As configured.
        name: String,
        /// What the system said.
        what: String,
    },
}

impl InterfaceError {
    pub(super) fn from_io(name: &str, error: io::Error) -> Self {
        let name = name.to_owned();
        match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENODEV | Errno::ENXIO) => Self::Missing { name },
            Some(Errno::ENETDOWN) => Self::Down { name },
            Some(Errno::EAFNOSUPPORT | Errno::EPROTONOSUPPORT) => Self::NoCan,
            _ => Self::Other { name, what: error.to_string() },
        }
    }

    /// Stable code for `device.state`.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "interface-missing",
            Self::Down { .. } => "interface-down",
            Self::NoCan => "no-can",
            Self::NotSetUp { .. } => "bitrate-not-set",
            Self::Other { .. } => "interface-error",
        }
    }

    /// The driver does not know the mode in which nothing is sent.
    #[must_use]
    pub fn cannot_listen(&self) -> bool {
        matches!(self, Self::NotSetUp { why, .. } if why.starts_with(NO_LISTENING))
    }

    /// The same in Chinese.
    #[must_use]
    pub fn zh(&self) -> String {
        match self {
            Self::Missing { name } => {
                format!("没有 CAN 接口 {name}；请插上适配器，或运行 `baygate devices` 查看现有设备")
            }
            Self::Down { name } => format!(
                "{name} 未启用；请在 link 中写 bitrate= 并启用 baygate-can.socket，或手动执行：ip link set {name} up type can bitrate 500000"
            ),
            Self::NoCan => "系统内核没有 CAN 套接字；请安装带 CAN 的内核，或加载模块 can_raw".into(),
            Self::NotSetUp { name, bitrate, why } => {
                format!("无法把 {name} 设为 {bitrate} bit/s：{why}")
            }
            Self::Other { name, what } => format!("{name}：{what}"),
        }
    }
}

/// What is known of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// It is up.
    pub up: bool,
    /// It takes FD frames.
    pub fd: bool,
    /// Bits a second; `None` on interfaces without a rate (vcan).
    pub bitrate: Option<u32>,
    /// The controller sends nothing, not even acknowledgements (`CAN_CTRLMODE_LISTENONLY`).
    pub listen_only: bool,
    /// The controller left the bus.
    pub bus_off: bool,
    /// The kernel brings it back by itself.
    pub restarts: bool,
}

/// Reads an interface's state.
///
/// # Errors
/// [`InterfaceError`].
pub fn state(name: &str) -> Result<State, InterfaceError> {
    let missing = |_| InterfaceError::Missing { name: name.to_owned() };
    let interface = CanInterface::open(name).map_err(missing)?;
    let details = interface
        .details()
        .map_err(|error| InterfaceError::Other { name: name.to_owned(), what: error.to_string() })?;
    Ok(State {
        up: details.is_up,
        fd: matches!(details.mtu, Some(Mtu::Fd)),
        bitrate: details.can.bit_timing.map(|timing| timing.bitrate).filter(|rate| *rate > 0),
        listen_only: details.can.ctrl_mode.is_some_and(|modes| modes.has_mode(CanCtrlMode::ListenOnly)),
        bus_off: matches!(details.can.state, Some(CanState::BusOff)),
        restarts: details.can.restart_ms.is_some_and(|pause| pause > 0),
    })
}

/// Sets an interface up: down, bit rate, listen-only or not, back from bus-off by itself, up.
/// Needs CAP_NET_ADMIN: this is the helper's work, which is no part of the daemon.
///
/// # Errors
/// Words for the daemon's operator.
pub fn apply(name: &str, bitrate: u32, listen_only: bool) -> Result<(), String> {
    // Before anything else: another kind of interface would be down by the time it refuses.
    let kind = std::fs::read_to_string(format!("/sys/class/net/{name}/type")).unwrap_or_default();
    if kind.trim() != ARPHRD_CAN {
        return Err(format!("{name} is no CAN interface of this box"));
    }
    let told = |what: &'static str| {
        move |error: socketcan::Error| format!("{what}: {error}; does the adapter's driver know it?")
    };
    let interface = CanInterface::open(name).map_err(|error| error.to_string())?;
    interface.bring_down().map_err(told("taking it down"))?;
    interface.set_bitrate(bitrate, None).map_err(told("its bit rate"))?;
    // A driver that does not know the mode refuses it only when it is wanted.
    let mode = interface.set_ctrlmode(CanCtrlMode::ListenOnly, listen_only);
    if listen_only {
        mode.map_err(told(NO_LISTENING))?;
    }
    // Without it most controllers tell nothing of single errors, and a wrong rate looks like silence.
    if let Err(error) = interface.set_ctrlmode(CanCtrlMode::BerrReporting, true) {
        tracing::debug!(interface = name, %error, "no reporting of bus errors");
    }
    // Some drivers restart by themselves and refuse this.
    if let Err(error) = interface.set_restart_ms(RESTART_MS) {
        tracing::debug!(interface = name, %error, "no automatic restart");
    }
    interface.bring_up().map_err(told("bringing it up"))
}

/// Frames the interface received since it was made; `None`: not known. Costs nothing on a
/// full bus, where looking at the frames themselves would.
#[must_use]
pub fn received(name: &str) -> Option<u64> {
    std::fs::read_to_string(format!("/sys/class/net/{name}/statistics/rx_packets")).ok()?.trim().parse().ok()
}

/// Returns as soon as the interface is there and up.
pub async fn comes_up(name: &str) {
    while !state(name).is_ok_and(|state| state.up) {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Has the helper set the interface up with `bitrate`.
///
/// # Errors
/// [`InterfaceError::NotSetUp`] saying what to do.
pub async fn set_up(name: &str, bitrate: u32, listen_only: bool) -> Result<(), InterfaceError> {
    set_up_by(Path::new(HELPER), name, bitrate, listen_only).await
}

/// [`set_up`] by a helper that listens elsewhere.
///
/// # Errors
/// [`InterfaceError::NotSetUp`] saying what to do.
pub async fn set_up_by(
    helper: &Path,
    name: &str,
    bitrate: u32,
    listen_only: bool,
) -> Result<(), InterfaceError> {
    let refused = |why: String| InterfaceError::NotSetUp { name: name.to_owned(), bitrate, why };
    let asked = async {
        let mut stream = UnixStream::connect(helper).await?;
        let listen_only = if listen_only { " listen-only" } else { "" };
        stream.write_all(format!("{name} {bitrate}{listen_only}\n").as_bytes()).await?;
        let mut said = Vec::new();
        stream.take(512).read_to_end(&mut said).await?;
        Ok::<_, io::Error>(String::from_utf8_lossy(&said).trim().to_owned())
    };
    match tokio::time::timeout(HELPER_LIMIT, asked).await {
        Ok(Ok(said)) if said == "ok" => Ok(()),
        Ok(Ok(said)) => Err(refused(said)),
        Ok(Err(error)) => Err(refused(format!(
            "the helper cannot be asked ({error}); enable it: systemctl enable --now baygate-can.socket"
        ))),
        Err(_) => Err(refused("the helper does not answer; see journalctl -u 'baygate-can@*'".into())),
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    /// A helper that says this, and what it was asked.
    async fn asked(says: &'static str, listen_only: bool) -> (Result<(), InterfaceError>, String) {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("socket");
        let listener = UnixListener::bind(&place).unwrap();
        let helper = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut line = vec![0; 100];
            let count = stream.read(&mut line).await.unwrap();
            stream.write_all(says.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&line[..count]).into_owned()
        });
        (set_up_by(&place, "can0", 500_000, listen_only).await, helper.await.unwrap())
    }

    #[tokio::test]
    async fn the_helper_is_asked_and_believed() {
        assert_eq!(asked("ok\n", false).await, (Ok(()), "can0 500000\n".into()));
        assert_eq!(asked("ok\n", true).await.1, "can0 500000 listen-only\n");
        let (refused, _) = asked("can0 is no CAN interface of this box\n", false).await;
        let error = refused.unwrap_err();
        assert_eq!((error.reason(), error.cannot_listen()), ("bitrate-not-set", false));
        let (refused, _) = asked("listen-only: Operation not supported\n", true).await;
        assert!(refused.unwrap_err().cannot_listen());
        assert!(error.to_string().contains("no CAN interface of this box"), "{error}");
    }

    #[tokio::test]
    async fn without_the_helper_it_is_said_how_to_get_it() {
        let dir = tempfile::tempdir().unwrap();
        let error = set_up_by(&dir.path().join("none"), "can0", 500_000, false).await.unwrap_err();
        assert!(error.to_string().contains("systemctl enable --now baygate-can.socket"), "{error}");
    }

    #[test]
    fn what_the_system_says_has_a_name() {
        for (errno, reason) in [
            (Errno::ENODEV, "interface-missing"),
            (Errno::ENETDOWN, "interface-down"),
            (Errno::EAFNOSUPPORT, "no-can"),
            (Errno::EIO, "interface-error"),
        ] {
            assert_eq!(InterfaceError::from_io("can0", errno.into()).reason(), reason);
        }
        assert_eq!(state("no-such-can").unwrap_err().reason(), "interface-missing");
    }
}
