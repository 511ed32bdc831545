//! Programs outside of the mesh that work for it, through a face of this node.
//!
//! A claim makes its program a worker of this node, with the task types that it
//! named; the mesh grants to it as to any other, and the fences stay in here.
//! The worker goes when its program has not asked for a while. What it still
//! holds goes on under its leases.

use super::handle::Handle;
use crate::exec::foreign::{Claimant, Claimed, Denied, Desk, Finish, PREFIX, Proof};
use crate::exec::{End, How, RawReport};
use futures::FutureExt as _;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use taskmesh_core::command::{Command, Detail, Query, WorkerSpec};
use taskmesh_core::view::{Status, TaskView};
use taskmesh_core::{Millis, Refusal, Reply, Request, TaskId, WorkerId, limits};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use crate::exec::foreign::Proof as LeaseProof;

/// A worker whose program has not asked for so long gets no more grants.
const AWAKE: Duration = Duration::from_secs(10);
/// The longest that a claim waits for work; less than [`AWAKE`].
const CLAIM_WAIT: Duration = Duration::from_secs(5);
/// Runs that one foreign worker may hold.
const SLOTS: usize = 64;
/// Task types that a claim may name.
const TYPES: usize = 32;
/// How long an end is waited for until the mesh has it.
const SETTLE: Millis = Millis(30_000);
/// One look at a task whose end is waited for.
const LOOK: Millis = Millis(250);
/// A worker that goes keeps its leases for so long.
const FAREWELL: Millis = Millis(24 * 3_600_000);
/// Of the node in the names of its foreign workers: tells nodes apart.
const NODE_MARK: usize = 8;

/// The foreign programs that work through this node. Cheap to clone.
#[derive(Clone)]
pub struct Foreign {
    shared: Arc<Shared>,
}

struct Shared {
    handle: Handle,
    desk: Desk,
    own: Vec<Arc<str>>,
    workers: Mutex<HashMap<WorkerId, Kept>>,
}

/// A foreign program that asked of late.
struct Kept {
    types: BTreeSet<Arc<str>>,
    slots: usize,
    seen: Instant,
}

/// A claim, as its face understood it.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The program's own name for its worker.
    pub worker: String,
    /// Tasks of these types, 1 to 32.
    pub types: Vec<Arc<str>>,
    /// At most so many, 1 to 64.
    pub most: usize,
    /// Who asks.
    pub peer: Arc<str>,
    /// How long a lease holds without a sign of its holder.
    pub span: Duration,
    /// How long to wait for work; at most 5 s.
    pub wait: Duration,
}

/// How a program says that its work ended.
#[derive(Clone, Debug)]
pub enum Completion {
    /// Well; JSON text.
    Completed(Vec<u8>),
    /// Not well, which counts as a failed attempt.
    Failed(String),
    /// It gives the run back, which does not.
    Released,
}

/// Why something about a lease was refused. Nothing was changed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ForeignError {
    /// By the node.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// By the desk.
    #[error(transparent)]
    Denied(#[from] Denied),
}

impl Foreign {
    /// Ready for claims. Workers that an earlier life of the node left behind
    /// go; `own` is what the node's own workers may promise.
    pub async fn start(handle: Handle, desk: Desk, own: Vec<Arc<str>>, shutdown: CancellationToken) -> Foreign {
        let shared = Shared { handle, desk, own, workers: Mutex::default() };
        let foreign = Foreign { shared: Arc::new(shared) };
        foreign.clear().await;
        tokio::spawn(foreign.clone().watch(shutdown));
        foreign
    }

    /// Hands work to a program, as soon as there is some.
    ///
    /// # Errors
    /// A bad name or type, too many workers, or a node that is stopping.
    pub async fn claim(&self, claim: Claim) -> Result<Vec<Claimed>, Refusal> {
        let worker = self.worker(&claim.worker)?;
        check(&claim)?;
        let until = Instant::now() + claim.wait.min(CLAIM_WAIT);
        let most = claim.most;
        let Claim { types, peer, span, .. } = claim;
        self.enlist(&worker, &types, most).await?;
        let claimant = Claimant { worker, types, most, holder: peer, span };
        loop {
            let bell = self.shared.desk.bell();
            let claimed = self.shared.desk.claim(&claimant);
            if !claimed.is_empty() || tokio::time::timeout_at(until, bell).await.is_err() {
                return Ok(claimed);
            }
        }
    }

