//! Requests on the wire: the first half of `proto/taskmesh/v1/request.proto`.

use super::check::{self, Checked, same_names};
use super::task::{node_to, owned, owned_all, owned_or_none, spec_from};
use super::{WireError, cache, forgotten, proto};
use proto::request::Kind;
use taskmesh_core::command::{ClearScope, Detail, Request, Scope, Submission, TaskFilter, TaskOrder};
use taskmesh_core::view::Status;
use taskmesh_core::{Command, Millis, Query, TaskId, Unix, limits};

/// A node that gathers a page asks each other for all that may be in it.
pub(super) const WIDE_PAGE: usize = limits::PAGE + limits::OFFSET;

same_names!(Scope, scope_to, scope_from, "scope", Mesh, Local);
same_names!(ClearScope, which_to, which_from, "clear.which", Queued, Failed, Cancelled, NotRunning);
same_names!(
    Status,
    status_to,
    status_from,
    "status",
    Queued,
    Blocked,
    Delayed,
    Leased,
    Running,
    Completed,
    Failed,
    Cancelled,
    Expired,
);

impl From<&Request> for proto::Request {
    fn from(request: &Request) -> Self {
        let kind = match request {
            Request::Command(command) => command_to(command),
            Request::Query(query) => query_to(query),
        };
        proto::Request { kind: Some(kind) }
    }
}

fn command_to(command: &Command) -> Kind {
    match command {
        Command::Submit(submission) => Kind::Submit((&**submission).into()),
        Command::Cancel { task, reason, force } => {
            Kind::Cancel(proto::Cancel { task: id(task), reason: owned_or_none(reason.as_ref()), force: *force })
        }
        Command::CancelWorkflow { task, reason, force } => Kind::CancelWorkflow(proto::Cancel {
            task: id(task),
            reason: owned_or_none(reason.as_ref()),
            force: *force,
        }),
        Command::Reprioritise { task, priority, requeue } => {
            Kind::Reprioritise(proto::Reprioritise { task: id(task), priority: priority.value(), requeue: *requeue })
        }
        Command::Retry { task, max_retries, timeout } => {
            Kind::Retry(proto::Retry { task: id(task), max_retries: *max_retries, timeout_ms: timeout.map(|t| t.0) })
        }
        Command::Pause { reason } => Kind::Pause(proto::PauseQueue { reason: owned_or_none(reason.as_ref()) }),
        Command::Resume { reorder } => Kind::Resume(proto::ResumeQueue { reorder: *reorder }),
        Command::Clear { which, scope } => {
            Kind::Clear(proto::Clear { which: which_to(*which), scope: scope_to(*scope) })
        }
        Command::Unregister { worker, graceful, timeout } => Kind::Unregister(proto::Unregister {
            worker: worker.as_str().to_owned(),
            graceful: *graceful,
            timeout_ms: timeout.0,
        }),
        Command::Approve { task, approved, content } => {
            Kind::Approve(proto::Approve { task: id(task), approved: *approved, content: content.to_vec() })
        }
        Command::LookUp { key, task, after, joins } => {
            Kind::LookUp(cache::look_up_to(*key, task, after.as_ref(), *joins))
        }
        Command::KeepValue { name, content, ttl } => Kind::KeepValue(cache::value_to(name, content.as_deref(), *ttl)),
        Command::Invalidate { which, scope } => Kind::Invalidate(cache::invalidate_to(which, *scope)),
        Command::ForgetNode { word, presence, scope } => {
            Kind::ForgetNode(forgotten::command_to(word, *presence, *scope))
        }
        Command::Register(_)
        | Command::Connect { .. }
        | Command::Disconnect { .. }
        | Command::Bootstrap { .. }
        | Command::Issue(_)
        | Command::Revoke(_) => Kind::LocalOnly(proto::LocalOnly {}),
    }
}

