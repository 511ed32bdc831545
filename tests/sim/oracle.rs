//! What was promised to whom, and what really happened: the facts that the
//! invariants compare. It sees every disk, so it knows when an outcome was
//! decided before any node can.

use crate::agenda::Time;
use crate::disk::Copy;
use crate::invariants::Seen;
use crate::model::Flows;
use crate::world::{Fate, World};
use std::collections::{BTreeMap, BTreeSet};
use taskmesh_core::cache::{CacheKey, Source};
use taskmesh_core::execution::Verdict;
use taskmesh_core::record::Birth;
use taskmesh_core::task::Data;
use taskmesh_core::view::Status;
use taskmesh_core::{
    Ballot, Effect, Entry, Fence, Key, NodeId, Notice, Record, Refusal, Reply, RequestId, Spec, TaskId, Unix,
};

/// The end of a task, as far as somebody said it.
#[derive(Clone, Debug)]
pub(crate) struct Ending {
    /// How.
    pub(crate) status: Status,
    /// By which attempt.
    pub(crate) attempt: Option<u32>,
    /// Where that ran.
    pub(crate) executor: Option<Option<NodeId>>,
    /// What it left.
    pub(crate) result: Option<Data>,
    /// The run of another task whose result that is.
    pub(crate) source: Option<Option<Source>>,
    /// Under which right, and when by the clock of its owner; no part of what is
    /// compared.
    pub(crate) by: Option<(Fence, Unix)>,
}

impl Ending {
    fn of(record: &Record) -> Option<Ending> {
        let closed = record.body.state.closed()?;
        Some(Ending {
            status: Status::of_outcome(&closed.outcome),
            attempt: Some(record.body.attempt),
            executor: Some(closed.executor.as_ref().map(|(node, _)| *node)),
            result: Some(closed.report.as_ref().map(|r| r.result.clone()).unwrap_or_default()),
            source: Some(closed.cached_from.clone()),
            by: Some((record.fence(), closed.at)),
        })
    }

    /// Whether both could be said of one end.
    pub(crate) fn agrees(&self, other: &Ending) -> bool {
        fn same<T: PartialEq>(a: Option<&T>, b: Option<&T>) -> bool {
            a.is_none() || b.is_none() || a == b
        }
        self.status == other.status
            && same(self.attempt.as_ref(), other.attempt.as_ref())
            && same(self.executor.as_ref(), other.executor.as_ref())
            && same(self.result.as_ref(), other.result.as_ref())
            && same(self.source.as_ref(), other.source.as_ref())
    }
}

/// What is known of one id.
#[derive(Debug, Default)]
pub(crate) struct Promise {
    /// When a client was first told that it was accepted.
    pub(crate) accepted: Option<Time>,
    /// Clients that were told so as of a new task.
    pub(crate) fresh: u32,
    /// Which works were accepted under this id.
    pub(crate) works: BTreeSet<u64>,
    /// The submissions that this is said of; more than one, if nodes that could
    /// not see each other took the same id.
    pub(crate) births: BTreeSet<Birth>,
    /// One copy was enough for the client.
    pub(crate) local: bool,
    /// What a majority has, for each submission of the id.
    pub(crate) decided: Vec<(Birth, Ending)>,
    /// When the decided submissions were made.
    pub(crate) submitted: BTreeSet<Unix>,
    /// What clients were told.
    pub(crate) told: Vec<Ending>,
    /// The greatest ballot that each node ever pledged to, were its disk lost since.
    pledges: BTreeMap<NodeId, Ballot>,
    /// Ends that were accepted: of which submission, under which right, by
    /// which node, from which revision on.
    ends: BTreeSet<(Birth, Ballot, NodeId, u32)>,
    /// The greatest right under which its owner forgot it.
    pub(crate) forgotten: Ballot,
    /// Rights to write it that were won.
    won: BTreeSet<(Birth, Ballot)>,
    /// Nothing is promised of it any more: no holder of it was left, or there were
    /// two of the id, of which either may be what is left.
    pub(crate) void: bool,
    /// What was stored under the id.
    stored: BTreeSet<Birth>,
    /// Most of its holders were destroyed once: it may have run twice.
    pub(crate) bereft: bool,
    /// Outcomes that they alone knew.
    pub(crate) lost: Vec<Ending>,
}

