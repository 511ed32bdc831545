//! The facade over real sockets, with a scripted node behind it.

use super::client::{Client, ClientError};
use super::http::{Routes, observe};
use super::mcp;
use super::testing::{Act, Endpoint, TOKEN, body, greet, paused};
use crate::ops::{self, Code, samples};
use serde_json::{Value, json};
use std::sync::Arc;
use taskmesh_core::{Millis, Refusal, Reply, Unix};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

fn nothing(_: &taskmesh_core::Request) -> Act {
    Act::Keep
}

#[test]
fn all_tool_definitions_together_stay_small() {
    let bytes = serde_json::to_string(mcp::tools()).expect("JSON").len();
    // Under 8,000 tokens; a script of the clients' tests counts them.
    assert!(bytes <= 33 * 1024, "{bytes} bytes");
}

/// A model reads these before its first call: a change of them is seen.
#[test]
fn the_definitions_of_the_tools_are_those_of_the_snapshot() {
    let lines = mcp::tools().iter().map(|tool| serde_json::to_string(tool).expect("JSON"));
    let wanted = format!("[\n{}\n]\n", lines.collect::<Vec<_>>().join(",\n"));
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mcp/tools.json");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &wanted).expect("written");
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(there == wanted, "tests/mcp/tools.json is not what tools/list says; repeat with BLESS=1 to rewrite it");
}

#[tokio::test]
async fn the_tools_are_listed_in_order_with_everything_that_a_client_needs() {
    let endpoint = Endpoint::start(nothing).await;
    let response = endpoint.modern("tools/list", json!({}), json!({})).send().await.expect("a response");
    let list = body(response).await;
    let tools = list["result"]["tools"].as_array().expect("tools").clone();
    let names: Vec<_> = tools.iter().filter_map(|t| t["name"].as_str()).collect();
    assert_eq!(names, ops::offered().iter().map(|o| o.name).collect::<Vec<_>>());
    assert_eq!((&list["result"]["cacheScope"], &list["result"]["ttlMs"]), (&json!("private"), &json!(3_600_000)));
    for tool in tools {
        for field in ["title", "description", "inputSchema", "outputSchema", "annotations"] {
            assert!(!tool[field].is_null(), "{} has no {field}", tool["name"]);
        }
    }
}

#[tokio::test]
async fn an_answer_is_the_same_in_both_forms() {
    let endpoint = Endpoint::start(|_| paused()).await;
    let result = endpoint.call("queue_pause", json!({"reason": "lunch"})).await["result"].clone();
    let expected = json!({"success": true, "status": "paused", "paused_at": "1970-01-01T00:00:00.000Z",
        "queued_tasks": 1, "running_tasks": 2});
    assert_eq!(result["structuredContent"], expected);
    assert_eq!(result["isError"], false);
    let text: Value = serde_json::from_str(result["content"][0]["text"].as_str().expect("text")).expect("JSON");
    assert_eq!(text, expected);
    assert_eq!(*endpoint.metered.lock().expect("told"), [("queue_pause".to_owned(), "ok".to_owned())]);
}

#[tokio::test]
async fn a_refusal_says_what_to_do_and_repeats_the_ids() {
    let busy = || Refusal::Full { what: "the queue".into(), limit: 5, retry_after: Millis(250) };
    let endpoint = Endpoint::start(move |_| Act::Answer(Err(busy()))).await;
    let result = endpoint.call("task_cancel", json!({"task_id": "t-1"})).await["result"].clone();
    let expected = json!({"success": false, "error": "the queue is full (limit 5); try again later",
        "code": "resource_exhausted", "retryable": true, "retry_after_ms": 250,
        "details": {"what": "the queue", "limit": 5}, "task_id": "t-1"});
    assert_eq!((&result["structuredContent"], &result["isError"]), (&expected, &json!(true)));
    assert_eq!(endpoint.metered.lock().expect("told")[0].1, "resource_exhausted");
}

