//! Files → [`Config`]: find them, read them, merge them, check what spans tables.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use toml::Spanned;

use super::tables::{
    ApiFile, ApiTable, BufferFile, ClassFile, File, GatewayFile, MqttFile, MqttTable, PrinterKind,
    PrinterTable, ReaderKind, ReaderTable, TillTable, Tls, VehicleTable,
};
use super::values::{Locale, TimeOfDay, Transport};
use super::{Buffer, ClassBuffer, Config, ConfigError, Gateway};
use crate::event::{Class, Source};
use crate::ident::DeviceId;

/// A value and where it came from.
#[derive(Debug, Clone)]
struct Placed<T> {
    value: T,
    file: usize,
    offset: usize,
}

/// Everything read so far, and what is wrong with it.
#[derive(Default)]
struct Merge {
    texts: Vec<(PathBuf, String)>,
    gateway: GatewayFile,
    gateway_file: usize,
    mqtt: Option<MqttFile>,
    mqtt_file: usize,
    buffer: BufferFile,
    api: ApiFile,
    api_file: usize,
    readers: Vec<Placed<ReaderTable>>,
    printers: Vec<Placed<PrinterTable>>,
    tills: Vec<Placed<TillTable>>,
    vehicles: Vec<Placed<VehicleTable>>,
    twice: Vec<Placed<DeviceId>>,
    errors: Vec<ConfigError>,
}

/// The `gateway.locale` of a file or folder, also when something else in it is wrong:
/// the complaint should be readable.
#[must_use]
pub fn locale(path: &Path) -> Option<Locale> {
    let mut files = vec![path.to_owned()];
    if path.is_dir() {
        files = std::fs::read_dir(path).ok()?.flatten().map(|entry| entry.path()).collect();
        files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
        files.sort();
    }
    let stated = |file: &PathBuf| -> Option<Locale> {
        let table: toml::Table = toml::from_str(&std::fs::read_to_string(file).ok()?).ok()?;
        table.get("gateway")?.get("locale")?.as_str()?.parse().ok()
    };
    files.iter().find_map(stated)
}

/// Reads a file, or a folder's `*.toml` in name order, then `data_dir/config.d/*.toml`.
///
/// # Errors
/// Every error found, each with its place and a hint.
pub fn load(path: &Path) -> Result<Config, Vec<ConfigError>> {
    let mut merge = Merge::default();
    let metadata = std::fs::metadata(path).map_err(|error| {
        vec![ConfigError::whole(
            path,
            format!("cannot be read: {error}"),
            Some(
                "name a file or a folder with --config; `baygate devices` prints lines to start from".into(),
            ),
        )]
    })?;
    if metadata.is_dir() {
        merge.read_folder(path);
        if merge.texts.is_empty() && merge.errors.is_empty() {
            merge.errors.push(ConfigError::whole(
                path,
                "holds no *.toml",
                Some("add one, for example baygate.toml".into()),
            ));
        }
    } else {
        merge.read_file(path);
    }
    let pushed = merge.gateway.data_dir.clone().unwrap_or_else(default_data_dir).join("config.d");
    if pushed.is_dir() {
        merge.read_folder(&pushed);
    }
    merge.finish()
}

/// Reads one text as if it were a file named `name`.
///
/// # Errors
/// Every error found.
pub fn parse(name: &Path, text: &str) -> Result<Config, Vec<ConfigError>> {
    let mut merge = Merge::default();
    merge.read_text(name.to_owned(), text.to_owned());
    merge.finish()
}

/// Reads a TOML text; an error points at its place and suggests the nearest known key.
/// The data files of other rooms (protocols, rules) are read by it, too.
///
/// # Errors
/// The first thing wrong.
pub fn read_toml<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, ConfigError> {
    toml::Deserializer::parse(text).and_then(T::deserialize).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        let (what, hint) = explain(error.message());
        ConfigError::at(path, text, offset, what, hint)
    })
}

fn default_data_dir() -> PathBuf {
    "/var/lib/baygate".into()
}

fn over<T>(base: &mut Option<T>, later: Option<T>) {
    if later.is_some() {
        *base = later;
    }
}

/// A table of a later file replaces the earlier one with its id; within one file that is an error.
fn merge_tables<T>(
    into: &mut Vec<Placed<T>>,
    from: Vec<Spanned<T>>,
    file: usize,
    id: fn(&T) -> &DeviceId,
    twice: &mut Vec<Placed<DeviceId>>,
) {
    for table in from {
        let offset = table.span().start;
        let placed = Placed { value: table.into_inner(), file, offset };
        match into.iter_mut().find(|seen| id(&seen.value) == id(&placed.value)) {
            Some(seen) if seen.file == file => {
                twice.push(Placed { value: id(&placed.value).clone(), file, offset })
            }
            Some(seen) => *seen = placed,
            None => into.push(placed),
        }
    }
}

