//! Hits, misses, single flight and invalidation: on a node alone, and on three
//! that hear each other at once.

use super::*;
use crate::authority::{Caveats, Role};
use crate::cache::{Bounds, Caching, Mode, Policy};
use crate::command::{Detail, Query, Submission, WorkerSpec};
use crate::effect::{Disk, Effect, Input, PeerEvent};
use crate::execution::{Event, Verdict};
use crate::ids::{RequestId, WorkerId};
use crate::task::{Data, Priority, RetryPolicy, Spec};
use crate::testing::{Solo, solo, spec};
use crate::token::{Caller, RootKey};
use crate::{Config, Fence};
use std::collections::VecDeque;

fn cached(mode: Mode) -> Spec {
    let retry = RetryPolicy { max_retries: 0, ..RetryPolicy::default() };
    Spec { cache: Some(Caching { mode, scope: None }), retry, ..spec() }
}

fn task(name: &str) -> TaskId {
    TaskId::new(name).expect("a valid id")
}

fn report(text: &str) -> Report {
    Report { result: Data::Inline(text.as_bytes().into()), ..Report::default() }
}

fn run_in(effects: &[Effect]) -> Option<(TaskId, Fence)> {
    effects.iter().find_map(|e| match e {
        Effect::Run { task, fence, .. } => Some((task.clone(), *fence)),
        _ => None,
    })
}

/// Ends the run that `effects` order well, with `text` as its result.
fn complete(solo: &mut Solo, effects: &[Effect], text: &str) -> Vec<Effect> {
    let (task, fence) = run_in(effects).expect("a run");
    solo.feed(Input::Execution {
        task,
        fence,
        event: Event::Ended { verdict: Verdict::Completed, report: report(text) },
    })
}

fn stats(solo: &mut Solo) -> NodeCache {
    match solo.ask(Request::Query(Query::Cache { scope: Scope::Mesh })).1 {
        Some(Ok(Reply::Cache(stats))) => stats.nodes.into_values().next().expect("this node"),
        other => panic!("no statistics: {other:?}"),
    }
}

#[test]
fn the_same_work_again_completes_without_a_run_and_says_from_where() {
    let mut solo = solo(Config::default());
    let (effects, _) = solo.submit("a", cached(Mode::ReadWrite));
    complete(&mut solo, &effects, "42");
    let (effects, _) = solo.submit("b", cached(Mode::Read));
    assert_eq!(run_in(&effects), None);
    let view = solo.view("b");
    assert_eq!((view.status, view.attempt, view.executor), (Status::Completed, 0, None));
    assert_eq!(view.report.map(|r| r.result), Some(report("42").result));
    let from = view.cached_from.expect("a hit");
    assert_eq!((from.source, Some(from.key)), (Source { task: task("a"), attempt: 1 }, cached(Mode::Read).cache_key()));
    assert_eq!(solo.view("a").cached_from, None);
    let stats = stats(&mut solo);
    assert_eq!((stats.entries, stats.hits, stats.misses, stats.joined), (1, 1, 1, 0));
}

#[test]
fn other_work_and_work_that_does_not_read_runs() {
    let mut solo = solo(Config::default());
    let (effects, _) = solo.submit("a", cached(Mode::Write));
    complete(&mut solo, &effects, "42");
    let others = [
        spec(),
        cached(Mode::Write),
        Spec { payload: (&b"{\"x\":1}"[..]).into(), ..cached(Mode::ReadWrite) },
        Spec {
            requirements: crate::task::Requirements {
                affinity_key: None,
                resources: crate::task::Resources { cpu_milli: 1, ..Default::default() },
                ..Default::default()
            },
            ..cached(Mode::Read)
        },
    ];
    for (n, other) in others.into_iter().enumerate() {
        let (effects, _) = solo.submit(&format!("other-{n}"), other);
        assert!(run_in(&effects).is_some(), "{n}");
        complete(&mut solo, &effects, "1");
    }
}

