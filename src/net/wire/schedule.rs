//! What is shown of a schedule, on the wire: a part of
//! `proto/taskmesh/v1/request.proto`.

use super::check::{self, Checked, same_names};
use super::request::{status_from, status_to};
use super::task::owned;
use super::{WireError, proto};
use taskmesh_core::schedule::CatchUp;
use taskmesh_core::view::ScheduleView;
use taskmesh_core::{Unix, limits};

same_names!(CatchUp, catch_up_to, catch_up_from, "schedule.catch_up", None, One, All);

impl From<&ScheduleView> for proto::ScheduleView {
    fn from(view: &ScheduleView) -> Self {
        proto::ScheduleView {
            cron: owned(&view.cron),
            timezone: owned(&view.timezone),
            catch_up: catch_up_to(view.catch_up),
            task_type: owned(&view.task_type),
            fired: view.fired,
            last: view.last.map(|(at, _)| at.0),
            last_status: view.last.map(|(_, status)| status_to(status)),
            next: view.next.map(|t| t.0),
        }
    }
}

pub(super) fn schedule_from(view: &proto::ScheduleView) -> Checked<ScheduleView> {
    let last = match (view.last, view.last_status) {
        (Some(at), Some(status)) => Some((Unix(at), status_from(status)?)),
        (Some(_), None) | (None, Some(_)) | (None, None) => None,
    };
    Ok(ScheduleView {
        cron: check::text("schedule.cron", &view.cron, limits::TEXT_BYTES)?,
        timezone: check::text("schedule.timezone", &view.timezone, limits::TEXT_BYTES)?,
        catch_up: catch_up_from(view.catch_up)?,
        task_type: check::text("schedule.task_type", &view.task_type, limits::TEXT_BYTES)?,
        fired: check::counter("schedule.fired", view.fired)?,
        last,
        next: view.next.map(Unix),
    })
}
