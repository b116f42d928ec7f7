//! Every byte of a session with its time, one JSON object a line, for `scan
//! --trace` and the simulator's replay. The VIN is masked: within the exchange
//! of 09 02 every data byte that can be part of a VIN is written as `0`, at the
//! same places, so that the replay keeps its timing and form.
//!
//! ```text
//! {"baygate_trace":1,"link":"elm327+tcp://…","started_at":"…","vin_masked":true}
//! {"t_ms":12.4,"dir":"tx","hex":"41545A0D","ascii":"ATZ\\r"}
//! {"t_ms":840.1,"dir":"rx","hex":"…","ascii":"\\r\\rELM327 v1.5\\r\\r>"}
//! ```

use std::io::Write;
use std::time::Instant;

use serde_json::json;

use crate::clock::UtcMillis;
use crate::vehicle::gate::Outgoing;

/// A masked answer is held back at most to this size, then written masked as it stands.
const MAX_HELD: usize = 64 * 1024;

/// Writes the trace.
pub struct Trace {
    out: Box<dyn Write + Send + Sync>,
    begun: Instant,
    /// Chunks of an answer that holds the VIN, until its end.
    held: Vec<(f64, Vec<u8>)>,
    masking: Masking,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Masking {
    No,
    ThisExchange,
    /// The rest of a late answer may still come.
    NextExchange,
}

impl Trace {
    /// Begins a trace of `link`.
    #[must_use]
    pub fn begin(out: Box<dyn Write + Send + Sync>, link: &str) -> Self {
        let mut trace = Self { out, begun: Instant::now(), held: Vec::new(), masking: Masking::No };
        trace.line(&json!({
            "baygate_trace": 1, "link": link, "started_at": UtcMillis::now(), "vin_masked": true
        }));
        trace
    }

    pub(super) fn sent(&mut self, command: Outgoing, wire: &[u8]) {
        self.flush_held();
        if command.request().is_some_and(|request| request.asks_for_vin()) {
            self.masking = Masking::ThisExchange;
        }
        let now = self.now();
        self.write("tx", now, wire);
    }

    pub(super) fn received(&mut self, bytes: &[u8]) {
        let now = self.now();
        if self.masking == Masking::No {
            self.write("rx", now, bytes);
            return;
        }
        self.held.push((now, bytes.to_vec()));
        if self.held.iter().map(|(_, chunk)| chunk.len()).sum::<usize>() > MAX_HELD {
            self.flush_held();
        }
    }

    pub(super) fn end_exchange(&mut self) {
        self.flush_held();
        self.masking = match self.masking {
            Masking::ThisExchange => Masking::NextExchange,
            Masking::NextExchange | Masking::No => Masking::No,
        };
    }

    fn flush_held(&mut self) {
        let held = std::mem::take(&mut self.held);
        let mut whole: Vec<u8> = held.iter().flat_map(|(_, chunk)| chunk.iter().copied()).collect();
        mask_vin(&mut whole);
        let mut rest = whole.as_slice();
        for (time, chunk) in held {
            let (masked, after) = rest.split_at_checked(chunk.len()).unwrap_or((rest, &[]));
            self.write("rx", time, masked);
            rest = after;
        }
    }

    fn write(&mut self, direction: &str, t_ms: f64, bytes: &[u8]) {
        let ascii = bytes.escape_ascii().to_string();
        self.line(&json!({"t_ms": t_ms, "dir": direction, "hex": hex::encode_upper(bytes), "ascii": ascii}));
    }

    fn now(&self) -> f64 {
        (self.begun.elapsed().as_secs_f64() * 10_000.0).round() / 10.0
    }

