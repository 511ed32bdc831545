//! The life of a task on a node alone: what needs no second node to show.

use crate::command::{Command, Detail, Query, Request, WorkerSpec};
use crate::effect::{Disk, Effect, Input};
use crate::execution::{Event, Verdict};
use crate::message::{Grant, Hello};
use crate::task::{Outcome, Report, RetryPolicy, Spec};
use crate::testing::{solo, spec};
use crate::time::{Millis, Unix};
use crate::view::{Reply, Status};
use crate::{Config, Fence, Message, Node, NodeId, Refusal, RequestId, TaskId, WorkerId, limits};
use std::collections::BTreeMap;
use std::sync::Arc;

fn failed(error: &str) -> Verdict {
    Verdict::Failed { error: error.into(), retryable: true }
}

#[test]
fn a_task_is_accepted_run_and_ended() {
    let mut solo = solo(Config::default());
    let (effects, reply) = solo.submit("a", spec());
    assert!(matches!(reply, Some(Ok(Reply::Submitted(s))) if s.task.as_str() == "a" && !s.replayed));
    solo.end(&effects, Verdict::Completed);
    let view = solo.view("a");
    assert_eq!((view.status, view.attempt), (Status::Completed, 1));
}

#[test]
fn writes_come_before_the_reply() {
    let mut solo = solo(Config::default());
    let (effects, _) = solo.submit("a", spec());
    let first_write = effects.iter().position(|e| matches!(e, Effect::Persist(_)));
    let reply = effects.iter().position(|e| matches!(e, Effect::Reply { .. }));
    assert!(first_write.is_some() && first_write < reply);
}

#[test]
fn a_failed_attempt_waits_and_is_tried_again_until_its_retries_are_used_up() {
    let mut solo = solo(Config::default());
    let retry = RetryPolicy { max_retries: 1, jitter: false, ..RetryPolicy::default() };
    let (effects, _) = solo.submit("a", Spec { retry, ..spec() });
    solo.end(&effects, failed("first"));
    assert_eq!(solo.view("a").status, Status::Delayed);
    let effects = solo.wait(Millis(1_100));
    solo.end(&effects, failed("second"));
    let view = solo.view("a");
    assert_eq!((view.status, view.attempt, view.failures), (Status::Failed, 2, 2));
    assert_eq!(view.error.as_deref(), Some("second"));
}

#[test]
fn a_result_from_an_old_attempt_is_dropped() {
    let mut solo = solo(Config::default());
    let (effects, _) = solo.submit("a", spec());
    solo.end(&effects, failed("first"));
    let effects = solo.wait(Millis(1_100));
    assert!(effects.iter().any(|e| matches!(e, Effect::Run { .. })));
    let task = TaskId::new("a").expect("a valid id");
    let old = Fence { ballot: solo.node.slot(&task).expect("kept").record.stamp.ballot, attempt: 1 };
    let event = Event::Ended { verdict: Verdict::Completed, report: Report::default() };
    solo.feed(Input::Execution { task, fence: old, event });
    assert_ne!(solo.view("a").status, Status::Completed);
}

#[test]
fn a_waiting_task_is_cancelled_at_once_and_a_running_one_is_asked_to_stop() {
    let mut solo = solo(Config::default());
    let (running, _) = solo.submit("a", spec());
    solo.submit("later", Spec { not_before: Some(Unix(1_800_000_000_000)), ..spec() });
    let cancel = |name: &str| {
        let task = TaskId::new(name).expect("a valid id");
        Request::Command(Command::Cancel { task, reason: Some("no need".into()), force: false })
    };
    let (_, reply) = solo.ask(cancel("later"));
    assert!(matches!(reply, Some(Ok(Reply::Cancelled { status: Status::Cancelled, cleanup_required: false, .. }))));
    let (effects, _) = solo.ask(cancel("a"));
    assert!(effects.iter().any(|e| matches!(e, Effect::Stop { force: false, .. })));
    solo.end(&running, Verdict::Stopped);
    assert_eq!(solo.view("a").status, Status::Cancelled);
    let (_, again) = solo.ask(cancel("a"));
    assert!(matches!(again, Some(Err(Refusal::State { .. }))));
}

#[test]
fn the_same_name_is_the_same_work_or_a_conflict() {
    let mut solo = solo(Config::default());
    solo.submit("a", spec());
    let (_, same) = solo.submit("a", spec());
    assert!(matches!(same, Some(Ok(Reply::Submitted(s))) if s.replayed));
    let (_, other) = solo.submit("a", Spec { payload: (&b"{\"x\":1}"[..]).into(), ..spec() });
    assert!(matches!(other, Some(Err(Refusal::Conflict { .. }))));
}

