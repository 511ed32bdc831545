//! `export` and `import`: tasks, workflows and schedules as lines of JSON, for a
//! backup and for leaving.
//!
//! The first line says what the file is; the last one how many there should
//! have been. Between them, one line for each thing in the order of submission:
//! of what has not ended the arguments that submit it again, of what has ended
//! what it left.

use super::exit::Exit;
use super::output::{self, Form};
use super::reach::Node;
use super::survey::list;
use super::wait;
use super::words::count;
use crate::api::client::Client;
use crate::driver::wall_clock;
use crate::ops::Code;
use crate::ops::value::{Object, time};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use clap::{Args, ValueHint};
use futures::{StreamExt as _, TryStreamExt as _};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read as _, Write};
use std::path::{Path, PathBuf};
use taskmesh_core::limits;

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// Where to; default: standard output. The file is there whole or not at all.
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    file: Option<PathBuf>,
    /// Leave out what has ended, and its results.
    #[arg(long)]
    open_only: bool,
}

#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// What `taskmesh export` wrote; `-`: from standard input.
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    file: String,
    /// Submit nothing; say what would be.
    #[arg(long)]
    dry_run: bool,
}

/// `export`.
pub(super) async fn export(node: &Node, args: &ExportArgs) -> Result<(), Exit> {
    match &args.file {
        None => {
            write(node, args, &mut output::bytes).await?.told("standard output");
            Ok(())
        }
        Some(path) => {
            let wrong = |e: std::io::Error| Exit::usage(format!("can't write {}: {e}", path.display()));
            let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            // Mode 0600: payloads may hold secrets.
            let mut file = tempfile::Builder::new().prefix(".export-").tempfile_in(folder).map_err(wrong)?;
            let counts = write(node, args, &mut |line| file.write_all(line).map_err(wrong)).await?;
            file.as_file().sync_all().map_err(wrong)?;
            file.persist(path).map_err(|e| wrong(e.error))?;
            counts.told(&path.display().to_string());
            Ok(())
        }
    }
}

/// What was written.
#[derive(Clone, Copy, Debug, Default)]
struct Written {
    open: u64,
    ended: u64,
}

impl Written {
    fn told(self, to: &str) {
        let (open, ended) = (self.open, self.ended);
        output::note(&format!("{open} open and {ended} ended tasks, workflows and schedules written to {to}"));
    }
}

type Line<'a> = dyn FnMut(&[u8]) -> Result<(), Exit> + 'a;

async fn write(node: &Node, args: &ExportArgs, out: &mut Line<'_>) -> Result<Written, Exit> {
    let mut put = |line: Value| out(format!("{line}\n").as_bytes());
    let things = things(node).await?;
    let program = concat!("taskmesh/", env!("CARGO_PKG_VERSION"));
    put(json!({"kind": HEAD, "format": FORMAT, "program": program, "exported_at": time(wall_clock())}))?;
    let wanted = things.into_iter().filter(|thing| !(args.open_only && thing.ended));
    let mut lines = futures::stream::iter(wanted.map(|thing| line(node, thing))).buffered(READERS);
    let mut written = Written::default();
    while let Some(line) = lines.try_next().await? {
        // It may have been forgotten since it was listed.
        let Some(line) = line else { continue };
        *if line["kind"] == RESULT { &mut written.ended } else { &mut written.open } += 1;
        put(line)?;
    }
    put(json!({"kind": END, "open": written.open, "ended": written.ended}))?;
    Ok(written)
}

/// Something that was submitted.
struct Thing {
    id: String,
    workflow: bool,
    ended: bool,
    submitted_at: String,
}

