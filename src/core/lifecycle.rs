//! The life of a task, as its owner leads it: submitted, granted, lost, failed,
//! tried again, cancelled, ended.

use crate::array::ARRAY;
use crate::cache::Caching;
use crate::command::{ClearScope, Command, Detail, Query, Refusal, Request, Submission};
use crate::config::Planted;
use crate::effect::Notice;
use crate::ids::{NodeId, TaskId, rendezvous};
use crate::limits;
use crate::message::Message;
use crate::node::Node;
use crate::ownership::{Kept, Offering};
use crate::record::{Ballot, Birth, Record, Stamp};
use crate::requests::{Answer, Origin};
use crate::schedule::SCHEDULE;
use crate::stats::Ending;
use crate::steps::Force;
use crate::task::{Closed, Durability, Outcome, Priority, Report, Spec, Task, TaskState};
use crate::time::{Millis, Unix};
use crate::view::{Reply, Status, TaskView};
use crate::workflow::{APPROVE, WAIT, WORKFLOW, wait_until};
use std::sync::Arc;

impl Node {
    pub(crate) fn on_submit(&mut self, origin: Origin, submission: Box<Submission>) {
        if let Err(refusal) = self.check_submission(&submission) {
            self.answer(origin, Err(refusal));
            return;
        }
        let named = submission.task.clone().or_else(|| keyed_id(&submission));
        let Some(name) = named else {
            let id = self.new_id();
            self.take(origin, id, *submission);
            return;
        };
        // A chosen name has one home that all who see the same members agree
        // on, so that it is not given twice.
        let home = self.home_of(&name);
        let forwarded = matches!(origin, Origin::Node { .. });
        if home != self.id && !forwarded && !self.knows(&name, &submission) {
            let submission = Box::new(Submission { task: Some(name), ..*submission });
            self.forward(origin, home, crate::Request::Command(Command::Submit(submission)));
            return;
        }
        self.take(origin, name, *submission);
    }

    pub(crate) fn check_submission(&self, submission: &Submission) -> Result<(), Refusal> {
        let spec = &submission.spec;
        let array = if spec.is_array() { Some(self.check_array(submission.task.as_ref(), spec)?) } else { None };
        let largest = submission.items.iter().map(|p| p.len()).max().unwrap_or(0);
        let too_large = |field: &str, got: usize, limit: usize| {
            Err(Refusal::TooLarge { field: field.into(), got: got as u64, limit: limit as u64 })
        };
        if spec.payload.len() > spec.payload_limit() {
            return too_large("payload", spec.payload.len(), spec.payload_limit());
        }
        if largest > limits::PAYLOAD_BYTES {
            return too_large("payload", largest, limits::PAYLOAD_BYTES);
        }
        let all: usize = submission.items.iter().map(|p| p.len()).sum();
        if all > 3 * limits::PAYLOAD_BYTES {
            return too_large("items", all, 3 * limits::PAYLOAD_BYTES);
        }
        if submission.items.len() > limits::ITEMS {
            let problem = format!("must be at most {} items, and has {}", limits::ITEMS, submission.items.len());
            return Err(Refusal::Invalid { field: "items".into(), problem: problem.into() });
        }
        let metadata = spec.metadata.as_ref().map_or(0, |m| m.len());
        if metadata > limits::METADATA_BYTES {
            return too_large("metadata", metadata, limits::METADATA_BYTES);
        }
        let unbounded = self.config.planted == Some(Planted::Unbounded);
        let limit = self.config.open_tasks;
        let more = array.unwrap_or(submission.items.len()).max(1);
        if self.open_tasks() + self.reclaiming.len() + more > limit && !unbounded {
            let retry_after = Millis(1_000);
            return Err(Refusal::Full { what: "this node's queue".into(), limit: limit as u64, retry_after });
        }
        self.check_features(spec)?;
        if spec.is_schedule() {
            self.check_schedule(submission)?;
        } else if spec.is_workflow() {
            self.check_workflow(spec)?;
        } else if crate::workflow::BUILT_IN.contains(&&*spec.task_type) {
            let problem = format!("{} is a step of a workflow, not a task: use workflow_submit", spec.task_type).into();
            return Err(Refusal::Invalid { field: "task_type".into(), problem });
        }
        if spec.cache.is_some() && spec.work().is_workflow() {
            let problem = "a workflow takes no earlier result and leaves none".into();
            return Err(Refusal::Invalid { field: "cache".into(), problem });
        }
        if submission.task.as_ref().is_some_and(|t| spec.depends_on.contains(t)) {
            let problem = "a task can't wait for itself".into();
            return Err(Refusal::Invalid { field: "depends_on".into(), problem });
        }
        Ok(())
    }

