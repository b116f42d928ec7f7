//! Values of the configuration that have a form of their own: checked while
//! the TOML is read, so that an error points at the value.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

/// Language of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs)]
pub enum Locale {
    #[default]
    #[serde(rename = "zh-CN")]
    ZhCn,
    #[serde(rename = "en")]
    En,
}

impl Locale {
    /// Picks one of two texts.
    #[must_use]
    pub fn pick<'t>(self, zh: &'t str, en: &'t str) -> &'t str {
        match self {
            Self::ZhCn => zh,
            Self::En => en,
        }
    }
}

impl FromStr for Locale {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "zh-CN" | "zh" => Ok(Self::ZhCn),
            "en" => Ok(Self::En),
            other => Err(format!("{other:?} is not a locale of this program; use zh-CN or en")),
        }
    }
}

macro_rules! parsed_value {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = String;
            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.to_string()
            }
        }
    };
}

/// A duration such as `5m`, `90s`, `1h 30m` or `1d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Period(pub Duration);
parsed_value!(Period);

impl FromStr for Period {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        humantime::parse_duration(text).map(Self).map_err(|error| {
            format!("{text:?} is not a duration ({error}); write it like \"5m\", \"90s\" or \"1d\"")
        })
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

/// A number of bytes such as `4GiB` or `128KiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Bytes(pub u64);
parsed_value!(Bytes);

impl FromStr for Bytes {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        text.parse::<bytesize::ByteSize>()
            .map(|size| Self(size.as_u64()))
            .map_err(|_| format!("{text:?} is not a size; write it like \"4GiB\" or \"128KiB\""))
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}B", self.0)
    }
}

/// A time of day, `HH:MM`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct TimeOfDay {
    /// 0 to 23.
    pub hour: u8,
    /// 0 to 59.
    pub minute: u8,
}
parsed_value!(TimeOfDay);

impl FromStr for TimeOfDay {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once(':').and_then(|(hour, minute)| {
            let (hour, minute) = (hour.parse().ok()?, minute.parse().ok()?);
            (hour < 24 && minute < 60).then_some(Self { hour, minute })
        });
        parsed.ok_or_else(|| format!("{text:?} is not a time of day; write it like \"04:00\""))
    }
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.hour, self.minute)
    }
}

/// The MQTT broker's address: `mqtt://HOST[:1883]` or `mqtts://HOST[:8883]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct BrokerUrl {
    /// Whether the line is encrypted.
    pub tls: bool,
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
}
parsed_value!(BrokerUrl);

impl FromStr for BrokerUrl {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let hint = "write it like \"mqtts://mqtt.example.com:8883\" or \"mqtt://192.168.1.5:1883\"";
        let url = Url::parse(text)
            .map_err(|error| format!("{text:?} is not a broker address ({error}); {hint}"))?;
        let tls = match url.scheme() {
            "mqtt" => false,
            "mqtts" => true,
            other => return Err(format!("scheme {other:?} is not supported; {hint}")),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err("user and password do not belong in the address: use `username` and the credential `mqtt-password`".into());
        }
        let host = url
            .host_str()
            .filter(|host| !host.is_empty())
            .ok_or_else(|| format!("no host in {text:?}; {hint}"))?;
        if !matches!(url.path(), "" | "/") || url.query().is_some() {
            return Err(format!("{text:?} has something behind the port; {hint}"));
        }
        Ok(Self { tls, host: host.to_owned(), port: url.port().unwrap_or(if tls { 8883 } else { 1883 }) })
    }
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", if self.tls { "mqtts" } else { "mqtt" }, self.host, self.port)
    }
}

/// A byte transport: what is below every dongle's, reader's and printer's protocol.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Transport {
    /// A serial port.
    Serial {
        /// Device node.
        path: PathBuf,
        /// Baud rate; `None`: probe.
        baud: Option<u32>,
    },
    /// A TCP connection.
    Tcp {
        /// Host.
        host: String,
        /// Port.
        port: u16,
        /// Bind to this network interface.
        interface: Option<String>,
    },
    /// A line-printer device node.
    Lp {
        /// Device node.
        path: PathBuf,
    },
    /// A folder that pictures are written to.
    Folder {
        /// The folder.
        path: PathBuf,
    },
}

