//! The identity of what this version offers: an MCP-IDL interface descriptor
//! made of the table of operations, and the content id of its canonical text.
//! The same version has the same id on every node, and after every restart.

use super::value::Object;
use super::{Code, Kind, Operation, canonical, offered};
use serde_json::{Value, json};
use std::sync::LazyLock;

/// An interface, and what names it.
#[derive(Debug)]
pub struct Interface {
    /// CIDv1 (raw, SHA2-256, base32) of `canonical`.
    pub cid: String,
    /// The descriptor as RFC 8785 writes it.
    pub canonical: String,
    /// The same, for reading.
    pub descriptor: Value,
}

/// The interface of this version.
#[must_use]
pub fn own() -> &'static Interface {
    static OWN: LazyLock<Interface> = LazyLock::new(|| {
        let canonical = canonical::text(&descriptor()).expect("every number of the table is exact");
        // Read back, so that both forms have the same order and the same numbers.
        let descriptor = serde_json::from_str(&canonical).expect("the canonical text is JSON");
        Interface { cid: canonical::cid(canonical.as_bytes()), canonical, descriptor }
    });
    &OWN
}

fn descriptor() -> Value {
    let methods: Vec<_> = offered().iter().map(method).collect();
    let errors: Vec<_> = Code::ALL.iter().map(|code| error(*code)).collect();
    json!({
        "name": "taskmesh",
        "namespace": "taskmesh.operations",
        "version": env!("CARGO_PKG_VERSION"),
        "methods": methods,
        "errors": errors,
        "requires": [],
        "compatibility": {"compatible_with": [], "supersedes": []},
        "semantic_tags": ["distributed", "queue", "scheduling", "tasks"],
        "interaction_patterns": {"request_response": true, "event_streams": false},
    })
}

fn method(operation: &Operation) -> Value {
    json!({
        "name": operation.name,
        "kind": kind(operation.kind),
        "input_schema": operation.input,
        "input_schema_cid": schema_cid(&operation.input),
        "output_schema": operation.output,
        "output_schema_cid": schema_cid(&operation.output),
    })
}

fn schema_cid(schema: &Object) -> String {
    let text = canonical::text(&Value::Object(schema.clone())).expect("every number of the table is exact");
    canonical::cid(text.as_bytes())
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Read => "read",
        Kind::Change => "change",
        Kind::Repeatable => "repeatable",
        Kind::Destructive => "destructive",
    }
}

fn error(code: Code) -> Value {
    let meaning = code.meaning();
    json!({"name": meaning.name, "retryable": meaning.retryable, "exit_status": meaning.exit, "http_status": meaning.http})
}

/// `docs/operations.json`: every operation with its schemas in full, every
/// error, and the interface's id.
#[must_use]
pub fn document() -> String {
    let operations: Vec<_> = offered()
        .iter()
        .map(|o| {
            json!({"name": o.name, "title": o.title, "description": o.description, "kind": kind(o.kind),
                "input_schema": o.input, "output_schema": o.output_in_full})
        })
        .collect();
    let errors: Vec<_> = Code::ALL.iter().map(|code| error(*code)).collect();
    let own = own();
    let document = json!({"interface_cid": own.cid, "version": env!("CARGO_PKG_VERSION"), "operations": operations,
        "errors": errors});
    let mut text = serde_json::to_string_pretty(&document).unwrap_or_default();
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.json");
        let page = document();
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(path, &page).expect("written");
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(written == page, "docs/operations.json is out of date: run BLESS=1 cargo test --lib ops::");
    }

    #[test]
    fn the_interface_is_named_by_its_canonical_text() {
        let own = own();
        assert_eq!(own.cid, canonical::cid(own.canonical.as_bytes()));
        assert_eq!(serde_json::from_str::<Value>(&own.canonical).expect("JSON"), own.descriptor);
        assert_eq!(canonical::text(&descriptor()).expect("exact"), own.canonical, "made again, it is the same");
        assert!(own.cid.starts_with("bafkrei") && own.cid.len() == 59);
    }
}
