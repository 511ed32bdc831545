//! The swarm actor: the one task that owns the swarm. It moves events and keeps
//! books; whatever takes time happens in other tasks.

use super::behaviour::{Behaviour, BehaviourEvent, Parts};
use super::blobs::Blobs;
use super::codec::{Answer, Ask};
use super::dialling::Dials;
use super::discovery::{Book, plausible};
use super::gate::{Gate, node_of, peer_of};
use super::gossip::Rate;
use super::hello::Hello;
use super::jobs::Jobs;
use super::keys::Keys;
use super::links::Links;
use super::relays::Relays;
use super::session::Shared;
use super::{BlobAccess, NetConfig, NetError, NetEvent, Switch, transport};
use futures::StreamExt;
use libp2p::identity::Keypair;
use libp2p::metrics::{Metrics, Recorder, Registry};
use libp2p::multiaddr::Protocol;
use libp2p::request_response::{self, InboundRequestId, OutboundRequestId, ResponseChannel};
use libp2p::swarm::{self, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Stream, Swarm};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use taskmesh_core::{BlobHash, NetCommand, NodeId, PeerEvent};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};

/// What the actor is told by the node's thread and by the tasks of this module.
pub(super) enum Order {
    Publish { topic: &'static str, bytes: Vec<u8> },
    Command(NetCommand),
    Fetch { hash: BlobHash, bytes: u64, from: NodeId },
    Close(oneshot::Sender<()>),
    Ask { peer: PeerId, ask: Ask, reply: oneshot::Sender<Option<Answer>> },
    Answer { channel: ResponseChannel<Answer>, answer: Answer },
    Usable { peer: PeerId, session: u64 },
    Drained { peer: PeerId, session: u64 },
    SaidAll { peer: PeerId, session: u64, told: DropGuard },
    Rests { peer: PeerId, session: u64 },
    PeerRests { peer: PeerId, session: u64 },
    Strike { peer: PeerId },
}

impl Order {
    /// What the node is told when there is no room for its order.
    pub(super) fn refusal(self) -> Option<NetEvent> {
        match self {
            Order::Command(command) => super::jobs::refused(&command),
            Order::Fetch { hash, .. } => Some(NetEvent::Fetched { hash, here: false }),
            _ => None,
        }
    }
}

/// What an actor is made of.
pub(super) struct Setup {
    pub(super) keypair: Keypair,
    pub(super) keys: Keys,
    pub(super) gate: Arc<Gate>,
    pub(super) boot: u64,
    pub(super) config: NetConfig,
    pub(super) blobs: BlobAccess,
}

impl Setup {
    pub(super) fn swarm(
        &self,
        registry: &mut Registry,
    ) -> Result<(Swarm<Behaviour>, libp2p_stream::Control), NetError> {
        let hello = Hello { keys: self.keys.clone(), gate: self.gate.clone() };
        let relays = match self.config.relays {
            Switch::Off => None,
            Switch::On => Some(libp2p::relay::client::new(self.keypair.public().to_peer_id())),
        };
        let (over_relays, relays) = relays.unzip();
        let transport = transport::build(&self.keypair, &hello, over_relays, registry)?;
        let (behaviour, control) = Behaviour::new(Parts {
            keypair: &self.keypair,
            keys: &self.keys,
            // A new boot shows the others that what they have of this node is old.
            agent: format!("{} boot/{:016x}", self.config.agent, self.boot),
            config: &self.config,
            counters: self.gate.counters().clone(),
            relays,
        })?;
        let settings = swarm::Config::with_tokio_executor().with_idle_connection_timeout(IDLE);
        let mut swarm = Swarm::new(transport, behaviour, self.keypair.public().to_peer_id(), settings);
        for address in &self.config.listen {
            swarm
                .listen_on(parse(address)?)
                .map_err(|e| NetError::Listen { address: address.clone(), problem: e.to_string() })?;
        }
        for address in &self.config.external {
            swarm.add_external_address(parse(address)?);
        }
        Ok((swarm, control))
    }

