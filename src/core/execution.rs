//! Runs on this node: what an executor reports, and how its node holds a run
//! until the result is safe with others.

use crate::effect::{Effect, Notice};
use crate::ids::{BlobHash, NodeId, TaskId, WorkerId};
use crate::message::{Declined, Finished, Grant, Message};
use crate::node::Node;
use crate::record::Fence;
use crate::task::{Report, Resources, Spec};
use crate::time::Millis;
use crate::workers::Ahead;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// What an executor says of a run.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "an end comes once a run, and is taken apart at once")]
pub enum Event {
    /// The run has begun.
    Started,
    /// Something to tell while it runs; at most one a second.
    Progress {
        /// Percent.
        percent: Option<u8>,
        /// A line for people.
        message: Option<Arc<str>>,
        /// Tail of the log, at most [`crate::limits::LOG_TAIL_BYTES`].
        log_tail: Option<Arc<[u8]>>,
    },
    /// The run is over, and so is every process of it.
    Ended {
        /// How it went.
        verdict: Verdict,
        /// What it left.
        report: Report,
    },
}

/// How a run went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Well.
    Completed,
    /// Not well.
    Failed {
        /// For people.
        error: Arc<str>,
        /// Another attempt may do better.
        retryable: bool,
    },
    /// It ran into its timeout and was ended.
    TimedOut {
        /// The timeout.
        after: Millis,
    },
    /// It was asked to stop.
    Stopped,
    /// Its node handed it back (drain, disconnect): not the task's fault.
    HandedBack,
}

impl Verdict {
    /// A fixed word for it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Verdict::Completed => "completed",
            Verdict::Failed { .. } => "failed",
            Verdict::TimedOut { .. } => "timed_out",
            Verdict::Stopped => "stopped",
            Verdict::HandedBack => "handed_back",
        }
    }
}

/// A granted task on its executor.
#[derive(Clone, Debug)]
pub struct Execution {
    /// Under which grant; the owner in it may change, the attempt does not.
    pub fence: Fence,
    /// In which worker.
    pub worker: WorkerId,
    /// What.
    pub spec: Arc<Spec>,
    /// Whom to tell the result.
    holders: Vec<NodeId>,
    pub(crate) granted_at: Millis,
    /// What it holds of its worker while it runs.
    holds: Resources,
    /// How far it is.
    pub phase: Phase,
    /// Its owner was told that it has started.
    reported: bool,
    /// It is being ended for no fault of its own.
    handing_back: bool,
}

/// How far a run is.
#[derive(Clone, Debug)]
pub enum Phase {
    /// For a slot.
    Waiting,
    /// Since then.
    Running {
        /// By this node's clock.
        since: Millis,
    },
    /// Until its owner says that the result is safe.
    Ended {
        /// What is told.
        finished: Box<Finished>,
        /// Told last at.
        sent_at: Millis,
        /// How often.
        tries: u32,
        /// When it began.
        began: Option<Millis>,
    },
}

impl Execution {
    /// Whether its report names this blob.
    pub(crate) fn refers_to(&self, hash: BlobHash) -> bool {
        match &self.phase {
            Phase::Ended { finished, .. } => finished.report.blobs().any(|(h, _)| h == hash),
            Phase::Waiting | Phase::Running { .. } => false,
        }
    }
}

/// How long a node remembers runs that are over.
const REMEMBERED: Millis = Millis(600_000);
/// How many of them.
const REMEMBERED_RUNS: usize = 50_000;
/// How often an end is told that nobody confirms (about ten minutes): then
/// its task is over and forgotten, or will be granted anew.
const TRIES: u32 = 80;

/// Runs that are over and settled, so that a late grant can't repeat them.
#[derive(Default)]
pub(crate) struct Over {
    runs: BTreeMap<TaskId, (Fence, Millis)>,
    by_age: VecDeque<(Millis, TaskId)>,
}

