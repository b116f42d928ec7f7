//! [`Merge`] → [`Config`]: defaults filled in, and everything checked that one
//! table alone cannot know.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use sha2::{Digest, Sha256};
use toml::Spanned;

use super::load::{Merge, Placed, default_data_dir};
use super::suggest::closest;
use super::tables::{
    ApiTable, ClassFile, Feedback, HistoryFile, MqttFile, MqttTable, PrinterKind, ReaderGlobs, ReaderKind,
    ReaderRole, ReaderTable, Tls,
};
use super::values::{TimeOfDay, Transport, TransportUrl};
use super::{Buffer, ClassBuffer, Config, ConfigError, Gateway, HistoryCounts};
use crate::event::{Class, Source};
use crate::ident::DeviceId;

impl Merge {
    /// The configuration, or everything that is wrong with it.
    pub(super) fn finish(mut self) -> Result<Config, Vec<ConfigError>> {
        self.check_tables();
        self.check_purse();
        let gateway = self.gateway();
        let mqtt = self.mqtt.take().and_then(|mqtt| self.mqtt(mqtt, gateway.as_ref()));
        let api = self.api();
        let buffer = self.buffer();
        let mut digest = Sha256::new();
        for (_, text) in &self.texts {
            digest.update(text);
            digest.update([0]);
        }
        match gateway {
            Some(gateway) if self.errors.is_empty() => Ok(Config {
                gateway,
                mqtt,
                buffer,
                api,
                purse: self.purse.map(|placed| placed.value).unwrap_or_default(),
                readers: told_of_sams(self.readers.into_iter().map(|placed| placed.value).collect()),
                printers: self.printers.into_iter().map(|placed| placed.value).collect(),
                tills: self.tills.into_iter().map(|placed| placed.value).collect(),
                vehicles: self.vehicles.into_iter().map(|placed| placed.value).collect(),
                version: hex::encode(digest.finalize()),
            }),
            _ => Err(self.errors),
        }
    }

    fn gateway(&mut self) -> Option<Gateway> {
        let file = self.gateway_file;
        let table = self.gateway.clone();
        // A file that could not be read says so itself; do not complain about what it may have held.
        if self.errors.is_empty() {
            if table.store.is_none() {
                self.error(
                    file,
                    None,
                    "[gateway] store is missing",
                    "add `store = \"SH-0042\"` with your store's number",
                );
            }
            if table.id.is_none() {
                self.error(file, None, "[gateway] id is missing", "add `id = \"gw-1\"`");
            }
        }
        let timezone = match table.timezone {
            Some(name) => {
                if jiff::tz::TimeZone::get(name.get_ref()).is_err() {
                    let what = format!("timezone {:?} is not known", name.get_ref());
                    self.error(
                        file,
                        Some(name.span().start),
                        what,
                        "use a name like \"Asia/Shanghai\" (package tzdata)",
                    );
                }
                name.into_inner()
            }
            None => "Asia/Shanghai".into(),
        };
        Some(Gateway {
            source: Source { store: table.store?, gateway: table.id? },
            data_dir: table.data_dir.unwrap_or_else(default_data_dir),
            locale: table.locale.unwrap_or_default(),
            timezone,
            business_day_start: table.business_day_start.unwrap_or(TimeOfDay { hour: 4, minute: 0 }),
            firmware_protocols: table
                .firmware_protocols
                .unwrap_or_else(|| "/usr/share/baygate/firmware-protocols".into()),
            share_dir: table.share_dir.unwrap_or_else(|| "/usr/share/baygate".into()),
            credentials_dir: table.credentials_dir,
            time_sync_file: table.time_sync_file.unwrap_or_else(|| crate::clock::TIME_SYNC_FILE.into()),
        })
    }

