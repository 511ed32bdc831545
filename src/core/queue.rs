//! What runs next, and where: the ready tasks of this owner in one total
//! order, and the choice of a worker for the first that any worker can take.
//!
//! Each doubling of priority is a head start of `ageing` (see
//! [`Priority::head_start`]); since all tasks age alike, a task's place never
//! changes while it waits, and nothing starves. Among workers with room, the
//! better of two drawn by chance gets the task (Mitzenmacher: "The power of two
//! choices in randomized load balancing", 2001).

use crate::config::Planted;
use crate::effect::Notice;
use crate::ids::{NodeId, TaskId, WorkerId};
use crate::message::{Grant, Message};
use crate::node::Node;
use crate::ownership::{Kept, Lease, Offering};
use crate::prng::Prng;
use crate::ranked::Ranked;
use crate::task::{Priority, Requirements, Spec, TaskState};
use crate::time::{Millis, Unix};
use crate::view::Status;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The ready tasks of this owner.
pub(crate) struct Queue {
    ageing: Millis,
    lanes: BTreeMap<Class, Lane>,
    /// How many tasks are ready since each moment.
    since: BTreeMap<Unix, u32>,
    /// Something changed that may let a task start.
    stirred: bool,
    /// Counts changes of workers: what was found feasible before is stale.
    generation: u64,
}

/// Tasks that the same workers can run: type and requirements.
type Class = (Arc<str>, Requirements);

#[derive(Default)]
struct Lane {
    ready: Ranked<(Place, TaskId)>,
    feasible: Vec<(NodeId, WorkerId)>,
    generation: u64,
}

/// A place in the queue; the least is next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    aged: i64,
    deadline: Unix,
    submitted: Unix,
}

/// Tasks passed over in one round because their holders can't be reached.
const PASSED_OVER: usize = 64;
/// Announcements of one owner are this far apart.
const ANNOUNCE: Millis = Millis(500);

impl Queue {
    pub(crate) fn new(ageing: Millis) -> Queue {
        Queue { ageing, lanes: BTreeMap::new(), since: BTreeMap::new(), stirred: false, generation: 1 }
    }

    pub(crate) fn stir(&mut self) {
        self.stirred = true;
    }

    pub(crate) fn stirred(&self) -> bool {
        self.stirred
    }

    /// Workers came, went or changed.
    pub(crate) fn workers_changed(&mut self) {
        self.generation += 1;
        self.stirred = true;
    }

    fn place(&self, since: Unix, priority: Priority, spec: &Spec) -> Place {
        let since = i64::try_from(since.0).unwrap_or(i64::MAX);
        Place {
            aged: since.saturating_sub(priority.head_start(self.ageing)),
            deadline: spec.deadline.unwrap_or(Unix(u64::MAX)),
            submitted: spec.submitted_at,
        }
    }

    fn class(spec: &Spec) -> Class {
        (spec.task_type.clone(), spec.requirements.clone())
    }

    fn insert(&mut self, task: TaskId, since: Unix, priority: Priority, spec: &Spec) {
        let place = self.place(since, priority, spec);
        self.lanes.entry(Queue::class(spec)).or_default().ready.insert((place, task));
        *self.since.entry(since).or_default() += 1;
        self.stirred = true;
    }

    fn remove(&mut self, task: &TaskId, since: Unix, priority: Priority, spec: &Spec) {
        let place = self.place(since, priority, spec);
        let class = Queue::class(spec);
        if let Some(lane) = self.lanes.get_mut(&class) {
            lane.ready.remove(&(place, task.clone()));
            if lane.ready.is_empty() {
                self.lanes.remove(&class);
            }
        }
        if let Some(count) = self.since.get_mut(&since) {
            *count -= 1;
            if *count == 0 {
                self.since.remove(&since);
            }
        }
    }

    /// Place number of a queued task, from 1.
    pub(crate) fn position(&self, kept: &Kept) -> Option<u64> {
        let TaskState::Queued { since, place } = kept.slot.record.body.state else { return None };
        let here = (self.place(since, place, &kept.slot.spec), kept.slot.record.task.clone());
        let before: usize = self.lanes.values().map(|lane| lane.ready.rank(&here)).sum();
        Some(before as u64 + 1)
    }

