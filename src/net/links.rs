//! Peers that are connected: their connections, what they say of themselves, and
//! the watch over them.

use super::NetEvent;
use super::actor::{Actor, Order};
use super::discovery::{Source, is_loopback, is_relayed, plausible, split_peer};
use super::gate::node_of;
use super::gossip;
use super::paths::{Move, Path};
use super::queue::Queue;
use super::session::{Session, Shared, Traffic};
use super::stream::{Reader, Writer};
use libp2p::core::ConnectedPoint;
use libp2p::core::transport::PortUse;
use libp2p::gossipsub::{self, MessageAcceptance, TopicHash};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::ConnectionId;
use libp2p::{Multiaddr, PeerId, Stream, identify, kad, mdns, ping};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use taskmesh_core::PeerEvent;
use taskmesh_core::limits::{ADDRESSES, MEMBERS, TEXT_BYTES};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

/// All peers with a connection.
#[derive(Default)]
pub(super) struct Links {
    all: HashMap<PeerId, Link>,
    sessions: u64,
    reported: Option<Instant>,
    /// How often in a row each peer was dialled again for one-sided gossip.
    mends: HashMap<PeerId, u32>,
}

/// One of them.
pub(super) struct Link {
    pub(super) session: Arc<Session>,
    pub(super) connections: BTreeMap<ConnectionId, Connection>,
    pub(super) up: Up,
    drained: bool,
    subscribed: HashSet<TopicHash>,
    /// Since when it is known to gossip.
    gossips: Option<Instant>,
    strikes: u32,
    reading: Option<JoinHandle<()>>,
    pub(super) moving: Option<Move>,
}

pub(super) struct Connection {
    pub(super) address: Multiaddr,
    /// The same, if this node dialled it: the peer can be reached there, whether
    /// it knows of that address or not.
    pub(super) dialled: Option<Multiaddr>,
    pub(super) path: Path,
    /// By identify.
    boot: Option<String>,
    failed_pings: u32,
}

/// Whether the node has been told of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Up {
    Yes,
    No,
    /// Of its end: the peer closed its stream, and is to hang up.
    Left(Instant),
}

impl Connection {
    /// It is direct, and the peer has spoken over it.
    pub(super) fn is_proven(&self) -> bool {
        self.path == Path::Direct && self.boot.is_some()
    }
}

impl Link {
    /// Where it was reached first, directly if it is.
    pub(super) fn address(&self) -> Option<(ConnectionId, &Multiaddr)> {
        let direct = self.connections.iter().find(|(_, c)| c.path == Path::Direct);
        direct.or_else(|| self.connections.iter().next()).map(|(id, c)| (*id, &c.address))
    }
}

impl Links {
    pub(super) fn get(&self, peer: &PeerId) -> Option<&Link> {
        self.all.get(peer)
    }

    pub(super) fn change(&mut self, peer: &PeerId) -> Option<&mut Link> {
        self.all.get_mut(peer)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&PeerId, &mut Link)> {
        self.all.iter_mut()
    }

