//! A workflow as its owner leads it: which step begins, with what, and what
//! follows when it ends.
//!
//! A step is born as a task when its turn has come, on the holders of its
//! workflow. What has begun is therefore told by the records alone: an owner
//! that takes a workflow over finds the steps that it keeps and goes on. A step
//! that is born a second time, by an owner that did not know of the first,
//! gives way as any second task of one id does; its grant waits for a majority,
//! so it does not run.

use crate::array::Array;
use crate::config::Planted;
use crate::effect::Effect;
use crate::ids::{BlobHash, NodeId, TaskId};
use crate::limits;
use crate::node::Node;
use crate::origin::Origin;
use crate::ownership::Offering;
use crate::step_inputs::{Lack, Next, report_of};
use crate::task::{CancelRequest, Data, Outcome, Report, Spec, TaskState};
use crate::time::{Millis, Unix};
use crate::view::Status;
use crate::workflow::flow::{End, Flow, Over, Phase};
use crate::workflow::{APPROVE, Plan, WORKFLOW};
use crate::{Command, command::Refusal};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

/// The workflows that this node owns.
#[derive(Default)]
pub(crate) struct Workflows {
    pub(crate) running: BTreeMap<TaskId, Running>,
    /// And the arrays.
    pub(crate) arrays: BTreeMap<TaskId, Array>,
    /// How many of both have not ended.
    pub(crate) open: usize,
    /// Items of one array that the mesh has room for.
    pub(crate) at_once: usize,
    /// Something happened that may let a step begin.
    pub(crate) stirred: BTreeSet<TaskId>,
    /// Steps and items that other nodes are to be asked after, once what bears
    /// them was looked at.
    pub(crate) questions: Vec<TaskId>,
}

/// One of them.
pub(crate) struct Running {
    pub(crate) flow: Flow,
    /// Steps that ended since it was looked at.
    ended: Vec<(usize, End)>,
    /// What steps left that other nodes own, as these say: a copy that is kept
    /// here may be of an end that was never promised.
    pub(crate) reports: BTreeMap<usize, Report>,
    /// Content by reference that the next step looks into.
    pub(crate) read: BTreeMap<BlobHash, Arc<[u8]>>,
    reading: BTreeSet<BlobHash>,
    /// What could not be read since the last tick.
    unread: BTreeSet<BlobHash>,
    /// When steps ended that other nodes own, as these say.
    ended_at: BTreeMap<usize, Unix>,
    /// Steps that nobody keeps.
    unborn: BTreeSet<usize>,
    /// When its steps elsewhere were last asked after.
    asked_at: Millis,
    /// Steps may have begun that this node does not know of.
    wary: bool,
    /// What it waits for before its first step has completed.
    pub(crate) open: bool,
}

impl Running {
    pub(crate) fn of(flow: Flow) -> Running {
        Running {
            flow,
            ended: Vec::new(),
            reports: BTreeMap::new(),
            read: BTreeMap::new(),
            reading: BTreeSet::new(),
            unread: BTreeSet::new(),
            ended_at: BTreeMap::new(),
            unborn: BTreeSet::new(),
            asked_at: Millis(0),
            wary: false,
            open: false,
        }
    }
}

impl Spec {
    /// It is the record of a workflow.
    #[must_use]
    pub fn is_workflow(&self) -> bool {
        *self.task_type == *WORKFLOW
    }
}

impl Node {
    /// Whether a submitted workflow can be taken.
    pub(crate) fn check_workflow(&self, spec: &Spec) -> Result<(), Refusal> {
        let refusal =
            |field: String, problem: String| Refusal::Invalid { field: field.into(), problem: problem.into() };
        let plan = Plan::read(&spec.payload).map_err(|e| refusal(e.field, e.problem))?;
        self.check_actions(&plan)
    }

    pub(crate) fn check_actions(&self, plan: &Plan) -> Result<(), Refusal> {
        for (field, step) in plan.actions() {
            if !self.knows_action(&step.action) {
                let known = self.known_actions().join(", ");
                let problem = format!("{} is unknown: no worker of the mesh offers it; there are {known}", step.action);
                return Err(Refusal::Invalid { field: field.into(), problem: problem.into() });
            }
        }
        plan.inner().try_for_each(|inner| self.check_actions(&inner))
    }

