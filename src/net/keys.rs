//! What is derived from the mesh key: the pre-shared key of TCP, the key of
//! the proof, and the name of the mesh that all protocol names carry. Each
//! comes from its own context, so that none tells anything about another.

use libp2p::StreamProtocol;
use libp2p::gossipsub::IdentTopic;
use std::fmt;

/// What this program speaks with other nodes: its own version and the one
/// before, if there is one, so that a mesh is upgraded node by node.
pub const PROTOCOL_VERSIONS: Versions = Versions { lowest: 1, highest: 1 };

/// What the names of protocols carry. Nodes of different versions meet under the
/// same names: what they speak there was agreed in the hello.
const NAMES: u32 = 1;

/// A range of versions of all that two nodes say to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// From 1.
    pub lowest: u16,
    /// Not below the lowest.
    pub highest: u16,
}

impl Versions {
    /// What two nodes speak with each other: the highest that both know.
    #[must_use]
    pub fn common(self, other: Versions) -> Option<u16> {
        let highest = self.highest.min(other.highest);
        (highest >= self.lowest.max(other.lowest)).then_some(highest)
    }

    /// As a hello says it: how many it knows below its highest, and that. So one
    /// that knows a single version says it as it did before there were ranges.
    pub(super) fn to_word(self) -> u32 {
        u32::from(self.highest - self.lowest) << 16 | u32::from(self.highest)
    }

    pub(super) fn of_word(word: u32) -> Option<Versions> {
        let (below, highest) = ((word >> 16) as u16, word as u16);
        let lowest = highest.checked_sub(below).filter(|lowest| *lowest > 0)?;
        Some(Versions { lowest, highest })
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.lowest, self.highest) {
            (one, other) if one == other => write!(f, "{one}"),
            (lowest, highest) => write!(f, "{lowest}-{highest}"),
        }
    }
}

/// Keys and names of one mesh.
#[derive(Clone)]
pub(super) struct Keys {
    /// For pnet, under TCP.
    pub(super) psk: [u8; 32],
    /// For the proof of [`super::hello`].
    pub(super) proof: [u8; 32],
    /// 16 hexadecimal digits.
    pub(super) mesh: String,
    /// Spoken by this node.
    pub(super) versions: Versions,
}

impl Keys {
    pub(super) fn new(mesh_key: &[u8; 32], versions: Versions) -> Keys {
        let name = blake3::derive_key("taskmesh 2026 mesh name", mesh_key);
        Keys {
            psk: blake3::derive_key("taskmesh 2026 pre-shared key of tcp", mesh_key),
            proof: blake3::derive_key("taskmesh 2026 proof of the mesh key", mesh_key),
            mesh: name[..8].iter().map(|b| format!("{b:02x}")).collect(),
            versions,
        }
    }

    /// The name of a protocol of this mesh.
    pub(super) fn protocol(&self, what: &str) -> StreamProtocol {
        StreamProtocol::try_from_owned(format!("/taskmesh/{}/{NAMES}/{what}", self.mesh))
            .expect("it starts with a slash")
    }

    /// The name of a gossip topic of this mesh.
    pub(super) fn topic(&self, what: &str) -> IdentTopic {
        IdentTopic::new(format!("taskmesh/{}/{NAMES}/{what}", self.mesh))
    }

    /// What identify says of the protocol.
    pub(super) fn identity(&self) -> String {
        format!("taskmesh/{}/{}", self.versions, self.mesh)
    }

    /// The same, of what is spoken with one peer.
    pub(super) fn spoken(&self, version: u16) -> String {
        format!("taskmesh/{version}/{}", self.mesh)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_nodes_speak_the_highest_version_that_both_know() {
        let range = |(lowest, highest)| Versions { lowest, highest };
        for (one, other, common) in [
            ((1, 1), (1, 1), Some(1)),
            ((1, 1), (1, 2), Some(1)),
            ((1, 2), (1, 2), Some(2)),
            ((1, 2), (2, 3), Some(2)),
            ((2, 5), (3, 4), Some(4)),
            ((1, 1), (2, 2), None),
            ((1, 2), (3, 4), None),
            ((7, 9), (1, 6), None),
        ] {
            assert_eq!(range(one).common(range(other)), common, "{one:?} and {other:?}");
            assert_eq!(range(other).common(range(one)), common, "{other:?} and {one:?}");
        }
        assert_eq!(PROTOCOL_VERSIONS.common(PROTOCOL_VERSIONS), Some(PROTOCOL_VERSIONS.highest));
    }

    #[test]
    fn a_range_is_read_as_it_is_said() {
        for (lowest, highest, word) in [(1, 1, 1), (1, 2, 0x0001_0002), (3, 3, 3), (1, u16::MAX, 0xfffe_ffff)] {
            let versions = Versions { lowest, highest };
            assert_eq!((versions.to_word(), Versions::of_word(word)), (word, Some(versions)));
        }
        for word in [0, 0x0001_0000, 0x0001_0001, 0x0005_0002, u32::MAX] {
            assert_eq!(Versions::of_word(word), None, "{word:#x}");
        }
    }
}
