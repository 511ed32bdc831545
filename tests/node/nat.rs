//! Nodes behind NAT, and slow lines: two hosts behind two routers and nodes with
//! public addresses join with one invite and share work, directly through a hole
//! or over a relay.

#[path = "../demo/files.rs"]
mod files;

use crate::fleet::{Fleet, Node, all_complete, eventually, items, poll, submit};
use crate::routers::{Line, Mapping, Routers};
use futures::StreamExt as _;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Of the nodes that a fleet starts with here; public ones come first.
const HOST: usize = 2;

/// All nodes have the same settings, but for who serves.
async fn fleet_on(net: &Routers, public: usize, settings: &[(&str, &str)]) -> Fleet {
    let all = [
        ("worker.slots", "2"),
        ("net.listen_port", "4770"),
        ("net.relay_use", "true"),
        ("net.hole_punching", "true"),
        ("net.autonat", "true"),
    ];
    let mut fleet = Fleet::empty(&[&all[..], settings].concat()).await;
    for n in 0..public + HOST {
        let mut plan = fleet.plan();
        plan.listen = String::new();
        if n < public {
            plan.namespace = Some(net.public(n));
            plan = plan.set("net.relay_serve", "true");
        } else {
            plan.namespace = Some(net.host(n - public));
        }
        let mut node = Node::spawn(plan);
        node.up().await;
        fleet.nodes.push(node);
    }
    fleet.settled().await;
    fleet
}

/// Waits until `node` reaches so many others directly, and so many over relays.
async fn reaches(node: &Node, direct: f64, relayed: f64) {
    let seen = std::cell::Cell::new((None, None));
    let wanted = (Some(direct), Some(relayed));
    let reached = poll(Duration::from_secs(180), async || {
        let of = async |path: &str| node.metric(&format!("taskmesh_net_peers{{path=\"{path}\"}}")).await;
        seen.set((of("direct").await, of("relayed").await));
        (seen.get() == wanted).then_some(())
    });
    assert!(reached.await.is_some(), "{} reaches {:?}, not {wanted:?} directly and relayed", node.name(), seen.get());
}

/// The nodes that ran tasks which are listed.
async fn ran(fleet: &Fleet) -> BTreeSet<String> {
    let listed = fleet.nodes[0].ask("task_list", json!({"status_filter": "completed", "limit": 1000})).await;
    let tasks = listed["tasks"].as_array().expect("a list");
    tasks.iter().filter_map(|task| task["worker_id"].as_str().map(str::to_owned)).collect()
}

/// Waits until the node's doctor says so of something: a node that has just come
/// up does not list yet where its metrics are.
async fn doctor_says(node: &Node, check: &str, words: &str) {
    let last = std::cell::RefCell::new(Value::Null);
    let said = poll(Duration::from_secs(60), async || {
        let said = node.command(&["doctor"]);
        let found = said["checks"].as_array()?.iter().find(|found| found["check"] == check)?.clone();
        let so = found["says"].as_str().is_some_and(|says| says.contains(words));
        last.replace(found);
        so.then_some(())
    });
    assert!(said.await.is_some(), "{} has no {words:?} in {}", node.name(), last.borrow());
}

