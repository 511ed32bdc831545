//! From submission to result of a task that does nothing, on another node; and
//! how many such tasks a mesh takes a second from one client. Each is set
//! beside what it is made of: bare libp2p round trips and bare `fdatasync`s,
//! measured in turns with it, so that the ratios hold on a busy machine.
//!
//! `cargo bench --bench p2p_latency [latency|throughput]`; data goes to the system's
//! folder for temporary files: point `TMPDIR` at the disk that is to be measured.

mod bare;
#[path = "../tests/fleet/mod.rs"]
mod fleet;
mod inside;

use bare::{Appended, Bare};
use fleet::{Node, Plan, eventually};
use futures::StreamExt as _;
use inside::Inside;
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};
use taskmesh_core::command::{Query, Request};
use taskmesh_core::{Config, Reply, testing};

/// Rounds of the latency table.
const ROUNDS: usize = 7;
/// Turns of each kind in a round.
const TURNS: usize = 12;
/// Exchanges of one kind in a turn; the first few of a turn warm it up.
const TURN: usize = 12;
const WARM: usize = 2;
/// Items of one array, and arrays of one run.
const ITEMS: usize = 1_000;
const ARRAYS: usize = 24;
/// Arrays that the client keeps under way.
const IN_FLIGHT: usize = 4;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let wants = |name: &str| wanted.is_empty() || wanted.iter().any(|w| w == name);
    let folder = tempfile::Builder::new().prefix("taskmesh-bench-").tempdir().expect("a temporary folder");
    if wants("latency") {
        latency(folder.path()).await;
    }
    if wants("throughput") {
        throughput(folder.path()).await;
    }
}

/// An accepting node in this process, and two processes that run its tasks.
struct Mesh {
    accepts: Inside,
    _run: Vec<Node>,
}

impl Mesh {
    async fn start(folder: &Path, holders: usize) -> Mesh {
        let accepts = Inside::start(&folder.join("accepts"), Config { holders, ..Config::default() }).await;
        let mut run = Vec::new();
        for n in 0..2 {
            let plan = plan(&folder.join(format!("runs-{n}"))).join(&accepts.invite);
            let mut node = Node::spawn(plan.set("mesh.holders", &holders.to_string()));
            node.up().await;
            run.push(node);
        }
        let mesh = Mesh { accepts, _run: run };
        eventually(Duration::from_secs(30), "three nodes with two workers", async || {
            let known = mesh.accepts.handle.ask(Request::Query(Query::Workers)).await;
            matches!(known, Ok(Reply::Workers(workers)) if workers.len() == 2).then_some(())
        })
        .await;
        mesh
    }

    async fn in_process(&self) -> Duration {
        let start = Instant::now();
        let task = self.accepts.submit(testing::spec(), Vec::new()).await;
        self.accepts.completed(task).await;
        start.elapsed()
    }

    async fn over_http(&self) -> Duration {
        let start = Instant::now();
        let client = &self.accepts.client;
        let submitted = client.call("task_submit", json!({"task_type": "echo", "payload": {}})).await;
        let task = submitted.expect("accepted")["task_id"].clone();
        let ended = client.call("task_result", json!({"task_id": task, "wait_ms": 45_000})).await;
        assert_eq!(ended.expect("a result")["status"], "completed");
        start.elapsed()
    }
}

fn plan(folder: &Path) -> Plan {
    Plan::new(folder).set("log.level", "warn")
}

/// One kind of exchange: its median in each round, in µs.
struct Column {
    name: &'static str,
    now: Vec<Duration>,
    medians: Vec<f64>,
}

impl Column {
    fn new(name: &'static str) -> Column {
        Column { name, now: Vec::new(), medians: Vec::new() }
    }

