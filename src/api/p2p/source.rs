//! Another program's task queue as a source of work: what this node has room
//! for is claimed there, run as tasks of the mesh, and completed there once the
//! mesh promises the end.
//!
//! A foreign task has one id in the mesh, made of the queue's peer id and its own:
//! claimed again, by this node or after its restart, it is the same task, and an
//! end that is known already is told at once. The queue's lease decides who may
//! complete it; as long as the mesh runs it, this node says so in time.

mod link;
#[cfg(test)]
mod tests;

use super::Duplex;
use super::line::LineError;
use super::queue::{NOT_HOLDER, object};
use crate::api::mcp;
use crate::driver::Handle;
use crate::ops::value::Object;
use crate::ops::{Code, Failure};
use futures::future::BoxFuture;
use link::Link;
use serde_json::{Value, json};
use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use taskmesh_core::command::Scope;
use taskmesh_core::{Query, Reply, Request, TaskId};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

/// Between two looks at what changes elsewhere: free slots, an empty queue.
const PAUSE: Duration = Duration::from_secs(1);
/// How long one claim waits for work, where the queue waits.
const CLAIM_WAIT_S: u64 = 5;
/// Tasks of one claim.
const MOST: usize = 64;
/// One look at a task whose end is waited for.
const LOOK_MS: u64 = 20_000;
/// Tasks of one list of what this node is said to hold; fewer where so many do
/// not fit into an answer.
const LISTED: [u64; 2] = [1_000, 50];
/// How often something that the queue refuses for no reason that is known is
/// said again.
const REFUSALS: u32 = 5;
/// The longest text of an error that is passed on.
const ERROR_BYTES: usize = 4 * 1024;
/// Of a queue whose claims have no end that they name, and for no queue rarer.
const BEAT: Duration = Duration::from_secs(20);
/// Priority 5 of 1 to 10 is the mesh's 1.0.
const NORMAL_PRIORITY: f64 = 5.0;

/// Which queue, and what of it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The peer id of the queue's node: proven by its connection.
    pub queue: Arc<str>,
    /// Tasks of these types alone are claimed, 1 to 32.
    pub types: Vec<Arc<str>>,
    /// How long a claim holds without a sign of this node, where the queue asks.
    pub lease: Duration,
    /// What the queue wants to see, if it wants something.
    pub token: Option<String>,
}

/// A stream to the queue, and what keeps its connection open.
pub struct Opened {
    /// The stream.
    pub stream: Box<dyn Duplex>,
    /// Dropped with it.
    pub connection: Box<dyn Any + Send + Sync>,
}

/// Opens a stream to the queue, or says why not.
pub type Dial = Arc<dyn Fn() -> BoxFuture<'static, Result<Opened, String>> + Send + Sync>;

/// What happened, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// The queue can be talked to, or no more.
    Connected(bool),
    /// A task was claimed.
    Claimed,
    /// A claim is over: `completed`, `failed`, `released`, or `lost` to its lease.
    Ended(&'static str),
    /// Claims held now.
    Held(usize),
}

/// Told of what happens.
pub type Tell = Arc<dyn Fn(Told) + Send + Sync>;

/// The source of one queue.
struct Source {
    node: Handle,
    settings: Settings,
    link: Link,
    worker: String,
    tell: Tell,
    held: Mutex<HashMap<TaskId, Claim>>,
    /// Rings when a claim is over: there is room.
    over: Notify,
}

/// The newest claim of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Claim {
    /// What the queue calls it.
    handle: String,
    /// How often to give a sign.
    beat: Duration,
}

/// A claimed task.
struct Work {
    id: TaskId,
    submission: Object,
}

/// What is done with a task that the queue hands out.
enum Taken {
    /// It is to be run.
    New(Work),
    /// It is followed already, or has no name.
    Known,
    /// It is to be given back, by this name.
    NotAskedFor(String),
}

/// What became of a submission.
enum Submitted {
    /// The mesh has it.
    Yes,
    /// It may take it another time.
    Later,
    /// It never will.
    Never(String),
}

/// Claims and runs what the queue has until `shutdown`. Leases that are held
/// then run out by themselves: the mesh keeps their tasks.
pub async fn run(node: Handle, settings: Settings, dial: Dial, tell: Tell, shutdown: CancellationToken) {
    let name = node.node().to_string();
    let worker = format!("taskmesh-{name}");
    let link = Link::new(dial, settings.token.clone(), tell.clone());
    let (held, over) = (Mutex::default(), Notify::new());
    let source = Arc::new(Source { node, settings, link, worker, tell, held, over });
    shutdown.run_until_cancelled(source.claim_on()).await;
}

