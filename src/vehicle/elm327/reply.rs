//! Lines to meanings: which lines of a reply are data and which are the
//! adapter's own words. Pure. What the data means is read in `frame` and above.

use crate::vehicle::answer::Complaint;

/// One line of a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// Hex digits, spaces removed, upper case.
    Data(String),
    /// `OK`.
    Ok,
    /// A progress word without data behind it (`SEARCHING...`, `BUS INIT: OK`).
    Progress,
    /// The adapter complains.
    Complaint(Complaint),
    /// Reset banner, asked for or not (brown-out), or `LV RESET`: all settings are lost.
    Banner(String),
    /// `ERR94`: settings lost, CAN search blocked until `AT FE`.
    SettingsLost,
    /// `ACT ALERT`, `LP ALERT`: will sleep or sleeps in 2 s.
    Alert,
    /// Clones' lines that start with `+`.
    Vendor,
    /// Any other printable text (identities, voltages).
    Text(String),
    /// Bytes that no adapter sends on purpose.
    Garbage,
}

/// What one line of a reply means.
#[must_use]
pub fn classify(line: &str) -> Line {
    let upper = line.trim().to_ascii_uppercase();
    if upper.contains(char::REPLACEMENT_CHARACTER) {
        return Line::Garbage;
    }
    let (rest, progressed) = strip_progress(&upper);
    if rest.is_empty() {
        return if progressed { Line::Progress } else { Line::Garbage };
    }
    if let Some(meaning) = fixed_words(rest) {
        return meaning;
    }
    if rest.ends_with("<DATA ERROR") {
        return Line::Complaint(Complaint::DataError);
    }
    if rest.ends_with("<RX ERROR") {
        return Line::Complaint(Complaint::RxError);
    }
    let digits: String = rest.chars().filter(|c| *c != ' ').collect();
    if digits.len() >= 2 && digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Line::Data(digits);
    }
    Line::Text(line.trim().to_owned())
}

/// Takes `SEARCHING...`, `BUS INIT: ...OK` and `BUS INIT: OK` from the front; data may be glued behind.
fn strip_progress(line: &str) -> (&str, bool) {
    if let Some(rest) = line.strip_prefix("SEARCHING") {
        return (rest.trim_start_matches(['.', ':', ' ']), true);
    }
    if let Some(rest) = line.strip_prefix("BUS INIT:") {
        let rest = rest.trim_start_matches(['.', ' ']);
        return match rest.strip_prefix("OK") {
            Some(rest) => (rest.trim_start(), true),
            // `ERROR` stays, and is met below as the complaint of the bus.
            None if rest.starts_with("ERROR") => ("BUS INIT ERROR", true),
            None => (rest, true),
        };
    }
    (line, false)
}

fn fixed_words(line: &str) -> Option<Line> {
    use Complaint as C;
    let complaint = match line {
        "OK" => return Some(Line::Ok),
        "?" => C::Unknown,
        "NO DATA" | "NODATA" => C::NoData,
        "BUS INIT ERROR" => C::BusInit,
        "BUS BUSY" => C::BusBusy,
        "BUS ERROR" => C::BusError,
        "CAN ERROR" => C::CanError,
        "DATA ERROR" => C::DataError,
        "RX ERROR" => C::RxError,
        "BUFFER FULL" => C::BufferFull,
        "STOPPED" => C::Stopped,
        "FB ERROR" => C::FeedBack,
        "NOT CONNECTED" => C::NotConnected,
        "ERR94" => return Some(Line::SettingsLost),
        "LV RESET" => return Some(Line::Banner("LV RESET".into())),
        "ACT ALERT" | "!ACT ALERT" | "LP ALERT" | "!LP ALERT" => return Some(Line::Alert),
        _ if line.starts_with("ELM327") => return Some(Line::Banner(line.to_owned())),
        _ if line.starts_with('+') => return Some(Line::Vendor),
        // The first letters can be lost while the adapter changes protocols.
        _ if line.len() >= 7 && "UNABLE TO CONNECT".ends_with(line) => C::UnableToConnect,
        _ => match line.strip_prefix("ERR").and_then(|digits| digits.parse().ok()) {
            Some(code) => C::Internal(code),
            None => return None,
        },
    };
    Some(Line::Complaint(complaint))
}

