//! What an ELM327 sends: any bytes, cut anywhere, never stop the reader, and the
//! cuts change nothing.
#![no_main]

use baygate::vehicle::elm327::answer::interpret;
use baygate::vehicle::elm327::lines::{LineReader, Piece};
use baygate::vehicle::elm327::port::Reply;
use baygate::vehicle::gate::Request;
use baygate::vehicle::protocol::Protocol;
use libfuzzer_sys::fuzz_target;

fn pieces<'b>(chunks: impl Iterator<Item = &'b [u8]>) -> Vec<Piece> {
    let (mut reader, mut pieces) = (LineReader::default(), Vec::new());
    chunks.for_each(|chunk| reader.push(chunk, &mut pieces));
    pieces
}

fuzz_target!(|data: &[u8]| {
    let Some((&choice, bytes)) = data.split_first() else { return };
    let size = usize::from(choice >> 4) + 1;
    let whole = pieces(std::iter::once(bytes));
    assert_eq!(whole, pieces(bytes.chunks(size)));

    let lines = String::from_utf8_lossy(bytes).lines().map(str::to_owned).collect();
    let reply = Reply { lines, garbage: 0 };
    let Some(protocol) = Protocol::from_number(&format!("{:X}", choice % 9 + 1)) else { return };
    for request in [Request::current(0x0C), Request::confirmed_codes(), Request::vehicle_info(0x02)] {
        let answer = interpret(&reply, request, protocol);
        assert!(answer.messages.iter().all(|message| request.is_answered_by(&message.payload)));
    }
});
