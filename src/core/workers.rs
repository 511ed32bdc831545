//! Workers: those of this node, and what is known of the others' room.

use crate::command::{Command, Query, Refusal, Request, WorkerSpec};
use crate::effect::{Entry, Key};
use crate::execution::{Phase, Verdict};
use crate::ids::{NodeId, TaskId, WorkerId};
use crate::limits;
use crate::message::Declined;
use crate::node::Node;
use crate::placement::{lack, way};
use crate::queue::offers;
use crate::requests::Origin;
use crate::seen::Seen;
use crate::task::{Requirements, Resources, TaskState};
use crate::time::{Millis, Unix};
use crate::view::{Reply, WorkerStatus, WorkerView};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A worker of this node.
pub(crate) struct Worker {
    pub(crate) spec: WorkerSpec,
    registered_at: Unix,
    pub(crate) waiting: std::collections::VecDeque<TaskId>,
    pub(crate) running: BTreeSet<TaskId>,
    in_use: Resources,
    /// The task that waits for more than is free, and that room is kept for.
    reserved: Option<TaskId>,
    pub(crate) completed: u64,
    pub(crate) failed: u64,
    /// Smoothed length of a run, in thousandths of a millisecond.
    mean_run_us: Option<u64>,
    /// It ends when nothing runs, or by then; and who wants to know.
    leaving: Option<Leaving>,
}

struct Leaving {
    by: Millis,
    completed_before: u64,
    abandoned: u64,
    tell: Vec<(Origin, Millis)>,
}

/// Whether a grant asks for room that is not there yet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ahead {
    No,
    KeepRoom,
}

/// Why a feasible worker has no room, for people.
pub(crate) enum Shortage {
    Slot(Arc<str>),
    Resource(Arc<str>),
    Reserved(Arc<str>),
}

/// The most that is granted ahead to one worker.
const AHEAD: u64 = 512;
/// How long a run that was granted ahead, to begin as soon as a slot is free, waits
/// for one before it goes elsewhere: many times what runs are granted ahead for.
const STUCK: Millis = Millis(1_000);
/// How long `Unregister` waits before it answers that the drain goes on.
const UNREGISTER_WAIT: Millis = Millis(40_000);

impl Worker {
    pub(crate) fn new(spec: WorkerSpec, registered_at: Unix) -> Worker {
        Worker {
            spec,
            registered_at,
            waiting: std::collections::VecDeque::new(),
            running: BTreeSet::new(),
            in_use: Resources::default(),
            reserved: None,
            completed: 0,
            failed: 0,
            mean_run_us: None,
            leaving: None,
        }
    }

    /// Runs to grant ahead, so that short tasks need no round trip each.
    fn ahead(&self, prefetch: Millis) -> u64 {
        match self.mean_run_us {
            None => 0,
            Some(mean) => (prefetch.0 * 1_000 * u64::from(self.spec.slots) / mean.max(1)).min(AHEAD),
        }
    }

    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.is_some()
    }

    fn free(&self, prefetch: Millis) -> u32 {
        if self.leaving.is_some() || self.reserved.is_some() {
            return 0;
        }
        let room = u64::from(self.spec.slots) + self.ahead(prefetch);
        let taken = (self.running.len() + self.waiting.len()) as u64;
        u32::try_from(room.saturating_sub(taken)).unwrap_or(u32::MAX)
    }

    /// Whether a run with this need may begin now.
    pub(crate) fn can_start(&self, need: &Resources) -> bool {
        let mut total = self.in_use.clone();
        total.add(need);
        self.running.len() < self.spec.slots as usize
            && self.spec.resources.as_ref().is_none_or(|have| have.covers(&total))
    }

    /// What a run would hold, if it may begin now.
    fn way_now(&self, need: &Requirements) -> Option<Resources> {
        way(&self.spec, need, |n| self.can_start(n))
    }

    /// The same, where slots may be granted ahead and resources may not.
    fn way_soon(&self, need: &Requirements) -> Option<Resources> {
        way(&self.spec, need, |n| n.is_empty() || self.can_start(n))
    }

    /// Queues a run; one that does not fit keeps what comes free for itself.
    pub(crate) fn await_slot(&mut self, task: TaskId, need: &Requirements) {
        if self.way_soon(need).is_none() {
            self.reserved = Some(task.clone());
        }
        self.waiting.push_back(task);
    }

    /// Takes a run out of those that wait.
    pub(crate) fn withdraw(&mut self, task: &TaskId) {
        self.waiting.retain(|t| t != task);
        self.reserved.take_if(|t| t == task);
    }

    pub(crate) fn begin(&mut self, task: TaskId, need: &Resources) {
        self.reserved.take_if(|t| *t == task);
        self.running.insert(task);
        self.in_use.add(need);
    }

    pub(crate) fn end(&mut self, task: &TaskId, need: &Resources) {
        if self.running.remove(task) {
            self.in_use.subtract(need);
        }
    }

    pub(crate) fn measured(&mut self, ran: Millis) {
        let sample = ran.0 * 1_000;
        self.mean_run_us = Some(self.mean_run_us.map_or(sample, |mean| (mean * 7 + sample) / 8));
    }

    /// Runs are not as short as they were: these take so long already.
    fn takes_longer(&mut self, than: Millis) {
        self.mean_run_us = self.mean_run_us.max(Some(than.0 * 1_000));
    }
}

