//! What was accepted ends, within a bound after the faults are over.

use super::Invariant;
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
    open.filter(|(task, _)| world.hosts.iter().any(|h| h.disk.copies.contains_key(*task))).map(|(task, _)| task)
}
