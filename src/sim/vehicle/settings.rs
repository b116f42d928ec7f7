//! What AT commands set, and the command set itself: text in, answer out. Pure.

use super::adapter::Adapter;
use super::car::Frame;
use super::format::Style;

/// Commands that are acknowledged and change nothing that shows in a simulation.
const ACCEPTED: &[&str] = &[
    "AL", "NL", "AR", "M0", "M1", "V0", "V1", "FE", "BI", "JE", "JS", "JHF0", "JHF1", "JTM1", "JTM5", "SW",
    "WM", "IB", "IIA", "KW0", "KW1", "PP", "TA", "SS", "CSM0", "CSM1", "CV", "RA", "SR", "CTM", "CEA", "SD",
    "R1",
];

/// Settings of the adapter, lost on a reset.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)]
pub struct Settings {
    /// `ATE`.
    pub echo: bool,
    /// `ATL`.
    pub linefeeds: bool,
    /// `ATR`.
    pub responses: bool,
    /// How frames are printed.
    pub style: Style,
    /// `ATST`, in 4 ms.
    pub timeout: u8,
    /// `ATAT`.
    pub adaptive: u8,
    /// `ATSP`: 0 is search, else 1 to 12 (C).
    pub protocol: u8,
    /// `ATSPA…`: search when that fails, and say so in `ATDP`.
    pub automatic: bool,
    /// `ATSH`.
    pub header: Option<u32>,
    /// `ATCP`: the top five bits of a 29-bit header given by three bytes.
    pub priority: u8,
    /// `ATCRA` or `ATCF` and `ATCM`: identifier and mask.
    pub filter: Option<(u32, u32)>,
    /// `ATCFC`.
    pub flow: bool,
    /// `ATFCSM`.
    pub flow_mode: u8,
    /// `ATFCSH`.
    pub flow_header: Option<u32>,
    /// `ATFCSD`.
    pub flow_data: Vec<u8>,
}

impl Settings {
    /// As after a reset.
    #[must_use]
    pub fn fresh(adapter: &Adapter) -> Self {
        Self {
            echo: true,
            linefeeds: adapter.linefeeds,
            responses: true,
            style: Style {
                spaces: true,
                headers: false,
                length: false,
                formatting: true,
                pads: adapter.pads,
            },
            timeout: 0x32,
            adaptive: 1,
            protocol: 0,
            automatic: true,
            header: None,
            priority: 0x18,
            filter: None,
            flow: true,
            flow_mode: 0,
            flow_header: None,
            flow_data: Vec::new(),
        }
    }

    /// Carries out a command that only sets something. False: not one of these, answer `?`.
    pub fn apply(&mut self, command: &str) -> bool {
        let switch = match command.as_bytes().last() {
            Some(b'0') => Some(false),
            Some(b'1') => Some(true),
            _ => None,
        };
        match (command, switch) {
            ("E0" | "E1", Some(on)) => self.echo = on,
            ("L0" | "L1", Some(on)) => self.linefeeds = on,
            ("S0" | "S1", Some(on)) => self.style.spaces = on,
            ("H0" | "H1", Some(on)) => self.style.headers = on,
            ("D0" | "D1", Some(on)) => self.style.length = on,
            ("R0" | "R1", Some(on)) => self.responses = on,
            ("CAF0" | "CAF1", Some(on)) => self.style.formatting = on,
            ("CFC0" | "CFC1", Some(on)) => self.flow = on,
            ("AT0", _) => self.adaptive = 0,
            ("AT1", _) => self.adaptive = 1,
            ("AT2", _) => self.adaptive = 2,
            ("AR" | "CRA", _) => self.filter = None,
            _ => return self.apply_with_value(command),
        }
        true
    }

