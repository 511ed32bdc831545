//! A queue without leases that loses answers, is busy, and hands out what
//! nobody asked for; behind the source stands a scripted node.

use super::*;
use crate::api::budget::Budget;
use crate::api::p2p::frame;
use crate::api::testing::{Act, scripted};
use crate::ops::samples;
use futures::FutureExt as _;
use std::collections::BTreeMap;
use taskmesh_core::view::{Stats, Status, Submitted as Accepted, WorkerStatus, WorkerView};
use taskmesh_core::{Command, NodeId, WorkerId};
use tokio::io::DuplexStream;

const PATIENCE: Duration = Duration::from_secs(30);

/// What the queue was asked, in order; rings at each.
type Asked = Arc<(Mutex<Vec<Value>>, Notify)>;
/// Answers an op; `None`: the stream is cut before the answer.
type Answer = Arc<dyn Fn(&Value) -> Option<Value> + Send + Sync>;

fn has_room() -> Reply {
    let worker = WorkerView {
        worker: WorkerId::new("w").expect("valid"),
        node: NodeId::test(1),
        status: WorkerStatus::Idle,
        capabilities: vec!["echo".into()],
        labels: BTreeMap::new(),
        resources: None,
        slots: 4,
        running: Some(0),
        free: Some(4),
        completed: None,
        failed: None,
        last_seen: None,
        tasks: None,
        load: None,
    };
    Reply::Stats(Box::new(Stats { workers: Some(vec![worker]), ..Stats::default() }))
}

/// A node that takes every task and has done it already.
fn node(request: &Request) -> Act {
    Act::Answer(Ok(match request {
        Request::Command(Command::Submit(submission)) => Reply::Submitted(Box::new(Accepted {
            task: submission.task.clone().expect("named"),
            status: Status::Queued,
            position: None,
            worker: None,
            home: NodeId::test(1),
            replayed: false,
            items: None,
            feasible: 1,
            infeasible: None,
            estimated_start: None,
        })),
        Request::Query(Query::Task { .. }) => Reply::Task(Box::new(samples::task_view(Status::Completed))),
        _ => has_room(),
    }))
}

async fn serve(mut stream: DuplexStream, asked: Asked, answer: Answer) {
    while let Ok(frame) = frame::read(&mut stream, &Budget::new(frame::BUDGET_BYTES), PATIENCE).await {
        let message = Value::Object(frame.message);
        let op = &message["params"]["arguments"];
        let content = if message["method"] == "initialize" { Some(json!({"ok": true})) } else { answer(op) };
        if !op.is_null() {
            asked.0.lock().expect("no panic").push(op.clone());
            asked.1.notify_one();
        }
        let Some(content) = content else { return };
        let result = if op.is_null() { content } else { json!({"content": content}) };
        let reply = json!({"jsonrpc": "2.0", "id": message["id"], "result": result});
        if frame::write(&mut stream, &reply).await.is_err() {
            return;
        }
    }
}

