//! What the metrics say after what has happened, and that Prometheus's own
//! checker takes it.

#![allow(clippy::unwrap_used)]

use super::metrics::{Metrics, NetCounts};
use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use taskmesh_core::cache::{Gone, Policy};
use taskmesh_core::explain::Reason;
use taskmesh_core::view::{Pause, Stats, Status, WorkerStatus, WorkerView};
use taskmesh_core::{Millis, NodeId, Notice, TaskId, Unix, WorkerId};

fn task() -> TaskId {
    TaskId::new("job").unwrap()
}

fn peer(n: u64) -> NodeId {
    NodeId::test(n)
}

fn echo() -> Arc<str> {
    "echo".into()
}

/// One of each notice, as a task's life goes.
fn a_life() -> Vec<Notice> {
    let (queued, leased) = (Some(Status::Queued), Some(Status::Leased));
    let moved = |from, to| Notice::TaskMoved { task_type: echo(), from, to };
    vec![
        Notice::TaskAccepted { task: task(), task_type: echo(), took: Millis(12) },
        moved(None, queued),
        Notice::TaskGranted { task: task(), executor: peer(2), attempt: 1, waited: Millis(30) },
        moved(queued, leased),
        Notice::TaskStarted { task: task(), task_type: echo(), attempt: 1, waited: Millis(1) },
        Notice::RunEnded { task: task(), task_type: echo(), attempt: 1, verdict: "failed", ran: Millis(400) },
        Notice::TaskRetried { task: task(), error: "no".into(), delay: Millis(5) },
        Notice::LeaseLost { task: task(), executor: peer(2) },
        moved(leased, Some(Status::Completed)),
        Notice::TaskClosed {
            task: task(),
            task_type: echo(),
            status: Status::Completed,
            attempt: 3,
            executor: Some(peer(2)),
            took: Millis(2_000),
            settled_in: Millis(3),
        },
        Notice::OwnerAdopted { task: task(), from: peer(2) },
        Notice::HoldersChanged { task: task(), holders: vec![peer(1)] },
        Notice::PeerUp(peer(2)),
        Notice::PeerUp(peer(2)),
        Notice::PeerUp(peer(3)),
        Notice::PeerLost(peer(3)),
        Notice::Refused { from: peer(2), why: "old_fence" },
        Notice::Damaged { task: task() },
        Notice::Repaired { task: task() },
        Notice::QueuePaused(true),
        Notice::CacheLookedUp { found: "hit" },
        Notice::CacheEvicted { policy: Policy::Lfu, why: Gone::Bytes },
        Notice::CacheHolds { entries: 3, bytes: 4_096 },
        Notice::Replicated { took: Millis(8) },
    ]
}

/// The samples of a text by name and labels.
fn samples(text: &str) -> HashMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        })
        .collect()
}