/// Query parameters of a link address: each at most once, none unknown.
fn parameters(url: &Url, allowed: &[&str]) -> Result<Vec<(String, String)>, String> {
    let mut found: Vec<(String, String)> = Vec::new();
    for (key, value) in url.query_pairs() {
        if !allowed.contains(&key.as_ref()) {
            let known = if allowed.is_empty() { "none".to_owned() } else { allowed.join(", ") };
            return Err(format!("parameter {key:?} is not known here; known: {known}"));
        }
        if found.iter().any(|(seen, _)| *seen == key) {
            return Err(format!("parameter {key:?} stands twice"));
        }
        found.push((key.into_owned(), value.into_owned()));
    }
    Ok(found)
}

fn parameter(found: &[(String, String)], key: &str) -> Option<String> {
    found.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone())
}

fn number<T: FromStr>(found: &[(String, String)], key: &str) -> Result<Option<T>, String> {
    parameter(found, key)
        .map(|text| text.parse().map_err(|_| format!("{key}={text} is not a number in range")))
        .transpose()
}

impl Transport {
    fn parse(scheme: &str, url: &Url) -> Result<Self, String> {
        let path = PathBuf::from(url.path());
        let absolute = |what: &str| {
            if url.host_str().is_some_and(|host| !host.is_empty()) || url.path().len() < 2 {
                Err(format!("{what} needs three slashes and an absolute path, like {scheme}:///dev/ttyUSB0"))
            } else {
                Ok(path.clone())
            }
        };
        match scheme {
            "serial" => {
                let found = parameters(url, &["baud"])?;
                Ok(Self::Serial { path: absolute("a serial port")?, baud: number(&found, "baud")? })
            }
            "tcp" => {
                let found = parameters(url, &["interface"])?;
                let host = url.host_str().filter(|host| !host.is_empty());
                let host = host.ok_or("a TCP link needs HOST:PORT, like tcp://192.168.0.10:35000")?;
                let port = url
                    .port()
                    .ok_or_else(|| format!("tcp://{host} needs a port, like tcp://{host}:35000"))?;
                Ok(Self::Tcp { host: host.to_owned(), port, interface: parameter(&found, "interface") })
            }
            "lp" => {
                parameters(url, &[])?;
                Ok(Self::Lp { path: absolute("a line printer")? })
            }
            "file" => {
                parameters(url, &[])?;
                Ok(Self::Folder { path: absolute("a folder")? })
            }
            other => {
                Err(format!("scheme {other:?} is not a transport; use serial://, tcp://, lp:// or file://"))
            }
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Serial { path, baud: None } => write!(f, "serial://{}", path.display()),
            Self::Serial { path, baud: Some(baud) } => write!(f, "serial://{}?baud={baud}", path.display()),
            Self::Tcp { host, port, interface: None } => write!(f, "tcp://{host}:{port}"),
            Self::Tcp { host, port, interface: Some(name) } => {
                write!(f, "tcp://{host}:{port}?interface={name}")
            }
            Self::Lp { path } => write!(f, "lp://{}", path.display()),
            Self::Folder { path } => write!(f, "file://{}", path.display()),
        }
    }
}

/// A printer's or serial reader's `link`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct TransportUrl(pub Transport);
parsed_value!(TransportUrl);

impl FromStr for TransportUrl {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let url = Url::parse(text).map_err(|error| {
            format!("{text:?} is not a link ({error}); write it like \"serial:///dev/ttyUSB0?baud=9600\" or \"tcp://192.168.1.9:9100\"")
        })?;
        Transport::parse(url.scheme(), &url).map(Self)
    }
}

