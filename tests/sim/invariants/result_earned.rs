//! A completed outcome was earned: that attempt really ran on that executor,
//! ended well, and left that result. One that was taken from another task was
//! earned by that one, for the same work, and a majority knew.

use super::{Invariant, Seen};
use crate::oracle::Ending;
use crate::world::{World, index};
use std::collections::BTreeSet;
use taskmesh_core::execution::Verdict;
use taskmesh_core::task::Data;
use taskmesh_core::view::Status;
use taskmesh_core::{NodeId, TaskId};

pub(crate) struct ResultEarned;

impl Invariant for ResultEarned {
    fn name(&self) -> &'static str {
        "result_earned"
    }

    fn see(&mut self, world: &World, seen: &Seen<'_>) -> Result<(), String> {
        let Seen::Told { node, task, ending } = seen else { return Ok(()) };
        if ending.status != Status::Completed {
            return Ok(());
        }
        if world.oracle.flows.runs_nowhere(task) {
            return said(world, *node, task);
        }
        if ending.executor == Some(None) && ending.attempt == Some(0) {
            return taken(world, *node, task, ending).and_then(|()| blob_is_kept(world, *node, task, ending));
        }
        let (Some(attempt), Some(Some(executor))) = (ending.attempt, ending.executor) else {
            return Err(format!("n{node} told {task} completed by no run: {ending:?}"));
        };
        if !earned(world, task, attempt, executor, ending) {
            let runs = world.oracle.runs.get(*task);
            return Err(format!("n{node} told {ending:?} of {task}; runs were {runs:?}"));
        }
        blob_is_kept(world, *node, task, ending)
    }
}

/// Nothing runs: `join_policy_kept` knows of workflows, and of the others the
/// ones that wait for a person need its word.
fn said(world: &World, node: usize, task: &TaskId) -> Result<(), String> {
    let flows = &world.oracle.flows;
    if flows.approvals.contains(task) && !flows.approved.contains(task) {
        return Err(format!("n{node} told that {task} was approved, and nobody did"));
    }
    Ok(())
}

fn earned(world: &World, task: &TaskId, attempt: u32, executor: NodeId, ending: &Ending) -> bool {
    let Some(promise) = world.oracle.promises.get(task) else { return false };
    let runs = world.oracle.runs.get(task).into_iter().flatten();
    runs.filter(|r| r.fence.attempt == attempt && r.node == index(executor)).any(|run| {
        let Some((verdict, result)) = &run.end else { return false };
        promise.submitted.contains(&run.submitted_at)
            && *verdict == Verdict::Completed
            && ending.result.as_ref().is_none_or(|told| told == result)
    })
}

/// It did not run: another task did, for the same work.
fn taken(world: &World, node: usize, task: &TaskId, ending: &Ending) -> Result<(), String> {
    let mut specs = world.hosts.iter().filter_map(|h| h.disk.specs.get(task)).peekable();
    // It may be forgotten by now.
    let any = specs.peek().is_none();
    let keys: BTreeSet<_> = specs.filter_map(|spec| spec.cache_key()).collect();
    if keys.is_empty() && !any {
        return Err(format!("n{node} told {task} completed by no run, and it takes no results: {ending:?}"));
    }
    let Some(source) = &ending.source else { return Ok(()) };
    let Some(source) = source else {
        return Err(format!("n{node} told {task} completed by no run at all: {ending:?}"));
    };
    let decided = world.oracle.promises.get(&source.task).map(|p| &p.submitted);
    let runs = world.oracle.runs.get(&source.task).into_iter().flatten();
    let earned = runs.filter(|r| r.fence.attempt == source.attempt).any(|run| {
        let Some((verdict, result)) = &run.end else { return false };
        decided.is_some_and(|decided| decided.contains(&run.submitted_at))
            && run.key.is_some_and(|key| any || keys.contains(&key))
            && *verdict == Verdict::Completed
            && ending.result.as_ref().is_none_or(|told| told == result)
    });
    if !earned {
        let runs = world.oracle.runs.get(&source.task);
        return Err(format!("n{node} told {ending:?} of {task}; runs of {} were {runs:?}", source.task));
    }
    Ok(())
}

/// What a result refers to outlives its executor.
fn blob_is_kept(world: &World, node: usize, task: &TaskId, ending: &Ending) -> Result<(), String> {
    let Some(Data::Blob { hash, .. }) = &ending.result else { return Ok(()) };
    let kept = world.hosts.iter().filter(|h| h.disk.copies.contains_key(task) && h.disk.blobs.contains(hash)).count();
    // What was gathered may be told after the task was forgotten.
    let forgotten = world.oracle.promises.get(task).is_some_and(|p| p.forgotten.epoch > 0);
    if kept == 0 && !forgotten {
        return Err(format!("n{node} told a result of {task} that no holder has"));
    }
    Ok(())
}