#[test]
fn a_task_waits_for_what_it_depends_on() {
    let mut solo = solo(Config::default());
    let (first, _) = solo.submit("first", spec());
    let depends_on = vec![TaskId::new("first").expect("a valid id")];
    let (effects, _) = solo.submit("second", Spec { depends_on, ..spec() });
    assert!(!effects.iter().any(|e| matches!(e, Effect::Run { .. })));
    assert_eq!(solo.view("second").status, Status::Blocked);
    let effects = solo.end(&first, Verdict::Completed);
    assert!(effects.iter().any(|e| matches!(e, Effect::Run { task, .. } if task.as_str() == "second")));
}

#[test]
fn what_depends_on_a_failed_task_is_cancelled_and_says_why() {
    let mut solo = solo(Config::default());
    let retry = RetryPolicy { max_retries: 0, ..RetryPolicy::default() };
    let (first, _) = solo.submit("first", Spec { retry, ..spec() });
    let depends_on = vec![TaskId::new("first").expect("a valid id")];
    solo.submit("second", Spec { depends_on, ..spec() });
    solo.end(&first, failed("broken"));
    let view = solo.view("second");
    assert_eq!(view.status, Status::Cancelled);
    assert!(view.error.is_some_and(|e| e.contains("first")));
}

#[test]
fn a_deadline_ends_a_task_that_waits() {
    let mut solo = solo(Config::default());
    let soon = Unix(1_700_000_000_000 + 2_000);
    let spec = Spec { task_type: "nobody-runs-this".into(), deadline: Some(soon), ..spec() };
    solo.submit("a", spec);
    let view = solo.view("a");
    assert_eq!(view.status, Status::Queued);
    let why = view.explanation.expect("asked for");
    assert!(why.summary.contains("nobody-runs-this"), "{}", why.summary);
    solo.wait(Millis(3_000));
    assert_eq!(solo.view("a").status, Status::Expired);
}

#[test]
fn a_paused_queue_starts_nothing_and_says_so() {
    let mut solo = solo(Config::default());
    let (_, reply) = solo.ask(Request::Command(Command::Pause { reason: Some("lunch".into()) }));
    assert!(matches!(reply, Some(Ok(Reply::Paused { .. }))), "{reply:?}");
    let (effects, _) = solo.submit("a", spec());
    assert!(!effects.iter().any(|e| matches!(e, Effect::Run { .. })));
    assert!(solo.view("a").explanation.is_some_and(|e| e.summary.contains("lunch")));
    let (effects, _) = solo.ask(Request::Command(Command::Resume { reorder: true }));
    assert!(effects.iter().any(|e| matches!(e, Effect::Run { .. })));
}

#[test]
fn an_ended_task_is_forgotten_after_its_retention() {
    let mut solo = solo(Config { retention: Millis(60_000), ..Config::default() });
    let (effects, _) = solo.submit("a", spec());
    solo.end(&effects, Verdict::Completed);
    solo.wait(Millis(59_000));
    assert_eq!(solo.node.slots().count(), 1);
    let effects = solo.wait(Millis(3_000));
    assert_eq!(solo.node.slots().count(), 0);
    assert!(effects.iter().any(|e| matches!(e, Effect::Forget(_))));
}

#[test]
fn a_retry_is_a_new_task_linked_both_ways() {
    let mut solo = solo(Config::default());
    let retry = RetryPolicy { max_retries: 0, ..RetryPolicy::default() };
    let (effects, _) = solo.submit("a", Spec { retry, ..spec() });
    solo.end(&effects, failed("broken"));
    let task = TaskId::new("a").expect("a valid id");
    let (effects, reply) = solo.ask(Request::Command(Command::Retry { task, max_retries: None, timeout: None }));
    assert!(matches!(reply, Some(Ok(Reply::Retried { retry, count: 1, .. })) if retry.as_str() == "a-retry-1"));
    solo.end(&effects, Verdict::Completed);
    assert_eq!(solo.view("a").retried_as.map(|t| t.to_string()), Some("a-retry-1".into()));
    let retried = solo.view("a-retry-1");
    assert_eq!(retried.retry_of.map(|t| t.to_string()), Some("a".into()));
    let closed =
        solo.node.slots().find(|s| s.record.task.as_str() == "a-retry-1").and_then(|s| s.record.body.state.closed());
    assert_eq!(closed.map(|c| c.outcome.clone()), Some(Outcome::Completed));
}

#[test]
fn the_workers_of_a_node_fit_into_one_message() {
    let mut solo = solo(Config::default());
    let metadata = "m".repeat(limits::METADATA_BYTES);
    let replies: Vec<_> = (0..limits::WORKERS - 1)
        .map(|n| {
            let worker = WorkerSpec {
                worker: WorkerId::new(&format!("w{n}")).expect("a valid id"),
                capabilities: vec!["echo".into()],
                labels: BTreeMap::new(),
                slots: 1,
                resources: None,
                metadata: Some(metadata.as_str().into()),
            };
            solo.ask(Request::Command(Command::Register(worker))).1.expect("an answer")
        })
        .collect();
    let registered = replies.iter().filter(|r| r.is_ok()).count();
    assert_eq!(registered, limits::ANSWER_BYTES / limits::METADATA_BYTES - 1);
    assert!(replies[registered..].iter().all(|r| matches!(r, Err(Refusal::TooLarge { .. }))));
}

