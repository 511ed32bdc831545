//! How many may come at once to a door that is open to strangers: connections in
//! all, of one address and of one peer. An identity costs nothing, an address
//! something: whoever has one of those takes a part of the places and no more.
//!
//! Nothing is kept of who has left; libp2p's own limits keep an entry of every
//! peer that ever came.

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
    dummy,
};
use libp2p::{Multiaddr, PeerId};
use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv6Addr};
use std::task::{Context, Poll};

/// The bounds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Handshakes under way.
    pub(super) handshakes: usize,
    /// Those of one address.
    pub(super) handshakes_per_address: usize,
    /// Connections.
    pub(super) connections: usize,
    /// Those of one address.
    pub(super) connections_per_address: usize,
    /// Those of one peer.
    pub(super) connections_per_peer: usize,
}

/// Who is there. Only those who come are counted.
pub(super) struct Crowd {
    limits: Limits,
    handshakes: HashMap<ConnectionId, Option<IpAddr>>,
    connections: HashMap<ConnectionId, (PeerId, Option<IpAddr>)>,
}

/// Why somebody is turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there are {limit} {what} already")]
struct Crowded {
    what: &'static str,
    limit: usize,
}

impl Crowd {
    pub(super) fn new(limits: Limits) -> Crowd {
        Crowd { limits, handshakes: HashMap::new(), connections: HashMap::new() }
    }

    fn on_handshake(&mut self, id: ConnectionId, from: Option<IpAddr>) -> Result<(), Crowded> {
        let of_address = self.handshakes.values().filter(|other| from.is_some() && **other == from).count();
        below("handshakes under way", self.handshakes.len(), self.limits.handshakes)?;
        below("handshakes of one address", of_address, self.limits.handshakes_per_address)?;
        self.handshakes.insert(id, from);
        Ok(())
    }

    fn may_stay(&self, peer: &PeerId, from: Option<IpAddr>) -> Result<(), Crowded> {
        let all = self.connections.values();
        let of_address = all.clone().filter(|(_, other)| from.is_some() && *other == from).count();
        let of_peer = all.filter(|(other, _)| other == peer).count();
        below("connections", self.connections.len(), self.limits.connections)?;
        below("connections of one address", of_address, self.limits.connections_per_address)?;
        below("connections of one peer", of_peer, self.limits.connections_per_peer)
    }
}

fn below(what: &'static str, count: usize, limit: usize) -> Result<(), Crowded> {
    if count < limit { Ok(()) } else { Err(Crowded { what, limit }) }
}

/// Whose it is, as far as an address says: of IPv6 the half that names the
/// network, since the other can be made up.
fn holder(address: &Multiaddr) -> Option<IpAddr> {
    address.iter().find_map(|part| match part {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into()),
        _ => None,
    })
}

impl NetworkBehaviour for Crowd {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.on_handshake(id, holder(remote)).map_err(ConnectionDenied::new)
    }

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.handshakes.remove(&id);
        self.may_stay(&peer, holder(remote)).map_err(ConnectionDenied::new)?;
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(now) if now.endpoint.is_listener() => {
                let from = holder(now.endpoint.get_remote_address());
                self.connections.insert(now.connection_id, (now.peer_id, from));
            }
            FromSwarm::ConnectionClosed(gone) => drop(self.connections.remove(&gone.connection_id)),
            FromSwarm::ListenFailure(failed) => drop(self.handshakes.remove(&failed.connection_id)),
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        handshakes: 4,
        handshakes_per_address: 2,
        connections: 4,
        connections_per_address: 3,
        connections_per_peer: 2,
    };

    fn address(text: &str) -> Option<IpAddr> {
        holder(&text.parse().expect("a multiaddress"))
    }

    fn id(n: usize) -> ConnectionId {
        ConnectionId::new_unchecked(n)
    }

    #[test]
    fn handshakes_of_one_address_leave_room_for_others() {
        let mut crowd = Crowd::new(LIMITS);
        let (one, two) = (address("/ip4/10.0.0.1/tcp/5"), address("/ip4/10.0.0.2/udp/5/quic-v1"));
        assert_eq!((crowd.on_handshake(id(1), one), crowd.on_handshake(id(2), one)), (Ok(()), Ok(())));
        assert_eq!(crowd.on_handshake(id(3), one).map_err(|e| e.limit), Err(2));
        assert_eq!((crowd.on_handshake(id(4), two), crowd.on_handshake(id(5), two)), (Ok(()), Ok(())));
        assert_eq!(crowd.on_handshake(id(6), None).map_err(|e| e.what), Err("handshakes under way"));
        crowd.handshakes.remove(&id(1));
        assert_eq!(crowd.on_handshake(id(7), one), Ok(()));
    }

    #[test]
    fn connections_are_bounded_for_each_peer_each_address_and_in_all() {
        let mut crowd = Crowd::new(LIMITS);
        let (ann, bob, eve) = (PeerId::random(), PeerId::random(), PeerId::random());
        let one = address("/ip4/10.0.0.1/tcp/5");
        for n in 0..2 {
            crowd.connections.insert(id(n), (ann, one));
        }
        assert_eq!(crowd.may_stay(&ann, one).map_err(|e| e.what), Err("connections of one peer"));
        crowd.connections.insert(id(2), (bob, one));
        assert_eq!(crowd.may_stay(&eve, one).map_err(|e| e.what), Err("connections of one address"));
        let two = address("/ip4/10.0.0.2/tcp/5");
        assert_eq!(crowd.may_stay(&eve, two), Ok(()));
        crowd.connections.insert(id(3), (eve, two));
        assert_eq!(crowd.may_stay(&PeerId::random(), None).map_err(|e| e.what), Err("connections"));
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        assert_eq!(address("/ip6/2001:db8:1:2::3/tcp/1"), address("/ip6/2001:db8:1:2:ffff::4/tcp/2"));
        assert_ne!(address("/ip6/2001:db8:1:2::3/tcp/1"), address("/ip6/2001:db8:1:3::3/tcp/1"));
        assert_eq!(address("/memory/5"), None);
    }
}
