//! Large arrays among the work: many items in one record, of which a few at once
//! are tasks; and what clients do with them.

use crate::agenda::{Event, Time};
use crate::executor::Program;
use crate::oracle::Asked;
use crate::scenarios::{assert_completed, fine, newest, owner_of, part, settled, submit};
use crate::workload::{Act, plain_spec};
use crate::world::{EPOCH, World};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use taskmesh_core::array::{ARRAY, Heading, text_of};
use taskmesh_core::command::{Detail, Submission};
use taskmesh_core::task::{Priority, RetryPolicy};
use taskmesh_core::view::Status;
use taskmesh_core::{Command, Millis, Outcome, Query, Request, Spec, TaskId, Unix};

impl World {
    /// Plans some arrays.
    pub(crate) fn plan_arrays(&mut self, from: Time, until: Time) {
        for _ in 0..self.prng.below(4) {
            let at = from + self.prng.below(until - from);
            self.agenda.at(at, Event::Act(Act::SubmitArray));
        }
    }

    /// Submits an array somewhere, and plans what else its client does with it.
    pub(crate) fn submit_some_array(&mut self) {
        let Some(n) = self.any_up() else { return };
        let work = self.number();
        let id = TaskId::new(&format!("a{work}")).expect("a valid name");
        let items: Vec<Value> = (0..2 + self.prng.below(60)).map(|_| self.any_item()).collect();
        let count = items.len() as u64;
        let at_once = 1 + self.prng.below(8) as u32;
        let mut spec = array_of(&items, self.prng.chance(900).then_some(at_once));
        spec.retry.max_retries = self.prng.below(4) as u32;
        if self.prng.chance(80) {
            spec.deadline = Some(Unix(EPOCH + self.now + self.prng.below(60_000)));
        }
        if self.prng.chance(150) && !self.faults.short_retention && !self.faults.clears {
            spec.depends_on.extend(self.any_accepted());
        }
        spec.exclusive = self.prng.chance(100);
        let submission = Submission { task: Some(id.clone()), spec, priority: Priority::NORMAL, items: Vec::new() };
        self.tally.arrays += 1;
        if self.prng.chance(150) {
            self.submit_twice(n, submission, work);
        } else {
            self.submit(n, submission, work);
        }
        for _ in 0..self.prng.below(4) {
            let item = id.item(self.prng.below(count) as usize).expect("short names");
            let request = match self.prng.below(3) {
                0 => Request::Command(Command::Cancel { task: item, reason: None, force: false }),
                1 => Request::Command(Command::Reprioritise {
                    task: item,
                    priority: Priority::new(4.0).expect("above 0"),
                    requeue: true,
                }),
                _ => {
                    let detail = Detail { report: true, live: true, explain: true, ..Detail::default() };
                    Request::Query(Query::Task { task: item, detail, wait: Millis(self.prng.below(10_000)) })
                }
            };
            self.ask_later(request);
        }
        if self.prng.chance(100) {
            let force = self.prng.chance(300);
            self.ask_later(Request::Command(Command::Cancel { task: id.clone(), reason: None, force }));
        }
        if self.prng.chance(500) {
            let items = Some(self.prng.below(count) as u32);
            let detail = Detail { report: true, live: true, explain: true, items, ..Detail::default() };
            self.ask_later(Request::Query(Query::Task { task: id, detail, wait: Millis(0) }));
        }
    }

    fn any_item(&mut self) -> Value {
        let program = match self.prng.below(40) {
            0 => Program::Bad,
            1 => Program::Hopeless,
            2..8 => Program::Flaky,
            _ => Program::Good,
        };
        item(program, 10 + self.prng.below(100) * self.prng.below(8))
    }
}

fn item(program: Program, cost: Time) -> Value {
    json!({"program": program.name(), "cost": cost, "leaves": "inline"})
}

fn array_of(items: &[Value], at_once: Option<u32>) -> Spec {
    let lines: Vec<String> = items.iter().map(Value::to_string).collect();
    let heading = Heading { task_type: "echo".into(), at_once, ..Heading::default() };
    let text = text_of(&heading, lines.iter().map(String::as_str));
    let retry = RetryPolicy { initial_delay: Millis(200), max_delay: Millis(2_000), ..RetryPolicy::default() };
    Spec { task_type: ARRAY.into(), payload: text.into_bytes().into(), retry, ..plain_spec(Program::Good, 0, false) }
}

