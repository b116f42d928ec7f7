//! What a reader shows and sounds to the person holding the card: hold still, accepted, refused.
//! What lives here: which readers have lights we know, and their commands, pure. What does not:
//! when they are said (`counter`), and how they reach a reader (the drivers, as errands). They are
//! never said between the commands of a conversation with a card.

use wildmatch::WildMatch;

use super::apdu::Command;
use super::probe::Answer;
use crate::config::tables::Feedback;

/// What a person is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    /// The card is being written.
    HoldStill,
    /// Done; the card may go.
    Accepted,
    /// It will not do, or has to be tapped again: look at the till.
    Refused,
}

/// A family of readers with lights and a buzzer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lights {
    /// A red and a green light and a buzzer (ACR122U API v2.04 §6.2, §6.7).
    Acr122,
}

/// Which PC/SC readers have which lights, by their names. Others are told nothing: a reader that
/// does not know such a command may pass it to the card.
const KNOWN: [(&str, Lights); 2] = [("ACS ACR122*", Lights::Acr122), ("*Touchatag*", Lights::Acr122)];

fn lights(setting: Feedback, reader: &str) -> Option<Lights> {
    match setting {
        Feedback::Off => None,
        Feedback::Acr122 => Some(Lights::Acr122),
        Feedback::Auto => {
            let known = KNOWN.iter().find(|(name, _)| WildMatch::new(name).matches(reader));
            known.map(|(_, lights)| *lights)
        }
    }
}

/// A sign under way: commands whose answers change nothing. The second status byte of such a
/// reader is the state of its lights, so that no answer of it is an error.
#[derive(Debug)]
pub(super) struct Signing {
    rest: std::vec::IntoIter<Command>,
}

impl Signing {
    /// The commands of a sign at this reader; none where it has no lights we know.
    pub(super) fn of(setting: Feedback, reader: &str, sign: Sign) -> Option<Self> {
        let Lights::Acr122 = lights(setting, reader)?;
        Some(Self { rest: acr122(sign).into_iter() })
    }

    /// The next command.
    pub(super) fn next(&mut self) -> Option<Command> {
        self.rest.next()
    }

    /// Goes on with what came of the last; a reader that would not take it is not asked for more.
    pub(super) fn answer(&mut self, answer: &Answer) -> Option<Command> {
        match answer {
            Answer::Response(_) => self.next(),
            Answer::NotTransmitted | Answer::Reset => None,
        }
    }
}

/// `FF 00 40 P2 04 T1 T2 N LINK`: P2 bits 0 and 1 say how red and green stay, bits 2 and 3 that
/// this is to be changed; T1 and T2 are tenths of a second, N times; LINK 01 sounds during T1.
/// The reader answers when it is done, so the sounds are short.
fn acr122(sign: Sign) -> Vec<Command> {
    let show = |lights: u8, times: [u8; 4]| Command::new([0xFF, 0x00, 0x40, lights]).with_data(&times);
    // It sounds by itself at every card, a refused one too; forgotten when it is plugged in anew.
    let quiet = Command::new([0xFF, 0x00, 0x52, 0x00]).expecting(0);
    match sign {
        Sign::HoldStill => vec![show(0x0F, [0, 0, 0, 0])],
        Sign::Accepted => vec![quiet, show(0x0E, [1, 0, 1, 1])],
        Sign::Refused => vec![quiet, show(0x0D, [1, 1, 2, 1])],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::card::apdu::{Response, StatusWord};

    fn said(setting: Feedback, reader: &str, sign: Sign) -> Vec<String> {
        let Some(mut signing) = Signing::of(setting, reader, sign) else { return Vec::new() };
        let lit = Answer::Response(Response { data: Vec::new(), status: StatusWord(0x9003) });
        std::iter::successors(signing.next(), |_| signing.answer(&lit))
            .map(|command| hex::encode_upper(command.to_bytes()))
            .collect()
    }

    #[test]
    fn each_sign_has_its_bytes_where_the_reader_is_known() {
        let acr122 = "ACS ACR122U PICC Interface 00 00";
        assert_eq!(said(Feedback::Auto, acr122, Sign::HoldStill), ["FF00400F0400000000"]);
        assert_eq!(said(Feedback::Auto, acr122, Sign::Accepted), ["FF00520000", "FF00400E0401000101"]);
        assert_eq!(said(Feedback::Auto, acr122, Sign::Refused), ["FF00520000", "FF00400D0401010201"]);
        assert_eq!(said(Feedback::Off, acr122, Sign::Refused), [""; 0]);
        assert_eq!(said(Feedback::Auto, "ACS ACR1252 Dual Reader 00 00", Sign::Refused), [""; 0]);
        assert_eq!(said(Feedback::Acr122, "vpcd", Sign::HoldStill).len(), 1);
    }

    #[test]
    fn a_reader_that_takes_none_is_asked_for_no_more() {
        let mut signing = Signing::of(Feedback::Acr122, "vpcd", Sign::Accepted).unwrap();
        assert!(signing.next().is_some());
        assert_eq!(signing.answer(&Answer::NotTransmitted), None);
    }
}
