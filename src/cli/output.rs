//! Answers on standard output: JSON as it came, or tables for people. Notes and
//! failures on standard error.

use super::exit::Exit;
use serde_json::Value;
use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};

/// How answers are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Tables.
    Human,
    /// The operation's own object.
    Json,
}

impl Form {
    /// After the flag `--json`.
    pub(super) fn of(json: bool) -> Form {
        if json { Form::Json } else { Form::Human }
    }
}

/// Whether states are coloured: on a terminal, unless NO_COLOR is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Paint {
    Plain,
    Colours,
}

impl Paint {
    fn of_stdout() -> Paint {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        if io::stdout().is_terminal() && !unwanted { Paint::Colours } else { Paint::Plain }
    }
}

/// The answer of the operation `name`.
pub(super) fn answer(form: Form, name: &str, answer: &Value) -> Result<(), Exit> {
    match form {
        Form::Json => json(answer),
        Form::Human => raw(&human(name, answer, Paint::of_stdout())),
    }
}

/// Pretty, and ended by a new line.
pub(super) fn json(value: &Value) -> Result<(), Exit> {
    raw(&format!("{value:#}\n"))
}

/// On one line.
pub(super) fn json_line(value: &Value) -> Result<(), Exit> {
    raw(&format!("{value}\n"))
}

/// Text as it is.
pub(super) fn raw(text: &str) -> Result<(), Exit> {
    bytes(text.as_bytes())
}

/// Bytes as they are. A reader that went away (`| head`) is no failure: there
/// is nobody left to tell.
pub(super) fn bytes(content: &[u8]) -> Result<(), Exit> {
    let mut out = io::stdout().lock();
    match out.write_all(content).and_then(|()| out.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        done => done.map_err(|e| Exit::internal(format!("can't write to standard output: {e}"))),
    }
}

/// A line on standard error; what can't be said there is not said.
pub(super) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// A line on standard error that a person wants and a log does not.
pub(super) fn tell_person(text: &str) {
    if io::stderr().is_terminal() {
        note(text);
    }
}

/// Why the program ends, and what to do.
pub(super) fn failure(form: Form, exit: &Exit) {
    if let (Form::Json, Some(envelope)) = (form, exit.envelope()) {
        let _ = json(&envelope);
    }
    note(&format!("taskmesh: {exit}"));
    if let Some(hint) = exit.hint() {
        note(&format!("  {hint}"));
    }
}

/// The columns of the list that an operation answers with, by its field.
const LISTS: [(&str, &str, &[&str]); 5] = [
    (
        "task_list",
        "tasks",
        &["task_id", "task_type", "status", "priority", "attempt", "worker_id", "submitted_at", "end_time", NEXT_TICK],
    ),
    ("peer_list", "peers", &["peer_id", "status", "metrics.latency_ms", "last_seen", "multiaddr", "capabilities"]),
    ("peer_discover", "peers", &["peer_id", "last_seen", "multiaddr", "capabilities"]),
    ("bootstrap_network", "failures", &["multiaddr", "error"]),
    (
        "queue_stats",
        "worker_stats",
        &["worker_id", "status", "running_tasks", "max_concurrent_tasks", "completed_tasks", "failed_tasks", "node"],
    ),
];

/// Shown where there are schedules.
const NEXT_TICK: &str = "schedule.next_tick";

fn human(name: &str, answer: &Value, paint: Paint) -> String {
    let list = LISTS.iter().find(|(operation, _, _)| *operation == name);
    match list {
        Some((_, field, columns)) if ["task_list", "peer_list", "peer_discover"].contains(&name) => {
            let rows = answer[*field].as_array().map_or(&[][..], Vec::as_slice);
            let scheduled = |row: &Value| !at(row, NEXT_TICK).is_null();
            let shown = |column: &&&str| **column != NEXT_TICK || rows.iter().any(scheduled);
            let columns: Vec<_> = columns.iter().filter(shown).copied().collect();
            format!("{}{}", table(&columns, rows, paint), footer(answer, rows.len()))
        }
        _ => sheet(answer, list.map(|(_, field, columns)| (*field, *columns)), paint),
    }
}

