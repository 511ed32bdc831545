//! `peer_discover`, `peer_list` and `peer_metrics`; what changes a connection is
//! in `link`.

mod link;

pub use link::{BootstrapNetwork, Bootstrapped, Connected, DialFailure, Disconnected, PeerConnect, PeerDisconnect};

use super::task::page;
use super::{Context, Failure, Kind, Op, mismatch, value};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use taskmesh_core::command::{PeerFilter, PeerSort};
use taskmesh_core::view::{self, PeerMeasure, PeerView};
use taskmesh_core::{Millis, Query, Refusal, Reply, Request, Unix, limits};

/// The longest peer id in text; an Ed25519 one has 52 bytes.
const PEER_ID_BYTES: usize = 64;
/// The longest multiaddress in text.
const ADDRESS_BYTES: usize = 512;
/// All tries of one call end by then, so that the answer comes within 45 s.
const CALL_MS: u64 = 40_000;

/// Find peers.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct PeerDiscover {
    /// Having all of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limits::ATTRIBUTES), inner(length(min = 1, max = limits::TEXT_BYTES)))]
    #[arg(long = "capability")]
    pub capability_filter: Vec<String>,
    /// At most.
    #[serde(default = "ten")]
    #[schemars(range(min = 1, max = limits::PAGE))]
    #[arg(long, default_value_t = ten())]
    pub max_peers: u32,
    /// Seconds of search; at most 40 are used.
    #[serde(default = "half_minute")]
    #[schemars(range(min = 1, max = 300))]
    #[arg(long, default_value_t = half_minute())]
    pub timeout: u64,
    /// What was measured of each.
    #[serde(default)]
    #[arg(long)]
    pub include_metrics: bool,
}

fn ten() -> u32 {
    10
}

fn half_minute() -> u64 {
    30
}

/// What `peer_discover` answers.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Discovered {
    /// What was found.
    pub peers: Vec<FoundPeer>,
    /// How many.
    pub discovered_count: usize,
    /// Seconds that it took.
    pub search_time: f64,
    /// As asked.
    pub capability_filter: Vec<String>,
    /// As asked.
    pub max_peers: u32,
}

/// A peer that was found.
#[derive(Debug, Serialize, JsonSchema)]
pub struct FoundPeer {
    /// Who.
    pub peer_id: String,
    /// Its best address.
    pub multiaddr: Option<String>,
    /// All of its addresses, best first.
    pub multiaddrs: Vec<String>,
    /// What its workers may run.
    pub capabilities: Vec<String>,
    /// When it was last heard.
    pub last_seen: Option<String>,
    /// If asked.
    pub metrics: Option<BriefMetrics>,
}

/// The measurements of a peer in a list; null where nothing was measured.
#[derive(Debug, Serialize, JsonSchema)]
pub struct BriefMetrics {
    /// Ping round trip.
    pub latency_ms: Option<f64>,
    /// Traffic both ways in the last full minute, Mbit/s.
    pub bandwidth_mbps: Option<f64>,
    /// Share of pings and requests that were answered.
    pub reliability_score: Option<f64>,
}

fn brief(measured: &PeerMeasure) -> BriefMetrics {
    BriefMetrics {
        latency_ms: latency_ms(measured),
        bandwidth_mbps: bandwidth_mbps(measured),
        reliability_score: reliability(measured),
    }
}

fn latency_ms(measured: &PeerMeasure) -> Option<f64> {
    measured.round_trip_us.map(|us| us as f64 / 1000.0)
}

fn bandwidth_mbps(measured: &PeerMeasure) -> Option<f64> {
    measured.bytes_last_minute.map(|bytes| bytes as f64 * 8.0 / 60.0 / 1e6)
}

/// Answered of all that was sent; null if nothing was.
fn reliability(measured: &PeerMeasure) -> Option<f64> {
    let answered = measured.pings.saturating_sub(measured.pings_failed) + measured.requests_answered;
    share(answered, measured.pings + measured.requests_answered + measured.requests_failed)
}

