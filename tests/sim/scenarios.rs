//! Named stories: one thing goes wrong, in a mesh that is otherwise fine.

use crate::executor::Program;
use crate::faults::Plan;
use crate::flows::workflow_spec;
use crate::link::{Cut, Weather};
use crate::oracle::{Asked, MustKnow};
use crate::run::Outcome;
use crate::workload::plain_spec;
use crate::world::{Doom, Fate, World, index};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use taskmesh_core::command::{ClearScope, Detail, Scope, Submission, WorkerSpec};
use taskmesh_core::task::{Durability, Priority, Requirements, Resources};
use taskmesh_core::view::Status;
use taskmesh_core::workflow::{Definition, Step};
use taskmesh_core::{Command, Millis, NodeId, Query, Record, Refusal, Reply, Request, Spec, TaskId, WorkerId};

#[test]
fn a_lost_owner_is_replaced_and_its_task_finishes() {
    let mut world = settled(1, 5);
    let task = give(&mut world, 1, "a", 4_000);
    world.run_until(world.now + 1_000);
    let owner = owner_of(&world, &task);
    assert!(world.destroy(owner));
    world.run_until(world.now + 5_000 + 4_000 + 9_000);
    assert_completed(&world, &task);
    fine(world);
}

#[test]
fn a_lost_executor_is_replaced_within_the_lease_and_a_little() {
    let mut world = settled(2, 5);
    let task = give(&mut world, 1, "a", 60_000);
    world.run_until(world.now + 1_000);
    let first = world.oracle.runs[&task][0].node;
    let lost_at = world.now;
    world.die(first);
    world.run_until(lost_at + 15_000);
    let again = world.oracle.runs[&task].iter().find(|r| r.from > lost_at).expect("it runs again");
    assert!(again.from - lost_at < 12_000, "again after {} ms", again.from - lost_at);
    assert_ne!(again.node, first);
    fine(world);
}

#[test]
fn holders_lost_for_ever_one_after_the_other_are_replaced() {
    let mut world = settled(3, 7);
    let tasks: Vec<_> = (0..20).map(|i| give(&mut world, i % 7, &format!("a{i}"), 300)).collect();
    world.run_until(world.now + 5_000);
    for _ in 0..3 {
        let holder = index(newest(&world, &tasks[0]).holders[1]);
        assert!(world.destroy(holder), "{tasks:?} would outlive it");
        world.run_until(world.now + 60_000);
        assert!(!newest(&world, &tasks[0]).kept_by(NodeId::test(holder as u64)), "n{holder} is replaced");
    }
    tasks.iter().for_each(|task| assert_completed(&world, task));
    fine(world);
}

#[test]
fn a_minority_grants_nothing_new() {
    let mut world = settled(4, 5);
    world.ask(0, Request::Command(Command::Pause { reason: None }), Asked::Other);
    world.run_until(world.now + 3_000);
    let tasks: Vec<_> = (0..30).map(|i| give(&mut world, i % 5, &format!("a{i}"), 100)).collect();
    world.run_until(world.now + 3_000);
    part(&mut world, &[0, 1]);
    world.run_until(world.now + 10_000);
    let cut = world.now;
    for n in [0, 4] {
        world.ask(n, Request::Command(Command::Resume { reorder: false }), Asked::Other);
    }
    world.run_until(cut + 30_000);
    let (minority, majority) = (granted_by(&world, &[0, 1], cut), granted_by(&world, &[2, 3, 4], cut));
    for (task, owner) in minority {
        let holders = &newest_on(&world, owner, &task).holders;
        let near = holders.iter().filter(|h| index(**h) < 2).count();
        assert!(near * 2 > holders.len(), "n{owner} granted {task}, held by {holders:?}");
    }
    assert!(!majority.is_empty(), "the majority goes on");
    world.mend_network();
    world.run_until(world.now + 60_000);
    tasks.iter().for_each(|task| assert_completed(&world, task));
    fine(world);
}

