//! Entries of every shape, drawn from a seed.

use std::collections::BTreeMap;
use std::sync::Arc;
use taskmesh_core::authority::{Role, TokenId};
use taskmesh_core::cache::{CacheKey, Cached, Caching, Mode, Scope, Source};
use taskmesh_core::command::WorkerSpec;
use taskmesh_core::effect::PeerBook;
use taskmesh_core::forgotten::Forgotten;
use taskmesh_core::message::Controls;
use taskmesh_core::placement::{Alternative, Condition, Placement, Test};
use taskmesh_core::prng::Prng;
use taskmesh_core::record::Birth;
use taskmesh_core::register::Issued;
use taskmesh_core::task::{
    CancelRequest, Closed, Data, Durability, Outcome, Priority, Report, Requirements, Resources, RetryPolicy, Task,
    TaskState, Usage,
};
use taskmesh_core::view::Pause;
use taskmesh_core::{Ballot, BlobHash, Entry, Millis, NodeId, Record, Spec, Stamp, TaskId, Unix, WorkerId};

pub(crate) fn task_id(chance: &mut Prng) -> TaskId {
    let long = if chance.chance(100) { "é".repeat(100) } else { String::new() };
    TaskId::new(&format!("task-{long}{}", chance.next())).unwrap()
}

pub(crate) fn spec(chance: &mut Prng) -> Spec {
    let size = if chance.chance(50) { 30_000 } else { 200 };
    Spec {
        task_type: text(chance),
        payload: bytes(chance, size),
        tags: some(chance, 4, text),
        metadata: maybe(chance, text),
        timeout: maybe(chance, |c| Millis(c.next())),
        retry: RetryPolicy {
            max_retries: chance.below(1_000) as u32,
            backoff_factor: 1.0 + chance.below(1_000) as f64 / 17.0,
            initial_delay: Millis(chance.next()),
            max_delay: Millis(chance.next()),
            jitter: chance.chance(500),
        },
        requirements: Requirements {
            capabilities: some(chance, 3, text),
            labels: labels(chance),
            resources: resources(chance),
            selector: some(chance, 3, condition),
            any_of: some(chance, 3, |c| Alternative {
                capabilities: some(c, 3, text),
                labels: labels(c),
                selector: some(c, 3, condition),
                resources: resources(c),
            }),
            placement: [Placement::Balance, Placement::Spread, Placement::Pack][chance.below(3) as usize],
            affinity_key: maybe(chance, text),
        },
        not_before: maybe(chance, unix),
        deadline: maybe(chance, unix),
        depends_on: some(chance, 4, task_id),
        fairness_key: maybe(chance, text),
        durability: if chance.chance(500) { Durability::Local } else { Durability::Replicated },
        exclusive: chance.chance(500),
        idempotency_key: maybe(chance, text),
        retry_of: maybe(chance, task_id),
        submitted_at: unix(chance),
        submitter: maybe(chance, text),
        trace: maybe(chance, text),
        cache: maybe(chance, caching),
    }
}

fn condition(chance: &mut Prng) -> Condition {
    let test = match chance.below(4) {
        0 => Test::In(some(chance, 3, text)),
        1 => Test::NotIn(some(chance, 3, text)),
        2 => Test::Exists,
        _ => Test::Missing,
    };
    Condition { label: text(chance), test }
}

pub(crate) fn record(chance: &mut Prng, task: &TaskId) -> Entry {
    let record = Record {
        task: task.clone(),
        birth: Birth { node: node(chance), nonce: chance.next() },
        stamp: Stamp { ballot: ballot(chance), revision: chance.next() as u32 },
        holders: some(chance, 5, node),
        prior: some(chance, 3, node),
        forgotten: some(chance, 2, node),
        body: Task {
            priority: priority(chance),
            attempt: chance.next() as u32,
            failures: chance.below(9) as u32,
            crashes: chance.below(9) as u32,
            retries: chance.below(9) as u32,
            cancel: maybe(chance, |c| CancelRequest { reason: maybe(c, text), force: c.chance(500) }),
            last_error: maybe(chance, text),
            state: state(chance),
        },
    };
    Entry::Record { pledge: ballot(chance), record: Box::new(record) }
}

/// One of every kind but specs and records.
pub(crate) fn others(chance: &mut Prng) -> Vec<Entry> {
    let worker = WorkerSpec {
        worker: worker(chance),
        capabilities: some(chance, 5, text),
        labels: labels(chance),
        slots: chance.below(10_000) as u32,
        resources: maybe(chance, resources),
        metadata: maybe(chance, text),
    };
    let controls = Controls {
        version: (chance.next(), node(chance)),
        paused: maybe(chance, |c| Pause { at: unix(c), reason: maybe(c, text) }),
        reorder: chance.next(),
    };
    let book = PeerBook {
        addresses: some(chance, 5, text),
        pinned: chance.chance(500),
        banished: chance.chance(500),
        seen: unix(chance),
    };
    vec![
        Entry::Worker(worker, unix(chance)),
        Entry::Controls(controls),
        Entry::Peer(node(chance), book),
        Entry::Boot(chance.next()),
        Entry::Tombstone(chance.next(), unix(chance)),
        Entry::Token(issued(chance)),
        Entry::Cached(Arc::new(cached(chance))),
        Entry::Forgotten(forgotten(chance)),
        Entry::Pledge { task: task_id(chance), ballot: ballot(chance), at: unix(chance) },
    ]
}

