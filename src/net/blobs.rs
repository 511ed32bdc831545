//! Blobs move in chunks by request-response: several in flight, in order for the
//! receiver. And requests are served, few at a time.

use super::actor::Order;
use super::codec::{Answer, Ask};
use super::gate::peer_of;
use super::session::Shared;
use super::stream::Reader;
use super::{BlobAccess, NetEvent};
use futures::{StreamExt, stream};
use libp2p::PeerId;
use libp2p::request_response::ResponseChannel;
use std::sync::Arc;
use std::time::Duration;
use taskmesh_core::limits::{BLOB_BYTES, BLOB_CHUNK_BYTES};
use taskmesh_core::{BlobHash, NodeId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

/// What fetching and serving need.
pub(super) struct Blobs {
    access: Arc<BlobAccess>,
    shared: Arc<Shared>,
    orders: mpsc::Sender<Order>,
    fetches: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    serves: Arc<Semaphore>,
    /// For frames of unusual size.
    pub(super) large: Arc<Semaphore>,
}

impl Blobs {
    pub(super) fn new(access: BlobAccess, shared: Arc<Shared>, orders: mpsc::Sender<Order>) -> Blobs {
        Blobs {
            access: Arc::new(access),
            shared,
            orders,
            fetches: Arc::new(Semaphore::new(FETCHES)),
            waiting: Arc::new(Semaphore::new(WAITING)),
            serves: Arc::new(Semaphore::new(SERVES)),
            large: Arc::new(Semaphore::new(LARGE_FRAMES)),
        }
    }

    /// Begins to bring a blob here; always ends in one [`NetEvent::Fetched`].
    pub(super) fn fetch(&self, hash: BlobHash, bytes: u64, from: NodeId) {
        let Ok(place) = self.waiting.clone().try_acquire_owned() else {
            self.shared.post(NetEvent::Fetched { hash, here: false });
            return;
        };
        let (shared, orders, access) = (self.shared.clone(), self.orders.clone(), self.access.clone());
        let fetches = self.fetches.clone();
        tokio::spawn(async move {
            let turn = fetches.acquire_owned().await;
            let here = bytes <= BLOB_BYTES && bring(&shared, orders, access, hash, bytes, from).await;
            drop((turn, place));
            shared.post(NetEvent::Fetched { hash, here });
        });
    }

    /// Answers a request in a task of its own. The permit is for as long as its
    /// bytes are in memory; without one, the answer is `Busy`.
    pub(super) fn serve(
        &self,
        ask: Ask,
        channel: ResponseChannel<Answer>,
        reader: Option<Reader>,
    ) -> Option<OwnedSemaphorePermit> {
        let orders = self.orders.clone();
        let (Ok(permit), Some(reader)) = (self.serves.clone().try_acquire_owned(), reader) else {
            self.shared.counters.requests_busy.add(1);
            // At once, unless the actor is far behind: then the asker times out.
            let _ = orders.try_send(Order::Answer { channel, answer: Answer::Busy });
            return None;
        };
        let access = self.access.clone();
        let shared = self.shared.clone();
        tokio::spawn(async move {
            let answer = match ask {
                Ask::Frame(frame) => reader.take_request(&frame).await,
                Ask::Chunk { hash, offset, len } => {
                    let read = move || (access.read)(hash, offset, len as usize);
                    match tokio::task::spawn_blocking(read).await {
                        Ok(Some(bytes)) if !bytes.is_empty() && bytes.len() <= BLOB_CHUNK_BYTES => {
                            shared.counters.bytes_sent.add(bytes.len() as u64);
                            reader.session.traffic.bytes.add(bytes.len() as u64);
                            Answer::Chunk(bytes)
                        }
                        _ => Answer::Missing,
                    }
                }
            };
            let _ = orders.send(Order::Answer { channel, answer }).await;
        });
        Some(permit)
    }
}

async fn bring(
    shared: &Arc<Shared>,
    orders: mpsc::Sender<Order>,
    access: Arc<BlobAccess>,
    hash: BlobHash,
    bytes: u64,
    from: NodeId,
) -> bool {
    let (pieces, mut arriving) = mpsc::channel(1);
    let receiving = tokio::task::spawn_blocking(move || {
        let mut arrived = std::iter::from_fn(|| arriving.blocking_recv());
        (access.receive)(hash, bytes, &mut arrived)
    });
    let peer = peer_of(&from);
    let chunk = BLOB_CHUNK_BYTES as u64;
    let wanted = (0..bytes.div_ceil(chunk)).map(|n| (n * chunk, chunk.min(bytes - n * chunk) as u32));
    let exactly = async |offset, len| match ask_chunk(&orders, peer, hash, offset, len).await {
        Part::Here(bytes) if bytes.len() == len as usize => Some(bytes),
        Part::Here(_) | Part::Missing | Part::Unknown => None,
    };
    let mut chunks = stream::iter(wanted).map(|(offset, len)| exactly(offset, len)).buffered(IN_FLIGHT);
    while let Some(Some(piece)) = chunks.next().await {
        shared.counters.bytes_received.add(piece.len() as u64);
        if let Some(session) = shared.session(&from) {
            session.traffic.bytes.add(piece.len() as u64);
        }
        if pieces.send(piece).await.is_err() {
            break;
        }
    }
    drop(pieces);
    // A receiver that panicked has kept nothing.
    receiving.await.unwrap_or(false)
}

/// Reads of blobs that other nodes have, whose hash is all that is known of
/// them. Cheap to clone.
#[derive(Clone)]
pub struct FarBlobs {
    pub(super) shared: Arc<Shared>,
    pub(super) orders: mpsc::Sender<Order>,
}

impl FarBlobs {
    /// Up to `len` bytes of a blob from `offset`, from a connected node that has
    /// it; fewer only at its end. `None`: nobody who answered has that. What
    /// comes is not compared with the hash, which only the whole can be.
    pub async fn read(&self, hash: BlobHash, offset: u64, len: usize) -> Option<Vec<u8>> {
        let first = |node: NodeId| async move {
            let peer = peer_of(&node);
            match ask_chunk(&self.orders, peer, hash, offset, chunk_of(len)).await {
                Part::Here(bytes) => Some((peer, bytes)),
                Part::Missing | Part::Unknown => None,
            }
        };
        let asked = stream::iter(self.shared.nodes()).map(first).buffer_unordered(ASKED_AT_ONCE);
        let (peer, mut bytes) = std::pin::pin!(asked.filter_map(std::future::ready)).next().await?;
        let mut last = bytes.len();
        while last == BLOB_CHUNK_BYTES && bytes.len() < len {
            let (next, left) = (offset + bytes.len() as u64, chunk_of(len - bytes.len()));
            match ask_chunk(&self.orders, peer, hash, next, left).await {
                Part::Here(more) => {
                    last = more.len();
                    bytes.extend(more);
                }
                // Its size is a multiple of the chunks'.
                Part::Missing => break,
                Part::Unknown => return None,
            }
        }
        self.shared.counters.bytes_received.add(bytes.len() as u64);
        Some(bytes)
    }
}

fn chunk_of(len: usize) -> u32 {
    len.min(BLOB_CHUNK_BYTES) as u32
}

/// What is known of a part of a blob at a peer.
enum Part {
    /// Up to as many bytes as were asked for.
    Here(Vec<u8>),
    /// The peer has not got it.
    Missing,
    /// The peer did not say.
    Unknown,
}

async fn ask_chunk(orders: &mpsc::Sender<Order>, peer: PeerId, hash: BlobHash, offset: u64, len: u32) -> Part {
    for turn in 0..TRIES {
        let (reply, answer) = oneshot::channel();
        if orders.send(Order::Ask { peer, ask: Ask::Chunk { hash, offset, len }, reply }).await.is_err() {
            return Part::Unknown;
        }
        match answer.await {
            Ok(Some(Answer::Chunk(bytes))) if bytes.len() <= len as usize => return Part::Here(bytes),
            Ok(Some(Answer::Missing)) => return Part::Missing,
            Ok(Some(Answer::Busy)) => tokio::time::sleep(BUSY_PAUSE * (turn + 1)).await,
            _ => return Part::Unknown,
        }
    }
    Part::Unknown
}

/// Blobs at once, each with its chunks in flight: 16 MiB in memory.
const FETCHES: usize = 4;
const IN_FLIGHT: usize = 4;
/// Fetches that wait for their turn.
const WAITING: usize = 4_096;
/// Nodes that are asked at once whether they have a blob.
const ASKED_AT_ONCE: usize = 4;
/// Requests of others at once: the memory of as many chunks.
const SERVES: usize = 16;
/// Frames of several MiB at once.
const LARGE_FRAMES: usize = 8;
/// Of one chunk, while the other side is busy.
const TRIES: u32 = 40;
const BUSY_PAUSE: Duration = Duration::from_millis(20);
