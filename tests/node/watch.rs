//! What watches a fleet from outside: Prometheus's service discovery, health
//! checks by the binary itself, and a supervisor that is told how a node does.

use crate::fleet::{Fleet, Node, binary, eventually, submit};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What `/sd` of `node` says: the state and the address, by peer id.
async fn listed(node: &Node) -> Option<BTreeMap<String, (String, String)>> {
    let (status, body) = node.get("/sd").await?;
    assert_eq!(status, 200);
    let entries: Vec<Value> = serde_json::from_str(&body).expect("a JSON array");
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let of = |entry: &Value| {
        let labels = &entry["labels"];
        let state = text(&labels["__meta_taskmesh_state"]);
        (text(&labels["__meta_taskmesh_peer_id"]), (state, text(&entry["targets"][0])))
    };
    Some(entries.iter().map(of).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn any_node_tells_where_the_metrics_of_all_are() {
    let mut fleet = Fleet::start(3).await;
    for node in &fleet.nodes {
        let found = eventually(Duration::from_secs(10), "all three are listed", async || {
            listed(node).await.filter(|found| found.len() == 3)
        });
        for (peer, (state, address)) in found.await {
            assert_eq!(state == "self", peer == node.peer_id(), "{peer} is {state}");
            let metrics = reqwest::get(format!("http://{address}/metrics")).await.expect("metrics");
            assert!(metrics.text().await.is_ok_and(|text| text.contains("taskmesh_build_info")));
        }
    }
    let (killed, drained) = (fleet.nodes[1].peer_id().to_owned(), fleet.nodes[2].peer_id().to_owned());
    fleet.nodes[2].terminate();
    fleet.nodes[2].ended(Duration::from_secs(15)).await.expect("it drains");
    fleet.nodes[1].kill();
    eventually(Duration::from_secs(20), "the killed one is silent and the drained one is gone", async || {
        let found = listed(&fleet.nodes[0]).await?;
        let silent = found.get(&killed).is_some_and(|(state, _)| state == "silent");
        (silent && !found.contains_key(&drained) && found.len() == 2).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_meet_by_a_given_key_and_seeds_without_names() {
    let mut fleet = Fleet::empty(&[]).await;
    let key = fleet.folder().join("the.key");
    std::fs::write(&key, "5".repeat(64)).expect("a file");
    // Free a moment ago; whoever takes one meanwhile fails the test loudly.
    let free = || TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
    let addresses: Vec<_> = (0..3).map(|_| format!("/ip4/127.0.0.1/tcp/{}", free())).collect();
    for address in &addresses {
        let mut plan = fleet.plan_alone();
        plan.listen = address.clone();
        // Each has itself among its seeds: one list does for all.
        let plan = plan.set("net.mesh_key_file", key.to_str().expect("text")).set("net.seeds", &addresses.join(","));
        fleet.nodes.push(Node::spawn(plan));
    }
    for node in &mut fleet.nodes {
        node.up().await;
    }
    fleet.settled().await;
    submit(&fleet.nodes[2], json!({"task_id": "first", "task_type": "echo", "payload": {}})).await;
    let done = fleet.nodes[0].result("first", Duration::from_secs(20)).await;
    assert_eq!(done["status"], json!("completed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_binary_tells_by_its_exit_status_whether_a_node_is_well() {
    let mut fleet = Fleet::start(1).await;
    let folder = fleet.nodes[0].data_dir().to_owned();
    let health = |more: &[&str]| {
        let asked = Command::new(binary()).arg("health").arg("--data-dir").arg(&folder).args(more).output();
        let output = asked.expect("the binary");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    assert_eq!(health(&[]), (Some(0), "ok".to_owned()));
    assert_eq!(health(&["--ready"]), (Some(0), "ready".to_owned()));
    let (status, said) = health(&["--json"]);
    let said: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!((status, &said["success"], &said["status"]), (Some(0), &json!(true), &json!(200)));
    fleet.nodes[0].kill();
    assert_eq!(health(&[]).0, Some(11), "nobody answers");
    std::fs::remove_file(folder.join("node.json")).expect("it was left behind");
    assert_eq!(health(&[]).0, Some(11), "nobody was there");
}

#[test]
fn a_supervisor_hears_of_the_start_the_life_and_the_end_of_a_node() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    let heard = || {
        let mut text = [0; 256];
        let length = socket.recv(&mut text).expect("a word of the node");
        String::from_utf8_lossy(&text[..length]).into_owned()
    };
    let mut node = Command::new(binary());
    node.arg("up").arg("--data-dir").arg(folder.path().join("node")).args(["--listen", "/ip4/127.0.0.1/tcp/0"]);
    node.args(["--api", "127.0.0.1:0", "--metrics", "127.0.0.1:0"]);
    node.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "200000").env("XDG_CONFIG_HOME", folder.path());
    let mut node = node.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary");
    assert!(heard().starts_with("READY=1\n"));
    assert!(folder.path().join("node/node.json").exists(), "ready means that it can be found");
    for _ in 0..3 {
        assert_eq!(heard(), "WATCHDOG=1");
    }
    let pid = i32::try_from(node.id()).ok().and_then(Pid::from_raw).expect("a process id");
    kill_process(pid, Signal::TERM).expect("it takes a signal");
    let deadline = Instant::now() + Duration::from_secs(30);
    while !heard().starts_with("STOPPING=1\n") {
        assert!(Instant::now() < deadline, "it says that it stops");
    }
    assert!(node.wait().expect("a child").success());
}
