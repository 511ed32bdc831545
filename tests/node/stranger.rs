//! A node without the mesh's key gets nowhere; nor does noise on the port.

use crate::fleet::{Fleet, Node, Plan, code, eventually, poll, status, submit};
use serde_json::json;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_the_key_gets_nowhere() {
    let fleet = Fleet::start(2).await;
    submit(&fleet.nodes[0], json!({"task_id": "private", "task_type": "echo", "payload": {}})).await;
    // It knows an address of the mesh, and has a key of its own.
    let seed = fleet.nodes[0].addresses()[0].clone();
    let mut stranger = Node::spawn(
        Plan::new(&fleet.folder().join("stranger")).set("net.seeds", &seed).set("log.level", "info,taskmesh=debug"),
    );
    stranger.up().await;
    eventually(Duration::from_secs(20), "somebody says why it was refused", async || {
        let said = |log: &str| log.contains("mesh key") || log.contains("another mesh") || log.contains("refused");
        (said(&stranger.log()) || said(&fleet.nodes[0].log())).then_some(())
    })
    .await;
    let dial = json!({"peer_id": fleet.nodes[0].peer_id(), "multiaddr": seed, "timeout": 3, "retry_count": 0});
    let refused = stranger.call("peer_connect", dial).await.expect_err("no way in");
    assert!(["unavailable", "permission_denied", "deadline_exceeded"].contains(&code(&refused)), "{refused}");
    let connected = json!({"status_filter": "connected"});
    assert_eq!(stranger.ask("peer_list", connected.clone()).await["total_count"], json!(0));
    assert_eq!(fleet.nodes[0].ask("peer_list", connected).await["total_count"], json!(1));
    let asked = stranger.call("task_status", json!({"task_id": "private"})).await.expect_err("unknown to it");
    assert_eq!(code(&asked), "not_found", "{asked}");
    assert_eq!(fleet.nodes[1].result("private", Duration::from_secs(20)).await["status"], json!("completed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn noise_on_the_port_harms_nobody() {
    let fleet = Fleet::start(2).await;
    let address = fleet.nodes[0].addresses()[0].clone();
    let parts: Vec<_> = address.split('/').collect();
    let socket: SocketAddr = format!("{}:{}", parts[2], parts[4]).parse().expect("/ip4/…/tcp/…");
    for noise in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 4096], &[0; 64], &b"\x13/multistream/1.0.0\n"[..]] {
        let mut stream = TcpStream::connect(socket).expect("the port is open");
        // It may close the connection in the middle of this.
        let _ = stream.write_all(noise);
    }
    submit(&fleet.nodes[1], json!({"task_id": "calm", "task_type": "echo", "payload": {}})).await;
    let done =
        poll(Duration::from_secs(20), async || (status(&fleet.nodes[0], "calm").await == "completed").then_some(()));
    assert!(done.await.is_some(), "the mesh works on");
    assert!(!fleet.nodes[0].log().contains("panicked"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_facade_is_closed_to_whoever_lacks_the_token() {
    let fleet = Fleet::start(1).await;
    let (url, _) = fleet.nodes[0].endpoint();
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"});
    let client = reqwest::Client::new();
    for token in [None, Some("wrong")] {
        let mut request = client.post(url).header("accept", "application/json, text/event-stream").json(&call);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status().as_u16(), 401, "with {token:?}");
    }
}
