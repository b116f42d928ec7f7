//! The tables of the configuration as they stand in the files (contract §2).
//! `*Table` types are complete; [`File`] is what one file may hold: everything
//! optional, merged key by key in file order.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::purse::PurseTable;
use super::values::{BrokerUrl, Bytes, Locale, Period, TimeOfDay, TransportUrl, VehicleLink};
use crate::event::Class;
use crate::ident::{DeviceId, GatewayId, StoreId};

/// One file.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// `[gateway]`.
    #[serde(default)]
    pub gateway: GatewayFile,
    /// `[mqtt]`.
    pub mqtt: Option<MqttFile>,
    /// `[buffer]`.
    #[serde(default)]
    pub buffer: BufferFile,
    /// `[api]`.
    #[serde(default)]
    pub api: ApiFile,
    /// `[purse]`: as a whole, that of the last file that has one.
    #[schemars(with = "Option<PurseTable>")]
    pub purse: Option<Spanned<PurseTable>>,
    /// `[[reader]]`.
    #[serde(default)]
    #[schemars(with = "Vec<ReaderTable>")]
    pub reader: Vec<Spanned<ReaderTable>>,
    /// `[[printer]]`.
    #[serde(default)]
    #[schemars(with = "Vec<PrinterTable>")]
    pub printer: Vec<Spanned<PrinterTable>>,
    /// `[[till]]`.
    #[serde(default)]
    #[schemars(with = "Vec<TillTable>")]
    pub till: Vec<Spanned<TillTable>>,
    /// `[[vehicle]]`.
    #[serde(default)]
    #[schemars(with = "Vec<VehicleTable>")]
    pub vehicle: Vec<Spanned<VehicleTable>>,
}

/// `[gateway]` in a file.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct GatewayFile {
    pub store: Option<StoreId>,
    pub id: Option<GatewayId>,
    pub data_dir: Option<PathBuf>,
    pub locale: Option<Locale>,
    #[schemars(with = "Option<String>")]
    pub timezone: Option<Spanned<String>>,
    pub business_day_start: Option<TimeOfDay>,
    pub firmware_protocols: Option<PathBuf>,
    /// Folder holding `rules/`, `templates/` and `fonts/`.
    pub share_dir: Option<PathBuf>,
    pub credentials_dir: Option<PathBuf>,
    /// What the time service touches each time it has set the clock.
    pub time_sync_file: Option<PathBuf>,
}

/// `[mqtt]` in a file.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct MqttFile {
    pub url: Option<BrokerUrl>,
    pub version: Option<MqttVersion>,
    #[schemars(with = "Option<String>")]
    pub root: Option<Spanned<String>>,
    pub client_id: Option<String>,
    pub username: Option<String>,
    pub ca_file: Option<PathBuf>,
    pub client_cert_file: Option<PathBuf>,
    pub confirm: Option<Confirm>,
    pub confirm_timeout: Option<Period>,
    #[schemars(with = "Option<u16>")]
    pub max_in_flight: Option<Spanned<u16>>,
    pub max_in_flight_bytes: Option<Bytes>,
    #[schemars(with = "Option<u32>")]
    pub max_packet_bytes: Option<Spanned<u32>>,
    pub replay_per_s: Option<u32>,
}

/// `[mqtt]`, complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MqttTable {
    /// The broker.
    pub url: BrokerUrl,
    /// Protocol version.
    pub version: MqttVersion,
    /// First part of every topic.
    pub root: String,
    /// Client identifier.
    pub client_id: String,
    /// User; the password is the credential `mqtt-password`.
    pub username: Option<String>,
    /// Certificate authorities; `None`: the system's.
    pub ca_file: Option<PathBuf>,
    /// Client certificate; its key is the credential `mqtt-client-key`.
    pub client_cert_file: Option<PathBuf>,
    /// Whose word ends an event's life in the log.
    pub confirm: Confirm,
    /// With `headquarters`: how long to wait before sending again.
    pub confirm_timeout: std::time::Duration,
    /// Unacknowledged publishes, at most.
    pub max_in_flight: u16,
    /// Their bytes, at most.
    pub max_in_flight_bytes: u64,
    /// The largest packet we send or take.
    pub max_packet_bytes: u32,
    /// Backlog events a second; 0: as fast as HQ takes them.
    pub replay_per_s: u32,
}

/// MQTT protocol version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
pub enum MqttVersion {
    /// MQTT 5.0.
    #[default]
    #[serde(rename = "5")]
    V5,
    /// MQTT 3.1.1.
    #[serde(rename = "3.1.1")]
    V311,
}

/// Whose word ends an event's life in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Confirm {
    /// The broker's PUBACK.
    #[default]
    Broker,
    /// Headquarters' `ack`.
    Headquarters,
}

/// `[buffer]` in a file.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct BufferFile {
    pub max_bytes: Option<Bytes>,
    #[serde(default)]
    pub classes: BTreeMap<Class, ClassFile>,
    #[serde(default)]
    pub history: HistoryFile,
}

/// `[buffer.history]` in a file: how many of the newest of each are kept beside the log.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct HistoryFile {
    pub visits: Option<u32>,
    pub warnings: Option<u32>,
    pub print_jobs: Option<u32>,
    pub requests: Option<u32>,
    pub commands: Option<u32>,
}

/// One class of `[buffer.classes]` in a file.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct ClassFile {
    pub keep: Option<Bytes>,
    pub keep_delivered: Option<Period>,
}

/// `[api]` in a file.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct ApiFile {
    #[schemars(with = "Option<String>")]
    pub listen: Option<Spanned<SocketAddr>>,
    pub control_socket: Option<PathBuf>,
    pub tls: Option<Tls>,
    pub tls_cert_file: Option<PathBuf>,
    pub allowed_origins: Option<Vec<String>>,
    pub allowed_hosts: Option<Vec<String>>,
}

