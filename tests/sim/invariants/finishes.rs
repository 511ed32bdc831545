//! What was accepted ends, within a bound after the faults are over, and so do
//! the steps of a workflow and the items of an array that have ended.

use super::Invariant;
use crate::disk::Copy;
use crate::world::World;
use taskmesh_core::{Record, TaskId};

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
    let accepted = open
        .filter(move |(task, p)| {
            let covered = |c: &Copy| !(p.local && world.born_among_the_dead(&c.record));
            copies(*task).any(covered)
        })
        .map(|(task, _)| task);
    accepted.chain(left_open(world))
}

/// Steps and items that are open though what they belong to has ended.
fn left_open(world: &World) -> impl Iterator<Item = &TaskId> {
    let over = |workflow: &TaskId| world.oracle.promises.get(workflow).is_some_and(|p| !p.decided.is_empty());
    let open = |task: &TaskId| world.oracle.promises.get(task).is_none_or(|p| p.decided.is_empty());
    let copies = world.hosts.iter().flat_map(|h| h.disk.copies.values()).map(|c| &c.record);
    let acts = |r: &Record| r.holders.contains(&r.owner()) && world.copy_of(r.owner(), &r.task).is_some();
    copies
        .filter(move |r| open(&r.task) && acts(r))
        .map(|r| &r.task)
        .filter(move |task| world.oracle.flows.born_of(task).is_some_and(|parent| over(&parent)))
}
