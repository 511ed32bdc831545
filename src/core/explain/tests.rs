//! Each reason, brought about: the explanation names it, and so do the counts.

use super::*;
use crate::command::{Command, Request, Submission};
use crate::effect::{Effect, Input};
use crate::execution::Verdict;
use crate::message::{By, Message};
use crate::permits::Limit;
use crate::placement::Condition;
use crate::task::{Priority, Resources};
use crate::testing::{Solo, solo, spec};
use crate::time::{Millis, Unix};
use crate::{Config, TaskId};

fn id(name: &str) -> TaskId {
    TaskId::new(name).expect("a valid id")
}

fn cpus(n: u64) -> Resources {
    Resources { cpu_milli: n * 1_000, ..Resources::default() }
}

fn needing(resources: Resources) -> Spec {
    Spec { requirements: Requirements { resources, ..Requirements::default() }, ..spec() }
}

fn of(share: &str) -> Spec {
    Spec { fairness_key: Some(share.into()), ..spec() }
}

/// Worker `w` with so many slots and cores.
fn equip(solo: &mut Solo, slots: u32, resources: Resources) {
    let worker = WorkerSpec {
        worker: WorkerId::new("w").expect("a valid id"),
        capabilities: vec!["echo".into()],
        labels: BTreeMap::new(),
        slots,
        resources: Some(resources),
        metadata: None,
    };
    solo.ask(Request::Command(Command::Register(worker))).1.expect("an answer").expect("registered");
}

fn hello() -> Message {
    Message::Hello(Box::new(crate::testing::hello()))
}

/// Takes a task although the mesh is larger: another node chose this one.
fn take(solo: &mut Solo, name: &str) -> Vec<Effect> {
    let submission = Submission { task: Some(id(name)), spec: spec(), priority: Priority::NORMAL, items: Vec::new() };
    let request = Box::new(Request::Command(Command::Submit(Box::new(submission))));
    let message = Message::Request { id: 1, by: By::Node, request };
    solo.feed(Input::Received { from: NodeId::test(2), message })
}

/// Task `a`, and room for it, and nobody to agree that it is used.
fn leave_alone(solo: &mut Solo) {
    for peer in [2, 3] {
        solo.feed(Input::Received { from: NodeId::test(peer), message: hello() });
    }
    let [one, two, _] = ["one", "two", "a"].map(|name| take(solo, name));
    solo.wait(Millis(10_000));
    solo.end(&one, Verdict::Completed);
    solo.end(&two, Verdict::Completed);
}

/// A mesh in which task `a` waits for `reason`.
fn waiting_for(reason: Reason) -> Solo {
    let mut solo = solo(Config { reserve: Millis(1_000), ..Config::default() });
    match reason {
        Reason::Dependency => drop(solo.submit("a", Spec { depends_on: vec![id("none")], ..spec() })),
        Reason::Delay => drop(solo.submit("a", Spec { not_before: Some(Unix(1_800_000_000_000)), ..spec() })),
        Reason::Paused => {
            solo.ask(Request::Command(Command::Pause { reason: None }));
            solo.submit("a", spec());
        }
        Reason::Unreachable => leave_alone(&mut solo),
        Reason::NoWorker => {
            let worker = WorkerId::new("w").expect("a valid id");
            solo.ask(Request::Command(Command::Unregister { worker, graceful: false, timeout: Millis(0) }));
            solo.submit("a", spec());
        }
        Reason::Capability => drop(solo.submit("a", Spec { task_type: "sleep".into(), ..spec() })),
        Reason::Label => {
            let selector = Condition::read_all("zone in (a, b)").expect("a selector");
            let requirements = Requirements { selector, ..Requirements::default() };
            solo.submit("a", Spec { requirements, ..spec() });
        }
        Reason::Resource => {
            equip(&mut solo, 2, cpus(2));
            solo.submit("a", needing(cpus(4)));
        }
        Reason::Draining => {
            solo.submit("one", spec());
            solo.submit("two", spec());
            solo.submit("a", spec());
            solo.feed(Input::Drain);
        }
        Reason::Limit => {
            solo = crate::testing::solo(Config {
                limits: Limit::read("type:echo", "1").expect("a limit"),
                ..Config::default()
            });
            solo.submit("one", spec());
            solo.submit("a", spec());
        }
        Reason::Slot => ["one", "two", "a"].into_iter().for_each(|name| drop(solo.submit(name, spec()))),
        Reason::Room => {
            equip(&mut solo, 4, cpus(2));
            solo.submit("small", needing(cpus(1)));
            solo.submit("a", needing(cpus(2)));
        }
        Reason::Reserved => {
            equip(&mut solo, 4, cpus(2));
            solo.submit("small", needing(cpus(1)));
            solo.submit("large", needing(cpus(2)));
            solo.wait(Millis(2_000));
            solo.submit("a", needing(cpus(1)));
        }
        Reason::Fairness => {
            solo.submit("one", of("ann"));
            solo.submit("two", of("ann"));
            solo.submit("a", of("ann"));
            solo.submit("b", of("bob"));
        }
        Reason::Order => ["one", "two", "b", "a"].into_iter().for_each(|name| drop(solo.submit(name, spec()))),
        Reason::Next => {
            solo.ask(Request::Command(Command::Pause { reason: None }));
            solo.submit("a", spec());
            // In the moment before the resumed queue is looked at.
            solo.node.controls.paused = None;
        }
    }
    solo
}

