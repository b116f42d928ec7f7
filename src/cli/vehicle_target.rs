//! What `scan` and `watch` are pointed at: a LINK, which they open themselves, or
//! the id of a configured link, which belongs to the daemon.

use std::fmt;

use anyhow::bail;

use super::Exit;
use crate::config::Config;
use crate::config::values::{Locale, VehicleLink};
use crate::ident::DeviceId;
use crate::vehicle::AdapterError;
use crate::vehicle::scan::ScanError;

/// The target of a vehicle command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Opened by the command.
    Link(VehicleLink),
    /// Asked for through the daemon.
    Configured(DeviceId),
}

impl Target {
    /// Anything with `://` is a LINK.
    ///
    /// # Errors
    /// Saying how a LINK or an id is written.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.contains("://") {
            return text.parse().map(Self::Link);
        }
        DeviceId::new(text).map(Self::Configured).map_err(|error| {
            format!("{error}; or write a LINK like elm327+serial:///dev/rfcomm0 or elm327+tcp://192.168.0.10:35000")
        })
    }

    /// A LINK that the configuration gives to the daemon is the daemon's.
    ///
    /// # Errors
    /// When no configured link has that id.
    pub fn resolve(self, config: Option<&Config>) -> anyhow::Result<Self> {
        let Self::Configured(id) = &self else { return Ok(self) };
        let Some(config) = config else {
            bail!(
                "{id} is an id of the configuration, and there is none; name it with --config, or write a LINK"
            );
        };
        if config.vehicles.iter().any(|table| table.id == *id) {
            return Ok(self);
        }
        let known: Vec<&str> = config.vehicles.iter().map(|table| table.id.as_str()).collect();
        let known = if known.is_empty() { "none".into() } else { known.join(", ") };
        bail!("no [[vehicle]] has the id {id}; known: {known}");
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link(link) => link.fmt(f),
            Self::Configured(id) => id.fmt(f),
        }
    }
}

/// Says on standard error what is wrong and which exit status that is.
#[must_use]
pub fn refuse(error: &ScanError, locale: Locale) -> Exit {
    match error {
        ScanError::Adapter(error) => refuse_adapter(error, locale),
        ScanError::NoAnswer { why } => {
            let zh =
                format!("没有控制单元应答（{why}）；请打开点火开关；电动车或带安全网关的车可能不应答 OBD");
            eprintln!("{}", locale.pick(&zh, &error.to_string()));
            Exit::Device
        }
    }
}

/// As [`refuse`], for the adapter alone.
#[must_use]
pub fn refuse_adapter(error: &AdapterError, locale: Locale) -> Exit {
    let text = error.text();
    eprintln!("{}", locale.pick(&text.zh, &text.en));
    Exit::Device
}

/// The words of the command line name nothing.
#[must_use]
pub fn unknown_target(error: &anyhow::Error) -> Exit {
    eprintln!("baygate: {}", super::daemon::told(error));
    Exit::Usage
}

/// A trace needs the bytes, and those of a configured link are the daemon's.
#[must_use]
pub fn no_trace_through_daemon(id: &DeviceId, locale: Locale) -> Exit {
    let zh = format!("{id} 由守护进程占用，无法记录字节；请停止守护进程后对其 LINK 使用 --trace");
    let en = format!("{id} belongs to the daemon: stop it and use --trace with the LINK itself");
    eprintln!("{}", locale.pick(&zh, &en));
    Exit::Usage
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_ids() {
        assert!(matches!(Target::parse("elm327+tcp://10.0.0.1:35000"), Ok(Target::Link(_))));
        assert!(matches!(Target::parse("bay-1"), Ok(Target::Configured(_))));
        assert!(Target::parse("/dev/ttyUSB0").unwrap_err().contains("elm327+serial"));
        assert!(Target::parse("elm327+tcp://10.0.0.1").unwrap_err().contains("needs a port"));
    }

    #[test]
    fn unknown_ids_name_the_known_ones() {
        let toml = "[gateway]\nstore = \"S\"\nid = \"g\"\ndata_dir = \"/tmp/x\"\n[[vehicle]]\nid = \"bay-1\"\nlink = \"elm327+serial:///dev/rfcomm0\"\n";
        let config = crate::config::parse("t.toml".as_ref(), toml).unwrap();
        let id = |text: &str| Target::parse(text).unwrap();
        assert!(id("bay-1").resolve(Some(&config)).is_ok());
        assert!(id("bay-2").resolve(Some(&config)).unwrap_err().to_string().contains("known: bay-1"));
        assert!(id("bay-1").resolve(None).unwrap_err().to_string().contains("--config"));
    }
}
