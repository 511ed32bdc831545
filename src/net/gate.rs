//! Who may connect: allow and deny lists, and peers that were left by hand.
//! Asked during the handshake, so that the other side is told the reason.

use super::counters::Counters;
use libp2p::PeerId;
use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};
use taskmesh_core::NodeId;

/// The lists; shared by the handshakes and the actor.
pub(super) struct Gate {
    me: PeerId,
    allow: HashSet<NodeId>,
    deny: HashSet<NodeId>,
    banished: RwLock<HashSet<NodeId>>,
    /// Gone for ever, by an operator's word.
    forgotten: RwLock<HashSet<NodeId>>,
    /// The protocol version that was agreed on with each peer that is connected.
    spoken: RwLock<HashMap<PeerId, u16>>,
    /// Members that said that this node is.
    cast_out_by: Mutex<Vec<NodeId>>,
    counters: Arc<Counters>,
    told: Mutex<Told>,
}

/// Refusals in the log since a moment.
struct Told {
    since: Instant,
    lines: u32,
}

impl Gate {
    pub(super) fn new(
        me: PeerId,
        allow: &[NodeId],
        deny: &[NodeId],
        (banished, forgotten): (&[NodeId], &[NodeId]),
        counters: Arc<Counters>,
    ) -> Gate {
        Gate {
            me,
            allow: allow.iter().copied().collect(),
            deny: deny.iter().copied().collect(),
            banished: RwLock::new(banished.iter().copied().collect()),
            forgotten: RwLock::new(forgotten.iter().copied().collect()),
            spoken: RwLock::default(),
            cast_out_by: Mutex::default(),
            counters,
            told: Mutex::new(Told { since: Instant::now(), lines: 0 }),
        }
    }

    pub(super) fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    pub(super) fn me(&self) -> PeerId {
        self.me
    }

    /// Why `peer` may not connect, if it may not.
    pub(super) fn objection(&self, peer: &PeerId) -> Option<&'static str> {
        let Some(node) = node_of(peer) else { return Some("not_ed25519") };
        if self.is_forgotten(&node) {
            return Some(FORGOTTEN);
        }
        self.lists(&node).or_else(|| self.is_banished(&node).then_some("left_by_hand"))
    }

    /// Why the lists of the configuration keep a node out, if they do.
    pub(super) fn lists(&self, node: &NodeId) -> Option<&'static str> {
        if self.deny.contains(node) {
            return Some("denied");
        }
        (!self.allow.is_empty() && !self.allow.contains(node)).then_some("not_allowed")
    }

    pub(super) fn is_banished(&self, node: &NodeId) -> bool {
        self.banished.read().unwrap_or_else(PoisonError::into_inner).contains(node)
    }

    /// A hello agreed on this.
    pub(super) fn agreed(&self, peer: PeerId, version: u16) {
        self.spoken.write().unwrap_or_else(PoisonError::into_inner).insert(peer, version);
    }

    /// What is spoken with a peer that is connected.
    pub(super) fn spoken(&self, peer: &PeerId) -> Option<u16> {
        self.spoken.read().unwrap_or_else(PoisonError::into_inner).get(peer).copied()
    }

    /// Its last connection is closed.
    pub(super) fn parted(&self, peer: &PeerId) {
        self.spoken.write().unwrap_or_else(PoisonError::into_inner).remove(peer);
    }

    pub(super) fn is_forgotten(&self, node: &NodeId) -> bool {
        self.forgotten.read().unwrap_or_else(PoisonError::into_inner).contains(node)
    }

    /// It is gone for ever: if it comes all the same, it is told so.
    pub(super) fn forget(&self, node: NodeId) {
        self.forgotten.write().unwrap_or_else(PoisonError::into_inner).insert(node);
    }

    /// A member, which has proven that it is one, says that this node is forgotten.
    pub(super) fn cast_out(&self, by: &PeerId) {
        let mut told = self.cast_out_by.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(node) = node_of(by).filter(|_| told.len() < CAST_OUT) {
            told.push(node);
        }
    }

    /// Those who said so since this was last asked.
    pub(super) fn take_cast_out(&self) -> Vec<NodeId> {
        std::mem::take(&mut self.cast_out_by.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn banish(&self, node: NodeId) {
        self.banished.write().unwrap_or_else(PoisonError::into_inner).insert(node);
    }

    pub(super) fn pardon(&self, node: &NodeId) {
        self.banished.write().unwrap_or_else(PoisonError::into_inner).remove(node);
    }

    /// Counts a refusal and says it in the log, unless strangers are filling that.
    pub(super) fn refused(&self, reason: &'static str, peer: Option<&PeerId>, address: &str, detail: &str) {
        self.counters.refused_connections.add(reason);
        let peer = peer.map(ToString::to_string).unwrap_or_default();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.since.elapsed() >= LOG_SPAN {
            *told = Told { since: Instant::now(), lines: 0 };
        }
        told.lines = told.lines.saturating_add(1);
        match told.lines.cmp(&LOG_LINES) {
            Ordering::Less => tracing::warn!(peer, address, reason, "connection refused: {detail}"),
            Ordering::Equal => tracing::warn!("more connections are being refused: see the counts, or log at `debug`"),
            Ordering::Greater => tracing::debug!(peer, address, reason, "connection refused: {detail}"),
        }
    }
}

/// The node of a peer id; `None` unless it inlines an Ed25519 key.
pub(super) fn node_of(peer: &PeerId) -> Option<NodeId> {
    NodeId::from_peer_id_bytes(&peer.to_bytes())
}

/// The peer id of a node.
pub(super) fn peer_of(node: &NodeId) -> PeerId {
    PeerId::from_bytes(&node.peer_id_bytes()).expect("a node id is the key of a peer id")
}

/// Why a forgotten node is refused, in the count.
pub(super) const FORGOTTEN: &str = "forgotten";
/// Members that may say so until the node is told.
const CAST_OUT: usize = 16;
/// Refusals told in a span of time.
const LOG_LINES: u32 = 30;
const LOG_SPAN: Duration = Duration::from_secs(10);
