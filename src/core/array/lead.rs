//! An array as its owner leads it: which items begin, and what follows when they
//! end.
//!
//! Items begin in the order of their indexes, so many at once. What has begun is
//! told by the records that there are; an owner that takes an array over finds
//! them and goes on, as with the steps of a workflow. An item that ends badly
//! leaves the others alone.

use super::Items;
use crate::authority::Touch;
use crate::command::Refusal;
use crate::config::Planted;
use crate::ids::TaskId;
use crate::limits;
use crate::node::Node;
use crate::origin::Origin;
use crate::ownership::Kept;
use crate::task::{Data, Outcome, Report, Spec};
use crate::time::Millis;
use crate::view::Status;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// An array that this node owns. Items are counted by their place.
pub(crate) struct Array {
    pub(super) items: Items,
    /// All before it have begun.
    pub(super) next: usize,
    /// Those after it that have begun as well.
    ahead: BTreeSet<usize>,
    /// Have begun, and are not known to have ended.
    pub(super) under_way: BTreeSet<usize>,
    pub(super) ended: BTreeMap<Status, u32>,
    /// Items may have begun that this node does not know of: others are asked
    /// first, about each.
    wary: bool,
    /// All before it were asked about.
    ask_from: usize,
    /// Are being asked about.
    asked: BTreeSet<usize>,
    /// Nobody has them, so they may begin.
    unborn: BTreeSet<usize>,
    /// What it waits for before its first item has completed.
    pub(crate) open: bool,
    /// Where the tick goes on to look after those under way.
    tended: usize,
    /// When it last began to ask after those that ended elsewhere, and where it
    /// goes on to.
    keep: (Millis, Option<usize>),
}

/// Items that one tick looks after, of each array.
const TENDED: usize = 2_000;
/// Items that other nodes own and that are asked after at once.
const ASKED: usize = 500;

impl Array {
    fn new(items: Items) -> Array {
        Array {
            items,
            next: 0,
            ahead: BTreeSet::new(),
            under_way: BTreeSet::new(),
            ended: BTreeMap::new(),
            wary: false,
            ask_from: 0,
            asked: BTreeSet::new(),
            unborn: BTreeSet::new(),
            open: false,
            tended: 0,
            keep: (Millis(0), None),
        }
    }

    /// Items that have not begun.
    pub(crate) fn waiting(&self) -> usize {
        self.items.len() - self.next - self.ahead.len()
    }

    fn waits(&self, place: usize) -> bool {
        place >= self.next && place < self.items.len() && !self.ahead.contains(&place)
    }

    fn begin(&mut self, place: usize) {
        self.asked.remove(&place);
        self.unborn.remove(&place);
        self.under_way.insert(place);
        self.ahead.insert(place);
        while self.ahead.remove(&self.next) {
            self.next += 1;
        }
    }

    /// It has not begun after all.
    fn give_back(&mut self, place: usize) {
        self.under_way.remove(&place);
        self.ahead.remove(&place);
        if place < self.next {
            self.ahead.extend(place + 1..self.next);
            self.next = place;
        }
    }

    /// The next that others are to be asked about, so that `room` of them can
    /// begin.
    fn next_to_ask(&mut self, room: usize) -> Vec<usize> {
        let mut places = Vec::new();
        while self.asked.len() < room.min(ASKED) && self.ask_from < self.items.len() {
            let place = self.ask_from;
            self.ask_from += 1;
            if self.waits(place) && self.asked.insert(place) {
                places.push(place);
            }
        }
        places
    }

    fn end(&mut self, place: usize, status: Status) -> bool {
        let news = self.under_way.remove(&place);
        if news {
            *self.ended.entry(status).or_default() += 1;
        }
        news
    }

    /// How it ended, if all of its items have.
    fn over(&self) -> Option<Outcome> {
        if self.waiting() > 0 || !self.under_way.is_empty() {
            return None;
        }
        let badly: Vec<_> = self.ended.iter().filter(|(status, _)| **status != Status::Completed).collect();
        if badly.is_empty() {
            return Some(Outcome::Completed);
        }
        let counts: Vec<_> = badly.iter().map(|(status, n)| format!("{n} {}", status.name())).collect();
        let error = format!("of {} items {}", self.items.len(), counts.join(", "));
        Some(Outcome::Failed { error: error.into() })
    }

