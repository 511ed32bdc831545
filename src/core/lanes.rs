//! The ready tasks of one owner. Those that the same workers can run are a
//! lane; in a lane each share has its own sorted backlog, and the lane offers
//! the best of their heads. Every operation is O(log n) in the tasks, and takes
//! as many steps as the share has lanes.

use crate::ids::{NodeId, TaskId, WorkerId};
use crate::order::{Order, Place};
use crate::ownership::Kept;
use crate::permits::{Limit, Permits};
use crate::ranked::Ranked;
use crate::shares::{Share, Shares};
use crate::task::{Priority, Requirements, Spec, TaskState};
use crate::time::{Millis, Unix};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

/// The ready tasks of this owner.
pub(crate) struct Queue {
    pub(crate) order: Order,
    pub(crate) shares: Shares,
    limits: Vec<Limit>,
    lanes: BTreeMap<LaneId, Lane>,
    by_class: BTreeMap<Class, LaneId>,
    last_lane: LaneId,
    /// The best head of each lane, by start tag and place.
    fronts: BTreeSet<(Head, LaneId)>,
    /// Since when each share of each lane has got nothing.
    hungry: BTreeSet<(Millis, LaneId, Share)>,
    /// All tasks in the algorithm's order.
    places: Ranked<(Place, TaskId)>,
    /// How many tasks are ready since each moment.
    since: BTreeMap<Unix, u32>,
    /// What granted tasks hold, as they were entered.
    pub(crate) held: BTreeMap<TaskId, Hold>,
    /// For which task room is kept free on some worker.
    pub(crate) reserved: Option<TaskId>,
    /// Tasks whose holders could not be reached in the last round, by lane.
    pub(crate) unreachable: BTreeMap<LaneId, u64>,
    /// Something changed that may let a task start.
    stirred: bool,
    /// Counts changes of workers: what was found feasible before is stale.
    generation: u64,
}

/// Names a lane for as long as it is not empty.
pub(crate) type LaneId = u64;

/// Tasks that the same workers can run and the same limits bound: type,
/// requirements, limits.
pub(crate) type Class = (Arc<str>, Requirements, Vec<u16>);

/// Start tag of a share, and the place of its first task.
type Head = (u64, Place);

/// What a granted task holds of a worker.
pub(crate) struct Hold {
    pub(crate) node: NodeId,
    pub(crate) worker: WorkerId,
    pub(crate) need: crate::task::Resources,
    /// The limits that count it.
    pub(crate) under: Vec<u16>,
}

/// Tasks of one class.
pub(crate) struct Lane {
    pub(crate) class: Class,
    pub(crate) backlogs: BTreeMap<Share, Backlog>,
    heads: BTreeSet<(Head, Share)>,
    front: Option<Head>,
    pub(crate) tasks: u64,
    pub(crate) feasible: Vec<(NodeId, WorkerId)>,
    generation: u64,
    /// Since when no feasible worker has had room.
    pub(crate) full_since: Option<Millis>,
}

/// A share's tasks of one lane.
#[derive(Default)]
pub(crate) struct Backlog {
    pub(crate) ready: BTreeSet<(Place, TaskId)>,
    head: Option<Head>,
    /// Since when it has got nothing.
    hungry: Millis,
}

/// A share that has got nothing of a lane for this long is served first, so
/// that no number of others, each with a fresh tag, keeps it waiting. At least
/// a minute, for where tasks do not age.
const HUNGER: Millis = Millis(60_000);

impl Queue {
    pub(crate) fn new(order: Order, weights: &BTreeMap<Arc<str>, u64>, limits: Vec<Limit>) -> Queue {
        Queue {
            order,
            limits,
            shares: Shares::new(weights),
            lanes: BTreeMap::new(),
            by_class: BTreeMap::new(),
            last_lane: 0,
            fronts: BTreeSet::new(),
            hungry: BTreeSet::new(),
            places: Ranked::default(),
            since: BTreeMap::new(),
            held: BTreeMap::new(),
            reserved: None,
            unreachable: BTreeMap::new(),
            stirred: false,
            generation: 1,
        }
    }

    pub(crate) fn stir(&mut self) {
        self.stirred = true;
    }

    pub(crate) fn calm(&mut self) {
        self.stirred = false;
    }

    pub(crate) fn stirred(&self) -> bool {
        self.stirred
    }

