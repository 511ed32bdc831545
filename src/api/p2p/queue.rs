//! `task_queue.rpc`: the operations of ipfs_accelerate_py's task queue, mapped
//! on the mesh. The mesh's fences stay inside: a claim is a lease on a run of a
//! task, and whoever does not hold that lease can't end it.
//!
//! Clients of that queue come with a new peer id for each call and name a
//! claimed task by its id alone. So the id that a claim answers with is a
//! handle, `<task id>~<lease>`; it may be used wherever a task id may.

use super::methods::Caller;
use super::values;
use crate::api::audit::{Act, Audit};
use crate::api::auth::{Gate, Visitor};
use crate::api::{Meter, mcp};
use crate::driver::{Claim, Completion, Foreign, ForeignError, Handle, LeaseProof};
use crate::ops::Failure;
use crate::ops::value::{self, Object};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use taskmesh_core::command::{Detail, Scope, TaskFilter};
use taskmesh_core::task::Data;
use taskmesh_core::view::{Status, TaskView};
use taskmesh_core::{Command, Millis, Query, Refusal, Reply, Request, TaskId, limits};

/// The tool's name.
pub(super) const TOOL: &str = "task_queue.rpc";
/// How long a lease holds, if the claim does not say.
const LEASE_S: u64 = 300;
/// The longest that a claim may say.
const LEASE_MAX_S: u64 = 3_600;
/// How long a claim waits for work, if it does not say.
const CLAIM_WAIT_S: f64 = 1.0;
/// Priority 5 of 1 to 10 is the mesh's 1.0.
const NORMAL_PRIORITY: f64 = 5.0;
/// Hexadecimal digits of the lease in a handle.
const LEASE_DIGITS: usize = 32;

/// What needs the right to work for the mesh.
const LEASES: [&str; 13] = [
    "claim",
    "claim_next",
    "claim_many",
    "claim_batch",
    "complete",
    "task.complete",
    "complete_task",
    "release",
    "task.release",
    "release_task",
    "heartbeat",
    "peer.heartbeat",
    "peer",
];
/// What changes something, and its name in the audit log.
const CHANGES: [(&str, &str); 18] = [
    ("submit", "task_submit"),
    ("claim", "task_queue.claim"),
    ("claim_next", "task_queue.claim"),
    ("claim_many", "task_queue.claim"),
    ("claim_batch", "task_queue.claim"),
    ("complete", "task_queue.complete"),
    ("task.complete", "task_queue.complete"),
    ("complete_task", "task_queue.complete"),
    ("release", "task_queue.release"),
    ("task.release", "task_queue.release"),
    ("release_task", "task_queue.release"),
    ("cancel", "task_cancel"),
    ("task.cancel", "task_cancel"),
    ("cache.set", "cache.set"),
    ("cache_set", "cache.set"),
    ("cache.delete", "cache.delete"),
    ("cache_delete", "cache.delete"),
    ("cache_del", "cache.delete"),
];

/// What each op is for the metrics: no label may be a caller's choice.
fn metered_name(arguments: &Object) -> &'static str {
    match text(arguments, "op").unwrap_or_default() {
        "submit" => "task_queue.submit",
        "claim" | "claim_next" | "claim_many" | "claim_batch" => "task_queue.claim",
        "complete" | "task.complete" | "complete_task" => "task_queue.complete",
        "release" | "task.release" | "release_task" => "task_queue.release",
        "heartbeat" | "peer.heartbeat" | "peer" => "task_queue.heartbeat",
        "list" | "tasks.list" | "queue.list" => "task_queue.list",
        "get" => "task_queue.get",
        "wait" => "task_queue.wait",
        "cancel" | "task.cancel" => "task_queue.cancel",
        "status" | "capabilities" | "describe" => "task_queue.status",
        "cache" | "cache.get" | "cache_get" | "cache.has" | "cache_has" => "task_queue.cache_get",
        "cache.set" | "cache_set" => "task_queue.cache_set",
        "cache.delete" | "cache_delete" | "cache_del" => "task_queue.cache_delete",
        _ => "task_queue.other",
    }
}

/// The queue of this node, for its foreign clients.
pub(super) struct Queue {
    pub(super) gate: Gate,
    pub(super) audit: Audit,
    pub(super) foreign: Foreign,
    pub(super) meter: Meter,
    pub(super) me: Arc<str>,
}

