//! Workflows of every shape, and what clients do with them: submit, approve,
//! look at the steps, cancel.

use crate::agenda::Event;
use crate::executor::Program;
use crate::oracle::Asked;
use crate::workload::{Act, plain_spec};
use crate::world::{EPOCH, World};
use serde_json::{Value, json};
use std::sync::Arc;
use taskmesh_core::command::{Detail, Submission};
use taskmesh_core::task::{Priority, RetryPolicy};
use taskmesh_core::workflow::{APPROVE, Definition, Join, OnFailure, Step, WAIT, WORKFLOW};
use taskmesh_core::{Command, Millis, Query, Request, Spec, TaskId, Unix};

/// How steps wait for each other.
#[derive(Clone, Copy)]
enum Graph {
    Chain,
    /// One, then all the others, then one.
    Fan,
    /// Up to three of the earlier ones.
    Any,
}

/// What can be asked of a step's result.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leaves {
    /// Fields `n` and `rows`.
    Fields,
    /// Something else.
    Something,
}

impl World {
    /// Submits a workflow somewhere, now and then twice, and plans what else its
    /// client does with it.
    pub(crate) fn submit_some_workflow(&mut self) {
        let Some(n) = self.any_up() else { return };
        let work = self.number();
        let id = TaskId::new(&format!("w{work}")).expect("a valid name");
        let mut spec = workflow_spec(&self.any_definition(0));
        if self.prng.chance(80) {
            spec.deadline = Some(Unix(EPOCH + self.now + self.prng.below(60_000)));
        }
        if self.prng.chance(150) && !self.faults.short_retention && !self.faults.clears {
            spec.depends_on.extend(self.any_accepted());
        }
        spec.exclusive = self.prng.chance(100);
        if self.prng.chance(100) {
            spec.fairness_key = Some("user2".into());
        }
        let priority = Priority::new((1 + self.prng.below(16)) as f64 / 4.0).expect("above 0");
        let submission = Submission { task: Some(id.clone()), spec, priority, items: Vec::new() };
        self.tally.workflows += 1;
        if self.prng.chance(150) {
            self.submit_twice(n, submission, work);
        } else {
            self.submit(n, submission, work);
        }
        if self.prng.chance(100) {
            let force = self.prng.chance(300);
            let cancel = Command::CancelWorkflow { task: id.clone(), reason: None, force };
            self.ask_later(Request::Command(cancel));
        }
        if self.prng.chance(500) {
            let detail = Detail { report: true, live: true, explain: true, steps: true, items: None, spec: false };
            self.ask_later(Request::Query(Query::Task { task: id, detail, wait: Millis(0) }));
        }
    }

    /// Asks somewhere, within 20 s.
    pub(crate) fn ask_later(&mut self, request: Request) {
        let at = self.now + self.prng.below(20_000);
        self.agenda.at(at, Event::Act(Act::Ask(Box::new(request))));
    }

    /// A person answers one of the steps that wait for it.
    pub(crate) fn approve_some(&mut self) {
        let open: Vec<_> = self.open_approvals();
        if open.is_empty() {
            return;
        }
        let step = open[self.prng.below(open.len() as u64) as usize].clone();
        let approved = self.prng.chance(850);
        self.approve(step, approved);
    }

    /// Somebody answers every one of them.
    pub(crate) fn approve_everything(&mut self) {
        for step in self.open_approvals() {
            self.approve(step, true);
        }
    }

    fn open_approvals(&self) -> Vec<TaskId> {
        let asked = self.oracle.flows.approvals.iter();
        let open = |step: &&TaskId| self.oracle.promises.get(*step).is_none_or(|p| p.decided.is_empty());
        asked.filter(open).cloned().collect()
    }

    fn approve(&mut self, task: TaskId, approved: bool) {
        let Some(n) = self.any_up() else { return };
        self.tally.approvals += 1;
        if approved {
            self.oracle.flows.approved.insert(task.clone());
        }
        let content = json!({"n": self.prng.below(10), "rows": self.any_rows()}).to_string().into_bytes().into();
        self.ask(n, Request::Command(Command::Approve { task, approved, content }), Asked::Other);
    }

    fn any_rows(&mut self) -> Vec<u64> {
        (0..self.prng.below(5)).map(|_| self.prng.below(10)).collect()
    }

    fn any_definition(&mut self, depth: u64) -> Definition {
        let graph = [Graph::Chain, Graph::Fan, Graph::Any, Graph::Any][self.prng.below(4) as usize];
        let count = 1 + self.prng.below(if depth == 0 { 7 } else { 3 }) as usize;
        let mut steps: Vec<Step> = Vec::new();
        let mut leaves: Vec<Leaves> = Vec::new();
        for n in 0..count {
            let parents = self.any_parents(graph, n, count);
            let (step, left) = self.any_step(n, &parents, &leaves, depth);
            steps.push(step);
            leaves.push(left);
        }
        for n in 0..count {
            if steps[n].on_failure == OnFailure::Compensate(undoing(n)) {
                let mut step = Step::new(&undoing(n), "echo");
                step.inputs = self.any_inputs(None);
                step.retry = RETRY;
                steps.push(step);
            }
        }
        Definition {
            name: "any".to_owned(),
            params: if depth > 0 { json!({"x": depth}) } else { Value::Null },
            steps,
            items: None,
            max_concurrent: self.prng.chance(200).then(|| 1 + self.prng.below(3) as u32),
        }
    }

