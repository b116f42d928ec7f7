//! What came of a request, whichever driver asked: messages by control unit,
//! refusals, complaints. Pure. What does not live here: lines and frames (the
//! drivers), and what the payloads mean (`obd`, `pids`).

use std::time::Duration;

use super::gate::Request;
use super::protocol::EcuAddress;

/// A whole message of one ECU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Who sent it.
    pub sender: EcuAddress,
    /// Service, then data.
    pub payload: Vec<u8>,
}

/// A message that did not come whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Who sent it.
    pub sender: EcuAddress,
    /// What came of it (empty when its beginning is missing).
    pub beginning: Vec<u8>,
}

/// What the frames of one reply contained.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Assembled {
    /// Whole messages, in the order in which they were completed.
    pub messages: Vec<Message>,
    /// Messages of which a part is missing.
    pub broken: Vec<Broken>,
}

/// The adapter's complaint about a request, stable names for `errors` and logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Complaint {
    /// `NO DATA`: nobody answered in time. Ambiguous: may be a bus that dozed off.
    NoData,
    /// `UNABLE TO CONNECT`: no protocol answered.
    UnableToConnect,
    /// `BUS INIT: ...ERROR`: the slow start of an older bus failed.
    BusInit,
    /// `BUS BUSY`.
    BusBusy,
    /// `BUS ERROR`.
    BusError,
    /// `CAN ERROR`: wrong rate, nobody acknowledges, or broken wiring.
    CanError,
    /// `DATA ERROR` or a line marked `<DATA ERROR`.
    DataError,
    /// A line marked `<RX ERROR`.
    RxError,
    /// `BUFFER FULL`: the adapter was too slow for the answer.
    BufferFull,
    /// `STOPPED`: a byte came while it worked.
    Stopped,
    /// `FB ERROR`: its own output is not what it sees on the bus.
    FeedBack,
    /// `ERRnn`: internal error.
    Internal(u8),
    /// `NOT CONNECTED` of some clones.
    NotConnected,
    /// `?`: the adapter does not know the command.
    Unknown,
    /// Not asked: the adapter cuts requests off after two bytes.
    CutsRequests,
    /// Not asked, or asked in vain: the adapter dies of long answers.
    LongAnswer,
    /// Not asked: no unit can be addressed so on this bus, or with this adapter.
    NoAddress,
    /// Not asked: one character lost on the line could make a clearing of it, and the adapter
    /// does not echo what it read.
    NoEcho,
    /// Not asked: the line lost characters each time it was typed.
    Misheard,
}

impl Complaint {
    /// For `errors` of the report.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::NoData => "no data",
            Self::UnableToConnect => "unable to connect",
            Self::BusInit => "bus initialisation failed",
            Self::BusBusy => "bus busy",
            Self::BusError => "bus error",
            Self::CanError => "CAN error",
            Self::DataError => "data error",
            Self::RxError => "receive error",
            Self::BufferFull => "adapter buffer full",
            Self::Stopped => "stopped",
            Self::FeedBack => "bus feedback error",
            Self::Internal(_) => "adapter internal error",
            Self::NotConnected => "adapter not connected to a car",
            Self::Unknown => "adapter does not know the command",
            Self::CutsRequests => "adapter reads only two bytes of a request",
            Self::LongAnswer => "adapter fails on long answers",
            Self::NoAddress => "the unit cannot be addressed",
            Self::NoEcho => {
                "not sent: a character lost on the line could make it clear codes, and the adapter does not echo; use another adapter"
            }
            Self::Misheard => {
                "not sent: the line to the adapter loses characters; check plug, cable and baud"
            }
        }
    }

    /// Whether the request never reached the car, for fear of a bad line.
    #[must_use]
    pub fn is_unsent(self) -> bool {
        matches!(self, Self::NoEcho | Self::Misheard)
    }

    /// Whether the adapter cannot ask such a thing of anybody.
    #[must_use]
    pub fn is_inability(self) -> bool {
        matches!(self, Self::CutsRequests | Self::LongAnswer | Self::NoAddress | Self::Unknown)
    }

    /// Whether the car, rather than the adapter, is silent.
    #[must_use]
    pub fn is_silence(self) -> bool {
        matches!(
            self,
            Self::NoData
                | Self::UnableToConnect
                | Self::BusInit
                | Self::NotConnected
                | Self::CanError
                | Self::BusError
        )
    }
}

/// Negative response: ISO 14229-1 / SAE J1979 service id 7F.
const NEGATIVE: u8 = 0x7F;
/// "Wait for the real answer."
const RESPONSE_PENDING: u8 = 0x78;

