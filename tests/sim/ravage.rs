//! The disaster that no majority outlives: most holders of a record are
//! destroyed at once, and after a while an operator says so.
//!
//! What they alone knew is lost, so it is taken out of what was promised: tasks
//! of which no holder has a copy any more, and outcomes that no copy shows.
//! Everything else stays promised: what is left goes on, and ends once.

use crate::agenda::{Event, Time};
use crate::faults::Fault;
use crate::oracle::Asked;
use crate::world::{Fate, World, index};
use std::collections::BTreeSet;
use taskmesh_core::command::Scope;
use taskmesh_core::forgotten::{Forgotten, Presence};
use taskmesh_core::record::Birth;
use taskmesh_core::{Command, NodeId, Record, Request, TaskId};

impl World {
    /// Plans all of it, in the first two thirds of the faults.
    pub(crate) fn plan_ravages(&mut self, times: u32, until: Time) {
        for _ in 0..times {
            let at = until / 6 + self.prng.below(until / 2);
            self.agenda.at(at, Event::Fault(Fault::Ravage));
        }
    }

    /// Destroys most holders of some open record.
    pub(crate) fn ravage(&mut self) {
        let there = |h: &NodeId| !matches!(self.hosts[index(*h)].fate, Fate::Destroyed | Fate::Unborn);
        let fit = |r: &&Record| !r.closed() && r.prior.is_empty() && r.holders.len() > 2 && r.holders.iter().all(there);
        let records = self.up().flat_map(|n| self.hosts[n].disk.copies.values()).map(|c| &c.record);
        let open: Vec<(TaskId, Vec<NodeId>)> =
            records.filter(fit).map(|r| (r.task.clone(), r.holders.clone())).collect();
        let left = self.hosts.iter().filter(|h| !matches!(h.fate, Fate::Destroyed | Fate::Unborn)).count();
        if open.is_empty() || left < 7 {
            return;
        }
        let (task, mut holders) = open[self.prng.below(open.len() as u64) as usize].clone();
        let most = holders.len() / 2 + 1;
        while holders.len() > most {
            let spared = self.prng.below(holders.len() as u64) as usize;
            holders.remove(spared);
        }
        let victims: Vec<_> = holders.into_iter().map(index).collect();
        self.tally.ravages += 1;
        self.destroy_all(&victims);
        debug_assert!(self.oracle.promises.contains_key(&task), "every record is known to the oracle");
        let after = self.now + 5_000 + self.prng.below(25_000);
        self.agenda.at(after, Event::Fault(Fault::Forget));
        self.agenda.at(after + 15_000, Event::Fault(Fault::Forget));
    }

    /// Takes nodes and their disks away for ever, whatever is lost with them.
    pub(crate) fn destroy_all(&mut self, victims: &[usize]) {
        let known: BTreeSet<TaskId> = self.hosts.iter().flat_map(|h| h.disk.copies.keys()).cloned().collect();
        for n in victims {
            if self.hosts[*n].node.is_some() {
                self.die(*n);
            }
            self.hosts[*n].fate = Fate::Destroyed;
            self.hosts[*n].disk = Default::default();
            self.tally.destroyed += 1;
        }
        for task in &known {
            self.take_stock(task);
        }
    }

    /// What is left of `task` after the disaster.
    fn take_stock(&mut self, task: &TaskId) {
        let births: BTreeSet<Birth> = self.left_of(task).map(|r| r.birth).collect();
        let mut void = births.is_empty();
        for birth in births {
            let copies = || self.left_of(task).filter(|r| r.birth == birth);
            let newest = copies().max_by_key(|r| r.stamp).expect("one of its copies").clone();
            if !self.is_bereft(task, &newest) {
                continue;
            }
            let leads = |h: &&NodeId| self.copy_of(**h, task).is_some_and(|c| c.record.birth == birth);
            let stays = newest.holders.iter().any(|h| !self.gone(*h, task));
            let heirs = if stays { &newest.holders } else { &newest.prior };
            void |= !heirs.iter().any(|h| leads(&h));
            // What a node has left over that is no keeper any more may go at any time.
            let kept = |h: NodeId| self.copy_of(h, task).map(|c| &c.record).filter(|r| r.birth == birth);
            let shown = newest.keepers().filter_map(kept).any(Record::closed);
            self.oracle.promise(task).bereave(birth, shown);
        }
        if void {
            self.oracle.promise(task).void = true;
            self.tally.ravaged += 1;
        }
    }

    fn left_of<'a>(&'a self, task: &'a TaskId) -> impl Iterator<Item = &'a Record> + 'a {
        self.hosts.iter().filter_map(move |h| h.disk.copies.get(task)).map(|c| &c.record)
    }

    /// With the copies that were damaged, no majority is left.
    fn is_bereft(&self, task: &TaskId, record: &Record) -> bool {
        let left = |set: &[NodeId]| set.iter().filter(|h| !self.gone(**h, task)).count();
        [&record.holders, &record.prior].into_iter().any(|set| !set.is_empty() && left(set) * 2 <= set.len())
    }

    /// Whether the holders that are left may go on: their majority is gone for
    /// ever, as the one that claims was told, and all of them have pledged.
    pub(crate) fn is_inherited(
        &self,
        task: &TaskId,
        record: &Record,
        heir: NodeId,
        pledged: impl Fn(NodeId) -> bool,
    ) -> bool {
        let told = &self.hosts[index(heir)].disk.forgotten;
        let newest = self.left_of(task).filter(|r| r.birth == record.birth).max_by_key(|r| r.stamp);
        let lost = |set: &[NodeId]| {
            let gone = |h: &&NodeId| told.contains_key(h) || self.gone(**h, task);
            set.iter().any(|h| told.contains_key(h)) && set.iter().filter(gone).count() * 2 >= set.len()
        };
        let bereft = |r: &Record| lost(&r.holders) || !r.prior.is_empty() && lost(&r.prior);
        let owners = (0..self.hosts.len()).map(|n| NodeId::test(n as u64));
        let keeps = |n: &NodeId| self.copy_of(*n, task).is_some_and(|c| c.record.birth == record.birth);
        newest.is_some_and(bereft) && owners.filter(keeps).all(pledged)
    }

    /// An operator tells some node of every one that is gone for ever.
    pub(crate) fn forget_destroyed(&mut self) {
        let Some(n) = self.any_up() else { return };
        let gone = self.hosts.iter().enumerate().filter(|(_, h)| h.fate == Fate::Destroyed).map(|(gone, _)| gone);
        for gone in gone.collect::<Vec<_>>() {
            self.forget(n, gone);
        }
    }

    /// An operator tells `n` that `gone` is gone for ever.
    pub(crate) fn forget(&mut self, n: usize, gone: usize) {
        let node = NodeId::test(gone as u64);
        let word = Forgotten { node, by: "ann".into(), at: self.wall_clock(n), reason: None };
        let command = Command::ForgetNode { word, presence: Presence::Respected, scope: Scope::Mesh };
        self.ask(n, Request::Command(command), Asked::Other);
    }
}