pub(crate) fn issued(chance: &mut Prng) -> Issued {
    let role = *Role::ALL.get(chance.below(4) as usize).unwrap();
    Issued {
        id: TokenId(node(chance).0[..16].try_into().unwrap()),
        subject: text(chance),
        role: maybe(chance, |_| role),
        limits: text(chance),
        by: text(chance),
        at: unix(chance),
        expires: unix(chance),
        revoked: maybe(chance, unix),
    }
}

pub(crate) fn forgotten(chance: &mut Prng) -> Forgotten {
    Forgotten { at: unix(chance), node: node(chance), by: text(chance), reason: maybe(chance, text) }
}

fn caching(chance: &mut Prng) -> Caching {
    let mode = [Mode::Read, Mode::Write, Mode::ReadWrite][chance.below(3) as usize];
    Caching { mode, scope: maybe(chance, |c| Scope(node(c).0)) }
}

fn source(chance: &mut Prng) -> Source {
    Source { task: task_id(chance), attempt: chance.next() as u32 }
}

fn cached(chance: &mut Prng) -> Cached {
    Cached {
        key: CacheKey(node(chance).0),
        task_type: text(chance),
        tags: some(chance, 3, text),
        source: source(chance),
        report: report(chance),
        created: unix(chance),
        expires: unix(chance),
    }
}

fn state(chance: &mut Prng) -> TaskState {
    match chance.below(5) {
        0 => TaskState::Blocked,
        1 => TaskState::Delayed { until: unix(chance) },
        2 => TaskState::Queued { since: unix(chance), place: priority(chance) },
        3 => TaskState::Leased { executor: node(chance), worker: worker(chance), since: unix(chance) },
        _ => TaskState::Done(Arc::new(Closed {
            outcome: match chance.below(4) {
                0 => Outcome::Completed,
                1 => Outcome::Failed { error: text(chance) },
                2 => Outcome::Cancelled { reason: maybe(chance, text) },
                _ => Outcome::Expired,
            },
            at: unix(chance),
            executor: maybe(chance, |c| (node(c), worker(c))),
            started_at: maybe(chance, unix),
            report: maybe(chance, report),
            cached_from: maybe(chance, source),
        })),
    }
}

fn report(chance: &mut Prng) -> Report {
    Report {
        result: data(chance),
        output: maybe(chance, data),
        logs: maybe(chance, data),
        truncated: chance.chance(500),
        usage: Usage {
            wall: maybe(chance, |c| Millis(c.next())),
            cpu_user: maybe(chance, |c| Millis(c.next())),
            cpu_system: maybe(chance, |c| Millis(c.next())),
            max_rss_kib: maybe(chance, Prng::next),
        },
    }
}

fn data(chance: &mut Prng) -> Data {
    match chance.below(3) {
        0 => Data::Inline(bytes(chance, 16 * 1024)),
        1 => Data::Inline(bytes(chance, 10)),
        _ => Data::Blob { hash: BlobHash::of(&chance.next().to_le_bytes()), bytes: chance.next() },
    }
}

fn resources(chance: &mut Prng) -> Resources {
    let named = some(chance, 3, |c| (text(c), c.next())).into_iter().collect();
    Resources { cpu_milli: chance.next(), memory_mb: chance.next(), gpu_milli: chance.next(), named }
}

fn labels(chance: &mut Prng) -> BTreeMap<Arc<str>, Arc<str>> {
    some(chance, 3, |c| (text(c), text(c))).into_iter().collect()
}

fn ballot(chance: &mut Prng) -> Ballot {
    Ballot { epoch: chance.next() as u32, owner: node(chance) }
}

fn priority(chance: &mut Prng) -> Priority {
    Priority::new(f64::from_bits(chance.next()).abs()).unwrap_or(Priority::NORMAL)
}

fn node(chance: &mut Prng) -> NodeId {
    NodeId::test(chance.next())
}

fn worker(chance: &mut Prng) -> WorkerId {
    WorkerId::new(&format!("worker-{}", chance.below(1_000))).unwrap()
}

fn unix(chance: &mut Prng) -> Unix {
    Unix(chance.next() >> chance.below(64))
}

fn text(chance: &mut Prng) -> Arc<str> {
    let any = ["", "exec", "gpu:*", "ein längerer Text mit Zeilen\nund \u{1F980}", "x"];
    format!("{}{}", any[chance.below(5) as usize], chance.below(100)).into()
}

fn bytes(chance: &mut Prng, most: u64) -> Arc<[u8]> {
    (0..chance.below(most + 1)).map(|_| chance.next() as u8).collect()
}

fn some<T>(chance: &mut Prng, most: u64, mut make: impl FnMut(&mut Prng) -> T) -> Vec<T> {
    (0..chance.below(most + 1)).map(|_| make(chance)).collect()
}

fn maybe<T>(chance: &mut Prng, make: impl FnOnce(&mut Prng) -> T) -> Option<T> {
    chance.chance(500).then(|| make(chance))
}
