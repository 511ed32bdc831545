//! A node that is gone for ever, disk and all.

use crate::fleet::{Fleet, all_complete, eventually, items, status, submit};
use serde_json::json;
use std::time::{Duration, Instant};

const TASKS: usize = 60;

#[tokio::test(flavor = "multi_thread")]
async fn the_tasks_of_an_owner_killed_for_ever_finish_elsewhere() {
    let mut fleet = Fleet::with(3, &[("worker.slots", "4")]).await;
    let array: Vec<_> = (0..TASKS).map(|_| json!({"ms": 200})).collect();
    // Without an id of the caller's, the node that is asked is the owner.
    let task = json!({"task_type": "sleep", "payload": {}, "items": array});
    let accepted = fleet.nodes[0].ask("task_submit", task).await;
    assert_eq!(accepted["home_node"], json!(fleet.nodes[0].peer_id()));
    let tasks = items(accepted["task_id"].as_str().expect("an id"), TASKS);
    eventually(Duration::from_secs(20), "some of them have completed", async || {
        let seen = fleet.nodes[1].call("task_list", json!({"status_filter": "completed", "limit": 1})).await.ok()?;
        (seen["total_count"].as_u64()? >= 5).then_some(())
    })
    .await;
    let before = fleet.nodes[1].ask("task_list", json!({"status_filter": "completed", "limit": 1000})).await;
    let before = before["tasks"].as_array().expect("a list").clone();

    fleet.nodes[0].kill();
    std::fs::remove_dir_all(fleet.nodes[0].data_dir()).expect("its disk goes too");
    let killed = Instant::now();
    // A lease of 1.5 s, claims, the runs that are left, and a busy machine.
    all_complete(&fleet.nodes[1], &tasks, Duration::from_secs(15)).await;
    println!("{TASKS} tasks of a lost owner had finished elsewhere {:?} after it was killed", killed.elapsed());

    for task in &tasks {
        assert_eq!(status(&fleet.nodes[2], task).await, "completed");
    }
    // What had been told of a task stays true.
    for told in before {
        let now = fleet.nodes[2].ask("task_status", json!({"task_id": told["task_id"]})).await;
        for fact in ["status", "worker_id", "attempt", "end_time"] {
            assert_eq!(now[fact], told[fact], "{fact} of {}", told["task_id"]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_work_of_an_executor_that_dies_is_done_by_another() {
    let mut fleet = Fleet::with(3, &[("worker.slots", "2")]).await;
    // Six slots, six tasks: every node runs two.
    let array: Vec<_> = (0..6).map(|_| json!({"ms": 1500})).collect();
    submit(&fleet.nodes[0], json!({"task_id": "spread", "task_type": "sleep", "payload": {}, "items": array})).await;
    let victim = fleet.nodes[2].peer_id().to_owned();
    eventually(Duration::from_secs(20), "the third node runs some", async || {
        let stats = fleet.nodes[0].call("queue_stats", json!({"include_worker_stats": true})).await.ok()?;
        let workers = stats["worker_stats"].as_array()?.clone();
        workers.iter().any(|w| w["node"] == json!(victim) && w["running_tasks"].as_u64() > Some(0)).then_some(())
    })
    .await;
    fleet.nodes[2].kill();
    all_complete(&fleet.nodes[0], &items("spread", 6), Duration::from_secs(25)).await;
    // It comes back under its old name, and takes part again.
    fleet.nodes[2].restart().await;
    fleet.settled().await;
    assert_eq!(fleet.nodes[2].peer_id(), victim);
    all_complete(&fleet.nodes[2], &items("spread", 6), Duration::from_secs(20)).await;
}
