//! What the demonstration says at its end.

use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// One file.
pub(crate) struct Row {
    /// Its digest, computed directly.
    pub(crate) expected: String,
    /// The digest that the mesh gave, if it gave one.
    pub(crate) found: Option<String>,
    /// What the mesh lists of the task.
    pub(crate) facts: Option<Value>,
}

/// The table.
pub(crate) struct Summary {
    tasks: usize,
    by_node: BTreeMap<usize, usize>,
    took: Duration,
    latencies_ms: Vec<i64>,
    kills: usize,
    run_again: usize,
    lost: usize,
    wrong: usize,
}

impl Summary {
    /// `nodes`: the number of the node of each worker.
    pub(crate) fn of(rows: &[Row], nodes: &BTreeMap<String, usize>, kills: usize) -> Summary {
        let mut by_node = BTreeMap::new();
        let mut spans = Vec::new();
        let mut run_again = 0;
        for facts in rows.iter().filter_map(|row| row.facts.as_ref()) {
            if let Some(node) = facts["worker_id"].as_str().and_then(|worker| nodes.get(worker)) {
                *by_node.entry(*node).or_default() += 1;
            }
            spans.extend(span(facts));
            run_again += usize::from(facts["attempt"].as_u64() > Some(1));
        }
        let mut latencies_ms: Vec<_> = spans.iter().map(|(from, to)| to - from).collect();
        latencies_ms.sort_unstable();
        let first = spans.iter().map(|(from, _)| *from).min().unwrap_or_default();
        let last = spans.iter().map(|(_, to)| *to).max().unwrap_or_default();
        let took = Duration::from_millis(u64::try_from(last - first).unwrap_or_default());
        let lost = rows.iter().filter(|row| row.found.is_none()).count();
        let wrong = rows.iter().filter(|row| row.found.as_ref().is_some_and(|found| *found != row.expected)).count();
        Summary { tasks: rows.len(), by_node, took, latencies_ms, kills, run_again, lost, wrong }
    }

    /// Whether it shows what it is to show.
    pub(crate) fn holds(&self) -> bool {
        self.tasks > 0 && self.kills > 0 && self.lost == 0 && self.wrong == 0
    }

    fn percentile(&self, percent: usize) -> String {
        let at = (self.latencies_ms.len() * percent / 100).min(self.latencies_ms.len().saturating_sub(1));
        self.latencies_ms.get(at).map_or_else(|| "not known".to_owned(), |ms| format!("{:.2} s", *ms as f64 / 1e3))
    }
}

/// When it was submitted and when it ended, in milliseconds, by the mesh's own account.
fn span(facts: &Value) -> Option<(i64, i64)> {
    let time = |field: &str| chrono::DateTime::parse_from_rfc3339(facts[field].as_str()?).ok();
    Some((time("submitted_at")?.timestamp_millis(), time("end_time")?.timestamp_millis()))
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rule = "-".repeat(44);
        let mut row = |name: &str, value: String| writeln!(f, "  {name:<32}{value:>12}");
        row("tasks", self.tasks.to_string())?;
        for (node, count) in &self.by_node {
            row(&format!("  ended by node {node}"), count.to_string())?;
        }
        row("first submitted to last ended", format!("{:.1} s", self.took.as_secs_f64()))?;
        row("throughput", format!("{:.0} tasks/s", self.tasks as f64 / self.took.as_secs_f64().max(1e-3)))?;
        row("submitted to ended, p50", self.percentile(50))?;
        row("submitted to ended, p99", self.percentile(99))?;
        row("nodes killed", self.kills.to_string())?;
        row("tasks granted again", self.run_again.to_string())?;
        writeln!(f, "  {rule}")?;
        writeln!(f, "  {:<32}{:>12}", "lost", self.lost)?;
        write!(f, "  {:<32}{:>12}", "wrong", self.wrong)
    }
}
