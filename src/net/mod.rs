//! The network: one swarm actor; what it carries is the core's messages.
//!
//! The node's thread puts messages into the queue of each peer ([`Net::send`],
//! [`Net::send_batch`]); a writer task of that peer encodes everything that is
//! queued into one frame and writes it to a long-lived stream. What arrives is
//! decoded by a reader task and offered to the node; while the node is full,
//! that stream is not read. The swarm actor itself only moves events: peers come
//! and go, are dialled again, and prove the mesh key before anything is served.

mod actor;
mod behaviour;
mod blobs;
mod codec;
mod counters;
mod crowd;
mod dialling;
mod discovery;
pub mod door;
mod gate;
mod gossip;
mod hello;
mod holes;
pub mod invite;
mod jobs;
mod keys;
mod links;
mod lobby;
mod muxer;
mod paths;
mod queue;
mod relays;
mod session;
mod stream;
#[cfg(test)]
mod tests;
mod transport;
pub mod wire;

pub use blobs::FarBlobs;
pub use counters::Counts;
pub use keys::{PROTOCOL_VERSIONS, Versions};

use actor::Order;
use counters::Counters;
use gate::Gate;
use keys::Keys;
use libp2p::identity::Keypair;
use libp2p::metrics::Registry;
use session::Shared;
use std::sync::Arc;
use std::time::Duration;
use taskmesh_core::{BlobHash, Message, NetCommand, NodeId, PeerEvent};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};

/// What a network needs to start.
#[derive(Clone)]
pub struct NetConfig {
    /// Seed of the node's Ed25519 key.
    pub identity: [u8; 32],
    /// What all members of the mesh know and nobody else.
    pub mesh_key: [u8; 32],
    /// Multiaddresses to listen on; port 0 picks a free one.
    pub listen: Vec<String>,
    /// Multiaddresses to dial until somebody is there; best with `/p2p/<id>`.
    pub seeds: Vec<String>,
    /// Members from the disk and where they were reached.
    pub known: Vec<(NodeId, Vec<String>)>,
    /// Members that were left by hand: neither dialled nor let in.
    pub banished: Vec<NodeId>,
    /// Nodes that are gone for ever: the same, and told so if they come.
    pub forgotten: Vec<NodeId>,
    /// Where others can reach this node, if that differs from what it sees.
    pub external: Vec<String>,
    /// Find members on the local network.
    pub mdns: Switch,
    /// Find out by other nodes whether this one can be reached.
    pub autonat: Switch,
    /// Connections of others that this node carries at once; 0: it is no relay.
    pub circuits: usize,
    /// Be reached, and reach others, over relays.
    pub relays: Switch,
    /// Replace relayed connections by direct ones; only with `relays`.
    pub hole_punching: Switch,
    /// Only these may connect; empty: every holder of the mesh key.
    pub allow: Vec<NodeId>,
    /// These may not.
    pub deny: Vec<NodeId>,
    /// Bounds.
    pub limits: Limits,
    /// Intervals.
    pub pace: Pace,
    /// Program and version, for identify.
    pub agent: String,
    /// [`PROTOCOL_VERSIONS`]; others are for tests of nodes of several versions.
    pub versions: Versions,
}

/// Neither key goes to a log.
impl std::fmt::Debug for NetConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NetConfig").field("listen", &self.listen).field("seeds", &self.seeds).finish_non_exhaustive()
    }
}

impl Default for NetConfig {
    fn default() -> NetConfig {
        NetConfig {
            identity: [0; 32],
            mesh_key: [0; 32],
            listen: Vec::new(),
            seeds: Vec::new(),
            known: Vec::new(),
            banished: Vec::new(),
            forgotten: Vec::new(),
            external: Vec::new(),
            mdns: Switch::Off,
            autonat: Switch::Off,
            circuits: 0,
            relays: Switch::Off,
            hole_punching: Switch::Off,
            allow: Vec::new(),
            deny: Vec::new(),
            limits: Limits::default(),
            pace: Pace::default(),
            agent: concat!("taskmesh/", env!("CARGO_PKG_VERSION")).to_owned(),
            versions: PROTOCOL_VERSIONS,
        }
    }
}

