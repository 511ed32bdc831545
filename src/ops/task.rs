//! `task_status`, `task_cancel`, `task_list` and `task_priority`.

use super::failure::invalid;
use super::result::{log_text, report_usage};
use super::schedule::{Recurrence, recurrence};
use super::{Context, Failure, Kind, Op, mismatch, value};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use taskmesh_core::command::{Detail, Scope as CoreScope, TaskFilter, TaskOrder};
use taskmesh_core::forgotten::Forgotten;
use taskmesh_core::task::Priority;
use taskmesh_core::view::{self, Status, TaskView};
use taskmesh_core::{Command, Millis, Query, Refusal, Reply, Request, TaskId, WorkerId, limits};

/// Show what a task is doing.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct TaskStatus {
    /// Which.
    #[schemars(length(min = 1, max = TaskId::MAX_BYTES))]
    pub task_id: String,
    /// Its log, or the tail of it while it runs.
    #[serde(default)]
    #[arg(long)]
    pub include_logs: bool,
    /// Times, failures and what was used.
    #[serde(default)]
    #[arg(long)]
    pub include_metrics: bool,
    /// Why it waits, node by node, and what comes next.
    #[serde(default)]
    #[arg(long)]
    pub explain: bool,
}

/// What `task_status` answers.
#[derive(Debug, Serialize, JsonSchema)]
pub struct TaskState {
    /// Which.
    pub task_id: String,
    /// Its executor.
    pub task_type: String,
    /// What it is doing.
    pub status: &'static str,
    /// Percent, as the executor says.
    pub progress: Option<u8>,
    /// What the executor says.
    pub progress_message: Option<String>,
    /// Where it runs or ran last.
    pub worker_id: Option<String>,
    /// Grants so far.
    pub attempt: u32,
    /// The current or last attempt began.
    pub start_time: Option<String>,
    /// It ended.
    pub end_time: Option<String>,
    /// Its place among its home's queued tasks, from 1.
    pub queue_position: Option<u64>,
    /// The log, if asked.
    pub logs: Option<String>,
    /// Measurements, if asked.
    pub metrics: Option<TaskMetrics>,
    /// Why it waits, if asked and it waits.
    pub explanation: Option<Explanation>,
    /// What the last failed attempt said, or why it ended.
    pub error: Option<String>,
    /// The task that this one tries again.
    pub retry_of: Option<String>,
    /// The newest task that tries this one again.
    pub retried_as: Option<String>,
    /// When it fires, if it is a schedule.
    pub schedule: Option<Recurrence>,
    /// The run whose result it took, if it did not run.
    pub cached_from: Option<super::result::CachedFrom>,
    /// Holders that an operator said are gone for ever; left out where there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forgotten_holders: Option<Vec<ForgottenHolder>>,
}

/// A holder without which a record goes on.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ForgottenHolder {
    /// Which node.
    pub peer_id: String,
    /// Who said that it is gone for ever; empty: whoever had the machine of a node.
    pub forgotten_by: String,
    /// When.
    pub forgotten_at: String,
    /// Why, for people.
    pub reason: Option<String>,
}

impl ForgottenHolder {
    /// `None`: there are none.
    pub(super) fn of(words: &[Forgotten]) -> Option<Vec<ForgottenHolder>> {
        (!words.is_empty()).then(|| words.iter().map(Into::into).collect())
    }
}

impl From<&Forgotten> for ForgottenHolder {
    fn from(word: &Forgotten) -> ForgottenHolder {
        ForgottenHolder {
            peer_id: word.node.to_string(),
            forgotten_by: word.by.to_string(),
            forgotten_at: value::time(word.at),
            reason: word.reason.as_ref().map(ToString::to_string),
        }
    }
}