impl Source {
    async fn claim_on(self: Arc<Self>) {
        let mut followers = JoinSet::new();
        // What an earlier run of this node held, or a claim whose answer was lost.
        let mut unsure = &LISTED[..];
        loop {
            while followers.try_join_next().is_some() {}
            if let [limit, fewer @ ..] = unsure {
                unsure = fewer;
                if let Ok(found) = self.recall(*limit).await {
                    unsure = &[];
                    found.into_iter().for_each(|work| drop(followers.spawn(self.clone().follow(work))));
                }
            }
            let room = self.room().await;
            if room == 0 {
                // Not in time: something else may have made room.
                let _ = tokio::time::timeout(PAUSE, self.over.notified()).await;
                continue;
            }
            let asked_at = Instant::now();
            let Ok(found) = self.claim(room).await else {
                unsure = &LISTED;
                continue;
            };
            if found.is_empty() {
                // A queue that does not wait is not asked all the time.
                tokio::time::sleep_until(asked_at + PAUSE).await;
            }
            for work in found {
                followers.spawn(self.clone().follow(work));
            }
        }
    }

    /// Tasks that this node's own workers would start now, of all that is
    /// claimed.
    async fn room(&self) -> usize {
        let query = Query::Stats { scope: Scope::Local, workers: true, historical: false };
        let Ok(Reply::Stats(stats)) = self.node.ask(Request::Query(query)).await else { return 0 };
        if stats.paused.is_some() || self.node.pulse().draining {
            return 0;
        }
        let workers = stats.workers.unwrap_or_default();
        let suited = workers.iter().filter(|w| self.settings.types.iter().any(|name| w.offers(name)));
        let (mut slots, mut free) = (0, 0);
        for worker in suited {
            slots += worker.slots;
            free += worker.slots.saturating_sub(worker.running.unwrap_or(worker.slots));
        }
        let left = (slots as usize).saturating_sub(self.held().len());
        left.min(free as usize).min(MOST)
    }

    async fn claim(&self, most: usize) -> Result<Vec<Work>, LineError> {
        let claim = json!({
            "op": "claim_many",
            "worker_id": self.worker,
            "peer_id": self.node.node().to_string(),
            "supported_task_types": self.settings.types,
            "max_tasks": most,
            "same_task_type": false,
            "lease_s": self.settings.lease.as_secs(),
            "timeout_s": CLAIM_WAIT_S,
        });
        let answer = self.link.op(claim).await?;
        if !is_ok(&answer) {
            tracing::warn!(answer = %start(&answer), "the foreign queue refuses a claim");
        }
        let mut works = Vec::new();
        for task in tasks_of(&answer).take(most) {
            match self.take(task) {
                Taken::New(work) => works.push(work),
                Taken::Known => {}
                Taken::NotAskedFor(handle) => {
                    let back = json!({"op": "release", "task_id": handle, "worker_id": self.worker});
                    self.link.op(back).await?;
                }
            }
        }
        Ok(works)
    }

    /// What the queue says that this node holds, and that it does not know of.
    /// Where claims end by themselves, that mends itself.
    async fn recall(&self, limit: u64) -> Result<Vec<Work>, LineError> {
        let list = json!({"op": "list", "status": "running", "task_types": self.settings.types, "limit": limit});
        let answer = self.link.op(list).await?;
        // The queue of a mesh tells the state of its tasks, and gives leases.
        let mine = |task: &&Value| task["assigned_worker"] == *self.worker && task["mesh_status"].is_null();
        let found = tasks_of(&answer).filter(mine).filter_map(|task| match self.take(task) {
            Taken::New(work) => Some(work),
            Taken::Known | Taken::NotAskedFor(_) => None,
        });
        Ok(found.collect())
    }

    /// Notes a claimed task.
    fn take(&self, task: &Value) -> Taken {
        let text = |name: &str| task[name].as_str().filter(|text| !text.is_empty() && text.len() <= 512);
        let Some(handle) = text("task_id") else { return Taken::Known };
        let asked_for = |name: &&str| self.settings.types.iter().any(|asked| **asked == **name);
        let Some(task_type) = text("task_type").filter(asked_for) else {
            tracing::warn!(handle, "the foreign queue hands out a type that was not asked for: it is given back");
            return Taken::NotAskedFor(handle.to_owned());
        };
        let named = text("mesh_task_id").unwrap_or(handle);
        let id = self.id(named);
        let lease = task["lease_s"].as_u64().map(Duration::from_secs);
        let beat = lease.map_or(BEAT, |lease| (lease / 3).clamp(PAUSE / 4, BEAT));
        let claim = Claim { handle: handle.to_owned(), beat };
        let before = self.held().insert(id.clone(), claim.clone());
        if before.as_ref() == Some(&claim) {
            return Taken::Known;
        }
        let again = before.is_some();
        (self.tell)(Told::Claimed);
        self.tell_held();
        tracing::info!(task = %id, foreign = named, task_type, again, "claimed from the foreign queue");
        if again {
            return Taken::Known;
        }
        Taken::New(Work { submission: submission(&id, &self.settings.queue, named, task), id })
    }

