//! How a "no" looks on every face: one closed set of codes, and one table that
//! maps each to an exit status, an HTTP status and whether to try again.

use serde_json::{Value, json};
use taskmesh_core::template::{Problem, TemplateError};
use taskmesh_core::{Millis, Refusal};

/// The closed set of codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// A parameter is missing, unknown, of the wrong type or out of range.
    InvalidArgument,
    /// No such task, worker or peer.
    NotFound,
    /// The id is taken.
    AlreadyExists,
    /// The id or idempotency key stands for different work.
    Conflict,
    /// Not possible in the state that it is in.
    FailedPrecondition,
    /// Needs `confirm: true`, or a yes through elicitation.
    ConfirmationRequired,
    /// The caller may not.
    PermissionDenied,
    /// No token, or a wrong one.
    Unauthenticated,
    /// A queue, quota or rate is full.
    ResourceExhausted,
    /// The home of the record, or enough of its holders, can't be reached.
    Unavailable,
    /// No answer in time; the outcome is unknown.
    DeadlineExceeded,
    /// Over a limit on size.
    PayloadTooLarge,
    /// A defect of the program.
    Internal,
}

/// What a code means to each face.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meaning {
    /// The code's name in `code`.
    pub name: &'static str,
    /// Exit status of the command line.
    pub exit: u8,
    /// HTTP status, where a refusal is an HTTP answer.
    pub http: u16,
    /// The same call may work later.
    pub retryable: bool,
}

impl Code {
    /// Every code, in the order of the documents.
    pub const ALL: [Code; 13] = [
        Code::InvalidArgument,
        Code::NotFound,
        Code::AlreadyExists,
        Code::Conflict,
        Code::FailedPrecondition,
        Code::ConfirmationRequired,
        Code::PermissionDenied,
        Code::Unauthenticated,
        Code::ResourceExhausted,
        Code::Unavailable,
        Code::DeadlineExceeded,
        Code::PayloadTooLarge,
        Code::Internal,
    ];

    /// The one table.
    #[must_use]
    pub const fn meaning(self) -> Meaning {
        match self {
            Code::InvalidArgument => row("invalid_argument", 2, 400, Retry::No),
            Code::NotFound => row("not_found", 3, 404, Retry::No),
            Code::AlreadyExists => row("already_exists", 4, 409, Retry::No),
            Code::Conflict => row("conflict", 5, 409, Retry::No),
            Code::FailedPrecondition => row("failed_precondition", 6, 412, Retry::No),
            Code::ConfirmationRequired => row("confirmation_required", 7, 428, Retry::No),
            Code::PermissionDenied => row("permission_denied", 8, 403, Retry::No),
            Code::Unauthenticated => row("unauthenticated", 9, 401, Retry::No),
            Code::ResourceExhausted => row("resource_exhausted", 10, 429, Retry::Yes),
            Code::Unavailable => row("unavailable", 11, 503, Retry::Yes),
            Code::DeadlineExceeded => row("deadline_exceeded", 12, 504, Retry::Yes),
            Code::PayloadTooLarge => row("payload_too_large", 13, 413, Retry::No),
            Code::Internal => row("internal", 70, 500, Retry::No),
        }
    }

    /// The code with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Code> {
        Code::ALL.into_iter().find(|c| c.meaning().name == name)
    }
}

enum Retry {
    Yes,
    No,
}

const fn row(name: &'static str, exit: u8, http: u16, retry: Retry) -> Meaning {
    Meaning { name, exit, http, retryable: matches!(retry, Retry::Yes) }
}

/// A refusal as the faces show it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{error}")]
pub struct Failure {
    /// Which kind.
    pub code: Code,
    /// One sentence that a person can act on.
    pub error: String,
    /// When the same call may work.
    pub retry_after: Option<Millis>,
    /// Facts for programs.
    pub details: Option<Value>,
}

impl Failure {
    /// A failure without details.
    #[must_use]
    pub fn new(code: Code, error: impl Into<String>) -> Failure {
        Failure { code, error: error.into(), retry_after: None, details: None }
    }

