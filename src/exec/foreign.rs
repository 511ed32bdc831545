//! Runs that a program outside of the mesh does: the desk where such a run
//! waits until its worker claims it, and where its lease is watched.
//!
//! A claim hands out a secret with each run. Whoever shows that secret, or is
//! the peer that claimed, holds the lease: may extend it, end the run, or give
//! it back. A run that nobody claims, and one whose lease is over, is handed
//! back to the mesh, which is not counted against its task.

use super::{End, How, Link, RawReport};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use taskmesh_core::{Fence, Spec, TaskId, WorkerId};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

/// What the names of the workers of foreign programs begin with.
pub const PREFIX: &str = "foreign:";
/// How long a run waits for its worker to claim it.
const UNCLAIMED: Duration = Duration::from_secs(5);
/// Ended leases that are remembered, so that their holders may repeat what
/// they said.
const REMEMBERED: usize = 4_096;

/// The runs of foreign programs on this node. Cheap to clone.
#[derive(Clone, Default)]
pub struct Desk {
    table: Arc<Mutex<Table>>,
    bell: Arc<Notify>,
}

#[derive(Default)]
struct Table {
    runs: HashMap<TaskId, Run>,
    over: VecDeque<Over>,
    next: u64,
}

/// One run, waiting or claimed.
struct Run {
    number: u64,
    worker: WorkerId,
    link: Link,
    until: Instant,
    lease: Option<Lease>,
    end: oneshot::Sender<End>,
}

struct Lease {
    secret: Arc<str>,
    holder: Arc<str>,
    /// From each sign of its holder.
    span: Duration,
    /// The task's own timeout, if it has one.
    time_out_at: Option<Instant>,
}

struct Over {
    task: TaskId,
    attempt: u32,
    secret: Arc<str>,
    holder: Arc<str>,
}

/// Who claims, and how.
#[derive(Clone, Debug)]
pub struct Claimant {
    /// For this worker.
    pub worker: WorkerId,
    /// Tasks of these types.
    pub types: Vec<Arc<str>>,
    /// At most so many.
    pub most: usize,
    /// The peer that claims.
    pub holder: Arc<str>,
    /// How long each lease holds without a sign of its holder.
    pub span: Duration,
}

/// A run that was claimed.
#[derive(Clone, Debug)]
pub struct Claimed {
    /// Of which task.
    pub task: TaskId,
    /// Under which grant.
    pub fence: Fence,
    /// What to do.
    pub spec: Arc<Spec>,
    /// What its holder shows.
    pub secret: Arc<str>,
    /// How long it holds without a sign of its holder.
    pub span: Duration,
}

/// What somebody shows to be the holder of a lease.
#[derive(Clone, Copy, Debug)]
pub struct Proof<'a> {
    /// Of which task.
    pub task: &'a TaskId,
    /// The secret of the claim.
    pub secret: Option<&'a str>,
    /// The peer that says it.
    pub peer: &'a str,
}

/// Why a proof is worth nothing; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// There is no lease: it was never claimed here, or it is over.
    #[error("no such lease here: it was not claimed at this node, or it ran out and the task was handed back")]
    NoLease,
    /// Somebody else has it.
    #[error("the lease has another holder: show the lease of the claim, or come as the peer that claimed")]
    NotHolder,
}

/// What ended a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// This, now.
    Now(u32),
    /// The same holder, before.
    Before(u32),
}

impl Desk {
    /// Whether a worker is that of a foreign program.
    #[must_use]
    pub fn is_foreign(worker: &WorkerId) -> bool {
        worker.as_str().starts_with(PREFIX)
    }

    /// Takes a run and stays with it to its end.
    pub(super) async fn attend(self, link: Link, worker: WorkerId) -> End {
        let (end, ended) = oneshot::channel();
        let (task, mut halt) = (link.task.clone(), link.clone());
        let number = self.put(link, worker, end);
        let mut ended = std::pin::pin!(ended);
        // Taken out of the table: its end is on the way, unless a newer grant
        // of the task has replaced it.
        while let Some(until) = self.until(&task, number) {
            tokio::select! {
                biased;
                end = &mut ended => return end.unwrap_or_else(|_| left(How::HandedBack)),
                _ = halt.halted(None) => {
                    self.table().take(&task, number);
                    return left(How::Halted);
                }
                () = tokio::time::sleep_until(until) => {
                    if let Some(how) = self.table().expire(&task, number) {
                        return left(how);
                    }
                }
            }
        }
        ended.await.unwrap_or_else(|_| left(How::HandedBack))
    }

    fn put(&self, link: Link, worker: WorkerId, end: oneshot::Sender<End>) -> u64 {
        let mut table = self.table();
        table.next += 1;
        let number = table.next;
        let task = link.task.clone();
        let run = Run { number, worker, link, until: Instant::now() + UNCLAIMED, lease: None, end };
        table.runs.insert(task, run);
        drop(table);
        self.bell.notify_waiters();
        number
    }

    /// Hands runs that wait for `claimant` to it, the oldest first.
    #[must_use]
    pub fn claim(&self, claimant: &Claimant) -> Vec<Claimed> {
        let mut table = self.table();
        let mut waiting: Vec<_> = table.runs.values_mut().filter(|run| run.waits_for(claimant)).collect();
        waiting.sort_by_key(|run| run.number);
        waiting.truncate(claimant.most);
        waiting.into_iter().filter_map(|run| run.hand_to(claimant)).collect()
    }

