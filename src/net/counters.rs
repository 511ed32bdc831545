//! What the network counts of itself.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Live counters; cheap to add to from anywhere.
        #[derive(Default)]
        pub(super) struct Counters {
            $(pub(super) $name: Count,)*
            pub(super) bad_messages: Reasons,
            pub(super) refused_connections: Reasons,
        }

        /// Counts since the start.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Counts {
            $($(#[$doc])* pub $name: u64,)*
            /// Messages from other nodes that were dropped, by reason.
            pub bad_messages: BTreeMap<&'static str, u64>,
            /// Connections that were refused, by reason.
            pub refused_connections: BTreeMap<&'static str, u64>,
        }

        impl Counters {
            pub(super) fn snapshot(&self) -> Counts {
                Counts {
                    $($name: self.$name.read(),)*
                    bad_messages: self.bad_messages.snapshot(),
                    refused_connections: self.refused_connections.snapshot(),
                }
            }
        }
    };
}

counters! {
    /// Messages written to streams.
    messages_sent,
    /// Messages taken from streams and requests and given to the node.
    messages_received,
    /// Frames written to streams: messages / frames = the batching.
    frames_sent,
    /// Frames read.
    frames_received,
    /// Bytes of frames and chunks written.
    bytes_sent,
    /// Bytes of frames and chunks read.
    bytes_received,
    /// Frames that went by request because there was no stream.
    frames_by_request,
    /// Messages refused because a peer's queue was full.
    queue_full,
    /// Messages refused because the peer was not connected.
    not_connected,
    /// Messages given up when their connection was lost.
    messages_lost,
    /// Gossip published.
    gossip_sent,
    /// Gossip given to the node.
    gossip_received,
    /// Gossip dropped: over the rate, nobody subscribed, or the node was full.
    gossip_dropped,
    /// Requests of others that were answered.
    requests_served,
    /// Requests to others that were answered.
    requests_answered,
    /// Requests to others that failed.
    requests_failed,
    /// Requests of others that were refused because too many were under way.
    requests_busy,
    /// Dials begun.
    dials,
    /// Dials that failed.
    dials_failed,
    /// Connections closed to mend gossip or after a restart of the peer.
    mended,
    /// Peers with a direct connection, now.
    peers_direct,
    /// Peers that are connected over relays alone, now.
    peers_relayed,
    /// Relayed connections that were replaced by a direct one.
    paths_moved,
    /// Direct connections that were made through NATs, as this end counts them.
    holes_punched,
    /// Attempts at that which failed, as this end counts them.
    holes_failed,
    /// Places that relays keep for this node, now.
    reservations,
    /// Connections of others that this node carries, now.
    circuits,
    /// Connections of others that it began to carry.
    circuits_carried,
    /// Those that it refused to, and places that it did not give.
    circuits_refused,
    /// By the dials of others: 0: not known, 1: not reachable, 2: reachable.
    reachability,
}

#[derive(Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Of what goes up and down.
    pub(super) fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// What was counted since the last call.
    pub(super) fn take(&self) -> u64 {
        self.0.swap(0, Ordering::Relaxed)
    }
}

/// Counts by a fixed word.
#[derive(Default)]
pub(super) struct Reasons(Mutex<BTreeMap<&'static str, u64>>);

impl Reasons {
    pub(super) fn add(&self, reason: &'static str) {
        let mut reasons = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *reasons.entry(reason).or_default() += 1;
    }

    fn snapshot(&self) -> BTreeMap<&'static str, u64> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}