    pub(super) fn up(&self) -> impl Iterator<Item = (&PeerId, &Link)> {
        self.all.iter().filter(|(_, link)| link.up == Up::Yes)
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn sessions(&self) -> impl Iterator<Item = &Arc<Session>> {
        self.all.values().map(|link| &link.session)
    }

    pub(super) fn all_drained(&self) -> bool {
        self.all.values().all(|link| link.drained)
    }

    /// The peer has opened a stream: it replaces the one before.
    pub(super) fn on_stream(
        &mut self,
        peer: PeerId,
        stream: Stream,
        shared: &Arc<Shared>,
        orders: &mpsc::Sender<Order>,
        large: &Arc<Semaphore>,
    ) {
        // A stream can overtake the news of its connection; its opener tries again.
        let Some(reader) = self.reader(&peer, shared, orders, large) else { return };
        let Some(link) = self.all.get_mut(&peer) else { return };
        let before = link.reading.take();
        link.reading = Some(tokio::spawn(reader.run(stream, before)));
    }

    pub(super) fn reader(
        &self,
        peer: &PeerId,
        shared: &Arc<Shared>,
        orders: &mpsc::Sender<Order>,
        large: &Arc<Semaphore>,
    ) -> Option<Reader> {
        let session = self.all.get(peer)?.session.clone();
        Some(Reader { session, shared: shared.clone(), orders: orders.clone(), large: large.clone() })
    }
}

impl Actor {
    pub(super) fn on_connected(&mut self, peer: PeerId, id: ConnectionId, endpoint: &ConnectedPoint) {
        let now = Instant::now();
        let (Some(node), None) = (node_of(&peer), self.gate.objection(&peer)) else {
            // Left by hand while the handshake was under way.
            self.swarm.close_connection(id);
            self.on_dial_in_vain(id);
            return;
        };
        let (dialled, address) = ends(peer, endpoint);
        self.book.on_connected(peer, dialled.as_ref(), now);
        let reached = dialled.map(|address| split_peer(&address).0);
        let path = Path::of(endpoint);
        let connection = Connection { address, dialled: reached, path, boot: None, failed_pings: 0 };
        if let Some(link) = self.links.all.get_mut(&peer) {
            link.connections.insert(id, connection);
        } else {
            self.links.sessions += 1;
            let session = Arc::new(Session {
                peer,
                node,
                number: self.links.sessions,
                queue: Queue::new(self.config.limits.queued_messages),
                ended: CancellationToken::new(),
                up: watch::Sender::new(false),
                rest: watch::Sender::new(false),
                traffic: Traffic::default(),
            });
            self.shared.insert(session.clone());
            let writer = Writer {
                session: session.clone(),
                shared: self.shared.clone(),
                control: self.control.clone(),
                protocol: self.keys.protocol("stream"),
                orders: self.orders.clone(),
            };
            tokio::spawn(writer.run());
            let link = Link {
                session,
                connections: BTreeMap::from([(id, connection)]),
                up: Up::No,
                drained: false,
                subscribed: HashSet::new(),
                gossips: None,
                strikes: 0,
                reading: None,
                moving: None,
            };
            self.links.all.insert(peer, link);
        }
        self.on_dial_connected(id, peer);
        if let ConnectedPoint::Dialer { port_use: PortUse::New, .. } = endpoint {
            // A dial-back: that it could be made is all that was asked.
            self.swarm.close_connection(id);
        }
    }

    pub(super) fn on_closed(&mut self, peer: PeerId, id: ConnectionId, remaining: u32) {
        let Some(link) = self.links.all.get_mut(&peer) else { return };
        link.connections.remove(&id);
        if remaining > 0 {
            return self.go_on_moving(peer);
        }
        let Some(link) = self.links.all.remove(&peer) else { return };
        link.session.ended.cancel();
        self.gate.parted(&peer);
        self.shared.remove(&link.session.node);
        self.book.on_lost(&peer, Instant::now());
        self.relays.on_lost(&peer);
        if link.up == Up::Yes {
            self.report_traffic_of(&link.session);
            self.shared.post(NetEvent::Peer(PeerEvent::Down { peer: link.session.node }));
        }
        self.on_left(&peer);
    }

    /// The peer's stream, or the way by request, is open.
    pub(super) fn on_usable(&mut self, peer: PeerId, session: u64) {
        let Some(link) = self.links.all.get_mut(&peer).filter(|l| l.session.number == session) else { return };
        if link.up != Up::No {
            return;
        }
        link.up = Up::Yes;
        let address = link.address().map(|(_, a)| a.to_string()).unwrap_or_default();
        tracing::info!(%peer, address, "peer up");
        self.shared.post(NetEvent::Peer(PeerEvent::Up { peer: link.session.node, address: address.into() }));
        // Whatever the peer says comes after its `Up`.
        link.session.up.send_replace(true);
        self.book.on_usable(&peer);
        self.book.hurry(Instant::now());
        self.dials.walk_soon(Instant::now());
        self.on_peer_up(peer);
    }

