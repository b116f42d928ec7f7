//! The AsyncAPI 3.0 document of the uplink (contract §4): one channel an event
//! type, made from the register of types, and the fixed topics. Every reference
//! points into `components`, so that the document stands alone.

use serde_json::{Map, Value, json};

use crate::event::CONTENT_TYPE;
use crate::event::schema::event_types;

/// The document.
///
/// # Errors
/// When a schema cannot be written as JSON.
pub(super) fn document() -> anyhow::Result<Value> {
    let mut document = Document::default();
    document.schemas.insert("Envelope".into(), envelope());
    for kind in event_types() {
        let mut data = serde_json::to_value(&kind.schema)?;
        document.hoist(&mut data);
        document.schemas.insert(kind.kind.to_owned(), data);
        let payload = json!({
            "allOf": [{"$ref": "#/components/schemas/Envelope"}],
            "properties": {
                "type": {"const": format!("baygate.{}", kind.kind)},
                "dataschema": {"const": format!("baygate:{}:1", kind.kind)},
                "class": {"const": kind.class.as_str()},
                "data": {"$ref": format!("#/components/schemas/{}", kind.kind)}
            }
        });
        let address = format!("{{store}}/{{gateway}}/event/{}/{}", kind.class, kind.kind);
        document.channel(kind.kind, &address, "send", CONTENT_TYPE, payload);
    }
    document.channel("state", "{store}/{gateway}/state", "send", "application/json", state());
    document.channel("ack", "{store}/{gateway}/ack", "receive", "application/json", ack());
    document.channel("command", "{store}/{gateway}/command/{name}", "receive", "application/json", command());
    document.channel(
        "command-to-all",
        "{store}/all/command/{name}",
        "receive",
        "application/json",
        command(),
    );
    let tail = "{store}/{gateway}/desired/hotlist";
    document.channel("desired-hotlist", tail, "receive", "application/json", desired_hotlist());
    Ok(document.finish())
}

#[derive(Default)]
struct Document {
    channels: Map<String, Value>,
    operations: Map<String, Value>,
    schemas: Map<String, Value>,
}

impl Document {
    fn channel(&mut self, name: &str, tail: &str, action: &str, content_type: &str, payload: Value) {
        let known =
            [("store", "`gateway.store`"), ("gateway", "`gateway.id`"), ("name", "the command, e.g. `ping`")];
        let parameters: Map<String, Value> = known
            .into_iter()
            .filter(|(parameter, _)| tail.contains(&format!("{{{parameter}}}")))
            .map(|(parameter, description)| (parameter.to_owned(), json!({ "description": description })))
            .collect();
        self.channels.insert(
            name.to_owned(),
            json!({
                "address": format!("baygate/v1/{tail}"),
                "parameters": parameters,
                "messages": {"message": {"name": name, "contentType": content_type, "payload": payload}},
                "bindings": {"mqtt": {}}
            }),
        );
        let channel = json!({ "$ref": format!("#/channels/{name}") });
        let retain = name == "state";
        self.operations.insert(
            name.to_owned(),
            json!({"action": action, "channel": channel, "bindings": {"mqtt": {"qos": 1, "retain": retain}}}),
        );
    }

    /// Moves a schema's own definitions to `components`; types of one name are one type.
    fn hoist(&mut self, schema: &mut Value) {
        let definitions = schema.as_object_mut().and_then(|members| {
            members.remove("$schema");
            members.remove("$defs")
        });
        point_at_components(schema);
        if let Some(Value::Object(definitions)) = definitions {
            for (name, mut definition) in definitions {
                point_at_components(&mut definition);
                self.schemas.insert(name, definition);
            }
        }
    }

    fn finish(self) -> Value {
        json!({
            "asyncapi": "3.0.0",
            "info": {"title": "Baygate uplink", "version": env!("CARGO_PKG_VERSION")},
            "defaultContentType": CONTENT_TYPE,
            "channels": self.channels,
            "operations": self.operations,
            "components": {"schemas": self.schemas}
        })
    }
}