#[test]
fn what_happened_is_what_is_counted() {
    let metrics = Metrics::new();
    a_life().iter().for_each(|notice| metrics.observe(notice));
    let said = samples(&metrics.render(""));
    for (name, value) in [
        (r#"taskmesh_tasks{state="queued",task_type="echo"}"#, 0.0),
        (r#"taskmesh_tasks{state="leased",task_type="echo"}"#, 0.0),
        (r#"taskmesh_tasks{state="completed",task_type="echo"}"#, 1.0),
        (r#"taskmesh_tasks_accepted_total{task_type="echo"}"#, 1.0),
        (r#"taskmesh_tasks_closed_total{state="completed",task_type="echo"}"#, 1.0),
        ("taskmesh_submit_duration_seconds_sum", 0.012),
        ("taskmesh_claim_duration_seconds_sum", 0.03),
        ("taskmesh_settle_duration_seconds_sum", 0.003),
        (r#"taskmesh_task_duration_seconds_sum{task_type="echo"}"#, 2.0),
        ("taskmesh_task_attempts_sum", 3.0),
        ("taskmesh_attempts_granted_total", 1.0),
        ("taskmesh_attempts_failed_total", 1.0),
        ("taskmesh_leases_lost_total", 1.0),
        (r#"taskmesh_runs_started_total{task_type="echo"}"#, 1.0),
        (r#"taskmesh_runs_ended_total{task_type="echo",verdict="failed"}"#, 1.0),
        (r#"taskmesh_run_duration_seconds_sum{task_type="echo"}"#, 0.4),
        ("taskmesh_run_start_delay_seconds_count", 1.0),
        ("taskmesh_peers", 1.0),
        ("taskmesh_peers_lost_total", 1.0),
        ("taskmesh_tasks_adopted_total", 1.0),
        ("taskmesh_holders_changed_total", 1.0),
        ("taskmesh_replication_lag_seconds_sum", 0.008),
        (r#"taskmesh_messages_refused_total{reason="old_fence"}"#, 1.0),
        ("taskmesh_records_damaged_total", 1.0),
        ("taskmesh_records_repaired_total", 1.0),
        ("taskmesh_queue_paused", 1.0),
    ] {
        assert_eq!(said.get(name), Some(&value), "{name}");
    }
    assert!(said["process_resident_memory_bytes"] > 1e6);
    assert!(said["process_open_fds"] > 2.0 && said["process_max_fds"] > 2.0 && said["process_threads"] >= 1.0);
}

#[test]
fn a_task_type_from_outside_costs_no_series_beyond_the_bound() {
    let metrics = Metrics::new();
    for n in 0..200 {
        let task_type: Arc<str> = format!("type-{n}").into();
        for to in [Status::Queued, Status::Running] {
            metrics.observe(&Notice::TaskMoved { task_type: task_type.clone(), from: None, to: Some(to) });
        }
    }
    let said = samples(&metrics.render(""));
    let types = said.keys().filter(|name| name.starts_with("taskmesh_tasks{state=\"queued\""));
    assert_eq!(types.count(), 51);
    assert_eq!(said[r#"taskmesh_tasks{state="queued",task_type="other"}"#], 150.0);
}

fn worker(slots: u32, running: Option<u32>) -> WorkerView {
    WorkerView {
        worker: WorkerId::new("w").unwrap(),
        node: peer(1),
        status: WorkerStatus::Active,
        capabilities: Vec::new(),
        labels: BTreeMap::new(),
        resources: None,
        slots,
        running,
        free: None,
        completed: None,
        failed: None,
        last_seen: None,
        tasks: None,
        load: None,
    }
}

#[test]
fn a_queue_is_stuck_when_ready_work_waits_too_long_unless_paused() {
    let metrics = Metrics::new();
    let mut stats = Stats {
        counts: BTreeMap::from([(Status::Queued, 7), (Status::Running, 2)]),
        oldest_queued: Some(Millis(300_001)),
        workers: Some(vec![worker(5, Some(2)), worker(3, None)]),
        ..Stats::default()
    };
    metrics.stats(&stats);
    let said = samples(&metrics.render(""));
    assert_eq!(said["taskmesh_queue_depth"], 7.0);
    assert_eq!(said["taskmesh_queue_oldest_age_seconds"], 300.001);
    assert_eq!(said["taskmesh_queue_stuck"], 1.0);
    let slots = (said["taskmesh_workers"], said["taskmesh_worker_slots"], said["taskmesh_worker_slots_free"]);
    assert_eq!(slots, (2.0, 8.0, 6.0));

    stats.paused = Some(Pause { at: Unix(0), reason: None });
    metrics.stats(&stats);
    assert_eq!(samples(&metrics.render(""))["taskmesh_queue_stuck"], 0.0);

    metrics.stats(&Stats { oldest_queued: Some(Millis(300_000)), ..Stats::default() });
    assert_eq!(samples(&metrics.render(""))["taskmesh_queue_stuck"], 0.0);
}

#[test]
fn waiting_tasks_are_counted_by_every_reason() {
    let metrics = Metrics::new();
    let waiting = BTreeMap::from([(Reason::Slot, 3), (Reason::Fairness, 2)]);
    metrics.stats(&Stats { waiting, ..Stats::default() });
    let said = samples(&metrics.render(""));
    for reason in Reason::ALL {
        let expected = match reason {
            Reason::Slot => 3.0,
            Reason::Fairness => 2.0,
            _ => 0.0,
        };
        let line = format!("taskmesh_waiting_tasks{{reason=\"{}\"}}", reason.name());
        assert_eq!(said.get(line.as_str()).copied(), Some(expected), "{line}");
    }
}

#[test]
fn the_shells_measurements_are_shown() {
    let metrics = Metrics::new();
    metrics.commit(12, 3_000, Duration::from_millis(4), Duration::from_millis(3), 1);
    metrics.commit(1, 100, Duration::from_millis(2), Duration::from_millis(2), 2);
    metrics.batch(100, 5);
    metrics.unsent(3);
    let counts = NetCounts {
        messages_sent: 10,
        requests_busy: 2,
        bad_messages: BTreeMap::from([("too_large", 4)]),
        ..NetCounts::default()
    };
    metrics.net(&counts);
    metrics.net(&NetCounts { messages_sent: 15, ..counts.clone() });
    metrics.net(&counts);
    let said = samples(&metrics.render(""));
    assert_eq!(said["taskmesh_store_commit_duration_seconds_sum"], 0.006);
    assert_eq!(said["taskmesh_store_commit_entries_sum"], 13.0);
    assert_eq!((said["taskmesh_store_written_bytes_total"], said["taskmesh_store_syncs_total"]), (3_100.0, 3.0));
    assert_eq!((said["taskmesh_driver_batch_inputs_sum"], said["taskmesh_driver_inbox_depth"]), (100.0, 5.0));
    assert_eq!(said["taskmesh_driver_unsent_messages_total"], 3.0);
    assert_eq!(said[r#"taskmesh_net_messages_total{direction="sent"}"#], 15.0, "a counter never goes back");
    assert_eq!(said["taskmesh_net_requests_busy_total"], 2.0);
    assert_eq!(said[r#"taskmesh_net_messages_rejected_total{reason="too_large"}"#], 4.0);
}

#[test]
fn prometheus_takes_it() {
    let metrics = Metrics::new();
    a_life().iter().for_each(|notice| metrics.observe(notice));
    metrics.observe(&Notice::TaskAccepted { task: task(), task_type: "a\"\\\n# }{,".into(), took: Millis(1) });
    metrics.net(&NetCounts::default());
    let libp2p = "# HELP libp2p_kad_queries Queries.\n# TYPE libp2p_kad_queries counter\n\
        libp2p_kad_queries_total{kind=\"find\"} 4\n# HELP libp2p_rtt_seconds Round trips.\n\
        # TYPE libp2p_rtt_seconds histogram\n# UNIT libp2p_rtt_seconds seconds\nlibp2p_rtt_seconds_sum 1.5\n\
        libp2p_rtt_seconds_count 2\nlibp2p_rtt_seconds_bucket{le=\"1.0\"} 2\n\
        libp2p_rtt_seconds_bucket{le=\"+Inf\"} 2\n# EOF\n";
    let text = metrics.render(libp2p);
    assert!(text.contains("libp2p_kad_queries_total{kind=\"find\"} 4\n") && !text.contains("# EOF"));
    let checker =
        Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let Ok(mut checker) = checker else {
        println!("not checked by promtool: it is not installed (Debian: apt-get install prometheus)");
        return;
    };
    checker.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let checked = checker.wait_with_output().unwrap();
    let complaint = String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success() && complaint.is_empty(), "{complaint}\n{text}");
}