    /// Everything for a peer is written: it was told to go, or this node goes.
    pub(super) fn on_drained(&mut self, peer: PeerId, session: u64) {
        let Some(link) = self.links.all.get_mut(&peer).filter(|l| l.session.number == session) else { return };
        link.drained = true;
        if self.jobs.closes(&peer) {
            let _ = self.swarm.disconnect_peer_id(peer);
        }
    }

    /// A peer closes its stream only when it leaves: the node is told before the
    /// peer may take it that this node knows, and hangs up.
    pub(super) fn on_said_all(&mut self, peer: PeerId, session: u64, told: DropGuard) {
        let Some(link) = self.links.all.get_mut(&peer).filter(|l| l.session.number == session) else { return };
        if std::mem::replace(&mut link.up, Up::Left(Instant::now())) == Up::Yes {
            let (session, node) = (link.session.clone(), link.session.node);
            self.report_traffic_of(&session);
            self.shared.post(NetEvent::Peer(PeerEvent::Down { peer: node }));
        }
        self.shared.post(NetEvent::Reached(Arc::new(told)));
    }

    /// Hangs up on peers that left and did not, or whose stream broke in a way
    /// that looks so: they begin anew.
    pub(super) fn watch_left(&mut self, now: Instant) {
        let gone = |link: &Link| matches!(link.up, Up::Left(at) if now >= at + HANGS_UP);
        let gone: Vec<_> = self.links.all.iter().filter(|(_, link)| gone(link)).map(|(peer, _)| *peer).collect();
        for peer in gone {
            let _ = self.swarm.disconnect_peer_id(peer);
        }
    }

    /// A member that goes on sending nonsense is broken: it has to begin anew.
    pub(super) fn on_strike(&mut self, peer: PeerId) {
        let Some(link) = self.links.all.get_mut(&peer) else { return };
        link.strikes += 1;
        if link.strikes >= STRIKES {
            tracing::warn!(%peer, "too many bad frames: disconnected");
            let _ = self.swarm.disconnect_peer_id(peer);
        }
    }