/// The indexes of an array's items, as its payload has them.
pub(crate) fn indexes_of(payload: &[u8]) -> BTreeSet<u32> {
    let mut lines = std::str::from_utf8(payload).expect("the core checked it").lines();
    let heading: Value = serde_json::from_str(lines.next().expect("a heading")).expect("JSON");
    let number = |value: &Value| value.as_u64().expect("a number") as u32;
    match heading["only"].as_array() {
        Some(ranges) => ranges.iter().flat_map(|r| number(&r[0])..number(&r[0]) + number(&r[1])).collect(),
        None => (0..lines.count() as u32).collect(),
    }
}

/// Which items of `task` have ended how, by what majorities know.
fn ends(world: &World, task: &TaskId, items: usize, status: Status) -> usize {
    let of = |n: usize| world.oracle.promises.get(&task.item(n).expect("a valid name"));
    (0..items).filter_map(of).filter(|p| p.outcomes().any(|ending| ending.status == status)).count()
}

#[test]
fn an_array_survives_its_owners_and_each_item_ends_well() {
    for seed in 60..66 {
        let mut world = settled(seed, 7);
        let task = submit(&mut world, 1, "a", array_of(&vec![item(Program::Good, 300); 400], Some(6)));
        for loss in 0..2 {
            world.run_until(world.now + 3_000 + 400 * (seed - 60));
            assert!(!newest(&world, &task).closed(), "it is lost while it leads");
            let owner = owner_of(&world, &task);
            if loss == 0 {
                assert!(world.destroy(owner));
            } else {
                world.die(owner);
            }
            world.run_until(world.now + 14_000);
        }
        world.run_until(world.now + 60_000);
        assert_completed(&world, &task);
        for n in 0..400 {
            let item = task.item(n).expect("a valid name");
            let ended = newest(&world, &item).body.state.closed().map(|closed| closed.outcome.clone());
            assert_eq!(ended, Some(Outcome::Completed), "{item}: {}", world.whereabouts(&item));
        }
        fine(world);
    }
}

#[test]
fn a_minority_begins_no_items() {
    let mut world = settled(66, 5);
    let task = submit(&mut world, 1, "a", array_of(&vec![item(Program::Good, 300); 200], Some(6)));
    world.run_until(world.now + 2_000);
    let owner = owner_of(&world, &task);
    part(&mut world, &[owner]);
    world.run_until(world.now + 1_000);
    let item = |n: usize| task.item(n).expect("a valid name");
    let begun = |world: &World| (0..200).filter(|n| world.hosts[owner].disk.copies.contains_key(&item(*n))).count();
    let before = begun(&world);
    world.run_until(world.now + 12_000);
    assert!(begun(&world) <= before + 6, "no more than were under way: {before} and {}", begun(&world));
    world.mend_network();
    world.run_until(world.now + 90_000);
    assert_completed(&world, &task);
    fine(world);
}

#[test]
fn what_failed_of_an_array_is_tried_again_alone_after_its_owner_was_lost() {
    let mut world = settled(67, 5);
    let items: Vec<_> =
        (0..100).map(|n| item(if n % 10 == 3 { Program::Hopeless } else { Program::Good }, 50)).collect();
    let task = submit(&mut world, 1, "a", array_of(&items, Some(8)));
    world.run_until(world.now + 500);
    let owner = owner_of(&world, &task);
    assert!(world.destroy(owner));
    world.run_until(world.now + 60_000);
    assert_eq!([Status::Completed, Status::Failed].map(|status| ends(&world, &task, 100, status)), [90, 10]);
    let at = world.any_up().expect("one is up");
    let retry = Command::Retry { task: task.clone(), max_retries: None, timeout: None };
    world.ask(at, Request::Command(retry), Asked::Retry);
    world.run_until(world.now + 30_000);
    let again = TaskId::new("a-retry-1").expect("a valid name");
    assert_eq!([Status::Completed, Status::Failed].map(|status| ends(&world, &again, 100, status)), [0, 10]);
    let runs =
        |task: &TaskId, n: usize| world.oracle.runs.get(&task.item(n).expect("a valid name")).map_or(0, Vec::len);
    assert!((0..100).all(|n| (runs(&again, n) == 0) == (n % 10 != 3)), "only those that failed run again");
    fine(world);
}
