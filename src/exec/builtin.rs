//! The executors that every node has: `echo`, `sleep` and `fail`. For trying
//! a mesh, measuring it, and waiting within a workflow.

use super::payload::Fields;
use super::{Begun, End, Executor, How, Link, RawReport, millis};
use serde::de::IgnoredAny;
use std::time::Duration;
use taskmesh_core::limits;

pub(super) const ECHO: &str = "echo";
pub(super) const SLEEP: &str = "sleep";
pub(super) const FAIL: &str = "fail";

/// Gives its payload back: the no-op.
pub(super) struct Echo;

impl Executor for Echo {
    fn task_type(&self) -> &'static str {
        ECHO
    }

    fn begin(&self, link: Link) -> Begun {
        if link.spec.payload.len() <= limits::INLINE_BYTES {
            return Begun::Over(echo(&link));
        }
        // Reading and copying a large one is too slow for the caller's thread.
        Begun::Runs(Box::pin(async move { echo(&link) }))
    }
}

fn echo(link: &Link) -> End {
    if let Err(error) = check_json(&link.spec.payload) {
        return End::refused(error);
    }
    link.started();
    completed(link.spec.payload.to_vec())
}

/// Whether `payload` is JSON text.
pub(super) fn check_json(payload: &[u8]) -> Result<(), String> {
    let text = std::str::from_utf8(payload).map_err(|_| "payload: is not UTF-8")?;
    let _: IgnoredAny = serde_json::from_str(text).map_err(|e| format!("payload: is not JSON: {e}"))?;
    Ok(())
}

/// Waits: `{"ms": n}` or `{"seconds": x}`, up to a day.
pub(super) struct Sleep;

impl Executor for Sleep {
    fn task_type(&self) -> &'static str {
        SLEEP
    }

    fn begin(&self, link: Link) -> Begun {
        match sleep_span(&link.spec.payload) {
            Err(error) => Begun::Over(End::refused(error)),
            Ok(span) => Begun::Runs(Box::pin(sleep(link, span))),
        }
    }
}

async fn sleep(mut link: Link, span: Duration) -> End {
    link.started();
    let began = tokio::time::Instant::now();
    let mut over = std::pin::pin!(tokio::time::sleep_until(began + span));
    let mut second = tokio::time::interval_at(began + PROGRESS_EVERY, PROGRESS_EVERY);
    let teller = link.clone();
    let mut halted = std::pin::pin!(link.halted(None));
    let how = loop {
        tokio::select! {
            () = &mut over => break How::Completed,
            _ = &mut halted => break How::Halted,
            now = second.tick() => {
                let percent = (now - began).as_secs_f64() / span.as_secs_f64() * 100.0;
                teller.progress(Some(percent.clamp(0.0, 100.0) as u8), None, None);
            }
        }
    };
    let result = format!("{{\"slept_ms\":{}}}", millis(began.elapsed()).0).into_bytes();
    End { how, report: RawReport { result, ..RawReport::default() } }
}

/// How long a `sleep` payload asks for.
pub(super) fn sleep_span(payload: &[u8]) -> Result<Duration, String> {
    let mut fields = Fields::read(payload)?;
    let ms: Option<u64> = fields.take("ms")?;
    let seconds: Option<f64> = fields.take("seconds")?;
    fields.end("ms, seconds")?;
    let (name, span) = match (ms, seconds) {
        (Some(ms), None) => ("ms", Some(Duration::from_millis(ms))),
        (None, Some(seconds)) => ("seconds", Duration::try_from_secs_f64(seconds).ok()),
        (Some(_), Some(_)) => return Err("seconds: give either ms or seconds".into()),
        (None, None) => return Err("ms: is missing (or give seconds)".into()),
    };
    span.filter(|span| *span <= LONGEST_SLEEP).ok_or_else(|| format!("{name}: must be from 0 to 24 hours"))
}

/// Fails: `{"error"?, "retryable"?, "times"?}`.
pub(super) struct Fail;

impl Executor for Fail {
    fn task_type(&self) -> &'static str {
        FAIL
    }

    fn begin(&self, link: Link) -> Begun {
        let failure = match Failure::parse(&link.spec.payload) {
            Ok(failure) => failure,
            Err(error) => return Begun::Over(End::refused(error)),
        };
        link.started();
        let attempt = link.fence.attempt;
        if failure.times.is_some_and(|times| attempt > times) {
            return Begun::Over(completed(format!("{{\"attempt\":{attempt}}}").into_bytes()));
        }
        let how = How::Failed { error: failure.error, retryable: failure.retryable };
        Begun::Over(End { how, report: RawReport::default() })
    }
}

/// What a `fail` payload asks for.
pub(super) struct Failure {
    error: String,
    retryable: bool,
    times: Option<u32>,
}

impl Failure {
    pub(super) fn parse(payload: &[u8]) -> Result<Failure, String> {
        let mut fields = Fields::read(payload)?;
        let failure = Failure {
            error: fields.take("error")?.unwrap_or_else(|| "failed, as it was asked to".into()),
            retryable: fields.take("retryable")?.unwrap_or(true),
            times: fields.take("times")?,
        };
        fields.end("error, retryable, times")?;
        Ok(failure)
    }
}

fn completed(result: Vec<u8>) -> End {
    End { how: How::Completed, report: RawReport { result, ..RawReport::default() } }
}

/// For people who watch.
pub(super) const PROGRESS_EVERY: Duration = Duration::from_secs(1);
/// Whoever waits longer wants `not_before`, which holds no slot.
const LONGEST_SLEEP: Duration = Duration::from_secs(24 * 3_600);