#[test]
fn everything_is_there_after_a_restart_of_the_whole_mesh() {
    let mut world = settled(5, 5);
    let tasks: Vec<_> = (0..40).map(|i| give(&mut world, i % 5, &format!("a{i}"), 2_000)).collect();
    world.run_until(world.now + 2_000);
    assert!(tasks.iter().all(|t| world.oracle.promises[t].accepted.is_some()));
    for n in 0..5 {
        world.doom(n, Doom::WhileWriting);
    }
    world.run_until(world.now + 10_000);
    assert!(world.hosts.iter().all(|h| h.fate == Fate::Down));
    for node in 0..5 {
        world.agenda.at(world.now + 1 + node as u64 * 700, crate::agenda::Event::Boot { node });
    }
    world.run_until(world.now + 60_000);
    tasks.iter().for_each(|task| assert_completed(&world, task));
    fine(world);
}

#[test]
fn records_of_the_first_node_are_rehomed_as_the_mesh_grows() {
    let mut world = World::new(&Plan::calm(6, 5));
    world.agenda.at(0, crate::agenda::Event::Boot { node: 0 });
    world.run_until(3_000);
    let tasks: Vec<_> = (0..10).map(|i| give(&mut world, 0, &format!("a{i}"), 100)).collect();
    world.run_until(10_000);
    tasks.iter().for_each(|task| assert_completed(&world, task));
    assert!(tasks.iter().all(|t| newest(&world, t).holders.len() == 1));
    for node in 1..5 {
        world.agenda.at(world.now + 2_000 * node as u64, crate::agenda::Event::Boot { node });
    }
    world.run_until(world.now + 40_000);
    assert!(tasks.iter().all(|t| newest(&world, t).holders.len() == 3), "each has three holders");
    assert!(world.destroy(0), "so that the first may go");
    fine(world);
}

#[test]
fn long_tasks_after_many_short_ones_wait_for_no_worker_while_another_is_free() {
    let mut world = settled(8, 3);
    (0..3).for_each(|n| equip(&mut world, n, 1, None));
    let short: Vec<_> = (0..300).map(|i| give(&mut world, i % 3, &format!("short{i}"), 1)).collect();
    world.run_until(world.now + 5_000);
    short.iter().for_each(|task| assert_completed(&world, task));
    let long: Vec<_> = (0..3).map(|i| give(&mut world, 0, &format!("long{i}"), 30_000)).collect();
    let given = world.now;
    world.run_until(given + 10_000);
    let waits = long.iter().filter(|task| world.oracle.runs.get(*task).is_none_or(Vec::is_empty));
    assert_eq!(waits.count(), 0, "of as many as there are slots");
    world.run_until(given + 50_000);
    long.iter().for_each(|task| assert_completed(&world, task));
    fine(world);
}

#[test]
fn tasks_of_many_owners_that_want_one_gpu_have_it_one_after_the_other() {
    let mut world = settled(9, 3);
    let gpu = Resources { gpu_milli: 1_000, ..Resources::default() };
    for n in 0..3 {
        let has = if n == 2 { gpu.clone() } else { Resources::default() };
        equip(&mut world, n, 4, Some(has));
    }
    world.run_until(world.now + 2_000);
    let requirements = Requirements { resources: gpu, ..Requirements::default() };
    let spec = Spec { requirements, ..plain_spec(Program::Good, 10_000, false) };
    let tasks: Vec<_> = (0..6).map(|i| submit(&mut world, i % 3, &format!("a{i}"), spec.clone())).collect();
    world.run_until(world.now + 1_000);
    let owners: BTreeSet<_> = tasks.iter().map(|task| owner_of(&world, task)).collect();
    assert!(owners.len() > 1, "so that no owner knows all that holds the gpu");
    world.run_until(world.now + 6 * 10_000 + 40_000);
    for task in &tasks {
        assert_completed(&world, task);
        let grants = newest(&world, task).body.attempt;
        assert!(grants < 40, "{task} was granted {grants} times");
    }
    fine(world);
}

