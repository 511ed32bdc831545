//! Who may name whom: imports go downwards, and each foreign crate stays
//! behind the module that owns it.

use super::Violation;
use super::source::{Source, is_word, lines_with_word};

/// For each module of the shell, the modules of this crate that it may name.
/// What stands in no list may be named by nobody.
const MAY_NAME: &[(&str, &[&str])] = &[
    ("config", &[]),
    ("ops", &[]),
    ("store", &["config"]),
    ("net", &["config"]),
    ("exec", &["config"]),
    ("telemetry", &["config"]),
    ("templates", &[]),
    ("driver", &["config", "store", "net", "exec", "telemetry", "templates"]),
    ("api", &["config", "ops", "driver", "telemetry", "templates"]),
    ("cli", &["config", "ops", "driver", "telemetry", "api", "store", "net", "exec", "templates"]),
    ("fuzzing", &["ops", "store", "net", "api"]),
    ("lib", &["config", "ops", "store", "net", "exec", "telemetry", "templates", "driver", "api", "cli"]),
    ("main", &["cli"]),
];

/// For each foreign crate that has an owner: where its name may stand.
const CRATE_HOME: &[(&str, &[&str])] = &[
    ("libp2p", &["src/net/"]),
    ("libp2p_stream", &["src/net/"]),
    ("yamux", &["src/net/"]),
    ("sled", &["src/store/"]),
    ("bincode", &["src/store/"]),
    ("axum", &["src/api/"]),
    ("rmcp", &["src/api/", "src/exec/mcp.rs"]),
    ("jsonwebtoken", &["src/api/"]),
    ("clap", &["src/cli/", "src/ops/"]),
    ("clap_complete", &["src/cli/"]),
    ("clap_mangen", &["src/cli/"]),
    ("prost", &["src/net/wire"]),
    ("ratatui", &["src/cli/top/"]),
    ("serde_saphyr", &["src/templates"]),
    ("opentelemetry", &["src/telemetry/"]),
    ("opentelemetry_sdk", &["src/telemetry/"]),
    ("opentelemetry_http", &["src/telemetry/"]),
    ("opentelemetry_otlp", &["src/telemetry/"]),
];

/// What would let time, chance, IO or an unstable order into the core.
const NOT_IN_CORE: &[&str] =
    &["Instant", "SystemTime", "HashMap", "HashSet", "RandomState", "async", "await", "tokio", "rand", "getrandom"];

/// Modules of `std` that the core has no business with.
const NOT_IN_CORE_STD: &[&str] = &["thread", "net", "fs", "process", "env", "io", "os"];

/// The module of the shell that a file of `src/` belongs to.
fn module_of(path: &str) -> Option<&str> {
    let inside = path.strip_prefix("src/")?;
    let head = inside.split('/').next()?;
    (head != "core").then(|| head.strip_suffix(".rs").unwrap_or(head))
}

/// Imports go downwards only, and `net`, `store`, `exec`, `ops` never name each other.
pub(crate) fn imports_go_downwards(file: &Source) -> Vec<Violation> {
    let Some(module) = module_of(&file.path) else { return Vec::new() };
    let Some((_, allowed)) = MAY_NAME.iter().find(|(name, _)| *name == module) else {
        return vec![Violation::of(
            file,
            1,
            format!("module `{module}` has no line in tests/tidy/layers.rs: say what it may name"),
        )];
    };
    let mut found = Vec::new();
    for (line, name) in named_modules(&file.code) {
        let known = MAY_NAME.iter().any(|(m, _)| *m == name);
        if known && name != module && !allowed.contains(&name.as_str()) {
            found.push(Violation::of(file, line, format!("`{module}` must not name `{name}`: imports go downwards")));
        }
    }
    found
}

/// What follows `crate::` or `taskmesh::`, with its line; groups are opened.
fn named_modules(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for root in ["crate::", "taskmesh::"] {
        for (start, _) in code.match_indices(root) {
            if code[..start].chars().next_back().is_some_and(is_word) {
                continue;
            }
            let line = code[..start].matches('\n').count() + 1;
            let rest = &code[start + root.len()..];
            let names = match rest.strip_prefix('{') {
                Some(group) => group_heads(group),
                None => vec![rest.chars().take_while(|c| is_word(*c)).collect()],
            };
            found.extend(names.into_iter().map(|name| (line, name)));
        }
    }
    found
}

/// `a::{b, c}, d}` → `a`, `d`.
fn group_heads(group: &str) -> Vec<String> {
    let mut heads = vec![String::new()];
    let mut depth = 0;
    let mut in_head = true;
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                heads.push(String::new());
                in_head = true;
            }
            c if in_head && is_word(c) => heads.last_mut().expect("starts with one").push(c),
            c if c.is_whitespace() => {}
            _ => in_head = false,
        }
    }
    heads
}

