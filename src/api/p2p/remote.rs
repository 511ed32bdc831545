//! The other side: calls of a node over one stream, in the sessionless dialect.

use super::Duplex;
use super::authority::TOKEN_KEY;
use super::frame::{self, FrameError};
use crate::api::budget::Budget;
use crate::api::client::{ClientError, PROTOCOL, answer_of};
use serde_json::{Value, json};
use std::any::Any;
use std::time::Duration;
use tokio::sync::Mutex;

/// A call ends within 45 s; the network gets the rest.
const CALL: Duration = Duration::from_secs(60);

/// Why a call has no result. A change may have happened.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// The stream broke, or what came was no answer.
    #[error("{0}")]
    Broken(String),
    /// The node refuses the token.
    #[error("the token is refused")]
    Unauthorized,
    /// The node answered with a fault of the protocol.
    #[error("{message} ({code}){}", .detail.as_deref().map(|d| format!(": {d}")).unwrap_or_default())]
    Fault {
        /// Of JSON-RPC.
        code: i64,
        /// A word.
        message: String,
        /// A sentence.
        detail: Option<String>,
    },
}

/// A node that is called over a stream, one call after the other.
pub struct Remote {
    line: Mutex<Line>,
    token: String,
    _connection: Box<dyn Any + Send + Sync>,
}

struct Line {
    stream: Box<dyn Duplex>,
    next: u64,
}

impl Remote {
    /// Calls over `stream`, with this token; `connection` is dropped with it.
    #[must_use]
    pub fn new(stream: Box<dyn Duplex>, token: &str, connection: Box<dyn Any + Send + Sync>) -> Remote {
        Remote { line: Mutex::new(Line { stream, next: 1 }), token: token.to_owned(), _connection: connection }
    }

    /// Calls an operation: its answer, with `success: true`.
    ///
    /// # Errors
    /// See [`ClientError`]; `at` is where the node is, for its texts.
    pub async fn call(&self, name: &str, arguments: Value, at: &str) -> Result<Value, ClientError> {
        let url = at.to_owned();
        match self.request("tools/call", json!({"name": name, "arguments": arguments})).await {
            Ok(result) => answer_of(result).map_err(|problem| match problem {
                Some(envelope) => ClientError::Refused(envelope),
                None => ClientError::Broken { url, problem: "an answer without content".to_owned() },
            }),
            Err(RemoteError::Unauthorized) => Err(ClientError::Unauthenticated { url }),
            Err(error) => Err(ClientError::Broken { url, problem: error.to_string() }),
        }
    }

    /// Sends one request and waits for its result.
    ///
    /// # Errors
    /// See [`RemoteError`].
    pub async fn request(&self, method: &str, mut params: Value) -> Result<Value, RemoteError> {
        params["_meta"] = json!({
            "io.modelcontextprotocol/protocolVersion": PROTOCOL,
            "io.modelcontextprotocol/clientCapabilities": {},
            "io.modelcontextprotocol/clientInfo": {"name": "taskmesh", "version": env!("CARGO_PKG_VERSION")},
            TOKEN_KEY: self.token,
        });
        let mut line = self.line.lock().await;
        let id = line.next;
        line.next += 1;
        let request = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        let sent = frame::write(&mut line.stream, &request).await;
        sent.map_err(|e| RemoteError::Broken(format!("the request was not sent: {e}")))?;
        loop {
            let read = frame::read(&mut line.stream, &Budget::new(frame::BUDGET_BYTES), CALL).await;
            let mut reply = read.map_err(|e| RemoteError::Broken(lost(&e)))?.message;
            // An answer to a call that was given up before.
            if reply.get("id").is_some_and(|got| !got.is_null() && *got != json!(id)) {
                continue;
            }
            return match (reply.remove("result"), reply.remove("error")) {
                (Some(result), None) => Ok(result),
                (_, Some(error)) => Err(fault(&error)),
                (None, None) => Err(RemoteError::Broken("an answer without a result".to_owned())),
            };
        }
    }
}

fn lost(error: &FrameError) -> String {
    match error {
        FrameError::Closed | FrameError::Truncated => "the node closed the stream before it answered".to_owned(),
        FrameError::Idle | FrameError::Slow => "no answer in time".to_owned(),
        other => format!("an answer that is none: {other}"),
    }
}

fn fault(error: &Value) -> RemoteError {
    let code = error["code"].as_i64().unwrap_or_default();
    if code == -32001 {
        return RemoteError::Unauthorized;
    }
    let message = error["message"].as_str().unwrap_or("refused without a reason").to_owned();
    RemoteError::Fault { code, message, detail: error["data"]["detail"].as_str().map(str::to_owned) }
}
