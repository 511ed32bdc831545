//! How many inputs the core takes on one thread, effects thrown away: the
//! ceiling that the protocol itself puts on a node.
//!
//! `cargo bench -p taskmesh-core --bench core`

use std::hint::black_box;
use std::time::Instant;
use taskmesh_core::command::{Command, Detail, Query, Request, Submission, WorkerSpec};
use taskmesh_core::execution::{Event, Verdict};
use taskmesh_core::task::{Priority, Report, Spec};
use taskmesh_core::token::Caller;
use taskmesh_core::{Config, Disk, Effect, Input, Millis, Node, NodeId, RequestId, TaskId, Unix, WorkerId};

const ROUNDS: usize = 5;
const TASKS: u64 = 100_000;
const CHURN: u64 = 20_000;

fn main() {
    println!("{:<44} {:>12} {:>12}", "one node, one thread", "per second", "µs each");
    let mut best: Vec<(&str, f64)> = Vec::new();
    for _ in 0..ROUNDS {
        for (name, rate) in [queued(), whole_life(), status()].concat() {
            match best.iter_mut().find(|(n, _)| *n == name) {
                Some((_, b)) => *b = b.max(rate),
                None => best.push((name, rate)),
            }
        }
    }
    for (name, rate) in best {
        println!("{name:<44} {rate:>12.0} {:>12.2}", 1e6 / rate);
    }
    println!();
    println!("{:<44} {:>12} {:>12}", "behind so many waiting tasks: µs each", "submit+cancel", "grant+end");
    for waiting in [1_000, 10_000, 100_000, 1_000_000] {
        for (name, keys) in [("one share", 1), ("1,000 shares", 1_000)] {
            let (churn, grant) = behind(waiting, keys);
            println!("{:<44} {churn:>12.2} {grant:>12.2}", format!("{waiting} in {name}"));
        }
    }
}

/// What it takes to queue and cancel a task, and to grant and end one, while
/// `waiting` others are queued in `keys` shares.
fn behind(waiting: u64, keys: u64) -> (f64, f64) {
    let config = Config { open_tasks: 2_000_000, ..Config::default() };
    let mut node = node_with(config, 1);
    let mut effects = Vec::new();
    // The first takes the slot.
    let mut running = None;
    for n in 0..=waiting {
        node.handle(Millis(2), submit_for(n, None, n % keys), &mut effects);
        running = effects.drain(..).find_map(run_of).or(running);
    }
    let names: Vec<_> = (0..CHURN).map(|n| TaskId::new(&format!("churn-{n}")).expect("a valid id")).collect();
    let start = Instant::now();
    for (n, task) in names.into_iter().enumerate() {
        let id = waiting + 2 * n as u64;
        node.handle(Millis(3), submit_for(id, Some(task.clone()), n as u64 % keys), &mut effects);
        let request = Request::Command(Command::Cancel { task, reason: None, force: false });
        node.handle(Millis(3), Input::Request { id: RequestId(id + 1), caller: Caller::Node, request }, &mut effects);
        black_box(&effects);
        effects.clear();
    }
    let churn = start.elapsed().as_secs_f64() * 1e6 / CHURN as f64;
    let start = Instant::now();
    let grants = CHURN.min(waiting);
    for _ in 0..grants {
        let (task, fence) = running.take().expect("the slot is never empty");
        let event = Event::Ended { verdict: Verdict::Completed, report: Report::default() };
        node.handle(Millis(4), Input::Execution { task, fence, event }, &mut effects);
        running = effects.drain(..).find_map(run_of);
    }
    (churn, start.elapsed().as_secs_f64() * 1e6 / grants as f64)
}

fn run_of(effect: Effect) -> Option<(TaskId, taskmesh_core::Fence)> {
    match effect {
        Effect::Run { task, fence, .. } => Some((task, fence)),
        _ => None,
    }
}

fn node(slots: u32) -> Node {
    node_with(Config::default(), slots)
}

