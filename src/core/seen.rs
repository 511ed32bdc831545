//! Workers of other nodes, as an owner sees them: by their own accounts, and by what it
//! granted to them.

use crate::command::WorkerSpec;
use crate::ids::{NodeId, WorkerId};
use crate::node::Node;
use crate::placement::way;
use crate::task::{Requirements, Resources};
use crate::time::Millis;

/// A worker of another node, as it was last heard of.
pub(crate) struct Seen {
    pub(crate) spec: WorkerSpec,
    /// Grants that it would take, as far as this node can tell.
    pub(crate) free: u32,
    /// Grants sent to it that it has not confirmed: its own account may not
    /// include them yet.
    unconfirmed: u32,
    /// What this node's own grants hold of it.
    pub(crate) held: Resources,
    /// It declined a task for want of resources: until when nothing that holds any is
    /// granted to it, and how long that is. What other owners' tasks hold of it, no
    /// owner knows.
    refused: Option<(Millis, Millis)>,
}

impl Seen {
    pub(crate) fn new(spec: WorkerSpec) -> Seen {
        Seen { spec, free: 0, unconfirmed: 0, held: Resources::default(), refused: None }
    }

    /// Its own account of its room.
    pub(crate) fn report(&mut self, free: u32) {
        self.free = free.saturating_sub(self.unconfirmed);
    }

    /// It has slots, and not the resources that a task was to hold. Longer each time,
    /// as long as it goes on.
    fn refuse(&mut self, now: Millis, first: Millis, longest: Millis) {
        let wait = match self.refused {
            Some((until, _)) if now < until => return,
            Some((until, wait)) if now < until + wait + wait => (wait + wait).min(longest),
            Some(_) | None => first,
        };
        self.refused = Some((now + wait, wait));
    }

    /// Its word, of a moment ago, that it has too little.
    pub(crate) fn refuses(&self, need: &Requirements, now: Millis) -> bool {
        need.hold_something() && self.refused.is_some_and(|(until, _)| now < until)
    }

    /// What a task would hold of it, if that is free.
    pub(crate) fn way_now(&self, need: &Requirements) -> Option<Resources> {
        way(&self.spec, need, |n| self.spec.resources.as_ref().is_none_or(|have| have.covers(&self.held.with(n))))
    }

    /// It restarted: nothing that was granted to it is there any more.
    pub(crate) fn forget_grants(&mut self) {
        self.unconfirmed = 0;
        self.free = 0;
    }
}

impl Node {
    pub(crate) fn seen(&self, node: NodeId, worker: &WorkerId) -> Option<&Seen> {
        self.members.get(&node)?.workers.get(worker)
    }

    /// A grant was declined though there are slots.
    pub(crate) fn on_refused(&mut self, node: NodeId, worker: &WorkerId) {
        let (now, first, longest) = (self.now, self.config.retransmit, self.config.lease);
        if let Some(seen) = self.members.get_mut(&node).and_then(|m| m.workers.get_mut(worker)) {
            seen.refuse(now, first, longest);
        }
    }

    pub(crate) fn take_room(&mut self, node: NodeId, worker: &WorkerId, need: &Resources) {
        if let Some(seen) = self.members.get_mut(&node).and_then(|m| m.workers.get_mut(worker)) {
            seen.free = seen.free.saturating_sub(1);
            seen.held.add(need);
        }
    }

    pub(crate) fn return_room(&mut self, node: NodeId, worker: &WorkerId, need: &Resources) {
        if let Some(seen) = self.members.get_mut(&node).and_then(|m| m.workers.get_mut(worker)) {
            seen.free = seen.free.saturating_add(1);
            seen.held.subtract(need);
        }
    }

    pub(crate) fn await_confirmation(&mut self, node: NodeId, worker: &WorkerId) {
        if let Some(seen) = self.members.get_mut(&node).and_then(|m| m.workers.get_mut(worker)) {
            seen.unconfirmed += 1;
        }
    }

    pub(crate) fn confirmed(&mut self, node: NodeId, worker: &WorkerId) {
        if let Some(seen) = self.members.get_mut(&node).and_then(|m| m.workers.get_mut(worker)) {
            seen.unconfirmed = seen.unconfirmed.saturating_sub(1);
        }
    }

    pub(crate) fn on_room(&mut self, from: NodeId, free: &[(WorkerId, u32)]) {
        let Some(member) = self.members.get_mut(&from) else { return };
        let mut more = false;
        for (worker, free) in free {
            if let Some(seen) = member.workers.get_mut(worker) {
                seen.report(*free);
                more |= *free > 0;
            }
        }
        if more {
            self.queue.stir();
        }
    }
}
