//! Programs outside of the mesh, over libp2p: they drive a node, and they work
//! for the mesh.

use crate::fleet::{Fleet, eventually, status, submit};
use serde_json::{Value, json};
use std::time::Duration;
use taskmesh::api::p2p::Remote;
use taskmesh::net::door;
use tokio::io::AsyncWriteExt as _;

const DOOR: &[(&str, &str)] = &[("api.p2p_listen", "/ip4/127.0.0.1/tcp/0")];
const SOON: Duration = Duration::from_secs(30);

fn door_of(fleet: &Fleet, node: usize) -> String {
    let file = fleet.nodes[node].data_dir().join("door.json");
    let text = std::fs::read_to_string(file).expect("the door says where it is");
    let told: Value = serde_json::from_str(&text).expect("JSON");
    told["multiaddr"].as_str().expect("an address").to_owned()
}

/// A visitor with an identity of its own.
async fn visit(fleet: &Fleet, node: usize, token: &str) -> Remote {
    let call = door::dial(&door_of(fleet, node)).await.expect("the door is open");
    let door::Call { stream, open, .. } = call;
    Remote::new(Box::new(stream), token, Box::new(open))
}

/// One op of the queue: its whole answer.
async fn op(remote: &Remote, arguments: Value) -> Value {
    let params = json!({"name": "task_queue.rpc", "arguments": arguments});
    let result = remote.request("tools/call", params).await.expect("an answer");
    result["structuredContent"].clone()
}

