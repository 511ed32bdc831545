//! Workflows on a node alone: what needs no second node to show.

use crate::command::{Command, Query, Request, Submission};
use crate::effect::{Disk, Effect, Input};
use crate::execution::{Event, Verdict};
use crate::task::{Data, Priority, Report, Spec};
use crate::testing::{Solo, solo, solo_with, spec};
use crate::time::{Millis, Unix};
use crate::view::{Reply, Status, TaskView, WorkflowView};
use crate::workflow::WORKFLOW;
use crate::{BlobHash, Config, Fence, Refusal, TaskId, limits};
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

fn id(name: &str) -> TaskId {
    TaskId::new(name).expect("a valid id")
}

pub(crate) fn workflow(steps: Value) -> Spec {
    of(json!({"name": "w", "steps": steps}))
}

fn of(definition: Value) -> Spec {
    Spec { task_type: WORKFLOW.into(), payload: definition.to_string().into_bytes().into(), ..spec() }
}

/// A node, and the runs that it ordered and nobody ended yet.
pub(crate) struct Bench {
    solo: Solo,
    runs: VecDeque<(TaskId, Fence, Value)>,
    begun: Vec<String>,
    blobs: BTreeMap<BlobHash, Arc<[u8]>>,
}

impl Bench {
    pub(crate) fn new() -> Bench {
        Bench { solo: solo(Config::default()), runs: VecDeque::new(), begun: Vec::new(), blobs: BTreeMap::new() }
    }

    fn see(&mut self, effects: &[Effect]) {
        for effect in effects {
            if let Effect::Run { task, fence, spec, .. } = effect {
                self.begun.push(task.as_str().to_owned());
                let payload = serde_json::from_slice(&spec.payload).expect("JSON");
                self.runs.push_back((task.clone(), *fence, payload));
            }
            if let Effect::ReadBlob(hash) = effect {
                let content = self.blobs.get(hash).cloned();
                let effects = self.solo.feed(Input::BlobRead { hash: *hash, content });
                self.see(&effects);
            }
        }
    }

    pub(crate) fn submit(&mut self, name: &str, spec: Spec) -> Result<Reply, Refusal> {
        let (effects, reply) = self.solo.submit(name, spec);
        self.see(&effects);
        reply.expect("answered at once")
    }

    pub(crate) fn wait(&mut self, span: Millis) {
        let effects = self.solo.wait(span);
        self.see(&effects);
    }

    fn ask(&mut self, command: Command) -> Result<Reply, Refusal> {
        let (effects, reply) = self.solo.ask(Request::Command(command));
        self.see(&effects);
        reply.expect("answered at once")
    }

    pub(crate) fn end(&mut self, name: &str, verdict: Verdict, result: &Value) {
        let at = self.runs.iter().position(|(task, _, _)| task.as_str() == name);
        let (task, fence, _) = self.runs.remove(at.unwrap_or_else(|| panic!("{name} does not run"))).expect("there");
        let report = Report { result: Data::Inline(result.to_string().into_bytes().into()), ..Report::default() };
        self.report(task, fence, verdict, report);
    }

    fn report(&mut self, task: TaskId, fence: Fence, verdict: Verdict, report: Report) {
        let effects = self.solo.feed(Input::Execution { task, fence, event: Event::Ended { verdict, report } });
        self.see(&effects);
    }

    /// In the record, or beside it.
    fn data(&mut self, content: &[u8]) -> Data {
        if content.len() <= limits::INLINE_BYTES {
            return Data::Inline(content.into());
        }
        let hash = BlobHash::of(content);
        self.blobs.insert(hash, content.into());
        Data::Blob { hash, bytes: content.len() as u64 }
    }

    /// Ends the first run with this standard output, and gives its payload.
    fn print(&mut self, name: &str, output: &[u8]) -> Value {
        let (task, fence, payload) = self.runs.pop_front().expect("something runs");
        assert_eq!(task.as_str(), name);
        let output = Some(self.data(output));
        self.report(task, fence, Verdict::Completed, Report { output, ..Report::default() });
        payload
    }

    /// Ends every run with what `program` makes of its payload; `None` fails it.
    fn run_all(&mut self, program: impl Fn(&str, &Value) -> Option<Value>) {
        while let Some((task, _, payload)) = self.runs.front().cloned() {
            match program(task.as_str(), &payload) {
                Some(result) => self.end(task.as_str(), Verdict::Completed, &result),
                None => self.fail(task.as_str()),
            }
        }
    }

