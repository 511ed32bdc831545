//! The demonstration (`make demo`): three real nodes hash real files, one of
//! them is killed half-way and comes back later, and every result is compared
//! with a hash computed directly.

mod files;
#[path = "../fleet/mod.rs"]
mod fleet;
mod table;

use fleet::{Fleet, eventually, poll};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use table::{Row, Summary};

/// Enough for work to be everywhere when a node dies.
const TASKS: usize = 2_000;
/// Tasks of one submission.
const BATCH: usize = 100;
/// After this long without an end, all waiting stops.
const PATIENCE: Duration = Duration::from_secs(120);
/// What has no result after this long, when all seems to be done, is lost.
const LAST_CALL: Duration = Duration::from_secs(30);
/// How long the killed node stays away, unless three quarters are done before.
const AWAY: Duration = Duration::from_secs(6);
/// Results asked for at once.
const IN_FLIGHT: usize = 16;

/// The node that is killed: it has accepted half of the tasks, and runs some.
const VICTIM: usize = 0;
/// Accepts the other half.
const SECOND: usize = 1;
/// Has accepted nothing, and is asked for every result.
const READER: usize = 2;

#[tokio::main]
async fn main() -> ExitCode {
    let files = files::some(TASKS);
    println!(
        "{} real files, from {}",
        files.len(),
        files.first().map_or_else(String::new, |f| f.display().to_string())
    );
    let mut fleet = three_nodes().await;
    let names = executors(&fleet).await;

    let began = Instant::now();
    let tasks = submit_all(&fleet, &files).await;
    println!("{} tasks accepted in {:.1} s, by nodes 1 and 2", tasks.len(), began.elapsed().as_secs_f64());
    let kills = kill_half_way(&mut fleet, tasks.len()).await;
    bring_back(&mut fleet, tasks.len()).await;
    println!("asking node 3, which accepted none of them, for every result");
    let outputs = collect(&fleet, &tasks).await;
    let facts = facts(&fleet).await;
    let rows: Vec<_> = tasks
        .iter()
        .zip(&files)
        .map(|(task, file)| Row {
            expected: files::sha256(file),
            found: outputs.get(task).cloned(),
            facts: facts.get(task).cloned(),
        })
        .collect();
    let summary = Summary::of(&rows, &names, kills);
    println!("{summary}");
    if summary.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn three_nodes() -> Fleet {
    let timings =
        [("mesh.lease_ms", "2000"), ("mesh.beat_ms", "400"), ("exec.allow", "sha256sum"), ("log.level", "info")];
    let mut fleet = Fleet::empty(&timings).await;
    fleet.grow(1).await;
    println!("node 1 is up: {}", fleet.nodes[0].peer_id());
    fleet.grow(3).await;
    for (n, node) in fleet.nodes.iter().enumerate().skip(1) {
        println!("node {} has joined by the invite of node 1: {}", n + 1, node.peer_id());
    }
    fleet.settled().await;
    fleet
}

/// For each worker of the mesh the number of its node, from 1.
async fn executors(fleet: &Fleet) -> BTreeMap<String, usize> {
    eventually(Duration::from_secs(30), "every node has shown its worker", async || {
        let stats = fleet.nodes[READER].call("queue_stats", json!({"include_worker_stats": true})).await.ok()?;
        let mut names = BTreeMap::new();
        for worker in stats["worker_stats"].as_array()? {
            let node = fleet.nodes.iter().position(|n| worker["node"] == json!(n.peer_id()))?;
            names.insert(worker["worker_id"].as_str()?.to_owned(), node + 1);
        }
        (names.len() >= fleet.nodes.len()).then_some(names)
    })
    .await
}

/// One task a file, in arrays; half of these go to each of two nodes.
async fn submit_all(fleet: &Fleet, files: &[PathBuf]) -> Vec<String> {
    let mut tasks = Vec::new();
    for (n, batch) in files.chunks(BATCH).enumerate() {
        let items: Vec<_> = batch.iter().map(|file| json!({"argv": ["sha256sum", file.to_string_lossy()]})).collect();
        let node = &fleet.nodes[[VICTIM, SECOND][n % 2]];
        // Without an id of the caller's, the node that is asked is the owner.
        let accepted = node.ask("task_submit", json!({"task_type": "exec", "payload": {}, "items": items})).await;
        assert_eq!(accepted["home_node"], json!(node.peer_id()), "the node that accepted them leads them");
        tasks.extend(fleet::items(accepted["task_id"].as_str().expect("an id"), batch.len()));
    }
    tasks
}

/// Waits until half of `count` is done, and kills the victim.
async fn kill_half_way(fleet: &mut Fleet, count: usize) -> usize {
    let half = progress(fleet, count, |done, _| done >= count / 2).await;
    if !half {
        return 0;
    }
    fleet.nodes[VICTIM].kill();
    println!("kill -9: node {} is gone", VICTIM + 1);
    1
}

/// Brings the victim back, later, and waits until all seems to be done.
async fn bring_back(fleet: &mut Fleet, count: usize) {
    progress(fleet, count, |done, waited| done >= count * 3 / 4 || waited > AWAY).await;
    if !fleet.nodes[VICTIM].running() {
        fleet.nodes[VICTIM].restart().await;
        println!("node {} is back", VICTIM + 1);
    }
    progress(fleet, count, |done, _| done >= count).await;
}

/// Shows how many are done, once a second, until `enough(done, waited)`; false
/// if patience ends first.
async fn progress(fleet: &Fleet, count: usize, enough: impl Fn(usize, Duration) -> bool) -> bool {
    let began = Instant::now();
    let shown = std::cell::Cell::new(Instant::now());
    let reached = poll(PATIENCE, async || {
        let stats = fleet.nodes[READER].call("queue_stats", json!({})).await.ok()?;
        let number = |field: &str| usize::try_from(stats[field].as_u64().unwrap_or(0)).unwrap_or(usize::MAX);
        let done = number("completed_count") + number("failed_count");
        if shown.get().elapsed() > Duration::from_secs(1) {
            shown.set(Instant::now());
            println!("  {done:>5} of {count} done, {} running", number("running_count"));
        }
        enough(done, began.elapsed()).then_some(())
    });
    reached.await.is_some()
}

/// The digest that each task printed, as the reader tells it; what did not
/// complete is not in it.
async fn collect(fleet: &Fleet, tasks: &[String]) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let deadline = Instant::now() + LAST_CALL;
    for batch in tasks.chunks(IN_FLIGHT) {
        let asked = batch.iter().map(|task| digest(fleet, task, deadline));
        let answers = futures::future::join_all(asked).await;
        found.extend(batch.iter().cloned().zip(answers).filter_map(|(task, digest)| Some((task, digest?))));
    }
    found
}

