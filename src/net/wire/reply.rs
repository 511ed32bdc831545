//! Replies on the wire: the second half of `proto/taskmesh/v1/request.proto`.

use super::check::{self, Checked, same_names};
use super::forgotten::{forgot_from, forgot_to, words_from};
use super::mesh::{pause_from, pause_to};
use super::needs::{requirements_from, resources_from};
use super::refusal::refusal_from;
use super::request::{status_from, status_to};
use super::schedule::schedule_from;
use super::task::{
    executor_from, executor_to, node_to, nodes_to, owned, owned_all, owned_or_none, report_from, spec_from,
};
use super::workflow::workflow_from;
use super::{WireError, cache, proto, request};
use proto::peer_response::Result as Answer;
use proto::reply::Kind;
use std::collections::BTreeMap;
use std::sync::Arc;
use taskmesh_core::explain::Reason;
use taskmesh_core::order::Scheduling;
use taskmesh_core::view::{
    Explanation, NodeLoad, Stats, Status, Submitted, TaskPage, TaskView, WorkerStatus, WorkerView,
};
use taskmesh_core::{Millis, NodeId, Refusal, Reply, TaskId, Unix, WorkerId, limits};

same_names!(WorkerStatus, doing_to, doing_from, "worker.status", Active, Idle, Busy, Draining, Offline);

pub(super) fn result_to(result: &Result<Reply, Refusal>) -> Answer {
    match result {
        Ok(reply) => Answer::Reply(reply.into()),
        Err(refusal) => Answer::Refusal(refusal.into()),
    }
}

pub(super) fn result_from(result: Option<&Answer>) -> Checked<Result<Reply, Refusal>> {
    Ok(match result.ok_or(WireError::Unknown { what: "response" })? {
        Answer::Reply(reply) => Ok(reply_from(reply)?),
        Answer::Refusal(refusal) => Err(refusal_from(refusal)?),
    })
}

impl From<&Reply> for proto::Reply {
    fn from(reply: &Reply) -> Self {
        proto::Reply { kind: Some(reply.into()) }
    }
}

impl From<&Reply> for Kind {
    fn from(reply: &Reply) -> Self {
        match reply {
            Reply::Submitted(submitted) => Kind::Submitted((&**submitted).into()),
            Reply::Cancelled { task, status, at, cleanup_required } => {
                Kind::Cancelled(cancelled_to(task, *status, *at, *cleanup_required))
            }
            Reply::Reprioritised { task, old, new, position } => Kind::Reprioritised(proto::Reprioritised {
                task: id(task),
                old: old.value(),
                new: new.value(),
                position: *position,
            }),
            Reply::Retried { task, retry, count, position } => {
                Kind::Retried(proto::Retried { task: id(task), retry: id(retry), count: *count, position: *position })
            }
            Reply::Paused { at, queued, running } => {
                Kind::Paused(proto::Paused { at: at.0, queued: *queued, running: *running })
            }
            Reply::Resumed { at, queued, reordered } => {
                Kind::Resumed(proto::Resumed { at: at.0, queued: *queued, reordered: *reordered })
            }
            Reply::Cleared { cleared, remaining, at, answered, expected } => Kind::Cleared(proto::Cleared {
                cleared: *cleared,
                remaining: *remaining,
                at: at.0,
                answered: *answered,
                expected: *expected,
            }),
            Reply::Unregistered { worker, gone, at, completed, abandoned } => Kind::Unregistered(proto::Unregistered {
                worker: worker.as_str().to_owned(),
                gone: *gone,
                at: at.0,
                completed: *completed,
                abandoned: *abandoned,
            }),
            Reply::WorkflowCancelled { task, at, steps } => {
                Kind::WorkflowCancelled(proto::WorkflowCancelled { task: id(task), at: at.0, steps: owned_all(steps) })
            }
            Reply::Approved { task, status, at } => {
                Kind::Approved(proto::Approved { task: id(task), status: status_to(*status), at: at.0 })
            }
            Reply::Task(view) => Kind::Task((&**view).into()),
            Reply::Tasks(page) => Kind::Tasks(page.into()),
            Reply::Stats(stats) => Kind::Stats((&**stats).into()),
            Reply::Worker(view) => Kind::Worker((&**view).into()),
            Reply::Workers(views) => Kind::Workers(workers_to(views)),
            Reply::Found(finding) => Kind::Found(cache::found_to(finding)),
            Reply::ValueKept { expires } => Kind::ValueKept(proto::ValueKept { expires: expires.0 }),
            Reply::Invalidated { entries, copies, silent } => {
                Kind::Invalidated(proto::Invalidated { entries: *entries, copies: *copies, silent: nodes_to(silent) })
            }
            Reply::Cache(stats) => Kind::Cache(cache::stats_to(stats)),
            Reply::Forgot { word, shared, bereft, silent } => Kind::Forgot(forgot_to(word, *shared, *bereft, silent)),
            Reply::Hears(heard) => Kind::Hears(proto::Hears { heard: *heard }),
            Reply::Registered { .. }
            | Reply::Discovered { .. }
            | Reply::Peers { .. }
            | Reply::Peer(_)
            | Reply::Connected { .. }
            | Reply::Disconnected { .. }
            | Reply::Bootstrapped { .. }
            | Reply::Token(_)
            | Reply::Foreseen(_)
            | Reply::Template(_)
            | Reply::Forgotten(_)
            | Reply::Tokens(_) => Kind::LocalOnly(proto::LocalOnly {}),
        }
    }
}

