//! `config/example.toml`, written from the table of settings.

use super::Config;
use super::settings::SETTINGS;
use std::fmt::Write as _;

/// `config/example.toml`: every key with its meaning, its range, its variable
/// and, commented out, its default.
#[must_use]
pub fn example(defaults: &Config) -> String {
    let mut text = EXAMPLE_HEAD.to_owned();
    let mut section = "";
    for setting in SETTINGS {
        if setting.section() != section {
            section = setting.section();
            let _ = write!(text, "\n[{section}]\n");
        }
        for line in setting.about.lines() {
            let _ = writeln!(text, "# {line}");
        }
        let value = setting.example.map_or_else(|| setting.value(defaults).to_string(), str::to_owned);
        let _ = writeln!(text, "# ({}; {})", setting.kind.range(), setting.env());
        let _ = writeln!(text, "#{} = {value}", setting.name());
    }
    text
}

const EXAMPLE_HEAD: &str = "\
# Every setting of a taskmesh node, with its default. Nothing here has to be
# set: `taskmesh up` works without a file. Each line says what it means, what
# it may be, and the environment variable that overrides it.
#
# The first that there is of these wins: a flag, the environment, the file, the
# default. The file is the one given with `--config` or TASKMESH_CONFIG, else
# $XDG_CONFIG_HOME/taskmesh/config.toml (~/.config/taskmesh/config.toml).
# `taskmesh config check` reads it and says what is wrong; `taskmesh config
# show` prints what is in force, and from where.
";
