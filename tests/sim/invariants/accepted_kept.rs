//! What was accepted is on the disks of a majority of its holders by then, and
//! stays somewhere until it has ended.

use super::{Invariant, Seen};
use crate::world::World;
use taskmesh_core::record::Birth;
use taskmesh_core::{Key, NodeId, Record, TaskId};

pub(crate) struct AcceptedKept;

impl Invariant for AcceptedKept {
    fn name(&self) -> &'static str {
        "accepted_kept"
    }

    fn see(&mut self, world: &World, seen: &Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::Accepted { node, task } => kept_by_majority(world, *node, task),
            Seen::Forgotten { node, key: Key::Task(task) } => needed_no_more(world, *node, task),
            _ => Ok(()),
        }
    }

    fn at_rest(&mut self, world: &World) -> Vec<String> {
        let lost = lost(world);
        lost.map(|task| format!("{task} was accepted, has not ended, and is on no disk")).collect()
    }
}

fn kept_by_majority(world: &World, node: usize, task: &TaskId) -> Result<(), String> {
    let promise = &world.oracle.promises[task];
    if promise.local || promise.ended() {
        return Ok(());
    }
    let births = world.births_of(task);
    let safe = births.iter().filter_map(|birth| newest(world, task, *birth)).find(|record| {
        let has = |h: &&NodeId| {
            world.gone(**h, task) || world.copy_of(**h, task).is_some_and(|c| c.record.birth == record.birth)
        };
        // While a change is under way, the prior holders decide.
        let deciding = if record.prior.is_empty() { &record.holders } else { &record.prior };
        deciding.iter().filter(has).count() * 2 > deciding.len()
    });
    let Some(record) = safe else {
        return Err(format!("n{node} accepted {task}; too few keep it: {}", world.whereabouts(task)));
    };
    if world.full_number_is_known(node) && record.holders.len() < 3.min(world.faults.holders) {
        return Err(format!("n{node} accepted {task} with holders {:?} only", record.holders));
    }
    Ok(())
}

/// Only what has ended is forgotten by those that should keep it.
fn needed_no_more(world: &World, node: usize, task: &TaskId) -> Result<(), String> {
    let me = NodeId::test(node as u64);
    let Some(birth) = world.copy_of(me, task).map(|c| c.record.birth) else { return Ok(()) };
    let open = world.oracle.promises.get(task).is_some_and(|p| p.open() && !p.gave_up(birth));
    let keeper = newest(world, task, birth).is_some_and(|record| record.kept_by(me));
    // Accepted on one copy alone, it gives way to another task of its id.
    let other = |h: &crate::world::Host| h.disk.copies.get(task).is_some_and(|c| c.record.birth != birth);
    if world.oracle.promises.get(task).is_some_and(|p| p.local) && world.hosts.iter().any(other) {
        return Ok(());
    }
    if !open || !keeper {
        return Ok(());
    }
    Err(format!("n{node} forgets {task}, which has not ended: {}", world.whereabouts(task)))
}

fn newest<'a>(world: &'a World, task: &TaskId, birth: Birth) -> Option<&'a Record> {
    let copies = world.hosts.iter().filter_map(|h| h.disk.copies.get(task));
    copies.map(|c| &c.record).filter(|r| r.birth == birth).max_by_key(|r| r.stamp)
}

/// Accepted tasks that nobody has any more, though they never ended.
pub(crate) fn lost(world: &World) -> impl Iterator<Item = &TaskId> {
    let accepted = world.oracle.promises.iter().filter(|(_, p)| p.open());
    accepted
        .filter(move |(task, p)| {
            let kept = world.hosts.iter().any(|h| h.disk.copies.contains_key(*task));
            // One copy was enough for its client, and a fault took that one.
            let taken = p.local && p.births.iter().all(|birth| world.gone(birth.node, task));
            !kept && !taken
        })
        .map(|(task, _)| task)
}