/// A call that is under way: told to the meter when it is over, also when its
/// caller has gone.
struct Metered<'a> {
    meter: &'a Meter,
    name: &'static str,
    began: Instant,
    code: &'static str,
}

impl Drop for Metered<'_> {
    fn drop(&mut self) {
        (self.meter)(self.name, self.code, self.began.elapsed());
    }
}

/// The lease is not, or no more, that of whoever says something of it.
pub(super) const NOT_HOLDER: &str = "not_lease_holder";
/// What the code of a call is until there is another.
const GONE: &str = "abandoned";

/// Why an operation was not done: a fixed word, and a sentence.
pub(super) struct No {
    word: &'static str,
    detail: String,
    retry_after: Option<Millis>,
}

pub(super) type Answer = Result<Object, No>;

impl Queue {
    /// Does one operation. The answer says `ok`, and whose it is.
    pub(super) async fn perform(&self, caller: &Caller, visitor: &Visitor, arguments: Object) -> Object {
        let mut call =
            Metered { meter: &self.meter, name: metered_name(&arguments), began: Instant::now(), code: GONE };
        let done = self.dispatch(caller, visitor, &arguments).await;
        call.code = done.as_ref().map_or_else(|no| no.word, |_| "ok");
        drop(call);
        self.note(visitor, &arguments, &done);
        let mut answer = done.unwrap_or_else(|no| {
            let mut answer = object(json!({"ok": false, "error": no.word, "detail": no.detail}));
            if let Some(after) = no.retry_after {
                answer.insert("retry_after_ms".into(), after.0.into());
            }
            answer
        });
        answer.entry("ok").or_insert(true.into());
        answer.insert("peer_id".into(), (&*self.me).into());
        answer
    }

    /// Writes down what would change something, whatever came of it.
    fn note(&self, visitor: &Visitor, arguments: &Object, done: &Answer) {
        let op = text(arguments, "op").unwrap_or_default();
        let Some((_, operation)) = CHANGES.iter().find(|(name, _)| *name == op) else { return };
        let made = done.as_ref().ok().and_then(|answer| text(answer, "task_id"));
        // A handle holds the lease, which is a secret.
        let task = made.or_else(|| text(arguments, "task_id")).map(|named| split(named).0.chars().take(256).collect());
        let task: Option<String> = task;
        let ids = task.as_deref().map(|task| ("task_id", task));
        let code = done.as_ref().map_or_else(|no| no.word, |_| "ok");
        self.audit.record(&Act::of(visitor, operation, code, ids));
    }

    async fn dispatch(&self, caller: &Caller, visitor: &Visitor, arguments: &Object) -> Answer {
        let op = text(arguments, "op").unwrap_or_default();
        let enter = |operation| self.gate.enter(&visitor.caller, operation);
        if LEASES.contains(&op) {
            let named = arguments.get("supported_task_types").or_else(|| arguments.get("task_types"));
            self.gate.enter_as_worker(&visitor.caller, names(named).as_deref())?;
        }
        match op {
            "submit" => submit(&enter("task_submit")?, arguments).await,
            "claim" | "claim_next" => self.claim(caller, arguments, 1).await,
            "claim_many" | "claim_batch" => self.claim_many(caller, arguments).await,
            "complete" | "task.complete" | "complete_task" => self.complete(caller, arguments).await,
            "release" | "task.release" | "release_task" => self.release(caller, arguments).await,
            "heartbeat" | "peer.heartbeat" | "peer" => self.heartbeat(caller, arguments),
            "list" | "tasks.list" | "queue.list" => self.list(&enter("task_list")?, arguments).await,
            "get" => self.get(&enter("task_result")?, arguments, Millis(0)).await,
            "wait" => self.wait(&enter("task_result")?, arguments).await,
            "cancel" | "task.cancel" => cancel(&enter("task_cancel")?, arguments).await,
            "status" | "capabilities" | "describe" => status(&enter("queue_stats")?, arguments).await,
            "cache" | "cache.get" | "cache_get" => values::get(&enter("value_find")?, arguments).await,
            "cache.has" | "cache_has" => values::has(&enter("value_find")?, arguments).await,
            "cache.set" | "cache_set" => values::set(&enter("value_keep")?, arguments).await,
            "cache.delete" | "cache_delete" | "cache_del" => values::delete(&enter("value_keep")?, arguments).await,
            "tool" | "call_tool" | "tool.call" => {
                Err(No::new("unsupported", "call the tool itself with tools/call; tools/list has those there are"))
            }
            _ => Err(No::new("unknown_op", format!("there is no op {:?}", op.chars().take(40).collect::<String>()))),
        }
    }

