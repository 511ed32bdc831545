//! What a node answers: the plain facts of tasks, queues, workers and peers,
//! each as it was measured. What was not measured is `None`.

use crate::cache::{CacheStats, CachedFrom, Finding};
use crate::explain::Reason;
use crate::forgotten::Forgotten;
use crate::ids::{NodeId, TaskId, WorkerId};
use crate::order::Scheduling;
use crate::register::Issued;
use crate::schedule::CatchUp;
use crate::shelf::Shelved;
use crate::task::{Outcome, Priority, Report, Requirements, Resources, Spec};
use crate::time::{Millis, Unix};
pub use crate::watch::Watched;
pub use crate::workers::NodeLoad;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The answer to a request that was not refused.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// To `Submit`.
    Submitted(Box<Submitted>),
    /// To `Cancel`.
    Cancelled {
        /// Which.
        task: TaskId,
        /// `cancelled`, or still `running` while it is asked to stop.
        status: Status,
        /// When it was cancelled or asked to.
        at: Unix,
        /// A program is still to end.
        cleanup_required: bool,
    },
    /// To `Reprioritise`.
    Reprioritised {
        /// Which.
        task: TaskId,
        /// Before.
        old: Priority,
        /// After.
        new: Priority,
        /// Its place among the tasks of its owner, from 1; `None` unless queued.
        position: Option<u64>,
    },
    /// To `Retry`.
    Retried {
        /// The old one.
        task: TaskId,
        /// The new one.
        retry: TaskId,
        /// How often the old one was tried again, with this.
        count: u32,
        /// The new one's place.
        position: Option<u64>,
    },
    /// To `CancelWorkflow`.
    WorkflowCancelled {
        /// Which.
        task: TaskId,
        /// When.
        at: Unix,
        /// Steps that had not ended.
        steps: Vec<Arc<str>>,
    },
    /// To `Approve`.
    Approved {
        /// Which.
        task: TaskId,
        /// `completed`, or `failed` if it may not go on.
        status: Status,
        /// When.
        at: Unix,
    },
    /// To `Foresee`.
    Foreseen(Vec<Foreseen>),
    /// To `Query::Template`.
    Template(Shelved),
    /// To `Pause`.
    Paused {
        /// When.
        at: Unix,
        /// Waiting in the mesh, of the nodes that answered.
        queued: u64,
        /// Running there.
        running: u64,
    },
    /// To `Resume`.
    Resumed {
        /// When.
        at: Unix,
        /// Waiting in the mesh, of the nodes that answered.
        queued: u64,
        /// Whether places were given anew.
        reordered: bool,
    },
    /// To `Clear`.
    Cleared {
        /// Dropped.
        cleared: u64,
        /// Waiting still.
        remaining: u64,
        /// When.
        at: Unix,
        /// Nodes that did it.
        answered: u32,
        /// Nodes that should have.
        expected: u32,
    },
    /// To `Register`.
    Registered {
        /// Which.
        worker: WorkerId,
        /// When it was first registered here.
        at: Unix,
        /// Members that see it.
        peers: Vec<NodeId>,
    },
    /// To `Unregister`.
    Unregistered {
        /// Which.
        worker: WorkerId,
        /// Gone, or draining still.
        gone: bool,
        /// When.
        at: Unix,
        /// Tasks that ended while it drained.
        completed: u64,
        /// Tasks handed back.
        abandoned: u64,
    },
    /// To `Issue` and `Revoke`.
    Token(Box<Issued>),
    /// To `Query::Tokens`.
    Tokens(Vec<Issued>),
    /// To `KeepValue`.
    ValueKept {
        /// Until then.
        expires: Unix,
    },
    /// To `LookUp` and `Query::Value`.
    Found(Finding),
    /// To `Invalidate`, and to `KeepValue` without content.
    Invalidated {
        /// Results that went.
        entries: u64,
        /// Copies of them.
        copies: u64,
        /// Members that did not answer, and may keep some.
        silent: Vec<NodeId>,
    },
    /// To `Query::Cache`.
    Cache(CacheStats),
    /// To `ForgetNode`.
    Forgot {
        /// What is known of it now.
        word: Forgotten,
        /// Records that it kept, among others.
        shared: u64,
        /// Of these, those that lost their majority by it, or had lost it.
        bereft: u64,
        /// Members that did not answer; they learn it when they are back.
        silent: Vec<NodeId>,
    },
    /// To `Query::Forgotten`.
    Forgotten(Vec<Forgotten>),
    /// To `Hears`: within the lease.
    Hears(bool),
    /// To `Query::Task`.
    Task(Box<TaskView>),
    /// To `Query::Tasks`.
    Tasks(TaskPage),
    /// To `Query::Stats`.
    Stats(Box<Stats>),
    /// To `Query::Worker`.
    Worker(Box<WorkerView>),
    /// To `Query::Workers`.
    Workers(Vec<WorkerView>),
    /// To `Discover`.
    Discovered {
        /// What was found.
        peers: Vec<PeerView>,
        /// How long it took.
        took: Millis,
    },
    /// To `Query::Peers`.
    Peers {
        /// The page.
        peers: Vec<PeerView>,
        /// All that the filter passes.
        total: u64,
    },
    /// To `Query::Peer`.
    Peer(Box<PeerView>),
    /// To `Connect`.
    Connected {
        /// Who answered.
        peer: Box<PeerView>,
        /// The address that worked.
        address: Arc<str>,
        /// The network's number of the connection.
        connection: Arc<str>,
        /// How long it took.
        took: Millis,
        /// Tries.
        attempts: u32,
    },
    /// To `Disconnect`.
    Disconnected {
        /// Whom.
        peer: NodeId,
        /// There was a connection.
        was_connected: bool,
        /// Leases handed back.
        handed_back: u64,
        /// How long it took.
        took: Millis,
    },
    /// To `Bootstrap`.
    Bootstrapped {
        /// Who is connected now, of those dialled.
        connected: Vec<NodeId>,
        /// The seeds that were dialled.
        used: Vec<Arc<str>>,
        /// Which failed and why.
        failures: Vec<(Arc<str>, Arc<str>)>,
        /// How long it took.
        took: Millis,
    },
}

