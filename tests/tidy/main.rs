//! Rules of the tree that the compiler does not know: who may name whom, how
//! files look, and that the documents speak of what is there. Every rule is
//! shown to fail on a planted bad snippet beside it.

mod docs;
mod layers;
mod source;
mod style;
mod watch;

use source::{Source, tree};
use std::collections::BTreeSet;
use std::fmt;

/// One break of one rule.
#[derive(Debug)]
pub(crate) struct Violation {
    path: String,
    line: usize,
    text: String,
}

impl Violation {
    pub(crate) fn of(file: &Source, line: usize, text: String) -> Violation {
        Violation { path: file.path.clone(), line, text }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.text)
    }
}

/// Applies `rule` to every file, and shows all that it finds at once.
fn hold(rule: impl Fn(&Source) -> Vec<Violation>) {
    let files = tree();
    assert!(files.iter().any(|f| f.path == "src/core/lib.rs"), "the walk found the tree");
    report(files.iter().flat_map(rule).collect());
}

fn report(found: Vec<Violation>) {
    let lines: Vec<_> = found.iter().map(ToString::to_string).collect();
    assert!(lines.is_empty(), "{} breaks of this rule:\n{}", lines.len(), lines.join("\n"));
}

fn file(path: &str) -> &'static Source {
    tree().iter().find(|f| f.path == path).unwrap_or_else(|| panic!("{path} is in the tree"))
}

#[test]
fn imports_go_downwards() {
    hold(layers::imports_go_downwards);
}

#[test]
fn foreign_crates_stay_behind_their_module() {
    hold(layers::crates_stay_home);
}

#[test]
fn the_core_is_a_function_of_its_inputs() {
    hold(layers::core_is_pure);
}

#[test]
fn files_are_short() {
    hold(style::files_are_short);
}

#[test]
fn functions_are_short() {
    hold(style::functions_are_short);
}

#[test]
fn lines_are_narrow() {
    hold(style::lines_are_narrow);
}

#[test]
fn modules_start_with_a_paragraph() {
    hold(style::modules_start_with_a_paragraph);
}

#[test]
fn nothing_is_left_over() {
    hold(style::nothing_is_left_over);
}

#[test]
fn tests_do_not_sleep() {
    hold(style::tests_do_not_sleep);
}

#[test]
fn names_say_something() {
    hold(style::names_say_something);
}

#[test]
fn links_of_the_documents_lead_somewhere() {
    hold(|file| docs::links_lead_somewhere(file, tree(), docs::in_tree));
}

#[test]
fn the_book_has_every_page() {
    report(docs::the_book_has_every_page(file("docs/SUMMARY.md"), tree()));
}

#[test]
fn commands_of_the_documents_are_run() {
    hold(docs::commands_are_run);
}

#[test]
fn targets_that_the_documents_name_exist() {
    let makefile = &file("Makefile").text;
    hold(|file| docs::targets_exist(file, makefile));
}

#[test]
fn the_readme_names_the_26_operations() {
    let offered: BTreeSet<&str> = taskmesh::ops::offered().iter().map(|operation| operation.name).collect();
    report(docs::readme_names_the_operations(file("README.md"), &taskmesh::ops::ALL, &offered));
}

#[test]
fn rules_and_dashboards_name_metrics_that_there_are() {
    let is_watch = |file: &&Source| ["deploy/prometheus/", "deploy/grafana/"].iter().any(|p| file.path.starts_with(p));
    let watches: Vec<_> = tree().iter().filter(is_watch).collect();
    let known = watch::Known::of(&file("docs/metrics.md").text, watches.iter().copied());
    assert!(known.len() > 50, "the tables of docs/metrics.md were read");
    let count = |end: &str| -> usize {
        watches.iter().filter(|f| f.path.ends_with(end)).map(|f| watch::expressions(f).len()).sum()
    };
    assert!(count(".yml") > 50 && count(".json") > 50, "the expressions were found");
    report(watches.iter().flat_map(|file| watch::expressions_name_what_there_is(file, &known)).collect());
}

#[test]
fn rules_have_tests() {
    let tests = &file("deploy/prometheus/tests/taskmesh.yml").text;
    let rules = tree().iter().filter(|file| file.path.starts_with("deploy/prometheus/rules/"));
    report(rules.flat_map(|file| watch::rules_are_tested(file, tests)).collect());
}

#[test]
fn the_map_of_the_architecture_is_whole() {
    report(docs::the_map_is_whole(file("ARCHITECTURE.md"), tree()));
}
