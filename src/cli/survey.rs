//! What one node says of its mesh, put together: its members, their workers and
//! programs. What `status`, `members`, `drain`, `doctor` and `top` look at.

use super::exit::Exit;
use super::reach::Node;
use super::words;
use crate::ops::Code;
use serde_json::{Value, json};
use taskmesh_core::limits;

/// A mesh as one of its nodes sees it.
#[derive(Clone, Debug, Default)]
pub(super) struct Survey {
    /// What `queue_stats` says, workers included.
    pub(super) stats: Value,
    /// The node that was asked first, then the others by name.
    pub(super) members: Vec<Member>,
}

/// What a member is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    /// It can be talked to.
    Up,
    /// It can, and takes no more work.
    Draining,
    /// It is being dialled.
    Connecting,
    /// Nothing is heard of it.
    Away,
}

impl State {
    pub(super) fn name(self) -> &'static str {
        match self {
            State::Up => "up",
            State::Draining => "draining",
            State::Connecting => "connecting",
            State::Away => "away",
        }
    }
}

/// One node of the mesh.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Member {
    pub(super) peer_id: String,
    /// By the label of its worker; a node without one is not named to others.
    pub(super) name: Option<String>,
    /// It is the one that was asked.
    pub(super) asked: bool,
    pub(super) state: State,
    /// Its program and version, as it says: `taskmesh/0.1.0`.
    pub(super) program: Option<String>,
    pub(super) address: Option<String>,
    /// As the node that was asked measured it.
    pub(super) latency_ms: Option<f64>,
    pub(super) connected_since: Value,
    pub(super) last_seen: Value,
    /// As `queue_stats` says them.
    pub(super) workers: Vec<Value>,
}

impl Survey {
    /// Asks the node.
    pub(super) async fn ask(node: &Node) -> Result<Survey, Exit> {
        let stats = node.call("queue_stats", json!({"include_worker_stats": true, "include_historical": true}));
        let (stats, peers, workers) = futures::join!(stats, peers(node), node.read("mesh://workers"));
        // Whoever may not read resources sees the mesh without names.
        let labelled = workers.ok().flatten().unwrap_or_default();
        let own = node.info.as_ref().map(|info| (info.peer_id.as_str(), info.addresses.first().map(String::as_str)));
        Ok(Survey::of(stats?, &peers?, &labelled, own))
    }

    /// Puts answers together. `own`: the node that was asked, and its address.
    fn of(stats: Value, peers: &Value, labelled: &Value, own: Option<(&str, Option<&str>)>) -> Survey {
        let workers = list(&stats["worker_stats"]);
        let label = |peer: &str| {
            let mut own = list(&labelled["workers"]).iter().filter(|w| w["node"] == peer);
            own.find_map(|w| w["labels"]["node"].as_str()).filter(|name| !name.is_empty()).map(str::to_owned)
        };
        let member = |peer: &Value, asked: bool| {
            let peer_id = peer["peer_id"].as_str()?;
            let own: Vec<Value> = workers.iter().filter(|w| w["node"] == peer_id).cloned().collect();
            Some(Member {
                name: label(peer_id),
                asked,
                state: state(peer["status"].as_str(), &own),
                program: peer["peer_type"].as_str().map(program),
                address: peer["multiaddr"].as_str().map(str::to_owned),
                latency_ms: peer["metrics"]["latency_ms"].as_f64(),
                connected_since: peer["connected_since"].clone(),
                last_seen: peer["last_seen"].clone(),
                workers: own,
                peer_id: peer_id.to_owned(),
            })
        };
        let mut others: Vec<Member> = list(&peers["peers"]).iter().filter_map(|peer| member(peer, false)).collect();
        others.sort_by_cached_key(|node| (node.state == State::Away, node.shown().to_owned()));
        let answered = &peers["answered_by"];
        let asked = answered["peer_id"].as_str().or(own.map(|(peer, _)| peer));
        let me = asked.and_then(|peer| {
            let address = own.filter(|(own, _)| *own == peer).and_then(|(_, address)| address);
            let said = json!({"peer_id": peer, "status": "connected", "multiaddr": address, "peer_type": answered["peer_type"]});
            member(&said, true)
        });
        let members = me.into_iter().chain(others).collect();
        Survey { stats, members }
    }

