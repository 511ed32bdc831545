//! The authenticated hello: on every connection, TCP or QUIC, both sides prove
//! that they have the mesh key before any protocol is served.
//!
//! It runs inside the transport, on the first substream of a connection whose
//! ends already know each other's public key (Noise or TLS). So the swarm, and
//! with it gossip, Kademlia and every other protocol, never sees a peer that has
//! not proven the key. Over TCP pnet refuses strangers before; QUIC has no pnet.
//!
//! ```text
//! dialler  → listener   "TMSH", versions, nonce d                         40 bytes
//! listener → dialler    status, versions, nonce l, MAC("listener", …)     69 bytes
//! dialler  → listener   status, MAC("dialler", …)                         33 bytes
//! listener → dialler    status                                             1 byte
//! ```
//! Each says which versions it speaks; the highest that both know is spoken.
//! A MAC is keyed BLAKE3 over its role, that version, both peer ids and both
//! nonces: it can be neither replayed, reflected nor relayed.

use super::gate::{FORGOTTEN, Gate};
use super::keys::{Keys, Versions};
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::PeerId;
use libp2p::core::muxing::{StreamMuxerBox, StreamMuxerExt};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

/// Why a connection was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("it has another mesh key")]
    OtherKey,
    #[error(
        "it speaks the protocol versions {theirs} and this node {ours}: upgrade the older one, by one release at a time"
    )]
    OtherVersion { ours: Versions, theirs: Versions },
    #[error("this node does not accept it: {0}")]
    Unwelcome(&'static str),
    #[error("it does not accept this node (deny list, no place on its allow list, or left by hand)")]
    NotWelcomeThere,
    #[error("an operator said that it is gone for ever; it may join with a fresh data folder, as a new node")]
    Forgotten,
    #[error("its mesh has forgotten this node: stop it, move its data folder away, start it with a fresh one")]
    ForgottenThere,
    #[error("it says that this node has another mesh key")]
    OtherKeyThere,
    #[error("it does not speak the taskmesh handshake")]
    Malformed,
    #[error("the handshake took over {} s", HELLO_TIMEOUT.as_secs())]
    Slow,
    #[error("the connection was lost during the handshake: {0}")]
    Lost(String),
}

impl Refused {
    /// A fixed word for the count.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Refused::OtherKey => "other_mesh_key",
            Refused::OtherVersion { .. } => "other_protocol_version",
            Refused::Unwelcome(reason) => reason,
            Refused::NotWelcomeThere => "not_welcome_there",
            Refused::Forgotten => FORGOTTEN,
            Refused::ForgottenThere => "forgotten_there",
            Refused::OtherKeyThere => "other_mesh_key_there",
            Refused::Malformed => "malformed_hello",
            Refused::Slow => "slow_hello",
            Refused::Lost(_) => "lost_in_hello",
        }
    }
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Refused {
        match error.kind() {
            io::ErrorKind::InvalidData => Refused::Malformed,
            _ => Refused::Lost(error.to_string()),
        }
    }
}

/// Which end of a connection this node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Dialler,
    Listener,
}

/// What a hello needs.
#[derive(Clone)]
pub(super) struct Hello {
    pub(super) keys: Keys,
    pub(super) gate: Arc<Gate>,
}

impl Hello {
    /// Proves the mesh key to `peer` and has it prove the same.
    pub(super) async fn prove(
        self,
        peer: PeerId,
        mut muxer: StreamMuxerBox,
        end: End,
        address: String,
    ) -> io::Result<(PeerId, StreamMuxerBox)> {
        let spoken = tokio::time::timeout(HELLO_TIMEOUT, self.speak(&peer, &mut muxer, end)).await;
        match spoken.unwrap_or(Err(Refused::Slow)) {
            Ok(version) => {
                self.gate.agreed(peer, version);
                Ok((peer, muxer))
            }
            Err(refused) => {
                if refused == Refused::ForgottenThere {
                    self.gate.cast_out(&peer);
                }
                self.gate.refused(refused.reason(), Some(&peer), &address, &refused.to_string());
                Err(io::Error::other(refused))
            }
        }
    }

    async fn speak(&self, peer: &PeerId, muxer: &mut StreamMuxerBox, end: End) -> Result<u16, Refused> {
        let mut stream = poll_fn(|cx| {
            let opened = match end {
                End::Dialler => muxer.poll_outbound_unpin(cx),
                End::Listener => muxer.poll_inbound_unpin(cx),
            };
            match opened {
                Poll::Ready(opened) => Poll::Ready(opened),
                Poll::Pending => advance(muxer, cx),
            }
        })
        .await?;
        let dialogue = async {
            let outcome = match end {
                End::Dialler => self.dial(peer, &mut stream).await,
                End::Listener => self.listen(peer, &mut stream).await,
            };
            // Only close, so that the last bytes are not cut off by a reset.
            let _ = stream.close().await;
            if outcome.is_err() {
                let mut rest = [0; 1];
                let _ = tokio::time::timeout(FAREWELL, stream.read(&mut rest)).await;
            }
            outcome
        };
        drive(muxer, dialogue).await?
    }