    fn knows_action(&self, action: &str) -> bool {
        crate::workflow::BUILT_IN.contains(&action)
            || crate::queue::offers(&self.config.executors, action)
            || self.worker_views().iter().any(|w| crate::queue::offers(&w.capabilities, action))
    }

    fn known_actions(&self) -> Vec<String> {
        let stem = |c: &Arc<str>| c.split(':').next().unwrap_or(c).to_owned();
        let mut known: BTreeSet<String> = self.config.executors.iter().map(stem).collect();
        known.extend(self.worker_views().iter().flat_map(|w| w.capabilities.iter().map(stem).collect::<Vec<_>>()));
        known.extend(crate::workflow::BUILT_IN.map(str::to_owned));
        known.into_iter().collect()
    }

    /// The records that belong to `task`, its steps or items, without theirs.
    pub(crate) fn parts_of(&self, task: &TaskId) -> impl Iterator<Item = &TaskId> {
        let prefix = format!("{task}/");
        let from = TaskId::new(&prefix).ok();
        let range = from.map(|from| self.kept.range::<TaskId, _>((Bound::Excluded(from), Bound::Unbounded)));
        let length = prefix.len();
        range
            .into_iter()
            .flatten()
            .map(|(id, _)| id)
            .take_while(move |id| id.as_str().starts_with(&prefix))
            .filter(move |id| !id.as_str()[length..].contains('/'))
    }

    /// The workflow that `task` is a step of, or the array that it is an item
    /// of, if that record is here.
    pub(crate) fn workflow_of(&self, task: &TaskId) -> Option<&TaskId> {
        let (parent, name) = task.as_str().rsplit_once('/')?;
        let (id, kept) = self.kept.get_key_value(parent)?;
        kept.slot.spec.bears(name).then_some(id)
    }

    /// The same, if it is a workflow.
    pub(crate) fn is_step(&self, task: &TaskId) -> bool {
        self.workflow_of(task).is_some_and(|id| self.kept[id].slot.spec.is_workflow())
    }

    /// It is kept for as long as what it belongs to.
    pub(crate) fn is_held(&self, task: &TaskId) -> bool {
        self.is_held_step(task) || self.is_last_tick(task)
    }

    /// It is kept for as long as the workflow that it is a step of.
    pub(crate) fn is_held_step(&self, task: &TaskId) -> bool {
        self.workflow_of(task).is_some_and(|workflow| !self.kept[workflow].doomed)
    }

    /// An owned workflow is to be looked at.
    pub(crate) fn stir_workflow(&mut self, workflow: &TaskId) {
        self.workflows.stirred.insert(workflow.clone());
    }

    /// What could not go on because something was not here yet.
    pub(crate) fn stir_waiting_workflows(&mut self) {
        let waits = |running: &Running| {
            running.open && (running.flow.ready().next().is_some() || running.flow.over().is_some())
        };
        for (workflow, running) in self.workflows.running.iter_mut().filter(|(_, running)| waits(running)) {
            running.unread.clear();
            self.workflows.stirred.insert(workflow.clone());
        }
        let led: Vec<TaskId> = self.workflows.running.keys().cloned().collect();
        led.iter().for_each(|workflow| self.keep_steps(workflow));
        self.tend_arrays();
    }

    /// Enters an owned workflow where its state belongs.
    pub(crate) fn index_workflow(&mut self, workflow: &TaskId) {
        let kept = &self.kept[workflow];
        let deadline = kept.slot.spec.deadline;
        if let Some(closed) = kept.slot.record.body.state.closed() {
            self.closed.insert((closed.at, workflow.clone()));
            return;
        }
        self.workflows.open += 1;
        if let Some(deadline) = deadline {
            self.due.insert((deadline, workflow.clone()));
        }
        let open = self.workflows.running.get(workflow).is_some_and(|running| running.open)
            || self.workflows.arrays.get(workflow).is_some_and(|array| array.open);
        if !open {
            self.await_dependencies(workflow);
        }
        self.stir_workflow(workflow);
    }

