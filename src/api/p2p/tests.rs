//! Streams of each dialect, and abuse of them, with a scripted node behind.

use super::frame;
use super::*;
use crate::api::testing::{Act, gate_before, paused, scripted};
use crate::driver::Foreign;
use crate::ops::interface;
use crate::ops::value::Object;
use serde_json::{Value, json};
use std::sync::Mutex;
use std::time::Duration;
use taskmesh_core::{Query, Reply, Request};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

const TOKEN: &str = "the-right-token";
const PATIENCE: Duration = Duration::from_secs(10);

/// A door whose visitors are made here.
struct Bench {
    visits: mpsc::Sender<Visit>,
    asked: Arc<Mutex<Vec<Request>>>,
    _script: Box<dyn Any + Send>,
}

impl Bench {
    async fn with(limits: Limits, script: impl Fn(&Request) -> Act + Send + Sync + 'static) -> Bench {
        let asked: Arc<Mutex<Vec<Request>>> = Arc::default();
        let heard = asked.clone();
        let (handle, guard) = scripted(move |request| {
            if matches!(request, Request::Query(Query::Workers)) {
                return Act::Answer(Ok(Reply::Workers(Vec::new())));
            }
            heard.lock().expect("no panic").push(request.clone());
            script(request)
        });
        let shutdown = CancellationToken::new();
        let foreign = Foreign::start(handle.clone(), Default::default(), Vec::new(), shutdown.clone()).await;
        let folder = tempfile::tempdir().expect("a folder");
        let face = Face {
            gate: gate_before(handle),
            audit: Audit::open(folder.path()).expect("an audit log"),
            foreign,
            meter: Arc::new(|_, _, _| ()),
            offer: Default::default(),
            templates: Default::default(),
            limits,
        };
        let (visits, served) = mpsc::channel(16);
        tokio::spawn(serve(served, face, shutdown.clone()));
        Bench { visits, asked, _script: Box::new((guard, shutdown.drop_guard(), folder)) }
    }

    async fn start(script: impl Fn(&Request) -> Act + Send + Sync + 'static) -> Bench {
        Bench::with(Limits::default(), script).await
    }

    async fn visit(&self, peer: &str) -> Visitor {
        let (stream, ours) = tokio::io::duplex(64 * 1024);
        let visit = Visit { peer: peer.into(), stream: Box::new(ours), place: Box::new(()) };
        assert!(self.visits.send(visit).await.is_ok(), "served");
        Visitor { stream }
    }

    fn asked(&self) -> usize {
        self.asked.lock().expect("no panic").len()
    }
}

struct Visitor {
    stream: DuplexStream,
}

impl Visitor {
    async fn send(&mut self, message: &Value) {
        frame::write(&mut self.stream, message).await.expect("sent");
    }

    async fn next(&mut self) -> Value {
        let read = frame::read(&mut self.stream, &Budget::new(frame::BUDGET_BYTES), PATIENCE).await;
        Value::Object(read.expect("an answer").message)
    }

    async fn ask(&mut self, message: Value) -> Value {
        self.send(&message).await;
        self.next().await
    }

    /// Nothing more comes.
    async fn over(&mut self) {
        let mut rest = Vec::new();
        let read = tokio::time::timeout(PATIENCE, self.stream.read_to_end(&mut rest)).await;
        assert_eq!(read.expect("closed in time").expect("closed well"), 0, "{}", String::from_utf8_lossy(&rest));
    }
}

fn modern(id: Value, method: &str, mut params: Value, token: Option<&str>) -> Value {
    let mut meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28"});
    if let Some(token) = token {
        meta[TOKEN_KEY] = token.into();
    }
    params["_meta"] = meta;
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
}

fn pause(id: Value) -> Value {
    modern(id, "tools/call", json!({"name": "queue_pause", "arguments": {}}), Some(TOKEN))
}

#[tokio::test]
async fn a_sessionless_client_calls_and_is_answered_with_its_id() {
    let bench = Bench::start(|_| paused()).await;
    let mut visitor = bench.visit("a").await;
    let reply = visitor.ask(pause(json!("one"))).await;
    assert_eq!((&reply["id"], &reply["result"]["resultType"]), (&json!("one"), &json!("complete")));
    assert_eq!(reply["result"]["structuredContent"]["status"], "paused");
    let text: Value =
        serde_json::from_str(reply["result"]["content"][0]["text"].as_str().expect("text")).expect("JSON");
    assert_eq!(text, reply["result"]["structuredContent"]);
    let discovered = visitor.ask(modern(json!(2), "server/discover", json!({}), None)).await;
    assert_eq!(discovered["result"]["supportedVersions"], json!(["2026-07-28"]));
    assert_eq!(discovered["result"]["_meta"]["taskmesh/limits"]["max_frame_bytes"], FRAME_BYTES);
    let tools = visitor.ask(modern(json!(3), "tools/list", json!({}), Some(TOKEN))).await;
    let names: Vec<_> = tools["result"]["tools"].as_array().expect("tools").iter().map(|t| &t["name"]).collect();
    assert!(names.contains(&&json!("task_submit")) && names.contains(&&json!("task_queue.rpc")));
    let wrong = visitor
        .ask(modern(json!(4), "tools/call", json!({"name": "task_status", "arguments": {"x": 1}}), Some(TOKEN)))
        .await;
    assert_eq!(
        (&wrong["result"]["isError"], &wrong["result"]["structuredContent"]["code"]),
        (&json!(true), &json!("invalid_argument"))
    );
    assert_eq!(visitor.ask(modern(json!(5), "no/such", json!({}), Some(TOKEN))).await["error"]["code"], -32601);
}

