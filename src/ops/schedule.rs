//! Schedules, as they are submitted and shown: a part of `task_submit`,
//! `workflow_submit`, `task_status` and `task_list`.

use super::failure::invalid;
use super::value;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use taskmesh_core::schedule::{self, Timetable};
use taskmesh_core::view::{ScheduleView, TaskView};
use taskmesh_core::{Refusal, Spec, limits};

/// Submit at times.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// 5 fields; 6 with seconds first.
    #[schemars(length(max = limits::TEXT_BYTES))]
    #[arg(long, required = false)]
    pub cron: String,
    /// IANA name.
    #[serde(default = "utc")]
    #[schemars(length(max = limits::TEXT_BYTES))]
    #[arg(long, requires = "cron", default_value_t = utc())]
    pub timezone: String,
    /// Of missed ticks.
    #[serde(default)]
    #[arg(long, requires = "cron", value_enum, default_value_t)]
    pub catch_up: CatchUp,
}

fn utc() -> String {
    schedule::UTC.to_owned()
}

/// What becomes of ticks that were missed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum CatchUp {
    /// They are left out.
    #[default]
    None,
    /// The latest is fired.
    One,
    /// Each is fired, the latest 1,000 at most.
    All,
}

impl Schedule {
    /// A record that submits what `spec` says at each tick.
    pub(crate) fn wrap(&self, spec: Spec) -> Result<Spec, Refusal> {
        let refusal = |e: schedule::Invalid| match e.field {
            "schedule" => invalid("schedule", e.problem),
            field => invalid(&format!("schedule.{field}"), e.problem),
        };
        Timetable::read(&self.cron, &self.timezone).map_err(refusal)?;
        let catch_up = match self.catch_up {
            CatchUp::None => schedule::CatchUp::None,
            CatchUp::One => schedule::CatchUp::One,
            CatchUp::All => schedule::CatchUp::All,
        };
        let wrapped = schedule::Schedule::wrap(spec, &self.cron, &self.timezone, catch_up).map_err(refusal)?;
        let (got, limit) = (wrapped.payload.len() as u64, limits::PAYLOAD_BYTES as u64);
        if got > limit {
            return Err(Refusal::TooLarge { field: "payload".into(), got, limit });
        }
        Ok(wrapped)
    }
}

/// When a schedule fires.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Recurrence {
    /// Its pattern.
    pub cron: String,
    /// The zone whose wall time that means.
    pub timezone: String,
    /// Which missed ticks are fired.
    pub catch_up: &'static str,
    /// The executor of each tick.
    pub task_type: String,
    /// Ticks so far.
    pub ticks: u32,
    /// When the latest was.
    pub last_tick: Option<String>,
    /// Its task.
    pub last_task_id: Option<String>,
    /// And how that is.
    pub last_status: Option<&'static str>,
    /// When the next is; null: the schedule has ended.
    pub next_tick: Option<String>,
}

/// What is shown of a schedule; nothing of another task.
pub(crate) fn recurrence(task: &TaskView) -> Option<Recurrence> {
    let ScheduleView { cron, timezone, catch_up, task_type, fired, last, next } = task.schedule.as_deref()?;
    let last_task = last.and_then(|(at, _)| schedule::tick_id(&task.task, at));
    Some(Recurrence {
        cron: cron.to_string(),
        timezone: timezone.to_string(),
        catch_up: catch_up.name(),
        task_type: task_type.to_string(),
        ticks: *fired,
        last_tick: last.map(|(at, _)| value::time(at)),
        last_task_id: last_task.map(|id| id.to_string()),
        last_status: last.map(|(_, status)| status.name()),
        next_tick: next.map(value::time),
    })
}

#[cfg(test)]
mod tests {
    use crate::ops::submit::TaskSubmit;
    use crate::ops::workflow::WorkflowSubmit;
    use crate::ops::{Op, samples};
    use clap::{Args as _, FromArgMatches as _};
    use serde_json::{Value, json};
    use taskmesh_core::view::{ScheduleView, Status};
    use taskmesh_core::{Command, Refusal, Request, Spec, Unix};

    fn spec(request: Result<Request, Refusal>) -> Spec {
        match request {
            Ok(Request::Command(Command::Submit(submission))) => submission.spec,
            other => panic!("no submission: {other:?}"),
        }
    }

    fn from_line(line: &str) -> Result<TaskSubmit, clap::Error> {
        let command = TaskSubmit::augment_args(clap::Command::new("submit").no_binary_name(true));
        TaskSubmit::from_arg_matches(&command.try_get_matches_from(line.split(' '))?)
    }

    #[test]
    fn flags_make_a_schedule_and_their_absence_makes_none() {
        let plain = from_line("echo").expect("a task");
        assert!(plain.schedule.is_none() && !spec(plain.request()).is_schedule());
        let given = from_line("echo {\"a\":1} --cron @daily").expect("a schedule").schedule.expect("a schedule");
        assert_eq!((&*given.cron, &*given.timezone), ("@daily", "UTC"));
        let given = from_line("echo --cron @daily --timezone Asia/Tokyo --catch-up all").expect("a schedule");
        let stored: Value = serde_json::from_slice(&spec(given.request()).payload).expect("JSON");
        let expected = json!({"cron": "@daily", "timezone": "Asia/Tokyo", "catch_up": "all", "task_type": "echo",
            "payload": {}});
        assert_eq!(stored, expected);
        assert!(from_line("echo --catch-up all").is_err(), "without a pattern");
    }

    fn workflow(schedule: Value) -> Result<Request, Refusal> {
        let steps = json!([{"step_id": "a", "action": "echo"}]);
        let op = serde_json::from_value::<WorkflowSubmit>(json!({"name": "w", "steps": steps, "schedule": schedule}));
        op.expect("its fields are known").request()
    }

    #[test]
    fn a_workflow_is_scheduled_as_a_task_is() {
        let spec = spec(workflow(json!({"cron": "0 4 * * *"})));
        assert!(spec.is_schedule() && spec.work().is_workflow());
        for (field, schedule) in [
            ("schedule.cron", json!({})),
            ("schedule.cron", json!({"cron": "nonsense"})),
            ("schedule.timezone", json!({"cron": "@daily", "timezone": "Mars"})),
            ("schedule.catch_up", json!({"cron": "@daily", "catch_up": "some"})),
            ("schedule.corn", json!({"cron": "@daily", "corn": 1})),
        ] {
            let refused = workflow(schedule.clone());
            let Err(Refusal::Invalid { field: named, .. }) = &refused else { panic!("{schedule}: {refused:?}") };
            assert_eq!(**named, *field, "{refused:?}");
        }
    }

    #[test]
    fn what_is_shown_names_the_last_tick_and_the_next() {
        let mut view = samples::task_view(Status::Delayed);
        assert!(super::recurrence(&view).is_none());
        view.schedule = Some(Box::new(ScheduleView {
            cron: "@hourly".into(),
            timezone: "UTC".into(),
            catch_up: taskmesh_core::schedule::CatchUp::One,
            task_type: "echo".into(),
            fired: 7,
            last: Some((Unix(3_600_000), Status::Running)),
            next: Some(Unix(7_200_000)),
        }));
        let shown = serde_json::to_value(super::recurrence(&view)).expect("JSON");
        let expected = json!({"cron": "@hourly", "timezone": "UTC", "catch_up": "one", "task_type": "echo", "ticks": 7,
            "last_tick": "1970-01-01T01:00:00.000Z", "last_task_id": "t/19700101T010000Z", "last_status": "running",
            "next_tick": "1970-01-01T02:00:00.000Z"});
        assert_eq!(shown, expected);
    }
}
