//! `task_result`, and how what a task left is written into an answer.

use super::value::{self, Cut};
use super::{Code, Context, Failure, Kind, Op, mismatch};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use taskmesh_core::array::ARRAY;
use taskmesh_core::command::Detail;
use taskmesh_core::task::{Data, Usage};
use taskmesh_core::view::{Status, StepView, TaskView};
use taskmesh_core::{BlobHash, Millis, Query, Refusal, Reply, Request, TaskId, limits};

/// Read what a task left.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct TaskResult {
    /// Which.
    #[schemars(length(min = 1, max = TaskId::MAX_BYTES))]
    pub task_id: String,
    /// Its standard output.
    #[serde(default = "super::task::yes")]
    #[arg(long, action = clap::ArgAction::Set, default_value_t = true)]
    pub include_output: bool,
    /// Its log (standard error).
    #[serde(default)]
    #[arg(long)]
    pub include_logs: bool,
    /// Wait so long for it to end.
    #[serde(default)]
    #[schemars(range(max = limits::WAIT_MS))]
    #[arg(long, default_value_t)]
    pub wait_ms: u64,
    /// Begin at this byte of the output (item of a large array): 256 KiB at once.
    #[serde(default)]
    #[schemars(range(max = limits::BLOB_BYTES))]
    #[arg(long, default_value_t)]
    pub output_offset: u64,
}

/// What `task_result` answers.
#[derive(Debug, Serialize, JsonSchema)]
pub struct TaskLeft {
    /// Which.
    pub task_id: String,
    /// What it is doing; null results until it has ended.
    pub status: &'static str,
    /// The result, any JSON; null if it is over 1 MiB.
    pub result: Value,
    /// Standard output from `output_offset`, at most 256 KiB.
    pub output: Option<String>,
    /// `utf-8`, or `base64` where it is no text.
    pub output_encoding: Option<&'static str>,
    /// Where the rest of the output begins.
    pub next_output_offset: Option<u64>,
    /// The end of the log, at most 256 KiB.
    pub logs: Option<String>,
    /// Seconds that the last attempt ran.
    pub execution_time: Option<f64>,
    /// CIDv1 (raw, BLAKE3) of the whole output.
    pub output_cid: Option<String>,
    /// Size of the whole output.
    pub output_bytes: Option<u64>,
    /// Something was cut, here or when it was produced.
    pub truncated: bool,
    /// Not available yet.
    pub receipt: Option<String>,
    /// When to ask again; null once it has ended.
    pub poll_after_ms: Option<u64>,
    /// Why it failed, was cancelled or expired.
    pub error: Option<String>,
    /// The run that left all this, if it is not the task's own.
    pub cached_from: Option<CachedFrom>,
}

/// A run of another task, whose result was taken.
#[derive(Debug, Serialize, JsonSchema)]
pub struct CachedFrom {
    /// Of which task.
    pub task_id: String,
    /// Which attempt.
    pub attempt: u32,
    /// What the result was found by.
    pub key: String,
}

impl CachedFrom {
    pub(crate) fn of(task: &TaskView) -> Option<CachedFrom> {
        let from = task.cached_from.as_ref()?;
        let (task_id, attempt) = (from.source.task.to_string(), from.source.attempt);
        Some(CachedFrom { task_id, attempt, key: from.key.to_string() })
    }
}

/// The most of an output or a log in one answer.
pub const FIELD_BYTES: usize = 256 * 1024;
/// The most of a result in one answer: JSON can't be cut, and an echo of the
/// largest payload must come back.
pub const RESULT_BYTES: usize = limits::PAYLOAD_BYTES + 64 * 1024;

impl Op for TaskResult {
    const NAME: &'static str = "task_result";
    const TITLE: &'static str = "Read a task's result";
    const DESCRIPTION: &'static str = "What a task left: result, output, log, run time. `wait_ms` waits for its end. Before \
        that: its status and poll_after_ms. Large output is cut; go on with output_offset.";
    const KIND: Kind = Kind::Read;
    type Output = TaskLeft;

    fn request(&self) -> Result<Request, Refusal> {
        let task = value::task("task_id", &self.task_id)?;
        let from = u32::try_from(self.output_offset).unwrap_or(u32::MAX);
        let items = self.include_output.then_some(from);
        let detail = Detail { report: true, live: self.include_logs, items, ..Detail::default() };
        Ok(Request::Query(Query::Task { task, detail, wait: Millis(self.wait_ms) }))
    }

    fn output(self, reply: Reply, context: &Context<'_>) -> Result<TaskLeft, Failure> {
        let Reply::Task(task) = reply else { return Err(mismatch(Self::NAME)) };
        let report = task.report.as_ref();
        let (result, result_cut) = match report {
            Some(report) => result_value(&report.result, context)?,
            None => (Value::Null, false),
        };
        let output = report.and_then(|r| r.output.as_ref());
        let page = match output.filter(|_| self.include_output) {
            Some(data) => Some(output_page(data, self.output_offset, context)?),
            None => items_page(&task),
        };
        let log = if self.include_logs { log_text(&task, context)? } else { Log::default() };
        let next_output_offset = page.as_ref().and_then(|p| p.next);
        let cut_before = report.is_some_and(|r| r.truncated);
        Ok(TaskLeft {
            task_id: task.task.to_string(),
            status: task.status.name(),
            result,
            output_encoding: page.as_ref().map(|p| p.encoding),
            output: page.map(|p| p.text),
            next_output_offset,
            logs: log.text,
            execution_time: execution_time(&task),
            output_cid: output.map(content_id),
            output_bytes: output.map(Data::len),
            truncated: cut_before || result_cut || log.cut || next_output_offset.is_some(),
            receipt: None,
            poll_after_ms: poll_after(task.status),
            cached_from: CachedFrom::of(&task),
            error: task.error.map(|e| e.to_string()),
        })
    }
}