    /// The member that a person means: by its peer id, its name, or the end of
    /// one of these that no other has.
    pub(super) fn find(&self, text: &str) -> Result<&Member, Exit> {
        let exact = |m: &&Member| m.peer_id == text || m.name.as_deref() == Some(text);
        let part = |m: &&Member| text.len() >= PART && m.peer_id.ends_with(text);
        let mut found: Vec<&Member> = self.members.iter().filter(exact).collect();
        if found.is_empty() {
            found = self.members.iter().filter(part).collect();
        }
        match found[..] {
            [one] => Ok(one),
            [] => {
                let known: Vec<_> = self.members.iter().take(SHOWN).map(Member::shown).collect();
                let more = if self.members.len() > SHOWN { ", …" } else { "" };
                let next = format!("known are {}{more}; `taskmesh members` lists all", known.join(", "));
                Err(Exit::with(Code::NotFound, format!("no node of the mesh is called {text:?}: {next}")))
            }
            _ => {
                let ids: Vec<_> = found.iter().map(|m| m.peer_id.as_str()).collect();
                Err(Exit::usage(format!("{} nodes are called {text:?}; give a peer id: {}", ids.len(), ids.join(", "))))
            }
        }
    }

    /// Counts of the queue, by the field of `queue_stats`.
    pub(super) fn number(&self, field: &str) -> u64 {
        self.stats[field].as_u64().unwrap_or(0)
    }

    /// The programs of the members, each with how many have it.
    pub(super) fn programs(&self) -> Vec<(String, u64)> {
        let mut all = std::collections::BTreeMap::new();
        for program in self.members.iter().filter_map(|m| m.program.clone()) {
            *all.entry(program).or_default() += 1;
        }
        all.into_iter().collect()
    }

    pub(super) fn in_state(&self, state: State) -> u64 {
        self.members.iter().filter(|m| m.state == state).count() as u64
    }
}

/// The end of a peer id that is enough to name a node.
const PART: usize = 4;
/// Nodes that a refusal names.
const SHOWN: usize = 10;

/// The peers, with what programs they are where the node tells.
async fn peers(node: &Node) -> Result<Value, Exit> {
    match node.read("mesh://peers").await {
        Ok(Some(peers)) => Ok(peers),
        // A narrower token, another way, an older node: the operation has most of it.
        Ok(None) | Err(_) => node.call("peer_list", json!({"limit": limits::MEMBERS.min(limits::PAGE)})).await,
    }
}

pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Without what tells one start of a node from the next.
fn program(agent: &str) -> String {
    words::line(agent.split(' ').next().unwrap_or(agent), 40)
}

fn state(status: Option<&str>, workers: &[Value]) -> State {
    let draining = !workers.is_empty() && workers.iter().all(|w| w["status"] == "draining");
    match status {
        Some("connected") if draining => State::Draining,
        Some("connected") => State::Up,
        Some("connecting") => State::Connecting,
        Some(_) | None => State::Away,
    }
}

impl Member {
    /// Its name, or else the end of its peer id.
    pub(super) fn shown(&self) -> String {
        match &self.name {
            Some(name) => words::line(name, 40),
            None => words::tail(&self.peer_id).to_owned(),
        }
    }

    /// Tasks at once, and tasks now, as far as its workers are known.
    pub(super) fn slots(&self) -> (u64, u64) {
        let sum = |field: &str| self.workers.iter().filter_map(|w| w[field].as_u64()).sum();
        (sum("max_concurrent_tasks"), sum("running_tasks"))
    }

