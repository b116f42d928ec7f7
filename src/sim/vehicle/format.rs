//! How an ELM327 prints: bytes with or without spaces, headers, length lines
//! (ELM327 datasheet, "Interpreting the Response", "Multiline Responses").

use super::car::Frame;

/// What the printing commands set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// `ATS`.
    pub spaces: bool,
    /// `ATH`.
    pub headers: bool,
    /// `ATD1`: the data length after the header.
    pub length: bool,
    /// `ATCAF`.
    pub formatting: bool,
    /// Prints single frames whole although formatting is on.
    pub pads: bool,
}

impl Style {
    /// The lines of one CAN frame.
    #[must_use]
    pub fn can(&self, frame: &Frame) -> Vec<String> {
        let first = frame.data.first().copied().unwrap_or(0);
        let single = first & 0xF0 == 0;
        let data = frame.data.as_slice();
        if self.headers {
            let shown = match usize::from(first & 0x0F) + 1 {
                meant if self.formatting && single && !self.pads => data.get(..meant).unwrap_or(data),
                _ => data,
            };
            let length = if self.length { format!("{:X}{}", data.len(), self.gap()) } else { String::new() };
            return vec![format!("{}{length}{}", self.identifier(frame), self.bytes(shown))];
        }
        if !self.formatting {
            return vec![self.bytes(data)];
        }
        match (first >> 4, data) {
            (0, [_, rest @ ..]) => vec![self.bytes(rest.get(..usize::from(first & 0x0F)).unwrap_or(rest))],
            (1, [high, low, rest @ ..]) => {
                vec![format!("{:X}{low:02X}", high & 0x0F), format!("0:{}{}", self.gap(), self.bytes(rest))]
            }
            (2, [index, rest @ ..]) => {
                vec![format!("{:X}:{}{}", index & 0x0F, self.gap(), self.bytes(rest))]
            }
            _ => Vec::new(),
        }
    }

    /// The line of one K-line or J1850 message, whose three header bytes and checksum are shown only with headers.
    #[must_use]
    pub fn line(&self, message: &[u8]) -> String {
        let data = message.get(3..message.len().saturating_sub(1)).unwrap_or_default();
        self.bytes(if self.headers { message } else { data })
    }

    fn identifier(&self, frame: &Frame) -> String {
        if frame.extended {
            self.bytes(&frame.id.to_be_bytes())
        } else {
            format!("{:03X}{}", frame.id, self.gap())
        }
    }

    /// The chip prints a space after every byte, the last one too.
    fn bytes(&self, bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02X}{}", self.gap())).collect()
    }

    fn gap(&self) -> &'static str {
        if self.spaces { " " } else { "" }
    }
}
