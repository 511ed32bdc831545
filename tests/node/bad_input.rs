//! Every operation with missing, wrong-typed, out-of-range, unknown and huge
//! arguments: the right code, and nothing changes.

use crate::fleet::{Fleet, Node, code, submit};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use taskmesh::ops::offered;

/// Arguments that are wrong in their values: operation, arguments, code.
fn wrong_values(peer: &str, long: &str, megabytes: &str) -> Vec<(&'static str, Value, &'static str)> {
    let task = |field: &str, value: Value| {
        let mut task = json!({"task_type": "echo", "payload": {}});
        task[field] = value;
        task
    };
    let mut rows = vec![
        ("task_submit", task("task_type", json!("")), "invalid_argument"),
        ("task_submit", task("task_id", json!("a b")), "invalid_argument"),
        ("task_submit", task("task_id", json!("")), "invalid_argument"),
        ("task_submit", task("task_id", json!(long)), "invalid_argument"),
        ("task_submit", task("task_id", json!("taken")), "conflict"),
        ("task_submit", task("priority", json!(0)), "invalid_argument"),
        ("task_submit", task("priority", json!(-1.5)), "invalid_argument"),
        ("task_submit", task("timeout", json!(0)), "invalid_argument"),
        ("task_submit", task("timeout", json!(-3)), "invalid_argument"),
        ("task_submit", task("tags", json!(vec!["t"; 33])), "invalid_argument"),
        ("task_submit", task("tags", json!([long])), "invalid_argument"),
        ("task_submit", task("retry_policy", json!({"max_retries": 1001})), "invalid_argument"),
        ("task_submit", task("retry_policy", json!({"backoff_factor": 0.5})), "invalid_argument"),
        ("task_submit", task("retry_policy", json!({"initial_delay_ms": -1})), "invalid_argument"),
        ("task_submit", task("requirements", json!({"cpus": -1})), "invalid_argument"),
        ("task_submit", task("requirements", json!({"cores": 1})), "invalid_argument"),
        ("task_submit", task("not_before", json!("tomorrow")), "invalid_argument"),
        ("task_submit", task("deadline", json!("2026-02-30T00:00:00Z")), "invalid_argument"),
        ("task_submit", task("durability", json!("maybe")), "invalid_argument"),
        ("task_submit", task("items", json!(vec![json!({}); 100_001])), "invalid_argument"),
        ("task_submit", task("payload", json!({"huge": megabytes})), "payload_too_large"),
        ("task_submit", task("metadata", json!({"huge": &megabytes[..70_000]})), "payload_too_large"),
        ("task_status", json!({"task_id": "nowhere"}), "not_found"),
        ("task_status", json!({"task_id": long}), "invalid_argument"),
        ("task_cancel", json!({"task_id": "nowhere"}), "not_found"),
        ("task_cancel", json!({"task_id": "ended"}), "failed_precondition"),
        ("task_cancel", json!({"task_id": "waiting", "reason": megabytes}), "invalid_argument"),
        ("task_list", json!({"limit": 0}), "invalid_argument"),
        ("task_list", json!({"limit": 1001}), "invalid_argument"),
        ("task_list", json!({"offset": 100_001}), "invalid_argument"),
        ("task_list", json!({"cursor": "made up"}), "invalid_argument"),
        ("task_list", json!({"status_filter": "asleep"}), "invalid_argument"),
        ("task_priority", json!({"task_id": "waiting", "new_priority": 0}), "invalid_argument"),
        ("task_priority", json!({"task_id": "nowhere", "new_priority": 2}), "not_found"),
        ("task_priority", json!({"task_id": "ended", "new_priority": 2}), "failed_precondition"),
        ("task_result", json!({"task_id": "nowhere"}), "not_found"),
        ("task_result", json!({"task_id": "ended", "wait_ms": 45_001}), "invalid_argument"),
        ("queue_stats", json!({"scope": "galaxy"}), "invalid_argument"),
        ("queue_pause", json!({"reason": megabytes}), "invalid_argument"),
        ("queue_clear", json!({}), "confirmation_required"),
        ("queue_clear", json!({"confirm": false, "status_filter": "queued"}), "confirmation_required"),
        ("queue_clear", json!({"confirm": true, "status_filter": "running"}), "invalid_argument"),
        ("task_retry", json!({"task_id": "nowhere"}), "not_found"),
        ("task_retry", json!({"task_id": "waiting"}), "failed_precondition"),
        ("task_retry", json!({"task_id": "ended", "retry_config": {"max_retries": -1}}), "invalid_argument"),
    ];
    rows.extend(wrong_values_of_workers_and_peers(peer, long));
    rows
}

