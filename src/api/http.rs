//! MCP over Streamable HTTP, for both eras of the protocol on one path, and
//! the metrics and health endpoints on another listener.
//!
//! The accept loop of both is in `serve`. The first is guarded by tokens, by
//! checks of `Host` and `Origin` (a web page must not talk to a node on its reader's machine), and by bounds on bodies,
//! requests under way and sessions. The second only tells, and needs no token.

pub(super) mod sessions;

use super::audit::Audit;
use super::auth::external::METADATA;
use super::auth::{self, Gate, Visitor};
use super::budget::{Budget, Full, Memory, weight};
use super::mcp::Facade;
use super::serve::{self, Door, until};
use super::{Feed, Meter, dashboard};
use crate::ops::{Code, Failure, Offer};
use crate::templates::Shelf;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Extensions, HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::StreamExt as _;
use hyper::body::Body as _;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use sessions::{Counts, Sessions};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use taskmesh_core::Millis;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// The path of the MCP endpoint.
pub const PATH: &str = "/mcp";
/// An array of 100,000 items, or ten payloads of the largest size.
const BODY_BYTES: usize = 12 * 1024 * 1024;
/// Requests under way: each may hold a body, and may wait 45 s.
const IN_FLIGHT: usize = 1_024;
/// Of those, the most that whoever was issued one token may have.
const IN_FLIGHT_EACH: usize = IN_FLIGHT / 2;
/// What bodies and the requests made of them take in memory, at any time, but
/// for the small ones.
const BUDGET_BYTES: usize = 256 * 1024 * 1024;
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
    /// Whether the dashboard is served beside it.
    pub dashboard: bool,
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
    let router = router(face, doors.address, Arc::new(sessions::manager()), &shutdown);
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

struct Guard {
    gate: Gate,
    in_flight: Semaphore,
    /// The same for each token that was issued.
    shares: Counts,
    memory: Budget,
    sessions: Sessions,
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
        [format!("http://{host}:*"), format!("https://{host}:*")]
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
    let guard = Guard {
        gate: face.gate.clone(),
        in_flight: Semaphore::new(IN_FLIGHT),
        shares: Counts::default(),
        memory: Budget::new(BUDGET_BYTES),
        sessions: Sessions::new(sessions),
    };
    let found = metadata(&face.gate);
    let page = if face.dashboard { dashboard::routes() } else { Router::new() };
    let admin = auth::admin::routes(face.gate.clone(), face.audit.clone());
    let forgotten = super::forgotten::routes(face.gate.clone(), face.audit.clone());
    let cache = super::cache::routes(face.gate, face.audit);
    let guarded = Router::new().route_service(PATH, service).merge(admin).merge(cache).merge(forgotten);
    guarded.layer(middleware::from_fn_with_state(Arc::new(guard), admit)).merge(found).merge(page)
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
    let issued = visitor.authority().and_then(|authority| authority.ids.first().copied());
    let Some(_share) = guard.shares.add(issued, IN_FLIGHT_EACH) else {
        return full("requests of this token under way", IN_FLIGHT_EACH);
    };
    let Ok(_permit) = guard.in_flight.try_acquire() else { return full("requests under way", IN_FLIGHT) };
    if guard.sessions.is_foreign(request.headers(), token) {
        return refusal(&Failure::new(Code::NotFound, "there is no such session of this token; greet again"));
    }
    guard.sessions.touch(request.headers());
    request.extensions_mut().insert(visitor);
    let (request, _memory) = match whole(request, &guard.memory).await {
        Ok(whole) => whole,
        Err(failure) => return refusal(&failure),
    };
    let method = request.method().clone();
    let _opening = match opens_session(&method, request.headers()) {
        true => match guard.sessions.room(issued, sessions::YIELDS).await {
            None => return full("sessions", sessions::SESSIONS),
            opening => opening,
        },
        false => None,
    };
    let mut response = next.run(request).await;
    guard.sessions.note(response.headers(), token, issued);
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

/// The request with all of its body, which must come soon and fit, and the
/// memory that it takes.
async fn whole(request: Request, budget: &Budget) -> Result<(Request, Memory), Failure> {
    let (head, body) = request.into_parts();
    let mut memory = budget.memory();
    match tokio::time::timeout(BODY, gather(body, &mut memory)).await {
        Ok(bytes) => Ok((Request::from_parts(head, bytes?.into()), memory)),
        Err(_) => Err(Failure::new(Code::DeadlineExceeded, format!("the body did not come within {BODY:?}"))),
    }
}

async fn gather(body: Body, memory: &mut Memory) -> Result<Vec<u8>, Failure> {
    let too_large = || {
        let error = format!("the body ended early or has more than {BODY_BYTES} bytes, which is the limit");
        Failure::new(Code::PayloadTooLarge, error)
    };
    if body.size_hint().lower() > BODY_BYTES as u64 {
        return Err(too_large());
    }
    let mut bytes: Vec<u8> = Vec::new();
    let mut pieces = body.into_data_stream();
    while let Some(piece) = pieces.next().await {
        let piece = piece.ok().filter(|piece| bytes.len() + piece.len() <= BODY_BYTES).ok_or_else(too_large)?;
        let needed = bytes.len() + piece.len();
        if needed > bytes.capacity() {
            let room = needed.max(2 * bytes.capacity()).min(BODY_BYTES);
            memory.grow(room).map_err(without_memory)?;
            bytes.reserve_exact(room - bytes.len());
        }
        bytes.extend_from_slice(&piece);
    }
    memory.grow(weight(&bytes)).map_err(without_memory)?;
    Ok(bytes)
}

fn without_memory(full: Full) -> Failure {
    match full {
        Full::Now => {
            let error = "large requests take all the memory that they may at the moment; try again later";
            Failure { retry_after: Some(RETRY), ..Failure::new(Code::ResourceExhausted, error) }
        }
        Full::Ever => {
            let error = "the body has too many lists, objects and values to be read; send it in parts";
            Failure::new(Code::PayloadTooLarge, error)
        }
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
    refusal(&Failure { retry_after: Some(RETRY), ..Failure::new(Code::ResourceExhausted, error) })
}

fn refusal(failure: &Failure) -> Response {
    let status = StatusCode::from_u16(failure.code.meaning().http).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, axum::Json(failure.envelope())).into_response();
    if let Some(after) = failure.retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(after.0.div_ceil(1_000)));
    }
    response
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
