//! A definition that was checked as a whole, with its graph.

use super::reference::{self, Reference, Root};
use super::{APPROVE, Definition, Join, OnFailure, Step, WAIT, WORKFLOW, condition};
use crate::limits;
use crate::time::{Millis, Unix};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A checked definition and its graph. Steps are named by their place in the
/// definition.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What was checked.
    pub definition: Definition,
    by_id: BTreeMap<String, usize>,
    /// What each step depends on.
    parents: Vec<Vec<usize>>,
    /// What depends on each step.
    children: Vec<Vec<usize>>,
    /// Steps from the longest way to a root, itself included; 0: an undoing step.
    depths: Vec<u32>,
    /// Steps that only undo others.
    undoing: BTreeSet<usize>,
}

/// What is wrong with a definition, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct Invalid {
    /// The place: `steps[3].depends_on`.
    pub field: String,
    /// What is wrong, and with whom.
    pub problem: String,
}

fn invalid(field: impl Into<String>, problem: impl Into<String>) -> Invalid {
    Invalid { field: field.into(), problem: problem.into() }
}

impl Plan {
    /// Reads the payload of a workflow's record.
    ///
    /// # Errors
    /// It is no definition, or one that is not right.
    pub fn read(payload: &[u8]) -> Result<Plan, Invalid> {
        let definition = serde_json::from_slice(payload).map_err(|e| invalid("steps", e.to_string()))?;
        Plan::new(definition)
    }

