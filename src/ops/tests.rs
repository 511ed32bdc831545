//! The table as a whole, and how arguments and replies are mapped.

use super::samples::task_view;
use super::value::Object;
use super::*;
use serde_json::json;
use std::sync::Arc;
use taskmesh_core::command::{ClearScope, Submission};
use taskmesh_core::task::{Data, Priority, Report};
use taskmesh_core::view::{PeerMeasure, PeerStatus, PeerView, Status, TaskPage, TaskView};
use taskmesh_core::{Command, Millis, NodeId, Query, TaskId};

fn object(value: Value) -> Object {
    value.as_object().cloned().unwrap_or_default()
}

fn prepared(name: &str, arguments: Value) -> Prepared {
    operation(name).expect("offered").prepare(object(arguments)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn answer(name: &str, arguments: Value, reply: Reply) -> Value {
    let context = Context { now: Unix(7_200_000), blobs: &|_, _, _| None };
    Value::Object(prepared(name, arguments).write(reply, &context).expect("an answer"))
}

fn submission(arguments: Value) -> Submission {
    match prepared("task_submit", arguments).request {
        Request::Command(Command::Submit(submission)) => *submission,
        other => panic!("{other:?}"),
    }
}

fn ended(report: Report) -> Reply {
    let view = TaskView { ended_at: Some(Unix(4_500)), report: Some(report), ..task_view(Status::Completed) };
    Reply::Task(Box::new(view))
}

#[test]
fn every_operation_of_the_contract_is_offered_in_its_order() {
    let names: Vec<_> = offered().iter().map(|o| o.name).collect();
    assert_eq!(names, ALL);
}

#[test]
fn every_schema_has_bounds_and_no_description_is_long() {
    for operation in offered() {
        assert!(operation.description.split_whitespace().count() < 60, "{}", operation.name);
        let schema = Value::Object(operation.input.clone());
        bounded(operation.name, &schema);
        assert_eq!(schema["additionalProperties"], false, "{}", operation.name);
        for schema in [&operation.input, &operation.output] {
            let text = serde_json::to_string(schema).expect("JSON");
            assert!(!text.contains("\"type\":["), "{}: {text}", operation.name);
            assert!(!text.contains("$ref") && !text.contains("$defs"), "{}", operation.name);
        }
    }
}

/// Every text, number and list in an input has a bound; every one that may be
/// left out has a default or is absent by default.
fn bounded(path: &str, schema: &Value) {
    let has = |keys: &[&str]| keys.iter().any(|key| !schema[key].is_null());
    match schema["type"].as_str() {
        Some("string") => assert!(has(&["maxLength", "enum"]), "{path} has no bound"),
        Some("integer") => assert!(has(&["maximum"]), "{path} has no bound"),
        Some("number") => assert!(has(&["minimum", "exclusiveMinimum"]), "{path} has no bound"),
        Some("array") => {
            assert!(has(&["maxItems"]), "{path} has no bound");
            bounded(&format!("{path}[]"), &schema["items"]);
        }
        _ => {}
    }
    if schema["additionalProperties"].is_object() {
        bounded(&format!("{path}.*"), &schema["additionalProperties"]);
    }
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        assert!(inner["description"].is_string(), "{path}.{name} has no description");
        bounded(&format!("{path}.{name}"), inner);
    }
}

#[test]
fn right_arguments_are_taken_and_wrong_ones_refused_with_the_field() {
    for operation in offered() {
        assert!(operation.prepare(samples::right(operation.name)).is_ok(), "{}", operation.name);
    }
    let mut tried = 0;
    for (operation, field, arguments) in samples::all_wrong() {
        let Err(failure) = operation.prepare(arguments) else { panic!("{} took a wrong {field}", operation.name) };
        assert!(matches!(failure.code, Code::InvalidArgument | Code::PayloadTooLarge), "{}: {failure}", operation.name);
        let named = failure.details.expect("details")["field"].clone();
        let named = named.as_str().expect("a field").to_owned();
        assert!(named.starts_with(&field), "{}: {named} instead of {field}", operation.name);
        tried += 1;
    }
    assert!(tried > 800, "only {tried} wrong arguments");
}

#[test]
fn what_is_too_large_has_its_own_code() {
    let huge = json!({"task_type": "echo", "payload": {"a": "x".repeat(1024 * 1024)}});
    let failure = operation("task_submit").expect("offered").prepare(object(huge)).err().expect("refused");
    assert_eq!(failure.code, Code::PayloadTooLarge);
    assert_eq!(failure.details.expect("details")["limit"], 1024 * 1024);
}

#[test]
fn an_argument_that_is_null_was_not_given() {
    let taken = submission(json!({"task_type": "echo", "payload": {}, "task_id": null, "priority": null}));
    assert_eq!((taken.task, taken.priority), (None, Priority::NORMAL));
}

#[test]
fn an_exec_needs_the_capability_of_its_programs() {
    let one = submission(json!({"task_type": "exec", "payload": {"argv": ["ls", "-l"]}}));
    assert_eq!(one.spec.requirements.capabilities, [Arc::from("exec:ls")]);
    let items = json!([{"argv": ["cat"]}, {"argv": ["cat"]}, {"stdin": "x"}]);
    let several = json!({"task_type": "exec", "payload": {"argv": ["ls"]}, "items": items,
        "requirements": {"capabilities": ["exec:ls", "fast"]}});
    let several = submission(several);
    let needed: Vec<_> = several.spec.requirements.capabilities.iter().map(|c| &**c).collect();
    assert_eq!(needed, ["exec:ls", "fast", "exec:cat"]);
    let texts: Vec<_> = several.items.iter().map(|i| String::from_utf8_lossy(i).into_owned()).collect();
    assert_eq!(texts, [r#"{"argv":["cat"]}"#, r#"{"argv":["cat"]}"#, r#"{"argv":["ls"],"stdin":"x"}"#]);
}

#[test]
fn a_submission_is_mapped_whole() {
    let arguments = json!({"task_type": "sleep", "payload": {"ms": 5}, "task_id": "a", "priority": 2.5, "tags": ["x"],
        "timeout": 7, "retry_policy": {"max_retries": 1}, "metadata": {"m": 1}, "not_before": "1970-01-01T00:00:01Z",
        "deadline": "1970-01-01T01:00:02+01:00", "depends_on": ["b"], "fairness_key": "f", "durability": "local",
        "exclusive": true, "cache": "off", "requirements": {"cpus": 0.5, "memory_mb": 64, "gpus": 1,
        "labels": {"zone": "a"}, "resources": {"licence": 1.5}}});
    let taken = submission(arguments);
    let spec = &taken.spec;
    assert_eq!(taken.task.expect("an id").as_str(), "a");
    assert_eq!((taken.priority.value(), spec.timeout), (2.5, Some(Millis(7_000))));
    assert_eq!((spec.retry.max_retries, spec.retry.backoff_factor, spec.retry.jitter), (1, 2.0, true));
    assert_eq!((spec.not_before, spec.deadline), (Some(Unix(1_000)), Some(Unix(2_000))));
    assert_eq!((spec.metadata.as_deref(), spec.fairness_key.as_deref()), (Some(r#"{"m":1}"#), Some("f")));
    assert_eq!(&*spec.payload, br#"{"ms":5}"#);
    assert!(spec.exclusive && spec.durability == taskmesh_core::task::Durability::Local);
    let needs = &spec.requirements.resources;
    assert_eq!((needs.cpu_milli, needs.memory_mb, needs.gpu_milli, needs.named["licence"]), (500, 64, 1_000, 1_500));
}

#[test]
fn what_a_worker_must_be_is_mapped_whole() {
    use taskmesh_core::placement::{Condition, Placement, Test};
    let arguments = json!({"task_type": "echo", "payload": {}, "requirements": {"selector": "zone in (a,b),!spot",
        "any_of": [{"gpus": 0.5}, {"cpus": 16, "labels": {"rack": "7"}}], "placement": "pack", "affinity_key": "m"}});
    let needs = submission(arguments).spec.requirements;
    let condition = |label: &str, test| Condition { label: label.into(), test };
    let values = vec!["a".into(), "b".into()];
    assert_eq!(needs.selector, [condition("zone", Test::In(values)), condition("spot", Test::Missing)]);
    assert_eq!((needs.placement, needs.affinity_key.as_deref()), (Placement::Pack, Some("m")));
    let ways: Vec<_> = needs.any_of.iter().map(|w| (w.resources.gpu_milli, w.resources.cpu_milli)).collect();
    assert_eq!(ways, [(500, 0), (0, 16_000)]);
    assert_eq!(needs.any_of[1].labels["rack"], "7".into());
}

#[test]
fn a_submission_that_is_serialised_is_read_back() {
    let mut submit = submit::TaskSubmit::new("echo", object(json!({"a": 1})));
    submit.tags = vec!["x".into()];
    submit.retry_policy = Some(submit::RetryPolicy::default());
    let arguments = serde_json::to_value(&submit).expect("JSON");
    assert_eq!(submission(arguments).spec.tags, [Arc::from("x")]);
    for operation in offered() {
        assert!(operation.input["type"] == "object");
    }
}

#[test]
fn a_filter_for_queued_means_all_that_wait_unless_exact() {
    let statuses = |arguments| match prepared("task_list", arguments).request {
        Request::Query(Query::Tasks(filter)) => filter.statuses,
        other => panic!("{other:?}"),
    };
    assert_eq!(statuses(json!({"status_filter": "queued"})), [Status::Queued, Status::Blocked, Status::Delayed]);
    assert_eq!(statuses(json!({"status_filter": "queued", "exact": true})), [Status::Queued]);
    assert_eq!(statuses(json!({})), []);
}

#[test]
fn a_page_that_is_not_the_last_leads_to_the_next() {
    let tasks = |n: usize| vec![task_view(Status::Queued); n];
    let page = |n| Reply::Tasks(TaskPage { tasks: tasks(n), total: 9, answered: 1, expected: 1 });
    let more = answer("task_list", json!({"limit": 2}), page(3));
    assert_eq!(
        (&more["returned_count"], &more["has_more"], &more["total_count"]),
        (&json!(2), &json!(true), &json!(9))
    );
    let cursor = more["next_cursor"].clone();
    match prepared("task_list", json!({"limit": 2, "cursor": cursor, "offset": 4})).request {
        Request::Query(Query::Tasks(filter)) => {
            assert_eq!(filter.after, Some((Unix(1_000), TaskId::new("t").expect("valid"))));
            assert_eq!((filter.limit, filter.offset), (3, 0));
        }
        other => panic!("{other:?}"),
    }
    let last = answer("task_list", json!({"limit": 2}), page(2));
    assert_eq!((&last["has_more"], &last["next_cursor"]), (&json!(false), &Value::Null));
}

#[test]
fn a_task_that_runs_has_no_result_yet_and_says_when_to_ask() {
    let reply = Reply::Task(Box::new(task_view(Status::Running)));
    let got = answer("task_result", json!({"task_id": "t"}), reply);
    assert_eq!((&got["success"], &got["status"], &got["result"]), (&json!(true), &json!("running"), &Value::Null));
    assert_eq!(got["poll_after_ms"], 500);
}

#[test]
fn output_comes_in_pages_that_join_to_the_whole() {
    let whole: String = "grün ".repeat(100_000);
    let content: Arc<[u8]> = Arc::from(whole.as_bytes());
    let report = || Report { output: Some(Data::Inline(content.clone())), ..Report::default() };
    let (mut read, mut offset) = (String::new(), json!(0));
    while !offset.is_null() {
        let page = answer("task_result", json!({"task_id": "t", "output_offset": offset}), ended(report()));
        assert_eq!((&page["output_bytes"], &page["output_encoding"]), (&json!(whole.len()), &json!("utf-8")));
        assert_eq!(page["truncated"], !page["next_output_offset"].is_null());
        read.push_str(page["output"].as_str().expect("text"));
        offset = page["next_output_offset"].clone();
    }
    assert!(read == whole);
}

#[test]
fn what_was_not_asked_for_is_null_and_its_size_is_told() {
    let report = Report { output: Some(Data::Inline(Arc::from(&b"abc"[..]))), ..Report::default() };
    let got = answer("task_result", json!({"task_id": "t", "include_output": false}), ended(report));
    assert_eq!((&got["output"], &got["output_bytes"], &got["truncated"]), (&Value::Null, &json!(3), &json!(false)));
    assert_eq!(got["execution_time"], 1.5);
    assert!(got["output_cid"].as_str().is_some_and(|cid| cid.starts_with("bafkr4i")));
}

#[test]
fn a_blob_that_is_not_at_hand_is_no_empty_output() {
    let data = Data::Blob { hash: BlobHash([1; 32]), bytes: 70_000 };
    let report = Report { output: Some(data), ..Report::default() };
    let context = Context { now: Unix(0), blobs: &|_, _, _| None };
    let failure = prepared("task_result", json!({"task_id": "t"})).write(ended(report), &context);
    assert_eq!(failure.expect_err("no content").code, Code::Unavailable);
}

#[test]
fn a_log_shows_its_end() {
    let mut log = "a".repeat(300_000);
    log.push_str("the end");
    let report = Report { logs: Some(Data::Inline(Arc::from(log.as_bytes()))), ..Report::default() };
    let got = answer("task_result", json!({"task_id": "t", "include_logs": true}), ended(report));
    assert!(got["logs"].as_str().is_some_and(|text| text.ends_with("the end") && text.len() == result::FIELD_BYTES));
    assert_eq!(got["truncated"], true);
}

#[test]
fn clearing_needs_a_yes() {
    assert!(prepared("queue_clear", json!({"confirm": true})).question.is_none());
    let asked = prepared("queue_clear", json!({"status_filter": "failed"}));
    assert!(asked.question.is_some_and(|question| question.contains("failed")));
    let Request::Command(Command::Clear { which, .. }) = asked.request else { panic!("another request") };
    assert_eq!(which, ClearScope::Failed);
}

#[test]
fn what_was_not_measured_of_a_peer_is_null() {
    let view = |measured| PeerView {
        peer: NodeId([7; 32]),
        addresses: vec![],
        status: PeerStatus::Connected,
        capabilities: vec![],
        connected_since: Some(Unix(3_600_000)),
        last_seen: None,
        protocol: None,
        agent: None,
        measured,
        history: None,
    };
    let peer = NodeId([7; 32]).to_string();
    let ask = |measured| answer("peer_metrics", json!({"peer_id": peer}), Reply::Peer(Box::new(view(measured))));
    let nothing = ask(PeerMeasure::default());
    for name in ["latency_ms", "bandwidth_mbps", "packet_loss_percent", "connection_quality", "reliability_score"] {
        assert!(nothing["current_metrics"][name].is_null(), "{name}");
    }
    assert_eq!(nothing["current_metrics"]["uptime_hours"], 1.0);
    let some = ask(PeerMeasure {
        round_trip_us: Some(100_000),
        bytes_last_minute: Some(7_500_000),
        pings: 10,
        pings_failed: 1,
        requests_answered: 9,
        requests_failed: 1,
        ..PeerMeasure::default()
    });
    let metrics = &some["current_metrics"];
    assert_eq!((&metrics["latency_ms"], &metrics["bandwidth_mbps"]), (&json!(100.0), &json!(1.0)));
    assert_eq!((&metrics["packet_loss_percent"], &metrics["connection_quality"]), (&json!(10.0), &json!(0.45)));
    assert_eq!(metrics["reliability_score"], 0.9);
}

#[test]
fn all_tries_to_connect_fit_into_one_call() {
    let peer = NodeId([7; 32]).to_string();
    let arguments = json!({"peer_id": peer, "multiaddr": "/ip4/127.0.0.1/tcp/1", "retry_count": 3});
    let Request::Command(Command::Connect { timeout, .. }) = prepared("peer_connect", arguments).request else {
        panic!("another request");
    };
    assert_eq!(timeout, Millis(10_000));
}

#[test]
fn a_reply_to_something_else_is_a_defect_and_not_a_panic() {
    let context = Context { now: Unix(0), blobs: &|_, _, _| None };
    for operation in offered() {
        let prepared = operation.prepare(samples::right(operation.name)).expect("right");
        let other = match operation.name {
            "queue_pause" => Reply::Resumed { at: Unix(0), queued: 0, reordered: false },
            _ => Reply::Paused { at: Unix(0), queued: 0, running: 0 },
        };
        assert_eq!(prepared.write(other, &context).expect_err("a defect").code, Code::Internal);
    }
}

#[test]
fn every_operation_is_a_set_of_flags_too() {
    use clap::Args as _;
    fn flags<A: clap::Args>() {
        let command = A::augment_args(clap::Command::new("x"));
        command.debug_assert();
    }
    flags::<submit::TaskSubmit>();
    flags::<task::TaskStatus>();
    flags::<task::TaskCancel>();
    flags::<task::TaskList>();
    flags::<task::TaskPriority>();
    flags::<result::TaskResult>();
    flags::<queue::QueueStats>();
    flags::<queue::QueuePause>();
    flags::<queue::QueueResume>();
    flags::<queue::QueueClear>();
    flags::<queue::TaskRetry>();
    flags::<worker::WorkerRegister>();
    flags::<worker::WorkerUnregister>();
    flags::<worker::WorkerStatus>();
    flags::<peer::PeerDiscover>();
    flags::<peer::PeerConnect>();
    flags::<peer::PeerDisconnect>();
    flags::<peer::PeerList>();
    flags::<peer::PeerMetrics>();
    flags::<peer::BootstrapNetwork>();
    let command = submit::TaskSubmit::augment_args(clap::Command::new("x"));
    let line = ["x", "exec", r#"{"argv": ["ls"]}"#, "--tag", "a", "--tag", "b", "--requirements", r#"{"cpus": 2}"#];
    let matches = command.try_get_matches_from(line).expect("parsed");
    let submit = <submit::TaskSubmit as clap::FromArgMatches>::from_arg_matches(&matches).expect("read");
    assert_eq!((submit.tags.len(), submit.requirements.map(|r| r.cpus)), (2, Some(2.0)));
}

#[test]
fn the_document_is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md");
    let page = doc::markdown();
    if std::env::var_os("BLESS").is_some() {
        std::fs::create_dir_all(concat!(env!("CARGO_MANIFEST_DIR"), "/docs")).expect("a folder");
        std::fs::write(path, &page).expect("written");
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(written == page, "docs/operations.md is out of date: run BLESS=1 cargo test --lib ops::");
}
