//! `queue_stats`, `queue_pause`, `queue_resume`, `queue_clear` and `task_retry`.

use super::task::{Scope, yes};
use super::worker::{WorkerState, worker_state};
use super::{Context, Failure, Kind, Op, mismatch, value};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use taskmesh_core::command::{ClearScope, Scope as CoreScope};
use taskmesh_core::view::{Stats, Status};
use taskmesh_core::{Command, Millis, Query, Refusal, Reply, Request, TaskId, limits};

/// Count what waits, runs and ended.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct QueueStats {
    /// One entry for each worker too.
    #[serde(default)]
    #[arg(long)]
    pub include_worker_stats: bool,
    /// The last hour by minutes too.
    #[serde(default)]
    #[arg(long)]
    pub include_historical: bool,
    /// The whole mesh, or this node.
    #[serde(default)]
    #[arg(long, value_enum, default_value_t)]
    pub scope: Scope,
}

/// What `queue_stats` answers.
#[derive(Debug, Serialize, JsonSchema)]
pub struct QueueState {
    /// Ready.
    pub queued_count: u64,
    /// Waiting for a time.
    pub delayed_count: u64,
    /// Waiting for other tasks.
    pub blocked_count: u64,
    /// Granted or started.
    pub running_count: u64,
    /// Ended well, and still kept.
    pub completed_count: u64,
    /// Attempts used up.
    pub failed_count: u64,
    /// Stopped.
    pub cancelled_count: u64,
    /// Deadline passed.
    pub expired_count: u64,
    /// Seconds from ready to started, over the last 5 minutes.
    pub average_wait_time: Option<f64>,
    /// Seconds of a run, over the last 5 minutes.
    pub average_execution_time: Option<f64>,
    /// Tasks that ended per minute, over the last 5 minutes.
    pub throughput: f64,
    /// No new starts.
    pub paused: bool,
    /// Since when.
    pub paused_at: Option<String>,
    /// Why.
    pub pause_reason: Option<String>,
    /// Seconds that the oldest ready task has waited.
    pub oldest_queued_age: Option<f64>,
    /// The order of ready tasks; several where nodes are configured differently.
    pub scheduling: String,
    /// Waiting tasks by reason, as task_status explains it.
    pub waiting: BTreeMap<&'static str, u64>,
    /// If asked.
    pub worker_stats: Option<Vec<WorkerState>>,
    /// If asked; oldest first.
    pub historical: Option<Vec<Minute>>,
    /// Nodes that answered.
    pub nodes_answered: u32,
    /// Nodes that should have.
    pub nodes_expected: u32,
}

/// One minute of the past.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Minute {
    /// Its beginning.
    pub minute: String,
    /// Tasks that ended.
    pub ended: u64,
    /// Of which failed.
    pub failed: u64,
}

/// Minutes that `throughput` and the averages look back.
const WINDOW_MINUTES: f64 = 5.0;

fn queue_state(stats: Stats) -> QueueState {
    let count = |status| stats.counts.get(&status).copied().unwrap_or(0);
    let average = |(sum, n): (Millis, u64)| (n > 0).then(|| value::seconds(sum) / n as f64);
    let minute = |(at, ended, failed)| Minute { minute: value::time(at), ended, failed };
    QueueState {
        queued_count: count(Status::Queued),
        delayed_count: count(Status::Delayed),
        blocked_count: count(Status::Blocked),
        running_count: count(Status::Leased) + count(Status::Running),
        completed_count: count(Status::Completed),
        failed_count: count(Status::Failed),
        cancelled_count: count(Status::Cancelled),
        expired_count: count(Status::Expired),
        average_wait_time: average(stats.waits),
        average_execution_time: average(stats.runs),
        throughput: stats.ended as f64 / WINDOW_MINUTES,
        paused: stats.paused.is_some(),
        paused_at: stats.paused.as_ref().map(|p| value::time(p.at)),
        pause_reason: stats.paused.and_then(|p| p.reason).map(|r| r.to_string()),
        oldest_queued_age: stats.oldest_queued.map(value::seconds),
        scheduling: stats.scheduling.iter().map(|order| order.name()).collect::<Vec<_>>().join(","),
        waiting: stats.waiting.iter().map(|(reason, tasks)| (reason.name(), *tasks)).collect(),
        worker_stats: stats.workers.map(|all| all.into_iter().map(worker_state).collect()),
        historical: stats.historical.map(|all| all.into_iter().map(minute).collect()),
        nodes_answered: stats.answered,
        nodes_expected: stats.expected,
    }
}

