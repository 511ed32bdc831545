//! Where a record lives: holders that stay away are replaced, damaged copies
//! repaired, and ended tasks forgotten, on every keeper at once.

use crate::command::{Command, Detail, Query, Request, Submission};
use crate::config::Planted;
use crate::effect::{Entry, Key, Notice};
use crate::ids::{NodeId, TaskId, rendezvous};
use crate::message::{Electorate, Message};
use crate::node::Node;
use crate::ownership::{Kept, Offering, RESENDS, Tombstones};
use crate::record::{Ballot, Birth, Record, Stamp};
use crate::requests::Origin;
use crate::time::Millis;
use std::ops::Bound;

/// Questions after silent tasks in one round of the sweep.
const ASKS: usize = 500;
/// After so many questions that nobody answered, nobody knows of a task.
const ASKS_IN_VAIN: u32 = 8;

impl Kept {
    /// A part of a workflow or an array that no majority took: it has not begun.
    pub(crate) fn is_unborn(&self) -> bool {
        self.wary && self.promised.is_none() && !self.slot.record.closed()
    }

    /// Its holders may be changed: a majority has the last change of them, and
    /// the end, if there is one.
    pub(crate) fn may_move(&self) -> bool {
        let end = self.slot.record.closed() && self.promised_end().is_none();
        self.has_promised(self.config_revision) && !end
    }
}

impl Node {
    /// Replaces holders that stay away, adds those that are short, in two
    /// written steps: both sets decide until the new one is settled.
    pub(crate) fn mend(&mut self, task: &TaskId) {
        if self.config.planted == Some(Planted::NeverMend) {
            return;
        }
        if self.follow_workflow(task) || self.replace_newcomers(task) {
            return;
        }
        let Some(kept) = self.owned(task).filter(|kept| !kept.is_firing()) else { return };
        let record = &kept.slot.record;
        let promised = kept.has_promised(kept.config_revision);
        if !promised && !kept.offered {
            return self.choose_holders_anew(task);
        }
        if !kept.may_move() {
            return;
        }
        if !record.prior.is_empty() {
            if self.may_settle(task, record) {
                self.change_holders(task, |record| record.prior.clear());
            }
            return;
        }
        // A step that is where its workflow is goes where that goes.
        let led = self.workflow_of(task).and_then(|id| self.owned(id));
        let led = led.is_some_and(|workflow| same(&workflow.slot.record.holders, &record.holders));
        let wanted = if kept.disowned() { 0 } else { self.holders_wanted() };
        let is_lost = |n: &NodeId| kept.lost.contains(n) || !led && self.is_forgotten(*n);
        let lost: Vec<_> = record.holders.iter().copied().filter(is_lost).collect();
        let gone: Vec<NodeId> = record
            .holders
            .iter()
            .copied()
            .filter(|n| *n != self.id && (lost.contains(n) || !led && self.is_away(*n)))
            .collect();
        let sound = record.holders.len() - gone.len();
        let short = wanted.saturating_sub(sound);
        if lost.is_empty() && (led || short == 0) {
            return;
        }
        let able = |n: &NodeId| !self.is_draining(*n) && self.handles(*n, &kept.slot.spec);
        let fit = |n: &NodeId| !record.holders.contains(n) && !kept.strangers.contains(n) && able(n);
        let spare = self.live_members().filter(fit);
        let spare: Vec<_> = rendezvous(task.place_hash(), spare).into_iter().take(short).collect();
        // One that is only away stays until there is another for its place.
        let mut replaced: Vec<_> = gone.iter().copied().filter(|n| lost.contains(n)).collect();
        let away = gone.iter().copied().filter(|n| !lost.contains(n));
        replaced.extend(away.take(spare.len().saturating_sub(replaced.len())));
        if spare.is_empty() && replaced.is_empty() {
            return;
        }
        let in_one_step = self.config.planted == Some(Planted::MendInOneStep);
        self.change_holders(task, |record| {
            if !in_one_step {
                record.prior = record.holders.clone();
            }
            record.holders.retain(|n| !replaced.contains(n));
            record.holders.extend(spare);
        });
        if let Some(kept) = self.kept.get_mut(task) {
            kept.lost.clear();
        }
        let holders = self.kept[task].slot.record.holders.clone();
        self.notice(Notice::HoldersChanged { task: task.clone(), holders });
    }

