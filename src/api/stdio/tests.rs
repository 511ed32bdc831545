//! The bridge between pipes in memory and a real endpoint.

use super::*;
use crate::api::testing::{Act, Endpoint, TOKEN, paused};
use taskmesh_core::{Reply, Unix};
use tokio::io::{BufReader, DuplexStream, Lines, ReadHalf, WriteHalf};
use tokio::task::JoinHandle;

/// A client's ends of the pipes.
struct Piped {
    input: WriteHalf<DuplexStream>,
    output: Lines<BufReader<ReadHalf<DuplexStream>>>,
    bridge: JoinHandle<Result<(), BridgeError>>,
}

impl Piped {
    fn to(url: &str, token: &str) -> Piped {
        Piped::by(Client::new(url, token).expect("a client"))
    }

    fn by(client: Client) -> Piped {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let (read, write) = tokio::io::split(theirs);
        let bridge = tokio::spawn(bridge(client, BufReader::new(read), write));
        let (output, input) = tokio::io::split(ours);
        Piped { input, output: BufReader::new(output).lines(), bridge }
    }

    async fn say(&mut self, message: Value) {
        self.input.write_all(format!("{message}\n").as_bytes()).await.expect("written");
    }

    async fn hear(&mut self) -> Value {
        let line = tokio::time::timeout(Duration::from_secs(20), self.output.next_line()).await;
        let line = line.expect("in time").expect("a pipe").expect("a line");
        serde_json::from_str(&line).expect("JSON")
    }

    async fn greet(&mut self) -> Value {
        self.say(json!({"jsonrpc": "2.0", "id": "hello", "method": "initialize", "params": {
            "protocolVersion": "2025-06-18", "capabilities": {"elicitation": {}},
            "clientInfo": {"name": "old", "version": "1"}}}))
            .await;
        let greeting = self.hear().await;
        self.say(json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await;
        greeting
    }
}

fn modern(id: u64, method: &str, mut params: Value) -> Value {
    params["_meta"] = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "new", "version": "1"}});
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
}

fn legacy(id: u64, name: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": name, "arguments": {}}})
}

fn pause(id: u64) -> Value {
    modern(id, "tools/call", json!({"name": "queue_pause", "arguments": {}}))
}

#[tokio::test]
async fn a_modern_client_is_carried_with_its_headers() {
    let endpoint = Endpoint::start(|_| paused()).await;
    let mut piped = Piped::to(&endpoint.url, TOKEN);
    piped.say(modern(1, "server/discover", json!({}))).await;
    let capabilities = piped.hear().await["result"]["capabilities"].clone();
    assert_eq!((&capabilities["tools"], &capabilities["resources"]["subscribe"]), (&json!({}), &json!(true)));
    piped.say(modern(2, "tools/list", json!({}))).await;
    assert_eq!(piped.hear().await["result"]["tools"].as_array().map(Vec::len), Some(26));
    piped.say(pause(3)).await;
    let answer = piped.hear().await;
    assert_eq!((&answer["id"], &answer["result"]["structuredContent"]["status"]), (&json!(3), &json!("paused")));
}

#[tokio::test]
async fn a_client_sees_the_tools_that_its_flags_name() {
    let endpoint = Endpoint::start(|_| paused()).await;
    let client = Client::new(&endpoint.url, TOKEN).expect("a client");
    let mut piped = Piped::by(client.narrowed(&["queue".to_owned(), "worker".to_owned()], true));
    piped.say(modern(1, "tools/list", json!({}))).await;
    let list = piped.hear().await["result"]["tools"].clone();
    let names: Vec<_> = list.as_array().expect("tools").iter().filter_map(|t| t["name"].as_str()).collect();
    assert_eq!(names, ["queue_stats", "worker_status"]);
    piped.say(pause(2)).await;
    assert_eq!(piped.hear().await["error"]["code"], -32602);
}

fn one_task(request: &taskmesh_core::Request) -> Act {
    match request {
        taskmesh_core::Request::Query(_) => Act::Answer(Ok(Reply::Task(Box::new(crate::ops::samples::task_view(
            taskmesh_core::view::Status::Completed,
        ))))),
        taskmesh_core::Request::Command(_) => paused(),
    }
}

#[tokio::test]
async fn news_come_through_until_the_client_ends() {
    let endpoint = Endpoint::start(one_task).await;
    let mut piped = Piped::to(&endpoint.url, TOKEN);
    let listen = json!({"notifications": {"resourceSubscriptions": ["mesh://tasks/t"]}});
    piped.say(modern(1, "subscriptions/listen", listen)).await;
    assert_eq!(piped.hear().await["method"], "notifications/subscriptions/acknowledged");
    assert_eq!(piped.hear().await["params"]["uri"], "mesh://tasks/t");
    piped.input.shutdown().await.expect("closed");
    let ended = tokio::time::timeout(Duration::from_secs(20), piped.bridge).await;
    assert!(ended.expect("it does not linger").expect("no panic").is_ok());
    endpoint.until("the end of the watcher", |e| e.feed.watched() == 0).await;
}

