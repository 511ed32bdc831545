//! An outcome, once decided or told, never changes.

use super::{Invariant, Seen};
use crate::world::World;
use taskmesh_core::TaskId;

pub(crate) struct OutcomeUnique;

impl Invariant for OutcomeUnique {
    fn name(&self) -> &'static str {
        "outcome_unique"
    }

    fn see(&mut self, world: &World, seen: &Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::DecidedAnew { task, before, after } => {
                Err(format!("{task} was decided as {before:?}, then as {after:?}"))
            }
            Seen::Told { node, task, ending } => {
                let Some(promise) = world.oracle.promises.get(*task) else {
                    return Err(format!("n{node} told the end of {task}, which nobody has"));
                };
                // It was on its way when all who knew it were destroyed.
                if promise.lost.iter().any(|lost| lost.agrees(ending)) {
                    return Ok(());
                }
                if !promise.outcomes().any(|decided| decided.agrees(ending)) {
                    let decided: Vec<_> = promise.outcomes().collect();
                    return Err(format!("n{node} told {ending:?} of {task}; decided was {decided:?}"));
                }
                match promise.told.iter().find(|told| !told.agrees(ending)) {
                    Some(told) if promise.outcomes().count() < 2 => {
                        Err(format!("n{node} told {ending:?} of {task}; told before was {told:?}"))
                    }
                    Some(_) | None => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }
}

/// Tasks of which clients were told two different ends.
pub(crate) fn conflicting(world: &World) -> impl Iterator<Item = &TaskId> {
    let promises = world.oracle.promises.iter().filter(|(_, p)| p.outcomes().count() < 2);
    promises.filter(|(_, p)| p.told.iter().any(|t| !t.agrees(&p.told[0]))).map(|(task, _)| task)
}
