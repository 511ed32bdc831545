//! What is read of one workflow: `workflow_status`, `workflow_result` and
//! `workflow_dependencies`.

use super::result::{log_text, result_value};
use super::value::{self, Object};
use super::workflow::{progress, query, status_of, view};
use super::{Code, Context, Failure, Kind, Op, drawing};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use taskmesh_core::command::Detail;
use taskmesh_core::view::{StepView, TaskView, WorkflowView};
use taskmesh_core::workflow::{Definition, OnFailure};
use taskmesh_core::{Millis, Refusal, Reply, Request, TaskId};

/// Show what a workflow is doing.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct WorkflowStatus {
    /// Which.
    #[schemars(length(min = 1, max = TaskId::MAX_BYTES))]
    pub workflow_id: String,
    /// Every step.
    #[serde(default = "super::task::yes")]
    #[arg(long, action = clap::ArgAction::Set, default_value_t = true)]
    pub include_steps: bool,
    /// Times and counts.
    #[serde(default)]
    #[arg(long)]
    pub include_metrics: bool,
}

/// What `workflow_status` answers.
#[derive(Debug, Serialize, JsonSchema)]
pub struct WorkflowState {
    /// Which.
    pub workflow_id: String,
    /// For people.
    pub name: String,
    /// `submitted`, `running`, `completed`, `failed`, `cancelled` or `expired`.
    pub status: &'static str,
    /// Percent of its steps that have ended; of one that is many tasks, their part.
    pub progress: Option<f64>,
    /// Steps under way, at most 100 of them.
    pub current_steps: Vec<String>,
    /// The first of these.
    pub current_step: Option<String>,
    /// The node that owns it.
    pub peer_id: String,
    /// Its first step began.
    pub start_time: Option<String>,
    /// It ended.
    pub end_time: Option<String>,
    /// In the order of writing, if asked.
    pub steps: Option<Vec<StepState>>,
    /// Measurements, if asked.
    pub metrics: Option<WorkflowMetrics>,
    /// Why it did not complete.
    pub error: Option<String>,
    /// Holders that an operator said are gone for ever; left out where there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forgotten_holders: Option<Vec<super::task::ForgottenHolder>>,
}

/// One step.
#[derive(Debug, Serialize, JsonSchema)]
pub struct StepState {
    /// Its name.
    pub step_id: String,
    /// The state of its task, or `waiting`, `input_required` (approve it), `skipped`.
    pub status: String,
    /// Its task, once it has begun.
    pub task_id: Option<String>,
    /// Grants so far.
    pub attempt: u32,
    /// Where it runs or ran last.
    pub worker_id: Option<String>,
    /// Began to run.
    pub start_time: Option<String>,
    /// Ended.
    pub end_time: Option<String>,
    /// Why it did not complete, or was skipped.
    pub error: Option<String>,
    /// Of how many tasks, where it stands for many.
    pub tasks: Option<u64>,
    /// Of these ended.
    pub tasks_ended: Option<u64>,
}

impl From<&StepView> for StepState {
    fn from(step: &StepView) -> StepState {
        StepState {
            step_id: step.step.to_string(),
            status: step.status.to_string(),
            task_id: step.task.as_ref().map(ToString::to_string),
            attempt: step.attempt,
            worker_id: step.worker.as_ref().map(ToString::to_string),
            start_time: step.started_at.map(value::time),
            end_time: step.ended_at.map(value::time),
            error: step.error.as_ref().map(ToString::to_string),
            tasks: step.tasks.map(|(all, _)| all),
            tasks_ended: step.tasks.map(|(_, ended)| ended),
        }
    }
}

/// Measurements of a workflow; null where nothing was measured.
#[derive(Debug, Serialize, JsonSchema)]
pub struct WorkflowMetrics {
    /// Accepted at.
    pub submitted_at: String,
    /// Tasks that it is known to need.
    pub tasks: u64,
    /// Of these ended.
    pub tasks_ended: u64,
    /// Steps by state.
    pub steps: Object,
    /// Seconds from acceptance to the first step.
    pub wait_time: Option<f64>,
    /// Seconds from the first step to the end, or until now.
    pub execution_time: Option<f64>,
    /// The chain of steps that takes longest: by measured times once steps ran.
    pub critical_path: Vec<String>,
    /// Seconds that this chain took so far.
    pub critical_path_time: Option<f64>,
    /// The nodes that keep the record.
    pub holders: Vec<String>,
    /// How often the ownership of the record changed hands, from 1.
    pub epoch: u32,
}

fn metrics(task: &TaskView, workflow: &WorkflowView, context: &Context<'_>) -> WorkflowMetrics {
    let took = |step: &StepView| step.ended_at.zip(step.started_at).map(|(end, start)| end.since(start));
    let on_path = workflow.steps.iter().flatten().filter(|s| workflow.critical_path.contains(&s.step));
    let path: Vec<Millis> = on_path.filter_map(took).collect();
    WorkflowMetrics {
        submitted_at: value::time(task.submitted_at),
        tasks: workflow.tasks.0,
        tasks_ended: workflow.tasks.1,
        steps: workflow.tally.iter().map(|(status, n)| (status.to_string(), Value::from(*n))).collect(),
        wait_time: workflow.started_at.map(|at| value::seconds(at.since(task.submitted_at))),
        execution_time: execution_time(task, workflow, context),
        critical_path: workflow.critical_path.iter().map(ToString::to_string).collect(),
        critical_path_time: (!path.is_empty()).then(|| value::seconds(Millis(path.iter().map(|t| t.0).sum()))),
        holders: task.holders.iter().map(ToString::to_string).collect(),
        epoch: task.epoch,
    }
}

