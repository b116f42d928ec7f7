//! The words for a reader on a serial port or TCP that cannot be reached. Pure.

use super::report::Condition;
use crate::event::device::DeviceStatus;
use crate::link::LinkError;

/// The line broke off.
pub(super) fn gone() -> Condition {
    Condition::because(
        DeviceStatus::Absent,
        "line-lost",
        "读卡器的连接断开。请检查数据线和电源，恢复后会自动重连。".into(),
        "the reader's line broke off; check cable and power, it is opened again by itself".into(),
    )
}

/// The line cannot be opened.
pub(super) fn unreachable(error: &LinkError) -> Condition {
    let zh = match error {
        LinkError::Missing { path } => format!("找不到 {}，请插好读卡器。", path.display()),
        LinkError::Busy { path, holder } => {
            format!("{} 被其他程序占用，请先停止它（{holder}）。", path.display())
        }
        LinkError::Denied { path } => format!("无权打开 {}，请安装 udev 规则。", path.display()),
        LinkError::Unreachable { peer, source } => {
            format!("无法连接 {peer}：{source}；请检查电源、地址和网络。")
        }
        LinkError::Other { what, source } => format!("{what}：{source}"),
    };
    Condition::because(DeviceStatus::Absent, error.reason(), zh, error.to_string())
}
