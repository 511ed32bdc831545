//! `docs/operations.md`, written from the table.

use super::value::Object;
use super::{ALL, Code, Kind, Operation, operation};
use serde_json::Value;
use std::fmt::Write as _;

/// The whole page.
#[must_use]
pub fn markdown() -> String {
    let mut page = String::from(HEAD);
    for name in ALL {
        match operation(name) {
            Some(operation) => section(&mut page, operation),
            None => page.push_str(&format!("## `{name}`\n\nNot offered by this version.\n\n")),
        }
    }
    codes(&mut page);
    page
}

fn section(page: &mut String, operation: &Operation) {
    let kind = match operation.kind {
        Kind::Read => "reads",
        Kind::Change => "changes something, and more each time",
        Kind::Repeatable => "changes something, may be repeated",
        Kind::Destructive => "takes something away",
    };
    let Operation { name, title, description, .. } = operation;
    let _ = write!(page, "## `{name}`\n\n*{title}: {kind}.* {description}\n\n");
    page.push_str("| parameter | type | default | meaning |\n|---|---|---|---|\n");
    rows(page, "", &operation.input, Columns::Parameters);
    page.push_str("\n| returns | type | meaning |\n|---|---|---|\n");
    rows(page, "", &operation.output_in_full, Columns::Fields);
    page.push('\n');
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Columns {
    Parameters,
    Fields,
}

fn rows(page: &mut String, prefix: &str, schema: &Object, columns: Columns) {
    let empty = Object::new();
    let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&empty);
    let required = schema.get("required").and_then(Value::as_array);
    for (name, property) in properties {
        let Some(property) = property.as_object() else { continue };
        let (inner, null) = without_null(property);
        let path = format!("{prefix}{name}");
        let meaning = property.get("description").or_else(|| inner.get("description")).and_then(Value::as_str);
        let meaning = meaning.unwrap_or_default().replace('\n', " ").replace('|', "\\|");
        let kind = format!("{}{}", type_of(inner), if null { " or null" } else { "" });
        match columns {
            Columns::Parameters => {
                let must = required.is_some_and(|names| names.iter().any(|n| n == name));
                let default = match property.get("default") {
                    Some(value) => format!("`{value}`"),
                    None if must => "required".to_owned(),
                    None => String::new(),
                };
                let _ = writeln!(page, "| `{path}` | {kind} | {default} | {meaning} |");
            }
            Columns::Fields => {
                let _ = writeln!(page, "| `{path}` | {kind} | {meaning} |");
            }
        }
        rows(page, &format!("{path}."), inner, columns);
        if let Some(items) = inner.get("items").and_then(Value::as_object) {
            rows(page, &format!("{path}[]."), items, columns);
        }
    }
}

fn without_null(property: &Object) -> (&Object, bool) {
    let choices = property.get("anyOf").and_then(Value::as_array);
    let inner = choices.and_then(|all| all.iter().find(|c| c["type"] != "null")).and_then(Value::as_object);
    inner.map_or((property, false), |inner| (inner, true))
}

fn type_of(schema: &Object) -> String {
    if let Some(names) = schema.get("enum").and_then(Value::as_array) {
        return names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
    }
    let number = |key: &str| schema.get(key).map(ToString::to_string);
    let kind = schema.get("type").and_then(Value::as_str).unwrap_or("any JSON");
    let bounds = match kind {
        "string" => span(number("minLength"), number("maxLength"), " bytes"),
        "array" => span(number("minItems"), number("maxItems"), " items"),
        "object" => span(None, number("maxProperties"), " entries"),
        _ => span(number("minimum"), number("maximum"), ""),
    };
    let above = number("exclusiveMinimum").map(|n| format!(", above {n}")).unwrap_or_default();
    match (kind, schema.get("items").and_then(Value::as_object)) {
        ("array", Some(items)) => format!("array of ({}){bounds}", type_of(items)),
        _ => format!("{kind}{bounds}{above}"),
    }
}

fn span(low: Option<String>, high: Option<String>, unit: &str) -> String {
    match (low, high) {
        (Some(low), Some(high)) => format!(", {low} to {high}{unit}"),
        (Some(low), None) => format!(", at least {low}{unit}"),
        (None, Some(high)) => format!(", at most {high}{unit}"),
        (None, None) => String::new(),
    }
}

fn codes(page: &mut String) {
    page.push_str(CODES);
    for code in Code::ALL {
        let meaning = code.meaning();
        let retry = if meaning.retryable { "yes" } else { "no" };
        let _ = writeln!(page, "| `{}` | {} | {} | {retry} |", meaning.name, meaning.exit, meaning.http);
    }
}

const HEAD: &str = "\
# Operations

Written from the table in `src/ops`; `BLESS=1 cargo test --lib ops::` writes it anew.

Every operation is an MCP tool and a command of the command line, with the same names and meanings.
**Success** is one object with `success: true` and the fields below. **Failure** is `success: false`, `error` (one
sentence to act on), `code` (see [Codes](#codes)), `retryable`, where it helps `retry_after_ms` and `details`, and the
ids that were sent. An argument that is null counts as not given; one that is not known is refused, with the names that
are.

Times are RFC 3339, UTC, with milliseconds. Fields named `*_time`, `*_age` and `timeout` are seconds, those named `*_ms`
milliseconds. What was not measured, or not asked for, is null. Any node answers for any task, worker or peer.
No call takes longer than 45 s.

Output is text where it is UTF-8, else base64 (`output_encoding`); 256 KiB come in one answer, and `next_output_offset`
says where to go on. Logs are the last 256 KiB, with whatever is no UTF-8 replaced. A result of over 1 MiB is null, with
`truncated: true`. `output_cid` is the CIDv1 (raw, BLAKE3, base32) of the whole output.

A task of type `exec` needs a worker with the capability `exec:<argv[0]>` or `exec:*`; every item of an array is then
run by a worker that may run all programs of the array.

**Arrays.** The items of `task_submit` are the tasks `<task_id>/0`, `<task_id>/1`, …, of which a failure leaves the
others alone. Up to 10,000 items are tasks at once, each accepted by itself, and `<task_id>` is only their common
name. More, up to 100,000 items and 3 MiB (shared payload and items together, else `payload_too_large`: make several
arrays), wait in one record and become tasks in order, 1,000 at once, or twice as many as the mesh has slots. There:

- `task_status <task_id>` has the percentage that ended (`progress`) and the items by state (`progress_message`;
  those that have no task yet are `waiting`). It is `completed` if all items did, else `failed`.
- `task_result <task_id>` has these counts as `result`, also after the end, and as `output` a line of JSON for each
  item, by index: an object of `index`, `status`, and `result`, `output`, `error` where there are any.
  `output_offset` and `next_output_offset` are indexes. It works at any time; `task_result <task_id>/<n>` has all of
  one item.
- `task_retry <task_id>/<n>` tries a failed item again, also while others run; `task_retry <task_id>`, once the
  array has ended, all that did not complete, as the array `<task_id>-retry-1` with the same indexes. What ended
  stays as it is.
- `task_cancel <task_id>` stops all of it; with `/<n>`, one item, which is then `cancelled` and makes the array
  `failed`.
- An item without a task is `queued` for `task_status`, counted by `queue_stats`, and explained; `task_list` lists
  it once it is a task, and the arrays themselves with `task_type_filter: array`. Items are kept as long as their
  array.
- `queue_clear` cancels the items that are tasks; the rest of the array goes on until it is cancelled. An array
  can't have a `schedule`.

";

const CODES: &str = "\
## Codes

| code | exit status | HTTP status | retryable |
|---|---|---|---|
";
