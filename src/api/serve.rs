//! The accept loop behind every HTTP face: TCP, TLS over it, and Unix sockets.
//!
//! Connections are bounded in number, and one over which nothing is asked is
//! closed: a client that sends its first request byte by byte, or none, keeps
//! its place for seconds only, and not even those when others wait for it.

use super::tls;
use axum::Router;
use axum::body::Body;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use rustix::process::{Resource, getrlimit};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{AcquireError, Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

/// Connections at once at one door. The next takes the place of the one over
/// which nothing was asked for longest.
const CONNECTIONS: usize = 1_024;
/// The part of the files that the system lets this process open which is for
/// the connections of one door: the rest is for the disk, the mesh and programs.
const SHARE_OF_FILES: u64 = 4;
/// TLS's handshake must be over by then, and the first request be there as long
/// after it.
const FIRST: Duration = Duration::from_secs(10);
/// A connection over which nothing was asked for so long is closed.
const IDLE: Duration = Duration::from_secs(90);
/// What is under way at the end gets so long to finish.
const GRACE: Duration = Duration::from_secs(5);
/// The line and the headers of a request; hyper would take 400 KiB of each
/// connection before it knows who asks.
const HEAD_BYTES: usize = 64 * 1024;
/// Requests at once over one connection of HTTP/2.
const STREAMS: u32 = 256;
/// Accepting failed for want of something, such as file descriptors, or no
/// connection is at rest whose place a newcomer could have: again after so long.
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
    let places = Places::new(connections());
    let open = TaskTracker::new();
    let serve = async {
        loop {
            let entered = match door.accept().await {
                Ok(entered) => entered,
                Err(error) => {
                    if error.kind() != io::ErrorKind::ConnectionAborted {
                        tracing::warn!(%error, "a connection could not be accepted");
                        sleep(AGAIN).await;
                    }
                    continue;
                }
            };
            let place = places.place().await.map_err(io::Error::other)?;
            let (router, shutdown) = (router.clone(), shutdown.clone());
            match (entered, &door) {
                (Entered::Tcp(stream, address), Door::Tls(_, acceptor)) => {
                    let handshake = timeout(FIRST, acceptor.accept(stream));
                    open.spawn(async move {
                        let encrypted = tokio::select! {
                            encrypted = handshake => encrypted,
                            () = place.activity.idle() => return,
                        };
                        if let Ok(Ok(stream)) = encrypted {
                            place.activity.begin();
                            converse(stream, router, Caller::Tcp(address), &place.activity, shutdown).await;
                        }
                    });
                }
                (Entered::Tcp(stream, address), _) => {
                    open.spawn(async move {
                        converse(stream, router, Caller::Tcp(address), &place.activity, shutdown).await;
                    });
                }
                (Entered::Unix(stream), _) => {
                    open.spawn(async move {
                        converse(stream, router, Caller::Unix, &place.activity, shutdown).await;
                    });
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

fn connections() -> usize {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(files / SHARE_OF_FILES).map_or(CONNECTIONS, |share| share.clamp(1, CONNECTIONS))
}

/// One connection, to its end.
async fn converse<S>(stream: S, router: Router, caller: Caller, activity: &Arc<Activity>, shutdown: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
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
    builder.http1().max_buf_size(HEAD_BYTES);
    builder.http2().max_concurrent_streams(STREAMS);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    // How a connection ended is its client's business; requests are logged.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = activity.idle() => {}
        () = shutdown.cancelled() => {}
    }
    if activity.state().leaves {
        return;
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(GRACE, connection).await;
}

/// The places of one door.
struct Places {
    free: Arc<Semaphore>,
    /// Who has one, and some who had.
    taken: Mutex<Vec<Weak<Activity>>>,
}

/// The place of one connection.
struct Place {
    activity: Arc<Activity>,
    _permit: OwnedSemaphorePermit,
}

impl Places {
    fn new(count: usize) -> Places {
        Places { free: Arc::new(Semaphore::new(count)), taken: Mutex::default() }
    }

    fn taken(&self) -> MutexGuard<'_, Vec<Weak<Activity>>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one more, as soon as there is one or another leaves.
    async fn place(&self) -> Result<Place, AcquireError> {
        let permit = loop {
            if self.free.available_permits() == 0 {
                self.make_room();
            }
            if let Ok(permit) = timeout(AGAIN, self.free.clone().acquire_owned()).await {
                break permit?;
            }
        };
        let activity = Arc::new(Activity::new(FIRST, IDLE));
        let mut taken = self.taken();
        // Those who left are forgotten before the list grows.
        if taken.len() == taken.capacity() {
            taken.retain(|activity| activity.strong_count() > 0);
        }
        taken.push(Arc::downgrade(&activity));
        Ok(Place { activity, _permit: permit })
    }

    /// Asks the connection to leave over which nothing was asked for longest.
    fn make_room(&self) {
        let taken = self.taken();
        let resting = taken.iter().filter_map(Weak::upgrade);
        let resting = resting.filter_map(|activity| activity.at_rest_since().map(|since| (since, activity)));
        if let Some((_, activity)) = resting.min_by_key(|(since, _)| *since) {
            activity.leave();
        }
    }
}

/// What a connection is doing.
struct Activity {
    idle: Duration,
    state: Mutex<State>,
    asked_to_leave: Notify,
}

struct State {
    under_way: usize,
    /// When it last began to have nothing under way.
    since: Instant,
    patience: Duration,
    /// Another has its place.
    leaves: bool,
}

impl Activity {
    /// How long to wait `first` for a request, and how long once there was one.
    fn new(first: Duration, idle: Duration) -> Activity {
        let state = State { under_way: 0, since: Instant::now(), patience: first, leaves: false };
        Activity { idle, state: Mutex::new(state), asked_to_leave: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on the first request is waited for.
    fn begin(&self) {
        self.state().since = Instant::now();
    }

    /// `None`: a request is under way, or it leaves already.
    fn at_rest_since(&self) -> Option<Instant> {
        let state = self.state();
        (state.under_way == 0 && !state.leaves).then_some(state.since)
    }

    fn leave(&self) {
        self.state().leaves = true;
        self.asked_to_leave.notify_one();
    }

    /// Returns when nothing was asked for too long, or another has the place.
    async fn idle(&self) {
        loop {
            let until = {
                let state = self.state();
                if state.leaves {
                    return;
                }
                let since = if state.under_way == 0 { state.since } else { Instant::now() };
                since + state.patience
            };
            if until <= Instant::now() {
                return;
            }
            tokio::select! {
                () = sleep_until(until) => {}
                () = self.asked_to_leave.notified() => {}
            }
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
        // It came before the place was given away.
        state.leaves = false;
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

    #[tokio::test]
    async fn a_newcomer_has_the_place_of_who_was_at_rest_for_longest() {
        let places = Places::new(3);
        let mut taken = Vec::new();
        for _ in 0..3 {
            taken.push(places.place().await.expect("a place"));
        }
        let _busy = Busy::new(&taken[0].activity);
        taken[1].activity.begin();
        let (busy, later, longest) = (taken.remove(0), taken.remove(0), taken.remove(0));
        let leaving = async {
            longest.activity.idle().await;
            assert!(longest.activity.state().leaves && !later.activity.state().leaves);
            drop(longest);
        };
        let (newcomer, ()) = tokio::join!(places.place(), leaving);
        assert!(newcomer.is_ok() && busy.activity.at_rest_since().is_none());
        // Asked in vain: what was asked came first.
        later.activity.leave();
        let asking = Busy::new(&later.activity);
        drop(asking);
        assert!(later.activity.at_rest_since().is_some());
    }

    #[tokio::test]
    async fn little_is_kept_of_who_left() {
        let places = Places::new(3);
        for _ in 0..1_000 {
            places.place().await.expect("a place");
        }
        assert!(places.taken().len() <= 8, "{}", places.taken().len());
    }
}
