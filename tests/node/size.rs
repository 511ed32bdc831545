//! Sixteen nodes find each other through one.

use crate::fleet::{Fleet, eventually};
use serde_json::json;
use std::time::{Duration, Instant};

const NODES: usize = 16;

#[tokio::test(flavor = "multi_thread")]
async fn sixteen_nodes_bootstrap_from_one_seed() {
    // The beat of a mesh of this size; a fifth of a second would be a load test.
    let mut fleet = Fleet::alone(&[("mesh.beat_ms", "1000"), ("mesh.lease_ms", "5000"), ("log.level", "info")]).await;
    fleet.grow(1).await;
    let began = Instant::now();
    fleet.grow(NODES).await;
    let started = began.elapsed();
    // All are asked at once: one after the other, the asking would be measured.
    let know_all = fleet.nodes.iter().map(async |node| {
        eventually(Duration::from_secs(60), format!("{} knows all others", node.name()), async || {
            let seen = node.call("peer_list", json!({"limit": 1})).await.ok()?;
            (seen["total_count"].as_u64()? == NODES as u64 - 1).then_some(())
        })
        .await;
    });
    futures::future::join_all(know_all).await;
    let known = began.elapsed();
    println!("{NODES} nodes: all processes up after {started:?}, all know each other after {known:?}");
    assert!(known < Duration::from_secs(10), "took {known:?}");
    let last = fleet.nodes.last().expect("sixteen");
    let task = json!({"task_id": "hello", "task_type": "echo", "payload": {}});
    crate::fleet::submit(last, task).await;
    assert_eq!(fleet.nodes[5].result("hello", Duration::from_secs(20)).await["status"], json!("completed"));
}