    fn mqtt(&mut self, table: MqttFile, gateway: Option<&Gateway>) -> Option<MqttTable> {
        let file = self.mqtt_file;
        if table.url.is_none() {
            self.error(
                file,
                None,
                "[mqtt] url is missing",
                "add `url = \"mqtts://mqtt.example.com:8883\"`, or remove [mqtt]",
            );
        }
        let root = match table.root {
            Some(root) => {
                let text = root.get_ref();
                if text.is_empty()
                    || text.contains(['#', '+', '\0'])
                    || text.starts_with('/')
                    || text.ends_with('/')
                {
                    let what = format!("root {text:?} is not a topic prefix");
                    self.error(
                        file,
                        Some(root.span().start),
                        what,
                        "use something like \"baygate/v1\", without # + and outer slashes",
                    );
                }
                root.into_inner()
            }
            None => "baygate/v1".into(),
        };
        let max_in_flight = table.max_in_flight.map_or(64, |value| {
            if *value.get_ref() == 0 {
                self.error(
                    file,
                    Some(value.span().start),
                    "max_in_flight must be at least 1",
                    "64 is a good value",
                );
            }
            value.into_inner()
        });
        let max_packet_bytes = table.max_packet_bytes.map_or(131_072, |value| {
            if *value.get_ref() < 66_560 {
                let what = "max_packet_bytes is smaller than one event can be (65536 and its topic)";
                self.error(file, Some(value.span().start), what, "use 131072");
            }
            value.into_inner()
        });
        let source = &gateway?.source;
        Some(MqttTable {
            url: table.url?,
            version: table.version.unwrap_or_default(),
            root,
            client_id: table
                .client_id
                .unwrap_or_else(|| format!("baygate-{}-{}", source.store, source.gateway)),
            username: table.username,
            ca_file: table.ca_file,
            client_cert_file: table.client_cert_file,
            confirm: table.confirm.unwrap_or_default(),
            confirm_timeout: table.confirm_timeout.map_or(Duration::from_secs(300), |period| period.0),
            max_in_flight,
            max_in_flight_bytes: table.max_in_flight_bytes.map_or(128 * 1024, |bytes| bytes.0),
            max_packet_bytes,
            replay_per_s: table.replay_per_s.unwrap_or(0),
        })
    }

    fn api(&mut self) -> ApiTable {
        let defaults = ApiTable::default();
        let table = self.api.clone();
        let tls = table.tls.unwrap_or_default();
        let file = self.api_file;
        if let Some(listen) = &table.listen
            && tls == Tls::Off
            && !listen.get_ref().ip().is_loopback()
        {
            let what = format!("listening on {} without encryption is refused", listen.get_ref());
            self.error(file, Some(listen.span().start), what, "set `tls = \"auto\"`, or listen on 127.0.0.1");
        }
        if tls == Tls::Files && table.tls_cert_file.is_none() {
            self.error(
                file,
                None,
                "[api] tls = \"files\" needs tls_cert_file",
                "name the certificate chain; its key is the credential `api-tls-key`",
            );
        }
        ApiTable {
            listen: table.listen.map_or(defaults.listen, Spanned::into_inner),
            control_socket: table.control_socket.unwrap_or(defaults.control_socket),
            tls,
            tls_cert_file: table.tls_cert_file,
            allowed_origins: table.allowed_origins.unwrap_or_default(),
            allowed_hosts: table.allowed_hosts.unwrap_or_default(),
        }
    }

    fn buffer(&mut self) -> Buffer {
        let day = Duration::from_secs(86_400);
        let defaults: BTreeMap<Class, (u64, u32)> = [
            (Class::Ledger, (u64::MAX, 90)),
            (Class::Gateway, (256 << 20, 30)),
            (Class::Card, (256 << 20, 7)),
            (Class::Vehicle, (1 << 30, 30)),
            (Class::Maintenance, (256 << 20, 30)),
            (Class::Device, (128 << 20, 7)),
            (Class::Telemetry, (1 << 30, 1)),
        ]
        .into();
        if self.buffer.classes.get(&Class::Ledger).is_some_and(|ledger| ledger.keep.is_some()) {
            self.error(
                0,
                None,
                "[buffer.classes] ledger has no size limit",
                "remove `keep`: ledger events are never trimmed",
            );
        }
        let classes = defaults.into_iter().map(|(class, (keep, days))| {
            let ClassFile { keep: own, keep_delivered } =
                self.buffer.classes.get(&class).copied().unwrap_or_default();
            let keep_bytes = (class != Class::Ledger).then(|| own.map_or(keep, |bytes| bytes.0));
            (
                class,
                ClassBuffer {
                    keep_bytes,
                    keep_delivered: keep_delivered.map_or(day * days, |period| period.0),
                },
            )
        });
        let classes = classes.collect();
        let HistoryFile { visits, warnings, print_jobs, requests, commands } = self.buffer.history;
        let history = HistoryCounts {
            visits: visits.unwrap_or(20_000),
            warnings: warnings.unwrap_or(20_000),
            print_jobs: print_jobs.unwrap_or(10_000),
            requests: requests.unwrap_or(2_000),
            commands: commands.unwrap_or(100_000),
        };
        Buffer { max_bytes: self.buffer.max_bytes.map_or(4 << 30, |bytes| bytes.0), classes, history }
    }