impl Over {
    fn covers(&self, task: &TaskId, fence: Fence) -> bool {
        self.runs.get(task).is_some_and(|(over, _)| over.attempt >= fence.attempt)
    }

    fn add(&mut self, task: TaskId, fence: Fence, now: Millis) {
        let before = self.runs.get(&task).map(|(over, _)| *over).filter(|over| over.attempt > fence.attempt);
        let fence = before.unwrap_or(fence);
        self.by_age.push_back((now, task.clone()));
        self.runs.insert(task, (fence, now));
        if self.by_age.len() > REMEMBERED_RUNS {
            self.drop_oldest();
        }
    }

    fn drop_old(&mut self, now: Millis) {
        while self.by_age.front().is_some_and(|(at, _)| now.since(*at) > REMEMBERED) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let Some((at, task)) = self.by_age.pop_front() else { return };
        // A later run of the same task stays.
        if self.runs.get(&task).is_some_and(|(_, newest)| *newest == at) {
            self.runs.remove(&task);
        }
    }
}

impl Node {
    pub(crate) fn on_grant(&mut self, from: NodeId, grant: Grant) {
        let fence = grant.fence;
        // An owner that took the task over need not have met this node before.
        let same = |e: &Execution| e.fence.attempt == fence.attempt && e.spec == grant.spec;
        let runs = self.executions.get(&grant.task).is_some_and(same);
        if grant.boot != self.boot && !runs || self.over.covers(&grant.task, fence) {
            self.decline(from, grant.task, fence, Declined::Restarted);
            return;
        }
        if let Some(execution) = self.executions.get_mut(&grant.task)
            && execution.spec != grant.spec
        {
            // Another task of the same id, of a time when nodes could not see
            // each other: one at a time.
            if !matches!(execution.phase, Phase::Ended { .. }) {
                let (task, why, free) = (grant.task, Declined::Busy, Vec::new());
                return self.send(from, Message::Decline { task, fence, why, free });
            }
            self.supersede(&grant.task);
        }
        if let Some(execution) = self.executions.get_mut(&grant.task) {
            if execution.fence.attempt > fence.attempt {
                return;
            }
            if execution.fence.attempt == fence.attempt {
                if fence > execution.fence {
                    execution.fence = fence;
                    execution.holders = grant.holders;
                }
                self.answer_repeated_grant(from, &grant.task);
                return;
            }
        }
        self.supersede(&grant.task);
        let ahead = if grant.ahead { Ahead::KeepRoom } else { Ahead::No };
        if let Some(why) = self.objection(&grant.worker, &grant.spec.requirements, ahead) {
            self.decline(from, grant.task, fence, why);
            return;
        }
        let task = grant.task;
        let (worker, spec) = (grant.worker.clone(), grant.spec.clone());
        let execution = Execution {
            fence,
            worker: grant.worker,
            spec: grant.spec,
            holders: grant.holders,
            granted_at: self.now,
            holds: Resources::default(),
            phase: Phase::Waiting,
            reported: false,
            handing_back: false,
        };
        self.executions.insert(task.clone(), execution);
        if let Some(found) = self.workers.get_mut(&worker) {
            found.await_slot(task, &spec.requirements);
        }
        self.start_waiting(&worker);
    }

    fn decline(&mut self, to: NodeId, task: TaskId, fence: Fence, why: Declined) {
        let free = self.free_now();
        self.send(to, Message::Decline { task, fence, why, free });
    }

    fn answer_repeated_grant(&mut self, from: NodeId, task: &TaskId) {
        let execution = self.executions.get_mut(task).expect("found by the caller");
        let message = match &mut execution.phase {
            Phase::Ended { finished, .. } => {
                finished.fence = execution.fence;
                Message::Finished(finished.clone())
            }
            Phase::Waiting => progress(task, execution.fence, None),
            Phase::Running { since } => {
                execution.reported = true;
                progress(task, execution.fence, Some(self.now.since(*since)))
            }
        };
        self.send(from, message);
    }

