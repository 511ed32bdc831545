//! Who gets in, and what each may do, over real sockets and pipes.

use super::admin::{Limits, Wanted};
use super::*;
use crate::api::audit;
use crate::api::client::{Client, Way};
use crate::api::p2p::{self, Remote};
use crate::api::stdio::bridge;
use crate::api::testing::{Act, Endpoint, TOKEN, body, root};
use crate::driver::Foreign;
use crate::ops::{self, samples};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use taskmesh_core::authority::{OPERATIONS, may};
use taskmesh_core::{Command, Millis, Query, Refusal, Reply, Request};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

/// The ways in that there are. A new one gets a line here and a row in
/// [`call`], and is then held to the whole table.
#[derive(Clone, Copy, Debug)]
enum Transport {
    Http,
    Socket,
    Stdio,
    Libp2p,
}

const TRANSPORTS: [Transport; 4] = [Transport::Http, Transport::Socket, Transport::Stdio, Transport::Libp2p];

fn minted(subject: &str, role: Role, caveats: Caveats) -> Token {
    let caveats = Caveats { expires: caveats.expires.or(Some(wall_clock() + Millis(3_600_000))), ..caveats };
    root().mint(nonce().expect("random"), subject, role, &caveats).expect("a token")
}

fn shown(role: Role) -> String {
    to_text(&minted("ann", role, Caveats::default()))
}

/// A node that is asked says so by this.
const ASKED: &str = "the node was asked";

/// Whatever is asked, at an address or at the socket of [`socket`].
async fn endpoint() -> Endpoint {
    Endpoint::start(|request| match request {
        // What the face for peers asks by itself when it starts.
        Request::Query(Query::Workers) => Act::Answer(Ok(Reply::Workers(Vec::new()))),
        _ => Act::Answer(Err(Refusal::Unavailable { problem: ASKED.into(), retry_after: Millis(1) })),
    })
    .await
}

/// The socket beside an endpoint, by which the same gate is reached.
fn socket(endpoint: &Endpoint) -> std::path::PathBuf {
    endpoint.folder.path().join("api.sock")
}

/// A stream to the face for peers, by which the same gate is reached.
async fn visit(endpoint: &Endpoint) -> Box<dyn p2p::Duplex> {
    let shutdown = endpoint.shutdown.clone();
    let node = endpoint.gate.for_all().clone();
    let face = p2p::Face {
        gate: endpoint.gate.clone(),
        audit: audit::Audit::open(endpoint.folder.path()).expect("an audit log"),
        foreign: Foreign::start(node, Default::default(), Vec::new(), shutdown.clone()).await,
        meter: Arc::new(|_, _, _| ()),
        offer: Default::default(),
        templates: Default::default(),
        limits: Default::default(),
    };
    let (visits, served) = tokio::sync::mpsc::channel(1);
    tokio::spawn(p2p::serve(served, face, shutdown));
    let (stream, theirs) = tokio::io::duplex(1 << 16);
    let visit = p2p::Visit { peer: "12D3KooWPeer".into(), stream: Box::new(theirs), place: Box::new(visits.clone()) };
    assert!(visits.send(visit).await.is_ok(), "served");
    Box::new(stream)
}

fn message(name: &str, arguments: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": name, "arguments": arguments, "_meta": {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"}}}})
}

