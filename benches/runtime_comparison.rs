//! What one call of the facade costs by each way in, and beside it the design
//! that a node does not have: a facade whose calls cross to a second runtime
//! and back. Every way answers the same `task_status` of the same task, and a
//! bare axum and serde_json echo of the same bytes shows what HTTP itself
//! takes. All in turns of one run, so that the ratios hold on a busy machine.
//!
//! `cargo bench --bench runtime_comparison [latency|throughput]`

#[path = "../tests/fleet/mod.rs"]
mod fleet;
mod inside;

use axum::Router;
use axum::routing::post;
use fleet::{Node as Process, Plan};
use inside::Inside;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use taskmesh::api::p2p::Remote;
use taskmesh::net::door::{self, Call};
use taskmesh::ops::{self, Context};
use taskmesh_core::token::Caller;
use taskmesh_core::{Config, Disk, Effect, Input, Millis, Node, NodeId, Reply, RequestId, Unix, testing};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::runtime::{Builder, Runtime};

/// Rounds, and calls of each way in a round.
const ROUNDS: usize = 9;
const CALLS: usize = 400;
/// Clients at once, and calls of each, in the table of throughput.
const CLIENTS: usize = 64;
const EACH: usize = 60;
const TURNS: usize = 5;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let wants = |name: &str| wanted.is_empty() || wanted.iter().any(|w| w == name);
    let folder = tempfile::Builder::new().prefix("taskmesh-bench-").tempdir().expect("a temporary folder");
    if wants("latency") {
        latency(folder.path()).await;
    }
    if wants("throughput") {
        throughput(folder.path()).await;
    }
}

/// The core alone, called as by a function.
struct Direct {
    node: Node,
    next: u64,
    effects: Vec<Effect>,
}

impl Direct {
    fn new() -> Direct {
        let mut node = Node::new(NodeId::test(1), Config::default(), 1, Disk::default());
        let mut effects = Vec::new();
        node.handle(Millis(1), Input::Clock(Unix(1_700_000_000_000)), &mut effects);
        let mut direct = Direct { node, next: 0, effects };
        direct.call("task_submit", json!({"task_id": "known", "task_type": "echo", "payload": {}}));
        direct
    }

    /// Arguments to answer, as text, in this thread.
    fn call(&mut self, name: &str, arguments: Value) -> String {
        let (operation, Value::Object(arguments)) = (ops::operation(name).expect("offered"), arguments) else {
            panic!("arguments are an object")
        };
        let prepared = operation.prepare(arguments).expect("right arguments");
        self.next += 1;
        let id = RequestId(self.next);
        self.node.handle(
            Millis(2),
            Input::Request { id, caller: Caller::Node, request: prepared.request.clone() },
            &mut self.effects,
        );
        let reply = self.effects.drain(..).find_map(|effect| match effect {
            Effect::Reply { reply, .. } => Some(reply),
            _ => None,
        });
        shown(prepared, reply.expect("an answer").expect("no refusal"))
    }
}

fn shown(prepared: ops::Prepared, reply: Reply) -> String {
    let none = |_, _, _| None;
    let answer = prepared.write(reply, &Context { now: Unix(1_700_000_000_000), blobs: &none });
    Value::Object(answer.expect("an answer")).to_string()
}

/// The same call, made on another runtime's threads.
struct Crossing {
    runtime: Option<Runtime>,
    direct: Arc<Mutex<Direct>>,
}

impl Crossing {
    fn new() -> Crossing {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        Crossing { runtime: Some(runtime), direct: Arc::new(Mutex::new(Direct::new())) }
    }

    async fn call(&self) -> String {
        let direct = self.direct.clone();
        let runtime = self.runtime.as_ref().expect("until it is dropped");
        let there = runtime.spawn(async move { direct.lock().expect("no panic").call("task_status", known()) });
        there.await.expect("no panic")
    }
}

