//! The business day: from one `business_day_start` to the next, by the store's clock on the
//! wall. What is sold at two in the morning belongs to the day before.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::clock::UtcMillis;
use crate::config::values::TimeOfDay;

/// The business day of a moment.
#[must_use]
pub fn business_day(time: UtcMillis, zone: &TimeZone, start: TimeOfDay) -> Date {
    let local = Timestamp::from_millisecond(time.0).unwrap_or_default().to_zoned(zone.clone()).datetime();
    let begun = (local.hour(), local.minute()) >= (signed(start.hour), signed(start.minute));
    let date = local.date();
    if begun { date } else { date.yesterday().unwrap_or(date) }
}

/// Hours and minutes are small.
fn signed(number: u8) -> i8 {
    i8::try_from(number).unwrap_or(i8::MAX)
}
