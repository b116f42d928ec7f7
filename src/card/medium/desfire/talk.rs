//! One command after the other with a DESFire or NTAG 424: wrapped, cut into frames, under
//! the session if there is one. No I/O. What does not live here: which commands, and in
//! which order (`read`, `write`, `format`).
//!
//! ```text
//!  90 INS 00 00 LC body 00 ─►   ◄─ 91AF            more of the body, please
//!  90 AF  00 00 LC rest 00 ─►   ◄─ data 91AF       there is more of the answer
//!  90 AF  00 00 00         ─►   ◄─ data, MAC 9100  done
//! ```

use zeroize::Zeroizing;

use super::channel::{Challenged, Login, Session};
use crate::card::apdu::{Command, Response};
use crate::card::crypto::ev2::Protection;
use crate::card::probe::Answer;

/// AdditionalFrame.
const MORE: u8 = 0xAF;
const OK: u8 = 0x00;
const AUTHENTICATION_ERROR: u8 = 0xAE;
/// First status byte of wrapped commands (NTAG 424 DNA data sheet rev. 3.0 §8.4).
const WRAPPED: u8 = 0x91;
/// Data field of a wrapped DESFire command. The frame of 64 bytes leaves 55 (MF3ICDx1 data
/// sheet §8.4); 48 keeps the whole APDU below that, whichever way a chip counts.
const FRAME: usize = 48;
/// An NTAG 424 takes a frame of 128 bytes and chains by itself.
const LONG_FRAME: usize = 255;
/// More frames than any answer asked for here has: 256 bytes in frames of 59. A card that
/// goes on and on is none.
const MOST_FRAMES: usize = 8;

/// What came of an answer.
pub(super) enum Heard {
    /// The same command goes on with this.
    More(Command),
    /// Done; the clear data.
    Done(Zeroizing<Vec<u8>>),
    /// Not done.
    Failed(Fault),
}

/// Why a command was not done. The session is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// No answer, or none that such a card gives: nothing is known.
    Line,
    /// The card said no, with this status. Anybody could have said it.
    Status(u8),
    /// The answer's MAC is wrong.
    Forged,
    /// The card has another key than we.
    OtherKey,
}

/// A conversation.
#[derive(Debug)]
pub(super) struct Talk {
    frame: usize,
    session: Option<Session>,
    doing: Doing,
    /// Of the command's body, what was not sent.
    rest: Vec<u8>,
    /// Of the answer, what came, and in how many frames.
    got: Vec<u8>,
    frames: usize,
}

#[derive(Debug)]
enum Doing {
    Nothing,
    /// Selects by name, which is no native command.
    Name,
    Command(Protection),
    /// Changes the session's own key, which ends it.
    Farewell,
    LogIn(Box<Login>),
    Proof(Box<Challenged>),
}

impl Talk {
    pub(super) fn new() -> Self {
        let (rest, got) = (Vec::new(), Vec::new());
        Self { frame: FRAME, session: None, doing: Doing::Nothing, rest, got, frames: 0 }
    }

    /// Selects an application by its three bytes or its name; ends the session.
    pub(super) fn select(&mut self, application: &[u8]) -> Command {
        self.session = None;
        if application.len() == 3 {
            self.frame = FRAME;
            return self.send(0x5A, application, Doing::Command(Protection::Plain));
        }
        self.frame = LONG_FRAME;
        self.doing = Doing::Name;
        Command::new([0x00, 0xA4, 0x04, 0x0C]).with_data(application)
    }

    /// Sends a command; `header` is never enciphered. Without a session all is plain.
    pub(super) fn command(&mut self, protection: Protection, ins: u8, header: &[u8], data: &[u8]) -> Command {
        let frame = match &mut self.session {
            Some(session) => session.command(protection, ins, header, data),
            None => [&[ins], header, data].concat(),
        };
        self.native(&frame, Doing::Command(protection))
    }

    /// Logs in; the first login of an application, or one within the session.
    pub(super) fn log_in(&mut self, login: Login) -> Command {
        let frame = login.frame();
        self.native(&frame, Doing::LogIn(Box::new(login)))
    }

