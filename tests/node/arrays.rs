//! Large arrays on real nodes: items that wait in one record.

use crate::fleet::{Fleet, Node, eventually, submit};
use serde_json::{Value, json};
use std::time::Duration;

const ITEMS: usize = 20_000;
/// Attempts that fail of what is to fail. More than one: a grant that a busy worker
/// sends back is an attempt too, and does not run.
const FAILS: u64 = 8;

#[tokio::test(flavor = "multi_thread")]
async fn a_large_array_survives_its_owner_with_every_result_right_by_index() {
    let mut fleet = Fleet::with(3, &[("worker.slots", "8")]).await;
    // Without an id of the caller's, the node that is asked is the owner.
    let items: Vec<_> = (0..ITEMS).map(|n| json!({ "n": n })).collect();
    let task = json!({"task_type": "echo", "payload": {"shared": true}, "items": items});
    let taken = submit(&fleet.nodes[0], task).await;
    assert_eq!((&taken["home_node"], &taken["array"]["count"]), (&json!(fleet.nodes[0].peer_id()), &json!(ITEMS)));
    let id = taken["task_id"].as_str().expect("an id").to_owned();

    eventually(Duration::from_secs(120), "half of them have ended", async || {
        let seen = fleet.nodes[1].call("task_status", json!({ "task_id": id })).await.ok()?;
        assert_eq!(seen["status"], "running", "the owner is killed while it leads: {seen}");
        (seen["progress"].as_u64()? >= 50).then_some(())
    })
    .await;
    // What waits is counted, known by its number, and explained.
    let last = json!({"task_id": format!("{id}/{}", ITEMS - 1), "explain": true});
    let seen = fleet.nodes[2].ask("task_status", last).await;
    assert_eq!((&seen["status"], &seen["explanation"]["reason"]), (&json!("queued"), &json!("order")), "{seen}");
    let stats = fleet.nodes[2].ask("queue_stats", json!({})).await;
    assert!(stats["queued_count"].as_u64() > Some(1_000), "{stats}");

    let sample: Vec<_> = (0..ITEMS / 4).step_by(97).map(|n| format!("{id}/{n}")).collect();
    let before = ends(&fleet.nodes[1], &sample).await;
    assert!(before.iter().flatten().count() > sample.len() / 2, "most of the first quarter have ended: {before:?}");

    fleet.nodes[0].kill();
    std::fs::remove_dir_all(fleet.nodes[0].data_dir()).expect("its disk goes too");
    let ended = over(&fleet.nodes[2], &id).await;
    let lines = pages(&fleet.nodes[1], &id).await;
    let odd: Vec<_> = lines.iter().filter(|line| line["status"] != "completed").collect();
    assert!(odd.is_empty(), "{odd:?}");
    let all = json!({"items": ITEMS, "completed": ITEMS, "failed": 0, "cancelled": 0, "expired": 0});
    assert_eq!((&ended["status"], &ended["result"]), (&json!("completed"), &all), "{ended}");
    assert_eq!(lines.len(), ITEMS);
    for (n, line) in lines.iter().enumerate() {
        let wanted = json!({"index": n, "status": "completed", "result": {"shared": true, "n": n}});
        assert_eq!(*line, wanted);
    }
    let after = ends(&fleet.nodes[2], &sample).await;
    for (item, (before, after)) in sample.iter().zip(before.iter().zip(&after)) {
        assert!(before.is_none() || before == after, "{item} had ended, and ran again: {before:?}, {after:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_failed_of_a_large_array_is_tried_again_alone() {
    let fleet = Fleet::with(3, &[("worker.slots", "8")]).await;
    let count = 10_500;
    let fails = |n: usize| n % 1_000 == 7;
    let items: Vec<_> = (0..count).map(|n| if fails(n) { json!({"times": FAILS}) } else { json!({}) }).collect();
    let task = json!({"task_id": "a", "task_type": "fail", "payload": {"times": 0}, "items": items,
        "retry_policy": {"max_retries": 0, "initial_delay_ms": 10, "backoff_factor": 1.0}});
    submit(&fleet.nodes[0], task).await;
    let ended = over(&fleet.nodes[1], "a").await;
    let counts = json!({"items": count, "completed": count - 11, "failed": 11, "cancelled": 0, "expired": 0});
    assert_eq!((&ended["status"], &ended["result"]), (&json!("failed"), &counts), "{ended}");
    assert_eq!(ended["error"], "of 10500 items 11 failed");
    for (n, line) in pages(&fleet.nodes[2], "a").await.iter().enumerate() {
        let status = if fails(n) { "failed" } else { "completed" };
        assert_eq!((&line["index"], &line["status"]), (&json!(n), &json!(status)), "{line}");
    }

    let retried =
        fleet.nodes[2].ask("task_retry", json!({"task_id": "a", "retry_config": {"max_retries": FAILS}})).await;
    assert_eq!(retried["retry_task_id"], "a-retry-1");
    let ended = over(&fleet.nodes[1], "a-retry-1").await;
    let counts = json!({"items": 11, "completed": 11, "failed": 0, "cancelled": 0, "expired": 0});
    assert_eq!((&ended["status"], &ended["result"]), (&json!("completed"), &counts), "{ended}");
    let wanted = (0..count).filter(|n| fails(*n));
    let found = pages(&fleet.nodes[0], "a-retry-1").await;
    for (line, n) in found.iter().zip(wanted) {
        assert_eq!((&line["index"], &line["status"]), (&json!(n), &json!("completed")), "{line}");
        assert!(line["result"]["attempt"].as_u64() > Some(FAILS), "{line}");
    }
    let one = fleet.nodes[1].ask("task_retry", json!({"task_id": "a/7", "retry_config": {"max_retries": FAILS}})).await;
    assert_eq!(one["retry_task_id"], "a/7-retry-1");
    assert_eq!(over(&fleet.nodes[1], "a/7-retry-1").await["status"], "completed");
    let seen = fleet.nodes[0].ask("task_status", json!({"task_id": "a/7"})).await;
    assert_eq!((&seen["status"], &seen["retried_as"]), (&json!("failed"), &json!("a/7-retry-1")), "what ended stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_one_record_holds_is_refused_with_what_to_do() {
    let fleet = Fleet::with(1, &[]).await;
    let filler = "x".repeat(300);
    let items: Vec<_> = (0..11_000).map(|_| json!({ "x": filler })).collect();
    let task = json!({"task_id": "a", "task_type": "echo", "payload": {}, "items": items});
    let refused = fleet.nodes[0].call("task_submit", task).await.expect_err("too large");
    let envelope = refused.to_string();
    assert_eq!(crate::fleet::code(&refused), "payload_too_large", "{envelope}");
    assert!(envelope.contains("make several arrays of it"), "{envelope}");
    let refused = fleet.nodes[0].call("task_status", json!({"task_id": "a"})).await.expect_err("nothing was kept");
    assert_eq!(crate::fleet::code(&refused), "not_found");
}

/// What a task left, once it has ended.
async fn over(node: &Node, id: &str) -> Value {
    eventually(Duration::from_secs(240), format!("{id} has ended"), async || {
        let ask = json!({"task_id": id, "wait_ms": 5_000, "include_output": false});
        let seen = node.call("task_result", ask).await.ok()?;
        (!["running", "queued"].contains(&seen["status"].as_str()?)).then_some(seen)
    })
    .await
}

/// Of each task that has completed: by which attempt, where, from when and until
/// when.
async fn ends(node: &Node, tasks: &[String]) -> Vec<Option<[Value; 4]>> {
    let mut ends = Vec::new();
    for task in tasks {
        let seen = eventually(Duration::from_secs(60), format!("{task} is seen"), async || {
            node.call("task_status", json!({ "task_id": task })).await.ok()
        });
        let seen = seen.await;
        let facts = ["attempt", "worker_id", "start_time", "end_time"].map(|name| seen[name].clone());
        ends.push((seen["status"] == "completed").then_some(facts));
    }
    ends
}

/// Every line of an array's output, page by page.
async fn pages(node: &Node, id: &str) -> Vec<Value> {
    let (mut lines, mut next) = (Vec::new(), Some(0));
    while let Some(offset) = next {
        let asked = json!({"task_id": id, "output_offset": offset});
        let page = eventually(Duration::from_secs(60), format!("{id} is seen from {offset} on"), async || {
            node.call("task_result", asked.clone()).await.ok()
        });
        let page = page.await;
        let text = page["output"].as_str().expect("a text");
        lines.extend(text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")));
        next = page["next_output_offset"].as_u64();
        assert!(next.is_none_or(|next| next > offset), "{next:?} after {offset}");
    }
    lines
}
