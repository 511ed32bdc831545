//! A partition of real networks: each node in a network namespace, cut by
//! taking its link down.

use crate::fleet::{Fleet, Node, all_complete, code, items, poll, submit};
use serde_json::json;
use std::process::Command;
use std::time::Duration;

/// Namespaces `<prefix>-0…` joined by a bridge in `<prefix>-hub`.
struct Net {
    prefix: String,
    nodes: usize,
}

impl Net {
    /// `None`, with the reason on the output, where the kernel refuses them.
    fn build(nodes: usize) -> Option<Net> {
        let net = Net { prefix: format!("taskmesh-{}", std::process::id()), nodes };
        match net.lay() {
            Ok(()) => Some(net),
            Err(reason) => {
                println!("skipped: no network namespaces here: {reason}");
                None
            }
        }
    }

    fn lay(&self) -> Result<(), String> {
        let hub = format!("{}-hub", self.prefix);
        ip(&["netns", "add", &hub])?;
        ip(&["-n", &hub, "link", "add", "br0", "type", "bridge"])?;
        ip(&["-n", &hub, "link", "set", "br0", "up"])?;
        for n in 0..self.nodes {
            let (name, port) = (self.namespace(n), format!("port{n}"));
            ip(&["netns", "add", &name])?;
            ip(&["-n", &hub, "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &name])?;
            ip(&["-n", &hub, "link", "set", &port, "master", "br0", "up"])?;
            ip(&["-n", &name, "addr", "add", &format!("{}/24", address(n)), "dev", "eth0"])?;
            ip(&["-n", &name, "link", "set", "eth0", "up"])?;
            ip(&["-n", &name, "link", "set", "lo", "up"])?;
        }
        Ok(())
    }

    fn namespace(&self, n: usize) -> String {
        format!("{}-{n}", self.prefix)
    }

    fn cut(&self, n: usize) {
        self.link(n, "down");
    }

    fn heal(&self, n: usize) {
        self.link(n, "up");
    }

    fn link(&self, n: usize, state: &str) {
        let hub = format!("{}-hub", self.prefix);
        ip(&["-n", &hub, "link", "set", &format!("port{n}"), state]).expect("a link that was made");
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for n in 0..self.nodes {
            // What was not made is not there.
            let _ = ip(&["netns", "del", &self.namespace(n)]);
        }
        let _ = ip(&["netns", "del", &format!("{}-hub", self.prefix)]);
    }
}

fn address(n: usize) -> String {
    format!("10.77.0.{}", n + 1)
}

/// `ip` of iproute2; the error says what it said.
pub(crate) fn ip(arguments: &[&str]) -> Result<(), String> {
    let done = Command::new("ip").args(arguments).output().map_err(|e| format!("ip: {e}"))?;
    if done.status.success() {
        return Ok(());
    }
    Err(format!("ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&done.stderr).trim()))
}

async fn fleet_on(net: &Net) -> Fleet {
    let mut fleet = Fleet::empty(&[("worker.slots", "2")]).await;
    for n in 0..net.nodes {
        let mut plan = fleet.plan();
        plan.namespace = Some(net.namespace(n));
        plan.listen = format!("/ip4/{}/tcp/0", address(n));
        let mut node = Node::spawn(plan);
        node.up().await;
        fleet.nodes.push(node);
    }
    fleet.settled().await;
    fleet
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_heals_without_loss() {
    let Some(net) = Net::build(3) else { return };
    let fleet = fleet_on(&net).await;
    let array = |n: usize| (0..n).map(|_| json!({"ms": 200})).collect::<Vec<_>>();
    for (n, name) in ["small", "large"].into_iter().enumerate() {
        let task = json!({"task_id": name, "task_type": "sleep", "payload": {}, "items": array(20)});
        submit(&fleet.nodes[n], task).await;
    }

    net.cut(0);
    // The larger side goes on, with the tasks of the node that was cut off too.
    let during = json!({"task_id": "during", "task_type": "sleep", "payload": {}, "items": array(10)});
    submit(&fleet.nodes[1], during).await;
    for array in [items("during", 10), items("large", 20), items("small", 20)] {
        all_complete(&fleet.nodes[2], &array, Duration::from_secs(40)).await;
    }
    // The smaller one promises nothing.
    let alone = json!({"task_id": "alone", "task_type": "echo", "payload": {}});
    let refused = fleet.nodes[0].call("task_submit", alone.clone()).await.expect_err("one of three is no majority");
    assert!(["unavailable", "deadline_exceeded"].contains(&code(&refused)), "{refused}");

    net.heal(0);
    fleet.settled().await;
    let all: Vec<_> = [items("during", 10), items("large", 20), items("small", 20)].concat();
    for node in &fleet.nodes {
        all_complete(node, &all, Duration::from_secs(40)).await;
    }
    for task in &all {
        let told = fleet.nodes[1].ask("task_result", json!({"task_id": task})).await;
        for node in [&fleet.nodes[0], &fleet.nodes[2]] {
            let same = poll(Duration::from_secs(10), async || {
                let other = node.call("task_result", json!({"task_id": task})).await.ok()?;
                (other["status"] == told["status"] && other["result"] == told["result"]).then_some(())
            });
            assert!(same.await.is_some(), "{task} ended the same way for all");
        }
    }
    // What was refused may be asked again, with the same id.
    submit(&fleet.nodes[0], alone).await;
    assert_eq!(fleet.nodes[2].result("alone", Duration::from_secs(20)).await["status"], json!("completed"));
}