/// Whether something is done at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Switch {
    /// It is not.
    #[default]
    Off,
    /// It is.
    On,
}

impl From<bool> for Switch {
    fn from(on: bool) -> Switch {
        if on { Switch::On } else { Switch::Off }
    }
}

/// Bounds of the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Peers that this node connects to of its own accord: a fleet up to this
    /// size is fully connected.
    pub peers: usize,
    /// Connections in all; a peer can have more than one.
    pub connections: u32,
    /// Connections to one peer. One is too few: after a restart the old one
    /// would keep the new one out. Where both ends dial, there are two, and for a
    /// moment two over relays beside two direct ones.
    pub connections_per_peer: u32,
    /// Handshakes under way, each way.
    pub pending: u32,
    /// Messages that wait for one peer.
    pub queued_messages: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { peers: 50, connections: 128, connections_per_peer: 6, pending: 128, queued_messages: 16_384 }
    }
}

/// How often things happen. Tests shorten them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Between pings.
    pub ping: Duration,
    /// A ping without an answer for so long has failed.
    pub ping_timeout: Duration,
    /// Of gossipsub.
    pub gossip_heartbeat: Duration,
    /// The first wait before a lost peer is dialled again; it doubles.
    pub redial: Duration,
    /// The longest such wait.
    pub redial_max: Duration,
    /// A peer that gossips but has no subscription for so long is redialled.
    pub one_sided: Duration,
    /// Between walks through Kademlia while peers are still being found; ten
    /// times as long otherwise.
    pub walk: Duration,
    /// Between accounts of traffic.
    pub traffic: Duration,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace {
            ping: Duration::from_secs(5),
            ping_timeout: Duration::from_secs(5),
            gossip_heartbeat: Duration::from_millis(600),
            redial: Duration::from_millis(250),
            redial_max: Duration::from_secs(30),
            one_sided: Duration::from_secs(5),
            walk: Duration::from_secs(3),
            traffic: Duration::from_secs(5),
        }
    }
}

impl Pace {
    /// For a mesh in which a node that is silent for `lease` is replaced: a
    /// connection over which nothing comes back is given up about as soon and
    /// made anew. TCP alone would go on with it, after pauses that have grown
    /// as long as the network was parted.
    #[must_use]
    pub fn of_lease(lease: Duration) -> Pace {
        Pace {
            ping: (lease / 2).clamp(Duration::from_millis(500), Duration::from_secs(5)),
            ping_timeout: lease.clamp(Duration::from_secs(2), Duration::from_secs(5)),
            redial_max: (lease * 4).clamp(Duration::from_secs(5), Duration::from_secs(30)),
            ..Pace::default()
        }
    }
}

/// What the network tells the node.
#[derive(Clone, Debug)]
pub enum NetEvent {
    /// Messages: all that one frame held, so that the node takes up together
    /// what was said together. The sender is proven by its connection, or by
    /// its signature where it was gossiped.
    Received {
        /// Who sent them.
        from: NodeId,
        /// What, in order.
        messages: Vec<Message>,
    },
    /// Something about a peer.
    Peer(PeerEvent),
    /// The end of [`Net::fetch`].
    Fetched {
        /// Which blob.
        hash: BlobHash,
        /// It is on this node's disk.
        here: bool,
    },
    /// Where this node can be reached now, as multiaddresses with its peer id.
    Listening(Vec<String>),
    /// To be dropped once everything before it was taken up: somebody waits for
    /// that.
    Reached(Arc<DropGuard>),
}

/// Takes an event: returns `None` if it was taken, or gives it back if the node
/// is full. Called from many tasks; it must not block.
pub type Events = Box<dyn Fn(NetEvent) -> Option<NetEvent> + Send + Sync>;