/// `[api]`, complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiTable {
    /// Address of the local HTTP.
    pub listen: SocketAddr,
    /// Where the CLI reaches the daemon.
    pub control_socket: PathBuf,
    /// Encryption.
    pub tls: Tls,
    /// With `files`: certificate chain; the key is the credential `api-tls-key`.
    pub tls_cert_file: Option<PathBuf>,
    /// Origins that browsers may call from.
    pub allowed_origins: Vec<String>,
    /// Host names taken besides loopback and the listen address.
    pub allowed_hosts: Vec<String>,
}

impl Default for ApiTable {
    fn default() -> Self {
        Self {
            listen: SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8480)),
            control_socket: "/run/baygate/control.sock".into(),
            tls: Tls::Off,
            tls_cert_file: None,
            allowed_origins: Vec::new(),
            allowed_hosts: Vec::new(),
        }
    }
}

/// Encryption of the local HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Tls {
    /// Plain text: loopback only.
    #[default]
    Off,
    /// Own CA, shown at pairing.
    Auto,
    /// `tls_cert_file` and the credential `api-tls-key`.
    Files,
}

/// Globs of all PC/SC tables by role: which of two tables means a reader that fits both is theirs to
/// say, whatever is plugged in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReaderGlobs {
    /// Of those with role `sam`.
    pub sams: Vec<String>,
    /// Of those with role `card`.
    pub cards: Vec<String>,
}

/// `[[reader]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReaderTable {
    /// Its id.
    pub id: DeviceId,
    /// How it is reached.
    pub kind: ReaderKind,
    /// `pcsc`: glob (`*`, `?`) on the reader name; every matching reader serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `vpcd`: where a card connects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    /// `pn532`, `em4100`: how it is reached; a serial port without `baud` is opened with 115200 or 9600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<TransportUrl>,
    /// `wedge`: the keyboard that the scanner is: a link below `/dev/input/by-id` or `by-path`, or
    /// `/dev/baygate-*`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<PathBuf>,
    /// `wedge`: what it reads; `barcode` where nothing is said. A stripe is known by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub technology: Option<ScanTechnology>,
    /// `card` or `sam`.
    #[serde(default)]
    pub role: ReaderRole,
    /// What the `pcsc` tables say together of whose a reader is (`complete`).
    #[serde(skip)]
    pub globs: ReaderGlobs,
    /// `pcsc`, `vpcd`: lights and buzzer: `auto`, `acr122` or `off`.
    #[serde(default)]
    pub feedback: Feedback,
}

/// What a reader shows and sounds when a card is accepted, refused, or must be held still.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Feedback {
    /// Where the reader's name is one whose lights are known.
    #[default]
    Auto,
    /// The commands of the ACR122 family, whatever its name.
    Acr122,
    /// Nothing.
    Off,
}

/// Kinds of reader this version knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ReaderKind {
    /// A reader behind pcscd.
    Pcsc,
    /// Listens on TCP as the virtual reader driver does.
    Vpcd,
    /// The NFC chip PN532 on a serial port (HSU) or TCP.
    Pn532,
    /// Says the number of a 125 kHz card over a serial port or TCP.
    Em4100,
    /// A scanner or stripe reader that types as a keyboard does.
    Wedge,
}

/// What a scanner reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ScanTechnology {
    /// Bar codes.
    #[default]
    Barcode,
    /// QR codes.
    Qr,
    /// Magnetic stripes.
    Magstripe,
}

/// What is put into a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ReaderRole {
    /// Member cards.
    #[default]
    Card,
    /// A security module that stays in; never a member card.
    Sam,
}

/// `[[printer]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PrinterTable {
    /// Its id.
    pub id: DeviceId,
    /// Which driver. `evolis` and `cups` belong to a later version.
    pub kind: PrinterKind,
    /// How it is reached.
    pub link: TransportUrl,
    /// Where the chip of the card to print is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reader: Option<DeviceId>,
    /// The face: a file of `share_dir/templates`.
    #[serde(default = "default_template")]
    pub template: String,
}

fn default_template() -> String {
    "member-face.svg".into()
}

/// Kinds of printer this version knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PrinterKind {
    /// Star TCP300/TCP300II.
    StarTcp300,
    /// Writes PNG files into a folder.
    Png,
}

/// `[[till]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TillTable {
    /// Its id.
    pub id: DeviceId,
    /// Its home reader.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reader: Option<DeviceId>,
    /// Its home printer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub printer: Option<DeviceId>,
    /// When the face is printed.
    #[serde(default)]
    pub print_on: Vec<PrintOn>,
}

/// When the face is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PrintOn {
    /// After every committed transaction.
    Transaction,
    /// Only when asked.
    Request,
}

/// `[[vehicle]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VehicleTable {
    /// Its id.
    pub id: DeviceId,
    /// How the car is reached.
    pub link: VehicleLink,
    /// DBC files for passive decoding.
    #[serde(default)]
    pub dbc: Vec<PathBuf>,
    /// Signal sets (OBDb v3 JSON): makers' own signals, asked of the cars they fit.
    #[serde(default)]
    pub signals: Vec<PathBuf>,
    /// How eagerly the car is asked.
    #[serde(default)]
    pub poll: Poll,
}

/// How eagerly a car is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Poll {
    /// Presence, one report a visit, telemetry.
    #[default]
    Auto,
    /// Only when somebody asks for a scan.
    OnRequest,
    /// Nothing is ever sent to the car.
    ListenOnly,
}