impl Promise {
    /// Whether it was accepted and has no outcome yet.
    pub(crate) fn open(&self) -> bool {
        let decided = |birth: &Birth| self.decided.iter().any(|(b, _)| b == birth);
        // One copy is no defence against another task of the same id.
        let given_way = self.local && !self.decided.is_empty();
        let over = self.births.iter().all(decided) && !self.decided.is_empty();
        self.accepted.is_some() && !given_way && !over && !self.void
    }

    /// Most of its holders were destroyed. Its outcome stays if it is `shown` by
    /// a copy that is left.
    pub(crate) fn bereave(&mut self, birth: Birth, shown: bool) {
        self.bereft = true;
        if !shown {
            let lost = self.decided.extract_if(.., |(b, _)| *b == birth);
            self.lost.extend(lost.map(|(_, ending)| ending));
            self.told.clear();
        }
    }

    /// Whether it was accepted and has ended.
    pub(crate) fn ended(&self) -> bool {
        self.accepted.is_some() && !self.open() && !self.void
    }

    /// Whether nobody waits for the end of this submission.
    pub(crate) fn gave_up(&self, birth: Birth) -> bool {
        let ended = self.decided.iter().any(|(b, _)| *b == birth);
        ended || (!self.births.is_empty() && !self.births.contains(&birth))
    }

    /// The outcomes of all that was submitted under this id.
    pub(crate) fn outcomes(&self) -> impl Iterator<Item = &Ending> {
        self.decided.iter().map(|(_, ending)| ending)
    }

    fn pledge(&mut self, node: NodeId, ballot: Ballot) {
        let before = self.pledges.entry(node).or_default();
        *before = ballot.max(*before);
    }

    /// Whether `ballot` was won from a majority of holders; the first needs none.
    pub(crate) fn won(&self, ballot: Ballot) -> bool {
        ballot.epoch <= 1 || self.won.iter().any(|(_, won)| *won == ballot)
    }
}

/// One run of a program.
#[derive(Debug)]
pub(crate) struct Run {
    /// Under which grant.
    pub(crate) fence: Fence,
    /// Where.
    pub(crate) node: usize,
    /// Of which submission.
    pub(crate) submitted_at: Unix,
    /// What its result is found by.
    pub(crate) key: Option<CacheKey>,
    /// From when.
    pub(crate) from: Time,
    /// Until when; `None`: it still runs.
    pub(crate) until: Option<Time>,
    /// What its executor said; `None`: nothing.
    pub(crate) end: Option<(Verdict, Data)>,
}

/// What a client asked.
#[derive(Clone, Debug)]
pub(crate) enum Asked {
    /// To take these tasks: the same number is the same work.
    Submit { tasks: Vec<TaskId>, work: u64, local: bool },
    /// To try a task again.
    Retry,
    /// How a task is; a promise that it is known, where `must_know`.
    View { task: TaskId, must_know: MustKnow },
    /// Anything else.
    Other,
    /// Anything, of which the answer is to be kept.
    Kept,
}

/// Whether an answer may be that there is no such task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MustKnow {
    /// It may.
    No,
    /// It must be known, and have ended.
    Ended,
}

#[derive(Debug)]
struct Pending {
    node: usize,
    at: Time,
    asked: Asked,
}

/// All of it.
#[derive(Default)]
pub(crate) struct Oracle {
    /// By id.
    pub(crate) promises: BTreeMap<TaskId, Promise>,
    /// By id, in order of their start.
    pub(crate) runs: BTreeMap<TaskId, Vec<Run>>,
    /// What it knows of workflows.
    pub(crate) flows: Flows,
    /// Answers that somebody wants to read.
    pub(crate) answers: Vec<Result<Reply, Refusal>>,
    pending: BTreeMap<RequestId, Pending>,
}

impl Oracle {
    /// The promise about `task`.
    pub(crate) fn promise(&mut self, task: &TaskId) -> &mut Promise {
        if !self.promises.contains_key(task) {
            self.promises.insert(task.clone(), Promise::default());
        }
        self.promises.get_mut(task).expect("it is there now")
    }

    /// A client asked.
    pub(crate) fn asked(&mut self, id: RequestId, node: usize, at: Time, asked: Asked) {
        self.pending.insert(id, Pending { node, at, asked });
    }

    /// A node died: nobody there will answer.
    pub(crate) fn forget_requests_of(&mut self, node: usize) {
        self.pending.retain(|_, p| p.node != node);
    }

