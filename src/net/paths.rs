//! The ways to a peer: direct, or over a relay. Where both are open, the relayed
//! one is given up, and nothing that was said on it is lost.
//!
//! Both ends do the same. Each ends the stream that it writes after a whole frame,
//! with a mark that says that more will come elsewhere; holds back new requests;
//! and, when its own stream has been read to the end, the other's has ended in the
//! same way, and no request is under way, hangs up the relayed connections. With
//! them gone, streams and requests can only go directly. An end that is not done
//! in time is not waited for: what is lost then is said again, as after any loss.

use super::NetEvent;
use super::actor::Actor;
use super::codec::{Answer, Ask};
use super::links::{Connection, Link, Up};
use libp2p::PeerId;
use libp2p::core::ConnectedPoint;
use libp2p::swarm::ConnectionId;
use std::time::{Duration, Instant};
use taskmesh_core::PeerEvent;
use tokio::sync::oneshot;

/// How a connection gets to its other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Path {
    Direct,
    Relayed,
}

impl Path {
    pub(super) fn of(endpoint: &ConnectedPoint) -> Path {
        if endpoint.is_relayed() { Path::Relayed } else { Path::Direct }
    }
}

/// A peer's move from relays to a direct connection, under way.
pub(super) struct Move {
    since: Instant,
    /// Nothing is said to the peer until it is over.
    rests: Rests,
    /// The peer has said that it rests.
    peer_rests: Rests,
    held: Vec<(Ask, oneshot::Sender<Option<Answer>>)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Rests {
    Yes,
    No,
}

impl Move {
    fn new(since: Instant) -> Move {
        Move { since, rests: Rests::No, peer_rests: Rests::No, held: Vec::new() }
    }

    /// Keeps a request for later; gives its asker back if there are too many.
    pub(super) fn hold(
        &mut self,
        ask: Ask,
        reply: oneshot::Sender<Option<Answer>>,
    ) -> Result<(), oneshot::Sender<Option<Answer>>> {
        if self.held.len() >= HELD {
            return Err(reply);
        }
        self.held.push((ask, reply));
        Ok(())
    }
}

impl Link {
    /// Whether the peer is reached over relays alone.
    pub(super) fn is_relayed(&self) -> bool {
        self.connections.values().all(|c| c.path == Path::Relayed)
    }

    fn relayed(&self) -> impl Iterator<Item = ConnectionId> {
        self.connections.iter().filter(|(_, c)| c.path == Path::Relayed).map(|(id, _)| *id)
    }

    /// A direct connection over which the peer has spoken, beside relayed ones.
    fn has_both(&self) -> bool {
        self.relayed().next().is_some() && self.connections.values().any(Connection::is_proven)
    }

    fn begin_move(&mut self, now: Instant) -> &mut Move {
        self.session.rest.send_replace(true);
        self.moving.get_or_insert_with(|| Move::new(now))
    }
}

impl Actor {
    /// Begins and ends moves, and counts who is reached how.
    pub(super) fn watch_paths(&mut self, now: Instant) {
        let mut moving = Vec::new();
        for (peer, link) in self.links.iter_mut() {
            if link.moving.is_none() && link.up == Up::Yes && link.has_both() {
                tracing::debug!(%peer, "moving to a direct connection");
                link.begin_move(now);
            }
            if link.moving.is_some() {
                moving.push(*peer);
            }
        }
        for peer in moving {
            self.go_on_moving(peer);
        }
        let relayed = self.links.up().filter(|(_, link)| link.is_relayed()).count() as u64;
        self.shared.counters.peers_relayed.set(relayed);
        self.shared.counters.peers_direct.set(self.links.up().count() as u64 - relayed);
    }

    /// Takes the next step, if it is time for it.
    pub(super) fn go_on_moving(&mut self, peer: PeerId) {
        let quiet = self.is_quiet(&peer);
        let Some(link) = self.links.get(&peer) else { return };
        let Some(moving) = &link.moving else { return };
        if link.is_relayed() || link.relayed().next().is_none() {
            // The direct one is lost again, or the peer was faster.
            return self.end_move(peer);
        }
        let agreed = quiet && moving.rests == Rests::Yes && moving.peer_rests == Rests::Yes;
        if !agreed && moving.since.elapsed() < PATIENCE {
            return;
        }
        if !agreed {
            tracing::debug!(%peer, quiet, "the peer does not move in time: its relayed connections are closed");
        }
        let relayed: Vec<_> = link.relayed().collect();
        for id in relayed {
            self.swarm.close_connection(id);
        }
    }

    /// The last connection of one kind is gone: what was held back goes on.
    fn end_move(&mut self, peer: PeerId) {
        let Some(link) = self.links.change(&peer) else { return };
        let Some(moving) = link.moving.take() else { return };
        link.session.rest.send_replace(false);
        if !link.is_relayed() {
            let address = link.address().map(|(_, a)| a.to_string()).unwrap_or_default();
            tracing::info!(%peer, address, "the peer is reached directly now");
            self.shared.counters.paths_moved.add(1);
            self.shared.post(NetEvent::Peer(PeerEvent::Up { peer: link.session.node, address: address.into() }));
        }
        for (ask, reply) in moving.held {
            self.ask(peer, ask, reply);
        }
    }

    /// This node's stream to the peer has been read to its end.
    pub(super) fn on_rests(&mut self, peer: PeerId, session: u64) {
        let link = self.links.change(&peer).filter(|link| link.session.number == session);
        if let Some(moving) = link.and_then(|link| link.moving.as_mut()) {
            moving.rests = Rests::Yes;
        }
        self.go_on_moving(peer);
    }

    /// The peer's stream to this node ended with the mark.
    pub(super) fn on_peer_rests(&mut self, peer: PeerId, session: u64) {
        let link = self.links.change(&peer).filter(|link| link.session.number == session);
        if let Some(link) = link {
            link.begin_move(Instant::now()).peer_rests = Rests::Yes;
        }
        self.go_on_moving(peer);
    }
}

/// How long the other end has to do its part. Several round trips over a slow
/// line and a relay, and a chunk of a result that is on its way.
const PATIENCE: Duration = Duration::from_secs(20);
/// Requests that wait for the end of a move.
const HELD: usize = 256;