    pub(crate) fn start_waiting(&mut self, worker: &WorkerId) {
        while let Some((task, holds)) = self.starts_next(worker) {
            let now = self.now;
            let execution = self.executions.get_mut(&task).expect("a waiting task is held");
            execution.holds = holds.clone();
            execution.phase = Phase::Running { since: now };
            let (fence, spec) = (execution.fence, execution.spec.clone());
            let (attempt, waited) = (fence.attempt, now.since(execution.granted_at));
            let found = self.workers.get_mut(worker).expect("its worker is here");
            found.waiting.pop_front();
            found.begin(task.clone(), &holds);
            let task_type = spec.task_type.clone();
            self.notice(Notice::TaskStarted { task: task.clone(), task_type, attempt, waited });
            self.out.push(Effect::Run { task, fence, worker: worker.clone(), spec });
            self.flush_soon();
        }
        if !self.announcers.is_empty() && self.free_of(worker).iter().any(|(_, free)| *free > 0) {
            self.tell_announcers();
        }
    }

    /// Tells owners of runs that go on for a while that they have started.
    pub(crate) fn report_runs(&mut self) {
        let mut reports = Vec::new();
        for worker in self.workers.values() {
            for task in &worker.running {
                let Some(execution) = self.executions.get_mut(task) else { continue };
                if let Phase::Running { since } = execution.phase
                    && !execution.reported
                {
                    execution.reported = true;
                    let running = Some(self.now.since(since));
                    reports.push((execution.fence.ballot.owner, progress(task, execution.fence, running)));
                }
            }
        }
        for (owner, message) in reports {
            self.send(owner, message);
        }
    }

    pub(crate) fn on_execution(&mut self, task: &TaskId, fence: Fence, event: Event) {
        let Some(execution) = self.executions.get(task) else { return };
        let Phase::Running { since } = execution.phase else { return };
        if execution.fence.attempt != fence.attempt {
            return;
        }
        match event {
            Event::Started => {}
            Event::Progress { percent, message, log_tail } => {
                let (owner, fence) = (execution.fence.ballot.owner, execution.fence);
                let running = Some(self.now.since(since));
                let task = task.clone();
                self.send(owner, Message::Progress { task, fence, running, percent, message, log_tail });
            }
            Event::Ended { verdict, report } => {
                let verdict =
                    if execution.handing_back && verdict == Verdict::Stopped { Verdict::HandedBack } else { verdict };
                for (hash, _) in report.blobs() {
                    self.blobs.entry(hash).or_insert(0);
                }
                self.end_run(task, verdict, report);
            }
        }
    }

    /// A run is over: free its slot and tell its owner.
    pub(crate) fn end_run(&mut self, task: &TaskId, verdict: Verdict, report: Report) {
        let now = self.now;
        let Some(execution) = self.executions.get_mut(task) else { return };
        let began = match &execution.phase {
            Phase::Waiting => None,
            Phase::Running { since } => Some(*since),
            Phase::Ended { .. } => return,
        };
        let (worker, spec, holds) = (execution.worker.clone(), execution.spec.clone(), execution.holds.clone());
        let attempt = execution.fence.attempt;
        if let Some(found) = self.workers.get_mut(&worker) {
            if began.is_none() {
                found.withdraw(task);
            }
            found.end(task, &holds);
            match verdict {
                Verdict::Completed => found.completed += 1,
                Verdict::Failed { .. } | Verdict::TimedOut { .. } => found.failed += 1,
                Verdict::Stopped | Verdict::HandedBack => {}
            }
            if let Some(began) = began {
                // By the executor's own clock where it has one: this node's
                // includes what else it did meanwhile.
                found.measured(report.usage.wall.unwrap_or(now.since(began)));
            }
        }
        if let Some(began) = began {
            let (task_type, ran) = (spec.task_type.clone(), now.since(began));
            self.notice(Notice::RunEnded { task: task.clone(), task_type, attempt, verdict: verdict.name(), ran });
        }
        self.start_waiting(&worker);
        self.tell_end(task, verdict, report, began);
        self.queue.stir();
    }

