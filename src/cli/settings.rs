//! `config show` and `config check`.

use super::exit::Exit;
use super::output::{self, Form};
use super::tree::{ConfigCommand, Global};
use crate::config::Source;
use crate::config::settings::SETTINGS;
use serde_json::json;

pub(super) fn run(global: &Global, command: &ConfigCommand) -> Result<(), Exit> {
    let config = super::load(global, &[])?;
    let form = Form::of(global.json);
    let chosen = SETTINGS.iter().filter(|s| config.source(s.key) != &Source::Default).count();
    match (command, form) {
        (ConfigCommand::Check, Form::Json) => output::json(&json!({ "success": true, "chosen": chosen })),
        (ConfigCommand::Check, Form::Human) => {
            output::raw(&format!("the settings are right: {chosen} chosen, {} by default\n", SETTINGS.len() - chosen))
        }
        (ConfigCommand::Show, Form::Json) => {
            let entry = |s: &crate::config::settings::Setting| {
                let source = config.source(s.key).to_string();
                json!({ "key": s.key, "value": s.value(&config), "source": source, "env": s.env(), "range": s.kind.range() })
            };
            output::json(&json!({ "success": true, "settings": SETTINGS.iter().map(entry).collect::<Vec<_>>() }))
        }
        (ConfigCommand::Show, Form::Human) => {
            let row = |s: &crate::config::settings::Setting| {
                vec![s.key.to_owned(), s.value(&config).to_string(), config.source(s.key).to_string()]
            };
            output::raw(&output::plain_table(
                &["key", "value", "source"],
                &SETTINGS.iter().map(row).collect::<Vec<_>>(),
            ))
        }
    }
}
