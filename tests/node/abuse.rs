//! Abuse of a real node, over HTTP and over libp2p: its memory stays bounded and
//! is measured, a bystander is answered meanwhile, and nothing has changed.
//!
//! What each single abuse is told is shown without processes, in `src/api`.

mod http;
mod http2;
mod p2p;

use crate::bad_input::state;
use crate::fleet::{Fleet, Node, binary, eventually, submit};
use serde_json::{Value, json};
use std::fmt::Debug;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use taskmesh::api::client::Client;
use taskmesh::api::p2p::Remote;
use taskmesh::net::door;
use tokio::time::{MissedTickBehavior, interval};

/// A node with a door for strangers, some tasks, and a bystander.
struct Victim {
    fleet: Fleet,
    before: Value,
    bystander: String,
}

/// How the bystander calls: with a new connection each time, as whoever has
/// not been here yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Http,
    Libp2p,
}

impl Victim {
    async fn start() -> Victim {
        let settings = [("api.p2p_listen", "/ip4/127.0.0.1/tcp/0"), ("log.level", "info,taskmesh::net::door=debug")];
        let mut fleet = Fleet::alone(&settings).await;
        fleet.grow(1).await;
        let node = &fleet.nodes[0];
        submit(node, json!({"task_id": "ended", "task_type": "echo", "payload": {}})).await;
        node.result("ended", SOON).await;
        let waiting = json!({"task_type": "echo", "payload": {}, "not_before": "2099-01-01T00:00:00Z"});
        for id in ["waiting", "another"] {
            let mut task = waiting.clone();
            task["task_id"] = id.into();
            submit(node, task).await;
        }
        let before = state(node).await;
        let bystander = token(node, "bystander", "viewer");
        Victim { fleet, before, bystander }
    }

    fn node(&self) -> &Node {
        &self.fleet.nodes[0]
    }

    fn token(&self, name: &str, role: &str) -> String {
        token(self.node(), name, role)
    }

    /// Where strangers come in.
    fn door(&self) -> String {
        let text = std::fs::read_to_string(self.node().data_dir().join("door.json")).expect("the door is open");
        let told: Value = serde_json::from_str(&text).expect("JSON");
        told["multiaddr"].as_str().expect("an address").to_owned()
    }

    /// One call by somebody new; how long it took.
    async fn ask(&self, way: Way) -> Duration {
        let began = Instant::now();
        let answer = match way {
            Way::Http => {
                let client = Client::new(self.node().endpoint().0, &self.bystander).expect("a client");
                client.call("queue_stats", json!({})).await
            }
            Way::Libp2p => {
                let door::Call { stream, open, .. } = enter(&self.door()).await;
                Remote::new(Box::new(stream), &self.bystander, Box::new(open)).call("queue_stats", json!({}), "").await
            }
        };
        assert_eq!(answer.expect("the bystander is answered")["success"], true);
        began.elapsed()
    }

    /// Does `attack` while the bystander calls, and shows what that cost: at
    /// most `mib` more of memory than before.
    async fn under<T: Debug>(&self, what: &str, ways: &[Way], mib: u64, attack: impl Future<Output = T>) -> T {
        let (before, over) = (self.resident("VmRSS"), AtomicBool::new(false));
        // From here on the peak is counted anew.
        std::fs::write(format!("/proc/{}/clear_refs", self.node().pid()), "5").expect("a process of this user");
        let attack = async {
            let outcome = attack.await;
            over.store(true, Ordering::Relaxed);
            outcome
        };
        let calls = async {
            let (mut took, mut pace) = (Vec::new(), interval(PACE));
            pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while took.is_empty() || !over.load(Ordering::Relaxed) {
                pace.tick().await;
                for way in ways {
                    took.push(self.ask(*way).await);
                }
            }
            took
        };
        let (outcome, took) = tokio::join!(attack, calls);
        let (peak, after) = (self.resident("VmHWM"), self.resident("VmRSS"));
        let slowest = took.iter().max().expect("one at least");
        println!(
            "{what}: {outcome:?}; {} calls of a bystander, the slowest {} ms; memory {before} MiB, at most {peak}, then {after}",
            took.len(),
            slowest.as_millis()
        );
        assert!(*slowest < SOON, "{what}: the bystander waited for {slowest:?}");
        assert!(peak <= before + mib, "{what}: from {before} to {peak} MiB, more than {mib} more");
        outcome
    }