/// One call over one transport: the envelope of its failure.
async fn call(transport: Transport, endpoint: &Endpoint, token: &str, name: &str, arguments: Value) -> Value {
    let client = match transport {
        Transport::Http | Transport::Stdio | Transport::Libp2p => Client::new(&endpoint.url, token),
        Transport::Socket => Client::by(Way::Socket(socket(endpoint)), &endpoint.url, token),
    };
    let client = client.expect("a client");
    match transport {
        Transport::Http | Transport::Socket => {
            let failed = client.call(name, arguments).await.expect_err("the node refuses everything");
            Value::Object(failed.envelope())
        }
        Transport::Libp2p => {
            let remote = Remote::new(visit(endpoint).await, token, Box::new(()));
            let failed = remote.call(name, arguments, "here").await.expect_err("the node refuses everything");
            Value::Object(failed.envelope())
        }
        Transport::Stdio => {
            let (ours, theirs) = tokio::io::duplex(1 << 20);
            let (read, write) = tokio::io::split(theirs);
            let bridge = tokio::spawn(bridge(client, BufReader::new(read), write));
            let (output, mut input) = tokio::io::split(ours);
            let line = format!("{}\n", message(name, &arguments));
            input.write_all(line.as_bytes()).await.expect("written");
            let line = BufReader::new(output).lines().next_line().await.expect("a pipe").expect("a line");
            bridge.abort();
            let answer: Value = serde_json::from_str(&line).expect("JSON");
            answer["result"]["structuredContent"].clone()
        }
    }
}

/// What callers asked the node for, and not the faces by themselves.
fn asked(endpoint: &Endpoint) -> usize {
    let asked = endpoint.asked.lock().expect("no panic");
    asked.iter().filter(|request| !matches!(request, Request::Query(Query::Workers))).count()
}

#[tokio::test]
async fn every_operation_is_held_to_the_table_for_every_role_on_every_transport() {
    assert_eq!(OPERATIONS.map(|(name, _)| name), ops::ALL);
    let endpoint = endpoint().await;
    let (mut allowed, mut refused) = (0, 0);
    for (role, transport) in Role::ALL.into_iter().flat_map(|role| TRANSPORTS.map(|transport| (role, transport))) {
        let token = shown(role);
        for (name, needed) in OPERATIONS {
            if ops::operation(name).is_none() {
                // Not offered by this version: the gate would decide all the same.
                let caller = endpoint.gate.admit(token.as_bytes()).await.expect("let in");
                assert_eq!(endpoint.gate.enter(&caller, name).is_ok(), may(role, name), "{role} {name}");
                continue;
            }
            let asked_before = asked(&endpoint);
            let answer = call(transport, &endpoint, &token, name, Value::Object(samples::right(name))).await;
            let asked = asked(&endpoint) > asked_before;
            assert_eq!(asked, may(role, name), "{role} {name} {transport:?}: {answer}");
            if asked {
                allowed += 1;
                assert_eq!((&answer["code"], &answer["error"]), (&json!("unavailable"), &json!(ASKED)));
            } else {
                refused += 1;
                assert_eq!(answer["code"], "permission_denied");
                let error = answer["error"].as_str().unwrap_or_default();
                assert!(
                    error.contains(name) && error.contains(needed.name()) && error.contains(role.name()),
                    "{error}"
                );
            }
        }
    }
    assert!(allowed > 0 && refused > 0, "{allowed} {refused}");
}

#[test]
fn a_row_of_the_table_and_the_request_behind_it_need_the_same() {
    for operation in ops::offered() {
        let request = operation.prepare(samples::right(operation.name)).expect("right").request;
        let core = taskmesh_core::authority::operation_of(&request);
        let needs = taskmesh_core::authority::needs;
        assert_eq!(needs(core), needs(operation.name), "{} is {core} for the core", operation.name);
        let changes = matches!(request, Request::Command(_));
        assert_eq!(changes, operation.kind != ops::Kind::Read, "{}", operation.name);
        assert!(!changes || needs(operation.name) > Role::Viewer, "a viewer may not {}", operation.name);
    }
}

#[tokio::test]
async fn a_caller_is_shown_the_tools_that_it_may_call() {
    let endpoint = endpoint().await;
    for role in Role::ALL {
        let request = endpoint.modern_as(&shown(role), "tools/list", json!({}), json!({}));
        let list = body(request.send().await.expect("a response")).await;
        let names: BTreeSet<_> =
            list["result"]["tools"].as_array().expect("tools").iter().filter_map(|t| t["name"].as_str()).collect();
        let expected: BTreeSet<_> = ops::offered().iter().map(|o| o.name).filter(|name| may(role, name)).collect();
        assert_eq!(names, expected, "{role}");
    }
}

