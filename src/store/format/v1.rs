//! Version 1 of every kind, frozen: what these structs are decides what bytes
//! mean that are on disks now. They borrow, so that neither way copies text.
//!
//! Coming from disk everything is checked that the core relies on: names by
//! their constructors, numbers to be finite, lists and sizes within the
//! protocol's limits.

use super::Flaw;
use bincode::{BorrowDecode, Encode};
use std::collections::BTreeMap;
use std::sync::Arc;
use taskmesh_core::array::payload_limit;
use taskmesh_core::command::WorkerSpec;
use taskmesh_core::effect::PeerBook;
use taskmesh_core::ids::NameError;
use taskmesh_core::task::{
    CancelRequest, Closed as CoreClosed, Data as CoreData, Durability, Outcome as CoreOutcome, Priority,
    Report as CoreReport, Requirements, Resources as CoreResources, RetryPolicy, Task, TaskState, Usage,
};
use taskmesh_core::view::Pause as CorePause;
use taskmesh_core::{
    Ballot as CoreBallot, BlobHash, Millis, NodeId, Record, Spec as CoreSpec, Stamp, TaskId, Unix, WorkerId, limits,
    message, record,
};

/// Decodes a body, all of it.
pub(super) fn decode<'a, T: BorrowDecode<'a, ()>>(body: &'a [u8]) -> Result<T, Flaw> {
    let (value, used) = bincode::borrow_decode_from_slice(body, super::codec())
        .map_err(|e| Flaw::Damaged(format!("its body does not decode: {e}")))?;
    if used != body.len() {
        return Err(Flaw::Damaged(format!("{} bytes follow its body", body.len() - used)));
    }
    Ok(value)
}

pub(super) type Pairs<'a, T> = Vec<(&'a str, T)>;

#[derive(Encode, BorrowDecode)]
pub(super) struct Spec<'a> {
    task_type: &'a str,
    payload: &'a [u8],
    tags: Vec<&'a str>,
    metadata: Option<&'a str>,
    timeout: Option<u64>,
    retry: Retry,
    capabilities: Vec<&'a str>,
    labels: Pairs<'a, &'a str>,
    resources: Resources<'a>,
    not_before: Option<u64>,
    deadline: Option<u64>,
    depends_on: Vec<&'a str>,
    fairness_key: Option<&'a str>,
    local: bool,
    exclusive: bool,
    idempotency_key: Option<&'a str>,
    retry_of: Option<&'a str>,
    submitted_at: u64,
}

#[derive(Encode, BorrowDecode)]
struct Retry {
    max_retries: u32,
    backoff_factor: f64,
    initial_delay: u64,
    max_delay: u64,
    jitter: bool,
}

#[derive(Encode, BorrowDecode)]
pub(super) struct Resources<'a> {
    cpu_milli: u64,
    memory_mb: u64,
    gpu_milli: u64,
    named: Pairs<'a, u64>,
}

#[derive(Encode, BorrowDecode)]
pub(super) struct Slot<'a> {
    pledge: Ballot,
    task: &'a str,
    birth_node: [u8; 32],
    birth_nonce: u64,
    ballot: Ballot,
    revision: u32,
    holders: Vec<[u8; 32]>,
    prior: Vec<[u8; 32]>,
    priority: f64,
    attempt: u32,
    failures: u32,
    crashes: u32,
    retries: u32,
    cancel: Option<Cancel<'a>>,
    last_error: Option<&'a str>,
    state: State<'a>,
}

#[derive(Encode, BorrowDecode)]
struct Ballot {
    epoch: u32,
    owner: [u8; 32],
}

#[derive(Encode, BorrowDecode)]
struct Cancel<'a> {
    reason: Option<&'a str>,
    force: bool,
}

