//! Messages on the wire: `proto/taskmesh/v1/mesh.proto`.

use super::check::{self, Checked, same_names};
use super::needs::resources_from;
use super::task::{
    ballot_from, birth_from, fence_from, node_to, nodes_to, owned, owned_all, owned_or_none, record_from, report_from,
    spec_from, stamp_from,
};
use super::{WireError, cache, forgotten, permits, proto, reply, request, tokens};
use proto::message::Kind;
use std::sync::Arc;
use taskmesh_core::command::WorkerSpec;
use taskmesh_core::execution::Verdict;
use taskmesh_core::message::{Beat, Controls, Declined, Electorate, Finished, Grant, Hello};
use taskmesh_core::shelf::Shelved;
use taskmesh_core::view::Pause;
use taskmesh_core::{Message, Millis, NodeId, Record, Spec, TaskId, Unix, WorkerId, limits};

same_names!(Declined, declined_to, declined_from, "decline.why", Busy, NoWorker, Paused, Restarted);

impl From<&Message> for proto::Message {
    fn from(message: &Message) -> Self {
        proto::Message { kind: some(message) }
    }
}

impl From<&Message> for Kind {
    fn from(message: &Message) -> Self {
        match message {
            Message::Hello(hello) => Kind::Hello((&**hello).into()),
            Message::Beat(beat) => Kind::Beat(beat.into()),
            Message::WhoAreYou => Kind::WhoAreYou(proto::WhoAreYou {}),
            Message::Announce { ready } => Kind::Announce(proto::Announce { ready: ready_to(ready) }),
            Message::AskPermits(asks) => Kind::AskPermits(permits::asks_to(asks)),
            Message::Permits(permits) => Kind::Permits(permits::permits_to(permits)),
            Message::Room { free } => Kind::Room(proto::Room { free: free_to(free) }),
            Message::Offer { record, spec } => {
                Kind::Offer(proto::Offer { record: some(&**record), spec: spec.as_ref().map(|spec| (&**spec).into()) })
            }
            Message::Ack { task, stamp } => Kind::Ack(proto::Ack { task: id(task), stamp: some(*stamp) }),
            Message::Want { task, stamp } => Kind::Want(proto::Want { task: id(task), stamp: some(*stamp) }),
            Message::Refuse { task, pledge } => Kind::Refuse(proto::Refuse { task: id(task), pledge: some(*pledge) }),
            Message::Taken { task, refused, record, spec } => Kind::Taken(proto::Taken {
                task: id(task),
                refused: some(*refused),
                record: some(&**record),
                spec: some(&**spec),
            }),
            Message::Lost { task } => Kind::Lost(proto::Lost { task: id(task) }),
            Message::Gone { task, birth } => Kind::Gone(proto::Gone { task: id(task), birth: some(*birth) }),
            Message::Forget { task, stamp } => Kind::Forget(proto::Forget { task: id(task), stamp: some(*stamp) }),
            Message::Claim { task, birth, ballot, stamp, electorate } => Kind::Claim(proto::Claim {
                task: id(task),
                birth: some(*birth),
                ballot: some(*ballot),
                stamp: some(*stamp),
                everybody: *electorate == Electorate::Everybody,
            }),
            Message::Pledge { task, ballot, kept } => Kind::Pledge(proto::Pledge {
                task: id(task),
                ballot: some(*ballot),
                kept: kept.as_deref().map(Into::into),
            }),
            Message::Grant(grant) => Kind::Grant((&**grant).into()),
            Message::Decline { task, fence, why, free } => Kind::Decline(proto::Decline {
                task: id(task),
                fence: some(*fence),
                why: declined_to(*why),
                free: free_to(free),
            }),
            Message::Progress { task, fence, running, percent, message, log_tail } => Kind::Progress(proto::Progress {
                task: id(task),
                fence: some(*fence),
                running_ms: running.map(|r| r.0),
                percent: percent.map(u32::from),
                message: owned_or_none(message.as_ref()),
                log_tail: log_tail.as_ref().map(|tail| tail.to_vec()),
            }),
            Message::Finished(finished) => Kind::Finished((&**finished).into()),
            Message::Settled { task, fence } => Kind::Settled(proto::Settled { task: id(task), fence: some(*fence) }),
            Message::Stop { task, fence, force } => {
                Kind::Stop(proto::Stop { task: id(task), fence: some(*fence), force: *force })
            }
            Message::Request { id, by, request } => {
                Kind::Request(proto::PeerRequest { id: *id, request: some(&**request), by: Some(tokens::by_to(by)) })
            }
            Message::Response { id, reply } => {
                Kind::Response(proto::PeerResponse { id: *id, result: Some(reply::result_to(reply)) })
            }
            Message::Controls(controls) => Kind::Controls(controls.into()),
            Message::Left(entry) => Kind::Left(cache::cached_to(entry)),
            Message::Landed { key, task } => Kind::Landed(cache::landed_to(*key, task)),
            Message::Copy(entry) => Kind::Copy(cache::cached_to(entry)),
            Message::Tokens { digest, entries, answer } => Kind::Tokens(tokens::tokens_to(*digest, entries, *answer)),
        }
    }
}