    /// When the task that is ready longest became so.
    pub(crate) fn oldest(&self) -> Option<Unix> {
        self.since.first_key_value().map(|(since, _)| *since)
    }

    /// By task type: how many are ready.
    fn ready_by_type(&self) -> BTreeMap<Arc<str>, u32> {
        let mut ready = BTreeMap::new();
        for ((task_type, _), lane) in &self.lanes {
            *ready.entry(task_type.clone()).or_default() += u32::try_from(lane.ready.len()).unwrap_or(u32::MAX);
        }
        ready
    }
}

/// Whether a worker with these capabilities offers `wanted`: `a:b` is met by
/// `a:b` and by `a:*`.
pub(crate) fn offers(capabilities: &[Arc<str>], wanted: &str) -> bool {
    capabilities.iter().any(|have| {
        **have == *wanted
            || have.strip_suffix('*').is_some_and(|stem| stem.ends_with(':') && wanted.starts_with(stem))
            || (!wanted.contains(':') && have.split_once(':').is_some_and(|(stem, _)| stem == wanted))
    })
}

impl Node {
    /// The view of a task's state that its owner has.
    pub(crate) fn status_of(kept: &Kept) -> Status {
        match &kept.slot.record.body.state {
            TaskState::Blocked if kept.slot.spec.is_workflow() => Status::Running,
            TaskState::Blocked => Status::Blocked,
            TaskState::Delayed { .. } => Status::Delayed,
            TaskState::Queued { .. } => Status::Queued,
            TaskState::Leased { .. } if kept.lease.as_ref().is_some_and(|l| l.started.is_some()) => Status::Running,
            TaskState::Leased { .. } => Status::Leased,
            TaskState::Done(closed) => Status::of_outcome(&closed.outcome),
        }
    }

    /// Enters an owned task where its state belongs.
    pub(crate) fn index(&mut self, task: &TaskId) {
        let kept = &self.kept[task];
        debug_assert!(kept.claimed);
        let status = Node::status_of(kept);
        let spec = &kept.slot.spec;
        if spec.is_workflow() {
            return self.index_workflow(task);
        }
        *self.counts.entry(status).or_default() += 1;
        let moved = Notice::TaskMoved { task_type: spec.task_type.clone(), from: None, to: Some(status) };
        match &kept.slot.record.body.state {
            TaskState::Blocked => self.await_dependencies(task),
            TaskState::Delayed { until } => {
                self.due.insert((*until, task.clone()));
            }
            TaskState::Queued { since, place } => self.queue.insert(task.clone(), *since, *place, spec),
            TaskState::Leased { executor, worker, .. } => {
                let (executor, worker) = (*executor, worker.clone());
                let need = spec.requirements.resources.clone();
                self.leased.insert(task.clone());
                self.take_room(executor, &worker, &need);
            }
            TaskState::Done(closed) => {
                self.closed.insert((closed.at, task.clone()));
            }
        }
        let kept = &self.kept[task];
        if let Some(deadline) = kept.slot.spec.deadline
            && !status.terminal()
        {
            self.due.insert((deadline, task.clone()));
        }
        self.notice(moved);
    }

    /// Takes an owned task out of where its state put it.
    pub(crate) fn unindex(&mut self, task: &TaskId) {
        let kept = &self.kept[task];
        let status = Node::status_of(kept);
        let spec = kept.slot.spec.clone();
        if spec.is_workflow() {
            return self.unindex_workflow(task);
        }
        if let Some(count) = self.counts.get_mut(&status) {
            *count = count.saturating_sub(1);
        }
        match &kept.slot.record.body.state {
            TaskState::Blocked => self.stop_awaiting(task),
            TaskState::Delayed { until } => {
                self.due.remove(&(*until, task.clone()));
            }
            TaskState::Queued { since, place } => self.queue.remove(task, *since, *place, &spec),
            TaskState::Leased { executor, worker, .. } => {
                let (executor, worker) = (*executor, worker.clone());
                self.leased.remove(task);
                self.return_room(executor, &worker, &spec.requirements.resources);
            }
            TaskState::Done(closed) => {
                self.closed.remove(&(closed.at, task.clone()));
            }
        }
        if let Some(deadline) = spec.deadline {
            self.due.remove(&(deadline, task.clone()));
        }
        self.notice(Notice::TaskMoved { task_type: spec.task_type.clone(), from: Some(status), to: None });
    }

