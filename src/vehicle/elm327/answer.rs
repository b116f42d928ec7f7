//! A reply's lines to what the car said: messages that answer the request, by
//! ECU; refusals; complaints. Pure.

use super::frame::{self, EcuAddress, Protocol};
use super::isotp::{self, Message};
use super::port::Reply;
use super::reply::{Complaint, Line, classify};
use crate::vehicle::gate::Request;

/// Negative response: ISO 14229-1 / SAE J1979 service id 7F.
const NEGATIVE: u8 = 0x7F;
/// "Wait for the real answer."
const RESPONSE_PENDING: u8 = 0x78;

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    /// Positive answers in order of sender; one ECU may have several.
    pub messages: Vec<Message>,
    /// `7F service code`, by sender, without those who answered after all.
    pub refusals: Vec<(EcuAddress, u8)>,
    /// ECUs that asked for patience and said no more.
    pub pending: Vec<EcuAddress>,
    /// ECUs whose answer is not whole.
    pub incomplete: Vec<EcuAddress>,
    /// What the adapter complained about.
    pub complaints: Vec<Complaint>,
    /// Lines that are not what any adapter prints.
    pub garbage: usize,
    /// Messages that answer an earlier request: dropped.
    pub late: usize,
    /// The adapter restarted (banner) while it answered.
    pub restarted: bool,
    /// `ERR94`: settings lost, CAN search blocked.
    pub settings_lost: bool,
}

impl Answer {
    /// Whether the car (not the adapter) kept silent.
    #[must_use]
    pub fn is_silence(&self) -> bool {
        self.messages.is_empty()
            && self.refusals.is_empty()
            && self.incomplete.is_empty()
            && self.complaints.iter().any(|complaint| complaint.is_silence())
    }

    /// Whether asking once more may help: something came and was spoilt.
    #[must_use]
    pub fn is_spoilt(&self) -> bool {
        !self.incomplete.is_empty()
            || self.garbage > 0 && self.messages.is_empty()
            || self.complaints.iter().any(|complaint| {
                matches!(
                    complaint,
                    Complaint::DataError
                        | Complaint::RxError
                        | Complaint::BufferFull
                        | Complaint::Stopped
                        | Complaint::BusBusy
                        | Complaint::FeedBack
                )
            })
    }

    /// Why there is no usable answer, for `errors` of the report; `None` when there is one.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        if let Some(ecu) = self.incomplete.first() {
            return Some(format!("{ecu}: half a reply"));
        }
        let spoilt = self.complaints.iter().find(|c| !c.is_silence());
        if let Some(complaint) = spoilt {
            return Some(complaint.text().into());
        }
        if !self.messages.is_empty() {
            return None;
        }
        if let Some((ecu, code)) = self.refusals.first() {
            return Some(format!("{ecu}: {} ({code:02X})", refusal_text(*code)));
        }
        if let Some(ecu) = self.pending.first() {
            return Some(format!("{ecu}: still busy (78)"));
        }
        match self.complaints.first() {
            Some(complaint) => Some(complaint.text().into()),
            None if self.garbage > 0 => Some("garbage".into()),
            None => Some("no data".into()),
        }
    }
}

/// Negative response codes of ISO 14229-1 table A.1 that cars give to read requests.
fn refusal_text(code: u8) -> &'static str {
    match code {
        0x10 => "general reject",
        0x11 => "service not supported",
        0x12 => "sub-function not supported",
        0x13 => "wrong length or format",
        0x21 => "busy, repeat the request",
        0x22 => "conditions not correct",
        0x31 => "request out of range",
        0x33 => "security access denied",
        0x78 => "response pending",
        _ => "refused",
    }
}

/// The hex lines of a reply, for the guess of the protocol.
#[must_use]
pub fn data_lines(reply: &Reply) -> Vec<String> {
    reply
        .lines
        .iter()
        .filter_map(|line| match classify(line) {
            Line::Data(digits) => Some(digits),
            _ => None,
        })
        .collect()
}

