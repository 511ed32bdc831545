//! What a node may be asked: commands change something, queries do not. And
//! the closed set of reasons for which it says no.

use crate::authority::TokenId;
use crate::cache::{CacheKey, Which};
use crate::forgotten::{Forgotten, Presence};
use crate::ids::{NodeId, TaskId, WorkerId};
use crate::register::Issued;
use crate::task::{Priority, Resources, Spec};
use crate::time::Millis;
use crate::view::Status;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Anything that a face, or another node, asks.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// Changes something.
    Command(Command),
    /// Changes nothing.
    Query(Query),
}

/// A change.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Take one task, or an array of them. → [`crate::Reply::Submitted`]
    Submit(Box<Submission>),
    /// Stop a task. → [`crate::Reply::Cancelled`]
    Cancel {
        /// Which.
        task: TaskId,
        /// For the record.
        reason: Option<Arc<str>>,
        /// Kill rather than ask.
        force: bool,
    },
    /// Stop a workflow with all its steps. → [`crate::Reply::WorkflowCancelled`]
    CancelWorkflow {
        /// Which.
        task: TaskId,
        /// For the record.
        reason: Option<Arc<str>>,
        /// Kill rather than ask.
        force: bool,
    },
    /// Change a task's priority. → [`crate::Reply::Reprioritised`]
    Reprioritise {
        /// Which.
        task: TaskId,
        /// The new one.
        priority: Priority,
        /// Move it in the queue now; otherwise when it is next queued.
        requeue: bool,
    },
    /// Make a new task of one that failed, was cancelled or expired.
    /// → [`crate::Reply::Retried`]
    Retry {
        /// Which.
        task: TaskId,
        /// Instead of the old policy's number.
        max_retries: Option<u32>,
        /// Instead of the old one.
        timeout: Option<Millis>,
    },
    /// A person's word on a step that waits for it. → [`crate::Reply::Approved`]
    Approve {
        /// Which.
        task: TaskId,
        /// It may go on; otherwise it fails.
        approved: bool,
        /// JSON text that becomes its result.
        content: Arc<[u8]>,
    },
    /// Start nothing new in the whole mesh. → [`crate::Reply::Paused`]
    Pause {
        /// For people.
        reason: Option<Arc<str>>,
    },
    /// Go on. → [`crate::Reply::Resumed`]
    Resume {
        /// Give every queued task the place of its current priority.
        reorder: bool,
    },
    /// Drop tasks that do not run. → [`crate::Reply::Cleared`]
    Clear {
        /// Which of them.
        which: ClearScope,
        /// The whole mesh, or what this node owns.
        scope: Scope,
    },
    /// Make or change a worker on this node. → [`crate::Reply::Registered`]
    Register(WorkerSpec),
    /// End a worker. → [`crate::Reply::Unregistered`]
    Unregister {
        /// Which.
        worker: WorkerId,
        /// Let running tasks end; otherwise hand them back now.
        graceful: bool,
        /// How long they may take.
        timeout: Millis,
    },
    /// Connect to a peer. → [`crate::Reply::Connected`]
    Connect {
        /// Who is expected to answer.
        peer: NodeId,
        /// Its multiaddress, as text: the network layer checks it.
        address: Arc<str>,
        /// For one try.
        timeout: Millis,
        /// Tries after the first, 0 to 10.
        retries: u32,
        /// Keep the address over restarts and redial.
        persist: bool,
    },
    /// Leave a peer and do not redial it. → [`crate::Reply::Disconnected`]
    Disconnect {
        /// Whom.
        peer: NodeId,
        /// For the record.
        reason: Option<Arc<str>>,
        /// Hand back leases between the two first.
        graceful: bool,
    },
    /// Dial a seed list. → [`crate::Reply::Bootstrapped`]
    Bootstrap {
        /// Multiaddresses; empty: the configured seeds.
        addresses: Vec<Arc<str>>,
        /// For all of it.
        timeout: Millis,
        /// Enough, for `network_ready`.
        min_connections: u32,
        /// Stop dialling there.
        max_connections: u32,
    },
    /// List a token that was made. → [`crate::Reply::Token`]
    Issue(Box<Issued>),
    /// Refuse a token from now on, in the whole mesh, and whatever is made from
    /// it. → [`crate::Reply::Token`]
    Revoke(TokenId),
    /// One node to another: is there a result for my task? → [`crate::Reply::Found`]
    LookUp {
        /// What it is found by.
        key: CacheKey,
        /// Which task asks.
        task: TaskId,
        /// A task of the same work that it waited for, and that left none.
        after: Option<TaskId>,
        /// If there is none, others may wait for it.
        joins: bool,
    },
    /// Keep a value under a name. → [`crate::Reply::ValueKept`], or
    /// [`crate::Reply::Invalidated`] where it is dropped.
    KeepValue {
        /// The caller's own, at most [`crate::limits::TEXT_BYTES`].
        name: Arc<str>,
        /// At most [`crate::limits::INLINE_BYTES`]; `None`: drop it.
        content: Option<Arc<[u8]>>,
        /// How long, if that is less than what the result cache says.
        ttl: Option<Millis>,
    },
    /// Drop results of earlier tasks. → [`crate::Reply::Invalidated`]
    Invalidate {
        /// Which.
        which: Which,
        /// The whole mesh, or what this node keeps.
        scope: Scope,
    },
    /// Go on without a node that is gone for ever. → [`crate::Reply::Forgot`]
    ForgetNode {
        /// An operator's word.
        word: Forgotten,
        /// What becomes of it if it is there after all.
        presence: Presence,
        /// Tell all, or only take it.
        scope: Scope,
    },
}

