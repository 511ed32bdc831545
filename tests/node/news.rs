//! Whoever subscribed to a task, on any node, hears of its end wherever it ran.

use crate::fleet::{Fleet, submit};
use serde_json::{Value, json};
use std::time::Duration;

/// A subscription of a modern client: what its node says, one by one.
struct News {
    response: reqwest::Response,
    text: String,
}

impl News {
    async fn of(node: &crate::fleet::Node, uri: &str) -> News {
        let (url, token) = node.endpoint();
        let meta = json!({
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
            "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
        });
        let params = json!({"notifications": {"resourceSubscriptions": [uri]}, "_meta": meta});
        let message = json!({"jsonrpc": "2.0", "id": 1, "method": "subscriptions/listen", "params": params});
        let request = reqwest::Client::builder().no_proxy().build().expect("a client").post(url);
        let request = request
            .header("Authorization", format!("Bearer {token}"))
            .header("Accept", "application/json, text/event-stream")
            .header("Content-Type", "application/json")
            .header("MCP-Protocol-Version", "2026-07-28")
            .header("Mcp-Method", "subscriptions/listen");
        let response = request.body(message.to_string()).send().await.expect("a response");
        assert_eq!(response.status(), 200);
        News { response, text: String::new() }
    }

    /// The next notification of an update, within `patience`.
    async fn updated(&mut self, patience: Duration) -> Option<()> {
        let next = async {
            loop {
                while let Some((event, rest)) = self.text.split_once("\n\n") {
                    let data = event.lines().find_map(|line| line.strip_prefix("data:")).unwrap_or_default();
                    let message: Value = serde_json::from_str(data.trim()).unwrap_or_default();
                    self.text = rest.to_owned();
                    if message["method"] == "notifications/resources/updated" {
                        return;
                    }
                }
                let chunk = self.response.chunk().await.expect("a stream").expect("not its end");
                self.text.push_str(std::str::from_utf8(&chunk).expect("text"));
            }
        };
        tokio::time::timeout(patience, next).await.ok()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_on_any_node_hears_of_the_end_of_a_task() {
    let fleet = Fleet::start(3).await;
    let task = json!({"task_id": "watched", "task_type": "sleep", "payload": {"ms": 1_500}});
    let accepted = submit(&fleet.nodes[0], task).await;
    assert_eq!(accepted["task_id"], json!("watched"));
    let mut all = Vec::new();
    for node in &fleet.nodes {
        let mut news = News::of(node, "mesh://tasks/watched").await;
        // The first comes at once: whoever reads after it has missed nothing.
        news.updated(Duration::from_secs(10)).await.expect("the first");
        all.push((node, news));
    }
    for (node, mut news) in all {
        let ended = async {
            while node.ask("task_status", json!({"task_id": "watched"})).await["status"] != json!("completed") {
                news.updated(Duration::from_secs(10)).await.expect("news before the end is missed");
            }
        };
        let heard = tokio::time::timeout(Duration::from_secs(30), ended).await;
        heard.unwrap_or_else(|_| panic!("{} was told of the end", node.name()));
    }
}
