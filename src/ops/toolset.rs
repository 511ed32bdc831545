//! Groups of operations, by their noun: what a node offers, or a client wants
//! to see, can be narrowed to some of them.

use super::{ALL, Kind, Operation};

/// A group of operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Toolset {
    /// Tasks: submit, watch, stop.
    Task,
    /// The queue as a whole, and the retry of a task.
    Queue,
    /// Workers.
    Worker,
    /// Workflows.
    Workflow,
    /// Other nodes.
    Peer,
}

impl Toolset {
    /// Every one, in the order of the contract.
    pub const ALL: [Toolset; 5] = [Toolset::Task, Toolset::Queue, Toolset::Worker, Toolset::Workflow, Toolset::Peer];

    /// Its name on every face.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Toolset::Task => "task",
            Toolset::Queue => "queue",
            Toolset::Worker => "worker",
            Toolset::Workflow => "workflow",
            Toolset::Peer => "peer",
        }
    }

    /// The operations of the contract that belong to it.
    #[must_use]
    pub fn operations(self) -> &'static [&'static str] {
        match self {
            Toolset::Task => &ALL[..6],
            Toolset::Queue => &ALL[6..11],
            Toolset::Worker => &ALL[11..14],
            Toolset::Workflow => &ALL[14..20],
            Toolset::Peer => &ALL[20..],
        }
    }
}

/// Which operations are offered: all of them, unless narrowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    toolsets: Vec<Toolset>,
    changes: Changes,
}

/// Whether operations that change something are offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changes {
    /// They are.
    Offered,
    /// Only reads are.
    Withheld,
}

impl Default for Offer {
    fn default() -> Offer {
        Offer { toolsets: Toolset::ALL.to_vec(), changes: Changes::Offered }
    }
}

impl Offer {
    /// Of these toolsets; none named: of all.
    ///
    /// # Errors
    /// A name that is none of theirs; says which there are.
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>, changes: Changes) -> Result<Offer, String> {
        let known = |name: &str| {
            let found = Toolset::ALL.into_iter().find(|t| t.name() == name);
            let all = Toolset::ALL.map(Toolset::name).join(", ");
            found.ok_or_else(|| {
                format!("{:?} is no toolset; there are {all}", name.chars().take(64).collect::<String>())
            })
        };
        let named = names.into_iter().map(known).collect::<Result<Vec<_>, _>>()?;
        let toolsets = if named.is_empty() { Toolset::ALL.to_vec() } else { named };
        Ok(Offer { toolsets, changes })
    }

    /// What both offer.
    #[must_use]
    pub fn narrowed(&self, other: &Offer) -> Offer {
        let toolsets = self.toolsets.iter().copied().filter(|t| other.toolsets.contains(t)).collect();
        let withheld = [self.changes, other.changes].contains(&Changes::Withheld);
        Offer { toolsets, changes: if withheld { Changes::Withheld } else { Changes::Offered } }
    }

    /// Whether it has this operation.
    #[must_use]
    pub fn has(&self, operation: &Operation) -> bool {
        let reads = operation.kind == Kind::Read || self.changes == Changes::Offered;
        reads && self.toolsets.iter().any(|t| t.operations().contains(&operation.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops;

    #[test]
    fn every_operation_is_in_one_toolset() {
        for name in ALL {
            assert_eq!(Toolset::ALL.iter().filter(|t| t.operations().contains(&name)).count(), 1, "{name}");
        }
        assert_eq!(Toolset::Queue.operations().last(), Some(&"task_retry"));
        assert_eq!(Toolset::Peer.operations().len(), 6);
    }

    fn offered(offer: &Offer) -> Vec<&'static str> {
        ops::offered().iter().filter(|o| offer.has(o)).map(|o| o.name).collect()
    }

    #[test]
    fn an_offer_is_narrowed_and_never_widened() {
        assert_eq!(offered(&Offer::default()).len(), ops::offered().len());
        let workers = Offer::new(["worker"], Changes::Offered).expect("a toolset");
        assert_eq!(offered(&workers), ["worker_register", "worker_unregister", "worker_status"]);
        let reads = Offer::new([], Changes::Withheld).expect("all");
        assert_eq!(offered(&workers.narrowed(&reads)), ["worker_status"]);
        assert_eq!(offered(&reads.narrowed(&Offer::default())), offered(&reads));
        assert!(offered(&reads).iter().all(|name| ops::operation(name).expect("known").kind == Kind::Read));
        let peers = Offer::new(["peer"], Changes::Offered).expect("a toolset");
        assert!(offered(&workers.narrowed(&peers)).is_empty());
        let problem = Offer::new(["peer", "wroker"], Changes::Offered).expect_err("no such");
        assert!(problem.contains("wroker") && problem.contains("task, queue, worker"), "{problem}");
    }
}