/// Everything in the mesh, in the order of submission; what a workflow made
/// comes back with it.
async fn things(node: &Node) -> Result<Vec<Thing>, Exit> {
    let workflows = all(node, "workflow_list", "workflows", None).await?;
    // One record, whose items are tasks once their turn has come.
    let arrays = all(node, "task_list", "tasks", Some("array")).await?;
    let tasks = all(node, "task_list", "tasks", None).await?;
    let text = |item: &Value, field: &str| item[field].as_str().unwrap_or_default().to_owned();
    let leaders = workflows.iter().map(|flow| text(flow, "workflow_id"));
    let leaders: BTreeSet<String> = leaders.chain(arrays.iter().map(|array| text(array, "task_id"))).collect();
    let made = |id: &str| id.match_indices('/').any(|(at, _)| leaders.contains(&id[..at]));
    let thing = |item: &Value, workflow: bool| {
        let id = text(item, if workflow { "workflow_id" } else { "task_id" });
        Thing { ended: item["end_time"].is_string(), submitted_at: text(item, "submitted_at"), workflow, id }
    };
    let flows = workflows.iter().map(|flow| thing(flow, true));
    let tasks = arrays.iter().chain(&tasks).map(|task| thing(task, false));
    let mut things: Vec<Thing> = flows.chain(tasks).filter(|thing| !made(&thing.id)).collect();
    things.sort_by(|a, b| (&a.submitted_at, &a.id).cmp(&(&b.submitted_at, &b.id)));
    Ok(things)
}

/// Every page of a list; fails where not every node answered: what is left out
/// of a backup is missed when it is too late.
async fn all(node: &Node, operation: &str, field: &str, task_type: Option<&str>) -> Result<Vec<Value>, Exit> {
    let (mut items, mut cursor) = (Vec::new(), Value::Null);
    loop {
        let page = node.call(operation, asked(cursor, task_type)).await?;
        if page["nodes_answered"].as_u64() < page["nodes_expected"].as_u64() {
            let (answered, expected) = (&page["nodes_answered"], &page["nodes_expected"]);
            let problem = format!("{answered} of {expected} nodes answered: some tasks may not be listed");
            return Err(Exit::with(
                Code::Unavailable,
                format!("{problem}; try again when `taskmesh members` shows them up"),
            ));
        }
        items.extend_from_slice(list(&page[field]));
        cursor = page["next_cursor"].clone();
        if cursor.is_null() {
            return Ok(items);
        }
    }
}

fn asked(cursor: Value, task_type: Option<&str>) -> Value {
    let mut arguments = json!({"limit": limits::PAGE, "cursor": cursor});
    if let Some(task_type) = task_type {
        arguments["task_type_filter"] = task_type.into();
    }
    arguments
}

/// The line of one thing; `None`: it was forgotten meanwhile.
async fn line(node: &Node, thing: Thing) -> Result<Option<Value>, Exit> {
    let written = if thing.ended { result(node, &thing).await } else { open(node, &thing).await };
    match written {
        Ok(line) => Ok(Some(line)),
        Err(exit) if exit.is(Code::NotFound) => Ok(None),
        Err(exit) => Err(exit),
    }
}

async fn open(node: &Node, thing: &Thing) -> Result<Value, Exit> {
    let kind = if thing.workflow { WORKFLOW } else { TASK };
    let read = node.read(&Client::submission_uri(&thing.id)).await?;
    let read = read.ok_or_else(|| Exit::usage("an export is read over HTTP: leave out --via, or give --url"))?;
    let kind = if read["arguments"]["schedule"].is_object() { SCHEDULE } else { kind };
    Ok(json!({
        "kind": kind, "id": thing.id, "submitted_at": thing.submitted_at,
        "operation": read["operation"], "arguments": read["arguments"],
    }))
}

async fn result(node: &Node, thing: &Thing) -> Result<Value, Exit> {
    let id = &thing.id;
    let (of, mut left) = if thing.workflow {
        let left = node.call("workflow_result", json!({"workflow_id": id, "include_logs": true})).await?;
        (WORKFLOW, left)
    } else {
        (TASK, wait::whole(node, id).await?)
    };
    if let Some(fields) = left.as_object_mut() {
        fields.retain(|name, _| !["success", "poll_after_ms", "next_output_offset"].contains(&name.as_str()));
    }
    Ok(json!({"kind": RESULT, "of": of, "id": id, "submitted_at": thing.submitted_at, "left": left}))
}

