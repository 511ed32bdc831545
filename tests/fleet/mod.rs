//! Real nodes for tests, benchmarks and the demo: processes of the `taskmesh`
//! binary with a data folder of their own, spoken to through their MCP facade.
//!
//! The one place that polls, always with a deadline.
#![allow(dead_code, unused_imports, reason = "each program that includes this module uses its own part of it")]

mod node;

pub(crate) use node::{Node, Plan, binary};

use serde_json::{Value, json};
use std::fmt::Display;
use std::path::Path;
use std::time::{Duration, Instant};
use taskmesh::api::client::ClientError;
use tempfile::TempDir;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Short timings, so that a test sees a lease end in about a second.
pub(crate) const BRISK: &[(&str, &str)] = &[
    ("mesh.beat_ms", "200"),
    ("mesh.lease_ms", "1500"),
    ("mesh.stagger_ms", "300"),
    ("mesh.retransmit_ms", "200"),
    ("mesh.away_ms", "6000"),
    ("exec.allow", "*"),
    ("log.level", "info,taskmesh=debug"),
];

/// Nodes of one mesh. Killed, and their folders removed, when it is dropped.
pub(crate) struct Fleet {
    /// In the order of their start; the first is the seed of the others.
    pub(crate) nodes: Vec<Node>,
    settings: Vec<(String, String)>,
    folder: TempDir,
    room: Room,
}

/// Tests run side by side, but for those that measure.
enum Room {
    Shared(#[expect(dead_code, reason = "held")] RwLockReadGuard<'static, ()>),
    Alone(#[expect(dead_code, reason = "held")] RwLockWriteGuard<'static, ()>),
}

static ROOM: RwLock<()> = RwLock::const_new(());

impl Fleet {
    /// `count` nodes that know each other, with [`BRISK`] timings.
    pub(crate) async fn start(count: usize) -> Fleet {
        Fleet::with(count, &[]).await
    }

    /// The same, with `settings` on top.
    pub(crate) async fn with(count: usize, settings: &[(&str, &str)]) -> Fleet {
        let mut fleet = Fleet::empty(settings).await;
        fleet.grow(count).await;
        fleet.settled().await;
        fleet
    }

    /// No node yet.
    pub(crate) async fn empty(settings: &[(&str, &str)]) -> Fleet {
        Fleet::within(Room::Shared(ROOM.read().await), settings)
    }

    /// No node yet, and no other fleet of this process while this one lives.
    pub(crate) async fn alone(settings: &[(&str, &str)]) -> Fleet {
        Fleet::within(Room::Alone(ROOM.write().await), settings)
    }

    fn within(room: Room, settings: &[(&str, &str)]) -> Fleet {
        let folder = tempfile::Builder::new().prefix("taskmesh-fleet-").tempdir().expect("a temporary folder");
        let settings = BRISK.iter().chain(settings).map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Fleet { nodes: Vec::new(), settings, folder, room }
    }

    /// The folder of the fleet; each node has one inside.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What the next node is started with: it joins by the first one's invite.
    pub(crate) fn plan(&self) -> Plan {
        match self.nodes.first() {
            Some(seed) => self.plan_alone().join(seed.invite()),
            None => self.plan_alone(),
        }
    }

    /// The same, without an invite.
    pub(crate) fn plan_alone(&self) -> Plan {
        let plan = Plan::new(&self.folder.path().join(format!("n{}", self.nodes.len())));
        self.settings.iter().fold(plan, |plan, (key, value)| plan.set(key, value))
    }

    /// Starts nodes until there are `count`, all but the first at once.
    pub(crate) async fn grow(&mut self, count: usize) {
        if self.nodes.is_empty() {
            let first = Node::spawn(self.plan());
            self.nodes.push(first);
            self.nodes[0].up().await;
        }
        while self.nodes.len() < count {
            let next = Node::spawn(self.plan());
            self.nodes.push(next);
        }
        for node in &mut self.nodes {
            node.up().await;
        }
    }

    /// Waits until every node that runs is connected to every other.
    pub(crate) async fn settled(&self) {
        let running: Vec<_> = self.nodes.iter().filter(|n| n.running()).collect();
        for node in &running {
            let others = running.len() as u64 - 1;
            eventually(Duration::from_secs(30), format!("{} sees {others} peers", node.name()), async || {
                let seen = node.call("peer_list", json!({"status_filter": "connected"})).await.ok()?;
                (seen["total_count"].as_u64() >= Some(others)).then_some(())
            })
            .await;
        }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        // KEEP_LOGS=1: for looking at a run that went well, too.
        if std::thread::panicking() || std::env::var_os("KEEP_LOGS").is_some() {
            self.folder.disable_cleanup(true);
            eprintln!("the logs and data of these nodes stay in {}", self.folder.path().display());
        }
    }
}

/// Waits until `attempt` gives something, or panics after `within`.
pub(crate) async fn eventually<T>(within: Duration, what: impl Display, attempt: impl AsyncFnMut() -> Option<T>) -> T {
    poll(within, attempt).await.unwrap_or_else(|| panic!("not within {within:?}: {what}"))
}

/// Waits until `attempt` gives something; `None` after `within`.
pub(crate) async fn poll<T>(within: Duration, mut attempt: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let began = Instant::now();
    loop {
        if let Some(value) = attempt().await {
            return Some(value);
        }
        if began.elapsed() > within {
            return None;
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The code of a refusal, as callers see it.
pub(crate) fn code(refused: &ClientError) -> &'static str {
    refused.code().meaning().name
}

/// The tasks of an array, in order, as ids.
pub(crate) fn items(array: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{array}/{n}")).collect()
}

/// `status` of a task, as `node` sees it; `?` if it does not answer.
pub(crate) async fn status(node: &Node, task: &str) -> String {
    let seen = node.call("task_status", json!({"task_id": task})).await;
    seen.ok().and_then(|v| v["status"].as_str().map(str::to_owned)).unwrap_or_else(|| "?".to_owned())
}

/// Waits until `node` says that every one of `tasks` has completed.
pub(crate) async fn all_complete(node: &Node, tasks: &[String], within: Duration) {
    let deadline = Instant::now() + within;
    for task in tasks {
        let left = deadline.saturating_duration_since(Instant::now());
        let last = std::cell::RefCell::new(String::new());
        let done = poll(left, async || {
            let seen = status(node, task).await;
            let over = seen == "completed";
            last.replace(seen);
            over.then_some(())
        });
        assert!(done.await.is_some(), "{task} is {} at {} after {within:?}", last.borrow(), node.name());
    }
}

/// Submits through `node`, again while it says that a repetition may help;
/// the id makes that safe.
pub(crate) async fn submit(node: &Node, task: Value) -> Value {
    eventually(Duration::from_secs(20), "a submission is accepted", async || {
        match node.call("task_submit", task.clone()).await {
            Ok(answer) => Some(answer),
            Err(e) if e.code().meaning().retryable => None,
            Err(e) => panic!("task_submit {task}: {e}"),
        }
    })
    .await
}

/// Short enough not to be seen in a test's time, long enough for two cores.
const POLL: Duration = Duration::from_millis(25);
