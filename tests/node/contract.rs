//! The contract of every change: what one node says was done is seen through
//! every other node, over every other transport, as soon as it was said.
//!
//! Which operations change something comes from the table of operations, so one
//! that is offered without a read-back here fails this test. To add one: a
//! function beside its like and its line in [`read_back`].

mod faces;

use crate::fleet::{BRISK, Fleet, Node, Plan, eventually};
use faces::{Face, TRANSPORTS, Transport};
use futures::future::join_all;
use serde_json::{Value, json};
use std::time::Duration;
use taskmesh::ops::{self, Kind};
use taskmesh::store::identity::MESH_FILE;

const SOON: Duration = Duration::from_secs(30);
/// Where the faces are that the tests come by.
const DOOR: &[(&str, &str)] = &[("api.p2p_listen", "/ip4/127.0.0.1/tcp/0")];

/// The mesh, and a face of each node for each transport.
struct Mesh {
    fleet: Fleet,
    faces: Vec<Face>,
}

/// One operation, done once, through one face.
struct Round<'a> {
    mesh: &'a Mesh,
    writer: &'a Face,
    /// Of this round alone: for ids, tags and reasons.
    mark: String,
}

impl Mesh {
    async fn start() -> Mesh {
        let fleet = Fleet::with(3, DOOR).await;
        let mut faces = Vec::new();
        for node in 0..fleet.nodes.len() {
            for transport in TRANSPORTS {
                faces.push(Face::open(&fleet.nodes[node], node, transport).await);
            }
        }
        Mesh { fleet, faces }
    }

    fn face(&self, node: usize, transport: Transport) -> &Face {
        let here = |face: &&Face| face.node == node && face.transport == transport;
        self.faces.iter().find(here).expect("one of each")
    }
}

impl Round<'_> {
    /// The change, through the writer; it must succeed.
    async fn write(&self, name: &str, arguments: Value) -> Value {
        let answer = ask(self.writer, name, &arguments).await;
        answer.unwrap_or_else(|e| panic!("{name} {arguments} through {}: {e}", self.writer))
    }

    /// Every face of another node and another transport.
    fn readers(&self) -> impl Iterator<Item = &Face> {
        let other = |face: &&Face| face.node != self.writer.node && face.transport != self.writer.transport;
        self.mesh.faces.iter().filter(other)
    }

    /// Asks every reader once, all at the same time; `seen` says whether an
    /// answer shows the change.
    async fn read(&self, name: &str, arguments: Value, seen: impl Fn(&Result<Value, Value>) -> bool) {
        self.read_through(self.readers(), name, arguments, seen).await;
    }

    async fn read_through<'f>(
        &self,
        readers: impl Iterator<Item = &'f Face>,
        name: &str,
        arguments: Value,
        seen: impl Fn(&Result<Value, Value>) -> bool,
    ) {
        let asked = readers.map(|face| {
            let call = ask(face, name, &arguments);
            async move { (face, call.await) }
        });
        let answers = join_all(asked).await;
        assert!(!answers.is_empty(), "somebody was asked");
        for (face, answer) in answers {
            assert!(
                seen(&answer),
                "{}: {name} {arguments} through {face}, after {}: {answer:?}",
                self.mark,
                self.writer
            );
        }
    }

    /// The state of a task is the same everywhere.
    async fn read_status(&self, task: &str, status: &str) {
        self.read("task_status", json!({"task_id": task}), |a| shows(a, "status", status)).await;
    }

    /// Makes a task that nobody runs: no worker has its type.
    async fn waiting(&self, task: &str) {
        self.write("task_submit", waiting(task, &self.mark)).await;
    }

    /// The node at the other end of the connection that a round is about.
    fn other_end(&self) -> &Node {
        &self.mesh.fleet.nodes[self.other()]
    }

    fn other(&self) -> usize {
        (self.writer.node + 1) % self.mesh.fleet.nodes.len()
    }

    /// A connection is known to its two ends. The other one says of the
    /// writer's node whether there is one.
    async fn read_connection(&self, connected: bool) {
        let writer = self.mesh.fleet.nodes[self.writer.node].peer_id();
        let readers = self.readers().filter(|face| face.node == self.other());
        self.read_through(readers, "peer_list", json!({}), |a| has_peer(a, writer, "connected") == connected).await;
    }

    async fn leave(&self) -> Value {
        self.write("peer_disconnect", json!({"peer_id": self.other_end().peer_id(), "reason": self.mark})).await
    }

    async fn meet(&self) -> Value {
        let (peer, address) = (self.other_end().peer_id(), &self.other_end().addresses()[0]);
        self.write("peer_connect", json!({"peer_id": peer, "multiaddr": address, "timeout": 10})).await
    }
}