#[test]
fn a_drained_node_hands_its_work_over_at_once() {
    let mut world = settled(7, 5);
    let tasks: Vec<_> = (0..30).map(|i| give(&mut world, 1, &format!("a{i}"), 3_000)).collect();
    world.run_until(world.now + 1_000);
    let drained = world.now;
    world.drain(1);
    world.run_until(drained + 40_000);
    let late = world.oracle.runs.values().flatten().filter(|r| r.node == 1 && r.from > drained + 100);
    assert_eq!(late.count(), 0, "a draining node starts nothing");
    tasks.iter().for_each(|task| assert_completed(&world, task));
    fine(world);
}

#[test]
fn an_exclusive_task_survives_its_owner_without_a_second_run() {
    for seed in 0..20 {
        let mut world = settled(100 + seed, 5);
        let spec = Spec { exclusive: true, ..plain_spec(Program::Good, 15_000, false) };
        let task = submit(&mut world, 1, "a", spec);
        world.run_until(world.now + 1_000 + seed);
        let owner = owner_of(&world, &task);
        let executor = world.oracle.runs[&task][0].node;
        if owner == executor {
            continue;
        }
        world.doom(owner, Doom::WhileSpeaking);
        world.run_until(world.now + 40_000);
        assert_eq!(world.oracle.runs[&task].len(), 1, "one run is enough");
        assert_completed(&world, &task);
        fine(world);
    }
}

#[test]
fn a_grant_of_an_owner_to_itself_is_not_lost_while_it_waits_for_a_majority() {
    let mut world = settled(120, 3);
    let exclusive = Spec { exclusive: true, ..plain_spec(Program::Good, 50, false) };
    let mut tasks = Vec::new();
    for n in 0..300 {
        tasks.push(submit(&mut world, n % 3, &format!("a{n}"), exclusive.clone()));
        // At every time between two ticks.
        world.run_until(world.now + 37);
    }
    world.run_until(world.now + 30_000);
    assert_eq!(world.tally.leases_lost, 0, "nothing is wrong with any node");
    for task in tasks {
        assert_eq!(newest(&world, &task).body.crashes, 0, "{task}");
        assert_completed(&world, &task);
    }
    fine(world);
}

#[test]
fn a_pause_reaches_nodes_that_were_away_and_new_ones() {
    let mut world = World::new(&Plan::calm(8, 5));
    for node in 0..4 {
        world.agenda.at(100 * node as u64, crate::agenda::Event::Boot { node });
    }
    world.run_until(10_000);
    world.die(2);
    world.run_until(11_000);
    world.ask(0, Request::Command(Command::Pause { reason: Some("test".into()) }), Asked::Other);
    world.run_until(13_000);
    for node in [2, 4] {
        world.agenda.at(14_000, crate::agenda::Event::Boot { node });
    }
    world.run_until(25_000);
    assert!(world.hosts.iter().all(|h| h.disk.controls.paused.is_some()), "all know of the pause");
    let tasks: Vec<_> = (0..5).map(|n| give(&mut world, n, &format!("a{n}"), 100)).collect();
    world.run_until(40_000);
    assert!(world.oracle.runs.is_empty(), "nothing starts");
    world.ask(4, Request::Command(Command::Resume { reorder: true }), Asked::Other);
    world.run_until(60_000);
    tasks.iter().for_each(|task| assert_completed(&world, task));
    fine(world);
}