/// What a list does not show.
fn footer(answer: &Value, shown: usize) -> String {
    let mut text = String::new();
    let total = answer["total_count"].as_u64().or(answer["discovered_count"].as_u64()).unwrap_or(shown as u64);
    let _ = write!(text, "{shown} of {total}");
    let nodes = (answer["nodes_answered"].as_u64(), answer["nodes_expected"].as_u64());
    if let (Some(answered), Some(expected)) = nodes
        && answered < expected
    {
        let _ = write!(text, ", as far as {answered} of {expected} nodes know");
    }
    if let Some(cursor) = answer["next_cursor"].as_str() {
        let _ = write!(text, "; more: --cursor {cursor}");
    }
    text.push('\n');
    text
}

/// One field a line; long texts and lists of objects after them.
fn sheet(answer: &Value, list: Option<(&str, &[&str])>, paint: Paint) -> String {
    let mut lines = Vec::new();
    let mut after = String::new();
    flatten("", answer, &mut |name, value| match value {
        Value::Array(items) if items.iter().any(Value::is_object) => {
            let chosen = list.filter(|(field, _)| *field == name).map(|(_, columns)| columns.to_vec());
            let columns = chosen.unwrap_or_else(|| keys(&items[0]));
            let _ = write!(after, "\n{name}\n{}", table(&columns, items, paint));
        }
        Value::String(text) if text.contains('\n') => {
            let _ = write!(after, "\n{name}\n{}\n", text.trim_end());
        }
        value => lines.push((name.to_owned(), cell(value))),
    });
    lines.retain(|(name, _)| name != "success");
    let width = lines.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, value) in lines {
        let value = if name == "status" { painted(&value, value.len(), paint) } else { value };
        let _ = writeln!(text, "{name:width$}  {value}");
    }
    text + &after
}

fn keys(item: &Value) -> Vec<&str> {
    item.as_object().map(|o| o.keys().map(String::as_str).collect()).unwrap_or_default()
}

/// Calls `each` with every field that is no object, under its dotted name; the
/// result of a task is the user's own and stays whole.
fn flatten(prefix: &str, value: &Value, each: &mut impl FnMut(&str, &Value)) {
    match value {
        Value::Object(fields) if prefix != "result" && !fields.is_empty() => {
            for (name, value) in fields {
                let name = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                flatten(&name, value, each);
            }
        }
        value => each(prefix, value),
    }
}

/// Aligned columns under a line of names; numbers to the right.
fn table(columns: &[&str], rows: &[Value], paint: Paint) -> String {
    let heads: Vec<String> = columns.iter().map(|c| head(c)).collect();
    let cells: Vec<Vec<String>> = rows.iter().map(|row| columns.iter().map(|c| cell(at(row, c))).collect()).collect();
    let width = |n: usize| {
        let longest = cells.iter().map(|row| row[n].chars().count()).max().unwrap_or(0);
        longest.max(heads[n].chars().count())
    };
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let numeric: Vec<bool> = columns.iter().map(|c| rows.iter().any(|row| at(row, c).is_number())).collect();
    let mut text = String::new();
    for (line, row) in std::iter::once(&heads).chain(&cells).enumerate() {
        let mut out = String::new();
        for (n, value) in row.iter().enumerate() {
            let gap = widths[n].saturating_sub(value.chars().count());
            match (numeric[n], line > 0 && columns[n] == "status") {
                (true, _) => out.push_str(&format!("{}{value}", " ".repeat(gap))),
                (false, true) => out.push_str(&painted(value, widths[n], paint)),
                (false, false) => out.push_str(&format!("{value}{}", " ".repeat(gap))),
            }
            out.push_str("  ");
        }
        let _ = writeln!(text, "{}", out.trim_end());
    }
    text
}

/// `metrics.latency_ms` → `LATENCY MS`.
fn head(column: &str) -> String {
    column.rsplit('.').next().unwrap_or(column).replace('_', " ").to_uppercase()
}

