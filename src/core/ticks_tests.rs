//! Schedules on a node alone: what needs no second node to show.

use crate::cache::{Caching, Mode};
use crate::command::{ClearScope, Command, Query, Request, Scope, Submission, TaskFilter};
use crate::effect::{Effect, Entry, Input};
use crate::execution::{Event, Verdict};
use crate::schedule::{CatchUp, SCHEDULE, Schedule, UTC, tick_time};
use crate::task::{Priority, Report, Spec};
use crate::testing::{Solo, solo, spec};
use crate::time::{Millis, Unix};
use crate::view::{Reply, ScheduleView, Status};
use crate::{Config, Refusal, TaskId, limits};
use std::sync::Arc;

/// When a node alone begins: 2023-11-14T22:13:20Z.
const START: u64 = 1_700_000_000_000;

fn id(name: &str) -> TaskId {
    TaskId::new(name).expect("a valid id")
}

fn each_second(catch_up: CatchUp) -> Spec {
    of("* * * * * *", catch_up)
}

fn of(cron: &str, catch_up: CatchUp) -> Spec {
    Schedule::wrap(spec(), cron, UTC, catch_up).expect("a schedule")
}

/// A node, and what it ran.
struct Bench {
    solo: Solo,
    runs: Vec<TaskId>,
}

impl Bench {
    fn new(config: Config) -> Bench {
        Bench { solo: solo(config), runs: Vec::new() }
    }

    /// Runs what is to be run, at once.
    fn see(&mut self, effects: Vec<Effect>) {
        let mut effects = effects;
        while let Some((task, fence)) = effects.iter().find_map(|e| match e {
            Effect::Run { task, fence, .. } => Some((task.clone(), *fence)),
            _ => None,
        }) {
            effects.retain(|e| !matches!(e, Effect::Run { task: t, .. } if *t == task));
            let event = Event::Ended { verdict: Verdict::Completed, report: Report::default() };
            self.runs.push(task.clone());
            effects.extend(self.solo.feed(Input::Execution { task, fence, event }));
        }
    }

    fn submit(&mut self, name: &str, spec: Spec) -> Result<Reply, Refusal> {
        let (effects, reply) = self.solo.submit(name, spec);
        self.see(effects);
        reply.expect("answered at once")
    }

    fn command(&mut self, command: Command) -> Result<Reply, Refusal> {
        let (effects, reply) = self.solo.ask(Request::Command(command));
        self.see(effects);
        reply.expect("answered at once")
    }

    fn wait(&mut self, span: Millis) {
        for _ in 0..span.0 / 100 {
            let effects = self.solo.wait(Millis(100));
            self.see(effects);
        }
    }

    fn clock(&mut self, wall: Unix) {
        let effects = self.solo.feed(Input::Clock(wall));
        self.see(effects);
        self.wait(Millis(1_000));
    }

    /// How late after the start the ticks were that ran, in seconds.
    fn ran(&self) -> Vec<u64> {
        self.runs.iter().map(|t| (tick_time(t).expect("a tick").0 - START) / 1_000).collect()
    }

    fn view(&mut self, name: &str) -> (Status, ScheduleView) {
        let view = self.solo.view(name);
        (view.status, *view.schedule.expect("a schedule"))
    }
}

#[test]
fn each_tick_is_a_task_of_its_own() {
    let mut bench = Bench::new(Config::default());
    bench.submit("s", each_second(CatchUp::None)).expect("accepted");
    assert_eq!(bench.view("s").0, Status::Delayed);
    bench.wait(Millis(3_500));
    assert_eq!(bench.ran(), [1, 2, 3]);
    assert_eq!(bench.runs[0].as_str(), "s/20231114T221321Z");
    let (status, view) = bench.view("s");
    assert_eq!((status, view.fired, view.next), (Status::Delayed, 3, Some(Unix(START + 4_000))));
    assert_eq!(view.last, Some((Unix(START + 3_000), Status::Completed)));
    assert_eq!((&*view.cron, &*view.task_type, view.catch_up), ("* * * * * *", "echo", CatchUp::None));
    assert_eq!(bench.solo.view("s/20231114T221321Z").task_type, "echo".into());
}

