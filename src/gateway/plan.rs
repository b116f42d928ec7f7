//! What should run, as data: one entry a service, made from the configuration.
//! A reload is the difference of two plans.

use std::collections::BTreeMap;

use crate::config::Config;
use crate::config::tables::{
    ApiTable, MqttTable, PrintOn, PrinterTable, ReaderTable, TillTable, VehicleTable,
};
use crate::config::values::Locale;
use crate::ident::DeviceId;
use crate::printer::PrintingTill;

/// One service and all that it is made from: a service restarts only if this changed.
#[derive(Debug, Clone, PartialEq)]
pub enum Service {
    /// A card reader, with the till it is the home of.
    Reader(ReaderTable, Option<DeviceId>),
    /// A card printer.
    Printer(PrinterTable),
    /// A vehicle link.
    Link(VehicleTable),
    /// The uplink.
    Uplink(MqttTable),
    /// Local HTTP and control socket, and the language of their texts.
    Api(ApiTable, Locale),
    /// The maintenance rules.
    Maintenance,
    /// Faces after transactions, at the tills that print by themselves.
    TillFaces(Vec<PrintingTill>),
}

/// Services by name, e.g. `reader/counter-1`.
pub type Plan = BTreeMap<String, Service>;

/// The plan of a configuration.
#[must_use]
pub fn plan(config: &Config) -> Plan {
    let mut plan = Plan::new();
    for table in &config.readers {
        let till = config.till_of_reader(&table.id).map(|till| till.id.clone());
        plan.insert(format!("reader/{}", table.id), Service::Reader(table.clone(), till));
    }
    for table in &config.printers {
        plan.insert(format!("printer/{}", table.id), Service::Printer(table.clone()));
    }
    for table in &config.vehicles {
        plan.insert(format!("link/{}", table.id), Service::Link(table.clone()));
    }
    if let Some(mqtt) = &config.mqtt {
        plan.insert("uplink".into(), Service::Uplink(mqtt.clone()));
    }
    plan.insert("api".into(), Service::Api(config.api.clone(), config.gateway.locale));
    plan.insert("maintenance".into(), Service::Maintenance);
    // Also where none does: its position in the log is given up then.
    plan.insert("till-faces".into(), Service::TillFaces(printing_tills(config)));
    plan
}

/// The tills that print after their transactions.
#[must_use]
pub fn printing_tills(config: &Config) -> Vec<PrintingTill> {
    let of = |till: &TillTable| {
        let printer = config.printers.iter().find(|table| Some(&table.id) == till.printer.as_ref())?;
        till.print_on.contains(&PrintOn::Transaction).then(|| PrintingTill {
            till: till.id.clone(),
            printer: printer.id.clone(),
            template: printer.template.clone(),
        })
    };
    config.tills.iter().filter_map(of).collect()
}

/// What a reload has to do.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Difference {
    /// Names to stop: gone or changed.
    pub stop: Vec<String>,
    /// Names to start: new or changed.
    pub start: Vec<String>,
}

/// From one plan to the next.
#[must_use]
pub fn difference(old: &Plan, new: &Plan) -> Difference {
    Difference {
        stop: old
            .iter()
            .filter(|(name, service)| new.get(*name) != Some(service))
            .map(|(name, _)| name.clone())
            .collect(),
        start: new
            .iter()
            .filter(|(name, service)| old.get(*name) != Some(service))
            .map(|(name, _)| name.clone())
            .collect(),
    }
}

/// Keys that cannot change while the daemon runs, with what changed; empty when none did.
#[must_use]
pub fn frozen_changes(old: &Config, new: &Config) -> Vec<&'static str> {
    let mut changed = Vec::new();
    if old.gateway.source.store != new.gateway.source.store {
        changed.push("gateway.store");
    }
    if old.gateway.source.gateway != new.gateway.source.gateway {
        changed.push("gateway.id");
    }
    if old.gateway.data_dir != new.gateway.data_dir {
        changed.push("gateway.data_dir");
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn config(more: &str) -> Config {
        crate::config::parse(Path::new("t.toml"), &format!("[gateway]\nstore = \"S\"\nid = \"g\"\n{more}"))
            .unwrap()
    }

    #[test]
    fn only_what_changed_restarts() {
        let reader = "[[reader]]\nid = \"r\"\nkind = \"pcsc\"\nname = \"A*\"\n";
        let bay = |port: u16| format!("[[vehicle]]\nid = \"b\"\nlink = \"elm327+tcp://h:{port}\"\n");
        let old = plan(&config(&format!("{reader}{}", bay(1))));
        let cases = [
            (format!("{reader}{}", bay(1)), vec![], vec![]),
            (format!("{reader}{}", bay(2)), vec!["link/b"], vec!["link/b"]),
            (reader.to_owned(), vec!["link/b"], vec![]),
            (format!("{reader}{}[mqtt]\nurl = \"mqtt://h\"\n", bay(1)), vec![], vec!["uplink"]),
            (
                format!("{reader}{}[[till]]\nid = \"t\"\nreader = \"r\"\n", bay(1)),
                vec!["reader/r"],
                vec!["reader/r"],
            ),
        ];
        for (text, stop, start) in cases {
            let found = difference(&old, &plan(&config(&text)));
            assert_eq!(
                (found.stop, found.start),
                (
                    stop.iter().map(ToString::to_string).collect(),
                    start.iter().map(ToString::to_string).collect()
                ),
                "{text}"
            );
        }
    }

    #[test]
    fn identity_is_frozen() {
        let mut other = config("");
        other.gateway.data_dir = "/elsewhere".into();
        assert_eq!(frozen_changes(&config(""), &other), ["gateway.data_dir"]);
    }
}