fn cancelled_to(task: &TaskId, status: Status, at: Unix, cleanup_required: bool) -> proto::CancelReply {
    proto::CancelReply { task: id(task), status: status_to(status), at: at.0, cleanup_required }
}

fn reply_from(reply: &proto::Reply) -> Checked<Reply> {
    Ok(match reply.kind.as_ref().ok_or(WireError::Unknown { what: "reply" })? {
        Kind::LocalOnly(proto::LocalOnly {}) => return Err(WireError::NotForPeers),
        Kind::Submitted(submitted) => Reply::Submitted(Box::new(submitted_from(submitted)?)),
        Kind::Cancelled(cancelled) => Reply::Cancelled {
            task: task_id(&cancelled.task)?,
            status: status_from(cancelled.status)?,
            at: Unix(cancelled.at),
            cleanup_required: cancelled.cleanup_required,
        },
        Kind::Reprioritised(changed) => Reply::Reprioritised {
            task: task_id(&changed.task)?,
            old: check::priority("reprioritised.old", changed.old)?,
            new: check::priority("reprioritised.new", changed.new)?,
            position: position(changed.position)?,
        },
        Kind::Retried(retried) => Reply::Retried {
            task: task_id(&retried.task)?,
            retry: check::task("retried.retry", &retried.retry)?,
            count: check::counter("retried.count", retried.count)?,
            position: position(retried.position)?,
        },
        Kind::Paused(paused) => Reply::Paused {
            at: Unix(paused.at),
            queued: check::count("paused.queued", paused.queued)?,
            running: check::count("paused.running", paused.running)?,
        },
        Kind::Resumed(resumed) => Reply::Resumed {
            at: Unix(resumed.at),
            queued: check::count("resumed.queued", resumed.queued)?,
            reordered: resumed.reordered,
        },
        Kind::Cleared(cleared) => cleared_from(cleared)?,
        Kind::Unregistered(unregistered) => Reply::Unregistered {
            worker: check::worker("unregistered.worker", &unregistered.worker)?,
            gone: unregistered.gone,
            at: Unix(unregistered.at),
            completed: check::count("unregistered.completed", unregistered.completed)?,
            abandoned: check::count("unregistered.abandoned", unregistered.abandoned)?,
        },
        Kind::WorkflowCancelled(cancelled) => Reply::WorkflowCancelled {
            task: task_id(&cancelled.task)?,
            at: Unix(cancelled.at),
            steps: check::texts("cancelled.steps", &cancelled.steps, limits::STEPS)?,
        },
        Kind::Approved(approved) => Reply::Approved {
            task: task_id(&approved.task)?,
            status: status_from(approved.status)?,
            at: Unix(approved.at),
        },
        Kind::Task(view) => Reply::Task(Box::new(task_from(view)?)),
        Kind::Tasks(page) => Reply::Tasks(page_from(page)?),
        Kind::Stats(stats) => Reply::Stats(Box::new(stats_from(stats)?)),
        Kind::Worker(view) => Reply::Worker(Box::new(worker_from(view)?)),
        Kind::Workers(views) => Reply::Workers(workers_from(views)?),
        Kind::Found(found) => Reply::Found(cache::found_from(found)?),
        Kind::ValueKept(kept) => Reply::ValueKept { expires: Unix(check::count("value_kept.expires", kept.expires)?) },
        Kind::Invalidated(gone) => Reply::Invalidated {
            entries: check::count("invalidated.entries", gone.entries)?,
            copies: check::count("invalidated.copies", gone.copies)?,
            silent: check::nodes("invalidated.silent", &gone.silent, limits::MEMBERS)?,
        },
        Kind::Cache(stats) => Reply::Cache(cache::stats_from(stats)?),
        Kind::Forgot(forgot) => forgot_from(forgot)?,
        Kind::Hears(hears) => Reply::Hears(hears.heard),
    })
}

