//! `baygate schema`: documents generated from the code.

use clap::ValueEnum;
use serde_json::Value;

use super::{Exit, Global, asyncapi};
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
        What::Asyncapi => asyncapi::document()?,
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
