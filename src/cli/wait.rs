//! Waiting for tasks and arrays, and showing what they left.

use super::exit::Exit;
use super::output::{self, Form};
use super::reach::Node;
use crate::ops::Code;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use clap::Args;
use futures::{StreamExt, TryStreamExt};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use std::time::Duration;
use taskmesh_core::limits;
use taskmesh_core::view::Status;
use tokio::time::Instant;

#[derive(Debug, Args)]
pub(super) struct WaitArgs {
    /// A task, or an array.
    task_id: String,
    /// Seconds; default: as long as it takes.
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
}

/// `task wait`.
pub(super) async fn run(node: &Node, args: &WaitArgs) -> Result<(), Exit> {
    let patience = Patience::of(args.timeout);
    match find(node, &args.task_id, patience).await? {
        Found::Task => task(node, &args.task_id, patience).await,
        Found::Array(count) => array(node, &args.task_id, count, patience).await,
    }
}

/// What an id stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Task,
    /// A list of this many tasks.
    Array(u64),
}

/// What `id` stands for. While a node is away nobody can say that there is no such
/// task, and the tasks of one that was just lost are not seen until others have
/// taken them over: so where a node does not answer, it is the number that has
/// stayed the same for a while.
async fn find(node: &Node, id: &str, patience: Patience) -> Result<Found, Exit> {
    let (mut most, mut grown, mut trouble) = (0, Instant::now(), Trouble::default());
    loop {
        let Err(missing) = node.call("task_result", read(id, 0, 0)).await else { return Ok(Found::Task) };
        if !missing.is(Code::NotFound) && !missing.is_transient() {
            return Err(missing);
        }
        let (count, complete) = match items(node, id).await {
            Ok(found) => found,
            Err(exit) => {
                trouble.bear(exit).await?;
                continue;
            }
        };
        if count > most {
            (most, grown) = (count, Instant::now());
        }
        let settled = complete || grown.elapsed() > TAKEN_OVER;
        match most {
            0 if settled && missing.is(Code::NotFound) => return Err(missing),
            1.. if settled => return Ok(Found::Array(most)),
            _ => patience.check(id)?,
        }
        if missing.is_transient() {
            trouble.bear(missing).await?;
        } else {
            tokio::time::sleep(POLL).await;
        }
    }
}

/// How many tasks the array `id` has, as the numbers in the ids of those that are
/// seen say, and whether every node answered. Counts by state do not add up to it:
/// a task that goes on between two of them is in both, or in none.
async fn items(node: &Node, id: &str) -> Result<(u64, bool), Exit> {
    let (mut count, mut complete, mut cursor) = (0, true, Value::Null);
    loop {
        let mut arguments = json!({ "workflow_filter": id, "limit": limits::PAGE });
        if !cursor.is_null() {
            arguments["cursor"] = cursor.clone();
        }
        let mut page = node.call("task_list", arguments).await?;
        complete &= page["nodes_answered"] == page["nodes_expected"];
        let ids = page["tasks"].as_array().into_iter().flatten().filter_map(|task| task["task_id"].as_str());
        let numbers = ids.filter_map(|task| task.strip_prefix(id)?.strip_prefix('/')?.parse::<u64>().ok());
        count = numbers.map(|n| n.saturating_add(1)).max().unwrap_or(0).max(count);
        let next = page["next_cursor"].take();
        // A list that does not go on would be asked for for ever.
        if next.is_null() || next == cursor {
            return Ok((count, complete));
        }
        cursor = next;
    }
}

/// How long to wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    until: Option<Instant>,
}

impl Patience {
    /// `None`: for ever.
    pub(super) fn of(seconds: Option<u64>) -> Patience {
        // More than this many seconds is as good as for ever, and does not overflow.
        Patience { until: seconds.filter(|s| *s < 1 << 32).map(|s| Instant::now() + Duration::from_secs(s)) }
    }

    fn left(self) -> Option<Duration> {
        self.until.map(|until| until.saturating_duration_since(Instant::now()))
    }

    fn check(self, what: &str) -> Result<(), Exit> {
        match self.left() {
            Some(Duration::ZERO) => {
                Err(Exit::with(Code::DeadlineExceeded, format!("{what} has not ended in time; it goes on")))
            }
            _ => Ok(()),
        }
    }
}

