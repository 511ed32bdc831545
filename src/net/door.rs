//! The door for peers that are no members of the mesh: a second, small swarm
//! without the mesh's key, for MCP over libp2p and nothing else.
//!
//! Whoever comes proves an identity by Noise (TCP) or TLS (QUIC), and no more:
//! what a stream may ask is decided by the token in it, behind this module.

use super::crowd::{Crowd, Limits};
use super::lobby::Lobby;
pub use super::lobby::Place;
use super::muxer;
use super::{NetError, node_of};
use futures::StreamExt as _;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::Boxed;
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::swarm::{self, NetworkBehaviour, Swarm, SwarmEvent};
use libp2p::{Multiaddr, PeerId, StreamProtocol, Transport, dns, identify, noise, ping, tcp};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};
use tokio_util::compat::FuturesAsyncReadCompatExt as _;
use tokio_util::sync::{CancellationToken, DropGuard};

/// The protocol of its streams.
pub const PROTOCOL: &str = "/mcp+p2p/1.0.0";
/// Connections in all.
pub const CONNECTIONS: usize = 128;
/// Connections of one peer: one is too few after its restart.
pub const CONNECTIONS_PER_PEER: usize = 4;
/// Connections of one address: half of them are for others.
pub const CONNECTIONS_PER_ADDRESS: usize = CONNECTIONS / 2;
/// Handshakes under way.
const PENDING: usize = 64;
/// Those of one address.
const PENDING_PER_ADDRESS: usize = 16;
/// Streams of one peer at once.
pub const STREAMS_PER_PEER: usize = 8;
/// A connection without a stream is closed after so long.
pub const IDLE: Duration = Duration::from_secs(60);
/// For connecting, Noise and the choice of Yamux together.
const SECURE_TIMEOUT: Duration = Duration::from_secs(10);
/// For reaching another door and opening a stream.
const DIAL_TIMEOUT: Duration = Duration::from_secs(15);
/// For the system to say where the door listens.
const LISTENING: Duration = Duration::from_secs(5);

/// Bytes both ways.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A stream that a peer opened.
pub struct Visit {
    /// Who, as a peer id: proven, and no authority.
    pub peer: Arc<str>,
    /// The stream.
    pub stream: Box<dyn Duplex>,
    /// Given back when this is dropped.
    pub place: Place,
}

/// An open door. Dropping it closes every connection.
pub struct Door {
    /// Where it can be reached, as multiaddresses with the node's peer id.
    pub addresses: Vec<String>,
    /// Who comes. While nobody takes them, more are turned away.
    pub visits: mpsc::Receiver<Visit>,
    /// Its drop closes the door.
    pub open: DropGuard,
}

/// A stream to another node's door. Dropping it closes the connection.
pub struct Call {
    /// Who answers, proven.
    pub peer: Arc<str>,
    /// The stream.
    pub stream: Box<dyn Duplex>,
    /// Its drop closes the connection.
    pub open: DropGuard,
}

#[derive(NetworkBehaviour)]
struct Behaviour {
    crowd: Crowd,
    /// Of who may be called on, and not of who calls.
    lobby: Toggle<Lobby>,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    streams: libp2p_stream::Behaviour,
}

/// Opens the door of the node with this identity on every address of `listen`.
///
/// # Errors
/// A bad address, a port in use, or none that is listened on in time.
pub async fn open(identity: &[u8; 32], listen: &[String]) -> Result<Door, NetError> {
    node_of(identity)?;
    let mut seed = *identity;
    let keypair = Keypair::ed25519_from_bytes(&mut seed).map_err(|e| NetError::Identity(e.to_string()))?;
    let (lobby, visits) = Lobby::new();
    let (mut swarm, _) = swarm(&keypair, Some(lobby))?;
    for text in listen {
        let address = parse(text)?;
        swarm.listen_on(address).map_err(|e| NetError::Listen { address: text.clone(), problem: e.to_string() })?;
    }
    let addresses = heard(&mut swarm, listen.len()).await?;
    let closed = CancellationToken::new();
    tokio::spawn(run(swarm, closed.clone()));
    Ok(Door { addresses, visits, open: closed.drop_guard() })
}

/// Opens a stream to the door at `address`, which ends in `/p2p/<peer id>`,
/// under an identity made for this call.
///
/// # Errors
/// The address is none, or nobody with that identity answers there.
pub async fn dial(address: &str) -> Result<Call, NetError> {
    let at = parse(address)?;
    let failed = |problem: String| NetError::Dial { address: address.to_owned(), problem };
    let Some(Protocol::P2p(peer)) = at.iter().last() else {
        let problem = "must end in /p2p/<peer id>, so that the right node answers".to_owned();
        return Err(NetError::Address { address: address.to_owned(), problem });
    };
    let (mut swarm, mut control) = swarm(&Keypair::generate_ed25519(), None)?;
    swarm.dial(at).map_err(|e| failed(e.to_string()))?;
    let closed = CancellationToken::new();
    let (told, connected) = oneshot::channel();
    let guard = closed.clone().drop_guard();
    tokio::spawn(closed.run_until_cancelled_owned(dialling(swarm, told)));
    let reach = async {
        connected.await.unwrap_or_else(|_| Err("the dial was given up".to_owned())).map_err(failed)?;
        control.open_stream(peer, StreamProtocol::new(PROTOCOL)).await.map_err(|e| failed(e.to_string()))
    };
    let stream = tokio::time::timeout(DIAL_TIMEOUT, reach).await;
    let stream = stream.map_err(|_| failed(format!("no answer within {} s", DIAL_TIMEOUT.as_secs())))??;
    Ok(Call { peer: peer.to_string().into(), stream: Box::new(stream.compat()), open: guard })
}

