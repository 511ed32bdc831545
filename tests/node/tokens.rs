//! Tokens on real nodes: made on one, used on another, narrowed on no node,
//! revoked for all, also for those that restart or join later.

use crate::fleet::{Fleet, Node, code, eventually};
use serde_json::{Value, json};
use std::process::{Command, Stdio};
use std::time::Duration;
use taskmesh::api::client::{Client, ClientError};

/// Runs the command line with the data folder of `node`; what it printed.
fn taskmesh(node: &Node, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_taskmesh"));
    command.arg("--data-dir").arg(node.data_dir()).args(arguments);
    let done = command.stdin(Stdio::null()).output().expect("the program runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if done.status.success() { Ok(text(&done.stdout)) } else { Err(text(&done.stderr)) }
}

async fn call(node: &Node, token: &str, name: &str, arguments: Value) -> Result<Value, ClientError> {
    Client::new(node.endpoint().0, token).expect("a client").call(name, arguments).await
}

async fn refusal(node: &Node, token: &str, name: &str, arguments: Value) -> &'static str {
    code(&call(node, token, name, arguments).await.expect_err("refused"))
}

fn make(node: &Node, arguments: &[&str]) -> String {
    let all = [&["token", "create"], arguments].concat();
    taskmesh(node, &all).expect("a token")
}

fn id_of(node: &Node, token: &str) -> String {
    let shown = taskmesh(node, &["--json", "token", "inspect", token]).expect("readable");
    let shown: Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!(shown["signature"], "valid");
    shown["id"].as_str().expect("an id").to_owned()
}

fn echo(id: &str) -> Value {
    json!({"task_id": id, "task_type": "echo", "payload": {"a": 1}})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_holds_on_every_node_until_it_is_revoked_on_every_node() {
    let mut fleet = Fleet::start(3).await;
    let ann = make(&fleet.nodes[0], &["--name", "ann", "--role", "submitter"]);
    let bob = make(&fleet.nodes[1], &["--name", "bob", "--role", "submitter"]);
    call(&fleet.nodes[1], &ann, "task_submit", echo("hers")).await.expect("taken");
    for node in &fleet.nodes {
        let cancel = json!({"task_id": "hers"});
        assert_eq!(refusal(node, &bob, "task_cancel", cancel).await, "permission_denied");
        assert_eq!(refusal(node, &ann, "queue_pause", json!({})).await, "permission_denied");
        assert!(call(node, &bob, "task_status", json!({"task_id": "hers"})).await.is_ok(), "looking is free");
    }
    let less = taskmesh(&fleet.nodes[2], &["token", "attenuate", &ann, "--role", "viewer"]).expect("a token");
    assert_eq!(refusal(&fleet.nodes[2], &less, "task_submit", echo("more")).await, "permission_denied");
    call(&fleet.nodes[2], &less, "task_list", json!({})).await.expect("a list");

    taskmesh(&fleet.nodes[2], &["token", "revoke", &id_of(&fleet.nodes[2], &ann)]).expect("revoked");
    for token in [&ann, &less] {
        for node in &fleet.nodes {
            eventually(Duration::from_secs(10), "refused", async || {
                (call(node, token, "task_list", json!({})).await.is_err_and(|e| code(&e) == "unauthenticated"))
                    .then_some(())
            })
            .await;
        }
    }
    fleet.nodes[0].kill();
    fleet.nodes[0].restart().await;
    assert_eq!(refusal(&fleet.nodes[0], &less, "task_list", json!({})).await, "unauthenticated", "durable");
    fleet.grow(4).await;
    eventually(Duration::from_secs(10), "refused where it was never known", async || {
        let refused = call(&fleet.nodes[3], &ann, "task_list", json!({})).await;
        refused.is_err_and(|e| code(&e) == "unauthenticated").then_some(())
    })
    .await;
    call(&fleet.nodes[3], &bob, "task_list", json!({})).await.expect("the others hold");

    let listed = taskmesh(&fleet.nodes[3], &["token", "list"]).expect("a list");
    assert!(listed.contains("ann") && listed.contains("revoked") && listed.contains("bob"), "{listed}");
    assert!(!listed.contains("tmt_"), "{listed}");
    let acts = taskmesh(&fleet.nodes[1], &["--json", "audit", "--subject", "ann"]).expect("a log");
    let acts: Vec<Value> = acts.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let said: Vec<_> = acts.iter().map(|act| (act["operation"].as_str(), act["outcome"].as_str())).collect();
    assert_eq!(said, [(Some("task_submit"), Some("ok")), (Some("queue_pause"), Some("permission_denied"))]);
    assert_eq!(acts[0]["ids"]["task_id"], "hers");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_for_its_own_tasks_sees_no_others() {
    let fleet = Fleet::start(3).await;
    let ci = make(&fleet.nodes[0], &["--name", "ci", "--role", "submitter", "--own", "--priority-max", "2"]);
    fleet.nodes[1].ask("task_submit", echo("theirs")).await;
    call(&fleet.nodes[2], &ci, "task_submit", echo("its-own")).await.expect("taken");
    for node in &fleet.nodes {
        let page = call(node, &ci, "task_list", json!({})).await.expect("a list");
        let ids: Vec<_> = page["tasks"].as_array().into_iter().flatten().map(|t| t["task_id"].clone()).collect();
        assert_eq!((&ids[..], &page["total_count"]), (&[json!("its-own")][..], &json!(1)), "{}", node.name());
        assert_eq!(refusal(node, &ci, "task_result", json!({"task_id": "theirs"})).await, "permission_denied");
        let raise = json!({"task_id": "its-own", "new_priority": 3.0});
        assert_eq!(refusal(node, &ci, "task_priority", raise).await, "permission_denied");
    }
}
