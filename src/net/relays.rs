//! Nodes that can't be reached: places at relays for this one, circuits that it
//! carries for others, holes through NATs, and what dial-backs tell.

use super::Switch;
use super::actor::Actor;
use super::discovery::{is_loopback, is_relayed, plausible, split_peer};
use super::paths::Path;
use libp2p::autonat::{self, NatStatus};
use libp2p::core::transport::ListenerId;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId, dcutr, relay};
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

/// Relays, as this node uses them.
#[derive(Default)]
pub(super) struct Relays {
    /// Connected peers that serve.
    serve: HashSet<PeerId>,
    /// Places, asked for or held.
    places: HashMap<ListenerId, Place>,
    /// Not asked again before.
    later: HashMap<PeerId, Instant>,
    reachable: Reachable,
}

struct Place {
    relay: PeerId,
    held: Held,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Held {
    Yes,
    /// It has been asked for.
    No,
}

/// What others that dialled back have found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Reachable {
    #[default]
    Unknown,
    No,
    Yes,
}

impl Relays {
    /// What a peer says of itself.
    pub(super) fn on_protocols(&mut self, peer: PeerId, protocols: &[libp2p::StreamProtocol]) {
        if protocols.contains(&relay::HOP_PROTOCOL_NAME) {
            self.serve.insert(peer);
        } else {
            self.serve.remove(&peer);
        }
    }

    pub(super) fn on_lost(&mut self, peer: &PeerId) {
        self.serve.remove(peer);
    }

    fn held(&self) -> u64 {
        self.places.values().filter(|place| place.held == Held::Yes).count() as u64
    }

    /// Whom to ask for a place now.
    fn candidates(&mut self, now: Instant) -> Vec<PeerId> {
        self.later.retain(|_, until| *until > now);
        let taken: HashSet<PeerId> = self.places.values().map(|place| place.relay).collect();
        let free = |peer: &&PeerId| !taken.contains(peer) && !self.later.contains_key(peer);
        let mut candidates: Vec<_> = self.serve.iter().filter(free).copied().collect();
        // The same for all: two nodes that share a relay meet in one step.
        candidates.sort_unstable();
        candidates.truncate(PLACES.saturating_sub(self.places.len()));
        candidates
    }
}

impl Actor {
    /// Asks relays for a place, as long as there are too few. A node that others
    /// reach needs none, and one that is a relay is taken to be such a node.
    pub(super) fn watch_relays(&mut self, now: Instant) {
        let needed = self.config.relays == Switch::On && self.config.circuits == 0;
        if !needed || self.relays.reachable == Reachable::Yes || self.relays.places.len() >= PLACES {
            return;
        }
        for peer in self.relays.candidates(now) {
            let Some(at) = self.direct_address(&peer) else { continue };
            let through = at.with(Protocol::P2p(peer)).with(Protocol::P2pCircuit);
            match self.swarm.listen_on(through) {
                Ok(listener) => drop(self.relays.places.insert(listener, Place { relay: peer, held: Held::No })),
                Err(error) => {
                    tracing::debug!(%peer, %error, "no place can be asked for at this relay");
                    self.relays.later.insert(peer, now + ASK_AGAIN);
                }
            }
        }
    }

    /// Where this node has a direct connection to a peer.
    fn direct_address(&self, peer: &PeerId) -> Option<Multiaddr> {
        let link = self.links.get(peer)?;
        let direct = || link.connections.values().filter(|c| c.path == Path::Direct);
        direct().next()?;
        // It has dialled, maybe: then by what it says of itself.
        let dialled = direct().find_map(|c| c.dialled.clone());
        dialled.or_else(|| self.book.addresses(peer).iter().find(|a| !is_relayed(a)).cloned())
    }

    /// Whether a new address to listen on is a place at a relay.
    pub(super) fn on_place(&mut self, listener: ListenerId) {
        if let Some(place) = self.relays.places.get_mut(&listener).filter(|place| place.held == Held::No) {
            place.held = Held::Yes;
            tracing::info!(relay = %place.relay, "reachable over a relay");
            self.shared.counters.reservations.set(self.relays.held());
        }
    }

