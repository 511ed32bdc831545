//! How bytes get to a peer: TCP + pnet + Noise + Yamux, QUIC, and over a relay;
//! on all, the hello before the connection exists for anybody else.

use super::NetError;
use super::hello::{self, End, Hello};
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::Boxed;
use libp2p::core::upgrade::Version;
use libp2p::core::{ConnectedPoint, Endpoint};
use libp2p::identity::Keypair;
use libp2p::metrics::{BandwidthTransport, Registry};
use libp2p::pnet::{PnetConfig, PreSharedKey};
use libp2p::{PeerId, Transport, dns, noise, relay, tcp, yamux};
use std::io;
use std::time::Duration;

type Connected = (PeerId, StreamMuxerBox);

/// The whole transport of a node; with `relays`, also over these.
pub(super) fn build(
    keypair: &Keypair,
    hello: &Hello,
    relays: Option<relay::client::Transport>,
    registry: &mut Registry,
) -> Result<Boxed<Connected>, NetError> {
    let named = match dns::tokio::Transport::system(raw_transport(keypair, hello)?) {
        Ok(named) => named.boxed(),
        Err(error) => {
            tracing::warn!(%error, "no configuration of name servers: addresses must be numbers");
            let (config, options) = (dns::ResolverConfig::default(), dns::ResolverOpts::default());
            dns::tokio::Transport::custom(raw_transport(keypair, hello)?, config, options).boxed()
        }
    };
    let all = match relays {
        // First, for it takes what it knows and nothing else.
        Some(relays) => over_relays(keypair, relays)?.or_transport(named).map(|either, _| either.into_inner()).boxed(),
        None => named,
    };
    let hello = hello.clone();
    let proven = all.and_then(move |(peer, muxer), point| {
        let (end, address) = end_of(&point);
        hello.prove(peer, muxer, end, address)
    });
    Ok(BandwidthTransport::new(proven, registry).map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer))).boxed())
}

#[cfg(feature = "quic")]
fn raw_transport(keypair: &Keypair, hello: &Hello) -> Result<Boxed<Connected>, NetError> {
    let quic = libp2p::quic::tokio::Transport::new(libp2p::quic::Config::new(keypair))
        .map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)));
    Ok(tcp_transport(keypair, hello)?.or_transport(quic).map(|either, _| either.into_inner()).boxed())
}

#[cfg(not(feature = "quic"))]
fn raw_transport(keypair: &Keypair, hello: &Hello) -> Result<Boxed<Connected>, NetError> {
    tcp_transport(keypair, hello)
}

fn tcp_transport(keypair: &Keypair, hello: &Hello) -> Result<Boxed<Connected>, NetError> {
    let key = PreSharedKey::new(hello.keys.psk);
    let gate = hello.gate.clone();
    let noise = noise::Config::new(keypair).map_err(|e| NetError::Identity(e.to_string()))?;
    Ok(tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
        .and_then(move |socket, point| async move {
            let (_, address) = end_of(&point);
            let encrypted = PnetConfig::new(key).handshake(socket).await.map_err(io::Error::other)?;
            hello::check_cipher(encrypted, &gate, &address).await
        })
        .upgrade(Version::V1Lazy)
        .authenticate(noise)
        .multiplex(yamux::Config::default())
        .timeout(SECURE_TIMEOUT)
        .boxed())
}

/// A relay serves members alone, and sees nothing of what it carries: the ends
/// know each other by Noise, and prove the mesh key by the hello, as over QUIC.
fn over_relays(keypair: &Keypair, relays: relay::client::Transport) -> Result<Boxed<Connected>, NetError> {
    let noise = noise::Config::new(keypair).map_err(|e| NetError::Identity(e.to_string()))?;
    Ok(relays
        .upgrade(Version::V1Lazy)
        .authenticate(noise)
        .multiplex(yamux::Config::default())
        .timeout(SECURE_TIMEOUT)
        .boxed())
}

/// When both ends dial at once to get through their NATs, one of them has been
/// told to be the listener.
fn end_of(point: &ConnectedPoint) -> (End, String) {
    match point {
        ConnectedPoint::Dialer { address, role_override: Endpoint::Dialer, .. } => (End::Dialler, address.to_string()),
        ConnectedPoint::Dialer { address, role_override: Endpoint::Listener, .. } => {
            (End::Listener, address.to_string())
        }
        ConnectedPoint::Listener { send_back_addr, .. } => (End::Listener, send_back_addr.to_string()),
    }
}

/// For connecting, pnet, Noise and the choice of Yamux together.
const SECURE_TIMEOUT: Duration = Duration::from_secs(10);
