//! Arrays on a node alone: what needs no second node to show.

use super::*;
use crate::command::{Command, Detail, Query, Request, Scope, TaskFilter, TaskOrder};
use crate::effect::{Disk, Effect, Input};
use crate::execution::{Event, Verdict};
use crate::explain::Reason;
use crate::task::{Data, Report};
use crate::testing::{Solo, solo, solo_with, spec};
use crate::time::Millis;
use crate::view::{Reply, Status, TaskView};
use crate::{Config, Fence, Refusal, TaskId};
use serde_json::json;
use std::collections::VecDeque;

fn id(name: &str) -> TaskId {
    TaskId::new(name).expect("a valid id")
}

fn heading(at_once: u32) -> Heading {
    Heading { task_type: "echo".into(), at_once: Some(at_once), ..Heading::default() }
}

fn array(heading: &Heading, lines: &[&str]) -> Spec {
    Spec { task_type: ARRAY.into(), payload: text_of(heading, lines.iter().copied()).into_bytes().into(), ..spec() }
}

/// Items `{"n":0}`, `{"n":1}`, …
fn numbered(count: usize, at_once: u32) -> Spec {
    let lines: Vec<_> = (0..count).map(|n| json!({ "n": n }).to_string()).collect();
    array(&heading(at_once), &lines.iter().map(String::as_str).collect::<Vec<_>>())
}

/// A node, and the runs that it ordered and nobody ended yet.
struct Bench {
    solo: Solo,
    runs: VecDeque<(TaskId, Fence, Value)>,
    most_open: usize,
}

impl Bench {
    fn new() -> Bench {
        Bench { solo: solo(Config::default()), runs: VecDeque::new(), most_open: 0 }
    }

    fn with(name: &str, spec: Spec) -> Bench {
        let mut bench = Bench::new();
        bench.submit(name, spec).expect("taken");
        bench
    }

    fn see(&mut self, effects: &[Effect]) {
        for effect in effects {
            if let Effect::Run { task, fence, spec, .. } = effect {
                self.runs.push_back((task.clone(), *fence, serde_json::from_slice(&spec.payload).expect("JSON")));
            }
        }
        let open = self.solo.node.slots().filter(|slot| !slot.spec.is_array() && !slot.record.closed()).count();
        self.most_open = self.most_open.max(open);
    }

    fn submit(&mut self, name: &str, spec: Spec) -> Result<Reply, Refusal> {
        let (effects, reply) = self.solo.submit(name, spec);
        self.see(&effects);
        reply.expect("answered at once")
    }

    fn order(&mut self, command: Command) -> Result<Reply, Refusal> {
        let (effects, reply) = self.solo.ask(Request::Command(command));
        self.see(&effects);
        reply.expect("answered at once")
    }

    fn cancel(&mut self, name: &str) -> Result<Reply, Refusal> {
        self.order(Command::Cancel { task: id(name), reason: None, force: false })
    }

    fn retry(&mut self, name: &str) -> Result<Reply, Refusal> {
        self.order(Command::Retry { task: id(name), max_retries: Some(0), timeout: None })
    }

    /// Ends what runs, and what then runs, as `program` says: `None` fails.
    fn run_all(&mut self, program: impl Fn(&str, &Value) -> Option<Value>) {
        while let Some((task, fence, payload)) = self.runs.pop_front() {
            let (verdict, result) = match program(task.as_str(), &payload) {
                Some(result) => (Verdict::Completed, result),
                None => (Verdict::Failed { error: "broken".into(), retryable: false }, Value::Null),
            };
            let report = Report { result: Data::Inline(result.to_string().into_bytes().into()), ..Report::default() };
            let effects = self.solo.feed(Input::Execution { task, fence, event: Event::Ended { verdict, report } });
            self.see(&effects);
        }
    }