    /// Takes it out of there.
    pub(crate) fn unindex_workflow(&mut self, workflow: &TaskId) {
        let kept = &self.kept[workflow];
        if let Some(deadline) = kept.slot.spec.deadline {
            self.due.remove(&(deadline, workflow.clone()));
        }
        if let Some(closed) = kept.slot.record.body.state.closed() {
            self.closed.remove(&(closed.at, workflow.clone()));
            return;
        }
        self.workflows.open = self.workflows.open.saturating_sub(1);
        self.stop_awaiting(workflow);
    }

    /// Workflows are to be looked at.
    pub(crate) fn workflows_stirred(&self) -> bool {
        !self.workflows.stirred.is_empty()
    }

    /// Begins what may begin, in every workflow in which something happened: so
    /// many steps at most, the rest with the next input.
    pub(crate) fn run_workflows(&mut self) {
        let mut left = limits::RELEASES;
        while left > 0
            && let Some(workflow) = self.workflows.stirred.pop_first()
        {
            self.run_workflow(&workflow, &mut left);
            for step in std::mem::take(&mut self.workflows.questions) {
                self.inquire(&step, Millis(0));
            }
            // What a step leads to on this node alone follows at once.
            self.obey_itself();
            self.ask_for_awaited();
        }
        if self.workflows_stirred() {
            self.tick_soon();
        }
    }

    fn run_workflow(&mut self, workflow: &TaskId, left: &mut usize) {
        let Some(kept) = self.owned(workflow) else { return self.leave_workflow(workflow) };
        if kept.slot.record.closed() {
            return self.leave_workflow(workflow);
        }
        if kept.slot.spec.is_array() {
            return self.run_array(workflow, left);
        }
        let running = match self.workflows.running.remove(workflow) {
            Some(running) => Ok(running),
            None => self.resume(workflow),
        };
        let mut running = match running {
            Ok(running) => running,
            Err(problem) => {
                let error = format!("its definition can't be read: {problem}").into();
                return self.close(workflow, Outcome::Failed { error }, None, None);
            }
        };
        running.open |= !self.missing.contains_key(workflow);
        for (n, end) in std::mem::take(&mut running.ended) {
            running.flow.end(n, end);
        }
        let mut over = None;
        if running.open && self.is_settled(workflow) {
            self.begin_steps(workflow, &mut running, left);
            over = running.flow.over();
        }
        let value = over.as_ref().map(|_| self.value_of_workflow(workflow, &running.flow.plan, Some(&running)));
        self.workflows.running.insert(workflow.clone(), running);
        if let (Some(over), Some(value)) = (over, value) {
            self.end_workflow(workflow, over, value);
        }
    }

    /// A majority keeps the workflow under the right of this node, and no change
    /// of its holders is under way: any other node that could begin its steps
    /// shares a holder with this one, and of two births of a step the first stays.
    pub(crate) fn is_settled(&self, workflow: &TaskId) -> bool {
        let kept = &self.kept[workflow];
        kept.claimed && kept.has_promised(0) && kept.slot.record.prior.is_empty() && !kept.doomed
    }

