//! Every byte of a session with its time, one JSON object a line, for `scan
//! --trace` and the simulator's replay. The VIN is masked ([`mask`]): within the
//! exchange that asks for it every data byte that can be part of a VIN is written
//! as `0`, at the same places, so that the replay keeps its timing and form; in every
//! other exchange what by its form is an answer with a VIN, however late it comes. So
//! each reply is written when it is whole. A VIN of zeros is nobody's: a replayed
//! report has none.
//!
//! ```text
//! {"baygate_trace":1,"link":"elm327+tcp://…","started_at":"…","vin_masked":true}
//! {"t_ms":12.4,"dir":"tx","hex":"41545A0D","ascii":"ATZ\\r"}
//! {"t_ms":840.1,"dir":"rx","hex":"…","ascii":"\\r\\rELM327 v1.5\\r\\r>"}
//! ```

mod mask;

use std::io::Write;
use std::time::Instant;

use serde_json::json;

use self::mask::VinMask;
use crate::clock::UtcMillis;
use crate::vehicle::gate::Outgoing;

/// An answer is held back at most to this size, then written masked as it stands.
const MAX_HELD: usize = 64 * 1024;

/// Writes the trace.
pub struct Trace {
    /// `None`: it could not be written any more.
    out: Option<Box<dyn Write + Send + Sync>>,
    begun: Instant,
    /// Chunks of an answer, until its end.
    held: Vec<(f64, Vec<u8>)>,
    /// The VIN was asked for: whatever can be part of it is masked, whatever its form.
    asked: bool,
    mask: VinMask,
}

impl Trace {
    /// Begins a trace of `link`.
    #[must_use]
    pub fn begin(out: Box<dyn Write + Send + Sync>, link: &str) -> Self {
        let mut trace = Self {
            out: Some(out),
            begun: Instant::now(),
            held: Vec::new(),
            asked: false,
            mask: VinMask::default(),
        };
        trace.line(&json!({
            "baygate_trace": 1, "link": link, "started_at": UtcMillis::now(), "vin_masked": true
        }));
        trace
    }

    pub(super) fn sent(&mut self, command: Outgoing, wire: &[u8]) {
        self.flush_held();
        self.asked |= command.request().is_some_and(|request| request.asks_for_vin());
        let now = self.now();
        self.write("tx", now, wire);
    }

    pub(super) fn received(&mut self, bytes: &[u8]) {
        let now = self.now();
        self.held.push((now, bytes.to_vec()));
        if self.held.iter().map(|(_, chunk)| chunk.len()).sum::<usize>() > MAX_HELD {
            self.flush_held();
        }
    }

    pub(super) fn end_exchange(&mut self) {
        self.flush_held();
        self.asked = false;
    }

    fn flush_held(&mut self) {
        let held = std::mem::take(&mut self.held);
        let mut whole: Vec<u8> = held.iter().flat_map(|(_, chunk)| chunk.iter().copied()).collect();
        self.mask.reply(&mut whole, self.asked);
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
        let Some(out) = &mut self.out else { return };
        if let Err(error) = writeln!(out, "{value}").and_then(|()| out.flush()) {
            self.out = None;
            tracing::warn!(%error, "trace not written; check the disk and the path given to --trace");
        }
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        self.flush_held();
    }
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

    /// What follows the VIN is another answer, and stands as the car gave it.
    #[test]
    fn the_next_exchange_is_not_masked_but_the_rest_of_a_late_vin_is() {
        for (name, vin, after, expected) in [
            (
                "whole",
                "7E81014490201314434\r7E82147503030523535\r7E82242313233343536\r\r>",
                "7E804410541\r7E80A490601415A3039\r\r>",
                "7E804410541\r7E80A490601415A3039\r\r>",
            ),
            (
                "late",
                "7E81014490201314434\r7E82147503030523535\r\r>",
                "7E82242313233343536\r7E804410541\r\r>",
                "7E82230303030303030\r7E804410541\r\r>",
            ),
            (
                "not in its exchange at all",
                "NO DATA\r\r>",
                "7E81014490201314434\r7E82147503030523535\r7E82242313233343536\r7E804410541\r\r>",
                "7E81014490201303030\r7E82130303030303030\r7E82230303030303030\r7E804410541\r\r>",
            ),
            (
                "by UDS, and nobody asked",
                "7E8037F0911\r\r>",
                "7E8101462F190316434\r7E82147626264523535\r7E82242313233343536\r\r>",
                "7E8101462F190303030\r7E82130303030303030\r7E82230303030303030\r\r>",
            ),
            (
                "its beginning lost",
                "NO DATA\r\r>",
                "7E82147503030523535\r7E82242313233343536\r\r>",
                "7E82130303030303030\r7E82230303030303030\r\r>",
            ),
        ] {
            let out = Shared::default();
            let mut trace = Trace::begin(Box::new(out.clone()), "x");
            for (ask, reply) in [(Request::vehicle_info(2), vin), (Request::current(5), after)] {
                let ask = Outgoing::Obd(ask);
                trace.sent(ask, &ask.wire());
                trace.received(reply.as_bytes());
                trace.end_exchange();
            }
            let text = String::from_utf8(out.0.lock().unwrap().clone()).unwrap();
            let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
            let last = hex::decode(last["hex"].as_str().unwrap()).unwrap();
            assert_eq!(String::from_utf8(last).unwrap(), expected, "{name}");
        }
    }
}