fn id(task: &TaskId) -> String {
    task.as_str().to_owned()
}

fn task_id(task: &str) -> Checked<TaskId> {
    check::task("task", task)
}

fn position(position: Option<u64>) -> Checked<Option<u64>> {
    position.map(|n| check::count("position", n)).transpose()
}

fn reason(field: &'static str, text: &Option<String>) -> Checked<Option<Arc<str>>> {
    check::text_or_none(field, text.as_deref(), limits::REASON_BYTES)
}

impl From<&Submitted> for proto::Submitted {
    fn from(submitted: &Submitted) -> Self {
        proto::Submitted {
            task: id(&submitted.task),
            status: status_to(submitted.status),
            position: submitted.position,
            worker: submitted.worker.as_ref().map(|worker| worker.as_str().to_owned()),
            home: node_to(submitted.home),
            replayed: submitted.replayed,
            items: submitted.items,
            feasible: submitted.feasible,
            infeasible: owned_or_none(submitted.infeasible.as_ref()),
            estimated_start: submitted.estimated_start.map(|t| t.0),
        }
    }
}

fn submitted_from(submitted: &proto::Submitted) -> Checked<Submitted> {
    let items = |n| check::at_most("submitted.items", n, limits::ARRAY_ITEMS as u32);
    Ok(Submitted {
        task: task_id(&submitted.task)?,
        status: status_from(submitted.status)?,
        position: position(submitted.position)?,
        worker: check::worker_or_none("submitted.worker", submitted.worker.as_deref())?,
        home: check::node("submitted.home", &submitted.home)?,
        replayed: submitted.replayed,
        items: submitted.items.map(items).transpose()?,
        feasible: check::counter("submitted.feasible", submitted.feasible)?,
        infeasible: reason("submitted.infeasible", &submitted.infeasible)?,
        estimated_start: submitted.estimated_start.map(Unix),
    })
}

fn cleared_from(cleared: &proto::Cleared) -> Checked<Reply> {
    Ok(Reply::Cleared {
        cleared: check::count("cleared.cleared", cleared.cleared)?,
        remaining: check::count("cleared.remaining", cleared.remaining)?,
        at: Unix(cleared.at),
        answered: check::counter("cleared.answered", cleared.answered)?,
        expected: check::counter("cleared.expected", cleared.expected)?,
    })
}

