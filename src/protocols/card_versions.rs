//! Layouts of one technology, one after the other: new cards get the newest, and a card's header
//! names the one it was issued with. What does not live here: the tables themselves (`cards`).

use super::cards::{CardLayout, Places};

impl CardLayout {
    /// The layout with the number that a header names, where it is known.
    #[must_use]
    pub fn version(&self, layout: u8) -> Option<&Self> {
        self.versions().find(|known| known.layout == layout)
    }

    /// This one and those before it, the newest first.
    pub fn versions(&self) -> impl Iterator<Item = &Self> {
        std::iter::once(self).chain(&self.earlier)
    }

    /// Whether a card of either is opened in the same way until its header has been read, which
    /// says which one it is.
    fn goes_with(&self, other: &Self) -> bool {
        let same =
            self.technologies == other.technologies && self.versions().all(|v| v.layout != other.layout);
        match (&self.places, &other.places) {
            (Places::Files(files), Places::Files(others)) => same && files.begins_as(others),
            // Their slots are found without the header's word so far.
            _ => false,
        }
    }
}

/// Puts a layout behind the newest of its technologies, or before it.
pub(super) fn join(layouts: &mut Vec<CardLayout>, mut layout: CardLayout) -> Result<(), String> {
    let shares = |other: &CardLayout| layout.technologies.iter().any(|of| other.technologies.contains(of));
    let Some(newest) = layouts.iter_mut().find(|other| shares(other)) else {
        layouts.push(layout);
        return Ok(());
    };
    if !newest.goes_with(&layout) {
        let what = "with the same number, or on cards that would be opened in another way";
        return Err(format!("one of them has the layout {:?} already, {what}", newest.id));
    }
    if layout.layout > newest.layout {
        std::mem::swap(newest, &mut layout);
    }
    let mut before = std::mem::take(&mut layout.earlier);
    before.push(layout);
    newest.earlier.append(&mut before);
    newest.earlier.sort_by_key(|known| std::cmp::Reverse(known.layout));
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::event::card::Technology;
    use crate::protocols::Bundle;

    fn desfire() -> CardLayout {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("firmware-protocols");
        let cards = Bundle::load(&folder).unwrap().cards;
        let of = |layout: &CardLayout| layout.technologies.contains(&Technology::Desfire);
        assert_eq!(cards.iter().filter(|layout| of(layout)).count(), 1, "one, with those before it");
        cards.into_iter().find(of).unwrap()
    }

    #[test]
    fn layouts_are_found_by_number_in_whatever_order_they_came() {
        let shipped = desfire();
        let has_value = |number| {
            let found = shipped.version(number).map(|known| &known.places);
            found.map(|places| matches!(places, Places::Files(files) if files.value.is_some()))
        };
        assert_eq!([1, 2, 3].map(has_value), [Some(false), Some(true), None]);
        let numbered = |layout| CardLayout { layout, earlier: Vec::new(), ..shipped.clone() };
        for order in [[1, 2, 3], [3, 1, 2], [2, 3, 1], [1, 3, 2]] {
            let mut layouts = Vec::new();
            for layout in order {
                join(&mut layouts, numbered(layout)).unwrap();
            }
            let [newest] = layouts.as_slice() else { panic!("{order:?}: {layouts:?}") };
            let numbers: Vec<u8> = newest.versions().map(|known| known.layout).collect();
            assert_eq!(numbers, [3, 2, 1], "{order:?}");
        }
    }

    #[test]
    fn layouts_that_would_be_opened_otherwise_do_not_join() {
        let shipped = desfire();
        let Places::Files(files) = &shipped.places else { panic!("files") };
        let mut moved = files.clone();
        moved.header.file = 4;
        let mut other_keys = files.clone();
        other_keys.keys.debit = 3;
        for (name, layout, places) in [
            ("the same number", 2, shipped.places.clone()),
            ("another header", 3, Places::Files(moved)),
            ("other keys", 3, Places::Files(other_keys)),
        ] {
            let wrong = CardLayout { layout, places, earlier: Vec::new(), ..shipped.clone() };
            let mut layouts = vec![shipped.clone()];
            assert!(join(&mut layouts, wrong).is_err(), "{name}");
            assert_eq!(layouts, std::slice::from_ref(&shipped), "{name}");
        }
    }
}
