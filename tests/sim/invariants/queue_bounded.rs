//! A node takes no submission over its bound of open tasks. (What it adopts
//! from a lost owner it must take, and the steps and items of what it took. Those
//! of an array count before they have a record.)

use super::{Invariant, Seen};
use crate::world::World;
use taskmesh_core::{Effect, Entry, NodeId, Record, Stamp};

pub(crate) struct QueueBounded;

impl Invariant for QueueBounded {
    fn name(&self) -> &'static str {
        "queue_bounded"
    }

    fn see(&mut self, world: &World, seen: &Seen<'_>) -> Result<(), String> {
        let Seen::Batch { node, effects } = seen else { return Ok(()) };
        let me = NodeId::test(*node as u64);
        let bound = world.hosts[*node].config.open_tasks;
        // A pledge writes the same version again.
        let there = |r: &Record| world.copy_of(me, &r.task).is_some_and(|c| c.record.birth == r.birth);
        let flows = &world.oracle.flows;
        let steps = |r: &Record| flows.born_of(&r.task).is_some() || flows.is_array(&r.task);
        let births = effects.iter().filter_map(kept).filter(|r| born_here(r, me) && !there(r) && !steps(r)).count();
        if births == 0 {
            return Ok(());
        }
        let open = world.hosts[*node].disk.copies.values().filter(|c| !c.record.closed() && c.record.owner() == me);
        let accepted_here = open.filter(|c| c.record.birth.node == me && !steps(&c.record)).count();
        if accepted_here + births > bound + closed_in(effects, me) {
            return Err(format!("n{node} has {accepted_here} open tasks of its own and takes {births} more"));
        }
        Ok(())
    }
}

fn kept(effect: &Effect) -> Option<&Record> {
    match effect {
        Effect::Persist(Entry::Record { record, .. }) => Some(record),
        _ => None,
    }
}

fn born_here(record: &Record, me: NodeId) -> bool {
    let first = Stamp { ballot: taskmesh_core::Ballot { epoch: 1, owner: me }, revision: 0 };
    record.stamp == first && record.birth.node == me && !record.closed()
}

/// Tasks that end in the same batch make room in it.
fn closed_in(effects: &[Effect], me: NodeId) -> usize {
    effects.iter().filter_map(kept).filter(|r| r.closed() && r.owner() == me).count()
}