#[test]
fn a_failure_conforms_to_the_output_schema_of_every_tool() {
    let full = Refusal::Full { what: "the queue".into(), limit: 5, retry_after: Millis(250) };
    let mut envelope = crate::ops::Failure::from(full).envelope();
    for id in ["task_id", "worker_id", "peer_id", "idempotency_key"] {
        envelope.insert(id.to_owned(), "x".into());
    }
    let envelope = Value::Object(envelope);
    for operation in ops::offered() {
        assert_eq!(ops::schema::check(&operation.output, &envelope), Ok(()), "{}", operation.name);
    }
}

#[tokio::test]
async fn bad_input_has_the_right_code_and_never_reaches_the_core() {
    let endpoint = Endpoint::start(nothing).await;
    let codes = ["invalid_argument", "payload_too_large"];
    // The wide table runs on the operations themselves; here, a share of it
    // and all of what no schema can say crosses the wire.
    for (n, (operation, field, arguments)) in samples::all_wrong().enumerate() {
        if n % 7 != 0 && serde_json::to_string(&arguments).is_ok_and(|text| text.len() < 60_000) {
            continue;
        }
        let result = endpoint.call(operation.name, Value::Object(arguments)).await["result"].clone();
        let code = result["structuredContent"]["code"].as_str().unwrap_or_default().to_owned();
        assert!(codes.contains(&code.as_str()), "{} with a wrong {field}: {result}", operation.name);
    }
    let unknown = endpoint.call("task_status", json!({"task_id": "t", "explian": true})).await;
    let error = unknown["result"]["structuredContent"]["error"].as_str().expect("an error").to_owned();
    assert!(error.contains("explian") && error.contains("task_id, include_logs, include_metrics, explain"), "{error}");
    assert!(endpoint.asked.lock().expect("asked").is_empty());
}

#[tokio::test]
async fn a_tool_that_is_not_there_is_a_fault_of_the_protocol() {
    let endpoint = Endpoint::start(nothing).await;
    assert_eq!(endpoint.call("task_sumbit", json!({})).await["error"]["code"], -32602);
}

#[tokio::test]
async fn a_body_over_the_limit_is_turned_away() {
    let endpoint = Endpoint::start(nothing).await;
    let huge = json!({"task_type": "echo", "payload": {"a": "x".repeat(13 * 1024 * 1024)}});
    let params = json!({"name": "task_submit", "arguments": huge});
    // The server may hang up before the whole body is sent.
    let status = endpoint.modern("tools/call", params, json!({})).send().await.map(|r| r.status().as_u16());
    assert!(!matches!(status, Ok(status) if status != 413), "{status:?}");
    assert!(endpoint.asked.lock().expect("asked").is_empty());
}