#[test]
fn what_only_reads_leaves_nothing_and_what_fails_leaves_nothing() {
    let mut solo = solo(Config::default());
    let (effects, _) = solo.submit("reads", cached(Mode::Read));
    complete(&mut solo, &effects, "1");
    let (effects, _) = solo.submit("fails", cached(Mode::ReadWrite));
    solo.end(&effects, Verdict::Failed { error: "no".into(), retryable: false });
    assert_eq!(solo.view("fails").status, Status::Failed);
    let (effects, _) = solo.submit("again", cached(Mode::Read));
    assert!(run_in(&effects).is_some());
    assert_eq!(stats(&mut solo).entries, 0);
}

#[test]
fn the_same_work_at_once_runs_once_and_the_second_says_what_it_waits_for() {
    let mut solo = solo(Config::default());
    let (first, _) = solo.submit("first", cached(Mode::ReadWrite));
    for name in ["second", "third"] {
        let (effects, _) = solo.submit(name, cached(Mode::ReadWrite));
        assert_eq!(run_in(&effects), None);
        let view = solo.view(name);
        assert_eq!(view.status, Status::Blocked);
        let why = view.explanation.expect("asked for");
        assert!(why.summary.contains("first") && why.next.contains("takes its result"), "{why:?}");
    }
    complete(&mut solo, &first, "42");
    for name in ["second", "third"] {
        let view = solo.view(name);
        assert_eq!(view.status, Status::Completed, "{name}");
        assert_eq!(view.cached_from.map(|from| from.source.task), Some(task("first")));
        assert_eq!(view.report.map(|r| r.result), Some(report("42").result));
    }
}

#[test]
fn where_the_first_fails_the_second_runs_for_the_third() {
    let mut solo = solo(Config::default());
    let (first, _) = solo.submit("first", cached(Mode::ReadWrite));
    solo.submit("second", cached(Mode::ReadWrite));
    solo.submit("third", cached(Mode::ReadWrite));
    let effects = solo.end(&first, Verdict::Failed { error: "no".into(), retryable: false });
    assert_eq!(run_in(&effects).map(|(task, _)| task), Some(task("second")));
    assert_eq!(solo.view("third").status, Status::Blocked);
    complete(&mut solo, &effects, "42");
    let from = |solo: &mut Solo, name| solo.view(name).cached_from.map(|from| from.source.task);
    assert_eq!((from(&mut solo, "second"), from(&mut solo, "third")), (None, Some(task("second"))));
}

#[test]
fn where_the_first_is_cancelled_the_second_runs_and_a_cancelled_second_waits_no_more() {
    let mut solo = solo(Config::default());
    let cancel = |solo: &mut Solo, name| {
        let command = Command::Cancel { task: task(name), reason: None, force: false };
        solo.ask(Request::Command(command)).0
    };
    let (first, _) = solo.submit("first", cached(Mode::ReadWrite));
    solo.submit("second", cached(Mode::ReadWrite));
    solo.submit("third", cached(Mode::ReadWrite));
    cancel(&mut solo, "second");
    assert_eq!(solo.view("second").status, Status::Cancelled);
    cancel(&mut solo, "first");
    let effects = solo.end(&first, Verdict::Stopped);
    assert_eq!(run_in(&effects).map(|(task, _)| task), Some(task("third")));
}

#[test]
fn a_task_looks_when_its_dependencies_are_done_and_when_its_time_has_come() {
    let mut solo = solo(Config::default());
    let (effects, _) = solo.submit("a", cached(Mode::Write));
    complete(&mut solo, &effects, "42");
    let (before, _) = solo.submit("before", Spec { payload: (&b"{\"x\":1}"[..]).into(), ..spec() });
    solo.submit("after", Spec { depends_on: vec![task("before")], ..cached(Mode::Read) });
    assert_eq!(solo.view("after").status, Status::Blocked);
    complete(&mut solo, &before, "1");
    assert!(solo.view("after").cached_from.is_some());
    let soon = Some(Unix(1_700_000_000_000) + Millis(5_000));
    solo.submit("later", Spec { not_before: soon, ..cached(Mode::Read) });
    assert_eq!(solo.view("later").status, Status::Delayed);
    solo.wait(Millis(6_000));
    assert!(solo.view("later").cached_from.is_some());
}