/// A task's state, as people and programs see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// Ready, and waits for a worker.
    Queued,
    /// Waits for other tasks.
    Blocked,
    /// Waits for a time.
    Delayed,
    /// Granted to a worker, not known to have started.
    Leased,
    /// Started.
    Running,
    /// Ended well.
    Completed,
    /// Attempts used up.
    Failed,
    /// Stopped.
    Cancelled,
    /// Deadline passed.
    Expired,
}

impl Status {
    /// Every one, in the order that people read them.
    pub const ALL: [Status; 9] = [
        Status::Queued,
        Status::Blocked,
        Status::Delayed,
        Status::Leased,
        Status::Running,
        Status::Completed,
        Status::Failed,
        Status::Cancelled,
        Status::Expired,
    ];

    /// Its name on every face.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Status::Queued => "queued",
            Status::Blocked => "blocked",
            Status::Delayed => "delayed",
            Status::Leased => "leased",
            Status::Running => "running",
            Status::Completed => "completed",
            Status::Failed => "failed",
            Status::Cancelled => "cancelled",
            Status::Expired => "expired",
        }
    }

    /// The one with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Status> {
        Status::ALL.into_iter().find(|s| s.name() == name)
    }

    /// Never changes again.
    #[must_use]
    pub fn terminal(self) -> bool {
        matches!(self, Status::Completed | Status::Failed | Status::Cancelled | Status::Expired)
    }

    /// The state that an outcome is.
    #[must_use]
    pub fn of_outcome(outcome: &Outcome) -> Status {
        match outcome {
            Outcome::Completed => Status::Completed,
            Outcome::Failed { .. } => Status::Failed,
            Outcome::Cancelled { .. } => Status::Cancelled,
            Outcome::Expired => Status::Expired,
        }
    }
}