    /// Workers came, went or changed.
    pub(crate) fn workers_changed(&mut self) {
        self.generation += 1;
        self.stirred = true;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    pub(crate) fn insert(&mut self, task: TaskId, since: Unix, priority: Priority, spec: &Spec, now: Millis) {
        let place = self.order.place(since, priority, spec);
        let share = spec.fairness_key.clone();
        let id = self.lane_of(spec);
        self.shares.came(&share, id);
        let lane = self.lanes.get_mut(&id).expect("found or made above");
        lane.tasks += 1;
        let backlog = lane.backlogs.entry(share.clone()).or_insert_with(|| {
            self.hungry.insert((now, id, share.clone()));
            Backlog { hungry: now, ..Backlog::default() }
        });
        backlog.ready.insert((place, task.clone()));
        self.mend(id, &share);
        self.places.insert((place, task));
        *self.since.entry(since).or_default() += 1;
        self.stirred = true;
    }

    pub(crate) fn remove(&mut self, task: &TaskId, since: Unix, priority: Priority, spec: &Spec) {
        let place = self.order.place(since, priority, spec);
        let share = spec.fairness_key.clone();
        self.places.remove(&(place, task.clone()));
        if let Some(id) = self.lane_id(spec)
            && let Some(lane) = self.lanes.get_mut(&id)
            && let Some(backlog) = lane.backlogs.get_mut(&share)
            && backlog.ready.remove(&(place, task.clone()))
        {
            lane.tasks -= 1;
            self.shares.went(&share, id);
            self.mend(id, &share);
        }
        if let Some(count) = self.since.get_mut(&since) {
            *count -= 1;
            if *count == 0 {
                self.since.remove(&since);
            }
        }
    }

    /// A task of this share was granted from the lane that it is still in.
    pub(crate) fn fed(&mut self, spec: &Spec, now: Millis) {
        let Some(id) = self.lane_id(spec) else { return };
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        lane.full_since = None;
        if let Some(backlog) = lane.backlogs.get_mut(&spec.fairness_key) {
            self.hungry.remove(&(backlog.hungry, id, spec.fairness_key.clone()));
            backlog.hungry = now;
            self.hungry.insert((now, id, spec.fairness_key.clone()));
        }
    }

    /// A task is granted: its share is charged.
    pub(crate) fn charge(&mut self, task: &TaskId, spec: &Spec, now: Millis) {
        self.shares.charge(spec.fairness_key.clone(), task.clone(), now);
        self.retag(&spec.fairness_key);
    }

    /// It is back.
    pub(crate) fn settle(&mut self, task: &TaskId, now: Millis) {
        if let Some(share) = self.shares.settle(task, now) {
            self.retag(&share);
        }
    }

    fn retag(&mut self, share: &Share) {
        for id in self.shares.lanes(share) {
            self.mend(id, share);
        }
    }

    fn lane_id(&self, spec: &Spec) -> Option<LaneId> {
        self.by_class.get(&self.class(spec)).copied()
    }

    fn lane_of(&mut self, spec: &Spec) -> LaneId {
        let class = self.class(spec);
        if let Some(id) = self.by_class.get(&class) {
            return *id;
        }
        self.last_lane += 1;
        let id = self.last_lane;
        self.by_class.insert(class.clone(), id);
        self.lanes.insert(
            id,
            Lane {
                class,
                backlogs: BTreeMap::new(),
                heads: BTreeSet::new(),
                front: None,
                tasks: 0,
                feasible: Vec::new(),
                generation: 0,
                full_since: None,
            },
        );
        id
    }

    /// Puts the head of a share, and with it the front of its lane, where it
    /// belongs; drops what is empty.
    fn mend(&mut self, id: LaneId, share: &Share) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        let Some(backlog) = lane.backlogs.get_mut(share) else { return };
        let head = backlog.ready.first().map(|(place, _)| (self.shares.tag(share), *place));
        if head != backlog.head {
            if let Some(old) = backlog.head {
                lane.heads.remove(&(old, share.clone()));
            }
            if let Some(new) = head {
                lane.heads.insert((new, share.clone()));
            }
            backlog.head = head;
        }
        if head.is_none() {
            self.hungry.remove(&(backlog.hungry, id, share.clone()));
            lane.backlogs.remove(share);
        }
        let front = lane.heads.first().map(|(head, _)| *head);
        if front != lane.front {
            if let Some(old) = lane.front {
                self.fronts.remove(&(old, id));
            }
            if let Some(new) = front {
                self.fronts.insert((new, id));
            }
            lane.front = front;
        }
        if front.is_none()
            && let Some(lane) = self.lanes.remove(&id)
        {
            self.by_class.remove(&lane.class);
        }
    }

    fn class(&self, spec: &Spec) -> Class {
        (spec.task_type.clone(), spec.requirements.class(), self.limits_of(spec))
    }

    /// The limits that a task is under.
    pub(crate) fn limits_of(&self, spec: &Spec) -> Vec<u16> {
        Permits::over(&self.limits, spec)
    }

    /// By limit: how many tasks under it are ready.
    pub(crate) fn ready_by_limit(&self) -> BTreeMap<u16, u64> {
        let mut ready = BTreeMap::new();
        for lane in self.lanes.values() {
            for limit in &lane.class.2 {
                *ready.entry(*limit).or_default() += lane.tasks;
            }
        }
        ready
    }