#[tokio::test]
async fn what_is_no_valid_token_is_turned_away_before_anything_is_read() {
    let endpoint = endpoint().await;
    let good = minted("ann", Role::Admin, Caveats::default());
    let mut forged = good.to_bytes();
    *forged.last_mut().expect("bytes") ^= 1;
    let soon = Caveats { expires: Some(wall_clock()), ..Caveats::default() };
    let other = taskmesh_core::token::RootKey::of_mesh(&[8; 32]);
    let caveats = Caveats { expires: Some(wall_clock() + Millis(60_000)), ..Caveats::default() };
    let foreign = other.mint([1; 16], "ann", Role::Admin, &caveats).expect("a token");
    let texts = [
        format!("tmt_{}", URL_SAFE_NO_PAD.encode(&forged)),
        to_text(&minted("ann", Role::Admin, soon)),
        to_text(&foreign),
        "tmt_".to_owned(),
        format!("tmt_{}", "A".repeat(100_000)),
        format!("{} ", to_text(&good)).to_uppercase(),
        format!("{TOKEN}x"),
    ];
    for text in texts {
        let request = endpoint.modern_as(&text, "tools/list", json!({}), json!({}));
        let Ok(response) = request.send().await else { continue };
        let short: String = text.chars().take(40).collect();
        if response.status() == 431 {
            continue;
        }
        assert_eq!(response.status(), 401, "{short}");
        let challenge = response.headers()["WWW-Authenticate"].to_str().expect("text").to_owned();
        assert!(challenge.contains("invalid_token"), "{challenge}");
        assert!(!body(response).await.to_string().contains(&text), "a secret is not repeated");
    }
}

#[tokio::test]
async fn a_revoked_token_and_what_was_made_from_it_are_turned_away() {
    let endpoint = endpoint().await;
    let ann = minted("ann", Role::Admin, Caveats::default());
    let narrowed = ann.attenuate(&Caveats { own: true, ..Caveats::default() }).expect("a token");
    endpoint.gate.inner.handle.revoke_for_test(ann.id());
    for token in [&ann, &narrowed] {
        let request = endpoint.modern_as(&to_text(token), "tools/list", json!({}), json!({}));
        let response = request.send().await.expect("a response");
        assert_eq!(response.status(), 401);
        assert!(body(response).await["error"].as_str().is_some_and(|e| e.contains("revoked")));
    }
}

#[tokio::test]
async fn an_attenuated_token_may_do_less_and_a_rate_is_kept() {
    let endpoint = endpoint().await;
    let operator = minted("ann", Role::Operator, Caveats::default());
    let more = Caveats { role: Some(Role::Viewer), calls_per_minute: Some(2), ..Caveats::default() };
    let viewer = to_text(&operator.attenuate(&more).expect("a token"));
    let mut codes = Vec::new();
    for name in ["queue_pause", "queue_stats", "queue_stats"] {
        let answer = call(Transport::Http, &endpoint, &viewer, name, json!({})).await;
        codes.push(answer["code"].as_str().unwrap_or_default().to_owned());
        if codes.len() == 3 {
            assert!(answer["retry_after_ms"].as_u64().is_some_and(|ms| ms > 0 && ms <= 30_001), "{answer}");
        }
    }
    assert_eq!(codes, ["permission_denied", "unavailable", "resource_exhausted"]);
    let answer = call(Transport::Http, &endpoint, &to_text(&operator), "queue_pause", json!({})).await;
    assert_eq!(answer["code"], "unavailable", "the token that it was made from is as it was");
}

