//! Where streams that strangers open wait to be served: so many of each peer,
//! and so many in all. `libp2p_stream` would keep one alone, and reset whatever
//! comes before that is taken.

use super::door::{PROTOCOL, STREAMS_PER_PEER, Visit};
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::{DeniedUpgrade, ReadyUpgrade};
use libp2p::swarm::handler::{ConnectionEvent, FullyNegotiatedInbound};
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour, Stream,
    SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId, StreamProtocol};
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use tokio::sync::mpsc;
use tokio_util::compat::FuturesAsyncReadCompatExt as _;

/// Streams that wait to be served.
const WAITING: usize = 256;

/// One for all connections; clones share it.
#[derive(Clone)]
pub(super) struct Lobby {
    visits: mpsc::Sender<Visit>,
    taken: Arc<Mutex<HashMap<PeerId, usize>>>,
}

/// A place of a peer among the streams that it may have. Given back when this
/// is dropped.
pub struct Place {
    peer: PeerId,
    taken: Arc<Mutex<HashMap<PeerId, usize>>>,
}

/// That of one connection.
pub(super) struct Usher {
    peer: PeerId,
    lobby: Lobby,
}

impl Lobby {
    /// An empty one, and who is in it.
    pub(super) fn new() -> (Lobby, mpsc::Receiver<Visit>) {
        let (visits, waiting) = mpsc::channel(WAITING);
        (Lobby { visits, taken: Arc::default() }, waiting)
    }

    fn place(&self, peer: PeerId) -> Option<Place> {
        let mut all = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = all.entry(peer).or_insert(0);
        if *count >= STREAMS_PER_PEER {
            return None;
        }
        *count += 1;
        Some(Place { peer, taken: self.taken.clone() })
    }

    fn usher(&self, peer: PeerId) -> Usher {
        Usher { peer, lobby: self.clone() }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.peer);
            }
        }
    }
}

impl Usher {
    fn let_in(&self, stream: Stream) {
        let peer = self.peer;
        let Some(place) = self.lobby.place(peer) else {
            tracing::debug!(%peer, "a stream over the limit of its peer was closed");
            return;
        };
        let visit = Visit { peer: peer.to_string().into(), stream: Box::new(stream.compat()), place };
        if self.lobby.visits.try_send(visit).is_err() {
            // It is dropped, which its opener sees.
            tracing::debug!(%peer, "a stream was closed, since too many wait to be served");
        }
    }
}

impl ConnectionHandler for Usher {
    type FromBehaviour = Infallible;
    type ToBehaviour = Infallible;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = DeniedUpgrade;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(StreamProtocol::new(PROTOCOL)), ())
    }

    fn on_behaviour_event(&mut self, event: Infallible) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<DeniedUpgrade, (), Infallible>> {
        Poll::Pending
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol>) {
        if let ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: stream, .. }) = event {
            self.let_in(stream);
        }
    }
}

impl NetworkBehaviour for Lobby {
    type ConnectionHandler = Usher;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.usher(peer))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.usher(peer))
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

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
    use crate::net::door;
    use futures::future::join_all;
    use std::time::Duration;
    use tokio::io::AsyncWriteExt as _;
    use tokio::time::timeout;

    #[tokio::test(flavor = "multi_thread")]
    async fn streams_that_come_at_once_all_wait_to_be_served() {
        let mut door = door::open(&[7; 32], &["/ip4/127.0.0.1/tcp/0".to_owned()]).await.expect("a port");
        let address = door.addresses[0].clone();
        let mut calls = join_all((0..12).map(|_| door::dial(&address))).await;
        for call in &mut calls {
            let call = call.as_mut().expect("the door is open");
            call.stream.write_all(b"a").await.expect("sent");
            call.stream.flush().await.expect("sent");
        }
        for _ in &calls {
            timeout(Duration::from_secs(20), door.visits.recv()).await.expect("a visit").expect("the door is open");
        }
    }

    #[test]
    fn one_peer_has_so_many_places_until_it_gives_them_back() {
        let (lobby, _visits) = Lobby::new();
        let (ann, bob) = (PeerId::random(), PeerId::random());
        let places: Vec<_> = (0..STREAMS_PER_PEER).map(|_| lobby.place(ann).expect("a place")).collect();
        assert!(lobby.place(ann).is_none() && lobby.place(bob).is_some());
        drop(places);
        assert!(lobby.place(ann).is_some());
        assert!(lobby.taken.lock().expect("no panic").is_empty(), "nothing is kept of who left");
    }
}
