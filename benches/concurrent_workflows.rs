//! Many workflows at once, and what a step costs: the same graphs as workflows
//! and as plain tasks that depend on each other, in turns, on the same nodes.
//! And a chain of no-ops beside as many single round trips.
//!
//! `cargo bench --bench concurrent_workflows [shapes|chain]`; three nodes are
//! processes of this machine, the client speaks HTTP to the first of them.

#[path = "../tests/fleet/mod.rs"]
mod fleet;

use fleet::{Node, Plan, eventually};
use futures::{StreamExt as _, stream};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

/// Requests that the client keeps under way.
const IN_FLIGHT: usize = 16;
/// Turns of each kind; the ratio is the median of theirs.
const TURNS: usize = 5;
/// Steps of the chain, and single tasks beside it.
const CHAIN: usize = 200;
const PATIENCE: Duration = Duration::from_secs(300);

/// A graph: for each step those before it.
type Shape = Vec<Vec<usize>>;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let wants = |name: &str| wanted.is_empty() || wanted.iter().any(|w| w == name);
    let folder = tempfile::Builder::new().prefix("taskmesh-bench-").tempdir().expect("a temporary folder");
    let nodes = three(folder.path()).await;
    if wants("shapes") {
        shapes(&nodes).await;
    }
    if wants("chain") {
        chain(&nodes).await;
    }
}

async fn three(folder: &Path) -> Vec<Node> {
    let mut nodes: Vec<Node> = Vec::new();
    for n in 0..3 {
        let plan = Plan::new(&folder.join(format!("n{n}"))).set("log.level", "warn");
        let mut node = Node::spawn(match nodes.first() {
            Some(seed) => plan.join(seed.invite()),
            None => plan,
        });
        node.up().await;
        nodes.push(node);
    }
    eventually(Duration::from_secs(30), "all nodes are one mesh", async || {
        let stats = nodes[0].call("queue_stats", json!({})).await.ok()?;
        (stats["nodes_answered"] == 3).then_some(())
    })
    .await;
    nodes
}

fn line(steps: usize) -> Shape {
    (0..steps).map(|n| n.checked_sub(1).into_iter().collect()).collect()
}

/// One, five, four, one.
fn eleven() -> Shape {
    let mut shape = vec![vec![]];
    shape.extend(vec![vec![0]; 5]);
    shape.extend((0..4).map(|n| vec![1 + n, 2 + n]));
    shape.push(vec![6, 7, 8, 9]);
    shape
}

/// Two diamonds in a row.
fn eight() -> Shape {
    vec![vec![], vec![0], vec![0], vec![1, 2], vec![3], vec![3], vec![4, 5], vec![6]]
}

async fn shapes(nodes: &[Node]) {
    println!("workflows of no-ops at once; `plain`: the same graphs as tasks with depends_on, submitted one by one\n");
    println!(
        "{:<22}{:>7}{:>7}{:>12}{:>10}{:>10}{:>12}{:>14}{:>14}{:>8}",
        "shape", "flows", "steps", "workflows/s", "p50 ms", "p99 ms", "plain p50", "µs/step", "plain µs/step", "ratio"
    );
    let mixed = |n: usize| if n % 10 < 3 { line(3) } else { eight() };
    let kinds: [(&str, &dyn Fn(usize) -> Shape); 4] =
        [("line of 3", &|_| line(3)), ("11 steps", &|_| eleven()), ("DAG of 8", &|_| eight()), ("mixed 30:70", &mixed)];
    // Fills caches, and lets the owner learn how short runs are.
    as_workflows(nodes, &vec![line(3); 100]).await;
    for count in [100, 1_000] {
        for (name, shape) in kinds {
            let shapes: Vec<Shape> = (0..count).map(shape).collect();
            let steps: usize = shapes.iter().map(Vec::len).sum();
            let turns = if count > 100 { 3 } else { TURNS };
            let (mut flows, mut plain) = (Vec::new(), Vec::new());
            for _ in 0..turns {
                flows.push(as_workflows(nodes, &shapes).await);
                plain.push(as_tasks(nodes, &shapes).await);
            }
            let ratios = flows.iter().zip(&plain).map(|(f, p)| f.took.as_secs_f64() / p.took.as_secs_f64());
            let ratio = median(ratios.collect());
            let of = |turns: &[Turn], value: &dyn Fn(&Turn) -> f64| median(turns.iter().map(value).collect());
            let per_step = |t: &Turn| t.took.as_secs_f64() * 1e6 / steps as f64;
            println!(
                "{name:<22}{count:>7}{steps:>7}{:>12.0}{:>10.0}{:>10.0}{:>12.0}{:>14.0}{:>14.0}{ratio:>8.2}",
                of(&flows, &|t| count as f64 / t.took.as_secs_f64()),
                of(&flows, &|t| t.percentile(0.5)),
                of(&flows, &|t| t.percentile(0.99)),
                of(&plain, &|t| t.percentile(0.5)),
                of(&flows, &per_step),
                of(&plain, &per_step),
            );
        }
    }
    println!("\nratio: time for all of them, workflows to plain tasks; at most 1.3");
}

