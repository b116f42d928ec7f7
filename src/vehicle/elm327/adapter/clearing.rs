//! Clearing codes through an ELM327: one command, sent once. Nothing here repeats: not after
//! a spoilt reply, not after a restart, not after "wait". What came of it is read afterwards.

use std::time::Duration;

use super::Adapter;
use crate::vehicle::clear::{ClearAnswer, Delivery};
use crate::vehicle::elm327::port::Reply;
use crate::vehicle::elm327::reply::{Line, classify};
use crate::vehicle::elm327::{frame, isotp};
use crate::vehicle::error::AdapterError;
use crate::vehicle::gate::clear::{ClearRequest, Way};
use crate::vehicle::protocol::Protocol;

/// Units erase a memory that wears: some take seconds (P2* is 5 s, ISO 14229-2).
const CLEAR_LIMIT: Duration = Duration::from_secs(10);

impl Adapter {
    /// Clears codes. Asks everybody: the request before must have gone to everybody too.
    ///
    /// # Errors
    /// [`AdapterError`]; whether the car cleared is then not known.
    pub async fn clear(&mut self, request: ClearRequest) -> Result<ClearAnswer, AdapterError> {
        let way = request.way();
        let protocol = self.protocol.unwrap_or(Protocol::Can11At500);
        let told = self.exchange(request.into_outgoing(), CLEAR_LIMIT).await;
        if let Err(error @ (AdapterError::Restarting | AdapterError::Gone(_))) = &told
            && !self.port_mut().holds_clearing()
        {
            // A banner lay there, or the stream had ended: not a byte of it went out.
            tracing::warn!(%error, "codes not cleared");
            self.needs_set_up = true;
            return Ok(ClearAnswer::without_answer(Delivery::NotSent, "not sent: the adapter is not ready"));
        }
        // A line with nothing in it repeats the last command (data sheet): noise on the wire must
        // not find this one there. After silence that was seen to already.
        if told.is_ok()
            && let Err(error) = self.resync().await
        {
            tracing::warn!(%error, "the adapter still remembers the clearing");
        }
        Ok(interpret(&told?, way, protocol))
    }
}

fn interpret(reply: &Reply, way: Way, protocol: Protocol) -> ClearAnswer {
    let mut frames = Vec::new();
    let mut complaint = None;
    for line in &reply.lines {
        match classify(line) {
            Line::Data(digits) => frames.extend(frame::parse(&digits, protocol).ok()),
            Line::Complaint(told) => complaint = complaint.or(Some(told.text())),
            Line::Banner(_) | Line::SettingsLost => complaint = Some("the adapter restarted"),
            _ => {}
        }
    }
    let assembled = if protocol.is_can() { isotp::assemble(&frames) } else { isotp::single_frames(frames) };
    ClearAnswer::sort(&assembled, way, complaint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::vehicle::ClearOutcome;

    #[test]
    fn what_came_of_it() {
        use ClearOutcome::{Cleared, Partly, Refused, Unknown};
        let can = Protocol::Can11At500;
        for (name, lines, way, protocol, outcome) in [
            ("both", &["7E80144", "7E90144"][..], Way::Obd, can, Cleared),
            ("padded", &["7E8 01 44 00 00 00 00 00 00"], Way::Obd, can, Cleared),
            ("wait, then done", &["7E8037F0478", "7E80144"], Way::Obd, can, Cleared),
            ("wait, no more", &["7E8037F0478"], Way::Obd, can, Unknown),
            ("engine runs", &["7E8037F0422"], Way::Obd, can, Refused),
            ("one of two", &["7E80144", "7E9037F0422"], Way::Obd, can, Partly),
            ("uds", &["7E80154"], Way::Uds, can, Cleared),
            ("refused by a gateway", &["7E8037F1433"], Way::Uds, can, Refused),
            ("an answer to something else", &["7E804410C0000"], Way::Obd, can, Unknown),
            ("nobody", &["NO DATA"], Way::Obd, can, Unknown),
            ("restarted", &["ELM327 v1.5"], Way::Obd, can, Unknown),
            ("older bus", &["48 6B 10 44 07"], Way::Obd, Protocol::Iso9141, Cleared),
        ] {
            let reply = Reply { lines: lines.iter().map(|l| (*l).to_owned()).collect(), garbage: 0 };
            assert_eq!(interpret(&reply, way, protocol).outcome(), outcome, "{name}");
        }
    }
}
