//! How files look: sizes, first lines, leftovers, names.

use super::Violation;
use super::source::{Source, is_word, lines_with_word};

/// A file that is longer has two subjects.
const FILE_LINES: usize = 700;
/// A function that is longer hides one.
const FUNCTION_LINES: usize = 70;
/// What fits side by side on a screen; rustfmt keeps code to it, this rule the rest.
const COLUMNS: usize = 120;
/// A sentence in a string stays in one line, so that a search finds it.
const COLUMNS_OF_LITERALS: usize = 160;

/// No file of code is too long.
pub(crate) fn files_are_short(file: &Source) -> Vec<Violation> {
    let lines = file.text.lines().count();
    if !file.is_rust() || lines <= FILE_LINES {
        return Vec::new();
    }
    vec![Violation::of(file, lines, format!("{lines} lines; {FILE_LINES} is the limit: split it by subject"))]
}

/// No line of code, protocol or script is too wide.
pub(crate) fn lines_are_narrow(file: &Source) -> Vec<Violation> {
    let bound = [".rs", ".proto", ".sh", ".py"].iter().any(|end| file.path.ends_with(end));
    if !bound {
        return Vec::new();
    }
    let limit = |line: &str| if line.contains('"') { COLUMNS_OF_LITERALS } else { COLUMNS };
    let wide = |line: &str| line.chars().count() > limit(line);
    let found = file.text.lines().enumerate().filter(|(_, line)| wide(line));
    found.map(|(n, line)| Violation::of(file, n + 1, format!("wider than {} columns", limit(line)))).collect()
}

/// Every module says what it is for.
pub(crate) fn modules_start_with_a_paragraph(file: &Source) -> Vec<Violation> {
    let first = file.text.lines().next().unwrap_or("");
    let said = first.strip_prefix("//!").is_some_and(|rest| rest.trim().len() > 10);
    if !file.is_rust() || said || file.path == "build.rs" && first.starts_with("//") {
        return Vec::new();
    }
    vec![Violation::of(file, 1, "starts with a `//!` paragraph: what is this module for?".to_owned())]
}

/// Nothing is left for later.
pub(crate) fn nothing_is_left_over(file: &Source) -> Vec<Violation> {
    let mut found = Vec::new();
    // Spelt in halves, so that this file keeps its own rule.
    for word in [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X"), concat!("HA", "CK")] {
        let lines = lines_with_word(&file.text, word, |_| true);
        found.extend(
            lines
                .into_iter()
                .map(|l| Violation::of(file, l, format!("{word} left: do it, or say what is missing in the docs"))),
        );
    }
    for name in ["dbg", "todo", "unimplemented"] {
        let lines = lines_with_word(&file.code, name, |rest| rest.starts_with('!'));
        found.extend(lines.into_iter().map(|l| Violation::of(file, l, format!("{name}! left"))));
    }
    for (n, line) in file.code.lines().enumerate() {
        if line.trim_start().starts_with("#[ignore") {
            found.push(Violation::of(file, n + 1, "an ignored test proves nothing".to_owned()));
        }
    }
    for place in [concat!("/wo", "rk/"), concat!("/ro", "ot/")] {
        for (n, _) in file.text.lines().enumerate().filter(|(_, line)| line.contains(place)) {
            found.push(Violation::of(file, n + 1, format!("{place}… is a place on one machine")));
        }
    }
    found
}

/// Tests wait for a condition with a deadline, never for a while.
pub(crate) fn tests_do_not_sleep(file: &Source) -> Vec<Violation> {
    // The one place that polls, with a deadline, for everybody.
    let polls = file.path.starts_with("tests/fleet/");
    if !file.path.starts_with("tests/") || polls {
        return Vec::new();
    }
    let lines = lines_with_word(&file.code, "sleep", |rest| rest.starts_with('('));
    let calls = lines.into_iter().filter(|n| !file.code.lines().nth(n - 1).is_some_and(|l| l.contains("fn sleep")));
    calls.map(|l| Violation::of(file, l, "a sleep: wait for a condition with a deadline".to_owned())).collect()
}

/// One word an idea, and no words that say nothing.
pub(crate) fn names_say_something(file: &Source) -> Vec<Violation> {
    let mut found = Vec::new();
    for (n, line) in file.code.lines().enumerate() {
        let mut words = line.split(|c: char| !is_word(c)).filter(|w| !w.is_empty());
        let Some(kind) = words.find(|w| ["fn", "struct", "enum", "trait", "mod", "type"].contains(w)) else { continue };
        let Some(name) = words.next() else { continue };
        if kind == "fn" && name.starts_with("get_") && !NAMES_OF_OTHERS.contains(&name) {
            found.push(Violation::of(file, n + 1, format!("`{name}`: say what it is, without get_")));
        }
        let empty = ["Manager", "Helper", "Util", "Utils", "Service"].iter().any(|end| name.ends_with(end));
        let empty_module = kind == "mod" && ["util", "utils", "helper", "helpers", "common", "misc"].contains(&name);
        if empty || empty_module {
            found.push(Violation::of(file, n + 1, format!("`{name}`: name the thing, not that it helps")));
        }
    }
    found
}

