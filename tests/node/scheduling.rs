//! Where tasks run and how many at once, with three real nodes that each own
//! some of them.

use crate::fleet::{Fleet, Node, items};
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_of_the_mesh_is_kept_by_all_owners_together() {
    let fleet = Fleet::with(3, &[("mesh.limits", "type:sleep=2"), ("worker.slots", "4")]).await;
    let mut tasks = Vec::new();
    for node in &fleet.nodes {
        tasks.extend(
            own(node, json!({"task_type": "sleep", "payload": {}, "items": vec![json!({"ms": 150}); 5]})).await,
        );
    }
    let waits = fleet.nodes[0].ask("task_status", json!({"task_id": tasks[4], "explain": true})).await;
    assert_eq!(waits["explanation"]["reason"], "limit", "{waits}");
    let spans = spans(&fleet.nodes[1], &tasks).await;
    // Each start sees those that began before it and have not ended yet.
    let most = spans.iter().map(|(start, _)| spans.iter().filter(|(s, e)| s <= start && start < e).count()).max();
    assert!(most <= Some(2), "{most:?} ran at once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_selector_finds_its_node_from_every_owner() {
    let mut fleet = Fleet::empty(&[]).await;
    for zone in ["a", "b", "c"] {
        let plan = fleet.plan().set("worker.labels", &format!("zone={zone}"));
        let mut node = Node::spawn(plan);
        node.up().await;
        fleet.nodes.push(node);
    }
    fleet.settled().await;
    let requirements = json!({"selector": "zone in (b, x), !spot"});
    for owner in &fleet.nodes {
        let task =
            json!({"task_type": "echo", "payload": {}, "items": vec![json!({}); 10], "requirements": requirements});
        for task in own(owner, task).await {
            fleet.nodes[2].result(&task, SOON).await;
            let seen = fleet.nodes[2].ask("task_status", json!({"task_id": task})).await;
            let worker = fleet.nodes[1].ask("worker_status", json!({"worker_id": seen["worker_id"]})).await;
            assert_eq!(worker["node"], json!(fleet.nodes[1].peer_id()), "{seen}");
        }
    }
}

/// Submitted at `node`, which becomes the owner of all of it.
async fn own(node: &Node, task: Value) -> Vec<String> {
    let accepted = node.ask("task_submit", task.clone()).await;
    assert_eq!(accepted["home_node"], json!(node.peer_id()));
    items(accepted["task_id"].as_str().expect("an id"), task["items"].as_array().expect("items").len())
}

/// When each began and ended, in ms.
async fn spans(node: &Node, tasks: &[String]) -> Vec<(i64, i64)> {
    let mut spans = Vec::new();
    for task in tasks {
        assert_eq!(node.result(task, SOON).await["status"], "completed");
        let seen = node.ask("task_status", json!({"task_id": task})).await;
        let time = |field: &str| {
            let time = chrono::DateTime::parse_from_rfc3339(seen[field].as_str().expect("a time"));
            time.expect("RFC 3339").timestamp_millis()
        };
        spans.push((time("start_time"), time("end_time")));
    }
    spans
}
