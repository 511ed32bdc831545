//! The result cache among nodes: a task looks for an earlier result before it
//! runs, waits for one that is running, and leaves its own.
//!
//! A key's home is the first live node in its rendezvous order. It keeps the
//! result and copies it to the next in that order, and it alone knows which task
//! runs for a key. All of this is a hint: whatever is lost on the way, or with a
//! home, costs a run that could have been spared and nothing else. A result gets
//! here only from an end that a majority has.

mod values;

use crate::cache::{CacheKey, CacheStats, Cached, Evicted, Finding, Gone, NodeCache, Shelf, Source, Which};
use crate::command::{Command, Refusal, Request, Scope};
use crate::effect::{Entry, Key, Notice};
use crate::ids::{BlobHash, NodeId, TaskId, rendezvous};
use crate::message::Message;
use crate::node::{Fetching, Node};
use crate::origin::Origin;
use crate::ownership::Offering;
use crate::requests::Plan;
use crate::stats::Ending;
use crate::task::{Closed, Outcome, Report, TaskState};
use crate::time::{Millis, Unix};
use crate::view::{Reply, Status, TaskView};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What a node has to do with results of earlier tasks.
pub(crate) struct Reuse {
    shelf: Shelf,
    /// Nodes that are known to keep a result that is kept here.
    told: BTreeMap<CacheKey, BTreeSet<NodeId>>,
    /// As the home of a key: the task that runs for it.
    flights: BTreeMap<CacheKey, Flight>,
    /// Owned tasks that wait for a result of another.
    looking: BTreeMap<TaskId, Looking>,
    /// Tasks whose end some of them wait for.
    followed: BTreeMap<TaskId, BTreeSet<TaskId>>,
    /// Owned tasks that ended well, and whose results are left once promised.
    leaving: BTreeSet<TaskId>,
    tended: Option<CacheKey>,
    counts: NodeCache,
}

/// The task that runs for all who want the same.
struct Flight {
    task: TaskId,
    owner: NodeId,
}

/// How far a task is that looks for a result.
enum Looking {
    /// The home of its key was asked.
    Asking,
    /// It waits for the end of a task that does the same.
    Following {
        first: TaskId,
        /// Since when that one does not seem to go on.
        idle: Option<Millis>,
    },
    /// There is a result, whose blobs are not all here yet.
    Taking { report: Box<Report>, source: Source, from: NodeId, by: Millis },
}

/// Homes that are asked, one after the other, before a task runs.
const ASKED: usize = 2;
/// A task that is followed and neither known nor running for this long is not
/// waited for: the two may wait for each other, by homes that disagree.
const IDLE: Millis = Millis(30_000);
/// How long the blobs of a result may take.
const TAKING: Millis = Millis(60_000);
/// Flights of which one home knows; the end of one may be lost on its way.
const FLIGHTS: usize = 100_000;
/// Results that are looked after in one tick.
const TENDED: usize = 64;

impl Reuse {
    pub(crate) fn new(bounds: crate::cache::Bounds) -> Reuse {
        Reuse {
            shelf: Shelf::new(bounds),
            told: BTreeMap::new(),
            flights: BTreeMap::new(),
            looking: BTreeMap::new(),
            followed: BTreeMap::new(),
            leaving: BTreeSet::new(),
            tended: None,
            counts: NodeCache::default(),
        }
    }

    /// Tasks whose end somebody waits for, to take their result.
    pub(crate) fn followed(&self) -> impl Iterator<Item = &TaskId> {
        self.followed.keys()
    }

    pub(crate) fn is_followed(&self, task: &TaskId) -> bool {
        self.followed.contains_key(task)
    }

    pub(crate) fn check(&self) {
        self.shelf.check();
        assert!(self.told.len() <= self.shelf.len(), "copies of what is not kept");
        assert!(self.flights.len() <= FLIGHTS, "flights");
        for (first, followers) in &self.followed {
            let follows =
                |task| matches!(self.looking.get(task), Some(Looking::Following { first: f, .. }) if f == first);
            assert!(!followers.is_empty() && followers.iter().all(follows), "{first}: followers");
        }
    }
}