    fn page(&mut self, name: &str, from: u32) -> TaskView {
        let detail = Detail { report: true, items: Some(from), ..Detail::default() };
        let query = Query::Task { task: id(name), detail, wait: Millis(0) };
        match self.solo.ask(Request::Query(query)).1 {
            Some(Ok(Reply::Task(view))) => *view,
            other => panic!("no view of {name}: {other:?}"),
        }
    }

    /// Index, state and result of each item of a page.
    fn items(&mut self, name: &str, from: u32) -> Vec<(String, String, Value)> {
        let steps = self.page(name, from).workflow.expect("an array").steps.expect("a page");
        let result = |report: &Report| match &report.result {
            Data::Inline(text) => serde_json::from_slice(text).expect("JSON"),
            Data::Blob { .. } => Value::Null,
        };
        let line = |step: crate::view::StepView| {
            let result = step.report.as_ref().map_or(Value::Null, result);
            (step.step.to_string(), step.status.to_string(), result)
        };
        steps.into_iter().map(line).collect()
    }

    fn counts(&mut self) -> (u64, u64) {
        let query = Query::Stats { scope: Scope::Local, workers: false, historical: false };
        match self.solo.ask(Request::Query(query)).1 {
            Some(Ok(Reply::Stats(stats))) => {
                let of = |status| stats.counts.get(&status).copied().unwrap_or(0);
                (of(Status::Queued), stats.waiting.get(&Reason::Order).copied().unwrap_or(0))
            }
            other => panic!("no counts: {other:?}"),
        }
    }
}

fn echo(_: &str, payload: &Value) -> Option<Value> {
    Some(payload["n"].clone())
}

#[test]
fn items_run_in_order_a_few_at_once_and_leave_results_by_index() {
    let mut bench = Bench::with("a", numbered(40, 5));
    assert_eq!(bench.solo.node.slots().count(), 6);
    let order = std::cell::RefCell::new(Vec::new());
    bench.run_all(|task, payload| {
        order.borrow_mut().push(task.to_owned());
        echo(task, payload)
    });
    assert_eq!(order.into_inner(), (0..40).map(|n| format!("a/{n}")).collect::<Vec<_>>());
    assert_eq!(bench.most_open, 5);
    let view = bench.solo.view("a");
    assert_eq!((view.status, view.progress), (Status::Completed, Some(100)));
    assert_eq!(view.message.as_deref(), Some("of 40 items 40 completed"));
    let summary = json!({"items": 40, "completed": 40, "failed": 0, "cancelled": 0, "expired": 0});
    let Some(Report { result: Data::Inline(text), .. }) = view.report else { panic!("no result") };
    assert_eq!(serde_json::from_slice::<Value>(&text).expect("JSON"), summary);
    let wanted: Vec<_> = (37..40).map(|n| (n.to_string(), "completed".to_owned(), json!(n))).collect();
    assert_eq!(bench.items("a", 37), wanted);
}

#[test]
fn the_submission_says_how_many_items_there_are_and_may_be_repeated() {
    let mut bench = Bench::new();
    for replayed in [false, true] {
        let Ok(Reply::Submitted(taken)) = bench.submit("a", numbered(9, 3)) else { panic!("refused") };
        assert_eq!((taken.items, taken.replayed, taken.feasible), (Some(9), replayed, 1));
    }
    assert!(matches!(bench.submit("a", numbered(10, 3)), Err(Refusal::Conflict { .. })));
    assert!(matches!(bench.submit("a/4", spec()), Err(Refusal::Conflict { .. })), "an item's id is taken");
}

