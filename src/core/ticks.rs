//! A schedule as its owner leads it: each tick becomes one task, whoever owns the
//! schedule at that moment.
//!
//! The record says where it has come to. `Delayed {until}`: the tick at `until`
//! was not fired. `Queued {since}`: the tick at `since` is being fired. A tick
//! is fired in three steps, each of which waits until a majority knows of the
//! one before:
//!
//! 1. the record says so, and until the third step its holders stay the same;
//! 2. the task of the tick is born on just these holders;
//! 3. the record goes on to the next tick.
//!
//! Who finds a record after the first step and did not write it itself can't
//! know whether that task was born, so it does not bear it: it claims it, by
//! rule 5, with the birth that follows from the schedule's own. A majority of
//! the same holders then says what there is of it, which may be nothing. So a
//! tick is fired again by nobody, and left out by nobody.

use crate::config::Planted;
use crate::effect::{Entry, Key};
use crate::ids::TaskId;
use crate::limits;
use crate::node::Node;
use crate::ownership::{Kept, Offering};
use crate::prng::mix;
use crate::record::{Ballot, Birth, Record, Slot, Stamp};
use crate::schedule::{Schedule, Timetable, Turn, longest_id, shown, tick_id, tick_time, unfit};
use crate::task::{Outcome, Spec, TaskState};
use crate::time::Unix;
use crate::view::{Explanation, ScheduleView, Status};
use crate::workflow::Plan;
use crate::{command::Refusal, command::Submission, explain::Reason};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

/// The schedules that this node owns, as far as something is to be done.
#[derive(Default)]
pub(crate) struct Schedules {
    /// To be looked at with this input.
    stirred: BTreeSet<TaskId>,
    /// Something is to be done that can't be done yet.
    waiting: BTreeSet<TaskId>,
    /// There is no room for their next tick.
    crowded: BTreeSet<TaskId>,
    /// Those that are behind: the first tick that is caught up with.
    behind: BTreeMap<TaskId, Unix>,
    /// Of these it wrote itself that a tick is being fired.
    firing: BTreeSet<TaskId>,
    /// Tasks of ticks that a majority does not know of yet, and their schedules.
    born: BTreeMap<TaskId, TaskId>,
}

impl Schedules {
    /// It is the task of a tick that is being fired.
    pub(crate) fn is_born(&self, task: &TaskId) -> bool {
        self.born.contains_key(task)
    }
}

impl Kept {
    /// It is a schedule of which a tick is being fired: its holders must not
    /// change now.
    pub(crate) fn is_firing(&self) -> bool {
        self.slot.spec.is_schedule() && matches!(self.slot.record.body.state, TaskState::Queued { .. })
    }
}

impl Node {
    /// Whether a submitted schedule can be taken.
    pub(crate) fn check_schedule(&self, submission: &Submission) -> Result<(), Refusal> {
        let invalid =
            |field: String, problem: &str| Err(Refusal::Invalid { field: field.into(), problem: problem.into() });
        let of = |field: &str| if field == "schedule" { field.to_owned() } else { format!("schedule.{field}") };
        let spec = &submission.spec;
        let read = Schedule::read(&spec.payload).and_then(|schedule| Ok((schedule.timetable()?, schedule.work(spec))));
        let (timetable, work) = match read {
            Ok(read) => read,
            Err(e) => return invalid(of(e.field), &e.problem),
        };
        if let Some(problem) = unfit(&work, submission.items.len()) {
            return invalid("schedule".to_owned(), &problem);
        }
        if self.first_tick(&timetable, spec).is_none() {
            return invalid(of("cron"), "never comes: no time from now on matches it");
        }
        let mut inner = 0;
        if work.is_workflow() {
            self.check_workflow(&work)?;
            let plan = Plan::read(&work.payload).ok();
            let names = plan.iter().flat_map(|plan| (0..plan.len()).map(move |n| plan.name(n).len() + 1));
            inner = names.max().unwrap_or(0);
        }
        let longest = longest_id(inner);
        if submission.task.as_ref().is_some_and(|task| task.as_str().len() > longest) {
            return invalid("task_id".to_owned(), &format!("of a schedule, must have at most {longest} bytes"));
        }
        Ok(())
    }

    fn first_tick(&self, timetable: &Timetable, spec: &Spec) -> Option<Unix> {
        let wall = self.wall();
        // One at that very moment counts.
        let start = spec.not_before.map_or(wall, |at| wall.max(Unix(at.0.saturating_sub(1_000))));
        timetable.after(start)
    }