#[test]
fn a_tick_takes_the_result_of_an_earlier_one_and_the_schedule_itself_takes_none() {
    let mut bench = Bench::new(Config::default());
    let cache = Some(Caching { mode: Mode::ReadWrite, scope: None });
    let spec = Schedule::wrap(Spec { cache, ..spec() }, "* * * * * *", UTC, CatchUp::None).expect("a schedule");
    bench.submit("s", spec).expect("accepted");
    bench.wait(Millis(3_500));
    assert_eq!(bench.ran(), [1]);
    let (status, view) = bench.view("s");
    assert_eq!((status, view.fired, view.last), (Status::Delayed, 3, Some((Unix(START + 3_000), Status::Completed))));
    let from = bench.solo.view("s/20231114T221323Z").cached_from.expect("a hit");
    assert_eq!(from.source.task.as_str(), "s/20231114T221321Z");
    assert_eq!(bench.solo.view("s").cached_from, None);
}

#[test]
fn a_list_shows_a_schedule_with_its_next_time() {
    let mut bench = Bench::new(Config::default());
    bench.submit("s", of("@hourly", CatchUp::None)).expect("accepted");
    let filter =
        TaskFilter { task_type: Some(SCHEDULE.into()), limit: 10, scope: Scope::Local, ..TaskFilter::default() };
    let (_, reply) = bench.solo.ask(Request::Query(Query::Tasks(Box::new(filter))));
    let Some(Ok(Reply::Tasks(page))) = reply else { panic!("{reply:?}") };
    let next = page.tasks[0].schedule.as_ref().and_then(|s| s.next);
    assert_eq!((page.total, next), (1, Some(Unix(START + 2_800_000))), "23:00");
    let why = bench.solo.view("s").explanation.expect("asked for");
    assert_eq!(&*why.summary, "is a schedule; its next tick is at 2023-11-14T23:00:00Z");
    assert!(why.next.contains("s/20231114T230000Z"), "{}", why.next);
    assert_eq!(why.next_at, next);
}

#[test]
fn a_cancelled_schedule_fires_no_more_and_its_ticks_go_on() {
    let mut bench = Bench::new(Config::default());
    bench.submit("s", each_second(CatchUp::All)).expect("accepted");
    let effects = bench.solo.wait(Millis(1_500));
    let reply = bench.command(Command::Cancel { task: id("s"), reason: None, force: true }).expect("cancelled");
    assert!(matches!(reply, Reply::Cancelled { status: Status::Cancelled, cleanup_required: false, .. }), "{reply:?}");
    bench.see(effects);
    bench.wait(Millis(5_000));
    assert_eq!(bench.ran(), [1], "the one that was under way");
    let (status, view) = bench.view("s");
    assert_eq!((status, view.next, view.fired), (Status::Cancelled, None, 1));
    assert_eq!(bench.solo.view("s/20231114T221321Z").status, Status::Completed);
}

#[test]
fn a_clock_that_jumps_ahead_misses_ticks_and_they_are_caught_up_with_as_asked() {
    for (catch_up, caught) in [(CatchUp::None, vec![]), (CatchUp::One, vec![7_000]), (CatchUp::All, vec![2_800, 6_400])]
    {
        let mut bench = Bench::new(Config::default());
        bench.submit("s", of("0 * * * *", catch_up)).expect("accepted");
        bench.wait(Millis(1_000));
        bench.clock(Unix(START + 7_000_000));
        let caught: Vec<u64> = if catch_up == CatchUp::One { vec![6_400] } else { caught };
        assert_eq!(bench.ran(), caught, "{catch_up:?}");
        let (_, view) = bench.view("s");
        assert_eq!(view.next, Some(Unix(START + 10_000_000)), "{catch_up:?}: the next hour");
    }
}

#[test]
fn a_tick_within_the_grace_is_fired_though_it_is_late() {
    for catch_up in CatchUp::ALL {
        let mut bench = Bench::new(Config::default());
        bench.submit("s", of("*/10 * * * * *", catch_up)).expect("accepted");
        bench.clock(Unix(START + 45_000));
        assert_eq!(bench.ran(), [10, 20, 30, 40], "{catch_up:?}");
    }
}

#[test]
fn a_clock_that_is_set_back_fires_no_tick_twice() {
    let mut bench = Bench::new(Config::default());
    bench.submit("s", each_second(CatchUp::All)).expect("accepted");
    bench.wait(Millis(3_500));
    bench.clock(Unix(START - 10_000));
    bench.wait(Millis(16_000));
    let ran = bench.ran();
    assert_eq!(ran, (1..=ran.len() as u64).collect::<Vec<_>>());
    assert!((6..=8).contains(&ran.len()), "the time that comes again has no ticks: {ran:?}");
}

