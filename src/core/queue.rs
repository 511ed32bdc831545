//! What runs next, and where: the first task, in the order of
//! [`lanes`](crate::lanes), for which some worker has room.
//!
//! A task that needs more of a resource than any worker has free would wait for
//! ever behind smaller ones. After `Config::reserve` a worker's room is kept for
//! it: it is granted ahead of time, and its executor starts nothing else there
//! until it fits. (The reservation of EASY backfilling: Lifka, "The ANL/IBM SP
//! scheduling system", 1995; nothing is filled in before it, as nobody knows how
//! long a run will take.) One reservation for each owner, one in each worker.

use crate::config::Planted;
use crate::effect::Notice;
use crate::ids::{NodeId, TaskId, WorkerId};
use crate::lanes::{Hold, LaneId};
use crate::message::{Grant, Message};
use crate::node::Node;
use crate::ownership::{Kept, Lease, Offering};
use crate::prng::Prng;
use crate::shares::Share;
use crate::task::TaskState;
use crate::time::Millis;
use crate::view::Status;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Tasks passed over in one round because their holders can't be reached.
const PASSED_OVER: usize = 64;
/// Announcements of one owner are this far apart.
const ANNOUNCE: Millis = Millis(500);

/// What is granted next.
struct Next {
    task: TaskId,
    node: NodeId,
    worker: WorkerId,
    how: Granting,
}

