//! `workflow_submit`, `workflow_cancel` and `workflow_list`; what is read of one
//! workflow is in [`super::graph`].

use super::failure::invalid;
use super::schedule::Schedule;
use super::submit::{Requirements, RetryPolicy};
use super::value::{self, Object};
use super::{Code, Context, Failure, Kind, Op, mismatch, schema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;
use taskmesh_core::command::{Detail, Scope, Submission, TaskFilter, TaskOrder};
use taskmesh_core::task::{Durability, Priority};
use taskmesh_core::view::{Foreseen, Status, TaskView};
use taskmesh_core::workflow::{self, Definition, Plan};
use taskmesh_core::{Command, Millis, Query, Refusal, Reply, Request, Spec, TaskId, Unix, limits};

/// Submit a workflow: steps that wait for each other.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct WorkflowSubmit {
    /// For people.
    #[schemars(length(min = 1, max = limits::TEXT_BYTES))]
    pub name: String,
    /// Instead of `template`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limits::STEPS))]
    #[arg(long = "step", value_name = "JSON", value_parser = value::json_argument::<WorkflowStep>)]
    pub steps: Vec<WorkflowStep>,
    /// Your own id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = TaskId::MAX_BYTES))]
    #[arg(long)]
    pub workflow_id: Option<String>,
    /// Above 0; of all its steps.
    #[serde(default = "normal")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    #[arg(long, default_value_t = normal())]
    pub priority: f64,
    /// Of it and its steps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limits::TAGS), inner(length(min = 1, max = limits::TEXT_BYTES)))]
    #[arg(long = "tag")]
    pub tags: Vec<String>,
    /// Workflows that must complete first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limits::DEPENDENCIES), inner(length(min = 1, max = TaskId::MAX_BYTES)))]
    #[arg(long = "depends-on", value_name = "WORKFLOW_ID")]
    pub dependencies: Vec<String>,
    /// Kept for you.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[arg(long, value_name = "JSON", value_parser = value::json_argument::<Object>)]
    pub metadata: Option<Object>,
    /// {template_id, version?, parameters}.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[arg(long, value_name = "JSON", value_parser = value::json_argument::<Object>)]
    pub template: Option<Object>,
    /// `${params.x}` in inputs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[arg(long, value_name = "JSON", value_parser = value::json_argument::<Object>)]
    pub params: Option<Object>,
    /// Steps at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = limits::STEPS))]
    #[arg(long)]
    pub max_concurrent: Option<u32>,
    /// RFC 3339: expires then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40))]
    #[arg(long)]
    pub deadline: Option<String>,
    /// Only plan.
    #[serde(default)]
    #[arg(long)]
    pub dry_run: bool,
    /// As in task_submit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[arg(long, value_name = "JSON", value_parser = value::json_argument::<Object>)]
    pub schedule: Option<Object>,
}

/// One step.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WorkflowStep {
    /// A-Z a-z 0-9 _ -.
    #[schemars(length(min = 1, max = limits::STEP_ID_BYTES))]
    pub step_id: String,
    /// Task type, or wait {seconds|until}, approve {message}, workflow {definition, params} or {template}.
    #[schemars(length(min = 1, max = limits::TEXT_BYTES))]
    pub action: String,
    /// The payload. `${steps.ID.result.path}` keeps its type.
    #[serde(default)]
    pub inputs: Object,
    /// Steps before it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limits::STEPS), inner(length(min = 1, max = limits::STEP_ID_BYTES)))]
    pub depends_on: Vec<String>,
    /// Of these: all, any, quorum:n, always.
    #[serde(default = "all")]
    #[schemars(length(max = 20))]
    pub join: String,
    /// CEL: steps.ID.result.n > 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = workflow::condition::BYTES))]
    pub when: Option<String>,
    /// Array or reference; `${item}`, `${index}` in inputs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_each: Option<Value>,
    /// Of these at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = limits::ITEMS))]
    pub max_concurrent: Option<u32>,
    /// fail, continue, compensate:STEP.
    #[serde(default = "fail")]
    #[schemars(length(max = 80))]
    pub on_failure: String,
    /// Seconds for one attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = super::submit::YEAR_S))]
    pub timeout: Option<u64>,
    /// As in task_submit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requirements: Option<Object>,
    /// As in task_submit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_policy: Option<Object>,
}