#[test]
fn a_thousand_missed_ticks_are_made_up_for_and_no_more() {
    let mut bench = Bench::new(Config::default());
    bench.submit("s", each_second(CatchUp::All)).expect("accepted");
    bench.clock(Unix(START + 5_000_500));
    bench.wait(Millis(3_000));
    let ran = bench.ran();
    assert_eq!(ran[0], 5_000 - limits::TICKS as u64 + 1);
    assert_eq!(ran, (ran[0]..ran[0] + ran.len() as u64).collect::<Vec<_>>(), "in order, without a gap");
    assert!(ran.len() > limits::TICKS && ran.len() < limits::TICKS + 10, "and those that came since: {}", ran.len());
}

#[test]
fn a_schedule_ends_with_its_pattern_or_at_its_deadline() {
    let mut bench = Bench::new(Config::default());
    bench.submit("once", of("25 13 22 14 11 * 2023", CatchUp::None)).expect("accepted");
    let until = Spec { deadline: Some(Unix(START + 2_500)), ..each_second(CatchUp::None) };
    bench.submit("until", until).expect("accepted");
    bench.wait(Millis(8_000));
    assert_eq!(bench.ran(), [1, 2, 5]);
    assert_eq!((bench.view("once").0, bench.view("until").0), (Status::Completed, Status::Expired));
    let tick = bench.solo.node.slot(&id("until/20231114T221321Z")).expect("kept").spec.deadline;
    assert_eq!(tick, None, "the deadline is the schedule's own");
}

#[test]
fn the_first_tick_is_not_before_the_time_that_was_said() {
    let mut bench = Bench::new(Config::default());
    let later = Spec { not_before: Some(Unix(START + 3_000)), ..each_second(CatchUp::None) };
    bench.submit("s", later).expect("accepted");
    bench.wait(Millis(4_500));
    assert_eq!(bench.ran(), [3, 4]);
}

#[test]
fn what_can_not_be_scheduled_is_refused_and_leaves_nothing() {
    let mut bench = Bench::new(Config::default());
    let wrap = |spec: Spec, cron: &str, zone: &str| Schedule::wrap(spec, cron, zone, CatchUp::None).expect("JSON");
    let waiting = Spec { depends_on: vec![id("other")], ..spec() };
    let wait = Spec { task_type: "wait".into(), ..spec() };
    let bad_workflow = Spec { task_type: "workflow".into(), ..spec() };
    let twice = of("@daily", CatchUp::None);
    for (field, says, spec) in [
        ("schedule.cron", "five fields", wrap(spec(), "every day", UTC)),
        ("schedule.cron", "never comes", wrap(spec(), "0 0 30 2 *", UTC)),
        ("schedule.timezone", "IANA", wrap(spec(), "@daily", "Berlin")),
        ("schedule", "depends_on", wrap(waiting, "@daily", UTC)),
        ("schedule", "wait can't be scheduled", wrap(wait, "@daily", UTC)),
        ("schedule", "schedule can't be scheduled", wrap(twice, "@daily", UTC)),
        ("schedule", "missing field", Spec { task_type: SCHEDULE.into(), ..spec() }),
        ("steps", "", wrap(bad_workflow, "@daily", UTC)),
    ] {
        let (effects, reply) = bench.solo.submit("s", spec);
        let Some(Err(Refusal::Invalid { field: named, problem })) = &reply else { panic!("{field} {says}: {reply:?}") };
        assert!((**named == *field || field == "steps") && problem.contains(says), "{named}: {problem}");
        assert!(!effects.iter().any(|e| matches!(e, Effect::Persist(_))), "{field}");
    }
    let array = Submission {
        task: Some(id("s")),
        spec: of("@daily", CatchUp::None),
        priority: Priority::NORMAL,
        items: vec![Arc::from(&b"{}"[..])],
    };
    let refused = bench.command(Command::Submit(Box::new(array)));
    assert!(matches!(&refused, Err(Refusal::Invalid { problem, .. }) if problem.contains("for_each")), "{refused:?}");
    let name = "s".repeat(TaskId::MAX_BYTES - 16);
    let refused = bench.submit(&name, of("@daily", CatchUp::None));
    assert!(matches!(&refused, Err(Refusal::Invalid { field, .. }) if **field == *"task_id"), "{refused:?}");
    assert!(bench.submit(&name[1..], of("@daily", CatchUp::None)).is_ok());
}