    /// The same for the same task, whoever claims it.
    fn id(&self, named: &str) -> TaskId {
        let mut hash = blake3::Hasher::new();
        hash.update(self.settings.queue.as_bytes()).update(&[0]).update(named.as_bytes());
        TaskId::new(&format!("foreign-{}", &hash.finalize().to_hex()[..32])).expect("hexadecimal, and short")
    }

    /// A claimed task from its submission to the end of its claim.
    async fn follow(self: Arc<Self>, work: Work) {
        let outcome = match self.submit(work.submission).await {
            Submitted::Yes => self.see_through(&work.id).await,
            Submitted::Later => {
                let released = self.deliver(&work.id, json!({"op": "release", "reason": "no room"})).await;
                // So that it is not claimed again at once.
                tokio::time::sleep(PAUSE).await;
                if released { "released" } else { "lost" }
            }
            Submitted::Never(error) => self.end(&work.id, failed(&error), "failed").await,
        };
        self.held().remove(&work.id);
        self.tell_held();
        (self.tell)(Told::Ended(outcome));
        tracing::info!(task = %work.id, outcome, "a claim of the foreign queue is over");
        self.over.notify_one();
    }

    async fn submit(&self, submission: Object) -> Submitted {
        match mcp::ask(&self.node, "task_submit", submission).await {
            Ok(_) => Submitted::Yes,
            // Its id says that it is this task; how it was worded is of no account.
            Err(failure) if failure.code == Code::Conflict => Submitted::Yes,
            Err(failure) if failure.code.meaning().retryable => Submitted::Later,
            Err(failure) => Submitted::Never(failure.error),
        }
    }

