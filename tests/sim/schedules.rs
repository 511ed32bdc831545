//! Schedules among the work: each submits a task at every tick for a while.

use crate::agenda::{Event, Time};
use crate::executor::Program;
use crate::oracle::Asked;
use crate::workload::{Act, plain_spec};
use crate::world::{EPOCH, World};
use taskmesh_core::command::Submission;
use taskmesh_core::schedule::{CatchUp, Schedule, Timetable, UTC, tick_time};
use taskmesh_core::task::Priority;
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
