//! What may be said to an adapter, written down from the standards and the data sheet, apart from
//! the gate's own list.

/// Adapter commands of the ELM327 data sheet that set up the adapter itself. None sends by
/// itself (as `ATMA`, `ATSI`, `ATFI`, `ATWM`, `ATRTR`, `ATDM1` do) or changes what outlives a
/// reset (as `ATPP`, `ATSD`, `ATBRD`, `AT@3` do); `ATSP` remembers which bus to try first.
const SET_UP: &[&str] = &[
    "ATZ",
    "ATI",
    "AT@1",
    "STDI",
    "ATRV",
    "ATE0",
    "ATE1",
    "ATL0",
    "ATS0",
    "ATH1",
    "ATAL",
    "ATR1",
    "ATAT0",
    "ATAT1",
    "ATAT2",
    "ATDPN",
    "ATPC",
    "ATFE",
    "ATAR",
    "ATCAF1",
    "ATCFC1",
    "ATCSM1",
    // The priority of ISO 15765-4, and that of makers' own units beside it.
    "ATCP18",
    "ATCP14",
    // Flow control that says "send on", to whom "ATFCSH" names; and the adapter's own rule again.
    "ATFCSD300000",
    "ATFCSM1",
    "ATFCSM0",
];

fn is_hex(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b))
}

/// Diagnostic requests on 11 bits; never an address that answers come from.
fn is_asked_on(header: &str) -> bool {
    let id = u32::from_str_radix(header, 16).unwrap();
    (0x700..=0x7FF).contains(&id) && !(0x7E8..=0x7EF).contains(&id)
}

/// Commands with a value: which bus, how long to wait, whom to address, whom to listen to.
fn is_set_up_with_a_value(command: &str) -> bool {
    let value = |head: &str| command.strip_prefix(head).filter(|value| is_hex(value));
    if let Some(bus) = value("ATSP") {
        return bus.len() == 1;
    }
    if let Some(steps) = value("ATST") {
        return steps.len() == 2;
    }
    if let Some(header) = value("ATFCSH") {
        // To one unit, by its whole identifier.
        return match header.len() {
            3 => is_asked_on(header),
            8 => ["18DA", "14DA"].iter().any(|page| header.starts_with(page)) && header.ends_with("F1"),
            _ => false,
        };
    }
    if let Some(header) = value("ATSH") {
        return match header.len() {
            3 => is_asked_on(header),
            // ISO 15765-4 physical and functional; ISO 14230-2 physical and functional.
            6 => {
                matches!(header.as_bytes(), [b'D', b'A', _, _, b'F', b'1'] | [b'8', b'0', _, _, b'F', b'1'])
                    || matches!(header, "DB33F1" | "C033F1" | "686AF1")
            }
            _ => false,
        };
    }
    value("ATCRA").is_some()
}

/// Services that only read (SAE J1979, ISO 14230-3, ISO 14229-1), with the bytes that follow.
/// A lone digit at the end is the count of lines to wait for.
pub fn is_reading(command: &str) -> bool {
    if !is_hex(command) {
        return false;
    }
    let bytes = hex::decode(&command[..command.len() / 2 * 2]).unwrap();
    let Some((&service, rest)) = bytes.split_first() else { return false };
    match service {
        0x01 => (1..=6).contains(&rest.len()),
        // A PID and its frame's number, up to three times (ISO 15031-5 §8.2).
        0x02 => matches!(rest.len(), 2 | 4 | 6),
        0x05 => rest.len() == 2,
        // The masks of what could be controlled; on older buses five zeros follow (SAE J1979 appendix F).
        0x08 => {
            matches!(rest, [base] | [base, 0, 0, 0, 0, 0] if base.is_multiple_of(0x20))
                && command.len().is_multiple_of(2)
        }
        0x03 | 0x07 | 0x0A => rest.is_empty(),
        // A monitor, or up to six masks of them.
        0x06 if rest.len() > 1 => rest.len() <= 6 && rest.iter().all(|mask| mask.is_multiple_of(0x20)),
        0x06 | 0x09 | 0x21 => rest.len() == 1,
        // One identifier, or up to three of OBD's own (SAE J1979-2).
        0x22 if rest.len() > 2 => {
            matches!(rest.len(), 4 | 6) && rest.chunks(2).all(|did| matches!(did[0], 0xF4 | 0xF6))
        }
        0x22 => rest.len() == 2,
        0x19 => matches!(
            rest,
            [0x02, _]
                | [0x04 | 0x06, _, _, _, _]
                | [0x0A]
                | [0x42, 0x33, _, _]
                | [0x55, 0x33]
                | [0x56, 0x33, _]
        ),
        _ => false,
    }
}

pub fn is_clearing(command: &str) -> bool {
    matches!(command, "04" | "14FFFFFF")
}

/// Judges everything an adapter was sent; gives the clearing commands among it.
pub fn judge(what: &str, heard: &[u8]) -> Vec<String> {
    let text = String::from_utf8(heard.to_vec()).unwrap_or_else(|_| panic!("{what}: not text: {heard:02X?}"));
    let mut commands: Vec<&str> = text.split('\r').collect();
    // A line cut by the end of the test is the beginning of one that is judged below.
    commands.pop();
    let mut clearings = Vec::new();
    for command in commands {
        assert!(!command.is_empty(), "{what}: a lone CR repeats the last command, whatever it was");
        if is_clearing(command) {
            clearings.push(command.to_owned());
            continue;
        }
        // DEL interrupts; X is no digit, so a line that ends in it is no request, whatever it began with.
        let allowed = command == "\u{7F}\u{7F}"
            || command.ends_with("XXXX")
            || SET_UP.contains(&command)
            || is_set_up_with_a_value(command)
            || is_reading(command);
        assert!(allowed, "{what}: {command:?} is not on the list");
    }
    clearings
}

/// The list itself: what the standards call writing is not on it.
#[test]
fn the_list_knows_reading_from_writing() {
    for reading in [
        "010C",
        "010C1",
        "010C0D0504",
        "020C00",
        "020C000D0005002",
        "03",
        "0800",
        "08E0",
        "08000000000000",
        "22F190",
        "22F40CF40DF405",
        "22F620F640F6603",
        "1902FF",
        "1904123456FF",
        "194233FF1E",
    ] {
        assert!(is_reading(reading) && !is_clearing(reading), "{reading}");
    }
    for writing in [
        "04",
        "041",
        "0400",
        "08",
        "080100",
        "0801",
        "08001",
        "080001",
        "08010000000000",
        "08000000000001",
        "02040005",
        "1003",
        "1101",
        "14",
        "14FFFFFF",
        "14FFFF33",
        "2701",
        "2803",
        "2E",
        "2EF190",
        "2F",
        "3101FF00",
        "34",
        "3E00",
        "8502",
        "1901",
        "22F190F18C",
        "22F40CF190",
        "22F40CF4",
        "22F40CF40DF405F40B",
        "01",
    ] {
        assert!(!is_reading(writing), "{writing}");
    }
    for sending in [
        "ATMA",
        "ATSI",
        "ATFI",
        "ATWM8111F13E",
        "ATPP0CSV23",
        "ATRTR",
        "ATSD00",
        "ATSH7E8",
        "ATSH123",
        "ATSH7FFF",
        "ATCSM0",
        "ATCP00",
        "ATFCSH7E8",
        "ATFCSH0CF00400",
        "ATFCSH18DB33F1",
        "ATFCSD310000",
        "ATFCSM2",
        "ATBRD23",
    ] {
        assert!(!SET_UP.contains(&sending) && !is_set_up_with_a_value(sending), "{sending}");
    }
}
