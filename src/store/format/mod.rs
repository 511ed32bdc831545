//! What the bytes on disk mean, and nothing else.
//!
//! A key is the kind of the entry and its name, big-endian, so that keys sort
//! by kind and name. A value is an envelope `magic, kind, version, crc32c,
//! length` and a body, which is the bincode of a struct that was frozen with
//! its version. A new version is a new file beside [`v1`] and a new arm in
//! the `decode_*` functions; old arms stay for ever, and what they return is
//! brought up to date there.

#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod key;
mod v1;
mod v2;
mod v3;
mod v4;
mod v5;

pub(super) use key::{Name, keys_of_entry, keys_of_name, name_of};

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use std::sync::Arc;
use taskmesh_core::cache::Cached;
use taskmesh_core::command::WorkerSpec;
use taskmesh_core::effect::PeerBook;
use taskmesh_core::forgotten::Forgotten;
use taskmesh_core::message::Controls;
use taskmesh_core::prng::mix;
use taskmesh_core::register::Issued;
use taskmesh_core::{Ballot, BlobHash, Entry, Record, Spec, TaskId, Unix};

/// The kind of an entry: the first byte of its key, and the second of its
/// value. Numbers are never reused. Specs sort before records, so that a batch
/// that is cut short never leaves a record without its spec.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Kind {
    Spec = 1,
    Record = 2,
    Worker = 3,
    Controls = 4,
    Peer = 5,
    Boot = 6,
    Tombstone = 7,
    /// Only in values: the entry is in a file.
    Spilled = 8,
    Pledge = 9,
    /// What tells that no row is missing; see `sled::sealed`.
    Seal = 10,
    Token = 11,
    /// A result for later tasks.
    Cached = 12,
    /// A node that is gone for ever.
    Forgotten = 13,
}

impl Kind {
    pub(super) fn from_byte(byte: u8) -> Option<Kind> {
        Some(match byte {
            1 => Kind::Spec,
            2 => Kind::Record,
            3 => Kind::Worker,
            4 => Kind::Controls,
            5 => Kind::Peer,
            6 => Kind::Boot,
            7 => Kind::Tombstone,
            8 => Kind::Spilled,
            9 => Kind::Pledge,
            10 => Kind::Seal,
            11 => Kind::Token,
            12 => Kind::Cached,
            13 => Kind::Forgotten,
            _ => return None,
        })
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Spec => "spec",
            Kind::Record => "record",
            Kind::Worker => "worker",
            Kind::Controls => "controls",
            Kind::Peer => "peer",
            Kind::Boot => "boot count",
            Kind::Tombstone => "tombstone",
            Kind::Pledge => "pledge",
            Kind::Seal => "seal",
            Kind::Token => "token's entry",
            Kind::Cached => "result",
            Kind::Forgotten => "forgotten node",
            Kind::Spilled => "reference to a file",
        }
    }

    /// The newest version that is written now.
    pub(super) fn version(self) -> u8 {
        match self {
            Kind::Spec => 4,
            Kind::Record => 3,
            Kind::Worker
            | Kind::Controls
            | Kind::Peer
            | Kind::Boot
            | Kind::Tombstone
            | Kind::Pledge
            | Kind::Seal
            | Kind::Token
            | Kind::Cached
            | Kind::Forgotten
            | Kind::Spilled => 1,
        }
    }
}

/// Why bytes are no entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Flaw {
    /// They are not what was written.
    #[error("{0}")]
    Damaged(String),
    /// They are whole, and of a later format.
    #[error("{what} of format {found}")]
    Newer { what: &'static str, found: u8, known: u8 },
}

/// An entry would be larger than [`BODY_BYTES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLarge(pub u64);

/// An envelope whose checks have passed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Envelope<'a> {
    pub kind: Kind,
    pub version: u8,
    pub body: &'a [u8],
}

