//! `/sd`: the fleet's metrics addresses, as Prometheus's HTTP service discovery
//! takes them, so that one known node leads to all.

use serde_json::{Value, json};
use std::sync::{PoisonError, RwLock};
use taskmesh_core::NodeId;
use taskmesh_core::view::Watched;

/// The targets that a node last knew of; kept by its loop, read by its face.
#[derive(Debug, Default)]
pub struct Targets(RwLock<Vec<Watched>>);

impl Targets {
    /// Takes the place of what was known.
    pub fn know(&self, watched: Vec<Watched>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = watched;
    }

    /// A JSON array with an entry for each node; `me` is the one that answers.
    #[must_use]
    pub fn render(&self, me: NodeId) -> String {
        let watched = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Value::Array(watched.iter().map(|one| entry(one, me)).collect()).to_string()
    }
}

fn entry(watched: &Watched, me: NodeId) -> Value {
    let state = match watched.silent {
        _ if watched.node == me => "self",
        None => "live",
        Some(_) => "silent",
    };
    json!({
        "targets": [&*watched.at],
        "labels": { "__meta_taskmesh_peer_id": watched.node.to_string(), "__meta_taskmesh_state": state },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use taskmesh_core::Millis;

    #[test]
    fn targets_are_what_prometheus_reads() {
        let targets = Targets::default();
        let me = NodeId::test(1);
        assert_eq!(targets.render(me), "[]");
        let watched = |n, at: &str, silent| Watched { node: NodeId::test(n), at: at.into(), silent };
        targets.know(vec![
            watched(1, "10.0.0.1:4781", None),
            watched(2, "[fd00::2]:4781", None),
            watched(3, "node-3:1", Some(Millis(7))),
        ]);
        let read: Value = serde_json::from_str(&targets.render(me)).expect("JSON");
        let shown = |n: usize| (read[n]["targets"].clone(), read[n]["labels"]["__meta_taskmesh_state"].clone());
        assert_eq!(shown(0), (json!(["10.0.0.1:4781"]), json!("self")));
        assert_eq!(shown(1), (json!(["[fd00::2]:4781"]), json!("live")));
        assert_eq!(shown(2), (json!(["node-3:1"]), json!("silent")));
        assert_eq!(read[2]["labels"]["__meta_taskmesh_peer_id"], json!(NodeId::test(3).to_string()));
        assert_eq!(read.as_array().map(Vec::len), Some(3));
    }
}
