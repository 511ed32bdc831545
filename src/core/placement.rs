//! What a worker must be for a task, and which of those that have room gets it.
//!
//! Among workers with room: the one that the task's `affinity_key` points at,
//! else those that hold most of its inputs, else as its [`Placement`] says. All
//! of that is preference; whether a worker is feasible is `lack`.

use crate::command::WorkerSpec;
use crate::ids::{NodeId, TaskId, WorkerId};
use crate::limits;
use crate::node::Node;
use crate::prng::{Prng, mix};
use crate::queue::offers;
use crate::task::{Requirements, Resources, Spec};
use crate::template::clip;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Which of the workers with room is preferred.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Placement {
    /// The better of two drawn by chance (Mitzenmacher: "The power of two
    /// choices in randomized load balancing", 2001).
    #[default]
    Balance,
    /// The emptiest.
    Spread,
    /// The fullest, so that others stay free for large tasks.
    Pack,
}

/// A condition on one label of a worker.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Condition {
    /// Which label.
    pub label: Arc<str>,
    /// What must hold of it.
    pub test: Test,
}

/// What must hold of a label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Test {
    /// It is one of these.
    In(Vec<Arc<str>>),
    /// It is none of these, or not there.
    NotIn(Vec<Arc<str>>),
    /// It is there.
    Exists,
    /// It is not there.
    Missing,
}

/// One way to meet requirements that have several.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Alternative {
    /// As in [`Requirements`].
    pub capabilities: Vec<Arc<str>>,
    /// As in [`Requirements`].
    pub labels: BTreeMap<Arc<str>, Arc<str>>,
    /// As in [`Requirements`].
    pub selector: Vec<Condition>,
    /// Beside those of the requirements themselves.
    pub resources: Resources,
}

impl Condition {
    /// Reads a selector as Kubernetes writes them: conditions with commas
    /// between: `zone=a`, `zone!=a`, `zone in (a,b)`, `zone notin (a,b)`, `gpu`
    /// (it exists), `!gpu`.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub fn read_all(text: &str) -> Result<Vec<Condition>, String> {
        let mut conditions = Vec::new();
        let mut rest = text.trim();
        while !rest.is_empty() {
            let end = end_of_condition(rest);
            conditions.push(Condition::read(rest[..end].trim())?);
            let Some(more) = rest.get(end + 1..) else { break };
            rest = more.trim();
            if rest.is_empty() {
                return Err("ends with a comma".to_owned());
            }
        }
        if conditions.len() > limits::ATTRIBUTES {
            return Err(format!("has {} conditions; at most {} are allowed", conditions.len(), limits::ATTRIBUTES));
        }
        Ok(conditions)
    }

    fn read(text: &str) -> Result<Condition, String> {
        if let Some(label) = text.strip_prefix('!') {
            return Ok(Condition { label: word(label)?, test: Test::Missing });
        }
        if let Some((label, value)) = text.split_once("!=") {
            return Ok(Condition { label: word(label)?, test: Test::NotIn(vec![word(value)?]) });
        }
        if let Some((label, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
            return Ok(Condition { label: word(label)?, test: Test::In(vec![word(value)?]) });
        }
        let Some((head, list)) = text.split_once('(') else {
            return Ok(Condition { label: word(text)?, test: Test::Exists });
        };
        let list =
            list.strip_suffix(')').ok_or_else(|| format!("has {:?} without its closing parenthesis", clip(text)))?;
        let values = list.split(',').map(word).collect::<Result<Vec<_>, _>>()?;
        if values.len() > limits::ATTRIBUTES {
            return Err(format!("has a list of {}; at most {} are allowed", values.len(), limits::ATTRIBUTES));
        }
        match head.trim().rsplit_once(char::is_whitespace) {
            Some((label, "in")) => Ok(Condition { label: word(label)?, test: Test::In(values) }),
            Some((label, "notin")) => Ok(Condition { label: word(label)?, test: Test::NotIn(values) }),
            Some(_) | None => Err(format!("has {:?}; a list follows `in` or `notin`", clip(text))),
        }
    }

    /// Why a worker with these labels does not meet it.
    fn unmet(&self, labels: &BTreeMap<Arc<str>, Arc<str>>) -> Option<String> {
        let label = &self.label;
        match (&self.test, labels.get(label)) {
            (Test::In(these), Some(has)) => {
                (!these.contains(has)).then(|| format!("label {label} is {has}, not {}", these.join(" or ")))
            }
            (Test::NotIn(these), Some(has)) => {
                these.contains(has).then(|| format!("label {label} is {has}, which is excluded"))
            }
            (Test::In(_) | Test::Exists, None) => Some(format!("has no label {label}")),
            (Test::Missing, Some(_)) => Some(format!("has a label {label}")),
            (Test::NotIn(_) | Test::Missing, None) | (Test::Exists, Some(_)) => None,
        }
    }

    /// About what it takes in a message.
    pub(crate) fn bytes(&self) -> usize {
        let values = match &self.test {
            Test::In(these) | Test::NotIn(these) => these.iter().map(|v| v.len() + 4).sum(),
            Test::Exists | Test::Missing => 0,
        };
        self.label.len() + values + 12
    }
}

