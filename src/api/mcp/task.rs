//! The Tasks extension, `io.modelcontextprotocol/tasks`: a client that can
//! follow a task by itself gets a handle from `task_result` instead of a long
//! wait. The handle's id is the task's own, so every node answers for it, and
//! the task was durable before there was a handle.

use super::tool::{result, written};
use crate::driver::Handle;
use crate::ops::failure::invalid;
use crate::ops::value::{self, Object};
use crate::ops::{self, Code, Failure, Offer, Operation, mismatch};
use rmcp::model::{
    DetailedTask, ElicitRequest, ElicitRequestParams, ElicitResult, ElicitationAction, ElicitationSchema,
    GetTaskResult, InputRequest, InputResponses, Task, TaskPayload, TaskStatus,
};
use serde_json::{Value, json};
use taskmesh_core::command::Detail;
use taskmesh_core::view::{Status, TaskView};
use taskmesh_core::workflow::APPROVE;
use taskmesh_core::{Command, Millis, Query, Refusal, Reply, Request, limits};

/// How often a client should look.
const POLL_MS: u64 = 1_000;

/// A handle for a task that goes on.
pub(super) fn handle(view: &TaskView) -> Task {
    let began = [Some(view.submitted_at), view.started_at, view.ended_at].into_iter().flatten().max();
    let updated = value::time(began.unwrap_or(view.submitted_at));
    let task = Task::new(view.task.to_string(), status(view), value::time(view.submitted_at), updated);
    let task = task.with_poll_interval_ms(POLL_MS);
    let said = match (&view.message, view.progress) {
        (Some(message), Some(percent)) => format!("{}, {percent} %: {message}", view.status.name()),
        (Some(message), None) => format!("{}: {message}", view.status.name()),
        (None, Some(percent)) => format!("{}, {percent} %", view.status.name()),
        (None, None) => view.status.name().to_owned(),
    };
    task.with_status_message(said)
}

/// `failed` is kept for what no program decided: its nodes were lost each time.
fn status(view: &TaskView) -> TaskStatus {
    match view.status {
        Status::Blocked if *view.task_type == *APPROVE => TaskStatus::InputRequired,
        Status::Queued | Status::Blocked | Status::Delayed | Status::Leased | Status::Running => TaskStatus::Working,
        Status::Cancelled => TaskStatus::Cancelled,
        Status::Failed if view.failures == 0 && view.crashes > 0 => TaskStatus::Failed,
        Status::Completed | Status::Failed | Status::Expired => TaskStatus::Completed,
    }
}

/// `tasks/get`: the state, and in the end what `task_result` answers.
pub(super) async fn look(node: &Handle, id: &str) -> Result<GetTaskResult, Failure> {
    let task = value::task("taskId", id)?;
    let arguments = Object::from_iter([("task_id".to_owned(), Value::from(task.as_str()))]);
    let prepared = ops::operation("task_result").ok_or_else(|| mismatch("task_result"))?.prepare(arguments)?;
    let detail = Detail { report: true, live: true, ..Detail::default() };
    let reply = node.ask(Request::Query(Query::Task { task, detail, wait: Millis(0) })).await.map_err(unknown)?;
    let Reply::Task(view) = &reply else { return Err(mismatch("task_result")) };
    let handle = handle(view);
    let payload = match status(view) {
        TaskStatus::Working => TaskPayload::Working,
        TaskStatus::InputRequired => {
            TaskPayload::InputRequired { input_requests: [(APPROVE.to_owned(), form(view))].into() }
        }
        TaskStatus::Cancelled => TaskPayload::Cancelled,
        TaskStatus::Failed => TaskPayload::Failed { error: lost(view) },
        _ => TaskPayload::Completed { result: shown(result(written(node, prepared, reply).await?)?)? },
    };
    Ok(GetTaskResult::new(DetailedTask::new(handle, payload)))
}

/// What a person is asked by a step that waits for approval.
fn form(view: &TaskView) -> InputRequest {
    let question = view.message.as_deref().unwrap_or("May the workflow go on?");
    let requested_schema =
        ElicitationSchema::builder().required_bool(APPROVE).optional_string("comment").build_unchecked();
    InputRequest::Elicitation(ElicitRequest::new(ElicitRequestParams::FormElicitationParams {
        meta: None,
        message: format!("{}: {question}", view.task),
        requested_schema,
    }))
}