fn execution_time(task: &TaskView, workflow: &WorkflowView, context: &Context<'_>) -> Option<f64> {
    let from = workflow.started_at?;
    Some(value::seconds(task.ended_at.unwrap_or(context.now).since(from)))
}

fn workflow_of(task: &TaskView) -> Result<&WorkflowView, Failure> {
    let missing = || Failure::new(Code::Internal, "the view is not one of a workflow; this is a defect".to_owned());
    task.workflow.as_deref().ok_or_else(missing)
}

impl Op for WorkflowStatus {
    const NAME: &'static str = "workflow_status";
    const TITLE: &'static str = "Show a workflow";
    const DESCRIPTION: &'static str = "How far a workflow has come, step by step. A step that is `input_required` waits \
        for approval. Any node answers.";
    const KIND: Kind = Kind::Read;
    type Output = WorkflowState;

    fn request(&self) -> Result<Request, Refusal> {
        let steps = self.include_steps || self.include_metrics;
        query(&self.workflow_id, Detail { steps, live: true, ..Detail::default() })
    }

    fn output(self, reply: Reply, context: &Context<'_>) -> Result<WorkflowState, Failure> {
        let task = view(Self::NAME, reply)?;
        let workflow = workflow_of(&task)?;
        let current: Vec<String> = workflow.current.iter().map(ToString::to_string).collect();
        Ok(WorkflowState {
            workflow_id: task.task.to_string(),
            name: workflow.name.to_string(),
            status: status_of(&task),
            progress: progress(&task),
            current_step: current.first().cloned(),
            current_steps: current,
            peer_id: task.home.to_string(),
            start_time: workflow.started_at.map(value::time),
            end_time: task.ended_at.map(value::time),
            steps: workflow.steps.as_ref().filter(|_| self.include_steps).map(|s| s.iter().map(Into::into).collect()),
            metrics: self.include_metrics.then(|| metrics(&task, workflow, context)),
            error: task.error.as_ref().map(ToString::to_string),
            forgotten_holders: super::task::ForgottenHolder::of(&task.forgotten),
        })
    }
}

/// Read what a workflow left.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct WorkflowResult {
    /// Which.
    #[schemars(length(min = 1, max = TaskId::MAX_BYTES))]
    pub workflow_id: String,
    /// What each step left so far.
    #[serde(default = "super::task::yes")]
    #[arg(long, action = clap::ArgAction::Set, default_value_t = true)]
    pub include_outputs: bool,
    /// Their logs.
    #[serde(default)]
    #[arg(long)]
    pub include_logs: bool,
}

/// What `workflow_result` answers.
#[derive(Debug, Serialize, JsonSchema)]
pub struct WorkflowLeft {
    /// Which.
    pub workflow_id: String,
    /// What it is doing.
    pub status: &'static str,
    /// What the steps left that nothing depends on: an object by step. Null until it has ended.
    pub result: Value,
    /// Seconds from the first step to the end, or until now.
    pub execution_time: Option<f64>,
    /// By step, what each left; large ones are left out: ask task_result.
    pub outputs: Option<Object>,
    /// By step, the end of each log.
    pub logs: Option<Object>,
    /// By step, why it did not complete or was skipped.
    pub errors: Object,
    /// Steps whose output was left out of this answer.
    pub left_out: Vec<String>,
    /// Something was left out.
    pub truncated: bool,
    /// Why it did not complete.
    pub error: Option<String>,
}

impl Op for WorkflowResult {
    const NAME: &'static str = "workflow_result";
    const TITLE: &'static str = "Read a workflow's result";
    const DESCRIPTION: &'static str = "What a workflow left, and each step of it; partial results at any time.";
    const KIND: Kind = Kind::Read;
    type Output = WorkflowLeft;

    fn request(&self) -> Result<Request, Refusal> {
        let steps = self.include_outputs || self.include_logs;
        query(&self.workflow_id, Detail { report: true, live: self.include_logs, steps, ..Detail::default() })
    }

