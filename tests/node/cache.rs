//! The result cache on real nodes: taken on every node, right when a home is
//! killed, found again after a restart, dropped by an operator.

use crate::fleet::{Fleet, Node, eventually, submit};
use serde_json::{Value, json};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Runs the command line with the data folder of `node`; its answer.
fn taskmesh(node: &Node, arguments: &[&str]) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_taskmesh"));
    command.arg("--data-dir").arg(node.data_dir()).arg("--json").args(arguments);
    let done = command.stdin(Stdio::null()).output().expect("the program runs");
    assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    serde_json::from_slice(&done.stdout).expect("JSON")
}

/// Work whose result tells how often it ran: a line of a file for each run.
fn counted(id: &str, log: &str, payload: &str, cache: &str) -> Value {
    let script = "echo run >> \"$1\"; wc -l < \"$1\"; head -c \"$2\" /dev/zero";
    json!({
        "task_id": id, "task_type": "exec", "tags": ["counted"], "cache": cache,
        "payload": {"argv": ["sh", "-c", script, "sh", log, payload]},
    })
}

async fn result(node: &Node, task: &str) -> Value {
    node.result(task, Duration::from_secs(40)).await
}

fn source(left: &Value) -> (&Value, &Value) {
    (&left["cached_from"]["task_id"], &left["cached_from"]["attempt"])
}

fn runs(log: &std::path::Path) -> usize {
    std::fs::read_to_string(log).map_or(0, |text| text.lines().count())
}