#[tokio::test]
async fn resources_need_what_the_operations_behind_them_need() {
    let endpoint = endpoint().await;
    let own = to_text(&minted("ann", Role::Operator, Caveats { own: true, ..Caveats::default() }));
    let blob = format!("mesh://blobs/{}", "00".repeat(32));
    let read = async |token: &str, uri: &str| {
        let request = endpoint.modern_as(token, "resources/read", json!({"uri": uri}), json!({}));
        let reply = body(request.send().await.expect("a response")).await;
        reply["error"]["data"]["code"].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!(read(&own, &blob).await, "permission_denied", "it may be of another's task");
    assert_eq!(read(&shown(Role::Viewer), &blob).await, "not_found");
    assert_eq!(read(&shown(Role::Viewer), "mesh://queue").await, "unavailable");
    let submission = "mesh://submissions/t";
    assert_eq!(read(&shown(Role::Submitter), submission).await, "permission_denied", "payloads may hold secrets");
    let follows = json!({"extensions": {"io.modelcontextprotocol/tasks": {}}});
    let cancel = endpoint.modern_as(&shown(Role::Viewer), "tasks/cancel", json!({"taskId": "t"}), follows);
    let reply = body(cancel.send().await.expect("a response")).await;
    assert_eq!(reply["error"]["data"]["code"], "permission_denied", "{reply}");
    let asked = endpoint.asked.lock().expect("no panic");
    assert!(matches!(&asked[..], [Request::Query(Query::Stats { .. })]), "{asked:?}");
}

#[tokio::test]
async fn a_foreign_worker_needs_the_right_to_work_for_the_mesh() {
    let endpoint = endpoint().await;
    let typed = Caveats { task_types: vec!["echo".into()], ..Caveats::default() };
    let own = Caveats { own: true, ..Caveats::default() };
    let tokens = [
        (shown(Role::Submitter), "permission_denied"),
        (to_text(&minted("ann", Role::Operator, own)), "permission_denied"),
        (to_text(&minted("ann", Role::Operator, typed.clone())), "permission_denied"),
    ];
    let claim = |types: Value| json!({"op": "claim", "worker_id": "w", "supported_task_types": types, "timeout_s": 0});
    let ask = async |token: &str, arguments: Value| {
        let remote = Remote::new(visit(&endpoint).await, token, Box::new(()));
        let asked = remote.request("tools/call", json!({"name": "task_queue.rpc", "arguments": arguments})).await;
        asked.expect("an answer").to_string()
    };
    for (token, word) in tokens {
        let answer = ask(&token, claim(json!(["exec"]))).await;
        assert!(answer.contains(word), "{answer}");
    }
    let answer = ask(&to_text(&minted("ann", Role::Operator, typed)), claim(json!(["echo"]))).await;
    assert!(answer.contains("unavailable"), "the node was asked: {answer}");
    let answer = ask(&shown(Role::Viewer), json!({"op": "submit", "task_type": "echo", "payload": {}})).await;
    assert!(answer.contains("permission_denied"), "{answer}");
}

#[tokio::test]
async fn a_session_is_of_the_token_that_opened_it() {
    let endpoint = endpoint().await;
    let hello = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "old", "version": "1"}}});
    let opened = endpoint.post_as(&shown(Role::Admin)).body(hello.to_string()).send().await.expect("a response");
    let session = opened.headers()["mcp-session-id"].clone();
    let ping = json!({"jsonrpc": "2.0", "id": 2, "method": "ping"}).to_string();
    let other = endpoint.post_as(&shown(Role::Admin)).header("mcp-session-id", session).body(ping);
    assert_eq!(other.send().await.expect("a response").status(), 404);
}

async fn office(endpoint: &Endpoint, token: &str, method: reqwest::Method, path: &str, text: String) -> (u16, Value) {
    let url = endpoint.url.replace("/mcp", path);
    let request = endpoint.http.request(method, url).header("Authorization", format!("Bearer {token}"));
    let response = request.body(text).send().await.expect("a response");
    (response.status().as_u16(), body(response).await)
}