pub(super) fn message_from(message: &proto::Message) -> Checked<Message> {
    Ok(match message.kind.as_ref().ok_or(WireError::Unknown { what: "message" })? {
        Kind::Hello(hello) => Message::Hello(Box::new(hello_from(hello)?)),
        Kind::Beat(beat) => Message::Beat(beat_from(beat)?),
        Kind::WhoAreYou(proto::WhoAreYou {}) => Message::WhoAreYou,
        Kind::Announce(announce) => Message::Announce { ready: ready_from(&announce.ready)? },
        Kind::AskPermits(asks) => Message::AskPermits(permits::asks_from(asks)?),
        Kind::Permits(permits) => Message::Permits(permits::permits_from(permits)?),
        Kind::Room(room) => Message::Room { free: free_from(&room.free)? },
        Kind::Offer(offer) => offer_from(offer)?,
        Kind::Ack(ack) => Message::Ack { task: task_id(&ack.task)?, stamp: stamp_from(ack.stamp.as_ref())? },
        Kind::Want(want) => Message::Want { task: task_id(&want.task)?, stamp: stamp_from(want.stamp.as_ref())? },
        Kind::Refuse(refuse) => Message::Refuse {
            task: task_id(&refuse.task)?,
            pledge: ballot_from("refuse.pledge", refuse.pledge.as_ref())?,
        },
        Kind::Taken(taken) => taken_from(taken)?,
        Kind::Lost(lost) => Message::Lost { task: task_id(&lost.task)? },
        Kind::Gone(gone) => Message::Gone { task: task_id(&gone.task)?, birth: birth_from(gone.birth.as_ref())? },
        Kind::Forget(forget) => {
            Message::Forget { task: task_id(&forget.task)?, stamp: stamp_from(forget.stamp.as_ref())? }
        }
        Kind::Claim(claim) => Message::Claim {
            task: task_id(&claim.task)?,
            birth: birth_from(claim.birth.as_ref())?,
            ballot: ballot_from("claim.ballot", claim.ballot.as_ref())?,
            stamp: stamp_from(claim.stamp.as_ref())?,
            electorate: forgotten::electorate_from(claim.everybody),
        },
        Kind::Pledge(pledge) => pledge_from(pledge)?,
        Kind::Grant(grant) => Message::Grant(Box::new(grant_from(grant)?)),
        Kind::Decline(decline) => Message::Decline {
            task: task_id(&decline.task)?,
            fence: fence_from(decline.fence.as_ref())?,
            why: declined_from(decline.why)?,
            free: free_from(&decline.free)?,
        },
        Kind::Progress(progress) => progress_from(progress)?,
        Kind::Finished(finished) => Message::Finished(Box::new(finished_from(finished)?)),
        Kind::Settled(settled) => {
            Message::Settled { task: task_id(&settled.task)?, fence: fence_from(settled.fence.as_ref())? }
        }
        Kind::Stop(stop) => {
            Message::Stop { task: task_id(&stop.task)?, fence: fence_from(stop.fence.as_ref())?, force: stop.force }
        }
        Kind::Request(asked) => {
            let request = request::request_from(check::need("request", asked.request.as_ref())?)?;
            Message::Request { id: asked.id, by: tokens::by_from(asked.by.as_ref())?, request: Box::new(request) }
        }
        Kind::Response(answer) => {
            Message::Response { id: answer.id, reply: Box::new(reply::result_from(answer.result.as_ref())?) }
        }
        Kind::Controls(controls) => Message::Controls(controls_from(Some(controls))?),
        Kind::Tokens(tokens) => tokens::tokens_from(tokens)?,
        Kind::Left(entry) => Message::Left(cache::cached_from(Some(entry))?),
        Kind::Landed(landed) => cache::landed_from(landed)?,
        Kind::Copy(entry) => Message::Copy(cache::cached_from(Some(entry))?),
    })
}

