//! Tokens: who a caller is and what it may do, in a chain of blocks that anyone
//! can lengthen and nobody can shorten (Birgisson et al., "Macaroons", NDSS
//! 2014).
//!
//! Each block is authenticated under the tag of the block before it (keyed
//! BLAKE3), the first one under a key that every node of the mesh derives from
//! the mesh's key. So each node verifies every token without asking another,
//! whoever holds a token can add a block that narrows it, without any key, and
//! the last tag, which the token ends with, does not tell the tags before it.
//! A block only ever takes away, so a longer chain never grants more.

use crate::authority::{Authority, Caveats, Role, TokenId};
use crate::limits;
use crate::task::Priority;
use crate::time::{Millis, Unix};
use std::fmt;
use std::sync::Arc;

/// Why a token does not hold. Nothing was done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not the bytes of a token, or of a later version.
    #[error("it is no token of this mesh's format: {0}")]
    Malformed(&'static str),
    /// Made with the key of another mesh, or changed.
    #[error("its blocks are not what was signed; was it made for another mesh?")]
    Forged,
    /// Its time is over.
    #[error("it expired; ask for a new one")]
    Expired,
    /// A limit is over what fits.
    #[error("{0}")]
    TooMuch(&'static str),
}

/// What tokens of a mesh are made and verified with. As secret as the mesh's key.
#[derive(Clone, PartialEq, Eq)]
pub struct RootKey([u8; 32]);

impl fmt::Debug for RootKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RootKey(…)")
    }
}

/// A token. Whoever has its bytes has its rights: it is shown by its id alone.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    nonce: [u8; 16],
    blocks: Vec<Vec<u8>>,
    tag: blake3::Hash,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({})", id_of(&self.tag))
    }
}

/// On whose behalf a request is made.
#[derive(Clone, Debug, PartialEq)]
pub enum Caller {
    /// A node itself: its own worker, the dependencies of its tasks.
    Node,
    /// Whoever showed a token.
    Bearer(Arc<Bearer>),
}

/// Whoever showed a token, and what that says. There is none whose token was
/// not verified.
#[derive(Clone, Debug, PartialEq)]
pub struct Bearer {
    authority: Authority,
    token: Token,
}

impl Bearer {
    /// What the token grants.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The token, for another node of the mesh.
    #[must_use]
    pub fn token(&self) -> &Token {
        &self.token
    }
}

impl Caller {
    /// What it may do; `None`: everything.
    #[must_use]
    pub fn authority(&self) -> Option<&Authority> {
        match self {
            Caller::Node => None,
            Caller::Bearer(bearer) => Some(&bearer.authority),
        }
    }

    /// Whose the tasks are that it submits.
    #[must_use]
    pub fn subject(&self) -> Option<&Arc<str>> {
        self.authority().map(|authority| &authority.subject)
    }
}

impl RootKey {
    /// The key for the tokens of the mesh whose key this is.
    #[must_use]
    pub fn of_mesh(mesh_key: &[u8; 32]) -> RootKey {
        RootKey(blake3::derive_key(ROOT_CONTEXT, mesh_key))
    }

    /// Makes a token for `subject`. `nonce` must be random: it sets the token
    /// apart from every other of the same content.
    ///
    /// # Errors
    /// Something is over its limit.
    pub fn mint(&self, nonce: [u8; 16], subject: &str, role: Role, caveats: &Caveats) -> Result<Token, TokenError> {
        if subject.is_empty() || subject.len() > SUBJECT_BYTES || subject.chars().any(char::is_control) {
            return Err(TokenError::TooMuch("the name must be 1 to 200 bytes without control characters"));
        }
        if caveats.expires.is_none() {
            return Err(TokenError::TooMuch("a token must expire"));
        }
        let mut block = Vec::new();
        field(&mut block, SUBJECT, subject.as_bytes());
        write_caveats(&mut block, &Caveats { role: Some(role), ..caveats.clone() })?;
        let tag = blake3::keyed_hash(&self.0, &[&nonce[..], &block].concat());
        Ok(Token { nonce, blocks: vec![block], tag })
    }

    /// What `token` grants at `now`.
    ///
    /// # Errors
    /// It was not made with this key, says what this version does not
    /// understand, or has expired.
    pub fn verify(&self, token: Token, now: Unix) -> Result<Bearer, TokenError> {
        let (authority, tag) = token.follow(Some(self))?;
        // In constant time, as hashes are compared.
        if tag != token.tag {
            return Err(TokenError::Forged);
        }
        if authority.expires <= now {
            return Err(TokenError::Expired);
        }
        // A revocation is kept for as long as a token may live.
        if authority.expires.since(now) > LIFETIME + CLOCKS {
            return Err(TokenError::TooMuch("it lives longer than a token may"));
        }
        Ok(Bearer { authority, token })
    }
}

