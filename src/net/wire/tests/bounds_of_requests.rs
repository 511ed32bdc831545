//! Each bound of requests and answers: one step over it is an error that
//! names the field.

use super::bounds::{Over, entries, ids, long, reason, refuses, text, texts};
use super::*;
use proto::message::Kind;
use taskmesh_core::command::{Scope, TaskFilter};
use taskmesh_core::view::{Explanation, NodeLoad, Stats, Status, TaskPage, TaskView, WorkerStatus, WorkerView};

fn ask(kind: proto::request::Kind) -> Kind {
    Kind::Request(proto::PeerRequest { id: 1, request: Some(proto::Request { kind: Some(kind) }), by: None })
}

fn answer(kind: proto::reply::Kind) -> Kind {
    let reply = proto::Reply { kind: Some(kind) };
    Kind::Response(proto::PeerResponse { id: 1, result: Some(proto::peer_response::Result::Reply(reply)) })
}

fn task() -> TaskId {
    TaskId::new("job").unwrap()
}

#[test]
fn of_a_request() {
    let Message::Request { request, .. } = submit(1, 1) else { unreachable!("submit() is a request") };
    let Request::Command(Command::Submit(submission)) = *request else { unreachable!("and a submission") };
    let table: &[Over<proto::Submit>] = &[
        ("submit.task", |s| s.task = Some(String::new())),
        ("spec", |s| s.spec = None),
        ("submit.priority", |s| s.priority = f64::NAN),
        ("submit.items", |s| s.items = vec![Vec::new(); limits::ITEMS + 1]),
        ("submit.items", |s| s.items = vec![vec![0; limits::PAYLOAD_BYTES + 1]]),
    ];
    refuses(proto::Submit::from(&*submission), table, |s| ask(proto::request::Kind::Submit(s)));
    let cancel = proto::Cancel { task: "job".to_owned(), reason: None, force: false };
    let table: &[Over<proto::Cancel>] =
        &[("task", |c| c.task.clear()), ("cancel.reason", |c| c.reason = Some(reason()))];
    refuses(cancel, table, |c| ask(proto::request::Kind::Cancel(c)));
    let change = proto::Reprioritise { task: "job".to_owned(), priority: 1.0, requeue: true };
    let table: &[Over<proto::Reprioritise>] = &[("reprioritise.priority", |c| c.priority = 0.0)];
    refuses(change, table, |c| ask(proto::request::Kind::Reprioritise(c)));
    let retry = proto::Retry { task: "job".to_owned(), max_retries: None, timeout_ms: None };
    let table: &[Over<proto::Retry>] = &[("retry.max_retries", |r| r.max_retries = Some(limits::RETRIES + 1))];
    refuses(retry, table, |r| ask(proto::request::Kind::Retry(r)));
    let pause: &[Over<proto::PauseQueue>] = &[("pause.reason", |p| p.reason = Some(reason()))];
    refuses(proto::PauseQueue { reason: None }, pause, |p| ask(proto::request::Kind::Pause(p)));
    let table: &[Over<proto::Clear>] = &[("clear.which", |c| c.which = 0), ("scope", |c| c.scope = 3)];
    refuses(proto::Clear { which: 1, scope: 1 }, table, |c| ask(proto::request::Kind::Clear(c)));
    let unregister = proto::Unregister { worker: "w".to_owned(), graceful: true, timeout_ms: 1 };
    let table: &[Over<proto::Unregister>] = &[("unregister.worker", |u| u.worker.clear())];
    refuses(unregister, table, |u| ask(proto::request::Kind::Unregister(u)));
}

