//! The long-lived stream to a peer. Each side opens one and only writes to it;
//! the other only reads: so there is nobody to agree with on who opens it, each
//! side heals its own, and whoever writes knows the order.
//!
//! ```text
//! opener   → acceptor    4 bytes length (big-endian), frame; again and again
//! acceptor → opener      one byte: I read
//! ```
//! A frame of no bytes is the last one of a stream whose opener goes on with another
//! when the way to the peer has changed; a stream that just ends says that it leaves.
//! While no stream can be had, frames go by request, one after the other.

use super::actor::Order;
use super::codec::{Answer, Ask};
use super::session::{Session, Shared};
use super::{NetEvent, wire};
use futures::io::BufReader;
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::{Stream, StreamProtocol};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use taskmesh_core::Message;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(super) use super::wire::FRAME_BYTES;

/// The writing half: empties the queue of one session.
pub(super) struct Writer {
    pub(super) session: Arc<Session>,
    pub(super) shared: Arc<Shared>,
    pub(super) control: libp2p_stream::Control,
    pub(super) protocol: StreamProtocol,
    pub(super) orders: mpsc::Sender<Order>,
}

/// Why writing stopped.
enum Ended {
    /// The queue is closed and everything was written.
    Drained,
    /// This way is closed; `unsure` says whether a frame may not have arrived.
    Lost { unsure: Unsure },
    /// Time to try the stream again.
    Paused,
}

/// Whether the frame in the buffer may not have arrived.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unsure {
    Yes,
    No,
}

impl Writer {
    /// Runs until the queue is closed and empty, or the session ends.
    pub(super) async fn run(mut self) {
        let ended = self.session.ended.clone();
        let drained = ended.run_until_cancelled(self.write_all()).await;
        if drained.is_some() {
            let order = Order::Drained { peer: self.session.peer, session: self.session.number };
            let _ = self.orders.send(order).await;
        }
        self.shared.counters.messages_lost.add(self.session.queue.len() as u64);
    }

    async fn write_all(&mut self) {
        let mut frames = Vec::new();
        let mut unsure = Unsure::No;
        let mut failures = 0;
        loop {
            self.rest().await;
            let ended = match self.open().await {
                Ok(stream) => {
                    failures = 0;
                    self.usable().await;
                    self.by_stream(stream, &mut frames, unsure).await
                }
                Err(error) => {
                    failures += 1;
                    tracing::debug!(peer = %self.session.peer, %error, failures, "no stream");
                    self.by_request(failures, &mut frames, unsure).await
                }
            };
            unsure = match ended {
                Ended::Drained => return,
                Ended::Lost { unsure } => unsure,
                Ended::Paused => Unsure::No,
            };
        }
    }

    /// While the way to the peer changes.
    async fn rest(&self) {
        let mut rest = self.session.rest.subscribe();
        if *rest.borrow() {
            let order = Order::Rests { peer: self.session.peer, session: self.session.number };
            let _ = self.orders.send(order).await;
            let _ = rest.wait_for(|rest| !*rest).await;
        }
    }

    /// Ends the stream with the mark, and waits until all of it has been read.
    async fn go_elsewhere(&self, mut stream: Stream) -> Ended {
        let goodbye = async {
            write(&mut stream, &GOES_ELSEWHERE).await?;
            stream.close().await?;
            stream.read(&mut [0; 1]).await
        };
        let _ = tokio::time::timeout(LAST_WORDS, goodbye).await;
        Ended::Paused
    }