    /// Requests that should have been answered long ago.
    pub(crate) fn unanswered(&self, since: Time) -> impl Iterator<Item = String> + '_ {
        let late = self.pending.iter().filter(move |(_, p)| p.at < since);
        late.map(|(id, p)| format!("n{} never answered {id:?} of {}: {:?}", p.node, p.at, p.asked))
    }

    /// A run began.
    pub(crate) fn run_started(&mut self, task: &TaskId, fence: Fence, node: usize, now: Time, spec: &Spec) {
        let (submitted_at, key) = (spec.submitted_at, spec.cache_key());
        let run = Run { fence, node, submitted_at, key, from: now, until: None, end: None };
        self.runs.entry(task.clone()).or_default().push(run);
    }

    /// A run ended; `end`: what its executor said.
    pub(crate) fn run_ended(
        &mut self,
        task: &TaskId,
        fence: Fence,
        node: usize,
        now: Time,
        end: Option<(Verdict, Data)>,
    ) {
        let runs = self.runs.get_mut(task).into_iter().flatten();
        let run = runs.rev().find(|r| r.fence == fence && r.node == node && r.until.is_none());
        let run = run.expect("only what began can end");
        run.until = Some(now);
        run.end = end;
    }
}

impl World {
    /// Something becomes durable.
    pub(crate) fn write(&mut self, n: usize, effect: Effect) {
        match effect {
            Effect::Persist(Entry::Record { pledge, record }) => {
                self.show(Seen::Kept { node: n, pledge, record: &record });
                self.note_birth(n, &record);
                let task = record.task.clone();
                self.hosts[n].disk.write(Entry::Record { pledge, record });
                self.weigh(n, &task);
            }
            Effect::Persist(Entry::Pledge { task, ballot, at }) => {
                self.show(Seen::Vowed { node: n, task: &task, ballot });
                self.hosts[n].disk.write(Entry::Pledge { task: task.clone(), ballot, at });
                self.oracle.promise(&task).pledge(NodeId::test(n as u64), ballot);
                self.weigh_vow(&task, ballot);
            }
            Effect::Persist(entry) => {
                if let Entry::Spec(task, spec) = &entry {
                    self.note_spec(task, spec);
                }
                self.hosts[n].disk.write(entry);
            }
            Effect::Forget(key) => {
                self.show(Seen::Forgotten { node: n, key: &key });
                self.note_forgotten(n, &key);
                self.hosts[n].disk.forget(&key);
            }
            _ => unreachable!("only writes are written"),
        }
    }

    /// An owner forgets a task that has ended.
    fn note_forgotten(&mut self, n: usize, key: &Key) {
        let Key::Task(task) = key else { return };
        let Some(copy) = self.hosts[n].disk.copies.get(task) else { return };
        let ballot = copy.record.stamp.ballot;
        if copy.record.closed() && ballot.owner == NodeId::test(n as u64) {
            let promise = self.oracle.promise(task);
            promise.forgotten = ballot.max(promise.forgotten);
            // From here on its id is free.
            if promise.ended() {
                promise.fresh = 0;
                promise.works.clear();
            }
        }
    }

    /// Whether what was just written decides something: a right that a
    /// majority has pledged to, or an outcome that a majority has.
    fn weigh(&mut self, n: usize, task: &TaskId) {
        let copy = &self.hosts[n].disk.copies[task];
        let (record, pledge) = (copy.record.clone(), copy.pledge);
        let (birth, stamp) = (record.birth, record.stamp);
        let ending = Ending::of(&record).filter(|_| !copy.learnt);
        let submitted = self.hosts[n].disk.specs.get(task).map(|spec| spec.submitted_at);
        let me = NodeId::test(n as u64);
        let promise = self.oracle.promise(task);
        promise.stored.insert(birth);
        promise.void |= self.faults.ravages && promise.stored.len() > 1;
        promise.pledge(me, pledge);
        if ending.is_some() {
            promise.ends.insert((birth, stamp.ballot, me, stamp.revision));
        }
        let has = |h: NodeId| {
            promise
                .ends
                .range((birth, stamp.ballot, h, stamp.revision)..)
                .next()
                .is_some_and(|(b, ballot, n, _)| (*b, *ballot, *n) == (birth, stamp.ballot, h))
        };
        let ending = ending.filter(|_| record.majority(has));
        if pledge.epoch > 1 && self.is_pledged(task, &record, pledge) {
            self.oracle.promise(task).won.insert((birth, pledge));
        }
        let promise = self.oracle.promise(task);
        let Some(ending) = ending else { return };
        match promise.decided.iter().find(|(b, _)| *b == birth) {
            Some((_, before)) if before.agrees(&ending) => {}
            Some((_, before)) => {
                let before = before.clone();
                self.show(Seen::DecidedAnew { task, before: &before, after: &ending });
            }
            None => {
                promise.submitted.extend(submitted);
                self.tally.taken += u64::from(matches!(ending.source, Some(Some(_))));
                promise.decided.push((birth, ending));
                self.tally.closed += 1;
            }
        }
    }

