//! `workflow run` and `workflow graph`: a workflow from a file or a template, and
//! how it goes, live.

use super::exit::Exit;
use super::layers;
use super::output::{self, Form};
use super::reach::Node;
use super::wait::Trouble;
use crate::ops::graph::{Edge, Node as Step};
use crate::ops::value;
use clap::{Args, ValueHint};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;
use taskmesh_core::{Millis, Unix};

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// The arguments of workflow_submit, or a template: JSON or YAML.
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath, required_unless_present = "template")]
    pub(super) file: Option<PathBuf>,
    /// Instead of a file: a template that a node of the mesh has, ID or ID@VERSIONS.
    #[arg(long, value_name = "ID", conflicts_with = "file")]
    pub(super) template: Option<String>,
    /// A parameter of the template: the text itself where it wants text, else JSON; repeatable.
    ///
    /// Where this machine does not have the template: what reads as JSON is JSON, and all else text.
    #[arg(long = "param", value_name = "NAME=VALUE", value_parser = super::tree::pair)]
    pub(super) params: Vec<(String, String)>,
    /// Your own id, over that of the file.
    #[arg(long)]
    pub(super) workflow_id: Option<String>,
    /// For people, over that of the file or template.
    #[arg(long)]
    pub(super) name: Option<String>,
    /// Only plan.
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Show how it goes until it has ended, then its result; exits with 0 only if it completed.
    #[arg(long, conflicts_with = "dry_run")]
    pub(super) follow: bool,
}

#[derive(Debug, Args)]
pub(super) struct GraphArgs {
    /// Which.
    workflow_id: String,
    /// Print an SVG image.
    #[arg(long)]
    svg: bool,
}

/// Submits `arguments`, and follows what they make if that is asked for.
pub(super) async fn run(node: &Node, arguments: Value, args: &RunArgs) -> Result<(), Exit> {
    let taken = node.call("workflow_submit", arguments).await?;
    if !args.follow {
        return output::answer(node.form, "workflow_submit", &taken);
    }
    let missing = || Exit::internal("the node gave the workflow no id".to_owned());
    let id = taken["workflow_id"].as_str().ok_or_else(missing)?;
    output::note(&format!("workflow {id}: {}", line(taken["message"].as_str().unwrap_or_default())));
    follow(node, id).await
}

/// Shows it until it has ended, and ends as it ended.
async fn follow(node: &Node, id: &str) -> Result<(), Exit> {
    let drawn = Drawn::ask(node, id).await?;
    let pause = if drawn.steps.len() > MANY { SLOW_POLL } else { POLL };
    let (mut screen, mut trouble) = (Screen::new(), Trouble::default());
    let status = loop {
        match node.call("workflow_status", json!({"workflow_id": id})).await {
            Ok(status) => {
                trouble = Trouble::default();
                screen.show(&drawn, &status);
                if status["end_time"].is_string() {
                    break status;
                }
            }
            Err(exit) => trouble.bear(exit).await?,
        }
        tokio::time::sleep(pause).await;
    };
    screen.leave();
    let left = node.call("workflow_result", json!({"workflow_id": id})).await?;
    match node.form {
        Form::Json => output::json(&left)?,
        Form::Human if left["result"].is_null() => {}
        Form::Human => output::json_line(&left["result"])?,
    }
    if status["status"] == "completed" {
        return Ok(());
    }
    let why = status["error"].as_str().map(|e| format!(": {}", line(e))).unwrap_or_default();
    let how = status["status"].as_str().unwrap_or("unknown");
    Err(Exit::Ended { summary: format!("workflow {id} ended as {how}{why}") })
}

/// `workflow graph`.
pub(super) async fn graph(node: &Node, args: &GraphArgs) -> Result<(), Exit> {
    let drawn = Drawn::ask(node, &args.workflow_id).await?;
    if args.svg {
        return output::raw(&layers::svg(&drawn.steps, &drawn.edges, &drawn.path));
    }
    let status = node.call("workflow_status", json!({"workflow_id": args.workflow_id})).await?;
    match node.form {
        Form::Json => {
            output::json(&json!({"levels": drawn.levels_by_name(), "critical_path": drawn.path, "status": status}))
        }
        Form::Human => output::raw(&format!("{}\n", drawn.frame(&status, now(), usize::MAX))),
    }
}

/// The graph of a workflow, which does not change.
struct Drawn {
    steps: Vec<Step>,
    edges: Vec<Edge>,
    path: Vec<String>,
    levels: Vec<Vec<usize>>,
}