    /// The live member that takes tasks of this name.
    pub(crate) fn home_of(&self, name: &TaskId) -> NodeId {
        let live = self.live_members().filter(|n| !self.is_draining(*n));
        let me = (!self.draining).then_some(self.id);
        rendezvous(name.place_hash(), live.chain(me)).first().copied().unwrap_or(self.id)
    }

    pub(crate) fn knows(&self, name: &TaskId, submission: &Submission) -> bool {
        let first = if submission.items.is_empty() { Ok(name.clone()) } else { name.item(0) };
        first.is_ok_and(|t| self.owned(&t).is_some())
    }

    fn knows_id(&self, name: &TaskId) -> bool {
        self.kept.contains_key(name)
    }

    pub(crate) fn new_id(&mut self) -> TaskId {
        let mut random = [0; 10];
        random[..8].copy_from_slice(&self.chance.next().to_be_bytes());
        random[8..].copy_from_slice(&self.chance.next().to_be_bytes()[..2]);
        let id = uuid::Builder::from_unix_timestamp_millis(self.wall().0, &random).into_uuid();
        TaskId::new(&id.to_string()).expect("a UUID is a valid id")
    }

    /// Takes a submission, or answers as the first of the same name was answered.
    pub(crate) fn take(&mut self, origin: Origin, name: TaskId, submission: Submission) {
        let tasks = match task_ids(&name, submission.items.len()) {
            Ok(tasks) => tasks,
            Err(refusal) => return self.answer(origin, Err(refusal)),
        };
        let leads = submission.spec.bears_tasks() || submission.spec.is_schedule();
        if self.is_held(&name)
            || self.schedule_of(&name).is_some()
            || leads && !self.knows_id(&name) && self.parts_of(&name).next().is_some()
        {
            return self.answer(origin, Err(Refusal::Conflict { name: name.to_string().into() }));
        }
        if let Some(task) = tasks.iter().find(|t| self.damaged.contains(*t)) {
            return self.ask_for_damaged(origin, task, name, submission);
        }
        let wall = self.wall();
        let cache = submission.spec.cache.map(|caching| Caching { scope: origin.cache_scope(), ..caching });
        let shared = Spec { submitted_at: wall, submitter: origin.submitter(), cache, ..submission.spec.clone() };
        let mut replayed = false;
        let mut born = Vec::new();
        for (n, task) in tasks.iter().enumerate() {
            let mut spec = shared.clone();
            if let Some(payload) = submission.items.get(n) {
                spec.payload = payload.clone();
            }
            // What a caller may not look at, it is told nothing of.
            let same = |k: &Kept| same_work(&k.slot.spec, &spec) && origin.sees(task, &k.slot.spec);
            match self.kept.get(task).map(same) {
                Some(true) => replayed = true,
                Some(false) => return self.answer(origin, Err(Refusal::Conflict { name: name.to_string().into() })),
                None => born.push((task.clone(), Arc::new(spec))),
            }
        }
        if replayed
            && !submission.items.is_empty()
            && let Ok(one_more) = name.item(tasks.len())
            && self.kept.contains_key(&one_more)
        {
            return self.answer(origin, Err(Refusal::Conflict { name: name.to_string().into() }));
        }
        if replayed && tasks.iter().any(|t| self.kept.get(t).is_some_and(Kept::disowned)) {
            let problem = format!("{name} was submitted to two nodes at once; try again").into();
            let retry_after = self.config.stagger;
            return self.answer(origin, Err(Refusal::Unavailable { problem, retry_after }));
        }
        let mut strangers = tasks.iter().filter(|t| self.kept.get(*t).is_some_and(|k| !self.owns(k)));
        if replayed && let Some(stranger) = strangers.next() {
            return self.replay_elsewhere(origin, &stranger.clone(), submission, name);
        }
        let holders = self.first_holders(&name);
        let nonce = self.chance.next();
        for (task, spec) in born {
            self.bear(task, spec, submission.priority, holders.clone(), nonce);
        }
        let items = (!submission.items.is_empty()).then_some(submission.items.len());
        let items = items.or_else(|| self.array_length(&name));
        let answer = Answer::Submitted { name, items, replayed };
        let accept = submission.spec.durability == Durability::Replicated;
        self.answer_when_promised(origin, tasks, answer, accept);
    }

