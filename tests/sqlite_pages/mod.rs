//! SQLite's file format, read by the tests themselves ("Database File Format",
//! sections 1.3 to 1.6 and 4): which page is of which kind and of which table, and
//! which events lie on it. Shares nothing with the product's own page reader.
#![allow(dead_code, unused_imports, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../support/dice.rs"]
mod dice;

use std::collections::BTreeMap;
use std::path::Path;

pub use dice::{Dice, rounds};

pub const PAGE: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    TableInterior,
    TableLeaf,
    IndexInterior,
    IndexLeaf,
    Overflow,
    FreeTrunk,
    FreeLeaf,
}

/// A page: what it is, whose, and the cells on it.
#[derive(Debug, Clone)]
pub struct Page {
    pub no: usize,
    pub kind: Kind,
    /// The table or index; empty for free pages.
    pub owner: String,
    /// Rows that need this page to be read whole (of a table's leaf or overflow).
    pub rows: Vec<i64>,
    /// Where its cells begin, and how long they are here (b-tree pages).
    pub cells: Vec<(usize, usize)>,
}

/// A whole file, in memory.
pub struct Format {
    pub bytes: Vec<u8>,
    pub pages: BTreeMap<usize, Page>,
}

pub fn be16(bytes: &[u8], at: usize) -> usize {
    usize::from(bytes[at]) << 8 | usize::from(bytes[at + 1])
}

pub fn be32(bytes: &[u8], at: usize) -> usize {
    be16(bytes, at) << 16 | be16(bytes, at + 2)
}

fn varint(bytes: &[u8]) -> (u64, usize) {
    let mut value = 0;
    for (place, byte) in bytes.iter().take(9).enumerate() {
        if place == 8 {
            return (value << 8 | u64::from(*byte), 9);
        }
        value = value << 7 | u64::from(byte & 0x7F);
        if byte & 0x80 == 0 {
            return (value, place + 1);
        }
    }
    panic!("a varint runs off its page")
}

impl Format {
    /// Reads a sound, checkpointed file.
    pub fn read(path: &Path) -> Self {
        let conn = rusqlite::Connection::open(path).unwrap();
        let roots: Vec<(String, usize)> = conn
            .prepare("SELECT name, rootpage FROM sqlite_schema WHERE rootpage > 0")
            .unwrap()
            .query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)? as usize)))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        // No pointer maps: our files are never vacuumed by SQLite itself.
        let auto_vacuum: i64 = conn.query_row("PRAGMA auto_vacuum", [], |row| row.get(0)).unwrap();
        assert_eq!(auto_vacuum, 0);
        drop(conn);
        let bytes = std::fs::read(path).unwrap();
        assert_eq!((be16(&bytes, 16), bytes.len() % PAGE), (PAGE, 0));
        let mut format = Self { bytes, pages: BTreeMap::new() };
        format.tree("sqlite_schema", 1);
        for (name, root) in roots {
            format.tree(&name, root);
        }
        format.free_list();
        let known = format.pages.len();
        assert_eq!(known, format.bytes.len() / PAGE, "every page is of a known kind");
        format
    }

    fn page(&self, no: usize) -> &[u8] {
        &self.bytes[(no - 1) * PAGE..no * PAGE]
    }

    fn tree(&mut self, owner: &str, no: usize) {
        let page = self.page(no).to_vec();
        let start = if no == 1 { 100 } else { 0 };
        let (kind, header) = match page[start] {
            2 => (Kind::IndexInterior, 12),
            5 => (Kind::TableInterior, 12),
            10 => (Kind::IndexLeaf, 8),
            13 => (Kind::TableLeaf, 8),
            other => panic!("page {no} of {owner} has type {other}"),
        };
        let (mut rows, mut cells, mut below) = (Vec::new(), Vec::new(), Vec::new());
        if header == 12 {
            below.push(be32(&page, start + 8));
        }
        for cell in 0..be16(&page, start + 3) {
            let at = be16(&page, start + header + 2 * cell);
            let mut body = at;
            if header == 12 {
                below.push(be32(&page, at));
                body += 4;
            }
            if kind == Kind::TableInterior {
                cells.push((at, 4 + varint(&page[body..]).1));
                continue;
            }
            let (length, one) = varint(&page[body..]);
            let (rowid, two) = if kind == Kind::TableLeaf { varint(&page[body + one..]) } else { (0, 0) };
            let (local, chain) = self.payload(&page, kind, body + one + two, length as usize);
            cells.push((at, body + one + two + local - at));
            if kind == Kind::TableLeaf {
                rows.push(rowid as i64);
            }
            for no in chain {
                let rows = vec![rowid as i64];
                let overflow =
                    Page { no, kind: Kind::Overflow, owner: owner.into(), rows, cells: Vec::new() };
                assert!(self.pages.insert(no, overflow).is_none());
            }
        }
        let this = Page { no, kind, owner: owner.to_owned(), rows, cells };
        assert!(self.pages.insert(no, this).is_none(), "page {no} is used twice");
        for child in below {
            self.tree(owner, child);
        }
    }

    /// How much of a payload is in its cell (with the chain's number), and the chain (section 1.6).
    fn payload(&self, page: &[u8], kind: Kind, at: usize, length: usize) -> (usize, Vec<usize>) {
        let most = if kind == Kind::TableLeaf { PAGE - 35 } else { (PAGE - 12) * 64 / 255 - 23 };
        if length <= most {
            return (length, Vec::new());
        }
        let least = (PAGE - 12) * 32 / 255 - 23;
        let spill = least + (length - least) % (PAGE - 4);
        let local = if spill <= most { spill } else { least };
        let (mut chain, mut next) = (Vec::new(), be32(page, at + local));
        while next != 0 {
            chain.push(next);
            next = be32(self.page(next), 0);
        }
        (local + 4, chain)
    }

    fn free_list(&mut self) {
        let mut trunk = be32(&self.bytes, 32);
        while trunk != 0 {
            let page = self.page(trunk).to_vec();
            let count = be32(&page, 4);
            let free = |no, kind, cells| Page { no, kind, owner: String::new(), rows: Vec::new(), cells };
            // The numbers of its leaves take the place of cells.
            let numbers = (0..count).map(|leaf| (8 + 4 * leaf, 4)).collect();
            self.pages.insert(trunk, free(trunk, Kind::FreeTrunk, numbers));
            for leaf in 0..count {
                let no = be32(&page, 8 + 4 * leaf);
                self.pages.insert(no, free(no, Kind::FreeLeaf, Vec::new()));
            }
            trunk = be32(&page, 0);
        }
    }

    /// Pages of a kind and an owner.
    pub fn of(&self, kind: Kind, owner: &str) -> Vec<Page> {
        self.pages.values().filter(|page| page.kind == kind && page.owner == owner).cloned().collect()
    }
}

