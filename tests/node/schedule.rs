//! What waits for a time: schedules whose owner is killed, and a long wait that
//! a power cut does not shorten or lengthen.

use crate::fleet::{Fleet, eventually, poll};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

/// How often the owner is killed: `SCHEDULE_ROUNDS` says otherwise.
const ROUNDS: u64 = 2;

/// The tasks of a schedule's ticks, as `node` lists them: time, status, attempt.
async fn ticks(fleet: &Fleet, n: usize, schedule: &str) -> Option<Vec<Value>> {
    let filter = json!({"workflow_filter": schedule, "limit": 1000});
    let seen = fleet.nodes[n].call("task_list", filter).await.ok()?;
    (seen["nodes_answered"] == seen["nodes_expected"]).then(|| seen["tasks"].as_array().cloned())?
}

/// The seconds since the epoch that a tick's id says.
fn time_of(task: &Value) -> u64 {
    let (_, name) = task["task_id"].as_str().and_then(|id| id.rsplit_once('/')).expect("the id of a tick");
    let time = chrono::NaiveDateTime::parse_from_str(name, "%Y%m%dT%H%M%SZ").expect("a time");
    u64::try_from(time.and_utc().timestamp()).expect("after 1970")
}

async fn submit(fleet: &Fleet, n: usize, task: Value) -> Value {
    crate::fleet::submit(&fleet.nodes[n], task).await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_tick_fires_once_though_its_owner_is_killed_at_that_moment() {
    let rounds = std::env::var("SCHEDULE_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(ROUNDS);
    let mut fleet = Fleet::start(3).await;
    let mut fired = 0;
    for round in 0..rounds {
        let schedule = format!("each-second-{round}");
        let every = json!({"cron": "* * * * * *", "catch_up": "all"});
        let log = fleet.folder().join(&schedule);
        let line = format!("echo $TASKMESH_TASK_ID >> {}", log.display());
        let task = json!({"task_id": schedule, "task_type": "exec", "payload": {"argv": ["sh", "-c", line]}, "schedule": every});
        let accepted = submit(&fleet, 0, task).await;
        assert_eq!(accepted["status"], json!("delayed"), "{accepted}");
        let owner = fleet.nodes.iter().position(|n| json!(n.peer_id()) == accepted["home_node"]).expect("one of them");
        eventually(Duration::from_secs(20), "two ticks have fired", async || {
            let seen = fleet.nodes[owner].call("task_status", json!({"task_id": schedule})).await.ok()?;
            (seen["schedule"]["ticks"].as_u64()? >= 2).then_some(())
        })
        .await;
        // Somewhere around the next tick, a little later each time.
        at_part_of_second(round * 53 % 1000).await;
        fleet.nodes[owner].kill();
        let other = (owner + 1) % 3;
        eventually(Duration::from_secs(30), "another node goes on", async || {
            let seen = fleet.nodes[other].call("task_status", json!({"task_id": schedule})).await.ok()?;
            (seen["schedule"]["ticks"].as_u64()? >= 5).then_some(())
        })
        .await;
        fleet.nodes[owner].restart().await;
        fleet.settled().await;
        let ended = eventually(Duration::from_secs(30), "the schedule is cancelled", async || {
            match fleet.nodes[other].call("task_cancel", json!({"task_id": schedule})).await {
                Ok(answer) => Some(answer),
                Err(e) if e.code().meaning().retryable => None,
                // What the time before could not be confirmed.
                Err(e) if e.to_string().contains("is cancelled") => Some(json!({"status": "cancelled"})),
                Err(e) => panic!("{e}"),
            }
        })
        .await;
        assert_eq!(ended["status"], json!("cancelled"));
        let all = eventually(Duration::from_secs(30), "every tick has completed", async || {
            let all = ticks(&fleet, other, &schedule).await?;
            all.iter().all(|t| t["status"] == json!("completed")).then_some(all)
        })
        .await;
        // In each second one, and no program ran twice to its end.
        let mut times: Vec<u64> = all.iter().map(time_of).collect();
        times.sort_unstable();
        let (first, last) = (times[0], times[times.len() - 1]);
        assert_eq!(times, (first..=last).collect::<Vec<_>>(), "round {round}: without a gap, and each once");
        let said = std::fs::read_to_string(&log).expect("the programs wrote it");
        let ran: BTreeSet<_> = said.lines().collect();
        let tasks: BTreeSet<_> = all.iter().filter_map(|t| t["task_id"].as_str()).collect();
        assert_eq!(ran, tasks, "round {round}: what ran is what was fired");
        fired += times.len();
        println!("round {round}: {} ticks, {} runs", times.len(), said.lines().count());
    }
    println!("{fired} ticks in {rounds} rounds, each fired once");
}

/// Waits until the clock is at this part of a second, in milliseconds.
async fn at_part_of_second(millis: u64) {
    poll(Duration::from_secs(3), async || {
        let now = taskmesh::driver::wall_clock().0 % 1_000;
        (now.abs_diff(millis) < 50).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_of_ten_minutes_survives_a_power_cut_and_ends_in_its_time() {
    let mut fleet = Fleet::start(3).await;
    let wait = json!([{"step_id": "timer", "action": "wait", "inputs": {"seconds": 600}},
        {"step_id": "after", "action": "echo", "depends_on": ["timer"]}]);
    fleet.nodes[0].ask("workflow_submit", json!({"workflow_id": "waits", "name": "waits", "steps": wait})).await;
    let later = chrono::Utc::now() + chrono::TimeDelta::seconds(600);
    let delayed = json!({"task_id": "later", "task_type": "echo", "payload": {}, "not_before": later.to_rfc3339()});
    submit(&fleet, 1, delayed).await;
    // In half an hour, and each hour from there.
    let minute = later.checked_add_signed(chrono::TimeDelta::minutes(20)).expect("a time").format("%M");
    let every = json!({"cron": format!("{minute} * * * *"), "catch_up": "one"});
    let hourly = json!({"task_id": "hourly", "task_type": "echo", "payload": {}, "schedule": every});
    submit(&fleet, 2, hourly).await;
    eventually(Duration::from_secs(10), "the timer has begun", async || {
        let seen = fleet.nodes[2].call("task_status", json!({"task_id": "waits/timer"})).await.ok()?;
        (seen["status"] == json!("delayed")).then_some(())
    })
    .await;

    power_cut(&mut fleet, "500").await;
    let timer = fleet.nodes[0].ask("task_status", json!({"task_id": "waits/timer"})).await;
    assert_eq!(timer["status"], json!("delayed"), "500 of 600 seconds: {timer}");
    assert_eq!(fleet.nodes[1].ask("task_status", json!({"task_id": "later"})).await["status"], json!("delayed"));

    power_cut(&mut fleet, "7800").await;
    for task in ["waits/timer", "waits/after", "later"] {
        let ended = fleet.nodes[0].result(task, Duration::from_secs(30)).await;
        assert_eq!(ended["status"], json!("completed"), "{task}: {ended}");
    }
    // Two ticks were missed: the latest alone is made up for.
    let all = eventually(Duration::from_secs(30), "the latest missed tick is fired", async || {
        let all = ticks(&fleet, 1, "hourly").await?;
        (!all.is_empty() && all.iter().all(|t| t["status"] == json!("completed"))).then_some(all)
    })
    .await;
    assert_eq!(all.len(), 1, "{all:?}");
    let seen = fleet.nodes[2].ask("task_status", json!({"task_id": "hourly"})).await;
    assert_eq!(seen["schedule"]["last_task_id"], all[0]["task_id"], "{seen}");
}

/// Kills every node, and starts them with their clocks put ahead of the
/// machine's by `seconds`.
async fn power_cut(fleet: &mut Fleet, seconds: &str) {
    for node in &mut fleet.nodes {
        node.kill();
    }
    for node in &mut fleet.nodes {
        let plan = node.plan_mut();
        *plan = plan.clone().set("node.clock_ahead_s", seconds);
        node.relaunch();
    }
    for node in &mut fleet.nodes {
        node.up().await;
    }
    fleet.settled().await;
}
