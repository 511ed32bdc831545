//! What nodes really say, over the wire: three of the core's nodes that reach
//! each other only through bytes. Whatever the core says and the wire refuses
//! would be lost for ever, however often it is sent again.

use super::*;
use std::collections::{BTreeMap, VecDeque};
use taskmesh_core::command::{ClearScope, Detail, Scope, TaskFilter, WorkerSpec};
use taskmesh_core::execution::{Event, Verdict};
use taskmesh_core::task::{Data, Report, Resources};
use taskmesh_core::token::Caller;
use taskmesh_core::view::{Status, TaskView};
use taskmesh_core::{Config, Disk, Effect, Input, Node, PeerEvent, RequestId};

type Answer = Result<Reply, Refusal>;

struct Mesh {
    nodes: BTreeMap<NodeId, Node>,
    now: Millis,
    due: VecDeque<(NodeId, Input)>,
    answers: BTreeMap<RequestId, Answer>,
    asked: u64,
    /// Kinds of messages that were carried.
    kinds: BTreeSet<u64>,
}

impl Mesh {
    fn of_three() -> Mesh {
        let executors = ["echo", "fail", "hang", "flaky"].map(Arc::from).to_vec();
        let config = Config { executors, ..Config::default() };
        let ids = [1, 2, 3].map(|n| NodeId([n; 32]));
        let node = |id| (id, Node::new(id, config.clone(), u64::from(id.0[0]), Disk::default()));
        let nodes: BTreeMap<_, _> = ids.into_iter().map(node).collect();
        let mut mesh = Mesh {
            nodes,
            now: Millis(1),
            due: VecDeque::new(),
            answers: BTreeMap::new(),
            asked: 0,
            kinds: BTreeSet::new(),
        };
        for id in ids {
            mesh.due.push_back((id, Input::Clock(Unix(1_795_402_485_164))));
            for peer in ids.into_iter().filter(|peer| *peer != id) {
                let address = "/ip4/127.0.0.1/tcp/1".into();
                mesh.due.push_back((id, Input::Peer(PeerEvent::Up { peer, address })));
            }
        }
        mesh.wait(2_000);
        mesh
    }

    /// Lets `ms` pass in steps of ten.
    fn wait(&mut self, ms: u64) {
        let until = self.now + Millis(ms);
        while self.now < until {
            self.now = self.now + Millis(10);
            for id in self.nodes.keys() {
                self.due.push_back((*id, Input::Tick));
            }
            self.run();
        }
    }

    fn run(&mut self) {
        while let Some((id, input)) = self.due.pop_front() {
            let Some(node) = self.nodes.get_mut(&id) else { continue };
            let mut effects = Vec::new();
            node.handle(self.now, input, &mut effects);
            for effect in effects {
                self.obey(id, effect);
            }
        }
    }

    fn obey(&mut self, id: NodeId, effect: Effect) {
        match effect {
            Effect::Send { to, message } => self.carry(id, &[to], &message, limits::MESSAGE_BYTES),
            Effect::Publish(message) => {
                let others: Vec<_> = self.nodes.keys().copied().filter(|other| *other != id).collect();
                self.carry(id, &others, &message, limits::GOSSIP_BYTES);
            }
            Effect::Run { task, fence, spec, .. } => {
                for event in events(&spec) {
                    self.due.push_back((id, Input::Execution { task: task.clone(), fence, event }));
                }
            }
            Effect::Stop { task, fence, .. } => {
                let event = Event::Ended { verdict: Verdict::Stopped, report: Report::default() };
                self.due.push_back((id, Input::Execution { task, fence, event }));
            }
            Effect::Reply { id, reply } => {
                self.answers.insert(id, reply);
            }
            Effect::Persist(_)
            | Effect::Forget(_)
            | Effect::Fetch { .. }
            | Effect::DropBlob(_)
            | Effect::ReadBlob(_)
            | Effect::Net(_)
            | Effect::Notice(_) => {}
        }
    }

    fn carry(&mut self, from: NodeId, to: &[NodeId], message: &Message, limit: usize) {
        let bytes = bytes_of(message);
        assert!(bytes.len() <= limit, "{} bytes of {message:?}", bytes.len());
        assert_eq!(decode(&bytes).as_ref(), Ok(message));
        self.kinds.insert(weigh::first_field(&bytes));
        for to in to {
            self.due.push_back((*to, Input::Received { from, message: message.clone() }));
        }
    }