    /// A pledge without a record may be the one that was missing.
    fn weigh_vow(&mut self, task: &TaskId, ballot: Ballot) {
        let Some(claimant) = self.copy_of(ballot.owner, task) else { return };
        let birth = claimant.record.birth;
        if self.is_pledged(task, &claimant.record, ballot) {
            self.oracle.promise(task).won.insert((birth, ballot));
        }
    }

    /// Whether a majority has pledged to `ballot`, by the holders that any of
    /// the keepers of `record` knows of.
    fn is_pledged(&self, task: &TaskId, record: &Record, ballot: Ballot) -> bool {
        let pledges = &self.oracle.promises[task].pledges;
        let pledged = |h: NodeId| pledges.get(&h).is_some_and(|p| *p >= ballot);
        let copies = || record.keepers().filter_map(|h| self.copy_of(h, task)).map(|c| &c.record);
        // The writer of a change of holders, having pledged, shows that it is not
        // done: then the prior ones are enough.
        let resumes = copies().any(|r| {
            let writer = self.copy_of(r.owner(), task).is_some_and(|c| c.record.stamp == r.stamp);
            let shown = writer && pledged(r.owner()) && r.stamp.ballot < ballot;
            shown && r.prior.iter().filter(|h| pledged(**h)).count() * 2 > r.prior.len()
        });
        resumes || copies().any(|r| r.majority(pledged)) || self.is_inherited(task, record, ballot.owner, pledged)
    }

    pub(crate) fn copy_of(&self, node: NodeId, task: &TaskId) -> Option<&Copy> {
        self.hosts[index_of(node)].disk.copies.get(task)
    }

    /// Whether the copy of `task` on `node` was destroyed by a fault: its word
    /// still counts as given.
    pub(crate) fn gone(&self, node: NodeId, task: &TaskId) -> bool {
        let host = &self.hosts[index_of(node)];
        host.fate == Fate::Destroyed || host.disk.damaged.contains(task)
    }

    /// Whether the copies of `task` would outlive the loss of the one on `n`.
    /// A holder that keeps another task of the id never kept this one.
    pub(crate) fn may_lose(&self, n: usize, task: &TaskId) -> bool {
        self.hosts.iter().filter_map(|host| host.disk.copies.get(task)).all(|copy| {
            let other = |h: NodeId| self.copy_of(h, task).is_some_and(|c| c.record.birth != copy.record.birth);
            let lost = |h: &NodeId| index_of(*h) == n || self.gone(*h, task) || other(*h);
            let sets = [&copy.record.holders, &copy.record.prior];
            sets.into_iter().filter(|set| !set.is_empty()).all(|set| {
                let dead = set.iter().filter(|h| lost(h)).count();
                dead * 2 < set.len()
            })
        })
    }

    /// Whether its holders were chosen so that half of them are gone for ever, or
    /// keep another task of its id: by a node that could not know, and no
    /// promise covers that. (Of what is kept already, faults take less.)
    pub(crate) fn born_among_the_dead(&self, record: &Record) -> bool {
        let dead = |h: &&NodeId| {
            let other = self.copy_of(**h, &record.task).is_some_and(|c| c.record.birth != record.birth);
            other || self.hosts[index_of(**h)].fate == Fate::Destroyed
        };
        let lost = record.holders.iter().filter(dead).count();
        lost * 2 >= record.holders.len() && record.owner() == record.birth.node
    }

    /// A node answers a client.
    pub(crate) fn on_reply(&mut self, n: usize, id: RequestId, reply: Result<Reply, Refusal>) {
        let Some(pending) = self.oracle.pending.remove(&id) else {
            self.show(Seen::Unasked { node: n, id, reply: &reply });
            return;
        };
        self.tally.answers += 1;
        match (pending.asked, reply) {
            (Asked::Submit { tasks, work, local }, Ok(Reply::Submitted(submitted))) => {
                for task in &tasks {
                    self.oracle.promise(task).local |= local;
                    self.accept(n, task, work, submitted.replayed, Some(submitted.home));
                }
            }
            (Asked::Kept, answer) => self.oracle.answers.push(answer),
            (Asked::Retry, Ok(Reply::Retried { retry, .. })) => self.accept(n, &retry, 0, true, None),
            (Asked::View { must_know: MustKnow::Ended, task }, answer) => {
                let known = matches!(&answer, Ok(Reply::Task(view)) if view.status.terminal());
                if !known {
                    self.show(Seen::Unknown { node: n, task: &task, answer: &answer });
                }
                self.hear(n, answer);
            }
            (_, answer) => self.hear(n, answer),
        }
    }

