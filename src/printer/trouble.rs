//! Why a printer cannot print right now: one value for the device's state, the
//! health board and the job that waits.

use super::star_tcp300::Tcp300Error;
use super::star_tcp300::status::Status;
use crate::event::Text;
use crate::event::device::DeviceStatus;
use crate::link::LinkError;

/// What stands in the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// The device state it means.
    pub status: DeviceStatus,
    /// Stable code.
    pub reason: &'static str,
    /// For people: what is wrong and what to do.
    pub text: Text,
    /// Whether the printer must be opened again.
    pub lost: bool,
}

impl Trouble {
    /// Something a person at the printer puts right; the connection stands.
    pub(super) fn at_the_printer(reason: &'static str, zh: &str, en: &str) -> Self {
        Self { status: DeviceStatus::Degraded, reason, text: Text::new(zh, en), lost: false }
    }

    pub(super) fn cover_open() -> Self {
        Tcp300Error::Reports(Status::COVER_OPEN).into()
    }

    pub(super) fn card_in_exit() -> Self {
        Self::at_the_printer(
            "card-in-exit",
            "出卡口有卡，请取走后再插入下一张",
            "a card is in the exit: pull it out, then insert the next one",
        )
    }

    /// Both languages in one line, as a job's `error` has it.
    pub(super) fn line(&self) -> String {
        line(&self.text)
    }
}

/// Both languages in one line.
pub(super) fn line(text: &Text) -> String {
    format!("{} / {}", text.zh, text.en)
}

impl From<Tcp300Error> for Trouble {
    fn from(error: Tcp300Error) -> Self {
        let status = match &error {
            Tcp300Error::Link(_) | Tcp300Error::Silent => DeviceStatus::Absent,
            Tcp300Error::Reports(status) if status.needs_repair() => DeviceStatus::Failed,
            Tcp300Error::Strange(_) | Tcp300Error::Refused | Tcp300Error::Garbled => DeviceStatus::Failed,
            Tcp300Error::Reports(_) | Tcp300Error::Busy => DeviceStatus::Degraded,
        };
        Self { status, reason: error.reason(), text: error.text(), lost: error.is_lost() }
    }
}

impl From<LinkError> for Trouble {
    fn from(error: LinkError) -> Self {
        let zh = match &error {
            LinkError::Missing { path } => format!("找不到 {}，请插好打印机数据线", path.display()),
            LinkError::Busy { path, holder } => {
                format!("{} 被其他程序占用，请先停止它（{holder}）", path.display())
            }
            LinkError::Denied { path } => format!("无权打开 {}，请安装 udev 规则", path.display()),
            LinkError::Unreachable { peer, source } => {
                format!("无法连接 {peer}：{source}；请检查电源、地址和网络")
            }
            LinkError::Other { what, source } => format!("{what}：{source}"),
        };
        let text = Text::new(zh, error.to_string());
        Self { status: DeviceStatus::Absent, reason: error.reason(), text, lost: true }
    }
}