fn wrong_values_of_workers_and_peers(peer: &str, long: &str) -> Vec<(&'static str, Value, &'static str)> {
    let worker = |field: &str, value: Value| {
        let mut worker = json!({"worker_id": "w", "capabilities": ["echo"]});
        worker[field] = value;
        worker
    };
    let dial = |field: &str, value: Value| {
        let mut dial = json!({"peer_id": peer, "multiaddr": "/ip4/127.0.0.1/tcp/1", "timeout": 1, "retry_count": 0});
        dial[field] = value;
        dial
    };
    vec![
        ("workflow_submit", json!({"name": "w", "steps": []}), "invalid_argument"),
        (
            "workflow_submit",
            json!({"name": "w", "steps": [{"step_id": "a", "action": "teleport"}]}),
            "invalid_argument",
        ),
        ("workflow_status", json!({"workflow_id": "nobody"}), "not_found"),
        ("workflow_status", json!({"workflow_id": "ended"}), "not_found"),
        ("workflow_cancel", json!({"workflow_id": "nobody"}), "not_found"),
        ("workflow_cancel", json!({"workflow_id": "waiting"}), "not_found"),
        ("workflow_list", json!({"status_filter": "lost"}), "invalid_argument"),
        ("workflow_list", json!({"peer_filter": "nobody"}), "invalid_argument"),
        ("workflow_dependencies", json!({"workflow_id": "a b"}), "invalid_argument"),
        ("workflow_result", json!({"workflow_id": "nobody"}), "not_found"),
        ("worker_register", worker("worker_id", json!("")), "invalid_argument"),
        ("worker_register", worker("worker_id", json!(long)), "invalid_argument"),
        ("worker_register", worker("capabilities", json!(["teleport"])), "invalid_argument"),
        ("worker_register", worker("max_concurrent_tasks", json!(0)), "invalid_argument"),
        ("worker_register", worker("max_concurrent_tasks", json!(10_001)), "invalid_argument"),
        ("worker_register", worker("resource_limits", json!({"cpu_cores": -1})), "invalid_argument"),
        ("worker_unregister", json!({"worker_id": "nobody"}), "not_found"),
        ("worker_unregister", json!({"worker_id": "nobody", "timeout": -1}), "invalid_argument"),
        ("worker_status", json!({"worker_id": "nobody"}), "not_found"),
        ("peer_discover", json!({"max_peers": 0}), "invalid_argument"),
        ("peer_discover", json!({"timeout": -1}), "invalid_argument"),
        ("peer_connect", dial("peer_id", json!("QmNobody")), "invalid_argument"),
        ("peer_connect", dial("multiaddr", json!("not an address")), "invalid_argument"),
        ("peer_connect", dial("retry_count", json!(11)), "invalid_argument"),
        ("peer_connect", dial("timeout", json!(0)), "invalid_argument"),
        ("peer_disconnect", json!({"peer_id": "QmNobody"}), "invalid_argument"),
        ("peer_disconnect", json!({"peer_id": NOBODY}), "not_found"),
        ("peer_list", json!({"sort_by": "beauty"}), "invalid_argument"),
        ("peer_list", json!({"limit": 0}), "invalid_argument"),
        ("peer_list", json!({"status_filter": "asleep"}), "invalid_argument"),
        ("peer_metrics", json!({"peer_id": NOBODY}), "not_found"),
        ("peer_metrics", json!({"peer_id": peer, "history_hours": -1}), "invalid_argument"),
        ("bootstrap_network", json!({"timeout": 0}), "invalid_argument"),
    ]
}

/// For every parameter of every operation, a value of each type that its
/// schema does not name; for every required one, its absence; for every
/// operation, a parameter that it does not have.
fn wrong_shapes() -> Vec<(&'static str, Value, String)> {
    let mut rows = Vec::new();
    for operation in offered() {
        let schema = Value::Object(operation.input.clone());
        let right = right_arguments(operation.name);
        let required = schema["required"].as_array().cloned().unwrap_or_default();
        for name in required.iter().filter_map(Value::as_str) {
            let mut arguments = right.clone();
            arguments.remove(name);
            rows.push((operation.name, Value::Object(arguments), name.to_owned()));
        }
        for (name, about) in schema["properties"].as_object().into_iter().flatten() {
            for wrong in other_types(about) {
                let mut arguments = right.clone();
                arguments.insert(name.clone(), wrong);
                rows.push((operation.name, Value::Object(arguments), name.clone()));
            }
        }
        let mut arguments = right.clone();
        arguments.insert("tusk_id".to_owned(), json!("x"));
        rows.push((operation.name, Value::Object(arguments), "tusk_id".to_owned()));
    }
    rows
}

/// Arguments of the right shape that change nothing if they were taken.
fn right_arguments(operation: &str) -> Map<String, Value> {
    let arguments = match operation {
        "task_submit" => json!({"task_type": "echo", "payload": {}}),
        "task_priority" => json!({"task_id": "waiting", "new_priority": 1.0}),
        "worker_register" => json!({"worker_id": "w", "capabilities": ["echo"]}),
        "peer_connect" => json!({"peer_id": NOBODY, "multiaddr": "/ip4/127.0.0.1/tcp/1"}),
        "workflow_submit" => {
            json!({"name": "w", "steps": [{"step_id": "a", "action": "echo"}], "dry_run": true})
        }
        name if name.starts_with("workflow_") && name != "workflow_list" => json!({"workflow_id": "nobody"}),
        "worker_unregister" | "worker_status" => json!({"worker_id": "nobody"}),
        "peer_disconnect" | "peer_metrics" => json!({"peer_id": NOBODY}),
        name if name.starts_with("task_") && name != "task_list" => json!({"task_id": "waiting"}),
        _ => json!({}),
    };
    arguments.as_object().expect("an object").clone()
}