impl Token {
    /// A token that may do what this one may, and what `caveats` leave of it.
    /// Needs no key.
    ///
    /// # Errors
    /// Something is over its limit.
    pub fn attenuate(&self, caveats: &Caveats) -> Result<Token, TokenError> {
        if self.blocks.len() >= BLOCKS {
            return Err(TokenError::TooMuch("a token has at most 8 blocks"));
        }
        let mut block = Vec::new();
        write_caveats(&mut block, caveats)?;
        let tag = blake3::keyed_hash(self.tag.as_bytes(), &block);
        let mut longer = Token { tag, ..self.clone() };
        longer.blocks.push(block);
        if longer.to_bytes().len() > Token::MAX_BYTES {
            return Err(TokenError::TooMuch("a token has at most 2,048 bytes"));
        }
        Ok(longer)
    }

    /// The most bytes of a token: it travels in a header.
    pub const MAX_BYTES: usize = 2_048;

    /// What it says, whether or not that is signed. Its ids are unknown without
    /// the key, but for its own.
    ///
    /// # Errors
    /// It says what this version does not understand.
    pub fn claims(&self) -> Result<Authority, TokenError> {
        let (mut authority, _) = self.follow(None)?;
        authority.ids = vec![self.id()];
        Ok(authority)
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> TokenId {
        id_of(&self.tag)
    }

    /// Blocks, of which the first was made with the key.
    #[must_use]
    pub fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// Its bytes: version, nonce, blocks with their lengths, tag.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&self.nonce);
        bytes.push(u8::try_from(self.blocks.len()).expect("at most BLOCKS"));
        for block in &self.blocks {
            bytes.extend_from_slice(&u16::try_from(block.len()).expect("at most MAX_BYTES").to_be_bytes());
            bytes.extend_from_slice(block);
        }
        bytes.extend_from_slice(self.tag.as_bytes());
        bytes
    }

    /// Reads the bytes of a token; what it says is not verified.
    ///
    /// # Errors
    /// They are not those of a token.
    pub fn from_bytes(bytes: &[u8]) -> Result<Token, TokenError> {
        if bytes.len() > Token::MAX_BYTES {
            return Err(TokenError::Malformed("it is too long"));
        }
        let mut rest = bytes;
        if take(&mut rest, 1)?[0] != VERSION {
            return Err(TokenError::Malformed("it has another version"));
        }
        let nonce = take(&mut rest, 16)?.try_into().expect("16 bytes");
        let count = usize::from(take(&mut rest, 1)?[0]);
        if count == 0 || count > BLOCKS {
            return Err(TokenError::Malformed("it has no block, or too many"));
        }
        let mut blocks = Vec::with_capacity(count);
        for _ in 0..count {
            let len = u16::from_be_bytes(take(&mut rest, 2)?.try_into().expect("2 bytes"));
            blocks.push(take(&mut rest, usize::from(len))?.to_vec());
        }
        let tag: [u8; 32] = take(&mut rest, 32)?.try_into().expect("32 bytes");
        if !rest.is_empty() {
            return Err(TokenError::Malformed("bytes follow it"));
        }
        Ok(Token { nonce, blocks, tag: tag.into() })
    }

    /// Follows the chain from its start: all that its blocks say, and the tag
    /// that it should end with (without a key, its own).
    fn follow(&self, key: Option<&RootKey>) -> Result<(Authority, blake3::Hash), TokenError> {
        let (first, more) = self.blocks.split_first().ok_or(TokenError::Malformed("it has no block"))?;
        let mut tag = match key {
            Some(key) => blake3::keyed_hash(&key.0, &[&self.nonce[..], first].concat()),
            None => self.tag,
        };
        let (subject, caveats) = read_block(first)?;
        let subject = subject.ok_or(TokenError::Malformed("it names no subject"))?;
        let (Some(_), Some(expires)) = (caveats.role, caveats.expires) else {
            return Err(TokenError::Malformed("it has no role, or does not expire"));
        };
        let mut authority = Authority::unlimited(subject, id_of(&tag), expires);
        authority.narrow(&caveats, id_of(&tag));
        for block in more {
            if key.is_some() {
                tag = blake3::keyed_hash(tag.as_bytes(), block);
                authority.ids.push(id_of(&tag));
            }
            let (None, caveats) = read_block(block)? else {
                return Err(TokenError::Malformed("a later block names a subject"));
            };
            authority.narrow(&caveats, id_of(&tag));
        }
        Ok((authority, tag))
    }
}

fn id_of(tag: &blake3::Hash) -> TokenId {
    let id = blake3::derive_key(ID_CONTEXT, tag.as_bytes());
    TokenId(id[..16].try_into().expect("16 of 32"))
}

