//! A real endpoint on a loopback socket whose node is a script: for tests of
//! the facade alone.

use super::Feed;
use super::audit::Audit;
use super::auth::Gate;
use super::http::{Face, PATH, router, sessions};
use super::serve::{Door, until};
use crate::driver::{BlobReads, Event, Handle, Inbox};
use crate::ops::{self, Offer};
use reqwest::{RequestBuilder, Response};
use rmcp::transport::streamable_http_server::session::SessionManager as _;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use taskmesh_core::token::RootKey;
use taskmesh_core::{BlobHash, NodeId, Refusal, Reply, Request};
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;

pub(in crate::api) const TOKEN: &str = "the-right-token";

/// What the scripted node's disk does when it is read.
pub(in crate::api) const PANIC: &str = "a planted panic";

/// What the node does with a request.
pub(in crate::api) enum Act {
    Answer(Result<Reply, Refusal>),
    /// Never answers.
    Keep,
}

/// The one blob that the scripted node has; another panics, but for zeros.
pub(in crate::api) const BLOB: &[u8] = b"some content that is large, let us say";

fn disk(hash: BlobHash, offset: u64, len: usize) -> Option<Vec<u8>> {
    if hash == BlobHash([0; 32]) {
        return None;
    }
    assert_eq!(hash, BlobHash::of(BLOB), "{PANIC}");
    Some(BLOB.iter().skip(usize::try_from(offset).expect("small")).take(len).copied().collect())
}

/// What tokens of the scripted node's mesh are made with.
pub(in crate::api) fn root() -> RootKey {
    RootKey::of_mesh(&[7; 32])
}

fn reads(disk: impl Fn(BlobHash, u64, usize) -> Option<Vec<u8>> + Send + Sync + 'static) -> BlobReads {
    BlobReads { here: Arc::new(disk), there: Arc::new(|_, _, _| Box::pin(std::future::ready(None))) }
}

/// A gate before a node that does nothing yet.
pub(in crate::api) fn gate() -> (Gate, Arc<Inbox>) {
    let inbox = Arc::new(Inbox::default());
    let handle = Handle::new(NodeId::test(1), inbox.clone(), reads(disk), None);
    (gate_before(handle), inbox)
}

/// A gate before a node.
pub(in crate::api) fn gate_before(handle: Handle) -> Gate {
    Gate::new(handle, root(), TOKEN, None).expect("random numbers")
}

type Script = dyn Fn(&Request) -> Act + Send + Sync;

/// An endpoint, what its node was asked, and what its meter was told.
pub(in crate::api) struct Endpoint {
    pub(in crate::api) url: String,
    pub(in crate::api) http: reqwest::Client,
    pub(in crate::api) asked: Arc<Mutex<Vec<Request>>>,
    pub(in crate::api) abandoned: Arc<Mutex<usize>>,
    pub(in crate::api) metered: Arc<Mutex<Vec<(String, String)>>>,
    pub(in crate::api) feed: Feed,
    pub(in crate::api) shutdown: CancellationToken,
    sessions: Arc<LocalSessionManager>,
    pub(in crate::api) gate: Gate,
    pub(in crate::api) folder: tempfile::TempDir,
    stop: Arc<AtomicBool>,
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.shutdown.cancel();
    }
}

impl Endpoint {
    /// In the clear, on loopback.
    pub(in crate::api) async fn start(script: impl Fn(&Request) -> Act + Send + Sync + 'static) -> Endpoint {
        Endpoint::offering(Offer::default(), script).await
    }

    /// An endpoint that offers some of the operations.
    pub(in crate::api) async fn offering(
        offer: Offer,
        script: impl Fn(&Request) -> Act + Send + Sync + 'static,
    ) -> Endpoint {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        Endpoint::through(Door::Tcp(listener), &format!("http://{address}{PATH}"), offer, script)
    }