    /// The envelope: `success: false` and what there is to say.
    #[must_use]
    pub fn envelope(&self) -> serde_json::Map<String, Value> {
        let meaning = self.code.meaning();
        let mut object = serde_json::Map::new();
        object.insert("success".into(), false.into());
        object.insert("error".into(), self.error.clone().into());
        object.insert("code".into(), meaning.name.into());
        object.insert("retryable".into(), meaning.retryable.into());
        if let Some(after) = self.retry_after {
            object.insert("retry_after_ms".into(), after.0.into());
        }
        if let Some(details) = &self.details {
            object.insert("details".into(), details.clone());
        }
        object
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Failure {
        let error = refusal.to_string();
        let (code, retry_after, details) = match refusal {
            Refusal::Invalid { field, problem } => {
                (Code::InvalidArgument, None, json!({"field": &*field, "problem": &*problem}))
            }
            Refusal::NotFound { what, name } => (Code::NotFound, None, json!({"what": &*what, "name": &*name})),
            Refusal::Conflict { name } => (Code::Conflict, None, json!({"name": &*name})),
            Refusal::State { name, status, needs } => {
                (Code::FailedPrecondition, None, json!({"name": &*name, "status": &*status, "needs": &*needs}))
            }
            Refusal::Full { what, limit, retry_after } => {
                (Code::ResourceExhausted, Some(retry_after), json!({"what": &*what, "limit": limit}))
            }
            Refusal::Unavailable { problem: _, retry_after } => (Code::Unavailable, Some(retry_after), Value::Null),
            Refusal::Deadline { waited } => (Code::DeadlineExceeded, None, json!({"waited_ms": waited.0})),
            Refusal::Denied { problem: _ } => (Code::PermissionDenied, None, Value::Null),
            Refusal::TooLarge { field, got, limit } => {
                (Code::PayloadTooLarge, None, json!({"field": &*field, "bytes": got, "limit": limit}))
            }
        };
        Failure { code, error, retry_after, details: (!details.is_null()).then_some(details) }
    }
}

impl From<TemplateError> for Failure {
    fn from(wrong: TemplateError) -> Failure {
        let code = match wrong.problem {
            Problem::NoTemplate { .. } => Code::NotFound,
            Problem::Limit { .. } => Code::PayloadTooLarge,
            _ => Code::InvalidArgument,
        };
        let error = wrong.to_string();
        let details =
            json!({"template": wrong.template, "pointer": wrong.pointer, "problem": wrong.problem.to_string()});
        Failure { code, error, retry_after: None, details: Some(details) }
    }
}

/// The refusal of one parameter.
pub(crate) fn invalid(field: &str, problem: impl AsRef<str>) -> Refusal {
    Refusal::Invalid { field: field.into(), problem: problem.as_ref().into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_code_has_its_own_name_and_exit_status() {
        let names: BTreeSet<_> = Code::ALL.iter().map(|c| c.meaning().name).collect();
        let exits: BTreeSet<_> = Code::ALL.iter().map(|c| c.meaning().exit).collect();
        assert_eq!((names.len(), exits.len()), (Code::ALL.len(), Code::ALL.len()));
        assert!(!exits.contains(&0) && !exits.contains(&1));
        for code in Code::ALL {
            assert_eq!(Code::from_name(code.meaning().name), Some(code));
            assert!((400..600).contains(&code.meaning().http));
        }
    }

    #[test]
    fn a_full_queue_says_when_to_try_again() {
        let full = Refusal::Full { what: "the queue".into(), limit: 5, retry_after: Millis(250) };
        let envelope = Value::Object(Failure::from(full).envelope());
        assert_eq!(
            envelope,
            json!({"success": false, "error": "the queue is full (limit 5); try again later", "code": "resource_exhausted",
                "retryable": true, "retry_after_ms": 250, "details": {"what": "the queue", "limit": 5}})
        );
    }
}
