//! MCP over Streamable HTTP, for both eras of the protocol on one path, and
//! the metrics and health endpoints on another listener.
//!
//! The accept loop of both is in `serve`. The first is guarded by tokens, by
//! checks of `Host` and `Origin` (a web page must not talk to a node on its reader's machine), and by bounds on bodies,
//! requests under way and sessions. The second only tells, and needs no token.

use super::audit::Audit;
use super::auth::external::METADATA;
use super::auth::{self, Gate, Visitor};
use super::mcp::Facade;
use super::serve::{self, Door, until};
use super::{Feed, Meter};
use crate::ops::{Code, Failure, Offer};
use crate::templates::Shelf;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{Extensions, HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use rmcp::transport::streamable_http_server::session::SessionManager as _;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use taskmesh_core::Millis;
use taskmesh_core::authority::TokenId;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// The path of the MCP endpoint.
pub const PATH: &str = "/mcp";
/// An array of 10,000 items, or ten payloads of the largest size.
const BODY_BYTES: usize = 12 * 1024 * 1024;
/// Requests under way: each may hold a body, and may wait 45 s.
const IN_FLIGHT: usize = 1_024;
/// Sessions of legacy clients: about 50 kB each.
const SESSIONS: usize = 256;
/// A legacy session that is not used for so long is forgotten.
const SESSION_IDLE: Duration = Duration::from_secs(3_600);
/// When there are too many, one that was not used for so long makes room: its
/// client, if it lives, is told 404 and greets again.
const SESSION_YIELDS: Duration = Duration::from_secs(60);
/// A request's body must be there by then.
const BODY: Duration = Duration::from_secs(30);
/// When a client that was turned away for load may come again.
const RETRY: Millis = Millis(1_000);

/// What the MCP endpoint stands on.
pub struct Face {
    /// The node, and who may ask it what.
    pub gate: Gate,
    /// Told of each call that would change something.
    pub audit: Audit,
    /// Told of each call.
    pub meter: Meter,
    /// Names in `Host` that are let in, beside the listener's address and those
    /// of loopback.
    pub hosts: Vec<String>,
    /// What subscriptions are told by.
    pub feed: Feed,
    /// Which operations there are.
    pub offer: Offer,
    /// Those that submissions may name.
    pub templates: Shelf,
}

/// The doors of the MCP endpoint: the one at an address, and a socket for
/// processes of this machine.
pub struct Doors {
    /// For everybody who has a token and reaches the address.
    pub open: Door,
    /// The address.
    pub address: SocketAddr,
    /// For who may open the file, and has a token too.
    pub local: Option<UnixListener>,
}

/// Serves MCP at [`PATH`] until `shutdown`.
///
/// # Errors
/// A door fails for good.
pub async fn serve(doors: Doors, face: Face, shutdown: CancellationToken) -> io::Result<()> {
    let router = router(face, doors.address, Arc::new(sessions()), &shutdown);
    let open = until(doors.open, router.clone(), shutdown.clone());
    let Some(local) = doors.local else { return open.await };
    tokio::try_join!(open, until(Door::Unix(local), router, shutdown)).map(|_| ())
}

/// Serves what [`observe_router`] has until `shutdown`.
///
/// # Errors
/// Accepting fails for good.
pub async fn observe(listener: TcpListener, routes: Routes, shutdown: CancellationToken) -> io::Result<()> {
    until(Door::Tcp(listener), observe_router(routes), shutdown).await
}

/// The use of a legacy session.
struct Used {
    at: Instant,
    by: Option<TokenId>,
}

struct Guard {
    gate: Gate,
    in_flight: Semaphore,
    sessions: Arc<LocalSessionManager>,
    /// When each session was used last, and whose it is.
    used: Mutex<HashMap<Arc<str>, Used>>,
}

impl Guard {
    fn used(&self) -> MutexGuard<'_, HashMap<Arc<str>, Used>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session was opened by whoever has this token. Only ids that the node
    /// made come here: those that clients make up are many.
    fn note(&self, headers: &HeaderMap, by: Option<TokenId>) {
        if let Some(id) = session(headers) {
            self.used().insert(id.into(), Used { at: Instant::now(), by });
        }
    }

    /// A session is used.
    fn touch(&self, headers: &HeaderMap) {
        let Some(id) = session(headers) else { return };
        if let Some(used) = self.used().get_mut(id) {
            used.at = Instant::now();
        }
    }

    /// Whether the session that is named was opened with another token.
    fn is_foreign(&self, headers: &HeaderMap, by: Option<TokenId>) -> bool {
        session(headers).is_some_and(|id| self.used().get(id).is_some_and(|used| used.by != by))
    }

    /// Whether there is room for one more session, or was made.
    async fn room(&self, yields: Duration) -> bool {
        let live: HashSet<Arc<str>> = self.sessions.sessions.read().await.keys().cloned().collect();
        let oldest = {
            let mut used = self.used();
            used.retain(|id, _| live.contains(id));
            let oldest = used.iter().min_by_key(|(_, used)| used.at);
            oldest.filter(|(_, used)| used.at.elapsed() >= yields).map(|(id, _)| id.clone())
        };
        if live.len() < SESSIONS {
            return true;
        }
        match oldest {
            Some(id) => self.sessions.close_session(&id).await.is_ok(),
            None => false,
        }
    }
}

/// The legacy clients' sessions, of which there are none yet.
pub(super) fn sessions() -> LocalSessionManager {
    let mut sessions = LocalSessionManager::default();
    sessions.session_config.keep_alive = Some(SESSION_IDLE);
    sessions
}

pub(super) fn router(
    face: Face,
    local: SocketAddr,
    sessions: Arc<LocalSessionManager>,
    shutdown: &CancellationToken,
) -> Router {
    let own = ["localhost".to_owned(), "127.0.0.1".into(), "::1".into(), local.ip().to_string()];
    let hosts: Vec<String> = own.into_iter().chain(face.hosts).collect();
    let origins = hosts.iter().flat_map(|host| {
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        [format!("http://{host}:*"), format!("https://{host}:*"), format!("https://{host}")]
    });
    let config = StreamableHttpServerConfig::default()
        .with_legacy_session_mode(true)
        .with_json_response(true)
        .with_max_request_body_bytes(BODY_BYTES)
        .enforce_origin_validation()
        .with_allowed_origins(origins)
        .with_cancellation_token(shutdown.child_token());
    let config = match local.ip() {
        // Reached under addresses that it can't know; the token and the Origin guard it.
        ip if ip.is_unspecified() => config.disable_allowed_hosts(),
        _ => config.with_allowed_hosts(hosts),
    };
    let facade = Facade::new(face.gate.clone(), face.audit.clone(), face.meter, face.feed, face.offer, face.templates);
    let service = StreamableHttpService::new(move || Ok(facade.for_connection()), sessions.clone(), config);
    let guard =
        Guard { gate: face.gate.clone(), in_flight: Semaphore::new(IN_FLIGHT), sessions, used: Mutex::default() };
    let found = metadata(&face.gate);
    let admin = auth::admin::routes(face.gate, face.audit);
    let guarded = Router::new().route_service(PATH, service).merge(admin);
    guarded.layer(middleware::from_fn_with_state(Arc::new(guard), admit)).merge(found)
}

/// How a client that has no token finds the server that gives one (RFC 9728).
fn metadata(gate: &Gate) -> Router {
    let Some(external) = gate.external() else { return Router::new() };
    let metadata = axum::Json(external.metadata());
    let tell = move || async move { metadata };
    METADATA.into_iter().fold(Router::new(), |router, path| router.route(path, get(tell.clone())))
}

/// Lets in who has a token, while there is room.
async fn admit(State(guard): State<Arc<Guard>>, mut request: Request, next: Next) -> Response {
    let visitor = match visitor(&guard.gate, request.headers(), request.extensions()).await {
        Ok(visitor) => visitor,
        Err(challenge) => return challenge,
    };
    let token = visitor.token();
    let Ok(_permit) = guard.in_flight.try_acquire() else { return full("requests under way", IN_FLIGHT) };
    let method = request.method().clone();
    if opens_session(&method, request.headers()) && !guard.room(SESSION_YIELDS).await {
        return full("sessions", SESSIONS);
    }
    if guard.is_foreign(request.headers(), token) {
        return refusal(&Failure::new(Code::NotFound, "there is no such session of this token; greet again"));
    }
    guard.touch(request.headers());
    request.extensions_mut().insert(visitor);
    let request = match whole(request).await {
        Ok(request) => request,
        Err(failure) => return refusal(&failure),
    };
    let mut response = next.run(request).await;
    guard.note(response.headers(), token);
    // Clients in Python take nothing but 200 and 204 for an ended session.
    if method == Method::DELETE && response.status() == StatusCode::ACCEPTED {
        *response.status_mut() = StatusCode::NO_CONTENT;
    }
    response
}

/// Who sent `request`, or what to answer nobody.
async fn visitor(gate: &Gate, headers: &HeaderMap, extensions: &Extensions) -> Result<Visitor, Response> {
    let shown = bearer(headers);
    let admitted = match shown {
        Some(shown) => gate.admit(shown).await,
        None => gate.anybody(),
    };
    let (transport, peer) = match extensions.get::<serve::Caller>() {
        Some(serve::Caller::Tcp(address)) => ("http", Some(address.to_string().into())),
        Some(serve::Caller::Unix) => ("socket", None),
        None => ("http", None),
    };
    admitted.map(|caller| Visitor { caller, transport, peer }).map_err(|failure| {
        let mut response = refusal(&failure);
        if let Ok(challenge) = HeaderValue::try_from(gate.challenge(&failure, shown.is_some())) {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    })
}

/// The legacy session that is named.
fn session(headers: &HeaderMap) -> Option<&str> {
    headers.get("mcp-session-id").and_then(|id| id.to_str().ok())
}

/// The request with all of its body, which must come soon and fit.
async fn whole(request: Request) -> Result<Request, Failure> {
    let (head, body) = request.into_parts();
    match tokio::time::timeout(BODY, axum::body::to_bytes(body, BODY_BYTES)).await {
        Ok(Ok(bytes)) => Ok(Request::from_parts(head, bytes.into())),
        Ok(Err(_)) => {
            let error = format!("the body ended early or has more than {BODY_BYTES} bytes, which is the limit");
            Err(Failure::new(Code::PayloadTooLarge, error))
        }
        Err(_) => Err(Failure::new(Code::DeadlineExceeded, format!("the body did not come within {BODY:?}"))),
    }
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().as_bytes())
}

/// Only `initialize` of a legacy client comes without a session and without the
/// method in a header.
fn opens_session(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::POST && !headers.contains_key("mcp-session-id") && !headers.contains_key("mcp-method")
}

fn full(what: &str, limit: usize) -> Response {
    let error = format!("this node has {limit} {what}, which is its limit; try again later");
    let failure = Failure { retry_after: Some(RETRY), ..Failure::new(Code::ResourceExhausted, error) };
    let mut response = refusal(&failure);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(RETRY.0.div_ceil(1_000)));
    response
}

