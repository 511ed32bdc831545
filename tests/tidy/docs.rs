//! What the documents say must be there: linked files and headings, targets of
//! the Makefile, the 26 operations, every top-level module. The book has every
//! page, and no command in it escapes the test that runs them.

use super::Violation;
use super::source::{Source, root};
use std::collections::BTreeSet;

/// The contract of the facade: names are fixed.
pub(crate) const OPERATIONS: [&str; 26] = [
    "task_submit",
    "task_status",
    "task_cancel",
    "task_list",
    "task_priority",
    "task_result",
    "queue_stats",
    "queue_pause",
    "queue_resume",
    "queue_clear",
    "task_retry",
    "worker_register",
    "worker_unregister",
    "worker_status",
    "workflow_submit",
    "workflow_status",
    "workflow_cancel",
    "workflow_list",
    "workflow_dependencies",
    "workflow_result",
    "peer_discover",
    "peer_connect",
    "peer_disconnect",
    "peer_list",
    "peer_metrics",
    "bootstrap_network",
];

/// Every relative link of a document leads to a file of the tree, and to a
/// heading of it where it names one. `files`: the documents.
pub(crate) fn links_lead_somewhere(file: &Source, files: &[Source], exists: impl Fn(&str) -> bool) -> Vec<Violation> {
    if !file.path.ends_with(".md") {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (n, line) in file.text.lines().enumerate() {
        for target in link_targets(line) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (path, heading) = target.split_once('#').unwrap_or((target, ""));
            let path = if path.is_empty() { file.path.clone() } else { beside(&file.path, path) };
            let document = files.iter().find(|f| f.path == path && f.path.ends_with(".md"));
            let has_heading = |document: &Source| headings(&document.text).contains(heading);
            if !exists(&path) || (!heading.is_empty() && !document.is_none_or(has_heading)) {
                found.push(Violation::of(file, n + 1, format!("the link to {target} leads nowhere")));
            }
        }
    }
    found
}

/// The names by which links reach the headings of a document: lower case, of
/// letters, digits, `-` and `_`; the second of two that are the same ends in `-1`.
fn headings(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut in_block = false;
    for line in text.lines() {
        in_block ^= line.trim_start().starts_with("```");
        let title = line.trim_start_matches('#');
        if in_block || title.len() == line.len() || !title.starts_with(' ') {
            continue;
        }
        let kept = title.trim().chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        let name = kept.collect::<String>().to_lowercase().replace(' ', "-");
        let same = (1..).map(|n| format!("{name}-{n}"));
        let free = std::iter::once(name.clone()).chain(same).find(|name| !names.contains(name));
        names.extend(free);
    }
    names
}

/// Every page in `docs/` is a chapter of the book, once.
pub(crate) fn the_book_has_every_page(summary: &Source, files: &[Source]) -> Vec<Violation> {
    let mut found = Vec::new();
    for file in files {
        let Some(page) = file.path.strip_prefix("docs/").filter(|p| p.ends_with(".md") && *p != "SUMMARY.md") else {
            continue;
        };
        let times = summary.text.matches(&format!("]({page})")).count();
        if times != 1 {
            found.push(Violation::of(summary, 1, format!("{page} is in the summary {times} times, once is right")));
        }
    }
    found
}

/// Whether `tests/docs/run.py` runs the commands of this document.
fn is_run(path: &str) -> bool {
    path == "README.md" || ["docs/", "config/templates/"].iter().any(|p| path.starts_with(p)) && path.ends_with(".md")
}

/// A block says its language, and what is for a shell says so in one of the two
/// ways that are run.
pub(crate) fn commands_are_run(file: &Source) -> Vec<Violation> {
    const LANGUAGES: [&str; 9] = ["sh", "console", "text", "json", "toml", "yaml", "ini", "python", "js"];
    if !is_run(&file.path) {
        return Vec::new();
    }
    let mut found = Vec::new();
    let mut in_block = false;
    for (n, line) in file.text.lines().enumerate() {
        let Some(says) = line.trim_start().strip_prefix("```") else { continue };
        in_block = !in_block;
        let language = says.split_whitespace().next().unwrap_or("");
        if in_block && !LANGUAGES.contains(&language) {
            let wrong = format!("a block of {language:?}: commands are sh or console, all else one of {LANGUAGES:?}");
            found.push(Violation::of(file, n + 1, wrong));
        }
    }
    found
}

/// The targets of `[text](target)` in a line, code spans left out.
fn link_targets(line: &str) -> Vec<&str> {
    let mut targets = Vec::new();
    let mut rest = line;
    while let Some(i) = rest.find("](") {
        let in_code = rest[..i].matches('`').count() % 2 == 1;
        rest = &rest[i + 2..];
        let Some(end) = rest.find(')') else { break };
        if !in_code {
            targets.push(&rest[..end]);
        }
    }
    targets
}

/// `target` seen from the folder of the document at `path`.
fn beside(path: &str, target: &str) -> String {
    let mut parts: Vec<&str> = path.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    parts.join("/")
}

/// Whether the tree has this file or folder.
pub(crate) fn in_tree(path: &str) -> bool {
    root().join(path).exists()
}

/// Every `make target` that a document names is a target.
pub(crate) fn targets_exist(file: &Source, makefile: &str) -> Vec<Violation> {
    if !file.path.ends_with(".md") {
        return Vec::new();
    }
    let targets: BTreeSet<&str> = makefile
        .lines()
        .filter(|l| !l.starts_with([' ', '\t', '#', '.']))
        .filter_map(|l| Some(l.split_once(':')?.0))
        .collect();
    let mut found = Vec::new();
    for (n, line) in file.text.lines().enumerate() {
        for (i, _) in line.match_indices("`make ") {
            let named = line[i + 6..].split(['`', ' ']).next().unwrap_or("");
            if !named.is_empty() && !targets.contains(named) {
                found.push(Violation::of(file, n + 1, format!("the Makefile has no target `{named}`")));
            }
        }
    }
    found
}