/// A question.
#[derive(Clone, Debug, PartialEq)]
pub enum Query {
    /// One task. → [`crate::Reply::Task`]
    Task {
        /// Which.
        task: TaskId,
        /// What to include.
        detail: Detail,
        /// Wait up to this long for it to end (≤ 45 s).
        wait: Millis,
    },
    /// A page of tasks. → [`crate::Reply::Tasks`]
    Tasks(Box<TaskFilter>),
    /// Counts and rates. → [`crate::Reply::Stats`]
    Stats {
        /// The whole mesh, or what this node owns.
        scope: Scope,
        /// One entry for each worker too.
        workers: bool,
        /// The last hour by minutes too.
        historical: bool,
    },
    /// One worker. → [`crate::Reply::Worker`]
    Worker {
        /// Which.
        worker: WorkerId,
        /// Its tasks too.
        tasks: bool,
    },
    /// Every worker that is known. → [`crate::Reply::Workers`]
    Workers,
    /// Find peers. → [`crate::Reply::Discovered`]
    Discover {
        /// All of these.
        capabilities: Vec<Arc<str>>,
        /// At most.
        max: u32,
        /// For the search of the network.
        timeout: Millis,
    },
    /// A page of peers. → [`crate::Reply::Peers`]
    Peers(Box<PeerFilter>),
    /// One peer. → [`crate::Reply::Peer`]
    Peer {
        /// Which.
        peer: NodeId,
        /// Its measurements over time too, this many hours back (0: none).
        history_hours: u32,
    },
    /// The register of tokens. → [`crate::Reply::Tokens`]
    Tokens,
    /// Nodes that are gone for ever, by an operator's word.
    /// → [`crate::Reply::Forgotten`]
    Forgotten,
    /// One node to another: do you hear of this one? → [`crate::Reply::Hears`]
    Hears(NodeId),
    /// Which nodes could run each step of a workflow with this definition (JSON
    /// text), without taking it. Answered by the node that is asked.
    /// → [`crate::Reply::Foreseen`]
    Foresee(Arc<[u8]>),
    /// A workflow template of another node, the newest in a range of versions, by
    /// its hash. Answered by the node that is asked. → [`crate::Reply::Template`]
    Template {
        /// Its name.
        id: Arc<str>,
        /// As [`crate::template::Range`] reads it.
        range: Arc<str>,
    },
    /// What is kept under a name. → [`crate::Reply::Found`]
    Value {
        /// The caller's own.
        name: Arc<str>,
    },
    /// What is kept of results. → [`crate::Reply::Cache`]
    Cache {
        /// The whole mesh, or this node alone.
        scope: Scope,
    },
}

/// Where an answer is gathered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// From every node that answers.
    #[default]
    Mesh,
    /// From this node alone.
    Local,
}

/// What a view of a task includes beside the plain facts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Detail {
    /// The report: result, output, logs.
    pub report: bool,
    /// Progress, and the tail of the log while it runs.
    pub live: bool,
    /// Why it waits.
    pub explain: bool,
    /// The steps of a workflow.
    pub steps: bool,
    /// A page of the items of an array, from this index on.
    pub items: Option<u32>,
    /// What was submitted.
    pub spec: bool,
}

/// Tasks to take.
#[derive(Clone, Debug, PartialEq)]
pub struct Submission {
    /// The caller's id, or none: the node makes one.
    pub task: Option<TaskId>,
    /// What to do. Its `submitted_at` is set by the node that takes it.
    pub spec: Spec,
    /// How urgent.
    pub priority: Priority,
    /// Payloads of an array: item `n` becomes the task `<id>/n`. Empty: one
    /// task with the spec's own payload.
    pub items: Vec<Arc<[u8]>>,
}

/// What `queue_clear` drops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClearScope {
    /// Queued, delayed and blocked tasks: they become cancelled.
    Queued,
    /// Failed ones are forgotten.
    Failed,
    /// Cancelled ones are forgotten.
    Cancelled,
    /// All of the above.
    NotRunning,
}

/// A worker, as its operator describes it. Durable on its node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerSpec {
    /// Its name.
    pub worker: WorkerId,
    /// What it may run: names of executors, and `executor:detail`.
    pub capabilities: Vec<Arc<str>>,
    /// For requirements.
    pub labels: BTreeMap<Arc<str>, Arc<str>>,
    /// Tasks at once, 1 to 10,000.
    pub slots: u32,
    /// What it has of what can be used up; `None`: unlimited.
    pub resources: Option<Resources>,
    /// JSON text for people.
    pub metadata: Option<Arc<str>>,
}