fn normal() -> f64 {
    1.0
}

fn all() -> String {
    workflow::Join::All.to_string()
}

fn fail() -> String {
    workflow::OnFailure::Fail.to_string()
}

/// What `workflow_submit` answers.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Planned {
    /// Null after a dry run without an id of your own.
    pub workflow_id: Option<String>,
    /// `submitted`, or what it is doing if it was there before; `planned` after a dry run.
    pub status: &'static str,
    /// The node that owns it.
    pub peer_assigned: Option<String>,
    /// Null: not measured.
    pub estimated_start_time: Option<String>,
    /// How many steps it has.
    pub step_count: usize,
    /// Steps by level; each level waits for the one before.
    pub levels: Vec<Vec<String>>,
    /// The longest chain of steps.
    pub critical_path: Vec<String>,
    /// It was there before.
    pub replayed: bool,
    /// Where each step could run now: after a dry run.
    pub feasible: Option<Vec<Place>>,
    /// For people.
    pub message: String,
}

/// Where a step could run.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Place {
    /// Which.
    pub step_id: String,
    /// Nodes with such a worker.
    pub nodes: Vec<String>,
    /// Why there are none.
    pub reason: Option<String>,
}

impl From<&Foreseen> for Place {
    fn from(step: &Foreseen) -> Place {
        Place {
            step_id: step.step.to_string(),
            nodes: step.nodes.iter().map(ToString::to_string).collect(),
            reason: step.reason.as_ref().map(ToString::to_string),
        }
    }
}

impl WorkflowStep {
    fn core(&self, n: usize) -> Result<workflow::Step, Refusal> {
        let at = |field: &str| format!("steps[{n}].{field}");
        let literal =
            self.inputs.get("argv").and_then(|v| v.get(0)).and_then(Value::as_str).filter(|p| !p.contains("${"));
        let programs: BTreeSet<String> = match (self.action.as_str(), literal) {
            ("exec", Some(program)) if !program.is_empty() => [program.to_owned()].into(),
            ("exec", _) => {
                let problem = "must be an array that starts with the program's name, written out";
                return Err(invalid(&at("inputs.argv"), problem));
            }
            _ => BTreeSet::new(),
        };
        let requirements: Option<Requirements> = part(&at("requirements"), self.requirements.as_ref())?;
        let retry: Option<RetryPolicy> = part(&at("retry_policy"), self.retry_policy.as_ref())?;
        let mut inputs = self.inputs.clone();
        if self.action == workflow::WORKFLOW
            && let Some(definition) = inputs.get_mut("definition")
        {
            *definition = self.inner(&at("inputs.definition"), definition)?;
        }
        Ok(workflow::Step {
            inputs: Value::Object(inputs),
            depends_on: self.depends_on.clone(),
            join: self.join.parse().map_err(|e: String| invalid(&at("join"), e))?,
            when: self.when.clone(),
            for_each: self.for_each.clone(),
            max_concurrent: self.max_concurrent,
            on_failure: self.on_failure.parse().map_err(|e: String| invalid(&at("on_failure"), e))?,
            requirements: super::submit::needs(requirements.unwrap_or_default(), programs)
                .map_err(|e| within(&format!("steps[{n}]"), e))?,
            timeout: self.timeout.map(|s| Millis(s * 1000)),
            retry: retry.unwrap_or_default().core(),
            ..workflow::Step::new(&self.step_id, &self.action)
        })
    }
}

/// Puts the place of a whole before that of its part.
fn within(outer: &str, refusal: Refusal) -> Refusal {
    match refusal {
        Refusal::Invalid { field, problem } => invalid(&format!("{outer}.{field}"), &*problem),
        other => other,
    }
}