/// A task looks for a result.
impl Node {
    /// The nodes that keep the result of `key`, the first of them its home.
    fn shelves_of(&self, key: &CacheKey) -> Vec<NodeId> {
        let live = self.live_members().filter(|n| !self.is_draining(*n));
        let me = (!self.draining).then_some(self.id);
        let mut order = rendezvous(key.place(), live.chain(me));
        order.truncate(self.holders_wanted());
        if order.is_empty() { vec![self.id] } else { order }
    }

    /// An owned task that waits for nothing else: is there a result that it can
    /// take? `after` is a task of the same work that left none.
    pub(crate) fn look_for_result(&mut self, task: &TaskId, after: Option<TaskId>) {
        let spec = &self.kept[task].slot.spec;
        let Some(key) = spec.cache_key() else { return };
        let joins = spec.runs_for_others();
        let mut homes = self.shelves_of(&key);
        homes.truncate(ASKED);
        self.reuse.looking.insert(task.clone(), Looking::Asking);
        let command = Command::LookUp { key, task: task.clone(), after, joins };
        self.ask(Origin::LookUp(task.clone()), Request::Command(command), homes, None);
    }

    /// A blocked task was entered where its state belongs.
    pub(crate) fn look_up_if_free(&mut self, task: &TaskId) {
        let free = self.missing.get(task).is_none_or(BTreeSet::is_empty);
        if free && self.kept[task].slot.spec.reads_cache() {
            self.look_for_result(task, None);
        }
    }

    /// It is no blocked task of this node any more.
    pub(crate) fn stop_looking(&mut self, task: &TaskId) {
        if let Some(Looking::Following { first, .. }) = self.reuse.looking.remove(task)
            && let Some(followers) = self.reuse.followed.get_mut(&first)
        {
            followers.remove(task);
            if followers.is_empty() {
                self.reuse.followed.remove(&first);
            }
        }
    }

    /// The home of its key has answered, or nobody has.
    pub(crate) fn on_looked_up(&mut self, task: &TaskId, reply: Result<Reply, Refusal>) {
        if !matches!(self.reuse.looking.get(task), Some(Looking::Asking)) {
            return;
        }
        let key = self.kept.get(task).and_then(|kept| kept.slot.spec.cache_key());
        match reply {
            Ok(Reply::Found(Finding::Hit { entry, from })) if Some(entry.key) == key => {
                let Cached { report, source, .. } = *entry;
                self.take_result(task, report, source, from);
            }
            Ok(Reply::Found(Finding::Follow(first))) if first != *task => self.follow(task, first),
            Ok(_) | Err(_) => self.run_itself(task),
        }
    }

    fn run_itself(&mut self, task: &TaskId) {
        self.stop_looking(task);
        let wall = self.wall();
        let Some(kept) = self.owned(task).filter(|k| k.slot.record.body.state == TaskState::Blocked) else { return };
        let place = kept.slot.record.body.priority;
        self.revise(task, Offering::Lazily, |r| r.body.state = TaskState::Queued { since: wall, place });
    }

    fn follow(&mut self, task: &TaskId, first: TaskId) {
        self.reuse.looking.insert(task.clone(), Looking::Following { first: first.clone(), idle: None });
        self.reuse.followed.entry(first.clone()).or_default().insert(task.clone());
        self.awaited.push(first);
    }

    /// Whoever follows it: it is still there, as its owner says.
    pub(crate) fn on_followed(&mut self, first: &TaskId, reply: &Result<Reply, Refusal>) {
        match reply {
            Ok(Reply::Task(view)) if view.status.terminal() => self.release_followers(first, Some(view)),
            Ok(Reply::Task(view)) if view.status != Status::Blocked => self.note_pulse(first, None),
            Ok(_) | Err(Refusal::Unavailable { .. }) => self.note_pulse(first, Some(self.now)),
            Err(_) => self.release_followers(first, None),
        }
    }