    fn output(self, reply: Reply, context: &Context<'_>) -> Result<WorkflowLeft, Failure> {
        let task = view(Self::NAME, reply)?;
        let workflow = workflow_of(&task)?;
        let steps = || workflow.steps.iter().flatten();
        let (mut outputs, mut logs, mut left_out) = (Object::new(), Object::new(), Vec::new());
        for step in steps() {
            if step.report_left_out {
                left_out.push(step.step.to_string());
            }
            let Some(report) = &step.report else { continue };
            let (result, cut) = result_value(&report.result, context)?;
            if cut {
                left_out.push(step.step.to_string());
            }
            outputs.insert(step.step.to_string(), result);
            let view = TaskView { report: Some(report.clone()), log_tail: None, ..(*task).clone() };
            if self.include_logs
                && let Some(text) = log_text(&view, context)?.text
            {
                logs.insert(step.step.to_string(), text.into());
            }
        }
        let (result, cut) = match &task.report {
            // One that is too large for its record is made of the outputs.
            Some(report) if report.truncated => (Value::Null, true),
            Some(report) => result_value(&report.result, context)?,
            None => (Value::Null, false),
        };
        let errors = steps().filter_map(|s| Some((s.step.to_string(), s.error.as_ref()?.to_string().into()))).collect();
        Ok(WorkflowLeft {
            workflow_id: task.task.to_string(),
            status: status_of(&task),
            result,
            execution_time: execution_time(&task, workflow, context),
            outputs: self.include_outputs.then_some(outputs),
            logs: self.include_logs.then_some(logs),
            errors,
            truncated: cut || !left_out.is_empty(),
            left_out,
            error: task.error.as_ref().map(ToString::to_string),
        })
    }
}

/// A form of a graph.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// Nodes and edges.
    #[default]
    Json,
    /// For Graphviz.
    Dot,
    /// For mermaid.
    Mermaid,
}

/// Show the graph of a workflow.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct WorkflowDependencies {
    /// Which.
    #[schemars(length(min = 1, max = TaskId::MAX_BYTES))]
    pub workflow_id: String,
    /// Form of `dag`; `format` is the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[arg(long = "format", value_enum)]
    pub fmt: Option<Form>,
    /// See `fmt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[arg(skip)]
    pub format: Option<Form>,
}

/// What `workflow_dependencies` answers.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Graph {
    /// Which.
    pub workflow_id: String,
    /// The graph as text in the asked form.
    pub dag: String,
    /// The steps.
    pub nodes: Vec<Node>,
    /// Which step waits for which: `to` for `from`.
    pub edges: Vec<Edge>,
    /// The chain that takes longest: by measured times once steps ran.
    pub critical_path: Vec<String>,
}

/// A step in the graph.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Node {
    /// Its name.
    pub id: String,
    /// Its name and action.
    pub label: String,
    /// What it is doing.
    pub status: String,
}

/// A dependency.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Edge {
    /// The one that is waited for.
    pub from: String,
    /// The one that waits.
    pub to: String,
}

impl Op for WorkflowDependencies {
    const NAME: &'static str = "workflow_dependencies";
    const TITLE: &'static str = "Show a workflow's graph";
    const DESCRIPTION: &'static str = "Steps, edges and the critical path; `dag` as JSON, Graphviz or mermaid.";
    const KIND: Kind = Kind::Read;
    type Output = Graph;

    fn request(&self) -> Result<Request, Refusal> {
        query(&self.workflow_id, Detail { steps: true, ..Detail::default() })
    }

    fn output(self, reply: Reply, _: &Context<'_>) -> Result<Graph, Failure> {
        let task = view(Self::NAME, reply)?;
        let workflow = workflow_of(&task)?;
        let unreadable = || Failure::new(Code::Internal, "its definition can't be read; this is a defect".to_owned());
        let definition = workflow.definition.as_ref().ok_or_else(unreadable)?;
        let definition: Definition = serde_json::from_slice(definition).map_err(|_| unreadable())?;
        let (nodes, edges) = parts(&definition, workflow);
        let critical_path: Vec<String> = workflow.critical_path.iter().map(ToString::to_string).collect();
        let dag = match self.fmt.or(self.format).unwrap_or_default() {
            Form::Json => json(&nodes, &edges),
            Form::Dot => drawing::dot(&definition.name, &nodes, &edges, &critical_path),
            Form::Mermaid => drawing::mermaid(&nodes, &edges, &critical_path),
        };
        Ok(Graph { workflow_id: task.task.to_string(), dag, nodes, edges, critical_path })
    }
}

fn parts(definition: &Definition, workflow: &WorkflowView) -> (Vec<Node>, Vec<Edge>) {
    let steps = workflow.steps.as_deref().unwrap_or_default();
    let written = |n: usize| definition.steps.get(if definition.items.is_some() { 0 } else { n });
    let node = |(n, step): (usize, &StepView)| Node {
        id: step.step.to_string(),
        label: written(n).map_or(String::new(), |s| format!("{}: {}", step.step, s.action)),
        status: step.status.to_string(),
    };
    let nodes = steps.iter().enumerate().map(node).collect();
    let mut edges = Vec::new();
    for step in definition.steps.iter().filter(|_| definition.items.is_none()) {
        let edge = |from: &String, to: &String| Edge { from: from.clone(), to: to.clone() };
        edges.extend(step.depends_on.iter().map(|from| edge(from, &step.step_id)));
        if let OnFailure::Compensate(by) = &step.on_failure {
            edges.push(edge(&step.step_id, by));
        }
    }
    (nodes, edges)
}

fn json(nodes: &[Node], edges: &[Edge]) -> String {
    serde_json::json!({"nodes": nodes, "edges": edges}).to_string()
}