    /// Grants ready tasks while there is room for any of them.
    pub(crate) fn schedule(&mut self) {
        self.queue.stirred = false;
        if self.controls.paused.is_some() {
            return;
        }
        let mut passed_over = Vec::new();
        while passed_over.len() < PASSED_OVER
            && let Some((task, node, worker)) = self.next_grant()
        {
            if self.kept[&task].slot.record.majority(|n| self.live(n)) {
                self.grant(&task, node, worker);
                continue;
            }
            // A minority grants nothing new. Out of the lane for this round.
            self.unindex(&task);
            passed_over.push(task);
        }
        for task in passed_over {
            self.index(&task);
        }
        self.queue.stirred = false;
        self.announce();
    }

    /// The first task, in order, for which some worker has room.
    fn next_grant(&mut self) -> Option<(TaskId, NodeId, WorkerId)> {
        let mut heads: Vec<_> =
            self.queue.lanes.iter().filter_map(|(class, lane)| Some((lane.ready.first()?.0, class.clone()))).collect();
        heads.sort_unstable_by_key(|(place, _)| *place);
        for (_, class) in heads {
            self.refresh_lane(&class);
            let lane = &self.queue.lanes[&class];
            let Some((_, task)) = lane.ready.first() else { continue };
            if let Some((node, worker)) = self.choose(&lane.feasible, &class.1) {
                return Some((task.clone(), node, worker));
            }
        }
        None
    }

    fn refresh_lane(&mut self, class: &Class) {
        let generation = self.queue.generation;
        if self.queue.lanes.get(class).is_none_or(|l| l.generation == generation) {
            return;
        }
        let feasible = self.feasible_workers(&class.0, &class.1);
        if let Some(lane) = self.queue.lanes.get_mut(class) {
            lane.feasible = feasible;
            lane.generation = generation;
        }
    }

    /// The better of two of the workers with room.
    fn choose(&self, feasible: &[(NodeId, WorkerId)], need: &Requirements) -> Option<(NodeId, WorkerId)> {
        let room: Vec<_> = feasible
            .iter()
            .filter_map(|(node, worker)| {
                let free = self.room(*node, worker, &need.resources);
                (free > 0).then_some((free, node, worker))
            })
            .collect();
        let mut chance = Prng::new(self.chance_now());
        let pick = |chance: &mut Prng| room.get(chance.below(room.len() as u64) as usize);
        let (one, two) = (pick(&mut chance)?, pick(&mut chance)?);
        let best = if room.len() == 2 {
            room.iter().max_by_key(|r| r.0)?
        } else {
            [one, two].into_iter().max_by_key(|r| r.0)?
        };
        Some((*best.1, best.2.clone()))
    }

    fn chance_now(&self) -> u64 {
        self.chance.clone().next() ^ self.leased.len() as u64
    }

    fn grant(&mut self, task: &TaskId, node: NodeId, worker: WorkerId) {
        let now = self.wall();
        let kept = &self.kept[task];
        let TaskState::Queued { since, .. } = kept.slot.record.body.state else {
            unreachable!("the queue holds queued tasks only")
        };
        let exclusive = kept.slot.spec.exclusive || kept.wary;
        let offering = if exclusive { Offering::Now } else { Offering::Lazily };
        let attempt = kept.slot.record.body.attempt + 1;
        let boot = self.boot_of(node);
        self.await_confirmation(node, &worker);
        self.notice(Notice::TaskGranted { task: task.clone(), executor: node, attempt, waited: now.since(since) });
        self.recent.waited(now, now.since(since));
        let lease = Lease::new(boot, self.now);
        self.revise(task, offering, |record| {
            record.body.attempt = attempt;
            record.body.state = TaskState::Leased { executor: node, worker, since: now };
        });
        if let Some(kept) = self.kept.get_mut(task) {
            kept.lease = Some(Box::new(lease));
        }
        if exclusive {
            self.advance(task);
        } else {
            self.send_grant(task);
        }
        if node == self.id {
            self.obey_itself();
        }
    }