    fn fail(&mut self, name: &str) {
        self.end(name, Verdict::Failed { error: "broken".into(), retryable: false }, &Value::Null);
    }

    pub(crate) fn view(&mut self, name: &str) -> (TaskView, WorkflowView) {
        let view = self.solo.view(name);
        let workflow = view.workflow.clone().expect("a workflow");
        (view, *workflow)
    }

    /// The steps as `name status`, in the order of writing.
    fn steps(&mut self, name: &str) -> Vec<String> {
        let steps = self.view(name).1.steps.expect("asked for");
        steps.iter().map(|s| format!("{} {}", s.step, s.status)).collect()
    }

    fn result(&mut self, name: &str) -> Value {
        let report = self.solo.view(name).report.expect("ended");
        let Data::Inline(text) = report.result else { panic!("a blob") };
        serde_json::from_slice(&text).expect("JSON")
    }
}

fn echo(_: &str, payload: &Value) -> Option<Value> {
    Some(payload.clone())
}

#[test]
fn steps_run_in_order_and_hand_on_what_they_left_with_its_type() {
    let mut bench = Bench::new();
    let steps = json!([
        {"step_id": "load", "action": "echo", "inputs": {"rows": [1, 2, 3]}},
        {"step_id": "left", "action": "echo", "inputs": {"of": "${steps.load.result.rows}"}, "depends_on": ["load"]},
        {"step_id": "right", "action": "echo", "inputs": {"say": "${steps.load.result.rows[1]} of ${workflow.id}"}, "depends_on": ["load"]},
        {"step_id": "both", "action": "echo", "inputs": {"l": "${steps.left.result}", "r": "${steps.right.result.say}"},
         "depends_on": ["left", "right"]},
    ]);
    bench.submit("w", workflow(steps)).expect("taken");
    assert_eq!(bench.begun, ["w/load"]);
    assert_eq!(bench.steps("w"), ["load leased", "left waiting", "right waiting", "both waiting"]);
    assert_eq!(bench.view("w").0.status, Status::Running);
    bench.run_all(echo);
    assert_eq!(bench.begun, ["w/load", "w/left", "w/right", "w/both"]);
    assert_eq!(bench.view("w").0.status, Status::Completed);
    assert_eq!(bench.result("w"), json!({"both": {"l": {"of": [1, 2, 3]}, "r": "2 of w"}}));
    let view = bench.view("w").1;
    assert_eq!(view.tasks, (4, 4));
    assert_eq!(view.critical_path.len(), 3);
}

#[test]
fn a_failure_skips_what_depends_on_it_and_nothing_else() {
    let mut bench = Bench::new();
    let steps = json!([
        {"step_id": "bad", "action": "echo"},
        {"step_id": "after", "action": "echo", "depends_on": ["bad"]},
        {"step_id": "later", "action": "echo", "depends_on": ["after"]},
        {"step_id": "other", "action": "echo"},
        {"step_id": "last", "action": "echo", "depends_on": ["other", "later"], "join": "always"},
    ]);
    bench.submit("w", workflow(steps)).expect("taken");
    bench.run_all(|task, _| (task != "w/bad").then(|| json!(1)));
    assert_eq!(bench.steps("w"), ["bad failed", "after skipped", "later skipped", "other completed", "last completed"]);
    let (view, workflow) = bench.view("w");
    assert_eq!((view.status, view.error.as_deref()), (Status::Failed, Some("step bad failed: broken")));
    let why = workflow.steps.expect("asked for")[2].error.clone().expect("a reason");
    assert!(why.contains("after is skipped"), "{why}");
}

#[test]
fn joins_wait_for_as_many_as_they_say() {
    for (join, begins_after) in [("any", 1), ("quorum:2", 2), ("all", 3), ("always", 3)] {
        let mut bench = Bench::new();
        let steps = json!([
            {"step_id": "a", "action": "echo"}, {"step_id": "b", "action": "echo"}, {"step_id": "c", "action": "echo"},
            {"step_id": "d", "action": "echo", "depends_on": ["a", "b", "c"], "join": join},
        ]);
        bench.submit("w", workflow(steps)).expect("taken");
        for (n, step) in ["w/a", "w/b", "w/c"].into_iter().enumerate() {
            assert_eq!(bench.steps("w")[3] != "d waiting", n >= begins_after, "{join} after {n}");
            bench.end(step, Verdict::Completed, &json!(n));
        }
        assert!(bench.begun.contains(&"w/d".to_owned()), "{join}");
    }
}