fn loss(measured: &PeerMeasure) -> Option<f64> {
    share(measured.pings_failed, measured.pings)
}

/// The share of pings that came back, halved at a round trip of 100 ms, a third
/// at 200 ms, and so on.
fn quality(measured: &PeerMeasure) -> Option<f64> {
    Some((1.0 - loss(measured)?) / (1.0 + latency_ms(measured)? / 100.0))
}

fn share(part: u64, of: u64) -> Option<f64> {
    (of > 0).then(|| (part as f64 / of as f64).clamp(0.0, 1.0))
}

fn texts(all: &[Arc<str>]) -> Vec<String> {
    all.iter().map(ToString::to_string).collect()
}

impl Op for PeerDiscover {
    const NAME: &'static str = "peer_discover";
    const TITLE: &'static str = "Find peers";
    const DESCRIPTION: &'static str = "Searches the network (Kademlia) and the registry for peers, and says what their \
        workers may run.";
    const KIND: Kind = Kind::Read;
    type Output = Discovered;

    fn request(&self) -> Result<Request, Refusal> {
        Ok(Request::Query(Query::Discover {
            capabilities: self.capability_filter.iter().map(|c| c.as_str().into()).collect(),
            max: self.max_peers,
            timeout: Millis((self.timeout * 1000).min(CALL_MS)),
        }))
    }

    fn output(self, reply: Reply, _: &Context<'_>) -> Result<Discovered, Failure> {
        let Reply::Discovered { peers, took } = reply else { return Err(mismatch(Self::NAME)) };
        let found = |peer: PeerView| FoundPeer {
            peer_id: peer.peer.to_string(),
            multiaddr: peer.addresses.first().map(ToString::to_string),
            multiaddrs: texts(&peer.addresses),
            capabilities: texts(&peer.capabilities),
            last_seen: peer.last_seen.map(value::time),
            metrics: self.include_metrics.then(|| brief(&peer.measured)),
        };
        Ok(Discovered {
            discovered_count: peers.len(),
            peers: peers.into_iter().map(found).collect(),
            search_time: value::seconds(took),
            capability_filter: self.capability_filter,
            max_peers: self.max_peers,
        })
    }
}

/// Whether a peer can be talked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum PeerStatus {
    /// Yes.
    Connected,
    /// Soon.
    Connecting,
    /// No.
    Disconnected,
}

/// Orders of peers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum SortBy {
    /// Latest first.
    #[default]
    LastSeen,
    /// Smallest first.
    Latency,
    /// Greatest first.
    Bandwidth,
    /// By name.
    PeerId,
}

/// List known peers.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct PeerList {
    /// In this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[arg(long = "status", value_enum)]
    pub status_filter: Option<PeerStatus>,
    /// Having all of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limits::ATTRIBUTES), inner(length(min = 1, max = limits::TEXT_BYTES)))]
    #[arg(long = "capability")]
    pub capability_filter: Vec<String>,
    /// Order; the best first.
    #[serde(default)]
    #[arg(long, value_enum, default_value_t)]
    pub sort_by: SortBy,
    /// Peers in one page.
    #[serde(default = "page")]
    #[schemars(range(min = 1, max = limits::PAGE))]
    #[arg(long, default_value_t = page())]
    pub limit: u32,
    /// Skip so many.
    #[serde(default)]
    #[schemars(range(max = limits::OFFSET))]
    #[arg(long, default_value_t)]
    pub offset: u32,
    /// `next_cursor` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    #[arg(long)]
    pub cursor: Option<String>,
}

/// What `peer_list` answers.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Peers {
    /// The page.
    pub peers: Vec<PeerItem>,
    /// All that the filter passes.
    pub total_count: u64,
    /// In this page.
    pub returned_count: usize,
    /// There is a next page.
    pub has_more: bool,
    /// For the next page.
    pub next_cursor: Option<String>,
    /// As asked.
    pub limit: u32,
    /// Skipped.
    pub offset: u32,
    /// As asked.
    pub filters: Filters,
}