    fn line(&mut self, value: &serde_json::Value) {
        if let Err(error) = writeln!(self.out, "{value}").and_then(|()| self.out.flush()) {
            tracing::warn!(%error, "trace not written; check the disk and the path given to --trace");
        }
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        self.flush_held();
    }
}

/// Replaces VIN characters in an answer to 09 02 by `0` (hex `30`), line by line, and
/// repairs the sum of older buses' lines so that the masked answer is still a valid one.
fn mask_vin(reply: &mut [u8]) {
    for line in reply.split_mut(|b| matches!(b, b'\r' | b'\n' | b'>')) {
        let places: Vec<usize> =
            line.iter().enumerate().filter(|(_, b)| b.is_ascii_hexdigit()).map(|(place, _)| place).collect();
        let digits: Vec<u8> = places.iter().filter_map(|place| line.get(*place).copied()).collect();
        let Some(masked) = masked_digits(&digits) else { continue };
        for (place, digit) in places.into_iter().zip(masked) {
            if let Some(byte) = line.get_mut(place) {
                *byte = digit;
            }
        }
    }
}

fn masked_digits(digits: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(digits).ok()?;
    // `UNABLE TO CONNECT` and `NO DATA` hold hex letters too, but no line of theirs is this long.
    if digits.len() < 8 {
        return None;
    }
    let odd = digits.len() % 2 == 1;
    let header = match text {
        _ if odd => 3,
        _ if text.starts_with("18DA") => 8,
        _ => 6,
    };
    let (head, tail) = text.split_at_checked(header)?;
    let mut bytes = hex::decode(tail).ok()?;
    let older_bus = header == 6;
    let end = if older_bus { bytes.len().saturating_sub(1) } else { bytes.len() };
    let before: u8 = bytes.iter().take(end).fold(0, |sum, b| sum.wrapping_add(*b));
    for byte in bytes.iter_mut().take(end) {
        if is_vin_character(*byte) {
            *byte = b'0';
        }
    }
    if older_bus {
        let after: u8 = bytes.iter().take(end).fold(0, |sum, b| sum.wrapping_add(*b));
        if let Some(sum) = bytes.last_mut() {
            *sum = sum.wrapping_sub(before).wrapping_add(after);
        }
    }
    Some(format!("{head}{}", hex::encode_upper(bytes)).into_bytes())
}

/// The characters of ISO 3779. The echoed service 49 is `I`, which is none of them.
fn is_vin_character(byte: u8) -> bool {
    byte.is_ascii_digit() || (byte.is_ascii_uppercase() && !matches!(byte, b'I' | b'O' | b'Q'))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::vehicle::gate::Request;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);
    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn masked(reply: &str) -> String {
        let mut bytes = reply.as_bytes().to_vec();
        mask_vin(&mut bytes);
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn vin_bytes_become_zeros_in_place() {
        for (name, reply, expected) in [
            (
                "11-bit, no spaces",
                "7E81014490201314434\r7E82147503030523535\r7E82242313233343536\r\r>",
                "7E81014490201303030\r7E82130303030303030\r7E82230303030303030\r\r>",
            ),
            ("11-bit, spaces", "7E8 10 14 49 02 01 31 44 34\r", "7E8 10 14 49 02 01 30 30 30\r"),
            (
                "29-bit",
                "18DAF1101014490201314434\r18DAF1102147503030523535\r",
                "18DAF1101014490201303030\r18DAF1102130303030303030\r",
            ),
            ("nothing to mask", "NO DATA\r>", "NO DATA\r>"),
            ("refusal", "7E8037F0911\r>", "7E8037F0911\r>"),
        ] {
            assert_eq!(masked(reply), expected, "{name}");
        }
        // Older bus: header 48 6B 10, checksum last; the sum must hold again.
        let line = masked("486B1049020144344750 7A\r".replace(' ', "").as_str());
        let bytes = hex::decode(line.trim()).unwrap();
        assert_eq!(bytes[3..10], [0x49, 0x02, 0x01, 0x30, 0x30, 0x30, 0x30]);
        let original = hex::decode("486B10490201443447507A").unwrap();
        let sum = |b: &[u8]| b[..10].iter().fold(0_u8, |s, b| s.wrapping_add(*b));
        assert_eq!(bytes[10].wrapping_sub(sum(&bytes)), original[10].wrapping_sub(sum(&original)));
    }

    #[test]
    fn chunks_keep_their_lengths_and_the_vin_is_gone() {
        let out = Shared::default();
        let mut trace = Trace::begin(Box::new(out.clone()), "elm327+tcp://x:1");
        let ask = Outgoing::Obd(Request::vehicle_info(2));
        trace.sent(ask, &ask.wire());
        for chunk in ["7E810144902013", "14434\r7E8214750", "3030523535\r7E82242313233343536\r\r>"] {
            trace.received(chunk.as_bytes());
        }
        trace.end_exchange();
        let text = String::from_utf8(out.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(lines[0]["baygate_trace"], 1);
        assert_eq!(lines[1]["dir"], "tx");
        let lengths: Vec<usize> = lines[2..].iter().map(|l| l["hex"].as_str().unwrap().len() / 2).collect();
        assert_eq!(lengths, [14, 15, 33]);
        assert!(!text.contains("42313233343536") && !text.contains("47503030523535"), "{text}");
    }
}
