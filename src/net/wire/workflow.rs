//! What is shown of a workflow, on the wire: a part of
//! `proto/taskmesh/v1/request.proto`.

use super::check::{self, Checked};
use super::proto;
use super::task::{owned, owned_all, owned_or_none, report_from};
use std::sync::Arc;
use taskmesh_core::view::{StepView, WorkflowView};
use taskmesh_core::{TaskId, Unix, limits};

impl From<&WorkflowView> for proto::WorkflowView {
    fn from(view: &WorkflowView) -> Self {
        proto::WorkflowView {
            name: owned(&view.name),
            started_at: view.started_at.map(|t| t.0),
            tasks: view.tasks.0,
            tasks_ended: view.tasks.1,
            ended_milli: view.ended_milli,
            tally: view.tally.iter().map(|(status, n)| (owned(status), *n)).collect(),
            current: owned_all(&view.current),
            steps: view.steps.as_ref().map(|steps| proto::StepViews { steps: steps.iter().map(Into::into).collect() }),
            critical_path: owned_all(&view.critical_path),
            definition: view.definition.as_ref().map(|text| text.to_vec()),
            next_item: view.next_item,
        }
    }
}

impl From<&StepView> for proto::StepView {
    fn from(view: &StepView) -> Self {
        proto::StepView {
            step: owned(&view.step),
            status: owned(&view.status),
            begun: view.task.is_some(),
            attempt: view.attempt,
            worker: view.worker.as_ref().map(|worker| worker.as_str().to_owned()),
            started_at: view.started_at.map(|t| t.0),
            ended_at: view.ended_at.map(|t| t.0),
            error: owned_or_none(view.error.as_ref()),
            tasks: view.tasks.map(|(all, _)| all),
            tasks_ended: view.tasks.map(|(_, ended)| ended),
            report: view.report.as_ref().map(Into::into),
            report_left_out: view.report_left_out,
        }
    }
}

pub(super) fn workflow_from(task: &TaskId, view: &proto::WorkflowView) -> Checked<WorkflowView> {
    let steps = |steps: &proto::StepViews| {
        check::list("workflow.steps", &steps.steps, limits::STEPS, |step| step_from(task, step))
    };
    let number = |n: &u32| check::counter("workflow.tally", *n);
    Ok(WorkflowView {
        name: check::text("workflow.name", &view.name, limits::TEXT_BYTES)?,
        started_at: view.started_at.map(Unix),
        tasks: (check::count("workflow.tasks", view.tasks)?, check::count("workflow.tasks", view.tasks_ended)?),
        ended_milli: check::at_most("workflow.ended_milli", view.ended_milli, 1000)?,
        tally: check::attributes("workflow.tally", &view.tally, number)?,
        current: check::texts("workflow.current", &view.current, limits::CURRENT_STEPS)?,
        steps: view.steps.as_ref().map(steps).transpose()?,
        critical_path: check::texts("workflow.critical_path", &view.critical_path, limits::STEPS)?,
        definition: check::bytes_or_none("workflow.definition", view.definition.as_deref(), limits::PAYLOAD_BYTES)?,
        next_item: view.next_item,
    })
}

fn step_from(workflow: &TaskId, view: &proto::StepView) -> Checked<StepView> {
    let step: Arc<str> = check::text("step.step", &view.step, limits::STEP_ID_BYTES)?;
    // Its id follows from its name; thousands of them would fill the message.
    let task = view.begun.then(|| check::task("step.step", &format!("{workflow}/{step}"))).transpose()?;
    let tasks = match (view.tasks, view.tasks_ended) {
        (Some(all), Some(ended)) => Some((check::count("step.tasks", all)?, check::count("step.tasks", ended)?)),
        (Some(_), None) | (None, Some(_)) | (None, None) => None,
    };
    Ok(StepView {
        step,
        status: check::text("step.status", &view.status, limits::STEP_ID_BYTES)?,
        task,
        attempt: check::counter("step.attempt", view.attempt)?,
        worker: check::worker_or_none("step.worker", view.worker.as_deref())?,
        started_at: view.started_at.map(Unix),
        ended_at: view.ended_at.map(Unix),
        error: check::text_or_none("step.error", view.error.as_deref(), limits::REASON_BYTES)?,
        tasks,
        report: view.report.as_ref().map(report_from).transpose()?,
        report_left_out: view.report_left_out,
    })
}
