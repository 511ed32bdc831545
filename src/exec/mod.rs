//! Executors: what a node can run. [`Executors`] is the registry of them and
//! the runner around them: it starts a run, enforces its timeout, stops it on
//! request, survives its panics and reports its end exactly once.
//!
//! An [`Executor`] only knows how to do the work. What every run has in common
//! is done here, and `contract.rs` checks that all of them keep to it.

mod builtin;
mod capture;
#[cfg(test)]
mod contract;
pub mod foreign;
#[cfg(test)]
mod foreign_tests;
mod group;
mod guard;
mod payload;
mod process;
#[cfg(test)]
mod process_tests;
mod program;

use foreign::Desk;
use futures::FutureExt;
use futures::future::BoxFuture;
use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use taskmesh_core::execution::Verdict;
use taskmesh_core::limits;
use taskmesh_core::task::Usage;
use taskmesh_core::{BlobHash, Fence, Millis, Spec, TaskId, WorkerId};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

/// What a node's operator chooses.
#[derive(Clone, Debug)]
pub struct ExecConfig {
    /// Programs that `exec` may start, each by the exact text of `argv[0]`;
    /// `*` is any. Empty: this node has no `exec`.
    pub allow: Vec<String>,
    /// Bytes kept of each output stream of a program that names no limit.
    pub output_bytes: usize,
    /// The most that a program may name; more is cut here.
    pub output_max_bytes: usize,
    /// From SIGTERM to SIGKILL.
    pub kill_after: Duration,
    /// Where programs get their fresh working directories. Belongs to this
    /// node alone: what an earlier life left in it is removed at the start.
    pub work_dir: PathBuf,
}

impl ExecConfig {
    /// The defaults, with `exec` off.
    #[must_use]
    pub fn new(work_dir: PathBuf) -> ExecConfig {
        ExecConfig {
            allow: Vec::new(),
            output_bytes: OUTPUT_BYTES,
            output_max_bytes: OUTPUT_MAX_BYTES,
            kill_after: KILL_AFTER,
            work_dir,
        }
    }
}

/// Why the executors could not start. Nothing was changed that matters.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The folder for working directories can't be made or read.
    #[error("the working folder {path} can't be used: {source}")]
    WorkDir {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Called outside of a tokio runtime.
    #[error("executors need a tokio runtime")]
    NoRuntime,
}

/// What happened to a run of this node.
#[derive(Clone, Debug, PartialEq)]
pub struct RunEvent {
    /// Of which task.
    pub task: TaskId,
    /// Under which grant.
    pub fence: Fence,
    /// What.
    pub event: Event,
}

/// What an executor says of a run, before large results went to the store.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// It has begun. Missing where it could not begin.
    Started,
    /// Something to tell while it runs; at most once a second.
    Progress {
        /// Percent.
        percent: Option<u8>,
        /// A line for people.
        message: Option<Arc<str>>,
        /// Tail of its output, at most [`limits::LOG_TAIL_BYTES`].
        log_tail: Option<Arc<[u8]>>,
    },
    /// It is over, and so is every process of it. Said exactly once.
    Ended {
        /// How it went.
        verdict: Verdict,
        /// What it left.
        report: RawReport,
    },
}

/// What a run left, in memory.
#[derive(Clone, Debug, PartialEq)]
pub struct RawReport {
    /// JSON text; `null` where there is none.
    pub result: Vec<u8>,
    /// Standard output, where there is such a thing.
    pub output: Option<Vec<u8>>,
    /// Standard error, where there is such a thing.
    pub logs: Option<Vec<u8>>,
    /// Output or logs were longer than the cap; their heads are kept.
    pub truncated: bool,
    /// What it used, as far as it was measured.
    pub usage: Usage,
}

impl Default for RawReport {
    fn default() -> RawReport {
        RawReport { result: b"null".to_vec(), output: None, logs: None, truncated: false, usage: Usage::default() }
    }
}

/// A way to do work.
pub trait Executor: Send + Sync {
    /// The task type that it runs.
    fn task_type(&self) -> &'static str;

    /// What a worker with it may promise, beside the task type.
    fn capabilities(&self) -> Vec<Arc<str>> {
        Vec::new()
    }

    /// Does the work, or says how it will. Called on the caller's thread, so
    /// it must not block nor take longer than some µs: whatever does goes
    /// into [`Begun::Runs`]. Calls [`Link::started`] once the work has begun.
    fn begin(&self, link: Link) -> Begun;
}