/// Reads the reply to `request`.
#[must_use]
pub fn interpret(reply: &Reply, request: Request, protocol: Protocol) -> Answer {
    let mut answer = Answer { garbage: reply.garbage, ..Answer::default() };
    let mut frames = Vec::new();
    for line in &reply.lines {
        match classify(line) {
            Line::Data(digits) => match frame::parse(&digits, protocol) {
                Ok(frame) => frames.push(frame),
                Err(error) => {
                    tracing::debug!(%error, "line dropped");
                    answer.garbage += 1;
                }
            },
            Line::Complaint(complaint) => answer.complaints.push(complaint),
            Line::Banner(_) => answer.restarted = true,
            Line::SettingsLost => answer.settings_lost = true,
            Line::Garbage | Line::Text(_) => answer.garbage += 1,
            Line::Ok | Line::Progress | Line::Alert | Line::Vendor => {}
        }
    }
    let assembled = if protocol.is_can() { isotp::assemble(&frames) } else { isotp::single_frames(frames) };
    for message in assembled.messages {
        sort_in(message, request, &mut answer);
    }
    for broken in assembled.broken {
        // Half of an earlier answer is not our loss.
        if broken.beginning.is_empty() || request.is_answered_by(&broken.beginning) {
            answer.incomplete.push(broken.sender);
        }
    }
    let answered = |ecu: &EcuAddress, messages: &[Message]| messages.iter().any(|m| m.sender == *ecu);
    answer.refusals.retain(|(ecu, _)| !answered(ecu, &answer.messages));
    answer.pending.retain(|ecu| {
        !answered(ecu, &answer.messages)
            && !answer.refusals.iter().any(|(other, _)| other == ecu)
            && !answer.incomplete.contains(ecu)
    });
    answer.messages.sort_by(|a, b| a.sender.cmp(&b.sender));
    answer
}

fn sort_in(message: Message, request: Request, answer: &mut Answer) {
    match message.payload.as_slice() {
        payload if request.is_answered_by(payload) => answer.messages.push(message),
        &[NEGATIVE, service, code, ..] if service == request.service() => {
            if code == RESPONSE_PENDING {
                answer.pending.push(message.sender);
            } else {
                answer.refusals.push((message.sender, code));
            }
        }
        _ => answer.late += 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str], request: Request, protocol: Protocol) -> Answer {
        let reply = Reply { lines: lines.iter().map(|l| (*l).to_owned()).collect(), garbage: 0 };
        interpret(&reply, request, protocol)
    }

    fn told(answer: &Answer) -> Vec<String> {
        answer.messages.iter().map(|m| format!("{} {}", m.sender, hex::encode_upper(&m.payload))).collect()
    }

    #[test]
    fn answers_complaints_and_late_frames() {
        let can = Protocol::Can11At500;
        let rpm = Request::current(0x0C);
        for (name, lines, request, expected, trouble) in [
            ("plain", &["7E804410C0CB2"][..], rpm, vec!["7E8 410C0CB2"], None),
            (
                "two ECUs",
                &["7E904410C0CB2", "7E804410C0CB3"],
                rpm,
                vec!["7E8 410C0CB3", "7E9 410C0CB2"],
                None,
            ),
            ("glued search", &["SEARCHING...7E804410C0CB2"], rpm, vec!["7E8 410C0CB2"], None),
            ("late frame of another PID", &["7E803410D00", "7E804410C0CB2"], rpm, vec!["7E8 410C0CB2"], None),
            ("only a late frame", &["7E803410D00"], rpm, vec![], Some("no data")),
            ("pending, then real", &["7E8037F0178", "7E804410C0CB2"], rpm, vec!["7E8 410C0CB2"], None),
            ("pending only", &["7E8037F0178"], rpm, vec![], Some("7E8: still busy (78)")),
            ("refused", &["7E8037F0112"], rpm, vec![], Some("7E8: sub-function not supported (12)")),
            ("no data", &["NO DATA"], rpm, vec![], Some("no data")),
            ("half", &["7E81014490201314434"], Request::vehicle_info(2), vec![], Some("7E8: half a reply")),
            ("data with RX error", &["7E804410C0C <RX ERROR"], rpm, vec![], Some("receive error")),
            (
                "buffer full",
                &["7E804410C0CB2", "BUFFER FULL"],
                rpm,
                vec!["7E8 410C0CB2"],
                Some("adapter buffer full"),
            ),
            ("vendor line", &["+CONNECTED", "7E804410C0CB2"], rpm, vec!["7E8 410C0CB2"], None),
            ("garbage", &["\u{FFFD}@#"], rpm, vec![], Some("garbage")),
        ] {
            let answer = read(lines, request, can);
            assert_eq!(told(&answer), expected, "{name}");
            assert_eq!(answer.trouble().as_deref(), trouble, "{name}");
        }
    }

    #[test]
    fn restarts_are_noticed() {
        let answer = read(&["ELM327 v1.5"], Request::current(0), Protocol::Can11At500);
        assert!(answer.restarted);
        assert!(read(&["LV RESET"], Request::current(0), Protocol::Can11At500).restarted);
        assert!(read(&["ERR94"], Request::current(0), Protocol::Can11At500).settings_lost);
    }

    #[test]
    fn older_buses_have_a_message_a_line() {
        let answer = read(
            &["48 6B 10 43 01 33 00 00 00 00 3A", "48 6B 10 43 04 20 00 00 00 00 2A"],
            Request::confirmed_codes(),
            Protocol::Iso9141,
        );
        assert_eq!(told(&answer), ["10 43013300000000", "10 43042000000000"]);
    }
}
