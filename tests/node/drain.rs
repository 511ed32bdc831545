//! SIGTERM: a node takes no more, and hands back what it can't finish.

use crate::fleet::{Fleet, all_complete, eventually, items, submit};
use serde_json::json;
use std::time::{Duration, Instant};

/// Far longer than the test: whatever moves before, moved because it was
/// handed over, not because a lease ran out.
const LONG_LEASE: &[(&str, &str)] =
    &[("mesh.lease_ms", "120000"), ("mesh.away_ms", "240000"), ("worker.slots", "2"), ("node.drain_ms", "500")];

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_node_hands_its_runs_over_at_once() {
    let mut fleet = Fleet::with(3, LONG_LEASE).await;
    let array: Vec<_> = (0..6).map(|_| json!({"ms": 2500})).collect();
    submit(&fleet.nodes[0], json!({"task_id": "work", "task_type": "sleep", "payload": {}, "items": array})).await;
    let victim = fleet.nodes[2].peer_id().to_owned();
    eventually(Duration::from_secs(20), "the third node runs some", async || {
        let stats = fleet.nodes[0].call("queue_stats", json!({"include_worker_stats": true})).await.ok()?;
        let workers = stats["worker_stats"].as_array()?.clone();
        workers.iter().any(|w| w["node"] == json!(victim) && w["running_tasks"].as_u64() > Some(0)).then_some(())
    })
    .await;
    let asked = Instant::now();
    fleet.nodes[2].terminate();
    let status = fleet.nodes[2].ended(Duration::from_secs(15)).await;
    assert!(status.is_some_and(|s| s.success()), "a drained node ends well: {status:?}");
    println!("drained in {:?}", asked.elapsed());
    all_complete(&fleet.nodes[0], &items("work", 6), Duration::from_secs(30)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_node_lets_short_runs_finish() {
    let mut fleet = Fleet::with(3, &[("node.drain_ms", "20000"), ("worker.slots", "2")]).await;
    let array: Vec<_> = (0..6).map(|_| json!({"ms": 1500})).collect();
    submit(&fleet.nodes[0], json!({"task_id": "short", "task_type": "sleep", "payload": {}, "items": array})).await;
    let tasks = items("short", 6);
    eventually(Duration::from_secs(20), "all of them run", async || {
        let seen = fleet.nodes[0].call("queue_stats", json!({})).await.ok()?;
        (seen["running_count"].as_u64()? == 6).then_some(())
    })
    .await;
    fleet.nodes[1].terminate();
    let status = fleet.nodes[1].ended(Duration::from_secs(20)).await;
    assert!(status.is_some_and(|s| s.success()), "a drained node ends well: {status:?}");
    all_complete(&fleet.nodes[0], &tasks, Duration::from_secs(20)).await;
    for task in &tasks {
        let seen = fleet.nodes[0].ask("task_status", json!({"task_id": task})).await;
        assert_eq!(seen["attempt"], json!(1), "{task} ran once: nothing had to be handed over");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tasks_of_a_drained_owner_go_on_at_once() {
    let mut fleet = Fleet::with(3, LONG_LEASE).await;
    let array: Vec<_> = (0..12).map(|_| json!({"ms": 600})).collect();
    // Without an id of the caller's, the node that is asked is the owner.
    let task = json!({"task_type": "sleep", "payload": {}, "items": array});
    let accepted = fleet.nodes[0].ask("task_submit", task).await;
    assert_eq!(accepted["home_node"], json!(fleet.nodes[0].peer_id()));
    let tasks = items(accepted["task_id"].as_str().expect("an id"), 12);
    fleet.nodes[0].terminate();
    let status = fleet.nodes[0].ended(Duration::from_secs(15)).await;
    assert!(status.is_some_and(|s| s.success()), "a drained node ends well: {status:?}");
    all_complete(&fleet.nodes[1], &tasks, Duration::from_secs(40)).await;
}