impl Op for QueueStats {
    const NAME: &'static str = "queue_stats";
    const TITLE: &'static str = "Queue statistics";
    const DESCRIPTION: &'static str = "Tasks that wait, run and ended, how long they wait and run, whether the queue is \
        paused; summed over the nodes that answered.";
    const KIND: Kind = Kind::Read;
    type Output = QueueState;

    fn request(&self) -> Result<Request, Refusal> {
        Ok(Request::Query(Query::Stats {
            scope: self.scope.into(),
            workers: self.include_worker_stats,
            historical: self.include_historical,
        }))
    }

    fn output(self, reply: Reply, _: &Context<'_>) -> Result<QueueState, Failure> {
        let Reply::Stats(stats) = reply else { return Err(mismatch(Self::NAME)) };
        Ok(queue_state(*stats))
    }
}

/// Start nothing new in the whole mesh.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct QueuePause {
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::REASON_BYTES))]
    #[arg(long)]
    pub reason: Option<String>,
}

/// What `queue_pause` answers.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Paused {
    /// `paused`.
    pub status: &'static str,
    /// When.
    pub paused_at: String,
    /// Waiting.
    pub queued_tasks: u64,
    /// Running on.
    pub running_tasks: u64,
}

impl Op for QueuePause {
    const NAME: &'static str = "queue_pause";
    const TITLE: &'static str = "Pause the queue";
    const DESCRIPTION: &'static str = "Starts no new task on any node, also on those that join or restart later, until \
        queue_resume. Running tasks go on; submissions are still taken.";
    const KIND: Kind = Kind::Repeatable;
    type Output = Paused;

    fn request(&self) -> Result<Request, Refusal> {
        Ok(Request::Command(Command::Pause { reason: self.reason.as_deref().map(Arc::from) }))
    }

    fn output(self, reply: Reply, _: &Context<'_>) -> Result<Paused, Failure> {
        let Reply::Paused { at, queued, running } = reply else { return Err(mismatch(Self::NAME)) };
        Ok(Paused { status: "paused", paused_at: value::time(at), queued_tasks: queued, running_tasks: running })
    }
}

/// Go on after a pause.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct QueueResume {
    /// Give every waiting task the place of its current priority.
    #[serde(default = "yes")]
    #[arg(long, action = clap::ArgAction::Set, default_value_t = true)]
    pub reorder_by_priority: bool,
}

/// What `queue_resume` answers.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Resumed {
    /// `active`.
    pub status: &'static str,
    /// When.
    pub resumed_at: String,
    /// Waiting.
    pub queued_tasks: u64,
    /// Places were given anew.
    pub reordered: bool,
}

impl Op for QueueResume {
    const NAME: &'static str = "queue_resume";
    const TITLE: &'static str = "Resume the queue";
    const DESCRIPTION: &'static str = "Ends a pause: waiting tasks start again on every node.";
    const KIND: Kind = Kind::Repeatable;
    type Output = Resumed;

    fn request(&self) -> Result<Request, Refusal> {
        Ok(Request::Command(Command::Resume { reorder: self.reorder_by_priority }))
    }

    fn output(self, reply: Reply, _: &Context<'_>) -> Result<Resumed, Failure> {
        let Reply::Resumed { at, queued, reordered } = reply else { return Err(mismatch(Self::NAME)) };
        Ok(Resumed { status: "active", resumed_at: value::time(at), queued_tasks: queued, reordered })
    }
}

/// What `queue_clear` may drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Clearable {
    /// All that wait: they become cancelled.
    Queued,
    /// Forgotten.
    Failed,
    /// Forgotten.
    Cancelled,
}

/// Drop tasks that do not run.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct QueueClear {
    /// Only these; default: all that do not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[arg(long = "status", value_enum)]
    pub status_filter: Option<Clearable>,
    /// Yes, really.
    #[serde(default)]
    #[arg(long)]
    pub confirm: bool,
}