    async fn open(&mut self) -> io::Result<Stream> {
        let opened = async {
            let opened = self.control.open_stream(self.session.peer, self.protocol.clone()).await;
            let mut stream = opened.map_err(io::Error::other)?;
            let mut ready = [0; 1];
            stream.read_exact(&mut ready).await?;
            Ok(stream)
        };
        // Without a limit, opening to a peer that is just leaving waits for ever.
        tokio::time::timeout(OPEN_TIMEOUT, opened).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    async fn usable(&self) {
        let order = Order::Usable { peer: self.session.peer, session: self.session.number };
        let _ = self.orders.send(order).await;
    }

    async fn by_stream(&self, mut stream: Stream, frames: &mut Vec<u8>, mut unsure: Unsure) -> Ended {
        let mut rest = self.session.rest.subscribe();
        loop {
            if unsure == Unsure::No {
                // The reader says nothing more: if this ends, the stream has ended.
                let mut nothing = [0; 1];
                let batch = tokio::select! {
                    biased;
                    () = told_to(&mut rest) => return self.go_elsewhere(stream).await,
                    batch = self.session.queue.take() => batch,
                    _ = stream.read(&mut nothing) => return Ended::Lost { unsure },
                };
                let Some(batch) = batch else {
                    // Its reader hangs up when it has delivered everything.
                    let _ = stream.close().await;
                    let _ = tokio::time::timeout(LAST_WORDS, stream.read(&mut nothing)).await;
                    return Ended::Drained;
                };
                self.encode(&batch, frames);
            }
            if let Err(error) = write(&mut stream, frames).await {
                tracing::debug!(peer = %self.session.peer, %error, "the stream is lost");
                return Ended::Lost { unsure: Unsure::Yes };
            }
            unsure = Unsure::No;
            self.shared.counters.bytes_sent.add(frames.len() as u64);
            self.session.traffic.bytes.add(frames.len() as u64);
        }
    }

    /// For a while; the while grows with the failures.
    async fn by_request(&self, failures: u32, frames: &mut Vec<u8>, mut unsure: Unsure) -> Ended {
        let pause = tokio::time::sleep(OPEN_AGAIN.saturating_mul(1 << failures.min(7)));
        tokio::pin!(pause);
        if failures < BY_REQUEST_FROM {
            pause.await;
            return Ended::Lost { unsure };
        }
        if failures == BY_REQUEST_FROM {
            tracing::warn!(peer = %self.session.peer, "no stream can be had: messages go by request");
            // An empty frame shows whether this way is open.
            if self.ask(&[]).await {
                self.usable().await;
            }
        }
        loop {
            if unsure == Unsure::No {
                let batch = tokio::select! {
                    biased;
                    () = &mut pause => return Ended::Paused,
                    batch = self.session.queue.take() => batch,
                };
                let Some(batch) = batch else { return Ended::Drained };
                self.encode(&batch, frames);
            }
            let mut rest = &frames[..];
            while let Some((frame, more)) = split_frame(rest) {
                if !self.ask(frame).await {
                    self.shared.counters.messages_lost.add(1);
                }
                rest = more;
            }
            unsure = Unsure::No;
        }
    }

    async fn ask(&self, frame: &[u8]) -> bool {
        let (reply, answer) = oneshot::channel();
        let order = Order::Ask { peer: self.session.peer, ask: Ask::Frame(frame.to_vec()), reply };
        if self.orders.send(order).await.is_err() {
            return false;
        }
        self.shared.counters.frames_by_request.add(1);
        matches!(answer.await, Ok(Some(Answer::Taken)))
    }

    /// One frame where it fits, else one for each message.
    fn encode(&self, batch: &[Message], frames: &mut Vec<u8>) {
        frames.clear();
        frames.shrink_to(KEPT_BUFFER);
        push_frame(batch, frames);
        let (mut sent, mut count) = (batch.len() as u64, 1);
        if frames.len() > FRAME_BYTES {
            frames.clear();
            (sent, count) = (0, 0);
            for message in batch {
                let start = frames.len();
                push_frame(std::slice::from_ref(message), frames);
                if frames.len() - start > FRAME_BYTES {
                    frames.truncate(start);
                    self.shared.counters.messages_lost.add(1);
                    tracing::warn!(peer = %self.session.peer, "a message over the limit was not sent");
                } else {
                    (sent, count) = (sent + 1, count + 1);
                }
            }
        }
        self.shared.counters.messages_sent.add(sent);
        self.shared.counters.frames_sent.add(count);
    }
}

/// Until it is to rest.
async fn told_to(rest: &mut watch::Receiver<bool>) {
    // The session, and with it the sender, is there as long as its writer.
    let _ = rest.wait_for(|rest| *rest).await;
}

/// Appends the length and the frame.
fn push_frame(batch: &[Message], out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    wire::encode_frame(batch, out);
    let length = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

fn split_frame(frames: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = frames.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_be_bytes(*length) as usize)
}

async fn write<S: AsyncWrite + Unpin>(stream: &mut S, frames: &[u8]) -> io::Result<()> {
    stream.write_all(frames).await?;
    stream.flush().await
}

/// The reading half: gives what a peer writes to the node.
pub(super) struct Reader {
    pub(super) session: Arc<Session>,
    pub(super) shared: Arc<Shared>,
    pub(super) orders: mpsc::Sender<Order>,
    /// Large frames at once, of all peers.
    pub(super) large: Arc<Semaphore>,
}

/// Why a stream is read no more.
enum Bad {
    /// By its writer, between frames.
    SaidAll,
    /// By its writer, which goes on with another.
    GoesElsewhere,
    Ended,
    Frame(&'static str),
}

impl From<io::Error> for Bad {
    fn from(_: io::Error) -> Bad {
        Bad::Ended
    }
}

impl Reader {
    /// Reads until the stream or the session ends, or a frame is bad. What the
    /// peer's stream before this one still holds is delivered first.
    pub(super) async fn run(self, mut stream: Stream, before: Option<JoinHandle<()>>) {
        let ended = self.session.ended.clone();
        let reading = async {
            if let Some(mut before) = before
                && tokio::time::timeout(LAST_WORDS, &mut before).await.is_err()
            {
                before.abort();
            }
            write(&mut stream, &[READY]).await?;
            let mut up = self.session.up.subscribe();
            up.wait_for(|up| *up).await.map_err(|_| Bad::Ended)?;
            let mut stream = BufReader::with_capacity(READ_BUFFER, stream);
            let ended = self.read_frames(&mut stream).await;
            if let Err(Bad::SaidAll) = ended {
                // The stream ends with this: its writer waits for that.
                self.see_off().await;
            }
            ended
        };
        match ended.run_until_cancelled(reading).await {
            Some(Err(Bad::Frame(reason))) => {
                self.shared.counters.bad_messages.add(reason);
                tracing::warn!(peer = %self.session.peer, reason, "a bad frame: its stream is closed");
                let _ = self.orders.send(Order::Strike { peer: self.session.peer }).await;
            }
            Some(Err(Bad::GoesElsewhere)) => {
                let order = Order::PeerRests { peer: self.session.peer, session: self.session.number };
                let _ = self.orders.send(order).await;
            }
            Some(Ok(()) | Err(Bad::SaidAll | Bad::Ended)) | None => {}
        }
    }