// One is alive at a time, on the stack.
#[allow(clippy::large_enum_variant)]
#[derive(Encode, BorrowDecode)]
enum State<'a> {
    Blocked,
    Delayed { until: u64 },
    Queued { since: u64, place: f64 },
    Leased { executor: [u8; 32], worker: &'a str, since: u64 },
    Done(Closed<'a>),
}

#[derive(Encode, BorrowDecode)]
struct Closed<'a> {
    outcome: Outcome<'a>,
    at: u64,
    executor: Option<([u8; 32], &'a str)>,
    started_at: Option<u64>,
    report: Option<Report<'a>>,
}

#[derive(Encode, BorrowDecode)]
enum Outcome<'a> {
    Completed,
    Failed { error: &'a str },
    Cancelled { reason: Option<&'a str> },
    Expired,
}

#[derive(Encode, BorrowDecode)]
pub(super) struct Report<'a> {
    result: Data<'a>,
    output: Option<Data<'a>>,
    logs: Option<Data<'a>>,
    truncated: bool,
    wall: Option<u64>,
    cpu_user: Option<u64>,
    cpu_system: Option<u64>,
    max_rss_kib: Option<u64>,
}

#[derive(Encode, BorrowDecode)]
enum Data<'a> {
    Inline(&'a [u8]),
    Blob { hash: [u8; 32], bytes: u64 },
}

#[derive(Encode, BorrowDecode)]
pub(super) struct Worker<'a> {
    worker: &'a str,
    capabilities: Vec<&'a str>,
    labels: Pairs<'a, &'a str>,
    slots: u32,
    resources: Option<Resources<'a>>,
    metadata: Option<&'a str>,
    since: u64,
}

#[derive(Encode, BorrowDecode)]
pub(super) struct Controls<'a> {
    count: u64,
    writer: [u8; 32],
    paused: Option<Pause<'a>>,
    reorder: u64,
}

#[derive(Encode, BorrowDecode)]
struct Pause<'a> {
    at: u64,
    reason: Option<&'a str>,
}

#[derive(Encode, BorrowDecode)]
pub(super) struct Peer<'a> {
    addresses: Vec<&'a str>,
    pinned: bool,
    banished: bool,
    seen: u64,
}

#[derive(Encode, BorrowDecode)]
pub(super) struct Boot {
    pub starts: u64,
}

#[derive(Encode, BorrowDecode)]
pub(super) struct Tombstone {
    pub at: u64,
}

#[derive(Encode, BorrowDecode)]
pub(super) struct Pledge {
    ballot: Ballot,
    at: u64,
}

#[derive(Encode, BorrowDecode)]
pub(super) struct Spilled {
    pub content: [u8; 32],
    pub bytes: u64,
}

#[derive(Encode, BorrowDecode)]
pub(super) struct Seal {
    pub part: u64,
    pub sums: Vec<u64>,
}

impl<'a> From<&'a CoreSpec> for Spec<'a> {
    fn from(spec: &'a CoreSpec) -> Spec<'a> {
        Spec {
            task_type: &spec.task_type,
            payload: &spec.payload,
            tags: texts(&spec.tags),
            metadata: spec.metadata.as_deref(),
            timeout: spec.timeout.map(|t| t.0),
            retry: Retry {
                max_retries: spec.retry.max_retries,
                backoff_factor: spec.retry.backoff_factor,
                initial_delay: spec.retry.initial_delay.0,
                max_delay: spec.retry.max_delay.0,
                jitter: spec.retry.jitter,
            },
            capabilities: texts(&spec.requirements.capabilities),
            labels: text_pairs(&spec.requirements.labels),
            resources: Resources::from(&spec.requirements.resources),
            not_before: spec.not_before.map(|t| t.0),
            deadline: spec.deadline.map(|t| t.0),
            depends_on: spec.depends_on.iter().map(TaskId::as_str).collect(),
            fairness_key: spec.fairness_key.as_deref(),
            local: spec.durability == Durability::Local,
            exclusive: spec.exclusive,
            idempotency_key: spec.idempotency_key.as_deref(),
            retry_of: spec.retry_of.as_ref().map(TaskId::as_str),
            submitted_at: spec.submitted_at.0,
        }
    }
}