    /// Another node owns it: that one answers.
    pub(crate) fn replay_elsewhere(&mut self, origin: Origin, task: &TaskId, submission: Submission, name: TaskId) {
        let owner = self.kept[task].slot.pledge.owner;
        if owner == self.id || !self.live(owner) || matches!(origin, Origin::Node { .. }) {
            let problem = format!("{task} is between owners; try again").into();
            return self.answer(origin, Err(Refusal::Unavailable { problem, retry_after: self.config.lease }));
        }
        let submission = Box::new(Submission { task: Some(name), ..submission });
        self.forward(origin, owner, crate::Request::Command(Command::Submit(submission)));
    }

    pub(crate) fn bear(&mut self, task: TaskId, spec: Arc<Spec>, priority: Priority, holders: Vec<NodeId>, nonce: u64) {
        let birth = Birth { node: self.id, nonce };
        let record = self.new_record(task, birth, holders, &spec, priority);
        self.give_birth(record, spec);
    }

    /// The first version of a record of this node's own.
    pub(crate) fn new_record(
        &self,
        task: TaskId,
        birth: Birth,
        holders: Vec<NodeId>,
        spec: &Spec,
        priority: Priority,
    ) -> Record {
        let state = self.first_state(spec, priority);
        Record {
            task,
            birth,
            stamp: Stamp { ballot: Ballot { epoch: 1, owner: self.id }, revision: 0 },
            holders,
            prior: Vec::new(),
            forgotten: Vec::new(),
            body: Task {
                priority,
                attempt: 0,
                failures: 0,
                crashes: 0,
                retries: 0,
                cancel: None,
                last_error: None,
                state,
            },
        }
    }

    pub(crate) fn first_state(&self, spec: &Spec, priority: Priority) -> TaskState {
        if !spec.depends_on.is_empty() && self.config.planted != Some(Planted::IgnoreDependencies) {
            return TaskState::Blocked;
        }
        match &*spec.task_type {
            WORKFLOW | APPROVE | ARRAY => TaskState::Blocked,
            SCHEDULE => self.first_state_of_schedule(spec),
            WAIT => {
                let inputs = serde_json::from_slice(&spec.payload).unwrap_or(serde_json::Value::Null);
                let wall = self.wall();
                TaskState::Delayed { until: wait_until(&inputs, wall).unwrap_or(wall) }
            }
            _ => self.ready_state(spec, priority),
        }
    }

    pub(crate) fn ready_state(&self, spec: &Spec, priority: Priority) -> TaskState {
        let wall = self.wall();
        match spec.not_before {
            Some(until) if until > wall => TaskState::Delayed { until },
            Some(_) | None if spec.reads_cache() => TaskState::Blocked,
            Some(_) | None => TaskState::Queued { since: wall, place: priority },
        }
    }

