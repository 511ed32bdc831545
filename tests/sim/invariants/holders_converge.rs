//! In the end every holder that is there has the same version of what it
//! keeps, and no place is held by a node that is gone for ever.

use super::Invariant;
use crate::disk::Copy;
use crate::world::{Fate, World, index};
use std::collections::BTreeMap;
use taskmesh_core::{Record, TaskId};

pub(crate) struct HoldersConverge;

impl Invariant for HoldersConverge {
    fn name(&self) -> &'static str {
        "holders_converge"
    }

    fn at_rest(&mut self, world: &World) -> Vec<String> {
        diverged(world)
    }
}

/// What is wrong with the copies.
pub(crate) fn diverged(world: &World) -> Vec<String> {
    let mut newest: BTreeMap<&TaskId, &Copy> = BTreeMap::new();
    for copy in world.hosts.iter().flat_map(|h| h.disk.copies.values()) {
        let best = newest.entry(&copy.record.task).or_insert(copy);
        if copy.record.stamp > best.record.stamp {
            *best = copy;
        }
    }
    // Where no holder has it any more, it was forgotten: what others have left
    // over is for their next look.
    let kept = |copy: &&Copy| {
        let record = &copy.record;
        record.holders.iter().any(|h| world.hosts[index(*h)].disk.copies.contains_key(&record.task))
    };
    // A later owner forgot it: what an earlier one has left over ends there.
    let forgotten = |copy: &&Copy| {
        let record = &copy.record;
        world.oracle.promises.get(&record.task).is_some_and(|p| p.forgotten > record.stamp.ballot)
    };
    // What it left was lost with most of its holders: nobody can take a copy.
    let hollow = |copy: &&Copy| {
        let there = |hash| world.hosts.iter().any(|h| h.disk.blobs.contains(&hash));
        let bereft = world.oracle.promises.get(&copy.record.task).is_some_and(|p| p.bereft);
        let report = copy.record.body.state.closed().and_then(|c| c.report.as_ref());
        bereft && report.is_some_and(|r| r.blobs().any(|(hash, _)| !there(hash)))
    };
    let apart = |copy: &&Copy| world.born_among_the_dead(&copy.record) || hollow(copy);
    let to_see = |copy: &&Copy| kept(copy) && !forgotten(copy) && !apart(copy);
    newest.into_values().filter(to_see).filter_map(|copy| problem(world, &copy.record)).collect()
}

fn problem(world: &World, record: &Record) -> Option<String> {
    let task = &record.task;
    for holder in &record.holders {
        let host = &world.hosts[index(*holder)];
        let here = host.disk.copies.get(task);
        if host.fate == Fate::Destroyed {
            return Some(format!("{task} has holder {holder:?}, which is gone: {}", world.whereabouts(task)));
        }
        if here.is_none_or(|c| c.record.stamp != record.stamp) {
            return Some(format!("{task} differs on {holder:?}: {}", world.whereabouts(task)));
        }
    }
    (!record.prior.is_empty()).then(|| format!("{task} still has prior holders: {}", world.whereabouts(task)))
}
