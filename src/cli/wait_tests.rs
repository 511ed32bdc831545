//! Tests of waiting, against a facade that is a script on a loopback socket.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::api::client::Way;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// What the script answers to an operation with these arguments; `Err`: refused.
type Script = dyn FnMut(&str, &Value) -> Result<Value, Value> + Send;

async fn facade(script: impl FnMut(&str, &Value) -> Result<Value, Value> + Send + 'static) -> Node {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    let script: Arc<Mutex<Box<Script>>> = Arc::new(Mutex::new(Box::new(script)));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, script.clone()));
        }
    });
    Node::new(Form::Human, None, &url, "token", Way::Url).unwrap()
}

async fn answer(mut stream: TcpStream, script: Arc<Mutex<Box<Script>>>) {
    let mut request = Vec::new();
    let body = loop {
        let mut part = [0; 4096];
        let n = stream.read(&mut part).await.unwrap();
        assert!(n > 0, "the request ended early");
        request.extend_from_slice(&part[..n]);
        let text = String::from_utf8_lossy(&request).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.to_lowercase().split_once("content-length: ").unwrap().1.to_owned();
        if body.len() >= length.lines().next().unwrap().parse().unwrap() {
            break serde_json::from_str::<Value>(body).unwrap();
        }
    };
    let params = &body["params"];
    let answer = (script.lock().unwrap())(params["name"].as_str().unwrap(), &params["arguments"]);
    let (content, failed) = match answer {
        Ok(content) => (content, false),
        Err(envelope) => (envelope, true),
    };
    let reply =
        json!({"jsonrpc": "2.0", "id": 1, "result": {"structuredContent": content, "isError": failed}}).to_string();
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        reply.len()
    );
    stream.write_all(format!("{head}{reply}").as_bytes()).await.unwrap();
}

fn refused(code: Code) -> Value {
    Value::Object(crate::ops::Failure::new(code, "no").envelope())
}

fn left(status: &str) -> Value {
    json!({"success": true, "status": status, "result": null, "output": null, "error": "why", "logs": null})
}

#[tokio::test]
async fn a_task_is_waited_for_through_a_trouble_of_the_node() {
    let mut answers =
        vec![Ok(left("completed")), Ok(left("running")), Err(refused(Code::Unavailable)), Ok(left("queued"))];
    let node = facade(move |_, _| answers.pop().unwrap()).await;
    task(&node, "t", Patience::of(None)).await.unwrap();
}

#[tokio::test]
async fn a_task_that_ends_badly_is_an_exit_of_its_own() {
    for status in ["failed", "cancelled", "expired"] {
        let node = facade(move |_, _| Ok(left(status))).await;
        let exit = task(&node, "t", Patience::of(None)).await.unwrap_err();
        assert_eq!((exit.status(), exit.to_string()), (1, format!("task t ended as {status}: why")));
    }
}

#[tokio::test]
async fn a_wait_ends_in_time_and_a_refusal_at_once() {
    let node = facade(|_, _| Ok(left("running"))).await;
    let exit = task(&node, "t", Patience::of(Some(0))).await.unwrap_err();
    assert!(exit.is(Code::DeadlineExceeded), "{exit}");
    let node = facade(|_, _| Err(refused(Code::NotFound))).await;
    let exit = task(&node, "t", Patience::of(None)).await.unwrap_err();
    assert!(exit.is(Code::NotFound), "{exit}");
}

fn page(total: u64) -> Value {
    json!({"success": true, "tasks": [], "total_count": total, "nodes_answered": 2, "nodes_expected": 2})
}

/// A page of the array `a`, of which so many tasks are seen.
fn listed(seen: u64) -> Value {
    let mut page = page(seen);
    page["tasks"] = (0..seen).map(|n| json!({"task_id": format!("a/{n}")})).collect();
    page
}

