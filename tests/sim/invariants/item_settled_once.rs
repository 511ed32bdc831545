//! Each item of an array that came to its end has ended once: none was left out,
//! none ended twice, and the array counts them as they did.

use super::Invariant;
use crate::world::World;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use taskmesh_core::TaskId;
use taskmesh_core::task::Data;
use taskmesh_core::view::Status;

pub(crate) struct ItemSettledOnce;

impl Invariant for ItemSettledOnce {
    fn name(&self) -> &'static str {
        "item_settled_once"
    }

    fn at_rest(&mut self, world: &World) -> Vec<String> {
        world.oracle.flows.arrays().flat_map(|(array, indexes)| problems(world, array, indexes)).collect()
    }
}

fn problems(world: &World, array: &TaskId, indexes: &BTreeSet<u32>) -> Vec<String> {
    let mut problems = Vec::new();
    let mut counted = BTreeMap::new();
    let decided = |task: &TaskId| world.oracle.promises.get(task).map_or(&[][..], |p| &p.decided);
    // One that was stopped leaves items that never began.
    let whole = decided(array).first().filter(|(_, e)| matches!(e.status, Status::Completed | Status::Failed));
    for index in indexes {
        let item = array.item(*index as usize).expect("short names");
        let ends = decided(&item);
        if ends.len() > 1 {
            problems.push(format!("{item} has ended more than once: {ends:?}"));
        }
        if ends.is_empty() && whole.is_some() {
            problems.push(format!("{array} came to its end without {item}: {}", world.whereabouts(&item)));
        }
        if let Some((_, ending)) = ends.first() {
            *counted.entry(ending.status.name()).or_insert(0) += 1;
        }
    }
    if let Some((_, ending)) = whole
        && let Some(Data::Inline(text)) = &ending.result
        && !text.is_empty()
    {
        let said: BTreeMap<String, Value> = serde_json::from_slice(text).expect("JSON");
        let of = |status: &str| counted.get(status).copied().unwrap_or(0);
        if said.iter().any(|(status, n)| status != "items" && *n != of(status)) {
            problems.push(format!("{array} says {said:?}, and its items ended as {counted:?}"));
        }
    }
    problems
}