impl From<&TaskView> for proto::TaskView {
    fn from(view: &TaskView) -> Self {
        proto::TaskView {
            task: id(&view.task),
            task_type: owned(&view.task_type),
            status: status_to(view.status),
            priority: view.priority.value(),
            tags: owned_all(&view.tags),
            executor: view.executor.as_ref().map(executor_to),
            attempt: view.attempt,
            failures: view.failures,
            crashes: view.crashes,
            submitted_at: view.submitted_at.0,
            started_at: view.started_at.map(|t| t.0),
            ended_at: view.ended_at.map(|t| t.0),
            delayed_until: view.delayed_until.map(|t| t.0),
            home: node_to(view.home),
            holders: nodes_to(&view.holders),
            forgotten: view.forgotten.iter().map(Into::into).collect(),
            epoch: view.epoch,
            position: view.position,
            progress_percent: view.progress.map(u32::from),
            message: owned_or_none(view.message.as_ref()),
            log_tail: view.log_tail.as_ref().map(|tail| tail.to_vec()),
            error: owned_or_none(view.error.as_ref()),
            retry_of: view.retry_of.as_ref().map(id),
            retried_as: view.retried_as.as_ref().map(id),
            depends_on: view.depends_on.iter().map(id).collect(),
            requirements: Some((&view.requirements).into()),
            explanation: view.explanation.as_ref().map(explanation_to),
            report: view.report.as_ref().map(Into::into),
            workflow: view.workflow.as_deref().map(Into::into),
            schedule: view.schedule.as_deref().map(Into::into),
            cached_from: view.cached_from.as_ref().map(cache::origin_to),
            spec: view.spec.as_deref().map(|spec| Box::new(spec.into())),
        }
    }
}

fn task_from(view: &proto::TaskView) -> Checked<TaskView> {
    let task = task_id(&view.task)?;
    Ok(TaskView {
        workflow: view.workflow.as_ref().map(|w| workflow_from(&task, w)).transpose()?.map(Box::new),
        task,
        task_type: check::text("view.task_type", &view.task_type, limits::TEXT_BYTES)?,
        status: status_from(view.status)?,
        priority: check::priority("view.priority", view.priority)?,
        tags: check::texts("view.tags", &view.tags, limits::TAGS)?,
        executor: view.executor.as_ref().map(|e| executor_from("view.executor", e)).transpose()?,
        attempt: check::counter("view.attempt", view.attempt)?,
        failures: check::counter("view.failures", view.failures)?,
        crashes: check::counter("view.crashes", view.crashes)?,
        submitted_at: Unix(view.submitted_at),
        started_at: view.started_at.map(Unix),
        ended_at: view.ended_at.map(Unix),
        delayed_until: view.delayed_until.map(Unix),
        home: check::node("view.home", &view.home)?,
        holders: check::nodes("view.holders", &view.holders, limits::HOLDERS)?,
        forgotten: words_from("view.forgotten", &view.forgotten, 2 * limits::HOLDERS)?,
        epoch: check::counter("view.epoch", view.epoch)?,
        position: position(view.position)?,
        progress: check::percent("view.progress", view.progress_percent)?,
        message: reason("view.message", &view.message)?,
        log_tail: check::bytes_or_none("view.log_tail", view.log_tail.as_deref(), limits::LOG_TAIL_BYTES)?,
        error: reason("view.error", &view.error)?,
        retry_of: check::task_or_none("view.retry_of", view.retry_of.as_deref())?,
        retried_as: check::task_or_none("view.retried_as", view.retried_as.as_deref())?,
        depends_on: check::list("view.depends_on", &view.depends_on, limits::DEPENDENCIES, |task| {
            check::task("view.depends_on", task)
        })?,
        requirements: requirements_from(view.requirements.as_ref())?,
        explanation: view.explanation.as_ref().map(explanation_from).transpose()?,
        report: view.report.as_ref().map(report_from).transpose()?,
        schedule: view.schedule.as_ref().map(schedule_from).transpose()?.map(Box::new),
        cached_from: view.cached_from.as_ref().map(cache::origin_from).transpose()?,
        spec: view.spec.as_deref().map(|spec| spec_from(Some(spec))).transpose()?.map(Arc::new),
    })
}

/// A sentence around a reason that somebody else gave.
const SUMMARY_BYTES: usize = limits::REASON_BYTES + 1024;

fn explanation_to(explanation: &Explanation) -> proto::Explanation {
    let line = |(node, worker, reason): &(NodeId, Option<WorkerId>, Arc<str>)| proto::NodeReason {
        node: node_to(*node),
        worker: worker.as_ref().map(|worker| worker.as_str().to_owned()),
        reason: owned(reason),
    };
    proto::Explanation {
        summary: owned(&explanation.summary),
        nodes: explanation.nodes.iter().map(line).collect(),
        next: owned(&explanation.next),
        next_at: explanation.next_at.map(|t| t.0),
        reason: explanation.reason.map(|reason| reason.name().to_owned()),
    }
}