/// As [`Condition::read_all`] reads it.
impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let label = &self.label;
        match &self.test {
            Test::In(these) => write!(f, "{label} in ({})", these.join(",")),
            Test::NotIn(these) => write!(f, "{label} notin ({})", these.join(",")),
            Test::Exists => f.write_str(label),
            Test::Missing => write!(f, "!{label}"),
        }
    }
}

/// The first comma outside parentheses, or the end.
fn end_of_condition(text: &str) -> usize {
    let mut inside = false;
    for (at, c) in text.char_indices() {
        match c {
            '(' => inside = true,
            ')' => inside = false,
            ',' if !inside => return at,
            _ => {}
        }
    }
    text.len()
}

fn word(text: &str) -> Result<Arc<str>, String> {
    let text = text.trim();
    let plain = |c: char| !c.is_whitespace() && !matches!(c, '(' | ')' | ',' | '=' | '!');
    if text.is_empty() || text.len() > limits::TEXT_BYTES || !text.chars().all(plain) {
        return Err(format!("has {:?} where a name or value of 1 to {} bytes belongs", clip(text), limits::TEXT_BYTES));
    }
    Ok(text.into())
}

/// What keeps a worker from ever running a task, from the most to the least
/// fundamental.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lack {
    Capability(Arc<str>),
    Label(Arc<str>),
    Resource(Arc<str>),
}

impl Lack {
    /// For people.
    pub(crate) fn text(self) -> Arc<str> {
        match self {
            Lack::Capability(text) | Lack::Label(text) | Lack::Resource(text) => text,
        }
    }
}

/// What a worker lacks for a task of this type.
pub(crate) fn lack(spec: &WorkerSpec, task_type: &str, need: &Requirements) -> Option<Lack> {
    if !offers(&spec.capabilities, task_type) {
        return Some(Lack::Capability(format!("does not offer {task_type}").into()));
    }
    let basic = unmet(spec, &need.capabilities, &need.labels, &need.selector, &need.resources);
    if basic.is_some() || need.any_of.is_empty() {
        return basic;
    }
    let mut best = None;
    for way in &need.any_of {
        let all = need.resources.with(&way.resources);
        let lack = unmet(spec, &way.capabilities, &way.labels, &way.selector, &all)?;
        best = best.max(Some(lack));
    }
    best
}

fn unmet(
    spec: &WorkerSpec,
    capabilities: &[Arc<str>],
    labels: &BTreeMap<Arc<str>, Arc<str>>,
    selector: &[Condition],
    resources: &Resources,
) -> Option<Lack> {
    if let Some(missing) = capabilities.iter().find(|wanted| !offers(&spec.capabilities, wanted)) {
        return Some(Lack::Capability(format!("does not offer {missing}").into()));
    }
    for (label, value) in labels {
        match spec.labels.get(label) {
            Some(has) if has == value => {}
            Some(has) => return Some(Lack::Label(format!("label {label} is {has}, not {value}").into())),
            None => return Some(Lack::Label(format!("has no label {label}").into())),
        }
    }
    if let Some(problem) = selector.iter().find_map(|condition| condition.unmet(&spec.labels)) {
        return Some(Lack::Label(problem.into()));
    }
    let have = spec.resources.as_ref()?;
    if have.covers(resources) {
        return None;
    }
    let short = have.short_of(&Resources::default(), resources);
    Some(Lack::Resource(short.map_or_else(|| "has too little of a resource".into(), |s| format!("has {s}").into())))
}