/// Measurements of a task; null where nothing was measured.
#[derive(Debug, Serialize, JsonSchema)]
pub struct TaskMetrics {
    /// Accepted at.
    pub submitted_at: String,
    /// Waits until then.
    pub delayed_until: Option<String>,
    /// Attempts that failed by themselves.
    pub failures: u32,
    /// Attempts that were lost with their nodes.
    pub crashes: u32,
    /// Seconds from acceptance to the start of the last attempt.
    pub wait_time: Option<f64>,
    /// Seconds that the last attempt ran.
    pub execution_time: Option<f64>,
    /// Milliseconds of the processor in user mode.
    pub cpu_user_ms: Option<u64>,
    /// Milliseconds of the processor in the kernel.
    pub cpu_system_ms: Option<u64>,
    /// The most memory at once, KiB.
    pub max_rss_kib: Option<u64>,
    /// The nodes that keep the record.
    pub holders: Vec<String>,
    /// How often the ownership of the record changed hands, from 1.
    pub epoch: u32,
}

/// Why a task waits.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Explanation {
    /// One word: what it waits for.
    pub reason: Option<&'static str>,
    /// One sentence.
    pub summary: String,
    /// Why each known node was not chosen.
    pub nodes: Vec<NotChosen>,
    /// What will happen next.
    pub next: String,
    /// And when.
    pub next_at: Option<String>,
}

/// A node, or a worker of it, that was not chosen.
#[derive(Debug, Serialize, JsonSchema)]
pub struct NotChosen {
    /// The node.
    pub node: String,
    /// The worker, where it has one.
    pub worker_id: Option<String>,
    /// Why.
    pub reason: String,
}

impl From<view::Explanation> for Explanation {
    fn from(why: view::Explanation) -> Explanation {
        let not_chosen = |(node, worker, reason): (taskmesh_core::NodeId, Option<WorkerId>, Arc<str>)| NotChosen {
            node: node.to_string(),
            worker_id: worker.map(|w| w.to_string()),
            reason: reason.to_string(),
        };
        Explanation {
            reason: why.reason.map(|reason| reason.name()),
            summary: why.summary.to_string(),
            nodes: why.nodes.into_iter().map(not_chosen).collect(),
            next: why.next.to_string(),
            next_at: why.next_at.map(value::time),
        }
    }
}

fn metrics(task: &TaskView) -> TaskMetrics {
    let usage = report_usage(task);
    TaskMetrics {
        submitted_at: value::time(task.submitted_at),
        delayed_until: task.delayed_until.map(value::time),
        failures: task.failures,
        crashes: task.crashes,
        wait_time: task.started_at.map(|at| value::seconds(at.since(task.submitted_at))),
        execution_time: super::result::execution_time(task),
        cpu_user_ms: usage.cpu_user.map(|t| t.0),
        cpu_system_ms: usage.cpu_system.map(|t| t.0),
        max_rss_kib: usage.max_rss_kib,
        holders: task.holders.iter().map(ToString::to_string).collect(),
        epoch: task.epoch,
    }
}

impl Op for TaskStatus {
    const NAME: &'static str = "task_status";
    const TITLE: &'static str = "Show a task";
    const DESCRIPTION: &'static str = "What a task is doing: state, progress, attempt, worker, place in the queue. \
        Any node answers.";
    const KIND: Kind = Kind::Read;
    type Output = TaskState;

    fn request(&self) -> Result<Request, Refusal> {
        let report = self.include_logs || self.include_metrics;
        let detail = Detail { report, live: true, explain: self.explain, ..Detail::default() };
        Ok(Request::Query(Query::Task { task: value::task("task_id", &self.task_id)?, detail, wait: Millis(0) }))
    }

