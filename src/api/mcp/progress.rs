//! Waiting for a task's end: with news of its progress for a client that sent a
//! token, and with a handle of the Tasks extension for one that can follow a
//! task by itself.

use crate::driver::Handle;
use crate::ops::{Failure, mismatch};
use rmcp::RoleServer;
use rmcp::model::{ProgressNotificationParam, ProgressToken};
use rmcp::service::RequestContext;
use std::time::Duration;
use taskmesh_core::command::Detail;
use taskmesh_core::view::{Status, TaskView};
use taskmesh_core::{Millis, Query, Reply, Request, TaskId};
use tokio::time::Instant;

/// How often a task is looked at for one who wants to hear of its progress.
const LOOK: Millis = Millis(1_000);
/// A client that can follow a task by itself is kept waiting for so long: most
/// tasks end sooner, and a plain result is the simpler answer.
const HAND_OVER: Millis = Millis(1_000);
/// A client that reads nothing must not hold its own call up.
const TOLD: Duration = Duration::from_secs(5);

/// What the wait came to.
pub(super) enum Waited {
    /// The task, ended or as it was when the wait was over.
    Reply(Reply),
    /// It goes on, and the client is to follow it.
    Follow(Box<TaskView>),
}

/// Waits for the end of `task`, at most `wait`.
pub(super) async fn until_ended(
    handle: &Handle,
    task: &TaskId,
    detail: Detail,
    wait: Millis,
    context: &RequestContext<RoleServer>,
) -> Result<Waited, Failure> {
    let follows = context.client_capabilities().is_some_and(|c| c.supports_tasks());
    let wait = if follows { wait.min(HAND_OVER) } else { wait };
    let reply = match context.meta.get_progress_token() {
        None => ask(handle, task, detail, wait).await?,
        Some(token) => telling(handle, task, detail, wait, (token, context)).await?,
    };
    let Reply::Task(view) = reply else { return Err(mismatch("task_result")) };
    if follows && !view.status.terminal() {
        return Ok(Waited::Follow(view));
    }
    Ok(Waited::Reply(Reply::Task(view)))
}

async fn ask(handle: &Handle, task: &TaskId, detail: Detail, wait: Millis) -> Result<Reply, Failure> {
    Ok(handle.ask(Request::Query(Query::Task { task: task.clone(), detail, wait })).await?)
}

/// Waits in steps, and tells of progress after each.
async fn telling(
    handle: &Handle,
    task: &TaskId,
    detail: Detail,
    wait: Millis,
    (token, context): (ProgressToken, &RequestContext<RoleServer>),
) -> Result<Reply, Failure> {
    let until = Instant::now() + Duration::from_millis(wait.0);
    let mut told = Told::default();
    loop {
        let began = Instant::now();
        let left = until.saturating_duration_since(began);
        let left = Millis(u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
        let reply = ask(handle, task, Detail { live: true, ..detail }, left.min(LOOK)).await?;
        let Reply::Task(view) = &reply else { return Err(mismatch("task_result")) };
        if view.status.terminal() || left <= LOOK {
            return Ok(reply);
        }
        if let Some((progress, message)) = told.news(view) {
            let news = ProgressNotificationParam::new(token.clone(), progress).with_total(100.0).with_message(message);
            // Whoever does not hear it still gets the answer.
            let _ = tokio::time::timeout(TOLD, context.peer.notify_progress(news)).await;
        }
        // Where no node could wait, the answer came at once.
        tokio::time::sleep_until(began + Duration::from_millis(LOOK.0)).await;
    }
}

/// What was told of a task so far: what is told must grow.
#[derive(Default)]
struct Told {
    progress: Option<f64>,
}

impl Told {
    /// Progress in percent and a word for people, if there is more of it than
    /// before. That a task has started is worth a word as well.
    fn news(&mut self, view: &TaskView) -> Option<(f64, String)> {
        let percent = match view.status {
            Status::Running | Status::Leased => f64::from(view.progress.unwrap_or(0)),
            _ => return None,
        };
        if self.progress.is_some_and(|told| percent <= told) {
            return None;
        }
        self.progress = Some(percent);
        let message = view.message.as_deref().unwrap_or(view.status.name());
        Some((percent, message.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::samples;

    #[test]
    fn only_growing_progress_is_told() {
        let mut told = Told::default();
        let mut view = samples::task_view(Status::Queued);
        let mut seen = |status, progress: Option<u8>, message: Option<&str>| {
            (view.status, view.progress, view.message) = (status, progress, message.map(Into::into));
            told.news(&view)
        };
        assert_eq!(seen(Status::Queued, None, None), None);
        assert_eq!(seen(Status::Running, None, None), Some((0.0, "running".to_owned())));
        assert_eq!(seen(Status::Running, None, Some("warming up")), None);
        assert_eq!(seen(Status::Running, Some(40), Some("half")), Some((40.0, "half".to_owned())));
        // Another attempt begins from the start: that is not told.
        assert_eq!(seen(Status::Running, Some(10), None), None);
        assert_eq!(seen(Status::Running, Some(41), None), Some((41.0, "running".to_owned())));
    }
}