    /// What one table alone cannot know: ids used twice, references to nothing, kinds without their address.
    fn check_tables(&mut self) {
        for twice in std::mem::take(&mut self.twice) {
            self.error(
                twice.file,
                Some(twice.offset),
                format!("id {:?} stands twice", twice.value.as_str()),
                "give each table its own id",
            );
        }
        for reader in self.readers.clone() {
            let table = &reader.value;
            let scans = table.device.is_some() || table.technology.is_some();
            let (missing, extra, hint) = match table.kind {
                ReaderKind::Pcsc => (
                    table.name.is_none(),
                    table.listen.is_some() || table.link.is_some(),
                    "a pcsc reader has `name = \"ACS ACR122U*\"` and neither `listen` nor `link`",
                ),
                ReaderKind::Vpcd => (
                    table.listen.is_none(),
                    table.name.is_some() || table.link.is_some(),
                    "a vpcd reader has `listen = \"127.0.0.1:35963\"` and neither `name` nor `link`",
                ),
                ReaderKind::Pn532 => (
                    !is_line(table.link.as_ref()),
                    table.name.is_some() || table.listen.is_some() || table.role == ReaderRole::Sam,
                    "a pn532 reader has `link = \"serial:///dev/ttyUSB1\"` or `\"tcp://HOST:PORT\"`, and neither `name`, `listen` nor `role = \"sam\"`",
                ),
                ReaderKind::Em4100 => (
                    !is_line(table.link.as_ref()),
                    table.name.is_some() || table.listen.is_some() || table.role == ReaderRole::Sam,
                    "an em4100 reader has `link = \"serial:///dev/ttyUSB1\"` or `\"tcp://HOST:PORT\"`, and neither `name`, `listen` nor `role = \"sam\"`",
                ),
                ReaderKind::Wedge => (
                    !table.device.as_deref().is_some_and(names_one_device),
                    table.name.is_some()
                        || table.listen.is_some()
                        || table.link.is_some()
                        || table.role == ReaderRole::Sam,
                    "a wedge reader has `device = \"/dev/input/by-id/…\"` (or by-path/…, or /dev/baygate-… by a udev rule; /dev/input/event3 may be the cashier's keyboard after the next start), and neither `name`, `listen`, `link` nor `role = \"sam\"`",
                ),
            };
            if missing || extra || (scans && table.kind != ReaderKind::Wedge) {
                self.error(
                    reader.file,
                    Some(reader.offset),
                    format!("reader {:?} is not complete", table.id.as_str()),
                    hint,
                );
            }
        }
        self.check_feedback();
        let reader_ids: Vec<DeviceId> = self.readers.iter().map(|reader| reader.value.id.clone()).collect();
        let printer_ids: Vec<DeviceId> =
            self.printers.iter().map(|printer| printer.value.id.clone()).collect();
        for printer in self.printers.clone() {
            let table = &printer.value;
            let fits = match (table.kind, &table.link.0) {
                (PrinterKind::Png, Transport::Folder { .. }) => true,
                (PrinterKind::Png, _) | (_, Transport::Folder { .. }) => false,
                (PrinterKind::StarTcp300, _) => true,
            };
            if !fits {
                let what = format!("printer {:?} cannot use {}", table.id.as_str(), table.link);
                self.error(
                    printer.file,
                    Some(printer.offset),
                    what,
                    "png needs file:///FOLDER; star-tcp300 needs serial://, tcp:// or lp://",
                );
            }
            self.reference(printer.file, printer.offset, "reader", table.reader.as_ref(), &reader_ids);
        }
        for till in self.tills.clone() {
            self.reference(till.file, till.offset, "reader", till.value.reader.as_ref(), &reader_ids);
            self.reference(till.file, till.offset, "printer", till.value.printer.as_ref(), &printer_ids);
        }
    }

