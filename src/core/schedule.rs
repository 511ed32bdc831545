//! When recurring work is due: cron patterns in a time zone, and what becomes of
//! the times at which nobody could look.
//!
//! A schedule is a task whose program is its owner, as a workflow is: one record
//! under the same rules, with what it is to submit as its payload. At each
//! **tick**, a time that its pattern matches, a task is born beside it
//! (`<schedule>/<tick>`); how, is in `ticks`. Here is only what follows from
//! the pattern and the time that is given.

use crate::array::ARRAY;
use crate::ids::TaskId;
use crate::limits;
use crate::task::Spec;
use crate::time::Unix;
use crate::workflow::{BUILT_IN, WORKFLOW};
use chrono::{DateTime, NaiveDateTime, TimeZone};
use chrono_tz::Tz;
use croner::Cron;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The type of the record of a schedule.
pub const SCHEDULE: &str = "schedule";

/// The zone of a pattern without one.
pub const UTC: &str = "UTC";

/// A schedule, as it is stored: the payload of its record. What each tick needs
/// beside type and payload is in the record's own spec.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Five fields, six with seconds in front, seven with a year behind.
    pub cron: String,
    /// An IANA name: the pattern means the wall time there.
    pub timezone: String,
    /// What becomes of ticks that were missed.
    pub catch_up: CatchUp,
    /// The type of the task of each tick.
    pub task_type: String,
    /// Its payload.
    pub payload: Value,
}

/// What becomes of ticks that nobody could fire within [`limits::TICK_GRACE`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CatchUp {
    /// They are left out.
    #[default]
    None,
    /// The latest is fired.
    One,
    /// Each is fired, the latest [`limits::TICKS`] at most.
    All,
}

impl CatchUp {
    /// Every one.
    pub const ALL: [CatchUp; 3] = [CatchUp::None, CatchUp::One, CatchUp::All];

    /// Its name on every face.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            CatchUp::None => "none",
            CatchUp::One => "one",
            CatchUp::All => "all",
        }
    }

    /// The one with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<CatchUp> {
        CatchUp::ALL.into_iter().find(|c| c.name() == name)
    }
}

/// What is wrong with a schedule, and in which of its fields.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct Invalid {
    /// `cron` or `timezone`, or `schedule` as a whole.
    pub field: &'static str,
    /// With what would be right.
    pub problem: String,
}

impl Schedule {
    /// The spec of a record that does at each tick what `spec` says.
    ///
    /// # Errors
    /// A payload that is no JSON.
    pub fn wrap(spec: Spec, cron: &str, timezone: &str, catch_up: CatchUp) -> Result<Spec, Invalid> {
        let invalid = |problem: String| Invalid { field: "schedule", problem };
        let payload = serde_json::from_slice(&spec.payload).map_err(|e| invalid(format!("its payload: {e}")))?;
        let (cron, timezone, task_type) = (cron.to_owned(), timezone.to_owned(), spec.task_type.to_string());
        let schedule = Schedule { cron, timezone, catch_up, task_type, payload };
        let payload = serde_json::to_vec(&schedule).map_err(|e| invalid(e.to_string()))?;
        Ok(Spec { task_type: SCHEDULE.into(), payload: payload.into(), ..spec })
    }

    /// Reads the payload of a schedule's record.
    ///
    /// # Errors
    /// It is none.
    pub fn read(payload: &[u8]) -> Result<Schedule, Invalid> {
        serde_json::from_slice(payload).map_err(|e| Invalid { field: "schedule", problem: e.to_string() })
    }

    /// Its times.
    ///
    /// # Errors
    /// The pattern or the zone is none.
    pub fn timetable(&self) -> Result<Timetable, Invalid> {
        Timetable::read(&self.cron, &self.timezone)
    }

    /// What a tick submits, where `spec` is that of the schedule.
    #[must_use]
    pub fn work(&self, spec: &Spec) -> Spec {
        Spec {
            task_type: self.task_type.as_str().into(),
            payload: self.payload.to_string().into_bytes().into(),
            not_before: None,
            deadline: None,
            idempotency_key: None,
            retry_of: None,
            ..spec.clone()
        }
    }
}

impl Spec {
    /// It is the record of a schedule.
    #[must_use]
    pub fn is_schedule(&self) -> bool {
        *self.task_type == *SCHEDULE
    }

    /// What is done in the end: of a schedule, what its ticks submit.
    #[must_use]
    pub fn work(&self) -> std::borrow::Cow<'_, Spec> {
        if !self.is_schedule() {
            return std::borrow::Cow::Borrowed(self);
        }
        match Schedule::read(&self.payload) {
            Ok(schedule) => std::borrow::Cow::Owned(schedule.work(self)),
            Err(_) => std::borrow::Cow::Borrowed(self),
        }
    }
}

/// The times that a pattern matches in a zone.
pub struct Timetable {
    cron: Cron,
    zone: Tz,
}

impl fmt::Debug for Timetable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}", self.cron.as_str(), self.zone)
    }
}

/// What is to be done about the next tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It has not come.
    Wait,
    /// This one is next, and those before it are left out.
    Skip(Unix),
    /// It is fired.
    Fire,
    /// No time matches any more.
    Over,
}

