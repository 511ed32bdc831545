//! Refusals on the wire: the end of `proto/taskmesh/v1/request.proto`.

use super::check::{self, Checked};
use super::task::owned;
use super::{WireError, proto};
use taskmesh_core::{Millis, Refusal, limits};

impl From<&Refusal> for proto::Refusal {
    fn from(refusal: &Refusal) -> Self {
        use proto::refusal as r;
        let kind = match refusal {
            Refusal::Invalid { field, problem } => {
                r::Kind::Invalid(r::Invalid { field: owned(field), problem: owned(problem) })
            }
            Refusal::NotFound { what, name } => r::Kind::NotFound(r::NotFound { what: owned(what), name: owned(name) }),
            Refusal::Conflict { name } => r::Kind::Conflict(r::Conflict { name: owned(name) }),
            Refusal::State { name, status, needs } => {
                r::Kind::State(r::WrongState { name: owned(name), status: owned(status), needs: owned(needs) })
            }
            Refusal::Full { what, limit, retry_after } => {
                r::Kind::Full(r::Full { what: owned(what), limit: *limit, retry_after_ms: retry_after.0 })
            }
            Refusal::Unavailable { problem, retry_after } => {
                r::Kind::Unavailable(r::Unavailable { problem: owned(problem), retry_after_ms: retry_after.0 })
            }
            Refusal::Deadline { waited } => r::Kind::Deadline(r::Deadline { waited_ms: waited.0 }),
            Refusal::TooLarge { field, got, limit } => {
                r::Kind::TooLarge(r::TooLarge { field: owned(field), got: *got, limit: *limit })
            }
            Refusal::Denied { problem } => r::Kind::Denied(r::Denied { problem: owned(problem) }),
        };
        proto::Refusal { kind: Some(kind) }
    }
}

pub(super) fn refusal_from(refusal: &proto::Refusal) -> Checked<Refusal> {
    use proto::refusal::Kind;
    let short = |field, value: &str| check::text(field, value, limits::TEXT_BYTES);
    let long = |field, value: &str| check::text(field, value, limits::REASON_BYTES);
    Ok(match refusal.kind.as_ref().ok_or(WireError::Unknown { what: "refusal" })? {
        Kind::Invalid(r) => {
            Refusal::Invalid { field: short("refusal.field", &r.field)?, problem: long("refusal.problem", &r.problem)? }
        }
        Kind::NotFound(r) => {
            Refusal::NotFound { what: short("refusal.what", &r.what)?, name: short("refusal.name", &r.name)? }
        }
        Kind::Conflict(r) => Refusal::Conflict { name: short("refusal.name", &r.name)? },
        Kind::State(r) => Refusal::State {
            name: short("refusal.name", &r.name)?,
            status: short("refusal.status", &r.status)?,
            needs: long("refusal.needs", &r.needs)?,
        },
        Kind::Full(r) => Refusal::Full {
            what: short("refusal.what", &r.what)?,
            limit: r.limit,
            retry_after: Millis(r.retry_after_ms),
        },
        Kind::Unavailable(r) => Refusal::Unavailable {
            problem: long("refusal.problem", &r.problem)?,
            retry_after: Millis(r.retry_after_ms),
        },
        Kind::Deadline(r) => Refusal::Deadline { waited: Millis(r.waited_ms) },
        Kind::Denied(r) => Refusal::Denied { problem: long("refusal.problem", &r.problem)? },
        Kind::TooLarge(r) => Refusal::TooLarge { field: short("refusal.field", &r.field)?, got: r.got, limit: r.limit },
    })
}
