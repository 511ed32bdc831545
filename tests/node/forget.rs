//! Most holders of a task are destroyed: it hangs, says why, and goes on by an
//! operator's word. A node that comes back all the same is refused, and says so.

use crate::fleet::{Fleet, Node, binary, eventually, submit};
use serde_json::{Value, json};
use std::process::{Command, Stdio};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

/// What a command printed, and how it ended.
fn taskmesh(node: &Node, arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(binary());
    command.arg("--data-dir").arg(node.data_dir()).args(arguments).stdin(Stdio::null());
    command.env("XDG_CONFIG_HOME", node.data_dir()).env_remove("TASKMESH_URL").env_remove("TASKMESH_TOKEN");
    let done = command.output().expect("the program runs");
    let text = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    (done.status.code().unwrap_or(-1), text)
}

async fn explained(node: &Node, task: &str) -> Option<Value> {
    node.call("task_status", json!({"task_id": task, "explain": true})).await.ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_goes_on_when_its_lost_majority_is_forgotten() {
    let mut fleet = Fleet::start(3).await;
    let peers: Vec<String> = fleet.nodes.iter().map(|n| n.peer_id().to_owned()).collect();
    let task = json!({"task_id": "work", "task_type": "sleep", "payload": {"ms": 4000}});
    submit(&fleet.nodes[0], task).await;
    fleet.nodes[1].kill();
    fleet.nodes[2].kill();
    std::fs::remove_dir_all(fleet.nodes[1].data_dir()).expect("its disk burns");
    let aside = fleet.folder().join("aside");
    std::fs::rename(fleet.nodes[2].data_dir(), &aside).expect("its disk is taken out");

    let here = &fleet.nodes[0];
    let why = eventually(PATIENCE, "it says why it hangs", async || {
        let seen = explained(here, "work").await?;
        (seen["explanation"]["reason"] == "unreachable").then_some(seen)
    });
    let why = why.await;
    let text = why["explanation"].to_string();
    assert!(text.contains(&peers[1]) && text.contains(&peers[2]) && text.contains("taskmesh forget"), "{why:#}");

    let (status, text) = taskmesh(here, &["forget", &peers[0]]);
    assert!(status != 0 && text.contains("can't forget itself"), "{status}: {text}");
    let (status, text) = taskmesh(here, &["forget", "nobody"]);
    assert!(status != 0, "{status}: {text}");
    let (status, text) = taskmesh(here, &["forget", &peers[1], "--reason", "its disk burnt"]);
    assert!(status == 0 && text.contains("others take its place"), "{status}: {text}");
    assert!(text.contains("no copy is left can't be brought back"), "{text}");
    let (status, text) = taskmesh(here, &["forget", &peers[2], "--reason", "so did its"]);
    assert!(status == 0 && text.contains("without a majority of holders now"), "{status}: {text}");
    let result = here.result("work", PATIENCE).await;
    assert_eq!(result["status"], "completed", "{result:#}");
    let seen = explained(here, "work").await.expect("it is kept");
    let mut said: Vec<_> = seen["forgotten_holders"].as_array().expect("they are named").clone();
    said.sort_by_key(|word| word["reason"].to_string());
    let said: Vec<_> = said.iter().map(|w| (w["peer_id"].as_str(), w["reason"].as_str())).collect();
    assert_eq!(said, [(Some(&*peers[1]), Some("its disk burnt")), (Some(&*peers[2]), Some("so did its"))], "{seen:#}");
    let (status, text) = taskmesh(here, &["forget", "--list"]);
    assert!(status == 0 && peers[1..].iter().all(|p| text.contains(p)), "{text}");
    let (_, text) = taskmesh(here, &["audit"]);
    assert!(text.contains("node_forget") && text.contains(&peers[2]), "{text}");

    std::fs::rename(&aside, fleet.nodes[2].data_dir()).expect("its disk is found again");
    returns_and_is_refused(&mut fleet).await;
    // What it was told it remembers, whether anybody is there or not.
    fleet.nodes[2].kill();
    fleet.nodes[0].kill();
    fleet.nodes[2].restart().await;
    let (status, body) = fleet.nodes[2].get("/readyz").await.expect("it answers");
    assert!(status == 503 && body.contains("forgotten"), "{status}: {body}");
}

async fn returns_and_is_refused(fleet: &mut Fleet) {
    fleet.nodes[2].restart().await;
    let back = &fleet.nodes[2];
    eventually(PATIENCE, "it says that it is forgotten", async || {
        let (status, body) = back.get("/readyz").await?;
        (status == 503 && body.contains("forgotten") && body.contains("fresh")).then_some(())
    })
    .await;
    assert!(back.log().contains("the mesh has forgotten this node"), "{}", back.log_tail(20));
    let refused = back.call("task_submit", json!({"task_type": "echo", "payload": {}})).await.expect_err("no work");
    assert!(refused.to_string().contains("fresh"), "{refused}");
    let (status, text) = taskmesh(back, &["status"]);
    assert!(status == 0 && text.contains("FORGOTTEN"), "{status}: {text}");
    let seen = fleet.nodes[0].ask("peer_list", json!({})).await;
    assert_eq!(seen["total_count"], json!(0), "it is no member any more: {seen:#}");
    assert!(fleet.nodes[0].log().contains("gone for ever"), "{}", fleet.nodes[0].log_tail(20));
}
