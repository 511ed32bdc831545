//! Schedules among the work: each submits a task at every tick for a while.

use crate::agenda::{Event, Time};
use crate::executor::Program;
use crate::oracle::{Asked, Promise};
use crate::scenarios::{fine, owner_of, settled, submit};
use crate::workload::{Act, plain_spec};
use crate::world::{EPOCH, World};
use taskmesh_core::command::Submission;
use taskmesh_core::schedule::{CatchUp, Schedule, Timetable, UTC, tick_time};
use taskmesh_core::task::Priority;
use taskmesh_core::view::Status;
use taskmesh_core::{Command, Request, Spec, TaskId, Unix};

/// What the names of schedules begin with; the seconds between their ticks
/// come next.
const NAME: &str = "every";

impl World {
    /// Plans some schedules, which end by themselves.
    pub(crate) fn plan_schedules(&mut self, from: Time, until: Time) {
        for _ in 0..self.prng.below(3) {
            let at = from + self.prng.below((until - from) / 2);
            self.agenda.at(at, Event::Act(Act::Recur));
        }
    }

    pub(crate) fn submit_schedule(&mut self) {
        let Some(n) = self.any_up() else { return };
        let work = self.number();
        let every = [2, 3, 5, 10][self.prng.below(4) as usize];
        let id = TaskId::new(&format!("{NAME}{every}-{work}")).expect("a valid name");
        let cost = 20 + self.prng.below(2_000);
        // Like any other task, it must come to an end after the mesh is healed.
        let deadline = Some(Unix(EPOCH + self.now + 10_000 + self.prng.below(60_000)));
        let spec = Spec { deadline, ..plain_spec(Program::Good, cost, false) };
        let spec = Schedule::wrap(spec, &pattern(every), UTC, CatchUp::All).expect("its payload is JSON");
        let submission = Submission { task: Some(id.clone()), spec, priority: Priority::NORMAL, items: Vec::new() };
        self.tally.submitted += 1;
        let asked = Asked::Submit { tasks: vec![id], work, local: false };
        self.ask(n, Request::Command(Command::Submit(Box::new(submission))), asked);
    }
}

fn pattern(every: u64) -> String {
    format!("*/{every} * * * * *")
}

/// It is a schedule, which nobody should begin anew without an end.
pub(crate) fn is_schedule(task: &TaskId) -> bool {
    task.as_str().starts_with(NAME) && !task.as_str().contains('/')
}

/// The schedule that a task is a tick of, and the tick.
pub(crate) fn tick_of(task: &TaskId) -> Option<(TaskId, Unix)> {
    let (schedule, _) = task.as_str().rsplit_once('/')?;
    let schedule = TaskId::new(schedule).ok().filter(is_schedule)?;
    Some((schedule, tick_time(task)?))
}

/// The times of a schedule, by its name.
pub(crate) fn timetable(schedule: &TaskId) -> Timetable {
    let every = schedule.as_str().trim_start_matches(NAME).split('-').next().and_then(|n| n.parse().ok());
    Timetable::read(&pattern(every.expect("its name says it")), UTC).expect("a pattern")
}

/// A schedule of a tick each two seconds, for a minute.
fn every_two_seconds(world: &mut World, deadline: Time) -> TaskId {
    let spec = Spec { deadline: Some(Unix(EPOCH + world.now + deadline)), ..plain_spec(Program::Good, 20, false) };
    let spec = Schedule::wrap(spec, &pattern(2), UTC, CatchUp::All).expect("its payload is JSON");
    submit(world, 1, "every2-1", spec)
}

/// The ticks of a schedule whose tasks have completed, in seconds of the world.
fn completed(world: &World, schedule: &TaskId) -> Vec<Time> {
    let completed = |p: &Promise| p.outcomes().any(|ending| ending.status == Status::Completed);
    let ticks = world.oracle.promises.iter().filter(|(_, p)| completed(p)).filter_map(|(t, _)| tick_of(t));
    ticks.filter(|(of, _)| of == schedule).map(|(_, tick)| (tick.0 - EPOCH) / 1_000).collect()
}

fn assert_whole(ticks: &[Time], from: Time, until: Time) {
    let (Some(first), Some(last)) = (ticks.first(), ticks.last()) else { panic!("no tick was fired") };
    assert!(*first <= from && *last >= until, "{first} to {last} instead of {from} to {until}");
    assert_eq!(ticks, (*first..=*last).step_by(2).collect::<Vec<_>>());
}

#[test]
fn no_tick_is_left_out_or_fired_twice_though_its_owner_is_lost_at_that_moment() {
    for early in 0..60 {
        let mut world = settled(300 + early, 5);
        let schedule = every_two_seconds(&mut world, 60_000);
        // From a little before the tick at 26 s to a little after.
        world.run_until(25_995 + early);
        let owner = owner_of(&world, &schedule);
        if !early.is_multiple_of(2) || !world.destroy(owner) {
            world.die(owner);
        }
        world.run_until(45_000);
        assert_ne!(owner_of(&world, &schedule), owner, "another goes on");
        world.run_until(90_000);
        assert_whole(&completed(&world, &schedule), 22, 76);
        fine(world);
    }
}

#[test]
fn ticks_of_a_power_cut_are_made_up_for() {
    let mut world = settled(400, 5);
    let schedule = every_two_seconds(&mut world, 200_000);
    world.run_until(30_000);
    (0..5).for_each(|n| world.die(n));
    world.run_until(130_000);
    (0..5).for_each(|node| world.agenda.at(world.now + 1, Event::Boot { node }));
    world.run_until(170_000);
    assert_whole(&completed(&world, &schedule), 22, 160);
    fine(world);
}

#[test]
fn a_clock_that_is_ahead_on_the_next_owner_or_behind_fires_no_tick_twice() {
    for off in [-30_000, -1_500, 1_500, 30_000] {
        let mut world = settled(410, 5);
        let schedule = every_two_seconds(&mut world, 100_000);
        world.run_until(30_000);
        let owner = owner_of(&world, &schedule);
        (0..5).filter(|n| *n != owner).for_each(|n| world.hosts[n].clock_off = off);
        world.run_until(40_000);
        world.die(owner);
        world.run_until(200_000);
        assert_whole(&completed(&world, &schedule), 22, 60);
        fine(world);
    }
}
