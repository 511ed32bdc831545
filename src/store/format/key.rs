//! Names of entries as bytes that sort by kind and then by name.

use super::Kind;
use taskmesh_core::authority::TokenId;
use taskmesh_core::cache::CacheKey;
use taskmesh_core::{Entry, Key, NodeId, TaskId, WorkerId};

/// What a key says, damaged value or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::store) enum Name {
    Spec(TaskId),
    Record(TaskId),
    Pledge(TaskId),
    Worker(WorkerId),
    Controls,
    Peer(NodeId),
    /// The number of the copy.
    Boot(u8),
    Tombstone(u64),
    Seal,
    Token(TokenId),
    Cached(CacheKey),
    Forgotten(NodeId),
}

impl Name {
    pub(in crate::store) fn kind(&self) -> Kind {
        match self {
            Name::Spec(_) => Kind::Spec,
            Name::Record(_) => Kind::Record,
            Name::Pledge(_) => Kind::Pledge,
            Name::Worker(_) => Kind::Worker,
            Name::Controls => Kind::Controls,
            Name::Peer(_) => Kind::Peer,
            Name::Boot(_) => Kind::Boot,
            Name::Tombstone(_) => Kind::Tombstone,
            Name::Seal => Kind::Seal,
            Name::Token(_) => Kind::Token,
            Name::Cached(_) => Kind::Cached,
            Name::Forgotten(_) => Kind::Forgotten,
        }
    }

    /// The task that it belongs to.
    pub(in crate::store) fn task(&self) -> Option<&TaskId> {
        match self {
            Name::Spec(task) | Name::Record(task) | Name::Pledge(task) => Some(task),
            Name::Worker(_)
            | Name::Controls
            | Name::Peer(_)
            | Name::Boot(_)
            | Name::Tombstone(_)
            | Name::Seal
            | Name::Token(_)
            | Name::Cached(_)
            | Name::Forgotten(_) => None,
        }
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = self.kind().name();
        match self {
            Name::Spec(task) | Name::Record(task) | Name::Pledge(task) => write!(f, "{kind} of {task}"),
            Name::Worker(worker) => write!(f, "{kind} {worker}"),
            Name::Controls | Name::Seal => f.write_str(kind),
            Name::Peer(node) | Name::Forgotten(node) => write!(f, "{kind} {node}"),
            Name::Boot(copy) => write!(f, "{kind}, copy {copy}"),
            Name::Token(id) => write!(f, "{kind} {id}"),
            Name::Cached(key) => write!(f, "{kind} {key}"),
            Name::Tombstone(hash) => write!(f, "{kind} {hash:016x}"),
        }
    }
}

/// Calls `each` with the parts of every key that `entry` is kept under. The
/// boot count is kept twice: a node that forgot its starts would be taken for
/// its older self.
pub(in crate::store) fn keys_of_entry(entry: &Entry, mut each: impl FnMut(Kind, &[u8])) {
    match entry {
        Entry::Spec(task, _) => each(Kind::Spec, task.as_str().as_bytes()),
        Entry::Record { record, .. } => each(Kind::Record, record.task.as_str().as_bytes()),
        Entry::Pledge { task, .. } => each(Kind::Pledge, task.as_str().as_bytes()),
        Entry::Worker(spec, _) => each(Kind::Worker, spec.worker.as_str().as_bytes()),
        Entry::Controls(_) => each(Kind::Controls, &[]),
        Entry::Peer(node, _) => each(Kind::Peer, &node.0),
        Entry::Boot(_) => (0..BOOT_COPIES).for_each(|copy| each(Kind::Boot, &[copy])),
        Entry::Token(entry) => each(Kind::Token, &entry.id.0),
        Entry::Cached(entry) => each(Kind::Cached, &entry.key.0),
        Entry::Forgotten(word) => each(Kind::Forgotten, &word.node.0),
        Entry::Tombstone(hash, _) => each(Kind::Tombstone, &hash.to_be_bytes()),
    }
}

/// Calls `each` with the parts of every key that forgetting `name` removes.
pub(in crate::store) fn keys_of_name(name: &Key, mut each: impl FnMut(Kind, &[u8])) {
    match name {
        Key::Task(task) => {
            each(Kind::Spec, task.as_str().as_bytes());
            each(Kind::Record, task.as_str().as_bytes());
        }
        Key::Pledge(task) => each(Kind::Pledge, task.as_str().as_bytes()),
        Key::Worker(worker) => each(Kind::Worker, worker.as_str().as_bytes()),
        Key::Peer(node) => each(Kind::Peer, &node.0),
        Key::Token(id) => each(Kind::Token, &id.0),
        Key::Cached(key) => each(Kind::Cached, &key.0),
        Key::Tombstone(hash) => each(Kind::Tombstone, &hash.to_be_bytes()),
    }
}

/// What `key` names; `None` where this format has no such key.
pub(in crate::store) fn name_of(key: &[u8]) -> Option<Name> {
    let (kind, name) = key.split_first()?;
    let text = || str::from_utf8(name).ok();
    Some(match Kind::from_byte(*kind)? {
        Kind::Spec => Name::Spec(TaskId::new(text()?).ok()?),
        Kind::Record => Name::Record(TaskId::new(text()?).ok()?),
        Kind::Pledge => Name::Pledge(TaskId::new(text()?).ok()?),
        Kind::Worker => Name::Worker(WorkerId::new(text()?).ok()?),
        Kind::Controls if name.is_empty() => Name::Controls,
        Kind::Seal if name.is_empty() => Name::Seal,
        Kind::Peer => Name::Peer(NodeId(name.try_into().ok()?)),
        Kind::Boot if name.len() == 1 && name[0] < BOOT_COPIES => Name::Boot(name[0]),
        Kind::Token => Name::Token(TokenId(name.try_into().ok()?)),
        Kind::Cached => Name::Cached(CacheKey(name.try_into().ok()?)),
        Kind::Forgotten => Name::Forgotten(NodeId(name.try_into().ok()?)),
        Kind::Tombstone => Name::Tombstone(u64::from_be_bytes(name.try_into().ok()?)),
        Kind::Controls | Kind::Boot | Kind::Spilled | Kind::Seal => return None,
    })
}

const BOOT_COPIES: u8 = 2;
