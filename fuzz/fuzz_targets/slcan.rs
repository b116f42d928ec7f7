//! What an slcan adapter sends: any bytes, cut anywhere, never stop the reader, and the cuts
//! change nothing; a frame that was read is written as it came.
#![no_main]

use baygate::vehicle::can::slcan::{Command, Lines, Said, read};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&choice, bytes)) = data.split_first() else { return };
    let whole = Lines::default().feed(bytes);
    let mut lines = Lines::default();
    let pieces: Vec<Said> =
        bytes.chunks(usize::from(choice >> 4) + 1).flat_map(|chunk| lines.feed(chunk)).collect();
    assert_eq!(whole, pieces);
    for said in whole {
        let _ = said.heard();
        if let Said::Frame(frame) = said {
            let mut line = Command::Send(frame).wire();
            assert_eq!(line.pop(), Some(b'\r'));
            assert_eq!(read(&line), Said::Frame(frame));
        }
    }
});
