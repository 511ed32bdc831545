//! Every message, drawn at random within the limits: mostly small, now and
//! then at a bound.

mod cached;
mod replies;
mod workflows;

use super::check::{COUNT, COUNTER};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option::of;
use proptest::prelude::*;
use replies::result;
use std::collections::BTreeMap;
use std::sync::Arc;
use taskmesh_core::authority::{Role, TokenId};
use taskmesh_core::command::{ClearScope, Detail, Request, Scope, Submission, TaskFilter, TaskOrder, WorkerSpec};
use taskmesh_core::execution::Verdict;
use taskmesh_core::forgotten::{Forgotten, Presence};
use taskmesh_core::message::{Beat, By, Controls, Declined, Electorate, Finished, Grant, Hello, Permit, PermitAsk};
use taskmesh_core::placement::{Alternative, Condition, Placement, Test};
use taskmesh_core::record::Birth;
use taskmesh_core::register::Issued;
use taskmesh_core::shelf::Shelved;
use taskmesh_core::task::{
    CancelRequest, Closed, Data, Durability, Priority, Report, Requirements, Resources, RetryPolicy, Task, Usage,
};
use taskmesh_core::view::Pause;
use taskmesh_core::{
    Ballot, BlobHash, Command, Fence, Message, Millis, NodeId, Outcome, Query, Record, Spec, Stamp, TaskId, TaskState,
    Unix, WorkerId, limits,
};

pub(super) type Any<T> = BoxedStrategy<T>;

/// Any message that a node may send to another.
pub(super) fn message() -> Any<Message> {
    prop_oneof![about_nodes(), about_copies(), about_runs(), about_requests(), cached::about_results()].boxed()
}

fn about_nodes() -> Any<Message> {
    prop_oneof![
        hello().prop_map(|hello| Message::Hello(Box::new(hello))),
        beat().prop_map(Message::Beat),
        Just(Message::WhoAreYou),
        vec((short(), 0..=COUNTER), 0..8).prop_map(|ready| Message::Announce { ready }),
        free().prop_map(|free| Message::Room { free }),
        vec((short(), 0..=COUNT, 0..=COUNT, 0..=COUNT, 0..=COUNT), 0..4).prop_map(|asks| {
            let ask =
                |(limit, asked, used, holds, wanted)| PermitAsk { limit, asked: Millis(asked), used, holds, wanted };
            Message::AskPermits(asks.into_iter().map(ask).collect())
        }),
        vec((short(), 0..=COUNT, 0..=COUNT), 0..4).prop_map(|permits| {
            let permit = |(limit, asked, allowed)| Permit { limit, asked: Millis(asked), allowed };
            Message::Permits(permits.into_iter().map(permit).collect())
        }),
        controls().prop_map(Message::Controls),
        (any::<u64>(), vec(issued(), 0..4), any::<bool>()).prop_map(|(digest, entries, answer)| Message::Tokens {
            digest,
            entries,
            answer
        }),
    ]
    .boxed()
}

fn about_copies() -> Any<Message> {
    let spec = || spec().prop_map(Arc::new);
    let record = || record().prop_map(Box::new);
    prop_oneof![
        (record(), of(spec())).prop_map(|(record, spec)| Message::Offer { record, spec }),
        (task(), stamp()).prop_map(|(task, stamp)| Message::Ack { task, stamp }),
        (task(), stamp()).prop_map(|(task, stamp)| Message::Want { task, stamp }),
        (task(), ballot()).prop_map(|(task, pledge)| Message::Refuse { task, pledge }),
        (birth(), record(), spec()).prop_map(|(refused, record, spec)| Message::Taken {
            task: record.task.clone(),
            refused,
            record,
            spec
        }),
        task().prop_map(|task| Message::Lost { task }),
        (task(), birth()).prop_map(|(task, birth)| Message::Gone { task, birth }),
        (task(), stamp()).prop_map(|(task, stamp)| Message::Forget { task, stamp }),
        (task(), birth(), ballot(), stamp(), electorate()).prop_map(|(task, birth, ballot, stamp, electorate)| {
            Message::Claim { task, birth, ballot, stamp, electorate }
        }),
        (task(), ballot()).prop_map(|(task, ballot)| Message::Pledge { task, ballot, kept: None }),
        (ballot(), record()).prop_map(|(ballot, record)| Message::Pledge {
            task: record.task.clone(),
            ballot,
            kept: Some(record)
        }),
    ]
    .boxed()
}