fn sleeps(task: &str, count: usize, ms: u64) -> Value {
    let array: Vec<_> = (0..count).map(|_| json!({"ms": ms})).collect();
    json!({"task_id": task, "task_type": "sleep", "payload": {}, "items": array})
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hosts_behind_nat_find_a_direct_way() {
    let Some(net) = Routers::build("hole", Mapping::SamePort, Line::Fast, 1) else { return };
    let fleet = fleet_on(&net, 1, &[]).await;
    let hosts = &fleet.nodes[1..];
    // While the way between the hosts changes.
    for (host, task) in hosts.iter().zip(["a", "b"]) {
        submit(host, sleeps(task, 40, 50)).await;
    }
    for host in hosts {
        reaches(host, 2.0, 0.0).await;
        let moved = host.metric("taskmesh_net_paths_moved_total").await;
        assert!(moved >= Some(1.0), "{moved:?} moved");
    }
    // Where the other's first packet finds the hole open, it is that one's doing.
    let punched = async |host: &Node| host.metric("taskmesh_net_hole_punches_total{result=\"punched\"}").await;
    let punched = (punched(&hosts[0]).await, punched(&hosts[1]).await);
    assert!(punched.0 >= Some(1.0) || punched.1 >= Some(1.0), "{punched:?} punched");
    for task in ["a", "b"] {
        all_complete(&fleet.nodes[0], &items(task, 40), Duration::from_secs(120)).await;
    }
    assert_eq!(ran(&fleet).await.len(), 3, "all of them ran some");
    doctor_says(&hosts[0], "paths", "2 nodes connected, all directly").await;

    // Others have dialled them, in vain; and the public one, not in vain.
    for (node, reachability) in [(&hosts[0], 1.0), (&hosts[1], 1.0), (&fleet.nodes[0], 2.0)] {
        let name = node.name();
        eventually(Duration::from_secs(240), format!("reachability {reachability} of {name}"), async || {
            (node.metric("taskmesh_net_reachability").await? == reachability).then_some(())
        })
        .await;
    }
    doctor_says(&fleet.nodes[0], "reachability", "reached it").await;
    doctor_says(&hosts[1], "reachability", "1 place at relays").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_hole_can_be_made_work_goes_over_the_relay() {
    let Some(net) = Routers::build("relay", Mapping::AnyPort, Line::Fast, 1) else { return };
    let mut fleet = fleet_on(&net, 1, &[]).await;
    for host in &fleet.nodes[1..] {
        reaches(host, 1.0, 1.0).await;
        assert_eq!(host.metric("taskmesh_net_relay_reservations").await, Some(1.0));
        doctor_says(host, "paths", "1 over relays (50 %)").await;
    }
    assert!(fleet.nodes[0].metric("taskmesh_net_relay_circuits").await >= Some(1.0), "it carries them");
    let told = fleet.nodes[1].ask("peer_list", json!({})).await;
    assert!(told.to_string().contains("/p2p-circuit"), "it is told that the peer is relayed: {told}");
    eventually(Duration::from_secs(180), "an attempt has failed", async || {
        let failed = async |n: usize| fleet.nodes[n].metric("taskmesh_net_hole_punches_total{result=\"failed\"}").await;
        (failed(1).await >= Some(1.0) || failed(2).await >= Some(1.0)).then_some(())
    })
    .await;

    submit(&fleet.nodes[1], sleeps("over", 40, 50)).await;
    all_complete(&fleet.nodes[2], &items("over", 40), Duration::from_secs(120)).await;
    assert_eq!(ran(&fleet).await.len(), 3, "all of them ran some");
    // The invite of a host behind NAT leads to it, too.
    let mut plan = fleet.plan_alone().join(&fleet.nodes[2].invite_now());
    plan.namespace = Some(net.host(0));
    plan.listen = String::new();
    let mut guest = Node::spawn(plan.set("net.listen_port", "4771"));
    guest.up().await;
    fleet.nodes.push(guest);
    fleet.settled().await;
    // A host is lost for ever: what it owned is with the others.
    submit(&fleet.nodes[1], sleeps("last", 40, 100)).await;
    fleet.nodes[1].kill();
    all_complete(&fleet.nodes[2], &items("last", 40), Duration::from_secs(180)).await;
}

/// What a task came to; if it comes to nothing, what all nodes know of it.
async fn ended(fleet: &Fleet, reader: &Node, task: &str) -> Value {
    let told = poll(Duration::from_secs(240), async || {
        let told = reader.call("task_result", json!({"task_id": task, "wait_ms": 1000})).await.ok()?;
        (told["status"] == "completed").then_some(told)
    });
    if let Some(told) = told.await {
        return told;
    }
    for node in fleet.nodes.iter().filter(|node| node.running()) {
        let status = node.call("task_status", json!({"task_id": task})).await;
        eprintln!("--- {}: {status:?}\n{}", node.name(), node.network().await);
    }
    panic!("{task} has not ended at {}", reader.name())
}

/// `make demo`, on lines as slow as those between continents.
#[tokio::test(flavor = "multi_thread")]
async fn over_slow_and_lossy_lines_an_owner_is_lost_and_no_task() {
    const FILES: usize = 200;
    let Some(net) = Routers::build("slow", Mapping::SamePort, Line::Slow, 2) else { return };
    // The usual times, but for how soon copies are made anew; other tests' are
    // shorter than a round trip here.
    let timings = [
        ("mesh.beat_ms", "1000"),
        ("mesh.lease_ms", "5000"),
        ("mesh.stagger_ms", "1000"),
        ("mesh.retransmit_ms", "500"),
        ("mesh.away_ms", "10000"),
    ];
    let began = Instant::now();
    let mut fleet = fleet_on(&net, 2, &timings).await;
    println!("4 nodes knew each other after {:.1} s", began.elapsed().as_secs_f64());
    let (victim, second, reader) = (2, 0, 3);

    let files = files::some(FILES);
    let began = Instant::now();
    let mut tasks = Vec::new();
    for (n, batch) in files.chunks(25).enumerate() {
        let array: Vec<_> = batch.iter().map(|file| json!({"argv": ["sha256sum", file.to_string_lossy()]})).collect();
        let node = &fleet.nodes[[victim, second][n % 2]];
        let name = format!("hash-{n}");
        submit(node, json!({"task_id": name, "task_type": "exec", "payload": {}, "items": array})).await;
        tasks.extend(items(&name, batch.len()));
    }
    eventually(Duration::from_secs(180), "some of them have completed", async || {
        let stats = fleet.nodes[reader].call("queue_stats", json!({})).await.ok()?;
        (stats["completed_count"].as_u64()? >= 20).then_some(())
    })
    .await;
    fleet.nodes[victim].kill();
    // Many at once: each is a round trip to a holder.
    let reader = &fleet.nodes[reader];
    let told = futures::stream::iter(tasks.iter().zip(&files))
        .map(async |(task, file)| (task, file, ended(&fleet, reader, task).await))
        .buffer_unordered(16);
    let told: Vec<_> = told.collect().await;
    println!("{FILES} files hashed and read in {:.1} s, with an owner killed", began.elapsed().as_secs_f64());
    for (task, file, told) in told {
        let digest = told["output"].as_str().and_then(|output| output.split_whitespace().next());
        assert_eq!(digest, Some(files::sha256(file).as_str()), "{task} of {}: {told}", file.display());
    }
}