impl TryFrom<Spec<'_>> for CoreSpec {
    type Error = Flaw;

    fn try_from(spec: Spec<'_>) -> Result<CoreSpec, Flaw> {
        bounded("payload", spec.payload.len(), payload_limit(spec.task_type))?;
        bounded("metadata", spec.metadata.map_or(0, str::len), limits::METADATA_BYTES)?;
        bounded("tags", spec.tags.len(), limits::TAGS)?;
        bounded("capabilities", spec.capabilities.len(), limits::ATTRIBUTES)?;
        bounded("labels", spec.labels.len(), limits::ATTRIBUTES)?;
        bounded("dependencies", spec.depends_on.len(), limits::DEPENDENCIES)?;
        Ok(CoreSpec {
            task_type: spec.task_type.into(),
            payload: spec.payload.into(),
            tags: shared(spec.tags),
            metadata: spec.metadata.map(Arc::from),
            timeout: spec.timeout.map(Millis),
            retry: RetryPolicy {
                max_retries: spec.retry.max_retries,
                backoff_factor: finite("back-off factor", spec.retry.backoff_factor)?,
                initial_delay: Millis(spec.retry.initial_delay),
                max_delay: Millis(spec.retry.max_delay),
                jitter: spec.retry.jitter,
            },
            requirements: Requirements {
                capabilities: shared(spec.capabilities),
                labels: shared_pairs(spec.labels),
                resources: spec.resources.try_into()?,
                ..Requirements::default()
            },
            not_before: spec.not_before.map(Unix),
            deadline: spec.deadline.map(Unix),
            depends_on: spec.depends_on.into_iter().map(task_id).collect::<Result<_, _>>()?,
            fairness_key: spec.fairness_key.map(Arc::from),
            durability: if spec.local { Durability::Local } else { Durability::Replicated },
            exclusive: spec.exclusive,
            idempotency_key: spec.idempotency_key.map(Arc::from),
            retry_of: spec.retry_of.map(task_id).transpose()?,
            submitted_at: Unix(spec.submitted_at),
            submitter: None,
            trace: None,
            cache: None,
        })
    }
}

impl<'a> From<&'a CoreResources> for Resources<'a> {
    fn from(r: &'a CoreResources) -> Resources<'a> {
        let named = r.named.iter().map(|(k, n)| (&**k, *n)).collect();
        Resources { cpu_milli: r.cpu_milli, memory_mb: r.memory_mb, gpu_milli: r.gpu_milli, named }
    }
}

impl TryFrom<Resources<'_>> for CoreResources {
    type Error = Flaw;

    fn try_from(r: Resources<'_>) -> Result<CoreResources, Flaw> {
        bounded("named resources", r.named.len(), limits::ATTRIBUTES)?;
        let named = r.named.into_iter().map(|(k, n)| (Arc::from(k), n)).collect();
        Ok(CoreResources { cpu_milli: r.cpu_milli, memory_mb: r.memory_mb, gpu_milli: r.gpu_milli, named })
    }
}