impl fmt::Display for TransportUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A vehicle link: an adapter protocol over a transport (contract §1 LINK).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub enum VehicleLink {
    /// An ELM327-compatible dongle.
    Elm327(Transport),
    /// A CAN interface of the kernel.
    Can {
        /// Its name, like `can0`.
        interface: String,
        /// Bits a second, to be set by the helper; `None`: the interface is used as it is.
        bitrate: Option<u32>,
    },
    /// An slcan adapter.
    Slcan {
        /// How it is reached.
        transport: Transport,
        /// Bits a second on the bus; `None`: found by listening.
        bitrate: Option<u32>,
    },
}

/// Bit rates that an interface may be given (ISO 15765-4 knows 250 and 500 kbit/s; makers' buses the others).
pub const CAN_BITRATES: [u32; 6] = [100_000, 125_000, 250_000, 500_000, 800_000, 1_000_000];

/// Whether a name may be that of a network interface (IFNAMSIZ is 16 with the end mark).
#[must_use]
pub fn is_interface_name(name: &str) -> bool {
    (1..16).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
        && !name.starts_with(['.', '-'])
}

fn can_bitrate(found: &[(String, String)]) -> Result<Option<u32>, String> {
    let bitrate = number(found, "bitrate")?;
    match bitrate {
        Some(rate) if !CAN_BITRATES.contains(&rate) => {
            let known = CAN_BITRATES.map(|rate| rate.to_string()).join(", ");
            Err(format!("bitrate={rate} is not a bit rate of cars; use one of {known}"))
        }
        bitrate => Ok(bitrate),
    }
}

impl VehicleLink {
    fn slcan(scheme: &str, text: &str) -> Result<Self, String> {
        let mut bare = Url::parse(&text.replacen(&format!("slcan+{scheme}"), scheme, 1))
            .map_err(|error| format!("{text:?}: {error}"))?;
        let pairs: Vec<(String, String)> = bare.query_pairs().into_owned().collect();
        let (ours, others): (Vec<_>, Vec<_>) = pairs.into_iter().partition(|(key, _)| key == "bitrate");
        if ours.len() > 1 {
            return Err("parameter \"bitrate\" stands twice".into());
        }
        bare.set_query(None);
        if !others.is_empty() {
            bare.query_pairs_mut().extend_pairs(others);
        }
        Ok(Self::Slcan { transport: Transport::parse(scheme, &bare)?, bitrate: can_bitrate(&ours)? })
    }

    fn can(text: &str) -> Result<Self, String> {
        // As above: the host of an unknown scheme is opaque, and loses nothing by that.
        let url = Url::parse(text).map_err(|error| format!("{text:?}: {error}"))?;
        let interface = url.host_str().unwrap_or_default().to_owned();
        if !is_interface_name(&interface) || !matches!(url.path(), "" | "/") || url.port().is_some() {
            return Err("a CAN link needs the interface's name, like can://can0?bitrate=500000".into());
        }
        let bitrate = can_bitrate(&parameters(&url, &["bitrate"])?)?;
        Ok(Self::Can { interface, bitrate })
    }
}
parsed_value!(VehicleLink);

impl FromStr for VehicleLink {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let hint = "write it like \"elm327+serial:///dev/rfcomm0\", \"elm327+tcp://192.168.0.10:35000\" or \"can://can0?bitrate=500000\"";
        let url =
            Url::parse(text).map_err(|error| format!("{text:?} is not a vehicle link ({error}); {hint}"))?;
        match url.scheme().split_once('+') {
            Some(("elm327", scheme @ ("serial" | "tcp"))) => {
                // `url` treats an unknown scheme's host as opaque; read the address again under the bare one.
                let bare = text.replacen(&format!("elm327+{scheme}"), scheme, 1);
                let bare = Url::parse(&bare).map_err(|error| format!("{text:?}: {error}; {hint}"))?;
                Transport::parse(scheme, &bare).map(Self::Elm327)
            }
            Some(("elm327", "bt")) | None if matches!(url.scheme(), "elm327+bt" | "doip") => {
                Err(format!("links of kind {:?} are not in this version yet; {hint}", url.scheme()))
            }
            Some(("slcan", scheme @ ("serial" | "tcp"))) => Self::slcan(scheme, text),
            None if url.scheme() == "can" => Self::can(text),
            _ => Err(format!("{:?} is not a kind of vehicle link; {hint}", url.scheme())),
        }
    }
}

