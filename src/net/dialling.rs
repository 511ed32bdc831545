//! Dials and walks: obeys the redial book, and asks Kademlia for members that
//! this node does not know yet.

use super::NetEvent;
use super::actor::Actor;
use super::discovery::{Dial, Lonely, Want};
use super::gate::{node_of, peer_of};
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError, ListenError};
use libp2p::{Multiaddr, PeerId, connection_limits, kad};
use std::collections::HashMap;
use std::time::{Duration, Instant};
use taskmesh_core::PeerEvent;

/// Dials of the book, by connection, and the walk under way.
pub(super) struct Dials {
    under_way: HashMap<ConnectionId, Dial>,
    walk: Option<kad::QueryId>,
    next_walk: Instant,
    walks_without_news: u32,
    known_at_last_walk: usize,
}

impl Dials {
    pub(super) fn new(now: Instant) -> Dials {
        Dials { under_way: HashMap::new(), walk: None, next_walk: now, walks_without_news: 0, known_at_last_walk: 0 }
    }

    /// Somebody new may know others.
    pub(super) fn walk_soon(&mut self, now: Instant) {
        self.walks_without_news = 0;
        self.next_walk = self.next_walk.min(now + NEW_PEER_WALK);
    }
}

impl Actor {
    /// Dials whom the book says.
    pub(super) fn dial_due(&mut self, now: Instant) {
        for node in self.shared.take_wanted() {
            let peer = peer_of(&node);
            let idle = self.dials.walk.is_none() && !self.links.is_empty();
            let out = self.gate.is_banished(&node) || self.gate.is_forgotten(&node);
            if !out && self.book.want(&peer, now) == Want::Unknown && idle {
                self.dials.walk = Some(self.swarm.behaviour_mut().kad.get_closest_peers(peer));
            }
        }
        let most = DIALS.saturating_sub(self.dials.under_way.len());
        let room = self.config.limits.peers.saturating_sub(self.links.len());
        let lonely = if self.links.is_empty() { Lonely::Yes } else { Lonely::No };
        for dial in self.book.due(now, most, room, lonely) {
            let options = match &dial {
                Dial::Peer(peer, addresses) => DialOpts::peer_id(*peer)
                    .condition(PeerCondition::DisconnectedAndNotDialing)
                    .addresses(addresses.clone())
                    .build(),
                Dial::Seed(address) => DialOpts::unknown_peer_id().address(address.clone()).build(),
            };
            let id = options.connection_id();
            self.shared.counters.dials.add(1);
            self.dials.under_way.insert(id, dial);
            if let Err(error) = self.swarm.dial(options) {
                self.on_dial_failed(id, None, &error);
            }
        }
    }

    pub(super) fn on_dialling(&mut self, peer: Option<PeerId>) {
        if let Some(node) = peer.as_ref().and_then(node_of) {
            let _ = self.shared.offer(NetEvent::Peer(PeerEvent::Dialling { peer: node, began: true }));
        }
    }

    pub(super) fn on_dial_connected(&mut self, id: ConnectionId, peer: PeerId) {
        self.dials.under_way.remove(&id);
        self.on_job_connected(id, peer);
    }

    /// The dial of a connection that is not wanted is over.
    pub(super) fn on_dial_in_vain(&mut self, id: ConnectionId) {
        match self.dials.under_way.remove(&id) {
            Some(Dial::Peer(peer, _)) => self.book.on_failed(&peer, Instant::now()),
            Some(Dial::Seed(address)) => self.book.on_seed_failed(&address, Instant::now()),
            None => {}
        }
    }