    /// Checks a definition.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn new(definition: Definition) -> Result<Plan, Invalid> {
        Plan::nested(definition, 0)
    }

    fn nested(definition: Definition, depth: usize) -> Result<Plan, Invalid> {
        check_whole(&definition, depth)?;
        let by_id = index(&definition.steps)?;
        let parents = parents(&definition.steps, &by_id)?;
        let undoing = undoing(&definition.steps, &by_id, &parents)?;
        let mut children = vec![Vec::new(); parents.len()];
        for (step, of) in parents.iter().enumerate() {
            of.iter().for_each(|parent: &usize| children[*parent].push(step));
        }
        let depths = vec![0; parents.len()];
        let mut plan = Plan { definition, by_id, parents, children, depths, undoing };
        plan.measure()?;
        for n in 0..plan.definition.steps.len() {
            plan.check_step(n, depth)?;
        }
        Ok(plan)
    }

    /// Depths, by taking away steps without open dependencies (Kahn:
    /// "Topological sorting of large networks", 1962). What is left has a cycle.
    fn measure(&mut self) -> Result<(), Invalid> {
        let mut open: Vec<usize> = self.parents.iter().map(Vec::len).collect();
        let mut ready: VecDeque<usize> = (0..open.len()).filter(|n| open[*n] == 0).collect();
        while let Some(step) = ready.pop_front() {
            let above = self.parents[step].iter().map(|p| self.depths[*p]).max().unwrap_or(0);
            self.depths[step] = above + 1;
            for child in &self.children[step] {
                open[*child] -= 1;
                if open[*child] == 0 {
                    ready.push_back(*child);
                }
            }
        }
        let Some(stuck) = open.iter().position(|n| *n > 0) else {
            self.undoing.iter().for_each(|n| self.depths[*n] = 0);
            return Ok(());
        };
        let (first, cycle) = self.cycle_from(stuck, &open);
        Err(invalid(format!("steps[{first}].depends_on"), format!("is a cycle: {cycle}")))
    }

    /// A cycle above `stuck`: each step that is left has a dependency that is.
    fn cycle_from(&self, stuck: usize, open: &[usize]) -> (usize, String) {
        let (mut way, mut here) = (Vec::new(), stuck);
        while !way.contains(&here) {
            way.push(here);
            here = self.parents[here].iter().copied().find(|p| open[*p] > 0).unwrap_or(here);
        }
        let from = way.iter().position(|n| *n == here).unwrap_or(0);
        let named: Vec<_> = way[from..].iter().chain([&here]).map(|n| self.id(*n)).collect();
        let shown = if named.len() > 12 { format!("{} -> …", named[..11].join(" -> ")) } else { named.join(" -> ") };
        (here, shown)
    }

    fn check_step(&self, n: usize, depth: usize) -> Result<(), Invalid> {
        let step = &self.definition.steps[n];
        let at = |field: &str| format!("steps[{n}].{field}");
        if !step.inputs.is_object() {
            return Err(invalid(at("inputs"), "must be an object"));
        }
        if let Some(condition) = &step.when {
            condition::check(condition).map_err(|e| invalid(at("when"), e))?;
        }
        for (field, value) in [("inputs", Some(&step.inputs)), ("for_each", step.for_each.as_ref())] {
            let Some(value) = value.filter(|_| field == "for_each" || step.action != WORKFLOW) else { continue };
            self.check_references(n, field, value)?;
        }
        if let Some(Value::Array(items)) = &step.for_each
            && items.len() > limits::ITEMS
        {
            return Err(invalid(at("for_each"), format!("has {} items; the limit is {}", items.len(), limits::ITEMS)));
        }
        let refers = |v: &Value| v.is_string() && reference::references(v).is_ok_and(|found| !found.is_empty());
        if step.for_each.as_ref().is_some_and(|v| !v.is_array() && !refers(v)) {
            return Err(invalid(at("for_each"), "must be an array, or a reference to one"));
        }
        match step.action.as_str() {
            WORKFLOW => self.check_inner(n, depth),
            WAIT => check_wait(&step.inputs).map_err(|e| invalid(at("inputs"), e)),
            APPROVE if step.inputs.get("message").is_some_and(|m| !m.is_string()) => {
                Err(invalid(at("inputs.message"), "must be a text"))
            }
            _ => Ok(()),
        }
    }

    /// A step that is a workflow: its definition is known, but for its `params`.
    fn check_inner(&self, n: usize, depth: usize) -> Result<(), Invalid> {
        let inputs = &self.definition.steps[n].inputs;
        let at = format!("steps[{n}].inputs");
        if let Some(params) = inputs.get("params") {
            self.check_references(n, "inputs.params", params)?;
        }
        let known = ["definition", "params"];
        if let Some(other) = inputs.as_object().and_then(|o| o.keys().find(|k| !known.contains(&k.as_str()))) {
            return Err(invalid(format!("{at}.{other}"), "is unknown; a workflow as a step has definition and params"));
        }
        let definition = inputs.get("definition").cloned().unwrap_or(Value::Null);
        let within = |e: Invalid| invalid(format!("{at}.definition.{}", e.field), e.problem);
        let inner =
            serde_json::from_value(definition).map_err(|e| invalid(format!("{at}.definition"), e.to_string()))?;
        Plan::nested(inner, depth + 1).map(|_| ()).map_err(within)
    }

    fn check_references(&self, n: usize, field: &str, value: &Value) -> Result<(), Invalid> {
        let step = &self.definition.steps[n];
        let at = format!("steps[{n}].{field}");
        for reference in reference::references(value).map_err(|e| invalid(at.clone(), e))? {
            let problem = match &reference.root {
                Root::Item | Root::Index if step.for_each.is_none() && self.definition.items.is_none() => {
                    Some("is known in a step with for_each alone".to_owned())
                }
                Root::Item | Root::Index if field == "for_each" => Some("is not known before the items are".to_owned()),
                _ => reference.step().and_then(|id| self.unreachable(n, id)),
            };
            if let Some(problem) = problem {
                return Err(invalid(at, format!("${{{reference}}} {problem}")));
            }
        }
        Ok(())
    }

    /// Whether step `n` comes after the step `id`, or undoes it.
    #[must_use]
    pub fn follows(&self, n: usize, id: &str) -> bool {
        self.definition.items.is_none() && self.unreachable(n, id).is_none()
    }

    /// Why step `n` can't refer to the step `id`, if it can't.
    fn unreachable(&self, n: usize, id: &str) -> Option<String> {
        let Some(wanted) = self.by_id.get(id).copied() else {
            return Some("names no step of this workflow".to_owned());
        };
        // An undoing step runs after all others.
        if self.undoing.contains(&n) && !self.undoing.contains(&wanted) {
            return None;
        }
        let (mut seen, mut left) = (BTreeSet::new(), self.parents[n].clone());
        while let Some(parent) = left.pop() {
            if parent == wanted {
                return None;
            }
            if self.depths[parent] > self.depths[wanted] && seen.insert(parent) {
                left.extend(&self.parents[parent]);
            }
        }
        Some(format!("is not known before {} runs: add {id} to its depends_on", self.id(n)))
    }

    /// How many steps (or items) there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.definition.items.as_ref().map_or(self.definition.steps.len(), Vec::len)
    }

    /// There is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The definition of step (or item) `n`.
    #[must_use]
    pub fn step(&self, n: usize) -> &Step {
        if self.definition.items.is_some() { &self.definition.steps[0] } else { &self.definition.steps[n] }
    }

    /// The name of step (or item) `n` within the workflow.
    #[must_use]
    pub fn name(&self, n: usize) -> String {
        if self.definition.items.is_some() { n.to_string() } else { self.id(n).to_owned() }
    }

    fn id(&self, n: usize) -> &str {
        &self.definition.steps[n].step_id
    }

    /// The step (or item) with this name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<usize> {
        match &self.definition.items {
            // One spelling for each: `07` is none.
            Some(items) => name.parse().ok().filter(|n: &usize| *n < items.len() && n.to_string() == name),
            None => self.by_id.get(name).copied(),
        }
    }

    /// What step `n` depends on.
    #[must_use]
    pub fn parents(&self, n: usize) -> &[usize] {
        self.parents.get(n).filter(|_| self.definition.items.is_none()).map_or(&[], Vec::as_slice)
    }

    /// What depends on step `n`.
    #[must_use]
    pub fn children(&self, n: usize) -> &[usize] {
        self.children.get(n).filter(|_| self.definition.items.is_none()).map_or(&[], Vec::as_slice)
    }

    /// Whether step `n` only undoes another.
    #[must_use]
    pub fn undoes(&self, n: usize) -> bool {
        self.definition.items.is_none() && self.undoing.contains(&n)
    }

    /// The step that undoes step `n`, if there is one.
    #[must_use]
    pub fn undone_by(&self, n: usize) -> Option<usize> {
        match &self.step(n).on_failure {
            OnFailure::Compensate(step) if self.definition.items.is_none() => self.by_id.get(step).copied(),
            OnFailure::Compensate(_) | OnFailure::Fail | OnFailure::Continue => None,
        }
    }

    /// Steps by level: each level waits for the one before.
    #[must_use]
    pub fn levels(&self) -> Vec<Vec<String>> {
        if self.definition.items.is_some() {
            return vec![(0..self.len()).map(|n| n.to_string()).collect()];
        }
        let deepest = self.depths.iter().max().copied().unwrap_or(0) as usize;
        let mut levels = vec![Vec::new(); deepest];
        for (n, depth) in self.depths.iter().enumerate().filter(|(_, depth)| **depth > 0) {
            levels[*depth as usize - 1].push(self.id(n).to_owned());
        }
        levels
    }

    /// The way through the graph that takes longest, where each step takes
    /// `weight`; ties by the order of writing.
    #[must_use]
    pub fn critical_path(&self, weight: &dyn Fn(usize) -> u64) -> Vec<String> {
        if self.definition.items.is_some() {
            let longest = (0..self.len()).max_by_key(|n| (weight(*n), std::cmp::Reverse(*n)));
            return longest.map(|n| vec![n.to_string()]).unwrap_or_default();
        }
        let mut order: Vec<usize> = (0..self.parents.len()).filter(|n| !self.undoing.contains(n)).collect();
        order.sort_by_key(|n| self.depths[*n]);
        let mut longest: Vec<(u64, Option<usize>)> = vec![(0, None); self.parents.len()];
        for n in &order {
            let before = self.parents[*n].iter().max_by_key(|p| (longest[**p].0, std::cmp::Reverse(**p))).copied();
            longest[*n] = (before.map_or(0, |p| longest[p].0).saturating_add(weight(*n)), before);
        }
        let mut here = order.into_iter().max_by_key(|n| (longest[*n].0, std::cmp::Reverse(*n)));
        let mut path = Vec::new();
        while let Some(n) = here {
            path.push(self.id(n).to_owned());
            here = longest[n].1;
        }
        path.reverse();
        path
    }

    /// Every action that it needs, those of inner workflows as well, with where.
    #[must_use]
    pub fn actions(&self) -> Vec<(String, &Step)> {
        self.definition.steps.iter().enumerate().map(|(n, step)| (format!("steps[{n}].action"), step)).collect()
    }

    /// The definitions of the workflows that are steps of it.
    pub fn inner(&self) -> impl Iterator<Item = Plan> + '_ {
        let inner = self.definition.steps.iter().filter(|s| s.action == WORKFLOW);
        inner.filter_map(|s| Plan::new(serde_json::from_value(s.inputs.get("definition")?.clone()).ok()?).ok())
    }

    /// What a reference of step `n` needs beside earlier steps.
    pub(crate) fn item(&self, n: usize) -> Option<&Value> {
        self.definition.items.as_ref().and_then(|items| items.get(n))
    }

    /// Whether `reference` is known when a `for_each` step is laid out.
    pub(crate) fn known_before_items(reference: &Reference) -> bool {
        !matches!(reference.root, Root::Item | Root::Index)
    }
}