    fn output(self, reply: Reply, context: &Context<'_>) -> Result<TaskState, Failure> {
        let Reply::Task(task) = reply else { return Err(mismatch(Self::NAME)) };
        let logs = if self.include_logs { log_text(&task, context)?.text } else { None };
        Ok(TaskState {
            schedule: recurrence(&task),
            task_id: task.task.to_string(),
            task_type: task.task_type.to_string(),
            status: task.status.name(),
            progress: task.progress,
            progress_message: task.message.as_ref().map(ToString::to_string),
            worker_id: task.executor.as_ref().map(|(_, worker)| worker.to_string()),
            attempt: task.attempt,
            start_time: task.started_at.map(value::time),
            end_time: task.ended_at.map(value::time),
            queue_position: task.position,
            cached_from: super::result::CachedFrom::of(&task),
            forgotten_holders: ForgottenHolder::of(&task.forgotten),
            logs,
            metrics: self.include_metrics.then(|| metrics(&task)),
            explanation: task.explanation.filter(|_| self.explain).map(Explanation::from),
            error: task.error.map(|e| e.to_string()),
            retry_of: task.retry_of.map(|t| t.to_string()),
            retried_as: task.retried_as.map(|t| t.to_string()),
        })
    }
}

/// Stop a task.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct TaskCancel {
    /// Which.
    #[schemars(length(min = 1, max = TaskId::MAX_BYTES))]
    pub task_id: String,
    /// For the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::REASON_BYTES))]
    #[arg(long)]
    pub reason: Option<String>,
    /// Kill instead of asking to stop.
    #[serde(default)]
    #[arg(long)]
    pub force: bool,
}

/// What `task_cancel` answers.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Cancelled {
    /// Which.
    pub task_id: String,
    /// `cancelled`, or `running` until its program has stopped.
    pub status: &'static str,
    /// When it was cancelled or asked to stop.
    pub cancelled_at: String,
    /// A program is still to end.
    pub cleanup_required: bool,
}

impl Op for TaskCancel {
    const NAME: &'static str = "task_cancel";
    const TITLE: &'static str = "Cancel a task";
    const DESCRIPTION: &'static str = "Stops a task. One that waits is cancelled at once; a running one is asked to stop \
        (SIGTERM). A schedule ends, its ticks go on. One that has ended stays as it is: failed_precondition.";
    const KIND: Kind = Kind::Destructive;
    type Output = Cancelled;

    fn request(&self) -> Result<Request, Refusal> {
        let task = value::task("task_id", &self.task_id)?;
        Ok(Request::Command(Command::Cancel { task, reason: self.reason.as_deref().map(Arc::from), force: self.force }))
    }

    fn output(self, reply: Reply, _: &Context<'_>) -> Result<Cancelled, Failure> {
        let Reply::Cancelled { task, status, at, cleanup_required } = reply else { return Err(mismatch(Self::NAME)) };
        let (status, cancelled_at) = (status.name(), value::time(at));
        Ok(Cancelled { task_id: task.to_string(), status, cancelled_at, cleanup_required })
    }
}

/// Change a task's priority.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct TaskPriority {
    /// Which.
    #[schemars(length(min = 1, max = TaskId::MAX_BYTES))]
    pub task_id: String,
    /// Above 0; higher runs earlier.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub new_priority: f64,
    /// Move it in the queue now.
    #[serde(default = "yes")]
    #[arg(long, action = clap::ArgAction::Set, default_value_t = true)]
    pub requeue: bool,
}

pub(crate) fn yes() -> bool {
    true
}

/// What `task_priority` answers.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Reprioritised {
    /// Which.
    pub task_id: String,
    /// Before.
    pub old_priority: f64,
    /// After.
    pub new_priority: f64,
    /// Its place among its home's queued tasks, from 1; null unless queued.
    pub new_queue_position: Option<u64>,
}

impl Op for TaskPriority {
    const NAME: &'static str = "task_priority";
    const TITLE: &'static str = "Change a task's priority";
    const DESCRIPTION: &'static str = "Makes a waiting task more or less urgent. Waiting tasks age, so none starves.";
    const KIND: Kind = Kind::Repeatable;
    type Output = Reprioritised;

    fn request(&self) -> Result<Request, Refusal> {
        let task = value::task("task_id", &self.task_id)?;
        let bad = || invalid("new_priority", "must be finite and above 0");
        let priority = Priority::new(self.new_priority).ok_or_else(bad)?;
        Ok(Request::Command(Command::Reprioritise { task, priority, requeue: self.requeue }))
    }