#[test]
fn a_join_that_can_not_be_met_is_skipped_at_once() {
    let mut bench = Bench::new();
    let steps = json!([
        {"step_id": "a", "action": "echo", "on_failure": "continue"},
        {"step_id": "b", "action": "echo", "on_failure": "fail"},
        {"step_id": "any", "action": "echo", "depends_on": ["a", "b"], "join": "any",
         "inputs": {"a": "${steps.a.result.x}", "why": "${steps.a.error}", "how": "${steps.b.status}"}},
        {"step_id": "two", "action": "echo", "depends_on": ["a", "b"], "join": "quorum:2"},
    ]);
    bench.submit("w", workflow(steps)).expect("taken");
    bench.fail("w/b");
    assert_eq!(bench.steps("w")[3], "two skipped");
    bench.fail("w/a");
    assert_eq!(bench.runs[0].2, json!({"a": null, "why": "broken", "how": "failed"}));
    bench.run_all(echo);
    assert_eq!(bench.view("w").0.error.as_deref(), Some("step b failed: broken"));
}

#[test]
fn a_condition_skips_or_runs_and_one_that_can_not_be_told_fails() {
    let mut bench = Bench::new();
    let steps = json!([
        {"step_id": "a", "action": "echo", "inputs": {"n": 3}},
        {"step_id": "yes", "action": "echo", "depends_on": ["a"], "when": "steps.a.result.n > params.limit"},
        {"step_id": "no", "action": "echo", "depends_on": ["a"], "when": "steps.a.result.n > 3"},
        {"step_id": "odd", "action": "echo", "depends_on": ["a"], "when": "steps.a.result.m > 3"},
    ]);
    bench.submit("w", of(json!({"name": "w", "params": {"limit": 2}, "steps": steps}))).expect("taken");
    bench.run_all(echo);
    assert_eq!(bench.steps("w"), ["a completed", "yes completed", "no skipped", "odd failed"]);
}

#[test]
fn for_each_runs_one_task_for_each_item_and_keeps_their_order() {
    let mut bench = Bench::new();
    let steps = json!([
        {"step_id": "list", "action": "echo", "inputs": {"files": ["b", "${params.x}", "a"]}},
        {"step_id": "each", "action": "echo", "depends_on": ["list"], "for_each": "${steps.list.result.files}",
         "inputs": {"file": "${item}", "n": "${index}", "all": "${steps.list.result.files}"}, "max_concurrent": 2},
        {"step_id": "sum", "action": "echo", "depends_on": ["each"], "inputs": {"of": "${steps.each.result}"}},
        {"step_id": "none", "action": "echo", "for_each": []},
    ]);
    bench.submit("w", of(json!({"name": "w", "params": {"x": "${item}"}, "steps": steps}))).expect("taken");
    bench.end("w/list", Verdict::Completed, &json!({"files": ["b", "${item}", "a"]}));
    assert_eq!(bench.begun, ["w/list", "w/each/0", "w/each/1"]);
    assert_eq!(bench.view("w").1.tasks, (1 + 3 + 1, 1));
    bench.run_all(|task, payload| {
        Some(if task == "w/sum" { payload.clone() } else { json!([payload["file"], payload["n"]]) })
    });
    assert_eq!(bench.result("w"), json!({"sum": {"of": [["b", 0], ["${item}", 1], ["a", 2]]}, "none": []}));
    assert_eq!(bench.view("w/each").1.tasks, (3, 3));
}

