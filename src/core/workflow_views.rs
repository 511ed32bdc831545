//! How a node describes its workflows: how far they have come, step by step.

use crate::command::{Detail, Refusal};
use crate::ids::TaskId;
use crate::limits;
use crate::node::Node;
use crate::step_inputs::Next;
use crate::steps::{Running, end_of, step_id};
use crate::task::TaskState;
use crate::view::{Foreseen, Reply, Status, StepView, WorkflowView};
use crate::workflow::flow::{End, Flow, Phase};
use crate::workflow::{APPROVE, BUILT_IN, Plan};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

impl Node {
    /// How far a workflow has come; `None` for any other task.
    pub(crate) fn workflow_view(&self, task: &TaskId, detail: Detail) -> Option<WorkflowView> {
        let kept = self.kept.get(task)?;
        if !kept.slot.spec.is_workflow() {
            return None;
        }
        let Some(flow) = self.survey(task) else { return Some(WorkflowView::default()) };
        let over = kept.slot.record.closed();
        let wanted = detail.live || detail.steps;
        let mut tally: BTreeMap<Arc<str>, u32> = BTreeMap::new();
        let (mut current, mut started_at, mut tasks) = (Vec::new(), None, (0, 0));
        let (mut parts, mut counted) = (0, 0);
        let mut steps = Vec::new();
        // Beside the definition, and the plain facts of each step.
        let mut room = limits::ANSWER_BYTES / 2;
        for n in 0..flow.plan.len() {
            let step = self.step_view(task, &flow, n, over, detail, &mut room);
            *tally.entry(step.status.clone()).or_default() += 1;
            let (all, ended) = step.tasks.unwrap_or((1, u64::from(flow.end_of(n).is_some())));
            if !flow.plan.undoes(n) {
                tasks = (tasks.0 + all, tasks.1 + ended);
                (parts, counted) = (parts + part(all, ended, flow.end_of(n).is_some()), counted + 1);
            }
            started_at = [started_at, step.started_at].into_iter().flatten().min();
            if step.task.is_some() && flow.end_of(n).is_none() && wanted && current.len() < limits::CURRENT_STEPS {
                current.push(step.step.clone());
            }
            steps.push(step);
        }
        let took = |n: usize| steps[n].ended_at.zip(steps[n].started_at).map_or(0, |(end, start)| end.since(start).0);
        let measured = (0..steps.len()).any(|n| took(n) > 0);
        let weight = |n: usize| if measured { took(n) } else { 1 };
        let critical_path = if detail.steps { flow.plan.critical_path(&weight) } else { Vec::new() };
        Some(WorkflowView {
            name: flow.plan.definition.name.as_str().into(),
            started_at,
            tasks,
            ended_milli: (parts / counted.max(1)) as u32,
            tally,
            current,
            critical_path: critical_path.into_iter().map(Arc::from).collect(),
            steps: detail.steps.then_some(steps),
            definition: detail.steps.then(|| kept.slot.spec.payload.clone()),
            next_item: None,
        })
    }

    fn step_view(
        &self,
        workflow: &TaskId,
        flow: &Flow,
        n: usize,
        over: bool,
        detail: Detail,
        room: &mut usize,
    ) -> StepView {
        let name = flow.plan.name(n);
        let task = step_id(workflow, &name).ok();
        let kept = task.as_ref().and_then(|task| self.kept.get(task));
        let mut view = StepView {
            step: name.into(),
            status: shown_phase(flow, n, over).into(),
            error: flow.end_of(n).and_then(End::why).map(|why| cut(why, room)),
            ..StepView::default()
        };
        let Some((task, kept)) = task.zip(kept) else { return view };
        let record = &kept.slot.record;
        let closed = record.body.state.closed();
        let waits = *kept.slot.spec.task_type == *APPROVE && closed.is_none();
        // A step that has ended is shown as such once that is promised.
        view.status = match flow.end_of(n) {
            Some(end) => end.status().into(),
            None if waits => "input_required".into(),
            None if closed.is_some() => Status::Running.name().into(),
            None => Node::status_of(kept).name().into(),
        };
        view.attempt = record.body.attempt;
        view.worker = match &record.body.state {
            TaskState::Leased { worker, .. } => Some(worker.clone()),
            TaskState::Done(closed) => closed.executor.as_ref().map(|(_, worker)| worker.clone()),
            TaskState::Blocked | TaskState::Delayed { .. } | TaskState::Queued { .. } => None,
        };
        let lease = kept.lease.as_ref().and_then(|l| l.started_at);
        let own = BUILT_IN.contains(&&*kept.slot.spec.task_type).then_some(kept.slot.spec.submitted_at);
        view.started_at = closed.and_then(|c| c.started_at).or(lease).or(own);
        view.ended_at = closed.map(|c| c.at);
        if kept.slot.spec.is_workflow() {
            view.tasks = self.workflow_view(&task, Detail::default()).map(|inner| inner.tasks);
        }
        let report = closed.filter(|_| detail.report && detail.steps).and_then(|c| c.report.as_ref());
        if let Some(report) = report {
            let size: usize = report.result.inline_len() + report.output.as_ref().map_or(0, |o| o.inline_len());
            view.report_left_out = size > *room;
            if !view.report_left_out {
                *room -= size;
                view.report = Some(crate::task::Report { logs: None, ..report.clone() });
            }
        }
        view.task = Some(task);
        view
    }