/// Appends the envelope of `entry` to `out`.
pub(super) fn encode(entry: &Entry, out: &mut Vec<u8>) -> Result<(), TooLarge> {
    match entry {
        Entry::Spec(_, spec) if spec.cache.is_some() || spec.trace.is_some() => {
            seal(Kind::Spec, v4::Spec::from(&**spec), out)
        }
        Entry::Spec(_, spec) => seal_as(Kind::Spec, 3, v3::Spec::from(&**spec), out),
        Entry::Record { pledge, record } if !record.forgotten.is_empty() => {
            seal(Kind::Record, v5::Slot::from((*pledge, &**record)), out)
        }
        Entry::Record { pledge, record } => match record.body.state.closed().and_then(|c| c.cached_from.as_ref()) {
            Some(source) => seal_as(Kind::Record, 2, v4::Slot::from((*pledge, &**record, source)), out),
            None => seal_as(Kind::Record, 1, v1::Slot::from((*pledge, &**record)), out),
        },
        Entry::Worker(spec, since) => seal(Kind::Worker, v1::Worker::from((spec, *since)), out),
        Entry::Controls(controls) => seal(Kind::Controls, v1::Controls::from(controls), out),
        Entry::Peer(_, book) => seal(Kind::Peer, v1::Peer::from(book), out),
        Entry::Boot(starts) => seal(Kind::Boot, v1::Boot { starts: *starts }, out),
        Entry::Pledge { ballot, at, .. } => seal(Kind::Pledge, v1::Pledge::from((*ballot, *at)), out),
        Entry::Token(entry) => seal(Kind::Token, v2::Token::from(entry), out),
        Entry::Cached(entry) => seal(Kind::Cached, v4::Cached::from(&**entry), out),
        Entry::Forgotten(word) => seal(Kind::Forgotten, v5::Forgotten::from(word), out),
        Entry::Tombstone(_, at) => seal(Kind::Tombstone, v1::Tombstone { at: at.0 }, out),
    }
}

/// Appends the envelope that stands for an entry in a file to `out`.
pub(super) fn encode_spilled(content: BlobHash, bytes: u64, out: &mut Vec<u8>) -> Result<(), TooLarge> {
    seal(Kind::Spilled, v1::Spilled { content: content.0, bytes }, out)
}

/// What the rows add up to, before and after each write of one part of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seal {
    /// Counts parts, from 1.
    pub part: u64,
    pub sums: Vec<u64>,
}

/// Appends the envelope of a seal to `out`.
pub(super) fn encode_seal(part: u64, sums: &[u64], out: &mut Vec<u8>) -> Result<(), TooLarge> {
    seal(Kind::Seal, v1::Seal { part, sums: sums.to_vec() }, out)
}

/// The share of a row in its store's sum: of its key, and of its value's
/// checksum and length.
pub(super) fn weight(key: &[u8], value: &[u8]) -> u64 {
    let header = &value[..value.len().min(HEADER_BYTES)];
    mix(u64::from(crc32c::crc32c(key)) << 32 | u64::from(crc32c::crc32c(header)))
}

/// Whether a value stands for an entry in a file. Cheap, and unchecked.
pub(super) fn is_spilled(value: &[u8]) -> bool {
    value.get(1) == Some(&(Kind::Spilled as u8))
}

/// The content and size of the file that a value stands for.
pub(super) fn decode_spilled(envelope: &Envelope<'_>) -> Result<(BlobHash, u64), Flaw> {
    match version(envelope)? {
        1 => v1::decode::<v1::Spilled>(envelope.body).map(|s| (BlobHash(s.content), s.bytes)),
        found => Err(newer(envelope.kind, found)),
    }
}

pub(super) fn decode_spec(envelope: &Envelope<'_>) -> Result<Arc<Spec>, Flaw> {
    match version(envelope)? {
        // Nobody knows whose those are.
        1 => v1::decode::<v1::Spec<'_>>(envelope.body)?.try_into().map(Arc::new),
        2 => v1::decode::<v2::Spec<'_>>(envelope.body)?.try_into().map(Arc::new),
        3 => v1::decode::<v3::Spec<'_>>(envelope.body)?.try_into().map(Arc::new),
        4 => v1::decode::<v4::Spec<'_>>(envelope.body)?.try_into().map(Arc::new),
        found => Err(newer(envelope.kind, found)),
    }
}