impl Drop for Crossing {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn known() -> Value {
    json!({"task_id": "known"})
}

/// Through the driver's channel: its thread, its commit of nothing, and back.
async fn channel(inside: &Inside) -> String {
    let Value::Object(arguments) = known() else { unreachable!("an object") };
    let prepared = ops::operation("task_status").expect("offered").prepare(arguments).expect("right arguments");
    let reply = inside.handle.ask(prepared.request.clone()).await.expect("an answer");
    shown(prepared, reply)
}

/// A client of a real node, in one form of the protocol.
struct Http {
    http: reqwest::Client,
    url: String,
    headers: Vec<(&'static str, String)>,
    body: String,
}

impl Http {
    /// 2026-07-28: a request stands alone.
    fn modern(url: &str, token: &str) -> Http {
        let meta = json!({
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
            "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "1"},
        });
        let params = json!({"name": "task_status", "arguments": known(), "_meta": meta});
        let mut headers = Http::common(token);
        headers.push(("mcp-protocol-version", "2026-07-28".into()));
        headers.push(("mcp-method", "tools/call".into()));
        headers.push(("mcp-name", "task_status".into()));
        Http::with(url, headers, &params)
    }

    /// 2025-11-25: in a session.
    async fn legacy(url: &str, token: &str) -> Http {
        let mut client = Http::with(url, Http::common(token), &json!({"name": "task_status", "arguments": known()}));
        let hello = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}});
        let hello = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello});
        let answer = client.post(hello.to_string()).send().await.expect("a session");
        let session = answer.headers()["mcp-session-id"].to_str().expect("text").to_owned();
        answer.bytes().await.expect("a greeting");
        client.headers.push(("mcp-session-id", session));
        let ready = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        client.post(ready.to_string()).send().await.expect("taken").bytes().await.expect("taken");
        client
    }

    /// The same bytes to a server that does nothing with them.
    fn bare(url: &str, like: &Http) -> Http {
        Http { url: url.to_owned(), headers: like.headers.clone(), body: like.body.clone(), http: client() }
    }

    fn common(token: &str) -> Vec<(&'static str, String)> {
        let accept = "application/json, text/event-stream".to_owned();
        let bearer = format!("Bearer {token}");
        vec![("authorization", bearer), ("accept", accept), ("content-type", "application/json".into())]
    }

    fn with(url: &str, headers: Vec<(&'static str, String)>, params: &Value) -> Http {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).to_string();
        Http { http: client(), url: url.to_owned(), headers, body }
    }

    fn post(&self, body: String) -> reqwest::RequestBuilder {
        let post = self.http.post(&self.url).body(body);
        self.headers.iter().fold(post, |post, (name, value)| post.header(*name, value))
    }

    async fn call(&self) -> String {
        let answer = self.post(self.body.clone()).send().await.expect("an answer");
        assert!(answer.status().is_success(), "{}", answer.status());
        answer.text().await.expect("a body")
    }
}

fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().tcp_nodelay(true).build().expect("a client")
}

/// `taskmesh mcp`, spoken to line by line.
struct Stdio {
    _process: Child,
    input: ChildStdin,
    output: tokio::io::Lines<BufReader<ChildStdout>>,
    line: String,
}

impl Stdio {
    fn start(node: &Process, like: &Http) -> Stdio {
        let mut command = Command::new(fleet::binary());
        command.arg("mcp").arg("--data-dir").arg(node.data_dir()).kill_on_drop(true);
        command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut process = command.spawn().expect("a bridge");
        let input = process.stdin.take().expect("piped");
        let output = BufReader::new(process.stdout.take().expect("piped")).lines();
        Stdio { _process: process, input, output, line: format!("{}\n", like.body) }
    }

    async fn call(&mut self) -> String {
        self.input.write_all(self.line.as_bytes()).await.expect("taken");
        self.output.next_line().await.expect("read").expect("an answer")
    }
}