/// Waits for one task, prints what it left, and ends as it ended.
pub(super) async fn task(node: &Node, id: &str, patience: Patience) -> Result<(), Exit> {
    let mut trouble = Trouble::default();
    let left = loop {
        let wait = patience.left().map_or(LONG_POLL, |left| left.min(LONG_POLL));
        match node.call("task_result", read(id, u64::try_from(wait.as_millis()).unwrap_or(0), 0)).await {
            Ok(answer) if ended(&answer) => break answer,
            Ok(_) => trouble = Trouble::default(),
            Err(exit) => trouble.bear(exit).await?,
        }
        patience.check(&format!("task {id}"))?;
    };
    show(node, id, &left).await?;
    verdict(id, &left)
}

/// Waits for the `count` tasks of the array `id`; prints what they left, in
/// order; ends well only if all of them completed.
pub(super) async fn array(node: &Node, id: &str, count: u64, patience: Patience) -> Result<(), Exit> {
    let bar = progress_bar(count);
    let (mut trouble, mut quiet) = (Trouble::default(), 0);
    let counts = loop {
        match Counts::ask(node, id).await {
            Ok(counts) => {
                trouble = Trouble::default();
                bar.set_position(counts.ended());
                bar.set_message(counts.problems());
                // Ended tasks may be forgotten (retention) before all have
                // ended: then nothing open, twice, is the end too.
                quiet = if counts.open == 0 && counts.complete { quiet + 1 } else { 0 };
                if counts.ended() >= count || quiet > 1 {
                    break counts;
                }
            }
            Err(exit) => trouble.bear(exit).await?,
        }
        patience.check(&format!("array {id}"))?;
        tokio::time::sleep(POLL).await;
    };
    bar.finish_and_clear();
    let items = futures::stream::iter(0..count).map(|n| item(node, format!("{id}/{n}"))).buffered(READERS);
    items
        .try_for_each(|(id, left)| async move {
            match left {
                Some(left) => show(node, &id, &left).await,
                None => Ok(()),
            }
        })
        .await?;
    counts.verdict(id, count)
}

/// `None`: forgotten already.
async fn item(node: &Node, id: String) -> Result<(String, Option<Value>), Exit> {
    match node.call("task_result", read(&id, 0, 0)).await {
        Ok(left) => Ok((id, Some(left))),
        Err(exit) if exit.is(Code::NotFound) => Ok((id, None)),
        Err(exit) => Err(exit),
    }
}

fn read(id: &str, wait_ms: u64, offset: u64) -> Value {
    json!({ "task_id": id, "wait_ms": wait_ms, "include_output": true, "include_logs": true, "output_offset": offset })
}

pub(super) fn ended(answer: &Value) -> bool {
    status(answer).is_some_and(Status::terminal)
}

fn status(answer: &Value) -> Option<Status> {
    answer["status"].as_str().and_then(Status::from_name)
}

pub(super) fn verdict(id: &str, left: &Value) -> Result<(), Exit> {
    if status(left) == Some(Status::Completed) {
        return Ok(());
    }
    let why = left["error"].as_str().map(|e| format!(": {e}")).unwrap_or_default();
    let status = left["status"].as_str().unwrap_or("unknown");
    Err(Exit::Ended { summary: format!("task {id} ended as {status}{why}") })
}

/// What a task left: with `--json` its object; else what its program printed,
/// to where it printed it; else its result.
async fn show(node: &Node, id: &str, left: &Value) -> Result<(), Exit> {
    if node.form == Form::Json {
        return output::json(left);
    }
    if let Some(logs) = left["logs"].as_str().filter(|logs| !logs.is_empty()) {
        output::note(logs.trim_end_matches('\n'));
    }
    if left["output"].is_null() {
        return if left["result"].is_null() { Ok(()) } else { output::json_line(&left["result"]) };
    }
    pages(node, id, left, &mut output::bytes).await
}

/// What a task left, with the whole of its output.
pub(super) async fn whole(node: &Node, id: &str) -> Result<Value, Exit> {
    let left = node.call("task_result", read(id, 0, 0)).await?;
    if left["next_output_offset"].is_null() {
        return Ok(left);
    }
    let mut output = Vec::new();
    let mut gather = |part: &[u8]| {
        output.extend_from_slice(part);
        Ok(())
    };
    pages(node, id, &left, &mut gather).await?;
    Ok(super::archive::joined(left, &output))
}

