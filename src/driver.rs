//! The one loop: inputs in, `core.handle`, one durable commit, effects out.
//! The only place that sees both the core and the shell.
//!
//! *Write before you speak*: an effect of a batch waits until the batch's
//! writes are on the disk, unless it rests on none of them. A commit that
//! fails stops the node; the other holders of its tasks take over.

mod foreign;
mod handle;
mod inbox;

pub use foreign::{Claim, Completion, Foreign, ForeignError, LeaseProof};
pub(crate) use handle::BlobReads;
pub use handle::{Handle, Pulse};
pub use inbox::{Event, Inbox};

use crate::exec::{self, Executors, RawReport};
use crate::net::{Net, NetEvent};
use crate::store::{Blobs, Committed, Store, StoreError, Write};
use crate::telemetry::traces::Traces;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use taskmesh_core::task::{Data, Report};
use taskmesh_core::view::{Stats, Watched};
use taskmesh_core::{
    Effect, Entry, Fence, Input, Message, Millis, Node, NodeId, Notice, Refusal, Reply, RequestId, Spec, TaskId, Unix,
    WorkerId, limits,
};
use tokio::sync::oneshot;

/// What a driver drives.
pub struct Parts {
    /// The core, restored from the disk.
    pub node: Node,
    /// Where its writes go.
    pub store: Box<dyn Store>,
    /// Large results.
    pub blobs: Blobs,
    /// The other nodes.
    pub net: Net,
    /// The ways to run tasks.
    pub executors: Executors,
    /// Where traces of tasks go, if anywhere.
    pub traces: Option<Traces>,
    /// Hears of everything that is measured; called on the driver's thread.
    pub observer: Box<dyn FnMut(Observation<'_>) + Send>,
}

/// Something to measure or to log.
#[derive(Debug)]
pub enum Observation<'a> {
    /// The core says that something happened.
    Notice(&'a Notice),
    /// A batch was made durable.
    Commit(&'a Committed),
    /// A batch was handled: how many inputs it had, and how many wait.
    Batch {
        /// Inputs.
        inputs: usize,
        /// Waiting behind them.
        waiting: usize,
    },
    /// Every second: this node's own counts, and the age of its loop.
    Stats(&'a Stats),
    /// As often: what this node knows of the fleet.
    Fleet {
        /// Where metrics are.
        watched: Vec<Watched>,
        /// Tasks of this node that are short of copies.
        short_of_copies: u64,
    },
    /// Messages that the network did not take.
    Unsent(usize),
}

/// Inputs that share one commit.
const BATCH: usize = 4_096;
/// How often the core is told the wall clock.
const CLOCK: Duration = Duration::from_secs(5);
/// How often counts are observed.
const STATS: Duration = Duration::from_secs(1);

struct Driver {
    parts: Parts,
    inbox: Arc<Inbox>,
    start: Instant,
    effects: Vec<Effect>,
    answers: HashMap<RequestId, oneshot::Sender<Result<Reply, Refusal>>>,
    /// Traces of what runs here.
    traced: HashMap<TaskId, Arc<str>>,
    clock_at: Option<Instant>,
    stats_at: Option<Instant>,
    reader: Handle,
    runtime: tokio::runtime::Handle,
    stopping: bool,
}

/// Starts the loop on a thread of its own, and returns how to talk to it. The
/// thread ends with [`Handle::stop`], or with the first failed commit.
///
/// # Errors
/// The thread can't be made.
pub fn spawn(
    parts: Parts,
    inbox: Arc<Inbox>,
) -> std::io::Result<(Handle, std::thread::JoinHandle<Result<(), StoreError>>)> {
    let (blobs, far) = (parts.blobs.clone(), parts.net.far_blobs());
    let reads = BlobReads {
        here: Arc::new(move |hash, offset, len| blobs.read(hash, offset, len)),
        there: Arc::new(move |hash, offset, len| {
            let far = far.clone();
            Box::pin(async move { far.read(hash, offset, len).await })
        }),
    };
    let handle = Handle::new(parts.node.id(), inbox.clone(), reads, parts.traces.clone());
    let finder = handle.clone();
    parts.executors.find_blobs_by(Arc::new(move |hash, offset, len| {
        let finder = finder.clone();
        Box::pin(async move { finder.find_blob(hash, offset, len).await })
    }));
    let pulse = handle.clone();
    let driver = Driver {
        parts,
        inbox,
        start: Instant::now(),
        effects: Vec::new(),
        answers: HashMap::new(),
        traced: HashMap::new(),
        clock_at: None,
        stats_at: None,
        reader: handle.clone(),
        runtime: tokio::runtime::Handle::current(),
        stopping: false,
    };
    let thread = std::thread::Builder::new().name("driver".into()).spawn(move || driver.run(&pulse))?;
    Ok((handle, thread))
}

impl Driver {
    fn run(mut self, handle: &Handle) -> Result<(), StoreError> {
        let mut batch = Vec::new();
        loop {
            let wakeup = self.start + Duration::from_millis(self.parts.node.next_wakeup().0.min(1 << 40));
            let waiting = self.inbox.take(&mut batch, BATCH, wakeup);
            let inputs = batch.len();
            self.tell_time();
            for event in batch.drain(..) {
                if let Some(input) = self.input_of(event) {
                    self.handle(input);
                }
            }
            if self.now() >= self.parts.node.next_wakeup() {
                self.handle(Input::Tick);
            }
            self.run_ahead(&mut batch);
            if let Err(error) = self.commit() {
                tracing::error!(%error, "the store failed: this node stops, and the other holders take over");
                self.inbox.close();
                return Err(error);
            }
            self.release();
            (self.parts.observer)(Observation::Batch { inputs, waiting });
            self.observe_stats();
            handle.beat(&self.parts.node);
            if self.stopping {
                self.inbox.close();
                self.runtime.block_on(self.parts.net.close());
                return Ok(());
            }
        }
    }

    fn now(&self) -> Millis {
        Millis(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    fn handle(&mut self, input: Input) {
        let now = self.now();
        self.parts.node.handle(now, input, &mut self.effects);
    }

    fn tell_time(&mut self) {
        if self.clock_at.is_none_or(|at| at.elapsed() >= CLOCK) {
            self.clock_at = Some(Instant::now());
            self.handle(Input::Clock(wall_clock()));
        }
    }

    fn input_of(&mut self, event: Event) -> Option<Input> {
        Some(match event {
            Event::Ask { id, caller, request, answer } => {
                self.answers.insert(id, answer);
                Input::Request { id, caller, request }
            }
            Event::Abandoned(id) => {
                self.answers.remove(&id);
                Input::Abandoned(id)
            }
            Event::Run(run) => return self.input_of_run(run),
            Event::Report { task, fence, event } => Input::Execution { task, fence, event },
            Event::Heard { from, message } => Input::Received { from, message },
            Event::Net(NetEvent::Received { .. }) => unreachable!("the inbox takes frames apart"),
            Event::Net(NetEvent::Peer(peer)) => Input::Peer(peer),
            Event::Net(NetEvent::Fetched { hash, here }) => Input::Fetched { hash, here },
            Event::Net(NetEvent::Listening(addresses)) => {
                tracing::info!(?addresses, "listening");
                return None;
            }
            Event::BlobRead { hash, content } => Input::BlobRead { hash, content },
            // Everything before it was handled: its drop says so.
            Event::Net(NetEvent::Reached(_)) => return None,
            Event::Load(load) => Input::Load(load),
            Event::Executors(names) => Input::Executors(names),
            Event::MetricsAt(address) => Input::MetricsAt(address),
            Event::Templates(own) => Input::Templates(own),
            Event::Drain => Input::Drain,
            Event::HandBack => Input::HandBack,
            Event::Stop => {
                self.stopping = true;
                return None;
            }
        })
    }

    /// Large results go to files first, away from this thread.
    fn input_of_run(&mut self, run: exec::RunEvent) -> Option<Input> {
        use taskmesh_core::execution::Event as Core;
        let (task, fence) = (run.task, run.fence);
        let event = match run.event {
            exec::Event::Started => Core::Started,
            exec::Event::Progress { percent, message, log_tail } => Core::Progress { percent, message, log_tail },
            exec::Event::Ended { verdict, report } if report_is_small(&report) => {
                Core::Ended { verdict, report: small_report(report) }
            }
            exec::Event::Ended { verdict, report } => {
                let (blobs, inbox) = (self.parts.blobs.clone(), self.inbox.clone());
                self.runtime.spawn_blocking(move || {
                    let event = match store_report(&blobs, report) {
                        Ok(report) => Core::Ended { verdict, report },
                        Err(error) => Core::Ended { verdict: unstorable(&error), report: Report::default() },
                    };
                    inbox.push_local(Event::Report { task, fence, event });
                });
                return None;
            }
        };
        Some(Input::Execution { task, fence, event })
    }

    /// Starts runs, and tells others how theirs ended, before the commit where
    /// neither rests on what it writes. Runs that take no time end within the
    /// batch, so that they neither wait for the disk nor each need a commit.
    fn run_ahead(&mut self, batch: &mut Vec<Event>) {
        let node = self.parts.node.id();
        let mut seen = 0;
        let mut written = HashSet::new();
        while seen < self.effects.len() {
            written.extend(self.effects[seen..].iter().filter_map(written_task));
            let ahead: Vec<_> = self.effects.extract_if(seen.., |e| rests_on_nothing(e, node, &written)).collect();
            seen = self.effects.len();
            self.obey(ahead);
            self.inbox.take_runs(batch);
            for event in batch.drain(..) {
                if let Some(input) = self.input_of(event) {
                    self.handle(input);
                }
            }
        }
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        let writes: Vec<_> = self
            .effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::Persist(entry) => Some(Write::Persist(entry)),
                Effect::Forget(key) => Some(Write::Forget(key)),
                _ => None,
            })
            .collect();
        if writes.is_empty() {
            return Ok(());
        }
        let committed = self.parts.store.commit(&writes)?;
        (self.parts.observer)(Observation::Commit(&committed));
        Ok(())
    }

    /// The batch is durable: now the rest may happen.
    fn release(&mut self) {
        let mut effects = std::mem::take(&mut self.effects);
        self.obey(effects.drain(..));
        self.effects = effects;
    }

    fn obey(&mut self, effects: impl IntoIterator<Item = Effect>) {
        let mut messages: Vec<(NodeId, Message)> = Vec::new();
        for effect in effects {
            match effect {
                Effect::Persist(_) | Effect::Forget(_) => {}
                Effect::Send { to, message } => messages.push((to, message)),
                Effect::Publish(message) => self.parts.net.publish(&message),
                Effect::Run { task, fence, worker, spec } => self.run_task(task, fence, &worker, spec),
                Effect::Stop { task, fence, force } => self.parts.executors.stop(&task, fence, force),
                Effect::Fetch { hash, bytes, from } => self.fetch(hash, bytes, from),
                Effect::DropBlob(hash) => self.drop_blob(hash),
                Effect::ReadBlob(hash) => self.read_blob(hash),
                Effect::Net(command) => self.parts.net.command(command),
                Effect::Reply { id, reply } => {
                    if let Some(answer) = self.answers.remove(&id) {
                        // Whoever asked may have gone meanwhile.
                        let _ = answer.send(reply);
                    }
                }
                Effect::Notice(notice) => self.tell(&notice),
            }
        }
        if !messages.is_empty() {
            let unsent = self.parts.net.send_batch(messages);
            if unsent > 0 {
                (self.parts.observer)(Observation::Unsent(unsent));
            }
        }
    }

    fn run_task(&mut self, task: TaskId, fence: Fence, worker: &WorkerId, spec: Arc<Spec>) {
        if let (Some(_), Some(trace)) = (&self.parts.traces, &spec.trace) {
            self.traced.insert(task.clone(), trace.clone());
        }
        self.parts.executors.run(task, fence, worker, spec);
    }

    fn tell(&mut self, notice: &Notice) {
        (self.parts.observer)(Observation::Notice(notice));
        let Some(traces) = &self.parts.traces else { return };
        let kept = |task| self.parts.node.slot(task).and_then(|slot| slot.spec.trace.clone());
        let trace = match notice {
            Notice::TaskAccepted { task, .. } | Notice::TaskGranted { task, .. } | Notice::TaskClosed { task, .. } => {
                kept(task)
            }
            Notice::RunEnded { task, .. } => self.traced.remove(task),
            _ => None,
        };
        if let Some(trace) = trace {
            traces.tell(&trace, notice);
        }
    }

    fn fetch(&mut self, hash: taskmesh_core::BlobHash, bytes: u64, from: NodeId) {
        if bytes > limits::BLOB_BYTES {
            self.inbox.push_local(Event::Net(NetEvent::Fetched { hash, here: false }));
            return;
        }
        self.parts.net.fetch(hash, bytes, from);
    }

    fn drop_blob(&self, hash: taskmesh_core::BlobHash) {
        let blobs = self.parts.blobs.clone();
        self.runtime.spawn_blocking(move || {
            if let Err(error) = blobs.remove(hash) {
                tracing::warn!(%error, %hash, "a blob that nobody needs could not be removed");
            }
        });
    }

    fn read_blob(&self, hash: taskmesh_core::BlobHash) {
        let (reader, inbox) = (self.reader.clone(), self.inbox.clone());
        self.runtime.spawn(async move {
            let content = reader.find_blob(hash, 0, limits::PAYLOAD_BYTES).await;
            let whole = content.filter(|content| taskmesh_core::BlobHash::of(content) == hash);
            inbox.push_local(Event::BlobRead { hash, content: whole.map(Arc::from) });
        });
    }

    fn observe_stats(&mut self) {
        if self.stats_at.is_none_or(|at| at.elapsed() >= STATS) {
            self.stats_at = Some(Instant::now());
            let stats = self.parts.node.stats();
            (self.parts.observer)(Observation::Stats(&stats));
            let node = &self.parts.node;
            if !self.traced.is_empty() {
                // A run that another grant took the place of ends untold.
                let here: HashSet<_> = node.executions().map(|(task, _)| task).collect();
                self.traced.retain(|task, _| here.contains(task));
            }
            let (watched, short_of_copies) = (node.watched(), node.short_of_copies());
            (self.parts.observer)(Observation::Fleet { watched, short_of_copies });
        }
    }
}

fn written_task(effect: &Effect) -> Option<TaskId> {
    match effect {
        Effect::Persist(Entry::Record { record, .. }) => Some(record.task.clone()),
        _ => None,
    }
}

/// Whether an effect holds whatever becomes of the batch's writes: an order to
/// run what another node granted, or this node in an earlier batch, and the
/// end of a run, of which an executor keeps nothing on disk.
fn rests_on_nothing(effect: &Effect, node: NodeId, written: &HashSet<TaskId>) -> bool {
    match effect {
        Effect::Run { task, fence, .. } => fence.ballot.owner != node || !written.contains(task),
        Effect::Send { message, .. } => matches!(message, Message::Finished(_)),
        _ => false,
    }
}

/// The wall clock, as records carry it.
#[must_use]
pub fn wall_clock() -> Unix {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let ahead = Millis(AHEAD_S.load(Ordering::Relaxed) * 1_000);
    Unix(u64::try_from(since.as_millis()).unwrap_or(u64::MAX)) + ahead
}

/// Puts the clock of this process ahead of the machine's: all of it, so that
/// records, tokens and what is shown agree.
pub fn put_clock_ahead(seconds: u64) {
    AHEAD_S.store(seconds, Ordering::Relaxed);
}

/// One clock for the whole process, as the machine's is.
static AHEAD_S: AtomicU64 = AtomicU64::new(0);

fn report_is_small(report: &RawReport) -> bool {
    let parts = [Some(&report.result), report.output.as_ref(), report.logs.as_ref()];
    parts.into_iter().flatten().all(|part| part.len() <= limits::INLINE_BYTES)
}

fn small_report(report: RawReport) -> Report {
    let inline = |content: Vec<u8>| Data::Inline(content.into());
    Report {
        result: inline(report.result),
        output: report.output.map(inline),
        logs: report.logs.map(inline),
        truncated: report.truncated,
        usage: report.usage,
    }
}

fn store_report(blobs: &Blobs, report: RawReport) -> Result<Report, StoreError> {
    let keep = |content: Vec<u8>| -> Result<Data, StoreError> {
        if content.len() <= limits::INLINE_BYTES {
            return Ok(Data::Inline(content.into()));
        }
        Ok(Data::Blob { hash: blobs.put(&content)?, bytes: content.len() as u64 })
    };
    Ok(Report {
        result: keep(report.result)?,
        output: report.output.map(keep).transpose()?,
        logs: report.logs.map(keep).transpose()?,
        truncated: report.truncated,
        usage: report.usage,
    })
}

fn unstorable(error: &StoreError) -> taskmesh_core::execution::Verdict {
    let error = format!("its output could not be stored: {error}").into();
    taskmesh_core::execution::Verdict::Failed { error, retryable: true }
}

#[cfg(test)]
mod tests {
    use super::*;
    use taskmesh_core::{Ballot, Fence, WorkerId, testing};

    #[test]
    fn a_run_goes_ahead_unless_its_grant_is_still_to_be_written() {
        let (here, there) = (NodeId::test(1), NodeId::test(2));
        let task = TaskId::new("t").expect("a valid id");
        let run = |owner| Effect::Run {
            task: task.clone(),
            fence: Fence { ballot: Ballot { epoch: 1, owner }, attempt: 1 },
            worker: WorkerId::new("w").expect("a valid id"),
            spec: Arc::new(testing::spec()),
        };
        let written = HashSet::from([task.clone()]);
        assert!(!rests_on_nothing(&run(here), here, &written));
        assert!(rests_on_nothing(&run(here), here, &HashSet::new()), "granted in an earlier batch");
        assert!(rests_on_nothing(&run(there), here, &written), "its grant is on the owner's disk");
    }

    #[test]
    fn what_says_something_of_a_record_waits() {
        let node = NodeId::test(1);
        let ack = Message::Ack { task: TaskId::new("t").expect("a valid id"), stamp: taskmesh_core::Stamp::default() };
        assert!(!rests_on_nothing(&Effect::Send { to: NodeId::test(2), message: ack }, node, &HashSet::new()));
    }
}