    /// What it leaves itself: how many items ended how.
    fn summary(&self) -> Report {
        let of = |status| self.ended.get(&status).copied().unwrap_or(0);
        let summary = json!({
            "items": self.items.len(),
            "completed": of(Status::Completed),
            "failed": of(Status::Failed),
            "cancelled": of(Status::Cancelled),
            "expired": of(Status::Expired),
        });
        Report { result: Data::Inline(summary.to_string().into_bytes().into()), ..Report::default() }
    }

    /// The next of those under way to look after, around and around.
    fn next_to_tend(&mut self) -> Vec<usize> {
        let (from, all) = (self.tended, &self.under_way);
        let places: Vec<_> = all.range(from..).chain(all.range(..from)).take(TENDED).copied().collect();
        self.tended = places.last().map_or(0, |last| last + 1);
        places
    }

    /// Some that have ended, four times within `span` all of them.
    fn next_to_keep(&mut self, now: Millis, span: Millis) -> Vec<usize> {
        let (since, from) = self.keep;
        let from = match from {
            Some(from) => from,
            None if now.since(since) >= Millis(span.0 / 4) => 0,
            None => return Vec::new(),
        };
        let end = self.items.len().min(from + ASKED);
        let since = if from == 0 { now } else { since };
        self.keep = (since, Some(end).filter(|end| *end < self.items.len()));
        (from..end).filter(|place| !self.waits(*place) && !self.under_way.contains(place)).collect()
    }
}

impl Node {
    /// Whether a submitted array can be taken, and how many items it has.
    pub(crate) fn check_array(&self, name: Option<&TaskId>, spec: &Spec) -> Result<usize, Refusal> {
        let invalid = |field: &str, problem: String| Refusal::Invalid { field: field.into(), problem: problem.into() };
        let items = Items::read(&spec.payload).map_err(|problem| invalid("items", problem))?;
        let item_type = &*items.heading().task_type;
        if crate::workflow::BUILT_IN.contains(&item_type) || item_type == super::ARRAY {
            return Err(invalid("task_type", format!("{item_type} is no type of a task")));
        }
        let last = items.index(items.len() - 1) as usize;
        name.map_or(Ok(()), |name| name.item(last).map(|_| ())).map_err(|e| invalid("task_id", e.to_string()))?;
        Ok(items.len())
    }

    /// How many items the array `task` has, if it is one.
    pub(crate) fn array_length(&self, task: &TaskId) -> Option<usize> {
        let kept = self.kept.get(task).filter(|k| k.slot.spec.is_array())?;
        Items::read(&kept.slot.spec.payload).ok().map(|items| items.len())
    }

    /// Begins what may begin of an open array, and ends it when all have ended.
    pub(crate) fn run_array(&mut self, task: &TaskId, left: &mut usize) {
        let array = match self.workflows.arrays.remove(task) {
            Some(array) => Ok(array),
            None => self.resume_array(task),
        };
        let mut array = match array {
            Ok(array) => {
                // It has begun, so what it waited for has completed.
                if array.open {
                    self.stop_awaiting(task);
                }
                array
            }
            Err(problem) => {
                let error = format!("its items can't be read: they {problem}").into();
                return self.close(task, Outcome::Failed { error }, None, None);
            }
        };
        array.open |= !self.missing.contains_key(task);
        let stillborn =
            if array.open && self.is_settled(task) { self.begin_items(task, &mut array, left) } else { Vec::new() };
        let over = array.over().map(|outcome| (outcome, array.summary()));
        self.workflows.arrays.insert(task.clone(), array);
        for (item, problem) in stillborn {
            self.close(&item, Outcome::Failed { error: problem.into() }, None, None);
        }
        if let Some((outcome, summary)) = over {
            self.close(task, outcome, Some(summary), None);
        }
    }