/// The whole output: what `left` has of it, and what comes after that.
async fn pages(
    node: &Node,
    id: &str,
    left: &Value,
    each: &mut impl FnMut(&[u8]) -> Result<(), Exit>,
) -> Result<(), Exit> {
    each(&content(left)?)?;
    let (mut read_so_far, mut next) = (0, left["next_output_offset"].as_u64());
    // An answer that does not go on would be asked for for ever.
    while let Some(offset) = next.filter(|offset| *offset > read_so_far) {
        let more = node.call("task_result", read(id, 0, offset)).await?;
        each(&content(&more)?)?;
        (read_so_far, next) = (offset, more["next_output_offset"].as_u64());
    }
    Ok(())
}

fn content(answer: &Value) -> Result<Vec<u8>, Exit> {
    let text = answer["output"].as_str().unwrap_or_default();
    if answer["output_encoding"] != "base64" {
        return Ok(text.as_bytes().to_vec());
    }
    BASE64_STANDARD.decode(text).map_err(|e| Exit::internal(format!("the node sent an output that is no base64: {e}")))
}

/// How many tasks of an array are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    open: u64,
    completed: u64,
    failed: u64,
    cancelled: u64,
    expired: u64,
    /// Every node answered.
    complete: bool,
}

impl Counts {
    async fn ask(node: &Node, id: &str) -> Result<Counts, Exit> {
        let count = |state: &'static str| {
            let arguments = json!({ "workflow_filter": id, "status_filter": state, "limit": 1 });
            async move { Ok::<_, Exit>((state, node.call("task_list", arguments).await?)) }
        };
        let states = ["queued", "leased", "running", "completed", "failed", "cancelled", "expired"];
        let pages = futures::future::try_join_all(states.map(count)).await?;
        let mut counts = Counts { complete: true, ..Counts::default() };
        for (state, page) in &pages {
            let n = page["total_count"].as_u64().unwrap_or(0);
            counts.complete &= page["nodes_answered"] == page["nodes_expected"];
            match *state {
                "completed" => counts.completed = n,
                "failed" => counts.failed = n,
                "cancelled" => counts.cancelled = n,
                "expired" => counts.expired = n,
                _ => counts.open += n,
            }
        }
        Ok(counts)
    }

    fn ended(&self) -> u64 {
        self.completed + self.failed + self.cancelled + self.expired
    }

    /// What did not go well, for people.
    fn problems(&self) -> String {
        let parts = [(self.failed, "failed"), (self.cancelled, "cancelled"), (self.expired, "expired")];
        parts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect::<Vec<_>>().join(", ")
    }

    fn verdict(&self, id: &str, count: u64) -> Result<(), Exit> {
        let forgotten = count.saturating_sub(self.ended());
        if self.problems().is_empty() && forgotten == 0 {
            output::note(&format!("array {id}: {count} tasks completed"));
            return Ok(());
        }
        if self.problems().is_empty() {
            let settings = "mesh.retention_s, mesh.retained_tasks";
            let summary = format!("array {id}: {forgotten} of {count} tasks ended and are no longer kept ({settings})");
            return Err(Exit::Ended { summary });
        }
        let problems = self.problems();
        let next = "taskmesh task list --status failed --workflow";
        Err(Exit::Ended {
            summary: format!("array {id}: of {count} tasks {problems}; `{next} {id}` lists those that failed"),
        })
    }
}

/// A node that is being restarted does not end the wait; one that stays away does.
#[derive(Default)]
pub(super) struct Trouble {
    since: Option<Instant>,
}

impl Trouble {
    pub(super) async fn bear(&mut self, exit: Exit) -> Result<(), Exit> {
        let since = *self.since.get_or_insert_with(Instant::now);
        if !exit.is_transient() || since.elapsed() > FORBEARANCE {
            return Err(exit);
        }
        tokio::time::sleep(POLL).await;
        Ok(())
    }
}

fn progress_bar(count: u64) -> ProgressBar {
    // Hidden by itself where standard error is no terminal.
    let bar = ProgressBar::with_draw_target(Some(count), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} tasks, {per_sec}, {eta} left  {msg}");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Below the 45 s that any call may take.
const LONG_POLL: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(250);
/// A restart takes a few seconds.
const FORBEARANCE: Duration = Duration::from_secs(30);
/// A lease, and the claims after it, with the settings that nodes have by default.
const TAKEN_OVER: Duration = Duration::from_secs(10);
/// Results that are read at once.
const READERS: usize = 16;

#[cfg(test)]
#[path = "wait_tests.rs"]
mod tests;
