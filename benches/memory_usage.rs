//! What a node weighs: idle, with a long queue, and after many tasks whose
//! records it has forgotten again; and how fast it answers with a long queue.
//! Resident memory is that of real processes, as the system counts it.
//!
//! `cargo bench --bench memory_usage [idle|backlog|status|flat]`

#[path = "../tests/fleet/mod.rs"]
mod fleet;
mod inside;

use fleet::{Node, Plan, eventually};
use futures::StreamExt as _;
use inside::Inside;
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use taskmesh_core::{Config, Millis, testing};

/// Tasks of the long queue, and of the long run.
const TASKS: usize = 200_000;
const ITEMS: usize = 1_000;
/// Arrays under way at once.
const IN_FLIGHT: usize = 4;
/// Questions after one task among all of them.
const QUESTIONS: usize = 5_000;
/// Ended tasks that the node of the long run keeps.
const RETAINED: usize = 1_000;
/// The long run is looked at this often.
const STAGES: usize = 8;
/// How long an idle node is watched.
const WATCHED: Duration = Duration::from_secs(15);

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let wants = |name: &str| wanted.is_empty() || wanted.iter().any(|w| w == name);
    let folder = tempfile::Builder::new().prefix("taskmesh-bench-").tempdir().expect("a temporary folder");
    if wants("idle") {
        idle(&folder.path().join("idle")).await;
    }
    if wants("backlog") {
        backlog(&folder.path().join("backlog")).await;
    }
    if wants("status") {
        status(&folder.path().join("status")).await;
    }
    if wants("flat") {
        flat(&folder.path().join("flat")).await;
    }
}

fn plan(folder: &Path) -> Plan {
    Plan::new(folder).set("log.level", "warn")
}

/// Resident memory of a process.
#[derive(Clone, Copy, Default)]
struct Memory {
    resident: u64,
    anonymous: u64,
    threads: u64,
}

impl Memory {
    fn of(node: &Node) -> Memory {
        let status = std::fs::read_to_string(format!("/proc/{}/status", node.pid())).unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_default();
            line.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0)
        };
        Memory { resident: field("VmRSS:") << 10, anonymous: field("RssAnon:") << 10, threads: field("Threads:") }
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

async fn idle(folder: &Path) {
    println!("idle nodes after {} s (at most 40 MiB)\n", WATCHED.as_secs());
    println!("{:>8} {:>14} {:>16} {:>8}", "nodes", "resident MiB", "of which private", "threads");
    for count in [1, 3] {
        let mut nodes: Vec<Node> = Vec::new();
        for n in 0..count {
            let fresh = plan(&folder.join(format!("{count}-{n}")));
            let mut node = Node::spawn(match nodes.first() {
                Some(seed) => fresh.join(seed.invite()),
                None => fresh,
            });
            node.up().await;
            nodes.push(node);
        }
        tokio::time::sleep(WATCHED).await;
        for node in &nodes {
            let memory = Memory::of(node);
            let (resident, private) = (mib(memory.resident), mib(memory.anonymous));
            println!("{count:>8} {resident:>14.1} {private:>16.1} {:>8}", memory.threads);
        }
    }
}

async fn backlog(folder: &Path) {
    let mut node = Node::spawn(plan(folder).set("worker.slots", "0"));
    node.up().await;
    let before = Memory::of(&node);
    let start = Instant::now();
    submit(&node, TASKS).await;
    let took = start.elapsed();
    let after = Memory::of(&node);
    println!("\n{TASKS} queued tasks of a few bytes each, on one node");
    println!("  submitted in          {:>8.1} s ({:.0}/s)", took.as_secs_f64(), TASKS as f64 / took.as_secs_f64());
    println!(
        "  memory                {:>8.1} MiB before, {:.1} MiB with them",
        mib(before.resident),
        mib(after.resident)
    );
    println!("  bytes per queued task {:>8.0}", (after.resident - before.resident) as f64 / TASKS as f64);
}

async fn status(folder: &Path) {
    let node = Inside::start(folder, Config::default()).await;
    let items: Vec<Arc<[u8]>> = (0..ITEMS).map(|_| Arc::from(&b"{}"[..])).collect();
    let mut arrays = Vec::new();
    for _ in 0..TASKS / ITEMS {
        arrays.push(node.submit(testing::spec(), items.clone()).await);
    }
    let mut times = Vec::with_capacity(QUESTIONS);
    for n in 0..QUESTIONS {
        // Spread over all arrays and places in them.
        let array = &arrays[n.wrapping_mul(2_654_435_761) % arrays.len()];
        let task = array.item(n.wrapping_mul(40_503) % ITEMS).expect("an item");
        let start = Instant::now();
        node.task(task, Millis(0)).await;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e3;
    println!("\ntask_status among {TASKS} queued tasks, in process, {QUESTIONS} questions one after the other");
    println!("  p50 {:.3} ms   p99 {:.3} ms (below 10)   most {:.3} ms", at(0.5), at(0.99), at(1.0));
}

async fn flat(folder: &Path) {
    let mut node = Node::spawn(plan(folder).set("mesh.retained_tasks", &RETAINED.to_string()));
    node.up().await;
    println!("\n{TASKS} no-op tasks through one node that keeps {RETAINED} ended ones (flat after the first)");
    println!("  {:>10} {:>14} {:>16}", "tasks", "resident MiB", "of which private");
    for stage in 0..=STAGES {
        if stage > 0 {
            submit(&node, TASKS / STAGES).await;
        }
        eventually(Duration::from_secs(120), "the node has forgotten all but the last", async || {
            let stats = node.call("queue_stats", json!({})).await.ok()?;
            let of = |name: &str| stats[name].as_u64().unwrap_or(u64::MAX);
            let open = of("queued_count").saturating_add(of("running_count"));
            (open == 0 && of("completed_count") <= RETAINED as u64).then_some(())
        })
        .await;
        let memory = Memory::of(&node);
        let (resident, private) = (mib(memory.resident), mib(memory.anonymous));
        println!("  {:>10} {resident:>14.1} {private:>16.1}", stage * TASKS / STAGES);
    }
}

async fn submit(node: &Node, tasks: usize) {
    let array = json!({"task_type": "echo", "payload": {}, "items": vec![json!({}); ITEMS]});
    let submissions = (0..tasks / ITEMS).map(|_| node.ask("task_submit", array.clone()));
    let mut under_way = futures::stream::iter(submissions).buffer_unordered(IN_FLIGHT);
    while under_way.next().await.is_some() {}
}