fn swarm(keypair: &Keypair, lobby: Option<Lobby>) -> Result<(Swarm<Behaviour>, libp2p_stream::Control), NetError> {
    let streams = libp2p_stream::Behaviour::new();
    let control = streams.new_control();
    let crowd = Crowd::new(Limits {
        handshakes: PENDING,
        handshakes_per_address: PENDING_PER_ADDRESS,
        connections: CONNECTIONS,
        connections_per_address: CONNECTIONS_PER_ADDRESS,
        connections_per_peer: CONNECTIONS_PER_PEER,
    });
    let identify = identify::Config::new("/taskmesh/door/1".into(), keypair.public())
        .with_agent_version(concat!("taskmesh/", env!("CARGO_PKG_VERSION")).to_owned())
        .with_cache_size(0);
    let behaviour = Behaviour {
        crowd,
        lobby: lobby.into(),
        identify: identify::Behaviour::new(identify),
        ping: ping::Behaviour::new(ping::Config::new()),
        streams,
    };
    let settings = swarm::Config::with_tokio_executor().with_idle_connection_timeout(IDLE);
    Ok((Swarm::new(transport(keypair)?, behaviour, keypair.public().to_peer_id(), settings), control))
}

fn transport(keypair: &Keypair) -> Result<Boxed<(PeerId, StreamMuxerBox)>, NetError> {
    match dns::tokio::Transport::system(raw_transport(keypair)?) {
        Ok(named) => Ok(named.boxed()),
        // Without name servers, addresses must be numbers.
        Err(_) => raw_transport(keypair),
    }
}

#[cfg(feature = "quic")]
fn raw_transport(keypair: &Keypair) -> Result<Boxed<(PeerId, StreamMuxerBox)>, NetError> {
    let mut config = libp2p::quic::Config::new(keypair);
    config.max_concurrent_stream_limit = muxer::STREAMS;
    config.max_stream_data = muxer::STREAM_BYTES;
    config.max_connection_data = muxer::STREAMS * muxer::STREAM_BYTES;
    let quic = libp2p::quic::tokio::Transport::new(config)
        .map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)));
    Ok(tcp_transport(keypair)?.or_transport(quic).map(|either, _| either.into_inner()).boxed())
}

#[cfg(not(feature = "quic"))]
fn raw_transport(keypair: &Keypair) -> Result<Boxed<(PeerId, StreamMuxerBox)>, NetError> {
    tcp_transport(keypair)
}

fn tcp_transport(keypair: &Keypair) -> Result<Boxed<(PeerId, StreamMuxerBox)>, NetError> {
    let noise = noise::Config::new(keypair).map_err(|e| NetError::Identity(e.to_string()))?;
    Ok(tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
        .upgrade(Version::V1Lazy)
        .authenticate(noise)
        .multiplex(muxer::Bounded)
        .timeout(SECURE_TIMEOUT)
        .boxed())
}

/// Where the door listens: at least one address for each that was asked for,
/// or what there is when it was waited for long enough.
async fn heard(swarm: &mut Swarm<Behaviour>, asked: usize) -> Result<Vec<String>, NetError> {
    let me = *swarm.local_peer_id();
    let mut addresses = Vec::new();
    let all = async {
        while addresses.len() < asked {
            if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                addresses.push(address.with(Protocol::P2p(me)).to_string());
            }
        }
    };
    let _ = tokio::time::timeout(LISTENING, all).await;
    if addresses.is_empty() {
        let problem = "the system does not say that it listens there".to_owned();
        return Err(NetError::Listen { address: "api.p2p_listen".into(), problem });
    }
    Ok(addresses)
}

async fn run(mut swarm: Swarm<Behaviour>, closed: CancellationToken) {
    loop {
        tokio::select! {
            () = closed.cancelled() => break,
            event = swarm.select_next_some() => observe(&event),
        }
    }
    let peers: Vec<_> = swarm.connected_peers().copied().collect();
    for peer in peers {
        let _ = swarm.disconnect_peer_id(peer);
    }
}

fn observe(event: &SwarmEvent<BehaviourEvent>) {
    match event {
        SwarmEvent::ConnectionEstablished { peer_id, .. } => tracing::debug!(peer = %peer_id, "came to the door"),
        SwarmEvent::IncomingConnectionError { error, .. } => tracing::debug!(%error, "turned away at the door"),
        SwarmEvent::ListenerClosed { addresses, reason, .. } => {
            tracing::warn!(?addresses, ?reason, "the door no longer listens");
        }
        _ => {}
    }
}

/// Keeps a dialled connection going; says once whether it came about.
async fn dialling(mut swarm: Swarm<Behaviour>, told: oneshot::Sender<Result<(), String>>) {
    let mut told = Some(told);
    loop {
        let outcome = match swarm.select_next_some().await {
            SwarmEvent::ConnectionEstablished { .. } => Ok(()),
            SwarmEvent::OutgoingConnectionError { error, .. } => Err(error.to_string()),
            _ => continue,
        };
        if let Some(told) = told.take() {
            // Whoever dialled may have given up.
            let _ = told.send(outcome);
        }
    }
}

fn parse(address: &str) -> Result<Multiaddr, NetError> {
    address.parse().map_err(|e: libp2p::multiaddr::Error| NetError::Address {
        address: address.to_owned(),
        problem: e.to_string(),
    })
}