    pub(super) fn on_dial_failed(&mut self, id: ConnectionId, peer: Option<PeerId>, error: &DialError) {
        let now = Instant::now();
        if let Some(dial) = self.dials.under_way.remove(&id) {
            match &dial {
                // Another dial of the same peer is faster, or has just been.
                Dial::Peer(peer, _) if matches!(error, DialError::DialPeerConditionFalse(_)) => {
                    match self.swarm.is_connected(peer) {
                        true => self.book.on_connected(*peer, None, now),
                        false => self.book.on_failed(peer, now),
                    }
                }
                Dial::Peer(peer, _) => self.book.on_failed(peer, now),
                Dial::Seed(address) => self.book.on_seed_failed(address, now),
            }
        }
        let aborted = matches!(error, DialError::DialPeerConditionFalse(_) | DialError::Aborted);
        if !aborted {
            self.shared.counters.dials_failed.add(1);
            tracing::debug!(peer = ?peer, error = %reason(error), "a dial failed");
        }
        if let Some(node) = peer.as_ref().and_then(node_of).filter(|_| !aborted) {
            let _ = self.shared.offer(NetEvent::Peer(PeerEvent::Dialling { peer: node, began: false }));
        }
        self.on_job_dial_failed(id, error);
    }

    pub(super) fn on_incoming_failed(&mut self, from: &Multiaddr, peer: Option<PeerId>, error: &ListenError) {
        // The handshakes have told their own refusals.
        let ListenError::Denied { cause } = error else {
            tracing::debug!(%from, %error, "an incoming connection failed");
            return;
        };
        if let Some(exceeded) = cause.downcast_ref::<connection_limits::Exceeded>() {
            self.gate.refused("too_many_connections", peer.as_ref(), &from.to_string(), &exceeded.to_string());
        }
    }

    /// Walks through Kademlia: often while that finds somebody, then seldom.
    pub(super) fn walk(&mut self, now: Instant) {
        // A walk connects to everybody that it meets: in a large fleet that would
        // be everybody.
        let room = (1..self.config.limits.peers).contains(&self.links.len());
        if self.dials.walk.is_some() || now < self.dials.next_walk || !room {
            return;
        }
        let known = self.book.entries().count();
        let news = known != self.dials.known_at_last_walk;
        self.dials.known_at_last_walk = known;
        self.dials.walks_without_news = if news { 0 } else { self.dials.walks_without_news + 1 };
        let quiet = self.dials.walks_without_news >= QUIET_WALKS;
        self.dials.next_walk = now + self.config.pace.walk * if quiet { 10 } else { 1 };
        // Around this node first: they are the ones that know who is near.
        let target = match self.dials.walks_without_news % 2 {
            0 => self.gate.me(),
            _ => PeerId::random(),
        };
        self.dials.walk = Some(self.swarm.behaviour_mut().kad.get_closest_peers(target));
    }

    pub(super) fn on_walked(&mut self, id: kad::QueryId) {
        if self.dials.walk == Some(id) {
            self.dials.walk = None;
        }
        self.on_job_walked(id);
    }
}

/// A dial's failure in words, without libp2p's layers.
pub(super) fn reason(error: &DialError) -> String {
    match error {
        DialError::Transport(failures) => {
            let each: Vec<_> = failures.iter().map(|(address, e)| format!("{address}: {}", innermost(e))).collect();
            each.join("; ")
        }
        DialError::WrongPeerId { obtained, address } => format!("{address}: another peer answered: {obtained}"),
        DialError::LocalPeerId { address } => format!("{address} is this node itself"),
        DialError::Denied { cause } => match cause.downcast_ref::<connection_limits::Exceeded>() {
            Some(exceeded) => exceeded.to_string(),
            None => cause.to_string(),
        },
        other => other.to_string(),
    }
}

fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    loop {
        let inner = match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner as &(dyn std::error::Error + 'static)),
            None => error.source(),
        };
        match inner {
            Some(inner) => error = inner,
            None => return error.to_string(),
        }
    }
}

/// Dials of the book at once: a burst of handshakes takes the processor from
/// everything else.
const DIALS: usize = 16;
/// After a new peer, for its table to fill.
const NEW_PEER_WALK: Duration = Duration::from_millis(300);
/// Walks without anybody new before they become rare.
const QUIET_WALKS: u32 = 4;
