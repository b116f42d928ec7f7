//! What a serial line that loses characters makes of a typed line. Pure. What lives here: every
//! way in which characters can be missing, how an adapter reads what is left, and whether a
//! control unit would act on it. What does not: what is done about such a line (the driver).
//!
//! ```text
//!  typed        0142             0120
//!  arrived      042              120
//!  understood   04, one digit    12, one digit left over: a count of answers
//!               left over
//!  the car      clears codes     refuses, or reads
//! ```
//!
//! Source of how lines are read: ELM327 data sheet v2.x, "Communicating with the ELM327" (case,
//! spaces and control characters are ignored; hex digits are paired from the front; the chip does
//! not judge what it sends) and "Talking to the Vehicle" (a single digit at the end is the number
//! of answers to wait for). A line with nothing left repeats the command before, which reads, or
//! is none of these (`Port::resync` after a clearing).
//!
//! **How strict.** An adapter without echo is never asked what is fragile here, so each service
//! counted as acting without need costs such adapters a part of the report. A service is let go
//! only where every standard that may be spoken behind the socket says that, with what can be
//! left of a line, a unit refuses it or reads. Reserved in one standard is not enough: 2B and 2D
//! are reserved in ISO 14229-1 and have a meaning in SAE J2190 (a data packet by offset) and
//! GMW3110 (an identifier for an address). So 2A to 2D are let go with one parameter alone: to
//! send a packet (2A) or to define one (2B, 2C, 2D) each standard wants more bytes, and a unit
//! refuses what is too short; only `2C 03` (forget what was defined) is whole. That gives such
//! adapters fuel and manifold pressure, speeds of engine and car of a freeze frame (`020A` to
//! `020D`). 27 (a try at the seed is counted), 29 (`29 00` ends an authentication), 30 (control)
//! and 3B to 3D (writing blocks in SAE J2190) stay, and so does what is left of the masks of 08 on
//! older buses: 80, ISO 14230-3's door to the maker's own services. On CAN only `0840` is
//! concerned, and it holds a 04.

/// Bytes of a line that are looked at; a request has seven.
const LONGEST: usize = 16;

/// Whether `text`, typed into an adapter and robbed of some characters, may be read as a request
/// on which a control unit acts. All ways of losing up to three characters anywhere, or any number
/// in one run, are tried, and for the services that clear codes every way; `text` as it is is not
/// judged.
#[must_use]
pub fn is_fragile(text: &str) -> bool {
    let text = text.as_bytes();
    if can_lose_down_to(text, b"04") || can_lose_down_to(text, b"14") {
        return true;
    }
    let mut left = Vec::with_capacity(text.len());
    any_loss(text.len(), |is_lost| {
        left.clear();
        left.extend(text.iter().enumerate().filter(|(place, _)| !is_lost(*place)).map(|(_, byte)| *byte));
        is_acted_on(&left)
    })
}

/// Whether some loss, of however many characters, leaves these at the beginning.
fn can_lose_down_to(text: &[u8], left: &[u8]) -> bool {
    let mut rest = text.iter();
    left.iter().all(|wanted| rest.any(|byte| byte.eq_ignore_ascii_case(wanted)))
}

/// Calls `judge` with every loss in a line of `length` characters, until it says yes.
fn any_loss(length: usize, mut judge: impl FnMut(&dyn Fn(usize) -> bool) -> bool) -> bool {
    for first in 0..length {
        for last in first..length {
            // All between them; or one character where they are the same, two, or three.
            if judge(&|place| (first..=last).contains(&place)) {
                return true;
            }
            for middle in first..=last {
                if judge(&|place| place == first || place == middle || place == last) {
                    return true;
                }
            }
        }
    }
    false
}

/// Whether an adapter makes a request of this line on which a control unit acts.
fn is_acted_on(line: &[u8]) -> bool {
    let (mut bytes, mut count, mut high) = ([0; LONGEST], 0, None);
    for digit in line {
        let Some(digit) = char::from(*digit).to_digit(16) else { return false };
        match high.take() {
            None => high = Some(digit),
            Some(high) => {
                let Some(place) = bytes.get_mut(count) else { break };
                *place = u8::try_from(high << 4 | digit).unwrap_or(u8::MAX);
                count += 1;
            }
        }
    }
    // A digit left over is a count of answers.
    let request = bytes.get(..count).unwrap_or_default();
    request.split_first().is_some_and(|(service, parameters)| acts(*service, parameters))
}