fn some<A, B: From<A>>(value: A) -> Option<B> {
    Some(value.into())
}

fn id(task: &TaskId) -> String {
    task.as_str().to_owned()
}

fn task_id(task: &str) -> Checked<TaskId> {
    check::task("task", task)
}

fn free_to(free: &[(WorkerId, u32)]) -> Vec<proto::Free> {
    free.iter().map(|(worker, slots)| proto::Free { worker: worker.as_str().to_owned(), slots: *slots }).collect()
}

fn free_from(free: &[proto::Free]) -> Checked<Vec<(WorkerId, u32)>> {
    check::list("free", free, limits::WORKERS, |free| {
        Ok((check::worker("free.worker", &free.worker)?, check::at_most("free.slots", free.slots, limits::SLOTS)?))
    })
}

fn ready_to(ready: &[(Arc<str>, u32)]) -> Vec<proto::Ready> {
    ready.iter().map(|(task_type, count)| proto::Ready { task_type: owned(task_type), count: *count }).collect()
}

fn ready_from(ready: &[proto::Ready]) -> Checked<Vec<(Arc<str>, u32)>> {
    check::list("announce.ready", ready, limits::ANNOUNCED, |ready| {
        Ok((
            check::text("ready.task_type", &ready.task_type, limits::TEXT_BYTES)?,
            check::counter("ready.count", ready.count)?,
        ))
    })
}

impl From<&Hello> for proto::Hello {
    fn from(hello: &Hello) -> Self {
        proto::Hello {
            boot: hello.boot,
            version: hello.version,
            draining: hello.draining,
            workers: hello.workers.iter().map(Into::into).collect(),
            free: free_to(&hello.free),
            members: nodes_to(&hello.members),
            controls: some(&hello.controls),
            tokens: hello.tokens,
            metrics: owned_or_none(hello.metrics.as_ref()),
            templates: hello.templates.iter().map(Into::into).collect(),
            features: hello.features.iter().map(owned).collect(),
            forgotten: hello.forgotten.iter().map(Into::into).collect(),
        }
    }
}

fn hello_from(hello: &proto::Hello) -> Checked<Hello> {
    Ok(Hello {
        boot: check::count("hello.boot", hello.boot)?,
        version: check::counter("hello.version", hello.version)?,
        draining: hello.draining,
        workers: check::list("hello.workers", &hello.workers, limits::WORKERS, worker_from)?,
        free: free_from(&hello.free)?,
        members: check::nodes("hello.members", &hello.members, limits::MEMBERS)?,
        controls: controls_from(hello.controls.as_ref())?,
        tokens: hello.tokens,
        metrics: check::text_or_none("hello.metrics", hello.metrics.as_deref(), limits::TEXT_BYTES)?,
        templates: check::list("hello.templates", &hello.templates, limits::TEMPLATES, shelved_from)?,
        features: check::list("hello.features", &hello.features, limits::ATTRIBUTES, |name| {
            check::text("hello.features", name, limits::TEXT_BYTES)
        })?
        .into_iter()
        .collect(),
        forgotten: forgotten::words_from("hello.forgotten", &hello.forgotten, limits::FORGOTTEN)?,
    })
}

impl From<&Shelved> for proto::Shelved {
    fn from(shelved: &Shelved) -> Self {
        proto::Shelved { id: owned(&shelved.id), version: owned(&shelved.version), hash: shelved.hash.0.to_vec() }
    }
}

fn shelved_from(shelved: &proto::Shelved) -> Checked<Shelved> {
    Ok(Shelved {
        id: check::text("shelved.id", &shelved.id, limits::TEXT_BYTES)?,
        version: check::text("shelved.version", &shelved.version, limits::TEXT_BYTES)?,
        hash: check::hash("shelved.hash", &shelved.hash)?,
    })
}

impl From<&WorkerSpec> for proto::WorkerSpec {
    fn from(spec: &WorkerSpec) -> Self {
        proto::WorkerSpec {
            worker: spec.worker.as_str().to_owned(),
            capabilities: owned_all(&spec.capabilities),
            labels: spec.labels.iter().map(|(k, v)| (owned(k), owned(v))).collect(),
            slots: spec.slots,
            resources: spec.resources.as_ref().map(Into::into),
            metadata: owned_or_none(spec.metadata.as_ref()),
        }
    }
}

