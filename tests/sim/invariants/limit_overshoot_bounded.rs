//! Of the tasks under a limit of the mesh at most twice as many are granted at
//! once, whatever happens; and no more than the limit says while nobody falls
//! silent.

use super::{Invariant, Seen};
use crate::world::World;
use std::collections::BTreeMap;
use taskmesh_core::permits::{Bound, Limit, Subject};
use taskmesh_core::{Effect, Notice, Spec, TaskId, TaskState};

pub(crate) struct LimitOvershootBounded;

impl Invariant for LimitOvershootBounded {
    fn name(&self) -> &'static str {
        "limit_overshoot_bounded"
    }

    fn see(&mut self, world: &World, seen: &Seen<'_>) -> Result<(), String> {
        let Seen::Batch { node: n, effects } = seen else { return Ok(()) };
        let Some(node) = &world.hosts[*n].node else { return Ok(()) };
        let granted: Vec<_> = effects.iter().filter_map(granted).collect();
        for limit in &world.hosts[*n].config.limits {
            let Bound::Running(most) = limit.bound else { continue };
            let under = |task: &&TaskId| node.slot(task).is_some_and(|slot| covers(limit, &slot.spec));
            let Some(task) = granted.iter().copied().find(under) else { continue };
            let running = running(world, limit);
            let bound = if world.faults.silences() { 2 * most as usize } else { most as usize };
            if running.len() > bound {
                return Err(format!("n{n} grants {task}: granted under the limit {limit}: {}", running.join(" ")));
            }
        }
        Ok(())
    }
}

fn granted(effect: &Effect) -> Option<&TaskId> {
    match effect {
        Effect::Notice(Notice::TaskGranted { task, .. }) => Some(task),
        _ => None,
    }
}

/// Tasks under the limit that some live owner has granted, and which.
fn running(world: &World, limit: &Limit) -> Vec<String> {
    let mut owners = BTreeMap::<&TaskId, Vec<String>>::new();
    for (n, node) in world.hosts.iter().enumerate().filter_map(|(n, host)| Some((n, host.node.as_ref()?))) {
        let owned = node.slots().filter(|slot| matches!(slot.record.body.state, TaskState::Leased { .. }));
        for slot in owned.filter(|slot| covers(limit, &slot.spec) && node.is_owner(&slot.record.task)) {
            owners.entry(&slot.record.task).or_default().push(format!("n{n}"));
        }
    }
    owners.into_iter().map(|(task, owners)| format!("{task}@{}", owners.join("+"))).collect()
}

fn covers(limit: &Limit, spec: &Spec) -> bool {
    match &limit.subject {
        Subject::Type(name) => *name == spec.task_type,
        Subject::Tag(name) => spec.tags.contains(name),
        Subject::Key(name) => spec.fairness_key.as_ref() == Some(name),
    }
}