fn check_whole(definition: &Definition, depth: usize) -> Result<(), Invalid> {
    let steps = &definition.steps;
    if depth > limits::NESTED_WORKFLOWS {
        return Err(invalid("steps", format!("workflows in workflows, more than {} deep", limits::NESTED_WORKFLOWS)));
    }
    if definition.name.is_empty() || definition.name.len() > limits::TEXT_BYTES {
        return Err(invalid("name", format!("must have 1 to {} bytes", limits::TEXT_BYTES)));
    }
    if steps.is_empty() {
        return Err(invalid("steps", "must have at least one step"));
    }
    if steps.len() > limits::STEPS {
        return Err(invalid("steps", format!("has {} steps; the limit is {}", steps.len(), limits::STEPS)));
    }
    if definition.items.is_some() && steps.len() != 1 {
        return Err(invalid("items", "goes with one step"));
    }
    if !definition.params.is_null() && !definition.params.is_object() {
        return Err(invalid("params", "must be an object"));
    }
    if definition.max_concurrent == Some(0) || steps.iter().any(|s| s.max_concurrent == Some(0)) {
        return Err(invalid("max_concurrent", "must be at least 1"));
    }
    Ok(())
}

fn index(steps: &[Step]) -> Result<BTreeMap<String, usize>, Invalid> {
    let mut by_id = BTreeMap::new();
    for (n, step) in steps.iter().enumerate() {
        let id = &step.step_id;
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if id.is_empty() || id.len() > limits::STEP_ID_BYTES || !id.chars().all(plain) {
            let problem = format!("must be 1 to {} of A-Z a-z 0-9 _ -", limits::STEP_ID_BYTES);
            return Err(invalid(format!("steps[{n}].step_id"), problem));
        }
        if step.action.is_empty() || step.action.len() > limits::TEXT_BYTES {
            let problem = format!("must have 1 to {} bytes", limits::TEXT_BYTES);
            return Err(invalid(format!("steps[{n}].action"), problem));
        }
        if let Some(first) = by_id.insert(id.clone(), n) {
            return Err(invalid(format!("steps[{n}].step_id"), format!("{id} is taken by steps[{first}]")));
        }
    }
    Ok(by_id)
}