#[test]
fn what_a_step_printed_is_handed_on_as_a_shell_would() {
    let mut bench = Bench::new();
    let steps = json!([
        {"step_id": "list", "action": "echo"},
        {"step_id": "each", "action": "echo", "depends_on": ["list"], "for_each": "${steps.list.output}",
         "inputs": {"line": "${item}"}, "max_concurrent": 1},
        {"step_id": "json", "action": "echo", "depends_on": ["each"], "inputs": {"all": "${steps.each.output}"}},
        {"step_id": "look", "action": "echo", "depends_on": ["json", "skipped"], "join": "any", "when": "steps.list.output == 'b c\\na'",
         "inputs": {"n": "${steps.json.output.n}", "text": "${steps.json.output}", "none": "${steps.skipped.output}"}},
        {"step_id": "skipped", "action": "echo", "when": "steps.list.output == ''", "depends_on": ["list"]},
        {"step_id": "wrong", "action": "echo", "depends_on": ["list"], "inputs": {"n": "${steps.list.output.n}"}},
    ]);
    bench.submit("w", workflow(steps)).expect("taken");
    bench.print("w/list", b"b c\na\n\n");
    assert_eq!(bench.print("w/each/0", b"1\n"), json!({"line": "b c"}));
    assert_eq!(bench.print("w/each/1", b"2\r\n"), json!({"line": "a"}));
    assert_eq!(bench.print("w/json", b"{\"n\": [7]}\n"), json!({"all": ["1", "2"]}));
    assert_eq!(bench.print("w/look", b"\xff"), json!({"n": [7], "text": "{\"n\": [7]}", "none": null}));
    let ends =
        ["list completed", "each completed", "json completed", "look completed", "skipped skipped", "wrong failed"];
    assert_eq!(bench.steps("w"), ends);
}

#[test]
fn large_content_is_looked_into_when_a_step_needs_that() {
    let mut bench = Bench::new();
    let steps = json!([
        {"step_id": "list", "action": "echo"},
        {"step_id": "lines", "action": "echo", "depends_on": ["list"], "for_each": "${steps.list.output}",
         "inputs": {"line": "${item}"}, "max_concurrent": 1},
        {"step_id": "json", "action": "echo", "depends_on": ["list"]},
        {"step_id": "look", "action": "echo", "depends_on": ["json"], "when": "steps.json.output != ''",
         "inputs": {"last": "${steps.json.output[9999]}", "whole": "${steps.json.output}"}},
        {"step_id": "huge", "action": "echo", "depends_on": ["json"]},
        {"step_id": "never", "action": "echo", "depends_on": ["huge"], "for_each": "${steps.huge.output}"},
    ]);
    bench.submit("w", workflow(steps)).expect("taken");
    let list: String = (0..9_999).map(|n| format!("{n}\n")).collect();
    bench.print("w/list", list.as_bytes());
    assert_eq!(bench.view("w").1.tasks.0, 9_999 + 5);
    let at = bench.runs.iter().position(|(task, _, _)| task.as_str() == "w/json").expect("it runs");
    bench.runs.swap(0, at);
    let numbers = json!((0..10_000).collect::<Vec<_>>()).to_string();
    bench.print("w/json", numbers.as_bytes());
    bench.runs.retain(|(task, _, _)| !task.as_str().starts_with("w/lines/"));
    let content = vec![b'x'; limits::PAYLOAD_BYTES + 1];
    bench.print("w/huge", &content);
    let look = bench.print("w/look", b"");
    assert_eq!(look["last"], 9999);
    assert_eq!(look["whole"]["$blob"], BlobHash::of(numbers.as_bytes()).to_string());
    assert!(bench.steps("w").contains(&"never failed".to_owned()));
}

#[test]
fn what_failed_is_undone_in_reverse_order() {
    let mut bench = Bench::new();
    let steps = json!([
        {"step_id": "a", "action": "echo", "on_failure": "compensate:undo-a"},
        {"step_id": "b", "action": "echo", "depends_on": ["a"], "on_failure": "compensate:undo-b"},
        {"step_id": "c", "action": "echo", "depends_on": ["b"]},
        {"step_id": "d", "action": "echo", "depends_on": ["c"], "on_failure": "compensate:undo-d"},
        {"step_id": "undo-a", "action": "echo", "inputs": {"of": "${steps.a.result}"}},
        {"step_id": "undo-b", "action": "echo"},
        {"step_id": "undo-d", "action": "echo"},
    ]);
    bench.submit("w", workflow(steps.clone())).expect("taken");
    bench.run_all(|task, _| (task != "w/c").then(|| json!(task)));
    assert_eq!(bench.begun, ["w/a", "w/b", "w/c", "w/undo-b", "w/undo-a"]);
    assert_eq!(bench.view("w").0.status, Status::Failed);
    assert_eq!(bench.steps("w")[6], "undo-d skipped");
    bench.submit("v", workflow(steps)).expect("taken");
    bench.run_all(echo);
    assert_eq!(bench.view("v").0.status, Status::Completed);
    assert_eq!(bench.steps("v")[4..], ["undo-a skipped", "undo-b skipped", "undo-d skipped"]);
}