#[tokio::test]
async fn a_legacy_client_is_greeted_once_for_its_stream() {
    let bench = Bench::start(|_| paused()).await;
    let mut visitor = bench.visit("a").await;
    let hello = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize",
        "params": {"protocolVersion": "2025-06-18", "clientInfo": {"name": "t"}, "token": TOKEN}});
    let greeting = visitor.ask(hello).await["result"].clone();
    assert_eq!((&greeting["ok"], &greeting["protocolVersion"]), (&json!(true), &json!("2025-06-18")));
    assert_eq!(greeting["limits"]["max_frame_bytes"], FRAME_BYTES);
    assert_eq!(greeting["transport"], "/mcp+p2p/1.0.0");
    visitor.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await;
    let call =
        json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "queue_pause", "arguments": {}}});
    assert_eq!(visitor.ask(call.clone()).await["result"]["structuredContent"]["status"], "paused");
    let rpc = json!({"jsonrpc": "2.0", "id": 3, "method": "tools/call",
        "params": {"name": "task_queue.rpc", "arguments": {"op": "status"}}});
    let status = visitor.ask(rpc).await;
    assert_eq!(status["result"]["content"]["ok"], true, "content is the object itself");
    // A greeting is no authority without a token, and another stream has none.
    let mut other = bench.visit("a").await;
    other.ask(json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}})).await;
    assert_eq!(other.ask(call).await["error"]["code"], -32001);
}

#[tokio::test]
async fn an_envelope_has_one_answer_and_the_stream_is_over() {
    let bench = Bench::start(|_| paused()).await;
    let envelope = json!({"type": "request", "method": "queue_pause", "id": "e1", "sender": "somebody",
        "params": {"token": TOKEN}, "timestamp": 1.5, "result": null, "error": null});
    let mut visitor = bench.visit("a").await;
    let reply = visitor.ask(envelope.clone()).await;
    assert_eq!((&reply["type"], &reply["id"], &reply["error"]), (&json!("response"), &json!("e1"), &Value::Null));
    assert_eq!(reply["result"]["status"], "paused");
    visitor.over().await;
    let mut forged = envelope;
    forged["params"] = json!({"token": "wrong"});
    let mut visitor = bench.visit("a").await;
    let reply = visitor.ask(forged).await;
    assert_eq!((&reply["error"], &reply["result"]), (&json!("unauthorized"), &Value::Null));
    visitor.over().await;
    assert_eq!(bench.asked(), 1);
}

#[tokio::test]
async fn a_forged_or_missing_token_reaches_nothing() {
    let bench = Bench::start(|_| paused()).await;
    let call = json!({"name": "queue_pause", "arguments": {}});
    for token in [None, Some(""), Some("wrong"), Some("the-right-toke"), Some("the-right-token2")] {
        let mut visitor = bench.visit("a").await;
        let reply = visitor.ask(modern(json!(1), "tools/call", call.clone(), token)).await;
        assert_eq!((&reply["error"]["code"], &reply["id"]), (&json!(-32001), &json!(1)), "{token:?}");
    }
    let mut visitor = bench.visit("a").await;
    let number = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"token": 7}});
    assert_eq!(visitor.ask(number).await["error"]["code"], -32001);
    assert_eq!(bench.asked(), 0);
}

#[tokio::test]
async fn who_tries_one_token_after_the_other_is_left() {
    let limits = Limits { patience: 3, ..Limits::default() };
    let bench = Bench::with(limits, |_| paused()).await;
    let mut visitor = bench.visit("a").await;
    for n in 0..3 {
        let guess = modern(json!(n), "tools/list", json!({}), Some("guess"));
        assert_eq!(visitor.ask(guess).await["error"]["code"], -32001);
    }
    visitor.over().await;
}

