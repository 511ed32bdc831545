//! Resources: what there is, and what each says. Their content is that of the
//! operations, so that both tell the same.

use super::access::defect;
use super::tool::{ask, written};
use super::uri::{self, Uri};
use crate::driver::Handle;
use crate::ops::value::{self, Cut, Object};
use crate::ops::worker::worker_state;
use crate::ops::{self, Code, Failure, resubmit};
use rmcp::model::{CacheScope, ListResourcesResult, ReadResourceResult, Resource, ResourceContents, ResourceTemplate};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use taskmesh_core::command::{Detail, PeerFilter};
use taskmesh_core::view::WorkerStatus;
use taskmesh_core::{BlobHash, Millis, Query, Reply, Request, TaskId, limits};

/// Tasks in one page of the list.
const PAGE: usize = 50;
/// Peers in one read; above that, `peer_list` has pages.
const PEERS: usize = limits::MEMBERS;
const JSON: &str = "application/json";

/// One page: the mesh itself comes first, then every task, oldest first.
pub(super) async fn list(handle: &Handle, cursor: Option<String>) -> Result<ListResourcesResult, Failure> {
    let mut resources = if cursor.is_none() { fixed() } else { Vec::new() };
    let mut asked = object(json!({"limit": PAGE}));
    asked.extend(cursor.map(|cursor| ("cursor".to_owned(), Value::String(cursor))));
    let page = ask(handle, "task_list", asked).await?;
    let tasks = page.get("tasks").and_then(Value::as_array).ok_or_else(defect)?;
    resources.extend(tasks.iter().filter_map(listed));
    let mut list = ListResourcesResult::with_all_items(resources);
    list.next_cursor = page.get("next_cursor").and_then(Value::as_str).map(str::to_owned);
    Ok(list.with_ttl_ms(0).with_cache_scope(CacheScope::Private))
}

fn fixed() -> Vec<Resource> {
    let resource = |uri: Uri, title, about| {
        let name = uri.to_string();
        let name = name.trim_start_matches("mesh://").to_owned();
        Resource::new(uri.to_string(), name).with_title(title).with_description(about).with_mime_type(JSON)
    };
    vec![
        resource(Uri::Queue, "Queue", "Counts and rates of the whole mesh, as queue_stats says them."),
        resource(Uri::Workers, "Workers", "Every worker that is known: where, what it may run, what it is doing."),
        resource(Uri::Peers, "Peers", "Every other node that is known, as peer_list says it."),
    ]
}

fn listed(task: &Value) -> Option<Resource> {
    let id = TaskId::new(task["task_id"].as_str()?).ok()?;
    let about = format!("{}, {}", task["task_type"].as_str()?, task["status"].as_str()?);
    let resource = Resource::new(Uri::Task(id.clone()).to_string(), id.to_string());
    Some(resource.with_description(about).with_mime_type(JSON))
}

/// Names with a part to fill in.
pub(super) fn templates() -> Vec<ResourceTemplate> {
    let about_blob = format!(
        "Large content by its output_cid, at most {} MiB at once. The node that is asked has it once the task was read there.",
        uri::BLOB_BYTES / (1024 * 1024)
    );
    vec![
        ResourceTemplate::new("mesh://tasks/{id}", "task")
            .with_title("Task")
            .with_description("What a task is doing, why it waits, and what it left. Can be subscribed to.")
            .with_mime_type(JSON),
        ResourceTemplate::new("mesh://submissions/{id}", "submission")
            .with_title("Submission")
            .with_description("The operation and the arguments that submit a task, workflow or schedule again.")
            .with_mime_type(JSON),
        ResourceTemplate::new("mesh://blobs/{hash}{?offset,length}", "blob")
            .with_title("Content")
            .with_description(about_blob),
    ]
}

/// What a resource says; `name` is what the client calls it.
pub(super) async fn read(handle: &Handle, uri: &Uri, name: &str) -> Result<ReadResourceResult, Failure> {
    let contents = match uri {
        Uri::Blob { hash, offset, length } => blob(handle, *hash, *offset, *length, name).await?,
        _ => ResourceContents::text(text(handle, uri).await?, name).with_mime_type(JSON),
    };
    // A blob is its hash's for ever; the rest is true for a moment.
    let ttl_ms = if matches!(uri, Uri::Blob { .. }) { super::FIXED_TTL_MS } else { 0 };
    Ok(ReadResourceResult::new(vec![contents]).with_ttl_ms(ttl_ms).with_cache_scope(CacheScope::Private))
}

/// What a resource that is no blob says, as JSON text.
pub(super) async fn text(handle: &Handle, uri: &Uri) -> Result<String, Failure> {
    let content = match uri {
        Uri::Task(id) => task(handle, id).await?,
        Uri::Queue => bare(ask(handle, "queue_stats", Object::new()).await?),
        Uri::Workers => {
            let mut stats = ask(handle, "queue_stats", object(json!({"include_worker_stats": true}))).await?;
            let answered = ["worker_stats", "nodes_answered", "nodes_expected"];
            let [workers, answered, expected] = answered.map(|name| stats.remove(name).unwrap_or_default());
            let workers = labelled(handle, workers).await?;
            object(json!({"workers": workers, "nodes_answered": answered, "nodes_expected": expected}))
        }
        Uri::Peers => peers(handle).await?,
        Uri::Submission(id) => submission(handle, id).await?,
        Uri::Blob { .. } => return Err(defect()),
    };
    serde_json::to_string(&content).map_err(|_| defect())
}