    fn begin_steps(&mut self, workflow: &TaskId, running: &mut Running, left: &mut usize) {
        let plan = running.flow.plan.clone();
        let told = std::mem::take(&mut running.ended_at);
        let mut put_off = Vec::new();
        loop {
            let ended_at = |n: usize| Some((self.end_time(workflow, &plan, n).or_else(|| told.get(&n).copied())?, n));
            running.flow.begin_undoing(&ended_at);
            let Some(n) = running.flow.next() else { break };
            if *left == 0 {
                self.workflows.stirred.insert(workflow.clone());
                break;
            }
            match self.next_of(workflow, running, n) {
                Next::Later => {
                    // An end, or the tick, stirs it again.
                    running.flow.put_off(n);
                    put_off.push(n);
                    continue;
                }
                Next::End(end) => {
                    running.flow.end(n, end);
                }
                Next::Begin(_) | Next::Fail(..) if !self.is_first_birth(workflow, running, n) => {
                    running.flow.put_off(n);
                    put_off.push(n);
                    continue;
                }
                Next::Begin(spec) => self.begin_step(workflow, running, n, *spec, None),
                Next::Fail(spec, problem) => self.begin_step(workflow, running, n, *spec, Some(problem)),
                Next::Read(hash) if running.unread.contains(&hash) => {
                    running.flow.put_off(n);
                    put_off.push(n);
                    continue;
                }
                Next::Read(hash) => {
                    if running.reading.insert(hash) {
                        self.out.push(Effect::ReadBlob(hash));
                    }
                    break;
                }
            }
            running.read.clear();
            *left -= 1;
        }
        running.flow.take_up(put_off);
        running.ended_at = told;
    }

    /// Whether a step may be born: an owner that took the workflow over asks
    /// first whether the last one has begun it, on holders that may have changed
    /// since.
    fn is_first_birth(&mut self, workflow: &TaskId, running: &Running, n: usize) -> bool {
        let Ok(step) = step_id(workflow, &running.flow.plan.name(n)) else { return true };
        let known = self.kept.contains_key(&step) || self.damaged.contains(&step);
        if !running.wary || known || running.unborn.contains(&n) {
            return true;
        }
        self.workflows.questions.push(step);
        false
    }

    /// The workflow that this node leads and the step of it that `step` is.
    fn step_of_running(&mut self, step: &TaskId) -> Option<(TaskId, usize)> {
        let (workflow, name) = step.as_str().rsplit_once('/')?;
        let (workflow, running) = self.workflows.running.get_key_value(workflow)?;
        Some((workflow.clone(), running.flow.plan.find(name)?))
    }

    /// Another node keeps a step of a workflow that this one leads.
    pub(crate) fn on_step_found(&mut self, step: &TaskId, ended_at: Option<Unix>) {
        let Some((workflow, n)) = self.step_of_running(step) else { return self.on_item_found(step) };
        let Some(running) = self.workflows.running.get_mut(&workflow) else { return };
        running.ended_at.extend(ended_at.map(|at| (n, at)));
        running.unborn.remove(&n);
        if matches!(running.flow.phase(n), Phase::Waiting | Phase::Ready) {
            running.flow.begin(n);
            self.await_step(&workflow, step.clone());
            self.stir_workflow(&workflow);
        }
    }

    /// No node that is there keeps it.
    pub(crate) fn on_step_missed(&mut self, step: &TaskId) {
        let Some((workflow, n)) = self.step_of_running(step) else { return self.on_item_missed(step) };
        let never_born = self.is_nowhere(step);
        let Some(running) = self.workflows.running.get_mut(&workflow) else { return };
        match running.flow.phase(n) {
            Phase::Waiting | Phase::Ready => {}
            Phase::Begun if never_born => {
                running.flow.begin_anew(n);
                self.damaged.remove(step);
            }
            Phase::Begun | Phase::Ended(_) => return,
        }
        running.unborn.insert(n);
        self.stir_workflow(&workflow);
    }

    /// A step that no node has that is there was seen somewhere, or this node's
    /// own copy can't be read. If nobody has it who could still come, its birth
    /// was never known to a majority.
    pub(crate) fn is_nowhere(&self, step: &TaskId) -> bool {
        let there = |node: &NodeId| self.live(*node) || self.is_away(*node);
        !self.kept.contains_key(step) && self.members.keys().all(there)
    }