    /// Waits for the end of a task of the mesh, and tells the queue.
    async fn see_through(&self, id: &TaskId) -> &'static str {
        let Some(left) = self.ended(id).await else { return "lost" };
        match left {
            Ok(left) => match left.get("status").and_then(Value::as_str) {
                Some("completed") => self.end(id, completed(&left), "completed").await,
                status => {
                    let why = left.get("error").and_then(Value::as_str).unwrap_or("no reason was given");
                    let status = status.unwrap_or("failed");
                    self.end(id, failed(&format!("{status} in the mesh that ran it: {why}")), "failed").await
                }
            },
            Err(failure) => self.end(id, failed(&failure.error), "failed").await,
        }
    }

    /// What a task left; `None`: the claim was lost before that.
    async fn ended(&self, id: &TaskId) -> Option<Result<Object, Failure>> {
        let beat = self.claim_of(id)?.beat;
        let mut beats = tokio::time::interval_at(Instant::now() + beat, beat);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                _ = beats.tick() => {
                    if self.is_lost(id).await {
                        return None;
                    }
                }
                left = self.look(id) => match left {
                    Ok(left) if left.get("poll_after_ms").is_none_or(Value::is_null) => return Some(Ok(left)),
                    Ok(_) => {}
                    Err(failure) if failure.code.meaning().retryable => tokio::time::sleep(PAUSE).await,
                    Err(failure) => return Some(Err(failure)),
                }
            }
        }
    }

    async fn look(&self, id: &TaskId) -> Result<Object, Failure> {
        mcp::ask(&self.node, "task_result", object(json!({"task_id": id.as_str(), "wait_ms": LOOK_MS}))).await
    }

    /// Gives a sign of life for a claim; whether the queue says that it is this
    /// node's no more. If the task has ended there, it is stopped here too.
    async fn is_lost(&self, id: &TaskId) -> bool {
        let Some(claim) = self.claim_of(id) else { return true };
        let sign = json!({
            "op": "heartbeat", "task_id": claim.handle, "worker_id": self.worker, "peer_id": self.node.node().to_string(),
        });
        match self.link.op(sign).await {
            Ok(answer) if !is_ok(&answer) && !is_for_now(&answer) => {}
            // Well, or not to be said now.
            _ => return false,
        }
        if self.claim_of(id).is_some_and(|newest| newest != claim) {
            return false;
        }
        let looked = self.link.op(json!({"op": "get", "task_id": claim.handle})).await;
        let status = looked.as_ref().ok().and_then(|answer| answer.get("task")?.get("status")?.as_str());
        if let Some(status @ ("cancelled" | "completed" | "failed")) = status {
            let reason = format!("it is {status} in the queue that it is from");
            let cancel = object(json!({"task_id": id.as_str(), "reason": reason}));
            if let Err(failure) = mcp::ask(&self.node, "task_cancel", cancel).await {
                tracing::debug!(task = %id, error = failure.error, "not stopped");
            }
        }
        true
    }

    /// Tells the queue how a task ended; the outcome of its claim.
    async fn end(&self, id: &TaskId, report: Value, outcome: &'static str) -> &'static str {
        if self.deliver(id, report).await { outcome } else { "lost" }
    }

    /// Says something about a claim until the queue has heard it; whether it was
    /// still this node's to say.
    async fn deliver(&self, id: &TaskId, mut report: Value) -> bool {
        let mut refusals = 0;
        loop {
            let Some(claim) = self.claim_of(id) else { return false };
            report["task_id"] = claim.handle.as_str().into();
            report["worker_id"] = self.worker.as_str().into();
            match self.link.op(report.clone()).await {
                Ok(answer) if is_ok(&answer) => return true,
                Ok(answer) if is_for_now(&answer) => tokio::time::sleep(PAUSE).await,
                // Claimed anew meanwhile: said again, as its holder.
                Ok(_) if self.claim_of(id).is_some_and(|newest| newest != claim) => {}
                Ok(answer) if is_unexplained(&answer) && refusals < REFUSALS => {
                    refusals += 1;
                    tokio::time::sleep(PAUSE).await;
                }
                Ok(answer) => {
                    tracing::warn!(task = %id, answer = %start(&answer), "the foreign queue does not take what is said of a claim");
                    return false;
                }
                Err(error) if error.is_final() => report = failed(&format!("the result does not fit: {error}")),
                // Over another stream, as soon as there is one.
                Err(_) => tokio::time::sleep(PAUSE / 4).await,
            }
        }
    }

    fn claim_of(&self, id: &TaskId) -> Option<Claim> {
        self.held().get(id).cloned()
    }

    fn tell_held(&self) {
        let held = self.held().len();
        (self.tell)(Told::Held(held));
    }

    fn held(&self) -> MutexGuard<'_, HashMap<TaskId, Claim>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The task of the mesh that a foreign one becomes. That a completion as failed
/// is final is the queue's rule; it retries nothing.
fn submission(id: &TaskId, queue: &str, named: &str, task: &Value) -> Object {
    let payload = match &task["payload"] {
        Value::Object(payload) => Value::Object(payload.clone()),
        other => json!({"payload": other}),
    };
    let urgency = payload["priority"].as_f64().map_or(NORMAL_PRIORITY, |p| p.clamp(1.0, 10.0));
    let model: String = task["model_name"].as_str().unwrap_or_default().chars().take(256).collect();
    object(json!({
        "task_id": id.as_str(),
        "task_type": task["task_type"],
        "payload": payload,
        "priority": urgency / NORMAL_PRIORITY,
        "metadata": {"foreign_queue": queue, "foreign_task_id": named, "model_name": model},
        "retry_policy": {"max_retries": 0},
    }))
}

/// The report of a task that completed: its result, and beside it the output of
/// a program, if it is one's.
fn completed(left: &Object) -> Value {
    let part = |name: &str| left.get(name).cloned().unwrap_or_default();
    let cut = part("truncated") == Value::Bool(true);
    let mut result = match part("result") {
        Value::Object(result) => result,
        Value::Null if cut => Object::new(),
        other => object(json!({"result": other})),
    };
    for name in ["output", "output_encoding", "output_bytes"] {
        if !part(name).is_null() {
            result.insert(name.to_owned(), part(name));
        }
    }
    if cut {
        result.insert("truncated".to_owned(), true.into());
    }
    json!({"op": "complete", "status": "completed", "result": result})
}

fn failed(error: &str) -> Value {
    let error = &error[..error.floor_char_boundary(ERROR_BYTES)];
    json!({"op": "complete", "status": "failed", "error": error})
}

fn is_ok(answer: &Object) -> bool {
    answer.get("ok") == Some(&Value::Bool(true))
}

/// Whether an answer that is not `ok` may be another one later.
fn is_for_now(answer: &Object) -> bool {
    let word = answer.get("error").and_then(Value::as_str).unwrap_or_default();
    answer.contains_key("retry_after_ms") || Code::from_name(word).is_some_and(|code| code.meaning().retryable)
}

/// Whether a refusal is for no reason that is known here: a database of the
/// queue that is busy, maybe.
fn is_unexplained(answer: &Object) -> bool {
    let word = answer.get("error").and_then(Value::as_str).unwrap_or_default();
    word != NOT_HOLDER && Code::from_name(word).is_none()
}

fn tasks_of(answer: &Object) -> impl Iterator<Item = &Value> {
    answer.get("tasks").and_then(Value::as_array).into_iter().flatten()
}

fn start(answer: &Object) -> String {
    let text = |name: &str| answer.get(name).and_then(Value::as_str).unwrap_or_default();
    format!("{}: {}", text("error"), text("detail")).chars().take(300).collect()
}