#[test]
fn a_result_is_not_used_when_its_time_is_over() {
    let cache = Bounds { ttl: Millis(10_000), ..Bounds::default() };
    let mut solo = solo(Config { cache, ..Config::default() });
    let (effects, _) = solo.submit("a", cached(Mode::Write));
    complete(&mut solo, &effects, "42");
    solo.wait(Millis(9_000));
    solo.submit("b", cached(Mode::Read));
    assert!(solo.view("b").cached_from.is_some());
    let effects = solo.wait(Millis(2_000));
    let expired = Notice::CacheEvicted { policy: Policy::Lru, why: Gone::Expired };
    assert!(effects.contains(&Effect::Notice(expired)), "it really goes");
    let (effects, _) = solo.submit("c", cached(Mode::Read));
    assert!(run_in(&effects).is_some());
    assert_eq!(stats(&mut solo).gone, BTreeMap::from([(Gone::Expired, 1)]));
}

#[test]
fn a_node_that_keeps_no_results_runs_everything() {
    let mut solo = solo(Config { cache: Bounds { entries: 0, ..Bounds::default() }, ..Config::default() });
    for name in ["a", "b"] {
        let (effects, _) = solo.submit(name, cached(Mode::ReadWrite));
        complete(&mut solo, &effects, "42");
    }
    assert_eq!(stats(&mut solo), NodeCache { misses: 2, ..NodeCache::default() });
}

#[test]
fn the_bounds_hold_whatever_comes() {
    let cache = Bounds { entries: 3, bytes: 2_000, ..Bounds::default() };
    let mut solo = solo(Config { cache, ..Config::default() });
    for n in 0..20 {
        let payload = format!("{{\"n\":{n}}}").into_bytes().into();
        let (effects, _) = solo.submit(&format!("t{n}"), Spec { payload, ..cached(Mode::ReadWrite) });
        complete(&mut solo, &effects, &"1".repeat(n * 100));
        let stats = stats(&mut solo);
        assert!(stats.entries <= 3 && stats.bytes <= 2_000, "{stats:?}");
    }
    assert!(stats(&mut solo).gone.contains_key(&Gone::Bytes));
}

#[test]
fn whoever_may_not_look_at_a_task_does_not_get_its_result() {
    let root = RootKey::of_mesh(&[7; 32]);
    let mut solo = solo(Config { root: Some(root.clone()), ..Config::default() });
    let caller = |subject: &str, caveats: Caveats| {
        let caveats = Caveats { expires: Some(Unix(1_700_003_600_000)), ..caveats };
        let token = root.mint([1; 16], subject, Role::Submitter, &caveats).expect("a token");
        Caller::Bearer(Arc::new(root.verify(token, Unix(1_700_000_000_000)).expect("valid")))
    };
    let own = || Caveats { own: true, ..Caveats::default() };
    let tagged = |tag: &str| Caveats { tags: vec![tag.into()], ..Caveats::default() };
    let mut n = 0;
    let mut hits = |caller: Caller, tag: &str| {
        n += 1;
        let spec = Spec { tags: vec![tag.into()], ..cached(Mode::ReadWrite) };
        let submission =
            Submission { task: Some(task(&format!("t{n}"))), spec, priority: Priority::NORMAL, items: Vec::new() };
        let (effects, _) = solo.ask_as(caller, Request::Command(Command::Submit(Box::new(submission))));
        if run_in(&effects).is_some() {
            complete(&mut solo, &effects, "42");
        }
        solo.view(&format!("t{n}")).cached_from.map(|from| from.source.task.to_string())
    };
    assert_eq!(hits(caller("ann", Caveats::default()), "x"), None, "the first");
    assert_eq!(hits(caller("bob", Caveats::default()), "y"), Some("t1".into()), "who may look at all");
    assert_eq!(hits(caller("ann", own()), "x"), None, "limited to her own, as this token says it");
    assert_eq!(hits(caller("bob", own()), "x"), None, "not ann's");
    assert_eq!(hits(caller("ann", own()), "x"), Some("t3".into()));
    assert_eq!(hits(caller("cay", tagged("x")), "x"), None);
    assert_eq!(hits(caller("dan", tagged("y")), "y"), None);
    assert_eq!(hits(caller("eve", tagged("x")), "x"), Some("t6".into()), "may look at what has this tag");
    let typed = Caveats { task_types: vec!["echo".into()], ..Caveats::default() };
    assert_eq!(hits(caller("fay", typed), "x"), Some("t1".into()), "the type is part of the key");
}

