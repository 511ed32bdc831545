//! What many nodes answer, made into one: pages of tasks and sums of counts.
//! A page that is too large for one message comes in several.

use crate::command::{Query, Refusal, Request, Scope, TaskFilter};
use crate::ids::NodeId;
use crate::limits;
use crate::message::Message;
use crate::node::Node;
use crate::requests::Plan;
use crate::time::Unix;
use crate::view::{Reply, Stats, Status, TaskPage, TaskView};
use std::collections::BTreeMap;

impl Node {
    /// One node's part of what is gathered from all.
    pub(crate) fn on_part(&mut self, from: NodeId, number: u64, mut reply: Result<Reply, Refusal>) {
        let rest = match &mut reply {
            // It does not count as an answer: the page would leave out what it should begin with.
            Ok(Reply::Tasks(page)) if !self.in_order(number, page) => {
                let problem = "tasks came in another order: that node is of an older version".into();
                reply = Err(Refusal::Unavailable { problem, retry_after: crate::Millis(0) });
                None
            }
            Ok(Reply::Tasks(page)) => self.rest_of(number, page),
            Ok(_) | Err(_) => None,
        };
        let Some(gather) = self.requests.gathers.get_mut(&number) else { return };
        if !gather.left.contains(&from) {
            return;
        }
        if let Some(rest) = rest {
            let by = gather.origin.by();
            let part = self.requests.number();
            self.requests.parts.insert(part, number);
            self.send(from, Message::Request { id: part, by, request: Box::new(rest) });
        } else {
            // A refusal of another kind may hide what is looked for.
            let told = matches!(reply, Ok(_) | Err(Refusal::NotFound { .. } | Refusal::Denied { .. }));
            if gather.left.remove(&from) && told {
                gather.answered += 1;
            }
        }
        if let Ok(reply) = reply {
            self.add_to_gather(number, reply);
        }
        self.finish_gather_if_done(number);
    }

    /// A version that knows of one order alone answers in that.
    fn in_order(&self, number: u64, page: &TaskPage) -> bool {
        let Some(Plan::Tasks(filter)) = self.requests.gathers.get(&number).map(|gather| &gather.plan) else {
            return true;
        };
        let places: Vec<_> = filter.after.iter().map(|(at, t)| (*at, t)).chain(page.tasks.iter().map(key)).collect();
        places.windows(2).all(|pair| filter.order.compare(pair[0], pair[1]).is_lt())
    }

    /// The question for what did not fit into `page`, if the asker needs it.
    fn rest_of(&self, number: u64, page: &mut TaskPage) -> Option<Request> {
        let gather = self.requests.gathers.get(&number)?;
        let Plan::Tasks(filter) = &gather.plan else { return None };
        let last = key(page.tasks.last()?);
        let before = gather.page.tasks.iter().filter(|t| filter.order.compare(key(t), last).is_le()).count();
        let asked = wide(filter);
        let full = page.tasks.iter().map(bytes).sum::<usize>() >= limits::ANSWER_BYTES;
        if !full || before + page.tasks.len() >= asked.limit as usize {
            return None;
        }
        // Each part says the same total: the last one counts.
        page.total = 0;
        let after = Some((last.0, last.1.clone()));
        Some(Request::Query(Query::Tasks(Box::new(TaskFilter { after, ..asked }))))
    }
}

/// What each node is asked for: all that may be in the page, which the asker cuts.
pub(crate) fn wide(filter: &TaskFilter) -> TaskFilter {
    TaskFilter { limit: filter.limit + filter.offset, offset: 0, scope: Scope::Local, ..filter.clone() }
}

fn key(view: &TaskView) -> (Unix, &crate::TaskId) {
    (view.submitted_at, &view.task)
}

/// As many as one message carries; the one that fills it is among them.
pub(crate) fn that_fit(views: impl Iterator<Item = TaskView>, most: usize) -> Vec<TaskView> {
    let mut room = most;
    let mut fitting = Vec::new();
    for view in views {
        let size = bytes(&view);
        fitting.push(view);
        if size >= room {
            break;
        }
        room -= size;
    }
    fitting
}

/// About what a view takes in a message.
fn bytes(view: &TaskView) -> usize {
    let text = |t: &Option<std::sync::Arc<str>>| t.as_ref().map_or(0, |t| t.len());
    let listed = view.tags.iter().map(|t| t.len() + FIELD).sum::<usize>();
    let awaited = view.depends_on.iter().map(|t| t.as_str().len() + FIELD).sum::<usize>();
    let tail = view.log_tail.as_ref().map_or(0, |t| t.len());
    let own = view.task.as_str().len() + view.task_type.len() + tail + view.holders.len() * 40;
    let workflow = view.workflow.as_ref().map_or(0, |w| w.name.len() + WORKFLOW);
    let schedule = view.schedule.as_ref().map_or(0, |s| s.cron.len() + s.timezone.len() + s.task_type.len() + FIELDS);
    VIEW + workflow
        + schedule
        + own
        + listed
        + awaited
        + text(&view.message)
        + text(&view.error)
        + view.requirements.bytes()
}

/// A field's own overhead.
const FIELD: usize = 4;
/// Those of a schedule: times, numbers, states.
const FIELDS: usize = 60;
/// What that of a workflow has beside its name: counts of steps by state.
const WORKFLOW: usize = 300;
/// What every view has: times, numbers, node ids.
const VIEW: usize = 600;

