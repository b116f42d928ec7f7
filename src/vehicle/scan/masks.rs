//! Which PIDs (01) and monitors (06) a car has: chains of masks, of which each says whether there
//! is another. On CAN several go into one question where adapter and car take that (SAE J1979:
//! up to six), also those that nobody promised yet; what does not come so is asked alone.
//!
//! ```text
//!  01204060 ──► 41 20 … 40 … 60 …      each as if it had been asked alone
//!    nobody, or a refusal   ──► each of them alone, and so for the rest of the chain
//!    a promised one missing ──► that one alone
//! ```

use super::{BrokeOff, Scan};
use crate::vehicle::gate::Request;
use crate::vehicle::parts::line_count;
use crate::vehicle::protocol::EcuAddress;
use crate::vehicle::report::Told;

/// Masks in one request: six identifiers and the service fill a single frame (SAE J1979 §7.1).
const MOST_MASKS: usize = 6;
/// The mask's identifier and its four bytes.
const MASK_BYTES: usize = 5;

/// Whose masks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Masks {
    /// Service 01.
    Current,
    /// Service 06.
    Monitors,
}

impl Masks {
    fn alone(self, base: u8) -> Request {
        match self {
            Self::Current => Request::current(base),
            Self::Monitors => Request::monitor(base),
        }
    }

    fn together(self, bases: &[u8]) -> Option<Request> {
        match self {
            Self::Current => Request::current_many(bases),
            Self::Monitors => Request::monitor_masks(bases),
        }
    }
}

impl Scan<'_> {
    /// Every mask behind the first one, as far as the chain goes.
    pub(super) async fn masks(&mut self, of: Masks) -> Result<(), BrokeOff> {
        // What takes several PIDs is given several masks; nothing is proven by that.
        let mut together = self.adapter.most_pids() > 1;
        for base in (0x20..=0xE0_u8).step_by(0x20) {
            let units = self.units_with(of, base);
            if units.is_empty() {
                break;
            }
            if together && self.lacks(of, base, &units) {
                together = self.masks_together(of, base, units.len()).await?;
            }
            if self.lacks(of, base, &units) {
                let lines = u8::try_from(units.len()).ok().filter(|_| of == Masks::Current);
                self.ask(of.alone(base), lines.filter(|n| (1..=15).contains(n))).await?;
            }
        }
        Ok(())
    }

    /// The units whose mask before promises this one.
    fn units_with(&self, of: Masks, base: u8) -> Vec<EcuAddress> {
        let promised = |ecu: &EcuAddress| match of {
            Masks::Current => self.record.supported(ecu).contains(&base),
            Masks::Monitors => self.record.supported_monitors(ecu).contains(&base),
        };
        self.record.ecus().into_iter().filter(promised).collect()
    }

    fn lacks(&self, of: Masks, base: u8, units: &[EcuAddress]) -> bool {
        units.iter().any(|ecu| self.record.payloads(ecu, of.alone(base)).is_empty())
    }

    /// Asks this mask and those behind it, as many as the adapter's lines allow. Whether that works.
    async fn masks_together(&mut self, of: Masks, base: u8, units: usize) -> Result<bool, BrokeOff> {
        let behind: Vec<u8> = (base..=0xE0).step_by(0x20).take(MOST_MASKS).collect();
        let fits = |count: &usize| units * line_count(count * MASK_BYTES) <= self.most_lines();
        let count = (2..=behind.len()).rev().find(fits);
        let Some(bases) = count.and_then(|count| behind.get(..count)) else { return Ok(true) };
        let Some(request) = of.together(bases) else { return Ok(true) };
        self.step(request);
        let answer = self.ask_tolerantly(request, None).await?.unwrap_or_default();
        let before = self.record.told.len();
        for message in &answer.messages {
            let (masks, []) = message.payload.get(1..).unwrap_or_default().as_chunks::<MASK_BYTES>() else {
                continue;
            };
            for [id, mask @ ..] in masks.iter().filter(|[id, ..]| bases.contains(id)) {
                let alone = of.alone(*id);
                if self.record.payloads(&message.sender, alone).is_empty() {
                    let payload = [&[request.service() | 0x40, *id], &mask[..]].concat();
                    self.record.told.push(Told { request: alone, ecu: message.sender.clone(), payload });
                }
            }
        }
        Ok(self.record.told.len() > before)
    }
}
