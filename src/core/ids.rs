//! Names: of nodes, tasks, workers, blobs and requests. Every name that comes
//! from outside is validated here, once.

use crate::prng::mix;
use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Why a text is no valid name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing, or more than the limit.
    #[error("must be 1 to {max} bytes long, and is {got}")]
    Length {
        /// Bytes allowed.
        max: usize,
        /// Bytes given.
        got: usize,
    },
    /// White space or a control character.
    #[error("must not contain white space or control characters")]
    Character,
    /// Not the base58 text of an Ed25519 peer id.
    #[error("is not an Ed25519 peer id (it starts with 12D3KooW)")]
    PeerId,
}

/// A node: its Ed25519 public key. Shown as its libp2p peer id.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub [u8; 32]);

/// What an Ed25519 peer id has before the key: identity multihash, 36 bytes,
/// protobuf key type 1, 32 bytes (libp2p peer-ids spec).
const PEER_ID_PREFIX: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];

impl NodeId {
    /// A node of a simulation or a test: never the key of a real one.
    #[must_use]
    pub fn test(n: u64) -> NodeId {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&n.to_be_bytes());
        NodeId(id)
    }

    /// The bytes of the libp2p peer id.
    #[must_use]
    pub fn peer_id_bytes(&self) -> Vec<u8> {
        [&PEER_ID_PREFIX[..], &self.0[..]].concat()
    }

    /// From the bytes of a libp2p peer id; `None` unless it inlines an Ed25519 key.
    #[must_use]
    pub fn from_peer_id_bytes(bytes: &[u8]) -> Option<NodeId> {
        let key = bytes.strip_prefix(&PEER_ID_PREFIX[..])?;
        Some(NodeId(key.try_into().ok()?))
    }

    /// Spread bits of the key, for rendezvous hashing.
    #[must_use]
    pub fn hash64(&self) -> u64 {
        let mut h = 0;
        for part in self.0.chunks_exact(8) {
            h = mix(h ^ u64::from_be_bytes(part.try_into().expect("chunks of 8")));
        }
        h
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&bs58::encode(self.peer_id_bytes()).into_string())
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0[8..] == [0; 24] {
            return write!(f, "n{}", u64::from_be_bytes(self.0[..8].try_into().expect("8 of 32")));
        }
        let text = self.to_string();
        write!(f, "…{}", &text[text.len() - 6..])
    }
}

impl FromStr for NodeId {
    type Err = NameError;
    fn from_str(text: &str) -> Result<NodeId, NameError> {
        if text.len() > 64 {
            return Err(NameError::PeerId);
        }
        let bytes = bs58::decode(text).into_vec().map_err(|_| NameError::PeerId)?;
        NodeId::from_peer_id_bytes(&bytes).ok_or(NameError::PeerId)
    }
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $max:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The longest, in bytes.
            pub const MAX_BYTES: usize = $max;