    /// Whether a listener that ended was a place at a relay.
    pub(super) fn on_place_lost(&mut self, listener: ListenerId) -> bool {
        let Some(place) = self.relays.places.remove(&listener) else { return false };
        tracing::info!(relay = %place.relay, "no longer reachable over this relay");
        self.relays.later.insert(place.relay, Instant::now() + ASK_AGAIN);
        self.shared.counters.reservations.set(self.relays.held());
        true
    }

    /// A relay has to say where it can be reached, or nobody gets a place.
    pub(super) fn announce_as_relay(&mut self, address: &Multiaddr) {
        let told = self.config.circuits == 0 || !self.config.external.is_empty();
        let local = self.config.listen.iter().filter_map(|a| a.parse().ok()).all(|a: Multiaddr| is_loopback(&a));
        if !told && !is_relayed(address) && plausible(address) && (local || !is_loopback(address)) {
            self.swarm.add_external_address(split_peer(address).0);
        }
    }

    pub(super) fn on_circuits(&mut self, event: &relay::Event) {
        let counters = &self.shared.counters;
        match event {
            relay::Event::CircuitReqAccepted { src_peer_id, dst_peer_id } => {
                tracing::debug!(from = %src_peer_id, to = %dst_peer_id, "carries a connection");
                counters.circuits_carried.add(1);
                counters.circuits.set(counters.circuits.read() + 1);
            }
            relay::Event::CircuitClosed { src_peer_id, dst_peer_id, error } => {
                tracing::debug!(from = %src_peer_id, to = %dst_peer_id, ?error, "a carried connection has ended");
                counters.circuits.set(counters.circuits.read().saturating_sub(1));
            }
            relay::Event::CircuitReqDenied { src_peer_id, dst_peer_id, status } => {
                tracing::debug!(from = %src_peer_id, to = %dst_peer_id, ?status, "does not carry a connection");
                counters.circuits_refused.add(1);
            }
            relay::Event::ReservationReqDenied { src_peer_id, status } => {
                tracing::debug!(peer = %src_peer_id, ?status, "gives no place");
                counters.circuits_refused.add(1);
            }
            _ => {}
        }
    }

    pub(super) fn on_hole(&mut self, event: &dcutr::Event) {
        let peer = event.remote_peer_id;
        match &event.result {
            Ok(connection) => {
                tracing::info!(%peer, %connection, "a direct connection through NAT");
                self.shared.counters.holes_punched.add(1);
            }
            Err(error) => {
                tracing::debug!(%peer, %error, "no direct connection: it stays relayed");
                self.shared.counters.holes_failed.add(1);
            }
        }
    }

    pub(super) fn on_dial_back(&mut self, event: autonat::Event) {
        let autonat::Event::StatusChanged { old, new } = event else { return };
        if let (NatStatus::Public(address), false) = (&old, new.is_public()) {
            self.swarm.remove_external_address(address);
        }
        tracing::info!(?old, ?new, "whether others reach this node");
        self.relays.reachable = match new {
            NatStatus::Unknown => Reachable::Unknown,
            NatStatus::Private => Reachable::No,
            NatStatus::Public(_) => Reachable::Yes,
        };
        self.shared.counters.reachability.set(self.relays.reachable as u64);
    }
}

/// Relays that keep a place for this node: one may go.
const PLACES: usize = 2;
/// After a relay refused a place, or it was lost.
const ASK_AGAIN: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_asked_for_at_two_relays_and_not_where_one_was_just_refused() {
        let (mut relays, now) = (Relays::default(), Instant::now());
        let mut peers: Vec<_> = (0..4).map(|_| PeerId::random()).collect();
        peers.sort_unstable();
        let serves = [relay::HOP_PROTOCOL_NAME];
        peers.iter().for_each(|peer| relays.on_protocols(*peer, &serves));
        relays.on_protocols(peers[0], &[]);
        relays.later.insert(peers[1], now + ASK_AGAIN);
        assert_eq!(relays.candidates(now), [peers[2], peers[3]]);
        relays.places.insert(ListenerId::next(), Place { relay: peers[2], held: Held::No });
        assert_eq!((relays.candidates(now), relays.held()), (vec![peers[3]], 0));
        relays.on_lost(&peers[3]);
        assert_eq!(relays.candidates(now), []);
        assert_eq!(relays.candidates(now + ASK_AGAIN), [peers[1]]);
    }
}