    /// This node and the next in rendezvous order: live ones first, then
    /// members that are away, so that a set is always of the full number.
    pub(crate) fn first_holders(&self, name: &TaskId) -> Vec<NodeId> {
        let place = name.place_hash();
        let (live, away): (Vec<_>, Vec<_>) =
            self.members.keys().copied().partition(|n| self.live(*n) && !self.is_draining(*n));
        let ranked = rendezvous(place, live).into_iter().chain(rendezvous(place, away));
        let short = self.config.planted == Some(Planted::AcceptShort);
        let wanted = if short { 1 } else { self.holders_wanted() };
        std::iter::once(self.id).chain(ranked).take(wanted).collect()
    }

    pub(crate) fn on_taken(&mut self, from: NodeId, task: &TaskId, refused: Birth, record: &Record, spec: &Arc<Spec>) {
        let Some(kept) = self.kept.get(task) else { return };
        if kept.slot.record.birth != refused || record.birth == refused {
            return;
        }
        if kept.accepted || !self.owns(kept) {
            // Ours was promised: the other is of a time when the two of us
            // could not see each other.
            return self.on_stranger(from, task);
        }
        if !kept.doomed {
            let same = same_work(spec, &kept.slot.spec);
            self.refuse_waiting(task, same, record.owner());
            self.kept.get_mut(task).expect("owned").doomed = true;
            if self.owned(task).is_some_and(|k| !k.slot.record.closed()) {
                let reason = Some("its id was taken by an earlier task".into());
                self.close(task, Outcome::Cancelled { reason }, None, None);
            }
        }
        self.on_stranger(from, task);
    }

    /// What a command on one task does, on its owner.
    pub(crate) fn obey(&mut self, origin: Origin, task: &TaskId, command: Command) {
        if let Err(refusal) = self.permit_change(&origin, task) {
            return self.answer(origin, Err(refusal));
        }
        match command {
            Command::Cancel { reason, force, .. } => self.cancel(origin, task, reason, force),
            Command::CancelWorkflow { reason, force, .. } => self.cancel_workflow(origin, task, reason, force.into()),
            Command::Reprioritise { priority, requeue, .. } => self.reprioritise(origin, task, priority, requeue),
            Command::Retry { max_retries, timeout, .. } => self.retry(origin, task, max_retries, timeout),
            Command::Approve { approved, content, .. } => self.approve(origin, task, approved, &content),
            Command::Submit(_)
            | Command::Pause { .. }
            | Command::Resume { .. }
            | Command::Clear { .. }
            | Command::Register(_)
            | Command::Unregister { .. }
            | Command::Connect { .. }
            | Command::Disconnect { .. }
            | Command::Bootstrap { .. }
            | Command::Issue(_)
            | Command::Revoke(_)
            | Command::LookUp { .. }
            | Command::ForgetNode { .. }
            | Command::KeepValue { .. }
            | Command::Invalidate { .. } => unreachable!("not a command on one task"),
        }
    }

    pub(crate) fn wrong_state(&mut self, origin: Origin, task: &TaskId, needs: &str) {
        let status = Node::status_of(&self.kept[task]).name().into();
        let name = task.to_string().into();
        self.answer(origin, Err(Refusal::State { name, status, needs: needs.into() }));
    }

    pub(crate) fn cancel(&mut self, origin: Origin, task: &TaskId, reason: Option<Arc<str>>, force: bool) {
        let at = self.wall();
        if self.kept[task].slot.record.closed() {
            return self.wrong_state(origin, task, "only a task that has not ended can be cancelled");
        }
        self.stop(task, reason, force.into());
        let status = Node::status_of(&self.kept[task]);
        let cleanup_required = !self.kept[task].slot.record.closed();
        let reply = Reply::Cancelled { task: task.clone(), status, at, cleanup_required };
        self.answer_when_promised(origin, vec![task.clone()], Answer::Ready(reply), false);
    }

