//! For tests: right arguments for every operation, every way that the schemas
//! know to be wrong, and a task to look at.

use super::value::Object;
use super::{Operation, offered};
use serde_json::{Value, json};
use taskmesh_core::task::{Data, Priority, Report, Requirements};
use taskmesh_core::view::{Status, TaskView};
use taskmesh_core::{BlobHash, NodeId, TaskId, Unix, WorkerId};

/// Arguments that the operation takes.
pub(crate) fn right(name: &str) -> Object {
    let peer = NodeId([7; 32]).to_string();
    let arguments = match name {
        "task_submit" => json!({"task_type": "echo", "payload": {"a": 1}}),
        "workflow_submit" => json!({"name": "w", "steps": [{"step_id": "a", "action": "echo"}]}),
        name if name.starts_with("workflow_") && name != "workflow_list" => json!({"workflow_id": "w"}),
        "task_priority" => json!({"task_id": "t", "new_priority": 2.5}),
        "worker_register" => json!({"worker_id": "w", "capabilities": ["echo"]}),
        "worker_unregister" | "worker_status" => json!({"worker_id": "w"}),
        "queue_clear" => json!({"confirm": true}),
        "peer_connect" => json!({"peer_id": peer, "multiaddr": "/ip4/127.0.0.1/tcp/1"}),
        "peer_disconnect" | "peer_metrics" => json!({"peer_id": peer}),
        name if name.starts_with("task_") && name != "task_list" => json!({"task_id": "t"}),
        _ => json!({}),
    };
    arguments.as_object().cloned().unwrap_or_default()
}

/// Arguments that the operation must refuse, each with the field at fault.
pub(crate) fn wrong(operation: &Operation) -> Vec<(String, Object)> {
    let right = right(operation.name);
    let mut all = vec![("nmae".to_owned(), with(&right, "nmae", json!(1)))];
    for name in operation.input.get("required").and_then(Value::as_array).into_iter().flatten() {
        let name = name.as_str().unwrap_or_default();
        let mut missing = right.clone();
        missing.remove(name);
        all.push((name.to_owned(), missing));
        all.push((name.to_owned(), with(&right, name, Value::Null)));
    }
    for (name, rule) in operation.input["properties"].as_object().into_iter().flatten() {
        all.extend(violations(rule).into_iter().map(|value| (name.clone(), with(&right, name, value))));
    }
    all.extend(special().into_iter().filter(|(op, _, _)| *op == operation.name).map(|(_, field, more)| {
        let mut arguments = right.clone();
        arguments.extend(more.as_object().cloned().unwrap_or_default());
        (field.to_owned(), arguments)
    }));
    all
}

/// The same of all operations.
pub(crate) fn all_wrong() -> impl Iterator<Item = (&'static Operation, String, Object)> {
    offered().iter().flat_map(|op| wrong(op).into_iter().map(move |(field, arguments)| (op, field, arguments)))
}

fn with(arguments: &Object, name: &str, value: Value) -> Object {
    let mut arguments = arguments.clone();
    arguments.insert(name.to_owned(), value);
    arguments
}

/// Values that a schema forbids: of every other type, beyond every bound, and
/// the same one level down.
fn violations(rule: &Value) -> Vec<Value> {
    let kind = rule["type"].as_str().unwrap_or_default();
    let every = [
        ("string", json!("x")),
        ("integer", json!(1)),
        ("boolean", json!(true)),
        ("array", json!(["x"])),
        ("object", json!({})),
    ];
    let fits = |other: &str| other == kind || (other == "integer" && kind == "number");
    let mut all: Vec<Value> = every.into_iter().filter(|(other, _)| !fits(other)).map(|(_, value)| value).collect();
    let text = |bytes: u64| json!("x".repeat(bytes as usize));
    all.extend(rule["minLength"].as_u64().map(|min| text(min - 1)));
    all.extend(rule["maxLength"].as_u64().map(|max| text(max + 1)));
    all.extend(rule["minimum"].as_f64().map(|min| json!(min - 1.0)));
    all.extend(rule["minimum"].as_i64().map(|min| json!(min - 1)));
    all.extend(rule["maximum"].as_u64().map(|max| json!(max + 1)));
    all.extend(rule["exclusiveMinimum"].as_f64().map(|above| json!(above)));
    all.extend(rule["exclusiveMinimum"].as_f64().map(|above| json!(above - 1.0)));
    all.extend(rule["enum"].as_array().map(|_| json!("none of these")));
    all.extend(rule["minItems"].as_u64().filter(|n| *n > 0).map(|_| json!([])));
    let item = if rule["items"]["type"] == "object" { json!({}) } else { json!("x") };
    all.extend(rule["maxItems"].as_u64().map(|max| Value::Array(vec![item; max as usize + 1])));
    if kind == "integer" {
        all.extend([json!(1.5), json!(u64::MAX), json!(i64::MIN), json!(1e300)]);
    }
    all.extend(violations_within(rule));
    all
}

fn violations_within(rule: &Value) -> Vec<Value> {
    let mut all = Vec::new();
    if rule["items"].is_object() {
        all.extend(violations(&rule["items"]).into_iter().map(|item| json!([item])));
    }
    for (name, inner) in rule["properties"].as_object().into_iter().flatten() {
        all.extend(violations(inner).into_iter().map(|value| json!({name: value})));
    }
    if rule["additionalProperties"] == false {
        all.push(json!({"nmae": 1}));
    }
    if rule["additionalProperties"].is_object() {
        all.extend(violations(&rule["additionalProperties"]).into_iter().map(|value| json!({"a": value})));
    }
    if let Some(max) = rule["maxProperties"].as_u64() {
        let value = if rule["additionalProperties"]["type"] == "number" { json!(1) } else { json!("x") };
        all.push((0..=max).map(|n| (n.to_string(), value.clone())).collect::<Object>().into());
    }
    all
}

