//! A granted task, as its owner sees it: started, silent, lost with its node,
//! ended, failed. A result counts only with its fence.

use crate::config::Planted;
use crate::effect::Notice;
use crate::execution::Verdict;
use crate::ids::{NodeId, TaskId, WorkerId};
use crate::message::{Declined, Finished, Message};
use crate::node::{Fetching, Node};
use crate::ownership::{Offering, Said};
use crate::record::Fence;
use crate::task::{Outcome, Report, TaskState};
use crate::time::{Millis, Unix};
use crate::view::Status;
use std::sync::Arc;

impl Node {
    pub(crate) fn send_stop(&mut self, task: &TaskId) {
        let record = &self.kept[task].slot.record;
        let TaskState::Leased { executor, .. } = record.body.state else { return };
        let force = record.body.cancel.as_ref().is_some_and(|c| c.force);
        let fence = record.fence();
        self.send(executor, Message::Stop { task: task.clone(), fence, force });
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
        let granted = self.owned(task).and_then(|k| match &k.slot.record.body.state {
            TaskState::Leased { executor, worker, .. } if *executor == from => Some((worker.clone(), k)),
            _ => None,
        });
        let ours = granted.filter(|(_, k)| k.slot.record.body.attempt == fence.attempt).map(|(worker, _)| worker);
        if let Some(worker) = ours {
            if why == Declined::Busy && free.iter().any(|(w, free)| *w == worker && *free > 0) {
                self.on_refused(from, &worker);
            }
            match why {
                Declined::Restarted => self.lose_lease(task),
                Declined::Busy if free.is_empty() => self.rest(task),
                Declined::Busy | Declined::NoWorker | Declined::Paused => self.take_back(task),
            }
        }
        self.on_room(from, free);
    }

    /// Room is not what it waits for, and nothing says when that ends: granted again
    /// at once, it would be declined at once, without end.
    fn rest(&mut self, task: &TaskId) {
        if self.kept[task].slot.record.body.cancel.is_some() {
            return self.take_back(task);
        }
        let until = self.wall() + self.config.lease;
        self.revise(task, Offering::Lazily, |r| r.body.state = TaskState::Delayed { until });
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
    pub(crate) fn lose_lease(&mut self, task: &TaskId) {
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

    pub(crate) fn watch_lease(&mut self, task: &TaskId) {
        let now = self.now;
        let Some(kept) = self.owned(task) else { return };
        let record = &kept.slot.record;
        let TaskState::Leased { executor, .. } = record.body.state else { return };
        let Some(lease) = &kept.lease else { return };
        // A grant to itself that waits for a majority is not there yet.
        let given = lease.taken_over || lease.sent_at.is_some();
        let unknown_here = executor == self.id && given && !self.executions.contains_key(task);
        let restarted = self.boot_of(executor).zip(lease.boot).is_some_and(|(now, then)| now != then) || unknown_here;
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
    pub(crate) fn on_overdue(&mut self, task: &TaskId) {
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

    pub(crate) fn refuse_result(&mut self, from: NodeId, task: &TaskId, fence: Fence) {
        self.notice(Notice::Refused { from, why: "old_fence" });
        self.send(from, Message::Settled { task: task.clone(), fence });
    }

    /// What follows from the end of an attempt.
    pub(crate) fn conclude(&mut self, task: &TaskId, verdict: Verdict, report: Report, started_at: Option<Unix>) {
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

    pub(crate) fn fail(
        &mut self,
        task: &TaskId,
        error: Arc<str>,
        retryable: bool,
        report: Report,
        started_at: Option<Unix>,
    ) {
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
}