/// One call, as any client makes it: asked again as long as the node says that it
/// can't tell at the moment. A busy machine loses beats, and so owners.
async fn ask(face: &Face, name: &str, arguments: &Value) -> Result<Value, Value> {
    eventually(SOON, format!("{face} answers {name}"), async || {
        let answer = face.call(name, arguments.clone()).await;
        let later = answer.as_ref().is_err_and(|e| e["code"] == "unavailable" && e["retryable"] == true);
        (!later).then_some(answer)
    })
    .await
}

fn shows(answer: &Result<Value, Value>, field: &str, value: impl Into<Value>) -> bool {
    answer.as_ref().is_ok_and(|answer| answer[field] == value.into())
}

fn is_unknown(answer: &Result<Value, Value>) -> bool {
    answer.as_ref().is_err_and(|failure| failure["code"] == "not_found")
}

fn has_peer(answer: &Result<Value, Value>, peer: &str, state: &str) -> bool {
    let peers = answer.as_ref().ok().and_then(|answer| answer["peers"].as_array());
    peers.is_some_and(|peers| peers.iter().any(|p| p["peer_id"] == peer && p["status"] == state))
}

/// A task that no worker has the type of, with a tag.
fn waiting(task: &str, tag: &str) -> Value {
    json!({"task_id": task, "task_type": "nobody-runs-this", "payload": {"n": 1}, "tags": [tag], "priority": 3.0})
}

/// Does the operation once and reads it back.
async fn read_back(operation: &str, round: &Round<'_>) {
    match operation {
        "task_submit" => task_submit(round).await,
        "task_cancel" => task_cancel(round).await,
        "task_priority" => task_priority(round).await,
        "task_retry" => task_retry(round).await,
        "queue_pause" => queue_pause(round).await,
        "queue_resume" => queue_resume(round).await,
        "queue_clear" => queue_clear(round).await,
        "worker_register" => worker_register(round).await,
        "worker_unregister" => worker_unregister(round).await,
        "peer_connect" => peer_connect(round).await,
        "peer_disconnect" => peer_disconnect(round).await,
        "bootstrap_network" => bootstrap_network(round).await,
        "workflow_submit" => workflow_submit(round).await,
        "workflow_cancel" => workflow_cancel(round).await,
        other => panic!("{other} changes something, and nothing here reads it back: add it above"),
    }
}

async fn task_submit(round: &Round<'_>) {
    let id = format!("{}-one", round.mark);
    round.waiting(&id).await;
    round.read_status(&id, "queued").await;
    let tagged = json!({"tag_filter": [round.mark]});
    let alone = |answer: &Result<Value, Value>| {
        shows(answer, "total_count", 1)
            && answer.as_ref().is_ok_and(|a| a["tasks"][0]["task_id"] == *id && a["tasks"][0]["priority"] == 3.0)
    };
    round.read("task_list", tagged.clone(), alone).await;
    // The id is taken everywhere: for the same work it is the same task.
    round.read("task_submit", waiting(&id, &round.mark), |a| shows(a, "replayed", true)).await;
    let mut other = waiting(&id, &round.mark);
    other["payload"] = json!({"n": 2});
    round.read("task_submit", other, |a| a.as_ref().is_err_and(|e| e["code"] == "conflict")).await;

    let array = format!("{}-all", round.mark);
    let mut items = waiting(&array, &round.mark);
    items["items"] = json!([{"i": 0}, {"i": 1}, {"i": 2}]);
    let taken = round.write("task_submit", items).await;
    assert_eq!(taken["array"], json!({"first": format!("{array}/0"), "count": 3}));
    round.read_status(&format!("{array}/2"), "queued").await;
    round.read("task_list", tagged, |a| shows(a, "total_count", 4)).await;
}