    /// Behind another door; the listener is on 127.0.0.1.
    pub(in crate::api) fn behind(
        door: Door,
        url: &str,
        script: impl Fn(&Request) -> Act + Send + Sync + 'static,
    ) -> Endpoint {
        Endpoint::through(door, url, Offer::default(), script)
    }

    fn through(
        door: Door,
        url: &str,
        offer: Offer,
        script: impl Fn(&Request) -> Act + Send + Sync + 'static,
    ) -> Endpoint {
        let (gate, inbox) = gate();
        let folder = tempfile::tempdir().expect("a folder");
        let audit = Audit::open(folder.path()).expect("an audit log");
        let metered = Arc::new(Mutex::new(Vec::new()));
        let told = metered.clone();
        let meter = move |operation: &str, code: &str, _: Duration| {
            told.lock().expect("no panic").push((operation.to_owned(), code.to_owned()));
        };
        let shutdown = CancellationToken::new();
        let feed = Feed::default();
        let meter = Arc::new(meter);
        let kept = gate.clone();
        let (hosts, templates) = (Vec::new(), Default::default());
        let face = Face { gate, audit, meter, hosts, feed: feed.clone(), offer, templates, dashboard: true };
        let sessions = Arc::new(sessions::manager());
        let router = router(face, SocketAddr::from(([127, 0, 0, 1], 0)), sessions.clone(), &shutdown);
        let local = UnixListener::bind(folder.path().join("api.sock")).expect("a socket");
        tokio::spawn(until(Door::Unix(local), router.clone(), shutdown.clone()));
        tokio::spawn(until(door, router, shutdown.clone()));
        let endpoint = Endpoint {
            url: url.to_owned(),
            http: reqwest::Client::builder().no_proxy().build().expect("a client"),
            asked: Arc::default(),
            abandoned: Arc::default(),
            metered,
            feed,
            sessions,
            shutdown,
            gate: kept,
            folder,
            stop: Arc::default(),
        };
        let (asked, abandoned) = (endpoint.asked.clone(), endpoint.abandoned.clone());
        obey(inbox, Box::new(script), asked, abandoned, endpoint.stop.clone());
        endpoint
    }

    pub(in crate::api) fn post(&self) -> RequestBuilder {
        self.post_as(TOKEN)
    }

    pub(in crate::api) fn post_as(&self, token: &str) -> RequestBuilder {
        self.http
            .post(&self.url)
            .header("Authorization", format!("Bearer {token}"))
            .header("Accept", "application/json, text/event-stream")
            .header("Content-Type", "application/json")
    }

    /// One request of a modern client.
    pub(in crate::api) fn modern(&self, method: &str, params: Value, capabilities: Value) -> RequestBuilder {
        self.modern_as(TOKEN, method, params, capabilities)
    }

    /// The same, by whoever has `token`.
    pub(in crate::api) fn modern_as(
        &self,
        token: &str,
        method: &str,
        params: Value,
        capabilities: Value,
    ) -> RequestBuilder {
        let mut params = params;
        let meta = &mut params["_meta"];
        meta["io.modelcontextprotocol/protocolVersion"] = "2026-07-28".into();
        meta["io.modelcontextprotocol/clientCapabilities"] = capabilities;
        meta["io.modelcontextprotocol/clientInfo"] = json!({"name": "test", "version": "1"});
        let mut request = self.post_as(token).header("MCP-Protocol-Version", "2026-07-28").header("Mcp-Method", method);
        if let Some(name) = params["name"].as_str().or(params["uri"].as_str()).or(params["taskId"].as_str()) {
            request = request.header("Mcp-Name", name);
        }
        request.body(json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params}).to_string())
    }

    /// One call of a modern client: the whole reply.
    pub(in crate::api) async fn call(&self, name: &str, arguments: Value) -> Value {
        let params = json!({"name": name, "arguments": arguments});
        let response = self.modern("tools/call", params, json!({})).send().await.expect("a response");
        let reply = body(response).await;
        // What a tool answers, well or not, is what its schema says.
        if let Some(operation) = ops::operation(name).filter(|_| reply["error"].is_null()) {
            let checked = ops::schema::check(&operation.output, &reply["result"]["structuredContent"]);
            assert_eq!(checked, Ok(()), "{name}: {reply}");
        }
        reply
    }

    /// The legacy sessions that there are.
    pub(in crate::api) async fn sessions(&self) -> Vec<String> {
        self.sessions.sessions.read().await.keys().map(ToString::to_string).collect()
    }

    /// Forgets a legacy session, as a restarted node does.
    pub(in crate::api) async fn end_session(&self, id: &str) {
        self.sessions.close_session(&id.to_owned().into()).await.expect("ended");
    }

    /// Waits until `done`, for at most ten seconds.
    pub(in crate::api) async fn until(&self, what: &str, done: impl Fn(&Endpoint) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !done(self) {
            assert!(Instant::now() < deadline, "{what} did not happen");
            tokio::task::yield_now().await;
        }
    }
}