/// Nodes that hear each other at once, as long as they live.
struct Mesh {
    nodes: Vec<Option<Node>>,
    now: Millis,
    runs: Vec<(usize, TaskId, Fence)>,
}

const WALL: Unix = Unix(1_700_000_000_000);

impl Mesh {
    fn new(size: usize) -> Mesh {
        let config = Config { executors: vec!["echo".into()], ..Config::default() };
        let node = |n| Some(Node::new(NodeId::test(n as u64), config.clone(), n as u64, Disk::default()));
        let mut mesh = Mesh { nodes: (0..size).map(node).collect(), now: Millis(1), runs: Vec::new() };
        for n in 0..size {
            mesh.feed(n, Input::Clock(WALL));
            for peer in (0..size).filter(|peer| *peer != n) {
                let peer = NodeId::test(peer as u64);
                mesh.feed(n, Input::Peer(PeerEvent::Up { peer, address: "/memory/1".into() }));
            }
        }
        mesh.wait(Millis(3_000));
        for n in 0..size {
            let worker = WorkerId::new(&format!("w{n}")).expect("a valid id");
            let (labels, resources, metadata) = (BTreeMap::new(), None, None);
            let capabilities = vec!["echo".into()];
            let spec = WorkerSpec { worker, capabilities, labels, slots: 2, resources, metadata };
            assert!(mesh.ask(n, Request::Command(Command::Register(spec))).is_ok());
        }
        mesh.wait(Millis(3_000));
        mesh
    }

    fn feed(&mut self, n: usize, input: Input) -> Vec<Result<Reply, Refusal>> {
        let mut due = VecDeque::from([(n, input)]);
        let mut replies = Vec::new();
        while let Some((n, input)) = due.pop_front() {
            let Some(node) = self.nodes[n].as_mut() else { continue };
            let mut effects = Vec::new();
            node.handle(self.now, input, &mut effects);
            node.check();
            let from = NodeId::test(n as u64);
            for effect in effects {
                match effect {
                    Effect::Send { to, message } => {
                        let to = (0..self.nodes.len()).find(|n| NodeId::test(*n as u64) == to).expect("a member");
                        due.push_back((to, Input::Received { from, message }));
                    }
                    Effect::Publish(message) => {
                        for to in (0..self.nodes.len()).filter(|to| *to != n) {
                            due.push_back((to, Input::Received { from, message: message.clone() }));
                        }
                    }
                    Effect::Run { task, fence, .. } => self.runs.push((n, task, fence)),
                    Effect::Reply { reply, .. } => replies.push(reply),
                    _ => {}
                }
            }
        }
        replies
    }

    fn wait(&mut self, span: Millis) {
        let until = self.now + span;
        while self.now < until {
            self.now = self.now + Millis(100);
            (0..self.nodes.len()).for_each(|n| drop(self.feed(n, Input::Tick)));
        }
    }

    fn ask(&mut self, n: usize, request: Request) -> Result<Reply, Refusal> {
        let mut replies = self.feed(n, Input::Request { id: RequestId(1), caller: Caller::Node, request });
        let until = self.now + Millis(10_000);
        while replies.is_empty() && self.now < until {
            self.now = self.now + Millis(100);
            (0..self.nodes.len()).for_each(|n| replies.extend(self.feed(n, Input::Tick)));
        }
        replies.pop().expect("answered")
    }