    /// Asks node `n`, and gives it five seconds.
    fn ask(&mut self, n: u8, request: Request) -> Answer {
        self.asked += 1;
        let id = RequestId(self.asked);
        self.due.push_back((NodeId([n; 32]), Input::Request { id, caller: Caller::Node, request }));
        for _ in 0..500 {
            self.wait(10);
            if let Some(answer) = self.answers.remove(&id) {
                return answer;
            }
        }
        panic!("no answer to request {id:?} of node {n}");
    }

    fn command(&mut self, n: u8, command: Command) -> Answer {
        self.ask(n, Request::Command(command))
    }

    fn query(&mut self, n: u8, query: Query) -> Answer {
        self.ask(n, Request::Query(query))
    }

    fn submit(&mut self, n: u8, task: &str, spec: Spec, items: usize) {
        let items = (0..items).map(|n| Arc::from(n.to_string().into_bytes())).collect();
        let submission = Submission { task: Some(id(task)), spec, priority: Priority::NORMAL, items };
        self.command(n, Command::Submit(Box::new(submission))).unwrap();
    }

    fn view(&mut self, n: u8, task: &str) -> TaskView {
        let detail = Detail { report: true, live: true, explain: true, steps: true, items: None, spec: false };
        match self.query(n, Query::Task { task: id(task), detail, wait: Millis(0) }) {
            Ok(Reply::Task(view)) => *view,
            other => panic!("no view of {task}: {other:?}"),
        }
    }

    fn status(&mut self, n: u8, task: &str) -> Status {
        self.view(n, task).status
    }

    /// Waits until `task` is in `status`, as node `n` sees it.
    fn until(&mut self, n: u8, task: &str, status: Status) {
        for _ in 0..600 {
            if self.status(n, task) == status {
                return;
            }
            self.wait(100);
        }
        panic!("{task} is {:?} and not {status:?}", self.status(n, task));
    }

    fn register(&mut self, n: u8) {
        let spec = WorkerSpec {
            worker: WorkerId::new(&format!("worker-{n}")).unwrap(),
            capabilities: ["echo", "fail", "hang", "flaky"].map(Arc::from).to_vec(),
            labels: BTreeMap::from([("zone".into(), "a".into())]),
            slots: 4,
            // Bounded in one way, and unlimited in the other.
            resources: Some(Resources { cpu_milli: 64_000, memory_mb: 1 << 53, ..Resources::default() }),
            metadata: None,
        };
        self.command(n, Command::Register(spec)).unwrap();
    }
}

/// What an executor says of a run of `spec`.
fn events(spec: &Spec) -> Vec<Event> {
    let started = Event::Started;
    let progress = Event::Progress {
        percent: Some(50),
        message: Some("half-way".into()),
        log_tail: Some(Arc::from(vec![b'l'; limits::LOG_TAIL_BYTES])),
    };
    let output = Data::Inline(vec![b'o'; limits::INLINE_BYTES].into());
    let report = Report { output: Some(output.clone()), logs: Some(output), ..Report::default() };
    let verdict = match &*spec.task_type {
        "hang" => return vec![started, progress],
        kind @ ("fail" | "flaky") => {
            Verdict::Failed { error: "e".repeat(limits::REASON_BYTES).into(), retryable: kind == "flaky" }
        }
        _ => Verdict::Completed,
    };
    vec![started, progress, Event::Ended { verdict, report }]
}

fn id(task: &str) -> TaskId {
    TaskId::new(task).unwrap()
}

fn of_type(task_type: &str) -> Spec {
    Spec { task_type: task_type.into(), timeout: None, ..spec() }
}

fn pages(mesh: &mut Mesh) {
    let filter = TaskFilter { limit: limits::PAGE as u32, offset: limits::OFFSET as u32, ..TaskFilter::default() };
    let Ok(Reply::Tasks(page)) = mesh.query(3, Query::Tasks(Box::new(filter))) else { panic!("no page") };
    assert_eq!((page.answered, page.expected, page.total), (3, 3, 54));
    let cursor = (Unix(0), id("a"));
    let filter = TaskFilter { limit: 10, after: Some(cursor), statuses: Status::ALL.to_vec(), ..TaskFilter::default() };
    let Ok(Reply::Tasks(page)) = mesh.query(2, Query::Tasks(Box::new(filter))) else { panic!("no page") };
    assert_eq!(page.tasks.len(), 10);
}

