//! An upgrade of a whole mesh, one node after the other, under load: nothing is
//! lost, and what only the newer version knows waits for the last of the older.

use crate::fleet::{Fleet, all_complete, code, eventually, submit};
use serde_json::{Value, json};
use std::time::Duration;

/// Tasks that come before, during and after the turn of one node.
const LOAD: usize = 40;

/// A schedule, which the older nodes know nothing of.
fn nightly() -> Value {
    let every = json!({"cron": "0 0 3 * * *"});
    json!({"task_id": "nightly", "task_type": "echo", "payload": {}, "schedule": every})
}

/// Tasks that take longer than it takes to stop a node, so that some of them run
/// on it then.
async fn load(fleet: &Fleet, through: usize, name: &str) -> Vec<String> {
    let items: Vec<_> = (0..LOAD).map(|n| json!({"ms": 20 + 10 * (n % 20)})).collect();
    let array = json!({"task_id": name, "task_type": "sleep", "payload": {}, "items": items});
    submit(&fleet.nodes[through], array).await;
    (0..LOAD).map(|n| format!("{name}/{n}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_are_upgraded_one_by_one_under_load_and_nothing_is_lost() {
    let mut fleet = Fleet::with(3, &[("mesh.without", "schedules")]).await;
    let mut tasks = Vec::new();
    for n in 0..3 {
        let (next, other) = ((n + 1) % 3, (n + 2) % 3);
        let refused = fleet.nodes[next].call("task_submit", nightly()).await.expect_err("one is older still");
        assert_eq!(code(&refused), "failed_precondition", "{refused}");
        let says = refused.to_string();
        assert!(says.contains("schedules") && fleet.nodes.iter().any(|node| says.contains(node.peer_id())), "{says}");
        tasks.extend(load(&fleet, n, &format!("before-{n}")).await);
        fleet.nodes[n].terminate();
        tasks.extend(load(&fleet, next, &format!("meanwhile-{n}")).await);
        fleet.nodes[n].ended(Duration::from_secs(30)).await.expect("it drains");
        tasks.extend(load(&fleet, other, &format!("without-{n}")).await);
        let plan = fleet.nodes[n].plan_mut();
        *plan = plan.clone().set("mesh.without", "");
        fleet.nodes[n].restart().await;
        fleet.settled().await;
        tasks.extend(load(&fleet, n, &format!("after-{n}")).await);
    }
    eventually(Duration::from_secs(20), "all know schedules now", async || {
        fleet.nodes[1].call("task_submit", nightly()).await.ok()
    })
    .await;
    all_complete(&fleet.nodes[2], &tasks, Duration::from_secs(60)).await;
    for task in &tasks {
        let seen = fleet.nodes[0].ask("task_status", json!({"task_id": task, "include_logs": false})).await;
        assert_eq!(seen["crashes"].as_u64().unwrap_or(0), 0, "a drained node hands back what runs: {seen}");
    }
}
