//! From rows, in the order of their keys, to what a node finds on its disk.

use super::format::{self, Flaw, Name, Seal};
use std::collections::BTreeSet;
use std::sync::Arc;
use taskmesh_core::{Ballot, Disk, Record, Slot, Spec, TaskId};

/// Takes rows one by one. All specs come before all records, each in the order
/// of their ids, so the two are joined by walking along.
#[derive(Debug, Default)]
pub(super) struct Assembly {
    disk: Disk,
    specs: Vec<(TaskId, Option<Arc<Spec>>)>,
    /// Specs before this one have met their record, or have none.
    met: usize,
    damaged: BTreeSet<TaskId>,
    incomplete: Vec<(TaskId, &'static str)>,
    seal: Option<Seal>,
}

/// What the rows came to.
#[derive(Debug)]
pub(super) struct Assembled {
    pub disk: Disk,
    /// Tasks of which a part is missing, with which one.
    pub incomplete: Vec<(TaskId, &'static str)>,
    pub seal: Option<Seal>,
}

impl Assembly {
    /// Takes a row. `spilled` reads an entry that is in a file.
    ///
    /// On a flaw the row is left out, and its task, if the key names one, will
    /// be among the damaged.
    pub(super) fn row(
        &mut self,
        name: &Name,
        value: &[u8],
        spilled: impl FnOnce(&format::Envelope<'_>) -> Result<Vec<u8>, Flaw>,
    ) -> Result<(), Flaw> {
        let taken = self.take(name, value, spilled);
        if taken.is_err() {
            match name {
                Name::Spec(task) => self.specs.push((task.clone(), None)),
                Name::Record(task) => self.record(task, None),
                // A pledge that is damaged binds this node all the same: it
                // pledges nothing for this task until it is given a place anew.
                Name::Pledge(task) => drop(self.damaged.insert(task.clone())),
                Name::Worker(_) | Name::Controls | Name::Peer(_) | Name::Boot(_) | Name::Tombstone(_) | Name::Seal => {}
                // A revocation that is damaged is told again by the other nodes.
                // A result that is damaged is found anew.
                Name::Token(_) | Name::Cached(_) => {}
                // So is who is gone for ever.
                Name::Forgotten(_) => {}
            }
        }
        taken
    }

    /// What there is.
    pub(super) fn finish(mut self) -> Assembled {
        self.skip_specs_before(None);
        self.disk.damaged = self.damaged.into_iter().collect();
        Assembled { disk: self.disk, incomplete: self.incomplete, seal: self.seal }
    }

    fn take(
        &mut self,
        name: &Name,
        value: &[u8],
        spilled: impl FnOnce(&format::Envelope<'_>) -> Result<Vec<u8>, Flaw>,
    ) -> Result<(), Flaw> {
        let file;
        let mut envelope = format::open(value, name.kind())?;
        if envelope.kind == format::Kind::Spilled {
            file = spilled(&envelope)?;
            envelope = format::open(&file, name.kind())?;
        }
        match name {
            Name::Spec(task) => self.specs.push((task.clone(), Some(format::decode_spec(&envelope)?))),
            Name::Record(task) => {
                let record = format::decode_record(&envelope, task)?;
                self.record(task, Some(record));
            }
            Name::Worker(_) => self.disk.workers.push(format::decode_worker(&envelope)?),
            Name::Controls => self.disk.controls = format::decode_controls(&envelope)?,
            Name::Peer(node) => self.disk.peers.push((*node, format::decode_peer(&envelope)?)),
            Name::Boot(_) => self.disk.boot = self.disk.boot.max(format::decode_boot(&envelope)?),
            Name::Pledge(task) => {
                let (ballot, at) = format::decode_pledge(&envelope)?;
                self.disk.pledges.push((task.clone(), ballot, at));
            }
            Name::Token(_) => self.disk.tokens.push(format::decode_token(&envelope)?),
            Name::Forgotten(node) => {
                let word = format::decode_forgotten(&envelope)?;
                if word.node != *node {
                    return Err(Flaw::Damaged(format!("it is the word of {}", word.node)));
                }
                self.disk.forgotten.push(word);
            }
            Name::Cached(key) => {
                let entry = format::decode_cached(&envelope)?;
                if entry.key != *key {
                    return Err(Flaw::Damaged(format!("it is the result of {}", entry.key)));
                }
                self.disk.cached.push(entry);
            }
            Name::Seal => self.seal = Some(format::decode_seal(&envelope)?),
            Name::Tombstone(hash) => self.disk.tombstones.push((*hash, format::decode_tombstone(&envelope)?)),
        }
        Ok(())
    }

    /// Joins a record, or the place of a damaged one, with its spec.
    fn record(&mut self, task: &TaskId, found: Option<(Ballot, Record)>) {
        self.skip_specs_before(Some(task));
        let spec = match self.specs.get(self.met) {
            Some((id, spec)) if id == task => {
                self.met += 1;
                Some(spec.clone())
            }
            _ => None,
        };
        match (found, spec) {
            (Some((pledge, record)), Some(Some(spec))) => self.disk.slots.push(Slot { pledge, record, spec }),
            (Some(_), None) => {
                self.incomplete.push((task.clone(), "its spec is missing"));
                self.damaged.insert(task.clone());
            }
            (None, _) | (Some(_), Some(None)) => {
                self.damaged.insert(task.clone());
            }
        }
    }

    /// Specs before `task` have no record.
    fn skip_specs_before(&mut self, task: Option<&TaskId>) {
        while let Some((id, spec)) = self.specs.get(self.met) {
            if task.is_some_and(|t| id >= t) {
                return;
            }
            if spec.is_some() {
                self.incomplete.push((id.clone(), "its record is missing"));
            }
            self.damaged.insert(id.clone());
            self.met += 1;
        }
    }
}