/// Each foreign crate stays behind its module.
pub(crate) fn crates_stay_home(file: &Source) -> Vec<Violation> {
    if !file.path.starts_with("src/") {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (name, homes) in CRATE_HOME {
        if homes.iter().any(|home| file.path.starts_with(home)) {
            continue;
        }
        let path_follows = |rest: &str| rest.starts_with("::");
        let mut lines = lines_with_word(&file.code, name, path_follows);
        lines.extend(file.code.lines().enumerate().filter(|(_, l)| imports(l, name)).map(|(n, _)| n + 1));
        lines.sort_unstable();
        lines.dedup();
        let homes = homes.join(" or ");
        found.extend(lines.into_iter().map(|line| Violation::of(file, line, format!("`{name}` only under {homes}"))));
    }
    found
}

/// `use name;` and `use name as …`.
fn imports(line: &str, name: &str) -> bool {
    let Some((_, rest)) = line.split_once("use ") else { return false };
    rest.trim_start().strip_prefix(name).is_some_and(|rest| rest.starts_with(';') || rest.starts_with(" as "))
}

/// The core is a function of its inputs.
pub(crate) fn core_is_pure(file: &Source) -> Vec<Violation> {
    if !file.path.starts_with("src/core/") || !file.is_rust() {
        return Vec::new();
    }
    let mut found = Vec::new();
    for word in NOT_IN_CORE {
        for line in lines_with_word(&file.code, word, |_| true) {
            found.push(Violation::of(file, line, format!("`{word}` in the core: it is a function of its inputs")));
        }
    }
    for module in NOT_IN_CORE_STD {
        for (line, _) in std_paths(&file.code).into_iter().filter(|(_, name)| name == module) {
            found.push(Violation::of(
                file,
                line,
                format!("`std::{module}` in the core: it is a function of its inputs"),
            ));
        }
    }
    found
}

fn std_paths(code: &str) -> Vec<(usize, String)> {
    named_modules(&code.replace("std::", "crate::"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(rule: fn(&Source) -> Vec<Violation>, path: &str, text: &str) -> usize {
        rule(&Source::new(path, text)).len()
    }

    #[test]
    fn an_import_upwards_or_sideways_is_found() {
        let rule = imports_go_downwards;
        assert_eq!(problems(rule, "src/net/actor.rs", "use crate::store::Store;"), 1);
        assert_eq!(problems(rule, "src/store/mod.rs", "fn f() { crate::driver::go() }"), 1);
        assert_eq!(problems(rule, "src/exec/mod.rs", "use crate::{config::Exec, net::{Actor, wire}, ops};"), 2);
        assert_eq!(problems(rule, "src/driver.rs", "use crate::api::http;"), 1);
        assert_eq!(problems(rule, "src/newcomer.rs", ""), 1);
        assert_eq!(
            problems(rule, "src/net/actor.rs", "use crate::net::wire; // crate::store\nlet s = \"crate::api\";"),
            0
        );
        assert_eq!(problems(rule, "src/api/mod.rs", "use crate::driver::Handle;"), 0);
    }

    #[test]
    fn a_crate_away_from_home_is_found() {
        let rule = crates_stay_home;
        assert_eq!(problems(rule, "src/driver.rs", "use libp2p::PeerId;"), 1);
        assert_eq!(problems(rule, "src/net/mod.rs", "let db = sled::open(p);"), 1);
        assert_eq!(problems(rule, "src/api/mod.rs", "use prost as p;"), 1);
        assert_eq!(problems(rule, "src/config.rs", "#[derive(clap::Args)]"), 1);
        assert_eq!(problems(rule, "src/exec/mod.rs", "use rmcp;"), 1);
        assert_eq!(problems(rule, "src/exec/mcp.rs", "use rmcp;"), 0);
        assert_eq!(problems(rule, "src/net/mod.rs", "use libp2p::PeerId; let libp2p = 1; // sled::x"), 0);
    }

    #[test]
    fn time_chance_and_io_in_the_core_are_found() {
        let rule = core_is_pure;
        for bad in [
            "use std::time::Instant;",
            "let m: HashMap<u8, u8>;",
            "async fn f() {}",
            "use std::{fs, fmt};",
            "std::thread::spawn(f)",
            "let x = rand::random();",
            "std::env::var(n)",
        ] {
            assert_eq!(problems(rule, "src/core/node.rs", bad), 1, "{bad}");
        }
        assert_eq!(problems(rule, "src/core/node.rs", "use std::collections::BTreeMap; // no HashMap"), 0);
        assert_eq!(problems(rule, "src/driver.rs", "use std::time::Instant;"), 0);
    }
}
