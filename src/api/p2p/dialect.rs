//! Which of the dialects a stream speaks: its first message tells, and nothing
//! else does.

use super::reply::Fault;
use crate::api::client::PROTOCOL as MODERN;
use crate::ops::value::Object;
use serde_json::{Value, json};

/// A way to speak MCP over one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// One `P2PMessage`, one response, and the stream is over.
    Envelope,
    /// JSON-RPC after `initialize`, for as long as the stream lasts.
    Legacy,
    /// JSON-RPC in which each request says the revision of MCP.
    Sessionless,
}

/// Where a request of the current revision says which one that is.
pub(super) const VERSION_KEY: &str = "io.modelcontextprotocol/protocolVersion";

/// The dialect of a stream that begins with this message.
///
/// # Errors
/// It is of none of them: what to answer before the stream is closed.
pub(super) fn sniff(first: &Object) -> Result<Dialect, Fault> {
    if !first.contains_key("jsonrpc") {
        return match first.get("type") {
            Some(Value::String(_)) => Ok(Dialect::Envelope),
            _ => Err(Fault::new(-32600, "invalid_jsonrpc")
                .because("a message has `jsonrpc`: \"2.0\", or a `type` if it is a P2PMessage; this one has neither")),
        };
    }
    if first["jsonrpc"] != "2.0" {
        return Err(Fault::new(-32600, "invalid_jsonrpc").because("`jsonrpc` must be \"2.0\""));
    }
    if first.get("method").is_some_and(|method| method == "initialize") {
        return Ok(Dialect::Legacy);
    }
    match version(first) {
        Some(version) if version == MODERN => Ok(Dialect::Sessionless),
        Some(version) => Err(unsupported(version)),
        None => Err(Fault::new(-32000, "init_required")
            .because(format!("begin with `initialize`, or say params._meta[{VERSION_KEY:?}]: {MODERN:?}"))),
    }
}

/// Whether a later message fits the stream.
///
/// # Errors
/// What to answer instead of doing it.
pub(super) fn fits(dialect: Dialect, message: &Object) -> Result<(), Fault> {
    if message.get("jsonrpc").is_none_or(|version| version != "2.0") {
        return Err(Fault::new(-32600, "invalid_jsonrpc").because("`jsonrpc` must be \"2.0\""));
    }
    let notification = !message.contains_key("id");
    match (dialect, version(message)) {
        (Dialect::Sessionless, None) if !notification => Err(Fault::new(-32602, "invalid_params")
            .because(format!("each request of this stream says params._meta[{VERSION_KEY:?}]: {MODERN:?}"))),
        (Dialect::Sessionless, Some(version)) if version != MODERN => Err(unsupported(version)),
        _ => Ok(()),
    }
}

fn version(message: &Object) -> Option<&str> {
    message.get("params")?.get("_meta")?.get(VERSION_KEY)?.as_str()
}

fn unsupported(version: &str) -> Fault {
    let requested: String = version.chars().take(40).collect();
    let data = json!({"supported": [MODERN], "requested": requested});
    Fault { data: Some(data), ..Fault::new(-32022, "unsupported protocol version") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sniffed(message: Value) -> Result<Dialect, i64> {
        sniff(message.as_object().expect("an object")).map_err(|fault| fault.code)
    }

    #[test]
    fn the_first_message_tells_the_dialect() {
        let modern = json!({"_meta": {VERSION_KEY: "2026-07-28"}});
        assert_eq!(sniffed(json!({"type": "request", "method": "x"})), Ok(Dialect::Envelope));
        assert_eq!(sniffed(json!({"jsonrpc": "2.0", "id": 1, "method": "initialize"})), Ok(Dialect::Legacy));
        let sessionless = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": modern});
        assert_eq!(sniffed(sessionless), Ok(Dialect::Sessionless));
        // `initialize` is no method of the current revision.
        let both = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": modern, "type": "request"});
        assert_eq!(sniffed(both), Ok(Dialect::Legacy));
    }

    #[test]
    fn what_is_of_no_dialect_is_told_why() {
        assert_eq!(sniffed(json!({})), Err(-32600));
        assert_eq!(sniffed(json!({"type": 1})), Err(-32600));
        assert_eq!(sniffed(json!({"jsonrpc": 2, "method": "initialize"})), Err(-32600));
        assert_eq!(sniffed(json!({"jsonrpc": null, "type": "request"})), Err(-32600));
        assert_eq!(sniffed(json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"})), Err(-32000));
        let old = json!({"_meta": {VERSION_KEY: "2025-11-25"}});
        assert_eq!(sniffed(json!({"jsonrpc": "2.0", "method": "tools/list", "params": old})), Err(-32022));
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[a-z0-9./-]{0,12}|2\\.0|2026-07-28|initialize|request".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            let key = "jsonrpc|type|method|params|_meta|id|io\\.modelcontextprotocol/protocolVersion";
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((key, inner), 0..5)
                    .prop_map(|entries| Value::Object(entries.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn every_message_has_one_dialect_or_a_reason(value in any_json()) {
            let Value::Object(message) = value else { return Ok(()) };
            match sniff(&message) {
                Ok(Dialect::Envelope) => prop_assert!(!message.contains_key("jsonrpc") && message["type"].is_string()),
                Ok(Dialect::Legacy) => prop_assert_eq!(&message["method"], "initialize"),
                Ok(Dialect::Sessionless) => prop_assert!(fits(Dialect::Sessionless, &message).is_ok()),
                Err(fault) => prop_assert!(fault.code < 0 && !fault.message.is_empty()),
            }
        }
    }
}