    /// Moves an owned step to the holders of its workflow, if it is elsewhere, so
    /// that whoever takes that over has its steps.
    fn follow_workflow(&mut self, task: &TaskId) -> bool {
        let Some(kept) = self.owned(task) else { return false };
        let record = &kept.slot.record;
        let Some(workflow) = self.workflow_of(task).map(|id| &self.kept[id].slot.record) else { return false };
        let home = &workflow.holders;
        let may_keep = |n: &NodeId| !kept.lost.contains(n) && !kept.strangers.contains(n);
        // Those that its workflow is about to leave need not be there.
        let there = |n: &NodeId| *n == self.id || self.live(*n) || !workflow.prior.is_empty();
        let may = home.contains(&self.id) && home.iter().all(|n| may_keep(n) && there(n));
        let moving = !record.prior.is_empty();
        if !may || kept.disowned() || same(home, &record.holders) || !moving && !kept.may_move() {
            return false;
        }
        let home = home.clone();
        self.change_holders(task, |record| {
            let before = std::mem::replace(&mut record.holders, home);
            if !moving {
                record.prior = before;
            }
        });
        true
    }

    /// Whether a change of holders may be brought to its end. Those of a workflow
    /// decide alone only once its steps are with them: an owner that comes after
    /// this one would not find these, and begin them again. Steps leave their old
    /// holders after their workflow, which may still turn to others.
    fn may_settle(&self, task: &TaskId, record: &Record) -> bool {
        let ahead = self.workflow_of(task).and_then(|id| self.owned(id)).is_some_and(|workflow| {
            let workflow = &workflow.slot.record;
            !workflow.prior.is_empty() && same(&workflow.holders, &record.holders)
        });
        let behind = |step: &TaskId| {
            let Some(kept) = self.owned(step) else { return false };
            let there = |n: &&NodeId| **n == self.id || kept.promised.is_some() && kept.acked(**n) >= kept.promised;
            // What a majority has lost is nowhere to be found.
            let lost = kept.promised.is_none() && !kept.lost.is_empty();
            let stays = lost || kept.is_unborn() || kept.disowned() || !kept.strangers.is_empty();
            !stays && record.holders.iter().filter(there).count() * 2 <= record.holders.len()
        };
        !ahead && (!self.kept[task].slot.spec.bears_tasks() || !self.parts_of(task).any(behind))
    }

    /// The workflow of a step that `from` has borne, and what this node pledged of
    /// it, if another node leads it: that one has borne the step, or will.
    pub(crate) fn led_by_another(&self, from: NodeId, record: &Record) -> Option<(TaskId, Ballot)> {
        let first = Ballot { epoch: 1, owner: from };
        if record.stamp.ballot != first || record.closed() || self.kept.contains_key(&record.task) {
            return None;
        }
        let workflow = self.workflow_of(&record.task)?;
        let pledge = self.kept[workflow].slot.pledge;
        (pledge.owner != from).then(|| (workflow.clone(), pledge))
    }

    /// Another node leads the workflow: steps that this one has borne since, and
    /// that no majority took, are none of it.
    pub(crate) fn drop_unborn_parts(&mut self, workflow: &TaskId) {
        if !self.kept[workflow].slot.spec.bears_tasks() {
            return;
        }
        let steps = self.parts_of(workflow).filter(|step| self.owned(step).is_some_and(Kept::is_unborn));
        for step in steps.cloned().collect::<Vec<_>>() {
            self.depose(&step);
            self.lose_record(&step);
        }
    }