    /// Steps that other nodes own are asked after, so that they are kept as long
    /// as their workflow is not over.
    fn keep_steps(&mut self, workflow: &TaskId) {
        let (now, span) = (self.now, Millis(self.config.retention.0 / 4));
        let Some(running) = self.workflows.running.get_mut(workflow) else { return };
        if now.since(running.asked_at) < span {
            return;
        }
        running.asked_at = now;
        let born = |n: &usize| match running.flow.phase(*n) {
            Phase::Begun => true,
            Phase::Ended(end) => !matches!(end, End::Skipped { .. }),
            Phase::Waiting | Phase::Ready => false,
        };
        let steps = (0..running.flow.plan.len()).filter(born);
        let steps: Vec<TaskId> = steps.filter_map(|n| step_id(workflow, &running.flow.plan.name(n)).ok()).collect();
        for step in steps.into_iter().filter(|step| self.owned(step).is_none()).collect::<Vec<_>>() {
            self.inquire(&step, Millis(0));
        }
    }

    /// A step is born; with a `problem`, it has failed at once.
    fn begin_step(&mut self, workflow: &TaskId, running: &mut Running, n: usize, spec: Spec, problem: Option<String>) {
        match self.bear_step(workflow, running, n, spec, problem) {
            Ok(()) => {
                running.flow.begin(n);
                if self.config.planted == Some(Planted::IgnoreJoins) {
                    running.flow.end(n, End::Well);
                }
            }
            Err(problem) => {
                running.flow.end(n, badly(problem));
            }
        }
    }

    /// What a step that is about to begin looks into. What could not be read is
    /// asked for again when the tick stirs the workflow.
    pub(crate) fn on_blob_read(&mut self, hash: BlobHash, content: Option<&Arc<[u8]>>) {
        for (workflow, running) in &mut self.workflows.running {
            if !running.reading.remove(&hash) {
                continue;
            }
            match content {
                Some(content) => drop(running.read.insert(hash, content.clone())),
                None => drop(running.unread.insert(hash)),
            }
            self.workflows.stirred.insert(workflow.clone());
        }
    }

    /// When a step ended that has a record.
    fn end_time(&self, workflow: &TaskId, plan: &Plan, n: usize) -> Option<Unix> {
        let step = step_id(workflow, &plan.name(n)).ok()?;
        self.kept.get(&step)?.slot.record.body.state.closed().map(|closed| closed.at)
    }

    fn bear_step(
        &mut self,
        workflow: &TaskId,
        running: &Running,
        n: usize,
        spec: Spec,
        problem: Option<String>,
    ) -> Result<(), String> {
        let step = step_id(workflow, &running.flow.plan.name(n))?;
        if self.kept.contains_key(&step) || self.damaged.contains(&step) {
            // Begun before: its copy came after the workflow did, or can't be read.
            self.await_step(workflow, step);
            return Ok(());
        }
        let record = &self.kept[workflow].slot.record;
        let (priority, holders) = (record.body.priority, record.holders.clone());
        let nonce = self.chance.next();
        self.bear(step.clone(), Arc::new(spec), priority, holders, nonce);
        if let Some(kept) = self.kept.get_mut(&step) {
            kept.wary = true;
        }
        if let Some(problem) = problem {
            self.close(&step, Outcome::Failed { error: problem.into() }, None, None);
        }
        // Not before: an end would be told to nobody while the workflow is looked at.
        self.await_step(workflow, step);
        Ok(())
    }

    fn await_step(&mut self, workflow: &TaskId, step: TaskId) {
        self.dependents.entry(step.clone()).or_default().insert(workflow.clone());
        self.awaited.push(step);
    }

    /// The state of a workflow that this node has just come to own, from the
    /// records of its steps.
    fn resume(&mut self, workflow: &TaskId) -> Result<Running, String> {
        let kept = &self.kept[workflow];
        let plan = Arc::new(Plan::read(&kept.slot.spec.payload).map_err(|e| e.to_string())?);
        let first = kept.slot.record.stamp.ballot.epoch == 1;
        let mut flow = Flow::new(plan.clone());
        let mut begun: Vec<TaskId> = self.parts_of(workflow).cloned().collect();
        if self.config.planted == Some(Planted::BeginAnew) {
            for step in begun.drain(..) {
                self.depose(&step);
                self.drop_record(&step);
            }
        }
        for step in &begun {
            if let Some(n) = plan.find(&step.as_str()[workflow.as_str().len() + 1..]) {
                flow.begin(n);
                let waiting = self.dependents.entry(step.clone()).or_default();
                waiting.insert(workflow.clone());
                self.awaited.push(step.clone());
            }
        }
        // It has begun, so what it waited for has completed.
        let open = !begun.is_empty();
        if open {
            self.stop_awaiting(workflow);
        }
        let wary = !first && self.config.planted != Some(Planted::BeginAnew);
        Ok(Running { wary, open, ..Running::of(flow) })
    }

