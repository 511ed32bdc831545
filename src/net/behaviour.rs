//! The protocols of a node, put together; every limit of theirs is set here.

use super::codec::Codec;
use super::counters::Counters;
use super::holes::Holes;
use super::keys::Keys;
use super::{Limits, NetConfig, NetError, Switch};
use libp2p::gossipsub::{self, MessageAuthenticity, MessageId, ValidationMode, WhitelistSubscriptionFilter};
use libp2p::identity::Keypair;
use libp2p::kad::store::{MemoryStore, MemoryStoreConfig};
use libp2p::request_response::ProtocolSupport;
use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{PeerId, autonat, connection_limits, identify, kad, mdns, ping, relay, request_response};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;
use taskmesh_core::limits::{GOSSIP_BYTES, MEMBERS};

/// Gossip of our own topics only.
pub(super) type Gossip = gossipsub::Behaviour<gossipsub::IdentityTransform, WhitelistSubscriptionFilter>;

#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    limits: connection_limits::Behaviour,
    pub(super) identify: identify::Behaviour,
    ping: ping::Behaviour,
    pub(super) kad: kad::Behaviour<MemoryStore>,
    pub(super) gossip: Gossip,
    pub(super) requests: request_response::Behaviour<Codec>,
    streams: libp2p_stream::Behaviour,
    mdns: Toggle<mdns::tokio::Behaviour>,
    relays: Toggle<relay::client::Behaviour>,
    circuits: Toggle<relay::Behaviour>,
    holes: Toggle<Holes>,
    autonat: Toggle<autonat::Behaviour>,
}

pub(super) struct Parts<'a> {
    pub(super) keypair: &'a Keypair,
    pub(super) keys: &'a Keys,
    pub(super) agent: String,
    pub(super) config: &'a NetConfig,
    pub(super) counters: Arc<Counters>,
    /// Goes with the transport over relays.
    pub(super) relays: Option<relay::client::Behaviour>,
}

impl Behaviour {
    pub(super) fn new(parts: Parts<'_>) -> Result<(Behaviour, libp2p_stream::Control), NetError> {
        let me = parts.keypair.public().to_peer_id();
        let config = parts.config;
        let streams = libp2p_stream::Behaviour::new();
        let control = streams.new_control();
        let behaviour = Behaviour {
            limits: connection_limits::Behaviour::new(connection_limits(&config.limits)),
            identify: identify::Behaviour::new(
                identify::Config::new(parts.keys.identity(), parts.keypair.public())
                    .with_agent_version(parts.agent.clone())
                    .with_push_listen_addr_updates(true)
                    .with_interval(IDENTIFY_INTERVAL)
                    // The book remembers; a second cache would only disagree.
                    .with_cache_size(0),
            ),
            ping: ping::Behaviour::new(
                ping::Config::new().with_interval(config.pace.ping).with_timeout(config.pace.ping_timeout),
            ),
            kad: kademlia(me, parts.keys),
            gossip: gossip(&parts)?,
            requests: request_response::Behaviour::with_codec(
                Codec { counters: parts.counters.clone() },
                [(parts.keys.protocol("ask"), ProtocolSupport::Full)],
                request_response::Config::default()
                    .with_request_timeout(REQUEST_TIMEOUT)
                    .with_max_concurrent_streams(REQUEST_STREAMS),
            ),
            streams,
            mdns: match config.mdns {
                Switch::Off => None.into(),
                Switch::On => Some(
                    mdns::tokio::Behaviour::new(mdns::Config::default(), me)
                        .map_err(|e| NetError::Mdns(e.to_string()))?,
                )
                .into(),
            },
            holes: parts.relays.as_ref().filter(|_| config.hole_punching == Switch::On).map(|_| Holes::new(me)).into(),
            relays: parts.relays.into(),
            circuits: (config.circuits > 0).then(|| relay::Behaviour::new(me, circuits(config.circuits))).into(),
            autonat: (config.autonat == Switch::On).then(|| autonat::Behaviour::new(me, dial_backs())).into(),
        };
        Ok((behaviour, control))
    }
}

/// What this node carries for others. Only members come so far, so the bounds
/// are there against mistakes, and not against strangers. libp2p's own, two
/// minutes and 128 KiB, are for a public relay that only helps two nodes to
/// meet; here a task's result may pass.
fn circuits(at_once: usize) -> relay::Config {
    let config = relay::Config {
        max_reservations: MEMBERS,
        max_reservations_per_peer: 4,
        reservation_duration: RESERVATION,
        reservation_rate_limiters: Vec::new(),
        max_circuits: at_once,
        // All of one node that reaches nobody in any other way.
        max_circuits_per_peer: at_once,
        max_circuit_duration: CIRCUIT_TIME,
        max_circuit_bytes: CIRCUIT_BYTES,
        circuit_src_rate_limiters: Vec::new(),
    };
    // Not by address: a fleet behind one router has one.
    config.reservation_rate_per_peer(BURST, RATE).circuit_src_per_peer(BURST, RATE)
}

