//! A small MCP client for the command line: one POST a call, in the stateless
//! form of 2026-07-28, so that there is no handshake to pay for.

mod news;

pub use news::News;

use super::http::PATH;
use super::mcp::{READ_ONLY, TOOLSETS, uri};
use super::tls::{self, Fingerprint};
use crate::ops::Code;
use crate::ops::value::Object;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{RequestBuilder, StatusCode};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;

/// The revision of MCP that calls are made in.
pub const PROTOCOL: &str = "2026-07-28";
/// A call ends within 45 s; the network gets the rest.
const CALL: Duration = Duration::from_secs(60);
/// A node on this machine answers at once, or not at all.
const CONNECT: Duration = Duration::from_secs(5);

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there. Nothing was changed; start the node.
    #[error("no node answers at {url}; start one with `taskmesh up`")]
    NotRunning {
        /// Where.
        url: String,
    },
    /// The token is not the node's. Nothing was changed.
    #[error("the node at {url} refuses the token; is it that of this data folder?")]
    Unauthenticated {
        /// Where.
        url: String,
    },
    /// The operation was refused; its envelope says whether to repeat it.
    #[error("{}", .0.get("error").and_then(Value::as_str).unwrap_or("refused without a reason"))]
    Refused(Box<Object>),
    /// The connection broke, or the answer is no MCP. A change may have
    /// happened: repeat it with the same id.
    #[error("the answer of {url} was lost or not understood: {problem}")]
    Broken {
        /// Where.
        url: String,
        /// How.
        problem: String,
    },
}

impl ClientError {
    /// The code of a refusal, or the one that says the same.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            ClientError::NotRunning { .. } | ClientError::Broken { .. } => Code::Unavailable,
            ClientError::Unauthenticated { .. } => Code::Unauthenticated,
            ClientError::Refused(envelope) => {
                envelope.get("code").and_then(Value::as_str).and_then(Code::from_name).unwrap_or(Code::Internal)
            }
        }
    }

    /// The envelope of a failure, for programs: the node's own, or one made here.
    #[must_use]
    pub fn envelope(&self) -> Object {
        match self {
            ClientError::Refused(envelope) => (**envelope).clone(),
            other => crate::ops::Failure::new(other.code(), other.to_string()).envelope(),
        }
    }
}

/// How an endpoint is reached.
#[derive(Clone, Debug)]
pub enum Way {
    /// As its URL says; over TLS, with a certificate that this machine trusts.
    Url,
    /// By a socket of this machine; the URL is only for messages.
    Socket(PathBuf),
    /// Over TLS, with this certificate and no other.
    Pinned(Fingerprint),
}

/// A node is never reached through the proxy of a web browser.
fn direct() -> reqwest::ClientBuilder {
    reqwest::Client::builder().no_proxy()
}

/// For what is not encrypted. It wants no certificates of authorities: a bare
/// machine, or an image, may have none.
pub(crate) fn plain() -> reqwest::ClientBuilder {
    direct().tls_certs_only([])
}

/// Talks to one node.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    /// What is asked.
    target: String,
    /// What people are told.
    url: String,
    token: String,
    /// What it asks to see of the operations; all of them if empty.
    narrowed: HeaderMap,
}

impl Client {
    /// A client for the MCP endpoint at `url`. Nothing is sent yet.
    ///
    /// # Errors
    /// The system has no room for a client.
    pub fn new(url: &str, token: &str) -> Result<Client, ClientError> {
        Client::by(Way::Url, url, token)
    }

    /// A client that reaches the endpoint by `way`. Nothing is sent yet.
    ///
    /// # Errors
    /// The system has no room for a client.
    pub fn by(way: Way, url: &str, token: &str) -> Result<Client, ClientError> {
        let (builder, target) = match way {
            Way::Url if url.starts_with("https:") => (direct(), url.to_owned()),
            Way::Url => (plain(), url.to_owned()),
            Way::Socket(path) => (plain().unix_socket(path), format!("http://localhost{PATH}")),
            Way::Pinned(fingerprint) => (direct().tls_backend_preconfigured(tls::pinned(fingerprint)), url.to_owned()),
        };
        let http = builder
            .connect_timeout(CONNECT)
            .build()
            .map_err(|e| ClientError::Broken { url: url.to_owned(), problem: cause(&e) })?;
        Ok(Client { http, target, url: url.to_owned(), token: token.to_owned(), narrowed: HeaderMap::new() })
    }