    /// `feedback` where nothing would come of it.
    fn check_feedback(&mut self) {
        for reader in self.readers.clone() {
            let table = &reader.value;
            let has_lights =
                matches!(table.kind, ReaderKind::Pcsc | ReaderKind::Vpcd) && table.role == ReaderRole::Card;
            if !has_lights && table.feedback != Feedback::default() {
                self.error(
                    reader.file,
                    Some(reader.offset),
                    format!(
                        "reader {:?} has no lights or buzzer that `feedback` could set",
                        table.id.as_str()
                    ),
                    "remove `feedback`: only a pcsc or vpcd reader with role = \"card\" is told",
                );
            }
        }
    }

    fn check_purse(&mut self) {
        let Some(Placed { value, file, offset }) = self.purse.clone() else { return };
        for (what, hint) in value.faults() {
            self.error(file, Some(offset), what, hint);
        }
    }

    fn reference(
        &mut self,
        file: usize,
        offset: usize,
        kind: &str,
        named: Option<&DeviceId>,
        known: &[DeviceId],
    ) {
        if let Some(named) = named
            && !known.contains(named)
        {
            let hint = closest(named.as_str(), known.iter().map(DeviceId::as_str)).map_or_else(
                || format!("add a [[{kind}]] with that id"),
                |near| format!("did you mean {near:?}?"),
            );
            self.error(file, Some(offset), format!("{kind} {:?} is not configured", named.as_str()), &hint);
        }
    }
}

/// Whether a link is one that bytes come and go over.
fn is_line(link: Option<&TransportUrl>) -> bool {
    matches!(link, Some(TransportUrl(Transport::Serial { .. } | Transport::Tcp { .. })))
}

/// Whether a path names one input device whatever else is plugged in: udev's own links, or one that
/// a rule of this house makes. A number below `/dev/input` is given anew at each start.
fn names_one_device(device: &Path) -> bool {
    let (Some(folder), Some(name)) = (device.parent().and_then(Path::to_str), device.file_name()) else {
        return false;
    };
    match folder {
        "/dev/input/by-id" | "/dev/input/by-path" => true,
        "/dev" => name.to_str().is_some_and(|name| name.starts_with("baygate-")),
        _ => false,
    }
}

/// Each PC/SC reader knows what the others' tables say. Where there is no SAM nothing is in question,
/// so that a table more starts no reader anew.
fn told_of_sams(mut readers: Vec<ReaderTable>) -> Vec<ReaderTable> {
    let of = |role| {
        let some = readers.iter().filter(move |table| table.kind == ReaderKind::Pcsc && table.role == role);
        some.filter_map(|table| table.name.clone()).collect::<Vec<_>>()
    };
    let globs = ReaderGlobs { sams: of(ReaderRole::Sam), cards: of(ReaderRole::Card) };
    if !globs.sams.is_empty() {
        for table in readers.iter_mut().filter(|table| table.kind == ReaderKind::Pcsc) {
            table.globs.clone_from(&globs);
        }
    }
    readers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keyboard_is_named_for_good() {
        for (path, expected) in [
            ("/dev/input/by-id/usb-Maker_Scanner-event-kbd", true),
            ("/dev/input/by-path/pci-0000:00:14.0-usb-0:2:1.0-event-kbd", true),
            ("/dev/baygate-scanner", true),
            ("/dev/input/event3", false),
            ("/dev/input/by-id/../event3", false),
            ("/dev/input/by-id/..", false),
            ("/dev/input/by-id", false),
            ("input/by-id/usb", false),
            ("/dev/console", false),
            ("/", false),
        ] {
            assert_eq!(names_one_device(Path::new(path)), expected, "{path}");
        }
    }
}
