//! What watches a fleet speaks of what there is: every metric and every label
//! in the rules, their tests and the dashboards stands in docs/metrics.md,
//! which another test holds to the program.

use super::Violation;
use super::source::Source;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Names that an expression may use, with their labels.
pub(crate) struct Known {
    metrics: BTreeMap<String, Metric>,
    recorded: BTreeSet<String>,
}

struct Metric {
    kind: String,
    labels: Vec<String>,
}

/// An expression, and the line that it begins in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Expression {
    line: usize,
    text: String,
}

impl Known {
    /// Of `docs/metrics.md`, and of the recording rules in `rules`.
    pub(crate) fn of<'a>(docs: &str, rules: impl Iterator<Item = &'a Source>) -> Known {
        let mut metrics: BTreeMap<_, _> = docs.lines().filter_map(metric).collect();
        // What Prometheus makes itself.
        for (name, labels) in [("up", &[][..]), ("ALERTS", &["alertname", "alertstate", "severity"])] {
            let labels = labels.iter().map(|label| (*label).to_owned()).collect();
            metrics.insert(name.to_owned(), Metric { kind: "gauge".to_owned(), labels });
        }
        let recorded = rules.flat_map(|file| file.text.lines());
        let recorded = recorded.filter_map(|line| line.trim_start().strip_prefix("- record:"));
        Known { metrics, recorded: recorded.map(|name| name.trim().to_owned()).collect() }
    }

    /// How many metrics there are.
    pub(crate) fn len(&self) -> usize {
        self.metrics.len()
    }

    fn metric(&self, name: &str) -> bool {
        let part = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        let histogram = |name: &str| self.metrics.get(name).is_some_and(|metric| metric.kind == "histogram");
        let whole = self.metrics.contains_key(name) && !histogram(name);
        whole || self.recorded.contains(name) || part.is_some_and(histogram)
    }

    fn label(&self, name: &str) -> bool {
        // What Prometheus and its configuration in deploy/ add.
        let added = ["job", "instance", "peer_id", "le"];
        added.contains(&name) || self.metrics.values().any(|metric| metric.labels.iter().any(|label| label == name))
    }
}

/// A line of a table of `docs/metrics.md`.
fn metric(line: &str) -> Option<(String, Metric)> {
    let cells: Vec<_> = line.strip_prefix("| `")?.split(" | ").collect();
    let [name, kind, labels, ..] = cells[..] else { return None };
    let labels = labels.split(", ").map(|label| label.trim_matches('`').to_owned()).collect();
    Some((name.trim_end_matches('`').to_owned(), Metric { kind: kind.to_owned(), labels }))
}

/// Every expression of a file names what there is.
pub(crate) fn expressions_name_what_there_is(file: &Source, known: &Known) -> Vec<Violation> {
    let mut found = Vec::new();
    for Expression { line, text } in expressions(file) {
        let Words { metrics, labels } = words(&text);
        let no_metric = metrics.iter().filter(|name| !known.metric(name)).map(|name| format!("no metric `{name}`"));
        let no_label = labels.iter().filter(|name| !known.label(name)).map(|name| format!("no label `{name}`"));
        let nothing = metrics.is_empty().then(|| format!("no metric at all in `{text}`"));
        let problems = no_metric.chain(no_label).chain(nothing);
        found.extend(problems.map(|problem| Violation::of(file, line, format!("there is {problem}"))));
    }
    found
}

/// Every alert and every recorded series of `rules` is in a test.
pub(crate) fn rules_are_tested(rules: &Source, tests: &str) -> Vec<Violation> {
    let rule = |line: &str| {
        let line = line.trim_start().trim_start_matches("- ");
        let name = ["alert:", "record:"].iter().find_map(|key| line.strip_prefix(key));
        name.map(|name| name.trim().to_owned())
    };
    let tested = |name: &str| tests.match_indices(name).any(|(at, _)| !tests[at + name.len()..].starts_with(is_name));
    let named = rules.text.lines().enumerate().filter_map(|(n, line)| Some((n + 1, rule(line)?)));
    let missing = named.filter(|(_, name)| !tested(name));
    missing.map(|(line, name)| Violation::of(rules, line, format!("no test has `{name}`"))).collect()
}

