//! One question of a scan: asked again where an answer was promised, kept, its
//! failure noted, and the car or adapter given up when it says no more.

use super::{BrokeOff, Progress, Scan};
use crate::event::vehicle::RequestError;
use crate::vehicle::answer::Answer;
use crate::vehicle::error::AdapterError;
use crate::vehicle::gate::Request;
use crate::vehicle::report::{Told, left_out};

/// So many replies in a row that break off mean that the adapter is of no use.
pub(super) const BROKEN_IN_A_ROW: u32 = 3;
/// So many promised answers in a row that do not come make it worth asking whether the car is there.
const SILENT_IN_A_ROW: u32 = 3;

impl Scan<'_> {
    /// Asks; an answer that the masks promised, or that every car gives, is asked for once more.
    /// Keeps answers and errors. Whether anybody answered.
    pub(super) async fn ask(&mut self, request: Request, lines: Option<u8>) -> Result<bool, BrokeOff> {
        self.step(request);
        let mut answer = self.ask_tolerantly(request, lines).await?;
        let short = lines.is_some_and(|n| answer.as_ref().is_ok_and(|a| a.messages.len() < usize::from(n)));
        let missing = answer.as_ref().is_ok_and(Answer::is_silence);
        if short || missing && (is_promised(request) || is_of_every_car(request)) {
            // Without the digit: it may have counted somebody else's line.
            answer = self.ask_tolerantly(request, None).await?;
        }
        let mut silent = false;
        let answered = match answer {
            Ok(answer) => {
                self.keep(request, &answer);
                if let Some(trouble) = answer.trouble() {
                    self.note(request, trouble);
                }
                silent = answer.is_silence();
                !answer.messages.is_empty()
            }
            Err(trouble) => {
                self.note(request, trouble);
                false
            }
        };
        if silent && is_promised(request) {
            self.silent_in_a_row += 1;
            if self.silent_in_a_row >= SILENT_IN_A_ROW {
                self.is_the_car_there().await?;
            }
        } else if !silent {
            self.silent_in_a_row = 0;
        }
        Ok(answered)
    }

    /// Asks for what nobody promised: no answer is no error.
    pub(super) async fn probe(&mut self, request: Request) -> Result<(), BrokeOff> {
        self.step(request);
        if let Ok(answer) = self.ask_tolerantly(request, None).await? {
            self.keep(request, &answer);
        }
        Ok(())
    }

    /// A car that was driven away answers nothing more, each question after a pause.
    pub(super) async fn is_the_car_there(&mut self) -> Result<(), BrokeOff> {
        self.silent_in_a_row = 0;
        match self.ask_tolerantly(Request::current(0x00), None).await? {
            Ok(answer) if answer.is_silence() => Err(BrokeOff::CarSilent),
            _ => Ok(()),
        }
    }

    pub(super) fn step(&mut self, request: Request) {
        self.planned = self.planned.max(self.done + 1);
        (self.progress)(Progress { done: self.done, total: self.planned, request });
        self.done += 1;
    }

    /// A reply that broke off is an entry in `errors`, unless it happens again and again.
    pub(super) async fn ask_tolerantly(
        &mut self,
        request: Request,
        lines: Option<u8>,
    ) -> Result<Result<Answer, String>, BrokeOff> {
        let error = match self.adapter.ask(request, lines).await {
            Ok(answer) => {
                self.broken_in_a_row = 0;
                return Ok(Ok(answer));
            }
            Err(AdapterError::HalfReply(what)) => {
                self.broken_in_a_row += 1;
                if self.broken_in_a_row < BROKEN_IN_A_ROW {
                    return Ok(Err("half a reply".into()));
                }
                AdapterError::Hung(what)
            }
            Err(error) => error,
        };
        self.note(request, error.code().into());
        Err(error.into())
    }

    pub(super) fn keep(&mut self, request: Request, answer: &Answer) {
        self.record.told.extend(answer.messages.iter().map(|message| Told {
            request,
            ecu: message.sender.clone(),
            payload: message.payload.clone(),
        }));
    }

    /// What was promised and is not asked, by the names of the requests.
    pub(super) fn leave_out(&mut self, requests: impl IntoIterator<Item = Request>, why: &str) {
        self.record.errors.extend(left_out(requests, why));
    }

    pub(super) fn note(&mut self, request: Request, error: String) {
        self.record.errors.push(RequestError { request: request.to_string(), error });
    }
}

/// What is only asked because a mask promised it. Masks themselves are promised by nobody.
fn is_promised(request: Request) -> bool {
    matches!(request.service(), 0x01 | 0x02 | 0x06 | 0x09) && request.id().is_some_and(|id| id != 0)
}

/// Confirmed and pending codes: no mask promises them, every car with OBD tells them (SAE J1979
/// §6.3, §6.7), and a report without them is no report. Permanent ones are younger than many cars.
fn is_of_every_car(request: Request) -> bool {
    matches!(request.service(), 0x03 | 0x07)
}