#[test]
fn a_wait_is_over_when_its_time_has_come() {
    let mut bench = Bench::new();
    let steps = json!([
        {"step_id": "w", "action": "wait", "inputs": {"seconds": 600}},
        {"step_id": "until", "action": "wait", "inputs": {"until": "2023-11-14T22:13:21Z"}},
        {"step_id": "after", "action": "echo", "depends_on": ["w", "until"]},
    ]);
    bench.submit("w", workflow(steps)).expect("taken");
    bench.wait(Millis(599_000));
    assert_eq!(bench.steps("w"), ["w delayed", "until completed", "after waiting"]);
    bench.wait(Millis(2_000));
    assert_eq!(bench.begun, ["w/after"]);
}

#[test]
fn an_approval_is_waited_for_and_given_or_not() {
    for (approved, status) in [(true, Status::Completed), (false, Status::Failed)] {
        let mut bench = Bench::new();
        let steps = json!([
            {"step_id": "ok", "action": "approve", "inputs": {"message": "Ship it?"}},
            {"step_id": "ship", "action": "echo", "depends_on": ["ok"], "inputs": {"by": "${steps.ok.result.by}"}},
        ]);
        bench.submit("w", workflow(steps)).expect("taken");
        bench.wait(Millis(10_000));
        assert_eq!(bench.steps("w"), ["ok input_required", "ship waiting"]);
        let content = br#"{"by": "ann"}"#.as_slice().into();
        let word = Command::Approve { task: id("w/ok"), approved, content };
        assert!(matches!(bench.ask(word.clone()), Ok(Reply::Approved { .. })));
        assert!(matches!(bench.ask(word), Err(Refusal::State { .. })));
        bench.run_all(|_, payload| (*payload == json!({"by": "ann"})).then(|| json!(1)));
        assert_eq!(bench.view("w").0.status, status);
    }
}

#[test]
fn a_workflow_may_be_a_step_and_is_given_what_earlier_steps_left() {
    let mut bench = Bench::new();
    let inner = json!({"name": "inner", "steps": [
        {"step_id": "x", "action": "echo", "inputs": {"v": "${params.v}"}},
        {"step_id": "y", "action": "echo", "inputs": {"v": "${steps.x.result.v}"}, "depends_on": ["x"]},
    ]});
    let steps = json!([
        {"step_id": "a", "action": "echo", "inputs": {"v": [1]}},
        {"step_id": "b", "action": "workflow", "depends_on": ["a"],
         "inputs": {"definition": inner, "params": {"v": "${steps.a.result.v}"}}},
        {"step_id": "c", "action": "echo", "depends_on": ["b"], "inputs": {"got": "${steps.b.result.y.v}"}},
        {"step_id": "d", "action": "workflow", "for_each": [1, 2], "depends_on": ["a"],
         "inputs": {"definition": inner, "params": {"v": "${item}"}}},
    ]);
    bench.submit("w", workflow(steps)).expect("taken");
    bench.run_all(echo);
    let got = bench.result("w");
    assert_eq!(got, json!({"c": {"got": [1]}, "d": [{"y": {"v": 1}}, {"y": {"v": 2}}]}));
    assert_eq!(bench.view("w").1.tasks, (1 + 2 + 1 + 4, 8));
}

#[test]
fn a_cancelled_workflow_stops_what_waits_and_what_runs() {
    let mut bench = Bench::new();
    let steps = json!([
        {"step_id": "a", "action": "echo"}, {"step_id": "b", "action": "echo"}, {"step_id": "c", "action": "echo"},
        {"step_id": "d", "action": "echo", "depends_on": ["a"]}, {"step_id": "e", "action": "wait", "inputs": {"seconds": 9}},
    ]);
    bench.submit("w", workflow(steps)).expect("taken");
    let (effects, reply) =
        bench.solo.ask(Request::Command(Command::Cancel { task: id("w"), reason: None, force: true }));
    assert!(matches!(reply, Some(Ok(Reply::Cancelled { status: Status::Cancelled, .. }))));
    let stopped = effects.iter().filter(|e| matches!(e, Effect::Stop { force: true, .. })).count();
    assert_eq!(stopped, 2, "{effects:?}");
    bench.see(&effects);
    for name in ["w/a", "w/b"] {
        bench.end(name, Verdict::Stopped, &Value::Null);
    }
    let all = ["a cancelled", "b cancelled", "c cancelled", "d skipped", "e cancelled"];
    assert_eq!(bench.steps("w"), all);
}