    async fn claim_many(&self, caller: &Caller, arguments: &Object) -> Answer {
        let most = arguments.get("max_tasks").or_else(|| arguments.get("limit"));
        let most = most.map_or(Ok(1), |n| n.as_u64().ok_or_else(|| No::invalid("max_tasks: must be an integer")))?;
        self.claim(caller, arguments, usize::try_from(most).unwrap_or(usize::MAX)).await.map(|mut answer| {
            if let Some(task) = answer.remove("task") {
                // One was asked for.
                let tasks = if task.is_null() { vec![] } else { vec![task] };
                answer.insert("tasks".into(), tasks.into());
            }
            answer
        })
    }

    async fn claim(&self, caller: &Caller, arguments: &Object, most: usize) -> Answer {
        let Some(worker) = text(arguments, "worker_id") else {
            return Err(No::new("missing_worker_id", "say worker_id: your own name for your worker"));
        };
        let named = arguments.get("supported_task_types").or_else(|| arguments.get("task_types"));
        let types = names(named).ok_or_else(|| No::invalid("supported_task_types: must be a list of names"))?;
        let span = whole(arguments, "lease_s", LEASE_S, 1, LEASE_MAX_S)?;
        let wait = match arguments.get("timeout_s") {
            None | Some(Value::Null) => CLAIM_WAIT_S,
            Some(wait) => seconds("timeout_s", wait)?,
        };
        let claim = Claim {
            worker: worker.to_owned(),
            types,
            most,
            peer: caller.peer.clone(),
            span: Duration::from_secs(span),
            wait: Duration::from_secs_f64(wait),
        };
        let claimed = self.foreign.claim(claim).await?;
        let tasks: Vec<_> = claimed
            .into_iter()
            .map(|claimed| {
                let spec = &claimed.spec;
                let metadata: Value =
                    spec.metadata.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
                json!({
                    "task_id": format!("{}~{}", claimed.task, claimed.secret),
                    "mesh_task_id": claimed.task.as_str(),
                    "lease": &*claimed.secret,
                    "lease_s": claimed.span.as_secs(),
                    "attempt": claimed.fence.attempt,
                    "task_type": &*spec.task_type,
                    "model_name": metadata.get("model_name").and_then(Value::as_str).unwrap_or_default(),
                    "payload": serde_json::from_slice::<Value>(&spec.payload).unwrap_or_default(),
                    "created_at": unix_seconds(spec.submitted_at.0),
                    "status": "running",
                    "assigned_worker": worker,
                })
            })
            .collect();
        if most == 1 {
            let task = tasks.into_iter().next().unwrap_or_default();
            return Ok(object(json!({"task": task})));
        }
        Ok(object(json!({"tasks": tasks})))
    }

    async fn complete(&self, caller: &Caller, arguments: &Object) -> Answer {
        let lease = Lease::of(arguments)?;
        let error = match arguments.get("error") {
            None | Some(Value::Null) => None,
            Some(Value::String(error)) => Some(error.clone()),
            Some(other) => Some(other.to_string()),
        };
        let completion = match text(arguments, "status").unwrap_or("completed") {
            "completed" => Completion::Completed(self.result(arguments)?),
            "failed" | "cancelled" => {
                Completion::Failed(error.unwrap_or_else(|| "its worker says that it failed, and no more".to_owned()))
            }
            other => {
                let other: String = other.chars().take(40).collect();
                return Err(No::invalid(format!("status: must be completed, failed or cancelled, and is {other:?}")));
            }
        };
        let task = self.foreign.finish(&lease.proof(caller), completion).await?;
        Ok(object(json!({"task_id": task.task.as_str(), "status": status_name(task.status)})))
    }

    fn result(&self, arguments: &Object) -> Result<Vec<u8>, No> {
        let result = match arguments.get("result") {
            None | Some(Value::Null) => Value::Null,
            Some(Value::Object(result)) => Value::Object(result.clone()),
            Some(other) => json!({"result": other}),
        };
        serde_json::to_vec(&result).map_err(|e| No::invalid(format!("result: {e}")))
    }

