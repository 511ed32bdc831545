//! Frames: four bytes of length (big-endian), then so many bytes of UTF-8 JSON,
//! an object.
//!
//! The length is checked before anything is allocated, what is allocated grows
//! with what has come, large frames share one budget, and a frame that was begun
//! must end soon: a slow or lying peer costs a place and nothing else.

use crate::api::budget::{Budget, Full, Memory, weight};
use crate::ops::value::Object;
use serde_json::Value;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// The largest frame, each way: a payload of the largest size, with the
/// escapes that its text may need.
pub const FRAME_BYTES: usize = 2 * 1024 * 1024;
/// What frames and the requests made of them take in memory, at any time: all
/// but the small ones, of which every stream may hold one.
pub(super) const BUDGET_BYTES: usize = 128 * 1024 * 1024;
/// A frame that was begun ends within this.
pub(super) const FRAME_TIME: Duration = Duration::from_secs(20);
/// What is read at once: memory grows with what has come.
const PIECE: usize = 16 * 1024;

/// A frame, and the memory that it holds until this is dropped.
#[derive(Debug)]
pub(super) struct Frame {
    /// Its message.
    pub(super) message: Object,
    _memory: Memory,
}

/// Why there is no message. The stream is of no further use.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    /// The other side has closed, between frames.
    #[error("closed")]
    Closed,
    /// Nothing came for too long.
    #[error("idle_timeout")]
    Idle,
    /// A frame was begun and not ended in time.
    #[error("frame_timeout")]
    Slow,
    /// The other side has closed within a frame, or the stream broke.
    #[error("truncated")]
    Truncated,
    /// Of no length.
    #[error("empty_frame")]
    Empty,
    /// Over [`FRAME_BYTES`], or over the budget once it is read.
    #[error("frame_too_large")]
    TooLarge,
    /// Too many large frames are held at the moment.
    #[error("busy")]
    Busy,
    /// Not UTF-8, not JSON, or nested too deeply.
    #[error("invalid_json")]
    Json,
    /// JSON, but no object.
    #[error("invalid_message")]
    Message,
}

/// Reads one frame; `idle` is how long it may take to begin.
pub(super) async fn read(
    stream: &mut (impl AsyncRead + Unpin),
    budget: &Budget,
    idle: Duration,
) -> Result<Frame, FrameError> {
    read_within(stream, budget, idle, FRAME_TIME).await
}

async fn read_within(
    stream: &mut (impl AsyncRead + Unpin),
    budget: &Budget,
    idle: Duration,
    whole: Duration,
) -> Result<Frame, FrameError> {
    let mut length = [0; 4];
    match tokio::time::timeout(idle, stream.read(&mut length[..1])).await {
        Err(_) => return Err(FrameError::Idle),
        Ok(Ok(0)) => return Err(FrameError::Closed),
        Ok(Err(_)) => return Err(FrameError::Truncated),
        Ok(Ok(_)) => {}
    }
    let rest = async {
        stream.read_exact(&mut length[1..]).await.map_err(|_| FrameError::Truncated)?;
        let length = checked(u32::from_be_bytes(length))?;
        let mut memory = budget.memory();
        memory.grow(length).map_err(without_memory)?;
        let text = body(stream, length).await?;
        memory.grow(weight(&text)).map_err(without_memory)?;
        Ok(Frame { message: parse(&text)?, _memory: memory })
    };
    tokio::time::timeout(whole, rest).await.unwrap_or(Err(FrameError::Slow))
}

/// Writes one frame.
///
/// # Errors
/// The message is over the limit (nothing was written), the stream broke, or
/// the other side does not read.
pub(super) async fn write(stream: &mut (impl AsyncWrite + Unpin), message: &Value) -> io::Result<()> {
    let frame = encode(message)?;
    let written = async {
        stream.write_all(&frame).await?;
        stream.flush().await
    };
    tokio::time::timeout(FRAME_TIME, written).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// The bytes of a frame.
///
/// # Errors
/// `InvalidData`: the message is over [`FRAME_BYTES`].
pub(super) fn encode(message: &Value) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, message)?;
    let length = frame.len() - 4;
    if length > FRAME_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{length} bytes are over {FRAME_BYTES}")));
    }
    frame[..4].copy_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    Ok(frame)
}

fn checked(length: u32) -> Result<usize, FrameError> {
    match usize::try_from(length) {
        Ok(0) => Err(FrameError::Empty),
        Ok(length) if length <= FRAME_BYTES => Ok(length),
        Ok(_) | Err(_) => Err(FrameError::TooLarge),
    }
}

fn without_memory(full: Full) -> FrameError {
    match full {
        Full::Now => FrameError::Busy,
        Full::Ever => FrameError::TooLarge,
    }
}

async fn body(stream: &mut (impl AsyncRead + Unpin), length: usize) -> Result<Vec<u8>, FrameError> {
    let mut text = Vec::new();
    while text.len() < length {
        let piece = PIECE.min(length - text.len());
        let start = text.len();
        text.resize(start + piece, 0);
        stream.read_exact(&mut text[start..]).await.map_err(|_| FrameError::Truncated)?;
    }
    Ok(text)
}

/// The object that a frame holds. Nesting is bounded by the parser, at 128.
pub(super) fn parse(text: &[u8]) -> Result<Object, FrameError> {
    let text = std::str::from_utf8(text).map_err(|_| FrameError::Json)?;
    match serde_json::from_str(text).map_err(|_| FrameError::Json)? {
        Value::Object(message) => Ok(message),
        _ => Err(FrameError::Message),
    }
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
