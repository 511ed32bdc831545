//! What is derived from the mesh key: the pre-shared key of TCP, the key of
//! the proof, and the name of the mesh that all protocol names carry. Each
//! comes from its own context, so that none tells anything about another.

use libp2p::StreamProtocol;
use libp2p::gossipsub::IdentTopic;

/// The version of everything that two nodes say to each other. Nodes of
/// different versions refuse each other.
pub const PROTOCOL_VERSION: u32 = 1;

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
    pub(super) version: u32,
}

impl Keys {
    pub(super) fn new(mesh_key: &[u8; 32], version: u32) -> Keys {
        let name = blake3::derive_key("taskmesh 2026 mesh name", mesh_key);
        Keys {
            psk: blake3::derive_key("taskmesh 2026 pre-shared key of tcp", mesh_key),
            proof: blake3::derive_key("taskmesh 2026 proof of the mesh key", mesh_key),
            mesh: name[..8].iter().map(|b| format!("{b:02x}")).collect(),
            version,
        }
    }

    /// The name of a protocol of this mesh and version.
    pub(super) fn protocol(&self, what: &str) -> StreamProtocol {
        StreamProtocol::try_from_owned(format!("/taskmesh/{}/{}/{what}", self.mesh, self.version))
            .expect("it starts with a slash")
    }

    /// The name of a gossip topic of this mesh and version.
    pub(super) fn topic(&self, what: &str) -> IdentTopic {
        IdentTopic::new(format!("taskmesh/{}/{}/{what}", self.mesh, self.version))
    }

    /// What identify says of the protocol.
    pub(super) fn identity(&self) -> String {
        format!("taskmesh/{}/{}", self.version, self.mesh)
    }
}
