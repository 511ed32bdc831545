//! An exclusive task never runs twice at the same time because of a lost
//! owner. (An executor that nobody hears is replaced all the same: what it does
//! then is what the fence is for.)

use super::{Invariant, Seen};
use crate::world::World;

pub(crate) struct ExclusiveAlone;

impl Invariant for ExclusiveAlone {
    fn name(&self) -> &'static str {
        "exclusive_alone"
    }

    fn see(&mut self, world: &World, seen: &Seen<'_>) -> Result<(), String> {
        let Seen::Started { node, task, fence, spec, .. } = seen else { return Ok(()) };
        let bereft = world.oracle.promises.get(*task).is_some_and(|p| p.bereft);
        if !spec.exclusive || world.faults.silences_executors() || bereft {
            return Ok(());
        }
        let runs = world.oracle.runs.get(*task).into_iter().flatten();
        let mut others = runs.filter(|r| r.until.is_none() && r.submitted_at == spec.submitted_at);
        match others.find(|r| !world.hangs(r.node, task, r.fence)) {
            None => Ok(()),
            Some(other) => Err(format!(
                "{task} starts on n{node} under {fence:?} while it runs on n{} under {:?}",
                other.node, other.fence
            )),
        }
    }
}
