//! A schedule leaves out no tick and fires none twice: between the first and the
//! last that were fired, each time of its pattern is one task, with one end.

use super::{Invariant, Seen};
use crate::schedules::{tick_of, timetable};
use crate::world::World;
use std::collections::{BTreeMap, BTreeSet};
use taskmesh_core::schedule::tick_id;
use taskmesh_core::{TaskId, Unix};

/// The ticks of each schedule of which there was a task.
#[derive(Default)]
pub(crate) struct TickFiresOnce {
    fired: BTreeMap<TaskId, BTreeSet<Unix>>,
}

impl Invariant for TickFiresOnce {
    fn name(&self) -> &'static str {
        "tick_fires_once"
    }

    fn see(&mut self, world: &World, seen: &Seen<'_>) -> Result<(), String> {
        let Seen::Kept { node, record, .. } = seen else { return Ok(()) };
        let Some((schedule, tick)) = tick_of(&record.task) else { return Ok(()) };
        // What is only planned to be claimed is no task yet.
        if record.stamp.ballot.epoch == 0 {
            return Ok(());
        }
        self.fired.entry(schedule).or_default().insert(tick);
        let births = world.oracle.promises.get(&record.task).into_iter().flat_map(|p| &p.decided);
        match births.map(|(birth, _)| birth).find(|birth| **birth != record.birth) {
            Some(other) => Err(format!("n{node} fires {} again: {:?} and {other:?}", record.task, record.birth)),
            None => Ok(()),
        }
    }

    fn at_rest(&mut self, world: &World) -> Vec<String> {
        let mut problems = Vec::new();
        for (schedule, fired) in &self.fired {
            let timetable = timetable(schedule);
            for (tick, next) in fired.iter().zip(fired.iter().skip(1)) {
                if timetable.after(*tick) != Some(*next) {
                    problems.push(format!("{schedule} goes from {tick:?} to {next:?} and leaves out what is between"));
                }
                // The last may have been given up with its schedule.
                let task = tick_id(schedule, *tick).expect("a tick");
                let ends = world.oracle.promises.get(&task).map_or(0, |p| p.decided.len());
                if ends != 1 {
                    problems.push(format!("{task} has ended {ends} times"));
                }
            }
        }
        problems
    }
}
