//! Tasks on the wire: `proto/taskmesh/v1/task.proto`.

use super::check::{self, Checked, same_names};
use super::needs::requirements_from;
use super::{WireError, cache, proto};
use std::sync::Arc;
use taskmesh_core::array::payload_limit;
use taskmesh_core::record::Birth;
use taskmesh_core::task::{CancelRequest, Closed, Data, Durability, Report, RetryPolicy, Task, Usage};
use taskmesh_core::{Ballot, Fence, Millis, NodeId, Outcome, Record, Spec, Stamp, TaskState, Unix, WorkerId, limits};

same_names!(Durability, durability_to, durability_from, "spec.durability", Replicated, Local);

pub(super) fn owned(text: &Arc<str>) -> String {
    String::from(&**text)
}

pub(super) fn owned_or_none(text: Option<&Arc<str>>) -> Option<String> {
    text.map(owned)
}

pub(super) fn owned_all(texts: &[Arc<str>]) -> Vec<String> {
    texts.iter().map(owned).collect()
}

pub(super) fn node_to(node: NodeId) -> Vec<u8> {
    node.0.to_vec()
}

pub(super) fn nodes_to(nodes: &[NodeId]) -> Vec<Vec<u8>> {
    nodes.iter().copied().map(node_to).collect()
}

pub(super) fn executor_to(executor: &(NodeId, WorkerId)) -> proto::Executor {
    proto::Executor { node: node_to(executor.0), worker: executor.1.as_str().to_owned() }
}

pub(super) fn executor_from(field: &'static str, executor: &proto::Executor) -> Checked<(NodeId, WorkerId)> {
    Ok((check::node(field, &executor.node)?, check::worker(field, &executor.worker)?))
}

impl From<Ballot> for proto::Ballot {
    fn from(ballot: Ballot) -> Self {
        proto::Ballot { epoch: ballot.epoch, owner: node_to(ballot.owner) }
    }
}

pub(super) fn ballot_from(field: &'static str, ballot: Option<&proto::Ballot>) -> Checked<Ballot> {
    let ballot = check::need(field, ballot)?;
    Ok(Ballot { epoch: check::counter(field, ballot.epoch)?, owner: check::node(field, &ballot.owner)? })
}

impl From<Stamp> for proto::Stamp {
    fn from(stamp: Stamp) -> Self {
        proto::Stamp { ballot: Some(stamp.ballot.into()), revision: stamp.revision }
    }
}

pub(super) fn stamp_from(stamp: Option<&proto::Stamp>) -> Checked<Stamp> {
    let stamp = check::need("stamp", stamp)?;
    Ok(Stamp {
        ballot: ballot_from("stamp.ballot", stamp.ballot.as_ref())?,
        revision: check::counter("stamp.revision", stamp.revision)?,
    })
}

impl From<Fence> for proto::Fence {
    fn from(fence: Fence) -> Self {
        proto::Fence { ballot: Some(fence.ballot.into()), attempt: fence.attempt }
    }
}

pub(super) fn fence_from(fence: Option<&proto::Fence>) -> Checked<Fence> {
    let fence = check::need("fence", fence)?;
    Ok(Fence {
        ballot: ballot_from("fence.ballot", fence.ballot.as_ref())?,
        attempt: check::counter("fence.attempt", fence.attempt)?,
    })
}

impl From<Birth> for proto::Birth {
    fn from(birth: Birth) -> Self {
        proto::Birth { node: node_to(birth.node), nonce: birth.nonce }
    }
}

pub(super) fn birth_from(birth: Option<&proto::Birth>) -> Checked<Birth> {
    let birth = check::need("birth", birth)?;
    Ok(Birth { node: check::node("birth.node", &birth.node)?, nonce: birth.nonce })
}