    fn tell_end(&mut self, task: &TaskId, verdict: Verdict, report: Report, began: Option<Millis>) {
        let now = self.now;
        let execution = self.executions.get(task).expect("ended above");
        let free = self.free_of(&execution.worker);
        let fence = execution.fence;
        let started = began.map(|b| now.since(b));
        let finished = Box::new(Finished { task: task.clone(), fence, verdict, report, started, free });
        let phase = Phase::Ended { finished: finished.clone(), sent_at: now, tries: 0, began };
        let execution = self.executions.get_mut(task).expect("ended above");
        execution.phase = phase;
        let targets = if self.live(fence.ballot.owner) {
            vec![fence.ballot.owner]
        } else {
            self.executions[task].holders.clone()
        };
        for node in targets {
            self.send(node, Message::Finished(finished.clone()));
        }
    }

    /// Tells ends again that nobody has confirmed, now to every holder.
    pub(crate) fn resend_results(&mut self) {
        let now = self.now;
        let mut again = Vec::new();
        let mut unheard = Vec::new();
        for (task, execution) in &mut self.executions {
            let Phase::Ended { finished, sent_at, tries, began } = &mut execution.phase else { continue };
            let wait = self.config.retransmit.0.saturating_mul(1 << (*tries).min(4));
            if now.since(*sent_at).0 < wait {
                continue;
            }
            *sent_at = now;
            *tries += 1;
            if *tries > TRIES {
                unheard.push((task.clone(), execution.fence));
                continue;
            }
            finished.fence = execution.fence;
            finished.started = began.map(|b| now.since(b));
            let owner = execution.fence.ballot.owner;
            let others = execution.holders.iter().copied().filter(|n| *n != owner);
            again.push((std::iter::once(owner).chain(others).collect::<Vec<_>>(), finished.clone()));
        }
        for (task, fence) in unheard {
            self.on_settled(&task, fence);
        }
        for (nodes, finished) in again {
            for node in nodes {
                self.send(node, Message::Finished(finished.clone()));
            }
        }
        self.over.drop_old(now);
        self.watch_leaving();
    }

    pub(crate) fn on_settled(&mut self, task: &TaskId, fence: Fence) {
        let Some(execution) = self.executions.get(task) else { return };
        if execution.fence.attempt > fence.attempt {
            return;
        }
        self.drop_run(task);
        let now = self.now;
        self.over.add(task.clone(), fence, now);
    }

    /// Another grant takes the place of a run, whose own never runs again.
    fn supersede(&mut self, task: &TaskId) {
        let Some(fence) = self.executions.get(task).map(|e| e.fence) else { return };
        self.drop_run(task);
        let now = self.now;
        self.over.add(task.clone(), fence, now);
    }

    /// Forgets a run, and ends it if it goes on.
    fn drop_run(&mut self, task: &TaskId) {
        let Some(execution) = self.executions.remove(task) else { return };
        if let Some(found) = self.workers.get_mut(&execution.worker) {
            if matches!(execution.phase, Phase::Waiting) {
                found.withdraw(task);
            }
            found.end(task, &execution.holds);
        }
        match &execution.phase {
            Phase::Waiting => {}
            Phase::Running { .. } => {
                self.out.push(Effect::Stop { task: task.clone(), fence: execution.fence, force: true });
            }
            Phase::Ended { finished, .. } => {
                for (hash, _) in finished.report.blobs() {
                    self.drop_blob_if_unused(hash);
                }
            }
        }
        self.start_waiting(&execution.worker);
    }

