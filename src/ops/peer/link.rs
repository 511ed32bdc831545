//! `peer_connect`, `peer_disconnect` and `bootstrap_network`.

use super::{ADDRESS_BYTES, CALL_MS, PEER_ID_BYTES, half_minute, ten, texts};
use crate::ops::task::yes;
use crate::ops::{Context, Failure, Kind, Op, failure, mismatch, value};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use taskmesh_core::{Command, Millis, Refusal, Reply, Request, limits};

/// Seed addresses in one call.
const SEEDS: usize = 100;

/// Connect to a peer.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct PeerConnect {
    /// Who must answer.
    #[schemars(length(min = 1, max = PEER_ID_BYTES))]
    pub peer_id: String,
    /// Where: `/ip4/192.0.2.1/tcp/4001`.
    #[schemars(length(min = 1, max = ADDRESS_BYTES))]
    pub multiaddr: String,
    /// Seconds for one try; all tries share 40.
    #[serde(default = "half_minute")]
    #[schemars(range(min = 1, max = 300))]
    #[arg(long, default_value_t = half_minute())]
    pub timeout: u64,
    /// Tries after the first.
    #[serde(default = "three")]
    #[schemars(range(max = 10))]
    #[arg(long, default_value_t = three())]
    pub retry_count: u32,
    /// Keep the address over restarts.
    #[serde(default = "yes")]
    #[arg(long, action = clap::ArgAction::Set, default_value_t = true)]
    pub persist: bool,
}

fn three() -> u32 {
    3
}

/// What `peer_connect` answers.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Connected {
    /// Who answered.
    pub peer_id: String,
    /// The address that worked.
    pub multiaddr: String,
    /// The network's number of the connection.
    pub connection_id: String,
    /// Seconds that it took.
    pub connection_time: f64,
    /// As it says.
    pub protocol_version: Option<String>,
    /// What its workers may run.
    pub peer_capabilities: Vec<String>,
    /// As asked.
    pub persist: bool,
    /// Tries.
    pub attempts: u32,
}

impl Op for PeerConnect {
    const NAME: &'static str = "peer_connect";
    const TITLE: &'static str = "Connect to a peer";
    const DESCRIPTION: &'static str =
        "Connects this node to a peer at an address. Refused if another peer answers there.";
    const KIND: Kind = Kind::Repeatable;
    type Output = Connected;

    fn request(&self) -> Result<Request, Refusal> {
        let tries = u64::from(self.retry_count) + 1;
        Ok(Request::Command(Command::Connect {
            peer: value::peer(&self.peer_id)?,
            address: self.multiaddr.as_str().into(),
            timeout: Millis((self.timeout * 1000).min(CALL_MS / tries)),
            retries: self.retry_count,
            persist: self.persist,
        }))
    }

    fn output(self, reply: Reply, _: &Context<'_>) -> Result<Connected, Failure> {
        let Reply::Connected { peer, address, connection, took, attempts } = reply else {
            return Err(mismatch(Self::NAME));
        };
        Ok(Connected {
            peer_id: peer.peer.to_string(),
            multiaddr: address.to_string(),
            connection_id: connection.to_string(),
            connection_time: value::seconds(took),
            protocol_version: peer.protocol.as_ref().map(ToString::to_string),
            peer_capabilities: texts(&peer.capabilities),
            persist: self.persist,
            attempts,
        })
    }
}

/// Leave a peer.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct PeerDisconnect {
    /// Whom.
    #[schemars(length(min = 1, max = PEER_ID_BYTES))]
    pub peer_id: String,
    /// For the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::REASON_BYTES))]
    #[arg(long)]
    pub reason: Option<String>,
    /// Hand back the leases between the two first.
    #[serde(default = "yes")]
    #[arg(long, action = clap::ArgAction::Set, default_value_t = true)]
    pub graceful: bool,
}

/// What `peer_disconnect` answers.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Disconnected {
    /// Whom.
    pub peer_id: String,
    /// There was a connection.
    pub was_connected: bool,
    /// As asked.
    pub graceful: bool,
    /// As asked.
    pub reason: Option<String>,
    /// Leases were handed back.
    pub cleanup_performed: bool,
    /// Seconds that it took.
    pub disconnection_time: f64,
}

impl Op for PeerDisconnect {
    const NAME: &'static str = "peer_disconnect";
    const TITLE: &'static str = "Disconnect from a peer";
    const DESCRIPTION: &'static str = "Ends the connection to a peer and does not redial it until peer_connect asks.";
    const KIND: Kind = Kind::Destructive;
    type Output = Disconnected;