fn worker_from(spec: &proto::WorkerSpec) -> Checked<WorkerSpec> {
    if spec.slots == 0 {
        return Err(WireError::Range { field: "worker.slots", problem: "is 0" });
    }
    Ok(WorkerSpec {
        worker: check::worker("worker.worker", &spec.worker)?,
        capabilities: check::texts("worker.capabilities", &spec.capabilities, limits::ATTRIBUTES)?,
        labels: check::attributes("worker.labels", &spec.labels, |value| {
            check::text("worker.labels", value, limits::TEXT_BYTES)
        })?,
        slots: check::at_most("worker.slots", spec.slots, limits::SLOTS)?,
        resources: spec.resources.as_ref().map(|has| resources_from(has, check::COUNT)).transpose()?,
        metadata: check::text_or_none("worker.metadata", spec.metadata.as_deref(), limits::METADATA_BYTES)?,
    })
}

impl From<&Beat> for proto::Beat {
    fn from(beat: &Beat) -> Self {
        proto::Beat {
            boot: beat.boot,
            version: beat.version,
            free: free_to(&beat.free),
            queued: beat.queued,
            controls: Some(version_to(beat.controls)),
            tokens: beat.tokens,
        }
    }
}

fn beat_from(beat: &proto::Beat) -> Checked<Beat> {
    Ok(Beat {
        boot: check::count("beat.boot", beat.boot)?,
        version: check::counter("beat.version", beat.version)?,
        free: free_from(&beat.free)?,
        queued: check::count("beat.queued", beat.queued)?,
        controls: version_from(beat.controls.as_ref())?,
        tokens: beat.tokens,
    })
}

impl From<&Controls> for proto::Controls {
    fn from(controls: &Controls) -> Self {
        proto::Controls {
            version: Some(version_to(controls.version)),
            paused: controls.paused.as_ref().map(pause_to),
            reorder: controls.reorder,
        }
    }
}

fn controls_from(controls: Option<&proto::Controls>) -> Checked<Controls> {
    let controls = check::need("controls", controls)?;
    Ok(Controls {
        version: version_from(controls.version.as_ref())?,
        paused: controls.paused.as_ref().map(pause_from).transpose()?,
        reorder: check::count("controls.reorder", controls.reorder)?,
    })
}

fn version_to((count, node): (u64, NodeId)) -> proto::ControlsVersion {
    proto::ControlsVersion { count, node: node_to(node) }
}

fn version_from(version: Option<&proto::ControlsVersion>) -> Checked<(u64, NodeId)> {
    let version = check::need("controls.version", version)?;
    Ok((check::count("controls.version", version.count)?, check::node("controls.version", &version.node)?))
}

pub(super) fn pause_to(pause: &Pause) -> proto::Pause {
    proto::Pause { at: pause.at.0, reason: owned_or_none(pause.reason.as_ref()) }
}

pub(super) fn pause_from(pause: &proto::Pause) -> Checked<Pause> {
    let reason = check::text_or_none("pause.reason", pause.reason.as_deref(), limits::REASON_BYTES)?;
    Ok(Pause { at: Unix(pause.at), reason })
}

fn offer_from(offer: &proto::Offer) -> Checked<Message> {
    let record = Box::new(record_from(offer.record.as_ref())?);
    let spec = offer.spec.as_ref().map(|spec| spec_from(Some(spec)).map(Arc::new)).transpose()?;
    Ok(Message::Offer { record, spec })
}

fn taken_from(taken: &proto::Taken) -> Checked<Message> {
    let task = task_id(&taken.task)?;
    let refused = birth_from(taken.refused.as_ref())?;
    let (record, spec) = copy_from(&task, taken.record.as_ref(), taken.spec.as_ref())?;
    Ok(Message::Taken { task, refused, record, spec })
}

fn pledge_from(pledge: &proto::Pledge) -> Checked<Message> {
    let task = task_id(&pledge.task)?;
    let ballot = ballot_from("pledge.ballot", pledge.ballot.as_ref())?;
    let kept = |kept| record_of(&task, Some(kept));
    let kept = pledge.kept.as_ref().map(kept).transpose()?;
    Ok(Message::Pledge { task, ballot, kept })
}