fn point_at_components(value: &mut Value) {
    match value {
        Value::Object(members) => {
            if let Some(Value::String(target)) = members.get_mut("$ref") {
                *target = target.replacen("#/$defs/", "#/components/schemas/", 1);
            }
            members.values_mut().for_each(point_at_components);
        }
        Value::Array(items) => items.iter_mut().for_each(point_at_components),
        _ => {}
    }
}

/// Contract §3.
fn envelope() -> Value {
    let (text, uuid) = (json!({"type": "string"}), json!({"type": "string", "format": "uuid"}));
    let digits = json!({"type": "string", "pattern": "^[0-9]{20}$"});
    json!({
        "type": "object",
        "description": "CloudEvents 1.0, structured JSON, at most 64 KiB; (source, epoch, sequence) tells doubles",
        "required": ["specversion", "id", "source", "type", "time", "subject", "datacontenttype", "dataschema",
                     "epoch", "sequence", "classsequence", "class", "boot", "timequality", "data"],
        "properties": {
            "specversion": {"const": "1.0"},
            "id": uuid, "source": text, "type": text,
            "time": {"type": "string", "format": "date-time"},
            "subject": text,
            "datacontenttype": {"const": "application/json"},
            "dataschema": text,
            "epoch": uuid, "sequence": digits, "classsequence": digits, "class": text, "boot": uuid,
            "timequality": {"enum": ["synced", "unsynced"]},
            "data": {"type": "object"}
        }
    })
}

/// Class sequences by class.
fn positions() -> Value {
    json!({"type": "object", "additionalProperties": {"type": "integer", "minimum": 0}})
}

fn state() -> Value {
    let uuid = json!({"type": "string", "format": "uuid"});
    json!({
        "type": "object",
        "description": "Retained. Offline (also the will): `online` and `connection` only",
        "required": ["online", "connection"],
        "properties": {
            "online": {"type": "boolean"},
            "connection": uuid,
            "epoch": uuid,
            "since": {"type": "string", "format": "date-time"},
            "version": {"type": "string"},
            "last": positions(),
            "hotlist_version": {"type": ["string", "null"]},
            "hotlist_refused": {"type": "string"},
            "config_version": {"type": ["string", "null"]},
            "protocols_version": {"type": ["string", "null"]}
        }
    })
}

fn ack() -> Value {
    json!({
        "type": "object",
        "description": "The highest class sequences headquarters has on disk",
        "required": ["epoch", "classes"],
        "properties": {"epoch": {"type": "string", "format": "uuid"}, "classes": positions()}
    })
}

fn command() -> Value {
    json!({
        "type": "object",
        "description": "Each id acts at most once; the outcome is `command.result`",
        "required": ["id"],
        "properties": {
            "id": {"type": "string", "format": "uuid"},
            "expires_at": {"type": "string", "format": "date-time"},
            "args": {"type": "object"}
        }
    })
}

fn desired_hotlist() -> Value {
    json!({
        "type": "object",
        "description": "Retained. The list of stopped cards as a file; without `base` it is the whole list",
        "required": ["version", "as_of", "url", "sha256", "size"],
        "properties": {
            "version": {"type": "integer", "minimum": 0},
            "base": {"type": ["integer", "null"], "minimum": 0},
            "as_of": {"type": "string", "format": "date-time"},
            "url": {"type": "string", "format": "uri"},
            "sha256": {"type": "string", "pattern": "^[0-9A-Fa-f]{64}$"},
            "size": {"type": "integer", "minimum": 0, "maximum": 4_194_304},
            "signature": {"type": "string"}
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(members) => {
                if let Some(Value::String(target)) = members.get("$ref") {
                    found.push(target.clone());
                }
                members.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }

    #[test]
    fn every_reference_and_every_parameter_is_there() {
        let document = document().unwrap();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 60);
        for target in found {
            assert!(document.pointer(&target[1..]).is_some(), "{target} points at nothing");
        }
        for (name, channel) in document["channels"].as_object().unwrap() {
            let address = channel["address"].as_str().unwrap();
            let in_address = address.matches('{').count();
            assert_eq!(channel["parameters"].as_object().unwrap().len(), in_address, "{name}: {address}");
        }
        assert!(!document.to_string().contains("$defs"));
    }
}