/// A part of a step that is written as in `task_submit`.
fn part<T: JsonSchema + serde::de::DeserializeOwned>(
    field: &str,
    given: Option<&Object>,
) -> Result<Option<T>, Refusal> {
    let Some(given) = given else { return Ok(None) };
    let value = Value::Object(given.clone());
    schema::check(&schema::input::<T>(), &value).map_err(|e| within(field, e))?;
    serde_json::from_value(value).map(Some).map_err(|e| invalid(field, e.to_string()))
}

impl WorkflowStep {
    fn inner(&self, at: &str, definition: &Value) -> Result<Value, Refusal> {
        let inner: Inner = serde_json::from_value(definition.clone()).map_err(|e| invalid(at, e.to_string()))?;
        let inner = inner.core().map_err(|e| within(at, e))?;
        serde_json::to_value(inner).map_err(|e| invalid(at, e.to_string()))
    }
}

impl WorkflowSubmit {
    /// What is stored of it, checked.
    fn plan(&self) -> Result<Plan, Refusal> {
        if self.template.is_some() {
            return Err(invalid("template", "is filled in by the node that is asked; this face does not do that"));
        }
        let whole = Inner {
            name: self.name.clone(),
            steps: self.steps.clone(),
            params: self.params.clone().map_or(Value::Null, Value::Object),
            max_concurrent: self.max_concurrent,
        };
        Plan::new(whole.core()?).map_err(|e| invalid(&e.field, e.problem))
    }

    fn spec(&self, payload: Arc<[u8]>) -> Result<Spec, Refusal> {
        let metadata = self.metadata.as_ref();
        let metadata = metadata.map(|m| value::object_text("metadata", m, limits::METADATA_BYTES)).transpose()?;
        let deadline = self.deadline.as_ref().map(|t| value::read_time("deadline", t)).transpose()?;
        let depends_on = self.dependencies.iter().map(|id| value::task("dependencies", id));
        Ok(Spec {
            task_type: workflow::WORKFLOW.into(),
            payload,
            tags: self.tags.iter().map(|t| t.as_str().into()).collect(),
            metadata: metadata.map(Arc::from),
            timeout: None,
            retry: taskmesh_core::task::RetryPolicy::default(),
            requirements: taskmesh_core::task::Requirements::default(),
            not_before: None,
            deadline,
            depends_on: depends_on.collect::<Result<_, _>>()?,
            fairness_key: None,
            durability: Durability::Replicated,
            exclusive: false,
            idempotency_key: None,
            retry_of: None,
            submitted_at: Unix(0),
            submitter: None,
            trace: None,
            cache: None,
        })
    }
}

/// A workflow as a step: written like any other.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Inner {
    name: String,
    steps: Vec<WorkflowStep>,
    #[serde(default)]
    params: Value,
    #[serde(default)]
    max_concurrent: Option<u32>,
}

impl Inner {
    fn core(self) -> Result<Definition, Refusal> {
        let steps = self.steps.iter().enumerate().map(|(n, step)| step.core(n)).collect::<Result<_, _>>()?;
        let Inner { name, params, max_concurrent, .. } = self;
        Ok(Definition { name, params, steps, items: None, max_concurrent })
    }
}

fn text_of(plan: &Plan) -> Result<Arc<[u8]>, Refusal> {
    let text = serde_json::to_string(&plan.definition).map_err(|e| invalid("steps", e.to_string()))?;
    value::bounded("steps", &text, limits::PAYLOAD_BYTES)?;
    Ok(text.into_bytes().into())
}

impl Op for WorkflowSubmit {
    const NAME: &'static str = "workflow_submit";
    const TITLE: &'static str = "Submit a workflow";
    const DESCRIPTION: &'static str = "Hands a graph of steps to the mesh, checked whole first. Each step becomes the task \
        <workflow_id>/<step_id>. Follow it with workflow_status.";
    const KIND: Kind = Kind::Change;
    type Output = Planned;

