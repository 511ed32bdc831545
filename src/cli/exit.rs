//! Exit statuses: the facade's codes, each with the status of its row, and one
//! more for work that was done and did not end well.

use crate::api::client::ClientError;
use crate::ops::value::Object;
use crate::ops::{Code, Failure};
use serde_json::Value;

/// Why the program ends with something else than 0.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Exit {
    /// Refused, by the node or before it was asked. The envelope says whether a
    /// repetition helps.
    #[error("{}", envelope.get("error").and_then(Value::as_str).unwrap_or("refused without a reason"))]
    Failed {
        /// Which kind.
        code: Code,
        /// The facade's own words.
        envelope: Box<Object>,
    },
    /// What was waited for ended, and not well: it failed, was cancelled or
    /// expired. Nothing is wrong with the call.
    #[error("{summary}")]
    Ended {
        /// For people.
        summary: String,
    },
}

/// The status of [`Exit::Ended`].
pub const ENDED: u8 = 1;

impl Exit {
    /// A mistake in the arguments or the settings.
    #[must_use]
    pub fn usage(error: impl Into<String>) -> Exit {
        Exit::with(Code::InvalidArgument, error)
    }

    /// Something that is nobody's mistake but the program's or the system's.
    #[must_use]
    pub fn internal(error: impl Into<String>) -> Exit {
        Exit::with(Code::Internal, error)
    }

    /// Any of the codes.
    #[must_use]
    pub fn with(code: Code, error: impl Into<String>) -> Exit {
        Exit::Failed { code, envelope: Box::new(Failure::new(code, error).envelope()) }
    }

    /// The code, of a refusal.
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        match self {
            Exit::Failed { code, .. } => Some(*code),
            Exit::Ended { .. } => None,
        }
    }

    /// Whether it is a refusal with this code.
    #[must_use]
    pub fn is(&self, code: Code) -> bool {
        self.code() == Some(code)
    }

    /// Whether the same call may work later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.code().is_some_and(|code| code.meaning().retryable)
    }

    /// The exit status of the process.
    #[must_use]
    pub fn status(&self) -> u8 {
        self.code().map_or(ENDED, |code| code.meaning().exit)
    }

    /// What `--json` prints, where the answer was not printed already.
    #[must_use]
    pub fn envelope(&self) -> Option<Value> {
        match self {
            Exit::Failed { envelope, .. } => Some(Value::Object((**envelope).clone())),
            Exit::Ended { .. } => None,
        }
    }

    /// What to do next, where the message does not say it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let Exit::Failed { code, envelope } = self else { return None };
        match code {
            Code::ConfirmationRequired => Some("if you are sure, repeat it with --confirm".to_owned()),
            Code::Unauthenticated => Some(
                "the token is in the file `token` of the node's data folder: give --data-dir, or TASKMESH_TOKEN"
                    .to_owned(),
            ),
            Code::ResourceExhausted => {
                let after = envelope.get("retry_after_ms").and_then(Value::as_u64)?;
                Some(format!("try again in {after} ms"))
            }
            Code::DeadlineExceeded => Some("`taskmesh task status ID` tells how far it is".to_owned()),
            Code::Internal => Some("the node's log has more".to_owned()),
            Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::Conflict
            | Code::FailedPrecondition
            | Code::PermissionDenied
            | Code::Unavailable
            | Code::PayloadTooLarge => None,
        }
    }
}

impl From<ClientError> for Exit {
    fn from(e: ClientError) -> Exit {
        Exit::Failed { code: e.code(), envelope: Box::new(e.envelope()) }
    }
}

/// The table for the documents: status, name, meaning.
#[must_use]
pub fn table() -> Vec<(u8, &'static str, &'static str)> {
    let fixed = [
        (0, "ok", "done; with `--wait`: and all of it completed"),
        (ENDED, "ended badly", "what was waited for failed, was cancelled or expired"),
    ];
    fixed.into_iter().chain(Code::ALL.into_iter().map(|c| (c.meaning().exit, c.meaning().name, meaning(c)))).collect()
}

fn meaning(code: Code) -> &'static str {
    match code {
        Code::InvalidArgument => "wrong usage: a flag, an argument or a setting",
        Code::NotFound => "no such task, worker or peer",
        Code::AlreadyExists => "the id is taken",
        Code::Conflict => "the id or the idempotency key stands for different work",
        Code::FailedPrecondition => "not possible in the state that it is in",
        Code::ConfirmationRequired => "needs `--confirm`",
        Code::PermissionDenied => "not allowed",
        Code::Unauthenticated => "no token, or a wrong one",
        Code::ResourceExhausted => "a queue, quota or rate is full: try again later",
        Code::Unavailable => "no node answers, or too few of them: try again later",
        Code::DeadlineExceeded => "no answer, or no end, in time: try again with the same id",
        Code::PayloadTooLarge => "over a limit on size",
        Code::Internal => "a defect, or an error of the system",
    }
}
