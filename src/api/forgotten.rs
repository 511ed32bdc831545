//! Nodes that are gone for ever, over HTTP beside MCP: which the mesh has
//! forgotten, and an operator's word that it is to forget one more. No operation
//! of the contract: a program that runs tasks has no such word to give.

use super::answer::{invalid, respond};
use super::audit::{Act, Audit};
use super::auth::{Gate, Visitor};
use crate::driver::wall_clock;
use crate::ops::value::{Object, peer, time};
use crate::ops::{Failure, mismatch};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Extension, State};
use axum::response::Response;
use axum::routing::get;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use taskmesh_core::command::Scope;
use taskmesh_core::forgotten::{Forgotten, Presence};
use taskmesh_core::{Command, Query, Reply, Request, limits};

/// Those that are forgotten; a `POST` adds one.
pub const PATH: &str = "/forgotten";
/// A name and a reason.
const BODY_BYTES: usize = 4 * 1024;

/// An operator's word.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// The peer id of the node.
    pub peer_id: String,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Even if it is there: it stops.
    #[serde(default)]
    pub force: bool,
}

#[derive(Clone)]
struct Keeper {
    gate: Gate,
    audit: Audit,
}

/// `GET /forgotten` and `POST /forgotten`. Who calls is told by an extension,
/// [`Visitor`], of each request.
pub(super) fn routes(gate: Gate, audit: Audit) -> Router {
    Router::new()
        .route(PATH, get(list).post(forget))
        .layer(axum::extract::DefaultBodyLimit::max(BODY_BYTES))
        .with_state(Keeper { gate, audit })
}

async fn list(State(keeper): State<Keeper>, Extension(visitor): Extension<Visitor>) -> Response {
    respond(keeper.list(&visitor).await)
}

async fn forget(State(keeper): State<Keeper>, Extension(visitor): Extension<Visitor>, body: Bytes) -> Response {
    let wanted = serde_json::from_slice::<Wanted>(&body).map_err(|e| invalid("body", &e.to_string()));
    let named = wanted.as_ref().map_or_else(|_| String::new(), |wanted| wanted.peer_id.clone());
    let done = keeper.forget(&visitor, wanted).await;
    let code = done.as_ref().map_or_else(|failure| failure.code.meaning().name, |_| "ok");
    keeper.audit.record(&Act::of(&visitor, "node_forget", code, [("peer_id", named.as_str())]));
    respond(done)
}

impl Keeper {
    async fn list(&self, visitor: &Visitor) -> Result<Object, Failure> {
        let handle = self.gate.enter(&visitor.caller, "forgotten_list")?;
        let Reply::Forgotten(words) = handle.ask(Request::Query(Query::Forgotten)).await? else {
            return Err(mismatch("forgotten_list"));
        };
        let all: Vec<Value> = words.iter().map(|word| Value::Object(shown(word))).collect();
        Ok(Object::from_iter([("forgotten".to_owned(), all.into())]))
    }

    async fn forget(&self, visitor: &Visitor, wanted: Result<Wanted, Failure>) -> Result<Object, Failure> {
        let handle = self.gate.enter(&visitor.caller, "node_forget")?;
        let wanted = wanted?;
        let reason = wanted.reason.filter(|reason| !reason.is_empty());
        if reason.as_ref().is_some_and(|reason| reason.len() > limits::TEXT_BYTES) {
            return Err(invalid("reason", &format!("must have at most {} bytes", limits::TEXT_BYTES)));
        }
        let word = Forgotten {
            node: peer(&wanted.peer_id)?,
            by: visitor.caller.subject().cloned().unwrap_or_else(|| "".into()),
            at: wall_clock(),
            reason: reason.map(Into::into),
        };
        let presence = if wanted.force { Presence::Overruled } else { Presence::Respected };
        let command = Command::ForgetNode { word, presence, scope: Scope::Mesh };
        let Reply::Forgot { word, shared, bereft, silent } = handle.ask(Request::Command(command)).await? else {
            return Err(mismatch("node_forget"));
        };
        let silent: Vec<String> = silent.iter().map(ToString::to_string).collect();
        let counts = json!({"records": shared, "without_majority": bereft, "silent_nodes": silent});
        let Value::Object(counts) = counts else { unreachable!("written as an object above") };
        Ok(shown(&word).into_iter().chain(counts).collect())
    }
}

fn shown(word: &Forgotten) -> Object {
    let fields = json!({
        "peer_id": word.node.to_string(),
        "forgotten_by": &*word.by,
        "forgotten_at": time(word.at),
        "reason": word.reason.as_deref(),
    });
    let Value::Object(fields) = fields else { unreachable!("written as an object above") };
    fields
}