/// An accepted submission.
#[derive(Clone, Debug, PartialEq)]
pub struct Submitted {
    /// The task, or the array.
    pub task: TaskId,
    /// The state of it (of the first item).
    pub status: Status,
    /// Place among the owner's queued tasks, from 1.
    pub position: Option<u64>,
    /// Where it was granted already.
    pub worker: Option<WorkerId>,
    /// Its owner.
    pub home: NodeId,
    /// It was there before: the answer that the first call got.
    pub replayed: bool,
    /// Items, for an array.
    pub items: Option<u32>,
    /// Nodes with a worker that could run it.
    pub feasible: u32,
    /// Why none could, where none could.
    pub infeasible: Option<Arc<str>>,
    /// When it may start, from measured rates; `None` where nothing was measured.
    pub estimated_start: Option<Unix>,
}

/// One task.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskView {
    /// Which.
    pub task: TaskId,
    /// Its type.
    pub task_type: Arc<str>,
    /// What it is doing.
    pub status: Status,
    /// How urgent.
    pub priority: Priority,
    /// Its tags.
    pub tags: Vec<Arc<str>>,
    /// Where it runs or ran last.
    pub executor: Option<(NodeId, WorkerId)>,
    /// Grants so far.
    pub attempt: u32,
    /// Attempts that failed by themselves.
    pub failures: u32,
    /// Attempts lost with their nodes.
    pub crashes: u32,
    /// Taken at.
    pub submitted_at: Unix,
    /// The current or last attempt started at.
    pub started_at: Option<Unix>,
    /// Ended at.
    pub ended_at: Option<Unix>,
    /// Not before this time, while delayed.
    pub delayed_until: Option<Unix>,
    /// Its owner.
    pub home: NodeId,
    /// The nodes that keep it.
    pub holders: Vec<NodeId>,
    /// Holders that are gone for ever, by an operator's word.
    pub forgotten: Vec<Forgotten>,
    /// The version that this view shows.
    pub epoch: u32,
    /// Place among the owner's queued tasks, from 1.
    pub position: Option<u64>,
    /// Percent, as the executor says.
    pub progress: Option<u8>,
    /// What the executor says.
    pub message: Option<Arc<str>>,
    /// Tail of the log while it runs.
    pub log_tail: Option<Arc<[u8]>>,
    /// What the last failed attempt said, or why it ended.
    pub error: Option<Arc<str>>,
    /// The task that this one tries again.
    pub retry_of: Option<TaskId>,
    /// The newest task that tries this one again.
    pub retried_as: Option<TaskId>,
    /// What it waits for.
    pub depends_on: Vec<TaskId>,
    /// What it needs.
    pub requirements: Requirements,
    /// Why it waits, if asked.
    pub explanation: Option<Explanation>,
    /// What it left, if asked and ended.
    pub report: Option<Report>,
    /// Where its result came from, if it did not run.
    pub cached_from: Option<CachedFrom>,
    /// How far it has come, if it is a workflow or an array.
    pub workflow: Option<Box<WorkflowView>>,
    /// When it fires, if it is a schedule.
    pub schedule: Option<Box<ScheduleView>>,
    /// What was submitted, if asked.
    pub spec: Option<Arc<Spec>>,
}

/// When a schedule fires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScheduleView {
    /// Its pattern.
    pub cron: Arc<str>,
    /// The zone whose wall time that means.
    pub timezone: Arc<str>,
    /// What becomes of missed ticks.
    pub catch_up: CatchUp,
    /// The type of the task of each tick.
    pub task_type: Arc<str>,
    /// Ticks so far.
    pub fired: u32,
    /// The latest of them, and how its task is.
    pub last: Option<(Unix, Status)>,
    /// The next; `None`: it has ended.
    pub next: Option<Unix>,
}