/// A guess that costs little: what runs may end soon, what waits may not.
fn poll_after(status: Status) -> Option<u64> {
    match status {
        Status::Completed | Status::Failed | Status::Cancelled | Status::Expired => None,
        Status::Leased | Status::Running => Some(500),
        Status::Queued | Status::Blocked | Status::Delayed => Some(1_000),
    }
}

/// Seconds that the last attempt ran: as measured where it ran, else from the
/// times of its start and end.
pub(crate) fn execution_time(task: &TaskView) -> Option<f64> {
    let measured = report_usage(task).wall;
    let span = measured.or_else(|| Some(task.ended_at?.since(task.started_at?)));
    span.map(value::seconds)
}

/// What the last attempt used, as far as it was measured.
pub(crate) fn report_usage(task: &TaskView) -> Usage {
    task.report.as_ref().map(|r| r.usage).unwrap_or_default()
}

fn content_id(data: &Data) -> String {
    match data {
        Data::Inline(content) => value::cid(BlobHash::of(content)),
        Data::Blob { hash, .. } => value::cid(*hash),
    }
}

/// Up to `len` bytes from `offset`.
fn read(data: &Data, offset: u64, len: usize, context: &Context<'_>) -> Result<Vec<u8>, Failure> {
    match data {
        Data::Inline(content) => {
            let from = usize::try_from(offset).unwrap_or(usize::MAX).min(content.len());
            let to = from.saturating_add(len).min(content.len());
            Ok(content[from..to].to_vec())
        }
        Data::Blob { hash, .. } => (context.blobs)(*hash, offset, len).ok_or_else(|| Failure {
            retry_after: Some(Millis(1_000)),
            ..Failure::new(
                Code::Unavailable,
                "the content is kept by nodes that could not be reached; try again, or ask without it",
            )
        }),
    }
}

pub(crate) fn result_value(data: &Data, context: &Context<'_>) -> Result<(Value, bool), Failure> {
    if data.len() > RESULT_BYTES as u64 {
        return Ok((Value::Null, true));
    }
    let text = read(data, 0, RESULT_BYTES, context)?;
    let value = serde_json::from_slice(&text);
    // An executor that left no JSON still left something to look at.
    Ok((value.unwrap_or_else(|_| String::from_utf8_lossy(&text).into()), false))
}

struct Page {
    text: String,
    encoding: &'static str,
    next: Option<u64>,
}

fn output_page(data: &Data, offset: u64, context: &Context<'_>) -> Result<Page, Failure> {
    let bytes = read(data, offset, FIELD_BYTES, context)?;
    let more = offset.saturating_add(bytes.len() as u64) < data.len();
    let shown = value::shown(bytes, if more { Cut::Yes } else { Cut::No });
    let next = offset.saturating_add(shown.bytes as u64);
    Ok(Page { text: shown.text, encoding: shown.encoding, next: (next < data.len()).then_some(next) })
}

/// What the items of an array left: a line of JSON for each.
fn items_page(task: &TaskView) -> Option<Page> {
    let view = task.workflow.as_ref().filter(|_| *task.task_type == *ARRAY)?;
    let (mut text, mut next) = (String::new(), view.next_item.map(u64::from));
    for item in view.steps.as_ref()? {
        let line = item_line(item).to_string();
        if !text.is_empty() && text.len() + line.len() >= FIELD_BYTES {
            next = item.step.parse().ok();
            break;
        }
        text.push_str(&line);
        text.push('\n');
    }
    Some(Page { text, encoding: "utf-8", next })
}

fn item_line(item: &StepView) -> Value {
    let mut line = json!({ "index": item.step.parse::<u32>().ok(), "status": &*item.status });
    let left = |data: &Data| match data {
        Data::Inline(text) => {
            serde_json::from_slice(text).unwrap_or_else(|_| String::from_utf8_lossy(text).into_owned().into())
        }
        Data::Blob { hash, bytes } => json!({ "uri": format!("mesh://blobs/{hash}"), "bytes": bytes }),
    };
    if let Some(report) = &item.report {
        line["result"] = left(&report.result);
        if let Some(output) = &report.output {
            line["output"] = match output {
                Data::Inline(text) => String::from_utf8_lossy(text).into_owned().into(),
                Data::Blob { .. } => left(output),
            };
        }
    }
    if let Some(error) = &item.error {
        line["error"] = Value::from(&**error);
    }
    line
}

/// A log for people: what is no UTF-8 in it is replaced.
#[derive(Default)]
pub(crate) struct Log {
    /// The end of it.
    pub text: Option<String>,
    /// Something before is left out.
    pub cut: bool,
}

/// The log of a task: all of it when it has ended, a tail while it runs.
pub(crate) fn log_text(task: &TaskView, context: &Context<'_>) -> Result<Log, Failure> {
    let whole = task.report.as_ref().and_then(|r| r.logs.as_ref());
    let Some(data) = whole else {
        let tail = task.log_tail.as_ref().map(|tail| String::from_utf8_lossy(tail).into_owned());
        return Ok(Log { text: tail, cut: false });
    };
    let skipped = data.len().saturating_sub(FIELD_BYTES as u64);
    let bytes = read(data, skipped, FIELD_BYTES, context)?;
    Ok(Log { text: Some(String::from_utf8_lossy(&bytes).into_owned()), cut: skipped > 0 })
}