    pub(super) fn on_identify(&mut self, event: identify::Event) {
        let identify::Event::Received { connection_id, peer_id: peer, info } = event else { return };
        if info.public_key.to_peer_id() != peer {
            return;
        }
        let Some(link) = self.links.all.get_mut(&peer) else { return };
        let Some(connection) = link.connections.get_mut(&connection_id) else { return };
        let boot = info.agent_version.rsplit_once(" boot/").map(|(_, boot)| cut(boot));
        connection.boot = boot.clone();
        let near = is_loopback(&connection.address);
        let restarted = link.connections.values().any(|c| c.boot.is_some() && c.boot != boot);
        if restarted {
            // The other connections are those of a process that is gone, and gossip
            // sends subscriptions on a first connection only: start afresh.
            tracing::info!(%peer, "the peer has restarted: connecting afresh");
            self.shared.counters.mended.add(1);
            let _ = self.swarm.disconnect_peer_id(peer);
            return;
        }
        let gossip = self.keys.protocol("gossip");
        if info.protocols.contains(&gossip) && link.gossips.is_none() {
            link.gossips = Some(Instant::now());
        }
        self.relays.on_protocols(peer, &info.protocols);
        let node = link.session.node;
        let mut addresses: Vec<_> = link.connections.values().filter_map(|c| c.dialled.clone()).collect();
        addresses.dedup();
        let relayed = link.is_relayed();
        for address in info.listen_addrs.iter().filter(|a| plausible(a) && (near || !is_loopback(a))).take(ADDRESSES) {
            let (address, named) = split_peer(address);
            if named.is_none_or(|named| named == peer) && !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        // Such as it is reached by now come first.
        addresses.sort_by_key(|address| is_relayed(address) != relayed);
        self.on_addresses_of(peer, &addresses);
        let spoken = self.gate.spoken(&peer).map(|version| self.keys.spoken(version));
        let event = PeerEvent::Identified {
            peer: node,
            addresses: addresses.iter().map(|a| a.to_string().into()).collect(),
            protocol: spoken.map_or_else(|| cut(&info.protocol_version).into(), Into::into),
            agent: cut(info.agent_version.split(" boot/").next().unwrap_or_default()).into(),
        };
        self.shared.post(NetEvent::Peer(event));
    }

    /// What a peer says of its own addresses goes into the book and the routing
    /// table; what it no longer says goes out.
    fn on_addresses_of(&mut self, peer: PeerId, addresses: &[Multiaddr]) {
        if addresses.is_empty() {
            return;
        }
        self.book.learn(peer, addresses, Source::Member, Instant::now());
        self.book.keep_only(&peer, addresses);
        let kad = &mut self.swarm.behaviour_mut().kad;
        // The new ones first: without any address the peer would leave the table.
        for address in addresses {
            kad.add_address(&peer, address.clone());
        }
        let listed: Vec<_> = kad
            .kbucket(peer)
            .into_iter()
            .flat_map(|bucket| {
                bucket.iter().map(|e| (*e.node.key.preimage(), e.node.value.clone())).collect::<Vec<_>>()
            })
            .filter(|(listed, _)| *listed == peer)
            .flat_map(|(_, addresses)| addresses.into_vec())
            .collect();
        for address in listed {
            let (at, _) = split_peer(&address);
            if !addresses.contains(&at) {
                kad.remove_address(&peer, &at);
            }
        }
    }

    pub(super) fn on_ping(&mut self, event: &ping::Event) {
        let Some(link) = self.links.all.get_mut(&event.peer) else { return };
        let Some(connection) = link.connections.get_mut(&event.connection) else { return };
        let round_trip_us = match &event.result {
            Ok(time) => {
                connection.failed_pings = 0;
                Some(u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
            }
            Err(error) => {
                connection.failed_pings += 1;
                tracing::debug!(peer = %event.peer, %error, "a ping failed");
                None
            }
        };
        let failed = connection.failed_pings;
        let event_of_peer = PeerEvent::Ping { peer: link.session.node, round_trip_us };
        if failed >= PINGS {
            tracing::warn!(peer = %event.peer, failed, "no answer to pings: connection closed");
            self.swarm.close_connection(event.connection);
        }
        // Measurements may be lost.
        let _ = self.shared.offer(NetEvent::Peer(event_of_peer));
    }

    pub(super) fn on_kad(&mut self, event: kad::Event) {
        let kad::Event::OutboundQueryProgressed { id, result, step, .. } = event else { return };
        if let kad::QueryResult::GetClosestPeers(result) = result {
            let peers = match result {
                Ok(found) => found.peers,
                Err(kad::GetClosestPeersError::Timeout { peers, .. }) => peers,
            };
            let now = Instant::now();
            for found in peers {
                self.book.learn(found.peer_id, &found.addrs, Source::Hearsay, now);
            }
        }
        if step.last {
            self.on_walked(id);
        }
    }

    pub(super) fn on_mdns(&mut self, event: mdns::Event) {
        let mdns::Event::Discovered(found) = event else { return };
        for (peer, address) in found {
            self.book.learn(peer, &[address], Source::Hearsay, Instant::now());
        }
    }

    pub(super) fn on_gossip(&mut self, event: gossipsub::Event) {
        match event {
            gossipsub::Event::Message { propagation_source, message_id, message } => {
                let acceptance = self.on_publication(&propagation_source, &message);
                self.swarm.behaviour_mut().gossip.report_message_validation_result(
                    &message_id,
                    &propagation_source,
                    acceptance,
                );
            }
            gossipsub::Event::Subscribed { peer_id, topic, .. } => {
                if let Some(link) = self.links.all.get_mut(&peer_id) {
                    link.subscribed.insert(topic);
                    self.links.mends.remove(&peer_id);
                }
            }
            gossipsub::Event::Unsubscribed { peer_id, topic } => {
                if let Some(link) = self.links.all.get_mut(&peer_id) {
                    link.subscribed.remove(&topic);
                }
            }
            gossipsub::Event::GossipsubNotSupported { peer_id } => {
                tracing::warn!(peer = %peer_id, "the peer does not gossip");
            }
            gossipsub::Event::SlowPeer { peer_id, .. } => {
                tracing::debug!(peer = %peer_id, "gossip to this peer is dropped: it is slow");
            }
        }
    }

    fn on_publication(&mut self, from: &PeerId, message: &gossipsub::Message) -> MessageAcceptance {
        let Some(author) = message.source else { return MessageAcceptance::Reject };
        let (Some(node), None) = (node_of(&author), self.gate.objection(&author)) else {
            return MessageAcceptance::Ignore;
        };
        match gossip::read(&message.data) {
            Ok(content) => {
                match self.shared.offer(NetEvent::Received { from: node, messages: vec![content] }) {
                    None => self.shared.counters.gossip_received.add(1),
                    Some(_) => self.shared.counters.gossip_dropped.add(1),
                }
                MessageAcceptance::Accept
            }
            Err(reason) => {
                tracing::debug!(%from, %author, reason, "bad gossip");
                self.shared.counters.bad_messages.add(reason);
                MessageAcceptance::Reject
            }
        }
    }

    /// Finds gossip that goes one way only: the peer gossips, and yet has not said
    /// to this node what it wants to hear. It never will on this connection. With
    /// one that never does, patience grows.
    pub(super) fn watch(&mut self, now: Instant) {
        let patience = self.config.pace.one_sided;
        let mute: Vec<_> = self
            .links
            .all
            .iter()
            .filter(|(_, link)| link.subscribed.is_empty())
            .filter(|(peer, link)| {
                let patience = patience * (1 << self.links.mends.get(peer).map_or(0, |n| *n.min(&6)));
                link.gossips.is_some_and(|since| now.duration_since(since) >= patience)
            })
            .map(|(peer, _)| *peer)
            .collect();
        for peer in mute {
            tracing::info!(%peer, "gossip with this peer is one-sided: connecting afresh");
            self.shared.counters.mended.add(1);
            if self.links.mends.len() >= MEMBERS {
                self.links.mends.clear();
            }
            *self.links.mends.entry(peer).or_default() += 1;
            if let Some(link) = self.links.all.get_mut(&peer) {
                link.gossips = None;
            }
            let _ = self.swarm.disconnect_peer_id(peer);
        }
    }

    pub(super) fn report_traffic(&mut self, now: Instant) {
        let due = self.links.reported.is_none_or(|at| now.duration_since(at) >= self.config.pace.traffic);
        if due {
            self.links.reported = Some(now);
            self.links.up().for_each(|(_, link)| self.report_traffic_of(&link.session));
        }
    }

    fn report_traffic_of(&self, session: &Session) {
        let (traffic, peer) = (&session.traffic, session.node);
        let (bytes, answered) = (traffic.bytes.take(), traffic.answered.take());
        let (failed, served) = (traffic.failed.take(), traffic.served.take());
        if bytes + answered + failed + served == 0 {
            return;
        }
        let event = PeerEvent::Traffic { peer, bytes, answered, failed, served };
        if self.shared.offer(NetEvent::Peer(event)).is_some() {
            // Told with the next account.
            traffic.bytes.add(bytes);
            traffic.answered.add(answered);
            traffic.failed.add(failed);
            traffic.served.add(served);
        }
    }
}

/// Where this node dialled the peer, if it did, and the other end's address. That
/// of a connection that came over a relay names the relay.
fn ends(peer: PeerId, endpoint: &ConnectedPoint) -> (Option<Multiaddr>, Multiaddr) {
    match endpoint {
        ConnectedPoint::Dialer { address, .. } => (Some(address.clone()), address.clone()),
        ConnectedPoint::Listener { local_addr, .. } if endpoint.is_relayed() => {
            (None, local_addr.clone().with(Protocol::P2p(peer)))
        }
        ConnectedPoint::Listener { send_back_addr, .. } => (None, send_back_addr.clone()),
    }
}

/// At most as much of a text from outside as a person reads.
pub(super) fn cut(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(TEXT_BYTES / 4).collect()
}

/// Twice what whoever leaves waits before it hangs up.
const HANGS_UP: Duration = Duration::from_secs(4);
/// Bad frames from one peer.
const STRIKES: u32 = 8;
/// Failed pings one after the other.
const PINGS: u32 = 2;
