//! The result cache, over HTTP beside MCP: what nodes keep, and what operators
//! drop of it. Like tokens it is no operation of the contract: a program that
//! runs tasks says `cache` with a task, and has no use for this.

use super::answer::{invalid, respond};
use super::audit::{Act, Audit};
use super::auth::{Gate, Visitor};
use crate::ops::value::Object;
use crate::ops::{Failure, mismatch};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Extension, State};
use axum::response::Response;
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use taskmesh_core::cache::{CacheKey, CacheStats, NodeCache, Which};
use taskmesh_core::command::Scope;
use taskmesh_core::{Command, NodeId, Query, Reply, Request, TaskId, limits};

/// What nodes keep.
pub const PATH: &str = "/cache";
/// What is dropped.
pub const INVALIDATE: &str = "/cache/invalidate";
/// One name and its field.
const BODY_BYTES: usize = 4 * 1024;

/// Which results are dropped: exactly one field.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// The one of this key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The one that this task left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// Those of tasks of this type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_type: Option<String>,
    /// Those of tasks with this tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
}

impl Wanted {
    fn which(self) -> Result<Which, Failure> {
        let short = |field: &str, text: String| match (1..=limits::TEXT_BYTES).contains(&text.len()) {
            true => Ok(text.into()),
            false => Err(invalid(field, &format!("must have 1 to {} bytes", limits::TEXT_BYTES))),
        };
        match (self.key, self.task, self.task_type, self.tag) {
            (Some(key), None, None, None) => {
                Ok(Which::Key(key.parse::<CacheKey>().map_err(|e| invalid("key", &e.to_string()))?))
            }
            (None, Some(task), None, None) => {
                Ok(Which::Task(TaskId::new(&task).map_err(|e| invalid("task", &e.to_string()))?))
            }
            (None, None, Some(text), None) => Ok(Which::Type(short("task_type", text)?)),
            (None, None, None, Some(text)) => Ok(Which::Tag(short("tag", text)?)),
            _ => Err(invalid("body", "must have one of key, task, task_type and tag")),
        }
    }
}

#[derive(Clone)]
struct Keeper {
    gate: Gate,
    audit: Audit,
}

/// `GET /cache` and `POST /cache/invalidate`. Who calls is told by an
/// extension, [`Visitor`], of each request.
pub(super) fn routes(gate: Gate, audit: Audit) -> Router {
    Router::new()
        .route(PATH, get(stats))
        .route(INVALIDATE, post(invalidate))
        .layer(axum::extract::DefaultBodyLimit::max(BODY_BYTES))
        .with_state(Keeper { gate, audit })
}

async fn stats(State(keeper): State<Keeper>, Extension(visitor): Extension<Visitor>) -> Response {
    respond(keeper.stats(&visitor).await)
}

async fn invalidate(State(keeper): State<Keeper>, Extension(visitor): Extension<Visitor>, body: Bytes) -> Response {
    let done = keeper.invalidate(&visitor, &body).await;
    let code = done.as_ref().map_or_else(|failure| failure.code.meaning().name, |_| "ok");
    keeper.audit.record(&Act::of(&visitor, "cache_invalidate", code, []));
    respond(done)
}

impl Keeper {
    async fn stats(&self, visitor: &Visitor) -> Result<Object, Failure> {
        let handle = self.gate.enter(&visitor.caller, "cache_stats")?;
        let Reply::Cache(stats) = handle.ask(Request::Query(Query::Cache { scope: Scope::Mesh })).await? else {
            return Err(mismatch("cache_stats"));
        };
        Ok(described(&stats))
    }

    async fn invalidate(&self, visitor: &Visitor, body: &[u8]) -> Result<Object, Failure> {
        let handle = self.gate.enter(&visitor.caller, "cache_invalidate")?;
        let wanted: Wanted = serde_json::from_slice(body).map_err(|e| invalid("body", &e.to_string()))?;
        let command = Command::Invalidate { which: wanted.which()?, scope: Scope::Mesh };
        let Reply::Invalidated { entries, copies, silent } = handle.ask(Request::Command(command)).await? else {
            return Err(mismatch("cache_invalidate"));
        };
        let fields = json!({"entries": entries, "copies": copies, "silent_nodes": names(&silent)});
        let Value::Object(fields) = fields else { unreachable!("written as an object above") };
        Ok(fields)
    }
}

fn described(stats: &CacheStats) -> Object {
    let node = |(node, own): (&NodeId, &NodeCache)| {
        json!({
            "node_id": node.to_string(),
            "entries": own.entries,
            "bytes": own.bytes,
            "hits": own.hits,
            "misses": own.misses,
            "joined": own.joined,
            "under_way": own.flights,
            "gone": own.gone.iter().map(|(why, n)| (why.name().to_owned(), Value::from(*n))).collect::<Object>(),
        })
    };
    let nodes: Vec<Value> = stats.nodes.iter().map(node).collect();
    Object::from_iter([
        ("nodes".to_owned(), Value::Array(nodes)),
        ("silent_nodes".to_owned(), names(&stats.silent).into()),
    ])
}

fn names(nodes: &[NodeId]) -> Vec<String> {
    nodes.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_one_thing_says_what_is_dropped() {
        let read = |text: &str| serde_json::from_str::<Wanted>(text).ok().and_then(|wanted| wanted.which().ok());
        assert_eq!(read(r#"{"task_type":"echo"}"#), Some(Which::Type("echo".into())));
        assert_eq!(read(r#"{"tag":"a"}"#), Some(Which::Tag("a".into())));
        assert!(matches!(read(&format!(r#"{{"key":"{}"}}"#, "a7".repeat(32))), Some(Which::Key(_))));
        assert!(matches!(read(r#"{"task":"t"}"#), Some(Which::Task(_))));
        for bad in
            ["{}", r#"{"tag":"a","task":"t"}"#, r#"{"tag":""}"#, r#"{"key":"a7"}"#, r#"{"task":"a b"}"#, r#"{"all":1}"#]
        {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
