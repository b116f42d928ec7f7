//! What headquarters wants known and said at the counter about a member (`member.put`): level, next
//! contact, offers, reminders. What lives here: reading it, and what a till is told of it, with its
//! age. Pure but for [`word_for`]. What does not: keeping it (`store::counter_words`), and how the
//! command comes (`uplink::command`).

use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::Deserialize;
use serde_json::Value;

use crate::clock::{self, Reading, TimeQuality, UtcMillis};
use crate::event::card::{CounterWord, Offer, Reminder, ReminderKind};
use crate::ident::CardNo;
use crate::store::counter_words::{CounterWordsOp, StoredWord};
use crate::store::{Reader, StoreError};

/// Members in one command, at most: one commit stays within the writer's 20 ms.
const MOST_MEMBERS: usize = 500;
/// Offers of one member, and reminders: what a cashier can say while the card lies there.
const MOST_OF_EACH: usize = 8;
/// Characters of a text, at most.
const MOST_TEXT: usize = 200;
/// Characters of a name, at most.
const MOST_NAME: usize = 64;
/// Two clocks that are both set differ by less, in milliseconds.
const CLOCKS_DIFFER_MS: i64 = 300_000;

/// The command's arguments. Unknown members are taken.
#[derive(Deserialize)]
struct Wire {
    #[serde(default)]
    as_of: Option<UtcMillis>,
    members: Vec<WireMember>,
}

#[derive(Deserialize)]
struct WireMember {
    card_no: CardNo,
    #[serde(default)]
    level: Option<String>,
    #[serde(default)]
    next_contact: Option<Date>,
    #[serde(default)]
    offers: Vec<Offer>,
    /// Those of a kind that only a later version knows are left out.
    #[serde(default)]
    reminders: Vec<Value>,
}

/// What a command comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words {
    /// To be committed.
    pub op: CounterWordsOp,
    /// Reminders of a kind that this version does not know.
    pub left_out: usize,
}

/// Reads the arguments of `member.put`, taken whole or not at all; `now` by a clock that is set.
///
/// # Errors
/// What has to be another, for headquarters.
pub fn read(args: &Value, now: UtcMillis) -> Result<Words, String> {
    let wire = Wire::deserialize(args).map_err(|error| format!("args are not what they must be: {error}"))?;
    let as_of = wire.as_of.unwrap_or(now);
    if as_of.0 > now.0.saturating_add(CLOCKS_DIFFER_MS) {
        return Err(format!("args.as_of {as_of} has not come yet"));
    }
    if wire.members.len() > MOST_MEMBERS {
        return Err(format!("args.members has more than {MOST_MEMBERS}; send them in parts"));
    }
    let mut left_out = 0;
    let words = wire.members.into_iter().map(|member| {
        let card_no = member.card_no.clone();
        let word = member.word(&mut left_out).map_err(|why| format!("member {card_no}: {why}"))?;
        Ok((card_no, word))
    });
    let words = words.collect::<Result<_, String>>()?;
    Ok(Words { op: CounterWordsOp { as_of: as_of.min(now), words }, left_out })
}

impl WireMember {
    fn word(self, left_out: &mut usize) -> Result<CounterWord, String> {
        let mut reminders = Vec::new();
        for reminder in self.reminders {
            let kind = reminder.get("kind").cloned().unwrap_or_default();
            if kind.is_string() && ReminderKind::deserialize(&kind).is_err() {
                *left_out += 1;
                continue;
            }
            let reminder: Reminder =
                serde_json::from_value(reminder).map_err(|error| format!("a reminder: {error}"))?;
            reminders.push(reminder);
        }
        if self.offers.len() > MOST_OF_EACH || reminders.len() > MOST_OF_EACH {
            return Err(format!("at most {MOST_OF_EACH} offers and {MOST_OF_EACH} reminders"));
        }
        let names = self.level.iter().chain(self.offers.iter().map(|offer| &offer.id));
        let texts = self.offers.iter().map(|offer| &offer.text);
        let texts = texts.chain(reminders.iter().map(|reminder| &reminder.text));
        if !names.clone().all(|name| is_line(name, MOST_NAME))
            || !texts.clone().all(|text| is_line(text, MOST_TEXT))
        {
            return Err(format!(
                "level and offers[].id must have 1 to {MOST_NAME} characters, texts 1 to {MOST_TEXT}, none a control character"
            ));
        }
        let Self { level, next_contact, offers, .. } = self;
        Ok(CounterWord { level, next_contact, offers, reminders, data_age_s: None })
    }
}

/// One line that a screen can show.
fn is_line(text: &str, most: usize) -> bool {
    (1..=most).contains(&text.chars().count()) && !text.chars().any(char::is_control)
}

/// What a till is told now: with its age, without offers that are over. While the clock is in doubt
/// nothing is over, and nobody knows how old it is.
#[must_use]
pub fn told(stored: StoredWord, now: Reading, timezone: &TimeZone) -> CounterWord {
    let StoredWord { as_of, mut word } = stored;
    let time = jiff::Timestamp::from_millisecond(now.wall.0).ok();
    let today = time.map(|time| time.to_zoned(timezone.clone()).date());
    if let (TimeQuality::Synced, Some(today)) = (now.quality, today) {
        word.offers.retain(|offer| offer.valid_until.is_none_or(|last| last >= today));
        word.data_age_s = Some(now.wall.0.saturating_sub(as_of.0).max(0).unsigned_abs() / 1000);
    }
    word
}

/// What a till is told of a member now; nothing where headquarters sent nothing.
///
/// # Errors
/// [`StoreError`].
pub fn word_for(r: &Reader<'_>, card_no: &CardNo, timezone: &TimeZone) -> Result<CounterWord, StoreError> {
    let stored = r.counter_word(card_no)?;
    Ok(stored.map(|stored| told(stored, clock::read(), timezone)).unwrap_or_default())
}

#[cfg(test)]
#[path = "counter_word_tests.rs"]
mod tests;