    fn submit(&mut self, n: usize, spec: Spec) -> TaskId {
        let submission = Submission { task: None, spec, priority: Priority::NORMAL, items: Vec::new() };
        let reply = self.ask(n, Request::Command(Command::Submit(Box::new(submission))));
        self.wait(Millis(300));
        match reply {
            Ok(Reply::Submitted(taken)) => taken.task,
            other => panic!("not taken: {other:?}"),
        }
    }

    fn complete(&mut self, text: &str) {
        let (n, task, fence) = self.runs.pop().expect("a run");
        let event = Event::Ended { verdict: Verdict::Completed, report: report(text) };
        self.feed(n, Input::Execution { task, fence, event });
        self.wait(Millis(300));
    }

    fn view(&mut self, n: usize, task: &TaskId) -> TaskView {
        let detail = Detail { report: true, ..Detail::default() };
        match self.ask(n, Request::Query(Query::Task { task: task.clone(), detail, wait: Millis(0) })) {
            Ok(Reply::Task(view)) => *view,
            other => panic!("no view of {task}: {other:?}"),
        }
    }

    fn source(&mut self, n: usize, task: &TaskId) -> Option<TaskId> {
        self.view(n, task).cached_from.map(|from| from.source.task)
    }

    fn home(&self, key: &CacheKey) -> usize {
        let node = self.nodes.iter().flatten().next().expect("one lives");
        let home = node.shelves_of(key)[0];
        (0..self.nodes.len()).find(|n| NodeId::test(*n as u64) == home).expect("a member")
    }

    fn cache(&mut self, n: usize) -> CacheStats {
        match self.ask(n, Request::Query(Query::Cache { scope: Scope::Mesh })) {
            Ok(Reply::Cache(stats)) => stats,
            other => panic!("no statistics: {other:?}"),
        }
    }

    fn invalidate(&mut self, n: usize, which: Which) -> (u64, u64, usize) {
        match self.ask(n, Request::Command(Command::Invalidate { which, scope: Scope::Mesh })) {
            Ok(Reply::Invalidated { entries, copies, silent }) => (entries, copies, silent.len()),
            other => panic!("not invalidated: {other:?}"),
        }
    }
}

fn numbered(n: u32) -> Spec {
    Spec { payload: format!("{{\"n\":{n}}}").into_bytes().into(), ..cached(Mode::ReadWrite) }
}

#[test]
fn a_result_is_found_from_every_node_and_survives_its_home() {
    let mut mesh = Mesh::new(3);
    for n in 0..6 {
        let first = mesh.submit(n as usize % 3, numbered(n));
        mesh.complete(&n.to_string());
        for at in 0..3 {
            let again = mesh.submit(at, numbered(n));
            assert_eq!(mesh.source(at, &again), Some(first.clone()));
            assert_eq!(mesh.view(at, &again).report.map(|r| r.result), Some(report(&n.to_string()).result));
        }
    }
    assert!(mesh.runs.is_empty());
    let key = numbered(0).cache_key().expect("it reads");
    let home = mesh.home(&key);
    mesh.nodes[home] = None;
    mesh.wait(Millis(8_000));
    let at = (home + 1) % 3;
    let again = mesh.submit(at, numbered(0));
    assert!(mesh.source(at, &again).is_some(), "the next in order has a copy");
}

#[test]
fn the_same_work_on_three_nodes_at_once_runs_once() {
    let mut mesh = Mesh::new(3);
    let tasks: Vec<_> = (0..3).map(|n| mesh.submit(n, numbered(1))).collect();
    assert_eq!(mesh.runs.len(), 1);
    mesh.complete("42");
    mesh.wait(Millis(1_000));
    assert!(mesh.runs.is_empty());
    let sources: Vec<_> = tasks.iter().map(|t| mesh.source(0, t)).collect();
    assert_eq!(sources, [None, Some(tasks[0].clone()), Some(tasks[0].clone())]);
}

#[test]
fn a_home_that_is_silent_costs_a_run_and_nothing_else() {
    let mut mesh = Mesh::new(3);
    let home = mesh.home(&numbered(1).cache_key().expect("it reads"));
    let at = (home + 1) % 3;
    mesh.nodes[home] = None;
    let task = mesh.submit(at, numbered(1));
    mesh.wait(Millis(10_000));
    let run = mesh.runs.iter().any(|(_, t, _)| *t == task);
    assert!(run, "{:?}", mesh.view(at, &task));
}

