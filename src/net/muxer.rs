//! Streams over a connection to strangers: yamux, with bounds that libp2p's own
//! wrapper does not offer.
//!
//! What was sent on a stream and is not read yet waits in memory. By default
//! there may be 512 streams, and the room of each grows with the speed and the
//! delay that its sender makes up, until a connection holds 1 GiB.

use futures::future::{Ready, ready};
use futures::io::{AsyncRead, AsyncWrite};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo};
use std::collections::VecDeque;
use std::io;
use std::iter::{Once, once};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use yamux::{Connection, ConnectionError, Mode, Stream};

/// Streams of one connection at once, those of identify and ping among them.
/// One more ends the connection.
pub(super) const STREAMS: u32 = 16;
/// What may wait on each of them: what yamux gives to begin with.
pub(super) const STREAM_BYTES: u32 = 256 * 1024;

/// The upgrade of a connection to one of many streams.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounded;

/// A connection of many streams.
pub(super) struct Muxer<C> {
    connection: Connection<C>,
    /// Opened by the other side, and not taken yet: no more than [`STREAMS`].
    opened: VecDeque<Stream>,
    taker: Option<Waker>,
}

impl<C: AsyncRead + AsyncWrite + Unpin> Muxer<C> {
    fn new(socket: C, mode: Mode) -> Muxer<C> {
        let mut config = yamux::Config::default();
        config.set_max_num_streams(STREAMS as usize);
        // As there is no more than that for all of them, no stream's room grows.
        config.set_max_connection_receive_window(Some((STREAMS * STREAM_BYTES) as usize));
        Muxer { connection: Connection::new(socket, config, mode), opened: VecDeque::new(), taker: None }
    }

    fn next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Stream, ConnectionError>> {
        self.connection.poll_next_inbound(cx).map(|next| next.unwrap_or(Err(ConnectionError::Closed)))
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> StreamMuxer for Muxer<C> {
    type Substream = Stream;
    type Error = ConnectionError;

    fn poll_inbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Stream, ConnectionError>> {
        if let Some(stream) = self.opened.pop_front() {
            return Poll::Ready(Ok(stream));
        }
        let next = self.next(cx);
        if next.is_pending() {
            self.taker = Some(cx.waker().clone());
        }
        next
    }

    fn poll_outbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Stream, ConnectionError>> {
        self.connection.poll_new_outbound(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), ConnectionError>> {
        self.connection.poll_close(cx)
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, ConnectionError>> {
        let stream = ready!(self.next(cx))?;
        self.opened.push_back(stream);
        if let Some(taker) = self.taker.take() {
            taker.wake();
        }
        // There may be more, after others had their turn.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl UpgradeInfo for Bounded {
    type Info = &'static str;
    type InfoIter = Once<&'static str>;

    fn protocol_info(&self) -> Self::InfoIter {
        once("/yamux/1.0.0")
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> InboundConnectionUpgrade<C> for Bounded {
    type Output = Muxer<C>;
    type Error = io::Error;
    type Future = Ready<io::Result<Muxer<C>>>;

    fn upgrade_inbound(self, socket: C, _: &'static str) -> Self::Future {
        ready(Ok(Muxer::new(socket, Mode::Server)))
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> OutboundConnectionUpgrade<C> for Bounded {
    type Output = Muxer<C>;
    type Error = io::Error;
    type Future = Ready<io::Result<Muxer<C>>>;

    fn upgrade_outbound(self, socket: C, _: &'static str) -> Self::Future {
        ready(Ok(Muxer::new(socket, Mode::Client)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use libp2p::core::muxing::StreamMuxerExt as _;
    use std::future::poll_fn;
    use std::time::Duration;
    use tokio::time::timeout;
    use tokio_util::compat::TokioAsyncReadCompatExt as _;

    type Wire = tokio_util::compat::Compat<tokio::io::DuplexStream>;

    /// A client without bounds, which runs until its connection ends.
    fn pair() -> (Muxer<Wire>, Connection<Wire>) {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        (
            Muxer::new(ours.compat(), Mode::Server),
            Connection::new(theirs.compat(), yamux::Config::default(), Mode::Client),
        )
    }

    /// Takes every stream that is opened, until the connection ends.
    async fn serve(mut muxer: Muxer<Wire>) -> (Vec<Stream>, ConnectionError) {
        let mut taken = Vec::new();
        let error = poll_fn(|cx| {
            loop {
                match (muxer.poll_inbound_unpin(cx), muxer.poll_unpin(cx)) {
                    (Poll::Ready(Ok(stream)), _) => taken.push(stream),
                    (Poll::Ready(Err(error)), _) | (_, Poll::Ready(Err(error))) => return Poll::Ready(error),
                    (Poll::Pending, _) => return Poll::Pending,
                }
            }
        });
        let error = error.await;
        (taken, error)
    }

    #[tokio::test]
    async fn one_stream_too_many_ends_the_connection() {
        let (muxer, mut client) = pair();
        let served = tokio::spawn(serve(muxer));
        let mut opened = Vec::new();
        let ended = poll_fn(|cx| {
            while let Poll::Ready(Ok(stream)) = client.poll_new_outbound(cx) {
                opened.push(stream);
                if opened.len() > STREAMS as usize {
                    break;
                }
            }
            for stream in &mut opened {
                let _ = Pin::new(stream).poll_write(cx, b"hello");
            }
            match client.poll_next_inbound(cx) {
                Poll::Ready(None | Some(Err(_))) => Poll::Ready(()),
                _ => Poll::Pending,
            }
        });
        timeout(Duration::from_secs(20), ended).await.expect("the connection ends");
        let (taken, _) = served.await.expect("no panic");
        assert!(taken.len() <= STREAMS as usize, "{}", taken.len());
    }
}
