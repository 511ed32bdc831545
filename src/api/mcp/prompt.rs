//! Prompts: questions about the mesh that come with the facts to answer them,
//! read at the moment of asking and embedded as resources.

use super::access::defect;
use super::resource::{self, object};
use super::tool::ask;
use super::uri::Uri;
use crate::driver::Handle;
use crate::ops::failure::invalid;
use crate::ops::{Failure, value};
use rmcp::model::{
    GetPromptRequestParams, GetPromptResult, Prompt, PromptArgument, PromptMessage, ResourceContents, Role,
};
use serde_json::{Value, json};
use taskmesh_core::TaskId;

/// A goal of a plan, in the caller's words.
const GOAL_BYTES: usize = 4_096;

/// A prompt with its arguments.
#[derive(Debug)]
pub(super) enum Asked {
    DiagnoseMesh,
    WhyWaiting(TaskId),
    WhyFailed(TaskId),
    PlanFanOut { goal: String, task_type: Option<String> },
}

const DIAGNOSE: &str = "diagnose_mesh";
const WAITING: &str = "why_is_my_task_waiting";
const FAILED: &str = "why_did_my_task_fail";
const FAN_OUT: &str = "plan_fan_out";

/// What a client shows its user to choose from.
pub(super) fn prompts() -> Vec<Prompt> {
    let task = || PromptArgument::new("task_id").with_description("Which task.").with_required(true);
    let goal =
        PromptArgument::new("goal").with_description("What is to be done, to how much of what.").with_required(true);
    let task_type = PromptArgument::new("task_type").with_description("The task type to use, if it is known.");
    vec![
        Prompt::new(DIAGNOSE, Some("Is the mesh healthy? With its queue, workers and peers as they are now."), None)
            .with_title("Diagnose the mesh"),
        Prompt::new(WAITING, Some("What a task waits for, node by node, and what to do."), Some(vec![task()]))
            .with_title("Why is my task waiting?"),
        Prompt::new(FAILED, Some("What the last attempt left, and whether to retry."), Some(vec![task()]))
            .with_title("Why did my task fail?"),
        Prompt::new(FAN_OUT, Some("Split work over the workers that there are now."), Some(vec![goal, task_type]))
            .with_title("Plan a fan-out"),
    ]
}

impl Asked {
    /// Reads what a client asks for.
    ///
    /// # Errors
    /// No such prompt, or arguments that can't be right.
    pub(super) fn of(request: &GetPromptRequestParams) -> Result<Asked, Failure> {
        let known: &[&str] = match request.name.as_str() {
            DIAGNOSE => &[],
            WAITING | FAILED => &["task_id"],
            FAN_OUT => &["goal", "task_type"],
            _ => {
                let problem =
                    format!("there is none of this name; there are {DIAGNOSE}, {WAITING}, {FAILED}, {FAN_OUT}");
                return Err(invalid("name", problem).into());
            }
        };
        let arguments = request.arguments.as_ref();
        if let Some(unknown) = arguments.and_then(|a| a.keys().find(|name| !known.contains(&name.as_str()))) {
            let name: String = unknown.chars().take(64).collect();
            return Err(invalid(&name, format!("is not known; there are: {}", known.join(", "))).into());
        }
        let text = |name: &str| arguments.and_then(|a| a.get(name)).and_then(Value::as_str);
        let needed = |name: &str| text(name).ok_or_else(|| invalid(name, "is missing, or is no text"));
        Ok(match request.name.as_str() {
            WAITING => Asked::WhyWaiting(value::task("task_id", needed("task_id")?)?),
            FAILED => Asked::WhyFailed(value::task("task_id", needed("task_id")?)?),
            FAN_OUT => {
                let goal = needed("goal")?.to_owned();
                value::bounded("goal", &goal, GOAL_BYTES)?;
                let task_type = text("task_type").map(str::to_owned);
                value::bounded(
                    "task_type",
                    task_type.as_deref().unwrap_or_default(),
                    taskmesh_core::limits::TEXT_BYTES,
                )?;
                Asked::PlanFanOut { goal, task_type }
            }
            _ => Asked::DiagnoseMesh,
        })
    }