    /// Returns when the node has taken up all that the peer said, and that it
    /// leaves.
    async fn see_off(&self) {
        let (peer, session, told) = (self.session.peer, self.session.number, CancellationToken::new());
        let order = Order::SaidAll { peer, session, told: told.clone().drop_guard() };
        let _ = self.orders.send(order).await;
        let _ = tokio::time::timeout(LAST_WORDS, told.cancelled()).await;
    }

    async fn read_frames(&self, stream: &mut (impl AsyncRead + Unpin)) -> Result<(), Bad> {
        let mut frame = Vec::new();
        loop {
            let mut length = [0; 4];
            if stream.read(&mut length[..1]).await? == 0 {
                return Err(Bad::SaidAll);
            }
            stream.read_exact(&mut length[1..]).await?;
            if length == GOES_ELSEWHERE {
                return Err(Bad::GoesElsewhere);
            }
            let length = u32::from_be_bytes(length) as usize;
            if length > FRAME_BYTES {
                return Err(Bad::Frame("frame_too_long"));
            }
            let large = match length > LARGE {
                true => self.large.acquire().await.ok(),
                false => None,
            };
            frame.clear();
            frame.shrink_to(KEPT_BUFFER);
            let body = read_body(&mut *stream, length, &mut frame);
            tokio::time::timeout(FRAME_TIME, body).await.map_err(|_| Bad::Frame("slow_frame"))??;
            self.shared.counters.bytes_received.add(length as u64 + 4);
            self.session.traffic.bytes.add(length as u64 + 4);
            self.deliver(&frame).await?;
            drop(large);
        }
    }

    /// Gives the messages of a frame to the node, and waits while it is full.
    async fn deliver(&self, frame: &[u8]) -> Result<(), Bad> {
        let mut messages = Vec::new();
        for message in wire::decode_frame(frame).map_err(|e| Bad::Frame(e.reason()))? {
            match message {
                Ok(message) => messages.push(message),
                Err(error) => self.shared.counters.bad_messages.add(error.reason()),
            }
        }
        self.shared.counters.frames_received.add(1);
        if !messages.is_empty() {
            self.give(messages).await;
        }
        Ok(())
    }

    async fn give(&self, messages: Vec<Message>) {
        let count = messages.len() as u64;
        let mut event = NetEvent::Received { from: self.session.node, messages };
        let mut pause = Duration::from_millis(1);
        while let Some(refused) = self.shared.offer(event) {
            event = refused;
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(FULL_PAUSE);
        }
        self.shared.counters.messages_received.add(count);
    }

    /// A frame that came by request; the answer.
    pub(super) async fn take_request(&self, frame: &[u8]) -> Answer {
        let taken = self.session.ended.run_until_cancelled(self.deliver(frame)).await;
        if let Some(Err(Bad::Frame(reason))) = taken {
            self.shared.counters.bad_messages.add(reason);
        }
        Answer::Taken
    }
}

/// Memory grows with what really arrives.
async fn read_body(stream: &mut (impl AsyncRead + Unpin), length: usize, body: &mut Vec<u8>) -> io::Result<()> {
    while body.len() < length {
        let start = body.len();
        body.resize(length.min(start + READ_BUFFER), 0);
        stream.read_exact(&mut body[start..]).await?;
    }
    Ok(())
}

const READY: u8 = 1;
/// The length of a frame of no bytes.
const GOES_ELSEWHERE: [u8; 4] = [0; 4];
/// Opening takes two round trips.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// Doubles with each failure up to 128 ×.
const OPEN_AGAIN: Duration = Duration::from_millis(40);
/// An acceptor that is busy with others drops streams now and then: only a
/// peer that refuses several is served by request.
const BY_REQUEST_FROM: u32 = 4;
/// For what was written to a stream that is over to be delivered.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// The longest pause before a full node is offered a message again.
const FULL_PAUSE: Duration = Duration::from_millis(20);
const READ_BUFFER: usize = 64 * 1024;
/// Buffers keep this much between frames.
const KEPT_BUFFER: usize = 512 * 1024;
/// For a frame that has begun to arrive in full: a place among the large ones is
/// not held for ever.
const FRAME_TIME: Duration = Duration::from_secs(60);
/// Frames above this size are read few at a time.
const LARGE: usize = 512 * 1024;