fn taken(worker: &WorkerId, node: NodeId) -> Refusal {
    let problem = format!("{worker} is a worker of node {node}; choose another id");
    Refusal::Invalid { field: "worker_id".into(), problem: problem.into() }
}

/// What a node measures of itself; fed by the shell.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct NodeLoad {
    /// Of all its cores, 0 to 100.
    pub cpu_percent: Option<f64>,
    /// Resident memory of the node and its programs, MiB.
    pub memory_mb: Option<f64>,
    /// One-minute load average.
    pub load1: Option<f64>,
}

impl Node {
    /// Whether a worker like this could ever run a task of this class.
    fn suits(spec: &WorkerSpec, task_type: &str, need: &Requirements) -> bool {
        lack(spec, task_type, need).is_none()
    }

    pub(crate) fn feasible_workers(&self, task_type: &str, need: &Requirements) -> Vec<(NodeId, WorkerId)> {
        let mut found = Vec::new();
        if !self.draining {
            let own = self.workers.values().filter(|w| w.leaving.is_none() && Node::suits(&w.spec, task_type, need));
            found.extend(own.map(|w| (self.id, w.spec.worker.clone())));
        }
        for (node, member) in &self.members {
            if !self.live(*node) || member.draining {
                continue;
            }
            let suited = member.workers.values().filter(|s| Node::suits(&s.spec, task_type, need));
            found.extend(suited.map(|s| (*node, s.spec.worker.clone())));
        }
        found
    }

    /// Grants that a worker would take now, as far as this node can tell.
    pub(crate) fn room(&self, node: NodeId, worker: &WorkerId, need: &Requirements) -> u32 {
        if node == self.id {
            return self.workers.get(worker).map_or(0, |w| self.own_room(w, need));
        }
        let Some(seen) = self.seen(node, worker) else { return 0 };
        let fits = seen.spec.resources.is_none() || !need.hold_something() || seen.way_now(need).is_some();
        if fits && !seen.refuses(need, self.now) { seen.free } else { 0 }
    }

    fn own_room(&self, worker: &Worker, need: &Requirements) -> u32 {
        if self.draining || (need.hold_something() && worker.way_soon(need).is_none()) {
            return 0;
        }
        worker.free(self.config.prefetch)
    }

    /// What a task takes of the worker that it is granted to: what fits, or
    /// else what would.
    pub(crate) fn way_there(&self, node: NodeId, worker: &WorkerId, need: &Requirements) -> Resources {
        let (fitting, spec) = match (self.workers.get(worker), self.seen(node, worker)) {
            (Some(own), _) if node == self.id => (own.way_soon(need), &own.spec),
            (_, Some(seen)) => (seen.way_now(need), &seen.spec),
            (_, None) => return need.resources.clone(),
        };
        fitting.or_else(|| way(spec, need, |_| true)).unwrap_or_else(|| need.resources.clone())
    }

