//! A holder pledges upwards only, keeps nothing below its pledge, and never
//! goes back to an older version.

use super::{Invariant, Seen};
use crate::world::World;

pub(crate) struct PledgeMonotonic;

impl Invariant for PledgeMonotonic {
    fn name(&self) -> &'static str {
        "pledge_monotonic"
    }

    fn see(&mut self, world: &World, seen: &Seen<'_>) -> Result<(), String> {
        let Seen::Kept { node, pledge, record } = seen else { return Ok(()) };
        let task = &record.task;
        if record.stamp.ballot > *pledge {
            return Err(format!("n{node} keeps {:?} of {task} above its pledge {pledge:?}", record.stamp));
        }
        let Some(before) = world.hosts[*node].disk.copies.get(task).filter(|c| c.record.birth == record.birth) else {
            return Ok(());
        };
        if *pledge < before.pledge {
            return Err(format!("n{node} pledges {pledge:?} of {task} after {:?}", before.pledge));
        }
        let (old, new) = (before.record.stamp, record.stamp);
        if new < old {
            return Err(format!("n{node} goes back from {old:?} to {new:?} of {task}"));
        }
        if new > old && new.ballot < before.pledge {
            return Err(format!("n{node} takes {new:?} of {task} below its pledge {:?}", before.pledge));
        }
        Ok(())
    }
}
