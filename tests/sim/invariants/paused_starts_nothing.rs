//! A node that knows of a pause starts nothing.

use super::{Invariant, Seen};
use crate::world::World;
use taskmesh_core::{Effect, Entry};

pub(crate) struct PausedStartsNothing;

impl Invariant for PausedStartsNothing {
    fn name(&self) -> &'static str {
        "paused_starts_nothing"
    }

    fn see(&mut self, world: &World, seen: &Seen<'_>) -> Result<(), String> {
        let Seen::Batch { node, effects } = seen else { return Ok(()) };
        let mut paused = world.hosts[*node].disk.controls.paused.is_some();
        for effect in *effects {
            match effect {
                Effect::Persist(Entry::Controls(controls)) => paused = controls.paused.is_some(),
                Effect::Run { task, .. } if paused => return Err(format!("n{node} is paused and starts {task}")),
                _ => {}
            }
        }
        Ok(())
    }
}
