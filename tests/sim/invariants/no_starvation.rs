//! However urgent what comes later: an owner grants nothing that became ready
//! more than 128 ageing spans after another of its tasks that the same workers
//! can run, that is in the same share, and whose holders can be reached.

use super::{Invariant, Seen};
use crate::agenda::Time;
use crate::world::World;
use std::collections::BTreeMap;
use taskmesh_core::task::Requirements;
use taskmesh_core::{Effect, Entry, Node, Notice, Slot, Spec, TaskId, TaskState, Unix};

#[derive(Default)]
pub(crate) struct NoStarvation {
    /// Who was overtaken, ready since when, and when that was first seen. A
    /// holder may come back within a batch, after the grant: once is no proof.
    overtaken: BTreeMap<(usize, TaskId, Unix), Time>,
}

impl Invariant for NoStarvation {
    fn name(&self) -> &'static str {
        "no_starvation"
    }

    fn see(&mut self, world: &World, seen: &Seen<'_>) -> Result<(), String> {
        let Seen::Batch { node: n, effects } = seen else { return Ok(()) };
        let Some(node) = &world.hosts[*n].node else { return Ok(()) };
        let granted = granted(world, *n, effects);
        if granted.is_empty() {
            return Ok(());
        }
        let patience = 128 * world.hosts[*n].config.ageing.0;
        for slot in node.slots().filter(|slot| waits(world, *n, node, slot)) {
            let TaskState::Queued { since, .. } = slot.record.body.state else { continue };
            let over = |(task, ready): &&(TaskId, Unix)| {
                ready.0 > since.0 + patience && node.slot(task).is_some_and(|first| alike(&first.spec, &slot.spec))
            };
            let Some((first, ready)) = granted.iter().find(over) else { continue };
            let key = (*n, slot.record.task.clone(), since);
            let noticed = *self.overtaken.entry(key).or_insert(world.now);
            if world.now >= noticed + CERTAIN {
                let (task, later) = (&slot.record.task, ready.0 - since.0);
                return Err(format!("n{n} grants {first}, which was ready {later} ms after {task}, and that waits"));
            }
        }
        Ok(())
    }
}

/// Overtaken twice, so far apart.
const CERTAIN: Time = 500;

/// What the batch grants, and since when each was ready.
fn granted(world: &World, n: usize, effects: &[Effect]) -> Vec<(TaskId, Unix)> {
    let mut ready: BTreeMap<&TaskId, Unix> = BTreeMap::new();
    let mut granted = Vec::new();
    for effect in effects {
        match effect {
            Effect::Persist(Entry::Record { record, .. }) => {
                if let TaskState::Queued { since, .. } = record.body.state {
                    ready.insert(&record.task, since);
                }
            }
            Effect::Notice(Notice::TaskGranted { task, .. }) => {
                let since = ready.remove(task).or_else(|| queued_before(world, n, task));
                granted.extend(since.map(|since| (task.clone(), since)));
            }
            _ => {}
        }
    }
    granted
}

fn queued_before(world: &World, n: usize, task: &TaskId) -> Option<Unix> {
    match world.hosts[n].disk.copies.get(task)?.record.body.state {
        TaskState::Queued { since, .. } => Some(since),
        TaskState::Blocked | TaskState::Delayed { .. } | TaskState::Leased { .. } | TaskState::Done(_) => None,
    }
}

/// It was ready before this batch and is still, and could be granted.
fn waits(world: &World, n: usize, node: &Node, slot: &Slot) -> bool {
    let TaskState::Queued { since, .. } = slot.record.body.state else { return false };
    let task = &slot.record.task;
    node.is_owner(task)
        && queued_before(world, n, task) == Some(since)
        && slot.record.majority(|holder| node.live(holder))
}

fn alike(one: &Spec, two: &Spec) -> bool {
    let plain = |spec: &Spec| Requirements { affinity_key: None, ..spec.requirements.clone() };
    one.task_type == two.task_type && one.fairness_key == two.fairness_key && plain(one) == plain(two)
}