    async fn dial<S: AsyncRead + AsyncWrite + Unpin>(&self, peer: &PeerId, stream: &mut S) -> Result<u16, Refused> {
        let nonce: [u8; 32] = nonce();
        let mut opening = Vec::with_capacity(40);
        opening.extend_from_slice(MAGIC);
        opening.extend_from_slice(&self.keys.versions.to_word().to_be_bytes());
        opening.extend_from_slice(&nonce);
        send(stream, &opening).await?;
        let mut answer = [0; 69];
        stream.read_exact(&mut answer).await?;
        let (status, versions, theirs, mac) = (answer[0], &answer[1..5], &answer[5..37], &answer[37..]);
        let me = self.gate.me();
        let versions = versions_of(versions)?;
        let version = self.common(versions)?;
        let proven = self.mac(End::Listener, version, [&me, peer], [&nonce, theirs]) == *mac;
        self.check_status(status, versions, proven)?;
        let verdict = match self.objection(peer) {
            Some(refused) => Err(refused),
            None if !proven => Err(Refused::OtherKey),
            None => Ok(()),
        };
        let mut reply = vec![status_of(&verdict)];
        match verdict {
            // Who is cast out must know by whom; but not who has another key.
            Ok(()) | Err(Refused::Forgotten) if proven => {
                reply.extend_from_slice(self.mac(End::Dialler, version, [&me, peer], [&nonce, theirs]).as_bytes());
            }
            Ok(()) | Err(_) => reply.extend_from_slice(&[0; 32]),
        }
        let sent = send(stream, &reply).await;
        verdict?;
        sent?;
        let mut end = [0; 1];
        stream.read_exact(&mut end).await?;
        self.check_status(end[0], versions, true)?;
        Ok(version)
    }

    async fn listen<S: AsyncRead + AsyncWrite + Unpin>(&self, peer: &PeerId, stream: &mut S) -> Result<u16, Refused> {
        let mut opening = [0; 40];
        stream.read_exact(&mut opening).await?;
        let (magic, versions, theirs) = (&opening[..4], &opening[4..8], &opening[8..]);
        if magic != MAGIC {
            return Err(Refused::Malformed);
        }
        let versions = versions_of(versions)?;
        let me = self.gate.me();
        let verdict = match self.objection(peer) {
            _ if self.common(versions).is_err() => self.common(versions),
            Some(refused) => Err(refused),
            None => self.common(versions),
        };
        // Where there is none, nothing is proven either.
        let version = self.common(versions).unwrap_or_default();
        let nonce: [u8; 32] = nonce();
        let mut answer = Vec::with_capacity(69);
        answer.push(status_of(&verdict));
        answer.extend_from_slice(&self.keys.versions.to_word().to_be_bytes());
        answer.extend_from_slice(&nonce);
        match verdict {
            Ok(_) | Err(Refused::Forgotten) => {
                let mac = self.mac(End::Listener, version, [peer, &me], [theirs, &nonce]);
                answer.extend_from_slice(mac.as_bytes());
            }
            Err(_) => answer.extend_from_slice(&[0; 32]),
        }
        let sent = send(stream, &answer).await;
        verdict?;
        sent?;
        let mut reply = [0; 33];
        stream.read_exact(&mut reply).await?;
        let proven = self.mac(End::Dialler, version, [peer, &me], [theirs, &nonce]) == reply[1..];
        self.check_status(reply[0], versions, proven)?;
        let verdict = if proven { Ok(()) } else { Err(Refused::OtherKey) };
        let sent = send(stream, &[status_of(&verdict)]).await;
        verdict?;
        sent?;
        Ok(version)
    }

    /// What is spoken with a node that speaks these.
    fn common(&self, theirs: Versions) -> Result<u16, Refused> {
        let ours = self.keys.versions;
        ours.common(theirs).ok_or(Refused::OtherVersion { ours, theirs })
    }

    /// Why `peer` may not connect.
    fn objection(&self, peer: &PeerId) -> Option<Refused> {
        self.gate.objection(peer).map(|reason| match reason {
            FORGOTTEN => Refused::Forgotten,
            reason => Refused::Unwelcome(reason),
        })
    }

