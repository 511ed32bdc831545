//! `status` and `members`: the mesh at a glance, and each of its nodes.

use super::exit::Exit;
use super::monitors::{self, Monitor};
use super::output::{self, Form};
use super::reach::Node;
use super::survey::{Member, State, Survey, list};
use super::words::{self, count};
use crate::driver::wall_clock;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use taskmesh_core::Unix;
use taskmesh_core::forgotten::FRESH_START;

/// `members`.
pub(super) async fn members(node: &Node) -> Result<(), Exit> {
    let survey = Survey::ask(node).await?;
    match node.form {
        Form::Json => output::json(&json!({"members": survey.members.iter().map(Member::object).collect::<Vec<_>>()})),
        Form::Human => output::raw(&members_table(&survey.members, wall_clock())),
    }
}

fn members_table(members: &[Member], now: Unix) -> String {
    let row = |m: &Member| {
        let dash = || "-".to_owned();
        let heard = if m.asked { "asked".to_owned() } else { words::ago(&m.last_seen, now) };
        vec![
            m.name.as_deref().map_or_else(dash, |name| words::line(name, 40)),
            m.state.name().to_owned(),
            m.program.clone().unwrap_or_else(dash),
            m.roles().to_owned(),
            m.latency_ms.map_or_else(dash, |ms| format!("{ms:.1} ms")),
            heard,
            m.peer_id.clone(),
            m.address.as_deref().map_or_else(dash, |address| words::line(address, 120)),
        ]
    };
    let columns = ["name", "state", "version", "roles", "latency", "heard", "peer_id", "address"];
    output::plain_table(&columns, &members.iter().map(row).collect::<Vec<_>>())
}

/// What is shown beside the survey.
#[derive(Default)]
struct More {
    running: Value,
    workflows: Value,
    /// Of the longest waiting tasks: id, and why.
    waiting: Vec<(String, String)>,
    /// By peer id; `None`: this machine does not have the node's data folder.
    monitors: Option<BTreeMap<String, Monitor>>,
    /// The mesh has forgotten the node that is asked.
    outcast: bool,
}

/// `status`.
pub(super) async fn status(node: &Node) -> Result<(), Exit> {
    let survey = Survey::ask(node).await?;
    let running = node.call("task_list", json!({"status_filter": "running", "limit": ROWS}));
    let workflows = node.call("workflow_list", json!({"status_filter": "running", "limit": ROWS}));
    let queued = node.call("task_list", json!({"status_filter": "queued", "limit": EXPLAINED}));
    let watched = async {
        match &node.info {
            Some(info) => monitors::ask(info).await.ok(),
            None => None,
        }
    };
    let outcast = super::forget::is_outcast(node, &survey);
    let (running, workflows, queued, monitors, outcast) = futures::join!(running, workflows, queued, watched, outcast);
    let (running, workflows, queued) = (running?, workflows?, queued?);
    let waiting = futures::future::join_all(list(&queued["tasks"]).iter().map(|task| why(node, task))).await;
    let waiting = waiting.into_iter().flatten().collect();
    let more = More { running, workflows, waiting, monitors, outcast };
    match node.form {
        Form::Json => output::json(&object(&survey, &more)),
        Form::Human => output::raw(&screen(&survey, &more, wall_clock())),
    }
}

/// A task that waits, and why; nothing of one that began meanwhile.
async fn why(node: &Node, task: &Value) -> Option<(String, String)> {
    let id = task["task_id"].as_str()?;
    let status = node.call("task_status", json!({"task_id": id, "explain": true})).await.ok()?;
    Some((id.to_owned(), status["explanation"]["summary"].as_str()?.to_owned()))
}

fn object(survey: &Survey, more: &More) -> Value {
    let mut queue = survey.stats.clone();
    if let Some(fields) = queue.as_object_mut() {
        fields.shift_remove("success");
    }
    let waiting: Vec<_> = more.waiting.iter().map(|(task, why)| json!({"task_id": task, "summary": why})).collect();
    json!({
        "members": survey.members.iter().map(Member::object).collect::<Vec<_>>(),
        "queue": queue, "running": more.running["tasks"], "waiting": waiting,
        "workflows_running": more.workflows["total_count"], "workflows": more.workflows["workflows"],
        "forgotten": more.outcast,
        "tasks_short_of_copies": more.short_of_copies().map(|(tasks, _)| tasks),
        "disk_free_bytes_least": more.least_room().map(|(free, _)| free),
        "metrics_read": more.monitors.as_ref().map(|all| all.values().filter(|m| m.read.is_some()).count()),
    })
}