#[test]
fn a_workflow_waits_for_those_that_it_depends_on() {
    let mut bench = Bench::new();
    let step = json!([{"step_id": "a", "action": "echo"}]);
    bench.submit("later", Spec { depends_on: vec![id("first")], ..workflow(step.clone()) }).expect("taken");
    bench.submit("never", Spec { depends_on: vec![id("second")], ..workflow(step.clone()) }).expect("taken");
    assert!(bench.begun.is_empty());
    bench.submit("first", workflow(step.clone())).expect("taken");
    bench.submit("second", workflow(step)).expect("taken");
    bench.wait(Millis(2_000));
    bench.run_all(|task, _| (task != "second/a").then(|| json!(1)));
    bench.wait(Millis(2_000));
    bench.run_all(echo);
    assert_eq!(bench.view("later").0.status, Status::Completed);
    assert_eq!(bench.view("never").0.status, Status::Cancelled);
    assert_eq!(bench.view("never").1.started_at, None);
}

#[test]
fn a_deadline_ends_a_workflow_with_all_its_steps() {
    let mut bench = Bench::new();
    let deadline = Some(Unix(1_700_000_000_000 + 5_000));
    let steps = json!([{"step_id": "a", "action": "wait", "inputs": {"seconds": 60}}, {"step_id": "b", "action": "echo", "depends_on": ["a"]}]);
    bench.submit("w", Spec { deadline, ..workflow(steps) }).expect("taken");
    bench.wait(Millis(6_000));
    assert_eq!(bench.view("w").0.status, Status::Expired);
    assert_eq!(bench.steps("w"), ["a cancelled", "b skipped"]);
}

#[test]
fn steps_are_kept_as_long_as_their_workflow_and_go_with_it() {
    let mut bench = Bench { solo: solo(Config { retention: Millis(60_000), ..Config::default() }), ..Bench::new() };
    let steps = json!([
        {"step_id": "a", "action": "echo"},
        {"step_id": "b", "action": "wait", "inputs": {"seconds": 300}, "depends_on": ["a"]},
        {"step_id": "c", "action": "echo", "depends_on": ["b"], "inputs": {"a": "${steps.a.result}"}},
    ]);
    bench.submit("w", workflow(steps)).expect("taken");
    bench.run_all(|_, _| Some(json!("kept")));
    bench.wait(Millis(301_000));
    assert_eq!(bench.runs[0].2, json!({"a": "kept"}));
    bench.run_all(echo);
    bench.wait(Millis(120_000));
    assert_eq!(bench.solo.node.slots().count(), 0);
}

#[test]
fn a_large_result_is_put_together_from_the_steps() {
    let mut bench = Bench::new();
    let items: Vec<_> = (0..40).collect();
    let steps = json!([
        {"step_id": "each", "action": "echo", "for_each": items},
        {"step_id": "all", "action": "echo", "depends_on": ["each"], "inputs": {"of": "${steps.each.result}"}},
    ]);
    bench.submit("w", workflow(steps)).expect("taken");
    bench.run_all(|task, payload| {
        Some(if task == "w/all" { json!(payload["of"].as_array().map(Vec::len)) } else { json!("x".repeat(1_000)) })
    });
    assert_eq!(bench.result("w"), json!({"all": 40}));
}

#[test]
fn a_step_is_no_task_of_its_own() {
    let mut bench = Bench::new();
    bench.submit("w", workflow(json!([{"step_id": "a", "action": "echo"}]))).expect("taken");
    assert!(matches!(bench.submit("w/b", spec()), Err(Refusal::Conflict { .. })));
    for task_type in ["wait", "approve"] {
        let refused = bench.submit("x", Spec { task_type: task_type.into(), ..spec() });
        assert!(matches!(refused, Err(Refusal::Invalid { .. })), "{refused:?}");
    }
    bench.submit("v/a", spec()).expect("a task");
    assert!(matches!(
        bench.submit("v", workflow(json!([{"step_id": "a", "action": "echo"}]))),
        Err(Refusal::Conflict { .. })
    ));
    bench.fail("w/a");
    let retry = Command::Retry { task: id("w/a"), max_retries: None, timeout: None };
    assert!(matches!(bench.ask(retry), Err(Refusal::State { .. })));
    let retry = Command::Retry { task: id("w"), max_retries: None, timeout: None };
    assert!(matches!(bench.ask(retry), Ok(Reply::Retried { .. })));
    assert!(bench.begun.contains(&"w-retry-1/a".to_owned()));
}

