//! Traces over OTLP: what a client's call submits is one trace, from the call to
//! the settled end, whichever nodes had a part in it.

use crate::fleet::{Fleet, eventually};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "00f067aa0ba902b7";
const ITEMS: usize = 12;

/// A span as it came over the wire.
#[derive(Clone, Debug)]
struct Seen {
    node: String,
    name: String,
    trace: String,
    id: String,
    parent: String,
    task: String,
    nanos: u64,
}

type Spans = Arc<Mutex<Vec<Seen>>>;

/// Takes what real collectors take, and keeps it.
async fn collector() -> (String, Spans) {
    let spans = Spans::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let app = Router::new().route("/v1/traces", post(take)).with_state(spans.clone());
    tokio::spawn(async move { axum::serve(listener, app).await });
    (format!("http://{address}"), spans)
}

async fn take(State(spans): State<Spans>, headers: axum::http::HeaderMap, body: Bytes) -> StatusCode {
    assert_eq!(headers[header::CONTENT_TYPE], "application/x-protobuf");
    let sent = ExportTraceServiceRequest::decode(body).expect("OTLP");
    spans.lock().expect("kept").extend(seen(sent));
    StatusCode::OK
}

fn seen(sent: ExportTraceServiceRequest) -> Vec<Seen> {
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let mut found = Vec::new();
    for from in sent.resource_spans {
        let node = text(from.resource.as_ref().map_or(&[], |r| &r.attributes), "service.instance.id");
        for span in from.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            found.push(Seen {
                node: node.clone(),
                trace: hex(&span.trace_id),
                id: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                task: text(&span.attributes, "taskmesh.task"),
                nanos: span.end_time_unix_nano - span.start_time_unix_nano,
                name: span.name,
            });
        }
    }
    found
}

fn text(attributes: &[opentelemetry_proto::tonic::common::v1::KeyValue], key: &str) -> String {
    use opentelemetry_proto::tonic::common::v1::any_value::Value::StringValue;
    let value = attributes.iter().find(|a| a.key == key).and_then(|a| a.value.as_ref()?.value.as_ref());
    match value {
        Some(StringValue(text)) => text.clone(),
        _ => String::new(),
    }
}

/// A call as a client makes it that traces what it does.
async fn submit_traced(endpoint: (&str, &str), arguments: Value) -> Value {
    let (url, token) = endpoint;
    let meta = json!({
        "traceparent": format!("00-{TRACE}-{PARENT}-01"),
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let params = json!({"name": "task_submit", "arguments": arguments, "_meta": meta});
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
    let sent = reqwest::Client::new()
        .post(url)
        .bearer_auth(token)
        .header("Accept", "application/json, text/event-stream")
        .header("MCP-Protocol-Version", "2026-07-28")
        .header("Mcp-Method", "tools/call")
        .header("Mcp-Name", "task_submit")
        .json(&call)
        .send();
    let answer = sent.await.expect("an answer").text().await.expect("text");
    let answer = answer.lines().find_map(|line| line.strip_prefix("data:")).unwrap_or(&answer);
    let answer: Value = serde_json::from_str(answer).unwrap_or_else(|e| panic!("{e}: {answer}"));
    answer["result"]["structuredContent"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clients_trace_goes_on_through_every_node_that_has_a_part_in_its_tasks() {
    let (endpoint, spans) = collector().await;
    let fleet = Fleet::with(3, &[("traces.endpoint", &endpoint)]).await;
    let items: Vec<_> = (0..ITEMS).map(|n| json!({"ms": 50 + n})).collect();
    let array = json!({"task_type": "sleep", "payload": {}, "items": items});
    let accepted = submit_traced(fleet.nodes[0].endpoint(), array).await;
    let id = accepted["task_id"].as_str().unwrap_or_else(|| panic!("{accepted}")).to_owned();
    let tasks: BTreeSet<String> = (0..ITEMS).map(|n| format!("{id}/{n}")).collect();
    for task in &tasks {
        fleet.nodes[1].result(task, Duration::from_secs(30)).await;
    }
    let of = |name: &'static str| {
        let spans = spans.lock().expect("kept").clone();
        spans.into_iter().filter(|s| s.name == name && s.trace == TRACE).collect::<Vec<_>>()
    };
    let call = eventually(Duration::from_secs(20), "the span of the call has come", async || {
        of("task_submit").into_iter().next()
    });
    let call = call.await;
    assert_eq!((&*call.parent, &*call.node), (PARENT, fleet.nodes[0].peer_id()));
    for name in ["accept", "queue", "run", "settle"] {
        let all = eventually(Duration::from_secs(20), format!("{name} of every task has come"), async || {
            let by_task: BTreeMap<_, _> = of(name).into_iter().map(|s| (s.task.clone(), s)).collect();
            tasks.iter().all(|task| by_task.contains_key(task)).then_some(by_task)
        });
        for (task, span) in all.await {
            assert_eq!(span.parent, call.id, "{name} of {task} belongs to the call");
            assert!(name != "run" || span.nanos >= 50_000_000, "{task} ran for {} ns", span.nanos);
        }
    }
    let ran_on: BTreeSet<_> = of("run").into_iter().map(|span| span.node).collect();
    assert!(ran_on.len() > 1, "all ran on {ran_on:?}");
}