/// Whether a control unit may do something on a request, rather than read or refuse it. Services
/// of SAE J1979 (01–0A), ISO 14229-1 table 2, ISO 14230-3 and GMW3110. What is too short for its
/// service is refused by every unit (ISO 14229-1 §8.7), but nothing is built on that for the two
/// that clear codes.
fn acts(service: u8, parameters: &[u8]) -> bool {
    match service {
        // Clear codes, of all groups or of one.
        0x04 | 0x14 => true,
        // J1979, the reserved ones up to 0F included, but for control of a system: its masks read.
        0x08 => parameters.first().is_some_and(|test| !test.is_multiple_of(0x20)),
        0x00..=0x0F => false,
        // Session and reset: exactly one parameter. (ISO 14230-3 knows a second one of 10, a rate of the
        // K-line, where no request is long enough to become that.)
        0x10 | 0x11 => parameters.len() == 1,
        // ISO 14230-3: freeze frame and codes (12, 13, 17, 18), identification (1A); 19; reserved.
        0x12..=0x1F => false,
        // Back to the usual session; data, memory and scaling are read.
        0x20..=0x26 => false,
        // Write and control by a two-byte identifier, with at least one byte to write.
        0x2E | 0x2F => parameters.len() >= 3,
        // The results of a routine; tester present.
        0x33 | 0x3E => false,
        // GMW3110 stops a bus's usual messages on this byte alone.
        0x28 => true,
        // Packets and identifiers made up for reading: with one parameter none is asked for or defined.
        0x2A | 0x2B | 0x2D => parameters.len() > 1,
        // The same, but that `2C 03` forgets what another tool defined; bit 7 asks for no answer.
        0x2C => parameters.len() > 1 || parameters.first().is_some_and(|what| what & 0x7F == 0x03),
        // Security, rights, memory, control, routines, transfers; timing, link, codes; and what is reserved.
        0x27..=0x3F | 0x80..=0x87 => !parameters.is_empty(),
        // GMW3110: programming mode, device control. BA–BE are the suppliers' own.
        0xA5 | 0xAE | 0xBA..=0xBE => !parameters.is_empty(),
        // Bit 6 marks answers; the rest of 88–B9 is reserved, or reads (GMW3110 A2, A9, AA).
        0x40..=0x7F | 0x88..=0xFF => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vehicle::gate::{AtCommand, Outgoing, Request, UnitAddress};
    use crate::vehicle::protocol::Protocol;

    /// Services that a line typed at once may become by four lost characters or more, in several
    /// places: most of them of a request of six PIDs that loses half of itself.
    const RESIDUE: [u8; 13] = [0x08, 0x10, 0x11, 0x2D, 0x30, 0x35, 0x3B, 0x3D, 0x80, 0x85, 0xA5, 0xBB, 0xBD];

    #[test]
    fn what_may_become_of_a_line() {
        for (text, fragile) in [
            // The first digit, or the second, and a clearing is left.
            ("0142", true),
            ("0140", true),
            ("0104", true),
            ("0114", true),
            ("0641", true),
            ("0904", true),
            ("020400", true),
            ("2104", true),
            ("22F404", true),
            // UDS clear: `14 23 3F F1` with a count of E.
            ("194233FF1E", true),
            ("1904123456FF", true),
            // Three characters in two places, or four: `14` and a digit, `04`.
            ("221A40", true),
            ("2201A4", true),
            // Three: `10 D0`, a maker's session.
            ("010C0D05", true),
            // `28` alone, `28 00`, `29 00`, `27 00`.
            ("0128", true),
            ("020800", true),
            ("020900", true),
            ("020700", true),
            // `2C 03`, of a frame with that number.
            ("020C03", true),
            // `3C 00`, `30 00`.
            ("023C00", true),
            ("023000", true),
            // A digit of a count makes a session or a reset of it: `10 02`, `11 01`.
            ("01002", true),
            ("01101", true),
            ("010C1", true),
            ("010C0D", true),
            // 04 in the middle of many, with all before it lost.
            ("010C0D05040B0F", true),
            // Only reading, or nothing that a unit would take, can be left of these.
            ("0100", false),
            ("010C", false),
            ("0111", false),
            ("0120", false),
            ("03", false),
            ("07", false),
            ("0A", false),
            ("0900", false),
            ("0902", false),
            ("0820", false),
            ("08E0", false),
            // A freeze frame's: no more than `2A 00`, `2B 00`, `2C 00` or `2D 00`.
            ("020A00", false),
            ("020B00", false),
            ("020C00", false),
            ("020D01", false),
            ("020C001", false),
            ("22F190", false),
            ("010C0D050B0F11", false),
            ("ATRV", false),
            ("ATE1", false),
            ("", false),
        ] {
            assert_eq!(is_fragile(text), fragile, "{text}");
        }
    }

    /// What the gate lets through, each parameter with every value, and is typed at once.
    fn sturdy_lines() -> impl Iterator<Item = String> {
        let mut lines: Vec<Outgoing> =
            ["03", "07", "0A", "190A"].map(|text| Outgoing::Obd(Request::parse(text).unwrap())).into();
        for id in 0..=0xFF_u8 {
            let mut one = vec![
                Request::current(id),
                Request::monitor(id),
                Request::vehicle_info(id),
                Request::local_data(id),
                Request::dtcs_by_status(id),
                Request::wwh_permanent_dtcs(id),
            ];
            one.extend([0, 1, 4, 0x14].map(|frame| Request::freeze_frame(id, frame)));
            one.extend([1_u8, 2, 4, 0x80].map(|sensor| Request::oxygen_sensor_test(id, sensor)));
            one.extend(
                [0xF1, 0xF4, 0x04, 0x14]
                    .map(|high| Request::data_by_identifier(u16::from_be_bytes([high, id]))),
            );
            one.extend(Request::current_many(&[0x0C, id, 0x0D, 0x05, 0x0B, 0x0F]));
            lines.extend(one.into_iter().flat_map(|request| {
                [Outgoing::Obd(request), Outgoing::ObdCounted(request, 1), Outgoing::ObdCounted(request, 4)]
            }));
        }
        // Masks of monitors go together, and never with a digit.
        let masks = [0x20, 0x40, 0x60, 0x80, 0xA0, 0xC0, 0xE0];
        for count in 2..=6 {
            let together = masks.windows(count).filter_map(Request::monitor_masks);
            lines.extend(together.map(Outgoing::Obd));
        }
        lines.into_iter().filter(|line| !line.is_fragile()).map(Outgoing::text)
    }

    /// Everything the gate lets through, each parameter with every value: read again here by hand,
    /// apart from the code above. No line passes as sturdy that a loss can turn into a clearing.
    #[test]
    fn no_sturdy_line_of_the_allow_list_can_clear_codes() {
        let mut sturdy = 0;
        for text in sturdy_lines() {
            sturdy += 1;
            let characters: Vec<char> = text.chars().collect();
            let length = characters.len();
            for first in 0..length {
                for last in first..length {
                    for run in [false, true] {
                        let lost = |place: usize| {
                            if run {
                                (first..=last).contains(&place)
                            } else {
                                place == first || place == last
                            }
                        };
                        let left: String = (0..length)
                            .filter(|place| !lost(*place))
                            .map(|place| characters[place])
                            .collect();
                        assert!(!left.starts_with("04") && !left.starts_with("14"), "{text} lost to {left}");
                        let reset = left.starts_with("11") || left.starts_with("10");
                        assert!(!reset || !(4..=5).contains(&left.len()), "{text} lost to {left}");
                    }
                }
            }
        }
        assert!(sturdy > 1_000, "only {sturdy} lines are typed at once");
    }

    /// Every way of losing any number of characters, of every line that is typed at once: service,
    /// first parameter and how many there are decide.
    fn left_by_any_loss(text: &str, mut judge: impl FnMut(usize, u8, &[u8])) {
        let digits: Vec<u8> = text.chars().map(|c| c.to_digit(16).unwrap() as u8).collect();
        let length = digits.len();
        for first in 0..length {
            for second in first + 1..length {
                let service = digits[first] << 4 | digits[second];
                judge(length - 2, service, &[]);
                for third in second + 1..length {
                    for fourth in third + 1..length {
                        for more in 0..=(length - 1 - fourth) / 2 {
                            let mut parameters = vec![digits[third] << 4 | digits[fourth]];
                            parameters.resize(1 + more, 0);
                            judge(length - 4 - 2 * more, service, &parameters);
                        }
                    }
                }
            }
        }
    }

    /// A line that loses more than is provided for (four characters and more, in several places)
    /// never clears codes. What else it may become is written down here.
    #[test]
    fn what_more_losses_leave() {
        let (mut lines, mut becomes) = (0, std::collections::BTreeMap::<u8, (usize, String)>::new());
        for text in sturdy_lines() {
            lines += 1;
            left_by_any_loss(&text, |lost, service, parameters| {
                assert!(!matches!(service, 0x04 | 0x14), "{text} may clear codes");
                if acts(service, parameters) {
                    let entry = becomes.entry(service).or_insert((lost, text.clone()));
                    if lost < entry.0 {
                        *entry = (lost, text.clone());
                    }
                }
            });
        }
        assert!(lines > 1_000, "{lines}");
        println!("{lines} lines: {becomes:02X?}");
        let services: Vec<u8> = becomes.keys().copied().collect();
        assert_eq!(services, RESIDUE, "{becomes:02X?}");
        assert!(becomes.values().all(|(lost, _)| *lost > 3), "{becomes:02X?}");
    }

    /// Without one 2 several identifiers are `2F`, control by identifier: none is typed at once.
    #[test]
    fn several_identifiers_are_always_typed_with_care() {
        for id in 0..=0xFF_u8 {
            for ids in [&[id, 0x2F][..], &[0x33, id], &[0x2F, id, 0x33]] {
                let request = Request::obd_identifiers(0xF4, ids).unwrap();
                for line in [Outgoing::Obd(request), Outgoing::ObdCounted(request, 3)] {
                    assert!(line.is_fragile(), "{request}");
                }
            }
        }
    }

    /// The adapter's own commands: but for addresses and told waits, none has to be typed with care.
    #[test]
    fn commands_of_the_adapter() {
        use AtCommand as At;
        for command in [
            At::Reset,
            At::EchoOff,
            At::EchoOn,
            At::LinefeedsOff,
            At::SpacesOff,
            At::HeadersOn,
            At::AdaptiveTiming,
            At::AggressiveTiming,
            At::ShortWait,
            At::UsualWait,
            At::ProtocolAuto,
            At::ProtocolNumber,
            At::ProtocolClose,
            At::ForgetEvents,
            At::Identity,
            At::Description,
            At::StnIdentity,
            At::Voltage,
            At::Priority,
            At::ReceiveUsual,
            At::FlowToUnit,
            At::FlowUsual,
            At::FunctionalHeader(Protocol::Can11At500),
            At::FunctionalHeader(Protocol::Can29At500),
            At::FunctionalHeader(Protocol::KwpFast),
        ] {
            assert!(!Outgoing::At(command).is_fragile(), "{command:?}");
        }
        for id in 0x7E0..=0x7E7 {
            let unit = UnitAddress::on(Protocol::Can11At500, id).unwrap();
            assert!(!Outgoing::At(At::Header(unit)).is_fragile(), "{id:X}");
            assert!(!Outgoing::At(At::ReceiveOnly(unit)).is_fragile(), "{id:X}");
        }
        // `04 F1`, when all before it is lost.
        let unit = UnitAddress::on(Protocol::Can29At500, 0x18DA_04F1).unwrap();
        assert!(Outgoing::At(At::Header(unit)).is_fragile());
        // `14`, and `30 00 00`.
        let unit = UnitAddress::on(Protocol::Can29At500, 0x14DA_10F1).unwrap();
        assert!(Outgoing::At(At::PriorityOf(unit)).is_fragile());
        assert!(Outgoing::At(At::FlowData).is_fragile());
        // What a file's `tmo` may be.
        assert!(Outgoing::At(At::Wait(0x04)).is_fragile() && Outgoing::At(At::Wait(0x14)).is_fragile());
    }
}