    /// Nothing of what runs here is anybody's any more.
    pub(crate) fn stop_all_runs(&mut self) {
        let waits = |e: &Execution| matches!(e.phase, Phase::Waiting);
        let (waiting, others): (Vec<_>, Vec<_>) = self.executions.iter().partition(|(_, e)| waits(e));
        let all: Vec<_> = waiting.into_iter().chain(others).map(|(task, _)| task.clone()).collect();
        all.iter().for_each(|task| self.drop_run(task));
    }

    /// A record that ended elsewhere: a run of it here has no purpose.
    pub(crate) fn drop_run_of_ended(&mut self, task: &TaskId) {
        let unended = |e: &Execution| !matches!(e.phase, Phase::Ended { .. });
        if let Some(execution) = self.executions.get(task)
            && unended(execution)
        {
            let fence = execution.fence;
            self.drop_run(task);
            let now = self.now;
            self.over.add(task.clone(), fence, now);
        }
    }

    pub(crate) fn on_stop(&mut self, task: &TaskId, fence: Fence, force: bool) {
        let Some(execution) = self.executions.get(task) else { return };
        if execution.fence.attempt != fence.attempt {
            return;
        }
        match &execution.phase {
            Phase::Waiting => self.end_run(task, Verdict::Stopped, Report::default()),
            Phase::Running { .. } => {
                let fence = execution.fence;
                self.out.push(Effect::Stop { task: task.clone(), fence, force });
            }
            Phase::Ended { .. } => {}
        }
    }

    /// Ends a run for no fault of its own; false if there is none to end.
    pub(crate) fn hand_back(&mut self, task: &TaskId) -> bool {
        let Some(execution) = self.executions.get_mut(task) else { return false };
        match execution.phase {
            Phase::Waiting => self.end_run(task, Verdict::HandedBack, Report::default()),
            Phase::Running { .. } => {
                let repeated = std::mem::replace(&mut execution.handing_back, true);
                let fence = execution.fence;
                self.out.push(Effect::Stop { task: task.clone(), fence, force: repeated });
                return !repeated;
            }
            Phase::Ended { .. } => return false,
        }
        true
    }

    pub(crate) fn on_drain(&mut self) {
        if self.draining {
            return;
        }
        self.draining = true;
        self.workers_changed_here();
        self.beat_now();
        let waiting: Vec<_> = self
            .executions
            .iter()
            .filter(|(_, e)| matches!(e.phase, Phase::Waiting))
            .map(|(task, _)| task.clone())
            .collect();
        for task in waiting {
            self.hand_back(&task);
        }
    }

    pub(crate) fn on_hand_back(&mut self) {
        self.on_drain();
        let running: Vec<_> = self.executions.keys().cloned().collect();
        for task in running {
            self.hand_back(&task);
        }
    }

    /// Nothing runs here, and every end was confirmed: a draining node may stop.
    #[must_use]
    pub fn idle(&self) -> bool {
        self.executions.is_empty()
    }

    pub(crate) fn on_announce(&mut self, from: NodeId, ready: &[(Arc<str>, u32)]) {
        let now = self.now;
        let free = self.free_now();
        let able = |worker: &WorkerId| {
            let capabilities = &self.workers[worker].spec.capabilities;
            ready.iter().any(|(task_type, _)| crate::queue::offers(capabilities, task_type))
        };
        if !free.iter().any(|(worker, _)| able(worker)) {
            return;
        }
        if free.iter().any(|(worker, n)| *n > 0 && able(worker)) {
            self.send(from, Message::Room { free });
        } else if self.announcers.len() < 64 {
            self.announcers.insert(from, now);
        }
    }

    fn tell_announcers(&mut self) {
        let now = self.now;
        let free = self.free_now();
        for (node, at) in std::mem::take(&mut self.announcers) {
            if now.since(at) < Millis(2_000) {
                self.send(node, Message::Room { free: free.clone() });
            }
        }
    }
}

fn progress(task: &TaskId, fence: Fence, running: Option<Millis>) -> Message {
    Message::Progress { task: task.clone(), fence, running, percent: None, message: None, log_tail: None }
}
