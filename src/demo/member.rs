//! The demo's members: card keys of the demo's own, as a shop has them in a credential, and the
//! cards that were issued with them.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, anyhow, bail};

use crate::card::keys::credential::{self, CARD_KEYS};
use crate::card::keys::sealed::SealedKeys;
use crate::card::medium::format_commands;
use crate::card::record::{Coupon, MemberRecord};
use crate::event::card::{MemberStatus, Technology};
use crate::event::ledger::CardType;
use crate::protocols::Bundle;
use crate::protocols::cards::CardLayout;
use crate::sim::card::{CardProfile, Chip, Technology as Chips};

/// The demo's store.
pub const STORE: &str = "DEMO-001";
/// Where its credentials lie in the demo's folder.
pub const CREDENTIALS: &str = "credentials";

/// Who gives out the demo's cards.
pub struct Issuer {
    keys: SealedKeys,
    layouts: Vec<CardLayout>,
}

impl Issuer {
    /// Takes the keys in the demo's folder; makes them where there are none.
    pub fn open(dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join(CREDENTIALS).join(CARD_KEYS);
        if !path.exists() {
            make_keys(&path).with_context(|| format!("{} cannot be made", path.display()))?;
        }
        let keys = credential::parse(&std::fs::read(&path)?, &STORE.parse()?)?;
        let bundle = Bundle::load(&dir.join("firmware-protocols")).map_err(|errors| {
            anyhow!("{}", errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
        })?;
        Ok(Self { keys, layouts: bundle.cards })
    }

    /// The card of the customer of a round.
    pub fn card(&self, round: u32) -> anyhow::Result<Chip> {
        let (uid, chips, technology): (&[u8], _, _) = match round % 2 {
            0 => (&[0x04, 0xA1, 0xB2, 0xC3, 0xD4, 0xE5, 0x80], Chips::Ntag215, Technology::Ntag215),
            _ => (&[0xDE, 0xAD, 0xBE, 0xEF], Chips::Classic1k, Technology::MifareClassic1k),
        };
        let layout = self.layouts.iter().find(|layout| layout.technologies.contains(&technology));
        let layout = layout.context("the shipped card layouts lack one of the demo's cards")?;
        let mut profile = CardProfile::new(chips).with_uid(uid);
        profile.direct_transmit = true;
        let mut chip = Chip::new(profile);
        let uid = hex::encode_upper(uid).parse()?;
        for command in format_commands(technology, layout, &uid, &record(round)?, &self.keys)? {
            if chip.apdu(&command.to_bytes()) != [0x90, 0x00] {
                bail!("the simulated card refused to be issued");
            }
        }
        chip.reset();
        Ok(chip)
    }
}

/// What the card of a round says; its face says the same.
fn record(round: u32) -> anyhow::Result<MemberRecord> {
    Ok(MemberRecord {
        card_no: card_no(round).parse()?,
        member_type: CardType::Named,
        status: MemberStatus::Active,
        issuing_store: STORE.parse()?,
        tier: 2,
        discount_class: 0,
        valid_until: None,
        principal_fen: 35_000,
        bonus_fen: 1_800,
        points: points(round),
        coupons: [Coupon::default(); 4],
        counter: round + 1,
        last: None,
        key_version: 1,
    })
}

/// The number on the card of a round.
pub fn card_no(round: u32) -> String {
    format!("88000{:03}", round % 1000 + 1)
}

/// The points on it.
pub fn points(round: u32) -> u32 {
    1250 + round.saturating_mul(10)
}

/// As docs/card-keys.md has them made.
fn make_keys(path: &Path) -> anyhow::Result<()> {
    let mut text = format!("store {STORE}\ncurrent 1\n");
    for purpose in ["record", "debit", "credit"] {
        let mut key = [0; 16];
        getrandom::fill(&mut key)?;
        text.push_str(&format!("1 {purpose} {}\n", hex::encode(key)));
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    Ok(file.write_all(text.as_bytes())?)
}