    fn any_parents(&mut self, graph: Graph, n: usize, count: usize) -> Vec<usize> {
        match graph {
            _ if n == 0 => Vec::new(),
            Graph::Chain => vec![n - 1],
            Graph::Fan if n + 1 == count && n > 1 => (1..n).collect(),
            Graph::Fan => vec![0],
            Graph::Any => {
                let mut parents: Vec<usize> =
                    (0..self.prng.below(4)).map(|_| self.prng.below(n as u64) as usize).collect();
                parents.sort_unstable();
                parents.dedup();
                parents
            }
        }
    }

    fn any_step(&mut self, n: usize, parents: &[usize], leaves: &[Leaves], depth: u64) -> (Step, Leaves) {
        let parent = (!parents.is_empty()).then(|| parents[self.prng.below(parents.len() as u64) as usize]);
        let earlier = parent.map(|p| (format!("s{p}"), leaves[p]));
        let (mut step, left) = self.any_action(n, earlier.as_ref(), depth);
        step.depends_on = parents.iter().map(|p| format!("s{p}")).collect();
        step.join = match self.prng.below(10) {
            0 | 1 if !parents.is_empty() => Join::Any,
            2 if !parents.is_empty() => Join::Quorum(1 + self.prng.below(parents.len() as u64) as u32),
            3 => Join::Always,
            _ => Join::All,
        };
        if let Some((earlier, left)) = &earlier
            && self.prng.chance(200)
        {
            let above = self.prng.below(6);
            step.when = Some(match left {
                Leaves::Fields if above < 5 => format!("steps.{earlier}.result.n > {above}"),
                Leaves::Fields | Leaves::Something => format!("steps.{earlier}.status == 'completed'"),
            });
        }
        step.on_failure = match self.prng.below(10) {
            0..3 => OnFailure::Continue,
            3 => OnFailure::Compensate(undoing(n)),
            _ => OnFailure::Fail,
        };
        step.retry = RETRY;
        (step, left)
    }

    fn any_action(&mut self, n: usize, earlier: Option<&(String, Leaves)>, depth: u64) -> (Step, Leaves) {
        let name = format!("s{n}");
        match self.prng.below(20) {
            0 => {
                let mut step = Step::new(&name, WAIT);
                step.inputs = json!({"seconds": self.prng.below(4_000) as f64 / 1_000.0});
                (step, Leaves::Something)
            }
            1 => (Step::new(&name, APPROVE), Leaves::Fields),
            2 | 3 if depth < 2 => {
                let mut step = Step::new(&name, WORKFLOW);
                let definition = serde_json::to_value(self.any_definition(depth + 1)).expect("plain data");
                let x = earlier.map_or(json!(n), |(step, _)| json!(format!("${{steps.{step}.result}}")));
                step.inputs = json!({"definition": definition, "params": {"x": x}});
                (step, Leaves::Something)
            }
            4 | 5 => {
                let mut step = Step::new(&name, "echo");
                step.for_each = Some(match earlier {
                    Some((step, Leaves::Fields)) => json!(format!("${{steps.{step}.result.rows}}")),
                    Some((_, Leaves::Something)) | None => json!(self.any_rows()),
                });
                step.inputs = self.any_inputs(Some("${item}".to_owned()));
                step.max_concurrent = self.prng.chance(300).then(|| 1 + self.prng.below(2) as u32);
                (step, Leaves::Something)
            }
            kind => {
                let mut step = Step::new(&name, if kind == 6 { "sleep" } else { "echo" });
                let of = match earlier {
                    Some((step, Leaves::Fields)) => Some(format!("${{steps.{step}.result.n}}")),
                    Some((step, Leaves::Something)) => Some(format!("${{steps.{step}.result}}")),
                    None if depth > 0 => Some("${params.x}".to_owned()),
                    None => None,
                };
                step.inputs = self.any_inputs(of);
                let blob = step.inputs["leaves"] == "blob";
                (step, if blob { Leaves::Something } else { Leaves::Fields })
            }
        }
    }

    fn any_inputs(&mut self, of: Option<String>) -> Value {
        let program = match self.prng.below(20) {
            0 => Program::Bad,
            1 => Program::Hopeless,
            2..5 => Program::Flaky,
            _ => Program::Good,
        };
        let cost = 10 + self.prng.below(100) * self.prng.below(15);
        let leaves = if self.faults.blobs && self.prng.chance(100) { "blob" } else { "inline" };
        let mut inputs = json!({"program": program.name(), "cost": cost, "leaves": leaves});
        if let Some(of) = of {
            inputs["of"] = json!(of);
        }
        inputs
    }
}

/// The name of the step that undoes step `n`.
fn undoing(n: usize) -> String {
    format!("u{n}")
}

/// The record of a workflow.
pub(crate) fn workflow_spec(definition: &Definition) -> Spec {
    let payload = serde_json::to_vec(definition).expect("plain data");
    Spec { task_type: WORKFLOW.into(), payload: Arc::from(payload), ..plain_spec(Program::Good, 0, false) }
}

const RETRY: RetryPolicy = RetryPolicy {
    max_retries: 2,
    backoff_factor: 2.0,
    initial_delay: Millis(200),
    max_delay: Millis(2_000),
    jitter: true,
};