/// What Prometheus or Grafana would evaluate in a file of `deploy/`.
pub(crate) fn expressions(file: &Source) -> Vec<Expression> {
    if file.path.ends_with(".json") {
        let mut found = Vec::new();
        let value = serde_json::from_str(&file.text).unwrap_or_else(|e| panic!("{}: {e}", file.path));
        in_json(&value, &mut found);
        // A reader finds an expression by its text as well.
        return found.into_iter().map(|text| Expression { line: 1, text }).collect();
    }
    in_yaml(&file.text)
}

fn in_json(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, inner) in fields {
                match inner.as_str() {
                    Some(text) if name == "expr" => found.push(text.to_owned()),
                    Some(text) if name == "definition" => found.push(listed_values(text)),
                    _ => in_json(inner, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| in_json(item, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Grafana's `label_values(metric, label)` as PromQL.
fn listed_values(text: &str) -> String {
    let inside = text.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
    match inside.and_then(|inside| inside.rsplit_once(',')) {
        Some((metric, label)) => format!("count by ({}) ({metric})", label.trim()),
        None => text.to_owned(),
    }
}

/// The values of `expr` and `series`, of one line or folded over several.
fn in_yaml(text: &str) -> Vec<Expression> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (n, line) in lines.iter().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let key = line.trim_start().trim_start_matches("- ");
        let Some(value) = ["expr:", "series:"].iter().find_map(|name| key.strip_prefix(name)) else { continue };
        let value = value.trim();
        let text = if value.starts_with(['>', '|']) {
            let deeper = |line: &&&str| line.trim().is_empty() || line.len() - line.trim_start().len() > indent;
            lines[n + 1..].iter().take_while(deeper).map(|line| line.trim()).collect::<Vec<_>>().join(" ")
        } else {
            value.trim_matches('\'').to_owned()
        };
        found.push(Expression { line: n + 1, text });
    }
    found
}

/// What stands in an expression.
#[derive(Debug, Default, PartialEq, Eq)]
struct Words {
    metrics: BTreeSet<String>,
    labels: BTreeSet<String>,
}

fn words(expression: &str) -> Words {
    let mut words = Words::default();
    let mut rest = expression;
    while let Some(first) = rest.chars().next() {
        if let Some(inside) = group(rest, '{', '}') {
            words.labels.extend(matched_labels(inside));
            rest = &rest[inside.len() + 2..];
        } else if let Some(inside) = group(rest, '[', ']') {
            rest = &rest[inside.len() + 2..];
        } else if first == '"' {
            rest = rest[1..].split_once('"').map_or("", |(_, rest)| rest);
        } else if first == '$' || first.is_ascii_digit() {
            rest = rest[1..].trim_start_matches(is_name);
        } else if is_name(first) {
            let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
            let (name, after) = rest.split_at(end);
            rest = after.trim_start();
            let called = group(rest, '(', ')');
            match (LISTS.contains(&name), called) {
                (true, Some(inside)) => {
                    words.labels.extend(inside.split(',').map(|l| l.trim().to_owned()).filter(|l| !l.is_empty()));
                    rest = &rest[inside.len() + 2..];
                }
                (false, None) if !WORDS.contains(&name) => drop(words.metrics.insert(name.to_owned())),
                _ => {}
            }
        } else {
            rest = &rest[first.len_utf8()..];
        }
    }
    words
}

/// What stands between `open`, with which `text` starts, and `close`.
fn group(text: &str, open: char, close: char) -> Option<&str> {
    let inside = text.strip_prefix(open)?;
    let (mut depth, mut quoted) = (0, false);
    for (at, c) in inside.char_indices() {
        match c {
            '"' => quoted = !quoted,
            _ if quoted => {}
            c if c == open => depth += 1,
            c if c == close && depth == 0 => return Some(&inside[..at]),
            c if c == close => depth -= 1,
            _ => {}
        }
    }
    None
}

/// The names before `=`, `!=`, `=~` and `!~`.
fn matched_labels(matchers: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (n, part) in matchers.split('"').enumerate() {
        let name = part.trim_matches([',', ' ']).trim_end_matches(['=', '!', '~', ' ']);
        if n % 2 == 0 && !name.is_empty() {
            names.push(name.to_owned());
        }
    }
    names
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == ':'
}

/// Of PromQL: what is followed by a list of labels.
const LISTS: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];
/// Of PromQL: what may stand without brackets after it.
const WORDS: [&str; 17] = [
    "and",
    "or",
    "unless",
    "bool",
    "offset",
    "sum",
    "min",
    "max",
    "avg",
    "count",
    "topk",
    "bottomk",
    "quantile",
    "stddev",
    "stdvar",
    "group_left",
    "group_right",
];

#[cfg(test)]
mod tests {
    use super::*;

    const DOCS: &str = "\
| metric | type | labels | meaning |
| `a_total` | counter | `state`, `kind` | Some. |
| `b_seconds` | histogram |  | Others. |
";

    fn problems(path: &str, text: &str) -> Vec<String> {
        let rules = [Source::new("deploy/prometheus/rules/x.yml", "  - record: job:a:sum\n    expr: a_total\n")];
        let known = Known::of(DOCS, rules.iter());
        let found = expressions_name_what_there_is(&Source::new(path, text), &known);
        found.into_iter().map(|violation| violation.text).collect()
    }

    #[test]
    fn an_expression_is_taken_apart() {
        let text = r#"histogram_quantile(0.9, sum by (le, x) (rate(b_seconds_bucket{y="a{b", z!~"c.*"}[5m]))) > 1e3
            unless on (job) max(a_total offset 5m) == $limit and job:a:sum{} "#;
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        let Words { metrics, labels } = words(text);
        assert_eq!(metrics, set(&["b_seconds_bucket", "a_total", "job:a:sum"]));
        assert_eq!(labels, set(&["le", "x", "y", "z", "job"]));
    }

    #[test]
    fn a_name_that_nothing_has_is_found() {
        let yaml = "- alert: x\n  expr: sum by (state) (rate(a_total{kind=\"x\"}[5m])) > job:a:sum\n";
        assert_eq!(problems("deploy/x.yml", yaml), [""; 0]);
        assert_eq!(problems("deploy/x.yml", &yaml.replace("a_total", "c_total")), ["there is no metric `c_total`"]);
        assert_eq!(problems("deploy/x.yml", &yaml.replace("kind", "colour")), ["there is no label `colour`"]);
        assert_eq!(problems("deploy/x.yml", &yaml.replace("(state)", "(shape)")), ["there is no label `shape`"]);
        let folded = "  expr: >-\n    b_seconds_sum\n    / b_seconds\n  for: 1m\n";
        assert_eq!(problems("deploy/x.yml", folded), ["there is no metric `b_seconds`"]);
        let tests = "  - series: 'd_total{job=\"x\"}'\n    values: 1\n";
        assert_eq!(problems("deploy/x.yml", tests), ["there is no metric `d_total`"]);
        assert_eq!(problems("deploy/x.yml", "expr: 1 > 0\n").len(), 1, "it watches nothing");
    }

    #[test]
    fn a_rule_without_a_test_is_found() {
        let rules = Source::new("deploy/x.yml", "  - alert: Full\n    expr: a\n  - record: job:a:sum\n    expr: a\n");
        let found = |tests| rules_are_tested(&rules, tests).into_iter().map(|v| v.text).collect::<Vec<_>>();
        assert_eq!(found("alertname: Full\nexpr: job:a:sum > 1"), [""; 0]);
        assert_eq!(found("alertname: Fuller\nexpr: job:a:sum"), ["no test has `Full`"]);
        assert_eq!(found("alertname=\"Full\"\nexpr: job:a:sum2"), ["no test has `job:a:sum`"]);
    }

    #[test]
    fn a_name_in_a_dashboard_that_nothing_has_is_found() {
        let json = r#"{"panels": [{"targets": [{"expr": "a_total{job=\"$job\"}"}, {"expr": "up * f_total"}]}],
            "templating": {"list": [{"definition": "label_values(g_total, state)"}]}}"#;
        assert_eq!(problems("deploy/x.json", json), ["there is no metric `f_total`", "there is no metric `g_total`"]);
    }
}
