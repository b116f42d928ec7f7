//! A reply's lines to what the car said: messages that answer the request, by
//! ECU; refusals; complaints. Pure.

use super::frame;
use super::isotp;
use super::port::Reply;
use super::reply::{Line, classify};
use crate::vehicle::answer::Answer;
use crate::vehicle::gate::Request;
use crate::vehicle::protocol::Protocol;

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
    let mut headless = false;
    for line in &reply.lines {
        match classify(line) {
            Line::Data(digits) => match frame::parse(&digits, protocol) {
                Ok(frame) => frames.push(frame),
                Err(error) => {
                    tracing::debug!(%error, "line dropped");
                    headless |= has_no_header(&digits, request);
                    answer.garbage += 1;
                }
            },
            Line::Text(text) if is_numbered(&text) => {
                headless = true;
                answer.garbage += 1;
            }
            Line::Complaint(complaint) => answer.complaints.push(complaint),
            Line::Banner(_) => answer.restarted = true,
            Line::SettingsLost => answer.settings_lost = true,
            Line::Garbage | Line::Text(_) => answer.garbage += 1,
            Line::Ok | Line::Progress | Line::Alert | Line::Vendor => {}
        }
    }
    let assembled = if protocol.is_can() { isotp::assemble(&frames) } else { isotp::single_frames(frames) };
    let mut answer = answer.sort(assembled, request);
    // It was told to print headers: it restarted without a word.
    answer.restarted |= headless && answer.messages.is_empty();
    answer
}

/// A whole answer without a header in front (`ATH0`, the state after a reset).
fn has_no_header(digits: &str, request: Request) -> bool {
    hex::decode(digits).is_ok_and(|bytes| request.is_answered_by(&bytes))
}

/// A line of a long answer as printed without headers: `0: 49 02 01 31 44 34`.
fn is_numbered(text: &str) -> bool {
    let Some((number, data)) = text.split_once(':') else { return false };
    let is_hex = |text: &str| text.bytes().all(|b| b.is_ascii_hexdigit() || b == b' ');
    number.len() == 1 && is_hex(number) && !data.trim().is_empty() && is_hex(data)
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
    fn an_adapter_without_headers_forgot_its_settings() {
        let vin = Request::vehicle_info(2);
        for (name, lines, request, protocol, restarted) in [
            ("11-bit", &["410C0CB2"][..], Request::current(0x0C), Protocol::Can11At500, true),
            ("29-bit", &["41 0C 0C B2"], Request::current(0x0C), Protocol::Can29At500, true),
            ("KWP", &["410C0CB2"], Request::current(0x0C), Protocol::KwpFast, true),
            ("J1850", &["410C0CB2"], Request::current(0x0C), Protocol::J1850Pwm, true),
            (
                "long, two units interleaved",
                &["014", "0: 49 02 01 31 44 34", "008", "0: 49 02 01 31 32 33", "1: 47 50 30 30 52 35 35"],
                vin,
                Protocol::Can11At500,
                true,
            ),
            ("29-bit, long", &["014", "0:490201314434", "1:47503030523535"], vin, Protocol::Can29At250, true),
            ("with headers", &["7E804410C0CB2"], Request::current(0x0C), Protocol::Can11At500, false),
            ("garbage", &["7E8!!"], Request::current(0x0C), Protocol::Can11At500, false),
            ("half a line", &["7E80441"], Request::current(0x0C), Protocol::Can11At500, false),
        ] {
            assert_eq!(read(lines, request, protocol).restarted, restarted, "{name}");
        }
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
