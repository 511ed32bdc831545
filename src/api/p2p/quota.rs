//! What one peer, and all of them together, may use at once. All of it is told
//! to clients in the result of `initialize` and of `server/discover`.

use super::frame::FRAME_BYTES;
use super::reply::Fault;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The bounds of this face.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Streams that are served at once, of all peers together.
    pub streams: usize,
    /// Streams of one peer.
    pub streams_per_peer: usize,
    /// Requests under way on one stream; while there are so many it is not read.
    pub in_flight_per_stream: usize,
    /// Requests under way of one peer, on all its streams.
    pub in_flight_per_peer: usize,
    /// Messages and streams that a peer may begin at once.
    pub burst: u32,
    /// Messages and streams that it may begin a second, for long.
    pub per_second: u32,
    /// The first message of a stream comes within this.
    pub first: Duration,
    /// A stream on which nothing came and nothing is under way for so long is
    /// closed.
    pub idle: Duration,
    /// Refusals for rate or token in a row after which a stream is closed.
    pub patience: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            // As many as the connections of the door can bring: whoever has a
            // connection has streams, however many others have.
            streams: 1_024,
            streams_per_peer: 8,
            in_flight_per_stream: 16,
            in_flight_per_peer: 32,
            burst: 256,
            per_second: 128,
            first: Duration::from_secs(10),
            idle: Duration::from_secs(300),
            patience: 16,
        }
    }
}

/// A request may take the longest wait of the core and a margin.
pub(super) const REQUEST_TIME: Duration = Duration::from_millis(taskmesh_core::limits::WAIT_MS + 5_000);

impl Limits {
    /// As clients are told.
    pub(super) fn published(&self) -> Value {
        json!({
            "max_frame_bytes": FRAME_BYTES,
            "max_frames": Value::Null,
            "rate_capacity": self.burst,
            "rate_refill_per_sec": f64::from(self.per_second),
            "max_streams_per_peer": self.streams_per_peer,
            "max_in_flight_per_stream": self.in_flight_per_stream,
            "max_in_flight_per_peer": self.in_flight_per_peer,
            "first_message_timeout_ms": millis(self.first),
            "idle_timeout_ms": millis(self.idle),
            "frame_timeout_ms": millis(super::frame::FRAME_TIME),
            "request_timeout_ms": millis(REQUEST_TIME),
        })
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// The quotas of all peers that have a stream, or had one a moment ago.
pub(super) struct Quotas {
    limits: Limits,
    streams: Arc<Semaphore>,
    peers: Mutex<HashMap<Arc<str>, Arc<Peer>>>,
}

/// Those of one peer.
pub(super) struct Peer {
    streams: Arc<Semaphore>,
    requests: Arc<Semaphore>,
    bucket: Mutex<Bucket>,
}

/// A stream's right to be served.
pub(super) struct Admitted {
    pub(super) peer: Arc<Peer>,
    _places: (OwnedSemaphorePermit, OwnedSemaphorePermit),
}

struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Quotas {
    pub(super) fn new(limits: Limits) -> Quotas {
        Quotas { streams: Arc::new(Semaphore::new(limits.streams)), limits, peers: Mutex::default() }
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// A place for one more stream of `name`; `None`: there is none, for the
    /// peer or for anybody, or it opens them too fast.
    pub(super) fn admit(&self, name: &Arc<str>) -> Option<Admitted> {
        let place = self.streams.clone().try_acquire_owned().ok()?;
        let peer = self.peer(name);
        let own = peer.streams.clone().try_acquire_owned().ok()?;
        peer.message(&self.limits).ok()?;
        Some(Admitted { peer, _places: (place, own) })
    }

    fn peer(&self, name: &Arc<str>) -> Arc<Peer> {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(peer) = peers.get(name) {
            return peer.clone();
        }
        // Who closed its last stream is remembered until it may do all that a
        // newcomer may, which takes seconds.
        let limits = &self.limits;
        peers.retain(|_, peer| Arc::strong_count(peer) > 1 || peer.refilled(limits).tokens < f64::from(limits.burst));
        let peer = Arc::new(Peer {
            streams: Arc::new(Semaphore::new(self.limits.streams_per_peer)),
            requests: Arc::new(Semaphore::new(self.limits.in_flight_per_peer)),
            bucket: Mutex::new(Bucket { tokens: f64::from(self.limits.burst), at: Instant::now() }),
        });
        peers.insert(name.clone(), peer.clone());
        peer
    }
}

impl Peer {
    fn refilled(&self, limits: &Limits) -> MutexGuard<'_, Bucket> {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let more = now.duration_since(bucket.at).as_secs_f64() * f64::from(limits.per_second);
        bucket.tokens = (bucket.tokens + more).min(f64::from(limits.burst));
        bucket.at = now;
        bucket
    }

    /// Counts a message.
    pub(super) fn message(&self, limits: &Limits) -> Result<(), Fault> {
        let mut bucket = self.refilled(limits);
        if bucket.tokens < 1.0 {
            let most = limits.per_second;
            return Err(Fault::rate_limited(format!("more than {most} messages a second; go on in a moment")));
        }
        bucket.tokens -= 1.0;
        Ok(())
    }

    /// A place for a request under way.
    pub(super) fn request(&self, limits: &Limits) -> Result<OwnedSemaphorePermit, Fault> {
        let most = limits.in_flight_per_peer;
        let full = |_| Fault::rate_limited(format!("{most} requests of this peer are under way; wait for one of them"));
        self.requests.clone().try_acquire_owned().map_err(full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_again_does_not_begin_anew() {
        let quotas = Quotas::new(Limits { burst: 4, per_second: 0, ..Limits::default() });
        let (ann, bob): (Arc<str>, Arc<str>) = ("ann".into(), "bob".into());
        let stays = quotas.admit(&bob).expect("a place");
        for _ in 0..4 {
            assert!(quotas.admit(&ann).is_some());
        }
        assert!(quotas.admit(&ann).is_none(), "it had four");
        drop(stays);
        quotas.peers.lock().expect("no panic").values().for_each(|peer| peer.refilled(&quotas.limits).tokens = 4.0);
        assert!(quotas.admit(&"eve".into()).is_some());
        assert_eq!(quotas.peers.lock().expect("no panic").len(), 1, "nothing is kept of who rested");
    }
}