    fn output(self, reply: Reply, _: &Context<'_>) -> Result<Reprioritised, Failure> {
        let Reply::Reprioritised { task, old, new, position } = reply else { return Err(mismatch(Self::NAME)) };
        let (old_priority, new_priority) = (old.value(), new.value());
        Ok(Reprioritised { task_id: task.to_string(), old_priority, new_priority, new_queue_position: position })
    }
}

/// A state, for filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Ready, or waiting for something.
    Queued,
    /// Waits for other tasks.
    Blocked,
    /// Waits for a time.
    Delayed,
    /// Granted, not known to have started.
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

impl State {
    fn status(self) -> Status {
        match self {
            State::Queued => Status::Queued,
            State::Blocked => Status::Blocked,
            State::Delayed => Status::Delayed,
            State::Leased => Status::Leased,
            State::Running => Status::Running,
            State::Completed => Status::Completed,
            State::Failed => Status::Failed,
            State::Cancelled => Status::Cancelled,
            State::Expired => Status::Expired,
        }
    }
}

/// Where an answer is gathered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// From every node that answers.
    #[default]
    Mesh,
    /// From this node alone.
    Local,
}

impl From<Scope> for CoreScope {
    fn from(scope: Scope) -> CoreScope {
        match scope {
            Scope::Mesh => CoreScope::Mesh,
            Scope::Local => CoreScope::Local,
        }
    }
}

/// List tasks.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct TaskList {
    /// `queued` also means delayed and blocked unless `exact`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[arg(long = "status", value_enum)]
    pub status_filter: Option<State>,
    /// Take the state literally.
    #[serde(default)]
    #[arg(long)]
    pub exact: bool,
    /// Run, now or last, by this worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = WorkerId::MAX_BYTES))]
    #[arg(long = "worker")]
    pub worker_filter: Option<String>,
    /// Having all of these tags.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limits::TAGS), inner(length(min = 1, max = limits::TEXT_BYTES)))]
    #[arg(long = "tag")]
    pub tag_filter: Vec<String>,
    /// At least this urgent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    #[arg(long)]
    pub priority_min: Option<f64>,
    /// Of this type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = limits::TEXT_BYTES))]
    #[arg(long = "type")]
    pub task_type_filter: Option<String>,
    /// Items of this array, or steps of this workflow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = TaskId::MAX_BYTES))]
    #[arg(long = "workflow")]
    pub workflow_filter: Option<String>,
    /// Tasks in one page.
    #[serde(default = "page")]
    #[schemars(range(min = 1, max = limits::PAGE))]
    #[arg(long, default_value_t = page())]
    pub limit: u32,
    /// Latest submission first.
    #[serde(default)]
    #[arg(long)]
    pub newest_first: bool,
    /// Skip so many.
    #[serde(default)]
    #[schemars(range(max = limits::OFFSET))]
    #[arg(long, default_value_t)]
    pub offset: u32,
    /// `next_cursor` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    #[arg(long)]
    pub cursor: Option<String>,
    /// The whole mesh, or this node.
    #[serde(default)]
    #[arg(long, value_enum, default_value_t)]
    pub scope: Scope,
}

pub(crate) fn page() -> u32 {
    100
}

/// What `task_list` answers.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Tasks {
    /// The page, in order of submission, then id, or in the reverse of that.
    pub tasks: Vec<TaskItem>,
    /// All that the filter passes, on the nodes that answered.
    pub total_count: u64,
    /// In this page.
    pub returned_count: usize,
    /// There is a next page.
    pub has_more: bool,
    /// For the next page.
    pub next_cursor: Option<String>,
    /// Nodes that answered.
    pub nodes_answered: u32,
    /// Nodes that should have.
    pub nodes_expected: u32,
}