    pub(crate) fn reprioritise(&mut self, origin: Origin, task: &TaskId, priority: Priority, requeue: bool) {
        let record = &self.kept[task].slot.record;
        if record.closed() {
            return self.wrong_state(origin, task, "only a task that has not ended has a priority to change");
        }
        let old = record.body.priority;
        self.revise(task, Offering::Now, |record| {
            record.body.priority = priority;
            if let TaskState::Queued { place, .. } = &mut record.body.state
                && requeue
            {
                *place = priority;
            }
        });
        let answer = Answer::Reprioritised { task: task.clone(), old, new: priority };
        self.answer_when_promised(origin, vec![task.clone()], answer, false);
    }

    pub(crate) fn retry(&mut self, origin: Origin, task: &TaskId, max_retries: Option<u32>, timeout: Option<Millis>) {
        let kept = &self.kept[task];
        let ended_badly = kept.promised_end().is_some_and(|c| c.outcome != Outcome::Completed);
        if !ended_badly {
            return self.wrong_state(origin, task, "only a failed, cancelled or expired task can be tried again");
        }
        if self.is_step(task) {
            return self.wrong_state(origin, task, "a step is tried again with its workflow: retry that");
        }
        let items = if kept.slot.spec.is_array() { Some(self.items_to_retry(task)) } else { None };
        let items = match items.transpose() {
            Ok(items) => items,
            Err(refusal) => return self.answer(origin, Err(refusal)),
        };
        let (record, mut spec) = (&kept.slot.record, (*kept.slot.spec).clone());
        let count = record.body.retries + 1;
        let priority = record.body.priority;
        let ceiling = origin.caller().authority().map_or(Ok(()), |authority| authority.allows_priority(priority));
        if let Err(refusal) = ceiling {
            return self.answer(origin, Err(refusal));
        }
        let name = format!("{task}-retry-{count}");
        let Ok(retry) = TaskId::new(&name) else {
            let problem = format!("{name} is longer than {} bytes", TaskId::MAX_BYTES).into();
            return self.answer(origin, Err(Refusal::Invalid { field: "task_id".into(), problem }));
        };
        if self.kept.contains_key(&retry) {
            return self.answer(origin, Err(Refusal::Conflict { name: name.into() }));
        }
        spec.retry_of = Some(task.clone());
        spec.payload = items.unwrap_or(spec.payload);
        spec.submitted_at = self.wall();
        spec.idempotency_key = None;
        spec.deadline = None;
        spec.timeout = timeout.or(spec.timeout);
        spec.retry.max_retries = max_retries.unwrap_or(spec.retry.max_retries);
        let holders = self.first_holders(&retry);
        let nonce = self.chance.next();
        self.bear(retry.clone(), Arc::new(spec), priority, holders, nonce);
        self.revise(task, Offering::Now, |r| r.body.retries = count);
        let answer = Answer::Retried { task: task.clone(), retry: retry.clone(), count };
        self.answer_when_promised(origin, vec![retry], answer, true);
    }

    /// Drops what does not run of this node's own tasks.
    pub(crate) fn clear_own(&mut self, which: ClearScope) -> u64 {
        let wanted = |status: Status| match which {
            ClearScope::Queued => !status.terminal() && !matches!(status, Status::Leased | Status::Running),
            ClearScope::Failed => status == Status::Failed,
            ClearScope::Cancelled => status == Status::Cancelled,
            ClearScope::NotRunning => {
                !matches!(status, Status::Leased | Status::Running | Status::Completed | Status::Expired)
            }
        };
        // What was accepted by this node's disk alone is told to the others first.
        let ripe = |k: &Kept| k.accepted || !k.slot.record.closed();
        let found: Vec<_> = self
            .kept
            .iter()
            .filter(|(_, k)| self.owns(k) && !k.doomed && ripe(k) && wanted(Node::status_of(k)))
            .filter(|(t, k)| if k.slot.record.closed() { !self.is_held(t) } else { !k.slot.spec.is_schedule() })
            .map(|(t, k)| (t.clone(), k.slot.record.closed()))
            .collect();
        let cleared = found.len() as u64;
        for (task, closed) in found {
            if !closed {
                self.close(&task, Outcome::Cancelled { reason: Some("the queue was cleared".into()) }, None, None);
                continue;
            }
            if let Some(kept) = self.kept.get_mut(&task) {
                kept.doomed = true;
            }
            self.forget(&task);
        }
        cleared
    }

