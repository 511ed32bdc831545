//! The other side of the dialect that task queues speak: a stream to another
//! program's queue, opened by `initialize`, with several calls under way.

use super::Duplex;
use super::frame;
use crate::api::budget::Budget;
use crate::ops::value::Object;
use serde_json::{Value, json};
use std::any::Any;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{ReadHalf, WriteHalf, split};
use tokio::sync::{Semaphore, oneshot};
use tokio_util::task::AbortOnDropHandle;

/// The revision that `initialize` names.
const VERSION: &str = "2025-11-25";
/// The tool behind which the queue is.
const TOOL: &str = "task_queue.rpc";
/// For the greeting.
const GREETING: Duration = Duration::from_secs(15);
/// For any other call; nothing that is asked for waits longer than 5 s, and an
/// end is confirmed within 30 s.
const CALL: Duration = Duration::from_secs(45);
/// Calls under way: fewer than any queue that is known refuses.
const IN_FLIGHT: usize = 8;
/// A stream that nobody spoke on for so long has been closed anyway.
const QUIET: Duration = Duration::from_secs(600);
/// Requests that a queue which names no limit takes on one stream.
const REQUESTS: u64 = 100_000;

/// Why a call has no answer. What it was to change may have changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum LineError {
    /// The stream is over, or what came was no answer: make another.
    #[error("{0}")]
    Broken(String),
    /// The queue turned the request away.
    #[error("the queue refuses: {0}")]
    Refused(String),
    /// It was not sent: the queue takes no frame of this size.
    #[error("{bytes} bytes, and the queue takes {limit} at once")]
    TooLarge {
        /// Of the frame.
        bytes: u64,
        /// As the queue says.
        limit: u64,
    },
}

impl LineError {
    /// Whether the same call fails on any stream.
    pub(super) fn is_final(&self) -> bool {
        matches!(self, LineError::TooLarge { .. })
    }
}

/// A greeted stream.
pub(super) struct Line {
    writer: tokio::sync::Mutex<WriteHalf<Box<dyn Duplex>>>,
    waiting: Arc<Waiting>,
    next: AtomicU64,
    limits: Limits,
    room: Semaphore,
    token: Option<String>,
    retired: AtomicBool,
    _reading: AbortOnDropHandle<()>,
    _connection: Box<dyn Any + Send + Sync>,
}

/// What the queue says that it bears.
struct Limits {
    frame_bytes: u64,
    requests: u64,
}

/// Calls without an answer yet; `None`: there will be none.
struct Waiting(Mutex<Option<HashMap<u64, oneshot::Sender<Object>>>>);

