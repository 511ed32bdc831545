//! Requests and their answers: a kind byte and a raw body, each with its limit.
//! For chunks of blobs, and for frames while there is no stream.

use super::counters::Counters;
use super::stream::FRAME_BYTES;
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::{StreamProtocol, request_response};
use std::io;
use std::sync::Arc;
use taskmesh_core::BlobHash;
use taskmesh_core::limits::BLOB_CHUNK_BYTES;

/// What one node asks of another.
#[derive(Debug, PartialEq)]
pub(super) enum Ask {
    /// Take these messages.
    Frame(Vec<u8>),
    /// Send up to `len` bytes of a blob from `offset`.
    Chunk { hash: BlobHash, offset: u64, len: u32 },
}

/// The answer.
#[derive(Debug, PartialEq)]
pub(super) enum Answer {
    /// The messages were taken.
    Taken,
    /// Too much is under way: ask later.
    Busy,
    /// That blob, or that part of it, is not here.
    Missing,
    /// The bytes.
    Chunk(Vec<u8>),
}

/// Counts what is bad itself: libp2p tells nobody of a request that could not
/// be read.
#[derive(Clone, Default)]
pub(super) struct Codec {
    pub(super) counters: Arc<Counters>,
}

impl request_response::Codec for Codec {
    type Protocol = StreamProtocol;
    type Request = Ask;
    type Response = Answer;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Ask>
    where
        T: AsyncRead + Unpin + Send,
    {
        let (kind, body) = self.read(io, FRAME_BYTES).await?;
        match kind {
            ASK_FRAME => Ok(Ask::Frame(body)),
            ASK_CHUNK => chunk(&body).ok_or_else(|| self.bad("bad_request")),
            _ => Err(self.bad("bad_request")),
        }
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Answer>
    where
        T: AsyncRead + Unpin + Send,
    {
        let (kind, body) = self.read(io, BLOB_CHUNK_BYTES).await?;
        match (kind, body.is_empty()) {
            (TAKEN, true) => Ok(Answer::Taken),
            (BUSY, true) => Ok(Answer::Busy),
            (MISSING, true) => Ok(Answer::Missing),
            (CHUNK, _) => Ok(Answer::Chunk(body)),
            _ => Err(self.bad("bad_answer")),
        }
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, ask: Ask) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        match ask {
            Ask::Frame(frame) => write(io, ASK_FRAME, &frame).await,
            Ask::Chunk { hash, offset, len } => {
                let mut body = hash.0.to_vec();
                body.extend_from_slice(&offset.to_be_bytes());
                body.extend_from_slice(&len.to_be_bytes());
                write(io, ASK_CHUNK, &body).await
            }
        }
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, io: &mut T, answer: Answer) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        match answer {
            Answer::Taken => write(io, TAKEN, &[]).await,
            Answer::Busy => write(io, BUSY, &[]).await,
            Answer::Missing => write(io, MISSING, &[]).await,
            Answer::Chunk(bytes) => write(io, CHUNK, &bytes).await,
        }
    }
}

impl Codec {
    /// The kind and the body, which ends with the stream. Memory grows with what
    /// really arrives, never with what was announced.
    async fn read<T: AsyncRead + Unpin + Send>(&self, io: &mut T, limit: usize) -> io::Result<(u8, Vec<u8>)> {
        let mut kind = [0; 1];
        io.read_exact(&mut kind).await?;
        let mut body = Vec::new();
        io.take(limit as u64 + 1).read_to_end(&mut body).await?;
        if body.len() > limit {
            return Err(self.bad("body_too_long"));
        }
        Ok((kind[0], body))
    }

    fn bad(&self, reason: &'static str) -> io::Error {
        self.counters.bad_messages.add(reason);
        io::Error::new(io::ErrorKind::InvalidData, reason)
    }
}

async fn write<T: AsyncWrite + Unpin + Send>(io: &mut T, kind: u8, body: &[u8]) -> io::Result<()> {
    io.write_all(&[kind]).await?;
    io.write_all(body).await?;
    io.close().await
}

fn chunk(body: &[u8]) -> Option<Ask> {
    let body: &[u8; 44] = body.try_into().ok()?;
    let hash = BlobHash(body[..32].try_into().ok()?);
    let offset = u64::from_be_bytes(body[32..40].try_into().ok()?);
    let len = u32::from_be_bytes(body[40..].try_into().ok()?);
    (len as usize <= BLOB_CHUNK_BYTES).then_some(Ask::Chunk { hash, offset, len })
}

const ASK_FRAME: u8 = 1;
const ASK_CHUNK: u8 = 2;
const TAKEN: u8 = 1;
const BUSY: u8 = 2;
const MISSING: u8 = 3;
const CHUNK: u8 = 4;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use futures::executor::block_on;
    use futures::io::Cursor;
    use request_response::Codec as _;

    const PROTOCOL: StreamProtocol = StreamProtocol::new("/test");

    #[test]
    fn requests_and_answers_come_back_as_they_were() {
        let asks = [Ask::Frame(vec![7; 100]), Ask::Chunk { hash: BlobHash([3; 32]), offset: 1 << 40, len: 9 }];
        for (first, second) in asks
            .into_iter()
            .zip([Ask::Frame(vec![7; 100]), Ask::Chunk { hash: BlobHash([3; 32]), offset: 1 << 40, len: 9 }])
        {
            let mut bytes = Vec::new();
            block_on(Codec::default().write_request(&PROTOCOL, &mut Cursor::new(&mut bytes), first)).unwrap();
            assert_eq!(block_on(Codec::default().read_request(&PROTOCOL, &mut Cursor::new(bytes))).unwrap(), second);
        }
        let mut bytes = Vec::new();
        block_on(Codec::default().write_response(&PROTOCOL, &mut Cursor::new(&mut bytes), Answer::Chunk(vec![1; 9])))
            .unwrap();
        assert_eq!(
            block_on(Codec::default().read_response(&PROTOCOL, &mut Cursor::new(bytes))).unwrap(),
            Answer::Chunk(vec![1; 9])
        );
    }

    #[test]
    fn nonsense_is_an_error() {
        let huge = [vec![CHUNK], vec![0; BLOB_CHUNK_BYTES + 1]].concat();
        assert!(block_on(Codec::default().read_response(&PROTOCOL, &mut Cursor::new(huge))).is_err());
        let short = [vec![ASK_CHUNK], vec![0; 43]].concat();
        assert!(block_on(Codec::default().read_request(&PROTOCOL, &mut Cursor::new(short))).is_err());
        let greedy = [vec![ASK_CHUNK], vec![255; 44]].concat();
        assert!(block_on(Codec::default().read_request(&PROTOCOL, &mut Cursor::new(greedy))).is_err());
        assert!(block_on(Codec::default().read_request(&PROTOCOL, &mut Cursor::new(vec![9]))).is_err());
        assert!(block_on(Codec::default().read_request(&PROTOCOL, &mut Cursor::new(vec![]))).is_err());
    }
}