async fn digest(fleet: &Fleet, task: &str, deadline: Instant) -> Option<String> {
    let answer = poll(deadline.saturating_duration_since(Instant::now()), async || {
        let answer = fleet.nodes[READER].call("task_result", json!({"task_id": task, "wait_ms": 2000})).await.ok()?;
        (answer["status"] == json!("completed")).then_some(answer)
    });
    if let Some(answer) = answer.await {
        return Some(answer["output"].as_str()?.split_whitespace().next()?.to_owned());
    }
    let why = json!({"task_id": task, "explain": true, "include_metrics": true});
    println!("no result of {task}: {:?}", fleet.nodes[READER].call("task_status", why).await);
    None
}

/// What the reader lists of every task.
async fn facts(fleet: &Fleet) -> BTreeMap<String, Value> {
    let mut facts = BTreeMap::new();
    let mut cursor = Value::Null;
    loop {
        let page = fleet.nodes[READER].ask("task_list", json!({"limit": 1000, "cursor": cursor})).await;
        for task in page["tasks"].as_array().into_iter().flatten() {
            facts.insert(task["task_id"].as_str().unwrap_or_default().to_owned(), task.clone());
        }
        cursor = page["next_cursor"].clone();
        if page["has_more"] != json!(true) || cursor.is_null() {
            return facts;
        }
    }
}