/// `import`.
pub(super) async fn import(node: &Node, args: &ImportArgs) -> Result<(), Exit> {
    let wrong = |e: std::io::Error| Exit::usage(format!("can't read {}: {e}", args.file));
    let mut input: Box<dyn BufRead> = match args.file.as_str() {
        "-" => Box::new(BufReader::new(std::io::stdin())),
        path => Box::new(BufReader::new(std::fs::File::open(path).map_err(wrong)?)),
    };
    let read = Read::of(&mut input).map_err(|problem| Exit::usage(format!("{}: {problem}", args.file)))?;
    let mut done = Imported { results: read.results, ..Imported::default() };
    for entry in &read.entries {
        let arguments = read.arguments(entry);
        let id = arguments["task_id"].as_str().or(arguments["workflow_id"].as_str()).unwrap_or(&entry.id).to_owned();
        match submit(node, entry, &id, arguments, args.dry_run).await? {
            Fate::Taken => done.taken += 1,
            Fate::There(status) => done.there.push(format!("{id}: is there already, {status}")),
            Fate::Refused(why) => done.refused.push(format!("{id}: {why}")),
        }
    }
    done.told(node.form, &read, args.dry_run)
}

/// What a file says.
#[derive(Debug, Default)]
struct Read {
    entries: Vec<Entry>,
    results: u64,
    /// Tasks that have completed: nobody need wait for them.
    completed: BTreeSet<String>,
    schedules: BTreeSet<String>,
    /// Its last line is there.
    whole: bool,
}

/// A line that submits something.
#[derive(Debug)]
struct Entry {
    id: String,
    operation: String,
    arguments: Object,
}

impl Read {
    fn of(input: &mut dyn BufRead) -> Result<Read, String> {
        let mut read = Read::default();
        for n in 1.. {
            let mut text = Vec::new();
            let length = input.take(LINE_BYTES).read_until(b'\n', &mut text).map_err(|e| format!("line {n}: {e}"))?;
            if length == 0 {
                break;
            }
            if length as u64 == LINE_BYTES {
                return Err(format!("line {n} has more than {LINE_BYTES} bytes"));
            }
            if text.trim_ascii().is_empty() {
                continue;
            }
            let line: Value = match serde_json::from_slice(&text) {
                Ok(line) => line,
                // A file that was cut ends in the middle of a line.
                Err(_) if n > 1 && text.last() != Some(&b'\n') => break,
                Err(e) => return Err(format!("line {n} is no JSON: {e}")),
            };
            match (n, line["kind"].as_str()) {
                (1, Some(HEAD)) if line["format"] == FORMAT => {}
                (1, Some(HEAD)) => {
                    let format = &line["format"];
                    return Err(format!(
                        "it has format {format}, and this program reads format {FORMAT}: use the newer program"
                    ));
                }
                (1, _) => return Err("it is no export: the first line does not say so".to_owned()),
                (_, kind) => read.line(kind, &line).map_err(|problem| format!("line {n}: {problem}"))?,
            }
        }
        Ok(read)
    }

    fn line(&mut self, kind: Option<&str>, line: &Value) -> Result<(), String> {
        let text = |field: &str| line[field].as_str().map(str::to_owned).ok_or(format!("there is no {field}"));
        match kind {
            Some(TASK | WORKFLOW | SCHEDULE) => {
                let (id, operation) = (text("id")?, text("operation")?);
                if !["task_submit", "workflow_submit"].contains(&operation.as_str()) {
                    return Err(format!("{operation:?} is no operation that submits"));
                }
                let arguments = line["arguments"].as_object().cloned().ok_or("there are no arguments")?;
                if kind == Some(SCHEDULE) {
                    self.schedules.insert(id.clone());
                }
                self.entries.push(Entry { id, operation, arguments });
            }
            Some(RESULT) => {
                self.results += 1;
                if line["left"]["status"] == "completed" {
                    self.completed.insert(text("id")?);
                }
            }
            Some(END) => self.whole = true,
            // What a later version adds is not for this one.
            Some(_) => {}
            None => return Err("there is no kind".to_owned()),
        }
        Ok(())
    }