    /// Gives each queued task the place of its current priority.
    pub(crate) fn reorder_own(&mut self) {
        let moved: Vec<_> = self
            .kept
            .iter()
            .filter(|(_, k)| {
                let body = &k.slot.record.body;
                self.owns(k) && matches!(body.state, TaskState::Queued { place, .. } if place != body.priority)
            })
            .map(|(t, _)| t.clone())
            .collect();
        for task in moved {
            self.revise(&task, Offering::Lazily, |record| {
                let priority = record.body.priority;
                if let TaskState::Queued { place, .. } = &mut record.body.state {
                    *place = priority;
                }
            });
        }
    }

    /// A delay or a deadline is over.
    pub(crate) fn on_due(&mut self) {
        let wall = self.wall();
        while let Some((at, task)) = self.due.first().cloned() {
            if at > wall {
                break;
            }
            self.due.remove(&(at, task.clone()));
            let Some(kept) = self.owned(&task) else { continue };
            let (record, spec) = (&kept.slot.record, kept.slot.spec.clone());
            if record.closed() {
                continue;
            }
            if spec.deadline.is_some_and(|d| d <= wall) {
                self.expire(&task);
            } else if let TaskState::Delayed { until } = record.body.state
                && until <= wall
            {
                if spec.is_schedule() {
                    self.stir_schedule(&task);
                    continue;
                }
                if *spec.task_type == *WAIT {
                    self.close(&task, Outcome::Completed, Some(Report::default()), None);
                    continue;
                }
                // What it depended on has ended, and may be forgotten by now.
                let looks = record.body.attempt == 0 && spec.reads_cache() && spec.depends_on.is_empty();
                let place = record.body.priority;
                let state = if looks { TaskState::Blocked } else { TaskState::Queued { since: wall, place } };
                self.revise(&task, Offering::Lazily, |r| r.body.state = state);
            }
        }
    }

    pub(crate) fn expire(&mut self, task: &TaskId) {
        let record = &self.kept[task].slot.record;
        if let TaskState::Leased { executor, .. } = record.body.state {
            let fence = record.fence();
            self.send(executor, Message::Stop { task: task.clone(), fence, force: true });
        }
        self.close(task, Outcome::Expired, None, None);
    }

    /// The end. Told to those who wait once a majority has it.
    pub(crate) fn close(&mut self, task: &TaskId, outcome: Outcome, report: Option<Report>, started_at: Option<Unix>) {
        self.end(task, outcome, report, started_at, Force::Ask);
    }

    pub(crate) fn close_with(&mut self, task: &TaskId, outcome: Outcome, force: Force) {
        self.end(task, outcome, None, None, force);
    }

