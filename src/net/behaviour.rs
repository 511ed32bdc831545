//! The protocols of a node, put together; every limit of theirs is set here.

use super::codec::Codec;
use super::counters::Counters;
use super::keys::Keys;
use super::{Limits, Mdns, NetError, Pace};
use libp2p::gossipsub::{self, MessageAuthenticity, MessageId, ValidationMode, WhitelistSubscriptionFilter};
use libp2p::identity::Keypair;
use libp2p::kad::store::{MemoryStore, MemoryStoreConfig};
use libp2p::request_response::ProtocolSupport;
use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{PeerId, connection_limits, identify, kad, mdns, ping, request_response};
use std::sync::Arc;
use std::time::Duration;
use taskmesh_core::limits::GOSSIP_BYTES;

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
}

pub(super) struct Parts<'a> {
    pub(super) keypair: &'a Keypair,
    pub(super) keys: &'a Keys,
    pub(super) agent: String,
    pub(super) limits: &'a Limits,
    pub(super) pace: &'a Pace,
    pub(super) mdns: Mdns,
    pub(super) counters: Arc<Counters>,
}

impl Behaviour {
    pub(super) fn new(parts: &Parts<'_>) -> Result<(Behaviour, libp2p_stream::Control), NetError> {
        let me = parts.keypair.public().to_peer_id();
        let streams = libp2p_stream::Behaviour::new();
        let control = streams.new_control();
        let behaviour = Behaviour {
            limits: connection_limits::Behaviour::new(connection_limits(parts.limits)),
            identify: identify::Behaviour::new(
                identify::Config::new(parts.keys.identity(), parts.keypair.public())
                    .with_agent_version(parts.agent.clone())
                    .with_push_listen_addr_updates(true)
                    .with_interval(IDENTIFY_INTERVAL)
                    // The book remembers; a second cache would only disagree.
                    .with_cache_size(0),
            ),
            ping: ping::Behaviour::new(
                ping::Config::new().with_interval(parts.pace.ping).with_timeout(parts.pace.ping_timeout),
            ),
            kad: kademlia(me, parts.keys),
            gossip: gossip(parts)?,
            requests: request_response::Behaviour::with_codec(
                Codec { counters: parts.counters.clone() },
                [(parts.keys.protocol("ask"), ProtocolSupport::Full)],
                request_response::Config::default()
                    .with_request_timeout(REQUEST_TIMEOUT)
                    .with_max_concurrent_streams(REQUEST_STREAMS),
            ),
            streams,
            mdns: match parts.mdns {
                Mdns::Off => None.into(),
                Mdns::On => Some(
                    mdns::tokio::Behaviour::new(mdns::Config::default(), me)
                        .map_err(|e| NetError::Mdns(e.to_string()))?,
                )
                .into(),
            },
        };
        Ok((behaviour, control))
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
        .heartbeat_interval(parts.pace.gossip_heartbeat)
        .heartbeat_initial_delay(parts.pace.gossip_heartbeat)
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
