//! Graphs of workflows in layers, and drawn as SVG.
//!
//! Steps stand in columns by the longest way to them (Sugiyama, Tagawa, Toda:
//! "Methods for visual understanding of hierarchical system structures", 1981),
//! in each column by the mean place of what they wait for.

use crate::ops::drawing::{colour, follows};
use crate::ops::graph::{Edge, Node};
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;

/// The steps by level: each waits for some of the level before.
pub(super) fn levels(nodes: &[Node], edges: &[Edge]) -> Vec<Vec<usize>> {
    let parents = parents(nodes, edges);
    let mut children = vec![Vec::new(); nodes.len()];
    for (n, of) in parents.iter().enumerate() {
        of.iter().for_each(|parent| children[*parent].push(n));
    }
    let mut open: Vec<usize> = parents.iter().map(Vec::len).collect();
    let mut ready: VecDeque<usize> = (0..nodes.len()).filter(|n| open[*n] == 0).collect();
    let mut depth = vec![0; nodes.len()];
    while let Some(n) = ready.pop_front() {
        for child in &children[n] {
            depth[*child] = depth[*child].max(depth[n] + 1);
            open[*child] -= 1;
            if open[*child] == 0 {
                ready.push_back(*child);
            }
        }
    }
    let mut levels = vec![Vec::new(); depth.iter().max().map_or(0, |deepest| deepest + 1)];
    depth.iter().enumerate().for_each(|(n, level)| levels[*level].push(n));
    levels
}

fn parents(nodes: &[Node], edges: &[Edge]) -> Vec<Vec<usize>> {
    let numbers: BTreeMap<&str, usize> = nodes.iter().enumerate().map(|(n, node)| (node.id.as_str(), n)).collect();
    let mut parents = vec![Vec::new(); nodes.len()];
    for edge in edges {
        if let (Some(from), Some(to)) = (numbers.get(edge.from.as_str()), numbers.get(edge.to.as_str())) {
            parents[*to].push(*from);
        }
    }
    parents
}

/// Where a step is drawn.
#[derive(Clone, Copy, Default)]
struct Place {
    x: usize,
    y: usize,
    width: usize,
}

/// Every step in its place, and the size of the whole.
fn places(nodes: &[Node], edges: &[Edge]) -> (Vec<Place>, usize, usize) {
    let mut levels = levels(nodes, edges);
    let parents = parents(nodes, edges);
    let height = levels.iter().map(Vec::len).max().unwrap_or(0) * ROW;
    let mut places = vec![Place::default(); nodes.len()];
    let mut x = MARGIN;
    for level in &mut levels {
        level.sort_by_key(|n| {
            let above = parents[*n].iter().map(|p| places[*p].y).sum::<usize>();
            (above / parents[*n].len().max(1), *n)
        });
        let width = level.iter().map(|n| 2 * PADDING + LETTER * longest_line(&nodes[*n])).max().unwrap_or(0);
        let top = MARGIN + (height - level.len() * ROW) / 2;
        for (row, n) in level.iter().enumerate() {
            places[*n] = Place { x, y: top + row * ROW, width };
        }
        x += width + GAP;
    }
    (places, (x + MARGIN).saturating_sub(GAP).max(2 * MARGIN), height + 2 * MARGIN)
}

fn lines(node: &Node) -> [String; 2] {
    let what = node.label.strip_prefix(&node.id).unwrap_or(&node.label).trim_start_matches([':', ' ']);
    [&node.id, &format!("{what}, {}", node.status)].map(|line| match line.char_indices().nth(WIDEST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.clone(),
    })
}

fn longest_line(node: &Node) -> usize {
    lines(node).iter().map(|line| line.chars().count()).max().unwrap_or(0)
}

