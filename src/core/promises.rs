//! Replies that wait: until a majority knows of what they say, or until a task
//! has ended.

use crate::array::Items;
use crate::command::{Detail, Refusal};
use crate::ids::{NodeId, TaskId};
use crate::node::Node;
use crate::ownership::Kept;
use crate::requests::{Answer, Origin, Promise};
use crate::time::Millis;
use crate::view::{Reply, Status, Submitted};
use std::collections::BTreeMap;

impl Node {
    /// Answers once a majority knows of the newest version of each of `tasks`.
    pub(crate) fn answer_when_promised(&mut self, origin: Origin, tasks: Vec<TaskId>, answer: Answer, accept: bool) {
        let number = self.requests.number();
        let local = !accept && matches!(answer, Answer::Submitted { .. });
        let mut left = BTreeMap::new();
        for task in tasks {
            let Some(kept) = self.owned(&task) else { continue };
            let revision = if accept { 0 } else { kept.slot.record.stamp.revision };
            let done = local || kept.has_promised(revision) && (!accept || self.has_full_holders(kept));
            if !done {
                left.insert(task, revision);
            }
        }
        let by = self.now + self.config.request_timeout;
        let promise = Promise { origin, left, answer, accept, since: self.now, by };
        if promise.left.is_empty() {
            return self.keep_promise(promise);
        }
        for task in promise.left.keys() {
            self.requests.promised_of.entry(task.clone()).or_default().push(number);
        }
        self.requests.promises.insert(number, promise);
    }

    /// `task` may have been promised by now: who waits for that?
    pub(crate) fn check_promises(&mut self, task: &TaskId) {
        let Some(numbers) = self.requests.promised_of.get(task).cloned() else { return };
        let Some(kept) = self.owned(task) else { return };
        let mut kept_ones = Vec::new();
        for number in numbers {
            let Some(promise) = self.requests.promises.get(&number) else {
                kept_ones.push(number);
                continue;
            };
            let Some(revision) = promise.left.get(task) else { continue };
            if kept.has_promised(*revision) && (!promise.accept || self.has_full_holders(kept)) {
                kept_ones.push(number);
            }
        }
        for number in kept_ones {
            if let Some(waiting) = self.requests.promised_of.get_mut(task) {
                waiting.retain(|n| *n != number);
                if waiting.is_empty() {
                    self.requests.promised_of.remove(task);
                }
            }
            let done = self.requests.promises.get_mut(&number).is_some_and(|p| {
                p.left.remove(task);
                p.left.is_empty()
            });
            if done && let Some(promise) = self.requests.promises.remove(&number) {
                self.keep_promise(promise);
            }
        }
    }

    pub(crate) fn keep_promise(&mut self, promise: Promise) {
        let took = self.now.since(promise.since);
        let reply = match promise.answer {
            Answer::Ready(reply) => reply,
            Answer::Submitted { name, items, replayed } => self.submitted(name, items, replayed, took),
            Answer::Reprioritised { task, old, new } => {
                let position = self.owned(&task).and_then(|k| self.queue.position(k));
                Reply::Reprioritised { task, old, new, position }
            }
            Answer::Retried { task, retry, count } => {
                let position = self.owned(&retry).and_then(|k| self.queue.position(k));
                Reply::Retried { task, retry, count, position }
            }
        };
        self.answer(promise.origin, Ok(reply));
    }

    pub(crate) fn submitted(&mut self, name: TaskId, items: Option<usize>, replayed: bool, took: Millis) -> Reply {
        let first = if items.is_some() { name.item(0).unwrap_or_else(|_| name.clone()) } else { name.clone() };
        let whole = self.kept.get(&name).is_some_and(|k| k.slot.spec.is_array());
        let count = if whole { 1 } else { items.unwrap_or(1) };
        let kept = self.kept.get(&first);
        let array = self.kept.get(&name).filter(|_| whole);
        let spec = array.or(kept).map(|k| k.slot.spec.clone());
        let status = kept.map_or(Status::Queued, Node::status_of);
        let position = if count == 1 && !whole { kept.and_then(|k| self.queue.position(k)) } else { None };
        let worker = kept.and_then(|k| match &k.slot.record.body.state {
            crate::TaskState::Leased { worker, .. } => Some(worker.clone()),
            _ => None,
        });
        let home = array.or(kept).map_or(self.id, |k| k.slot.record.owner());
        // A workflow runs in no worker.
        let runs = spec.as_ref().filter(|s| !s.is_workflow());
        let (feasible, infeasible) = match array.and_then(|k| Items::read(&k.slot.spec.payload).ok().zip(Some(k))) {
            Some((items, k)) => self.feasibility_of(&items.heading().task_type, &k.slot.spec.requirements),
            None => runs.map_or((0, None), |s| self.feasibility(s)),
        };
        let estimated_start = self.estimate_start(position, worker.is_some());
        if let Some(spec) = spec
            && !replayed
        {
            let task_type = spec.task_type.clone();
            for n in 0..count {
                let task = if items.is_some() && !whole {
                    name.item(n).unwrap_or_else(|_| name.clone())
                } else {
                    name.clone()
                };
                self.notice(crate::Notice::TaskAccepted { task, task_type: task_type.clone(), took });
            }
        }
        Reply::Submitted(Box::new(Submitted {
            task: name,
            status,
            position,
            worker,
            home,
            replayed,
            items: items.map(|n| u32::try_from(n).unwrap_or(u32::MAX)),
            feasible,
            infeasible: infeasible.map(|(_, why)| why),
            estimated_start,
        }))
    }

