//! The floors that a mesh stands on, measured in the same run: one libp2p
//! request-response round trip between two otherwise empty swarms, and one
//! append with `fdatasync`.

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, StreamExt};
use libp2p::request_response::{self, Event, Message, ProtocolSupport};
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, PeerId, StreamProtocol, Swarm, SwarmBuilder, noise, tcp, yamux};
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

/// About an offer or a result: a record with its ids and holders.
const BODY: usize = 512;

type Behaviour = request_response::Behaviour<Codec>;

/// Two swarms over TCP, Noise and Yamux on loopback; the second has a thread
/// of its own.
pub(crate) struct Bare {
    swarm: Swarm<Behaviour>,
    server: PeerId,
}

impl Bare {
    /// Connects the two.
    pub(crate) async fn connect() -> Bare {
        let (tell, told) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(answer(tell));
        });
        let (server, address) = told.await.expect("the server listens");
        let mut swarm = swarm();
        swarm.dial(address).expect("loopback");
        loop {
            if let SwarmEvent::ConnectionEstablished { .. } = swarm.select_next_some().await {
                return Bare { swarm, server };
            }
        }
    }

    /// One request and its answer.
    pub(crate) async fn round_trip(&mut self) -> Duration {
        let start = Instant::now();
        self.swarm.behaviour_mut().send_request(&self.server, vec![7; BODY]);
        loop {
            match self.swarm.select_next_some().await {
                SwarmEvent::Behaviour(Event::Message { message: Message::Response { .. }, .. }) => {
                    return start.elapsed();
                }
                SwarmEvent::Behaviour(Event::OutboundFailure { error, .. }) => panic!("no answer: {error}"),
                _ => {}
            }
        }
    }
}

async fn answer(tell: tokio::sync::oneshot::Sender<(PeerId, Multiaddr)>) {
    let mut swarm = swarm();
    swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().expect("an address")).expect("loopback");
    let mut tell = Some(tell);
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::NewListenAddr { address, .. } => {
                let server = *swarm.local_peer_id();
                // The other side waits for it.
                let _ = tell.take().map(|tell| tell.send((server, address)));
            }
            SwarmEvent::Behaviour(Event::Message { message: Message::Request { request, channel, .. }, .. }) => {
                // Whoever asked may have gone.
                let _ = swarm.behaviour_mut().send_response(channel, request);
            }
            _ => {}
        }
    }
}

fn swarm() -> Swarm<Behaviour> {
    let protocols = [(StreamProtocol::new("/bare/1"), ProtocolSupport::Full)];
    SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)
        .expect("a transport")
        .with_behaviour(|_| Behaviour::new(protocols, request_response::Config::default()))
        .expect("a behaviour")
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(3_600)))
        .build()
}

/// Bytes until the end of the stream.
#[derive(Clone, Copy, Default)]
struct Codec;

impl request_response::Codec for Codec {
    type Protocol = StreamProtocol;
    type Request = Vec<u8>;
    type Response = Vec<u8>;

    async fn read_request<T: AsyncRead + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
    ) -> io::Result<Vec<u8>> {
        read(io).await
    }

    async fn read_response<T: AsyncRead + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
    ) -> io::Result<Vec<u8>> {
        read(io).await
    }

    async fn write_request<T: AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        body: Vec<u8>,
    ) -> io::Result<()> {
        write(io, &body).await
    }

    async fn write_response<T: AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        body: Vec<u8>,
    ) -> io::Result<()> {
        write(io, &body).await
    }
}

async fn read<T: AsyncRead + Unpin + Send>(io: &mut T) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    io.take(1 << 20).read_to_end(&mut body).await?;
    Ok(body)
}

async fn write<T: AsyncWrite + Unpin + Send>(io: &mut T, body: &[u8]) -> io::Result<()> {
    io.write_all(body).await?;
    io.close().await
}

/// A file that is appended to, durably.
pub(crate) struct Appended(File);

impl Appended {
    /// In this folder.
    pub(crate) fn create(folder: &Path) -> Appended {
        let file = OpenOptions::new().append(true).create(true).open(folder.join("appended"));
        Appended(file.expect("a file"))
    }

    /// Appends about a record and waits for the disk.
    pub(crate) fn sync(&mut self) -> Duration {
        let start = Instant::now();
        self.0.write_all(&[7; BODY]).expect("room on the disk");
        self.0.sync_data().expect("a disk that syncs");
        start.elapsed()
    }
}
