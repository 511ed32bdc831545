//! Resources, prompts, subscriptions and tasks of MCP over real sockets, with a
//! scripted node behind them.

use crate::api::testing::{Act, BLOB, Endpoint, TOKEN, body, greet, paused};
use crate::ops::{Changes, Offer, samples};
use reqwest::Response;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use taskmesh_core::command::{Command, Query};
use taskmesh_core::view::{Stats, Status, TaskPage, TaskView};
use taskmesh_core::{BlobHash, NodeId, Notice, Refusal, Reply, Request, TaskId};

/// A node with one task, which a test moves.
#[derive(Clone)]
struct OneTask(Arc<Mutex<TaskView>>);

impl OneTask {
    fn new(status: Status) -> OneTask {
        OneTask(Arc::new(Mutex::new(samples::task_view(status))))
    }

    fn change(&self, change: impl FnOnce(&mut TaskView)) {
        change(&mut self.0.lock().expect("no panic"));
    }

    fn act(&self, request: &Request) -> Act {
        let view = self.0.lock().expect("no panic").clone();
        Act::Answer(Ok(match request {
            Request::Query(Query::Task { task, .. }) if *task == view.task => Reply::Task(Box::new(view)),
            Request::Query(Query::Task { task, .. }) => {
                return Act::Answer(Err(Refusal::NotFound { what: "task".into(), name: task.as_str().into() }));
            }
            Request::Query(Query::Tasks(_)) => {
                Reply::Tasks(TaskPage { tasks: vec![view], total: 1, answered: 1, expected: 1 })
            }
            Request::Query(Query::Stats { .. }) => {
                Reply::Stats(Box::new(Stats { workers: Some(vec![]), answered: 1, expected: 1, ..Stats::default() }))
            }
            Request::Query(Query::Workers) => Reply::Workers(vec![]),
            Request::Query(Query::Peers(_)) => Reply::Peers { peers: vec![], total: 0 },
            Request::Command(Command::Cancel { task, .. }) => Reply::Cancelled {
                task: task.clone(),
                status: Status::Cancelled,
                at: taskmesh_core::Unix(0),
                cleanup_required: false,
            },
            _ => return paused(),
        }))
    }

    async fn endpoint(&self) -> Endpoint {
        let node = self.clone();
        Endpoint::start(move |request| node.act(request)).await
    }
}

async fn ask(endpoint: &Endpoint, method: &str, params: Value) -> Value {
    asked(endpoint, method, params, json!({})).await
}

async fn asked(endpoint: &Endpoint, method: &str, params: Value, capabilities: Value) -> Value {
    body(endpoint.modern(method, params, capabilities).send().await.expect("a response")).await
}

/// The messages of a stream, one by one.
struct Stream {
    response: Response,
    text: String,
}

impl Stream {
    fn of(response: Response) -> Stream {
        assert_eq!(response.status(), 200);
        Stream { response, text: String::new() }
    }

    async fn next(&mut self) -> Value {
        let next = async {
            loop {
                if let Some((event, rest)) = self.text.split_once("\n\n") {
                    let data = event.lines().filter_map(|line| line.strip_prefix("data:")).map(str::trim);
                    let value = data.filter(|d| !d.is_empty()).map(|d| serde_json::from_str(d).expect("JSON")).next();
                    self.text = rest.to_owned();
                    if let Some(value) = value {
                        return value;
                    }
                    continue;
                }
                let chunk = self.response.chunk().await.expect("a stream").expect("not its end");
                self.text.push_str(std::str::from_utf8(&chunk).expect("text"));
            }
        };
        tokio::time::timeout(Duration::from_secs(20), next).await.expect("a message in time")
    }

    async fn updated(&mut self) -> Value {
        let message = self.next().await;
        assert_eq!(message["method"], "notifications/resources/updated", "{message}");
        message["params"]["uri"].clone()
    }
}

fn closed(task: &str) -> Notice {
    Notice::TaskClosed {
        task: TaskId::new(task).expect("valid"),
        task_type: "exec".into(),
        status: Status::Completed,
        attempt: 1,
        executor: Some(NodeId::test(1)),
        took: taskmesh_core::Millis(1),
        settled_in: taskmesh_core::Millis(1),
    }
}

