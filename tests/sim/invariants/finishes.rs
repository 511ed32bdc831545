//! What was accepted ends, within a bound after the faults are over.

use super::Invariant;
use crate::disk::Copy;
use crate::world::World;
use taskmesh_core::TaskId;

pub(crate) struct Finishes;

impl Invariant for Finishes {
    fn name(&self) -> &'static str {
        "finishes"
    }

    fn at_rest(&mut self, world: &World) -> Vec<String> {
        unfinished(world)
            .map(|task| format!("{task} was accepted and has not ended: {}", world.whereabouts(task)))
            .collect()
    }
}

/// Accepted tasks without an outcome that somebody still has.
pub(crate) fn unfinished(world: &World) -> impl Iterator<Item = &TaskId> {
    let open = world.oracle.promises.iter().filter(|(_, p)| p.open());
    let copies = |task| world.hosts.iter().filter_map(move |h| h.disk.copies.get(task));
    open.filter(move |(task, p)| {
        let covered = |c: &Copy| !(p.local && world.born_among_the_dead(&c.record));
        copies(*task).any(covered)
    })
    .map(|(task, _)| task)
}