    /// A sign of life of the holder of a lease; returns how long it holds now.
    ///
    /// # Errors
    /// There is no such lease, or another has it.
    pub fn extend(&self, proof: &Proof<'_>) -> Result<Duration, Denied> {
        self.shared.desk.extend(proof)
    }

    /// A sign of life of a peer for all that it claimed, or that it claimed for
    /// one worker; returns how many leases that are.
    ///
    /// # Errors
    /// The worker's name is no name.
    pub fn extend_all(&self, worker: Option<&str>, peer: &str) -> Result<usize, Refusal> {
        let worker = worker.map(|name| self.worker(name)).transpose()?;
        if let Some(worker) = &worker
            && let Some(kept) = self.workers().get_mut(worker)
        {
            kept.seen = Instant::now();
        }
        Ok(self.shared.desk.extend_all(worker.as_ref(), peer))
    }

    /// Ends a run as its holder says, and waits until the mesh has that. The
    /// holder may repeat it.
    ///
    /// # Errors
    /// No such lease, another's lease, or the mesh did not confirm in time: then
    /// it may still happen, and the same call tells.
    pub async fn finish(&self, proof: &Proof<'_>, completion: Completion) -> Result<TaskView, ForeignError> {
        let finish = self.shared.desk.finish(proof, end_of(completion))?;
        let (Finish::Now(attempt) | Finish::Before(attempt)) = finish;
        let until = Instant::now() + Duration::from_millis(SETTLE.0);
        loop {
            let task = self.task(proof.task, LOOK).await?;
            let runs = matches!(task.status, Status::Leased | Status::Running) && task.attempt == attempt;
            if !runs {
                return Ok(task);
            }
            if Instant::now() >= until {
                return Err(Refusal::Deadline { waited: SETTLE }.into());
            }
        }
    }

    /// The name of a program's worker as the program knows it.
    #[must_use]
    pub fn program_name(worker: &WorkerId) -> &str {
        match worker.as_str().strip_prefix(PREFIX).and_then(|rest| rest.split_once(':')) {
            Some((_, name)) => name,
            None => worker.as_str(),
        }
    }

    async fn task(&self, task: &TaskId, wait: Millis) -> Result<TaskView, Refusal> {
        let query = Query::Task { task: task.clone(), detail: Detail::default(), wait };
        match self.shared.handle.ask(Request::Query(query)).await? {
            Reply::Task(view) => Ok(*view),
            other => unreachable!("a task was asked for: {other:?}"),
        }
    }

    fn worker(&self, name: &str) -> Result<WorkerId, Refusal> {
        let node = self.shared.handle.node().to_string();
        let mark = &node[node.len().saturating_sub(NODE_MARK)..];
        let invalid = |problem: String| Refusal::Invalid { field: "worker_id".into(), problem: problem.into() };
        let text = format!("{PREFIX}{mark}:{name}");
        let most = WorkerId::MAX_BYTES - (text.len() - name.len());
        if name.is_empty() || name.len() > most {
            return Err(invalid(format!("must have 1 to {most} bytes, and has {}", name.len())));
        }
        WorkerId::new(&text).map_err(|e| invalid(e.to_string()))
    }

    /// Makes the program a worker, or more of one, where that is needed.
    async fn enlist(&self, worker: &WorkerId, types: &[Arc<str>], most: usize) -> Result<(), Refusal> {
        let Some((spec, executors)) = self.wanted(worker, types, most) else { return Ok(()) };
        self.shared.handle.executors(executors);
        let registered = self.shared.handle.ask(Request::Command(Command::Register(spec))).await;
        if registered.is_err() {
            self.workers().remove(worker);
        }
        registered.map(|_| ())
    }