/// One task of a list.
#[derive(Debug, Serialize, JsonSchema)]
pub struct TaskItem {
    /// Which.
    pub task_id: String,
    /// Its executor.
    pub task_type: String,
    /// What it is doing.
    pub status: &'static str,
    /// How urgent.
    pub priority: f64,
    /// Its tags.
    pub tags: Vec<String>,
    /// Where it runs or ran last.
    pub worker_id: Option<String>,
    /// Grants so far.
    pub attempt: u32,
    /// Accepted at.
    pub submitted_at: String,
    /// The current or last attempt began.
    pub start_time: Option<String>,
    /// It ended.
    pub end_time: Option<String>,
    /// The node that owns it.
    pub home_node: String,
    /// When it fires, if it is a schedule.
    pub schedule: Option<Recurrence>,
}

fn item(task: TaskView) -> TaskItem {
    TaskItem {
        schedule: recurrence(&task),
        task_id: task.task.to_string(),
        task_type: task.task_type.to_string(),
        status: task.status.name(),
        priority: task.priority.value(),
        tags: task.tags.iter().map(ToString::to_string).collect(),
        worker_id: task.executor.map(|(_, worker)| worker.to_string()),
        attempt: task.attempt,
        submitted_at: value::time(task.submitted_at),
        start_time: task.started_at.map(value::time),
        end_time: task.ended_at.map(value::time),
        home_node: task.home.to_string(),
    }
}

impl TaskList {
    fn statuses(&self) -> Vec<Status> {
        match self.status_filter {
            None => Vec::new(),
            Some(State::Queued) if !self.exact => vec![Status::Queued, Status::Blocked, Status::Delayed],
            Some(state) => vec![state.status()],
        }
    }

    /// One more than the page has, so that a next one is known to be there. A
    /// page of the greatest size has no room for that.
    fn asked(&self) -> u32 {
        (self.limit + 1).min(limits::PAGE as u32)
    }
}

impl Op for TaskList {
    const NAME: &'static str = "task_list";
    const TITLE: &'static str = "List tasks";
    const DESCRIPTION: &'static str = "Tasks of the whole mesh in order of submission, by state, worker, tags, priority or \
        type, page by page.";
    const KIND: Kind = Kind::Read;
    type Output = Tasks;

    fn request(&self) -> Result<Request, Refusal> {
        let after = self.cursor.as_deref().map(value::read_task_cursor).transpose()?;
        let worker = self.worker_filter.as_deref().map(|w| value::worker("worker_filter", w)).transpose()?;
        let parent = self.workflow_filter.as_deref().map(|t| value::task("workflow_filter", t)).transpose()?;
        Ok(Request::Query(Query::Tasks(Box::new(TaskFilter {
            statuses: self.statuses(),
            worker,
            tags: self.tag_filter.iter().map(|t| t.as_str().into()).collect(),
            priority_min: self.priority_min,
            task_type: self.task_type_filter.as_deref().map(Arc::from),
            parent,
            owner: None,
            begun: None,
            limit: self.asked(),
            offset: if after.is_some() { 0 } else { self.offset },
            order: if self.newest_first { TaskOrder::Newest } else { TaskOrder::Oldest },
            after,
            scope: self.scope.into(),
        }))))
    }

    fn output(self, reply: Reply, _: &Context<'_>) -> Result<Tasks, Failure> {
        let Reply::Tasks(mut page) = reply else { return Err(mismatch(Self::NAME)) };
        let limit = self.limit as usize;
        let has_more = page.tasks.len() > limit || (self.asked() == self.limit && page.tasks.len() == limit);
        page.tasks.truncate(limit);
        let last = page.tasks.last().filter(|_| has_more);
        Ok(Tasks {
            next_cursor: last.map(|task| value::task_cursor(task.submitted_at, &task.task)),
            returned_count: page.tasks.len(),
            tasks: page.tasks.into_iter().map(item).collect(),
            total_count: page.total,
            has_more,
            nodes_answered: page.answered,
            nodes_expected: page.expected,
        })
    }
}