/// A whole copy of `task`, and of no other.
fn copy_from(
    task: &TaskId,
    record: Option<&proto::Record>,
    spec: Option<&proto::Spec>,
) -> Checked<(Box<Record>, Arc<Spec>)> {
    Ok((record_of(task, record)?, Arc::new(spec_from(spec)?)))
}

/// A version of `task`, and of no other.
fn record_of(task: &TaskId, record: Option<&proto::Record>) -> Checked<Box<Record>> {
    let record = record_from(record)?;
    if record.task != *task {
        return Err(WireError::Range { field: "record.task", problem: "is not the task of the message" });
    }
    Ok(Box::new(record))
}

impl From<&Grant> for proto::Grant {
    fn from(grant: &Grant) -> Self {
        proto::Grant {
            task: id(&grant.task),
            fence: some(grant.fence),
            worker: grant.worker.as_str().to_owned(),
            boot: grant.boot,
            spec: some(&*grant.spec),
            holders: nodes_to(&grant.holders),
            ahead: grant.ahead,
        }
    }
}

fn grant_from(grant: &proto::Grant) -> Checked<Grant> {
    Ok(Grant {
        task: task_id(&grant.task)?,
        fence: fence_from(grant.fence.as_ref())?,
        worker: check::worker("grant.worker", &grant.worker)?,
        boot: check::count("grant.boot", grant.boot)?,
        spec: Arc::new(spec_from(grant.spec.as_ref())?),
        holders: check::nodes("grant.holders", &grant.holders, limits::HOLDERS)?,
        ahead: grant.ahead,
    })
}

fn progress_from(progress: &proto::Progress) -> Checked<Message> {
    Ok(Message::Progress {
        task: task_id(&progress.task)?,
        fence: fence_from(progress.fence.as_ref())?,
        running: progress.running_ms.map(Millis),
        percent: check::percent("progress.percent", progress.percent)?,
        message: check::text_or_none("progress.message", progress.message.as_deref(), limits::REASON_BYTES)?,
        log_tail: check::bytes_or_none("progress.log_tail", progress.log_tail.as_deref(), limits::LOG_TAIL_BYTES)?,
    })
}

impl From<&Finished> for proto::Finished {
    fn from(finished: &Finished) -> Self {
        proto::Finished {
            task: id(&finished.task),
            fence: some(finished.fence),
            verdict: some(&finished.verdict),
            report: some(&finished.report),
            started_ms: finished.started.map(|t| t.0),
            free: free_to(&finished.free),
        }
    }
}

fn finished_from(finished: &proto::Finished) -> Checked<Finished> {
    Ok(Finished {
        task: task_id(&finished.task)?,
        fence: fence_from(finished.fence.as_ref())?,
        verdict: verdict_from(check::need("finished.verdict", finished.verdict.as_ref())?)?,
        report: report_from(check::need("finished.report", finished.report.as_ref())?)?,
        started: finished.started_ms.map(Millis),
        free: free_from(&finished.free)?,
    })
}

impl From<&Verdict> for proto::Verdict {
    fn from(verdict: &Verdict) -> Self {
        use proto::verdict::{Badly, HandedBack, Kind, Stopped, TimedOut, Well};
        let kind = match verdict {
            Verdict::Completed => Kind::Completed(Well {}),
            Verdict::Failed { error, retryable } => Kind::Failed(Badly { error: owned(error), retryable: *retryable }),
            Verdict::TimedOut { after } => Kind::TimedOut(TimedOut { after_ms: after.0 }),
            Verdict::Stopped => Kind::Stopped(Stopped {}),
            Verdict::HandedBack => Kind::HandedBack(HandedBack {}),
        };
        proto::Verdict { kind: Some(kind) }
    }
}

fn verdict_from(verdict: &proto::Verdict) -> Checked<Verdict> {
    use proto::verdict::{HandedBack, Kind, Stopped, Well};
    Ok(match verdict.kind.as_ref().ok_or(WireError::Unknown { what: "verdict" })? {
        Kind::Completed(Well {}) => Verdict::Completed,
        Kind::Failed(failed) => Verdict::Failed {
            error: check::text("verdict.error", &failed.error, limits::REASON_BYTES)?,
            retryable: failed.retryable,
        },
        Kind::TimedOut(timed_out) => Verdict::TimedOut { after: Millis(timed_out.after_ms) },
        Kind::Stopped(Stopped {}) => Verdict::Stopped,
        Kind::HandedBack(HandedBack {}) => Verdict::HandedBack,
    })
}