#[test]
fn one_id_at_two_nodes_is_one_task() {
    for seed in 0..30 {
        let mut world = settled(200 + seed, 6);
        for i in 0..10 {
            let name = format!("a{i}");
            let (one, two) = (i % 6, (i + 1 + seed as usize) % 6);
            submit(&mut world, one, &name, plain_spec(Program::Good, 100, false));
            submit(&mut world, two, &name, plain_spec(Program::Good, 200 + i as u64 % 2, false));
        }
        world.run_until(world.now + 20_000);
        for (task, promise) in &world.oracle.promises {
            assert!(promise.works.len() <= 1, "seed {seed}: {task} was accepted as {:?}", promise.works);
            assert!(promise.fresh <= 1, "seed {seed}: {task} was accepted {} times", promise.fresh);
        }
        fine(world);
    }
}

#[test]
fn a_copy_from_the_past_brings_nothing_back() {
    let mut world = settled(9, 5);
    world.faults.short_retention = true;
    for host in &mut world.hosts {
        host.config.retention = Millis(15_000);
    }
    for n in 0..5 {
        world.die(n);
        world.agenda.at(world.now + 1, crate::agenda::Event::Boot { node: n });
    }
    world.run_until(world.now + 15_000);
    let task = give(&mut world, 0, "a", 3_000);
    world.run_until(world.now + 1_500);
    let holder = newest(&world, &task).holders.iter().map(|h| index(*h)).find(|n| *n != owner_of(&world, &task));
    let holder = holder.expect("another holder");
    world.die(holder);
    world.run_until(world.now + 90_000);
    assert_completed(&world, &task);
    let runs = world.oracle.runs[&task].len();
    world.agenda.at(world.now, crate::agenda::Event::Boot { node: holder });
    world.run_until(world.now + 60_000);
    assert_eq!(world.oracle.runs[&task].len(), runs, "it does not run again");
    fine(world);
}

#[test]
fn a_damaged_copy_is_repaired_from_the_holders() {
    let mut world = settled(10, 5);
    let tasks: Vec<_> = (0..10).map(|i| give(&mut world, i % 5, &format!("a{i}"), 100)).collect();
    world.run_until(world.now + 10_000);
    let victim = index(newest(&world, &tasks[0]).holders[0]);
    world.die(victim);
    world.hosts[victim].disk.damage(&tasks[0]);
    world.agenda.at(world.now + 1_000, crate::agenda::Event::Boot { node: victim });
    world.run_until(world.now + 60_000);
    let record = newest(&world, &tasks[0]);
    let whole = record.holders.iter().filter(|h| world.hosts[index(**h)].disk.copies.contains_key(&tasks[0]));
    assert_eq!(whole.count(), 3, "three whole copies again");
    fine(world);
}

#[test]
fn clearing_cancels_what_waits_and_leaves_what_runs() {
    let mut world = settled(11, 4);
    let tasks: Vec<_> = (0..60).map(|i| give(&mut world, i % 4, &format!("a{i}"), 8_000)).collect();
    world.run_until(world.now + 4_000);
    let running = world.hosts.iter().map(|h| h.runs.len()).sum::<usize>();
    let clear = Command::Clear { which: ClearScope::Queued, scope: Scope::Mesh };
    world.ask(2, Request::Command(clear), Asked::Other);
    world.run_until(world.now + 30_000);
    let ended = |status| tasks.iter().filter(|t| world.oracle.promises[*t].decided[0].1.status == status).count();
    assert_eq!(ended(Status::Completed) + ended(Status::Cancelled), 60);
    assert!(ended(Status::Completed) >= running, "{} completed, {running} ran", ended(Status::Completed));
    assert!(ended(Status::Cancelled) > 0);
    fine(world);
}

#[test]
fn a_cancel_at_any_node_ends_a_task_wherever_it_is() {
    let mut world = settled(12, 5);
    let tasks: Vec<_> = (0..40).map(|i| give(&mut world, i % 5, &format!("a{i}"), 20_000)).collect();
    world.run_until(world.now + 4_000);
    for (i, task) in tasks.iter().enumerate() {
        let cancel = Command::Cancel { task: task.clone(), reason: None, force: i % 2 == 0 };
        world.ask((i + 2) % 5, Request::Command(cancel), Asked::Other);
    }
    world.run_until(world.now + 10_000);
    for task in &tasks {
        let decided = &world.oracle.promises[task].decided;
        assert_eq!(decided.first().map(|(_, e)| e.status), Some(Status::Cancelled), "{task}");
    }
    assert!(world.hosts.iter().all(|h| h.runs.is_empty()), "no program is left behind");
    fine(world);
}