    /// Sends a frame that the key store made. `own`: it changes the session's own key.
    pub(super) fn change_key(&mut self, frame: &[u8], own: bool) -> Command {
        let doing = if own { Doing::Farewell } else { Doing::Command(Protection::Full) };
        self.native(frame, doing)
    }

    /// The session, for a key store that makes a frame of it.
    pub(super) fn session(&mut self) -> Option<&mut Session> {
        self.session.as_mut()
    }

    fn native(&mut self, frame: &[u8], doing: Doing) -> Command {
        let (ins, body) = frame.split_first().unwrap_or((&MORE, &[]));
        self.send(*ins, body, doing)
    }

    fn send(&mut self, ins: u8, body: &[u8], doing: Doing) -> Command {
        let (now, later) = body.split_at_checked(self.frame).unwrap_or((body, &[]));
        self.rest = later.to_vec();
        self.got.clear();
        self.frames = 0;
        self.doing = doing;
        wrapped(ins, now)
    }

    /// Takes what came.
    pub(super) fn answer(&mut self, answer: &Answer) -> Heard {
        let doing = std::mem::replace(&mut self.doing, Doing::Nothing);
        let Answer::Response(response) = answer else { return self.failed(Fault::Line) };
        if let Doing::Name = doing {
            return match response.ok() {
                Some(_) => Heard::Done(Zeroizing::default()),
                None => self.failed(Fault::Status(response.status.sw2())),
            };
        }
        if response.status.sw1() != WRAPPED {
            return self.failed(Fault::Line);
        }
        match doing {
            Doing::LogIn(login) => self.challenged(*login, response),
            Doing::Proof(challenged) => self.proven(*challenged, response),
            Doing::Command(_) | Doing::Farewell => self.commanded(doing, response),
            Doing::Nothing | Doing::Name => self.failed(Fault::Line),
        }
    }

    fn challenged(&mut self, login: Login, response: &Response) -> Heard {
        match (response.status.sw2(), <&[u8; 16]>::try_from(response.data.as_slice()).ok()) {
            (MORE, Some(challenge)) => {
                let (challenged, frame) = login.challenged(challenge);
                Heard::More(self.native(&frame, Doing::Proof(Box::new(challenged))))
            }
            (MORE | OK, _) => self.failed(Fault::Line),
            (status, _) => self.failed(Fault::Status(status)),
        }
    }

    fn proven(&mut self, challenged: Challenged, response: &Response) -> Heard {
        match response.status.sw2() {
            OK => match challenged.proven(&response.data) {
                Ok(session) => {
                    self.session = Some(session);
                    Heard::Done(Zeroizing::default())
                }
                Err(_) => self.failed(Fault::OtherKey),
            },
            AUTHENTICATION_ERROR => self.failed(Fault::OtherKey),
            status => self.failed(Fault::Status(status)),
        }
    }

    fn commanded(&mut self, doing: Doing, response: &Response) -> Heard {
        let status = response.status.sw2();
        if status == MORE && !self.rest.is_empty() {
            let rest = std::mem::take(&mut self.rest);
            return Heard::More(self.send(MORE, &rest, doing));
        }
        self.got.extend_from_slice(&response.data);
        self.frames += 1;
        if !self.rest.is_empty() || self.frames > MOST_FRAMES {
            // It stopped listening in the middle.
            return self.failed(if status == OK { Fault::Line } else { Fault::Status(status) });
        }
        if status == MORE {
            self.doing = doing;
            return Heard::More(wrapped(MORE, &[]));
        }
        if status != OK {
            return self.failed(Fault::Status(status));
        }
        let got = std::mem::take(&mut self.got);
        match (doing, &mut self.session) {
            (Doing::Command(protection), Some(session)) => match session.answer(protection, OK, &got) {
                Ok(clear) => Heard::Done(clear),
                Err(_) => self.failed(Fault::Forged),
            },
            (Doing::Farewell, _) => {
                self.session = None;
                Heard::Done(Zeroizing::default())
            }
            _ => Heard::Done(Zeroizing::new(got)),
        }
    }

    fn failed(&mut self, fault: Fault) -> Heard {
        self.session = None;
        Heard::Failed(fault)
    }
}

fn wrapped(ins: u8, body: &[u8]) -> Command {
    Command::new([0x90, ins, 0x00, 0x00]).with_data(body).expecting(0)
}