    /// While a change is under way, those that were to join may turn out to be
    /// gone, or to keep another task of this id. Others may take their places:
    /// the prior holders decide all the time, before and after.
    fn replace_newcomers(&mut self, task: &TaskId) -> bool {
        let Some(kept) = self.owned(task).filter(|k| !k.slot.record.prior.is_empty()) else { return false };
        let record = &kept.slot.record;
        let unfit = |n: &NodeId| kept.lost.contains(n) || kept.strangers.contains(n) || self.is_away(*n);
        let newcomers = record.holders.iter().copied().filter(|n| !record.prior.contains(n));
        let for_ever: Vec<_> = record.holders.iter().copied().filter(|n| self.is_forgotten(*n)).collect();
        let mut gone: Vec<_> = newcomers.filter(unfit).collect();
        gone.extend(for_ever.iter().filter(|n| record.prior.contains(n)));
        if self.is_bereft(record, &kept.lost) {
            let lost: Vec<_> = kept.lost.iter().filter(|n| record.holders.contains(n) && !gone.contains(n)).collect();
            gone.extend(lost);
        }
        let fit = |n: &NodeId| !record.kept_by(*n) && !kept.strangers.contains(n) && !self.is_draining(*n);
        let spare = rendezvous(task.place_hash(), self.live_members().filter(fit));
        let places: Vec<_> = gone.into_iter().zip(spare).collect();
        if places.is_empty() && for_ever.is_empty() {
            return false;
        }
        self.change_holders(task, |record| {
            for (old, new) in places {
                record.holders.retain(|n| *n != old);
                record.holders.push(new);
            }
            // Nobody is there for their places.
            record.holders.retain(|n| !for_ever.contains(n));
        });
        true
    }

    /// No other node has heard of it: its holders are still this node's to
    /// choose, and those of its birth may have been gone for ever by then.
    fn choose_holders_anew(&mut self, task: &TaskId) {
        let holders = match self.workflow_of(task) {
            // Who leads the workflow after this node is to find it.
            Some(workflow) if self.is_settled(workflow) => self.kept[workflow].slot.record.holders.clone(),
            Some(_) => return,
            None => self.first_holders(task),
        };
        let there = |set: &[NodeId]| set.iter().filter(|n| self.live(**n)).count();
        if there(&holders) > there(&self.kept[task].slot.record.holders) {
            self.change_holders(task, |record| record.holders = holders);
        }
    }

    pub(crate) fn change_holders(&mut self, task: &TaskId, change: impl FnOnce(&mut Record)) {
        if let Some(kept) = self.kept.get_mut(task) {
            kept.config_revision = kept.slot.record.stamp.revision + 1;
        }
        self.revise(task, Offering::Now, change);
        if let Some(kept) = self.kept.get_mut(task) {
            let record = &kept.slot.record;
            kept.acks.retain(|(n, _)| record.holders.contains(n) || record.prior.contains(n));
        }
    }

    pub(crate) fn on_lost(&mut self, from: NodeId, task: &TaskId) {
        let me = self.id;
        let Some(kept) = self.kept.get_mut(task) else { return };
        let news = !kept.lost.contains(&from) && kept.slot.record.kept_by(from);
        if news {
            kept.lost.push(from);
        }
        if kept.slot.pledge.owner == from && from != me {
            kept.abandoned = true;
            let now = self.now;
            self.orphans.entry(task.clone()).or_insert(now);
            return;
        }
        if self.claims.contains_key(task) {
            // It may not be for those that are left alone to decide.
            if news {
                self.try_win(task);
            }
            return;
        }
        if !kept.claimed || !kept.slot.record.kept_by(from) {
            return;
        }
        kept.acks.retain(|(n, _)| *n != from);
        self.mend(task);
    }

    /// `from` keeps another task of this id: it is no help for ours.
    pub(crate) fn on_stranger(&mut self, from: NodeId, task: &TaskId) {
        let Some(kept) = self.kept.get_mut(task) else { return };
        if !kept.strangers.contains(&from) {
            kept.strangers.push(from);
        }
        self.on_lost(from, task);
        let Some(kept) = self.kept.get(task) else { return };
        if kept.disowned() {
            self.forget(task);
        } else if kept.has_given_way() {
            self.depose(task);
            self.drop_record(task);
        }
    }