    /// How full a worker would be with `need`, in thousandths: of its slots, or
    /// of what it has least left of.
    pub(crate) fn load(&self, node: NodeId, worker: &WorkerId, need: &Resources) -> u64 {
        let of_slots = |taken: u64, slots: u32| taken * 1_000 / u64::from(slots.max(1));
        let of_resources =
            |spec: &WorkerSpec, held: &Resources| spec.resources.as_ref().map_or(0, |have| have.taken(held, need));
        if node == self.id {
            let Some(own) = self.workers.get(worker) else { return 0 };
            let taken = (own.running.len() + own.waiting.len()) as u64;
            return of_slots(taken, own.spec.slots).max(of_resources(&own.spec, &own.in_use));
        }
        let Some(seen) = self.seen(node, worker) else { return 0 };
        let taken = u64::from(seen.spec.slots.saturating_sub(seen.free));
        of_slots(taken, seen.spec.slots).max(of_resources(&seen.spec, &seen.held))
    }

    /// What keeps a feasible worker from taking a task now, as far as this node
    /// can tell.
    pub(crate) fn shortage(&self, node: NodeId, worker: &WorkerId, need: &Requirements) -> Option<Shortage> {
        if self.room(node, worker, need) > 0 {
            return None;
        }
        let (have, held, slots) = match (self.workers.get(worker), self.seen(node, worker)) {
            (Some(own), _) if node == self.id => {
                if let Some(task) = &own.reserved {
                    return Some(Shortage::Reserved(format!("keeps its room for {task}").into()));
                }
                (&own.spec.resources, &own.in_use, own.free(self.config.prefetch))
            }
            (_, Some(seen)) => (&seen.spec.resources, &seen.held, seen.free),
            (_, None) => return None,
        };
        if self.seen(node, worker).is_some_and(|seen| seen.refuses(need, self.now)) {
            return Some(Shortage::Resource("said that others hold too much of it".into()));
        }
        let wanted = self.way_there(node, worker, need);
        let short = have.as_ref().and_then(|have| have.short_of(held, &wanted));
        Some(match short {
            Some(short) => Shortage::Resource(format!("has {short} free").into()),
            None if slots == 0 => Shortage::Slot("has no free slot".into()),
            None => Shortage::Slot("starts others first".into()),
        })
    }

    /// Room of each worker of this node.
    pub(crate) fn free_now(&self) -> Vec<(WorkerId, u32)> {
        let free = |w: &Worker| if self.draining { 0 } else { w.free(self.config.prefetch) };
        self.workers.values().map(|w| (w.spec.worker.clone(), free(w))).collect()
    }

    /// Room of one worker of this node.
    pub(crate) fn free_of(&self, worker: &WorkerId) -> Vec<(WorkerId, u32)> {
        let Some(found) = self.workers.get(worker) else { return Vec::new() };
        vec![(worker.clone(), if self.draining { 0 } else { found.free(self.config.prefetch) })]
    }

    /// Why this node won't take a grant for `worker` now.
    pub(crate) fn objection(&self, worker: &WorkerId, need: &Requirements, ahead: Ahead) -> Option<Declined> {
        let Some(found) = self.workers.get(worker) else { return Some(Declined::NoWorker) };
        if self.draining || found.leaving.is_some() {
            return Some(Declined::NoWorker);
        }
        if self.controls.paused.is_some() {
            return Some(Declined::Paused);
        }
        // Owners know this worker's room only roughly: twice what is granted
        // ahead is tolerated before any of it is sent back.
        let most = u64::from(found.spec.slots) + 2 * found.ahead(self.config.prefetch);
        let taken = (found.running.len() + found.waiting.len()) as u64;
        let fits = match ahead {
            Ahead::KeepRoom => {
                way(&found.spec, need, |n| found.spec.resources.as_ref().is_none_or(|have| have.covers(n))).is_some()
            }
            Ahead::No => found.way_soon(need).is_some(),
        };
        let most = most + u64::from(ahead == Ahead::KeepRoom);
        (taken >= most || found.reserved.is_some() || !fits).then_some(Declined::Busy)
    }

    pub(crate) fn on_register(&mut self, origin: Origin, spec: WorkerSpec) {
        if let Err(refusal) = self.check_worker(&spec) {
            return self.answer(origin, Err(refusal));
        }
        if !self.workers.contains_key(&spec.worker) && self.live_members().next().is_some() {
            let worker = spec.worker.clone();
            return self.ask_who_has(origin, &worker, Command::Register(spec));
        }
        self.enlist(origin, spec);
    }

