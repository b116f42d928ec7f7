//! Which reader is a SAM's slot, and which a member's: by the tables first, then by the readers'
//! names, and where those leave it open by the answer to reset of what lies there. Pure.
//!
//! ```text
//!  named "SAM" ─► a SAM's, always
//!  named like a sam table, and nothing lies ─┬ contactless, SLE4442, mute ─► a member's
//!  in a reader named so that says "SAM"      └ anything else ──────────────► the SAM
//! ```
//! A reader may have a slot that says "SAM" and the PSAM in its other one.

use wildmatch::WildMatch;

use crate::card::atr::AnswerToReset;
use crate::card::sle4442;

/// End of the historical bytes of NXP's SAMs ("MIFARE Plus SAM").
const SAM: &[u8] = b"SAM";

/// Whether a reader's name says that it is a SAM's slot: such a one never gives a member card.
pub(super) fn is_named_sam(name: &str) -> bool {
    name.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word == "SAM")
}

/// What an answer to reset says of whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Says {
    /// Contactless, or a contact memory card: no SAM is either.
    Member,
    /// It calls itself a SAM.
    Sam,
    /// A contact chip card; purchase SAMs say no more.
    Nothing,
}

/// What this one says.
pub(super) fn says(atr: &[u8]) -> Says {
    match AnswerToReset::parse(atr) {
        Ok(atr) if atr.historical.ends_with(SAM) => Says::Sam,
        Ok(atr)
            if atr.storage_card().is_some()
                || atr.is_contactless_cpu()
                || atr.historical == sle4442::HISTORICAL =>
        {
            Says::Member
        }
        _ => Says::Nothing,
    }
}

/// A reader: its name, and whether something lies in it.
pub(super) type Seen<'n> = (&'n str, bool);

/// The readers that a table of role `sam` with this glob means: those named "SAM" where something
/// lies in one of them, else all.
pub(super) fn meant<'n>(glob: &WildMatch, readers: impl Iterator<Item = Seen<'n>>) -> Vec<&'n str> {
    let named: Vec<Seen<'n>> = readers.filter(|(name, _)| glob.matches(name)).collect();
    let taken = named.iter().any(|(name, occupied)| is_named_sam(name) && *occupied);
    named.into_iter().map(|(name, _)| name).filter(|name| !taken || is_named_sam(name)).collect()
}

/// Whether what lies in a reader that is meant can be its SAM. What is mute is none, unless the
/// reader's name says so.
pub(super) fn can_be_sam(name: &str, atr: &[u8]) -> bool {
    is_named_sam(name) || !atr.is_empty() && says(atr) != Says::Member
}

/// Whether what lies in a reader of cards is a SAM; `sams` are the globs of the tables with that
/// role, `readers` all readers. A mute one is where a table means this reader and no other.
pub(super) fn is_sam<'n>(
    sams: &[WildMatch],
    readers: impl Iterator<Item = Seen<'n>> + Clone,
    name: &str,
    atr: &[u8],
) -> bool {
    match says(atr) {
        Says::Sam => true,
        Says::Member => false,
        Says::Nothing => sams
            .iter()
            .map(|glob| meant(glob, readers.clone()))
            .any(|meant| if atr.is_empty() { meant == [name] } else { meant.contains(&name) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn atr(text: &str) -> Vec<u8> {
        hex::decode(text).unwrap()
    }

    const CLASSIC: &str = "3B8F8001804F0CA000000306030001000000006A";
    const PSAM: &str = "3B00";

    #[test]
    fn an_answer_to_reset_says_whose_it_is() {
        for (name, text, expected) in [
            // As listed by smartcard-atr.apdu.fr.
            ("NXP SAM AV2", "3BDF18FF81F1FE43003F03834D494641524520506C75732053414D3B", Says::Sam),
            ("NXP SAM AV2, older", "3BDF18FF81F1FE43001F034D494641524520506C75732053414D98", Says::Sam),
            ("Classic 1K", CLASSIC, Says::Member),
            ("DESFire", "3B8180018080", Says::Member),
            ("SLE4442", "3B04A2131091", Says::Member),
            ("a PSAM", PSAM, Says::Nothing),
            ("noise", "0000", Says::Nothing),
        ] {
            assert_eq!(says(&atr(text)), expected, "{name}");
        }
    }

    #[test]
    fn the_sam_is_in_one_slot_and_the_member_in_the_other() {
        let acs = ["ACS ACR1281 ICC 00 00", "ACS ACR1281 PICC 00 01", "ACS ACR1281 SAM 00 02"];
        let plain = ["Reader 00 00", "Reader 00 01"];
        let av2 = "3BDF18FF81F1FE43003F03834D494641524520506C75732053414D3B";
        // (glob, readers, those where something lies, the one asked about, what lies there, is it a SAM)
        for (glob, names, taken, name, atr_text, expected) in [
            // The names tell: a chip card in the contact slot is a member's.
            ("ACS*", &acs[..], &acs[..], acs[0], PSAM, false),
            ("ACS*", &acs, &acs, acs[1], CLASSIC, false),
            // The slot that says SAM is empty: the one that lies in the other is meant.
            ("ACS*", &acs, &acs[..2], acs[0], PSAM, true),
            ("ACS*", &acs, &acs[..2], acs[1], CLASSIC, false),
            // They do not: the answer to reset does.
            ("Reader*", &plain, &plain, plain[0], CLASSIC, false),
            ("Reader*", &plain, &plain, plain[1], PSAM, true),
            // A card that is mute is a card, unless the table names its reader.
            ("Reader*", &plain, &plain, plain[0], "", false),
            ("*", &plain, &plain, plain[0], "", false),
            ("Reader 00 01", &plain, &plain, plain[1], "", true),
            // The table tells.
            ("Reader 00 01", &plain, &plain, plain[1], PSAM, true),
            ("Reader 00 01", &plain, &plain, plain[0], PSAM, false),
            ("Reader 00 00", &plain, &plain, plain[1], av2, true),
        ] {
            let readers = names.iter().map(|name| (*name, taken.contains(name)));
            let found = is_sam(&[WildMatch::new(glob)], readers, name, &atr(atr_text));
            assert_eq!(found, expected, "{glob} {name} {atr_text}");
        }
        let all = |names: &[&'static str], occupied| {
            names.iter().map(|name| (*name, occupied)).collect::<Vec<Seen<'static>>>()
        };
        assert_eq!(meant(&WildMatch::new("ACS*"), all(&acs, true).into_iter()), [acs[2]]);
        assert_eq!(meant(&WildMatch::new("ACS*"), all(&acs, false).into_iter()), acs);
        assert_eq!(meant(&WildMatch::new("Reader*"), all(&plain, true).into_iter()), plain);
        assert!(!can_be_sam(plain[0], &atr(CLASSIC)) && can_be_sam(plain[1], &atr(PSAM)));
        assert!(can_be_sam(acs[2], &atr("3B8180018080")), "its name says so");
        assert!(can_be_sam(acs[2], &[]) && !can_be_sam(plain[0], &[]));
    }
}