fn node_with(config: Config, slots: u32) -> Node {
    let config = Config { executors: vec!["echo".into()], ..config };
    let mut node = Node::new(NodeId::test(1), config, 1, Disk::default());
    let mut effects = Vec::new();
    node.handle(Millis(1), Input::Clock(Unix(1_700_000_000_000)), &mut effects);
    if slots > 0 {
        let worker = WorkerSpec {
            worker: WorkerId::new("w").expect("a valid id"),
            capabilities: vec!["echo".into()],
            labels: std::collections::BTreeMap::new(),
            slots,
            resources: None,
            metadata: None,
        };
        let request = Request::Command(Command::Register(worker));
        node.handle(Millis(1), Input::Request { id: RequestId(0), caller: Caller::Node, request }, &mut effects);
    }
    node
}

fn submit(id: u64, name: Option<TaskId>) -> Input {
    submit_spec(id, name, taskmesh_core::testing::spec())
}

/// The same, in one of many shares.
fn submit_for(id: u64, name: Option<TaskId>, key: u64) -> Input {
    let fairness_key = Some(format!("user-{key}").into());
    submit_spec(id, name, Spec { fairness_key, ..taskmesh_core::testing::spec() })
}

fn submit_spec(id: u64, name: Option<TaskId>, spec: Spec) -> Input {
    let spec = Spec { payload: (&br#"{"n":1}"#[..]).into(), ..spec };
    let submission = Submission { task: name, spec, priority: Priority::NORMAL, items: Vec::new() };
    Input::Request {
        id: RequestId(id),
        caller: Caller::Node,
        request: Request::Command(Command::Submit(Box::new(submission))),
    }
}

fn rate(n: u64, start: Instant) -> f64 {
    n as f64 / start.elapsed().as_secs_f64()
}

/// Submissions that only queue.
fn queued() -> Vec<(&'static str, f64)> {
    let mut node = node(0);
    let inputs: Vec<_> = (1..=TASKS).map(|n| submit(n, None)).collect();
    let mut effects = Vec::new();
    let start = Instant::now();
    for input in inputs {
        node.handle(Millis(2), input, &mut effects);
        effects.clear();
    }
    vec![("submit, queued behind others", rate(TASKS, start))]
}

/// Submission, grant, run and end of each task: two inputs.
fn whole_life() -> Vec<(&'static str, f64)> {
    let mut node = node(64);
    let inputs: Vec<_> = (1..=TASKS).map(|n| submit(n, None)).collect();
    let mut effects = Vec::new();
    let start = Instant::now();
    for input in inputs {
        node.handle(Millis(2), input, &mut effects);
        let run = effects.drain(..).find_map(|e| match e {
            Effect::Run { task, fence, .. } => Some((task, fence)),
            _ => None,
        });
        let Some((task, fence)) = run else { continue };
        let event = Event::Ended { verdict: Verdict::Completed, report: Report::default() };
        node.handle(Millis(2), Input::Execution { task, fence, event }, &mut effects);
        effects.clear();
    }
    vec![("inputs of whole lives (submit, end)", rate(2 * TASKS, start))]
}

/// Reads of one task among many.
fn status() -> Vec<(&'static str, f64)> {
    let mut node = node(0);
    let mut effects = Vec::new();
    let names: Vec<_> = (0..TASKS).map(|n| TaskId::new(&format!("task-{n}")).expect("a valid id")).collect();
    for (n, name) in names.iter().enumerate() {
        node.handle(Millis(2), submit(n as u64, Some(name.clone())), &mut effects);
        effects.clear();
    }
    let start = Instant::now();
    for (n, task) in names.into_iter().enumerate() {
        let query = Query::Task { task, detail: Detail::default(), wait: Millis(0) };
        node.handle(
            Millis(2),
            Input::Request { id: RequestId(n as u64), caller: Caller::Node, request: Request::Query(query) },
            &mut effects,
        );
        black_box(&effects);
        effects.clear();
    }
    vec![("task_status among 100,000", rate(TASKS, start))]
}