#[test]
fn a_node_that_lost_its_copy_does_not_take_the_task_anew() {
    let mut world = settled(13, 5);
    let task = TaskId::new("a").expect("a valid name");
    let spec = plain_spec(Program::Good, 100, false);
    let submission = Submission { task: Some(task.clone()), spec, priority: Priority::NORMAL, items: Vec::new() };
    world.submit(1, submission.clone(), 1);
    world.run_until(world.now + 5_000);
    let home = owner_of(&world, &task);
    let before = newest(&world, &task).birth;
    world.die(home);
    world.hosts[home].disk.damage(&task);
    world.agenda.at(world.now + 1, crate::agenda::Event::Boot { node: home });
    world.run_until(world.now + 2_000);
    for n in 0..5 {
        world.submit(n, submission.clone(), 1);
    }
    world.run_until(world.now + 20_000);
    let births: Vec<_> = world.hosts.iter().filter_map(|h| h.disk.copies.get(&task)).map(|c| c.record.birth).collect();
    assert!(births.iter().all(|birth| *birth == before), "{}", world.whereabouts(&task));
    fine(world);
}

#[test]
fn an_ended_task_is_counted_by_one_node_when_its_owner_comes_back() {
    let mut world = settled(14, 5);
    let tasks: Vec<_> = (0..20).map(|i| give(&mut world, i % 5, &format!("a{i}"), 100)).collect();
    world.run_until(world.now + 10_000);
    let owner = owner_of(&world, &tasks[0]);
    world.die(owner);
    world.run_until(world.now + 20_000);
    world.agenda.at(world.now + 1, crate::agenda::Event::Boot { node: owner });
    for _ in 0..3_000 {
        world.run_until(world.now + 1);
        let counts = world.hosts.iter().filter_map(|h| h.node.as_ref()).map(|n| n.stats().counts);
        let completed: u64 = counts.filter_map(|c| c.get(&Status::Completed).copied()).sum();
        assert!(completed <= 20, "{completed} of 20 completed");
    }
    fine(world);
}

#[test]
fn a_change_of_holders_under_way_when_the_queue_is_cleared_is_finished() {
    let mut world = settled(15, 5);
    world.faults.clears = true;
    let spec = plain_spec(Program::Bad, 100, false);
    let task = submit(&mut world, 0, "a", spec);
    world.run_until(world.now + 20_000);
    let owner = owner_of(&world, &task);
    let gone = index(*newest(&world, &task).holders.iter().find(|h| index(**h) != owner).expect("another holder"));
    assert!(world.destroy(gone));
    world.run_until(world.now + 100);
    let clear = Command::Clear { which: ClearScope::Failed, scope: Scope::Mesh };
    world.ask(owner, Request::Command(clear), Asked::Other);
    world.run_until(world.now + 60_000);
    assert!(world.hosts.iter().all(|h| !h.disk.copies.contains_key(&task)), "{}", world.whereabouts(&task));
    fine(world);
}

#[test]
fn holders_that_were_gone_before_a_task_was_offered_are_chosen_anew() {
    let mut world = settled(16, 6);
    let (alone, gone) = (0, [1, 2, 3]);
    part(&mut world, &[alone]);
    world.run_until(world.now + 15_000);
    gone.iter().for_each(|n| assert!(world.destroy(*n)));
    let spec = Spec { durability: Durability::Local, ..plain_spec(Program::Good, 100, false) };
    let tasks: Vec<_> = (0..20).map(|i| submit(&mut world, alone, &format!("a{i}"), spec.clone())).collect();
    world.run_until(world.now + 5_000);
    world.mend_network();
    world.run_until(world.now + 60_000);
    tasks.iter().for_each(|task| assert_completed(&world, task));
}

