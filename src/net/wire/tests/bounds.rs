//! Each bound of the wire: one step over it is an error that names the field.

use super::*;
use prost::Message as _;
use proto::message::Kind;
use taskmesh_core::execution::Verdict;
use taskmesh_core::forgotten::Forgotten;
use taskmesh_core::message::{Beat, Controls, Finished, Grant, Hello};
use taskmesh_core::shelf::Shelved;
use taskmesh_core::task::{Closed, Data, Outcome, Report, Task, TaskState};
use taskmesh_core::{BlobHash, Record};

/// The field that must be named, and how to go over its bound.
pub(super) type Over<T> = (&'static str, fn(&mut T));

/// Breaks a good `part` in each way of `table`, and sends it in a message.
pub(super) fn refuses<T: Clone>(part: T, table: &[Over<T>], send: impl Fn(T) -> Kind) {
    let read = |part| decode(&proto::Message { kind: Some(send(part)) }.encode_to_vec());
    assert!(read(part.clone()).is_ok(), "{:?}", read(part));
    for (name, over) in table {
        let mut broken = part.clone();
        over(&mut broken);
        let error = read(broken).expect_err(name).to_string();
        assert!(error.starts_with(name) || error == format!("unknown kind of {name}"), "{name}: {error}");
    }
}

pub(super) fn long(limit: usize) -> String {
    "x".repeat(limit + 1)
}

pub(super) fn texts(limit: usize) -> Vec<String> {
    vec!["x".to_owned(); limit + 1]
}

pub(super) fn ids(limit: usize) -> Vec<Vec<u8>> {
    (0..=limit as u64).map(|n| NodeId::test(n).0.to_vec()).collect()
}

pub(super) fn entries<T: Default>(limit: usize) -> std::collections::BTreeMap<String, T> {
    (0..=limit).map(|n| (n.to_string(), T::default())).collect()
}

fn forgotten() -> Forgotten {
    Forgotten { node: NodeId([2; 32]), by: "ann".into(), at: Unix(1), reason: Some("burnt".into()) }
}

pub(super) fn text() -> String {
    long(limits::TEXT_BYTES)
}

pub(super) fn reason() -> String {
    long(limits::REASON_BYTES)
}

fn record() -> Record {
    Record {
        task: TaskId::new("job").unwrap(),
        birth: taskmesh_core::record::Birth::default(),
        stamp: Stamp::default(),
        holders: vec![NodeId([1; 32]), NodeId([2; 32]), NodeId([3; 32])],
        prior: Vec::new(),
        forgotten: Vec::new(),
        body: Task {
            priority: Priority::NORMAL,
            attempt: 1,
            failures: 0,
            crashes: 0,
            retries: 0,
            cancel: None,
            last_error: None,
            state: TaskState::Blocked,
        },
    }
}

#[test]
fn of_a_spec() {
    let table: &[Over<proto::Spec>] = &[
        ("spec.task_type", |s| s.task_type = text()),
        ("spec.payload", |s| s.payload = vec![0; limits::PAYLOAD_BYTES + 1]),
        ("spec.tags", |s| s.tags = texts(limits::TAGS)),
        ("spec.tags", |s| s.tags = vec![text()]),
        ("spec.metadata", |s| s.metadata = Some(long(limits::METADATA_BYTES))),
        ("spec.depends_on", |s| s.depends_on = texts(limits::DEPENDENCIES)),
        ("spec.depends_on", |s| s.depends_on = vec!["white space".to_owned()]),
        ("spec.fairness_key", |s| s.fairness_key = Some(text())),
        ("spec.idempotency_key", |s| s.idempotency_key = Some(text())),
        ("spec.retry_of", |s| s.retry_of = Some(String::new())),
        ("spec.durability", |s| s.durability = 3),
        ("spec.durability", |s| s.durability = 0),
        ("spec.retry", |s| s.retry = None),
        ("retry.max_retries", |s| s.retry.as_mut().unwrap().max_retries = limits::RETRIES + 1),
        ("retry.backoff_factor", |s| s.retry.as_mut().unwrap().backoff_factor = 0.99),
        ("retry.backoff_factor", |s| s.retry.as_mut().unwrap().backoff_factor = 100.1),
        ("retry.backoff_factor", |s| s.retry.as_mut().unwrap().backoff_factor = f64::NAN),
    ];
    refuses(proto::Spec::from(&spec()), table, |spec| {
        Kind::Offer(proto::Offer { record: Some((&record()).into()), spec: Some(spec) })
    });
}

#[test]
fn of_requirements() {
    let table: &[Over<proto::Spec>] = &[
        ("requirements", |s| s.requirements = None),
        ("requirements.resources", |s| s.requirements.as_mut().unwrap().resources = None),
        ("requirements.capabilities", |s| {
            s.requirements.as_mut().unwrap().capabilities = texts(limits::ATTRIBUTES);
        }),
        ("requirements.labels", |s| s.requirements.as_mut().unwrap().labels = entries(limits::ATTRIBUTES)),
        ("requirements.labels", |s| {
            s.requirements.as_mut().unwrap().labels = [("name".to_owned(), text())].into();
        }),
        ("resources.cpu_milli", |s| resources(s).cpu_milli = limits::AMOUNT + 1),
        ("resources.memory_mb", |s| resources(s).memory_mb = limits::AMOUNT + 1),
        ("resources.gpu_milli", |s| resources(s).gpu_milli = u64::MAX),
        ("resources.named", |s| resources(s).named = entries(limits::ATTRIBUTES)),
        ("resources.named", |s| resources(s).named = [(text(), 1)].into()),
        ("resources.named", |s| resources(s).named = [("licences".to_owned(), limits::AMOUNT + 1)].into()),
        ("selector", |s| needs(s).selector = vec![proto::Condition::default(); limits::ATTRIBUTES + 1]),
        ("selector.test", |s| needs(s).selector = vec![condition(0)]),
        ("selector.test", |s| needs(s).selector = vec![condition(9)]),
        ("selector.label", |s| needs(s).selector = vec![proto::Condition { label: text(), ..condition(3) }]),
        ("selector.values", |s| {
            needs(s).selector = vec![proto::Condition { values: texts(limits::ATTRIBUTES), ..condition(1) }];
        }),
        ("requirements.any_of", |s| needs(s).any_of = vec![way(); limits::ALTERNATIVES + 1]),
        ("any_of.resources", |s| needs(s).any_of = vec![proto::Alternative { resources: None, ..way() }]),
        ("any_of.capabilities", |s| {
            needs(s).any_of = vec![proto::Alternative { capabilities: texts(limits::ATTRIBUTES), ..way() }];
        }),
        ("any_of.labels", |s| {
            needs(s).any_of = vec![proto::Alternative { labels: entries(limits::ATTRIBUTES), ..way() }];
        }),
        ("requirements.placement", |s| needs(s).placement = 9),
        ("requirements.affinity_key", |s| needs(s).affinity_key = Some(text())),
    ];
    refuses(proto::Spec::from(&spec()), table, |spec| {
        Kind::Offer(proto::Offer { record: Some((&record()).into()), spec: Some(spec) })
    });
}

fn needs(spec: &mut proto::Spec) -> &mut proto::Requirements {
    spec.requirements.as_mut().unwrap()
}

fn condition(test: i32) -> proto::Condition {
    proto::Condition { label: "zone".to_owned(), test, values: Vec::new() }
}

fn way() -> proto::Alternative {
    proto::Alternative { resources: Some(proto::Resources::default()), ..proto::Alternative::default() }
}

fn resources(spec: &mut proto::Spec) -> &mut proto::Resources {
    spec.requirements.as_mut().unwrap().resources.as_mut().unwrap()
}

#[test]
fn of_a_record() {
    let table: &[Over<proto::Record>] = &[
        ("record.task", |r| r.task = long(TaskId::MAX_BYTES)),
        ("birth", |r| r.birth = None),
        ("birth.node", |r| r.birth.as_mut().unwrap().node = vec![0; 31]),
        ("stamp", |r| r.stamp = None),
        ("stamp.ballot", |r| r.stamp.as_mut().unwrap().ballot = None),
        ("stamp.ballot", |r| r.stamp.as_mut().unwrap().ballot.as_mut().unwrap().epoch = u32::MAX),
        ("stamp.revision", |r| r.stamp.as_mut().unwrap().revision = u32::MAX),
        ("record.holders", |r| r.holders.clear()),
        ("record.holders", |r| r.holders = ids(limits::HOLDERS)),
        ("record.holders", |r| r.holders[1] = vec![0; 33]),
        ("record.holders", |r| r.holders[1] = r.holders[0].clone()),
        ("record.holders", |r| r.prior = ids(limits::HOLDERS - 3)),
        ("record.prior", |r| r.prior = vec![vec![7; 32]; 2]),
        ("record.body", |r| r.body = None),
        ("task.priority", |r| body(r).priority = 0.0),
        ("task.priority", |r| body(r).priority = f64::INFINITY),
        ("task.attempt", |r| body(r).attempt = u32::MAX),
        ("task.failures", |r| body(r).failures = u32::MAX),
        ("task.crashes", |r| body(r).crashes = u32::MAX),
        ("task.retries", |r| body(r).retries = u32::MAX),
        ("task.last_error", |r| body(r).last_error = Some(reason())),
        ("task.cancel.reason", |r| {
            body(r).cancel = Some(proto::CancelRequest { reason: Some(reason()), force: false });
        }),
        ("task.state", |r| body(r).state = None),
        ("queued.place", |r| body(r).state = Some(proto::task::State::Queued(proto::Queued { since: 0, place: -1.0 }))),
        ("leased.executor", |r| {
            body(r).state = Some(proto::task::State::Leased(proto::Leased { executor: None, since: 0 }));
        }),
    ];
    refuses(proto::Record::from(&record()), table, |record| {
        Kind::Offer(proto::Offer { record: Some(record), spec: None })
    });
}

fn body(record: &mut proto::Record) -> &mut proto::Task {
    record.body.as_mut().unwrap()
}

#[test]
fn of_an_end() {
    let mut record = record();
    record.body.state = TaskState::Done(Arc::new(Closed {
        outcome: Outcome::Completed,
        at: Unix(1),
        executor: Some((NodeId([4; 32]), WorkerId::new("w").unwrap())),
        started_at: None,
        report: Some(Report { output: Some(Data::default()), logs: Some(Data::default()), ..Report::default() }),
        cached_from: None,
    }));
    fn closed(record: &mut proto::Record) -> &mut proto::Closed {
        match body(record).state.as_mut() {
            Some(proto::task::State::Done(closed)) => closed,
            other => panic!("{other:?}"),
        }
    }
    fn report(record: &mut proto::Record) -> &mut proto::Report {
        closed(record).report.as_mut().unwrap()
    }
    fn over() -> Option<proto::Data> {
        Some(proto::Data { content: Some(proto::data::Content::Inline(vec![0; limits::INLINE_BYTES + 1])) })
    }
    fn blob(hash: usize, size: u64) -> Option<proto::Data> {
        Some(proto::Data { content: Some(proto::data::Content::Blob(proto::Blob { hash: vec![0; hash], size })) })
    }
    let table: &[Over<proto::Record>] = &[
        ("closed.outcome", |r| closed(r).outcome = None),
        ("failed.error", |r| {
            closed(r).outcome = Some(proto::closed::Outcome::Failed(proto::Failed { error: reason() }));
        }),
        ("cancelled.reason", |r| {
            closed(r).outcome = Some(proto::closed::Outcome::Cancelled(proto::Cancelled { reason: Some(reason()) }));
        }),
        ("closed.executor", |r| closed(r).executor.as_mut().unwrap().node.clear()),
        ("closed.executor", |r| closed(r).executor.as_mut().unwrap().worker = long(WorkerId::MAX_BYTES)),
        ("report.result", |r| report(r).result = None),
        ("report.result", |r| report(r).result = Some(proto::Data { content: None })),
        ("report.result", |r| report(r).result = over()),
        ("report.output", |r| report(r).output = over()),
        ("report.logs", |r| report(r).logs = over()),
        ("report.output", |r| report(r).output = blob(31, 1)),
        ("report.output", |r| report(r).output = blob(32, limits::BLOB_BYTES + 1)),
        ("report.usage", |r| report(r).usage = None),
        ("usage.max_rss_kib", |r| report(r).usage.as_mut().unwrap().max_rss_kib = Some(u64::MAX)),
    ];
    refuses(proto::Record::from(&record), table, |record| {
        Kind::Offer(proto::Offer { record: Some(record), spec: None })
    });
}

#[test]
fn of_a_copy() {
    let taken = proto::Taken {
        task: "job".to_owned(),
        refused: Some(taskmesh_core::record::Birth::default().into()),
        record: Some((&record()).into()),
        spec: Some((&spec()).into()),
    };
    let table: &[Over<proto::Taken>] = &[
        ("birth", |t| t.refused = None),
        ("record", |t| t.record = None),
        ("spec", |t| t.spec = None),
        ("record.task", |t| t.record.as_mut().unwrap().task = "other".to_owned()),
    ];
    refuses(taken, table, Kind::Taken);
    let ballot = Some(Ballot::default().into());
    let pledge = proto::Pledge { task: "job".to_owned(), ballot, kept: Some((&record()).into()) };
    let table: &[Over<proto::Pledge>] = &[
        ("pledge.ballot", |p| p.ballot = None),
        ("record.task", |p| p.kept.as_mut().unwrap().task = "other".to_owned()),
    ];
    refuses(pledge, table, Kind::Pledge);
}

#[test]
fn of_a_hello() {
    let hello = Hello {
        boot: 1,
        version: 1,
        draining: false,
        workers: vec![taskmesh_core::command::WorkerSpec {
            worker: WorkerId::new("w").unwrap(),
            capabilities: Vec::new(),
            labels: std::collections::BTreeMap::new(),
            slots: 1,
            resources: None,
            metadata: None,
        }],
        free: vec![(WorkerId::new("w").unwrap(), 1)],
        members: vec![NodeId([1; 32])],
        controls: Controls::default(),
        tokens: None,
        metrics: None,
        templates: vec![Shelved { id: "t".into(), version: "1.0.0".into(), hash: BlobHash([1; 32]) }],
        features: std::collections::BTreeSet::from(["workflows".into()]),
        forgotten: vec![forgotten()],
    };
    let table: &[Over<proto::Hello>] = &[
        ("hello.boot", |h| h.boot = u64::MAX),
        ("hello.version", |h| h.version = u32::MAX),
        ("hello.forgotten", |h| h.forgotten = vec![h.forgotten[0].clone(); limits::FORGOTTEN + 1]),
        ("forgotten.node", |h| h.forgotten[0].node = vec![1; 31]),
        ("forgotten.by", |h| h.forgotten[0].by = text()),
        ("forgotten.at", |h| h.forgotten[0].at = u64::MAX),
        ("forgotten.reason", |h| h.forgotten[0].reason = Some(text())),
        ("hello.workers", |h| h.workers = vec![h.workers[0].clone(); limits::WORKERS + 1]),
        ("worker.worker", |h| h.workers[0].worker.clear()),
        ("worker.capabilities", |h| h.workers[0].capabilities = texts(limits::ATTRIBUTES)),
        ("worker.labels", |h| h.workers[0].labels = entries(limits::ATTRIBUTES)),
        ("worker.slots", |h| h.workers[0].slots = 0),
        ("worker.slots", |h| h.workers[0].slots = limits::SLOTS + 1),
        ("worker.metadata", |h| h.workers[0].metadata = Some(long(limits::METADATA_BYTES))),
        ("free", |h| h.free = vec![h.free[0].clone(); limits::WORKERS + 1]),
        ("free.worker", |h| h.free[0].worker.clear()),
        ("free.slots", |h| h.free[0].slots = limits::SLOTS + 1),
        ("hello.members", |h| h.members = ids(limits::MEMBERS)),
        ("hello.members", |h| h.members.push(vec![1; 32])),
        ("hello.templates", |h| h.templates = vec![h.templates[0].clone(); limits::TEMPLATES + 1]),
        ("hello.features", |h| h.features = vec!["f".to_owned(); limits::ATTRIBUTES + 1]),
        ("hello.features", |h| h.features = vec!["f".repeat(limits::TEXT_BYTES + 1)]),
        ("shelved.id", |h| h.templates[0].id = text()),
        ("shelved.hash", |h| h.templates[0].hash.clear()),
        ("shelved.version", |h| h.templates[0].version = text()),
        ("hello.metrics", |h| h.metrics = Some(long(limits::TEXT_BYTES))),
        ("controls", |h| h.controls = None),
        ("controls.version", |h| h.controls.as_mut().unwrap().version = None),
        ("controls.version", |h| h.controls.as_mut().unwrap().version.as_mut().unwrap().count = u64::MAX),
        ("controls.reorder", |h| h.controls.as_mut().unwrap().reorder = u64::MAX),
        ("pause.reason", |h| {
            h.controls.as_mut().unwrap().paused = Some(proto::Pause { at: 0, reason: Some(reason()) });
        }),
    ];
    refuses(proto::Hello::from(&hello), table, Kind::Hello);
}

#[test]
fn of_gossip() {
    let beat = Beat { boot: 1, version: 1, free: Vec::new(), queued: 0, controls: (1, NodeId([1; 32])), tokens: None };
    let table: &[Over<proto::Beat>] = &[
        ("beat.boot", |b| b.boot = u64::MAX),
        ("beat.version", |b| b.version = u32::MAX),
        ("beat.queued", |b| b.queued = u64::MAX),
        ("controls.version", |b| b.controls.as_mut().unwrap().node.clear()),
    ];
    refuses(proto::Beat::from(&beat), table, Kind::Beat);
    let ready = proto::Ready { task_type: "echo".to_owned(), count: 1 };
    let table: &[Over<proto::Announce>] = &[
        ("announce.ready", |a| a.ready = vec![a.ready[0].clone(); limits::ANNOUNCED + 1]),
        ("ready.task_type", |a| a.ready[0].task_type = text()),
        ("ready.count", |a| a.ready[0].count = u32::MAX),
    ];
    refuses(proto::Announce { ready: vec![ready] }, table, Kind::Announce);
}

#[test]
fn of_permits() {
    let table: &[Over<proto::AskPermits>] = &[
        ("ask.limit", |a| a.asks[0].limit = long(limits::TEXT_BYTES + 64)),
        ("ask.asked", |a| a.asks[0].asked_ms = u64::MAX),
        ("ask.used", |a| a.asks[0].used = u64::MAX),
        ("ask.wanted", |a| a.asks[0].wanted = u64::MAX),
        ("ask.holds", |a| a.asks[0].holds = u64::MAX),
        ("asks", |a| a.asks = vec![a.asks[0].clone(); limits::LIMITS + 1]),
    ];
    refuses(proto::AskPermits { asks: vec![Default::default()] }, table, Kind::AskPermits);
    let table: &[Over<proto::Permits>] = &[
        ("permit.limit", |p| p.permits[0].limit = long(limits::TEXT_BYTES + 64)),
        ("permit.asked", |p| p.permits[0].asked_ms = u64::MAX),
        ("permit.allowed", |p| p.permits[0].allowed = u64::MAX),
        ("permits", |p| p.permits = vec![p.permits[0].clone(); limits::LIMITS + 1]),
    ];
    refuses(proto::Permits { permits: vec![Default::default()] }, table, Kind::Permits);
}

#[test]
fn of_a_run() {
    let task = TaskId::new("job").unwrap();
    let fence = taskmesh_core::Fence::default();
    let grant = Grant {
        task: task.clone(),
        fence,
        worker: WorkerId::new("w").unwrap(),
        boot: 1,
        spec: Arc::new(spec()),
        holders: vec![NodeId([1; 32])],
        ahead: false,
    };
    let table: &[Over<proto::Grant>] = &[
        ("task", |g| g.task.clear()),
        ("fence", |g| g.fence = None),
        ("fence.ballot", |g| g.fence.as_mut().unwrap().ballot = None),
        ("fence.attempt", |g| g.fence.as_mut().unwrap().attempt = u32::MAX),
        ("grant.worker", |g| g.worker.clear()),
        ("grant.boot", |g| g.boot = u64::MAX),
        ("grant.holders", |g| g.holders = ids(limits::HOLDERS)),
        ("spec", |g| g.spec = None),
    ];
    refuses(proto::Grant::from(&grant), table, Kind::Grant);
    let finished =
        Finished { task, fence, verdict: Verdict::Stopped, report: Report::default(), started: None, free: Vec::new() };
    let table: &[Over<proto::Finished>] = &[
        ("finished.verdict", |f| f.verdict = None),
        ("verdict", |f| f.verdict.as_mut().unwrap().kind = None),
        ("verdict.error", |f| {
            let badly = proto::verdict::Badly { error: reason(), retryable: false };
            f.verdict.as_mut().unwrap().kind = Some(proto::verdict::Kind::Failed(badly));
        }),
        ("finished.report", |f| f.report = None),
    ];
    refuses(proto::Finished::from(&finished), table, Kind::Finished);
    let progress = proto::Progress { task: "job".to_owned(), fence: Some(fence.into()), ..proto::Progress::default() };
    let table: &[Over<proto::Progress>] = &[
        ("progress.percent", |p| p.percent = Some(101)),
        ("progress.message", |p| p.message = Some(reason())),
        ("progress.log_tail", |p| p.log_tail = Some(vec![0; limits::LOG_TAIL_BYTES + 1])),
    ];
    refuses(progress, table, Kind::Progress);
    let decline = proto::Decline { task: "job".to_owned(), fence: Some(fence.into()), why: 1, free: Vec::new() };
    refuses(decline, &[("decline.why", |d| d.why = 9)], Kind::Decline);
}