    /// The arguments of a line, without waits for what has completed already.
    /// The task of a tick gets a name of its own: what is below the name of a
    /// schedule belongs to it.
    fn arguments(&self, entry: &Entry) -> Value {
        let mut arguments = entry.arguments.clone();
        for field in ["depends_on", "dependencies"] {
            if let Some(awaited) = arguments.get_mut(field).and_then(Value::as_array_mut) {
                awaited.retain(|id| id.as_str().is_none_or(|id| !self.completed.contains(id)));
            }
        }
        let tick = entry.id.rsplit_once('/').filter(|(schedule, _)| self.schedules.contains(*schedule));
        if let (Some((schedule, at)), Some(id)) = (tick, arguments.get_mut("task_id")) {
            *id = format!("{schedule}-{at}").into();
        }
        Value::Object(arguments)
    }
}

/// What became of a line.
enum Fate {
    Taken,
    There(String),
    Refused(String),
}

async fn submit(node: &Node, entry: &Entry, id: &str, arguments: Value, dry_run: bool) -> Result<Fate, Exit> {
    match node.call("task_status", json!({"task_id": id})).await {
        Ok(found) => return Ok(Fate::There(found["status"].as_str().unwrap_or("unknown").to_owned())),
        Err(exit) if exit.is(Code::NotFound) => {}
        Err(exit) => return Err(exit),
    }
    if dry_run {
        return Ok(Fate::Taken);
    }
    let mut trouble = wait::Trouble::default();
    loop {
        match node.call(&entry.operation, arguments.clone()).await {
            // The same id twice in one file, or another import at the same time.
            Ok(answer) if answer["replayed"] == true => return Ok(Fate::There("submitted a moment ago".to_owned())),
            Ok(_) => return Ok(Fate::Taken),
            Err(exit) if exit.is_transient() => trouble.bear(exit).await?,
            Err(exit @ Exit::Failed { code: Code::Unauthenticated | Code::PermissionDenied, .. }) => return Err(exit),
            Err(exit) => return Ok(Fate::Refused(exit.to_string())),
        }
    }
}

#[derive(Debug, Default)]
struct Imported {
    taken: u64,
    there: Vec<String>,
    refused: Vec<String>,
    results: u64,
}

impl Imported {
    fn told(&self, form: Form, read: &Read, dry_run: bool) -> Result<(), Exit> {
        let (taken, results) = (self.taken, self.results);
        let verb = if dry_run { "would be submitted" } else { "submitted" };
        match form {
            Form::Json => output::json(&json!({
                "submitted": taken, "dry_run": dry_run, "there_already": self.there, "refused": self.refused,
                "results_left_out": results, "whole": read.whole,
            }))?,
            Form::Human => {
                self.there.iter().for_each(|line| output::note(line));
                output::raw(&format!(
                    "{taken} {verb}, {} there already, {} refused",
                    self.there.len(),
                    self.refused.len()
                ))?;
                output::raw(&format!("; {} left out: they are for reading\n", count(results, "result")))?;
            }
        }
        if !self.refused.is_empty() {
            let summary = format!("{} of the file were refused:\n  {}", self.refused.len(), self.refused.join("\n  "));
            return Err(Exit::Ended { summary });
        }
        if !read.whole {
            let summary = "the file has no end: it was cut, and what came after is missing".to_owned();
            return Err(Exit::Ended { summary });
        }
        Ok(())
    }
}