/// What a list of peers was filtered and sorted by.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Filters {
    /// As asked.
    pub status_filter: Option<PeerStatus>,
    /// As asked.
    pub capability_filter: Vec<String>,
    /// As asked.
    pub sort_by: SortBy,
}

/// One peer of a list.
#[derive(Debug, Serialize, JsonSchema)]
pub struct PeerItem {
    /// Who.
    pub peer_id: String,
    /// Its best address.
    pub multiaddr: Option<String>,
    /// Whether it can be talked to.
    pub status: &'static str,
    /// What its workers may run.
    pub capabilities: Vec<String>,
    /// Since when.
    pub connected_since: Option<String>,
    /// When it was last heard.
    pub last_seen: Option<String>,
    /// What was measured.
    pub metrics: BriefMetrics,
}

impl PeerList {
    fn start(&self) -> Result<u32, Refusal> {
        self.cursor.as_deref().map_or(Ok(self.offset), value::read_peer_cursor)
    }
}

impl Op for PeerList {
    const NAME: &'static str = "peer_list";
    const TITLE: &'static str = "List peers";
    const DESCRIPTION: &'static str = "Peers that this node knows: filtered, sorted, then paged. Not measured: null.";
    const KIND: Kind = Kind::Read;
    type Output = Peers;

    fn request(&self) -> Result<Request, Refusal> {
        Ok(Request::Query(Query::Peers(Box::new(PeerFilter {
            status: self.status_filter.map(|status| match status {
                PeerStatus::Connected => view::PeerStatus::Connected,
                PeerStatus::Connecting => view::PeerStatus::Connecting,
                PeerStatus::Disconnected => view::PeerStatus::Disconnected,
            }),
            capabilities: self.capability_filter.iter().map(|c| c.as_str().into()).collect(),
            sort: match self.sort_by {
                SortBy::LastSeen => PeerSort::LastSeen,
                SortBy::Latency => PeerSort::Latency,
                SortBy::Bandwidth => PeerSort::Bandwidth,
                SortBy::PeerId => PeerSort::PeerId,
            },
            limit: self.limit,
            offset: self.start()?,
        }))))
    }

    fn output(self, reply: Reply, _: &Context<'_>) -> Result<Peers, Failure> {
        let Reply::Peers { peers, total } = reply else { return Err(mismatch(Self::NAME)) };
        let offset = self.start()?;
        let end = offset.saturating_add(u32::try_from(peers.len()).unwrap_or(u32::MAX));
        let has_more = !peers.is_empty() && u64::from(end) < total;
        let item = |peer: PeerView| PeerItem {
            peer_id: peer.peer.to_string(),
            multiaddr: peer.addresses.first().map(ToString::to_string),
            status: peer.status.name(),
            capabilities: texts(&peer.capabilities),
            connected_since: peer.connected_since.map(value::time),
            last_seen: peer.last_seen.map(value::time),
            metrics: brief(&peer.measured),
        };
        Ok(Peers {
            returned_count: peers.len(),
            peers: peers.into_iter().map(item).collect(),
            total_count: total,
            has_more,
            next_cursor: has_more.then(|| value::peer_cursor(end)),
            limit: self.limit,
            offset,
            filters: Filters {
                status_filter: self.status_filter,
                capability_filter: self.capability_filter,
                sort_by: self.sort_by,
            },
        })
    }
}

/// Show what was measured of a peer.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct PeerMetrics {
    /// Whom.
    #[schemars(length(min = 1, max = PEER_ID_BYTES))]
    pub peer_id: String,
    /// Samples over time too.
    #[serde(default)]
    #[arg(long)]
    pub include_history: bool,
    /// How far back.
    #[serde(default = "day")]
    #[schemars(range(min = 1, max = 168))]
    #[arg(long, default_value_t = day())]
    pub history_hours: u32,
}

fn day() -> u32 {
    24
}