impl Merge {
    fn read_folder(&mut self, folder: &Path) {
        let entries = match std::fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) => {
                self.errors.push(ConfigError::whole(folder, format!("cannot be read: {error}"), None));
                return;
            }
        };
        let mut files: Vec<PathBuf> = entries
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
            .collect();
        files.sort();
        for file in files {
            self.read_file(&file);
        }
    }

    fn read_file(&mut self, path: &Path) {
        match std::fs::read_to_string(path) {
            Ok(text) => self.read_text(path.to_owned(), text),
            Err(error) => {
                self.errors.push(ConfigError::whole(path, format!("cannot be read: {error}"), None))
            }
        }
    }

    fn read_text(&mut self, path: PathBuf, text: String) {
        let file = self.texts.len();
        match read_toml(&path, &text) {
            Ok(parsed) => self.take(parsed, file),
            Err(error) => self.errors.push(error),
        }
        self.texts.push((path, text));
    }

    fn take(&mut self, parsed: File, file: usize) {
        let GatewayFile {
            store,
            id,
            data_dir,
            locale,
            timezone,
            business_day_start,
            firmware_protocols,
            share_dir,
            credentials_dir,
        } = parsed.gateway;
        if self.texts.is_empty() || store.is_some() {
            self.gateway_file = file;
        }
        over(&mut self.gateway.store, store);
        over(&mut self.gateway.id, id);
        over(&mut self.gateway.data_dir, data_dir);
        over(&mut self.gateway.locale, locale);
        over(&mut self.gateway.timezone, timezone);
        over(&mut self.gateway.business_day_start, business_day_start);
        over(&mut self.gateway.firmware_protocols, firmware_protocols);
        over(&mut self.gateway.share_dir, share_dir);
        over(&mut self.gateway.credentials_dir, credentials_dir);
        if let Some(later) = parsed.mqtt {
            let mqtt = self.mqtt.get_or_insert_default();
            self.mqtt_file = file;
            over(&mut mqtt.url, later.url);
            over(&mut mqtt.version, later.version);
            over(&mut mqtt.root, later.root);
            over(&mut mqtt.client_id, later.client_id);
            over(&mut mqtt.username, later.username);
            over(&mut mqtt.ca_file, later.ca_file);
            over(&mut mqtt.client_cert_file, later.client_cert_file);
            over(&mut mqtt.confirm, later.confirm);
            over(&mut mqtt.confirm_timeout, later.confirm_timeout);
            over(&mut mqtt.max_in_flight, later.max_in_flight);
            over(&mut mqtt.max_in_flight_bytes, later.max_in_flight_bytes);
            over(&mut mqtt.max_packet_bytes, later.max_packet_bytes);
            over(&mut mqtt.replay_per_s, later.replay_per_s);
        }
        over(&mut self.buffer.max_bytes, parsed.buffer.max_bytes);
        for (class, later) in parsed.buffer.classes {
            let limits = self.buffer.classes.entry(class).or_default();
            over(&mut limits.keep, later.keep);
            over(&mut limits.keep_delivered, later.keep_delivered);
        }
        if parsed.api.listen.is_some() {
            self.api_file = file;
        }
        over(&mut self.api.listen, parsed.api.listen);
        over(&mut self.api.control_socket, parsed.api.control_socket);
        over(&mut self.api.tls, parsed.api.tls);
        over(&mut self.api.tls_cert_file, parsed.api.tls_cert_file);
        over(&mut self.api.allowed_origins, parsed.api.allowed_origins);
        over(&mut self.api.allowed_hosts, parsed.api.allowed_hosts);
        let Self { readers, printers, tills, vehicles, twice, .. } = self;
        merge_tables(readers, parsed.reader, file, |t| &t.id, twice);
        merge_tables(printers, parsed.printer, file, |t| &t.id, twice);
        merge_tables(tills, parsed.till, file, |t| &t.id, twice);
        merge_tables(vehicles, parsed.vehicle, file, |t| &t.id, twice);
    }

    fn error(&mut self, file: usize, offset: Option<usize>, what: impl Into<String>, hint: &str) {
        let hint = (!hint.is_empty()).then(|| hint.to_owned());
        let error = match (self.texts.get(file), offset) {
            (Some((path, text)), Some(offset)) => ConfigError::at(path, text, offset, what, hint),
            (Some((path, _)), None) => ConfigError::whole(path, what, hint),
            (None, _) => ConfigError::whole("configuration", what, hint),
        };
        self.errors.push(error);
    }

    fn finish(mut self) -> Result<Config, Vec<ConfigError>> {
        self.check_tables();
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
                readers: self.readers.into_iter().map(|placed| placed.value).collect(),
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
        Buffer { max_bytes: self.buffer.max_bytes.map_or(4 << 30, |bytes| bytes.0), classes }
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
            let (missing, extra, hint) = match table.kind {
                ReaderKind::Pcsc => (
                    table.name.is_none(),
                    table.listen.is_some(),
                    "a pcsc reader has `name = \"ACS ACR122U*\"` and no `listen`",
                ),
                ReaderKind::Vpcd => (
                    table.listen.is_none(),
                    table.name.is_some(),
                    "a vpcd reader has `listen = \"127.0.0.1:35963\"` and no `name`",
                ),
            };
            if missing || extra {
                self.error(
                    reader.file,
                    Some(reader.offset),
                    format!("reader {:?} is not complete", table.id.as_str()),
                    hint,
                );
            }
        }
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

/// The known word nearest to a mistyped one.
fn closest<'k>(typed: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    known
        .map(|word| (strsim::jaro_winkler(typed, word), word))
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, word)| word)
}

/// The TOML reader's message, and a suggestion when it is about an unknown key or value.
fn explain(message: &str) -> (String, Option<String>) {
    let message = message.trim_end().replace('\n', "; ");
    let mut quoted = message.split('`').skip(1).step_by(2);
    let unknown = message.starts_with("unknown field") || message.starts_with("unknown variant");
    let hint = if unknown {
        let typed = quoted.next().unwrap_or("");
        let known: Vec<&str> = quoted.collect();
        match closest(typed, known.iter().copied()) {
            Some(near) => Some(format!("did you mean `{near}`?")),
            None => Some(format!("known here: {}", known.join(", "))),
        }
    } else {
        None
    };
    let short =
        if unknown { message.split(", expected").next().unwrap_or(&message).to_owned() } else { message };
    (short, hint)
}
