//! How a node describes its arrays: how far they have come, and a page of their
//! items.

use super::{Array, Items, UNBORN};
use crate::command::Detail;
use crate::explain::{Reason, of_state};
use crate::ids::TaskId;
use crate::limits;
use crate::node::Node;
use crate::ownership::Kept;
use crate::task::{Data, Outcome, Report, TaskState};
use crate::view::{Explanation, Status, StepView, TaskView, WorkflowView};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What the texts and results of one page of items may have.
const PAGE_BYTES: usize = 256 * 1024;

impl Node {
    /// How far an array has come; `None` for any other task.
    pub(crate) fn array_view(&self, task: &TaskId, detail: Detail) -> Option<WorkflowView> {
        let kept = self.kept.get(task).filter(|k| k.slot.spec.is_array())?;
        let running = self.workflows.arrays.get(task);
        let summary = kept.promised_end().and_then(|closed| summary_of(closed.report.as_ref()?));
        let tally = match (running, summary) {
            (Some(array), _) => self.tally_of(task, array),
            (None, Some(summary)) => summary,
            (None, None) => self.tally_of_records(task, kept),
        };
        let ended = |status: &str| Status::from_name(status).is_some_and(Status::terminal);
        let all = tally.values().map(|n| u64::from(*n)).sum();
        let over = kept.slot.record.closed();
        let done = tally.iter().filter(|(status, _)| ended(status) || over).map(|(_, n)| u64::from(*n)).sum();
        let read = || Items::read(&kept.slot.spec.payload).ok();
        let page = detail.items.and_then(|from| match running {
            Some(array) => Some(self.page_of(task, &array.items, from, kept)),
            None => read().map(|items| self.page_of(task, &items, from, kept)),
        });
        let (steps, next_item) = page.map_or((None, None), |(steps, next)| (Some(steps), next));
        let first = running.map_or(0, |array| array.items.index(0)) as usize;
        let first = task.item(first).ok().and_then(|item| self.kept.get(&item));
        Some(WorkflowView {
            started_at: first.map(|k| k.slot.spec.submitted_at),
            tasks: (all, done),
            tally: tally.into_iter().map(|(status, n)| (status.into(), n)).collect(),
            steps,
            next_item,
            ..WorkflowView::default()
        })
    }