    async fn release(&self, caller: &Caller, arguments: &Object) -> Answer {
        let lease = Lease::of(arguments)?;
        let task = self.foreign.finish(&lease.proof(caller), Completion::Released).await?;
        Ok(object(json!({"task_id": task.task.as_str(), "status": status_name(task.status)})))
    }

    fn heartbeat(&self, caller: &Caller, arguments: &Object) -> Answer {
        if arguments.contains_key("task_id") {
            let lease = Lease::of(arguments)?;
            let span = self.foreign.extend(&lease.proof(caller)).map_err(ForeignError::from)?;
            return Ok(object(json!({"peer": &*caller.peer, "leases": 1, "lease_s": span.as_secs()})));
        }
        let leases = self.foreign.extend_all(text(arguments, "worker_id"), &caller.peer)?;
        Ok(object(json!({"peer": &*caller.peer, "leases": leases})))
    }

    async fn list(&self, node: &Handle, arguments: &Object) -> Answer {
        let statuses = match text(arguments, "status") {
            None => Vec::new(),
            Some("queued") => vec![Status::Queued, Status::Blocked, Status::Delayed],
            Some("running") => vec![Status::Leased, Status::Running],
            Some("completed") => vec![Status::Completed],
            Some("failed") => vec![Status::Failed, Status::Expired],
            Some("cancelled") => vec![Status::Cancelled],
            Some(_) => return Err(No::invalid("status: must be queued, running, completed, failed or cancelled")),
        };
        let limit = whole(arguments, "limit", 50, 1, limits::PAGE as u64)?;
        let types = match arguments.get("task_types") {
            None | Some(Value::Null) => vec![None],
            named => {
                let types = names(named).ok_or_else(|| No::invalid("task_types: must be a list of names"))?;
                types.into_iter().take(32).map(Some).collect()
            }
        };
        let limit = u32::try_from(limit).unwrap_or(1);
        let mut tasks = Vec::new();
        for task_type in types {
            let filter = TaskFilter {
                statuses: statuses.clone(),
                task_type,
                limit,
                scope: Scope::Mesh,
                ..TaskFilter::default()
            };
            match node.ask(Request::Query(Query::Tasks(Box::new(filter)))).await? {
                Reply::Tasks(page) => tasks.extend(page.tasks),
                other => unreachable!("tasks were asked for: {other:?}"),
            }
        }
        tasks.sort_by(|a, b| (a.submitted_at, &a.task).cmp(&(b.submitted_at, &b.task)));
        tasks.truncate(limit as usize);
        let tasks: Vec<_> = tasks.iter().map(|task| self.shown(task)).collect();
        Ok(object(json!({"tasks": tasks})))
    }

    async fn get(&self, node: &Handle, arguments: &Object, wait: Millis) -> Answer {
        let task = Lease::of(arguments)?.task;
        let detail = Detail { report: true, live: true, ..Detail::default() };
        match node.ask(Request::Query(Query::Task { task, detail, wait })).await {
            Ok(Reply::Task(view)) => {
                let queue_view = self.with_result(node, *view).await;
                Ok(object(json!({"task": queue_view})))
            }
            Ok(other) => unreachable!("a task was asked for: {other:?}"),
            Err(Refusal::NotFound { .. }) => Ok(object(json!({"task": null}))),
            Err(refusal) => Err(refusal.into()),
        }
    }

    async fn wait(&self, node: &Handle, arguments: &Object) -> Answer {
        let wait = arguments.get("timeout_s").filter(|wait| !wait.is_null());
        let wait = wait.map_or(Ok(60.0), |wait| seconds("timeout_s", wait))?;
        let wait = Duration::from_secs_f64(wait).as_millis().min(u128::from(limits::WAIT_MS));
        self.get(node, arguments, Millis(u64::try_from(wait).unwrap_or(limits::WAIT_MS))).await
    }

    fn shown(&self, task: &TaskView) -> Value {
        let at = |at: Option<taskmesh_core::Unix>| at.map(|at| unix_seconds(at.0));
        let touched = task.ended_at.or(task.started_at).unwrap_or(task.submitted_at);
        json!({
            "task_id": task.task.as_str(),
            "task_type": &*task.task_type,
            "status": status_name(task.status),
            "mesh_status": task.status.name(),
            "assigned_worker": task.executor.as_ref().map(|(_, worker)| Foreign::program_name(worker)),
            "created_at": at(Some(task.submitted_at)),
            "updated_at": at(Some(touched)),
            "priority": (task.priority.value() * NORMAL_PRIORITY).round().clamp(1.0, 10.0),
            "attempt": task.attempt,
            "progress": task.progress,
            "error": task.error.as_deref(),
            "result": null,
        })
    }

