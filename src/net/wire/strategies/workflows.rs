//! What is shown of workflows, drawn at random within the limits.

use super::super::check::{COUNT, COUNTER};
use super::{Any, long, report, short, unix, worker};
use proptest::collection::{btree_map, vec};
use proptest::option::of;
use proptest::prelude::*;
use std::sync::Arc;
use taskmesh_core::TaskId;
use taskmesh_core::view::{StepView, WorkflowView};

pub(super) fn workflow_view() -> Any<WorkflowView> {
    let definition = vec(any::<u8>(), 0..100).prop_map(Arc::from);
    (
        (short(), of(unix()), (0..=COUNT, 0..=COUNT), 0..=1000u32, btree_map(short(), 0..=COUNTER, 0..4)),
        (vec(short(), 0..3), of(vec(step(), 0..4)), vec(short(), 0..3), of(definition), of(any::<u32>())),
    )
        .prop_map(|((name, started_at, tasks, ended_milli, tally), rest)| {
            let (current, steps, critical_path, definition, next_item) = rest;
            WorkflowView {
                name,
                started_at,
                tasks,
                ended_milli,
                tally,
                current,
                steps,
                critical_path,
                definition,
                next_item,
            }
        })
        .boxed()
}

fn step() -> Any<StepView> {
    let name = "[A-Za-z0-9_-]{1,20}".prop_map(Arc::from);
    let status = "[a-z_]{0,20}".prop_map(Arc::from);
    (
        (name, status, any::<bool>(), 0..=COUNTER, of(worker()), [of(unix()), of(unix())]),
        (of(long()), of((0..=COUNT, 0..=COUNT)), of(report()), any::<bool>()),
    )
        .prop_map(|((step, status, begun, attempt, worker, [started_at, ended_at]), rest)| {
            let (error, tasks, report, report_left_out) = rest;
            let task = begun.then(|| TaskId::new("begun").expect("a valid name"));
            StepView {
                step,
                status,
                task,
                attempt,
                worker,
                started_at,
                ended_at,
                error,
                tasks,
                report,
                report_left_out,
            }
        })
        .boxed()
}

/// The same with the ids that steps of `task` have.
pub(super) fn of_task(mut view: WorkflowView, task: &TaskId) -> WorkflowView {
    for step in view.steps.iter_mut().flatten() {
        step.task = step.task.as_ref().and_then(|_| TaskId::new(&format!("{task}/{}", step.step)).ok());
    }
    view
}
