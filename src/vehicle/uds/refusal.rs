//! Negative response codes in words (ISO 14229-1 annex A.1). What a car refuses to a
//! read-only tester, said so that somebody in a workshop knows what to make of it.

use crate::event::Text;

/// The negative answer `7F service code`; `None` when it is no such answer.
#[must_use]
pub fn of(payload: &[u8]) -> Option<(u8, u8)> {
    match payload {
        [0x7F, service, code, ..] => Some((*service, *code)),
        _ => None,
    }
}

/// The code in both languages. Codes that only answers to writing services carry are not
/// told apart: they are never asked.
#[must_use]
pub fn text(code: u8) -> Text {
    let (zh, en) = match code {
        0x10 => ("一般性拒绝", "general reject"),
        0x11 => ("不支持该服务", "service not supported"),
        0x12 => ("不支持该子功能", "sub-function not supported"),
        0x13 => ("报文长度或格式错误", "wrong length or format"),
        0x14 => ("应答过长", "the answer would be too long"),
        0x21 => ("忙，请稍后重试", "busy, repeat the request"),
        0x22 => ("条件不满足", "conditions not correct"),
        0x24 => ("请求顺序错误", "wrong sequence of requests"),
        0x25 => ("下级节点无应答", "no answer from a node behind it"),
        0x26 => ("故障阻止执行", "a failure prevents it"),
        0x31 => ("请求超出范围", "request out of range"),
        0x33 => ("需要安全访问授权", "security access denied"),
        0x34 => ("需要身份认证（安全网关）", "authentication required (secure gateway)"),
        0x35 => ("密钥无效", "invalid key"),
        0x36 => ("尝试次数过多", "too many attempts"),
        0x37 => ("需等待后再试", "wait before the next attempt"),
        0x70 => ("不接受上传下载", "transfer not accepted"),
        0x72 => ("编程失败", "programming failed"),
        0x78 => ("已收到请求，应答待定", "request received, answer pending"),
        0x7E => ("当前会话不支持该子功能", "sub-function not supported in the active session"),
        0x7F => ("当前会话不支持该服务", "service not supported in the active session"),
        0x81 => ("发动机转速过高", "engine speed too high"),
        0x82 => ("发动机转速过低", "engine speed too low"),
        0x83 => ("发动机正在运转", "the engine runs"),
        0x84 => ("发动机未运转", "the engine does not run"),
        0x85 => ("发动机运转时间过短", "the engine has not run long enough"),
        0x88 => ("车速过高", "vehicle speed too high"),
        0x92 => ("电压过高", "voltage too high"),
        0x93 => ("电压过低", "voltage too low"),
        _ => ("拒绝", "refused"),
    };
    Text::new(zh, en)
}

/// For `errors` of a report: a session or a lock is named as the reason, and that it stays so.
#[must_use]
pub fn for_errors(code: u8) -> String {
    let words = text(code).en;
    match code {
        0x33 | 0x34 | 0x7E | 0x7F => format!("{words} ({code:02X}); read in the default session only"),
        _ => format!("{words} ({code:02X})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals() {
        assert_eq!(of(&[0x7F, 0x22, 0x31]), Some((0x22, 0x31)));
        assert_eq!(of(&[0x7F, 0x22]), None);
        assert_eq!(of(&[0x62, 0xF1, 0x90]), None);
        for code in 0..=u8::MAX {
            let text = text(code);
            assert!(!text.zh.is_empty() && !text.en.is_empty());
        }
        assert_eq!(for_errors(0x31), "request out of range (31)");
        assert!(for_errors(0x7F).contains("default session only"));
    }
}