/// How [`Executor::begin`] went.
pub enum Begun {
    /// Done already.
    Over(End),
    /// This does it. Once it is told to halt it ends soon, and says
    /// [`How::Halted`] if it ended because of that.
    Runs(BoxFuture<'static, End>),
}

/// The end of some work.
#[derive(Debug)]
pub struct End {
    /// How it went.
    pub how: How,
    /// What it left.
    pub report: RawReport,
}

/// How some work went.
#[derive(Debug)]
pub enum How {
    /// Well.
    Completed,
    /// Not well.
    Failed {
        /// For people; cut to [`limits::REASON_BYTES`].
        error: String,
        /// Another attempt may do better.
        retryable: bool,
    },
    /// It was told to halt, and did.
    Halted,
    /// It took longer than its task allows, and watches over that itself.
    TimedOut,
    /// It was not done, for no fault of its task.
    HandedBack,
}

impl End {
    /// The work can't be done as it was described, here or ever again.
    #[must_use]
    pub fn refused(error: impl Into<String>) -> End {
        End { how: How::Failed { error: error.into(), retryable: false }, report: RawReport::default() }
    }
}

/// A run as its executor sees it.
#[derive(Clone)]
pub struct Link {
    /// Which task.
    pub task: TaskId,
    /// Under which grant.
    pub fence: Fence,
    /// What to do.
    pub spec: Arc<Spec>,
    halt: watch::Receiver<Option<Halt>>,
    events: Events,
    blobs: Option<FindBlob>,
}

/// Finds up to so many bytes of a blob from an offset, wherever in the mesh it
/// is; `None`: nobody who answers has it.
pub type FindBlob = Arc<dyn Fn(BlobHash, u64, usize) -> BoxFuture<'static, Option<Vec<u8>>> + Send + Sync>;

impl Link {
    /// The whole of a blob, if it is to be had, of that size and that hash.
    pub async fn blob(&self, hash: BlobHash, bytes: u64) -> Option<Vec<u8>> {
        let find = self.blobs.as_ref().filter(|_| bytes <= limits::BLOB_BYTES)?;
        let whole = find(hash, 0, usize::try_from(bytes).ok()?).await?;
        (BlobHash::of(&whole) == hash).then_some(whole)
    }

    /// Says that the work has begun.
    pub fn started(&self) {
        self.tell(Event::Started);
    }

    /// Says how it goes; the caller keeps to once a second.
    pub fn progress(&self, percent: Option<u8>, message: Option<Arc<str>>, log_tail: Option<Arc<[u8]>>) {
        self.tell(Event::Progress { percent, message, log_tail });
    }

    /// Waits until the run is to halt, harder than it was told before.
    pub async fn halted(&mut self, told: Option<Force>) -> Force {
        let harder = |halt: &Option<Halt>| halt.map(|halt| halt.force) > told;
        match self.halt.wait_for(harder).await.map(|halt| halt.map(|halt| halt.force)) {
            Ok(Some(force)) => force,
            // Nobody is left who could halt it.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    fn tell(&self, event: Event) {
        (self.events)(RunEvent { task: self.task.clone(), fence: self.fence, event });
    }
}

/// The live runs, and what halts each.
type Runs = HashMap<(TaskId, Fence), watch::Sender<Option<Halt>>>;
type Events = Arc<dyn Fn(RunEvent) + Send + Sync>;

/// Why a run is to halt, and how hard.
#[derive(Clone, Copy, Debug)]
struct Halt {
    why: Why,
    force: Force,
}

#[derive(Clone, Copy, Debug)]
enum Why {
    Stopped,
    TimedOut,
    HandedBack,
}

/// How hard a run is to halt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Force {
    /// Let it end in its own way, soon.
    Ask,
    /// At once.
    Kill,
}

/// The executors of a node and their runs. Cheap to clone.
#[derive(Clone)]
pub struct Executors {
    shared: Arc<Shared>,
}

struct Shared {
    runtime: Handle,
    executors: BTreeMap<&'static str, Box<dyn Executor>>,
    events: Events,
    runs: Mutex<Runs>,
    tracker: TaskTracker,
    closing: AtomicBool,
    desk: Desk,
    blobs: OnceLock<FindBlob>,
}

impl Executors {
    /// Makes the executors that `config` allows. Called within a tokio runtime.
    ///
    /// `events` hears of every run. It is called from the runtime's threads
    /// and, for work that is done at once, from within [`Executors::run`]: it
    /// must neither block nor call back.
    ///
    /// # Errors
    /// There is no runtime, or the working folder can't be used.
    pub fn start(
        config: ExecConfig,
        events: impl Fn(RunEvent) + Send + Sync + 'static,
    ) -> Result<Executors, ExecError> {
        let mut all: Vec<Box<dyn Executor>> =
            vec![Box::new(builtin::Echo), Box::new(builtin::Sleep), Box::new(builtin::Fail)];
        if !config.allow.is_empty() {
            all.push(Box::new(process::Exec::open(config)?));
        }
        Executors::with(all, events)
    }