    /// What it is there for: every node keeps tasks, those with a worker run some.
    pub(super) fn roles(&self) -> &'static str {
        if self.workers.is_empty() { "keeps" } else { "keeps,runs" }
    }

    /// For `--json`.
    pub(super) fn object(&self) -> Value {
        let (slots, running) = self.slots();
        let workers: Vec<_> = self.workers.iter().map(|w| w["worker_id"].clone()).collect();
        json!({
            "peer_id": self.peer_id, "name": self.name, "asked": self.asked, "state": self.state.name(),
            "program": self.program, "multiaddr": self.address, "latency_ms": self.latency_ms,
            "connected_since": self.connected_since, "last_seen": self.last_seen,
            "roles": self.roles().split(',').collect::<Vec<_>>(), "workers": workers,
            "slots": slots, "running_tasks": running,
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Three nodes: the one that was asked, one that drains, one that is away.
    pub(in crate::cli) fn survey() -> Survey {
        let worker = |id: &str, node: &str, status: &str, running: u64| {
            json!({"worker_id": id, "node": node, "status": status, "max_concurrent_tasks": 2, "running_tasks": running,
                "metrics": {"cpu_percent": 12.5, "load1": 0.5, "free_slots": 2 - running}})
        };
        let stats = json!({
            "queued_count": 12, "delayed_count": 3, "blocked_count": 0, "running_count": 3, "completed_count": 120,
            "failed_count": 2, "cancelled_count": 0, "expired_count": 1, "average_wait_time": 0.31,
            "average_execution_time": 1.02, "throughput": 84.2, "paused": false, "oldest_queued_age": 4.2,
            "scheduling": "fair", "waiting": {"no_free_slot": 12, "not_before": 3},
            "nodes_answered": 2, "nodes_expected": 3,
            "worker_stats": [worker("w-a", "peer-aaaa1111", "active", 1), worker("w-b", "peer-bbbb2222", "draining", 2)],
        });
        let peer = |id: &str, status: &str, latency: Option<f64>| {
            json!({"peer_id": id, "status": status, "multiaddr": "/ip4/10.0.0.2/tcp/4770", "capabilities": ["echo"],
                "connected_since": null, "last_seen": "2026-01-01T00:00:00.000Z", "metrics": {"latency_ms": latency},
                "peer_type": "taskmesh/0.1.0 boot/0123"})
        };
        let peers = json!({
            "peers": [peer("peer-cccc3333", "disconnected", None), peer("peer-bbbb2222", "connected", Some(1.5))],
            "answered_by": {"peer_id": "peer-aaaa1111", "peer_type": "taskmesh/0.2.0"},
        });
        let labelled = json!({"workers": [
            {"worker_id": "w-a", "node": "peer-aaaa1111", "labels": {"node": "alpha"}},
            {"worker_id": "w-b", "node": "peer-bbbb2222", "labels": {"node": "beta"}},
        ]});
        Survey::of(stats, &peers, &labelled, Some(("peer-aaaa1111", Some("/ip4/10.0.0.1/tcp/4770"))))
    }

    #[test]
    fn answers_are_put_together_by_node() {
        let survey = survey();
        let seen: Vec<_> = survey.members.iter().map(|m| (m.shown(), m.state, m.slots(), m.roles(), m.asked)).collect();
        let wanted = [
            ("alpha".to_owned(), State::Up, (2, 1), "keeps,runs", true),
            ("beta".to_owned(), State::Draining, (2, 2), "keeps,runs", false),
            ("cccc3333".to_owned(), State::Away, (0, 0), "keeps", false),
        ];
        assert_eq!(seen, wanted);
        assert_eq!(survey.members[0].address.as_deref(), Some("/ip4/10.0.0.1/tcp/4770"));
        assert_eq!(survey.programs(), [("taskmesh/0.1.0".to_owned(), 2), ("taskmesh/0.2.0".to_owned(), 1)]);
    }

    #[test]
    fn a_node_is_found_by_whatever_names_it_alone() {
        let survey = survey();
        for (text, peer) in [("alpha", "peer-aaaa1111"), ("peer-bbbb2222", "peer-bbbb2222"), ("3333", "peer-cccc3333")]
        {
            assert_eq!(survey.find(text).unwrap().peer_id, peer);
        }
        let unknown = survey.find("gamma").unwrap_err();
        assert!(
            unknown.is(Code::NotFound) && unknown.to_string().contains("known are alpha, beta, cccc3333"),
            "{unknown}"
        );
        let mut twins = survey;
        twins.members[1].name = Some("alpha".to_owned());
        let two = twins.find("alpha").unwrap_err().to_string();
        assert!(two.contains("give a peer id: peer-aaaa1111, peer-bbbb2222"), "{two}");
        assert!(twins.find("333").is_err(), "too short an end");
    }
}