    /// The same, where this node owns it.
    pub(crate) fn on_own_followed(&mut self, first: &TaskId) {
        if !self.reuse.is_followed(first) {
            return;
        }
        let detail = crate::command::Detail { report: true, ..Default::default() };
        let view = self.task_view(first, detail);
        self.on_followed(first, &Ok(Reply::Task(Box::new(view))));
    }

    /// `idle_now`: it does not seem to go on, at this time.
    fn note_pulse(&mut self, first: &TaskId, idle_now: Option<Millis>) {
        let now = self.now;
        let mut given_up = Vec::new();
        for task in self.reuse.followed.get(first).into_iter().flatten() {
            let Some(Looking::Following { idle, .. }) = self.reuse.looking.get_mut(task) else { continue };
            *idle = idle_now.map(|now| idle.unwrap_or(now));
            if idle.is_some_and(|since| now.since(since) >= IDLE) {
                given_up.push(task.clone());
            }
        }
        for task in given_up {
            self.stop_looking(&task);
            self.look_for_result(&task, Some(first.clone()));
        }
    }

    /// `first` has ended, or nobody knows of it: those who followed it take its
    /// result, or look again, of whom the next then runs for all.
    fn release_followers(&mut self, first: &TaskId, end: Option<&TaskView>) {
        let left = end.filter(|view| view.status == Status::Completed);
        let left = left.and_then(|view| Some((view.report.as_ref()?, view)));
        for task in self.reuse.followed.remove(first).unwrap_or_default() {
            self.reuse.looking.remove(&task);
            let Some((report, view)) = left else {
                self.look_for_result(&task, Some(first.clone()));
                continue;
            };
            let source = match &view.cached_from {
                Some(from) => from.source.clone(),
                None => Source { task: first.clone(), attempt: view.attempt },
            };
            self.take_result(&task, report.clone(), source, view.home);
        }
    }

    /// Ends `task` with the result of another, as soon as all of it is here.
    fn take_result(&mut self, task: &TaskId, report: Report, source: Source, from: NodeId) {
        let missing = self.missing_of(&report);
        if missing.is_empty() {
            return self.close_with_result(task, report, source);
        }
        if from == self.id {
            return self.run_itself(task);
        }
        let by = self.now + TAKING;
        self.reuse.looking.insert(task.clone(), Looking::Taking { report: Box::new(report), source, from, by });
        self.fetch(from, &missing, || Fetching::Result(task.clone()));
    }

    fn missing_of(&self, report: &Report) -> Vec<(BlobHash, u64)> {
        report.blobs().filter(|(hash, _)| !self.blobs.contains_key(hash)).collect()
    }

    /// Some of what `task` waits for may have come.
    pub(crate) fn go_on_taking(&mut self, task: &TaskId) {
        let Some(Looking::Taking { report, source, from, by }) = self.reuse.looking.get(task) else { return };
        let missing = self.missing_of(report);
        if missing.is_empty() {
            let (report, source) = ((**report).clone(), source.clone());
            return self.close_with_result(task, report, source);
        }
        let on_its_way = missing.iter().any(|(hash, _)| self.fetching.contains_key(hash));
        if !on_its_way || self.now >= *by || !self.live(*from) {
            self.run_itself(task);
        }
    }

    fn close_with_result(&mut self, task: &TaskId, report: Report, source: Source) {
        self.stop_looking(task);
        if self.owned(task).is_none_or(|k| k.slot.record.body.state != TaskState::Blocked) {
            return;
        }
        let at = self.wall();
        self.recent.ended(at, None, Ending::Well);
        let closed = Closed {
            outcome: Outcome::Completed,
            at,
            executor: None,
            started_at: None,
            report: Some(report),
            cached_from: Some(source),
        };
        self.revise(task, Offering::Now, |r| r.body.state = TaskState::Done(Arc::new(closed)));
    }

