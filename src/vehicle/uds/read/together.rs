//! Several OBD identifiers in one question of service 22 (SAE J1979-2, ISO 14229-1 §11.2), and going
//! back to one where adapter or unit cannot do more. What lives here: which go together and taking
//! the answer apart. What does not: which are asked at all ([`super`]).
//!
//! ```text
//!  22F40CF40DF405 ──► 62 F40C … F40D … F405 …
//!    silence, a refusal              ──► each of them alone, and so for the rest of the unit
//!    one is missing and comes alone  ──► the same
//! ```

use super::{Reading, SILENCES};
use crate::vehicle::answer::Answer;
use crate::vehicle::error::AdapterError;
use crate::vehicle::gate::Request;
use crate::vehicle::parts::line_count;
use crate::vehicle::uds::find::Unit;

/// Identifiers in a single frame: the service and three of two bytes (ISO 15765-2).
const MOST: usize = 3;
/// Most data bytes of an identifier that goes with others: three of them then make no more lines
/// than a VIN does, which every adapter survives.
const SHORT: usize = 4;

impl Reading<'_> {
    /// Asks for all identifiers `family | id`, and keeps what they stand for.
    pub(super) async fn all_of(&mut self, unit: &Unit, family: u16, ids: &[u8]) -> Result<(), AdapterError> {
        let (mut rest, long): (Vec<u8>, Vec<u8>) =
            ids.iter().partition(|id| self.short_length(family, **id).is_some());
        let mut alone = long.len();
        rest.extend(long);
        while !rest.is_empty() {
            let short = rest.len() - alone;
            let count = if self.together { short.clamp(1, MOST) } else { 1 };
            alone = alone.min(rest.len() - count);
            let later = rest.split_off(count);
            let asked = std::mem::replace(&mut rest, later);
            let came = self.several(unit, family, &asked).await?;
            for id in &asked {
                if let Some((_, data)) = came.iter().find(|(one, _)| one == id) {
                    self.keep_as_j1979(unit, family, *id, data);
                } else if self.stands_for(unit, family, *id).await?.is_some() && asked.len() > 1 {
                    // It was left out among several and comes alone.
                    self.together = false;
                }
            }
        }
        Ok(())
    }

    /// What came of several identifiers asked at once, with its data. Nothing: they are not asked so,
    /// or no longer.
    pub(super) async fn several(
        &mut self,
        unit: &Unit,
        family: u16,
        ids: &[u8],
    ) -> Result<Vec<(u8, Vec<u8>)>, AdapterError> {
        let [high, _] = family.to_be_bytes();
        let may = self.together && ids.len() > 1 && self.silences < SILENCES;
        let Some(request) = Request::obd_identifiers(high, ids).filter(|_| may) else {
            return Ok(Vec::new());
        };
        let bytes: Option<usize> =
            ids.iter().map(|id| self.short_length(family, *id).map(|length| 2 + length)).sum();
        let lines = bytes.and_then(|bytes| u8::try_from(line_count(bytes)).ok());
        let answer = self.put_quietly(unit, request, lines).await?;
        let payload = answer.and_then(|answer| unit.positive(&answer)).unwrap_or_default();
        let came = taken_apart(&payload, high, ids, |id| self.short_length(family, id));
        self.together = !came.is_empty();
        Ok(came)
    }

    /// A question whose parts are asked again: what goes wrong with it is no error of the report.
    pub(super) async fn put_quietly(
        &mut self,
        unit: &Unit,
        request: Request,
        lines: Option<u8>,
    ) -> Result<Option<Answer>, AdapterError> {
        match self.put_unnoted(unit, request, lines).await {
            Err(error) if !error.is_fatal() => Ok(None),
            answer => answer,
        }
    }

    /// The data bytes of an identifier, where they are few and certain.
    pub(super) fn short_length(&self, family: u16, id: u8) -> Option<usize> {
        // Masks, and readiness, have four.
        if id.is_multiple_of(0x20) || family == 0xF400 && id == 0x01 {
            return Some(SHORT);
        }
        let row = self.bundle.pids.get(0x01, id).filter(|row| family == 0xF400 && row.more_bytes == 0)?;
        row.bytes.filter(|bytes| *bytes <= SHORT)
    }
}

/// Each identifier's data in a 62. Fewer may come, and in another order; what follows something that
/// was not asked, or is cut off, is left out.
fn taken_apart(
    payload: &[u8],
    high: u8,
    asked: &[u8],
    length: impl Fn(u8) -> Option<usize>,
) -> Vec<(u8, Vec<u8>)> {
    let mut parts: Vec<(u8, Vec<u8>)> = Vec::new();
    let mut rest = payload.strip_prefix(&[0x62]).unwrap_or_default();
    while let [family, id, behind @ ..] = rest {
        let new = *family == high && asked.contains(id) && parts.iter().all(|(earlier, _)| earlier != id);
        let split = length(*id).filter(|_| new).and_then(|length| behind.split_at_checked(length));
        let Some((data, next)) = split else { break };
        parts.push((*id, data.to_vec()));
        rest = next;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_apart_by_lengths() {
        let length = |id| match id {
            0x0C => Some(2),
            0x0D | 0x05 | 0x0B => Some(1),
            _ => None,
        };
        for (name, answer, expected) in [
            ("all", "62 F40C 0CB2 F40D 00 F405 7B", "0C:0CB2 0D:00 05:7B"),
            ("another order, fewer", "62 F405 7B F40C 0CB2", "05:7B 0C:0CB2"),
            ("data like an identifier", "62 F40C F40D F40D F4", "0C:F40D 0D:F4"),
            ("cut off", "62 F40D 00 F40C 0C", "0D:00"),
            ("not asked for", "62 F40D 00 F40B 21 F405 7B", "0D:00"),
            ("the same twice", "62 F40D 00 F40D 01", "0D:00"),
            ("another family", "62 F60D 00", ""),
            ("padding", "62 F40D 00 AA AA", "0D:00"),
            ("a refusal", "7F 22 31", ""),
            ("nothing", "", ""),
        ] {
            let payload = hex::decode(answer.replace(' ', "")).unwrap();
            let parts: Vec<String> = taken_apart(&payload, 0xF4, &[0x0C, 0x0D, 0x05], length)
                .iter()
                .map(|(id, data)| format!("{id:02X}:{}", hex::encode_upper(data)))
                .collect();
            assert_eq!(parts.join(" "), expected, "{name}");
        }
    }
}
