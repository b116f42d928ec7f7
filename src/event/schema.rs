//! The register of event types, and JSON Schemas generated from them
//! (`baygate schema events`). A type not listed here does not exist.

use schemars::{JsonSchema, SchemaGenerator};

use super::{Class, EventData, card, device, gateway, ledger, maintenance, vehicle};

/// One event type of the contract.
pub struct EventType {
    /// Type without `baygate.`.
    pub kind: &'static str,
    /// The class it travels in.
    pub class: Class,
    /// JSON Schema of its `data`.
    pub schema: schemars::Schema,
}

fn entry<D: EventData + JsonSchema>(kinds: &mut Vec<EventType>) {
    kinds.push(EventType {
        kind: D::TYPE,
        class: D::CLASS,
        schema: SchemaGenerator::default().into_root_schema_for::<D>(),
    });
}

/// Every event type this version can commit.
#[must_use]
pub fn event_types() -> Vec<EventType> {
    let mut kinds = Vec::new();
    entry::<ledger::CardTransaction>(&mut kinds);
    entry::<ledger::CardIssued>(&mut kinds);
    entry::<ledger::CardStatus>(&mut kinds);
    entry::<gateway::GatewayStarted>(&mut kinds);
    entry::<gateway::GatewayStopping>(&mut kinds);
    entry::<gateway::GatewayGap>(&mut kinds);
    entry::<gateway::GatewayClock>(&mut kinds);
    entry::<gateway::GatewayConfig>(&mut kinds);
    entry::<gateway::CommandResult>(&mut kinds);
    entry::<card::CardTapped>(&mut kinds);
    entry::<card::CardRemoved>(&mut kinds);
    entry::<card::CardRefused>(&mut kinds);
    entry::<vehicle::VehicleArrived>(&mut kinds);
    entry::<vehicle::VehicleReport>(&mut kinds);
    entry::<vehicle::VehicleDeparted>(&mut kinds);
    entry::<vehicle::VehicleCleared>(&mut kinds);
    entry::<maintenance::MaintenanceWarning>(&mut kinds);
    entry::<maintenance::MaintenanceCleared>(&mut kinds);
    entry::<device::DeviceState>(&mut kinds);
    entry::<device::PrinterJob>(&mut kinds);
    entry::<vehicle::VehicleSignals>(&mut kinds);
    kinds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_listed_once() {
        let kinds = event_types();
        let mut names: Vec<_> = kinds.iter().map(|k| k.kind).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), kinds.len());
        assert!(kinds.iter().all(|k| k.schema.as_object().is_some_and(|s| s.contains_key("properties"))));
    }
}