async fn listen(endpoint: &Endpoint, uris: &[&str]) -> Stream {
    let params = json!({"notifications": {"resourceSubscriptions": uris}});
    let request = endpoint.modern("subscriptions/listen", params, json!({}));
    Stream::of(request.send().await.expect("a response"))
}

#[tokio::test]
async fn a_modern_subscriber_hears_of_a_change_and_only_of_changes() {
    let node = OneTask::new(Status::Running);
    let endpoint = node.endpoint().await;
    let mut news = listen(&endpoint, &["mesh://tasks/t", "mesh://nothing", "mesh://peers"]).await;
    let accepted = news.next().await;
    assert_eq!(accepted["method"], "notifications/subscriptions/acknowledged");
    let accepted = &accepted["params"]["notifications"]["resourceSubscriptions"];
    assert_eq!(*accepted, json!(["mesh://tasks/t", "mesh://peers"]));
    // One of each at the beginning: whoever reads now has missed nothing.
    let mut first = [news.updated().await, news.updated().await];
    first.sort_by_key(Value::to_string);
    assert_eq!(first, [json!("mesh://peers"), json!("mesh://tasks/t")]);
    endpoint.until("two watchers", |e| e.feed.watched() == 2).await;
    // A hint without a change is no news; with one it is.
    endpoint.feed.tell(&closed("t"));
    node.change(|task| task.status = Status::Completed);
    endpoint.feed.tell(&closed("t"));
    assert_eq!(news.updated().await, "mesh://tasks/t");
    drop(news);
    endpoint.until("the end of the watchers", |e| e.feed.watched() == 0).await;
}

#[tokio::test]
async fn a_change_on_another_node_is_heard_without_a_notice() {
    let node = OneTask::new(Status::Queued);
    let endpoint = node.endpoint().await;
    let mut news = listen(&endpoint, &["mesh://tasks/t"]).await;
    news.next().await;
    news.updated().await;
    for (status, percent) in [(Status::Leased, None), (Status::Running, Some(10)), (Status::Completed, None)] {
        node.change(|task| (task.status, task.progress) = (status, percent));
        assert_eq!(news.updated().await, "mesh://tasks/t");
    }
}

#[tokio::test]
async fn a_task_can_be_awaited_before_it_is_there() {
    let node = OneTask::new(Status::Queued);
    let endpoint = node.endpoint().await;
    let mut news = listen(&endpoint, &["mesh://tasks/soon"]).await;
    news.next().await;
    news.updated().await;
    node.change(|task| task.task = TaskId::new("soon").expect("valid"));
    endpoint.feed.tell(&closed("soon"));
    assert_eq!(news.updated().await, "mesh://tasks/soon");
}

#[tokio::test]
async fn a_legacy_session_subscribes_and_ends_its_subscriptions() {
    let node = OneTask::new(Status::Running);
    let endpoint = node.endpoint().await;
    let (session, greeting) = greet(&endpoint).await;
    assert_eq!(greeting["result"]["capabilities"]["resources"]["subscribe"], true);
    let authorized = |request: reqwest::RequestBuilder| {
        request.header("Authorization", format!("Bearer {TOKEN}")).header("Mcp-Session-Id", &session)
    };
    let stream = authorized(endpoint.http.get(&endpoint.url)).header("Accept", "text/event-stream");
    let mut news = Stream::of(stream.send().await.expect("a stream"));
    let call = async |id: u32, method: &str, uri: &str| {
        let message = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": {"uri": uri}});
        let request = endpoint.post().header("Mcp-Session-Id", &session).body(message.to_string());
        body(request.send().await.expect("a response")).await
    };
    assert!(call(1, "resources/subscribe", "mesh://nothing").await["error"].is_object());
    assert!(call(2, "resources/subscribe", "mesh://tasks/t").await["result"].is_object());
    assert_eq!(news.updated().await, "mesh://tasks/t");
    node.change(|task| task.status = Status::Completed);
    endpoint.feed.tell(&closed("t"));
    assert_eq!(news.updated().await, "mesh://tasks/t");
    call(3, "resources/unsubscribe", "mesh://tasks/t").await;
    endpoint.until("the end of the watcher", |e| e.feed.watched() == 0).await;
    call(4, "resources/subscribe", "mesh://queue").await;
    assert_eq!(news.updated().await, "mesh://queue");
    authorized(endpoint.http.delete(&endpoint.url)).send().await.expect("a response");
    endpoint.until("the end with the session", |e| e.feed.watched() == 0).await;
}