/// What is done to a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Harm {
    /// A byte of the page's header.
    Header,
    /// A byte of the array of cell pointers.
    Pointers,
    /// A byte within a cell.
    Content,
    /// A bit within a cell.
    Bit,
    Zeroed,
    Random,
    /// With another of its kind and owner.
    Swapped,
}

pub const HARMS: [Harm; 7] =
    [Harm::Header, Harm::Pointers, Harm::Content, Harm::Bit, Harm::Zeroed, Harm::Random, Harm::Swapped];

impl Format {
    /// Harms a page; gives the harmed file and its harmed pages, or `None` where this kind cannot be harmed so.
    pub fn harm(&self, page: &Page, harm: Harm, dice: &mut Dice) -> Option<(Vec<u8>, Vec<usize>)> {
        let mut bytes = self.bytes.clone();
        let mut pages = vec![page.no];
        let base = (page.no - 1) * PAGE;
        let tree = !matches!(page.kind, Kind::Overflow | Kind::FreeTrunk | Kind::FreeLeaf);
        let start = if page.no == 1 { 100 } else { 0 };
        let header = match page.kind {
            Kind::TableInterior | Kind::IndexInterior => 12,
            _ => 8,
        };
        let mut flip = |at: usize, dice: &mut Dice| bytes[base + at] ^= 1 + dice.below(255) as u8;
        match harm {
            // Type, cells and where they begin; the first four bytes elsewhere lead to the next page.
            Harm::Header if tree => flip(start + dice.pick(&[0, 3, 4, 5, 6]), dice),
            Harm::Header => flip(dice.below(4), dice),
            Harm::Pointers if tree => flip(start + header + dice.below(2 * page.cells.len()), dice),
            Harm::Pointers => return None,
            Harm::Content | Harm::Bit => {
                let (at, length) = match page.kind {
                    Kind::Overflow => (4, PAGE - 4),
                    Kind::FreeLeaf => (0, PAGE),
                    _ => dice.pick(&page.cells),
                };
                let at = at + dice.below(length);
                if harm == Harm::Content { flip(at, dice) } else { bytes[base + at] ^= 1 << dice.below(8) }
            }
            Harm::Zeroed => bytes[base..base + PAGE].fill(0),
            Harm::Random => (0..PAGE).for_each(|at| bytes[base + at] = dice.number() as u8),
            Harm::Swapped => {
                let others: Vec<Page> =
                    self.of(page.kind, &page.owner).into_iter().filter(|other| other.no != page.no).collect();
                if others.is_empty() || page.no == 1 {
                    return None;
                }
                let other = (dice.pick(&others).no - 1) * PAGE;
                for at in 0..PAGE {
                    bytes.swap(base + at, other + at);
                }
                pages.push(other / PAGE + 1);
            }
        }
        Some((bytes, pages))
    }
}
