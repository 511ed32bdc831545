//! The demonstration of workflows (`make demo-workflow`): how often each word
//! occurs in all Markdown and Rust files of the Cargo registry's sources. One
//! step lists the packages, one counts in portions of them on three nodes, one
//! merges the counts; the node that leads all this is killed half-way. The whole
//! table is compared with one made directly.

mod files;
#[path = "../fleet/mod.rs"]
mod fleet;

use fleet::{Fleet, Node, poll};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Packages that one task counts in.
const PORTION: &str = "8";
/// After this long without an end, all waiting stops.
const PATIENCE: Duration = Duration::from_secs(600);
/// What a step may print: tables of words are long.
const OUTPUT: u64 = 16 * 1024 * 1024;

/// Leads the workflow, and is killed.
const LEADER: usize = 0;
/// Is asked for everything.
const READER: usize = 2;

/// Prints the folders of packages below $1, $2 to a line.
const LIST: &str = "find \"$1\" -mindepth 2 -maxdepth 2 -type d | sort | xargs -n \"$2\"";
/// Prints how often each word occurs in the files of the folders $1. `grep`
/// ends the last line of every file, so that no word runs into the next file.
const COUNT: &str = "find $1 -type f \\( -name '*.md' -o -name '*.rs' \\) -print0 | xargs -0 -r grep -ha '' \
    | tr -cs 'A-Za-z' '\\n' | awk 'NF { n[$1]++ } END { for (word in n) printf \"%.0f %s\\n\", n[word], word }'";
/// Adds tables up, and prints the most frequent words first.
const MERGE: &str = "awk '{ n[$2] += $1 } END { for (word in n) printf \"%.0f %s\\n\", n[word], word }' \
    | sort -k1,1nr -k2,2";

#[tokio::main]
async fn main() -> ExitCode {
    let Some(root) = files::registry() else {
        eprintln!("there are no sources in the Cargo registry (~/.cargo/registry/src): `cargo fetch` brings them");
        return ExitCode::FAILURE;
    };
    let mut fleet = three_nodes().await;
    let began = Instant::now();
    let id = submit(&fleet.nodes[LEADER], &root).await;
    println!("workflow {id}: list, count (for each line of the list), merge");
    follow(&fleet, &id, |progress| progress >= 50.0).await;
    fleet.nodes[LEADER].kill();
    println!("kill -9: node 1, which leads the workflow, is gone");
    let status = follow(&fleet, &id, |_| false).await;
    let took = began.elapsed();
    if status["status"] != "completed" {
        let result = fleet.nodes[READER].call("workflow_result", json!({"workflow_id": id})).await;
        println!("the workflow is {}: {result:?}", status["status"]);
        return ExitCode::FAILURE;
    }
    let table = output(&fleet.nodes[READER], &format!("{id}/merge")).await;
    println!("counting directly, in one thread");
    let began = Instant::now();
    let direct = count(&root);
    println!("  mesh {:.1} s, directly {:.1} s", took.as_secs_f64(), began.elapsed().as_secs_f64());
    summary(&status, &table, &direct)
}

async fn three_nodes() -> Fleet {
    let timings = [("mesh.lease_ms", "2000"), ("mesh.beat_ms", "400"), ("exec.allow", "sh"), ("log.level", "info")];
    let fleet = Fleet::with(3, &timings).await;
    println!("three nodes are up; nodes 2 and 3 joined by the invite of node 1");
    fleet
}

async fn submit(node: &Node, root: &Path) -> String {
    let step = |id: &str, script: &str, arguments: Value, after: Value| {
        let mut argv = vec![json!("sh"), json!("-c"), json!(script), json!(id)];
        argv.extend(arguments.as_array().cloned().unwrap_or_default());
        let inputs = json!({"argv": argv, "env": {"LC_ALL": "C"}, "output_limit": OUTPUT});
        json!({"step_id": id, "action": "exec", "depends_on": after, "inputs": inputs})
    };
    let list = step("list", LIST, json!([root, PORTION]), json!([]));
    let mut count = step("count", COUNT, json!(["${item}"]), json!(["list"]));
    count["for_each"] = json!("${steps.list.output}");
    let mut merge = step("merge", MERGE, json!([]), json!(["count"]));
    merge["inputs"]["stdin"] = json!("${steps.count.output}");
    let workflow = json!({"name": "word counts", "steps": [list, count, merge]});
    let submitted = node.ask("workflow_submit", workflow).await;
    submitted["workflow_id"].as_str().expect("an id").to_owned()
}