fn explanation_from(explanation: &proto::Explanation) -> Checked<Explanation> {
    let line = |line: &proto::NodeReason| {
        Ok((
            check::node("explanation.node", &line.node)?,
            check::worker_or_none("explanation.worker", line.worker.as_deref())?,
            check::text("explanation.reason", &line.reason, limits::REASON_BYTES)?,
        ))
    };
    Ok(Explanation {
        summary: check::text("explanation.summary", &explanation.summary, SUMMARY_BYTES)?,
        nodes: check::list("explanation.nodes", &explanation.nodes, limits::EXPLAINED, line)?,
        next: check::text("explanation.next", &explanation.next, limits::REASON_BYTES)?,
        next_at: explanation.next_at.map(Unix),
        reason: explanation.reason.as_deref().and_then(Reason::from_name),
    })
}

impl From<&TaskPage> for proto::TaskPage {
    fn from(page: &TaskPage) -> Self {
        proto::TaskPage {
            tasks: page.tasks.iter().map(Into::into).collect(),
            total: page.total,
            answered: page.answered,
            expected: page.expected,
        }
    }
}

fn page_from(page: &proto::TaskPage) -> Checked<TaskPage> {
    Ok(TaskPage {
        tasks: check::list("page.tasks", &page.tasks, request::WIDE_PAGE, task_from)?,
        total: check::count("page.total", page.total)?,
        answered: check::counter("page.answered", page.answered)?,
        expected: check::counter("page.expected", page.expected)?,
    })
}

impl From<&Stats> for proto::Stats {
    fn from(stats: &Stats) -> Self {
        use proto::historical::Minute;
        let minute = |(at, ended, failed): &(Unix, u64, u64)| Minute { at: at.0, ended: *ended, failed: *failed };
        let count = |(status, count): (&Status, &u64)| proto::StatusCount { status: status_to(*status), count: *count };
        let measured = |(sum, count): (Millis, u64)| Some(proto::Measured { sum_ms: sum.0, count });
        proto::Stats {
            counts: stats.counts.iter().map(count).collect(),
            waits: measured(stats.waits),
            runs: measured(stats.runs),
            ended: stats.ended,
            oldest_queued_ms: stats.oldest_queued.map(|t| t.0),
            paused: stats.paused.as_ref().map(pause_to),
            workers: stats.workers.as_ref().map(|workers| workers_to(workers)),
            historical: stats
                .historical
                .as_ref()
                .map(|minutes| proto::Historical { minutes: minutes.iter().map(minute).collect() }),
            answered: stats.answered,
            expected: stats.expected,
            scheduling: stats.scheduling.iter().map(|order| order.name().to_owned()).collect(),
            waiting: stats.waiting.iter().map(|(reason, n)| (reason.name().to_owned(), *n)).collect(),
        }
    }
}

fn stats_from(stats: &proto::Stats) -> Checked<Stats> {
    Ok(Stats {
        counts: counts_from(&stats.counts)?,
        waits: measured_from("stats.waits", stats.waits.as_ref())?,
        runs: measured_from("stats.runs", stats.runs.as_ref())?,
        ended: check::count("stats.ended", stats.ended)?,
        oldest_queued: stats.oldest_queued_ms.map(Millis),
        paused: stats.paused.as_ref().map(pause_from).transpose()?,
        workers: stats.workers.as_ref().map(workers_from).transpose()?,
        historical: stats.historical.as_ref().map(historical_from).transpose()?,
        answered: check::counter("stats.answered", stats.answered)?,
        expected: check::counter("stats.expected", stats.expected)?,
        scheduling: stats.scheduling.iter().filter_map(|name| Scheduling::from_name(name)).collect(),
        waiting: waiting_from(&stats.waiting)?,
    })
}

/// What a newer node names and this one does not know is left out.
fn waiting_from(waiting: &BTreeMap<String, u64>) -> Checked<BTreeMap<Reason, u64>> {
    let known = waiting.iter().filter_map(|(name, tasks)| Some((Reason::from_name(name)?, *tasks)));
    known.map(|(reason, tasks)| Ok((reason, check::count("stats.waiting", tasks)?))).collect()
}