    /// Repeats what [`Node::confess`] said, since it may not have been heard:
    /// ever more seldom, as there may be nobody left to whom it matters.
    pub(crate) fn confess_again(&mut self) {
        let wait = self.config.away.0.saturating_mul(1 << self.confessions.0.min(10));
        if self.damaged.is_empty() || self.now.since(self.confessions.1).0 < wait {
            return;
        }
        self.confessions = (self.confessions.0 + 1, self.now);
        for node in self.live_members().collect::<Vec<_>>() {
            self.confess(node);
        }
    }

    /// This node's own damaged copies, told to a peer so that it need not wait.
    pub(crate) fn confess(&mut self, to: NodeId) {
        let damaged: Vec<_> = self.damaged.iter().cloned().collect();
        for task in damaged {
            self.send(to, Message::Lost { task });
        }
    }

    /// `task` was kept here and the copy is damaged: taken anew, it could
    /// outvote the copies that others have. Whoever owns it answers instead.
    pub(crate) fn ask_for_damaged(&mut self, origin: Origin, task: &TaskId, name: TaskId, submission: Submission) {
        let query = Query::Task { task: task.clone(), detail: Detail::default(), wait: Millis(0) };
        let again = Command::Submit(Box::new(Submission { task: Some(name), ..submission }));
        let nodes = self.likely_holders(task);
        self.ask(origin, Request::Query(query), nodes, Some(again));
    }

    /// Nobody has a copy of `task` any more, so this node takes it anew.
    pub(crate) fn take_damaged(&mut self, origin: Origin, task: &str, submission: Submission) {
        self.damaged.retain(|t| t.as_str() != task);
        if let Some(name) = submission.task.clone() {
            self.take(origin, name, submission);
        }
    }

    /// `from` knows that the task is over. Its holders believe only those who
    /// keep it: one that left long ago may have stopped looking too early.
    pub(crate) fn on_gone(&mut self, from: NodeId, task: &TaskId, birth: Birth) {
        let Some(kept) = self.kept.get(task).filter(|k| k.slot.record.birth == birth) else { return };
        let holds = kept.claimed || kept.slot.record.holders.contains(&self.id);
        if holds && !kept.slot.record.kept_by(from) {
            return;
        }
        if self.is_held(task) {
            // It had no copy of the workflow that this is a step of.
            return self.on_stranger(from, task);
        }
        if kept.claimed {
            let others: Vec<_> = kept.slot.record.keepers().filter(|n| *n != self.id).collect();
            for node in others {
                self.send(node, Message::Gone { task: task.clone(), birth });
            }
        }
        self.depose(task);
        self.drop_record(task);
    }

    pub(crate) fn on_forget(&mut self, from: NodeId, task: &TaskId, stamp: Stamp) {
        let Some(kept) = self.kept.get(task) else { return };
        let record = &kept.slot.record;
        let over = record.closed() && record.stamp == stamp && record.owner() == from && !kept.claimed;
        if over && !self.is_held(task) {
            self.drop_record(task);
        }
    }

    /// Forgets ended tasks whose time is over, oldest first.
    pub(crate) fn forget_old(&mut self) {
        let wall = self.wall();
        let surplus = self.closed.len().saturating_sub(self.config.retained_tasks);
        let old: Vec<_> = self
            .closed
            .iter()
            .enumerate()
            .take_while(|(i, (at, _))| *i < surplus || wall.since(*at) > self.config.retention)
            .filter(|(i, (at, task))| *i < surplus || wall.since(*at) > self.retention_of(task))
            .map(|(_, (_, task))| task)
            .filter(|task| !self.is_held(task) && !self.is_asked_after(task))
            .take(RESENDS)
            .cloned()
            .collect();
        for task in old {
            self.forget(&task);
        }
        let vow_age = Millis(self.config.retention.0.max(3_600_000));
        let stale: Vec<_> = self
            .vows
            .iter()
            .filter(|(_, (_, at))| wall.since(*at) > vow_age)
            .map(|(t, _)| t.clone())
            .take(100)
            .collect();
        for task in stale {
            self.vows.remove(&task);
            self.erase(Key::Pledge(task));
        }
    }