    /// An owned task is about to be closed.
    pub(crate) fn note_end(&mut self, task: &TaskId, outcome: &Outcome) {
        if *outcome == Outcome::Completed && self.kept[task].slot.spec.writes_cache() {
            self.reuse.leaving.insert(task.clone());
        }
    }

    /// It is not this node's to tell of its end any more.
    pub(crate) fn leave_no_result(&mut self, task: &TaskId) {
        self.reuse.leaving.remove(task);
    }

    /// A majority knows the end of an owned task: its result is for others now.
    pub(crate) fn leave_result(&mut self, task: &TaskId) {
        self.on_own_followed(task);
        let left = self.reuse.leaving.remove(task);
        let Some(kept) = self.kept.get(task) else { return };
        let spec = &kept.slot.spec;
        let (Some(key), Some(closed)) = (spec.cache_key(), kept.promised_end()) else { return };
        let home = self.shelves_of(&key)[0];
        match &closed.report {
            Some(report) if left && closed.outcome == Outcome::Completed => {
                let entry = Cached {
                    key,
                    task_type: spec.task_type.clone(),
                    tags: spec.tags.clone(),
                    source: Source { task: task.clone(), attempt: kept.slot.record.body.attempt },
                    report: report.clone(),
                    created: closed.at,
                    expires: Unix(0),
                };
                self.send(home, Message::Left(Box::new(entry)));
            }
            Some(_) | None if spec.runs_for_others() => self.send(home, Message::Landed { key, task: task.clone() }),
            Some(_) | None => {}
        }
    }
}

/// A home answers, and keeps.
impl Node {
    pub(crate) fn on_look_up(
        &mut self,
        origin: Origin,
        key: CacheKey,
        task: TaskId,
        after: Option<TaskId>,
        joins: bool,
    ) {
        let Origin::Node { from: owner, .. } = origin else {
            let problem = "only nodes look for results".into();
            return self.answer(origin, Err(Refusal::Denied { problem }));
        };
        let wall = self.wall();
        if self.reuse.flights.get(&key).is_some_and(|f| Some(&f.task) == after.as_ref() || !self.live(f.owner)) {
            self.reuse.flights.remove(&key);
        }
        let finding = if let Some(entry) = self.reuse.shelf.find(&key, wall) {
            Finding::Hit { entry: Box::new((*entry).clone()), from: self.id }
        } else if let Some(flight) = self.reuse.flights.get(&key).filter(|f| f.task != task) {
            Finding::Follow(flight.task.clone())
        } else {
            if joins {
                self.reuse.flights.insert(key, Flight { task, owner });
            }
            if self.reuse.flights.len() > FLIGHTS {
                self.reuse.flights.pop_first();
            }
            Finding::Run
        };
        self.note_finding(&finding);
        self.answer(origin, Ok(Reply::Found(finding)));
    }

    fn note_finding(&mut self, finding: &Finding) {
        let counts = &mut self.reuse.counts;
        *match finding {
            Finding::Hit { .. } => &mut counts.hits,
            Finding::Follow(_) => &mut counts.joined,
            Finding::Run => &mut counts.misses,
        } += 1;
        self.notice(Notice::CacheLookedUp { found: finding.name() });
    }

    /// The owner of a task says what it left.
    pub(crate) fn on_left(&mut self, from: NodeId, mut entry: Box<Cached>) {
        let wall = self.wall();
        if !self.reuse.shelf.takes(&entry) {
            return self.on_landed(&entry.key, &entry.source.task);
        }
        let missing = self.missing_of(&entry.report);
        if !missing.is_empty() {
            return self.fetch(from, &missing, || Fetching::Left { from, entry: entry.clone() });
        }
        entry.created = entry.created.min(wall);
        entry.expires = wall + self.reuse.shelf.bounds().ttl;
        self.on_landed(&entry.key, &entry.source.task);
        let key = entry.key;
        self.keep_result(*entry);
        self.reuse.told.remove(&key);
        self.spread(&key);
    }

