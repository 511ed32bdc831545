//! A holder pledges upwards only, keeps nothing below its pledge, and never
//! goes back to an older version.

use super::{Invariant, Seen};
use crate::world::World;
use taskmesh_core::{Ballot, NodeId, Record, TaskId};

pub(crate) struct PledgeMonotonic;

impl Invariant for PledgeMonotonic {
    fn name(&self) -> &'static str {
        "pledge_monotonic"
    }

    fn see(&mut self, world: &World, seen: &Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::Kept { node, pledge, record } => kept_upwards(world, *node, *pledge, record),
            Seen::Vowed { node, task, ballot } => vowed_upwards(world, *node, task, *ballot),
            _ => Ok(()),
        }
    }
}

fn vowed_upwards(world: &World, node: usize, task: &TaskId, ballot: Ballot) -> Result<(), String> {
    let disk = &world.hosts[node].disk;
    if let Some((before, _)) = disk.vows.get(task).filter(|(before, _)| *before > ballot) {
        return Err(format!("n{node} vows {ballot:?} of {task} after {before:?}"));
    }
    if disk.copies.contains_key(task) {
        return Err(format!("n{node} vows {ballot:?} of {task}, of which it has a record"));
    }
    Ok(())
}

fn kept_upwards(world: &World, node: usize, pledge: Ballot, record: &Record) -> Result<(), String> {
    let task = &record.task;
    if let Some((vow, _)) =
        world.hosts[node].disk.vows.get(task).filter(|(vow, _)| *vow > pledge && record.stamp.ballot.epoch > 1)
    {
        return Err(format!("n{node} pledges {pledge:?} of {task} after the vow {vow:?}"));
    }
    if record.stamp.ballot > pledge {
        return Err(format!("n{node} keeps {:?} of {task} above its pledge {pledge:?}", record.stamp));
    }
    let Some(before) = world.hosts[node].disk.copies.get(task).filter(|c| c.record.birth == record.birth) else {
        return Ok(());
    };
    if pledge < before.pledge {
        return Err(format!("n{node} pledges {pledge:?} of {task} after {:?}", before.pledge));
    }
    let (old, new) = (before.record.stamp, record.stamp);
    if new < old {
        return Err(format!("n{node} goes back from {old:?} to {new:?} of {task}"));
    }
    // One that claimed and learns that it is not to be a holder keeps what it
    // learnt, and votes for nothing by that.
    let me = NodeId::test(node as u64);
    let learns = !record.holders.contains(&me);
    if new > old && new.ballot < before.pledge && !learns {
        return Err(format!("n{node} takes {new:?} of {task} below its pledge {:?}", before.pledge));
    }
    Ok(())
}
