//! What the simulator itself knows of workflows: a small model of joins,
//! conditions and results, computed from the definition and from the ends that
//! majorities have. It shares no code with the core but the plain data.
//!
//! Definitions in the simulator name a step before those that depend on it, and
//! use the few forms of conditions and references that are read here.

use crate::arrays::indexes_of;
use crate::world::World;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use taskmesh_core::array::ARRAY;
use taskmesh_core::record::Birth;
use taskmesh_core::task::Data;
use taskmesh_core::view::Status;
use taskmesh_core::workflow::{APPROVE, Definition, Join, OnFailure, Step, WAIT, WORKFLOW};
use taskmesh_core::{NodeId, Record, Spec, TaskId};

/// What was seen of workflows.
#[derive(Default)]
pub(crate) struct Flows {
    shapes: BTreeMap<TaskId, Arc<Shape>>,
    /// The indexes of the items of each array.
    arrays: BTreeMap<TaskId, BTreeSet<u32>>,
    /// Every time that a step or an item was born.
    births: BTreeMap<TaskId, Vec<(Birth, Arc<Spec>)>>,
    /// Steps that wait, or waited, for a person.
    pub(crate) approvals: BTreeSet<TaskId>,
    /// Of these, those that somebody approved.
    pub(crate) approved: BTreeSet<TaskId>,
    waits: BTreeSet<TaskId>,
    /// Births of whole workflows and arrays: nodes that can't see each other may take one id
    /// twice, and then no promise covers the steps.
    taken: BTreeMap<TaskId, BTreeSet<Birth>>,
}

/// The definition of a workflow.
pub(crate) struct Shape {
    definition: Definition,
    undoing: BTreeSet<String>,
}

/// How a step stands, by what majorities know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stand {
    /// It waits or runs.
    Open,
    /// It completed.
    Well,
    /// It failed, was cancelled, or expired.
    Badly,
    /// It never begins.
    Skipped,
}

/// What the join of a step says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Met {
    Yes,
    NotYet,
    Never,
}

/// What the condition of a step says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Holds {
    Yes,
    No,
    /// A step that it asks after has not ended.
    NotYet,
    /// It asks after what is not there.
    Wrong,
}

impl Flows {
    /// The workflow that `task` is a step of, and which one of it.
    pub(crate) fn step(&self, task: &TaskId) -> Option<(TaskId, Arc<Shape>, usize)> {
        let (workflow, name) = task.as_str().rsplit_once('/')?;
        let workflow = TaskId::new(workflow).ok()?;
        let shape = self.shape(&workflow)?.clone();
        let n = shape.find(name)?;
        Some((workflow, shape, n))
    }

    /// The definition of a workflow.
    pub(crate) fn shape(&self, workflow: &TaskId) -> Option<&Arc<Shape>> {
        let root = workflow.as_str().split('/').next()?;
        self.shapes.get(workflow).filter(|_| !self.is_twice(root))
    }

    fn is_twice(&self, root: &str) -> bool {
        self.taken.get(root).is_some_and(|births| births.len() > 1)
    }

    /// The arrays, with the indexes of their items.
    pub(crate) fn arrays(&self) -> impl Iterator<Item = (&TaskId, &BTreeSet<u32>)> {
        self.arrays.iter().filter(|(array, _)| !self.is_twice(array.as_str()))
    }

    /// It is the record of one.
    pub(crate) fn is_array(&self, task: &TaskId) -> bool {
        self.arrays.contains_key(task)
    }

    /// The workflow or the array that `task` is a step or an item of.
    pub(crate) fn born_of(&self, task: &TaskId) -> Option<TaskId> {
        let (array, index) = task.as_str().rsplit_once('/')?;
        let indexes = self.arrays.get(array).filter(|_| !self.is_twice(array));
        let is_item = indexes.is_some_and(|indexes| index.parse().is_ok_and(|index: u32| indexes.contains(&index)));
        if is_item { TaskId::new(array).ok() } else { self.step(task).map(|(workflow, ..)| workflow) }
    }

    /// Every time that `step` was born.
    pub(crate) fn births(&self, step: &TaskId) -> &[(Birth, Arc<Spec>)] {
        self.births.get(step).map_or(&[], Vec::as_slice)
    }

    /// It is no program's: it completes without a run.
    pub(crate) fn runs_nowhere(&self, task: &TaskId) -> bool {
        self.shapes.contains_key(task)
            || self.is_array(task)
            || self.approvals.contains(task)
            || self.waits.contains(task)
    }
}

impl Shape {
    /// How many steps (or items) there are.
    pub(crate) fn len(&self) -> usize {
        self.definition.items.as_ref().map_or(self.definition.steps.len(), Vec::len)
    }

    /// Step (or item) `n`.
    pub(crate) fn step(&self, n: usize) -> &Step {
        if self.definition.items.is_some() { &self.definition.steps[0] } else { &self.definition.steps[n] }
    }