    /// A task runs for others no more.
    pub(crate) fn on_landed(&mut self, key: &CacheKey, task: &TaskId) {
        if self.reuse.flights.get(key).is_some_and(|flight| flight.task == *task) {
            self.reuse.flights.remove(key);
        }
    }

    /// Another node keeps this, and this one should too.
    pub(crate) fn on_copy(&mut self, from: NodeId, mut entry: Box<Cached>) {
        let wall = self.wall();
        let key = entry.key;
        entry.expires = entry.expires.min(wall + self.reuse.shelf.bounds().ttl);
        if entry.expires <= wall || !self.reuse.shelf.takes(&entry) {
            return;
        }
        let ours = self.reuse.shelf.peek(&key).map(|ours| (ours.created, ours.source == entry.source));
        if ours.is_none_or(|(created, same)| created < entry.created && !same) {
            let missing = self.missing_of(&entry.report);
            if !missing.is_empty() {
                return self.fetch(from, &missing, || Fetching::Copy { from, entry: entry.clone() });
            }
            self.keep_result(*entry);
            self.reuse.told.remove(&key);
        } else if ours.is_some_and(|(_, same)| !same) {
            return;
        }
        self.reuse.told.entry(key).or_default().insert(from);
    }

    fn keep_result(&mut self, entry: Cached) {
        let wall = self.wall();
        let entry = Arc::new(entry);
        self.count_report(&entry.report, 1);
        let before = self.reuse.shelf.peek(&entry.key).cloned();
        self.persist(Entry::Cached(entry.clone()));
        let evicted = self.reuse.shelf.insert(entry, wall);
        if let Some(before) = before {
            self.count_report(&before.report, -1);
        }
        self.drop_results(evicted);
    }

    /// These are on the shelf no more.
    fn drop_results(&mut self, evicted: Vec<Evicted>) {
        let policy = self.reuse.shelf.bounds().policy;
        for (entry, why) in evicted {
            self.reuse.told.remove(&entry.key);
            self.erase(Key::Cached(entry.key));
            self.count_report(&entry.report, -1);
            *self.reuse.counts.gone.entry(why).or_default() += 1;
            self.notice(Notice::CacheEvicted { policy, why });
        }
        let (entries, bytes) = (self.reuse.shelf.len() as u64, self.reuse.shelf.bytes());
        self.notice(Notice::CacheHolds { entries, bytes });
    }

    /// Copies a result that is kept here to those who should keep it too.
    fn spread(&mut self, key: &CacheKey) {
        let Some(entry) = self.reuse.shelf.peek(key).cloned() else { return };
        for node in self.shelves_of(key) {
            if node != self.id && self.reuse.told.entry(*key).or_default().insert(node) {
                self.send(node, Message::Copy(Box::new((*entry).clone())));
            }
        }
    }

    pub(crate) fn restore_results(&mut self, found: Vec<Cached>) {
        let mut found: Vec<_> = found.into_iter().map(Arc::new).collect();
        found.sort_unstable_by_key(|entry| (entry.created, entry.key));
        for entry in found {
            if !self.reuse.shelf.takes(&entry) || !self.missing_of(&entry.report).is_empty() {
                self.erase(Key::Cached(entry.key));
                continue;
            }
            self.count_report(&entry.report, 1);
            // What time it is, is not known yet.
            let evicted = self.reuse.shelf.insert(entry, Unix(0));
            self.drop_results(evicted);
        }
    }