    /// Rings when a run has come that may be claimed.
    pub fn bell(&self) -> impl Future<Output = ()> + '_ {
        self.bell.notified()
    }

    /// A sign of the holder: the lease holds for its span from now.
    ///
    /// # Errors
    /// There is no such lease, or another has it.
    pub fn extend(&self, proof: &Proof<'_>) -> Result<Duration, Denied> {
        let mut table = self.table();
        let lease = table.held(proof)?;
        let span = lease.lease.as_ref().map_or(UNCLAIMED, |lease| lease.span);
        lease.extend();
        Ok(span)
    }

    /// A sign of the holder for all its leases in `worker`, or in any.
    pub fn extend_all(&self, worker: Option<&WorkerId>, peer: &str) -> usize {
        let mut table = self.table();
        let mine = |run: &&mut Run| {
            worker.is_none_or(|worker| *worker == run.worker)
                && run.lease.as_ref().is_some_and(|lease| *lease.holder == *peer)
        };
        table.runs.values_mut().filter(mine).map(Run::extend).count()
    }

    /// Ends a run as its holder says. What was said before by the same holder
    /// is not said again. Returns the attempt that it was.
    ///
    /// # Errors
    /// There is no such lease, or another has it.
    pub fn finish(&self, proof: &Proof<'_>, end: End) -> Result<Finish, Denied> {
        let mut table = self.table();
        match table.held(proof) {
            Ok(_) => {}
            Err(Denied::NoLease) => return table.finished_before(proof),
            Err(denied) => return Err(denied),
        }
        let Some(run) = table.runs.remove(proof.task) else { return Err(Denied::NoLease) };
        let attempt = run.link.fence.attempt;
        if let Some(lease) = run.lease {
            if table.over.len() >= REMEMBERED {
                table.over.pop_front();
            }
            let Lease { secret, holder, .. } = lease;
            table.over.push_back(Over { task: proof.task.clone(), attempt, secret, holder });
        }
        // The run may be over meanwhile, which its asker sees in the task.
        let _ = run.end.send(end);
        Ok(Finish::Now(attempt))
    }

    /// Runs of a worker that are claimed.
    #[must_use]
    pub fn leases(&self, worker: &WorkerId) -> usize {
        self.table().runs.values().filter(|run| run.worker == *worker && run.lease.is_some()).count()
    }

    fn until(&self, task: &TaskId, number: u64) -> Option<Instant> {
        self.table().runs.get(task).filter(|run| run.number == number).map(|run| run.until)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn take(&mut self, task: &TaskId, number: u64) -> Option<Run> {
        if self.runs.get(task)?.number != number {
            return None;
        }
        self.runs.remove(task)
    }

    /// Ends a run whose time is over; `None`: it got more time meanwhile.
    fn expire(&mut self, task: &TaskId, number: u64) -> Option<How> {
        let now = Instant::now();
        if self.runs.get(task).is_some_and(|run| run.number == number && now < run.until) {
            return None;
        }
        let run = self.take(task, number)?;
        let timed_out = run.lease.and_then(|lease| lease.time_out_at).is_some_and(|at| now >= at);
        Some(if timed_out { How::TimedOut } else { How::HandedBack })
    }

    fn held(&mut self, proof: &Proof<'_>) -> Result<&mut Run, Denied> {
        let run = self.runs.get_mut(proof.task).ok_or(Denied::NoLease)?;
        let lease = run.lease.as_ref().ok_or(Denied::NoLease)?;
        if holds(proof, &lease.secret, &lease.holder) { Ok(run) } else { Err(Denied::NotHolder) }
    }

    fn finished_before(&self, proof: &Proof<'_>) -> Result<Finish, Denied> {
        let mine = |over: &&Over| over.task == *proof.task && holds(proof, &over.secret, &over.holder);
        self.over.iter().rev().find(mine).map(|over| Finish::Before(over.attempt)).ok_or(Denied::NoLease)
    }
}

impl Run {
    fn waits_for(&self, claimant: &Claimant) -> bool {
        self.lease.is_none() && self.worker == claimant.worker && claimant.types.contains(&self.link.spec.task_type)
    }

    fn hand_to(&mut self, claimant: &Claimant) -> Option<Claimed> {
        let secret: Arc<str> = secret()?.into();
        let timeout = self.link.spec.timeout.map(|timeout| Duration::from_millis(timeout.0));
        let lease = Lease {
            secret: secret.clone(),
            holder: claimant.holder.clone(),
            span: claimant.span,
            time_out_at: timeout.and_then(|timeout| Instant::now().checked_add(timeout)),
        };
        self.lease = Some(lease);
        self.extend();
        self.link.started();
        let Link { task, fence, spec, .. } = self.link.clone();
        Some(Claimed { task, fence, spec, secret, span: claimant.span })
    }

    fn extend(&mut self) {
        if let Some(lease) = &self.lease {
            let until = Instant::now() + lease.span;
            self.until = lease.time_out_at.map_or(until, |at| until.min(at));
        }
    }
}

/// Secrets are compared by their hashes: how long that takes tells nothing.
fn holds(proof: &Proof<'_>, secret: &str, holder: &str) -> bool {
    match proof.secret {
        Some(shown) => blake3::hash(shown.as_bytes()) == blake3::hash(secret.as_bytes()),
        None => proof.peer == holder,
    }
}

/// 128 bits in hexadecimal; `None`: the system has no randomness now.
fn secret() -> Option<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).ok()?;
    Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn left(how: How) -> End {
    End { how, report: RawReport::default() }
}