/// A node that lists and revokes what it is told.
async fn registrar() -> Endpoint {
    Endpoint::start(|request| {
        Act::Answer(match request {
            Request::Command(Command::Issue(entry)) => Ok(Reply::Token(entry.clone())),
            Request::Command(Command::Revoke(_)) => Err(Refusal::Denied { problem: ASKED.into() }),
            _ => Ok(Reply::Tokens(Vec::new())),
        })
    })
    .await
}

fn wanted(role: &str) -> Wanted {
    Wanted { name: "ci".to_owned(), role: role.to_owned(), ..Wanted::default() }
}

#[tokio::test]
async fn a_token_that_is_made_lets_in_and_only_admins_make_them() {
    let endpoint = registrar().await;
    let text = serde_json::to_string(&wanted("viewer")).expect("JSON");
    let (status, made) = office(&endpoint, TOKEN, reqwest::Method::POST, "/tokens", text.clone()).await;
    assert_eq!((status, &made["role"], &made["status"]), (200, &json!("viewer"), &json!("valid")), "{made}");
    let token = made["token"].as_str().expect("a token");
    let caller = endpoint.gate.admit(token.as_bytes()).await.expect("let in");
    assert_eq!(caller.subject().map(|s| &**s), Some("ci"));
    assert_eq!(made["id"], caller.authority().expect("limited").id().to_string());
    for role in [Role::Viewer, Role::Submitter, Role::Operator] {
        let (status, answer) = office(&endpoint, &shown(role), reqwest::Method::POST, "/tokens", text.clone()).await;
        assert_eq!((status, &answer["code"]), (403, &json!("permission_denied")), "{role}");
        assert_eq!(office(&endpoint, &shown(role), reqwest::Method::GET, "/tokens", String::new()).await.0, 403);
        let path = format!("/tokens/{}", "0".repeat(32));
        assert_eq!(office(&endpoint, &shown(role), reqwest::Method::DELETE, &path, String::new()).await.0, 403);
    }
    let asked = endpoint.asked.lock().expect("no panic");
    assert!(matches!(&asked[..], [Request::Command(Command::Issue(_))]), "{asked:?}");
    assert!(!format!("{asked:?}").contains(token), "the node is not told the token");
}

#[tokio::test]
async fn a_limited_admin_makes_no_token_without_its_limits() {
    let endpoint = registrar().await;
    let soon = Caveats { expires: Some(wall_clock() + Millis(60_000)), ..Caveats::default() };
    let limited = [
        Caveats { own: true, ..Caveats::default() },
        Caveats { calls_per_minute: Some(100), ..Caveats::default() },
        soon,
    ];
    for caveats in limited {
        let token = to_text(&minted("ann", Role::Admin, caveats));
        let text = serde_json::to_string(&wanted("admin")).expect("JSON");
        let (status, answer) = office(&endpoint, &token, reqwest::Method::POST, "/tokens", text).await;
        assert_eq!(status, 403, "{answer}");
    }
    assert!(endpoint.asked.lock().expect("no panic").is_empty());
}