/// What one turn took, and each graph in it by the nodes' own clocks, in ms.
struct Turn {
    took: Duration,
    each_ms: Vec<f64>,
}

impl Turn {
    fn percentile(&self, part: f64) -> f64 {
        let mut sorted = self.each_ms.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[((sorted.len() - 1) as f64 * part) as usize]
    }
}

async fn as_workflows(nodes: &[Node], shapes: &[Shape]) -> Turn {
    let begun = Instant::now();
    let submit = async |shape: &Shape| {
        let step = |(n, before): (usize, &Vec<usize>)| {
            let before: Vec<_> = before.iter().map(|b| format!("s{b}")).collect();
            json!({"step_id": format!("s{n}"), "action": "echo", "depends_on": before})
        };
        let steps: Vec<Value> = shape.iter().enumerate().map(step).collect();
        let submitted = nodes[0].ask("workflow_submit", json!({"name": "bench", "steps": steps})).await;
        submitted["workflow_id"].as_str().expect("an id").to_owned()
    };
    let ids: Vec<String> = stream::iter(shapes).map(submit).buffered(IN_FLIGHT).collect().await;
    ended(nodes, &ids).await;
    let took = begun.elapsed();
    let spans = stream::iter(&ids).map(async |id| {
        let seen = nodes[0].ask("task_status", json!({"task_id": id, "include_metrics": true})).await;
        assert_eq!(seen["status"], "completed", "{seen}");
        span(&seen["metrics"]["submitted_at"], &seen["end_time"])
    });
    Turn { took, each_ms: spans.buffered(IN_FLIGHT).collect().await }
}

/// A client's own way: every task by its own call, with what it waits for.
async fn as_tasks(nodes: &[Node], shapes: &[Shape]) -> Turn {
    let begun = Instant::now();
    let submit = async |shape: &Shape| {
        let mut ids: Vec<String> = Vec::new();
        for before in shape {
            let before: Vec<_> = before.iter().map(|b| ids[*b].as_str()).collect();
            let task = json!({"task_type": "echo", "payload": {}, "depends_on": before});
            let submitted = nodes[0].ask("task_submit", task).await;
            ids.push(submitted["task_id"].as_str().expect("an id").to_owned());
        }
        ids
    };
    let graphs: Vec<Vec<String>> = stream::iter(shapes).map(submit).buffered(IN_FLIGHT).collect().await;
    let last: Vec<String> = graphs.iter().filter_map(|graph| graph.last().cloned()).collect();
    ended(nodes, &last).await;
    let took = begun.elapsed();
    let spans = stream::iter(&graphs).map(async |graph| {
        let first = nodes[0].ask("task_status", json!({"task_id": graph[0], "include_metrics": true})).await;
        let last = nodes[0].ask("task_status", json!({"task_id": graph[graph.len() - 1]})).await;
        assert_eq!(last["status"], "completed", "{last}");
        span(&first["metrics"]["submitted_at"], &last["end_time"])
    });
    Turn { took, each_ms: spans.buffered(IN_FLIGHT).collect().await }
}

/// Waits for all of them: the last first, since they end in about their order.
async fn ended(nodes: &[Node], ids: &[String]) {
    let wait = async |id: &String| {
        nodes[0].result(id, PATIENCE).await;
    };
    stream::iter(ids.iter().rev()).map(wait).buffer_unordered(IN_FLIGHT).collect::<Vec<_>>().await;
}

fn span(from: &Value, to: &Value) -> f64 {
    let time = |value: &Value| chrono::DateTime::parse_from_rfc3339(value.as_str()?).ok();
    let (from, to) = (time(from).expect("a time"), time(to).expect("a time"));
    (to - from).as_seconds_f64() * 1e3
}

/// A chain of no-ops as one workflow, beside as many round trips one after the
/// other, each from submission to result.
async fn chain(nodes: &[Node]) {
    println!("\na chain of {CHAIN} no-ops, and {CHAIN} single tasks one after the other; ms\n");
    println!("{:>6}{:>12}{:>12}{:>8}", "turn", "chain", "singles", "ratio");
    let mut ratios = BTreeMap::new();
    for turn in 0..TURNS {
        let chain = as_workflows(nodes, &[line(CHAIN)]).await.took.as_secs_f64() * 1e3;
        let begun = Instant::now();
        for _ in 0..CHAIN {
            let task = nodes[0].ask("task_submit", json!({"task_type": "echo", "payload": {}})).await;
            let ask = json!({"task_id": task["task_id"], "wait_ms": 45_000});
            assert_eq!(nodes[0].ask("task_result", ask).await["status"], "completed");
        }
        let singles = begun.elapsed().as_secs_f64() * 1e3;
        println!("{turn:>6}{chain:>12.0}{singles:>12.0}{:>8.2}", chain / singles);
        ratios.insert(turn, chain / singles);
    }
    println!("\nmedian ratio {:.2}; at most 1.2", median(ratios.into_values().collect()));
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