/// What a task would hold of a worker like this: of the ways that it suits the
/// first that `fits`.
pub(crate) fn way(spec: &WorkerSpec, need: &Requirements, fits: impl Fn(&Resources) -> bool) -> Option<Resources> {
    if need.any_of.is_empty() {
        return fits(&need.resources).then(|| need.resources.clone());
    }
    let suits =
        |way: &&Alternative| unmet(spec, &way.capabilities, &way.labels, &way.selector, &way.resources).is_none();
    need.any_of.iter().filter(suits).map(|way| need.resources.with(&way.resources)).find(fits)
}

/// A worker with room.
struct Candidate<'a> {
    node: NodeId,
    worker: &'a WorkerId,
    /// Grants that it would take.
    free: u32,
}

impl Node {
    /// The worker that gets a task of this class next.
    pub(crate) fn choose(
        &self,
        feasible: &[(NodeId, WorkerId)],
        need: &Requirements,
        spec: &Spec,
    ) -> Option<(NodeId, WorkerId)> {
        let room = |(node, worker): &'_ (NodeId, WorkerId)| self.room(*node, worker, need);
        let mut with_room: Vec<_> = feasible
            .iter()
            .filter_map(|at| {
                let free = room(at);
                (free > 0).then_some(Candidate { node: at.0, worker: &at.1, free })
            })
            .collect();
        if let Some(key) = &spec.requirements.affinity_key {
            let place = key_hash(key);
            let best = with_room.iter().max_by_key(|c| affinity(place, c))?;
            return Some((best.node, best.worker.clone()));
        }
        self.keep_nearest(&mut with_room, &spec.depends_on);
        let mut chance = Prng::new(self.chance_now());
        let best = match need.placement {
            Placement::Balance => better_of_two(&with_room, &mut chance)?,
            Placement::Spread | Placement::Pack => {
                // Equals take turns.
                let turn = chance.below(with_room.len() as u64) as usize;
                with_room.rotate_left(turn);
                let load = |c: &&Candidate<'_>| self.load(c.node, c.worker, &need.resources);
                match need.placement {
                    Placement::Pack => with_room.iter().max_by_key(load)?,
                    Placement::Spread | Placement::Balance => with_room.iter().min_by_key(load)?,
                }
            }
        };
        Some((best.node, best.worker.clone()))
    }

    /// Of the candidates only those that hold most of the `inputs`, as far as
    /// this node knows where they are: on the node that made them, and on the
    /// holders of their records.
    fn keep_nearest(&self, candidates: &mut Vec<Candidate<'_>>, inputs: &[TaskId]) {
        if inputs.is_empty() || candidates.len() < 2 {
            return;
        }
        let mut held: BTreeMap<NodeId, u32> = BTreeMap::new();
        for kept in inputs.iter().filter_map(|input| self.kept.get(input)) {
            let made = kept.slot.record.body.state.closed().and_then(|c| c.executor.as_ref()).map(|(node, _)| *node);
            let others = kept.slot.record.holders.iter().copied().filter(|n| Some(*n) != made);
            made.into_iter().chain(others).for_each(|node| *held.entry(node).or_default() += 1);
        }
        let of = |c: &Candidate<'_>| held.get(&c.node).copied().unwrap_or(0);
        let most = candidates.iter().map(of).max().unwrap_or(0);
        candidates.retain(|c| of(c) == most);
    }
}

/// Sticks to one worker for as long as that has room; another owner that knows
/// the same workers finds the same one.
fn affinity(place: u64, candidate: &Candidate<'_>) -> u64 {
    mix(place ^ candidate.node.hash64() ^ key_hash(candidate.worker.as_str()))
}

fn key_hash(key: &str) -> u64 {
    key.as_bytes().iter().fold(0x6166_6669_6e69_7479, |hash, byte| mix(hash ^ u64::from(*byte)))
}

fn better_of_two<'a, 'b>(candidates: &'a [Candidate<'b>], chance: &mut Prng) -> Option<&'a Candidate<'b>> {
    if candidates.len() == 2 {
        return candidates.iter().max_by_key(|c| c.free);
    }
    let mut drawn = || candidates.get(chance.below(candidates.len() as u64) as usize);
    let (one, two) = (drawn()?, drawn()?);
    Some(if two.free >= one.free { two } else { one })
}

#[cfg(test)]
mod tests;