#[test]
fn a_workflow_whose_owners_die_one_after_the_other_ends_with_every_result() {
    let mut world = settled(18, 7);
    let workflow = weave(&mut world, 1, "w", &chain(12));
    for _ in 0..3 {
        world.run_until(world.now + 2_000);
        let owner = owner_of(&world, &workflow);
        world.doom(owner, Doom::WhileSpeaking);
        world.run_until(world.now + 1_000);
        world.agenda.at(world.now + 9_000, crate::agenda::Event::Boot { node: owner });
    }
    world.run_until(world.now + 60_000);
    assert_completed(&world, &workflow);
    fine(world);
}

#[test]
fn whoever_keeps_a_workflow_alone_has_its_steps() {
    for seed in 20..24 {
        let mut world = World::new(&Plan::calm(seed, 5));
        world.agenda.at(0, crate::agenda::Event::Boot { node: 0 });
        world.run_until(3_000);
        let mut definition = chain(6);
        definition.steps.push(Step { inputs: json!({"seconds": 60}), ..Step::new("pause", "wait") });
        let workflow = weave(&mut world, 0, "w", &definition);
        world.run_until(10_000);
        let steps: Vec<_> = (0..6).map(|n| TaskId::new(&format!("w/s{n}")).expect("a valid name")).collect();
        assert!(steps.iter().all(|step| newest(&world, step).closed()), "all are over on the first node");
        world.net.weather = Weather { loss: 400, ..Weather::FAIR };
        for node in 1..5 {
            world.agenda.at(world.now + 500 * node as u64, crate::agenda::Event::Boot { node });
        }
        for _ in 0..1_500 {
            world.run_until(world.now + 10);
            let record = newest(&world, &workflow);
            let has = |n: &&NodeId, step: &TaskId| world.hosts[index(**n)].disk.copies.contains_key(step);
            let known = |step: &&TaskId| {
                let there = record.holders.iter().filter(|n| has(n, step)).count();
                !record.prior.is_empty() || there * 2 > record.holders.len()
            };
            let lost = steps.iter().find(|step| !known(step));
            assert_eq!(lost, None, "seed {seed}: {:?} decide alone at {}", record.holders, world.now);
        }
        assert_eq!(newest(&world, &workflow).holders.len(), 3);
        world.net.weather = Weather::FAIR;
        world.run_until(world.now + 60_000);
        assert_completed(&world, &workflow);
        fine(world);
    }
}

/// A mesh of `nodes` that know each other.
pub(crate) fn settled(seed: u64, nodes: usize) -> World {
    let mut world = World::new(&Plan::calm(seed, nodes));
    world.raise();
    world.run_until(20_000);
    world
}

/// Describes a node's worker anew.
fn equip(world: &mut World, n: usize, slots: u32, resources: Option<Resources>) {
    let spec = WorkerSpec {
        worker: WorkerId::new(&format!("w{n}")).expect("a valid name"),
        capabilities: vec!["echo".into()],
        labels: BTreeMap::new(),
        slots,
        resources,
        metadata: None,
    };
    world.ask(n, Request::Command(Command::Register(spec)), Asked::Other);
}

fn give(world: &mut World, n: usize, name: &str, cost: u64) -> TaskId {
    submit(world, n, name, plain_spec(Program::Good, cost, false))
}

pub(crate) fn submit(world: &mut World, n: usize, name: &str, spec: Spec) -> TaskId {
    let task = TaskId::new(name).expect("a valid name");
    let work = world.number();
    let submission = Submission { task: Some(task.clone()), spec, priority: Priority::NORMAL, items: Vec::new() };
    world.submit(n, submission, work);
    task
}

fn weave(world: &mut World, n: usize, name: &str, definition: &Definition) -> TaskId {
    submit(world, n, name, workflow_spec(definition))
}

