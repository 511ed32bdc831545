//! The bytes of what nodes say to each other: the core's messages to protobuf
//! (`proto/taskmesh/v1`) and back.
//!
//! Whatever comes in is believed only as far as it was checked: names through
//! their constructors, lengths and numbers against the core's `limits`. So the
//! core can rely on the bounds that its types promise. A message that is not
//! understood is an error, never a panic, and stands for nothing but itself.

mod cache;
mod check;
mod forgotten;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod mesh;
mod needs;
mod permits;
mod refusal;
mod reply;
mod request;
mod schedule;
mod task;
mod tokens;
mod weigh;
mod workflow;

#[cfg(test)]
mod strategies;
#[cfg(test)]
mod tests;

// Frames are split by hand, so that one bad message does not cost the others:
// of the whole schema only the type `Frame` is used by tests alone.
#[allow(dead_code, missing_docs, unreachable_pub, clippy::all, rustdoc::all)]
mod proto {
    include!(concat!(env!("OUT_DIR"), "/taskmesh.v1.rs"));
}

use prost::Message as _;
use taskmesh_core::ids::NameError;
use taskmesh_core::{Message, limits};

/// Messages of one frame: more than a megabyte of the smallest that matter.
pub const FRAME_MESSAGES: usize = 16_384;
/// Bytes of one frame: its largest message alone, and the frame's own.
pub const FRAME_BYTES: usize = limits::MESSAGE_BYTES + 16;

/// Why bytes from another node are dropped. Nothing has changed; the sender
/// may be newer, older, broken or hostile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Over the limit for a message or a frame; not looked at.
    #[error("{got} bytes, and the limit is {limit}")]
    TooLarge {
        /// Bytes that came.
        got: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// Too many elements: it would take too much memory.
    #[error("needs more than {limit} bytes of memory")]
    Heavy {
        /// Bytes allowed.
        limit: usize,
    },
    /// Not protobuf of this schema.
    #[error("malformed: {problem}")]
    Malformed {
        /// What the reader said.
        problem: String,
    },
    /// A kind of message, state or number of an enum that this version does
    /// not know: the sender is newer.
    #[error("unknown kind of {what}")]
    Unknown {
        /// Of what.
        what: &'static str,
    },
    /// Something that every sender writes is not there.
    #[error("{field} is missing")]
    Missing {
        /// Which.
        field: &'static str,
    },
    /// Not a valid name.
    #[error("{field} {problem}")]
    Name {
        /// Which.
        field: &'static str,
        /// Why.
        problem: NameError,
    },
    /// Too long, too many or too much.
    #[error("{field}: {got} is over the limit of {limit}")]
    Limit {
        /// What of.
        field: &'static str,
        /// Bytes, elements or units that came.
        got: u64,
        /// How many are allowed.
        limit: u64,
    },
    /// Out of its range in another way.
    #[error("{field} {problem}")]
    Range {
        /// Which.
        field: &'static str,
        /// Why.
        problem: &'static str,
    },
    /// A request that only a node's own face may make.
    #[error("a request that other nodes may not make")]
    NotForPeers,
}

impl WireError {
    /// A short fixed name for metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            WireError::TooLarge { .. } => "too_large",
            WireError::Heavy { .. } => "heavy",
            WireError::Malformed { .. } => "malformed",
            WireError::Unknown { .. } => "unknown",
            WireError::Missing { .. } => "missing",
            WireError::Name { .. } => "name",
            WireError::Limit { .. } => "limit",
            WireError::Range { .. } => "range",
            WireError::NotForPeers => "not_for_peers",
        }
    }
}

impl From<prost::DecodeError> for WireError {
    fn from(error: prost::DecodeError) -> Self {
        WireError::Malformed { problem: error.to_string() }
    }
}

/// Appends the bytes of `message` to `out`.
///
/// Whoever sends must see that they are at most [`limits::MESSAGE_BYTES`]: a
/// reader drops what is longer.
pub fn encode(message: &Message, out: &mut Vec<u8>) {
    proto::Message::from(message).encode(out).expect("a Vec grows as needed");
}

/// The bytes that [`encode`] would append. Costs as much as to encode it.
#[must_use]
pub fn encoded_len(message: &Message) -> usize {
    proto::Message::from(message).encoded_len()
}

/// Appends a frame of `messages` to `out`. Frames may be joined: two appended
/// one after the other are one frame of both, so a writer can fill `out`
/// message by message and look at its length.
///
/// A reader drops a frame of more than [`FRAME_MESSAGES`] or [`FRAME_BYTES`].
pub fn encode_frame<'a>(messages: impl IntoIterator<Item = &'a Message>, out: &mut Vec<u8>) {
    for message in messages {
        out.push((weigh::MESSAGES << 3 | 2) as u8);
        proto::Message::from(message).encode_length_delimited(out).expect("a Vec grows as needed");
    }
}

/// Reads one message.
///
/// # Errors
/// Not a message that this version knows, or one beyond a limit.
pub fn decode(bytes: &[u8]) -> Result<Message, WireError> {
    within(bytes, limits::MESSAGE_BYTES)?;
    weigh::weigh(bytes)?;
    mesh::message_from(&proto::Message::decode(bytes)?)
}

/// Reads a frame: each message or why it is dropped, in their order.
///
/// # Errors
/// Not a frame, or one beyond a limit: nothing of it can be used.
pub fn decode_frame(bytes: &[u8]) -> Result<Vec<Result<Message, WireError>>, WireError> {
    within(bytes, FRAME_BYTES)?;
    let mut messages = Vec::new();
    weigh::split(bytes, |message| {
        check::length("frame.messages", messages.len() + 1, FRAME_MESSAGES)?;
        messages.push(decode(message));
        Ok(())
    })?;
    Ok(messages)
}

fn within(bytes: &[u8], limit: usize) -> Result<(), WireError> {
    if bytes.len() > limit {
        return Err(WireError::TooLarge { got: bytes.len(), limit });
    }
    Ok(())
}