    fn end(&mut self, task: &TaskId, outcome: Outcome, report: Option<Report>, started_at: Option<Unix>, force: Force) {
        let at = self.wall();
        let kept = &self.kept[task];
        let executor = match &kept.slot.record.body.state {
            TaskState::Leased { executor, worker, .. } => Some((*executor, worker.clone())),
            TaskState::Blocked | TaskState::Delayed { .. } | TaskState::Queued { .. } | TaskState::Done(_) => None,
        };
        let started_at = started_at.or_else(|| kept.lease.as_ref().and_then(|l| l.started_at));
        let ran = started_at.map(|s| at.since(s));
        let ending = if outcome == Outcome::Completed { Ending::Well } else { Ending::Badly };
        let (bears_tasks, why) = (kept.slot.spec.bears_tasks(), outcome.clone());
        if !bears_tasks {
            self.recent.ended(at, ran, ending);
        }
        self.note_end(task, &outcome);
        let closed = Arc::new(Closed { outcome, at, executor, started_at, report, cached_from: None });
        self.revise(task, Offering::Now, |r| r.body.state = TaskState::Done(closed));
        // What gave way never began a step: those are the other's of its id.
        if bears_tasks && !self.kept[task].disowned() {
            self.end_steps(task, &why, force);
        }
    }

    /// A majority knows the end of an owned task.
    pub(crate) fn on_ended(&mut self, task: &TaskId) {
        let kept = &self.kept[task];
        let Some(closed) = kept.promised_end().cloned() else { return };
        let (record, spec) = (&kept.slot.record, kept.slot.spec.clone());
        let (fence, wall) = (record.fence(), self.wall());
        if let Some((executor, _)) = &closed.executor {
            self.send(*executor, Message::Settled { task: task.clone(), fence });
        }
        self.notice(Notice::TaskClosed {
            task: task.clone(),
            task_type: spec.task_type.clone(),
            status: Status::of_outcome(&closed.outcome),
            attempt: fence.attempt,
            executor: closed.executor.as_ref().map(|(n, _)| *n),
            took: closed.at.since(spec.submitted_at),
            settled_in: wall.since(closed.at),
        });
        self.answer_waiters(task);
        if spec.is_array() {
            self.answer_waiters_of_unborn(task);
        }
        self.release_dependents(task, &closed.outcome, None);
        self.leave_result(task);
    }

    /// Waits for what a blocked task depends on.
    pub(crate) fn await_dependencies(&mut self, task: &TaskId) {
        let wanted = self.kept[task].slot.spec.depends_on.clone();
        for dependency in &wanted {
            self.missing.entry(task.clone()).or_default().insert(dependency.clone());
            let waiting = self.dependents.entry(dependency.clone()).or_default();
            waiting.insert(task.clone());
            if waiting.len() == 1 {
                self.awaited.push(dependency.clone());
            }
        }
    }

    /// Asks whether a dependency has ended, unless that is being asked.
    pub(crate) fn ask_for_dependency(&mut self, dependency: &TaskId) {
        if let Some(kept) = self.owned(dependency) {
            let ended = kept.promised_end().cloned();
            if let Some(closed) = ended {
                self.release_dependents(dependency, &closed.outcome, None);
            }
            self.on_own_followed(dependency);
            return;
        }
        self.inquire(dependency, DEPENDENCY_WAIT);
    }

    /// Asks other nodes for a dependency or a step, unless that is being asked.
    pub(crate) fn inquire(&mut self, dependency: &TaskId, wait: Millis) {
        if !self.requests.dependencies.insert(dependency.clone()) {
            return;
        }
        let nodes = self.likely_holders(dependency);
        // A workflow goes on with what its step left, and who follows takes it.
        let report = self.is_step(dependency) || self.reuse.is_followed(dependency);
        let detail = Detail { report, ..Detail::default() };
        let query = Query::Task { task: dependency.clone(), detail, wait };
        self.ask(Origin::Dependency(dependency.clone()), Request::Query(query), nodes, None);
    }

    pub(crate) fn on_dependency(&mut self, dependency: &TaskId, reply: Result<Reply, Refusal>) {
        self.requests.dependencies.remove(dependency);
        if self.reuse.is_followed(dependency) {
            self.on_followed(dependency, &reply);
        }
        match reply {
            Ok(Reply::Task(view)) => {
                self.on_step_found(dependency, view.ended_at);
                if let Some(outcome) = outcome_of(&view) {
                    self.release_dependents(dependency, &outcome, view.report.as_ref());
                }
            }
            Err(Refusal::NotFound { .. }) => self.on_step_missed(dependency),
            // The next tick asks again.
            Ok(_) | Err(_) => {}
        }
    }