    /// Where the steps of a workflow could run, as far as this node knows.
    pub(crate) fn foresee(&self, definition: &[u8]) -> Result<Reply, Refusal> {
        let invalid =
            |e: crate::workflow::Invalid| Refusal::Invalid { field: e.field.into(), problem: e.problem.into() };
        let plan = Plan::read(definition).map_err(invalid)?;
        self.check_actions(&plan)?;
        let foreseen = plan.definition.steps.iter().map(|step| {
            if BUILT_IN.contains(&step.action.as_str()) {
                return Foreseen { step: step.step_id.as_str().into(), nodes: vec![self.id], reason: None };
            }
            let workers = self.feasible_workers(&step.action, &step.requirements);
            let mut nodes: Vec<_> = workers.into_iter().map(|(node, _)| node).collect();
            nodes.dedup();
            let reason = self.feasibility_of(&step.action, &step.requirements).1.map(|(_, why)| why);
            Foreseen { step: step.step_id.as_str().into(), nodes, reason }
        });
        Ok(Reply::Foreseen(foreseen.collect()))
    }

    /// The state of a workflow for those who look at it: as its owner has it, or
    /// made from the records that are here.
    pub(crate) fn survey(&self, workflow: &TaskId) -> Option<Cow<'_, Flow>> {
        if let Some(running) = self.workflows.running.get(workflow) {
            return Some(Cow::Borrowed(&running.flow));
        }
        let plan = Arc::new(Plan::read(&self.kept.get(workflow)?.slot.spec.payload).ok()?);
        let flow = Flow::new(plan.clone());
        let mut seen = Running::of(flow);
        seen.open = true;
        for step in self.parts_of(workflow) {
            let Some(n) = plan.find(&step.as_str()[workflow.as_str().len() + 1..]) else { continue };
            seen.flow.begin(n);
            if let Some(closed) = self.kept[step].slot.record.body.state.closed() {
                seen.flow.end(n, end_of(&closed.outcome));
            }
        }
        let mut looked_at = BTreeSet::new();
        loop {
            let next = seen.flow.ready().find(|n| !looked_at.contains(n));
            let Some(n) = next else { break };
            looked_at.insert(n);
            if let Next::End(end) = self.next_of(workflow, &seen, n) {
                seen.flow.end(n, end);
            }
        }
        Some(Cow::Owned(seen.flow))
    }
}

/// What people are shown of a step that has no record: see [`Node::survey`].
fn shown_phase(flow: &Flow, n: usize, over: bool) -> &'static str {
    match flow.phase(n) {
        Phase::Ended(end) => end.status(),
        Phase::Begun => "running",
        Phase::Waiting | Phase::Ready if flow.plan.undoes(n) && over => "skipped",
        Phase::Waiting | Phase::Ready if over => "cancelled",
        Phase::Waiting | Phase::Ready => "waiting",
    }
}

/// How much of a step has ended, in thousandths. One of no tasks has ended when it
/// is said to have.
fn part(all: u64, ended: u64, over: bool) -> u64 {
    if over { 1000 } else { (ended * 1000).checked_div(all).unwrap_or(0).min(999) }
}

/// Reasons are told whole while there is room, then in short.
fn cut(why: &Arc<str>, room: &mut usize) -> Arc<str> {
    if why.len() <= *room {
        *room -= why.len();
        return why.clone();
    }
    why.chars().take(40).chain(['…']).collect::<String>().into()
}

#[cfg(test)]
mod tests {
    use crate::execution::Verdict;
    use crate::steps::tests::{Bench, workflow};
    use crate::time::Millis;
    use serde_json::{Value, json};

    fn path(bench: &mut Bench) -> String {
        bench.view("w").1.critical_path.join(" ")
    }

    #[test]
    fn the_critical_path_is_of_the_most_steps_until_times_were_measured() {
        let mut bench = Bench::new();
        let steps = json!([
            {"step_id": "a", "action": "echo"},
            {"step_id": "b", "action": "echo", "depends_on": ["a"]},
            {"step_id": "slow", "action": "echo"},
            {"step_id": "end", "action": "echo", "depends_on": ["b", "slow"]},
        ]);
        bench.submit("w", workflow(steps)).expect("taken");
        assert_eq!(path(&mut bench), "a b end", "three steps are more than two");
        bench.wait(Millis(1_000));
        bench.end("w/a", Verdict::Completed, &Value::Null);
        bench.wait(Millis(1_000));
        bench.end("w/b", Verdict::Completed, &Value::Null);
        assert_eq!(path(&mut bench), "a b", "as far as it was measured");
        bench.wait(Millis(60_000));
        bench.end("w/slow", Verdict::Completed, &Value::Null);
        bench.wait(Millis(1_000));
        bench.end("w/end", Verdict::Completed, &Value::Null);
        assert_eq!(path(&mut bench), "slow end", "a minute is more than seconds");
    }

    #[test]
    fn each_step_counts_the_same_for_the_progress() {
        let mut bench = Bench::new();
        let steps = json!([
            {"step_id": "many", "action": "echo", "for_each": [1, 2, 3, 4], "inputs": {"i": "${item}"}},
            {"step_id": "one", "action": "echo", "depends_on": ["many"]},
        ]);
        bench.submit("w", workflow(steps)).expect("taken");
        let mut seen = vec![bench.view("w").1.ended_milli];
        for name in ["w/many/0", "w/many/1", "w/many/2", "w/many/3", "w/one"] {
            bench.end(name, Verdict::Completed, &Value::Null);
            seen.push(bench.view("w").1.ended_milli);
        }
        assert_eq!(seen, [0, 125, 250, 375, 500, 1000]);
        assert_eq!(bench.view("w").1.tasks, (5, 5));
    }
}
