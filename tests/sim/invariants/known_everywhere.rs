//! Any node answers for any task: what has ended and is kept is told by every
//! node that is asked.

use super::{Invariant, Seen};
use crate::world::World;

pub(crate) struct KnownEverywhere;

impl Invariant for KnownEverywhere {
    fn name(&self) -> &'static str {
        "known_everywhere"
    }

    fn see(&mut self, world: &World, seen: &Seen<'_>) -> Result<(), String> {
        let Seen::Unknown { node, task, answer } = seen else { return Ok(()) };
        Err(format!("n{node} said of {task}: {answer:?}; {}", world.whereabouts(task)))
    }
}