#[tokio::test]
async fn answers_come_as_they_are_ready_and_a_used_id_is_refused() {
    let bench = Bench::start(|request| match request {
        Request::Query(_) => Act::Keep,
        Request::Command(_) => paused(),
    })
    .await;
    let mut visitor = bench.visit("a").await;
    let slow = modern(json!(1), "tools/call", json!({"name": "queue_stats", "arguments": {}}), Some(TOKEN));
    visitor.send(&slow).await;
    assert_eq!(visitor.ask(pause(json!(2))).await["id"], 2);
    let twice = visitor.ask(pause(json!(1))).await;
    assert_eq!((&twice["error"]["message"], &twice["id"]), (&json!("duplicate_id"), &Value::Null));
    // Given up, its id is free again.
    let cancel = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}});
    visitor.send(&cancel).await;
    assert_eq!(visitor.ask(pause(json!(1))).await["id"], 1);
    for id in [json!(null), json!(1.5), json!([1]), json!("x".repeat(257))] {
        assert_eq!(visitor.ask(pause(id)).await["error"]["message"], "invalid_id");
    }
}

#[tokio::test]
async fn requests_under_way_are_bounded_for_each_peer() {
    let limits = Limits { in_flight_per_peer: 2, ..Limits::default() };
    let bench = Bench::with(limits, |_| Act::Keep).await;
    let (mut one, mut two) = (bench.visit("a").await, bench.visit("a").await);
    one.send(&pause(json!(1))).await;
    one.send(&pause(json!(2))).await;
    let both = async {
        while bench.asked() < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, both).await.expect("both are under way");
    let reply = two.ask(pause(json!(3))).await;
    assert_eq!(
        (&reply["error"]["message"], &reply["error"]["data"]["retry_after_ms"]),
        (&json!("rate_limited"), &json!(1_000))
    );
    // Another peer is served meanwhile.
    let mut other = bench.visit("b").await;
    assert_eq!(other.ask(modern(json!(1), "ping", json!({}), Some(TOKEN))).await["result"]["resultType"], "complete");
}

#[tokio::test]
async fn a_flood_is_refused_and_then_left_while_others_are_served() {
    let limits = Limits { burst: 5, per_second: 0, patience: 4, ..Limits::default() };
    let bench = Bench::with(limits, |_| paused()).await;
    let mut visitor = bench.visit("a").await;
    let mut refused = 0;
    for n in 0..20 {
        let sent = frame::write(&mut visitor.stream, &modern(json!(n), "ping", json!({}), None)).await;
        let Ok(frame) = frame::read(&mut visitor.stream, &Budget::new(frame::BUDGET_BYTES), PATIENCE).await else {
            break;
        };
        sent.expect("sent, or closed before");
        refused += usize::from(frame.message.get("error").is_some_and(|e| e["message"] == "rate_limited"));
    }
    assert_eq!(refused, 4, "and then it was left");
    assert!(bench.visit("b").await.ask(modern(json!(1), "ping", json!({}), None)).await.get("result").is_some());
}

#[tokio::test]
async fn streams_are_bounded_for_each_peer_and_in_all() {
    let limits = Limits { streams: 3, streams_per_peer: 2, ..Limits::default() };
    let bench = Bench::with(limits, |_| paused()).await;
    let ping = || modern(json!(1), "ping", json!({}), None);
    let (mut one, mut two, mut three) = (bench.visit("a").await, bench.visit("a").await, bench.visit("a").await);
    assert!(one.ask(ping()).await.get("result").is_some() && two.ask(ping()).await.get("result").is_some());
    three.over().await;
    let mut other = bench.visit("b").await;
    assert!(other.ask(ping()).await.get("result").is_some());
    bench.visit("c").await.over().await;
    // A place is free again as soon as its stream is over.
    one.stream.shutdown().await.expect("closed");
    one.over().await;
    drop(one);
    let again = async {
        loop {
            let mut visitor = bench.visit("c").await;
            let sent = frame::write(&mut visitor.stream, &ping()).await;
            if sent.is_ok()
                && frame::read(&mut visitor.stream, &Budget::new(frame::BUDGET_BYTES), PATIENCE).await.is_ok()
            {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, again).await.expect("a place");
}

#[tokio::test]
async fn bad_frames_are_told_and_the_stream_is_over() {
    let bench = Bench::start(|_| paused()).await;
    let table: [(&[u8], &str); 4] = [
        (&[0, 0, 0, 0], "empty_frame"),
        (&[0xff, 0xff, 0xff, 0xff], "frame_too_large"),
        (&[0, 0, 0, 2, 0xc3, 0x28], "invalid_json"),
        (&[0, 0, 0, 2, b'[', b']'], "invalid_message"),
    ];
    for (bytes, expected) in table {
        for greeted in [false, true] {
            let mut visitor = bench.visit("a").await;
            if greeted {
                visitor.ask(pause(json!(1))).await;
            }
            visitor.stream.write_all(bytes).await.expect("sent");
            let reply = visitor.next().await;
            assert_eq!((&reply["error"]["code"], &reply["error"]["message"]), (&json!(-32003), &json!(expected)));
            visitor.over().await;
        }
    }
    for (message, code) in [(json!({}), -32600), (json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}), -32000)] {
        let mut visitor = bench.visit("a").await;
        assert_eq!(visitor.ask(message).await["error"]["code"], code);
        visitor.over().await;
    }
}