impl Drawn {
    async fn ask(node: &Node, id: &str) -> Result<Drawn, Exit> {
        Drawn::read(&node.call("workflow_dependencies", json!({"workflow_id": id})).await?)
    }

    fn read(answer: &Value) -> Result<Drawn, Exit> {
        let wrong = |e: serde_json::Error| Exit::internal(format!("the node sent a graph that is none: {e}"));
        let steps: Vec<Step> = serde_json::from_value(answer["nodes"].clone()).map_err(wrong)?;
        let edges: Vec<Edge> = serde_json::from_value(answer["edges"].clone()).map_err(wrong)?;
        let path = serde_json::from_value(answer["critical_path"].clone()).map_err(wrong)?;
        let levels = layers::levels(&steps, &edges);
        Ok(Drawn { steps, edges, path, levels })
    }

    fn levels_by_name(&self) -> Vec<Vec<&str>> {
        self.levels.iter().map(|level| level.iter().map(|n| self.steps[*n].id.as_str()).collect()).collect()
    }

    /// The steps by level, one a line; of more than `lines`, a line for each level;
    /// of more than those, the first that is not over and what comes after it.
    fn frame(&self, status: &Value, now: Unix, lines: usize) -> String {
        let states = states(status);
        let state = |n: usize| states.get(self.steps[n].id.as_str()).copied();
        if self.steps.len() <= lines {
            let width = self.steps.iter().map(|step| step.id.len()).max().unwrap_or(0);
            let shown = self.levels.iter().enumerate().flat_map(|(level, steps)| {
                steps.iter().enumerate().map(move |(place, n)| (if place == 0 { Some(level + 1) } else { None }, *n))
            });
            let shown = shown.map(|(level, n)| {
                let level = level.map_or(String::new(), |level| level.to_string());
                format!("{level:>4}  {:width$}  {}", self.steps[n].id, about(state(n), now))
            });
            return shown.collect::<Vec<_>>().join("\n");
        }
        let over =
            |n: &usize| state(*n).is_some_and(|step| step["end_time"].is_string() || step["status"] == "skipped");
        let open = self.levels.iter().position(|level| !level.iter().all(over)).unwrap_or(self.levels.len());
        let from = open.min(self.levels.len().saturating_sub(lines));
        let shown = self.levels.iter().enumerate().skip(from).take(lines);
        let tally = |(level, steps): (usize, &Vec<usize>)| {
            let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
            for n in steps {
                *counts.entry(state(*n).map_or("waiting", word)).or_default() += 1;
            }
            let counts: Vec<_> = counts.iter().map(|(word, n)| format!("{n} {word}")).collect();
            format!("{:>4}  {}", level + 1, counts.join(", "))
        };
        shown.map(tally).collect::<Vec<_>>().join("\n")
    }
}

fn states(status: &Value) -> BTreeMap<&str, &Value> {
    let steps = status["steps"].as_array().into_iter().flatten();
    steps.filter_map(|step| Some((step["step_id"].as_str()?, step))).collect()
}

fn word(step: &Value) -> &str {
    step["status"].as_str().unwrap_or("unknown")
}

/// What a step is doing: its state, its tasks where it has many, its time, and
/// what went wrong.
fn about(step: Option<&Value>, now: Unix) -> String {
    let Some(step) = step else { return "unknown".to_owned() };
    let mut text = format!("{:<14}", word(step));
    if let (Some(all), Some(ended)) = (step["tasks"].as_u64(), step["tasks_ended"].as_u64()) {
        let _ = write!(text, " {ended}/{all}");
    }
    let time = |name: &str| step[name].as_str().and_then(|text| value::read_time(name, text).ok());
    if let Some(start) = time("start_time") {
        let took = time("end_time").unwrap_or(now).since(start);
        let _ = write!(text, " {} s", seconds(took));
    }
    if let Some(error) = step["error"].as_str() {
        let _ = write!(text, "  {}", line(error));
    }
    text.trim_end().to_owned()
}

fn seconds(span: Millis) -> String {
    format!("{:.1}", span.0 as f64 / 1000.0)
}

/// What others wrote, on one line that steers no terminal.
fn line(text: &str) -> String {
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LINE + 1).collect();
    if plain.chars().count() > LINE { plain.chars().take(LINE).chain(['…']).collect() } else { plain }
}

fn now() -> Unix {
    crate::driver::wall_clock()
}

/// A bar and a frame below it that are drawn anew; or, where standard error is no
/// terminal, a line for each change.
struct Screen {
    bar: ProgressBar,
    told: BTreeMap<String, String>,
}

