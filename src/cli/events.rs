//! `events`: what happens in the mesh, as lines.
//!
//! No node keeps a journal of the mesh. What happened is read from the times
//! that tasks have; what happens, from how successive lists differ, each taken
//! when the node tells of a change, or after two seconds.

use super::audit::since;
use super::exit::Exit;
use super::output::{self, Form};
use super::reach::{News, Node};
use super::survey::{State, Survey, list};
use super::wait::Trouble;
use super::words;
use crate::driver::wall_clock;
use crate::ops::Code;
use crate::ops::value::{read_time, task_cursor, time};
use clap::Args;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use taskmesh_core::view::Status;
use taskmesh_core::{TaskId, Unix, limits};

#[derive(Debug, Args)]
pub(super) struct EventsArgs {
    /// Go on: tell what happens from now on, until it is stopped.
    #[arg(long, short)]
    follow: bool,
    /// What happened since then: a span back, such as 2h, or a time; default: 10m, and with --follow nothing.
    #[arg(long, value_name = "SPAN|TIME", value_parser = since)]
    since: Option<Unix>,
}

pub(super) async fn run(node: &Node, args: &EventsArgs) -> Result<(), Exit> {
    if args.since.is_some() || !args.follow {
        let from = args.since.unwrap_or_else(|| Unix(wall_clock().0.saturating_sub(RECENT_MS)));
        let mut events = past(node, from).await?;
        events.retain(|event| event.time >= time(from));
        print(node.form, events)?;
    }
    if args.follow { follow(node).await } else { Ok(()) }
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Event {
    /// RFC 3339: times of one form sort as text.
    time: String,
    /// Of what: `task`, `node` or `queue`.
    kind: &'static str,
    /// Which.
    id: String,
    /// What happened to it.
    what: String,
}

fn print(form: Form, mut events: Vec<Event>) -> Result<(), Exit> {
    events.sort();
    events.iter().try_for_each(|event| {
        let Event { time, kind, id, what } = event;
        match form {
            Form::Json => output::json_line(&json!({"time": time, "kind": kind, "id": id, "what": what})),
            Form::Human => {
                output::raw(&format!("{time}  {kind:<5}  {}  {}\n", words::line(id, 80), words::line(what, 160)))
            }
        }
    })
}

/// What tasks and the connections of now say of the past.
async fn past(node: &Node, from: Unix) -> Result<Vec<Event>, Exit> {
    let total = node.call("task_list", json!({"limit": 1})).await?["total_count"].as_u64().unwrap_or(0);
    let mut cursor = None;
    if total > LISTED {
        output::note(&format!(
            "of {total} tasks, those are looked at that were submitted since then or in the day before"
        ));
        cursor = Some(after(Unix(from.0.saturating_sub(DAY_MS))));
    }
    let survey = Survey::ask(node).await?;
    let mut events: Vec<Event> = survey
        .members
        .iter()
        .filter_map(|m| {
            let (time, id) = (m.connected_since.as_str()?.to_owned(), m.shown());
            Some(Event { time, kind: "node", id, what: "connected".to_owned() })
        })
        .collect();
    loop {
        let page = node.call("task_list", json!({"limit": limits::PAGE, "cursor": cursor})).await?;
        events.extend(list(&page["tasks"]).iter().flat_map(|task| of_task(task, None)));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = Some(next.to_owned()),
            None => return Ok(events),
        }
    }
}

/// The cursor before all tasks that were submitted from then on.
fn after(time: Unix) -> String {
    let least = TaskId::new("!").expect("one printable byte");
    task_cursor(time, &least)
}

/// What was last seen of an open task.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    status: String,
    attempt: u64,
}

fn seen(task: &Value) -> Seen {
    let status = task["status"].as_str().unwrap_or("unknown").to_owned();
    Seen { status, attempt: task["attempt"].as_u64().unwrap_or(0) }
}

fn over(status: &str) -> bool {
    Status::from_name(status).is_some_and(Status::terminal)
}

/// What a task's times say that was not known `before`.
fn of_task(task: &Value, before: Option<&Seen>) -> Vec<Event> {
    let now = seen(task);
    let event = |at: &str, what: String| {
        let id = task["task_id"].as_str()?.to_owned();
        Some(Event { time: task[at].as_str()?.to_owned(), kind: "task", id, what })
    };
    let kind = task["task_type"].as_str().unwrap_or("unknown");
    let submitted = before.is_none().then(|| event("submitted_at", format!("submitted: {kind}"))).flatten();
    let known = before.filter(|b| ["running"].contains(&b.status.as_str())).map_or(0, |b| b.attempt);
    let began = (now.attempt > known && task["start_time"].is_string()).then(|| {
        let worker = task["worker_id"].as_str().unwrap_or("a worker that is not known");
        let again = if now.attempt > 1 { format!(" (attempt {})", now.attempt) } else { String::new() };
        event("start_time", format!("runs on {worker}{again}"))
    });
    let ended = over(&now.status).then(|| {
        let error = task["error"].as_str().map(|why| format!(": {why}")).unwrap_or_default();
        event("end_time", format!("{}{error}", now.status))
    });
    submitted.into_iter().chain(began.flatten()).chain(ended.flatten()).collect()
}