/// Runs a source at such a queue until `over` has seen enough of what it asks.
async fn until(
    answer: impl Fn(&Value) -> Option<Value> + Send + Sync + 'static,
    over: impl Fn(&[Value]) -> bool,
) -> (Vec<Value>, Vec<Told>) {
    let (asked, told, answer): (Asked, Arc<Mutex<Vec<Told>>>, Answer) =
        (Arc::default(), Arc::default(), Arc::new(answer));
    let (handle, _script) = scripted(node);
    let heard = asked.clone();
    let dial: Dial = Arc::new(move || {
        let (ours, stream) = tokio::io::duplex(64 * 1024);
        tokio::spawn(serve(stream, heard.clone(), answer.clone()));
        std::future::ready(Ok(Opened { stream: Box::new(ours), connection: Box::new(()) })).boxed()
    });
    let tell: Tell = {
        let told = told.clone();
        Arc::new(move |news| told.lock().expect("no panic").push(news))
    };
    let lease = Duration::from_secs(60);
    let settings = Settings { queue: "q".into(), types: vec!["echo".into()], lease, token: None };
    let shutdown = CancellationToken::new();
    let source = tokio::spawn(run(handle, settings, dial, tell, shutdown.clone()));
    let enough = async {
        while !over(&asked.0.lock().expect("no panic")) {
            asked.1.notified().await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, enough).await;
    shutdown.cancel();
    source.await.expect("no panic");
    let asked = asked.0.lock().expect("no panic").clone();
    assert!(waited.is_ok(), "in time: {asked:?}");
    let told = told.lock().expect("no panic").clone();
    (asked, told)
}

fn is(op: &str) -> impl Fn(&&Value) -> bool {
    move |asked| asked["op"] == op
}

fn count(asked: &[Value], op: &str) -> usize {
    asked.iter().filter(is(op)).count()
}

fn task(id: &str, worker: &str) -> Value {
    json!({"task_id": id, "task_type": "echo", "payload": {}, "assigned_worker": worker, "status": "running"})
}

fn me() -> String {
    format!("taskmesh-{}", NodeId::test(1))
}

#[tokio::test]
async fn what_a_queue_says_that_this_node_holds_is_taken_up_again() {
    let answer = |op: &Value| {
        let leased =
            json!({"task_id": "leased", "task_type": "echo", "assigned_worker": me(), "mesh_status": "running"});
        Some(match op["op"].as_str() {
            Some("list") => json!({"ok": true, "tasks": [task("mine", &me()), task("other", "someone"), leased]}),
            _ => json!({"ok": true, "tasks": []}),
        })
    };
    let (asked, told) = until(answer, |asked| count(asked, "complete") > 0 && count(asked, "claim_many") > 1).await;
    let completed: Vec<_> = asked.iter().filter(is("complete")).map(|op| op["task_id"].clone()).collect();
    assert_eq!((completed, count(&asked, "list")), (vec![json!("mine")], 1));
    assert!(told.contains(&Told::Ended("completed")), "{told:?}");
}

#[tokio::test]
async fn a_claim_whose_answer_was_lost_is_found_in_the_queues_list() {
    let claims = Mutex::new(0);
    let answer = move |op: &Value| {
        let mut claims = claims.lock().expect("no panic");
        match op["op"].as_str() {
            Some("claim_many") => {
                *claims += 1;
                (*claims > 1).then(|| json!({"ok": true, "tasks": []}))
            }
            Some("list") if *claims > 0 => Some(json!({"ok": true, "tasks": [task("lost", &me())]})),
            _ => Some(json!({"ok": true, "tasks": []})),
        }
    };
    let (asked, _) = until(answer, |asked| count(asked, "complete") > 0 && count(asked, "claim_many") > 2).await;
    assert_eq!((count(&asked, "complete"), count(&asked, "list")), (1, 2), "{asked:?}");
}

#[tokio::test]
async fn a_busy_queue_is_told_again_and_one_that_knows_why_not_is_believed() {
    let said = Mutex::new(0);
    let answer = move |op: &Value| {
        let mut said = said.lock().expect("no panic");
        Some(match (op["op"].as_str(), op["task_id"].as_str()) {
            (Some("list"), _) => json!({"ok": true, "tasks": [task("busy", &me()), task("gone", &me())]}),
            (Some("complete"), Some("gone")) => json!({"ok": false, "error": NOT_HOLDER}),
            (Some("complete"), _) => {
                *said += 1;
                json!({"ok": *said > 2})
            }
            _ => json!({"ok": true, "tasks": []}),
        })
    };
    let (asked, told) = until(answer, |asked| count(asked, "complete") >= 4 && count(asked, "claim_many") > 2).await;
    let gone = asked.iter().filter(is("complete")).filter(|op| op["task_id"] == "gone").count();
    assert_eq!((count(&asked, "complete"), gone), (4, 1), "{asked:?}");
    assert!(told.contains(&Told::Ended("lost")), "{told:?}");
}

#[tokio::test]
async fn more_than_was_asked_for_is_not_taken_and_another_type_is_given_back() {
    let next = Mutex::new(0);
    let answer = move |op: &Value| {
        let mut next = next.lock().expect("no panic");
        Some(match op["op"].as_str() {
            Some("claim_many") => {
                let mut tasks: Vec<_> = (*next..*next + 20).map(|n| task(&format!("t{n}"), &me())).collect();
                if *next == 0 {
                    tasks.insert(0, json!({"task_id": "odd", "task_type": "exec"}));
                }
                *next += 3;
                json!({"ok": true, "tasks": tasks})
            }
            Some("list") => json!({"ok": true, "tasks": []}),
            // Not heard: what is held stays held.
            Some("complete") => json!({"ok": false, "retry_after_ms": 1}),
            _ => json!({"ok": true}),
        })
    };
    let (asked, told) = until(answer, |asked| count(asked, "complete") >= 6).await;
    let back: Vec<_> = asked.iter().filter(is("release")).map(|op| op["task_id"].clone()).collect();
    assert_eq!(back.first(), Some(&json!("odd")));
    let most = told.iter().filter_map(|told| if let Told::Held(held) = told { Some(*held) } else { None }).max();
    assert_eq!(most, Some(4), "as many as it has slots");
}