#[test]
fn each_item_is_laid_over_the_shared_payload() {
    let shared = json!({"n": 0, "text": "x\ny"}).as_object().expect("an object").clone();
    let shared = Heading { payload: shared, ..heading(2) };
    let bench = Bench::with("a", array(&shared, &["{}", r#"{"n":1,"more":[2]}"#]));
    let payloads: Vec<_> = bench.runs.iter().map(|(_, _, payload)| payload.clone()).collect();
    assert_eq!(payloads, [json!({"n": 0, "text": "x\ny"}), json!({"n": 1, "text": "x\ny", "more": [2]})]);
}

#[test]
fn an_item_that_fails_leaves_the_others_alone_and_is_tried_again_alone() {
    let mut bench = Bench::with("a", numbered(10, 3));
    bench.run_all(|task, payload| (task != "a/3" && task != "a/4" && task != "a/8").then(|| payload["n"].clone()));
    let view = bench.solo.view("a");
    assert_eq!(view.status, Status::Failed);
    assert_eq!(view.error.as_deref(), Some("of 10 items 3 failed"));
    assert_eq!(bench.items("a", 7)[0], ("7".into(), "completed".into(), json!(7)));
    assert_eq!(bench.solo.view("a/4").error.as_deref(), Some("broken"));

    // One of them.
    assert!(matches!(bench.retry("a/3"), Ok(Reply::Retried { retry, .. }) if retry == id("a/3-retry-1")));
    bench.run_all(echo);
    assert_eq!(bench.solo.view("a/3-retry-1").status, Status::Completed);
    assert_eq!(bench.solo.view("a/3").status, Status::Failed, "what has ended stays");
    // All of them, under their own numbers.
    assert!(matches!(bench.retry("a"), Ok(Reply::Retried { retry, .. }) if retry == id("a-retry-1")));
    bench.run_all(echo);
    assert_eq!(bench.solo.view("a-retry-1").status, Status::Completed);
    let of = |n: u32| (n.to_string(), "completed".to_owned(), json!(n));
    assert_eq!(bench.items("a-retry-1", 0), [of(3), of(4), of(8)]);
    assert_eq!(bench.items("a-retry-1", 5), [of(8)]);
    assert_eq!(bench.solo.view("a-retry-1/8").retry_of, Some(id("a/8")));
    assert!(matches!(bench.retry("a-retry-1"), Err(Refusal::State { .. })), "nothing is left to do");
}

#[test]
fn an_item_is_tried_again_while_others_run() {
    let mut bench = Bench::with("a", numbered(4, 4));
    let (task, fence, _) = bench.runs.pop_front().expect("it runs");
    let verdict = Verdict::Failed { error: "broken".into(), retryable: false };
    let report = Report::default();
    let effects = bench.solo.feed(Input::Execution { task, fence, event: Event::Ended { verdict, report } });
    bench.see(&effects);
    bench.retry("a/0").expect("tried again");
    assert!(matches!(bench.retry("a"), Err(Refusal::State { .. })), "it has not ended");
    bench.run_all(echo);
    assert_eq!(bench.solo.view("a/0-retry-1").status, Status::Completed);
    assert_eq!(bench.solo.view("a").status, Status::Failed);
}

#[test]
fn waiting_items_are_counted_and_explained() {
    let mut bench = Bench::with("a", numbered(30, 4));
    // Two slots of four items.
    assert_eq!(bench.counts().0, 28);
    let view = bench.solo.view("a/20");
    assert_eq!((view.status, view.attempt), (Status::Queued, 0));
    let why = view.explanation.expect("it waits");
    assert_eq!(why.reason, Some(Reason::Order));
    assert_eq!(&*why.summary, "has not begun: 16 items of a begin before it, as others end");
    let why = bench.solo.view("a").explanation.expect("it has not ended");
    assert_eq!(&*why.summary, "4 of its items are under way, and 26 begin as these end");
    assert_eq!(
        bench.items("a", 3)[..2],
        [("3".into(), "queued".into(), Value::Null), ("4".into(), "waiting".into(), Value::Null)]
    );
    let query = Query::Task { task: id("a/30"), detail: Detail::default(), wait: Millis(0) };
    assert!(matches!(bench.solo.ask(Request::Query(query)).1, Some(Err(Refusal::NotFound { .. }))), "there is none");
    bench.run_all(echo);
    assert_eq!(bench.counts(), (0, 0));
}

#[test]
fn one_that_waits_for_another_task_begins_after_it() {
    let mut bench = Bench::new();
    bench.submit("first", spec()).expect("taken");
    bench.submit("a", Spec { depends_on: vec![id("first")], ..numbered(6, 2) }).expect("taken");
    assert_eq!(bench.solo.view("a/5").status, Status::Blocked);
    assert_eq!(bench.solo.view("a").explanation.expect("it waits").reason, Some(Reason::Dependency));
    assert!(matches!(bench.cancel("a/5"), Err(Refusal::State { .. })), "none of them can begin");
    bench.run_all(echo);
    assert_eq!(bench.solo.view("a").status, Status::Completed);
}

#[test]
fn a_cancelled_array_begins_no_more_items() {
    let mut bench = Bench::with("a", numbered(30, 4));
    bench.cancel("a").expect("cancelled");
    let stopped: Vec<_> = bench.runs.drain(..).collect();
    for (task, fence, _) in stopped {
        let event = Event::Ended { verdict: Verdict::Stopped, report: Report::default() };
        let effects = bench.solo.feed(Input::Execution { task, fence, event });
        bench.see(&effects);
    }
    bench.solo.wait(Millis(5_000));
    assert!(bench.runs.is_empty());
    assert_eq!(bench.solo.view("a").status, Status::Cancelled);
    assert_eq!(bench.solo.view("a/2").status, Status::Cancelled);
    assert_eq!(bench.solo.view("a/29").status, Status::Cancelled, "it never began");
    assert_eq!(bench.counts().0, 0);
    // What did not complete is all of it.
    bench.retry("a").expect("tried again");
    bench.run_all(echo);
    assert_eq!(bench.items("a-retry-1", 29), [("29".to_owned(), "completed".to_owned(), json!(29))]);
}

#[test]
fn a_command_reaches_an_item_that_has_not_begun() {
    let mut bench = Bench::with("a", numbered(30, 4));
    bench.cancel("a/20").expect("cancelled");
    assert_eq!(bench.solo.view("a/20").status, Status::Cancelled);
    bench.run_all(|task, payload| {
        assert_ne!(task, "a/20");
        echo(task, payload)
    });
    let view = bench.solo.view("a");
    assert_eq!(view.message.as_deref(), Some("of 30 items 1 cancelled, 29 completed"));
    assert_eq!(view.status, Status::Failed);
}

#[test]
fn who_waits_for_an_item_that_has_not_begun_hears_of_its_end() {
    let mut bench = Bench::with("a", numbered(30, 4));
    let query = |task| Request::Query(Query::Task { task: id(task), detail: Detail::default(), wait: Millis(40_000) });
    assert!(bench.solo.ask(query("a/29")).1.is_none(), "it is waited for");
    let mut answered = Vec::new();
    while let Some((task, fence, _)) = bench.runs.pop_front() {
        let event = Event::Ended { verdict: Verdict::Completed, report: Report::default() };
        let effects = bench.solo.feed(Input::Execution { task, fence, event });
        bench.see(&effects);
        answered.extend(effects.into_iter().filter(|effect| matches!(effect, Effect::Reply { .. })));
    }
    assert_eq!(answered.len(), 1);

    bench.submit("b", numbered(30, 4)).expect("taken");
    assert!(bench.solo.ask(query("b/29")).1.is_none());
    let effects = bench.solo.ask(Request::Command(Command::Cancel { task: id("b"), reason: None, force: false })).0;
    let told = effects.iter().any(|effect| match effect {
        Effect::Reply { reply: Ok(Reply::Task(view)), .. } => {
            (&view.task, view.status) == (&id("b/29"), Status::Cancelled)
        }
        _ => false,
    });
    assert!(told, "{effects:?}");
}

#[test]
fn an_item_that_can_not_be_read_fails_alone() {
    let mut bench = Bench::with("a", array(&heading(2), &["{}", "7", "{\"n\":", "{}", ""]));
    bench.run_all(|_, _| Some(Value::Null));
    assert_eq!(bench.solo.view("a").error.as_deref(), Some("of 5 items 3 failed"));
    let error = bench.solo.view("a/1").error.expect("why");
    assert!(error.starts_with("the item can't be read"), "{error}");
}

#[test]
fn items_expire_with_their_array() {
    let mut bench = Bench::new();
    let soon = bench.solo.node.wall() + Millis(2_000);
    let later = bench.solo.node.wall() + Millis(60_000);
    let late = Spec { not_before: Some(later), deadline: Some(soon), ..numbered(9, 3) };
    bench.submit("a", late).expect("taken");
    assert_eq!(bench.solo.view("a/1").status, Status::Delayed);
    bench.solo.wait(Millis(3_000));
    assert_eq!(bench.solo.view("a").status, Status::Expired);
    assert_eq!(bench.solo.view("a/1").status, Status::Expired);
    assert_eq!(bench.solo.view("a/8").status, Status::Expired);
}

#[test]
fn what_is_no_array_is_refused() {
    let mut bench = Bench::new();
    let text = |text: &str| Spec { task_type: ARRAY.into(), payload: text.as_bytes().into(), ..spec() };
    let huge = format!("{}\n{{}}", "x".repeat(limits::ARRAY_BYTES));
    let many = "\n{}".repeat(limits::ARRAY_ITEMS + 1);
    let table = [
        ("{}".to_owned(), "missing field"),
        ("{\"task_type\":\"echo\"}".to_owned(), "must be 1 to 100000, and are 0"),
        ("{\"task_type\":\"\"}\n{}".to_owned(), "have a type"),
        ("{\"task_type\":\"wait\"}\n{}".to_owned(), "wait is no type of a task"),
        ("{\"task_type\":\"array\"}\n{}".to_owned(), "array is no type of a task"),
        ("{\"task_type\":\"echo\",\"at_once\":0}\n{}".to_owned(), "at_once is 0"),
        ("{\"task_type\":\"echo\",\"only\":[[0,2]]}\n{}".to_owned(), "are 1, and their indexes 2"),
        ("{\"task_type\":\"echo\",\"only\":[[3,1],[3,1]]}\n{}\n{}".to_owned(), "out of order"),
        ("{\"task_type\":\"echo\",\"only\":[[100000,1]]}\n{}".to_owned(), "over the limit"),
        ("{\"task_type\":\"echo\",\"other\":1}\n{}".to_owned(), "unknown field"),
        (format!("{{\"task_type\":\"echo\"}}{many}"), "must be 1 to 100000, and are 100001"),
        (huge, "the limit is 3145728"),
        ("nonsense".to_owned(), "expected"),
    ];
    for (payload, problem) in table {
        let refused = bench.submit("a", text(&payload)).expect_err("it is no array").to_string();
        assert!(refused.contains(problem), "{refused}");
    }
    let long = "x".repeat(TaskId::MAX_BYTES - 1);
    assert!(bench.submit(&long, numbered(3, 1)).expect_err("too long").to_string().contains("task_id"));
    assert_eq!(bench.solo.node.slots().count(), 0);
}

#[test]
fn waiting_items_count_for_the_bound_of_the_queue() {
    let mut bench = Bench { solo: solo(Config { open_tasks: 50, ..Config::default() }), ..Bench::new() };
    bench.submit("a", numbered(40, 4)).expect("taken");
    assert!(matches!(bench.submit("b", numbered(11, 4)), Err(Refusal::Full { .. })));
    bench.run_all(echo);
    bench.submit("b", numbered(11, 4)).expect("taken");
}

#[test]
fn a_list_shows_what_has_begun_and_the_arrays_by_their_type() {
    let mut bench = Bench::with("a", numbered(30, 4));
    bench.submit("b", numbered(3, 3)).expect("taken");
    let mut list = |filter: TaskFilter| {
        let filter = TaskFilter { limit: 100, scope: Scope::Local, ..filter };
        match bench.solo.ask(Request::Query(Query::Tasks(Box::new(filter)))).1 {
            Some(Ok(Reply::Tasks(page))) => page.tasks.iter().map(|t| t.task.to_string()).collect::<Vec<_>>(),
            other => panic!("no list: {other:?}"),
        }
    };
    let of_a = TaskFilter { parent: Some(id("a")), ..TaskFilter::default() };
    let newest = TaskFilter { order: TaskOrder::Newest, ..of_a.clone() };
    assert_eq!(list(of_a), ["a/0", "a/1", "a/2", "a/3"]);
    assert_eq!(list(newest), ["a/3", "a/2", "a/1", "a/0"]);
    assert_eq!(list(TaskFilter { task_type: Some(ARRAY.into()), ..TaskFilter::default() }), ["a", "b"]);
    assert_eq!(list(TaskFilter::default()).len(), 7);
}

#[test]
fn indexes_and_places_agree() {
    let only = vec![(2, 2), (7, 1), (9, 3)];
    let lines = ["{}"; 6];
    let text = text_of(&Heading { only, ..heading(1) }, lines.into_iter());
    let items = Items::read(&text.into_bytes().into()).expect("an array");
    let indexes: Vec<_> = (0..items.len()).map(|place| items.index(place)).collect();
    assert_eq!(indexes, [2, 3, 7, 9, 10, 11]);
    for (place, index) in indexes.iter().enumerate() {
        assert_eq!(items.find(&index.to_string()), Some(place));
        assert_eq!(items.place_from(*index), place);
    }
    let found: Vec<_> = ["0", "4", "8", "12", "07", "-1", "x", ""].map(|name| items.find(name)).into();
    assert_eq!(found, [None; 8]);
    assert_eq!([0, 4, 8, 12, u32::MAX].map(|index| items.place_from(index)), [0, 2, 3, 6, 6]);
}

#[test]
fn a_page_is_bounded_and_says_what_comes_next() {
    let mut bench = Bench::with("a", numbered(limits::PAGE + 50, 2));
    let view = *bench.page("a", 0).workflow.expect("an array");
    assert_eq!((view.steps.map(|s| s.len()), view.next_item), (Some(limits::PAGE), Some(limits::PAGE as u32)));
    let view = *bench.page("a", limits::PAGE as u32).workflow.expect("an array");
    assert_eq!((view.steps.map(|s| s.len()), view.next_item), (Some(50), None));
    let large = "x".repeat(limits::INLINE_BYTES - 10);
    bench.run_all(|_, _| Some(json!(large)));
    let view = *bench.page("a", 0).workflow.expect("an array");
    assert_eq!(view.next_item, Some(15), "256 KiB hold no more");
}

#[test]
fn an_owner_that_restarts_goes_on_where_it_was() {
    let mut bench = Bench::with("a", numbered(30, 4));
    for _ in 0..9 {
        let (task, fence, payload) = bench.runs.pop_front().expect("it runs");
        let report = Report { result: Data::Inline(payload["n"].to_string().into_bytes().into()), ..Report::default() };
        let event = Event::Ended { verdict: Verdict::Completed, report };
        let effects = bench.solo.feed(Input::Execution { task, fence, event });
        bench.see(&effects);
    }
    bench.cancel("a/25").expect("cancelled");
    let slots: Vec<_> = bench.solo.node.slots().cloned().collect();
    let disk = Disk { slots, boot: 1, ..Disk::default() };
    let mut again = Bench { solo: solo_with(Config::default(), disk), ..Bench::new() };
    let effects = again.solo.wait(Millis(10_000));
    again.see(&effects);
    again.run_all(echo);
    let effects = again.solo.wait(Millis(30_000));
    again.see(&effects);
    again.run_all(echo);
    let view = again.solo.view("a");
    assert_eq!(view.message.as_deref(), Some("of 30 items 1 cancelled, 29 completed"));
    assert_eq!(again.items("a", 8)[0], ("8".to_owned(), "completed".to_owned(), json!(8)));
}