pub(super) fn decode_record(envelope: &Envelope<'_>, task: &TaskId) -> Result<(Ballot, Record), Flaw> {
    let (pledge, record): (Ballot, Record) = match version(envelope)? {
        1 => v1::decode::<v1::Slot<'_>>(envelope.body)?.try_into()?,
        2 => v1::decode::<v4::Slot<'_>>(envelope.body)?.try_into()?,
        3 => v1::decode::<v5::Slot<'_>>(envelope.body)?.try_into()?,
        found => return Err(newer(envelope.kind, found)),
    };
    if record.task != *task {
        return Err(Flaw::Damaged(format!("it is the record of {}", record.task)));
    }
    Ok((pledge, record))
}

pub(super) fn decode_worker(envelope: &Envelope<'_>) -> Result<(WorkerSpec, Unix), Flaw> {
    match version(envelope)? {
        1 => v1::decode::<v1::Worker<'_>>(envelope.body)?.try_into(),
        found => Err(newer(envelope.kind, found)),
    }
}

pub(super) fn decode_controls(envelope: &Envelope<'_>) -> Result<Controls, Flaw> {
    match version(envelope)? {
        1 => v1::decode::<v1::Controls<'_>>(envelope.body).map(Controls::from),
        found => Err(newer(envelope.kind, found)),
    }
}

pub(super) fn decode_peer(envelope: &Envelope<'_>) -> Result<PeerBook, Flaw> {
    match version(envelope)? {
        1 => v1::decode::<v1::Peer<'_>>(envelope.body)?.try_into(),
        found => Err(newer(envelope.kind, found)),
    }
}

pub(super) fn decode_boot(envelope: &Envelope<'_>) -> Result<u64, Flaw> {
    match version(envelope)? {
        1 => v1::decode::<v1::Boot>(envelope.body).map(|b| b.starts),
        found => Err(newer(envelope.kind, found)),
    }
}

pub(super) fn decode_pledge(envelope: &Envelope<'_>) -> Result<(Ballot, Unix), Flaw> {
    match version(envelope)? {
        1 => v1::decode::<v1::Pledge>(envelope.body).map(Into::into),
        found => Err(newer(envelope.kind, found)),
    }
}

pub(super) fn decode_seal(envelope: &Envelope<'_>) -> Result<Seal, Flaw> {
    match version(envelope)? {
        1 => v1::decode::<v1::Seal>(envelope.body).map(|s| Seal { part: s.part, sums: s.sums }),
        found => Err(newer(envelope.kind, found)),
    }
}

pub(super) fn decode_token(envelope: &Envelope<'_>) -> Result<Issued, Flaw> {
    match version(envelope)? {
        1 => v1::decode::<v2::Token<'_>>(envelope.body)?.try_into(),
        found => Err(newer(envelope.kind, found)),
    }
}

pub(super) fn decode_cached(envelope: &Envelope<'_>) -> Result<Cached, Flaw> {
    match version(envelope)? {
        1 => v1::decode::<v4::Cached<'_>>(envelope.body)?.try_into(),
        found => Err(newer(envelope.kind, found)),
    }
}

pub(super) fn decode_forgotten(envelope: &Envelope<'_>) -> Result<Forgotten, Flaw> {
    match version(envelope)? {
        1 => v1::decode::<v5::Forgotten<'_>>(envelope.body)?.try_into(),
        found => Err(newer(envelope.kind, found)),
    }
}

pub(super) fn decode_tombstone(envelope: &Envelope<'_>) -> Result<Unix, Flaw> {
    match version(envelope)? {
        1 => v1::decode::<v1::Tombstone>(envelope.body).map(|t| Unix(t.at)),
        found => Err(newer(envelope.kind, found)),
    }
}