    /// Its name.
    pub(crate) fn name(&self, n: usize) -> String {
        if self.definition.items.is_some() { n.to_string() } else { self.step(n).step_id.clone() }
    }

    fn find(&self, name: &str) -> Option<usize> {
        (0..self.len()).find(|n| self.name(*n) == name)
    }

    fn parents(&self, n: usize) -> Vec<usize> {
        self.step(n).depends_on.iter().filter_map(|name| self.find(name)).collect()
    }

    /// It only undoes another.
    pub(crate) fn undoes(&self, n: usize) -> bool {
        self.undoing.contains(&self.name(n))
    }

    /// The step that undoes step `n`.
    pub(crate) fn undone_by(&self, n: usize) -> Option<usize> {
        match &self.step(n).on_failure {
            OnFailure::Compensate(name) if self.definition.items.is_none() => self.find(name),
            OnFailure::Compensate(_) | OnFailure::Fail | OnFailure::Continue => None,
        }
    }

    /// Whether the ends so far let step `n` begin.
    pub(crate) fn met(&self, n: usize, stands: &[Stand]) -> Met {
        let parents = self.parents(n);
        let went_on = |p: &&usize| match stands[**p] {
            Stand::Well => true,
            Stand::Badly => self.step(**p).on_failure == OnFailure::Continue,
            Stand::Open | Stand::Skipped => false,
        };
        let well = parents.iter().filter(went_on).count();
        let open = parents.iter().filter(|p| stands[**p] == Stand::Open).count();
        let wanted = match self.step(n).join {
            Join::Always if open == 0 => return Met::Yes,
            Join::Always => return Met::NotYet,
            Join::All => parents.len(),
            Join::Any => usize::from(!parents.is_empty()),
            Join::Quorum(quorum) => quorum as usize,
        };
        if well >= wanted {
            Met::Yes
        } else if well + open < wanted {
            Met::Never
        } else {
            Met::NotYet
        }
    }

    /// Whether a step has ended so that the workflow fails.
    pub(crate) fn fails(&self, stands: &[Stand]) -> bool {
        let fatal = |n: &usize| stands[*n] == Stand::Badly && self.step(*n).on_failure != OnFailure::Continue;
        (0..self.len()).any(|n| !self.undoes(n) && fatal(&n))
    }

    /// Whether everything has ended but what undoes.
    pub(crate) fn all_ended(&self, stands: &[Stand]) -> bool {
        (0..self.len()).all(|n| self.undoes(n) || stands[n] != Stand::Open)
    }
}

/// The task that step `n` of `workflow` is.
pub(crate) fn step_task(workflow: &TaskId, shape: &Shape, n: usize) -> TaskId {
    TaskId::new(&format!("{workflow}/{}", shape.name(n))).expect("short names")
}

impl World {
    /// A spec is written: it may be of a workflow or of a step.
    pub(crate) fn note_spec(&mut self, task: &TaskId, spec: &Spec) {
        let flows = &mut self.oracle.flows;
        match &*spec.task_type {
            WORKFLOW if !flows.shapes.contains_key(task) => {
                let definition: Definition = serde_json::from_slice(&spec.payload).expect("the core checked it");
                let undoing = definition.steps.iter().filter_map(|step| match &step.on_failure {
                    OnFailure::Compensate(name) => Some(name.clone()),
                    OnFailure::Fail | OnFailure::Continue => None,
                });
                let undoing = if definition.items.is_some() { BTreeSet::new() } else { undoing.collect() };
                flows.shapes.insert(task.clone(), Arc::new(Shape { definition, undoing }));
            }
            ARRAY => {
                flows.arrays.entry(task.clone()).or_insert_with(|| indexes_of(&spec.payload));
            }
            APPROVE => {
                flows.approvals.insert(task.clone());
            }
            WAIT => {
                flows.waits.insert(task.clone());
            }
            _ => {}
        }
    }

    /// A record is written: it may be the birth of a step. (Its spec is on the
    /// disk by then.)
    pub(crate) fn note_birth(&mut self, n: usize, record: &Record) {
        if !is_birth(n, record) {
            return;
        }
        let flows = &mut self.oracle.flows;
        let leads = flows.shapes.contains_key(&record.task) || flows.is_array(&record.task);
        if leads && !record.task.as_str().contains('/') {
            flows.taken.entry(record.task.clone()).or_default().insert(record.birth);
        }
        let Some(parent) = flows.born_of(&record.task) else { return };
        let is_item = flows.is_array(&parent);
        let spec = self.hosts[n].disk.specs[&record.task].clone();
        let births = self.oracle.flows.births.entry(record.task.clone()).or_default();
        if births.iter().all(|(birth, _)| *birth != record.birth) {
            births.push((record.birth, spec));
            *(if is_item { &mut self.tally.items } else { &mut self.tally.steps }) += 1;
        }
    }