pub(crate) fn add_stats(sum: &mut Stats, more: Stats) {
    for (status, n) in more.counts {
        *sum.counts.entry(status).or_default() += n;
    }
    sum.waits = (sum.waits.0 + more.waits.0, sum.waits.1 + more.waits.1);
    sum.runs = (sum.runs.0 + more.runs.0, sum.runs.1 + more.runs.1);
    sum.ended += more.ended;
    sum.scheduling.extend(more.scheduling);
    for (reason, tasks) in more.waiting {
        *sum.waiting.entry(reason).or_default() += tasks;
    }
    sum.oldest_queued = sum.oldest_queued.max(more.oldest_queued);
    if sum.paused.is_none() {
        sum.paused = more.paused;
    }
    if let Some(workers) = more.workers {
        sum.workers.get_or_insert_default().extend(workers);
    }
    if let Some(minutes) = more.historical {
        let mut merged: BTreeMap<Unix, (u64, u64)> = BTreeMap::new();
        for (at, ended, failed) in sum.historical.take().unwrap_or_default().into_iter().chain(minutes) {
            let minute = merged.entry(at).or_default();
            *minute = (minute.0 + ended, minute.1 + failed);
        }
        sum.historical = Some(merged.into_iter().map(|(at, (ended, failed))| (at, ended, failed)).collect());
    }
}

pub(crate) fn merge_page(mut page: TaskPage, filter: &TaskFilter, answered: u32, expected: u32) -> TaskPage {
    page.tasks.sort_by(|a, b| filter.order.compare(key(a), key(b)));
    page.tasks.dedup_by(|a, b| a.task == b.task);
    page.tasks = page.tasks.into_iter().skip(filter.offset as usize).take(filter.limit as usize).collect();
    (page.answered, page.expected) = (answered, expected);
    page
}

pub(crate) fn waiting(stats: &Stats) -> u64 {
    [Status::Queued, Status::Blocked, Status::Delayed].iter().filter_map(|s| stats.counts.get(s)).sum()
}

pub(crate) fn running(stats: &Stats) -> u64 {
    [Status::Leased, Status::Running].iter().filter_map(|s| stats.counts.get(s)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;
    use crate::command::TaskOrder;
    use crate::testing::{Solo, solo, spec};
    use crate::{Input, TaskId};
    use std::sync::Arc;

    #[test]
    fn a_page_that_is_too_large_for_a_message_comes_in_parts() {
        let all: Vec<_> = (0..400).map(|n| TaskId::new(&format!("a{n:03}")).expect("a valid id")).collect();
        assert_eq!(in_parts(TaskOrder::Oldest), all);
        assert_eq!(in_parts(TaskOrder::Newest), all.into_iter().rev().collect::<Vec<_>>());
    }

    fn in_parts(order: TaskOrder) -> Vec<TaskId> {
        let mut solo = solo(Config::default());
        let tag: Arc<str> = "t".repeat(limits::TEXT_BYTES).into();
        for n in 0..400 {
            let heavy = crate::Spec { tags: vec![tag.clone(); limits::TAGS], ..spec() };
            solo.submit(&format!("a{n:03}"), heavy);
        }
        let mut filter = TaskFilter { limit: 1_000, order, scope: Scope::Local, ..TaskFilter::default() };
        let mut seen = Vec::new();
        for id in 0.. {
            let page = page(&mut solo, id, filter.clone());
            let size = page.tasks.iter().map(bytes).sum::<usize>();
            assert!(size < limits::MESSAGE_BYTES * 3 / 4, "{size} bytes");
            assert_eq!(page.total, 400);
            filter.after = page.tasks.last().map(|t| (t.submitted_at, t.task.clone()));
            seen.extend(page.tasks.into_iter().map(|t| t.task));
            if size < limits::ANSWER_BYTES {
                break;
            }
        }
        seen
    }

    #[test]
    fn a_part_in_another_order_is_no_answer() {
        let mut solo = solo(Config::default());
        for name in ["a", "b"] {
            solo.submit(name, spec());
        }
        let hello = Message::Hello(Box::new(crate::testing::hello()));
        solo.feed(Input::Received { from: NodeId::test(2), message: hello });
        let filter = |order, scope| TaskFilter { limit: 10, order, scope, ..TaskFilter::default() };
        for (told, answered) in [(TaskOrder::Newest, 2), (TaskOrder::Oldest, 1)] {
            let part = page(&mut solo, 9, filter(told, Scope::Local));
            let asked = filter(TaskOrder::Newest, Scope::Mesh);
            let (effects, _) = solo.ask(Request::Query(Query::Tasks(Box::new(asked))));
            let id = effects.iter().find_map(|e| match e {
                crate::Effect::Send { message: Message::Request { id, .. }, .. } => Some(*id),
                _ => None,
            });
            let reply = Box::new(Ok(Reply::Tasks(part)));
            let message = Message::Response { id: id.expect("the other is asked"), reply };
            let effects = solo.feed(Input::Received { from: NodeId::test(2), message });
            let got = effects.iter().find_map(|e| match e {
                crate::Effect::Reply { reply: Ok(Reply::Tasks(page)), .. } => Some((page.answered, page.expected)),
                _ => None,
            });
            assert_eq!(got, Some((answered, 2)), "{told:?}");
        }
    }

    /// What another node is told.
    fn page(solo: &mut Solo, id: u64, filter: TaskFilter) -> TaskPage {
        let request = Box::new(Request::Query(Query::Tasks(Box::new(filter))));
        let message = Message::Request { id, by: crate::message::By::Node, request };
        let effects = solo.feed(Input::Received { from: NodeId::test(2), message });
        let page = effects.iter().find_map(|e| match e {
            crate::Effect::Send { message: Message::Response { reply, .. }, .. } => Some((**reply).clone()),
            _ => None,
        });
        let Some(Ok(Reply::Tasks(page))) = page else { panic!("no page: {effects:?}") };
        page
    }
}