#[test]
fn of_a_query() {
    let query = proto::TaskQuery { task: "job".to_owned(), ..proto::TaskQuery::default() };
    let table: &[Over<proto::TaskQuery>] = &[("query.wait", |q| q.wait_ms = limits::WAIT_MS + 1)];
    refuses(query, table, |q| ask(proto::request::Kind::Task(q)));
    let filter = TaskFilter { limit: 1, after: Some((Unix(1), task())), scope: Scope::Local, ..TaskFilter::default() };
    let table: &[Over<proto::TaskFilter>] = &[
        ("filter.statuses", |f| f.statuses = vec![1; 10]),
        ("status", |f| f.statuses = vec![0]),
        ("filter.worker", |f| f.worker = Some(String::new())),
        ("filter.tags", |f| f.tags = texts(limits::TAGS)),
        ("filter.priority_min", |f| f.priority_min = Some(f64::NAN)),
        ("filter.task_type", |f| f.task_type = Some(text())),
        ("filter.parent", |f| f.parent = Some(String::new())),
        ("filter.limit", |f| f.limit = 0),
        ("filter.limit", |f| f.limit = request::WIDE_PAGE as u32 + 1),
        ("filter.offset", |f| f.offset = limits::OFFSET as u32 + 1),
        ("filter.after", |f| f.after.as_mut().unwrap().task.clear()),
    ];
    refuses(proto::TaskFilter::from(&filter), table, |f| ask(proto::request::Kind::Tasks(f)));
    let query = proto::WorkerQuery { worker: "w".to_owned(), tasks: true };
    refuses(query, &[("query.worker", |q| q.worker.clear())], |q| ask(proto::request::Kind::Worker(q)));
}

fn view() -> TaskView {
    TaskView {
        task: task(),
        task_type: "echo".into(),
        status: Status::Queued,
        priority: Priority::NORMAL,
        tags: Vec::new(),
        executor: None,
        attempt: 0,
        failures: 0,
        crashes: 0,
        submitted_at: Unix(1),
        started_at: None,
        ended_at: None,
        delayed_until: None,
        home: NodeId([1; 32]),
        holders: Vec::new(),
        forgotten: Vec::new(),
        epoch: 1,
        position: None,
        progress: None,
        message: None,
        log_tail: None,
        error: None,
        retry_of: None,
        retried_as: None,
        depends_on: Vec::new(),
        requirements: taskmesh_core::task::Requirements::default(),
        explanation: Some(Explanation {
            nodes: vec![(NodeId([1; 32]), None, "busy".into())],
            ..Explanation::default()
        }),
        report: None,
        cached_from: None,
        workflow: None,
        schedule: None,
        spec: None,
    }
}

#[test]
fn of_a_view() {
    fn why(view: &mut proto::TaskView) -> &mut proto::Explanation {
        view.explanation.as_mut().unwrap()
    }
    let table: &[Over<proto::TaskView>] = &[
        ("view.task_type", |v| v.task_type = text()),
        ("status", |v| v.status = 10),
        ("view.priority", |v| v.priority = -1.0),
        ("view.tags", |v| v.tags = texts(limits::TAGS)),
        ("view.executor", |v| v.executor = Some(proto::Executor { node: Vec::new(), worker: "w".to_owned() })),
        ("view.attempt", |v| v.attempt = u32::MAX),
        ("view.failures", |v| v.failures = u32::MAX),
        ("view.crashes", |v| v.crashes = u32::MAX),
        ("view.home", |v| v.home.clear()),
        ("view.holders", |v| v.holders = ids(limits::HOLDERS)),
        ("view.epoch", |v| v.epoch = u32::MAX),
        ("position", |v| v.position = Some(u64::MAX)),
        ("view.progress", |v| v.progress_percent = Some(256)),
        ("view.message", |v| v.message = Some(reason())),
        ("view.log_tail", |v| v.log_tail = Some(vec![0; limits::LOG_TAIL_BYTES + 1])),
        ("view.error", |v| v.error = Some(reason())),
        ("view.retry_of", |v| v.retry_of = Some(String::new())),
        ("view.retried_as", |v| v.retried_as = Some(String::new())),
        ("view.depends_on", |v| v.depends_on = texts(limits::DEPENDENCIES)),
        ("requirements", |v| v.requirements = None),
        ("explanation.summary", |v| why(v).summary = long(limits::REASON_BYTES + 1024)),
        ("explanation.nodes", |v| why(v).nodes = vec![why(v).nodes[0].clone(); limits::EXPLAINED + 1]),
        ("explanation.node", |v| why(v).nodes[0].node.clear()),
        ("explanation.worker", |v| why(v).nodes[0].worker = Some(String::new())),
        ("explanation.reason", |v| why(v).nodes[0].reason = reason()),
        ("explanation.next", |v| why(v).next = reason()),
    ];
    refuses(proto::TaskView::from(&view()), table, |v| answer(proto::reply::Kind::Task(v)));
    let page = TaskPage { tasks: vec![TaskView { explanation: None, ..view() }], total: 1, answered: 1, expected: 1 };
    let table: &[Over<proto::TaskPage>] = &[
        ("page.total", |p| p.total = u64::MAX),
        ("page.answered", |p| p.answered = u32::MAX),
        ("page.expected", |p| p.expected = u32::MAX),
    ];
    refuses(proto::TaskPage::from(&page), table, |p| answer(proto::reply::Kind::Tasks(p)));
}