fn about_runs() -> Any<Message> {
    let declined =
        prop_oneof![Just(Declined::Busy), Just(Declined::NoWorker), Just(Declined::Paused), Just(Declined::Restarted)];
    let tail = vec(any::<u8>(), 0..200).prop_map(Arc::from);
    prop_oneof![
        grant().prop_map(|grant| Message::Grant(Box::new(grant))),
        (task(), fence(), declined, free()).prop_map(|(task, fence, why, free)| Message::Decline {
            task,
            fence,
            why,
            free
        }),
        (task(), fence(), of(millis()), of(0..=100_u8), of(long()), of(tail)).prop_map(
            |(task, fence, running, percent, message, log_tail)| Message::Progress {
                task,
                fence,
                running,
                percent,
                message,
                log_tail
            }
        ),
        finished().prop_map(|finished| Message::Finished(Box::new(finished))),
        (task(), fence()).prop_map(|(task, fence)| Message::Settled { task, fence }),
        (task(), fence(), any::<bool>()).prop_map(|(task, fence, force)| Message::Stop { task, fence, force }),
    ]
    .boxed()
}

fn about_requests() -> Any<Message> {
    prop_oneof![
        (any::<u64>(), by(), request()).prop_map(|(id, by, request)| Message::Request {
            id,
            by,
            request: Box::new(request)
        }),
        (any::<u64>(), result()).prop_map(|(id, reply)| Message::Response { id, reply: Box::new(reply) }),
    ]
    .boxed()
}

fn by() -> Any<By> {
    let token = vec(any::<u8>(), 0..200).prop_map(|token| By::Token(token.into()));
    prop_oneof![Just(By::Node), token].boxed()
}

fn issued() -> Any<Issued> {
    let role = of(prop::sample::select(Role::ALL.to_vec()));
    (any::<[u8; 16]>(), [short(), short(), short()], role, [0..=COUNT, 0..=COUNT], of((0..=COUNT).prop_map(Unix)))
        .prop_map(|(id, [subject, limits, by], role, [at, expires], revoked)| Issued {
            id: TokenId(id),
            subject,
            role,
            limits,
            by,
            at: Unix(at),
            expires: Unix(expires),
            revoked,
        })
        .boxed()
}

fn request() -> Any<Request> {
    prop_oneof![command().prop_map(Request::Command), query().prop_map(Request::Query)].boxed()
}