/// What `queue_clear` answers.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Cleared {
    /// Dropped.
    pub cleared_count: u64,
    /// Waiting still.
    pub remaining_count: u64,
    /// When.
    pub cleared_at: String,
    /// Nodes that did it.
    pub nodes_answered: u32,
    /// Nodes that should have.
    pub nodes_expected: u32,
}

impl Op for QueueClear {
    const NAME: &'static str = "queue_clear";
    const TITLE: &'static str = "Clear the queue";
    const DESCRIPTION: &'static str = "Drops tasks of the whole mesh that do not run: waiting ones become cancelled, failed \
        and cancelled ones are forgotten. Without `confirm: true` your user is asked, or the answer is \
        confirmation_required.";
    const KIND: Kind = Kind::Destructive;
    type Output = Cleared;

    fn request(&self) -> Result<Request, Refusal> {
        let which = match self.status_filter {
            None => ClearScope::NotRunning,
            Some(Clearable::Queued) => ClearScope::Queued,
            Some(Clearable::Failed) => ClearScope::Failed,
            Some(Clearable::Cancelled) => ClearScope::Cancelled,
        };
        Ok(Request::Command(Command::Clear { which, scope: CoreScope::Mesh }))
    }

    fn output(self, reply: Reply, _: &Context<'_>) -> Result<Cleared, Failure> {
        let Reply::Cleared { cleared, remaining, at, answered, expected } = reply else {
            return Err(mismatch(Self::NAME));
        };
        Ok(Cleared {
            cleared_count: cleared,
            remaining_count: remaining,
            cleared_at: value::time(at),
            nodes_answered: answered,
            nodes_expected: expected,
        })
    }

    fn question(&self) -> Option<String> {
        let which = match self.status_filter {
            None => "every task that does not run",
            Some(Clearable::Queued) => "every waiting task",
            Some(Clearable::Failed) => "every failed task",
            Some(Clearable::Cancelled) => "every cancelled task",
        };
        (!self.confirm).then(|| format!("Drop {which} of the whole mesh? This can't be undone."))
    }
}

/// Try a task again that did not complete.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct TaskRetry {
    /// Failed, cancelled or expired.
    #[schemars(length(min = 1, max = TaskId::MAX_BYTES))]
    pub task_id: String,
    /// Instead of the old task's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[arg(long, value_name = "JSON", value_parser = value::json_argument::<RetryConfig>)]
    pub retry_config: Option<RetryConfig>,
}

/// What the new task does differently.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RetryConfig {
    /// Attempts after the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = limits::RETRIES))]
    pub max_retries: Option<u32>,
    /// Seconds for one attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = super::submit::YEAR_S))]
    pub timeout: Option<u64>,
}

/// What `task_retry` answers.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Retried {
    /// The old task.
    pub task_id: String,
    /// The new one.
    pub retry_task_id: String,
    /// How often the old one was tried again.
    pub retry_count: u32,
    /// The new one's place among its home's queued tasks, from 1.
    pub queue_position: Option<u64>,
}

impl Op for TaskRetry {
    const NAME: &'static str = "task_retry";
    const TITLE: &'static str = "Retry a task";
    const DESCRIPTION: &'static str = "Makes a new task, `<task_id>-retry-<n>`, of one that failed, was cancelled or \
        expired. The old one stays, and each names the other.";
    const KIND: Kind = Kind::Change;
    type Output = Retried;

    fn request(&self) -> Result<Request, Refusal> {
        let config = self.retry_config.clone().unwrap_or_default();
        Ok(Request::Command(Command::Retry {
            task: value::task("task_id", &self.task_id)?,
            max_retries: config.max_retries,
            timeout: config.timeout.map(|s| Millis(s * 1000)),
        }))
    }

    fn output(self, reply: Reply, _: &Context<'_>) -> Result<Retried, Failure> {
        let Reply::Retried { task, retry, count, position } = reply else { return Err(mismatch(Self::NAME)) };
        let (task_id, retry_task_id) = (task.to_string(), retry.to_string());
        Ok(Retried { task_id, retry_task_id, retry_count: count, queue_position: position })
    }
}