#[test]
fn the_largest_answers_are_not_too_heavy() {
    let busy = TaskView { tags: vec!["t".into(); limits::TAGS], depends_on: vec![task(); 300], ..view() };
    let page = TaskPage { tasks: vec![busy; limits::PAGE], ..TaskPage::default() };
    let brief = TaskView { explanation: None, holders: vec![NodeId([1; 32])], ..view() };
    let wide = TaskPage { tasks: vec![brief; request::WIDE_PAGE], ..TaskPage::default() };
    let workers = vec![worker(); limits::WORKER_VIEWS];
    for reply in [Reply::Tasks(page), Reply::Tasks(wide), Reply::Workers(workers)] {
        let message = Message::Response { id: 1, reply: Box::new(Ok(reply)) };
        assert_eq!(decode(&bytes_of(&message)), Ok(message));
    }
}

fn worker() -> WorkerView {
    WorkerView {
        worker: WorkerId::new("w").unwrap(),
        node: NodeId([1; 32]),
        status: WorkerStatus::Idle,
        capabilities: Vec::new(),
        labels: std::collections::BTreeMap::new(),
        resources: Some(taskmesh_core::task::Resources::default()),
        slots: 1,
        running: Some(0),
        free: Some(1),
        completed: Some(0),
        failed: Some(0),
        last_seen: None,
        tasks: Some(vec![task()]),
        load: Some(NodeLoad::default()),
    }
}

#[test]
fn of_workers_and_counts() {
    let table: &[Over<proto::WorkerView>] = &[
        ("worker.worker", |w| w.worker.clear()),
        ("worker.node", |w| w.node.clear()),
        ("worker.status", |w| w.status = 6),
        ("worker.capabilities", |w| w.capabilities = texts(limits::ATTRIBUTES)),
        ("worker.labels", |w| w.labels = entries(limits::ATTRIBUTES)),
        ("resources.cpu_milli", |w| w.resources.as_mut().unwrap().cpu_milli = u64::MAX),
        ("worker.slots", |w| w.slots = limits::SLOTS + 1),
        ("worker.running", |w| w.running = Some(u32::MAX)),
        ("worker.free", |w| w.free = Some(u32::MAX)),
        ("worker.completed", |w| w.completed = Some(u64::MAX)),
        ("worker.failed", |w| w.failed = Some(u64::MAX)),
        ("worker.tasks", |w| w.tasks.as_mut().unwrap().tasks = texts(limits::SLOTS as usize)),
        ("load.cpu_percent", |w| w.load.as_mut().unwrap().cpu_percent = Some(f64::NAN)),
        ("load.memory_mb", |w| w.load.as_mut().unwrap().memory_mb = Some(-1.0)),
        ("load.load1", |w| w.load.as_mut().unwrap().load1 = Some(f64::INFINITY)),
    ];
    refuses(proto::WorkerView::from(&worker()), table, |w| answer(proto::reply::Kind::Worker(w)));
    let stats = Stats { historical: Some(Vec::new()), ..Stats::default() };
    let table: &[Over<proto::Stats>] = &[
        ("stats.counts", |s| s.counts = vec![proto::StatusCount { status: 1, count: 1 }; 10]),
        ("stats.counts", |s| s.counts = vec![proto::StatusCount { status: 1, count: u64::MAX }]),
        ("status", |s| s.counts = vec![proto::StatusCount { status: 0, count: 1 }]),
        ("stats.waits", |s| s.waits = None),
        ("stats.runs", |s| s.runs.as_mut().unwrap().count = u64::MAX),
        ("stats.ended", |s| s.ended = u64::MAX),
        ("stats.historical", |s| {
            s.historical.as_mut().unwrap().minutes = vec![proto::historical::Minute::default(); limits::MINUTES + 1];
        }),
        ("workers", |s| {
            let workers = vec![(&worker()).into(); limits::WORKER_VIEWS + 1];
            s.workers = Some(proto::WorkerViews { workers });
        }),
        ("stats.answered", |s| s.answered = u32::MAX),
        ("stats.expected", |s| s.expected = u32::MAX),
        ("stats.waiting", |s| s.waiting = [("order".to_owned(), u64::MAX)].into()),
    ];
    refuses(proto::Stats::from(&stats), table, |s| answer(proto::reply::Kind::Stats(s)));
}