impl<'a> From<(CoreBallot, &'a Record)> for Slot<'a> {
    fn from((pledge, record): (CoreBallot, &'a Record)) -> Slot<'a> {
        let body = &record.body;
        Slot {
            pledge: pledge.into(),
            task: record.task.as_str(),
            birth_node: record.birth.node.0,
            birth_nonce: record.birth.nonce,
            ballot: record.stamp.ballot.into(),
            revision: record.stamp.revision,
            holders: record.holders.iter().map(|n| n.0).collect(),
            prior: record.prior.iter().map(|n| n.0).collect(),
            priority: body.priority.value(),
            attempt: body.attempt,
            failures: body.failures,
            crashes: body.crashes,
            retries: body.retries,
            cancel: body.cancel.as_ref().map(|c| Cancel { reason: c.reason.as_deref(), force: c.force }),
            last_error: body.last_error.as_deref(),
            state: State::from(&body.state),
        }
    }
}

impl TryFrom<Slot<'_>> for (CoreBallot, Record) {
    type Error = Flaw;

    fn try_from(slot: Slot<'_>) -> Result<(CoreBallot, Record), Flaw> {
        bounded("holders", slot.holders.len() + slot.prior.len(), 2 * limits::HOLDERS)?;
        let record = Record {
            task: task_id(slot.task)?,
            birth: record::Birth { node: NodeId(slot.birth_node), nonce: slot.birth_nonce },
            stamp: Stamp { ballot: slot.ballot.into(), revision: slot.revision },
            holders: slot.holders.into_iter().map(NodeId).collect(),
            prior: slot.prior.into_iter().map(NodeId).collect(),
            forgotten: Vec::new(),
            body: Task {
                priority: priority(slot.priority)?,
                attempt: slot.attempt,
                failures: slot.failures,
                crashes: slot.crashes,
                retries: slot.retries,
                cancel: slot.cancel.map(|c| CancelRequest { reason: c.reason.map(Arc::from), force: c.force }),
                last_error: slot.last_error.map(Arc::from),
                state: slot.state.try_into()?,
            },
        };
        Ok((slot.pledge.into(), record))
    }
}

impl From<(CoreBallot, Unix)> for Pledge {
    fn from((ballot, at): (CoreBallot, Unix)) -> Pledge {
        Pledge { ballot: ballot.into(), at: at.0 }
    }
}

impl From<Pledge> for (CoreBallot, Unix) {
    fn from(pledge: Pledge) -> (CoreBallot, Unix) {
        (pledge.ballot.into(), Unix(pledge.at))
    }
}

impl From<CoreBallot> for Ballot {
    fn from(ballot: CoreBallot) -> Ballot {
        Ballot { epoch: ballot.epoch, owner: ballot.owner.0 }
    }
}

impl From<Ballot> for CoreBallot {
    fn from(ballot: Ballot) -> CoreBallot {
        CoreBallot { epoch: ballot.epoch, owner: NodeId(ballot.owner) }
    }
}

impl<'a> From<&'a TaskState> for State<'a> {
    fn from(state: &'a TaskState) -> State<'a> {
        match state {
            TaskState::Blocked => State::Blocked,
            TaskState::Delayed { until } => State::Delayed { until: until.0 },
            TaskState::Queued { since, place } => State::Queued { since: since.0, place: place.value() },
            TaskState::Leased { executor, worker, since } => {
                State::Leased { executor: executor.0, worker: worker.as_str(), since: since.0 }
            }
            TaskState::Done(closed) => State::Done(Closed::from(&**closed)),
        }
    }
}

impl TryFrom<State<'_>> for TaskState {
    type Error = Flaw;

    fn try_from(state: State<'_>) -> Result<TaskState, Flaw> {
        Ok(match state {
            State::Blocked => TaskState::Blocked,
            State::Delayed { until } => TaskState::Delayed { until: Unix(until) },
            State::Queued { since, place } => TaskState::Queued { since: Unix(since), place: priority(place)? },
            State::Leased { executor, worker, since } => {
                TaskState::Leased { executor: NodeId(executor), worker: worker_id(worker)?, since: Unix(since) }
            }
            State::Done(closed) => TaskState::Done(Arc::new(closed.try_into()?)),
        })
    }
}

impl<'a> From<&'a CoreClosed> for Closed<'a> {
    fn from(closed: &'a CoreClosed) -> Closed<'a> {
        Closed {
            outcome: match &closed.outcome {
                CoreOutcome::Completed => Outcome::Completed,
                CoreOutcome::Failed { error } => Outcome::Failed { error },
                CoreOutcome::Cancelled { reason } => Outcome::Cancelled { reason: reason.as_deref() },
                CoreOutcome::Expired => Outcome::Expired,
            },
            at: closed.at.0,
            executor: closed.executor.as_ref().map(|(node, worker)| (node.0, worker.as_str())),
            started_at: closed.started_at.map(|t| t.0),
            report: closed.report.as_ref().map(Report::from),
        }
    }
}

