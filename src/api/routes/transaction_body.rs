//! How the body of a transaction is described in the OpenAPI document: either for a quote, or a
//! kind with its fields. Both are cut out of the one type that is read, so that the document names
//! no field that the gateway does not know.

use utoipa::openapi::schema::{OneOfBuilder, Schema};
use utoipa::openapi::{Ref, RefOr};
use utoipa::{PartialSchema, ToSchema};

use super::purse::WantedDeal;

/// What stands beside a `quote_id`.
const WITH_A_QUOTE: [&str; 5] = ["quote_id", "reader", "tenders", "wait_s", "pin"];

/// A description, never a value.
pub(super) struct TransactionBody;

impl PartialSchema for TransactionBody {
    fn schema() -> RefOr<Schema> {
        let of_quote =
            cut("For a quote: what it said is done.", "quote_id", |field| WITH_A_QUOTE.contains(&field));
        let of_kind =
            cut("A kind with its fields (docs/pos.md says which).", "kind", |field| field != "quote_id");
        OneOfBuilder::new().item(of_quote).item(of_kind).into()
    }
}

impl ToSchema for TransactionBody {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        WantedDeal::schemas(schemas);
    }
}

/// The fields that belong together, one of them required.
fn cut(description: &str, required: &str, belongs: impl Fn(&str) -> bool) -> RefOr<Schema> {
    let whole = WantedDeal::schema();
    let RefOr::T(Schema::Object(mut object)) = whole else { return whole };
    object.description = Some(description.to_owned());
    object.properties.retain(|field, _| belongs(field));
    object.required = vec![required.to_owned()];
    if required == "kind" {
        // It may be left out of a quote alone.
        object.properties.insert("kind".into(), Ref::from_schema_name("TransactionKind").into());
    }
    RefOr::T(Schema::Object(object))
}