#[test]
fn a_node_that_joins_is_given_what_it_should_keep() {
    let mut mesh = Mesh::new(3);
    for n in 0..20 {
        mesh.submit(n as usize % 3, numbered(n));
        mesh.complete("1");
    }
    let node = Node::new(NodeId::test(3), Config::default(), 3, Disk::default());
    mesh.nodes.push(Some(node));
    mesh.feed(3, Input::Clock(WALL + mesh.now));
    for n in 0..3 {
        let (old, new) = (NodeId::test(n), NodeId::test(3));
        mesh.feed(n as usize, Input::Peer(PeerEvent::Up { peer: new, address: "/memory/1".into() }));
        mesh.feed(3, Input::Peer(PeerEvent::Up { peer: old, address: "/memory/1".into() }));
    }
    mesh.wait(Millis(5_000));
    let stats = mesh.cache(0);
    let kept: Vec<_> = stats.nodes.values().map(|node| node.entries).collect();
    assert_eq!(kept.iter().sum::<u64>(), 60, "each on three of four: {kept:?}");
    assert!(kept[3] > 5, "{kept:?}");
    for n in 0..20 {
        let again = mesh.submit(3, numbered(n));
        assert!(mesh.source(3, &again).is_some(), "{n}");
    }
}

#[test]
fn an_invalidated_result_is_gone_on_every_node_and_who_was_silent_is_named() {
    let mut mesh = Mesh::new(3);
    let mut firsts = Vec::new();
    for n in 0..4 {
        let tags = vec![format!("tag-{}", n % 2).into()];
        firsts.push(mesh.submit(0, Spec { tags, ..numbered(n) }));
        mesh.complete("1");
    }
    let key = numbered(0).cache_key().expect("it reads");
    assert_eq!(mesh.invalidate(1, Which::Key(key)), (1, 3, 0));
    assert_eq!(mesh.invalidate(2, Which::Task(firsts[1].clone())), (1, 3, 0));
    assert_eq!(mesh.invalidate(0, Which::Tag("tag-0".into())), (1, 3, 0));
    let again = mesh.submit(1, numbered(0));
    assert_eq!(mesh.runs.len(), 1, "{:?}", mesh.view(1, &again));
    mesh.complete("2");
    mesh.nodes[2] = None;
    mesh.wait(Millis(8_000));
    let (entries, copies, silent) = mesh.invalidate(0, Which::Type("echo".into()));
    assert_eq!((entries, copies, silent), (2, 4, 1));
    let again = mesh.submit(1, numbered(3));
    assert_eq!(mesh.source(1, &again), None);
}

#[test]
fn a_follower_whose_first_is_lost_with_its_home_runs_itself() {
    let mut mesh = Mesh::new(3);
    let first = mesh.submit(0, numbered(1));
    let second = mesh.submit(1, numbered(1));
    assert_eq!(mesh.view(1, &second).status, Status::Blocked);
    // Its owner is gone; another node takes it over, and its run with it.
    mesh.nodes[0] = None;
    mesh.runs.retain(|(n, ..)| *n != 0);
    mesh.wait(Millis(40_000));
    while !mesh.runs.is_empty() {
        mesh.complete("42");
        mesh.wait(Millis(2_000));
    }
    for task in [first, second] {
        assert_eq!(mesh.view(1, &task).status, Status::Completed, "{task}");
    }
}