/// A node that is a script, alone; it ends with the guard.
pub(in crate::api) fn scripted(script: impl Fn(&Request) -> Act + Send + Sync + 'static) -> (Handle, ScriptGuard) {
    let inbox = Arc::new(Inbox::default());
    let handle = Handle::new(NodeId::test(1), inbox.clone(), reads(|_, _, _| None), None);
    let stop = Arc::new(AtomicBool::new(false));
    obey(inbox, Box::new(script), Arc::default(), Arc::default(), stop.clone());
    (handle, ScriptGuard(stop))
}

/// Its drop ends the script.
pub(in crate::api) struct ScriptGuard(Arc<AtomicBool>);

impl Drop for ScriptGuard {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The script's thread, in the place of the driver's.
fn obey(
    inbox: Arc<Inbox>,
    script: Box<Script>,
    asked: Arc<Mutex<Vec<Request>>>,
    abandoned: Arc<Mutex<usize>>,
    stop: Arc<AtomicBool>,
) {
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        let mut batch = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            inbox.take(&mut batch, 64, Instant::now() + Duration::from_millis(20));
            for event in batch.drain(..) {
                match event {
                    Event::Ask { request, answer, .. } => {
                        let act = script(&request);
                        asked.lock().expect("no panic").push(request);
                        match act {
                            Act::Answer(reply) => drop(answer.send(reply)),
                            Act::Keep => kept.push(answer),
                        }
                    }
                    Event::Abandoned(_) => *abandoned.lock().expect("no panic") += 1,
                    _ => {}
                }
            }
        }
    });
}

/// The JSON of a response, which may come as the events of a stream.
pub(in crate::api) async fn body(response: Response) -> Value {
    let text = response.text().await.expect("a body");
    if let Ok(value) = serde_json::from_str(&text) {
        return value;
    }
    let mut data = text.lines().filter_map(|line| line.strip_prefix("data:")).map(str::trim).filter(|d| !d.is_empty());
    serde_json::from_str(data.next_back().unwrap_or(&text)).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// A paused queue: an answer that is easy to make.
pub(in crate::api) fn paused() -> Act {
    Act::Answer(Ok(Reply::Paused { at: taskmesh_core::Unix(0), queued: 1, running: 2 }))
}

/// The session of a legacy client, and how it was greeted.
pub(in crate::api) async fn greet(endpoint: &Endpoint) -> (String, Value) {
    let hello = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
        "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "old", "version": "1"}}});
    let response = endpoint.post().body(hello.to_string()).send().await.expect("a response");
    let session = response.headers()["mcp-session-id"].to_str().expect("text").to_owned();
    let greeting = body(response).await;
    let ready = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    endpoint.post().header("Mcp-Session-Id", &session).body(ready.to_string()).send().await.expect("a response");
    (session, greeting)
}