    /// Nothing has changed, and nothing went wrong inside.
    async fn is_unharmed(&self) {
        assert_eq!(state(self.node()).await, self.before);
        let log = self.node().log();
        assert!(!log.contains("panicked"), "{}", self.node().log_tail(20));
    }

    /// MiB that its process takes or took at most.
    fn resident(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.node().pid())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("Linux says so");
        let kib: u64 = line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().expect("a number");
        kib / 1024
    }
}

/// Comes in by the door, again if there are too many at it.
async fn enter(door: &str) -> door::Call {
    eventually(SOON, "somebody is let in", async || door::dial(door).await.ok()).await
}

fn token(node: &Node, name: &str, role: &str) -> String {
    taskmesh(node, &["token", "create", "--name", name, "--role", role])
}

/// What the command line prints for this node.
fn taskmesh(node: &Node, arguments: &[&str]) -> String {
    let mut command = Command::new(binary());
    command.arg("--data-dir").arg(node.data_dir()).args(arguments);
    let done = command.stdin(Stdio::null()).output().expect("the program runs");
    assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).trim().to_owned()
}

/// On a busy machine too.
const SOON: Duration = Duration::from_secs(20);
/// A bystander begins no more calls than one in so long: one that did nothing else
/// would be a flood of its own.
const PACE: Duration = Duration::from_millis(100);

/// One character of a token changed, at each of some sixty places.
fn forged(token: &str) -> impl Iterator<Item = String> {
    let step = (token.len() / 60).max(1);
    (0..token.len()).step_by(step).map(move |at| {
        let other = if &token[at..=at] == "B" { "C" } else { "B" };
        [&token[..at], other, &token[at + 1..]].concat()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_are_forged_or_replayed_after_their_end_open_nothing() {
    let victim = Victim::start().await;
    let good = victim.token("ann", "operator");
    let url = victim.node().endpoint().0.to_owned();
    let pause = async |token: &str| Client::new(&url, token).expect("a client").call("queue_pause", json!({})).await;
    let pause_by_door = async |token: &str| {
        let door::Call { stream, open, .. } = enter(&victim.door()).await;
        Remote::new(Box::new(stream), token, Box::new(open)).call("queue_pause", json!({}), "").await
    };
    let attack = async {
        let mut tried = 0;
        for forged in forged(&good) {
            let refused = pause(&forged).await.expect_err("forged");
            assert_eq!(crate::fleet::code(&refused), "unauthenticated", "{forged}");
            if tried % 8 == 0 {
                let refused = pause_by_door(&forged).await.expect_err("forged");
                assert_eq!(crate::fleet::code(&refused), "unauthenticated", "{forged}");
            }
            tried += 1;
        }
        assert!(tried > 50, "{tried}");
    };
    victim.under("forged tokens", &[Way::Http], 50, attack).await;
    victim.is_unharmed().await;
    // What was right once is not for ever: revoked, it is as wrong as the others.
    Client::new(&url, &good).expect("a client").call("queue_stats", json!({})).await.expect("it holds");
    let shown = taskmesh(victim.node(), &["--json", "token", "inspect", &good]);
    let shown: Value = serde_json::from_str(&shown).expect("JSON");
    taskmesh(victim.node(), &["token", "revoke", shown["id"].as_str().expect("an id")]);
    assert_eq!(crate::fleet::code(&pause(&good).await.expect_err("revoked")), "unauthenticated");
    // Peers of the door are told of a busy node as well.
    eventually(SOON, "the door refuses it too", async || {
        let refused = pause_by_door(&good).await.expect_err("revoked");
        (crate::fleet::code(&refused) == "unauthenticated").then_some(())
    })
    .await;
    victim.is_unharmed().await;
}