#[test]
fn what_nodes_say_of_tasks_comes_through() {
    let mut mesh = Mesh::of_three();
    mesh.submit(1, "early", of_type("echo"), 0);
    mesh.wait(1_000);
    assert_eq!(mesh.status(3, "early"), Status::Queued);
    for n in 1..=3 {
        mesh.register(n);
    }
    mesh.until(3, "early", Status::Completed);
    mesh.submit(2, "array", of_type("echo"), 50);
    mesh.until(1, "array/49", Status::Completed);
    mesh.submit(1, "bad", of_type("fail"), 0);
    mesh.until(2, "bad", Status::Failed);
    mesh.submit(3, "flaky", of_type("flaky"), 0);
    mesh.until(2, "flaky", Status::Delayed);
    mesh.submit(1, "slow", of_type("hang"), 0);
    mesh.until(2, "slow", Status::Running);
    pages(&mut mesh);
    mesh.command(3, Command::Cancel { task: id("slow"), reason: Some("enough".into()), force: true }).unwrap();
    mesh.until(1, "slow", Status::Cancelled);
    let retry = Command::Retry { task: id("bad"), max_retries: Some(0), timeout: Some(Millis(1_000)) };
    assert!(matches!(mesh.command(3, retry), Ok(Reply::Retried { .. })));
    mesh.wait(1_000);
    let missing = mesh.query(1, Query::Task { task: id("nowhere"), detail: Detail::default(), wait: Millis(0) });
    assert!(matches!(missing, Err(Refusal::NotFound { .. })), "{missing:?}");
    // Offers, acks, grants, progress, ends and settlements.
    assert!(mesh.kinds.is_superset(&[6, 7, 8, 9, 10, 11].into()), "{:?}", mesh.kinds);
}

#[test]
fn what_nodes_say_of_queues_and_workers_comes_through() {
    let mut mesh = Mesh::of_three();
    mesh.register(1);
    mesh.wait(1_000);
    mesh.command(2, Command::Pause { reason: Some("p".repeat(limits::REASON_BYTES).into()) }).unwrap();
    mesh.submit(3, "waits", of_type("echo"), 20);
    let urgent = Priority::new(7.5).unwrap();
    let change = Command::Reprioritise { task: id("waits/3"), priority: urgent, requeue: true };
    assert!(matches!(mesh.command(1, change), Ok(Reply::Reprioritised { .. })));
    assert_eq!(mesh.status(1, "waits/4"), Status::Queued);
    assert_eq!(mesh.status(2, "waits/4"), Status::Queued);
    let stats = Query::Stats { scope: Scope::Mesh, workers: true, historical: true };
    let Ok(Reply::Stats(stats)) = mesh.query(1, stats) else { panic!("no stats") };
    assert_eq!((stats.answered, stats.counts.get(&Status::Queued)), (3, Some(&20)));
    assert!(matches!(mesh.query(2, Query::Workers), Ok(Reply::Workers(workers)) if workers.len() == 1));
    let worker = WorkerId::new("worker-1").unwrap();
    let view = mesh.query(3, Query::Worker { worker: worker.clone(), tasks: true });
    assert!(matches!(view, Ok(Reply::Worker(_))), "{view:?}");
    let clear = Command::Clear { which: ClearScope::NotRunning, scope: Scope::Mesh };
    assert!(matches!(mesh.command(2, clear), Ok(Reply::Cleared { .. })));
    mesh.command(3, Command::Resume { reorder: true }).unwrap();
    mesh.submit(2, "later", of_type("echo"), 3);
    mesh.until(3, "later/2", Status::Completed);
    let end = Command::Unregister { worker, graceful: true, timeout: Millis(1_000) };
    assert!(matches!(mesh.command(2, end), Ok(Reply::Unregistered { .. })));
}

#[test]
fn what_heirs_say_of_a_lost_nodes_tasks_comes_through() {
    let mut mesh = Mesh::of_three();
    for n in 1..=3 {
        mesh.register(n);
    }
    mesh.wait(1_000);
    mesh.submit(1, "orphan", of_type("hang"), 10);
    mesh.until(3, "orphan/9", Status::Running);
    let home = mesh.view(1, "orphan/9").home;
    mesh.nodes.remove(&home);
    let heir = mesh.nodes.keys().next().unwrap().0[0];
    mesh.wait(60_000);
    mesh.command(heir, Command::Cancel { task: id("orphan/9"), reason: None, force: true }).unwrap();
    mesh.until(heir, "orphan/9", Status::Cancelled);
    // Grants, claims and pledges.
    assert!(mesh.kinds.is_superset(&[8, 20, 21].into()), "{:?}", mesh.kinds);
}