impl From<&Spec> for proto::Spec {
    fn from(spec: &Spec) -> Self {
        proto::Spec {
            task_type: owned(&spec.task_type),
            payload: spec.payload.to_vec(),
            tags: owned_all(&spec.tags),
            metadata: owned_or_none(spec.metadata.as_ref()),
            timeout_ms: spec.timeout.map(|t| t.0),
            retry: Some(spec.retry.into()),
            requirements: Some((&spec.requirements).into()),
            not_before: spec.not_before.map(|t| t.0),
            deadline: spec.deadline.map(|t| t.0),
            depends_on: spec.depends_on.iter().map(|t| t.as_str().to_owned()).collect(),
            fairness_key: owned_or_none(spec.fairness_key.as_ref()),
            durability: durability_to(spec.durability),
            exclusive: spec.exclusive,
            idempotency_key: owned_or_none(spec.idempotency_key.as_ref()),
            retry_of: spec.retry_of.as_ref().map(|t| t.as_str().to_owned()),
            submitted_at: spec.submitted_at.0,
            submitter: owned_or_none(spec.submitter.as_ref()),
            trace: owned_or_none(spec.trace.as_ref()),
            cache: spec.cache.map(cache::caching_to),
        }
    }
}

pub(super) fn spec_from(spec: Option<&proto::Spec>) -> Checked<Spec> {
    let spec = check::need("spec", spec)?;
    let key = |field, text: &Option<String>| check::text_or_none(field, text.as_deref(), limits::TEXT_BYTES);
    Ok(Spec {
        task_type: check::text("spec.task_type", &spec.task_type, limits::TEXT_BYTES)?,
        payload: check::bytes("spec.payload", &spec.payload, payload_limit(&spec.task_type))?,
        tags: check::texts("spec.tags", &spec.tags, limits::TAGS)?,
        metadata: check::text_or_none("spec.metadata", spec.metadata.as_deref(), limits::METADATA_BYTES)?,
        timeout: spec.timeout_ms.map(Millis),
        retry: retry_from(spec.retry.as_ref())?,
        requirements: requirements_from(spec.requirements.as_ref())?,
        not_before: spec.not_before.map(Unix),
        deadline: spec.deadline.map(Unix),
        depends_on: check::list("spec.depends_on", &spec.depends_on, limits::DEPENDENCIES, |task| {
            check::task("spec.depends_on", task)
        })?,
        fairness_key: key("spec.fairness_key", &spec.fairness_key)?,
        durability: durability_from(spec.durability)?,
        exclusive: spec.exclusive,
        idempotency_key: key("spec.idempotency_key", &spec.idempotency_key)?,
        retry_of: check::task_or_none("spec.retry_of", spec.retry_of.as_deref())?,
        submitted_at: Unix(spec.submitted_at),
        submitter: check::text_or_none("spec.submitter", spec.submitter.as_deref(), limits::TEXT_BYTES)?,
        trace: check::text_or_none("spec.trace", spec.trace.as_deref(), limits::TEXT_BYTES)?,
        cache: spec.cache.as_ref().map(cache::caching_from).transpose()?,
    })
}

impl From<RetryPolicy> for proto::RetryPolicy {
    fn from(retry: RetryPolicy) -> Self {
        proto::RetryPolicy {
            max_retries: retry.max_retries,
            backoff_factor: retry.backoff_factor,
            initial_delay_ms: retry.initial_delay.0,
            max_delay_ms: retry.max_delay.0,
            jitter: retry.jitter,
        }
    }
}

fn retry_from(retry: Option<&proto::RetryPolicy>) -> Checked<RetryPolicy> {
    let retry = check::need("spec.retry", retry)?;
    if !(1.0..=100.0).contains(&retry.backoff_factor) {
        return Err(WireError::Range { field: "retry.backoff_factor", problem: "is not from 1 to 100" });
    }
    Ok(RetryPolicy {
        max_retries: check::at_most("retry.max_retries", retry.max_retries, limits::RETRIES)?,
        backoff_factor: retry.backoff_factor,
        initial_delay: Millis(retry.initial_delay_ms),
        max_delay: Millis(retry.max_delay_ms),
        jitter: retry.jitter,
    })
}

impl From<&Record> for proto::Record {
    fn from(record: &Record) -> Self {
        proto::Record {
            task: record.task.as_str().to_owned(),
            birth: Some(record.birth.into()),
            stamp: Some(record.stamp.into()),
            holders: nodes_to(&record.holders),
            prior: nodes_to(&record.prior),
            forgotten: nodes_to(&record.forgotten),
            body: Some((&record.body).into()),
        }
    }
}