/// Values of the JSON types that a property's schema does not allow; none if
/// it does not say.
fn other_types(about: &Value) -> Vec<Value> {
    let mut allowed = BTreeSet::new();
    collect_types(about, &mut allowed);
    if allowed.is_empty() {
        return Vec::new();
    }
    let samples = [
        ("string", json!("text")),
        ("number", json!(1.5)),
        ("boolean", json!(true)),
        ("array", json!([[]])),
        ("object", json!({"no": "such"})),
    ];
    let fits = |kind: &str| allowed.contains(kind) || kind == "number" && allowed.contains("integer");
    samples.into_iter().filter(|(kind, _)| !fits(kind)).map(|(_, value)| value).collect()
}

fn collect_types(about: &Value, into: &mut BTreeSet<String>) {
    match &about["type"] {
        Value::String(kind) => drop(into.insert(kind.clone())),
        Value::Array(kinds) => into.extend(kinds.iter().filter_map(|k| k.as_str().map(str::to_owned))),
        _ => {}
    }
    for one in ["anyOf", "oneOf"].iter().filter_map(|k| about[*k].as_array()).flatten() {
        collect_types(one, into);
    }
    if about["enum"].is_array() {
        into.insert("string".to_owned());
    }
}

/// What a bad call could have changed.
pub(crate) async fn state(node: &Node) -> Value {
    let mut tasks = node.ask("task_list", json!({"limit": 1000})).await;
    let mut stats = node.ask("queue_stats", json!({"include_worker_stats": true})).await;
    let peers = node.ask("peer_list", json!({"sort_by": "peer_id"})).await;
    let names = |list: &Value, field: &str| -> Vec<Value> {
        list.as_array().into_iter().flatten().map(|item| item[field].clone()).collect()
    };
    let counts: Map<String, Value> = ["queued", "delayed", "blocked", "running", "completed", "failed", "cancelled"]
        .iter()
        .map(|state| (format!("{state}_count"), stats[format!("{state}_count")].take()))
        .collect();
    json!({
        "tasks": tasks["tasks"].take(),
        "counts": counts,
        "paused": stats["paused"],
        "workers": names(&stats["worker_stats"], "worker_id"),
        "peers": names(&peers["peers"], "peer_id"),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_refused_with_the_right_code_and_changes_nothing() {
    let fleet = Fleet::start(2).await;
    let [node, other] = &fleet.nodes[..] else { panic!("two nodes") };
    submit(node, json!({"task_id": "ended", "task_type": "echo", "payload": {}})).await;
    submit(node, json!({"task_id": "taken", "task_type": "echo", "payload": {"of": "other work"}})).await;
    for id in ["ended", "taken"] {
        node.result(id, std::time::Duration::from_secs(20)).await;
    }
    let waiting =
        json!({"task_id": "waiting", "task_type": "echo", "payload": {}, "not_before": "2099-01-01T00:00:00Z"});
    submit(node, waiting).await;
    let before = state(node).await;

    let (long, megabytes) = ("x".repeat(300), "x".repeat(1_100_000));
    let mut wrong = Vec::new();
    let rows = wrong_values(other.peer_id(), &long, &megabytes);
    let named: BTreeSet<_> = rows.iter().map(|(name, _, _)| *name).collect();
    // Its one parameter is a flag: only its shape can be wrong.
    let missing: Vec<_> =
        offered().iter().map(|o| o.name).filter(|n| !named.contains(n) && *n != "queue_resume").collect();
    assert!(missing.is_empty(), "no row for {missing:?}");
    let shapes = wrong_shapes();
    println!("{} wrong values, {} wrong shapes", rows.len(), shapes.len());
    for (name, arguments, expected) in rows {
        let shown: String = arguments.to_string().chars().take(120).collect();
        match node.call(name, arguments).await {
            Ok(answer) => wrong.push(format!("{name} {shown}: {expected} expected, and taken: {answer}")),
            Err(e) if code(&e) == expected => {}
            Err(e) => wrong.push(format!("{name} {shown}: {expected} expected, not {}: {e}", code(&e))),
        }
    }
    for (name, arguments, field) in shapes {
        match node.call(name, arguments.clone()).await {
            Ok(answer) => wrong.push(format!("{name} {arguments}: taken: {answer}")),
            Err(e) if code(&e) != "invalid_argument" => {
                wrong.push(format!("{name} {arguments}: invalid_argument expected, not {}: {e}", code(&e)));
            }
            Err(e) if !e.to_string().contains(&field) => {
                wrong.push(format!("{name} {arguments}: {field} not named: {e}"))
            }
            Err(_) => {}
        }
    }
    assert!(wrong.is_empty(), "{} of them:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(state(node).await, before, "nothing changed");
}

/// A well-formed peer id that nobody has.
const NOBODY: &str = "12D3KooWARdq2qmoWawXfhkzZHgcPg2hgkwT6GFrzGMvuQZHcwdJ";