fn command() -> Any<Command> {
    let which = prop_oneof![
        Just(ClearScope::Queued),
        Just(ClearScope::Failed),
        Just(ClearScope::Cancelled),
        Just(ClearScope::NotRunning)
    ];
    prop_oneof![
        cached::command(),
        (of(task()), spec(), priority(), vec(payload(), 0..5)).prop_map(|(task, spec, priority, items)| {
            Command::Submit(Box::new(Submission { task, spec, priority, items }))
        }),
        (task(), of(long()), any::<bool>()).prop_map(|(task, reason, force)| Command::Cancel { task, reason, force }),
        (task(), of(long()), any::<bool>()).prop_map(|(task, reason, force)| Command::CancelWorkflow {
            task,
            reason,
            force
        }),
        (task(), any::<bool>(), vec(any::<u8>(), 0..50)).prop_map(|(task, approved, content)| Command::Approve {
            task,
            approved,
            content: content.into()
        }),
        (task(), priority(), any::<bool>()).prop_map(|(task, priority, requeue)| Command::Reprioritise {
            task,
            priority,
            requeue
        }),
        (task(), of(0..=limits::RETRIES), of(millis())).prop_map(|(task, max_retries, timeout)| Command::Retry {
            task,
            max_retries,
            timeout
        }),
        of(long()).prop_map(|reason| Command::Pause { reason }),
        any::<bool>().prop_map(|reorder| Command::Resume { reorder }),
        (forgotten(), any::<bool>(), scope()).prop_map(|(word, there, scope)| Command::ForgetNode {
            word,
            presence: if there { Presence::Overruled } else { Presence::Respected },
            scope
        }),
        (which, scope()).prop_map(|(which, scope)| Command::Clear { which, scope }),
        (worker(), any::<bool>(), millis()).prop_map(|(worker, graceful, timeout)| Command::Unregister {
            worker,
            graceful,
            timeout
        }),
    ]
    .boxed()
}

fn query() -> Any<Query> {
    let detail = (any::<[bool; 5]>(), of(any::<u32>()))
        .prop_map(|([report, live, explain, steps, spec], items)| Detail { report, live, explain, steps, spec, items });
    prop_oneof![
        (task(), detail, 0..=limits::WAIT_MS).prop_map(|(task, detail, wait)| Query::Task {
            task,
            detail,
            wait: Millis(wait)
        }),
        filter().prop_map(|filter| Query::Tasks(Box::new(filter))),
        (scope(), any::<bool>(), any::<bool>()).prop_map(|(scope, workers, historical)| Query::Stats {
            scope,
            workers,
            historical
        }),
        (worker(), any::<bool>()).prop_map(|(worker, tasks)| Query::Worker { worker, tasks }),
        Just(Query::Workers),
        node().prop_map(Query::Hears),
        scope().prop_map(|scope| Query::Cache { scope }),
        short().prop_map(|name| Query::Value { name }),
    ]
    .boxed()
}

fn filter() -> Any<TaskFilter> {
    (
        (vec(replies::status(), 0..9), of(worker()), vec(short(), 0..4), of(-1e300..1e300)),
        (of(short()), of(task()), 1..=limits::PAGE as u32, 0..=limits::OFFSET as u32, of((unix(), task())), scope()),
        (of(node()), of(any::<bool>()), prop_oneof![Just(TaskOrder::Oldest), Just(TaskOrder::Newest)]),
    )
        .prop_map(|(first, second, (owner, begun, order))| {
            let (statuses, worker, tags, priority_min) = first;
            let (task_type, parent, limit, offset, after, scope) = second;
            TaskFilter {
                statuses,
                worker,
                tags,
                priority_min,
                task_type,
                parent,
                owner,
                begun,
                limit,
                offset,
                order,
                after,
                scope,
            }
        })
        .boxed()
}

fn scope() -> Any<Scope> {
    prop_oneof![Just(Scope::Mesh), Just(Scope::Local)].boxed()
}

fn hello() -> Any<Hello> {
    (
        0..=COUNT,
        0..=COUNTER,
        any::<bool>(),
        vec(worker_spec(), 0..3),
        free(),
        nodes(0..20),
        controls(),
        of(any::<u64>()),
        of(short()),
        (vec(shelved(), 0..3), vec(short(), 0..3), vec(forgotten(), 0..3)),
    )
        .prop_map(|(boot, version, draining, workers, free, members, controls, tokens, metrics, more)| Hello {
            boot,
            version,
            draining,
            workers,
            free,
            members,
            controls,
            tokens,
            metrics,
            templates: more.0,
            features: more.1.into_iter().collect(),
            forgotten: more.2,
        })
        .boxed()
}

pub(super) fn forgotten() -> Any<Forgotten> {
    (node(), short(), (0..=COUNT).prop_map(Unix), of(short()))
        .prop_map(|(node, by, at, reason)| Forgotten { node, by, at, reason })
        .boxed()
}

