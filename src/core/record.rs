//! Who may write a task, and what its holders keep.
//!
//! The state of one register is replicated, not a log (CASPaxos: Rystsov,
//! arXiv 1802.07000): a [`Ballot`] is a right to write, won from a majority of
//! the holders; a [`Stamp`] is the version that this right wrote.

use crate::ids::{NodeId, TaskId};
use crate::task::{Spec, Task};
use std::sync::Arc;

/// Who may write: the greater ballot wins, everywhere, always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ballot {
    /// 1 for the node that accepted the task; each claim is one more.
    pub epoch: u32,
    /// The node that may write.
    pub owner: NodeId,
}

/// The version of a record: its ballot, then its owner's own count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// The right that wrote it.
    pub ballot: Ballot,
    /// Counted by the ballot's owner alone, from 0.
    pub revision: u32,
}

/// Goes with a grant, into the run's environment, and back with its result:
/// whatever carries an older fence is refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fence {
    /// The owner's ballot at the grant.
    pub ballot: Ballot,
    /// Which grant of the task it is, from 1, never reused.
    pub attempt: u32,
}

/// The submission that made a record. Two births of one id are two different
/// tasks, and a holder keeps the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Birth {
    /// The node that accepted it.
    pub node: NodeId,
    /// Drawn by that node.
    pub nonce: u64,
}

/// One task as its owner last wrote it. Small: what never changes is in [`Spec`].
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// The id.
    pub task: TaskId,
    /// Which submission made it.
    pub birth: Birth,
    /// The version.
    pub stamp: Stamp,
    /// The nodes that keep it; a majority of them decides.
    pub holders: Vec<NodeId>,
    /// The holders before a change still under way: a majority of these is
    /// needed as well (joint consensus: Ongaro, Ousterhout: "In search of an
    /// understandable consensus algorithm", section 6).
    pub prior: Vec<NodeId>,
    /// Former holders that an operator said are gone for ever, when the rest was
    /// no majority without them: see [`crate::forgotten`].
    pub forgotten: Vec<NodeId>,
    /// What the task is doing.
    pub body: Task,
}

impl Record {
    /// The node that may write it, as far as this version knows.
    #[must_use]
    pub fn owner(&self) -> NodeId {
        self.stamp.ballot.owner
    }

    /// The fence of the current attempt.
    #[must_use]
    pub fn fence(&self) -> Fence {
        Fence { ballot: self.stamp.ballot, attempt: self.body.attempt }
    }

    /// Holders, old and new, each once.
    pub fn keepers(&self) -> impl Iterator<Item = NodeId> + '_ {
        let leaving = self.prior.iter().filter(|n| !self.holders.contains(n));
        self.holders.iter().chain(leaving).copied()
    }

    /// Whether `node` keeps this record.
    #[must_use]
    pub fn kept_by(&self, node: NodeId) -> bool {
        self.holders.contains(&node) || self.prior.contains(&node)
    }

    /// Whether the nodes for which `has` holds are a majority, of the holders
    /// and of the prior ones where a change is under way.
    pub fn majority(&self, has: impl Fn(NodeId) -> bool) -> bool {
        [&self.holders, &self.prior]
            .into_iter()
            .all(|set| set.is_empty() || set.iter().filter(|n| has(**n)).count() > set.len() / 2)
    }

    /// Whether the task has ended: its outcome never changes again.
    #[must_use]
    pub fn closed(&self) -> bool {
        self.body.state.closed().is_some()
    }
}

/// What a holder keeps on disk of one task.
#[derive(Clone, Debug, PartialEq)]
pub struct Slot {
    /// The greatest ballot it promised to respect.
    pub pledge: Ballot,
    /// The newest version that it has.
    pub record: Record,
    /// The immutable part.
    pub spec: Arc<Spec>,
}