    fn tally_of(&self, task: &TaskId, array: &Array) -> BTreeMap<&'static str, u32> {
        let mut tally: BTreeMap<_, _> = array.ended.iter().map(|(status, n)| (status.name(), *n)).collect();
        for place in &array.under_way {
            let item = task.item(array.items.index(*place) as usize).ok();
            let kept = item.and_then(|item| self.kept.get(&item)).filter(|k| !k.slot.record.closed());
            *tally.entry(kept.map_or(Status::Running, Node::status_of).name()).or_default() += 1;
        }
        if array.waiting() > 0 {
            tally.insert(WAITING, u32::try_from(array.waiting()).unwrap_or(u32::MAX));
        }
        tally
    }

    /// The same from what is kept here, where nobody leads it.
    fn tally_of_records(&self, task: &TaskId, kept: &Kept) -> BTreeMap<&'static str, u32> {
        let mut tally = BTreeMap::new();
        let Ok(items) = Items::read(&kept.slot.spec.payload) else { return tally };
        let mut waiting = items.len();
        for part in self.parts_of(task) {
            if items.find(&part.as_str()[task.as_str().len() + 1..]).is_some() {
                *tally.entry(Node::status_of(&self.kept[part]).name()).or_default() += 1;
                waiting -= 1;
            }
        }
        if waiting > 0 {
            let end = kept.slot.record.body.state.closed().map(|closed| Status::of_outcome(&closed.outcome).name());
            *tally.entry(end.unwrap_or(WAITING)).or_default() += u32::try_from(waiting).unwrap_or(u32::MAX);
        }
        tally
    }

    /// Items from an index on, and the index after them, if there are more.
    fn page_of(&self, task: &TaskId, items: &Items, from: u32, array: &Kept) -> (Vec<StepView>, Option<u32>) {
        let (mut page, mut room) = (Vec::new(), PAGE_BYTES);
        for place in items.place_from(from)..items.len() {
            let index = items.index(place);
            let view = self.item_view(task, index, array);
            let left = view
                .report
                .as_ref()
                .map_or(0, |report| report.result.inline_len() + report.output.as_ref().map_or(0, Data::inline_len));
            let size = left + view.error.as_ref().map_or(0, |e| e.len()) + 64;
            if page.len() >= limits::PAGE || (size > room && !page.is_empty()) {
                return (page, Some(index));
            }
            room = room.saturating_sub(size);
            page.push(view);
        }
        (page, None)
    }

    fn item_view(&self, task: &TaskId, index: u32, array: &Kept) -> StepView {
        let item = task.item(index as usize).ok().and_then(|item| self.kept.get_key_value(&item));
        let step = StepView { step: index.to_string().into(), ..StepView::default() };
        let over = array.promised_end();
        let Some((item, kept)) = item else {
            let status = over.map_or(WAITING, |closed| Status::of_outcome(&closed.outcome).name());
            return StepView { status: status.into(), ..step };
        };
        // All of them had ended, and were known to, when the array did.
        let natural = |outcome: &Outcome| matches!(outcome, Outcome::Completed | Outcome::Failed { .. });
        let known = over.is_some_and(|closed| natural(&closed.outcome));
        let state = &kept.slot.record.body.state;
        let closed = kept.promised_end().map(|closed| &**closed).or_else(|| state.closed().filter(|_| known));
        let status = match (closed, state) {
            (Some(closed), _) => Status::of_outcome(&closed.outcome),
            (None, TaskState::Done(_)) => Status::Running,
            (None, _) => Node::status_of(kept),
        };
        let error = closed.and_then(|closed| match &closed.outcome {
            Outcome::Failed { error } => Some(error.clone()),
            Outcome::Cancelled { reason } => reason.clone(),
            Outcome::Completed | Outcome::Expired => None,
        });
        let report = closed.and_then(|closed| closed.report.clone()).map(|report| Report { logs: None, ..report });
        StepView {
            status: status.name().into(),
            task: Some(item.clone()),
            attempt: kept.slot.record.body.attempt,
            error,
            report,
            started_at: closed.and_then(|closed| closed.started_at),
            ended_at: closed.map(|closed| closed.at),
            ..step
        }
    }

    /// Percent of an array that has ended, and how its items did, for people.
    pub(crate) fn array_progress(&self, view: &WorkflowView) -> (Option<u8>, Arc<str>) {
        let (all, ended) = view.tasks;
        let percent = u8::try_from(ended * 100 / all.max(1)).ok();
        let counts: Vec<_> = view.tally.iter().map(|(status, n)| format!("{n} {status}")).collect();
        (percent, format!("of {all} items {}", counts.join(", ")).into())
    }

    /// A task of this node's keeping, or an item that is none yet.
    pub(crate) fn view_of(&self, task: &TaskId, detail: Detail) -> Option<TaskView> {
        if self.kept.contains_key(task) {
            return Some(self.task_view(task, detail));
        }
        let (array, place) = self.unborn(task)?;
        let kept = &self.kept[array];
        let of = self.task_view(array, Detail::default());
        let open = self.workflows.arrays.get(array).is_none_or(|array| array.open);
        let status = match kept.promised_end() {
            Some(closed) => Status::of_outcome(&closed.outcome),
            None if open => Status::Queued,
            None => Status::Blocked,
        };
        let task_type = match self.workflows.arrays.get(array) {
            Some(array) => array.items.heading().task_type.as_str().into(),
            None => Items::read(&kept.slot.spec.payload).ok()?.heading().task_type.as_str().into(),
        };
        let explanation = detail.explain.then(|| self.explain_unborn(array, open, place));
        Some(TaskView {
            task: task.clone(),
            task_type,
            status,
            epoch: UNBORN,
            retried_as: None,
            retry_of: None,
            explanation: explanation.filter(|_| !status.terminal()),
            workflow: None,
            progress: None,
            message: None,
            ..of
        })
    }

    fn explain_unborn(&self, array: &TaskId, open: bool, place: usize) -> Explanation {
        if !open {
            return Explanation {
                next: "begins when all of them have completed".into(),
                ..of_state(Some(Reason::Dependency), format!("its array {array} waits for others"), &TaskState::Blocked)
            };
        }
        let before = self.workflows.arrays.get(array).map_or(0, |array| place.saturating_sub(array.next));
        let summary = format!("has not begun: {before} items of {array} begin before it, as others end");
        let next = "is queued when its turn has come".into();
        Explanation { next, ..of_state(Some(Reason::Order), summary, &TaskState::Blocked) }
    }

    /// Why an open array is not done.
    pub(crate) fn explain_array(&self, task: &TaskId) -> Option<Explanation> {
        let array = self.workflows.arrays.get(task).filter(|array| array.open)?;
        let (begun, waiting) = (array.under_way.len(), array.waiting());
        let summary = format!("{begun} of its items are under way, and {waiting} begin as these end");
        Some(Explanation { next: "ends with its last item".into(), ..of_state(None, summary, &TaskState::Blocked) })
    }
}

/// The counts that an ended array left.
fn summary_of(report: &Report) -> Option<BTreeMap<&'static str, u32>> {
    let Data::Inline(text) = &report.result else { return None };
    let counts: BTreeMap<String, u32> = serde_json::from_slice(text).ok()?;
    let named = |(name, n): (String, u32)| Some((Status::from_name(&name)?.name(), n)).filter(|_| n > 0);
    Some(counts.into_iter().filter_map(named).collect())
}

/// The state of an item that has not begun.
const WAITING: &str = "waiting";