pub(super) fn record_from(record: Option<&proto::Record>) -> Checked<Record> {
    let record = check::need("record", record)?;
    if record.holders.is_empty() {
        return Err(WireError::Missing { field: "record.holders" });
    }
    check::length("record.holders", record.holders.len() + record.prior.len(), limits::HOLDERS)?;
    Ok(Record {
        task: check::task("record.task", &record.task)?,
        birth: birth_from(record.birth.as_ref())?,
        stamp: stamp_from(record.stamp.as_ref())?,
        holders: check::nodes("record.holders", &record.holders, limits::HOLDERS)?,
        prior: check::nodes("record.prior", &record.prior, limits::HOLDERS)?,
        forgotten: check::nodes("record.forgotten", &record.forgotten, limits::HOLDERS)?,
        body: body_from(check::need("record.body", record.body.as_ref())?)?,
    })
}

impl From<&Task> for proto::Task {
    fn from(task: &Task) -> Self {
        proto::Task {
            priority: task.priority.value(),
            attempt: task.attempt,
            failures: task.failures,
            crashes: task.crashes,
            retries: task.retries,
            cancel: task.cancel.as_ref().map(|cancel| proto::CancelRequest {
                reason: owned_or_none(cancel.reason.as_ref()),
                force: cancel.force,
            }),
            last_error: owned_or_none(task.last_error.as_ref()),
            state: Some((&task.state).into()),
        }
    }
}

fn body_from(task: &proto::Task) -> Checked<Task> {
    let reason = |field, text: &Option<String>| check::text_or_none(field, text.as_deref(), limits::REASON_BYTES);
    let cancel = |cancel: &proto::CancelRequest| -> Checked<CancelRequest> {
        Ok(CancelRequest { reason: reason("task.cancel.reason", &cancel.reason)?, force: cancel.force })
    };
    Ok(Task {
        priority: check::priority("task.priority", task.priority)?,
        attempt: check::counter("task.attempt", task.attempt)?,
        failures: check::counter("task.failures", task.failures)?,
        crashes: check::counter("task.crashes", task.crashes)?,
        retries: check::counter("task.retries", task.retries)?,
        cancel: task.cancel.as_ref().map(cancel).transpose()?,
        last_error: reason("task.last_error", &task.last_error)?,
        state: state_from(task.state.as_ref())?,
    })
}

impl From<&TaskState> for proto::task::State {
    fn from(state: &TaskState) -> Self {
        match state {
            TaskState::Blocked => Self::Blocked(proto::Blocked {}),
            TaskState::Delayed { until } => Self::Delayed(proto::Delayed { until: until.0 }),
            TaskState::Queued { since, place } => Self::Queued(proto::Queued { since: since.0, place: place.value() }),
            TaskState::Leased { executor, worker, since } => Self::Leased(proto::Leased {
                executor: Some(proto::Executor { node: node_to(*executor), worker: worker.as_str().to_owned() }),
                since: since.0,
            }),
            TaskState::Done(closed) => Self::Done((&**closed).into()),
        }
    }
}

fn state_from(state: Option<&proto::task::State>) -> Checked<TaskState> {
    use proto::task::State;
    Ok(match state.ok_or(WireError::Unknown { what: "task.state" })? {
        State::Blocked(proto::Blocked {}) => TaskState::Blocked,
        State::Delayed(delayed) => TaskState::Delayed { until: Unix(delayed.until) },
        State::Queued(queued) => {
            TaskState::Queued { since: Unix(queued.since), place: check::priority("queued.place", queued.place)? }
        }
        State::Leased(leased) => {
            let executor = check::need("leased.executor", leased.executor.as_ref())?;
            let (executor, worker) = executor_from("leased.executor", executor)?;
            TaskState::Leased { executor, worker, since: Unix(leased.since) }
        }
        State::Done(closed) => TaskState::Done(Arc::new(closed_from(closed)?)),
    })
}

impl From<&Closed> for proto::Closed {
    fn from(closed: &Closed) -> Self {
        proto::Closed {
            outcome: Some((&closed.outcome).into()),
            at: closed.at.0,
            executor: closed.executor.as_ref().map(executor_to),
            started_at: closed.started_at.map(|t| t.0),
            report: closed.report.as_ref().map(Into::into),
            cached_from: closed.cached_from.as_ref().map(cache::source_to),
        }
    }
}