/// No function is too long.
pub(crate) fn functions_are_short(file: &Source) -> Vec<Violation> {
    let mut found = Vec::new();
    for (start, length, name) in functions(&file.code) {
        if length > FUNCTION_LINES {
            let said = format!("`{name}` has {length} lines; {FUNCTION_LINES} is the limit");
            found.push(Violation::of(file, start, said));
        }
    }
    found
}

/// Line, number of lines and name of every function with a body.
fn functions(code: &str) -> Vec<(usize, usize, String)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        if code[..at].chars().next_back().is_some_and(is_word) {
            continue;
        }
        let name: String = code[at + 3..].chars().take_while(|c| is_word(*c)).collect();
        let Some(body) = code[at..].find(['{', ';']).map(|i| at + i) else { continue };
        if name.is_empty() || code[body..].starts_with(';') {
            continue;
        }
        let line = code[..at].matches('\n').count() + 1;
        found.push((line, code[at..block_end(code, body)].matches('\n').count() + 1, name));
    }
    found
}

/// The end of the block that opens at byte `open`.
fn block_end(code: &str, open: usize) -> usize {
    let mut depth = 0;
    for (i, c) in code[open..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => return open + i,
            '}' => depth -= 1,
            _ => {}
        }
    }
    code.len()
}

/// Functions of foreign traits, named by their authors.
const NAMES_OF_OTHERS: [&str; 4] = ["get_info", "get_tool", "get_prompt", "get_task"];

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(rule: fn(&Source) -> Vec<Violation>, path: &str, text: &str) -> usize {
        rule(&Source::new(path, text)).len()
    }

    #[test]
    fn a_long_file_and_a_wide_line_are_found() {
        assert_eq!(problems(files_are_short, "src/a.rs", &"x\n".repeat(701)), 1);
        assert_eq!(problems(files_are_short, "src/a.rs", &"x\n".repeat(700)), 0);
        assert_eq!(problems(lines_are_narrow, "proto/a.proto", &"x".repeat(121)), 1);
        assert_eq!(problems(lines_are_narrow, "src/a.rs", &"…".repeat(120)), 0);
        assert_eq!(problems(lines_are_narrow, "src/a.rs", &format!("\"{}\"", "x".repeat(158))), 0);
        assert_eq!(problems(lines_are_narrow, "src/a.rs", &format!("\"{}\"", "x".repeat(159))), 1);
    }

    #[test]
    fn a_module_without_a_paragraph_is_found() {
        assert_eq!(problems(modules_start_with_a_paragraph, "src/a.rs", "use x;\n"), 1);
        assert_eq!(problems(modules_start_with_a_paragraph, "src/a.rs", "//! main\n"), 1);
        assert_eq!(problems(modules_start_with_a_paragraph, "src/a.rs", "//! What a node may be asked.\n"), 0);
    }

    #[test]
    fn leftovers_are_found() {
        let bad = [
            concat!("// TO", "DO: later"),
            concat!("# FIX", "ME"),
            "fn f() { dbg!(1); }",
            "fn f() { todo!() }",
            "#[ignore = \"slow\"]",
            concat!("let p = \"/wo", "rk/x\";"),
        ];
        for text in bad {
            assert_eq!(problems(nothing_is_left_over, "src/a.rs", text), 1, "{text}");
        }
        assert_eq!(problems(nothing_is_left_over, "src/a.rs", "//! A todo list is a queue.\n"), 0);
    }

    #[test]
    fn a_sleep_in_a_test_is_found() {
        assert_eq!(problems(tests_do_not_sleep, "tests/node/a.rs", "std::thread::sleep(D);"), 1);
        assert_eq!(problems(tests_do_not_sleep, "tests/node/a.rs", "let t = \"sleep(1)\"; asleep(2);"), 0);
    }

    #[test]
    fn empty_names_are_found() {
        for bad in ["fn get_job() {}", "pub struct TaskManager;", "mod utils;", "enum IoHelper {}"] {
            assert_eq!(problems(names_say_something, "src/a.rs", bad), 1, "{bad}");
        }
        assert_eq!(problems(names_say_something, "src/a.rs", "fn target() {}\nfn forget_task() {}"), 0);
    }

    #[test]
    fn a_long_function_is_found() {
        let long = format!("fn f() {{\n{}}}\nfn g();\n", "x;\n".repeat(69));
        assert_eq!(problems(functions_are_short, "src/a.rs", &long), 1);
        let short = format!("fn f() {{\n{}}}\n{}", "x;\n".repeat(68), "\n".repeat(80));
        assert_eq!(problems(functions_are_short, "src/a.rs", &short), 0);
    }
}
