//! The result cache: what nodes keep, and what is dropped of it.

use super::exit::Exit;
use super::output::{self, Form};
use super::reach::Node;
use crate::api::cache::{INVALIDATE, PATH, Wanted};
use clap::{Args, Subcommand};
use serde_json::Value;

#[derive(Debug, Subcommand)]
pub(super) enum CacheCommand {
    /// Show what each node keeps of results, and what became of them.
    Stats,
    /// Drop results on every node that can be reached.
    ///
    /// Says how many went, and which nodes did not answer: these may keep them
    /// until their time is over.
    Invalidate(WhichArgs),
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct WhichArgs {
    /// The result of this key: `cached_from.key` of a task that took it.
    #[arg(long)]
    key: Option<String>,
    /// The result that this task left: `cached_from.task_id` of one that took it.
    #[arg(long, value_name = "TASK_ID")]
    task: Option<String>,
    /// The results of tasks of this type.
    #[arg(long = "type", value_name = "TASK_TYPE")]
    task_type: Option<String>,
    /// The results of tasks with this tag.
    #[arg(long)]
    tag: Option<String>,
}

pub(super) async fn run(node: &Node, command: &CacheCommand) -> Result<(), Exit> {
    match command {
        CacheCommand::Stats => {
            let answer = node.admin("GET", PATH, None).await?;
            shown(node.form, &answer)
        }
        CacheCommand::Invalidate(args) => {
            let wanted = Wanted {
                key: args.key.clone(),
                task: args.task.clone(),
                task_type: args.task_type.clone(),
                tag: args.tag.clone(),
            };
            let body = serde_json::to_value(&wanted).map_err(|e| Exit::usage(e.to_string()))?;
            let answer = node.admin("POST", INVALIDATE, Some(body)).await?;
            dropped(node.form, &answer)
        }
    }
}

fn shown(form: Form, answer: &Value) -> Result<(), Exit> {
    if form == Form::Json {
        return output::json(answer);
    }
    let columns = ["node_id", "entries", "bytes", "hits", "misses", "joined", "under_way", "gone"];
    let cell = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Object(gone) if gone.is_empty() => "-".to_owned(),
        Value::Object(gone) => gone.iter().map(|(why, n)| format!("{why} {n}")).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    };
    let nodes = answer["nodes"].as_array().into_iter().flatten();
    let rows: Vec<Vec<String>> = nodes.map(|node| columns.iter().map(|column| cell(&node[column])).collect()).collect();
    output::raw(&output::plain_table(&columns, &rows))?;
    output::raw(&silence(answer))
}

fn dropped(form: Form, answer: &Value) -> Result<(), Exit> {
    if form == Form::Json {
        return output::json(answer);
    }
    let (entries, copies) = (&answer["entries"], &answer["copies"]);
    output::raw(&format!("{entries} results are gone, with {copies} copies\n{}", silence(answer)))
}

fn silence(answer: &Value) -> String {
    let silent = answer["silent_nodes"].as_array().into_iter().flatten();
    silent.filter_map(Value::as_str).map(|node| format!("{node} did not answer\n")).collect()
}
