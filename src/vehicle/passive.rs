//! Frames heard on a bus to windows of signals, by a DBC database. Pure, and without
//! allocation from frame to frame: a bus at full load has 4,500 frames/s.
//!
//! Signals are told as `Message.Signal`: two messages may have a signal of one name.

use std::sync::Arc;

use super::dbc::{Database, Selectors, Value};
use super::telemetry::{Sums, Taken};
use crate::clock::UtcMillis;

/// Signals of one link's database that are told; the first of the file count.
const MOST_TOLD: usize = 1024;

/// Collects what a bus says until the window is taken.
#[derive(Debug)]
pub struct Passive {
    database: Arc<Database>,
    /// By message: where its signals begin in `sums`.
    first: Vec<usize>,
    sums: Vec<Option<Sums>>,
    selectors: Selectors,
    span: Option<(UtcMillis, UtcMillis)>,
    decoded: u64,
    unknown: u64,
}

impl Passive {
    /// Over a compiled database.
    #[must_use]
    pub fn new(database: Arc<Database>) -> Self {
        let mut signals = 0;
        let first = database
            .messages()
            .iter()
            .map(|message| {
                let begin = signals;
                signals += message.signals().len();
                begin
            })
            .collect();
        Self {
            database,
            first,
            sums: vec![None; signals],
            selectors: Selectors::default(),
            span: None,
            decoded: 0,
            unknown: 0,
        }
    }

    /// Takes one frame in. False: the database has no such message.
    pub fn decode_frame(&mut self, id: u32, extended: bool, data: &[u8], time: UtcMillis) -> bool {
        let Some(place) = self.database.place(id, extended) else {
            self.unknown += 1;
            return false;
        };
        let (Some(message), Some(&first)) = (self.database.messages().get(place), self.first.get(place))
        else {
            return false;
        };
        let sums = &mut self.sums;
        let mut sampled = false;
        message.decode(data, &mut self.selectors, |at, signal, raw| {
            let number = match signal.value(raw) {
                #[expect(clippy::cast_precision_loss, reason = "windows hold doubles")]
                Value::Integer(number) => number as f64,
                Value::Real(number) if number.is_finite() => number,
                Value::Real(_) => return,
            };
            match sums.get_mut(first + at) {
                Some(Some(sums)) => sums.add(number),
                Some(slot) => *slot = Some(Sums::begin(number)),
                None => return,
            }
            sampled = true;
        });
        if sampled {
            let (from, to) = self.span.unwrap_or((time, time));
            self.span = Some((from.min(time), to.max(time)));
        }
        self.decoded += 1;
        true
    }

    /// Frames decoded, and frames that the database does not know, since the beginning.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        (self.decoded, self.unknown)
    }

    /// Ends the window. `None` when no signal came.
    pub fn take(&mut self) -> Option<Taken> {
        let (from, to) = self.span.take()?;
        let mut signals = Vec::new();
        for (message, &first) in self.database.messages().iter().zip(&self.first) {
            for (at, signal) in message.signals().iter().enumerate() {
                let Some(sums) = self.sums.get_mut(first + at).and_then(Option::take) else { continue };
                if signals.len() < MOST_TOLD {
                    let name = format!("{}.{}", message.name(), signal.name());
                    signals.push(sums.window(name, signal.unit().to_owned()));
                }
            }
        }
        Some(Taken { from, to, signals })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DBC: &str = "VERSION \"\"\n\
        BO_ 68 Engine: 8 ECM\n SG_ Speed : 0|16@1+ (0.25,0) [0|0] \"rpm\" X\n SG_ Coolant : 23|8@0- (1,-40) [0|0] \"C\" X\n\
        BO_ 100 Mux: 8 ECM\n SG_ Page M : 0|8@1+ (1,0) [0|0] \"\" X\n SG_ A m0 : 8|8@1+ (1,0) [0|0] \"\" X\n SG_ B m1 : 8|8@1+ (2,0) [0|0] \"\" X\n\
        BO_ 2566844672 Wide: 64 ECM\n SG_ P : 0|32@1- (1,0) [0|0] \"bar\" X\nSIG_VALTYPE_ 2566844672 P : 1;\n";

    fn told(passive: &mut Passive) -> Vec<(String, f64, f64, f64, u64)> {
        let taken = passive.take().unwrap();
        taken.signals.into_iter().map(|s| (s.name, s.min, s.max, s.last, s.count)).collect()
    }

    #[test]
    fn frames_become_windows() {
        let mut passive = Passive::new(Arc::new(Database::from_bytes(DBC.as_bytes()).unwrap()));
        assert_eq!(passive.take(), None);
        let frames: [(u32, bool, &[u8]); 8] = [
            (68, false, &[0xA0, 0x0F, 0x28]), // 4000 · 0.25, 40 − 40
            (68, false, &[0x50, 0x0F, 0x2A]),
            (68, false, &[0xA0, 0x0F]), // too short for the coolant
            (100, false, &[0, 7]),
            (100, false, &[1, 7]),
            (100, false, &[2, 7]), // selects nothing
            (0x18FE_F100, true, &1.5_f32.to_le_bytes()),
            (0x18FE_F100, true, &f32::NAN.to_le_bytes()),
        ];
        for (time, (id, extended, data)) in (10..).zip(frames) {
            assert!(passive.decode_frame(id, extended, data, UtcMillis(time)), "{id}");
        }
        assert!(!passive.decode_frame(69, false, &[0; 8], UtcMillis(99)));
        assert!(!passive.decode_frame(68, true, &[0; 8], UtcMillis(99)));
        assert_eq!(passive.counts(), (8, 2));
        assert_eq!(passive.span, Some((UtcMillis(10), UtcMillis(16))));
        let expected = [
            ("Engine.Speed", 980.0, 1000.0, 1000.0, 3),
            ("Engine.Coolant", 0.0, 2.0, 2.0, 2),
            ("Mux.Page", 0.0, 2.0, 2.0, 3),
            ("Mux.A", 7.0, 7.0, 7.0, 1),
            ("Mux.B", 14.0, 14.0, 14.0, 1),
            ("Wide.P", 1.5, 1.5, 1.5, 1),
        ];
        let expected: Vec<_> = expected
            .iter()
            .map(|(name, min, max, last, count)| ((*name).to_owned(), *min, *max, *last, *count))
            .collect();
        assert_eq!(told(&mut passive), expected);
        assert_eq!(passive.take(), None, "a window begins anew");
    }
}
