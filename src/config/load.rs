//! Files → [`Merge`]: find them, read them, merge them key by key.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::Spanned;

use super::purse::PurseTable;
use super::pushed::Pushed;
use super::suggest::explain;
use super::tables::{
    ApiFile, BufferFile, File, GatewayFile, MqttFile, PrinterTable, ReaderTable, TillTable, VehicleTable,
};
use super::values::Locale;
use super::{Config, ConfigError};
use crate::ident::DeviceId;

/// A value and where it came from.
#[derive(Debug, Clone)]
pub(super) struct Placed<T> {
    pub(super) value: T,
    pub(super) file: usize,
    pub(super) offset: usize,
}

/// Everything read so far, and what is wrong with it.
#[derive(Default)]
pub(super) struct Merge {
    pub(super) texts: Vec<(PathBuf, String)>,
    pub(super) gateway: GatewayFile,
    pub(super) gateway_file: usize,
    pub(super) mqtt: Option<MqttFile>,
    pub(super) mqtt_file: usize,
    pub(super) buffer: BufferFile,
    pub(super) api: ApiFile,
    pub(super) api_file: usize,
    pub(super) purse: Option<Placed<PurseTable>>,
    pub(super) readers: Vec<Placed<ReaderTable>>,
    pub(super) printers: Vec<Placed<PrinterTable>>,
    pub(super) tills: Vec<Placed<TillTable>>,
    pub(super) vehicles: Vec<Placed<VehicleTable>>,
    pub(super) twice: Vec<Placed<DeviceId>>,
    pub(super) errors: Vec<ConfigError>,
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
    load_with(path, None)
}

/// As [`load`], with other rules of headquarters than those that are kept: what would become of them.
///
/// # Errors
/// Every error found.
pub fn load_with(path: &Path, pushed: Option<&Pushed>) -> Result<Config, Vec<ConfigError>> {
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
        merge.read_folder(path, None);
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
    let data_dir = merge.gateway.data_dir.clone().unwrap_or_else(default_data_dir);
    let folder = data_dir.join("config.d");
    let instead = pushed.map(|pushed| (Pushed::path(&data_dir), pushed.file_text()));
    if folder.is_dir() || instead.is_some() {
        merge.read_folder(&folder, instead);
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

pub(super) fn default_data_dir() -> PathBuf {
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
    /// Every `*.toml` in name order, one of them with this text instead of its own.
    fn read_folder(&mut self, folder: &Path, instead: Option<(PathBuf, String)>) {
        let entries = match std::fs::read_dir(folder) {
            Ok(entries) => Some(entries),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && instead.is_some() => None,
            Err(error) => {
                self.errors.push(ConfigError::whole(folder, format!("cannot be read: {error}"), None));
                return;
            }
        };
        let mut files: Vec<PathBuf> = entries
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
            .collect();
        files.extend(instead.as_ref().map(|(path, _)| path.clone()));
        files.sort();
        files.dedup();
        for file in files {
            match &instead {
                Some((path, text)) if *path == file => self.read_text(file, text.clone()),
                _ => self.read_file(&file),
            }
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
            time_sync_file,
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
        over(&mut self.gateway.time_sync_file, time_sync_file);
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
        let (history, later) = (&mut self.buffer.history, parsed.buffer.history);
        over(&mut history.visits, later.visits);
        over(&mut history.warnings, later.warnings);
        over(&mut history.print_jobs, later.print_jobs);
        over(&mut history.requests, later.requests);
        over(&mut history.commands, later.commands);
        if parsed.api.listen.is_some() {
            self.api_file = file;
        }
        over(&mut self.api.listen, parsed.api.listen);
        over(&mut self.api.control_socket, parsed.api.control_socket);
        over(&mut self.api.tls, parsed.api.tls);
        over(&mut self.api.tls_cert_file, parsed.api.tls_cert_file);
        over(&mut self.api.allowed_origins, parsed.api.allowed_origins);
        over(&mut self.api.allowed_hosts, parsed.api.allowed_hosts);
        if let Some(purse) = parsed.purse {
            let offset = purse.span().start;
            self.purse = Some(Placed { value: purse.into_inner(), file, offset });
        }
        let Self { readers, printers, tills, vehicles, twice, .. } = self;
        merge_tables(readers, parsed.reader, file, |t| &t.id, twice);
        merge_tables(printers, parsed.printer, file, |t| &t.id, twice);
        merge_tables(tills, parsed.till, file, |t| &t.id, twice);
        merge_tables(vehicles, parsed.vehicle, file, |t| &t.id, twice);
    }

    pub(super) fn error(&mut self, file: usize, offset: Option<usize>, what: impl Into<String>, hint: &str) {
        let hint = (!hint.is_empty()).then(|| hint.to_owned());
        let error = match (self.texts.get(file), offset) {
            (Some((path, text)), Some(offset)) => ConfigError::at(path, text, offset, what, hint),
            (Some((path, _)), None) => ConfigError::whole(path, what, hint),
            (None, _) => ConfigError::whole("configuration", what, hint),
        };
        self.errors.push(error);
    }
}