fn closed_from(closed: &proto::Closed) -> Checked<Closed> {
    Ok(Closed {
        outcome: outcome_from(closed.outcome.as_ref())?,
        at: Unix(closed.at),
        executor: closed.executor.as_ref().map(|e| executor_from("closed.executor", e)).transpose()?,
        started_at: closed.started_at.map(Unix),
        report: closed.report.as_ref().map(report_from).transpose()?,
        cached_from: closed.cached_from.as_ref().map(cache::source_from).transpose()?,
    })
}

impl From<&Outcome> for proto::closed::Outcome {
    fn from(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Completed => Self::Completed(proto::Completed {}),
            Outcome::Failed { error } => Self::Failed(proto::Failed { error: owned(error) }),
            Outcome::Cancelled { reason } => {
                Self::Cancelled(proto::Cancelled { reason: owned_or_none(reason.as_ref()) })
            }
            Outcome::Expired => Self::Expired(proto::Expired {}),
        }
    }
}

fn outcome_from(outcome: Option<&proto::closed::Outcome>) -> Checked<Outcome> {
    use proto::closed::Outcome as On;
    Ok(match outcome.ok_or(WireError::Unknown { what: "closed.outcome" })? {
        On::Completed(proto::Completed {}) => Outcome::Completed,
        On::Failed(failed) => {
            Outcome::Failed { error: check::text("failed.error", &failed.error, limits::REASON_BYTES)? }
        }
        On::Cancelled(cancelled) => Outcome::Cancelled {
            reason: check::text_or_none("cancelled.reason", cancelled.reason.as_deref(), limits::REASON_BYTES)?,
        },
        On::Expired(proto::Expired {}) => Outcome::Expired,
    })
}

impl From<&Report> for proto::Report {
    fn from(report: &Report) -> Self {
        proto::Report {
            result: Some((&report.result).into()),
            output: report.output.as_ref().map(Into::into),
            logs: report.logs.as_ref().map(Into::into),
            truncated: report.truncated,
            usage: Some(report.usage.into()),
        }
    }
}

pub(super) fn report_from(report: &proto::Report) -> Checked<Report> {
    Ok(Report {
        result: data_from("report.result", check::need("report.result", report.result.as_ref())?)?,
        output: report.output.as_ref().map(|data| data_from("report.output", data)).transpose()?,
        logs: report.logs.as_ref().map(|data| data_from("report.logs", data)).transpose()?,
        truncated: report.truncated,
        usage: usage_from(check::need("report.usage", report.usage.as_ref())?)?,
    })
}

impl From<&Data> for proto::Data {
    fn from(data: &Data) -> Self {
        use proto::data::Content;
        let content = match data {
            Data::Inline(content) => Content::Inline(content.to_vec()),
            Data::Blob { hash, bytes } => Content::Blob(proto::Blob { hash: hash.0.to_vec(), size: *bytes }),
        };
        proto::Data { content: Some(content) }
    }
}

fn data_from(field: &'static str, data: &proto::Data) -> Checked<Data> {
    use proto::data::Content;
    Ok(match data.content.as_ref().ok_or(WireError::Unknown { what: field })? {
        Content::Inline(content) => Data::Inline(check::bytes(field, content, limits::INLINE_BYTES)?),
        Content::Blob(blob) => Data::Blob {
            hash: check::hash(field, &blob.hash)?,
            bytes: check::at_most(field, blob.size, limits::BLOB_BYTES)?,
        },
    })
}

impl From<Usage> for proto::Usage {
    fn from(usage: Usage) -> Self {
        proto::Usage {
            wall_ms: usage.wall.map(|t| t.0),
            cpu_user_ms: usage.cpu_user.map(|t| t.0),
            cpu_system_ms: usage.cpu_system.map(|t| t.0),
            max_rss_kib: usage.max_rss_kib,
        }
    }
}

fn usage_from(usage: &proto::Usage) -> Checked<Usage> {
    Ok(Usage {
        wall: usage.wall_ms.map(Millis),
        cpu_user: usage.cpu_user_ms.map(Millis),
        cpu_system: usage.cpu_system_ms.map(Millis),
        max_rss_kib: usage.max_rss_kib.map(|n| check::count("usage.max_rss_kib", n)).transpose()?,
    })
}