/// A facade of an array: how many tasks are in a state, in each round.
async fn array_facade(rounds: Vec<Vec<(&'static str, u64)>>, read: Arc<Mutex<Vec<String>>>) -> Node {
    let mut asked = 0;
    facade(move |name, arguments| {
        if name == "task_result" {
            let id = arguments["task_id"].as_str().unwrap();
            read.lock().unwrap().push(id.to_owned());
            return if id == "a" { Err(refused(Code::NotFound)) } else { Ok(left("completed")) };
        }
        let round = &rounds[(asked / 7).min(rounds.len() - 1)];
        let Some(state) = arguments["status_filter"].as_str() else {
            return Ok(listed(round.iter().map(|(_, n)| n).sum()));
        };
        asked += 1;
        Ok(page(round.iter().find(|(name, _)| *name == state).map_or(0, |(_, n)| *n)))
    })
    .await
}

#[tokio::test]
async fn an_array_is_waited_for_and_each_result_is_read() {
    let read = Arc::new(Mutex::new(Vec::new()));
    let rounds =
        vec![vec![("queued", 2), ("running", 1)], vec![("running", 1), ("completed", 2)], vec![("completed", 3)]];
    let node = array_facade(rounds, read.clone()).await;
    run(&node, &WaitArgs { task_id: "a".to_owned(), timeout: None }).await.unwrap();
    let mut read = read.lock().unwrap().clone();
    read.sort();
    assert_eq!(read, ["a", "a/0", "a/1", "a/2"]);
}

/// A facade of three tasks of the array `a`, of which only some are seen before
/// others have taken them over from a lost node.
async fn facade_with_a_lost_node(seen_at_first: u64) -> Node {
    let mut asked = 0;
    facade(move |name, arguments| {
        if name == "task_result" {
            return if arguments["task_id"] == "a" { Err(refused(Code::Unavailable)) } else { Ok(left("completed")) };
        }
        if !arguments["status_filter"].is_null() {
            return Ok(page(if arguments["status_filter"] == "completed" { 3 } else { 0 }));
        }
        asked += 1;
        let (seen, answered) = if asked == 1 { (seen_at_first, 1) } else { (3, 2) };
        let mut page = listed(seen);
        page["nodes_answered"] = answered.into();
        Ok(page)
    })
    .await
}

#[tokio::test]
async fn an_array_is_counted_when_others_have_the_tasks_of_a_lost_node() {
    for seen_at_first in [0, 2] {
        let node = facade_with_a_lost_node(seen_at_first).await;
        assert_eq!(find(&node, "a", Patience::of(None)).await.unwrap(), Found::Array(3));
        run(&node, &WaitArgs { task_id: "a".to_owned(), timeout: None }).await.unwrap();
    }
}

/// The counts of the states are asked for one by one, and a task that goes on in
/// between is in two of them.
#[tokio::test]
async fn a_task_that_goes_on_while_an_array_is_counted_counts_once() {
    let node = facade(move |name, arguments| {
        if name == "task_result" {
            return if arguments["task_id"] == "a" { Err(refused(Code::NotFound)) } else { Ok(left("completed")) };
        }
        let mut page = match (arguments["status_filter"].as_str(), arguments["cursor"].as_str()) {
            (Some("running"), _) => page(1),
            (Some("completed"), _) => page(3),
            (Some(_), _) => page(0),
            (None, None) => {
                let mut first = listed(2);
                first["next_cursor"] = "more".into();
                first
            }
            (None, Some(_)) => {
                let mut last = page(3);
                last["tasks"] = json!([{"task_id": "a/2"}]);
                last
            }
        };
        // One node is away, so that the end is known by the number alone.
        page["nodes_answered"] = u64::from(arguments["status_filter"].is_null()).into();
        page["nodes_expected"] = 1.into();
        Ok(page)
    })
    .await;
    assert_eq!(find(&node, "a", Patience::of(None)).await.unwrap(), Found::Array(3));
    run(&node, &WaitArgs { task_id: "a".to_owned(), timeout: Some(30) }).await.unwrap();
}

#[tokio::test]
async fn an_id_that_nobody_knows_is_not_found_at_once() {
    let node = array_facade(vec![vec![]], Arc::default()).await;
    let exit = run(&node, &WaitArgs { task_id: "a".to_owned(), timeout: None }).await.unwrap_err();
    assert!(exit.is(Code::NotFound), "{exit}");
}

#[tokio::test]
async fn an_array_with_a_failure_ends_badly_and_says_how_to_see_it() {
    let node = array_facade(vec![vec![("completed", 1), ("failed", 2)]], Arc::default()).await;
    let exit = array(&node, "a", 3, Patience::of(None)).await.unwrap_err();
    assert_eq!(exit.status(), 1);
    assert!(
        exit.to_string().contains("of 3 tasks 2 failed; `taskmesh task list --status failed --workflow a`"),
        "{exit}"
    );
}

#[tokio::test]
async fn an_array_whose_tasks_are_forgotten_is_at_its_end_too() {
    let node = array_facade(vec![vec![("running", 1), ("completed", 1)], vec![("completed", 1)]], Arc::default()).await;
    let exit = array(&node, "a", 3, Patience::of(Some(30))).await.unwrap_err();
    assert!(exit.to_string().starts_with("array a: 2 of 3 tasks ended and are no longer kept"), "{exit}");
}

#[tokio::test]
async fn an_output_is_read_page_by_page_as_the_bytes_that_it_is() {
    let first = json!({"output": "abc", "output_encoding": "utf-8", "next_output_offset": 3});
    let node = facade(|_, arguments| {
        let offset = arguments["output_offset"].as_u64().unwrap();
        Ok(match offset {
            3 => json!({"output": "/wA=", "output_encoding": "base64", "next_output_offset": 5}),
            5 => json!({"output": "z", "output_encoding": "utf-8", "next_output_offset": 5}),
            other => panic!("asked from {other}"),
        })
    })
    .await;
    let mut all = Vec::new();
    let mut keep = |part: &[u8]| {
        all.extend_from_slice(part);
        Ok(())
    };
    pages(&node, "t", &first, &mut keep).await.unwrap();
    assert_eq!(all, b"abc\xff\x00z");
}
