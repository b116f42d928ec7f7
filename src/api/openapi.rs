//! The OpenAPI 3.1 document, generated from the handlers; what each route asks
//! of its caller comes from the access table.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use utoipa::openapi::{ComponentsBuilder, InfoBuilder, OpenApi, OpenApiBuilder};

use super::access::{Access, Scope, TABLE};
use super::routes;

/// The document's head.
pub(super) fn head() -> OpenApi {
    let info = InfoBuilder::new().title("Baygate local HTTP").version(env!("CARGO_PKG_VERSION")).description(
        Some("For tills and scripts in the store. Errors are application/problem+json with a stable `code`."),
    );
    OpenApiBuilder::new().info(info).components(Some(ComponentsBuilder::new().build())).build()
}

/// The whole document, JSON.
#[must_use]
pub fn openapi() -> String {
    let described = routes::described().into_openapi();
    let mut document = serde_json::to_value(described).unwrap_or_default();
    if let Some(components) = document.get_mut("components").and_then(Value::as_object_mut) {
        components.insert("securitySchemes".into(), security_schemes());
        if let Some(schemas) = components.entry("schemas").or_insert_with(|| json!({})).as_object_mut() {
            schemas.insert("Problem".into(), problem_schema());
        }
    }
    for rule in TABLE {
        let method = rule.method.as_str().to_ascii_lowercase();
        let operation = document
            .get_mut("paths")
            .and_then(|paths| paths.get_mut(rule.path))
            .and_then(|path| path.get_mut(&method))
            .and_then(Value::as_object_mut);
        if let Some(operation) = operation {
            operation.insert("security".into(), security(rule.access));
            describe_refusals(operation, rule.access);
        }
    }
    serde_json::to_string_pretty(&document).unwrap_or_default()
}

fn security(access: Access) -> Value {
    let token = |scopes: &[Scope]| -> Vec<Value> {
        scopes.iter().map(|scope| json!({ "token": [scope.as_str()] })).collect()
    };
    Value::Array(match access {
        Access::Open => Vec::new(),
        Access::OpenHere(scope) => [vec![json!({})], token(&[scope])].concat(),
        Access::OneOf(scopes) => token(scopes),
        Access::OrTicket(scope) => [token(&[scope]), vec![json!({ "ticket": [] })]].concat(),
    })
}

fn describe_refusals(operation: &mut Map<String, Value>, access: Access) {
    let content =
        json!({ "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } });
    let mut refusals = BTreeMap::from([("default", "Refused; `code` says why, `detail` what to do")]);
    if access != Access::Open {
        refusals.insert("401", "No valid token");
        refusals.insert("403", "The token lacks the scope, or host or origin are not allowed");
    }
    let responses = operation.entry("responses").or_insert_with(|| json!({}));
    if let Some(responses) = responses.as_object_mut() {
        for (status, description) in refusals {
            responses.insert(status.into(), json!({ "description": description, "content": content }));
        }
    }
}

fn security_schemes() -> Value {
    json!({
        "token": {
            "type": "http",
            "scheme": "bearer",
            "description": "From `baygate token create` or pairing. The listed scope is needed. The control socket needs none.",
        },
        "ticket": { "type": "apiKey", "in": "query", "name": "ticket" },
    })
}

fn problem_schema() -> Value {
    json!({
        "type": "object",
        "description": "RFC 9457; further members depend on the code",
        "required": ["type", "title", "status", "code", "detail", "text"],
        "properties": {
            "type": { "type": "string" },
            "title": { "type": "string" },
            "status": { "type": "integer" },
            "code": { "type": "string", "description": "Stable" },
            "detail": { "type": "string", "description": "What to do, in the language asked for" },
            "text": {
                "type": "object",
                "properties": { "zh": { "type": "string" }, "en": { "type": "string" } },
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Every described route stands in the access table, and nothing else does.
    #[test]
    fn table_and_document_agree() {
        let document: Value = serde_json::from_str(&openapi()).unwrap();
        assert_eq!(document["openapi"], "3.1.0");
        let mut described = Vec::new();
        let mut names = BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                described.push(format!("{} {path}", method.to_ascii_uppercase()));
                assert!(operation["security"].is_array(), "{method} {path}");
                let name = operation["operationId"].to_string();
                assert!(
                    names.insert(name.clone()),
                    "operationId {name} stands twice; generators refuse that"
                );
            }
        }
        let mut listed: Vec<String> =
            TABLE.iter().map(|rule| format!("{} {}", rule.method, rule.path)).collect();
        described.sort();
        listed.sort();
        assert_eq!(described, listed);
    }
}
