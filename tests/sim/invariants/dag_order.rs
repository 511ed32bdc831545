//! No task starts before what it depends on has completed, for good; no step is
//! born before its join is met by ends that majorities have, and none undoes
//! another before its turn.

use super::{Invariant, Seen};
use crate::model::{Met, Shape, Stand, is_birth, step_task};
use crate::world::World;
use taskmesh_core::view::Status;
use taskmesh_core::{Spec, TaskId};

pub(crate) struct DagOrder;

impl Invariant for DagOrder {
    fn name(&self) -> &'static str {
        "dag_order"
    }

    fn see(&mut self, world: &World, seen: &Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::Started { node, task, spec, .. } => dependencies_completed(world, *node, task, spec),
            Seen::Kept { node, record, .. } if is_birth(*node, record) => {
                let task = &record.task;
                in_turn(world, task).map_err(|problem| format!("n{node} begins {task}, and {problem}"))
            }
            _ => Ok(()),
        }
    }
}

fn dependencies_completed(world: &World, node: usize, task: &TaskId, spec: &Spec) -> Result<(), String> {
    let workflow = world.oracle.flows.step(task).is_some();
    // The steps of a workflow carry its dependencies no further.
    for needed in spec.depends_on.iter().filter(|_| !workflow) {
        let promise = world.oracle.promises.get(needed);
        let completed = promise.is_some_and(|p| p.outcomes().any(|e| e.status == Status::Completed));
        if !completed {
            return Err(format!("n{node} starts {task}, and {needed} has not completed"));
        }
    }
    Ok(())
}

fn in_turn(world: &World, task: &TaskId) -> Result<(), String> {
    let Some((workflow, shape, n)) = world.oracle.flows.step(task) else { return Ok(()) };
    let stands = world.stands(&workflow, &shape);
    if shape.undoes(n) {
        return undone_in_turn(world, &workflow, &shape, n, &stands);
    }
    match shape.met(n, &stands) {
        Met::Yes => Ok(()),
        met => Err(format!("its join {} is {met:?} by {stands:?}", shape.step(n).join)),
    }
}

/// Everything has ended, the workflow fails, and what ended later is undone.
fn undone_in_turn(
    world: &World,
    workflow: &TaskId,
    shape: &Shape,
    undoing: usize,
    stands: &[Stand],
) -> Result<(), String> {
    if !shape.all_ended(stands) || !shape.fails(stands) {
        return Err(format!("nothing is to be undone yet by {stands:?}"));
    }
    let ended = |n: usize| {
        let promise = world.oracle.promises.get(&step_task(workflow, shape, n))?;
        promise.outcomes().find_map(|ending| ending.by).map(|(_, at)| (at, n))
    };
    let undone = (0..shape.len()).find(|n| shape.undone_by(*n) == Some(undoing)).expect("it undoes one");
    let Some(when) = ended(undone) else { return Err(format!("{} never began", shape.name(undone))) };
    let before = (0..shape.len()).find(|n| {
        let waits = shape.undone_by(*n).is_some_and(|by| stands[by] == Stand::Open);
        waits && ended(*n).is_some_and(|at| at > when)
    });
    before.map_or(Ok(()), |n| Err(format!("{} is to be undone before", shape.name(n))))
}