    fn begin_items(&mut self, task: &TaskId, array: &mut Array, left: &mut usize) -> Vec<(TaskId, String)> {
        let own = array.items.heading().at_once.map(|n| n as usize);
        let at_once = own.unwrap_or(self.workflows.at_once.max(limits::ARRAY_AT_ONCE));
        let mut stillborn = Vec::new();
        while array.under_way.len() < at_once
            && let Some(place) = self.next_to_begin(task, array, at_once)
        {
            if *left == 0 {
                self.stir_workflow(task);
                break;
            }
            *left -= 1;
            stillborn.extend(self.begin_item(task, array, place));
        }
        stillborn
    }

    /// The next item that may begin: an owner that took the array over asks first
    /// whether the last one has begun it, on holders that may have changed since.
    fn next_to_begin(&mut self, task: &TaskId, array: &mut Array, at_once: usize) -> Option<usize> {
        if !array.wary {
            return Some(array.next).filter(|next| *next < array.items.len());
        }
        for place in array.next_to_ask(at_once - array.under_way.len()) {
            let item = task.item(array.items.index(place) as usize).expect("checked when it was taken");
            if self.kept.contains_key(&item) || self.damaged.contains(&item) {
                array.unborn.insert(place);
            } else {
                self.workflows.questions.push(item);
            }
        }
        array.unborn.first().copied()
    }

    /// The item at `place` becomes a task; one that can't is given back.
    fn begin_item(&mut self, task: &TaskId, array: &mut Array, place: usize) -> Option<(TaskId, String)> {
        array.begin(place);
        let index = array.items.index(place) as usize;
        let item = task.item(index).expect("its length was checked when the array was taken");
        // An earlier owner began it, or somebody took its id: how that ends counts.
        if self.kept.contains_key(&item) || self.damaged.contains(&item) {
            return None;
        }
        let (payload, problem) = match array.items.payload(place) {
            Ok(payload) => (payload, None),
            Err(problem) => (Arc::from(&b"{}"[..]), Some(problem)),
        };
        let record = &self.kept[task].slot;
        let spec = Spec {
            task_type: array.items.heading().task_type.as_str().into(),
            payload,
            depends_on: Vec::new(),
            idempotency_key: None,
            retry_of: record.spec.retry_of.as_ref().and_then(|earlier| earlier.item(index).ok()),
            submitted_at: self.wall(),
            ..(*record.spec).clone()
        };
        let (priority, holders) = (record.record.body.priority, record.record.holders.clone());
        let nonce = self.chance.next();
        self.bear(item.clone(), Arc::new(spec), priority, holders, nonce);
        if let Some(kept) = self.kept.get_mut(&item) {
            kept.wary = true;
        }
        problem.map(|problem| (item, problem))
    }

    /// The state of an array that this node has just come to own, from the
    /// records of its items.
    fn resume_array(&mut self, task: &TaskId) -> Result<Array, String> {
        let kept = &self.kept[task];
        let mut array = Array::new(Items::read(&kept.slot.spec.payload)?);
        let planted = self.config.planted;
        array.wary = kept.slot.record.stamp.ballot.epoch != 1 && planted != Some(Planted::BeginAnew);
        array.keep.0 = self.now;
        let parts: Vec<TaskId> = self.parts_of(task).cloned().collect();
        if planted == Some(Planted::BeginAnew) {
            for part in &parts {
                self.depose(part);
                self.drop_record(part);
            }
            return Ok(array);
        }
        for part in &parts {
            let Some(place) = array.items.find(&part.as_str()[task.as_str().len() + 1..]) else { continue };
            array.begin(place);
            array.open = true;
            let ended = self.owned(part).filter(|k| !k.disowned()).and_then(Kept::promised_end);
            if let Some(closed) = ended {
                array.end(place, Status::of_outcome(&closed.outcome));
            }
        }
        if planted == Some(Planted::SkipItems) {
            let last = array.under_way.last().map_or(0, |last| last + 3).min(array.items.len());
            for place in (0..last).filter(|place| array.waits(*place)).collect::<Vec<_>>() {
                array.begin(place);
                array.end(place, Status::Completed);
            }
        }
        Ok(array)
    }

