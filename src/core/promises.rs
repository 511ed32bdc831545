//! Replies that wait: until a majority knows of what they say, or until a task
//! has ended; and what is said of a task meanwhile.

use crate::array::Items;
use crate::authority::Touch;
use crate::command::{Detail, Query, Refusal, Request};
use crate::ids::{NodeId, TaskId};
use crate::limits;
use crate::node::Node;
use crate::ownership::Kept;
use crate::requests::{Answer, Origin, Promise, Waiter};
use crate::time::Millis;
use crate::token::Caller;
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

    pub(crate) fn on_query_task(&mut self, origin: Origin, task: &TaskId, detail: Detail, wait: Millis) {
        let wait = Millis(wait.0.min(limits::WAIT_MS));
        if matches!(&origin, Origin::Node { .. }) && *origin.caller() == Caller::Node {
            let now = self.now;
            if let Some(kept) = self.kept.get_mut(task) {
                kept.asked_at = Some(now);
            }
        }
        if let Some(kept) = self.owned(task).filter(|k| !k.disowned()) {
            if let Err(refusal) = origin.allows_task(task, &kept.slot.spec, Touch::Look) {
                return self.answer(origin, Err(refusal));
            }
            let ended = kept.promised_end().is_some();
            let unconfirmed = kept.slot.record.closed() && !ended;
            if ended || (wait == Millis(0) && !unconfirmed) {
                let view = self.task_view(task, detail);
                return self.answer(origin, Ok(Reply::Task(Box::new(view))));
            }
            // It has ended, and may be said to have as soon as a majority knows.
            let by = self.now + if unconfirmed { wait.max(CONFIRMATION) } else { wait };
            let waiter = Waiter { origin, detail, by };
            self.requests.waiters.entry(task.clone()).or_default().push(waiter);
            return;
        }
        let Some(origin) = self.answer_as_array(origin, task, detail, wait) else { return };
        let request = Request::Query(Query::Task { task: task.clone(), detail, wait });
        if !matches!(origin, Origin::Node { .. }) {
            let nodes = self.likely_holders(task);
            return self.ask(origin, request, nodes, None);
        }
        self.answer_for_absent_owner(origin, task, detail);
    }

    /// Another node asks for a task that this one does not own. The answer
    /// names the owner; it is for the asker to ask that one (nodes that passed
    /// a question on to whom they take for the owner could do so in a circle).
    pub(crate) fn answer_for_absent_owner(&mut self, origin: Origin, task: &TaskId, detail: Detail) {
        match self.copy_of(&origin, task, detail) {
            Some(reply) => self.answer(origin, reply),
            None => self.answer_for_unborn(origin, task, detail),
        }
    }

    /// What a holder says of a task that it does not own; `None`: it is none.
    pub(crate) fn copy_of(&self, origin: &Origin, task: &TaskId, detail: Detail) -> Option<Result<Reply, Refusal>> {
        // A copy left over from when this node was a holder says nothing.
        let kept = self.kept.get(task).filter(|k| k.slot.record.holders.contains(&self.id) && !k.disowned())?;
        if let Err(refusal) = origin.allows_task(task, &kept.slot.spec, Touch::Look) {
            return Some(Err(refusal));
        }
        let owner = kept.slot.pledge.owner;
        let asker = if let Origin::Node { from, .. } = origin { Some(*from) } else { None };
        let owner_is_there = owner != self.id && self.live(owner) && Some(owner) != asker;
        if kept.slot.record.closed() && !owner_is_there {
            return Some(Err(self.unconfirmed_end(task)));
        }
        let mut view = self.task_view(task, detail);
        view.ended_at = kept.slot.record.body.state.closed().map(|closed| closed.at);
        Some(Ok(Reply::Task(Box::new(view))))
    }

    /// A holder's copy that has ended names the owner, and tells nobody anything else.
    pub(crate) fn last_word(&self, reply: Result<Reply, Refusal>) -> Result<Reply, Refusal> {
        match reply {
            Ok(Reply::Task(view)) if view.ended_at.is_some() && !view.status.terminal() => {
                Err(self.unconfirmed_end(&view.task))
            }
            other => other,
        }
    }

    pub(crate) fn unconfirmed_end(&self, task: &TaskId) -> Refusal {
        let problem = format!("{task} has ended, and its new owner has not confirmed it yet").into();
        Refusal::Unavailable { problem, retry_after: self.config.stagger }
    }
}

/// How long a question after a task that has ended waits for the promise.
const CONFIRMATION: Millis = Millis(1_000);