impl Waiting {
    fn table(&self) -> MutexGuard<'_, Option<HashMap<u64, oneshot::Sender<Object>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    /// Greets the queue at the other end of `stream`. `connection` is dropped
    /// with the line.
    pub(super) async fn open(
        stream: Box<dyn Duplex>,
        token: Option<String>,
        connection: Box<dyn Any + Send + Sync>,
    ) -> Result<Line, LineError> {
        let (mut reader, mut writer) = split(stream);
        let mut params = json!({
            "protocolVersion": VERSION,
            "capabilities": {},
            "clientInfo": {"name": "taskmesh", "version": env!("CARGO_PKG_VERSION")},
            "profiles": ["mcp++/p2p-transport"],
        });
        if let Some(token) = &token {
            params["token"] = token.as_str().into();
        }
        let hello = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params});
        frame::write(&mut writer, &hello).await.map_err(|e| LineError::Broken(format!("no greeting: {e}")))?;
        let greeted = frame::read(&mut reader, &Budget::new(frame::BUDGET_BYTES), GREETING).await;
        let greeted = greeted.map_err(|e| LineError::Broken(format!("the greeting was not answered: {e}")))?;
        let limits = Limits::of(&result_of(greeted.message)?);
        let waiting = Arc::new(Waiting(Mutex::new(Some(HashMap::new()))));
        let reading = AbortOnDropHandle::new(tokio::spawn(hear(reader, waiting.clone())));
        Ok(Line {
            writer: tokio::sync::Mutex::new(writer),
            waiting,
            next: AtomicU64::new(1),
            limits,
            room: Semaphore::new(IN_FLIGHT),
            token,
            retired: AtomicBool::new(false),
            _reading: reading,
            _connection: connection,
        })
    }

    /// Whether it carries no more calls: another is to take its place.
    pub(super) fn is_spent(&self) -> bool {
        let used_up = self.next.load(Ordering::Relaxed) >= self.limits.requests;
        used_up || self.retired.load(Ordering::Relaxed) || self.waiting.table().is_none()
    }

    /// Ends it, as after a failure: whoever still waits is told. Whether it is
    /// this call that did so.
    pub(super) fn retire(&self) -> bool {
        self.waiting.table().take();
        !self.retired.swap(true, Ordering::Relaxed)
    }

    /// One op of the queue: its whole answer, `ok` or not.
    pub(super) async fn op(&self, mut arguments: Value) -> Result<Object, LineError> {
        if let Some(token) = &self.token {
            arguments["token"] = token.as_str().into();
        }
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let params = json!({"name": TOOL, "arguments": arguments});
        let request = json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params});
        let bytes = request.to_string().len() as u64;
        if bytes > self.limits.frame_bytes {
            return Err(LineError::TooLarge { bytes, limit: self.limits.frame_bytes });
        }
        let _place = self.room.acquire().await.map_err(|e| LineError::Broken(e.to_string()))?;
        let answer = self.expect(id)?;
        let sent = frame::write(&mut *self.writer.lock().await, &request).await;
        sent.map_err(|e| LineError::Broken(format!("the request was not sent: {e}")))?;
        let reply = match tokio::time::timeout(CALL, answer).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(_)) => return Err(closed()),
            Err(_) => return Err(LineError::Broken(format!("no answer within {} s", CALL.as_secs()))),
        };
        // In this dialect the content is the answer itself, and no list of blocks.
        match result_of(reply)?.remove("content") {
            Some(Value::Object(answer)) => Ok(answer),
            _ => Err(LineError::Broken("an answer without content".to_owned())),
        }
    }

    fn expect(&self, id: u64) -> Result<oneshot::Receiver<Object>, LineError> {
        let (tell, answer) = oneshot::channel();
        self.waiting.table().as_mut().ok_or_else(closed)?.insert(id, tell);
        Ok(answer)
    }
}

impl Limits {
    fn of(greeting: &Object) -> Limits {
        let limit = |name| greeting.get("limits").and_then(|limits| limits.get(name)).and_then(Value::as_u64);
        let ours = frame::FRAME_BYTES as u64;
        Limits {
            frame_bytes: limit("max_frame_bytes").unwrap_or(ours).min(ours),
            // The greeting was one.
            requests: limit("max_frames").map_or(REQUESTS, |frames| frames.saturating_sub(1).max(1)),
        }
    }
}

/// Hands answers to those who wait, to the end of the stream.
async fn hear(mut reader: ReadHalf<Box<dyn Duplex>>, waiting: Arc<Waiting>) {
    while let Ok(frame) = frame::read(&mut reader, &Budget::new(frame::BUDGET_BYTES), QUIET).await {
        let asker = frame.message.get("id").and_then(Value::as_u64);
        let asker = asker.and_then(|id| waiting.table().as_mut()?.remove(&id));
        match asker {
            // Nobody waits any more: it was given up.
            Some(asker) => drop(asker.send(frame.message)),
            // What it says of no request in particular is why it closes.
            None => {
                let said = Value::Object(frame.message);
                tracing::debug!(%said, "the foreign queue says");
            }
        }
    }
    waiting.table().take();
}

fn closed() -> LineError {
    LineError::Broken("the queue closed the stream".to_owned())
}

fn result_of(mut reply: Object) -> Result<Object, LineError> {
    match (reply.remove("result"), reply.remove("error")) {
        (Some(Value::Object(result)), None) => Ok(result),
        (_, Some(error)) => {
            let text = |value: &Value| value.as_str().map(|text| text.chars().take(200).collect::<String>());
            let said: Vec<_> = [&error["message"], &error["data"]["detail"]].into_iter().filter_map(text).collect();
            Err(LineError::Refused(said.join(": ")))
        }
        _ => Err(LineError::Broken("an answer without a result".to_owned())),
    }
}