    /// What the other side's status means for this one. That it is forgotten it
    /// believes only those who have `proven` that they are members.
    fn check_status(&self, status: u8, theirs: Versions, proven: bool) -> Result<(), Refused> {
        match status {
            WELCOME => Ok(()),
            OTHER_VERSION => Err(Refused::OtherVersion { ours: self.keys.versions, theirs }),
            UNWELCOME => Err(Refused::NotWelcomeThere),
            OTHER_KEY => Err(Refused::OtherKeyThere),
            GONE_FOR_EVER if proven => Err(Refused::ForgottenThere),
            _ => Err(Refused::Malformed),
        }
    }

    /// Compared in constant time: `blake3::Hash` is.
    /// Ids and nonces are the dialler's and then the listener's.
    fn mac(&self, role: End, version: u16, ids: [&PeerId; 2], nonces: [&[u8]; 2]) -> blake3::Hash {
        let role: &[u8; 8] = match role {
            End::Dialler => b"dialler ",
            End::Listener => b"listener",
        };
        let mut hasher = blake3::Hasher::new_keyed(&self.keys.proof);
        hasher.update(role).update(&u32::from(version).to_be_bytes());
        for id in ids {
            let bytes = id.to_bytes();
            hasher.update(&(bytes.len() as u64).to_be_bytes()).update(&bytes);
        }
        hasher.update(nonces[0]).update(nonces[1]).finalize()
    }
}

/// Over TCP, right after pnet's handshake: both sides send a fixed text through
/// the cipher. Without it a wrong pre-shared key shows only as noise, and often
/// as a time-out; with it, as what it is.
pub(super) async fn check_cipher<S>(mut stream: S, gate: &Gate, address: &str) -> io::Result<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let exchange = async {
        send(&mut stream, CIPHER_CHECK).await?;
        let mut theirs = [0; CIPHER_CHECK.len()];
        stream.read_exact(&mut theirs).await?;
        if theirs == *CIPHER_CHECK { Ok(()) } else { Err(Refused::OtherKey) }
    };
    match tokio::time::timeout(HELLO_TIMEOUT, exchange).await.unwrap_or(Err(Refused::Slow)) {
        Ok(()) => Ok(stream),
        Err(refused) => {
            gate.refused(refused.reason(), None, address, &refused.to_string());
            Err(io::Error::other(refused))
        }
    }
}

async fn send<S: AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

/// Runs `io`, which uses a substream of `muxer`, while the muxer moves its bytes.
async fn drive<T>(muxer: &mut StreamMuxerBox, io: impl Future<Output = T>) -> io::Result<T> {
    let mut io = pin!(io);
    poll_fn(|cx| {
        if let Poll::Ready(done) = io.as_mut().poll(cx) {
            return Poll::Ready(Ok(done));
        }
        let Poll::Ready(lost) = advance(muxer, cx) else { return Poll::Pending };
        // What arrived before the connection was lost still counts.
        match io.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Ok(done)),
            Poll::Pending => Poll::Ready(lost),
        }
    })
    .await
}

/// Lets the connection move; ready only with an error.
fn advance<T>(muxer: &mut StreamMuxerBox, cx: &mut std::task::Context<'_>) -> Poll<io::Result<T>> {
    loop {
        match muxer.poll_unpin(cx) {
            // A change of address does not matter here.
            Poll::Ready(Ok(_)) => {}
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => return Poll::Pending,
        }
    }
}

fn versions_of(word: &[u8]) -> Result<Versions, Refused> {
    let word = u32::from_be_bytes(word.try_into().expect("4 bytes"));
    Versions::of_word(word).ok_or(Refused::Malformed)
}

fn status_of<T>(verdict: &Result<T, Refused>) -> u8 {
    match verdict {
        Ok(_) => WELCOME,
        Err(Refused::OtherVersion { .. }) => OTHER_VERSION,
        Err(Refused::OtherKey) => OTHER_KEY,
        Err(Refused::Forgotten) => GONE_FOR_EVER,
        Err(_) => UNWELCOME,
    }
}

/// 32 random bytes.
pub(super) fn nonce() -> [u8; 32] {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).expect("the system's random numbers are there, or no key could be made either");
    bytes
}

const MAGIC: &[u8; 4] = b"TMSH";
const CIPHER_CHECK: &[u8; 16] = b"taskmesh cipher\n";
const WELCOME: u8 = 0;
const OTHER_VERSION: u8 = 1;
const UNWELCOME: u8 = 2;
const OTHER_KEY: u8 = 3;
const GONE_FOR_EVER: u8 = 4;
/// A hello is four short messages: who needs longer is stuck or hostile.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// For the other side to read why it was refused.
const FAREWELL: Duration = Duration::from_millis(500);