    /// Where a new schedule begins.
    pub(crate) fn first_state_of_schedule(&self, spec: &Spec) -> TaskState {
        let timetable = Schedule::read(&spec.payload).and_then(|schedule| schedule.timetable()).ok();
        let first = timetable.and_then(|timetable| self.first_tick(&timetable, spec));
        TaskState::Delayed { until: first.unwrap_or(self.wall()) }
    }

    /// The open schedule that `task` is a tick of, if its record is here.
    pub(crate) fn schedule_of(&self, task: &TaskId) -> Option<&TaskId> {
        let (parent, _) = task.as_str().rsplit_once('/')?;
        let (id, kept) = self.kept.get_key_value(parent)?;
        (kept.slot.spec.is_schedule() && !kept.slot.record.closed()).then_some(id)
    }

    /// The last tick of an open schedule is kept as long as that: it may be
    /// asked after by whoever takes the schedule over. Earlier ones are not,
    /// since each was over for a majority before the next was born.
    pub(crate) fn is_last_tick(&self, task: &TaskId) -> bool {
        let schedule = self.schedule_of(task);
        schedule.is_some_and(|schedule| self.last_tick(schedule).as_ref() == Some(task))
    }

    /// The latest tick of which there is a task here.
    fn last_tick(&self, schedule: &TaskId) -> Option<TaskId> {
        let prefix = format!("{schedule}/");
        // The first text that no longer begins with it.
        let mut end = TaskId::new(&format!("{schedule}0")).ok()?;
        loop {
            let range = (Bound::Unbounded, Bound::Excluded(&end));
            let (found, _) = self.kept.range::<TaskId, _>(range).next_back()?;
            let rest = found.as_str().strip_prefix(&prefix)?;
            // Steps of a tick and new tries of it come behind it.
            let tick = rest.split(['/', '-']).next()?;
            let tick = TaskId::new(&format!("{prefix}{tick}")).ok()?;
            if tick_time(&tick).is_some() && self.kept.contains_key(&tick) {
                return Some(tick);
            }
            end = tick.min(found.clone());
        }
    }

    /// An owned schedule is to be looked at.
    pub(crate) fn stir_schedule(&mut self, schedule: &TaskId) {
        self.schedules.stirred.insert(schedule.clone());
    }

    /// A majority knows something of `task` that it did not: a schedule may wait
    /// for that.
    pub(crate) fn stir_schedule_by(&mut self, task: &TaskId) {
        if let Some(schedule) = self.schedules.born.get(task) {
            self.schedules.stirred.insert(schedule.clone());
        } else if self.schedules.waiting.remove(task) {
            self.schedules.stirred.insert(task.clone());
        }
    }

    /// What could not be done at the last tick of the node.
    pub(crate) fn stir_waiting_schedules(&mut self) {
        let waiting = std::mem::take(&mut self.schedules.waiting);
        self.schedules.stirred.extend(waiting);
    }

    fn is_full(&self) -> bool {
        self.open_tasks() >= self.config.open_tasks
    }

    /// This node owns it no more, or nothing is to be done for now.
    pub(crate) fn leave_schedule(&mut self, schedule: &TaskId) {
        self.schedules.stirred.remove(schedule);
        self.schedules.waiting.remove(schedule);
        self.schedules.crowded.remove(schedule);
        self.schedules.behind.remove(schedule);
        self.schedules.firing.remove(schedule);
        self.schedules.born.retain(|_, of| of != schedule);
    }

    /// Goes on with every schedule in which something happened: so many steps at
    /// most, the rest with the next input.
    pub(crate) fn run_schedules(&mut self) {
        if !self.schedules.crowded.is_empty() && !self.is_full() {
            let crowded = std::mem::take(&mut self.schedules.crowded);
            self.schedules.stirred.extend(crowded);
        }
        let mut left = 2 * limits::RELEASES;
        while left > 0
            && let Some(schedule) = self.schedules.stirred.pop_first()
        {
            left -= 1;
            self.tend_schedule(&schedule);
            // What that leads to on this node alone follows at once.
            self.obey_itself();
        }
        if !self.schedules.stirred.is_empty() {
            self.tick_soon();
        }
    }