async fn task_cancel(round: &Round<'_>) {
    let id = format!("{}-waits", round.mark);
    round.waiting(&id).await;
    round.write("task_cancel", json!({"task_id": id, "reason": round.mark})).await;
    let cancelled = |a: &Result<Value, Value>| shows(a, "status", "cancelled") && shows(a, "error", round.mark.clone());
    round.read("task_status", json!({"task_id": id}), cancelled).await;
    round.read("task_result", json!({"task_id": id}), |a| shows(a, "status", "cancelled")).await;
    let over = |a: &Result<Value, Value>| a.as_ref().is_err_and(|e| e["code"] == "failed_precondition");
    round.read("task_cancel", json!({"task_id": id}), over).await;

    let runs = format!("{}-runs", round.mark);
    round.write("task_submit", json!({"task_id": runs, "task_type": "sleep", "payload": {"ms": 600_000}})).await;
    eventually(SOON, "it runs", async || {
        let status = round.writer.call("task_status", json!({"task_id": runs})).await;
        shows(&status, "status", "running").then_some(())
    })
    .await;
    let asked = round.write("task_cancel", json!({"task_id": runs, "force": true})).await;
    assert_eq!(asked["cleanup_required"], true, "{asked}");
    // It is to end, whoever waits for that.
    round.read("task_result", json!({"task_id": runs, "wait_ms": 20_000}), |a| shows(a, "status", "cancelled")).await;
}

async fn task_priority(round: &Round<'_>) {
    let id = format!("{}-urgent", round.mark);
    round.waiting(&id).await;
    round.write("task_priority", json!({"task_id": id, "new_priority": 7.5})).await;
    let urgent = |a: &Result<Value, Value>| a.as_ref().is_ok_and(|a| a["tasks"][0]["priority"] == 7.5);
    round.read("task_list", json!({"tag_filter": [round.mark]}), urgent).await;
    round.read("task_list", json!({"tag_filter": [round.mark], "priority_min": 7.5}), urgent).await;
}

async fn task_retry(round: &Round<'_>) {
    let id = format!("{}-again", round.mark);
    round.waiting(&id).await;
    round.write("task_cancel", json!({"task_id": id})).await;
    let made = round.write("task_retry", json!({"task_id": id})).await;
    let retry = made["retry_task_id"].as_str().expect("an id").to_owned();
    let of = |a: &Result<Value, Value>| shows(a, "status", "queued") && shows(a, "retry_of", id.clone());
    round.read("task_status", json!({"task_id": retry}), of).await;
    round.read("task_status", json!({"task_id": id}), |a| shows(a, "retried_as", retry.clone())).await;
}

async fn queue_pause(round: &Round<'_>) {
    round.write("queue_pause", json!({"reason": round.mark})).await;
    let paused = |a: &Result<Value, Value>| shows(a, "paused", true) && shows(a, "pause_reason", round.mark.clone());
    round.read("queue_stats", json!({}), paused).await;
    round.read("queue_stats", json!({"scope": "local"}), paused).await;
    round.write("queue_resume", json!({})).await;
}

async fn queue_resume(round: &Round<'_>) {
    round.write("queue_pause", json!({"reason": round.mark})).await;
    round.write("queue_resume", json!({})).await;
    round.read("queue_stats", json!({}), |a| shows(a, "paused", false)).await;
    round.read("queue_stats", json!({"scope": "local"}), |a| shows(a, "paused", false)).await;
}

async fn queue_clear(round: &Round<'_>) {
    let ids: Vec<_> = (0..4).map(|n| format!("{}-{n}", round.mark)).collect();
    for id in &ids {
        round.waiting(id).await;
    }
    let cleared = round.write("queue_clear", json!({"status_filter": "queued", "confirm": true})).await;
    assert_eq!((&cleared["nodes_answered"], &cleared["remaining_count"]), (&json!(3), &json!(0)), "{cleared}");
    for id in &ids {
        round.read_status(id, "cancelled").await;
    }
    let queued = json!({"status_filter": "queued"});
    round.read("task_list", queued, |a| shows(a, "total_count", 0)).await;
    round.write("queue_clear", json!({"status_filter": "cancelled", "confirm": true})).await;
    for id in &ids {
        round.read("task_status", json!({"task_id": id}), is_unknown).await;
    }
    round.read("task_list", json!({"tag_filter": [round.mark]}), |a| shows(a, "total_count", 0)).await;
}