#[test]
fn an_explanation_fits_into_one_message() {
    let mut solo = solo(Config::default());
    solo.submit("a", Spec { task_type: "other".into(), ..spec() });
    let name = |n: usize| format!("w{n}-{}", "x".repeat(100));
    for node in 2..300_usize {
        let workers = (0..limits::WORKERS).map(|n| WorkerSpec {
            worker: WorkerId::new(&name(node * 100 + n)).expect("a valid id"),
            capabilities: vec!["sleep".into()],
            labels: BTreeMap::new(),
            slots: 1,
            resources: None,
            metadata: None,
        });
        let hello = Hello { workers: workers.collect(), ..crate::testing::hello() };
        solo.feed(Input::Received { from: NodeId::test(node as u64), message: Message::Hello(Box::new(hello)) });
    }
    let task = TaskId::new("a").expect("a valid id");
    let lines = solo.node.explain(&solo.node.kept[&task]).nodes;
    let bytes: usize =
        lines.iter().map(|(_, w, why)| 32 + w.as_ref().map_or(0, |w| w.as_str().len()) + why.len()).sum();
    assert!(lines.len() <= limits::EXPLAINED && bytes <= limits::ANSWER_BYTES, "{} lines, {bytes} bytes", lines.len());
    assert!(lines.len() > limits::EXPLAINED / 2, "{} lines", lines.len());
}

#[test]
fn a_restarted_node_takes_no_answer_to_what_it_asked_before() {
    let first = |boot: u64| {
        let disk = Disk { boot, ..Disk::default() };
        let mut node = Node::new(NodeId::test(1), Config::default(), 7, disk);
        let mut effects = Vec::new();
        node.handle(Millis(1), Input::Clock(Unix(1_700_000_000_000)), &mut effects);
        let hello = Message::WhoAreYou;
        node.handle(Millis(2), Input::Received { from: NodeId::test(2), message: hello }, &mut effects);
        let task = TaskId::new("a").expect("a valid id");
        let query = Query::Task { task, detail: Detail::default(), wait: Millis(0) };
        let request = Request::Query(query);
        node.handle(
            Millis(3),
            Input::Request { id: RequestId(1), caller: crate::token::Caller::Node, request },
            &mut effects,
        );
        effects.iter().find_map(|e| match e {
            Effect::Send { message: Message::Request { id, .. }, .. } => Some(*id),
            _ => None,
        })
    };
    let (before, after) = (first(0).expect("it asks"), first(1).expect("it asks"));
    assert!(after - before > 1_000_000_000, "{before} and {after}");
}

#[test]
fn a_task_of_one_copy_is_not_forgotten_before_others_know_its_end() {
    use crate::command::{ClearScope, Scope, Submission};
    let mut solo = solo(Config::default());
    for peer in [2, 3] {
        solo.feed(Input::Received { from: NodeId::test(peer), message: Message::WhoAreYou });
    }
    let task = TaskId::new("a").expect("a valid id");
    let lonely = Spec { durability: crate::task::Durability::Local, task_type: "sleep".into(), ..spec() };
    let priority = crate::task::Priority::NORMAL;
    let submission = Submission { task: Some(task.clone()), spec: lonely, priority, items: Vec::new() };
    let request = Box::new(Request::Command(Command::Submit(Box::new(submission))));
    let message = Message::Request { id: 1, by: crate::message::By::Node, request };
    solo.feed(Input::Received { from: NodeId::test(2), message });
    solo.wait(Millis(60_000));
    for which in [ClearScope::Queued, ClearScope::NotRunning] {
        solo.ask(Request::Command(Command::Clear { which, scope: Scope::Local }));
    }
    assert!(solo.node.slot(&task).is_some_and(|slot| slot.record.closed()));
}

