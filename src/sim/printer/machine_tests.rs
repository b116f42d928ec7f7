//! Tests of the module beside it.

use super::*;
use proptest::prelude::*;

/// A block by the manual's rule, written out once more.
fn block(command: u8, data: &[u8]) -> Vec<u8> {
    let check = data.iter().fold(command ^ 0x03, |check, byte| check ^ byte);
    [&[0x02, command], data, &[0x03, check]].concat()
}

proptest! {
    #![proptest_config(crate::seed::cases(256))]

    /// Whatever was sent before, a reset command brings the printer back.
    #[test]
    fn noise_is_survived(noise in prop::collection::vec(any::<u8>(), 0..3000), data in "[0-9A-F,]{0,20}") {
        let now = Instant::now();
        let mut machine = Machine::new(Pace::default());
        machine.insert(Canvas::default());
        let frames = [0x43, 0x4D, 0x46].map(|command| block(command, data.as_bytes())).concat();
        for byte in noise.into_iter().chain(frames).chain([0x03, 0, ACK]) {
            machine.hear(byte, now);
            machine.tick(now);
        }
        // Ends a block that was begun, and a response nobody acknowledged.
        for byte in [0x03, 0, ACK, ACK].into_iter().chain(block(0x5F, &[])) {
            machine.hear(byte, now);
        }
        let said = machine.tick(now);
        prop_assert_eq!(said, block(0x5F, &[0x20]));
    }
}