fn refusal(failure: &Failure) -> Response {
    let status = StatusCode::from_u16(failure.code.meaning().http).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, axum::Json(failure.envelope())).into_response()
}

/// A status code and what to say with it.
pub type Health = Arc<dyn Fn() -> (u16, String) + Send + Sync>;

/// What a node tells anyone who may reach its second listener.
#[derive(Clone)]
pub struct Routes {
    /// `/metrics`, in Prometheus's text format.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// `/healthz`: the process works.
    pub healthz: Health,
    /// `/readyz`: the node may be given work.
    pub readyz: Health,
    /// `/sd`: where the metrics of the fleet are, as Prometheus's HTTP service
    /// discovery has it.
    pub targets: Arc<dyn Fn() -> String + Send + Sync>,
}

/// `/metrics`, `/healthz`, `/readyz` and `/sd`.
pub fn observe_router(routes: Routes) -> Router {
    let Routes { metrics, healthz, readyz, targets } = routes;
    let json = [(header::CONTENT_TYPE, "application/json")];
    let text = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    Router::new()
        .route("/metrics", get(move || async move { (text, metrics()) }))
        .route("/healthz", get(move || async move { health(&healthz) }))
        .route("/readyz", get(move || async move { health(&readyz) }))
        .route("/sd", get(move || async move { (json, targets()) }))
}

fn health(check: &Health) -> Response {
    let (status, text) = check();
    (StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_session_that_was_not_used_for_longest_makes_room() {
        let guard = Guard {
            gate: crate::api::testing::gate().0,
            in_flight: Semaphore::new(1),
            sessions: Arc::new(sessions()),
            used: Mutex::default(),
        };
        let mut open = Vec::new();
        for _ in 0..SESSIONS {
            assert!(guard.room(SESSION_YIELDS).await);
            let (id, transport) = guard.sessions.create_session().await.expect("a session");
            let mut headers = HeaderMap::new();
            headers.insert("mcp-session-id", id.parse().expect("a header"));
            guard.note(&headers, None);
            open.push((headers, id, transport));
        }
        guard.note(&open[0].0, None);
        assert!(!guard.room(SESSION_YIELDS).await, "all are in use");
        assert!(guard.room(Duration::ZERO).await);
        let left = guard.sessions.sessions.read().await;
        assert_eq!(
            (left.len(), left.contains_key(&open[0].1), left.contains_key(&open[1].1)),
            (SESSIONS - 1, true, false)
        );
    }
}