fn electorate() -> Any<Electorate> {
    prop_oneof![Just(Electorate::Holders), Just(Electorate::Everybody)].boxed()
}

fn shelved() -> Any<Shelved> {
    (short(), short(), any::<[u8; 32]>())
        .prop_map(|(id, version, hash)| Shelved { id, version, hash: BlobHash(hash) })
        .boxed()
}

fn worker_spec() -> Any<WorkerSpec> {
    (worker(), vec(short(), 0..5), labels(), 1..=limits::SLOTS, of(resources(COUNT)), of(long()))
        .prop_map(|(worker, capabilities, labels, slots, resources, metadata)| WorkerSpec {
            worker,
            capabilities,
            labels,
            slots,
            resources,
            metadata,
        })
        .boxed()
}

fn beat() -> Any<Beat> {
    (0..=COUNT, 0..=COUNTER, free(), 0..=COUNT, (0..=COUNT, node()), of(any::<u64>()))
        .prop_map(|(boot, version, free, queued, controls, tokens)| Beat {
            boot,
            version,
            free,
            queued,
            controls,
            tokens,
        })
        .boxed()
}

fn controls() -> Any<Controls> {
    ((0..=COUNT, node()), of(pause()), 0..=COUNT)
        .prop_map(|(version, paused, reorder)| Controls { version, paused, reorder })
        .boxed()
}

pub(super) fn pause() -> Any<Pause> {
    (unix(), of(long())).prop_map(|(at, reason)| Pause { at, reason }).boxed()
}

fn free() -> Any<Vec<(WorkerId, u32)>> {
    vec((worker(), 0..=limits::SLOTS), 0..4).boxed()
}

fn grant() -> Any<Grant> {
    (task(), fence(), worker(), 0..=COUNT, spec(), nodes(0..5), any::<bool>())
        .prop_map(|(task, fence, worker, boot, spec, holders, ahead)| Grant {
            task,
            fence,
            worker,
            boot,
            spec: Arc::new(spec),
            holders,
            ahead,
        })
        .boxed()
}

fn finished() -> Any<Finished> {
    let verdict = prop_oneof![
        Just(Verdict::Completed),
        (long(), any::<bool>()).prop_map(|(error, retryable)| Verdict::Failed { error, retryable }),
        millis().prop_map(|after| Verdict::TimedOut { after }),
        Just(Verdict::Stopped),
        Just(Verdict::HandedBack),
    ];
    (task(), fence(), verdict, report(), of(millis()), free())
        .prop_map(|(task, fence, verdict, report, started, free)| Finished {
            task,
            fence,
            verdict,
            report,
            started,
            free,
        })
        .boxed()
}

pub(super) fn record() -> Any<Record> {
    (task(), birth(), stamp(), nodes(1..9), nodes(0..8), nodes(0..3), body())
        .prop_map(|(task, birth, stamp, holders, prior, forgotten, body)| Record {
            task,
            birth,
            stamp,
            holders,
            prior,
            forgotten,
            body,
        })
        .boxed()
}

fn body() -> Any<Task> {
    let cancel = (of(long()), any::<bool>()).prop_map(|(reason, force)| CancelRequest { reason, force });
    (priority(), [0..=COUNTER, 0..=COUNTER, 0..=COUNTER, 0..=COUNTER], of(cancel), of(long()), state())
        .prop_map(|(priority, [attempt, failures, crashes, retries], cancel, last_error, state)| Task {
            priority,
            attempt,
            failures,
            crashes,
            retries,
            cancel,
            last_error,
            state,
        })
        .boxed()
}

