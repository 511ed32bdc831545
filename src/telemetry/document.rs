//! `docs/metrics.md`, made from the metrics themselves so that it can't be
//! wrong. `BLESS=1 cargo test --lib telemetry` writes it anew.

use super::metrics;

/// The whole page, in Markdown.
#[must_use]
pub fn document() -> String {
    format!("{HEAD}{}{TAIL}", metrics::tables())
}

const HEAD: &str = "\
# Metrics

<!-- Made from src/telemetry: change it there, then `BLESS=1 cargo test --lib telemetry`. -->

`GET /metrics` answers in Prometheus's text format 0.0.4. All durations are in seconds and all sizes in bytes. Counters
start at zero with the process.

What is said of tasks is said by the node that owns them, so that sums over a mesh count each task once; what is said
of runs is said by the node that ran them. `task_type` is the type of a task for the first 50 types that a node sees,
and `other` for the rest. There is no label per task or per peer.

Durations that the protocol measures have a resolution of one millisecond.
";

const TAIL: &str = "
## libp2p

After these come libp2p's own metrics, all of which begin with `libp2p_`: connections, dials, Kademlia queries,
identify, ping round trips and bandwidth. libp2p writes them as OpenMetrics; the node rewrites them to the format of
the rest.

## Questions they answer

- How many tasks end in a second?
  `sum(rate(taskmesh_tasks_closed_total[1m]))`
- How many of them fail?
  `sum(rate(taskmesh_tasks_closed_total{state=\"failed\"}[5m]))`
- How long do tasks wait for a worker (p99)?
  `histogram_quantile(0.99, sum by (le) (rate(taskmesh_claim_duration_seconds_bucket[5m])))`
- Is the disk slow (p99)?
  `histogram_quantile(0.99, sum by (le) (rate(taskmesh_store_sync_duration_seconds_bucket[5m])))`
- How many entries share a commit?
  `rate(taskmesh_store_commit_entries_sum[1m]) / rate(taskmesh_store_commit_entries_count[1m])`
- Does anything wait for ever?
  `max(taskmesh_queue_stuck)`, and then `task_status` with `explain` says why a task waits.
- Are nodes being lost?
  `sum(increase(taskmesh_peers_lost_total[15m]))` and `sum(increase(taskmesh_tasks_adopted_total[15m]))`

## Where the nodes are

`GET /sd` on any node lists the metrics addresses of all nodes that it knows, itself included, in the form of
Prometheus's HTTP service discovery: with one node as the target of an `http_sd_config` the whole fleet is found. A node
that falls silent stays listed for a day, so that it is seen to be down; one that drained and left does not. The label
`__meta_taskmesh_peer_id` is its peer id and `__meta_taskmesh_state` is `self`, `live` or `silent`. What a node says of
itself is its setting `metrics.advertise`. A loopback address is listed only for nodes of the same machine.

## Health

`GET /healthz` is 200 while the node's loop has come round within 30 s: restart a node that stays at 503.

`GET /readyz` is 200 while the loop has come round within 5 s, as many nodes can be reached as must keep a task, and
the node is not draining; otherwise it is 503, and its body lists every reason.
";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use std::path::Path;

    #[test]
    fn the_page_on_metrics_is_up_to_date() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(&path, document()).unwrap();
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(written == document(), "docs/metrics.md is out of date: run `BLESS=1 cargo test --lib telemetry`");
    }
}