/// What was last seen of the mesh.
#[derive(Default)]
struct Watch {
    /// Open tasks.
    tasks: BTreeMap<String, Seen>,
    /// Ended ones that may come in a list once more.
    ended: BTreeSet<String>,
    members: BTreeMap<String, State>,
    paused: Option<bool>,
    /// The time of the newest submission that was seen.
    newest: Unix,
}

impl Watch {
    fn task(&mut self, task: &Value) -> Vec<Event> {
        let Some(id) = task["task_id"].as_str() else { return Vec::new() };
        if let Some(Ok(at)) = task["submitted_at"].as_str().map(|at| read_time("submitted_at", at)) {
            self.newest = self.newest.max(at);
        }
        if self.ended.contains(id) {
            return Vec::new();
        }
        let now = seen(task);
        let events = of_task(task, self.tasks.get(id));
        if over(&now.status) {
            self.tasks.remove(id);
            self.ended.insert(id.to_owned());
        } else {
            self.tasks.insert(id.to_owned(), now);
        }
        events
    }

    /// What of the mesh is otherwise than it was. The first look tells nothing.
    fn survey(&mut self, survey: &Survey, now: Unix) -> Vec<Event> {
        let mut events = Vec::new();
        let mut tell = |kind, id: String, what: String| events.push(Event { time: time(now), kind, id, what });
        let paused = survey.stats["paused"].as_bool().unwrap_or(false);
        if self.paused.is_some_and(|before| before != paused) {
            let why = survey.stats["pause_reason"].as_str().map(|why| format!(": {why}")).unwrap_or_default();
            tell("queue", "queue".to_owned(), if paused { format!("paused{why}") } else { "goes on".to_owned() });
        }
        let quiet = self.paused.replace(paused).is_none();
        for member in &survey.members {
            let before = self.members.insert(member.peer_id.clone(), member.state);
            if before != Some(member.state) && !quiet {
                let new = if before.is_none() { "new: " } else { "" };
                tell("node", member.shown(), format!("{new}{}", member.state.name()));
            }
        }
        let gone: Vec<String> =
            self.members.keys().filter(|peer| survey.members.iter().all(|m| m.peer_id != **peer)).cloned().collect();
        for peer in gone {
            self.members.remove(&peer);
            tell("node", words::tail(&peer).to_owned(), "no longer known".to_owned());
        }
        events
    }

    /// One look at everything.
    async fn look(&mut self, node: &Node) -> Result<Vec<Event>, Exit> {
        let mut events = self.survey(&Survey::ask(node).await?, wall_clock());
        let before: BTreeSet<String> = self.tasks.keys().cloned().collect();
        let mut there = BTreeSet::new();
        for status in ["running", "leased", "queued"] {
            let page = node.call("task_list", json!({"status_filter": status, "limit": limits::PAGE})).await?;
            for task in list(&page["tasks"]) {
                there.extend(task["task_id"].as_str().map(str::to_owned));
                events.extend(self.task(task));
            }
        }
        events.extend(self.since_newest(node).await?);
        // What was open and is in no list has ended, or is one of too many.
        for id in before.difference(&there).take(ASKED) {
            match node.call("task_status", json!({"task_id": id})).await {
                Ok(task) => events.extend(self.task(&task)),
                Err(exit) if exit.is(Code::NotFound) => drop(self.tasks.remove(id)),
                Err(exit) => return Err(exit),
            }
        }
        while self.ended.len() > limits::PAGE * 4 {
            self.ended.pop_first();
        }
        Ok(events)
    }

    /// Tasks that came since the last look, those that have ended already
    /// among them.
    async fn since_newest(&mut self, node: &Node) -> Result<Vec<Event>, Exit> {
        let mut events = Vec::new();
        // The clocks of nodes differ, and a list takes its time.
        let mut cursor = after(Unix(self.newest.0.saturating_sub(BACK_MS)));
        loop {
            let page = node.call("task_list", json!({"limit": limits::PAGE, "cursor": cursor})).await?;
            for task in list(&page["tasks"]) {
                events.extend(self.task(task));
            }
            match page["next_cursor"].as_str() {
                Some(next) => cursor = next.to_owned(),
                None => return Ok(events),
            }
        }
    }
}

