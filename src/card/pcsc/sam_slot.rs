//! Which reader is a SAM's slot, and which a member's: by the tables and the readers' names, and
//! what lies in a slot that a table means by its answer to reset. Pure.
//!
//! ```text
//!  fits a sam table ─┬ named "SAM" ──────────────────────────► a SAM's, always
//!                    ├ fits a card table as exactly, or more ► a member's, always
//!                    ├ the only other one that fits ──┬ contactless, SLE4442 ─► a member's
//!                    │                                └ anything else ────────► the SAM
//!                    └ one of several ───────────────────────► a member's
//! ```
//! Whatever lies in a slot that is meant vouches for purchases: what a customer lays down must never
//! come to be asked only because the SAM is not in its slot, or its reader is unplugged. So the
//! tables say which readers are customers', and not what is there at the moment.

use wildmatch::WildMatch;

use crate::card::atr::AnswerToReset;
use crate::card::sle4442;
use crate::config::tables::ReaderGlobs;

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

/// A table's glob, and how exactly it names its readers.
struct Glob {
    pattern: WildMatch,
    letters: usize,
}

impl Glob {
    fn new(text: &str) -> Self {
        let letters = text.chars().filter(|c| !matches!(c, '*' | '?')).count();
        Self { pattern: WildMatch::new(text), letters }
    }
}

/// What the tables say of whose a reader is.
pub(super) struct Tables {
    sams: Vec<Glob>,
    cards: Vec<Glob>,
}

impl Tables {
    pub(super) fn new(globs: &ReaderGlobs) -> Self {
        let of = |globs: &[String]| globs.iter().map(|glob| Glob::new(glob)).collect();
        Self { sams: of(&globs.sams), cards: of(&globs.cards) }
    }

    /// The readers that a table of role `sam` with this glob means: those named "SAM", also empty;
    /// where none is, the only one that fits and is not a customers'.
    pub(super) fn meant<'n>(&self, glob: &str, readers: impl Iterator<Item = &'n str>) -> Vec<&'n str> {
        self.meant_by(&Glob::new(glob), readers)
    }

    fn meant_by<'n>(&self, glob: &Glob, readers: impl Iterator<Item = &'n str>) -> Vec<&'n str> {
        let fitting: Vec<&str> = readers.filter(|name| glob.pattern.matches(name)).collect();
        let named: Vec<&str> = fitting.iter().copied().filter(|name| is_named_sam(name)).collect();
        let others: Vec<&str> =
            fitting.iter().copied().filter(|name| !self.is_customers(glob, name)).collect();
        match others[..] {
            [alone] if named.is_empty() => vec![alone],
            _ => named,
        }
    }

    /// Whether a table of cards names this reader as exactly as the SAM's does, or more so.
    fn is_customers(&self, sam: &Glob, name: &str) -> bool {
        self.cards.iter().any(|card| card.letters >= sam.letters && card.pattern.matches(name))
    }

    /// Whether what lies in a reader of cards is a SAM; `readers` are all that there are.
    pub(super) fn is_sam<'n>(
        &self,
        readers: impl Iterator<Item = &'n str> + Clone,
        name: &str,
        atr: &[u8],
    ) -> bool {
        match says(atr) {
            Says::Sam => true,
            Says::Member => false,
            Says::Nothing => {
                self.sams.iter().any(|glob| self.meant_by(glob, readers.clone()).contains(&name))
            }
        }
    }
}

/// Whether what lies in a reader that is meant can be its SAM. What is mute is none, unless the
/// reader's name says so.
pub(super) fn can_be_sam(name: &str, atr: &[u8]) -> bool {
    is_named_sam(name) || !atr.is_empty() && says(atr) != Says::Member
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
        let by = |sam: &str, cards: &[&str]| {
            let cards = cards.iter().map(|&glob| glob.to_owned()).collect();
            Tables::new(&ReaderGlobs { sams: vec![sam.to_owned()], cards })
        };
        // (glob, readers, the one asked about, what lies there, is it a SAM)
        for (glob, names, name, atr_text, expected) in [
            // One says SAM: a chip card in the contact slot is a member's, whatever lies in the other.
            ("ACS*", &acs[..], acs[0], PSAM, false),
            ("ACS*", &acs, acs[1], CLASSIC, false),
            ("ACS*", &acs, acs[0], av2, true),
            // The table names the contact slot.
            ("ACS * ICC*", &acs, acs[0], PSAM, true),
            ("ACS * ICC*", &acs, acs[0], CLASSIC, false),
            // None says it, and the table could mean either: it means none.
            ("Reader*", &plain, plain[0], PSAM, false),
            ("Reader*", &plain, plain[1], PSAM, false),
            ("*", &plain, plain[0], "", false),
            ("Reader*", &plain[1..], plain[1], PSAM, true),
            // The table tells, also where the card is mute.
            ("Reader 00 01", &plain, plain[1], "", true),
            ("Reader 00 01", &plain, plain[1], PSAM, true),
            ("Reader 00 01", &plain, plain[0], PSAM, false),
            ("Reader 00 00", &plain, plain[1], av2, true),
        ] {
            let found = by(glob, &[]).is_sam(names.iter().copied(), name, &atr(atr_text));
            assert_eq!(found, expected, "{glob} {name} {atr_text}");
        }
        // What the tables of cards say counts, whichever readers are plugged in.
        for (glob, cards, names, expected) in [
            ("ACS*", &[][..], &acs[..], &acs[2..]),
            ("ACS * ICC*", &[], &acs, &acs[..1]),
            ("Reader*", &[], &plain, &[]),
            ("Reader*", &["Reader*"], &plain[1..], &[]),
            ("Reader*", &["Reader 00 01"], &plain[1..], &[]),
            ("Reader*", &["Reader 00 01"], &plain, &plain[..1]),
            ("Reader 00 0?", &["*", "Reader*"], &plain[1..], &plain[1..]),
            ("ACS * ICC*", &["ACS*"], &acs, &acs[..1]),
            ("ACS * ICC*", &["ACS ACR1281 *"], &acs, &[]),
            ("ACS*", &["*"], &acs[..2], &[]),
            // Its name is more than any table.
            ("ACS*", &["ACS ACR1281*"], &acs, &acs[2..]),
        ] {
            let found = by(glob, cards).meant(glob, names.iter().copied());
            assert_eq!(found, expected, "{glob} beside {cards:?} of {names:?}");
        }
        assert!(!can_be_sam(plain[0], &atr(CLASSIC)) && can_be_sam(plain[1], &atr(PSAM)));
        assert!(can_be_sam(acs[2], &atr("3B8180018080")), "its name says so");
        assert!(can_be_sam(acs[2], &[]) && !can_be_sam(plain[0], &[]));
    }
}