    fn request(&self) -> Result<Request, Refusal> {
        Ok(Request::Command(Command::Disconnect {
            peer: value::peer(&self.peer_id)?,
            reason: self.reason.as_deref().map(Arc::from),
            graceful: self.graceful,
        }))
    }

    fn output(self, reply: Reply, _: &Context<'_>) -> Result<Disconnected, Failure> {
        let Reply::Disconnected { peer, was_connected, handed_back, took } = reply else {
            return Err(mismatch(Self::NAME));
        };
        Ok(Disconnected {
            peer_id: peer.to_string(),
            was_connected,
            graceful: self.graceful,
            reason: self.reason,
            cleanup_performed: handed_back > 0,
            disconnection_time: value::seconds(took),
        })
    }
}

/// Dial a seed list.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct BootstrapNetwork {
    /// Multiaddresses; default: the configured seeds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = SEEDS), inner(length(min = 1, max = ADDRESS_BYTES)))]
    pub bootstrap_nodes: Vec<String>,
    /// Seconds for all; at most 40 are used.
    #[serde(default = "minute")]
    #[schemars(range(min = 1, max = 300))]
    #[arg(long, default_value_t = minute())]
    pub timeout: u64,
    /// Enough for `network_ready`.
    #[serde(default = "three")]
    #[schemars(range(max = limits::MEMBERS))]
    #[arg(long, default_value_t = three())]
    pub min_connections: u32,
    /// Stop dialling there.
    #[serde(default = "ten")]
    #[schemars(range(min = 1, max = limits::MEMBERS))]
    #[arg(long, default_value_t = ten())]
    pub max_connections: u32,
}

fn minute() -> u64 {
    60
}

/// What `bootstrap_network` answers.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Bootstrapped {
    /// Peers that are connected now, of those dialled.
    pub connected_count: usize,
    /// Seeds that failed.
    pub failed_count: usize,
    /// Seeds that were dialled.
    pub bootstrap_nodes_used: Vec<String>,
    /// Who is connected.
    pub connected_peers: Vec<String>,
    /// At least `min_connections` are.
    pub network_ready: bool,
    /// Seconds that it took.
    pub bootstrap_time: f64,
    /// As asked.
    pub min_connections: u32,
    /// As asked.
    pub max_connections: u32,
    /// Which failed and why.
    pub failures: Vec<DialFailure>,
}

/// A seed that failed.
#[derive(Debug, Serialize, JsonSchema)]
pub struct DialFailure {
    /// Which.
    pub multiaddr: String,
    /// Why.
    pub error: String,
}

impl Op for BootstrapNetwork {
    const NAME: &'static str = "bootstrap_network";
    const TITLE: &'static str = "Bootstrap the network";
    const DESCRIPTION: &'static str = "Dials a seed list until enough peers are connected. Too few is still success, with \
        network_ready false and the failures.";
    const KIND: Kind = Kind::Repeatable;
    type Output = Bootstrapped;

    fn request(&self) -> Result<Request, Refusal> {
        if self.min_connections > self.max_connections {
            return Err(failure::invalid("min_connections", "must not be above max_connections"));
        }
        Ok(Request::Command(Command::Bootstrap {
            addresses: self.bootstrap_nodes.iter().map(|a| a.as_str().into()).collect(),
            timeout: Millis((self.timeout * 1000).min(CALL_MS)),
            min_connections: self.min_connections,
            max_connections: self.max_connections,
        }))
    }

    fn output(self, reply: Reply, _: &Context<'_>) -> Result<Bootstrapped, Failure> {
        let Reply::Bootstrapped { connected, used, failures, took } = reply else {
            return Err(mismatch(Self::NAME));
        };
        let failed =
            |(at, why): (Arc<str>, Arc<str>)| DialFailure { multiaddr: at.to_string(), error: why.to_string() };
        Ok(Bootstrapped {
            connected_count: connected.len(),
            failed_count: failures.len(),
            bootstrap_nodes_used: texts(&used),
            network_ready: connected.len() >= self.min_connections as usize,
            connected_peers: connected.iter().map(ToString::to_string).collect(),
            bootstrap_time: value::seconds(took),
            min_connections: self.min_connections,
            max_connections: self.max_connections,
            failures: failures.into_iter().map(failed).collect(),
        })
    }
}