/// What a task is doing and, once it has ended, what it left: one question to
/// the mesh, written by the two operations that have these fields.
async fn task(handle: &Handle, id: &TaskId) -> Result<Object, Failure> {
    let status = json!({"task_id": id.as_str(), "include_metrics": true, "explain": true});
    let (status, result) = (("task_status", status), ("task_result", json!({"task_id": id.as_str()})));
    let [status, result] = [status, result].map(|(name, arguments)| {
        ops::operation(name).ok_or_else(defect).and_then(|operation| operation.prepare(object(arguments)))
    });
    let detail = Detail { report: true, live: true, explain: true, ..Detail::default() };
    let reply = handle.ask(Request::Query(Query::Task { task: id.clone(), detail, wait: Millis(0) })).await?;
    let mut content = bare(written(handle, status?, reply.clone()).await?);
    let left = bare(written(handle, result?, reply).await?);
    for (name, value) in left {
        if !content.contains_key(&name) && name != "poll_after_ms" {
            content.insert(name, value);
        }
    }
    Ok(content)
}

/// The workers that `queue_stats` wrote, and those of nodes that are silent, as
/// they were; each with its labels.
async fn labelled(handle: &Handle, workers: Value) -> Result<Value, Failure> {
    let Reply::Workers(views) = handle.ask(Request::Query(Query::Workers)).await? else { return Err(defect()) };
    let Value::Array(mut workers) = workers else { return Err(defect()) };
    let mut labels: BTreeMap<String, _> =
        views.iter().map(|view| (view.worker.to_string(), view.labels.clone())).collect();
    for view in views.into_iter().filter(|view| view.status == WorkerStatus::Offline) {
        let known = workers.iter().any(|w| w["worker_id"] == view.worker.as_str());
        if !known {
            workers.push(serde_json::to_value(worker_state(view)).map_err(|_| defect())?);
        }
    }
    for worker in &mut workers {
        worker["labels"] = json!(worker["worker_id"].as_str().and_then(|id| labels.remove(id)).unwrap_or_default());
    }
    Ok(workers.into())
}

/// The peers that `peer_list` wrote, each with the program that it says it is;
/// and the node that answers.
async fn peers(handle: &Handle) -> Result<Object, Failure> {
    let mut list = bare(ask(handle, "peer_list", object(json!({"limit": PEERS}))).await?);
    let filter = PeerFilter { limit: PEERS as u32, ..PeerFilter::default() };
    let Reply::Peers { peers, .. } = handle.ask(Request::Query(Query::Peers(Box::new(filter)))).await? else {
        return Err(defect());
    };
    let said: BTreeMap<String, _> = peers.iter().map(|p| (p.peer.to_string(), (&p.agent, &p.protocol))).collect();
    for peer in list.get_mut("peers").and_then(Value::as_array_mut).into_iter().flatten() {
        let (agent, protocol) = peer["peer_id"].as_str().and_then(|id| said.get(id)).copied().unzip();
        peer["peer_type"] = json!(agent.cloned().flatten());
        peer["protocol_version"] = json!(protocol.cloned().flatten());
    }
    let me =
        json!({"peer_id": handle.node().to_string(), "peer_type": concat!("taskmesh/", env!("CARGO_PKG_VERSION"))});
    list.insert("answered_by".to_owned(), me);
    Ok(list)
}

/// What would submit the same again: of a step, of its workflow's making, too.
async fn submission(handle: &Handle, id: &TaskId) -> Result<Object, Failure> {
    let detail = Detail { spec: true, ..Detail::default() };
    let query = Query::Task { task: id.clone(), detail, wait: Millis(0) };
    let Reply::Task(view) = handle.ask(Request::Query(query)).await? else { return Err(defect()) };
    let Some(spec) = view.spec.as_deref() else {
        let error = format!("the node that owns {id} is of an older version and does not tell what was submitted");
        return Err(Failure::new(Code::FailedPrecondition, error));
    };
    let again = resubmit::submission(id, spec, view.priority)?;
    Ok(object(json!({"task_id": id.as_str(), "operation": again.operation, "arguments": again.arguments})))
}

/// An answer without the envelope of a call.
fn bare(mut answer: Object) -> Object {
    answer.shift_remove("success");
    answer
}

async fn blob(
    handle: &Handle,
    hash: BlobHash,
    offset: u64,
    length: Option<u64>,
    name: &str,
) -> Result<ResourceContents, Failure> {
    let len = usize::try_from(length.unwrap_or(uri::BLOB_BYTES)).unwrap_or(usize::MAX);
    // One byte more shows whether there is more.
    let Some(mut bytes) = handle.find_blob(hash, offset, len.saturating_add(1)).await else {
        let next =
            "it was forgotten with its task, or its holders are away; small content is in mesh://tasks/{id} alone";
        return Err(Failure::new(Code::NotFound, format!("no node that answered has {}: {next}", value::cid(hash))));
    };
    if bytes.len() > len && length.is_none() {
        let next = format!("read it in parts, with ?offset=0&length={}", uri::BLOB_BYTES);
        return Err(Failure::new(Code::PayloadTooLarge, format!("more than {} bytes: {next}", uri::BLOB_BYTES)));
    }
    bytes.truncate(len);
    let shown = value::shown(bytes, Cut::No);
    Ok(match shown.encoding {
        "utf-8" => ResourceContents::text(shown.text, name).with_mime_type("text/plain"),
        _ => ResourceContents::blob(shown.text, name).with_mime_type("application/octet-stream"),
    })
}

pub(super) fn object(value: Value) -> Object {
    match value {
        Value::Object(object) => object,
        _ => Object::new(),
    }
}