#[test]
fn every_bad_definition_is_refused_and_leaves_nothing() {
    let a = json!({"step_id": "a", "action": "echo"});
    let with = |more: Value| {
        let mut step = json!({"step_id": "b", "action": "echo"});
        for (key, value) in more.as_object().expect("an object") {
            step[key] = value.clone();
        }
        json!([a, step])
    };
    let cases: Vec<(Value, &str, &str)> = vec![
        (json!([]), "steps", "at least one"),
        (json!([a, a]), "steps[1].step_id", "taken by steps[0]"),
        (with(json!({"step_id": "b c"})), "steps[1].step_id", "1 to 64"),
        (with(json!({"step_id": ""})), "steps[1].step_id", "1 to 64"),
        (with(json!({"action": ""})), "steps[1].action", "1 to 256"),
        (with(json!({"action": "nonsense"})), "steps[1].action", "unknown"),
        (with(json!({"depends_on": ["x"]})), "steps[1].depends_on", "no step"),
        (with(json!({"depends_on": ["a", "a"]})), "steps[1].depends_on", "twice"),
        (with(json!({"depends_on": ["b"]})), "steps[1].depends_on", "b -> b"),
        (with(json!({"depends_on": ["a"], "join": "quorum:2"})), "steps[1].join", "can't be reached"),
        (with(json!({"join": "most"})), "steps", "all, any"),
        (with(json!({"on_failure": "ignore"})), "steps", "fail, continue"),
        (with(json!({"on_failure": "compensate:x"})), "steps[1].on_failure", "no step"),
        (with(json!({"on_failure": "compensate:a", "depends_on": ["a"]})), "steps[1].depends_on", "undoes another"),
        (with(json!({"when": "steps.a ="})), "steps[1].when", ""),
        (with(json!({"when": "[1].all(x, x > 0)"})), "steps[1].when", "loop"),
        (with(json!({"inputs": [1]})), "steps[1].inputs", "an object"),
        (with(json!({"inputs": {"x": "${steps.a.result}"}})), "steps[1].inputs", "depends_on"),
        (with(json!({"inputs": {"x": "${steps.z.result}"}})), "steps[1].inputs", "no step"),
        (with(json!({"inputs": {"x": "${item}"}})), "steps[1].inputs", "for_each"),
        (with(json!({"inputs": {"x": "${nothing}"}})), "steps[1].inputs", "starts with none"),
        (with(json!({"for_each": 3})), "steps[1].for_each", "an array"),
        (with(json!({"for_each": ["${item}"]})), "steps[1].for_each", "before the items"),
        (with(json!({"for_each": [], "max_concurrent": 0})), "max_concurrent", "at least 1"),
        (with(json!({"action": "wait"})), "steps[1].inputs", "seconds or until"),
        (with(json!({"action": "wait", "inputs": {"seconds": -1}})), "steps[1].inputs", "0 to"),
        (with(json!({"action": "wait", "inputs": {"until": "soon"}})), "steps[1].inputs", "RFC 3339"),
        (with(json!({"action": "approve", "inputs": {"message": 1}})), "steps[1].inputs.message", "text"),
        (with(json!({"action": "workflow"})), "steps[1].inputs.definition", ""),
        (
            with(json!({"action": "workflow", "inputs": {"definition": {"name": "x", "steps": []}}})),
            "steps[1].inputs.definition.steps",
            "at least one",
        ),
        (with(json!({"more": 1})), "steps", "unknown field"),
    ];
    let mut bench = Bench::new();
    for (steps, field, problem) in cases {
        match bench.submit("w", workflow(steps.clone())) {
            Err(Refusal::Invalid { field: f, problem: p }) => {
                assert!(*f == *field && p.contains(problem), "{steps}: {f}: {p}");
            }
            other => panic!("{steps}: {other:?}"),
        }
    }
    let cycle = json!([
        {"step_id": "a", "action": "echo", "depends_on": ["c"]}, {"step_id": "b", "action": "echo", "depends_on": ["a"]},
        {"step_id": "c", "action": "echo", "depends_on": ["b"]},
    ]);
    let refused = bench.submit("w", workflow(cycle)).expect_err("a cycle").to_string();
    assert!(refused.contains("a -> c -> b -> a"), "{refused}");
    let many: Vec<_> =
        (0..=crate::limits::STEPS).map(|n| json!({"step_id": format!("s{n}"), "action": "echo"})).collect();
    assert!(bench.submit("w", workflow(json!(many))).is_err());
    assert_eq!(bench.solo.node.slots().count(), 0);
}

