//! What is said back: results and faults, in the words of each dialect.

use super::dialect::Dialect;
use crate::ops::value::Object;
use crate::ops::{Code, Failure};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::time::{SystemTime, UNIX_EPOCH};

/// A fault of the protocol: the request was not carried out.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Fault {
    /// Of JSON-RPC.
    pub(super) code: i64,
    /// A fixed word, which clients compare.
    pub(super) message: Cow<'static, str>,
    /// Facts for programs and people.
    pub(super) data: Option<Value>,
}

impl Fault {
    pub(super) fn new(code: i64, message: impl Into<Cow<'static, str>>) -> Fault {
        Fault { code, message: message.into(), data: None }
    }

    /// With a sentence that a person can act on.
    pub(super) fn because(self, detail: impl Into<String>) -> Fault {
        Fault { data: Some(json!({"detail": detail.into()})), ..self }
    }

    pub(super) fn invalid(detail: impl Into<String>) -> Fault {
        Fault::new(-32602, "invalid_params").because(detail)
    }

    pub(super) fn rate_limited(detail: impl Into<String>) -> Fault {
        let data = json!({"detail": detail.into(), "retry_after_ms": 1_000});
        Fault { data: Some(data), ..Fault::new(-32010, "rate_limited") }
    }

    /// Of the framing: the stream ends with it.
    pub(super) fn framing(word: String) -> Fault {
        Fault::new(-32003, word)
    }
}

/// What a request came to.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    /// The result of a method that is no tool.
    Plain(Object),
    /// The end of a tool call: a structured answer, or a refusal.
    Tool(Result<Object, Failure>, Object),
    /// The answer of `task_queue.rpc`, whose own `ok` tells.
    Queue(Object),
}

/// The message that answers a request.
pub(super) fn answer(dialect: Dialect, asked: &Asked, outcome: Result<Outcome, Fault>, me: &str) -> Value {
    match dialect {
        Dialect::Envelope => envelope(asked, outcome, me),
        Dialect::Legacy | Dialect::Sessionless => {
            let mut reply = Object::new();
            reply.insert("jsonrpc".into(), "2.0".into());
            reply.insert("id".into(), asked.id.clone());
            match outcome {
                Ok(outcome) => reply.insert("result".into(), result(dialect, outcome)),
                Err(fault) => reply.insert("error".into(), error(fault)),
            };
            Value::Object(reply)
        }
    }
}

/// Of a request, what its answer repeats.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    /// Its id, or null.
    pub(super) id: Value,
    /// Its method, for an envelope.
    pub(super) method: String,
}

fn result(dialect: Dialect, outcome: Outcome) -> Value {
    let mut result = match outcome {
        Outcome::Plain(object) => object,
        Outcome::Tool(Ok(object), _) => tool(object, false),
        Outcome::Tool(Err(failure), ids) => tool(refused(&failure, ids), true),
        Outcome::Queue(object) if dialect == Dialect::Legacy => {
            // Its clients take the object itself for the content.
            Object::from_iter([("content".to_owned(), Value::Object(object))])
        }
        Outcome::Queue(object) => {
            let failed = object.get("ok") == Some(&Value::Bool(false));
            tool(object, failed)
        }
    };
    if dialect == Dialect::Sessionless {
        result.entry("resultType").or_insert_with(|| "complete".into());
    }
    Value::Object(result)
}

fn tool(object: Object, failed: bool) -> Object {
    let object = Value::Object(object);
    let text = object.to_string();
    Object::from_iter([
        ("content".to_owned(), json!([{"type": "text", "text": text}])),
        ("structuredContent".to_owned(), object),
        ("isError".to_owned(), failed.into()),
    ])
}

fn refused(failure: &Failure, ids: Object) -> Object {
    let mut envelope = failure.envelope();
    envelope.extend(ids);
    envelope
}

fn error(fault: Fault) -> Value {
    let mut error = json!({"code": fault.code, "message": fault.message});
    if let Some(data) = fault.data {
        error["data"] = data;
    }
    error
}

fn envelope(asked: &Asked, outcome: Result<Outcome, Fault>, me: &str) -> Value {
    let (result, sentence, failure) = match outcome {
        Ok(Outcome::Plain(object) | Outcome::Tool(Ok(object), _) | Outcome::Queue(object)) => {
            (Value::Object(object), Value::Null, Value::Null)
        }
        Ok(Outcome::Tool(Err(failure), ids)) => {
            (Value::Null, failure.error.clone().into(), Value::Object(refused(&failure, ids)))
        }
        Err(fault) => (Value::Null, fault.message.clone().into(), error(fault)),
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    json!({"type": "response", "method": asked.method, "params": {}, "id": asked.id, "result": result,
        "error": sentence, "failure": failure, "sender": me, "timestamp": now})
}

/// A failure whose answer would not fit into a frame.
pub(super) fn too_large(limit: usize) -> Failure {
    let error = format!("the answer is larger than a frame, which has at most {limit} bytes: ask for a smaller page");
    Failure::new(Code::PayloadTooLarge, error)
}
