//! Tests of the tree of commands and of what is made of it.
#![allow(clippy::unwrap_used)]

use super::exit::Exit;
use super::*;
use crate::ops::{self, Code};
use clap::CommandFactory as _;
use std::collections::BTreeSet;
use std::path::Path;

fn parsed(line: &str) -> Cli {
    Cli::try_parse_from(line.split_whitespace()).unwrap_or_else(|e| panic!("{line}: {e}"))
}

#[test]
fn the_tree_of_commands_is_sound() {
    Cli::command().debug_assert();
}

/// The operation that a command line calls.
fn called(line: &str) -> (&'static str, Value) {
    match parsed(line).command {
        Command::Task(command) => task_call(&command),
        Command::Queue(command) => queue_call(&command),
        Command::Worker(command) => worker_call(&command),
        Command::Peer(command) => peer_call(&command),
        Command::Workflow(command) => super::workflow::one_call(&command),
        other => panic!("{line} is {other:?}"),
    }
    .unwrap()
}

const PEER: &str = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";

/// One line for each operation that is offered.
fn lines() -> Vec<(&'static str, String)> {
    [
        ("task_submit", "task submit echo {\"a\":1} --tag x --durability local --cron @daily --catch-up one"),
        ("task_status", "task status t --explain"),
        ("task_cancel", "task cancel t --reason why --force"),
        ("task_list", "task list --status failed --tag a --tag b --limit 5"),
        ("task_priority", "task priority t 2.5 --requeue false"),
        ("task_result", "task result t --wait-ms 10"),
        ("queue_stats", "queue stats --include-worker-stats"),
        ("queue_pause", "queue pause --reason maintenance"),
        ("queue_resume", "queue resume"),
        ("queue_clear", "queue clear --status queued --confirm"),
        ("task_retry", "queue retry t"),
        ("worker_register", "worker register w echo exec:* --max-concurrent-tasks 2"),
        ("worker_unregister", "worker unregister w --graceful false"),
        ("worker_status", "worker status w --include-tasks"),
        ("workflow_submit", "workflow submit w --step {\"step_id\":\"a\",\"action\":\"echo\"} --dry-run"),
        ("workflow_status", "workflow status w --include-metrics"),
        ("workflow_cancel", "workflow cancel w --force"),
        ("workflow_list", "workflow list --status running --tag a"),
        ("workflow_dependencies", "workflow dependencies w --format mermaid"),
        ("workflow_result", "workflow result w --include-logs"),
        ("peer_discover", "peer discover --capability echo"),
        ("peer_connect", "peer connect PEER /ip4/127.0.0.1/tcp/1"),
        ("peer_disconnect", "peer disconnect PEER --graceful false"),
        ("peer_list", "peer list --sort-by latency"),
        ("peer_metrics", "peer metrics PEER"),
        ("bootstrap_network", "peer bootstrap /ip4/127.0.0.1/tcp/1"),
    ]
    .map(|(name, line)| (name, format!("taskmesh {line}").replace("PEER", PEER)))
    .to_vec()
}

#[test]
fn every_operation_has_a_command_whose_arguments_it_takes() {
    let mut seen = BTreeSet::new();
    for (name, line) in lines() {
        let (operation, arguments) = called(&line);
        assert_eq!(operation, name, "{line}");
        let Value::Object(arguments) = arguments else { panic!("{line} gives {arguments}") };
        if let Err(e) = ops::operation(name).unwrap().prepare(arguments) {
            panic!("{line}: {e}");
        }
        seen.insert(name);
    }
    assert_eq!(seen, ops::offered().iter().map(|o| o.name).collect());
}

