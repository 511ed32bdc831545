//! A real endpoint on a loopback socket whose node is a script: for tests of
//! the facade alone.

use super::Feed;
use super::http::{Face, PATH, router, sessions};
use super::serve::{Door, until};
use crate::driver::{Event, Handle, Inbox};
use crate::ops::{self, Offer};
use reqwest::{RequestBuilder, Response};
use rmcp::transport::streamable_http_server::session::SessionManager as _;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use taskmesh_core::{BlobHash, NodeId, Refusal, Reply, Request};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub(super) const TOKEN: &str = "the-right-token";

/// What the scripted node's disk does when it is read.
pub(super) const PANIC: &str = "a planted panic";

/// What the node does with a request.
pub(super) enum Act {
    Answer(Result<Reply, Refusal>),
    /// Never answers.
    Keep,
}

/// The one blob that the scripted node has; another panics, but for zeros.
pub(super) const BLOB: &[u8] = b"some content that is large, let us say";

fn disk(hash: BlobHash, offset: u64, len: usize) -> Option<Vec<u8>> {
    if hash == BlobHash([0; 32]) {
        return None;
    }
    assert_eq!(hash, BlobHash::of(BLOB), "{PANIC}");
    Some(BLOB.iter().skip(usize::try_from(offset).expect("small")).take(len).copied().collect())
}

type Script = dyn Fn(&Request) -> Act + Send + Sync;

/// An endpoint, what its node was asked, and what its meter was told.
pub(super) struct Endpoint {
    pub(super) url: String,
    pub(super) http: reqwest::Client,
    pub(super) asked: Arc<Mutex<Vec<Request>>>,
    pub(super) abandoned: Arc<Mutex<usize>>,
    pub(super) metered: Arc<Mutex<Vec<(String, String)>>>,
    pub(super) feed: Feed,
    pub(super) shutdown: CancellationToken,
    sessions: Arc<LocalSessionManager>,
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
    pub(super) async fn start(script: impl Fn(&Request) -> Act + Send + Sync + 'static) -> Endpoint {
        Endpoint::offering(Offer::default(), script).await
    }

    /// One that offers some of the operations.
    pub(super) async fn offering(offer: Offer, script: impl Fn(&Request) -> Act + Send + Sync + 'static) -> Endpoint {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        Endpoint::of(Door::Tcp(listener), &format!("http://{address}{PATH}"), offer, script)
    }

    /// Behind another door; the listener is on 127.0.0.1.
    pub(super) fn behind(door: Door, url: &str, script: impl Fn(&Request) -> Act + Send + Sync + 'static) -> Endpoint {
        Endpoint::of(door, url, Offer::default(), script)
    }

    fn of(door: Door, url: &str, offer: Offer, script: impl Fn(&Request) -> Act + Send + Sync + 'static) -> Endpoint {
        let inbox = Arc::new(Inbox::default());
        let handle = Handle::new(NodeId::test(1), inbox.clone(), Arc::new(disk));
        let metered = Arc::new(Mutex::new(Vec::new()));
        let told = metered.clone();
        let meter = move |operation: &str, code: &str, _: Duration| {
            told.lock().expect("no panic").push((operation.to_owned(), code.to_owned()));
        };
        let shutdown = CancellationToken::new();
        let feed = Feed::default();
        let (token, hosts) = (TOKEN.to_owned(), Vec::new());
        let face = Face { handle, token, meter: Arc::new(meter), hosts, feed: feed.clone(), offer };
        let sessions = Arc::new(sessions());
        let router = router(face, SocketAddr::from(([127, 0, 0, 1], 0)), sessions.clone(), &shutdown);
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
            stop: Arc::default(),
        };
        endpoint.obey(inbox, Box::new(script));
        endpoint
    }

    /// The script's thread, in the place of the driver's.
    fn obey(&self, inbox: Arc<Inbox>, script: Box<Script>) {
        let (asked, abandoned, stop) = (self.asked.clone(), self.abandoned.clone(), self.stop.clone());
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

    pub(super) fn post(&self) -> RequestBuilder {
        self.http
            .post(&self.url)
            .header("Authorization", format!("Bearer {TOKEN}"))
            .header("Accept", "application/json, text/event-stream")
            .header("Content-Type", "application/json")
    }

    /// One request of a modern client.
    pub(super) fn modern(&self, method: &str, params: Value, capabilities: Value) -> RequestBuilder {
        let mut params = params;
        let meta = &mut params["_meta"];
        meta["io.modelcontextprotocol/protocolVersion"] = "2026-07-28".into();
        meta["io.modelcontextprotocol/clientCapabilities"] = capabilities;
        meta["io.modelcontextprotocol/clientInfo"] = json!({"name": "test", "version": "1"});
        let mut request = self.post().header("MCP-Protocol-Version", "2026-07-28").header("Mcp-Method", method);
        if let Some(name) = params["name"].as_str().or(params["uri"].as_str()).or(params["taskId"].as_str()) {
            request = request.header("Mcp-Name", name);
        }
        request.body(json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params}).to_string())
    }

    /// One call of a modern client: the whole reply.
    pub(super) async fn call(&self, name: &str, arguments: Value) -> Value {
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
    pub(super) async fn sessions(&self) -> Vec<String> {
        self.sessions.sessions.read().await.keys().map(ToString::to_string).collect()
    }

    /// Forgets a legacy session, as a restarted node does.
    pub(super) async fn end_session(&self, id: &str) {
        self.sessions.close_session(&id.to_owned().into()).await.expect("ended");
    }

    /// Waits until `done`, for at most ten seconds.
    pub(super) async fn until(&self, what: &str, done: impl Fn(&Endpoint) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !done(self) {
            assert!(Instant::now() < deadline, "{what} did not happen");
            tokio::task::yield_now().await;
        }
    }
}

/// The JSON of a response, which may come as the events of a stream.
pub(super) async fn body(response: Response) -> Value {
    let text = response.text().await.expect("a body");
    if let Ok(value) = serde_json::from_str(&text) {
        return value;
    }
    let mut data = text.lines().filter_map(|line| line.strip_prefix("data:")).map(str::trim).filter(|d| !d.is_empty());
    serde_json::from_str(data.next_back().unwrap_or(&text)).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// A paused queue: an answer that is easy to make.
pub(super) fn paused() -> Act {
    Act::Answer(Ok(Reply::Paused { at: taskmesh_core::Unix(0), queued: 1, running: 2 }))
}

/// The session of a legacy client, and how it was greeted.
pub(super) async fn greet(endpoint: &Endpoint) -> (String, Value) {
    let hello = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
        "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "old", "version": "1"}}});
    let response = endpoint.post().body(hello.to_string()).send().await.expect("a response");
    let session = response.headers()["mcp-session-id"].to_str().expect("text").to_owned();
    let greeting = body(response).await;
    let ready = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    endpoint.post().header("Mcp-Session-Id", &session).body(ready.to_string()).send().await.expect("a response");
    (session, greeting)
}