    /// Another node's workflow is not over: its owner asks after its steps four
    /// times within the time that they are kept.
    fn is_asked_after(&self, task: &TaskId) -> bool {
        self.kept[task].asked_at.is_some_and(|at| self.now.since(at) < self.retention_of(task))
    }

    /// How long an ended task is kept. What may be a step of a workflow that is
    /// not kept here waits until that must have another owner.
    fn retention_of(&self, task: &TaskId) -> Millis {
        let elsewhere = task.as_str().rsplit_once('/').is_some_and(|(parent, _)| !self.kept.contains_key(parent));
        let more = if elsewhere { 2 * self.config.away.0 } else { 0 };
        Millis(self.config.retention.0 + more)
    }

    /// Forgets an ended task everywhere, once every keeper knows its end: an
    /// open copy left behind could bring it back.
    pub(crate) fn forget(&mut self, task: &TaskId) {
        let Some(kept) = self.owned(task) else { return };
        let record = &kept.slot.record;
        // What nobody was told of may go as soon as all who took it know.
        let told = |n| n == self.id || kept.strangers.contains(&n) || kept.acked(n) == Some(record.stamp.revision);
        let knows = |n| told(n) || self.is_away(n);
        let nobody_asks = kept.disowned() && record.closed() && record.keepers().all(knows);
        if !nobody_asks && (!kept.announced || !record.prior.is_empty() || !kept.fully_acked(self.id)) {
            return;
        }
        if !nobody_asks && self.is_held(task) {
            return;
        }
        let parts: Vec<_> =
            if kept.slot.spec.is_workflow() { self.parts_of(task).cloned().collect() } else { Vec::new() };
        let stamp = record.stamp;
        let others: Vec<_> = record.keepers().filter(|n| *n != self.id).collect();
        for node in others {
            self.send(node, Message::Forget { task: task.clone(), stamp });
        }
        self.depose(task);
        self.drop_record(task);
        parts.iter().for_each(|part| self.forget(part));
    }

    pub(crate) fn drop_record(&mut self, task: &TaskId) {
        let Some(record) = self.lose_record(task) else { return };
        let alone = record.holders == [self.id] && record.stamp.ballot.epoch == 1;
        if !alone {
            let name = Tombstones::name(task, record.birth);
            let at = self.wall();
            self.persist(Entry::Tombstone(name, at));
            if let Some(oldest) = self.tombstones.add(name, at) {
                self.erase(Key::Tombstone(oldest));
            }
        }
        if record.closed() {
            self.count_blobs(record, -1);
        }
    }

    /// Drops it as if it had never been here: whoever else has it may go on with it.
    pub(crate) fn lose_record(&mut self, task: &TaskId) -> Option<Record> {
        let kept = self.kept.remove(task)?;
        self.claims.remove(task);
        self.orphans.remove(task);
        self.reclaiming.remove(task);
        self.erase(Key::Task(task.clone()));
        Some(kept.slot.record)
    }

    /// Looks at a part of the records in turn: whatever no message or timer
    /// brings up is found here.
    pub(crate) fn sweep(&mut self) {
        let share = (self.kept.len() / 8).max(1_000);
        let start = self.sweep_from.take().map_or(Bound::Unbounded, Bound::Excluded);
        let tasks: Vec<TaskId> =
            self.kept.range::<TaskId, _>((start, Bound::Unbounded)).take(share).map(|(t, _)| t.clone()).collect();
        self.sweep_from = if tasks.len() == share { tasks.last().cloned() } else { None };
        let (mut asks, mut reminders) = (0, 0);
        for task in tasks {
            if self.give_up_if_stranded(&task) {
                continue;
            }
            // A workflow that was forgotten took its steps along.
            let Some(kept) = self.kept.get(&task) else { continue };
            if self.owns(kept) {
                if self.is_short(kept) {
                    self.survey.found();
                }
                if kept.doomed {
                    self.forget(&task);
                }
                self.mend(&task);
                if self.kept.get(&task).is_some_and(|k| k.slot.spec.bears_tasks()) {
                    self.tend_steps(&task);
                }
                self.fetch_own_blobs(&task);
                if reminders < ASKS && self.remind_returned(&task) {
                    reminders += 1;
                }
                continue;
            }
            if self.is_orphan(kept) {
                let now = self.now;
                self.orphans.entry(task).or_insert(now);
            } else if self.is_leftover(kept) {
                self.drop_record(&task);
            } else if asks < ASKS && self.ask_after(&task) {
                asks += 1;
            }
        }
        if self.sweep_from.is_none() {
            self.survey.whole();
        }
    }

