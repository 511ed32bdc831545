//! How a node describes its own tasks: views, pages, counts, explanations.

use crate::cache::CachedFrom;
use crate::command::{Detail, TaskFilter};
use crate::explain::{Reason, of_state};
use crate::ids::TaskId;
use crate::node::Node;
use crate::origin::Origin;
use crate::ownership::Kept;
use crate::task::{Outcome, Spec, TaskState};
use crate::time::{Millis, Unix};
use crate::view::{Explanation, Stats, Status, TaskPage, TaskView};
use crate::workflow::APPROVE;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

impl Node {
    /// A task that this node keeps. Whether it has ended is said only once
    /// that is promised.
    pub(crate) fn task_view(&self, task: &TaskId, detail: Detail) -> TaskView {
        let kept = &self.kept[task];
        let (record, spec) = (&kept.slot.record, &kept.slot.spec);
        let closed = kept.promised_end();
        let unpromised = record.closed() && closed.is_none();
        let status = if unpromised { Status::Running } else { Node::status_of(kept) };
        let executor = match &record.body.state {
            TaskState::Leased { executor, worker, .. } => Some((*executor, worker.clone())),
            TaskState::Done(c) => c.executor.clone(),
            TaskState::Blocked | TaskState::Delayed { .. } | TaskState::Queued { .. } => None,
        };
        let delayed_until = match record.body.state {
            TaskState::Delayed { until } => Some(until),
            TaskState::Blocked | TaskState::Queued { .. } | TaskState::Leased { .. } | TaskState::Done(_) => None,
        };
        let lease = kept.lease.as_ref();
        let said = lease.filter(|_| detail.live).map(|l| &l.said);
        let error = closed.and_then(|c| said_at_end(&c.outcome)).or_else(|| record.body.last_error.clone());
        let retries = record.body.retries;
        let workflow = self.array_view(task, detail).or_else(|| self.workflow_view(task, detail));
        let array = workflow.as_ref().filter(|_| spec.is_array()).map(|view| self.array_progress(view));
        TaskView {
            task: task.clone(),
            task_type: spec.task_type.clone(),
            status,
            priority: record.body.priority,
            tags: spec.tags.clone(),
            executor,
            attempt: record.body.attempt,
            failures: record.body.failures,
            crashes: record.body.crashes,
            submitted_at: spec.submitted_at,
            started_at: closed.and_then(|c| c.started_at).or_else(|| lease.and_then(|l| l.started_at)),
            ended_at: closed.map(|c| c.at),
            delayed_until,
            home: kept.slot.pledge.owner,
            holders: record.holders.clone(),
            forgotten: self.forgotten_of(record),
            epoch: record.stamp.ballot.epoch,
            position: if detail.live || detail.explain { self.queue.position(kept) } else { None },
            progress: lease.and_then(|l| l.said.percent).or_else(|| array.as_ref().and_then(|(percent, _)| *percent)),
            message: lease
                .and_then(|l| l.said.message.clone())
                .or_else(|| question_of(spec, record.closed()))
                .or_else(|| array.map(|(_, counts)| counts)),
            log_tail: said.and_then(|s| s.log_tail.clone()),
            error,
            retry_of: spec.retry_of.clone(),
            retried_as: (retries > 0).then(|| TaskId::new(&format!("{task}-retry-{retries}")).ok()).flatten(),
            depends_on: spec.depends_on.clone(),
            requirements: spec.requirements.clone(),
            explanation: (detail.explain && !record.closed()).then(|| self.explain(kept)),
            report: closed.filter(|_| detail.report).and_then(|c| c.report.clone()),
            cached_from: closed
                .and_then(|c| c.cached_from.clone())
                .zip(spec.cache_key())
                .map(|(source, key)| CachedFrom { source, key }),
            workflow: workflow.map(Box::new),
            schedule: self.schedule_view(task).map(Box::new),
            spec: detail.spec.then(|| spec.clone()),
        }
    }

    /// From measured runs and the slots that there are; `None` where nothing
    /// was measured yet.
    pub(crate) fn estimate_start(&self, position: Option<u64>, granted: bool) -> Option<Unix> {
        let wall = self.wall();
        if granted {
            return Some(wall);
        }
        let (sum, n) = self.recent.runs(wall);
        let slots: u64 = self.worker_views().iter().map(|w| u64::from(w.slots)).sum();
        let position = position?;
        (n > 0 && slots > 0).then(|| wall + Millis(position * (sum.0 / n) / slots))
    }