/// The graph as an SVG image of its own.
pub(super) fn svg(nodes: &[Node], edges: &[Edge], path: &[String]) -> String {
    let (places, width, height) = places(nodes, edges);
    let numbers: BTreeMap<&str, usize> = nodes.iter().enumerate().map(|(n, node)| (node.id.as_str(), n)).collect();
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"monospace\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    for edge in edges {
        let (Some(from), Some(to)) = (numbers.get(edge.from.as_str()), numbers.get(edge.to.as_str())) else { continue };
        let (from, to) = (places[*from], places[*to]);
        let (x, y, to_x, to_y) = (from.x + from.width, from.y + BOX / 2, to.x, to.y + BOX / 2);
        let (bend, heavy) = (GAP / 2, if follows(path, edge) { 3 } else { 1 });
        let _ = writeln!(
            text,
            "<path d=\"M{x} {y} C{} {y} {} {to_y} {to_x} {to_y}\" fill=\"none\" stroke=\"#555555\" stroke-width=\"{heavy}\"/>",
            x + bend,
            to_x.saturating_sub(bend)
        );
    }
    for (node, Place { x, y, width }) in nodes.iter().zip(places) {
        let heavy = if path.contains(&node.id) { 3 } else { 1 };
        let fill = colour(&node.status);
        let [name, about] = lines(node).map(|line| escaped(&line));
        let _ = writeln!(
            text,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{BOX}\" rx=\"6\" fill=\"{fill}\" stroke=\"#333333\" \
             stroke-width=\"{heavy}\"/>\n<text x=\"{0}\" y=\"{1}\" font-weight=\"bold\">{name}</text>\n\
             <text x=\"{0}\" y=\"{2}\">{about}</text>",
            x + PADDING,
            y + 16,
            y + 32
        );
    }
    text + "</svg>\n"
}

/// Text within XML, which has no place for most control characters.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// Pixels, but for `WIDEST`: characters of a line.
const MARGIN: usize = 16;
const PADDING: usize = 10;
const GAP: usize = 56;
const BOX: usize = 40;
const ROW: usize = 56;
const LETTER: usize = 8;
const WIDEST: usize = 48;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn node(id: &str, status: &str) -> Node {
        Node { id: id.to_owned(), label: format!("{id}: echo"), status: status.to_owned() }
    }

    fn edge(from: &str, to: &str) -> Edge {
        Edge { from: from.to_owned(), to: to.to_owned() }
    }

    #[test]
    fn steps_stand_behind_what_they_wait_for() {
        let nodes = ["a", "b", "c", "d", "e"].map(|id| node(id, "waiting"));
        let edges = [edge("a", "b"), edge("b", "c"), edge("a", "c"), edge("d", "c"), edge("d", "nobody")];
        assert_eq!(levels(&nodes, &edges), [vec![0, 3, 4], vec![1], vec![2]]);
        assert_eq!(levels(&[], &[]), Vec::<Vec<usize>>::new());
        let circle = [edge("a", "b"), edge("b", "a")];
        assert_eq!(levels(&nodes[..2], &circle), [vec![0, 1]], "no node draws such a one, and this ends");
        let (places, width, height) = places(&nodes, &edges);
        assert!(places[1].x >= places[0].x + places[0].width + GAP && places[2].x > places[1].x);
        assert!(places.iter().all(|p| p.x + p.width < width && p.y + BOX < height));
        let mut corners: Vec<_> = places.iter().map(|p| (p.x, p.y)).collect();
        corners.sort_unstable();
        corners.dedup();
        assert_eq!(corners.len(), nodes.len(), "no step hides another");
    }

    #[test]
    fn a_drawing_is_well_formed_whatever_the_texts_are() {
        let mut odd = node("a", "failed");
        odd.label = "a: <script>alert(\"&\")</script>\u{0}\u{1b}".to_owned();
        let drawn = svg(&[odd, node("b", "running")], &[edge("a", "b")], &["a".to_owned(), "b".to_owned()]);
        assert!(
            drawn.contains("&lt;script&gt;alert(&quot;&amp;&quot;)&lt;/script&gt;\u{fffd}\u{fffd}, failed"),
            "{drawn}"
        );
        assert!(!drawn.contains("<script") && drawn.contains("stroke-width=\"3\""), "{drawn}");
        let (opened, closed) = (drawn.matches('<').count(), drawn.matches('>').count());
        assert_eq!(opened, closed, "{drawn}");
        for c in drawn.chars() {
            assert!(!c.is_control() || c == '\n');
        }
    }
}
