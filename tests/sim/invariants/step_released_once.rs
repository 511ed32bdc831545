//! A step, or an item of an array, is one task: two births of it never both run with different work, and
//! once a majority knows its end, nobody who could know runs it again. A step
//! that ended is kept for the retention and twice `away` while nobody leads its
//! workflow; one that was without a leader for longer may run again.

use super::{Invariant, Seen};
use crate::world::{EPOCH, World};
use std::collections::BTreeMap;
use taskmesh_core::record::Birth;
use taskmesh_core::{Fence, Spec, TaskId, Unix};

#[derive(Default)]
pub(crate) struct StepReleasedOnce {
    /// Which births of a step ran.
    ran: BTreeMap<TaskId, Vec<(Birth, Spec)>>,
}

impl Invariant for StepReleasedOnce {
    fn name(&self) -> &'static str {
        "step_released_once"
    }

    fn see(&mut self, world: &World, seen: &Seen<'_>) -> Result<(), String> {
        let Seen::Started { node, task, fence, spec } = seen else { return Ok(()) };
        let births = world.oracle.flows.births(task);
        let Some((birth, _)) = births.iter().find(|(_, born)| **born == **spec) else { return Ok(()) };
        // Of an id that was taken on both sides of a cut there are two workflows.
        if world.oracle.flows.step(task).is_some() {
            not_over(world, *node, task, *birth, *fence)?;
        }
        let ran = self.ran.entry((*task).clone()).or_default();
        if ran.iter().all(|(before, _)| before != birth) {
            ran.push((*birth, Spec { submitted_at: Unix(0), ..(**spec).clone() }));
        }
        match ran.iter().find(|(_, work)| *work != ran[0].1) {
            None => Ok(()),
            Some((other, work)) => Err(format!(
                "n{node} starts {task}, born as {birth:?}, and {other:?} ran with other work: {} and {}",
                String::from_utf8_lossy(&work.payload),
                String::from_utf8_lossy(&ran[0].1.payload),
            )),
        }
    }
}

/// A grant by a right that came before the end may arrive late; none is given
/// by a later one.
fn not_over(world: &World, node: usize, task: &TaskId, birth: Birth, fence: Fence) -> Result<(), String> {
    let Some(promise) = world.oracle.promises.get(task) else { return Ok(()) };
    for (decided, ending) in &promise.decided {
        let later = ending.by.is_some_and(|(by, _)| fence > by);
        let config = &world.hosts[node].config;
        let kept = config.retention.0 + 2 * config.away.0;
        if ending.by.is_some_and(|(_, at)| EPOCH + world.now > at.0 + kept) {
            continue;
        }
        if *decided != birth || later {
            let places = world.whereabouts(task);
            return Err(format!(
                "n{node} starts {task} of {birth:?} under {fence:?}; {decided:?} ended: {ending:?}{places}"
            ));
        }
    }
    Ok(())
}