/// Checks the envelope of a value that should be of `kind` (or stand for one
/// in a file).
pub(super) fn open(value: &[u8], kind: Kind) -> Result<Envelope<'_>, Flaw> {
    let envelope = inspect(value)?;
    if envelope.kind != kind && envelope.kind != Kind::Spilled {
        return Err(Flaw::Damaged(format!("it is a {} under the key of a {}", envelope.kind.name(), kind.name())));
    }
    Ok(envelope)
}

/// Appends an envelope of the current version to `out`; on error, nothing.
fn seal(kind: Kind, body: impl bincode::Encode, out: &mut Vec<u8>) -> Result<(), TooLarge> {
    seal_as(kind, kind.version(), body, out)
}

/// The same, of an older version.
fn seal_as(kind: Kind, version: u8, body: impl bincode::Encode, out: &mut Vec<u8>) -> Result<(), TooLarge> {
    let start = out.len();
    out.extend_from_slice(&[MAGIC, kind as u8, version]);
    out.extend_from_slice(&[0; HEADER_BYTES - 3]);
    let bytes = bincode::encode_into_std_write(body, out, codec())
        .expect("a Vec takes every byte, and no type of the format can fail to encode");
    if bytes > BODY_BYTES {
        out.truncate(start);
        return Err(TooLarge(bytes as u64));
    }
    let length = u32::try_from(bytes).expect("at most BODY_BYTES").to_le_bytes();
    out[start + 7..start + HEADER_BYTES].copy_from_slice(&length);
    let sum = checksum(&out[start..]).to_le_bytes();
    out[start + 3..start + 7].copy_from_slice(&sum);
    Ok(())
}

/// Checks the envelope of a value of any kind.
pub(super) fn inspect(value: &[u8]) -> Result<Envelope<'_>, Flaw> {
    let damaged = |problem: String| Err(Flaw::Damaged(problem));
    if value.len() < HEADER_BYTES {
        return damaged(format!("{} bytes are too few for an entry", value.len()));
    }
    if value[0] != MAGIC {
        return damaged(format!("it starts with {:#04x} instead of {MAGIC:#04x}", value[0]));
    }
    let word = |at: usize| u32::from_le_bytes(value[at..at + 4].try_into().expect("4 bytes"));
    let body = &value[HEADER_BYTES..];
    if word(7) as usize != body.len() {
        return damaged(format!("it has {} bytes instead of {}", body.len(), word(7)));
    }
    if word(3) != checksum(value) {
        return damaged("its checksum is wrong".to_owned());
    }
    match Kind::from_byte(value[1]) {
        Some(kind) => Ok(Envelope { kind, version: value[2], body }),
        // Whole, so it was written like this.
        None => Err(Flaw::Newer { what: "an unknown kind of entry", found: value[1], known: Kind::Forgotten as u8 }),
    }
}

/// Over everything but the place of the sum itself.
fn checksum(value: &[u8]) -> u32 {
    let sum = crc32c::crc32c(&value[1..3]);
    crc32c::crc32c_append(sum, &value[7..])
}

fn version(envelope: &Envelope<'_>) -> Result<u8, Flaw> {
    match envelope.version {
        0 => Err(Flaw::Damaged("version 0 was never written".to_owned())),
        version => Ok(version),
    }
}

fn newer(kind: Kind, found: u8) -> Flaw {
    Flaw::Newer { what: kind.name(), found, known: kind.version() }
}

/// The limit bounds what a decoder may allocate before it has seen the bytes.
fn codec() -> Configuration<LittleEndian, Varint, Limit<DECODE_BYTES>> {
    bincode::config::standard().with_limit::<DECODE_BYTES>()
}

/// Starts every value: chosen to be no text and no small number.
const MAGIC: u8 = 0xA7;
/// Magic, kind, version, checksum, length.
const HEADER_BYTES: usize = 11;
/// The largest body: an array's payload, metadata, a thousand dependencies, and
/// room.
pub(super) const BODY_BYTES: usize = 4 * 1024 * 1024;
/// bincode counts a container's elements by their size in memory, so this is
/// more than the body.
const DECODE_BYTES: usize = 16 * 1024 * 1024;

#[cfg(test)]
mod tests;