    /// This node owns it no more, or it has ended.
    pub(crate) fn leave_workflow(&mut self, workflow: &TaskId) {
        self.workflows.stirred.remove(workflow);
        self.workflows.arrays.remove(workflow);
        let Some(running) = self.workflows.running.remove(workflow) else { return };
        for n in running.flow.begun() {
            let Ok(step) = step_id(workflow, &running.flow.plan.name(n)) else { continue };
            if let Some(waiting) = self.dependents.get_mut(&step) {
                waiting.remove(workflow);
                if waiting.is_empty() {
                    self.dependents.remove(&step);
                }
            }
        }
    }

    /// A step of an owned workflow has ended, and a majority knows.
    pub(crate) fn on_step_ended(
        &mut self,
        workflow: &TaskId,
        step: &TaskId,
        outcome: &Outcome,
        report: Option<&Report>,
    ) {
        let Some(running) = self.workflows.running.get_mut(workflow) else { return };
        let Some(n) = running.flow.plan.find(&step.as_str()[workflow.as_str().len() + 1..]) else { return };
        if let Some(report) = report {
            running.reports.insert(n, report.clone());
        }
        running.ended.push((n, end_of(outcome)));
        self.stir_workflow(workflow);
    }

    fn end_workflow(&mut self, workflow: &TaskId, over: Over, value: Result<Value, Lack>) {
        let report = match &value {
            Ok(value) => report_of(value),
            Err(Lack::Never(_)) => Report { truncated: true, ..Report::default() },
            Err(Lack::Yet | Lack::Read(_)) => return,
        };
        let outcome = match over {
            Over::Well => Outcome::Completed,
            Over::Badly(error) => Outcome::Failed { error },
        };
        self.close(workflow, outcome, Some(report), None);
    }

    /// A workflow has ended: what still waits or runs of it is over as well.
    pub(crate) fn end_steps(&mut self, workflow: &TaskId, why: &Outcome, force: Force) {
        self.leave_workflow(workflow);
        let spec = self.kept[workflow].slot.spec.clone();
        // An array that came to its end has nothing left; its items have its deadline.
        if spec.is_array() && !matches!(why, Outcome::Cancelled { .. }) {
            return;
        }
        let open = |step: &&TaskId| !self.kept[*step].slot.record.closed();
        let steps: Vec<TaskId> = self.parts_of(workflow).filter(open).cloned().collect();
        let reason: Arc<str> = format!("its {} is {}", spec.task_type, Status::of_outcome(why).name()).into();
        for step in steps {
            if self.owned(&step).is_some() {
                self.stop(&step, Some(reason.clone()), force);
                continue;
            }
            let origin = Origin::Dependency(step.clone());
            let force = force == Force::Kill;
            let command = Command::Cancel { task: step.clone(), reason: Some(reason.clone()), force };
            self.on_task_command(origin, &step, command);
        }
    }

    pub(crate) fn cancel_workflow(&mut self, origin: Origin, task: &TaskId, reason: Option<Arc<str>>, force: Force) {
        let kept = &self.kept[task];
        if kept.slot.spec.is_schedule() {
            return self.wrong_state(origin, task, "a schedule is ended by task_cancel; its workflows go on");
        }
        if !kept.slot.spec.is_workflow() {
            let name = task.as_str().into();
            return self.answer(origin, Err(Refusal::NotFound { what: "workflow".into(), name }));
        }
        if kept.slot.record.closed() {
            return self.wrong_state(origin, task, "only a workflow that has not ended can be cancelled");
        }
        let open = |flow: &Flow| -> Vec<Arc<str>> {
            let left = (0..flow.plan.len()).filter(|n| flow.end_of(*n).is_none() && !flow.plan.undoes(*n));
            left.map(|n| flow.plan.name(n).into()).collect()
        };
        let steps = self.survey(task).map_or(Vec::new(), |flow| open(&flow));
        self.stop(task, reason, force);
        let reply = crate::Reply::WorkflowCancelled { task: task.clone(), at: self.wall(), steps };
        self.answer_when_promised(origin, vec![task.clone()], crate::requests::Answer::Ready(reply), false);
    }

