//! Nodes that are gone for ever on the wire.

use super::check::{self, Checked, same_names};
use super::request::{scope_from, scope_to};
use super::task::{node_to, nodes_to, owned, owned_or_none};
use super::{WireError, proto};
use taskmesh_core::command::Scope;
use taskmesh_core::forgotten::{Forgotten, Presence};
use taskmesh_core::message::Electorate;
use taskmesh_core::{Command, NodeId, Reply, Unix, limits};

same_names!(Presence, presence_to, presence_from, "forget_node.presence", Respected, Overruled);

impl From<&Forgotten> for proto::Forgotten {
    fn from(word: &Forgotten) -> Self {
        proto::Forgotten {
            node: node_to(word.node),
            by: owned(&word.by),
            at: word.at.0,
            reason: owned_or_none(word.reason.as_ref()),
        }
    }
}

pub(super) fn words_from(field: &'static str, words: &[proto::Forgotten], limit: usize) -> Checked<Vec<Forgotten>> {
    check::list(field, words, limit, word_from)
}

fn word_from(word: &proto::Forgotten) -> Checked<Forgotten> {
    Ok(Forgotten {
        node: check::node("forgotten.node", &word.node)?,
        by: check::text("forgotten.by", &word.by, limits::TEXT_BYTES)?,
        at: Unix(check::count("forgotten.at", word.at)?),
        reason: check::text_or_none("forgotten.reason", word.reason.as_deref(), limits::TEXT_BYTES)?,
    })
}

pub(super) fn command_to(word: &Forgotten, presence: Presence, scope: Scope) -> proto::ForgetNode {
    proto::ForgetNode { word: Some(word.into()), presence: presence_to(presence), scope: scope_to(scope) }
}

pub(super) fn command_from(forget: &proto::ForgetNode) -> Checked<Command> {
    Ok(Command::ForgetNode {
        word: word_from(check::need("forget_node.word", forget.word.as_ref())?)?,
        presence: presence_from(forget.presence)?,
        scope: scope_from(forget.scope)?,
    })
}

pub(super) fn forgot_to(word: &Forgotten, shared: u64, bereft: u64, silent: &[NodeId]) -> proto::Forgot {
    proto::Forgot { word: Some(word.into()), shared, bereft, silent: nodes_to(silent) }
}

pub(super) fn forgot_from(forgot: &proto::Forgot) -> Checked<Reply> {
    Ok(Reply::Forgot {
        word: word_from(check::need("forgot.word", forgot.word.as_ref())?)?,
        shared: check::count("forgot.shared", forgot.shared)?,
        bereft: check::count("forgot.bereft", forgot.bereft)?,
        silent: check::nodes("forgot.silent", &forgot.silent, limits::MEMBERS)?,
    })
}

/// A node that knows of no other asks the holders.
pub(super) fn electorate_from(everybody: bool) -> Electorate {
    if everybody { Electorate::Everybody } else { Electorate::Holders }
}
