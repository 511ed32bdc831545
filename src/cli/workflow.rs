//! `taskmesh workflow`: submit, follow and stop workflows, and approve steps.

use super::exit::Exit;
use super::output::{self, Form};
use super::reach::Node;
use super::tree::Global;
use super::{Call, call, on_runtime};
use crate::ops::value::{self, Object};
use crate::ops::{graph, workflow};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

#[derive(Debug, Subcommand)]
pub(super) enum WorkflowCommand {
    /// Submit a workflow, step by step on the command line.
    Submit(Box<workflow::WorkflowSubmit>),
    /// Show what a workflow is doing.
    Status(graph::WorkflowStatus),
    /// Stop a workflow.
    Cancel(workflow::WorkflowCancel),
    /// List workflows.
    List(workflow::WorkflowList),
    /// Show the graph of a workflow.
    Dependencies(graph::WorkflowDependencies),
    /// Read what a workflow left.
    Result(graph::WorkflowResult),
    /// Let a step go on that waits for approval.
    Approve(ApproveArgs),
    /// Submit a workflow from a file or a template, and maybe watch it to its end.
    Run(super::follow::RunArgs),
    /// Draw a workflow: its steps by level, or an SVG image.
    Graph(super::follow::GraphArgs),
    /// Look at templates, check them, and see what they make.
    ///
    /// Reads files, those of `node.templates_dir` among them; asks no node.
    #[command(subcommand)]
    Template(super::template::TemplateCommand),
}

#[derive(Debug, Args)]
pub(super) struct ApproveArgs {
    /// The step's task, as `workflow status` shows it: WORKFLOW/STEP.
    task_id: String,
    /// It may not go on: the step fails.
    #[arg(long)]
    reject: bool,
    /// For the record; later steps read it as ${steps.STEP.result.comment}.
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,
    /// More fields of the step's result.
    #[arg(long, value_name = "JSON", value_parser = value::json_argument::<Object>)]
    content: Option<Object>,
}

pub(super) fn run(global: &Global, command: &WorkflowCommand) -> Result<(), Exit> {
    match command {
        WorkflowCommand::Approve(args) => on_runtime(global, async |node| approve(&node, args).await),
        WorkflowCommand::Template(command) => super::template::run(global, command),
        WorkflowCommand::Run(args) => {
            let arguments = super::template::submission(global, args)?;
            on_runtime(global, async |node| super::follow::run(&node, arguments, args).await)
        }
        WorkflowCommand::Graph(args) => on_runtime(global, async |node| super::follow::graph(&node, args).await),
        command => super::one_call(global, one_call(command)?),
    }
}

pub(super) fn one_call(command: &WorkflowCommand) -> Result<Call, Exit> {
    match command {
        WorkflowCommand::Submit(op) => call(&**op),
        WorkflowCommand::Status(op) => call(op),
        WorkflowCommand::Cancel(op) => call(op),
        WorkflowCommand::List(op) => call(op),
        WorkflowCommand::Dependencies(op) => call(op),
        WorkflowCommand::Result(op) => call(op),
        WorkflowCommand::Approve(_)
        | WorkflowCommand::Template(_)
        | WorkflowCommand::Run(_)
        | WorkflowCommand::Graph(_) => Err(Exit::usage("this is no operation of the facade".to_owned())),
    }
}

/// By the Tasks extension: the answer that the step's `tasks/get` asks for.
async fn approve(node: &Node, args: &ApproveArgs) -> Result<(), Exit> {
    let before = node.call("task_status", json!({"task_id": args.task_id})).await?;
    if before["task_type"] != "approve" || before["status"] != "blocked" {
        let (kind, status) = (text(&before["task_type"]), text(&before["status"]));
        let problem = format!("{} is a task of type {kind} and {status}: nothing to approve", args.task_id);
        return Err(Exit::with(crate::ops::Code::FailedPrecondition, problem));
    }
    let mut content = args.content.clone().unwrap_or_default();
    content.insert("approve".to_owned(), Value::Bool(!args.reject));
    content.extend(args.comment.as_ref().map(|comment| ("comment".to_owned(), comment.as_str().into())));
    let responses = json!({"approve": {"action": "accept", "content": content}});
    node.update_task(&args.task_id, responses).await?;
    let after = node.call("task_status", json!({"task_id": args.task_id})).await?;
    match node.form {
        Form::Json => output::json(&after),
        Form::Human => output::raw(&format!("{} is {}\n", args.task_id, text(&after["status"]))),
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("unknown")
}