async fn claim(remote: &Remote, worker: &str) -> Value {
    let claim = json!({"op": "claim", "worker_id": worker, "supported_task_types": ["render"], "timeout_s": 2});
    eventually(SOON, format!("{worker} gets a task"), async || {
        let answer = op(remote, claim.clone()).await;
        assert_eq!(answer["ok"], true, "{answer}");
        (!answer["task"].is_null()).then(|| answer["task"].clone())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_worker_does_a_task_of_the_mesh_and_nobody_else_ends_it() {
    let fleet = Fleet::with(3, DOOR).await;
    let token = fleet.nodes[0].endpoint().1.to_owned();
    submit(&fleet.nodes[1], json!({"task_id": "r-1", "task_type": "render", "payload": {"frame": 7}})).await;
    assert_eq!(status(&fleet.nodes[1], "r-1").await, "queued", "nobody can run it yet");
    let (holder, thief) = (visit(&fleet, 0, &token).await, visit(&fleet, 0, &token).await);
    let task = claim(&holder, "gpu-1").await;
    assert_eq!((&task["mesh_task_id"], &task["payload"]), (&json!("r-1"), &json!({"frame": 7})));
    let complete =
        |id: &Value| json!({"op": "complete", "task_id": id, "status": "completed", "result": {"pixels": 3}});
    let stolen = op(&thief, complete(&json!("r-1"))).await;
    assert_eq!((&stolen["ok"], &stolen["error"]), (&json!(false), &json!("not_lease_holder")));
    let forged = json!({"op": "complete", "task_id": "r-1", "lease": "0".repeat(32), "status": "completed"});
    assert_eq!(op(&holder, forged).await["error"], "not_lease_holder");
    assert_ne!(status(&fleet.nodes[2], "r-1").await, "completed");
    let done = op(&holder, complete(&json!("r-1"))).await;
    assert_eq!((&done["ok"], &done["status"]), (&json!(true), &json!("completed")), "{done}");
    // Repeated, it is the same; and every node shows it.
    assert_eq!(op(&holder, complete(&json!("r-1"))).await["ok"], true);
    let result = fleet.nodes[2].result("r-1", SOON).await;
    assert_eq!((&result["status"], &result["result"]), (&json!("completed"), &json!({"pixels": 3})));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handle_is_enough_for_a_client_with_a_new_identity_for_each_call() {
    let fleet = Fleet::with(1, DOOR).await;
    let token = fleet.nodes[0].endpoint().1.to_owned();
    let submitted = op(
        &visit(&fleet, 0, &token).await,
        json!({"op": "submit", "task_type": "render", "model_name": "m-1", "payload": {"priority": 8, "x": 1}}),
    )
    .await;
    let id = submitted["task_id"].as_str().expect("an id").to_owned();
    let task = claim(&visit(&fleet, 0, &token).await, "gpu-1").await;
    assert_eq!((&task["mesh_task_id"], &task["model_name"]), (&json!(id), &json!("m-1")));
    let handle = &task["task_id"];
    let beat = op(&visit(&fleet, 0, &token).await, json!({"op": "heartbeat", "task_id": handle})).await;
    assert_eq!((&beat["ok"], &beat["lease_s"]), (&json!(true), &json!(300)), "{beat}");
    let failed = json!({"op": "complete", "task_id": handle, "status": "failed", "error": "no such model"});
    let done = op(&visit(&fleet, 0, &token).await, failed).await;
    assert_eq!((&done["ok"], &done["status"]), (&json!(true), &json!("failed")), "{done}");
    let got = op(&visit(&fleet, 0, &token).await, json!({"op": "wait", "task_id": id, "timeout_s": 5})).await;
    assert_eq!((&got["task"]["status"], &got["task"]["error"]), (&json!("failed"), &json!("no such model")));
    let listed =
        op(&visit(&fleet, 0, &token).await, json!({"op": "list", "status": "failed", "task_types": ["render"]})).await;
    assert_eq!(listed["tasks"][0]["task_id"], json!(id));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_released_or_left_is_done_by_another() {
    let fleet = Fleet::with(2, DOOR).await;
    let token = fleet.nodes[0].endpoint().1.to_owned();
    submit(&fleet.nodes[0], json!({"task_id": "r-1", "task_type": "render", "payload": {}})).await;
    let first = visit(&fleet, 0, &token).await;
    let task = claim(&first, "gpu-1").await;
    let released = op(&first, json!({"op": "release", "task_id": task["task_id"], "worker_id": "gpu-1"})).await;
    assert_eq!(released["ok"], true, "{released}");
    // The second leaves without a word, with a lease of one second.
    let second = visit(&fleet, 0, &token).await;
    let claim_short =
        json!({"op": "claim", "worker_id": "gpu-2", "supported_task_types": ["render"], "lease_s": 1, "timeout_s": 2});
    let lost = eventually(SOON, "the second gets it", async || {
        let answer = op(&second, claim_short.clone()).await;
        (!answer["task"].is_null()).then(|| answer["task"].clone())
    })
    .await;
    // On another node, a third one does it.
    let token = fleet.nodes[1].endpoint().1.to_owned();
    let third = visit(&fleet, 1, &token).await;
    let task = claim(&third, "gpu-3").await;
    let late = json!({"op": "complete", "task_id": lost["task_id"], "status": "completed", "result": {"by": 2}});
    assert_eq!(op(&second, late).await["error"], "not_lease_holder");
    let done = json!({"op": "complete", "task_id": task["task_id"], "status": "completed", "result": {"by": 3}});
    assert_eq!(op(&third, done).await["ok"], true);
    assert_eq!(fleet.nodes[0].result("r-1", SOON).await["result"], json!({"by": 3}));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_drives_a_node_without_http() {
    let fleet = Fleet::with(1, DOOR).await;
    let run = |token: &str, args: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_taskmesh"));
        command.args(["--json", "--via", &door_of(&fleet, 0), "--token", token]).args(args);
        command.output().expect("it runs")
    };
    let token = fleet.nodes[0].endpoint().1;
    let submitted = run(token, &["task", "submit", "echo", r#"{"a":1}"#, "--task-id", "by-door"]);
    assert!(submitted.status.success(), "{}", String::from_utf8_lossy(&submitted.stderr));
    let result = run(token, &["task", "result", "by-door", "--wait-ms", "20000"]);
    let answer: Value = serde_json::from_slice(&result.stdout).expect("JSON");
    assert_eq!((&answer["status"], &answer["result"]), (&json!("completed"), &json!({"a": 1})));
    assert_eq!(run("wrong", &["queue", "stats"]).status.code(), Some(9), "unauthenticated");
    assert_eq!(run(token, &["task", "status", "nobody"]).status.code(), Some(3), "not found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_door_is_shut_unless_it_was_asked_for_and_foreign_workers_go_with_their_node() {
    let mut fleet = Fleet::with(1, DOOR).await;
    let token = fleet.nodes[0].endpoint().1.to_owned();
    let visitor = visit(&fleet, 0, &token).await;
    let claim = json!({"op": "claim", "worker_id": "gpu-1", "supported_task_types": ["render"], "timeout_s": 0});
    assert_eq!(op(&visitor, claim).await["ok"], true);
    let stats = |answer: Value| answer["worker_stats"].to_string().contains("foreign:");
    let query = json!({"include_worker_stats": true});
    assert!(stats(fleet.nodes[0].ask("queue_stats", query.clone()).await), "the claim made a worker");
    fleet.nodes[0].kill();
    fleet.nodes[0].restart().await;
    eventually(SOON, "the worker of an earlier life is gone", async || {
        let answer = fleet.nodes[0].ask("queue_stats", query.clone()).await;
        (!stats(answer)).then_some(())
    })
    .await;
    let closed = Fleet::start(1).await;
    assert!(!closed.nodes[0].data_dir().join("door.json").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn large_frames_that_never_end_cost_little_and_others_are_served_meanwhile() {
    let fleet = Fleet::with(1, DOOR).await;
    let token = fleet.nodes[0].endpoint().1.to_owned();
    let kept = visit(&fleet, 0, &token).await;
    assert_eq!(op(&kept, json!({"op": "status"})).await["ok"], true);
    let before = resident_kib(fleet.nodes[0].pid());
    let mut held = Vec::new();
    for _ in 0..60 {
        // Two megabytes are promised, and a little of each is sent: what counts
        // is what has come.
        let mut call = door::dial(&door_of(&fleet, 0)).await.expect("the door is open");
        let begun = [&(2_u32 << 20).to_be_bytes()[..], &[b' '; 30_000]].concat();
        call.stream.write_all(&begun).await.expect("taken");
        call.stream.flush().await.expect("taken");
        held.push(call);
        assert_eq!(op(&kept, json!({"op": "status"})).await["ok"], true, "others are served");
    }
    let grown = resident_kib(fleet.nodes[0].pid()).saturating_sub(before);
    assert!(grown < 40 * 1024, "{grown} KiB more");
    drop(held);
    assert_eq!(op(&visit(&fleet, 0, &token).await, json!({"op": "status"})).await["ok"], true);
    assert!(!fleet.nodes[0].log().contains("panicked"));
}

fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it says so");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}
