//! What must hold of a node after every input, whatever happened before.

use crate::node::Node;
use crate::task::TaskState;

impl Node {
    /// Asserts what must hold of every node at every moment.
    pub fn check(&self) {
        for (task, kept) in &self.kept {
            let slot = &kept.slot;
            assert_eq!(*task, slot.record.task);
            assert!(slot.pledge >= slot.record.stamp.ballot, "{task}: a pledge below its own record");
            assert!(!slot.record.holders.is_empty(), "{task}: no holders");
            if kept.claimed {
                assert!(self.owns(kept), "{task}: claimed and not owned");
                assert!(slot.record.holders.contains(&self.id), "{task}: owned and not kept");
            }
            if kept.lease.is_some() {
                assert!(
                    kept.claimed && matches!(slot.record.body.state, TaskState::Leased { .. }),
                    "{task}: stray lease"
                );
            }
            let _ = kept.missing_blobs(&self.blobs);
        }
        self.check_index();
        self.reuse.check();
    }
}