    fn tend_schedule(&mut self, schedule: &TaskId) {
        let Some(kept) = self.owned(schedule).filter(|k| !k.slot.record.closed() && !k.disowned()) else {
            return self.leave_schedule(schedule);
        };
        let record = &kept.slot.record;
        let settled = kept.has_promised(record.stamp.revision);
        let (due, firing) = match record.body.state {
            TaskState::Delayed { until } => (until, false),
            TaskState::Queued { since, .. } => (since, true),
            TaskState::Blocked | TaskState::Leased { .. } | TaskState::Done(_) => return,
        };
        if !firing && due > self.wall() {
            // The clock may have been set back since it was due.
            self.due.insert((due, schedule.clone()));
            return self.leave_schedule(schedule);
        }
        let changing = !record.prior.is_empty() && !firing;
        if !settled || changing {
            self.schedules.waiting.insert(schedule.clone());
            return;
        }
        if !firing && self.is_full() {
            self.schedules.crowded.insert(schedule.clone());
            return;
        }
        let spec = kept.slot.spec.clone();
        let read = Schedule::read(&spec.payload).and_then(|s| s.timetable().map(|timetable| (s, timetable)));
        let (definition, timetable) = match read {
            Ok(read) => read,
            Err(problem) => {
                let error = format!("its definition can't be read: {problem}").into();
                return self.close(schedule, Outcome::Failed { error }, None, None);
            }
        };
        if !firing {
            return self.begin_tick(schedule, &definition, &timetable, due);
        }
        if timetable.until(due) != Some(due) {
            // A node that knows no schedules queued it some time after its tick.
            return self.go_on(schedule, timetable.until(due).unwrap_or(due));
        }
        if self.tick_is_there(schedule, due, &definition.work(&spec)) {
            self.end_tick(schedule, &timetable, due);
        } else {
            self.schedules.waiting.insert(schedule.clone());
        }
    }

    /// The first step: the record says that the tick is being fired.
    fn begin_tick(&mut self, schedule: &TaskId, definition: &Schedule, timetable: &Timetable, due: Unix) {
        let wall = self.wall();
        let oldest = match self.schedules.behind.get(schedule) {
            Some(oldest) => *oldest,
            None => timetable.oldest(due, wall),
        };
        self.schedules.behind.insert(schedule.clone(), oldest);
        let adopted = self.kept[schedule].slot.record.stamp.ballot.epoch > 1;
        let some = (due.0 / 1_000).is_multiple_of(4);
        if adopted && some && self.config.planted == Some(Planted::ForgetTicks) {
            return self.go_on(schedule, timetable.after(wall).unwrap_or(due));
        }
        match timetable.turn(definition.catch_up, due, wall, oldest) {
            Turn::Wait => self.leave_schedule(schedule),
            Turn::Skip(to) => self.go_on(schedule, to),
            Turn::Over => self.close(schedule, Outcome::Completed, None, None),
            Turn::Fire => {
                self.schedules.firing.insert(schedule.clone());
                self.schedules.waiting.insert(schedule.clone());
                self.revise(schedule, Offering::Now, |r| {
                    r.body.state = TaskState::Queued { since: due, place: r.body.priority };
                });
            }
        }
    }

    /// The second step: whether the task of the tick is there for good.
    fn tick_is_there(&mut self, schedule: &TaskId, tick: Unix, work: &Spec) -> bool {
        let Some(task) = tick_id(schedule, tick) else { return true };
        let record = &self.kept[schedule].slot.record;
        let birth = birth_of(record, tick);
        if self.tombstones.hold(&task, birth) || self.damaged.contains(&task) {
            return true;
        }
        let Some(kept) = self.kept.get(&task) else {
            let (holders, priority) = (record.holders.clone(), record.body.priority);
            // All who may bear it say the same of it.
            let spec = Arc::new(Spec { submitted_at: tick, ..work.clone() });
            let right = record.stamp.ballot;
            let mut first = self.new_record(task.clone(), birth, holders, &spec, priority);
            // Its first owner need not be the node that its birth names: above the
            // first epoch, nobody takes it for another task of that id.
            first.stamp.ballot = right;
            self.schedules.born.insert(task.clone(), schedule.clone());
            let known_to_none = self.schedules.firing.contains(schedule) && !self.vows.contains_key(&task);
            if known_to_none {
                self.give_birth(first, spec);
                if let Some(kept) = self.kept.get_mut(&task) {
                    kept.wary = true;
                }
            } else {
                self.claim_tick(first, spec);
            }
            return self.owned(&task).is_some_and(|k| k.has_promised(0));
        };
        if self.owns(kept) {
            return kept.has_promised(0);
        }
        // Another node leads it; or it moved to other holders, who will.
        let owner = kept.slot.pledge.owner;
        (owner != self.id && self.live(owner)) || !kept.slot.record.holders.contains(&self.id)
    }

