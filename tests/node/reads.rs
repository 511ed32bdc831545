//! Any node answers for any task, and changes any task.

use crate::fleet::{Fleet, code, eventually, status, submit};
use serde_json::{Value, json};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn any_node_answers_for_any_task() {
    let fleet = Fleet::start(3).await;
    for (i, home) in fleet.nodes.iter().enumerate() {
        let id = format!("from-{i}");
        let task = json!({"task_id": id, "task_type": "echo", "payload": {"n": i}, "tags": ["read"]});
        let accepted = submit(home, task).await;
        assert_eq!(accepted["task_id"], json!(id));
        assert!(fleet.nodes.iter().any(|n| accepted["home_node"] == json!(n.peer_id())), "{accepted}");
        for node in &fleet.nodes {
            // Visible everywhere at once, ended or not.
            let seen = node.ask("task_status", json!({"task_id": id})).await;
            assert_eq!(seen["task_type"], json!("echo"), "{seen}");
        }
    }
    for (i, node) in fleet.nodes.iter().enumerate().flat_map(|(i, _)| fleet.nodes.iter().map(move |n| (i, n))) {
        let ended = node.result(&format!("from-{i}"), Duration::from_secs(20)).await;
        assert_eq!(ended["status"], json!("completed"), "{ended}");
        assert_eq!(ended["result"], json!({"n": i}), "{ended}");
    }
    for node in &fleet.nodes {
        let listed = node.ask("task_list", json!({"tag_filter": ["read"]})).await;
        let mut ids: Vec<_> =
            listed["tasks"].as_array().expect("a list").iter().map(|t| t["task_id"].clone()).collect();
        ids.sort_by_key(Value::to_string);
        assert_eq!(json!(ids), json!(["from-0", "from-1", "from-2"]), "as {} sees it", node.name());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_node_changes_any_task_worker_and_queue() {
    let fleet = Fleet::start(3).await;
    let [a, b, c] = &fleet.nodes[..] else { panic!("three nodes") };
    submit(a, json!({"task_id": "later", "task_type": "echo", "payload": {}, "not_before": "2099-01-01T00:00:00Z"}))
        .await;
    let changed = b.ask("task_priority", json!({"task_id": "later", "new_priority": 7.5})).await;
    assert_eq!((&changed["old_priority"], &changed["new_priority"]), (&json!(1.0), &json!(7.5)));
    let cancelled = c.ask("task_cancel", json!({"task_id": "later", "reason": "shown"})).await;
    assert_eq!(cancelled["status"], json!("cancelled"));
    for node in &fleet.nodes {
        assert_eq!(status(node, "later").await, "cancelled", "as {} sees it", node.name());
    }
    let retried = a.ask("task_retry", json!({"task_id": "later"})).await;
    assert_eq!(retried["retry_task_id"], json!("later-retry-1"));
    assert_eq!(c.ask("task_cancel", json!({"task_id": "later-retry-1"})).await["status"], json!("cancelled"));

    let worker = json!({"worker_id": "extra", "capabilities": ["echo"], "max_concurrent_tasks": 2});
    b.ask("worker_register", worker).await;
    for node in &fleet.nodes {
        eventually(Duration::from_secs(10), format!("{} knows the worker", node.name()), async || {
            let seen = node.call("worker_status", json!({"worker_id": "extra"})).await.ok()?;
            (seen["node"] == json!(b.peer_id()) && seen["max_concurrent_tasks"] == json!(2)).then_some(())
        })
        .await;
    }
    let gone = c.ask("worker_unregister", json!({"worker_id": "extra", "timeout": 5})).await;
    assert_ne!(gone["status"], json!("draining"), "{gone}");

    a.ask("queue_pause", json!({"reason": "shown"})).await;
    eventually(Duration::from_secs(10), "every node knows of the pause", async || paused(&fleet).await.then_some(()))
        .await;
    submit(b, json!({"task_id": "held", "task_type": "echo", "payload": {}})).await;
    assert_eq!(status(c, "held").await, "queued");
    c.ask("queue_resume", json!({})).await;
    assert_eq!(a.result("held", Duration::from_secs(20)).await["status"], json!("completed"));
}

async fn paused(fleet: &Fleet) -> bool {
    for node in &fleet.nodes {
        if node.ask("queue_stats", json!({"scope": "local"})).await["paused"] != json!(true) {
            return false;
        }
    }
    true
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_submission_makes_one_task() {
    let fleet = Fleet::start(3).await;
    let task = json!({"task_id": "once", "task_type": "echo", "payload": {"x": 1}});
    assert_eq!(submit(&fleet.nodes[0], task.clone()).await["replayed"], json!(false));
    for node in &fleet.nodes {
        assert_eq!(submit(node, task.clone()).await["replayed"], json!(true), "through {}", node.name());
    }
    let other = json!({"task_id": "once", "task_type": "echo", "payload": {"x": 2}});
    let refused = fleet.nodes[1].call("task_submit", other).await.expect_err("different work");
    assert_eq!(code(&refused), "conflict", "{refused}");
}