impl Timetable {
    /// Reads a pattern and the name of a zone.
    ///
    /// # Errors
    /// Which of them is none, and what would be right.
    pub fn read(cron: &str, timezone: &str) -> Result<Timetable, Invalid> {
        let bounded = |field, text: &str| match text.len() {
            1..=limits::TEXT_BYTES => Ok(()),
            got => {
                Err(Invalid { field, problem: format!("must have 1 to {} bytes, and has {got}", limits::TEXT_BYTES) })
            }
        };
        bounded("cron", cron)?;
        bounded("timezone", timezone)?;
        let unknown = |_| Invalid {
            field: "timezone",
            problem: format!("{timezone} is no IANA name of a time zone, such as Europe/Berlin or UTC"),
        };
        let zone = Tz::from_str(timezone).map_err(unknown)?;
        let bad = |e| Invalid {
            field: "cron",
            problem: format!(
                "{cron:?} is no pattern of five fields (minute, hour, day, month, weekday), with seconds in front or a \
                 year behind if you like, such as \"30 2 * * MON-FRI\": {e}"
            ),
        };
        let cron = Cron::from_str(cron).map_err(bad)?;
        Ok(Timetable { cron, zone })
    }

    /// The first tick after `time`; `None`: there is none.
    #[must_use]
    pub fn after(&self, time: Unix) -> Option<Unix> {
        let found = self.cron.find_next_occurrence(&self.local(time)?, false).ok()?;
        unix_of(&found).filter(|tick| *tick > time)
    }

    /// The last tick that is not after `time`.
    #[must_use]
    pub fn until(&self, time: Unix) -> Option<Unix> {
        let found = self.cron.find_previous_occurrence(&self.local(time)?, true).ok()?;
        unix_of(&found).filter(|tick| *tick <= time)
    }

    /// Its whole second: ticks have no parts of one.
    fn local(&self, time: Unix) -> Option<DateTime<Tz>> {
        self.zone.timestamp_opt(i64::try_from(time.0 / 1_000).ok()?, 0).single()
    }

    /// The first tick that is caught up with, where `due` is the first that was
    /// not fired.
    pub(crate) fn oldest(&self, due: Unix, now: Unix) -> Unix {
        // Ticks are a second apart at least.
        if now.since(due).0 < limits::TICKS as u64 * 1_000 {
            return due;
        }
        let mut oldest = now;
        for n in 0..limits::TICKS {
            let before = if n == 0 { now } else { Unix(oldest.0.saturating_sub(1)) };
            match self.until(before) {
                Some(tick) if tick > due => oldest = tick,
                Some(_) | None => return due,
            }
        }
        oldest
    }

    /// What is to be done about the tick at `due`, which was not fired yet.
    /// `oldest`: the first that is caught up with, if all are.
    pub(crate) fn turn(&self, catch_up: CatchUp, due: Unix, now: Unix, oldest: Unix) -> Turn {
        if due > now {
            return Turn::Wait;
        }
        if now.since(due) <= limits::TICK_GRACE {
            return Turn::Fire;
        }
        match catch_up {
            CatchUp::None => {
                let earliest = now.0.saturating_sub(limits::TICK_GRACE.0 + 1);
                self.after(Unix(earliest)).map_or(Turn::Over, Turn::Skip)
            }
            CatchUp::One => match self.until(now) {
                Some(latest) if latest > due => Turn::Skip(latest),
                Some(_) | None => Turn::Fire,
            },
            CatchUp::All if due < oldest => Turn::Skip(oldest),
            CatchUp::All => Turn::Fire,
        }
    }
}

fn unix_of(time: &DateTime<Tz>) -> Option<Unix> {
    u64::try_from(time.timestamp_millis()).ok().map(Unix)
}

/// The task of the tick at `time`: its name sorts as the times do. `None`: of a
/// time that no calendar has, or of a schedule with too long a name.
#[must_use]
pub fn tick_id(schedule: &TaskId, time: Unix) -> Option<TaskId> {
    let time = DateTime::from_timestamp(i64::try_from(time.0 / 1_000).ok()?, 0)?;
    TaskId::new(&format!("{schedule}/{}", time.format(TICK))).ok()
}

/// The time that the last part of a tick's id says; `None`: it is no tick's.
#[must_use]
pub fn tick_time(task: &TaskId) -> Option<Unix> {
    let (_, name) = task.as_str().rsplit_once('/')?;
    let time = NaiveDateTime::parse_from_str(name, TICK).ok()?.and_utc().timestamp();
    (name.len() == TICK_BYTES).then_some(Unix(u64::try_from(time).ok()? * 1_000))
}

/// The longest that the id of a schedule may be, so that what its ticks are
/// called is a valid id too: `inner` is the longest name of a step, if it is one
/// of workflows.
pub(crate) fn longest_id(inner: usize) -> usize {
    TaskId::MAX_BYTES.saturating_sub(1 + TICK_BYTES + inner)
}

/// Why `work` can't be done at each tick.
pub(crate) fn unfit(work: &Spec, items: usize) -> Option<Arc<str>> {
    let task_type = &*work.task_type;
    if task_type == ARRAY {
        return Some(UNFIT_ARRAY.into());
    }
    if task_type == SCHEDULE || (BUILT_IN.contains(&task_type) && task_type != WORKFLOW) {
        return Some(format!("{task_type} can't be scheduled").into());
    }
    if !work.depends_on.is_empty() {
        return Some("what is done at each tick can't wait for other work; leave depends_on out".into());
    }
    (items > 0).then(|| UNFIT_ARRAY.into())
}

const UNFIT_ARRAY: &str = "an array can't be scheduled; schedule a workflow with for_each";
/// RFC 3339, basic format, UTC.
const TICK: &str = "%Y%m%dT%H%M%SZ";
const TICK_BYTES: usize = "20260102T030405Z".len();

/// For people: RFC 3339, UTC.
pub(crate) fn shown(time: Unix) -> String {
    let time = i64::try_from(time.0).ok().and_then(DateTime::from_timestamp_millis);
    time.map_or_else(String::new, |t| t.format("%Y-%m-%dT%H:%M:%SZ").to_string())
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