#[tokio::test]
async fn a_session_has_no_more_than_its_share_of_subscriptions() {
    let endpoint = OneTask::new(Status::Completed).endpoint().await;
    let uris: Vec<_> = (0..150).map(|n| format!("mesh://tasks/t{n}")).collect();
    let mut news = listen(&endpoint, &uris.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let accepted = news.next().await;
    let accepted = accepted["params"]["notifications"]["resourceSubscriptions"].as_array().map(Vec::len);
    assert_eq!(accepted, Some(super::subscription::EACH));
}

#[tokio::test]
async fn resources_are_listed_in_pages_and_say_what_the_operations_say() {
    let node = OneTask::new(Status::Completed);
    let endpoint = node.endpoint().await;
    let list = ask(&endpoint, "resources/list", json!({})).await["result"].clone();
    let uris: Vec<_> = list["resources"].as_array().expect("a list").iter().map(|r| r["uri"].clone()).collect();
    assert_eq!(uris, ["mesh://queue", "mesh://workers", "mesh://peers", "mesh://tasks/t"]);
    assert!(list["nextCursor"].is_null());
    let cursor = crate::ops::value::task_cursor(taskmesh_core::Unix(5), &TaskId::new("a").expect("valid"));
    let next = ask(&endpoint, "resources/list", json!({"cursor": cursor})).await["result"].clone();
    assert_eq!(next["resources"].as_array().map(Vec::len), Some(1), "the fixed ones are on the first page alone");
    let wrong = ask(&endpoint, "resources/list", json!({"cursor": "%"})).await;
    assert_eq!(wrong["error"]["code"], -32602);
    let templates = ask(&endpoint, "resources/templates/list", json!({})).await["result"].clone();
    assert_eq!(templates["resourceTemplates"][0]["uriTemplate"], "mesh://tasks/{id}");
    for (uri, field) in [("queue", "queued_count"), ("workers", "workers"), ("peers", "peers"), ("tasks/t", "status")] {
        let uri = format!("mesh://{uri}");
        let read = ask(&endpoint, "resources/read", json!({"uri": uri})).await["result"]["contents"][0].clone();
        assert_eq!((&read["uri"], &read["mimeType"]), (&json!(uri), &json!("application/json")));
        let said: Value = serde_json::from_str(read["text"].as_str().expect("text")).expect("JSON");
        assert!(!said[field].is_null() && said["success"].is_null(), "{uri}: {said}");
    }
    let older = ask(&endpoint, "resources/read", json!({"uri": "mesh://submissions/t"})).await["error"].clone();
    assert_eq!(older["data"]["code"], "failed_precondition", "a node that does not tell what was submitted: {older}");
    for missing in ["mesh://tasks/other", "mesh://nothing"] {
        let error = ask(&endpoint, "resources/read", json!({"uri": missing})).await["error"].clone();
        assert_eq!((&error["code"], &error["data"]["code"]), (&json!(-32602), &json!("not_found")), "{missing}");
    }
    assert!(endpoint.metered.lock().expect("told").contains(&("resources/read".to_owned(), "not_found".to_owned())));
}

#[tokio::test]
async fn content_is_read_whole_or_in_parts() {
    let endpoint = OneTask::new(Status::Completed).endpoint().await;
    let read = async |uri: String| ask(&endpoint, "resources/read", json!({"uri": uri})).await;
    let uri = super::uri::Uri::blob(BlobHash::of(BLOB)).to_string();
    let whole = read(uri.clone()).await["result"].clone();
    assert_eq!(whole["contents"][0]["text"], std::str::from_utf8(BLOB).expect("text"));
    let part = read(format!("{uri}?offset=5&length=7")).await["result"]["contents"][0]["text"].clone();
    assert_eq!(part, "content");
    let missing = read(super::uri::Uri::blob(BlobHash([0; 32])).to_string()).await["error"].clone();
    assert!(missing["message"].as_str().is_some_and(|m| m.contains("mesh://tasks/{id}")), "{missing}");
    let broken = read(super::uri::Uri::blob(BlobHash([1; 32])).to_string()).await["error"].clone();
    assert_eq!(broken["code"], -32603, "a disk that panics is a defect, and the node lives on");
    assert_eq!(read("mesh://queue".to_owned()).await["error"], Value::Null);
}

#[tokio::test]
async fn every_prompt_embeds_what_the_mesh_says_now() {
    let endpoint = OneTask::new(Status::Queued).endpoint().await;
    let list = ask(&endpoint, "prompts/list", json!({})).await["result"]["prompts"].clone();
    let prompts = list.as_array().expect("a list").clone();
    assert_eq!(prompts.len(), 4);
    for prompt in prompts {
        let names = prompt["arguments"].as_array().cloned().unwrap_or_default();
        let needed = names.iter().filter(|a| a["required"] == true).filter_map(|a| a["name"].as_str());
        let value = |name: &str| if name == "task_id" { "t" } else { "hash every file" };
        let arguments: serde_json::Map<_, _> = needed.map(|n| (n.to_owned(), value(n).into())).collect();
        let params = json!({"name": prompt["name"], "arguments": arguments});
        let written = ask(&endpoint, "prompts/get", params).await["result"].clone();
        let messages = written["messages"].as_array().expect("messages").clone();
        assert!(messages[0]["content"]["text"].is_string(), "{written}");
        let facts = messages.iter().filter(|m| m["content"]["type"] == "resource");
        for fact in facts.clone() {
            let text = fact["content"]["resource"]["text"].as_str().expect("text");
            assert!(serde_json::from_str::<Value>(text).is_ok_and(|v| v.is_object()), "{text}");
        }
        assert!(facts.count() > 0, "{}", prompt["name"]);
    }
    for (name, arguments, says) in [
        ("no_such_prompt", json!({}), "diagnose_mesh"),
        ("why_is_my_task_waiting", json!({}), "task_id"),
        ("why_is_my_task_waiting", json!({"task": "t"}), "task_id"),
        ("why_did_my_task_fail", json!({"task_id": "other"}), "not known"),
    ] {
        let error = ask(&endpoint, "prompts/get", json!({"name": name, "arguments": arguments})).await["error"].clone();
        assert!(error["message"].as_str().is_some_and(|m| m.contains(says)), "{name}: {error}");
    }
}

#[tokio::test]
async fn ids_are_completed() {
    let endpoint = OneTask::new(Status::Queued).endpoint().await;
    let complete = async |reference: Value, name: &str, value: &str| {
        let params = json!({"ref": reference, "argument": {"name": name, "value": value}});
        ask(&endpoint, "completion/complete", params).await["result"]["completion"]["values"].clone()
    };
    let template = json!({"type": "ref/resource", "uri": "mesh://tasks/{id}"});
    let prompt = json!({"type": "ref/prompt", "name": "why_did_my_task_fail"});
    assert_eq!(complete(template.clone(), "id", "t").await[0], "t");
    assert_eq!(complete(template, "id", "x").await, json!([]));
    assert_eq!(complete(prompt, "task_id", "").await[0], "t");
}

#[tokio::test]
async fn a_client_that_can_follow_a_task_gets_a_handle_that_the_mesh_answers_for() {
    let node = OneTask::new(Status::Running);
    let endpoint = node.endpoint().await;
    let able = json!({"extensions": {"io.modelcontextprotocol/tasks": {}}});
    let wait = |wait_ms: u32| json!({"name": "task_result", "arguments": {"task_id": "t", "wait_ms": wait_ms}});
    let handle = asked(&endpoint, "tools/call", wait(5_000), able.clone()).await["result"].clone();
    assert_eq!(
        (&handle["resultType"], &handle["taskId"], &handle["status"]),
        (&json!("task"), &json!("t"), &json!("working"))
    );
    // One that can't gets a plain answer, as does one that does not wait.
    for plain in [
        asked(&endpoint, "tools/call", wait(5), json!({})).await,
        asked(&endpoint, "tools/call", wait(0), able.clone()).await,
    ] {
        assert_eq!(plain["result"]["structuredContent"]["status"], "running", "{plain}");
    }
    let look = async || asked(&endpoint, "tasks/get", json!({"taskId": "t"}), able.clone()).await["result"].clone();
    node.change(|task| (task.progress, task.message) = (Some(40), Some("at it".into())));
    assert_eq!(look().await["statusMessage"], "running, 40 %: at it");
    node.change(|task| *task = samples::task_view(Status::Completed));
    let done = look().await;
    assert_eq!(
        (&done["status"], &done["result"]["structuredContent"]["status"]),
        (&json!("completed"), &json!("completed"))
    );
    node.change(|task| (task.status, task.failures, task.crashes) = (Status::Failed, 0, 3));
    let lost = look().await;
    assert_eq!((&lost["status"], &lost["error"]["data"]["crashes"]), (&json!("failed"), &json!(3)));
    let unknown = asked(&endpoint, "tasks/get", json!({"taskId": "other"}), able.clone()).await;
    assert_eq!(unknown["error"]["code"], -32602);
    let undeclared = ask(&endpoint, "tasks/get", json!({"taskId": "t"})).await;
    assert_eq!(undeclared["error"]["code"], -32021);
    let cancelled = asked(&endpoint, "tasks/cancel", json!({"taskId": "t"}), able).await;
    assert_eq!(cancelled["result"]["resultType"], "complete", "{cancelled}");
    let told = endpoint.asked.lock().expect("asked");
    assert!(told.iter().any(|r| matches!(r, Request::Command(Command::Cancel { force: false, .. }))));
}

#[tokio::test]
async fn a_caller_with_a_token_hears_of_progress_while_it_waits() {
    let node = OneTask::new(Status::Running);
    node.change(|task| (task.progress, task.message) = (Some(40), Some("at it".into())));
    let endpoint = node.endpoint().await;
    let mut params = json!({"name": "task_result", "arguments": {"task_id": "t", "wait_ms": 30_000}});
    params["_meta"] = json!({"progressToken": "p-1"});
    let request = endpoint.modern("tools/call", params, json!({}));
    let mut stream = Stream::of(request.send().await.expect("a response"));
    let told = stream.next().await;
    assert_eq!(told["method"], "notifications/progress", "{told}");
    let (token, progress, message) =
        (&told["params"]["progressToken"], &told["params"]["progress"], &told["params"]["message"]);
    assert_eq!((token, progress.as_f64(), message), (&json!("p-1"), Some(40.0), &json!("at it")));
    node.change(|task| task.status = Status::Completed);
    assert_eq!(stream.next().await["result"]["structuredContent"]["status"], "completed");
}

#[tokio::test]
async fn what_a_node_or_a_client_leaves_out_is_not_offered() {
    let reads = Offer::new(["task", "peer"], Changes::Withheld).expect("toolsets");
    let node = OneTask::new(Status::Queued);
    let endpoint = Endpoint::offering(reads, move |request| node.act(request)).await;
    let names = async |toolsets: Option<&str>, read_only: Option<&str>| {
        let mut request = endpoint.modern("tools/list", json!({}), json!({}));
        request = toolsets.into_iter().fold(request, |r, names| r.header("X-MCP-Toolsets", names));
        request = read_only.into_iter().fold(request, |r, flag| r.header("X-MCP-Readonly", flag));
        let list = body(request.send().await.expect("a response")).await;
        let tools = list["result"]["tools"]
            .as_array()
            .map(|tools| tools.iter().filter_map(|t| t["name"].as_str()).collect::<Vec<_>>().join(" "));
        (tools.unwrap_or_default(), list["result"]["cacheScope"].clone(), list["error"]["message"].clone())
    };
    let all = names(None, None).await;
    assert_eq!(
        (all.0.as_str(), all.1),
        ("task_status task_list task_result peer_discover peer_list peer_metrics", json!("private"))
    );
    let tasks = names(Some("task, queue"), Some("false")).await;
    assert_eq!((tasks.0.as_str(), tasks.1), ("task_status task_list task_result", json!("private")));
    let unknown = names(Some("taks"), None).await.2;
    assert!(unknown.as_str().is_some_and(|m| m.contains("task, queue, worker")), "{unknown}");
    let withheld = endpoint.call("task_submit", json!({"task_type": "echo", "payload": {}})).await;
    assert!(withheld["error"]["message"].as_str().is_some_and(|m| m.contains("reads alone")), "{withheld}");
    let able = json!({"extensions": {"io.modelcontextprotocol/tasks": {}}});
    let cancel = asked(&endpoint, "tasks/cancel", json!({"taskId": "t"}), able).await;
    assert_eq!(cancel["error"]["data"]["code"], "permission_denied", "{cancel}");
    assert!(endpoint.asked.lock().expect("asked").is_empty());
}