    fn hear(&mut self, n: usize, answer: Result<Reply, Refusal>) {
        match answer {
            Ok(Reply::Task(view)) => self.on_view(n, &view),
            Ok(Reply::Tasks(page)) => page.tasks.iter().for_each(|view| self.on_view(n, view)),
            Ok(Reply::Cancelled { task, status: Status::Cancelled, .. }) => {
                self.tally.cancelled += 1;
                let ending = Ending {
                    status: Status::Cancelled,
                    attempt: None,
                    executor: None,
                    result: None,
                    source: None,
                    by: None,
                };
                self.tell(n, &task, ending);
            }
            Ok(_) => {}
            Err(_) => self.tally.refused += 1,
        }
    }

    /// The submissions of `task` that are safe with a majority now, or there at all.
    pub(crate) fn births_of(&self, task: &TaskId) -> BTreeSet<Birth> {
        let copies = || self.hosts.iter().filter_map(|h| h.disk.copies.get(task)).map(|c| &c.record);
        let safe = |record: &&Record| {
            record.majority(|h| {
                self.gone(h, task) || self.copy_of(h, task).is_some_and(|c| c.record.birth == record.birth)
            })
        };
        let births: BTreeSet<_> = copies().filter(safe).map(|r| r.birth).collect();
        if births.is_empty() { copies().map(|r| r.birth).collect() } else { births }
    }

    fn accept(&mut self, n: usize, task: &TaskId, work: u64, replayed: bool, home: Option<NodeId>) {
        let here = home.and_then(|home| self.copy_of(home, task)).map(|c| c.record.birth);
        let births = here.map_or_else(|| self.births_of(task), |birth| BTreeSet::from([birth]));
        let promise = self.oracle.promise(task);
        if promise.accepted.is_none() {
            promise.accepted = Some(self.now);
            self.tally.accepted += 1;
        }
        promise.works.insert(work);
        promise.births.extend(births);
        promise.fresh += u32::from(!replayed);
        self.tally.replayed += u64::from(replayed);
        self.show(Seen::Accepted { node: n, task });
    }

    fn on_view(&mut self, n: usize, view: &taskmesh_core::view::TaskView) {
        // An item that never became a task has no end but that of its array, which
        // whoever says so has seen as ended.
        if !view.status.terminal() || view.epoch == 0 {
            return;
        }
        let ending = Ending {
            status: view.status,
            attempt: Some(view.attempt),
            executor: Some(view.executor.as_ref().map(|(node, _)| *node)),
            result: view.report.as_ref().map(|r| r.result.clone()),
            source: Some(view.cached_from.as_ref().map(|from| from.source.clone())),
            by: None,
        };
        self.tell(n, &view.task, ending);
    }

    /// A node tells its shell what happened; that a task has ended is a promise.
    pub(crate) fn on_notice(&mut self, n: usize, notice: &Notice) {
        match notice {
            Notice::TaskClosed { task, status, attempt, executor, .. } => {
                let ending = Ending {
                    status: *status,
                    attempt: Some(*attempt),
                    executor: Some(*executor),
                    result: None,
                    source: None,
                    by: None,
                };
                self.tell(n, task, ending);
            }
            Notice::OwnerAdopted { .. } => self.tally.adoptions += 1,
            Notice::HoldersChanged { .. } => self.tally.rehomed += 1,
            Notice::Repaired { .. } => self.tally.repaired += 1,
            Notice::LeaseLost { .. } => self.tally.leases_lost += 1,
            Notice::TaskRetried { .. } => self.tally.attempts_retried += 1,
            _ => {}
        }
    }

    fn tell(&mut self, n: usize, task: &TaskId, ending: Ending) {
        self.show(Seen::Told { node: n, task, ending: &ending });
        self.oracle.promise(task).told.push(ending);
    }
}

fn index_of(node: NodeId) -> usize {
    crate::world::index(node)
}
