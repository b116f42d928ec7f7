//! What may be sent to a bus, frame by frame, and to an slcan adapter, line by line: written down
//! from ISO 15765-2 and -4, SAE J1939-21 and the Lawicel manual, apart from the gate's own list.
#![allow(dead_code)] // each test file uses its part

use super::list::{is_clearing, is_reading};

/// Who hears it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Address {
    Everybody,
    /// A unit of OBD (ISO 15765-4 §10.3).
    Unit,
    /// A maker's own unit, which may take a first byte for an address.
    Makers,
    /// The first byte is an address (ISO 15765-2 §10.3.4, as on BMW's buses).
    BehindAByte,
    /// A request for a group of SAE J1939, from the tester F9 to everybody.
    Group,
}

fn address(id: u32, wide: bool) -> Option<Address> {
    match (wide, id) {
        (false, 0x7DF) | (true, 0x18DB_33F1) => Some(Address::Everybody),
        (false, 0x7E0..=0x7E7) => Some(Address::Unit),
        (false, 0x6F1) => Some(Address::BehindAByte),
        (false, 0x700..=0x7DE | 0x7F0..=0x7F7) => Some(Address::Makers),
        (true, id) if id & 0xFFFF_00FF == 0x18DA_00F1 => Some(Address::Unit),
        (true, id) if id & 0xFFFF_00FF == 0x14DA_00F1 => Some(Address::Makers),
        (true, 0x18EA_FFF9) => Some(Address::Group),
        _ => None,
    }
}

/// Services of J1979 to everybody and to OBD's units; UDS to everybody only where OBD's own
/// identifiers are read; a maker's unit is asked for data and codes alone.
fn is_asked(address: Address, payload: &[u8]) -> bool {
    let Some((service, rest)) = payload.split_first() else { return false };
    // On CAN service 05 does not exist, and masks of 08 stand alone (SAE J1979 §6.8).
    if *service == 0x05 || *service == 0x08 && rest.len() != 1 {
        return false;
    }
    let fits = match address {
        Address::Everybody => {
            *service <= 0x0A || *service == 0x22 && matches!(rest, [0xF4 | 0xF6 | 0xF8, ..])
        }
        Address::Makers => *service >= 0x10,
        Address::Unit | Address::BehindAByte => true,
        Address::Group => false,
    };
    fits && is_reading(&hex::encode_upper(payload))
}

/// What a frame is: a clearing of everybody's codes, with its bytes; nothing that changes a car;
/// or none of the list.
pub fn judged(id: u32, wide: bool, data: &[u8]) -> Result<Option<String>, String> {
    let wrong = || Err(format!("{id:X} {}", hex::encode_upper(data)));
    let Some(address) = address(id, wide) else { return wrong() };
    let (message, length) = match (address, data) {
        // DM2 and the vehicle's number, and no other group.
        (Address::Group, [0xCB | 0xEC, 0xFE, 0x00]) => return Ok(None),
        (Address::Group, _) => return wrong(),
        (Address::BehindAByte, [_, message @ ..]) => (message, data.len()),
        (_, message) => (message, data.len()),
    };
    if length != 8 {
        return wrong();
    }
    match message {
        // "Send on", all of it and at once, to one unit.
        [0x30, rest @ ..] if address != Address::Everybody && rest.iter().all(|byte| *byte == 0) => Ok(None),
        [count @ 1..=7, rest @ ..] if usize::from(*count) <= rest.len() => {
            let (payload, filling) = rest.split_at(usize::from(*count));
            let text = hex::encode_upper(payload);
            if filling.iter().any(|byte| *byte != 0) {
                wrong()
            } else if address == Address::Everybody && is_clearing(&text) {
                Ok(Some(text))
            } else if is_asked(address, payload) {
                Ok(None)
            } else {
                wrong()
            }
        }
        _ => wrong(),
    }
}

/// Where an adapter stands, by what it was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Closed,
    Listening,
    Open,
}

/// Judges all bytes that an slcan adapter was sent; gives the clearings among them.
pub fn judge_lines(what: &str, heard: &[u8]) -> Vec<String> {
    let text = String::from_utf8(heard.to_vec()).unwrap_or_else(|_| panic!("{what}: not text: {heard:02X?}"));
    let mut lines: Vec<&str> = text.split('\r').collect();
    // A line cut by the end of the test.
    lines.pop();
    let (mut mode, mut rate, mut clearings) = (Mode::Closed, None, Vec::new());
    for line in lines {
        match line {
            "" | "V" | "N" | "F" => {}
            "C" => mode = Mode::Closed,
            // OBD's two rates (ISO 15765-4).
            "S5" | "S6" => {
                assert_eq!(mode, Mode::Closed, "{what}: {line} on the bus");
                rate = Some(line);
            }
            "L" | "O" => {
                assert!(mode == Mode::Closed && rate.is_some(), "{what}: {line} without a rate, or joined");
                mode = if line == "L" { Mode::Listening } else { Mode::Open };
            }
            frame => {
                assert_eq!(mode, Mode::Open, "{what}: {frame:?} by an adapter that is to listen, or closed");
                let (id, wide, data) = parsed(frame).unwrap_or_else(|| panic!("{what}: {frame:?}"));
                match judged(id, wide, &data) {
                    Ok(clearing) => clearings.extend(clearing),
                    Err(frame) => panic!("{what}: {frame} is not on the list"),
                }
            }
        }
    }
    clearings
}