    /// With what it left, if it left something; a file is read where that may
    /// block.
    async fn with_result(&self, node: &Handle, task: TaskView) -> Value {
        let mut shown = self.shown(&task);
        let Some(report) = task.report else { return shown };
        let text = match report.result {
            Data::Inline(text) => Some(text.to_vec()),
            Data::Blob { hash, bytes } if bytes <= RESULT_BYTES => {
                let handle = node.clone();
                let len = usize::try_from(bytes).unwrap_or(0);
                tokio::task::spawn_blocking(move || handle.blob(hash, 0, len)).await.unwrap_or_default()
            }
            Data::Blob { .. } => None,
        };
        match text.and_then(|text| serde_json::from_slice::<Value>(&text).ok()) {
            Some(result) => shown["result"] = result,
            None => shown["truncated"] = true.into(),
        }
        shown
    }
}

async fn submit(node: &Handle, arguments: &Object) -> Answer {
    let payload = match arguments.get("payload") {
        Some(Value::Object(payload)) => payload.clone(),
        other => object(json!({"payload": other.cloned().unwrap_or_default()})),
    };
    let key = payload.get("idempotency_key").or_else(|| arguments.get("idempotency_key")).cloned();
    let urgency = payload.get("priority").or_else(|| arguments.get("priority"));
    let urgency = urgency.and_then(Value::as_f64).map_or(NORMAL_PRIORITY, |p| p.clamp(1.0, 10.0));
    let model = text(arguments, "model_name").unwrap_or_default();
    let call = json!({
        "task_type": text(arguments, "task_type").unwrap_or("text-generation"),
        "payload": payload,
        "priority": urgency / NORMAL_PRIORITY,
        "idempotency_key": key,
        "metadata": {"model_name": model},
        // A failed completion is final in that queue.
        "retry_policy": {"max_retries": 0},
    });
    let answer = mcp::ask(node, "task_submit", object(call)).await?;
    Ok(object(json!({"task_id": answer.get("task_id")})))
}

async fn cancel(node: &Handle, arguments: &Object) -> Answer {
    let task = Lease::of(arguments)?.task;
    let reason = text(arguments, "reason").map(|reason| {
        let end = reason.floor_char_boundary(limits::REASON_BYTES);
        reason[..end].into()
    });
    match node.ask(Request::Command(Command::Cancel { task, reason, force: false })).await {
        Ok(_) => Ok(object(json!({"cancelled": true}))),
        // Over already: nothing was cancelled.
        Err(Refusal::State { .. } | Refusal::NotFound { .. }) => Ok(object(json!({"cancelled": false}))),
        Err(refusal) => Err(refusal.into()),
    }
}

async fn status(node: &Handle, arguments: &Object) -> Answer {
    let mut answer = object(json!({
        "capabilities": {"server": "taskmesh", "version": env!("CARGO_PKG_VERSION"), "cache": true},
        "session": "",
    }));
    if arguments.get("detail") == Some(&Value::Bool(true)) {
        let stats = mcp::ask(node, "queue_stats", Object::new()).await?;
        answer.insert("queue".into(), Value::Object(stats));
    }
    Ok(answer)
}

/// A result above this does not go into a frame: `task_result` has all of it.
const RESULT_BYTES: u64 = 1024 * 1024;

/// A task that a request names, and the lease that it shows.
struct Lease {
    task: TaskId,
    secret: Option<String>,
}

impl Lease {
    fn of(arguments: &Object) -> Result<Lease, No> {
        let Some(named) = text(arguments, "task_id") else {
            return Err(No::new("missing_task_id", "say task_id"));
        };
        let (id, in_handle) = split(named);
        let shown = text(arguments, "lease").map(str::to_owned);
        let task = value::task("task_id", id)?;
        Ok(Lease { task, secret: shown.or(in_handle.map(str::to_owned)) })
    }

    fn proof<'a>(&'a self, caller: &'a Caller) -> LeaseProof<'a> {
        LeaseProof { task: &self.task, secret: self.secret.as_deref(), peer: &caller.peer }
    }
}