    /// How every step of `workflow` stands.
    pub(crate) fn stands(&self, workflow: &TaskId, shape: &Shape) -> Vec<Stand> {
        let mut stands = vec![Stand::Open; shape.len()];
        for n in 0..shape.len() {
            let task = step_task(workflow, shape, n);
            stands[n] = match self.status_of(&task) {
                Some(Status::Completed) => Stand::Well,
                Some(_) => Stand::Badly,
                None if shape.undoes(n) || !self.oracle.flows.births(&task).is_empty() => Stand::Open,
                None => self.stand_of_unborn(workflow, shape, n, &stands),
            };
        }
        stands
    }

    fn stand_of_unborn(&self, workflow: &TaskId, shape: &Shape, n: usize, stands: &[Stand]) -> Stand {
        match (shape.met(n, stands), self.holds(workflow, shape, n, stands)) {
            (Met::Never, _) | (Met::Yes, Holds::No) => Stand::Skipped,
            (Met::Yes, Holds::Wrong) => Stand::Badly,
            (Met::NotYet, _) | (Met::Yes, Holds::Yes | Holds::NotYet) => Stand::Open,
        }
    }

    /// How a task ended, by what a majority knows.
    fn status_of(&self, task: &TaskId) -> Option<Status> {
        let decided = &self.oracle.promises.get(task)?.decided;
        let well = decided.iter().find(|(_, ending)| ending.status == Status::Completed);
        well.or(decided.first()).map(|(_, ending)| ending.status)
    }

    /// Whether the condition of step `n` holds.
    pub(crate) fn holds(&self, workflow: &TaskId, shape: &Shape, n: usize, stands: &[Stand]) -> Holds {
        let Some(text) = &shape.step(n).when else { return Holds::Yes };
        let words: Vec<&str> = text.split([' ', '.']).collect();
        let of = shape.find(words[1]).expect("conditions name steps");
        if stands[of] == Stand::Open {
            return Holds::NotYet;
        }
        let holds = if words[2] == "status" {
            stands[of] == Stand::Well
        } else {
            let left = self.left_by(&step_task(workflow, shape, of));
            let Some(number) = left.get("n").and_then(Value::as_u64) else { return Holds::Wrong };
            number > words[5].parse::<u64>().expect("a number")
        };
        if holds { Holds::Yes } else { Holds::No }
    }

    /// What a step left: null unless it completed.
    pub(crate) fn left_by(&self, task: &TaskId) -> Value {
        let decided = self.oracle.promises.get(task).into_iter().flat_map(|p| &p.decided);
        let mut well = decided.filter(|(_, ending)| ending.status == Status::Completed);
        match well.next().and_then(|(_, ending)| ending.result.as_ref()) {
            Some(Data::Inline(text)) => serde_json::from_slice(text).expect("JSON"),
            Some(Data::Blob { hash, bytes }) => {
                json!({"$blob": hash.to_string(), "bytes": bytes, "uri": format!("mesh://blobs/{hash}")})
            }
            None => Value::Null,
        }
    }

    /// What a workflow that completed must have left.
    pub(crate) fn whole_result(&self, workflow: &TaskId, shape: &Shape) -> Value {
        let left = |n: usize| self.left_by(&step_task(workflow, shape, n));
        if shape.definition.items.is_some() {
            return (0..shape.len()).map(left).collect();
        }
        let inner: BTreeSet<usize> = (0..shape.len()).flat_map(|n| shape.parents(n)).collect();
        let last = (0..shape.len()).filter(|n| !inner.contains(n) && !shape.undoes(*n));
        Value::Object(last.map(|n| (shape.name(n), left(n))).collect::<Map<_, _>>())
    }

    /// What the reference in the field `of` of the inputs of step `n` stands for;
    /// `None`: there is none.
    pub(crate) fn handed_to(&self, workflow: &TaskId, shape: &Shape, n: usize) -> Option<Value> {
        let text = shape.step(n).inputs.get("of")?.as_str()?.strip_prefix("${")?.strip_suffix('}')?;
        let parts: Vec<&str> = text.split('.').collect();
        Some(match parts[..] {
            ["item"] => shape.definition.items.as_ref()?[n].clone(),
            ["params", name] => shape.definition.params[name].clone(),
            ["steps", step, "result"] => self.left_by(&step_task(workflow, shape, shape.find(step)?)),
            ["steps", step, "result", field] => {
                self.left_by(&step_task(workflow, shape, shape.find(step)?))[field].clone()
            }
            _ => return None,
        })
    }
}

/// The first version of a record, on the node that made it.
pub(crate) fn is_birth(n: usize, record: &Record) -> bool {
    let me = NodeId::test(n as u64);
    record.birth.node == me && record.stamp.ballot.epoch == 1 && record.stamp.revision == 0
}
