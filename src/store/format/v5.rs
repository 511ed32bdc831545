//! What came with nodes that are gone for ever, frozen as [`v1`](super::v1) is:
//! the words by which they are, and the holders without which a record goes on
//! (version 3 of a record).
//!
//! A record that lost no majority is written in the version before, so that a
//! store without any stays one that an older program reads.

use super::Flaw;
use super::v1::{self, bounded};
use super::v4;
use bincode::{BorrowDecode, Encode};
use std::sync::Arc;
use taskmesh_core::forgotten::Forgotten as CoreForgotten;
use taskmesh_core::{Ballot, NodeId, Record, Unix, limits};

/// Version 1 of a forgotten node.
#[derive(Encode, BorrowDecode)]
pub(super) struct Forgotten<'a> {
    node: [u8; 32],
    by: &'a str,
    at: u64,
    reason: Option<&'a str>,
}

impl<'a> From<&'a CoreForgotten> for Forgotten<'a> {
    fn from(word: &'a CoreForgotten) -> Forgotten<'a> {
        Forgotten { node: word.node.0, by: &word.by, at: word.at.0, reason: word.reason.as_deref() }
    }
}

impl TryFrom<Forgotten<'_>> for CoreForgotten {
    type Error = Flaw;

    fn try_from(word: Forgotten<'_>) -> Result<CoreForgotten, Flaw> {
        bounded("by", word.by.len(), limits::TEXT_BYTES)?;
        bounded("reason", word.reason.map_or(0, str::len), limits::TEXT_BYTES)?;
        let (node, by, reason) = (NodeId(word.node), word.by.into(), word.reason.map(Arc::from));
        Ok(CoreForgotten { node, by, at: Unix(word.at), reason })
    }
}

/// Version 3 of a record.
#[derive(Encode, BorrowDecode)]
pub(super) struct Slot<'a> {
    first: v1::Slot<'a>,
    cached_from: Option<v4::Source<'a>>,
    forgotten: Vec<[u8; 32]>,
}

impl<'a> From<(Ballot, &'a Record)> for Slot<'a> {
    fn from((pledge, record): (Ballot, &'a Record)) -> Slot<'a> {
        let source = record.body.state.closed().and_then(|closed| closed.cached_from.as_ref());
        Slot {
            first: v1::Slot::from((pledge, record)),
            cached_from: source.map(Into::into),
            forgotten: record.forgotten.iter().map(|node| node.0).collect(),
        }
    }
}

impl TryFrom<Slot<'_>> for (Ballot, Record) {
    type Error = Flaw;

    fn try_from(slot: Slot<'_>) -> Result<(Ballot, Record), Flaw> {
        bounded("forgotten", slot.forgotten.len(), limits::HOLDERS)?;
        let (pledge, mut record): (Ballot, Record) = match slot.cached_from {
            Some(source) => v4::Slot::new(slot.first, source).try_into()?,
            None => slot.first.try_into()?,
        };
        record.forgotten = slot.forgotten.into_iter().map(NodeId).collect();
        Ok((pledge, record))
    }
}