#[test]
fn flags_of_up_are_settings() {
    let line = "taskmesh up --data-dir /d --seed /ip4/1.2.3.4/tcp/1 --listen /ip4/0.0.0.0/tcp/0 --api 127.0.0.1:0 \
        --metrics 127.0.0.1:0 --exec-allow ls --exec-allow a,b --slots 3 --label zone=a --label disk=ssd --name n \
        --log debug --external /ip4/9.9.9.9/tcp/1 --set mesh.holders=5";
    let cli = parsed(line);
    let Command::Up(args) = &cli.command else { panic!("not up") };
    let flags = cli.global.settings().into_iter().chain(args.settings()).collect();
    let config = Config::load(&Inputs { flags, ..Inputs::default() }).unwrap();
    assert_eq!(config.node.data_dir, Path::new("/d"));
    assert_eq!(config.net.seeds, ["/ip4/1.2.3.4/tcp/1"]);
    assert_eq!(config.net.listen, ["/ip4/0.0.0.0/tcp/0"]);
    assert_eq!(config.net.external, ["/ip4/9.9.9.9/tcp/1"]);
    assert_eq!((config.api.listen.port(), config.metrics.listen.port()), (0, 0));
    assert_eq!(config.exec.allow, ["ls", "a,b"]);
    assert_eq!((config.worker.slots, config.mesh.holders), (3, 5));
    assert_eq!(config.worker.labels.len(), 2);
    assert_eq!((config.node.name.as_str(), config.log.level.as_str()), ("n", "debug"));
}

#[test]
fn toolsets_are_named_the_same_everywhere() {
    assert_eq!(crate::config::settings::TOOLSETS, ops::Toolset::ALL.map(ops::Toolset::name));
    let Command::Mcp(args) = parsed("taskmesh mcp --toolsets task,queue --read-only").command else {
        panic!("not mcp")
    };
    assert_eq!((args.toolsets, args.read_only), (vec!["task".to_owned(), "queue".to_owned()], true));
    assert!(Cli::try_parse_from(["taskmesh", "mcp", "--toolsets", "taks"]).is_err());
    let data = ("--data-dir", "node.data_dir", "/d");
    let flags = [data, ("--set", "api.toolsets", "task,worker"), ("--set", "api.read_only", "true")];
    let flags = flags.map(|(flag, key, value)| (flag.to_owned(), key.to_owned(), value.to_owned())).to_vec();
    let config = Config::load(&Inputs { flags, ..Inputs::default() }).unwrap();
    assert_eq!((config.api.toolsets, config.api.read_only), (vec!["task".to_owned(), "worker".to_owned()], true));
}

#[test]
fn a_program_keeps_its_own_flags() {
    let cli = parsed("taskmesh submit --wait --json -- ls --json -l");
    assert!(cli.global.json);
    assert!(matches!(cli.command, Command::Submit(_)));
}

#[test]
fn each_code_has_its_exit_status_and_they_are_all_listed() {
    let listed: BTreeSet<u8> = exit::table().iter().map(|(status, _, _)| *status).collect();
    assert_eq!(listed.len(), Code::ALL.len() + 2);
    for code in Code::ALL {
        assert_eq!(Exit::with(code, "x").status(), code.meaning().exit);
        assert!(listed.contains(&code.meaning().exit));
    }
    assert_eq!((Exit::Ended { summary: String::new() }.status(), Exit::usage("x").status()), (1, 2));
}

#[test]
fn the_reference_is_what_the_program_says() {
    for (name, wanted) in [("docs/cli.md", reference::markdown()), ("docs/config.md", reference::settings())] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(&path, &wanted).unwrap();
        }
        let there = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(there == wanted, "{name} is not what the program says; repeat with BLESS=1 to rewrite it");
    }
}

#[test]
fn completions_and_man_pages_are_made_for_every_command() {
    for shell in [clap_complete::Shell::Bash, clap_complete::Shell::Zsh, clap_complete::Shell::Fish] {
        let script = reference::completions(shell);
        assert!(script.contains("worker") && script.contains("exec-allow"), "{shell}");
    }
    let folder = tempfile::tempdir().unwrap();
    reference::man(Some(&folder.path().join("man1"))).unwrap();
    let pages = std::fs::read_dir(folder.path().join("man1")).unwrap().count();
    assert!(pages > 30, "{pages}");
}
