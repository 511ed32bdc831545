//! One id is one task: two nodes never both take new work under it, unless
//! they could not see each other.

use super::Invariant;
use crate::world::World;
use taskmesh_core::TaskId;

pub(crate) struct AcceptedOnce;

impl Invariant for AcceptedOnce {
    fn name(&self) -> &'static str {
        "accepted_once"
    }

    fn at_rest(&mut self, world: &World) -> Vec<String> {
        twice(world).map(|task| format!("{task} was accepted twice")).collect()
    }
}

/// Ids that stand for two tasks.
pub(crate) fn twice(world: &World) -> impl Iterator<Item = &TaskId> {
    let shared_view = !world.faults.splits_views();
    // Whoever could have known of the first was destroyed.
    let promises = world.oracle.promises.iter().filter(move |(_, p)| shared_view && !p.void && !p.bereft);
    promises.filter(|(_, p)| p.works.len() > 1 || p.fresh > 1).map(|(task, _)| task)
}