/// `tasks/update`: a person's word on a step that waits for it. What answers
/// nothing that is asked is let go, as the extension says.
pub(super) async fn update(node: &Handle, id: &str, responses: &InputResponses) -> Result<(), Failure> {
    let task = value::task("taskId", id)?;
    look(node, id).await?;
    let Some(response) = responses.get(APPROVE) else { return Ok(()) };
    let not_understood = |e: serde_json::Error| Failure::from(invalid("inputResponses.approve", e.to_string()));
    let answer: ElicitResult = serde_json::from_value(response.clone()).map_err(not_understood)?;
    let content = answer.content.unwrap_or(Value::Null);
    let approved = match answer.action {
        ElicitationAction::Accept => content[APPROVE] == true,
        ElicitationAction::Decline => false,
        // Not now: it goes on waiting.
        _ => return Ok(()),
    };
    let text = content.to_string();
    value::bounded("inputResponses.approve.content", &text, limits::INLINE_BYTES)?;
    let command = Command::Approve { task, approved, content: text.into_bytes().into() };
    match node.ask(Request::Command(command)).await {
        Ok(_) | Err(Refusal::State { .. }) => Ok(()),
        Err(refusal) => Err(unknown(refusal)),
    }
}

/// The answer of a call, as it stands in a finished task.
fn shown(result: rmcp::model::CallToolResult) -> Result<Object, Failure> {
    match serde_json::to_value(result) {
        Ok(Value::Object(object)) => Ok(object),
        _ => Err(mismatch("task_result")),
    }
}

fn lost(view: &TaskView) -> Object {
    let message = view.error.as_deref().unwrap_or("every attempt was lost with its node");
    let data = json!({"task_id": view.task.as_str(), "crashes": view.crashes});
    super::resource::object(json!({"code": -32000, "message": message, "data": data}))
}

/// For the extension an unknown id is a parameter that can't be right.
fn unknown(refusal: Refusal) -> Failure {
    let not_found = matches!(refusal, Refusal::NotFound { .. });
    let failure = Failure::from(refusal);
    if not_found { Failure { code: Code::InvalidArgument, ..failure } } else { failure }
}

/// The operation that a method of the extension stands for, if it is offered.
///
/// # Errors
/// The node, or this client's flags, offer reads alone.
pub(super) fn standing_for(name: &str, offer: &Offer) -> Result<&'static Operation, Failure> {
    let refused = || Failure::new(Code::PermissionDenied, format!("{name} is not offered here, so this is not either"));
    ops::operation(name).filter(|operation| offer.has(operation)).ok_or_else(refused)
}

/// `tasks/cancel`: asks the task to stop; one that has ended stays as it is.
pub(super) async fn cancel(node: &Handle, id: &str) -> Result<(), Failure> {
    let task = value::task("taskId", id)?;
    let command = Command::Cancel { task, reason: Some("tasks/cancel of an MCP client".into()), force: false };
    match node.ask(Request::Command(command)).await {
        Ok(_) | Err(Refusal::State { .. }) => Ok(()),
        Err(refusal) => Err(unknown(refusal)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::samples;

    #[test]
    fn a_task_that_its_nodes_lost_has_failed_and_one_that_its_program_failed_has_completed() {
        let seen = |state, failures, crashes| {
            let mut view = samples::task_view(state);
            (view.failures, view.crashes) = (failures, crashes);
            status(&view)
        };
        assert_eq!(seen(Status::Failed, 0, 3), TaskStatus::Failed);
        assert_eq!(seen(Status::Failed, 3, 0), TaskStatus::Completed);
        assert_eq!(seen(Status::Completed, 0, 0), TaskStatus::Completed);
        assert_eq!(seen(Status::Cancelled, 0, 0), TaskStatus::Cancelled);
        assert_eq!(seen(Status::Delayed, 1, 1), TaskStatus::Working);
    }
}
