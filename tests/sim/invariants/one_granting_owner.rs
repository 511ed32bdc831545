//! Only the owner grants, by a right that a majority gave; no fence is used
//! for two runs; and no version of a record is written twice.

use super::{Invariant, Seen};
use crate::world::{World, index};
use std::collections::BTreeMap;
use taskmesh_core::{Fence, NodeId, Record, TaskId, Unix};

#[derive(Default)]
pub(crate) struct OneGrantingOwner {
    /// Who granted what to whom.
    grants: BTreeMap<(TaskId, Unix, Fence), (usize, usize)>,
}

impl Invariant for OneGrantingOwner {
    fn name(&self) -> &'static str {
        "one_granting_owner"
    }

    fn see(&mut self, world: &World, seen: &Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::Granted { node, to, grant } => {
                let (task, fence) = (&grant.task, grant.fence);
                if fence.ballot.owner != NodeId::test(*node as u64) {
                    return Err(format!("n{node} grants {task} under another's fence {fence:?}"));
                }
                by_right(world, *node, task, fence)?;
                let key = (task.clone(), grant.spec.submitted_at, fence);
                let before = self.grants.insert(key, (*node, *to));
                match before {
                    Some(other) if other != (*node, *to) => {
                        Err(format!("{task} was granted under {fence:?} by and to {other:?}, then to n{to}"))
                    }
                    Some(_) | None => Ok(()),
                }
            }
            Seen::Started { node, task, fence, spec, .. } => {
                if fence.ballot.owner == NodeId::test(*node as u64) {
                    by_right(world, *node, task, *fence)?;
                }
                let runs = world.oracle.runs.get(*task).into_iter().flatten();
                let mut same = runs.filter(|r| r.fence == *fence && r.submitted_at == spec.submitted_at);
                same.next().map_or(Ok(()), |r| {
                    Err(format!("{task} runs under {fence:?} on n{node}; it ran on n{} from {}", r.node, r.from))
                })
            }
            Seen::Kept { node, record, .. } => one_version(world, *node, record),
            _ => Ok(()),
        }
    }
}

fn by_right(world: &World, node: usize, task: &TaskId, fence: Fence) -> Result<(), String> {
    if world.oracle.promises.get(task).is_some_and(|p| p.won(fence.ballot)) {
        return Ok(());
    }
    Err(format!("n{node} grants {task} by {:?}, which no majority pledged to", fence.ballot))
}

fn one_version(world: &World, node: usize, record: &Record) -> Result<(), String> {
    for holder in record.keepers() {
        let Some(copy) = world.hosts[index(holder)].disk.copies.get(&record.task) else { continue };
        let same_name = copy.record.stamp == record.stamp && copy.record.birth == record.birth;
        if same_name && copy.record != *record {
            return Err(format!(
                "n{node} keeps another version {:?} of {} than {holder:?}: {record:?} and {:?}",
                record.stamp, record.task, copy.record
            ));
        }
    }
    Ok(())
}
