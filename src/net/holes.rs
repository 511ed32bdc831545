//! Holes through NATs: libp2p's DCUtR, told of addresses that both ends can use.
//!
//! DCUtR offers what others have seen of this node, and that is the transport by
//! which it happened to reach them: one end would offer TCP and the other QUIC.
//! Nor would both on both sides do: they race, and the ends may each keep the
//! connection that the other gives up. So a node that listens for QUIC offers that
//! alone, whose holes are the easier ones, at the port where it listens: identify
//! takes it, too, that a NAT keeps the port, and no other NAT lets a hole through.

use super::discovery::{is_loopback, is_relayed};
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, ListenAddresses, NetworkBehaviour, NewExternalAddrCandidate, THandler,
    THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId, dcutr};
use std::task::{Context, Poll};

pub(super) struct Holes {
    dcutr: dcutr::Behaviour,
    listening: ListenAddresses,
}

impl Holes {
    pub(super) fn new(me: PeerId) -> Holes {
        Holes { dcutr: dcutr::Behaviour::new(me), listening: ListenAddresses::default() }
    }

    fn on_candidate(&mut self, seen: &Multiaddr) {
        for addr in offered(seen, self.listening.iter()) {
            self.dcutr.on_swarm_event(FromSwarm::NewExternalAddrCandidate(NewExternalAddrCandidate { addr: &addr }));
        }
    }
}

/// Where to dial a node that was seen somewhere.
fn offered<'a>(seen: &Multiaddr, listening: impl Iterator<Item = &'a Multiaddr>) -> Vec<Multiaddr> {
    let Some(ip @ (Protocol::Ip4(_) | Protocol::Ip6(_))) = seen.iter().next() else { return vec![seen.clone()] };
    let reaches = |address: &&Multiaddr| !is_relayed(address) && is_loopback(address) == is_loopback(seen);
    let mut all: Vec<_> = listening.filter(reaches).filter_map(|address| quic_at(&ip, address)).collect();
    all.sort_unstable();
    all.dedup();
    if all.is_empty() { vec![seen.clone()] } else { all }
}

/// An address for QUIC, of the same family, on another host.
fn quic_at(host: &Protocol<'_>, address: &Multiaddr) -> Option<Multiaddr> {
    let mut parts = address.iter();
    match (host, parts.next()?, parts.next()?, parts.next()?) {
        (Protocol::Ip4(_), Protocol::Ip4(_), udp @ Protocol::Udp(_), Protocol::QuicV1)
        | (Protocol::Ip6(_), Protocol::Ip6(_), udp @ Protocol::Udp(_), Protocol::QuicV1) => {
            Some(Multiaddr::empty().with(host.clone().acquire()).with(udp.acquire()).with(Protocol::QuicV1))
        }
        _ => None,
    }
}

impl NetworkBehaviour for Holes {
    type ConnectionHandler = THandler<dcutr::Behaviour>;
    type ToSwarm = dcutr::Event;

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.dcutr.handle_established_inbound_connection(id, peer, local, remote)
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role_override: Endpoint,
        port_use: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.dcutr.handle_established_outbound_connection(id, peer, address, role_override, port_use)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        self.listening.on_swarm_event(&event);
        match event {
            FromSwarm::NewExternalAddrCandidate(seen) => self.on_candidate(seen.addr),
            event => self.dcutr.on_swarm_event(event),
        }
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, id: ConnectionId, event: THandlerOutEvent<Self>) {
        self.dcutr.on_connection_handler_event(peer, id, event);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.dcutr.poll(cx)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_offered_is_quic_at_the_port_where_it_is_listened_for() {
        let table = [
            ("/ip4/203.0.113.1/tcp/4770", "/ip4/192.168.1.2/udp/4770/quic-v1", "/ip4/203.0.113.1/udp/4770/quic-v1"),
            ("/ip4/203.0.113.1/udp/9/quic-v1", "/ip4/192.168.1.2/udp/8/quic-v1", "/ip4/203.0.113.1/udp/8/quic-v1"),
            ("/ip6/2001:db8::1/tcp/4770", "/ip6/2001:db8::7/udp/1/quic-v1", "/ip6/2001:db8::1/udp/1/quic-v1"),
            // Nothing that fits: what was seen.
            ("/ip4/203.0.113.1/tcp/4770", "/ip4/192.168.1.2/tcp/4770", "/ip4/203.0.113.1/tcp/4770"),
            ("/ip4/203.0.113.1/tcp/4770", "/ip4/127.0.0.1/udp/4770/quic-v1", "/ip4/203.0.113.1/tcp/4770"),
            ("/ip4/203.0.113.1/tcp/4770", "/ip6/2001:db8::7/udp/4770/quic-v1", "/ip4/203.0.113.1/tcp/4770"),
            ("/dns/node.example/tcp/4770", "/ip4/192.168.1.2/udp/4770/quic-v1", "/dns/node.example/tcp/4770"),
        ];
        for (seen, listening, wanted) in table {
            let [seen, listening, wanted] = [seen, listening, wanted].map(|a| a.parse::<Multiaddr>().unwrap());
            assert_eq!(offered(&seen, [&listening, &listening].into_iter()), [wanted], "{seen} {listening}");
        }
    }
}