    /// What is to be registered, if anything.
    fn wanted(&self, worker: &WorkerId, types: &[Arc<str>], most: usize) -> Option<(WorkerSpec, Vec<Arc<str>>)> {
        let leases = self.shared.desk.leases(worker);
        let mut workers = self.workers();
        let kept = workers.entry(worker.clone()).or_insert_with(|| Kept {
            types: BTreeSet::new(),
            slots: 0,
            seen: Instant::now(),
        });
        kept.seen = Instant::now();
        let types: BTreeSet<_> = types.iter().cloned().collect();
        let slots = (leases + most).min(SLOTS);
        if kept.types == types && kept.slots >= slots {
            return None;
        }
        kept.types = types;
        kept.slots = kept.slots.max(slots);
        let spec = WorkerSpec {
            worker: worker.clone(),
            capabilities: kept.types.iter().cloned().collect(),
            labels: BTreeMap::new(),
            slots: u32::try_from(kept.slots).unwrap_or(1),
            resources: None,
            metadata: None,
        };
        let all: BTreeSet<_> = workers.values().flat_map(|kept| &kept.types).chain(&self.shared.own).cloned().collect();
        Some((spec, all.into_iter().collect()))
    }

    /// Lets workers go whose programs do not ask any more.
    async fn watch(self, shutdown: CancellationToken) {
        let mut every = tokio::time::interval(AWAKE / 10);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = every.tick() => {}
            }
            let asleep: Vec<_> = {
                let mut workers = self.workers();
                workers.extract_if(|_, kept| kept.seen.elapsed() >= AWAKE).map(|(worker, _)| worker).collect()
            };
            for worker in asleep {
                self.dismiss(worker, true);
            }
        }
    }

    /// Asked without waiting: a lease may hold the answer up for long.
    fn dismiss(&self, worker: WorkerId, graceful: bool) {
        let command = Command::Unregister { worker, graceful, timeout: FAREWELL };
        let _ = self.shared.handle.ask(Request::Command(command)).now_or_never();
    }

    async fn clear(&self) {
        let Ok(Reply::Workers(workers)) = self.shared.handle.ask(Request::Query(Query::Workers)).await else { return };
        let here = self.shared.handle.node();
        for worker in workers.into_iter().filter(|w| w.node == here && Desk::is_foreign(&w.worker)) {
            self.dismiss(worker.worker, false);
        }
    }

    fn workers(&self) -> MutexGuard<'_, HashMap<WorkerId, Kept>> {
        self.shared.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn check(claim: &Claim) -> Result<(), Refusal> {
    let invalid = |field: &str, problem: String| Refusal::Invalid { field: field.into(), problem: problem.into() };
    if claim.types.is_empty() || claim.types.len() > TYPES {
        return Err(invalid("supported_task_types", format!("must be 1 to {TYPES} names")));
    }
    let wrong = |name: &&Arc<str>| {
        name.is_empty() || name.len() > limits::TEXT_BYTES || name.contains(|c: char| c.is_control() || c == '*')
    };
    if let Some(name) = claim.types.iter().find(wrong) {
        let start: String = name.chars().take(40).collect();
        let bound = limits::TEXT_BYTES;
        return Err(invalid(
            "supported_task_types",
            format!("has {start:?}; each must be a name of 1 to {bound} bytes"),
        ));
    }
    if claim.most == 0 || claim.most > SLOTS {
        return Err(invalid("max_tasks", format!("must be 1 to {SLOTS}, and is {}", claim.most)));
    }
    Ok(())
}

fn end_of(completion: Completion) -> End {
    match completion {
        Completion::Completed(result) => {
            End { how: How::Completed, report: RawReport { result, ..RawReport::default() } }
        }
        Completion::Failed(error) => End { how: How::Failed { error, retryable: true }, report: RawReport::default() },
        Completion::Released => End { how: How::HandedBack, report: RawReport::default() },
    }
}
