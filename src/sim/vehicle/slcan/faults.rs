//! What can go wrong between a simulated slcan adapter and the host, by script. What does not
//! live here: what goes wrong in the car ([`super::super::car`]), and a loss of power, which the
//! adapter itself knows.

/// Something goes wrong at the adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlcanFault {
    /// The next line with a frame has a wrong character.
    Garble,
    /// From now on every n-th has one; 0 ends it.
    GarbleEvery(u32),
    /// The next line with a frame has 00 bytes in it.
    Nulls,
    /// The supply dips: it is off the bus and knows no bit rate, and says nothing of it.
    BrownOut,
    /// Never answers again, until it vanishes and returns.
    Freeze,
}

/// Faults that wait for a line, and one that stays.
#[derive(Debug, Default)]
pub(super) struct Faults {
    garble: u32,
    garble_every: u32,
    /// Lines since that began.
    lines: u32,
    nulls: u32,
    pub frozen: bool,
}

impl Faults {
    /// True: its power is gone for a moment, which is not of this module.
    pub(super) fn add(&mut self, fault: SlcanFault) -> bool {
        match fault {
            SlcanFault::Garble => self.garble += 1,
            SlcanFault::GarbleEvery(every) => (self.garble_every, self.lines) = (every, 0),
            SlcanFault::Nulls => self.nulls += 1,
            SlcanFault::BrownOut => return true,
            SlcanFault::Freeze => self.frozen = true,
        }
        false
    }

    /// What becomes of a line with a frame.
    pub(super) fn strike(&mut self, mut line: Vec<u8>) -> Vec<u8> {
        let mut wrong = self.garble > 0;
        self.garble = self.garble.saturating_sub(1);
        if self.garble_every > 0 {
            self.lines += 1;
            wrong |= self.lines.is_multiple_of(self.garble_every);
        }
        let middle = line.len() / 2;
        if let Some(byte) = line.get_mut(middle).filter(|_| wrong) {
            *byte = b'*';
        }
        if self.nulls > 0 {
            self.nulls -= 1;
            line = line.iter().flat_map(|byte| [0, *byte]).collect();
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_strikes_its_line() {
        let mut faults = Faults::default();
        let mut said = |fault: Option<SlcanFault>| {
            assert!(!fault.is_some_and(|fault| faults.add(fault)));
            String::from_utf8(faults.strike(b"t1001AA\r".to_vec())).unwrap()
        };
        let (well, wrong) = ("t1001AA\r", "t100*AA\r");
        assert_eq!([said(None), said(Some(SlcanFault::Garble)), said(None)], [well, wrong, well]);
        assert_eq!([said(Some(SlcanFault::GarbleEvery(2))), said(None), said(None)], [well, wrong, well]);
        assert_eq!([said(Some(SlcanFault::GarbleEvery(0))), said(None)], [well, well]);
        assert_eq!(said(Some(SlcanFault::Nulls)), "\0t\x001\x000\x000\x001\0A\0A\0\r");
        assert_eq!(said(None), well);
        assert!(faults.add(SlcanFault::BrownOut) && !faults.frozen);
    }
}