/// A stranger's stream to the node, kept open.
async fn visit(node: &Process, token: &str) -> Remote {
    let file = std::fs::read_to_string(node.data_dir().join("door.json")).expect("the door says where it is");
    let told: Value = serde_json::from_str(&file).expect("JSON");
    let address = told["multiaddr"].as_str().expect("an address");
    let Call { stream, open, .. } = door::dial(address).await.expect("somebody is there");
    Remote::new(Box::new(stream), token, Box::new(open))
}

async fn over_libp2p(remote: &Remote) -> String {
    let answer = remote.request("tools/call", json!({"name": "task_status", "arguments": known()})).await;
    answer.expect("an answer").to_string()
}

/// A server that parses what comes and says `answer`, as JSON.
async fn echo(answer: Value) -> String {
    let say = move |axum::Json(asked): axum::Json<Value>| {
        let answer = answer.clone();
        async move {
            assert!(asked.is_object());
            axum::Json(answer)
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/", listener.local_addr().expect("an address"));
    // Threads of its own, as the node has them.
    std::thread::spawn(move || {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        runtime.block_on(async move {
            let listener = TcpListener::from_std(listener.into_std().expect("a socket")).expect("a listener");
            axum::serve(listener, Router::new().route("/", post(say))).await.expect("served");
        });
    });
    url
}

/// One way: its times in µs, and what this process spent on each call.
#[derive(Default)]
struct Column {
    times: Vec<f64>,
    cpu: f64,
}

impl Column {
    async fn turn(&mut self, call: impl AsyncFnMut() -> String) {
        self.turn_of(CALLS, call).await;
    }

    async fn turn_of(&mut self, calls: usize, mut call: impl AsyncFnMut() -> String) {
        for n in 0..calls + calls / 10 {
            let (start, cpu) = (Instant::now(), spent());
            let answer = call().await;
            // The first tenth of a turn warms it up.
            if n >= calls / 10 {
                self.times.push(start.elapsed().as_secs_f64() * 1e6);
                self.cpu += (spent() - cpu).as_secs_f64() * 1e6;
            }
            assert!(answer.contains("queued"), "{answer}");
        }
    }

    fn at(&mut self, part: f64) -> f64 {
        self.times.sort_unstable_by(f64::total_cmp);
        self.times[((self.times.len() - 1) as f64 * part) as usize]
    }
}

/// CPU that this process has used, all threads.
fn spent() -> Duration {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or_default())
}

async fn start(folder: &Path) -> Process {
    let plan = Plan::new(folder).set("log.level", "warn").set("worker.slots", "0");
    let mut node = Process::spawn(plan.set("api.p2p_listen", "/ip4/127.0.0.1/tcp/0"));
    node.up().await;
    node.ask("task_submit", json!({"task_id": "known", "task_type": "echo", "payload": {}})).await;
    node
}

const WAYS: [&str; 8] =
    ["direct", "crossing runtimes", "driver's channel", "bare axum", "HTTP, modern", "HTTP, legacy", "stdio", "libp2p"];
const DIRECT: usize = 0;
const CROSSING: usize = 1;

async fn latency(folder: &Path) {
    let node = start(&folder.join("node")).await;
    let (url, token) = node.endpoint();
    let inside = Inside::start(&folder.join("inside"), Config::default()).await;
    let spec = testing::spec();
    let submission = taskmesh_core::command::Submission {
        task: Some(taskmesh_core::TaskId::new("known").expect("an id")),
        spec,
        priority: taskmesh_core::task::Priority::NORMAL,
        items: Vec::new(),
    };
    let submit = taskmesh_core::Request::Command(taskmesh_core::Command::Submit(Box::new(submission)));
    inside.handle.ask(submit).await.expect("accepted");
    let (mut direct, crossing) = (Direct::new(), Crossing::new());
    let (modern, legacy) = (Http::modern(url, token), Http::legacy(url, token).await);
    let answer = serde_json::from_str(&modern.call().await).expect("JSON");
    let bare = Http::bare(&echo(answer).await, &modern);
    let mut stdio = Stdio::start(&node, &modern);
    let mut columns = WAYS.map(|_| Column::default());
    for _ in 0..ROUNDS {
        columns[DIRECT].turn(async || direct.call("task_status", known())).await;
        columns[CROSSING].turn(async || crossing.call().await).await;
        columns[2].turn(async || channel(&inside).await).await;
        columns[3].turn(async || bare.call().await).await;
        columns[4].turn(async || modern.call().await).await;
        columns[5].turn(async || legacy.call().await).await;
        columns[6].turn(async || stdio.call().await).await;
        // A new stranger each time: one is let through as often as its burst allows.
        let remote = visit(&node, token).await;
        columns[7].turn_of(CALLS / 2, async || over_libp2p(&remote).await).await;
    }
    let base = columns[DIRECT].at(0.5);
    println!("one task_status; µs; the CPU is this process's alone, a real node's own is not in it\n");
    println!("{:<22}{:>10}{:>10}{:>10}{:>12}", "way", "p50", "p99", "CPU", "× direct");
    for (name, column) in WAYS.iter().zip(&mut columns) {
        let (p50, p99, cpu) = (column.at(0.5), column.at(0.99), column.cpu / column.times.len() as f64);
        println!("{name:<22}{p50:>10.1}{p99:>10.1}{cpu:>10.1}{:>12.1}", p50 / base);
    }
    let crossed = columns[CROSSING].at(0.5);
    println!("\ndirect is {:.0} % lower than crossing (target: ≥ 70 %)", 100.0 * (1.0 - base / crossed));
}

/// Requests a second of [`CLIENTS`] clients, and the times of each request, µs.
async fn storm(clients: &[Arc<Http>]) -> (f64, Vec<f64>) {
    let start = Instant::now();
    let running = clients.iter().map(|http| {
        let http = http.clone();
        tokio::spawn(async move {
            let mut times = Vec::new();
            for _ in 0..EACH {
                let start = Instant::now();
                let answer = http.call().await;
                times.push(start.elapsed().as_secs_f64() * 1e6);
                assert!(answer.contains("queued"), "{answer}");
            }
            times
        })
    });
    let mut times: Vec<f64> = Vec::new();
    for client in futures::future::join_all(running).await {
        times.extend(client.expect("no error"));
    }
    (times.len() as f64 / start.elapsed().as_secs_f64(), times)
}

async fn throughput(folder: &Path) {
    let node = start(&folder.join("throughput")).await;
    let (url, token) = node.endpoint();
    let first = Http::modern(url, token);
    let answer = serde_json::from_str(&first.call().await).expect("JSON");
    let bare_url = echo(answer).await;
    let modern: Vec<_> = (0..CLIENTS).map(|_| Arc::new(Http::modern(url, token))).collect();
    let bare: Vec<_> = (0..CLIENTS).map(|_| Arc::new(Http::bare(&bare_url, &first))).collect();
    let (mut rates, mut times) = ([Vec::new(), Vec::new()], Vec::new());
    for _ in 0..TURNS {
        rates[0].push(storm(&bare).await.0);
        let (rate, turn) = storm(&modern).await;
        rates[1].push(rate);
        times.extend(turn);
    }
    let median = |rates: &mut Vec<f64>| {
        rates.sort_unstable_by(f64::total_cmp);
        rates[rates.len() / 2]
    };
    let (bare, modern) = (median(&mut rates[0]), median(&mut rates[1]));
    times.sort_unstable_by(f64::total_cmp);
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
    println!("\n{CLIENTS} clients, requests a second: bare axum {bare:.0}, HTTP modern {modern:.0}");
    println!("HTTP modern is {:.2} × bare axum (target: ≥ 0.6)", modern / bare);
    let (p50, p99) = (at(0.5), at(0.99));
    println!("p50 {p50:.0} µs, p99 {p99:.0} µs: {:.1} × (target: ≤ 10), no error", p99 / p50);
}
