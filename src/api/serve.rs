//! The accept loop behind every HTTP face: TCP, TLS over it, and Unix sockets.
//!
//! Connections are bounded in number, and one over which nothing is asked is
//! closed: a client that sends its first request byte by byte, or none, keeps
//! its place for seconds only.

use super::tls;
use axum::Router;
use axum::body::Body;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

/// Connections at once at one door; the next waits to be accepted.
const CONNECTIONS: usize = 1_024;
/// TLS's handshake must be over by then, and the first request be there as long
/// after it.
const FIRST: Duration = Duration::from_secs(10);
/// A connection over which nothing was asked for so long is closed.
const IDLE: Duration = Duration::from_secs(90);
/// What is under way at the end gets so long to finish.
const GRACE: Duration = Duration::from_secs(5);
/// Requests at once over one connection of HTTP/2.
const STREAMS: u32 = 256;
/// Accepting failed for want of something, such as file descriptors: again
/// after so long.
const AGAIN: Duration = Duration::from_millis(100);

/// Where clients come in.
pub enum Door {
    /// In the clear: for loopback addresses.
    Tcp(TcpListener),
    /// Encrypted, and with the certificate shown to clients.
    Tls(TcpListener, tls::Acceptor),
    /// A file: its mode says who may enter.
    Unix(UnixListener),
}

/// Where a request came from: an extension of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Another end of TCP.
    Tcp(SocketAddr),
    /// A process of this machine, over the socket in the data folder.
    Unix,
}

enum Entered {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream),
}

impl Door {
    async fn accept(&self) -> io::Result<Entered> {
        match self {
            Door::Tcp(listener) | Door::Tls(listener, _) => {
                let (stream, address) = listener.accept().await?;
                // Without it, each streamed reply waits 40 ms for an acknowledgement.
                let _ = stream.set_nodelay(true);
                Ok(Entered::Tcp(stream, address))
            }
            Door::Unix(listener) => listener.accept().await.map(|(stream, _)| Entered::Unix(stream)),
        }
    }
}

/// Serves `router` at `door` until `shutdown`, then for a grace of 5 s what is
/// under way.
pub(super) async fn until(door: Door, router: Router, shutdown: CancellationToken) -> io::Result<()> {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let open = TaskTracker::new();
    let serve = async {
        loop {
            let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
            let (router, shutdown) = (router.clone(), shutdown.clone());
            match (door.accept().await, &door) {
                (Ok(Entered::Tcp(stream, address)), Door::Tls(_, acceptor)) => {
                    let handshake = timeout(FIRST, acceptor.accept(stream));
                    open.spawn(async move {
                        if let Ok(Ok(stream)) = handshake.await {
                            converse(stream, router, Caller::Tcp(address), shutdown).await;
                        }
                        drop(place);
                    });
                }
                (Ok(Entered::Tcp(stream, address)), _) => {
                    open.spawn(async move {
                        converse(stream, router, Caller::Tcp(address), shutdown).await;
                        drop(place);
                    });
                }
                (Ok(Entered::Unix(stream)), _) => {
                    open.spawn(async move {
                        converse(stream, router, Caller::Unix, shutdown).await;
                        drop(place);
                    });
                }
                (Err(error), _) => {
                    if error.kind() != io::ErrorKind::ConnectionAborted {
                        tracing::warn!(%error, "a connection could not be accepted");
                        sleep(AGAIN).await;
                    }
                }
            }
        }
    };
    let ended = tokio::select! {
        ended = serve => ended,
        () = shutdown.cancelled() => Ok(()),
    };
    open.close();
    // Each bounds itself by the same grace.
    let _ = timeout(2 * GRACE, open.wait()).await;
    ended
}

/// One connection, to its end.
async fn converse<S>(stream: S, router: Router, caller: Caller, shutdown: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let activity = Arc::new(Activity::new(FIRST, IDLE));
    let watched = activity.clone();
    let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        let busy = Busy::new(&watched);
        request.extensions_mut().insert(caller);
        let answer = router.clone().oneshot(request.map(Body::new));
        async move {
            // A streamed answer is under way for as long as its body.
            answer.await.map(|response| response.map(|body| Answer { body, _busy: busy }))
        }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http2().max_concurrent_streams(STREAMS);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    // How a connection ended is its client's business; requests are logged.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = activity.idle() => {}
        () = shutdown.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(GRACE, connection).await;
}

/// What a connection is doing.
struct Activity {
    idle: Duration,
    state: Mutex<State>,
}

struct State {
    under_way: usize,
    /// When it last began to have nothing under way.
    since: Instant,
    patience: Duration,
}

impl Activity {
    /// How long to wait `first` for a request, and how long once there was one.
    fn new(first: Duration, idle: Duration) -> Activity {
        Activity { idle, state: Mutex::new(State { under_way: 0, since: Instant::now(), patience: first }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when nothing was asked for too long.
    async fn idle(&self) {
        loop {
            let until = {
                let state = self.state();
                let since = if state.under_way == 0 { state.since } else { Instant::now() };
                since + state.patience
            };
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    }
}

/// A request under way.
struct Busy(Arc<Activity>);

impl Busy {
    fn new(activity: &Arc<Activity>) -> Busy {
        let mut state = activity.state();
        state.under_way += 1;
        state.patience = activity.idle;
        drop(state);
        Busy(activity.clone())
    }
}

/// The body of an answer, under way until it is dropped.
struct Answer {
    body: Body,
    _busy: Busy,
}

impl HttpBody for Answer {
    type Data = <Body as HttpBody>::Data;
    type Error = <Body as HttpBody>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    /// Without it an answer would go out in chunks, its length untold.
    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.under_way -= 1;
        state.since = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_without_a_request_is_given_up_soon_and_one_at_rest_later() {
        let (first, idle) = (Duration::from_millis(20), Duration::from_millis(60));
        let activity = Arc::new(Activity::new(first, idle));
        let began = Instant::now();
        activity.idle().await;
        assert!(began.elapsed() >= first);

        let busy = Busy::new(&activity);
        assert!(timeout(3 * idle, activity.idle()).await.is_err(), "a request is under way");
        let ended = Instant::now();
        drop(busy);
        activity.idle().await;
        assert!(ended.elapsed() >= idle);
    }
}
