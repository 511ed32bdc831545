//! No task starts before what it depends on has completed, for good.

use super::{Invariant, Seen};
use crate::world::World;
use taskmesh_core::view::Status;

pub(crate) struct DagOrder;

impl Invariant for DagOrder {
    fn name(&self) -> &'static str {
        "dag_order"
    }

    fn see(&mut self, world: &World, seen: &Seen<'_>) -> Result<(), String> {
        let Seen::Started { node, task, spec, .. } = seen else { return Ok(()) };
        for needed in &spec.depends_on {
            let promise = world.oracle.promises.get(needed);
            let completed = promise.is_some_and(|p| p.outcomes().any(|e| e.status == Status::Completed));
            if !completed {
                return Err(format!("n{node} starts {task}, and {needed} has not completed"));
            }
        }
        Ok(())
    }
}