#[test]
fn a_dry_run_says_where_each_step_could_run() {
    let mut bench = Bench::new();
    let needs = json!({"capabilities": ["rare"]});
    let steps = json!([{"step_id": "a", "action": "echo"}, {"step_id": "b", "action": "echo", "requirements": needs}]);
    let query = Query::Foresee(workflow(steps).payload);
    let (_, reply) = bench.solo.ask(Request::Query(query));
    let Some(Ok(Reply::Foreseen(steps))) = reply else { panic!("{reply:?}") };
    assert_eq!((steps[0].nodes.len(), steps[1].nodes.len()), (1, 0));
    assert!(steps[1].reason.as_ref().is_some_and(|r| r.contains("rare")), "{:?}", steps[1]);
    assert_eq!(bench.solo.node.slots().count(), 0);
}

#[test]
fn ten_thousand_steps_begin_in_portions() {
    let mut bench = Bench::new();
    let steps: Vec<_> =
        (0..3_000).map(|n| json!({"step_id": format!("s{n}"), "action": "wait", "inputs": {"seconds": 0}})).collect();
    let submission =
        Submission { task: Some(id("w")), spec: workflow(json!(steps)), priority: Priority::NORMAL, items: Vec::new() };
    bench.ask(Command::Submit(Box::new(submission))).expect("taken");
    assert_eq!(bench.solo.node.slots().count(), 1 + crate::limits::RELEASES);
    bench.wait(Millis(5_000));
    assert_eq!(bench.view("w").0.status, Status::Completed);
}

#[test]
fn a_condition_waits_for_what_it_asks_after_and_holds_up_no_other_step() {
    let mut bench = Bench::new();
    let steps = json!([
        {"step_id": "a", "action": "echo"}, {"step_id": "b", "action": "echo"},
        {"step_id": "c", "action": "echo", "depends_on": ["a", "b"], "join": "any", "when": "steps.b.result > 1"},
        {"step_id": "d", "action": "echo", "depends_on": ["a"], "inputs": {"of": "${steps.a.result}"}},
        {"step_id": "e", "action": "echo", "depends_on": ["a", "b"], "join": "any", "for_each": "${steps.b.result}"},
    ]);
    bench.submit("w", workflow(steps)).expect("taken");
    bench.end("w/a", Verdict::Completed, &json!(1));
    assert_eq!(bench.steps("w")[2..], ["c waiting", "d leased", "e waiting"]);
    bench.end("w/b", Verdict::Completed, &json!(2));
    assert_eq!(bench.steps("w")[2..], ["c leased", "d leased", "e failed"]);
    let kept = bench.solo.node.slot(&id("w/e")).expect("an end that is kept");
    assert!(kept.record.closed(), "its list was a number: {:?}", kept.record.body.state);
}

#[test]
fn an_owner_that_restarts_alone_goes_on_where_it_was() {
    let mut bench = Bench::new();
    let steps = json!([{"step_id": "a", "action": "echo"}, {"step_id": "b", "action": "echo", "depends_on": ["a"]}]);
    bench.submit("w", workflow(steps)).expect("taken");
    let slots: Vec<_> = bench.solo.node.slots().cloned().collect();
    let disk = Disk { slots, boot: 1, ..Disk::default() };
    let mut again = Bench { solo: solo_with(Config::default(), disk), ..Bench::new() };
    for _ in 0..3 {
        again.wait(Millis(10_000));
        again.run_all(|_, _| Some(json!(1)));
    }
    assert_eq!(again.begun, ["w/a", "w/b"]);
    assert_eq!(again.view("w").0.status, Status::Completed);
}