async fn worker_register(round: &Round<'_>) {
    let home = round.mesh.fleet.nodes[round.writer.node].peer_id();
    for slots in [3, 4] {
        let spec = json!({"worker_id": round.mark, "capabilities": ["sleep"], "max_concurrent_tasks": slots});
        round.write("worker_register", spec).await;
        let there = |a: &Result<Value, Value>| shows(a, "node", home) && shows(a, "max_concurrent_tasks", slots);
        round.read("worker_status", json!({"worker_id": round.mark}), there).await;
        let counted = |a: &Result<Value, Value>| {
            let workers = a.as_ref().ok().and_then(|a| a["worker_stats"].as_array());
            workers.is_some_and(|all| {
                all.iter().any(|w| w["worker_id"] == *round.mark && w["max_concurrent_tasks"] == slots)
            })
        };
        round.read("queue_stats", json!({"include_worker_stats": true}), counted).await;
    }
    let taken = format!("{}-taken", round.mark);
    let spec = json!({"worker_id": taken, "capabilities": ["sleep"]});
    round.write("worker_register", spec.clone()).await;
    // The id is taken everywhere.
    round.read("worker_register", spec, |a| a.as_ref().is_err_and(|e| e["code"] == "invalid_argument")).await;
    round.write("worker_unregister", json!({"worker_id": taken})).await;
    round.write("worker_unregister", json!({"worker_id": round.mark})).await;
}

async fn worker_unregister(round: &Round<'_>) {
    let spec = json!({"worker_id": round.mark, "capabilities": ["sleep"]});
    for graceful in [true, false] {
        // On another node than the one that is asked to end it.
        let host = round.mesh.face(round.other(), round.writer.transport);
        host.call("worker_register", spec.clone()).await.expect("registered");
        round.write("worker_unregister", json!({"worker_id": round.mark, "graceful": graceful})).await;
        round.read("worker_status", json!({"worker_id": round.mark}), is_unknown).await;
    }
}

/// A workflow whose first step waits for a person, and whose second for that.
fn gated(workflow: &str, tag: &str) -> Value {
    json!({"workflow_id": workflow, "name": "gated", "tags": [tag], "steps": [
        {"step_id": "ask", "action": "approve", "inputs": {"message": "May it?"}},
        {"step_id": "then", "action": "echo", "inputs": {"said": "${steps.ask.result.comment}"}, "depends_on": ["ask"]},
    ]})
}

fn step_is(answer: &Result<Value, Value>, step: &str, status: &str) -> bool {
    let steps = answer.as_ref().ok().and_then(|answer| answer["steps"].as_array());
    steps.is_some_and(|steps| steps.iter().any(|s| s["step_id"] == step && s["status"] == status))
}

async fn workflow_submit(round: &Round<'_>) {
    let id = format!("{}-graph", round.mark);
    round.write("workflow_submit", gated(&id, &round.mark)).await;
    let there = |a: &Result<Value, Value>| shows(a, "name", "gated") && step_is(a, "then", "waiting");
    round.read("workflow_status", json!({"workflow_id": id}), there).await;
    let listed = |a: &Result<Value, Value>| {
        shows(a, "total_count", 1) && a.as_ref().is_ok_and(|a| a["workflows"][0]["workflow_id"] == *id)
    };
    round.read("workflow_list", json!({"tag_filter": [round.mark]}), listed).await;
    let edges = json!([{"from": "ask", "to": "then"}]);
    round.read("workflow_dependencies", json!({"workflow_id": id}), |a| shows(a, "edges", edges.clone())).await;
    // The id is taken everywhere: for the same work it is the same workflow.
    round.read("workflow_submit", gated(&id, &round.mark), |a| shows(a, "replayed", true)).await;
    let mut other = gated(&id, &round.mark);
    other["steps"][0]["inputs"]["message"] = "Really?".into();
    round.read("workflow_submit", other, |a| a.as_ref().is_err_and(|e| e["code"] == "conflict")).await;
    round.write("workflow_cancel", json!({"workflow_id": id})).await;
}

async fn workflow_cancel(round: &Round<'_>) {
    let id = format!("{}-stopped", round.mark);
    round.write("workflow_submit", gated(&id, &round.mark)).await;
    let stopped = round.write("workflow_cancel", json!({"workflow_id": id, "reason": round.mark})).await;
    assert_eq!(stopped["cancelled_steps"], json!(["ask", "then"]), "{stopped}");
    let cancelled = |a: &Result<Value, Value>| shows(a, "status", "cancelled") && shows(a, "error", round.mark.clone());
    round.read("workflow_status", json!({"workflow_id": id}), cancelled).await;
    round.read("workflow_result", json!({"workflow_id": id}), |a| shows(a, "status", "cancelled")).await;
    let among = json!({"tag_filter": [round.mark], "status_filter": "cancelled"});
    round.read("workflow_list", among, |a| shows(a, "total_count", 1)).await;
    let over = |a: &Result<Value, Value>| a.as_ref().is_err_and(|e| e["code"] == "failed_precondition");
    round.read("workflow_cancel", json!({"workflow_id": id}), over).await;
}

