//! The invite string: everything that a new node needs to join, in one word.
//!
//! `taskmesh1` and base58 of: a format byte, the mesh key, then for each node its
//! Ed25519 key and its addresses as binary multiaddresses, and a CRC-32C of all
//! that, so that a string that lost a letter on its way is told from a wrong one.
//! It holds the mesh key: whoever has the string can join.

use super::discovery::split_peer;
use super::gate::{node_of, peer_of};
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use std::fmt;
use std::str::FromStr;
use taskmesh_core::NodeId;

/// What an invite says.
#[derive(Clone, PartialEq, Eq)]
pub struct Invite {
    /// The key of the mesh.
    pub mesh_key: [u8; 32],
    /// Where members are: multiaddresses that end in `/p2p/<id>`; 1 to 32.
    pub seeds: Vec<String>,
}

/// Why a text is no invite, or an invite can't be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InviteError {
    /// It does not begin as invites do.
    #[error("an invite begins with `{PREFIX}`; copy the whole line that `taskmesh up` printed")]
    Prefix,
    /// It was cut or changed.
    #[error("the invite is incomplete or has a wrong letter; copy the whole line that `taskmesh up` printed")]
    Damaged,
    /// It comes from a newer program.
    #[error("the invite has format {0}, and this program knows format {FORMAT}: use the newer program")]
    Format(u8),
    /// An address is not one that an invite can carry.
    #[error("{0:?} is not a multiaddress that ends in the `/p2p/<id>` of an Ed25519 key")]
    Address(String),
    /// No address, or too many.
    #[error("an invite has 1 to {MAX_SEEDS} addresses, not {0}")]
    Count(usize),
}

impl Invite {
    /// The string.
    ///
    /// # Errors
    /// No address or too many, or one that is not a multiaddress with an Ed25519
    /// peer id at its end.
    pub fn encode(&self) -> Result<String, InviteError> {
        if self.seeds.is_empty() || self.seeds.len() > MAX_SEEDS {
            return Err(InviteError::Count(self.seeds.len()));
        }
        // Grouped by node, in the order given: addresses of one share its key.
        let mut nodes: Vec<(NodeId, Vec<Vec<u8>>)> = Vec::new();
        for seed in &self.seeds {
            let (node, address) = parse(seed).ok_or_else(|| InviteError::Address(seed.clone()))?;
            match nodes.iter_mut().find(|(n, _)| *n == node) {
                Some((_, addresses)) => addresses.push(address),
                None => nodes.push((node, vec![address])),
            }
        }
        let mut bytes = vec![FORMAT];
        bytes.extend_from_slice(&self.mesh_key);
        for (node, addresses) in nodes {
            bytes.extend_from_slice(&node.0);
            bytes.push(addresses.len() as u8);
            for address in addresses {
                bytes.push(address.len() as u8);
                bytes.extend_from_slice(&address);
            }
        }
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_be_bytes());
        Ok(PREFIX.to_owned() + &bs58::encode(bytes).into_string())
    }

    /// Reads the string; white space around it does not matter.
    ///
    /// # Errors
    /// Anything that [`Invite::encode`] did not make.
    pub fn decode(text: &str) -> Result<Invite, InviteError> {
        let letters = text.trim().strip_prefix(PREFIX).ok_or(InviteError::Prefix)?;
        if letters.len() > MAX_LETTERS {
            return Err(InviteError::Damaged);
        }
        let bytes = bs58::decode(letters).into_vec().map_err(|_| InviteError::Damaged)?;
        let (content, crc) = bytes.split_last_chunk::<4>().ok_or(InviteError::Damaged)?;
        if crc32c::crc32c(content).to_be_bytes() != *crc {
            return Err(InviteError::Damaged);
        }
        let (format, content) = content.split_first().ok_or(InviteError::Damaged)?;
        if *format != FORMAT {
            return Err(InviteError::Format(*format));
        }
        let (mesh_key, mut rest) = content.split_first_chunk::<32>().ok_or(InviteError::Damaged)?;
        let mut seeds = Vec::new();
        while !rest.is_empty() {
            rest = read_node(rest, &mut seeds).ok_or(InviteError::Damaged)?;
        }
        if seeds.is_empty() || seeds.len() > MAX_SEEDS {
            return Err(InviteError::Count(seeds.len()));
        }
        Ok(Invite { mesh_key: *mesh_key, seeds })
    }
}

impl FromStr for Invite {
    type Err = InviteError;
    fn from_str(text: &str) -> Result<Invite, InviteError> {
        Invite::decode(text)
    }
}

