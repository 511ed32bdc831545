//! Runs on this node: what an executor reports.

use crate::task::Report;
use crate::time::Millis;
use std::sync::Arc;

/// What an executor says of a run.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The run has begun.
    Started,
    /// Something to tell while it runs; at most one a second.
    Progress {
        /// Percent.
        percent: Option<u8>,
        /// A line for people.
        message: Option<Arc<str>>,
        /// Tail of the log, at most [`crate::limits::LOG_TAIL_BYTES`].
        log_tail: Option<Arc<[u8]>>,
    },
    /// The run is over, and so is every process of it.
    Ended {
        /// How it went.
        verdict: Verdict,
        /// What it left.
        report: Report,
    },
}

/// How a run went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Well.
    Completed,
    /// Not well.
    Failed {
        /// For people.
        error: Arc<str>,
        /// Another attempt may do better.
        retryable: bool,
    },
    /// It ran into its timeout and was ended.
    TimedOut {
        /// The timeout.
        after: Millis,
    },
    /// It was asked to stop.
    Stopped,
    /// Its node handed it back (drain, disconnect): not the task's fault.
    HandedBack,
}