impl More {
    fn readings(&self, name: &str) -> impl Iterator<Item = (&str, f64)> {
        let all = self.monitors.iter().flatten();
        let name = name.to_owned();
        all.filter_map(move |(peer, monitor)| Some((peer.as_str(), monitor.read.as_ref()?.value(&name)?)))
    }

    /// Tasks short of copies, as far as so many nodes say.
    fn short_of_copies(&self) -> Option<(f64, usize)> {
        let told: Vec<f64> = self.readings("taskmesh_tasks_short_of_copies").map(|(_, n)| n).collect();
        (!told.is_empty()).then(|| (told.iter().sum(), told.len()))
    }

    /// The least room on a disk, and where.
    fn least_room(&self) -> Option<(f64, &str)> {
        let told = self.readings("taskmesh_store_disk_free_bytes").map(|(peer, free)| (free, peer));
        told.min_by(|a, b| a.0.total_cmp(&b.0))
    }
}

/// All of it, on one screen.
fn screen(survey: &Survey, more: &More, now: Unix) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<10}{value}");
    };
    if more.outcast {
        line("FORGOTTEN", format!(" the mesh goes on without the node that is asked: {FRESH_START}"));
    }
    line("mesh", mesh_line(survey));
    line("version", versions(survey));
    line("queue", queue_line(survey));
    line("pace", pace_line(survey));
    line("ended", ended_line(survey));
    line("workers", workers_line(survey));
    line("workflows", format!("{} running", more.workflows["total_count"].as_u64().unwrap_or(0)));
    line("copies", copies_line(survey, more));
    if let Some((free, peer)) = more.least_room() {
        let name = survey
            .members
            .iter()
            .find(|m| m.peer_id == peer)
            .map_or_else(|| words::tail(peer).to_owned(), Member::shown);
        line("disk", format!("{} free on {name}, which has least", words::bytes(free)));
    }
    text.push('\n');
    text.push_str(&nodes_table(&survey.members, now));
    section(&mut text, "running", list(&more.running["tasks"]), &more.running, |task| {
        let began = words::ago(&task["start_time"], now);
        vec![id(task, "task_id"), plain(&task["task_type"]), plain(&task["worker_id"]), format!("for {began}")]
    });
    section(&mut text, "workflows", list(&more.workflows["workflows"]), &more.workflows, |flow| {
        let progress = flow["progress"].as_f64().map_or_else(|| "-".to_owned(), |percent| format!("{percent:.0} %"));
        vec![id(flow, "workflow_id"), plain(&flow["name"]), plain(&flow["status"]), progress]
    });
    if !more.waiting.is_empty() {
        let _ = writeln!(text, "\nwaiting");
        for (task, why) in &more.waiting {
            let _ = writeln!(text, "  {}: {}", words::line(task, 40), words::line(why, 110));
        }
    }
    text
}

fn mesh_line(survey: &Survey) -> String {
    let states = [State::Up, State::Draining, State::Connecting, State::Away];
    let counts = states.map(|state| (survey.in_state(state), state.name()));
    let counts: Vec<_> = counts.iter().filter(|(n, _)| *n > 0).map(|(n, name)| format!("{n} {name}")).collect();
    let (answered, expected) = (survey.number("nodes_answered"), survey.number("nodes_expected"));
    let silent = if answered < expected { format!("; {answered} of {expected} answered") } else { String::new() };
    let asked = survey.members.iter().find(|m| m.asked).map_or_else(String::new, |m| format!("; asked {}", m.shown()));
    format!("{}: {}{silent}{asked}", count(survey.members.len() as u64, "node"), counts.join(", "))
}

fn versions(survey: &Survey) -> String {
    match &survey.programs()[..] {
        [] => "not told".to_owned(),
        [(one, _)] => one.clone(),
        several => several.iter().map(|(program, n)| format!("{program} on {n}")).collect::<Vec<_>>().join(", "),
    }
}

fn queue_line(survey: &Survey) -> String {
    let stats = &survey.stats;
    let state = match (stats["paused"].as_bool(), stats["pause_reason"].as_str()) {
        (Some(true), Some(why)) => format!("PAUSED ({}): ", words::line(why, 60)),
        (Some(true), None) => "PAUSED: ".to_owned(),
        _ => String::new(),
    };
    let counts = [
        ("queued", "queued_count"),
        ("delayed", "delayed_count"),
        ("blocked", "blocked_count"),
        ("running", "running_count"),
    ];
    let counts = counts.map(|(name, field)| format!("{} {name}", survey.number(field)));
    let oldest = stats["oldest_queued_age"].as_f64().map(|age| format!("; the oldest ready for {}", words::span(age)));
    let reasons = stats["waiting"].as_object().into_iter().flatten().filter(|(_, n)| n.as_u64() > Some(0));
    let reasons: Vec<_> = reasons.map(|(reason, n)| format!("{n} {reason}")).collect();
    let why =
        if reasons.is_empty() { String::new() } else { format!("\n          why they wait: {}", reasons.join(", ")) };
    format!("{state}{}{}{why}", counts.join(", "), oldest.unwrap_or_default())
}