#[tokio::test]
async fn without_the_right_token_nothing_is_answered() {
    let endpoint = Endpoint::start(nothing).await;
    let bare = || endpoint.http.post(&endpoint.url).body("{}");
    let wrong = ["", "Bearer", "Bearer wrong", "Basic the-right-token", "Bearer the-right-token2", "the-right-token"];
    for header in wrong {
        let response = bare().header("Authorization", header).send().await.expect("a response");
        assert_eq!(response.status(), 401, "{header}");
        assert!(response.headers().contains_key("WWW-Authenticate"));
        assert_eq!(body(response).await["code"], "unauthenticated");
    }
    assert_eq!(bare().send().await.expect("a response").status(), 401);
    let client = Client::new(&endpoint.url, "wrong").expect("a client");
    let error = client.call("queue_stats", json!({})).await.expect_err("refused");
    assert_eq!(error.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_page_of_another_site_and_a_foreign_host_are_turned_away() {
    let endpoint = Endpoint::start(|_| paused()).await;
    let call = || endpoint.modern("tools/call", json!({"name": "queue_pause", "arguments": {}}), json!({}));
    for origin in ["http://evil.example", "null", "https://localhost.evil.example"] {
        assert_eq!(call().header("Origin", origin).send().await.expect("a response").status(), 403, "{origin}");
    }
    assert_eq!(call().header("Host", "evil.example").send().await.expect("a response").status(), 403);
    for origin in ["http://localhost:8080", "http://127.0.0.1", "http://[::1]:3000"] {
        assert_eq!(call().header("Origin", origin).send().await.expect("a response").status(), 200, "{origin}");
    }
}

#[tokio::test]
async fn a_reply_to_something_else_is_internal_and_the_next_call_works() {
    let endpoint =
        Endpoint::start(|_| Act::Answer(Ok(Reply::Resumed { at: Unix(0), queued: 0, reordered: true }))).await;
    let result = endpoint.call("queue_pause", json!({})).await["result"].clone();
    assert_eq!(result["structuredContent"]["code"], "internal");
    let next = endpoint.call("queue_resume", json!({})).await["result"].clone();
    assert_eq!(next["structuredContent"]["success"], true);
}

#[tokio::test]
async fn a_disk_that_makes_the_node_panic_is_internal_and_the_next_call_works() {
    let ended = || Act::Answer(Ok(Reply::Task(Box::new(samples::ended_with_a_blob()))));
    let endpoint = Endpoint::start(move |_| ended()).await;
    let result = endpoint.call("task_result", json!({"task_id": "t"})).await["result"].clone();
    assert_eq!((&result["structuredContent"]["code"], &result["isError"]), (&json!("internal"), &json!(true)));
    let next = endpoint.call("task_result", json!({"task_id": "t", "include_output": false})).await["result"].clone();
    assert_eq!(next["structuredContent"]["status"], "completed");
}

#[tokio::test]
async fn a_client_that_hangs_up_abandons_its_request() {
    let endpoint = Endpoint::start(nothing).await;
    let params = json!({"name": "task_result", "arguments": {"task_id": "t", "wait_ms": 45_000}});
    let call = tokio::spawn(endpoint.modern("tools/call", params, json!({})).send());
    endpoint.until("the request", |e| e.asked.lock().expect("asked").len() == 1).await;
    call.abort();
    endpoint.until("the end of the request", |e| *e.abandoned.lock().expect("counted") == 1).await;
    endpoint.until("the meter", |e| e.metered.lock().expect("told").iter().any(|(_, code)| code == "abandoned")).await;
}

#[tokio::test]
async fn clearing_asks_the_user_of_a_modern_client() {
    let cleared = || Reply::Cleared { cleared: 3, remaining: 0, at: Unix(0), answered: 1, expected: 1 };
    let endpoint = Endpoint::start(move |_| Act::Answer(Ok(cleared()))).await;
    let able = json!({"elicitation": {"form": {}}});
    let call = |more: Value| {
        let mut params = json!({"name": "queue_clear", "arguments": {"status_filter": "failed"}});
        params.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
        endpoint.modern("tools/call", params, able.clone()).send()
    };
    let asked = body(call(json!({})).await.expect("a response")).await["result"].clone();
    assert_eq!(asked["resultType"], "input_required", "{asked}");
    assert_eq!(asked["inputRequests"]["confirm"]["method"], "elicitation/create");
    assert!(endpoint.asked.lock().expect("asked").is_empty());
    let no = json!({"inputResponses": {"confirm": {"action": "decline"}}});
    let refused = body(call(no).await.expect("a response")).await["result"].clone();
    assert_eq!(refused["structuredContent"]["code"], "confirmation_required");
    assert!(endpoint.asked.lock().expect("asked").is_empty());
    let yes = json!({"inputResponses": {"confirm": {"action": "accept", "content": {"confirm": true}}}});
    let done = body(call(yes).await.expect("a response")).await["result"].clone();
    assert_eq!(done["structuredContent"]["cleared_count"], 3);
}

#[tokio::test]
async fn a_client_that_cannot_ask_is_told_to_confirm() {
    let endpoint = Endpoint::start(nothing).await;
    let result = endpoint.call("queue_clear", json!({})).await["result"].clone();
    assert_eq!(result["structuredContent"]["code"], "confirmation_required");
    assert!(endpoint.asked.lock().expect("asked").is_empty());
}

#[tokio::test]
async fn a_legacy_client_is_served_in_a_session_that_it_can_end() {
    let endpoint = Endpoint::start(|_| paused()).await;
    let (session, greeting) = greet(&endpoint).await;
    assert_eq!(greeting["result"]["serverInfo"]["name"], "taskmesh");
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": "queue_pause", "arguments": {}}});
    let call = || endpoint.post().header("Mcp-Session-Id", &session).body(call.to_string()).send();
    let result = body(call().await.expect("a response")).await;
    assert_eq!(result["result"]["structuredContent"]["success"], true);
    let delete = endpoint.http.delete(&endpoint.url).header("Authorization", format!("Bearer {TOKEN}"));
    let ended = delete.header("Mcp-Session-Id", &session).send().await.expect("a response");
    assert_eq!(ended.status(), 204);
    assert_eq!(call().await.expect("a response").status(), 404);
}

#[tokio::test]
async fn sessions_are_bounded() {
    let endpoint = Endpoint::start(nothing).await;
    for _ in 0..256 {
        greet(&endpoint).await;
    }
    let hello = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
        "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "old", "version": "1"}}});
    let response = endpoint.post().body(hello.to_string()).send().await.expect("a response");
    assert_eq!((response.status().as_u16(), response.headers().contains_key("Retry-After")), (429, true));
    // Modern clients have none, and are still served.
    let list = endpoint.modern("tools/list", json!({}), json!({})).send().await.expect("a response");
    assert_eq!(list.status(), 200);
}

#[tokio::test]
async fn the_client_of_the_command_line_gets_answers_and_refusals() {
    let refusal = || Refusal::NotFound { what: "task".into(), name: "t".into() };
    let endpoint = Endpoint::start(move |request| match request {
        taskmesh_core::Request::Query(_) => Act::Answer(Err(refusal())),
        taskmesh_core::Request::Command(_) => paused(),
    })
    .await;
    let client = Client::new(&endpoint.url, TOKEN).expect("a client");
    let answer = client.call("queue_pause", json!({})).await.expect("an answer");
    assert_eq!(answer["status"], "paused");
    let error = client.call("task_status", json!({"task_id": "t"})).await.expect_err("refused");
    assert_eq!((error.code(), error.code().meaning().exit), (Code::NotFound, 3));
    assert_eq!(error.envelope()["task_id"], "t");
    assert!(matches!(client.call("no_such_tool", json!({})).await, Err(ClientError::Broken { .. })));
    let free = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address");
    let nobody = Client::new(&format!("http://{free}/mcp"), TOKEN).expect("a client");
    let error = nobody.call("queue_stats", json!({})).await.expect_err("nobody there");
    assert!(matches!(error, ClientError::NotRunning { .. }) && error.to_string().contains("taskmesh up"), "{error}");
}

#[tokio::test]
async fn the_metrics_and_the_health_need_no_token() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let base = format!("http://{}", listener.local_addr().expect("an address"));
    let routes = Routes {
        metrics: Arc::new(|| "up 1\n".to_owned()),
        healthz: Arc::new(|| (200, "ok".to_owned())),
        readyz: Arc::new(|| (503, "too few holders".to_owned())),
        targets: Arc::new(|| "[]".to_owned()),
    };
    let shutdown = CancellationToken::new();
    let server = tokio::spawn(observe(listener, routes, shutdown.clone()));
    let http = reqwest::Client::builder().no_proxy().build().expect("a client");
    let metrics = http.get(format!("{base}/metrics")).send().await.expect("a response");
    assert!(metrics.headers()["Content-Type"].to_str().is_ok_and(|t| t.starts_with("text/plain; version=0.0.4")));
    assert_eq!(metrics.text().await.expect("a body"), "up 1\n");
    assert_eq!(http.get(format!("{base}/healthz")).send().await.expect("a response").status(), 200);
    let ready = http.get(format!("{base}/readyz")).send().await.expect("a response");
    assert_eq!((ready.status().as_u16(), ready.text().await.expect("a body").as_str()), (503, "too few holders"));
    let targets = http.get(format!("{base}/sd")).send().await.expect("a response");
    assert_eq!(targets.headers()["Content-Type"], "application/json", "Prometheus takes nothing else");
    assert_eq!(targets.text().await.expect("a body"), "[]");
    drop(http);
    shutdown.cancel();
    assert!(server.await.expect("no panic").is_ok());
}
