//! What an operator types, against real nodes: look at the mesh, follow what
//! happens, take a node out, find what is wrong, and leave with everything.

use crate::fleet::{Fleet, Node, Plan, binary, eventually, submit};
use serde_json::{Value, json};
use std::io::Read as _;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use taskmesh::api::client::Client;

const PATIENCE: Duration = Duration::from_secs(30);

/// What a command printed, and how it ended.
struct Done {
    status: i32,
    out: String,
    err: String,
}

impl Done {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {} {}", self.out, self.err))
    }
}

fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.arg("--data-dir").arg(folder).args(arguments).stdin(Stdio::null());
    command.env("XDG_CONFIG_HOME", folder).env_remove("TASKMESH_URL").env_remove("TASKMESH_TOKEN");
    command
}

/// Runs the command line with this data folder to its end.
fn in_folder(folder: &Path, arguments: &[&str]) -> Done {
    let done = command(folder, arguments).output().expect("the program runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Done { status: done.status.code().unwrap_or(-1), out: text(&done.stdout), err: text(&done.stderr) }
}

fn taskmesh(node: &Node, arguments: &[&str]) -> Done {
    in_folder(node.data_dir(), arguments)
}

/// A command that goes on, and what it has printed so far.
struct Running {
    child: Child,
    out: Arc<Mutex<String>>,
}

impl Running {
    fn start(node: &Node, arguments: &[&str]) -> Running {
        let mut child = command(node.data_dir(), arguments).stdout(Stdio::piped()).spawn().expect("the program runs");
        let mut stdout = child.stdout.take().expect("a pipe");
        let out = Arc::new(Mutex::new(String::new()));
        let told = out.clone();
        std::thread::spawn(move || {
            let mut part = [0; 4_096];
            while let Ok(length @ 1..) = stdout.read(&mut part) {
                let text = String::from_utf8_lossy(&part[..length]).into_owned();
                told.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
            }
        });
        Running { child, out }
    }

    fn printed(&self) -> String {
        self.out.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn prints(&self, part: &str) {
        let seen =
            eventually(PATIENCE, format!("{part:?} is printed"), async || self.printed().contains(part).then_some(()));
        seen.await;
    }

    /// Waits for its end, and for the rest of what it prints.
    async fn ends(mut self) -> (i32, String) {
        let child = &mut self.child;
        let ended = eventually(PATIENCE, "the command ends", async || child.try_wait().expect("a child"));
        let status = ended.await.code().unwrap_or(-1);
        // The reader has the last part once it lets go.
        let read = eventually(PATIENCE, "all is read", async || (Arc::strong_count(&self.out) == 1).then_some(()));
        read.await;
        (status, self.printed())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Nodes that have the names of their folders: `n0`, `n1`, `n2`.
async fn named(settings: &[(&str, &str)]) -> Fleet {
    let mut fleet = Fleet::empty(settings).await;
    for n in 0..3 {
        let plan = fleet.plan().set("node.name", &format!("n{n}"));
        fleet.nodes.push(Node::spawn(plan));
        fleet.nodes[n].up().await;
    }
    fleet.settled().await;
    fleet
}

/// Tells by its file that a program may end.
struct Gate(tempfile::TempDir);

impl Gate {
    fn new() -> Gate {
        Gate(tempfile::tempdir().expect("a folder"))
    }

    /// A program that prints `before`, waits until the gate opens, prints
    /// `after` and ends with `status`.
    fn program(&self, before: &str, after: &str, status: u8) -> Value {
        let path = self.0.path().join("open");
        let script = format!(
            "echo {before} >&2; while [ ! -e {} ]; do sleep 0.1; done; echo {after} >&2; exit {status}",
            path.display()
        );
        json!({"argv": ["sh", "-c", script]})
    }

    fn open(&self) {
        std::fs::write(self.0.path().join("open"), "").expect("a file");
    }
}

async fn runs(node: &Node, task: &str) {
    let seen = eventually(PATIENCE, format!("{task} runs"), async || {
        let seen = node.call("task_status", json!({"task_id": task})).await.ok()?;
        (seen["status"] == "running").then_some(())
    });
    seen.await;
}

#[tokio::test(flavor = "multi_thread")]
async fn status_and_members_show_the_mesh_on_any_node() {
    let mut fleet = named(&[("worker.slots", "2")]).await;
    let gate = Gate::new();
    let task = json!({"task_id": "runs", "task_type": "exec", "payload": gate.program("on", "off", 0)});
    submit(&fleet.nodes[0], task).await;
    let label = json!({"labels": {"node": "nowhere"}});
    submit(&fleet.nodes[0], json!({"task_id": "waits", "task_type": "echo", "payload": {}, "requirements": label}))
        .await;
    runs(&fleet.nodes[0], "runs").await;
    for node in &fleet.nodes {
        let seen = eventually(PATIENCE, format!("{} shows all of it", node.name()), async || {
            let seen = taskmesh(node, &["status", "--json"]).json();
            let up = seen["members"].as_array()?.iter().filter(|m| m["state"] == "up").count();
            let known = seen["members"].as_array()?.iter().skip(1).all(|m| !m["program"].is_null());
            let copies = seen["tasks_short_of_copies"] == json!(0.0) && seen["metrics_read"] == json!(3);
            (up == 3 && known && copies && seen["queue"]["running_count"] == 1).then_some(seen)
        });
        let seen = seen.await;
        let names: Vec<&str> =
            seen["members"].as_array().expect("members").iter().filter_map(|m| m["name"].as_str()).collect();
        assert_eq!((names[0], names.len()), (node.name().as_str(), 3), "the node that was asked, then the others");
        assert_eq!(seen["members"][1]["program"], json!(concat!("taskmesh/", env!("CARGO_PKG_VERSION"))));
        assert_eq!((&seen["running"][0]["task_id"], &seen["waiting"][0]["task_id"]), (&json!("runs"), &json!("waits")));
        let screen = taskmesh(node, &["status"]);
        for part in [
            "3 nodes: 3 up",
            "1 queued",
            "of 6 slots taken",
            "every task has as many",
            "waits: no worker in the mesh can run it",
            "free on",
        ] {
            assert!(screen.out.contains(part), "{part} in\n{}{}", screen.out, screen.err);
        }
        assert!(screen.out.lines().count() < 30, "one screen:\n{}", screen.out);
    }
    let (gone, name) = (fleet.nodes[2].peer_id().to_owned(), fleet.nodes[2].name());
    fleet.nodes[2].kill();
    eventually(PATIENCE, "the killed one is away, and still has its name", async || {
        let seen = taskmesh(&fleet.nodes[0], &["members", "--json"]).json();
        let found = seen["members"].as_array()?.iter().find(|m| m["peer_id"] == json!(gone))?.clone();
        (found["state"] == "away" && found["name"] == json!(name)).then_some(())
    })
    .await;
    let table = taskmesh(&fleet.nodes[0], &["members"]);
    assert!(table.out.lines().any(|line| line.contains("away") && line.contains(&gone)), "{}", table.out);
    gate.open();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_of_a_task_is_followed_from_any_node_to_its_end() {
    let fleet = Fleet::start(3).await;
    let gate = Gate::new();
    let task = json!({"task_id": "talks", "task_type": "exec", "payload": gate.program("one", "two", 3),
        "retry_policy": {"max_retries": 0}});
    submit(&fleet.nodes[0], task).await;
    runs(&fleet.nodes[0], "talks").await;
    let following: Vec<Running> =
        fleet.nodes.iter().map(|node| Running::start(node, &["logs", "talks", "--follow"])).collect();
    for one in &following {
        one.prints("one\n").await;
    }
    assert_eq!(taskmesh(&fleet.nodes[1], &["logs", "talks"]).out, "one\n", "without --follow it prints and ends");
    gate.open();
    for one in following {
        assert_eq!(one.ends().await, (1, "one\ntwo\n".to_owned()), "as the task ended");
    }
    let after = taskmesh(&fleet.nodes[2], &["logs", "talks"]);
    assert_eq!((after.status, after.out.as_str()), (0, "one\ntwo\n"));
    assert_eq!(taskmesh(&fleet.nodes[2], &["logs", "nothing"]).status, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_is_told_on_any_node() {
    let mut fleet = Fleet::start(3).await;
    let told = Running::start(&fleet.nodes[0], &["events", "--follow", "--json"]);
    // The first look is quiet; a pause that is told shows that it is over.
    eventually(PATIENCE, "it listens", async || {
        fleet.nodes[1].call("queue_pause", json!({"reason": "lunch"})).await.ok()?;
        fleet.nodes[1].call("queue_resume", json!({})).await.ok()?;
        told.printed().contains("\"queue\"").then_some(())
    })
    .await;
    submit(&fleet.nodes[1], json!({"task_id": "seen", "task_type": "sleep", "payload": {"ms": 300}})).await;
    for part in ["\"what\":\"submitted: sleep\"", "\"what\":\"runs on", "\"what\":\"completed\""] {
        told.prints(part).await;
    }
    let ours = |line: &&str| line.contains("\"id\":\"seen\"");
    let count = told.printed().lines().filter(ours).count();
    assert_eq!(count, 3, "each once:\n{}", told.printed());
    fleet.nodes[2].kill();
    told.prints("\"what\":\"away\"").await;
    let past = taskmesh(&fleet.nodes[1], &["events", "--since", "1h"]);
    assert!(past.out.contains("seen  completed") && past.out.contains("node"), "{}{}", past.out, past.err);
    let none = taskmesh(&fleet.nodes[1], &["events", "--since", "2100-01-01T00:00:00Z"]);
    assert_eq!((none.status, none.out.as_str()), (0, ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_node_ends_what_it_runs_and_takes_no_more() {
    let fleet = named(&[]).await;
    let gate = Gate::new();
    let here = json!({"labels": {"node": "n2"}});
    let task =
        json!({"task_id": "last", "task_type": "exec", "payload": gate.program("a", "b", 0), "requirements": here});
    submit(&fleet.nodes[0], task).await;
    runs(&fleet.nodes[0], "last").await;
    let unknown = taskmesh(&fleet.nodes[0], &["drain", "n9"]);
    assert!(unknown.status == 3 && unknown.err.contains("n0, n1, n2"), "{}", unknown.err);
    let first = taskmesh(&fleet.nodes[0], &["drain", "n2"]);
    assert!(first.status == 0 && first.out.contains("still running there: 1 task"), "{}{}", first.out, first.err);
    assert!(first.err.contains("last on worker-") && first.err.contains("SIGTERM"), "{}", first.err);
    let members = taskmesh(&fleet.nodes[1], &["members", "--json"]).json();
    let drained = members["members"].as_array().expect("members").iter().find(|m| m["name"] == "n2").cloned();
    assert_eq!(drained.expect("it is there")["state"], "draining");
    let waiting = Running::start(&fleet.nodes[1], &["drain", fleet.nodes[2].peer_id(), "--wait"]);
    submit(&fleet.nodes[0], json!({"task_id": "more", "task_type": "echo", "payload": {}, "requirements": here})).await;
    gate.open();
    let (status, out) = waiting.ends().await;
    assert!(status == 0 && out.contains("runs nothing"), "{out}");
    let seen = fleet.nodes[0].ask("task_status", json!({"task_id": "last"})).await;
    assert_eq!((&seen["status"], &seen["attempt"]), (&json!("completed"), &json!(1)), "it was let end");
    assert_eq!(fleet.nodes[0].ask("task_status", json!({"task_id": "more"})).await["status"], json!("queued"));
    let again = taskmesh(&fleet.nodes[0], &["drain", fleet.nodes[2].peer_id()]);
    assert!(again.status == 0 && again.out.contains("has no worker"), "{}{}", again.out, again.err);
}

/// The verdict of a check, and what it says.
fn check(report: &Value, name: &str) -> (String, String) {
    let checks = report["checks"].as_array().expect("checks");
    let found = checks.iter().find(|c| c["check"] == name).unwrap_or_else(|| panic!("{name} in {report:#}"));
    let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    (text("verdict"), text("says"))
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_finds_a_mesh_well_and_names_what_is_not() {
    let mut fleet = Fleet::start(3).await;
    let well = eventually(PATIENCE, "all metrics are read", async || {
        let report = taskmesh(&fleet.nodes[1], &["doctor", "--json"]);
        (check(&report.json(), "metrics").0 == "ok").then_some(report)
    });
    let well = well.await;
    assert_eq!(well.status, 0, "{}", well.out);
    let report = well.json();
    for name in [
        "data folder",
        "identity",
        "node",
        "ports",
        "seeds",
        "members",
        "versions",
        "clock",
        "gossip",
        "copies",
        "records",
    ] {
        assert_eq!(check(&report, name).0, "ok", "{name} in {report:#}");
    }
    assert_eq!(check(&report, "reachability").0, "warning", "loopback alone");
    assert!(check(&report, "disk sync").1.contains("ms for 4 KiB"));

    // Bound a moment ago, and by nobody now.
    let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
    let dead = format!("/ip4/127.0.0.1/tcp/{port}");
    fleet.nodes[1].terminate();
    fleet.nodes[1].ended(PATIENCE).await.expect("it drains");
    let down = taskmesh(&fleet.nodes[1], &["doctor", "--json"]);
    assert_eq!((down.status, check(&down.json(), "node").0.as_str()), (0, "warning"), "{}", down.out);
    assert_eq!(check(&down.json(), "seeds").0, "ok", "those of the invite answer");
    let plan: Plan = fleet.nodes[1].plan_mut().clone().set("net.seeds", &dead);
    *fleet.nodes[1].plan_mut() = plan;
    fleet.nodes[1].restart().await;
    let seeds = format!("net.seeds={dead}");
    let report = eventually(PATIENCE, "it names the dead seed", async || {
        let report = taskmesh(&fleet.nodes[1], &["--set", &seeds, "doctor", "--json"]).json();
        let (verdict, says) = check(&report, "seeds");
        (verdict == "warning" && says.contains(&dead)).then_some(report)
    });
    report.await;
    fleet.nodes[0].kill();
    fleet.nodes[2].kill();
    eventually(PATIENCE, "it names who is away", async || {
        let report = taskmesh(&fleet.nodes[1], &["doctor", "--json"]);
        let (verdict, _) = check(&report.json(), "members");
        (verdict == "problem" && report.status == 1).then_some(())
    })
    .await;
}

/// What a node says was submitted.
async fn submission(node: &Node, id: &str) -> Value {
    let (url, token) = node.endpoint();
    let client = Client::new(url, token).expect("a client");
    let mut read = client.read(&Client::submission_uri(id)).await.unwrap_or_else(|e| panic!("{id}: {e}"));
    read["arguments"].take()
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_leaves_one_mesh_and_goes_on_in_another() {
    let old = Fleet::start(3).await;
    let nowhere = json!({"labels": {"zone": "new"}, "cpus": 0.5});
    let yearly = json!({"cron": "@yearly", "timezone": "Asia/Tokyo"});
    let steps = json!([
        {"step_id": "a", "action": "echo", "inputs": {"n": 1}, "requirements": nowhere},
        {"step_id": "b", "action": "echo", "inputs": {"of": "${steps.a.result.n}"}, "depends_on": ["a"]},
    ]);
    for task in [
        json!({"task_id": "done", "task_type": "echo", "payload": {"kept": "as it was"}}),
        json!({"task_id": "open", "task_type": "echo", "payload": {"x": [1, null]}, "priority": 2.5, "tags": ["t"],
            "metadata": {"m": 1}, "depends_on": ["done"], "requirements": nowhere}),
        json!({"task_id": "after", "task_type": "echo", "payload": {}, "depends_on": ["open"]}),
        json!({"task_id": "each", "task_type": "echo", "payload": {}, "items": [{"n": 0}, {"n": 1}], "requirements": nowhere}),
        json!({"task_id": "new-year", "task_type": "echo", "payload": {"hello": true}, "schedule": yearly}),
    ] {
        submit(&old.nodes[0], task).await;
    }
    old.nodes[1]
        .ask("workflow_submit", json!({"workflow_id": "flow", "name": "w", "steps": steps, "params": {"p": 1}}))
        .await;
    old.nodes[0].result("done", PATIENCE).await;
    let file = old.folder().join("mesh.jsonl");
    let path = file.to_str().expect("text");
    let written = taskmesh(&old.nodes[2], &["export", path]);
    assert!(written.status == 0 && written.err.contains("1 ended"), "{}{}", written.out, written.err);
    let text = std::fs::read_to_string(&file).expect("a file");
    let result: Vec<&str> =
        text.lines().filter(|line| line.contains("\"result\"") && line.contains("as it was")).collect();
    assert_eq!(result.len(), 1, "{text}");
    let open = taskmesh(&old.nodes[2], &["export", "--open-only"]);
    assert!(!open.out.contains("as it was") && open.out.lines().count() + 1 == text.lines().count(), "{}", open.out);

    let new = Fleet::with(1, &[("worker.labels", "zone=new")]).await;
    let dry = taskmesh(&new.nodes[0], &["import", path, "--dry-run", "--json"]).json();
    let first = taskmesh(&new.nodes[0], &["import", path]);
    assert_eq!(first.status, 0, "{}{}", first.out, first.err);
    assert!(
        first.out.contains(&format!("{} submitted, 0 there already, 0 refused", dry["submitted"])),
        "{}",
        first.out
    );
    for id in ["after", "new-year", "flow"] {
        assert_eq!(submission(&new.nodes[0], id).await, submission(&old.nodes[1], id).await, "{id}");
    }
    let mut was = submission(&old.nodes[1], "open").await;
    was.as_object_mut().expect("an object").shift_remove("depends_on");
    assert_eq!(submission(&new.nodes[0], "open").await, was, "what it waited for has completed");
    for id in ["open", "after", "each/0", "each/1", "flow/b"] {
        assert_eq!(new.nodes[0].result(id, PATIENCE).await["status"], json!("completed"), "{id}");
    }
    let again = taskmesh(&new.nodes[0], &["import", path]);
    assert!(again.status == 0 && again.out.starts_with("0 submitted"), "{}{}", again.out, again.err);
    assert!(again.err.contains("open: is there already, completed"), "{}", again.err);
    std::fs::write(&file, &text[..text.len() / 2]).expect("a file");
    let cut = taskmesh(&new.nodes[0], &["import", path]);
    assert!(cut.status == 1 && cut.err.contains("it was cut"), "{}{}", cut.out, cut.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_joins_before_its_node_starts() {
    let mut fleet = Fleet::start(1).await;
    let invite = fleet.nodes[0].invite().to_owned();
    let plan = fleet.plan_alone();
    let folder = plan.data_dir.clone();
    let joined = in_folder(&folder, &["join", &invite]);
    assert!(joined.status == 0 && joined.out.contains("from its next start on"), "{}{}", joined.out, joined.err);
    fleet.nodes.push(Node::spawn(plan));
    fleet.nodes[1].up().await;
    fleet.settled().await;
    let again = taskmesh(&fleet.nodes[1], &["join", &invite]);
    assert!(again.status == 0 && again.out.contains("in whose mesh it was already"), "{}{}", again.out, again.err);
    let other = Fleet::start(1).await;
    let refused = taskmesh(&other.nodes[0], &["join", &invite]);
    assert!(refused.status == 9 || refused.err.contains("of another mesh"), "{}: {}", refused.status, refused.err);
    assert_eq!(in_folder(&folder, &["join", "taskmesh1nonsense"]).status, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_view_without_a_terminal_says_what_to_do_instead() {
    let fleet = Fleet::start(1).await;
    let refused = taskmesh(&fleet.nodes[0], &["top"]);
    assert!(refused.status == 2 && refused.err.contains("taskmesh status"), "{}", refused.err);
}
