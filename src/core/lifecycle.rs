//! The life of a task, as its owner leads it: submitted, granted, lost, failed,
//! tried again, cancelled, ended.

use crate::command::{ClearScope, Command, Refusal, Submission};
use crate::config::Planted;
use crate::effect::Notice;
use crate::execution::Verdict;
use crate::ids::{NodeId, TaskId, WorkerId, rendezvous};
use crate::limits;
use crate::message::{Declined, Finished, Message};
use crate::node::{Fetching, Node};
use crate::ownership::{Kept, Offering, Said};
use crate::record::{Ballot, Birth, Fence, Record, Stamp};
use crate::requests::{Answer, Origin};
use crate::stats::Ending;
use crate::task::{CancelRequest, Closed, Durability, Outcome, Priority, Report, Spec, Task, TaskState};
use crate::time::{Millis, Unix};
use crate::view::{Reply, Status};
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

    fn check_submission(&self, submission: &Submission) -> Result<(), Refusal> {
        let spec = &submission.spec;
        let largest = submission.items.iter().map(|p| p.len()).chain([spec.payload.len()]).max().unwrap_or(0);
        let too_large = |field: &str, got: usize, limit: usize| {
            Err(Refusal::TooLarge { field: field.into(), got: got as u64, limit: limit as u64 })
        };
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
        if self.open_tasks() + submission.items.len().max(1) > limit && !unbounded {
            let retry_after = Millis(1_000);
            return Err(Refusal::Full { what: "this node's queue".into(), limit: limit as u64, retry_after });
        }
        if submission.task.as_ref().is_some_and(|t| spec.depends_on.contains(t)) {
            let problem = "a task can't wait for itself".into();
            return Err(Refusal::Invalid { field: "depends_on".into(), problem });
        }
        Ok(())
    }

    /// The live member that takes tasks of this name.
    fn home_of(&self, name: &TaskId) -> NodeId {
        let live = self.live_members().filter(|n| !self.is_draining(*n));
        let me = (!self.draining).then_some(self.id);
        rendezvous(name.place_hash(), live.chain(me)).first().copied().unwrap_or(self.id)
    }

    fn knows(&self, name: &TaskId, submission: &Submission) -> bool {
        let first = if submission.items.is_empty() { Ok(name.clone()) } else { name.item(0) };
        first.is_ok_and(|t| self.owned(&t).is_some())
    }

    fn new_id(&mut self) -> TaskId {
        let mut random = [0; 10];
        random[..8].copy_from_slice(&self.chance.next().to_be_bytes());
        random[8..].copy_from_slice(&self.chance.next().to_be_bytes()[..2]);
        let id = uuid::Builder::from_unix_timestamp_millis(self.wall().0, &random).into_uuid();
        TaskId::new(&id.to_string()).expect("a UUID is a valid id")
    }

    /// Takes a submission, or answers as the first of the same name was answered.
    fn take(&mut self, origin: Origin, name: TaskId, submission: Submission) {
        let tasks = match task_ids(&name, submission.items.len()) {
            Ok(tasks) => tasks,
            Err(refusal) => return self.answer(origin, Err(refusal)),
        };
        let wall = self.wall();
        let shared = Spec { submitted_at: wall, ..submission.spec.clone() };
        let mut replayed = false;
        let mut born = Vec::new();
        for (n, task) in tasks.iter().enumerate() {
            let mut spec = shared.clone();
            if let Some(payload) = submission.items.get(n) {
                spec.payload = payload.clone();
            }
            match self.kept.get(task).map(|k| same_work(&k.slot.spec, &spec)) {
                Some(true) => replayed = true,
                Some(false) => return self.answer(origin, Err(Refusal::Conflict { name: name.to_string().into() })),
                None => born.push((task.clone(), Arc::new(spec))),
            }
        }
        if let Ok(one_more) = name.item(tasks.len())
            && replayed
            && !submission.items.is_empty()
            && self.kept.contains_key(&one_more)
        {
            return self.answer(origin, Err(Refusal::Conflict { name: name.to_string().into() }));
        }
        if tasks.iter().any(|t| self.kept.get(t).is_some_and(Kept::disowned)) {
            let problem = format!("{name} was submitted to two nodes at once; try again").into();
            let retry_after = self.config.stagger;
            return self.answer(origin, Err(Refusal::Unavailable { problem, retry_after }));
        }
        let stranger = tasks.iter().find(|t| self.kept.get(*t).is_some_and(|k| !self.owns(k)));
        if let Some(stranger) = stranger {
            return self.replay_elsewhere(origin, &stranger.clone(), submission, name);
        }
        let holders = self.first_holders(&name);
        let nonce = self.chance.next();
        for (task, spec) in born {
            self.bear(task, spec, submission.priority, holders.clone(), nonce);
        }
        let items = (!submission.items.is_empty()).then_some(submission.items.len());
        let answer = Answer::Submitted { name, items, replayed };
        let accept = submission.spec.durability == Durability::Replicated;
        self.answer_when_promised(origin, tasks, answer, accept);
    }

    /// Another node owns it: that one answers.
    fn replay_elsewhere(&mut self, origin: Origin, task: &TaskId, submission: Submission, name: TaskId) {
        let owner = self.kept[task].slot.pledge.owner;
        if owner == self.id || !self.live(owner) || matches!(origin, Origin::Node { .. }) {
            let problem = format!("{task} is between owners; try again").into();
            return self.answer(origin, Err(Refusal::Unavailable { problem, retry_after: self.config.lease }));
        }
        let submission = Box::new(Submission { task: Some(name), ..submission });
        self.forward(origin, owner, crate::Request::Command(Command::Submit(submission)));
    }

    fn bear(&mut self, task: TaskId, spec: Arc<Spec>, priority: Priority, holders: Vec<NodeId>, nonce: u64) {
        let state = self.first_state(&spec, priority);
        let record = Record {
            task,
            birth: Birth { node: self.id, nonce },
            stamp: Stamp { ballot: Ballot { epoch: 1, owner: self.id }, revision: 0 },
            holders,
            prior: Vec::new(),
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
        };
        self.give_birth(record, spec);
    }

    fn first_state(&self, spec: &Spec, priority: Priority) -> TaskState {
        if !spec.depends_on.is_empty() && self.config.planted != Some(Planted::IgnoreDependencies) {
            return TaskState::Blocked;
        }
        self.ready_state(spec, priority)
    }

    fn ready_state(&self, spec: &Spec, priority: Priority) -> TaskState {
        let wall = self.wall();
        match spec.not_before {
            Some(until) if until > wall => TaskState::Delayed { until },
            Some(_) | None => TaskState::Queued { since: wall, place: priority },
        }
    }

    /// This node and the next in rendezvous order: live ones first, then
    /// members that are away, so that a set is always of the full number.
    fn first_holders(&self, name: &TaskId) -> Vec<NodeId> {
        let place = name.place_hash();
        let (live, away): (Vec<_>, Vec<_>) =
            self.members.keys().copied().partition(|n| self.live(*n) && !self.is_draining(*n));
        let ranked = rendezvous(place, live).into_iter().chain(rendezvous(place, away));
        std::iter::once(self.id).chain(ranked).take(self.holders_wanted()).collect()
    }

    pub(crate) fn on_taken(&mut self, from: NodeId, task: &TaskId, refused: Birth, record: &Record, spec: &Arc<Spec>) {
        let Some(kept) = self.owned(task) else { return };
        if kept.slot.record.birth != refused || record.birth == refused {
            return;
        }
        if kept.accepted {
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
        match command {
            Command::Cancel { reason, force, .. } => self.cancel(origin, task, reason, force),
            Command::Reprioritise { priority, requeue, .. } => self.reprioritise(origin, task, priority, requeue),
            Command::Retry { max_retries, timeout, .. } => self.retry(origin, task, max_retries, timeout),
            Command::Submit(_)
            | Command::Pause { .. }
            | Command::Resume { .. }
            | Command::Clear { .. }
            | Command::Register(_)
            | Command::Unregister { .. }
            | Command::Connect { .. }
            | Command::Disconnect { .. }
            | Command::Bootstrap { .. } => unreachable!("not a command on one task"),
        }
    }

    fn wrong_state(&mut self, origin: Origin, task: &TaskId, needs: &str) {
        let status = Node::status_of(&self.kept[task]).name().into();
        let name = task.to_string().into();
        self.answer(origin, Err(Refusal::State { name, status, needs: needs.into() }));
    }

    fn cancel(&mut self, origin: Origin, task: &TaskId, reason: Option<Arc<str>>, force: bool) {
        let at = self.wall();
        let body = &self.kept[task].slot.record.body;
        match &body.state {
            TaskState::Done(_) => self.wrong_state(origin, task, "only a task that has not ended can be cancelled"),
            TaskState::Leased { .. } => {
                let cancel = Some(CancelRequest { reason, force });
                self.revise(task, Offering::Now, |r| r.body.cancel = cancel);
                self.send_stop(task);
                let status = Node::status_of(&self.kept[task]);
                let reply = Reply::Cancelled { task: task.clone(), status, at, cleanup_required: true };
                self.answer_when_promised(origin, vec![task.clone()], Answer::Ready(reply), false);
            }
            TaskState::Blocked | TaskState::Delayed { .. } | TaskState::Queued { .. } => {
                self.close(task, Outcome::Cancelled { reason }, None, None);
                let status = Status::Cancelled;
                let reply = Reply::Cancelled { task: task.clone(), status, at, cleanup_required: false };
                self.answer_when_promised(origin, vec![task.clone()], Answer::Ready(reply), false);
            }
        }
    }

    fn send_stop(&mut self, task: &TaskId) {
        let record = &self.kept[task].slot.record;
        let TaskState::Leased { executor, .. } = record.body.state else { return };
        let force = record.body.cancel.as_ref().is_some_and(|c| c.force);
        let fence = record.fence();
        self.send(executor, Message::Stop { task: task.clone(), fence, force });
    }

    fn reprioritise(&mut self, origin: Origin, task: &TaskId, priority: Priority, requeue: bool) {
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

    fn retry(&mut self, origin: Origin, task: &TaskId, max_retries: Option<u32>, timeout: Option<Millis>) {
        let kept = &self.kept[task];
        let ended_badly = kept.promised_end().is_some_and(|c| c.outcome != Outcome::Completed);
        if !ended_badly {
            return self.wrong_state(origin, task, "only a failed, cancelled or expired task can be tried again");
        }
        let (record, mut spec) = (&kept.slot.record, (*kept.slot.spec).clone());
        let count = record.body.retries + 1;
        let priority = record.body.priority;
        let name = format!("{task}-retry-{count}");
        let Ok(retry) = TaskId::new(&name) else {
            let problem = format!("{name} is longer than {} bytes", TaskId::MAX_BYTES).into();
            return self.answer(origin, Err(Refusal::Invalid { field: "task_id".into(), problem }));
        };
        if self.kept.contains_key(&retry) {
            return self.answer(origin, Err(Refusal::Conflict { name: name.into() }));
        }
        spec.retry_of = Some(task.clone());
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
        let found: Vec<_> = self
            .kept
            .iter()
            .filter(|(_, k)| self.owns(k) && !k.doomed && wanted(Node::status_of(k)))
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
                let place = record.body.priority;
                self.revise(&task, Offering::Lazily, |r| r.body.state = TaskState::Queued { since: wall, place });
            }
        }
    }

    fn expire(&mut self, task: &TaskId) {
        let record = &self.kept[task].slot.record;
        if let TaskState::Leased { executor, .. } = record.body.state {
            let fence = record.fence();
            self.send(executor, Message::Stop { task: task.clone(), fence, force: true });
        }
        self.close(task, Outcome::Expired, None, None);
    }

    /// The end. Told to those who wait once a majority has it.
    fn close(&mut self, task: &TaskId, outcome: Outcome, report: Option<Report>, started_at: Option<Unix>) {
        let at = self.wall();
        let kept = &self.kept[task];
        let executor = match &kept.slot.record.body.state {
            TaskState::Leased { executor, worker, .. } => Some((*executor, worker.clone())),
            TaskState::Blocked | TaskState::Delayed { .. } | TaskState::Queued { .. } | TaskState::Done(_) => None,
        };
        let started_at = started_at.or_else(|| kept.lease.as_ref().and_then(|l| l.started_at));
        let ran = started_at.map(|s| at.since(s));
        let ending = if outcome == Outcome::Completed { Ending::Well } else { Ending::Badly };
        self.recent.ended(at, ran, ending);
        let closed = Arc::new(Closed { outcome, at, executor, started_at, report });
        self.revise(task, Offering::Now, |r| r.body.state = TaskState::Done(closed));
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
        self.release_dependents(task, &closed.outcome);
    }

    pub(crate) fn on_progress(
        &mut self,
        from: NodeId,
        task: &TaskId,
        fence: Fence,
        running: Option<Millis>,
        said: Said,
    ) {
        let (now, wall) = (self.now, self.wall());
        let Some(kept) = self.owned(task) else { return };
        let record = &kept.slot.record;
        let TaskState::Leased { executor, worker, .. } = &record.body.state else { return };
        if *executor != from || record.body.attempt != fence.attempt {
            return;
        }
        let (worker, task_type) = (worker.clone(), kept.slot.spec.task_type.clone());
        let kept = self.kept.get_mut(task).expect("owned");
        let Some(lease) = kept.lease.as_mut() else { return };
        let unconfirmed = lease.confirmed_at.replace(now).is_none();
        if said.percent.is_some() || said.message.is_some() || said.log_tail.is_some() {
            lease.said = said;
        }
        let starts = running.is_some() && lease.started.is_none();
        if let Some(ago) = running
            && starts
        {
            lease.started = Some(now - ago);
            lease.started_at = Some(Unix(wall.0.saturating_sub(ago.0)));
        }
        if unconfirmed {
            self.confirmed(from, &worker);
        }
        if starts {
            if let Some(count) = self.counts.get_mut(&Status::Leased) {
                *count = count.saturating_sub(1);
            }
            *self.counts.entry(Status::Running).or_default() += 1;
            let (from, to) = (Some(Status::Leased), Some(Status::Running));
            self.notice(Notice::TaskMoved { task_type, from, to });
        }
    }

    pub(crate) fn on_decline(
        &mut self,
        from: NodeId,
        task: &TaskId,
        fence: Fence,
        why: Declined,
        free: &[(WorkerId, u32)],
    ) {
        let ours = self.owned(task).is_some_and(|k| {
            let record = &k.slot.record;
            let there = matches!(record.body.state, TaskState::Leased { executor, .. } if executor == from);
            there && record.body.attempt == fence.attempt
        });
        if ours {
            match why {
                Declined::Restarted => self.lose_lease(task),
                Declined::Busy | Declined::NoWorker | Declined::Paused => self.take_back(task),
            }
        }
        self.on_room(from, free);
    }

    /// Queues a leased task again, for no fault of its own.
    pub(crate) fn take_back(&mut self, task: &TaskId) {
        let wall = self.wall();
        let Some(kept) = self.owned(task) else { return };
        let body = &kept.slot.record.body;
        let place = body.priority;
        if let Some(cancel) = body.cancel.clone() {
            self.close(task, Outcome::Cancelled { reason: cancel.reason }, None, None);
            return;
        }
        // It keeps the time that it has waited already.
        let since = match body.state {
            TaskState::Leased { since, .. } => since.min(wall),
            TaskState::Blocked | TaskState::Delayed { .. } | TaskState::Queued { .. } | TaskState::Done(_) => return,
        };
        self.revise(task, Offering::Lazily, |r| r.body.state = TaskState::Queued { since, place });
    }

    /// The node that ran it is gone, or does not know of it any more.
    fn lose_lease(&mut self, task: &TaskId) {
        let Some(kept) = self.owned(task) else { return };
        let body = &kept.slot.record.body;
        let TaskState::Leased { executor, .. } = body.state else { return };
        let crashes = body.crashes + 1;
        self.notice(Notice::LeaseLost { task: task.clone(), executor });
        if crashes > self.config.crash_limit && self.kept[task].slot.record.body.cancel.is_none() {
            let error = format!("lost with the node that ran it, {crashes} times").into();
            self.close(task, Outcome::Failed { error }, None, None);
            return;
        }
        self.take_back(task);
        if self.owned(task).is_some_and(|k| !k.slot.record.closed()) {
            self.revise(task, Offering::Lazily, |r| r.body.crashes = crashes);
        }
    }

    /// Looks after granted tasks: lost executors, unanswered grants, timeouts.
    pub(crate) fn watch_leases(&mut self) {
        let leased: Vec<_> = self.leased.iter().cloned().collect();
        for task in leased {
            self.watch_lease(&task);
        }
    }

    fn watch_lease(&mut self, task: &TaskId) {
        let now = self.now;
        let Some(kept) = self.owned(task) else { return };
        let record = &kept.slot.record;
        let TaskState::Leased { executor, .. } = record.body.state else { return };
        let Some(lease) = &kept.lease else { return };
        let restarted =
            self.boot_of(executor) != lease.boot || (executor == self.id && !self.executions.contains_key(task));
        let patience = if kept.slot.spec.exclusive { 3 } else { 1 };
        // One that said that it would go runs nothing any more; an exclusive
        // task does not take its word for it.
        let left = self.has_left(executor) && !kept.slot.spec.exclusive;
        let silent =
            left || !self.live(executor) && self.silent_for(executor) >= Millis(self.config.lease.0 * patience);
        if (restarted && lease.sent_at.is_some()) || silent || (restarted && executor == self.id) {
            self.lose_lease(task);
            return;
        }
        let Some(sent_at) = lease.sent_at else { return };
        let overdue = kept.slot.spec.timeout.zip(lease.started).is_some_and(|(t, s)| now > s + t + self.config.grace);
        if overdue {
            self.on_overdue(task);
            return;
        }
        match lease.confirmed_at {
            None if now.since(lease.granted_at) > self.config.lease + self.config.lease + self.config.grace => {
                self.lose_lease(task);
            }
            None if now.since(sent_at) >= self.config.retransmit => self.send_grant(task),
            Some(at) if now.since(at) >= self.config.lease && now.since(sent_at) >= self.config.lease => {
                self.send_grant(task)
            }
            None | Some(_) => {}
        }
        if self.kept[task].slot.record.body.cancel.is_some() {
            self.send_stop(task);
        }
    }

    /// Its executor lives and should have ended it long ago.
    fn on_overdue(&mut self, task: &TaskId) {
        let kept = &self.kept[task];
        let record = &kept.slot.record;
        let TaskState::Leased { executor, .. } = record.body.state else { return };
        let fence = record.fence();
        let after = kept.slot.spec.timeout.unwrap_or_default();
        let started_at = kept.lease.as_ref().and_then(|l| l.started_at);
        self.send(executor, Message::Stop { task: task.clone(), fence, force: true });
        self.conclude(task, Verdict::TimedOut { after }, Report::default(), started_at);
    }

    pub(crate) fn on_finished(&mut self, from: NodeId, finished: Box<Finished>) {
        let task = finished.task.clone();
        let Some(kept) = self.kept.get(&task) else { return };
        if !self.owns(kept) {
            return;
        }
        let record = &kept.slot.record;
        if record.closed() {
            let told = kept.announced;
            if told {
                self.send(from, Message::Settled { task, fence: finished.fence });
            }
            return;
        }
        let TaskState::Leased { executor, worker, .. } = &record.body.state else {
            return self.refuse_result(from, &task, finished.fence);
        };
        let first = finished.fence.ballot;
        let namesake = first.epoch == 1 && first.owner != record.birth.node;
        let earned = *executor == from && record.body.attempt == finished.fence.attempt && !namesake;
        if !earned && self.config.planted != Some(Planted::AnyFence) {
            return self.refuse_result(from, &task, finished.fence);
        }
        let missing: Vec<_> = finished.report.blobs().filter(|(hash, _)| !self.blobs.contains_key(hash)).collect();
        if !missing.is_empty() {
            self.fetch(from, &missing, || Fetching::Finished { from, finished: finished.clone() });
            return;
        }
        let (executor, worker) = (*executor, worker.clone());
        let started_at = finished.started.map(|ago| Unix(self.wall().0.saturating_sub(ago.0)));
        if let Some(lease) = self.kept.get_mut(&task).and_then(|k| k.lease.as_mut())
            && lease.confirmed_at.is_none()
        {
            lease.confirmed_at = Some(lease.granted_at);
            self.confirmed(executor, &worker);
        }
        let fence = finished.fence;
        let free = finished.free;
        self.conclude(&task, finished.verdict, finished.report, started_at);
        self.on_room(from, &free);
        if self.owned(&task).is_some_and(|k| !k.slot.record.closed()) {
            self.send(from, Message::Settled { task, fence });
        }
        self.queue.stir();
    }

    fn refuse_result(&mut self, from: NodeId, task: &TaskId, fence: Fence) {
        self.notice(Notice::Refused { from, why: "old_fence" });
        self.send(from, Message::Settled { task: task.clone(), fence });
    }

    /// What follows from the end of an attempt.
    fn conclude(&mut self, task: &TaskId, verdict: Verdict, report: Report, started_at: Option<Unix>) {
        let cancel = self.kept[task].slot.record.body.cancel.clone();
        match (verdict, cancel) {
            (Verdict::Completed, _) => self.close(task, Outcome::Completed, Some(report), started_at),
            (_, Some(cancel)) => {
                let outcome = Outcome::Cancelled { reason: cancel.reason };
                self.close(task, outcome, Some(report), started_at);
            }
            (Verdict::Failed { error, retryable }, None) => self.fail(task, error, retryable, report, started_at),
            (Verdict::TimedOut { after }, None) => {
                let error = format!("ran longer than its timeout of {} s", after.0 as f64 / 1_000.0).into();
                self.fail(task, error, true, report, started_at);
            }
            (Verdict::Stopped, None) => self.fail(task, "was stopped on its node".into(), true, report, started_at),
            (Verdict::HandedBack, None) => self.take_back(task),
        }
    }

    fn fail(&mut self, task: &TaskId, error: Arc<str>, retryable: bool, report: Report, started_at: Option<Unix>) {
        let kept = &self.kept[task];
        let failures = kept.slot.record.body.failures + 1;
        let retry = kept.slot.spec.retry;
        if !retryable || failures > retry.max_retries {
            self.revise(task, Offering::Lazily, |r| r.body.failures = failures);
            self.close(task, Outcome::Failed { error }, Some(report), started_at);
            return;
        }
        let delay = retry.delay(failures, &mut self.chance);
        let until = self.wall() + delay;
        self.notice(Notice::TaskRetried { task: task.clone(), error: error.clone(), delay });
        self.revise(task, Offering::Lazily, |record| {
            record.body.failures = failures;
            record.body.last_error = Some(error);
            record.body.state = TaskState::Delayed { until };
        });
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
    pub(crate) fn release_dependents(&mut self, dependency: &TaskId, outcome: &Outcome) {
        for task in self.dependents.remove(dependency).unwrap_or_default() {
            let Some(missing) = self.missing.get_mut(&task) else { continue };
            missing.remove(dependency);
            let all_there = missing.is_empty();
            if *outcome != Outcome::Completed {
                let how = Status::of_outcome(outcome).name();
                let reason = Some(format!("it depends on {dependency}, which is {how}").into());
                self.close(&task, Outcome::Cancelled { reason }, None, None);
            } else if all_there {
                let kept = &self.kept[&task];
                let state = self.ready_state(&kept.slot.spec, kept.slot.record.body.priority);
                self.revise(&task, Offering::Lazily, |r| r.body.state = state);
            }
        }
    }
}

/// Whether two submissions of one name ask for the same.
fn same_work(ours: &Spec, theirs: &Spec) -> bool {
    let plain = |s: &Spec| Spec { submitted_at: Unix(0), ..s.clone() };
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