fn at<'a>(row: &'a Value, column: &str) -> &'a Value {
    column.split('.').fold(row, |value, name| &value[name])
}

/// A value on one line. What was not measured is a dash. Control characters of
/// others must not reach the terminal.
fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(","),
        Value::Number(n) if n.is_f64() => decimals(n.as_f64().unwrap_or_default()),
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => value.to_string(),
    };
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Three of them at most: milliseconds of seconds, thousandths of cores.
fn decimals(n: f64) -> String {
    let text = format!("{n:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The state in its colour, filled up to `width`.
fn painted(state: &str, width: usize, paint: Paint) -> String {
    let gap = " ".repeat(width.saturating_sub(state.chars().count()));
    let colour = match state {
        "completed" | "connected" | "idle" | "active" => 32,
        "failed" | "expired" | "offline" | "disconnected" => 31,
        "running" | "leased" | "busy" | "connecting" => 36,
        "cancelled" | "draining" | "delayed" | "blocked" | "paused" => 33,
        _ => return format!("{state}{gap}"),
    };
    match paint {
        Paint::Plain => format!("{state}{gap}"),
        Paint::Colours => format!("\u{1b}[{colour}m{state}\u{1b}[0m{gap}"),
    }
}

/// A table of texts, for what is no operation's answer.
pub(super) fn plain_table(columns: &[&str], rows: &[Vec<String>]) -> String {
    let object = |row: &Vec<String>| {
        let fields = columns.iter().zip(row).map(|(name, value)| ((*name).to_owned(), Value::from(value.as_str())));
        Value::Object(fields.collect())
    };
    table(columns, &rows.iter().map(object).collect::<Vec<_>>(), Paint::Plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_list_is_an_aligned_table_with_what_it_leaves_out() {
        let answer = json!({
            "success": true, "total_count": 7, "returned_count": 2, "has_more": true, "next_cursor": "c1",
            "nodes_answered": 2, "nodes_expected": 3,
            "tasks": [
                {"task_id": "a", "task_type": "echo", "status": "completed", "priority": 1.0, "attempt": 1,
                 "worker_id": "w", "submitted_at": "T", "end_time": null},
                {"task_id": "long-name", "task_type": "exec", "status": "queued", "priority": 10.5, "attempt": 0,
                 "worker_id": null, "submitted_at": "T", "end_time": null},
            ],
        });
        let wanted = "\
TASK ID    TASK TYPE  STATUS     PRIORITY  ATTEMPT  WORKER ID  SUBMITTED AT  END TIME
a          echo       completed         1        1  w          T             -
long-name  exec       queued         10.5        0  -          T             -
2 of 7, as far as 2 of 3 nodes know; more: --cursor c1
";
        assert_eq!(human("task_list", &answer, Paint::Plain), wanted);
    }

    #[test]
    fn an_object_is_a_sheet_of_its_fields() {
        let answer = json!({
            "success": true, "task_id": "a", "status": "failed", "metrics": {"cpu_user_ms": 3}, "logs": "one\ntwo\n",
            "result": {"exit_code": 1}, "nodes": [{"node": "n", "reason": "no slots"}],
        });
        let wanted = "\
task_id              a
status               failed
metrics.cpu_user_ms  3
result               {\"exit_code\":1}

logs
one
two

nodes
NODE  REASON
n     no slots
";
        assert_eq!(human("task_status", &answer, Paint::Plain), wanted);
    }

    #[test]
    fn colours_do_not_shift_the_columns() {
        let rows = [json!({"status": "failed", "task_id": "a"})];
        let text = table(&["status", "task_id"], &rows, Paint::Colours);
        assert_eq!(text, "STATUS  TASK ID\n\u{1b}[31mfailed\u{1b}[0m  a\n");
    }

    #[test]
    fn a_tasks_own_text_can_not_steer_the_terminal() {
        assert_eq!(cell(&json!("a\u{1b}[2Jb")), "a\u{fffd}[2Jb");
    }
}