    fn apply_with_value(&mut self, command: &str) -> bool {
        let number = |digits: &str, lengths: &[usize]| {
            lengths.contains(&digits.len()).then(|| u32::from_str_radix(digits, 16).ok()).flatten()
        };
        if let Some(digits) = command.strip_prefix("FCSH") {
            return number(digits, &[3, 6, 8])
                .map(|id| self.flow_header = Some(self.whole(id, digits)))
                .is_some();
        }
        if let Some(digits) = command.strip_prefix("FCSD") {
            return hex::decode(digits)
                .ok()
                .filter(|d| (1..=5).contains(&d.len()))
                .map(|d| self.flow_data = d)
                .is_some();
        }
        if let Some(digit) = command.strip_prefix("FCSM") {
            // Modes 1 and 2 need what they send to be set first, else the chip answers `?`.
            let ready = match digit {
                "0" => true,
                "1" => self.flow_header.is_some() && !self.flow_data.is_empty(),
                "2" => !self.flow_data.is_empty(),
                _ => false,
            };
            if ready {
                self.flow_mode = digit.parse().unwrap_or(0);
            }
            return ready;
        }
        if let Some(digits) = command.strip_prefix("CRA") {
            return number(digits, &[3, 8]).map(|id| self.filter = Some((id, u32::MAX))).is_some();
        }
        if let Some(digits) = command.strip_prefix("CF") {
            let mask = self.filter.map_or(u32::MAX, |(_, mask)| mask);
            return number(digits, &[3, 8]).map(|id| self.filter = Some((id, mask))).is_some();
        }
        if let Some(digits) = command.strip_prefix("CM") {
            let id = self.filter.map_or(0x7E8, |(id, _)| id);
            return number(digits, &[3, 8]).map(|mask| self.filter = Some((id, mask))).is_some();
        }
        if let Some(digits) = command.strip_prefix("CP") {
            return number(digits, &[2]).map(|p| self.priority = u8::try_from(p).unwrap_or(0x18)).is_some();
        }
        if let Some(digits) = command.strip_prefix("SH") {
            return number(digits, &[3, 6, 8]).map(|id| self.header = Some(self.whole(id, digits))).is_some();
        }
        if let Some(digits) = command.strip_prefix("ST") {
            return number(digits, &[2])
                // 00 means the default (datasheet, AT ST).
                .map(|t| self.timeout = u8::try_from(t).ok().filter(|t| *t > 0).unwrap_or(0x32))
                .is_some();
        }
        if let Some(digits) = command.strip_prefix("SP").or_else(|| command.strip_prefix("TP")) {
            return self.choose(digits);
        }
        ACCEPTED.iter().any(|known| command.starts_with(known))
    }

    fn choose(&mut self, digits: &str) -> bool {
        let (automatic, digit) = match digits.strip_prefix('A') {
            Some(rest) if rest.len() == 1 => (true, rest),
            _ => (false, digits.trim_start_matches('0')),
        };
        let digit = if digit.is_empty() { "0" } else { digit };
        match u8::from_str_radix(digit, 16) {
            Ok(number) if number <= 0x0C => {
                self.protocol = number;
                self.automatic = automatic || number == 0;
                self.header = None;
                true
            }
            _ => false,
        }
    }

    /// Three bytes of a header get the priority in front (datasheet, AT CP).
    fn whole(&self, id: u32, digits: &str) -> u32 {
        if digits.len() == 6 { u32::from(self.priority) << 24 | id } else { id }
    }

    /// The frame identifier of requests in `protocol`.
    #[must_use]
    pub fn request_id(&self, protocol: u8) -> u32 {
        self.header.unwrap_or(if is_wide(protocol) { 0x18DB_33F1 } else { 0x7DF })
    }

    /// Whether a received frame is shown: the filter, else 7E8–7EF or 18DAF1xx.
    #[must_use]
    pub fn shows(&self, frame: &Frame) -> bool {
        let usual = if frame.extended { (0x18DA_F100, 0x1FFF_FF00) } else { (0x7E8, 0x7F8) };
        let (id, mask) = self.filter.unwrap_or(usual);
        frame.id & mask == id & mask
    }

    /// The flow control to send for a first frame from `id`, if any.
    #[must_use]
    pub fn flow_control(&self, first: &Frame, adapter: &Adapter) -> Option<Frame> {
        if !self.flow {
            return None;
        }
        let (id, data) = match self.flow_mode {
            0 => (opposite(first), vec![0x30, 0, 0]),
            _ if !adapter.flow_modes => return None,
            1 => (self.flow_header?, self.flow_data.clone()),
            _ => (opposite(first), self.flow_data.clone()),
        };
        Some(Frame { id, extended: first.extended, data })
    }
}

/// 29-bit identifiers.
#[must_use]
pub fn is_wide(protocol: u8) -> bool {
    matches!(protocol, 7 | 9)
}

/// Where flow control for this answer goes: 7E8 → 7E0, 18DAF1xx → 18DAxxF1.
fn opposite(frame: &Frame) -> u32 {
    if frame.extended {
        let [_, _, target, source] = frame.id.to_be_bytes();
        0x18DA_0000 | u32::from(source) << 8 | u32::from(target)
    } else {
        frame.id.saturating_sub(8)
    }
}

/// The name `ATDP` prints.
#[must_use]
pub fn protocol_name(protocol: u8) -> &'static str {
    match protocol {
        1 => "SAE J1850 PWM",
        2 => "SAE J1850 VPW",
        3 => "ISO 9141-2",
        4 => "ISO 14230-4 (KWP 5BAUD)",
        5 => "ISO 14230-4 (KWP FAST)",
        6 => "ISO 15765-4 (CAN 11/500)",
        7 => "ISO 15765-4 (CAN 29/500)",
        8 => "ISO 15765-4 (CAN 11/250)",
        9 => "ISO 15765-4 (CAN 29/250)",
        0x0A => "SAE J1939 (CAN 29/250)",
        0x0B => "USER1 (CAN 11/125)",
        0x0C => "USER2 (CAN 11/50)",
        _ => "AUTO",
    }
}