/// The code names exactly the 26 operations, and so does the table in the
/// README, each once; of those that are not offered it says so.
pub(crate) fn readme_names_the_operations(readme: &Source, all: &[&str], offered: &BTreeSet<&str>) -> Vec<Violation> {
    let mut found = Vec::new();
    if all != OPERATIONS {
        found.push(Violation::of(readme, 1, "src/ops names other operations than the 26".to_owned()));
    }
    for name in OPERATIONS {
        let opening = format!("| `{name}` |");
        let rows: Vec<_> = readme.text.lines().enumerate().filter(|(_, l)| l.starts_with(&opening)).collect();
        let [(n, row)] = rows[..] else {
            found.push(Violation::of(
                readme,
                1,
                format!("{} rows for the operation `{name}`, one is right", rows.len()),
            ));
            continue;
        };
        if row.contains("not yet") == offered.contains(name) {
            found.push(Violation::of(
                readme,
                n + 1,
                format!("`{name}`: the table and the code disagree on whether it is offered"),
            ));
        }
    }
    let strangers = offered.iter().filter(|name| !OPERATIONS.contains(name));
    found.extend(strangers.map(|name| Violation::of(readme, 1, format!("`{name}` is not one of the 26 operations"))));
    found
}

/// Every module at the top of `src/` stands in the map of ARCHITECTURE.md.
pub(crate) fn the_map_is_whole(map: &Source, files: &[Source]) -> Vec<Violation> {
    let tops: BTreeSet<&str> = files
        .iter()
        .filter(|f| f.is_rust())
        .filter_map(|f| f.path.strip_prefix("src/"))
        .filter_map(|p| p.split('/').next())
        .collect();
    let missing = tops.into_iter().filter(|top| !map.text.contains(&format!("src/{top}")));
    missing.map(|top| Violation::of(map, 1, format!("src/{top} is not on the map"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_link_is_found() {
        let text = "# Here\n[a](../README.md) [b](gone.md#x) [c](https://example.org) `[d](no)` [e](#here) [f](#there)";
        let file = Source::new("docs/a.md", text);
        let found = links_lead_somewhere(&file, std::slice::from_ref(&file), |path| path != "docs/gone.md");
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].text.contains("gone.md") && found[1].text.contains("#there"));
    }

    #[test]
    fn headings_are_named_as_renderers_name_them() {
        let text = "# What's `up`, and what is_not\n## Same\n## Same\n```sh\n# no heading\n```\n#!/no\n";
        let names = headings(text);
        assert!(names.iter().map(String::as_str).eq(["same", "same-1", "whats-up-and-what-is_not"]), "{names:?}");
    }

    #[test]
    fn a_page_that_the_summary_lacks_or_doubles_is_found() {
        let files = ["docs/a.md", "docs/b.md", "docs/c.md", "docs/SUMMARY.md", "README.md"].map(|p| Source::new(p, ""));
        let summary = Source::new("docs/SUMMARY.md", "- [a](a.md)\n- [b](b.md)\n- [b again](b.md)\n");
        assert_eq!(the_book_has_every_page(&summary, &files).len(), 2);
    }

    #[test]
    fn a_block_that_would_not_be_run_is_found() {
        let text = "```sh\nls\n```\n```bash\nls\n```\n```\nls\n```\n```sh not-run=\"why\"\nls\n```\n";
        assert_eq!(commands_are_run(&Source::new("docs/a.md", text)).len(), 2);
        assert_eq!(commands_are_run(&Source::new("CONTRIBUTING.md", text)).len(), 0);
    }

    #[test]
    fn a_target_that_the_makefile_lacks_is_found() {
        let file = Source::new("README.md", "run `make demo` or `make tea SUGAR=1`");
        assert_eq!(targets_exist(&file, "demo: ## Show\n\techo: no\n").len(), 1);
    }

    #[test]
    fn a_missing_doubled_or_wrongly_offered_operation_is_found() {
        let row = |name: &str| format!("| `{name}` | what it does |\n");
        let table: String = OPERATIONS.iter().map(|n| row(n)).collect();
        let all: BTreeSet<&str> = OPERATIONS.into_iter().collect();
        let check = |text: &str, offered: &BTreeSet<&str>| {
            readme_names_the_operations(&Source::new("README.md", text), &OPERATIONS, offered).len()
        };
        assert_eq!(check(&table, &all), 0);
        assert_eq!(check(&table.replace(&row("task_list"), ""), &all), 1);
        assert_eq!(check(&format!("{table}{}", row("task_list")), &all), 1);
        let fewer: BTreeSet<&str> = all.iter().copied().filter(|n| *n != "task_list").collect();
        assert_eq!(check(&table, &fewer), 1);
        assert_eq!(check(&table.replace("`task_list` | what it does", "`task_list` | not yet"), &fewer), 0);
        let more: BTreeSet<&str> = all.iter().copied().chain(["task_guess"]).collect();
        assert_eq!(check(&table, &more), 1);
        let renamed = OPERATIONS.map(|name| if name == "task_list" { "tasks" } else { name });
        assert_eq!(readme_names_the_operations(&Source::new("README.md", &table), &renamed, &all).len(), 1);
    }

    #[test]
    fn a_module_that_is_not_on_the_map_is_found() {
        let map = Source::new("ARCHITECTURE.md", "src/net/ and src/main.rs");
        let files = ["src/net/mod.rs", "src/main.rs", "src/secret.rs"].map(|p| Source::new(p, "//! x"));
        assert_eq!(the_map_is_whole(&map, &files).len(), 1);
    }
}