#[test]
fn of_an_answer_to_a_change() {
    use proto::reply::Kind as Reply;
    let submitted =
        proto::Submitted { task: "job".to_owned(), status: 1, home: vec![1; 32], ..proto::Submitted::default() };
    let table: &[Over<proto::Submitted>] = &[
        ("task", |s| s.task.clear()),
        ("status", |s| s.status = -1),
        ("position", |s| s.position = Some(u64::MAX)),
        ("submitted.worker", |s| s.worker = Some(String::new())),
        ("submitted.home", |s| s.home.clear()),
        ("submitted.items", |s| s.items = Some(limits::ARRAY_ITEMS as u32 + 1)),
        ("submitted.feasible", |s| s.feasible = u32::MAX),
        ("submitted.infeasible", |s| s.infeasible = Some(reason())),
    ];
    refuses(submitted, table, |s| answer(Reply::Submitted(s)));
    let retried = proto::Retried { task: "job".to_owned(), retry: "job".to_owned(), count: 1, position: None };
    let table: &[Over<proto::Retried>] =
        &[("retried.retry", |r| r.retry.clear()), ("retried.count", |r| r.count = u32::MAX)];
    refuses(retried, table, |r| answer(Reply::Retried(r)));
    let changed = proto::Reprioritised { task: "job".to_owned(), old: 1.0, new: 2.0, position: None };
    let table: &[Over<proto::Reprioritised>] =
        &[("reprioritised.old", |r| r.old = 0.0), ("reprioritised.new", |r| r.new = f64::NAN)];
    refuses(changed, table, |r| answer(Reply::Reprioritised(r)));
    let table: &[Over<proto::Paused>] =
        &[("paused.queued", |p| p.queued = u64::MAX), ("paused.running", |p| p.running = u64::MAX)];
    refuses(proto::Paused::default(), table, |p| answer(Reply::Paused(p)));
    let table: &[Over<proto::Cleared>] = &[
        ("cleared.cleared", |c| c.cleared = u64::MAX),
        ("cleared.remaining", |c| c.remaining = u64::MAX),
        ("cleared.answered", |c| c.answered = u32::MAX),
        ("cleared.expected", |c| c.expected = u32::MAX),
    ];
    refuses(proto::Cleared::default(), table, |c| answer(Reply::Cleared(c)));
}

#[test]
fn of_a_refusal() {
    use proto::refusal::{Invalid, Kind as Why, NotFound};
    let send = |why| {
        let refusal = proto::Refusal { kind: Some(why) };
        Kind::Response(proto::PeerResponse { id: 1, result: Some(proto::peer_response::Result::Refusal(refusal)) })
    };
    let invalid = Invalid { field: "limit".to_owned(), problem: "is 0".to_owned() };
    let table: &[Over<Invalid>] =
        &[("refusal.field", |i| i.field = text()), ("refusal.problem", |i| i.problem = reason())];
    refuses(invalid, table, |i| send(Why::Invalid(i)));
    let missing = NotFound { what: "task".to_owned(), name: "job".to_owned() };
    let table: &[Over<NotFound>] = &[("refusal.what", |n| n.what = text()), ("refusal.name", |n| n.name = long(256))];
    refuses(missing, table, |n| send(Why::NotFound(n)));
}