    /// Steps that an owned workflow left open, because their owner was not there
    /// or was not known to keep them.
    pub(crate) fn tend_steps(&mut self, workflow: &TaskId) {
        let Some(closed) = self.kept[workflow].promised_end().filter(|_| !self.kept[workflow].disowned()) else {
            return;
        };
        let outcome = closed.outcome.clone();
        self.end_steps(workflow, &outcome, Force::Ask);
    }

    /// Ends a task that waits, or asks one that runs to stop.
    pub(crate) fn stop(&mut self, task: &TaskId, reason: Option<Arc<str>>, force: Force) {
        match &self.kept[task].slot.record.body.state {
            TaskState::Done(_) => {}
            TaskState::Leased { .. } => {
                let before = &self.kept[task].slot.record.body.cancel;
                if before.as_ref().is_some_and(|c| c.force || force == Force::Ask) {
                    return self.send_stop(task);
                }
                let cancel = Some(CancelRequest { reason, force: force == Force::Kill });
                self.revise(task, Offering::Now, |r| r.body.cancel = cancel);
                self.send_stop(task);
            }
            TaskState::Blocked | TaskState::Delayed { .. } | TaskState::Queued { .. } => {
                self.close_with(task, Outcome::Cancelled { reason }, force);
            }
        }
    }

    /// A person's word on a step that waits for it.
    pub(crate) fn approve(&mut self, origin: Origin, task: &TaskId, approved: bool, content: &Arc<[u8]>) {
        let kept = &self.kept[task];
        let waits = *kept.slot.spec.task_type == *APPROVE && !kept.slot.record.closed();
        if !waits {
            return self.wrong_state(origin, task, "only a step that waits for approval can be approved");
        }
        let outcome =
            if approved { Outcome::Completed } else { Outcome::Failed { error: "it was not approved".into() } };
        let report = Report { result: Data::Inline(content.clone()), ..Report::default() };
        self.close(task, outcome, Some(report), None);
        let status = Node::status_of(&self.kept[task]);
        let reply = crate::Reply::Approved { task: task.clone(), status, at: self.wall() };
        let answer = crate::requests::Answer::Ready(reply);
        self.answer_when_promised(origin, vec![task.clone()], answer, false);
    }
}

/// How a task is asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Force {
    /// By a signal that it can act upon.
    Ask,
    /// By one that it can't.
    Kill,
}

impl From<bool> for Force {
    fn from(force: bool) -> Force {
        if force { Force::Kill } else { Force::Ask }
    }
}

/// The task that a step is.
pub(crate) fn step_id(workflow: &TaskId, name: &str) -> Result<TaskId, String> {
    TaskId::new(&format!("{workflow}/{name}")).map_err(|e| format!("the id of step {name}: {e}"))
}

pub(crate) fn badly(problem: impl Into<Arc<str>>) -> End {
    End::Badly { status: Status::Failed.name(), error: problem.into() }
}

pub(crate) fn end_of(outcome: &Outcome) -> End {
    let status = Status::of_outcome(outcome).name();
    match outcome {
        Outcome::Completed => End::Well,
        Outcome::Failed { error } => End::Badly { status, error: error.clone() },
        Outcome::Cancelled { reason } => {
            End::Badly { status, error: reason.clone().unwrap_or_else(|| "without a reason".into()) }
        }
        Outcome::Expired => End::Badly { status, error: "its deadline passed".into() },
    }
}

#[cfg(test)]
#[path = "steps_tests.rs"]
pub(crate) mod tests;