/// How far a workflow has come; or an array, whose items take the place of steps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WorkflowView {
    /// For people.
    pub name: Arc<str>,
    /// When its first step began.
    pub started_at: Option<Unix>,
    /// Tasks that it is known to need, and how many of them have ended. A step
    /// for each of many items, or one that is a workflow, counts as many.
    pub tasks: (u64, u64),
    /// How much of its steps has ended, in thousandths. Each step counts the same,
    /// and one that is many by how many of them have ended.
    pub ended_milli: u32,
    /// Its steps by what they do, as [`StepView::status`] says it.
    pub tally: BTreeMap<Arc<str>, u32>,
    /// Steps under way, at most 100 of them, if live facts or steps were asked for.
    pub current: Vec<Arc<str>>,
    /// Every step, if asked.
    pub steps: Option<Vec<StepView>>,
    /// The way through it that takes longest: by measured times where steps
    /// have run, else each step counts the same.
    pub critical_path: Vec<Arc<str>>,
    /// Its definition (JSON text), if steps were asked for.
    pub definition: Option<Arc<[u8]>>,
    /// Of an array: the index of the item after those in `steps`, if there is one.
    pub next_item: Option<u32>,
}

/// One step of a workflow.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepView {
    /// Its name in the workflow.
    pub step: Arc<str>,
    /// The state of its task, or `waiting`, `input_required` or `skipped`.
    pub status: Arc<str>,
    /// Its task, once it has begun.
    pub task: Option<TaskId>,
    /// Grants so far.
    pub attempt: u32,
    /// Where it runs or ran last.
    pub worker: Option<WorkerId>,
    /// Began to run.
    pub started_at: Option<Unix>,
    /// Ended.
    pub ended_at: Option<Unix>,
    /// Why it did not complete, or was skipped.
    pub error: Option<Arc<str>>,
    /// Of the tasks that it stands for, all and ended, where it is many.
    pub tasks: Option<(u64, u64)>,
    /// What it left, if reports were asked for and there is room for it.
    pub report: Option<Report>,
    /// There was no room: ask for its task.
    pub report_left_out: bool,
}

/// Where a step of a workflow could run.
#[derive(Clone, Debug, PartialEq)]
pub struct Foreseen {
    /// Its name in the workflow.
    pub step: Arc<str>,
    /// Nodes with a worker that could run it, as this node knows them.
    pub nodes: Vec<NodeId>,
    /// Why there are none.
    pub reason: Option<Arc<str>>,
}

/// Why a task waits, and what comes next.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Explanation {
    /// What it waits for; `None`: it does not wait, or an older node answered.
    pub reason: Option<Reason>,
    /// One sentence.
    pub summary: Arc<str>,
    /// For each known node (and worker, where it has one): why it was not chosen.
    pub nodes: Vec<(NodeId, Option<WorkerId>, Arc<str>)>,
    /// What will happen next.
    pub next: Arc<str>,
    /// And when, where that is known.
    pub next_at: Option<Unix>,
}

/// A page of tasks, in order of submission, then id.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TaskPage {
    /// The page.
    pub tasks: Vec<TaskView>,
    /// All that the filter passes, on the nodes that answered.
    pub total: u64,
    /// Nodes that answered.
    pub answered: u32,
    /// Nodes that should have.
    pub expected: u32,
}

/// Counts and rates of a queue: of one node's own tasks, or summed over the mesh.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    /// By state; leased and running apart.
    pub counts: BTreeMap<Status, u64>,
    /// Sum and number of measured waits (ready → started) in the last 5 minutes.
    pub waits: (Millis, u64),
    /// Sum and number of measured runs in the last 5 minutes.
    pub runs: (Millis, u64),
    /// Tasks that ended in the last 5 minutes.
    pub ended: u64,
    /// Age of the task that has been ready longest.
    pub oldest_queued: Option<Millis>,
    /// No new starts.
    pub paused: Option<Pause>,
    /// Workers, if asked.
    pub workers: Option<Vec<WorkerView>>,
    /// The last hour by minutes, oldest first, if asked: (minute, ended, failed).
    pub historical: Option<Vec<(Unix, u64, u64)>>,
    /// The orders of ready tasks in force: one, unless nodes are configured
    /// differently.
    pub scheduling: BTreeSet<Scheduling>,
    /// Waiting tasks by what they wait for.
    pub waiting: BTreeMap<Reason, u64>,
    /// Nodes that answered.
    pub answered: u32,
    /// Nodes that should have.
    pub expected: u32,
}

