//! Another mesh's queue as a source of work: what is submitted there is run
//! here, and ends there, through lost connections and lost nodes.

use crate::fleet::{BRISK, Fleet, Node, Plan, eventually, status, submit};
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(40);

/// A mesh whose own node runs nothing, with its door open.
async fn queue() -> Fleet {
    Fleet::with(1, &[("api.p2p_listen", "/ip4/127.0.0.1/tcp/0"), ("worker.slots", "0")]).await
}

fn door_of(node: &Node) -> String {
    let told = std::fs::read(node.data_dir().join("door.json")).expect("the door says where it is");
    let told: Value = serde_json::from_slice(&told).expect("JSON");
    told["multiaddr"].as_str().expect("an address").to_owned()
}

/// A node of another mesh that claims from the queue.
async fn claimant(queue: &Fleet, name: &str) -> Node {
    let from = &queue.nodes[0];
    let token = from.data_dir().join("token").display().to_string();
    let plan = BRISK.iter().fold(Plan::new(&queue.folder().join(name)), |plan, (key, value)| plan.set(key, value));
    let plan = plan.set("source.queue", &door_of(from)).set("source.types", "echo,sleep,fail");
    let mut node = Node::spawn(plan.set("source.token_file", &token).set("source.lease_s", "5"));
    node.up().await;
    node
}

async fn metric(node: &Node, name: &str) -> f64 {
    let (_, text) = node.get("/metrics").await.expect("metrics");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.trim().parse().ok()).unwrap_or(0.0)
}

/// What the claimant's own mesh knows of foreign tasks.
async fn tasks_of(node: &Node) -> Vec<Value> {
    let listed = node.ask("task_list", json!({})).await;
    listed["tasks"].as_array().expect("a list").clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_submitted_to_one_mesh_is_run_by_another_and_read_in_the_first() {
    let queue = queue().await;
    let claimant = claimant(&queue, "claimant").await;
    assert_ne!(claimant.invite(), queue.nodes[0].invite(), "two meshes");
    submit(&queue.nodes[0], json!({"task_id": "one", "task_type": "echo", "payload": {"n": 1}})).await;
    let done = queue.nodes[0].result("one", SOON).await;
    assert_eq!((&done["status"], &done["result"]), (&json!("completed"), &json!({"n": 1})), "{done}");
    let ran = tasks_of(&claimant).await;
    assert_eq!((ran.len(), &ran[0]["status"], &ran[0]["task_type"]), (1, &json!("completed"), &json!("echo")));
    // A failure there is a failure here, with what was said of it.
    let failing = json!({"task_id": "bad", "task_type": "fail", "payload": {"error": "no such luck"},
        "retry_policy": {"max_retries": 0}});
    submit(&queue.nodes[0], failing).await;
    let failed = queue.nodes[0].result("bad", SOON).await;
    assert_eq!(failed["status"], "failed", "{failed}");
    assert!(failed["error"].as_str().is_some_and(|error| error.contains("no such luck")), "{failed}");
    // What nobody asked for stays.
    submit(&queue.nodes[0], json!({"task_id": "other", "task_type": "exec", "payload": {"argv": ["true"]}})).await;
    let all = crate::fleet::items("many", 30);
    let items: Vec<_> = (0..all.len()).map(|i| json!({"i": i})).collect();
    submit(&queue.nodes[0], json!({"task_id": "many", "task_type": "echo", "payload": {}, "items": items})).await;
    crate::fleet::all_complete(&queue.nodes[0], &all, SOON).await;
    assert_eq!(status(&queue.nodes[0], "other").await, "queued");
    assert_eq!(metric(&claimant, "taskmesh_source_claimed_total").await, 32.0);
    assert_eq!(metric(&claimant, "taskmesh_source_connected").await, 1.0);
    eventually(SOON, "every claim is over", async || {
        (metric(&claimant, "taskmesh_source_claims").await == 0.0).then_some(())
    })
    .await;
    assert_eq!(metric(&claimant, r#"taskmesh_source_ended_total{outcome="completed"}"#).await, 31.0);
    assert_eq!(metric(&claimant, r#"taskmesh_source_ended_total{outcome="failed"}"#).await, 1.0);
    // The calls of the queue are counted like any other.
    let completed = metric(&queue.nodes[0], r#"taskmesh_operations_total{code="ok",operation="task_queue.complete"}"#);
    assert_eq!(completed.await, 32.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claimant_that_is_killed_loses_its_lease_and_another_runs_the_task() {
    let queue = queue().await;
    let mut first = claimant(&queue, "first").await;
    submit(&queue.nodes[0], json!({"task_id": "long", "task_type": "sleep", "payload": {"ms": 60_000}})).await;
    submit(&queue.nodes[0], json!({"task_id": "short", "task_type": "sleep", "payload": {"ms": 8_000}})).await;
    for task in ["long", "short"] {
        eventually(SOON, format!("{task} is claimed"), async || {
            (status(&queue.nodes[0], task).await == "running").then_some(())
        })
        .await;
    }
    first.kill();
    let second = claimant(&queue, "second").await;
    let done = queue.nodes[0].result("short", SOON).await;
    assert_eq!(done["status"], "completed", "{done}");
    let state = queue.nodes[0].ask("task_status", json!({"task_id": "short"})).await;
    assert!(state["attempt"].as_u64() >= Some(2), "granted anew: {state}");
    assert_eq!(metric(&second, "taskmesh_source_claimed_total").await, 2.0);
    // Stopped where it is from, it is stopped where it runs.
    queue.nodes[0].ask("task_cancel", json!({"task_id": "long"})).await;
    assert_eq!(queue.nodes[0].result("long", SOON).await["status"], "cancelled");
    eventually(SOON, "it runs nowhere", async || {
        let all = tasks_of(&second).await;
        (all.len() == 2 && all.iter().all(|task| task["status"] != "running")).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_queue_is_found_again_and_a_restarted_claimant_runs_nothing_twice() {
    let mut queue = queue().await;
    let door = door_of(&queue.nodes[0]);
    let mut claimant = claimant(&queue, "claimant").await;
    submit(&queue.nodes[0], json!({"task_id": "before", "task_type": "echo", "payload": {"n": 1}})).await;
    assert_eq!(queue.nodes[0].result("before", SOON).await["status"], "completed");
    queue.nodes[0].kill();
    eventually(SOON, "the claimant sees that", async || {
        (metric(&claimant, "taskmesh_source_connected").await == 0.0).then_some(())
    })
    .await;
    // Where it was before.
    let plan = queue.nodes[0].plan_mut();
    *plan = plan.clone().set("api.p2p_listen", door.split("/p2p/").next().expect("an address"));
    queue.nodes[0].restart().await;
    submit(&queue.nodes[0], json!({"task_id": "after", "task_type": "echo", "payload": {"n": 2}})).await;
    assert_eq!(queue.nodes[0].result("after", SOON).await["result"], json!({"n": 2}));

    submit(&queue.nodes[0], json!({"task_id": "held", "task_type": "sleep", "payload": {"ms": 3_000}})).await;
    eventually(SOON, "it is claimed", async || (status(&queue.nodes[0], "held").await == "running").then_some(()))
        .await;
    claimant.kill();
    claimant.restart().await;
    // Claimed again when the lease has ended, it is the task that is there.
    let done = queue.nodes[0].result("held", SOON).await;
    assert_eq!(done["status"], "completed", "{done}");
    assert_eq!(tasks_of(&claimant).await.len(), 3, "three tasks, one of them claimed twice");
    assert!(!claimant.log().contains("panicked"));
}
