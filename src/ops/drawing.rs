//! Graphs of workflows as text for Graphviz and for mermaid.
//!
//! Mermaid draws no graph with more than 500 edges unless its host is told to
//! (`maxEdges`), and none with more than 50,000 characters (`maxTextSize`).

use super::graph::{Edge, Node};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// A step's colour, by what it is doing.
pub(crate) fn colour(status: &str) -> &'static str {
    match status {
        "completed" => "#b7e4c7",
        "failed" | "expired" => "#f4acb7",
        "cancelled" | "skipped" => "#e5e5e5",
        "waiting" => "#ffffff",
        "input_required" => "#ffe08a",
        _ => "#a9d6e5",
    }
}

/// Whether the edge is a part of the critical path.
pub(crate) fn follows(path: &[String], edge: &Edge) -> bool {
    path.windows(2).any(|pair| pair[0] == edge.from && pair[1] == edge.to)
}

/// Text between double quotes, for Graphviz: lines stay lines, and what steers
/// a terminal or ends a text early is no part of it.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '\\' | '"' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            // `&…;` would be an entity of HTML.
            '&' => out.push_str("&amp;"),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out + "\""
}

pub(super) fn dot(name: &str, nodes: &[Node], edges: &[Edge], path: &[String]) -> String {
    let mut text =
        format!("digraph {} {{\n  rankdir=LR;\n  node [shape=box, style=\"rounded,filled\"];\n", quoted(name));
    for node in nodes {
        let (label, fill) = (quoted(&format!("{}\n{}", node.label, node.status)), colour(&node.status));
        let _ = writeln!(text, "  {} [label={label}, fillcolor=\"{fill}\"];", quoted(&node.id));
    }
    for edge in edges {
        let heavy = if follows(path, edge) { " [penwidth=2]" } else { "" };
        let _ = writeln!(text, "  {} -> {}{heavy};", quoted(&edge.from), quoted(&edge.to));
    }
    text + "}\n"
}

/// Text for mermaid: whatever could mean something to it by its number.
fn entities(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' | ' ' | '_' | '-' | '.' | ':' => out.push(c),
            c if c.is_control() => out.push('\u{fffd}'),
            c if c.is_ascii() => {
                let _ = write!(out, "#{};", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}

/// Names are numbered: some of those that steps may have are words of mermaid's.
pub(super) fn mermaid(nodes: &[Node], edges: &[Edge], path: &[String]) -> String {
    let numbers: BTreeMap<&str, usize> = nodes.iter().enumerate().map(|(n, node)| (node.id.as_str(), n)).collect();
    let mut text = "flowchart LR\n".to_owned();
    for (n, node) in nodes.iter().enumerate() {
        let _ = writeln!(text, "  s{n}[\"{}<br/>{}\"]:::{}", entities(&node.label), node.status, node.status);
    }
    for edge in edges {
        let (Some(from), Some(to)) = (numbers.get(edge.from.as_str()), numbers.get(edge.to.as_str())) else { continue };
        let arrow = if follows(path, edge) { "==>" } else { "-->" };
        let _ = writeln!(text, "  s{from} {arrow} s{to}");
    }
    let states: BTreeSet<&str> = nodes.iter().map(|n| n.status.as_str()).collect();
    for state in states {
        let _ = writeln!(text, "  classDef {state} fill:{},color:#000", colour(state));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: &str, label: &str, status: &str) -> Node {
        Node { id: id.to_owned(), label: label.to_owned(), status: status.to_owned() }
    }

    fn edge(from: &str, to: &str) -> Edge {
        Edge { from: from.to_owned(), to: to.to_owned() }
    }

    #[test]
    fn odd_texts_stay_texts() {
        let nodes = [node("end", "end: a \"b\" \\ & <i>;%%{`\n\0", "completed"), node("0", "0: é", "skipped")];
        let (edges, path) = ([edge("end", "0")], ["end".to_owned(), "0".to_owned()]);
        let wanted = "\
digraph \"a \\\"graph\\\"\" {
  rankdir=LR;
  node [shape=box, style=\"rounded,filled\"];
  \"end\" [label=\"end: a \\\"b\\\" \\\\ &amp; <i>;%%{`\\n\u{fffd}\\ncompleted\", fillcolor=\"#b7e4c7\"];
  \"0\" [label=\"0: é\\nskipped\", fillcolor=\"#e5e5e5\"];
  \"end\" -> \"0\" [penwidth=2];
}
";
        assert_eq!(dot("a \"graph\"", &nodes, &edges, &path), wanted);
        let wanted = "\
flowchart LR
  s0[\"end: a #34;b#34; #92; #38; #60;i#62;#59;#37;#37;#123;#96;\u{fffd}\u{fffd}<br/>completed\"]:::completed
  s1[\"0: é<br/>skipped\"]:::skipped
  s0 --> s1
  classDef completed fill:#b7e4c7,color:#000
  classDef skipped fill:#e5e5e5,color:#000
";
        assert_eq!(mermaid(&nodes, &edges, &[]), wanted);
    }
}