/// `t` and `T`; no remote frame (`r`, `R`), and none of CAN FD on a classic bus.
fn parsed(line: &str) -> Option<(u32, bool, Vec<u8>)> {
    let (letter, rest) = line.split_at_checked(1)?;
    let wide = match letter {
        "t" => false,
        "T" => true,
        _ => return None,
    };
    let (id, rest) = rest.split_at_checked(if wide { 8 } else { 3 })?;
    let (length, data) = rest.split_at_checked(1)?;
    let data = hex::decode(data).ok().filter(|data| length.parse::<usize>() == Ok(data.len()))?;
    Some((u32::from_str_radix(id, 16).ok()?, wide, data))
}

/// Kinds of questions that were sent: services, those about codes with their sub-function.
pub fn driven(payload: &[u8]) -> String {
    let count = if payload.first() == Some(&0x19) { 2 } else { 1 };
    hex::encode_upper(payload.get(..count).unwrap_or(payload))
}

/// The payload of a question in a frame; `None`: flow control, or a group.
pub fn question(id: u32, wide: bool, data: &[u8]) -> Option<Vec<u8>> {
    let message = match address(id, wide)? {
        Address::Group => return None,
        Address::BehindAByte => data.get(1..)?,
        _ => data,
    };
    match message {
        [count @ 1..=7, rest @ ..] => rest.get(..usize::from(*count)).map(<[u8]>::to_vec),
        _ => None,
    }
}

/// The kinds of questions in an adapter's lines.
pub fn driven_in(heard: &[u8]) -> std::collections::BTreeSet<String> {
    let lines = heard.split(|byte| *byte == b'\r').filter_map(|line| parsed(std::str::from_utf8(line).ok()?));
    lines.filter_map(|(id, wide, data)| question(id, wide, &data)).map(|payload| driven(&payload)).collect()
}

/// The list itself.
#[test]
fn the_list_of_frames_knows_reading_from_writing() {
    let judged_text = |frame: &str| {
        let (id, data) = frame.split_once('#').unwrap();
        judged(u32::from_str_radix(id, 16).unwrap(), id.len() == 8, &hex::decode(data).unwrap())
    };
    for reading in [
        "7DF#02010C0000000000",
        "18DB33F1#0103000000000000",
        "7DF#0322F40C00000000",
        "7E0#0322F19000000000",
        "7E3#3000000000000000",
        "18DA10F1#031902FF00000000",
        "18DA10F1#3000000000000000",
        "710#0322F18700000000",
        "14DA17F1#0221010000000000",
        "6F1#120322F187000000",
        "6F1#1230000000000000",
        "18EAFFF9#CBFE00",
        "18EAFFF9#ECFE00",
    ] {
        assert_eq!(judged_text(reading), Ok(None), "{reading}");
    }
    for clearing in ["7DF#0104000000000000", "18DB33F1#0414FFFFFF000000"] {
        assert!(judged_text(clearing).unwrap().is_some(), "{clearing}");
    }
    for wrong in [
        // To one unit, to an answer's identifier, to a maker's unit, behind a byte.
        "7E0#0104000000000000",
        "7E8#02010C0000000000",
        "18DAF110#02010C0000000000",
        "710#02010C0000000000",
        "710#0104000000000000",
        "6F1#1201040000000000",
        // Services that change, and what only looks like a question.
        "7E0#0210030000000000",
        "7E0#042EF19000000000",
        "7DF#0208010000000000",
        "7DF#0205010000000000",
        "7DF#0322F19000000000",
        "7DF#0000000000000000",
        // A first frame, a consecutive one, flow control that waits or goes to everybody.
        "7E0#1014490201314D38",
        "7E0#2100000000000000",
        "7E0#3100000000000000",
        "7E0#3008000000000000",
        "7DF#3000000000000000",
        // Not filled up, or with something behind the question.
        "7DF#02010C",
        "7DF#02010C0004000000",
        // The bus's own traffic; groups that clear (DM3, DM11), and another tester's address.
        "100#02010C0000000000",
        "0CF00400#02010C0000000000",
        "18EAFFF9#CCFE00",
        "18EAFFF9#D3FE00",
        "18EAFF00#CBFE00",
        "18EAFFF9#CBFE0000",
    ] {
        assert!(judged_text(wrong).is_err(), "{wrong}");
    }
    for refused in
        ["O\r", "S6\rt7DF802010C0000000000\r", "S6\rL\rt7DF802010C0000000000\r", "S4\r", "Z1\r", "r7DF8\r"]
    {
        let judged = std::panic::catch_unwind(|| judge_lines("a line", refused.as_bytes()));
        assert!(judged.is_err(), "{refused:?}");
    }
    let day = "\r\rC\rV\rN\rC\rS6\rL\rF\rC\rS6\rO\rt7DF802010C0000000000\rt7DF80104000000000000\rt7D";
    assert_eq!(judge_lines("a day", day.as_bytes()), ["04"]);
}