impl WorkerSpec {
    /// About what it takes in a message.
    pub(crate) fn bytes(&self) -> usize {
        let names = self.capabilities.iter().map(|c| c.len() + 4).sum::<usize>();
        let labels = self.labels.iter().map(|(k, v)| k.len() + v.len() + 8).sum::<usize>();
        let resources = self.resources.as_ref().map_or(0, crate::task::Resources::bytes);
        let metadata = self.metadata.as_ref().map_or(0, |m| m.len());
        self.worker.as_str().len() + names + labels + resources + metadata + 40
    }
}

/// Which tasks, and which page of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TaskFilter {
    /// Any of these; empty: all.
    pub statuses: Vec<Status>,
    /// Run (now or last) by this worker.
    pub worker: Option<WorkerId>,
    /// All of these tags.
    pub tags: Vec<Arc<str>>,
    /// At least this urgent.
    pub priority_min: Option<f64>,
    /// Of this type.
    pub task_type: Option<Arc<str>>,
    /// Items of this array or steps of this workflow: ids that start with `<prefix>/`.
    pub parent: Option<TaskId>,
    /// Owned by this node.
    pub owner: Option<NodeId>,
    /// Of workflows: a step has begun, or none has.
    pub begun: Option<bool>,
    /// At most, 1 to 1,000.
    pub limit: u32,
    /// Skip this many; at most 5,000.
    pub offset: u32,
    /// Which come first.
    pub order: TaskOrder,
    /// After this one, in that order.
    pub after: Option<(crate::Unix, TaskId)>,
    /// The whole mesh, or this node alone.
    pub scope: Scope,
}

/// Orders of tasks: by their submission, then by their id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TaskOrder {
    /// Earliest first.
    #[default]
    Oldest,
    /// The reverse of that.
    Newest,
}

impl TaskOrder {
    /// Which of two places comes first.
    pub(crate) fn compare(self, one: (crate::Unix, &TaskId), other: (crate::Unix, &TaskId)) -> Ordering {
        match self {
            TaskOrder::Oldest => one.cmp(&other),
            TaskOrder::Newest => other.cmp(&one),
        }
    }
}

/// Which peers, in which order, and which page of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PeerFilter {
    /// In this state; `None`: any.
    pub status: Option<crate::view::PeerStatus>,
    /// All of these.
    pub capabilities: Vec<Arc<str>>,
    /// The order.
    pub sort: PeerSort,
    /// At most, 1 to 1,000.
    pub limit: u32,
    /// Skip this many.
    pub offset: u32,
}

/// Orders of peers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PeerSort {
    /// Latest first.
    #[default]
    LastSeen,
    /// Smallest round trip first.
    Latency,
    /// Most bytes a second first.
    Bandwidth,
    /// By name.
    PeerId,
}

/// Why a request was refused; nothing was changed, unless it says otherwise.
/// The faces map each to a code, an exit status and an HTTP status in one table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A value is out of its range.
    #[error("{field}: {problem}")]
    Invalid {
        /// The parameter.
        field: Arc<str>,
        /// What is wrong, with the bound.
        problem: Arc<str>,
    },
    /// No such task, worker or peer.
    #[error("{what} {name} is not known to any node that answered; check the id, or list what there is")]
    NotFound {
        /// `task`, `worker` or `peer`.
        what: Arc<str>,
        /// The id.
        name: Arc<str>,
    },
    /// The id or the idempotency key stands for other work.
    #[error("{name} was submitted before with different work; choose another id or key")]
    Conflict {
        /// The id.
        name: Arc<str>,
    },
    /// Not in this state.
    #[error("{name} is {status}: {needs}")]
    State {
        /// The id.
        name: Arc<str>,
        /// The state that it is in.
        status: Arc<str>,
        /// The states that would do.
        needs: Arc<str>,
    },
    /// A bound is reached.
    #[error("{what} is full (limit {limit}); try again later")]
    Full {
        /// What.
        what: Arc<str>,
        /// How much it holds.
        limit: u64,
        /// When to try again.
        retry_after: Millis,
    },
    /// Too few nodes could be reached. The outcome is unknown: a change may
    /// still happen, so repeat it only with the same id or key.
    #[error("{problem}")]
    Unavailable {
        /// What was missing.
        problem: Arc<str>,
        /// When to try again.
        retry_after: Millis,
    },
    /// No answer in time. The outcome is unknown, as above.
    #[error("no answer within {waited}; the outcome is unknown: repeat with the same id")]
    Deadline {
        /// How long it was waited for.
        waited: Millis,
    },
    /// The caller may not. Nothing was changed.
    #[error("{problem}")]
    Denied {
        /// What is needed.
        problem: Arc<str>,
    },
    /// Too large.
    #[error("{field} has {got} bytes; the limit is {limit}{}", if **field == *"items" { "; make several arrays of it" } else { "" })]
    TooLarge {
        /// The parameter.
        field: Arc<str>,
        /// Its size.
        got: u64,
        /// What is allowed.
        limit: u64,
    },
}