    /// What is to be done with a worker that this node does not know: its node
    /// may have registered it a moment ago, and have told nobody yet.
    pub(crate) fn ask_who_has(&mut self, origin: Origin, worker: &WorkerId, command: Command) {
        let query = Query::Worker { worker: worker.clone(), tasks: false };
        self.ask_everybody(origin, Request::Query(query), Some(command));
    }

    pub(crate) fn on_worker_found(&mut self, origin: Origin, node: NodeId, command: Command) {
        match command {
            Command::Register(spec) => self.answer(origin, Err(taken(&spec.worker, node))),
            command => self.forward(origin, node, Request::Command(command)),
        }
    }

    /// Makes, or changes, a worker of this node, if there is room by now.
    pub(crate) fn enlist(&mut self, origin: Origin, spec: WorkerSpec) {
        if let Err(refusal) = self.check_worker(&spec) {
            return self.answer(origin, Err(refusal));
        }
        let wall = self.wall();
        let at = self.workers.get(&spec.worker).map_or(wall, |w| w.registered_at);
        let worker = spec.worker.clone();
        self.persist(Entry::Worker(spec.clone(), at));
        match self.workers.get_mut(&worker) {
            Some(found) => {
                found.spec = spec;
                found.leaving = None;
            }
            None => {
                self.workers.insert(worker.clone(), Worker::new(spec, at));
            }
        }
        self.workers_changed_here();
        self.hand_back_unsuited(&worker);
        let peers = self.live_members().collect();
        self.answer(origin, Ok(Reply::Registered { worker, at, peers }));
    }

    fn check_worker(&self, spec: &WorkerSpec) -> Result<(), Refusal> {
        let invalid = |field: &str, problem: String| Refusal::Invalid { field: field.into(), problem: problem.into() };
        if spec.slots == 0 || spec.slots > limits::SLOTS {
            return Err(invalid(
                "max_concurrent_tasks",
                format!("must be 1 to {}, and is {}", limits::SLOTS, spec.slots),
            ));
        }
        if spec.capabilities.is_empty() || spec.capabilities.len() > limits::ATTRIBUTES {
            return Err(invalid("capabilities", format!("must be 1 to {} names", limits::ATTRIBUTES)));
        }
        if let Some(unknown) = spec.capabilities.iter().find(|c| !offers(&self.config.executors, c)) {
            let there = self.config.executors.join(", ");
            return Err(invalid("capabilities", format!("this node has no executor for {unknown}; it has: {there}")));
        }
        if !self.workers.contains_key(&spec.worker) && self.workers.len() >= limits::WORKERS {
            let limit = limits::WORKERS as u64;
            return Err(Refusal::Full { what: "this node's worker list".into(), limit, retry_after: Millis(60_000) });
        }
        let others = self.workers.values().map(|w| &w.spec).filter(|s| s.worker != spec.worker);
        let advert = others.map(WorkerSpec::bytes).sum::<usize>() + spec.bytes();
        if advert > limits::ANSWER_BYTES {
            let (got, limit) = (advert as u64, limits::ANSWER_BYTES as u64);
            return Err(Refusal::TooLarge { field: "metadata and labels of this node's workers".into(), got, limit });
        }
        let elsewhere = self.members.iter().find(|(_, m)| m.workers.contains_key(&spec.worker));
        match elsewhere {
            Some((node, _)) if self.live(*node) => Err(taken(&spec.worker, *node)),
            Some(_) | None => Ok(()),
        }
    }

    pub(crate) fn workers_changed_here(&mut self) {
        self.queue.workers_changed();
        self.account_changed();
    }

    /// What this node says of itself is out of date: it says it anew.
    pub(crate) fn account_changed(&mut self) {
        self.hello_version += 1;
        let members: Vec<_> = self.live_members().collect();
        for node in members {
            self.introduce(node);
        }
    }