fn pace_line(survey: &Survey) -> String {
    let average = |field: &str| survey.stats[field].as_f64().map_or_else(|| "not measured".to_owned(), words::span);
    let (rate, waits, runs) = (
        survey.stats["throughput"].as_f64().unwrap_or(0.0),
        average("average_wait_time"),
        average("average_execution_time"),
    );
    format!("{rate:.1} tasks a minute over the last 5; they wait {waits} and run {runs} on average")
}

fn ended_line(survey: &Survey) -> String {
    let counts = ["completed", "failed", "cancelled", "expired"];
    let counts = counts.map(|name| format!("{} {name}", survey.number(&format!("{name}_count"))));
    format!("{}, as far as they are kept", counts.join(", "))
}

fn workers_line(survey: &Survey) -> String {
    let workers = list(&survey.stats["worker_stats"]);
    let sum = |of: &dyn Fn(&Value) -> Option<u64>| workers.iter().filter_map(of).sum::<u64>();
    let slots = sum(&|w| w["max_concurrent_tasks"].as_u64());
    let running = sum(&|w| w["running_tasks"].as_u64());
    // A worker of short tasks has room for more than it has slots: they wait there.
    let free = sum(&|w| Some(w["metrics"]["free_slots"].as_u64()?.min(w["max_concurrent_tasks"].as_u64()?)));
    format!("{}, {running} of {} taken, {free} free now", count(workers.len() as u64, "worker"), count(slots, "slot"))
}

fn copies_line(survey: &Survey, more: &More) -> String {
    let Some((short, told)) = more.short_of_copies() else {
        return "not known here: the metrics of the nodes say it".to_owned();
    };
    let of = survey.members.len();
    let told = if told < of { format!(", as far as {told} of {of} nodes say") } else { String::new() };
    match short {
        n if n > 0.0 => format!("{} short of copies{told}", count(n as u64, "task")),
        _ => format!("every task has as many as it should{told}"),
    }
}

/// The nodes; of many, those that are not up and the first others.
fn nodes_table(members: &[Member], now: Unix) -> String {
    let odd = members.iter().filter(|m| m.state != State::Up);
    let shown: Vec<&Member> = odd.chain(members.iter().filter(|m| m.state == State::Up)).take(NODES).collect();
    let row = |m: &&Member| {
        let (slots, running) = m.slots();
        let measured = |field: &str| m.workers.iter().find_map(|w| w["metrics"][field].as_f64());
        let dash = || "-".to_owned();
        let heard = if m.asked { "asked".to_owned() } else { words::ago(&m.last_seen, now) };
        vec![
            m.shown(),
            m.state.name().to_owned(),
            format!("{running}/{slots}"),
            measured("cpu_percent").map_or_else(dash, |percent| format!("{percent:.0} %")),
            measured("memory_mb").map_or_else(dash, |mib| words::bytes(mib * 1_048_576.0)),
            m.latency_ms.map_or_else(dash, |ms| format!("{ms:.1} ms")),
            heard,
        ]
    };
    let columns = ["node", "state", "running", "cpu", "memory", "latency", "heard"];
    let mut text = output::plain_table(&columns, &shown.iter().map(row).collect::<Vec<_>>());
    if members.len() > shown.len() {
        let _ = writeln!(text, "and {} more: `taskmesh members`", members.len() - shown.len());
    }
    text
}

