//! `taskmesh mcp`: a bridge from stdin and stdout, which many MCP clients speak,
//! to the HTTP endpoint of the running node. It carries messages and the
//! headers that go with them, and knows no operation.
//!
//! Modern requests stand alone. A legacy client's session is kept here: when the
//! node forgot it (it restarted, or the client was idle for long), the
//! handshake is made again without the client seeing it.

mod sse;

use super::client::{Client, ClientError};
use futures::future::{AbortHandle, Abortable};
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use reqwest::{RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

/// The node's own limit on a message.
const LINE_BYTES: u64 = 12 * 1024 * 1024;
/// Requests under way for one client.
const IN_FLIGHT: usize = 64;
/// Lines that wait for a slow reader of stdout.
const OUTGOING: usize = 64;
/// After the end of stdin: what is under way may still be answered.
const LINGER: Duration = Duration::from_secs(50);
/// Subscriptions of a legacy session that are kept: as many as a node allows.
const WATCHED: usize = 100;
/// Before a legacy session's stream is opened again.
const LISTEN_AGAIN: Duration = Duration::from_secs(3);
/// The code for "the node can't be asked"; -32000 to -32019 are free for servers.
const NOT_ANSWERED: i64 = -32000;
/// The first revision without sessions.
const MODERN: &str = "2026-07-28";

/// Why the bridge ended early.
#[derive(Debug, thiserror::Error)]
pub enum BridgeError {
    /// stdin or stdout failed; nothing more can be said to the client.
    #[error("the client's pipe failed: {0}")]
    Pipe(#[from] std::io::Error),
    /// A message over the limit; what follows can't be told apart.
    #[error("a message of more than {LINE_BYTES} bytes")]
    TooLong,
}

/// Carries messages between the pipes and the node until `input` ends.
///
/// # Errors
/// A pipe fails, or a line is over the limit.
pub async fn bridge<R, W>(client: Client, mut input: R, output: W) -> Result<(), BridgeError>
where
    R: AsyncBufRead + Unpin,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let (lines, outgoing) = mpsc::channel(OUTGOING);
    let writer = tokio::spawn(write_lines(outgoing, output));
    let bridge = Arc::new(Bridge {
        client,
        lines,
        session: Mutex::default(),
        greeting: tokio::sync::Mutex::default(),
        running: Mutex::default(),
        room: Arc::new(Semaphore::new(IN_FLIGHT)),
    });
    let mut tasks = JoinSet::new();
    let ended = loop {
        let mut line = Vec::new();
        match (&mut input).take(LINE_BYTES).read_until(b'\n', &mut line).await {
            Err(error) => break Err(BridgeError::Pipe(error)),
            Ok(0) => break Ok(()),
            Ok(_) if line.len() as u64 == LINE_BYTES && line.last() != Some(&b'\n') => break Err(BridgeError::TooLong),
            Ok(_) => {}
        }
        if bridge.lines.is_closed() {
            break Ok(());
        }
        if !line.trim_ascii().is_empty() {
            bridge.clone().take_line(&line, &mut tasks).await;
        }
        while tasks.try_join_next().is_some() {}
    };
    bridge.end_subscriptions();
    let answered = async { while tasks.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(LINGER, answered).await;
    bridge.hang_up().await;
    drop(bridge);
    let written = writer.await.unwrap_or_else(|e| Err(std::io::Error::other(e)));
    ended.and(written.map_err(BridgeError::Pipe))
}

async fn write_lines<W: AsyncWrite + Unpin>(mut lines: mpsc::Receiver<String>, mut output: W) -> std::io::Result<()> {
    while let Some(mut line) = lines.recv().await {
        line.push('\n');
        output.write_all(line.as_bytes()).await?;
        output.flush().await?;
    }
    Ok(())
}

struct Bridge {
    client: Client,
    lines: mpsc::Sender<String>,
    session: Mutex<Session>,
    /// Held while a session is made again, so that it is done once.
    greeting: tokio::sync::Mutex<()>,
    /// Modern requests under way, by id: they are cancelled by hanging up.
    running: Mutex<HashMap<String, Running>>,
    room: Arc<Semaphore>,
}

/// A modern request under way.
struct Running {
    abort: AbortHandle,
    /// It is answered by being ended alone.
    endless: bool,
}

/// What a legacy client agreed with the node.
#[derive(Clone, Default)]
struct Session {
    id: Option<String>,
    version: Option<String>,
    /// The client's own `initialize`, to be repeated.
    hello: Option<Value>,
    listener: Option<AbortHandle>,
    /// What it subscribed to, to be repeated as well.
    watched: BTreeSet<String>,
}

impl Bridge {
    fn session(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running(&self) -> MutexGuard<'_, HashMap<String, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One message of the client. Requests run beside each other; what opens a
    /// session, and what needs no answer, keeps its place in the order.
    async fn take_line(self: Arc<Bridge>, line: &[u8], tasks: &mut JoinSet<()>) {
        let Ok(message) = serde_json::from_slice::<Value>(line) else {
            let error = json!({"code": -32700, "message": "this line is not JSON"});
            return self.say(&json!({"jsonrpc": "2.0", "id": null, "error": error})).await;
        };
        let method = message["method"].as_str().unwrap_or_default().to_owned();
        let is_request = !method.is_empty() && !message["id"].is_null();
        if method == "notifications/cancelled" && self.hang_up_on(&message["params"]["requestId"]) {
            return;
        }
        if !is_request || method == "initialize" {
            return self.carry(message).await;
        }
        let Ok(permit) = self.room.clone().acquire_owned().await else { return };
        let (key, modern) = (message["id"].to_string(), version_of(&message).is_some());
        let (abort, registration) = AbortHandle::new_pair();
        if modern {
            self.running().insert(key.clone(), Running { abort, endless: method == "subscriptions/listen" });
        }
        tasks.spawn(async move {
            let _ = Abortable::new(self.carry(message), registration).await;
            self.running().remove(&key);
            drop(permit);
        });
    }

    /// Ends a modern request by closing its connection, which is how such a
    /// request is cancelled over HTTP; `false` if there is none with this id.
    fn hang_up_on(&self, id: &Value) -> bool {
        let running = self.running().remove(&id.to_string());
        running.is_some_and(|request| {
            request.abort.abort();
            true
        })
    }

    /// A client that has ended its input reads no more news.
    fn end_subscriptions(&self) {
        self.running().values().filter(|request| request.endless).for_each(|request| request.abort.abort());
    }

    /// Posts a message and says whatever comes back.
    async fn carry(self: &Arc<Bridge>, message: Value) {
        let id = message["id"].clone();
        self.remember(&message);
        if let Err(problem) = self.exchange(&message).await {
            tracing::debug!(%problem, "not answered");
            self.fail(&id, &problem).await;
        }
    }

    /// What a session made anew must be told again.
    fn remember(&self, message: &Value) {
        let mut session = self.session();
        let uri = message["params"]["uri"].as_str().unwrap_or_default();
        match message["method"].as_str() {
            Some("initialize") => {
                session.hello = Some(message.clone());
                session.watched.clear();
            }
            Some("resources/subscribe") if session.watched.len() < WATCHED => {
                session.watched.insert(uri.to_owned());
            }
            Some("resources/unsubscribe") => {
                session.watched.remove(uri);
            }
            _ => {}
        }
    }

    async fn exchange(self: &Arc<Bridge>, message: &Value) -> Result<(), Problem> {
        let used = self.session().id.clone();
        let mut response = self.send(message).await?;
        let lost = response.status() == StatusCode::NOT_FOUND && used.is_some() && version_of(message).is_none();
        if lost {
            self.greet_again(used).await?;
            response = self.send(message).await?;
        }
        match response.status() {
            StatusCode::UNAUTHORIZED => {
                return Err(ClientError::Unauthenticated { url: self.client.url().to_owned() }.into());
            }
            StatusCode::ACCEPTED => return Ok(()),
            _ => {}
        }
        if message["method"] == "initialize" {
            self.begin_session(response.headers());
        }
        self.relay(response, message).await
    }

    async fn send(&self, message: &Value) -> Result<Response, Problem> {
        let request = self.with_headers(self.client.post(), message).body(message.to_string());
        request.send().await.map_err(|e| self.client.failed(&e).into())
    }

    fn with_headers(&self, mut request: RequestBuilder, message: &Value) -> RequestBuilder {
        if let Some(version) = version_of(message) {
            request = request.header("MCP-Protocol-Version", version);
            let params = &message["params"];
            let method = message["method"].as_str().unwrap_or_default();
            let name = match method {
                "resources/read" => params["uri"].as_str(),
                _ => params["name"].as_str().or_else(|| params["taskId"].as_str()),
            };
            request = request.header("Mcp-Method", method);
            return name.into_iter().fold(request, |request, name| request.header("Mcp-Name", header_text(name)));
        }
        if message["method"] == "initialize" {
            return request;
        }
        let session = self.session().clone();
        let request = session.version.into_iter().fold(request, |r, version| r.header("MCP-Protocol-Version", version));
        session.id.into_iter().fold(request, |r, id| r.header("Mcp-Session-Id", id))
    }

    /// Says every message of a response, in JSON or as a stream of events.
    async fn relay(self: &Arc<Bridge>, mut response: Response, message: &Value) -> Result<(), Problem> {
        let (status, id) = (response.status(), &message["id"]);
        if is_stream(response.headers()) {
            let mut events = sse::Events::default();
            while let Some(chunk) = response.chunk().await.map_err(|e| self.client.failed(&e))? {
                for data in events.push(&chunk).map_err(Problem::Answer)? {
                    self.heard(&data, message).await;
                }
            }
            return Ok(());
        }
        let text = response.bytes().await.map_err(|e| self.client.failed(&e))?;
        match serde_json::from_slice::<Value>(&text) {
            Ok(mut answer) if answer["jsonrpc"] == "2.0" => {
                // The node could not read the id of a message that it refused.
                if answer["id"].is_null() {
                    answer["id"] = id.clone();
                }
                self.heard(&answer.to_string(), message).await;
                Ok(())
            }
            Ok(envelope) if envelope["error"].is_string() => Err(Problem::Refused(envelope)),
            _ => {
                let text: String = String::from_utf8_lossy(&text).chars().take(200).collect();
                Err(Problem::Answer(format!("HTTP {status}: {text}")))
            }
        }
    }

    /// A message of the node; of its greeting, the version is kept.
    async fn heard(&self, data: &str, of: &Value) {
        if of["method"] == "initialize"
            && let Ok(answer) = serde_json::from_str::<Value>(data)
            && let Some(version) = answer["result"]["protocolVersion"].as_str()
        {
            self.session().version = Some(version.to_owned());
        }
        // A line ends a message: an event of several lines becomes one.
        let line = if data.contains('\n') { data.replace('\n', " ") } else { data.to_owned() };
        let _ = self.lines.send(line).await;
    }

    fn begin_session(self: &Arc<Bridge>, headers: &HeaderMap) {
        let Some(id) = headers.get("mcp-session-id").and_then(|id| id.to_str().ok()) else { return };
        let (abort, registration) = AbortHandle::new_pair();
        let mut session = self.session();
        session.id = Some(id.to_owned());
        let before = session.listener.replace(abort);
        drop(session);
        if let Some(before) = before {
            before.abort();
        }
        let bridge = Arc::downgrade(self);
        tokio::spawn(Abortable::new(listen(bridge, id.to_owned()), registration));
    }

    /// Makes the session anew that the node forgot, unless another request did.
    async fn greet_again(self: &Arc<Bridge>, lost: Option<String>) -> Result<(), Problem> {
        let _alone = self.greeting.lock().await;
        let session = self.session().clone();
        if session.id != lost {
            return Ok(());
        }
        let Some(mut hello) = session.hello else { return Err(Problem::Answer("the session is lost".into())) };
        hello["id"] = "taskmesh-again".into();
        let response = self.send(&hello).await?;
        if !response.status().is_success() {
            return Err(Problem::Answer(format!("HTTP {} to a new session", response.status())));
        }
        self.begin_session(response.headers());
        // Its content is what the client has heard before.
        response.bytes().await.map_err(|e| self.client.failed(&e))?;
        let ready = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        self.send(&ready).await?;
        for uri in session.watched {
            let subscribe = json!({"jsonrpc": "2.0", "id": "taskmesh-again", "method": "resources/subscribe",
                "params": {"uri": uri}});
            self.send(&subscribe).await?.bytes().await.map_err(|e| self.client.failed(&e))?;
        }
        Ok(())
    }

    async fn say(&self, message: &Value) {
        let _ = self.lines.send(message.to_string()).await;
    }

    /// Answers a request that the node did not; a notification has no answer.
    async fn fail(&self, id: &Value, problem: &Problem) {
        if id.is_null() {
            return;
        }
        let error = json!({"code": NOT_ANSWERED, "message": problem.to_string(), "data": problem.data()});
        self.say(&json!({"jsonrpc": "2.0", "id": id, "error": error})).await;
    }

    async fn hang_up(&self) {
        let session = std::mem::take(&mut *self.session());
        if let Some(listener) = session.listener {
            listener.abort();
        }
        if let Some(id) = session.id {
            let _ = self.client.delete().header("Mcp-Session-Id", id).timeout(LISTEN_AGAIN).send().await;
        }
    }
}

/// Hears what the node says to a legacy client without being asked.
async fn listen(bridge: std::sync::Weak<Bridge>, id: String) {
    let nothing = json!({});
    loop {
        let Some(now) = bridge.upgrade() else { return };
        let request = now.client.listen().header("Mcp-Session-Id", &id);
        drop(now);
        let response = request.send().await;
        match response {
            Ok(mut response) if response.status().is_success() => {
                let mut events = sse::Events::default();
                while let Ok(Some(chunk)) = response.chunk().await {
                    let (Some(now), Ok(data)) = (bridge.upgrade(), events.push(&chunk)) else { return };
                    for data in data {
                        now.heard(&data, &nothing).await;
                    }
                }
            }
            // Gone: the next request makes a new one; who waits for news makes none.
            Ok(response) if response.status().is_client_error() => {
                let Some(now) = bridge.upgrade() else { return };
                if !now.session().watched.is_empty() {
                    // Beside this task, which ends with the old session.
                    tokio::spawn(async move { now.greet_again(Some(id)).await });
                }
                return;
            }
            _ => {}
        }
        tokio::time::sleep(LISTEN_AGAIN).await;
    }
}

/// Why a message was not answered by the node.
#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("{0}")]
    Client(#[from] ClientError),
    /// Turned away before the protocol, with an envelope.
    #[error("{}", .0["error"].as_str().unwrap_or("refused without a reason"))]
    Refused(Value),
    #[error("the node's answer was not understood: {0}")]
    Answer(String),
}

impl Problem {
    fn data(&self) -> Value {
        match self {
            Problem::Client(error) => Value::Object(error.envelope()),
            Problem::Refused(envelope) => envelope.clone(),
            Problem::Answer(_) => json!({"code": "unavailable", "retryable": true}),
        }
    }
}

/// The version that a modern message carries; `None`: a legacy one.
fn version_of(message: &Value) -> Option<&str> {
    let version = message["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"].as_str()?;
    (version >= MODERN).then_some(version)
}

fn is_stream(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.starts_with("text/event-stream"))
}

/// A name as a header's value: what is no plain text goes in base64.
fn header_text(name: &str) -> String {
    use base64::Engine as _;
    let plain =
        name.bytes().all(|b| (0x20..0x7f).contains(&b)) && name.trim() == name && !name.starts_with("=?base64?");
    if plain { name.to_owned() } else { format!("=?base64?{}?=", base64::prelude::BASE64_STANDARD.encode(name)) }
}

#[cfg(test)]
mod tests;
