//! A step begins only if its condition holds, with what the steps before it
//! left; a workflow ends as its steps did, with what they left; and what was
//! skipped had to be.

use super::{Invariant, Seen};
use crate::model::{Holds, Shape, Stand, is_birth, step_task};
use crate::oracle::Ending;
use crate::world::World;
use serde_json::Value;
use taskmesh_core::task::Data;
use taskmesh_core::view::Status;
use taskmesh_core::workflow::Join;
use taskmesh_core::{Record, TaskId};

pub(crate) struct JoinPolicyKept;

impl Invariant for JoinPolicyKept {
    fn name(&self) -> &'static str {
        "join_policy_kept"
    }

    fn see(&mut self, world: &World, seen: &Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::Kept { node, record, .. } if is_birth(*node, record) => {
                begins_rightly(world, *node, record).map_err(|e| format!("n{node} begins {}: {e}", record.task))
            }
            Seen::Told { node, task, ending } => {
                ends_rightly(world, task, ending).map_err(|e| format!("n{node} told {ending:?} of {task}: {e}"))
            }
            _ => Ok(()),
        }
    }
}

fn begins_rightly(world: &World, node: usize, record: &Record) -> Result<(), String> {
    let task = &record.task;
    let Some((workflow, shape, n)) = world.oracle.flows.step(task) else { return Ok(()) };
    let stands = world.stands(&workflow, &shape);
    match world.holds(&workflow, &shape, n, &stands) {
        Holds::Yes => {}
        holds => return Err(format!("its condition {:?} is {holds:?} by {stands:?}", shape.step(n).when)),
    }
    let Some(wanted) = world.handed_to(&workflow, &shape, n).filter(|_| shape.step(n).for_each.is_none()) else {
        return Ok(());
    };
    let spec = world.hosts[node].disk.specs.get(task).expect("a spec is written first");
    let payload: Value = serde_json::from_slice(&spec.payload).map_err(|e| e.to_string())?;
    let given = &payload["of"];
    // What has not ended when others were enough is not waited for.
    let others_were_enough = matches!(shape.step(n).join, Join::Any | Join::Quorum(_)) && given.is_null();
    if *given == wanted || others_were_enough {
        return Ok(());
    }
    Err(format!("it is handed {given} instead of {wanted}"))
}

fn ends_rightly(world: &World, workflow: &TaskId, ending: &Ending) -> Result<(), String> {
    let Some(shape) = world.oracle.flows.shape(workflow) else { return Ok(()) };
    if !matches!(ending.status, Status::Completed | Status::Failed) {
        return Ok(());
    }
    let stands = world.stands(workflow, shape);
    let by = || (0..shape.len()).map(|n| format!("{} {:?}", shape.name(n), stands[n])).collect::<Vec<_>>();
    if !shape.all_ended(&stands) {
        return Err(format!("steps are open: {:?}", by()));
    }
    if shape.fails(&stands) != (ending.status == Status::Failed) {
        return Err(format!("by its steps it is not: {:?}", by()));
    }
    if ending.status == Status::Failed {
        return undone(world, workflow, shape, &stands);
    }
    let Some(Data::Inline(told)) = &ending.result else { return Ok(()) };
    let told: Value = serde_json::from_slice(told).map_err(|e| e.to_string())?;
    let wanted = world.whole_result(workflow, shape);
    if told == wanted { Ok(()) } else { Err(format!("its steps left {wanted}")) }
}

/// What can be undone of what began was.
fn undone(world: &World, workflow: &TaskId, shape: &Shape, stands: &[Stand]) -> Result<(), String> {
    let began = |n: &usize| !world.oracle.flows.births(&step_task(workflow, shape, *n)).is_empty();
    let left = (0..shape.len()).filter(began).find(|n| shape.undone_by(*n).is_some_and(|by| stands[by] == Stand::Open));
    left.map_or(Ok(()), |n| Err(format!("{} was not undone", shape.name(n))))
}