    fn request(&self) -> Result<Request, Refusal> {
        let plan = self.plan()?;
        let payload = text_of(&plan)?;
        let task = self.workflow_id.as_ref().map(|id| value::task("workflow_id", id)).transpose()?;
        let longest = plan.levels().into_iter().flatten().map(|id| id.len()).max().unwrap_or(0);
        if task.as_ref().is_some_and(|t| t.as_str().len() + 1 + longest > TaskId::MAX_BYTES) {
            let problem = format!("with a step's id it has more than {} bytes", TaskId::MAX_BYTES);
            return Err(invalid("workflow_id", problem));
        }
        let priority = Priority::new(self.priority).ok_or_else(|| invalid("priority", "must be finite and above 0"))?;
        let spec = self.spec(payload)?;
        if self.dry_run {
            return Ok(Request::Query(Query::Foresee(spec.payload)));
        }
        let schedule: Option<Schedule> = part("schedule", self.schedule.as_ref())?;
        let spec = match schedule {
            Some(schedule) => schedule.wrap(spec)?,
            None => spec,
        };
        Ok(Request::Command(Command::Submit(Box::new(Submission { task, spec, priority, items: Vec::new() }))))
    }

    fn output(self, reply: Reply, _: &Context<'_>) -> Result<Planned, Failure> {
        let plan = self.plan()?;
        let (levels, critical_path) = (plan.levels(), plan.critical_path(&|_| 1));
        let step_count = plan.len();
        match reply {
            Reply::Submitted(taken) => Ok(Planned {
                message: match self.schedule {
                    Some(_) => format!("a schedule: {step_count} steps in {} levels at each tick", levels.len()),
                    None => format!("{step_count} steps in {} levels", levels.len()),
                },
                workflow_id: Some(taken.task.to_string()),
                status: if taken.replayed { workflow_status(taken.status, true) } else { SUBMITTED },
                peer_assigned: Some(taken.home.to_string()),
                estimated_start_time: taken.estimated_start.map(value::time),
                step_count,
                levels,
                critical_path,
                replayed: taken.replayed,
                feasible: None,
            }),
            Reply::Foreseen(steps) => {
                let nowhere = steps.iter().filter(|s| s.nodes.is_empty()).count();
                Ok(Planned {
                    message: match nowhere {
                        0 => "nothing was stored; every step could run now".to_owned(),
                        n => format!("nothing was stored; {n} steps have no worker that could run them now"),
                    },
                    workflow_id: self.workflow_id,
                    status: "planned",
                    peer_assigned: None,
                    estimated_start_time: None,
                    step_count,
                    levels,
                    critical_path,
                    replayed: false,
                    feasible: Some(steps.iter().map(Place::from).collect()),
                })
            }
            _ => Err(mismatch(Self::NAME)),
        }
    }
}

const SUBMITTED: &str = "submitted";

/// The state of a workflow by that of its record.
pub(crate) fn workflow_status(status: Status, begun: bool) -> &'static str {
    match status {
        Status::Running if !begun => SUBMITTED,
        Status::Completed | Status::Failed | Status::Cancelled | Status::Expired => status.name(),
        Status::Queued | Status::Blocked | Status::Delayed | Status::Leased | Status::Running => Status::Running.name(),
    }
}

/// The same, from a view.
pub(crate) fn status_of(view: &TaskView) -> &'static str {
    let begun = view.workflow.as_ref().is_some_and(|w| w.tally.keys().any(|status| **status != *"waiting"));
    workflow_status(view.status, begun)
}

/// Stop a workflow.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct WorkflowCancel {
    /// Which.
    #[schemars(length(min = 1, max = TaskId::MAX_BYTES))]
    pub workflow_id: String,
    /// For the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::REASON_BYTES))]
    #[arg(long)]
    pub reason: Option<String>,
    /// Kill what runs.
    #[serde(default)]
    #[arg(long)]
    pub force: bool,
}

