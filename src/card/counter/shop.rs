//! What counter and HTTP know of their house: rules, store, business day. Replaced as a whole
//! at a reload.

use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::card::purse::day::business_day;
use crate::clock::UtcMillis;
use crate::config::Config;
use crate::config::purse::PurseTable;
use crate::config::values::TimeOfDay;
use crate::ident::StoreId;

/// The house, as configured.
#[derive(Debug, Clone, PartialEq)]
pub struct Shop {
    /// This store.
    pub store: StoreId,
    /// `[purse]`.
    pub rules: PurseTable,
    /// Where days are counted.
    pub timezone: TimeZone,
    /// When a business day begins.
    pub business_day_start: TimeOfDay,
    /// Whether there is a headquarters to reach.
    pub has_uplink: bool,
}

impl Shop {
    /// Of a configuration.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        Self {
            store: config.gateway.source.store.clone(),
            rules: config.purse.clone(),
            // The configuration has checked the name.
            timezone: TimeZone::get(&config.gateway.timezone).unwrap_or(TimeZone::UTC),
            business_day_start: config.gateway.business_day_start,
            has_uplink: config.mqtt.is_some(),
        }
    }

    /// The business day of a moment.
    #[must_use]
    pub fn day_of(&self, time: UtcMillis) -> Date {
        business_day(time, &self.timezone, self.business_day_start)
    }
}
