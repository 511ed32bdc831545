//! Why a task waits: for one task in words, with what each known worker lacks,
//! and for all of this node's tasks as counts of a bounded set of reasons.

use crate::command::WorkerSpec;
use crate::ids::{NodeId, TaskId, WorkerId};
use crate::lanes::{Lane, LaneId};
use crate::limits;
use crate::node::Node;
use crate::ownership::Kept;
use crate::placement::{Lack, lack};
use crate::record::Record;
use crate::task::{Requirements, Spec, TaskState};
use crate::view::{Explanation, Status};
use crate::workers::Shortage;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Why a task waits. The values of the label `reason` of
/// `taskmesh_waiting_tasks`; each task has one at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// For tasks that it depends on.
    Dependency,
    /// For a time: `not_before`, or a back-off.
    Delay,
    /// The queue is paused.
    Paused,
    /// Fewer than half of its holders can be reached.
    Unreachable,
    /// There is no worker in the mesh that is heard.
    NoWorker,
    /// No worker offers its type and capabilities.
    Capability,
    /// Those that do have other labels.
    Label,
    /// Those that have them have too little of a resource, even when idle.
    Resource,
    /// Those that could run it are draining.
    Draining,
    /// A limit of the mesh is reached.
    Limit,
    /// No worker that could run it has a free slot.
    Slot,
    /// One has, and too little of a resource is free.
    Room,
    /// A worker's room is being kept for a larger task, or for this one.
    Reserved,
    /// Its `fairness_key` has had its share; others go first.
    Fairness,
    /// Others go first in the order of the queue.
    Order,
    /// Nothing: it is about to be granted.
    Next,
}

impl Reason {
    /// Every one.
    pub const ALL: [Reason; 16] = [
        Reason::Dependency,
        Reason::Delay,
        Reason::Paused,
        Reason::Unreachable,
        Reason::NoWorker,
        Reason::Capability,
        Reason::Label,
        Reason::Resource,
        Reason::Draining,
        Reason::Limit,
        Reason::Slot,
        Reason::Room,
        Reason::Reserved,
        Reason::Fairness,
        Reason::Order,
        Reason::Next,
    ];

    /// Its name on every face.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Reason::Dependency => "dependency",
            Reason::Delay => "delay",
            Reason::Paused => "paused",
            Reason::Unreachable => "unreachable",
            Reason::NoWorker => "no_worker",
            Reason::Capability => "capability",
            Reason::Label => "label",
            Reason::Resource => "resource",
            Reason::Draining => "draining",
            Reason::Limit => "limit",
            Reason::Slot => "slot",
            Reason::Room => "room",
            Reason::Reserved => "reserved",
            Reason::Fairness => "fairness",
            Reason::Order => "order",
            Reason::Next => "next",
        }
    }

    /// The one with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Reason> {
        Reason::ALL.into_iter().find(|r| r.name() == name)
    }

    /// What will happen next, for people.
    fn next(self) -> &'static str {
        match self {
            Reason::Dependency => "is queued when all of them have completed; cancelled if one of them does not",
            Reason::Delay => "is queued then",
            Reason::Paused => "starts after queue_resume",
            Reason::Unreachable => {
                "goes on when a majority of its holders is back; of those that are gone for ever, say so: taskmesh \
                 forget NODE"
            }
            Reason::NoWorker | Reason::Capability | Reason::Label | Reason::Resource | Reason::Draining => {
                "starts when such a worker joins"
            }
            Reason::Limit => "starts when others under that limit have ended, or its period is over",
            Reason::Slot => "starts when a worker has room",
            Reason::Room => "starts when a worker has room; after a while one is kept free for it",
            Reason::Reserved => "starts when that has room again",
            Reason::Fairness => "starts when its share is due again",
            Reason::Order => "starts when those before it have started and a worker has room",
            Reason::Next => "starts now",
        }
    }
}

/// Why one worker does not have a task now, from the most to the least
/// fundamental.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Why {
    reason: Reason,
    text: Arc<str>,
}

impl Why {
    fn new(reason: Reason, text: impl Into<Arc<str>>) -> Why {
        Why { reason, text: text.into() }
    }
}

type Line = (NodeId, Option<WorkerId>, Why);

impl Node {
    /// Why a queued task has not started, and what happens next.
    pub(crate) fn explain_queued(&self, kept: &Kept) -> Explanation {
        let (record, spec) = (&kept.slot.record, &kept.slot.spec);
        let lines = self.why_not(&spec.task_type, &spec.requirements);
        let position = self.queue.position(kept).unwrap_or(0);
        let (reason, summary) = self.why_queued(kept, &lines, position);
        let next_at = match reason {
            Reason::Slot | Reason::Room | Reason::Fairness | Reason::Order | Reason::Next => {
                self.estimate_start(Some(position), false)
            }
            Reason::Reserved => self.estimate_start(Some(1), false),
            Reason::Dependency
            | Reason::Delay
            | Reason::Paused
            | Reason::Unreachable
            | Reason::NoWorker
            | Reason::Capability
            | Reason::Label
            | Reason::Resource
            | Reason::Draining
            | Reason::Limit => None,
        };
        debug_assert!(!record.closed());
        Explanation { reason: Some(reason), summary, nodes: that_fit(lines), next: reason.next().into(), next_at }
    }