    /// The next lane after `last`, in the order of their best heads.
    pub(crate) fn next_front(&self, last: Option<(Head, LaneId)>) -> Option<(Head, LaneId)> {
        let after = last.map_or(Bound::Unbounded, Bound::Excluded);
        self.fronts.range((after, Bound::Unbounded)).next().copied()
    }

    /// Lanes with a share that has got nothing for too long, those first that
    /// have waited longest.
    pub(crate) fn starving(&self, now: Millis) -> impl Iterator<Item = (LaneId, &Share)> {
        let patience = self.order.patience().max(HUNGER);
        self.hungry
            .iter()
            .take_while(move |(since, ..)| now.since(*since) >= patience)
            .take(STARVING)
            .map(|(_, lane, share)| (*lane, share))
    }

    pub(crate) fn lane(&self, id: LaneId) -> Option<&Lane> {
        self.lanes.get(&id)
    }

    pub(crate) fn lane_mut(&mut self, id: LaneId) -> Option<&mut Lane> {
        self.lanes.get_mut(&id)
    }

    pub(crate) fn lanes(&self) -> impl Iterator<Item = (LaneId, &Lane)> {
        self.lanes.iter().map(|(id, lane)| (*id, lane))
    }

    /// The lane that a ready task of this kind is in.
    pub(crate) fn lane_with(&self, spec: &Spec) -> Option<(LaneId, &Lane)> {
        let id = self.lane_id(spec)?;
        Some((id, self.lanes.get(&id)?))
    }

    /// What was found feasible for this lane is out of date.
    pub(crate) fn is_stale(&self, id: LaneId) -> bool {
        self.lanes.get(&id).is_some_and(|lane| lane.generation != self.generation)
    }

    pub(crate) fn found_feasible(&mut self, id: LaneId, feasible: Vec<(NodeId, WorkerId)>) {
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.feasible = feasible;
            lane.generation = self.generation;
        }
    }

    /// Place number of a queued task in the algorithm's order, from 1. Fair
    /// sharing may serve it earlier or later.
    pub(crate) fn position(&self, kept: &Kept) -> Option<u64> {
        let TaskState::Queued { since, place } = kept.slot.record.body.state else { return None };
        if kept.slot.spec.is_schedule() {
            return None;
        }
        let here = (self.order.place(since, place, &kept.slot.spec), kept.slot.record.task.clone());
        Some(self.places.rank(&here) as u64 + 1)
    }

    /// When the task that is ready longest became so.
    pub(crate) fn oldest(&self) -> Option<Unix> {
        self.since.first_key_value().map(|(since, _)| *since)
    }

    /// By task type: how many are ready.
    pub(crate) fn ready_by_type(&self) -> BTreeMap<Arc<str>, u32> {
        let mut ready: BTreeMap<Arc<str>, u32> = BTreeMap::new();
        for lane in self.lanes.values() {
            let sum = ready.entry(lane.class.0.clone()).or_default();
            *sum = sum.saturating_add(u32::try_from(lane.tasks).unwrap_or(u32::MAX));
        }
        ready
    }

    /// Asserts that `ready` tasks are here, and that all that is kept twice
    /// agrees.
    pub(crate) fn check(&self, ready: usize) {
        assert_eq!(self.places.len(), ready, "queued tasks in order");
        let mut sum = 0;
        for (id, lane) in &self.lanes {
            let tasks: usize = lane.backlogs.values().map(|b| b.ready.len()).sum();
            assert_eq!(tasks as u64, lane.tasks, "tasks of a lane");
            assert_eq!(lane.heads.len(), lane.backlogs.len(), "heads of a lane");
            assert_eq!(lane.front, lane.heads.first().map(|(head, _)| *head), "front of a lane");
            assert!(lane.front.is_some_and(|front| self.fronts.contains(&(front, *id))), "an empty lane");
            assert_eq!(self.by_class.get(&lane.class), Some(id), "lane of a class");
            sum += tasks;
        }
        assert_eq!(sum, ready, "queued tasks in lanes");
        assert_eq!(self.fronts.len(), self.lanes.len(), "fronts");
        assert_eq!(self.hungry.len(), self.lanes.values().map(|l| l.backlogs.len()).sum::<usize>(), "hungry shares");
    }
}

/// Starving shares that are tried in one go.
const STARVING: usize = 64;

impl Lane {
    /// The first task of one share, or of the one whose turn it is.
    pub(crate) fn first(&self, share: Option<&Share>) -> Option<&TaskId> {
        let share = match share {
            Some(share) => share,
            None => &self.heads.first()?.1,
        };
        self.backlogs.get(share)?.ready.first().map(|(_, task)| task)
    }

    /// The share whose turn it is, and the place of its first task.
    pub(crate) fn turn(&self) -> Option<(&Share, Place)> {
        self.heads.first().map(|((_, place), share)| (share, *place))
    }
}

#[cfg(test)]
mod tests;
