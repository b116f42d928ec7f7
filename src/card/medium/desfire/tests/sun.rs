//! The address that an NTAG 424 makes: another's, a changed one, and a copy of a right one.

use super::*;

/// An NTAG 424 whose address is another's, or an older one's with a changed digit: no login is tried.
#[test]
fn a_wrong_address_is_refused() {
    let (sim, technology) = NTAG_424;
    let issued = issue(sim, technology);
    let mut chip = issued.clone();
    chip.apdu(&hex::decode("00A4040C07D2760000850101").unwrap());
    let url = chip.apdu(&hex::decode("90AD00000702000000F0000000").unwrap());
    let behind = |name: &[u8]| url.windows(name.len()).position(|part| part == name).unwrap() + name.len();
    let picc = behind(b"card.invalid/m?s=SH-0042&v=1&p=");
    for at in [picc, picc + 31, behind(b"&m="), behind(b"&m=") + 15] {
        let mut chip = issued.clone();
        let mut line = line(&mut chip, None);
        let finding = read_through(&mut line, technology, |which, response| {
            if which == 1 {
                let digit = &mut response.data[at];
                *digit = if *digit == b'0' { b'1' } else { b'0' };
            }
        });
        assert_eq!(finding, Some(Finding::Refused(Refusal::WrongKey)), "digit {at}");
        assert_eq!(line.sent.len(), 2, "and no login tried");
    }
    assert_eq!(current(&mut chip, technology), record(7));
}

/// An address is right for ever. Whoever shows a copy of it, or plays back all that the tag once
/// answered, fails at the login: that is why its reading counter is not kept.
#[test]
fn a_copied_address_opens_nothing() {
    let (sim, technology) = NTAG_424;
    let mut tag = issue(sim, technology);
    let mut heard = Vec::new();
    let mut own = line(&mut tag, None);
    let found = read_through(&mut own, technology, |_, response| heard.push(response.clone()));
    assert!(matches!(found, Some(Finding::Opened(_))));
    // The same UID without our keys.
    let copy = issue_with(sim, technology, &record(7), Arc::new(other_keys("SH-0042")));
    for (name, until) in [("the address and header", 2), ("the whole conversation", heard.len())] {
        let mut copy = copy.clone();
        let mut line = line(&mut copy, None);
        let found = read_through(&mut line, technology, |which, response| {
            if which < until {
                response.clone_from(&heard[which]);
            }
        });
        assert_eq!(found, Some(Finding::Refused(Refusal::WrongKey)), "{name}");
        assert!(line.sent.len() > 2, "{name}: the address was believed");
        assert_eq!(writes(&line.sent), 0, "{name}");
    }
}
