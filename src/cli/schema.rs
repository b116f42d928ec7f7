//! `baygate schema`: documents generated from the code.

use clap::ValueEnum;
use serde_json::{Value, json};

use super::{Exit, Global};
use crate::config::tables::File;
use crate::event::schema::event_types;

/// Print JSON Schema, OpenAPI and AsyncAPI documents / 输出接口与事件的模式文档
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example / 示例:\n  baygate schema openapi > openapi.json\n  baygate schema events | jq '.[\"card.tapped\"]'"
)]
pub struct Args {
    /// Which document
    #[arg(value_enum)]
    what: What,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum What {
    /// JSON Schema of every event's data / 事件数据
    Events,
    /// JSON Schema of the configuration / 配置
    Config,
    /// OpenAPI 3.1 of the local HTTP / 本地 HTTP
    Openapi,
    /// AsyncAPI 3.0 of the MQTT topics / MQTT 主题
    Asyncapi,
}

pub async fn run(args: Args, _: &Global) -> anyhow::Result<Exit> {
    let document = match args.what {
        What::Events => events()?,
        What::Config => serde_json::to_value(schemars::schema_for!(File))?,
        What::Openapi => serde_json::from_str(&crate::api::openapi())?,
        What::Asyncapi => asyncapi()?,
    };
    println!("{}", serde_json::to_string_pretty(&document)?);
    Ok(Exit::Done)
}

/// One schema a type, by type.
fn events() -> anyhow::Result<Value> {
    let mut all = serde_json::Map::new();
    for kind in event_types() {
        let mut schema = serde_json::to_value(&kind.schema)?;
        if let Some(schema) = schema.as_object_mut() {
            schema.insert("$id".into(), format!("baygate:{}:1", kind.kind).into());
            schema.insert("x-class".into(), kind.class.as_str().into());
        }
        all.insert(kind.kind.to_owned(), schema);
    }
    Ok(Value::Object(all))
}

/// Topics of contract §4: one channel an event type, and the fixed ones.
fn asyncapi() -> anyhow::Result<Value> {
    let parameters = json!({"store": {"description": "store id"}, "gateway": {"description": "gateway id"}});
    let mut channels = serde_json::Map::new();
    let mut operations = serde_json::Map::new();
    let mut add = |name: String, address: String, action: &str, payload: Value| {
        channels.insert(
            name.clone(),
            json!({
                "address": address,
                "parameters": parameters,
                "messages": {"message": {"contentType": "application/json", "payload": payload}}
            }),
        );
        let reference = format!("#/channels/{}", name.replace('~', "~0").replace('/', "~1"));
        operations.insert(name, json!({"action": action, "channel": {"$ref": reference}}));
    };
    for kind in event_types() {
        let envelope = json!({
            "type": "object",
            "required": ["specversion", "id", "source", "type", "time", "subject", "epoch", "sequence", "classsequence", "class", "boot", "timequality", "data"],
            "properties": {
                "type": {"const": format!("baygate.{}", kind.kind)},
                "class": {"const": kind.class.as_str()},
                "sequence": {"type": "string", "pattern": "^[0-9]{20}$"},
                "classsequence": {"type": "string", "pattern": "^[0-9]{20}$"},
                "data": serde_json::to_value(&kind.schema)?
            }
        });
        let address = format!("baygate/v1/{{store}}/{{gateway}}/event/{}/{}", kind.class, kind.kind);
        add(kind.kind.to_owned(), address, "send", envelope);
    }
    let fixed = [
        ("state", "state", "send", "retained; the will publishes online:false"),
        ("ack", "ack", "receive", "highest class sequences headquarters has on disk"),
        ("command", "command/{name}", "receive", "each id at most once"),
    ];
    for (name, tail, action, description) in fixed {
        add(
            name.to_owned(),
            format!("baygate/v1/{{store}}/{{gateway}}/{tail}"),
            action,
            json!({"type": "object", "description": description}),
        );
    }
    Ok(json!({
        "asyncapi": "3.0.0",
        "info": {"title": "Baygate uplink", "version": env!("CARGO_PKG_VERSION")},
        "defaultContentType": "application/cloudevents+json",
        "channels": channels,
        "operations": operations
    }))
}