/// A voltage as `AT RV` prints it, in volts. `None` for anything that is not one.
#[must_use]
pub fn parse_voltage(text: &str) -> Option<f64> {
    let digits = text.trim().trim_end_matches(['V', 'v']).trim();
    let volts: f64 = digits.parse().ok()?;
    // Clones without the pin print zeros or noise; 60 V is beyond every road vehicle's supply.
    // Without a car an uncalibrated converter reads a little below zero: that is no voltage, not no reading.
    (volts.is_finite() && (-2.0..60.0).contains(&volts)).then_some(if volts > 0.0 { volts } else { 0.0 })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_known_string() {
        use Complaint as C;
        let data = |hex: &str| Line::Data(hex.into());
        // Source: ELM327 data sheet v2.x "Error Messages and Alerts"; clones from field reports.
        for (line, expected) in [
            ("OK", Line::Ok),
            ("?", Line::Complaint(C::Unknown)),
            ("NO DATA", Line::Complaint(C::NoData)),
            ("SEARCHING...", Line::Progress),
            ("SEARCHING...7E8 06 41 00 BE 7F B8 13", data("7E8064100BE7FB813")),
            ("SEARCHING...NO DATA", Line::Complaint(C::NoData)),
            ("SEARCHING: UNABLE TO CONNECT", Line::Complaint(C::UnableToConnect)),
            ("SEARCHING...UNABLE TO CONNECT", Line::Complaint(C::UnableToConnect)),
            ("UNABLE TO CONNECT", Line::Complaint(C::UnableToConnect)),
            ("ABLE TO CONNECT", Line::Complaint(C::UnableToConnect)),
            ("BUS INIT: ...ERROR", Line::Complaint(C::BusInit)),
            ("BUS INIT: ERROR", Line::Complaint(C::BusInit)),
            ("BUS INIT: OK", Line::Progress),
            ("BUS INIT: ...OK", Line::Progress),
            ("BUS INIT: OK86 F1 10 41 00", data("86F1104100")),
            ("BUS BUSY", Line::Complaint(C::BusBusy)),
            ("BUS ERROR", Line::Complaint(C::BusError)),
            ("CAN ERROR", Line::Complaint(C::CanError)),
            ("DATA ERROR", Line::Complaint(C::DataError)),
            ("<DATA ERROR", Line::Complaint(C::DataError)),
            ("48 6B 10 41 00 <DATA ERROR", Line::Complaint(C::DataError)),
            ("7E8 06 41 00 <RX ERROR", Line::Complaint(C::RxError)),
            ("BUFFER FULL", Line::Complaint(C::BufferFull)),
            ("STOPPED", Line::Complaint(C::Stopped)),
            ("FB ERROR", Line::Complaint(C::FeedBack)),
            ("ERR94", Line::SettingsLost),
            ("ERR71", Line::Complaint(C::Internal(71))),
            ("LV RESET", Line::Banner("LV RESET".into())),
            ("ELM327 v1.5", Line::Banner("ELM327 V1.5".into())),
            ("ACT ALERT", Line::Alert),
            ("!ACT ALERT", Line::Alert),
            ("LP ALERT", Line::Alert),
            ("!LP ALERT", Line::Alert),
            ("NOT CONNECTED", Line::Complaint(C::NotConnected)),
            ("+BLE CONNECTED", Line::Vendor),
            ("7E8 06 41 00 BE 7F B8 13", data("7E8064100BE7FB813")),
            ("7e8064100be7fb813", data("7E8064100BE7FB813")),
            ("12.6V", Line::Text("12.6V".into())),
            ("\u{FFFD}\u{FFFD}", Line::Garbage),
        ] {
            assert_eq!(classify(line), expected, "{line:?}");
        }
    }

    #[test]
    fn voltages() {
        for (text, volts) in [
            ("12.6V", Some(12.6)),
            ("12.6", Some(12.6)),
            ("0.0V", Some(0.0)),
            ("-0.0V", Some(0.0)),
            ("-0.3V", Some(0.0)),
            ("-12.6V", None),
            ("27.8V", Some(27.8)),
            ("--.-V", None),
            ("", None),
            ("NaN", None),
            ("?", None),
        ] {
            assert_eq!(parse_voltage(text), volts, "{text:?}");
        }
    }

    proptest! {
        #![proptest_config(crate::seed::cases(256))]

        #[test]
        fn never_panics_and_data_is_hex(line in ".{0,80}") {
            if let Line::Data(hex) = classify(&line) {
                prop_assert!(hex.bytes().all(|b| b.is_ascii_hexdigit()));
            }
            let _ = parse_voltage(&line);
        }
    }
}
