//! The register of every metric, which is also their documentation: a metric
//! can't be made without a line in `docs/metrics.md`.

use prometheus::core::Collector;
use prometheus::{
    Counter, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};
use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

/// The metrics of a node, as they are made.
pub(super) struct Book {
    registry: Registry,
    sections: Vec<(&'static str, Vec<Line>)>,
}

/// A metric, for people.
struct Line {
    name: &'static str,
    kind: &'static str,
    labels: Vec<&'static str>,
    help: &'static str,
}

impl Book {
    pub(super) fn new() -> Book {
        Book { registry: Registry::new(), sections: Vec::new() }
    }

    /// What follows belongs under this heading.
    pub(super) fn section(&mut self, title: &'static str) {
        self.sections.push((title, Vec::new()));
    }

    pub(super) fn counter(&mut self, name: &'static str, help: &'static str) -> IntCounter {
        self.add(name, "counter", &[], help, IntCounter::new(name, help))
    }

    pub(super) fn counters(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: &[&'static str],
    ) -> IntCounterVec {
        self.add(name, "counter", labels, help, IntCounterVec::new(Opts::new(name, help), labels))
    }

    /// A counter of something that is no whole number.
    pub(super) fn sum(&mut self, name: &'static str, help: &'static str) -> Counter {
        self.add(name, "counter", &[], help, Counter::new(name, help))
    }

    pub(super) fn gauge(&mut self, name: &'static str, help: &'static str) -> IntGauge {
        self.add(name, "gauge", &[], help, IntGauge::new(name, help))
    }

    pub(super) fn gauges(&mut self, name: &'static str, help: &'static str, labels: &[&'static str]) -> IntGaugeVec {
        self.add(name, "gauge", labels, help, IntGaugeVec::new(Opts::new(name, help), labels))
    }

    /// A gauge of something that is no whole number.
    pub(super) fn level(&mut self, name: &'static str, help: &'static str) -> Gauge {
        self.add(name, "gauge", &[], help, Gauge::new(name, help))
    }

    pub(super) fn histogram(&mut self, name: &'static str, help: &'static str, buckets: &[f64]) -> Histogram {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.add(name, "histogram", &[], help, Histogram::with_opts(options))
    }

    pub(super) fn histograms(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: &[&'static str],
        buckets: &[f64],
    ) -> HistogramVec {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.add(name, "histogram", labels, help, HistogramVec::new(options, labels))
    }

    /// The registry, for reading.
    pub(super) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// A table for each section, in Markdown.
    pub(super) fn tables(&self) -> String {
        let mut text = String::new();
        for (title, lines) in &self.sections {
            text += &format!("\n## {title}\n\n| metric | type | labels | meaning |\n|---|---|---|---|\n");
            for line in lines {
                let labels: Vec<_> = line.labels.iter().map(|label| format!("`{label}`")).collect();
                text += &format!("| `{}` | {} | {} | {} |\n", line.name, line.kind, labels.join(", "), line.help);
            }
        }
        text
    }

    fn add<M: Collector + Clone + 'static>(
        &mut self,
        name: &'static str,
        kind: &'static str,
        labels: &[&'static str],
        help: &'static str,
        made: prometheus::Result<M>,
    ) -> M {
        let metric = made.expect("names, labels and buckets are constants that a test has made once");
        self.registry.register(Box::new(metric.clone())).expect("no two constants are the same name");
        let (_, lines) = self.sections.last_mut().expect("a section comes first");
        lines.push(Line { name, kind, labels: labels.to_vec(), help });
        metric
    }
}

/// A label whose values come from outside: the first [`Bounded::MOST`] keep
/// their own series, the rest share `other`.
#[derive(Default)]
pub(super) struct Bounded(Mutex<HashSet<String>>);

impl Bounded {
    /// Each value costs one series for each state and each bucket.
    pub(super) const MOST: usize = 50;

    /// The label for `value`: always the same one.
    pub(super) fn label<'a>(&self, value: &'a str) -> &'a str {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.contains(value) {
            return value;
        }
        if known.len() >= Bounded::MOST {
            return "other";
        }
        known.insert(value.to_owned());
        value
    }
}