    /// Who is silent of the holders, if too few are not.
    pub(crate) fn explain_unreachable(&self, record: &Record) -> Option<String> {
        if record.majority(|n| self.live(n)) {
            return None;
        }
        let silent: Vec<_> = record.keepers().filter(|n| !self.live(*n)).map(|n| n.to_string()).collect();
        Some(format!("fewer than half of its holders can be reached; silent: {}", silent.join(", ")))
    }

    fn why_queued(&self, kept: &Kept, lines: &[Line], position: u64) -> (Reason, Arc<str>) {
        let (record, spec) = (&kept.slot.record, &kept.slot.spec);
        if let Some(pause) = &self.controls.paused {
            let why = pause.reason.as_ref().map_or(String::new(), |r| format!(" ({r})"));
            return (Reason::Paused, format!("the queue is paused{why}").into());
        }
        if let Some(summary) = self.explain_unreachable(record) {
            return (Reason::Unreachable, summary.into());
        }
        let (feasible, infeasible) = self.feasibility(spec);
        if let Some((reason, summary)) = infeasible {
            return (reason, summary);
        }
        let place = format!("is number {position} of its owner's queue; {feasible} nodes could run it");
        let Some((_, lane)) = self.queue.lane_with(spec) else { return (Reason::Next, place.into()) };
        if let Some(limit) = self.permits.reached(&lane.class.2, self.now) {
            return (Reason::Limit, format!("{place}; the mesh's limit {limit} is reached").into());
        }
        match turn_of(lane, &record.task, spec) {
            Turn::Others => (Reason::Order, place.into()),
            Turn::Served(share) => {
                let name = |key: &Option<Arc<str>>| key.as_deref().unwrap_or("no key").to_owned();
                let (own, first) = (name(&spec.fairness_key), name(share));
                let summary = format!("{place}; fairness key {own} has had its share, and {first} goes first");
                (Reason::Fairness, summary.into())
            }
            Turn::Mine => match nearest(lines) {
                Some(why) => (why.reason, format!("is the next of its kind; {feasible} nodes could run it").into()),
                None => (Reason::Next, place.into()),
            },
        }
    }

    /// Nodes that could run it, and why none could where none could.
    pub(crate) fn feasibility(&self, spec: &Spec) -> (u32, Option<(Reason, Arc<str>)>) {
        self.feasibility_of(&spec.work().task_type, &spec.requirements)
    }

    /// The same, of what is no task yet.
    pub(crate) fn feasibility_of(&self, task_type: &str, need: &Requirements) -> (u32, Option<(Reason, Arc<str>)>) {
        let workers = self.feasible_workers(task_type, need);
        let mut nodes: Vec<_> = workers.into_iter().map(|(n, _)| n).collect();
        nodes.dedup();
        if !nodes.is_empty() {
            return (u32::try_from(nodes.len()).unwrap_or(u32::MAX), None);
        }
        let lines = self.why_not(task_type, need);
        let nearest = lines.iter().max_by_key(|(_, worker, why)| (why.reason, worker.is_some()));
        let (reason, summary) = match nearest {
            Some((node, worker, why)) => {
                let worker = worker.as_ref().map_or(String::new(), |w| format!("worker {w} on "));
                let text = &why.text;
                let summary =
                    format!("no worker in the mesh can run it now: {worker}{node} {text}; it waits until one can");
                (why.reason, summary)
            }
            None => (Reason::NoWorker, "there is no worker in the mesh; it waits until one is registered".to_owned()),
        };
        (0, Some((reason, summary.into())))
    }

    /// For each known worker: why it does not have a task of this class now.
    fn why_not(&self, task_type: &str, need: &Requirements) -> Vec<Line> {
        let mut lines = Vec::new();
        for worker in self.workers.values() {
            let draining = self.draining || worker.is_leaving();
            lines.push(self.why_not_here(self.id, &worker.spec, draining, task_type, need));
        }
        for (node, member) in &self.members {
            if !self.live(*node) {
                lines.push((*node, None, Why::new(Reason::NoWorker, "is silent")));
                continue;
            }
            if member.workers.is_empty() {
                lines.push((*node, None, Why::new(Reason::NoWorker, "has no worker")));
            }
            for seen in member.workers.values() {
                lines.push(self.why_not_here(*node, &seen.spec, member.draining, task_type, need));
            }
        }
        lines
    }

    fn why_not_here(
        &self,
        node: NodeId,
        spec: &WorkerSpec,
        draining: bool,
        task_type: &str,
        need: &Requirements,
    ) -> Line {
        let why = match lack(spec, task_type, need) {
            Some(lack) => {
                let reason = match lack {
                    Lack::Capability(_) => Reason::Capability,
                    Lack::Label(_) => Reason::Label,
                    Lack::Resource(_) => Reason::Resource,
                };
                Why::new(reason, lack.text())
            }
            None if draining => Why::new(Reason::Draining, "is draining"),
            None => match self.shortage(node, &spec.worker, need) {
                Some(Shortage::Slot(text)) => Why::new(Reason::Slot, text),
                Some(Shortage::Resource(text)) => Why::new(Reason::Room, text),
                Some(Shortage::Reserved(text)) => Why::new(Reason::Reserved, text),
                None => Why::new(Reason::Next, "could take it"),
            },
        };
        (node, Some(spec.worker.clone()), why)
    }

