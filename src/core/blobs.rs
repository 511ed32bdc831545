//! Results too large for a record: which are here, who needs them, and what
//! waits for one to arrive.

use crate::effect::Effect;
use crate::ids::{BlobHash, NodeId, TaskId};
use crate::limits;
use crate::node::{Fetching, Node};
use crate::record::Record;
use crate::task::Report;

impl Node {
    pub(crate) fn fetch(&mut self, from: NodeId, missing: &[(BlobHash, u64)], wait: impl Fn() -> Fetching) {
        for (hash, bytes) in missing {
            if !self.fetching.contains_key(hash) {
                self.out.push(Effect::Fetch { hash: *hash, bytes: *bytes, from });
            }
            let waiting = self.fetching.entry(*hash).or_default();
            if waiting.len() < limits::HOLDERS {
                waiting.push(wait());
            }
        }
    }

    pub(crate) fn on_fetched(&mut self, hash: BlobHash, here: bool) {
        if here {
            self.blobs.entry(hash).or_insert(0);
        }
        for waiting in self.fetching.remove(&hash).unwrap_or_default() {
            match waiting {
                _ if !here => {}
                Fetching::Offer { from, record, spec } => self.on_offer(from, record, spec),
                Fetching::Finished { from, finished } => self.on_finished(from, finished),
                Fetching::Own(task) => self.count_own_blob(&task, hash),
                Fetching::Result(task) => self.go_on_taking(&task),
                Fetching::Left { from, entry } => self.on_left(from, entry),
                Fetching::Copy { from, entry } => self.on_copy(from, entry),
            }
        }
    }

    /// An owner that learnt of the end from a pledge may have only heard of what
    /// the task left. It asks one of the other keepers after the other, without
    /// haste: nobody may have it any more.
    pub(crate) fn fetch_own_blobs(&mut self, task: &TaskId) {
        let Some(kept) = self.owned(task) else { return };
        let missing = kept.missing_blobs(&self.blobs);
        if missing.is_empty() || missing.iter().any(|(hash, _)| self.fetching.contains_key(hash)) {
            return;
        }
        let others: Vec<_> = kept.slot.record.keepers().filter(|n| *n != self.id && self.live(*n)).collect();
        let place = self.chance.below(8 * others.len().max(1) as u64) as usize;
        if let Some(from) = others.get(place) {
            self.fetch(*from, &missing, || Fetching::Own(task.clone()));
        }
    }

    fn count_own_blob(&mut self, task: &TaskId, hash: BlobHash) {
        let report =
            self.kept.get(task).and_then(|k| k.slot.record.body.state.closed()).and_then(|c| c.report.as_ref());
        if report.is_some_and(|r| r.blobs().any(|(h, _)| h == hash)) {
            *self.blobs.entry(hash).or_default() += 1;
        }
    }

    pub(crate) fn count_blobs(&mut self, record: Record, by: i32) {
        if let Some(report) = record.body.state.closed().and_then(|c| c.report.as_ref()) {
            self.count_report(report, by);
        }
    }

    pub(crate) fn count_report(&mut self, report: &Report, by: i32) {
        for (hash, _) in report.blobs() {
            let Some(count) = self.blobs.get_mut(&hash) else { continue };
            *count = count.saturating_add_signed(by);
            if *count == 0 {
                self.drop_blob_if_unused(hash);
            }
        }
    }

    pub(crate) fn drop_blob_if_unused(&mut self, hash: BlobHash) {
        let in_use = self.executions.values().any(|e| e.refers_to(hash));
        if self.blobs.get(&hash) == Some(&0) && !in_use {
            self.blobs.remove(&hash);
            self.out.push(Effect::DropBlob(hash));
        }
    }

    pub(crate) fn drop_unused_blobs(&mut self) {
        let unused: Vec<_> = self.blobs.iter().filter(|(_, n)| **n == 0).map(|(h, _)| *h).collect();
        for hash in unused {
            self.drop_blob_if_unused(hash);
        }
    }
}