/// How the network reads and keeps blobs. Both run where blocking is allowed.
pub struct BlobAccess {
    /// Up to so many bytes of a blob from an offset; `None`: it is not here.
    pub read: ReadBlob,
    /// Keeps a blob of that hash and size: its pieces come in order, and end
    /// early if the sender was lost. Returns whether it is whole, verified and
    /// on disk.
    pub receive: ReceiveBlob,
}

/// See [`BlobAccess::read`].
pub type ReadBlob = Box<dyn Fn(BlobHash, u64, usize) -> Option<Vec<u8>> + Send + Sync>;
/// See [`BlobAccess::receive`].
pub type ReceiveBlob = Box<dyn Fn(BlobHash, u64, &mut dyn Iterator<Item = Vec<u8>>) -> bool + Send + Sync>;

/// Why a network did not start. Nothing was left running.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The identity is unusable.
    #[error("the node's identity is unusable: {0}")]
    Identity(String),
    /// A multiaddress does not parse.
    #[error("{address:?} is not a multiaddress (such as /ip4/0.0.0.0/tcp/7401): {problem}")]
    Address {
        /// As given.
        address: String,
        /// What is wrong.
        problem: String,
    },
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {problem}")]
    Listen {
        /// Which.
        address: String,
        /// Why, from the system.
        problem: String,
    },
    /// Nobody answers at an address, or not the one that was meant.
    #[error("cannot reach {address}: {problem}")]
    Dial {
        /// Which.
        address: String,
        /// Why.
        problem: String,
    },
    /// The gossip protocol refused its settings.
    #[error("gossip cannot be set up: {0}")]
    Gossip(String),
    /// Multicast DNS is not possible here.
    #[error("multicast DNS cannot be used here (switch it off): {0}")]
    Mdns(String),
    /// There is no tokio runtime.
    #[error("the network needs a tokio runtime: {0}")]
    Runtime(String),
}

/// A running network. Dropping it closes every connection.
pub struct Net {
    node: NodeId,
    shared: Arc<Shared>,
    orders: mpsc::Sender<Order>,
    numbers: gossip::Numbers,
    /// Its drop tells the actor to close.
    _running: DropGuard,
}

/// Counts and metrics of a network; they outlive it.
#[derive(Clone)]
pub struct Meters {
    shared: Arc<Shared>,
}

impl Meters {
    /// What was counted since the start.
    #[must_use]
    pub fn counters(&self) -> Counts {
        self.shared.counters.snapshot()
    }

    /// libp2p's own metrics, in OpenMetrics text without its end mark.
    #[must_use]
    pub fn text(&self) -> String {
        self.shared.metrics_text()
    }
}

/// The name of the node whose Ed25519 key has this seed.
///
/// # Errors
/// The seed is unusable.
pub fn node_of(identity: &[u8; 32]) -> Result<NodeId, NetError> {
    let mut seed = *identity;
    let keypair = Keypair::ed25519_from_bytes(&mut seed).map_err(|e| NetError::Identity(e.to_string()))?;
    gate::node_of(&keypair.public().to_peer_id()).ok_or_else(|| NetError::Identity("not an Ed25519 key".into()))
}