    fn book(&self, now: Instant) -> Result<Book, NetError> {
        let pace = &self.config.pace;
        let mut book = Book::new(self.gate.me(), self.boot, pace.redial, pace.redial_max);
        for (node, addresses) in &self.config.known {
            // An address that an older version wrote may not parse any more.
            let addresses: Vec<_> = addresses.iter().filter_map(|a| a.parse().ok()).collect();
            book.learn(peer_of(node), &addresses, super::discovery::Source::Member, now);
        }
        for seed in &self.config.seeds {
            book.add_seed(parse(seed)?, now);
        }
        for node in self.config.banished.iter().chain(&self.config.forgotten) {
            book.banish(peer_of(node), now);
        }
        Ok(book)
    }
}

/// See the module.
pub(super) struct Actor {
    pub(super) swarm: Swarm<Behaviour>,
    pub(super) control: libp2p_stream::Control,
    pub(super) shared: Arc<Shared>,
    pub(super) orders: mpsc::Sender<Order>,
    pub(super) config: NetConfig,
    pub(super) keys: Keys,
    pub(super) gate: Arc<Gate>,
    pub(super) boot: u64,
    pub(super) book: Book,
    pub(super) links: Links,
    pub(super) jobs: Jobs,
    pub(super) dials: Dials,
    pub(super) blobs: Blobs,
    pub(super) relays: Relays,
    metrics: Metrics,
    rate: Rate,
    asked: HashMap<OutboundRequestId, Asked>,
    answering: HashMap<InboundRequestId, Answering>,
    listening: Vec<Multiaddr>,
    closing: Option<Closing>,
}

struct Answering {
    peer: PeerId,
    /// A place among the requests that are served at once.
    _place: Option<OwnedSemaphorePermit>,
}

struct Asked {
    peer: PeerId,
    reply: oneshot::Sender<Option<Answer>>,
}

struct Closing {
    done: Vec<oneshot::Sender<()>>,
    until: Instant,
    hung_up: HungUp,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum HungUp {
    Yes,
    No,
}

impl Actor {
    pub(super) fn new(
        setup: Setup,
        (swarm, control): (Swarm<Behaviour>, libp2p_stream::Control),
        metrics: Metrics,
        shared: Arc<Shared>,
        orders: mpsc::Sender<Order>,
    ) -> Result<Actor, NetError> {
        let now = Instant::now();
        let book = setup.book(now)?;
        Ok(Actor {
            blobs: Blobs::new(setup.blobs, shared.clone(), orders.clone()),
            swarm,
            control,
            shared,
            orders,
            keys: setup.keys,
            gate: setup.gate,
            boot: setup.boot,
            book,
            links: Links::default(),
            jobs: Jobs::default(),
            relays: Relays::default(),
            dials: Dials::new(now),
            metrics,
            rate: Rate::new(now),
            asked: HashMap::new(),
            answering: HashMap::new(),
            listening: Vec::new(),
            closing: None,
            config: setup.config,
        })
    }

    /// Runs until it is told to close, or `dropped`.
    pub(super) async fn run(mut self, mut inbox: mpsc::Receiver<Order>, dropped: CancellationToken) {
        let Ok(mut incoming) = self.control.accept(self.keys.protocol("stream")) else {
            tracing::error!("the stream protocol is registered twice: the network does not start");
            return;
        };
        // A task of its own: streams that nobody takes at once are dropped.
        let (accepted, mut streams) = mpsc::channel(STREAMS);
        let accepting = tokio::spawn(async move {
            while let Some(stream) = incoming.next().await {
                if accepted.send(stream).await.is_err() {
                    break;
                }
            }
        });
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = self.swarm.select_next_some() => self.on_swarm_event(event),
                Some(order) = inbox.recv() => self.on_order(order),
                Some((peer, stream)) = streams.recv() => self.on_stream(peer, stream),
                _ = tick.tick() => self.on_tick(Instant::now()),
                () = dropped.cancelled(), if self.closing.is_none() => self.begin_close(None),
            }
            self.shared.post_late();
            if self.closed(Instant::now()) {
                break;
            }
        }
        accepting.abort();
        for done in self.closing.into_iter().flat_map(|c| c.done) {
            let _ = done.send(());
        }
    }

    fn on_order(&mut self, order: Order) {
        match order {
            Order::Publish { topic, bytes } => self.publish(topic, bytes),
            Order::Command(command) => self.on_command(command),
            Order::Fetch { hash, bytes, from } => self.blobs.fetch(hash, bytes, from),
            Order::Close(done) => self.begin_close(Some(done)),
            Order::Ask { peer, ask, reply } => self.ask(peer, ask, reply),
            Order::Answer { channel, answer } => {
                // An asker that is gone needs no answer.
                let _ = self.swarm.behaviour_mut().requests.send_response(channel, answer);
            }
            Order::Usable { peer, session } => self.on_usable(peer, session),
            Order::Drained { peer, session } => self.on_drained(peer, session),
            Order::SaidAll { peer, session, told } => self.on_said_all(peer, session, told),
            Order::Rests { peer, session } => self.on_rests(peer, session),
            Order::PeerRests { peer, session } => self.on_peer_rests(peer, session),
            Order::Strike { peer } => self.on_strike(peer),
        }
    }