    /// Looks after some of the results, and after who waits for one.
    pub(crate) fn tend_results(&mut self) {
        let wall = self.wall();
        let over = self.reuse.shelf.take_expired(wall, TENDED);
        if !over.is_empty() {
            self.drop_results(over);
        }
        let keys = self.reuse.shelf.keys_after(self.reuse.tended, TENDED);
        self.reuse.tended = if keys.len() == TENDED { keys.last().copied() } else { None };
        for key in keys {
            self.tend_result(&key);
        }
        let taking = self.reuse.looking.iter().filter(|(_, l)| matches!(l, Looking::Taking { .. }));
        for task in taking.map(|(task, _)| task.clone()).collect::<Vec<_>>() {
            self.go_on_taking(&task);
        }
    }

    /// Nodes come and go: the first who keeps a result sees to it that those
    /// keep it who should, and whoever should not keeps it no more.
    fn tend_result(&mut self, key: &CacheKey) {
        let shelves = self.shelves_of(key);
        let place = shelves.iter().position(|n| *n == self.id);
        let told = self.reuse.told.get(key);
        let before = &shelves[..place.unwrap_or(shelves.len())];
        let first = !before.iter().any(|n| told.is_some_and(|told| told.contains(n)));
        if first {
            self.spread(key);
        }
        if place.is_none() && !self.draining {
            let gone = self.reuse.shelf.take(key).map(|entry| (entry, Gone::Moved));
            self.drop_results(gone.into_iter().collect());
        }
    }
}

/// What operators ask for.
impl Node {
    pub(crate) fn on_invalidate(&mut self, origin: Origin, which: Which, scope: Scope) {
        let own = self.drop_shelved(&which);
        if scope == Scope::Local {
            return self.answer(origin, Ok(own));
        }
        let request = Request::Command(Command::Invalidate { which, scope: Scope::Local });
        self.gather(origin, Plan::Invalidated, request, vec![own]);
    }

    pub(crate) fn on_query_cache(&mut self, origin: Origin, scope: Scope) {
        let shelf = &self.reuse.shelf;
        let own = NodeCache {
            entries: shelf.len() as u64,
            bytes: shelf.bytes(),
            flights: self.reuse.flights.len() as u64,
            ..self.reuse.counts.clone()
        };
        let own = Reply::Cache(CacheStats { nodes: BTreeMap::from([(self.id, own)]), silent: Vec::new() });
        if scope == Scope::Local {
            return self.answer(origin, Ok(own));
        }
        let request = Request::Query(crate::Query::Cache { scope: Scope::Local });
        self.gather(origin, Plan::Cache, request, vec![own]);
    }

    /// What became of an invalidation.
    pub(crate) fn invalidated(&self, (entries, copies): (u64, u64), left: &BTreeSet<NodeId>) -> Reply {
        Reply::Invalidated { entries, copies, silent: self.silent_of(left) }
    }

    /// What was told of results.
    pub(crate) fn cache_stats(&self, told: Option<Reply>, left: &BTreeSet<NodeId>) -> Reply {
        let nodes = if let Some(Reply::Cache(stats)) = told { stats.nodes } else { BTreeMap::new() };
        Reply::Cache(CacheStats { nodes, silent: self.silent_of(left) })
    }

    /// Members that did not answer: those that were asked in vain, and those
    /// that could not be.
    pub(crate) fn silent_of(&self, left: &BTreeSet<NodeId>) -> Vec<NodeId> {
        self.members.keys().copied().filter(|n| left.contains(n) || !self.live(*n)).collect()
    }

    /// What people are told of a task that looks for a result.
    pub(crate) fn explain_looking(&self, task: &TaskId) -> Option<(String, &'static str)> {
        let takes = "takes its result when it completes; runs itself if it does not";
        Some(match self.reuse.looking.get(task)? {
            Looking::Asking => ("asks for an earlier result of the same work".to_owned(), "is queued if there is none"),
            Looking::Following { first, .. } => (format!("waits for {first}, which does the same work"), takes),
            Looking::Taking { source, .. } => {
                (format!("fetches the result of {}", source.task), "completes with it; runs itself if it can't be had")
            }
        })
    }
}

#[cfg(test)]
mod tests;