#[test]
fn a_run_goes_on_under_an_owner_that_has_not_met_its_node() {
    use crate::record::Ballot;
    let mut solo = solo(Config::default());
    let mut grant = |task: &str, epoch: u32, boot: u64| {
        let owner = NodeId::test(u64::from(epoch) + 1);
        let grant = Grant {
            task: TaskId::new(task).expect("a valid id"),
            fence: Fence { ballot: Ballot { epoch, owner }, attempt: 1 },
            worker: WorkerId::new("w").expect("a valid id"),
            boot,
            spec: Arc::new(spec()),
            holders: vec![owner],
            ahead: false,
        };
        solo.feed(Input::Received { from: owner, message: Message::Grant(Box::new(grant)) })
    };
    let answers = |effects: &[Effect], wanted: fn(&Message) -> bool| {
        effects.iter().any(|e| matches!(e, Effect::Send { message, .. } if wanted(message)))
    };
    let runs = |effects: &[Effect]| effects.iter().any(|e| matches!(e, Effect::Run { .. }));
    let declined = |m: &Message| matches!(m, Message::Decline { .. });
    assert!(runs(&grant("a", 1, 1)));
    let again = grant("a", 2, 0);
    assert!(answers(&again, |m| matches!(m, Message::Progress { .. })) && !answers(&again, declined), "{again:?}");
    let other = grant("b", 1, 0);
    assert!(answers(&other, declined) && !runs(&other), "it may have run before a restart: {other:?}");
}

#[test]
fn a_task_waits_for_another_of_its_id_that_runs_on_its_node() {
    use crate::record::Ballot;
    let mut solo = solo(Config::default());
    let (owner, task) = (NodeId::test(2), TaskId::new("a").expect("a valid id"));
    let other = Grant {
        task: task.clone(),
        fence: Fence { ballot: Ballot { epoch: 1, owner }, attempt: 1 },
        worker: WorkerId::new("w").expect("a valid id"),
        boot: 1,
        spec: Arc::new(Spec { payload: (&b"{\"x\":1}"[..]).into(), ..spec() }),
        holders: vec![owner],
        ahead: false,
    };
    solo.submit("a", Spec { not_before: Some(solo.node.wall() + Millis(2_000)), ..spec() });
    let begun = solo.feed(Input::Received { from: owner, message: Message::Grant(Box::new(other)) });
    let runs = |effects: &[Effect]| effects.iter().filter(|e| matches!(e, Effect::Run { .. })).count();
    assert_eq!(runs(&begun), 1);
    assert_eq!(
        (runs(&solo.wait(Millis(6_000))), solo.view("a").attempt, solo.view("a").status),
        (0, 1, Status::Delayed)
    );
    solo.end(&begun, Verdict::Completed);
    assert_eq!(runs(&solo.wait(Millis(6_000))), 1);
}

#[test]
fn a_holder_that_is_asked_says_what_its_own_copy_says() {
    let mut owner = Node::new(NodeId::test(2), Config::default(), 7, Disk::default());
    let mut effects = Vec::new();
    owner.handle(Millis(1), Input::Clock(Unix(1_700_000_000_000)), &mut effects);
    for peer in [1, 3] {
        owner.handle(Millis(2), Input::Received { from: NodeId::test(peer), message: hello() }, &mut effects);
    }
    let task = TaskId::new("a").expect("a valid id");
    let priority = crate::task::Priority::NORMAL;
    let submission = crate::command::Submission { task: Some(task.clone()), spec: spec(), priority, items: Vec::new() };
    let request = Box::new(Request::Command(Command::Submit(Box::new(submission))));
    let message = Message::Request { id: 1, by: crate::message::By::Node, request };
    owner.handle(Millis(3), Input::Received { from: NodeId::test(3), message }, &mut effects);
    let offer = effects.iter().find_map(|e| match e {
        Effect::Send { to, message: message @ Message::Offer { .. } } if *to == NodeId::test(1) => {
            Some(message.clone())
        }
        _ => None,
    });
    // It is the first that gets it, and then its owner's disk is lost.
    let mut solo = solo(Config::default());
    solo.feed(Input::Received { from: NodeId::test(3), message: hello() });
    solo.feed(Input::Received { from: NodeId::test(2), message: offer.expect("a copy for each holder") });
    let (mut asked, mut answer) =
        solo.ask(Request::Query(Query::Task { task, detail: Detail::default(), wait: Millis(0) }));
    while answer.is_none() {
        let questions: Vec<_> = asked.drain(..).filter_map(question).collect();
        assert!(!questions.is_empty(), "nobody is asked, and nothing is answered");
        for (from, id) in questions {
            let missing = Refusal::NotFound { what: "task".into(), name: "a".into() };
            let message = Message::Response { id, reply: Box::new(Err(missing)) };
            asked.extend(solo.feed(Input::Received { from, message }));
        }
        answer = asked.iter().find_map(|e| match e {
            Effect::Reply { reply, .. } => Some(reply.clone()),
            _ => None,
        });
    }
    assert!(matches!(&answer, Some(Ok(Reply::Task(view))) if view.status == Status::Queued), "{answer:?}");
}

fn hello() -> Message {
    Message::Hello(Box::new(crate::testing::hello()))
}

fn question(effect: Effect) -> Option<(NodeId, u64)> {
    match effect {
        Effect::Send { to, message: Message::Request { id, .. } } => Some((to, id)),
        _ => None,
    }
}