fn query_to(query: &Query) -> Kind {
    match query {
        Query::Task { task, detail, wait } => Kind::Task(proto::TaskQuery {
            task: id(task),
            report: detail.report,
            live: detail.live,
            explain: detail.explain,
            steps: detail.steps,
            items: detail.items,
            spec: detail.spec,
            wait_ms: wait.0,
        }),
        Query::Tasks(filter) => Kind::Tasks((&**filter).into()),
        Query::Stats { scope, workers, historical } => {
            Kind::Stats(proto::StatsQuery { scope: scope_to(*scope), workers: *workers, historical: *historical })
        }
        Query::Worker { worker, tasks } => {
            Kind::Worker(proto::WorkerQuery { worker: worker.as_str().to_owned(), tasks: *tasks })
        }
        Query::Workers => Kind::Workers(proto::WorkersQuery {}),
        Query::Hears(node) => Kind::Hears(proto::HearsQuery { node: node_to(*node) }),
        Query::Value { name } => Kind::Value(proto::ValueQuery { name: owned(name) }),
        Query::Cache { scope } => Kind::Cache(proto::CacheQuery { scope: scope_to(*scope) }),
        Query::Discover { .. }
        | Query::Peers(_)
        | Query::Peer { .. }
        | Query::Tokens
        | Query::Forgotten
        | Query::Foresee(_)
        | Query::Template { .. } => Kind::LocalOnly(proto::LocalOnly {}),
    }
}

pub(super) fn request_from(request: &proto::Request) -> Checked<Request> {
    let kind = request.kind.as_ref().ok_or(WireError::Unknown { what: "request" })?;
    Ok(match kind {
        Kind::LocalOnly(proto::LocalOnly {}) => return Err(WireError::NotForPeers),
        Kind::Submit(submit) => Request::Command(Command::Submit(Box::new(submission_from(submit)?))),
        Kind::Cancel(cancel) => Request::Command(cancel_from(cancel)?),
        Kind::CancelWorkflow(cancel) => Request::Command(Command::CancelWorkflow {
            task: task_id(&cancel.task)?,
            reason: reason("cancel.reason", &cancel.reason)?,
            force: cancel.force,
        }),
        Kind::Reprioritise(change) => Request::Command(Command::Reprioritise {
            task: task_id(&change.task)?,
            priority: check::priority("reprioritise.priority", change.priority)?,
            requeue: change.requeue,
        }),
        Kind::Retry(retry) => Request::Command(retry_from(retry)?),
        Kind::Pause(pause) => Request::Command(Command::Pause { reason: reason("pause.reason", &pause.reason)? }),
        Kind::Resume(resume) => Request::Command(Command::Resume { reorder: resume.reorder }),
        Kind::Clear(clear) => {
            Request::Command(Command::Clear { which: which_from(clear.which)?, scope: scope_from(clear.scope)? })
        }
        Kind::Unregister(unregister) => Request::Command(Command::Unregister {
            worker: check::worker("unregister.worker", &unregister.worker)?,
            graceful: unregister.graceful,
            timeout: Millis(unregister.timeout_ms),
        }),
        Kind::Approve(approve) => Request::Command(Command::Approve {
            task: task_id(&approve.task)?,
            approved: approve.approved,
            content: check::bytes("approve.content", &approve.content, limits::INLINE_BYTES)?,
        }),
        Kind::Task(query) => Request::Query(task_query_from(query)?),
        Kind::Tasks(filter) => Request::Query(Query::Tasks(Box::new(filter_from(filter)?))),
        Kind::Stats(stats) => Request::Query(Query::Stats {
            scope: scope_from(stats.scope)?,
            workers: stats.workers,
            historical: stats.historical,
        }),
        Kind::Worker(query) => {
            Request::Query(Query::Worker { worker: check::worker("query.worker", &query.worker)?, tasks: query.tasks })
        }
        Kind::Workers(proto::WorkersQuery {}) => Request::Query(Query::Workers),
        Kind::LookUp(asked) => Request::Command(cache::look_up_from(asked)?),
        Kind::KeepValue(asked) => Request::Command(cache::value_from(asked)?),
        Kind::Value(asked) => Request::Query(cache::named_from(asked)?),
        Kind::Invalidate(asked) => Request::Command(cache::invalidate_from(asked)?),
        Kind::Cache(query) => Request::Query(cache::query_from(query)?),
        Kind::ForgetNode(forget) => Request::Command(forgotten::command_from(forget)?),
        Kind::Hears(query) => Request::Query(Query::Hears(check::node("hears.node", &query.node)?)),
    })
}

fn id(task: &TaskId) -> String {
    task.as_str().to_owned()
}

fn task_id(task: &str) -> Checked<TaskId> {
    check::task("task", task)
}

fn reason(field: &'static str, text: &Option<String>) -> Checked<Option<std::sync::Arc<str>>> {
    check::text_or_none(field, text.as_deref(), limits::REASON_BYTES)
}

