//! Workflows on real nodes: owners that are killed, and outputs that are too
//! large for a record.

use crate::fleet::{Fleet, eventually, items, submit};
use serde_json::{Value, json};
use std::time::Duration;

/// Steps of the chain, and of the middle of the fan.
const CHAIN: usize = 200;
const FAN: usize = 500;

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_of_steps_survives_its_owner_with_every_result_right() {
    // Each adds one to what the one before it printed.
    let add = |n: usize| {
        let before = if n == 0 { "0".to_owned() } else { format!("${{steps.s{}.output}}", n - 1) };
        let after: Vec<String> = (n > 0).then(|| format!("s{}", n - 1)).into_iter().collect();
        json!({"step_id": format!("s{n}"), "action": "exec", "depends_on": after,
               "inputs": {"argv": ["expr", before, "+", "1"]}})
    };
    let steps: Vec<Value> = (0..CHAIN).map(add).collect();
    let mut fleet = Fleet::with(3, &[]).await;
    let id = begin(&fleet, steps).await;
    kill_owner_after(&mut fleet, &id, 40).await;
    finished(&fleet, &id).await;
    for n in 0..CHAIN {
        let left = fleet.nodes[2].result(&format!("{id}/s{n}"), Duration::from_secs(10)).await;
        assert_eq!(left["output"], json!(format!("{}\n", n + 1)), "s{n}: {left}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wide_fan_survives_its_owner_with_every_result_right() {
    let first = json!({"step_id": "first", "action": "echo", "inputs": {"base": 1000}});
    let middle = |n: usize| {
        let argv = json!(["sh", "-c", "sleep 0.05; expr $1 + $2", "add", "${steps.first.result.base}", n]);
        json!({"step_id": format!("m{n}"), "action": "exec", "depends_on": ["first"], "inputs": {"argv": argv}})
    };
    let names: Vec<String> = (0..FAN).map(|n| format!("m{n}")).collect();
    let all: Vec<String> = names.iter().map(|name| format!("${{steps.{name}.output}}")).collect();
    let last = json!({"step_id": "last", "action": "echo", "depends_on": names, "inputs": {"all": all}});
    let steps: Vec<Value> = [first].into_iter().chain((0..FAN).map(middle)).chain([last]).collect();
    let mut fleet = Fleet::with(3, &[]).await;
    let id = begin(&fleet, steps).await;
    kill_owner_after(&mut fleet, &id, 100).await;
    let result = finished(&fleet, &id).await;
    assert_eq!(result["result"]["last"]["all"], json!((0..FAN).map(|n| (1000 + n).to_string()).collect::<Vec<_>>()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_output_is_read_anywhere_and_handed_on_by_reference() {
    // Two of the five keep no copy of a task.
    let fleet = Fleet::with(5, &[("mesh.holders", "3")]).await;
    let long = json!({"argv": ["seq", "20000"]});
    submit(&fleet.nodes[0], json!({"task_id": "long", "task_type": "exec", "payload": long})).await;
    let whole: String = (1..=20_000).map(|n| format!("{n}\n")).collect();
    for node in &fleet.nodes {
        let left = node.result("long", Duration::from_secs(20)).await;
        assert_eq!(left["output"], json!(whole), "at {}", node.name());
    }

    let exec = |id: &str, inputs: Value, after: &[&str]| json!({"step_id": id, "action": "exec", "inputs": inputs, "depends_on": after});
    let mut steps = vec![
        exec("sizes", json!({"argv": ["printf", "20000\n30000\n10\n"]}), &[]),
        exec("seq", json!({"argv": ["seq", "${item}"]}), &["sizes"]),
        exec(
            "sum",
            json!({"argv": ["awk", "{ sum += $1 } END { print sum }"], "stdin": "${steps.seq.output}"}),
            &["seq"],
        ),
    ];
    steps[1]["for_each"] = json!("${steps.sizes.output}");
    let id = begin(&fleet, steps).await;
    finished(&fleet, &id).await;
    let sum = |n: u64| n * (n + 1) / 2;
    let left = fleet.nodes[4].result(&format!("{id}/sum"), Duration::from_secs(10)).await;
    assert_eq!(left["output"], json!(format!("{}\n", sum(20_000) + sum(30_000) + sum(10))), "{left}");
    let parts = items(&format!("{id}/seq"), 3);
    let large = fleet.nodes[3].result(&parts[1], Duration::from_secs(10)).await;
    assert_eq!(large["output_bytes"], json!((1..=30_000).map(|n: u32| n.to_string().len() + 1).sum::<usize>()));
}

/// Submits through the first node, which becomes its owner.
async fn begin(fleet: &Fleet, steps: Vec<Value>) -> String {
    let submitted = fleet.nodes[0].ask("workflow_submit", json!({"name": "w", "steps": steps})).await;
    assert_eq!(submitted["peer_assigned"], json!(fleet.nodes[0].peer_id()));
    submitted["workflow_id"].as_str().expect("an id").to_owned()
}

/// kill -9, disk and all, once that many steps have completed.
async fn kill_owner_after(fleet: &mut Fleet, id: &str, steps: u64) {
    eventually(Duration::from_secs(60), format!("{steps} steps have completed"), async || {
        let ask = json!({"workflow_id": id, "include_steps": false, "include_metrics": true});
        let seen = fleet.nodes[1].call("workflow_status", ask).await.ok()?;
        assert_eq!(seen["status"], "running", "the owner is killed while it leads: {seen}");
        (seen["metrics"]["tasks_ended"].as_u64()? >= steps).then_some(())
    })
    .await;
    fleet.nodes[0].kill();
    std::fs::remove_dir_all(fleet.nodes[0].data_dir()).expect("its disk goes too");
}

/// What it left, as the last node tells it.
async fn finished(fleet: &Fleet, id: &str) -> Value {
    let reader = fleet.nodes.last().expect("a node");
    eventually(Duration::from_secs(120), format!("{id} has ended"), async || {
        let ask = json!({"workflow_id": id, "include_steps": false});
        let seen = reader.call("workflow_status", ask).await.ok()?;
        (seen["status"] != "running").then_some(())
    })
    .await;
    let result = reader.ask("workflow_result", json!({"workflow_id": id})).await;
    assert_eq!(result["status"], "completed", "{}", result["errors"]);
    result
}
