//! A node's disk: what was written, entry by entry, and what a crash left.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use taskmesh_core::authority::TokenId;
use taskmesh_core::cache::{CacheKey, Cached};
use taskmesh_core::command::WorkerSpec;
use taskmesh_core::effect::PeerBook;
use taskmesh_core::forgotten::Forgotten;
use taskmesh_core::message::Controls;
use taskmesh_core::register::Issued;
use taskmesh_core::{Ballot, BlobHash, Disk, Entry, Key, NodeId, Record, Slot, Spec, TaskId, Unix, WorkerId};

/// A copy of a record, with the pledge that it was written with.
#[derive(Clone, Debug)]
pub(crate) struct Copy {
    /// The greatest ballot promised to.
    pub(crate) pledge: Ballot,
    /// The version.
    pub(crate) record: Record,
    /// It was learnt rather than accepted: by a node that had pledged higher.
    pub(crate) learnt: bool,
}

/// One disk. Survives its node, unless it is destroyed.
#[derive(Default)]
pub(crate) struct SimDisk {
    /// Immutable parts.
    pub(crate) specs: BTreeMap<TaskId, Arc<Spec>>,
    /// Records.
    pub(crate) copies: BTreeMap<TaskId, Copy>,
    /// Copies that a fault made unreadable, until they are written again.
    pub(crate) damaged: BTreeSet<TaskId>,
    /// Blobs that are whole.
    pub(crate) blobs: BTreeSet<BlobHash>,
    /// The queue's controls.
    pub(crate) controls: Controls,
    /// Pledges without a record.
    pub(crate) vows: BTreeMap<TaskId, (Ballot, Unix)>,
    workers: BTreeMap<WorkerId, (WorkerSpec, Unix)>,
    peers: BTreeMap<NodeId, PeerBook>,
    tombstones: BTreeMap<u64, Unix>,
    tokens: BTreeMap<TokenId, Issued>,
    cached: BTreeMap<CacheKey, Arc<Cached>>,
    /// Nodes that are gone for ever, as far as its node knows.
    pub(crate) forgotten: BTreeMap<NodeId, Forgotten>,
    boot: u64,
}

impl SimDisk {
    /// Writes an entry; a damaged copy that is written again is whole.
    pub(crate) fn write(&mut self, entry: Entry) {
        match entry {
            Entry::Spec(task, spec) => {
                self.specs.insert(task, spec);
            }
            Entry::Record { pledge, record } => {
                self.damaged.remove(&record.task);
                let before = self.copies.get(&record.task).filter(|c| c.record.birth == record.birth);
                let learnt = before.is_some_and(|c| {
                    let same = c.record.stamp == record.stamp;
                    if same { c.learnt } else { c.pledge > record.stamp.ballot }
                });
                self.copies.insert(record.task.clone(), Copy { pledge, record: *record, learnt });
            }
            Entry::Pledge { task, ballot, at } => {
                self.vows.insert(task, (ballot, at));
            }
            Entry::Worker(spec, at) => {
                self.workers.insert(spec.worker.clone(), (spec, at));
            }
            Entry::Controls(controls) => self.controls = controls,
            Entry::Peer(peer, book) => {
                self.peers.insert(peer, book);
            }
            Entry::Boot(boot) => self.boot = boot,
            Entry::Tombstone(hash, at) => {
                self.tombstones.insert(hash, at);
            }
            Entry::Token(entry) => {
                self.tokens.insert(entry.id, entry);
            }
            Entry::Forgotten(word) => {
                self.forgotten.insert(word.node, word);
            }
            Entry::Cached(entry) => {
                self.cached.insert(entry.key, entry);
            }
        }
    }

    /// Removes an entry.
    pub(crate) fn forget(&mut self, key: &Key) {
        match key {
            Key::Task(task) => {
                self.specs.remove(task);
                self.copies.remove(task);
                self.damaged.remove(task);
            }
            Key::Pledge(task) => {
                self.vows.remove(task);
            }
            Key::Worker(worker) => {
                self.workers.remove(worker);
            }
            Key::Peer(peer) => {
                self.peers.remove(peer);
            }
            Key::Tombstone(hash) => {
                self.tombstones.remove(hash);
            }
            Key::Token(id) => {
                self.tokens.remove(id);
            }
            Key::Cached(key) => {
                self.cached.remove(key);
            }
        }
    }

    /// Makes the copy of `task` unreadable.
    pub(crate) fn damage(&mut self, task: &TaskId) {
        if self.copies.remove(task).is_some() {
            self.damaged.insert(task.clone());
        }
    }

    /// How many other members it names.
    pub(crate) fn members(&self) -> usize {
        self.peers.len()
    }

    /// What a node that starts on this disk is given.
    pub(crate) fn load(&self) -> Disk {
        let mut damaged: Vec<_> = self.damaged.iter().cloned().collect();
        let mut slots = Vec::with_capacity(self.copies.len());
        for (task, copy) in &self.copies {
            let Some(spec) = self.specs.get(task) else {
                damaged.push(task.clone());
                continue;
            };
            slots.push(Slot { pledge: copy.pledge, record: copy.record.clone(), spec: spec.clone() });
        }
        Disk {
            slots,
            damaged,
            pledges: self.vows.iter().map(|(task, (ballot, at))| (task.clone(), *ballot, *at)).collect(),
            workers: self.workers.values().cloned().collect(),
            controls: self.controls.clone(),
            peers: self.peers.iter().map(|(peer, book)| (*peer, book.clone())).collect(),
            boot: self.boot,
            tombstones: self.tombstones.iter().map(|(hash, at)| (*hash, *at)).collect(),
            tokens: self.tokens.values().cloned().collect(),
            forgotten: self.forgotten.values().cloned().collect(),
            cached: self.cached.values().map(|entry| (**entry).clone()).collect(),
            blobs: self.blobs.clone(),
        }
    }
}
