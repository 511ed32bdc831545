//! The audit log of a node, read from its data folder: it is there whether the
//! node runs or not, and whoever may read the folder may read it.

use super::exit::Exit;
use super::output::{self, Form};
use super::token::span;
use crate::api::audit::{self, FOLDER};
use crate::driver::wall_clock;
use crate::ops::value::{read_time, time};
use clap::Args;
use serde_json::Value;
use std::path::Path;
use taskmesh_core::Unix;

#[derive(Debug, Args)]
pub(super) struct AuditArgs {
    /// From then on: a span back, such as 2h, or a time, such as 2026-11-23T08:00:00Z.
    #[arg(long, value_name = "SPAN|TIME", value_parser = since)]
    since: Option<Unix>,
    /// Calls of this subject alone.
    #[arg(long, value_name = "NAME")]
    subject: Option<String>,
    /// Calls of this operation alone.
    #[arg(long, value_name = "NAME")]
    operation: Option<String>,
}

pub(super) fn since(text: &str) -> Result<Unix, String> {
    if let Ok(span) = span(text) {
        return Ok(Unix(wall_clock().0.saturating_sub(span.0)));
    }
    read_time("TIME", text)
        .map_err(|_| "must be a span, such as 2h, or a time, such as 2026-11-23T08:00:00Z".to_owned())
}

/// Prints what was called, oldest first; with `--json`, one object a line.
pub(super) fn run(form: Form, data: &Path, args: &AuditArgs) -> Result<(), Exit> {
    // Times of one form sort as text.
    let since = args.since.map(time);
    let is = |act: &Value, field: &str, wanted: &Option<String>| {
        wanted.as_ref().is_none_or(|wanted| act[field].as_str() == Some(wanted))
    };
    let mut acts = Vec::new();
    let read = audit::read(data, |act| {
        let late = since.as_ref().is_none_or(|since| act["time"].as_str().is_some_and(|at| at >= since.as_str()));
        if late && is(&act, "subject", &args.subject) && is(&act, "operation", &args.operation) {
            acts.push(act);
        }
    });
    read.map_err(|e| Exit::usage(format!("can't read {}: {e}", data.join(FOLDER).display())))?;
    if form == Form::Json {
        return acts.iter().try_for_each(output::json_line);
    }
    let columns = ["time", "subject", "operation", "outcome", "ids", "transport", "peer", "token"];
    let rows: Vec<Vec<String>> = acts.iter().map(|act| columns.iter().map(|c| cell(&act[*c])).collect()).collect();
    output::raw(&output::plain_table(&columns, &rows))
}

fn cell(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Object(ids) if !ids.is_empty() => ids.values().filter_map(Value::as_str).collect::<Vec<_>>().join(","),
        _ => "-".to_owned(),
    }
}