/// What no schema can say.
fn special() -> Vec<(&'static str, &'static str, Value)> {
    let huge = "x".repeat(1024 * 1024);
    let label = json!({"": "x"});
    vec![
        ("task_submit", "payload", json!({"payload": {"a": huge}})),
        ("task_submit", "items", json!({"items": [{"a": huge}]})),
        ("task_submit", "items", json!({"payload": {"a": "x".repeat(1_000_000)}, "items": vec![json!({}); 20]})),
        ("task_submit", "metadata", json!({"metadata": {"a": "x".repeat(64 * 1024)}})),
        ("task_submit", "task_id", json!({"task_id": "a b"})),
        ("task_submit", "task_id", json!({"task_id": "a\u{7}"})),
        ("task_submit", "task_id", json!({"task_id": "x".repeat(255), "items": [{}, {}]})),
        ("task_submit", "idempotency_key", json!({"task_id": "a", "idempotency_key": "b"})),
        ("task_submit", "not_before", json!({"not_before": "tomorrow"})),
        ("task_submit", "deadline", json!({"deadline": "2030-01-01"})),
        ("task_submit", "depends_on", json!({"depends_on": ["a b"]})),
        ("task_submit", "priority", json!({"priority": 0})),
        ("task_submit", "schedule.cron", json!({"schedule": {"cron": "every day"}})),
        ("task_submit", "schedule.timezone", json!({"schedule": {"cron": "@daily", "timezone": "Mars"}})),
        ("task_submit", "task_type", json!({"task_type": "schedule"})),
        ("task_submit", "requirements.labels", json!({"requirements": {"labels": label}})),
        ("task_submit", "requirements.resources", json!({"requirements": {"resources": {"": 1}}})),
        ("task_submit", "requirements.selector", json!({"requirements": {"selector": "zone in (a"}})),
        ("task_submit", "requirements.any_of", json!({"requirements": {"any_of": [{"cores": 1}]}})),
        ("task_submit", "requirements.any_of", json!({"requirements": {"any_of": [{"cpus": -1}]}})),
        ("task_submit", "requirements.any_of", json!({"requirements": {"any_of": [{"placement": "pack"}]}})),
        ("task_submit", "requirements.any_of.selector", json!({"requirements": {"any_of": [{"selector": "="}]}})),
        ("task_submit", "payload.argv", json!({"task_type": "exec", "payload": {}})),
        ("task_submit", "payload.argv", json!({"task_type": "exec", "payload": {"argv": "ls"}})),
        ("task_submit", "payload.argv", json!({"task_type": "exec", "payload": {"argv": []}})),
        ("task_submit", "payload.argv", json!({"task_type": "exec", "payload": {"argv": [""]}})),
        ("task_submit", "payload.argv", json!({"task_type": "exec", "payload": {"argv": ["ls", 1]}})),
        ("task_submit", "payload.argv", json!({"task_type": "exec", "payload": {"argv": ["x".repeat(252)]}})),
        (
            "task_submit",
            "payload.argv",
            json!({"task_type": "exec", "payload": {"argv": ["ls"]}, "items": [{"argv": 1}]}),
        ),
        ("task_status", "task_id", json!({"task_id": "a b"})),
        ("task_list", "cursor", json!({"cursor": "%"})),
        ("task_list", "cursor", json!({"cursor": super::value::peer_cursor(1)})),
        ("task_list", "worker_filter", json!({"worker_filter": "a b"})),
        ("worker_register", "labels", json!({"labels": label})),
        ("worker_register", "resource_limits", json!({"resource_limits": {"resources": {"": 1}}})),
        ("worker_register", "metadata", json!({"metadata": {"a": "x".repeat(64 * 1024)}})),
        ("worker_status", "worker_id", json!({"worker_id": "a b"})),
        ("peer_connect", "peer_id", json!({"peer_id": "QmNonsense"})),
        ("peer_metrics", "peer_id", json!({"peer_id": "12D3KooW"})),
        ("peer_list", "cursor", json!({"cursor": "cA"})),
        ("bootstrap_network", "min_connections", json!({"min_connections": 5, "max_connections": 4})),
    ]
}

/// A task.
pub(crate) fn task_view(status: Status) -> TaskView {
    TaskView {
        task: TaskId::new("t").expect("valid"),
        task_type: "exec".into(),
        status,
        priority: Priority::NORMAL,
        tags: vec![],
        executor: Some((NodeId::test(1), WorkerId::new("w").expect("valid"))),
        attempt: 2,
        failures: 1,
        crashes: 0,
        submitted_at: Unix(1_000),
        started_at: Some(Unix(3_000)),
        ended_at: None,
        delayed_until: None,
        home: NodeId::test(1),
        holders: vec![NodeId::test(1)],
        forgotten: vec![],
        epoch: 1,
        position: None,
        progress: None,
        message: None,
        log_tail: None,
        error: None,
        retry_of: None,
        retried_as: None,
        depends_on: vec![],
        requirements: Requirements::default(),
        explanation: None,
        report: None,
        cached_from: None,
        workflow: None,
        schedule: None,
        spec: None,
    }
}

/// A task that left its output in a blob.
pub(crate) fn ended_with_a_blob() -> TaskView {
    let output = Some(Data::Blob { hash: BlobHash([1; 32]), bytes: 70_000 });
    let report = Some(Report { output, ..Report::default() });
    TaskView { ended_at: Some(Unix(4_500)), report, ..task_view(Status::Completed) }
}