    fn with(
        all: Vec<Box<dyn Executor>>,
        events: impl Fn(RunEvent) + Send + Sync + 'static,
    ) -> Result<Executors, ExecError> {
        let shared = Shared {
            runtime: Handle::try_current().map_err(|_| ExecError::NoRuntime)?,
            executors: all.into_iter().map(|e| (e.task_type(), e)).collect(),
            events: Arc::new(events),
            runs: Mutex::default(),
            tracker: TaskTracker::new(),
            closing: AtomicBool::new(false),
            desk: Desk::default(),
            blobs: OnceLock::new(),
        };
        Ok(Executors { shared: Arc::new(shared) })
    }

    /// What workers of this node may promise: the task types that can run
    /// here and, where `exec` is allowed, `exec:<program>` for each program of
    /// the list (`exec:*` for any). Sorted.
    #[must_use]
    pub fn capabilities(&self) -> Vec<Arc<str>> {
        let mut all: Vec<Arc<str>> = Vec::new();
        for (name, executor) in &self.shared.executors {
            all.push(Arc::from(*name));
            all.extend(executor.capabilities());
        }
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Whether an executor would understand this payload. A task type that
    /// this version does not know passes: another node may.
    ///
    /// # Errors
    /// What is wrong, naming the field and its bound.
    pub fn validate(task_type: &str, payload: &[u8]) -> Result<(), String> {
        match task_type {
            builtin::ECHO => builtin::check_json(payload),
            builtin::SLEEP => builtin::sleep_span(payload).map(|_| ()),
            builtin::FAIL => builtin::Failure::parse(payload).map(|_| ()),
            process::EXEC => program::Program::parse(payload).map(|_| ()),
            _ => Ok(()),
        }
    }

    /// How runs find blobs. Said once, before the first of them: executors are
    /// there before the node that they belong to.
    pub fn find_blobs_by(&self, find: FindBlob) {
        // A second node over the same executors would find the same.
        let _ = self.shared.blobs.set(find);
    }

    /// Where the runs of foreign programs wait.
    #[must_use]
    pub fn desk(&self) -> Desk {
        self.shared.desk.clone()
    }

    /// Starts a run of `worker` and returns at once. Its end is always
    /// reported, also where it could not begin. A second run under the same
    /// fence is ignored. That of a foreign worker is left to its program.
    pub fn run(&self, task: TaskId, fence: Fence, worker: &WorkerId, spec: Arc<Spec>) {
        let began = Instant::now();
        let (halt, halted) = watch::channel(None);
        let task_type = spec.task_type.clone();
        let blobs = self.shared.blobs.get().cloned();
        let link = Link { task, fence, spec, halt: halted, events: self.shared.events.clone(), blobs };
        if self.shared.closing.load(Ordering::Acquire) {
            return link.tell(ended(Verdict::HandedBack, RawReport::default(), began));
        }
        if Desk::is_foreign(worker) {
            let work = Box::pin(self.desk().attend(link.clone(), worker.clone()));
            // The desk counts its time from the claim.
            return self.attend(link, halt, work, None, began);
        }
        let Some(executor) = self.shared.executors.get(&*task_type) else {
            return link.end(
                End::refused(format!("this node has no executor for task type {task_type:?}")),
                None,
                began,
            );
        };
        let begun = std::panic::catch_unwind(AssertUnwindSafe(|| executor.begin(link.clone())));
        match begun.unwrap_or_else(|panic| Begun::Over(panicked(panic.as_ref()))) {
            Begun::Over(end) => link.end(end, None, began),
            Begun::Runs(work) => {
                let timeout = link.spec.timeout;
                self.attend(link, halt, work, timeout, began);
            }
        }
    }

    /// Ends a run. Without `force` it is asked to (a program gets SIGTERM, and
    /// SIGKILL after `kill_after`), with `force` it is killed. A run that is
    /// over or unknown is left alone.
    pub fn stop(&self, task: &TaskId, fence: Fence, force: bool) {
        let force = if force { Force::Kill } else { Force::Ask };
        if let Some(run) = self.shared.runs().get(&(task.clone(), fence)) {
            raise(run, Why::Stopped, force);
        }
    }

    /// Runs at this moment.
    #[must_use]
    pub fn running(&self) -> usize {
        self.shared.runs().len()
    }

    /// Ends every run (`handed_back`), as if each was stopped without force,
    /// and waits for their ends. Whatever is to run after this is handed back.
    pub async fn shutdown(&self) {
        self.shared.closing.store(true, Ordering::Release);
        for run in self.shared.runs().values() {
            raise(run, Why::HandedBack, Force::Ask);
        }
        self.shared.tracker.close();
        self.shared.tracker.wait().await;
    }

    fn attend(
        &self,
        link: Link,
        halt: watch::Sender<Option<Halt>>,
        work: BoxFuture<'static, End>,
        timeout: Option<Millis>,
        began: Instant,
    ) {
        let key = (link.task.clone(), link.fence);
        {
            let mut runs = self.shared.runs();
            if runs.contains_key(&key) {
                tracing::error!(task = %key.0, attempt = key.1.attempt, "this fence runs already");
                return;
            }
            // Under the lock, so that `shutdown` sees it or it sees `shutdown`.
            if self.shared.closing.load(Ordering::Acquire) {
                raise(&halt, Why::HandedBack, Force::Ask);
            }
            runs.insert(key.clone(), halt.clone());
        }
        let shared = self.shared.clone();
        let run = async move {
            let work = AssertUnwindSafe(work).catch_unwind();
            let end = within(timeout, &halt, work).await.unwrap_or_else(|panic| panicked(panic.as_ref()));
            shared.runs().remove(&key);
            let why = halt.borrow().map(|halt| halt.why);
            link.end(end, why, began);
        };
        self.shared.tracker.spawn_on(run, &self.shared.runtime);
    }
}

impl Shared {
    fn runs(&self) -> MutexGuard<'_, Runs> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Link {
    fn end(&self, end: End, why: Option<Why>, began: Instant) {
        let verdict = match (end.how, why) {
            (How::Completed, _) => Verdict::Completed,
            (How::Failed { error, retryable }, _) => {
                Verdict::Failed { error: clip(&error, limits::REASON_BYTES).into(), retryable }
            }
            (How::HandedBack, _) => Verdict::HandedBack,
            (How::TimedOut, _) | (How::Halted, Some(Why::TimedOut)) => {
                Verdict::TimedOut { after: self.spec.timeout.unwrap_or_default() }
            }
            (How::Halted, Some(Why::HandedBack)) => Verdict::HandedBack,
            (How::Halted, Some(Why::Stopped) | None) => Verdict::Stopped,
        };
        self.tell(ended(verdict, end.report, began));
    }
}

/// `work`, told to halt when its time is over.
async fn within<T>(limit: Option<Millis>, halt: &watch::Sender<Option<Halt>>, work: impl Future<Output = T>) -> T {
    let Some(limit) = limit else { return work.await };
    let mut work = std::pin::pin!(work);
    tokio::select! {
        biased;
        end = &mut work => return end,
        () = tokio::time::sleep(Duration::from_millis(limit.0)) => raise(halt, Why::TimedOut, Force::Ask),
    }
    work.await
}

/// The first reason stays; force only grows.
fn raise(run: &watch::Sender<Option<Halt>>, why: Why, force: Force) {
    run.send_if_modified(|halt| match halt {
        None => {
            *halt = Some(Halt { why, force });
            true
        }
        Some(now) if now.force < force => {
            now.force = force;
            true
        }
        Some(_) => false,
    });
}

fn ended(verdict: Verdict, mut report: RawReport, began: Instant) -> Event {
    report.usage.wall.get_or_insert_with(|| millis(began.elapsed()));
    Event::Ended { verdict, report }
}

fn panicked(panic: &(dyn Any + Send)) -> End {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let error = format!("the executor panicked: {}", text.unwrap_or("without a message"));
    End { how: How::Failed { error, retryable: true }, report: RawReport::default() }
}

fn millis(span: Duration) -> Millis {
    Millis(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
}

/// The longest head of `text` that has at most `max` bytes.
fn clip(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

/// Room for the reports of most programs; four of these are what one message
/// between nodes carries.
const OUTPUT_BYTES: usize = 1024 * 1024;
/// Kept in memory while a program runs, twice, for each slot.
const OUTPUT_MAX_BYTES: usize = 16 * 1024 * 1024;
/// What container runtimes give as well, halved: a stop should feel prompt.
const KILL_AFTER: Duration = Duration::from_secs(5);
