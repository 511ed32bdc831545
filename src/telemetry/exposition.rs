//! Joins two text formats into one: libp2p encodes its metrics as OpenMetrics,
//! and what Prometheus scrapes from a node is its own text format 0.0.4.
//!
//! They differ where it counts: an OpenMetrics counter `x` has the samples
//! `x_total`, which 0.0.4 would take for an untyped metric of that name; there
//! are types, units, exemplars and an end marker that 0.0.4 does not know.

use std::collections::HashSet;

/// A family as it is read.
struct Family<'a> {
    name: &'a str,
    kind: &'a str,
    help: &'a str,
    samples: String,
}

/// `text` (OpenMetrics) in the format 0.0.4. Families without samples, or
/// with a name in `taken` or seen before, are left out, and so is whatever
/// can't be read.
pub(super) fn from_openmetrics(text: &str, taken: &HashSet<&str>) -> String {
    let mut done = String::new();
    let mut seen = HashSet::new();
    let mut family = Family { name: "", kind: "", help: "", samples: String::new() };
    for line in text.lines().chain(["# HELP  "]) {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some(what @ ("HELP" | "TYPE")), Some(name), rest) => {
                if name != family.name {
                    family.write(&mut done, taken, &mut seen);
                    family = Family { name, kind: "unknown", help: "", samples: String::new() };
                }
                let rest = rest.unwrap_or_default();
                if what == "HELP" { family.help = rest } else { family.kind = rest }
            }
            // `# UNIT` says nothing that the name does not.
            (Some("#"), ..) => {}
            _ => family.sample(line),
        }
    }
    done
}

impl Family<'_> {
    /// The name, the type and the suffix that samples must have in 0.0.4.
    fn translated(&self) -> (String, &'static str) {
        let with = |suffix: &str| match self.name.ends_with(suffix) {
            true => self.name.to_owned(),
            false => format!("{}{suffix}", self.name),
        };
        match self.kind {
            "counter" => (with("_total"), "counter"),
            "info" => (with("_info"), "gauge"),
            "gauge" | "stateset" => (self.name.to_owned(), "gauge"),
            "histogram" => (self.name.to_owned(), "histogram"),
            "summary" => (self.name.to_owned(), "summary"),
            _ => (self.name.to_owned(), "untyped"),
        }
    }

    fn sample(&mut self, line: &str) {
        let Some(sample) = without_exemplar(line) else { return };
        let name = &sample[..sample.find(['{', ' ']).unwrap_or(sample.len())];
        let (own, kind) = self.translated();
        let suffix = name.strip_prefix(own.as_str());
        let belongs = match kind {
            "histogram" => matches!(suffix, Some("_bucket" | "_count" | "_sum")),
            "summary" => matches!(suffix, Some("" | "_count" | "_sum")),
            _ => suffix == Some(""),
        };
        if belongs {
            self.samples += sample;
            self.samples.push('\n');
        }
    }

    fn write(&self, out: &mut String, taken: &HashSet<&str>, seen: &mut HashSet<String>) {
        let (name, kind) = self.translated();
        if self.samples.is_empty() || taken.contains(name.as_str()) || !seen.insert(name.clone()) {
            return;
        }
        let help = self.help.replace("\\\"", "\"");
        *out += &format!("# HELP {name} {help}\n# TYPE {name} {kind}\n{}", self.samples);
    }
}

/// `name{labels} value`, whatever stands in quotes; `None` if it is none.
fn without_exemplar(line: &str) -> Option<&str> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in line.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'#' if !quoted => return Some(line[..at].trim_end()),
            _ => {}
        }
    }
    (!quoted && line.contains(' ')).then_some(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::encoding::text::encode;
    use prometheus_client::metrics::{
        counter::Counter, family::Family as Labelled, gauge::Gauge, histogram::Histogram,
    };
    use prometheus_client::metrics::{histogram::exponential_buckets, info::Info};
    use prometheus_client::registry::{Registry, Unit};

    /// What libp2p's encoder writes for one metric of each kind.
    fn openmetrics() -> String {
        let mut registry = Registry::with_prefix("libp2p");
        let bytes = Labelled::<Vec<(String, String)>, Counter>::default();
        bytes.get_or_create(&vec![("addr".into(), "a \"b\" # {c}\\".into())]).inc_by(7);
        registry.register_with_unit("bandwidth", "Bytes moved", Unit::Bytes, bytes);
        let peers: Gauge = Gauge::default();
        peers.set(3);
        registry.register("peers", "Peers", peers);
        let rtt = Histogram::new(exponential_buckets(0.1, 2.0, 3));
        rtt.observe(0.3);
        registry.register_with_unit("rtt", "Round trips", Unit::Seconds, rtt);
        registry.register("build", "Build", Info::new([("version", "1")]));
        registry.register("empty", "Nothing yet", Labelled::<Vec<(String, String)>, Counter>::default());
        let mut text = String::new();
        encode(&mut text, &registry).expect("a string takes everything");
        text
    }

    #[test]
    fn every_kind_becomes_what_prometheus_reads() {
        let text = from_openmetrics(&openmetrics(), &HashSet::new());
        let expected = r##"# HELP libp2p_bandwidth_bytes_total Bytes moved.
# TYPE libp2p_bandwidth_bytes_total counter
libp2p_bandwidth_bytes_total{addr="a \"b\" # {c}\\"} 7
# HELP libp2p_peers Peers.
# TYPE libp2p_peers gauge
libp2p_peers 3
# HELP libp2p_rtt_seconds Round trips.
# TYPE libp2p_rtt_seconds histogram
libp2p_rtt_seconds_sum 0.3
libp2p_rtt_seconds_count 1
libp2p_rtt_seconds_bucket{le="0.1"} 0
libp2p_rtt_seconds_bucket{le="0.2"} 0
libp2p_rtt_seconds_bucket{le="0.4"} 1
libp2p_rtt_seconds_bucket{le="+Inf"} 1
# HELP libp2p_build_info Build.
# TYPE libp2p_build_info gauge
libp2p_build_info{version="1"} 1
"##;
        assert_eq!(text, expected);
    }

    #[test]
    fn names_are_taken_once() {
        let twice = openmetrics().repeat(2);
        let text = from_openmetrics(&twice, &HashSet::from(["libp2p_peers"]));
        assert!(!text.contains("libp2p_peers"));
        assert_eq!(text.matches("# TYPE libp2p_rtt_seconds histogram").count(), 1);
        assert!(!text.contains("EOF") && !text.contains("UNIT"));
    }

    #[test]
    fn exemplars_and_nonsense_are_left_out() {
        let text = "# TYPE a counter\na_total 5 # {trace=\"x\"} 1.0\na_created 12\nb 1\n# TYPE\nhalf{x=\"\n\n# HELP\n";
        let expected = "# HELP a_total \n# TYPE a_total counter\na_total 5\n";
        assert_eq!(from_openmetrics(text, &HashSet::new()), expected);
    }
}