/// The mesh key stays out of logs.
impl fmt::Debug for Invite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invite").field("seeds", &self.seeds).finish_non_exhaustive()
    }
}

/// The node and the binary address without its id.
fn parse(seed: &str) -> Option<(NodeId, Vec<u8>)> {
    let (address, peer) = split_peer(&seed.parse().ok()?);
    let address = address.to_vec();
    (!address.is_empty() && address.len() <= usize::from(u8::MAX)).then_some((node_of(&peer?)?, address))
}

/// Reads one node's addresses to `seeds`; returns the rest.
fn read_node<'a>(bytes: &'a [u8], seeds: &mut Vec<String>) -> Option<&'a [u8]> {
    let (node, rest) = bytes.split_first_chunk::<32>()?;
    let (count, mut rest) = rest.split_first()?;
    for _ in 0..*count {
        let (length, more) = rest.split_first()?;
        let (address, more) = more.split_at_checked(usize::from(*length))?;
        let address = Multiaddr::try_from(address.to_vec()).ok()?;
        seeds.push(address.with(Protocol::P2p(peer_of(&NodeId(*node)))).to_string());
        rest = more;
    }
    Some(rest)
}

const PREFIX: &str = "taskmesh1";
const FORMAT: u8 = 1;
/// More would only make the string unwieldy.
const MAX_SEEDS: usize = 32;
/// 32 addresses of the longest kind, each of another node, in base58.
const MAX_LETTERS: usize = 16 * 1024;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seed(node: u8, address: &str) -> String {
        format!("{address}/p2p/{}", NodeId([node; 32]))
    }

    fn invite() -> Invite {
        let addresses = ["/ip4/10.0.0.7/tcp/7401", "/ip4/10.0.0.7/udp/7401/quic-v1", "/dns4/mesh.example.org/tcp/7401"];
        let mut seeds: Vec<_> = addresses.iter().map(|a| seed(1, a)).collect();
        seeds.push(seed(2, "/ip6/fd00::1/tcp/9"));
        Invite { mesh_key: [7; 32], seeds }
    }

    #[test]
    fn an_invite_comes_back_whole() {
        let text = invite().encode().unwrap();
        assert!(text.starts_with("taskmesh1") && text.chars().all(|c| c.is_ascii_alphanumeric()));
        assert_eq!(Invite::decode(&format!("  {text}\n")), Ok(invite()));
        let one = Invite { seeds: vec![invite().seeds.remove(0)], ..invite() };
        assert!(one.encode().unwrap().len() < 130, "{}", one.encode().unwrap());
        assert!(!format!("{one:?}").contains("mesh_key"), "it stays out of logs");
    }

    #[test]
    fn what_cannot_be_joined_is_refused() {
        let with = |seeds: Vec<String>| Invite { seeds, ..invite() }.encode();
        assert_eq!(with(vec![]), Err(InviteError::Count(0)));
        assert_eq!(with(vec![seed(1, "/ip4/1.2.3.4/tcp/1"); 33]), Err(InviteError::Count(33)));
        for bad in ["/ip4/1.2.3.4/tcp/1", "nonsense", "/p2p/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"] {
            assert_eq!(with(vec![bad.to_owned()]), Err(InviteError::Address(bad.to_owned())));
        }
        assert_eq!(Invite::decode("task"), Err(InviteError::Prefix));
        assert_eq!(Invite::decode("taskmesh1"), Err(InviteError::Damaged));
        assert_eq!(Invite::decode(&format!("taskmesh1{}", "z".repeat(100_000))), Err(InviteError::Damaged));
        let mut newer = vec![9];
        newer.extend_from_slice(&crc32c::crc32c(&newer).to_be_bytes());
        let newer = format!("taskmesh1{}", bs58::encode(newer).into_string());
        assert_eq!(Invite::decode(&newer), Err(InviteError::Format(9)));
    }

    proptest! {
        #[test]
        fn a_changed_letter_never_passes(at in 9usize..120, letter in "[1-9A-HJ-NP-Za-km-z]") {
            let text = invite().encode().unwrap();
            let mut changed = text.clone();
            changed.replace_range(at..=at, &letter);
            prop_assume!(changed != text);
            prop_assert_eq!(Invite::decode(&changed), Err(InviteError::Damaged));
        }

        #[test]
        fn nonsense_with_a_good_checksum_never_panics(mut bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            bytes.insert(0, FORMAT);
            bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_be_bytes());
            let _ = Invite::decode(&format!("{PREFIX}{}", bs58::encode(bytes).into_string()));
        }
    }
}