/// What `workflow_cancel` answers.
#[derive(Debug, Serialize, JsonSchema)]
pub struct WorkflowCancelled {
    /// Which.
    pub workflow_id: String,
    /// `cancelled`.
    pub status: &'static str,
    /// Steps that will not complete because of it: those that waited, and those
    /// that ran and are stopped.
    pub cancelled_steps: Vec<String>,
    /// For people.
    pub message: String,
}

impl Op for WorkflowCancel {
    const NAME: &'static str = "workflow_cancel";
    const TITLE: &'static str = "Cancel a workflow";
    const DESCRIPTION: &'static str = "Ends a workflow: no step begins any more, running ones are asked to stop. \
        Results of ended steps stay.";
    const KIND: Kind = Kind::Destructive;
    type Output = WorkflowCancelled;

    fn request(&self) -> Result<Request, Refusal> {
        let task = value::task("workflow_id", &self.workflow_id)?;
        let reason = self.reason.as_deref().map(Arc::from);
        Ok(Request::Command(Command::CancelWorkflow { task, reason, force: self.force }))
    }

    fn output(self, reply: Reply, _: &Context<'_>) -> Result<WorkflowCancelled, Failure> {
        let Reply::WorkflowCancelled { task, steps, .. } = reply else { return Err(mismatch(Self::NAME)) };
        Ok(WorkflowCancelled {
            workflow_id: task.to_string(),
            status: Status::Cancelled.name(),
            message: format!("{} steps will not complete", steps.len()),
            cancelled_steps: steps.iter().map(ToString::to_string).collect(),
        })
    }
}

/// A state of workflows, for filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum WorkflowState {
    /// Nothing has begun.
    Submitted,
    /// Steps have begun.
    Running,
    /// Ended well.
    Completed,
    /// A step failed.
    Failed,
    /// Stopped.
    Cancelled,
}

/// List workflows.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct WorkflowList {
    /// In this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[arg(long = "status", value_enum)]
    pub status_filter: Option<WorkflowState>,
    /// Owned by this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[arg(long = "peer")]
    pub peer_filter: Option<String>,
    /// Having all of these tags.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limits::TAGS), inner(length(min = 1, max = limits::TEXT_BYTES)))]
    #[arg(long = "tag")]
    pub tag_filter: Vec<String>,
    /// In one page.
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
}

fn page() -> u32 {
    50
}

/// What `workflow_list` answers.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Workflows {
    /// The page, in order of submission, then id, or in the reverse of that.
    pub workflows: Vec<WorkflowItem>,
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

/// One workflow of a list.
#[derive(Debug, Serialize, JsonSchema)]
pub struct WorkflowItem {
    /// Which.
    pub workflow_id: String,
    /// For people.
    pub name: String,
    /// What it is doing.
    pub status: &'static str,
    /// Percent of its steps that have ended; of one that is many tasks, their part.
    pub progress: Option<f64>,
    /// How many steps it has.
    pub step_count: u64,
    /// How urgent.
    pub priority: f64,
    /// Its tags.
    pub tags: Vec<String>,
    /// The node that owns it.
    pub peer_id: String,
    /// Accepted at.
    pub submitted_at: String,
    /// Its first step began.
    pub start_time: Option<String>,
    /// It ended.
    pub end_time: Option<String>,
}

/// Percent of the steps that have ended; of one that is many tasks, their part.
pub(crate) fn progress(view: &TaskView) -> Option<f64> {
    let workflow = view.workflow.as_ref()?;
    if view.status == Status::Completed {
        return Some(100.0);
    }
    (workflow.tasks.0 > 0).then(|| f64::from(workflow.ended_milli) / 10.0)
}