/// A handle is a task id, `~` and a lease.
fn split(named: &str) -> (&str, Option<&str>) {
    match named.rsplit_once('~') {
        Some((id, lease))
            if lease.len() == LEASE_DIGITS
                && lease.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) =>
        {
            (id, Some(lease))
        }
        _ => (named, None),
    }
}

/// The states of that queue.
fn status_name(status: Status) -> &'static str {
    match status {
        Status::Queued | Status::Blocked | Status::Delayed => "queued",
        Status::Leased | Status::Running => "running",
        Status::Completed => "completed",
        Status::Failed | Status::Expired => "failed",
        Status::Cancelled => "cancelled",
    }
}

/// The tool's definition.
pub(super) fn definition() -> Value {
    json!({
        "name": TOOL,
        "title": "Task queue of ipfs_accelerate_py",
        "description": "The mesh as a queue for workers outside of it: op is one of submit, claim, claim_many, complete, \
            release, heartbeat, list, get, wait, cancel, status, cache.get, cache.has, cache.set, cache.delete. A \
            claim is a lease; only its holder can end the run.",
        "inputSchema": {"type": "object", "properties": {
            "op": {"type": "string"}, "task_id": {"type": "string"}, "worker_id": {"type": "string"},
            "task_type": {"type": "string"}, "model_name": {"type": "string"}, "payload": {"type": "object"},
            "supported_task_types": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 32},
            "max_tasks": {"type": "integer", "minimum": 1, "maximum": 64},
            "lease": {"type": "string"},
            "lease_s": {"type": "integer", "minimum": 1, "maximum": LEASE_MAX_S, "default": LEASE_S},
            "status": {"type": "string"}, "result": {}, "error": {}, "reason": {"type": "string"},
            "limit": {"type": "integer", "minimum": 1, "maximum": 1000}, "timeout_s": {"type": "number", "minimum": 0},
            "detail": {"type": "boolean"}, "key": {"type": "string"}, "value": {},
            "ttl_s": {"type": "number", "exclusiveMinimum": 0},
        }, "required": ["op"]},
        "annotations": {"destructiveHint": false},
    })
}

pub(super) fn text<'a>(arguments: &'a Object, name: &str) -> Option<&'a str> {
    arguments.get(name).and_then(Value::as_str).map(str::trim).filter(|text| !text.is_empty())
}

fn names(value: Option<&Value>) -> Option<Vec<Arc<str>>> {
    match value? {
        Value::String(list) => Some(list.split(',').map(str::trim).filter(|n| !n.is_empty()).map(Arc::from).collect()),
        Value::Array(list) => list.iter().map(|name| name.as_str().map(|name| Arc::from(name.trim()))).collect(),
        _ => None,
    }
}

fn whole(arguments: &Object, name: &str, default: u64, low: u64, high: u64) -> Result<u64, No> {
    let value = match arguments.get(name) {
        None | Some(Value::Null) => return Ok(default),
        Some(value) => value.as_u64(),
    };
    value.filter(|n| (low..=high).contains(n)).ok_or_else(|| No::invalid(format!("{name}: must be {low} to {high}")))
}

pub(super) fn seconds(name: &str, value: &Value) -> Result<f64, No> {
    let right = value.as_f64().filter(|s| s.is_finite() && (0.0..=86_400.0).contains(s));
    right.ok_or_else(|| No::invalid(format!("{name}: must be 0 to 86400 seconds")))
}

fn unix_seconds(ms: u64) -> f64 {
    ms as f64 / 1_000.0
}

pub(super) fn object(value: Value) -> Object {
    match value {
        Value::Object(object) => object,
        _ => Object::new(),
    }
}

impl No {
    pub(super) fn new(word: &'static str, detail: impl Into<String>) -> No {
        No { word, detail: detail.into(), retry_after: None }
    }

    pub(super) fn invalid(detail: impl Into<String>) -> No {
        No::new("invalid_params", detail)
    }
}

impl From<Failure> for No {
    fn from(failure: Failure) -> No {
        No { word: failure.code.meaning().name, detail: failure.error, retry_after: failure.retry_after }
    }
}

impl From<Refusal> for No {
    fn from(refusal: Refusal) -> No {
        Failure::from(refusal).into()
    }
}

impl From<ForeignError> for No {
    fn from(error: ForeignError) -> No {
        match error {
            ForeignError::Refused(refusal) => refusal.into(),
            ForeignError::Denied(denied) => No::new(NOT_HOLDER, denied.to_string()),
        }
    }
}