fn state() -> Any<TaskState> {
    prop_oneof![
        Just(TaskState::Blocked),
        unix().prop_map(|until| TaskState::Delayed { until }),
        (unix(), priority()).prop_map(|(since, place)| TaskState::Queued { since, place }),
        (node(), worker(), unix()).prop_map(|(executor, worker, since)| TaskState::Leased { executor, worker, since }),
        closed().prop_map(|closed| TaskState::Done(Arc::new(closed))),
    ]
    .boxed()
}

fn closed() -> Any<Closed> {
    let outcome = prop_oneof![
        Just(Outcome::Completed),
        long().prop_map(|error| Outcome::Failed { error }),
        of(long()).prop_map(|reason| Outcome::Cancelled { reason }),
        Just(Outcome::Expired),
    ];
    (outcome, unix(), of((node(), worker())), of(unix()), of(report()), of(cached::source()))
        .prop_map(|(outcome, at, executor, started_at, report, cached_from)| Closed {
            outcome,
            at,
            executor,
            started_at,
            report,
            cached_from,
        })
        .boxed()
}

pub(super) fn report() -> Any<Report> {
    let usage = (of(millis()), of(millis()), of(millis()), of(0..=COUNT))
        .prop_map(|(wall, cpu_user, cpu_system, max_rss_kib)| Usage { wall, cpu_user, cpu_system, max_rss_kib });
    (data(), of(data()), of(data()), any::<bool>(), usage)
        .prop_map(|(result, output, logs, truncated, usage)| Report { result, output, logs, truncated, usage })
        .boxed()
}

fn data() -> Any<Data> {
    prop_oneof![
        vec(any::<u8>(), 0..100).prop_map(|content| Data::Inline(content.into())),
        Just(Data::Inline(vec![7; limits::INLINE_BYTES].into())),
        (any::<[u8; 32]>(), 0..=limits::BLOB_BYTES)
            .prop_map(|(hash, bytes)| Data::Blob { hash: BlobHash(hash), bytes }),
    ]
    .boxed()
}

pub(super) fn spec() -> Any<Spec> {
    let durability = prop_oneof![Just(Durability::Replicated), Just(Durability::Local)];
    (
        (short(), payload(), vec(short(), 0..4), of(long()), of(millis()), retry(), requirements()),
        (of(unix()), of(unix()), vec(task(), 0..4), of(short()), durability, any::<bool>()),
        (of(short()), of(task()), unix(), of(short()), of(short()), of(cached::caching())),
    )
        .prop_map(|(first, second, (idempotency_key, retry_of, submitted_at, submitter, trace, cache))| {
            let (task_type, payload, tags, metadata, timeout, retry, requirements) = first;
            let (not_before, deadline, depends_on, fairness_key, durability, exclusive) = second;
            Spec {
                task_type,
                payload,
                tags,
                metadata,
                timeout,
                retry,
                requirements,
                not_before,
                deadline,
                depends_on,
                fairness_key,
                durability,
                exclusive,
                idempotency_key,
                retry_of,
                submitted_at,
                submitter,
                trace,
                cache,
            }
        })
        .boxed()
}

fn retry() -> Any<RetryPolicy> {
    (0..=limits::RETRIES, 1.0..=100.0, millis(), millis(), any::<bool>())
        .prop_map(|(max_retries, backoff_factor, initial_delay, max_delay, jitter)| RetryPolicy {
            max_retries,
            backoff_factor,
            initial_delay,
            max_delay,
            jitter,
        })
        .boxed()
}

pub(super) fn requirements() -> Any<Requirements> {
    let placement = prop_oneof![Just(Placement::Balance), Just(Placement::Spread), Just(Placement::Pack)];
    let way = || {
        (vec(short(), 0..4), labels(), selector(), resources(limits::AMOUNT)).prop_map(
            |(capabilities, labels, selector, resources)| Alternative { capabilities, labels, selector, resources },
        )
    };
    (way(), vec(way(), 0..=limits::ALTERNATIVES), placement, of(short()))
        .prop_map(|(own, any_of, placement, affinity_key)| Requirements {
            capabilities: own.capabilities,
            labels: own.labels,
            resources: own.resources,
            selector: own.selector,
            any_of,
            placement,
            affinity_key,
        })
        .boxed()
}