impl TryFrom<Closed<'_>> for CoreClosed {
    type Error = Flaw;

    fn try_from(closed: Closed<'_>) -> Result<CoreClosed, Flaw> {
        let executor = closed.executor.map(|(node, worker)| Ok::<_, Flaw>((NodeId(node), worker_id(worker)?)));
        Ok(CoreClosed {
            outcome: match closed.outcome {
                Outcome::Completed => CoreOutcome::Completed,
                Outcome::Failed { error } => CoreOutcome::Failed { error: error.into() },
                Outcome::Cancelled { reason } => CoreOutcome::Cancelled { reason: reason.map(Arc::from) },
                Outcome::Expired => CoreOutcome::Expired,
            },
            at: Unix(closed.at),
            executor: executor.transpose()?,
            started_at: closed.started_at.map(Unix),
            report: closed.report.map(CoreReport::try_from).transpose()?,
            cached_from: None,
        })
    }
}

impl<'a> From<&'a CoreReport> for Report<'a> {
    fn from(report: &'a CoreReport) -> Report<'a> {
        Report {
            result: Data::from(&report.result),
            output: report.output.as_ref().map(Data::from),
            logs: report.logs.as_ref().map(Data::from),
            truncated: report.truncated,
            wall: report.usage.wall.map(|t| t.0),
            cpu_user: report.usage.cpu_user.map(|t| t.0),
            cpu_system: report.usage.cpu_system.map(|t| t.0),
            max_rss_kib: report.usage.max_rss_kib,
        }
    }
}

impl TryFrom<Report<'_>> for CoreReport {
    type Error = Flaw;

    fn try_from(report: Report<'_>) -> Result<CoreReport, Flaw> {
        Ok(CoreReport {
            result: report.result.try_into()?,
            output: report.output.map(CoreData::try_from).transpose()?,
            logs: report.logs.map(CoreData::try_from).transpose()?,
            truncated: report.truncated,
            usage: Usage {
                wall: report.wall.map(Millis),
                cpu_user: report.cpu_user.map(Millis),
                cpu_system: report.cpu_system.map(Millis),
                max_rss_kib: report.max_rss_kib,
            },
        })
    }
}

impl<'a> From<&'a CoreData> for Data<'a> {
    fn from(data: &'a CoreData) -> Data<'a> {
        match data {
            CoreData::Inline(content) => Data::Inline(content),
            CoreData::Blob { hash, bytes } => Data::Blob { hash: hash.0, bytes: *bytes },
        }
    }
}

impl TryFrom<Data<'_>> for CoreData {
    type Error = Flaw;

    fn try_from(data: Data<'_>) -> Result<CoreData, Flaw> {
        match data {
            Data::Inline(content) => {
                bounded("inline data", content.len(), limits::INLINE_BYTES)?;
                Ok(CoreData::Inline(content.into()))
            }
            Data::Blob { hash, bytes } => Ok(CoreData::Blob { hash: BlobHash(hash), bytes }),
        }
    }
}

impl<'a> From<(&'a WorkerSpec, Unix)> for Worker<'a> {
    fn from((spec, since): (&'a WorkerSpec, Unix)) -> Worker<'a> {
        Worker {
            worker: spec.worker.as_str(),
            capabilities: texts(&spec.capabilities),
            labels: text_pairs(&spec.labels),
            slots: spec.slots,
            resources: spec.resources.as_ref().map(Resources::from),
            metadata: spec.metadata.as_deref(),
            since: since.0,
        }
    }
}

impl TryFrom<Worker<'_>> for (WorkerSpec, Unix) {
    type Error = Flaw;

    fn try_from(worker: Worker<'_>) -> Result<(WorkerSpec, Unix), Flaw> {
        bounded("capabilities", worker.capabilities.len(), limits::ATTRIBUTES)?;
        bounded("labels", worker.labels.len(), limits::ATTRIBUTES)?;
        bounded("slots", worker.slots as usize, limits::SLOTS as usize)?;
        let spec = WorkerSpec {
            worker: worker_id(worker.worker)?,
            capabilities: shared(worker.capabilities),
            labels: shared_pairs(worker.labels),
            slots: worker.slots,
            resources: worker.resources.map(CoreResources::try_from).transpose()?,
            metadata: worker.metadata.map(Arc::from),
        };
        Ok((spec, Unix(worker.since)))
    }
}