#[test]
fn every_reason_is_explained_and_counted() {
    for reason in Reason::ALL {
        let solo = waiting_for(reason);
        let kept = &solo.node.kept[&id("a")];
        let explanation = solo.node.explain(kept);
        assert_eq!(explanation.reason, Some(reason), "{explanation:?}");
        assert!(!explanation.summary.is_empty() && !explanation.next.is_empty());
        let waiting = solo.node.stats().waiting;
        assert!(waiting.get(&reason).is_some_and(|n| *n > 0), "{reason:?}: {waiting:?}");
        let open =
            [Status::Queued, Status::Blocked, Status::Delayed].map(|s| solo.node.stats().counts.get(&s).copied());
        assert_eq!(waiting.values().sum::<u64>(), open.into_iter().flatten().sum::<u64>(), "{reason:?}: {waiting:?}");
    }
}

#[test]
fn each_node_says_what_it_lacks() {
    let text = |reason| {
        let solo = waiting_for(reason);
        let nodes = solo.node.explain(&solo.node.kept[&id("a")]).nodes;
        nodes.iter().map(|(.., text)| text.to_string()).collect::<Vec<_>>().join("; ")
    };
    assert_eq!(text(Reason::Capability), "does not offer sleep");
    assert_eq!(text(Reason::Label), "has no label zone");
    assert_eq!(text(Reason::Resource), "has 2 of 4 cpus");
    assert_eq!(text(Reason::Room), "has 1 of 2 cpus free");
    assert_eq!(text(Reason::Slot), "has no free slot");
    assert_eq!(text(Reason::Reserved), "keeps its room for large");
}

/// Small tasks that keep coming would otherwise always take what comes free.
#[test]
fn room_is_kept_for_a_large_task_that_has_waited_long() {
    let mut solo = solo(Config { reserve: Millis(1_000), ..Config::default() });
    equip(&mut solo, 4, cpus(2));
    let mut running = vec![solo.submit("s0", needing(cpus(1))).0, solo.submit("s1", needing(cpus(1))).0];
    solo.submit("large", needing(cpus(2)));
    for n in 2..10 {
        solo.submit(&format!("s{n}"), needing(cpus(1)));
    }
    let mut started = Vec::new();
    for _ in 0..8 {
        let mut effects = solo.end(&running.remove(0), Verdict::Completed);
        effects.extend(solo.wait(Millis(300)));
        for effect in effects {
            if let Effect::Run { task, .. } = &effect {
                started.push(task.to_string());
                running.push(vec![effect]);
            }
        }
        if running.is_empty() || started.contains(&"large".to_owned()) {
            break;
        }
    }
    assert!(started.contains(&"large".to_owned()), "started {started:?}");
    assert!(started.len() > 1, "small ones go on until then: {started:?}");
}

#[test]
fn lines_that_do_not_fit_into_one_message_are_left_out() {
    let line = |n: usize| (NodeId::test(n as u64), None, Why::new(Reason::Slot, "x".repeat(300)));
    let fitting = that_fit((0..limits::EXPLAINED + 5).map(line).collect());
    let bytes: usize = fitting.iter().map(|(.., text)| text.len() + 32).sum();
    assert!(bytes <= limits::ANSWER_BYTES && fitting.len() > limits::EXPLAINED / 2, "{} lines", fitting.len());
}