    pub(crate) fn stop_awaiting(&mut self, task: &TaskId) {
        for dependency in self.missing.remove(task).unwrap_or_default() {
            if let Some(waiting) = self.dependents.get_mut(&dependency) {
                waiting.remove(task);
                if waiting.is_empty() {
                    self.dependents.remove(&dependency);
                }
            }
        }
    }

    /// `dependency` has ended: go on with what waits for it.
    pub(crate) fn release_dependents(&mut self, dependency: &TaskId, outcome: &Outcome, report: Option<&Report>) {
        self.on_item_ended(dependency, outcome);
        for task in self.dependents.remove(dependency).unwrap_or_default() {
            let awaited = self.missing.get_mut(&task).is_some_and(|missing| missing.remove(dependency));
            if !awaited {
                self.on_step_ended(&task, dependency, outcome, report);
                continue;
            }
            let all_there = self.missing[&task].is_empty();
            if *outcome != Outcome::Completed {
                let how = Status::of_outcome(outcome).name();
                let reason = Some(format!("it depends on {dependency}, which is {how}").into());
                self.close(&task, Outcome::Cancelled { reason }, None, None);
            } else if all_there && self.kept[&task].slot.spec.bears_tasks() {
                self.missing.remove(&task);
                self.stir_workflow(&task);
            } else if all_there {
                let kept = &self.kept[&task];
                match self.ready_state(&kept.slot.spec, kept.slot.record.body.priority) {
                    TaskState::Blocked => self.look_for_result(&task, None),
                    state => self.revise(&task, Offering::Lazily, |r| r.body.state = state),
                }
            }
        }
    }
}

/// How long one question about a dependency waits at the node that owns it.
const DEPENDENCY_WAIT: Millis = Millis(20_000);

/// How a task ended, as far as those who depend on it care.
fn outcome_of(view: &TaskView) -> Option<Outcome> {
    match view.status {
        Status::Completed => Some(Outcome::Completed),
        Status::Failed => Some(Outcome::Failed { error: view.error.clone().unwrap_or_else(|| "".into()) }),
        Status::Cancelled => Some(Outcome::Cancelled { reason: view.error.clone() }),
        Status::Expired => Some(Outcome::Expired),
        Status::Queued | Status::Blocked | Status::Delayed | Status::Leased | Status::Running => None,
    }
}

/// Whether two submissions of one name ask for the same.
fn same_work(ours: &Spec, theirs: &Spec) -> bool {
    let cache = |s: &Spec| s.cache.map(|caching| Caching { scope: None, ..caching });
    let plain = |s: &Spec| Spec { submitted_at: Unix(0), submitter: None, trace: None, cache: cache(s), ..s.clone() };
    ours.payload == theirs.payload && plain(ours) == plain(theirs)
}

/// The id that an idempotency key stands for, the same on every node.
fn keyed_id(submission: &Submission) -> Option<TaskId> {
    let key = submission.spec.idempotency_key.as_ref()?;
    let hash = blake3::hash(key.as_bytes());
    let id = uuid::Builder::from_custom_bytes(hash.as_bytes()[..16].try_into().expect("16 of 32")).into_uuid();
    TaskId::new(&id.to_string()).ok()
}

fn task_ids(name: &TaskId, items: usize) -> Result<Vec<TaskId>, Refusal> {
    if items == 0 {
        return Ok(vec![name.clone()]);
    }
    let too_long =
        |e: crate::ids::NameError| Refusal::Invalid { field: "task_id".into(), problem: e.to_string().into() };
    (0..items).map(|n| name.item(n).map_err(too_long)).collect()
}