/// "Busy, repeat the request": ISO 14229-1 table A.1.
const BUSY: u8 = 0x21;

/// P2*: so long a unit may take after each "wait" (ISO 14229-2).
pub const PENDING_WITHIN: Duration = Duration::from_secs(5);
/// How often one unit may say "wait", for one question.
pub const PENDING_ROUNDS: u8 = 5;
/// How often a question is repeated to a unit that is busy.
pub const BUSY_REPEATS: u8 = 3;
/// Before that, time to get something done: as long as a unit at work usually needs to say "wait".
pub const BUSY_PAUSE: Duration = Duration::from_millis(250);

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
            && self.pending.is_empty()
            && self.incomplete.is_empty()
            && self.complaints.iter().any(|complaint| complaint.is_silence())
    }

    /// Whether a unit is busy with something else and wants to be asked again.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.refusals.iter().any(|(_, code)| *code == BUSY)
    }

    /// Whether a unit has said its last word: "wait" and "busy" are none.
    #[must_use]
    pub fn is_final_of(&self, unit: &EcuAddress) -> bool {
        self.messages.iter().any(|message| message.sender == *unit)
            || self.refusals.iter().any(|(sender, code)| sender == unit && *code != BUSY)
            || self.incomplete.contains(unit)
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

impl Answer {
    /// With what an earlier try brought of units that are silent or broke off in this one.
    #[must_use]
    pub fn completed_by(mut self, earlier: Self) -> Self {
        let told: Vec<EcuAddress> = self.messages.iter().map(|message| message.sender.clone()).collect();
        self.messages.extend(earlier.messages.into_iter().filter(|message| !told.contains(&message.sender)));
        self.messages.sort_by(|a, b| a.sender.cmp(&b.sender));
        let answered = |ecu: &EcuAddress| self.messages.iter().any(|message| message.sender == *ecu);
        let is_new = |(ecu, _): &(EcuAddress, u8)| !self.refusals.iter().any(|(other, _)| other == ecu);
        let refusals: Vec<_> = earlier.refusals.into_iter().filter(is_new).collect();
        self.refusals.extend(refusals);
        self.refusals.retain(|(ecu, _)| !answered(ecu));
        self.incomplete.retain(|ecu| !answered(ecu));
        self.pending.retain(|ecu| !answered(ecu));
        if !self.messages.is_empty() {
            self.complaints.retain(|complaint| !complaint.is_silence());
        }
        self.garbage += earlier.garbage;
        self
    }

    /// Sorts what came in answer to `request`: answers, refusals, promises to answer, and
    /// what belongs to an earlier question.
    #[must_use]
    pub fn sort(mut self, assembled: Assembled, request: Request) -> Self {
        for message in assembled.messages {
            sort_in(message, request, &mut self);
        }
        for broken in assembled.broken {
            // Half of an earlier answer is not our loss.
            if broken.beginning.is_empty() || request.is_answered_by(&broken.beginning) {
                self.incomplete.push(broken.sender);
            }
        }
        let answered = |ecu: &EcuAddress, messages: &[Message]| messages.iter().any(|m| m.sender == *ecu);
        self.refusals.retain(|(ecu, _)| !answered(ecu, &self.messages));
        self.pending.retain(|ecu| {
            !answered(ecu, &self.messages)
                && !self.refusals.iter().any(|(other, _)| other == ecu)
                && !self.incomplete.contains(ecu)
        });
        self.messages.sort_by(|a, b| a.sender.cmp(&b.sender));
        self
    }
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

    #[test]
    fn two_tries_complete_each_other() {
        let ecu = |name: &str| EcuAddress(name.into());
        let message = |name: &str, last: u8| Message { sender: ecu(name), payload: vec![0x43, last] };
        let earlier = Answer {
            messages: vec![message("7E8", 1), message("7EA", 3)],
            refusals: vec![(ecu("7E9"), 0x21), (ecu("7EB"), 0x12)],
            garbage: 1,
            ..Answer::default()
        };
        let again = Answer {
            messages: vec![message("7E9", 2), message("7EA", 4)],
            incomplete: vec![ecu("7E8")],
            garbage: 2,
            ..Answer::default()
        };
        let both = again.completed_by(earlier.clone());
        assert_eq!(both.messages, [message("7E8", 1), message("7E9", 2), message("7EA", 4)]);
        assert_eq!((both.incomplete, both.refusals, both.garbage), (vec![], vec![(ecu("7EB"), 0x12)], 3));
        let silent = Answer { complaints: vec![Complaint::NoData], ..Answer::default() };
        let kept = silent.completed_by(earlier.clone());
        assert_eq!((kept.messages, kept.complaints), (earlier.messages, vec![]));
    }
}