impl fmt::Display for VehicleLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Elm327(transport) => write!(f, "elm327+{transport}"),
            Self::Can { interface, bitrate: None } => write!(f, "can://{interface}"),
            Self::Can { interface, bitrate: Some(bitrate) } => {
                write!(f, "can://{interface}?bitrate={bitrate}")
            }
            Self::Slcan { transport, bitrate: None } => write!(f, "slcan+{transport}"),
            Self::Slcan { transport, bitrate: Some(bitrate) } => {
                let transport = transport.to_string();
                let joint = if transport.contains('?') { '&' } else { '?' };
                write!(f, "slcan+{transport}{joint}bitrate={bitrate}")
            }
        }
    }
}

/// An address to listen on.
pub type Listen = SocketAddr;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_read_and_print_the_same() {
        for link in [
            "elm327+serial:///dev/rfcomm0?baud=38400",
            "elm327+serial:///dev/rfcomm0",
            "elm327+tcp://192.168.0.10:35000?interface=wlan1",
            "elm327+tcp://127.0.0.1:35000",
            "can://can0?bitrate=500000",
            "can://vcan0",
            "slcan+serial:///dev/ttyACM0?bitrate=500000",
            "slcan+serial:///dev/ttyACM0?baud=115200&bitrate=250000",
            "slcan+serial:///dev/ttyACM0",
            "slcan+tcp://10.0.0.5:3333?bitrate=500000",
        ] {
            assert_eq!(link.parse::<VehicleLink>().map(|l| l.to_string()), Ok(link.to_owned()));
        }
        for link in [
            "serial:///dev/ttyUSB2?baud=9600",
            "tcp://printer:9100",
            "lp:///dev/usb/lp0",
            "file:///tmp/faces",
        ] {
            assert_eq!(link.parse::<TransportUrl>().map(|l| l.to_string()), Ok(link.to_owned()));
        }
    }

    #[test]
    fn bad_links_say_what_to_write() {
        for (link, words) in [
            ("elm327+serial://dev/rfcomm0", "three slashes"),
            ("elm327+tcp://192.168.0.10", "needs a port"),
            ("elm327+serial:///dev/x?bauds=1", "not known here; known: baud"),
            ("elm327+serial:///dev/x?baud=fast", "not a number"),
            ("can:///can0", "needs the interface's name"),
            ("can://can0/x", "needs the interface's name"),
            ("can://a-name-too-long-for-it", "needs the interface's name"),
            ("can://can0?bitrate=5", "not a bit rate of cars"),
            ("can://can0?rate=5", "not known here; known: bitrate"),
            ("slcan+tcp://h:1?bitrate=fast", "not a number"),
            ("slcan+tcp://h:1?bitrate=500000&bitrate=250000", "stands twice"),
            ("slcan+tcp://h?bitrate=500000", "needs a port"),
            ("slcan+bt://AA", "not a kind of vehicle link"),
            ("doip://h", "not in this version yet"),
            ("bluetooth", "not a vehicle link"),
            ("usb://x", "not a kind of vehicle link"),
        ] {
            let error = link.parse::<VehicleLink>().unwrap_err();
            assert!(error.contains(words), "{link}: {error}");
        }
    }

    #[test]
    fn broker_addresses() {
        assert_eq!("mqtts://h".parse::<BrokerUrl>().unwrap().to_string(), "mqtts://h:8883");
        assert_eq!("mqtt://10.0.0.1:1884".parse::<BrokerUrl>().unwrap().port, 1884);
        for bad in ["http://h", "mqtt://u:p@h", "mqtt://h/x", "h:1883", "mqtt://"] {
            assert!(bad.parse::<BrokerUrl>().is_err(), "{bad}");
        }
    }
}