    /// The array that this node leads and the place in it of `item`.
    fn item_of_led(&mut self, item: &TaskId) -> Option<(TaskId, usize)> {
        let (task, name) = item.as_str().rsplit_once('/')?;
        let (task, array) = self.workflows.arrays.get_key_value(task)?;
        Some((task.clone(), array.items.find(name)?))
    }

    /// Another node keeps an item of an array that this one leads.
    pub(crate) fn on_item_found(&mut self, item: &TaskId) {
        let Some((task, place)) = self.item_of_led(item) else { return };
        let Some(array) = self.workflows.arrays.get_mut(&task) else { return };
        array.asked.remove(&place);
        if array.waits(place) {
            array.begin(place);
            self.stir_workflow(&task);
        }
    }

    /// No node that is there keeps it.
    pub(crate) fn on_item_missed(&mut self, item: &TaskId) {
        let Some((task, place)) = self.item_of_led(item) else { return };
        let never_born = self.is_nowhere(item);
        let Some(array) = self.workflows.arrays.get_mut(&task) else { return };
        array.asked.remove(&place);
        if array.under_way.contains(&place) && never_born {
            array.give_back(place);
            self.damaged.remove(item);
        } else if !array.waits(place) {
            return;
        }
        array.unborn.insert(place);
        self.stir_workflow(&task);
    }

    /// A task has ended, and a majority knows: if it is an item of an owned
    /// array, another may begin.
    pub(crate) fn on_item_ended(&mut self, item: &TaskId, outcome: &Outcome) {
        if self.workflows.arrays.is_empty() || self.kept.get(item).is_some_and(Kept::disowned) {
            return;
        }
        let Some((task, place)) = self.item_of_led(item) else { return };
        let Some(array) = self.workflows.arrays.get_mut(&task) else { return };
        if array.end(place, Status::of_outcome(outcome)) {
            self.stir_workflow(&task);
        }
    }

    /// Looks after items that are under way and that another node owns, or whose
    /// end was not heard of; and gives arrays room for what the mesh can run.
    pub(crate) fn tend_arrays(&mut self) {
        if self.workflows.arrays.is_empty() {
            return;
        }
        let slots: u64 = self.worker_views().iter().map(|w| u64::from(w.slots)).sum();
        self.workflows.at_once = usize::try_from(2 * slots).unwrap_or(usize::MAX);
        let (now, span) = (self.now, self.config.retention);
        let (mut items, mut others) = (Vec::new(), Vec::new());
        for (task, array) in &mut self.workflows.arrays {
            let (tended, kept) = (array.next_to_tend(), array.next_to_keep(now, span));
            let id = |place: usize| task.item(array.items.index(place) as usize).ok();
            items.extend(tended.into_iter().filter_map(id));
            others.extend(array.asked.iter().copied().chain(kept).filter_map(id));
            self.workflows.stirred.insert(task.clone());
        }
        for item in others.into_iter().filter(|item| self.owned(item).is_none()).collect::<Vec<_>>() {
            self.inquire(&item, Millis(0));
        }
        for item in items {
            let own = self.owned(&item);
            let settled = own.is_some_and(|k| k.disowned() || !k.slot.record.closed());
            let busy = own.is_none() && self.requests.dependencies.len() >= ASKED;
            if !settled && !busy {
                self.ask_for_dependency(&item);
            }
        }
    }

    /// Items of owned arrays that have not begun: those whose array waits for
    /// other tasks, and the rest.
    pub(crate) fn waiting_items(&self) -> (u64, u64) {
        self.workflows.arrays.values().fold((0, 0), |(blocked, ready), array| {
            let waiting = array.waiting() as u64;
            if array.open { (blocked, ready + waiting) } else { (blocked + waiting, ready) }
        })
    }