fn parents(steps: &[Step], by_id: &BTreeMap<String, usize>) -> Result<Vec<Vec<usize>>, Invalid> {
    let mut all = Vec::new();
    for (n, step) in steps.iter().enumerate() {
        let mut parents = Vec::new();
        for id in &step.depends_on {
            let at = format!("steps[{n}].depends_on");
            let Some(parent) = by_id.get(id) else {
                return Err(invalid(at, format!("{id} is no step of this workflow")));
            };
            if parents.contains(parent) {
                return Err(invalid(at, format!("names {id} twice")));
            }
            parents.push(*parent);
        }
        if let Join::Quorum(quorum) = step.join
            && quorum as usize > parents.len()
        {
            let problem = format!("quorum:{quorum} of {} steps can't be reached", parents.len());
            return Err(invalid(format!("steps[{n}].join"), problem));
        }
        all.push(parents);
    }
    Ok(all)
}

fn undoing(
    steps: &[Step],
    by_id: &BTreeMap<String, usize>,
    parents: &[Vec<usize>],
) -> Result<BTreeSet<usize>, Invalid> {
    let mut undoing = BTreeSet::new();
    for (n, step) in steps.iter().enumerate() {
        let OnFailure::Compensate(id) = &step.on_failure else { continue };
        let at = format!("steps[{n}].on_failure");
        let Some(other) = by_id.get(id) else { return Err(invalid(at, format!("{id} is no step of this workflow"))) };
        if !undoing.insert(*other) {
            return Err(invalid(at, format!("{id} undoes another step already")));
        }
    }
    for n in &undoing {
        let step = &steps[*n];
        if !step.depends_on.is_empty() || matches!(step.on_failure, OnFailure::Compensate(_)) {
            let problem = "undoes another step: it depends on nothing and is not undone itself";
            return Err(invalid(format!("steps[{n}]"), problem));
        }
        if let Some(other) = parents.iter().position(|of| of.contains(n)) {
            let problem = format!("{} undoes another step, and runs after all others", step.step_id);
            return Err(invalid(format!("steps[{other}].depends_on"), problem));
        }
    }
    Ok(undoing)
}

