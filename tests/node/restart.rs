//! The whole mesh is killed at once, and started again.

use crate::fleet::{Fleet, all_complete, eventually, items, submit};
use serde_json::{Value, json};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn every_accepted_task_is_there_after_a_power_cut_and_finishes() {
    let mut fleet = Fleet::with(3, &[("worker.slots", "2")]).await;
    let worker = json!({"worker_id": "extra", "capabilities": ["sleep"], "max_concurrent_tasks": 3});
    fleet.nodes[1].ask("worker_register", worker).await;
    let mut tasks = Vec::new();
    for (i, node) in fleet.nodes.iter().enumerate() {
        let array: Vec<_> = (0..10).map(|_| json!({"ms": 700})).collect();
        submit(node, json!({"task_id": format!("run-{i}"), "task_type": "sleep", "payload": {}, "items": array})).await;
        tasks.extend(items(&format!("run-{i}"), 10));
        let after = format!("after-{i}");
        submit(
            node,
            json!({"task_id": after, "task_type": "echo", "payload": {}, "depends_on": [format!("run-{i}/9")]}),
        )
        .await;
        tasks.push(after);
    }
    let kept = json!({"task_id": "kept", "task_type": "echo", "payload": {"kept": true}});
    submit(&fleet.nodes[0], kept).await;
    let told = fleet.nodes[2].result("kept", Duration::from_secs(30)).await;

    for node in &mut fleet.nodes {
        node.kill();
    }
    for node in &mut fleet.nodes {
        node.relaunch();
    }
    for node in &mut fleet.nodes {
        node.up().await;
    }
    all_complete(&fleet.nodes[0], &tasks, Duration::from_secs(60)).await;
    for node in &fleet.nodes {
        let again = node.result("kept", Duration::from_secs(10)).await;
        for fact in ["status", "result", "output_cid"] {
            assert_eq!(again[fact], told[fact], "{fact}, as {} tells it", node.name());
        }
        assert_eq!(extra_worker(node).await, json!(fleet.nodes[1].peer_id()), "workers reattach unaided");
    }
}

async fn extra_worker(node: &crate::fleet::Node) -> Value {
    eventually(Duration::from_secs(15), "the worker is back", async || {
        let seen = node.call("worker_status", json!({"worker_id": "extra"})).await.ok()?;
        (seen["status"] != json!("offline")).then(|| seen["node"].clone())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_outlives_a_power_cut() {
    let mut fleet = Fleet::start(3).await;
    fleet.nodes[0].ask("queue_pause", json!({"reason": "maintenance"})).await;
    for node in &fleet.nodes {
        eventually(Duration::from_secs(10), "every node knows of the pause", async || {
            let local = node.call("queue_stats", json!({"scope": "local"})).await.ok()?;
            (local["paused"] == json!(true)).then_some(())
        })
        .await;
    }
    submit(&fleet.nodes[1], json!({"task_id": "held", "task_type": "echo", "payload": {}})).await;
    for node in &mut fleet.nodes {
        node.kill();
    }
    for node in &mut fleet.nodes {
        node.relaunch();
    }
    for node in &mut fleet.nodes {
        node.up().await;
    }
    fleet.settled().await;
    for node in &fleet.nodes {
        assert_eq!(node.ask("queue_stats", json!({"scope": "local"})).await["paused"], json!(true), "{}", node.name());
    }
    let held = fleet.nodes[2].ask("task_status", json!({"task_id": "held"})).await;
    assert_eq!(held["status"], json!("queued"), "{held}");
    fleet.nodes[2].ask("queue_resume", json!({})).await;
    assert_eq!(fleet.nodes[0].result("held", Duration::from_secs(20)).await["status"], json!("completed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_alone_keeps_its_tasks() {
    let mut fleet = Fleet::start(1).await;
    submit(&fleet.nodes[0], json!({"task_id": "slow", "task_type": "sleep", "payload": {"ms": 800}})).await;
    fleet.nodes[0].kill();
    fleet.nodes[0].restart().await;
    assert_eq!(fleet.nodes[0].result("slow", Duration::from_secs(20)).await["status"], json!("completed"));
}