impl Screen {
    fn new() -> Screen {
        // Hidden by itself where standard error is no terminal.
        let bar = ProgressBar::with_draw_target(Some(1000), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{bar:40} {prefix} {elapsed_precise}\n{msg}");
        Screen { bar: bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())), told: BTreeMap::new() }
    }

    fn show(&mut self, drawn: &Drawn, status: &Value) {
        if self.bar.is_hidden() {
            changes(&mut self.told, status, now()).iter().for_each(|line| output::note(line));
            return;
        }
        let percent = status["progress"].as_f64().unwrap_or(0.0);
        self.bar.set_position((percent * 10.0) as u64);
        self.bar.set_prefix(format!("{percent:.0} % {}", word(status)));
        self.bar.set_message(drawn.frame(status, now(), LINES));
    }

    /// What was shown last stays.
    fn leave(&self) {
        self.bar.abandon();
    }
}

/// A line for each step whose state is another than the one that was told.
fn changes(told: &mut BTreeMap<String, String>, status: &Value, now: Unix) -> Vec<String> {
    let mut lines = Vec::new();
    for step in status["steps"].as_array().into_iter().flatten() {
        let (id, word) = (step["step_id"].as_str().unwrap_or_default(), word(step));
        let before = told.get(id).map_or("waiting", String::as_str);
        if before != word {
            lines.push(format!("{id}: {}", about(Some(step), now).split_whitespace().collect::<Vec<_>>().join(" ")));
            told.insert(id.to_owned(), word.to_owned());
        }
    }
    lines
}

const POLL: Duration = Duration::from_millis(250);
/// The states of more steps than this are asked for more rarely.
const MANY: usize = 500;
const SLOW_POLL: Duration = Duration::from_secs(2);
/// Lines of a frame: what the smallest usual terminal shows.
const LINES: usize = 20;
/// Characters of a text of others.
const LINE: usize = 100;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn drawn(steps: usize) -> Drawn {
        let nodes: Vec<_> = (0..steps)
            .map(|n| json!({"id": format!("s{n}"), "label": format!("s{n}: echo"), "status": "waiting"}))
            .collect();
        let edges: Vec<_> = (1..steps).map(|n| json!({"from": "s0", "to": format!("s{n}")})).collect();
        Drawn::read(&json!({"nodes": nodes, "edges": edges, "critical_path": ["s0"]})).unwrap()
    }

    fn status() -> Value {
        json!({"status": "running", "progress": 50.0, "steps": [
            {"step_id": "s0", "status": "completed", "start_time": "2026-01-01T00:00:00.000Z", "end_time": "2026-01-01T00:00:01.500Z"},
            {"step_id": "s1", "status": "running", "start_time": "2026-01-01T00:00:02.000Z", "end_time": null, "tasks": 12, "tasks_ended": 3},
            {"step_id": "s2", "status": "failed", "start_time": null, "end_time": null, "error": "bad\u{1b}[2J\nworse"},
        ]})
    }

    fn at(text: &str) -> Unix {
        value::read_time("at", text).unwrap()
    }

    #[test]
    fn a_frame_has_levels_states_and_times() {
        let frame = drawn(4).frame(&status(), at("2026-01-01T00:00:04.000Z"), 10);
        let wanted = "   1  s0  completed      1.5 s
   2  s1  running        3/12 2.0 s
      s2  failed          bad [2J worse
      s3  unknown";
        assert_eq!(frame, wanted);
    }

    #[test]
    fn many_steps_are_counted_by_level() {
        let frame = drawn(30).frame(&status(), at("2026-01-01T00:00:04.000Z"), 10);
        assert_eq!(frame, "   1  1 completed\n   2  1 failed, 1 running, 27 waiting");
        let chain = Drawn { levels: (0..30).map(|n| vec![n]).collect(), ..drawn(30) };
        let frame = chain.frame(&status(), at("2026-01-01T00:00:04.000Z"), 10);
        assert_eq!(frame.lines().count(), 10);
        assert!(frame.starts_with("   2  1 running\n"), "{frame}");
    }

    #[test]
    fn a_change_is_told_once() {
        let mut told = BTreeMap::new();
        let now = at("2026-01-01T00:00:04.000Z");
        assert_eq!(
            changes(&mut told, &status(), now),
            ["s0: completed 1.5 s", "s1: running 3/12 2.0 s", "s2: failed bad [2J worse"]
        );
        let mut status = status();
        assert_eq!(changes(&mut told, &status, now), Vec::<String>::new());
        status["steps"][1]["status"] = "completed".into();
        assert_eq!(changes(&mut told, &status, now), ["s1: completed 3/12 2.0 s"]);
    }
}