fn check_wait(inputs: &Value) -> Result<(), String> {
    if reference::references(inputs).is_ok_and(|found| !found.is_empty()) {
        return Ok(());
    }
    wait_until(inputs, Unix(0)).map(|_| ())
}

/// When a `wait` step that begins `now` is over.
///
/// # Errors
/// Its inputs are not `seconds` or `until`.
pub(crate) fn wait_until(inputs: &Value, now: Unix) -> Result<Unix, String> {
    match (inputs.get("seconds"), inputs.get("until")) {
        (Some(seconds), None) => match seconds.as_f64() {
            Some(seconds) if (0.0..=YEAR_S).contains(&seconds) => Ok(now + Millis((seconds * 1000.0) as u64)),
            Some(_) | None => Err(format!("seconds must be a number from 0 to {YEAR_S}")),
        },
        (None, Some(until)) => {
            let time = until.as_str().and_then(|text| chrono::DateTime::parse_from_rfc3339(text).ok());
            let time = time.and_then(|time| u64::try_from(time.timestamp_millis()).ok());
            time.map(Unix).ok_or_else(|| "until must be a time as in RFC 3339".to_owned())
        }
        (Some(_), Some(_)) | (None, None) => Err("a wait has either seconds or until".to_owned()),
    }
}

/// The longest wait, in seconds.
const YEAR_S: f64 = 31_622_400.0;