#[tokio::test]
async fn a_session_that_is_made_again_has_its_subscriptions() {
    let endpoint = Endpoint::start(one_task).await;
    let mut piped = Piped::to(&endpoint.url, TOKEN);
    piped.greet().await;
    let subscribe = json!({"jsonrpc": "2.0", "id": 1, "method": "resources/subscribe",
        "params": {"uri": "mesh://tasks/t"}});
    piped.say(subscribe).await;
    let (first, second) = (piped.hear().await, piped.hear().await);
    assert!([&first, &second].iter().any(|m| m["params"]["uri"] == "mesh://tasks/t"), "{first} {second}");
    let session = endpoint.sessions().await.remove(0);
    endpoint.end_session(&session).await;
    // The client says nothing: the bridge sees that its stream ended.
    assert_eq!(piped.hear().await["params"]["uri"], "mesh://tasks/t");
}

#[tokio::test]
async fn several_requests_run_beside_each_other_and_the_end_waits_for_them() {
    let endpoint = Endpoint::start(|_| paused()).await;
    let mut piped = Piped::to(&endpoint.url, TOKEN);
    for id in 0..50 {
        piped.say(pause(id)).await;
    }
    piped.input.shutdown().await.expect("closed");
    let mut ids = Vec::new();
    for _ in 0..50 {
        ids.push(piped.hear().await["id"].as_u64().expect("an id"));
    }
    ids.sort_unstable();
    assert_eq!(ids, (0..50).collect::<Vec<_>>());
    assert!(piped.output.next_line().await.expect("a pipe").is_none());
    assert!(piped.bridge.await.expect("no panic").is_ok());
}

#[tokio::test]
async fn a_cancelled_request_is_abandoned_at_the_node() {
    let endpoint = Endpoint::start(|_| Act::Keep).await;
    let mut piped = Piped::to(&endpoint.url, TOKEN);
    piped.say(pause(9)).await;
    endpoint.until("the request", |e| e.asked.lock().expect("asked").len() == 1).await;
    let cancel = json!({"requestId": 9});
    piped.say(json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": cancel})).await;
    endpoint.until("the end of the request", |e| *e.abandoned.lock().expect("counted") == 1).await;
}

#[tokio::test]
async fn a_legacy_session_that_the_node_forgot_is_made_again() {
    let endpoint = Endpoint::start(|_| paused()).await;
    let mut piped = Piped::to(&endpoint.url, TOKEN);
    assert_eq!(piped.greet().await["result"]["serverInfo"]["name"], "taskmesh");
    piped.say(legacy(1, "queue_pause")).await;
    assert_eq!(piped.hear().await["result"]["structuredContent"]["success"], true);
    let sessions = endpoint.sessions().await;
    assert_eq!(sessions.len(), 1);
    endpoint.end_session(&sessions[0]).await;
    for id in [2, 3] {
        piped.say(legacy(id, "queue_pause")).await;
        let answer = piped.hear().await;
        assert_eq!((&answer["id"], &answer["result"]["structuredContent"]["success"]), (&json!(id), &json!(true)));
    }
    piped.input.shutdown().await.expect("closed");
    assert!(piped.bridge.await.expect("no panic").is_ok());
    assert_eq!(endpoint.sessions().await.len(), 0);
}

#[tokio::test]
async fn a_legacy_client_asks_its_user() {
    let cleared = || Reply::Cleared { cleared: 3, remaining: 0, at: Unix(0), answered: 1, expected: 1 };
    let endpoint = Endpoint::start(move |_| Act::Answer(Ok(cleared()))).await;
    let mut piped = Piped::to(&endpoint.url, TOKEN);
    piped.greet().await;
    for (action, expected) in [("accept", json!(3)), ("decline", Value::Null)] {
        piped.say(legacy(1, "queue_clear")).await;
        let question = piped.hear().await;
        assert_eq!(question["method"], "elicitation/create", "{question}");
        let result = json!({"action": action, "content": {"confirm": true}});
        piped.say(json!({"jsonrpc": "2.0", "id": question["id"], "result": result})).await;
        assert_eq!(piped.hear().await["result"]["structuredContent"]["cleared_count"], expected);
    }
    assert_eq!(endpoint.asked.lock().expect("asked").len(), 1);
}

#[tokio::test]
async fn without_a_node_every_request_is_told_how_to_start_one() {
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/mcp", free.local_addr().expect("an address"));
    drop(free);
    let mut piped = Piped::to(&url, TOKEN);
    for message in [legacy(1, "queue_stats"), pause(2)] {
        piped.say(message.clone()).await;
        let answer = piped.hear().await;
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&message["id"], &json!(-32000)));
        assert!(answer["error"]["message"].as_str().is_some_and(|m| m.contains("taskmesh up")), "{answer}");
        assert_eq!(answer["error"]["data"]["code"], "unavailable");
    }
}

#[tokio::test]
async fn a_wrong_token_and_a_broken_line_are_answered() {
    let endpoint = Endpoint::start(|_| paused()).await;
    let mut piped = Piped::to(&endpoint.url, "wrong");
    piped.say(pause(1)).await;
    assert_eq!(piped.hear().await["error"]["data"]["code"], "unauthenticated");
    piped.input.write_all(b"\n{not json}\n").await.expect("written");
    assert_eq!(piped.hear().await["error"]["code"], -32700);
}

#[test]
fn a_name_that_is_no_header_goes_in_base64() {
    assert_eq!(header_text("task_submit"), "task_submit");
    assert_eq!(header_text("grün"), "=?base64?Z3LDvG4=?=");
    assert_eq!(header_text("a\nb"), "=?base64?YQpi?=");
}
