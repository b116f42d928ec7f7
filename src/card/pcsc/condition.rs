//! How a table's readers are, in one state with its words. Pure.

use pcsc::Error;

use crate::card::report::Condition;
use crate::card::verdict::Refusal;
use crate::config::tables::ReaderRole;
use crate::event::device::DeviceStatus;

/// What is known of pcscd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Service {
    /// Nothing yet.
    Unknown,
    /// It answers.
    Up,
    /// It refuses or is not there.
    Down(Error),
    /// It takes calls and does not answer.
    Hung,
}

/// One matching reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct SlotState {
    /// Something is in the field (for a SAM slot: the module).
    pub(super) occupied: bool,
    /// What the last card operation ended in, unless it was good.
    pub(super) fault: Option<Refusal>,
}

/// The table's state.
pub(super) fn condition(service: Service, role: ReaderRole, glob: &str, slots: &[SlotState]) -> Condition {
    match service {
        Service::Unknown => Condition::plain(DeviceStatus::Starting),
        Service::Up if slots.is_empty() && role == ReaderRole::Sam => no_slot(glob),
        Service::Up if slots.is_empty() => missing(glob),
        Service::Up => of_slots(role, slots),
        Service::Down(Error::SecurityViolation | Error::NoAccess) => Condition::because(
            DeviceStatus::Failed,
            "pcscd-denied",
            "pcscd 不允许本用户访问读卡器。请安装随附的 polkit 规则，然后重启 pcscd。".into(),
            "pcscd does not let this user reach readers; install the polkit rule that comes with baygate, then restart pcscd".into(),
        ),
        Service::Down(error) => Condition::because(
            DeviceStatus::Absent,
            "pcscd-missing",
            format!("智能卡服务 pcscd 没有运行（{error}）。请安装并启动：apt install pcscd，systemctl enable --now pcscd.socket。"),
            format!("the smart card service pcscd is not running ({error}); install and start it: apt install pcscd, systemctl enable --now pcscd.socket"),
        ),
        Service::Hung => Condition::because(
            DeviceStatus::Failed,
            "pcscd-hung",
            "智能卡服务 pcscd 没有应答。请重启它：systemctl restart pcscd。".into(),
            "the smart card service pcscd does not answer; restart it: systemctl restart pcscd".into(),
        ),
    }
}

fn missing(glob: &str) -> Condition {
    Condition::because(
        DeviceStatus::Absent,
        "reader-missing",
        format!(
            "没有名称符合 {glob:?} 的读卡器。请插上读卡器；用 baygate devices 查看现有读卡器的名称。如系统占用了它，请禁用内核模块 pn533_usb。"
        ),
        format!(
            "no reader is named like {glob:?}; plug it in, or see `baygate devices` for the names that are there; the kernel module pn533_usb may have taken it: blacklist it"
        ),
    )
}

/// Why no slot is meant: `sam_slot::Tables::meant`.
fn no_slot(glob: &str) -> Condition {
    Condition::because(
        DeviceStatus::Absent,
        "reader-missing",
        format!(
            "没有读卡器可作为 SAM 卡座 {glob:?}：没有名称符合的；或有几个符合而名称中都没有 SAM；或收会员卡的读卡器配置同样符合它。请插上读卡器，或把 name 写得更准，只符合一个（用 baygate devices 查看名称）。"
        ),
        format!(
            "no reader can be the SAM's slot {glob:?}: none is named so, or several are and none of them says SAM, or a table of member cards names it as exactly; plug it in, or let `name` fit one alone and more exactly (`baygate devices` has the names)"
        ),
    )
}

fn of_slots(role: ReaderRole, slots: &[SlotState]) -> Condition {
    if role == ReaderRole::Sam {
        return match slots.iter().any(|slot| slot.occupied) {
            true => Condition::plain(DeviceStatus::Ready),
            false => Condition::because(
                DeviceStatus::Degraded,
                "sam-missing",
                "读卡器的 SAM 卡座是空的。请插入 SAM 卡。".into(),
                "the SAM slot is empty; insert the SAM".into(),
            ),
        };
    }
    let of = |slot: &SlotState| slot.fault.and_then(|fault| Some((fault, fault.reader_code()?)));
    let Some((fault, reason)) = slots.iter().find_map(of) else {
        return Condition::plain(DeviceStatus::Ready);
    };
    let status = if slots.iter().all(|slot| of(slot).is_some()) {
        DeviceStatus::Failed
    } else {
        DeviceStatus::Degraded
    };
    let text = fault.text();
    Condition::because(status, reason, text.zh, text.en)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_trouble_has_its_reason_and_both_texts() {
        use DeviceStatus::{Absent, Degraded, Failed, Ready, Starting};
        let good = SlotState::default();
        let hung = SlotState { occupied: true, fault: Some(Refusal::NoAnswer) };
        let full = SlotState { occupied: true, fault: None };
        let cases = [
            ("at start", Service::Unknown, ReaderRole::Card, vec![], Starting, None),
            (
                "no pcscd",
                Service::Down(Error::NoService),
                ReaderRole::Card,
                vec![],
                Absent,
                Some("pcscd-missing"),
            ),
            (
                "denied",
                Service::Down(Error::SecurityViolation),
                ReaderRole::Card,
                vec![],
                Failed,
                Some("pcscd-denied"),
            ),
            ("pcscd hangs", Service::Hung, ReaderRole::Card, vec![good], Failed, Some("pcscd-hung")),
            ("none matches", Service::Up, ReaderRole::Card, vec![], Absent, Some("reader-missing")),
            ("no slot", Service::Up, ReaderRole::Sam, vec![], Absent, Some("reader-missing")),
            ("good", Service::Up, ReaderRole::Card, vec![good, full], Ready, None),
            ("one of two", Service::Up, ReaderRole::Card, vec![good, hung], Degraded, Some("reader-hung")),
            ("the only one", Service::Up, ReaderRole::Card, vec![hung], Failed, Some("reader-hung")),
            ("SAM", Service::Up, ReaderRole::Sam, vec![full], Ready, None),
            ("SAM slot empty", Service::Up, ReaderRole::Sam, vec![good], Degraded, Some("sam-missing")),
        ];
        for (name, service, role, slots, status, reason) in cases {
            let condition = condition(service, role, "ACS*", &slots);
            assert_eq!((condition.status, condition.reason), (status, reason), "{name}");
            assert_eq!(condition.text.is_some(), reason.is_some(), "{name}");
            assert!(condition.text.is_none_or(|text| !text.zh.is_empty() && !text.en.is_empty()), "{name}");
        }
    }
}