#[tokio::test]
async fn a_wrong_wish_for_a_token_says_what_is_wrong() {
    let endpoint = registrar().await;
    let limits = |limits| Wanted { limits, ..wanted("viewer") };
    let wishes = [
        (wanted("root"), "role"),
        (Wanted { name: ADMIN.to_owned(), ..wanted("viewer") }, "name"),
        (Wanted { name: String::new(), ..wanted("viewer") }, "name"),
        (Wanted { expires_in: Some(0), ..wanted("viewer") }, "expires_in"),
        (Wanted { expires_in: Some(u64::MAX), ..wanted("viewer") }, "expires_in"),
        (limits(Limits { priority_max: Some(-1.0), ..Limits::default() }), "priority_max"),
        (limits(Limits { tags: vec!["x".to_owned(); 33], ..Limits::default() }), "tags"),
    ];
    for (wish, field) in wishes {
        let text = serde_json::to_string(&wish).expect("JSON");
        let (status, answer) = office(&endpoint, TOKEN, reqwest::Method::POST, "/tokens", text).await;
        let error = answer["error"].as_str().unwrap_or_default();
        assert!(status == 400 && error.contains(field), "{field}: {status} {answer}");
    }
    for text in ["", "[]", "{\"name\":\"a\",\"role\":\"viewer\",\"rolle\":1}"] {
        let (status, _) = office(&endpoint, TOKEN, reqwest::Method::POST, "/tokens", text.to_owned()).await;
        assert_eq!(status, 400, "{text}");
    }
    assert_eq!(office(&endpoint, TOKEN, reqwest::Method::DELETE, "/tokens/x", String::new()).await.0, 400);
}

#[tokio::test]
async fn whatever_would_change_something_is_in_the_audit_log_without_secrets() {
    let endpoint = endpoint().await;
    let token = minted("ann", Role::Submitter, Caveats::default());
    let text = to_text(&token);
    let secret = json!({"task_id": "t-1", "task_type": "echo", "payload": {"password": "hunter2"}});
    call(Transport::Http, &endpoint, &text, "task_submit", secret).await;
    call(Transport::Http, &endpoint, &text, "task_list", json!({})).await;
    call(Transport::Http, &endpoint, &text, "queue_pause", json!({})).await;
    let mut acts = Vec::new();
    audit::read(endpoint.folder.path(), |act| acts.push(act)).expect("readable");
    let said: Vec<_> = acts.iter().map(|act| [&act["operation"], &act["outcome"], &act["subject"]]).collect();
    assert_eq!(
        said,
        [
            [&json!("task_submit"), &json!("unavailable"), &json!("ann")],
            [&json!("queue_pause"), &json!("permission_denied"), &json!("ann")]
        ]
    );
    assert_eq!((&acts[0]["ids"]["task_id"], &acts[0]["transport"]), (&json!("t-1"), &json!("http")));
    assert_eq!(acts[0]["token"], token.id().to_string());
    assert!(acts[0]["peer"].as_str().is_some_and(|peer| peer.starts_with("127.0.0.1:")), "{acts:?}");
    let all = format!("{acts:?}");
    assert!(!all.contains("hunter2") && !all.contains(&text), "{all}");
}

/// The table in `docs/security.md`.
fn table() -> String {
    let mut text = String::from("\n| operation | viewer | submitter | operator | admin |\n|---|---|---|---|---|\n");
    for (name, _) in OPERATIONS {
        let cell = |role| match (may(role, name), role) {
            (false, _) => "",
            // They change their own tasks; see below the table.
            (true, Role::Submitter)
                if !may(Role::Viewer, name) && name != "task_submit" && name != "workflow_submit" =>
            {
                "own"
            }
            (true, _) => "yes",
        };
        let cells = Role::ALL.map(cell).join(" | ");
        text.push_str(&format!("| `{name}` | {cells} |\n"));
    }
    text.push('\n');
    text
}

#[test]
fn the_document_has_the_table_that_is_in_force() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/security.md");
    let page = std::fs::read_to_string(path).expect("the document");
    let marks = ["<!-- roles: written by `BLESS=1 cargo test --lib auth::` -->\n", "<!-- end of roles -->"];
    let (head, rest) = page.split_once(marks[0]).expect("the start of the table");
    let (_, tail) = rest.split_once(marks[1]).expect("the end of the table");
    let wanted = format!("{head}{}{}{}{tail}", marks[0], table(), marks[1]);
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path, &wanted).expect("written");
        return;
    }
    assert!(page == wanted, "docs/security.md is out of date: run BLESS=1 cargo test --lib auth::");
}
