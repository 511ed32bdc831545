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
}

fn node(slots: u32) -> Node {
    let config = Config { executors: vec!["echo".into()], ..Config::default() };
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
    let spec = Spec { payload: (&br#"{"n":1}"#[..]).into(), ..taskmesh_core::testing::spec() };
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
