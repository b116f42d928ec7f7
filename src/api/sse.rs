//! The text of Server-Sent Events, both ways (WHATWG HTML, §9.2 "Server-sent
//! events"): blocks out, blocks in. Pure functions; streams live elsewhere.

use std::fmt::Write as _;

/// The longest block taken in, in bytes: an envelope has at most 64 KiB.
const MAX_BLOCK_BYTES: usize = 1 << 20;

/// One event of the stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SseEvent {
    /// `EPOCH/SEQUENCE`, where to resume after this event.
    pub id: Option<String>,
    /// The type, e.g. `baygate.card.tapped`, or `reset`; `message` when none was given.
    pub event: String,
    /// CloudEvents JSON.
    pub data: String,
}

/// Writes one block. `data` must be a single line, which JSON without indentation is.
#[must_use]
pub fn block(id: Option<&str>, event: &str, data: &str) -> String {
    let mut text = String::with_capacity(data.len() + 96);
    if let Some(id) = id {
        let _ = writeln!(text, "id: {id}");
    }
    let _ = write!(text, "event: {event}\ndata: {data}\n\n");
    text
}

/// A block without data: a client's parser takes the position and tells nobody.
/// Keeps the connection alive, and keeps a filtered stream's position from going stale.
#[must_use]
pub fn position_block(id: &str) -> String {
    format!(": keep-alive\nid: {id}\n\n")
}

/// A block was longer than an envelope can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event longer than {MAX_BLOCK_BYTES} bytes; this is not a stream of events")]
pub struct BlockTooLong;

/// Takes bytes as they come, gives whole events. Lines end with LF, CR or CR LF.
#[derive(Debug, Default)]
pub struct SseParser {
    line: Vec<u8>,
    after_cr: bool,
    id: Option<String>,
    event: String,
    data: String,
    has_data: bool,
}

impl SseParser {
    /// Takes the next bytes; gives the events they complete.
    ///
    /// # Errors
    /// [`BlockTooLong`].
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<SseEvent>, BlockTooLong> {
        let mut events = Vec::new();
        for byte in bytes {
            let after_cr = std::mem::replace(&mut self.after_cr, *byte == b'\r');
            match byte {
                b'\n' if after_cr => {}
                b'\n' | b'\r' => {
                    let line = std::mem::take(&mut self.line);
                    events.extend(self.take_line(&String::from_utf8_lossy(&line)));
                }
                other => self.line.push(*other),
            }
            if self.line.len() + self.data.len() > MAX_BLOCK_BYTES {
                return Err(BlockTooLong);
            }
        }
        Ok(events)
    }

    fn take_line(&mut self, line: &str) -> Option<SseEvent> {
        if line.is_empty() {
            return self.dispatch();
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" if !value.contains('\0') => self.id = Some(value.to_owned()),
            "event" => value.clone_into(&mut self.event),
            "data" => {
                if self.has_data {
                    self.data.push('\n');
                }
                self.data.push_str(value);
                self.has_data = true;
            }
            // Comments (no field name), `retry` and anything unknown.
            _ => {}
        }
        None
    }

    fn dispatch(&mut self) -> Option<SseEvent> {
        let event = std::mem::take(&mut self.event);
        let data = std::mem::take(&mut self.data);
        if !std::mem::take(&mut self.has_data) {
            return None;
        }
        let event = if event.is_empty() { "message".to_owned() } else { event };
        Some(SseEvent { id: self.id.clone(), event, data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn blocks_read_back() {
        // (name, bytes, events) — forms of WHATWG HTML §9.2.6 "Interpreting an event stream".
        let event = |id: Option<&str>, event: &str, data: &str| SseEvent {
            id: id.map(str::to_owned),
            event: event.into(),
            data: data.into(),
        };
        let cases = [
            ("one line", "data: x\n\n", vec![event(None, "message", "x")]),
            ("two data lines", "data: YHOO\ndata: +2\n\n", vec![event(None, "message", "YHOO\n+2")]),
            ("comment", ": test stream\n\ndata: a\n\n", vec![event(None, "message", "a")]),
            ("no space", "data:test\n\n", vec![event(None, "message", "test")]),
            ("carriage returns", "id: 1\r\ndata: a\r\n\r\n", vec![event(Some("1"), "message", "a")]),
            (
                "position only",
                ": keep-alive\nid: e/7\n\ndata: b\n\n",
                vec![event(Some("e/7"), "message", "b")],
            ),
            ("unfinished", "data: a\n", vec![]),
        ];
        for (name, text, expected) in cases {
            assert_eq!(SseParser::default().push(text.as_bytes()).unwrap(), expected, "{name}");
        }
    }

    #[test]
    fn a_flood_without_line_ends_is_refused() {
        let mut parser = SseParser::default();
        let megabyte = vec![b'x'; MAX_BLOCK_BYTES];
        assert!(parser.push(&megabyte).is_ok());
        assert_eq!(parser.push(b"x"), Err(BlockTooLong));
    }

    proptest! {
        #![proptest_config(crate::seed::cases(256))]

        #[test]
        fn what_is_written_reads_back_however_it_is_cut(
            id in "[a-z0-9/]{1,40}", event in "[a-z.]{1,20}", data in "[^\r\n]{0,80}", cut in 0_usize..60
        ) {
            let text = block(Some(&id), &event, &data);
            let bytes = text.as_bytes();
            let cut = cut.min(bytes.len());
            let mut parser = SseParser::default();
            let mut events = parser.push(&bytes[..cut]).unwrap();
            events.extend(parser.push(&bytes[cut..]).unwrap());
            prop_assert_eq!(events, vec![SseEvent { id: Some(id), event, data }]);
        }
    }
}