    pub(crate) fn explain(&self, kept: &Kept) -> Explanation {
        let (record, spec) = (&kept.slot.record, &kept.slot.spec);
        if let Some((summary, next)) = self.explain_bereft(kept) {
            let reason = Some(Reason::Unreachable);
            return Explanation { reason, summary, next, ..Explanation::default() };
        }
        match &record.body.state {
            _ if spec.is_schedule() && !record.closed() => self.explain_schedule(kept),
            TaskState::Blocked => self.explain_blocked(&record.task, spec),
            TaskState::Delayed { .. } => {
                let summary = match &record.body.last_error {
                    Some(error) => format!("waits before its next attempt; the last one failed: {error}"),
                    None => "waits for its time (not_before)".to_owned(),
                };
                of_state(Some(Reason::Delay), summary, &record.body.state)
            }
            TaskState::Queued { .. } => self.explain_queued(kept),
            TaskState::Leased { executor, worker, .. } => {
                let ahead = kept.lease.as_ref().is_some_and(|l| l.ahead && l.started.is_none());
                let summary = if ahead {
                    format!("worker {worker} on {executor} keeps its room for it")
                } else {
                    format!("was granted to worker {worker} on {executor}")
                };
                let (reason, summary) = match self.explain_unreachable(record) {
                    Some(why) => (Some(Reason::Unreachable), format!("{summary}; no end of it can be settled: {why}")),
                    None => (ahead.then_some(Reason::Reserved), summary),
                };
                of_state(reason, summary, &record.body.state)
            }
            TaskState::Done(_) => Explanation::default(),
        }
    }

    fn explain_blocked(&self, task: &TaskId, spec: &Spec) -> Explanation {
        if *spec.task_type == *APPROVE {
            return Explanation {
                reason: None,
                summary: "waits for somebody to approve it".into(),
                nodes: Vec::new(),
                next: "completes or fails by their word: taskmesh workflow approve".into(),
                next_at: None,
            };
        }
        if let Some((summary, next)) = self.explain_looking(task) {
            let explanation = of_state(Some(Reason::Dependency), summary, &TaskState::Blocked);
            return Explanation { next: next.into(), ..explanation };
        }
        if let Some(explanation) = self.explain_array(task) {
            return explanation;
        }
        let missing: Vec<_> = match self.missing.get(task) {
            Some(missing) => missing.iter().map(|t| t.as_str()).collect(),
            None => spec.depends_on.iter().map(|t| t.as_str()).collect(),
        };
        let summary = format!("waits for {} of {} tasks: {}", missing.len(), spec.depends_on.len(), shorten(&missing));
        of_state(Some(Reason::Dependency), summary, &TaskState::Blocked)
    }

    /// What passes the filter of the tasks that this node speaks for and the
    /// asker may look at.
    pub(crate) fn own_tasks(&self, filter: &TaskFilter, origin: &Origin, most_bytes: usize) -> TaskPage {
        let mut found: Vec<(Unix, &TaskId)> = self
            .kept
            .iter()
            .filter(|(task, kept)| self.speaks_for(task, kept) && self.passes(task, kept, filter))
            .filter(|(task, kept)| origin.sees(task, &kept.slot.spec))
            .map(|(task, kept)| (kept.slot.spec.submitted_at, task))
            .collect();
        let total = found.len() as u64;
        found.sort_unstable_by(|one, other| filter.order.compare(*one, *other));
        let after = filter.after.as_ref().map(|(at, task)| (*at, task));
        let page = found.into_iter().filter(|place| after.is_none_or(|a| filter.order.compare(a, *place).is_lt()));
        let limit = (filter.limit as usize).min(crate::limits::PAGE + crate::limits::OFFSET);
        let views = page.take(limit).map(|(_, task)| self.task_view(task, Detail::default()));
        let tasks = crate::pages::that_fit(views, most_bytes);
        TaskPage { tasks, total, answered: 1, expected: 1 }
    }