    fn on_stream(&mut self, peer: PeerId, stream: Stream) {
        self.links.on_stream(peer, stream, &self.shared, &self.orders, &self.blobs.large);
    }

    fn on_tick(&mut self, now: Instant) {
        if self.closing.is_none() {
            self.dial_due(now);
            self.watch(now);
            self.watch_relays(now);
            self.watch_paths(now);
            self.walk(now);
        }
        self.tick_jobs(now);
        self.watch_left(now);
        self.report_traffic(now);
        for by in self.gate.take_cast_out() {
            self.shared.post(NetEvent::Peer(PeerEvent::CastOut { by }));
        }
    }

    fn on_swarm_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        self.metrics.record(&event);
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour_event(event),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.on_connected(peer_id, connection_id, &endpoint);
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, num_established, cause, .. } => {
                tracing::debug!(peer = %peer_id, connection = %connection_id, ?cause, "connection closed");
                self.on_closed(peer_id, connection_id, num_established);
            }
            SwarmEvent::Dialing { peer_id, .. } => self.on_dialling(peer_id),
            SwarmEvent::OutgoingConnectionError { connection_id, peer_id, error } => {
                self.on_dial_failed(connection_id, peer_id, &error);
            }
            SwarmEvent::IncomingConnectionError { send_back_addr, error, peer_id, .. } => {
                self.on_incoming_failed(&send_back_addr, peer_id, &error);
            }
            SwarmEvent::NewListenAddr { listener_id, address } => {
                self.on_place(listener_id);
                self.announce_as_relay(&address);
                self.listening.push(address);
                self.on_addresses();
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                self.listening.retain(|a| *a != address);
                self.on_addresses();
            }
            SwarmEvent::ExternalAddrConfirmed { .. } | SwarmEvent::ExternalAddrExpired { .. } => self.on_addresses(),
            SwarmEvent::ListenerClosed { listener_id, addresses, reason } => {
                if !self.on_place_lost(listener_id) {
                    tracing::warn!(?addresses, ?reason, "no longer listening");
                }
                self.listening.retain(|a| !addresses.contains(a));
                self.on_addresses();
            }
            SwarmEvent::ListenerError { error, .. } => tracing::warn!(%error, "a listener failed for a moment"),
            _ => {}
        }
    }

    fn on_behaviour_event(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Identify(event) => {
                self.metrics.record(&event);
                self.on_identify(event);
            }
            BehaviourEvent::Ping(event) => {
                self.metrics.record(&event);
                self.on_ping(&event);
            }
            BehaviourEvent::Kad(event) => {
                self.metrics.record(&event);
                self.on_kad(event);
            }
            BehaviourEvent::Gossip(event) => {
                self.metrics.record(&event);
                self.on_gossip(event);
            }
            BehaviourEvent::Requests(event) => self.on_request_event(event),
            BehaviourEvent::Mdns(event) => self.on_mdns(event),
            BehaviourEvent::Circuits(event) => self.on_circuits(&event),
            BehaviourEvent::Holes(event) => self.on_hole(&event),
            BehaviourEvent::Autonat(event) => self.on_dial_back(event),
            // Places show as addresses, and connections as such.
            BehaviourEvent::Relays(event) => tracing::debug!(?event, "a relay"),
            BehaviourEvent::Limits(never) => match never {},
            BehaviourEvent::Streams(()) => {}
        }
    }

    fn on_addresses(&mut self) {
        let me = self.gate.me();
        let external = self.swarm.external_addresses();
        let mut texts = Vec::new();
        for address in external.chain(&self.listening).filter(|a| plausible(a)) {
            let text = super::discovery::split_peer(address).0.with(Protocol::P2p(me)).to_string();
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        self.shared.set_addresses(texts.clone());
        self.shared.post(NetEvent::Listening(texts));
    }

    fn publish(&mut self, topic: &'static str, bytes: Vec<u8>) {
        let counters = &self.shared.counters;
        if !self.rate.allows(Instant::now()) {
            counters.gossip_dropped.add(1);
            return;
        }
        let topic = self.keys.topic(topic);
        match self.swarm.behaviour_mut().gossip.publish(topic, bytes) {
            Ok(_) => counters.gossip_sent.add(1),
            // A lone node, mostly.
            Err(error) => {
                tracing::trace!(%error, "not gossiped");
                counters.gossip_dropped.add(1);
            }
        }
    }

    pub(super) fn ask(&mut self, peer: PeerId, ask: Ask, reply: oneshot::Sender<Option<Answer>>) {
        if !self.swarm.is_connected(&peer) {
            let _ = reply.send(None);
            return;
        }
        if let Some(moving) = self.links.change(&peer).and_then(|link| link.moving.as_mut()) {
            if let Err(reply) = moving.hold(ask, reply) {
                let _ = reply.send(None);
            }
            return;
        }
        let id = self.swarm.behaviour_mut().requests.send_request(&peer, ask);
        self.asked.insert(id, Asked { peer, reply });
    }

    fn on_request_event(&mut self, event: request_response::Event<Ask, Answer>) {
        match event {
            request_response::Event::Message { peer, message, .. } => match message {
                request_response::Message::Request { request_id, request, channel } => {
                    self.on_request(peer, request_id, request, channel);
                }
                request_response::Message::Response { request_id, response } => {
                    self.on_answer(request_id, Some(response));
                }
            },
            request_response::Event::OutboundFailure { request_id, error, .. } => {
                tracing::debug!(%error, "a request failed");
                self.on_answer(request_id, None);
            }
            request_response::Event::InboundFailure { peer, request_id, error, .. } => {
                tracing::debug!(%peer, %error, "a request was not answered");
                self.answering.remove(&request_id);
            }
            request_response::Event::ResponseSent { peer, request_id, .. } => {
                self.answering.remove(&request_id);
                self.shared.counters.requests_served.add(1);
                if let Some(session) = node_of(&peer).and_then(|node| self.shared.session(&node)) {
                    session.traffic.served.add(1);
                }
            }
        }
    }

    fn on_request(&mut self, peer: PeerId, id: InboundRequestId, ask: Ask, channel: ResponseChannel<Answer>) {
        let reader = self.links.reader(&peer, &self.shared, &self.orders, &self.blobs.large);
        let place = self.blobs.serve(ask, channel, reader);
        self.answering.insert(id, Answering { peer, _place: place });
    }

    /// Whether no request to or from the peer is under way.
    pub(super) fn is_quiet(&self, peer: &PeerId) -> bool {
        self.asked.values().all(|asked| asked.peer != *peer) && self.answering.values().all(|a| a.peer != *peer)
    }

    fn on_answer(&mut self, id: OutboundRequestId, answer: Option<Answer>) {
        let Some(asked) = self.asked.remove(&id) else { return };
        let session = node_of(&asked.peer).and_then(|node| self.shared.session(&node));
        let counters = &self.shared.counters;
        let (all, of_peer) = match answer {
            Some(_) => (&counters.requests_answered, session.as_ref().map(|s| &s.traffic.answered)),
            None => (&counters.requests_failed, session.as_ref().map(|s| &s.traffic.failed)),
        };
        all.add(1);
        if let Some(count) = of_peer {
            count.add(1);
        }
        // Whoever asked may have given up.
        let _ = asked.reply.send(answer);
    }

    fn begin_close(&mut self, done: Option<oneshot::Sender<()>>) {
        let now = Instant::now();
        let closing =
            self.closing.get_or_insert(Closing { done: Vec::new(), until: now + LAST_WRITES, hung_up: HungUp::No });
        closing.done.extend(done);
        self.links.sessions().for_each(|session| session.queue.close());
    }

    /// Whether everything is written and every connection closed, or the time for
    /// it is over. Connections are closed by name, so that the others know at once.
    fn closed(&mut self, now: Instant) -> bool {
        let Some(closing) = &mut self.closing else { return false };
        if closing.hung_up == HungUp::No && (self.links.all_drained() || now >= closing.until) {
            closing.hung_up = HungUp::Yes;
            closing.until = now + LAST_GOODBYES;
            let peers: Vec<_> = self.swarm.connected_peers().copied().collect();
            for peer in peers {
                let _ = self.swarm.disconnect_peer_id(peer);
            }
        }
        closing.hung_up == HungUp::Yes && (self.links.is_empty() || now >= closing.until)
    }
}

fn parse(address: &str) -> Result<Multiaddr, NetError> {
    address.parse().map_err(|e: libp2p::multiaddr::Error| NetError::Address {
        address: address.to_owned(),
        problem: e.to_string(),
    })
}

/// Members stay connected; the default of 10 s would cut quiet ones off.
const IDLE: Duration = Duration::from_secs(24 * 3600);
const TICK: Duration = Duration::from_millis(100);
/// Inbound streams that wait for the actor.
const STREAMS: usize = 256;
/// For writing out what is queued.
const LAST_WRITES: Duration = Duration::from_secs(1);
/// For closing the connections.
const LAST_GOODBYES: Duration = Duration::from_millis(500);