/// What `peer_metrics` answers.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Measured {
    /// Whom.
    pub peer_id: String,
    /// Now.
    pub current_metrics: CurrentMetrics,
    /// Its connection.
    pub connection_info: ConnectionInfo,
    /// Of this answer.
    pub timestamp: String,
    /// If asked; oldest first.
    pub history: Option<Vec<Sample>>,
}

/// The measurements of a peer since this node started; null where nothing was measured.
#[derive(Debug, Serialize, JsonSchema)]
pub struct CurrentMetrics {
    /// Ping round trip.
    pub latency_ms: Option<f64>,
    /// Traffic both ways in the last full minute, Mbit/s.
    pub bandwidth_mbps: Option<f64>,
    /// Failed pings of all pings.
    pub packet_loss_percent: Option<f64>,
    /// Share of pings answered ÷ (1 + latency_ms ÷ 100).
    pub connection_quality: Option<f64>,
    /// Share of pings and requests that were answered.
    pub reliability_score: Option<f64>,
    /// Hours that the connection lasts.
    pub uptime_hours: Option<f64>,
    /// Requests of its own that this node served.
    pub requests_served: u64,
    /// Both ways.
    pub bytes_transferred: Option<u64>,
}

/// A peer's connection.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ConnectionInfo {
    /// Whether it can be talked to.
    pub status: &'static str,
    /// Since when.
    pub connected_since: Option<String>,
    /// When it was last heard.
    pub last_active: Option<String>,
    /// As it says.
    pub protocol_version: Option<String>,
    /// Its program, as it says.
    pub peer_type: Option<String>,
    /// What its workers may run.
    pub capabilities: Vec<String>,
}

/// One sample of the past.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Sample {
    /// When.
    pub timestamp: String,
    /// Ping round trip.
    pub latency_ms: Option<f64>,
    /// There was a connection.
    pub connected: bool,
}

fn current(peer: &PeerView, now: Unix) -> CurrentMetrics {
    let measured = &peer.measured;
    CurrentMetrics {
        latency_ms: latency_ms(measured),
        bandwidth_mbps: bandwidth_mbps(measured),
        packet_loss_percent: loss(measured).map(|share| share * 100.0),
        connection_quality: quality(measured),
        reliability_score: reliability(measured),
        uptime_hours: peer.connected_since.map(|since| value::seconds(now.since(since)) / 3600.0),
        requests_served: measured.requests_served,
        bytes_transferred: measured.bytes,
    }
}

impl Op for PeerMetrics {
    const NAME: &'static str = "peer_metrics";
    const TITLE: &'static str = "Measurements of a peer";
    const DESCRIPTION: &'static str = "Latency, traffic, loss and reliability of a peer, as this node measured them since \
        it started.";
    const KIND: Kind = Kind::Read;
    type Output = Measured;

    fn request(&self) -> Result<Request, Refusal> {
        let history_hours = if self.include_history { self.history_hours } else { 0 };
        Ok(Request::Query(Query::Peer { peer: value::peer(&self.peer_id)?, history_hours }))
    }

    fn output(self, reply: Reply, context: &Context<'_>) -> Result<Measured, Failure> {
        let Reply::Peer(peer) = reply else { return Err(mismatch(Self::NAME)) };
        let sample = |(at, round_trip_us, connected): (Unix, Option<u64>, bool)| Sample {
            timestamp: value::time(at),
            latency_ms: round_trip_us.map(|us| us as f64 / 1000.0),
            connected,
        };
        Ok(Measured {
            peer_id: peer.peer.to_string(),
            current_metrics: current(&peer, context.now),
            connection_info: ConnectionInfo {
                status: peer.status.name(),
                connected_since: peer.connected_since.map(value::time),
                last_active: peer.last_seen.map(value::time),
                protocol_version: peer.protocol.as_ref().map(ToString::to_string),
                peer_type: peer.agent.as_ref().map(ToString::to_string),
                capabilities: texts(&peer.capabilities),
            },
            timestamp: value::time(context.now),
            history: peer
                .history
                .filter(|_| self.include_history)
                .map(|samples| samples.into_iter().map(sample).collect()),
        })
    }
}