async fn follow(node: &Node) -> Result<(), Exit> {
    let mut watch = Watch { newest: wall_clock(), ..Watch::default() };
    // What was before is no news.
    watch.look(node).await?;
    output::tell_person("what happens from now on; Ctrl-C ends it");
    let mut news = node.news(&RESOURCES).await.ok().flatten();
    let mut trouble = Trouble::default();
    loop {
        changed(&mut news).await;
        match watch.look(node).await {
            Ok(events) => {
                trouble = Trouble::default();
                print(node.form, events)?;
            }
            Err(exit) => {
                trouble.bear(exit).await?;
                news = node.news(&RESOURCES).await.ok().flatten();
            }
        }
    }
}

/// Until the node tells of a change, or for two seconds.
pub(super) async fn changed(news: &mut Option<News>) {
    let told = async {
        match news.as_mut() {
            Some(open) => open.next().await.is_ok(),
            None => std::future::pending().await,
        }
    };
    match tokio::time::timeout(LOOK, told).await {
        Ok(false) => *news = None,
        // What happens at once is told at once.
        Ok(true) => tokio::time::sleep(GAP).await,
        Err(_) => {}
    }
}

/// What a node tells the changes of.
pub(super) const RESOURCES: [&str; 3] = ["mesh://queue", "mesh://peers", "mesh://workers"];
const LOOK: Duration = Duration::from_secs(2);
const GAP: Duration = Duration::from_millis(100);
/// Without --since and --follow, so far back.
const RECENT_MS: u64 = 600_000;
const DAY_MS: u64 = 86_400_000;
/// Of more tasks than this, only the newer are looked at.
const LISTED: u64 = 10_000;
/// How far before the newest submission a look for new ones begins.
const BACK_MS: u64 = 5_000;
/// Tasks whose end is asked after in one look.
const ASKED: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::survey::tests::survey;

    fn task(status: &str, attempt: u64, start: Option<&str>, end: Option<&str>) -> Value {
        json!({"task_id": "t", "task_type": "exec", "status": status, "attempt": attempt, "worker_id": "w",
            "submitted_at": "2026-01-01T00:00:00.000Z", "start_time": start, "end_time": end})
    }

    fn told(watch: &mut Watch, task: &Value) -> Vec<String> {
        watch.task(task).into_iter().map(|e| e.what).collect()
    }

    #[test]
    fn each_turn_of_a_task_is_told_once() {
        let mut watch = Watch::default();
        let (one, two) = (Some("2026-01-01T00:00:01.000Z"), Some("2026-01-01T00:00:09.000Z"));
        assert_eq!(told(&mut watch, &task("queued", 0, None, None)), ["submitted: exec"]);
        assert_eq!(told(&mut watch, &task("leased", 1, None, None)), [""; 0]);
        assert_eq!(told(&mut watch, &task("running", 1, one, None)), ["runs on w"]);
        assert_eq!(told(&mut watch, &task("running", 1, one, None)), [""; 0]);
        assert_eq!(told(&mut watch, &task("running", 2, one, None)), ["runs on w (attempt 2)"]);
        let mut failed = task("failed", 2, one, two);
        failed["error"] = "broken".into();
        assert_eq!(told(&mut watch, &failed), ["failed: broken"]);
        assert_eq!(told(&mut watch, &failed), [""; 0]);
        assert!(watch.tasks.is_empty());
    }

    #[test]
    fn a_task_that_came_and_went_between_two_looks_is_told_whole() {
        let (start, end) = (Some("2026-01-01T00:00:01.000Z"), Some("2026-01-01T00:00:02.000Z"));
        let events = Watch::default().task(&task("completed", 1, start, end));
        let wanted = [("00:00:00", "submitted: exec"), ("00:00:01", "runs on w"), ("00:00:02", "completed")];
        assert_eq!(events.len(), wanted.len());
        for (event, (at, what)) in events.iter().zip(wanted) {
            assert!(event.time.contains(at) && event.what == what, "{event:?}");
        }
    }

    #[test]
    fn nodes_and_pauses_are_told_when_they_change() {
        let (mut watch, mut mesh, now) = (Watch::default(), survey(), Unix(0));
        assert_eq!(watch.survey(&mesh, now), []);
        assert_eq!(watch.survey(&mesh, now), []);
        mesh.members[0].state = State::Away;
        mesh.members.pop();
        mesh.stats["paused"] = true.into();
        mesh.stats["pause_reason"] = "lunch".into();
        let told: Vec<_> = watch.survey(&mesh, now).into_iter().map(|e| format!("{} {}", e.id, e.what)).collect();
        assert_eq!(told, ["queue paused: lunch", "alpha away", "cccc3333 no longer known"]);
    }
}