#[tokio::test]
async fn what_was_asked_is_answered_though_no_more_is_sent() {
    let bench = Bench::start(|_| paused()).await;
    let mut visitor = bench.visit("a").await;
    visitor.send(&pause(json!(1))).await;
    visitor.stream.shutdown().await.expect("closed");
    assert_eq!(visitor.next().await["id"], 1);
    visitor.over().await;
}

#[tokio::test]
async fn an_interface_is_listed_had_and_compared() {
    let bench = Bench::start(|_| paused()).await;
    let mut visitor = bench.visit("a").await;
    let own = interface::own();
    let mut ask = async |method: &str, params: Value| visitor.ask(modern(json!(1), method, params, Some(TOKEN))).await;
    assert_eq!(ask("interfaces/list", json!({})).await["result"]["interfaces"], json!([own.cid]));
    let got = ask("interfaces/get", json!({"interface_cid": own.cid})).await["result"].clone();
    let canonical = got["canonical"].as_str().expect("text");
    assert_eq!(crate::ops::canonical::cid(canonical.as_bytes()), own.cid);
    assert_eq!(ask("interfaces/get", json!({"interface_cid": "bafkrei"})).await["error"]["code"], -32602);
    assert_eq!(ask("interfaces/compat", json!({"interface_cid": own.cid})).await["result"]["compatible"], true);
    let other = ask("interfaces/compat", json!({"interface_cid": "bafkrei"})).await["result"].clone();
    assert_eq!((&other["compatible"], &other["suggested_alternatives"]), (&json!(false), &json!([own.cid])));
}

#[tokio::test]
async fn the_queue_says_what_is_wrong_with_a_call() {
    let bench = Bench::start(|_| paused()).await;
    let mut visitor = bench.visit("a").await;
    let table = [
        (json!({"op": "no_such"}), "unknown_op"),
        (json!({"op": "cache.get"}), "missing_key"),
        (json!({"op": "cache.has", "key": "k".repeat(1_100)}), "invalid_params"),
        (json!({"op": "cache.set", "key": "k", "value": 1, "ttl_s": -1}), "invalid_params"),
        (json!({"op": "cache.delete", "key": ""}), "missing_key"),
        (json!({"op": "claim"}), "missing_worker_id"),
        (json!({"op": "claim", "worker_id": "w"}), "invalid_params"),
        (json!({"op": "claim", "worker_id": "w", "supported_task_types": []}), "invalid_argument"),
        (json!({"op": "claim", "worker_id": "w", "supported_task_types": ["*"]}), "invalid_argument"),
        (json!({"op": "claim", "worker_id": "a b", "supported_task_types": ["t"]}), "invalid_argument"),
        (
            json!({"op": "claim_many", "worker_id": "w", "supported_task_types": ["t"], "max_tasks": 65}),
            "invalid_argument",
        ),
        (json!({"op": "claim", "worker_id": "w", "supported_task_types": ["t"], "lease_s": 0}), "invalid_params"),
        (json!({"op": "claim", "worker_id": "w", "supported_task_types": ["t"], "timeout_s": -1}), "invalid_params"),
        (json!({"op": "complete"}), "missing_task_id"),
        (json!({"op": "complete", "task_id": "t", "status": "well"}), "invalid_params"),
        (json!({"op": "complete", "task_id": "t", "status": "completed"}), "not_lease_holder"),
        (json!({"op": "release", "task_id": "t"}), "not_lease_holder"),
        (json!({"op": "list", "limit": 1_001}), "invalid_params"),
        (json!({"op": "submit", "payload": {"priority": "high", "idempotency_key": 3}}), "invalid_argument"),
    ];
    for (n, (arguments, word)) in table.into_iter().enumerate() {
        let mut arguments: Object = serde_json::from_value(arguments).expect("an object");
        // Its own clients put the token here.
        arguments.insert("token".into(), TOKEN.into());
        let call = json!({"name": "task_queue.rpc", "arguments": arguments});
        let reply = visitor.ask(modern(json!(n), "tools/call", call, None)).await;
        let content = &reply["result"]["structuredContent"];
        assert_eq!((&content["ok"], &content["error"]), (&json!(false), &json!(word)), "{arguments:?}: {reply}");
    }
    assert_eq!(bench.asked(), 0);
}
