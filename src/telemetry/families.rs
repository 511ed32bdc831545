//! Every metric by name, with what it means: the lines of `docs/metrics.md`.
//! Names and units follow Prometheus: base units, `_total` for counters.

use super::book::Book;
use prometheus::{Gauge, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

/// Tasks that this node owns.
pub(super) struct Tasks {
    pub(super) owned: IntGaugeVec,
    pub(super) accepted: IntCounterVec,
    pub(super) closed: IntCounterVec,
    pub(super) submit: Histogram,
    pub(super) claim: Histogram,
    pub(super) settle: Histogram,
    pub(super) total: HistogramVec,
    pub(super) attempts: Histogram,
    pub(super) granted: IntCounter,
    pub(super) retried: IntCounter,
    pub(super) leases_lost: IntCounter,
}

/// Runs on this node.
pub(super) struct Runs {
    pub(super) started: IntCounterVec,
    pub(super) ended: IntCounterVec,
    pub(super) start_delay: Histogram,
    pub(super) duration: HistogramVec,
}

/// Its queue and workers.
pub(super) struct Queue {
    pub(super) depth: IntGauge,
    pub(super) waiting: IntGaugeVec,
    pub(super) oldest: Gauge,
    pub(super) stuck: IntGauge,
    pub(super) paused: IntGauge,
    pub(super) workers: IntGauge,
    pub(super) slots: IntGauge,
    pub(super) free: IntGauge,
}

/// Other nodes, and copies.
pub(super) struct Mesh {
    pub(super) peers: IntGauge,
    pub(super) peers_lost: IntCounter,
    pub(super) adopted: IntCounter,
    pub(super) rehomed: IntCounter,
    pub(super) short: IntGauge,
    pub(super) replication: Histogram,
    pub(super) refused: IntCounterVec,
    pub(super) damaged: IntCounter,
    pub(super) repaired: IntCounter,
}

/// Results for later tasks.
pub(super) struct Cache {
    pub(super) lookups: IntCounterVec,
    pub(super) evictions: IntCounterVec,
    pub(super) entries: IntGauge,
    pub(super) bytes: Gauge,
}

/// The disk.
pub(super) struct Store {
    pub(super) commit: Histogram,
    pub(super) sync: Histogram,
    pub(super) entries: Histogram,
    pub(super) bytes: IntCounter,
    pub(super) syncs: IntCounter,
    pub(super) free: Gauge,
    pub(super) size: Gauge,
}

/// The loop.
pub(super) struct Driver {
    pub(super) inputs: Histogram,
    pub(super) waiting: IntGauge,
    pub(super) unsent: IntCounter,
}

/// The facade.
pub(super) struct Facade {
    pub(super) calls: IntCounterVec,
    pub(super) duration: HistogramVec,
    pub(super) audit_failures: IntCounter,
}

/// A foreign queue as a source of work.
pub(super) struct Source {
    pub(super) connected: IntGauge,
    pub(super) held: IntGauge,
    pub(super) claimed: IntCounter,
    pub(super) ended: IntCounterVec,
}

/// The network.
pub(super) struct Net {
    pub(super) messages: IntCounterVec,
    pub(super) frames: IntCounterVec,
    pub(super) frames_by_request: IntCounter,
    pub(super) bytes: IntCounterVec,
    pub(super) dropped: IntCounterVec,
    pub(super) gossip: IntCounterVec,
    pub(super) requests: IntCounterVec,
    pub(super) requests_served: IntCounter,
    pub(super) requests_busy: IntCounter,
    pub(super) dials: IntCounter,
    pub(super) dials_failed: IntCounter,
    pub(super) bad: IntCounterVec,
    pub(super) refused: IntCounterVec,
    pub(super) mended: IntCounter,
    pub(super) peers: IntGaugeVec,
    pub(super) moved: IntCounter,
    pub(super) holes: IntCounterVec,
    pub(super) reservations: IntGauge,
    pub(super) circuits: IntGauge,
    pub(super) carried: IntCounterVec,
    pub(super) reachability: IntGauge,
}

/// Which version runs.
pub(super) fn build_info(book: &mut Book) -> IntGaugeVec {
    book.section("Build");
    book.gauges("taskmesh_build_info", "Always 1; its label says which version runs.", &["version"])
}

impl Tasks {
    pub(super) fn new(book: &mut Book) -> Tasks {
        let by_type = &["task_type"];
        book.section("Tasks that this node owns");
        Tasks {
            owned: book.gauges(
                "taskmesh_tasks",
                "Owned tasks by state, ended ones while they are kept.",
                &["task_type", "state"],
            ),
            accepted: book.counters(
                "taskmesh_tasks_accepted_total",
                "Tasks accepted here: a majority had them.",
                by_type,
            ),
            closed: book.counters(
                "taskmesh_tasks_closed_total",
                "Tasks that ended, by their final state.",
                &["task_type", "state"],
            ),
            submit: book.histogram(
                "taskmesh_submit_duration_seconds",
                "From a submission to its acceptance by a majority.",
                &QUICK,
            ),
            claim: book.histogram(
                "taskmesh_claim_duration_seconds",
                "From the time that a task was ready to its grant to an executor.",
                &LONG,
            ),
            settle: book.histogram(
                "taskmesh_settle_duration_seconds",
                "From the end of a task to the time that a majority had its result.",
                &QUICK,
            ),
            total: book.histograms(
                "taskmesh_task_duration_seconds",
                "From a task's submission to its end.",
                by_type,
                &LONG,
            ),
            attempts: book.histogram(
                "taskmesh_task_attempts",
                "Attempts that a task had taken when it ended.",
                &[0.0, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0],
            ),
            granted: book.counter("taskmesh_attempts_granted_total", "Attempts granted to executors."),
            retried: book.counter("taskmesh_attempts_failed_total", "Failed attempts that are tried again."),
            leases_lost: book.counter("taskmesh_leases_lost_total", "Attempts that were lost with their node."),
        }
    }
}

impl Runs {
    pub(super) fn new(book: &mut Book) -> Runs {
        book.section("Runs on this node");
        Runs {
            started: book.counters("taskmesh_runs_started_total", "Runs that began.", &["task_type"]),
            ended: book.counters(
                "taskmesh_runs_ended_total",
                "Runs that ended: `completed`, `failed`, `timed_out`, `stopped` or `handed_back`.",
                &["task_type", "verdict"],
            ),
            start_delay: book.histogram(
                "taskmesh_run_start_delay_seconds",
                "From the arrival of a grant to the start of its run.",
                &QUICK,
            ),
            duration: book.histograms("taskmesh_run_duration_seconds", "How long runs took.", &["task_type"], &LONG),
        }
    }
}

impl Queue {
    pub(super) fn new(book: &mut Book) -> Queue {
        book.section("Queue and workers of this node");
        Queue {
            depth: book.gauge("taskmesh_queue_depth", "Owned tasks that are ready and wait for a worker."),
            waiting: book.gauges(
                "taskmesh_waiting_tasks",
                "Owned tasks that wait, by what they wait for: the `reason` of `task_status` with `explain`. Those \
                 whose holders can't be reached are counted as far as one look at the queue passes over them.",
                &["reason"],
            ),
            oldest: book.level(
                "taskmesh_queue_oldest_age_seconds",
                "How long the task has been ready that waits longest; 0 if none waits.",
            ),
            stuck: book.gauge(
                "taskmesh_queue_stuck",
                "1 while an owned task has been ready for more than 5 minutes and the queue is not paused.",
            ),
            paused: book.gauge("taskmesh_queue_paused", "1 while the queue of the mesh is paused."),
            workers: book.gauge("taskmesh_workers", "Workers of this node."),
            slots: book.gauge("taskmesh_worker_slots", "Tasks that its workers may run at once."),
            free: book.gauge("taskmesh_worker_slots_free", "Slots in which nothing runs."),
        }
    }
}

impl Mesh {
    pub(super) fn new(book: &mut Book) -> Mesh {
        book.section("The mesh as this node sees it");
        Mesh {
            peers: book.gauge("taskmesh_peers", "Other members that are heard."),
            peers_lost: book.counter("taskmesh_peers_lost_total", "Members that fell silent or went."),
            adopted: book.counter("taskmesh_tasks_adopted_total", "Tasks whose owner this node became after another."),
            rehomed: book.counter("taskmesh_holders_changed_total", "Changes of a task's holders that this node made."),
            short: book.gauge(
                "taskmesh_tasks_short_of_copies",
                "Owned tasks of which fewer copies than wanted are on live nodes; counted anew every few seconds.",
            ),
            replication: book.histogram(
                "taskmesh_replication_lag_seconds",
                "From an owner's write to its acknowledgement by a majority.",
                &QUICK,
            ),
            refused: book.counters(
                "taskmesh_messages_refused_total",
                "Messages and results that the protocol refused, as it should: old fences, old ballots.",
                &["reason"],
            ),
            damaged: book.counter("taskmesh_records_damaged_total", "Copies on this node's disk that were damaged."),
            repaired: book.counter("taskmesh_records_repaired_total", "Damaged copies that other holders made whole."),
        }
    }
}

impl Cache {
    pub(super) fn new(book: &mut Book) -> Cache {
        book.section("Results for later tasks");
        Cache {
            lookups: book.counters(
                "taskmesh_cache_lookups_total",
                "Tasks that asked this node for an earlier result: `hit`, `miss`, or `joined` where another that does \
                 the same was under way.",
                &["result"],
            ),
            evictions: book.counters(
                "taskmesh_cache_evictions_total",
                "Results that are kept no more, by the order of eviction in force and by why: too many `entries` or \
                 `bytes`, `expired`, `invalidated`, or `moved` to other nodes.",
                &["policy", "reason"],
            ),
            entries: book.gauge("taskmesh_cache_entries", "Results that are kept."),
            bytes: book.level("taskmesh_cache_bytes", "Their size, with what is kept in files."),
        }
    }
}

impl Store {
    pub(super) fn new(book: &mut Book) -> Store {
        book.section("Store");
        Store {
            commit: book.histogram(
                "taskmesh_store_commit_duration_seconds",
                "How long a batch took until it was durable.",
                &DISK,
            ),
            sync: book.histogram("taskmesh_store_sync_duration_seconds", "Of which waiting for the disk.", &DISK),
            entries: book.histogram("taskmesh_store_commit_entries", "Entries in a batch.", &SIZES),
            bytes: book.counter("taskmesh_store_written_bytes_total", "Bytes of keys and values written."),
            syncs: book.counter("taskmesh_store_syncs_total", "Times that the log was brought to the disk."),
            free: book.level(
                "taskmesh_store_disk_free_bytes",
                "What the node may still write to the file system of its data folder.",
            ),
            size: book.level("taskmesh_store_disk_size_bytes", "The size of that file system."),
        }
    }
}

impl Driver {
    pub(super) fn new(book: &mut Book) -> Driver {
        book.section("The loop");
        Driver {
            inputs: book.histogram("taskmesh_driver_batch_inputs", "Inputs that shared one round and commit.", &SIZES),
            waiting: book.gauge("taskmesh_driver_inbox_depth", "Inputs that waited behind the last round."),
            unsent: book.counter(
                "taskmesh_driver_unsent_messages_total",
                "Messages that the network did not take; the core sends again what matters.",
            ),
        }
    }
}

impl Facade {
    pub(super) fn new(book: &mut Book) -> Facade {
        book.section("The facade");
        Facade {
            calls: book.counters(
                "taskmesh_operations_total",
                "Calls of operations, by their code: `ok` or an error's.",
                &["operation", "code"],
            ),
            duration: book.histograms(
                "taskmesh_operation_duration_seconds",
                "From a call's arrival to its answer, waits that were asked for included.",
                &["operation"],
                &QUICK,
            ),
            audit_failures: book.counter(
                "taskmesh_audit_failures_total",
                "Lines of the audit log that could not be written, and flushes of it that failed.",
            ),
        }
    }
}

impl Source {
    pub(super) fn new(book: &mut Book) -> Source {
        book.section("A foreign queue as a source of work");
        Source {
            connected: book.gauge("taskmesh_source_connected", "1: the foreign queue of `source.queue` answers."),
            held: book.gauge("taskmesh_source_claims", "Claims of foreign tasks that this node holds."),
            claimed: book.counter("taskmesh_source_claimed_total", "Foreign tasks that were claimed."),
            ended: book.counters(
                "taskmesh_source_ended_total",
                "Claims that are over: the task `completed` or `failed`, was `released`, or the lease was `lost`.",
                &["outcome"],
            ),
        }
    }
}

impl Net {
    pub(super) fn new(book: &mut Book) -> Net {
        let direction = &["direction"];
        let reason = &["reason"];
        book.section("Network");
        Net {
            messages: book.counters("taskmesh_net_messages_total", "Messages on streams and in requests.", direction),
            frames: book.counters("taskmesh_net_frames_total", "Frames that carried them.", direction),
            frames_by_request: book.counter(
                "taskmesh_net_frames_by_request_total",
                "Frames that went by request because there was no stream.",
            ),
            bytes: book.counters("taskmesh_net_bytes_total", "Bytes of frames and of chunks of results.", direction),
            dropped: book.counters("taskmesh_net_messages_dropped_total", "Messages that were not sent.", reason),
            gossip: book.counters(
                "taskmesh_net_gossip_messages_total",
                "Gossip that was `sent`, `received`, or `dropped` over the rate or for want of a listener.",
                &["result"],
            ),
            requests: book.counters(
                "taskmesh_net_requests_total",
                "Requests to other nodes: `answered` or `failed`.",
                &["result"],
            ),
            requests_served: book.counter("taskmesh_net_requests_served_total", "Requests of other nodes answered."),
            requests_busy: book.counter(
                "taskmesh_net_requests_busy_total",
                "Requests of other nodes refused because too many were under way.",
            ),
            dials: book.counter("taskmesh_net_dials_total", "Dials begun."),
            dials_failed: book.counter("taskmesh_net_dials_failed_total", "Dials that failed."),
            bad: book.counters("taskmesh_net_messages_rejected_total", "Messages of others that were dropped.", reason),
            refused: book.counters("taskmesh_net_connections_refused_total", "Connections that were refused.", reason),
            mended: book.counter(
                "taskmesh_net_connections_mended_total",
                "Connections closed to mend a one-sided gossip mesh or after a peer's restart.",
            ),
            peers: book.gauges(
                "taskmesh_net_peers",
                "Nodes that are connected: with a `direct` connection, or `relayed` alone.",
                &["path"],
            ),
            moved: book.counter(
                "taskmesh_net_paths_moved_total",
                "Nodes that were reached over a relay, and then by a direct connection.",
            ),
            holes: book.counters(
                "taskmesh_net_hole_punches_total",
                "Attempts at direct connections through NATs: `punched`, or `failed`; each end counts what it made.",
                &["result"],
            ),
            reservations: book.gauge(
                "taskmesh_net_relay_reservations",
                "Relays that keep a place for this node, so that others reach it.",
            ),
            circuits: book.gauge("taskmesh_net_relay_circuits", "Connections of others that this node carries."),
            carried: book.counters(
                "taskmesh_net_relay_requests_total",
                "Connections of others that this node `carried`, or `refused` to carry or to keep a place for.",
                &["result"],
            ),
            reachability: book.gauge(
                "taskmesh_net_reachability",
                "By the dials of others: 0: not known, 1: not reachable, 2: reachable.",
            ),
        }
    }
}

/// From a commit to a lease: what takes no work, only messages and a disk.
const QUICK: [f64; 14] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0];
/// From a no-op to a day.
const LONG: [f64; 14] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1_800.0, 7_200.0, 86_400.0];
/// From a good disk's cache to a bad disk's worst.
const DISK: [f64; 13] = [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0];
/// Up to what one round takes.
const SIZES: [f64; 13] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1_024.0, 2_048.0, 4_096.0];