fn selector() -> Any<Vec<Condition>> {
    let test = prop_oneof![
        vec(short(), 0..4).prop_map(Test::In),
        vec(short(), 0..4).prop_map(Test::NotIn),
        Just(Test::Exists),
        Just(Test::Missing),
    ];
    vec((short(), test).prop_map(|(label, test)| Condition { label, test }), 0..4).boxed()
}

pub(super) fn resources(limit: u64) -> Any<Resources> {
    let amount = move || 0..=limit;
    (amount(), amount(), amount(), btree_map(short(), amount(), 0..4))
        .prop_map(|(cpu_milli, memory_mb, gpu_milli, named)| Resources { cpu_milli, memory_mb, gpu_milli, named })
        .boxed()
}

pub(super) fn labels() -> Any<BTreeMap<Arc<str>, Arc<str>>> {
    btree_map(short(), short(), 0..4).boxed()
}

fn payload() -> Any<Arc<[u8]>> {
    prop_oneof![8 => vec(any::<u8>(), 0..300), 1 => Just(vec![1; 70_000])].prop_map(Arc::from).boxed()
}

pub(super) fn short() -> Any<Arc<str>> {
    prop_oneof![8 => "\\PC{0,20}", 1 => Just("x".repeat(limits::TEXT_BYTES))].prop_map(Arc::from).boxed()
}

pub(super) fn long() -> Any<Arc<str>> {
    prop_oneof![8 => "(?s).{0,60}", 1 => Just("y".repeat(limits::REASON_BYTES))].prop_map(Arc::from).boxed()
}

pub(super) fn task() -> Any<TaskId> {
    let text = prop_oneof![8 => "[!-~é✓]{1,40}", 1 => Just("t".repeat(TaskId::MAX_BYTES))];
    text.prop_map(|text| TaskId::new(&text).expect("a valid name")).boxed()
}

pub(super) fn worker() -> Any<WorkerId> {
    let text = prop_oneof![8 => "[!-~]{1,20}", 1 => Just("w".repeat(WorkerId::MAX_BYTES))];
    text.prop_map(|text| WorkerId::new(&text).expect("a valid name")).boxed()
}

pub(super) fn node() -> Any<NodeId> {
    any::<[u8; 32]>().prop_map(NodeId).boxed()
}

pub(super) fn nodes(count: std::ops::Range<usize>) -> Any<Vec<NodeId>> {
    btree_set(node(), count).prop_map(|nodes| nodes.into_iter().collect::<Vec<_>>()).prop_shuffle().boxed()
}

pub(super) fn priority() -> Any<Priority> {
    prop_oneof![Just(1.0), f64::MIN_POSITIVE..=f64::MAX]
        .prop_map(|value| Priority::new(value).expect("finite and above 0"))
        .boxed()
}

pub(super) fn millis() -> Any<Millis> {
    any::<u64>().prop_map(Millis).boxed()
}

pub(super) fn unix() -> Any<Unix> {
    any::<u64>().prop_map(Unix).boxed()
}

fn ballot() -> Any<Ballot> {
    (0..=COUNTER, node()).prop_map(|(epoch, owner)| Ballot { epoch, owner }).boxed()
}

fn stamp() -> Any<Stamp> {
    (ballot(), 0..=COUNTER).prop_map(|(ballot, revision)| Stamp { ballot, revision }).boxed()
}

fn fence() -> Any<Fence> {
    (ballot(), 0..=COUNTER).prop_map(|(ballot, attempt)| Fence { ballot, attempt }).boxed()
}

fn birth() -> Any<Birth> {
    (node(), any::<u64>()).prop_map(|(node, nonce)| Birth { node, nonce }).boxed()
}