    /// The id of a submission that waits turned out to be another's.
    pub(crate) fn refuse_waiting(&mut self, task: &TaskId, same: bool, owner: NodeId) {
        for number in self.requests.promised_of.remove(task).unwrap_or_default() {
            let Some(promise) = self.requests.promises.remove(&number) else { continue };
            let refusal = if same {
                let problem = format!("{task} was submitted before, to {owner}; ask again").into();
                Refusal::Unavailable { problem, retry_after: Millis(100) }
            } else {
                Refusal::Conflict { name: task.as_str().into() }
            };
            self.answer(promise.origin, Err(refusal));
        }
    }

    /// This node does not own `task` any more: whoever waits is told to ask
    /// the node that does.
    pub(crate) fn on_deposed(&mut self, task: &TaskId) {
        let owner_changed = || Refusal::Unavailable {
            problem: format!("{task} has changed its owner meanwhile; whether this was done is not known: ask again")
                .into(),
            retry_after: Millis(500),
        };
        for number in self.requests.promised_of.remove(task).unwrap_or_default() {
            if let Some(promise) = self.requests.promises.remove(&number) {
                self.answer(promise.origin, Err(owner_changed()));
            }
        }
        for waiter in self.requests.waiters.remove(task).unwrap_or_default() {
            self.answer(waiter.origin, Err(owner_changed()));
        }
    }

    pub(crate) fn reply_of(&self, task: &TaskId, detail: Detail) -> Result<Reply, Refusal> {
        // Of what a new owner found closed, somebody may have been told that it has ended.
        let adopted = |kept: &&Kept| kept.slot.record.stamp.ballot.epoch > 1 && kept.slot.record.closed();
        if self.owned(task).filter(adopted).is_some_and(|kept| kept.promised_end().is_none()) {
            return Err(self.unconfirmed_end(task));
        }
        let problem = || format!("{task} is between owners; try again").into();
        let gone = || Refusal::Unavailable { problem: problem(), retry_after: self.config.lease };
        self.view_of(task, detail).map(|view| Reply::Task(Box::new(view))).ok_or_else(gone)
    }

    pub(crate) fn answer_waiters(&mut self, task: &TaskId) {
        for waiter in self.requests.waiters.remove(task).unwrap_or_default() {
            let reply = self.reply_of(task, waiter.detail);
            self.answer(waiter.origin, reply);
        }
    }

    pub(crate) fn break_promise(&mut self, number: u64) {
        let Some(promise) = self.requests.promises.remove(&number) else { return };
        for task in promise.left.keys() {
            if let Some(waiting) = self.requests.promised_of.get_mut(task) {
                waiting.retain(|n| *n != number);
                if waiting.is_empty() {
                    self.requests.promised_of.remove(task);
                }
            }
        }
        let problem = "too few of the task's holders have confirmed it in time; whether it will be done is not known: \
                       repeat with the same id";
        let retry_after = self.config.lease;
        self.answer(promise.origin, Err(Refusal::Unavailable { problem: problem.into(), retry_after }));
    }

    /// Items of an array that has ended never begin any more.
    pub(crate) fn answer_waiters_of_unborn(&mut self, array: &TaskId) {
        let prefix = format!("{array}/");
        let waited = self.requests.waiters.keys().filter(|item| item.as_str().starts_with(&prefix));
        let unborn: Vec<_> = waited.filter(|item| self.unborn(item).is_some()).cloned().collect();
        unborn.iter().for_each(|item| self.answer_waiters(item));
    }

    pub(crate) fn answer_late_waiters(&mut self) {
        let now = self.now;
        let mut late = Vec::new();
        for (task, waiters) in &mut self.requests.waiters {
            late.extend(waiters.extract_if(.., |w| now >= w.by).map(|w| (task.clone(), w)));
        }
        self.requests.waiters.retain(|_, w| !w.is_empty());
        for (task, waiter) in late {
            let unconfirmed =
                self.kept.get(&task).is_some_and(|k| k.slot.record.closed() && k.promised_end().is_none());
            let reply = if unconfirmed {
                let problem =
                    format!("{task} has ended, and a majority of its holders has not confirmed that yet").into();
                Err(Refusal::Unavailable { problem, retry_after: self.config.lease })
            } else {
                self.reply_of(&task, waiter.detail)
            };
            self.answer(waiter.origin, reply);
        }
    }
}