fn counts_from(counts: &[proto::StatusCount]) -> Checked<BTreeMap<Status, u64>> {
    let count = |c: &proto::StatusCount| Ok((status_from(c.status)?, check::count("stats.counts", c.count)?));
    Ok(check::list("stats.counts", counts, Status::ALL.len(), count)?.into_iter().collect())
}

fn measured_from(field: &'static str, measured: Option<&proto::Measured>) -> Checked<(Millis, u64)> {
    let measured = check::need(field, measured)?;
    Ok((Millis(measured.sum_ms), check::count(field, measured.count)?))
}

fn historical_from(historical: &proto::Historical) -> Checked<Vec<(Unix, u64, u64)>> {
    check::list("stats.historical", &historical.minutes, limits::MINUTES, |minute| {
        Ok((
            Unix(minute.at),
            check::count("minute.ended", minute.ended)?,
            check::count("minute.failed", minute.failed)?,
        ))
    })
}

fn workers_to(workers: &[WorkerView]) -> proto::WorkerViews {
    proto::WorkerViews { workers: workers.iter().map(Into::into).collect() }
}

fn workers_from(workers: &proto::WorkerViews) -> Checked<Vec<WorkerView>> {
    check::list("workers", &workers.workers, limits::WORKER_VIEWS, worker_from)
}

impl From<&WorkerView> for proto::WorkerView {
    fn from(view: &WorkerView) -> Self {
        proto::WorkerView {
            worker: view.worker.as_str().to_owned(),
            node: node_to(view.node),
            status: doing_to(view.status),
            capabilities: owned_all(&view.capabilities),
            labels: view.labels.iter().map(|(k, v)| (owned(k), owned(v))).collect(),
            resources: view.resources.as_ref().map(Into::into),
            slots: view.slots,
            running: view.running,
            free: view.free,
            completed: view.completed,
            failed: view.failed,
            last_seen: view.last_seen.map(|t| t.0),
            tasks: view.tasks.as_ref().map(|tasks| proto::TaskIds { tasks: tasks.iter().map(id).collect() }),
            load: view.load.map(|load| proto::NodeLoad {
                cpu_percent: load.cpu_percent,
                memory_mb: load.memory_mb,
                load1: load.load1,
            }),
        }
    }
}

fn worker_from(view: &proto::WorkerView) -> Checked<WorkerView> {
    let tasks = |ids: &proto::TaskIds| {
        check::list("worker.tasks", &ids.tasks, limits::SLOTS as usize, |task| check::task("worker.tasks", task))
    };
    Ok(WorkerView {
        worker: check::worker("worker.worker", &view.worker)?,
        node: check::node("worker.node", &view.node)?,
        status: doing_from(view.status)?,
        capabilities: check::texts("worker.capabilities", &view.capabilities, limits::ATTRIBUTES)?,
        labels: check::attributes("worker.labels", &view.labels, |value| {
            check::text("worker.labels", value, limits::TEXT_BYTES)
        })?,
        resources: view.resources.as_ref().map(|has| resources_from(has, check::COUNT)).transpose()?,
        slots: check::at_most("worker.slots", view.slots, limits::SLOTS)?,
        running: view.running.map(|n| check::counter("worker.running", n)).transpose()?,
        free: view.free.map(|n| check::counter("worker.free", n)).transpose()?,
        completed: view.completed.map(|n| check::count("worker.completed", n)).transpose()?,
        failed: view.failed.map(|n| check::count("worker.failed", n)).transpose()?,
        last_seen: view.last_seen.map(Unix),
        tasks: view.tasks.as_ref().map(tasks).transpose()?,
        load: view.load.as_ref().map(load_from).transpose()?,
    })
}

fn load_from(load: &proto::NodeLoad) -> Checked<NodeLoad> {
    Ok(NodeLoad {
        cpu_percent: check::measured("load.cpu_percent", load.cpu_percent)?,
        memory_mb: check::measured("load.memory_mb", load.memory_mb)?,
        load1: check::measured("load.load1", load.load1)?,
    })
}