    pub(crate) fn on_unregister(&mut self, origin: Origin, worker: WorkerId, graceful: bool, timeout: Millis) {
        let Some(found) = self.workers.get(&worker) else {
            let command = Command::Unregister { worker: worker.clone(), graceful, timeout };
            return self.forward_to_worker(origin, &worker, command);
        };
        let completed_before = found.completed + found.failed;
        let by = if graceful { self.now + timeout } else { self.now };
        let answer_by = self.now + UNREGISTER_WAIT;
        let found = self.workers.get_mut(&worker).expect("found above");
        match &mut found.leaving {
            Some(leaving) => {
                leaving.by = leaving.by.min(by);
                leaving.tell.push((origin, answer_by));
            }
            None => {
                found.leaving = Some(Leaving { by, completed_before, abandoned: 0, tell: vec![(origin, answer_by)] });
            }
        }
        self.workers_changed_here();
        self.hand_back_waiting(&worker);
        self.watch_leaving();
    }

    /// It was described anew: what it could never start any more goes elsewhere.
    fn hand_back_unsuited(&mut self, worker: &WorkerId) {
        let Some(found) = self.workers.get(worker) else { return };
        let unsuited = |task: &&TaskId| {
            let execution = self.executions.get(*task);
            execution.is_some_and(|e| !Node::suits(&found.spec, &e.spec.task_type, &e.spec.requirements))
        };
        let unsuited: Vec<_> = found.waiting.iter().filter(unsuited).cloned().collect();
        for task in unsuited {
            self.end_run(&task, Verdict::HandedBack, crate::task::Report::default());
        }
    }

    /// What was granted ahead, while runs were short, does not wait behind long ones.
    pub(crate) fn hand_back_stuck(&mut self) {
        let mut stuck = Vec::new();
        for found in self.workers.values_mut().filter(|w| w.running.len() >= w.spec.slots as usize) {
            let waited = |task: &TaskId| self.executions.get(task).map(|e| self.now.since(e.granted_at));
            let queued = found.waiting.iter().filter(|task| found.reserved.as_ref() != Some(task));
            let waits: Vec<_> = queued.filter(|task| waited(task) >= Some(STUCK)).cloned().collect();
            let longest = waits.iter().filter_map(waited).max();
            if let Some(longest) = longest {
                found.takes_longer(longest);
            }
            stuck.extend(waits);
        }
        for task in stuck {
            self.end_run(&task, Verdict::HandedBack, crate::task::Report::default());
        }
    }

    fn hand_back_waiting(&mut self, worker: &WorkerId) {
        let waiting: Vec<_> = self.workers[worker].waiting.iter().cloned().collect();
        if let Some(leaving) = self.workers.get_mut(worker).and_then(|w| w.leaving.as_mut()) {
            leaving.abandoned += waiting.len() as u64;
        }
        for task in waiting {
            self.end_run(&task, Verdict::HandedBack, crate::task::Report::default());
        }
    }

    /// Ends workers that have nothing left to do, or no time.
    pub(crate) fn watch_leaving(&mut self) {
        let leaving: Vec<_> =
            self.workers.iter().filter(|(_, w)| w.leaving.is_some()).map(|(id, _)| id.clone()).collect();
        for worker in leaving {
            let found = &self.workers[&worker];
            let plan = found.leaving.as_ref().expect("filtered");
            if found.running.is_empty() {
                self.remove_worker(&worker);
            } else if self.now >= plan.by {
                self.hand_back_running(&worker);
            } else {
                self.tell_draining(&worker);
            }
        }
    }

    fn hand_back_running(&mut self, worker: &WorkerId) {
        let running: Vec<_> = self.workers[worker].running.iter().cloned().collect();
        let mut handed = 0;
        for task in running {
            handed += u64::from(self.hand_back(&task));
        }
        if let Some(leaving) = self.workers.get_mut(worker).and_then(|w| w.leaving.as_mut()) {
            leaving.abandoned += handed;
        }
    }

    fn tell_draining(&mut self, worker: &WorkerId) {
        let now = self.now;
        let at = self.wall();
        let found = self.workers.get_mut(worker).expect("a leaving worker");
        let ended = found.completed + found.failed;
        let leaving = found.leaving.as_mut().expect("a leaving worker");
        let (completed, abandoned) = (ended - leaving.completed_before, leaving.abandoned);
        let late: Vec<_> = leaving.tell.extract_if(.., |(_, by)| now >= *by).collect();
        for (origin, _) in late {
            let worker = worker.clone();
            self.answer(origin, Ok(Reply::Unregistered { worker, gone: false, at, completed, abandoned }));
        }
    }