/// AutoNAT's first version, for what the second does in this release: it asks
/// only over connections that the node dialled itself, so a seed asks nobody;
/// an address that has failed once is not tried again; and where a router drops
/// the dial, as most do, its server gives up first, and no answer ever comes.
fn dial_backs() -> autonat::Config {
    autonat::Config {
        boot_delay: Duration::from_secs(2),
        // A server dials one address after the other, each for up to 10 s.
        timeout: Duration::from_secs(90),
        max_peer_addresses: 4,
        retry_interval: Duration::from_secs(20),
        throttle_server_period: Duration::from_secs(15),
        // A private network has private addresses.
        only_global_ips: false,
        ..autonat::Config::default()
    }
}

fn connection_limits(limits: &Limits) -> connection_limits::ConnectionLimits {
    connection_limits::ConnectionLimits::default()
        .with_max_pending_incoming(Some(limits.pending))
        .with_max_pending_outgoing(Some(limits.pending))
        .with_max_established(Some(limits.connections))
        .with_max_established_per_peer(Some(limits.connections_per_peer))
}

fn kademlia(me: PeerId, keys: &Keys) -> kad::Behaviour<MemoryStore> {
    let mut config = kad::Config::new(keys.protocol("kad"));
    config
        // The node's own words by identify fill the table, nothing else.
        .set_kbucket_inserts(kad::BucketInserts::Manual)
        // No record of others is stored: Kademlia only finds peers here.
        .set_record_filtering(kad::StoreInserts::FilterBoth)
        .set_caching(kad::Caching::Disabled)
        .set_replication_interval(None)
        .set_publication_interval(None)
        .set_provider_publication_interval(None)
        // The actor walks when there is a reason to.
        .set_periodic_bootstrap_interval(None)
        .set_query_timeout(WALK_TIMEOUT);
    let store = MemoryStore::with_config(me, MemoryStoreConfig { max_records: 0, ..MemoryStoreConfig::default() });
    let mut kad = kad::Behaviour::with_config(me, store, config);
    // In client mode, the default until an external address is confirmed, the
    // routing tables of a private network stay empty.
    kad.set_mode(Some(kad::Mode::Server));
    kad
}

fn gossip(parts: &Parts<'_>) -> Result<Gossip, NetError> {
    let config = gossipsub::ConfigBuilder::default()
        .protocol_id(parts.keys.protocol("gossip").to_string(), gossipsub::Version::V1_1)
        .heartbeat_interval(parts.config.pace.gossip_heartbeat)
        .heartbeat_initial_delay(parts.config.pace.gossip_heartbeat)
        .history_length(10)
        .history_gossip(5)
        .gossip_factor(0.1)
        .flood_publish(true)
        .duplicate_cache_time(Duration::from_secs(120))
        .validation_mode(ValidationMode::Strict)
        .validate_messages()
        .message_id_fn(message_id)
        .max_transmit_size(GOSSIP_BYTES + GOSSIP_ENVELOPE)
        .connection_handler_queue_len(GOSSIP_QUEUE)
        .build()
        .map_err(|e| NetError::Gossip(e.to_string()))?;
    let own = super::gossip::TOPICS.map(|topic| parts.keys.topic(topic).hash());
    let mut gossip = Gossip::new_with_subscription_filter(
        MessageAuthenticity::Signed(parts.keypair.clone()),
        config,
        WhitelistSubscriptionFilter(own.into_iter().collect()),
    )
    .map_err(|e| NetError::Gossip(e.to_owned()))?;
    for topic in super::gossip::TOPICS {
        gossip.subscribe(&parts.keys.topic(topic)).map_err(|e| NetError::Gossip(e.to_string()))?;
    }
    Ok(gossip)
}

/// From the author and the content, which has a number of its own: whatever way
/// it takes, a message is known again.
fn message_id(message: &gossipsub::Message) -> MessageId {
    let mut hasher = blake3::Hasher::new();
    let author = message.source.map(|peer| peer.to_bytes()).unwrap_or_default();
    hasher.update(&(author.len() as u64).to_be_bytes()).update(&author);
    hasher.update(message.topic.as_str().as_bytes()).update(&message.data);
    MessageId::from(&hasher.finalize().as_bytes()[..20])
}

/// Renewed after three quarters of it, by the node that has it.
const RESERVATION: Duration = Duration::from_secs(3600);
/// The longest that one relayed connection lives; its ends make another.
const CIRCUIT_TIME: Duration = Duration::from_secs(24 * 3600);
/// Both ways together: what a busy pair of nodes says in a day over a slow line.
const CIRCUIT_BYTES: u64 = 64 << 30;
/// Reservations, and circuits, of one node at once, and then one in each [`RATE`].
const BURST: NonZeroU32 = NonZeroU32::new(64).expect("it is not zero");
const RATE: Duration = Duration::from_secs(1);
/// A fleet's addresses change rarely, and changes are pushed.
const IDENTIFY_INTERVAL: Duration = Duration::from_secs(60);
/// For one walk through Kademlia.
const WALK_TIMEOUT: Duration = Duration::from_secs(20);
/// Includes the transfer of a chunk of 1 MiB over a slow line.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// In and out together, each connection: callers keep well under half of it.
const REQUEST_STREAMS: usize = 512;
/// Signature, key, topic and framing of a gossiped message.
const GOSSIP_ENVELOPE: usize = 1024;
/// Messages that wait for one slow peer.
const GOSSIP_QUEUE: usize = 1_000;