            /// Validates `text`.
            ///
            /// # Errors
            /// Empty, too long, or with white space or control characters.
            pub fn new(text: &str) -> Result<$name, NameError> {
                validate(text, $max)?;
                Ok($name(text.into()))
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<$name, NameError> {
                $name::new(text)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

text_id! {
    /// A task: chosen by the caller, or a UUIDv7 that the node makes.
    TaskId, 256
}
text_id! {
    /// A worker: unique in the mesh by its operator's choice.
    WorkerId, 128
}

fn validate(text: &str, max: usize) -> Result<(), NameError> {
    if text.is_empty() || text.len() > max {
        return Err(NameError::Length { max, got: text.len() });
    }
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(NameError::Character);
    }
    Ok(())
}

impl TaskId {
    /// The part of the id that decides where the record lives: arrays
    /// (`id/0`), steps (`id/step`) and retries (`id-retry-1`) live with the
    /// task that they belong to, so that they share one commit and one ask.
    #[must_use]
    pub fn place(&self) -> &str {
        let mut head = self.0.split('/').next().unwrap_or(&self.0);
        while let Some((base, n)) = head.rsplit_once("-retry-")
            && !base.is_empty()
            && !n.is_empty()
            && n.bytes().all(|b| b.is_ascii_digit())
        {
            head = base;
        }
        head
    }

    /// Spread bits of [`TaskId::place`], for rendezvous hashing.
    #[must_use]
    pub fn place_hash(&self) -> u64 {
        let hash = blake3::hash(self.place().as_bytes());
        u64::from_be_bytes(hash.as_bytes()[..8].try_into().expect("8 of 32"))
    }

    /// Item `n` of the array `self`.
    ///
    /// # Errors
    /// The longer id may be over the limit.
    pub fn item(&self, n: usize) -> Result<TaskId, NameError> {
        TaskId::new(&format!("{}/{n}", self.0))
    }
}

/// Content of a blob: its BLAKE3 hash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobHash(pub [u8; 32]);

impl BlobHash {
    /// The hash of `content`.
    #[must_use]
    pub fn of(content: &[u8]) -> BlobHash {
        BlobHash(*blake3::hash(content).as_bytes())
    }
}

impl fmt::Display for BlobHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl std::str::FromStr for BlobHash {
    type Err = NoHash;

    fn from_str(text: &str) -> Result<BlobHash, NoHash> {
        let digit = |byte: u8| char::from(byte).to_digit(16).ok_or(NoHash);
        if text.len() != 64 {
            return Err(NoHash);
        }
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(text.as_bytes().chunks(2)) {
            *byte = u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).map_err(|_| NoHash)?;
        }
        Ok(BlobHash(hash))
    }
}

/// A text that is no hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a hash is written as 64 hexadecimal digits")]
pub struct NoHash;

impl fmt::Debug for BlobHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

/// A request to this node, by its own face (HTTP, stdio) or by another node;
/// only the driver and the core know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// `nodes` in rendezvous order for `place` (Thaler, Ravishankar: "Using
/// name-based mappings to increase hit rates", 1998): every node that knows
/// the same members computes the same order, and a member that comes or goes
/// moves only its own share.
#[must_use]
pub fn rendezvous(place: u64, nodes: impl IntoIterator<Item = NodeId>) -> Vec<NodeId> {
    let mut ranked: Vec<_> = nodes.into_iter().map(|n| (mix(place ^ n.hash64()), n)).collect();
    ranked.sort_unstable();
    ranked.into_iter().map(|(_, n)| n).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_id_is_shown_as_its_peer_id_and_read_back() {
        let id = NodeId([7; 32]);
        assert!(id.to_string().starts_with("12D3KooW"));
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("QmNonsense".parse::<NodeId>(), Err(NameError::PeerId));
    }

    #[test]
    fn arrays_steps_and_retries_live_with_their_task() {
        for id in ["job", "job/17", "job-retry-2", "job-retry-2/3", "job-retry-2-retry-1"] {
            assert_eq!(TaskId::new(id).map(|t| t.place().to_owned()), Ok("job".to_owned()));
        }
        assert_eq!(TaskId::new("job-retry-x").map(|t| t.place().to_owned()), Ok("job-retry-x".to_owned()));
    }

    #[test]
    fn names_from_outside_are_bounded() {
        assert!(TaskId::new("").is_err());
        assert!(TaskId::new(&"x".repeat(257)).is_err());
        assert!(TaskId::new("a b").is_err());
        assert!(TaskId::new("a\u{7}").is_err());
        assert!(TaskId::new(&"x".repeat(256)).is_ok());
    }

    #[test]
    fn a_member_that_leaves_moves_only_its_own_share() {
        let all: Vec<_> = (0..20).map(NodeId::test).collect();
        for place in 0..200 {
            let before = rendezvous(place, all.iter().copied());
            let after = rendezvous(place, all.iter().copied().filter(|n| *n != all[3]));
            let expected: Vec<_> = before.into_iter().filter(|n| *n != all[3]).collect();
            assert_eq!(after, expected);
        }
    }
}
