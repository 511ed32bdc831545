//! The ways into a node, each as its own clients use it: MCP over HTTP in both
//! eras, the bridge to standard input and output, the socket in the data folder
//! and a libp2p stream.

use crate::fleet::{Node, binary};
use serde_json::{Value, json};
use std::fmt;
use std::process::Stdio;
use taskmesh::api::client::{Client, ClientError, Way};
use taskmesh::api::p2p::Remote;
use taskmesh::net::door;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::Mutex;

/// A way in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    /// Streamable HTTP, 2026-07-28.
    Modern,
    /// Streamable HTTP with a session, 2025-11-25.
    Legacy,
    /// `taskmesh mcp`.
    Stdio,
    /// The Unix socket.
    Socket,
    /// `/mcp+p2p/1.0.0`, as `--via` speaks it.
    Libp2p,
}

/// All of them.
pub(super) const TRANSPORTS: [Transport; 5] =
    [Transport::Modern, Transport::Legacy, Transport::Stdio, Transport::Socket, Transport::Libp2p];

/// Those over which a person answers what a task asks: they carry the Tasks
/// extension.
pub(super) const ANSWERING: [Transport; 3] = [Transport::Modern, Transport::Stdio, Transport::Socket];

/// One node, reached in one way, by a client that stays connected.
pub(super) struct Face {
    /// Its place in the fleet.
    pub(super) node: usize,
    pub(super) transport: Transport,
    line: Line,
}

enum Line {
    Http(Client),
    Legacy(Legacy),
    Stdio(Box<Mutex<Bridge>>),
    Libp2p(Remote),
}

impl fmt::Display for Face {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{} by {:?}", self.node, self.transport)
    }
}

impl Face {
    pub(super) async fn open(at: &Node, node: usize, transport: Transport) -> Face {
        let (url, token) = at.endpoint();
        let line = match transport {
            Transport::Modern => Line::Http(Client::new(url, token).expect("a client")),
            Transport::Socket => {
                let way = Way::Socket(at.data_dir().join("api.sock"));
                Line::Http(Client::by(way, url, token).expect("a client"))
            }
            Transport::Legacy => Line::Legacy(Legacy::greet(url, token).await),
            Transport::Stdio => Line::Stdio(Box::new(Mutex::new(Bridge::start(at)))),
            Transport::Libp2p => Line::Libp2p(visit(at, token).await),
        };
        Face { node, transport, line }
    }

    /// One call: its answer, or the envelope of its failure.
    pub(super) async fn call(&self, name: &str, arguments: Value) -> Result<Value, Value> {
        match &self.line {
            Line::Http(client) => client.call(name, arguments).await.map_err(envelope),
            Line::Libp2p(remote) => remote.call(name, arguments, "the door").await.map_err(envelope),
            Line::Legacy(legacy) => content(legacy.call(name, arguments).await),
            Line::Stdio(bridge) => content(bridge.lock().await.call(name, arguments).await),
        }
    }

    /// A person's answer to a step that waits for one.
    pub(super) async fn answer(&self, task: &str, content: Value) {
        let responses = json!({"approve": {"action": "accept", "content": content}});
        match &self.line {
            Line::Http(client) => client.update_task(task, responses).await.expect("taken"),
            Line::Stdio(bridge) => {
                let params = json!({"taskId": task, "inputResponses": responses});
                let reply = bridge.lock().await.request("tasks/update", params).await;
                assert!(reply["result"].is_object(), "{reply}");
            }
            Line::Legacy(_) | Line::Libp2p(_) => panic!("{self} does not carry the Tasks extension"),
        }
    }
}

fn envelope(failed: ClientError) -> Value {
    Value::Object(failed.envelope())
}

/// What a reply of JSON-RPC to a call has.
fn content(mut reply: Value) -> Result<Value, Value> {
    let content = reply["result"]["structuredContent"].take();
    match content["success"] {
        Value::Bool(true) => Ok(content),
        Value::Bool(false) => Err(content),
        _ => Err(reply),
    }
}

async fn visit(node: &Node, token: &str) -> Remote {
    let file = node.data_dir().join("door.json");
    let told: Value = serde_json::from_slice(&std::fs::read(file).expect("it is said")).expect("JSON");
    let call = door::dial(told["multiaddr"].as_str().expect("an address")).await.expect("the door is open");
    Remote::new(Box::new(call.stream), token, Box::new(call.open))
}

/// A client of the era of sessions.
struct Legacy {
    http: reqwest::Client,
    url: String,
    token: String,
    session: String,
}

impl Legacy {
    async fn greet(url: &str, token: &str) -> Legacy {
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        let mut legacy = Legacy { http, url: url.to_owned(), token: token.to_owned(), session: String::new() };
        let hello = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
            "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}});
        let greeted = legacy.post(&hello).await;
        legacy.session = greeted.headers()["mcp-session-id"].to_str().expect("text").to_owned();
        greeted.bytes().await.expect("a greeting");
        legacy.post(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await;
        legacy
    }

    async fn post(&self, message: &Value) -> reqwest::Response {
        let mut request = self.http.post(&self.url).bearer_auth(&self.token);
        request = request.header("Accept", "application/json, text/event-stream");
        request = request.header("Content-Type", "application/json").header("MCP-Protocol-Version", "2025-11-25");
        if !self.session.is_empty() {
            request = request.header("Mcp-Session-Id", &self.session);
        }
        let response = request.body(message.to_string()).send().await.expect("a response");
        assert!(response.status().is_success(), "{}", response.status());
        response
    }

    async fn call(&self, name: &str, arguments: Value) -> Value {
        let params = json!({"name": name, "arguments": arguments});
        let message = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
        let text = self.post(&message).await.text().await.expect("a body");
        // JSON, or the last event of a stream.
        let data = text.lines().rev().find_map(|line| line.strip_prefix("data:")).unwrap_or(&text);
        serde_json::from_str(data.trim()).unwrap_or_else(|e| panic!("{e}: {text}"))
    }
}

/// `taskmesh mcp`, as a program that an assistant starts.
struct Bridge {
    _child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    next: u64,
}

impl Bridge {
    fn start(node: &Node) -> Bridge {
        let mut command = Command::new(binary());
        command.arg("mcp").arg("--data-dir").arg(node.data_dir()).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("it runs");
        let input = child.stdin.take().expect("a pipe");
        let output = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        Bridge { _child: child, input, output, next: 1 }
    }

    async fn call(&mut self, name: &str, arguments: Value) -> Value {
        self.request("tools/call", json!({"name": name, "arguments": arguments})).await
    }

    async fn request(&mut self, method: &str, mut params: Value) -> Value {
        let id = self.next;
        self.next += 1;
        let capabilities = match method {
            "tools/call" => json!({}),
            _ => json!({"extensions": {"io.modelcontextprotocol/tasks": {}}}),
        };
        params["_meta"] = json!({
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": capabilities,
            "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"}});
        let message = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        self.input.write_all(format!("{message}\n").as_bytes()).await.expect("it reads");
        loop {
            let line = self.output.next_line().await.expect("a pipe").expect("it runs on");
            let reply: Value = serde_json::from_str(&line).expect("JSON");
            if reply["id"] == id {
                return reply;
            }
        }
    }
}