#[test]
fn the_names_of_coming_ticks_are_taken() {
    let mut bench = Bench::new(Config::default());
    bench.submit("s", of("@hourly", CatchUp::None)).expect("accepted");
    let refused = bench.submit("s/20231114T230000Z", spec());
    assert!(matches!(refused, Err(Refusal::Conflict { .. })), "{refused:?}");
    bench.submit("t/20231114T230000Z", spec()).expect("accepted");
    let refused = bench.submit("t", of("@hourly", CatchUp::None));
    assert!(matches!(refused, Err(Refusal::Conflict { .. })), "{refused:?}");
    let again = bench.submit("s", of("@hourly", CatchUp::None)).expect("the same again");
    assert!(matches!(again, Reply::Submitted(s) if s.replayed));
    let other = bench.submit("s", of("@daily", CatchUp::None));
    assert!(matches!(other, Err(Refusal::Conflict { .. })), "{other:?}");
}

#[test]
fn the_last_tick_stays_as_long_as_its_schedule() {
    let mut bench = Bench::new(Config { retention: Millis(0), ..Config::default() });
    bench.submit("s", of("*/10 * * * * *", CatchUp::None)).expect("accepted");
    bench.wait(Millis(35_000));
    assert_eq!(bench.ran(), [10, 20, 30]);
    let kept: Vec<_> = bench.solo.node.slots().map(|s| s.record.task.to_string()).collect();
    assert_eq!(kept, ["s", "s/20231114T221350Z"]);
    bench.command(Command::Clear { which: ClearScope::NotRunning, scope: Scope::Local }).expect("cleared");
    assert_eq!(bench.view("s").0, Status::Delayed, "a schedule is no work that waits");
    bench.command(Command::Cancel { task: id("s"), reason: None, force: false }).expect("cancelled");
    bench.wait(Millis(2_000));
    assert_eq!(bench.solo.node.slots().count(), 0);
}

#[test]
fn a_full_queue_puts_ticks_off_and_loses_none() {
    let mut bench = Bench::new(Config { open_tasks: 2, ..Config::default() });
    bench.command(Command::Pause { reason: None }).expect("paused");
    bench.submit("s", each_second(CatchUp::All)).expect("accepted");
    bench.wait(Millis(5_000));
    let why = bench.solo.view("s").explanation.expect("asked for");
    assert!(why.summary.contains("the queue of its owner is full"), "{}", why.summary);
    bench.command(Command::Resume { reorder: false }).expect("resumed");
    bench.wait(Millis(2_000));
    assert_eq!(bench.ran(), [1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn a_workflow_is_begun_at_each_tick() {
    let mut bench = Bench::new(Config::default());
    let steps = br#"{"name": "w", "steps": [{"step_id": "a", "action": "echo"}]}"#;
    let workflow = Spec { task_type: "workflow".into(), payload: Arc::from(&steps[..]), ..spec() };
    let spec = Schedule::wrap(workflow, "* * * * * *", UTC, CatchUp::None).expect("a schedule");
    bench.submit("s", spec).expect("accepted");
    bench.wait(Millis(2_500));
    let ran: Vec<_> = bench.runs.iter().map(TaskId::as_str).collect();
    assert_eq!(ran, ["s/20231114T221321Z/a", "s/20231114T221322Z/a"]);
    assert_eq!(bench.view("s").1.last, Some((Unix(START + 2_000), Status::Completed)));
    let refused = bench.command(Command::CancelWorkflow { task: id("s"), reason: None, force: false });
    assert!(matches!(&refused, Err(Refusal::State { needs, .. }) if needs.contains("task_cancel")), "{refused:?}");
}

#[test]
fn the_task_of_a_tick_is_written_before_its_schedule_goes_on() {
    let mut bench = Bench::new(Config::default());
    bench.submit("s", each_second(CatchUp::None)).expect("accepted");
    let effects = bench.solo.wait(Millis(1_500));
    let written = |task: &str| {
        let is =
            |e: &&Effect| matches!(e, Effect::Persist(Entry::Record { record, .. }) if record.task.as_str() == task);
        effects.iter().filter(is).count()
    };
    let at = |task: &str, last: bool| {
        let is =
            |e: &Effect| matches!(e, Effect::Persist(Entry::Record { record, .. }) if record.task.as_str() == task);
        if last { effects.iter().rposition(is) } else { effects.iter().position(is) }
    };
    assert_eq!(written("s"), 2, "it is being fired; on to the next");
    assert!(at("s", false) < at("s/20231114T221321Z", false));
    assert!(at("s/20231114T221321Z", false) < at("s", true));
}