/// A person's word on a step, by `tasks/update`: no operation of its own.
async fn approval(round: &Round<'_>) {
    for (approves, step, whole) in [(true, "completed", "completed"), (false, "failed", "failed")] {
        let id = format!("{}-{approves}", round.mark);
        let ask = format!("{id}/ask");
        round.write("workflow_submit", gated(&id, &round.mark)).await;
        eventually(SOON, "it asks", async || {
            let status = round.writer.call("workflow_status", json!({"workflow_id": id})).await;
            step_is(&status, "ask", "input_required").then_some(())
        })
        .await;
        let word = json!({"approve": approves, "comment": round.mark});
        round.writer.answer(&ask, word.clone()).await;
        round.read_status(&ask, step).await;
        let said = |a: &Result<Value, Value>| shows(a, "status", step) && shows(a, "result", word.clone());
        round.read("task_result", json!({"task_id": ask}), said).await;
        round.read("workflow_status", json!({"workflow_id": id}), |a| step_is(a, "ask", step)).await;
        // What hangs on it follows, whoever waits for that.
        let end = json!({"task_id": id, "wait_ms": 20_000});
        round.read("task_result", end, |a| shows(a, "status", whole)).await;
    }
}

async fn peer_connect(round: &Round<'_>) {
    round.leave().await;
    let met = round.meet().await;
    assert_eq!(met["peer_id"], round.other_end().peer_id());
    round.read_connection(true).await;
}

async fn peer_disconnect(round: &Round<'_>) {
    let left = round.leave().await;
    assert_eq!(left["was_connected"], true, "{left}");
    round.read_connection(false).await;
    round.meet().await;
}

/// In a mesh of its own, whose second node has the key and knows nobody.
async fn bootstrap_network(round: &Round<'_>) {
    let folder = round.mesh.fleet.folder();
    let plan = |name: &str| {
        let plan = Plan::new(&folder.join(format!("{}-{name}", round.mark)));
        BRISK.iter().chain(DOOR).fold(plan, |plan, (key, value)| plan.set(key, value))
    };
    let mut member = Node::spawn(plan("member"));
    member.up().await;
    let newcomer = plan("newcomer");
    std::fs::create_dir(&newcomer.data_dir).expect("a folder");
    std::fs::copy(member.data_dir().join(MESH_FILE), newcomer.data_dir.join(MESH_FILE)).expect("the key");
    let mut newcomer = Node::spawn(newcomer);
    newcomer.up().await;
    let writer = Face::open(&newcomer, 1, round.writer.transport).await;
    let seeds = json!({"bootstrap_nodes": [member.addresses()[0]], "timeout": 10, "min_connections": 1});
    let mut readers = Vec::new();
    for transport in TRANSPORTS.into_iter().filter(|other| *other != writer.transport) {
        readers.push(Face::open(&member, 0, transport).await);
    }
    let ready = writer.call("bootstrap_network", seeds).await.expect("done");
    assert_eq!((&ready["network_ready"], &ready["connected_peers"]), (&json!(true), &json!([member.peer_id()])));
    round.read_through(readers.iter(), "peer_list", json!({}), |a| has_peer(a, newcomer.peer_id(), "connected")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_persons_word_is_seen_through_every_other_node_and_transport_at_once() {
    let mesh = Mesh::start().await;
    for (n, transport) in faces::ANSWERING.into_iter().enumerate() {
        mesh.fleet.settled().await;
        let writer = mesh.face(n % mesh.fleet.nodes.len(), transport);
        approval(&Round { mesh: &mesh, writer, mark: format!("approval-{transport:?}") }).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_is_seen_through_every_other_node_and_transport_at_once() {
    let mesh = Mesh::start().await;
    let changes: Vec<_> = ops::offered().iter().filter(|operation| operation.kind != Kind::Read).collect();
    assert!(changes.len() >= 14, "the table has the changes");
    for operation in changes {
        for (n, transport) in TRANSPORTS.into_iter().enumerate() {
            mesh.fleet.settled().await;
            let writer = mesh.face(n % mesh.fleet.nodes.len(), transport);
            let round = Round { mesh: &mesh, writer, mark: format!("{}-{transport:?}", operation.name) };
            read_back(operation.name, &round).await;
        }
    }
}