/// The whole output of a task, for a result line.
pub(super) fn joined(mut left: Value, output: &[u8]) -> Value {
    match str::from_utf8(output) {
        Ok(text) => {
            left["output"] = text.into();
            left["output_encoding"] = "utf-8".into();
        }
        Err(_) => {
            left["output"] = BASE64_STANDARD.encode(output).into();
            left["output_encoding"] = "base64".into();
        }
    }
    left
}

const FORMAT: u64 = 1;
const HEAD: &str = "taskmesh-export";
const TASK: &str = "task";
const WORKFLOW: &str = "workflow";
const SCHEDULE: &str = "schedule";
const RESULT: &str = "result";
const END: &str = "end";
/// Things that are read at once.
const READERS: usize = 16;
/// No line is longer: the largest output, in base64, and a result.
const LINE_BYTES: u64 = 512 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Read, String> {
        Read::of(&mut text.as_bytes())
    }

    const FILE: &str = r#"{"kind":"taskmesh-export","format":1,"program":"taskmesh/0.1.0"}
{"kind":"result","of":"task","id":"done","left":{"status":"completed"}}
{"kind":"result","of":"task","id":"bad","left":{"status":"failed"}}
{"kind":"schedule","id":"daily","operation":"task_submit","arguments":{"task_id":"daily","schedule":{"cron":"@daily"}}}
{"kind":"task","id":"daily/20300101T000000Z","operation":"task_submit","arguments":{"task_id":"daily/20300101T000000Z"}}
{"kind":"task","id":"a/0","operation":"task_submit","arguments":{"task_id":"a/0","depends_on":["done","bad","open"]}}
{"kind":"later","of":"something"}

{"kind":"end","open":3,"ended":2}
"#;

    #[test]
    fn a_file_says_what_is_to_be_submitted() {
        let read = read(FILE).expect("a file");
        assert_eq!((read.entries.len(), read.results, read.whole), (3, 2, true));
        let arguments: Vec<Value> = read.entries.iter().map(|entry| read.arguments(entry)).collect();
        assert_eq!(arguments[0]["task_id"], "daily");
        // Not below its schedule: that would be refused.
        assert_eq!(arguments[1]["task_id"], "daily-20300101T000000Z");
        assert_eq!(arguments[2], json!({"task_id": "a/0", "depends_on": ["bad", "open"]}));
    }

    #[test]
    fn a_file_that_was_cut_is_read_as_far_as_it_goes_and_known_to_be_cut() {
        let end = FILE.find("{\"kind\":\"end\"").expect("its end");
        for cut in [end, FILE.find("\"depends_on\"").expect("a line")] {
            let read = read(&FILE[..cut]).expect("a file");
            assert!(!read.whole && read.entries.len() >= 2, "{cut}");
        }
    }

    #[test]
    fn what_is_no_export_is_refused_with_the_line() {
        let head = FILE.lines().next().expect("a line");
        let after = |line: &str| format!("{head}\n{line}\n");
        let table = [
            (String::from("{\"kind\":\"task\"}\n"), "it is no export"),
            ("hello\n".to_owned(), "line 1 is no JSON"),
            (head.replace(":1,", ":2,"), "use the newer program"),
            (after("{}"), "line 2: there is no kind"),
            (after("{\"kind\":\"task\",\"id\":\"a\",\"operation\":\"queue_clear\"}"), "no operation that submits"),
            (after("{\"kind\":\"task\",\"id\":\"a\",\"operation\":\"task_submit\"}"), "there are no arguments"),
            (after("no json"), "line 2 is no JSON"),
        ];
        for (text, problem) in table {
            let error = read(&text).expect_err(&text);
            assert!(error.contains(problem), "{text}: {error}");
        }
    }

    #[test]
    fn an_output_that_is_no_text_is_base64() {
        assert_eq!(joined(json!({}), b"hi")["output"], "hi");
        let bytes = joined(json!({}), &[0xff]);
        assert_eq!((&bytes["output"], &bytes["output_encoding"]), (&json!("/w=="), &json!("base64")));
    }
}