/// Whether there is room for a granted task.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Granting {
    /// As far as is known.
    Now,
    /// There is not: it is to be kept free.
    Ahead,
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
            TaskState::Blocked if kept.slot.spec.bears_tasks() => Status::Running,
            TaskState::Queued { .. } if kept.slot.spec.is_schedule() => Status::Delayed,
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
        if spec.bears_tasks() {
            return self.index_workflow(task);
        }
        *self.counts.entry(status).or_default() += 1;
        let moved = Notice::TaskMoved { task_type: spec.task_type.clone(), from: None, to: Some(status) };
        match &kept.slot.record.body.state {
            TaskState::Blocked => {
                self.await_dependencies(task);
                self.look_up_if_free(task);
            }
            TaskState::Delayed { until } => {
                self.due.insert((*until, task.clone()));
            }
            TaskState::Queued { .. } if spec.is_schedule() => self.stir_schedule(task),
            TaskState::Queued { since, place } => self.queue.insert(task.clone(), *since, *place, spec, self.now),
            TaskState::Leased { executor, worker, .. } => {
                let (executor, worker) = (*executor, worker.clone());
                self.leased.insert(task.clone());
                self.hold(task, executor, worker);
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
        if spec.bears_tasks() {
            return self.unindex_workflow(task);
        }
        if let Some(count) = self.counts.get_mut(&status) {
            *count = count.saturating_sub(1);
        }
        match &kept.slot.record.body.state {
            TaskState::Blocked => {
                self.stop_awaiting(task);
                self.stop_looking(task);
            }
            TaskState::Delayed { until } => {
                self.due.remove(&(*until, task.clone()));
            }
            TaskState::Queued { .. } if spec.is_schedule() => {}
            TaskState::Queued { since, place } => self.queue.remove(task, *since, *place, &spec),
            TaskState::Leased { .. } => {
                self.leased.remove(task);
                self.let_go(task);
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

    /// A granted task takes its room, and its share is charged.
    fn hold(&mut self, task: &TaskId, node: NodeId, worker: WorkerId) {
        let spec = self.kept[task].slot.spec.clone();
        let need = self.way_there(node, &worker, &spec.requirements);
        self.take_room(node, &worker, &need);
        self.queue.charge(task, &spec, self.now);
        let under = self.queue.limits_of(&spec);
        self.permits.hold(&under);
        self.queue.held.insert(task.clone(), Hold { node, worker, need, under });
    }

    fn let_go(&mut self, task: &TaskId) {
        self.queue.settle(task, self.now);
        if let Some(Hold { node, worker, need, under }) = self.queue.held.remove(task) {
            self.permits.let_go(&under);
            self.return_room(node, &worker, &need);
        }
    }

    /// Grants ready tasks while there is room for any of them.
    pub(crate) fn schedule(&mut self) {
        self.queue.calm();
        if self.controls.paused.is_some() {
            return;
        }
        let mut passed_over = Vec::new();
        let mut full = BTreeSet::new();
        while passed_over.len() < PASSED_OVER
            && let Some(next) = self.next_grant(&mut full)
        {
            if self.kept[&next.task].slot.record.majority(|n| self.live(n)) {
                self.grant(next);
                continue;
            }
            // A minority grants nothing new. Out of the lane for this round.
            self.unindex(&next.task);
            passed_over.push(next.task);
        }
        self.queue.unreachable.clear();
        for task in passed_over {
            self.index(&task);
            if let Some((lane, _)) = self.queue.lane_with(&self.kept[&task].slot.spec) {
                *self.queue.unreachable.entry(lane).or_default() += 1;
            }
        }
        self.queue.calm();
        self.ask_for_short();
        self.announce();
    }

    /// The first task, in order, for which some worker has room. `full` are
    /// lanes for which none has: room only shrinks within a round.
    fn next_grant(&mut self, full: &mut BTreeSet<LaneId>) -> Option<Next> {
        let starving: Vec<_> = self.queue.starving(self.now).map(|(lane, share)| (lane, share.clone())).collect();
        for (lane, share) in starving {
            if let Some(next) = self.try_lane(lane, Some(&share), full) {
                return Some(next);
            }
        }
        let mut last = None;
        while let Some(front) = self.queue.next_front(last) {
            if let Some(next) = self.try_lane(front.1, None, full) {
                return Some(next);
            }
            last = Some(front);
        }
        None
    }

    fn try_lane(&mut self, id: LaneId, share: Option<&Share>, full: &mut BTreeSet<LaneId>) -> Option<Next> {
        if full.contains(&id) {
            return None;
        }
        self.refresh_lane(id);
        let lane = self.queue.lane(id)?;
        if self.permits.reached(&lane.class.2, self.now).is_some() {
            self.permits.want(&lane.class.2);
            full.insert(id);
            return None;
        }
        let task = lane.first(share)?.clone();
        let spec = &self.kept[&task].slot.spec;
        if let Some((node, worker)) = self.choose(&lane.feasible, &lane.class.1, spec) {
            return Some(Next { task, node, worker, how: Granting::Now });
        }
        full.insert(id);
        self.reserve(id, task)
    }

    /// Keeps room for the first task of a lane that has waited long for any.
    fn reserve(&mut self, id: LaneId, task: TaskId) -> Option<Next> {
        let (now, patience) = (self.now, self.config.reserve);
        let lane = self.queue.lane_mut(id)?;
        let since = *lane.full_since.get_or_insert(now);
        if now.since(since) < patience || !lane.class.1.hold_something() || lane.feasible.is_empty() {
            return None;
        }
        if let Some(reserved) = &self.queue.reserved
            && self.kept.get(reserved).and_then(|k| k.lease.as_ref()).is_some_and(|l| l.ahead && l.started.is_none())
        {
            return None;
        }
        // By chance, so that one whose worker is kept for another tries elsewhere next.
        let mut chance = Prng::new(self.chance_now());
        let lane = self.queue.lane_mut(id)?;
        lane.full_since = Some(now);
        let drawn = chance.below(lane.feasible.len() as u64) as usize;
        let (node, worker) = lane.feasible[drawn].clone();
        self.queue.reserved = Some(task.clone());
        Some(Next { task, node, worker, how: Granting::Ahead })
    }

    pub(crate) fn refresh_lane(&mut self, id: LaneId) {
        if !self.queue.is_stale(id) {
            return;
        }
        let Some(lane) = self.queue.lane(id) else { return };
        let feasible = self.feasible_workers(&lane.class.0, &lane.class.1);
        self.queue.found_feasible(id, feasible);
    }

    pub(crate) fn chance_now(&self) -> u64 {
        self.chance.clone().next() ^ self.leased.len() as u64
    }

    fn grant(&mut self, next: Next) {
        let Next { task, node, worker, how } = next;
        let task = &task;
        let now = self.wall();
        let kept = &self.kept[task];
        self.permits.spend(&self.queue.limits_of(&kept.slot.spec));
        self.queue.fed(&kept.slot.spec, self.now);
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
        let lease = Lease { ahead: how == Granting::Ahead, ..Lease::new(boot, self.now) };
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
        kept.lease = Some(Box::new(Lease { taken_over: true, ..Lease::new(boot, granted_at) }));
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
            boot: lease.boot.unwrap_or(0),
            spec: kept.slot.spec.clone(),
            holders: kept.slot.record.keepers().collect(),
            ahead: lease.ahead,
        };
        self.send(executor, Message::Grant(Box::new(grant)));
    }

    /// Tells the mesh of work that no known worker has room for.
    fn announce(&mut self) {
        if self.now < self.announced_at + ANNOUNCE || self.queue.is_empty() || self.members.is_empty() {
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
        for kept in self.kept.values().filter(|k| k.claimed && !k.slot.spec.bears_tasks()) {
            *counted.entry(Node::status_of(kept)).or_default() += 1;
            let queued = matches!(kept.slot.record.body.state, TaskState::Queued { .. });
            ready += usize::from(queued && !kept.slot.spec.is_schedule());
        }
        for status in Status::ALL {
            let (has, should) = (self.counts.get(&status), counted.get(&status));
            assert_eq!(has.copied().unwrap_or(0), should.copied().unwrap_or(0), "count of {}", status.name());
        }
        self.queue.check(ready);
        assert!(self.queue.held.keys().eq(&self.leased), "leased tasks hold their room");
        if self.config.planted != Some(Planted::Unbounded) {
            assert!(self.open_tasks() <= self.config.open_tasks + crate::limits::ITEMS, "queue bound");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_offers_every_detail_and_a_detail_offers_its_stem() {
        let star: Vec<Arc<str>> = vec!["exec:*".into()];
        let one: Vec<Arc<str>> = vec!["exec:true".into()];
        assert!(offers(&star, "exec:true") && offers(&star, "exec"));
        assert!(offers(&one, "exec:true") && offers(&one, "exec"));
        assert!(!offers(&one, "exec:false") && !offers(&one, "execute") && !offers(&star, "other:true"));
    }
}
