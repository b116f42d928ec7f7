//! How adapters differ: the table of behaviours in `adapters.toml`, good, cloned and broken.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::spec::SpecError;

/// What an adapter does with several parameters in one request of service 01 or 22.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Multi {
    /// Sends them on.
    #[default]
    Whole,
    /// Sends only the first.
    First,
    /// Answers `?`.
    Error,
    /// Never answers again.
    Hang,
    /// Its supply dips: the banner, settings lost.
    Restart,
    /// Sends them on, and stops in the middle of the answer.
    Half,
}

/// One adapter's behaviour.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Adapter {
    /// Answer to `ATZ` and `ATI`.
    pub banner: String,
    /// Commands (without `AT`, by beginning) it answers with `?`.
    pub unknown: Vec<String>,
    /// Commands it answers with `OK` and does not carry out.
    pub ignores: Vec<String>,
    /// Commands after which it never answers again.
    pub hangs: Vec<String>,
    /// Reads only so many bytes of a request.
    pub request_bytes: usize,
    /// Several parameters in one request.
    pub multi: Multi,
    /// Dies after so many frames of one answer.
    pub freeze_after_frames: Option<usize>,
    /// Its supply dips after so many frames of one answer: the banner, settings lost.
    pub brown_out_after_frames: Option<usize>,
    /// Loses its settings, without a word, after so many requests to the car; 0: never.
    pub forgets_after: usize,
    /// Says `NOT CONNECTED` to so many requests after a reset.
    pub not_connected_first: usize,
    /// Says this in a line of its own before each answer of the car.
    pub says_first: Option<String>,
    /// Answer to `ATDPN`, whatever the bus.
    pub protocol_number: Option<String>,
    /// Prints the banner, with its prompt, twice.
    pub banner_twice: bool,
    /// From a reply's last line to its prompt.
    pub prompt_late_ms: u64,
    /// Flow control modes 1 and 2 bring consecutive frames.
    pub flow_modes: bool,
    /// Understands the digit after a request that ends the wait early.
    pub count_digit: bool,
    /// Answers `?` to a request that ends in such a digit.
    pub refuses_count: bool,
    /// Error of `ATRV` in volts.
    pub voltage_offset: f64,
    /// No voltage pin: `ATRV` says 0.0V.
    pub no_voltage: bool,
    /// Linefeeds on after a reset.
    pub linefeeds: bool,
    /// Prints the padding of single frames with headers on.
    pub pads: bool,
    /// Doubles its output with 00 bytes.
    pub nulls: bool,
    /// Sprinkles its output with 00 bytes here and there.
    pub nulls_at_random: bool,
    /// Writes pieces of so many bytes (0: whole replies) …
    pub split_bytes: usize,
    /// … so long apart.
    pub split_ms: u64,
    /// Rate at which it understands; 0: any.
    pub baud: u32,
    /// From `ATZ` to the banner.
    pub reset_ms: u64,
    /// What it writes is so long under way to the host, whatever the car does: a radio link, the
    /// latency timer of a USB converter.
    pub line_ms: u64,
    /// How long it waits for more answers with adaptive timing, in percent of the usual.
    pub quiet_percent: u32,
    /// Answer to `STDI`: an STN chip.
    pub stn: Option<String>,
}

impl Default for Adapter {
    fn default() -> Self {
        Self {
            banner: "ELM327 v1.5".into(),
            unknown: Vec::new(),
            ignores: Vec::new(),
            hangs: Vec::new(),
            request_bytes: 7,
            multi: Multi::Whole,
            freeze_after_frames: None,
            brown_out_after_frames: None,
            forgets_after: 0,
            not_connected_first: 0,
            says_first: None,
            protocol_number: None,
            banner_twice: false,
            prompt_late_ms: 0,
            flow_modes: true,
            count_digit: true,
            refuses_count: false,
            voltage_offset: 0.0,
            no_voltage: false,
            linefeeds: false,
            pads: false,
            nulls: false,
            nulls_at_random: false,
            split_bytes: 0,
            split_ms: 1,
            baud: 0,
            reset_ms: 20,
            line_ms: 0,
            quiet_percent: 100,
            stn: None,
        }
    }
}

impl Adapter {
    /// Every adapter of the table, by name.
    ///
    /// # Errors
    /// [`SpecError::File`] if the built-in table does not read, which a test rules out.
    pub fn all() -> Result<BTreeMap<String, Self>, SpecError> {
        toml::from_str(include_str!("adapters.toml")).map_err(|error| SpecError::File(error.to_string()))
    }

    /// One adapter of the table.
    ///
    /// # Errors
    /// [`SpecError::File`] listing the names that exist.
    pub fn named(name: &str) -> Result<Self, SpecError> {
        let mut all = Self::all()?;
        all.remove(name).ok_or_else(|| {
            let names: Vec<_> = all.into_keys().collect();
            SpecError::File(format!("no adapter {name:?}; known are: {}", names.join(", ")))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_least_twenty_adapters_read() {
        assert!(Adapter::all().unwrap().len() >= 35);
        assert_eq!(Adapter::named("clone-9600").unwrap().baud, 9600);
        assert!(Adapter::named("none").unwrap_err().to_string().contains("stn1110"));
    }
}