fn item(view: &TaskView) -> WorkflowItem {
    let workflow = view.workflow.as_deref();
    WorkflowItem {
        workflow_id: view.task.to_string(),
        name: workflow.map_or(String::new(), |w| w.name.to_string()),
        status: status_of(view),
        progress: progress(view),
        step_count: workflow.map_or(0, |w| w.tally.values().map(|n| u64::from(*n)).sum()),
        priority: view.priority.value(),
        tags: view.tags.iter().map(ToString::to_string).collect(),
        peer_id: view.home.to_string(),
        submitted_at: value::time(view.submitted_at),
        start_time: workflow.and_then(|w| w.started_at).map(value::time),
        end_time: view.ended_at.map(value::time),
    }
}

impl WorkflowList {
    /// One more than the page has, so that a next one is known to be there.
    fn asked(&self) -> u32 {
        (self.limit + 1).min(limits::PAGE as u32)
    }
}

impl Op for WorkflowList {
    const NAME: &'static str = "workflow_list";
    const TITLE: &'static str = "List workflows";
    const DESCRIPTION: &'static str = "Workflows of the whole mesh in order of submission, page by page.";
    const KIND: Kind = Kind::Read;
    type Output = Workflows;

    fn request(&self) -> Result<Request, Refusal> {
        let after = self.cursor.as_deref().map(value::read_task_cursor).transpose()?;
        let statuses = match self.status_filter {
            None => Vec::new(),
            Some(WorkflowState::Submitted | WorkflowState::Running) => vec![Status::Running],
            Some(WorkflowState::Completed) => vec![Status::Completed],
            Some(WorkflowState::Failed) => vec![Status::Failed, Status::Expired],
            Some(WorkflowState::Cancelled) => vec![Status::Cancelled],
        };
        let owner = self.peer_filter.as_deref().map(value::peer).transpose();
        Ok(Request::Query(Query::Tasks(Box::new(TaskFilter {
            statuses,
            tags: self.tag_filter.iter().map(|t| t.as_str().into()).collect(),
            task_type: Some(workflow::WORKFLOW.into()),
            owner: owner.map_err(|_| invalid("peer_filter", "is no peer id"))?,
            begun: match self.status_filter {
                Some(WorkflowState::Submitted) => Some(false),
                Some(WorkflowState::Running) => Some(true),
                _ => None,
            },
            limit: self.asked(),
            offset: if after.is_some() { 0 } else { self.offset },
            order: if self.newest_first { TaskOrder::Newest } else { TaskOrder::Oldest },
            after,
            scope: Scope::Mesh,
            ..TaskFilter::default()
        }))))
    }

    fn output(self, reply: Reply, _: &Context<'_>) -> Result<Workflows, Failure> {
        let Reply::Tasks(mut page) = reply else { return Err(mismatch(Self::NAME)) };
        let limit = self.limit as usize;
        let has_more = page.tasks.len() > limit || (self.asked() == self.limit && page.tasks.len() == limit);
        page.tasks.truncate(limit);
        let last = page.tasks.last().filter(|_| has_more);
        Ok(Workflows {
            next_cursor: last.map(|task| value::task_cursor(task.submitted_at, &task.task)),
            returned_count: page.tasks.len(),
            workflows: page.tasks.iter().map(item).collect(),
            total_count: page.total,
            has_more,
            nodes_answered: page.answered,
            nodes_expected: page.expected,
        })
    }
}

/// The question after one workflow.
pub(crate) fn query(id: &str, detail: Detail) -> Result<Request, Refusal> {
    Ok(Request::Query(Query::Task { task: value::task("workflow_id", id)?, detail, wait: Millis(0) }))
}

/// The view that a node answers with, if it is one of a workflow.
pub(crate) fn view(name: &str, reply: Reply) -> Result<Box<TaskView>, Failure> {
    let Reply::Task(view) = reply else { return Err(mismatch(name)) };
    if view.workflow.is_none() || *view.task_type == *taskmesh_core::array::ARRAY {
        let problem = format!("{} is a task, not a workflow; ask task_status", view.task);
        return Err(Failure::new(Code::NotFound, problem));
    }
    Ok(view)
}