/// Steps of half a second, each handed what the one before left.
pub(crate) fn chain(steps: usize) -> Definition {
    let step = |n: usize| {
        let mut step = Step::new(&format!("s{n}"), "echo");
        step.inputs = json!({"program": "good", "cost": 500, "leaves": "inline"});
        if let Some(before) = n.checked_sub(1) {
            step.inputs["of"] = json!(format!("${{steps.s{before}.result.n}}"));
            step.depends_on = vec![format!("s{before}")];
        }
        step
    };
    Definition { name: "chain".to_owned(), steps: (0..steps).map(step).collect(), ..Definition::default() }
}

pub(crate) fn part(world: &mut World, minority: &[usize]) {
    world.net.side.iter_mut().for_each(|side| *side = 1);
    minority.iter().for_each(|n| world.net.side[*n] = 0);
    world.net.cut = Cut::BothWays;
    world.strain_connections();
}

pub(crate) fn newest<'a>(world: &'a World, task: &TaskId) -> &'a Record {
    let copies = world.hosts.iter().filter_map(|h| h.disk.copies.get(task));
    copies.map(|c| &c.record).max_by_key(|r| r.stamp).expect("somebody has it")
}

fn newest_on<'a>(world: &'a World, n: usize, task: &TaskId) -> &'a Record {
    &world.hosts[n].disk.copies[task].record
}

pub(crate) fn owner_of(world: &World, task: &TaskId) -> usize {
    index(newest(world, task).owner())
}

/// Runs that began after `since` by the grants of `owners`.
fn granted_by(world: &World, owners: &[usize], since: u64) -> Vec<(TaskId, usize)> {
    let runs = world.oracle.runs.iter().flat_map(|(task, runs)| runs.iter().map(move |run| (task, run)));
    let granted = runs.filter(|(_, r)| r.from > since).map(|(task, r)| (task.clone(), index(r.fence.ballot.owner)));
    granted.filter(|(_, owner)| owners.contains(owner)).collect()
}

pub(crate) fn assert_completed(world: &World, task: &TaskId) {
    let promise = &world.oracle.promises[task];
    assert!(promise.accepted.is_some(), "{task} was not accepted");
    let ended = promise.decided.first().map(|(_, ending)| ending.status);
    assert_eq!(ended, Some(Status::Completed), "{task}: {}", world.whereabouts(task));
}

/// Nothing is wrong with it, now or after its end.
pub(crate) fn fine(mut world: World) {
    let known: Vec<_> = world.oracle.promises.keys().cloned().collect();
    for task in known {
        let detail = Detail { report: true, live: true, explain: true, ..Detail::default() };
        let query = Query::Task { task: task.clone(), detail, wait: Millis(0) };
        if let Some(n) = world.any_up() {
            world.ask(n, Request::Query(query), Asked::View { task, must_know: MustKnow::No });
        }
    }
    let outcome: Outcome = world.finish();
    assert!(outcome.violations.is_empty(), "{:#?}", outcome.violations);
}

#[test]
fn a_workflow_cancelled_at_any_node_that_is_a_plain_task_is_not_found() {
    let mut world = settled(17, 5);
    let task = give(&mut world, 1, "a", 60_000);
    world.run_until(world.now + 2_000);
    for n in 0..5 {
        let cancel = Command::CancelWorkflow { task: task.clone(), reason: None, force: false };
        world.ask(n, Request::Command(cancel), Asked::Kept);
    }
    world.run_until(world.now + 10_000);
    let not_found = |answer: &Result<Reply, Refusal>| matches!(answer, Err(Refusal::NotFound { .. }));
    assert_eq!(world.oracle.answers.len(), 5);
    assert!(world.oracle.answers.iter().all(not_found), "{:?}", world.oracle.answers);
    assert!(world.oracle.promises[&task].decided.is_empty(), "it goes on");
    fine(world);
}