fn section(text: &mut String, name: &str, items: &[Value], page: &Value, row: impl Fn(&Value) -> Vec<String>) {
    if items.is_empty() {
        return;
    }
    let rows: Vec<Vec<String>> = items.iter().map(row).collect();
    let wide = |n: usize| rows.iter().map(|row| row[n].chars().count()).max().unwrap_or(0);
    let _ = writeln!(text, "\n{name}");
    for row in &rows {
        let cells = row.iter().enumerate().map(|(n, cell)| format!("{cell:<width$}", width = wide(n)));
        let _ = writeln!(text, "  {}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
    let more = page["total_count"].as_u64().unwrap_or(0).saturating_sub(rows.len() as u64);
    if more > 0 {
        let _ = writeln!(text, "  and {more} more");
    }
}

fn id(item: &Value, field: &str) -> String {
    words::line(item[field].as_str().unwrap_or("-"), 44)
}

fn plain(value: &Value) -> String {
    words::line(value.as_str().unwrap_or("-"), 30)
}

/// Lines of a list on the screen.
const ROWS: u32 = 5;
/// Waiting tasks that are asked why.
const EXPLAINED: u32 = 3;
/// Nodes on the screen.
const NODES: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::monitors::Reading;
    use crate::cli::survey::tests::survey;
    use crate::ops::value::read_time;

    fn now() -> Unix {
        read_time("now", "2026-01-01T00:00:03.000Z").expect("a time")
    }

    fn more() -> More {
        let reading = Reading::parse("taskmesh_tasks_short_of_copies 2\ntaskmesh_store_disk_free_bytes 3e9\n");
        let monitor = Monitor { read: Some(reading), ..Monitor::default() };
        let silent = Monitor::default();
        More {
            running: json!({"total_count": 7, "tasks": [
                {"task_id": "r1", "task_type": "exec", "worker_id": "w-a", "start_time": "2026-01-01T00:00:00.500Z"}]}),
            workflows: json!({"total_count": 1, "workflows": [
                {"workflow_id": "flow", "name": "nightly", "status": "running", "progress": 40.0}]}),
            waiting: vec![("q1".to_owned(), "all slots are taken".to_owned())],
            monitors: Some([("peer-aaaa1111".to_owned(), monitor), ("peer-bbbb2222".to_owned(), silent)].into()),
            outcast: false,
        }
    }

    #[test]
    fn the_mesh_is_shown_on_one_screen() {
        let wanted = "\
mesh      3 nodes: 1 up, 1 draining, 1 away; 2 of 3 answered; asked alpha
version   taskmesh/0.1.0 on 2, taskmesh/0.2.0 on 1
queue     12 queued, 3 delayed, 0 blocked, 3 running; the oldest ready for 4.2 s
          why they wait: 12 no_free_slot, 3 not_before
pace      84.2 tasks a minute over the last 5; they wait 0.3 s and run 1.0 s on average
ended     120 completed, 2 failed, 0 cancelled, 1 expired, as far as they are kept
workers   2 workers, 3 of 4 slots taken, 1 free now
workflows 1 running
copies    2 tasks short of copies, as far as 1 of 3 nodes say
disk      2.8 GiB free on alpha, which has least

NODE      STATE     RUNNING  CPU   MEMORY  LATENCY  HEARD
beta      draining  2/2      12 %  -       1.5 ms   3.0 s
cccc3333  away      0/0      -     -       -        3.0 s
alpha     up        1/2      12 %  -       -        asked

running
  r1  exec  w-a  for 2.5 s
  and 6 more

workflows
  flow  nightly  running  40 %

waiting
  q1: all slots are taken
";
        assert_eq!(screen(&survey(), &more(), now()), wanted);
    }

    #[test]
    fn what_is_not_known_is_said_to_be_so() {
        let more = More { workflows: json!({"total_count": 0}), ..More::default() };
        let text = screen(
            &Survey { stats: json!({"paused": true, "pause_reason": "lunch"}), members: Vec::new() },
            &more,
            now(),
        );
        for part in ["PAUSED (lunch): 0 queued", "not told", "wait not measured", "not known here"] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        let told = object(&survey(), &more);
        assert_eq!((&told["tasks_short_of_copies"], &told["metrics_read"]), (&Value::Null, &Value::Null));
    }

    #[test]
    fn members_are_listed_with_all_that_names_them() {
        let table = members_table(&survey().members, now());
        let lines: Vec<&str> = table.lines().collect();
        assert!(
            lines[0].starts_with("NAME   STATE     VERSION         ROLES       LATENCY  HEARD  PEER ID"),
            "{table}"
        );
        assert_eq!(
            lines[1].split_whitespace().collect::<Vec<_>>(),
            ["alpha", "up", "taskmesh/0.2.0", "keeps,runs", "-", "asked", "peer-aaaa1111", "/ip4/10.0.0.1/tcp/4770"]
        );
        assert!(lines[3].starts_with("-      away"), "{table}");
    }

    #[test]
    fn of_many_nodes_those_come_first_that_are_not_well() {
        let mut many = survey().members;
        for n in 0..20 {
            many.push(Member { peer_id: format!("peer-up-{n:04}"), name: None, ..many[0].clone() });
        }
        let table = nodes_table(&many, now());
        assert_eq!(table.lines().count(), NODES + 2, "{table}");
        assert!(table.lines().nth(1).is_some_and(|line| line.starts_with("beta")), "{table}");
        assert!(table.ends_with("and 11 more: `taskmesh members`\n"), "{table}");
    }
}