    /// The task of a tick may have been born already: its holders are asked what
    /// they have of it, and it is led from there.
    fn claim_tick(&mut self, mut record: Record, spec: Arc<Spec>) {
        let task = record.task.clone();
        let vow = self.vows.remove(&task);
        if vow.is_some() {
            self.erase(Key::Pledge(task.clone()));
        }
        // Whoever bore it had the right by which it owned the schedule, which was
        // less: the claim is above that, also where nobody has heard of it.
        let first = record.stamp.ballot;
        record.stamp = Stamp { ballot: Ballot { epoch: 0, owner: self.id }, revision: 0 };
        let pledge = vow.map_or(first, |(vow, _)| vow.max(first));
        self.persist(Entry::Spec(task.clone(), spec.clone()));
        self.kept.insert(task.clone(), Kept::new(Slot { pledge, record, spec }, self.now));
        self.orphans.insert(task.clone(), self.now);
        self.claim(&task);
    }

    /// The third step: on to the next tick.
    fn end_tick(&mut self, schedule: &TaskId, timetable: &Timetable, tick: Unix) {
        self.schedules.firing.remove(schedule);
        self.schedules.born.retain(|_, of| of != schedule);
        let Some(next) = timetable.after(tick) else {
            return self.close(schedule, Outcome::Completed, None, None);
        };
        self.schedules.waiting.insert(schedule.clone());
        self.revise(schedule, Offering::Now, |r| {
            r.body.attempt = r.body.attempt.saturating_add(1);
            r.body.state = TaskState::Delayed { until: next };
        });
    }

    fn go_on(&mut self, schedule: &TaskId, next: Unix) {
        self.schedules.waiting.insert(schedule.clone());
        self.revise(schedule, Offering::Now, |r| r.body.state = TaskState::Delayed { until: next });
    }

    /// What is shown of a schedule; `None` for any other task.
    pub(crate) fn schedule_view(&self, task: &TaskId) -> Option<ScheduleView> {
        let kept = self.kept.get(task)?;
        if !kept.slot.spec.is_schedule() {
            return None;
        }
        let Schedule { cron, timezone, catch_up, task_type, .. } = Schedule::read(&kept.slot.spec.payload).ok()?;
        let last = self.last_tick(task).and_then(|tick| {
            let kept = self.kept.get(&tick)?;
            let unpromised = kept.slot.record.closed() && self.owns(kept) && kept.promised_end().is_none();
            let status = if unpromised { Status::Running } else { Node::status_of(kept) };
            Some((tick_time(&tick)?, status))
        });
        Some(ScheduleView {
            cron: cron.into(),
            timezone: timezone.into(),
            catch_up,
            task_type: task_type.into(),
            fired: kept.slot.record.body.attempt,
            last,
            next: next_of(&kept.slot.record),
        })
    }

    pub(crate) fn explain_schedule(&self, kept: &Kept) -> Explanation {
        let record = &kept.slot.record;
        let next_at = next_of(record);
        let at = next_at.unwrap_or_default();
        let task = tick_id(&record.task, at).map_or_else(String::new, |t| t.to_string());
        let late = at <= self.wall();
        let summary = if !record.majority(|n| self.live(n)) {
            format!("its tick at {} waits: fewer than half of its holders can be reached", shown(at))
        } else if late && self.is_full() {
            format!("its tick at {} waits: the queue of its owner is full", shown(at))
        } else if late {
            format!("its tick at {} is being fired", shown(at))
        } else {
            format!("is a schedule; its next tick is at {}", shown(at))
        };
        let next = format!("submits the task {task} then, and goes on to the next tick").into();
        Explanation { reason: Some(Reason::Delay), summary: summary.into(), nodes: Vec::new(), next, next_at }
    }
}

/// The next tick of a schedule, while it has one.
fn next_of(record: &Record) -> Option<Unix> {
    match record.body.state {
        TaskState::Delayed { until } => Some(until),
        TaskState::Queued { since, .. } => Some(since),
        TaskState::Blocked | TaskState::Leased { .. } | TaskState::Done(_) => None,
    }
}

/// The birth of a tick's task: the same, whoever fires it.
fn birth_of(schedule: &Record, tick: Unix) -> Birth {
    Birth { node: schedule.birth.node, nonce: mix(schedule.birth.nonce ^ mix(tick.0)) }
}

#[cfg(test)]
#[path = "ticks_tests.rs"]
mod tests;