    /// Its owner, or for as long as that is silent the first of its keepers.
    fn speaks_for(&self, task: &TaskId, kept: &Kept) -> bool {
        if self.owns(kept) {
            return !kept.disowned() && !kept.unconfirmed();
        }
        let owner = kept.slot.pledge.owner;
        if !kept.slot.record.holders.contains(&self.id) || (owner != self.id && self.live(owner)) {
            return false;
        }
        let live = kept.slot.record.keepers().filter(|n| self.live(*n));
        crate::ids::rendezvous(task.place_hash(), live).first() == Some(&self.id)
    }

    fn passes(&self, task: &TaskId, kept: &Kept, filter: &TaskFilter) -> bool {
        let (record, spec) = (&kept.slot.record, &kept.slot.spec);
        let unpromised = record.closed() && kept.promised_end().is_none();
        let status = if unpromised { Status::Running } else { Node::status_of(kept) };
        let worker = match &record.body.state {
            TaskState::Leased { worker, .. } => Some(worker),
            TaskState::Done(closed) => closed.executor.as_ref().map(|(_, w)| w),
            TaskState::Blocked | TaskState::Delayed { .. } | TaskState::Queued { .. } => None,
        };
        (filter.statuses.is_empty() || filter.statuses.contains(&status))
            && filter.worker.as_ref().is_none_or(|w| worker == Some(w))
            && filter.owner.is_none_or(|owner| kept.slot.pledge.owner == owner)
            && filter.begun.is_none_or(|begun| self.parts_of(task).next().is_some() == begun)
            && filter.tags.iter().all(|t| spec.tags.contains(t))
            && filter.priority_min.is_none_or(|p| record.body.priority.value() >= p)
            && filter.task_type.as_ref().map_or(!spec.bears_tasks(), |t| *t == spec.task_type)
            && filter
                .parent
                .as_ref()
                .is_none_or(|p| task.as_str().strip_prefix(p.as_str()).is_some_and(|rest| rest.starts_with('/')))
    }

    pub(crate) fn own_stats(&self, workers: bool, historical: bool) -> Stats {
        let wall = self.wall();
        Stats {
            counts: self.confirmed_counts(),
            waits: self.recent.waits(wall),
            runs: self.recent.runs(wall),
            ended: self.recent.throughput(wall),
            oldest_queued: self.queue.oldest().map(|since| wall.since(since)),
            paused: self.controls.paused.clone(),
            workers: workers.then(|| self.own_worker_views()),
            historical: historical.then(|| self.recent.history()),
            scheduling: BTreeSet::from([self.config.scheduling]),
            waiting: self.waiting(),
            answered: 1,
            expected: 1,
        }
    }

    /// Owned tasks by status, none that another node may count as well.
    fn confirmed_counts(&self) -> BTreeMap<Status, u64> {
        let mut counts = self.counts.clone();
        let owned = self.unsettled.iter().filter_map(|task| self.owned(task));
        for kept in owned.filter(|k| k.unconfirmed()) {
            if let Some(count) = counts.get_mut(&Node::status_of(kept)) {
                *count = count.saturating_sub(1);
            }
        }
        let (blocked, ready) = self.waiting_items();
        for (status, items) in [(Status::Blocked, blocked), (Status::Queued, ready)] {
            if items > 0 {
                *counts.entry(status).or_default() += items;
            }
        }
        counts
    }

    /// Counts of this node alone, for its own metrics.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.own_stats(true, false)
    }
}

/// What a step that waits for approval asks.
fn question_of(spec: &Spec, over: bool) -> Option<Arc<str>> {
    if over || *spec.task_type != *APPROVE {
        return None;
    }
    let inputs: serde_json::Value = serde_json::from_slice(&spec.payload).ok()?;
    Some(inputs.get("message")?.as_str()?.into())
}

fn said_at_end(outcome: &Outcome) -> Option<Arc<str>> {
    match outcome {
        Outcome::Completed | Outcome::Expired => None,
        Outcome::Failed { error } => Some(error.clone()),
        Outcome::Cancelled { reason } => reason.clone(),
    }
}

fn shorten(names: &[&str]) -> String {
    let shown = names.iter().take(5).copied().collect::<Vec<_>>().join(", ");
    if names.len() > 5 { format!("{shown}, …") } else { shown }
}
