//! Each request gets exactly one answer, if its node lives.

use super::{Invariant, Seen};
use crate::world::World;

pub(crate) struct AnsweredOnce;

impl Invariant for AnsweredOnce {
    fn name(&self) -> &'static str {
        "answered_once"
    }

    fn see(&mut self, _world: &World, seen: &Seen<'_>) -> Result<(), String> {
        let Seen::Unasked { node, id, reply } = seen else { return Ok(()) };
        Err(format!("n{node} answered {id:?} again, or unasked: {reply:?}"))
    }

    fn at_rest(&mut self, world: &World) -> Vec<String> {
        world.oracle.unanswered(world.now.saturating_sub(PATIENCE)).collect()
    }
}

/// Longer than the longest wait and every timeout.
const PATIENCE: u64 = 90_000;