impl From<&Submission> for proto::Submit {
    fn from(submission: &Submission) -> Self {
        proto::Submit {
            task: submission.task.as_ref().map(id),
            spec: Some((&submission.spec).into()),
            priority: submission.priority.value(),
            items: submission.items.iter().map(|item| item.to_vec()).collect(),
        }
    }
}

fn submission_from(submit: &proto::Submit) -> Checked<Submission> {
    Ok(Submission {
        task: check::task_or_none("submit.task", submit.task.as_deref())?,
        spec: spec_from(submit.spec.as_ref())?,
        priority: check::priority("submit.priority", submit.priority)?,
        items: check::list("submit.items", &submit.items, limits::ITEMS, |item| {
            check::bytes("submit.items", item, limits::PAYLOAD_BYTES)
        })?,
    })
}

fn cancel_from(cancel: &proto::Cancel) -> Checked<Command> {
    Ok(Command::Cancel {
        task: task_id(&cancel.task)?,
        reason: reason("cancel.reason", &cancel.reason)?,
        force: cancel.force,
    })
}

fn retry_from(retry: &proto::Retry) -> Checked<Command> {
    let max_retries = |n| check::at_most("retry.max_retries", n, limits::RETRIES);
    Ok(Command::Retry {
        task: task_id(&retry.task)?,
        max_retries: retry.max_retries.map(max_retries).transpose()?,
        timeout: retry.timeout_ms.map(Millis),
    })
}

fn task_query_from(query: &proto::TaskQuery) -> Checked<Query> {
    Ok(Query::Task {
        task: task_id(&query.task)?,
        detail: Detail {
            report: query.report,
            live: query.live,
            explain: query.explain,
            steps: query.steps,
            items: query.items,
            spec: query.spec,
        },
        wait: Millis(check::at_most("query.wait", query.wait_ms, limits::WAIT_MS)?),
    })
}

impl From<&TaskFilter> for proto::TaskFilter {
    fn from(filter: &TaskFilter) -> Self {
        proto::TaskFilter {
            statuses: filter.statuses.iter().copied().map(status_to).collect(),
            worker: filter.worker.as_ref().map(|worker| worker.as_str().to_owned()),
            tags: owned_all(&filter.tags),
            priority_min: filter.priority_min,
            task_type: owned_or_none(filter.task_type.as_ref()),
            parent: filter.parent.as_ref().map(id),
            owner: filter.owner.map(node_to),
            begun: filter.begun,
            limit: filter.limit,
            offset: filter.offset,
            after: filter
                .after
                .as_ref()
                .map(|(at, task)| proto::task_filter::After { submitted_at: at.0, task: id(task) }),
            scope: scope_to(filter.scope),
            newest_first: filter.order == TaskOrder::Newest,
        }
    }
}

fn filter_from(filter: &proto::TaskFilter) -> Checked<TaskFilter> {
    if filter.limit == 0 {
        return Err(WireError::Range { field: "filter.limit", problem: "is 0" });
    }
    if filter.priority_min.is_some_and(|min| !min.is_finite()) {
        return Err(WireError::Range { field: "filter.priority_min", problem: "is not a finite number" });
    }
    let after = |after: &proto::task_filter::After| -> Checked<(Unix, TaskId)> {
        Ok((Unix(after.submitted_at), check::task("filter.after", &after.task)?))
    };
    Ok(TaskFilter {
        statuses: check::list("filter.statuses", &filter.statuses, Status::ALL.len(), |status| status_from(*status))?,
        worker: check::worker_or_none("filter.worker", filter.worker.as_deref())?,
        tags: check::texts("filter.tags", &filter.tags, limits::TAGS)?,
        priority_min: filter.priority_min,
        task_type: check::text_or_none("filter.task_type", filter.task_type.as_deref(), limits::TEXT_BYTES)?,
        parent: check::task_or_none("filter.parent", filter.parent.as_deref())?,
        owner: filter.owner.as_ref().map(|node| check::node("filter.owner", node)).transpose()?,
        begun: filter.begun,
        limit: check::at_most("filter.limit", filter.limit, WIDE_PAGE as u32)?,
        offset: check::at_most("filter.offset", filter.offset, limits::OFFSET as u32)?,
        order: if filter.newest_first { TaskOrder::Newest } else { TaskOrder::Oldest },
        after: filter.after.as_ref().map(after).transpose()?,
        scope: scope_from(filter.scope)?,
    })
}