    /// The lease of a task that this node has just taken over.
    pub(crate) fn resume_lease(&mut self, task: &TaskId) {
        let TaskState::Leased { executor, .. } = self.kept[task].slot.record.body.state else { return };
        let (boot, granted_at) = (self.boot_of(executor), self.now);
        let kept = self.kept.get_mut(task).expect("taken over");
        kept.lease = Some(Box::new(Lease::new(boot, granted_at)));
        self.await_confirmation_of(task);
    }

    fn await_confirmation_of(&mut self, task: &TaskId) {
        let TaskState::Leased { executor, worker, .. } = &self.kept[task].slot.record.body.state else { return };
        let (executor, worker) = (*executor, worker.clone());
        self.await_confirmation(executor, &worker);
    }

    pub(crate) fn send_grant(&mut self, task: &TaskId) {
        let now = self.now;
        let Some(kept) = self.kept.get_mut(task) else { return };
        let TaskState::Leased { executor, worker, .. } = &kept.slot.record.body.state else { return };
        let (executor, worker) = (*executor, worker.clone());
        let Some(lease) = &mut kept.lease else { return };
        lease.sent_at = Some(now);
        let grant = Grant {
            task: task.clone(),
            fence: kept.slot.record.fence(),
            worker,
            boot: lease.boot,
            spec: kept.slot.spec.clone(),
            holders: kept.slot.record.keepers().collect(),
        };
        self.send(executor, Message::Grant(Box::new(grant)));
    }

    /// Tells the mesh of work that no known worker has room for.
    fn announce(&mut self) {
        if self.now < self.announced_at + ANNOUNCE || self.queue.lanes.is_empty() || self.members.is_empty() {
            return;
        }
        let mut ready: Vec<_> = self.queue.ready_by_type().into_iter().collect();
        ready.sort_unstable_by_key(|(_, n)| Reverse(*n));
        ready.truncate(16);
        if ready.is_empty() {
            return;
        }
        self.announced_at = self.now;
        self.out.push(crate::Effect::Publish(Message::Announce { ready }));
    }

    pub(crate) fn check_index(&self) {
        let mut counted: BTreeMap<Status, u64> = BTreeMap::new();
        let mut ready = 0;
        for kept in self.kept.values().filter(|k| k.claimed && !k.slot.spec.is_workflow()) {
            *counted.entry(Node::status_of(kept)).or_default() += 1;
            ready += usize::from(matches!(kept.slot.record.body.state, TaskState::Queued { .. }));
        }
        for status in Status::ALL {
            let (has, should) = (self.counts.get(&status), counted.get(&status));
            assert_eq!(has.copied().unwrap_or(0), should.copied().unwrap_or(0), "count of {}", status.name());
        }
        let queued: usize = self.queue.lanes.values().map(|l| l.ready.len()).sum();
        assert_eq!(queued, ready, "queued tasks in lanes");
        if self.config.planted != Some(Planted::Unbounded) {
            assert!(self.open_tasks() <= self.config.open_tasks + crate::limits::ITEMS, "queue bound");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_star_offers_every_detail_and_a_detail_offers_its_stem() {
        let star: Vec<Arc<str>> = vec!["exec:*".into()];
        let one: Vec<Arc<str>> = vec!["exec:true".into()];
        assert!(offers(&star, "exec:true") && offers(&star, "exec"));
        assert!(offers(&one, "exec:true") && offers(&one, "exec"));
        assert!(!offers(&one, "exec:false") && !offers(&one, "execute") && !offers(&star, "other:true"));
    }

    proptest! {
        /// However urgent what comes later, a task waits for at most 128 spans
        /// of ageing more: then everything new is behind it.
        #[test]
        fn ageing_bounds_every_wait(low in 1e-30f64..1e30, high in 1e-30f64..1e30, later in 0u64..1_000_000_000) {
            let ageing = Millis(1_000);
            let queue = Queue::new(ageing);
            let spec = crate::testing::spec();
            let (low, high) = (Priority::new(low).unwrap_or_default(), Priority::new(high).unwrap_or_default());
            let early = queue.place(Unix(1_000_000), low, &spec);
            let late = queue.place(Unix(1_000_000 + later), high, &spec);
            if later > 128 * ageing.0 {
                prop_assert!(early < late);
            }
        }
    }
}