/// A pause of the whole mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pause {
    /// When.
    pub at: Unix,
    /// Why.
    pub reason: Option<Arc<str>>,
}

/// What a worker is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerStatus {
    /// Runs something and has room.
    Active,
    /// Runs nothing.
    Idle,
    /// All slots are taken.
    Busy,
    /// Takes nothing new.
    Draining,
    /// Its node is silent.
    Offline,
}

impl WorkerStatus {
    /// Its name on every face.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            WorkerStatus::Active => "active",
            WorkerStatus::Idle => "idle",
            WorkerStatus::Busy => "busy",
            WorkerStatus::Draining => "draining",
            WorkerStatus::Offline => "offline",
        }
    }
}

/// One worker.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkerView {
    /// Which.
    pub worker: WorkerId,
    /// On which node.
    pub node: NodeId,
    /// Doing what.
    pub status: WorkerStatus,
    /// What it may run.
    pub capabilities: Vec<Arc<str>>,
    /// Its labels.
    pub labels: BTreeMap<Arc<str>, Arc<str>>,
    /// What it has; `None`: unlimited.
    pub resources: Option<Resources>,
    /// Tasks at once.
    pub slots: u32,
    /// Tasks now; `None` where its node did not answer, as below.
    pub running: Option<u32>,
    /// Grants that it would take now.
    pub free: Option<u32>,
    /// Ended well since its node started.
    pub completed: Option<u64>,
    /// Failed since its node started.
    pub failed: Option<u64>,
    /// When its node was last heard.
    pub last_seen: Option<Unix>,
    /// Its tasks, if asked.
    pub tasks: Option<Vec<TaskId>>,
    /// What its node measured of itself, if it answered.
    pub load: Option<NodeLoad>,
}

impl WorkerView {
    /// Whether it may run tasks of this type.
    #[must_use]
    pub fn offers(&self, task_type: &str) -> bool {
        crate::queue::offers(&self.capabilities, task_type)
    }
}

/// Whether a peer can be talked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PeerStatus {
    /// There is a connection.
    Connected,
    /// One is being made.
    Connecting,
    /// There is none.
    Disconnected,
}

impl PeerStatus {
    /// Its name on every face.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            PeerStatus::Connected => "connected",
            PeerStatus::Connecting => "connecting",
            PeerStatus::Disconnected => "disconnected",
        }
    }
}

/// One peer, as this node knows and measured it.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerView {
    /// Who.
    pub peer: NodeId,
    /// Where, best first.
    pub addresses: Vec<Arc<str>>,
    /// Whether it can be talked to.
    pub status: PeerStatus,
    /// What its workers may run.
    pub capabilities: Vec<Arc<str>>,
    /// Since when.
    pub connected_since: Option<Unix>,
    /// When it was last heard.
    pub last_seen: Option<Unix>,
    /// Its protocol, as it says.
    pub protocol: Option<Arc<str>>,
    /// Its program, as it says.
    pub agent: Option<Arc<str>>,
    /// What was measured.
    pub measured: PeerMeasure,
    /// Samples, oldest first, if asked: (when, round trip in µs, connected).
    pub history: Option<Vec<(Unix, Option<u64>, bool)>>,
}

/// Measurements of one peer since this node started.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PeerMeasure {
    /// Smoothed ping round trip, µs.
    pub round_trip_us: Option<u64>,
    /// Bytes to and from it in the last full minute.
    pub bytes_last_minute: Option<u64>,
    /// Bytes to and from it.
    pub bytes: Option<u64>,
    /// Pings sent.
    pub pings: u64,
    /// Of which unanswered.
    pub pings_failed: u64,
    /// Requests to it that were answered.
    pub requests_answered: u64,
    /// Requests to it that failed.
    pub requests_failed: u64,
    /// Requests of its own that were served.
    pub requests_served: u64,
}
