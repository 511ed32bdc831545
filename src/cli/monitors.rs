//! What the nodes of a mesh measure of themselves, read from their metrics
//! endpoints, which the node of the data folder knows.

use super::exit::Exit;
use super::reach::NodeInfo;
use crate::api::client::plain;
use crate::ops::Code;
use futures::StreamExt as _;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The metrics of one node.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Monitor {
    /// `host:port`.
    pub(super) at: String,
    /// By the service discovery: `self`, `live` or `silent`.
    pub(super) state: String,
    /// What was read; `None`: its metrics can't be reached from here.
    pub(super) read: Option<Reading>,
}

/// What was read of one node.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Reading {
    /// Each metric, summed over its labels.
    pub(super) values: BTreeMap<String, f64>,
    /// Those with labels, as they stand: `name{label="value"}`.
    pub(super) labelled: BTreeMap<String, f64>,
    /// Of the program.
    pub(super) version: Option<String>,
    /// Seconds that its clock is ahead of this machine's, and how sure that is:
    /// a `Date` counts whole seconds, and the answer takes its time.
    pub(super) ahead: Option<(f64, f64)>,
}

impl Reading {
    /// A metric without labels, or the sum over them.
    pub(super) fn value(&self, name: &str) -> Option<f64> {
        self.values.get(name).copied()
    }

    /// A metric with one label.
    pub(super) fn labelled(&self, name: &str, label: &str, value: &str) -> Option<f64> {
        self.labelled.get(&format!("{name}{{{label}=\"{value}\"}}")).copied()
    }

    /// Reads Prometheus's text format.
    pub(super) fn parse(text: &str) -> Reading {
        let mut reading = Reading::default();
        for line in text.lines().filter(|line| line.starts_with("taskmesh_") || line.starts_with("process_")) {
            let Some((name, value)) = line.rsplit_once(' ') else { continue };
            let Ok(value) = value.parse::<f64>() else { continue };
            if name.ends_with('}') {
                reading.labelled.insert(name.to_owned(), value);
            }
            let (name, labels) = name.split_once('{').unwrap_or((name, ""));
            if name == "taskmesh_build_info" {
                reading.version = labels.split('"').nth(1).map(str::to_owned);
            }
            *reading.values.entry(name.to_owned()).or_default() += value;
        }
        reading
    }
}

/// Asks every node that the one of `info` knows, itself included.
///
/// # Errors
/// That one does not say where the metrics are.
pub(super) async fn ask(info: &NodeInfo) -> Result<BTreeMap<String, Monitor>, Exit> {
    let silent =
        |e: reqwest::Error| Exit::with(Code::Unavailable, format!("no answer from {}/sd: {e}", info.metrics_url));
    let client = plain().timeout(PATIENCE).build().map_err(silent)?;
    let targets: Vec<Value> =
        client.get(format!("{}/sd", info.metrics_url)).send().await.map_err(silent)?.json().await.map_err(silent)?;
    let own = &info.metrics_url;
    let each = targets.into_iter().take(NODES).filter_map(|target| {
        let labels = &target["labels"];
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let peer = text(&labels["__meta_taskmesh_peer_id"])?;
        Some((peer, text(&target["targets"][0])?, text(&labels["__meta_taskmesh_state"])?))
    });
    let client = &client;
    let reading = each.map(|(peer, at, state)| async move {
        // What the node tells others of itself need not be how it is reached from here.
        let url = if state == "self" { own.clone() } else { format!("http://{at}") };
        let read = read(client, &url).await;
        (peer, Monitor { at, state, read })
    });
    Ok(futures::stream::iter(reading).buffer_unordered(AT_ONCE).collect().await)
}

async fn read(client: &reqwest::Client, base: &str) -> Option<Reading> {
    let before = SystemTime::now();
    let response = client.get(format!("{base}/metrics")).send().await.ok().filter(|r| r.status().is_success())?;
    let after = SystemTime::now();
    let date = response.headers().get(reqwest::header::DATE).and_then(|date| date.to_str().ok()).map(str::to_owned);
    let mut reading = Reading::parse(&response.text().await.ok()?);
    reading.ahead = date.and_then(|date| ahead(&date, before, after));
    Some(reading)
}

/// How far a clock is ahead that said `date` between `before` and `after`, and
/// how far that may be off.
fn ahead(date: &str, before: SystemTime, after: SystemTime) -> Option<(f64, f64)> {
    let said = chrono::DateTime::parse_from_rfc2822(date).ok()?.timestamp();
    let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).map(|since| since.as_secs_f64()).ok();
    let (before, after) = (seconds(before)?, seconds(after)?);
    // The true time there was within the second that it named.
    let (least, most) = (said as f64 - after, said as f64 + 1.0 - before);
    Some(((least + most) / 2.0, (most - least) / 2.0))
}

/// A node that does not answer by then is said to be out of reach.
const PATIENCE: Duration = Duration::from_secs(3);
/// More than that many are not read for one look.
const NODES: usize = 1_000;
const AT_ONCE: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_read_by_name() {
        let text = "# HELP taskmesh_x An x.\ntaskmesh_x{a=\"1\"} 2\ntaskmesh_x{a=\"2\"} 3.5\n\
            taskmesh_build_info{version=\"1.2.3\"} 1\nlibp2p_y 7\nprocess_start_time_seconds 1e9\ntaskmesh_bad x\n";
        let reading = Reading::parse(text);
        assert_eq!(reading.value("taskmesh_x"), Some(5.5));
        assert_eq!(reading.labelled("taskmesh_x", "a", "2"), Some(3.5));
        assert_eq!(reading.value("process_start_time_seconds"), Some(1e9));
        assert_eq!((reading.value("libp2p_y"), reading.value("taskmesh_bad")), (None, None));
        assert_eq!(reading.version.as_deref(), Some("1.2.3"));
    }

    #[test]
    fn a_clock_is_as_far_ahead_as_its_date_says() {
        let at = |ms: u64| UNIX_EPOCH + Duration::from_millis(1_000_000_000_000 + ms);
        let date = "Sun, 09 Sep 2001 01:46:45 GMT";
        // It says 5 s after that time.
        let (ahead_by, unsure) = ahead(date, at(0), at(100)).expect("a date");
        assert!((ahead_by - 5.45).abs() < 0.001 && (unsure - 0.55).abs() < 0.001, "{ahead_by} {unsure}");
        let (same, unsure) = ahead(date, at(5_400), at(5_500)).expect("a date");
        assert!(same.abs() <= unsure, "{same} {unsure}");
        assert_eq!(ahead("yesterday", at(0), at(1)), None);
    }
}