/// Shows how far it is, once a second, until it is over or `enough`.
async fn follow(fleet: &Fleet, id: &str, enough: impl Fn(f64) -> bool) -> Value {
    let mut shown = Instant::now();
    let ask = json!({"workflow_id": id, "include_metrics": true, "include_steps": false});
    let reached = poll(PATIENCE, async || {
        let seen = fleet.nodes[READER].call("workflow_status", ask.clone()).await.ok()?;
        let progress = seen["progress"].as_f64().unwrap_or(0.0);
        if shown.elapsed() > Duration::from_secs(1) {
            shown = Instant::now();
            let of = |field: &str| seen["metrics"][field].as_u64().unwrap_or(0);
            println!(
                "  {progress:>3.0} %: {} of {} tasks ended; now {}",
                of("tasks_ended"),
                of("tasks"),
                seen["current_steps"]
            );
        }
        (seen["status"] != "running" || enough(progress)).then_some(seen)
    });
    reached.await.unwrap_or(Value::Null)
}

/// All that a task printed, page by page.
async fn output(node: &Node, task: &str) -> String {
    let mut whole = String::new();
    let mut next = Some(0);
    while let Some(offset) = next {
        let page = node.ask("task_result", json!({"task_id": task, "output_offset": offset})).await;
        whole.push_str(page["output"].as_str().unwrap_or_default());
        next = page["next_output_offset"].as_u64();
    }
    whole
}

/// The same table, without the mesh and without any of those programs.
fn count(root: &Path) -> String {
    let mut counts: HashMap<Vec<u8>, u64> = HashMap::new();
    walk(root, &mut |content| {
        for word in content.split(|byte| !byte.is_ascii_alphabetic()).filter(|word| !word.is_empty()) {
            match counts.get_mut(word) {
                Some(n) => *n += 1,
                None => drop(counts.insert(word.to_vec(), 1)),
            }
        }
    });
    let mut rows: Vec<_> = counts.into_iter().collect();
    rows.sort_unstable_by(|(a, m), (b, n)| n.cmp(m).then_with(|| a.cmp(b)));
    rows.iter().map(|(word, n)| format!("{n} {}\n", String::from_utf8_lossy(word))).collect()
}

fn walk(folder: &Path, see: &mut impl FnMut(&[u8])) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, Ok(about)) = (entry.path(), entry.metadata()) else { continue };
        if about.is_dir() {
            walk(&path, see);
        } else if about.is_file() && path.extension().is_some_and(|end| end == "md" || end == "rs") {
            see(&std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())));
        }
    }
}

fn summary(status: &Value, table: &str, direct: &str) -> ExitCode {
    let words =
        |table: &str| -> u64 { table.lines().filter_map(|row| row.split(' ').next()?.parse::<u64>().ok()).sum() };
    let same = table == direct && !direct.is_empty() && status["status"] == "completed";
    println!("\n  {:<28}{:>14}{:>14}", "", "mesh", "directly");
    println!("  {:<28}{:>14}{:>14}", "words", words(table), words(direct));
    println!("  {:<28}{:>14}{:>14}", "different words", table.lines().count(), direct.lines().count());
    for (mesh, direct) in table.lines().zip(direct.lines()).take(5) {
        println!("  {:<28}{mesh:>14}{direct:>14}", "");
    }
    println!("  {:<28}{:>14}", "workflow", status["status"].as_str().unwrap_or("not told"));
    println!("  {:<28}{:>14}", "tables are the same", if same { "yes" } else { "NO" });
    if same { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