    fn remove_worker(&mut self, worker: &WorkerId) {
        let Some(found) = self.workers.remove(worker) else { return };
        let Some(leaving) = found.leaving else { return };
        self.erase(Key::Worker(worker.clone()));
        self.workers_changed_here();
        let at = self.wall();
        let completed = found.completed + found.failed - leaving.completed_before;
        for (origin, _) in leaving.tell {
            let (worker, abandoned) = (worker.clone(), leaving.abandoned);
            self.answer(origin, Ok(Reply::Unregistered { worker, gone: true, at, completed, abandoned }));
        }
    }

    pub(crate) fn worker_view(&self, worker: &WorkerId, tasks: bool) -> Option<WorkerView> {
        if let Some(found) = self.workers.get(worker) {
            return Some(self.own_worker_view(found, tasks));
        }
        let (node, seen) = self.members.iter().find_map(|(n, m)| Some((*n, m.workers.get(worker)?)))?;
        Some(self.seen_worker_view(node, seen))
    }

    pub(crate) fn worker_views(&self) -> Vec<WorkerView> {
        let own = self.workers.values().map(|w| self.own_worker_view(w, false));
        let others = self.members.iter().flat_map(|(n, m)| m.workers.values().map(|s| self.seen_worker_view(*n, s)));
        own.chain(others).collect()
    }

    pub(crate) fn own_worker_views(&self) -> Vec<WorkerView> {
        self.workers.values().map(|w| self.own_worker_view(w, false)).collect()
    }

    fn own_worker_view(&self, worker: &Worker, tasks: bool) -> WorkerView {
        let running = u32::try_from(worker.running.len()).unwrap_or(u32::MAX);
        let status = match running {
            _ if self.draining || worker.leaving.is_some() => WorkerStatus::Draining,
            0 => WorkerStatus::Idle,
            n if n >= worker.spec.slots => WorkerStatus::Busy,
            _ => WorkerStatus::Active,
        };
        WorkerView {
            worker: worker.spec.worker.clone(),
            node: self.id,
            status,
            capabilities: worker.spec.capabilities.clone(),
            labels: worker.spec.labels.clone(),
            resources: worker.spec.resources.clone(),
            slots: worker.spec.slots,
            running: Some(running),
            free: Some(worker.free(self.config.prefetch)),
            completed: Some(worker.completed),
            failed: Some(worker.failed),
            last_seen: Some(self.wall()),
            tasks: tasks.then(|| worker.running.iter().chain(&worker.waiting).take(limits::PAGE).cloned().collect()),
            load: Some(self.load),
        }
    }

    fn seen_worker_view(&self, node: NodeId, seen: &Seen) -> WorkerView {
        let member = &self.members[&node];
        let status = match seen.free {
            _ if !self.live(node) => WorkerStatus::Offline,
            _ if member.draining => WorkerStatus::Draining,
            0 => WorkerStatus::Busy,
            _ => WorkerStatus::Active,
        };
        WorkerView {
            worker: seen.spec.worker.clone(),
            node,
            status,
            capabilities: seen.spec.capabilities.clone(),
            labels: seen.spec.labels.clone(),
            resources: seen.spec.resources.clone(),
            slots: seen.spec.slots,
            running: None,
            free: None,
            completed: None,
            failed: None,
            last_seen: member.seen_at(self.now, self.wall()),
            tasks: None,
            load: None,
        }
    }

    /// Runs of this node in one of its workers, by phase.
    pub(crate) fn starts_next(&self, worker: &WorkerId) -> Option<(TaskId, Resources)> {
        if self.controls.paused.is_some() {
            return None;
        }
        let found = self.workers.get(worker)?;
        let task = found.waiting.front()?;
        let execution = self.executions.get(task)?;
        debug_assert!(matches!(execution.phase, Phase::Waiting));
        Some((task.clone(), found.way_now(&execution.spec.requirements)?))
    }

    /// Leases of this node's own records in `node`'s workers.
    pub(crate) fn leases_in(&self, node: NodeId) -> Vec<TaskId> {
        let here = |task: &&TaskId| {
            let state = &self.kept[*task].slot.record.body.state;
            matches!(state, TaskState::Leased { executor, .. } if *executor == node)
        };
        self.leased.iter().filter(here).cloned().collect()
    }
}