    fn end_round(&mut self) {
        self.now.sort_unstable();
        let at = |part: f64| self.now[((self.now.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e6;
        let (p50, p99) = (at(0.5), at(0.99));
        print!("{:>18}", format!("{p50:.0} ({p99:.0})"));
        self.medians.push(p50);
        self.now.clear();
    }
}

const ROUND_TRIP: usize = 0;
const SYNC: usize = 1;

async fn latency(folder: &Path) {
    let mut bare = Bare::connect().await;
    let mut appended = Appended::create(folder);
    let three = Mesh::start(&folder.join("three"), 3).await;
    let one = Mesh::start(&folder.join("one"), 1).await;
    let names = ["round trip", "fdatasync", "3 holders", "3 holders, HTTP", "1 holder", "1 holder, HTTP"];
    let mut columns = names.map(Column::new);
    println!("submit → result of a no-op on another node; p50 (p99) in µs\n");
    print!("{:>5}", "round");
    columns.iter().for_each(|c| print!("{:>18}", c.name));
    println!();
    for round in 0..ROUNDS {
        for _ in 0..TURNS {
            for (kind, column) in columns.iter_mut().enumerate() {
                for n in 0..TURN {
                    let took = match kind {
                        ROUND_TRIP => bare.round_trip().await,
                        SYNC => appended.sync(),
                        2 => three.in_process().await,
                        3 => three.over_http().await,
                        4 => one.in_process().await,
                        _ => one.over_http().await,
                    };
                    if n >= WARM {
                        column.now.push(took);
                    }
                }
            }
        }
        print!("{round:>5}");
        columns.iter_mut().for_each(Column::end_round);
        println!();
    }
    println!("\nmedian of the rounds' ratios (at most 1)");
    for (kind, trips) in [(2, 2.0), (3, 2.0), (4, 1.0), (5, 1.0)] {
        let ratios = (0..ROUNDS).map(|round| {
            let floor = trips * columns[ROUND_TRIP].medians[round] + 2.0 * columns[SYNC].medians[round];
            columns[kind].medians[round] / floor
        });
        println!("  {:<18} / ({trips:.0} round trips + 2 fdatasyncs) {:>6.2}", names[kind], median(ratios.collect()));
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

async fn throughput(folder: &Path) {
    println!(
        "\n{} no-op tasks in arrays of {ITEMS} from one client over HTTP, durable (at least 5,000/s)\n",
        ITEMS * ARRAYS
    );
    println!(
        "{:>5} {:>12} {:>12} {:>14} {:>22}",
        "nodes", "accepted/s", "completed/s", "CPU µs/task", "per node, CPU s"
    );
    for count in 1..=3 {
        let mut nodes: Vec<Node> = Vec::new();
        for n in 0..count {
            let fresh = plan(&folder.join(format!("of-{count}-{n}")));
            let mut node = Node::spawn(match nodes.first() {
                Some(seed) => fresh.join(seed.invite()),
                None => fresh,
            });
            node.up().await;
            nodes.push(node);
        }
        eventually(Duration::from_secs(30), "all nodes are one mesh", async || {
            let stats = nodes[0].call("queue_stats", json!({})).await.ok()?;
            (stats["nodes_answered"] == count as u64).then_some(())
        })
        .await;
        // The first run fills caches and lets the owner learn how short runs are.
        run_arrays(&nodes, 4).await;
        for _ in 0..2 {
            let before: Vec<_> = nodes.iter().map(cpu_seconds).collect();
            let (accepted, completed) = run_arrays(&nodes, ARRAYS).await;
            let spent: Vec<_> = nodes.iter().zip(before).map(|(node, before)| cpu_seconds(node) - before).collect();
            let tasks = (ITEMS * ARRAYS) as f64;
            let shares: Vec<_> = spent.iter().map(|s| format!("{s:.2}")).collect();
            println!(
                "{count:>5} {:>12.0} {:>12.0} {:>14.1} {:>22}",
                tasks / accepted.as_secs_f64(),
                tasks / completed.as_secs_f64(),
                spent.iter().sum::<f64>() * 1e6 / tasks,
                shares.join(" ")
            );
        }
    }
}

/// Until all are accepted, and until all have completed.
async fn run_arrays(nodes: &[Node], arrays: usize) -> (Duration, Duration) {
    let before = completed(&nodes[0]).await;
    let goal = before + (arrays * ITEMS) as u64;
    let array = json!({"task_type": "echo", "payload": {}, "items": vec![json!({}); ITEMS]});
    let start = Instant::now();
    let submissions = (0..arrays).map(|_| submit(&nodes[0], array.clone()));
    let mut under_way = futures::stream::iter(submissions).buffer_unordered(IN_FLIGHT);
    while under_way.next().await.is_some() {}
    let accepted = start.elapsed();
    eventually(Duration::from_secs(120), "every task has completed", async || {
        (completed(&nodes[0]).await >= goal).then_some(())
    })
    .await;
    (accepted, start.elapsed())
}

async fn submit(node: &Node, array: Value) {
    node.ask("task_submit", array).await;
}

async fn completed(node: &Node) -> u64 {
    let stats = node.call("queue_stats", json!({"scope": "local"})).await;
    stats.ok().and_then(|s| s["completed_count"].as_u64()).unwrap_or(0)
}

/// User and system time of a node's process.
fn cpu_seconds(node: &Node) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", node.pid())).unwrap_or_default();
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = |field: usize| after_name.split_whitespace().nth(field).and_then(|t| t.parse::<f64>().ok());
    (ticks(11).unwrap_or(0.0) + ticks(12).unwrap_or(0.0)) / 100.0
}