    /// How many of this node's tasks wait for what. Of those that are ready the
    /// first of each share is told from the rest.
    pub(crate) fn waiting(&self) -> BTreeMap<Reason, u64> {
        let count = |status| self.counts.get(&status).copied().unwrap_or(0);
        let mut waiting =
            BTreeMap::from([(Reason::Dependency, count(Status::Blocked)), (Reason::Delay, count(Status::Delayed))]);
        let (blocked, ready) = self.waiting_items();
        let turn = if self.controls.paused.is_some() { Reason::Paused } else { Reason::Order };
        *waiting.entry(Reason::Dependency).or_default() += blocked;
        *waiting.entry(turn).or_default() += ready;
        for (id, lane) in self.queue.lanes() {
            for (reason, tasks) in self.waiting_in(id, lane) {
                *waiting.entry(reason).or_default() += tasks;
            }
        }
        waiting.retain(|_, tasks| *tasks > 0);
        waiting
    }

    fn waiting_in(&self, id: LaneId, lane: &Lane) -> Vec<(Reason, u64)> {
        if self.controls.paused.is_some() {
            return vec![(Reason::Paused, lane.tasks)];
        }
        let unreachable = self.queue.unreachable.get(&id).copied().unwrap_or(0).min(lane.tasks);
        let rest = lane.tasks - unreachable;
        let (task_type, need, under) = &lane.class;
        let lines = self.why_not(task_type, need);
        let infeasible = self.feasible_workers(task_type, need).is_empty();
        let nearest = nearest(&lines).map_or(Reason::NoWorker, |why| why.reason);
        if infeasible {
            return vec![(Reason::Unreachable, unreachable), (nearest, rest)];
        }
        if self.permits.reached(under, self.now).is_some() {
            return vec![(Reason::Unreachable, unreachable), (Reason::Limit, rest)];
        }
        let overtaken = match lane.turn() {
            Some((first, place)) => {
                let before = |(share, backlog): &(&_, &crate::lanes::Backlog)| {
                    *share != first && backlog.ready.first().is_some_and(|(p, _)| *p < place)
                };
                lane.backlogs.iter().filter(before).count() as u64
            }
            None => 0,
        };
        let first = rest.min(1);
        let overtaken = overtaken.min(rest - first);
        let others = rest - first - overtaken;
        vec![
            (Reason::Unreachable, unreachable),
            (nearest, first),
            (Reason::Fairness, overtaken),
            (Reason::Order, others),
        ]
    }
}

/// Whose turn it is in a lane, as one of its tasks sees it.
enum Turn<'a> {
    Mine,
    /// That of another share, whose first task has a later place.
    Served(&'a Option<Arc<str>>),
    /// That of a task with an earlier place.
    Others,
}

fn turn_of<'a>(lane: &'a Lane, task: &TaskId, spec: &Spec) -> Turn<'a> {
    let Some((share, place)) = lane.turn() else { return Turn::Mine };
    let own = lane.backlogs.get(&spec.fairness_key).and_then(|b| b.ready.first());
    match own {
        Some((_, first)) if first != task => Turn::Others,
        Some(_) if *share == spec.fairness_key => Turn::Mine,
        Some((own, _)) if *own < place => Turn::Served(share),
        Some(_) | None => Turn::Others,
    }
}

/// The worker that lacks least.
fn nearest(lines: &[Line]) -> Option<&Why> {
    lines.iter().map(|(.., why)| why).max_by_key(|why| why.reason)
}

/// As many lines as one message carries.
fn that_fit(lines: Vec<Line>) -> Vec<(NodeId, Option<WorkerId>, Arc<str>)> {
    let mut room = limits::ANSWER_BYTES;
    let mut fitting = Vec::new();
    for (node, worker, why) in lines.into_iter().take(limits::EXPLAINED) {
        let size = worker.as_ref().map_or(0, |w| w.as_str().len()) + why.text.len() + 50;
        let Some(left) = room.checked_sub(size) else { break };
        room = left;
        fitting.push((node, worker, why.text));
    }
    fitting
}

/// An explanation of a task that is not queued.
pub(crate) fn of_state(reason: Option<Reason>, summary: String, state: &TaskState) -> Explanation {
    let next_at = match state {
        TaskState::Delayed { until } => Some(*until),
        TaskState::Blocked | TaskState::Queued { .. } | TaskState::Leased { .. } | TaskState::Done(_) => None,
    };
    let next = reason.map_or("it ends, or its node falls silent and it is granted again", Reason::next);
    Explanation { reason, summary: summary.into(), nodes: Vec::new(), next: next.into(), next_at }
}

#[cfg(test)]
mod tests;
