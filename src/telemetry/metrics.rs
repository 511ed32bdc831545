//! The metrics of a node. Tasks and the mesh are counted from the core's
//! [`Notice`]s alone; the shell adds what it measures of its disk, its network
//! and itself. Rendered as Prometheus text, together with libp2p's own.

use super::book::{Book, Bounded};
use super::exposition;
use super::families::{Cache, Driver, Facade, Mesh, Net, Queue, Runs, Source, Store, Tasks, build_info};
use super::process::{DiskRoom, ProcessMetrics};
use prometheus::{IntCounter, IntCounterVec, TextEncoder};
use std::collections::{BTreeMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use taskmesh_core::explain::Reason;
use taskmesh_core::view::{Stats, Status};
use taskmesh_core::{Millis, NodeId, Notice};

/// A ready task that waits for longer, while the queue is not paused, is
/// stuck: no worker fits it, or none has had room for as long as any patient
/// person would wait before asking why.
pub const STUCK_AFTER: Millis = Millis(5 * 60_000);

/// Every metric of a node. Shared by reference; all methods are cheap and may
/// be called from any thread.
pub struct Metrics {
    book: Book,
    types: Bounded,
    live_peers: Mutex<HashSet<NodeId>>,
    tasks: Tasks,
    runs: Runs,
    queue: Queue,
    mesh: Mesh,
    cache: Cache,
    store: Store,
    driver: Driver,
    facade: Facade,
    source: Source,
    net: Net,
    process: ProcessMetrics,
}

/// What the network has counted since the node started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetCounts {
    /// Messages written to streams.
    pub messages_sent: u64,
    /// Messages taken from streams and requests and given to the node.
    pub messages_received: u64,
    /// Frames written to streams.
    pub frames_sent: u64,
    /// Frames read.
    pub frames_received: u64,
    /// Bytes of frames and chunks written.
    pub bytes_sent: u64,
    /// Bytes of frames and chunks read.
    pub bytes_received: u64,
    /// Frames that went by request because there was no stream.
    pub frames_by_request: u64,
    /// Messages refused because a peer's queue was full.
    pub queue_full: u64,
    /// Messages refused because the peer was not connected.
    pub not_connected: u64,
    /// Messages given up when their connection was lost.
    pub messages_lost: u64,
    /// Gossip published.
    pub gossip_sent: u64,
    /// Gossip given to the node.
    pub gossip_received: u64,
    /// Gossip dropped.
    pub gossip_dropped: u64,
    /// Requests of others that were answered.
    pub requests_served: u64,
    /// Requests to others that were answered.
    pub requests_answered: u64,
    /// Requests to others that failed.
    pub requests_failed: u64,
    /// Requests of others that were refused because too many were under way.
    pub requests_busy: u64,
    /// Dials begun.
    pub dials: u64,
    /// Dials that failed.
    pub dials_failed: u64,
    /// Connections closed to mend gossip or after a restart of the peer.
    pub mended: u64,
    /// Peers with a direct connection, now.
    pub peers_direct: u64,
    /// Peers that are connected over relays alone, now.
    pub peers_relayed: u64,
    /// Relayed connections that were replaced by a direct one.
    pub paths_moved: u64,
    /// Direct connections that were made through NATs.
    pub holes_punched: u64,
    /// Attempts at that which failed.
    pub holes_failed: u64,
    /// Places that relays keep for this node, now.
    pub reservations: u64,
    /// Connections of others that this node carries, now.
    pub circuits: u64,
    /// Connections of others that it began to carry.
    pub circuits_carried: u64,
    /// Those that it refused to, and places that it did not give.
    pub circuits_refused: u64,
    /// By the dials of others: 0: not known, 1: not reachable, 2: reachable.
    pub reachability: u64,
    /// Messages from other nodes that were dropped, by reason (a fixed word).
    pub bad_messages: BTreeMap<&'static str, u64>,
    /// Connections that were refused, by reason (a fixed word).
    pub refused_connections: BTreeMap<&'static str, u64>,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

impl Metrics {
    /// All metrics, at zero.
    #[must_use]
    pub fn new() -> Metrics {
        let mut book = Book::new();
        let build = build_info(&mut book);
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Metrics {
            tasks: Tasks::new(&mut book),
            runs: Runs::new(&mut book),
            queue: Queue::new(&mut book),
            mesh: Mesh::new(&mut book),
            cache: Cache::new(&mut book),
            store: Store::new(&mut book),
            driver: Driver::new(&mut book),
            facade: Facade::new(&mut book),
            source: Source::new(&mut book),
            net: Net::new(&mut book),
            process: ProcessMetrics::new(&mut book),
            types: Bounded::default(),
            live_peers: Mutex::default(),
            book,
        }
    }

    /// Counts what happened. The only source of what is said of tasks and of
    /// the mesh.
    pub fn observe(&self, notice: &Notice) {
        match notice {
            Notice::TaskAccepted { task_type, took, .. } => {
                self.tasks.accepted.with_label_values(&[self.types.label(task_type)]).inc();
                self.tasks.submit.observe(seconds(*took));
            }
            Notice::TaskMoved { task_type, from, to } => self.moved(task_type, *from, *to),
            Notice::TaskGranted { waited, .. } => {
                self.tasks.granted.inc();
                self.tasks.claim.observe(seconds(*waited));
            }
            Notice::TaskStarted { task_type, waited, .. } => {
                self.runs.started.with_label_values(&[self.types.label(task_type)]).inc();
                self.runs.start_delay.observe(seconds(*waited));
            }
            Notice::RunEnded { task_type, verdict, ran, .. } => {
                let task_type = self.types.label(task_type);
                self.runs.ended.with_label_values(&[task_type, verdict]).inc();
                self.runs.duration.with_label_values(&[task_type]).observe(seconds(*ran));
            }
            Notice::TaskClosed { task_type, status, attempt, took, settled_in, .. } => {
                let task_type = self.types.label(task_type);
                self.tasks.closed.with_label_values(&[task_type, status.name()]).inc();
                self.tasks.total.with_label_values(&[task_type]).observe(seconds(*took));
                self.tasks.settle.observe(seconds(*settled_in));
                self.tasks.attempts.observe(f64::from(*attempt));
            }
            Notice::LeaseLost { .. } => self.tasks.leases_lost.inc(),
            Notice::TaskRetried { .. } => self.tasks.retried.inc(),
            Notice::OwnerAdopted { .. } => self.mesh.adopted.inc(),
            Notice::HoldersChanged { .. } => self.mesh.rehomed.inc(),
            Notice::PeerUp(peer) => self.peers(|live| live.insert(*peer)),
            Notice::PeerLost(peer) => {
                self.mesh.peers_lost.inc();
                self.peers(|live| live.remove(peer));
            }
            Notice::Refused { why, .. } => self.mesh.refused.with_label_values(&[why]).inc(),
            Notice::Damaged { .. } => self.mesh.damaged.inc(),
            Notice::Repaired { .. } => self.mesh.repaired.inc(),
            // Said by a person, and in the log.
            Notice::NodeForgotten(_) | Notice::CastOut(_) => {}
            Notice::QueuePaused(paused) => self.queue.paused.set(i64::from(*paused)),
            Notice::CacheLookedUp { found } => self.cache.lookups.with_label_values(&[found]).inc(),
            Notice::CacheEvicted { policy, why } => {
                self.cache.evictions.with_label_values(&[policy.name(), why.name()]).inc();
            }
            Notice::CacheHolds { entries, bytes } => {
                self.cache.entries.set(whole(*entries));
                self.cache.bytes.set(*bytes as f64);
            }
            Notice::Replicated { took } => self.mesh.replication.observe(seconds(*took)),
        }
    }

    /// This node's own counts; every second or so.
    pub fn stats(&self, stats: &Stats) {
        let oldest = stats.oldest_queued.unwrap_or_default();
        let stuck = stats.paused.is_none() && oldest > STUCK_AFTER;
        let workers = stats.workers.as_deref().unwrap_or_default();
        let slots: i64 = workers.iter().map(|worker| i64::from(worker.slots)).sum();
        let running: i64 = workers.iter().map(|worker| i64::from(worker.running.unwrap_or_default())).sum();
        self.queue.depth.set(whole(stats.counts.get(&Status::Queued).copied().unwrap_or_default()));
        for reason in Reason::ALL {
            let tasks = stats.waiting.get(&reason).copied().unwrap_or_default();
            self.queue.waiting.with_label_values(&[reason.name()]).set(whole(tasks));
        }
        self.queue.oldest.set(seconds(oldest));
        self.queue.stuck.set(i64::from(stuck));
        self.queue.paused.set(i64::from(stats.paused.is_some()));
        self.queue.workers.set(whole(workers.len() as u64));
        self.queue.slots.set(slots);
        self.queue.free.set((slots - running).max(0));
    }

    /// A batch was made durable: how many entries and bytes, how long it took,
    /// how long of that the disk took, and how often it was waited for.
    pub fn commit(&self, entries: usize, bytes: u64, took: Duration, synced: Duration, syncs: u32) {
        self.store.commit.observe(took.as_secs_f64());
        self.store.sync.observe(synced.as_secs_f64());
        self.store.entries.observe(entries as f64);
        self.store.bytes.inc_by(bytes);
        self.store.syncs.inc_by(u64::from(syncs));
    }

    /// The driver handled a batch of `inputs`, and `waiting` are behind it.
    pub fn batch(&self, inputs: usize, waiting: usize) {
        self.driver.inputs.observe(inputs as f64);
        self.driver.waiting.set(whole(waiting as u64));
    }

    /// Owned tasks that are short of copies; every second or so.
    pub fn short_of_copies(&self, tasks: u64) {
        self.mesh.short.set(whole(tasks));
    }

    /// The room on the disk of the data folder; before each rendering.
    pub fn disk(&self, room: DiskRoom) {
        self.store.free.set(room.free as f64);
        self.store.size.set(room.size as f64);
    }

    /// Messages that the network did not take.
    pub fn unsent(&self, messages: usize) {
        self.driver.unsent.inc_by(messages as u64);
    }

    /// A call of the facade ended with `code` (`ok` or an error's) after `took`.
    pub fn call(&self, operation: &str, code: &str, took: Duration) {
        self.facade.calls.with_label_values(&[operation, code]).inc();
        self.facade.duration.with_label_values(&[operation]).observe(took.as_secs_f64());
    }

    /// What the audit log has counted; before each rendering.
    pub fn audit(&self, failures: u64) {
        raise(&self.facade.audit_failures, failures);
    }

    /// The foreign queue answers, or does not.
    pub fn source_connected(&self, connected: bool) {
        self.source.connected.set(i64::from(connected));
    }

    /// Claims of foreign tasks that are held.
    pub fn source_held(&self, claims: usize) {
        self.source.held.set(whole(claims as u64));
    }

    /// A foreign task was claimed.
    pub fn source_claimed(&self) {
        self.source.claimed.inc();
    }

    /// A claim of a foreign task is over, by a fixed word.
    pub fn source_ended(&self, outcome: &str) {
        self.source.ended.with_label_values(&[outcome]).inc();
    }

    /// What the network has counted; before each rendering.
    pub fn net(&self, counts: &NetCounts) {
        let net = &self.net;
        raise_each(&net.messages, &[("sent", counts.messages_sent), ("received", counts.messages_received)]);
        raise_each(&net.frames, &[("sent", counts.frames_sent), ("received", counts.frames_received)]);
        raise_each(&net.bytes, &[("sent", counts.bytes_sent), ("received", counts.bytes_received)]);
        let dropped = [
            ("queue_full", counts.queue_full),
            ("not_connected", counts.not_connected),
            ("connection_lost", counts.messages_lost),
        ];
        raise_each(&net.dropped, &dropped);
        let gossip =
            [("sent", counts.gossip_sent), ("received", counts.gossip_received), ("dropped", counts.gossip_dropped)];
        raise_each(&net.gossip, &gossip);
        let requests = [("answered", counts.requests_answered), ("failed", counts.requests_failed)];
        raise_each(&net.requests, &requests);
        raise(&net.requests_served, counts.requests_served);
        raise(&net.requests_busy, counts.requests_busy);
        raise(&net.frames_by_request, counts.frames_by_request);
        raise(&net.dials, counts.dials);
        raise(&net.dials_failed, counts.dials_failed);
        raise(&net.mended, counts.mended);
        net.peers.with_label_values(&["direct"]).set(whole(counts.peers_direct));
        net.peers.with_label_values(&["relayed"]).set(whole(counts.peers_relayed));
        raise(&net.moved, counts.paths_moved);
        raise_each(&net.holes, &[("punched", counts.holes_punched), ("failed", counts.holes_failed)]);
        net.reservations.set(whole(counts.reservations));
        net.circuits.set(whole(counts.circuits));
        raise_each(&net.carried, &[("carried", counts.circuits_carried), ("refused", counts.circuits_refused)]);
        net.reachability.set(whole(counts.reachability));
        counts.bad_messages.iter().for_each(|(why, n)| raise(&net.bad.with_label_values(&[why]), *n));
        counts.refused_connections.iter().for_each(|(why, n)| raise(&net.refused.with_label_values(&[why]), *n));
    }

    /// Everything as Prometheus text (format 0.0.4), with libp2p's own metrics
    /// (OpenMetrics text) after it. Reads `/proc`: some 100 µs.
    #[must_use]
    pub fn render(&self, libp2p_text: &str) -> String {
        self.process.measure();
        let mut text = String::new();
        let families = self.book.registry().gather();
        if let Err(error) = TextEncoder::new().encode_utf8(&families, &mut text) {
            tracing::error!(%error, "metrics can't be encoded");
        }
        let own: HashSet<&str> = families.iter().map(|family| family.name()).collect();
        text += &exposition::from_openmetrics(libp2p_text, &own);
        text
    }

    fn moved(&self, task_type: &str, from: Option<Status>, to: Option<Status>) {
        let task_type = self.types.label(task_type);
        if let Some(from) = from {
            self.tasks.owned.with_label_values(&[task_type, from.name()]).dec();
        }
        if let Some(to) = to {
            self.tasks.owned.with_label_values(&[task_type, to.name()]).inc();
        }
    }

    fn peers(&self, change: impl FnOnce(&mut HashSet<NodeId>) -> bool) {
        let mut live = self.live_peers.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut live);
        self.mesh.peers.set(whole(live.len() as u64));
    }
}

/// What the `Content-Type` of [`Metrics::render`] is.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The tables of `docs/metrics.md`.
pub(super) fn tables() -> String {
    Metrics::new().book.tables()
}

/// The counter follows a count that somebody else keeps.
fn raise(counter: &IntCounter, to: u64) {
    counter.inc_by(to.saturating_sub(counter.get()));
}

fn raise_each(counters: &IntCounterVec, to: &[(&str, u64)]) {
    to.iter().for_each(|(label, n)| raise(&counters.with_label_values(&[label]), *n));
}

fn seconds(span: Millis) -> f64 {
    span.0 as f64 / 1_000.0
}

fn whole(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
