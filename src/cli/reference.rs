//! What is generated from the tree of commands and the table of settings:
//! `docs/cli.md`, `docs/config.md`, the man pages and the completions.

use super::Cli;
use super::exit::{self, Exit};
use super::output;
use clap::builder::StyledStr;
use clap::{Arg, ArgAction, Command, CommandFactory};
use std::fmt::Write as _;
use std::path::Path;

/// The completion script for `shell`.
#[must_use]
pub fn completions(shell: clap_complete::Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "taskmesh", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// The man page on standard output, or all of them in the folder `dir`.
pub(super) fn man(dir: Option<&Path>) -> Result<(), Exit> {
    let Some(dir) = dir else {
        let mut page = Vec::new();
        let rendered = clap_mangen::Man::new(Cli::command()).render(&mut page);
        rendered.map_err(|e| Exit::internal(format!("can't write the man page: {e}")))?;
        return output::bytes(&page);
    };
    let written = std::fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(Cli::command(), dir));
    written.map_err(|e| Exit::usage(format!("can't write into {}: {e}", dir.display())))
}

/// `docs/cli.md`.
#[must_use]
pub fn markdown() -> String {
    let mut root = Cli::command().disable_help_subcommand(true);
    root.build();
    let mut page = HEAD.to_owned();
    for (status, name, meaning) in exit::table() {
        let _ = writeln!(page, "| {status} | {name} | {meaning} |");
    }
    page.push_str("\n## Global options\n\n");
    options(&mut page, root.get_arguments().filter(|a| a.is_global_set()));
    page.push_str("\n## Commands\n");
    for command in root.get_subcommands().filter(|c| !c.is_hide_set()) {
        section(&mut page, command, "taskmesh");
    }
    page
}

/// `docs/config.md`.
#[must_use]
pub fn settings() -> String {
    let mut page = SETTINGS_HEAD.to_owned();
    for setting in crate::config::settings::SETTINGS {
        let (key, env, range) = (setting.key, setting.env(), escaped(&setting.kind.range()));
        let _ = writeln!(page, "| `{key}` | `{env}` | {range} | {} |", escaped(setting.about));
    }
    page
}

const HEAD: &str = "\
# The command line

Written from the program itself: `BLESS=1 cargo test --lib cli::` writes it anew.

`taskmesh up` is a node. Every other command asks a node that runs: the one whose data folder is given (`--data-dir`,
`TASKMESH_NODE_DATA_DIR`, or the default), or the one at `--url` with `--token`. Any node answers for the whole mesh.

Answers are on standard output, as a table or, with `--json`, as the [operation's](operations.md) own object; with
`--json`, `--wait` and an array there is one object for each task, in order. All else is on standard error. Colours
are for terminals, and not if `NO_COLOR` is set. What `--set` takes is in [config.md](config.md).

## Exit status

| status | name | meaning |
|---|---|---|
";

const SETTINGS_HEAD: &str = "\
# Settings

Written from the program itself: `BLESS=1 cargo test --lib cli::` writes it anew.

A flag wins over the environment, that over the file, that over the default. The file is TOML, with a section for what
is before the dot: `config/example.toml` has every key with its default. It is the one given with `--config` or
`TASKMESH_CONFIG`, else `taskmesh/config.toml` in `$XDG_CONFIG_HOME` or `~/.config`. In the environment and after
`--set`, texts need no quotes, lists no brackets (`a,b`) and tables no braces (`a=1,b=2`).

`taskmesh config show` prints what is in force, and from where; `taskmesh config check` says what is wrong. A node reads
its settings when it starts.

| key | variable | must be | meaning |
|---|---|---|---|
";

fn section(page: &mut String, command: &Command, parent: &str) {
    let name = format!("{parent} {}", command.get_name());
    let _ = write!(page, "\n### `{name}`\n\n");
    if let Some(about) = command.get_long_about().or(command.get_about()) {
        let _ = write!(page, "{}\n\n", plain(about));
    }
    if command.has_subcommands() {
        for child in command.get_subcommands().filter(|c| !c.is_hide_set()) {
            section(page, child, &name);
        }
        return;
    }
    let usage = plain(&command.clone().bin_name(&name).render_usage());
    let _ = write!(page, "```text\n{}\n```\n\n", usage.trim_start_matches("Usage: "));
    options(page, command.get_arguments().filter(|a| !a.is_global_set()));
}

fn options<'a>(page: &mut String, arguments: impl Iterator<Item = &'a Arg>) {
    let shown = arguments.filter(|a| !a.is_hide_set() && !matches!(a.get_id().as_str(), "help" | "version"));
    let rows: Vec<String> = shown.map(row).collect();
    if rows.is_empty() {
        return;
    }
    let _ = write!(page, "| argument | default | meaning |\n|---|---|---|\n{}", rows.concat());
}

fn row(argument: &Arg) -> String {
    let takes = matches!(argument.get_action(), ArgAction::Set | ArgAction::Append);
    let value = argument.get_value_names().and_then(|names| names.first()).map(ToString::to_string);
    let value = value.unwrap_or_else(|| argument.get_id().as_str().to_uppercase());
    let name = match argument.get_long() {
        Some(long) if takes => format!("--{long} <{value}>"),
        Some(long) => format!("--{long}"),
        None => format!("<{value}>"),
    };
    let defaults: Vec<_> = argument.get_default_values().iter().map(|v| v.to_string_lossy()).collect();
    let default = match (defaults.is_empty() || !takes, argument.is_required_set()) {
        (false, _) => format!("`{}`", defaults.join(",")),
        (true, true) => "required".to_owned(),
        (true, false) => String::new(),
    };
    let help = argument.get_long_help().or(argument.get_help()).map(plain).unwrap_or_default();
    let choices = argument.get_possible_values();
    let mut meaning = escaped(&help);
    if !meaning.is_empty() && !meaning.ends_with('.') {
        meaning.push('.');
    }
    if takes && !choices.is_empty() && choices.iter().all(|c| !matches!(c.get_name(), "true" | "false")) {
        let names: Vec<_> =
            choices.iter().filter(|c| !c.is_hide_set()).map(|c| format!("`{}`", c.get_name())).collect();
        let _ = write!(meaning, " One of {}.", names.join(", "));
    }
    if let Some(variable) = argument.get_env() {
        let _ = write!(meaning, " Variable: `{}`.", variable.to_string_lossy());
    }
    format!("| `{name}` | {default} | {meaning} |\n")
}

fn plain(text: &StyledStr) -> String {
    text.to_string().trim().to_owned()
}

/// On one line, in a cell of a table.
fn escaped(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|").replace('<', "\\<").replace('*', "\\*")
}
