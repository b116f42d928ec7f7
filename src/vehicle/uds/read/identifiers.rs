//! What a unit of J1979-2 has identifiers for, and the J1979 answers they stand for (SAE J1979-2:
//! F4xx is PID xx, F6xx monitor xx, F8xx information xx). What lives here: masks, one identifier, and
//! its J1979 form. What does not: several at once ([`super::together`]), and which are asked ([`super`]).

use super::Reading;
use crate::vehicle::error::AdapterError;
use crate::vehicle::gate::Request;
use crate::vehicle::obd;
use crate::vehicle::report;
use crate::vehicle::uds::answer;
use crate::vehicle::uds::find::Unit;

impl Reading<'_> {
    /// The ids a chain of masks promises; each mask is kept as J1979's.
    pub(super) async fn promised(&mut self, unit: &Unit, family: u16) -> Result<Vec<u8>, AdapterError> {
        let (mut promised, mut came) = (Vec::new(), Vec::new());
        for base in (0..=0xE0_u8).step_by(0x20) {
            if base != 0 && !promised.contains(&base) {
                break;
            }
            // Who has the next mask most likely has those behind it, and else leaves them out.
            match base {
                0x20 => came = self.several(unit, family, &[0x20, 0x40, 0x60]).await?,
                0x80 => came = self.several(unit, family, &[0x80, 0xA0, 0xC0]).await?,
                _ => {}
            }
            let data = match came.iter().find(|(mask, _)| *mask == base) {
                Some((_, data)) => {
                    self.keep_as_j1979(unit, family, base, data);
                    Some(data.clone())
                }
                None => self.stands_for(unit, family, base).await?,
            };
            let Some(mask) = data.and_then(|data| obd::four_bytes(&data, 0)) else { break };
            promised.extend(obd::supported(base, mask));
        }
        promised.retain(|id| !id.is_multiple_of(0x20));
        Ok(promised)
    }

    /// Asks for identifier `family | id` and keeps the J1979 answer it stands for. Gives its data, when all
    /// of it came.
    pub(super) async fn stands_for(
        &mut self,
        unit: &Unit,
        family: u16,
        id: u8,
    ) -> Result<Option<Vec<u8>>, AdapterError> {
        let did = family | u16::from(id);
        let request = Request::data_by_identifier(did);
        // A single frame holds seven bytes, three of them the service and the identifier.
        let lines = self.short_length(family, id).map(|_| 1);
        let Some(payload) = self.ask_for(unit, request, lines).await? else { return Ok(None) };
        let Ok(data) = answer::data(&payload, did) else { return Ok(None) };
        let row = self.bundle.pids.get(0x01, id).filter(|_| family == 0xF400);
        if let Some(bytes) = row.and_then(|row| row.bytes).filter(|bytes| data.len() < *bytes) {
            // As J1979's it would be named by a question that was never sent.
            self.note(unit, request, report::too_few(data.len(), bytes));
            return Ok(None);
        }
        self.keep_as_j1979(unit, family, id, data);
        Ok(Some(data.to_vec()))
    }

    pub(super) fn keep_as_j1979(&mut self, unit: &Unit, family: u16, id: u8, data: &[u8]) {
        let (request, payload) = as_j1979(family, id, data);
        self.keep(request, unit, &payload);
    }
}

/// The J1979 question and answer that an identifier's data stands for.
fn as_j1979(family: u16, id: u8, data: &[u8]) -> (Request, Vec<u8>) {
    match family {
        0xF600 if id.is_multiple_of(0x20) => (Request::monitor(id), [&[0x46, id], data].concat()),
        // Service 06 repeats the monitor before each test; F6xx does not.
        0xF600 => {
            let (tests, _) = data.as_chunks::<8>();
            let tests = tests.iter().flat_map(|test| [&[id], &test[..]].concat());
            (Request::monitor(id), std::iter::once(0x46).chain(tests).collect())
        }
        0xF800 if id == 0 => (Request::vehicle_info(0), [&[0x49, 0], data].concat()),
        // Service 09 counts its items; F8xx does not.
        0xF800 => (Request::vehicle_info(id), [&[0x49, id, 1], data].concat()),
        _ => (Request::current(id), [&[0x41, id], data].concat()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_stand_for_j1979() {
        // Source: the public bench unit's F40C (0B ED is 763.25 rpm) and F802; SAE J1979-2.
        for (family, id, data, request, payload) in [
            (0xF400, 0x0C, &[0x0B, 0xED][..], "010C", &[0x41, 0x0C, 0x0B, 0xED][..]),
            (0xF400, 0x00, &[0x98, 0x18, 0xA0, 0x13], "0100", &[0x41, 0x00, 0x98, 0x18, 0xA0, 0x13]),
            (0xF800, 0x02, b"W", "0902", &[0x49, 0x02, 0x01, b'W']),
            (0xF800, 0x00, &[0x50, 0, 0, 0], "0900", &[0x49, 0x00, 0x50, 0, 0, 0]),
            (
                0xF600,
                0x21,
                &[0x80, 0x20, 0, 51, 0, 0, 0, 192, 0x81, 0x20, 0, 1, 0, 0, 0, 2],
                "0621",
                &[0x46, 0x21, 0x80, 0x20, 0, 51, 0, 0, 0, 192, 0x21, 0x81, 0x20, 0, 1, 0, 0, 0, 2],
            ),
        ] {
            let (asked, answered) = as_j1979(family, id, data);
            assert_eq!((asked.to_string().as_str(), answered.as_slice()), (request, payload));
            assert!(asked.is_answered_by(&answered), "{request}");
        }
    }
}