    /// The prompt's name.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Asked::DiagnoseMesh => DIAGNOSE,
            Asked::WhyWaiting(_) => WAITING,
            Asked::WhyFailed(_) => FAILED,
            Asked::PlanFanOut { .. } => FAN_OUT,
        }
    }
}

/// The prompt with the facts of now.
pub(super) async fn write(handle: &Handle, asked: &Asked) -> Result<GetPromptResult, Failure> {
    let mut messages = vec![PromptMessage::new_text(Role::User, question(asked))];
    let facts: &[Uri] = match asked {
        Asked::DiagnoseMesh => &[Uri::Queue, Uri::Workers, Uri::Peers],
        Asked::WhyWaiting(task) => &[Uri::Task(task.clone()), Uri::Queue],
        Asked::WhyFailed(task) => &[Uri::Task(task.clone())],
        Asked::PlanFanOut { .. } => &[Uri::Workers, Uri::Queue],
    };
    for uri in facts {
        messages.push(embedded(uri.to_string(), resource::text(handle, uri).await?));
    }
    if let Asked::WhyFailed(task) = asked {
        let asked = json!({"task_id": task.as_str(), "include_output": false, "include_logs": true});
        let left = ask(handle, "task_result", object(asked)).await?;
        let logs = left.get("logs").and_then(Value::as_str).unwrap_or("(this task left no log)");
        messages.push(PromptMessage::new_text(Role::User, format!("The end of its log:\n{}", tail(logs))));
    }
    let title = prompts().into_iter().find(|p| p.name == asked.name()).and_then(|p| p.title).ok_or_else(defect)?;
    Ok(GetPromptResult::new(messages).with_description(title))
}

fn question(asked: &Asked) -> String {
    match asked {
        Asked::DiagnoseMesh => HEALTHY.to_owned(),
        Asked::WhyWaiting(task) => format!(
            "Why has task {task} not started? `explanation` below says for each node why it was not chosen, what \
            happens next, and when. Tell me in two sentences, then name the change that would start it soonest: \
            another requirement (task_cancel and task_submit), a worker (worker_register), a higher priority \
            (task_priority), or queue_resume."
        ),
        Asked::WhyFailed(task) => format!(
            "Why did task {task} not complete? Below are its state, what it left, and its log. Distinguish a fault of \
            the program from the loss of its nodes (`metrics.crashes`). Say whether task_retry can help as it is, or \
            what must change first."
        ),
        Asked::PlanFanOut { goal, task_type } => {
            let of_type = task_type.as_ref().map_or_else(String::new, |t| format!("Use the task type {t:?}.\n"));
            format!("Plan how to do this on the mesh, as one array of tasks: {goal}\n{of_type}{FANNED_OUT}")
        }
    }
}

const HEALTHY: &str = "Is this task mesh healthy? Judge it by the queue, the workers and the peers below, which were \
    read just now. Look at: a pause; nodes that did not answer; offline or draining workers; ready tasks that wait \
    while slots are free (then requirements do not fit); failures against completions; silent or lossy peers. Say what \
    is wrong, how you know, and the one tool call that you would make next. What is null was not measured: do not \
    guess it.";

const FANNED_OUT: &str = "Below are the workers with their capabilities and free slots, and what already waits. Choose a type that a \
    worker has; choose items of 5 to 60 seconds each, at least three for each free slot, at most 100,000; give \
    the array an idempotency_key. Write the task_submit call with `items`, a timeout and a retry policy, and how \
    to gather the results (task_list with workflow_filter, then task_result). Tasks may run more than once: say \
    how each item stays harmless when repeated.";

fn embedded(uri: String, text: String) -> PromptMessage {
    let contents = ResourceContents::text(text, uri).with_mime_type("application/json");
    PromptMessage::new(Role::User, rmcp::model::ContentBlock::resource(contents))
}

/// The end of a text, a page of it: a prompt is read by a model.
fn tail(text: &str) -> &str {
    const BYTES: usize = 8 * 1024;
    let from = text.len().saturating_sub(BYTES);
    let from = (from..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or_default();
    &text[from..]
}