#[test]
fn results_are_found_again_after_a_restart_unless_their_blobs_are_not() {
    let entry = |n: u32, result: Data| Cached {
        key: numbered(n).cache_key().expect("it reads"),
        task_type: "echo".into(),
        tags: Vec::new(),
        source: Source { task: task("long-ago"), attempt: 2 },
        report: Report { result, ..Report::default() },
        created: WALL,
        expires: WALL + Millis(3_600_000),
    };
    let (here, lost) = (BlobHash([1; 32]), BlobHash([2; 32]));
    let disk = Disk {
        cached: vec![
            entry(1, Data::Inline((&b"42"[..]).into())),
            entry(2, Data::Blob { hash: here, bytes: 70_000 }),
            entry(3, Data::Blob { hash: lost, bytes: 70_000 }),
        ],
        blobs: BTreeSet::from([here]),
        ..Disk::default()
    };
    let mut mesh = Mesh { nodes: vec![None], now: Millis(1), runs: Vec::new() };
    mesh.nodes[0] = Some(Node::new(NodeId::test(0), Config::default(), 1, disk));
    mesh.feed(0, Input::Clock(WALL));
    let found: Vec<_> = (1..=3)
        .map(|n| {
            let task = mesh.submit(0, numbered(n));
            mesh.source(0, &task).is_some()
        })
        .collect();
    assert_eq!(found, [true, true, false]);
    assert_eq!(mesh.cache(0).nodes[&NodeId::test(0)].entries, 2);
}

impl Mesh {
    fn keep(&mut self, n: usize, name: &str, content: Option<&[u8]>, ttl: Option<Millis>) -> Result<Reply, Refusal> {
        let content = content.map(Into::into);
        self.ask(n, Request::Command(Command::KeepValue { name: name.into(), content, ttl }))
    }

    fn value(&mut self, n: usize, name: &str) -> Option<Vec<u8>> {
        match self.ask(n, Request::Query(Query::Value { name: name.into() })) {
            Ok(Reply::Found(Finding::Hit { entry, .. })) => match &entry.report.result {
                Data::Inline(content) => Some(content.to_vec()),
                other @ Data::Blob { .. } => panic!("{other:?}"),
            },
            Ok(Reply::Found(Finding::Run)) => None,
            other => panic!("no answer: {other:?}"),
        }
    }
}

#[test]
fn a_value_is_found_from_every_node_until_it_is_replaced_or_dropped() {
    let mut mesh = Mesh::new(3);
    for (n, name) in ["a", "b", "c", "d"].into_iter().enumerate() {
        assert!(matches!(mesh.keep(n % 3, name, Some(b"1"), None), Ok(Reply::ValueKept { .. })));
        let found: Vec<_> = (0..3).map(|at| mesh.value(at, name)).collect();
        assert_eq!(found, vec![Some(b"1".to_vec()); 3]);
        // At once, so that no clock tells which is newer.
        assert!(mesh.keep((n + 1) % 3, name, Some(b"2"), None).is_ok());
    }
    let home = mesh.home(&CacheKey(blake3::derive_key("taskmesh 2026-11 value key 1", b"a")));
    mesh.nodes[home] = None;
    mesh.wait(Millis(8_000));
    let at = (home + 1) % 3;
    assert_eq!(mesh.value(at, "a"), Some(b"2".to_vec()), "the next in order has a copy, of the newer");
    assert!(
        matches!(mesh.keep(at, "a", None, None), Ok(Reply::Invalidated { copies: 2, silent, .. }) if silent.len() == 1)
    );
    assert_eq!((mesh.value(at, "a"), mesh.value(at, "none")), (None, None));
    assert!(mesh.value(at, "b").is_some());
}

#[test]
fn a_value_is_gone_when_its_time_is_over_and_none_is_kept_that_has_no_room() {
    let mut mesh = Mesh::new(1);
    assert!(mesh.keep(0, "a", Some(b"1"), Some(Millis(5_000))).is_ok());
    assert!(mesh.value(0, "a").is_some());
    mesh.wait(Millis(6_000));
    assert_eq!(mesh.value(0, "a"), None);
    assert!(matches!(mesh.keep(0, "a", Some(b"1"), Some(Millis(0))), Err(Refusal::State { .. })));
    let large = vec![b'x'; crate::limits::INLINE_BYTES + 1];
    assert!(matches!(mesh.keep(0, "a", Some(&large), None), Err(Refusal::Invalid { field, .. }) if &*field == "value"));
    assert_eq!(mesh.value(0, "a"), None);
}