    /// The same client, that sees these toolsets alone (none named: all of
    /// them), and of those only what changes nothing if `read_only`.
    #[must_use]
    pub fn narrowed(&self, toolsets: &[String], read_only: bool) -> Client {
        let mut client = self.clone();
        if let Ok(names) = HeaderValue::try_from(toolsets.join(","))
            && !toolsets.is_empty()
        {
            client.narrowed.insert(TOOLSETS, names);
        }
        if read_only {
            client.narrowed.insert(READ_ONLY, HeaderValue::from_static("true"));
        }
        client
    }

    /// Where it talks to.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A POST with the headers that every message needs.
    pub(super) fn post(&self) -> RequestBuilder {
        self.authorized(self.http.post(&self.target))
            .header(ACCEPT, "application/json, text/event-stream")
            .header(CONTENT_TYPE, "application/json")
    }

    /// A GET of a legacy session's stream.
    pub(super) fn listen(&self) -> RequestBuilder {
        self.authorized(self.http.get(&self.target)).header(ACCEPT, "text/event-stream")
    }

    /// The end of a legacy session.
    pub(super) fn delete(&self) -> RequestBuilder {
        self.authorized(self.http.delete(&self.target))
    }

    fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        request.headers(self.narrowed.clone()).header(AUTHORIZATION, format!("Bearer {}", self.token))
    }

    /// What a failed exchange means.
    pub(super) fn failed(&self, error: &reqwest::Error) -> ClientError {
        let url = self.url.clone();
        if let Some(untrusted) = of_the_certificate(error) {
            let hint = "give the fingerprint that its `taskmesh up` printed with --fingerprint";
            return ClientError::Broken { url, problem: format!("{untrusted}; {hint}") };
        }
        if error.is_connect() {
            return ClientError::NotRunning { url };
        }
        ClientError::Broken { url, problem: cause(error) }
    }

    /// Calls an operation: its answer, with `success: true`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn call(&self, name: &str, arguments: Value) -> Result<Value, ClientError> {
        let (status, answer) = self.ask("tools/call", name, json!({"name": name, "arguments": arguments})).await?;
        self.understood(status, answer)
    }

    /// Answers what a task asks, by the Tasks extension's `tasks/update`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn update_task(&self, task: &str, responses: Value) -> Result<(), ClientError> {
        let params = json!({"taskId": task, "inputResponses": responses});
        let (status, answer) = self.ask("tasks/update", task, params).await?;
        if answer["result"].is_object() {
            return Ok(());
        }
        match answer["error"]["data"].clone() {
            Value::Object(envelope) if envelope.contains_key("code") => Err(ClientError::Refused(Box::new(envelope))),
            _ => self.understood(status, answer).map(drop),
        }
    }

    /// Reads the resource `uri`, whose content is JSON.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn read(&self, uri: &str) -> Result<Value, ClientError> {
        let (status, answer) = self.ask("resources/read", uri, json!({"uri": uri})).await?;
        if let Some(text) = answer["result"]["contents"][0]["text"].as_str() {
            return serde_json::from_str(text).map_err(|e| self.broken(format!("{uri} is no JSON: {e}")));
        }
        match answer["error"]["data"].clone() {
            Value::Object(envelope) if envelope.contains_key("code") => Err(ClientError::Refused(Box::new(envelope))),
            _ => self.understood(status, answer),
        }
    }

    /// The name of a task, for [`Client::read`] and [`Client::news`].
    #[must_use]
    pub fn task_uri(id: &str) -> String {
        uri::task(id)
    }

    /// The name of what was submitted as a task, a workflow or a schedule.
    #[must_use]
    pub fn submission_uri(id: &str) -> String {
        uri::submission(id)
    }

    /// Hears of changes of these resources from now on.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn news(&self, uris: &[&str]) -> Result<News, ClientError> {
        let params = json!({"notifications": {"resourceSubscriptions": uris}});
        let request = self.request("subscriptions/listen", "", params);
        let response = request.send().await.map_err(|e| self.failed(&e))?;
        match response.status() {
            StatusCode::OK => Ok(News::new(self.clone(), response)),
            StatusCode::UNAUTHORIZED => Err(ClientError::Unauthenticated { url: self.url.clone() }),
            status => Err(self.broken(format!("HTTP {status}"))),
        }
    }

    fn request(&self, method: &str, name: &str, mut params: Value) -> RequestBuilder {
        params["_meta"] = json!({
            "io.modelcontextprotocol/protocolVersion": PROTOCOL,
            "io.modelcontextprotocol/clientCapabilities": {"extensions": {"io.modelcontextprotocol/tasks": {}}},
            "io.modelcontextprotocol/clientInfo": {"name": "taskmesh", "version": env!("CARGO_PKG_VERSION")},
        });
        if method == "tools/call" {
            params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = json!({});
        }
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let request = self.post().header("MCP-Protocol-Version", PROTOCOL).header("Mcp-Method", method);
        let request = if name.is_empty() { request } else { request.header("Mcp-Name", name) };
        request.body(body.to_string())
    }

    /// One request of MCP, about the thing `name`, and its answer.
    async fn ask(&self, method: &str, name: &str, params: Value) -> Result<(StatusCode, Value), ClientError> {
        let request = self.request(method, name, params).timeout(CALL);
        let response = request.send().await.map_err(|e| self.failed(&e))?;
        let status = response.status();
        if status == StatusCode::UNAUTHORIZED {
            return Err(ClientError::Unauthenticated { url: self.url.clone() });
        }
        let text = response.bytes().await.map_err(|e| self.failed(&e))?;
        let Ok(answer) = serde_json::from_slice::<Value>(&text) else {
            let start: String = String::from_utf8_lossy(&text).chars().take(200).collect();
            return Err(self.broken(format!("HTTP {status}: {start}")));
        };
        Ok((status, answer))
    }

    /// Asks the endpoint beside MCP at `path`: its answer, with `success: true`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn admin(&self, method: &str, path: &str, body: Option<Value>) -> Result<Value, ClientError> {
        let method = method.parse().map_err(|_| self.broken(format!("{method} is no method")))?;
        let url = self.target.strip_suffix(PATH).unwrap_or(&self.target);
        let request = self.authorized(self.http.request(method, format!("{url}{path}"))).timeout(CALL);
        let request = match body {
            Some(body) => request.header(CONTENT_TYPE, "application/json").body(body.to_string()),
            None => request,
        };
        let response = request.send().await.map_err(|e| self.failed(&e))?;
        let status = response.status();
        if status == StatusCode::UNAUTHORIZED {
            return Err(ClientError::Unauthenticated { url: self.url.clone() });
        }
        let text = response.bytes().await.map_err(|e| self.failed(&e))?;
        match serde_json::from_slice(&text) {
            Ok(Value::Object(answer)) if answer.get("success") == Some(&Value::Bool(true)) => Ok(Value::Object(answer)),
            Ok(Value::Object(envelope)) => Err(ClientError::Refused(Box::new(envelope))),
            _ => Err(self.broken(format!("HTTP {status}"))),
        }
    }

    fn understood(&self, status: StatusCode, mut answer: Value) -> Result<Value, ClientError> {
        match answer_of(answer["result"].take()) {
            Ok(content) => Ok(content),
            Err(Some(envelope)) => Err(ClientError::Refused(envelope)),
            Err(None) => Err(match answer {
                // Turned away before the protocol: an envelope without one.
                Value::Object(envelope) if envelope.get("success") == Some(&Value::Bool(false)) => {
                    ClientError::Refused(Box::new(envelope))
                }
                answer => self.broken(match answer["error"]["message"].as_str() {
                    Some(message) => message.to_owned(),
                    None => format!("HTTP {status} without a result"),
                }),
            }),
        }
    }

    fn broken(&self, problem: String) -> ClientError {
        ClientError::Broken { url: self.url.clone(), problem }
    }
}

/// What the result of a call has: the operation's answer, or the envelope of
/// its refusal, or neither.
pub(super) fn answer_of(mut result: Value) -> Result<Value, Option<Box<Object>>> {
    let failed = result["isError"] == true;
    match result["structuredContent"].take() {
        Value::Object(envelope) if failed => Err(Some(Box::new(envelope))),
        Value::Object(content) => Ok(Value::Object(content)),
        _ => Err(None),
    }
}

/// What is wrong with the other end's certificate, if that is why it failed.
fn of_the_certificate(error: &reqwest::Error) -> Option<&rustls::Error> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(error);
    while let Some(cause) = next {
        if let Some(found @ rustls::Error::InvalidCertificate(_)) = cause.downcast_ref() {
            return Some(found);
        }
        // What an `io::Error` wraps is no source of it.
        let wrapped = cause.downcast_ref::<std::io::Error>().and_then(|e| e.get_ref());
        next = wrapped.map(|inner| inner as _).or_else(|| cause.source());
    }
    None
}

/// The innermost cause: reqwest's own text says only that something failed.
fn cause(error: &reqwest::Error) -> String {
    let mut inner: &dyn std::error::Error = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}