/// Starts the network on the current tokio runtime.
///
/// # Errors
/// Bad addresses, a port in use, or no runtime; nothing is left running.
pub fn start(config: NetConfig, blobs: BlobAccess, events: Events) -> Result<Net, NetError> {
    let runtime = tokio::runtime::Handle::try_current().map_err(|e| NetError::Runtime(e.to_string()))?;
    let mut seed = config.identity;
    let keypair = Keypair::ed25519_from_bytes(&mut seed).map_err(|e| NetError::Identity(e.to_string()))?;
    let me = keypair.public().to_peer_id();
    let node = gate::node_of(&me).ok_or_else(|| NetError::Identity("not an Ed25519 key".into()))?;
    let counters = Arc::new(Counters::default());
    let gate =
        Arc::new(Gate::new(me, &config.allow, &config.deny, (&config.banished, &config.forgotten), counters.clone()));
    let keys = Keys::new(&config.mesh_key, config.versions);
    let boot = u64::from_be_bytes(hello::nonce()[..8].try_into().expect("8 of 32"));
    let mut registry = Registry::default();
    let parts = actor::Setup { keypair, keys, gate, boot, config, blobs };
    let swarm = parts.swarm(&mut registry)?;
    let metrics = libp2p::metrics::Metrics::new(&mut registry);
    let shared = Arc::new(Shared::new(counters, registry, events));
    let (orders, inbox) = mpsc::channel(ORDERS);
    let actor = actor::Actor::new(parts, swarm, metrics, shared.clone(), orders.clone())?;
    let running = CancellationToken::new();
    runtime.spawn(actor.run(inbox, running.clone()));
    Ok(Net { node, shared, orders, numbers: gossip::Numbers::new(boot), _running: running.drop_guard() })
}

impl Net {
    /// This node's name.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Queues a message for a peer. `false`: it is not connected, or its queue is
    /// full; the message is gone.
    pub fn send(&self, to: NodeId, message: Message) -> bool {
        self.shared.send([(to, message)]) == 0
    }

    /// Queues messages; those to one peer keep their order, and its writer is
    /// woken once. Returns how many were refused, as by [`Net::send`].
    pub fn send_batch(&self, messages: Vec<(NodeId, Message)>) -> usize {
        self.shared.send(messages)
    }

    /// Gossips a beat or an announcement: a hint, which may be lost. With nobody
    /// to hear it, or over the rate, it is dropped and counted.
    pub fn publish(&self, message: &Message) {
        let order = self.numbers.publication(message).map(|(topic, bytes)| Order::Publish { topic, bytes });
        if order.is_none_or(|order| self.orders.try_send(order).is_err()) {
            self.shared.counters.gossip_dropped.add(1);
        }
    }

    /// Gives an order; its end comes as [`PeerEvent::Done`].
    pub fn command(&self, command: NetCommand) {
        self.order(Order::Command(command));
    }

    /// Brings a blob here from a peer; the end comes as [`NetEvent::Fetched`].
    pub fn fetch(&self, hash: BlobHash, bytes: u64, from: NodeId) {
        self.order(Order::Fetch { hash, bytes, from });
    }

    /// Reads what other nodes have of blobs.
    #[must_use]
    pub fn far_blobs(&self) -> FarBlobs {
        FarBlobs { shared: self.shared.clone(), orders: self.orders.clone() }
    }

    /// Where this node can be reached, as multiaddresses with its peer id.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        self.shared.addresses()
    }

    /// libp2p's own metrics in the OpenMetrics text format, without `# EOF`.
    #[must_use]
    pub fn metrics_text(&self) -> String {
        self.shared.metrics_text()
    }

    /// What was counted since the start.
    #[must_use]
    pub fn counters(&self) -> Counts {
        self.shared.counters.snapshot()
    }

    /// Writes out what is queued, as far as that takes no longer than a second,
    /// and closes every connection.
    pub async fn close(self) {
        let (done, closed) = oneshot::channel();
        if self.orders.send(Order::Close(done)).await.is_ok() {
            let _ = closed.await;
        }
    }

    /// Its counts and metrics, for whoever shows them.
    #[must_use]
    pub fn meters(&self) -> Meters {
        Meters { shared: self.shared.clone() }
    }

    fn order(&self, order: Order) {
        let Err(refused) = self.orders.try_send(order) else { return };
        if let Some(event) = refused.into_inner().refusal() {
            self.shared.post(event);
        }
    }
}

/// Commands, publications and reports of tasks that wait for the actor.
const ORDERS: usize = 1024;