/// Every node keeps `entries` results.
async fn copied(node: &Node, entries: u64) -> Value {
    eventually(Duration::from_secs(20), "copied to every node", async || {
        let stats = taskmesh(node, &["cache", "stats"]);
        let all = stats["nodes"].as_array().expect("nodes").iter().all(|n| n["entries"] == json!(entries));
        (all && stats["silent_nodes"] == json!([])).then_some(stats)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_is_taken_on_every_node_and_is_never_wrong_when_its_home_is_killed() {
    let mut fleet = Fleet::with(3, &[("exec.allow", "sh")]).await;
    let log = fleet.folder().join("runs");
    let path = log.to_str().expect("text").to_owned();
    let work = |id: &str, payload: &str| counted(id, &path, payload, "read_write");

    // Small enough for the record, and large enough to be a file.
    for (n, bytes) in ["10", "100000"].into_iter().enumerate() {
        let first = format!("first-{bytes}");
        submit(&fleet.nodes[0], work(&first, bytes)).await;
        let left = result(&fleet.nodes[0], &first).await;
        assert_eq!((left["status"].as_str(), &left["cached_from"]), (Some("completed"), &Value::Null));
        copied(&fleet.nodes[0], n as u64 + 1).await;
        for at in [1, 2, 0] {
            let id = format!("again-{bytes}-{at}");
            submit(&fleet.nodes[at], work(&id, bytes)).await;
            let again = result(&fleet.nodes[at], &id).await;
            assert_eq!(again["status"], "completed");
            assert_eq!(source(&again), (&json!(first), &json!(1)));
            for fact in ["result", "output_cid", "output_bytes"] {
                assert_eq!(again[fact], left[fact], "{fact}");
            }
        }
    }
    assert_eq!(runs(&log), 2);

    // Whichever node is the home of a key, it is one of these.
    for victim in 0..3 {
        fleet.nodes[victim].kill();
        let asked = (victim + 1) % 3;
        for bytes in ["10", "100000"] {
            let id = format!("killed-{victim}-{bytes}");
            eventually(Duration::from_secs(40), "taken", async || {
                fleet.nodes[asked].call("task_submit", work(&id, bytes)).await.ok()
            })
            .await;
            let again = result(&fleet.nodes[asked], &id).await;
            assert_eq!(again["status"], "completed", "{again}");
            // A hit, or honestly a run of its own.
            if let Some(first) = again["cached_from"]["task_id"].as_str() {
                assert_eq!(again["output_cid"], result(&fleet.nodes[asked], first).await["output_cid"]);
            }
        }
        fleet.nodes[victim].restart().await;
        fleet.settled().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn results_outlive_a_power_cut_and_are_dropped_everywhere_by_an_operator() {
    let mut fleet = Fleet::with(3, &[("exec.allow", "sh")]).await;
    let log = fleet.folder().join("runs");
    let path = log.to_str().expect("text").to_owned();
    for bytes in ["10", "100000"] {
        let id = format!("first-{bytes}");
        submit(&fleet.nodes[0], counted(&id, &path, bytes, "write")).await;
        result(&fleet.nodes[0], &id).await;
    }
    copied(&fleet.nodes[1], 2).await;
    fleet.nodes.iter_mut().for_each(Node::kill);
    fleet.nodes.iter_mut().for_each(Node::relaunch);
    for node in &mut fleet.nodes {
        node.up().await;
    }
    fleet.settled().await;
    copied(&fleet.nodes[2], 2).await;
    for bytes in ["10", "100000"] {
        let id = format!("after-{bytes}");
        submit(&fleet.nodes[1], counted(&id, &path, bytes, "read")).await;
        assert_eq!(source(&result(&fleet.nodes[1], &id).await), (&json!(format!("first-{bytes}")), &json!(1)));
    }
    assert_eq!(runs(&log), 2);

    let gone = taskmesh(&fleet.nodes[2], &["cache", "invalidate", "--task", "first-10"]);
    assert_eq!((&gone["entries"], &gone["copies"], &gone["silent_nodes"]), (&json!(1), &json!(3), &json!([])));
    let gone = taskmesh(&fleet.nodes[0], &["cache", "invalidate", "--tag", "counted"]);
    assert_eq!((&gone["entries"], &gone["copies"]), (&json!(1), &json!(3)));
    submit(&fleet.nodes[1], counted("anew", &path, "10", "read_write")).await;
    let anew = result(&fleet.nodes[1], "anew").await;
    assert_eq!((&anew["cached_from"], runs(&log)), (&Value::Null, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_work_on_three_nodes_at_once_runs_once() {
    let fleet = Fleet::with(3, &[("exec.allow", "sh")]).await;
    let log = fleet.folder().join("runs");
    let gate = fleet.folder().join("gate");
    let script = "echo run >> \"$1\"; while [ ! -e \"$2\" ]; do sleep 0.05; done";
    let argv = json!(["sh", "-c", script, "sh", log.to_str().expect("text"), gate.to_str().expect("text")]);
    let work = |id: &str| json!({"task_id": id, "task_type": "exec", "cache": "read_write", "payload": {"argv": argv}});
    for (n, node) in fleet.nodes.iter().enumerate() {
        submit(node, work(&format!("t{n}"))).await;
    }
    for node in &fleet.nodes {
        eventually(Duration::from_secs(20), "one runs and the others wait for it", async || {
            let mut states = Vec::new();
            for n in 0..3 {
                let seen = node.call("task_status", json!({"task_id": format!("t{n}"), "explain": true})).await.ok()?;
                states.push(seen["status"].as_str()?.to_owned());
                let why = seen["explanation"]["summary"].as_str().unwrap_or_default();
                if seen["status"] == "blocked" && !why.contains("which does the same work") {
                    return None;
                }
            }
            states.sort();
            (states == ["blocked", "blocked", "running"]).then_some(())
        })
        .await;
    }
    std::fs::write(&gate, "").expect("written");
    let mut hits = 0;
    for n in 0..3 {
        let left = result(&fleet.nodes[0], &format!("t{n}")).await;
        assert_eq!(left["status"], "completed");
        hits += usize::from(!left["cached_from"].is_null());
    }
    assert_eq!((runs(&log), hits), (1, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_room_goes_in_the_order_that_the_settings_say_and_is_counted() {
    // Of `a`, taken twice, and `b`, taken once and later: who goes for `c`?
    for (policy, goes) in [("lru", "a"), ("fifo", "a"), ("lfu", "b"), ("ttl", "a")] {
        let fleet = Fleet::with(1, &[("cache.entries", "2"), ("cache.policy", policy)]).await;
        let node = &fleet.nodes[0];
        let mut made = 0;
        let mut taken = async |work: &str, cache: &str| {
            made += 1;
            let id = format!("t{made}");
            submit(node, json!({"task_id": id, "task_type": "echo", "cache": cache, "payload": {"work": work}})).await;
            !result(node, &id).await["cached_from"].is_null()
        };
        let mut took = Vec::new();
        for work in ["a", "b", "a", "a", "b", "c"] {
            took.push(taken(work, "read_write").await);
        }
        assert_eq!(took, [false, false, true, true, true, false], "{policy}");
        let stats = eventually(Duration::from_secs(20), "c is kept", async || {
            let stats = taskmesh(node, &["cache", "stats"])["nodes"][0].clone();
            (stats["gone"]["entries"] == 1).then_some(stats)
        })
        .await;
        assert_eq!((&stats["entries"], &stats["hits"]), (&json!(2), &json!(3)), "{policy}: {stats}");
        for work in ["a", "b", "c"] {
            assert_eq!(taken(work, "read").await, work != goes, "{policy}: {work}");
        }
        let (_, counted) = node.get("/metrics").await.expect("metrics");
        let line = format!("taskmesh_cache_evictions_total{{policy=\"{policy}\",reason=\"entries\"}} 1");
        assert!(counted.contains(&line), "{policy}: no line {line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_goes_when_its_time_is_over() {
    let fleet = Fleet::with(1, &[("cache.ttl_s", "1")]).await;
    let node = &fleet.nodes[0];
    submit(node, json!({"task_id": "t", "task_type": "echo", "cache": "write", "payload": {}})).await;
    result(node, "t").await;
    eventually(Duration::from_secs(20), "it is over", async || {
        let stats = taskmesh(node, &["cache", "stats"])["nodes"][0].clone();
        (stats["entries"] == 0 && stats["gone"]["expired"] == 1).then_some(())
    })
    .await;
}