fn write_caveats(block: &mut Vec<u8>, caveats: &Caveats) -> Result<(), TokenError> {
    let lists = [&caveats.task_types, &caveats.tags];
    if lists.iter().any(|list| list.len() > limits::TAGS) {
        return Err(TokenError::TooMuch("a token names at most 32 task types and 32 tags"));
    }
    if lists.iter().any(|list| list.iter().any(|text| text.is_empty() || text.len() > limits::TEXT_BYTES)) {
        return Err(TokenError::TooMuch("a task type or tag has 1 to 256 bytes"));
    }
    if let Some(role) = caveats.role {
        field(block, ROLE, &[role as u8]);
    }
    caveats.task_types.iter().for_each(|text| field(block, TASK_TYPE, text.as_bytes()));
    caveats.tags.iter().for_each(|text| field(block, TAG, text.as_bytes()));
    if let Some(max) = caveats.priority_max {
        field(block, PRIORITY, &max.value().to_bits().to_be_bytes());
    }
    if let Some(rate) = caveats.calls_per_minute {
        field(block, RATE, &rate.to_be_bytes());
    }
    if let Some(at) = caveats.expires {
        field(block, EXPIRES, &at.0.to_be_bytes());
    }
    if caveats.own {
        field(block, OWN, &[]);
    }
    if block.len() > BLOCK_BYTES {
        return Err(TokenError::TooMuch("the names in one block have at most 1,500 bytes together"));
    }
    Ok(())
}

fn field(block: &mut Vec<u8>, kind: u8, value: &[u8]) {
    block.push(kind);
    block.extend_from_slice(&u16::try_from(value.len()).expect("texts are bounded").to_be_bytes());
    block.extend_from_slice(value);
}

/// What a block says. A field that is not known might take something away, so
/// a block with one is refused.
fn read_block(block: &[u8]) -> Result<(Option<Arc<str>>, Caveats), TokenError> {
    let mut rest = block;
    let (mut subject, mut said) = (None, Caveats::default());
    while !rest.is_empty() {
        let kind = take(&mut rest, 1)?[0];
        let len = u16::from_be_bytes(take(&mut rest, 2)?.try_into().expect("2 bytes"));
        let value = take(&mut rest, usize::from(len))?;
        let text = || str::from_utf8(value).map(Arc::from).map_err(|_| TokenError::Malformed("a name is not UTF-8"));
        let whole = || value.try_into().map(u64::from_be_bytes).map_err(|_| TokenError::Malformed("a number is cut"));
        match kind {
            SUBJECT if subject.is_none() => subject = Some(text()?),
            ROLE if said.role.is_none() => {
                let role = Role::ALL.into_iter().find(|role| *value == [*role as u8]);
                said.role = Some(role.ok_or(TokenError::Malformed("its role is not known"))?);
            }
            TASK_TYPE => said.task_types.push(text()?),
            TAG => said.tags.push(text()?),
            PRIORITY if said.priority_max.is_none() => {
                let max = Priority::new(f64::from_bits(whole()?));
                said.priority_max = Some(max.ok_or(TokenError::Malformed("its ceiling is no priority"))?);
            }
            RATE if said.calls_per_minute.is_none() => {
                let rate = value.try_into().map(u32::from_be_bytes);
                said.calls_per_minute = Some(rate.map_err(|_| TokenError::Malformed("a number is cut"))?);
            }
            EXPIRES if said.expires.is_none() => said.expires = Some(Unix(whole()?)),
            OWN if value.is_empty() => said.own = true,
            _ => return Err(TokenError::Malformed("it says what this version does not understand")),
        }
    }
    Ok((subject, said))
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Result<&'a [u8], TokenError> {
    let (taken, left) = rest.split_at_checked(len).ok_or(TokenError::Malformed("it is cut short"))?;
    *rest = left;
    Ok(taken)
}

/// The longest that a token may live, and so the longest that a revocation is
/// kept.
pub const LIFETIME: Millis = Millis(366 * 24 * 3_600_000);
/// How far the clocks of two nodes may be apart before one takes an honest
/// token of the longest life for one that lives too long.
const CLOCKS: Millis = Millis(3_600_000);
/// The first byte of every token.
const VERSION: u8 = 1;
/// The maker's block and what was added: each costs a hash.
const BLOCKS: usize = 8;
/// Of one block, so that a token with its nonce and tag fits.
const BLOCK_BYTES: usize = 1_500;
/// A name for people, which every task of its bearer keeps.
const SUBJECT_BYTES: usize = 200;
const ROOT_CONTEXT: &str = "taskmesh 2026-11-23 root of tokens";
const ID_CONTEXT: &str = "taskmesh 2026-11-23 id of a token";

// Kinds of fields, never reused.
const SUBJECT: u8 = 1;
const ROLE: u8 = 2;
const TASK_TYPE: u8 = 3;
const TAG: u8 = 4;
const PRIORITY: u8 = 5;
const RATE: u8 = 6;
const EXPIRES: u8 = 7;
const OWN: u8 = 8;

#[cfg(test)]
mod tests;