    /// Holders that were silent may know of another owner, of which nobody told this
    /// node: offered what they have, they say so. False if none came back since.
    fn remind_returned(&mut self, task: &TaskId) -> bool {
        let Some(kept) = self.owned(task).filter(|kept| !kept.slot.record.closed()) else { return false };
        let back =
            |n: &NodeId| self.members.get(n).is_some_and(|m| m.live_since >= Some(kept.offered_at)) && self.live(*n);
        let returned: Vec<_> = kept.slot.record.keepers().filter(|n| *n != self.id && back(n)).collect();
        if returned.is_empty() {
            return false;
        }
        let now = self.now;
        let kept = self.kept.get_mut(task).expect("owned");
        kept.offered_at = now;
        let record = kept.slot.record.clone();
        for node in returned {
            self.send(node, Message::Offer { record: Box::new(record.clone()), spec: None });
        }
        true
    }

    /// Not a word of this task for long: what became of it, so that the copy
    /// can go if it is over? Asked ever more seldom, and with a ballot that
    /// never wins, so that it changes nothing. False if it is not time yet.
    fn ask_after(&mut self, task: &TaskId) -> bool {
        let now = self.now;
        let patience = self.config.away.0;
        let kept = self.kept.get_mut(task).expect("swept");
        let wait = patience.saturating_mul(1 << kept.tries.min(12)).min(self.config.retention.0.max(patience));
        if now.since(kept.offered_to_me.max(kept.offered_at)).0 < wait {
            return false;
        }
        kept.offered_at = now;
        kept.tries += 1;
        let record = &kept.slot.record;
        let (birth, stamp) = (record.birth, record.stamp);
        // A holder hears of the end from the owner, one that left from any.
        let stays = record.holders.contains(&self.id);
        let asked = if stays { vec![kept.slot.pledge.owner] } else { record.keepers().collect() };
        let ballot = Ballot { epoch: 0, owner: self.id };
        if asked.iter().all(|n| self.live(*n)) {
            self.kept.get_mut(task).expect("swept").unanswered += 1;
        }
        for node in asked {
            if node != self.id && self.live(node) {
                let electorate = Electorate::Holders;
                self.send(node, Message::Claim { task: task.clone(), birth, ballot, stamp, electorate });
            }
        }
        true
    }

    /// Another node spoke of this node's copy: it is still known elsewhere.
    pub(crate) fn hear_of(&mut self, task: &TaskId) {
        let now = self.now;
        if let Some(kept) = self.kept.get_mut(task).filter(|k| !k.claimed) {
            kept.heard_of = now;
            kept.unanswered = 0;
        }
    }

    /// A copy that nobody knows of any more. Wall clocks jump, and a copy that
    /// goes too early may be one of a majority: so all who should know were
    /// asked, many times, by this node's own clock.
    pub(crate) fn is_leftover(&self, kept: &Kept) -> bool {
        let retention = self.config.retention;
        kept.unanswered >= ASKS_IN_VAIN && self.now.since(kept.heard_of) > retention + retention
    }
}

/// They are the same nodes.
fn same(some: &[NodeId], others: &[NodeId]) -> bool {
    some.len() == others.len() && some.iter().all(|n| others.contains(n))
}