    /// The array that `item` belongs to, and its place there, if it has not begun
    /// as far as is known here.
    pub(crate) fn unborn(&self, item: &TaskId) -> Option<(&TaskId, usize)> {
        if self.kept.contains_key(item) || self.damaged.contains(item) {
            return None;
        }
        let (task, name) = item.as_str().rsplit_once('/')?;
        let (task, kept) = self.kept.get_key_value(task).filter(|(_, k)| k.slot.spec.is_array() && !k.doomed)?;
        if let Some(array) = self.workflows.arrays.get(task) {
            return array.items.find(name).filter(|place| array.waits(*place)).map(|place| (task, place));
        }
        // One that came to its end had begun all of them.
        let ended = kept.slot.record.body.state.closed().map(|closed| &closed.outcome);
        if matches!(ended, Some(Outcome::Completed | Outcome::Failed { .. })) {
            return None;
        }
        let place = Items::read(&kept.slot.spec.payload).ok()?.find(name)?;
        Some((task, place))
    }

    /// A command is for an item that has not begun: it begins, out of turn.
    ///
    /// # Errors
    /// The caller may not change it, or it can't begin now.
    pub(crate) fn bear_for(&mut self, origin: &Origin, item: &TaskId) -> Result<(), Refusal> {
        let Some((task, place)) = self.unborn(item).map(|(task, place)| (task.clone(), place)) else { return Ok(()) };
        let Some(kept) = self.owned(&task) else { return Ok(()) };
        origin.allows_task(item, &kept.slot.spec, Touch::Change)?;
        let status = Node::status_of(kept).name();
        let open = self.workflows.arrays.get(&task).is_some_and(|array| array.open) && self.is_settled(&task);
        let Some(mut array) = open.then(|| self.workflows.arrays.remove(&task)).flatten() else {
            let needs = "it has not begun, and can't now: only its whole array can be changed";
            return Err(Refusal::State { name: item.as_str().into(), status: status.into(), needs: needs.into() });
        };
        if array.wary && !array.unborn.contains(&place) {
            array.asked.insert(place);
            self.workflows.arrays.insert(task, array);
            self.inquire(item, Millis(0));
            let problem = format!("whether {item} has begun is being asked; try again").into();
            return Err(Refusal::Unavailable { problem, retry_after: self.config.stagger });
        }
        let stillborn = self.begin_item(&task, &mut array, place);
        self.workflows.arrays.insert(task, array);
        if let Some((item, problem)) = stillborn {
            self.close(&item, Outcome::Failed { error: problem.into() }, None, None);
        }
        Ok(())
    }

    /// The payload of the array that tries again what did not complete of `task`:
    /// those items alone, under their indexes.
    ///
    /// # Errors
    /// All completed, or how some ended is not known here yet.
    pub(crate) fn items_to_retry(&self, task: &TaskId) -> Result<Arc<[u8]>, Refusal> {
        let state = |needs: &str| {
            let status = Node::status_of(&self.kept[task]).name().into();
            Refusal::State { name: task.as_str().into(), status, needs: needs.into() }
        };
        let items = Items::read(&self.kept[task].slot.spec.payload).map_err(|_| state("its items can't be read"))?;
        let (mut lines, mut only) = (Vec::new(), Vec::<(u32, u32)>::new());
        for place in 0..items.len() {
            let index = items.index(place);
            let kept = task.item(index as usize).ok().and_then(|item| self.kept.get(&item));
            let closed = kept.map(|k| k.slot.record.body.state.closed());
            match closed {
                Some(Some(closed)) if closed.outcome == Outcome::Completed => continue,
                Some(Some(_)) | None => {}
                Some(None) => return Err(state("its last items have not ended yet: try again in a moment")),
            }
            lines.push(place);
            match only.last_mut() {
                Some((first, len)) if *first + *len == index => *len += 1,
                Some(_) | None => only.push((index, 1)),
            }
        }
        if lines.is_empty() {
            return Err(state("each of its items has completed"));
        }
        let heading = super::Heading { only, ..items.heading().clone() };
        let lines = lines.into_iter().map(|place| std::str::from_utf8(items.line(place)).unwrap_or("null"));
        let text = super::text_of(&heading, lines);
        if text.len() > limits::ARRAY_BYTES {
            let (got, limit) = (text.len() as u64, limits::ARRAY_BYTES as u64);
            return Err(Refusal::TooLarge { field: "items".into(), got, limit });
        }
        Ok(text.into_bytes().into())
    }
}