impl<'a> From<&'a message::Controls> for Controls<'a> {
    fn from(controls: &'a message::Controls) -> Controls<'a> {
        Controls {
            count: controls.version.0,
            writer: controls.version.1.0,
            paused: controls.paused.as_ref().map(|p| Pause { at: p.at.0, reason: p.reason.as_deref() }),
            reorder: controls.reorder,
        }
    }
}

impl From<Controls<'_>> for message::Controls {
    fn from(controls: Controls<'_>) -> message::Controls {
        message::Controls {
            version: (controls.count, NodeId(controls.writer)),
            paused: controls.paused.map(|p| CorePause { at: Unix(p.at), reason: p.reason.map(Arc::from) }),
            reorder: controls.reorder,
        }
    }
}

impl<'a> From<&'a PeerBook> for Peer<'a> {
    fn from(book: &'a PeerBook) -> Peer<'a> {
        let addresses = texts(&book.addresses);
        Peer { addresses, pinned: book.pinned, banished: book.banished, seen: book.seen.0 }
    }
}

impl TryFrom<Peer<'_>> for PeerBook {
    type Error = Flaw;

    fn try_from(peer: Peer<'_>) -> Result<PeerBook, Flaw> {
        bounded("addresses", peer.addresses.len(), limits::ADDRESSES)?;
        let addresses = shared(peer.addresses);
        Ok(PeerBook { addresses, pinned: peer.pinned, banished: peer.banished, seen: Unix(peer.seen) })
    }
}

fn texts(list: &[Arc<str>]) -> Vec<&str> {
    list.iter().map(|t| &**t).collect()
}

fn text_pairs(map: &BTreeMap<Arc<str>, Arc<str>>) -> Pairs<'_, &str> {
    map.iter().map(|(k, v)| (&**k, &**v)).collect()
}

pub(super) fn shared(list: Vec<&str>) -> Vec<Arc<str>> {
    list.into_iter().map(Arc::from).collect()
}

pub(super) fn shared_pairs(pairs: Pairs<'_, &str>) -> BTreeMap<Arc<str>, Arc<str>> {
    pairs.into_iter().map(|(k, v)| (Arc::from(k), Arc::from(v))).collect()
}

pub(super) fn task_id(text: &str) -> Result<TaskId, Flaw> {
    TaskId::new(text).map_err(|e| bad_name("task id", &e))
}

fn worker_id(text: &str) -> Result<WorkerId, Flaw> {
    WorkerId::new(text).map_err(|e| bad_name("worker id", &e))
}

fn bad_name(what: &str, error: &NameError) -> Flaw {
    Flaw::Damaged(format!("its {what} {error}"))
}

fn priority(value: f64) -> Result<Priority, Flaw> {
    Priority::new(value).ok_or_else(|| Flaw::Damaged(format!("{value} is no priority")))
}

fn finite(what: &str, value: f64) -> Result<f64, Flaw> {
    if value.is_finite() { Ok(value) } else { Err(Flaw::Damaged(format!("its {what} is {value}"))) }
}

pub(super) fn bounded(what: &str, got: usize, max: usize) -> Result<(), Flaw> {
    if got <= max { Ok(()) } else { Err(Flaw::Damaged(format!("its {what}: {got} are over the limit of {max}"))) }
}
